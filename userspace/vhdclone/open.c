// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone open */
#define _GNU_SOURCE
#include "activate.h"
#include "options.h"
#include "reset.h"

enum {
	OPT_PROBE = OPT_OWN,
};

static const struct option open_options[] = {
	{ "read-only", no_argument, NULL, 'r' },
	{ "probe", no_argument, NULL, OPT_PROBE },
	{ }
};

/* The image's file name without its suffix, to be freed. */
static char *open_default_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *name = strdup(slash ? slash + 1 : path);
	char *dot = name ? strrchr(name, '.') : NULL;

	if (dot && dot != name)
		*dot = '\0';
	return name;
}

static int open_report(const char *name, const struct vc_opened *opened, bool json)
{
	struct json_object *object;

	if (!json) {
		print_clean(stdout, opened->path);
		putchar('\n');
		return finish_stdout(VC_EXIT_OK);
	}
	object = json_new();
	json_add_string(object, "name", name);
	json_add_string(object, "device", opened->path);
	json_add_bool(object, "was-open", opened->was_open);
	json_add_number(object, "recovered-entries", opened->recovered.nr_entries);
	if (!opened->was_open) {
		json_add_number(object, "layers", opened->nr_layers);
		json_add_number(object, "capacity", opened->capacity);
	}
	return json_finish(object);
}

/* All I/O waits. */
static void open_warn_suspended(const char *name)
{
	struct vc_dm_device dev;
	struct vc_err ignored;

	if (vc_dm_get(name, &dev, &ignored))
		return;
	if (vc_reset_interrupted(&dev))
		report_warning("%s: suspended by a reset that was interrupted: run 'vhdclone reset %s' again",
			       name, name);
	else if (dev.suspended)
		report_warning("%s: suspended by somebody: 'dmsetup resume %s'", name, name);
	vc_dm_put(&dev);
}

static int open_image(const char *path, const char *name,
		      const struct vc_open_options *options, bool json)
{
	char have[VC_SIZE_TEXT];
	char want[VC_SIZE_TEXT];
	struct vc_opened opened;
	struct vc_err err;
	int code;

	if (vc_open(path, name, options, &opened, &err))
		return report_error(&err);
	if (opened.recovered.nr_entries && !json)
		fprintf(stderr, "vhdclone: %s: replayed %llu log entries\n", name,
			opened.recovered.nr_entries);
	if (opened.capacity < opened.capacity_wanted && !options->read_only)
		report_warning("%s: has room for %s, every block written would need %s", name,
			       vc_size_format(opened.capacity, have),
			       vc_size_format(opened.capacity_wanted, want));
	if (opened.was_open)
		open_warn_suspended(name);
	code = open_report(name, &opened, json);
	free(opened.path);
	return code;
}

int cmd_open(struct options *options)
{
	struct vc_open_options open = { };
	char *name;
	int code;
	int opt;

	while ((opt = options_next(options, open_options)) != -1) {
		if (opt == 'r')
			open.read_only = true;
		else
			open.probe = true;
	}
	if (!options_arguments(options, 1, 2, "need one IMAGE, and perhaps a NAME"))
		return options->code;
	if (options->argc == 2)
		name = strdup(options->argv[1]);
	else
		name = open_default_name(options->argv[0]);
	open.chain = options->chain;
	if (!name)
		code = VC_EXIT_MEMORY;
	else if (!vc_dm_name_ok(name))
		code = usage_error(options->cmd,
				   "'%s' cannot name a device, give a NAME of letters, digits, #+-.:=@_",
				   name);
	else
		code = open_image(options->argv[0], name, &open, options->json);
	free(name);
	return code;
}
