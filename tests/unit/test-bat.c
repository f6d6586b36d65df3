// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Claims of file space, and walks over block allocation tables.
 */
#include "unit.h"

#define FILE_MIB	4096U
#define BAT_AT		(3 * VHDX_MIB)
#define AT(index)	(BAT_AT + 8ULL * (index))

static unsigned long map[FILE_MIB / (8 * sizeof(long))];
static struct vhdx_claims claims = { .map = map };
static struct vhdx_geometry geo;
static struct vhdx_bat_walk walk;
static bool is_bitmap;
static u32 number;

static bool taken(u64 mib)
{
	return map[mib / BITS_PER_LONG] >> (mib % BITS_PER_LONG) & 1;
}

static u64 nr_taken(void)
{
	u64 i, n = 0;

	for (i = 0; i < FILE_MIB; i++)
		n += taken(i);
	return n;
}

/* A file of @nr_mib with header section, log, metadata and BAT in its first 4 MiB. */
static void start(u64 size, u32 block, u32 sector, bool parent, u64 nr_mib)
{
	assert_ok(vhdx_geometry_init(&geo, size, block, sector, parent, &unit_fault));
	memset(map, 0, sizeof(map));
	claims.nr_mib = nr_mib;
	assert_int_equal(vhdx_claim(&claims, 0, 4), 0);
	memset(&walk, 0, sizeof(walk));
	walk.geo = &geo;
	walk.claims = &claims;
	walk.bat_offset = BAT_AT;
}

/* A child: 2 MiB blocks, two chunks, the second has one block; its bitmap is at 4097. */
static void start_child(void)
{
	start(4 * VHDX_GIB + 512, 2 * VHDX_MIB, 512, true, FILE_MIB);
}

static int next(u64 entry)
{
	is_bitmap = !is_bitmap;
	number = 0xdead;
	return vhdx_bat_walk_entry(&walk, entry, &is_bitmap, &number, &unit_fault);
}

static u64 entry(unsigned int state, u64 mib)
{
	return mib * VHDX_MIB + state;
}

static void skip_to(u32 index)
{
	while (walk.index < index) {
		assert_true(walk.index < geo.nr_entries);
		assert_ok(next(0));
	}
}

/* ---- claims ---- */

/* Against a map of bytes. */
static void test_claim(void **state)
{
	static const u32 sizes[] = { 0, 1, 2, 31, 63, 64, 65, 100, 128, 256, 1000 };
	static u8 model[1024];
	unsigned int round, i;
	u64 seed = 5;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		claims.nr_mib = sizes[i];
		memset(map, 0, sizeof(map));
		memset(model, 0, sizeof(model));
		for (round = 0; round < 400; round++) {
			u64 mib, n, k, want = 0;
			u16 r[2];

			unit_random(r, sizeof(r), ++seed * 0x9e3779b97f4a7c15ULL);
			mib = r[0] % (sizes[i] + 3);
			n = round & 1 ? r[1] % 4 : r[1] % 200;
			if (mib + n > sizes[i])
				want = -ERANGE;
			for (k = mib; !want && k < mib + n; k++)
				if (model[k])
					want = -EEXIST;
			assert_int_equal(vhdx_claim(&claims, mib, n), (int)want);
			if (!want)
				memset(model + mib, 1, n);
			for (k = 0; k < sizeof(model); k++)
				assert_int_equal(taken(k), model[k]);
		}
	}
}

static void test_claim_overflow(void **state)
{
	(void)state;
	start_child();
	assert_int_equal(vhdx_claim(&claims, ~0ULL, 1), -ERANGE);
	assert_int_equal(vhdx_claim(&claims, ~0ULL, 2), -ERANGE);
	assert_int_equal(vhdx_claim(&claims, 5, ~0ULL), -ERANGE);
	assert_int_equal(vhdx_claim(&claims, 5, -4ULL), -ERANGE);
	assert_int_equal(vhdx_claim(&claims, FILE_MIB, 1), -ERANGE);
	assert_int_equal(vhdx_claim(&claims, FILE_MIB - 1, 2), -ERANGE);
	assert_int_equal(vhdx_claim(&claims, FILE_MIB - 1, 1), 0);
	assert_int_equal(nr_taken(), 5);
}

static void test_claim_regions(void **state)
{
	static u8 table[VHDX_REGION_TABLE_SIZE];
	struct vhdx_header_info info;
	struct vhdx_region bat = { .offset = 3 * VHDX_MIB, .length = 70 * VHDX_MIB };
	struct vhdx_region metadata = { .offset = 80 * VHDX_MIB, .length = VHDX_MIB };
	u64 at = VHDX_REGION_TABLE1_OFFSET + 16 + 32 + 16;

	(void)state;
	unit_header_info(&info, 1);
	info.log_length = 2 * VHDX_MIB;
	vhdx_region_table_build(table, &bat, &metadata);

	memset(map, 0, sizeof(map));
	claims.nr_mib = 81;
	assert_ok(vhdx_claim_regions(&claims, &info, table, VHDX_REGION_TABLE1_OFFSET,
				     &unit_fault));
	assert_int_equal(nr_taken(), 1 + 2 + 70 + 1);
	assert_true(taken(0) && taken(1) && taken(2) && taken(3) && taken(72) && taken(80));

	memset(map, 0, sizeof(map));
	claims.nr_mib = 80;
	assert_fault(vhdx_claim_regions(&claims, &info, table, VHDX_REGION_TABLE1_OFFSET,
					&unit_fault), -EINVAL,
		     "region table: region lies behind the end of the file", at);

	memset(map, 0, sizeof(map));
	claims.nr_mib = 2;
	assert_fault(vhdx_claim_regions(&claims, &info, table, VHDX_REGION_TABLE1_OFFSET,
					&unit_fault), -EINVAL,
		     "header: log lies behind the end of the file", 0x20000 + 72);
	info.slot = 0;
	memset(map, 0, sizeof(map));
	assert_fault(vhdx_claim_regions(&claims, &info, table, VHDX_REGION_TABLE1_OFFSET,
					&unit_fault), -EINVAL,
		     "header: log lies behind the end of the file", 0x10000 + 72);

	memset(map, 0, sizeof(map));
	claims.nr_mib = 0;
	assert_fault(vhdx_claim_regions(&claims, &info, table, VHDX_REGION_TABLE1_OFFSET,
					&unit_fault), -EINVAL,
		     "header section: file is shorter than 1 MiB", 0);

	claims.nr_mib = FILE_MIB;
	info.log_offset = 79 * VHDX_MIB;
	memset(map, 0, sizeof(map));
	assert_fault(vhdx_claim_regions(&claims, &info, table, VHDX_REGION_TABLE1_OFFSET,
					&unit_fault), -EINVAL,
		     "region table: region lies on the log", at);
	info.log_offset = 72 * VHDX_MIB;
	memset(map, 0, sizeof(map));
	assert_fault(vhdx_claim_regions(&claims, &info, table, VHDX_REGION_TABLE2_OFFSET,
					&unit_fault), -EINVAL,
		     "region table: region lies on the log",
		     VHDX_REGION_TABLE2_OFFSET + 16 + 16);

	/* Entries behind the last one are no regions. */
	memset(table + 16 + 64, 0xff, 32);
	info.log_offset = VHDX_MIB;
	memset(map, 0, sizeof(map));
	assert_ok(vhdx_claim_regions(&claims, &info, table, VHDX_REGION_TABLE1_OFFSET,
				     &unit_fault));
	/* Nor is anything behind the table, if it was not parsed. */
	memset(table + 16 + 64, 0, 32);
	unit_put32(table + 8, 0xffffffff);
	memset(map, 0, sizeof(map));
	assert_ok(vhdx_claim_regions(&claims, &info, table, VHDX_REGION_TABLE1_OFFSET,
				     &unit_fault));
	assert_int_equal(nr_taken(), 1 + 2 + 70 + 1);

	/* Only a header that was not parsed says this. */
	info.log_offset = 0;
	memset(map, 0, sizeof(map));
	assert_fault(vhdx_claim_regions(&claims, &info, table, VHDX_REGION_TABLE1_OFFSET,
					&unit_fault), -EINVAL,
		     "header: log lies on the header section", 0x10000 + 72);
}

/* ---- walks ---- */

/* What Windows wrote for fat-differential.vhdx. */
static void test_windows_child(void **state)
{
	u32 i;

	(void)state;
	start(4 * VHDX_MIB, 2 * VHDX_MIB, 512, true, 7);
	assert_ok(next(0x500007));
	assert_false(is_bitmap);
	assert_int_equal(number, 0);
	assert_ok(next(0));
	assert_false(is_bitmap);
	assert_int_equal(number, 1);
	for (i = 2; i < 2048; i++) {
		assert_ok(next(0));
		assert_false(is_bitmap);
		assert_int_equal(number, ~0U);
	}
	assert_ok(next(0x400006));
	assert_true(is_bitmap);
	assert_int_equal(number, 0);
	assert_int_equal(walk.nr_partial, 1);
	assert_int_equal(walk.nr_full, 0);
	assert_int_equal(walk.nr_bitmaps, 1);
	assert_int_equal(nr_taken(), 7);
	assert_int_equal(walk.index, 2049);
}

/* Numbers over the chunk boundary, with and without parent. */
static void test_numbering(void **state)
{
	unsigned int parent;
	u32 i, block;

	(void)state;
	for (parent = 0; parent < 2; parent++) {
		start(10 * VHDX_GIB, VHDX_MIB, 512, parent, 4);
		block = 0;
		for (i = 0; i < geo.nr_entries; i++) {
			assert_ok(next(0));
			if (i % 4097 == 4096) {
				assert_true(is_bitmap);
				assert_int_equal(number, i / 4097);
			} else {
				assert_false(is_bitmap);
				assert_int_equal(number, block < 10240 ? block : ~0U);
				block++;
			}
		}
		assert_int_equal(walk.index, parent ? 12291 : 10242);
		/* Whatever is behind: qemu left an entry there. */
		assert_ok(next(2));
		assert_false(is_bitmap);
		assert_int_equal(number, ~0U);
		assert_ok(next(~0ULL));
		assert_int_equal(walk.index, parent ? 12291 : 10242);
		assert_int_equal(nr_taken(), 4);
	}
}

static void test_payload_states(void **state)
{
	static const struct {
		unsigned int state;
		u64 mib;
		bool parent;
		u32 claimed;
		const char *what;
	} rows[] = {
		{ 0, 0, false, 0, NULL },
		{ 0, 0, true, 0, NULL },
		{ 1, 0, true, 0, NULL },
		{ 2, 0, false, 0, NULL },
		{ 3, 0, true, 0, NULL },
		/* A place is reserved there, and ignored: even one out of range or taken. */
		{ 0, 10, true, 0, NULL },
		{ 0, 1, false, 0, NULL },
		{ 2, 0xfffffffffff, true, 0, NULL },
		/* Soft anchors. */
		{ 1, 10, true, 2, NULL },
		{ 3, 10, false, 2, NULL },
		{ 1, 3, true, 0, "BAT entry: block lies on a region or another block" },
		{ 3, 0xfffffffffff, true, 0,
		  "BAT entry: block lies behind the end of the file" },
		{ 6, 10, true, 2, NULL },
		{ 6, 10, false, 2, NULL },
		{ 7, 10, true, 2, NULL },
		{ 7, 10, false, 0, "BAT entry: partial block in an image without parent" },
		{ 7, 0, false, 0, "BAT entry: partial block in an image without parent" },
		{ 4, 0, true, 0, "BAT entry: state is reserved" },
		{ 5, 0, true, 0, "BAT entry: state is reserved" },
		{ 4, 10, false, 0, "BAT entry: state is reserved" },
		{ 5, 10, false, 0, "BAT entry: state is reserved" },
		{ 6, 0, true, 0, "BAT entry: block lies on the header section" },
		{ 7, 0, true, 0, "BAT entry: block lies on the header section" },
		{ 6, 1, true, 0, "BAT entry: block lies on a region or another block" },
		{ 6, 2, true, 0, "BAT entry: block lies on a region or another block" },
		{ 6, 3, true, 0, "BAT entry: block lies on a region or another block" },
		{ 7, 3, true, 0, "BAT entry: block lies on a region or another block" },
		{ 6, 4, true, 2, NULL },
		{ 6, FILE_MIB - 2, true, 2, NULL },
		{ 6, FILE_MIB - 1, true, 0,
		  "BAT entry: block lies behind the end of the file" },
		{ 6, FILE_MIB, true, 0, "BAT entry: block lies behind the end of the file" },
		{ 7, FILE_MIB, true, 0, "BAT entry: block lies behind the end of the file" },
		{ 6, 0x20000000, true, 0, "BAT entry: block lies behind the end of the file" },
		{ 6, 0xfffffffffff, true, 0,
		  "BAT entry: block lies behind the end of the file" },
	};
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		u64 e = entry(rows[i].state, rows[i].mib);

		start(4 * VHDX_GIB + 512, 2 * VHDX_MIB, 512, rows[i].parent, FILE_MIB);
		skip_to(5);
		if (rows[i].what) {
			int rc = next(e);

			assert_int_equal(unit_fault.value, e);
			assert_fault(rc, -EINVAL, rows[i].what, AT(5));
		} else {
			assert_ok(next(e));
		}
		assert_false(is_bitmap);
		assert_int_equal(number, 5);
		assert_int_equal(nr_taken(), 4 + rows[i].claimed);
		assert_int_equal(walk.index, 6);
		assert_int_equal(walk.nr_full, rows[i].state == 6 && !rows[i].what);
		assert_int_equal(walk.nr_partial, rows[i].state == 7 && !rows[i].what);
		assert_int_equal(walk.nr_bitmaps, 0);
	}
}

static void test_reserved_bits(void **state)
{
	unsigned int bit, i;

	(void)state;
	for (bit = 3; bit < 20; bit++)
		for (i = 0; i < 8; i++) {
			start_child();
			assert_fault(next(entry(i, i > 5 ? 10 : 0) | 1ULL << bit), -EINVAL,
				     "BAT entry: reserved bits are set", AT(0));
			skip_to(2048);
			assert_fault(next(entry(i, 20) | 1ULL << bit), -EINVAL,
				     "BAT entry: reserved bits are set", AT(2048));
			assert_true(is_bitmap);
			assert_int_equal(nr_taken(), 4);
		}
}

static void test_bitmap_states(void **state)
{
	unsigned int i;

	(void)state;
	for (i = 0; i < 8; i++) {
		start_child();
		skip_to(2048);
		if (i == 0 || i == 6) {
			assert_ok(next(entry(i, 10)));
			assert_int_equal(nr_taken(), 4 + (i == 6));
		} else {
			assert_fault(next(entry(i, 10)), -EINVAL,
				     "BAT entry: bitmap state is reserved", AT(2048));
			assert_int_equal(nr_taken(), 4);
		}
		assert_true(is_bitmap);
		assert_int_equal(number, 0);
		assert_int_equal(walk.nr_bitmaps, i == 6);
		/* On to the next chunk. */
		assert_ok(next(0));
		assert_false(is_bitmap);
		assert_int_equal(number, 2048);

		/* Without parent there are none. */
		start(4 * VHDX_GIB + 512, 2 * VHDX_MIB, 512, false, FILE_MIB);
		skip_to(2048);
		if (i)
			assert_fault(next(i), -EINVAL,
				     "BAT entry: bitmap block in an image without parent",
				     AT(2048));
		else
			assert_fault(next(entry(0, 10)), -EINVAL,
				     "BAT entry: bitmap block in an image without parent",
				     AT(2048));
		assert_true(is_bitmap);
		assert_ok(next(entry(6, 10)));
		assert_int_equal(number, 2048);
	}

	start_child();
	skip_to(2048);
	assert_fault(next(entry(6, 0)), -EINVAL,
		     "BAT entry: block lies on the header section", AT(2048));
	start_child();
	skip_to(2048);
	assert_fault(next(entry(6, 3)), -EINVAL,
		     "BAT entry: block lies on a region or another block", AT(2048));
	start_child();
	skip_to(2048);
	assert_fault(next(entry(6, FILE_MIB)), -EINVAL,
		     "BAT entry: block lies behind the end of the file", AT(2048));
	start_child();
	skip_to(2048);
	/* One MiB, not a payload block's two. */
	assert_ok(next(entry(6, FILE_MIB - 1)));
	assert_int_equal(nr_taken(), 5);
}

/* PARTIALLY_PRESENT wants a bitmap in its own chunk. */
static void test_partial_wants_bitmap(void **state)
{
	(void)state;
	start_child();
	assert_ok(next(entry(7, 10)));
	assert_ok(next(entry(6, 12)));
	skip_to(2048);
	assert_fault(next(0), -EINVAL, "BAT entry: no bitmap block for a partial block",
		     AT(2048));
	/* The next chunk starts afresh. */
	assert_ok(next(0));
	skip_to(4097);
	assert_ok(next(0));
	assert_true(is_bitmap);
	assert_int_equal(number, 1);

	/* A block of the second chunk says nothing about the first. */
	start_child();
	skip_to(2048);
	assert_ok(next(entry(6, 9)));
	assert_ok(next(entry(7, 10)));
	skip_to(4097);
	assert_fault(next(0), -EINVAL, "BAT entry: no bitmap block for a partial block",
		     AT(4097));

	start_child();
	skip_to(2049);
	assert_ok(next(entry(7, 10)));
	skip_to(4097);
	assert_ok(next(entry(6, 12)));

	/* A partial block that is wrong itself wants one too. */
	start_child();
	assert_fault(next(entry(7, 0)), -EINVAL,
		     "BAT entry: block lies on the header section", AT(0));
	skip_to(2048);
	assert_fault(next(0), -EINVAL, "BAT entry: no bitmap block for a partial block",
		     AT(2048));

	/* Full blocks and soft anchors do not. */
	start_child();
	assert_ok(next(entry(6, 10)));
	assert_ok(next(entry(3, 12)));
	skip_to(2048);
	assert_ok(next(0));
}

static void test_doubled(void **state)
{
	static const unsigned int first[] = { 1, 3, 6, 7 };
	static const struct {
		int by;
		bool overlap;
	} rows[] = { { -2, false }, { -1, true }, { 0, true }, { 1, true }, { 2, false } };
	unsigned int f, s, i;

	(void)state;
	for (f = 0; f < ARRAY_SIZE(first); f++)
		for (s = 0; s < ARRAY_SIZE(first); s++)
			for (i = 0; i < ARRAY_SIZE(rows); i++) {
				u64 e = entry(first[s], 64 + rows[i].by);

				start_child();
				assert_ok(next(entry(first[f], 64)));
				skip_to(7);
				if (rows[i].overlap)
					assert_fault(next(e), -EINVAL,
						     "BAT entry: block lies on a region or another block",
						     AT(7));
				else
					assert_ok(next(e));
				assert_int_equal(nr_taken(), rows[i].overlap ? 6 : 8);
			}

	/* Bitmaps and blocks are one space. */
	start_child();
	assert_ok(next(entry(6, 64)));
	skip_to(2048);
	assert_fault(next(entry(6, 65)), -EINVAL,
		     "BAT entry: block lies on a region or another block", AT(2048));
	assert_ok(next(entry(6, 66)));
	skip_to(4097);
	assert_ok(next(entry(6, 68)));
	assert_int_equal(walk.nr_bitmaps, 1);
	assert_int_equal(walk.nr_full, 2);
}

/* Payload slots behind the last block hold anything. */
static void test_padding(void **state)
{
	u32 i;

	(void)state;
	start_child();
	skip_to(2050);
	for (i = 2050; i < 4097; i++) {
		assert_ok(next(i & 1 ? ~0ULL : entry(i & 7, 1)));
		assert_false(is_bitmap);
		assert_int_equal(number, ~0U);
	}
	assert_ok(next(0));
	assert_true(is_bitmap);
	assert_int_equal(nr_taken(), 4);
	assert_int_equal(walk.nr_full + walk.nr_partial + walk.nr_bitmaps, 0);
}

/* The last block may end with the file, if that is not before the disk's end. */
static void test_last_block(void **state)
{
	static const struct {
		u64 size;		/* of the disk; blocks of 8 MiB */
		u64 mib;
		u64 file;
		bool fits;
	} rows[] = {
		{ 16 * VHDX_MIB, 20, 28, true },
		{ 16 * VHDX_MIB, 20, 27, false },
		{ 16 * VHDX_MIB - 512, 20, 27, false },
		{ 15 * VHDX_MIB, 20, 27, true },
		{ 15 * VHDX_MIB, 20, 26, false },
		{ 14 * VHDX_MIB + 512, 20, 27, true },
		{ 14 * VHDX_MIB + 512, 20, 26, false },
		{ 8 * VHDX_MIB + 512, 20, 21, true },
		{ 8 * VHDX_MIB + 512, 20, 20, false },
		{ 8 * VHDX_MIB + 512, 20, 19, false },
		{ 8 * VHDX_MIB + 512, 20, 100, true },
	};
	static const unsigned int states[] = { 1, 3, 6, 7 };
	unsigned int i, s;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++)
		for (s = 0; s < ARRAY_SIZE(states); s++) {
			u64 there = rows[i].file - rows[i].mib;

			start(rows[i].size, 8 * VHDX_MIB, 512, true, rows[i].file);
			skip_to(1);
			if (!rows[i].fits) {
				assert_fault(next(entry(states[s], rows[i].mib)), -EINVAL,
					     "BAT entry: block lies behind the end of the file",
					     AT(1));
				assert_int_equal(nr_taken(), 4);
				continue;
			}
			assert_ok(next(entry(states[s], rows[i].mib)));
			/* All of it that is there is this block's. */
			assert_int_equal(nr_taken(), 4 + (there < 8 ? there : 8));
		}

	/* Only the last one. */
	start(8 * VHDX_MIB + 512, 8 * VHDX_MIB, 512, true, 21);
	assert_fault(next(entry(6, 20)), -EINVAL,
		     "BAT entry: block lies behind the end of the file", AT(0));
	/* What lies behind the disk's end still is part of the block. */
	start(8 * VHDX_MIB + 512, 8 * VHDX_MIB, 512, true, FILE_MIB);
	assert_ok(next(entry(6, 25)));
	assert_fault(next(entry(6, 20)), -EINVAL,
		     "BAT entry: block lies on a region or another block", AT(1));
}

/* The end of the biggest disk: no table of 513 MiB is wanted for that. */
static void test_biggest(void **state)
{
	unsigned long *big;
	u32 last;

	(void)state;
	start(64 * VHDX_TIB, VHDX_MIB, 512, true, FILE_MIB);
	last = vhdx_bat_payload_index(&geo, geo.nr_blocks - 1);
	walk.index = last;
	walk.chunk = geo.nr_chunks - 1;
	assert_fault(next(entry(6, 0)), -EINVAL,
		     "BAT entry: block lies on the header section", AT(67125246));
	assert_false(is_bitmap);
	assert_int_equal(number, 67108863);
	walk.index = last;
	assert_ok(next(entry(7, 100)));
	assert_int_equal(number, 67108863);
	assert_fault(next(0), -EINVAL, "BAT entry: no bitmap block for a partial block",
		     AT(67125247));
	assert_true(is_bitmap);
	assert_int_equal(number, 16383);
	assert_int_equal(walk.index, geo.nr_entries);

	start(64 * VHDX_TIB, VHDX_MIB, 512, false, FILE_MIB);
	walk.index = last;
	walk.chunk = geo.nr_chunks - 1;
	assert_ok(next(entry(6, 100)));
	assert_int_equal(number, 67108863);
	assert_int_equal(walk.index, geo.nr_entries);

	/* A device so large that the kernel's map could not name the place. */
	start(64 * VHDX_TIB, VHDX_MIB, 512, false, FILE_MIB);
	claims.nr_mib = 1ULL << 40;
	assert_fault(next(entry(6, VHDX_MAX_FILE_MIB)), -EOPNOTSUPP,
		     "BAT entry: block lies behind 512 TiB", AT(0));
	big = calloc(1, VHDX_MAX_FILE_MIB / 8);
	assert_non_null(big);
	claims.map = big;
	assert_ok(next(entry(6, VHDX_MAX_FILE_MIB - 1)));
	assert_int_equal(big[VHDX_MAX_FILE_MIB / BITS_PER_LONG - 1], 1UL << (BITS_PER_LONG - 1));
	claims.map = map;
	free(big);
	start(64 * VHDX_TIB, 256 * VHDX_MIB, 512, false, FILE_MIB);
	claims.nr_mib = 1ULL << 40;
	assert_fault(next(entry(6, VHDX_MAX_FILE_MIB - 255)), -EOPNOTSUPP,
		     "BAT entry: block lies behind 512 TiB", AT(0));
}

static u32 some(u32 below)
{
	static u32 x = 7;

	x = x * 1664525 + 1013904223;
	return (x >> 8) % below;
}

/* Runs of zeros are walked as entries of zero are, whatever stands around them. */
static void test_absent(void **state)
{
	static const struct {
		u64 size;
		u32 block;
		bool parent;
	} rows[] = {
		{ 4 * VHDX_GIB + 512, 2 * VHDX_MIB, true },
		{ 4 * VHDX_GIB + 512, 2 * VHDX_MIB, false },
		{ 8 * VHDX_GIB, 2 * VHDX_MIB, true },
		{ 20 * VHDX_GIB, 256 * VHDX_MIB, true },
		{ 5 * VHDX_MIB, VHDX_MIB, false },
	};
	unsigned int i, round;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		for (round = 0; round < 40; round++) {
			static __le64 bat[8192];
			struct vhdx_bat_walk slow;
			u32 n = 0, at = 0, k;

			start(rows[i].size, rows[i].block, 512, rows[i].parent, FILE_MIB);
			assert_true(geo.nr_entries + 8 <= ARRAY_SIZE(bat));
			memset(bat, 0, sizeof(bat));
			for (k = 0; k < round; k++)
				bat[some(geo.nr_entries)] =
					cpu_to_le64(1ULL << some(64));
			/* Behind the last one it is all the same. */
			memset(&bat[geo.nr_entries], round % 2 ? 0xff : 0, 64);
			slow = walk;
			while (at < geo.nr_entries + 8) {
				u32 most = 1 + some(600);

				if (most > geo.nr_entries + 8 - at)
					most = geo.nr_entries + 8 - at;
				n = vhdx_bat_walk_absent(&walk, &bat[at], most);
				assert_true(n <= most);
				for (k = 0; k < n; k++) {
					assert_int_equal(bat[at + k], 0);
					assert_ok(vhdx_bat_walk_entry(&slow, 0, &is_bitmap,
								      &number, &unit_fault));
					assert_false(is_bitmap);
					assert_int_not_equal(number, ~0U);
				}
				at += n;
				assert_int_equal(walk.index, slow.index);
				assert_int_equal(walk.chunk, slow.chunk);
				if (n == most)
					continue;
				/* It stops nowhere else. */
				vhdx_bat_walk_entry(&slow, le64_to_cpu(bat[at]), &is_bitmap,
						    &number, &unit_fault);
				assert_true(bat[at] || is_bitmap || number == ~0U);
				walk = slow;
				at++;
			}
		}
	}
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_claim),
		cmocka_unit_test(test_claim_overflow),
		cmocka_unit_test(test_claim_regions),
		cmocka_unit_test(test_windows_child),
		cmocka_unit_test(test_numbering),
		cmocka_unit_test(test_payload_states),
		cmocka_unit_test(test_reserved_bits),
		cmocka_unit_test(test_bitmap_states),
		cmocka_unit_test(test_partial_wants_bitmap),
		cmocka_unit_test(test_doubled),
		cmocka_unit_test(test_padding),
		cmocka_unit_test(test_last_block),
		cmocka_unit_test(test_biggest),
		cmocka_unit_test(test_absent),
	};

	return cmocka_run_group_tests_name("bat", tests, NULL, NULL);
}
