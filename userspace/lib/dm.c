// SPDX-License-Identifier: GPL-2.0-or-later
/* Device-mapper: see dm.h. */
#define _GNU_SOURCE
#include <ctype.h>
#include <libdevmapper.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "dm.h"
#include "dm-vhdclone-if.h"
#include "kmsg.h"

/* The host is not to look for file systems on a clone. */
#define VC_DM_NO_PROBE	(DM_UDEV_DISABLE_SUBSYSTEM_RULES_FLAG | \
			 DM_UDEV_DISABLE_DISK_RULES_FLAG | \
			 DM_UDEV_DISABLE_OTHER_RULES_FLAG)

/* What libdevmapper complained about last: it has no other way to tell. */
static char vc_dm_message[512];
static int vc_dm_errno;

static __printf(5, 6)
void vc_dm_log(int level, __always_unused const char *file, __always_unused int line,
	       __always_unused int class, const char *f, ...)
{
	int errnum = errno;
	va_list ap;

	/* Levels as syslog's; 4 is a warning.  Higher bits are flags. */
	if ((level & 7) > 3)
		return;
	va_start(ap, f);
	vsnprintf(vc_dm_message, sizeof(vc_dm_message), f, ap);
	va_end(ap);
	vc_dm_errno = errnum;
}

static void vc_dm_init(void)
{
	dm_log_with_errno_init(vc_dm_log);
	vc_dm_message[0] = '\0';
	vc_dm_errno = 0;
}

static bool vc_dm_in_kernel(void)
{
	return !access("/sys/class/misc/device-mapper", F_OK);
}

bool vc_dm_name_ok(const char *name)
{
	size_t n = strlen(name);

	if (!n || n >= VC_DM_NAME_MAX || !strcmp(name, ".") || !strcmp(name, "..") ||
	    !strcmp(name, "control") || name[0] == '-')
		return false;
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && !strchr("#+-.:=@_", *name))
			return false;
	return true;
}

char *vc_dm_path(const char *name)
{
	char *path;

	return asprintf(&path, "%s/%s", dm_dir(), name) < 0 ? NULL : path;
}

static int vc_dm_fail(struct vc_err *err, struct dm_task *dmt, const char *name,
		      const char *what)
{
	int errnum = dmt ? dm_task_get_errno(dmt) : 0;

	/* To create is several tasks inside: then this one knows nothing. */
	if (!errnum)
		errnum = vc_dm_errno;
	vc_error(err, errnum ? errnum : EIO, name, "cannot %s", what);
	if (vc_dm_message[0])
		vc_error_append(err, ": %s", vc_dm_message);
	else if (errnum)
		vc_error_append(err, ": %s", strerror(errnum));
	return -err->errnum;
}

/* Run a task that only reads.  Return: the task, or NULL and an error. */
static struct dm_task *vc_dm_query(int type, const char *name, int *ret, struct vc_err *err)
{
	struct dm_task *dmt;

	vc_dm_init();
	dmt = dm_task_create(type);
	if (!dmt || (name && !dm_task_set_name(dmt, name)) ||
	    (type == DM_DEVICE_STATUS && !dm_task_no_flush(dmt)) || !dm_task_run(dmt)) {
		if (dmt && dm_task_get_errno(dmt) == ENXIO)
			*ret = vc_error(err, ENXIO, name, "no such clone");
		else
			*ret = vc_dm_fail(err, dmt, name, "ask device-mapper");
		if (dmt)
			dm_task_destroy(dmt);
		return NULL;
	}
	*ret = 0;
	return dmt;
}

/* The target's line of a table or status query, if it has exactly our target. */
static int vc_dm_line(int type, const char *name, u64 *sectors, char **line,
		      struct vc_err *err)
{
	uint64_t length = 0;
	uint64_t start = 0;
	struct dm_task *dmt;
	char *target = NULL;
	char *params = NULL;
	int ret;

	dmt = vc_dm_query(type, name, &ret, err);
	if (!dmt)
		return ret;
	dm_get_next_target(dmt, NULL, &start, &length, &target, &params);
	if (target && !strcmp(target, VHDCLONE_TARGET_NAME)) {
		if (sectors)
			*sectors = length;
		*line = strdup(params ? params : "");
		if (!*line)
			ret = vc_error_nomem(err);
	}
	dm_task_destroy(dmt);
	return ret;
}

void vc_dm_put(struct vc_dm_device *dev)
{
	free(dev->params);
	free(dev->status);
	dev->params = NULL;
	dev->status = NULL;
}

int vc_dm_get(const char *name, struct vc_dm_device *dev, struct vc_err *err)
{
	struct dm_info info;
	struct dm_task *dmt;
	const char *uuid;
	int ret;

	memset(dev, 0, sizeof(*dev));
	if (!vc_dm_in_kernel())
		return vc_error(err, ENXIO, name, "no such clone");
	dmt = vc_dm_query(DM_DEVICE_INFO, name, &ret, err);
	if (!dmt)
		return ret;
	if (!dm_task_get_info(dmt, &info) || !info.exists) {
		dm_task_destroy(dmt);
		return vc_error(err, ENXIO, name, "no such clone");
	}
	uuid = dm_task_get_uuid(dmt);
	snprintf(dev->name, sizeof(dev->name), "%s", name);
	snprintf(dev->uuid, sizeof(dev->uuid), "%s", uuid ? uuid : "");
	dev->device = makedev(info.major, info.minor);
	dev->open_count = info.open_count;
	dev->suspended = info.suspended;
	dev->read_only = info.read_only;
	dev->deferred_remove = info.deferred_remove;
	dm_task_destroy(dmt);

	ret = vc_dm_line(DM_DEVICE_TABLE, name, &dev->sectors, &dev->params, err);
	if (!ret)
		ret = vc_dm_line(DM_DEVICE_STATUS, name, NULL, &dev->status, err);
	/* By name, or made by hand with dmsetup: then the target tells. */
	if (!ret && !dev->params &&
	    strncmp(dev->uuid, VHDCLONE_UUID_PREFIX, strlen(VHDCLONE_UUID_PREFIX)))
		ret = vc_error(err, EEXIST, name,
			       "a device-mapper device of this name exists, and is not a clone");
	if (ret)
		vc_dm_put(dev);
	return ret;
}

static int vc_dm_compare(const void *a, const void *b)
{
	const struct vc_dm_device *x = a;
	const struct vc_dm_device *y = b;

	return strcmp(x->name, y->name);
}

void vc_dm_list_free(struct vc_dm_device *devs, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		vc_dm_put(&devs[i]);
	free(devs);
}

/* Look at each name; those that are not ours, or went away, are left out. */
static int vc_dm_collect(const struct dm_names *names, struct vc_dm_device **devs,
			 unsigned int *nr, struct vc_err *err)
{
	struct vc_dm_device *longer;
	struct vc_err ignored;
	int ret;

	if (!names->dev)
		return 0;
	for (;;) {
		longer = realloc(*devs, (*nr + 1) * sizeof(*longer));
		if (!longer)
			return vc_error_nomem(err);
		*devs = longer;
		ret = vc_dm_get(names->name, &longer[*nr], &ignored);
		if (ret == -ENOMEM)
			return vc_error_nomem(err);
		if (!ret)
			(*nr)++;
		if (!names->next)
			return 0;
		names = (const void *)((const char *)names + names->next);
	}
}

int vc_dm_list(struct vc_dm_device **devs, unsigned int *nr, struct vc_err *err)
{
	const struct dm_names *names;
	struct dm_task *dmt;
	int ret;

	*devs = NULL;
	*nr = 0;
	if (!vc_dm_in_kernel())
		return 0;
	dmt = vc_dm_query(DM_DEVICE_LIST, NULL, &ret, err);
	if (!dmt)
		return ret;
	names = dm_task_get_names(dmt);
	if (names)
		ret = vc_dm_collect(names, devs, nr, err);
	dm_task_destroy(dmt);
	if (ret) {
		vc_dm_list_free(*devs, *nr);
		*devs = NULL;
		*nr = 0;
	} else if (*nr) {
		qsort(*devs, *nr, sizeof(**devs), vc_dm_compare);
	}
	return ret;
}

/* Is the target in the kernel now?  A table that names it would have loaded it. */
static bool vc_dm_has_target(void)
{
	const struct dm_versions *target;
	const struct dm_versions *last;
	struct dm_task *dmt;
	bool found = false;

	dmt = dm_task_create(DM_DEVICE_LIST_VERSIONS);
	if (dmt && dm_task_run(dmt)) {
		target = dm_task_get_versions(dmt);
		do {
			last = target;
			found = !strcmp(target->name, VHDCLONE_TARGET_NAME);
			target = (const void *)((const char *)target + target->next);
		} while (!found && last != target);
	}
	if (dmt)
		dm_task_destroy(dmt);
	return found;
}

static struct dm_task *vc_dm_create_task(const char *name, const char *uuid, u64 sectors,
					 const char *params, bool read_only)
{
	struct dm_task *dmt = dm_task_create(DM_DEVICE_CREATE);

	if (!dmt)
		return NULL;
	if (dm_task_set_name(dmt, name) && dm_task_set_uuid(dmt, uuid) &&
	    dm_task_add_target(dmt, 0, sectors, VHDCLONE_TARGET_NAME, params) &&
	    (!read_only || dm_task_set_ro(dmt)))
		return dmt;
	dm_task_destroy(dmt);
	return NULL;
}

int vc_dm_create(const char *name, const char *uuid, u64 sectors, const char *params,
		 bool read_only, bool probe, char **path, struct vc_err *err)
{
	uint16_t flags = probe ? 0 : VC_DM_NO_PROBE;
	char kernel[VC_KMSG_MAX];
	uint32_t cookie = 0;
	struct dm_task *dmt;
	int kmsg;
	int ret = 0;

	*path = vc_dm_path(name);
	if (!*path)
		return vc_error_nomem(err);
	vc_dm_init();
	kmsg = vc_kmsg_open();
	dmt = vc_dm_create_task(name, uuid, sectors, params, read_only);
	if (!dmt || !dm_task_set_cookie(dmt, &cookie, flags)) {
		ret = vc_dm_fail(err, dmt, name, "set up a device-mapper task");
	} else {
		if (!dm_task_run(dmt))
			ret = vc_dm_fail(err, dmt, name, "activate the clone");
		dm_udev_wait(cookie);
		dm_task_update_nodes();
	}
	if (dmt)
		dm_task_destroy(dmt);
	if (ret && vc_dm_in_kernel() && !vc_dm_has_target())
		vc_error(err, ENODEV, name,
			 "the kernel has no target " VHDCLONE_TARGET_NAME
			 ": load the module " VHDCLONE_MODULE_NAME);
	else if (ret && vc_kmsg_last(kmsg, VHDCLONE_TARGET_NAME, kernel))
		vc_error_append(err, "; the kernel says: %s", kernel);
	vc_kmsg_close(kmsg);
	if (ret) {
		free(*path);
		*path = NULL;
	}
	return ret;
}

int vc_dm_remove(const char *name, bool deferred, struct vc_err *err)
{
	uint32_t cookie = 0;
	struct dm_task *dmt;
	int ret = 0;

	vc_dm_init();
	dmt = dm_task_create(DM_DEVICE_REMOVE);
	if (!dmt || !dm_task_set_name(dmt, name) ||
	    (deferred ? !dm_task_deferred_remove(dmt) : !dm_task_retry_remove(dmt)) ||
	    !dm_task_set_cookie(dmt, &cookie, 0)) {
		ret = vc_dm_fail(err, dmt, name, "set up a device-mapper task");
	} else {
		if (!dm_task_run(dmt))
			ret = vc_dm_fail(err, dmt, name, "remove the device");
		dm_udev_wait(cookie);
		dm_task_update_nodes();
	}
	if (dmt)
		dm_task_destroy(dmt);
	return ret;
}

int vc_dm_suspend(const char *name, struct vc_err *err)
{
	struct dm_task *dmt;
	int ret;

	dmt = vc_dm_query(DM_DEVICE_SUSPEND, name, &ret, err);
	if (dmt)
		dm_task_destroy(dmt);
	return ret;
}

int vc_dm_resume(const char *name, struct vc_err *err)
{
	char kernel[VC_KMSG_MAX];
	uint32_t cookie = 0;
	struct dm_task *dmt;
	int ret = 0;
	int kmsg;

	vc_dm_init();
	kmsg = vc_kmsg_open();
	dmt = dm_task_create(DM_DEVICE_RESUME);
	if (!dmt || !dm_task_set_name(dmt, name) ||
	    !dm_task_set_cookie(dmt, &cookie, VC_DM_NO_PROBE)) {
		ret = vc_dm_fail(err, dmt, name, "set up a device-mapper task");
	} else {
		if (!dm_task_run(dmt))
			ret = vc_dm_fail(err, dmt, name, "resume the clone");
		dm_udev_wait(cookie);
		dm_task_update_nodes();
	}
	if (dmt)
		dm_task_destroy(dmt);
	if (ret && vc_kmsg_last(kmsg, VHDCLONE_TARGET_NAME, kernel))
		vc_error_append(err, "; the kernel says: %s", kernel);
	vc_kmsg_close(kmsg);
	return ret;
}
