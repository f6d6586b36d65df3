// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-vhdclone: a read-only layer that is a dynamic or differencing VHD, the format
 * before VHDX.
 *
 * It becomes an image like any other: a block map, and pages of sector bitmap.  What
 * differs is where things lie.  A block is at any sector of the file, so its place is
 * in an array of its own.  Its bitmap lies in front of it, most significant bit first;
 * a page is put together from those of all blocks that it covers.
 *
 * The footer at the end of the file is not looked at: the device may be longer than
 * the file.  Its copy at the beginning says the same.
 */
#include "dm-vhdclone.h"

#include <linux/mm.h>
#include <linux/slab.h>

#include "vhd-format.h"

static int vc_vhd_load_headers(struct vc_load *load, struct vhd_header_info *header)
{
	struct vc_image *img = load->img;
	struct vhd_footer_info footer;
	struct vhdx_fault fault = {};
	int r;

	r = vc_load_read(load, 0, load->buf, VHD_FOOTER_SIZE, "footer");
	if (r)
		return r;
	r = vhd_footer_parse(load->buf, 0, &footer, &fault);
	if (r)
		return vc_refuse(load, &fault, r);
	if (footer.type == VHD_FIXED) {
		DMERR("%s: %s: is a fixed VHD: name it as a raw layer", load->name, load->path);
		return -EINVAL;
	}
	r = vc_load_read(load, footer.header_offset, load->buf, VHD_HEADER_SIZE,
			 "dynamic header");
	if (r)
		return r;
	r = vhd_header_parse(load->buf, &footer, header, &fault);
	if (r)
		return vc_refuse(load, &fault, r);

	img->meta.has_parent = footer.type == VHD_DIFFERENCING;
	if (img->args.sectors != header->virtual_size >> SECTOR_SHIFT)
		return vc_differs(load, "virtual sectors", img->args.sectors,
				  header->virtual_size >> SECTOR_SHIFT);
	if (img->args.block_sectors != header->block_size >> SECTOR_SHIFT)
		return vc_differs(load, "block sectors", img->args.block_sectors,
				  header->block_size >> SECTOR_SHIFT);
	if (img->args.bat != header->bat_offset >> SECTOR_SHIFT)
		return vc_differs(load, "BAT sector", img->args.bat,
				  header->bat_offset >> SECTOR_SHIFT);
	return vc_check_lower(load);
}

static void vc_vhd_set_block(struct vc_image *img, const struct vhd_header_info *header,
			     u32 block, u32 place)
{
	if (place == VHD_NO_BLOCK) {
		img->map[block] = vc_entry(VC_ABSENT, 0);
		return;
	}
	img->places[block] = place + header->bitmap_sectors;
	if (img->meta.has_parent) {
		img->map[block] = vc_entry(VC_PARTIAL, 0);
		img->nr_partial++;
	} else {
		/* Sectors that were never written are zeros in the file. */
		img->map[block] = vc_entry(VC_FULL, 0);
		img->nr_full++;
	}
}

static int vc_vhd_load_bat(struct vc_load *load, struct vhd_bat_walk *walk)
{
	const struct vhd_header_info *header = walk->header;
	u64 offset = header->bat_offset;
	u32 left = header->nr_blocks;
	struct vhdx_fault fault = {};
	u32 block = 0;
	int r;

	while (left) {
		u32 nr = min_t(u32, left, VC_LOAD_BYTES / 4);
		size_t bytes = round_up(nr * 4, VHD_SECTOR);
		const __be32 *bat = load->buf;
		u32 i;

		r = vc_load_read(load, offset, load->buf, bytes, "BAT");
		if (r)
			return r;
		for (i = 0; i < nr; i++) {
			u32 place = be32_to_cpu(bat[i]);

			r = vhd_bat_walk_entry(walk, place, &fault);
			if (r)
				return vc_refuse(load, &fault, r);
			vc_vhd_set_block(load->img, header, block++, place);
		}
		left -= nr;
		offset += bytes;
		cond_resched();
	}
	return 0;
}

int vc_vhd_load(struct vc_load *load)
{
	struct vc_image *img = load->img;
	struct vhd_header_info header;
	struct vhd_bat_walk walk = {
		.header = &header,
		/* Places in memory are of 32 bits, data of the last block included. */
		.file_size = min_t(u64, compat_bdev_nr_sectors(img->bdev), U32_MAX) <<
			     SECTOR_SHIFT,
	};
	int r;

	r = vc_vhd_load_headers(load, &header);
	if (r)
		return r;
	/* Before memory is spent on what the image only claims to have. */
	if (header.bat_offset + 4ULL * header.nr_blocks > walk.file_size) {
		DMERR("%s: %s: BAT lies past the end of the device, at byte offset %llu",
		      load->name, load->path, header.bat_offset);
		return -EINVAL;
	}

	img->sectors = header.virtual_size >> SECTOR_SHIFT;
	img->block_shift = header.block_shift - SECTOR_SHIFT;
	img->lss_shift = 0;
	img->page_shift = VHDX_SECTORS_PER_PAGE_SHIFT;
	img->geo.nr_blocks = header.nr_blocks;
	img->geo.nr_chunks = DIV_ROUND_UP_ULL(img->sectors,
					      1ULL << VHDX_SECTORS_PER_CHUNK_SHIFT);

	img->map = kvmalloc_array(header.nr_blocks, sizeof(*img->map), GFP_KERNEL);
	img->places = kvcalloc(header.nr_blocks, sizeof(*img->places), GFP_KERNEL);
	img->dirs = kvcalloc(img->geo.nr_chunks, sizeof(*img->dirs), GFP_KERNEL);
	walk.nr_slots = vhd_nr_slots(&header, walk.file_size);
	walk.slot = kvcalloc(walk.nr_slots, sizeof(*walk.slot), GFP_KERNEL);
	r = -ENOMEM;
	if (img->map && img->places && img->dirs && walk.slot)
		r = vc_vhd_load_bat(load, &walk);
	kvfree(walk.slot);
	return r;
}

/* Bit 0 of a byte is its first sector in VHDX, and its last one in VHD. */
static u8 vc_reverse_bits(u8 x)
{
	x = x >> 4 | x << 4;
	x = (x & 0xcc) >> 2 | (x & 0x33) << 2;
	return (x & 0xaa) >> 1 | (x & 0x55) << 1;
}

/* The part of a block's bitmap that belongs into bytes [@first, @first + @nr) of a page. */
static int vc_vhd_read_bitmap(struct vc_image *img, sector_t place, u32 skip, u8 *to, u32 nr,
			      u8 *buf)
{
	u32 i;

	if (vc_read(img->bdev, place + (skip >> SECTOR_SHIFT), buf,
		    round_up(nr, VHD_SECTOR)))
		return -EIO;
	for (i = 0; i < nr; i++)
		to[i] = vc_reverse_bits(buf[i]);
	return 0;
}

int vc_vhd_read_page(struct vc_image *img, u32 index, void *bits)
{
	sector_t sector = (sector_t)index << img->page_shift;
	sector_t end = min(sector + (1ULL << img->page_shift), img->sectors);
	u32 block_bytes = 1U << img->block_shift >> 3;
	u32 bitmap_sectors = DIV_ROUND_UP(block_bytes, VHD_SECTOR);
	u32 bytes = min_t(u32, block_bytes, VHDX_PAGE_SIZE);
	u8 *buf = (u8 *)__get_free_page(VC_GFP_LAST);
	int r = 0;

	if (!buf)
		return -EBUSY;
	for (; !r && sector < end; sector += (sector_t)bytes << 3, bits += bytes) {
		u32 block = sector >> img->block_shift;
		u32 skip = (sector & ((1ULL << img->block_shift) - 1)) >> 3;

		if (vc_entry_state(img->map[block]) == VC_PARTIAL)
			r = vc_vhd_read_bitmap(img, img->places[block] - bitmap_sectors, skip,
					       bits, bytes, buf);
	}
	free_page((unsigned long)buf);
	return r;
}
