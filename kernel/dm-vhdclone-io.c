// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-vhdclone: plain bios to metadata.
 *
 * Neither dm-io (its prototype changes inside stable series) nor dm-bufio (it may
 * write a dirty buffer at any time, which breaks write-ahead logging).
 */
#include "dm-vhdclone.h"

#include <linux/vmalloc.h>

void vc_batch_init(struct vc_batch *batch)
{
	atomic_set(&batch->pending, 1);
	batch->status = BLK_STS_OK;
	init_completion(&batch->done);
}

static void vc_batch_drop(struct vc_batch *batch)
{
	if (atomic_dec_and_test(&batch->pending))
		complete(&batch->done);
}

static void vc_batch_end_io(struct bio *bio)
{
	struct vc_batch *batch = bio->bi_private;

	if (bio->bi_status)
		WRITE_ONCE(batch->status, bio->bi_status);
	bio_put(bio);
	vc_batch_drop(batch);
}

void vc_batch_add(struct vc_batch *batch, struct bio_set *bs,
		  struct block_device *bdev, blk_opf_t opf, sector_t sector,
		  struct page **pages, unsigned int nr_pages)
{
	struct bio *bio = compat_bio_alloc_bioset(bdev, nr_pages, opf, GFP_NOIO, bs);
	unsigned int i;

	bio->bi_iter.bi_sector = sector;
	bio->bi_private = batch;
	bio->bi_end_io = vc_batch_end_io;
	for (i = 0; i < nr_pages; i++)
		__bio_add_page(bio, pages[i], VHDX_PAGE_SIZE, 0);

	atomic_inc(&batch->pending);
	submit_bio_noacct(bio);
}

int vc_batch_wait(struct vc_batch *batch)
{
	vc_batch_drop(batch);
	wait_for_completion_io(&batch->done);
	return blk_status_to_errno(batch->status);
}

/* One bio for as much of the buffer as fits; returns the bytes read. */
static ssize_t vc_read_some(struct block_device *bdev, sector_t sector, void *buf,
			    size_t bytes)
{
	struct bio_vec vecs[16];
	struct bio bio;
	size_t done = 0;
	int r;

	compat_bio_init(&bio, bdev, vecs, ARRAY_SIZE(vecs), REQ_OP_READ | REQ_META);
	bio.bi_iter.bi_sector = sector;
	while (done < bytes) {
		void *p = buf + done;
		unsigned int len = min_t(size_t, bytes - done,
					 PAGE_SIZE - offset_in_page(p));
		struct page *page = is_vmalloc_addr(p) ? vmalloc_to_page(p) :
							 virt_to_page(p);

		if (bio_add_page(&bio, page, len, offset_in_page(p)) != len)
			break;
		done += len;
	}
	r = submit_bio_wait(&bio);
	bio_uninit(&bio);
	return r ? r : done;
}

int vc_read(struct block_device *bdev, sector_t sector, void *buf, size_t bytes)
{
	while (bytes) {
		ssize_t r = vc_read_some(bdev, sector, buf, bytes);

		if (r < 0)
			return r;
		buf += r;
		bytes -= r;
		sector += r >> SECTOR_SHIFT;
	}
	return 0;
}

int vc_write_page(struct block_device *bdev, sector_t sector, struct page *page,
		  blk_opf_t opf)
{
	struct bio_vec vec;
	struct bio bio;
	int r;

	compat_bio_init(&bio, bdev, &vec, 1, REQ_OP_WRITE | REQ_META | REQ_SYNC | opf);
	bio.bi_iter.bi_sector = sector;
	__bio_add_page(&bio, page, VHDX_PAGE_SIZE, 0);
	r = submit_bio_wait(&bio);
	bio_uninit(&bio);
	return r;
}
