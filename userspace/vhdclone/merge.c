// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone merge */
#include "active.h"
#include "children.h"
#include "depend.h"
#include "merge.h"
#include "options.h"
#include "reparent.h"

enum {
	OPT_INTO = OPT_OWN,
	OPT_TO,
	OPT_SCAN,
	OPT_DELETE,
};

static const struct option merge_options[] = {
	{ "base", required_argument, NULL, OPT_INTO },
	{ "parent", required_argument, NULL, OPT_INTO },
	{ "to", required_argument, NULL, OPT_TO },
	{ "scan", required_argument, NULL, OPT_SCAN },
	{ "delete", no_argument, NULL, OPT_DELETE },
	{ "dry-run", no_argument, NULL, 'n' },
	{ }
};

/**
 * struct merge_args - a merge
 * @into: the layer that the user named, NULL: the parent
 * @to: a new image instead
 * @base: index of the layer
 * @scan: directories that may have children
 */
struct merge_args {
	struct options *options;
	struct vc_chain chain;
	const char *into;
	const char *to;
	unsigned int base;
	const char **scan;
	unsigned int nr_scan;
	bool delete;
	bool dry_run;
};

static void merge_parse(struct merge_args *args)
{
	int opt;

	while ((opt = options_next(args->options, merge_options)) != -1) {
		switch (opt) {
		case OPT_INTO:
			args->into = optarg;
			break;
		case OPT_TO:
			args->to = optarg;
			break;
		case OPT_SCAN:
			list_push(&args->scan, &args->nr_scan, optarg);
			break;
		case OPT_DELETE:
			args->delete = true;
			break;
		case 'n':
			args->dry_run = true;
			break;
		}
	}
}

static int merge_check_usage(const struct merge_args *args)
{
	const struct options *options = args->options;

	if (!args->to && (options->typed || options->convert.block_size ||
			  options->convert.force))
		return usage_error(options->cmd, "--type, --block-size and --force need --to");
	if (args->to && args->delete)
		return usage_error(options->cmd, "--delete does not go with --to");
	return 0;
}

/* ---- the chain, and who else stands on it ------------------------------------------- */

static int merge_find_base(struct merge_args *args, struct vc_err *err)
{
	struct vc_chain *chain = &args->chain;
	struct vc_file file;
	unsigned int i;
	int ret;

	if (chain->nr < 2)
		return vc_error(err, EINVAL, chain->layer[0]->file.path, "has no parent");
	args->base = 1;
	if (!args->into)
		return 0;
	ret = vc_file_open(&file, args->into, 0, NULL, err);
	for (i = 1; !ret && i < chain->nr; i++)
		if (vc_file_same(&chain->layer[i]->file, &file))
			break;
	if (!ret && i == chain->nr)
		ret = vc_error(err, EINVAL, args->into, "is no layer below %s",
			       chain->layer[0]->file.path);
	args->base = i;
	vc_file_close(&file);
	return ret;
}

static bool merge_is_layer(const struct vc_child *child, const struct vc_image *layer)
{
	return child->ino && child->ino == layer->file.ino && child->dev == layer->file.dev;
}

static void merge_print_child(const struct vc_child *child, const struct vc_image *base)
{
	fputs("  ", stderr);
	print_clean(stderr, child->path);
	fputs(" stands on ", stderr);
	print_clean(stderr, base->file.path);
	if (child->open_as)
		fprintf(stderr, ", open as %s", child->open_as);
	putc('\n', stderr);
}

/* Others that stand on a layer whose content changes; print them. */
static int merge_others(const struct merge_args *args, unsigned int layer,
			unsigned int *nr, struct vc_err *err)
{
	const struct vc_image *base = args->chain.layer[layer];
	const struct vc_image *own = args->chain.layer[layer - 1];
	struct vc_children children = { };
	unsigned int i;
	int ret;

	ret = vc_children_find(base, args->scan, args->nr_scan, &children, err);
	for (i = 0; !ret && i < children.nr; i++) {
		/* One that expects another content has lost its parent before. */
		if (children.child[i].mismatch || merge_is_layer(&children.child[i], own))
			continue;
		(*nr)++;
		merge_print_child(&children.child[i], base);
	}
	vc_children_free(&children);
	return ret;
}

static int merge_check_use(const struct merge_args *args, struct vc_err *err)
{
	unsigned int nr = 0;
	unsigned int i;
	int ret = 0;

	for (i = 0; i <= args->base && !ret; i++)
		ret = vc_active_refuse_any(&args->chain.layer[i]->file, err);
	for (i = 1; i <= args->base && !ret; i++)
		ret = merge_others(args, i, &nr, err);
	if (!ret && nr)
		ret = vc_error(err, EBUSY, args->chain.layer[args->base]->file.path,
			       "%u other image%s would read something else after the merge: merge with --to",
			       nr, nr > 1 ? "s" : "");
	return ret;
}

/* ---- what is not needed any more ------------------------------------------------------ */

/* Children of the top read the same from the base: there they go. */
static int merge_move_children(struct merge_args *args, struct vc_err *err)
{
	struct vc_chain *chain = &args->chain;
	struct vc_children children = { };
	struct vc_chain child;
	unsigned int i;
	int ret;

	ret = vc_children_find(chain->layer[0], args->scan, args->nr_scan, &children, err);
	for (i = 0; !ret && i < children.nr; i++) {
		if (children.child[i].mismatch)
			continue;
		child = (struct vc_chain){ .nr = 1 };
		ret = vc_image_open(&child.layer[0], children.child[i].path, VC_IMAGE_REPLAY,
				    NULL, err);
		if (ret)
			break;
		ret = vc_active_refuse_any(&child.layer[0]->file, err);
		if (!ret)
			ret = vc_chain_writable(&child, 0, err);
		if (!ret)
			ret = vc_reparent(child.layer[0], chain->layer[args->base], err);
		vc_chain_close(&child);
	}
	vc_children_free(&children);
	return ret;
}

static int merge_delete(struct merge_args *args, struct vc_err *err)
{
	struct vc_chain *chain = &args->chain;
	struct vc_err ignored;
	unsigned int i;
	int ret;

	ret = merge_move_children(args, err);
	for (i = 0; i < args->base && !ret; i++) {
		struct vc_file *file = &chain->layer[i]->file;

		if (file->is_block)
			continue;
		ret = vc_remove_file(file, err);
		if (!ret)
			vc_children_remove(&chain->layer[i + 1]->file, file->real, &ignored);
		else
			vc_error_append(err, "; it was merged all the same");
	}
	return ret;
}

/* ---- both ways -------------------------------------------------------------------------- */

static int merge_report(const struct merge_args *args, const struct vc_merge_plan *plan)
{
	const char *base = args->chain.layer[args->base]->file.real;
	char bytes[VC_SIZE_TEXT], needed[VC_SIZE_TEXT], found[VC_SIZE_TEXT];
	struct json_object *json;

	if (args->options->json) {
		json = json_new();
		json_add_string(json, "path", args->chain.layer[0]->file.path);
		json_add_string(json, "base", base);
		json_add_number(json, "layers", args->base);
		json_add_bool(json, "dry-run", args->dry_run);
		json_add_number(json, "bytes", plan->bytes);
		json_add_number(json, "space-needed", plan->needed);
		json_add_number(json, "space-found", plan->found);
		json_add_bool(json, "deleted", args->delete && !args->dry_run);
		return json_finish(json);
	}
	if (args->dry_run) {
		printf("to move: %s, space needed: %s, found: %s, into ",
		       vc_size_format(plan->bytes, bytes), vc_size_format(plan->needed, needed),
		       vc_size_format(plan->found, found));
		print_clean(stdout, base);
		putchar('\n');
	}
	return finish_stdout(VC_EXIT_OK);
}

static int merge_in_place(struct merge_args *args, struct vc_err *err)
{
	struct progress_args *progress = &args->options->progress;
	struct vc_merge_plan plan;
	int ret;

	ret = merge_check_use(args, err);
	if (!ret && args->dry_run) {
		ret = vc_merge_plan(&args->chain, args->base, &plan, err);
	} else if (!ret) {
		progress_start(progress, "merge");
		ret = vc_merge(&args->chain, args->base, &progress->progress, &plan, err);
		progress_end(progress);
		if (!ret && args->delete)
			ret = merge_delete(args, err);
	}
	return ret ? report_error(err) : merge_report(args, &plan);
}

/* A new image is of the base's type, and stands on what that stands on. */
static int merge_to(struct merge_args *args, struct vc_err *err)
{
	struct options *options = args->options;
	const struct vc_image *base = args->chain.layer[args->base];
	struct vc_merge_plan plan = { };
	struct vc_converted converted;
	struct vc_disk *disk = NULL;
	int ret;

	if (!options->typed && base->format == VC_FORMAT_VHD)
		options->convert.type = base->meta.leave_allocated ? VC_CONVERT_VHD_FIXED :
				     base->meta.has_parent ? VC_CONVERT_DYNAMIC :
				     VC_CONVERT_VHD_DYNAMIC;
	if (!options->typed && base->format == VC_FORMAT_VHDX)
		options->convert.type = base->meta.has_parent ? VC_CONVERT_DIFFERENCING :
				     base->meta.leave_allocated ? VC_CONVERT_FIXED :
				     VC_CONVERT_DYNAMIC;
	options->convert.nr_layers = args->base + 1;
	if (args->dry_run) {
		struct vc_copy copy = { .chain = &args->chain };

		ret = vc_disk_open(&disk, &args->chain, 0, args->chain.nr, err);
		copy.disk = disk;
		if (!ret)
			ret = vc_copy_measure(&copy, &plan.bytes, err);
		vc_disk_close(disk);
		plan.needed = plan.bytes;
		return ret ? report_error(err) : merge_report(args, &plan);
	}
	progress_start(&options->progress, "merge");
	ret = vc_convert(&args->chain, args->to, &options->convert, &converted, err);
	progress_end(&options->progress);
	if (ret)
		return report_error(err);
	return options->json ? converted_report(&args->chain, args->to, options->convert.type,
					     &converted) : VC_EXIT_OK;
}

int cmd_merge(struct options *options)
{
	struct merge_args args = { .options = options };
	struct vc_err err;
	int ret;

	options_read_data(options);
	merge_parse(&args);
	if (options_arguments(options, 1, 1, "need one DELTA"))
		ret = merge_check_usage(&args);
	else
		ret = options->code;
	if (ret || options->code >= 0)
		goto out;
	ret = vc_chain_open(&args.chain, options->argv[0], &options->chain, &err);
	if (!ret)
		ret = merge_find_base(&args, &err);
	if (ret)
		ret = report_error(&err);
	else
		ret = args.to ? merge_to(&args, &err) : merge_in_place(&args, &err);
	vc_chain_close(&args.chain);
out:
	free(args.scan);
	return ret;
}
