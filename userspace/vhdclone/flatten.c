// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone flatten */
#include "active.h"
#include "children.h"
#include "long.h"
#include "merge.h"

enum {
	OPT_TO = OPT_OWN,
	OPT_TYPE,
	OPT_BLOCK_SIZE,
};

static const struct option flatten_options[] = {
	{ "to", required_argument, NULL, OPT_TO },
	{ "type", required_argument, NULL, OPT_TYPE },
	{ "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
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

struct flatten_args {
	struct vc_convert_options convert;
	struct chain_args chain_args;
	struct progress_args progress;
	struct vc_chain chain;
	const char *to;
	bool typed;
	bool json;
	bool bad;
};

static int flatten_parse(const struct command *cmd, int argc, char **argv,
			 struct flatten_args *args)
{
	int opt;

	while ((opt = getopt_long(argc, argv, "fh", flatten_options, NULL)) != -1) {
		switch (opt) {
		case OPT_TO:
			args->to = optarg;
			break;
		case OPT_TYPE:
			args->typed = true;
			if (!convert_type_option(cmd, optarg, &args->convert.type))
				args->bad = true;
			break;
		case OPT_BLOCK_SIZE:
			if (!block_size_option(cmd, optarg, &args->convert.block_size))
				args->bad = true;
			break;
		case 'f':
			args->convert.force = true;
			break;
		case OPT_JSON:
			args->json = true;
			break;
		default:
			if (!chain_args_take(&args->chain_args, opt, optarg) &&
			    !progress_take(cmd, &args->progress, opt, optarg))
				return opt;
		}
	}
	return -1;
}

static int flatten_in_place(struct flatten_args *args, u64 *bytes, struct vc_err *err)
{
	struct vc_chain *chain = &args->chain;
	struct vc_err ignored;
	int ret;

	/* Those below are only read. */
	ret = vc_active_refuse_any(&chain->layer[0]->file, err);
	if (!ret) {
		progress_start(&args->progress, "flatten");
		ret = vc_flatten(chain, &args->progress.progress, bytes, err);
		progress_end(&args->progress);
	}
	if (!ret && chain->nr > 1)
		vc_children_remove(&chain->layer[1]->file, chain->layer[0]->file.real, &ignored);
	return ret;
}

static int flatten_run(struct flatten_args *args, struct vc_err *err)
{
	struct vc_image *top = args->chain.layer[0];
	struct vc_converted converted = { };
	unsigned int i;
	int ret = 0;

	for (i = 1; i < args->chain.nr && !ret; i++)
		ret = vc_active_refuse(&args->chain.layer[i]->file, err);
	if (ret)
		return report_error(err);
	if (!args->to) {
		ret = flatten_in_place(args, &converted.bytes, err);
		top = args->chain.layer[0];
		converted.virtual_size = top->meta.virtual_size;
		converted.file_size = top->file.size;
	} else {
		args->convert.progress = &args->progress.progress;
		if (!args->typed)
			args->convert.type = VC_CONVERT_DYNAMIC;
		ret = vc_active_refuse(&top->file, err);
		if (!ret) {
			progress_start(&args->progress, "flatten");
			ret = vc_convert(&args->chain, args->to, &args->convert, &converted, err);
			progress_end(&args->progress);
		}
	}
	if (ret)
		return report_error(err);
	return args->json ? converted_report(&args->chain, args->to ? args->to : top->file.path,
					     args->to ? args->convert.type : VC_CONVERT_DYNAMIC,
					     &converted) : VC_EXIT_OK;
}

int cmd_flatten(const struct command *cmd, int argc, char **argv)
{
	struct flatten_args args = { .convert.creator = TOOL_CREATOR };
	struct vc_err err;
	int ret;
	int opt;

	opt = flatten_parse(cmd, argc, argv, &args);
	if (opt != -1) {
		ret = usage_option(cmd, opt);
		goto out;
	}
	ret = VC_EXIT_USAGE;
	if (args.bad || args.progress.bad)
		goto out;
	if (argc - optind != 1) {
		usage_error(cmd, "need one DELTA");
		goto out;
	}
	if (args.typed && args.convert.type == VC_CONVERT_DIFFERENCING) {
		usage_error(cmd, "--type: a differencing image is not flat");
		goto out;
	}
	if (!args.to && (args.typed || args.convert.block_size || args.convert.force)) {
		usage_error(cmd, "--type, --block-size and --force need --to");
		goto out;
	}
	chain_args_init(&args.chain_args);
	args.chain_args.options.image_flags = VC_IMAGE_REPLAY;
	args.chain_args.options.base_flags = VC_IMAGE_REPLAY;
	ret = vc_chain_open(&args.chain, argv[optind], &args.chain_args.options, &err);
	ret = ret ? report_error(&err) : flatten_run(&args, &err);
	vc_chain_close(&args.chain);
out:
	chain_args_free(&args.chain_args);
	return ret;
}
