// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Opening and closing clones: see activate.h.
 *
 * Two tools that work on one image keep each other out with a lock on the file
 * (vc_file_lock()).  A loop device keeps the descriptor it was given, so the lock on a
 * delta file stays as long as the clone is open.  What is only read is locked for readers
 * until the clone is there for others to see.  The kernel keeps others out, too:
 * the target refuses a second writer, and the device's UUID is made from the delta's
 * identity, so that device-mapper refuses a second device for it.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "activate.h"
#include "guid.h"
#include "loop.h"
#include "reset.h"

/* One open in progress, and what must be undone if it fails. */
struct vc_opening {
	const struct vc_open_options *options;
	const char *name;
	struct vc_chain chain;
	struct vc_loop loop[VHDCLONE_MAX_LAYERS];
	dev_t device[VHDCLONE_MAX_LAYERS];
	u64 old_size;			/* of the delta file, 0: was not changed */
	struct vc_opened *opened;
};

u32 vc_layer_sector_size(const struct vc_image *image)
{
	return image->format == VC_FORMAT_RAW ? 512 : image->meta.logical_sector_size;
}

/* ---- is it open already? --------------------------------------------------------- */

/* One device for one delta: device-mapper does not take the same UUID twice. */
static void vc_open_uuid(const struct vc_opening *o, const struct vc_file *file,
			 char uuid[VC_DM_UUID_MAX])
{
	char text[VC_GUID_TEXT];
	struct vhdx_guid guid;

	vc_guid_random(&guid);
	if (o->options->read_only)
		snprintf(uuid, VC_DM_UUID_MAX, VHDCLONE_UUID_PREFIX "%s",
			 vc_guid_format(&guid, text));
	else if (file->is_block)
		snprintf(uuid, VC_DM_UUID_MAX, VHDCLONE_UUID_PREFIX "device-%u-%u",
			 major(file->rdev), minor(file->rdev));
	else
		snprintf(uuid, VC_DM_UUID_MAX, VHDCLONE_UUID_PREFIX "file-%llx-%llx",
			 (unsigned long long)file->dev, (unsigned long long)file->ino);
}

/* A device of this delta that has no table yet: of an open that goes on, or was killed. */
static bool vc_open_is_empty(const struct vc_opening *o, const struct vc_file *file,
			     const struct vc_dm_device *dev)
{
	char uuid[VC_DM_UUID_MAX];

	vc_open_uuid(o, file, uuid);
	return !dev->params && !strcmp(dev->uuid, uuid);
}

/* The delta is locked: whoever made that is gone. */
static int vc_open_remove_empty(const struct vc_opening *o, const struct vc_file *file,
				struct vc_err *err)
{
	struct vc_dm_device dev;
	int ret;

	ret = vc_dm_get(o->name, &dev, err);
	if (ret)
		return ret == -ENXIO ? 0 : ret;
	if (vc_open_is_empty(o, file, &dev))
		ret = vc_dm_remove(o->name, false, err);
	vc_dm_put(&dev);
	return ret;
}

/*
 * The device of this name, if there is one, must be this image, opened in the same
 * way.  Return: 1 if it is there, 0 if the name is free, or will be.
 */
static int vc_open_same(const struct vc_opening *o, const struct vc_file *file,
			struct vc_err *err)
{
	struct vc_dm_device dev;
	int ret;

	ret = vc_dm_get(o->name, &dev, err);
	if (ret == -ENXIO)
		return 0;
	if (ret)
		return ret;
	ret = 1;
	if (vc_open_is_empty(o, file, &dev))
		ret = 0;
	else if (!vc_active_is_top(&dev, file))
		ret = vc_error(err, EEXIST, o->name,
			       "a clone of this name is open, of another image than %s",
			       file->path);
	else if (dev.read_only != o->options->read_only)
		ret = vc_error(err, EEXIST, o->name, "is open already, but %s",
			       dev.read_only ? "read-only" : "for writing");
	vc_dm_put(&dev);
	return ret;
}

static int vc_open_not_elsewhere(const struct vc_opening *o, struct vc_file *file,
				 struct vc_err *err)
{
	if (o->options->read_only)
		return vc_active_share(file, err);
	return vc_active_refuse_any(file, err);
}

/*
 * The loop device that will be attached shares the descriptor, and with it the lock:
 * it lasts until the clone is closed.
 */
static int vc_open_lock(const struct vc_opening *o, struct vc_file *file,
			struct vc_err *err)
{
	struct vc_err why;
	int ret = vc_file_lock(file, &why);
	int same;

	if (!ret)
		return 0;
	/* Opened by somebody since we looked? */
	same = vc_open_same(o, file, err);
	if (!same)
		same = vc_open_not_elsewhere(o, file, err);
	if (same)
		return same;
	*err = why;
	return ret;
}

/* ---- the chain -------------------------------------------------------------------- */

/* A device that somebody has mounted, or that is part of another, is not ours. */
static int vc_open_unused(const struct vc_file *file, struct vc_err *err)
{
	char proc[64];
	int fd;

	if (!file->is_block)
		return 0;
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", file->fd);
	fd = open(proc, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (fd < 0)
		return vc_error_sys(err, errno, file->path, "the device is in use");
	close(fd);
	return 0;
}

static int vc_open_recover(struct vc_opening *o, struct vc_image *top, struct vc_err *err)
{
	int ret;

	if (!top->header.log_dirty)
		return 0;
	if (o->options->read_only)
		return vc_error(err, EUCLEAN, top->file.path,
				"the log holds changes that are not in place yet: run 'vhdclone recover %s' first, or open it for writing",
				top->file.path);
	ret = vc_log_recover(top, &o->opened->recovered, err);
	return ret ? ret : vc_image_reload(top, 0, err);
}

static int vc_open_chain(struct vc_opening *o, const char *path, struct vc_err *err)
{
	struct vc_chain_options options = o->options->chain;
	unsigned int flags = VC_IMAGE_UNREAD;
	struct vc_err ignored;
	struct vc_image *top;
	unsigned int i;
	int ret;

	if (!o->options->read_only)
		flags |= VC_IMAGE_WRITE;
	ret = vc_image_open(&top, path, flags, NULL, err);
	if (ret)
		return ret;
	o->chain.layer[0] = top;
	o->chain.nr = 1;
	ret = vc_open_same(o, &top->file, err);
	if (!ret && !o->options->read_only)
		ret = vc_open_lock(o, &top->file, err);
	if (!ret && !o->options->read_only)
		ret = vc_open_remove_empty(o, &top->file, err);
	if (ret)
		return ret;
	ret = vc_open_not_elsewhere(o, &top->file, err);
	if (!ret && !o->options->read_only)
		ret = vc_open_unused(&top->file, err);
	/* The chain is checked as it will be, before anything is written. */
	if (!ret)
		ret = vc_image_reload(top, VC_IMAGE_REPLAY, err);
	if (!ret && top->format != VC_FORMAT_VHDX)
		ret = vc_error(err, EINVAL, path,
			       "not a VHDX: make a clone of it with 'vhdclone create %s DELTA'",
			       path);
	options.share = true;
	if (!ret)
		ret = vc_chain_walk(&o->chain, top, &options, err);
	if (!ret)
		ret = vc_table_possible(&o->chain, err);
	/* The delta of a suspended clone is open for writing, and not written. */
	if (!ret && o->options->read_only && !vc_active_refuse_any(&top->file, &ignored))
		ret = vc_file_no_writers(&top->file, err);
	for (i = 1; i < o->chain.nr && !ret; i++)
		ret = vc_file_no_writers(&o->chain.layer[i]->file, err);
	return ret;
}

/* ---- room for the delta ------------------------------------------------------------- */

static int vc_open_extend(struct vc_opening *o, struct vc_err *err)
{
	struct vc_image *top = o->chain.layer[0];
	struct vc_opened *opened = o->opened;
	struct vc_err ignored;
	struct vc_usage usage;
	u64 wanted;
	u64 most;
	u64 step;
	int ret;

	ret = vc_image_walk(top, &usage, NULL, NULL, err);
	vc_usage_free(&usage);
	if (ret)
		return ret;
	opened->capacity = top->file.size;
	opened->capacity_wanted = vc_image_full_size(top, &usage);
	wanted = vc_image_open_size(top, &usage);
	if (o->options->read_only || top->file.is_block || wanted <= top->file.size)
		return 0;

	o->old_size = top->file.size;
	ret = vc_file_resize(&top->file, wanted, err);
	if (ret == -EFBIG || ret == -EINVAL) {
		/* As large as this file system, or the limit of this process, allows. */
		most = o->old_size & ~(VHDX_MIB - 1);
		for (step = 1ULL << 48; step >= VHDX_MIB; step >>= 1)
			if (most + step < wanted &&
			    !vc_file_resize(&top->file, most + step, &ignored))
				most += step;
		ret = most > o->old_size ? vc_file_resize(&top->file, most, err) : 0;
	}
	/* The log will say that the file has this size. */
	if (!ret)
		ret = vc_file_sync(&top->file, err);
	top->size = top->file.size;
	opened->capacity = top->file.size;
	return ret;
}

/* ---- loop devices ------------------------------------------------------------------------ */

static int vc_open_layer(struct vc_opening *o, unsigned int i, struct vc_err *err)
{
	const struct vc_image *image = o->chain.layer[i];
	u32 sector_size = vc_layer_sector_size(image);
	bool written = !i && !o->options->read_only;
	struct vc_loop *loop = &o->loop[i];
	int ret = 0;

	if (image->file.is_block) {
		o->device[i] = image->file.rdev;
		return 0;
	}
	/* All clones of a base share one device, and so the kernel's map of it. */
	if (written || !vc_loop_find(loop, &image->file, true, sector_size))
		ret = vc_loop_attach(loop, &image->file, written, sector_size, err);
	o->device[i] = loop->device;
	return ret;
}

static int vc_open_activate(struct vc_opening *o, struct vc_err *err)
{
	const struct vc_image *top = o->chain.layer[0];
	bool read_only = o->options->read_only;
	char uuid[VC_DM_UUID_MAX];
	unsigned int i;
	char *params;
	int ret = 0;

	for (i = 0; i < o->chain.nr && !ret; i++)
		ret = vc_open_layer(o, i, err);
	if (!ret)
		ret = vc_table_build(&o->chain, o->device, read_only, &params, err);
	if (ret)
		return ret;

	vc_open_uuid(o, &top->file, uuid);
	ret = vc_dm_create(o->name, uuid, vc_table_sectors(&o->chain), params, read_only,
			   o->options->probe, &o->opened->path, err);
	free(params);
	/* The loop devices of others may outlive this clone, and with them their locks. */
	for (i = read_only ? 0 : 1; i < o->chain.nr; i++)
		vc_file_unlock(&o->chain.layer[i]->file);
	return ret;
}

/* Device-mapper holds the loop devices now, or nobody does and they go. */
static void vc_open_release_loops(struct vc_opening *o)
{
	unsigned int i;

	for (i = 0; i < VHDCLONE_MAX_LAYERS; i++)
		vc_loop_close(&o->loop[i]);
}

static void vc_open_undo(struct vc_opening *o)
{
	struct vc_err ignored;

	if (o->old_size) {
		vc_file_resize(&o->chain.layer[0]->file, o->old_size, &ignored);
		vc_file_sync(&o->chain.layer[0]->file, &ignored);
	}
}

int vc_open(const char *path, const char *name, const struct vc_open_options *options,
	    struct vc_opened *opened, struct vc_err *err)
{
	struct vc_opening *o = calloc(1, sizeof(*o));
	sigset_t signals;
	unsigned int i;
	int ret;

	memset(opened, 0, sizeof(*opened));
	if (!o)
		return vc_error_nomem(err);
	o->options = options;
	o->name = name;
	o->opened = opened;
	for (i = 0; i < VHDCLONE_MAX_LAYERS; i++)
		o->loop[i].fd = -1;

	ret = vc_open_chain(o, path, err);
	if (ret == 1) {
		opened->was_open = true;
		opened->path = vc_dm_path(name);
		ret = opened->path ? 0 : vc_error_nomem(err);
		goto out;
	}
	if (!ret)
		ret = vc_open_recover(o, o->chain.layer[0], err);
	/* A device without a table, or loop devices without a clone, must not stay. */
	vc_signals_hold(&signals);
	if (!ret)
		ret = vc_open_extend(o, err);
	if (!ret)
		ret = vc_open_activate(o, err);
	opened->nr_layers = o->chain.nr;
	vc_open_release_loops(o);
	if (ret)
		vc_open_undo(o);
	vc_signals_release(&signals);
out:
	vc_chain_close(&o->chain);
	free(o);
	return ret;
}

/* ---- closing ----------------------------------------------------------------------------- */

int vc_open_delta(dev_t device, bool write, struct vc_image **image, struct vc_err *err)
{
	unsigned int flags = VC_IMAGE_UNREAD | (write ? VC_IMAGE_WRITE : 0);
	struct vc_loop_info info;
	char *path = NULL;
	bool same;
	int ret;

	/* A loop device that stays was attached by the user: it is his device then. */
	if (!vc_loop_info(device, &info, err) && info.autoclear)
		path = vc_loop_backing_path(device);
	if (!path)
		path = vc_device_node(device);
	if (!path)
		return vc_error(err, ENOENT, NULL, "device %u:%u has no name",
				major(device), minor(device));
	ret = vc_image_open(image, path, flags, NULL, err);
	if (!ret) {
		if ((*image)->file.is_block && (*image)->file.rdev == device)
			same = true;
		else
			same = !vc_loop_info(device, &info, err) &&
			       vc_loop_is_over(&info, &(*image)->file);
		if (!same) {
			ret = vc_error(err, ENOENT, path,
				       "is not the file that the clone was opened from");
			vc_image_close(*image);
			*image = NULL;
		}
	}
	free(path);
	return ret;
}

int vc_busy(const struct vc_dm_device *dev, struct vc_err *err)
{
	char users[512];

	vc_device_users(dev->device, users, sizeof(users));
	if (!users[0])
		snprintf(users, sizeof(users), "open %u times", dev->open_count);
	return vc_error(err, EBUSY, dev->name, "in use: %s", users);
}

/* The device is gone; what did it leave? */
static int vc_close_finish(struct vc_image *image, dev_t device, struct vc_closed *closed,
			   struct vc_err *err)
{
	const char *path = image->file.path;
	struct vc_err why;
	int ret;

	if (!image->file.is_block && !vc_loop_wait_gone(device, &image->file)) {
		snprintf(closed->uncut, sizeof(closed->uncut),
			 "loop device %u is still attached", minor(device));
		return 0;
	}
	/* Somebody may have opened it again in the meantime: then it is theirs. */
	if (image->file.writable)
		ret = vc_file_lock(&image->file, &why);
	else
		ret = vc_file_share(&image->file, &why);
	if (ret || vc_active_refuse_any(&image->file, &why)) {
		snprintf(closed->uncut, sizeof(closed->uncut), "%s", why.msg);
		return 0;
	}
	ret = vc_image_reload(image, VC_IMAGE_HEADERS, err);
	if (ret)
		return ret;
	if (image->format != VC_FORMAT_VHDX)
		return vc_error(err, EINVAL, path, "is no VHDX any more");
	if (image->header.log_dirty)
		return vc_error(err, EUCLEAN, path,
				"closed, but changes are still in the log: run 'vhdclone recover %s'",
				path);
	if (!image->file.writable)
		return 0;
	ret = vc_image_reload(image, 0, err);
	if (!ret)
		ret = vc_image_trim(image, &closed->cut, err);
	return ret;
}

static int vc_close_device(const struct vc_dm_device *dev, const struct vc_table *table,
			   bool deferred, struct vc_closed *closed, struct vc_err *err)
{
	dev_t device = table->layer[0].device;
	struct vc_image *image = NULL;
	struct vc_dm_device left;
	struct vc_err why = { };
	char users[512];
	int ret;

	if (!table->read_only && table->nr &&
	    vc_open_delta(device, true, &image, &why)) {
		snprintf(closed->uncut, sizeof(closed->uncut), "%s", why.msg);
		/* Whether it was left clean can be seen all the same. */
		vc_open_delta(device, false, &image, &why);
	}

	vc_device_users(dev->device, users, sizeof(users));
	/* Somebody known will not let go; others, such as udev, may in a moment. */
	if (!deferred && users[0])
		ret = vc_busy(dev, err);
	else
		ret = vc_dm_remove(dev->name, deferred, err);
	if (ret == -EBUSY)
		vc_busy(dev, err);
	if (!ret && deferred && !vc_dm_get(dev->name, &left, &why)) {
		closed->deferred = true;
		vc_dm_put(&left);
	}
	if (!ret && image && !closed->deferred)
		ret = vc_close_finish(image, device, closed, err);
	vc_image_close(image);
	return ret;
}

int vc_close(const char *name, bool deferred, struct vc_closed *closed,
	     struct vc_err *err)
{
	struct vc_dm_device dev;
	struct vc_table *table;
	int ret;

	memset(closed, 0, sizeof(*closed));
	ret = vc_active_get(name, &dev, &table, err);
	if (ret)
		return ret;
	ret = vc_close_device(&dev, table, deferred, closed, err);
	if (!ret)
		vc_reset_forget(&dev);
	vc_dm_put(&dev);
	free(table);
	return ret;
}
