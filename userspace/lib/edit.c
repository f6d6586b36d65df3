// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Changing a VHDX at rest: see edit.h.
 *
 * The BAT is kept whole, in CPU order; pages of sector bitmaps and of the metadata
 * region are kept as they are on disk, from the first change of one to the next commit.
 *
 * A commit of many pages takes several log entries.  The order makes every prefix
 * valid, in the log and in place: bitmaps first (bits of a block that the BAT does not
 * call partial mean nothing), then the BAT from its end (the entry of a bitmap block
 * comes behind those of its chunk's blocks), then the metadata items.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>

#include "edit.h"
#include "guid.h"
#include "logwrite.h"

/* A page of a sector bitmap, or of the metadata region. */
struct vc_edit_page {
	u64 offset;		/* in the file */
	u32 number;		/* of a bitmap page */
	bool dirty;
	u8 data[VHDX_PAGE_SIZE];
};

struct vc_pages {
	u32 nr;
	u32 room;
	struct vc_edit_page **page;
};

struct vc_range {
	u64 mib;
	u64 nr;
};

struct vc_edit {
	struct vc_image *image;
	struct vc_log_writer log;
	u64 initial;		/* size of the file at the start */
	u64 new_mib;		/* nothing was ever written from here on */

	u64 *bat;
	u32 nr_bat_pages;
	bool *bat_dirty;

	struct vhdx_claims claims;
	u64 room;		/* MiB that the map has bits for */
	u64 hint_mib;		/* nothing free for hint_nr below */
	u32 hint_nr;

	u32 nr_freed;		/* by the next commit */
	struct vc_range *freed;
	u32 nr_stale;		/* blocks whose bits mean nothing any more */
	u32 *stale;

	struct vc_edit_page **by_number;	/* bitmap pages in memory */
	struct vc_pages bitmaps;
	struct vc_pages items;
	struct vhdx_item_place place[VHDX_ITEM_COUNT];

	bool touched;
	bool sparse;
	struct vhdx_guid data_guid;
};

/* ---- space ---------------------------------------------------------------------- */

static void vc_map_set(struct vc_edit *edit, u64 mib, u64 nr, bool value)
{
	unsigned long *map = edit->claims.map;

	for (; nr; mib++, nr--) {
		if (value)
			map[mib / BITS_PER_LONG] |= 1UL << mib % BITS_PER_LONG;
		else
			map[mib / BITS_PER_LONG] &= ~(1UL << mib % BITS_PER_LONG);
	}
}

static bool vc_map_taken(const struct vc_edit *edit, u64 mib)
{
	return edit->claims.map[mib / BITS_PER_LONG] >> mib % BITS_PER_LONG & 1;
}

/* Have bits for so many MiB. */
static int vc_map_room(struct vc_edit *edit, u64 nr_mib, struct vc_err *err)
{
	u64 old = edit->room / BITS_PER_LONG;
	unsigned long *map;
	u64 words;

	if (nr_mib <= edit->room)
		return 0;
	words = nr_mib / BITS_PER_LONG + 1;
	words += words / 2;
	map = realloc(edit->claims.map, words * sizeof(long));
	if (!map)
		return vc_error_nomem(err);
	memset(map + old, 0, (words - old) * sizeof(long));
	edit->claims.map = map;
	edit->room = words * BITS_PER_LONG;
	return 0;
}

/* The first run of free space; at the end of the file it may be shorter than @nr. */
static u64 vc_map_find(const struct vc_edit *edit, u32 nr)
{
	u64 mib = edit->hint_nr && edit->hint_nr <= nr ? edit->hint_mib : 0;
	u64 start = mib;

	while (mib < edit->claims.nr_mib && mib - start < nr) {
		if (!(mib % BITS_PER_LONG) && edit->claims.map[mib / BITS_PER_LONG] == ~0UL) {
			mib += BITS_PER_LONG;
			start = mib;
		} else if (vc_map_taken(edit, mib++)) {
			start = mib;
		}
	}
	return start < edit->claims.nr_mib ? start : edit->claims.nr_mib;
}

static int vc_edit_grow(struct vc_edit *edit, u64 nr_mib, struct vc_err *err)
{
	struct vc_file *file = &edit->image->file;
	u64 size = nr_mib << VHDX_MIB_SHIFT;
	int ret;

	if (file->is_block)
		return vc_error(err, ENOSPC, file->path,
				"the device has %llu bytes, %llu more are needed: make it larger",
				file->size, size - file->size);
	if (nr_mib > VHDX_MAX_FILE_MIB)
		return vc_error(err, EFBIG, file->path, "%llu MiB are more than a VHDX can have",
				nr_mib);
	ret = vc_map_room(edit, nr_mib, err);
	if (!ret && !edit->sparse)
		ret = vc_file_zero(file, file->size, size - file->size, err);
	/* File systems that can allocate without a new length: */
	if (!ret)
		ret = vc_file_resize(file, size, err);
	if (ret) {
		struct vc_err ignored;

		vc_file_resize(file, file->size, &ignored);
		return ret;
	}
	edit->image->size = size;
	edit->claims.nr_mib = nr_mib;
	return 0;
}

int vc_edit_alloc(struct vc_edit *edit, u32 nr_mib, u64 *mib, struct vc_err *err)
{
	u64 at = vc_map_find(edit, nr_mib);
	int ret = 0;

	if (at + nr_mib > edit->claims.nr_mib)
		ret = vc_edit_grow(edit, at + nr_mib, err);
	if (ret)
		return ret;
	vc_map_set(edit, at, nr_mib, true);
	edit->hint_mib = at + nr_mib;
	edit->hint_nr = nr_mib;
	*mib = at;
	return 0;
}

void vc_edit_stay_sparse(struct vc_edit *edit)
{
	edit->sparse = true;
}

bool vc_edit_is_new(const struct vc_edit *edit, u64 mib)
{
	return mib >= edit->new_mib;
}

static int vc_edit_free(struct vc_edit *edit, u64 mib, u64 nr, struct vc_err *err)
{
	struct vc_range *freed = edit->freed;

	if (!(edit->nr_freed & (edit->nr_freed + 1))) {
		freed = realloc(freed, 2 * (edit->nr_freed + 1ULL) * sizeof(*freed));
		if (!freed)
			return vc_error_nomem(err);
		edit->freed = freed;
	}
	freed[edit->nr_freed++] = (struct vc_range){ mib, nr };
	return 0;
}

/* The change that released it is durable: a replay does not bring it back. */
static void vc_edit_release(struct vc_edit *edit)
{
	const struct vc_range *freed;
	u64 end;
	u32 i;

	for (i = 0; i < edit->nr_freed; i++) {
		freed = &edit->freed[i];
		vc_map_set(edit, freed->mib, freed->nr, false);
		/* Give it back to the file system, if that can take it. */
		if (!edit->image->file.is_block)
			fallocate(edit->image->file.fd,
				  FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				  freed->mib << VHDX_MIB_SHIFT, freed->nr << VHDX_MIB_SHIFT);
		end = freed->mib + freed->nr;
		if (edit->new_mib < end)
			edit->new_mib = end;
	}
	if (edit->nr_freed)
		edit->hint_nr = 0;
	edit->nr_freed = 0;
}

/* ---- pages ---------------------------------------------------------------------- */

/* A page is known when it is there and was read, not before. */
static int vc_page_read(struct vc_edit *edit, struct vc_pages *pages, const char *what,
			u64 offset, struct vc_edit_page **result, struct vc_err *err)
{
	struct vc_edit_page **list = pages->page;
	struct vc_edit_page *page;
	u32 room;
	int ret;

	if (pages->nr == pages->room) {
		room = pages->room ? 2 * pages->room : 16;
		list = realloc(list, room * sizeof(*list));
		if (!list)
			return vc_error_nomem(err);
		pages->page = list;
		pages->room = room;
	}
	page = calloc(1, sizeof(*page));
	if (!page)
		return vc_error_nomem(err);
	page->offset = offset;
	ret = vc_file_read(&edit->image->file, what, offset, page->data, VHDX_PAGE_SIZE, err);
	if (ret) {
		free(page);
		return ret;
	}
	list[pages->nr++] = page;
	*result = page;
	return 0;
}

static void vc_pages_drop(struct vc_pages *pages)
{
	u32 i;

	for (i = 0; i < pages->nr; i++)
		free(pages->page[i]);
	free(pages->page);
	*pages = (struct vc_pages) { };
}

static void vc_bitmaps_drop(struct vc_edit *edit)
{
	u32 i;

	for (i = 0; i < edit->bitmaps.nr; i++)
		edit->by_number[edit->bitmaps.page[i]->number] = NULL;
	vc_pages_drop(&edit->bitmaps);
}

/* ---- blocks --------------------------------------------------------------------- */

u64 vc_edit_block(const struct vc_edit *edit, u32 block)
{
	return edit->bat[vhdx_bat_payload_index(&edit->image->geo, block)];
}

u64 vc_edit_bitmap_block(const struct vc_edit *edit, u32 chunk)
{
	return edit->bat[vhdx_bat_bitmap_index(&edit->image->geo, chunk)];
}

static void vc_edit_set_entry(struct vc_edit *edit, u32 index, u64 entry)
{
	if (edit->bat[index] == entry)
		return;
	edit->bat[index] = entry;
	edit->bat_dirty[index / VHDX_BAT_ENTRIES_PER_PAGE] = true;
}

/* Does this entry own a place? */
static bool vc_entry_placed(u64 entry)
{
	switch (vhdx_bat_state(entry)) {
	case VHDX_BLOCK_UNDEFINED:
	case VHDX_BLOCK_UNMAPPED:
	case VHDX_BLOCK_FULLY_PRESENT:
	case VHDX_BLOCK_PARTIALLY_PRESENT:
		return vhdx_bat_mib(entry);
	}
	return false;
}

static u64 vc_block_sectors(const struct vc_edit *edit)
{
	return edit->image->geo.block_size >> edit->image->geo.sector_shift;
}

static int vc_edit_stale(struct vc_edit *edit, u32 block, struct vc_err *err)
{
	u32 *stale = edit->stale;

	if (!(edit->nr_stale & (edit->nr_stale + 1))) {
		stale = realloc(stale, 2 * (edit->nr_stale + 1ULL) * sizeof(*stale));
		if (!stale)
			return vc_error_nomem(err);
		edit->stale = stale;
	}
	stale[edit->nr_stale++] = block;
	return 0;
}

int vc_edit_set_block(struct vc_edit *edit, u32 block, unsigned int state, u64 mib,
		      struct vc_err *err)
{
	const struct vhdx_geometry *geo = &edit->image->geo;
	u64 old = vc_edit_block(edit, block);
	bool partial = vhdx_bat_state(old) == VHDX_BLOCK_PARTIALLY_PRESENT;
	int ret = 0;

	vc_edit_set_entry(edit, vhdx_bat_payload_index(geo, block), vhdx_bat_entry(state, mib));
	if (vc_entry_placed(old) && vhdx_bat_mib(old) != mib)
		ret = vc_edit_free(edit, vhdx_bat_mib(old), vhdx_block_mib(geo), err);
	if (ret)
		return ret;
	/* Bits of an earlier life would show what the new place held before. */
	if (state == VHDX_BLOCK_PARTIALLY_PRESENT && !partial)
		return vc_edit_set_bits(edit, block * vc_block_sectors(edit),
					vc_block_sectors(edit), false, err);
	/* Some readers look at the bits whatever the BAT says. */
	if (partial && state != VHDX_BLOCK_PARTIALLY_PRESENT &&
	    state != VHDX_BLOCK_FULLY_PRESENT)
		return vc_edit_stale(edit, block, err);
	return 0;
}

/* ---- sector bitmaps ------------------------------------------------------------- */

/* Where a bitmap page lies. */
static u64 vc_bitmap_offset(const struct vc_edit *edit, u32 number)
{
	u64 entry = vc_edit_bitmap_block(edit, number / VHDX_BITMAP_PAGES_PER_CHUNK);

	return (vhdx_bat_mib(entry) << VHDX_MIB_SHIFT) +
	       (u64)(number % VHDX_BITMAP_PAGES_PER_CHUNK) * VHDX_PAGE_SIZE;
}

static int vc_bitmap_page(struct vc_edit *edit, u32 number, struct vc_edit_page **result,
			  struct vc_err *err)
{
	int ret;

	*result = edit->by_number[number];
	if (*result)
		return 0;
	ret = vc_page_read(edit, &edit->bitmaps, "sector bitmap",
			   vc_bitmap_offset(edit, number), result, err);
	if (ret)
		return ret;
	(*result)->number = number;
	edit->by_number[number] = *result;
	return 0;
}

static int vc_bitmap_add(struct vc_edit *edit, u32 chunk, struct vc_err *err)
{
	u64 mib;
	int ret;

	ret = vc_edit_alloc(edit, 1, &mib, err);
	if (!ret && !vc_edit_is_new(edit, mib))
		ret = vc_file_zero(&edit->image->file, mib << VHDX_MIB_SHIFT, VHDX_MIB, err);
	if (!ret)
		ret = vc_edit_set_bitmap_block(edit, chunk, VHDX_BITMAP_PRESENT, mib, err);
	return ret;
}

static void vc_bits(u8 *map, u32 bit, u32 nr, bool value)
{
	for (; nr && bit % 8; bit++, nr--) {
		if (value)
			map[bit / 8] |= 1U << bit % 8;
		else
			map[bit / 8] &= ~(1U << bit % 8);
	}
	memset(map + bit / 8, value ? 0xff : 0, nr / 8);
	for (bit += nr & ~7U, nr %= 8; nr; bit++, nr--) {
		if (value)
			map[bit / 8] |= 1U << bit % 8;
		else
			map[bit / 8] &= ~(1U << bit % 8);
	}
}

int vc_edit_set_bits(struct vc_edit *edit, u64 sector, u64 nr, bool value,
		     struct vc_err *err)
{
	struct vc_edit_page *page;
	u32 chunk;
	u32 bit;
	u32 n;
	int ret;

	for (; nr; sector += n, nr -= n) {
		bit = vhdx_bitmap_bit(sector);
		n = nr < VHDX_SECTORS_PER_PAGE - bit ? nr : VHDX_SECTORS_PER_PAGE - bit;
		chunk = sector >> VHDX_SECTORS_PER_CHUNK_SHIFT;
		if (vhdx_bat_state(vc_edit_bitmap_block(edit, chunk)) != VHDX_BITMAP_PRESENT) {
			ret = vc_bitmap_add(edit, chunk, err);
			if (ret)
				return ret;
		}
		ret = vc_bitmap_page(edit, vhdx_bitmap_page(sector), &page, err);
		if (ret)
			return ret;
		vc_bits(page->data, bit, n, value);
		page->dirty = true;
	}
	return 0;
}

int vc_edit_set_bitmap_block(struct vc_edit *edit, u32 chunk, unsigned int state, u64 mib,
			     struct vc_err *err)
{
	const struct vhdx_geometry *geo = &edit->image->geo;
	u64 old = vc_edit_bitmap_block(edit, chunk);
	u32 i;
	int ret;

	/* What is known of the old one is in it, and forgotten, first. */
	if (vhdx_bat_state(old) == VHDX_BITMAP_PRESENT) {
		for (i = 0; i < edit->bitmaps.nr; i++)
			if (edit->bitmaps.page[i]->number / VHDX_BITMAP_PAGES_PER_CHUNK == chunk)
				break;
		if (i < edit->bitmaps.nr) {
			ret = vc_edit_commit(edit, err);
			if (ret)
				return ret;
		}
		if (vhdx_bat_mib(old) != mib) {
			ret = vc_edit_free(edit, vhdx_bat_mib(old), 1, err);
			if (ret)
				return ret;
		}
	}
	vc_edit_set_entry(edit, vhdx_bat_bitmap_index(geo, chunk), vhdx_bat_entry(state, mib));
	return 0;
}

/* ---- metadata items ------------------------------------------------------------- */

static int vc_item_page(struct vc_edit *edit, u64 offset, struct vc_edit_page **result,
			struct vc_err *err)
{
	u32 i;

	for (i = 0; i < edit->items.nr; i++)
		if (edit->items.page[i]->offset == offset) {
			*result = edit->items.page[i];
			return 0;
		}
	return vc_page_read(edit, &edit->items, "metadata region", offset, result, err);
}

/* Copy to or from the region, with what was changed and not yet committed. */
static int vc_item_copy(struct vc_edit *edit, u32 at, void *buf, u32 length, bool write,
			struct vc_err *err)
{
	u64 offset = edit->image->regions.metadata.offset + at;
	struct vc_edit_page *page;
	u8 *bytes = buf;
	u32 in;
	u32 n;
	int ret;

	for (; length; offset += n, bytes += n, length -= n) {
		in = offset % VHDX_PAGE_SIZE;
		n = length < VHDX_PAGE_SIZE - in ? length : VHDX_PAGE_SIZE - in;
		ret = vc_item_page(edit, offset - in, &page, err);
		if (ret)
			return ret;
		if (write) {
			memcpy(page->data + in, bytes, n);
			page->dirty = true;
		} else {
			memcpy(bytes, page->data + in, n);
		}
	}
	return 0;
}

/* A gap between the values in the region that is long enough; 0: there is none. */
static u32 vc_item_gap(const struct vc_edit *edit, const u8 *table, u32 count, u32 length)
{
	const struct vhdx_metadata_table_entry *entry;
	u64 at = VHDX_METADATA_TABLE_SIZE;
	bool moved;
	u32 i;

	entry = (const void *)(table + sizeof(struct vhdx_metadata_table_header));
	do {
		moved = false;
		for (i = 0; i < count; i++) {
			u64 from = le32_to_cpu(entry[i].offset);
			u64 to = from + le32_to_cpu(entry[i].length);

			if (from < at + length && at < to) {
				at = (to + 7) & ~7ULL;
				moved = true;
			}
		}
	} while (moved);
	return at + length <= edit->image->regions.metadata.length ? at : 0;
}

/* The table with the item's new place; @length 0 takes it out. */
static int vc_item_table(struct vc_edit *edit, u8 *table, enum vhdx_item item, u32 length,
			 u32 *at, struct vc_err *err)
{
	struct vhdx_metadata_table_header *header = (void *)table;
	struct vhdx_metadata_table_entry *entry = (void *)(header + 1);
	u32 count = le16_to_cpu(header->entry_count);
	const char *path = edit->image->file.path;
	u32 i;

	/* The item is known by its place. */
	for (i = 0; i < count; i++)
		if (edit->place[item].length &&
		    le32_to_cpu(entry[i].offset) == edit->place[item].offset &&
		    le32_to_cpu(entry[i].length) == edit->place[item].length)
			break;
	if (!length) {
		memmove(&entry[i], &entry[i + 1], (count - i - 1) * sizeof(*entry));
		memset(&entry[count - 1], 0, sizeof(*entry));
		header->entry_count = cpu_to_le16(count - 1);
		return 0;
	}
	*at = edit->place[item].offset;
	if (length > edit->place[item].length)
		*at = vc_item_gap(edit, table, count, length);
	if (!*at || (i == count && count == VHDX_METADATA_MAX_ENTRIES))
		return vc_error(err, ENOSPC, path,
				"metadata region: no room for %u bytes (region at offset %llu)",
				length, edit->image->regions.metadata.offset);
	if (i == count) {
		header->entry_count = cpu_to_le16(count + 1);
		entry[i] = (struct vhdx_metadata_table_entry) {
			.item_id = vhdx_guid_parent_locator,
			.flags = cpu_to_le32(VHDX_METADATA_IS_REQUIRED),
		};
	}
	entry[i].offset = cpu_to_le32(*at);
	entry[i].length = cpu_to_le32(length);
	return 0;
}

int vc_edit_set_item(struct vc_edit *edit, enum vhdx_item item, const void *value,
		     u32 length, struct vc_err *err)
{
	u32 used = sizeof(struct vhdx_metadata_table_header);
	u8 *table;
	u32 at = 0;
	int ret;

	if (length > VHDX_METADATA_MAX_ITEM)
		return vc_error(err, EINVAL, edit->image->file.path,
				"a metadata item of %u bytes is too long", length);
	if (length == edit->place[item].length)
		return vc_item_copy(edit, edit->place[item].offset, (void *)value, length, true,
				    err);
	/* Only the parent locator comes, goes, and changes its length. */
	if (item != VHDX_ITEM_PARENT_LOCATOR)
		return vc_error(err, EINVAL, edit->image->file.path,
				"a metadata item cannot have %u bytes", length);
	table = calloc(1, VHDX_METADATA_TABLE_SIZE);
	if (!table)
		return vc_error_nomem(err);
	ret = vc_item_copy(edit, 0, table, used, false, err);
	/* As much of the table as there is, and the entry that may come. */
	if (!ret) {
		used += (le16_to_cpu(((struct vhdx_metadata_table_header *)table)->entry_count) +
			 1U) * sizeof(struct vhdx_metadata_table_entry);
		if (used > VHDX_METADATA_TABLE_SIZE)
			used = VHDX_METADATA_TABLE_SIZE;
		ret = vc_item_copy(edit, 0, table, used, false, err);
	}
	if (!ret)
		ret = vc_item_table(edit, table, item, length, &at, err);
	if (!ret)
		ret = vc_item_copy(edit, 0, table, used, true, err);
	if (!ret)
		ret = vc_item_copy(edit, at, (void *)value, length, true, err);
	if (!ret)
		edit->place[item] = (struct vhdx_item_place){ at, length };
	free(table);
	return ret;
}

/* ---- the commit ----------------------------------------------------------------- */

void vc_edit_touch_data(struct vc_edit *edit)
{
	vc_guid_random(&edit->data_guid);
	edit->touched = true;
}

void vc_edit_set_data_guid(struct vc_edit *edit, const struct vhdx_guid *guid)
{
	edit->data_guid = *guid;
	edit->touched = true;
}

struct vc_batch {
	unsigned int nr;
	struct vc_log_page pages[VC_LOG_PAGES];
};

static int vc_batch_write(struct vc_edit *edit, struct vc_batch *batch, struct vc_err *err)
{
	int ret = 0;

	if (batch->nr)
		ret = vc_log_write(&edit->log, batch->pages, batch->nr, err);
	batch->nr = 0;
	return ret;
}

static int vc_batch_add(struct vc_edit *edit, struct vc_batch *batch, u64 offset,
			const void *data, struct vc_err *err)
{
	int ret = 0;

	if (batch->nr == VC_LOG_PAGES)
		ret = vc_batch_write(edit, batch, err);
	batch->pages[batch->nr++] = (struct vc_log_page){ offset, data };
	return ret;
}

static int vc_batch_bitmaps(struct vc_edit *edit, struct vc_batch *batch,
			    struct vc_err *err)
{
	struct vc_edit_page *page;
	int ret = 0;
	u32 i;

	for (i = 0; i < edit->bitmaps.nr && !ret; i++) {
		page = edit->bitmaps.page[i];
		if (page->dirty)
			ret = vc_batch_add(edit, batch, vc_bitmap_offset(edit, page->number),
					   page->data, err);
	}
	return ret;
}

/* From the end, each page turned into what lies on disk in @image. */
static int vc_batch_bat(struct vc_edit *edit, struct vc_batch *batch, __le64 *image,
			struct vc_err *err)
{
	const u32 per_page = VHDX_BAT_ENTRIES_PER_PAGE;
	int ret = 0;
	u32 page;
	u32 i;

	for (page = edit->nr_bat_pages; page-- && !ret;) {
		if (!edit->bat_dirty[page])
			continue;
		for (i = 0; i < per_page; i++)
			image[i] = cpu_to_le64(edit->bat[page * per_page + i]);
		ret = vc_batch_add(edit, batch,
				   edit->image->regions.bat.offset + page * VHDX_PAGE_SIZE,
				   image, err);
		image += per_page;
	}
	return ret;
}

static int vc_batch_items(struct vc_edit *edit, struct vc_batch *batch, struct vc_err *err)
{
	u32 nr = 0;
	int ret = 0;
	u32 i;

	for (i = 0; i < edit->items.nr; i++)
		nr += edit->items.page[i]->dirty;
	/* Table and values change together. */
	if (nr > VC_LOG_PAGES)
		return vc_error(err, EINVAL, edit->image->file.path,
				"metadata items: %u pages cannot be changed at once", nr);
	if (batch->nr + nr > VC_LOG_PAGES)
		ret = vc_batch_write(edit, batch, err);
	for (i = 0; i < edit->items.nr && !ret; i++)
		if (edit->items.page[i]->dirty)
			ret = vc_batch_add(edit, batch, edit->items.page[i]->offset,
					   edit->items.page[i]->data, err);
	return ret;
}

static u32 vc_edit_dirty_bat(const struct vc_edit *edit)
{
	u32 nr = 0;
	u32 i;

	for (i = 0; i < edit->nr_bat_pages; i++)
		nr += edit->bat_dirty[i];
	return nr;
}

static bool vc_edit_dirty(const struct vc_edit *edit)
{
	u32 i;

	for (i = 0; i < edit->bitmaps.nr; i++)
		if (edit->bitmaps.page[i]->dirty)
			return true;
	for (i = 0; i < edit->items.nr; i++)
		if (edit->items.page[i]->dirty)
			return true;
	return vc_edit_dirty_bat(edit);
}

/* The session, and the identity: before any change is on the disk. */
static int vc_edit_headers(struct vc_edit *edit, struct vc_err *err)
{
	struct vc_image *image = edit->image;
	bool touched = edit->touched;

	if (touched)
		image->header.data_write_guid = edit->data_guid;
	edit->touched = false;
	if (!edit->log.open)
		return vc_log_start(&edit->log, image, err);
	return touched ? vc_header_update_both(image, err) : 0;
}

static int vc_edit_write(struct vc_edit *edit, struct vc_err *err)
{
	struct vc_batch batch = { };
	u32 nr = vc_edit_dirty_bat(edit);
	__le64 *images;
	int ret;

	images = malloc((nr + 1ULL) * VHDX_PAGE_SIZE);
	if (!images)
		return vc_error_nomem(err);
	ret = vc_batch_bitmaps(edit, &batch, err);
	if (!ret)
		ret = vc_batch_bat(edit, &batch, images, err);
	if (!ret)
		ret = vc_batch_items(edit, &batch, err);
	if (!ret)
		ret = vc_batch_write(edit, &batch, err);
	free(images);
	return ret;
}

/* What is not partial on disk any more has its bits cleared by the next commit. */
static int vc_edit_clear_stale(struct vc_edit *edit, struct vc_err *err)
{
	u64 nr = vc_block_sectors(edit);
	int ret = 0;
	u32 chunk;
	u32 i;

	for (i = 0; i < edit->nr_stale && !ret; i++) {
		chunk = vhdx_block_chunk(&edit->image->geo, edit->stale[i]);
		if (vhdx_bat_state(vc_edit_bitmap_block(edit, chunk)) == VHDX_BITMAP_PRESENT &&
		    vhdx_bat_state(vc_edit_block(edit, edit->stale[i])) !=
		    VHDX_BLOCK_PARTIALLY_PRESENT)
			ret = vc_edit_set_bits(edit, edit->stale[i] * nr, nr, false, err);
	}
	edit->nr_stale = 0;
	return ret;
}

int vc_edit_commit(struct vc_edit *edit, struct vc_err *err)
{
	int ret;

	if (edit->log.torn)
		return vc_error(err, EIO, edit->image->file.path,
				"an earlier change could not be put in place: run 'vhdclone recover %s'",
				edit->image->file.path);
	if (!edit->touched && !vc_edit_dirty(edit))
		return vc_file_sync(&edit->image->file, err);
	ret = vc_edit_headers(edit, err);
	if (!ret)
		ret = vc_edit_write(edit, err);
	if (ret)
		return ret;
	memset(edit->bat_dirty, 0, edit->nr_bat_pages * sizeof(bool));
	vc_bitmaps_drop(edit);
	vc_pages_drop(&edit->items);
	vc_edit_release(edit);
	return vc_edit_clear_stale(edit, err);
}

/* ---- begin and end -------------------------------------------------------------- */

static int vc_edit_load_bat(struct vc_edit *edit, struct vc_err *err)
{
	const struct vc_image *image = edit->image;
	u64 offset = image->regions.bat.offset;
	u64 bytes = 8ULL * image->geo.nr_entries;
	__le64 *raw;
	u64 left;
	u64 i;
	int ret;

	edit->nr_bat_pages = (bytes + VHDX_PAGE_SIZE - 1) / VHDX_PAGE_SIZE;
	bytes = (u64)edit->nr_bat_pages * VHDX_PAGE_SIZE;
	raw = calloc(1, bytes);
	edit->bat = calloc(1, bytes);
	edit->bat_dirty = calloc(edit->nr_bat_pages, sizeof(bool));
	edit->by_number = calloc((u64)image->geo.nr_chunks * VHDX_BITMAP_PAGES_PER_CHUNK,
				 sizeof(*edit->by_number));
	if (!raw || !edit->bat || !edit->bat_dirty || !edit->by_number) {
		free(raw);
		return vc_error_nomem(err);
	}
	/* The last page has more than the table, but not more than the file. */
	left = image->file.size - offset;
	ret = vc_file_read(&image->file, "BAT", offset, raw, bytes < left ? bytes : left, err);
	for (i = 0; !ret && i < bytes / 8; i++)
		edit->bat[i] = le64_to_cpu(raw[i]);
	free(raw);
	return ret;
}

/* An old writer may have cut the file behind the last block's data. */
static int vc_edit_claim_last(struct vc_edit *edit, struct vc_err *err)
{
	const struct vhdx_geometry *geo = &edit->image->geo;
	u64 entry = vc_edit_block(edit, geo->nr_blocks - 1);
	u64 end = vhdx_bat_mib(entry) + vhdx_block_mib(geo);
	int ret;

	if (!vc_entry_placed(entry) || end <= edit->claims.nr_mib)
		return 0;
	ret = vc_map_room(edit, end, err);
	if (ret)
		return ret;
	vc_map_set(edit, edit->claims.nr_mib, end - edit->claims.nr_mib, true);
	edit->claims.nr_mib = end;
	return 0;
}

int vc_edit_begin(struct vc_edit **result, struct vc_image *image, struct vc_err *err)
{
	struct vc_edit *edit = calloc(1, sizeof(*edit));
	struct vc_usage usage;
	int ret;

	*result = NULL;
	if (!edit)
		return vc_error_nomem(err);
	edit->image = image;
	edit->initial = image->file.size;
	edit->new_mib = (edit->initial + VHDX_MIB - 1) >> VHDX_MIB_SHIFT;
	memcpy(edit->place, image->items, sizeof(edit->place));
	ret = vc_image_walk(image, &usage, NULL, NULL, err);
	edit->claims = usage.claims;
	edit->room = (usage.claims.nr_mib / BITS_PER_LONG + 1) * BITS_PER_LONG;
	if (!ret)
		ret = vc_edit_load_bat(edit, err);
	if (!ret)
		ret = vc_edit_claim_last(edit, err);
	if (ret)
		vc_edit_abort(edit);
	else
		*result = edit;
	return ret;
}

static void vc_edit_destroy(struct vc_edit *edit)
{
	vc_bitmaps_drop(edit);
	vc_pages_drop(&edit->items);
	free(edit->by_number);
	free(edit->claims.map);
	free(edit->bat);
	free(edit->bat_dirty);
	free(edit->freed);
	free(edit->stale);
	free(edit);
}

/* Space was taken, and nothing was changed that names it. */
static int vc_edit_ungrow(struct vc_edit *edit, struct vc_err *err)
{
	struct vc_image *image = edit->image;
	int ret = 0;

	if (!image->file.is_block && image->file.size > edit->initial)
		ret = vc_file_resize(&image->file, edit->initial, err);
	image->size = image->file.size;
	return ret;
}

int vc_edit_end(struct vc_edit *edit, struct vc_err *err)
{
	bool open;
	u64 cut;
	int ret;

	do {
		ret = vc_edit_commit(edit, err);
	} while (!ret && vc_edit_dirty(edit));
	if (ret) {
		vc_edit_abort(edit);
		return ret;
	}
	open = edit->log.open;
	ret = vc_log_stop(&edit->log, err);
	if (!ret && open)
		ret = vc_image_trim(edit->image, &cut, err);
	else if (!ret)
		ret = vc_edit_ungrow(edit, err);
	vc_edit_destroy(edit);
	return ret;
}

void vc_edit_abort(struct vc_edit *edit)
{
	struct vc_image *image = edit->image;
	bool open = edit->log.open;
	bool torn = edit->log.torn;
	struct vc_err ignored;
	u64 cut;

	if (!vc_log_stop(&edit->log, &ignored) && !torn) {
		if (open)
			vc_image_trim(image, &cut, &ignored);
		else
			vc_edit_ungrow(edit, &ignored);
		image->size = image->file.size;
	}
	vc_edit_destroy(edit);
}
