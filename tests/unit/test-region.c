// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Region tables.
 */
#include "unit.h"

#define AT		VHDX_REGION_TABLE2_OFFSET	/* so that no offset is right by chance */
#define ENTRY_AT(i)	(AT + 16 + 32ULL * (i))

static u8 table[VHDX_REGION_TABLE_SIZE];

static void build(void)
{
	vhdx_region_table_build(table, &unit_bat_region, &unit_metadata_region);
}

static u8 *entry(unsigned int i)
{
	return table + 16 + 32 * i;
}

/* A further entry, unknown and not required. */
static void add(unsigned int id, u64 offset, u32 length)
{
	unsigned int i = unit_get32(table + 8);

	memset(entry(i), 0x55, 16);
	unit_put32(entry(i), id);
	unit_put64(entry(i) + 16, offset);
	unit_put32(entry(i) + 24, length);
	unit_put32(entry(i) + 28, 0);
	unit_put32(table + 8, i + 1);
}

static int parse(struct vhdx_regions *regions)
{
	return vhdx_region_table_parse(table, AT, regions, &unit_fault);
}

static int seal_and_parse(void)
{
	struct vhdx_regions regions;

	unit_seal(table, sizeof(table));
	return parse(&regions);
}

/* The checksum is Windows' own. */
static void test_build(void **state)
{
	unsigned int i;

	(void)state;
	memset(table, 0xa5, sizeof(table));
	build();
	assert_int_equal(unit_get32(table), 0x69676572);
	assert_int_equal(unit_get32(table + 4), 0xc66b8cae);
	assert_int_equal(unit_get32(table + 8), 2);
	assert_int_equal(unit_get32(table + 12), 0);
	assert_memory_equal(entry(0), &vhdx_guid_bat_region, 16);
	assert_int_equal(unit_get64(entry(0) + 16), 3 * VHDX_MIB);
	assert_memory_equal(entry(1), &vhdx_guid_metadata_region, 16);
	assert_int_equal(unit_get64(entry(1) + 16), 2 * VHDX_MIB);
	for (i = 0; i < 2; i++) {
		assert_int_equal(unit_get32(entry(i) + 24), VHDX_MIB);
		assert_int_equal(unit_get32(entry(i) + 28), 1);
	}
	for (i = 16 + 64; i < sizeof(table); i++)
		assert_int_equal(table[i], 0);
}

static void test_round_trip(void **state)
{
	struct vhdx_region bat = { .offset = 0x123456700000ULL, .length = 0xfff00000 };
	struct vhdx_region metadata = { .offset = VHDX_MIB, .length = 128 * VHDX_MIB };
	struct vhdx_regions regions;
	struct vhdx_region region;

	(void)state;
	/* qemu does not call them required; the order is free. */
	vhdx_region_table_build(table, &bat, &metadata);
	assert_ok(parse(&regions));
	assert_int_equal(regions.count, 2);
	assert_int_equal(regions.bat.offset, bat.offset);
	assert_int_equal(regions.bat.length, bat.length);
	assert_false(regions.bat.required);
	assert_true(vhdx_guid_equal(&regions.bat.guid, &vhdx_guid_bat_region));
	assert_int_equal(regions.metadata.offset, metadata.offset);
	assert_int_equal(regions.metadata.length, metadata.length);
	assert_true(vhdx_guid_equal(&regions.metadata.guid, &vhdx_guid_metadata_region));

	build();
	memcpy(entry(2), entry(0), 32);
	memcpy(entry(0), entry(1), 32);
	memcpy(entry(1), entry(2), 32);
	/* Behind the last entry is anything. */
	memset(entry(2), 0xff, 32);
	/* Reserved fields are not looked at. */
	unit_put32(table + 12, 0xffffffff);
	unit_put32(entry(0) + 28, 0xffffffff);
	unit_seal(table, sizeof(table));
	assert_ok(parse(&regions));
	assert_int_equal(regions.bat.offset, unit_bat_region.offset);
	assert_int_equal(regions.metadata.offset, unit_metadata_region.offset);

	unit_put32(entry(1) + 28, 0xfffffffe);
	vhdx_region_get(table, 0, &region);
	assert_int_equal(region.offset, 2 * VHDX_MIB);
	assert_true(region.required);
	vhdx_region_get(table, 1, &region);
	assert_int_equal(region.offset, 3 * VHDX_MIB);
	assert_false(region.required);
	assert_true(vhdx_guid_equal(&region.guid, &vhdx_guid_bat_region));
}

static void test_damage(void **state)
{
	struct vhdx_regions regions;
	unsigned int i;

	(void)state;
	build();
	for (i = 0; i < sizeof(table); i += i < 128 ? 1 : 997) {
		table[i] ^= 0x40;
		if (i < 4)
			assert_fault(parse(&regions), -EBADMSG,
				     "region table: signature is wrong", AT);
		else
			assert_fault(parse(&regions), -EBADMSG,
				     "region table: checksum is wrong", AT + 4);
		table[i] ^= 0x40;
	}
	table[sizeof(table) - 1] ^= 1;
	assert_fault(parse(&regions), -EBADMSG, "region table: checksum is wrong", AT + 4);

	build();
	table[3] ^= 1;
	assert_fault(seal_and_parse(), -EBADMSG, "region table: signature is wrong", AT);
}

static void test_fields(void **state)
{
	static const struct {
		u32 at;			/* in the entry */
		u32 size;
		u64 value;
		int err;
		const char *what;
	} rows[] = {
		{ 16, 8, 0, -EINVAL, "region table entry: offset is not a multiple of 1 MiB" },
		{ 16, 8, 0xc0000, -EINVAL,
		  "region table entry: offset is not a multiple of 1 MiB" },
		{ 16, 8, 0x400200, -EINVAL,
		  "region table entry: offset is not a multiple of 1 MiB" },
		{ 16, 8, 0x500001, -EINVAL,
		  "region table entry: offset is not a multiple of 1 MiB" },
		{ 16, 8, 0x2000000000000ULL, -EINVAL,
		  "region table entry: offset is out of range" },
		{ 16, 8, 0xfffffffffff00000ULL, -EINVAL,
		  "region table entry: offset is out of range" },
		{ 16, 8, 0x1fffffff00000ULL, 0, NULL },
		{ 24, 4, 0, -EINVAL, "region table entry: length is not a multiple of 1 MiB" },
		{ 24, 4, 0x10000, -EINVAL,
		  "region table entry: length is not a multiple of 1 MiB" },
		{ 24, 4, 0x180000, -EINVAL,
		  "region table entry: length is not a multiple of 1 MiB" },
		{ 24, 4, 0x100001, -EINVAL,
		  "region table entry: length is not a multiple of 1 MiB" },
	};
	unsigned int i, k;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++)
		for (k = 0; k < 3; k++) {
			build();
			add(1, 9 * VHDX_MIB, VHDX_MIB);
			if (rows[i].size == 8)
				unit_put64(entry(k) + rows[i].at, rows[i].value);
			else
				unit_put32(entry(k) + rows[i].at, rows[i].value);
			if (!rows[i].err) {
				assert_ok(seal_and_parse());
				continue;
			}
			assert_int_equal(seal_and_parse(), rows[i].err);
			assert_int_equal(unit_fault.value, rows[i].value);
			assert_fault(seal_and_parse(), rows[i].err, rows[i].what,
				     ENTRY_AT(k) + rows[i].at);
		}
}

static void test_overlap(void **state)
{
	static const struct {
		u64 mib;
		u32 length;
		bool overlap;
	} rows[] = {
		{ 9, 1, false },
		{ 14, 1, false },	/* right behind */
		{ 8, 2, false },	/* right before */
		{ 1, 1, false },
		{ 10, 4, true },	/* the same */
		{ 10, 1, true },
		{ 13, 1, true },
		{ 11, 2, true },	/* inside */
		{ 9, 2, true },
		{ 13, 9, true },
		{ 9, 99, true },	/* around */
	};
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		build();
		add(1, 10 * VHDX_MIB, 4 * VHDX_MIB);
		add(2, 200 * VHDX_MIB, 4 * VHDX_MIB);
		add(3, rows[i].mib * VHDX_MIB, rows[i].length * VHDX_MIB);
		if (rows[i].overlap)
			assert_fault(seal_and_parse(), -EINVAL, "region table: regions overlap",
				     ENTRY_AT(4) + 16);
		else
			assert_ok(seal_and_parse());
	}
	/* Also of two that matter. */
	build();
	unit_put64(entry(1) + 16, 3 * VHDX_MIB);
	assert_fault(seal_and_parse(), -EINVAL, "region table: regions overlap",
		     ENTRY_AT(1) + 16);
}

static void test_set(void **state)
{
	(void)state;
	build();
	add(1, 9 * VHDX_MIB, VHDX_MIB);
	unit_put32(entry(2) + 28, 1);
	assert_fault(seal_and_parse(), -EOPNOTSUPP,
		     "region table: a required region is unknown", ENTRY_AT(2));

	build();
	memcpy(entry(2), entry(0), 32);
	unit_put64(entry(2) + 16, 9 * VHDX_MIB);
	unit_put32(table + 8, 3);
	assert_fault(seal_and_parse(), -EINVAL, "region table: one region twice", ENTRY_AT(2));

	build();
	memcpy(entry(2), entry(1), 32);
	unit_put64(entry(2) + 16, 9 * VHDX_MIB);
	unit_put32(table + 8, 3);
	assert_fault(seal_and_parse(), -EINVAL, "region table: one region twice", ENTRY_AT(2));

	build();
	entry(0)[15] ^= 1;
	unit_put32(entry(0) + 28, 0);
	assert_fault(seal_and_parse(), -EINVAL, "region table: no BAT region", AT);

	build();
	unit_put32(table + 8, 1);
	assert_fault(seal_and_parse(), -EINVAL, "region table: no metadata region", AT);

	build();
	unit_put32(table + 8, 0);
	assert_fault(seal_and_parse(), -EINVAL, "region table: no BAT region", AT);

	build();
	unit_put64(entry(1) + 16, 64 * VHDX_MIB);
	unit_put32(entry(1) + 24, 129 * VHDX_MIB);
	assert_fault(seal_and_parse(), -EOPNOTSUPP,
		     "region table: metadata region is longer than 128 MiB",
		     ENTRY_AT(1) + 24);
	unit_put32(entry(1) + 24, 128 * VHDX_MIB);
	assert_ok(seal_and_parse());
}

static void test_count(void **state)
{
	struct vhdx_regions regions;
	unsigned int i;

	(void)state;
	build();
	for (i = 2; i < VHDX_REGION_MAX_ENTRIES; i++)
		add(i, (i + 10) * VHDX_MIB, VHDX_MIB);
	unit_seal(table, sizeof(table));
	assert_ok(parse(&regions));
	assert_int_equal(regions.count, 2047);

	/* The last of them is looked at. */
	unit_put64(entry(2046) + 16, 3 * VHDX_MIB);
	assert_fault(seal_and_parse(), -EINVAL, "region table: regions overlap",
		     ENTRY_AT(2046) + 16);

	for (i = 2048; i; i = i < 0x10000 ? i * 2 : i << 8) {
		build();
		unit_put32(table + 8, i);
		assert_fault(seal_and_parse(), -EINVAL, "region table: too many entries",
			     AT + 8);
	}
	unit_put32(table + 8, 0xffffffff);
	assert_fault(seal_and_parse(), -EINVAL, "region table: too many entries", AT + 8);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_build),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_damage),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_overlap),
		cmocka_unit_test(test_set),
		cmocka_unit_test(test_count),
	};

	return cmocka_run_group_tests_name("region", tests, NULL, NULL);
}
