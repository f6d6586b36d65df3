// SPDX-License-Identifier: GPL-2.0-or-later
/* Copying what a chain reads as: see copy.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "copy.h"

#define VC_BCACHEFS_MAGIC 0xca451a4eU

#define VC_WORKERS	4U
#define VC_GRAIN	4096U		/* runs of zeros shorter than this are written */

/*
 * What is known of a layer's file: a hole from @from to @data, and data from there to
 * @end.  It is asked once for each run of both: some file systems look at every page.
 */
struct vc_hole {
	u64 from;
	u64 data;
	u64 end;
	bool none;			/* the file cannot tell */
};

struct vc_copier {
	struct vc_copy *copy;
	pthread_mutex_t lock;
	u64 at;				/* the disk up to here was handed out */
	int ret;			/* of the first that failed */
	struct vc_err *err;
	bool no_reflink;
	struct vc_hole hole[VHDCLONE_MAX_LAYERS];
};

/* ---- what there is to copy ------------------------------------------------------ */

/*
 * Holes of the file are zeros, and need not be read.  An extent of data is cut where
 * a hole begins or ends.
 */
static void vc_copier_holes(struct vc_copier *copier, struct vc_extent *extent)
{
	const struct vc_image *image = copier->copy->chain->layer[extent->layer];
	struct vc_hole *hole = &copier->hole[extent->layer];
	u64 end = extent->place + extent->length;
	off_t found;

	/* A log replayed in memory may have data anywhere. */
	if (image->overlay || hole->none)
		return;
	if (extent->place < hole->from || extent->place >= hole->end) {
		hole->from = extent->place;
		found = lseek(image->file.fd, extent->place, SEEK_DATA);
		if (found < 0 && errno != ENXIO) {
			hole->none = true;
			return;
		}
		hole->data = found < 0 ? ~0ULL : (u64)found;
		hole->end = hole->data;
		if (found >= 0) {
			found = lseek(image->file.fd, found, SEEK_HOLE);
			if (found > 0)
				hole->end = found;
		}
	}
	if (extent->place < hole->data) {
		if (hole->data < end)
			end = hole->data & ~511ULL;
		if (end > extent->place) {
			extent->length = end - extent->place;
			extent->kind = VC_EXTENT_ZERO;
		}
	} else if (hole->end < end && (hole->end & ~511ULL) > extent->place) {
		extent->length = (hole->end & ~511ULL) - extent->place;
	}
}

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
	if (extent->kind == VC_EXTENT_DATA)
		vc_copier_holes(copier, extent);
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

	if (piece->nr == piece->room) {
		piece->room = piece->room ? 2 * piece->room : 64;
		list = realloc(list, piece->room * sizeof(*list));
		if (!list)
			return vc_error_nomem(err);
		piece->extent = list;
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

static int vc_piece_read(struct vc_copier *copier, struct vc_piece *piece, u8 *buf,
			 struct vc_err *err)
{
	const struct vc_image *image;
	const struct vc_extent *e;
	u64 there;
	u8 *to;
	int ret;

	for (e = piece->extent; e < piece->extent + piece->nr; e++) {
		if (e->kind == VC_EXTENT_ABSENT)
			continue;
		to = buf + (e->offset - piece->offset);
		there = 0;
		if (e->kind == VC_EXTENT_DATA) {
			image = copier->copy->chain->layer[e->layer];
			there = e->length;
			if (there > image->size - e->place)
				there = image->size - e->place;
			ret = vc_image_read(image, "block", e->place, to, there, err);
			if (ret)
				return ret;
			piece->zero = piece->zero && vc_is_zero(to, there);
		}
		memset(to + there, 0, e->length - there);
	}
	return 0;
}

/* All of it but the zeros. */
static int vc_write_sparse(const struct vc_file *file, u64 at, const u8 *buf, u64 len,
			   struct vc_err *err)
{
	u64 start = 0;
	u64 i = 0;
	u64 n;
	int ret;

	while (start < len) {
		/* [start, i) has data. */
		n = VC_GRAIN - (at + i) % VC_GRAIN;
		if (n > len - i)
			n = len - i;
		if (n && !vc_is_zero(buf + i, n)) {
			i += n;
			continue;
		}
		if (i > start) {
			ret = vc_file_write(file, "block", at + start, buf + start, i - start,
					    err);
			if (ret)
				return ret;
		}
		i += n;
		start = i;
	}
	return 0;
}

static int vc_piece_write(struct vc_copier *copier, const struct vc_piece *piece,
			  const u8 *buf, struct vc_err *err)
{
	const struct vc_file *file = copier->copy->target->file;
	u64 from = 0;
	unsigned int i;
	u64 end = 0;
	int ret = 0;

	/* Neighbours in one write. */
	for (i = 0; i <= piece->nr && !ret; i++) {
		const struct vc_extent *e = &piece->extent[i];

		if (i < piece->nr && e->kind != VC_EXTENT_ABSENT) {
			end = e->offset + e->length - piece->offset;
			continue;
		}
		if (end > from && piece->clean)
			ret = vc_write_sparse(file, piece->place + from, buf + from, end - from,
					      err);
		else if (end > from)
			ret = vc_file_write(file, "block", piece->place + from, buf + from,
					    end - from, err);
		if (i < piece->nr)
			from = e->offset + e->length - piece->offset;
		end = from;
	}
	/* It has to get to the disk: let that begin now. */
	if (!ret)
		sync_file_range(file->fd, piece->place, piece->length, SYNC_FILE_RANGE_WRITE);
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

static int vc_copier_put(struct vc_copier *copier, struct vc_piece *piece,
			 struct vc_err *err)
{
	struct vc_target *target = copier->copy->target;
	int ret;

	piece->place = VC_NOWHERE;
	piece->clean = false;
	pthread_mutex_lock(&copier->lock);
	ret = target->put(target, piece, err);
	pthread_mutex_unlock(&copier->lock);
	return ret;
}

static int vc_copier_copy(struct vc_copier *copier, struct vc_piece *piece, u8 *buf,
			  struct vc_err *err)
{
	bool shareable = vc_piece_shareable(copier, piece);
	int ret = 0;

	if (shareable) {
		piece->zero = false;
		ret = vc_copier_put(copier, piece, err);
		if (ret || vc_piece_reflink(copier, piece))
			return ret;
		/* It has its place already. */
		ret = vc_piece_read(copier, piece, buf, err);
	} else {
		ret = vc_piece_read(copier, piece, buf, err);
		if (!ret)
			ret = vc_copier_put(copier, piece, err);
	}
	if (!ret && piece->place != VC_NOWHERE)
		ret = vc_piece_write(copier, piece, buf, err);
	return ret;
}

/* ---- all of them ---------------------------------------------------------------- */

/* Under the lock: finish the one piece, take the next. */
static bool vc_copier_turn(struct vc_copier *copier, struct vc_piece *piece, int ret,
			   struct vc_err *err)
{
	struct vc_copy *copy = copier->copy;
	u64 bytes;

	pthread_mutex_lock(&copier->lock);
	if (!ret && piece->length) {
		bytes = vc_piece_data(piece);
		copy->bytes += bytes;
		if (copy->target->done && piece->place != VC_NOWHERE)
			ret = copy->target->done(copy->target, piece, err);
		if (!ret)
			ret = vc_progress_step(copy->progress, bytes);
	}
	/* After an error nobody takes another. */
	if (!ret && !copier->ret)
		ret = vc_copier_next(copier, piece, err);
	if (ret && !copier->ret) {
		copier->ret = ret;
		if (ret == -EINTR)
			vc_error(err, EINTR, NULL, "interrupted");
		*copier->err = *err;
	}
	ret = copier->ret;
	pthread_mutex_unlock(&copier->lock);
	return !ret && piece->length;
}

static void *vc_copier_work(void *data)
{
	struct vc_copier *copier = data;
	struct vc_piece piece = { };
	struct vc_err err = { };
	u8 *buf = NULL;
	int ret = 0;

	if (posix_memalign((void **)&buf, VHDX_PAGE_SIZE, VC_PIECE))
		ret = vc_error_nomem(&err);
	while (vc_copier_turn(copier, &piece, ret, &err))
		ret = vc_copier_copy(copier, &piece, buf, &err);
	free(buf);
	free(piece.extent);
	return NULL;
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
		.lock = PTHREAD_MUTEX_INITIALIZER,
		.err = err,
		.no_reflink = !vc_can_reflink(copy->target->file),
	};
	pthread_t thread[VC_WORKERS - 1];
	unsigned int nr = 0;

	copy->bytes = 0;
	while (nr < ARRAY_SIZE(thread) &&
	       !pthread_create(&thread[nr], NULL, vc_copier_work, &copier))
		nr++;
	/* This one works too; there may be no others. */
	vc_copier_work(&copier);
	while (nr)
		pthread_join(thread[--nr], NULL);
	return copier.ret;
}
