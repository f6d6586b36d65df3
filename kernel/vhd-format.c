// SPDX-License-Identifier: (GPL-2.0-only OR GPL-2.0-or-later)
/*
 * The VHD format, version 1: checks and arithmetic.  See vhd-format.h for the
 * contract.
 *
 * Compiled into the module, the tool and the unit tests.  All input is hostile: nothing read from
 * the image is used as an index, a count or a length before it was checked.
 */
#include "vhd-format.h"

static int vhd_fail(struct vhdx_fault *fault, int err, const char *what, u64 offset,
		    u64 value)
{
	fault->what = what;
	fault->offset = offset;
	fault->value = value;
	return err;
}

static u32 vhd_sum(const void *buf, size_t size)
{
	const u8 *p = buf;
	u32 sum = 0;

	while (size--)
		sum += *p++;
	return sum;
}

u32 vhd_footer_checksum(const struct vhd_footer *f)
{
	return ~(vhd_sum(f, sizeof(*f)) - vhd_sum(&f->checksum, sizeof(f->checksum)));
}

u32 vhd_header_checksum(const struct vhd_header *h)
{
	return ~(vhd_sum(h, sizeof(*h)) - vhd_sum(&h->checksum, sizeof(h->checksum)));
}

bool vhd_footer_is(const void *buf)
{
	return !memcmp(buf, VHD_FOOTER_COOKIE, 8);
}

int vhd_footer_parse(const struct vhd_footer *f, u64 offset, struct vhd_footer_info *info,
		     struct vhdx_fault *fault)
{
	u64 limit = VHD_MAX_DYNAMIC_SIZE;

	if (!vhd_footer_is(f))
		return vhd_fail(fault, -EBADMSG, "footer: signature is wrong", offset, 0);
	if (be32_to_cpu(f->checksum) != vhd_footer_checksum(f))
		return vhd_fail(fault, -EBADMSG, "footer: checksum is wrong",
				offset + offsetof(struct vhd_footer, checksum),
				be32_to_cpu(f->checksum));
	if (be32_to_cpu(f->version) != VHD_VERSION)
		return vhd_fail(fault, -EOPNOTSUPP, "footer: version is unknown",
				offset + offsetof(struct vhd_footer, version),
				be32_to_cpu(f->version));
	switch (be32_to_cpu(f->type)) {
	case VHD_FIXED:
		/* No BAT sets a limit here. */
		limit = VHDX_MAX_VIRTUAL_SIZE;
		break;
	case VHD_DYNAMIC:
	case VHD_DIFFERENCING:
		break;
	default:
		return vhd_fail(fault, -EOPNOTSUPP, "footer: type is unknown",
				offset + offsetof(struct vhd_footer, type),
				be32_to_cpu(f->type));
	}
	info->type = be32_to_cpu(f->type);
	info->virtual_size = be64_to_cpu(f->current_size);
	if (!info->virtual_size || info->virtual_size % VHD_SECTOR ||
	    info->virtual_size > limit)
		return vhd_fail(fault, -EINVAL,
				"footer: size is not a multiple of 512 in the limit of its type",
				offset + offsetof(struct vhd_footer, current_size),
				info->virtual_size);
	info->header_offset = 0;
	if (info->type != VHD_FIXED) {
		info->header_offset = be64_to_cpu(f->header_offset);
		if (info->header_offset < VHD_FOOTER_SIZE ||
		    info->header_offset % VHD_SECTOR ||
		    info->header_offset > VHD_NO_OFFSET / 2)
			return vhd_fail(fault, -EINVAL,
					"footer: offset of the header is out of range",
					offset + offsetof(struct vhd_footer, header_offset),
					info->header_offset);
	}
	info->timestamp = be32_to_cpu(f->timestamp);
	memcpy(info->creator, f->creator, sizeof(f->creator));
	info->creator[4] = '\0';
	info->unique_id = f->unique_id;
	return 0;
}

static u64 vhd_round_up(u64 x, u64 unit)
{
	return (x + unit - 1) & ~(unit - 1);
}

int vhd_header_parse(const struct vhd_header *h, const struct vhd_footer_info *footer,
		     struct vhd_header_info *info, struct vhdx_fault *fault)
{
	u64 offset = footer->header_offset;

	if (memcmp(h->cookie, VHD_HEADER_COOKIE, sizeof(h->cookie)))
		return vhd_fail(fault, -EBADMSG, "dynamic header: signature is wrong", offset,
				0);
	if (be32_to_cpu(h->checksum) != vhd_header_checksum(h))
		return vhd_fail(fault, -EBADMSG, "dynamic header: checksum is wrong",
				offset + offsetof(struct vhd_header, checksum),
				be32_to_cpu(h->checksum));
	if (be32_to_cpu(h->version) != VHD_VERSION)
		return vhd_fail(fault, -EOPNOTSUPP, "dynamic header: version is unknown",
				offset + offsetof(struct vhd_header, version),
				be32_to_cpu(h->version));

	info->header_offset = offset;
	info->virtual_size = footer->virtual_size;
	info->block_size = be32_to_cpu(h->block_size);
	if (info->block_size < VHD_MIN_BLOCK_SIZE || info->block_size > VHD_MAX_BLOCK_SIZE ||
	    info->block_size & (info->block_size - 1))
		return vhd_fail(fault, -EINVAL,
				"dynamic header: block size is not a power of two from 4 KiB to 256 MiB",
				offset + offsetof(struct vhd_header, block_size),
				info->block_size);
	for (info->block_shift = 0; 1U << info->block_shift < info->block_size;)
		info->block_shift++;
	info->bitmap_sectors = vhd_round_up(info->block_size / VHD_SECTOR / 8, VHD_SECTOR) /
			       VHD_SECTOR;
	info->nr_blocks = (info->virtual_size + info->block_size - 1) >> info->block_shift;
	info->nr_entries = be32_to_cpu(h->max_entries);
	if (info->nr_entries < info->nr_blocks)
		return vhd_fail(fault, -EINVAL,
				"dynamic header: the BAT has fewer entries than the disk has blocks",
				offset + offsetof(struct vhd_header, max_entries),
				info->nr_entries);
	info->bat_offset = be64_to_cpu(h->bat_offset);
	if (info->bat_offset < VHD_FOOTER_SIZE || info->bat_offset % VHD_SECTOR ||
	    info->bat_offset > VHD_NO_OFFSET / 2)
		return vhd_fail(fault, -EINVAL,
				"dynamic header: offset of the BAT is out of range",
				offset + offsetof(struct vhd_header, bat_offset),
				info->bat_offset);
	info->parent_id = h->parent_id;
	return 0;
}

/* ---- BAT checks ------------------------------------------------------------- */

u32 vhd_nr_slots(const struct vhd_header_info *header, u64 file_size)
{
	u64 sectors = file_size >> VHD_SECTOR_SHIFT;

	/* No place in the BAT is beyond 32 bits. */
	if (sectors > VHD_NO_BLOCK)
		sectors = VHD_NO_BLOCK;
	return (u32)sectors / vhd_block_sectors(header) + 1;
}

static bool vhd_meets(u64 start, u64 nr, u64 offset, u64 bytes)
{
	u64 first = offset >> VHD_SECTOR_SHIFT;
	u64 end = (offset + bytes + VHD_SECTOR - 1) >> VHD_SECTOR_SHIFT;

	return start < end && start + nr > first;
}

/* Take the place, which is not 0; false if a part of it is taken already. */
static bool vhd_take(struct vhd_bat_walk *walk, u32 place)
{
	u32 length = vhd_block_sectors(walk->header);
	u32 i = place / length;
	u32 *slot = walk->slot;

	if (i >= walk->nr_slots || slot[i])
		return false;
	if (i && slot[i - 1] && place - slot[i - 1] < length)
		return false;
	if (i + 1 < walk->nr_slots && slot[i + 1] && slot[i + 1] - place < length)
		return false;
	slot[i] = place;
	return true;
}

int vhd_bat_walk_entry(struct vhd_bat_walk *walk, u32 entry, struct vhdx_fault *fault)
{
	const struct vhd_header_info *h = walk->header;
	u64 at = h->bat_offset + 4ULL * walk->index;
	u64 start = (u64)walk->index << h->block_shift;
	u64 nr = vhd_block_sectors(h);
	u64 least = h->block_size;

	if (walk->index >= h->nr_blocks)
		return 0;
	walk->index++;
	if (entry == VHD_NO_BLOCK)
		return 0;

	/* The last block need only be there as far as the disk goes. */
	if (h->virtual_size - start < least)
		least = h->virtual_size - start;
	if (vhd_data_offset(h, entry) + least > walk->file_size)
		return vhd_fail(fault, -EINVAL,
				"BAT entry: block lies behind the end of the file", at, entry);
	if (vhd_meets(entry, nr, 0, VHD_FOOTER_SIZE) ||
	    vhd_meets(entry, nr, h->header_offset, VHD_HEADER_SIZE) ||
	    vhd_meets(entry, nr, h->bat_offset, 4ULL * h->nr_blocks))
		return vhd_fail(fault, -EINVAL,
				"BAT entry: block lies on the header or the BAT", at, entry);
	if (!vhd_take(walk, entry))
		return vhd_fail(fault, -EINVAL, "BAT entry: block lies on another block", at,
				entry);
	walk->nr_present++;
	return 0;
}
