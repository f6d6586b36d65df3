/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What a chain reads as: which layer each byte of the disk comes from, and the
 * bytes.  Of any format that a layer can have.
 *
 * A layer that has a parent hides what lies behind its own end: there it reads as
 * zeros, as the target has it.
 */
#ifndef VC_DISK_H
#define VC_DISK_H

#include "chain.h"

struct vc_disk;

enum vc_extent_kind {
	VC_EXTENT_ZERO,		/* reads as zeros; @layer says so */
	VC_EXTENT_ABSENT,	/* the same, because no layer has it */
	VC_EXTENT_DATA,
};

/**
 * struct vc_extent - a run of the disk with one source
 * @offset: on the disk, bytes
 * @length: bytes, a multiple of 512 (but for the end of a raw image that is none)
 * @kind: what; zeros are a block that is called so, a hole in the file, or what lies
 *	  behind the end of a layer or file
 * @layer: index in the chain; VC_EXTENT_ABSENT: the last layer that was asked
 * @place: VC_EXTENT_DATA: byte offset in that layer's file.  The last sector may be cut
 *	   short by the end of the file; what is missing is zeros.  What a log that was
 *	   replayed in memory wrote there is in the layer's overlay only.
 */
struct vc_extent {
	u64 offset;
	u64 length;
	enum vc_extent_kind kind;
	unsigned int layer;
	u64 place;
};

/**
 * vc_disk_open() - look at layers @first to @first + @nr - 1 of a chain as one disk
 * @result: to be closed with vc_disk_close()
 * @chain: must outlive the result; a dirty log must have been replayed, in memory at
 *	   least
 * @first: which layer is the top; its virtual size is the disk's
 * @nr: layers; what none of these has is VC_EXTENT_ABSENT
 * @err: filled in on error
 *
 * Checks the whole BAT of each layer (vc_image_walk()) and keeps it in memory.
 */
int vc_disk_open(struct vc_disk **result, const struct vc_chain *chain,
		 unsigned int first, unsigned int nr, struct vc_err *err);
void vc_disk_close(struct vc_disk *disk);

u64 vc_disk_size(const struct vc_disk *disk);

/**
 * vc_disk_extent() - the source of a byte, and how far it reaches
 * @disk: the disk
 * @offset: where, below the size
 * @max: not further than this many bytes; with much, runs are long
 * @extent: result; as long as one source goes on in one piece, though a run may be
 *	    reported as several
 * @err: filled in on error
 *
 * Not thread-safe: bitmap pages are cached in @disk.
 */
int vc_disk_extent(struct vc_disk *disk, u64 offset, u64 max, struct vc_extent *extent,
		   struct vc_err *err);

/* Exactly @len bytes of the disk, from wherever they are. */
int vc_disk_read(struct vc_disk *disk, u64 offset, void *buf, size_t len,
		 struct vc_err *err);

#endif /* VC_DISK_H */
