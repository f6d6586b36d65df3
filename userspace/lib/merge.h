/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Changing where the content of a chain lies, in place: layers merged into the one
 * below, and an image made independent of those below.  What the chain reads as is the
 * same at every instant, so that each of these can be killed, and started again.
 */
#ifndef VC_MERGE_H
#define VC_MERGE_H

#include "copy.h"

/**
 * vc_chain_writable() - open a layer for writing
 * @chain: its layer @layer is replaced
 * @err: filled in on error; EBUSY: somebody else has it
 *
 * Locked, its log replayed on disk, read anew.
 */
int vc_chain_writable(struct vc_chain *chain, unsigned int layer, struct vc_err *err);

/**
 * struct vc_merge_plan - what a merge will take
 * @bytes: of data to be copied
 * @needed: bytes of new blocks
 * @found: bytes that are free for them, in the image and around it
 */
struct vc_merge_plan {
	u64 bytes;
	u64 needed;
	u64 found;
};

/**
 * vc_merge_plan() - see what a merge will take, and whether it can be done
 * @chain: read; those that would be written are opened for it once, and nothing is written
 * @base: the layer that the ones above it are to be merged into
 * @plan: result
 * @err: filled in on error; EBUSY: somebody else has one of them
 */
int vc_merge_plan(const struct vc_chain *chain, unsigned int base,
		  struct vc_merge_plan *plan, struct vc_err *err);

/**
 * vc_merge() - write what the layers above a base have into the base
 * @chain: from the top down to the base at least; layers 0, @base - 1 and @base are
 *	   opened anew for writing
 * @base: which layer
 * @progress: or NULL
 * @plan: result: @bytes is what was copied
 * @err: filled in on error; EINTR: all is valid, the same again goes on
 *
 * The caller has made sure that nobody else stands on a layer from 1 to @base, and that
 * none is open.  Afterwards the base reads as the top does, and the layers above are
 * still its valid children: they hide nothing but what is the same.
 *
 * A base's content changes, so its identity must.  The new one is in the child's
 * parent_linkage2 before the base has it, and the child's parent_linkage before any
 * content changes: at every instant the child expects what the base has.  A raw base is
 * known by its fingerprint; until the end the child has one of those sectors alone that
 * the merge does not write.
 */
int vc_merge(struct vc_chain *chain, unsigned int base, struct vc_progress *progress,
	     struct vc_merge_plan *plan, struct vc_err *err);

/**
 * vc_flatten() - copy all that an image has from its parents into it, and forget them
 * @chain: all of it; layer 0 is opened anew for writing
 * @progress: or NULL
 * @bytes: result: so much was copied
 * @err: filled in on error; EINTR: all is valid, the same again goes on
 *
 * It becomes a dynamic image.  It reads as before, so its identity stays.
 */
int vc_flatten(struct vc_chain *chain, struct vc_progress *progress, u64 *bytes,
	       struct vc_err *err);

/* Write another parent locator, in the next commit. */
int vc_edit_set_locator(struct vc_edit *edit, const struct vc_locator *locator,
			struct vc_err *err);

#endif /* VC_MERGE_H */
