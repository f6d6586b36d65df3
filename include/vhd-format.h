/* SPDX-License-Identifier: (GPL-2.0-only OR GPL-2.0-or-later) */
/*
 * The VHD format, version 1: structures on disk, and the checks over them.  All
 * numbers on disk are big-endian, but for those in a GUID, which Windows writes as in
 * VHDX.  Places in the BAT are 512-byte sectors of the file.
 *
 * A fixed image is the disk, and a footer behind it.  A dynamic or differencing one has
 * a copy of the footer at offset 0, a header, a BAT, and blocks: each a bitmap, a bit a
 * sector, most significant bit first, and then the data.
 *
 * As pure as vhdx-format.h, and errors are as there.
 */
#ifndef VHD_FORMAT_H
#define VHD_FORMAT_H

#include "vhdx-format.h"

#define VHD_SECTOR			512U
#define VHD_SECTOR_SHIFT		9
#define VHD_FOOTER_SIZE			512U
#define VHD_HEADER_SIZE			1024U
#define VHD_VERSION			0x00010000U
#define VHD_NO_OFFSET			(~0ULL)
#define VHD_NO_BLOCK			0xffffffffU
#define VHD_MAX_DYNAMIC_SIZE		(2040 * VHDX_GIB)
#define VHD_MIN_BLOCK_SIZE		4096U
#define VHD_MAX_BLOCK_SIZE		(256 * VHDX_MIB)
#define VHD_NR_LOCATORS			8
#define VHD_MAX_LOCATOR_LENGTH		65536U

/* Seconds from 1970 to 2000, where the clock of time stamps starts. */
#define VHD_EPOCH			946684800ULL

#define VHD_FOOTER_COOKIE		"conectix"
#define VHD_HEADER_COOKIE		"cxsparse"

/* Codes of parent locators: UTF-16LE paths of Windows, absolute and relative. */
#define VHD_LOCATOR_W2KU		"W2ku"
#define VHD_LOCATOR_W2RU		"W2ru"

enum vhd_type {
	VHD_FIXED		= 2,
	VHD_DYNAMIC		= 3,
	VHD_DIFFERENCING	= 4,
};

struct vhd_footer {
	u8 cookie[8];
	__be32 features;
	__be32 version;
	__be64 header_offset;		/* VHD_NO_OFFSET in a fixed image */
	__be32 timestamp;
	u8 creator[4];
	__be32 creator_version;
	u8 creator_host[4];
	__be64 original_size;
	__be64 current_size;
	__be16 cylinders;
	u8 heads;
	u8 sectors_per_track;
	__be32 type;
	__be32 checksum;
	struct vhdx_guid unique_id;
	u8 saved_state;
	u8 reserved[427];
} __packed;

struct vhd_locator_entry {
	u8 code[4];
	__be32 data_space;
	__be32 data_length;
	__be32 reserved;
	__be64 data_offset;
} __packed;

struct vhd_header {
	u8 cookie[8];
	__be64 next_offset;		/* VHD_NO_OFFSET */
	__be64 bat_offset;
	__be32 version;
	__be32 max_entries;
	__be32 block_size;
	__be32 checksum;
	struct vhdx_guid parent_id;
	__be32 parent_timestamp;
	__be32 reserved;
	u8 parent_name[512];		/* UTF-16BE */
	struct vhd_locator_entry locator[VHD_NR_LOCATORS];
	u8 reserved2[256];
} __packed;

static_assert(sizeof(struct vhd_footer) == VHD_FOOTER_SIZE, "footer");
static_assert(sizeof(struct vhd_header) == VHD_HEADER_SIZE, "header");
static_assert(sizeof(struct vhd_locator_entry) == 24, "locator");

/* The one's complement of the sum of all bytes, those of the checksum left out. */
u32 vhd_footer_checksum(const struct vhd_footer *f);
u32 vhd_header_checksum(const struct vhd_header *h);

/* Does it begin as a footer, whatever follows? */
bool vhd_footer_is(const void *buf);

/**
 * struct vhd_footer_info - a footer, decoded
 * @type: of the image
 * @virtual_size: bytes; what is called the current size
 * @header_offset: of the dynamic header; 0 in a fixed image
 * @timestamp: seconds since 2000
 * @creator: four characters, and a NUL
 * @unique_id: of the image; children name it
 */
struct vhd_footer_info {
	enum vhd_type type;
	u64 virtual_size;
	u64 header_offset;
	u32 timestamp;
	char creator[5];
	struct vhdx_guid unique_id;
};

/**
 * vhd_footer_parse() - check a footer
 * @f: the footer or its copy
 * @offset: where in the file it lies, for the fault
 * @info: result
 * @fault: filled in on error
 */
int vhd_footer_parse(const struct vhd_footer *f, u64 offset, struct vhd_footer_info *info,
		     struct vhdx_fault *fault);

/**
 * struct vhd_header_info - a dynamic header, decoded
 * @header_offset: where it lies
 * @bat_offset: bytes
 * @nr_blocks: of the disk: entries of the BAT that count
 * @nr_entries: of the BAT, at least as many
 * @block_size: bytes, a power of two
 * @block_shift: log2(@block_size)
 * @bitmap_sectors: of each block, in front of its data
 * @virtual_size: bytes, the footer's
 * @parent_id: the unique ID that the parent must have
 */
struct vhd_header_info {
	u64 header_offset;
	u64 bat_offset;
	u32 nr_blocks;
	u32 nr_entries;
	u32 block_size;
	u8 block_shift;
	u32 bitmap_sectors;
	u64 virtual_size;
	struct vhdx_guid parent_id;
};

/* Check the dynamic header that @footer leads to. */
int vhd_header_parse(const struct vhd_header *h, const struct vhd_footer_info *footer,
		     struct vhd_header_info *info, struct vhdx_fault *fault);

/* Sectors that a block takes in the file. */
static inline u32 vhd_block_sectors(const struct vhd_header_info *h)
{
	return h->bitmap_sectors + (h->block_size >> VHD_SECTOR_SHIFT);
}

/* Of a block at file sector @place: bitmap and data, bytes. */
static inline u64 vhd_bitmap_offset(u32 place)
{
	return (u64)place << VHD_SECTOR_SHIFT;
}

static inline u64 vhd_data_offset(const struct vhd_header_info *h, u32 place)
{
	return ((u64)place + h->bitmap_sectors) << VHD_SECTOR_SHIFT;
}

/* Is sector @i of a block in this file?  Only a differencing image has to be asked. */
static inline bool vhd_bitmap_test(const u8 *bitmap, u32 i)
{
	return bitmap[i / 8] & 0x80 >> i % 8;
}

/**
 * struct vhd_bat_walk - checks BAT entries one after the other, in order
 * @header: of the image
 * @file_size: bytes
 * @slot: @nr_slots places, provided by the caller, all 0: where the footer's copy is
 * @nr_slots: vhd_nr_slots()
 * @index: the next entry's index; starts at 0
 * @nr_present: blocks that are there; read it after the last entry
 */
struct vhd_bat_walk {
	const struct vhd_header_info *header;
	u64 file_size;
	u32 *slot;
	u32 nr_slots;
	u32 index;
	u32 nr_present;
};

/* All blocks have one length, so each part of the file of that length starts one only. */
u32 vhd_nr_slots(const struct vhd_header_info *header, u64 file_size);

/**
 * vhd_bat_walk_entry() - check the next entry
 * @entry: its value in CPU order
 * @fault: filled in on error
 *
 * Refuses places out of range, on a structure, or on another block.
 */
int vhd_bat_walk_entry(struct vhd_bat_walk *walk, u32 entry, struct vhdx_fault *fault);

#endif /* VHD_FORMAT_H */
