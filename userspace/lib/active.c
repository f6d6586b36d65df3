// SPDX-License-Identifier: GPL-2.0-or-later
/* Open clones: see active.h. */
#define _GNU_SOURCE
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>

#include "active.h"
#include "loop.h"

bool vc_device_is_over(dev_t device, const struct vc_file *file)
{
	struct vc_loop_info info;
	struct vc_err ignored;

	if (file->is_block && file->rdev == device)
		return true;
	/* A part of a file is still that file here. */
	if (vc_loop_info(device, &info, &ignored))
		return false;
	info.whole = true;
	return vc_loop_is_over(&info, file);
}

/* The first layer of one clone that lies on the file, or -1. */
static int vc_active_layer(const struct vc_dm_device *dev, const struct vc_file *file,
			   bool *written)
{
	struct vc_table *table;
	struct vc_err ignored;
	int layer = -1;
	unsigned int i;

	table = dev->params ? malloc(sizeof(*table)) : NULL;
	if (!table)
		return -1;
	if (!vc_table_parse(dev->params, table, &ignored))
		for (i = 0; i < table->nr && layer < 0; i++)
			if (vc_device_is_over(table->layer[i].device, file))
				layer = i;
	*written = !layer && !table->read_only;
	free(table);
	return layer;
}

int vc_active_get(const char *name, struct vc_dm_device *dev, struct vc_table **table,
		  struct vc_err *err)
{
	int ret;

	*table = calloc(1, sizeof(**table));
	if (!*table)
		return vc_error_nomem(err);
	ret = vc_dm_get(name, dev, err);
	if (!ret && dev->params) {
		ret = vc_table_parse(dev->params, *table, err);
		if (ret)
			vc_dm_put(dev);
	}
	if (ret) {
		free(*table);
		*table = NULL;
	}
	return ret;
}

bool vc_active_is_top(const struct vc_dm_device *dev, const struct vc_file *file)
{
	bool written;

	return !vc_active_layer(dev, file, &written);
}

enum vc_use {
	VC_USE_WRITTEN,			/* as the delta of a clone that is not suspended */
	VC_USE_SUSPENDED,		/* of one that is */
	VC_USE_ANY,
};

/* @except: a clone that does not count */
static int vc_refuse(const struct vc_file *file, enum vc_use use, const char *except,
		     struct vc_err *err)
{
	struct vc_dm_device *devs;
	unsigned int nr;
	unsigned int i;
	bool suspended = use == VC_USE_SUSPENDED;
	bool written;
	int ret;

	ret = vc_dm_list(&devs, &nr, err);
	if (ret)
		return ret;
	for (i = 0; i < nr && !ret; i++)
		if (!(except && !strcmp(devs[i].name, except)) &&
		    vc_active_layer(&devs[i], file, &written) >= 0 &&
		    (use == VC_USE_ANY ||
		     (written && devs[i].suspended == suspended)))
			ret = vc_error(err, EBUSY, file->path,
				       "in use: it is %s of the open clone %s, close that first",
				       written ? "the delta" : "a base", devs[i].name);
	vc_dm_list_free(devs, nr);
	return ret;
}

int vc_active_refuse(const struct vc_file *file, struct vc_err *err)
{
	return vc_refuse(file, VC_USE_WRITTEN, NULL, err);
}

int vc_active_refuse_any(const struct vc_file *file, struct vc_err *err)
{
	return vc_refuse(file, VC_USE_ANY, NULL, err);
}

int vc_active_refuse_others(const struct vc_file *file, const char *name,
			    struct vc_err *err)
{
	return vc_refuse(file, VC_USE_ANY, name, err);
}

int vc_active_share(struct vc_file *file, struct vc_err *err)
{
	struct vc_err ignored;
	struct vc_err why;
	int shared = vc_file_share(file, &why);
	int ret = vc_active_refuse(file, err);

	if (ret || !shared)
		return ret;
	/* Locked, but not written. */
	if (vc_refuse(file, VC_USE_SUSPENDED, NULL, &ignored) == -EBUSY)
		return 0;
	*err = why;
	return shared;
}

int vc_active_name(const struct vc_file *file, char **name, struct vc_err *err)
{
	struct vc_dm_device *devs;
	unsigned int nr;
	unsigned int i;
	int ret;

	*name = NULL;
	ret = vc_dm_list(&devs, &nr, err);
	if (ret)
		return ret;
	for (i = 0; i < nr && !*name && !ret; i++) {
		if (!vc_active_is_top(&devs[i], file))
			continue;
		*name = strdup(devs[i].name);
		if (!*name)
			ret = vc_error_nomem(err);
	}
	vc_dm_list_free(devs, nr);
	return ret;
}

char *vc_device_node(dev_t device)
{
	char *node = NULL;
	char *line = NULL;
	size_t room = 0;
	char path[64];
	FILE *in;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/uevent", major(device),
		 minor(device));
	in = fopen(path, "re");
	while (in && !node && getline(&line, &room, in) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "DEVNAME=", 8) &&
		    asprintf(&node, "/dev/%s", line + 8) < 0)
			node = NULL;
	}
	free(line);
	if (in)
		fclose(in);
	return node;
}

char *vc_device_path(dev_t device)
{
	char *path = vc_loop_backing_path(device);

	if (!path)
		path = vc_device_node(device);
	if (!path && asprintf(&path, "%u:%u", major(device), minor(device)) < 0)
		path = NULL;
	return path;
}

static void vc_add_user(char *text, size_t room, const char *how, const char *who)
{
	size_t used = strlen(text);

	snprintf(text + used, room - used, "%s%s %s", used ? ", " : "", how, who);
}

static void vc_add_mounts(dev_t device, char *text, size_t room)
{
	char *line = NULL;
	size_t line_room = 0;
	unsigned int maj;
	unsigned int min;
	char *where;
	FILE *in;

	in = fopen("/proc/self/mountinfo", "re");
	while (in && getline(&line, &line_room, in) > 0) {
		where = NULL;
		if (sscanf(line, "%*d %*d %u:%u %*s %ms", &maj, &min, &where) == 3 &&
		    makedev(maj, min) == device)
			vc_add_user(text, room, "mounted on", where);
		free(where);
	}
	free(line);
	if (in)
		fclose(in);
}

static void vc_add_holders(dev_t device, char *text, size_t room)
{
	struct dirent *entry;
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/holders", major(device),
		 minor(device));
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		if (entry->d_name[0] != '.')
			vc_add_user(text, room, "held by", entry->d_name);
	if (dir)
		closedir(dir);
}

void vc_device_users(dev_t device, char *text, size_t room)
{
	text[0] = '\0';
	vc_add_mounts(device, text, room);
	vc_add_holders(device, text, room);
}
