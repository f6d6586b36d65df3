/* SPDX-License-Identifier: (GPL-2.0-only OR GPL-2.0-or-later) */
/*
 * The VHDX format: structures on disk, and the arithmetic and the checks over
 * them.  Source of every rule: [MS-VHDX] v20240423; section numbers are its.
 *
 * Everything here is pure: no I/O, no allocation, no sleeping, no locks, no
 * logging, callable from any context.  All offsets and lengths are bytes unless
 * a name says otherwise; "mib" is 1 MiB units, "page" a 4 KiB unit of metadata.
 * Functions that check return 0 or a negative errno and then fill in the fault:
 *
 *	-EINVAL		not a VHDX, or a field breaks a rule of the format
 *	-EBADMSG	a signature or a checksum is wrong
 *	-EOPNOTSUPP	legal perhaps, but newer than this code (versions,
 *			unknown required regions or items)
 */
#ifndef VHDX_FORMAT_H
#define VHDX_FORMAT_H

#include "vhdx-port.h"

#define VHDX_KIB			1024ULL
#define VHDX_MIB			(1024ULL * 1024)
#define VHDX_GIB			(1024ULL * 1024 * 1024)
#define VHDX_TIB			(1024ULL * 1024 * 1024 * 1024)
#define VHDX_MIB_SHIFT			20
#define VHDX_PAGE_SIZE			4096U
#define VHDX_PAGE_SHIFT			12

/* 2.2: the header section, the first MiB of the file. */
#define VHDX_IDENTIFIER_OFFSET		0ULL
#define VHDX_HEADER1_OFFSET		(64 * VHDX_KIB)
#define VHDX_HEADER2_OFFSET		(128 * VHDX_KIB)
#define VHDX_HEADER_SIZE		4096U
#define VHDX_REGION_TABLE1_OFFSET	(192 * VHDX_KIB)
#define VHDX_REGION_TABLE2_OFFSET	(256 * VHDX_KIB)
#define VHDX_REGION_TABLE_SIZE		65536U
#define VHDX_HEADER_SECTION_SIZE	VHDX_MIB

#define VHDX_MAX_VIRTUAL_SIZE		(64 * VHDX_TIB)
#define VHDX_MIN_BLOCK_SIZE		(1 * VHDX_MIB)
#define VHDX_MAX_BLOCK_SIZE		(256 * VHDX_MIB)
#define VHDX_MAX_FILE_MIB		0x20000000U	/* what 29 bits hold: 512 TiB */
#define VHDX_MAX_LOG_LENGTH		VHDX_GIB
#define VHDX_MAX_METADATA_LENGTH	(128 * VHDX_MIB)

/* A GUID as it lies on disk (mixed endian); compare and copy, never interpret. */
struct vhdx_guid {
	u8 b[16];
};

extern const struct vhdx_guid vhdx_guid_zero;
extern const struct vhdx_guid vhdx_guid_bat_region;
extern const struct vhdx_guid vhdx_guid_metadata_region;
extern const struct vhdx_guid vhdx_guid_file_parameters;
extern const struct vhdx_guid vhdx_guid_virtual_disk_size;
extern const struct vhdx_guid vhdx_guid_virtual_disk_id;
extern const struct vhdx_guid vhdx_guid_logical_sector_size;
extern const struct vhdx_guid vhdx_guid_physical_sector_size;
extern const struct vhdx_guid vhdx_guid_parent_locator;
extern const struct vhdx_guid vhdx_guid_locator_vhdx;	/* locator type B04AEFB7 */

static inline bool vhdx_guid_equal(const struct vhdx_guid *a,
				   const struct vhdx_guid *b)
{
	return !memcmp(a, b, sizeof(*a));
}

static inline bool vhdx_guid_is_zero(const struct vhdx_guid *a)
{
	return vhdx_guid_equal(a, &vhdx_guid_zero);
}

/* ---- structures on disk ------------------------------------------------ */

/* 2.2.1 */
#define VHDX_IDENTIFIER_SIGNATURE	"vhdxfile"

struct vhdx_file_identifier {
	u8 signature[8];
	u8 creator[512];		/* UTF-16LE, diagnostic only */
} __packed;

/* 2.2.2 */
#define VHDX_HEADER_SIGNATURE		0x64616568U	/* "head" */
#define VHDX_HEADER_VERSION		1
#define VHDX_LOG_VERSION		0

struct vhdx_header {
	__le32 signature;
	__le32 checksum;
	__le64 sequence_number;
	struct vhdx_guid file_write_guid;
	struct vhdx_guid data_write_guid;
	struct vhdx_guid log_guid;
	__le16 log_version;
	__le16 version;
	__le32 log_length;
	__le64 log_offset;
	u8 reserved[4016];
} __packed;

/* 2.2.3 */
#define VHDX_REGION_SIGNATURE		0x69676572U	/* "regi" */
#define VHDX_REGION_MAX_ENTRIES		2047U
#define VHDX_REGION_REQUIRED		0x1U

struct vhdx_region_table_header {
	__le32 signature;
	__le32 checksum;
	__le32 entry_count;
	__le32 reserved;
} __packed;

struct vhdx_region_table_entry {
	struct vhdx_guid guid;
	__le64 file_offset;
	__le32 length;
	__le32 flags;
} __packed;

/* 2.6.1 */
#define VHDX_METADATA_SIGNATURE		0x617461646174656dULL	/* "metadata" */
#define VHDX_METADATA_TABLE_SIZE	65536U
#define VHDX_METADATA_MAX_ENTRIES	2047U
#define VHDX_METADATA_MAX_ITEM		VHDX_MIB
#define VHDX_METADATA_IS_USER		0x1U
#define VHDX_METADATA_IS_VIRTUAL_DISK	0x2U
#define VHDX_METADATA_IS_REQUIRED	0x4U

struct vhdx_metadata_table_header {
	__le64 signature;
	__le16 reserved;
	__le16 entry_count;
	u8 reserved2[20];
} __packed;

struct vhdx_metadata_table_entry {
	struct vhdx_guid item_id;
	__le32 offset;			/* from the start of the region */
	__le32 length;
	__le32 flags;
	__le32 reserved;
} __packed;

/* 2.6.2.1 */
#define VHDX_PARAM_LEAVE_ALLOCATED	0x1U
#define VHDX_PARAM_HAS_PARENT		0x2U

struct vhdx_file_parameters {
	__le32 block_size;
	__le32 flags;
} __packed;

/* 2.6.2.6 */
struct vhdx_locator_header {
	struct vhdx_guid locator_type;
	__le16 reserved;
	__le16 key_value_count;
} __packed;

struct vhdx_locator_entry {
	__le32 key_offset;		/* from the start of the item */
	__le32 value_offset;
	__le16 key_length;		/* bytes of UTF-16LE, no NUL */
	__le16 value_length;
} __packed;

/* 2.5.1: BAT entries. */
enum vhdx_payload_state {
	VHDX_BLOCK_NOT_PRESENT		= 0,
	VHDX_BLOCK_UNDEFINED		= 1,
	VHDX_BLOCK_ZERO			= 2,
	VHDX_BLOCK_UNMAPPED		= 3,
	VHDX_BLOCK_FULLY_PRESENT	= 6,
	VHDX_BLOCK_PARTIALLY_PRESENT	= 7,
};

enum vhdx_bitmap_state {
	VHDX_BITMAP_NOT_PRESENT		= 0,
	VHDX_BITMAP_PRESENT		= 6,
};

#define VHDX_BAT_STATE_MASK		0x7ULL
#define VHDX_BAT_RESERVED_MASK		0xffff8ULL
#define VHDX_BAT_ENTRIES_PER_PAGE	(VHDX_PAGE_SIZE / 8)

/* 2.3: the log. */
#define VHDX_LOG_SECTOR			4096U
#define VHDX_LOG_ENTRY_SIGNATURE	0x65676f6cU	/* "loge" */
#define VHDX_LOG_ZERO_SIGNATURE		0x6f72657aU	/* "zero" */
#define VHDX_LOG_DESC_SIGNATURE		0x63736564U	/* "desc" */
#define VHDX_LOG_DATA_SIGNATURE		0x61746164U	/* "data" */
#define VHDX_LOG_FIRST_DESCRIPTORS	126U	/* in the entry's first sector */
#define VHDX_LOG_DESCRIPTORS		128U	/* in each further one */

struct vhdx_log_entry_header {
	__le32 signature;
	__le32 checksum;
	__le32 entry_length;
	__le32 tail;
	__le64 sequence_number;
	__le32 descriptor_count;
	__le32 reserved;
	struct vhdx_guid log_guid;
	__le64 flushed_file_offset;
	__le64 last_file_offset;
} __packed;

struct vhdx_log_zero_descriptor {
	__le32 signature;
	__le32 reserved;
	__le64 zero_length;
	__le64 file_offset;
	__le64 sequence_number;
} __packed;

struct vhdx_log_data_descriptor {
	__le32 signature;
	u8 trailing_bytes[4];		/* bytes 4092..4095 of the page */
	u8 leading_bytes[8];		/* bytes 0..7 of the page */
	__le64 file_offset;
	__le64 sequence_number;
} __packed;

struct vhdx_log_data_sector {
	__le32 signature;
	__le32 sequence_high;
	u8 data[4084];
	__le32 sequence_low;
} __packed;

static_assert(sizeof(struct vhdx_header) == VHDX_HEADER_SIZE, "header");
static_assert(sizeof(struct vhdx_region_table_entry) == 32, "region entry");
static_assert(sizeof(struct vhdx_metadata_table_header) == 32, "metadata header");
static_assert(sizeof(struct vhdx_metadata_table_entry) == 32, "metadata entry");
static_assert(sizeof(struct vhdx_locator_header) == 20, "locator header");
static_assert(sizeof(struct vhdx_locator_entry) == 12, "locator entry");
static_assert(sizeof(struct vhdx_log_entry_header) == 64, "log entry");
static_assert(sizeof(struct vhdx_log_zero_descriptor) == 32, "zero descriptor");
static_assert(sizeof(struct vhdx_log_data_descriptor) == 32, "data descriptor");
static_assert(sizeof(struct vhdx_log_data_sector) == VHDX_LOG_SECTOR, "data sector");

/* ---- faults ------------------------------------------------------------ */

/**
 * struct vhdx_fault - what is wrong with an image, and where
 * @what: structure and rule, a literal such as "header 1: checksum is wrong"
 * @offset: byte offset in the file of the structure or field at fault
 * @value: the value found there, 0 if there is none to show
 */
struct vhdx_fault {
	const char *what;
	u64 offset;
	u64 value;
};

/* ---- checksums ---------------------------------------------------------- */

/**
 * vhdx_checksum() - CRC-32C of a structure with its checksum field taken as 0
 * @buf: the structure
 * @size: its size in bytes
 *
 * The checksum field is at byte 4 in every structure that has one.
 * Return: the checksum in CPU order.
 */
u32 vhdx_checksum(const void *buf, size_t size);

/* ---- identifier, headers (2.2.1, 2.2.2) ---------------------------------- */

/**
 * vhdx_identifier_check() - is this a VHDX at all?
 * @buf: the first 8 bytes of the file at least
 * @fault: filled in on error
 */
int vhdx_identifier_check(const void *buf, struct vhdx_fault *fault);

/**
 * struct vhdx_header_info - the current header, decoded
 * @slot: which copy is current, 0 or 1
 * @other_valid: the other copy's signature and checksum are right too
 * @sequence_number: of the current copy
 * @log_dirty: @log_guid is not zero: the log must be replayed before any use
 */
struct vhdx_header_info {
	unsigned int slot;
	bool other_valid;
	bool log_dirty;
	u64 sequence_number;
	struct vhdx_guid file_write_guid;
	struct vhdx_guid data_write_guid;
	struct vhdx_guid log_guid;
	u64 log_offset;
	u32 log_length;
};

/**
 * vhdx_header_parse() - choose the current header and check it
 * @h1: the copy at VHDX_HEADER1_OFFSET
 * @h2: the copy at VHDX_HEADER2_OFFSET
 * @info: result
 * @fault: filled in on error
 *
 * The valid copy with the larger sequence number is current; with equal numbers
 * both must be byte-identical.  Log alignment and length are checked, not its
 * place in the file.
 */
int vhdx_header_parse(const struct vhdx_header *h1, const struct vhdx_header *h2,
		      struct vhdx_header_info *info, struct vhdx_fault *fault);

/**
 * vhdx_header_build() - fill in one header copy, checksum included
 * @h: result, VHDX_HEADER_SIZE bytes
 * @info: what to put there (slot, other_valid and log_dirty are ignored)
 */
void vhdx_header_build(struct vhdx_header *h, const struct vhdx_header_info *info);

static inline u64 vhdx_header_offset(unsigned int slot)
{
	return slot ? VHDX_HEADER2_OFFSET : VHDX_HEADER1_OFFSET;
}

/* ---- regions (2.2.3) ------------------------------------------------------ */

struct vhdx_region {
	u64 offset;
	u32 length;
	bool required;
	struct vhdx_guid guid;
};

struct vhdx_regions {
	struct vhdx_region bat;
	struct vhdx_region metadata;
	unsigned int count;		/* entries in the table */
};

/**
 * vhdx_region_table_parse() - check one copy of the region table
 * @table: VHDX_REGION_TABLE_SIZE bytes
 * @offset: where in the file the copy lies, for the fault
 * @regions: result
 * @fault: filled in on error
 *
 * Checks signature, checksum, counts, alignment, unknown required regions,
 * that BAT and metadata are there once each, and that no two regions overlap.
 */
int vhdx_region_table_parse(const void *table, u64 offset,
			    struct vhdx_regions *regions, struct vhdx_fault *fault);

/**
 * vhdx_region_get() - entry @i of a table that vhdx_region_table_parse() accepted
 */
void vhdx_region_get(const void *table, unsigned int i, struct vhdx_region *region);

/**
 * vhdx_region_table_build() - write a region table, checksum included
 * @table: result, VHDX_REGION_TABLE_SIZE bytes
 * @bat: the BAT region (guid is ignored)
 * @metadata: the metadata region (guid is ignored)
 */
void vhdx_region_table_build(void *table, const struct vhdx_region *bat,
			     const struct vhdx_region *metadata);

/* ---- metadata (2.6) -------------------------------------------------------- */

enum vhdx_item {
	VHDX_ITEM_FILE_PARAMETERS,
	VHDX_ITEM_VIRTUAL_DISK_SIZE,
	VHDX_ITEM_VIRTUAL_DISK_ID,
	VHDX_ITEM_LOGICAL_SECTOR_SIZE,
	VHDX_ITEM_PHYSICAL_SECTOR_SIZE,
	VHDX_ITEM_PARENT_LOCATOR,
	VHDX_ITEM_COUNT
};

/* Where an item's value lies; length 0: not there. */
struct vhdx_item_place {
	u32 offset;			/* from the start of the region */
	u32 length;
};

/* The longest value of the items before the parent locator. */
#define VHDX_ITEM_VALUE_MAX		16

/**
 * vhdx_metadata_table_parse() - check the metadata table, find the known items
 * @table: VHDX_METADATA_TABLE_SIZE bytes
 * @region: the metadata region, for its length and the fault's offset
 * @items: result, VHDX_ITEM_COUNT places
 * @fault: filled in on error
 *
 * Checks signature, counts, bounds, item lengths, doubles, overlaps, and refuses
 * unknown items that are required.  The five items before the locator must be there.
 */
int vhdx_metadata_table_parse(const void *table, const struct vhdx_region *region,
			      struct vhdx_item_place *items,
			      struct vhdx_fault *fault);

/**
 * struct vhdx_metadata - what the items say
 * @leave_allocated: LeaveBlocksAllocated: a fixed image
 * @has_parent: a differencing image
 */
struct vhdx_metadata {
	u32 block_size;
	bool leave_allocated;
	bool has_parent;
	u64 virtual_size;
	u32 logical_sector_size;
	u32 physical_sector_size;
	struct vhdx_guid virtual_disk_id;
};

/**
 * vhdx_metadata_decode() - read and check the values of the five fixed items
 * @values: values[i] holds items[i].length bytes of item i, i < VHDX_ITEM_PARENT_LOCATOR
 * @region: the metadata region, for the fault's offset
 * @items: places, as vhdx_metadata_table_parse() gave them
 * @meta: result
 * @fault: filled in on error
 *
 * Also checks that a parent locator is there exactly if the image has a parent.
 */
int vhdx_metadata_decode(const u8 values[][VHDX_ITEM_VALUE_MAX],
			 const struct vhdx_region *region,
			 const struct vhdx_item_place *items,
			 struct vhdx_metadata *meta, struct vhdx_fault *fault);

/**
 * vhdx_metadata_build() - write table and items of a new metadata region
 * @buf: result; @size bytes, cleared first
 * @size: VHDX_METADATA_TABLE_SIZE plus what the items need, at least 64 KiB + 64 bytes
 * @meta: the values
 * @locator: the parent locator item, NULL without parent
 * @locator_length: its length in bytes
 *
 * Items lie where Windows puts them (0x10000, +8, +0x10, +0x14, +0x18, +0x28).
 * Return: 0, or -EINVAL if @size is too small, or if @meta has a parent without
 * @locator or the other way round.
 */
int vhdx_metadata_build(void *buf, size_t size, const struct vhdx_metadata *meta,
			const void *locator, u32 locator_length);

/* ---- geometry (2.5) ---------------------------------------------------------- */

/**
 * struct vhdx_geometry - sizes, and what follows from them
 * @virtual_size: bytes
 * @block_size: bytes, a power of two
 * @sector_size: logical sector size in bytes
 * @block_shift: log2(@block_size)
 * @sector_shift: log2(@sector_size)
 * @ratio_shift: log2(chunk ratio), the payload blocks in a chunk
 * @nr_blocks: payload blocks
 * @nr_chunks: chunks, one sector bitmap block each
 * @nr_entries: BAT entries in use (2.5: a differencing table is longer)
 * @has_parent: differencing
 */
struct vhdx_geometry {
	u64 virtual_size;
	u32 block_size;
	u32 sector_size;
	u8 block_shift;
	u8 sector_shift;
	u8 ratio_shift;
	bool has_parent;
	u32 nr_blocks;
	u32 nr_chunks;
	u32 nr_entries;
};

/**
 * vhdx_geometry_init() - check sizes and derive the rest
 *
 * Return: 0, or -EINVAL and a fault with offset 0 that names the size at fault.
 */
int vhdx_geometry_init(struct vhdx_geometry *geo, u64 virtual_size, u32 block_size,
		       u32 sector_size, bool has_parent, struct vhdx_fault *fault);

static inline u32 vhdx_block_mib(const struct vhdx_geometry *geo)
{
	return geo->block_size >> VHDX_MIB_SHIFT;
}

/* Bytes the BAT region must have: always the differencing size, so that a file
 * can change its type in place.  Rounded up to a MiB.
 */
static inline u64 vhdx_bat_region_bytes(const struct vhdx_geometry *geo)
{
	u64 entries = (u64)geo->nr_chunks * ((1ULL << geo->ratio_shift) + 1);

	return (entries * 8 + VHDX_MIB - 1) & ~(VHDX_MIB - 1);
}

static inline u32 vhdx_bat_payload_index(const struct vhdx_geometry *geo, u32 block)
{
	return block + (block >> geo->ratio_shift);
}

static inline u32 vhdx_bat_bitmap_index(const struct vhdx_geometry *geo, u32 chunk)
{
	return ((chunk + 1) << geo->ratio_shift) + chunk;
}

/* The chunk that BAT entry @index belongs to. */
u32 vhdx_bat_chunk(const struct vhdx_geometry *geo, u32 index);

static inline bool vhdx_bat_is_bitmap(const struct vhdx_geometry *geo, u32 index,
				      u32 chunk)
{
	return index == vhdx_bat_bitmap_index(geo, chunk);
}

static inline u32 vhdx_block_chunk(const struct vhdx_geometry *geo, u32 block)
{
	return block >> geo->ratio_shift;
}

static inline u64 vhdx_bat_entry(unsigned int state, u64 mib)
{
	return (mib << VHDX_MIB_SHIFT) | state;
}

static inline unsigned int vhdx_bat_state(u64 entry)
{
	return entry & VHDX_BAT_STATE_MASK;
}

static inline u64 vhdx_bat_mib(u64 entry)
{
	return entry >> VHDX_MIB_SHIFT;
}

/**
 * vhdx_bat_entry_end() - how far a file must go for what can be read of a block
 * @geo: of the image
 * @entry: one that vhdx_bat_walk_entry() took
 * @is_bitmap: as that said
 * @number: as that said, of a block or bitmap that is there
 *
 * Claims are in MiB, rounded up: a file may end inside the last block, which old writers
 * cut at the virtual end, and nowhere else.
 *
 * Return: offset in bytes; 0 if nothing of it can be read.
 */
static inline u64 vhdx_bat_entry_end(const struct vhdx_geometry *geo, u64 entry,
				     bool is_bitmap, u32 number)
{
	u64 bytes = is_bitmap ? VHDX_MIB :
				geo->virtual_size - ((u64)number << geo->block_shift);

	if (vhdx_bat_state(entry) < VHDX_BLOCK_FULLY_PRESENT)
		return 0;
	if (!is_bitmap && bytes > geo->block_size)
		bytes = geo->block_size;
	return (vhdx_bat_mib(entry) << VHDX_MIB_SHIFT) + bytes;
}

/*
 * Sector bitmaps (2.5.2): logical sector @sector of the disk is bit
 * sector % 2^23 of its chunk's bitmap block, least significant bit first.
 * Bitmap pages are numbered through: 256 a chunk, 32768 sectors a page.
 */
#define VHDX_SECTORS_PER_CHUNK_SHIFT	23
#define VHDX_SECTORS_PER_PAGE_SHIFT	15
#define VHDX_SECTORS_PER_PAGE		32768U
#define VHDX_BITMAP_PAGES_PER_CHUNK	256U

static inline u32 vhdx_bitmap_page(u64 sector)
{
	return (u32)(sector >> VHDX_SECTORS_PER_PAGE_SHIFT);
}

static inline u32 vhdx_bitmap_bit(u64 sector)
{
	return (u32)sector & (VHDX_SECTORS_PER_PAGE - 1);
}

/* ---- BAT checks (2.5.1) ---------------------------------------------------------- */

/**
 * struct vhdx_claims - which MiB of the file are taken, one bit each
 * @map: nr_mib bits, provided and zeroed by the caller
 * @nr_mib: size of the file or device in MiB, rounded down
 */
struct vhdx_claims {
	unsigned long *map;
	u64 nr_mib;
};

/**
 * vhdx_claim() - take a range of the file
 *
 * Return: 0; -ERANGE if it does not lie inside the file; -EEXIST if a part of it
 * is taken already.  On error nothing was taken.
 */
int vhdx_claim(struct vhdx_claims *claims, u64 mib, u64 nr_mib);

/**
 * vhdx_claim_regions() - take header section, log and all regions
 * @table: the region table that @fault offsets refer to, already parsed
 * @table_offset: where it lies in the file
 */
int vhdx_claim_regions(struct vhdx_claims *claims, const struct vhdx_header_info *info,
		       const void *table, u64 table_offset, struct vhdx_fault *fault);

/**
 * struct vhdx_bat_walk - checks BAT entries one after the other, in order
 * @geo: geometry
 * @claims: blocks found are taken here
 * @bat_offset: where the BAT lies, for the fault
 * @index: the next entry's index; starts at 0
 *
 * The rest is counted on the way; read it after the last entry.
 */
struct vhdx_bat_walk {
	const struct vhdx_geometry *geo;
	struct vhdx_claims *claims;
	u64 bat_offset;
	u32 index;
	u32 chunk;
	bool chunk_partial;		/* this chunk has a PARTIALLY_PRESENT block */
	u32 nr_full;
	u32 nr_partial;
	u32 nr_bitmaps;
};

/**
 * vhdx_bat_walk_entry() - check the next entry
 * @walk: the walk
 * @entry: its value in CPU order
 * @is_bitmap: result: a sector bitmap entry
 * @number: result: block number, or chunk number if @is_bitmap; ~0U for padding
 * @fault: filled in on error
 *
 * Refuses reserved bits and states, places out of range, taken, or on a region,
 * PARTIALLY_PRESENT without parent, and (at the bitmap's entry) without bitmap.
 * A last block need only be there up to the virtual end (old writers cut it).
 * A refused entry counts as walked: a checker can go on and find the next fault.
 */
int vhdx_bat_walk_entry(struct vhdx_bat_walk *walk, u64 entry, bool *is_bitmap,
			u32 *number, struct vhdx_fault *fault);

/**
 * vhdx_bat_walk_absent() - walk over payload entries that are zero
 * @walk: the walk
 * @bat: the next @nr entries, as they are on disk
 * @nr: how many
 *
 * As so many calls of vhdx_bat_walk_entry() with 0 would: none of them could refuse.
 * Most of the table of a big disk is such.  Stops at the chunk's bitmap entry, the
 * first entry that is not zero, and the padding.
 *
 * Return: how many were walked, maybe 0.
 */
u32 vhdx_bat_walk_absent(struct vhdx_bat_walk *walk, const __le64 *bat, u32 nr);

/* ---- log entries (2.3) -------------------------------------------------------------- */

/* Bytes of an entry with so many descriptors, @nr_data of them data descriptors. */
static inline u64 vhdx_log_entry_bytes(u32 nr_descriptors, u32 nr_data)
{
	u64 desc = sizeof(struct vhdx_log_entry_header) + 32ULL * nr_descriptors;

	desc = (desc + VHDX_LOG_SECTOR - 1) & ~(u64)(VHDX_LOG_SECTOR - 1);
	return desc + (u64)nr_data * VHDX_LOG_SECTOR;
}

/**
 * struct vhdx_log_entry_info - an entry's header, decoded
 */
struct vhdx_log_entry_info {
	u32 entry_length;
	u32 tail;
	u64 sequence_number;
	u32 descriptor_count;
	struct vhdx_guid log_guid;
	u64 flushed_file_offset;
	u64 last_file_offset;
};

/**
 * vhdx_log_entry_build() - write an entry's header; the checksum is still 0
 */
void vhdx_log_entry_build(struct vhdx_log_entry_header *h,
			  const struct vhdx_log_entry_info *info);

/**
 * vhdx_log_data_pack() - turn a 4 KiB page image into a data sector, in place
 * @page: the image; becomes the data sector
 * @desc: filled in
 * @file_offset: where the page belongs
 * @sequence_number: of the entry
 */
void vhdx_log_data_pack(void *page, struct vhdx_log_data_descriptor *desc,
			u64 file_offset, u64 sequence_number);

/**
 * vhdx_log_data_unpack() - turn a data sector back into the page image, in place
 */
void vhdx_log_data_unpack(void *page, const struct vhdx_log_data_descriptor *desc);

/**
 * vhdx_log_entry_seal() - set the checksum
 * @h: the entry's first sector
 * @crc: raw CRC-32C (vhdx_crc32c_step() from ~0) over all sectors of the entry in
 *	 order, computed while the checksum field was 0
 */
void vhdx_log_entry_seal(struct vhdx_log_entry_header *h, u32 crc);

/**
 * vhdx_log_entry_parse() - decode and check an entry's header alone
 * @h: at least one log sector
 * @log_length: bytes of the log
 *
 * No checksum yet: this tells how much to read for vhdx_log_entry_check().
 * Return: 0 or -EBADMSG; no fault, because a stale sector is no error.
 */
int vhdx_log_entry_parse(const struct vhdx_log_entry_header *h, u32 log_length,
			 struct vhdx_log_entry_info *info);

/**
 * vhdx_log_entry_check() - check a whole entry
 * @entry: entry_length bytes, the ring's wrap joined
 * @info: as vhdx_log_entry_parse() gave it
 *
 * Checksum, descriptors (signature, sequence, alignment, count) and data sectors.
 * Return: 0 or -EBADMSG.
 */
int vhdx_log_entry_check(const void *entry, const struct vhdx_log_entry_info *info);

#endif /* VHDX_FORMAT_H */
