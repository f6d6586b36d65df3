// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone convert */
#include "active.h"
#include "merge.h"
#include "options.h"
#include "reparent.h"

enum {
	OPT_FORMAT = OPT_OWN,
	OPT_PARENT_OF,
};

static const struct option convert_options[] = {
	{ "format", required_argument, NULL, OPT_FORMAT },
	{ "as-parent-of", required_argument, NULL, OPT_PARENT_OF },
	{ }
};

struct convert_args {
	struct options *options;
	struct vc_chain delta;		/* --as-parent-of */
	const char *parent_of;
	unsigned int image_flags;
};

static void convert_parse(struct convert_args *args)
{
	int opt;

	while ((opt = options_next(args->options, convert_options)) != -1) {
		if (opt == OPT_PARENT_OF)
			args->parent_of = optarg;
		else
			args->image_flags = options_format(args->options, "--format", optarg);
	}
}

int converted_report(const struct vc_chain *chain, const char *path,
		     enum vc_convert_type type, const struct vc_converted *converted)
{
	struct json_object *json = json_new();

	json_add_string(json, "path", path);
	json_add_string(json, "source", chain->layer[0]->file.path);
	json_add_string(json, "type", vc_convert_names[type]);
	json_add_number(json, "virtual-size", converted->virtual_size);
	json_add_number(json, "file-size", converted->file_size);
	json_add_number(json, "copied", converted->bytes);
	return json_finish(json);
}

/* What a source is taken for must not be a guess. */
int source_check(const struct vc_chain *chain, unsigned int flags, struct vc_err *err)
{
	const struct vc_image *top = chain->layer[0];
	const char *foreign;

	if (top->format != VC_FORMAT_RAW || flags & VC_IMAGE_RAW)
		return 0;
	foreign = vc_image_foreign(top);
	if (foreign)
		return vc_error(err, EINVAL, top->file.path,
				"a %s, which cannot be read: say --format raw if it is not one",
				foreign);
	return 0;
}

/* The delta must stand on what is converted, and on that alone. */
static int convert_open_delta(struct convert_args *args, const struct vc_chain *chain,
			      struct vc_err *err)
{
	struct vc_chain *delta = &args->delta;
	int ret;

	ret = vc_chain_open(delta, args->parent_of, &args->options->chain, err);
	if (!ret && (delta->nr < 2 || !vc_file_same(&delta->layer[1]->file,
						    &chain->layer[0]->file)))
		ret = vc_error(err, ESTALE, args->parent_of, "does not stand on %s",
			       chain->layer[0]->file.path);
	if (!ret)
		ret = vc_active_refuse_any(&delta->layer[0]->file, err);
	if (!ret)
		args->options->convert.logical_sector_size =
			delta->layer[0]->meta.logical_sector_size;
	return ret;
}

/* The new image reads as the old parent does: so name it. */
static int convert_hand_over(struct convert_args *args, const char *path, struct vc_err *err)
{
	struct vc_chain_options options = { };
	struct vc_chain parent = { };
	int ret;

	ret = vc_chain_open(&parent, path, &options, err);
	if (!ret)
		ret = vc_chain_writable(&args->delta, 0, err);
	if (!ret)
		ret = vc_chain_check_parent(args->delta.layer[0], args->delta.layer[1], err);
	if (!ret)
		ret = vc_reparent(args->delta.layer[0], parent.layer[0], err);
	vc_chain_close(&parent);
	return ret;
}

static int convert_run(struct convert_args *args, const struct vc_chain *chain,
		       const char *path, struct vc_converted *converted, struct vc_err *err)
{
	int ret;

	ret = source_check(chain, args->image_flags, err);
	if (!ret && args->parent_of)
		ret = convert_open_delta(args, chain, err);
	if (ret)
		return ret;
	progress_start(&args->options->progress, "convert");
	ret = vc_convert(chain, path, &args->options->convert, converted, err);
	progress_end(&args->options->progress);
	if (!ret && args->parent_of)
		ret = convert_hand_over(args, path, err);
	return ret;
}

static int convert_check_usage(const struct convert_args *args)
{
	struct options *options = args->options;
	struct vc_convert_options *convert = &options->convert;

	if (args->parent_of && !options->typed)
		convert->type = VC_CONVERT_DYNAMIC;
	else if (!options->typed)
		return usage_error(options->cmd, "need --type, IN and OUT");
	if (args->parent_of && convert->type != VC_CONVERT_DYNAMIC &&
	    convert->type != VC_CONVERT_FIXED)
		return usage_error(options->cmd, "--as-parent-of needs --type dynamic or fixed");
	return 0;
}

int cmd_convert(struct options *options)
{
	struct convert_args args = { .options = options };
	struct vc_converted converted = { };
	struct vc_chain chain = { };
	struct vc_err err;
	const char *out;
	int ret;

	convert_parse(&args);
	if (!options_arguments(options, 2, 2, "need --type, IN and OUT"))
		return options->code;
	ret = convert_check_usage(&args);
	if (ret)
		return ret;
	out = options->argv[1];
	options_read_data(options);
	options->chain.image_flags |= args.image_flags;
	options->convert.nr_layers = 1;
	ret = vc_chain_open(&chain, options->argv[0], &options->chain, &err);
	if (!ret)
		ret = convert_run(&args, &chain, out, &converted, &err);
	if (ret)
		ret = report_error(&err);
	else if (options->json)
		ret = converted_report(&chain, out, options->convert.type, &converted);
	vc_chain_close(&chain);
	vc_chain_close(&args.delta);
	return ret;
}
