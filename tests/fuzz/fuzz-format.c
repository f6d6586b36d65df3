// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The functions that module and tool share, one by one, without a file in between.
 * The first byte says which, the second whether checksums are put right, and how a log
 * entry is.
 */
#define _GNU_SOURCE
#include "guid.h"
#include "locator.h"
#include "oracle.h"

#define ENTRY_SECTORS	64U	/* of the ring that an entry is tried in */

static u8 buf[2 * VHDX_MIB];

/* The input at the start of @len bytes of zeros. */
static u8 *load(const u8 *data, size_t size, size_t len)
{
	if (size > len)
		size = len;
	memcpy(buf, data, size);
	memset(buf + size, 0, len - size);
	return buf;
}

/* Put the checksum of @len bytes into the 4 bytes at @bytes + 4. */
static void seal(u8 *bytes, size_t len)
{
	__le32 sum = 0;

	memcpy(bytes + 4, &sum, 4);
	sum = cpu_to_le32(~vhdx_crc32c_step(~0U, bytes, len));
	memcpy(bytes + 4, &sum, 4);
}

static void header(const u8 *data, size_t size, bool fix)
{
	struct vhdx_header *h = (void *)load(data, size, sizeof(*h));
	static struct vhdx_header h2;
	struct vhdx_header_info info;
	struct vhdx_header_info again;
	struct vhdx_fault fault = { };

	if (fix)
		seal((u8 *)h, sizeof(*h));
	h2 = *h;
	if (size & 1)
		h2.signature = 0;
	if (vhdx_header_parse(h, &h2, &info, &fault)) {
		fuzz_assert(fault.what);
		return;
	}
	/* What was read can be written and read again. */
	vhdx_header_build(&h2, &info);
	fuzz_assert(!vhdx_header_parse(&h2, &h2, &again, &fault));
	fuzz_assert(again.sequence_number == info.sequence_number &&
		    again.log_offset == info.log_offset &&
		    again.log_length == info.log_length &&
		    vhdx_guid_equal(&again.log_guid, &info.log_guid));
}

static void regions(const u8 *data, size_t size, bool fix)
{
	static unsigned long map[1024 / sizeof(long)];
	struct vhdx_claims claims = { .map = map, .nr_mib = 8 * sizeof(map) };
	struct vhdx_header_info h = { .log_offset = VHDX_MIB, .log_length = VHDX_MIB };
	u8 *table = load(data, size, VHDX_REGION_TABLE_SIZE);
	struct vhdx_fault fault = { };
	struct vhdx_regions r;

	if (fix)
		seal(table, VHDX_REGION_TABLE_SIZE);
	memset(map, 0, sizeof(map));
	if (vhdx_region_table_parse(table, VHDX_REGION_TABLE1_OFFSET, &r, &fault)) {
		fuzz_assert(fault.what);
		return;
	}
	fuzz_assert(r.bat.length && r.metadata.length && r.bat.offset >= VHDX_MIB);
	fuzz_assert(r.bat.offset + r.bat.length <= r.metadata.offset ||
		    r.metadata.offset + r.metadata.length <= r.bat.offset);
	vhdx_claim_regions(&claims, &h, table, VHDX_REGION_TABLE1_OFFSET, &fault);
}

static void metadata(const u8 *data, size_t size)
{
	struct vhdx_region region = { .offset = 2 * VHDX_MIB, .length = VHDX_MIB };
	u8 values[VHDX_ITEM_PARENT_LOCATOR][VHDX_ITEM_VALUE_MAX] = { };
	const u8 *table = load(data, size, VHDX_METADATA_TABLE_SIZE);
	struct vhdx_item_place items[VHDX_ITEM_COUNT];
	struct vhdx_fault fault = { };
	struct vhdx_metadata meta;
	unsigned int i;

	if (vhdx_metadata_table_parse(table, &region, items, &fault)) {
		fuzz_assert(fault.what);
		return;
	}
	for (i = 0; i < VHDX_ITEM_COUNT; i++)
		fuzz_assert(items[i].offset + (u64)items[i].length <= region.length);
	for (i = 0; i < VHDX_ITEM_PARENT_LOCATOR; i++) {
		fuzz_assert(items[i].length <= VHDX_ITEM_VALUE_MAX);
		/* Any bytes will do as values. */
		memcpy(values[i], table + 1024 + 16 * i, items[i].length);
	}
	vhdx_metadata_decode((const u8 (*)[VHDX_ITEM_VALUE_MAX])values, &region, items, &meta,
			     &fault);
}

/* Sizes, then entries. */
static void bat(const u8 *data, size_t size)
{
	static unsigned long map[8192 / sizeof(long)];
	static struct oracle_disk disk;
	struct vhdx_claims claims = { .map = map };
	struct vhdx_bat_walk walk = { .claims = &claims, .bat_offset = 3 * VHDX_MIB };
	struct vhdx_fault fault = { };
	struct vhdx_geometry geo;
	bool is_bitmap;
	u32 number;
	u64 entry;
	u64 virtual_size;
	u32 block_size;

	if (size < 24)
		return;
	memcpy(&virtual_size, data, 8);
	memcpy(&block_size, data + 8, 4);
	if (vhdx_geometry_init(&geo, virtual_size, block_size, data[12] ? 512 : 4096,
			       data[13] & 1, &fault)) {
		fuzz_assert(fault.what);
		return;
	}
	claims.nr_mib = (data[14] | data[15] << 8) % (8 * sizeof(map));
	memset(map, 0, sizeof(map));
	walk.geo = &geo;
	disk.virtual_size = virtual_size;
	disk.block_size = block_size;
	disk.sector_size = data[12] ? 512 : 4096;
	disk.has_parent = data[13] & 1;
	disk.nr_mib = claims.nr_mib;
	disk.size = (u64)disk.nr_mib << VHDX_MIB_SHIFT;
	oracle_disk_init(&disk);
	fuzz_assert(geo.nr_entries == oracle_bat_entries(&disk));
	for (data += 16, size -= 16; size >= 8 && walk.index < geo.nr_entries;
	     data += 8, size -= 8) {
		memcpy(&entry, data, 8);
		if (vhdx_bat_walk_entry(&walk, entry, &is_bitmap, &number, &fault)) {
			fuzz_assert(fault.what);
			continue;
		}
		oracle_bat_entry(&disk, walk.index - 1, entry);
		if (number != ~0U)
			fuzz_assert(number < (is_bitmap ? geo.nr_chunks : geo.nr_blocks));
	}
}

/*
 * Make an entry of what descriptors there are: their sequence number, as many data
 * sectors, and the length that it takes, or @more sectors.  One may be left @out: of the
 * descriptors, from 1, or of the data sectors, from 4.
 */
static void stamp(u8 *e, int more, unsigned int out)
{
	struct vhdx_log_entry_header *h = (void *)e;
	struct vhdx_log_data_descriptor *desc = (void *)(e + 64);
	u32 count = le32_to_cpu(h->descriptor_count) % 300;
	u32 sector = (count + 2 + 127) / 128;
	u8 page[VHDX_PAGE_SIZE] = { };
	struct vhdx_log_data_descriptor unused;
	u32 i;

	h->descriptor_count = cpu_to_le32(count);
	for (i = 0; i < count; i++) {
		if (i + 1 != out || out > 3)
			desc[i].sequence_number = h->sequence_number;
		if (le32_to_cpu(desc[i].signature) != VHDX_LOG_DESC_SIGNATURE ||
		    sector == ENTRY_SECTORS)
			continue;
		memset(page, 0, sizeof(page));
		if (sector + 3 != out)
			vhdx_log_data_pack(page, &unused, 0, le64_to_cpu(h->sequence_number));
		memcpy(e + sector++ * VHDX_LOG_SECTOR, page, sizeof(page));
	}
	h->entry_length = cpu_to_le32((sector + more) * VHDX_LOG_SECTOR);
}

static void entry(const u8 *data, size_t size, bool fix, unsigned int how, unsigned int out)
{
	u8 *e = load(data, size, (ENTRY_SECTORS + 1) * VHDX_LOG_SECTOR);
	struct oracle_ring ring = { e, ENTRY_SECTORS * VHDX_LOG_SECTOR };
	struct vhdx_log_entry_info info;
	static u8 page[VHDX_PAGE_SIZE];
	struct oracle_entry is;

	if (how)
		stamp(e, (int)how - 2, out);
	if (vhdx_log_entry_parse((void *)e, ring.length, &info))
		return;
	if (fix)
		seal(e, info.entry_length);
	if (vhdx_log_entry_check(e, &info))
		return;
	fuzz_assert(oracle_entry(&ring, 0, &is));
	fuzz_assert(is.length == info.entry_length && is.tail == info.tail &&
		    is.nr_descriptors == info.descriptor_count &&
		    is.sequence == info.sequence_number &&
		    is.flushed_size == info.flushed_file_offset &&
		    is.last_size == info.last_file_offset);
	if (info.descriptor_count)
		vhdx_log_data_unpack(page, (const void *)(e + 64));
}

static void locator(const u8 *data, size_t size)
{
	struct vc_locator *l;
	struct vc_locator *again;
	struct vc_err err = { };
	void *item;
	u32 length;
	u8 *exact;
	unsigned int i;

	/* Its own allocation, so that a byte behind it is noticed. */
	exact = malloc(size ? size : 1);
	fuzz_assert(exact);
	memcpy(exact, data, size);
	if (!vc_locator_parse(exact, size, "image", 4096, &l, &err)) {
		if (!vc_locator_build(l, &item, &length, &err)) {
			fuzz_assert(!vc_locator_parse(item, length, "image", 0, &again, &err));
			fuzz_assert(again->nr_pairs == l->nr_pairs);
			for (i = 0; i < l->nr_pairs; i++)
				fuzz_assert(!strcmp(l->pairs[i].value, again->pairs[i].value));
			vc_locator_free(again);
			free(item);
		}
		vc_locator_free(l);
	} else {
		fuzz_assert(*err.msg && !strchr(err.msg, '\n'));
	}
	free(exact);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	unsigned int how;
	unsigned int out;
	bool fix;
	u8 what;

	if (size < 2)
		return 0;
	what = data[0];
	fix = data[1] & 7;
	how = data[1] >> 3 & 3;
	out = data[1] >> 5;
	data += 2;
	size -= 2;
	switch (what % 6) {
	case 0:
		header(data, size, fix);
		break;
	case 1:
		regions(data, size, fix);
		break;
	case 2:
		metadata(data, size);
		break;
	case 3:
		bat(data, size);
		break;
	case 4:
		entry(data, size, fix, how, out);
		break;
	default:
		locator(data, size);
	}
	return 0;
}
