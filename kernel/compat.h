/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Kernel API differences between Linux 5.10 and 7.2, all in one place.
 *
 * Rules:
 *  - The driver proper is written against the newest supported kernel.  Only
 *    this file tests for kernel versions.
 *  - Prefer "#ifndef <macro>" over LINUX_VERSION_CODE: stable and enterprise
 *    kernels backport.  Where only a version number can tell, the comment
 *    names the mainline release that changed.
 *  - A changed function gets a compat_ wrapper with the new semantics; a kernel
 *    name is only defined here when it is a macro that the kernel lacks.
 *  - An in-tree build drops this file and replaces compat_x() by x().
 */
#ifndef DM_VHDCLONE_COMPAT_H
#define DM_VHDCLONE_COMPAT_H

#include <linux/version.h>
#include <linux/bio.h>
#include <linux/blkdev.h>
#include <linux/crc32c.h>
#include <linux/device-mapper.h>
#include <linux/highmem.h>
#include <linux/module.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/timer.h>
#include <linux/uuid.h>
#include <linux/workqueue.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(5, 10, 0)
#error "dm-vhdclone needs Linux 5.10 or newer"
#endif

/* 6.12: <linux/unaligned.h>.  (sparse 0.6.4 has no __has_include.) */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 12, 0)
#include <linux/unaligned.h>
#else
#include <asm/unaligned.h>
#endif

/* 6.5: blk_mode_t and BLK_OPEN_* replace fmode_t and FMODE_* for bdevs. */
#ifndef BLK_OPEN_READ
typedef fmode_t blk_mode_t;
#define BLK_OPEN_READ	FMODE_READ
#define BLK_OPEN_WRITE	FMODE_WRITE
#endif

/* 6.4: module_dm(). */
#ifndef module_dm
#define module_dm(name)					\
static int __init dm_##name##_init(void)		\
{							\
	return dm_register_target(&(name##_target));	\
}							\
module_init(dm_##name##_init)				\
static void __exit dm_##name##_exit(void)		\
{							\
	dm_unregister_target(&(name##_target));		\
}							\
module_exit(dm_##name##_exit)
#endif

/* 5.15: STATUSTYPE_IMA (an enumerator: test the macro that came with it). */
#ifdef DMEMIT_TARGET_NAME_VERSION
#define COMPAT_HAVE_STATUSTYPE_IMA 1
#endif

/* 5.11: bdev_nr_sectors(). */
static inline sector_t compat_bdev_nr_sectors(struct block_device *bdev)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 11, 0)
	return bdev_nr_sectors(bdev);
#else
	return i_size_read(bdev->bd_inode) >> SECTOR_SHIFT;
#endif
}

/* 5.12: no gfp argument. */
static inline int compat_blkdev_issue_flush(struct block_device *bdev)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 12, 0)
	return blkdev_issue_flush(bdev);
#else
	return blkdev_issue_flush(bdev, GFP_NOIO);
#endif
}

/* 6.0: blk_opf_t. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 0, 0)
typedef unsigned int blk_opf_t;
#endif

/* 5.18: bdev and opf are arguments of bio_init(), bio_alloc_bioset() ... */
static inline void compat_bio_init(struct bio *bio, struct block_device *bdev,
				   struct bio_vec *table, unsigned short max_vecs,
				   blk_opf_t opf)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
	bio_init(bio, bdev, table, max_vecs, opf);
#else
	bio_init(bio, table, max_vecs);
	bio_set_dev(bio, bdev);
	bio->bi_opf = opf;
#endif
}

static inline struct bio *compat_bio_alloc_bioset(struct block_device *bdev,
						  unsigned short nr_vecs,
						  blk_opf_t opf, gfp_t gfp,
						  struct bio_set *bs)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
	return bio_alloc_bioset(bdev, nr_vecs, opf, gfp, bs);
#else
	struct bio *bio = bio_alloc_bioset(gfp, nr_vecs, bs);

	if (bio) {
		bio_set_dev(bio, bdev);
		bio->bi_opf = opf;
	}
	return bio;
#endif
}

/* 5.16: REQ_POLLED replaces REQ_HIPRI. */
static inline void compat_bio_clear_polled(struct bio *bio)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 16, 0)
	bio_clear_polled(bio);
#else
	bio->bi_opf &= ~REQ_HIPRI;
#endif
}

/*
 * 5.18: bio_alloc_clone() replaces bio_clone_fast().  The clone never
 * inherits REQ_POLLED: nobody polls for a bio that the target allocated.
 */
static inline struct bio *compat_bio_alloc_clone(struct block_device *bdev,
						 struct bio *src, gfp_t gfp,
						 struct bio_set *bs)
{
	struct bio *bio;

#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
	bio = bio_alloc_clone(bdev, src, gfp, bs);
#else
	bio = bio_clone_fast(src, gfp, bs);
	if (bio)
		bio_set_dev(bio, bdev);
#endif
	if (bio)
		compat_bio_clear_polled(bio);
	return bio;
}

/* 5.18: dm_submit_bio_remap(); older cores account before calling map(). */
static inline void compat_submit_remapped(struct bio *bio)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
	dm_submit_bio_remap(bio, NULL);
#else
	submit_bio_noacct(bio);
#endif
}

static inline void compat_target_accounts_remapped_io(struct dm_target *ti)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 18, 0)
	ti->accounts_remapped_io = true;
#endif
}

/* 5.12, and 5.10.20 or so by backport: limit_swap_bios. */
static inline void compat_target_limit_swap_bios(struct dm_target *ti)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 12, 0)
	ti->limit_swap_bios = true;
#endif
}

/* 6.11: BLK_FEAT_*; older cores have no way for a target to refuse polling. */
static inline void compat_limits_no_poll(struct queue_limits *limits)
{
#ifdef BLK_FEAT_POLL
	limits->features &= ~BLK_FEAT_POLL;
#endif
}

/*
 * 6.10 computes max_discard_sectors from max_hw_discard_sectors; before that
 * dm copied the limits as they were, so set both.
 */
static inline void compat_limits_set_discard(struct queue_limits *limits,
					     unsigned int granularity_bytes,
					     unsigned int max_sectors)
{
	limits->discard_granularity = granularity_bytes;
	limits->discard_alignment = 0;
	limits->max_discard_sectors = max_sectors;
	limits->max_hw_discard_sectors = max_sectors;
}

/* 5.19: bdev_max_discard_sectors(). */
static inline unsigned int compat_bdev_max_discard_sectors(struct block_device *bdev)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 19, 0)
	return bdev_max_discard_sectors(bdev);
#else
	struct request_queue *q = bdev_get_queue(bdev);

	return blk_queue_discard(q) ? q->limits.max_discard_sectors : 0;
#endif
}

/* 5.19: no flags argument. */
static inline int compat_blkdev_issue_discard(struct block_device *bdev,
					      sector_t sector, sector_t nr, gfp_t gfp)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(5, 19, 0)
	return blkdev_issue_discard(bdev, sector, nr, gfp);
#else
	return blkdev_issue_discard(bdev, sector, nr, gfp, 0);
#endif
}

/* 6.17: WQ_PERCPU (an enumerator; 6.12.y has it by backport: use our name). */
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 17, 0)
#define COMPAT_WQ_PERCPU	WQ_PERCPU
#else
#define COMPAT_WQ_PERCPU	0
#endif

/* 6.16: timer_container_of() replaces from_timer(). */
#ifndef timer_container_of
#define timer_container_of(var, callback_timer, timer_fieldname) \
	from_timer(var, callback_timer, timer_fieldname)
#endif

/* 6.2: timer_delete_sync(); 5.10.y and 6.1.y have it by backport. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 2, 0)
#define compat_timer_delete_sync(t) del_timer_sync(t)
#else
#define compat_timer_delete_sync(t) timer_delete_sync(t)
#endif

/*
 * 6.7: shrinkers are allocated by the core and carry private_data.
 * 6.0: register_shrinker() takes a name.
 */
struct compat_shrinker {
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
	struct shrinker shrinker;
	void *private_data;
#else
	struct shrinker *shrinker;
#endif
};

static inline void *compat_shrinker_private(struct shrinker *shrinker)
{
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 7, 0)
	return container_of(shrinker, struct compat_shrinker, shrinker)->private_data;
#else
	return shrinker->private_data;
#endif
}

static inline int
compat_shrinker_register(struct compat_shrinker *s, const char *name, void *private_data,
			 unsigned long (*count)(struct shrinker *, struct shrink_control *),
			 unsigned long (*scan)(struct shrinker *, struct shrink_control *))
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	s->shrinker = shrinker_alloc(0, "%s", name);
	if (!s->shrinker)
		return -ENOMEM;
	s->shrinker->count_objects = count;
	s->shrinker->scan_objects = scan;
	s->shrinker->seeks = DEFAULT_SEEKS;
	s->shrinker->private_data = private_data;
	shrinker_register(s->shrinker);
	return 0;
#else
	s->private_data = private_data;
	s->shrinker.count_objects = count;
	s->shrinker.scan_objects = scan;
	s->shrinker.seeks = DEFAULT_SEEKS;
	s->shrinker.batch = 0;
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 0, 0)
	return register_shrinker(&s->shrinker, "%s", name);
#else
	return register_shrinker(&s->shrinker);
#endif
#endif
}

static inline void compat_shrinker_unregister(struct compat_shrinker *s)
{
#if LINUX_VERSION_CODE >= KERNEL_VERSION(6, 7, 0)
	shrinker_free(s->shrinker);
#else
	unregister_shrinker(&s->shrinker);
#endif
}

#endif /* DM_VHDCLONE_COMPAT_H */
