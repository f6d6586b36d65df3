/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A disk made larger or smaller. */
#ifndef VC_RESIZE_H
#define VC_RESIZE_H

#include "chain.h"

/**
 * struct vc_resized - what was done
 * @old_size: of the disk, bytes
 * @new_size: of the disk, bytes
 * @bat_moved: the BAT had to go to a new place, as its old one was too small
 */
struct vc_resized {
	u64 old_size;
	u64 new_size;
	bool bat_moved;
};

#define VC_RESIZE_CUT_DATA	0x1U	/* a smaller disk may lose what is not zeros */
#define VC_RESIZE_SAME_GUID	0x2U	/* the caller has seen to the identity */

/**
 * vc_resize() - set the virtual size
 * @chain: its top is what is resized, as vc_change_open() gives it; all below is needed
 *	   to know what the disk reads as
 * @size: bytes, a multiple of the logical sector size
 * @flags: VC_RESIZE_*
 * @resized: result
 * @err: filled in on error; ENOTEMPTY: there is data behind the new end
 *
 * What is new reads as zeros, whatever lies below in the chain, and whatever was there
 * when the disk was larger.  One entry of the log makes the change.  All children are
 * lost, for the DataWriteGuid is new, but with VC_RESIZE_SAME_GUID: the caller has looked.
 */
int vc_resize(struct vc_chain *chain, u64 size, unsigned int flags,
	      struct vc_resized *resized, struct vc_err *err);

#endif /* VC_RESIZE_H */
