// SPDX-License-Identifier: GPL-2.0-or-later
/* New images: see create.h. */
#define _GNU_SOURCE
#include <blkid/blkid.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "active.h"
#include "children.h"
#include "create.h"
#include "guid.h"
#include "locate.h"
#include "newfile.h"

/* Everything about an image that is to be written, known before the first write. */
struct vc_plan {
	const struct vc_create_options *options;
	struct vhdx_metadata meta;
	struct vhdx_geometry geo;
	struct vhdx_header_info header;
	struct vhdx_region bat;
	struct vhdx_region metadata;
	u64 payload;			/* where the blocks of a fixed image start */
	u64 file_size;
	void *locator;
	u32 locator_length;
};

/* ---- the plan -------------------------------------------------------------------- */

static int vc_plan_locator(struct vc_plan *plan, const char *path, struct vc_err *err)
{
	struct vc_locator *locator;
	int ret;

	ret = vc_locate(path, plan->options->base->layer[0], &locator, err);
	if (!ret)
		ret = vc_locator_build(locator, &plan->locator, &plan->locator_length, err);
	vc_locator_free(locator);
	return ret;
}

static u32 vc_sector_size(u32 size)
{
	return size < 4096 ? 512 : 4096;
}

static void vc_plan_inherit(struct vc_plan *plan, const struct vc_image *base)
{
	struct vhdx_metadata *meta = &plan->meta;

	meta->has_parent = true;
	meta->virtual_size = vc_image_virtual_size(base);
	if (base->format != VC_FORMAT_RAW) {
		meta->logical_sector_size = base->meta.logical_sector_size;
		meta->physical_sector_size = base->meta.physical_sector_size;
		meta->virtual_disk_id = base->meta.virtual_disk_id;
		return;
	}
	meta->logical_sector_size = vc_sector_size(base->file.sector_size);
	meta->physical_sector_size = vc_sector_size(base->file.phys_sector_size);
	vc_guid_random(&meta->virtual_disk_id);
}

static int vc_plan_sizes(struct vc_plan *plan, const char *path, struct vc_err *err)
{
	const struct vc_create_options *options = plan->options;
	struct vhdx_metadata *meta = &plan->meta;
	struct vhdx_fault fault = { };
	int ret;

	if (options->base) {
		vc_plan_inherit(plan, options->base->layer[0]);
	} else {
		meta->logical_sector_size = 512;
		meta->physical_sector_size = 4096;
		vc_guid_random(&meta->virtual_disk_id);
	}
	meta->leave_allocated = options->type == VC_CREATE_FIXED;
	if (options->virtual_size)
		meta->virtual_size = options->virtual_size;
	if (options->logical_sector_size)
		meta->logical_sector_size = options->logical_sector_size;
	if (options->physical_sector_size)
		meta->physical_sector_size = options->physical_sector_size;
	meta->block_size = options->block_size ? options->block_size : VC_DEFAULT_BLOCK_SIZE;
	ret = vhdx_geometry_init(&plan->geo, meta->virtual_size, meta->block_size,
				 meta->logical_sector_size, meta->has_parent, &fault);
	if (ret)
		return vc_error(err, EINVAL, path, "cannot be made: %s (%llu)",
				fault.what, fault.value);
	return 0;
}

/* As Windows lays it out: header section, log, metadata, BAT, blocks. */
static void vc_plan_layout(struct vc_plan *plan)
{
	const struct vc_create_options *options = plan->options;
	u64 metadata = VHDX_METADATA_TABLE_SIZE + 64 + plan->locator_length;
	struct vhdx_header_info *h = &plan->header;

	vc_guid_random(&h->file_write_guid);
	vc_guid_random(&h->data_write_guid);
	h->log_offset = VHDX_HEADER_SECTION_SIZE;
	h->log_length = options->log_size ? options->log_size : VC_DEFAULT_LOG_SIZE;
	plan->metadata.offset = h->log_offset + h->log_length;
	plan->metadata.length = (metadata + VHDX_MIB - 1) & ~(VHDX_MIB - 1);
	plan->metadata.required = true;
	plan->bat.offset = plan->metadata.offset + plan->metadata.length;
	plan->bat.length = vhdx_bat_region_bytes(&plan->geo);
	plan->bat.required = true;
	plan->payload = plan->bat.offset + plan->bat.length;
	plan->file_size = plan->payload;
	if (options->type == VC_CREATE_FIXED)
		plan->file_size += (u64)plan->geo.nr_blocks * plan->geo.block_size;
}

/* ---- writing ------------------------------------------------------------------------ */

static int vc_write_bat(const struct vc_file *file, const struct vc_plan *plan,
			struct vc_err *err)
{
	const struct vhdx_geometry *geo = &plan->geo;
	u64 bytes = 8ULL * geo->nr_entries;
	__le64 *bat;
	u32 i;
	int ret;

	/* In the others no block is present, and the region is zeros already. */
	if (plan->options->type != VC_CREATE_FIXED)
		return 0;
	bat = calloc(1, bytes);
	if (!bat)
		return vc_error_nomem(err);
	for (i = 0; i < geo->nr_blocks; i++) {
		u64 place = plan->payload + (u64)i * geo->block_size;

		bat[vhdx_bat_payload_index(geo, i)] =
			cpu_to_le64(vhdx_bat_entry(VHDX_BLOCK_FULLY_PRESENT,
						   place >> VHDX_MIB_SHIFT));
	}
	ret = vc_file_write(file, "BAT", plan->bat.offset, bat, bytes, err);
	free(bat);
	return ret;
}

static int vc_write_metadata(const struct vc_file *file, const struct vc_plan *plan,
			     struct vc_err *err)
{
	void *buf = malloc(plan->metadata.length);
	int ret;

	if (!buf)
		return vc_error_nomem(err);
	ret = vhdx_metadata_build(buf, plan->metadata.length, &plan->meta, plan->locator,
				  plan->locator_length);
	if (ret)
		ret = vc_error(err, EINVAL, file->path, "parent locator: too long");
	else
		ret = vc_file_write(file, "metadata region", plan->metadata.offset, buf,
				    plan->metadata.length, err);
	free(buf);
	return ret;
}

static int vc_write_header_section(const struct vc_file *file, const struct vc_plan *plan,
				   struct vc_err *err)
{
	struct vhdx_header_info header = plan->header;
	struct vhdx_file_identifier *id;
	u8 *buf = calloc(1, VHDX_HEADER_SECTION_SIZE);
	unsigned int slot;
	int ret;

	if (!buf)
		return vc_error_nomem(err);
	for (slot = 0; slot < 2; slot++) {
		header.sequence_number = slot + 1;
		vhdx_header_build((void *)(buf + vhdx_header_offset(slot)), &header);
	}
	vhdx_region_table_build(buf + VHDX_REGION_TABLE1_OFFSET, &plan->bat, &plan->metadata);
	vhdx_region_table_build(buf + VHDX_REGION_TABLE2_OFFSET, &plan->bat, &plan->metadata);
	ret = vc_file_write(file, "header section", VHDX_HEADER1_OFFSET,
			    buf + VHDX_HEADER1_OFFSET,
			    VHDX_HEADER_SECTION_SIZE - VHDX_HEADER1_OFFSET, err);
	if (!ret)
		ret = vc_file_sync(file, err);
	/* What makes it a VHDX comes last. */
	if (!ret) {
		id = (struct vhdx_file_identifier *)buf;
		memcpy(id->signature, VHDX_IDENTIFIER_SIGNATURE, sizeof(id->signature));
		vc_utf16_encode(plan->options->creator, id->creator, sizeof(id->creator) - 2);
		ret = vc_file_write(file, "file identifier", 0, buf, VHDX_HEADER1_OFFSET, err);
	}
	if (!ret)
		ret = vc_file_sync(file, err);
	free(buf);
	return ret;
}

/*
 * All of the file is allocated now, so that no metadata write ever meets a full file
 * system.  @file->size is 0 for a new file: its space reads as zeros.
 */
static int vc_write_image(const struct vc_file *file, const struct vc_plan *plan,
			  struct vc_err *err)
{
	int ret;

	ret = vc_file_zero(file, 0, plan->file_size, err);
	if (!ret && file->is_block)
		ret = vc_file_sync(file, err);
	if (!ret)
		ret = vc_write_bat(file, plan, err);
	if (!ret)
		ret = vc_write_metadata(file, plan, err);
	if (!ret)
		ret = vc_write_header_section(file, plan, err);
	return ret;
}

/* ---- a file: aside, then named ---------------------------------------------------------- */

static int vc_create_file(const char *path, const struct vc_plan *plan, struct vc_err *err)
{
	struct vc_file file = { .path = (char *)path, .writable = true };
	struct vc_newfile new;
	sigset_t signals;
	int ret;

	/* A signal must not leave a file behind. */
	vc_signals_hold(&signals);
	ret = vc_newfile_make(&new, path, plan->options->force, err);
	file.fd = new.fd;
	if (!ret)
		ret = vc_write_image(&file, plan, err);
	if (!ret)
		ret = vc_newfile_publish(&new, err);
	vc_newfile_end(&new);
	vc_signals_release(&signals);
	return ret;
}

/* ---- a block device: in place ------------------------------------------------------------ */

static bool vc_is_zero(const u8 *buf, size_t len)
{
	return !len || (!buf[0] && !memcmp(buf, buf + 1, len - 1));
}

/* Does something lie on the device that somebody may miss? */
static int vc_check_device_free(const struct vc_file *file, struct vc_err *err)
{
	u64 len = file->size < VHDX_MIB ? file->size : VHDX_MIB;
	const char *type = NULL;
	blkid_probe probe;
	u8 *buf;
	int ret;

	probe = blkid_new_probe();
	if (probe && !blkid_probe_set_device(probe, file->fd, 0, 0)) {
		blkid_probe_enable_superblocks(probe, 1);
		blkid_probe_enable_partitions(probe, 1);
		if (!blkid_do_probe(probe) &&
		    blkid_probe_lookup_value(probe, "TYPE", &type, NULL))
			type = "something";
	}
	ret = type ? vc_error(err, EEXIST, file->path,
			      "the device holds %s: use --force to overwrite it", type) : 0;
	blkid_free_probe(probe);
	if (ret)
		return ret;

	buf = malloc(len);
	if (!buf)
		return vc_error_nomem(err);
	ret = vc_file_read(file, "first MiB", 0, buf, len, err);
	if (!ret && !vc_is_zero(buf, len))
		ret = vc_error(err, EEXIST, file->path,
			       "the device is not empty: use --force to overwrite it");
	free(buf);
	return ret;
}

static int vc_create_device(const struct vc_file *file, const struct vc_plan *plan,
			    struct vc_err *err)
{
	int ret = 0;

	if (plan->file_size > file->size)
		return vc_error(err, ENOSPC, file->path,
				"has %llu bytes, the new image needs %llu",
				file->size, plan->file_size);
	if (!plan->options->force)
		ret = vc_check_device_free(file, err);
	if (!ret)
		ret = vc_write_image(file, plan, err);
	return ret;
}

/* ---- what is there already ------------------------------------------------------------------ */

/*
 * The target, if it exists: @file is then open (a device: for writing and not in
 * use by anybody).  Nothing that the new image would stand on may be replaced.
 */
static int vc_open_target(struct vc_file *file, const char *path,
			  const struct vc_create_options *options, struct vc_err *err)
{
	struct stat st;
	int ret;

	*file = (struct vc_file)VC_FILE_CLOSED;
	if (stat(path, &st)) {
		/* A link that leads nowhere is in the way, too. */
		if (errno == ENOENT && !lstat(path, &st))
			return vc_error(err, EEXIST, path, "is a symbolic link to nothing");
		return errno == ENOENT ? 0 : vc_error_sys(err, errno, path, "cannot stat");
	}
	if (S_ISREG(st.st_mode) && !options->force)
		return vc_exists(path, err);
	ret = vc_file_open(file, path, VC_FILE_WRITE | VC_FILE_EXCLUSIVE, NULL, err);
	if (!ret && options->base && vc_chain_has(options->base, file))
		ret = vc_error(err, EBUSY, path, "is what the new image would stand on");
	if (!ret)
		ret = vc_active_refuse_any(file, err);
	if (!ret)
		ret = vc_file_lock(file, err);
	return ret;
}

int vc_create(const char *path, const struct vc_create_options *options,
	      struct vc_created *created, struct vc_err *err)
{
	struct vc_plan plan = { .options = options };
	struct vc_err ignored;
	struct vc_file target = VC_FILE_CLOSED;
	int ret = 0;

	if (!options->into)
		ret = vc_open_target(&target, path, options, err);
	if (!ret)
		ret = vc_plan_sizes(&plan, path, err);
	if (!ret && options->base)
		ret = vc_plan_locator(&plan, target.real ? target.real : path, err);
	if (!ret) {
		vc_plan_layout(&plan);
		if (options->into)
			ret = vc_write_image(options->into, &plan, err);
		else if (target.is_block)
			ret = vc_create_device(&target, &plan, err);
		else
			ret = vc_create_file(target.real ? target.real : path, &plan, err);
	}
	if (!ret && options->base && !options->into)
		vc_children_add(&options->base->layer[0]->file,
				target.real ? target.real : path, &ignored);
	if (!ret)
		*created = (struct vc_created) {
			.virtual_size = plan.meta.virtual_size,
			.file_size = plan.file_size,
			.block_size = plan.meta.block_size,
		};
	free(plan.locator);
	vc_file_close(&target);
	return ret;
}
