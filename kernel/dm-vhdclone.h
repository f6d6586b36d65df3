/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * dm-vhdclone: what the parts of the module know of each other.
 *
 * Parts, from the bottom up:
 *
 *	-io	plain bios to metadata, alone or in batches
 *	-image	one layer: opened, checked, its block map; the host-wide registry
 *	-vhd	the same for a layer of the older format
 *	-bitmap	the sector bitmap pages of an image, and the shrinker
 *	-chain	which read-only layer holds a sector, whatever the depth
 *	-space	free space on the delta device
 *	-log	write session, commit, in-place writes
 *	-map	map(), end_io() and the worker for what they may not do
 *	-target	the dm target: table, status, messages, suspend and resume
 *
 * Locks, in the order in which they nest:
 *
 *	registry_lock,	  (mutexes, -image and -chain) the lists of images and
 *	chain_lock	  chains in use on this host; not nested in each other.
 *			  Never taken on an I/O, nor held over one.
 *	vc->commit_lock	  (mutex) one commit, session start or checkpoint at a
 *			  time.  Held across log I/O.
 *	img->fetch_lock	  (mutex) the delta only: one page at a time is looked for, read
 *			  and made findable.  Else it could come, change and go
 *			  meanwhile, and what was read be old.
 *	img->lock	  (spinlock, irq-safe) every change of what the map path
 *			  looks up in this image: the block map, bitmap bits,
 *			  the page list, and for the delta also free space, the
 *			  dirty sets and the counters.  No I/O and no allocation
 *			  under it.
 *	vc->queue_lock	  (spinlock, irq-safe) the lists of waiting bios, and of space
 *			  to discard.
 *
 * The shrinker's own lock (-bitmap) nests outside img->lock, which it only tries.
 *
 * Looking up takes none of them.  The block map is an array of u32 read with one
 * READ_ONCE(); bitmap pages are found under RCU.  A lookup that needs both reads
 * the map entry, then the bits, then the map entry again, and starts anew if it
 * changed: space is never given to another block while an image is active, so an
 * unchanged entry proves that the bits belong to it.
 *
 * Units: "sector" is 512 bytes, "mib" 1 MiB, "page" 4 KiB of VHDX metadata.
 */
#ifndef DM_VHDCLONE_H
#define DM_VHDCLONE_H

#include "compat.h"

#include <linux/mempool.h>
#include <linux/mutex.h>
#include <linux/rcupdate.h>
#include <linux/refcount.h>

#include "dm-vhdclone-table.h"

#define DM_MSG_PREFIX VHDCLONE_TARGET_NAME

#define PAGE_SECTORS_4K		(VHDX_PAGE_SIZE >> SECTOR_SHIFT)

/*
 * Who makes memory free by its I/O takes it without waiting for any, or looking for some,
 * which takes long when there is none; and, if it is little or given back soon, from the
 * system's reserves.
 */
#define VC_GFP_TRY	(GFP_NOWAIT | __GFP_NOWARN)
#define VC_GFP_LAST	(VC_GFP_TRY | __GFP_MEMALLOC)

/* ---- the block map ------------------------------------------------------ */

/*
 * A map entry: 3 bits of state, 29 bits of place in MiB.  The states that VHDX
 * reserves serve for space that a discard or write-zeroes released: it stays
 * taken until the commit that releases it is durable.  PENDING: since the last
 * commit began; FROZEN: the running commit carries it.  UNDEFINED and UNMAPPED
 * read as zeros and are kept as ZERO.
 */
enum vc_state {
	VC_ABSENT		= VHDX_BLOCK_NOT_PRESENT,
	VC_DROP_PENDING		= 1,
	VC_ZERO			= VHDX_BLOCK_ZERO,
	VC_DROP_FROZEN		= 3,
	VC_ZERO_PENDING		= 4,
	VC_ZERO_FROZEN		= 5,
	VC_FULL			= VHDX_BLOCK_FULLY_PRESENT,
	VC_PARTIAL		= VHDX_BLOCK_PARTIALLY_PRESENT,
};

#define VC_STATE_BITS		3
#define VC_STATE_MASK		((1U << VC_STATE_BITS) - 1)

static inline u32 vc_entry(enum vc_state state, u32 mib)
{
	return mib << VC_STATE_BITS | state;
}

static inline enum vc_state vc_entry_state(u32 entry)
{
	return entry & VC_STATE_MASK;
}

static inline u32 vc_entry_mib(u32 entry)
{
	return entry >> VC_STATE_BITS;
}

static inline sector_t vc_mib_to_sector(u32 mib)
{
	return (sector_t)mib << MIB_SECTOR_SHIFT;
}

static inline sector_t vc_entry_sector(u32 entry)
{
	return vc_mib_to_sector(vc_entry_mib(entry));
}

/* True for the states whose reads go on to the layer below. */
static inline bool vc_state_falls_through(enum vc_state state)
{
	return state == VC_ABSENT || state == VC_DROP_PENDING ||
	       state == VC_DROP_FROZEN;
}

static inline bool vc_state_is_pending(enum vc_state state)
{
	return state == VC_DROP_PENDING || state == VC_DROP_FROZEN ||
	       state == VC_ZERO_PENDING || state == VC_ZERO_FROZEN;
}

/* ---- -io ------------------------------------------------------------------ */

/**
 * struct vc_batch - a number of bios that are waited for together
 * @pending: bios in flight, plus one for the submitter
 * @status: the first error
 * @done: completed by the last one
 */
struct vc_batch {
	atomic_t pending;
	blk_status_t status;
	struct completion done;
};

/* All of these sleep; process context without locks, never in map(). */
void vc_batch_init(struct vc_batch *batch);

/**
 * vc_batch_add() - start I/O on pages as a part of a batch
 * @bs: where the bio comes from; needs a bvec pool
 * @pages: @nr_pages pages of which 4 KiB each are read or written, at most BIO_MAX_VECS
 */
void vc_batch_add(struct vc_batch *batch, struct bio_set *bs,
		  struct block_device *bdev, blk_opf_t opf, sector_t sector,
		  struct page **pages, unsigned int nr_pages);

/* Return: 0 or the first error as an errno. */
int vc_batch_wait(struct vc_batch *batch);

/**
 * vc_read() - read metadata into a buffer
 * @buf: vmalloc()ed or page-aligned kmalloc()ed
 * @bytes: a multiple of 512
 *
 * Return: 0 or a negative errno.
 */
int vc_read(struct block_device *bdev, sector_t sector, void *buf, size_t bytes);

/* As vc_read(), one 4 KiB write with the flags in @opf. */
int vc_write_page(struct block_device *bdev, sector_t sector, struct page *page,
		  blk_opf_t opf);

/* ---- -image ----------------------------------------------------------------- */

/* What the caller is going to do with an image. */
enum vc_use {
	VC_USE_READ,		/* shared with every other reader on this host */
	VC_USE_WRITE,		/* exclusive */
};

/**
 * struct vc_space - free space of the delta, 1 bit a MiB; under img->lock
 * @used: bitmap, set means taken
 * @nr_mib: size of the device
 * @nr_free: clear bits
 * @cursor: where the next search starts
 * @run: MiB a payload block needs
 * @exhausted: a search for @run MiB failed and nothing was added since
 */
struct vc_space {
	unsigned long *used;
	u64 nr_mib;
	u64 nr_free;
	u64 cursor;
	u32 run;
	bool exhausted;
};

/**
 * struct vc_image - a layer in use
 *
 * Exists from resume to suspend; read-only ones are shared by all tables that
 * name the device.  The first group is what a lookup touches.
 *
 * @map: nr_blocks map entries; NULL for a raw layer
 * @bdev: the device; held open by each user's table
 * @sectors: virtual size
 * @first: raw layers: first sector of the window
 * @block_shift: log2 of the block size in sectors
 * @lss_shift: log2 of sectors in a logical sector, 0 or 3
 * @page_shift: log2 of the sectors that a bitmap page covers
 * @dirs: for each chunk the directory of its bitmap pages, or NULL while there are none
 * @places: of a VHD: first sector of each block, which is not in its map entry; else NULL
 *
 * @lock: see the top of this file
 * @bitmaps: nr_chunks places of sector bitmap blocks in MiB, 0 if there is none
 * @fresh: one bit a chunk: see vc_page_is_fresh(); the delta only
 * @page_list: all bitmap pages, oldest first
 * @nr_pages: their number
 * @keep_pages: evict none: what they hold can't be written any more (fail mode)
 * @page_pool: a reserve of bitmap pages, so that writes go on without memory
 * @evicted: pages were evicted, and go to the pool after a grace period
 * @space: the delta's free space
 * @fetch_lock: see the top of this file
 */
struct vc_image {
	u32 *map;
	struct block_device *bdev;
	sector_t sectors;
	sector_t first;
	u8 block_shift;
	u8 lss_shift;
	u8 page_shift;
	bool raw;
	struct vc_page_dir __rcu **dirs;
	u32 *places;

	spinlock_t lock ____cacheline_aligned_in_smp;
	u32 *bitmaps;
	unsigned long *fresh;
	struct list_head page_list;
	unsigned long nr_pages;
	bool keep_pages;
	struct vc_space space;
	struct mutex fetch_lock;	/* one fetch of a page at a time */
	mempool_t page_pool;
	bool evicted;

	/* constant while in use */
	struct vc_layer_args args;
	struct vhdx_geometry geo;
	struct vhdx_metadata meta;
	struct vhdx_header_info header;
	struct vhdx_region bat_region;
	struct bio_set bs;
	u32 nr_full;			/* at load */
	u32 nr_partial;			/* at load */
	bool has_lower;
	dev_t dev;
	enum vc_use use;

	/*
	 * -log's, for the delta only, called under lock: memory is short, and pages
	 * could go if what they hold was in its place
	 */
	void (*reclaim)(void *data);
	void *reclaim_data;

	struct list_head shrink_list;	/* under the shrinker's lock, -bitmap */

	/* under registry_lock; the first user loads, others wait for it */
	struct list_head list;
	unsigned int users;
	struct completion loaded;
	int load_error;
};

/**
 * vc_image_get() - take a layer into use: check it whole and load its map
 * @name: of the dm device, for messages
 * @path: of the layer's device, for messages
 * @bdev: the device
 * @args: as the table has it
 * @use: exclusive or shared
 * @has_lower: there is a layer below
 *
 * A read-only image that is in use already is shared.  May sleep, does I/O; the
 * caller is in a NOIO scope.  One line in the log says what was refused and where.
 *
 * Return: the image, or ERR_PTR: -EBUSY in use the other way, -EINVAL/-EBADMSG
 * not as it must be, -EUCLEAN needs recovery, -EIO, -ENOMEM.
 */
struct vc_image *vc_image_get(const char *name, const char *path,
			      struct block_device *bdev,
			      const struct vc_layer_args *args, enum vc_use use,
			      bool has_lower);

/* Ends the use; the last one frees.  Nothing may be in flight.  May sleep. */
void vc_image_put(struct vc_image *img);

/* The end of block @block in sectors of the disk, cut by the virtual end. */
static inline sector_t vc_block_end(const struct vc_image *img, u32 block)
{
	sector_t end = ((sector_t)block + 1) << img->block_shift;

	return min(end, img->sectors);
}

/* The first sector of a block that is here, on the device. */
static inline sector_t vc_block_place(const struct vc_image *img, u32 block, u32 entry)
{
	return unlikely(img->places) ? img->places[block] : vc_entry_sector(entry);
}

/* BAT and region tables are read in pieces of this size. */
#define VC_LOAD_BYTES	(512 * 1024)

/**
 * struct vc_load - what loading an image needs besides the image
 * @img: the image
 * @name: of the dm device, for messages
 * @path: of the layer's device, for messages
 * @buf: VC_LOAD_BYTES of vmalloc memory
 * @region_table: a copy of the region table in use
 * @region_table_offset: where it lies
 * @claims: which MiB of the device are taken
 */
struct vc_load {
	struct vc_image *img;
	const char *name;
	const char *path;
	void *buf;
	void *region_table;
	u64 region_table_offset;
	struct vhdx_claims claims;
};

/* Read at a byte offset in the file; says so if it can't.  May sleep. */
int vc_load_read(struct vc_load *load, u64 offset, void *buf, size_t bytes,
		 const char *what);

/* One line that names the fault.  Return: @r. */
int vc_refuse(struct vc_load *load, const struct vhdx_fault *fault, int r);

/* The table and the image do not agree.  Return: -EINVAL. */
int vc_differs(struct vc_load *load, const char *what, u64 table, u64 image);

/* An image has a parent exactly if the table has a layer below.  Return: 0 or -EINVAL. */
int vc_check_lower(struct vc_load *load);

/* ---- -vhd --------------------------------------------------------------------- */

/* Check a VHD whole and load its map; what is allocated is the image's.  May sleep. */
int vc_vhd_load(struct vc_load *load);

/**
 * vc_vhd_read_page() - gather a bitmap page of a differencing VHD from its blocks
 * @bits: VHDX_PAGE_SIZE zeroed bytes; becomes what a page of VHDX would be
 *
 * Worker only.  Return: 0, -EIO, -EBUSY: no memory.
 */
int vc_vhd_read_page(struct vc_image *img, u32 index, void *bits);

/* ---- -bitmap ------------------------------------------------------------------ */

/**
 * struct vc_page - 4 KiB of sector bitmap in memory
 * @bits: the live bits, little endian
 * @img: whose
 * @index: page number (vhdx_bitmap_page())
 * @pins: writes that will set bits here; -1: being evicted
 * @referenced: looked up since the shrinker came by
 * @dirty: on the dirty list, under img->lock
 * @used_bits: no bit from here on was ever set, under img->lock
 * @run_first, @run_end: a run of bits that are set, under img->lock
 * @image: newest logged image that is not in place yet, or NULL; under
 *	   commit_lock and img->lock
 * @list: on img->page_list
 * @dirty_list: on the dirty list
 * @logged_list: on the list of pages with an @image
 *
 * Found under RCU, freed after a grace period.
 */
struct vc_page {
	unsigned long *bits;
	struct vc_image *img;
	u32 index;
	atomic_t pins;
	bool referenced;
	bool dirty;
	u16 used_bits;
	u16 run_first;
	u16 run_end;
	struct page *image;
	struct list_head list;
	struct list_head dirty_list;
	struct list_head logged_list;
	struct rcu_head rcu;
};

/**
 * struct vc_page_dir - the bitmap pages of a chunk that are in memory
 * @pages: found under RCU, changed under img->lock
 *
 * Stays until the image is freed.
 */
struct vc_page_dir {
	struct vc_page __rcu *pages[VHDX_BITMAP_PAGES_PER_CHUNK];
};

static inline u32 vc_page_index(const struct vc_image *img, sector_t sector)
{
	return sector >> img->page_shift;
}

static inline u32 vc_page_bit(const struct vc_image *img, sector_t sector)
{
	return (sector & ((1ULL << img->page_shift) - 1)) >> img->lss_shift;
}

/* A block's first bit in its page, or 0 if it has several pages. */
static inline u32 vc_block_bit(const struct vc_image *img, u32 block)
{
	return block << (img->block_shift - img->lss_shift) & (VHDX_SECTORS_PER_PAGE - 1);
}

/* A block's bits in a page.  They are whole words. */
static inline u32 vc_block_bits(const struct vc_image *img)
{
	return min(1U << (img->block_shift - img->lss_shift), (u32)VHDX_SECTORS_PER_PAGE);
}

/* Where the page lies on the device. */
static inline sector_t vc_page_place(const struct vc_image *img, u32 index)
{
	u32 chunk = index / VHDX_BITMAP_PAGES_PER_CHUNK;

	return vc_mib_to_sector(img->bitmaps[chunk]) +
	       (sector_t)(index % VHDX_BITMAP_PAGES_PER_CHUNK) * PAGE_SECTORS_4K;
}

/* Under rcu_read_lock().  Any context. */
static inline struct vc_page *vc_page_find(struct vc_image *img, u32 index)
{
	struct vc_page_dir *dir;
	struct vc_page *page;

	dir = rcu_dereference(img->dirs[index / VHDX_BITMAP_PAGES_PER_CHUNK]);
	if (unlikely(!dir))
		return NULL;
	page = rcu_dereference(dir->pages[index % VHDX_BITMAP_PAGES_PER_CHUNK]);
	if (page && !READ_ONCE(page->referenced))
		WRITE_ONCE(page->referenced, true);
	return page;
}

/* Under rcu_read_lock().  False: it is being evicted, look it up again. */
static inline bool vc_page_pin(struct vc_page *page)
{
	return atomic_inc_unless_negative(&page->pins);
}

static inline void vc_page_unpin(struct vc_page *page)
{
	atomic_dec(&page->pins);
}

/**
 * vc_page_get() - find a page or read it
 * @index: page number; its chunk must have a bitmap block, unless @zeros
 * @zeros: what is on disk does not matter: start with zeros
 *
 * Worker only.  The page comes back pinned.
 * Return: the page or ERR_PTR: -EIO; -EBUSY: there is no memory, try again after a commit.
 */
struct vc_page *vc_page_get(struct vc_image *img, u32 index, bool zeros);

/**
 * vc_page_make() - make a page in a chunk whose bits on disk are known to be zeros
 *
 * Any context.  Return: false if it isn't known, or memory is short: ask the worker.
 */
bool vc_page_make(struct vc_image *img, u32 index);

/**
 * vc_pages_read() - read a number of pages at once; best effort, worker only
 * @index: page numbers, may contain some that are there already
 */
void vc_pages_read(struct vc_image *img, const u32 *index, unsigned int nr);

/* Drop all pages.  No user may be left; @image of none may be set. */
void vc_pages_free(struct vc_image *img);

/*
 * From now on, until exit, the shrinker looks after the image's pages.  May sleep.
 * Return: 0 or -ENOMEM.
 */
int vc_pages_init(struct vc_image *img);
void vc_pages_exit(struct vc_image *img);

/* Module init and exit: the one shrinker. */
int vc_pages_register(void);
void vc_pages_unregister(void);

/* vc_bits_fill() where the first or the last word is not meant as a whole. */
void vc_bits_fill_partial(struct vc_page *page, u32 first, u32 nr, u64 value);

/* @value, 0 or ~0, to bits [@first, @first + @nr), word by word. */
static __always_inline void vc_bits_fill(struct vc_page *page, u32 first, u32 nr, u64 value)
{
	if (likely(!((first | nr) % 64)))
		memset64((u64 *)page->bits + first / 64, value, nr / 64);
	else
		vc_bits_fill_partial(page, first, nr, value);
}

/* Set or clear bits [first, first + nr) of a page, @nr is not 0; under img->lock. */
static __always_inline void vc_bits_set(struct vc_page *page, u32 first, u32 nr)
{
	vc_bits_fill(page, first, nr, ~0ULL);
	if (page->run_end != first)
		page->run_first = first;
	page->run_end = first + nr;
}

void vc_bits_clear(struct vc_page *page, u32 first, u32 nr);

/* ---- -chain --------------------------------------------------------------------- */

/**
 * struct vc_chain - the read-only layers of a clone
 * @layers: images, the one right below the delta first
 * @nr: their number
 * @owner: for each granule the first layer that is not plainly absent there, or
 *	   @nr; NULL if there are too few layers to be worth it
 * @granule_shift: log2 of the granule in sectors
 * @nr_granules: entries in @owner
 *
 * Shared, as the images are, by all clones over the same layers.
 */
struct vc_chain {
	unsigned int nr;
	u8 granule_shift;
	u64 nr_granules;
	u8 *owner;
	struct list_head list;		/* under chain_lock */
	unsigned int users;		/* under chain_lock */
	struct vc_image *layers[];
};

/* Both sleep.  The chain holds no use of the images: its users do. */
struct vc_chain *vc_chain_get(struct vc_image **layers, unsigned int nr);
void vc_chain_put(struct vc_chain *chain);

/**
 * struct vc_place - where a run of sectors is read from
 * @bdev: the device, NULL: it reads as zeros
 * @sector: there
 * @nr: length of the run in sectors, at most what was asked for
 * @missing: set if a bitmap page must be read first: its image ...
 * @missing_index: ... and its number; nothing else is valid then
 */
struct vc_place {
	struct block_device *bdev;
	sector_t sector;
	sector_t nr;
	struct vc_image *missing;
	u32 missing_index;
};

/* What of bits [first, first + nr), which lie in one word, is set? */
static __always_inline u64 vc_bits_word(const struct vc_page *page, u32 first, u64 mask)
{
	return le64_to_cpu(READ_ONCE(((const __le64 *)page->bits)[first / 64])) & mask;
}

static __always_inline u64 vc_bits_mask(u32 first, u32 nr)
{
	return ~0ULL >> (64 - nr) << first % 64;
}

/* vc_bits_are_set() for more than a word. */
bool vc_bits_are_set_long(const struct vc_page *page, u32 first, u32 nr);

/* Are bits [first, first + nr) of a page set?  @nr is not 0. */
static __always_inline bool vc_bits_are_set(const struct vc_page *page, u32 first, u32 nr)
{
	if (likely(first % 64 + nr <= 64)) {
		u64 mask = vc_bits_mask(first, nr);

		return vc_bits_word(page, first, mask) == mask;
	}
	/* What isn't usually begins with what isn't. */
	return test_bit_le(first, page->bits) && vc_bits_are_set_long(page, first, nr);
}

enum vc_probe {
	VC_HERE,		/* the layer has all of the run, in one piece */
	VC_BELOW,		/* it has nothing of it */
	VC_UNSURE,		/* ask vc_image_lookup() */
};

/* Are the bits of a run set, all in one word?  Under no lock; @entry is the block's. */
static __always_inline enum vc_probe vc_probe_bits(struct vc_image *img, u32 entry,
						   sector_t sector, u32 nr)
{
	u32 first = vc_page_bit(img, sector);
	u32 nr_bits = nr >> img->lss_shift;
	struct vc_page *page;
	u64 word, mask;

	if (unlikely(first % 64 + nr_bits > 64 ||
		     (sector | nr) & ((1U << img->lss_shift) - 1)))
		return VC_UNSURE;
	mask = vc_bits_mask(first, nr_bits);

	rcu_read_lock();
	page = vc_page_find(img, vc_page_index(img, sector));
	if (unlikely(!page)) {
		rcu_read_unlock();
		return VC_UNSURE;
	}
	/* pairs with the order of vc_alloc(): bits, then the map entry */
	smp_rmb();
	word = vc_bits_word(page, first, mask);
	rcu_read_unlock();

	/* The bits are this entry's only if it did not change meanwhile. */
	smp_rmb();
	if (unlikely(READ_ONCE(img->map[sector >> img->block_shift]) != entry))
		return VC_UNSURE;
	if (word == mask)
		return VC_HERE;
	return word ? VC_UNSURE : VC_BELOW;
}

/**
 * vc_image_probe() - the short way to look up one layer, for what I/O usually meets
 * @nr: length of the run, not 0
 * @place: set to where the run begins on the layer's device if it is VC_HERE
 *
 * Any context, no lock.
 */
static __always_inline enum vc_probe vc_image_probe(struct vc_image *img, sector_t sector,
						    u32 nr, sector_t *place)
{
	u32 block_sectors = 1U << img->block_shift;
	u32 offset = sector & (block_sectors - 1);
	u32 entry;

	if (unlikely(offset + nr > block_sectors || sector + nr > img->sectors))
		return VC_UNSURE;
	entry = READ_ONCE(img->map[sector >> img->block_shift]);
	*place = vc_entry_sector(entry) + offset;
	switch (vc_entry_state(entry)) {
	case VC_FULL:
		return VC_HERE;
	case VC_ABSENT:
		return VC_BELOW;
	case VC_PARTIAL:
		return vc_probe_bits(img, entry, sector, nr);
	default:
		return VC_UNSURE;
	}
}

static inline void vc_remap(struct bio *bio, struct block_device *bdev, sector_t sector)
{
	bio_set_dev(bio, bdev);
	bio->bi_iter.bi_sector = sector;
}

/* Any context, no lock.  Looks up one layer; true if it decides. */
bool vc_image_lookup(struct vc_image *img, sector_t sector, struct vc_place *place);

/**
 * vc_chain_remap() - the short way to send a read below the delta
 * @bio: remapped if one layer has all of it, in one piece; its sector is the clone's
 *
 * Any context, no lock.  Return: false if vc_chain_lookup() must be asked.
 */
bool vc_chain_remap(struct vc_chain *chain, struct bio *bio);

/* Any context, no lock.  @place->nr is what is asked for. */
void vc_chain_lookup(struct vc_chain *chain, sector_t sector, struct vc_place *place);

/* ---- -space: all under img->lock -------------------------------------------------- */

/* vc_space_take() when the next place isn't free. */
s64 vc_space_search(struct vc_space *space, u32 nr_mib);

/* Return: first MiB, or -ENOSPC. */
static inline s64 vc_space_take(struct vc_space *space, u32 nr_mib)
{
	unsigned long *word = &space->used[space->cursor / BITS_PER_LONG];
	unsigned int low = space->cursor % BITS_PER_LONG;
	unsigned long mask;

	/* A search usually ends where it starts: a look at one word. */
	if (unlikely(low + nr_mib > BITS_PER_LONG ||
		     space->cursor + nr_mib > space->nr_mib))
		return vc_space_search(space, nr_mib);
	mask = ~0UL >> (BITS_PER_LONG - nr_mib) << low;
	if (unlikely(*word & mask))
		return vc_space_search(space, nr_mib);
	*word |= mask;
	space->nr_free -= nr_mib;
	space->cursor += nr_mib;
	return space->cursor - nr_mib;
}

void vc_space_give_back(struct vc_space *space, u64 mib, u32 nr_mib);

/* ---- the clone ---------------------------------------------------------------------- */

enum vc_mode {
	VC_MODE_RW,
	VC_MODE_RO,
	VC_MODE_OUT_OF_SPACE,
	VC_MODE_FAIL,
};

/* What a write meets first: one word, so that the map path tests one word. */
enum vc_gate {
	VC_GATE_CLOSED,		/* no write session yet: the worker starts one */
	VC_GATE_OPEN,
	VC_GATE_REFUSE,		/* read-only or failed */
};

/* Pages in one log entry at most; a commit takes up to VC_BAT_PAGES BAT pages. */
#define VC_ENTRY_PAGES		62
#define VC_BAT_PAGES		40

/* Counted where no mapped I/O passes; their names are in -target. */
enum vc_stat {
	VC_STAT_DEFERRED,	/* bios that went through the worker */
	VC_STAT_COMMITS,	/* commits */
	VC_STAT_LOG_ENTRIES,	/* log entries written */
	VC_STAT_LOG_PAGES,	/* pages in them */
	VC_STAT_IN_PLACE,	/* pages written in place */
	VC_STAT_CHECKPOINTS,	/* times all of them were */
	VC_STAT_FLUSHES,	/* flushes and FUA writes that waited for a commit */
	VC_STAT_ZERO_FILLS,	/* blocks zero-filled before a write */
	VC_STAT_DISCARDS,	/* blocks released by discards */
	VC_STAT_PASSDOWNS,	/* extents of released space discarded below */
	VC_STAT_PROMOTIONS,	/* blocks that became FULLY_PRESENT */
	VC_NR_STATS
};

/**
 * struct vc_slot - what a page of the log entry at hand is an image of
 * @page: a bitmap page, pinned; NULL: a BAT page
 * @bat_index: which BAT page
 */
struct vc_slot {
	struct vc_page *page;
	u32 bat_index;
};

struct vc_layer {
	struct dm_dev *dev;
	struct vc_layer_args args;
};

/**
 * struct vhdclone - one clone, as long as its table lives
 *
 * First what map() reads and nobody writes while I/O is mapped.
 *
 * @top: the delta; NULL while suspended
 * @chain: the layers below, NULL if there are none
 * @gate: see enum vc_gate; changed under top->lock
 * @lss_mask: a write's sector and length must be clear of these bits
 * @page_sectors: what a bitmap page covers
 * @block_mask: sectors of a block, less one
 * @big_blocks: a block has several bitmap pages
 * @write_sectors: a block, or what a bitmap page covers if that is less
 *
 * @dirty_seq: raised by each change that a commit must carry; under top->lock
 * @durable_seq: the value that the last commit covered; under commit_lock and top->lock
 *
 * @session: a write session is on disk (LogGuid set); under commit_lock
 */
struct vhdclone {
	struct vc_image *top;
	struct vc_chain *chain;
	enum vc_gate gate;
	u32 lss_mask;
	u32 page_sectors;
	u32 write_sectors;
	u32 block_mask;
	bool differencing;
	bool big_blocks;
	bool discard_passdown;

	struct dm_target *ti;

	/* under top->lock, read anywhere */
	u64 dirty_seq ____cacheline_aligned_in_smp;
	u64 durable_seq;
	unsigned long *bat_dirty;	/* one bit a BAT page */
	unsigned int nr_bat_dirty;
	struct list_head dirty_pages;	/* vc_page.dirty_list */
	unsigned int nr_dirty_pages;
	unsigned int max_dirty_pages;	/* constant while active */
	enum vc_mode mode;
	u32 nr_present;
	u32 nr_partial;
	u64 nr_free_mib;
	unsigned int nr_frozen;		/* blocks in a FROZEN state */
	bool low_water_hit;

	spinlock_t queue_lock;		/* the four lists below */
	struct bio_list deferred;	/* for the worker */
	struct bio_list flushes;	/* wait for the next commit */
	struct bio_list after_commit;	/* for the worker, once a commit ended */
	struct list_head released;	/* struct vc_extent: to discard */

	struct workqueue_struct *wq;
	struct work_struct io_work;
	struct work_struct commit_work;
	struct delayed_work timer;
	struct work_struct event_work;
	struct work_struct discard_work;

	/* the log: under commit_lock */
	struct mutex commit_lock;
	bool session;
	struct vhdx_header_info header;	/* as the current header on disk is */
	u64 log_sequence;
	u32 log_pages;			/* size of the ring */
	u32 log_head;			/* next page to write */
	u32 log_tail;			/* as the newest durable entry says */
	u32 log_used;			/* pages from tail to head */
	bool all_in_place;		/* nothing was logged since all images were */
	bool want_in_place;		/* memory is short: set anywhere */
	unsigned long nr_images;
	struct page *slots[1 + VC_ENTRY_PAGES];
	struct vc_slot slot_info[1 + VC_ENTRY_PAGES];
	struct page **bat_images;	/* newest logged, not in place yet */
	unsigned long *bat_logged;
	struct list_head logged_pages;	/* vc_page.logged_list */
	u32 nr_bat_pages;

	atomic_t errors;
	atomic64_t stats[VC_NR_STATS];

	/* constant */
	unsigned int nr_layers;
	bool read_only;
	bool has_low_water;
	u64 low_water_blocks;
	char **args;			/* the table line, for STATUSTYPE_TABLE */
	unsigned int nr_args;
	u32 total_blocks;
	struct vc_image **images;	/* in use while not suspended */
	struct bio_set bs;		/* clones of reads with several sources */
	struct vc_layer layers[];
};

static inline void vc_count(struct vhdclone *vc, enum vc_stat stat)
{
	atomic64_inc(&vc->stats[stat]);
}

static inline const char *vc_name(struct vhdclone *vc)
{
	return dm_table_device_name(vc->ti->table);
}

/* ---- -log ------------------------------------------------------------------------------- */

/* Something completed or changed that no commit has made durable yet.  Any context. */
static inline bool vc_is_dirty(struct vhdclone *vc)
{
	u64 durable = READ_ONCE(vc->durable_seq);

	/* durable first: it never passes dirty_seq, so equal means clean */
	smp_rmb();
	return READ_ONCE(vc->dirty_seq) != durable;
}

/* At resume, after the image is loaded; may sleep.  Return: 0 or -ENOMEM. */
int vc_log_init(struct vhdclone *vc);
void vc_log_exit(struct vhdclone *vc);

/**
 * vc_session_start() - make the file ours to write; worker only
 *
 * Return: 0 if the gate is open now, -EBUSY: no memory, try again later, or another
 * negative errno; I/O errors also set the fail mode.
 */
int vc_session_start(struct vhdclone *vc);

/* Ends the session: commit, write in place, clean headers.  Suspend only. */
void vc_session_end(struct vhdclone *vc);

/* One commit, now; process context without locks.  Return: 0, -EIO, -ENOMEM. */
int vc_commit(struct vhdclone *vc);

/* Discards on the device what step 7 of commits released. */
void vc_discard_work(struct work_struct *work);

/* As a flush from above: what completed is durable when it returns 0. */
int vc_sync(struct vhdclone *vc);

/* Bring a commit about; any context. */
void vc_commit_kick(struct vhdclone *vc);

/* A flush or a completed FUA write waits for the next commit; any context. */
void vc_commit_add_waiter(struct vhdclone *vc, struct bio *bio);

/* Under top->lock: mark what a change touched. */
void vc_dirty_bat(struct vhdclone *vc, u32 block);
void vc_dirty_bitmap_entry(struct vhdclone *vc, u32 chunk);
void vc_dirty_page_first(struct vhdclone *vc, struct vc_page *page);

static inline void vc_dirty_page(struct vhdclone *vc, struct vc_page *page)
{
	if (likely(page->dirty && vc->dirty_seq != READ_ONCE(vc->durable_seq)))
		WRITE_ONCE(vc->dirty_seq, vc->dirty_seq + 1);
	else
		vc_dirty_page_first(vc, page);
}

/* Under top->lock: too much is dirty to add more? */
static inline bool vc_bat_is_full(struct vhdclone *vc)
{
	return vc->nr_bat_dirty >= VC_BAT_PAGES - 2;
}

/*
 * So many bitmap pages are dirty that writes to more of them wait for a commit; any
 * context, no lock: it is a bound, not a count.
 */
static inline bool vc_pages_are_full(struct vhdclone *vc)
{
	return READ_ONCE(vc->nr_dirty_pages) >= vc->max_dirty_pages;
}

/* The only way from one mode to another; any context. */
void vc_set_mode(struct vhdclone *vc, enum vc_mode mode, const char *why);

/* ---- -map --------------------------------------------------------------------------------- */

/**
 * struct vc_io - per-bio data
 * @page: pinned page whose bits the write's completion sets, or NULL
 * @block: the write's block
 * @entry: its map entry when the write was mapped
 * @first_bit, @nr_bits: of @page
 * @wait_commit: FUA: not complete before the next commit
 * @is_flush: a flush that went down as it is
 */
struct vc_io {
	struct vc_page *page;
	u32 block;
	u32 entry;
	u16 first_bit;
	u16 nr_bits;
	bool wait_commit;
	bool is_flush;
};

int vc_map(struct dm_target *ti, struct bio *bio);
int vc_end_io(struct dm_target *ti, struct bio *bio, blk_status_t *error);
void vc_io_work(struct work_struct *work);

/**
 * vc_space_grow() - use what the delta device has grown; worker only
 *
 * Return: true if it has; the mode is rw then.
 */
bool vc_space_grow(struct vhdclone *vc);

#endif /* DM_VHDCLONE_H */
