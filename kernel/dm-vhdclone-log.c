// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-vhdclone: the write session, the commit and the VHDX log.
 *
 * What a commit must carry is BAT pages and sector bitmap pages, 4 KiB each.  BAT
 * pages are made from the block map when they are needed; bitmap pages live in
 * memory (-bitmap).  A change marks the pages it touches dirty.
 *
 * The commit, one at a time, under commit_lock:
 *
 *	1  Take the waiting flushes and FUA writes, then note dirty_seq.  All that
 *	   completed before they were issued is marked dirty already.
 *	2  Freeze the dirty BAT pages: copy each under the image's lock, lowest
 *	   index first, so that a block is never seen with its bitmap block missing.
 *	   Released blocks go from PENDING to FROZEN.
 *	3  Freeze the dirty bitmap pages, in the same way.  After the BAT pages: a
 *	   block that step 2 saw has its bitmap page on the list, or logged already.
 *	   If they do not fit, an entry of bitmap pages alone goes out first: bits
 *	   of a block that the BAT on disk does not call partial mean nothing, and
 *	   bits of one that it does were set by writes that completed.
 *	4  Write the entry in one step, PREFLUSH and FUA: the data, then the entry
 *	   are durable.  All BAT pages of a commit are in one entry, the last.
 *	   If the ring wraps: an explicit flush, then both parts with FUA.  The
 *	   entry's checksum makes it all or nothing.
 *	5  Complete the flushes and FUA writes.
 *	6  Keep the images.  They are written in place later, never before; a newer
 *	   image of a page replaces the older one only when its own entry is durable.
 *	7  FROZEN blocks are released: their bits, which mean nothing any more, are
 *	   cleared, for the next commit, if there is memory for their page; and their
 *	   space is handed to a work of its own that discards it on the device.  It is
 *	   not given to another block before the next resume, since bios to it may
 *	   still be in flight.  A write to such a block waits for this step.
 *	8  If the next entry might not fit (a), or memory is short, write all images
 *	   in place and wait for them.  Nobody waits for this step.
 *
 * The ring (steps 4 and 8):
 *
 *	a  One largest entry's room is kept free, besides a page.  If an entry would
 *	   need it, all images are written in place and waited for before.
 *	b  The first entry after such a write names itself as the tail.  Its PREFLUSH
 *	   makes the in-place writes durable before it can be.
 *	c  Only when that entry is durable the space before it is free.
 *
 *	An entry is smaller than a quarter of the smallest ring, so (a) always leaves
 *	room for it in front of the tail that a crash would see.
 *
 * The write session, from the first write after a resume to the suspend:
 *
 *	i   An empty entry with a new LogGuid and a random sequence number at the
 *	    log's start, flushed.  LogGuid in the headers is still zero, so that
 *	    whatever is in the log is ignored.
 *	ii  Both headers, the older one first, each flushed: this LogGuid, a new
 *	    FileWriteGuid, a new DataWriteGuid.  In the other order a crash would
 *	    leave a LogGuid without an entry, which nobody opens.
 *	iii Writes, commits.
 *	iv  Commit; all images in place.
 *	v   Both headers with LogGuid zero, each flushed.
 *
 * Any error in here sets the fail mode: nothing more is written, the log stays as
 * the last durable entry left it, and every flush from then on fails.
 */
#include "dm-vhdclone.h"

#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/random.h>
#include <linux/slab.h>

#define VC_COMMIT_PERIOD	HZ

/*
 * Half the log, but not less or more than this, may be dirty bitmap pages before a
 * write waits; half of that brings about a commit.  Commits that nobody asked for cost
 * the less the more writes share a page; fsync should not wait for too many pages.
 */
#define VC_MIN_DIRTY_PAGES	512U
#define VC_MAX_DIRTY_PAGES	4096U

/* Step 8 is due with so many images in memory, however large the log is. */
#define VC_MAX_IMAGES		8192UL

/**
 * struct vc_extent - released space to discard
 * @list: on vc->released
 * @mib: where it begins
 * @nr_mib: its length
 */
struct vc_extent {
	struct list_head list;
	u32 mib;
	u32 nr_mib;
};

static sector_t vc_log_sector(struct vhdclone *vc, u32 page)
{
	return (vc->header.log_offset >> SECTOR_SHIFT) + (sector_t)page * PAGE_SECTORS_4K;
}

static sector_t vc_bat_page_sector(struct vhdclone *vc, u32 index)
{
	return (vc->top->bat_region.offset >> SECTOR_SHIFT) +
	       (sector_t)index * PAGE_SECTORS_4K;
}

/* ---- modes ----------------------------------------------------------------- */

static const char * const vc_mode_names[] = {
	[VC_MODE_RW]		= VHDCLONE_MODE_RW,
	[VC_MODE_RO]		= VHDCLONE_MODE_RO,
	[VC_MODE_OUT_OF_SPACE]	= VHDCLONE_MODE_OUT_OF_SPACE,
	[VC_MODE_FAIL]		= VHDCLONE_MODE_FAIL,
};

void vc_set_mode(struct vhdclone *vc, enum vc_mode mode, const char *why)
{
	unsigned long flags;

	spin_lock_irqsave(&vc->top->lock, flags);
	/* Only a new table or a resume leads out of fail. */
	if (vc->mode == mode || vc->mode == VC_MODE_FAIL) {
		spin_unlock_irqrestore(&vc->top->lock, flags);
		return;
	}
	WRITE_ONCE(vc->mode, mode);
	if (mode == VC_MODE_FAIL) {
		WRITE_ONCE(vc->gate, VC_GATE_REFUSE);
		/* Others may share what is read-only. */
		vc->top->keep_pages = !vc->read_only;
	}
	spin_unlock_irqrestore(&vc->top->lock, flags);

	DMERR("%s: switching to %s mode: %s", vc_name(vc), vc_mode_names[mode], why);
	queue_work(vc->wq, &vc->event_work);
}

static int vc_fail(struct vhdclone *vc, const char *what, int r)
{
	DMERR("%s: %s: error %d", vc_name(vc), what, r);
	atomic_inc(&vc->errors);
	vc_set_mode(vc, VC_MODE_FAIL, what);
	return r;
}

/* ---- marking: under top->lock ------------------------------------------------- */

static void vc_touch(struct vhdclone *vc)
{
	bool was_clean = vc->dirty_seq == READ_ONCE(vc->durable_seq);

	WRITE_ONCE(vc->dirty_seq, vc->dirty_seq + 1);
	if (was_clean)
		queue_delayed_work(vc->wq, &vc->timer, VC_COMMIT_PERIOD);
}

static void vc_dirty_bat_index(struct vhdclone *vc, u32 index)
{
	u32 page = index / VHDX_BAT_ENTRIES_PER_PAGE;

	vc_touch(vc);
	if (__test_and_set_bit(page, vc->bat_dirty))
		return;
	WRITE_ONCE(vc->nr_bat_dirty, vc->nr_bat_dirty + 1);
	WARN_ON_ONCE(vc->nr_bat_dirty > VC_BAT_PAGES);
	if (vc->nr_bat_dirty == VC_BAT_PAGES / 2)
		vc_commit_kick(vc);
}

void vc_dirty_bat(struct vhdclone *vc, u32 block)
{
	vc_dirty_bat_index(vc, vhdx_bat_payload_index(&vc->top->geo, block));
}

void vc_dirty_bitmap_entry(struct vhdclone *vc, u32 chunk)
{
	vc_dirty_bat_index(vc, vhdx_bat_bitmap_index(&vc->top->geo, chunk));
}

void vc_dirty_page_first(struct vhdclone *vc, struct vc_page *page)
{
	vc_touch(vc);
	if (page->dirty)
		return;
	WRITE_ONCE(page->dirty, true);
	list_add_tail(&page->dirty_list, &vc->dirty_pages);
	WRITE_ONCE(vc->nr_dirty_pages, vc->nr_dirty_pages + 1);
	if (vc->nr_dirty_pages == vc->max_dirty_pages / 2)
		vc_commit_kick(vc);
}

void vc_commit_kick(struct vhdclone *vc)
{
	queue_work(vc->wq, &vc->commit_work);
}

void vc_commit_add_waiter(struct vhdclone *vc, struct bio *bio)
{
	unsigned long flags;

	vc_count(vc, VC_STAT_FLUSHES);
	spin_lock_irqsave(&vc->queue_lock, flags);
	bio_list_add(&vc->flushes, bio);
	spin_unlock_irqrestore(&vc->queue_lock, flags);
	vc_commit_kick(vc);
}

/* ---- in place -------------------------------------------------------------------- */

/* Step 8: all images in place, and waited for; not flushed. */
static int vc_apply(struct vhdclone *vc)
{
	struct vc_image *top = vc->top;
	struct vc_page *page, *tmp;
	struct vc_batch batch;
	struct blk_plug plug;
	unsigned long index;
	u64 written = 0;
	int r;

	vc_batch_init(&batch);
	blk_start_plug(&plug);
	for_each_set_bit(index, vc->bat_logged, vc->nr_bat_pages) {
		vc_batch_add(&batch, &top->bs, top->bdev, REQ_OP_WRITE | REQ_META,
			     vc_bat_page_sector(vc, index), &vc->bat_images[index], 1);
		written++;
	}
	list_for_each_entry(page, &vc->logged_pages, logged_list) {
		vc_batch_add(&batch, &top->bs, top->bdev, REQ_OP_WRITE | REQ_META,
			     vc_page_place(top, page->index), &page->image, 1);
		written++;
	}
	blk_finish_plug(&plug);
	r = vc_batch_wait(&batch);
	if (r)
		return vc_fail(vc, "cannot write metadata in place", r);

	for_each_set_bit(index, vc->bat_logged, vc->nr_bat_pages) {
		__free_page(vc->bat_images[index]);
		vc->bat_images[index] = NULL;
		__clear_bit(index, vc->bat_logged);
	}
	list_for_each_entry_safe(page, tmp, &vc->logged_pages, logged_list) {
		struct page *image = page->image;

		list_del_init(&page->logged_list);
		/* After this the shrinker may take the page. */
		spin_lock_irq(&top->lock);
		page->image = NULL;
		spin_unlock_irq(&top->lock);
		__free_page(image);
	}
	vc->nr_images = 0;
	vc->all_in_place = true;
	WRITE_ONCE(vc->want_in_place, false);
	atomic64_add(written, &vc->stats[VC_STAT_IN_PLACE]);
	vc_count(vc, VC_STAT_CHECKPOINTS);
	return 0;
}

/*
 * Step 6 for one slot: its page becomes the image.  If there is no memory for a new
 * slot page, the image is written in place at once: its entry is durable.
 */
static int vc_keep_image(struct vhdclone *vc, unsigned int slot)
{
	struct vc_page *page = vc->slot_info[slot].page;
	u32 index = vc->slot_info[slot].bat_index;
	struct page **image = page ? &page->image : &vc->bat_images[index];
	struct page *spare = *image;
	int r = 0;

	if (!spare)
		spare = alloc_page(VC_GFP_TRY);
	if (spare) {
		bool first = !*image;

		spin_lock_irq(&vc->top->lock);
		*image = vc->slots[slot];
		spin_unlock_irq(&vc->top->lock);
		vc->slots[slot] = spare;
		vc->nr_images += first;
		if (first && page)
			list_add_tail(&page->logged_list, &vc->logged_pages);
		else if (first)
			__set_bit(index, vc->bat_logged);
	} else {
		r = vc_write_page(vc->top->bdev,
				  page ? vc_page_place(vc->top, page->index) :
					 vc_bat_page_sector(vc, index),
				  vc->slots[slot], 0);
		if (r)
			vc_fail(vc, "cannot write metadata in place", r);
	}
	if (page)
		vc_page_unpin(page);
	return r;
}

/* Pages of the ring that may be in use after an entry (a). */
static u32 vc_log_limit(struct vhdclone *vc)
{
	return vc->log_pages - 1 - (1 + VC_ENTRY_PAGES);
}

/* ---- log entries --------------------------------------------------------------------- */

static int vc_log_submit(struct vhdclone *vc, struct page **pages, u32 nr)
{
	struct vc_image *top = vc->top;
	u32 first = min(nr, vc->log_pages - vc->log_head);
	blk_opf_t opf = REQ_OP_WRITE | REQ_META | REQ_SYNC | REQ_FUA;
	struct vc_batch batch;

	if (first == nr) {
		opf |= REQ_PREFLUSH;
	} else {
		int r = compat_blkdev_issue_flush(top->bdev);

		if (r)
			return r;
	}

	vc_batch_init(&batch);
	vc_batch_add(&batch, &top->bs, top->bdev, opf,
		     vc_log_sector(vc, vc->log_head), pages, first);
	if (first < nr)
		vc_batch_add(&batch, &top->bs, top->bdev, opf, vc_log_sector(vc, 0),
			     pages + first, nr - first);
	return vc_batch_wait(&batch);
}

/*
 * Write one entry with the images in slots [first, first + nr), wait until it is
 * durable, then keep the images.
 */
static int vc_log_write(struct vhdclone *vc, unsigned int first, unsigned int nr)
{
	struct vhdx_log_entry_header *header = page_address(vc->slots[0]);
	struct vhdx_log_data_descriptor *desc = (void *)(header + 1);
	u64 capacity = (u64)vc->top->space.nr_mib << VHDX_MIB_SHIFT;
	struct vhdx_log_entry_info info = {
		.entry_length = vhdx_log_entry_bytes(nr, nr),
		.descriptor_count = nr,
		.log_guid = vc->header.log_guid,
		.flushed_file_offset = capacity,
		.last_file_offset = capacity,
	};
	struct page *pages[1 + VC_ENTRY_PAGES];
	u32 needed = nr + 1, tail = vc->log_tail, used = vc->log_used;
	unsigned int i;
	u32 crc;
	int r;

	if (used + needed > vc_log_limit(vc) && !vc->all_in_place) {
		r = vc_apply(vc);			/* a */
		if (r)
			goto fail;
	}
	if (vc->all_in_place) {				/* b */
		tail = vc->log_head;
		used = 0;
	}

	info.tail = tail * VHDX_LOG_SECTOR;
	info.sequence_number = vc->log_sequence + 1;
	memset(header, 0, VHDX_LOG_SECTOR);
	vhdx_log_entry_build(header, &info);
	pages[0] = vc->slots[0];
	for (i = 0; i < nr; i++) {
		struct vc_slot *slot = &vc->slot_info[first + i];
		sector_t place = slot->page ?
				 vc_page_place(vc->top, slot->page->index) :
				 vc_bat_page_sector(vc, slot->bat_index);

		pages[1 + i] = vc->slots[first + i];
		vhdx_log_data_pack(page_address(pages[1 + i]), &desc[i],
				   (u64)place << SECTOR_SHIFT, info.sequence_number);
	}
	crc = ~0U;
	for (i = 0; i < needed; i++)
		crc = vhdx_crc32c_step(crc, page_address(pages[i]), VHDX_LOG_SECTOR);
	vhdx_log_entry_seal(header, crc);

	r = vc_log_submit(vc, pages, needed);
	if (r) {
		vc_fail(vc, "cannot write the log", r);
		goto fail;
	}

	vc->log_sequence = info.sequence_number;
	WRITE_ONCE(vc->log_used, used + needed);	/* c */
	vc->log_tail = tail;
	vc->all_in_place = false;
	vc->log_head = (vc->log_head + needed) % vc->log_pages;
	vc_count(vc, VC_STAT_LOG_ENTRIES);
	atomic64_add(nr, &vc->stats[VC_STAT_LOG_PAGES]);

	for (i = 0; i < nr; i++)
		vhdx_log_data_unpack(page_address(pages[1 + i]), &desc[i]);
	return 0;
fail:
	for (i = 0; i < nr; i++)
		if (vc->slot_info[first + i].page)
			vc_page_unpin(vc->slot_info[first + i].page);
	return r;
}

static int vc_keep_images(struct vhdclone *vc, unsigned int first, unsigned int nr)
{
	unsigned int i;
	int r = 0;

	for (i = first; i < first + nr; i++) {
		int r2 = vc_keep_image(vc, i);

		r = r ? r : r2;
	}
	return r;
}

/* ---- the commit --------------------------------------------------------------------------- */

/* Under top->lock. */
static u64 vc_freeze_entry(struct vhdclone *vc, u32 block)
{
	u32 *slot = &vc->top->map[block];
	u32 entry = *slot, mib = vc_entry_mib(entry);

	switch (vc_entry_state(entry)) {
	case VC_FULL:
		return vhdx_bat_entry(VHDX_BLOCK_FULLY_PRESENT, mib);
	case VC_PARTIAL:
		return vhdx_bat_entry(VHDX_BLOCK_PARTIALLY_PRESENT, mib);
	case VC_DROP_PENDING:
		WRITE_ONCE(*slot, vc_entry(VC_DROP_FROZEN, mib));
		vc->nr_frozen++;
		return vhdx_bat_entry(VHDX_BLOCK_NOT_PRESENT, 0);
	case VC_ABSENT:
	case VC_DROP_FROZEN:
		return vhdx_bat_entry(VHDX_BLOCK_NOT_PRESENT, 0);
	case VC_ZERO_PENDING:
		WRITE_ONCE(*slot, vc_entry(VC_ZERO_FROZEN, mib));
		vc->nr_frozen++;
		fallthrough;
	case VC_ZERO:
	case VC_ZERO_FROZEN:
		break;
	}
	return vhdx_bat_entry(VHDX_BLOCK_ZERO, 0);
}

/* One BAT page from the map, under top->lock. */
static void vc_freeze_bat_page(struct vhdclone *vc, u32 index, __le64 *out)
{
	const struct vhdx_geometry *geo = &vc->top->geo;
	u32 first = index * VHDX_BAT_ENTRIES_PER_PAGE;
	u32 chunk = vhdx_bat_chunk(geo, first);
	u32 i;

	for (i = first; i < first + VHDX_BAT_ENTRIES_PER_PAGE; i++) {
		u64 entry = 0;

		if (i >= geo->nr_entries) {
			/* behind the table */
		} else if (vhdx_bat_is_bitmap(geo, i, chunk)) {
			u32 mib = vc->top->bitmaps[chunk];

			if (mib)
				entry = vhdx_bat_entry(VHDX_BITMAP_PRESENT, mib);
			chunk++;
		} else if (i - chunk < geo->nr_blocks) {
			entry = vc_freeze_entry(vc, i - chunk);
		}
		*out++ = cpu_to_le64(entry);
	}
}

/*
 * Step 2.  The count goes down only at the end, so that the walk, which also finds
 * what is marked in front of it meanwhile, does not find more than fits.
 *
 * Return: the number of slots used, or -EOVERFLOW.
 */
static int vc_freeze_bat(struct vhdclone *vc)
{
	unsigned long index;
	unsigned int nr = 0;

	for_each_set_bit(index, vc->bat_dirty, vc->nr_bat_pages) {
		if (WARN_ON_ONCE(nr == VC_BAT_PAGES))
			return -EOVERFLOW;
		nr++;
		vc->slot_info[nr].page = NULL;
		vc->slot_info[nr].bat_index = index;
		spin_lock_irq(&vc->top->lock);
		__clear_bit(index, vc->bat_dirty);
		vc_freeze_bat_page(vc, index, page_address(vc->slots[nr]));
		spin_unlock_irq(&vc->top->lock);
	}
	spin_lock_irq(&vc->top->lock);
	WRITE_ONCE(vc->nr_bat_dirty, vc->nr_bat_dirty - nr);
	spin_unlock_irq(&vc->top->lock);
	return nr;
}

/* Step 3: as many of @pages as slots from @first on.  Return: their number. */
static unsigned int vc_freeze_pages(struct vhdclone *vc, struct list_head *pages,
				    unsigned int first)
{
	unsigned int nr = 0;

	while (first + nr <= VC_ENTRY_PAGES) {
		struct vc_page *page;

		spin_lock_irq(&vc->top->lock);
		page = list_first_entry_or_null(pages, struct vc_page, dirty_list);
		if (!page) {
			spin_unlock_irq(&vc->top->lock);
			break;
		}
		list_del_init(&page->dirty_list);
		WRITE_ONCE(page->dirty, false);
		WRITE_ONCE(vc->nr_dirty_pages, vc->nr_dirty_pages - 1);
		/* It stays until its image is kept; it is not being evicted. */
		atomic_inc(&page->pins);
		memcpy(page_address(vc->slots[first + nr]), page->bits, VHDX_PAGE_SIZE);
		spin_unlock_irq(&vc->top->lock);

		vc->slot_info[first + nr].page = page;
		nr++;
	}
	return nr;
}

void vc_discard_work(struct work_struct *work)
{
	struct vhdclone *vc = container_of(work, struct vhdclone, discard_work);
	struct vc_extent *extent, *tmp;
	LIST_HEAD(released);

	spin_lock_irq(&vc->queue_lock);
	list_splice_init(&vc->released, &released);
	spin_unlock_irq(&vc->queue_lock);
	list_for_each_entry_safe(extent, tmp, &released, list) {
		compat_blkdev_issue_discard(vc->top->bdev, vc_mib_to_sector(extent->mib),
					    vc_mib_to_sector(extent->nr_mib), GFP_NOIO);
		vc_count(vc, VC_STAT_PASSDOWNS);
		kfree(extent);
	}
}

/*
 * Step 7 for one block's space.  Without memory its discard is left out: the space is
 * free all the same after the next resume.
 */
static void vc_release_space(struct vhdclone *vc, struct list_head *released, u32 mib)
{
	struct vc_extent *extent = list_empty(released) ? NULL :
				   list_last_entry(released, struct vc_extent, list);
	u32 nr_mib = vc->top->space.run;

	if (!vc->discard_passdown)
		return;
	if (extent && extent->mib + extent->nr_mib == mib) {
		extent->nr_mib += nr_mib;
	} else if (extent && mib + nr_mib == extent->mib) {
		extent->mib = mib;
		extent->nr_mib += nr_mib;
	} else {
		extent = kmalloc(sizeof(*extent), VC_GFP_TRY);
		if (!extent)
			return;
		extent->mib = mib;
		extent->nr_mib = nr_mib;
		list_add_tail(&extent->list, released);
	}
}

/*
 * Step 7 for one block's bits.  They mean nothing any more, but there are readers that
 * look at them whatever the BAT says.  Not before: of a block that the BAT on disk
 * still calls partial, they mean something.
 *
 * Return: false: there is no memory for their page; they stay.
 */
static bool vc_release_bits(struct vhdclone *vc, u32 block)
{
	struct vc_image *top = vc->top;
	sector_t sector = (sector_t)block << top->block_shift;
	sector_t end = ((sector_t)block + 1) << top->block_shift;

	if (!vc->differencing || !top->bitmaps[vhdx_block_chunk(&top->geo, block)])
		return true;
	while (sector < end) {
		struct vc_page *page = vc_page_get(top, vc_page_index(top, sector), false);
		sector_t nr = min(end - sector, 1ULL << top->page_shift);
		u32 first = vc_page_bit(top, sector);
		u32 last = first + (nr >> top->lss_shift);
		enum vc_state state;

		if (IS_ERR(page))
			return page != ERR_PTR(-EBUSY);
		spin_lock_irq(&top->lock);
		state = vc_entry_state(top->map[block]);
		if ((state == VC_ABSENT || state == VC_ZERO) &&
		    find_next_bit_le(page->bits, last, first) < last) {
			vc_bits_clear(page, first, last - first);
			vc_dirty_page(vc, page);
		}
		spin_unlock_irq(&top->lock);
		vc_page_unpin(page);
		sector += nr;
	}
	return true;
}

/* Step 7 for the BAT pages in the first @nr_bat slots. */
static void vc_release(struct vhdclone *vc, unsigned int nr_bat)
{
	LIST_HEAD(released);
	struct vc_image *top = vc->top;
	const struct vhdx_geometry *geo = &top->geo;
	bool memory = true;
	unsigned int i;
	u32 index;

	for (i = 1; i <= nr_bat && vc->nr_frozen; i++) {
		u32 first = vc->slot_info[i].bat_index * VHDX_BAT_ENTRIES_PER_PAGE;
		u32 end = min(first + VHDX_BAT_ENTRIES_PER_PAGE, geo->nr_entries);

		for (index = first; index < end && vc->nr_frozen; index++) {
			u32 chunk = vhdx_bat_chunk(geo, index);
			u32 block = index - chunk;
			enum vc_state state;
			u32 entry;

			if (vhdx_bat_is_bitmap(geo, index, chunk) || block >= geo->nr_blocks)
				continue;
			entry = READ_ONCE(top->map[block]);
			state = vc_entry_state(entry);
			if (state != VC_DROP_FROZEN && state != VC_ZERO_FROZEN)
				continue;
			spin_lock_irq(&top->lock);
			WRITE_ONCE(top->map[block],
				   vc_entry(state == VC_DROP_FROZEN ? VC_ABSENT : VC_ZERO, 0));
			vc->nr_frozen--;
			spin_unlock_irq(&top->lock);
			vc_release_space(vc, &released, vc_entry_mib(entry));
			memory = memory && vc_release_bits(vc, block);
			cond_resched();
		}
	}
	if (list_empty(&released))
		return;
	spin_lock_irq(&vc->queue_lock);
	list_splice_tail(&released, &vc->released);
	spin_unlock_irq(&vc->queue_lock);
	queue_work(vc->wq, &vc->discard_work);
}

static int vc_flush(struct vhdclone *vc)
{
	int r = compat_blkdev_issue_flush(vc->top->bdev);

	return r ? vc_fail(vc, "cannot flush the device", r) : 0;
}

static void vc_end_waiters(struct bio_list *waiters, int r)
{
	struct bio *bio;

	while ((bio = bio_list_pop(waiters))) {
		if (r)
			bio->bi_status = BLK_STS_IOERR;
		bio_endio(bio);
	}
}

/* Steps 2 to 7; completes the waiters, with an error if there was one. */
static int vc_commit_dirty(struct vhdclone *vc, u64 seq, struct bio_list *waiters)
{
	unsigned int nr_bat, nr_pages;
	LIST_HEAD(pages);
	int r;

	r = vc_freeze_bat(vc);				/* 2 */
	if (r < 0) {
		vc_fail(vc, "more dirty BAT pages than a log entry holds", r);
		goto fail;
	}
	nr_bat = r;

	spin_lock_irq(&vc->top->lock);
	list_splice_init(&vc->dirty_pages, &pages);
	spin_unlock_irq(&vc->top->lock);
	for (;;) {					/* 3 */
		bool more;

		nr_pages = vc_freeze_pages(vc, &pages, 1 + nr_bat);
		spin_lock_irq(&vc->top->lock);
		more = !list_empty(&pages);
		spin_unlock_irq(&vc->top->lock);
		if (!more)
			break;
		r = vc_log_write(vc, 1 + nr_bat, nr_pages);
		if (!r)
			r = vc_keep_images(vc, 1 + nr_bat, nr_pages);
		if (r)
			goto fail;
	}

	/* Nothing is left if the commit before took it along: then only flush. */
	if (nr_bat + nr_pages)
		r = vc_log_write(vc, 1, nr_bat + nr_pages);	/* 4 */
	else
		r = vc_flush(vc);
	if (r)
		goto fail;
	/* Either vc_touch() sees this, or whoever asks next whether all is clean that. */
	spin_lock_irq(&vc->top->lock);
	WRITE_ONCE(vc->durable_seq, seq);
	spin_unlock_irq(&vc->top->lock);
	vc_count(vc, VC_STAT_COMMITS);
	vc_end_waiters(waiters, 0);			/* 5 */

	r = vc_keep_images(vc, 1, nr_bat + nr_pages);	/* 6 */
	vc_release(vc, nr_bat);				/* 7 */
	return r;

fail:
	/* Still dirty, so that every later flush ends up here too. */
	spin_lock_irq(&vc->top->lock);
	list_splice(&pages, &vc->dirty_pages);
	spin_unlock_irq(&vc->top->lock);
	vc_end_waiters(waiters, r);
	return r;
}

static bool vc_in_place_is_due(struct vhdclone *vc)
{
	if (!vc->session || vc->all_in_place)
		return false;
	return vc->log_used + 1 + VC_ENTRY_PAGES > vc_log_limit(vc) ||
	       vc->nr_images > VC_MAX_IMAGES || READ_ONCE(vc->want_in_place);
}

static int vc_commit_locked(struct vhdclone *vc)
{
	struct bio_list waiters;
	bool again;
	u64 seq;
	int r;

	spin_lock_irq(&vc->queue_lock);			/* 1 */
	waiters = vc->flushes;
	bio_list_init(&vc->flushes);
	spin_unlock_irq(&vc->queue_lock);
	spin_lock_irq(&vc->top->lock);
	seq = vc->dirty_seq;
	spin_unlock_irq(&vc->top->lock);

	if (READ_ONCE(vc->mode) == VC_MODE_FAIL) {
		r = -EIO;
		vc_end_waiters(&waiters, r);
	} else if (seq != vc->durable_seq) {
		r = vc_commit_dirty(vc, seq, &waiters);
	} else {
		r = 0;
		if (!bio_list_empty(&waiters))
			r = vc_flush(vc);
		vc_end_waiters(&waiters, r);
	}

	spin_lock_irq(&vc->queue_lock);
	again = !bio_list_empty(&vc->after_commit);
	bio_list_merge(&vc->deferred, &vc->after_commit);
	bio_list_init(&vc->after_commit);
	spin_unlock_irq(&vc->queue_lock);
	if (again)
		queue_work(vc->wq, &vc->io_work);
	if (!r && vc_is_dirty(vc))
		queue_delayed_work(vc->wq, &vc->timer, VC_COMMIT_PERIOD);
	if (!r && vc_in_place_is_due(vc))
		r = vc_apply(vc);			/* 8 */
	/* What became dirty meanwhile passed the mark unseen. */
	if (!r && vc->session &&
	    (READ_ONCE(vc->nr_dirty_pages) >= vc->max_dirty_pages / 2 ||
	     READ_ONCE(vc->nr_bat_dirty) >= VC_BAT_PAGES / 2))
		vc_commit_kick(vc);
	return r;
}

int vc_commit(struct vhdclone *vc)
{
	int r;

	mutex_lock(&vc->commit_lock);
	r = vc->top ? vc_commit_locked(vc) : -EBUSY;
	mutex_unlock(&vc->commit_lock);
	return r;
}

int vc_sync(struct vhdclone *vc)
{
	int r;

	mutex_lock(&vc->commit_lock);
	if (!vc->top)
		r = -EBUSY;
	else if (vc->session && vc_is_dirty(vc))
		r = vc_commit_locked(vc);
	else
		r = vc->mode == VC_MODE_FAIL ? -EIO : vc_flush(vc);
	mutex_unlock(&vc->commit_lock);
	return r;
}

/* ---- the write session ---------------------------------------------------- */

/* Both copies, the older one first, each durable before the next. */
static int vc_write_headers(struct vhdclone *vc)
{
	unsigned int i;

	for (i = 0; i < 2; i++) {
		struct vhdx_header_info next = vc->header;
		int r;

		next.slot = !next.slot;
		next.sequence_number++;
		vhdx_header_build(page_address(vc->slots[0]), &next);
		r = vc_write_page(vc->top->bdev,
				  vhdx_header_offset(next.slot) >> SECTOR_SHIFT,
				  vc->slots[0], REQ_PREFLUSH | REQ_FUA);
		if (r)
			return r;
		vc->header = next;
	}
	return 0;
}

static void vc_new_guid(struct vhdx_guid *guid)
{
	guid_t new;

	guid_gen(&new);
	export_guid(guid->b, &new);
}

static int vc_alloc_slots(struct vhdclone *vc)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(vc->slots); i++) {
		if (!vc->slots[i])
			vc->slots[i] = alloc_page(VC_GFP_LAST);
		if (!vc->slots[i])
			return -EBUSY;
	}
	return 0;
}

static void vc_free_slots(struct vhdclone *vc)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(vc->slots); i++) {
		if (vc->slots[i])
			__free_page(vc->slots[i]);
		vc->slots[i] = NULL;
	}
}

/*
 * Is the image still what was loaded?  Another loop device over the same file, or
 * another host, is not known to the registry.
 */
static int vc_session_check(struct vhdclone *vc)
{
	void *h1 = page_address(vc->slots[0]), *h2 = page_address(vc->slots[1]);
	struct block_device *bdev = vc->top->bdev;
	struct vhdx_header_info now;
	struct vhdx_fault fault;
	int r;

	r = vc_read(bdev, VHDX_HEADER1_OFFSET >> SECTOR_SHIFT, h1, VHDX_HEADER_SIZE);
	if (!r)
		r = vc_read(bdev, VHDX_HEADER2_OFFSET >> SECTOR_SHIFT, h2, VHDX_HEADER_SIZE);
	if (r)
		return vc_fail(vc, "cannot read the headers", r);
	r = vhdx_header_parse(h1, h2, &now, &fault);
	if (!r && (now.sequence_number != vc->header.sequence_number || now.log_dirty ||
		   !vhdx_guid_equal(&now.file_write_guid, &vc->header.file_write_guid)))
		r = -ESTALE;
	return r ? vc_fail(vc, "the image was changed by somebody else since it was loaded", r) : 0;
}

static int vc_session_write(struct vhdclone *vc)
{
	struct vhdx_header_info before = vc->header;
	int r;

	r = vc_alloc_slots(vc);
	if (!r)
		r = vc_session_check(vc);
	if (r)
		return r;

	vc_new_guid(&vc->header.log_guid);
	vc->log_pages = vc->header.log_length / VHDX_LOG_SECTOR;
	vc->log_head = 0;
	vc->log_tail = 0;
	WRITE_ONCE(vc->log_used, 0);
	vc->all_in_place = true;
	/* Far from the end of its range, and what is left is not zero. */
	get_random_bytes(&vc->log_sequence, sizeof(vc->log_sequence));
	vc->log_sequence = (vc->log_sequence >> 2) + 1;

	r = vc_log_write(vc, 1, 0);			/* i */
	if (r) {
		vc->header = before;
		return r;
	}

	vc->header.log_dirty = true;			/* ii */
	vc_new_guid(&vc->header.file_write_guid);
	vc_new_guid(&vc->header.data_write_guid);
	r = vc_write_headers(vc);
	if (r)
		return vc_fail(vc, "cannot write a header", r);
	return 0;
}

int vc_session_start(struct vhdclone *vc)
{
	int r = 0;

	mutex_lock(&vc->commit_lock);
	if (READ_ONCE(vc->gate) == VC_GATE_REFUSE) {
		r = -EIO;
	} else if (!vc->session) {
		r = vc_session_write(vc);
		if (!r) {
			vc->session = true;
			spin_lock_irq(&vc->top->lock);
			if (vc->gate == VC_GATE_CLOSED)
				WRITE_ONCE(vc->gate, VC_GATE_OPEN);
			spin_unlock_irq(&vc->top->lock);
		}
	}
	mutex_unlock(&vc->commit_lock);
	return r;
}

void vc_session_end(struct vhdclone *vc)
{
	int r;

	mutex_lock(&vc->commit_lock);
	if (!vc->session || vc->mode == VC_MODE_FAIL)
		goto out;

	do						/* iv */
		r = vc_commit_locked(vc);
	while (!r && vc_is_dirty(vc));
	if (!r)
		r = vc_apply(vc);
	if (r)
		goto out;

	vc->header.log_guid = vhdx_guid_zero;		/* v */
	vc->header.log_dirty = false;
	r = vc_write_headers(vc);
	if (r)
		vc_fail(vc, "cannot write a header", r);
out:
	vc->session = false;
	mutex_unlock(&vc->commit_lock);
}

/* ---- memory ---------------------------------------------------------------- */

static void vc_log_reclaim(void *data)
{
	struct vhdclone *vc = data;

	WRITE_ONCE(vc->want_in_place, true);
	vc_commit_kick(vc);
}

int vc_log_init(struct vhdclone *vc)
{
	struct vc_image *top = vc->top;

	vc->nr_bat_pages = DIV_ROUND_UP(top->geo.nr_entries, VHDX_BAT_ENTRIES_PER_PAGE);
	vc->bat_dirty = kvcalloc(BITS_TO_LONGS(vc->nr_bat_pages), sizeof(long), GFP_KERNEL);
	vc->bat_logged = kvcalloc(BITS_TO_LONGS(vc->nr_bat_pages), sizeof(long), GFP_KERNEL);
	vc->bat_images = kvcalloc(vc->nr_bat_pages, sizeof(*vc->bat_images), GFP_KERNEL);
	if (!vc->bat_dirty || !vc->bat_logged || !vc->bat_images) {
		vc_log_exit(vc);
		return -ENOMEM;
	}
	vc->header = top->header;
	vc->log_pages = vc->header.log_length / VHDX_LOG_SECTOR;
	vc->log_used = 0;
	vc->max_dirty_pages = clamp(vc->log_pages / 2, VC_MIN_DIRTY_PAGES,
				    VC_MAX_DIRTY_PAGES);
	vc->nr_bat_dirty = 0;
	vc->nr_dirty_pages = 0;
	vc->nr_frozen = 0;
	vc->nr_images = 0;
	vc->all_in_place = true;
	vc->want_in_place = false;
	vc->durable_seq = vc->dirty_seq;
	INIT_LIST_HEAD(&vc->dirty_pages);
	INIT_LIST_HEAD(&vc->logged_pages);
	top->reclaim_data = vc;
	top->reclaim = vc_log_reclaim;
	return 0;
}

void vc_log_exit(struct vhdclone *vc)
{
	struct vc_page *page, *tmp;
	unsigned long index;

	if (vc->bat_logged && vc->bat_images)
		for_each_set_bit(index, vc->bat_logged, vc->nr_bat_pages)
			__free_page(vc->bat_images[index]);
	if (vc->top->reclaim) {
		spin_lock_irq(&vc->top->lock);
		vc->top->reclaim = NULL;
		spin_unlock_irq(&vc->top->lock);
		list_for_each_entry_safe(page, tmp, &vc->logged_pages, logged_list) {
			list_del_init(&page->logged_list);
			__free_page(page->image);
			page->image = NULL;
		}
	}
	kvfree(vc->bat_dirty);
	kvfree(vc->bat_logged);
	kvfree(vc->bat_images);
	vc->bat_dirty = NULL;
	vc->bat_logged = NULL;
	vc->bat_images = NULL;
	vc_free_slots(vc);
}
