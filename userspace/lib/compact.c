// SPDX-License-Identifier: GPL-2.0-or-later
/* Compaction: see compact.h. */
#include <stdlib.h>
#include <sys/stat.h>

#include "compact.h"
#include "disk.h"
#include "edit.h"

#define VC_PIECE	VHDX_MIB
#define VC_BATCH	64U		/* MiB moved by one commit */

/* A block that has a place, payload or bitmap. */
struct vc_placed {
	u64 mib;
	u32 number;
	bool bitmap;
};

struct vc_compacting {
	struct vc_image *image;
	struct vc_disk *own;		/* the top alone */
	struct vc_disk *below;		/* what it reads as without it, or NULL */
	struct vc_edit *edit;
	struct vc_progress *progress;
	struct vc_compacted *done;
	u8 *buf;
	u8 *other;
};

static u64 vc_allocated(const struct vc_file *file)
{
	struct stat st;

	return file->is_block || fstat(file->fd, &st) ? 0 : (u64)st.st_blocks * 512;
}

static bool vc_compact_zeros(const u8 *buf, size_t len)
{
	return !buf[0] && !memcmp(buf, buf + 1, len - 1);
}

/* ---- what need not be there ---------------------------------------------------------- */

/* What a block tells about itself. */
struct vc_look {
	bool none;			/* of its sectors is here */
	bool all;			/* of them are */
	bool zeros;			/* those that are here are zeros */
	bool same;			/* those that are here are in the parent, too */
};

/* The same below?  What lies behind the end of the parent is zeros. */
static int vc_compact_same(struct vc_compacting *c, u64 offset, size_t n, bool *same,
			   struct vc_err *err)
{
	u64 size = vc_disk_size(c->below);
	size_t inside = 0;
	int ret = 0;

	if (offset < size)
		inside = n < size - offset ? n : size - offset;
	memset(c->other + inside, 0, n - inside);
	if (inside)
		ret = vc_disk_read(c->below, offset, c->other, inside, err);
	*same = !ret && !memcmp(c->buf, c->other, n);
	return ret;
}

static int vc_compact_look_data(struct vc_compacting *c, const struct vc_extent *extent,
				struct vc_look *look, struct vc_err *err)
{
	u64 offset = extent->offset;
	u64 left = extent->length;
	bool same;
	size_t n;
	int ret;

	for (; left && (look->zeros || look->same); offset += n, left -= n) {
		n = left < VC_PIECE ? left : VC_PIECE;
		ret = vc_disk_read(c->own, offset, c->buf, n, err);
		if (ret)
			return ret;
		look->zeros = look->zeros && vc_compact_zeros(c->buf, n);
		if (!look->same)
			continue;
		ret = vc_compact_same(c, offset, n, &same, err);
		if (ret)
			return ret;
		look->same = same;
	}
	return 0;
}

static int vc_compact_look(struct vc_compacting *c, u32 block, struct vc_look *look,
			   struct vc_err *err)
{
	const struct vhdx_geometry *geo = &c->image->geo;
	u64 offset = (u64)block << geo->block_shift;
	u64 end = offset + geo->block_size;
	struct vc_extent extent;
	int ret = 0;

	*look = (struct vc_look){ true, true, true, c->below };
	if (end > geo->virtual_size)
		end = geo->virtual_size;
	for (; !ret && offset < end; offset = extent.offset + extent.length) {
		ret = vc_disk_extent(c->own, offset, end - offset, &extent, err);
		if (ret)
			return ret;
		if (extent.kind == VC_EXTENT_ABSENT) {
			look->all = false;
			continue;
		}
		/* A hole in the file is zeros of this layer, as good as written ones. */
		look->none = false;
		ret = vc_compact_look_data(c, &extent, look, err);
	}
	return ret;
}

/* So many bytes more were looked at or moved. */
static int vc_compact_step(struct vc_compacting *c, u64 bytes, struct vc_err *err)
{
	int ret = vc_progress_step(c->progress, bytes);

	return !ret ? 0 : vc_error(err, -ret, c->image->file.path,
				   "interrupted: the image is in order, and another run goes on");
}

static int vc_compact_block(struct vc_compacting *c, u32 block, struct vc_err *err)
{
	unsigned int state = vhdx_bat_state(vc_edit_block(c->edit, block));
	struct vc_look look;
	int ret;

	/* What reads as zeros needs no place. */
	if (state == VHDX_BLOCK_UNDEFINED || state == VHDX_BLOCK_UNMAPPED)
		return vc_edit_set_block(c->edit, block, VHDX_BLOCK_ZERO, 0, err);
	if (state != VHDX_BLOCK_FULLY_PRESENT && state != VHDX_BLOCK_PARTIALLY_PRESENT)
		return 0;
	ret = vc_compact_look(c, block, &look, err);
	if (!ret)
		ret = vc_compact_step(c, c->image->geo.block_size, err);
	if (ret)
		return ret;
	if (look.none || look.same) {
		c->done->nr_same++;
		return vc_edit_set_block(c->edit, block, VHDX_BLOCK_NOT_PRESENT, 0, err);
	}
	if (look.all && look.zeros) {
		c->done->nr_zero++;
		return vc_edit_set_block(c->edit, block, VHDX_BLOCK_ZERO, 0, err);
	}
	return 0;
}

static int vc_compact_bitmaps(struct vc_compacting *c, struct vc_err *err)
{
	const struct vhdx_geometry *geo = &c->image->geo;
	u64 entry;
	u32 chunk;
	u32 block;
	u32 end;
	int ret = 0;

	for (chunk = 0; geo->has_parent && chunk < geo->nr_chunks && !ret; chunk++) {
		entry = vc_edit_bitmap_block(c->edit, chunk);
		if (vhdx_bat_state(entry) != VHDX_BITMAP_PRESENT)
			continue;
		block = chunk << geo->ratio_shift;
		end = block + (1U << geo->ratio_shift);
		for (; block < end && block < geo->nr_blocks; block++)
			if (vhdx_bat_state(vc_edit_block(c->edit, block)) ==
			    VHDX_BLOCK_PARTIALLY_PRESENT)
				break;
		if (block < end && block < geo->nr_blocks)
			continue;
		c->done->nr_bitmaps++;
		ret = vc_edit_set_bitmap_block(c->edit, chunk, VHDX_BITMAP_NOT_PRESENT, 0, err);
	}
	return ret;
}

static int vc_compact_drop(struct vc_compacting *c, struct vc_err *err)
{
	u32 block;
	int ret = 0;

	for (block = 0; block < c->image->geo.nr_blocks && !ret; block++)
		ret = vc_compact_block(c, block, err);
	/* The bits of what was dropped must be gone before their block is. */
	if (!ret)
		ret = vc_edit_commit(c->edit, err);
	if (!ret)
		ret = vc_compact_bitmaps(c, err);
	return ret ? ret : vc_edit_commit(c->edit, err);
}

/* ---- to the front ----------------------------------------------------------------------- */

static int vc_placed_compare(const void *a, const void *b)
{
	const struct vc_placed *x = a;
	const struct vc_placed *y = b;

	/* The last comes first. */
	return (x->mib < y->mib) - (x->mib > y->mib);
}

static int vc_compact_collect(const struct vc_compacting *c, struct vc_placed **list,
			      u32 *nr, struct vc_err *err)
{
	const struct vhdx_geometry *geo = &c->image->geo;
	u64 entry;
	u32 i;

	*nr = 0;
	*list = calloc((u64)geo->nr_blocks + geo->nr_chunks, sizeof(**list));
	if (!*list)
		return vc_error_nomem(err);
	for (i = 0; i < geo->nr_blocks; i++) {
		entry = vc_edit_block(c->edit, i);
		if (vhdx_bat_state(entry) >= VHDX_BLOCK_FULLY_PRESENT)
			(*list)[(*nr)++] = (struct vc_placed){ vhdx_bat_mib(entry), i, false };
	}
	for (i = 0; geo->has_parent && i < geo->nr_chunks; i++) {
		entry = vc_edit_bitmap_block(c->edit, i);
		if (vhdx_bat_state(entry) == VHDX_BITMAP_PRESENT)
			(*list)[(*nr)++] = (struct vc_placed){ vhdx_bat_mib(entry), i, true };
	}
	qsort(*list, *nr, sizeof(**list), vc_placed_compare);
	return 0;
}

static int vc_compact_copy(struct vc_compacting *c, u64 from, u64 to, u32 nr_mib,
			   struct vc_err *err)
{
	const struct vc_file *file = &c->image->file;
	u64 end = file->size;
	size_t n;
	int ret = 0;
	u32 i;

	for (i = 0; i < nr_mib && !ret; i++) {
		u64 offset = (from + i) << VHDX_MIB_SHIFT;

		/* The file may end inside the last block. */
		n = offset < end ? VHDX_MIB : 0;
		if (n > end - offset)
			n = end - offset;
		memset(c->buf + n, 0, VHDX_MIB - n);
		ret = vc_file_read(file, "block", offset, c->buf, n, err);
		if (!ret)
			ret = vc_file_write(file, "block", (to + i) << VHDX_MIB_SHIFT, c->buf,
					    VHDX_MIB, err);
	}
	return ret;
}

/*
 * Return: 1 if it was moved, 0 if there is no place nearer to the front.  What was
 * allocated in vain is cut off in the end.
 */
static int vc_compact_move(struct vc_compacting *c, const struct vc_placed *placed,
			   struct vc_err *err)
{
	u32 nr = placed->bitmap ? 1 : vhdx_block_mib(&c->image->geo);
	unsigned int state;
	u64 mib;
	int ret;

	ret = vc_edit_alloc(c->edit, nr, &mib, err);
	if (ret == -ENOSPC)
		return 0;
	if (ret)
		return ret;
	if (mib > placed->mib)
		return 0;
	ret = vc_compact_copy(c, placed->mib, mib, nr, err);
	if (!ret && placed->bitmap) {
		ret = vc_edit_set_bitmap_block(c->edit, placed->number, VHDX_BITMAP_PRESENT,
					       mib, err);
	} else if (!ret) {
		state = vhdx_bat_state(vc_edit_block(c->edit, placed->number));
		ret = vc_edit_set_block(c->edit, placed->number, state, mib, err);
	}
	if (ret)
		return ret;
	c->done->nr_moved++;
	return 1;
}

/* What lies behind the place where all of them would end, side by side, has to move. */
static void vc_compact_expect(struct vc_compacting *c, const struct vc_placed *list, u32 nr)
{
	u64 block = vhdx_block_mib(&c->image->geo);
	u64 end = 0;
	u32 i;

	for (i = 0; i < nr; i++)
		end += list[i].bitmap ? 1 : block;
	for (i = 0; i < nr && c->progress; i++)
		if (list[i].mib > end)
			c->progress->total += (list[i].bitmap ? 1 : block) << VHDX_MIB_SHIFT;
}

/* One pass from the end to the front: until a block of each kind finds no place. */
static int vc_compact_pass(struct vc_compacting *c, bool *moved, struct vc_err *err)
{
	bool full[2] = { };
	struct vc_placed *list;
	u32 batch = 0;
	int ret;
	u32 nr;
	u32 i;

	*moved = false;
	ret = vc_compact_collect(c, &list, &nr, err);
	if (!ret)
		vc_compact_expect(c, list, nr);
	for (i = 0; i < nr && ret >= 0 && !(full[0] && full[1]); i++) {
		if (full[list[i].bitmap])
			continue;
		ret = vc_compact_move(c, &list[i], err);
		if (!ret)
			full[list[i].bitmap] = true;
		if (ret <= 0)
			continue;
		*moved = true;
		ret = vc_compact_step(c, c->image->geo.block_size, err);
		batch += vhdx_block_mib(&c->image->geo);
		if (ret || batch < VC_BATCH)
			continue;
		batch = 0;
		ret = vc_edit_commit(c->edit, err);
	}
	free(list);
	return ret < 0 ? ret : vc_edit_commit(c->edit, err);
}

/* ---- all together ---------------------------------------------------------------------------- */

static int vc_compact_run(struct vc_compacting *c, struct vc_err *err)
{
	bool moved = true;
	int ret;

	ret = vc_compact_drop(c, err);
	/* What a pass has freed may be a place for others. */
	while (!ret && moved)
		ret = vc_compact_pass(c, &moved, err);
	return ret;
}

static int vc_compact_disks(struct vc_compacting *c, const struct vc_chain *chain,
			    bool dedup, struct vc_err *err)
{
	int ret;

	ret = vc_disk_open(&c->own, chain, 0, 1, err);
	if (!ret && dedup)
		ret = vc_disk_open(&c->below, chain, 1, chain->nr - 1, err);
	return ret;
}

static int vc_compact_finish(struct vc_compacting *c, struct vc_err *err)
{
	struct vc_usage usage;
	u64 cut;
	int ret;

	ret = vc_image_reload(c->image, 0, err);
	if (ret)
		return ret;
	/* Holes that are too small for a block. */
	ret = vc_image_walk(c->image, &usage, NULL, NULL, err);
	if (!ret)
		vc_image_punch_free(c->image, &usage);
	vc_usage_free(&usage);
	/* What was added in vain, when nothing was changed. */
	if (!ret)
		ret = vc_image_trim(c->image, &cut, err);
	c->done->new_size = c->image->file.size;
	c->done->new_allocated = vc_allocated(&c->image->file);
	return ret;
}

/* What will be looked at. */
static int vc_compact_measure(struct vc_compacting *c, struct vc_err *err)
{
	struct vc_usage usage;
	int ret;

	if (!c->progress)
		return 0;
	ret = vc_image_walk(c->image, &usage, NULL, NULL, err);
	c->progress->total = ((u64)usage.nr_full + usage.nr_partial) *
			     c->image->geo.block_size;
	vc_usage_free(&usage);
	return ret;
}

int vc_compact(struct vc_chain *chain, bool dedup, struct vc_progress *progress,
	       struct vc_compacted *done, struct vc_err *err)
{
	struct vc_image *image = chain->layer[0];
	struct vc_compacting c = { .image = image, .done = done, .progress = progress };
	struct vc_err why;
	int ret;

	*done = (struct vc_compacted) {
		.old_size = image->file.size,
		.old_allocated = vc_allocated(&image->file),
	};
	if (!image->meta.has_parent && image->meta.leave_allocated)
		return vc_error(err, EINVAL, image->file.path,
				"a fixed image: all of its blocks stay");
	if (dedup && chain->nr < 2)
		return vc_error(err, EINVAL, image->file.path, "not a delta: it has no parent");
	c.buf = malloc(VC_PIECE);
	c.other = malloc(VC_PIECE);
	ret = c.buf && c.other ? vc_compact_disks(&c, chain, dedup, err) : vc_error_nomem(err);
	if (!ret)
		ret = vc_compact_measure(&c, err);
	if (!ret)
		ret = vc_edit_begin(&c.edit, image, err);
	if (!ret) {
		ret = vc_compact_run(&c, err);
		if (ret && ret != -EINTR)
			vc_edit_abort(c.edit);
		else if (vc_edit_end(c.edit, &why))
			ret = vc_error(err, why.errnum, NULL, "%s", why.msg);
	}
	if (!ret)
		ret = vc_compact_finish(&c, err);
	vc_disk_close(c.own);
	vc_disk_close(c.below);
	free(c.buf);
	free(c.other);
	return ret;
}
