// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone flatten */
#include "active.h"
#include "children.h"
#include "merge.h"
#include "options.h"

static const struct option flatten_options[] = {
	{ "to", required_argument, NULL, OPT_OWN },
	{ }
};

struct flatten_args {
	struct options *options;
	struct vc_chain chain;
	const char *to;
};

static int flatten_in_place(struct flatten_args *args, u64 *bytes, struct vc_err *err)
{
	struct vc_chain *chain = &args->chain;
	struct vc_err ignored;
	int ret;

	/* Those below are only read. */
	ret = vc_active_refuse_any(&chain->layer[0]->file, err);
	if (!ret) {
		progress_start(&args->options->progress, "flatten");
		ret = vc_flatten(chain, &args->options->progress.progress, bytes, err);
		progress_end(&args->options->progress);
	}
	if (!ret && chain->nr > 1)
		vc_children_remove(&chain->layer[1]->file, chain->layer[0]->file.real, &ignored);
	return ret;
}

static int flatten_run(struct flatten_args *args, struct vc_err *err)
{
	struct options *options = args->options;
	struct vc_image *top = args->chain.layer[0];
	struct vc_converted converted = { };
	int ret;

	if (!args->to) {
		ret = flatten_in_place(args, &converted.bytes, err);
		top = args->chain.layer[0];
		converted.virtual_size = top->meta.virtual_size;
		converted.file_size = top->file.size;
	} else {
		if (!options->typed)
			options->convert.type = VC_CONVERT_DYNAMIC;
		progress_start(&options->progress, "flatten");
		ret = vc_convert(&args->chain, args->to, &options->convert, &converted, err);
		progress_end(&options->progress);
	}
	if (ret)
		return report_error(err);
	return options->json ? converted_report(&args->chain, args->to ? args->to : top->file.path,
					     args->to ? options->convert.type : VC_CONVERT_DYNAMIC,
					     &converted) : VC_EXIT_OK;
}

static int flatten_check_usage(const struct options *options, const char *to)
{
	const struct vc_convert_options *convert = &options->convert;

	if (options->typed && convert->type == VC_CONVERT_DIFFERENCING)
		return usage_error(options->cmd, "--type: a differencing image is not flat");
	if (!to && (options->typed || convert->block_size || convert->force))
		return usage_error(options->cmd, "--type, --block-size and --force need --to");
	return 0;
}

int cmd_flatten(struct options *options)
{
	struct flatten_args args = { .options = options };
	struct vc_err err;
	int ret;

	options_read_data(options);
	while (options_next(options, flatten_options) != -1)
		args.to = optarg;
	if (!options_arguments(options, 1, 1, "need one DELTA"))
		return options->code;
	ret = flatten_check_usage(options, args.to);
	if (ret)
		return ret;
	ret = vc_chain_open(&args.chain, options->argv[0], &options->chain, &err);
	ret = ret ? report_error(&err) : flatten_run(&args, &err);
	vc_chain_close(&args.chain);
	return ret;
}
