// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone copy */
#define _GNU_SOURCE
#include <sys/stat.h>

#include "children.h"
#include "filecopy.h"
#include "log.h"
#include "newfile.h"
#include "options.h"
#include "reparent.h"

enum {
	OPT_CHAIN = OPT_OWN,
};

static const struct option copy_options[] = {
	{ "chain", no_argument, NULL, OPT_CHAIN },
	{ "force", no_argument, NULL, 'f' },
	{ }
};

/**
 * struct copy_args - a copy
 * @parent: what the next copy stands on: a copy, or what the original stands on
 * @copied: JSON: the new files
 */
struct copy_args {
	struct options *options;
	struct vc_chain chain;
	struct vc_image *parent;
	struct json_object *copied;
	const char *destination;
	bool directory;
	bool whole_chain;
	bool force;
};

/* The copy stands on @parent, wherever that is seen from it. */
static int copy_set_parent(const struct vc_newfile *new, const struct vc_image *parent,
			   struct vc_err *err)
{
	struct vc_log_report report;
	struct vc_image *image;
	int ret;

	ret = vc_newfile_image(new, &image, VC_IMAGE_HEADERS | VC_IMAGE_WRITE, err);
	if (ret)
		return ret;
	ret = vc_log_recover(image, &report, err);
	if (!ret)
		ret = vc_image_reload(image, 0, err);
	if (!ret)
		ret = vc_reparent(image, parent, err);
	/* It will have another name. */
	if (!ret)
		vc_children_remove(&parent->file, image->file.real, err);
	vc_image_close(image);
	return ret;
}

static int copy_bytes(struct copy_args *args, const struct vc_image *image,
		      const struct vc_newfile *new, bool *shared, struct vc_err *err)
{
	struct vc_file to = VC_FILE_CLOSED;
	int ret;

	ret = vc_newfile_file(new, &to, err);
	if (!ret)
		ret = vc_file_copy(&image->file, &to, &args->options->progress.progress, shared,
				   err);
	if (!ret)
		ret = vc_file_sync(&to, err);
	vc_file_close(&to);
	return ret;
}

static void copy_note(struct copy_args *args, const char *path, const struct vc_image *image,
		      bool shared)
{
	struct json_object *json;

	if (!args->options->json)
		return;
	json = json_object_new_object();
	json_add_string(json, "path", path);
	json_add_string(json, "source", image->file.path);
	json_add_string(json, "parent", args->parent ? args->parent->file.real : NULL);
	json_add_bool(json, "shared", shared);
	json_object_array_add(args->copied, json);
}

static int copy_layer(struct copy_args *args, const struct vc_image *image, const char *path,
		      struct vc_err *err)
{
	struct vc_newfile new;
	struct vc_err ignored;
	bool shared = false;
	int ret;

	ret = vc_newfile_begin(&new, path, args->force, &args->chain, err);
	if (!ret)
		ret = copy_bytes(args, image, &new, &shared, err);
	/* A VHD finds its parent by the name beside it. */
	if (!ret && args->parent && image->format == VC_FORMAT_VHDX)
		ret = copy_set_parent(&new, args->parent, err);
	if (!ret)
		ret = vc_newfile_publish(&new, err);
	if (!ret) {
		if (args->parent)
			vc_children_add(&args->parent->file, new.path, &ignored);
		copy_note(args, new.path, image, shared);
	}
	vc_newfile_end(&new);
	return ret;
}

/* Where a layer goes; to be freed. */
static char *copy_path(const struct copy_args *args, const struct vc_image *image)
{
	const char *name = strrchr(image->file.real, '/');
	char *path;

	if (!args->directory)
		return strdup(args->destination);
	if (asprintf(&path, "%s/%s", args->destination, name ? name + 1 : "") < 0)
		return NULL;
	return path;
}

/* From the base up, so that a copy's parent is there before it. */
static int copy_layers(struct copy_args *args, struct vc_err *err)
{
	unsigned int nr = args->whole_chain ? args->chain.nr : 1;
	struct vc_image *parent = NULL;
	unsigned int i;
	char *path;
	int ret = 0;

	if (nr < args->chain.nr)
		args->parent = args->chain.layer[nr];
	for (i = nr; i-- && !ret;) {
		path = copy_path(args, args->chain.layer[i]);
		ret = path ? copy_layer(args, args->chain.layer[i], path, err) :
			     vc_error_nomem(err);
		/* What was copied is the next one's parent. */
		if (!ret && i) {
			vc_image_close(parent);
			ret = vc_image_open(&parent, path, VC_IMAGE_REPLAY |
					    (args->chain.layer[i]->format == VC_FORMAT_RAW ?
					     VC_IMAGE_RAW : 0), NULL, err);
			args->parent = parent;
		}
		free(path);
	}
	vc_image_close(parent);
	return ret;
}

static int copy_check(struct copy_args *args, struct vc_err *err)
{
	struct stat st;
	unsigned int i;

	args->directory = !stat(args->destination, &st) && S_ISDIR(st.st_mode);
	if (args->whole_chain && !args->directory)
		return vc_error(err, ENOTDIR, args->destination,
				"a chain is copied into a directory, and this is none");
	for (i = 0; i < args->chain.nr; i++)
		if (!i || args->whole_chain)
			args->options->progress.progress.total += args->chain.layer[i]->file.size;
	return 0;
}

int cmd_copy(struct options *options)
{
	struct copy_args args = { .options = options };
	struct json_object *json;
	struct vc_err err;
	int opt;
	int ret;

	options_read_data(options);
	while ((opt = options_next(options, copy_options)) != -1) {
		if (opt == OPT_CHAIN)
			args.whole_chain = true;
		else
			args.force = true;
	}
	if (!options_arguments(options, 2, 2, "need IMAGE and DESTINATION"))
		return options->code;
	args.destination = options->argv[1];
	if (options->json)
		args.copied = json_object_new_array();
	ret = vc_chain_open(&args.chain, options->argv[0], &options->chain, &err);
	if (!ret)
		ret = copy_check(&args, &err);
	if (!ret) {
		progress_start(&options->progress, "copy");
		ret = copy_layers(&args, &err);
		progress_end(&options->progress);
	}
	vc_chain_close(&args.chain);
	if (ret) {
		ret = report_error(&err);
		json_object_put(args.copied);
	} else if (options->json) {
		json = json_new();
		json_object_object_add(json, "copied", args.copied);
		ret = json_finish(json);
	}
	return ret;
}
