// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A disk made larger or smaller: see resize.h.
 *
 * Before the change, only places are written that no one can see: free space of the
 * file, the part of the last block that lies behind the end of the disk, and entries
 * behind those that the BAT needs.  Then one entry of the log has the new size, and
 * with it all that must not be seen before.
 */
#include <stdlib.h>

#include "change.h"
#include "disk.h"
#include "resize.h"

#define VC_PIECE	VHDX_MIB

struct vc_resizing {
	struct vc_image *image;
	struct vhdx_geometry old;
	struct vhdx_geometry new;
	u64 below;			/* so far the parent may have data */
	u64 end;			/* of what is used in the file, grows */
	u64 bat_offset;			/* of the BAT, after the change */
	u32 bat_length;
	u64 fixed_place;		/* of the first new block of a fixed image */
	__le64 *bat;			/* as it is to be, all entries that are needed */
	struct vc_change *change;
};

/* ---- space ------------------------------------------------------------------------- */

/* New space behind all that is used; reads as zeros. */
static int vc_resize_alloc(struct vc_resizing *r, u64 length, u64 *offset,
			   struct vc_err *err)
{
	struct vc_file *file = &r->image->file;
	u64 end = r->end + length;
	int ret = 0;

	if (end > (u64)VHDX_MAX_FILE_MIB << VHDX_MIB_SHIFT)
		return vc_error(err, EFBIG, file->path, "the file would be longer than 512 TiB");
	if (file->is_block && end > file->size)
		return vc_error(err, ENOSPC, file->path,
				"the device has %llu bytes, %llu are needed", file->size, end);
	if (!file->is_block && end > file->size)
		ret = vc_file_resize(file, end, err);
	r->image->size = file->size;
	if (!ret)
		ret = vc_file_zero(file, r->end, length, err);
	*offset = r->end;
	r->end = end;
	return ret;
}

/* ---- the BAT ------------------------------------------------------------------------ */

/* What a block reads as that was not there before. */
static u64 vc_resize_new_entry(const struct vc_resizing *r, u32 block)
{
	u64 start = (u64)block << r->new.block_shift;
	u64 place;

	if (!r->new.has_parent && r->image->meta.leave_allocated) {
		place = r->fixed_place + (start - ((u64)r->old.nr_blocks << r->new.block_shift));
		return vhdx_bat_entry(VHDX_BLOCK_FULLY_PRESENT, place >> VHDX_MIB_SHIFT);
	}
	/* NOT_PRESENT is zeros only where the parent has nothing, and says that it is. */
	if (r->new.has_parent && start >= r->below)
		return vhdx_bat_entry(VHDX_BLOCK_NOT_PRESENT, 0);
	return vhdx_bat_entry(VHDX_BLOCK_ZERO, 0);
}

static u64 vc_resize_entry(const struct vc_resizing *r, u32 index, u64 old)
{
	u32 chunk = vhdx_bat_chunk(&r->new, index);
	u32 block = index - chunk;

	if (vhdx_bat_is_bitmap(&r->new, index, chunk))
		return r->new.has_parent && chunk < r->old.nr_chunks ? old : 0;
	if (block >= r->new.nr_blocks)
		return 0;
	return block < r->old.nr_blocks ? old : vc_resize_new_entry(r, block);
}

static int vc_resize_load_bat(struct vc_resizing *r, struct vc_err *err)
{
	u32 known = r->old.nr_entries < r->new.nr_entries ? r->old.nr_entries :
							    r->new.nr_entries;
	u32 i;
	int ret;

	r->bat = calloc(r->new.nr_entries, sizeof(*r->bat));
	if (!r->bat)
		return vc_error_nomem(err);
	ret = vc_file_read(&r->image->file, "BAT", r->image->regions.bat.offset, r->bat,
			   8ULL * known, err);
	for (i = 0; !ret && i < r->new.nr_entries; i++)
		r->bat[i] = cpu_to_le64(vc_resize_entry(r, i, le64_to_cpu(r->bat[i])));
	return ret;
}

/* All of it in a new place, which only the region tables will name. */
static int vc_resize_move_bat(struct vc_resizing *r, struct vc_err *err)
{
	int ret;

	r->bat_length = vhdx_bat_region_bytes(&r->new);
	ret = vc_resize_alloc(r, r->bat_length, &r->bat_offset, err);
	if (!ret)
		ret = vc_file_write(&r->image->file, "BAT", r->bat_offset, r->bat,
				    8ULL * r->new.nr_entries, err);
	return ret;
}

/* Entries that count already go with the change, those behind them go before it. */
static int vc_resize_write_bat(struct vc_resizing *r, struct vc_err *err)
{
	__le64 page[VHDX_BAT_ENTRIES_PER_PAGE];
	u32 needed = r->old.nr_entries;
	u32 i;
	u32 n;
	int ret;

	if (r->new.nr_entries > needed) {
		ret = vc_file_write(&r->image->file, "BAT", r->bat_offset + 8ULL * needed,
				    r->bat + needed, 8ULL * (r->new.nr_entries - needed), err);
		if (ret)
			return ret;
	} else {
		needed = r->new.nr_entries;
	}
	for (i = 0; i < needed; i += n) {
		n = needed - i < VHDX_BAT_ENTRIES_PER_PAGE ? needed - i :
							     VHDX_BAT_ENTRIES_PER_PAGE;
		ret = vc_file_read(&r->image->file, "BAT", r->bat_offset + 8ULL * i, page, 8 * n,
				   err);
		if (!ret && memcmp(page, r->bat + i, 8 * n))
			ret = vc_change_write(r->change, "BAT", r->bat_offset + 8ULL * i,
					      r->bat + i, 8 * n, err);
		if (ret)
			return ret;
	}
	return 0;
}

/* Both copies of the region table, with the BAT in its new place. */
static int vc_resize_region_tables(struct vc_resizing *r, struct vc_err *err)
{
	struct vhdx_region_table_header *head;
	struct vhdx_region_table_entry *entry;
	unsigned int i;
	u8 *table;
	int ret = 0;

	table = malloc(VHDX_REGION_TABLE_SIZE);
	if (!table)
		return vc_error_nomem(err);
	memcpy(table, r->image->table, VHDX_REGION_TABLE_SIZE);
	head = (void *)table;
	entry = (void *)(head + 1);
	for (i = 0; i < r->image->regions.count; i++) {
		if (!vhdx_guid_equal(&entry[i].guid, &vhdx_guid_bat_region))
			continue;
		entry[i].file_offset = cpu_to_le64(r->bat_offset);
		entry[i].length = cpu_to_le32(r->bat_length);
	}
	head->checksum = cpu_to_le32(vhdx_checksum(table, VHDX_REGION_TABLE_SIZE));
	for (i = 0; i < VHDX_REGION_TABLE_SIZE && !ret; i += VHDX_PAGE_SIZE) {
		if (!r->image->table_damaged &&
		    !memcmp(table + i, r->image->table + i, VHDX_PAGE_SIZE))
			continue;
		ret = vc_change_write(r->change, "region table", VHDX_REGION_TABLE1_OFFSET + i,
				      table + i, VHDX_PAGE_SIZE, err);
		if (!ret)
			ret = vc_change_write(r->change, "region table",
					      VHDX_REGION_TABLE2_OFFSET + i, table + i,
					      VHDX_PAGE_SIZE, err);
	}
	free(table);
	return ret;
}

/* ---- the block that the old end lies in ------------------------------------------------ */

/*
 * Bits of the block that the old end lies in, up to its end: those of sectors from
 * @first on are set, those from @start to there are cleared.  @fresh: nobody knows of
 * the bitmap block yet.
 */
static int vc_resize_bits(struct vc_resizing *r, u64 bitmap, u64 start, u64 first,
			  bool fresh, struct vc_err *err)
{
	u64 sectors = r->old.block_size >> r->old.sector_shift;
	u64 end = r->old.nr_blocks * sectors;
	u64 bit = start & ((1ULL << VHDX_SECTORS_PER_CHUNK_SHIFT) - 1);
	size_t bytes = (bit % 8 + (end - start) + 7) / 8;
	u64 offset = bitmap + bit / 8;
	u8 *buf = malloc(bytes);
	u64 sector;
	int ret;

	if (!buf)
		return vc_error_nomem(err);
	ret = vc_file_read(&r->image->file, "sector bitmap", offset, buf, bytes, err);
	for (sector = start; sector < end; sector++) {
		u64 i = bit % 8 + sector - start;

		if (sector < first)
			buf[i / 8] &= ~(1 << i % 8);
		else
			buf[i / 8] |= 1 << i % 8;
	}
	if (!ret && fresh)
		ret = vc_file_write(&r->image->file, "sector bitmap", offset, buf, bytes, err);
	else if (!ret)
		ret = vc_change_write(r->change, "sector bitmap", offset, buf, bytes, err);
	free(buf);
	return ret;
}

/* The parent would show there: a place for zeros that hide it. */
static int vc_resize_hide(struct vc_resizing *r, u32 block, u64 first, struct vc_err *err)
{
	u32 chunk = vhdx_block_chunk(&r->new, block);
	__le64 *entry = &r->bat[vhdx_bat_payload_index(&r->new, block)];
	__le64 *bitmap_entry = &r->bat[vhdx_bat_bitmap_index(&r->new, chunk)];
	bool fresh = vhdx_bat_state(le64_to_cpu(*bitmap_entry)) != VHDX_BITMAP_PRESENT;
	u64 start = (u64)block << (r->new.block_shift - r->new.sector_shift);
	u64 bitmap = vhdx_bat_mib(le64_to_cpu(*bitmap_entry)) << VHDX_MIB_SHIFT;
	u64 place;
	int ret;

	ret = vc_resize_alloc(r, r->new.block_size, &place, err);
	if (!ret && fresh)
		ret = vc_resize_alloc(r, VHDX_MIB, &bitmap, err);
	if (ret)
		return ret;
	*bitmap_entry = cpu_to_le64(vhdx_bat_entry(VHDX_BITMAP_PRESENT,
						   bitmap >> VHDX_MIB_SHIFT));
	*entry = cpu_to_le64(vhdx_bat_entry(VHDX_BLOCK_PARTIALLY_PRESENT,
					    place >> VHDX_MIB_SHIFT));
	return vc_resize_bits(r, bitmap, start, first, fresh, err);
}

/* What lies in the block behind the old end was never seen, and may be anything. */
static int vc_resize_tail(struct vc_resizing *r, struct vc_err *err)
{
	u64 inside = r->old.virtual_size & (r->old.block_size - 1);
	u64 first = r->old.virtual_size >> r->old.sector_shift;
	u32 block = r->old.nr_blocks - 1;
	u32 chunk = vhdx_block_chunk(&r->new, block);
	u64 entry = le64_to_cpu(r->bat[vhdx_bat_payload_index(&r->new, block)]);
	u64 place = vhdx_bat_mib(entry) << VHDX_MIB_SHIFT;
	unsigned int state = vhdx_bat_state(entry);
	struct vc_file *file = &r->image->file;
	u64 bitmap;
	int ret = 0;

	if (!inside)
		return 0;
	if (state == VHDX_BLOCK_NOT_PRESENT && r->new.has_parent &&
	    r->below > r->old.virtual_size)
		return vc_resize_hide(r, block, first, err);
	if (state != VHDX_BLOCK_FULLY_PRESENT && state != VHDX_BLOCK_PARTIALLY_PRESENT)
		return 0;
	if (!file->is_block && place + r->old.block_size > file->size) {
		ret = vc_file_resize(file, place + r->old.block_size, err);
		r->image->size = file->size;
	}
	if (!ret)
		ret = vc_file_zero(file, place + inside, r->old.block_size - inside, err);
	if (ret || state == VHDX_BLOCK_FULLY_PRESENT)
		return ret;
	bitmap = le64_to_cpu(r->bat[vhdx_bat_bitmap_index(&r->new, chunk)]);
	return vc_resize_bits(r, vhdx_bat_mib(bitmap) << VHDX_MIB_SHIFT, first, first, false,
			      err);
}

/* ---- the data behind a new end ----------------------------------------------------------- */

static bool vc_resize_zeros(const u8 *buf, size_t len)
{
	return !len || (!buf[0] && !memcmp(buf, buf + 1, len - 1));
}

static int vc_resize_look(struct vc_disk *disk, u64 offset, u8 *buf, bool *found,
			  u64 *next, struct vc_err *err)
{
	u64 size = vc_disk_size(disk);
	struct vc_extent extent;
	size_t n;
	int ret;

	ret = vc_disk_extent(disk, offset, size - offset, &extent, err);
	if (ret)
		return ret;
	*next = extent.offset + extent.length;
	if (extent.kind != VC_EXTENT_DATA)
		return 0;
	n = *next - offset < VC_PIECE ? *next - offset : VC_PIECE;
	*next = offset + n;
	ret = vc_disk_read(disk, offset, buf, n, err);
	*found = !ret && !vc_resize_zeros(buf, n);
	return ret;
}

/* Zeros may go: who grows the disk again finds them there. */
static int vc_resize_no_data(const struct vc_chain *chain, u64 offset, struct vc_err *err)
{
	struct vc_disk *disk = NULL;
	u8 *buf = malloc(VC_PIECE);
	bool found = false;
	u64 next;
	int ret;

	ret = buf ? vc_disk_open(&disk, chain, 0, chain->nr, err) : vc_error_nomem(err);
	for (; !ret && !found && offset < vc_disk_size(disk); offset = found ? offset : next)
		ret = vc_resize_look(disk, offset, buf, &found, &next, err);
	if (found)
		ret = vc_error(err, ENOTEMPTY, chain->layer[0]->file.path,
			       "the disk has data behind the new end (at %llu): it would be lost, allow that with --cut-data",
			       offset);
	vc_disk_close(disk);
	free(buf);
	return ret;
}

/* ---- all together -------------------------------------------------------------------------- */

static int vc_resize_prepare(struct vc_resizing *r, struct vc_resized *resized,
			     struct vc_err *err)
{
	const struct vhdx_region *bat = &r->image->regions.bat;
	bool grow = r->new.virtual_size > r->old.virtual_size;
	u64 blocks = r->new.nr_blocks - r->old.nr_blocks;
	bool fixed = !r->new.has_parent && r->image->meta.leave_allocated;
	int ret = 0;

	r->bat_offset = bat->offset;
	if (grow && fixed && blocks)
		ret = vc_resize_alloc(r, blocks << r->new.block_shift, &r->fixed_place, err);
	if (!ret)
		ret = vc_resize_load_bat(r, err);
	if (!ret && grow)
		ret = vc_resize_tail(r, err);
	if (ret)
		return ret;
	resized->bat_moved = 8ULL * r->new.nr_entries > bat->length;
	if (!resized->bat_moved)
		return vc_resize_write_bat(r, err);
	ret = vc_resize_move_bat(r, err);
	return ret ? ret : vc_resize_region_tables(r, err);
}

static int vc_resize_change(struct vc_resizing *r, unsigned int flags,
			    struct vc_resized *resized, struct vc_err *err)
{
	const struct vc_image *image = r->image;
	__le64 size = cpu_to_le64(r->new.virtual_size);
	struct vc_change *change;
	int ret;

	ret = vc_change_begin(&r->change, r->image, err);
	if (!ret)
		ret = vc_resize_prepare(r, resized, err);
	if (!ret)
		ret = vc_change_write(r->change, "metadata item", image->regions.metadata.offset +
				      image->items[VHDX_ITEM_VIRTUAL_DISK_SIZE].offset, &size,
				      sizeof(size), err);
	change = r->change;
	r->change = NULL;
	if (ret) {
		vc_change_drop(change);
		return ret;
	}
	if (!(flags & VC_RESIZE_SAME_GUID))
		vc_change_data(change);
	return vc_change_commit(change, err);
}

/* Space that is not used any more, and entries that may be needed again. */
static int vc_resize_clean(struct vc_resizing *r, struct vc_err *err)
{
	struct vc_usage usage;
	u64 cut;
	int ret;

	ret = vc_image_reload(r->image, 0, err);
	if (ret)
		return ret;
	ret = vc_image_walk(r->image, &usage, NULL, NULL, err);
	if (!ret)
		vc_image_punch_free(r->image, &usage);
	vc_usage_free(&usage);
	return ret ? ret : vc_image_trim(r->image, &cut, err);
}

static int vc_resize_start(struct vc_resizing *r, const struct vc_chain *chain, u64 size,
			   struct vc_err *err)
{
	struct vc_image *image = chain->layer[0];
	struct vhdx_fault fault = { };
	struct vc_usage usage;
	int ret;

	r->image = image;
	r->old = image->geo;
	if (size % image->geo.sector_size)
		return vc_error(err, EINVAL, image->file.path,
				"%llu is no multiple of the sector size, %u", size,
				image->geo.sector_size);
	ret = vhdx_geometry_init(&r->new, size, image->geo.block_size, image->geo.sector_size,
				 image->geo.has_parent, &fault);
	if (ret)
		return vc_error(err, EINVAL, image->file.path, "cannot be that large: %s (%llu)",
				fault.what, fault.value);
	ret = vc_image_walk(image, &usage, NULL, NULL, err);
	r->end = usage.end;
	vc_usage_free(&usage);
	if (chain->nr > 1)
		r->below = vc_image_virtual_size(chain->layer[1]);
	return ret;
}

int vc_resize(struct vc_chain *chain, u64 size, unsigned int flags,
	      struct vc_resized *resized, struct vc_err *err)
{
	struct vc_image *image = chain->layer[0];
	u64 file_size = image->file.size;
	struct vc_resizing r = { };
	struct vc_err ignored;
	int ret;

	*resized = (struct vc_resized) {
		.old_size = image->meta.virtual_size,
		.new_size = size,
	};
	ret = vc_resize_start(&r, chain, size, err);
	if (!ret && size < resized->old_size && !(flags & VC_RESIZE_CUT_DATA))
		ret = vc_resize_no_data(chain, size, err);
	if (!ret && size != resized->old_size) {
		ret = vc_resize_change(&r, flags, resized, err);
		/* Nothing of it is there: what was added at the end need not be either. */
		if (ret && !image->header.log_dirty && !image->file.is_block &&
		    image->file.size > file_size)
			vc_file_resize(&image->file, file_size, &ignored);
		if (!ret)
			ret = vc_resize_clean(&r, err);
	}
	free(r.bat);
	return ret;
}
