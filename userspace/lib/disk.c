// SPDX-License-Identifier: GPL-2.0-or-later
/* What a chain reads as: see disk.h. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

#include "disk.h"
#include "vhd.h"

/* Bytes of a sector bitmap that are read at once: 256 MiB of disk or more. */
#define VC_WINDOW	65536U

/* A hole in a file that is shorter is not worth a run of its own. */
#define VC_HOLE_MIN	65536U

enum vc_run_kind {
	VC_RUN_BELOW,		/* the layer below must be asked */
	VC_RUN_ZERO,
	VC_RUN_DATA,
};

/* What one layer says about a part of the disk; all in bytes. */
struct vc_run {
	u64 start;
	u64 end;
	enum vc_run_kind kind;
	u64 place;
};

/*
 * @map: of each block, its state in the lower 3 bits and its place in MiB; of a VHD's,
 *	 its sector in the file
 * @bitmaps: of each chunk, the place of its bitmap block in MiB
 * @run: the last answer: who goes through the disk in order asks about it again and
 *	 again while layers below change
 * @window: a piece of a bitmap block, from file offset @window_at on
 * @hole_start: with @hole_end, a part of the file that is a hole, or (@is_hole is not
 *		set) holds data
 * @hole_end: see there
 */
struct vc_disk_layer {
	const struct vc_image *image;
	u64 size;
	u32 *map;
	u32 *bitmaps;
	struct vc_run run;
	u8 *window;
	u64 window_at;
	u64 hole_start;
	u64 hole_end;
	bool is_hole;
};

struct vc_disk {
	u64 size;
	unsigned int first;
	unsigned int nr;
	struct vc_disk_layer layer[];
};

#define VC_STATE_SHIFT	3

/* ---- one layer --------------------------------------------------------------- */

static int vc_map_entry(void *data, u32 number, bool is_bitmap, u64 entry,
			struct vc_err *err __always_unused)
{
	struct vc_disk_layer *layer = data;
	u32 mib = vhdx_bat_mib(entry);

	if (is_bitmap)
		layer->bitmaps[number] = mib;
	else
		layer->map[number] = mib << VC_STATE_SHIFT | vhdx_bat_state(entry);
	return 0;
}

/* One place after the other, from the file's first byte on. */
static bool vc_layer_is_plain(const struct vc_image *image)
{
	return image->format == VC_FORMAT_RAW ||
	       (image->format == VC_FORMAT_VHD && vc_vhd_is_fixed(image));
}

static int vc_layer_load(struct vc_disk_layer *layer, struct vc_err *err)
{
	const struct vc_image *image = layer->image;
	struct vc_usage usage;
	int ret;

	layer->size = vc_image_virtual_size(image);
	if (vc_layer_is_plain(image))
		return 0;
	if (image->format == VC_FORMAT_VHD)
		return vc_vhd_bat(image, &layer->map, NULL, err);
	if (image->header.log_dirty && !image->overlay)
		return vc_error(err, EUCLEAN, image->file.path,
				"the log holds changes that are not in place yet: run 'vhdclone recover %s' first",
				image->file.path);
	layer->map = calloc(image->geo.nr_blocks, sizeof(*layer->map));
	layer->bitmaps = calloc(image->geo.nr_chunks, sizeof(*layer->bitmaps));
	if (!layer->map || !layer->bitmaps)
		return vc_error_nomem(err);
	ret = vc_image_walk(image, &usage, vc_map_entry, layer, err);
	vc_usage_free(&usage);
	return ret;
}

/* Which end of a byte has the first bit. */
#define VC_LSB_FIRST	0U
#define VC_MSB_FIRST	7U

static bool vc_bit(const u8 *bits, u32 bit, u32 order)
{
	return bits[bit / 8] >> (bit % 8 ^ order) & 1;
}

/* From @bit up to @end, how far all are the same as the first. */
static u32 vc_bits_same(const u8 *bits, u32 bit, u32 end, u32 order)
{
	bool value = vc_bit(bits, bit, order);
	u8 full = value ? 0xff : 0;
	u32 i = bit + 1;

	while (i < end) {
		if (i % 8 == 0 && bits[i / 8] == full)
			i += 8;
		else if (vc_bit(bits, i, order) == value)
			i++;
		else
			break;
	}
	return (i < end ? i : end) - bit;
}

/* @len: at most VC_WINDOW, always the same for one layer. */
static int vc_layer_window(struct vc_disk_layer *layer, u64 at, size_t len,
			   struct vc_err *err)
{
	int ret;

	if (layer->window && layer->window_at == at)
		return 0;
	if (!layer->window)
		layer->window = malloc(VC_WINDOW);
	if (!layer->window)
		return vc_error_nomem(err);
	layer->window_at = ~0ULL;
	ret = vc_image_read(layer->image, "sector bitmap", at, layer->window, len, err);
	if (!ret)
		layer->window_at = at;
	return ret;
}

/* Sectors of a partial block: a run of those that are here, or of those below. */
static int vc_piece_partial(struct vc_disk_layer *layer, struct vc_run *run,
			    struct vc_err *err)
{
	const struct vhdx_geometry *geo = &layer->image->geo;
	u64 sector = run->start >> geo->sector_shift;
	u32 bit = sector & ((1U << VHDX_SECTORS_PER_CHUNK_SHIFT) - 1);
	u64 nr = ((run->end - 1) >> geo->sector_shift) - sector + 1;
	u64 at = (u64)layer->bitmaps[sector >> VHDX_SECTORS_PER_CHUNK_SHIFT] << VHDX_MIB_SHIFT;
	u64 end;
	int ret;

	at += bit / 8 / VC_WINDOW * VC_WINDOW;
	ret = vc_layer_window(layer, at, VC_WINDOW, err);
	if (ret)
		return ret;
	bit %= VC_WINDOW * 8;
	if (nr > VC_WINDOW * 8 - bit)
		nr = VC_WINDOW * 8 - bit;
	end = (sector + vc_bits_same(layer->window, bit, bit + nr, VC_LSB_FIRST)) <<
	      geo->sector_shift;
	if (end < run->end)
		run->end = end;
	run->kind = vc_bit(layer->window, bit, VC_LSB_FIRST) ? VC_RUN_DATA : VC_RUN_BELOW;
	return 0;
}

/*
 * In a dynamic image the bitmaps say nothing that counts: what was never written is
 * zeros in the file, too.
 */
static int vc_piece_vhd(struct vc_disk_layer *layer, struct vc_run *run,
			struct vc_err *err)
{
	const struct vhd_header_info *h = &layer->image->vhd->header;
	u64 block = run->start >> h->block_shift;
	u64 first = block << h->block_shift;
	u64 end = first + h->block_size;
	u32 place = layer->map[block];
	u32 bit = (run->start - first) >> VHD_SECTOR_SHIFT;
	int ret;

	if (end < run->end)
		run->end = end;
	run->kind = VC_RUN_BELOW;
	if (place == VHD_NO_BLOCK)
		return 0;
	run->kind = VC_RUN_DATA;
	run->place = vhd_data_offset(h, place) + (run->start - first);
	if (!layer->image->meta.has_parent)
		return 0;
	ret = vc_layer_window(layer, vhd_bitmap_offset(place),
			      (size_t)h->bitmap_sectors << VHD_SECTOR_SHIFT, err);
	if (ret)
		return ret;
	if (!vc_bit(layer->window, bit, VC_MSB_FIRST))
		run->kind = VC_RUN_BELOW;
	end = (run->end - first + VHD_SECTOR - 1) >> VHD_SECTOR_SHIFT;
	end = bit + vc_bits_same(layer->window, bit, end, VC_MSB_FIRST);
	end = first + (end << VHD_SECTOR_SHIFT);
	if (end < run->end)
		run->end = end;
	return 0;
}

static int vc_piece_vhdx(struct vc_disk_layer *layer, struct vc_run *run,
			 struct vc_err *err)
{
	const struct vhdx_geometry *geo = &layer->image->geo;
	u64 block = run->start >> geo->block_shift;
	u64 end = (block + 1) << geo->block_shift;
	u32 entry = layer->map[block];

	if (end < run->end)
		run->end = end;
	run->place = ((u64)(entry >> VC_STATE_SHIFT) << VHDX_MIB_SHIFT) +
		     (run->start & (geo->block_size - 1));
	switch (entry & VHDX_BAT_STATE_MASK) {
	case VHDX_BLOCK_FULLY_PRESENT:
		run->kind = VC_RUN_DATA;
		return 0;
	case VHDX_BLOCK_PARTIALLY_PRESENT:
		return vc_piece_partial(layer, run, err);
	case VHDX_BLOCK_NOT_PRESENT:
		run->kind = VC_RUN_BELOW;
		return 0;
	default:
		/* What is undefined or unmapped may be zeros, and here always is. */
		run->kind = VC_RUN_ZERO;
		return 0;
	}
}

/* What the file system knows about the file at @place. */
static void vc_layer_ask_hole(struct vc_disk_layer *layer, u64 place)
{
	const struct vc_file *file = &layer->image->file;
	off_t next;

	layer->hole_start = place;
	layer->hole_end = ~0ULL;
	layer->is_hole = false;
	/* A replayed log may fill holes, and a device has none that it tells of. */
	if (file->is_block || layer->image->overlay)
		return;
	next = lseek(file->fd, place, SEEK_DATA);
	if (next < 0 && errno != ENXIO)
		return;
	layer->is_hole = next < 0 || (u64)next > place;
	if (!layer->is_hole)
		next = lseek(file->fd, place, SEEK_HOLE);
	if (next >= 0)
		layer->hole_end = next;
}

/* Data in a hole of the file is zeros. */
static void vc_piece_hole(struct vc_disk_layer *layer, struct vc_run *run)
{
	u64 length;

	if (run->kind != VC_RUN_DATA)
		return;
	if (run->place < layer->hole_start || run->place >= layer->hole_end)
		vc_layer_ask_hole(layer, run->place);
	length = (layer->hole_end - run->place) & ~511ULL;
	/* One sector that is both is data. */
	if (!length)
		length = 512;
	else if (layer->is_hole && length >= VC_HOLE_MIN)
		run->kind = VC_RUN_ZERO;
	if (run->end - run->start > length)
		run->end = run->start + length;
}

/* What the layer says at @offset, for as far as that is easily said. */
static int vc_layer_piece(struct vc_disk_layer *layer, u64 offset, struct vc_run *run,
			  struct vc_err *err)
{
	int ret = 0;

	*run = (struct vc_run){ .start = offset, .end = layer->size };
	if (offset >= layer->size) {
		/* A layer hides all that lies below it and behind its end. */
		run->kind = layer->image->meta.has_parent ? VC_RUN_ZERO : VC_RUN_BELOW;
		run->end = ~0ULL;
		return 0;
	}
	if (vc_layer_is_plain(layer->image)) {
		run->kind = VC_RUN_DATA;
		run->place = offset;
	} else if (layer->image->format == VC_FORMAT_VHD) {
		ret = vc_piece_vhd(layer, run, err);
	} else {
		ret = vc_piece_vhdx(layer, run, err);
	}
	if (ret)
		return ret;
	vc_piece_hole(layer, run);
	return 0;
}

static bool vc_run_goes_on(const struct vc_run *run, const struct vc_run *next)
{
	return run->kind == next->kind &&
	       (run->kind != VC_RUN_DATA ||
		run->place + (next->start - run->start) == next->place);
}

/* Fill in the layer's @run so that it holds @offset and, if it can, goes on to @want. */
static int vc_layer_run(struct vc_disk_layer *layer, u64 offset, u64 want,
			struct vc_err *err)
{
	struct vc_run *run = &layer->run;
	struct vc_run next;
	int ret;

	if (offset >= run->start && offset < run->end)
		return 0;
	run->end = run->start;
	ret = vc_layer_piece(layer, offset, &next, err);
	if (ret)
		return ret;
	*run = next;
	while (run->end < want) {
		ret = vc_layer_piece(layer, run->end, &next, err);
		if (ret || !vc_run_goes_on(run, &next))
			return ret;
		run->end = next.end;
	}
	return 0;
}

/* ---- the disk ---------------------------------------------------------------- */

int vc_disk_open(struct vc_disk **result, const struct vc_chain *chain,
		 unsigned int first, unsigned int nr, struct vc_err *err)
{
	struct vc_disk *disk = calloc(1, sizeof(*disk) + nr * sizeof(disk->layer[0]));
	unsigned int i;
	int ret = 0;

	*result = NULL;
	if (!disk)
		return vc_error_nomem(err);
	disk->first = first;
	disk->nr = nr;
	for (i = 0; i < nr && !ret; i++) {
		disk->layer[i].image = chain->layer[first + i];
		ret = vc_layer_load(&disk->layer[i], err);
	}
	disk->size = disk->layer[0].size;
	if (ret)
		vc_disk_close(disk);
	else
		*result = disk;
	return ret;
}

void vc_disk_close(struct vc_disk *disk)
{
	unsigned int i;

	for (i = 0; disk && i < disk->nr; i++) {
		free(disk->layer[i].map);
		free(disk->layer[i].bitmaps);
		free(disk->layer[i].window);
	}
	free(disk);
}

u64 vc_disk_size(const struct vc_disk *disk)
{
	return disk->size;
}

int vc_disk_extent(struct vc_disk *disk, u64 offset, u64 max, struct vc_extent *extent,
		   struct vc_err *err)
{
	u64 end = max < disk->size - offset ? offset + max : disk->size;
	struct vc_run *run = NULL;
	unsigned int i;
	int ret;

	for (i = 0; i < disk->nr; i++) {
		run = &disk->layer[i].run;
		ret = vc_layer_run(&disk->layer[i], offset, end, err);
		if (ret)
			return ret;
		if (run->end < end)
			end = run->end;
		if (run->kind != VC_RUN_BELOW)
			break;
	}
	*extent = (struct vc_extent){
		.offset = offset,
		.length = end - offset,
		.kind = VC_EXTENT_ABSENT,
		.layer = disk->first + disk->nr - 1,
	};
	if (i == disk->nr)
		return 0;
	extent->layer = disk->first + i;
	extent->kind = VC_EXTENT_ZERO;
	if (run->kind == VC_RUN_DATA) {
		extent->kind = VC_EXTENT_DATA;
		extent->place = run->place + (offset - run->start);
	}
	return 0;
}

int vc_disk_read(struct vc_disk *disk, u64 offset, void *buf, size_t len,
		 struct vc_err *err)
{
	const struct vc_image *image;
	struct vc_extent extent;
	u8 *to = buf;
	size_t there;
	int ret;

	if (offset > disk->size || len > disk->size - offset)
		return vc_error(err, EINVAL, disk->layer[0].image->file.path,
				"the disk ends at %llu, %zu bytes at %llu do not lie in it",
				disk->size, len, offset);
	for (; len; offset += extent.length, to += extent.length, len -= extent.length) {
		ret = vc_disk_extent(disk, offset, len, &extent, err);
		if (ret)
			return ret;
		there = 0;
		if (extent.kind == VC_EXTENT_DATA) {
			image = disk->layer[extent.layer - disk->first].image;
			there = extent.length;
			if (there > image->size - extent.place)
				there = image->size - extent.place;
			ret = vc_image_read(image, "block", extent.place, to, there, err);
			if (ret)
				return ret;
		}
		memset(to + there, 0, extent.length - there);
	}
	return 0;
}
