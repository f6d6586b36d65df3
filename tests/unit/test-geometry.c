// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Geometry: sizes, and where in the BAT and in the bitmaps things are.
 */
#include "unit.h"

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
} rows[] = {
	{ 4 * VHDX_MIB, 2 * VHDX_MIB, 512, 2048, 2, 1, 2, 2049, 1 },
	{ 4 * VHDX_GIB, 2 * VHDX_MIB, 512, 2048, 2048, 1, 2048, 2049, 1 },
	{ 4 * VHDX_GIB + 512, 2 * VHDX_MIB, 512, 2048, 2049, 2, 2050, 4098, 1 },
	{ 10 * VHDX_GIB, VHDX_MIB, 512, 4096, 10240, 3, 10242, 12291, 1 },
	{ 100 * VHDX_GIB, 2 * VHDX_MIB, 4096, 16384, 51200, 4, 51203, 65540, 1 },
	{ 2 * VHDX_TIB, 2 * VHDX_MIB, 512, 2048, 1048576, 512, 1049087, 1049088, 9 },
	{ 64 * VHDX_TIB, 2 * VHDX_MIB, 512, 2048, 33554432, 16384, 33570815, 33570816, 257 },
	{ 64 * VHDX_TIB, VHDX_MIB, 512, 4096, 67108864, 16384, 67125247, 67125248, 513 },
	/* The smallest disk, and the ends of the ratio. */
	{ 512, VHDX_MIB, 512, 4096, 1, 1, 1, 4097, 1 },
	{ 4096, 256 * VHDX_MIB, 4096, 128, 1, 1, 1, 129, 1 },
	{ 64 * VHDX_TIB, 256 * VHDX_MIB, 512, 16, 262144, 16384, 278527, 278528, 3 },
	{ 64 * VHDX_TIB, VHDX_MIB, 4096, 32768, 67108864, 2048, 67110911, 67110912, 513 },
	{ VHDX_GIB, 32 * VHDX_MIB, 512, 128, 32, 1, 32, 129, 1 },
};

static unsigned int log2_of(u64 x)
{
	unsigned int n = 0;

	while (x > 1) {
		x /= 2;
		n++;
	}
	return n;
}

static void test_table(void **state)
{
	unsigned int i, parent;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++)
		for (parent = 0; parent < 2; parent++) {
			struct vhdx_geometry geo;

			memset(&geo, 0xff, sizeof(geo));
			assert_ok(vhdx_geometry_init(&geo, rows[i].size, rows[i].block,
						     rows[i].sector, parent, &unit_fault));
			assert_int_equal(geo.virtual_size, rows[i].size);
			assert_int_equal(geo.block_size, rows[i].block);
			assert_int_equal(geo.sector_size, rows[i].sector);
			assert_int_equal(geo.block_shift, log2_of(rows[i].block));
			assert_int_equal(geo.sector_shift, log2_of(rows[i].sector));
			assert_int_equal(geo.ratio_shift, log2_of(rows[i].ratio));
			assert_int_equal(geo.has_parent, parent);
			assert_int_equal(geo.nr_blocks, rows[i].blocks);
			assert_int_equal(geo.nr_chunks, rows[i].chunks);
			assert_int_equal(geo.nr_entries, parent ? rows[i].differencing :
								  rows[i].dynamic);
			assert_int_equal(vhdx_bat_region_bytes(&geo),
					 rows[i].bat_mib * VHDX_MIB);
			assert_int_equal(vhdx_block_mib(&geo), rows[i].block / VHDX_MIB);
		}
}

/* The formulas of 2.5, with divisions, at every block that is interesting. */
static void test_indexes(void **state)
{
	unsigned int i, k;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		u32 ratio = rows[i].ratio;
		u32 last = rows[i].blocks - 1;
		u32 blocks[] = {
			0, 1, ratio - 1, ratio, ratio + 1, 2 * ratio - 1, 2 * ratio,
			last / 2, last - 1, last,
		};
		struct vhdx_geometry geo;

		assert_ok(vhdx_geometry_init(&geo, rows[i].size, rows[i].block,
					     rows[i].sector, true, &unit_fault));
		for (k = 0; k < ARRAY_SIZE(blocks); k++) {
			u32 b = blocks[k];
			u32 chunk = b / ratio;
			u32 index;

			if (b > last)
				continue;
			index = vhdx_bat_payload_index(&geo, b);
			assert_int_equal(index, b + b / ratio);
			assert_int_equal(vhdx_block_chunk(&geo, b), chunk);
			assert_int_equal(vhdx_bat_chunk(&geo, index), chunk);
			assert_false(vhdx_bat_is_bitmap(&geo, index, chunk));
			assert_true(index < geo.nr_entries);

			index = vhdx_bat_bitmap_index(&geo, chunk);
			assert_int_equal(index, chunk * (ratio + 1) + ratio);
			assert_int_equal(vhdx_bat_chunk(&geo, index), chunk);
			assert_true(vhdx_bat_is_bitmap(&geo, index, chunk));
			assert_int_equal(vhdx_bat_chunk(&geo, index + 1), chunk + 1);
			assert_true(index < geo.nr_entries);
		}
	}
}

static void test_numbers(void **state)
{
	struct vhdx_geometry geo;

	(void)state;
	assert_ok(vhdx_geometry_init(&geo, 64 * VHDX_TIB, VHDX_MIB, 512, true, &unit_fault));
	assert_int_equal(vhdx_bat_payload_index(&geo, 4095), 4095);
	assert_int_equal(vhdx_bat_bitmap_index(&geo, 0), 4096);
	assert_int_equal(vhdx_bat_payload_index(&geo, 4096), 4097);
	assert_int_equal(vhdx_bat_payload_index(&geo, 67108863), 67125246);
	assert_int_equal(vhdx_bat_bitmap_index(&geo, 16383), 67125247);
	assert_int_equal(vhdx_bat_chunk(&geo, 67125247), 16383);
	/* A Windows child of 2 MiB blocks has its first bitmap entry at 2048. */
	assert_ok(vhdx_geometry_init(&geo, 4 * VHDX_MIB, 2 * VHDX_MIB, 512, true,
				     &unit_fault));
	assert_int_equal(vhdx_bat_bitmap_index(&geo, 0), 2048);

	assert_int_equal(vhdx_bat_entry(VHDX_BLOCK_FULLY_PRESENT, 4), 0x400006);
	assert_int_equal(vhdx_bat_entry(VHDX_BLOCK_PARTIALLY_PRESENT, 5), 0x500007);
	assert_int_equal(vhdx_bat_entry(6, 0xfffffffffff), 0xfffffffffff00006ULL);
	assert_int_equal(vhdx_bat_state(0x500007), 7);
	assert_int_equal(vhdx_bat_mib(0x500007), 5);
	assert_int_equal(vhdx_bat_mib(0xfffffffffff00006ULL), 0xfffffffffffULL);

	/* Bitmap pages: 32768 sectors, 256 pages a chunk of 2^23 sectors. */
	assert_int_equal(vhdx_bitmap_page(32767), 0);
	assert_int_equal(vhdx_bitmap_bit(32767), 32767);
	assert_int_equal(vhdx_bitmap_page(32768), 1);
	assert_int_equal(vhdx_bitmap_bit(32768), 0);
	assert_int_equal(vhdx_bitmap_page(1ULL << 23), VHDX_BITMAP_PAGES_PER_CHUNK);
	assert_int_equal(vhdx_bitmap_page((1ULL << 37) - 1), (1U << 22) - 1);
	assert_int_equal(vhdx_bitmap_bit((1ULL << 37) - 1), 32767);
}

static void test_faults(void **state)
{
	static const struct {
		u64 size;
		u64 block;
		u32 sector;
		const char *what;
	} bad[] = {
		{ 0, VHDX_MIB, 512, "virtual disk size: 0" },
		{ 1, VHDX_MIB, 512,
		  "virtual disk size: not a multiple of the logical sector size" },
		{ VHDX_MIB + 512, VHDX_MIB, 4096,
		  "virtual disk size: not a multiple of the logical sector size" },
		{ 64 * VHDX_TIB + 512, VHDX_MIB, 512, "virtual disk size: more than 64 TiB" },
		{ ~0ULL, VHDX_MIB, 512, "virtual disk size: more than 64 TiB" },
		{ VHDX_MIB, 0, 512, "block size: not in 1 MiB to 256 MiB" },
		{ VHDX_MIB, VHDX_MIB / 2, 512, "block size: not in 1 MiB to 256 MiB" },
		{ VHDX_MIB, 512 * VHDX_MIB, 512, "block size: not in 1 MiB to 256 MiB" },
		{ VHDX_MIB, 3 * VHDX_MIB, 512, "block size: not a power of two" },
		{ VHDX_MIB, 256 * VHDX_MIB - 1, 512, "block size: not a power of two" },
		{ VHDX_MIB, VHDX_MIB, 0, "logical sector size: not 512 or 4096" },
		{ VHDX_MIB, VHDX_MIB, 1024, "logical sector size: not 512 or 4096" },
		{ VHDX_MIB, VHDX_MIB, 65536, "logical sector size: not 512 or 4096" },
	};
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		struct vhdx_geometry geo;

		assert_fault(vhdx_geometry_init(&geo, bad[i].size, bad[i].block, bad[i].sector,
						i & 1, &unit_fault),
			     -EINVAL, bad[i].what, 0);
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_indexes),
		cmocka_unit_test(test_numbers),
		cmocka_unit_test(test_faults),
	};

	return cmocka_run_group_tests_name("geometry", tests, NULL, NULL);
}
