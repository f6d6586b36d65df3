// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-vhdclone: where a bio goes.
 *
 * map() looks up and remaps.  It takes a lock only to give a block its place; it
 * never sleeps, waits for memory, or does I/O of its own.  What needs any of these
 * goes to the worker: a bitmap page that is not in memory, the first write of a
 * session, the first block in a chunk, a block that must be zero-filled, whole
 * blocks to release, and writes that wait for a commit.  No bio waits for space or
 * for a message, so a suspend ends.
 *
 * A write to sectors that are not present yet goes to the block's place in the
 * delta at once; nothing is copied and nothing read.  When it completed, its bits
 * are set and the page is dirty: so bits never name data that is not on the device.
 *
 * Space is never given to another block while the image is active.  So a bio that
 * was mapped to a place which a discard released meanwhile does no harm there, and
 * its completion sees that the map entry changed and leaves the bits alone.
 */
#include "dm-vhdclone.h"

#include <linux/sched.h>
#include <linux/slab.h>

enum vc_verdict {
	VC_MAPPED,
	VC_WORKER,
};

static u32 vc_block_of(struct vhdclone *vc, sector_t sector)
{
	return sector >> vc->top->block_shift;
}

static int vc_end(struct bio *bio, blk_status_t status)
{
	bio->bi_status = status;
	bio_endio(bio);
	return DM_MAPIO_SUBMITTED;
}

static void vc_queue(struct vhdclone *vc, struct bio_list *list, struct bio *bio)
{
	unsigned long flags;

	spin_lock_irqsave(&vc->queue_lock, flags);
	bio_list_add(list, bio);
	spin_unlock_irqrestore(&vc->queue_lock, flags);
}

/* To the worker.  Nobody polls for the bio there, and it may block there. */
static int vc_defer(struct vhdclone *vc, struct bio *bio)
{
	bio->bi_opf &= ~REQ_NOWAIT;
	compat_bio_clear_polled(bio);
	vc_count(vc, VC_STAT_DEFERRED);
	vc_queue(vc, &vc->deferred, bio);
	queue_work(vc->wq, &vc->io_work);
	return DM_MAPIO_SUBMITTED;
}

/* ---- changes of the map: under top->lock ------------------------------------- */

static inline s64 vc_take(struct vhdclone *vc, u32 nr_mib)
{
	struct vc_space *space = &vc->top->space;
	s64 mib = vc_space_take(space, nr_mib);

	WRITE_ONCE(vc->nr_free_mib, space->nr_free);
	if (vc->has_low_water && !vc->low_water_hit &&
	    space->nr_free < vc->low_water_blocks * space->run) {
		vc->low_water_hit = true;
		queue_work(vc->wq, &vc->event_work);
	}
	return mib;
}

/*
 * Publish a map entry.  Dirty first: who sees the entry and asks vc_is_dirty() must
 * not be told that it is durable.  Also pairs with vc_partial_lookup().
 */
static void vc_set_entry(struct vhdclone *vc, u32 block, u32 entry)
{
	vc_dirty_bat(vc, block);
	/* dirty_seq, and bits that were cleared, before the entry */
	smp_wmb();
	WRITE_ONCE(vc->top->map[block], entry);
}

/*
 * Give an absent block a place: PARTIALLY_PRESENT with no bits set.  A part of @page
 * is the block's, or the page a part of the block's.
 *
 * Return: 0; -EAGAIN after somebody else's change or with too much dirty; -ENOSPC.
 */
static noinline int vc_alloc(struct vhdclone *vc, u32 block, struct vc_page *page)
{
	struct vc_image *top = vc->top;
	u32 first = vc_block_bit(top, block), nr = vc_block_bits(top);
	s64 mib;

	if (vc_entry_state(top->map[block]) != VC_ABSENT || vc_bat_is_full(vc))
		return -EAGAIN;
	mib = vc_take(vc, top->space.run);
	if (mib < 0)
		return mib;

	/* Bits of an earlier life would show what the new place held before. */
	if (first < page->used_bits)
		vc_bits_clear(page, first, nr);
	else
		page->used_bits = first + nr;
	vc_dirty_page(vc, page);
	vc_set_entry(vc, block, vc_entry(VC_PARTIAL, mib));
	WRITE_ONCE(vc->nr_present, vc->nr_present + 1);
	WRITE_ONCE(vc->nr_partial, vc->nr_partial + 1);
	return 0;
}

static noinline bool vc_block_is_complete_slow(struct vhdclone *vc,
					       const struct vc_io *io)
{
	struct vc_image *top = vc->top;
	sector_t start = (sector_t)io->block << top->block_shift;
	sector_t left = vc_block_end(top, io->block) - start;
	bool complete = true;
	u32 index;

	/* All of its pages must be in memory.  None is evicted meanwhile. */
	rcu_read_lock();
	for (index = vc_page_index(top, start); complete && left; index++) {
		sector_t nr = min(left, 1ULL << top->page_shift);
		struct vc_page *page = vc_page_find(top, index);

		complete = page && vc_bits_are_set(page, vc_page_bit(top, start),
						   nr >> top->lss_shift);
		left -= nr;
	}
	rcu_read_unlock();
	return complete;
}

/* Is every bit of the block set?  Those of @io are. */
static __always_inline bool vc_block_is_complete(struct vhdclone *vc,
						 const struct vc_io *io)
{
	u32 first = vc_block_bit(vc->top, io->block);
	u32 end = first + vc_block_bits(vc->top);
	u32 next = io->first_bit + io->nr_bits;
	const struct vc_page *page = io->page;

	/* The last one may end before its bits do. */
	if (unlikely(io->block == vc->total_blocks - 1))
		return vc_block_is_complete_slow(vc, io);
	/* Most are not, right behind or right in front of what was written. */
	if (next < end && !test_bit_le(next, page->bits))
		return false;
	if (io->first_bit > first && !test_bit_le(io->first_bit - 1, page->bits))
		return false;
	/* Sequential writes make one run. */
	if (page->run_first <= first && page->run_end >= end && !vc->big_blocks)
		return true;
	return vc_block_is_complete_slow(vc, io);
}

/* If the block is complete, it needs no bits any more. */
static noinline void vc_promote(struct vhdclone *vc, struct vc_io *io)
{
	if (!vc_block_is_complete(vc, io) || vc_bat_is_full(vc))
		return;
	vc_set_entry(vc, io->block, vc_entry(VC_FULL, vc_entry_mib(io->entry)));
	WRITE_ONCE(vc->nr_partial, vc->nr_partial - 1);
	vc_count(vc, VC_STAT_PROMOTIONS);
}

/*
 * Set the bits of a write, if they are not set yet.
 *
 * Return: false if the block can't be complete.  A word of bits is one block's, but the
 * last block may end inside of one.
 */
static __always_inline bool vc_set_bits(struct vhdclone *vc, struct vc_io *io)
{
	struct vc_page *page = io->page;
	u32 first = io->first_bit, nr = io->nr_bits;

	if (likely(first % 64 + nr <= 64)) {
		__le64 *word = (__le64 *)page->bits + first / 64;
		__le64 old = *word, new = old | cpu_to_le64(vc_bits_mask(first, nr));

		if (new == old)
			return false;
		vc_dirty_page(vc, page);
		/* As in vc_set_entry(): who sees the bits sees that they are not durable. */
		smp_wmb();
		WRITE_ONCE(*word, new);
		return !~new || unlikely(io->block == vc->total_blocks - 1);
	}
	if (vc_bits_are_set(page, first, nr))
		return false;
	vc_dirty_page(vc, page);
	/* likewise */
	smp_wmb();
	vc_bits_set(page, first, nr);
	/* Unless block or page end here, a look at the next bit usually settles it. */
	nr += first;
	return !(nr & ((vc->write_sectors - 1) >> vc->top->lss_shift)) ||
	       test_bit_le(nr, page->bits) || unlikely(io->block == vc->total_blocks - 1);
}

/* A write completed: its sectors are here from now on.  Irq context. */
static void vc_written(struct vhdclone *vc, struct vc_io *io)
{
	struct vc_image *top = vc->top;
	unsigned long flags;

	spin_lock_irqsave(&top->lock, flags);
	/* Still ours, and not FULLY_PRESENT already? */
	if (likely(top->map[io->block] == io->entry) && vc_set_bits(vc, io))
		vc_promote(vc, io);
	spin_unlock_irqrestore(&top->lock, flags);
}

static void vc_count_released(struct vhdclone *vc, enum vc_state state)
{
	WRITE_ONCE(vc->nr_present, vc->nr_present - 1);
	if (state == VC_PARTIAL)
		WRITE_ONCE(vc->nr_partial, vc->nr_partial - 1);
}

/* A whole block reads as zeros from now on.  Return: 0 or -EAGAIN. */
static int vc_zero_block(struct vhdclone *vc, u32 block)
{
	u32 entry = vc->top->map[block];
	enum vc_state state = vc_entry_state(entry);

	if (state == VC_ZERO || state == VC_ZERO_PENDING || state == VC_ZERO_FROZEN ||
	    (state == VC_ABSENT && !vc->differencing))
		return 0;
	if (vc_state_is_pending(state) || vc_bat_is_full(vc))
		return -EAGAIN;
	if (state == VC_ABSENT) {
		vc_set_entry(vc, block, vc_entry(VC_ZERO, 0));
	} else {
		vc_set_entry(vc, block, vc_entry(VC_ZERO_PENDING, vc_entry_mib(entry)));
		vc_count_released(vc, state);
	}
	return 0;
}

/* A whole block is not here any more.  Return: 0 or -EAGAIN. */
static int vc_drop_block(struct vhdclone *vc, u32 block)
{
	u32 entry = vc->top->map[block];
	enum vc_state state = vc_entry_state(entry);

	if (state == VC_ABSENT || vc_state_is_pending(state))
		return 0;
	if (vc_bat_is_full(vc))
		return -EAGAIN;
	if (state == VC_ZERO) {
		vc_set_entry(vc, block, vc_entry(VC_ABSENT, 0));
	} else {
		vc_set_entry(vc, block, vc_entry(VC_DROP_PENDING, vc_entry_mib(entry)));
		vc_count_released(vc, state);
	}
	vc_count(vc, VC_STAT_DISCARDS);
	return 0;
}

/* ---- what map() and the worker share ----------------------------------------------- */

static void vc_lookup(struct vhdclone *vc, sector_t sector, struct vc_place *place)
{
	if (!vc_image_lookup(vc->top, sector, place))
		vc_chain_lookup(vc->chain, sector, place);
	/* No device knows what to do with a bio of no sectors. */
	WARN_ON_ONCE(!place->nr);
}

static __always_inline void
vc_remap_write(struct vhdclone *vc, struct bio *bio, struct vc_io *io, sector_t place)
{
	if (unlikely(bio->bi_opf & REQ_FUA)) {
		/* pairs with vc_set_entry(): what led here, then dirty_seq */
		smp_rmb();
		if (io->page || vc_is_dirty(vc)) {
			/* The commit's flush makes the data durable, too. */
			bio->bi_opf &= ~REQ_FUA;
			io->wait_commit = true;
		}
	}
	vc_remap(bio, vc->top->bdev, place);
}

static enum vc_verdict vc_map_data_again(struct vhdclone *vc, struct bio *bio,
					 struct vc_io *io, sector_t sector);

/*
 * Map a write, or a write-zeroes as a write of zeros, that lies in one block and one
 * bitmap page.  The worker is needed for whatever is not ready.
 */
static __always_inline enum vc_verdict
vc_map_data(struct vhdclone *vc, struct bio *bio, struct vc_io *io, sector_t sector)
{
	struct vc_image *top = vc->top;
	u32 block = vc_block_of(vc, sector);
	u32 offset = sector & vc->block_mask;
	enum vc_state state;
	struct vc_page *page;
	unsigned long flags;
	u32 entry, first, nr;
	int r;

	entry = READ_ONCE(top->map[block]);
	state = vc_entry_state(entry);
	if (likely(state == VC_FULL)) {
		vc_remap_write(vc, bio, io, vc_entry_sector(entry) + offset);
		return VC_MAPPED;
	}
	if (state == VC_ABSENT) {
		if (!vc->differencing || vc->big_blocks ||
		    !READ_ONCE(top->bitmaps[vhdx_block_chunk(&top->geo, block)]))
			return VC_WORKER;
	} else if (state != VC_PARTIAL) {
		return VC_WORKER;
	}

	first = ((u32)sector & (vc->page_sectors - 1)) >> top->lss_shift;
	nr = bio_sectors(bio) >> top->lss_shift;

	rcu_read_lock();
	page = vc_page_find(top, vc_page_index(top, sector));
	if (unlikely(!page)) {
		rcu_read_unlock();
		if (state == VC_ABSENT && vc_page_make(top, vc_page_index(top, sector)))
			return vc_map_data_again(vc, bio, io, sector);
		return VC_WORKER;
	}
	if (state == VC_PARTIAL) {
		/* as in vc_partial_lookup(): entry, bits, entry again */
		smp_rmb();
		if (vc_bits_are_set(page, first, nr)) {
			rcu_read_unlock();
			/* pairs with the order of vc_alloc() */
			smp_rmb();
			if (unlikely(READ_ONCE(top->map[block]) != entry))
				return vc_map_data_again(vc, bio, io, sector);
			vc_remap_write(vc, bio, io, vc_entry_sector(entry) + offset);
			return VC_MAPPED;
		}
	}
	if (unlikely((!READ_ONCE(page->dirty) && vc_pages_are_full(vc)) ||
		     !vc_page_pin(page))) {
		rcu_read_unlock();
		return VC_WORKER;
	}
	rcu_read_unlock();

	if (state == VC_ABSENT) {
		spin_lock_irqsave(&top->lock, flags);
		r = vc_alloc(vc, block, page);
		entry = top->map[block];
		spin_unlock_irqrestore(&top->lock, flags);
		if (r) {
			vc_page_unpin(page);
			if (r == -EAGAIN && vc_entry_state(entry) != VC_ABSENT)
				return vc_map_data_again(vc, bio, io, sector);
			return VC_WORKER;
		}
	}

	io->page = page;
	io->block = block;
	io->entry = entry;
	io->first_bit = first;
	io->nr_bits = nr;
	vc_remap_write(vc, bio, io, vc_entry_sector(entry) + offset);
	return VC_MAPPED;
}

/* Something changed meanwhile. */
static noinline enum vc_verdict vc_map_data_again(struct vhdclone *vc, struct bio *bio,
						  struct vc_io *io, sector_t sector)
{
	return vc_map_data(vc, bio, io, sector);
}

/* Whole blocks are dropped or zeroed, but never in an image that keeps them all. */
static bool vc_may_release(struct vhdclone *vc)
{
	return vc->top->meta.has_parent || !vc->top->meta.leave_allocated;
}

static bool vc_covers_block(struct vhdclone *vc, sector_t sector, sector_t nr)
{
	u32 block = vc_block_of(vc, sector);

	return sector == (sector_t)block << vc->top->block_shift &&
	       sector + nr >= vc_block_end(vc->top, block);
}

/* ---- map ------------------------------------------------------------------------------ */

static int vc_map_flush(struct vhdclone *vc, struct bio *bio, struct vc_io *io)
{
	if (unlikely(READ_ONCE(vc->mode) == VC_MODE_FAIL))
		return vc_end(bio, BLK_STS_IOERR);
	if (vc_is_dirty(vc)) {
		vc_commit_add_waiter(vc, bio);
		return DM_MAPIO_SUBMITTED;
	}
	io->is_flush = true;
	bio_set_dev(bio, vc->top->bdev);
	return DM_MAPIO_REMAPPED;
}

/* What vc_map_read() has no short way for. */
static noinline int vc_map_read_slow(struct vhdclone *vc, struct bio *bio)
{
	struct vc_place place = { .nr = bio_sectors(bio) };

	vc_lookup(vc, bio->bi_iter.bi_sector, &place);
	if (unlikely(place.missing))
		return vc_defer(vc, bio);
	if (place.nr < bio_sectors(bio))
		dm_accept_partial_bio(bio, place.nr);
	if (unlikely(!place.bdev)) {
		zero_fill_bio(bio);
		return vc_end(bio, BLK_STS_OK);
	}
	vc_remap(bio, place.bdev, place.sector);
	return DM_MAPIO_REMAPPED;
}

static noinline int vc_map_read(struct vhdclone *vc, struct bio *bio)
{
	sector_t place, sector = bio->bi_iter.bi_sector;
	struct vc_image *top = vc->top;

	switch (vc_image_probe(top, sector, bio_sectors(bio), &place)) {
	case VC_HERE:
		vc_remap(bio, top->bdev, place);
		return DM_MAPIO_REMAPPED;
	case VC_BELOW:
		if (likely(vc->chain && vc_chain_remap(vc->chain, bio)))
			return DM_MAPIO_REMAPPED;
		break;
	case VC_UNSURE:
		break;
	}
	return vc_map_read_slow(vc, bio);
}

static struct vc_io *vc_io_init(struct bio *bio)
{
	struct vc_io *io = dm_per_bio_data(bio, sizeof(*io));

	io->page = NULL;
	io->wait_commit = false;
	io->is_flush = false;
	return io;
}

static noinline int vc_map_write(struct vhdclone *vc, struct bio *bio)
{
	struct vc_io *io = vc_io_init(bio);
	enum vc_gate gate = READ_ONCE(vc->gate);
	sector_t sector = bio->bi_iter.bi_sector;
	u32 left = vc->write_sectors - (sector & (vc->write_sectors - 1));

	if (unlikely((sector | bio_sectors(bio)) & vc->lss_mask))
		return vc_end(bio, BLK_STS_IOERR);
	if (unlikely(gate == VC_GATE_REFUSE))
		return vc_end(bio, BLK_STS_IOERR);
	/* Too long, or empty. */
	if (unlikely(bio_sectors(bio) - 1 >= left)) {
		if (!bio_sectors(bio))
			return vc_end(bio, BLK_STS_OK);
		/* Also for the worker, which cannot do it any more. */
		dm_accept_partial_bio(bio, left);
	}
	if (unlikely(gate != VC_GATE_OPEN))
		return vc_defer(vc, bio);
	if (likely(vc_map_data(vc, bio, io, sector) == VC_MAPPED))
		return DM_MAPIO_REMAPPED;
	return vc_defer(vc, bio);
}

static int vc_map_write_zeroes(struct vhdclone *vc, struct bio *bio)
{
	sector_t sector = bio->bi_iter.bi_sector;
	sector_t left = vc_block_end(vc->top, vc_block_of(vc, sector)) - sector;

	if (vc_may_release(vc) && vc_covers_block(vc, sector, bio_sectors(bio))) {
		if (left < bio_sectors(bio))
			dm_accept_partial_bio(bio, left);
		if (READ_ONCE(vc->gate) == VC_GATE_REFUSE)
			return vc_end(bio, BLK_STS_IOERR);
		return vc_defer(vc, bio);
	}
	return vc_map_write(vc, bio);
}

/* Only whole blocks are dropped; the rest is nothing to do. */
static int vc_map_discard(struct vhdclone *vc, struct bio *bio)
{
	sector_t sector = bio->bi_iter.bi_sector;
	struct vc_image *top = vc->top;
	sector_t mask = (1ULL << top->block_shift) - 1;
	sector_t end = sector + bio_sectors(bio);

	if (READ_ONCE(vc->gate) == VC_GATE_REFUSE)
		return vc_end(bio, BLK_STS_IOERR);
	if (!vc_may_release(vc))
		return vc_end(bio, BLK_STS_OK);
	if (sector & mask) {
		sector_t next = (sector | mask) + 1;

		if (next < end)
			dm_accept_partial_bio(bio, next - sector);
		return vc_end(bio, BLK_STS_OK);
	}
	if (end < top->sectors)
		end &= ~mask;
	if (end <= sector)
		return vc_end(bio, BLK_STS_OK);
	if (end - sector < bio_sectors(bio))
		dm_accept_partial_bio(bio, end - sector);
	return vc_defer(vc, bio);
}

static noinline int vc_map_other(struct vhdclone *vc, struct bio *bio)
{
	struct vc_io *io = vc_io_init(bio);

	switch (bio_op(bio)) {
	case REQ_OP_WRITE:
		return vc_map_flush(vc, bio, io);
	case REQ_OP_WRITE_ZEROES:
		return vc_map_write_zeroes(vc, bio);
	case REQ_OP_DISCARD:
		return vc_map_discard(vc, bio);
	default:
		return vc_end(bio, BLK_STS_NOTSUPP);
	}
}

/* Reads have no per-bio data. */
int vc_map(struct dm_target *ti, struct bio *bio)
{
	struct vhdclone *vc = ti->private;

	/* What the worker sees when it gets the bio. */
	bio->bi_iter.bi_sector = dm_target_offset(ti, bio->bi_iter.bi_sector);
	if (bio_op(bio) == REQ_OP_READ)
		return vc_map_read(vc, bio);
	if (likely((bio->bi_opf & (REQ_OP_MASK | REQ_PREFLUSH)) == REQ_OP_WRITE))
		return vc_map_write(vc, bio);
	return vc_map_other(vc, bio);
}

/* The end of a write that something remains to be done for. */
static noinline int vc_end_write_slow(struct vhdclone *vc, struct vc_io *io,
				      blk_status_t error)
{
	struct vc_page *page = io->page;

	if (page) {
		if (likely(!error))
			vc_written(vc, io);
		io->page = NULL;
		vc_page_unpin(page);
	}
	if (unlikely(io->wait_commit)) {
		io->wait_commit = false;
		if (!error) {
			vc_commit_add_waiter(vc, dm_bio_from_per_bio_data(io, sizeof(*io)));
			return DM_ENDIO_INCOMPLETE;
		}
	}
	return DM_ENDIO_DONE;
}

static noinline int vc_end_write(struct vhdclone *vc, struct bio *bio)
{
	struct vc_io *io = dm_per_bio_data(bio, sizeof(*io));

	if (likely(!io->page && !io->wait_commit))
		return DM_ENDIO_DONE;
	return vc_end_write_slow(vc, io, BLK_STS_OK);
}

static noinline int vc_end_error(struct vhdclone *vc, struct bio *bio, blk_status_t error)
{
	struct vc_io *io;

	/* AGAIN is none: a NOWAIT bio met a queue that is full, and will be sent anew. */
	if (error != BLK_STS_AGAIN)
		atomic_inc(&vc->errors);
	if (bio_op(bio) == REQ_OP_READ)
		return DM_ENDIO_DONE;
	io = dm_per_bio_data(bio, sizeof(*io));
	/* What was to be flushed is lost: no later flush may say otherwise. */
	if (io->is_flush && !vc->read_only)
		vc_set_mode(vc, VC_MODE_FAIL, "a flush of the device failed");
	return vc_end_write_slow(vc, io, error);
}

int vc_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error)
{
	if (unlikely(*error))
		return vc_end_error(ti->private, bio, *error);
	/* Reads have no per-bio data. */
	if (bio_op(bio) == REQ_OP_READ)
		return DM_ENDIO_DONE;
	return vc_end_write(ti->private, bio);
}

/* ---- the worker -------------------------------------------------------------------------- */

bool vc_space_grow(struct vhdclone *vc)
{
	struct vc_space *space = &vc->top->space;
	u64 nr_mib = min_t(u64, VHDX_MAX_FILE_MIB,
			   compat_bdev_nr_sectors(vc->top->bdev) >> MIB_SECTOR_SHIFT);
	unsigned long *used;

	if (nr_mib <= READ_ONCE(space->nr_mib))
		return false;
	/* Who waits for memory may wait for this clone; there is a next time. */
	used = kvcalloc(BITS_TO_LONGS(nr_mib), sizeof(long),
			GFP_NOIO | __GFP_NORETRY | __GFP_NOWARN);
	if (!used)
		return false;

	mutex_lock(&vc->commit_lock);
	spin_lock_irq(&vc->top->lock);
	/* The timer and the worker may both be here. */
	if (nr_mib > space->nr_mib) {
		bitmap_copy(used, space->used, space->nr_mib);
		swap(used, space->used);
		space->nr_free += nr_mib - space->nr_mib;
		space->cursor = space->nr_mib;
		space->nr_mib = nr_mib;
		space->exhausted = false;
		vc->low_water_hit = false;
		WRITE_ONCE(vc->nr_free_mib, space->nr_free);
	}
	spin_unlock_irq(&vc->top->lock);
	mutex_unlock(&vc->commit_lock);

	kvfree(used);
	vc_set_mode(vc, VC_MODE_RW, "the device has grown");
	return true;
}

static int vc_no_space(struct vhdclone *vc)
{
	if (vc_space_grow(vc))
		return -EAGAIN;
	vc_set_mode(vc, VC_MODE_OUT_OF_SPACE, "no room for another block on the delta");
	/* It looks every second whether the device has grown. */
	queue_delayed_work(vc->wq, &vc->timer, HZ);
	return -ENOSPC;
}

static int vc_take_locked(struct vhdclone *vc, u32 nr_mib, u32 *mib)
{
	s64 r;

	spin_lock_irq(&vc->top->lock);
	r = vc_bat_is_full(vc) ? -EBUSY : vc_take(vc, nr_mib);
	spin_unlock_irq(&vc->top->lock);
	if (r < 0)
		return r == -ENOSPC ? vc_no_space(vc) : r;
	*mib = r;
	return 0;
}

static int vc_zero_out(struct vhdclone *vc, u32 mib, u32 nr_mib)
{
	int r = blkdev_issue_zeroout(vc->top->bdev, vc_mib_to_sector(mib),
				     vc_mib_to_sector(nr_mib), GFP_NOIO,
				     BLKDEV_ZERO_NOUNMAP);

	if (r) {
		spin_lock_irq(&vc->top->lock);
		vc_space_give_back(&vc->top->space, mib, nr_mib);
		WRITE_ONCE(vc->nr_free_mib, vc->top->space.nr_free);
		spin_unlock_irq(&vc->top->lock);
		atomic_inc(&vc->errors);
	}
	/* Of what a device says only this means here what it means there. */
	return r && r != -ENOSPC ? -EIO : r;
}

/*
 * The first block of a chunk: its sector bitmap block.  Zeroed on the device before
 * a commit can name it.
 */
static int vc_add_bitmap(struct vhdclone *vc, u32 chunk)
{
	struct vc_image *top = vc->top;
	u32 mib;
	int r;

	if (top->bitmaps[chunk])
		return 0;
	r = vc_take_locked(vc, 1, &mib);
	if (!r)
		r = vc_zero_out(vc, mib, 1);
	if (r)
		return r;
	spin_lock_irq(&top->lock);
	set_bit(chunk, top->fresh);
	/* pairs with vc_page_is_fresh() */
	smp_wmb();
	WRITE_ONCE(top->bitmaps[chunk], mib);
	vc_dirty_bitmap_entry(vc, chunk);
	spin_unlock_irq(&top->lock);
	return 0;
}

/* A block that must not show what is below: zeros first, then FULLY_PRESENT. */
static int vc_fill_block(struct vhdclone *vc, u32 block)
{
	struct vc_image *top = vc->top;
	u32 mib;
	int r;

	r = vc_take_locked(vc, top->space.run, &mib);
	if (!r)
		r = vc_zero_out(vc, mib, top->space.run);
	if (r)
		return r;
	vc_count(vc, VC_STAT_ZERO_FILLS);
	spin_lock_irq(&top->lock);
	vc_set_entry(vc, block, vc_entry(VC_FULL, mib));
	WRITE_ONCE(vc->nr_present, vc->nr_present + 1);
	spin_unlock_irq(&top->lock);
	return 0;
}

/* An absent block in a differencing image: all that vc_map_data() wants. */
static int vc_prepare_absent(struct vhdclone *vc, u32 block, sector_t sector)
{
	struct vc_image *top = vc->top;
	sector_t page_sectors = 1ULL << top->page_shift;
	bool several = vc->big_blocks;
	sector_t start = several ? (sector_t)block << top->block_shift : sector;
	sector_t end = several ? ((sector_t)block + 1) << top->block_shift : sector + 1;
	struct vc_page *page = NULL;
	int r;

	r = vc_add_bitmap(vc, vhdx_block_chunk(&top->geo, block));
	if (r)
		return r;

	/* A block of several pages has them to itself: no need to read them. */
	for (; start < end; start += page_sectors) {
		if (page)
			vc_page_unpin(page);
		page = vc_page_get(top, vc_page_index(top, start), several);
		if (IS_ERR(page))
			return PTR_ERR(page);
		if (several) {
			spin_lock_irq(&top->lock);
			vc_bits_clear(page, 0, VHDX_SECTORS_PER_PAGE);
			vc_dirty_page(vc, page);
			spin_unlock_irq(&top->lock);
		}
	}

	spin_lock_irq(&top->lock);
	r = vc_alloc(vc, block, page);
	if (r == -EAGAIN && vc_bat_is_full(vc))
		r = -EBUSY;
	spin_unlock_irq(&top->lock);
	vc_page_unpin(page);
	return r == -ENOSPC ? vc_no_space(vc) : r;
}

/*
 * Get a write's block ready.  Return: 0 or -EAGAIN: try again now; -EBUSY: try again
 * after a commit; else the write fails.
 */
static int vc_prepare_block(struct vhdclone *vc, sector_t sector)
{
	struct vc_image *top = vc->top;
	u32 block = vc_block_of(vc, sector);
	enum vc_state state = vc_entry_state(READ_ONCE(top->map[block]));
	struct vc_page *page;

	if (vc_state_is_pending(state) || (state != VC_FULL && vc_pages_are_full(vc)))
		return -EBUSY;
	switch (state) {
	case VC_PARTIAL:
		page = vc_page_get(top, vc_page_index(top, sector), false);
		if (IS_ERR(page))
			return PTR_ERR(page);
		vc_page_unpin(page);
		return 0;
	case VC_ABSENT:
		if (vc->differencing)
			return vc_prepare_absent(vc, block, sector);
		fallthrough;
	case VC_ZERO:
		return vc_fill_block(vc, block);
	default:
		return 0;
	}
}

static blk_status_t vc_blk_status(int r)
{
	return r == -ENOSPC ? BLK_STS_NOSPC : errno_to_blk_status(r);
}

/* The worker gets the bio back when the next commit has ended. */
static void vc_retry_after_commit(struct vhdclone *vc, struct bio *bio)
{
	vc_queue(vc, &vc->after_commit, bio);
	vc_commit_kick(vc);
}

/* Zeros to where the image says zeros already: no reason for a block. */
static bool vc_is_zero_already(struct vhdclone *vc, struct bio *bio)
{
	u32 block = vc_block_of(vc, bio->bi_iter.bi_sector);
	enum vc_state state = vc_entry_state(READ_ONCE(vc->top->map[block]));

	if (bio_op(bio) != REQ_OP_WRITE_ZEROES)
		return false;
	return state == VC_ZERO || state == VC_ZERO_PENDING || state == VC_ZERO_FROZEN ||
	       (vc_state_falls_through(state) && !vc->differencing);
}

static void vc_work_data(struct vhdclone *vc, struct bio *bio)
{
	struct vc_io *io = dm_per_bio_data(bio, sizeof(*io));
	sector_t sector = bio->bi_iter.bi_sector;

	if (vc_is_zero_already(vc, bio)) {
		io->wait_commit = bio->bi_opf & REQ_FUA;
		vc_end(bio, BLK_STS_OK);
		return;
	}
	while (vc_map_data(vc, bio, io, sector) != VC_MAPPED) {
		int r = vc_prepare_block(vc, sector);

		if (r == -EBUSY) {
			vc_retry_after_commit(vc, bio);
			return;
		}
		if (r && r != -EAGAIN) {
			vc_end(bio, vc_blk_status(r));
			return;
		}
	}
	compat_submit_remapped(bio);
}

/* Zero or drop whole blocks. */
static void vc_work_blocks(struct vhdclone *vc, struct bio *bio)
{
	struct vc_io *io = dm_per_bio_data(bio, sizeof(*io));
	struct vc_image *top = vc->top;

	while (bio->bi_iter.bi_size) {
		u32 block = vc_block_of(vc, bio->bi_iter.bi_sector);
		sector_t nr = vc_block_end(top, block) - bio->bi_iter.bi_sector;
		int r;

		spin_lock_irq(&top->lock);
		r = bio_op(bio) == REQ_OP_DISCARD ? vc_drop_block(vc, block) :
						    vc_zero_block(vc, block);
		spin_unlock_irq(&top->lock);
		if (r) {
			vc_retry_after_commit(vc, bio);
			return;
		}
		bio->bi_iter.bi_sector += nr;
		bio->bi_iter.bi_size -= nr << SECTOR_SHIFT;
	}
	if (bio->bi_opf & REQ_FUA)
		io->wait_commit = true;
	vc_end(bio, BLK_STS_OK);
}

/* A discard of what is not here must not make a clean image dirty. */
static bool vc_is_no_change(struct vhdclone *vc, struct bio *bio)
{
	u32 block = vc_block_of(vc, bio->bi_iter.bi_sector);
	u32 last = vc_block_of(vc, bio_end_sector(bio) - 1);

	if (bio_op(bio) != REQ_OP_DISCARD)
		return false;
	for (; block <= last; block++)
		if (vc_entry_state(READ_ONCE(vc->top->map[block])) != VC_ABSENT)
			return false;
	return true;
}

static void vc_work_write(struct vhdclone *vc, struct bio *bio)
{
	bool whole = bio_op(bio) == REQ_OP_DISCARD ||
		     (bio_op(bio) == REQ_OP_WRITE_ZEROES && vc_may_release(vc) &&
		      vc_covers_block(vc, bio->bi_iter.bi_sector, bio_sectors(bio)));

	if (READ_ONCE(vc->gate) != VC_GATE_OPEN) {
		int r;

		if (whole && vc_is_no_change(vc, bio)) {
			vc_end(bio, BLK_STS_OK);
			return;
		}
		r = vc_session_start(vc);
		if (r == -EBUSY) {
			schedule_timeout_uninterruptible(1);
			vc_retry_after_commit(vc, bio);
			return;
		}
		if (r) {
			vc_end(bio, vc_blk_status(r));
			return;
		}
	}
	if (whole)
		vc_work_blocks(vc, bio);
	else
		vc_work_data(vc, bio);
}

/* A read that map() could not finish; it may have several sources. */
static void vc_work_read(struct vhdclone *vc, struct bio *bio)
{
	sector_t sector = bio->bi_iter.bi_sector;
	unsigned int done = 0, left = bio_sectors(bio);
	blk_status_t status = BLK_STS_OK;

	while (left) {
		struct vc_place place = { .nr = left };
		struct bio *clone;

		vc_lookup(vc, sector, &place);
		if (place.missing) {
			struct vc_page *page = vc_page_get(place.missing,
							   place.missing_index, false);

			if (page == ERR_PTR(-EBUSY)) {
				bio_advance(bio, done << SECTOR_SHIFT);
				vc_retry_after_commit(vc, bio);
				return;
			}
			if (IS_ERR(page)) {
				status = vc_blk_status(PTR_ERR(page));
				break;
			}
			vc_page_unpin(page);
			continue;
		}
		if (place.bdev && !done && place.nr == left) {
			bio_set_dev(bio, place.bdev);
			bio->bi_iter.bi_sector = place.sector;
			compat_submit_remapped(bio);
			return;
		}

		clone = compat_bio_alloc_clone(place.bdev ? place.bdev : vc->top->bdev,
					       bio, GFP_NOIO, &vc->bs);
		bio_trim(clone, done, place.nr);
		bio_chain(clone, bio);
		if (place.bdev) {
			clone->bi_iter.bi_sector = place.sector;
			submit_bio_noacct(clone);
		} else {
			zero_fill_bio(clone);
			bio_endio(clone);
		}
		sector += place.nr;
		done += place.nr;
		left -= place.nr;
	}
	if (status)
		bio->bi_status = status;
	bio_endio(bio);
}

#define VC_PREFETCH	16U

/* Bitmap pages of the delta that these bios need are read all at once. */
static void vc_prefetch(struct vhdclone *vc, struct bio_list *bios)
{
	struct vc_image *top = vc->top;
	u32 pages[VC_PREFETCH];
	unsigned int nr = 0;
	struct bio *bio;

	if (!vc->differencing)
		return;
	bio_list_for_each(bio, bios) {
		sector_t sector = bio->bi_iter.bi_sector;
		u32 index = vc_page_index(top, sector);

		if ((bio_op(bio) != REQ_OP_READ && bio_op(bio) != REQ_OP_WRITE) ||
		    !READ_ONCE(top->bitmaps[index / VHDX_BITMAP_PAGES_PER_CHUNK]) ||
		    (nr && pages[nr - 1] == index))
			continue;
		pages[nr++] = index;
		if (nr == ARRAY_SIZE(pages))
			break;
	}
	if (nr > 1)
		vc_pages_read(top, pages, nr);
}

void vc_io_work(struct work_struct *work)
{
	struct vhdclone *vc = container_of(work, struct vhdclone, io_work);
	struct bio_list bios;
	struct bio *bio;

	spin_lock_irq(&vc->queue_lock);
	bios = vc->deferred;
	bio_list_init(&vc->deferred);
	spin_unlock_irq(&vc->queue_lock);

	vc_prefetch(vc, &bios);
	while ((bio = bio_list_pop(&bios))) {
		if (bio_op(bio) == REQ_OP_READ)
			vc_work_read(vc, bio);
		else
			vc_work_write(vc, bio);
		cond_resched();
	}
}
