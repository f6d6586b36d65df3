// SPDX-License-Identifier: GPL-2.0-or-later
/* New VHD: see vhdwrite.h. */
#include <stdlib.h>
#include <time.h>

#include "guid.h"
#include "vhdwrite.h"

#define VC_VHD_BLOCK		(2 * VHDX_MIB)
#define VC_VHD_HEADER_AT	VHD_FOOTER_SIZE
#define VC_VHD_BAT_AT		(VC_VHD_HEADER_AT + VHD_HEADER_SIZE)
#define VC_VHD_BITMAP		VHD_SECTOR	/* of a block: a bit a sector */

/* The geometry that goes with a size, as the format's appendix has it. */
static void vc_vhd_geometry(u64 sectors, struct vhd_footer *f)
{
	u32 total = sectors < 65535ULL * 16 * 255 ? sectors : 65535U * 16 * 255;
	u32 per_track = 17;
	u32 heads;
	u32 rows;

	if (total >= 65535U * 16 * 63) {
		per_track = 255;
		heads = 16;
	} else {
		rows = total / per_track;
		heads = (rows + 1023) / 1024;
		if (heads < 4)
			heads = 4;
		if (rows >= heads * 1024 || heads > 16) {
			per_track = 31;
			heads = 16;
			rows = total / per_track;
		}
		if (rows >= heads * 1024)
			per_track = 63;
	}
	f->cylinders = cpu_to_be16(total / per_track / heads);
	f->heads = heads;
	f->sectors_per_track = per_track;
}

static void vc_vhd_footer(struct vhd_footer *f, enum vhd_type type, u64 size)
{
	struct vhdx_guid id;

	memset(f, 0, sizeof(*f));
	vc_guid_random(&id);
	memcpy(f->cookie, VHD_FOOTER_COOKIE, sizeof(f->cookie));
	f->features = cpu_to_be32(2);
	f->version = cpu_to_be32(VHD_VERSION);
	f->header_offset = cpu_to_be64(type == VHD_FIXED ? VHD_NO_OFFSET : VC_VHD_HEADER_AT);
	f->timestamp = cpu_to_be32(time(NULL) - VHD_EPOCH);
	/* For other names some readers take the size from the geometry, which rounds it. */
	memcpy(f->creator, "win ", sizeof(f->creator));
	f->creator_version = cpu_to_be32(0x000a0000);
	memcpy(f->creator_host, "Wi2k", sizeof(f->creator_host));
	f->original_size = cpu_to_be64(size);
	f->current_size = cpu_to_be64(size);
	vc_vhd_geometry(size >> VHD_SECTOR_SHIFT, f);
	f->type = cpu_to_be32(type);
	f->unique_id = id;
	f->checksum = cpu_to_be32(vhd_footer_checksum(f));
}

int vc_vhd_possible(const char *path, u64 size, u32 sector_size, struct vc_err *err)
{
	if (size > VHD_MAX_DYNAMIC_SIZE)
		return vc_error(err, EFBIG, path, "%llu bytes are more than a VHD can have, %llu",
				size, VHD_MAX_DYNAMIC_SIZE);
	if (sector_size > VHD_SECTOR)
		return vc_error(err, EINVAL, path,
				"has sectors of %u bytes, and a VHD has no other than 512",
				sector_size);
	return 0;
}

int vc_vhd_fixed_finish(struct vc_file *file, u64 size, struct vc_err *err)
{
	struct vhd_footer footer;
	int ret;

	vc_vhd_footer(&footer, VHD_FIXED, size);
	ret = vc_file_resize(file, size + sizeof(footer), err);
	if (!ret)
		ret = vc_file_write(file, "footer", size, &footer, sizeof(footer), err);
	return ret;
}

/* ---- dynamic -------------------------------------------------------------------- */

/* Bitmap and data of a block, the data where a disk of 4 KiB sectors likes it. */
static int vc_vhd_alloc(struct vc_vhd_target *to, u32 block, struct vc_err *err)
{
	u64 data = (to->end + VC_VHD_BITMAP + 4095) & ~4095ULL;
	u8 bitmap[VC_VHD_BITMAP];
	int ret;

	memset(bitmap, 0xff, sizeof(bitmap));
	ret = vc_file_resize(to->file, data + VC_VHD_BLOCK, err);
	if (!ret)
		ret = vc_file_write(to->file, "block bitmap", data - sizeof(bitmap), bitmap,
				    sizeof(bitmap), err);
	to->end = data + VC_VHD_BLOCK;
	to->bat[block] = cpu_to_be32((data - sizeof(bitmap)) >> VHD_SECTOR_SHIFT);
	return ret;
}

static int vc_vhd_put(struct vc_target *target, struct vc_piece *piece, struct vc_err *err)
{
	struct vc_vhd_target *to = (struct vc_vhd_target *)target;
	u32 block = piece->offset / VC_VHD_BLOCK;
	int ret;

	if (piece->zero)
		return 0;
	ret = vc_vhd_alloc(to, block, err);
	piece->place = ((u64)be32_to_cpu(to->bat[block]) << VHD_SECTOR_SHIFT) + VC_VHD_BITMAP +
		       piece->offset % VC_VHD_BLOCK;
	piece->clean = true;
	return ret;
}

int vc_vhd_target_init(struct vc_vhd_target *to, struct vc_file *file, u64 size,
		       struct vc_err *err)
{
	u64 bytes;
	u32 i;

	*to = (struct vc_vhd_target) {
		.target = {
			.file = file,
			/* So that a piece is a block: each is placed once. */
			.block_size = VC_VHD_BLOCK,
			.put = vc_vhd_put,
		},
		.file = file,
		.size = size,
		.nr_blocks = (size + VC_VHD_BLOCK - 1) / VC_VHD_BLOCK,
	};
	static_assert(VC_VHD_BLOCK == VC_PIECE, "a piece is a block");
	/* The table is padded to whole sectors, with places that there are not. */
	bytes = (4ULL * to->nr_blocks + VHD_SECTOR - 1) & ~(u64)(VHD_SECTOR - 1);
	to->bat = malloc(bytes);
	if (!to->bat)
		return vc_error_nomem(err);
	for (i = 0; i < bytes / 4; i++)
		to->bat[i] = cpu_to_be32(VHD_NO_BLOCK);
	to->end = VC_VHD_BAT_AT + bytes;
	return 0;
}

int vc_vhd_target_finish(struct vc_vhd_target *to, struct vc_err *err)
{
	u64 bytes = (4ULL * to->nr_blocks + VHD_SECTOR - 1) & ~(u64)(VHD_SECTOR - 1);
	struct vhd_footer footer;
	struct vhd_header header = { };
	int ret;

	memcpy(header.cookie, VHD_HEADER_COOKIE, sizeof(header.cookie));
	header.next_offset = cpu_to_be64(VHD_NO_OFFSET);
	header.bat_offset = cpu_to_be64(VC_VHD_BAT_AT);
	header.version = cpu_to_be32(VHD_VERSION);
	header.max_entries = cpu_to_be32(to->nr_blocks);
	header.block_size = cpu_to_be32(VC_VHD_BLOCK);
	header.checksum = cpu_to_be32(vhd_header_checksum(&header));
	vc_vhd_footer(&footer, VHD_DYNAMIC, to->size);
	ret = vc_file_write(to->file, "BAT", VC_VHD_BAT_AT, to->bat, bytes, err);
	if (!ret)
		ret = vc_file_write(to->file, "dynamic header", VC_VHD_HEADER_AT, &header,
				    sizeof(header), err);
	if (!ret)
		ret = vc_file_write(to->file, "footer", 0, &footer, sizeof(footer), err);
	if (!ret)
		ret = vc_file_resize(to->file, to->end + sizeof(footer), err);
	if (!ret)
		ret = vc_file_write(to->file, "footer", to->end, &footer, sizeof(footer), err);
	return ret;
}

void vc_vhd_target_free(struct vc_vhd_target *to)
{
	free(to->bat);
	to->bat = NULL;
}
