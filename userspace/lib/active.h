/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Open clones: which there are, what they stand on, who uses them. */
#ifndef VC_ACTIVE_H
#define VC_ACTIVE_H

#include "dm.h"
#include "file.h"
#include "table.h"

/* Was this device opened from this file: is it the top layer? */
bool vc_active_is_top(const struct vc_dm_device *dev, const struct vc_file *file);

/**
 * vc_active_refuse() - error EBUSY if an open clone writes this file
 *
 * While the clone is suspended its delta is complete and may be read and edited.
 */
int vc_active_refuse(const struct vc_file *file, struct vc_err *err);

/**
 * vc_active_share() - before what an image holds is read: nobody shall change it
 * @file: just opened; read again what was read before
 * @err: filled in on error; EBUSY: somebody writes it
 *
 * Locked for readers (vc_file_share()) until it is closed.  The delta of a suspended
 * clone is not: it has the clone's lock.
 */
int vc_active_share(struct vc_file *file, struct vc_err *err);

/* As vc_active_refuse() if it is any layer of an open clone, suspended or not. */
int vc_active_refuse_any(const struct vc_file *file, struct vc_err *err);

/* Is the device this one, or a loop device over this file or a part of it? */
bool vc_device_is_over(dev_t device, const struct vc_file *file);

/* The same, not counting the clone @name. */
int vc_active_refuse_others(const struct vc_file *file, const char *name,
			    struct vc_err *err);

/**
 * vc_active_name() - which clone was opened from this file?
 * @name: result, to be freed; NULL if there is none
 */
int vc_active_name(const struct vc_file *file, char **name, struct vc_err *err);

/**
 * vc_active_get() - one open clone
 * @dev: result, for vc_dm_put()
 * @table: result, to be freed; without layers if the device has no table
 */
int vc_active_get(const char *name, struct vc_dm_device *dev, struct vc_table **table,
		  struct vc_err *err);

/* What is behind a device of a table: a file's path or a device's, to be freed. */
char *vc_device_path(dev_t device);

/* A device's node, to be freed, or NULL. */
char *vc_device_node(dev_t device);

/**
 * vc_device_users() - who has a device open, as far as that can be found
 * @text: result, such as "mounted on /mnt"; empty if nobody was found
 */
void vc_device_users(dev_t device, char *text, size_t room);

#endif /* VC_ACTIVE_H */
