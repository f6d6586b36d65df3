// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone status, vhdclone list */
#include <libsmartcols.h>
#include <sys/sysmacros.h>

#include "active.h"
#include "options.h"
#include "reset.h"

/* One open clone, all that there is to say about it. */
struct clone {
	struct vc_dm_device dev;
	struct vc_table table;
	struct vc_status status;
	bool has_table;
	bool has_status;
	char *path;
};

struct clones {
	struct clone *clone;
	unsigned int nr;
};

/* Takes the device over.  A line that cannot be understood is shown as not known. */
static void clone_init(struct clone *clone, struct vc_dm_device *dev)
{
	struct vc_err err;

	memset(clone, 0, sizeof(*clone));
	clone->dev = *dev;
	dev->params = NULL;
	dev->status = NULL;
	clone->path = vc_dm_path(clone->dev.name);
	clone->has_table = clone->dev.params &&
			   !vc_table_parse(clone->dev.params, &clone->table, &err);
	clone->has_status = clone->dev.status &&
			    !vc_status_parse(clone->dev.status, &clone->status, &err);
}

static void clones_free(struct clones *clones)
{
	unsigned int i;

	for (i = 0; i < clones->nr; i++) {
		vc_dm_put(&clones->clone[i].dev);
		free(clones->clone[i].path);
	}
	free(clones->clone);
}

/* All of them, or the one that is named. */
static int clones_get(struct clones *clones, const char *name, struct vc_err *err)
{
	struct vc_dm_device *devs = NULL;
	unsigned int nr = 0;
	unsigned int i;
	int ret;

	memset(clones, 0, sizeof(*clones));
	if (name) {
		devs = calloc(1, sizeof(*devs));
		if (!devs)
			return vc_error_nomem(err);
		ret = vc_dm_get(name, devs, err);
		nr = !ret;
	} else {
		ret = vc_dm_list(&devs, &nr, err);
	}
	if (!ret && nr) {
		clones->clone = calloc(nr, sizeof(*clones->clone));
		if (!clones->clone)
			ret = vc_error_nomem(err);
	}
	for (i = 0; !ret && i < nr; i++)
		clone_init(&clones->clone[clones->nr++], &devs[i]);
	vc_dm_list_free(devs, nr);
	return ret;
}

/* ---- JSON --------------------------------------------------------------------- */

static void json_add_known(struct json_object *json, const char *key, u64 value, u64 unit)
{
	if (value == VC_STATUS_UNKNOWN)
		json_object_object_add(json, key, NULL);
	else
		json_add_number(json, key, value * unit);
}

static struct json_object *clone_json_layers(const struct clone *clone)
{
	struct json_object *list = json_object_new_array();
	struct json_object *json;
	char text[32];
	unsigned int i;
	char *path;

	for (i = 0; clone->has_table && i < clone->table.nr; i++) {
		const struct vc_table_layer *layer = &clone->table.layer[i];

		json = json_object_new_object();
		path = vc_device_path(layer->device);
		snprintf(text, sizeof(text), "%u:%u", major(layer->device),
			 minor(layer->device));
		json_add_string(json, "type", layer->raw ? "raw" : layer->vhd ? "vhd" : "vhdx");
		json_add_string(json, "path", path);
		json_add_string(json, "device", text);
		json_add_number(json, "size", layer->sectors * 512);
		json_object_array_add(list, json);
		free(path);
	}
	return list;
}

static struct json_object *clone_json(const struct clone *clone)
{
	const struct vc_status *s = &clone->status;
	struct json_object *json = json_object_new_object();

	json_add_string(json, "name", clone->dev.name);
	json_add_string(json, "device", clone->path);
	json_add_string(json, "uuid", clone->dev.uuid);
	json_add_number(json, "size", clone->dev.sectors * 512);
	json_add_string(json, "mode", clone->has_status ? s->mode : NULL);
	json_add_bool(json, "suspended", clone->dev.suspended);
	json_add_bool(json, "reset-interrupted", vc_reset_interrupted(&clone->dev));
	json_add_bool(json, "read-only", clone->dev.read_only);
	json_add_bool(json, "deferred-remove", clone->dev.deferred_remove);
	json_add_number(json, "open-count", clone->dev.open_count);
	if (clone->has_status) {
		json_add_known(json, "block-size", s->block_sectors, 512);
		json_add_known(json, "present-blocks", s->present_blocks, 1);
		json_add_known(json, "total-blocks", s->total_blocks, 1);
		json_add_known(json, "partial-blocks", s->partial_blocks, 1);
		json_add_known(json, "free-bytes", s->free_sectors, 512);
		json_add_known(json, "dirty-pages", s->dirty_pages, 1);
		json_add_known(json, "used-log-pages", s->used_log_pages, 1);
		json_add_known(json, "total-log-pages", s->total_log_pages, 1);
		json_add_known(json, "commits", s->commits, 1);
		json_add_known(json, "errors", s->errors, 1);
	}
	json_object_object_add(json, "layers", clone_json_layers(clone));
	return json;
}

static int clones_json(const struct clones *clones)
{
	struct json_object *list = json_object_new_array();
	struct json_object *json = json_new();
	unsigned int i;

	for (i = 0; i < clones->nr; i++)
		json_object_array_add(list, clone_json(&clones->clone[i]));
	json_object_object_add(json, "clones", list);
	return json_finish(json);
}

/* ---- status --------------------------------------------------------------------- */

static void print_known(const char *name, u64 value, u64 of)
{
	printf("  %-16s ", name);
	if (value == VC_STATUS_UNKNOWN)
		putchar('-');
	else
		printf("%llu", value);
	if (of && of != VC_STATUS_UNKNOWN)
		printf(" of %llu", of);
	putchar('\n');
}

static void print_known_size(const char *name, u64 sectors)
{
	char text[VC_SIZE_TEXT];

	printf("  %-16s %s\n", name, sectors == VC_STATUS_UNKNOWN ? "-" :
	       vc_size_format(sectors * 512, text));
}

static void clone_print(const struct clone *clone)
{
	const struct vc_status *s = &clone->status;
	unsigned int i;
	char *path;

	printf("%s: %s%s%s\n", clone->path, clone->has_status ? s->mode : "status not known",
	       vc_reset_interrupted(&clone->dev) ?
	       ", suspended by a reset that was interrupted: run it again" :
	       clone->dev.suspended ? ", suspended" : "",
	       clone->dev.deferred_remove ? ", will be removed with its last user" : "");
	print_known_size("size:", clone->dev.sectors);
	printf("  %-16s %u\n", "open count:", clone->dev.open_count);
	for (i = 0; clone->has_table && i < clone->table.nr; i++) {
		path = vc_device_path(clone->table.layer[i].device);
		printf("  %-16s ", !i ? "delta:" : i == 1 ? "base:" : "");
		print_clean(stdout, path ? path : "-");
		putchar('\n');
		free(path);
	}
	if (!clone->has_status)
		return;
	print_known_size("block size:", s->block_sectors);
	print_known("blocks present:", s->present_blocks, s->total_blocks);
	print_known("blocks partial:", s->partial_blocks, 0);
	print_known_size("free for new:", s->free_sectors);
	print_known("dirty pages:", s->dirty_pages, 0);
	print_known("log pages:", s->used_log_pages, s->total_log_pages);
	print_known("commits:", s->commits, 0);
	print_known("errors:", s->errors, 0);
}

int cmd_status(struct options *options)
{
	struct clones clones;
	struct vc_err err;
	unsigned int i;
	int code;

	if (!options_arguments(options, 0, 1, "need no more than one NAME"))
		return options->code;
	if (clones_get(&clones, options->argv[0], &err)) {
		code = report_error(&err);
	} else if (options->json) {
		code = clones_json(&clones);
	} else {
		for (i = 0; i < clones.nr; i++)
			clone_print(&clones.clone[i]);
		code = finish_stdout(VC_EXIT_OK);
	}
	clones_free(&clones);
	return code;
}

/* ---- list ------------------------------------------------------------------------- */

enum {
	COL_NAME,
	COL_SIZE,
	COL_USED,
	COL_MODE,
	COL_LAYERS,
	COL_DELTA,
	COL_BASE,
	COL_COUNT
};

static const struct list_column {
	const char *name;
	double width;
	int flags;
} list_columns[COL_COUNT] = {
	[COL_NAME] = { "NAME", 0.1, 0 },
	[COL_SIZE] = { "SIZE", 8, SCOLS_FL_RIGHT },
	[COL_USED] = { "USED", 8, SCOLS_FL_RIGHT },
	[COL_MODE] = { "MODE", 4, 0 },
	[COL_LAYERS] = { "LAYERS", 2, SCOLS_FL_RIGHT },
	[COL_DELTA] = { "DELTA", 0.3, SCOLS_FL_TRUNC },
	[COL_BASE] = { "BASE", 0.3, SCOLS_FL_TRUNC },
};

/* One cell, to be freed, or NULL for nothing to show. */
static char *list_cell(const struct clone *clone, int column)
{
	const struct vc_status *s = &clone->status;
	char text[VC_SIZE_TEXT];
	char number[16];

	switch (column) {
	case COL_NAME:
		return strdup(clone->dev.name);
	case COL_SIZE:
		return strdup(vc_size_format(clone->dev.sectors * 512, text));
	case COL_USED:
		if (!clone->has_status || s->present_blocks == VC_STATUS_UNKNOWN)
			return NULL;
		return strdup(vc_size_format(s->present_blocks * s->block_sectors * 512,
					     text));
	case COL_MODE:
		return clone->has_status ? strdup(s->mode) : NULL;
	case COL_LAYERS:
		snprintf(number, sizeof(number), "%u", clone->table.nr);
		return strdup(number);
	case COL_DELTA:
		return clone->table.nr ? vc_device_path(clone->table.layer[0].device) : NULL;
	case COL_BASE:
		return clone->table.nr < 2 ? NULL :
		       vc_device_path(clone->table.layer[clone->table.nr - 1].device);
	default:
		return NULL;
	}
}

static void list_parse_columns(struct options *options, char *names, int *columns,
			       unsigned int *nr)
{
	char *name;
	int i;

	*nr = 0;
	while ((name = strsep(&names, ","))) {
		for (i = 0; i < COL_COUNT; i++)
			if (!strcasecmp(name, list_columns[i].name))
				break;
		if (i == COL_COUNT || *nr == COL_COUNT) {
			options_wrong(options, "--output: no column '%s'", name);
			return;
		}
		columns[(*nr)++] = i;
	}
}

static int list_print(const struct clones *clones, const int *columns, unsigned int nr,
		      bool headings)
{
	struct libscols_table *table;
	struct libscols_line *line;
	unsigned int i;
	unsigned int c;
	char *cell;

	scols_init_debug(0);
	table = scols_new_table();
	if (!table)
		return VC_EXIT_MEMORY;
	scols_table_enable_noheadings(table, !headings);
	for (c = 0; c < nr; c++)
		scols_table_new_column(table, list_columns[columns[c]].name,
				       list_columns[columns[c]].width,
				       list_columns[columns[c]].flags);
	for (i = 0; i < clones->nr; i++) {
		line = scols_table_new_line(table, NULL);
		for (c = 0; line && c < nr; c++) {
			cell = list_cell(&clones->clone[i], columns[c]);
			if (cell)
				scols_line_refer_data(line, c, cell);
		}
	}
	scols_print_table(table);
	scols_unref_table(table);
	return finish_stdout(VC_EXIT_OK);
}

static const struct option list_options[] = {
	{ "noheadings", no_argument, NULL, 'n' },
	{ "output", required_argument, NULL, 'o' },
	{ }
};

int cmd_list(struct options *options)
{
	int columns[COL_COUNT] = {
		COL_NAME, COL_SIZE, COL_USED, COL_MODE, COL_LAYERS, COL_DELTA, COL_BASE
	};
	unsigned int nr = COL_COUNT;
	struct clones clones;
	bool headings = true;
	struct vc_err err;
	int code;
	int opt;

	while ((opt = options_next(options, list_options)) != -1) {
		if (opt == 'n')
			headings = false;
		else
			list_parse_columns(options, optarg, columns, &nr);
	}
	if (!options_arguments(options, 0, 0, "takes no arguments"))
		return options->code;
	if (clones_get(&clones, NULL, &err))
		code = report_error(&err);
	else if (options->json)
		code = clones_json(&clones);
	else
		code = list_print(&clones, columns, nr, headings);
	clones_free(&clones);
	return code;
}
