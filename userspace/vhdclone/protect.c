// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone protect, unprotect */
#include "active.h"
#include "protect.h"
#include "vhdclone.h"

static const struct option protect_options[] = {
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 }
};

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

static int protect_main(const struct command *cmd, int argc, char **argv, bool protect)
{
	struct vc_protection state;
	bool json = false;
	struct vc_err err;
	int opt;

	while ((opt = getopt_long(argc, argv, "h", protect_options, NULL)) != -1) {
		if (opt != OPT_JSON)
			return usage_option(cmd, opt);
		json = true;
	}
	if (argc - optind != 1)
		return usage_error(cmd, "need one %s", cmd->arguments);
	if (protect_run(argv[optind], protect, &state, &err))
		return report_error(&err);
	if (protect && !state.is_block && !state.immutable)
		report_warning("%s: read-only, but not immutable: %s", argv[optind],
			       strerror(state.immutable_errno));
	return json ? protect_json(argv[optind], &state) : VC_EXIT_OK;
}

int cmd_protect(const struct command *cmd, int argc, char **argv)
{
	return protect_main(cmd, argc, argv, true);
}

int cmd_unprotect(const struct command *cmd, int argc, char **argv)
{
	return protect_main(cmd, argc, argv, false);
}
