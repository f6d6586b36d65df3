// SPDX-License-Identifier: GPL-2.0-only
/*
 * KUnit tests of the VHDX format code: the same rules that the module goes by, as
 * this kernel's compiler, byte order and CRC-32C make them.
 */
#include <kunit/test.h>
#include <linux/module.h>

/*
 * The module that holds the format code exports nothing.  Built in, it is linked
 * into the same image as this, and must not be there twice.
 */
#ifdef MODULE
#include "vhdx-format.c"
#else
#include "vhdx-format.h"
#endif

#define BAT_OFFSET	(3 * VHDX_MIB)
#define FILE_MIB	256U
#define LOG_SEQUENCE	0xfedcba9876543210ULL

static const struct vhdx_fault no_fault = { .what = "none", .offset = ~0ULL };

/* Check the result, and when there should be a fault, where it is said to be. */
static void expect_fault(struct kunit *test, const char *name, unsigned int row, int rc,
			 int err, const struct vhdx_fault *fault, u64 offset)
{
	KUNIT_EXPECT_EQ_MSG(test, rc, err, "%s, row %u: %s", name, row, fault->what);
	if (err)
		KUNIT_EXPECT_EQ_MSG(test, fault->offset, offset, "%s, row %u: %s", name, row,
				    fault->what);
}

/* What Windows 10 wrote into the headers of a child. */
static void windows_header(struct vhdx_header *h, u64 sequence_number)
{
	struct vhdx_header_info info = {
		.sequence_number = sequence_number,
		.file_write_guid = { { 0xae, 0x16, 0x51, 0x06, 0x3f, 0xd5, 0x8b, 0x48,
				       0x9d, 0x32, 0x69, 0x4f, 0x56, 0xf2, 0xb9, 0xca } },
		.data_write_guid = { { 0x82, 0x76, 0xe3, 0xe9, 0x27, 0x82, 0xa7, 0x44,
				       0x86, 0x48, 0x39, 0xcb, 0x9f, 0x52, 0xe5, 0xe6 } },
		.log_offset = VHDX_MIB,
		.log_length = VHDX_MIB,
	};

	vhdx_header_build(h, &info);
}

static void *windows_region_table(struct kunit *test)
{
	struct vhdx_region bat = {
		.offset = 3 * VHDX_MIB, .length = VHDX_MIB, .required = true
	};
	struct vhdx_region metadata = {
		.offset = 2 * VHDX_MIB, .length = VHDX_MIB, .required = true
	};
	void *table = kunit_kzalloc(test, VHDX_REGION_TABLE_SIZE, GFP_KERNEL);

	KUNIT_ASSERT_TRUE(test, !!table);
	vhdx_region_table_build(table, &bat, &metadata);
	return table;
}

/* ---- checksums ---------------------------------------------------------- */

static void crc_check_value(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, ~vhdx_crc32c_step(~0U, "123456789", 9), 0xe3069283U);
	KUNIT_EXPECT_EQ(test, ~vhdx_crc32c_step(vhdx_crc32c_step(~0U, "1234", 4), "56789", 5),
			0xe3069283U);
}

static void crc_of_windows_structures(struct kunit *test)
{
	struct vhdx_header *h = kunit_kzalloc(test, sizeof(*h), GFP_KERNEL);
	struct vhdx_region_table_header *table = windows_region_table(test);

	KUNIT_ASSERT_TRUE(test, !!h);
	windows_header(h, 10);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(h->checksum), 0x7dc1425dU);
	windows_header(h, 11);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(h->checksum), 0xff39de2aU);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(table->checksum), 0xc66b8caeU);
}

/* ---- headers ------------------------------------------------------------ */

static void header_choice(struct kunit *test)
{
	static const struct {
		u64 seq1;
		u64 seq2;
		bool valid1;
		bool valid2;
		int slot;		/* or an errno */
	} rows[] = {
		{ 10, 11, true, true, 1 },
		{ 11, 10, true, true, 0 },
		{ ~0ULL, 1, true, true, 0 },
		{ 1, ~0ULL, true, true, 1 },
		{ 10, 11, true, false, 0 },
		{ 11, 10, false, true, 1 },
		{ 10, 10, true, false, 0 },
		{ 10, 10, false, true, 1 },
		{ 1, 1, true, true, 0 },
		{ 10, 11, false, false, -EBADMSG },
	};
	struct vhdx_header *h = kunit_kzalloc(test, 2 * sizeof(*h), GFP_KERNEL);
	struct vhdx_fault fault = no_fault;
	struct vhdx_header_info info;
	unsigned int i;
	int rc;

	KUNIT_ASSERT_TRUE(test, !!h);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		windows_header(&h[0], rows[i].seq1);
		windows_header(&h[1], rows[i].seq2);
		h[0].reserved[4015] = !rows[i].valid1;
		h[1].reserved[0] = !rows[i].valid2;
		rc = vhdx_header_parse(&h[0], &h[1], &info, &fault);
		KUNIT_EXPECT_EQ_MSG(test, rc < 0 ? rc : (int)info.slot, rows[i].slot,
				    "row %u", i);
		if (rc)
			continue;
		KUNIT_EXPECT_EQ_MSG(test, info.other_valid, rows[i].valid1 && rows[i].valid2,
				    "row %u", i);
		KUNIT_EXPECT_EQ_MSG(test, info.sequence_number,
				    info.slot ? rows[i].seq2 : rows[i].seq1, "row %u", i);
	}
}

static void header_equal_but_different(struct kunit *test)
{
	struct vhdx_header *h = kunit_kzalloc(test, 2 * sizeof(*h), GFP_KERNEL);
	struct vhdx_fault fault = no_fault;
	struct vhdx_header_info info;
	int rc;

	KUNIT_ASSERT_TRUE(test, !!h);
	windows_header(&h[0], 7);
	windows_header(&h[1], 7);
	h[1].data_write_guid.b[0] ^= 1;
	h[1].checksum = cpu_to_le32(vhdx_checksum(&h[1], sizeof(h[1])));
	rc = vhdx_header_parse(&h[0], &h[1], &info, &fault);
	expect_fault(test, __func__, 0, rc, -EINVAL, &fault, 0x10008);
}

static void header_fields(struct kunit *test)
{
	static const struct {
		u16 version;
		u16 log_version;
		u32 log_length;
		u64 log_offset;
		bool dirty;
		int err;
		u32 at;
	} rows[] = {
		{ 1, 0, 0x100000, 0x100000, true, 0, 0 },
		{ 0, 0, 0x100000, 0x100000, false, -EOPNOTSUPP, 66 },
		{ 2, 0, 0x100000, 0x100000, false, -EOPNOTSUPP, 66 },
		{ 1, 1, 0x100000, 0x100000, true, -EOPNOTSUPP, 64 },
		{ 1, 1, 0x100000, 0x100000, false, 0, 0 },
		{ 1, 0, 0, 0x100000, false, -EINVAL, 68 },
		{ 1, 0, 0x101000, 0x100000, false, -EINVAL, 68 },
		{ 1, 0, 0x40000000, 0x100000, false, 0, 0 },
		{ 1, 0, 0x40100000, 0x100000, false, -EOPNOTSUPP, 68 },
		{ 1, 0, 0x100000, 0, false, -EINVAL, 72 },
		{ 1, 0, 0x100000, 0x180000, false, -EINVAL, 72 },
		{ 1, 0, 0x100000, 0xfffffffffff00000ULL, false, -EINVAL, 72 },
	};
	struct vhdx_header *h = kunit_kzalloc(test, 2 * sizeof(*h), GFP_KERNEL);
	struct vhdx_header_info info;
	unsigned int i;
	int rc;

	KUNIT_ASSERT_TRUE(test, !!h);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		struct vhdx_fault fault = no_fault;

		windows_header(&h[0], 10);
		windows_header(&h[1], 11);
		h[1].version = cpu_to_le16(rows[i].version);
		h[1].log_version = cpu_to_le16(rows[i].log_version);
		h[1].log_length = cpu_to_le32(rows[i].log_length);
		h[1].log_offset = cpu_to_le64(rows[i].log_offset);
		h[1].log_guid.b[15] = rows[i].dirty;
		h[1].checksum = cpu_to_le32(vhdx_checksum(&h[1], sizeof(h[1])));
		rc = vhdx_header_parse(&h[0], &h[1], &info, &fault);
		expect_fault(test, __func__, i, rc, rows[i].err, &fault, 0x20000 + rows[i].at);
		KUNIT_EXPECT_EQ(test, info.log_dirty, rows[i].dirty);
	}
}

/* ---- regions ------------------------------------------------------------ */

static void region_table(struct kunit *test)
{
	static const struct {
		u32 count;
		u64 offset;		/* of a third region */
		u32 length;
		u32 flags;
		int err;
		u32 at;
	} rows[] = {
		{ 2, 0, 0, 0, 0, 0 },
		{ 3, 4 * VHDX_MIB, VHDX_MIB, 0, 0, 0 },
		{ 3, 4 * VHDX_MIB, VHDX_MIB, 1, -EOPNOTSUPP, 16 + 64 },
		{ 3, 3 * VHDX_MIB, VHDX_MIB, 0, -EINVAL, 16 + 64 + 16 },
		{ 3, VHDX_MIB, 2 * VHDX_MIB, 0, -EINVAL, 16 + 64 + 16 },
		{ 3, VHDX_MIB, VHDX_MIB, 0, 0, 0 },
		{ 3, 0, VHDX_MIB, 0, -EINVAL, 16 + 64 + 16 },
		{ 3, VHDX_MIB + 4096, VHDX_MIB, 0, -EINVAL, 16 + 64 + 16 },
		{ 3, 0xfffffffffff00000ULL, VHDX_MIB, 0, -EINVAL, 16 + 64 + 16 },
		{ 3, 4 * VHDX_MIB, 4096, 0, -EINVAL, 16 + 64 + 24 },
		{ 1, 0, 0, 0, -EINVAL, 0 },
		{ 0, 0, 0, 0, -EINVAL, 0 },
		{ 2048, 0, 0, 0, -EINVAL, 8 },
		{ ~0U, 0, 0, 0, -EINVAL, 8 },
	};
	struct vhdx_region_table_header *h = windows_region_table(test);
	struct vhdx_region_table_entry *third = (void *)(h + 1) + 2 * sizeof(*third);
	struct vhdx_regions regions;
	struct vhdx_fault fault;
	unsigned int i;
	int rc;

	third->guid.b[0] = 1;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		fault = no_fault;
		h->entry_count = cpu_to_le32(rows[i].count);
		third->file_offset = cpu_to_le64(rows[i].offset);
		third->length = cpu_to_le32(rows[i].length);
		third->flags = cpu_to_le32(rows[i].flags);
		h->checksum = cpu_to_le32(vhdx_checksum(h, VHDX_REGION_TABLE_SIZE));
		rc = vhdx_region_table_parse(h, VHDX_REGION_TABLE2_OFFSET, &regions, &fault);
		expect_fault(test, __func__, i, rc, rows[i].err, &fault,
			     VHDX_REGION_TABLE2_OFFSET + rows[i].at);
		if (rc)
			continue;
		KUNIT_EXPECT_EQ(test, regions.count, rows[i].count);
		KUNIT_EXPECT_EQ(test, regions.bat.offset, 3 * VHDX_MIB);
		KUNIT_EXPECT_EQ(test, regions.metadata.offset, 2 * VHDX_MIB);
	}
	h->checksum ^= cpu_to_le32(1);
	fault = no_fault;
	rc = vhdx_region_table_parse(h, VHDX_REGION_TABLE1_OFFSET, &regions, &fault);
	expect_fault(test, "checksum", 0, rc, -EBADMSG, &fault, VHDX_REGION_TABLE1_OFFSET + 4);
}

/* ---- metadata ----------------------------------------------------------- */

#define METADATA_SIZE	(VHDX_METADATA_TABLE_SIZE + 4096)

static const struct vhdx_region metadata_region = {
	.offset = 2 * VHDX_MIB, .length = VHDX_MIB
};

static const struct vhdx_metadata child = {
	.block_size = 2 * VHDX_MIB,
	.has_parent = true,
	.virtual_size = 4 * VHDX_MIB,
	.logical_sector_size = 512,
	.physical_sector_size = 4096,
	.virtual_disk_id = { { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16 } },
};

/* Table and values of a metadata region, as the target reads them. */
static int read_metadata(const u8 *buf, struct vhdx_metadata *meta, struct vhdx_fault *fault)
{
	u8 values[VHDX_ITEM_PARENT_LOCATOR][VHDX_ITEM_VALUE_MAX] = { };
	struct vhdx_item_place items[VHDX_ITEM_COUNT];
	unsigned int i;
	int rc;

	rc = vhdx_metadata_table_parse(buf, &metadata_region, items, fault);
	if (rc)
		return rc;
	for (i = 0; i < VHDX_ITEM_PARENT_LOCATOR; i++)
		memcpy(values[i], buf + items[i].offset, items[i].length);
	return vhdx_metadata_decode((const u8 (*)[VHDX_ITEM_VALUE_MAX])values,
				    &metadata_region, items, meta, fault);
}

static void metadata_round_trip(struct kunit *test)
{
	static const u8 locator[64];
	struct vhdx_fault fault = no_fault;
	struct vhdx_metadata meta;
	u8 *buf = kunit_kzalloc(test, METADATA_SIZE, GFP_KERNEL);

	KUNIT_ASSERT_TRUE(test, !!buf);
	KUNIT_EXPECT_EQ(test, vhdx_metadata_build(buf, METADATA_SIZE, &child, NULL, 0), -EINVAL);
	KUNIT_ASSERT_EQ(test, vhdx_metadata_build(buf, METADATA_SIZE, &child, locator,
						  sizeof(locator)), 0);
	KUNIT_ASSERT_EQ_MSG(test, read_metadata(buf, &meta, &fault), 0, "%s", fault.what);
	KUNIT_EXPECT_EQ(test, meta.block_size, child.block_size);
	KUNIT_EXPECT_EQ(test, meta.virtual_size, child.virtual_size);
	KUNIT_EXPECT_EQ(test, meta.logical_sector_size, child.logical_sector_size);
	KUNIT_EXPECT_EQ(test, meta.physical_sector_size, child.physical_sector_size);
	KUNIT_EXPECT_TRUE(test, meta.has_parent);
	KUNIT_EXPECT_FALSE(test, meta.leave_allocated);
	KUNIT_EXPECT_TRUE(test, vhdx_guid_equal(&meta.virtual_disk_id, &child.virtual_disk_id));
}

/* One field changed: of the table, of the sixth entry (the locator's), or of a value. */
static void metadata_faults(struct kunit *test)
{
	static const u8 locator[64];
	static const struct {
		u32 at;
		u32 value;
		int err;
		u32 fault_at;
	} rows[] = {
		{ 0, 0, -EBADMSG, 0 },
		{ 8, 2048U << 16, -EINVAL, 10 },
		{ 8, 4U << 16, -EINVAL, 0 },
		{ 8, 5U << 16, -EINVAL, 0x10004 },		/* has_parent, no locator */
		{ 32 + 5 * 32, 0, -EOPNOTSUPP, 32 + 5 * 32 },	/* another, required item */
		{ 32 + 5 * 32 + 16, 0xffff, -EINVAL, 32 + 5 * 32 + 16 },
		{ 32 + 5 * 32 + 16, 0x10020, -EINVAL, 32 + 5 * 32 + 16 },
		{ 32 + 5 * 32 + 16, 0xffffffff, -EINVAL, 32 + 5 * 32 + 16 },
		{ 32 + 5 * 32 + 20, 19, -EINVAL, 32 + 5 * 32 + 20 },
		{ 32 + 5 * 32 + 20, 0xffffffff, -EINVAL, 32 + 5 * 32 + 20 },
		{ 0x10000, 0x300000, -EINVAL, 0x10000 },	/* block size */
		{ 0x10000, 0x20000000, -EINVAL, 0x10000 },
		{ 0x10004, 0, -EINVAL, 0x10028 },		/* locator, no parent */
		{ 0x10008, 0x400001, -EINVAL, 0x10008 },	/* size */
		{ 0x1000c, 0x4001, -EINVAL, 0x10008 },
		{ 0x10010, 1024, -EINVAL, 0x10010 },		/* sectors */
		{ 0x10014, 0, -EINVAL, 0x10014 },
	};
	u8 *buf = kunit_kzalloc(test, METADATA_SIZE, GFP_KERNEL);
	struct vhdx_metadata meta;
	unsigned int i;

	KUNIT_ASSERT_TRUE(test, !!buf);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		struct vhdx_fault fault = no_fault;
		__le32 value = cpu_to_le32(rows[i].value);
		int rc;

		vhdx_metadata_build(buf, METADATA_SIZE, &child, locator, sizeof(locator));
		memcpy(buf + rows[i].at, &value, sizeof(value));
		rc = read_metadata(buf, &meta, &fault);
		expect_fault(test, __func__, i, rc, rows[i].err, &fault,
			     metadata_region.offset + rows[i].fault_at);
	}
}

/* ---- geometry ----------------------------------------------------------- */

static const struct {
	u64 size;
	u32 block;
	u32 sector;
	u32 ratio;
	u32 blocks;
	u32 chunks;
	u32 dynamic;
	u32 differencing;
	u32 bat_mib;
} geometries[] = {
	{ 4 * VHDX_MIB, 2 * VHDX_MIB, 512, 2048, 2, 1, 2, 2049, 1 },
	{ 4 * VHDX_GIB, 2 * VHDX_MIB, 512, 2048, 2048, 1, 2048, 2049, 1 },
	{ 4 * VHDX_GIB + 512, 2 * VHDX_MIB, 512, 2048, 2049, 2, 2050, 4098, 1 },
	{ 10 * VHDX_GIB, VHDX_MIB, 512, 4096, 10240, 3, 10242, 12291, 1 },
	{ 100 * VHDX_GIB, 2 * VHDX_MIB, 4096, 16384, 51200, 4, 51203, 65540, 1 },
	{ 2 * VHDX_TIB, 2 * VHDX_MIB, 512, 2048, 1048576, 512, 1049087, 1049088, 9 },
	{ 64 * VHDX_TIB, 2 * VHDX_MIB, 512, 2048, 33554432, 16384, 33570815, 33570816, 257 },
	{ 64 * VHDX_TIB, VHDX_MIB, 512, 4096, 67108864, 16384, 67125247, 67125248, 513 },
	{ 64 * VHDX_TIB, 256 * VHDX_MIB, 512, 16, 262144, 16384, 278527, 278528, 3 },
};

static void geometry_table(struct kunit *test)
{
	struct vhdx_fault fault = no_fault;
	struct vhdx_geometry geo;
	unsigned int i, parent;

	for (i = 0; i < ARRAY_SIZE(geometries); i++)
		for (parent = 0; parent < 2; parent++) {
			KUNIT_ASSERT_EQ(test, vhdx_geometry_init(&geo, geometries[i].size,
								 geometries[i].block,
								 geometries[i].sector,
								 parent, &fault), 0);
			KUNIT_EXPECT_EQ(test, 1U << geo.block_shift, geometries[i].block);
			KUNIT_EXPECT_EQ(test, 1U << geo.sector_shift, geometries[i].sector);
			KUNIT_EXPECT_EQ(test, 1U << geo.ratio_shift, geometries[i].ratio);
			KUNIT_EXPECT_EQ(test, geo.nr_blocks, geometries[i].blocks);
			KUNIT_EXPECT_EQ(test, geo.nr_chunks, geometries[i].chunks);
			KUNIT_EXPECT_EQ(test, geo.nr_entries,
					parent ? geometries[i].differencing :
						 geometries[i].dynamic);
			KUNIT_EXPECT_EQ(test, vhdx_bat_region_bytes(&geo),
					geometries[i].bat_mib * VHDX_MIB);
		}
}

/* Against the formulas of 2.5, with divisions. */
static void geometry_indexes(struct kunit *test)
{
	struct vhdx_fault fault = no_fault;
	struct vhdx_geometry geo;
	unsigned int i, k;

	for (i = 0; i < ARRAY_SIZE(geometries); i++) {
		u32 ratio = geometries[i].ratio;
		u32 last = geometries[i].blocks - 1;
		u32 blocks[] = { 0, 1, ratio - 1, ratio, ratio + 1, 2 * ratio, last / 2, last };

		vhdx_geometry_init(&geo, geometries[i].size, geometries[i].block,
				   geometries[i].sector, true, &fault);
		for (k = 0; k < ARRAY_SIZE(blocks); k++) {
			u32 b = blocks[k];
			u32 chunk = b / ratio;
			u32 index = b + chunk;

			if (b > last)
				continue;
			KUNIT_EXPECT_EQ(test, vhdx_bat_payload_index(&geo, b), index);
			KUNIT_EXPECT_EQ(test, vhdx_block_chunk(&geo, b), chunk);
			KUNIT_EXPECT_EQ(test, vhdx_bat_chunk(&geo, index), chunk);
			KUNIT_EXPECT_FALSE(test, vhdx_bat_is_bitmap(&geo, index, chunk));
			index = chunk * (ratio + 1) + ratio;
			KUNIT_EXPECT_EQ(test, vhdx_bat_bitmap_index(&geo, chunk), index);
			KUNIT_EXPECT_EQ(test, vhdx_bat_chunk(&geo, index), chunk);
			KUNIT_EXPECT_TRUE(test, vhdx_bat_is_bitmap(&geo, index, chunk));
		}
	}
}

static void geometry_faults(struct kunit *test)
{
	static const struct {
		u64 size;
		u32 block;
		u32 sector;
	} rows[] = {
		{ 0, VHDX_MIB, 512 },
		{ 513, VHDX_MIB, 512 },
		{ VHDX_MIB + 512, VHDX_MIB, 4096 },
		{ 64 * VHDX_TIB + 512, VHDX_MIB, 512 },
		{ ~0ULL, VHDX_MIB, 512 },
		{ VHDX_MIB, 0, 512 },
		{ VHDX_MIB, VHDX_MIB / 2, 512 },
		{ VHDX_MIB, 3 * VHDX_MIB, 512 },
		{ VHDX_MIB, 512 * VHDX_MIB, 512 },
		{ VHDX_MIB, VHDX_MIB, 0 },
		{ VHDX_MIB, VHDX_MIB, 1024 },
	};
	struct vhdx_geometry geo;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		struct vhdx_fault fault = no_fault;
		int rc = vhdx_geometry_init(&geo, rows[i].size, rows[i].block, rows[i].sector,
					    true, &fault);

		expect_fault(test, __func__, i, rc, -EINVAL, &fault, 0);
	}
}

/* ---- claims and BAT walks ----------------------------------------------- */

struct bat_test {
	unsigned long map[FILE_MIB / BITS_PER_LONG];
	struct vhdx_claims claims;
	struct vhdx_geometry geo;
	struct vhdx_bat_walk walk;
	struct vhdx_fault fault;
	bool is_bitmap;
	u32 number;
};

/* 2 MiB blocks, two chunks, one block in the second; the first 4 MiB of the file taken. */
static void bat_start(struct kunit *test, struct bat_test *t, bool parent)
{
	memset(t, 0, sizeof(*t));
	t->claims.map = t->map;
	t->claims.nr_mib = FILE_MIB;
	KUNIT_ASSERT_EQ(test, vhdx_claim(&t->claims, 0, 4), 0);
	KUNIT_ASSERT_EQ(test, vhdx_geometry_init(&t->geo, 4 * VHDX_GIB + 512, 2 * VHDX_MIB,
						 512, parent, &t->fault), 0);
	t->walk.geo = &t->geo;
	t->walk.claims = &t->claims;
	t->walk.bat_offset = BAT_OFFSET;
}

static int bat_next(struct bat_test *t, u64 entry)
{
	t->fault = no_fault;
	return vhdx_bat_walk_entry(&t->walk, entry, &t->is_bitmap, &t->number, &t->fault);
}

static void bat_skip_to(struct kunit *test, struct bat_test *t, u32 index)
{
	KUNIT_ASSERT_LE(test, index, t->geo.nr_entries);
	while (t->walk.index < index)
		KUNIT_ASSERT_EQ(test, bat_next(t, 0), 0);
}

static unsigned int bat_taken(const struct bat_test *t)
{
	unsigned int i, n = 0;

	for (i = 0; i < FILE_MIB; i++)
		n += t->map[i / BITS_PER_LONG] >> (i % BITS_PER_LONG) & 1;
	return n;
}

static void claims(struct kunit *test)
{
	static const struct {
		u64 mib;
		u64 nr;
		int rc;
		unsigned int taken;
	} rows[] = {
		{ 10, 2, 0, 6 },
		{ 11, 1, -EEXIST, 6 },
		{ 9, 2, -EEXIST, 6 },
		{ 8, 100, -EEXIST, 6 },
		{ 12, 100, 0, 106 },
		{ 63, 1, -EEXIST, 106 },
		{ 64, 1, -EEXIST, 106 },
		{ 112, 144, 0, 250 },
		{ 256, 1, -ERANGE, 250 },
		{ 255, 2, -ERANGE, 250 },
		{ ~0ULL, 2, -ERANGE, 250 },
		{ 5, ~0ULL, -ERANGE, 250 },
		{ 4, 6, 0, 256 },
	};
	struct bat_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_TRUE(test, !!t);
	bat_start(test, t, true);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		KUNIT_EXPECT_EQ_MSG(test, vhdx_claim(&t->claims, rows[i].mib, rows[i].nr),
				    rows[i].rc, "row %u", i);
		KUNIT_EXPECT_EQ_MSG(test, bat_taken(t), rows[i].taken, "row %u", i);
	}
}

static void bat_states(struct kunit *test)
{
	static const struct {
		u64 entry;
		bool bitmap;
		bool parent;
		int err;
		u32 taken;
	} rows[] = {
		{ 0x0000000, false, true, 0, 0 },
		{ 0xa00000, false, true, 0, 0 },		/* NOT_PRESENT: place ignored */
		{ 0xfffffffffff00002ULL, false, true, 0, 0 },	/* ZERO: the same */
		{ 0x000001, false, true, 0, 0 },
		{ 0xa00001, false, true, 0, 2 },		/* soft anchors */
		{ 0xa00003, false, false, 0, 2 },
		{ 0x100003, false, true, -EINVAL, 0 },
		{ 0xa00004, false, true, -EINVAL, 0 },		/* reserved states */
		{ 0xa00005, false, true, -EINVAL, 0 },
		{ 0xa00006, false, true, 0, 2 },
		{ 0xa00006, false, false, 0, 2 },
		{ 0xa00007, false, true, 0, 2 },
		{ 0xa00007, false, false, -EINVAL, 0 },		/* no parent */
		{ 0x000006, false, true, -EINVAL, 0 },
		{ 0x300006, false, true, -EINVAL, 0 },		/* on the first 4 MiB */
		{ 0xff00006, false, true, -EINVAL, 0 },		/* half behind the end */
		{ 0xfe00006, false, true, 0, 2 },
		{ 0xfffffffffff00006ULL, false, true, -EINVAL, 0 },
		{ 0xa00008, false, true, -EINVAL, 0 },		/* reserved bits */
		{ 0xa80006, false, true, -EINVAL, 0 },
		{ 0x000000, true, true, 0, 0 },
		{ 0xa00006, true, true, 0, 1 },
		{ 0xff00006, true, true, 0, 1 },
		{ 0xa00007, true, true, -EINVAL, 0 },
		{ 0xa00001, true, true, -EINVAL, 0 },
		{ 0x000006, true, true, -EINVAL, 0 },
		{ 0xa00016, true, true, -EINVAL, 0 },
		{ 0x000000, true, false, 0, 0 },
		{ 0xa00006, true, false, -EINVAL, 0 },
		{ 0xa00000, true, false, -EINVAL, 0 },
	};
	struct bat_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_TRUE(test, !!t);
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		u32 index = rows[i].bitmap ? 2048 : 5;
		int rc;

		bat_start(test, t, rows[i].parent);
		bat_skip_to(test, t, index);
		rc = bat_next(t, rows[i].entry);
		expect_fault(test, __func__, i, rc, rows[i].err, &t->fault,
			     BAT_OFFSET + 8 * index);
		KUNIT_EXPECT_EQ_MSG(test, t->is_bitmap, rows[i].bitmap, "row %u", i);
		KUNIT_EXPECT_EQ_MSG(test, t->number, rows[i].bitmap ? 0U : 5U, "row %u", i);
		KUNIT_EXPECT_EQ_MSG(test, bat_taken(t), 4 + rows[i].taken, "row %u", i);
	}
}

static void bat_doubled(struct kunit *test)
{
	struct bat_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	int rc;

	KUNIT_ASSERT_TRUE(test, !!t);
	bat_start(test, t, true);
	KUNIT_EXPECT_EQ(test, bat_next(t, 0xa00006), 0);
	rc = bat_next(t, 0xa00006);
	expect_fault(test, "same", 0, rc, -EINVAL, &t->fault, BAT_OFFSET + 8);
	rc = bat_next(t, 0xb00003);
	expect_fault(test, "overlap", 0, rc, -EINVAL, &t->fault, BAT_OFFSET + 16);
	KUNIT_EXPECT_EQ(test, bat_next(t, 0xc00007), 0);
	bat_skip_to(test, t, 2048);
	rc = bat_next(t, 0xd00006);
	expect_fault(test, "bitmap", 0, rc, -EINVAL, &t->fault, BAT_OFFSET + 8 * 2048);
	KUNIT_EXPECT_EQ(test, bat_taken(t), 8U);
}

static void bat_partial_wants_bitmap(struct kunit *test)
{
	struct bat_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	int rc;

	KUNIT_ASSERT_TRUE(test, !!t);
	bat_start(test, t, true);
	KUNIT_EXPECT_EQ(test, bat_next(t, 0xa00007), 0);
	bat_skip_to(test, t, 2048);
	rc = bat_next(t, 0);
	expect_fault(test, "first", 0, rc, -EINVAL, &t->fault, BAT_OFFSET + 8 * 2048);
	/* Each chunk for itself. */
	bat_skip_to(test, t, 4097);
	KUNIT_EXPECT_EQ(test, bat_next(t, 0), 0);

	bat_start(test, t, true);
	bat_skip_to(test, t, 2048);
	KUNIT_EXPECT_EQ(test, bat_next(t, 0x900006), 0);
	KUNIT_EXPECT_EQ(test, bat_next(t, 0xa00007), 0);
	bat_skip_to(test, t, 4097);
	rc = bat_next(t, 0);
	expect_fault(test, "second", 0, rc, -EINVAL, &t->fault, BAT_OFFSET + 8 * 4097);
	KUNIT_EXPECT_EQ(test, t->walk.nr_partial, 1U);
	KUNIT_EXPECT_EQ(test, t->walk.nr_bitmaps, 1U);
}

/* Numbers over a whole table, with anything in the padding and behind the end. */
static void bat_numbers(struct kunit *test)
{
	struct bat_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	u32 i, wrong = 0;

	KUNIT_ASSERT_TRUE(test, !!t);
	bat_start(test, t, true);
	for (i = 0; i < 5000; i++) {
		bool bitmap = i == 2048 || i == 4097;
		bool padding = i > 2049 && !bitmap;
		u32 want = padding ? ~0U : bitmap ? i / 2049 : i - i / 2049;

		if (bat_next(t, padding ? ~0ULL : 0) || t->is_bitmap != bitmap ||
		    t->number != want)
			wrong++;
	}
	KUNIT_EXPECT_EQ(test, wrong, 0U);
	KUNIT_EXPECT_EQ(test, t->walk.index, 4098U);
	KUNIT_EXPECT_EQ(test, bat_taken(t), 4U);
}

/* The last block may end with the file, if that is not before the disk's end. */
static void bat_last_block(struct kunit *test)
{
	struct bat_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	int rc;

	KUNIT_ASSERT_TRUE(test, !!t);
	bat_start(test, t, true);
	bat_skip_to(test, t, 2049);
	KUNIT_EXPECT_EQ(test, bat_next(t, 0xff00006), 0);
	KUNIT_EXPECT_EQ(test, t->number, 2048U);
	KUNIT_EXPECT_EQ(test, bat_taken(t), 5U);

	bat_start(test, t, true);
	bat_skip_to(test, t, 2049);
	rc = bat_next(t, 0x10000006);
	expect_fault(test, __func__, 0, rc, -EINVAL, &t->fault, BAT_OFFSET + 8 * 2049);
}

/* ---- log entries -------------------------------------------------------- */

static void fill(u8 *p, size_t n, u32 x)
{
	while (n--) {
		x = x * 1664525 + 1013904223;
		*p++ = x >> 24;
	}
}

static void log_seal(u8 *entry, u32 length)
{
	struct vhdx_log_entry_header *h = (void *)entry;

	h->checksum = 0;
	vhdx_log_entry_seal(h, vhdx_crc32c_step(~0U, entry, length));
}

/* One zero descriptor, two data descriptors; 12 KiB, in a buffer of 16. */
static u8 *log_build(struct kunit *test)
{
	struct vhdx_log_entry_info info = {
		.entry_length = vhdx_log_entry_bytes(3, 2),
		.tail = 0x3000,
		.sequence_number = LOG_SEQUENCE,
		.descriptor_count = 3,
		.log_guid = { { 1 } },
		.flushed_file_offset = 5 * VHDX_MIB,
		.last_file_offset = 7 * VHDX_MIB,
	};
	u8 *entry = kunit_kzalloc(test, 4 * VHDX_LOG_SECTOR, GFP_KERNEL);
	struct vhdx_log_zero_descriptor *zero;
	struct vhdx_log_data_descriptor *desc;
	unsigned int i;

	KUNIT_ASSERT_TRUE(test, !!entry);
	KUNIT_ASSERT_EQ(test, info.entry_length, 3 * VHDX_LOG_SECTOR);
	vhdx_log_entry_build((void *)entry, &info);
	zero = (void *)entry + sizeof(struct vhdx_log_entry_header);
	zero->signature = cpu_to_le32(VHDX_LOG_ZERO_SIGNATURE);
	zero->zero_length = cpu_to_le64(VHDX_MIB);
	zero->file_offset = cpu_to_le64(9 * VHDX_MIB);
	zero->sequence_number = cpu_to_le64(LOG_SEQUENCE);
	desc = (void *)(zero + 1);
	for (i = 0; i < 2; i++) {
		u8 *page = entry + (1 + i) * VHDX_LOG_SECTOR;

		fill(page, VHDX_PAGE_SIZE, i);
		vhdx_log_data_pack(page, &desc[i], BAT_OFFSET + i * VHDX_PAGE_SIZE,
				   LOG_SEQUENCE);
	}
	log_seal(entry, info.entry_length);
	return entry;
}

static void log_pack(struct kunit *test)
{
	u8 *page = kunit_kzalloc(test, VHDX_PAGE_SIZE, GFP_KERNEL);
	u8 *want = kunit_kzalloc(test, VHDX_PAGE_SIZE, GFP_KERNEL);
	struct vhdx_log_data_sector *sector = (void *)page;
	struct vhdx_log_data_descriptor desc;

	KUNIT_ASSERT_TRUE(test, page && want);
	fill(page, VHDX_PAGE_SIZE, 1);
	memcpy(want, page, VHDX_PAGE_SIZE);
	vhdx_log_data_pack(page, &desc, BAT_OFFSET, LOG_SEQUENCE);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(desc.signature), VHDX_LOG_DESC_SIGNATURE);
	KUNIT_EXPECT_EQ(test, memcmp(desc.leading_bytes, want, 8), 0);
	KUNIT_EXPECT_EQ(test, memcmp(desc.trailing_bytes, want + 4092, 4), 0);
	KUNIT_EXPECT_EQ(test, le64_to_cpu(desc.file_offset), BAT_OFFSET);
	KUNIT_EXPECT_EQ(test, le64_to_cpu(desc.sequence_number), LOG_SEQUENCE);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(sector->signature), VHDX_LOG_DATA_SIGNATURE);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(sector->sequence_high), 0xfedcba98U);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(sector->sequence_low), 0x76543210U);
	KUNIT_EXPECT_EQ(test, memcmp(page + 8, want + 8, 4084), 0);
	vhdx_log_data_unpack(page, &desc);
	KUNIT_EXPECT_EQ(test, memcmp(page, want, VHDX_PAGE_SIZE), 0);
}

static void log_round_trip(struct kunit *test)
{
	struct vhdx_log_data_descriptor *desc;
	struct vhdx_log_entry_info info;
	u8 *entry = log_build(test);
	u8 *want = kunit_kzalloc(test, VHDX_PAGE_SIZE, GFP_KERNEL);
	unsigned int i;

	KUNIT_ASSERT_TRUE(test, !!want);
	KUNIT_ASSERT_EQ(test, vhdx_log_entry_parse((void *)entry, VHDX_MIB, &info), 0);
	KUNIT_EXPECT_EQ(test, info.entry_length, 3 * VHDX_LOG_SECTOR);
	KUNIT_EXPECT_EQ(test, info.tail, 0x3000U);
	KUNIT_EXPECT_EQ(test, info.sequence_number, LOG_SEQUENCE);
	KUNIT_EXPECT_EQ(test, info.descriptor_count, 3U);
	KUNIT_EXPECT_EQ(test, info.flushed_file_offset, 5 * VHDX_MIB);
	KUNIT_EXPECT_EQ(test, info.last_file_offset, 7 * VHDX_MIB);
	KUNIT_ASSERT_EQ(test, vhdx_log_entry_check(entry, &info), 0);
	desc = (void *)entry + sizeof(struct vhdx_log_entry_header) + sizeof(*desc);
	for (i = 0; i < 2; i++) {
		u8 *page = entry + (1 + i) * VHDX_LOG_SECTOR;

		vhdx_log_data_unpack(page, &desc[i]);
		fill(want, VHDX_PAGE_SIZE, i);
		KUNIT_EXPECT_EQ(test, memcmp(page, want, VHDX_PAGE_SIZE), 0);
	}
}

/* A field of the entry, the checksum right again: who refuses it? */
static void log_rules(struct kunit *test)
{
	static const struct {
		u32 at;
		u32 value;
		int parse;
		int check;
	} rows[] = {
		{ 0, VHDX_LOG_DATA_SIGNATURE, -EBADMSG, 0 },
		{ 8, 0, -EBADMSG, 0 },
		{ 8, 0x2e00, -EBADMSG, 0 },
		{ 8, 0x101000, -EBADMSG, 0 },
		{ 8, 0x2000, 0, -EBADMSG },			/* one data sector short */
		{ 8, 0x4000, 0, 0 },
		{ 12, 0x200, -EBADMSG, 0 },
		{ 12, 0x100000, -EBADMSG, 0 },
		{ 24, 0xffffffff, -EBADMSG, 0 },
		{ 24, 126 + 2 * 128 + 1, -EBADMSG, 0 },
		{ 24, 4, 0, -EBADMSG },				/* a descriptor of zeros */
		{ 64, 0, 0, -EBADMSG },
		{ 64, VHDX_LOG_DESC_SIGNATURE, 0, -EBADMSG },
		{ 64 + 8, 512, 0, -EBADMSG },
		{ 64 + 16, 512, 0, -EBADMSG },
		{ 64 + 24, 1, 0, -EBADMSG },
		{ 96 + 16, 1, 0, -EBADMSG },
		{ 96 + 28, 0, 0, -EBADMSG },
		{ 128, 0, 0, -EBADMSG },
		{ 0x1000, 0, 0, -EBADMSG },
		{ 0x1004, 0, 0, -EBADMSG },
		{ 0x1ffc, 0, 0, -EBADMSG },
		{ 0x2ffc, 0, 0, -EBADMSG },
	};
	struct vhdx_log_entry_info info;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		u8 *entry = log_build(test);
		__le32 value = cpu_to_le32(rows[i].value);
		u32 length = 3 * VHDX_LOG_SECTOR;
		int rc;

		memcpy(entry + rows[i].at, &value, sizeof(value));
		if (rows[i].at == 8 && !rows[i].parse)
			length = rows[i].value;
		log_seal(entry, length);
		rc = vhdx_log_entry_parse((void *)entry, VHDX_MIB, &info);
		KUNIT_EXPECT_EQ_MSG(test, rc, rows[i].parse, "row %u", i);
		if (!rc)
			KUNIT_EXPECT_EQ_MSG(test, vhdx_log_entry_check(entry, &info),
					    rows[i].check, "row %u", i);
		kunit_kfree(test, entry);
	}
}

static void log_damage(struct kunit *test)
{
	struct vhdx_log_entry_info info;
	u8 *entry = log_build(test);
	u32 i, accepted = 0;

	for (i = 0; i < 3 * VHDX_LOG_SECTOR; i += i < 160 ? 1 : 97) {
		entry[i] ^= 1 << i % 8;
		if (!vhdx_log_entry_parse((void *)entry, VHDX_MIB, &info) &&
		    info.entry_length <= 4 * VHDX_LOG_SECTOR &&
		    !vhdx_log_entry_check(entry, &info))
			accepted++;
		entry[i] ^= 1 << i % 8;
	}
	KUNIT_EXPECT_EQ(test, accepted, 0U);
	KUNIT_EXPECT_EQ(test, vhdx_log_entry_parse((void *)entry, VHDX_MIB, &info), 0);
	KUNIT_EXPECT_EQ(test, vhdx_log_entry_check(entry, &info), 0);
}

static struct kunit_case vhdx_format_cases[] = {
	KUNIT_CASE(crc_check_value),
	KUNIT_CASE(crc_of_windows_structures),
	KUNIT_CASE(header_choice),
	KUNIT_CASE(header_equal_but_different),
	KUNIT_CASE(header_fields),
	KUNIT_CASE(region_table),
	KUNIT_CASE(metadata_round_trip),
	KUNIT_CASE(metadata_faults),
	KUNIT_CASE(geometry_table),
	KUNIT_CASE(geometry_indexes),
	KUNIT_CASE(geometry_faults),
	KUNIT_CASE(claims),
	KUNIT_CASE(bat_states),
	KUNIT_CASE(bat_doubled),
	KUNIT_CASE(bat_partial_wants_bitmap),
	KUNIT_CASE(bat_numbers),
	KUNIT_CASE(bat_last_block),
	KUNIT_CASE(log_pack),
	KUNIT_CASE(log_round_trip),
	KUNIT_CASE(log_rules),
	KUNIT_CASE(log_damage),
	{ }
};

static struct kunit_suite vhdx_format_suite = {
	.name = "dm_vhdclone",
	.test_cases = vhdx_format_cases,
};

kunit_test_suite(vhdx_format_suite);

MODULE_DESCRIPTION("KUnit tests of the VHDX format code");
MODULE_LICENSE("GPL");
