// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone convert */
#include "active.h"
#include "convert.h"
#include "long.h"
#include "merge.h"
#include "reparent.h"

enum {
	OPT_TYPE = OPT_OWN,
	OPT_BLOCK_SIZE,
	OPT_FORMAT,
	OPT_PARENT_OF,
};

static const struct option convert_options[] = {
	{ "type", required_argument, NULL, OPT_TYPE },
	{ "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
	{ "format", required_argument, NULL, OPT_FORMAT },
	{ "as-parent-of", required_argument, NULL, OPT_PARENT_OF },
	{ "force", no_argument, NULL, 'f' },
	{ "base", required_argument, NULL, OPT_BASE },
	{ "parent", required_argument, NULL, OPT_BASE },
	{ "base-dir", required_argument, NULL, OPT_BASE_DIR },
	{ "parent-dir", required_argument, NULL, OPT_BASE_DIR },
	OPTION_PROGRESS,
	OPTION_RATE,
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 }
};

struct convert_args {
	struct vc_convert_options convert;
	struct chain_args chain;
	struct progress_args progress;
	struct vc_chain delta;		/* --as-parent-of */
	const char *parent_of;
	unsigned int image_flags;
	bool typed;
	bool json;
	bool bad;
};

bool convert_type_option(const struct command *cmd, const char *value,
			 enum vc_convert_type *type)
{
	unsigned int i;

	for (i = 0; i < VC_CONVERT_TYPES; i++)
		if (!strcmp(value, vc_convert_names[i])) {
			*type = i;
			return true;
		}
	usage_error(cmd, "--type: '%s' is no type of image", value);
	return false;
}

bool block_size_option(const struct command *cmd, const char *value, u64 *bytes)
{
	if (!size_option(cmd, "--block-size", value, bytes))
		return false;
	if (!(*bytes & (*bytes - 1)) && *bytes >= VHDX_MIN_BLOCK_SIZE &&
	    *bytes <= VHDX_MAX_BLOCK_SIZE)
		return true;
	usage_error(cmd, "--block-size: not a power of two from 1M to 256M");
	return false;
}

static int convert_parse(const struct command *cmd, int argc, char **argv,
			 struct convert_args *args)
{
	int opt;

	while ((opt = getopt_long(argc, argv, "fh", convert_options, NULL)) != -1) {
		switch (opt) {
		case OPT_TYPE:
			args->typed = true;
			if (!convert_type_option(cmd, optarg, &args->convert.type))
				args->bad = true;
			break;
		case OPT_BLOCK_SIZE:
			if (!block_size_option(cmd, optarg, &args->convert.block_size))
				args->bad = true;
			break;
		case OPT_FORMAT:
			if (!strcmp(optarg, "raw")) {
				args->image_flags |= VC_IMAGE_RAW;
			} else if (strcmp(optarg, "auto")) {
				usage_error(cmd, "--format: '%s' is not auto or raw", optarg);
				args->bad = true;
			}
			break;
		case OPT_PARENT_OF:
			args->parent_of = optarg;
			break;
		case 'f':
			args->convert.force = true;
			break;
		case OPT_JSON:
			args->json = true;
			break;
		default:
			if (!chain_args_take(&args->chain, opt, optarg) &&
			    !progress_take(cmd, &args->progress, opt, optarg))
				return opt;
		}
	}
	return -1;
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
	unsigned int i;
	int ret = 0;

	for (i = 0; i < chain->nr && !ret; i++)
		ret = vc_active_refuse(&chain->layer[i]->file, err);
	if (ret || top->format != VC_FORMAT_RAW || flags & VC_IMAGE_RAW)
		return ret;
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

	ret = vc_chain_open(delta, args->parent_of, &args->chain.options, err);
	if (!ret && (delta->nr < 2 || !vc_file_same(&delta->layer[1]->file,
						    &chain->layer[0]->file)))
		ret = vc_error(err, ESTALE, args->parent_of, "does not stand on %s",
			       chain->layer[0]->file.path);
	if (!ret)
		ret = vc_active_refuse_any(&delta->layer[0]->file, err);
	if (!ret)
		args->convert.logical_sector_size = delta->layer[0]->meta.logical_sector_size;
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
	progress_start(&args->progress, "convert");
	ret = vc_convert(chain, path, &args->convert, converted, err);
	progress_end(&args->progress);
	if (!ret && args->parent_of)
		ret = convert_hand_over(args, path, err);
	return ret;
}

static int convert_check_usage(const struct command *cmd, struct convert_args *args,
			       int nr_names)
{
	if (args->parent_of && !args->typed) {
		args->convert.type = VC_CONVERT_DYNAMIC;
		args->typed = true;
	}
	if (nr_names != 2 || !args->typed)
		return usage_error(cmd, "need --type, IN and OUT");
	if (args->parent_of && args->convert.type != VC_CONVERT_DYNAMIC &&
	    args->convert.type != VC_CONVERT_FIXED)
		return usage_error(cmd, "--as-parent-of needs --type dynamic or fixed");
	return 0;
}

int cmd_convert(const struct command *cmd, int argc, char **argv)
{
	struct convert_args args = { .convert.creator = TOOL_CREATOR };
	struct vc_converted converted = { };
	struct vc_chain chain = { };
	struct vc_err err;
	int ret;
	int opt;

	opt = convert_parse(cmd, argc, argv, &args);
	if (opt != -1) {
		ret = usage_option(cmd, opt);
		goto out;
	}
	ret = args.bad || args.progress.bad ? VC_EXIT_USAGE :
	      convert_check_usage(cmd, &args, argc - optind);
	if (ret)
		goto out;
	chain_args_init(&args.chain);
	args.chain.options.image_flags = VC_IMAGE_REPLAY | args.image_flags;
	args.chain.options.base_flags = VC_IMAGE_REPLAY;
	args.convert.nr_layers = 1;
	args.convert.progress = &args.progress.progress;
	ret = vc_chain_open(&chain, argv[optind], &args.chain.options, &err);
	if (!ret)
		ret = convert_run(&args, &chain, argv[optind + 1], &converted, &err);
	if (ret)
		ret = report_error(&err);
	else if (args.json)
		ret = converted_report(&chain, argv[optind + 1], args.convert.type, &converted);
	vc_chain_close(&chain);
	vc_chain_close(&args.delta);
out:
	chain_args_free(&args.chain);
	return ret;
}
