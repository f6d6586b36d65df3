// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Metadata table and items.
 */
#include "unit.h"

#define SIZE		(2 * VHDX_METADATA_TABLE_SIZE)
#define AT		(unit_metadata_region.offset)
#define ENTRY_AT(i)	(AT + 32 + 32ULL * (i))
#define ITEM_AT(offset)	(AT + VHDX_METADATA_TABLE_SIZE + (offset))

/* The order that vhdx_metadata_build() writes entries in. */
enum { PARAMS, DISK_SIZE, LOGICAL, PHYSICAL, DISK_ID, LOCATOR };

static u8 buf[SIZE];
static const u8 locator[44] = { 0xb7, 0xef, 0x4a, 0xb0 };
static struct vhdx_item_place items[VHDX_ITEM_COUNT];

static const struct vhdx_metadata child = {
	.block_size = 2 * VHDX_MIB,
	.has_parent = true,
	.virtual_size = 4 * VHDX_MIB,
	.logical_sector_size = 512,
	.physical_sector_size = 4096,
	.virtual_disk_id = { { 0x79, 0x99, 0x2e, 0xcc, 0xe7, 0x9e, 0x7c, 0x41,
			       0xa2, 0xcd, 0x4a, 0x3f, 0xa1, 0x87, 0x95, 0xfb } },
};

static void build(void)
{
	assert_int_equal(vhdx_metadata_build(buf, SIZE, &child, locator, sizeof(locator)), 0);
}

static u8 *entry(unsigned int i)
{
	return buf + 32 + 32 * i;
}

static u8 *item(u32 offset)
{
	return buf + VHDX_METADATA_TABLE_SIZE + offset;
}

static void add(u32 id, u32 offset, u32 length, u32 flags)
{
	unsigned int i = unit_get32(buf + 8) >> 16;

	memset(entry(i), 0x55, 16);
	unit_put32(entry(i), id);
	unit_put32(entry(i) + 16, offset);
	unit_put32(entry(i) + 20, length);
	unit_put32(entry(i) + 24, flags);
	unit_put16(buf + 10, i + 1);
}

static int parse(void)
{
	return vhdx_metadata_table_parse(buf, &unit_metadata_region, items, &unit_fault);
}

static int decode(struct vhdx_metadata *meta)
{
	u8 values[VHDX_ITEM_PARENT_LOCATOR][VHDX_ITEM_VALUE_MAX];
	unsigned int i;

	memset(values, 0xee, sizeof(values));
	assert_ok(parse());
	for (i = 0; i < VHDX_ITEM_PARENT_LOCATOR; i++)
		memcpy(values[i], buf + items[i].offset, items[i].length);
	return vhdx_metadata_decode((const u8 (*)[VHDX_ITEM_VALUE_MAX])values,
				    &unit_metadata_region, items, meta, &unit_fault);
}

static void test_build(void **state)
{
	static const struct {
		const struct vhdx_guid *id;
		u32 offset;
		u32 length;
		u32 flags;
	} want[] = {
		{ &vhdx_guid_file_parameters, 0x10000, 8, 4 },
		{ &vhdx_guid_virtual_disk_size, 0x10008, 8, 6 },
		{ &vhdx_guid_logical_sector_size, 0x10010, 4, 6 },
		{ &vhdx_guid_physical_sector_size, 0x10014, 4, 6 },
		{ &vhdx_guid_virtual_disk_id, 0x10018, 16, 6 },
		{ &vhdx_guid_parent_locator, 0x10028, sizeof(locator), 4 },
	};
	unsigned int i;

	(void)state;
	memset(buf, 0xa5, sizeof(buf));
	build();
	assert_memory_equal(buf, "metadata\0\0\6\0", 12);
	for (i = 12; i < 32; i++)
		assert_int_equal(buf[i], 0);
	for (i = 0; i < ARRAY_SIZE(want); i++) {
		assert_memory_equal(entry(i), want[i].id, 16);
		assert_int_equal(unit_get32(entry(i) + 16), want[i].offset);
		assert_int_equal(unit_get32(entry(i) + 20), want[i].length);
		assert_int_equal(unit_get32(entry(i) + 24), want[i].flags);
		assert_int_equal(unit_get32(entry(i) + 28), 0);
	}
	for (i = 32 + 32 * 6; i < 0x10000; i++)
		assert_int_equal(buf[i], 0);
	assert_int_equal(unit_get32(item(0)), 2 * VHDX_MIB);
	assert_int_equal(unit_get32(item(4)), 2);
	assert_int_equal(unit_get64(item(8)), 4 * VHDX_MIB);
	assert_int_equal(unit_get32(item(0x10)), 512);
	assert_int_equal(unit_get32(item(0x14)), 4096);
	assert_memory_equal(item(0x18), &child.virtual_disk_id, 16);
	assert_memory_equal(item(0x28), locator, sizeof(locator));
	for (i = 0x10028 + sizeof(locator); i < sizeof(buf); i++)
		assert_int_equal(buf[i], 0);
}

static void test_build_sizes(void **state)
{
	struct vhdx_metadata fixed = child;
	static u8 big[VHDX_MIB + 1];
	static u8 room[VHDX_METADATA_TABLE_SIZE + 0x28 + VHDX_MIB + 1];

	(void)state;
	fixed.has_parent = false;
	assert_int_equal(vhdx_metadata_build(buf, 0x10000 + 63, &fixed, NULL, 0), -EINVAL);
	assert_int_equal(vhdx_metadata_build(buf, 0, &fixed, NULL, 0), -EINVAL);
	assert_int_equal(vhdx_metadata_build(buf, 0x10000 + 64, &fixed, NULL, 0), 0);
	/* Just fits, and does not. */
	assert_int_equal(vhdx_metadata_build(buf, 0x10000 + 0x28 + 44, &child, locator, 44), 0);
	assert_int_equal(vhdx_metadata_build(buf, 0x10000 + 0x28 + 43, &child, locator, 44),
			 -EINVAL);
	assert_int_equal(vhdx_metadata_build(buf, sizeof(buf), &child, locator, ~0U), -EINVAL);
	assert_int_equal(vhdx_metadata_build(room, sizeof(room), &child, big, VHDX_MIB), 0);
	assert_int_equal(vhdx_metadata_build(room, sizeof(room), &child, big, VHDX_MIB + 1),
			 -EINVAL);
	/* A parent without locator, and the other way round. */
	assert_int_equal(vhdx_metadata_build(buf, sizeof(buf), &child, NULL, 0), -EINVAL);
	assert_int_equal(vhdx_metadata_build(buf, sizeof(buf), &fixed, locator, 44), -EINVAL);
}

static void test_round_trip(void **state)
{
	static const u64 sizes[] = { 512, 4096, VHDX_GIB + 512, VHDX_MAX_VIRTUAL_SIZE };
	unsigned int i, block, bits;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		for (block = 20; block <= 28; block++)
			for (bits = 0; bits < 16; bits++) {
				struct vhdx_metadata meta, want = child;
				u32 item_length;

				want.virtual_size = sizes[i];
				want.block_size = 1U << block;
				want.has_parent = bits & 1;
				want.leave_allocated = (bits & 2) && !want.has_parent;
				want.logical_sector_size = bits & 4 && !(sizes[i] % 4096) ?
					4096 : 512;
				want.physical_sector_size = bits & 8 ? 4096 : 512;
				item_length = want.has_parent ? sizeof(locator) : 0;
				assert_int_equal(vhdx_metadata_build(buf, SIZE, &want,
								     item_length ? locator : NULL,
								     item_length), 0);
				assert_ok(decode(&meta));
				assert_int_equal(meta.virtual_size, want.virtual_size);
				assert_int_equal(meta.block_size, want.block_size);
				assert_int_equal(meta.has_parent, want.has_parent);
				assert_int_equal(meta.leave_allocated, want.leave_allocated);
				assert_int_equal(meta.logical_sector_size,
						 want.logical_sector_size);
				assert_int_equal(meta.physical_sector_size,
						 want.physical_sector_size);
				assert_true(vhdx_guid_equal(&meta.virtual_disk_id,
							    &want.virtual_disk_id));
				assert_int_equal(items[VHDX_ITEM_PARENT_LOCATOR].length,
						 item_length);
			}
}

static void test_places(void **state)
{
	static const struct vhdx_item_place want[VHDX_ITEM_COUNT] = {
		{ 0x10000, 8 }, { 0x10008, 8 }, { 0x10018, 16 },
		{ 0x10010, 4 }, { 0x10014, 4 }, { 0x10028, 44 },
	};
	unsigned int i;

	(void)state;
	build();
	memset(items, 0xff, sizeof(items));
	assert_ok(parse());
	assert_memory_equal(items, want, sizeof(want));

	/* Items may lie anywhere, entries in any order, and unknown ones between them. */
	unit_put32(entry(DISK_ID) + 16, VHDX_MIB - 16);
	add(1, 0x20000, VHDX_MIB - 0x20000 - 16, 0);
	add(2, 0, 0, 2);
	memcpy(entry(8), entry(PARAMS), 32);
	memcpy(entry(PARAMS), entry(6), 32);
	memcpy(entry(6), entry(8), 32);
	/* Reserved bits and fields are not looked at, nor is what follows. */
	unit_put32(entry(PARAMS) + 24, 0xfffffff8);
	unit_put32(entry(PARAMS) + 28, 0xffffffff);
	memset(entry(8), 0xff, 32);
	memset(buf + 8, 0xff, 2);
	memset(buf + 12, 0xff, 20);
	memset(items, 0xff, sizeof(items));
	assert_ok(parse());
	for (i = 0; i < VHDX_ITEM_COUNT; i++) {
		assert_int_equal(items[i].offset, i == VHDX_ITEM_VIRTUAL_DISK_ID ?
				 VHDX_MIB - 16 : want[i].offset);
		assert_int_equal(items[i].length, want[i].length);
	}

	/* A user item may bear any name. */
	build();
	add(0, 0x10100, 1000, 1);
	memcpy(entry(6), entry(PARAMS), 16);
	assert_ok(parse());
	assert_memory_equal(items, want, sizeof(want));
}

static void test_table(void **state)
{
	unsigned int i;

	(void)state;
	build();
	for (i = 0; i < 8; i++) {
		buf[i] ^= 0x20;
		assert_fault(parse(), -EBADMSG, "metadata table: signature is wrong", AT);
		buf[i] ^= 0x20;
	}

	unit_put16(buf + 10, 2048);
	assert_fault(parse(), -EINVAL, "metadata table: too many entries", AT + 10);
	unit_put16(buf + 10, 0xffff);
	assert_fault(parse(), -EINVAL, "metadata table: too many entries", AT + 10);
}

static void test_missing(void **state)
{
	static const char *const what[] = {
		[PARAMS] = "metadata table: no file parameters item",
		[DISK_SIZE] = "metadata table: no virtual disk size item",
		[LOGICAL] = "metadata table: no logical sector size item",
		[PHYSICAL] = "metadata table: no physical sector size item",
		[DISK_ID] = "metadata table: no virtual disk ID item",
	};
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(what); i++) {
		build();
		unit_put32(entry(i), 0);
		unit_put32(entry(i) + 24, 0);
		assert_fault(parse(), -EINVAL, what[i], AT);
		/* A user item of that name is another. */
		build();
		unit_put32(entry(i) + 24, 1);
		assert_fault(parse(), -EINVAL, what[i], AT);
	}
	unit_put16(buf + 10, 0);
	assert_fault(parse(), -EINVAL, what[PARAMS], AT);
}

static void test_unknown(void **state)
{
	(void)state;
	build();
	add(1, 0x10100, 8, 4);
	assert_fault(parse(), -EOPNOTSUPP, "metadata table: a required item is unknown",
		     ENTRY_AT(6));
	unit_put32(entry(6) + 24, 6);
	assert_fault(parse(), -EOPNOTSUPP, "metadata table: a required item is unknown",
		     ENTRY_AT(6));
	unit_put32(entry(6) + 24, 5);
	assert_fault(parse(), -EOPNOTSUPP, "metadata table: a required item is unknown",
		     ENTRY_AT(6));
	unit_put32(entry(6) + 24, 3);
	assert_ok(parse());
	/* A user item is unknown under any name. */
	build();
	unit_put32(entry(DISK_ID) + 24, 7);
	assert_fault(parse(), -EOPNOTSUPP, "metadata table: a required item is unknown",
		     ENTRY_AT(DISK_ID));
}

static void test_entries(void **state)
{
	static const struct {
		u32 offset;
		u32 length;
		u32 at;			/* of the field at fault */
		const char *what;	/* NULL: fine */
	} rows[] = {
		{ 0, 0, 0, NULL },
		{ 0x10100, 1, 0, NULL },
		{ 0x10107, 7, 0, NULL },
		{ 0xfffff, 1, 0, NULL },
		{ 0x100000, 0, 16, "metadata entry: empty item has an offset" },
		{ 0x1, 0, 16, "metadata entry: empty item has an offset" },
		{ 0, 8, 16, "metadata entry: item lies on the table" },
		{ 0xffff, 8, 16, "metadata entry: item lies on the table" },
		{ 0xfffff, 2, 16, "metadata entry: item is out of the region" },
		{ 0x100000, 1, 16, "metadata entry: item is out of the region" },
		{ 0x10100, 0xfff00, 16, "metadata entry: item is out of the region" },
		{ 0xffffffff, 1, 16, "metadata entry: item is out of the region" },
		{ 0xfffffff0, 0x10, 16, "metadata entry: item is out of the region" },
		{ 0x10100, 0x100001, 20, "metadata entry: item is longer than 1 MiB" },
		{ 0x10100, 0xffffffff, 20, "metadata entry: item is longer than 1 MiB" },
		{ 0xfff00, 0xfffff000, 20, "metadata entry: item is longer than 1 MiB" },
	};
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		build();
		add(1, rows[i].offset, rows[i].length, 0);
		if (rows[i].what)
			assert_fault(parse(), -EINVAL, rows[i].what,
				     ENTRY_AT(6) + rows[i].at);
		else
			assert_ok(parse());
	}

	/* 1 MiB itself is fine, where there is room. */
	{
		struct vhdx_region wide = unit_metadata_region;

		wide.length = 4 * VHDX_MIB;
		build();
		add(1, 2 * VHDX_MIB, VHDX_MIB, 0);
		assert_ok(vhdx_metadata_table_parse(buf, &wide, items, &unit_fault));
	}
}

static void test_lengths(void **state)
{
	static const u32 exact[] = { 8, 8, 4, 4, 16 };
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(exact); i++) {
		build();
		/* Away from the others, so that the length is all that is wrong. */
		unit_put32(entry(i) + 16, 0x18000);
		assert_ok(parse());
		unit_put32(entry(i) + 20, exact[i] + 1);
		assert_fault(parse(), -EINVAL, "metadata entry: length is wrong for the item",
			     ENTRY_AT(i) + 20);
		unit_put32(entry(i) + 20, exact[i] - 1);
		assert_fault(parse(), -EINVAL, "metadata entry: length is wrong for the item",
			     ENTRY_AT(i) + 20);
		unit_put64(entry(i) + 16, 0);
		assert_fault(parse(), -EINVAL, "metadata entry: length is wrong for the item",
			     ENTRY_AT(i) + 20);
	}
	build();
	unit_put32(entry(LOCATOR) + 20, 20);
	assert_ok(parse());
	unit_put32(entry(LOCATOR) + 20, 19);
	assert_fault(parse(), -EINVAL, "metadata entry: length is wrong for the item",
		     ENTRY_AT(LOCATOR) + 20);
}

static void test_doubles(void **state)
{
	unsigned int i;

	(void)state;
	for (i = 0; i < 6; i++) {
		build();
		memcpy(entry(6), entry(i), 32);
		unit_put32(entry(6) + 16, 0x18000);
		unit_put16(buf + 10, 7);
		assert_fault(parse(), -EINVAL, "metadata table: one item twice", ENTRY_AT(6));
	}
	/* Unknown ones, too; but a user item and a system item are two. */
	build();
	add(1, 0x10100, 8, 1);
	add(1, 0x10200, 8, 1);
	assert_fault(parse(), -EINVAL, "metadata table: one item twice", ENTRY_AT(7));
	unit_put32(entry(7) + 24, 0);
	assert_ok(parse());
	unit_put32(entry(6) + 24, 2);
	assert_fault(parse(), -EINVAL, "metadata table: one item twice", ENTRY_AT(7));
}

static void test_overlap(void **state)
{
	static const struct {
		u32 offset;
		u32 length;
		bool overlap;
	} rows[] = {
		{ 0x18000, 0x100, false },
		{ 0x18200, 0x100, false },
		{ 0x18100, 0x100, true },
		{ 0x18100, 1, true },
		{ 0x181ff, 1, true },
		{ 0x18180, 8, true },
		{ 0x180ff, 2, true },
		{ 0x181ff, 2, true },
		{ 0x18000, 0x1000, true },
	};
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		build();
		add(1, 0x18100, 0x100, 0);
		add(2, 0, 0, 0);
		add(3, 0, 0, 1);
		add(4, rows[i].offset, rows[i].length, 0);
		if (rows[i].overlap)
			assert_fault(parse(), -EINVAL, "metadata table: items overlap",
				     ENTRY_AT(9) + 16);
		else
			assert_ok(parse());
	}
}

static void test_count(void **state)
{
	unsigned int i;

	(void)state;
	build();
	for (i = 6; i < 2047; i++)
		add(i, 0x11000 + i, 1, i < 6 + 1024);
	assert_ok(parse());
	/* One user entry too many. */
	unit_put32(entry(2046) + 24, 1);
	assert_fault(parse(), -EINVAL, "metadata table: too many user entries",
		     ENTRY_AT(2046));
	unit_put32(entry(2046) + 24, 0);
	unit_put32(entry(2046) + 16, 0x11006);
	assert_fault(parse(), -EINVAL, "metadata table: items overlap", ENTRY_AT(2046) + 16);
}

static void test_values(void **state)
{
	static const struct {
		u32 at;			/* from the first item */
		u32 size;
		u64 value;
		u32 fault_at;
		const char *what;
	} rows[] = {
		{ 0, 4, 0, 0, "block size: not in 1 MiB to 256 MiB" },
		{ 0, 4, 0x80000, 0, "block size: not in 1 MiB to 256 MiB" },
		{ 0, 4, 0xfffff, 0, "block size: not in 1 MiB to 256 MiB" },
		{ 0, 4, 0x10000001, 0, "block size: not in 1 MiB to 256 MiB" },
		{ 0, 4, 0x20000000, 0, "block size: not in 1 MiB to 256 MiB" },
		{ 0, 4, 0x300000, 0, "block size: not a power of two" },
		{ 0, 4, 0x200001, 0, "block size: not a power of two" },
		{ 8, 8, 0, 8, "virtual disk size: 0" },
		{ 8, 8, 513, 8,
		  "virtual disk size: not a multiple of the logical sector size" },
		{ 8, 8, 256, 8,
		  "virtual disk size: not a multiple of the logical sector size" },
		{ 8, 8, 0x400000000200, 8, "virtual disk size: more than 64 TiB" },
		{ 8, 8, 0xfffffffffffffe00, 8, "virtual disk size: more than 64 TiB" },
		{ 0x10, 4, 0, 0x10, "logical sector size: not 512 or 4096" },
		{ 0x10, 4, 1024, 0x10, "logical sector size: not 512 or 4096" },
		{ 0x10, 4, 8192, 0x10, "logical sector size: not 512 or 4096" },
		{ 0x10, 4, 0x10200, 0x10, "logical sector size: not 512 or 4096" },
		{ 0x14, 4, 0, 0x14, "physical sector size: not 512 or 4096" },
		{ 0x14, 4, 2048, 0x14, "physical sector size: not 512 or 4096" },
		{ 0x14, 4, 0x1001000, 0x14, "physical sector size: not 512 or 4096" },
	};
	struct vhdx_metadata meta;
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		build();
		if (rows[i].size == 4)
			unit_put32(item(rows[i].at), rows[i].value);
		else
			unit_put64(item(rows[i].at), rows[i].value);
		assert_int_equal(decode(&meta), -EINVAL);
		assert_int_equal(unit_fault.value, rows[i].value);
		assert_fault(decode(&meta), -EINVAL, rows[i].what,
			     ITEM_AT(rows[i].fault_at));
	}

	build();
	unit_put32(item(0x10), 4096);
	unit_put64(item(8), VHDX_MIB + 512);
	assert_fault(decode(&meta), -EINVAL,
		     "virtual disk size: not a multiple of the logical sector size",
		     ITEM_AT(8));

	/* The item's own place, not the usual one. */
	build();
	unit_put32(entry(LOGICAL) + 16, 0x18000);
	assert_fault(decode(&meta), -EINVAL, "logical sector size: not 512 or 4096",
		     AT + 0x18000);
}

static void test_flags(void **state)
{
	struct vhdx_metadata meta;

	(void)state;
	build();
	unit_put32(item(4), 0);
	assert_fault(decode(&meta), -EINVAL, "metadata: has a parent locator but no parent",
		     ITEM_AT(0x28));
	unit_put32(item(4), 1);
	assert_fault(decode(&meta), -EINVAL, "metadata: has a parent locator but no parent",
		     ITEM_AT(0x28));
	/* With a parent LeaveBlocksAllocated says nothing; reserved bits never do. */
	unit_put32(item(4), 3);
	assert_ok(decode(&meta));
	assert_true(meta.has_parent);
	assert_false(meta.leave_allocated);
	unit_put32(item(4), 0xfffffffe);
	assert_ok(decode(&meta));
	assert_true(meta.has_parent);

	unit_put16(buf + 10, 5);
	assert_fault(decode(&meta), -EINVAL, "metadata: has a parent but no parent locator",
		     ITEM_AT(4));
	unit_put32(item(4), 0xfffffffd);
	assert_ok(decode(&meta));
	assert_false(meta.has_parent);
	assert_true(meta.leave_allocated);
	unit_put32(item(4), 0xfffffffc);
	assert_ok(decode(&meta));
	assert_false(meta.leave_allocated);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_build),
		cmocka_unit_test(test_build_sizes),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_places),
		cmocka_unit_test(test_table),
		cmocka_unit_test(test_missing),
		cmocka_unit_test(test_unknown),
		cmocka_unit_test(test_entries),
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_doubles),
		cmocka_unit_test(test_overlap),
		cmocka_unit_test(test_count),
		cmocka_unit_test(test_values),
		cmocka_unit_test(test_flags),
	};

	return cmocka_run_group_tests_name("metadata", tests, NULL, NULL);
}
