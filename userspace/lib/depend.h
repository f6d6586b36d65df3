/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What an image may not be done to, because others stand on it. */
#ifndef VC_DEPEND_H
#define VC_DEPEND_H

#include "children.h"

/**
 * vc_refuse_children() - error EBUSY, with a list, if an image has children
 *
 * They are looked for where vc_children_find() does without further directories.
 */
int vc_refuse_children(const struct vc_image *image, struct vc_err *err);

/*
 * Remove the name of an open file, if it is still this file's, and flush the directory.
 */
int vc_remove_file(const struct vc_file *file, struct vc_err *err);

/**
 * vc_remove() - remove a delta's file, and nothing else
 * @path: of the file itself, not a link to it
 * @freed: result: what it took on the disk, bytes
 *
 * Refuses what has no parent, has children, is open or protected.
 */
int vc_remove(const char *path, u64 *freed, struct vc_err *err);

#endif /* VC_DEPEND_H */
