// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-vhdclone: sector bitmap pages in memory.
 *
 * A 1 TiB image may have 256 MiB of sector bitmaps, so pages are read when a lookup
 * needs them and given back when memory is short.  A page can go if nobody will set
 * bits in it (no pins) and if what it holds is on disk in its place (neither dirty
 * nor logged only).
 *
 * Swap may lie on a clone: then memory comes back only by what the worker does next.  So
 * it never waits for memory; it takes a page of the image's reserve, or gives the bio back
 * until a commit has ended and a page can go.
 */
#include "dm-vhdclone.h"

#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>

/* For the shrinker. */
static atomic_long_t nr_all_pages = ATOMIC_LONG_INIT(0);

/* How many pages are looked at for one that can go, when there is no memory. */
#define VC_STARVED_SCAN	64UL

static void *vc_page_pool_alloc(gfp_t gfp, void *unused)
{
	struct vc_page *page = kzalloc(sizeof(*page), gfp);

	if (!page)
		return NULL;
	page->bits = (unsigned long *)get_zeroed_page(gfp);
	if (!page->bits) {
		kfree(page);
		return NULL;
	}
	return page;
}

static void vc_page_pool_free(void *element, void *unused)
{
	struct vc_page *page = element;

	free_page((unsigned long)page->bits);
	kfree(page);
}

static void vc_page_init(struct vc_page *page, struct vc_image *img, u32 index)
{
	page->img = img;
	page->index = index;
	page->referenced = true;
	INIT_LIST_HEAD(&page->list);
	INIT_LIST_HEAD(&page->dirty_list);
	INIT_LIST_HEAD(&page->logged_list);
}

/* Without the reserve. */
static struct vc_page *vc_page_alloc(struct vc_image *img, u32 index, gfp_t gfp)
{
	struct vc_page *page = vc_page_pool_alloc(gfp, NULL);

	if (page)
		vc_page_init(page, img, index);
	return page;
}

/* From the reserve, or NULL. */
static struct vc_page *vc_page_alloc_reserved(struct vc_image *img, u32 index)
{
	struct vc_page *page = mempool_alloc(&img->page_pool, VC_GFP_TRY);
	unsigned long *bits;

	if (!page)
		return NULL;
	/* Somebody may have used it. */
	bits = page->bits;
	clear_page(bits);
	memset(page, 0, sizeof(*page));
	page->bits = bits;
	vc_page_init(page, img, index);
	return page;
}

static void vc_page_free(struct vc_page *page)
{
	mempool_free(page, &page->img->page_pool);
}

static void vc_page_free_rcu(struct rcu_head *rcu)
{
	vc_page_free(container_of(rcu, struct vc_page, rcu));
}

/*
 * Nothing but zeros on disk: the bitmap block was allocated in this activation and
 * none of its pages was evicted.  Only meaningful for a page that was not found.
 */
static bool vc_page_is_fresh(struct vc_image *img, u32 index)
{
	/*
	 * pairs with vc_page_evict(): not pinned or not found, then not fresh;
	 * and with vc_add_bitmap(): a bitmap block that is new is fresh
	 */
	smp_rmb();
	return img->fresh && test_bit(index / VHDX_BITMAP_PAGES_PER_CHUNK, img->fresh);
}

/*
 * Make a page findable.  Somebody else may have been faster: then his page is kept and
 * ours freed.
 * @fresh: the page has zeros because vc_page_is_fresh() said so
 *
 * Return: the page; -EBUSY: no memory; -EAGAIN: it isn't fresh any more.
 */
static struct vc_page *vc_page_insert(struct vc_image *img, struct vc_page *page,
				      bool fresh, gfp_t gfp)
{
	struct vc_page_dir __rcu **slot;
	struct vc_page_dir *dir, *new = NULL;
	struct vc_page *old;
	unsigned long flags;
	u32 i;

	slot = &img->dirs[page->index / VHDX_BITMAP_PAGES_PER_CHUNK];
	i = page->index % VHDX_BITMAP_PAGES_PER_CHUNK;
	if (!rcu_access_pointer(*slot)) {
		new = kzalloc(sizeof(*new), gfp);
		if (!new) {
			vc_page_free(page);
			return ERR_PTR(-EBUSY);
		}
	}

	spin_lock_irqsave(&img->lock, flags);
	dir = rcu_dereference_protected(*slot, lockdep_is_held(&img->lock));
	if (!dir) {
		dir = new;
		new = NULL;
		rcu_assign_pointer(*slot, dir);
	}
	old = rcu_dereference_protected(dir->pages[i], lockdep_is_held(&img->lock));
	if (!old && fresh && !vc_page_is_fresh(img, page->index))
		old = ERR_PTR(-EAGAIN);
	if (!old) {
		rcu_assign_pointer(dir->pages[i], page);
		list_add_tail(&page->list, &img->page_list);
		img->nr_pages++;
	}
	spin_unlock_irqrestore(&img->lock, flags);

	kfree(new);
	if (unlikely(old)) {
		vc_page_free(page);
		return old;
	}
	atomic_long_inc(&nr_all_pages);
	return page;
}

static struct vc_page *vc_page_find_pinned(struct vc_image *img, u32 index)
{
	struct vc_page *page;

	rcu_read_lock();
	page = vc_page_find(img, index);
	if (page && !vc_page_pin(page))
		page = NULL;
	rcu_read_unlock();
	return page;
}

static bool vc_page_is_there(struct vc_image *img, u32 index)
{
	bool there;

	rcu_read_lock();
	there = vc_page_find(img, index);
	rcu_read_unlock();
	return there;
}

static void vc_fetch_lock(struct vc_image *img)
{
	if (img->use == VC_USE_WRITE)
		mutex_lock(&img->fetch_lock);
}

static void vc_fetch_unlock(struct vc_image *img)
{
	if (img->use == VC_USE_WRITE)
		mutex_unlock(&img->fetch_lock);
}

/*
 * As vc_page_get(), into @page, which is empty; it is freed if it isn't what comes back.
 * -EAGAIN: look again.
 */
static struct vc_page *vc_page_fetch(struct vc_image *img, struct vc_page *page, bool zeros)
{
	u32 index = page->index;
	struct vc_page *found;
	bool fresh = false;
	struct page *mem;
	int r = 0;

	/* Somebody may have fetched it while we waited for the lock. */
	if (vc_page_is_there(img, index)) {
		vc_page_free(page);
		return ERR_PTR(-EAGAIN);
	}
	if (img->places)
		r = vc_vhd_read_page(img, index, page->bits);
	else if (!zeros)
		fresh = vc_page_is_fresh(img, index);
	if (!img->places && !zeros && !fresh) {
		struct vc_batch batch;

		vc_batch_init(&batch);
		mem = virt_to_page(page->bits);
		vc_batch_add(&batch, &img->bs, img->bdev, REQ_OP_READ | REQ_META,
			     vc_page_place(img, index), &mem, 1);
		page->used_bits = VHDX_SECTORS_PER_PAGE;
		/* A device may say -EBUSY or -EAGAIN, which here mean something else. */
		r = vc_batch_wait(&batch) ? -EIO : 0;
	}
	if (r) {
		vc_page_free(page);
		return ERR_PTR(r);
	}
	/* Pinned before anybody can see it, so that it is ours to return. */
	atomic_set(&page->pins, 1);
	/* A directory, one in 4 GiB, does not come back to any reserve but the system's. */
	found = vc_page_insert(img, page, fresh, VC_GFP_LAST);
	return found == page || IS_ERR(found) ? found : ERR_PTR(-EAGAIN);
}

/* Under img->lock.  @force: although somebody has just looked at it. */
static bool vc_page_evict(struct vc_image *img, struct vc_page *page, bool force,
			  bool *unwritten)
{
	u32 chunk = page->index / VHDX_BITMAP_PAGES_PER_CHUNK;
	struct vc_page_dir *dir;

	if (READ_ONCE(page->referenced) && !force) {
		WRITE_ONCE(page->referenced, false);
		return false;
	}
	if (page->dirty || page->image) {
		*unwritten = true;
		return false;
	}
	if (img->keep_pages || atomic_read(&page->pins))
		return false;
	/* From now on the chunk's pages must be read, see vc_page_is_fresh(). */
	if (img->fresh)
		clear_bit(chunk, img->fresh);
	/* Who can't pin or find the page sees that; a full barrier if it succeeds. */
	if (atomic_cmpxchg(&page->pins, 0, -1))
		return false;
	dir = rcu_dereference_protected(img->dirs[chunk], lockdep_is_held(&img->lock));
	RCU_INIT_POINTER(dir->pages[page->index % VHDX_BITMAP_PAGES_PER_CHUNK], NULL);
	list_del(&page->list);
	img->nr_pages--;
	img->evicted = true;
	atomic_long_dec(&nr_all_pages);
	call_rcu(&page->rcu, vc_page_free_rcu);
	return true;
}

/* Looks at up to @nr pages of one image, oldest first.  Return: how many it evicted. */
static unsigned long vc_image_shrink(struct vc_image *img, unsigned long nr, bool force,
				     unsigned long *scanned)
{
	unsigned long freed = 0, looked = 0, max;
	bool unwritten = false;
	struct vc_page *page;
	unsigned long flags;

	if (!spin_trylock_irqsave(&img->lock, flags))
		return 0;
	max = min(nr, img->nr_pages);
	while (looked < max) {
		page = list_first_entry(&img->page_list, struct vc_page, list);
		looked++;
		if (vc_page_evict(img, page, force, &unwritten))
			freed++;
		else
			list_move_tail(&page->list, &img->page_list);
	}
	if (unwritten && !freed && img->reclaim)
		img->reclaim(img->reclaim_data);
	spin_unlock_irqrestore(&img->lock, flags);
	*scanned += looked;
	return freed;
}

/*
 * An empty page; NULL if there is no memory.  Pages that are evicted fill up the reserve,
 * after a grace period: if it is empty, those of the image are evicted, as far as they are
 * clean, and the others made so.
 */
static struct vc_page *vc_page_take(struct vc_image *img, u32 index)
{
	struct vc_page *page = vc_page_alloc(img, index, VC_GFP_TRY);
	unsigned long scanned = 0;

	if (!page)
		page = vc_page_alloc_reserved(img, index);
	if (!page && !vc_image_shrink(img, VC_STARVED_SCAN, false, &scanned))
		vc_image_shrink(img, VC_STARVED_SCAN, true, &scanned);
	return page;
}

struct vc_page *vc_page_get(struct vc_image *img, u32 index, bool zeros)
{
	struct vc_page *page;

	do {
		page = vc_page_find_pinned(img, index);
		if (page)
			return page;
		page = vc_page_take(img, index);
		if (page) {
			vc_fetch_lock(img);
			page = vc_page_fetch(img, page, zeros);
			vc_fetch_unlock(img);
		} else {
			page = ERR_PTR(-EBUSY);
		}
	} while (page == ERR_PTR(-EAGAIN));
	/* Who tries again at once would only spin. */
	if (page == ERR_PTR(-EBUSY))
		schedule_timeout_uninterruptible(1);
	return page;
}

bool vc_page_make(struct vc_image *img, u32 index)
{
	struct vc_page *page;

	if (!vc_page_is_fresh(img, index))
		return false;
	page = vc_page_alloc(img, index, VC_GFP_TRY);
	return page && !IS_ERR(vc_page_insert(img, page, true, VC_GFP_TRY));
}

#define VC_READ_AHEAD	16U

static bool vc_page_is_among(struct vc_page **pages, unsigned int nr, u32 index)
{
	while (nr--)
		if (pages[nr]->index == index)
			return true;
	return false;
}

void vc_pages_read(struct vc_image *img, const u32 *index, unsigned int nr)
{
	struct vc_page *pages[VC_READ_AHEAD];
	struct vc_batch batches[VC_READ_AHEAD];
	unsigned int i, started = 0;

	vc_fetch_lock(img);
	for (i = 0; i < nr && started < VC_READ_AHEAD; i++) {
		struct vc_page *page;
		struct page *mem;

		/* Twice under way, the second would be as old as the first may not be. */
		if (vc_page_is_there(img, index[i]) || vc_page_is_fresh(img, index[i]) ||
		    vc_page_is_among(pages, started, index[i]))
			continue;
		page = vc_page_alloc(img, index[i], VC_GFP_TRY);
		if (!page)
			break;
		page->used_bits = VHDX_SECTORS_PER_PAGE;
		mem = virt_to_page(page->bits);
		pages[started] = page;
		vc_batch_init(&batches[started]);
		vc_batch_add(&batches[started], &img->bs, img->bdev,
			     REQ_OP_READ | REQ_META, vc_page_place(img, index[i]), &mem, 1);
		started++;
	}
	for (i = 0; i < started; i++) {
		if (vc_batch_wait(&batches[i]))
			vc_page_free(pages[i]);
		else
			vc_page_insert(img, pages[i], false, VC_GFP_TRY);
	}
	vc_fetch_unlock(img);
}

bool vc_bits_are_set_long(const struct vc_page *page, u32 first, u32 nr)
{
	const __le64 *word = (const __le64 *)page->bits + first / 64;
	u32 n = min(nr, 64 - first % 64);

	if (n < 64) {
		if (~READ_ONCE(*word) & cpu_to_le64(vc_bits_mask(first, n)))
			return false;
		word++;
		nr -= n;
	}
	for (; nr >= 256; nr -= 256, word += 4)
		if (~(READ_ONCE(word[0]) & READ_ONCE(word[1]) & READ_ONCE(word[2]) &
		      READ_ONCE(word[3])))
			return false;
	for (; nr >= 64; nr -= 64, word++)
		if (~READ_ONCE(*word))
			return false;
	return !nr || !(~READ_ONCE(*word) & cpu_to_le64(vc_bits_mask(0, nr)));
}

static void vc_word_fill(__le64 *word, u64 mask, u64 value)
{
	__le64 bits = cpu_to_le64(mask);

	/* Lookups read words without a lock. */
	WRITE_ONCE(*word, value ? *word | bits : *word & ~bits);
}

void vc_bits_fill_partial(struct vc_page *page, u32 first, u32 nr, u64 value)
{
	__le64 *word = (__le64 *)page->bits + first / 64;
	u32 n = min(nr, 64 - first % 64);

	if (n < 64) {
		vc_word_fill(word++, vc_bits_mask(first, n), value);
		nr -= n;
	}
	memset64((u64 __force *)word, value, nr / 64);
	if (nr % 64)
		vc_word_fill(word + nr / 64, vc_bits_mask(0, nr % 64), value);
}

void vc_bits_clear(struct vc_page *page, u32 first, u32 nr)
{
	if (first < page->run_end && first + nr > page->run_first)
		page->run_end = page->run_first;
	vc_bits_fill(page, first, nr, 0);
}

/* ---- memory pressure ------------------------------------------------------ */

/*
 * One shrinker for all images: registering one takes a lock that a task in reclaim may
 * hold while it waits for I/O to a clone that is suspended, so it can't be done when a
 * clone suspends or resumes.
 */
static DEFINE_SPINLOCK(shrink_lock);	/* shrink_images */
static LIST_HEAD(shrink_images);
static struct compat_shrinker vc_shrinker;

static unsigned long vc_shrink_count(struct shrinker *shrinker,
				     struct shrink_control *sc)
{
	return atomic_long_read(&nr_all_pages);
}

static unsigned long vc_shrink_scan(struct shrinker *shrinker,
				    struct shrink_control *sc)
{
	unsigned long freed = 0, scanned = 0;
	struct vc_image *img, *first = NULL;

	if (!spin_trylock(&shrink_lock))
		return SHRINK_STOP;
	/* Round robin, once around at most. */
	while (scanned < sc->nr_to_scan) {
		img = list_first_entry_or_null(&shrink_images, struct vc_image, shrink_list);
		if (!img || img == first)
			break;
		if (!first)
			first = img;
		freed += vc_image_shrink(img, sc->nr_to_scan - scanned, false, &scanned);
		list_move_tail(&img->shrink_list, &shrink_images);
	}
	spin_unlock(&shrink_lock);
	return freed;
}

void vc_pages_free(struct vc_image *img)
{
	struct vc_page *page, *tmp;
	u32 chunk;

	list_for_each_entry_safe(page, tmp, &img->page_list, list) {
		list_del(&page->list);
		vc_page_free(page);
	}
	atomic_long_sub(img->nr_pages, &nr_all_pages);
	img->nr_pages = 0;
	for (chunk = 0; img->dirs && chunk < img->geo.nr_chunks; chunk++)
		kfree(rcu_access_pointer(img->dirs[chunk]));
}

/* Enough for all the pages that a block needs at a time, and two others. */
static int vc_page_reserve(const struct vc_image *img)
{
	if (!img->meta.has_parent)
		return 0;
	return 2 + (img->block_shift <= img->page_shift ? 1 :
		    1 << (img->block_shift - img->page_shift));
}

int vc_pages_init(struct vc_image *img)
{
	int nr = vc_page_reserve(img);

	if (nr && mempool_init(&img->page_pool, nr, vc_page_pool_alloc, vc_page_pool_free,
			       NULL))
		return -ENOMEM;
	spin_lock(&shrink_lock);
	list_add_tail(&img->shrink_list, &shrink_images);
	spin_unlock(&shrink_lock);
	return 0;
}

void vc_pages_exit(struct vc_image *img)
{
	spin_lock(&shrink_lock);
	list_del_init(&img->shrink_list);
	spin_unlock(&shrink_lock);
	vc_pages_free(img);
	/* Pages that were evicted may still be on their way to the pool. */
	if (img->evicted)
		rcu_barrier();
	mempool_exit(&img->page_pool);
}

int vc_pages_register(void)
{
	return compat_shrinker_register(&vc_shrinker, "dm-vhdclone", NULL, vc_shrink_count,
					vc_shrink_scan);
}

void vc_pages_unregister(void)
{
	compat_shrinker_unregister(&vc_shrinker);
}
