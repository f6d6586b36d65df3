// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Log entries.
 */
#include "unit.h"

#define LOG_LENGTH	VHDX_MIB
#define SEQ		0xfedcba9876543210ULL

static u8 entry[LOG_LENGTH];
static u8 *const desc0 = entry + 64;
static struct vhdx_log_entry_info info;

static u8 *desc(unsigned int i)
{
	return desc0 + 32 * i;
}

/* The checksum as a writer makes it: sector by sector, sealed at the end. */
static void seal(void)
{
	u32 crc = ~0U;
	u32 at;

	unit_put32(entry + 4, 0);
	for (at = 0; at < info.entry_length; at += VHDX_LOG_SECTOR)
		crc = vhdx_crc32c_step(crc, entry + at, VHDX_LOG_SECTOR);
	vhdx_log_entry_seal((struct vhdx_log_entry_header *)entry, crc);
}

static void fill_page(u8 *page, unsigned int i)
{
	unit_random(page, VHDX_PAGE_SIZE, 0x1234567 + i);
}

/* An entry of @nr_zero zero descriptors, then @nr_data data descriptors, sealed. */
static void build(u32 nr_zero, u32 nr_data)
{
	u32 n = nr_zero + nr_data;
	u32 i;

	memset(entry, 0, sizeof(entry));
	info = (struct vhdx_log_entry_info) {
		.entry_length = vhdx_log_entry_bytes(n, nr_data),
		.tail = 0x3000,
		.sequence_number = SEQ,
		.descriptor_count = n,
		.flushed_file_offset = 5 * VHDX_MIB,
		.last_file_offset = 7 * VHDX_MIB,
	};
	unit_random(&info.log_guid, sizeof(info.log_guid), 9);
	assert_true(info.entry_length <= LOG_LENGTH);
	vhdx_log_entry_build((struct vhdx_log_entry_header *)entry, &info);
	for (i = 0; i < nr_zero; i++) {
		memcpy(desc(i), "zero", 4);
		unit_put64(desc(i) + 8, 0x10000);
		unit_put64(desc(i) + 16, (8 + i) * VHDX_MIB);
		unit_put64(desc(i) + 24, SEQ);
	}
	for (i = 0; i < nr_data; i++) {
		u8 *page = entry + vhdx_log_entry_bytes(n, 0) + i * VHDX_LOG_SECTOR;

		fill_page(page, i);
		vhdx_log_data_pack(page,
				   (struct vhdx_log_data_descriptor *)desc(nr_zero + i),
				   3 * VHDX_MIB + i * 4096, SEQ);
	}
	seal();
}

static int parse(void)
{
	memset(&info, 0xa5, sizeof(info));
	return vhdx_log_entry_parse((struct vhdx_log_entry_header *)entry, LOG_LENGTH, &info);
}

static int check(void)
{
	return vhdx_log_entry_check(entry, &info);
}

static void test_bytes(void **state)
{
	static const struct {
		u32 descriptors;
		u32 data;
		u64 bytes;
	} rows[] = {
		{ 0, 0, 0x1000 },
		{ 1, 0, 0x1000 },
		{ 1, 1, 0x2000 },
		{ 3, 3, 0x4000 },
		{ 16, 16, 0x11000 },
		{ 126, 126, 127 * 4096 },
		{ 126, 0, 0x1000 },
		{ 127, 127, 129 * 4096 },
		{ 127, 0, 0x2000 },
		{ 254, 254, 256 * 4096 },
		{ 255, 255, 258 * 4096 },
		{ ~0U, ~0U, (0x2000001ULL + 0xffffffff) * 4096 },
	};
	unsigned int i;

	(void)state;
	assert_int_equal(VHDX_LOG_FIRST_DESCRIPTORS, (4096 - 64) / 32);
	assert_int_equal(VHDX_LOG_DESCRIPTORS, 4096 / 32);
	for (i = 0; i < ARRAY_SIZE(rows); i++)
		assert_int_equal(vhdx_log_entry_bytes(rows[i].descriptors, rows[i].data),
				 rows[i].bytes);
}

static void test_build(void **state)
{
	unsigned int i;

	(void)state;
	build(0, 0);
	memset(entry, 0xa5, 128);
	vhdx_log_entry_build((struct vhdx_log_entry_header *)entry, &info);
	assert_memory_equal(entry, "loge\0\0\0\0", 8);
	assert_int_equal(unit_get32(entry + 8), 0x1000);
	assert_int_equal(unit_get32(entry + 12), 0x3000);
	assert_int_equal(unit_get64(entry + 16), SEQ);
	assert_int_equal(unit_get32(entry + 24), 0);
	assert_int_equal(unit_get32(entry + 28), 0);
	assert_memory_equal(entry + 32, &info.log_guid, 16);
	assert_int_equal(unit_get64(entry + 48), 5 * VHDX_MIB);
	assert_int_equal(unit_get64(entry + 56), 7 * VHDX_MIB);
	/* The descriptors that may be there already stay. */
	for (i = 64; i < 128; i++)
		assert_int_equal(entry[i], 0xa5);

	seal();
	assert_int_equal(unit_get32(entry + 4), vhdx_checksum(entry, 0x1000));
}

static void test_pack(void **state)
{
	static u8 page[VHDX_PAGE_SIZE], want[VHDX_PAGE_SIZE];
	struct vhdx_log_data_descriptor d;
	const u8 *b = (const u8 *)&d;
	unsigned int i;

	(void)state;
	for (i = 0; i < 20; i++) {
		fill_page(page, i);
		memcpy(want, page, sizeof(page));
		memset(&d, 0xa5, sizeof(d));
		vhdx_log_data_pack(page, &d, 0x123456789000ULL, SEQ);

		assert_memory_equal(b, "desc", 4);
		assert_memory_equal(b + 4, want + 4092, 4);
		assert_memory_equal(b + 8, want, 8);
		assert_int_equal(unit_get64(b + 16), 0x123456789000ULL);
		assert_int_equal(unit_get64(b + 24), SEQ);
		assert_memory_equal(page, "data", 4);
		assert_int_equal(unit_get32(page + 4), 0xfedcba98);
		assert_memory_equal(page + 8, want + 8, 4084);
		assert_int_equal(unit_get32(page + 4092), 0x76543210);

		vhdx_log_data_unpack(page, &d);
		assert_memory_equal(page, want, sizeof(page));
	}
}

/* Whole entries, also with descriptors in more than one sector. */
static void test_round_trip(void **state)
{
	static const u32 zeros[] = { 0, 1, 3, 126, 127, 254, 255 };
	static const u32 datas[] = { 0, 1, 3, 126, 127, 200 };
	static u8 want[VHDX_PAGE_SIZE];
	unsigned int z, d, i;

	(void)state;
	for (z = 0; z < ARRAY_SIZE(zeros); z++)
		for (d = 0; d < ARRAY_SIZE(datas); d++) {
			struct vhdx_log_entry_info made;
			u8 *page;

			build(zeros[z], datas[d]);
			made = info;
			assert_int_equal(parse(), 0);
			assert_int_equal(info.entry_length, made.entry_length);
			assert_int_equal(info.tail, made.tail);
			assert_int_equal(info.sequence_number, made.sequence_number);
			assert_int_equal(info.descriptor_count, zeros[z] + datas[d]);
			assert_memory_equal(&info.log_guid, &made.log_guid, 16);
			assert_int_equal(info.flushed_file_offset, made.flushed_file_offset);
			assert_int_equal(info.last_file_offset, made.last_file_offset);
			assert_int_equal(check(), 0);

			page = entry + info.entry_length - datas[d] * VHDX_LOG_SECTOR;
			for (i = 0; i < datas[d]; i++, page += VHDX_LOG_SECTOR) {
				fill_page(want, i);
				vhdx_log_data_unpack(page, (struct vhdx_log_data_descriptor *)
						     desc(zeros[z] + i));
				assert_memory_equal(page, want, sizeof(want));
			}
		}

	/* Kinds may alternate. */
	build(2, 2);
	memcpy(want, desc(1), 64);
	memcpy(desc(1), want + 32, 32);
	memcpy(desc(2), want, 32);
	seal();
	assert_int_equal(parse(), 0);
	assert_int_equal(check(), 0);

	/* More room than is needed is legal. */
	build(1, 2);
	info.entry_length += VHDX_LOG_SECTOR;
	unit_put32(entry + 8, info.entry_length);
	seal();
	assert_int_equal(parse(), 0);
	assert_int_equal(check(), 0);
}

static void test_parse(void **state)
{
	static const struct {
		u32 at;
		u32 size;
		u64 value;
		int rc;
	} rows[] = {
		{ 0, 4, 0, -EBADMSG },
		{ 0, 4, VHDX_LOG_DATA_SIGNATURE, -EBADMSG },
		{ 0, 4, VHDX_LOG_ENTRY_SIGNATURE ^ 0x80000000, -EBADMSG },
		{ 8, 4, 0, -EBADMSG },
		{ 8, 4, 0x200, -EBADMSG },
		{ 8, 4, 0x1001, -EBADMSG },
		{ 8, 4, 0x4800, -EBADMSG },
		{ 8, 4, LOG_LENGTH, 0 },
		{ 8, 4, LOG_LENGTH + 0x1000, -EBADMSG },
		{ 8, 4, 0xfffff000, -EBADMSG },
		{ 12, 4, 0, 0 },
		{ 12, 4, 1, -EBADMSG },
		{ 12, 4, 0x200, -EBADMSG },
		{ 12, 4, LOG_LENGTH - 0x1000, 0 },
		{ 12, 4, LOG_LENGTH, -EBADMSG },
		{ 12, 4, 0xfffff000, -EBADMSG },
		{ 16, 8, 0, -EBADMSG },
		{ 16, 8, 1, 0 },
		{ 16, 8, 1ULL << 63, 0 },
		{ 16, 8, 1ULL << 32, 0 },
		/* Of four sectors; how many of them are data the header does not say. */
		{ 24, 4, 126 + 3 * 128, 0 },
		{ 24, 4, 126 + 3 * 128 + 1, -EBADMSG },
		{ 24, 4, 0x08000000, -EBADMSG },
		{ 24, 4, 0xfffffffe, -EBADMSG },
		{ 24, 4, 0xffffffff, -EBADMSG },
		/* Checked by others, or by nobody. */
		{ 4, 4, 0xffffffff, 0 },
		{ 28, 4, 0xffffffff, 0 },
		{ 32, 8, 0, 0 },
		{ 48, 8, 0, 0 },
		{ 48, 8, 511, 0 },
		{ 56, 8, 0, 0 },
	};
	unsigned int i;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		build(0, 3);
		assert_int_equal(info.entry_length, 0x4000);
		if (rows[i].size == 4)
			unit_put32(entry + rows[i].at, rows[i].value);
		else
			unit_put64(entry + rows[i].at, rows[i].value);
		assert_int_equal(parse(), rows[i].rc);
	}
}

/* Under a right checksum, so that each rule stands alone. */
static void test_check_rules(void **state)
{
	static const struct {
		u32 desc;
		u32 at;
		u32 size;
		u64 value;
		int rc;
	} rows[] = {
		/* The first is a zero descriptor, the second and third are data. */
		{ 0, 0, 4, 0, -EBADMSG },
		{ 0, 0, 4, VHDX_LOG_DATA_SIGNATURE, -EBADMSG },
		{ 1, 0, 4, VHDX_LOG_ENTRY_SIGNATURE, -EBADMSG },
		{ 2, 0, 4, VHDX_LOG_DESC_SIGNATURE ^ 1, -EBADMSG },
		{ 0, 8, 8, 0, 0 },
		{ 0, 8, 8, 512, -EBADMSG },
		{ 0, 8, 8, 0x1001, -EBADMSG },
		{ 0, 16, 8, 0x800, -EBADMSG },
		{ 0, 16, 8, 0x1ffffffffff001, -EBADMSG },
		{ 1, 16, 8, 0x200, -EBADMSG },
		{ 2, 16, 8, 1, -EBADMSG },
		{ 1, 16, 8, 0, 0 },
		/* Sums that leave 64 bits. */
		{ 0, 8, 8, 0xfffffffffffff000ULL, -EBADMSG },
		{ 0, 16, 8, 0xfffffffffffff000ULL, -EBADMSG },
		{ 1, 16, 8, 0xfffffffffffff000ULL, -EBADMSG },
		{ 1, 16, 8, 0xffffffffffffe000ULL, 0 },
		{ 0, 24, 8, SEQ + 1, -EBADMSG },
		{ 1, 24, 8, SEQ - 1, -EBADMSG },
		{ 2, 24, 8, SEQ ^ 1ULL << 63, -EBADMSG },
		{ 2, 24, 8, 0, -EBADMSG },
		/* A page's own bytes, and a reserved field. */
		{ 1, 4, 4, 0, 0 },
		{ 1, 8, 8, 12345, 0 },
		{ 0, 4, 4, 0xffffffff, 0 },
	};
	unsigned int i;
	u8 *sector;

	(void)state;
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		build(1, 2);
		if (rows[i].size == 4)
			unit_put32(desc(rows[i].desc) + rows[i].at, rows[i].value);
		else
			unit_put64(desc(rows[i].desc) + rows[i].at, rows[i].value);
		seal();
		assert_int_equal(parse(), 0);
		assert_int_equal(check(), rows[i].rc);
	}

	/* A zero descriptor too many for a data one: then the sectors do not suffice. */
	build(1, 2);
	memcpy(desc(0), "desc", 4);
	seal();
	assert_int_equal(check(), -EBADMSG);
	/* Even if what lies behind the entry looks like another one. */
	memcpy(entry + 0x3000, entry + 0x2000, VHDX_LOG_SECTOR);
	assert_int_equal(check(), -EBADMSG);

	/* Data sectors: signature, both halves of the sequence number. */
	for (i = 0; i < 2; i++) {
		static const u32 ats[] = { 0, 3, 4, 7, 4092, 4095 };
		unsigned int k;

		for (k = 0; k < ARRAY_SIZE(ats); k++) {
			build(1, 2);
			sector = entry + 0x1000 * (1 + i);
			sector[ats[k]] ^= 0x80;
			seal();
			assert_int_equal(parse(), 0);
			assert_int_equal(check(), -EBADMSG);
		}
	}

	/* With more than one sector of descriptors the data starts behind them. */
	build(127, 1);
	assert_int_equal(check(), 0);
	memcpy(entry + 0x2000, "desc", 4);
	seal();
	assert_int_equal(check(), -EBADMSG);
	build(127, 1);
	memset(desc(126), 0, 4);
	seal();
	assert_int_equal(check(), -EBADMSG);
}

/* No byte of an entry is without protection. */
static void test_check_every_byte(void **state)
{
	u32 i, length;

	(void)state;
	build(1, 2);
	length = info.entry_length;
	assert_int_equal(length, 0x3000);
	for (i = 0; i < length; i += i >= 160 && i < 4090 ? 13 : i > 4200 && i < 12280 ? 61 : 1) {
		entry[i] ^= 1 << i % 8;
		/* What parse refuses need not be checked. */
		if (!parse())
			assert_int_equal(check(), -EBADMSG);
		entry[i] ^= 1 << i % 8;
	}
	assert_int_equal(parse(), 0);
	assert_int_equal(check(), 0);
}

/* The header that was parsed, and the one in the whole entry, may have come from two reads. */
static void test_check_other_header(void **state)
{
	struct vhdx_log_entry_info right;

	(void)state;
	build(1, 2);
	right = info;
	assert_int_equal(check(), 0);
	info.entry_length = 0x2000;
	assert_int_equal(check(), -EBADMSG);
	info = right;
	info.descriptor_count = 2;
	assert_int_equal(check(), -EBADMSG);
	info.descriptor_count = 0xffffffff;
	assert_int_equal(check(), -EBADMSG);
	info = right;
	info.sequence_number++;
	assert_int_equal(check(), -EBADMSG);
	info = right;
	entry[3] ^= 1;
	seal();
	assert_int_equal(check(), -EBADMSG);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bytes),
		cmocka_unit_test(test_build),
		cmocka_unit_test(test_pack),
		cmocka_unit_test(test_round_trip),
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_check_rules),
		cmocka_unit_test(test_check_every_byte),
		cmocka_unit_test(test_check_other_header),
	};

	return cmocka_run_group_tests_name("log", tests, NULL, NULL);
}
