/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Device-mapper.  Only dm.c talks to libdevmapper. */
#ifndef VC_DM_H
#define VC_DM_H

#include <sys/types.h>

#include "err.h"

#define VC_DM_NAME_MAX	128	/* with the NUL */
#define VC_DM_UUID_MAX	129

/**
 * struct vc_dm_device - one dm device of our target
 * @sectors: 0 if it has no table
 * @params: arguments of the target, or NULL
 * @status: status line of the target, or NULL
 */
struct vc_dm_device {
	char name[VC_DM_NAME_MAX];
	char uuid[VC_DM_UUID_MAX];
	dev_t device;
	unsigned int open_count;
	bool suspended;
	bool read_only;
	bool deferred_remove;
	u64 sectors;
	char *params;
	char *status;
};

/* May this be a device's name?  No slash, nothing that would have to be mangled. */
bool vc_dm_name_ok(const char *name);

/**
 * vc_dm_get() - look at one device
 * Return: 0; -ENXIO if there is none of this name; -EEXIST if it is not ours.
 */
int vc_dm_get(const char *name, struct vc_dm_device *dev, struct vc_err *err);
void vc_dm_put(struct vc_dm_device *dev);

/* All of ours, sorted by name.  Without device-mapper in the kernel there are none. */
int vc_dm_list(struct vc_dm_device **devs, unsigned int *nr, struct vc_err *err);
void vc_dm_list_free(struct vc_dm_device *devs, unsigned int nr);

/**
 * vc_dm_create() - create, load and resume in one step
 * @probe: let the host's udev rules look at its content
 * @path: result: the device's path, to be freed
 *
 * Returns when udev is done.  Leaves nothing after an error.
 */
int vc_dm_create(const char *name, const char *uuid, u64 sectors, const char *params,
		 bool read_only, bool probe, char **path, struct vc_err *err);

/* Remove; @deferred: when it is in use, as soon as it is not any more. */
int vc_dm_remove(const char *name, bool deferred, struct vc_err *err);

/*
 * Suspend, which leaves the delta clean and complete, and resume, which reads it anew.
 * After a resume udev does not look at the content.
 */
int vc_dm_suspend(const char *name, struct vc_err *err);
int vc_dm_resume(const char *name, struct vc_err *err);

/* "/dev/mapper/NAME", to be freed, or NULL without memory. */
char *vc_dm_path(const char *name);

#endif /* VC_DM_H */
