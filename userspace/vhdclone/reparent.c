// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone reparent */
#include "active.h"
#include "merge.h"
#include "options.h"
#include "reparent.h"

enum {
	OPT_UNSAFE = OPT_OWN,
	OPT_COMPARE,
	OPT_BASE_FORMAT,
};

static const struct option reparent_options[] = {
	{ "unsafe", no_argument, NULL, OPT_UNSAFE },
	{ "compare", no_argument, NULL, OPT_COMPARE },
	{ "base-format", required_argument, NULL, OPT_BASE_FORMAT },
	{ }
};

struct reparent_args {
	struct options *options;
	struct vc_chain child;		/* the image alone, then with its old chain */
	struct vc_chain base;		/* the new one */
	unsigned int base_flags;
	bool unsafe;
	bool compare;
	bool matches;
};

static void reparent_parse(struct reparent_args *args)
{
	int opt;

	while ((opt = options_next(args->options, reparent_options)) != -1) {
		if (opt == OPT_UNSAFE)
			args->unsafe = true;
		else if (opt == OPT_COMPARE)
			args->compare = true;
		else
			args->base_flags = options_format(args->options, "--base-format", optarg);
	}
}

static int reparent_open(struct reparent_args *args, const char *delta, const char *base,
			 struct vc_err *err)
{
	struct vc_chain_options options = args->options->chain;
	int ret;

	ret = vc_image_open(&args->child.layer[0], delta, VC_IMAGE_REPLAY, NULL, err);
	if (ret)
		return ret;
	args->child.nr = 1;
	if (args->child.layer[0]->format != VC_FORMAT_VHDX ||
	    !args->child.layer[0]->meta.has_parent)
		return vc_error(err, EINVAL, delta, "not a differencing VHDX: it has no parent");
	ret = vc_active_refuse_any(&args->child.layer[0]->file, err);
	if (ret)
		return ret;
	/* --base is where the old one is. */
	options.bases = NULL;
	options.nr_bases = 0;
	options.image_flags = VC_IMAGE_REPLAY | args->base_flags;
	ret = vc_chain_open(&args->base, base, &options, err);
	if (!ret && args->base_flags != VC_IMAGE_RAW)
		ret = source_check(&args->base, 0, err);
	return ret;
}

/* What no option makes right. */
static int reparent_fits(const struct reparent_args *args, struct vc_err *err)
{
	const struct vc_image *child = args->child.layer[0];
	const struct vc_image *base = args->base.layer[0];
	u32 sector = child->meta.logical_sector_size;

	if (vc_chain_has(&args->base, &child->file))
		return vc_error(err, ELOOP, base->file.path, "stands on %s", child->file.path);
	if (args->base.nr >= VHDCLONE_MAX_LAYERS)
		return vc_error(err, EINVAL, base->file.path,
				"the chain has %u layers already, the most there can be",
				args->base.nr);
	if (base->format == VC_FORMAT_VHDX && base->meta.logical_sector_size != sector)
		return vc_error(err, EINVAL, base->file.path,
				"has sectors of %u bytes, and %s has %u",
				base->meta.logical_sector_size, child->file.path, sector);
	if (!vc_image_virtual_size(base) || vc_image_virtual_size(base) % sector)
		return vc_error(err, EINVAL, base->file.path, "size %llu is no multiple of %u",
				vc_image_virtual_size(base), sector);
	return 0;
}

/* Is it the one that the child expects, if need be under another kind of name? */
static int reparent_identity(struct reparent_args *args, struct vc_err *err)
{
	const struct vc_image *child = args->child.layer[0];
	const struct vc_image *base = args->base.layer[0];
	bool raw = base->format == VC_FORMAT_RAW;
	bool vhd = base->format == VC_FORMAT_VHD;
	int ret;

	args->matches = false;
	if (raw != vc_locator_is_raw(child->locator) || vhd != vc_locator_is_vhd(child->locator))
		ret = vc_error(err, ESTALE, base->file.path,
			       "%s, and %s expects another kind of parent",
			       raw ? "raw" : vhd ? "a VHD" : "a VHDX", child->file.path);
	else
		ret = vc_chain_check_parent(child, base, err);
	args->matches = !ret;
	return ret;
}

static int reparent_compare(struct reparent_args *args, struct vc_err *err)
{
	struct vc_image *child = args->child.layer[0];
	struct vc_disk *old = NULL;
	struct vc_disk *new = NULL;
	bool equal;
	u64 at;
	int ret;

	ret = vc_chain_walk(&args->child, child, &args->options->chain, err);
	if (!ret)
		ret = vc_disk_open(&old, &args->child, 1, args->child.nr - 1, err);
	if (!ret)
		ret = vc_disk_open(&new, &args->base, 0, args->base.nr, err);
	if (!ret) {
		progress_start(&args->options->progress, "compare");
		ret = vc_disks_equal(old, new, &args->options->progress.progress, &equal, &at, err);
		progress_end(&args->options->progress);
	}
	if (!ret && !equal)
		ret = vc_error(err, ESTALE, args->base.layer[0]->file.path,
			       "differs from the parent that %s has, at byte %llu",
			       child->file.path, at);
	vc_disk_close(old);
	vc_disk_close(new);
	return ret;
}

static int reparent_run(struct reparent_args *args, struct vc_err *err)
{
	int ret;

	ret = reparent_fits(args, err);
	if (ret)
		return ret;
	ret = reparent_identity(args, err);
	if (args->compare)
		ret = reparent_compare(args, err);
	else if (ret == -ESTALE && args->unsafe)
		ret = 0;
	else if (ret == -ESTALE)
		vc_error_append(err, ": see --compare and --unsafe");
	if (!ret)
		ret = vc_chain_writable(&args->child, 0, err);
	/* What was compared is its parent still? */
	if (!ret && args->compare)
		ret = vc_chain_check_parent(args->child.layer[0], args->child.layer[1], err);
	if (!ret)
		ret = vc_reparent(args->child.layer[0], args->base.layer[0], err);
	return ret;
}

static int reparent_json(const struct reparent_args *args)
{
	struct json_object *json = json_new();

	json_add_string(json, "path", args->child.layer[0]->file.path);
	json_add_string(json, "parent", args->base.layer[0]->file.real);
	json_add_bool(json, "identity-matched", args->matches);
	json_add_bool(json, "compared", args->compare);
	return json_finish(json);
}

int cmd_reparent(struct options *options)
{
	struct reparent_args args = { .options = options };
	struct vc_err err;
	int ret;

	reparent_parse(&args);
	if (!options_arguments(options, 2, 2, "need DELTA and NEWBASE"))
		return options->code;
	if (args.unsafe && args.compare)
		return usage_error(options->cmd, "not both --unsafe and --compare");
	options_read_data(options);
	ret = reparent_open(&args, options->argv[0], options->argv[1], &err);
	if (!ret)
		ret = reparent_run(&args, &err);
	if (ret)
		ret = report_error(&err);
	else if (options->json)
		ret = reparent_json(&args);
	vc_chain_close(&args.base);
	vc_chain_close(&args.child);
	return ret;
}
