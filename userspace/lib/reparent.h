/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Giving an image another parent, or its parent's new path. */
#ifndef VC_REPARENT_H
#define VC_REPARENT_H

#include "disk.h"
#include "progress.h"

/**
 * vc_reparent() - write who the parent is and where
 * @child: open for writing, locked, its log empty; read anew afterwards
 * @parent: that is said of it
 * @err: filled in on error
 *
 * One change of metadata: the old parent or the new one, at every instant.  The lists
 * of children beside both are kept.  Nothing is checked.
 */
int vc_reparent(struct vc_image *child, const struct vc_image *parent, struct vc_err *err);

/**
 * vc_disks_equal() - do two disks read the same?
 * @at: result: the first difference, if there is one
 * @progress: or NULL
 *
 * What one has and the other has not counts as zeros there.
 * Return: 0 with @equal set; an error if it cannot be told.
 */
int vc_disks_equal(struct vc_disk *a, struct vc_disk *b, struct vc_progress *progress,
		   bool *equal, u64 *at, struct vc_err *err);

#endif /* VC_REPARENT_H */
