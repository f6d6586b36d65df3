/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One change of an image's metadata, of any kind, made as a whole or not at all: one
 * log entry holds all of it.  For what is done once; many changes of blocks are for
 * edit.h.
 *
 *	entry written, with data that it names: flushed	LogGuid is zero still: ignored
 *	both headers with its LogGuid, each flushed	the first one makes the change
 *	its pages in place, flushed
 *	both headers with LogGuid zero, each flushed
 */
#ifndef VC_CHANGE_H
#define VC_CHANGE_H

#include "image.h"

struct vc_change;

/**
 * vc_change_open() - open an image that nobody else uses, to change it
 * @result: to be closed with vc_image_close(); open for writing, and locked
 * @path: where
 * @err: filled in on error
 *
 * Refuses what is not a VHDX, needs recovery, or is a layer of an open clone.
 */
int vc_change_open(struct vc_image **result, const char *path, struct vc_err *err);

/**
 * vc_change_begin() - begin a change
 * @result: to be ended with vc_change_commit() or vc_change_drop()
 * @image: open for writing, its log empty, nobody else uses it; it need not be
 *	   readable further than its headers
 */
int vc_change_begin(struct vc_change **result, struct vc_image *image,
		    struct vc_err *err);
void vc_change_drop(struct vc_change *change);

/* Pages that still fit. */
u32 vc_change_room(const struct vc_change *change);

/* @length bytes at @offset become @buf; @what names them in a message. */
int vc_change_write(struct vc_change *change, const char *what, u64 offset,
		    const void *buf, size_t length, struct vc_err *err);

/* A range becomes zeros, whatever its length; both are multiples of 4096. */
int vc_change_zero(struct vc_change *change, u64 offset, u64 length, struct vc_err *err);

/* Which FileWriteGuid it gets: a random one if this is not called. */
void vc_change_file_guid(struct vc_change *change, const struct vhdx_guid *guid);

/* What the disk reads as changes: a new DataWriteGuid. */
void vc_change_data(struct vc_change *change);

/**
 * vc_change_commit() - make the change, and free @change
 *
 * The image must be reloaded afterwards.  After an error, the change is made or not;
 * if the message says so, 'vhdclone recover' ends it.
 */
int vc_change_commit(struct vc_change *change, struct vc_err *err);

#endif /* VC_CHANGE_H */
