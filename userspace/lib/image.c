// SPDX-License-Identifier: GPL-2.0-or-later
/* One image: see image.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image.h"
#include "log.h"
#include "vhd.h"

#define VC_BAT_CHUNK	0x100000U	/* bytes of the BAT read at once */
#define VC_BLOCKS_AGAIN	3		/* so often may all blocks be discarded while open */

int vc_image_read(const struct vc_image *image, const char *what, u64 offset, void *buf,
		  size_t len, struct vc_err *err)
{
	size_t real = len;
	int ret;

	if (!image->overlay)
		return vc_file_read(&image->file, what, offset, buf, len, err);

	/* The replay may have made the file longer than it is. */
	if (offset > image->size || len > image->size - offset)
		return vc_error(err, EINVAL, image->file.path,
				"ends at %llu, inside the %s (offset %llu)",
				image->size, what, offset);
	if (offset >= image->file.size)
		real = 0;
	else if (len > image->file.size - offset)
		real = image->file.size - offset;
	memset((u8 *)buf + real, 0, len - real);
	ret = vc_file_read(&image->file, what, offset, buf, real, err);
	if (!ret)
		vc_overlay_apply(image->overlay, offset, buf, len);
	return ret;
}

static int vc_image_load_headers(struct vc_image *image, struct vc_err *err)
{
	struct vhdx_header *h = malloc(2 * sizeof(*h));
	struct vhdx_fault fault = { };
	int ret;

	if (!h)
		return vc_error_nomem(err);
	ret = vc_file_read(&image->file, "header", VHDX_HEADER1_OFFSET, &h[0], sizeof(*h), err);
	if (!ret)
		ret = vc_file_read(&image->file, "header", VHDX_HEADER2_OFFSET, &h[1],
				   sizeof(*h), err);
	if (!ret) {
		ret = vhdx_header_parse(&h[0], &h[1], &image->header, &fault);
		if (ret)
			vc_error_fault(err, ret, image->file.path, &fault);
	}
	free(h);
	return ret;
}

/*
 * Both copies are written through the log, so both should be right; a damaged one
 * does no harm as long as the other is there.
 */
static int vc_image_load_regions(struct vc_image *image, struct vc_err *err)
{
	struct vhdx_fault fault = { };
	u8 *other;
	int ret;

	image->table = malloc(VHDX_REGION_TABLE_SIZE);
	other = malloc(VHDX_REGION_TABLE_SIZE);
	if (!image->table || !other) {
		ret = vc_error_nomem(err);
		goto out;
	}
	ret = vc_image_read(image, "region table", VHDX_REGION_TABLE1_OFFSET, image->table,
			    VHDX_REGION_TABLE_SIZE, err);
	if (!ret)
		ret = vc_image_read(image, "region table", VHDX_REGION_TABLE2_OFFSET, other,
				    VHDX_REGION_TABLE_SIZE, err);
	if (ret)
		goto out;

	image->table_offset = VHDX_REGION_TABLE1_OFFSET;
	image->table_damaged = memcmp(image->table, other, VHDX_REGION_TABLE_SIZE);
	ret = vhdx_region_table_parse(image->table, image->table_offset, &image->regions,
				      &fault);
	if (ret)
		vc_error_fault(err, ret, image->file.path, &fault);
	if (ret == -EBADMSG &&
	    !vhdx_region_table_parse(other, VHDX_REGION_TABLE2_OFFSET, &image->regions,
				     &fault)) {
		memcpy(image->table, other, VHDX_REGION_TABLE_SIZE);
		image->table_offset = VHDX_REGION_TABLE2_OFFSET;
		ret = 0;
	}
out:
	free(other);
	return ret;
}

static int vc_image_load_locator(struct vc_image *image, struct vc_err *err)
{
	const struct vhdx_item_place *place = &image->items[VHDX_ITEM_PARENT_LOCATOR];
	u64 offset = image->regions.metadata.offset + place->offset;
	void *item = malloc(place->length);
	int ret;

	if (!item)
		return vc_error_nomem(err);
	ret = vc_image_read(image, "parent locator", offset, item, place->length, err);
	if (!ret)
		ret = vc_locator_parse(item, place->length, image->file.path, offset,
				       &image->locator, err);
	free(item);
	return ret;
}

static int vc_image_load_metadata(struct vc_image *image, struct vc_err *err)
{
	const struct vhdx_region *region = &image->regions.metadata;
	u8 values[VHDX_ITEM_PARENT_LOCATOR][VHDX_ITEM_VALUE_MAX] = { };
	struct vhdx_fault fault = { };
	unsigned int i;
	u8 *table;
	int ret;

	table = malloc(VHDX_METADATA_TABLE_SIZE);
	if (!table)
		return vc_error_nomem(err);
	ret = vc_image_read(image, "metadata table", region->offset, table,
			    VHDX_METADATA_TABLE_SIZE, err);
	if (!ret) {
		ret = vhdx_metadata_table_parse(table, region, image->items, &fault);
		if (ret)
			vc_error_fault(err, ret, image->file.path, &fault);
	}
	free(table);
	for (i = 0; !ret && i < VHDX_ITEM_PARENT_LOCATOR; i++)
		ret = vc_image_read(image, "metadata item",
				    region->offset + image->items[i].offset, values[i],
				    image->items[i].length, err);
	if (ret)
		return ret;
	ret = vhdx_metadata_decode((const u8 (*)[VHDX_ITEM_VALUE_MAX])values, region,
				   image->items, &image->meta, &fault);
	if (!ret)
		ret = vhdx_geometry_init(&image->geo, image->meta.virtual_size,
					 image->meta.block_size,
					 image->meta.logical_sector_size,
					 image->meta.has_parent, &fault);
	if (ret)
		return vc_error_fault(err, ret, image->file.path, &fault);
	if (image->meta.has_parent)
		return vc_image_load_locator(image, err);
	return 0;
}

static int vc_image_check_bat_region(const struct vc_image *image, struct vc_err *err)
{
	const struct vhdx_region *bat = &image->regions.bat;
	u64 need = 8ULL * image->geo.nr_entries;

	if (bat->length < need)
		return vc_error(err, EINVAL, image->file.path,
				"BAT region: has %u bytes, needs %llu (region at offset %llu)",
				bat->length, need, bat->offset);
	if (bat->offset + need > image->size)
		return vc_error(err, EINVAL, image->file.path,
				"ends at %llu, inside the BAT (offset %llu)",
				image->size, bat->offset);
	return 0;
}

static int vc_image_load(struct vc_image *image, unsigned int flags, struct vc_err *err)
{
	struct vhdx_file_identifier id;
	struct vhdx_fault fault = { };
	int ret;

	vc_file_refresh(&image->file);
	image->size = image->file.size;
	image->format = VC_FORMAT_RAW;
	if (flags & VC_IMAGE_RAW || image->size < VHD_FOOTER_SIZE)
		return 0;
	memset(&id, 0, sizeof(id));
	ret = vc_file_read(&image->file, "file identifier", VHDX_IDENTIFIER_OFFSET, &id,
			   image->size < sizeof(id) ? image->size : sizeof(id), err);
	if (ret)
		return ret;
	if (vhdx_identifier_check(&id, &fault)) {
		ret = vc_vhd_load(image, err);
		if (ret != 1)
			return ret;
		image->format = VC_FORMAT_VHD;
		return 0;
	}
	image->format = VC_FORMAT_VHDX;
	image->creator = vc_utf16_decode(id.creator, sizeof(id.creator), false);
	if (!image->creator)
		return vc_error_nomem(err);

	ret = vc_image_load_headers(image, err);
	if (ret || flags & VC_IMAGE_HEADERS)
		return ret;
	if (image->header.log_dirty) {
		if (!(flags & VC_IMAGE_REPLAY))
			return vc_error(err, EUCLEAN, image->file.path,
					"the log holds changes that are not in place yet: run 'vhdclone recover %s' first",
					image->file.path);
		ret = vc_log_replay_memory(image, err);
		if (ret)
			return ret;
	}
	ret = vc_image_load_regions(image, err);
	if (!ret)
		ret = vc_image_load_metadata(image, err);
	if (!ret)
		ret = vc_image_check_bat_region(image, err);
	return ret;
}

static int vc_peek(int fd, enum vc_format *format)
{
	u8 buf[8];
	off_t end;
	ssize_t n;

	n = pread(fd, buf, sizeof(buf), 0);
	if (n < 0)
		return -errno;
	*format = VC_FORMAT_RAW;
	if (n < (ssize_t)sizeof(buf))
		return 0;
	if (!memcmp(buf, VHDX_IDENTIFIER_SIGNATURE, sizeof(buf)))
		*format = VC_FORMAT_VHDX;
	else if (vhd_footer_is(buf))
		*format = VC_FORMAT_VHD;
	if (*format != VC_FORMAT_RAW)
		return 0;
	/* A fixed VHD has it at the end only. */
	end = lseek(fd, 0, SEEK_END) & ~(off_t)(VHD_SECTOR - 1);
	if (end >= VHD_FOOTER_SIZE &&
	    pread(fd, buf, sizeof(buf), end - VHD_FOOTER_SIZE) == sizeof(buf) &&
	    vhd_footer_is(buf))
		*format = VC_FORMAT_VHD;
	return 0;
}

int vc_image_peek(const char *path, enum vc_format *format, struct stat *st)
{
	int path_fd = open(path, O_PATH | O_CLOEXEC);
	char proc[64];
	int ret = 0;
	int fd = -1;

	if (path_fd < 0)
		return -errno;
	/* To open a device can be to do something, whatever is done with it then. */
	if (fstat(path_fd, st))
		ret = -errno;
	else if (!S_ISREG(st->st_mode) && !S_ISBLK(st->st_mode))
		ret = -EINVAL;
	if (!ret) {
		snprintf(proc, sizeof(proc), "/proc/self/fd/%d", path_fd);
		fd = open(proc, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
		ret = fd < 0 ? -errno : vc_peek(fd, format);
	}
	if (fd >= 0)
		close(fd);
	close(path_fd);
	return ret;
}

static void vc_image_forget(struct vc_image *image)
{
	vc_overlay_free(image->overlay);
	vc_locator_free(image->locator);
	free(image->creator);
	free(image->table);
	free(image->vhd);
	image->overlay = NULL;
	image->locator = NULL;
	image->creator = NULL;
	image->table = NULL;
	image->vhd = NULL;
	memset(&image->meta, 0, sizeof(image->meta));
	memset(&image->header, 0, sizeof(image->header));
}

int vc_image_open(struct vc_image **result, const char *path, unsigned int flags,
		  const struct vc_fence *fence, struct vc_err *err)
{
	struct vc_image *image = calloc(1, sizeof(*image));
	unsigned int file_flags = 0;
	int ret;

	*result = NULL;
	if (!image)
		return vc_error_nomem(err);
	if (flags & VC_IMAGE_WRITE)
		file_flags |= VC_FILE_WRITE;
	if (flags & VC_IMAGE_EXCLUSIVE)
		file_flags |= VC_FILE_EXCLUSIVE;
	ret = vc_file_open(&image->file, path, file_flags, fence, err);
	if (!ret && !(flags & VC_IMAGE_UNREAD))
		ret = vc_image_load(image, flags, err);
	if (ret)
		vc_image_close(image);
	else
		*result = image;
	return ret;
}

int vc_image_reload(struct vc_image *image, unsigned int flags, struct vc_err *err)
{
	vc_image_forget(image);
	return vc_image_load(image, flags, err);
}

void vc_image_close(struct vc_image *image)
{
	if (!image)
		return;
	vc_image_forget(image);
	vc_file_close(&image->file);
	free(image);
}

u64 vc_image_virtual_size(const struct vc_image *image)
{
	return image->format == VC_FORMAT_RAW ? image->size : image->meta.virtual_size;
}

const char *vc_image_type(const struct vc_image *image)
{
	if (image->format == VC_FORMAT_RAW)
		return "raw";
	if (image->meta.has_parent)
		return "differencing";
	return image->meta.leave_allocated ? "fixed" : "dynamic";
}

const char *vc_format_name(enum vc_format format)
{
	static const char * const names[] = {
		[VC_FORMAT_RAW] = "raw",
		[VC_FORMAT_VHDX] = "vhdx",
		[VC_FORMAT_VHD] = "vhd",
	};

	return names[format];
}

const char *vc_image_foreign(const struct vc_image *image)
{
	struct vc_err ignored;
	u8 buf[8];

	if (image->size < 512)
		return NULL;
	if (!vc_file_read(&image->file, "signature", 0, buf, sizeof(buf), &ignored)) {
		if (!memcmp(buf, "conectix", 8))
			return "VHD";
		if (!memcmp(buf, "QFI\xfb", 4))
			return "QCOW";
		if (!memcmp(buf, "KDMV", 4))
			return "VMDK";
	}
	/* A fixed VHD has its signature in the last sector only. */
	if (!vc_file_read(&image->file, "signature", image->size - 512, buf, sizeof(buf),
			  &ignored) && !memcmp(buf, "conectix", 8))
		return "VHD";
	return NULL;
}

/* ---- the BAT ------------------------------------------------------------- */

struct vc_walk {
	const struct vc_image *image;
	struct vhdx_bat_walk bat;
	struct vc_usage *usage;
	vc_bat_fn fn;
	vc_bat_fault_fn fault_fn;
	void *data;
};

static int vc_walk_end(const struct vc_walk *walk, u64 entry, bool is_bitmap, u32 number,
		       struct vhdx_fault *fault)
{
	if (number == ~0U || vhdx_bat_entry_end(&walk->image->geo, entry, is_bitmap, number) <=
			     walk->image->size)
		return 0;
	*fault = (struct vhdx_fault) {
		.what = "BAT entry: block lies behind the end of the file",
		.offset = walk->bat.bat_offset + 8ULL * (walk->bat.index - 1),
		.value = entry,
	};
	return -EINVAL;
}

static int vc_walk_entries(struct vc_walk *walk, const __le64 *entries, u32 n,
			   struct vc_err *err)
{
	struct vhdx_fault fault = { };
	bool is_bitmap;
	u32 number;
	u64 entry;
	int ret;
	u32 i;

	for (i = 0; i < n; i++) {
		entry = le64_to_cpu(entries[i]);
		ret = vhdx_bat_walk_entry(&walk->bat, entry, &is_bitmap, &number, &fault);
		if (!ret)
			ret = vc_walk_end(walk, entry, is_bitmap, number, &fault);
		if (ret && walk->fault_fn) {
			walk->fault_fn(walk->data, number, is_bitmap, entry, ret, &fault);
			continue;
		}
		if (ret)
			return vc_error_fault(err, ret, walk->image->file.path, &fault);
		if (number == ~0U)
			continue;
		if (!is_bitmap && vhdx_bat_mib(entry) &&
		    vhdx_bat_state(entry) != VHDX_BLOCK_NOT_PRESENT &&
		    vhdx_bat_state(entry) != VHDX_BLOCK_ZERO)
			walk->usage->nr_placed++;
		if (walk->fn) {
			ret = walk->fn(walk->data, number, is_bitmap, entry, err);
			if (ret)
				return ret;
		}
	}
	return 0;
}

static int vc_walk_bat(struct vc_walk *walk, struct vc_err *err)
{
	const struct vc_image *image = walk->image;
	u64 left = 8ULL * image->geo.nr_entries;
	u64 offset = image->regions.bat.offset;
	__le64 *buf = malloc(VC_BAT_CHUNK);
	u32 bytes;
	int ret = 0;

	if (!buf)
		return vc_error_nomem(err);
	for (; left && !ret; offset += bytes, left -= bytes) {
		bytes = left < VC_BAT_CHUNK ? left : VC_BAT_CHUNK;
		ret = vc_image_read(image, "BAT", offset, buf, bytes, err);
		if (!ret)
			ret = vc_walk_entries(walk, buf, bytes / 8, err);
	}
	free(buf);
	return ret;
}

bool vc_usage_taken(const struct vc_usage *usage, u64 mib)
{
	return mib < usage->claims.nr_mib &&
	       usage->claims.map[mib / BITS_PER_LONG] >> mib % BITS_PER_LONG & 1;
}

static u64 vc_usage_last(const struct vc_usage *usage)
{
	u64 words = (usage->claims.nr_mib + BITS_PER_LONG - 1) / BITS_PER_LONG;
	u64 mib;

	while (words && !usage->claims.map[words - 1])
		words--;
	for (mib = words * BITS_PER_LONG; mib; mib--)
		if (vc_usage_taken(usage, mib - 1))
			break;
	return mib << VHDX_MIB_SHIFT;
}

int vc_image_walk_regions(const struct vc_image *image, struct vc_usage *usage,
			  struct vc_err *err)
{
	struct vhdx_fault fault = { };
	u64 nr_mib = image->size >> VHDX_MIB_SHIFT;
	int ret;

	memset(usage, 0, sizeof(*usage));
	/* A file is made longer before it is used, a device cannot be. */
	if (!image->file.is_block && image->size & (VHDX_MIB - 1))
		nr_mib++;
	if (nr_mib > VHDX_MAX_FILE_MIB)
		nr_mib = VHDX_MAX_FILE_MIB;
	usage->claims.nr_mib = nr_mib;
	usage->claims.map = calloc(nr_mib / BITS_PER_LONG + 1, sizeof(long));
	if (!usage->claims.map)
		return vc_error_nomem(err);
	ret = vhdx_claim_regions(&usage->claims, &image->header, image->table,
				 image->table_offset, &fault);
	if (ret)
		return vc_error_fault(err, ret, image->file.path, &fault);
	usage->end = vc_usage_last(usage);
	return 0;
}

int vc_image_walk_all(const struct vc_image *image, struct vc_usage *usage, vc_bat_fn fn,
		      vc_bat_fault_fn fault_fn, void *data, struct vc_err *err)
{
	struct vc_walk walk = {
		.image = image,
		.usage = usage,
		.fn = fn,
		.fault_fn = fault_fn,
		.data = data,
		.bat = {
			.geo = &image->geo,
			.claims = &usage->claims,
			.bat_offset = image->regions.bat.offset,
		},
	};
	int ret;

	ret = vc_image_walk_regions(image, usage, err);
	if (ret)
		return ret;
	ret = vc_walk_bat(&walk, err);
	usage->nr_full = walk.bat.nr_full;
	usage->nr_partial = walk.bat.nr_partial;
	usage->nr_bitmaps = walk.bat.nr_bitmaps;
	usage->end = vc_usage_last(usage);
	return ret;
}

int vc_image_walk(const struct vc_image *image, struct vc_usage *usage, vc_bat_fn fn,
		  void *data, struct vc_err *err)
{
	return vc_image_walk_all(image, usage, fn, NULL, data, err);
}

void vc_usage_free(struct vc_usage *usage)
{
	free(usage->claims.map);
	usage->claims.map = NULL;
}

u64 vc_image_full_size(const struct vc_image *image, const struct vc_usage *usage)
{
	u64 blocks = image->geo.nr_blocks - usage->nr_placed;
	u64 bitmaps = 0;

	/*
	 * A bitmap block may take a hole that a payload block would have fitted in,
	 * so count a whole block for each that is still to come.
	 */
	if (image->geo.has_parent)
		bitmaps = image->geo.nr_chunks - usage->nr_bitmaps;
	return usage->end + (blocks + bitmaps) * image->geo.block_size;
}

u64 vc_image_open_size(const struct vc_image *image, const struct vc_usage *usage)
{
	u64 limit = (u64)VHDX_MAX_FILE_MIB << VHDX_MIB_SHIFT;
	u64 again = (u64)image->geo.nr_blocks * image->geo.block_size;
	u64 size = vc_image_full_size(image, usage) + VC_BLOCKS_AGAIN * again;

	return size < limit ? size : limit;
}

void vc_image_punch_free(const struct vc_image *image, const struct vc_usage *usage)
{
	u64 end;
	u64 mib;

	for (mib = 0; mib < usage->claims.nr_mib; mib = end + 1) {
		for (end = mib; end < usage->claims.nr_mib && !vc_usage_taken(usage, end);)
			end++;
		if (end > mib)
			vc_file_punch(&image->file, mib << VHDX_MIB_SHIFT,
				      (end - mib) << VHDX_MIB_SHIFT);
	}
}

int vc_image_trim(struct vc_image *image, u64 *cut, struct vc_err *err)
{
	struct vc_usage usage;
	int ret;

	*cut = 0;
	if (image->file.is_block)
		return 0;
	ret = vc_image_walk(image, &usage, NULL, NULL, err);
	vc_usage_free(&usage);
	if (ret || image->file.size <= usage.end)
		return ret;
	*cut = image->file.size - usage.end;
	ret = vc_file_resize(&image->file, usage.end, err);
	if (!ret)
		ret = vc_file_sync(&image->file, err);
	if (!ret)
		image->size = image->file.size;
	return ret;
}

int vc_header_update(struct vc_image *image, struct vc_err *err)
{
	struct vhdx_header_info next = image->header;
	struct vhdx_header *h;
	int ret;

	next.slot = !image->header.slot;
	next.sequence_number++;
	h = malloc(sizeof(*h));
	if (!h)
		return vc_error_nomem(err);
	vhdx_header_build(h, &next);
	ret = vc_file_write(&image->file, "header", vhdx_header_offset(next.slot), h,
			    sizeof(*h), err);
	free(h);
	if (!ret)
		ret = vc_file_sync(&image->file, err);
	if (!ret) {
		next.other_valid = true;
		image->header = next;
	}
	return ret;
}

int vc_header_update_both(struct vc_image *image, struct vc_err *err)
{
	int ret = vc_header_update(image, err);

	if (!ret)
		ret = vc_header_update(image, err);
	return ret;
}
