// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone reset */
#include <unistd.h>

#include "depend.h"
#include "dm.h"
#include "reset.h"
#include "vhdclone.h"

static const struct option reset_options[] = {
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 }
};

/* Its children would lose their parent. */
static int reset_check_children(const char *path, struct vc_err *err)
{
	struct vc_image *image;
	int ret;

	ret = vc_image_open(&image, path, VC_IMAGE_REPLAY, NULL, err);
	if (!ret && image->format == VC_FORMAT_VHDX && image->meta.has_parent)
		ret = vc_refuse_children(image, err);
	vc_image_close(image);
	return ret;
}

/* A name is one of an open clone if there is no such file. */
static int reset_run(const char *what, struct vc_reset *reset, struct vc_err *err)
{
	const char *name = clone_name(what);
	int ret;

	/* An open clone has none: a base is not written. */
	if (name != what || access(what, F_OK)) {
		if (vc_dm_name_ok(name))
			return vc_reset_clone(name, reset, err);
	}
	ret = reset_check_children(what, err);
	return ret ? ret : vc_reset_image(what, reset, err);
}

int cmd_reset(const struct command *cmd, int argc, char **argv)
{
	struct json_object *object;
	struct vc_reset reset;
	bool json = false;
	struct vc_err err;
	int opt;

	while ((opt = getopt_long(argc, argv, "h", reset_options, NULL)) != -1) {
		if (opt != OPT_JSON)
			return usage_option(cmd, opt);
		json = true;
	}
	if (argc - optind != 1)
		return usage_error(cmd, "need one NAME or DELTA");
	if (reset_run(argv[optind], &reset, &err))
		return report_error(&err);
	if (json) {
		object = json_new();
		json_add_string(object, "path", argv[optind]);
		json_add_string(object, "name", reset.name);
		json_add_number(object, "freed", reset.old_size > reset.new_size ?
						 reset.old_size - reset.new_size : 0);
	}
	free(reset.name);
	return json ? json_finish(object) : VC_EXIT_OK;
}
