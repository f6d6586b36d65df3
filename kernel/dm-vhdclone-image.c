// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-vhdclone: one layer, checked whole before it is believed.
 *
 * The table line comes from userspace and the image from anywhere.  Both are
 * compared here with each other and with the device, at every resume: header,
 * region table, metadata and each BAT entry are checked before the first I/O, and
 * what is wrong is named with its byte offset.  A log that is not empty is never
 * replayed here: that is userspace's.
 *
 * The registry knows every image in use on this host.  dm's own claim on a device
 * is shared by all dm devices, so it alone does not stop two of them from writing
 * one delta, or one from writing another's base.
 */
#include "dm-vhdclone.h"

#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

static DEFINE_MUTEX(registry_lock);
static LIST_HEAD(registry);

/* Each of them has room for 1 MiB, of which none is used but for entries of the log. */
#define VC_BIO_POOL	4

int vc_refuse(struct vc_load *load, const struct vhdx_fault *fault, int r)
{
	DMERR("%s: %s: %s, at byte offset %llu (value 0x%llx)", load->name, load->path,
	      fault->what, fault->offset, fault->value);
	return r;
}

int vc_load_read(struct vc_load *load, u64 offset, void *buf, size_t bytes,
		 const char *what)
{
	struct block_device *bdev = load->img->bdev;
	u64 size = (u64)compat_bdev_nr_sectors(bdev) << SECTOR_SHIFT;
	int r;

	if (offset > size || bytes > size - offset) {
		DMERR("%s: %s: %s lies past the end of the device, at byte offset %llu",
		      load->name, load->path, what, offset);
		return -EINVAL;
	}
	r = vc_read(bdev, offset >> SECTOR_SHIFT, buf, bytes);
	if (r)
		DMERR("%s: %s: cannot read %s at byte offset %llu: error %d", load->name,
		      load->path, what, offset, r);
	return r;
}

static int vc_load_header(struct vc_load *load)
{
	struct vhdx_header_info *header = &load->img->header;
	struct vhdx_header *copies = load->buf;
	struct vhdx_fault fault = {};
	int r;

	r = vc_load_read(load, VHDX_IDENTIFIER_OFFSET, load->buf, VHDX_PAGE_SIZE,
			 "file identifier");
	if (r)
		return r;
	r = vhdx_identifier_check(load->buf, &fault);
	if (r)
		return vc_refuse(load, &fault, r);

	r = vc_load_read(load, VHDX_HEADER1_OFFSET, &copies[0], VHDX_HEADER_SIZE,
			 "header 1");
	if (!r)
		r = vc_load_read(load, VHDX_HEADER2_OFFSET, &copies[1],
				 VHDX_HEADER_SIZE, "header 2");
	if (r)
		return r;
	r = vhdx_header_parse(&copies[0], &copies[1], header, &fault);
	if (r)
		return vc_refuse(load, &fault, r);

	if (header->log_dirty) {
		fault.what = "header: LogGuid is set: needs recovery, run vhdclone recover";
		fault.offset = vhdx_header_offset(header->slot) +
			       offsetof(struct vhdx_header, log_guid);
		return vc_refuse(load, &fault, -EUCLEAN);
	}
	return 0;
}

static int vc_load_regions(struct vc_load *load, struct vhdx_regions *regions)
{
	static const u64 offsets[] = {
		VHDX_REGION_TABLE1_OFFSET, VHDX_REGION_TABLE2_OFFSET,
	};
	struct vhdx_fault fault = {};
	unsigned int i;
	int r = -EINVAL;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		r = vc_load_read(load, offsets[i], load->region_table,
				 VHDX_REGION_TABLE_SIZE, "region table");
		if (r)
			return r;
		load->region_table_offset = offsets[i];
		r = vhdx_region_table_parse(load->region_table, offsets[i], regions,
					    &fault);
		/* A torn copy has a twin; a wrong one is wrong. */
		if (r != -EBADMSG)
			break;
	}
	return r ? vc_refuse(load, &fault, r) : 0;
}

static int vc_load_metadata(struct vc_load *load, const struct vhdx_region *region)
{
	u8 values[VHDX_ITEM_PARENT_LOCATOR][VHDX_ITEM_VALUE_MAX] = {};
	struct vhdx_item_place items[VHDX_ITEM_COUNT];
	struct vhdx_fault fault = {};
	unsigned int i;
	int r;

	r = vc_load_read(load, region->offset, load->buf, VHDX_METADATA_TABLE_SIZE,
			 "metadata table");
	if (r)
		return r;
	r = vhdx_metadata_table_parse(load->buf, region, items, &fault);
	if (r)
		return vc_refuse(load, &fault, r);

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		u64 offset = region->offset + items[i].offset;
		u64 start = round_down(offset, VHDX_PAGE_SIZE);
		u64 end = round_up(offset + items[i].length, VHDX_PAGE_SIZE);

		if (items[i].length > VHDX_ITEM_VALUE_MAX)
			return -EINVAL;
		r = vc_load_read(load, start, load->buf, end - start, "metadata item");
		if (r)
			return r;
		memcpy(values[i], load->buf + (offset - start), items[i].length);
	}

	r = vhdx_metadata_decode((const u8 (*)[VHDX_ITEM_VALUE_MAX])values, region,
				 items, &load->img->meta, &fault);
	return r ? vc_refuse(load, &fault, r) : 0;
}

int vc_differs(struct vc_load *load, const char *what, u64 table, u64 image)
{
	DMERR("%s: %s: the table says %s %llu, the image %llu", load->name, load->path,
	      what, table, image);
	return -EINVAL;
}

int vc_check_lower(struct vc_load *load)
{
	const struct vc_image *img = load->img;

	if (img->meta.has_parent && !img->has_lower) {
		DMERR("%s: %s: is a differencing image, but the table has no layer below it",
		      load->name, load->path);
		return -EINVAL;
	}
	if (!img->meta.has_parent && img->has_lower) {
		DMERR("%s: %s: is no differencing image, but the table has a layer below it",
		      load->name, load->path);
		return -EINVAL;
	}
	return 0;
}

/* The table line describes this image and no other. */
static int vc_compare_table(struct vc_load *load, const struct vhdx_regions *regions)
{
	const struct vc_image *img = load->img;
	const struct vc_layer_args *args = &img->args;
	const struct vhdx_metadata *meta = &img->meta;

	if (args->sectors != meta->virtual_size >> SECTOR_SHIFT)
		return vc_differs(load, "virtual sectors", args->sectors,
				  meta->virtual_size >> SECTOR_SHIFT);
	if (args->block_sectors != meta->block_size >> SECTOR_SHIFT)
		return vc_differs(load, "block sectors", args->block_sectors,
				  meta->block_size >> SECTOR_SHIFT);
	if (args->sector_size != meta->logical_sector_size)
		return vc_differs(load, "sector size", args->sector_size,
				  meta->logical_sector_size);
	if (args->bat != regions->bat.offset >> SECTOR_SHIFT)
		return vc_differs(load, "BAT sector", args->bat,
				  regions->bat.offset >> SECTOR_SHIFT);
	if (args->log != img->header.log_offset >> SECTOR_SHIFT)
		return vc_differs(load, "log sector", args->log,
				  img->header.log_offset >> SECTOR_SHIFT);
	if (args->log_sectors != img->header.log_length >> SECTOR_SHIFT)
		return vc_differs(load, "log sectors", args->log_sectors,
				  img->header.log_length >> SECTOR_SHIFT);

	return vc_check_lower(load);
}

static u32 vc_entry_from_bat(u64 entry)
{
	u32 mib = vhdx_bat_mib(entry);

	switch (vhdx_bat_state(entry)) {
	case VHDX_BLOCK_FULLY_PRESENT:
		return vc_entry(VC_FULL, mib);
	case VHDX_BLOCK_PARTIALLY_PRESENT:
		return vc_entry(VC_PARTIAL, mib);
	case VHDX_BLOCK_NOT_PRESENT:
		return vc_entry(VC_ABSENT, 0);
	default:
		return vc_entry(VC_ZERO, 0);
	}
}

static int vc_check_end(struct vc_load *load, u64 offset, u64 entry, u32 number,
			bool is_bitmap)
{
	const struct vc_image *img = load->img;
	struct vhdx_fault fault = {
		.what = "BAT entry: the block lies past the end of the device",
		.offset = offset,
		.value = entry,
	};

	if (vhdx_bat_entry_end(&img->geo, entry, is_bitmap, number) <=
	    (u64)compat_bdev_nr_sectors(img->bdev) << SECTOR_SHIFT)
		return 0;
	return vc_refuse(load, &fault, -EINVAL);
}

static int vc_load_bat(struct vc_load *load)
{
	struct vc_image *img = load->img;
	struct vhdx_bat_walk walk = {
		.geo = &img->geo,
		.claims = &load->claims,
		.bat_offset = img->bat_region.offset,
	};
	u32 left = img->geo.nr_entries;
	u64 offset = img->bat_region.offset;
	struct vhdx_fault fault = {};
	int r;

	while (left) {
		u32 i, nr = min_t(u32, left, VC_LOAD_BYTES / 8);
		size_t bytes = round_up(nr * 8, VHDX_PAGE_SIZE);
		const __le64 *bat = load->buf;

		r = vc_load_read(load, offset, load->buf, bytes, "BAT");
		if (r)
			return r;
		for (i = 0; i < nr; i++) {
			bool is_bitmap;
			u32 number;
			u64 entry;

			/* Their map entries are zero already. */
			i += vhdx_bat_walk_absent(&walk, &bat[i], nr - i);
			if (i == nr)
				break;
			entry = le64_to_cpu(bat[i]);
			r = vhdx_bat_walk_entry(&walk, entry, &is_bitmap, &number, &fault);
			if (r)
				return vc_refuse(load, &fault, r);
			if (number == ~0U)
				continue;
			if (is_bitmap)
				img->bitmaps[number] =
					vhdx_bat_state(entry) == VHDX_BITMAP_PRESENT ?
					vhdx_bat_mib(entry) : 0;
			else
				img->map[number] = vc_entry_from_bat(entry);
			r = vc_check_end(load, offset + i * 8, entry, number, is_bitmap);
			if (r)
				return r;
		}
		left -= nr;
		offset += bytes;
		cond_resched();
	}
	img->nr_full = walk.nr_full;
	img->nr_partial = walk.nr_partial;
	return 0;
}

/*
 * To be written, a last block that old writers cut at the virtual end must be there
 * whole: what is behind it would be given to another block when the device grows.
 */
static int vc_check_last_block(struct vc_load *load)
{
	const struct vc_image *img = load->img;
	u32 last = img->geo.nr_blocks - 1;
	u32 entry = img->map[last];

	if (!vc_entry_mib(entry) ||
	    vc_entry_mib(entry) + vhdx_block_mib(&img->geo) <= load->claims.nr_mib)
		return 0;
	DMERR("%s: %s: last block is cut by the device's end, at byte offset %llu: extend it",
	      load->name, load->path, (u64)vc_entry_mib(entry) << VHDX_MIB_SHIFT);
	return -EINVAL;
}

static int vc_load_vhdx(struct vc_load *load)
{
	struct vc_image *img = load->img;
	struct vhdx_regions regions;
	struct vhdx_fault fault = {};
	u64 mib;
	int r;

	r = vc_load_header(load);
	if (!r)
		r = vc_load_regions(load, &regions);
	if (!r)
		r = vc_load_metadata(load, &regions.metadata);
	if (!r)
		r = vc_compare_table(load, &regions);
	if (r)
		return r;
	img->bat_region = regions.bat;

	r = vhdx_geometry_init(&img->geo, img->meta.virtual_size, img->meta.block_size,
			       img->meta.logical_sector_size, img->meta.has_parent,
			       &fault);
	if (r)
		return vc_refuse(load, &fault, r);
	if ((u64)img->geo.nr_entries * 8 > regions.bat.length) {
		DMERR("%s: %s: BAT region is too short, at byte offset %llu: %u bytes, %u entries",
		      load->name, load->path, regions.bat.offset, regions.bat.length,
		      img->geo.nr_entries);
		return -EINVAL;
	}
	/* Before memory is spent on what the image only claims to have. */
	if (regions.bat.offset + regions.bat.length >
	    (u64)compat_bdev_nr_sectors(img->bdev) << SECTOR_SHIFT) {
		DMERR("%s: %s: BAT region lies past the end of the device, at byte offset %llu",
		      load->name, load->path, regions.bat.offset);
		return -EINVAL;
	}

	img->sectors = img->meta.virtual_size >> SECTOR_SHIFT;
	img->block_shift = img->geo.block_shift - SECTOR_SHIFT;
	img->lss_shift = img->geo.sector_shift - SECTOR_SHIFT;
	img->page_shift = VHDX_SECTORS_PER_PAGE_SHIFT + img->lss_shift;

	BUILD_BUG_ON(VC_ABSENT);
	img->map = kvcalloc(img->geo.nr_blocks, sizeof(*img->map), GFP_KERNEL);
	img->bitmaps = kvcalloc(img->geo.nr_chunks, sizeof(*img->bitmaps), GFP_KERNEL);
	mib = compat_bdev_nr_sectors(img->bdev);
	if (img->use == VC_USE_READ)
		mib += (1ULL << MIB_SECTOR_SHIFT) - 1;
	mib >>= MIB_SECTOR_SHIFT;
	load->claims.nr_mib = min_t(u64, VHDX_MAX_FILE_MIB, mib);
	load->claims.map = kvcalloc(BITS_TO_LONGS(load->claims.nr_mib), sizeof(long),
				    GFP_KERNEL);
	img->dirs = kvcalloc(img->geo.nr_chunks, sizeof(*img->dirs), GFP_KERNEL);
	if (!img->map || !img->bitmaps || !img->dirs || !load->claims.map)
		return -ENOMEM;

	r = vhdx_claim_regions(&load->claims, &img->header, load->region_table,
			       load->region_table_offset, &fault);
	if (r)
		return vc_refuse(load, &fault, r);
	r = vc_load_bat(load);
	if (r)
		return r;

	if (img->use == VC_USE_WRITE) {
		r = vc_check_last_block(load);
		if (r)
			return r;
		img->fresh = kvcalloc(BITS_TO_LONGS(img->geo.nr_chunks), sizeof(long),
				      GFP_KERNEL);
		if (!img->fresh)
			return -ENOMEM;
		img->space.used = load->claims.map;
		img->space.nr_mib = load->claims.nr_mib;
		img->space.nr_free = load->claims.nr_mib -
			bitmap_weight(load->claims.map, load->claims.nr_mib);
		img->space.run = vhdx_block_mib(&img->geo);
		load->claims.map = NULL;
	}
	return 0;
}

static int vc_load_raw(struct vc_load *load)
{
	struct vc_image *img = load->img;
	sector_t size = compat_bdev_nr_sectors(img->bdev);

	if (img->args.first > size || img->args.sectors > size - img->args.first) {
		DMERR("%s: %s: raw layer of %llu sectors from %llu does not fit the device's %llu",
		      load->name, load->path, img->args.sectors, img->args.first, size);
		return -EINVAL;
	}
	img->raw = true;
	img->first = img->args.first;
	img->sectors = img->args.sectors;
	return 0;
}

static int vc_image_load(struct vc_image *img, const char *name, const char *path)
{
	struct vc_load load = { .img = img, .name = name, .path = path };
	int r = -ENOMEM;

	load.buf = vmalloc(VC_LOAD_BYTES);
	load.region_table = vmalloc(VHDX_REGION_TABLE_SIZE);
	if (load.buf && load.region_table)
		r = bioset_init(&img->bs, VC_BIO_POOL, 0, BIOSET_NEED_BVECS);
	if (!r)
		r = img->args.raw ? vc_load_raw(&load) :
		    img->args.vhd ? vc_vhd_load(&load) : vc_load_vhdx(&load);
	if (!r)
		r = vc_pages_init(img);
	kvfree(load.claims.map);
	vfree(load.region_table);
	vfree(load.buf);
	return r;
}

static struct vc_image *vc_image_alloc(struct block_device *bdev,
				       const struct vc_layer_args *args,
				       enum vc_use use, bool has_lower)
{
	struct vc_image *img = kzalloc(sizeof(*img), GFP_KERNEL);

	if (!img)
		return NULL;
	img->bdev = bdev;
	img->args = *args;
	img->use = use;
	img->has_lower = has_lower;
	img->dev = bdev->bd_dev;
	img->users = 1;
	spin_lock_init(&img->lock);
	mutex_init(&img->fetch_lock);
	init_completion(&img->loaded);
	INIT_LIST_HEAD(&img->page_list);
	INIT_LIST_HEAD(&img->shrink_list);
	return img;
}

static void vc_image_free(struct vc_image *img)
{
	vc_pages_exit(img);
	bioset_exit(&img->bs);
	kvfree(img->space.used);
	kvfree(img->fresh);
	kvfree(img->dirs);
	kvfree(img->bitmaps);
	kvfree(img->places);
	kvfree(img->map);
	kfree(img);
}

static bool vc_same_args(const struct vc_layer_args *a, const struct vc_layer_args *b)
{
	if (a->raw != b->raw || a->vhd != b->vhd || a->sectors != b->sectors)
		return false;
	if (a->raw)
		return a->first == b->first;
	return a->block_sectors == b->block_sectors && a->sector_size == b->sector_size &&
	       a->bat == b->bat && a->log == b->log && a->log_sectors == b->log_sectors;
}

/*
 * Under registry_lock: an image in use that can be shared, NULL if it must be loaded,
 * or -EBUSY.
 */
static struct vc_image *vc_image_find(const char *name, const char *path, dev_t dev,
				      const struct vc_layer_args *args, enum vc_use use,
				      bool has_lower)
{
	struct vc_image *img, *found = NULL;

	list_for_each_entry(img, &registry, list) {
		if (img->dev != dev)
			continue;
		if (use == VC_USE_WRITE || img->use == VC_USE_WRITE) {
			DMERR("%s: %s: is in use by an active clone as %s", name, path,
			      img->use == VC_USE_WRITE ? "its delta" : "a read-only layer");
			return ERR_PTR(-EBUSY);
		}
		/* Another window of a raw device, or a lie, is loaded on its own. */
		if (vc_same_args(&img->args, args) &&
		    (args->raw || img->has_lower == has_lower))
			found = img;
	}
	return found;
}

struct vc_image *vc_image_get(const char *name, const char *path,
			      struct block_device *bdev,
			      const struct vc_layer_args *args, enum vc_use use,
			      bool has_lower)
{
	struct vc_image *new = vc_image_alloc(bdev, args, use, has_lower);
	struct vc_image *img;
	int r;

	if (!new)
		return ERR_PTR(-ENOMEM);

	mutex_lock(&registry_lock);
	img = vc_image_find(name, path, bdev->bd_dev, args, use, has_lower);
	if (!img)
		list_add(&new->list, &registry);
	else if (!IS_ERR(img))
		img->users++;
	mutex_unlock(&registry_lock);

	if (img) {
		kfree(new);
		if (IS_ERR(img))
			return img;
		wait_for_completion(&img->loaded);
	} else {
		/*
		 * No lock over this: the device may be a file on another clone, which
		 * needs the registry to resume.
		 */
		img = new;
		img->load_error = vc_image_load(img, name, path);
		if (img->load_error) {
			mutex_lock(&registry_lock);
			list_del_init(&img->list);
			mutex_unlock(&registry_lock);
		}
		complete_all(&img->loaded);
	}

	r = img->load_error;
	if (r) {
		vc_image_put(img);
		return ERR_PTR(r);
	}
	return img;
}

void vc_image_put(struct vc_image *img)
{
	bool last;

	mutex_lock(&registry_lock);
	last = !--img->users;
	if (last)
		list_del_init(&img->list);
	mutex_unlock(&registry_lock);
	if (last)
		vc_image_free(img);
}
