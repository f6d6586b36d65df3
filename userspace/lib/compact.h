/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The file of an image made as small as can be. */
#ifndef VC_COMPACT_H
#define VC_COMPACT_H

#include "chain.h"
#include "progress.h"

/**
 * struct vc_compacted - what was done
 * @old_size: length of the file, bytes
 * @new_size: length of the file, bytes
 * @old_allocated: what it took on the disk, bytes; 0 of a device
 * @new_allocated: and takes now
 * @nr_zero: blocks that held only zeros
 * @nr_same: blocks that read the same without them
 * @nr_bitmaps: bitmap blocks that nobody needed
 * @nr_moved: blocks that were moved to the front
 */
struct vc_compacted {
	u64 old_size;
	u64 new_size;
	u64 old_allocated;
	u64 new_allocated;
	u32 nr_zero;
	u32 nr_same;
	u32 nr_bitmaps;
	u32 nr_moved;
};

/**
 * vc_compact() - drop what need not be there, move the rest to the front, cut the file
 * @chain: its top is compacted, as vc_change_open() gives it
 * @dedup: drop blocks whose sectors are in the parent, too
 * @progress: blocks looked at, and blocks moved, in bytes; may be NULL
 * @done: result
 * @err: filled in on error; EINTR: @progress was told to stop; the image is in order,
 *	 and another run goes on
 *
 * The disk reads the same at any instant, and has the same DataWriteGuid.
 */
int vc_compact(struct vc_chain *chain, bool dedup, struct vc_progress *progress,
	       struct vc_compacted *done, struct vc_err *err);

#endif /* VC_COMPACT_H */
