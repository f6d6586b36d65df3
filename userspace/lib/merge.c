// SPDX-License-Identifier: GPL-2.0-or-later
/* Merge and flatten: see merge.h. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "active.h"
#include "guid.h"
#include "log.h"
#include "merge.h"
#include "resize.h"

/*
 * Open it once more: for writing, and for nobody else.  Between the lock for readers and
 * this one it may change.
 */
static int vc_open_locked(const struct vc_image *old, struct vc_image **result,
			  struct vc_err *err)
{
	struct vc_image *image;
	int ret;

	ret = vc_image_open(&image, old->file.real,
			    VC_IMAGE_WRITE | VC_IMAGE_EXCLUSIVE | VC_IMAGE_UNREAD, NULL, err);
	if (ret)
		return ret;
	if (!vc_file_same(&image->file, &old->file))
		ret = vc_error(err, EBUSY, old->file.path, "another file has its name now");
	vc_file_unlock(&old->file);
	if (!ret)
		ret = vc_file_lock(&image->file, err);
	if (!ret)
		ret = vc_active_refuse_any(&image->file, err);
	if (ret)
		vc_image_close(image);
	else
		*result = image;
	return ret;
}

int vc_chain_writable(struct vc_chain *chain, unsigned int layer, struct vc_err *err)
{
	struct vc_image *old = chain->layer[layer];
	bool raw = old->format == VC_FORMAT_RAW;
	struct vc_log_report report;
	struct vc_image *image;
	int ret;

	ret = vc_open_locked(old, &image, err);
	if (ret)
		return ret;
	ret = vc_image_reload(image, raw ? VC_IMAGE_RAW : VC_IMAGE_HEADERS, err);
	if (!ret && image->format != old->format)
		ret = vc_error(err, EBUSY, old->file.path, "was changed while it was looked at");
	if (!ret && !raw)
		ret = vc_log_recover(image, &report, err);
	if (!ret && !raw)
		ret = vc_image_reload(image, 0, err);
	if (ret) {
		vc_image_close(image);
		return ret;
	}
	vc_image_close(old);
	chain->layer[layer] = image;
	return 0;
}

int vc_edit_set_locator(struct vc_edit *edit, const struct vc_locator *locator,
			struct vc_err *err)
{
	void *item = NULL;
	u32 length;
	int ret;

	ret = vc_locator_build(locator, &item, &length, err);
	if (!ret)
		ret = vc_edit_set_item(edit, VHDX_ITEM_PARENT_LOCATOR, item, length, err);
	free(item);
	return ret;
}

/* ---- the plan ------------------------------------------------------------------- */

/* Blocks of the base that have no place, and get one. */
struct vc_planner {
	const struct vhdx_geometry *geo;
	u8 *placed;
	u8 *bitmap;
	u64 nr_new;
};

static int vc_plan_entry(void *data, u32 number, bool is_bitmap, u64 entry,
			 struct vc_err *err __always_unused)
{
	struct vc_planner *planner = data;

	if (is_bitmap)
		planner->bitmap[number] = vhdx_bat_state(entry) == VHDX_BITMAP_PRESENT;
	else
		planner->placed[number] = vhdx_bat_state(entry) >= VHDX_BLOCK_FULLY_PRESENT;
	return 0;
}

static void vc_plan_extent(struct vc_planner *planner, const struct vc_extent *extent)
{
	u32 block = extent->offset >> planner->geo->block_shift;
	u32 end = (extent->offset + extent->length - 1) >> planner->geo->block_shift;
	u32 chunk;

	for (; block <= end; block++) {
		if (planner->placed[block])
			continue;
		planner->placed[block] = 1;
		planner->nr_new += vhdx_block_mib(planner->geo);
		chunk = vhdx_block_chunk(planner->geo, block);
		if (planner->geo->has_parent && !planner->bitmap[chunk]) {
			planner->bitmap[chunk] = 1;
			planner->nr_new++;
		}
	}
}

/* What it takes to make the base as large as what is merged into it. */
static void vc_plan_grow(struct vc_planner *planner, const struct vc_image *base)
{
	u32 block;

	if (8ULL * planner->geo->nr_entries > base->regions.bat.length)
		planner->nr_new += vhdx_bat_region_bytes(planner->geo) >> VHDX_MIB_SHIFT;
	if (!base->meta.leave_allocated || base->meta.has_parent)
		return;
	for (block = base->geo.nr_blocks; block < planner->geo->nr_blocks; block++) {
		planner->placed[block] = 1;
		planner->nr_new += vhdx_block_mib(planner->geo);
	}
}

static int vc_plan_vhdx(const struct vc_image *base, struct vc_disk *disk,
			struct vc_merge_plan *plan, struct vc_err *err)
{
	struct vhdx_geometry geo;
	struct vc_planner planner = { .geo = &geo };
	struct vc_usage usage = { };
	struct vhdx_fault fault = { };
	struct vc_extent extent;
	u64 mib;
	u64 at;
	int ret;

	if (vc_disk_size(disk) % base->geo.sector_size ||
	    vhdx_geometry_init(&geo, vc_disk_size(disk), base->geo.block_size,
			       base->geo.sector_size, base->geo.has_parent, &fault))
		return vc_error(err, EINVAL, base->file.path,
				"cannot have %llu bytes: merge with --to", vc_disk_size(disk));
	planner.placed = calloc(geo.nr_blocks, 1);
	planner.bitmap = calloc(geo.nr_chunks, 1);
	ret = planner.placed && planner.bitmap ? 0 : vc_error_nomem(err);
	if (!ret)
		ret = vc_image_walk(base, &usage, vc_plan_entry, &planner, err);
	if (!ret)
		vc_plan_grow(&planner, base);
	for (at = 0; !ret && at < vc_disk_size(disk); at += extent.length) {
		ret = vc_disk_extent(disk, at, vc_disk_size(disk) - at, &extent, err);
		if (!ret && extent.kind == VC_EXTENT_DATA)
			vc_plan_extent(&planner, &extent);
	}
	for (mib = 0; !ret && mib < usage.claims.nr_mib; mib++)
		plan->found += vc_usage_taken(&usage, mib) ? 0 : VHDX_MIB;
	plan->needed = planner.nr_new << VHDX_MIB_SHIFT;
	vc_usage_free(&usage);
	free(planner.placed);
	free(planner.bitmap);
	return ret;
}

/* What a file has no space for yet. */
static int vc_plan_raw(const struct vc_image *base, struct vc_merge_plan *plan,
		       struct vc_err *err)
{
	u64 holes = 0;
	struct stat st;

	if (base->file.is_block)
		return 0;
	if (fstat(base->file.fd, &st))
		return vc_error_sys(err, errno, base->file.path, "cannot stat");
	if ((u64)st.st_blocks * 512 < base->size)
		holes = base->size - (u64)st.st_blocks * 512;
	plan->needed = holes < plan->bytes ? holes : plan->bytes;
	return 0;
}

/* The base can be made as large as the disk, and nothing of it gets lost. */
static int vc_plan_size(const struct vc_image *base, u64 size, struct vc_err *err)
{
	u64 old = vc_image_virtual_size(base);

	if (size < old)
		return vc_error(err, EINVAL, base->file.path,
				"has a virtual size of %llu bytes, and what is merged into it only %llu: make that as large with 'vhdclone resize', or merge with --to",
				old, size);
	if (size > old && base->format == VC_FORMAT_RAW && base->file.is_block)
		return vc_error(err, ENOSPC, base->file.path,
				"the device has %llu bytes, %llu are needed: make it larger, or merge with --to",
				old, size);
	return 0;
}

static int vc_plan_space(const struct vc_image *base, struct vc_merge_plan *plan,
			 struct vc_err *err)
{
	struct statvfs fs;

	if (base->file.is_block)
		return 0;
	if (fstatvfs(base->file.fd, &fs))
		return vc_error_sys(err, errno, base->file.path, "cannot stat the file system");
	plan->found += (u64)fs.f_bavail * fs.f_frsize;
	return 0;
}

static int vc_plan(const struct vc_chain *chain, unsigned int base,
		   struct vc_merge_plan *plan, struct vc_err *err)
{
	const struct vc_image *image = chain->layer[base];
	struct vc_copy copy = { .chain = chain };
	int ret;

	*plan = (struct vc_merge_plan) { };
	/* It has no log, and nothing that would tell of a merge that was interrupted. */
	if (image->format == VC_FORMAT_VHD)
		return vc_error(err, EOPNOTSUPP, image->file.path,
				"a VHD cannot be merged into: merge with --to");
	ret = vc_disk_open(&copy.disk, chain, 0, base, err);
	if (!ret)
		ret = vc_plan_size(image, vc_disk_size(copy.disk), err);
	if (!ret)
		ret = vc_copy_measure(&copy, &plan->bytes, err);
	if (!ret)
		ret = vc_plan_space(image, plan, err);
	if (!ret && image->format == VC_FORMAT_VHDX)
		ret = vc_plan_vhdx(image, copy.disk, plan, err);
	else if (!ret)
		ret = vc_plan_raw(image, plan, err);
	vc_disk_close(copy.disk);
	return ret;
}

int vc_merge_plan(const struct vc_chain *chain, unsigned int base,
		  struct vc_merge_plan *plan, struct vc_err *err)
{
	const unsigned int layer[] = { base, base - 1, 0 };
	struct vc_image *image;
	unsigned int i;
	int ret;

	ret = vc_plan(chain, base, plan, err);
	for (i = 0; i < ARRAY_SIZE(layer) && !ret; i++) {
		ret = vc_open_locked(chain->layer[layer[i]], &image, err);
		if (!ret)
			vc_image_close(image);
	}
	return ret;
}

/* ---- the merge ------------------------------------------------------------------ */

struct vc_merge {
	struct vc_chain *chain;
	unsigned int layer;		/* the base */
	struct vc_image *base;
	struct vc_image *child;		/* the one above the base */
	struct vc_edit *child_edit;
	struct vc_copy copy;
};

static int vc_merge_linkage(struct vc_merge *merge, const struct vhdx_guid *linkage,
			    const struct vhdx_guid *linkage2, struct vc_err *err)
{
	struct vc_locator *locator = merge->child->locator;
	char value[VC_GUID_TEXT + 2];
	char text[VC_GUID_TEXT];
	int ret;

	snprintf(value, sizeof(value), "{%s}", vc_guid_format(linkage, text));
	ret = vc_locator_set(locator, VC_KEY_LINKAGE, value, err);
	snprintf(value, sizeof(value), "{%s}", vc_guid_format(linkage2, text));
	if (!ret)
		ret = vc_locator_set(locator, VC_KEY_LINKAGE2, value, err);
	if (!ret)
		ret = vc_edit_set_locator(merge->child_edit, locator, err);
	if (!ret)
		ret = vc_edit_commit(merge->child_edit, err);
	return ret;
}

static int vc_merge_copy(struct vc_merge *merge, struct vc_target *target,
			 struct vc_err *err)
{
	merge->copy.target = target;
	return vc_copy_run(&merge->copy, err);
}

/* New space reads as zeros, as what lies behind the end of a parent does. */
static int vc_merge_grow(struct vc_merge *merge, struct vc_edit **edit, struct vc_err *err)
{
	struct vc_resized resized;
	struct vc_chain chain = { };
	unsigned int i;
	int ret;

	/* One change at a time. */
	ret = vc_edit_end(*edit, err);
	*edit = NULL;
	for (i = merge->layer; i < merge->chain->nr; i++)
		chain.layer[chain.nr++] = merge->chain->layer[i];
	if (!ret)
		ret = vc_image_reload(merge->base, 0, err);
	if (!ret)
		ret = vc_resize(&chain, vc_disk_size(merge->copy.disk), VC_RESIZE_SAME_GUID,
				&resized, err);
	return ret ? ret : vc_edit_begin(edit, merge->base, err);
}

static int vc_merge_vhdx(struct vc_merge *merge, struct vc_err *err)
{
	struct vc_vhdx_target to;
	struct vc_err ignored;
	struct vhdx_guid guid;
	struct vc_edit *edit;
	int ret;

	ret = vc_edit_begin(&edit, merge->base, err);
	if (ret)
		return ret;
	vc_guid_random(&guid);
	ret = vc_merge_linkage(merge, &merge->base->header.data_write_guid, &guid, err);
	if (!ret) {
		vc_edit_set_data_guid(edit, &guid);
		ret = vc_edit_commit(edit, err);
	}
	if (!ret)
		ret = vc_merge_linkage(merge, &guid, &vhdx_guid_zero, err);
	if (!ret && vc_disk_size(merge->copy.disk) > merge->base->meta.virtual_size)
		ret = vc_merge_grow(merge, &edit, err);
	if (!ret) {
		vc_vhdx_target_init(&to, merge->base, edit);
		ret = vc_merge_copy(merge, &to.target, err);
	}
	if (!ret)
		return vc_edit_end(edit, err);
	/* What is done is done. */
	if (edit && ret == -EINTR)
		vc_edit_end(edit, &ignored);
	else if (edit)
		vc_edit_abort(edit);
	return ret;
}

/* Which of the sampled sectors do the layers above have? */
static int vc_merge_mask(struct vc_merge *merge, u8 *mask, struct vc_err *err)
{
	u64 size = vc_disk_size(merge->copy.disk);
	struct vc_extent extent;
	unsigned int i;
	u64 sector;
	int ret;

	memset(mask, 0, VC_FINGERPRINT_MASK);
	for (i = 0; i < VC_FINGERPRINT_SECTORS; i++) {
		sector = vc_fingerprint_sector(size, i);
		if (sector >= size / 512)
			continue;
		ret = vc_disk_extent(merge->copy.disk, sector * 512, 512, &extent, err);
		if (ret)
			return ret;
		if (extent.kind != VC_EXTENT_ABSENT)
			mask[i / 8] |= 1U << i % 8;
	}
	return 0;
}

static int vc_merge_raw_begin(struct vc_merge *merge, struct vc_err *err)
{
	struct vc_locator *locator = merge->child->locator;
	char hex[2 * VC_FINGERPRINT_MASK + 1];
	char fingerprint[VC_FINGERPRINT_TEXT];
	u8 mask[VC_FINGERPRINT_MASK];
	unsigned int i;
	int ret;

	ret = vc_merge_mask(merge, mask, err);
	/* With the size that the base will have: until then the old fingerprint counts. */
	if (!ret)
		ret = vc_fingerprint_masked(&merge->base->file, vc_disk_size(merge->copy.disk),
					    mask, fingerprint, err);
	for (i = 0; i < sizeof(mask); i++)
		snprintf(hex + 2 * i, 3, "%02x", mask[i]);
	if (!ret)
		ret = vc_locator_set(locator, VC_KEY_MERGE_MASK, hex, err);
	if (!ret)
		ret = vc_locator_set(locator, VC_KEY_MERGE_FINGERPRINT, fingerprint, err);
	if (!ret)
		ret = vc_edit_set_locator(merge->child_edit, locator, err);
	if (!ret)
		ret = vc_edit_commit(merge->child_edit, err);
	return ret;
}

static int vc_merge_raw_end(struct vc_merge *merge, struct vc_err *err)
{
	struct vc_locator *locator = merge->child->locator;
	char fingerprint[VC_FINGERPRINT_TEXT];
	char size[24];
	int ret;

	ret = vc_fingerprint(&merge->base->file, fingerprint, err);
	snprintf(size, sizeof(size), "%llu", merge->base->file.size);
	vc_locator_unset(locator, VC_KEY_MERGE_MASK);
	vc_locator_unset(locator, VC_KEY_MERGE_FINGERPRINT);
	if (!ret)
		ret = vc_locator_set(locator, VC_KEY_FINGERPRINT, fingerprint, err);
	if (!ret)
		ret = vc_locator_set(locator, VC_KEY_SIZE, size, err);
	if (!ret)
		ret = vc_edit_set_locator(merge->child_edit, locator, err);
	return ret;
}

static int vc_merge_raw(struct vc_merge *merge, struct vc_err *err)
{
	struct vc_file *file = &merge->base->file;
	struct vc_raw_target to;
	int ret;

	ret = vc_merge_raw_begin(merge, err);
	/* Its length must not be the old one when its content is new. */
	if (!ret && vc_disk_size(merge->copy.disk) > file->size) {
		ret = vc_file_resize(file, vc_disk_size(merge->copy.disk), err);
		if (!ret)
			ret = vc_file_sync(file, err);
		merge->base->size = file->size;
	}
	if (ret)
		return ret;
	vc_raw_target_init(&to, file, false);
	ret = vc_merge_copy(merge, &to.target, err);
	if (!ret)
		ret = vc_file_sync(file, err);
	/* Until then the child knows the base by what the merge does not write. */
	if (!ret)
		ret = vc_merge_raw_end(merge, err);
	return ret;
}

static int vc_merge_run(struct vc_merge *merge, struct vc_err *err)
{
	struct vc_err ignored;
	int ret;

	ret = vc_edit_begin(&merge->child_edit, merge->child, err);
	if (ret)
		return ret;
	if (merge->base->format == VC_FORMAT_RAW)
		ret = vc_merge_raw(merge, err);
	else
		ret = vc_merge_vhdx(merge, err);
	if (!ret)
		return vc_edit_end(merge->child_edit, err);
	if (ret == -EINTR)
		vc_edit_end(merge->child_edit, &ignored);
	else
		vc_edit_abort(merge->child_edit);
	return ret;
}

/* The chain still reads as it did; say so. */
static int vc_still_valid(int ret, struct vc_err *err)
{
	if (ret == -EINTR)
		return vc_error(err, EINTR, NULL,
				"interrupted: the images are valid, the same command again goes on");
	vc_error_append(err, "; the images are valid, the same command again goes on");
	return ret;
}

int vc_merge(struct vc_chain *chain, unsigned int base, struct vc_progress *progress,
	     struct vc_merge_plan *plan, struct vc_err *err)
{
	struct vc_merge merge = { .chain = chain };
	const unsigned int layer[] = { base, base - 1, 0 };
	unsigned int i;
	int ret;

	/* Look, before anything is opened for writing. */
	ret = vc_plan(chain, base, plan, err);
	for (i = 0; i < ARRAY_SIZE(layer) && !ret; i++)
		if (!i || layer[i] != layer[i - 1])
			ret = vc_chain_writable(chain, layer[i], err);
	/* With all locked: is it still what it was? */
	for (i = 0; i < base && !ret; i++)
		ret = vc_chain_check_parent(chain->layer[i], chain->layer[i + 1], err);
	if (!ret)
		ret = vc_plan(chain, base, plan, err);
	if (!ret && plan->needed > plan->found)
		ret = vc_error(err, ENOSPC, chain->layer[base]->file.path,
			       "new blocks need %llu bytes, %llu are free: nothing was changed",
			       plan->needed, plan->found);
	if (ret)
		return ret;
	merge.layer = base;
	merge.base = chain->layer[base];
	merge.child = chain->layer[base - 1];
	merge.copy.chain = chain;
	merge.copy.progress = progress;
	if (progress)
		progress->total = plan->bytes;
	ret = vc_disk_open(&merge.copy.disk, chain, 0, base, err);
	if (!ret) {
		ret = vc_merge_run(&merge, err);
		if (ret)
			ret = vc_still_valid(ret, err);
	}
	plan->bytes = merge.copy.bytes;
	vc_disk_close(merge.copy.disk);
	return ret;
}

/* ---- flatten -------------------------------------------------------------------- */

/* Nothing comes from below any more: say so, and then that there is no parent. */
static int vc_flatten_finish(struct vc_edit *edit, const struct vc_image *image,
			     struct vc_err *err)
{
	const struct vhdx_geometry *geo = &image->geo;
	struct vhdx_file_parameters params = {
		.block_size = cpu_to_le32(geo->block_size),
		.flags = cpu_to_le32(image->meta.leave_allocated ?
				     VHDX_PARAM_LEAVE_ALLOCATED : 0),
	};
	int ret = 0;
	u64 entry;
	u32 i;

	for (i = 0; i < geo->nr_blocks && !ret; i++) {
		entry = vc_edit_block(edit, i);
		if (vhdx_bat_state(entry) == VHDX_BLOCK_PARTIALLY_PRESENT)
			ret = vc_edit_set_block(edit, i, VHDX_BLOCK_FULLY_PRESENT,
						vhdx_bat_mib(entry), err);
	}
	if (!ret)
		ret = vc_edit_commit(edit, err);
	for (i = 0; i < geo->nr_chunks && !ret; i++)
		ret = vc_edit_set_bitmap_block(edit, i, VHDX_BITMAP_NOT_PRESENT, 0, err);
	if (!ret)
		ret = vc_edit_set_item(edit, VHDX_ITEM_FILE_PARAMETERS, &params,
				       sizeof(params), err);
	if (!ret)
		ret = vc_edit_set_item(edit, VHDX_ITEM_PARENT_LOCATOR, NULL, 0, err);
	return ret;
}

static int vc_flatten_run(struct vc_copy *copy, struct vc_vhdx_target *to,
			  struct vc_image *image, struct vc_err *err)
{
	struct vc_err ignored;
	struct vc_edit *edit;
	int ret;

	ret = vc_edit_begin(&edit, image, err);
	if (ret)
		return ret;
	vc_vhdx_target_init(to, image, edit);
	to->keep = true;
	copy->keep = true;
	copy->target = &to->target;
	if (copy->progress)
		ret = vc_copy_measure(copy, &copy->progress->total, err);
	if (!ret)
		ret = vc_copy_run(copy, err);
	if (!ret)
		ret = vc_flatten_finish(edit, image, err);
	if (!ret)
		return vc_edit_end(edit, err);
	if (ret == -EINTR)
		vc_edit_end(edit, &ignored);
	else
		vc_edit_abort(edit);
	return ret;
}

int vc_flatten(struct vc_chain *chain, struct vc_progress *progress, u64 *bytes,
	       struct vc_err *err)
{
	struct vc_copy copy = { .chain = chain, .progress = progress };
	struct vc_vhdx_target to;
	int ret;

	if (chain->layer[0]->format == VC_FORMAT_VHD)
		return vc_error(err, EOPNOTSUPP, chain->layer[0]->file.path,
				"a VHD cannot be made flat in its place: flatten with --to");
	ret = vc_chain_writable(chain, 0, err);
	if (!ret && (chain->nr < 2 || !chain->layer[0]->meta.has_parent))
		ret = vc_error(err, EINVAL, chain->layer[0]->file.path, "has no parent");
	if (!ret)
		ret = vc_chain_check_parent(chain->layer[0], chain->layer[1], err);
	if (!ret)
		ret = vc_disk_open(&copy.disk, chain, 0, chain->nr, err);
	if (ret)
		return ret;
	ret = vc_flatten_run(&copy, &to, chain->layer[0], err);
	if (ret)
		ret = vc_still_valid(ret, err);
	*bytes = copy.bytes;
	vc_disk_close(copy.disk);
	return ret;
}
