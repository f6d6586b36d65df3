/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copying what a chain reads as into an image: pieces of it, several at a time, read
 * from where they are, and written to where the target wants them.
 */
#ifndef VC_COPY_H
#define VC_COPY_H

#include "disk.h"
#include "edit.h"
#include "progress.h"

/* The longest piece. */
#define VC_PIECE	(2 * VHDX_MIB)

/**
 * struct vc_piece - a part of the disk on its way
 * @offset: on the disk, bytes
 * @length: bytes; it lies within one block of the target
 * @zero: all that is to be written is zeros
 * @whole: it is a whole block of the target, and all of it is to be written
 * @place: set by @put: where in the target's file, VC_NOWHERE: it is not written
 * @clean: set by @put: the place reads as zeros
 * @nr: extents
 * @extent: from @offset on without gaps; those VC_EXTENT_ABSENT are left alone
 */
struct vc_piece {
	u64 offset;
	u64 length;
	bool zero;
	bool whole;
	u64 place;
	bool clean;
	unsigned int nr;
	unsigned int room;
	struct vc_extent *extent;
};

#define VC_NOWHERE	(~0ULL)

/**
 * struct vc_target - where to; its functions are called one at a time
 * @file: the image
 * @block_size: a power of two, 4 KiB at least
 * @put: decide where a piece goes
 * @done: it is there; NULL if that needs nothing
 * @zero: whole blocks (the last may end with the disk) read as zeros; NULL if they do
 */
struct vc_target {
	const struct vc_file *file;
	u64 block_size;
	int (*put)(struct vc_target *target, struct vc_piece *piece, struct vc_err *err);
	int (*done)(struct vc_target *target, const struct vc_piece *piece,
		    struct vc_err *err);
	int (*zero)(struct vc_target *target, u64 offset, u64 length, struct vc_err *err);
};

/**
 * struct vc_copy - what to copy
 * @chain: that @disk looks at
 * @disk: what; may be all of the chain or some layers, and what these do not have is
 *	  left alone in the target
 * @keep: layer 0 is the target itself: what it has is left alone, and what no layer has
 *	  is zeros
 * @target: where to, as large as the disk
 * @progress: or NULL; counts the bytes of data
 * @bytes: result: so much data was copied
 */
struct vc_copy {
	const struct vc_chain *chain;
	struct vc_disk *disk;
	bool keep;
	struct vc_target *target;
	struct vc_progress *progress;
	u64 bytes;
};

/**
 * vc_copy_run() - do it
 *
 * Return: 0; -EINTR if the progress said so, and the target is as it was between two
 * pieces.  Nothing is flushed.
 */
int vc_copy_run(struct vc_copy *copy, struct vc_err *err);

/* How much data there is to copy; holes in files are none. */
int vc_copy_measure(struct vc_copy *copy, u64 *bytes, struct vc_err *err);

/**
 * struct vc_vhdx_target - into a VHDX
 * @target: for struct vc_copy
 * @edit: of the image; what was copied is committed now and then
 * @keep: as in struct vc_copy
 * @new: nothing reads the image yet: one commit at the end will do
 */
struct vc_vhdx_target {
	struct vc_target target;
	struct vc_edit *edit;
	const struct vc_image *image;
	bool keep;
	bool new;
	u64 uncommitted;
};

void vc_vhdx_target_init(struct vc_vhdx_target *to, const struct vc_image *image,
			 struct vc_edit *edit);

/* Into a raw file or device; @new: it reads as zeros. */
struct vc_raw_target {
	struct vc_target target;
	bool new;
};

void vc_raw_target_init(struct vc_raw_target *to, const struct vc_file *file, bool new);

#endif /* VC_COPY_H */
