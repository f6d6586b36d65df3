// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone protect, unprotect */
#include "active.h"
#include "options.h"
#include "protect.h"

/* A base must be able to stay as it is. */
static int protect_check(struct vc_image *image, struct vc_err *err)
{
	int ret = vc_active_refuse(&image->file, err);

	/* Whatever it holds that can be read; not a log that nobody could replay then. */
	return ret ? ret : vc_image_reload(image, 0, err);
}

static int protect_run(const char *path, bool protect, struct vc_protection *state,
		       struct vc_err *err)
{
	struct vc_image *image;
	int ret;

	ret = vc_image_open(&image, path, VC_IMAGE_UNREAD, NULL, err);
	if (ret)
		return ret;
	if (protect)
		ret = protect_check(image, err);
	if (!ret)
		ret = vc_protect(&image->file, protect, state, err);
	vc_image_close(image);
	return ret;
}

static int protect_json(const char *path, const struct vc_protection *state)
{
	struct json_object *json = json_new();
	char mode[16];

	json_add_string(json, "path", path);
	if (state->is_block) {
		json_add_bool(json, "read-only", state->read_only);
	} else {
		snprintf(mode, sizeof(mode), "%04o", state->mode);
		json_add_string(json, "mode", mode);
		json_add_bool(json, "immutable", state->immutable);
	}
	return json_finish(json);
}

static int protect_main(struct options *options, bool protect)
{
	struct vc_protection state;
	struct vc_err err;
	const char *path;

	if (!options_arguments(options, 1, 1, "need one BASE"))
		return options->code;
	path = options->argv[0];
	if (protect_run(path, protect, &state, &err))
		return report_error(&err);
	if (protect && !state.is_block && !state.immutable)
		report_warning("%s: read-only, but not immutable: %s", path,
			       strerror(state.immutable_errno));
	return options->json ? protect_json(path, &state) : VC_EXIT_OK;
}

int cmd_protect(struct options *options)
{
	return protect_main(options, true);
}

int cmd_unprotect(struct options *options)
{
	return protect_main(options, false);
}
