// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * File identifier and headers.
 */
#include "unit.h"

static struct vhdx_header h[2];

static void build(u64 seq1, u64 seq2)
{
	struct vhdx_header_info info;

	unit_header_info(&info, 0);
	info.sequence_number = seq1;
	vhdx_header_build(&h[0], &info);
	info.sequence_number = seq2;
	vhdx_header_build(&h[1], &info);
}

static int parse(struct vhdx_header_info *info)
{
	return vhdx_header_parse(&h[0], &h[1], info, &unit_fault);
}

static void test_identifier(void **state)
{
	u8 id[8];
	unsigned int i;

	(void)state;
	memcpy(id, "vhdxfile", 8);
	assert_ok(vhdx_identifier_check(id, &unit_fault));
	for (i = 0; i < 8; i++) {
		id[i] ^= 0x20;
		assert_fault(vhdx_identifier_check(id, &unit_fault), -EINVAL,
			     "file identifier: signature is wrong", 0);
		id[i] ^= 0x20;
	}
}

/* The checksums are Windows' own. */
static void test_build(void **state)
{
	struct vhdx_header_info info;
	const u8 *b = (const u8 *)&h[0];
	unsigned int i;

	(void)state;
	memset(h, 0xa5, sizeof(h));
	unit_header_info(&info, 0);
	vhdx_header_build(&h[0], &info);
	assert_int_equal(unit_get32(b), 0x64616568);
	assert_int_equal(unit_get32(b + 4), 0x7dc1425d);
	assert_int_equal(unit_get64(b + 8), 10);
	assert_memory_equal(b + 16, &info.file_write_guid, 16);
	assert_memory_equal(b + 32, &info.data_write_guid, 16);
	assert_memory_equal(b + 48, &vhdx_guid_zero, 16);
	assert_int_equal(unit_get32(b + 64), 1 << 16);
	assert_int_equal(unit_get32(b + 68), VHDX_MIB);
	assert_int_equal(unit_get64(b + 72), VHDX_MIB);
	for (i = 80; i < VHDX_HEADER_SIZE; i++)
		assert_int_equal(b[i], 0);

	unit_header_info(&info, 1);
	vhdx_header_build(&h[1], &info);
	assert_int_equal(unit_get32((u8 *)&h[1] + 4), 0xff39de2a);
}

static void test_round_trip(void **state)
{
	struct vhdx_header_info want, info;

	(void)state;
	unit_random(&want, sizeof(want), 3);
	want.sequence_number = 0xfedcba9876543210ULL;
	want.log_offset = 77 * VHDX_MIB;
	want.log_length = 3 * VHDX_MIB;
	build(1, 2);
	vhdx_header_build(&h[0], &want);
	assert_ok(parse(&info));
	assert_int_equal(info.slot, 0);
	assert_true(info.other_valid);
	assert_true(info.log_dirty);
	assert_int_equal(info.sequence_number, want.sequence_number);
	assert_memory_equal(&info.file_write_guid, &want.file_write_guid, 16);
	assert_memory_equal(&info.data_write_guid, &want.data_write_guid, 16);
	assert_memory_equal(&info.log_guid, &want.log_guid, 16);
	assert_int_equal(info.log_offset, want.log_offset);
	assert_int_equal(info.log_length, want.log_length);

	/* Any bit of it makes a GUID. */
	want.log_guid = vhdx_guid_zero;
	vhdx_header_build(&h[0], &want);
	assert_ok(parse(&info));
	assert_false(info.log_dirty);
	want.log_guid.b[15] = 0x80;
	vhdx_header_build(&h[0], &want);
	assert_ok(parse(&info));
	assert_true(info.log_dirty);
}

static void test_choice(void **state)
{
	static const struct {
		u64 seq1;
		u64 seq2;
		bool valid1;
		bool valid2;
		int slot;		/* -1: none */
	} rows[] = {
		{ 10, 11, true, true, 1 },
		{ 11, 10, true, true, 0 },
		{ 0, 1, true, true, 1 },
		{ 1, 0, true, true, 0 },
		/* Not signed, not modulo. */
		{ ~0ULL, 1, true, true, 0 },
		{ 1, ~0ULL, true, true, 1 },
		{ 0x7fffffffffffffffULL, 0x8000000000000000ULL, true, true, 1 },
		{ 0x100000000ULL, 0xffffffffULL, true, true, 0 },
		/* One torn. */
		{ 10, 11, true, false, 0 },
		{ 11, 10, true, false, 0 },
		{ 10, 11, false, true, 1 },
		{ 11, 10, false, true, 1 },
		{ 10, 10, false, true, 1 },
		{ 10, 10, true, false, 0 },
		/* None left. */
		{ 10, 11, false, false, -1 },
		{ 10, 10, false, false, -1 },
		/* disk2vhd writes one header twice. */
		{ 1, 1, true, true, 0 },
	};
	struct vhdx_header_info info;
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		build(rows[i].seq1, rows[i].seq2);
		if (!rows[i].valid1)
			h[0].reserved[4000] ^= 4;
		if (!rows[i].valid2)
			h[1].reserved[0] ^= 1;
		if (rows[i].slot < 0) {
			assert_fault(parse(&info), -EBADMSG,
				     "headers: no copy has a right signature and checksum",
				     0x10000);
			continue;
		}
		assert_ok(parse(&info));
		assert_int_equal(info.slot, rows[i].slot);
		assert_int_equal(info.other_valid, rows[i].valid1 && rows[i].valid2);
		assert_int_equal(info.sequence_number,
				 rows[i].slot ? rows[i].seq2 : rows[i].seq1);
	}
}

static void test_equal_but_different(void **state)
{
	struct vhdx_header_info info;

	(void)state;
	build(7, 7);
	h[1].data_write_guid.b[15] ^= 1;
	unit_seal(&h[1], sizeof(h[1]));
	assert_fault(parse(&info), -EINVAL,
		     "headers: copies differ but have one sequence number", 0x10008);
	build(7, 7);
	h[0].reserved[4015] = 1;
	unit_seal(&h[0], sizeof(h[0]));
	assert_fault(parse(&info), -EINVAL,
		     "headers: copies differ but have one sequence number", 0x10008);
}

/* No byte of a header is without protection. */
static void test_every_byte(void **state)
{
	struct vhdx_header_info info;
	unsigned int i;

	(void)state;
	build(10, 11);
	for (i = 0; i < VHDX_HEADER_SIZE; i++) {
		((u8 *)&h[1])[i] ^= 0x10;
		assert_ok(parse(&info));
		assert_int_equal(info.slot, 0);
		assert_false(info.other_valid);
		((u8 *)&h[1])[i] ^= 0x10;
	}
	/* The signature is looked at, too: a right checksum is not enough. */
	for (i = 0; i < 4; i++) {
		((u8 *)&h[1])[i] ^= 0x10;
		unit_seal(&h[1], sizeof(h[1]));
		assert_ok(parse(&info));
		assert_int_equal(info.slot, 0);
		((u8 *)&h[1])[i] ^= 0x10;
	}
}

static void test_fields(void **state)
{
	static const struct {
		u32 at;
		u32 size;
		u64 value;
		bool dirty;
		int err;
		const char *what;
	} rows[] = {
		{ 66, 2, 0, false, -EOPNOTSUPP, "header: version is unknown" },
		{ 66, 2, 2, false, -EOPNOTSUPP, "header: version is unknown" },
		{ 66, 2, 0x101, true, -EOPNOTSUPP, "header: version is unknown" },
		{ 64, 2, 1, true, -EOPNOTSUPP, "header: log version is unknown" },
		{ 64, 2, 0x8000, true, -EOPNOTSUPP, "header: log version is unknown" },
		{ 64, 2, 1, false, 0, NULL },
		{ 68, 4, 0, false, -EINVAL,
		  "header: log length is not a multiple of 1 MiB" },
		{ 68, 4, 0x80000, false, -EINVAL,
		  "header: log length is not a multiple of 1 MiB" },
		{ 68, 4, 0x101000, false, -EINVAL,
		  "header: log length is not a multiple of 1 MiB" },
		{ 68, 4, 0x100001, true, -EINVAL,
		  "header: log length is not a multiple of 1 MiB" },
		{ 68, 4, 0x40000000, false, 0, NULL },
		{ 68, 4, 0x40100000, false, -EOPNOTSUPP, "header: log is longer than 1 GiB" },
		{ 68, 4, 0xfff00000, true, -EOPNOTSUPP, "header: log is longer than 1 GiB" },
		{ 72, 8, 0, false, -EINVAL, "header: log offset is not a multiple of 1 MiB" },
		{ 72, 8, 0xff000, false, -EINVAL,
		  "header: log offset is not a multiple of 1 MiB" },
		{ 72, 8, 0x100001, true, -EINVAL,
		  "header: log offset is not a multiple of 1 MiB" },
		{ 72, 8, 0x180000, true, -EINVAL,
		  "header: log offset is not a multiple of 1 MiB" },
		/* 512 TiB less the log's own MiB. */
		{ 72, 8, 0x1fffffff00000ULL, false, 0, NULL },
		{ 72, 8, 0x2000000000000ULL, false, -EINVAL,
		  "header: log offset is out of range" },
		{ 72, 8, 0xfffffffffff00000ULL, false, -EINVAL,
		  "header: log offset is out of range" },
	};
	struct vhdx_header_info info;
	unsigned int i, slot;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++)
		for (slot = 0; slot < 2; slot++) {
			u8 *b = (u8 *)&h[slot];

			build(10 - slot, 9 + slot);
			if (rows[i].dirty)
				h[slot].log_guid.b[3] = 1;
			if (rows[i].size == 2)
				unit_put16(b + rows[i].at, rows[i].value);
			else if (rows[i].size == 4)
				unit_put32(b + rows[i].at, rows[i].value);
			else
				unit_put64(b + rows[i].at, rows[i].value);
			unit_seal(b, VHDX_HEADER_SIZE);
			if (rows[i].err) {
				assert_int_equal(parse(&info), rows[i].err);
				assert_int_equal(unit_fault.value, rows[i].value);
				assert_fault(parse(&info), rows[i].err, rows[i].what,
					     (slot ? 0x20000 : 0x10000) + rows[i].at);
			} else {
				assert_ok(parse(&info));
				assert_int_equal(info.slot, slot);
			}
		}
}

/* What the copy that is not current says does not count. */
static void test_other_is_ignored(void **state)
{
	struct vhdx_header_info info;

	(void)state;
	build(10, 11);
	h[0].version = cpu_to_le16(2);
	h[0].log_length = 0;
	h[0].log_guid.b[0] = 1;
	unit_seal(&h[0], sizeof(h[0]));
	assert_ok(parse(&info));
	assert_int_equal(info.slot, 1);
	assert_true(info.other_valid);
	assert_false(info.log_dirty);
	assert_int_equal(info.log_length, VHDX_MIB);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_identifier),
		cmocka_unit_test(test_build),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_choice),
		cmocka_unit_test(test_equal_but_different),
		cmocka_unit_test(test_every_byte),
		cmocka_unit_test(test_fields),
		cmocka_unit_test(test_other_is_ignored),
	};

	return cmocka_run_group_tests_name("header", tests, NULL, NULL);
}
