// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone resize */
#include "change.h"
#include "depend.h"
#include "resize.h"
#include "vhdclone.h"

enum {
	OPT_CUT_DATA = OPT_OWN,
};

static const struct option resize_options[] = {
	{ "cut-data", no_argument, NULL, OPT_CUT_DATA },
	{ "base", required_argument, NULL, OPT_BASE },
	{ "parent", required_argument, NULL, OPT_BASE },
	{ "base-dir", required_argument, NULL, OPT_BASE_DIR },
	{ "parent-dir", required_argument, NULL, OPT_BASE_DIR },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 }
};

struct resize_args {
	struct chain_args chain;
	const char *path;
	char sign;		/* '+', '-' or 0 */
	u64 size;
	bool cut_data;
	bool json;
};

static int resize_size(const struct resize_args *args, u64 old, u64 *size,
		       struct vc_err *err)
{
	*size = args->size;
	if (args->sign == '+')
		*size = old + args->size;
	else if (args->sign == '-')
		*size = old - args->size;
	if ((args->sign == '-' && args->size >= old) || *size > VHDX_MAX_VIRTUAL_SIZE)
		return vc_error(err, EINVAL, args->path,
				"the disk has %llu bytes, it cannot get %c%llu", old, args->sign,
				args->size);
	return 0;
}

static int resize_run(struct resize_args *args, struct vc_resized *resized,
		      struct vc_err *err)
{
	struct vc_chain chain = { };
	struct vc_image *image;
	sigset_t signals;
	u64 size;
	int ret;

	ret = vc_change_open(&image, args->path, err);
	if (ret)
		return ret;
	ret = resize_size(args, image->meta.virtual_size, &size, err);
	if (!ret && size != image->meta.virtual_size)
		ret = vc_refuse_children(image, err);
	if (ret) {
		vc_image_close(image);
		return ret;
	}
	args->chain.options.base_flags = VC_IMAGE_REPLAY;
	ret = vc_chain_walk(&chain, image, &args->chain.options, err);
	/* It is over in a moment: then nothing is left half way. */
	vc_signals_hold(&signals);
	if (!ret)
		ret = vc_resize(&chain, size, args->cut_data ? VC_RESIZE_CUT_DATA : 0, resized,
				err);
	vc_signals_release(&signals);
	vc_chain_close(&chain);
	return ret;
}

static int resize_report(const struct resize_args *args, const struct vc_resized *resized)
{
	struct json_object *json;

	if (!args->json)
		return VC_EXIT_OK;
	json = json_new();
	json_add_string(json, "path", args->path);
	json_add_number(json, "old-virtual-size", resized->old_size);
	json_add_number(json, "virtual-size", resized->new_size);
	json_add_bool(json, "bat-moved", resized->bat_moved);
	return json_finish(json);
}

/* "-5G" is no option. */
static bool resize_take_size(struct resize_args *args, const char *text)
{
	if (*text == '+' || *text == '-')
		args->sign = *text++;
	return vc_size_parse(text, &args->size) && args->size;
}

int cmd_resize(const struct command *cmd, int argc, char **argv)
{
	struct resize_args args = { };
	struct vc_resized resized;
	const char *last = NULL;
	struct vc_err err;
	int opt;
	int ret;

	chain_args_init(&args.chain);
	if (argc > 2 && argv[argc - 1][0] == '-' && argv[argc - 1][1] >= '0' &&
	    argv[argc - 1][1] <= '9') {
		last = argv[--argc];
		argv[argc] = NULL;
	}
	while ((opt = getopt_long(argc, argv, "h", resize_options, NULL)) != -1) {
		if (opt == OPT_CUT_DATA) {
			args.cut_data = true;
		} else if (opt == OPT_JSON) {
			args.json = true;
		} else if (!chain_args_take(&args.chain, opt, optarg)) {
			ret = usage_option(cmd, opt);
			goto out;
		}
	}
	if (!last && argc - optind == 2)
		last = argv[--argc];
	args.path = argv[optind];
	if (!last || argc - optind != 1)
		ret = usage_error(cmd, "need IMAGE and SIZE");
	else if (!resize_take_size(&args, last))
		ret = usage_error(cmd, "'%s' is no size such as 20G, +512M, -1.5G", last);
	else if (resize_run(&args, &resized, &err))
		ret = report_error(&err);
	else
		ret = resize_report(&args, &resized);
out:
	chain_args_free(&args.chain);
	return ret;
}
