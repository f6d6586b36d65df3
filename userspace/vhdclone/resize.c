// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone resize */
#include "change.h"
#include "depend.h"
#include "options.h"
#include "resize.h"

enum {
	OPT_CUT_DATA = OPT_OWN,
};

static const struct option resize_options[] = {
	{ "cut-data", no_argument, NULL, OPT_CUT_DATA },
	{ }
};

struct resize_args {
	struct options *options;
	const char *path;
	char sign;		/* '+', '-' or 0 */
	u64 size;
	bool cut_data;
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
	options_read_data(args->options);
	ret = vc_chain_walk(&chain, image, &args->options->chain, err);
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

	if (!args->options->json)
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

int cmd_resize(struct options *options)
{
	struct resize_args args = { .options = options };
	const char *last = options->argv[options->argc - 1];
	struct vc_resized resized;
	struct vc_err err;

	/* Hide "-5G" from getopt. */
	if (options->argc > 2 && last[0] == '-' && last[1] >= '0' && last[1] <= '9')
		options->argv[--options->argc] = NULL;
	else
		last = NULL;
	while (options_next(options, resize_options) != -1)
		args.cut_data = true;
	if (!options_arguments(options, last ? 1 : 2, last ? 1 : 2, "need IMAGE and SIZE"))
		return options->code;
	args.path = options->argv[0];
	if (!last)
		last = options->argv[1];
	if (!resize_take_size(&args, last))
		return usage_error(options->cmd, "'%s' is no size such as 20G, +512M, -1.5G",
				   last);
	return resize_run(&args, &resized, &err) ? report_error(&err) :
						   resize_report(&args, &resized);
}
