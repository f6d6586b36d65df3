// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-vhdclone: the device-mapper target.
 *
 * The grammar of table, status and messages is in dm-vhdclone-if.h.
 *
 * The constructor only checks arguments and opens devices: on a reload it runs
 * while the old table is live and dirty.  Everything is read from the devices in
 * preresume, after the old table's postsuspend wrote what it had, and dropped again
 * in postsuspend: while the clone is suspended the delta is a clean VHDX that any
 * tool may edit.
 */
#include "dm-vhdclone.h"

#include <linux/sched/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>

#define VC_TIMER_PERIOD		HZ

/* ---- the table ----------------------------------------------------------------- */

static int vc_open_layer(struct dm_target *ti, struct vhdclone *vc, unsigned int i,
			 const char *path)
{
	blk_mode_t mode = BLK_OPEN_READ | (i || vc->read_only ? 0 : BLK_OPEN_WRITE);
	struct vc_layer *layer = &vc->layers[i];
	unsigned int lbs, j;
	int r;

	r = dm_get_device(ti, path, mode, &layer->dev);
	if (r) {
		layer->dev = NULL;
		ti->error = i ? "Cannot open the device of a layer below" :
				"Cannot open the device of the top layer";
		return r;
	}
	if (layer->dev->bdev->bd_dev == disk_devt(dm_disk(dm_table_get_md(ti->table)))) {
		ti->error = "A layer is the clone's own device";
		return -EINVAL;
	}
	for (j = 0; j < i; j++) {
		if (vc->layers[j].dev->bdev->bd_dev == layer->dev->bdev->bd_dev) {
			ti->error = "A device is named by two layers";
			return -EINVAL;
		}
	}
	lbs = bdev_logical_block_size(layer->dev->bdev);
	if (lbs > vc->layers[0].args.sector_size) {
		ti->error = "A device's logical block size is larger than the image's";
		return -EINVAL;
	}
	/* Later dm would refuse it, but with the old table suspended already. */
	if (layer->args.raw &&
	    ((layer->args.first & vc->lss_mask) ||
	     layer->args.first + layer->args.sectors >
	     compat_bdev_nr_sectors(layer->dev->bdev))) {
		ti->error = "A raw layer is not aligned or does not fit on its device";
		return -EINVAL;
	}
	return 0;
}

/* ---- constructor, destructor ----------------------------------------------------- */

static void vc_free_args(struct vhdclone *vc)
{
	while (vc->nr_args)
		kfree(vc->args[--vc->nr_args]);
	kfree(vc->args);
}

static int vc_copy_args(struct vhdclone *vc, unsigned int argc, char **argv)
{
	vc->args = kcalloc(argc, sizeof(*vc->args), GFP_KERNEL);
	if (!vc->args)
		return -ENOMEM;
	for (; vc->nr_args < argc; vc->nr_args++) {
		vc->args[vc->nr_args] = kstrdup(argv[vc->nr_args], GFP_KERNEL);
		if (!vc->args[vc->nr_args])
			return -ENOMEM;
	}
	return 0;
}

static void vc_event_work(struct work_struct *work)
{
	struct vhdclone *vc = container_of(work, struct vhdclone, event_work);

	dm_table_event(vc->ti->table);
}

static void vc_commit_work(struct work_struct *work)
{
	vc_commit(container_of(work, struct vhdclone, commit_work));
}

/* Commits what nobody flushed; looks for new space while there is none. */
static void vc_timer_work(struct work_struct *work)
{
	struct vhdclone *vc = container_of(work, struct vhdclone, timer.work);

	if (vc_is_dirty(vc))
		vc_commit(vc);
	if (READ_ONCE(vc->mode) == VC_MODE_OUT_OF_SPACE) {
		vc_space_grow(vc);
		queue_delayed_work(vc->wq, &vc->timer, VC_TIMER_PERIOD);
	}
}

static void vc_free(struct dm_target *ti, struct vhdclone *vc)
{
	unsigned int i;

	if (vc->wq)
		destroy_workqueue(vc->wq);
	bioset_exit(&vc->bs);
	for (i = 0; i < vc->nr_layers; i++)
		if (vc->layers[i].dev)
			dm_put_device(ti, vc->layers[i].dev);
	vc_free_args(vc);
	kfree(vc->images);
	kfree(vc);
}

static int vc_init_parts(struct dm_target *ti, struct vhdclone *vc)
{
	vc->ti = ti;
	spin_lock_init(&vc->queue_lock);
	mutex_init(&vc->commit_lock);
	bio_list_init(&vc->deferred);
	bio_list_init(&vc->flushes);
	bio_list_init(&vc->after_commit);
	INIT_WORK(&vc->io_work, vc_io_work);
	INIT_WORK(&vc->commit_work, vc_commit_work);
	INIT_DELAYED_WORK(&vc->timer, vc_timer_work);
	INIT_WORK(&vc->event_work, vc_event_work);
	INIT_WORK(&vc->discard_work, vc_discard_work);
	INIT_LIST_HEAD(&vc->released);
	vc->wq = alloc_workqueue("vhdclone", WQ_MEM_RECLAIM | WQ_UNBOUND, 0);
	if (!vc->wq)
		return -ENOMEM;
	return bioset_init(&vc->bs, BIO_POOL_SIZE, 0, BIOSET_NEED_RESCUER);
}

static int vc_ctr(struct dm_target *ti, unsigned int argc, char **argv)
{
	struct dm_arg_set as = { .argc = argc, .argv = argv };
	struct vc_features features = { };
	const char **paths = NULL;
	const struct vc_layer_args *top;
	struct vhdclone *vc;
	unsigned int i;
	unsigned int nr_layers;
	int r;

	r = vc_parse_nr_layers(&as, &nr_layers, &ti->error);
	if (r)
		return r;

	vc = kzalloc(struct_size(vc, layers, nr_layers), GFP_KERNEL);
	if (!vc) {
		ti->error = "Cannot allocate the clone";
		return -ENOMEM;
	}
	vc->nr_layers = nr_layers;
	top = &vc->layers[0].args;

	r = -ENOMEM;
	ti->error = "Cannot allocate the clone";
	vc->images = kcalloc(nr_layers, sizeof(*vc->images), GFP_KERNEL);
	paths = kcalloc(nr_layers, sizeof(*paths), GFP_KERNEL);
	if (!vc->images || !paths || vc_copy_args(vc, argc, argv) || vc_init_parts(ti, vc))
		goto bad;

	for (i = 0; i < nr_layers; i++) {
		r = vc_parse_layer(&as, &vc->layers[i].args, &paths[i], &ti->error);
		if (!r)
			r = vc_check_layer(&vc->layers[i].args, i, nr_layers, top,
					   &ti->error);
		if (r)
			goto bad;
	}
	r = vc_parse_features(&as, &features, &ti->error);
	if (r)
		goto bad;
	vc->read_only = features.read_only;
	vc->discard_passdown = !features.no_discard_passdown;
	vc->has_low_water = features.has_low_water;
	vc->low_water_blocks = features.low_water_blocks;
	if (!(dm_table_get_mode(ti->table) & BLK_OPEN_WRITE))
		vc->read_only = true;
	vc->lss_mask = (top->sector_size >> SECTOR_SHIFT) - 1;
	for (i = 0; i < nr_layers; i++) {
		r = vc_open_layer(ti, vc, i, paths[i]);
		if (r)
			goto bad;
	}

	r = -EINVAL;
	if (ti->len > top->sectors) {
		ti->error = "The target is longer than the image's virtual size";
		goto bad;
	}
	vc->total_blocks = DIV_ROUND_UP_ULL(top->sectors, top->block_sectors);
	vc->page_sectors = VHDX_SECTORS_PER_PAGE * (top->sector_size >> SECTOR_SHIFT);
	vc->write_sectors = min(top->block_sectors, vc->page_sectors);
	vc->block_mask = top->block_sectors - 1;
	vc->big_blocks = top->block_sectors > vc->page_sectors;
	ti->num_flush_bios = 1;
	ti->flush_supported = true;
	ti->num_discard_bios = 1;
	ti->discards_supported = true;
	ti->num_write_zeroes_bios = 1;
	ti->per_io_data_size = sizeof(struct vc_io);
	compat_target_accounts_remapped_io(ti);
	compat_target_limit_swap_bios(ti);
	ti->private = vc;
	kfree(paths);
	return 0;

bad:
	kfree(paths);
	vc_free(ti, vc);
	return r;
}

/* ---- suspend and resume ------------------------------------------------------------- */

static void vc_put_images(struct vhdclone *vc)
{
	unsigned int i;

	if (vc->chain)
		vc_chain_put(vc->chain);
	vc->chain = NULL;
	for (i = 0; i < vc->nr_layers; i++) {
		if (vc->images[i])
			vc_image_put(vc->images[i]);
		vc->images[i] = NULL;
	}
}

static int vc_get_images(struct vhdclone *vc)
{
	unsigned int i;

	for (i = 0; i < vc->nr_layers; i++) {
		struct vc_layer *layer = &vc->layers[i];
		struct vc_image *img;

		img = vc_image_get(vc_name(vc), layer->dev->name, layer->dev->bdev,
				   &layer->args,
				   i || vc->read_only ? VC_USE_READ : VC_USE_WRITE,
				   i + 1 < vc->nr_layers);
		if (IS_ERR(img))
			return PTR_ERR(img);
		vc->images[i] = img;
	}
	if (vc->nr_layers > 1) {
		struct vc_chain *chain = vc_chain_get(vc->images + 1, vc->nr_layers - 1);

		if (IS_ERR(chain))
			return PTR_ERR(chain);
		vc->chain = chain;
	}
	return 0;
}

static int vc_activate(struct vhdclone *vc)
{
	struct vc_image *top;
	int r;

	r = vc_get_images(vc);
	if (r)
		return r;

	top = vc->images[0];
	vc->differencing = top->meta.has_parent;
	vc->nr_present = top->nr_full + top->nr_partial;
	vc->nr_partial = top->nr_partial;
	vc->nr_free_mib = top->space.nr_free;
	vc->low_water_hit = false;
	vc->session = false;
	vc->mode = vc->read_only ? VC_MODE_RO : VC_MODE_RW;
	vc->gate = vc->read_only ? VC_GATE_REFUSE : VC_GATE_CLOSED;
	if (!compat_bdev_max_discard_sectors(top->bdev))
		vc->discard_passdown = false;

	vc->top = top;
	r = vc->read_only ? 0 : vc_log_init(vc);
	if (r)
		vc->top = NULL;
	return r;
}

static bool vc_has_pins(struct vc_image *img)
{
	struct vc_page *page;
	bool found = false;

	spin_lock_irq(&img->lock);
	list_for_each_entry(page, &img->page_list, list) {
		found = atomic_read(&page->pins) > 0;
		if (found)
			break;
	}
	spin_unlock_irq(&img->lock);
	return found;
}

static bool vc_has_work(struct vhdclone *vc)
{
	bool busy;

	spin_lock_irq(&vc->queue_lock);
	busy = !bio_list_empty(&vc->deferred) || !bio_list_empty(&vc->flushes) ||
	       !bio_list_empty(&vc->after_commit);
	spin_unlock_irq(&vc->queue_lock);
	return busy;
}

/* dm has waited for all bios, except when the device is being destroyed. */
static void vc_drain(struct vhdclone *vc)
{
	for (;;) {
		flush_work(&vc->io_work);
		flush_work(&vc->commit_work);
		if (!vc_has_work(vc) && !vc_has_pins(vc->top))
			break;
		schedule_timeout_uninterruptible(1);
	}
	cancel_delayed_work_sync(&vc->timer);
}

static void vc_deactivate(struct vhdclone *vc)
{
	unsigned int noio;

	if (!vc->top)
		return;
	noio = memalloc_noio_save();
	vc_drain(vc);
	if (!vc->read_only)
		vc_session_end(vc);
	flush_work(&vc->io_work);
	cancel_delayed_work_sync(&vc->timer);
	flush_work(&vc->commit_work);
	flush_work(&vc->event_work);
	flush_work(&vc->discard_work);

	/* Messages that come now find nothing to do. */
	mutex_lock(&vc->commit_lock);
	if (!vc->read_only)
		vc_log_exit(vc);
	vc->top = NULL;
	mutex_unlock(&vc->commit_lock);
	vc_put_images(vc);
	memalloc_noio_restore(noio);
}

/* Maps up to 4 MiB may come from the system's reserves, which are not many times that. */
#define VC_RESERVES_BLOCKS	(SZ_4M / sizeof(u32))

static int vc_preresume(struct dm_target *ti)
{
	struct vhdclone *vc = ti->private;
	unsigned int noio, noreclaim;
	int r;

	/* Another target of this table failed to resume, and userspace was here since. */
	vc_deactivate(vc);
	/* Reclaim must not wait for bios that wait for this resume. */
	noio = memalloc_noio_save();
	/*
	 * Nor for memory: all there is may wait for swap that this brings back.  What is
	 * free has to do, the system's reserves included.  Only if that is not enough it is
	 * reclaimed, or if the map is so large that it would leave nothing of them.
	 */
	r = -ENOMEM;
	if (vc->total_blocks <= VC_RESERVES_BLOCKS) {
		noreclaim = memalloc_noreclaim_save();
		r = vc_activate(vc);
		memalloc_noreclaim_restore(noreclaim);
	}
	if (r == -ENOMEM) {
		vc_put_images(vc);
		r = vc_activate(vc);
	}
	if (r) {
		DMERR("%s: not activated: error %d", vc_name(vc), r);
		vc_put_images(vc);
	}
	memalloc_noio_restore(noio);
	return r;
}

static void vc_postsuspend(struct dm_target *ti)
{
	vc_deactivate(ti->private);
}

static void vc_dtr(struct dm_target *ti)
{
	struct vhdclone *vc = ti->private;

	/* Suspended all the time, because another target failed to resume. */
	vc_deactivate(vc);
	vc_free(ti, vc);
}

/* ---- status, messages ------------------------------------------------------------------ */

static const char *vc_mode_name(struct vhdclone *vc)
{
	switch (READ_ONCE(vc->mode)) {
	case VC_MODE_RO:
		return VHDCLONE_MODE_RO;
	case VC_MODE_OUT_OF_SPACE:
		return VHDCLONE_MODE_OUT_OF_SPACE;
	case VC_MODE_FAIL:
		return VHDCLONE_MODE_FAIL;
	default:
		return VHDCLONE_MODE_RW;
	}
}

static void vc_status_info(struct vhdclone *vc, char *result, unsigned int maxlen)
{
	const struct vc_layer_args *top = &vc->layers[0].args;
	u64 log_pages = (top->log_sectors << SECTOR_SHIFT) / VHDX_LOG_SECTOR;
	unsigned int sz = 0;

	DMEMIT("%u ", top->block_sectors);
	if (READ_ONCE(vc->top)) {
		DMEMIT("%u/%u %u ", READ_ONCE(vc->nr_present), vc->total_blocks,
		       READ_ONCE(vc->nr_partial));
		if (vc->read_only)
			DMEMIT("- ");
		else
			DMEMIT("%llu ", READ_ONCE(vc->nr_free_mib) << MIB_SECTOR_SHIFT);
		DMEMIT("%u %u/%llu ",
		       READ_ONCE(vc->nr_bat_dirty) + READ_ONCE(vc->nr_dirty_pages),
		       READ_ONCE(vc->log_used), log_pages);
	} else {
		DMEMIT("-/%u - - - -/%llu ", vc->total_blocks, log_pages);
	}
	DMEMIT("%lld %d %s", (long long)atomic64_read(&vc->stats[VC_STAT_COMMITS]),
	       atomic_read(&vc->errors), vc_mode_name(vc));
}

static void vc_status_table(struct vhdclone *vc, char *result, unsigned int maxlen)
{
	unsigned int sz = 0, i;

	for (i = 0; i < vc->nr_args; i++)
		DMEMIT("%s%s", i ? " " : "", vc->args[i]);
}

static void vc_status_ima(struct vhdclone *vc, char *result, unsigned int maxlen)
{
#ifdef COMPAT_HAVE_STATUSTYPE_IMA
	unsigned int sz = 0, i;

	DMEMIT_TARGET_NAME_VERSION(vc->ti->type);
	DMEMIT(",read_only=%c", vc->read_only ? 'y' : 'n');
	for (i = 0; i < vc->nr_layers; i++)
		DMEMIT(",layer_%u=%s", i, vc->layers[i].dev->name);
	DMEMIT(";");
#endif
}

static void vc_status(struct dm_target *ti, status_type_t type, unsigned int flags,
		      char *result, unsigned int maxlen)
{
	struct vhdclone *vc = ti->private;

	*result = '\0';
	if (type == STATUSTYPE_INFO)
		vc_status_info(vc, result, maxlen);
	else if (type == STATUSTYPE_TABLE)
		vc_status_table(vc, result, maxlen);
	else
		vc_status_ima(vc, result, maxlen);
}

static int vc_message_stats(struct vhdclone *vc, char *result, unsigned int maxlen)
{
	static const char * const names[VC_NR_STATS] = {
		[VC_STAT_DEFERRED]	= "deferred",
		[VC_STAT_COMMITS]	= "commits",
		[VC_STAT_LOG_ENTRIES]	= "log_entries",
		[VC_STAT_LOG_PAGES]	= "log_pages",
		[VC_STAT_IN_PLACE]	= "in_place",
		[VC_STAT_CHECKPOINTS]	= "checkpoints",
		[VC_STAT_FLUSHES]	= "flushes",
		[VC_STAT_ZERO_FILLS]	= "zero_fills",
		[VC_STAT_DISCARDS]	= "discards",
		[VC_STAT_PASSDOWNS]	= "passdowns",
		[VC_STAT_PROMOTIONS]	= "promotions",
	};
	unsigned int sz = 0, i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		DMEMIT("%s%s %lld", i ? " " : "", names[i],
		       (long long)atomic64_read(&vc->stats[i]));
	return 1;
}

static int vc_message(struct dm_target *ti, unsigned int argc, char **argv, char *result,
		      unsigned int maxlen)
{
	struct vhdclone *vc = ti->private;
	unsigned int i;

	if (argc == 1 && !strcasecmp(argv[0], VHDCLONE_MSG_COMMIT))
		return dm_suspended(ti) ? -EBUSY : vc_sync(vc);
	if (argc == 1 && !strcasecmp(argv[0], VHDCLONE_MSG_STATS))
		return vc_message_stats(vc, result, maxlen);
	if (argc == 1 && !strcasecmp(argv[0], VHDCLONE_MSG_RESET_STATS)) {
		for (i = 0; i < VC_NR_STATS; i++)
			atomic64_set(&vc->stats[i], 0);
		return 0;
	}
	DMWARN("%s: unknown message \"%s\": want commit, stats or reset_stats, alone",
	       vc_name(vc), argv[0]);
	return -EINVAL;
}

/* ---- limits ---------------------------------------------------------------------------- */

static int vc_iterate_devices(struct dm_target *ti, iterate_devices_callout_fn fn,
			      void *data)
{
	struct vhdclone *vc = ti->private;
	sector_t mask = vc->lss_mask;
	unsigned int i;
	int r = 0;

	for (i = 0; i < vc->nr_layers && !r; i++) {
		struct vc_layer *layer = &vc->layers[i];
		sector_t size = compat_bdev_nr_sectors(layer->dev->bdev);

		r = layer->args.raw ?
		    fn(ti, layer->dev, layer->args.first, layer->args.sectors & ~mask, data) :
		    fn(ti, layer->dev, 0, size & ~mask, data);
	}
	return r;
}

static void vc_io_hints(struct dm_target *ti, struct queue_limits *limits)
{
	struct vhdclone *vc = ti->private;
	const struct vc_layer_args *top = &vc->layers[0].args;
	unsigned int block_bytes = top->block_sectors << SECTOR_SHIFT;

	limits->logical_block_size = max(limits->logical_block_size, top->sector_size);
	limits->physical_block_size = max(limits->physical_block_size,
					  limits->logical_block_size);
	limits->io_min = max(limits->io_min, limits->physical_block_size);
	limits->io_opt = block_bytes;
	compat_limits_set_discard(limits, block_bytes,
				  round_down(UINT_MAX >> SECTOR_SHIFT, top->block_sectors));
	/* Bios that the worker submits are not polled for. */
	compat_limits_no_poll(limits);
}

static struct target_type vhdclone_target = {
	.name			= VHDCLONE_TARGET_NAME,
	.version		= { VHDCLONE_VERSION_MAJOR, VHDCLONE_VERSION_MINOR,
				    VHDCLONE_VERSION_PATCH },
	.features		= DM_TARGET_NOWAIT,
	.module			= THIS_MODULE,
	.ctr			= vc_ctr,
	.dtr			= vc_dtr,
	.map			= vc_map,
	.end_io			= vc_end_io,
	.preresume		= vc_preresume,
	.postsuspend		= vc_postsuspend,
	.status			= vc_status,
	.message		= vc_message,
	.iterate_devices	= vc_iterate_devices,
	.io_hints		= vc_io_hints,
};

static int __init vc_init(void)
{
	int r = vc_pages_register();

	if (r)
		return r;
	r = dm_register_target(&vhdclone_target);
	if (r)
		vc_pages_unregister();
	return r;
}

static void __exit vc_exit(void)
{
	dm_unregister_target(&vhdclone_target);
	vc_pages_unregister();
}

module_init(vc_init);
module_exit(vc_exit);

MODULE_DESCRIPTION(DM_NAME " VHDX clone target");
MODULE_AUTHOR("The dm-vhdclone developers");
MODULE_LICENSE("GPL");
