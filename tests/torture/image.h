/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * As much of VHDX as the torture tests need to read an image that lies in memory, written
 * from [MS-VHDX] and without a look at the module's code.  It believes what it reads, but
 * never reads outside of the image.
 */
#ifndef TORTURE_IMAGE_H
#define TORTURE_IMAGE_H

#include "torture.h"

#define HEADER(i)		((i) ? 131072U : 65536U)
#define HEADER_BYTES		4096U
#define REGIONS(i)		((i) ? 262144U : 196608U)
#define TABLE_BYTES		65536U

/* Offsets of the fields. */
enum {
	H_CRC = 4, H_SEQ = 8, H_FILE_WRITE = 16, H_DATA_WRITE = 32, H_LOG_GUID = 48,
	H_LOG_VERSION = 64, H_VERSION = 66, H_LOG_LENGTH = 68, H_LOG_OFFSET = 72,
	R_CRC = 4, R_COUNT = 8, R_ENTRIES = 16,
	E_OFFSET = 16, E_LENGTH = 24, E_FLAGS = 28, E_SIZE = 32,
	M_COUNT = 10, M_ENTRIES = 32,
	I_OFFSET = 16, I_LENGTH = 20, I_FLAGS = 24, I_SIZE = 32,
};

extern const u8 guid_bat[16], guid_metadata[16];
/* File parameters, virtual size, disk id, logical and physical sector size, locator */
#define NR_ITEMS	6
extern const u8 guid_items[NR_ITEMS][16];

static inline u16 get16(const u8 *p)
{
	return p[0] | p[1] << 8;
}

static inline u32 get32(const u8 *p)
{
	return get16(p) | (u32)get16(p + 2) << 16;
}

static inline u64 get64(const u8 *p)
{
	return get32(p) | (u64)get32(p + 4) << 32;
}

static inline void put(u8 *p, unsigned int bytes, u64 value)
{
	for (unsigned int i = 0; i < bytes; i++)
		p[i] = value >> 8 * i;
}

/**
 * struct image - an image in memory, or a raw disk
 * @data, @size: all of it
 * @raw: no VHDX
 * @has_parent: what is absent is in the layer below; only a mark, reading does not care
 * @item, @item_bytes: where the values of the metadata items lie, 0: nowhere
 *
 * Then what a line of the table says about it, in sectors but for @lss.
 */
struct image {
	u8 *data;
	size_t size;
	bool raw;
	bool has_parent;
	u64 metadata;
	u32 metadata_bytes;
	u64 item[NR_ITEMS];
	u32 item_bytes[NR_ITEMS];
	u32 bat_bytes;
	u64 sectors;
	u64 block;
	u64 lss;
	u64 bat;
	u64 log;
	u64 log_sectors;
};

/* Which header counts; -1: none does. */
int image_header(const u8 *data);

/* The copy of the region table that counts. */
const u8 *image_regions(const u8 *data);

/* Fill in all but @data, @size and @raw.  Fields that are not found stay. */
void image_parse(struct image *img);

/* Is there a header that counts, and its log is closed? */
bool image_is_clean(const u8 *data);

/* The file of a layer, N.raw or N.vhdx in the directory @scene; false: there is none. */
bool image_path(char *path, size_t size, const char *scene, unsigned int nr);

/*
 * Reads a layer, and puts a copy of it on a loop device; dies if it can't.
 * @img: all of it is set, @data to what was read
 * @dev: gets the name of the device
 *
 * Return: the copy, which is what the device has.
 */
u8 *image_load(struct image *img, const char *scene, unsigned int nr, bool read_only,
	       char *dev);

/* Prints what a line of the table says about it, a space first.  Return: the end. */
char *image_words(char *p, const struct image *img, const char *dev);

/* Right checksums of headers and region tables. */
void image_seal(u8 *data);

/* The BAT entry of a block (or of a chunk's bitmap); 0 if it lies outside. */
u64 image_entry(const struct image *img, u64 block);
u64 image_bitmap_entry(const struct image *img, u64 chunk);
u64 image_ratio(const struct image *img);
/* Blocks, and how many entries the BAT must have for them. */
u64 image_blocks(const struct image *img);
u64 image_bat_entries(const struct image *img);

enum found {
	FOUND_HERE,		/* data, at *place */
	FOUND_ZEROS,
	FOUND_BELOW,
	FOUND_OUTSIDE,		/* the image says so, but it is not in it */
};

enum found image_find(const struct image *img, u64 sector, const u8 **place);

/* 512 bytes as the chain holds them, the first layer on top; NULL if outside. */
const u8 *chain_sector(const struct image *layers, unsigned int nr, u64 sector);

#endif /* TORTURE_IMAGE_H */
