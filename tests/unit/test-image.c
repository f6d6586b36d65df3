// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The format code on images that Windows made, and on those images with one bit
 * changed: everything from the identifier to the last BAT entry must be accepted,
 * or refused with a fault that lies inside the file.
 */
#include "unit.h"

struct log_vector {
	u32 at;				/* in the log */
	u32 checksum;
	u32 length;
	u32 descriptors;
	u64 sequence_number;
	u64 flushed;
	u64 last;
};

struct image {
	const char *name;
	u64 size;
	u32 checksums[2];
	u64 sequence_number;
	u8 data_write_guid[16];
	u64 virtual_size;
	u32 block_mib;
	bool parent;
	bool fixed;
	u32 entries;
	u32 full;
	u32 partial;
	u32 bitmaps;
	struct log_vector log[3];
};

static const struct image images[] = {
	{
		.name = "fat-parent.vhdx.xz", .size = 8 * VHDX_MIB,
		.checksums = { 0x333aaf56, 0xb1c23321 }, .sequence_number = 7,
		.data_write_guid = { 0x92, 0x4d, 0x8d, 0xf8, 0xcc, 0x6f, 0x8d, 0x40,
				     0x9b, 0xef, 0x9b, 0x7c, 0x89, 0xf1, 0x5c, 0x89 },
		.virtual_size = 4 * VHDX_MIB, .block_mib = 2, .fixed = true,
		.entries = 2, .full = 2,
		.log = {
			{ 0, 0xafdff2e5, 0x1000, 0, 3274758405750552203ULL,
			  8 * VHDX_MIB, 8 * VHDX_MIB },
			{ 0x1000, 0xb470d6ac, 0x12000, 17, 3274758405750552204ULL,
			  4 * VHDX_MIB, 8 * VHDX_MIB },
		},
	}, {
		.name = "fat-differential.vhdx.xz", .size = 7 * VHDX_MIB,
		.checksums = { 0x7dc1425d, 0xff39de2a }, .sequence_number = 11,
		.data_write_guid = { 0x82, 0x76, 0xe3, 0xe9, 0x27, 0x82, 0xa7, 0x44,
				     0x86, 0x48, 0x39, 0xcb, 0x9f, 0x52, 0xe5, 0xe6 },
		.virtual_size = 4 * VHDX_MIB, .block_mib = 2, .parent = true,
		.entries = 2049, .partial = 1, .bitmaps = 1,
		.log = {
			{ 0, 0x58ec3bfb, 0x1000, 0, 7766357366478254259ULL,
			  7 * VHDX_MIB, 7 * VHDX_MIB },
			{ 0x1000, 0x122d3aea, 0x4000, 3, 7766357366478254260ULL,
			  4 * VHDX_MIB, 7 * VHDX_MIB },
			/* Of an earlier session. */
			{ 0x13000, 0xe1f1220e, 0x11000, 16, 3353933893899258985ULL,
			  4 * VHDX_MIB, 4 * VHDX_MIB },
		},
	}, {
		.name = "iotest-dynamic-1G.vhdx.bz2", .size = 100 * VHDX_MIB,
		.checksums = { 0x37fabb18, 0xb502276f }, .sequence_number = 15,
		.data_write_guid = { 0xb2, 0xcb, 0x47, 0xd2, 0xb6, 0x15, 0x4b, 0x40,
				     0x91, 0x33, 0x79, 0x07, 0x33, 0xd6, 0x94, 0xc0 },
		.virtual_size = VHDX_GIB, .block_mib = 32,
		.entries = 32, .full = 3,
		.log = {
			{ 0, 0xfd05c15e, 0x1000, 0, 4371089312299158167ULL,
			  4 * VHDX_MIB, 4 * VHDX_MIB },
			{ 0x1000, 0xa9c6ab1d, 0x2000, 1, 4371089312299158168ULL,
			  0, 100 * VHDX_MIB },
		},
	},
};

/* All that opening an image finds out. */
struct opened {
	struct vhdx_header_info header;
	struct vhdx_regions regions;
	struct vhdx_item_place items[VHDX_ITEM_COUNT];
	struct vhdx_metadata meta;
	struct vhdx_geometry geo;
	struct vhdx_bat_walk walk;
	unsigned long map[1024 / BITS_PER_LONG];
};

static int open_image(const u8 *image, u64 size, struct opened *o)
{
	u8 values[VHDX_ITEM_PARENT_LOCATOR][VHDX_ITEM_VALUE_MAX];
	struct vhdx_claims claims = { .map = o->map, .nr_mib = size / VHDX_MIB };
	const u8 *table = image + VHDX_REGION_TABLE1_OFFSET;
	unsigned int i;
	int rc;

	memset(o, 0, sizeof(*o));
	rc = vhdx_identifier_check(image, &unit_fault);
	if (rc)
		return rc;
	rc = vhdx_header_parse((const struct vhdx_header *)(image + VHDX_HEADER1_OFFSET),
			       (const struct vhdx_header *)(image + VHDX_HEADER2_OFFSET),
			       &o->header, &unit_fault);
	if (rc)
		return rc;
	rc = vhdx_region_table_parse(table, VHDX_REGION_TABLE1_OFFSET, &o->regions, &unit_fault);
	if (rc)
		return rc;
	rc = vhdx_claim_regions(&claims, &o->header, table, VHDX_REGION_TABLE1_OFFSET,
				&unit_fault);
	if (rc)
		return rc;
	rc = vhdx_metadata_table_parse(image + o->regions.metadata.offset,
				       &o->regions.metadata, o->items, &unit_fault);
	if (rc)
		return rc;
	memset(values, 0, sizeof(values));
	for (i = 0; i < VHDX_ITEM_PARENT_LOCATOR; i++)
		memcpy(values[i], image + o->regions.metadata.offset + o->items[i].offset,
		       o->items[i].length);
	rc = vhdx_metadata_decode((const u8 (*)[VHDX_ITEM_VALUE_MAX])values,
				  &o->regions.metadata, o->items, &o->meta, &unit_fault);
	if (rc)
		return rc;
	rc = vhdx_geometry_init(&o->geo, o->meta.virtual_size, o->meta.block_size,
				o->meta.logical_sector_size, o->meta.has_parent, &unit_fault);
	if (rc)
		return rc;
	if (vhdx_bat_region_bytes(&o->geo) > o->regions.bat.length) {
		unit_fault.what = "BAT too short";
		unit_fault.offset = 0;
		return -EINVAL;
	}
	o->walk.geo = &o->geo;
	o->walk.claims = &claims;
	o->walk.bat_offset = o->regions.bat.offset;
	while (o->walk.index < o->geo.nr_entries) {
		const u8 *entry = image + o->regions.bat.offset + 8 * o->walk.index;
		bool is_bitmap;
		u32 number;

		rc = vhdx_bat_walk_entry(&o->walk, unit_get64(entry), &is_bitmap, &number,
					 &unit_fault);
		if (rc)
			return rc;
	}
	return 0;
}

static void check_log(const u8 *log, u32 length, const struct log_vector *v)
{
	static const struct vhdx_log_data_descriptor *desc;
	static u8 page[VHDX_PAGE_SIZE];
	struct vhdx_log_entry_info info;
	unsigned int i;

	assert_int_equal(vhdx_log_entry_parse((const void *)(log + v->at), length, &info), 0);
	assert_int_equal(unit_get32(log + v->at + 4), v->checksum);
	assert_int_equal(info.entry_length, v->length);
	assert_int_equal(info.descriptor_count, v->descriptors);
	assert_int_equal(info.sequence_number, v->sequence_number);
	assert_int_equal(info.flushed_file_offset, v->flushed);
	assert_int_equal(info.last_file_offset, v->last);
	assert_int_equal(info.entry_length,
			 vhdx_log_entry_bytes(v->descriptors, v->descriptors));
	assert_int_equal(vhdx_log_entry_check(log + v->at, &info), 0);

	/* What unpacks and packs again is what Windows packed. */
	desc = (const void *)(log + v->at + 64);
	for (i = 0; i < v->descriptors; i++, desc++) {
		const u8 *sector = log + v->at + 4096 * (1 + i);
		struct vhdx_log_data_descriptor again;

		memcpy(page, sector, sizeof(page));
		vhdx_log_data_unpack(page, desc);
		vhdx_log_data_pack(page, &again, le64_to_cpu(desc->file_offset),
				   info.sequence_number);
		assert_memory_equal(page, sector, sizeof(page));
		assert_memory_equal(&again, desc, sizeof(again));
	}
}

static u8 *load(const struct image *im)
{
	size_t size;
	u8 *image = unit_load_image(im->name, &size);

	if (!image)
		skip();
	assert_int_equal(size, im->size);
	return image;
}

static void test_image(void **state)
{
	static struct opened o;
	const struct image *im = *state;
	u8 *image = load(im);
	static u8 copy[VHDX_REGION_TABLE_SIZE];
	static u8 metadata[VHDX_MIB];
	const u8 *locator = NULL;
	unsigned int i, slot;

	for (slot = 0; slot < 2; slot++) {
		const u8 *h = image + vhdx_header_offset(slot);

		assert_int_equal(vhdx_checksum(h, VHDX_HEADER_SIZE), im->checksums[slot]);
		assert_int_equal(unit_get32(h + 4), im->checksums[slot]);
		/* All three have the same layout. */
		assert_int_equal(vhdx_checksum(image + VHDX_REGION_TABLE1_OFFSET + slot * 65536,
					       VHDX_REGION_TABLE_SIZE), 0xc66b8cae);
	}
	assert_ok(open_image(image, im->size, &o));
	assert_int_equal(o.header.slot, 1);
	assert_true(o.header.other_valid);
	assert_false(o.header.log_dirty);
	assert_int_equal(o.header.sequence_number, im->sequence_number);
	assert_memory_equal(&o.header.data_write_guid, im->data_write_guid, 16);
	assert_int_equal(o.header.log_offset, VHDX_MIB);
	assert_int_equal(o.header.log_length, VHDX_MIB);
	assert_int_equal(o.regions.count, 2);
	assert_int_equal(o.regions.bat.offset, 3 * VHDX_MIB);
	assert_int_equal(o.regions.metadata.offset, 2 * VHDX_MIB);
	assert_int_equal(o.meta.virtual_size, im->virtual_size);
	assert_int_equal(o.meta.block_size, im->block_mib * VHDX_MIB);
	assert_int_equal(o.meta.has_parent, im->parent);
	assert_int_equal(o.meta.leave_allocated, im->fixed);
	assert_int_equal(o.meta.logical_sector_size, 512);
	assert_int_equal(o.meta.physical_sector_size, 4096);
	assert_int_equal(o.geo.nr_entries, im->entries);
	assert_int_equal(o.walk.nr_full, im->full);
	assert_int_equal(o.walk.nr_partial, im->partial);
	assert_int_equal(o.walk.nr_bitmaps, im->bitmaps);

	/* Built from what was read, the structures are the same bytes again. */
	vhdx_header_build((struct vhdx_header *)copy, &o.header);
	assert_memory_equal(copy, image + VHDX_HEADER2_OFFSET, VHDX_HEADER_SIZE);
	vhdx_region_table_build(copy, &o.regions.bat, &o.regions.metadata);
	assert_memory_equal(copy, image + VHDX_REGION_TABLE1_OFFSET, sizeof(copy));
	if (im->parent)
		locator = image + 2 * VHDX_MIB + o.items[VHDX_ITEM_PARENT_LOCATOR].offset;
	assert_int_equal(vhdx_metadata_build(metadata, sizeof(metadata), &o.meta, locator,
					     o.items[VHDX_ITEM_PARENT_LOCATOR].length), 0);
	/* Entries behind the last one are left over from something. */
	i = im->parent ? 6 : 5;
	assert_memory_equal(metadata, image + 2 * VHDX_MIB, 32 + 32 * i);
	assert_memory_equal(metadata + 0x10000, image + 2 * VHDX_MIB + 0x10000, 0x10000);

	for (i = 0; i < ARRAY_SIZE(im->log) && im->log[i].checksum; i++)
		check_log(image + o.header.log_offset, o.header.log_length, &im->log[i]);
	free(image);
}

/* Every bit that is looked at, and many that are not. */
static void test_one_bit(void **state)
{
	static struct opened o;
	const struct image *im = *state;
	u8 *image = load(im);
	static const struct {
		u32 at;
		u32 bits;
		u32 step;
	} ranges[] = {
		{ 0, 64, 1 },				/* identifier */
		{ 64 * 1024, 8 * 4096, 31 },
		{ 128 * 1024, 8 * 4096, 31 },
		{ 192 * 1024, 8 * 256, 29 },
		{ 2048 * 1024, 8 * 256, 1 },		/* metadata table */
		{ 2048 * 1024 + 65536, 8 * 64, 1 },	/* items */
		{ 3072 * 1024, 8 * 64, 1 },		/* BAT */
		{ 3072 * 1024 + 8 * 2048, 64, 1 },	/* a bitmap's entry */
	};
	unsigned int r, bit, refused = 0;

	for (r = 0; r < ARRAY_SIZE(ranges); r++)
		for (bit = 0; bit < ranges[r].bits; bit += ranges[r].step) {
			u8 *byte = image + ranges[r].at + bit / 8;
			int rc;

			*byte ^= 1 << bit % 8;
			unit_fault.what = NULL;
			rc = open_image(image, im->size, &o);
			*byte ^= 1 << bit % 8;
			if (!rc)
				continue;
			refused++;
			assert_true(rc == -EINVAL || rc == -EBADMSG || rc == -EOPNOTSUPP);
			assert_non_null(unit_fault.what);
			assert_true(unit_fault.offset < im->size);
		}
	/* The identifier and the region table alone are more. */
	assert_true(refused > 100);
	assert_ok(open_image(image, im->size, &o));
	free(image);
}

int main(void)
{
	static struct image states[ARRAY_SIZE(images)];
	struct CMUnitTest tests[2 * ARRAY_SIZE(images)];
	static char names[ARRAY_SIZE(tests)][64];
	unsigned int i;

	memcpy(states, images, sizeof(states));
	for (i = 0; i < ARRAY_SIZE(tests); i++) {
		struct image *im = &states[i / 2];

		snprintf(names[i], sizeof(names[i]), "%s %s",
			 i & 1 ? "test_one_bit" : "test_image", im->name);
		tests[i] = (struct CMUnitTest) {
			.name = names[i],
			.test_func = i & 1 ? test_one_bit : test_image,
			.initial_state = im,
		};
	}
	return cmocka_run_group_tests_name("image", tests, NULL, NULL);
}
