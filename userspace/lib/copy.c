// SPDX-License-Identifier: GPL-2.0-or-later
/* Copying what a chain reads as: see copy.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "copy.h"
#include "queue.h"

#define VC_BCACHEFS_MAGIC 0xca451a4eU

#define VC_SLOTS	4U
#define VC_GRAIN	4096U		/* runs of zeros shorter than this are written */

enum vc_slot_state {
	VC_SLOT_FREE,			/* what was here may yet be written back */
	VC_SLOT_READ,
	VC_SLOT_WRITE,
};

/*
 * A piece on its way: it is read, looked at, given a place, and written there.
 *
 * @io: its reads, then its writes; @nr_left of them are not complete
 * @placed: it has its place, or is to have none
 * @ended: there are no more pieces
 */
struct vc_slot {
	enum vc_slot_state state;
	struct vc_piece piece;
	u8 *buf;
	struct vc_io *io;
	unsigned int room;
	unsigned int nr_left;
	bool placed;
	bool failed;
	bool ended;
};

struct vc_copier {
	struct vc_copy *copy;
	struct vc_queue *queue;
	u64 at;				/* the disk up to here was handed out */
	int ret;			/* of the first that failed */
	struct vc_err *err;
	bool no_reflink;
	struct vc_slot slot[VC_SLOTS];
};

/* ---- what there is to copy ------------------------------------------------------ */

static int vc_copier_extent(struct vc_copier *copier, u64 offset, u64 max,
			    struct vc_extent *extent, struct vc_err *err)
{
	struct vc_copy *copy = copier->copy;
	int ret;

	ret = vc_disk_extent(copy->disk, offset, max, extent, err);
	if (ret)
		return ret;
	if (copy->keep) {
		if (!extent->layer && extent->kind != VC_EXTENT_ABSENT)
			extent->kind = VC_EXTENT_ABSENT;
		else if (extent->kind == VC_EXTENT_ABSENT)
			extent->kind = VC_EXTENT_ZERO;
	}
	return 0;
}

/* As far as all is of one kind, from the start of a block on; 0: less than a block. */
static int vc_copier_blocks(struct vc_copier *copier, enum vc_extent_kind *kind, u64 *length,
			    struct vc_err *err)
{
	u64 size = vc_disk_size(copier->copy->disk);
	u64 block_size = copier->copy->target->block_size;
	struct vc_extent extent;
	u64 end = copier->at;
	int ret;

	*length = 0;
	*kind = VC_EXTENT_DATA;
	do {
		ret = vc_copier_extent(copier, end, size - end, &extent, err);
		if (ret)
			return ret;
		if (end == copier->at)
			*kind = extent.kind;
		if (extent.kind != *kind || extent.kind == VC_EXTENT_DATA)
			break;
		end += extent.length;
	} while (end < size && end - copier->at < 1024 * block_size);
	if (end < size)
		end &= ~(block_size - 1);
	if (end > copier->at)
		*length = end - copier->at;
	return 0;
}

static int vc_piece_add(struct vc_piece *piece, const struct vc_extent *extent,
			struct vc_err *err)
{
	struct vc_extent *list = piece->extent;
	unsigned int room;

	if (piece->nr == piece->room) {
		room = piece->room ? 2 * piece->room : 64;
		list = realloc(list, room * sizeof(*list));
		if (!list)
			return vc_error_nomem(err);
		piece->extent = list;
		piece->room = room;
	}
	list[piece->nr++] = *extent;
	return 0;
}

static int vc_copier_piece(struct vc_copier *copier, struct vc_piece *piece,
			   struct vc_err *err)
{
	u64 size = vc_disk_size(copier->copy->disk);
	u64 block_size = copier->copy->target->block_size;
	u64 unit = block_size < VC_PIECE ? block_size : VC_PIECE;
	u64 end = (copier->at + unit) & ~(unit - 1);
	struct vc_extent extent;
	u64 at = copier->at;
	int ret;

	if (end > size)
		end = size;
	piece->offset = at;
	piece->length = end - at;
	piece->nr = 0;
	piece->zero = true;
	piece->whole = !(at & (block_size - 1)) &&
		       (piece->length == block_size || end == size);
	for (; at < end; at += extent.length) {
		ret = vc_copier_extent(copier, at, end - at, &extent, err);
		if (!ret)
			ret = vc_piece_add(piece, &extent, err);
		if (ret)
			return ret;
		if (extent.kind == VC_EXTENT_ABSENT)
			piece->whole = false;
	}
	copier->at = end;
	return 0;
}

/* The next piece that is to be copied; its length is 0 at the end. */
static int vc_copier_next(struct vc_copier *copier, struct vc_piece *piece,
			  struct vc_err *err)
{
	struct vc_target *target = copier->copy->target;
	u64 size = vc_disk_size(copier->copy->disk);
	enum vc_extent_kind kind;
	u64 length;
	int ret;

	piece->length = 0;
	while (copier->at < size) {
		length = 0;
		if (!(copier->at & (target->block_size - 1))) {
			ret = vc_copier_blocks(copier, &kind, &length, err);
			if (!ret && length && kind == VC_EXTENT_ZERO && target->zero)
				ret = target->zero(target, copier->at, length, err);
			/* Holes may go on for ever. */
			if (!ret && length)
				ret = vc_progress_step(copier->copy->progress, 0);
			if (ret)
				return ret;
		}
		if (!length)
			return vc_copier_piece(copier, piece, err);
		copier->at += length;
	}
	return 0;
}

int vc_copy_measure(struct vc_copy *copy, u64 *bytes, struct vc_err *err)
{
	struct vc_copier copier = { .copy = copy };
	u64 size = vc_disk_size(copy->disk);
	struct vc_extent extent;
	u64 at;
	int ret;

	*bytes = 0;
	for (at = 0; at < size; at += extent.length) {
		ret = vc_copier_extent(&copier, at, size - at, &extent, err);
		if (ret)
			return ret;
		if (extent.kind == VC_EXTENT_DATA)
			*bytes += extent.length;
	}
	return 0;
}

/* ---- one piece ------------------------------------------------------------------ */

static bool vc_is_zero(const u8 *buf, size_t len)
{
	return !len || (!buf[0] && !memcmp(buf, buf + 1, len - 1));
}

/* Room for all that one piece can need. */
static int vc_slot_room(struct vc_slot *slot, unsigned int nr, struct vc_err *err)
{
	struct vc_io *io;

	if (nr <= slot->room)
		return 0;
	io = realloc(slot->io, nr * sizeof(*io));
	if (!io)
		return vc_error_nomem(err);
	slot->io = io;
	slot->room = nr;
	return 0;
}

static void vc_slot_add(struct vc_copier *copier, struct vc_slot *slot, enum vc_io_kind kind,
			const struct vc_file *file, u64 offset, u8 *buf, u32 len)
{
	struct vc_io *io = &slot->io[slot->nr_left++];

	*io = (struct vc_io) {
		.kind = kind,
		.file = file,
		.what = "block",
		.offset = offset,
		.len = len,
		.buf = buf,
		.owner = slot,
	};
	vc_queue_add(copier->queue, io);
}

static int vc_slot_read(struct vc_copier *copier, struct vc_slot *slot, struct vc_err *err)
{
	const struct vc_piece *piece = &slot->piece;
	const struct vc_image *image;
	const struct vc_extent *e;
	u64 there;
	u8 *to;
	int ret;

	ret = vc_slot_room(slot, piece->nr, err);
	for (e = piece->extent; e < piece->extent + piece->nr && !ret; e++) {
		if (e->kind == VC_EXTENT_ABSENT)
			continue;
		to = slot->buf + (e->offset - piece->offset);
		there = 0;
		if (e->kind == VC_EXTENT_DATA) {
			image = copier->copy->chain->layer[e->layer];
			there = e->length;
			if (there > image->size - e->place)
				there = image->size - e->place;
			/* Some of it may be in a log that was replayed in memory. */
			if (image->overlay)
				ret = vc_image_read(image, "block", e->place, to, there, err);
			else
				vc_slot_add(copier, slot, VC_IO_READ, &image->file, e->place, to,
					    there);
		}
		memset(to + there, 0, e->length - there);
	}
	return ret;
}

static void vc_slot_look(struct vc_slot *slot)
{
	struct vc_piece *piece = &slot->piece;
	const struct vc_extent *e;

	for (e = piece->extent; e < piece->extent + piece->nr && piece->zero; e++)
		if (e->kind == VC_EXTENT_DATA)
			piece->zero = vc_is_zero(slot->buf + (e->offset - piece->offset),
						 e->length);
}

static void vc_slot_write_part(struct vc_copier *copier, struct vc_slot *slot, u64 from,
			       u64 end)
{
	if (end > from)
		vc_slot_add(copier, slot, VC_IO_WRITE, copier->copy->target->file,
			    slot->piece.place + from, slot->buf + from, end - from);
}

/* All of it but the zeros. */
static void vc_slot_write_sparse(struct vc_copier *copier, struct vc_slot *slot, u64 from,
				 u64 end)
{
	u64 at;
	u64 n;

	/* [from, at) has data. */
	for (at = from; at < end; at += n) {
		n = VC_GRAIN - (slot->piece.place + at) % VC_GRAIN;
		if (n > end - at)
			n = end - at;
		if (vc_is_zero(slot->buf + at, n)) {
			vc_slot_write_part(copier, slot, from, at);
			from = at + n;
		}
	}
	vc_slot_write_part(copier, slot, from, end);
}

static int vc_slot_write(struct vc_copier *copier, struct vc_slot *slot, struct vc_err *err)
{
	const struct vc_piece *piece = &slot->piece;
	const struct vc_extent *e;
	unsigned int i;
	u64 from = 0;
	u64 end = 0;
	int ret;

	/* Each of them ends at something that is not written. */
	ret = vc_slot_room(slot, piece->nr + piece->length / VC_GRAIN + 2, err);
	/* Neighbours in one write. */
	for (i = 0; i <= piece->nr && !ret; i++) {
		e = &piece->extent[i];
		if (i < piece->nr && e->kind != VC_EXTENT_ABSENT) {
			end = e->offset + e->length - piece->offset;
			continue;
		}
		if (piece->clean)
			vc_slot_write_sparse(copier, slot, from, end);
		else
			vc_slot_write_part(copier, slot, from, end);
		if (i < piece->nr)
			from = e->offset + e->length - piece->offset;
		end = from;
	}
	return ret;
}

/* Let both files share the space; false: this piece must be copied. */
static bool vc_piece_reflink(struct vc_copier *copier, const struct vc_piece *piece)
{
	const struct vc_extent *e = piece->extent;
	const struct vc_image *image = copier->copy->chain->layer[e->layer];
	struct file_clone_range range = {
		.src_fd = image->file.fd,
		.src_offset = e->place,
		.src_length = e->length,
		.dest_offset = piece->place,
	};

	if (copier->no_reflink || e->place + e->length > image->size)
		return false;
	if (!ioctl(copier->copy->target->file->fd, FICLONERANGE, &range))
		return true;
	copier->no_reflink = true;
	return false;
}

/* Could it be one extent of a file, shared? */
static bool vc_piece_shareable(const struct vc_copier *copier, const struct vc_piece *piece)
{
	const struct vc_extent *e = piece->extent;

	return !copier->no_reflink && piece->nr == 1 && e->kind == VC_EXTENT_DATA &&
	       !copier->copy->chain->layer[e->layer]->overlay &&
	       !(e->place % VC_GRAIN) && !(e->length % VC_GRAIN);
}

static u64 vc_piece_data(const struct vc_piece *piece)
{
	u64 bytes = 0;
	unsigned int i;

	for (i = 0; i < piece->nr; i++)
		if (piece->extent[i].kind == VC_EXTENT_DATA)
			bytes += piece->extent[i].length;
	return bytes;
}

/* ---- all of them ---------------------------------------------------------------- */

static int vc_slot_put(struct vc_copier *copier, struct vc_slot *slot, struct vc_err *err)
{
	struct vc_target *target = copier->copy->target;

	slot->placed = true;
	return target->put(target, &slot->piece, err);
}

static int vc_slot_begin(struct vc_copier *copier, struct vc_slot *slot, struct vc_err *err)
{
	struct vc_piece *piece = &slot->piece;
	int ret;

	ret = vc_copier_next(copier, piece, err);
	if (ret || !piece->length)
		return ret;
	piece->place = VC_NOWHERE;
	piece->clean = false;
	slot->placed = false;
	if (vc_piece_shareable(copier, piece)) {
		piece->zero = false;
		ret = vc_slot_put(copier, slot, err);
		if (ret)
			return ret;
		if (vc_piece_reflink(copier, piece)) {
			slot->state = VC_SLOT_WRITE;
			return 0;
		}
	}
	slot->state = VC_SLOT_READ;
	return vc_slot_read(copier, slot, err);
}

static int vc_slot_finish(struct vc_copier *copier, struct vc_slot *slot, struct vc_err *err)
{
	struct vc_copy *copy = copier->copy;
	struct vc_piece *piece = &slot->piece;
	u64 bytes = vc_piece_data(piece);
	int ret = 0;

	slot->state = VC_SLOT_FREE;
	copy->bytes += bytes;
	if (piece->place != VC_NOWHERE && copy->target->done)
		ret = copy->target->done(copy->target, piece, err);
	if (!ret && piece->place != VC_NOWHERE) {
		/* It has to get to the disk: let that begin now. */
		ret = vc_slot_room(slot, 1, err);
		if (!ret)
			vc_slot_add(copier, slot, VC_IO_WRITEBACK, copy->target->file,
				    piece->place, NULL, piece->length);
	}
	return ret ? ret : vc_progress_step(copy->progress, bytes);
}

/* What comes next, when nothing of the last is under way any more. */
static int vc_slot_step(struct vc_copier *copier, struct vc_slot *slot, struct vc_err *err)
{
	int ret = 0;

	switch (slot->state) {
	case VC_SLOT_FREE:
		return vc_slot_begin(copier, slot, err);
	case VC_SLOT_READ:
		slot->state = VC_SLOT_WRITE;
		if (!slot->placed) {
			vc_slot_look(slot);
			ret = vc_slot_put(copier, slot, err);
		}
		if (ret || slot->piece.place == VC_NOWHERE)
			return ret;
		return vc_slot_write(copier, slot, err);
	default:
		return vc_slot_finish(copier, slot, err);
	}
}

/* The first error is the one to tell. */
static void vc_copier_fail(struct vc_copier *copier, int ret, struct vc_err *err)
{
	if (copier->ret)
		return;
	copier->ret = ret;
	if (ret == -EINTR)
		vc_error(err, EINTR, NULL, "interrupted");
	*copier->err = *err;
}

/*
 * As far as it gets without waiting.  After an error no piece is begun, but those under
 * way are finished.
 */
static void vc_slot_run(struct vc_copier *copier, struct vc_slot *slot)
{
	struct vc_err err;
	int ret;

	while (!slot->nr_left && !slot->failed && !slot->ended) {
		if (slot->state == VC_SLOT_FREE && copier->ret)
			return;
		ret = vc_slot_step(copier, slot, &err);
		slot->ended = !slot->piece.length;
		slot->failed = ret;
		if (ret)
			vc_copier_fail(copier, ret, &err);
	}
}

/* One that is complete; false: there are no more. */
static bool vc_copier_wait(struct vc_copier *copier)
{
	struct vc_slot *slot;
	struct vc_err err;
	struct vc_io *io;
	int ret;

	ret = vc_queue_wait(copier->queue, &io, &err);
	if (ret)
		vc_copier_fail(copier, ret, &err);
	if (!io)
		return false;
	slot = io->owner;
	slot->nr_left--;
	if (ret)
		slot->failed = true;
	vc_slot_run(copier, slot);
	return true;
}

/* Ask first: a piece that was given a place in vain is not looked through for zeros. */
static bool vc_can_reflink(const struct vc_file *file)
{
	struct statfs fs;

	if (file->is_block || fstatfs(file->fd, &fs))
		return false;
	return fs.f_type == BTRFS_SUPER_MAGIC || fs.f_type == XFS_SUPER_MAGIC ||
	       fs.f_type == VC_BCACHEFS_MAGIC;
}

int vc_copy_run(struct vc_copy *copy, struct vc_err *err)
{
	struct vc_copier copier = {
		.copy = copy,
		.err = err,
		.no_reflink = !vc_can_reflink(copy->target->file),
	};
	struct vc_slot *slot;

	copy->bytes = 0;
	if (vc_queue_open(&copier.queue, err))
		return -ENOMEM;
	for (slot = copier.slot; slot < copier.slot + VC_SLOTS; slot++) {
		if (posix_memalign((void **)&slot->buf, VHDX_PAGE_SIZE, VC_PIECE)) {
			copier.ret = vc_error_nomem(err);
			break;
		}
		vc_slot_run(&copier, slot);
		/* Where one is read after the other, one buffer does. */
		if (!vc_queue_is_parallel(copier.queue))
			break;
	}
	while (vc_copier_wait(&copier))
		;
	vc_queue_close(copier.queue);
	for (slot = copier.slot; slot < copier.slot + VC_SLOTS; slot++) {
		free(slot->buf);
		free(slot->io);
		free(slot->piece.extent);
	}
	return copier.ret;
}
