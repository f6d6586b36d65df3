/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changing a VHDX at rest, crash-safe: the metadata goes through its log as the
 * target's does (Documentation/commit-protocol.rst), so at every instant the file
 * is valid, at worst with a log to replay.
 *
 * The order is always: write data to new space; vc_edit_*() what names it; then
 * vc_edit_commit(), which flushes the data, logs the metadata, and puts it in place.
 * Space that a commit released is reused only after that commit.
 */
#ifndef VC_EDIT_H
#define VC_EDIT_H

#include "image.h"

struct vc_edit;

/**
 * vc_edit_begin() - start to change an image
 * @result: to be ended with vc_edit_end() or vc_edit_abort()
 * @image: a VHDX opened with VC_IMAGE_WRITE, its log empty; locked (vc_file_lock()) and
 *	   known not to be in use (vc_active_refuse_any()) by the caller
 * @err: filled in on error
 *
 * Nothing is written before the first commit.
 */
int vc_edit_begin(struct vc_edit **result, struct vc_image *image, struct vc_err *err);

/* The BAT entry of a payload block, with what was changed and not yet committed. */
u64 vc_edit_block(const struct vc_edit *edit, u32 block);
u64 vc_edit_bitmap_block(const struct vc_edit *edit, u32 chunk);

/**
 * vc_edit_alloc() - find space, growing the file if there is none
 * @mib: result, where
 * @nr_mib: how much
 *
 * The lowest place that is large enough.
 * Of a new place in a grown file all bytes read as zeros; of a reused one they do not.
 */
int vc_edit_alloc(struct vc_edit *edit, u32 nr_mib, u64 *mib, struct vc_err *err);

/* What the file grows by is a hole: only what is written takes space, or finds none. */
void vc_edit_stay_sparse(struct vc_edit *edit);

/* Is this a place in a grown file? */
bool vc_edit_is_new(const struct vc_edit *edit, u64 mib);

/*
 * Set a payload block's BAT entry; space that the old one had is free after the commit.
 * A block that becomes PARTIALLY_PRESENT has no bit set.
 */
int vc_edit_set_block(struct vc_edit *edit, u32 block, unsigned int state, u64 mib,
		      struct vc_err *err);

/* The chunk has a sector bitmap block from now on; its content must be on the disk. */
int vc_edit_set_bitmap_block(struct vc_edit *edit, u32 chunk, unsigned int state, u64 mib,
			     struct vc_err *err);

/*
 * Set or clear sector bits of PARTIALLY_PRESENT blocks: logical sectors of the disk.
 * Adds the chunk's bitmap block if there is none.
 */
int vc_edit_set_bits(struct vc_edit *edit, u64 sector, u64 nr, bool value,
		     struct vc_err *err);

/*
 * Replace the value of one metadata item, in its place or in free space of the region.
 * A parent locator may come, change its length, and go (@length 0).  What the image
 * says in memory stays: vc_image_reload() it after the end.
 */
int vc_edit_set_item(struct vc_edit *edit, enum vhdx_item item, const void *value,
		     u32 length, struct vc_err *err);

/*
 * A new DataWriteGuid with the next commit, before all else; for changes of what the
 * disk reads as.  Data is written over in place only after that commit.
 */
void vc_edit_touch_data(struct vc_edit *edit);
void vc_edit_set_data_guid(struct vc_edit *edit, const struct vhdx_guid *guid);

/*
 * Make all changes since the last commit durable, in as many log entries as they
 * need, and put them in place.  Every prefix of them is a valid image; up to
 * VC_LOG_PAGES pages change together.  Without changes: flush the data.
 */
int vc_edit_commit(struct vc_edit *edit, struct vc_err *err);

/*
 * Commit, close the log (LogGuid zero), cut the file to its used length.  @edit is gone
 * afterwards, also after an error.
 */
int vc_edit_end(struct vc_edit *edit, struct vc_err *err);

/* Forget what was not committed; close the log if it can be. */
void vc_edit_abort(struct vc_edit *edit);

#endif /* VC_EDIT_H */
