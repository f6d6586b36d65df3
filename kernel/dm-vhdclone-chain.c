// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-vhdclone: which layer holds a sector.
 *
 * A read of what the delta does not hold finds its layer in one step however long the
 * chain is: the owner index says for each granule (the smallest block size in the
 * chain) which layer is the first that has anything to say about it.  Only a
 * PARTIALLY_PRESENT block whose bits are clear makes the search go on, layer by
 * layer, from there.  The index is built once a chain and shared.
 */
#include "dm-vhdclone.h"

#include <linux/slab.h>
#include <linux/mm.h>

static DEFINE_MUTEX(chain_lock);
static LIST_HEAD(chains);

static bool vc_partial_lookup(struct vc_image *img, u32 entry, sector_t sector,
			      struct vc_place *place, bool *here)
{
	u32 first = vc_page_bit(img, sector);
	/* Below a layer of odd length a run may start inside a logical sector. */
	u32 skip = sector & ((1U << img->lss_shift) - 1);
	struct vc_page *page;
	sector_t left;
	u32 last, end;

	/* A run does not go on past its bitmap page. */
	left = (1ULL << img->page_shift) - (sector & ((1ULL << img->page_shift) - 1));
	place->nr = min(place->nr, left);
	last = first + ((skip + place->nr + (1U << img->lss_shift) - 1) >> img->lss_shift);

	rcu_read_lock();
	page = vc_page_find(img, vc_page_index(img, sector));
	if (!page) {
		rcu_read_unlock();
		place->missing = img;
		place->missing_index = vc_page_index(img, sector);
		return false;
	}
	/* pairs with the order of vc_alloc(): bits, then the map entry */
	smp_rmb();
	*here = test_bit_le(first, page->bits);
	/* Behind the first one, which is what it was, whatever it has become since. */
	end = *here ? find_next_zero_bit_le(page->bits, last, first + 1) :
		      find_next_bit_le(page->bits, last, first + 1);
	rcu_read_unlock();

	place->nr = min(place->nr, ((sector_t)(end - first) << img->lss_shift) - skip);
	return true;
}

/*
 * Does this layer decide where a sector is read from?
 *
 * Return: true if @place is complete (found, zeros, or a page is missing); false
 * if the layer below must be asked about the @place->nr sectors that are left.
 */
bool vc_image_lookup(struct vc_image *img, sector_t sector, struct vc_place *place)
{
	enum vc_state state;
	sector_t offset, nr;
	bool here;
	u32 block, entry;

	if (sector >= img->sectors) {
		place->bdev = NULL;
		return true;
	}
	place->nr = min(place->nr, img->sectors - sector);

	if (img->raw) {
		place->bdev = img->bdev;
		place->sector = img->first + sector;
		return true;
	}

	block = sector >> img->block_shift;
	offset = sector & ((1ULL << img->block_shift) - 1);
	place->nr = min(place->nr, (1ULL << img->block_shift) - offset);
	nr = place->nr;
again:
	place->nr = nr;
	entry = READ_ONCE(img->map[block]);
	state = vc_entry_state(entry);
	if (likely(state == VC_FULL)) {
		place->bdev = img->bdev;
		place->sector = vc_block_place(img, block, entry) + offset;
		return true;
	}
	if (state == VC_PARTIAL) {
		if (!vc_partial_lookup(img, entry, sector, place, &here))
			return true;
		/* The bits are this entry's only if it did not change meanwhile. */
		smp_rmb();
		if (unlikely(READ_ONCE(img->map[block]) != entry))
			goto again;
		if (!here)
			return false;
		place->bdev = img->bdev;
		place->sector = vc_block_place(img, block, entry) + offset;
		return true;
	}
	if (vc_state_falls_through(state))
		return false;
	place->bdev = NULL;
	return true;
}

bool vc_chain_remap(struct vc_chain *chain, struct bio *bio)
{
	sector_t place, sector = bio->bi_iter.bi_sector;
	u32 nr = bio_sectors(bio);
	unsigned int i = 0;

	if (chain->owner) {
		u64 granule = sector >> chain->granule_shift;

		if (unlikely((sector + nr - 1) >> chain->granule_shift != granule ||
			     granule >= chain->nr_granules))
			return false;
		i = chain->owner[granule];
	}
	for (; i < chain->nr; i++) {
		struct vc_image *img = chain->layers[i];
		enum vc_probe probe = VC_HERE;

		if (!img->raw)
			probe = vc_image_probe(img, sector, nr, &place);
		else if (likely(sector + nr <= img->sectors))
			place = img->first + sector;
		else
			break;
		if (probe == VC_HERE) {
			/* A map entry of a VHD has no place in it. */
			if (unlikely(img->places))
				place += img->places[sector >> img->block_shift];
			vc_remap(bio, img->bdev, place);
			return true;
		}
		if (probe == VC_UNSURE)
			break;
	}
	return false;
}

void vc_chain_lookup(struct vc_chain *chain, sector_t sector, struct vc_place *place)
{
	unsigned int i = 0;

	if (chain && chain->owner) {
		u64 granule = sector >> chain->granule_shift;
		sector_t left = ((granule + 1) << chain->granule_shift) - sector;

		/* Layer 0 itself says what is behind its end. */
		if (granule < chain->nr_granules) {
			i = chain->owner[granule];
			place->nr = min(place->nr, left);
		}
	}
	for (; chain && i < chain->nr; i++)
		if (vc_image_lookup(chain->layers[i], sector, place))
			return;
	/* Below the last layer there are only zeros. */
	place->bdev = NULL;
}

/* The first layer that decides, or may decide, about some sector in a granule. */
static u8 vc_owner(struct vc_chain *chain, u64 granule)
{
	sector_t start = granule << chain->granule_shift;
	sector_t end = start + (1ULL << chain->granule_shift);
	unsigned int i;

	for (i = 0; i < chain->nr; i++) {
		struct vc_image *img = chain->layers[i];

		if (img->raw || end > img->sectors ||
		    vc_entry_state(img->map[start >> img->block_shift]) != VC_ABSENT)
			return i;
	}
	return chain->nr;
}

static int vc_build_owner(struct vc_chain *chain)
{
	/* Behind the end of the first one there are only zeros. */
	sector_t sectors = chain->layers[0]->sectors;
	unsigned int i;
	u64 g;

	/* With one layer the index would say what its map says. */
	if (chain->nr < 2)
		return 0;

	chain->granule_shift = 63;
	for (i = 0; i < chain->nr; i++) {
		struct vc_image *img = chain->layers[i];

		if (!img->raw)
			chain->granule_shift = min(chain->granule_shift, img->block_shift);
	}
	chain->nr_granules = (sectors + (1ULL << chain->granule_shift) - 1) >>
			     chain->granule_shift;
	chain->owner = kvmalloc(chain->nr_granules, GFP_KERNEL);
	if (!chain->owner)
		return -ENOMEM;
	for (g = 0; g < chain->nr_granules; g++) {
		chain->owner[g] = vc_owner(chain, g);
		if (!(g & 0xffff))
			cond_resched();
	}
	return 0;
}

struct vc_chain *vc_chain_get(struct vc_image **layers, unsigned int nr)
{
	struct vc_chain *chain;
	int r;

	mutex_lock(&chain_lock);
	list_for_each_entry(chain, &chains, list) {
		if (chain->nr == nr &&
		    !memcmp(chain->layers, layers, nr * sizeof(*layers))) {
			chain->users++;
			goto out;
		}
	}

	chain = kzalloc(struct_size(chain, layers, nr), GFP_KERNEL);
	if (!chain) {
		chain = ERR_PTR(-ENOMEM);
		goto out;
	}
	chain->nr = nr;
	chain->users = 1;
	memcpy(chain->layers, layers, nr * sizeof(*layers));
	r = vc_build_owner(chain);
	if (r) {
		kfree(chain);
		chain = ERR_PTR(r);
		goto out;
	}
	list_add(&chain->list, &chains);
out:
	mutex_unlock(&chain_lock);
	return chain;
}

void vc_chain_put(struct vc_chain *chain)
{
	mutex_lock(&chain_lock);
	if (!--chain->users) {
		list_del(&chain->list);
		kvfree(chain->owner);
		kfree(chain);
	}
	mutex_unlock(&chain_lock);
}
