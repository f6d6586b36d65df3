// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A reader of VHDX images in memory; see image.h.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "image.h"

const u8 guid_bat[16] = {
	0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
	0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08,
};

const u8 guid_metadata[16] = {
	0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
	0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e,
};

const u8 guid_items[NR_ITEMS][16] = {
	{ 0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
	  0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b },
	{ 0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48,
	  0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8 },
	{ 0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
	  0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46 },
	{ 0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
	  0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f },
	{ 0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44,
	  0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56 },
	{ 0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45,
	  0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c },
};

static bool sealed(const u8 *p, size_t size)
{
	static u8 copy[TABLE_BYTES];

	memcpy(copy, p, size);
	put(copy + 4, 4, 0);
	return crc32c(copy, size) == get32(p + 4);
}

static bool header_good(const u8 *h)
{
	return !memcmp(h, "head", 4) && sealed(h, HEADER_BYTES);
}

const u8 *image_regions(const u8 *data)
{
	const u8 *table = data + REGIONS(0);

	return !memcmp(table, "regi", 4) && sealed(table, TABLE_BYTES) ? table :
	       data + REGIONS(1);
}

int image_header(const u8 *data)
{
	const u8 *h1 = data + HEADER(0), *h2 = data + HEADER(1);
	bool g1 = header_good(h1), g2 = header_good(h2);

	if (g1 && g2)
		return get64(h2 + H_SEQ) > get64(h1 + H_SEQ);
	return g1 ? 0 : g2 ? 1 : -1;
}

bool image_is_clean(const u8 *data)
{
	static const u8 no_guid[16];
	int slot = image_header(data);

	return slot >= 0 &&
	       !memcmp(data + HEADER(slot) + H_LOG_GUID, no_guid, sizeof(no_guid));
}

bool image_path(char *path, size_t size, const char *scene, unsigned int nr)
{
	snprintf(path, size, "%s/%u.raw", scene, nr);
	if (!access(path, R_OK))
		return true;
	snprintf(path, size, "%s/%u.vhdx", scene, nr);
	return !access(path, R_OK);
}

/* Most of a new image is zeros, and so is a new file. */
static void copy_image(u8 *map, const u8 *data, size_t size)
{
	for (size_t at = 0; at < size; at += 4096) {
		size_t n = min(size - at, 4096UL);

		if (data[at] || memcmp(data + at, data + at + 1, n - 1))
			memcpy(map + at, data + at, n);
	}
}

u8 *image_load(struct image *img, const char *scene, unsigned int nr, bool read_only,
	       char *dev)
{
	static const char copy[] = "/dev/shm/torture-image";
	char path[400];
	u8 *map;

	if (!image_path(path, sizeof(path), scene, nr))
		die("%s: no layer %u", scene, nr);
	*img = (struct image){ .raw = !strcmp(strrchr(path, '.'), ".raw") };
	img->data = read_file(path, &img->size);
	image_parse(img);
	loop_make(copy, img->size, read_only, &map, dev);
	unlink(copy);
	copy_image(map, img->data, img->size);
	return map;
}

char *image_words(char *p, const struct image *img, const char *dev)
{
	if (img->raw)
		return p + sprintf(p, " raw %s 0 %llu", dev, img->sectors);
	return p + sprintf(p, " vhdx %s %llu %llu %llu %llu %llu %llu", dev, img->sectors,
			   img->block, img->lss, img->bat, img->log, img->log_sectors);
}

static void seal(u8 *p, size_t size)
{
	put(p + 4, 4, 0);
	put(p + 4, 4, crc32c(p, size));
}

void image_seal(u8 *data)
{
	for (int i = 0; i < 2; i++) {
		seal(data + HEADER(i), HEADER_BYTES);
		seal(data + REGIONS(i), TABLE_BYTES);
	}
}

static void parse_metadata(struct image *img)
{
	const u8 *table = img->data + img->metadata;
	u32 n, i;
	int k;

	if (img->metadata > img->size || img->size - img->metadata < TABLE_BYTES)
		return;
	n = get16(table + M_COUNT);
	n = min(n, 2047U);
	for (i = 0; i < n; i++) {
		const u8 *e = table + M_ENTRIES + i * I_SIZE;
		u64 at = img->metadata + get32(e + I_OFFSET);

		for (k = 0; k < NR_ITEMS; k++)
			if (!memcmp(e, guid_items[k], 16) && at + 16 <= img->size) {
				img->item[k] = at;
				img->item_bytes[k] = get32(e + I_LENGTH);
			}
	}
	if (img->item[0]) {
		img->block = get32(img->data + img->item[0]) / SECTOR;
		img->has_parent = get32(img->data + img->item[0] + 4) & 2;
	}
	if (img->item[1])
		img->sectors = get64(img->data + img->item[1]) / SECTOR;
	if (img->item[3])
		img->lss = get32(img->data + img->item[3]);
}

void image_parse(struct image *img)
{
	const u8 *h, *table;
	u32 n, i;

	if (img->raw) {
		img->sectors = img->size / SECTOR;
		return;
	}
	h = img->data + HEADER(image_header(img->data) > 0);
	table = image_regions(img->data);
	img->log = get64(h + H_LOG_OFFSET) / SECTOR;
	img->log_sectors = get32(h + H_LOG_LENGTH) / SECTOR;
	n = min(get32(table + R_COUNT), 2047U);
	for (i = 0; i < n; i++) {
		const u8 *e = table + R_ENTRIES + i * E_SIZE;

		if (!memcmp(e, guid_bat, 16)) {
			img->bat = get64(e + E_OFFSET) / SECTOR;
			img->bat_bytes = get32(e + E_LENGTH);
		}
		if (!memcmp(e, guid_metadata, 16)) {
			img->metadata = get64(e + E_OFFSET);
			img->metadata_bytes = get32(e + E_LENGTH);
		}
	}
	parse_metadata(img);
}

u64 image_ratio(const struct image *img)
{
	u64 ratio = img->block ? (1ULL << 23) * img->lss / (img->block * SECTOR) : 0;

	return ratio ? ratio : 1;
}

u64 image_blocks(const struct image *img)
{
	return img->block ? (img->sectors + img->block - 1) / img->block : 0;
}

/* A differencing image has a bitmap's entry behind each chunk, others between chunks. */
u64 image_bat_entries(const struct image *img)
{
	u64 blocks = image_blocks(img), ratio = image_ratio(img);

	if (img->has_parent)
		return (blocks + ratio - 1) / ratio * (ratio + 1);
	return blocks ? blocks + (blocks - 1) / ratio : 0;
}

static u64 entry_at(const struct image *img, u64 index)
{
	u64 at = img->bat * SECTOR + index * 8;

	return at < img->size && img->size - at >= 8 ? get64(img->data + at) : 0;
}

u64 image_entry(const struct image *img, u64 block)
{
	return entry_at(img, block + block / image_ratio(img));
}

u64 image_bitmap_entry(const struct image *img, u64 chunk)
{
	return entry_at(img, (chunk + 1) * image_ratio(img) + chunk);
}

enum found image_find(const struct image *img, u64 sector, const u8 **place)
{
	u64 entry, at, unit;

	if (sector >= img->sectors)
		return FOUND_ZEROS;
	if (img->raw) {
		*place = img->data + sector * SECTOR;
		return sector * SECTOR < img->size ? FOUND_HERE : FOUND_OUTSIDE;
	}
	entry = image_entry(img, sector / img->block);
	at = (entry >> 20) * MIB + sector % img->block * SECTOR;
	switch (entry & 7) {
	case 0:
		return FOUND_BELOW;
	case 6:
		break;
	case 7:
		unit = sector * SECTOR / img->lss;
		entry = image_bitmap_entry(img, unit >> 23);
		unit &= (1 << 23) - 1;
		entry = (entry >> 20) * MIB + unit / 8;
		if (entry >= img->size)
			return FOUND_OUTSIDE;
		if (!(img->data[entry] >> unit % 8 & 1))
			return FOUND_BELOW;
		break;
	default:
		return FOUND_ZEROS;
	}
	if (at >= img->size || img->size - at < SECTOR)
		return FOUND_OUTSIDE;
	*place = img->data + at;
	return FOUND_HERE;
}

const u8 *chain_sector(const struct image *layers, unsigned int nr, u64 sector)
{
	static const u8 zeros[SECTOR];

	for (unsigned int i = 0; i < nr; i++) {
		const u8 *place;

		switch (image_find(&layers[i], sector, &place)) {
		case FOUND_HERE:
			return place;
		case FOUND_ZEROS:
			return zeros;
		case FOUND_OUTSIDE:
			return NULL;
		case FOUND_BELOW:
			break;
		}
	}
	return zeros;
}
