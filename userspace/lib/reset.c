// SPDX-License-Identifier: GPL-2.0-or-later
/* A delta made empty, in place: see reset.h. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "activate.h"
#include "change.h"
#include "log.h"
#include "reset.h"

static u64 vc_space_taken(const struct vc_file *file)
{
	struct stat st;

	return file->is_block || fstat(file->fd, &st) ? 0 : (u64)st.st_blocks * 512;
}

/*
 * Nothing refers to any block now.  What cannot be given back is written over by and
 * by, which is no error.
 */
static int vc_reset_release(struct vc_image *image, bool open, struct vc_err *err)
{
	struct vc_usage usage;
	u64 cut;
	int ret;

	ret = vc_image_walk_regions(image, &usage, err);
	if (!ret)
		vc_image_punch_free(image, &usage);
	/* An open clone needs its room. */
	cut = usage.end;
	vc_usage_free(&usage);
	if (!ret && !open && !image->file.is_block && image->file.size > cut)
		ret = vc_file_resize(&image->file, cut, err);
	return ret ? ret : vc_file_sync(&image->file, err);
}

static int vc_reset_metadata(struct vc_image *image, struct vc_err *err)
{
	const struct vhdx_region *bat = &image->regions.bat;
	struct vc_change *change;
	int ret;

	ret = vc_change_begin(&change, image, err);
	if (!ret)
		ret = vc_change_zero(change, bat->offset, bat->length, err);
	if (ret) {
		vc_change_drop(change);
		return ret;
	}
	vc_change_data(change);
	return vc_change_commit(change, err);
}

static int vc_reset_loaded(struct vc_image *image, bool open, struct vc_reset *reset,
			   struct vc_err *err)
{
	int ret;

	if (image->format != VC_FORMAT_VHDX || !image->meta.has_parent)
		return vc_error(err, EINVAL, image->file.path,
				"not a delta: it has no parent");
	reset->old_size = vc_space_taken(&image->file);
	ret = vc_reset_metadata(image, err);
	if (!ret)
		ret = vc_image_reload(image, 0, err);
	if (!ret)
		ret = vc_reset_release(image, open, err);
	reset->new_size = vc_space_taken(&image->file);
	return ret;
}

/* ---- an open clone ------------------------------------------------------------- */

/* To be freed, or NULL. */
static char *vc_reset_mark_path(const struct vc_dm_device *dev)
{
	char *path;

	return asprintf(&path, "/run/vhdclone-reset-%u:%u", major(dev->device),
			minor(dev->device)) < 0 ? NULL : path;
}

/* Without it, an interrupted reset looks as if somebody else had suspended the clone. */
static void vc_reset_mark(const struct vc_dm_device *dev)
{
	char *path = vc_reset_mark_path(dev);
	FILE *file = path ? fopen(path, "we") : NULL;

	if (file) {
		fputs(dev->uuid, file);
		fclose(file);
	}
	free(path);
}

void vc_reset_forget(const struct vc_dm_device *dev)
{
	char *path = vc_reset_mark_path(dev);

	if (path)
		unlink(path);
	free(path);
}

bool vc_reset_interrupted(const struct vc_dm_device *dev)
{
	char *path = dev->suspended ? vc_reset_mark_path(dev) : NULL;
	FILE *file = path ? fopen(path, "re") : NULL;
	char uuid[VC_DM_UUID_MAX] = "";
	bool same = false;

	if (file) {
		/* A device without one has an empty file. */
		if (!fgets(uuid, sizeof(uuid), file))
			uuid[0] = '\0';
		same = !ferror(file) && !strcmp(uuid, dev->uuid);
		fclose(file);
	}
	free(path);
	return same;
}

/* Who uses a clone has read what is there now, and may write it back. */
static int vc_reset_unused(const char *name, struct vc_err *err)
{
	struct vc_dm_device dev;
	int ret;

	ret = vc_dm_get(name, &dev, err);
	if (ret)
		return ret;
	if (dev.open_count)
		ret = vc_busy(&dev, err);
	vc_dm_put(&dev);
	return ret;
}

static int vc_reset_suspended(const char *name, struct vc_image *image,
			      struct vc_reset *reset, struct vc_err *err)
{
	struct vc_log_report report;
	int ret;

	/* Who opens it from now on waits with its first read. */
	ret = vc_reset_unused(name, err);
	if (!ret)
		ret = vc_image_reload(image, VC_IMAGE_HEADERS, err);
	/* The kernel has left it clean, but a reset that was interrupted may not have. */
	if (!ret && image->format == VC_FORMAT_VHDX)
		ret = vc_log_recover(image, &report, err);
	if (!ret)
		ret = vc_image_reload(image, 0, err);
	return ret ? ret : vc_reset_loaded(image, true, reset, err);
}

static int vc_reset_device(const struct vc_dm_device *dev, const struct vc_table *table,
			   struct vc_reset *reset, struct vc_err *err)
{
	bool interrupted = vc_reset_interrupted(dev);
	struct vc_image *image;
	sigset_t signals;
	struct vc_err why;
	int ret;

	if (dev->suspended && !interrupted)
		return vc_error(err, EBUSY, dev->name,
				"suspended by somebody: 'dmsetup resume %s' first", dev->name);
	if (table->read_only || !table->nr)
		return vc_error(err, EROFS, dev->name, "is open read-only");
	if (dev->open_count)
		return vc_busy(dev, err);
	ret = vc_open_delta(table->layer[0].device, true, &image, err);
	if (ret)
		return ret;
	ret = vc_active_refuse_others(&image->file, dev->name, err);
	/* The loop device has the other kind of lock. */
	if (!ret && flock(image->file.fd, LOCK_EX | LOCK_NB))
		ret = vc_error(err, EBUSY, image->file.path, "in use by another program");
	vc_signals_hold(&signals);
	if (!ret && !interrupted) {
		vc_reset_mark(dev);
		ret = vc_dm_suspend(dev->name, err);
		if (ret)
			vc_reset_forget(dev);
	}
	if (!ret) {
		ret = vc_reset_suspended(dev->name, image, reset, err);
		if (!vc_dm_resume(dev->name, &why)) {
			vc_reset_forget(dev);
		} else if (!ret) {
			*err = why;
			ret = -why.errnum;
		}
	}
	vc_signals_release(&signals);
	vc_image_close(image);
	return ret;
}

int vc_reset_clone(const char *name, struct vc_reset *reset, struct vc_err *err)
{
	struct vc_dm_device dev;
	struct vc_table *table;
	int ret;

	memset(reset, 0, sizeof(*reset));
	ret = vc_active_get(name, &dev, &table, err);
	if (ret)
		return ret;
	ret = vc_reset_device(&dev, table, reset, err);
	vc_dm_put(&dev);
	free(table);
	if (!ret) {
		reset->name = strdup(name);
		if (!reset->name)
			ret = vc_error_nomem(err);
	}
	return ret;
}

/* ---- one that is not ------------------------------------------------------------ */

/* The clone that is open from this file, if any. */
static int vc_reset_find(const char *path, char **name, struct vc_err *err)
{
	struct vc_image *image;
	int ret;

	*name = NULL;
	ret = vc_image_open(&image, path, VC_IMAGE_UNREAD, NULL, err);
	if (!ret)
		ret = vc_active_name(&image->file, name, err);
	vc_image_close(image);
	return ret;
}

int vc_reset_image(const char *path, struct vc_reset *reset, struct vc_err *err)
{
	struct vc_image *image;
	char *name;
	int ret;

	memset(reset, 0, sizeof(*reset));
	ret = vc_reset_find(path, &name, err);
	if (ret)
		return ret;
	if (name) {
		ret = vc_reset_clone(name, reset, err);
		free(name);
		return ret;
	}
	ret = vc_change_open(&image, path, err);
	if (ret)
		return ret;
	ret = vc_reset_loaded(image, false, reset, err);
	vc_image_close(image);
	return ret;
}
