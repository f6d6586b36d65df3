// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-vhdclone: sector bitmap pages in memory.
 *
 * A 1 TiB image may have 256 MiB of sector bitmaps, so pages are read when a lookup
 * needs them and given back when memory is short.  A page can go if nobody will set
 * bits in it (no pins) and if what it holds is on disk in its place (neither dirty
 * nor logged only).
 */
#include "dm-vhdclone.h"

#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/slab.h>

static struct vc_page *vc_page_alloc(u32 index)
{
	struct vc_page *page = kzalloc(sizeof(*page), GFP_NOIO);

	if (!page)
		return NULL;
	page->bits = (unsigned long *)get_zeroed_page(GFP_NOIO);
	if (!page->bits) {
		kfree(page);
		return NULL;
	}
	page->index = index;
	page->referenced = true;
	INIT_LIST_HEAD(&page->list);
	INIT_LIST_HEAD(&page->dirty_list);
	INIT_LIST_HEAD(&page->logged_list);
	return page;
}

static void vc_page_free(struct vc_page *page)
{
	free_page((unsigned long)page->bits);
	kfree(page);
}

static void vc_page_free_rcu(struct rcu_head *rcu)
{
	vc_page_free(container_of(rcu, struct vc_page, rcu));
}

/*
 * Make a page that was read findable.  Another clone's worker may have been faster
 * with a shared image: then its page is kept and ours freed.
 */
static struct vc_page *vc_page_insert(struct vc_image *img, struct vc_page *page)
{
	struct vc_page *old;
	unsigned long flags;

	old = xa_cmpxchg_irq(&img->pages, page->index, NULL, page, GFP_NOIO);
	if (unlikely(old)) {
		vc_page_free(page);
		return xa_is_err(old) ? ERR_PTR(xa_err(old)) : old;
	}
	spin_lock_irqsave(&img->lock, flags);
	list_add_tail(&page->list, &img->page_list);
	img->nr_pages++;
	spin_unlock_irqrestore(&img->lock, flags);
	return page;
}

/*
 * Nothing but zeros on disk: the bitmap block was allocated in this activation and
 * none of its pages was evicted.  Only meaningful for a page that was not found.
 */
static bool vc_page_is_fresh(struct vc_image *img, u32 index)
{
	/* pairs with vc_page_evict(): not pinned or not found, then not fresh */
	smp_rmb();
	return img->fresh && test_bit(index / VHDX_BITMAP_PAGES_PER_CHUNK, img->fresh);
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

struct vc_page *vc_page_get(struct vc_image *img, u32 index, bool fresh)
{
	struct vc_page *page, *found;
	struct page *mem;
	int r = 0;

	page = vc_page_find_pinned(img, index);
	if (page)
		return page;

	page = vc_page_alloc(index);
	if (!page)
		return ERR_PTR(-ENOMEM);
	if (!fresh && !vc_page_is_fresh(img, index)) {
		struct vc_batch batch;

		vc_batch_init(&batch);
		mem = virt_to_page(page->bits);
		vc_batch_add(&batch, &img->bs, img->bdev, REQ_OP_READ | REQ_META,
			     vc_page_place(img, index), &mem, 1);
		r = vc_batch_wait(&batch);
	}
	if (r) {
		vc_page_free(page);
		return ERR_PTR(r);
	}
	/* Pinned before anybody can see it, so that it is ours to return. */
	atomic_set(&page->pins, 1);
	found = vc_page_insert(img, page);
	if (found == page || IS_ERR(found))
		return found;
	/* Somebody else's: pin it in the regular way. */
	return vc_page_get(img, index, fresh);
}

#define VC_READ_AHEAD	16U

void vc_pages_read(struct vc_image *img, const u32 *index, unsigned int nr)
{
	struct vc_page *pages[VC_READ_AHEAD];
	struct vc_batch batches[VC_READ_AHEAD];
	unsigned int i, started = 0;

	for (i = 0; i < nr && started < VC_READ_AHEAD; i++) {
		struct vc_page *page;
		struct page *mem;

		if (xa_load(&img->pages, index[i]) || vc_page_is_fresh(img, index[i]))
			continue;
		page = vc_page_alloc(index[i]);
		if (!page)
			break;
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
			vc_page_insert(img, pages[i]);
	}
}

void vc_bits_set(struct vc_page *page, u32 first, u32 nr)
{
#ifdef __LITTLE_ENDIAN
	bitmap_set(page->bits, first, nr);
#else
	while (nr--)
		__set_bit_le(first++, page->bits);
#endif
}

void vc_bits_clear(struct vc_page *page, u32 first, u32 nr)
{
#ifdef __LITTLE_ENDIAN
	bitmap_clear(page->bits, first, nr);
#else
	while (nr--)
		__clear_bit_le(first++, page->bits);
#endif
}

/* ---- memory pressure ------------------------------------------------------ */

static unsigned long vc_shrink_count(struct shrinker *shrinker,
				     struct shrink_control *sc)
{
	struct vc_image *img = compat_shrinker_private(shrinker);

	return READ_ONCE(img->nr_pages);
}

/* Under img->lock. */
static bool vc_page_evict(struct vc_image *img, struct vc_page *page)
{
	if (READ_ONCE(page->referenced)) {
		WRITE_ONCE(page->referenced, false);
		return false;
	}
	if (page->dirty || page->image || img->keep_pages || atomic_read(&page->pins))
		return false;
	/* From now on the chunk's pages must be read, see vc_page_is_fresh(). */
	if (img->fresh)
		clear_bit(page->index / VHDX_BITMAP_PAGES_PER_CHUNK, img->fresh);
	/* Who can't pin or find the page sees that; a full barrier if it succeeds. */
	if (atomic_cmpxchg(&page->pins, 0, -1))
		return false;
	/* xa_lock nests in img->lock here and nowhere the other way round. */
	xa_lock(&img->pages);
	__xa_erase(&img->pages, page->index);
	xa_unlock(&img->pages);
	list_del(&page->list);
	img->nr_pages--;
	call_rcu(&page->rcu, vc_page_free_rcu);
	return true;
}

static unsigned long vc_shrink_scan(struct shrinker *shrinker,
				    struct shrink_control *sc)
{
	struct vc_image *img = compat_shrinker_private(shrinker);
	unsigned long freed = 0, scanned = 0;
	void (*reclaim)(void *data);
	struct vc_page *page;
	unsigned long flags;

	if (!spin_trylock_irqsave(&img->lock, flags))
		return SHRINK_STOP;
	while (scanned < sc->nr_to_scan && scanned < img->nr_pages + freed) {
		page = list_first_entry_or_null(&img->page_list, struct vc_page, list);
		if (!page)
			break;
		scanned++;
		if (vc_page_evict(img, page))
			freed++;
		else
			list_move_tail(&page->list, &img->page_list);
	}
	reclaim = img->reclaim;
	if (!freed && scanned && reclaim)
		reclaim(img->reclaim_data);
	spin_unlock_irqrestore(&img->lock, flags);
	return freed ? freed : SHRINK_STOP;
}

void vc_pages_free(struct vc_image *img)
{
	struct vc_page *page, *tmp;

	list_for_each_entry_safe(page, tmp, &img->page_list, list) {
		list_del(&page->list);
		vc_page_free(page);
	}
	img->nr_pages = 0;
	xa_destroy(&img->pages);
}

int vc_pages_init(struct vc_image *img)
{
	int r;

	if (!img->geo.has_parent)
		return 0;
	r = compat_shrinker_register(&img->shrinker, "dm-vhdclone", img,
				     vc_shrink_count, vc_shrink_scan);
	img->shrinker_registered = !r;
	return r;
}

void vc_pages_exit(struct vc_image *img)
{
	if (img->shrinker_registered)
		compat_shrinker_unregister(&img->shrinker);
	vc_pages_free(img);
	/* pages that the shrinker took may still wait for their grace period */
	rcu_barrier();
}
