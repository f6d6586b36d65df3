/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A delta made empty, in place. */
#ifndef VC_RESET_H
#define VC_RESET_H

#include "dm.h"
#include "image.h"

/**
 * struct vc_reset - what was done
 * @name: of the clone, if it is open; to be freed
 * @old_size: what the file took on the disk before, bytes; 0 for a device
 * @new_size: and now
 */
struct vc_reset {
	char *name;
	u64 old_size;
	u64 new_size;
};

/**
 * vc_reset_image() - make the delta at a path empty
 *
 * One entry of the log does it: a crash leaves the old delta or the new one.  Identity
 * and locator stay, the DataWriteGuid is new.  An open clone is suspended meanwhile.
 * Refuses a clone that somebody uses.  The caller has looked for children.
 */
int vc_reset_image(const char *path, struct vc_reset *reset, struct vc_err *err);

/*
 * The same, of the open clone of this name.  If it was killed in the middle, which leaves
 * the clone suspended, another call ends it.
 */
int vc_reset_clone(const char *name, struct vc_reset *reset, struct vc_err *err);

/* Is it suspended because of that?  A file in /run says so, until it is resumed. */
bool vc_reset_interrupted(const struct vc_dm_device *dev);

/* The device is gone: remove what would say something about another one. */
void vc_reset_forget(const struct vc_dm_device *dev);

#endif /* VC_RESET_H */
