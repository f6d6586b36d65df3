// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone reset */
#include <unistd.h>

#include "depend.h"
#include "dm.h"
#include "options.h"
#include "reset.h"

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

static int reset_json(const char *path, const struct vc_reset *reset)
{
	struct json_object *json = json_new();

	json_add_string(json, "path", path);
	json_add_string(json, "name", reset->name);
	json_add_number(json, "freed", reset->old_size > reset->new_size ?
				       reset->old_size - reset->new_size : 0);
	return json_finish(json);
}

int cmd_reset(struct options *options)
{
	int code = VC_EXIT_OK;
	struct vc_reset reset;
	struct vc_err err;

	if (!options_arguments(options, 1, 1, "need one NAME or DELTA"))
		return options->code;
	if (reset_run(options->argv[0], &reset, &err))
		return report_error(&err);
	if (options->json)
		code = reset_json(options->argv[0], &reset);
	free(reset.name);
	return code;
}
