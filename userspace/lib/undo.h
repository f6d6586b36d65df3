/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Undo files: what a repair is about to change, as it was.
 *
 *	"vhdclone undo 1\n"		16 bytes; all numbers are little-endian
 *	u64 size of the image
 *	GUID FileWriteGuid before the repair, GUID the one after it
 *	then records:
 *	  u64 offset, u64 length; length bytes, or none if bit 63 of length is set: zeros
 *	in the end a record with offset ~0 and length 0, and
 *	u32 CRC-32C of all before
 */
#ifndef VC_UNDO_H
#define VC_UNDO_H

#include "image.h"

struct vc_undo;

/**
 * vc_undo_create() - begin an undo file
 * @result: to be ended with vc_undo_finish() or vc_undo_abort()
 * @path: must not exist
 * @image: that will be changed
 * @after: the FileWriteGuid that it will have
 * @err: filled in on error
 */
int vc_undo_create(struct vc_undo **result, const char *path, const struct vc_image *image,
		   const struct vhdx_guid *after, struct vc_err *err);

/* Keep a range of the image; what lies behind its end is not kept. */
int vc_undo_keep(struct vc_undo *undo, u64 offset, u64 length, struct vc_err *err);

/* Make the file durable.  Frees @undo; after an error the file is gone. */
int vc_undo_finish(struct vc_undo *undo, struct vc_err *err);
void vc_undo_abort(struct vc_undo *undo);

/**
 * vc_undo_apply() - make an image what it was
 * @path: of the undo file
 * @image: open for writing and locked, not in use; need not be readable otherwise
 * @err: filled in on error; ESTALE: the image was written to since, or is another
 *
 * The undo file is checked as a whole before the first write.  Can be repeated.
 */
int vc_undo_apply(const char *path, struct vc_image *image, struct vc_err *err);

#endif /* VC_UNDO_H */
