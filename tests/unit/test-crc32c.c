// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CRC-32C, all of its implementations: crc32c.c is included for its static ones.
 */
#include "unit.h"
#include "../../userspace/lib/crc32c.c"

static const struct {
	const char *name;
	u32 (*step)(u32 crc, const u8 *p, size_t n);
} implementations[] = {
	{ "bytes", crc32c_bytes },
	{ "slicing", crc32c_slicing },
#if defined(__x86_64__)
	{ "sse4.2", crc32c_sse42 },
#endif
};

static bool have(unsigned int i)
{
#if defined(__x86_64__)
	if (implementations[i].step == crc32c_sse42)
		return __builtin_cpu_supports("sse4.2");
#endif
	return i < ARRAY_SIZE(implementations);
}

static void test_vectors(void **state)
{
	static const u8 zeros[32];
	u8 ones[32], up[32];
	unsigned int i;

	(void)state;
	memset(ones, 0xff, sizeof(ones));
	for (i = 0; i < sizeof(up); i++)
		up[i] = i;

	/* The check value; the rest is RFC 3720, B.4. */
	assert_int_equal(unit_crc32c("123456789", 9), 0xe3069283);
	assert_int_equal(~vhdx_crc32c_step(~0U, "123456789", 9), 0xe3069283);
	for (i = 0; i < ARRAY_SIZE(implementations); i++) {
		if (!have(i))
			continue;
		assert_int_equal(~implementations[i].step(~0U, (const u8 *)"123456789", 9),
				 0xe3069283);
		assert_int_equal(~implementations[i].step(~0U, zeros, 32), 0x8a9136aa);
		assert_int_equal(~implementations[i].step(~0U, ones, 32), 0x62a8ab43);
		assert_int_equal(~implementations[i].step(~0U, up, 32), 0x46dd794e);
	}
}

/* All lengths and alignments, whole and in two steps. */
static void test_agree(void **state)
{
	static u8 buf[512];
	unsigned int i, start, n;

	(void)state;
	unit_random(buf, sizeof(buf), 1);
	for (start = 0; start < 9; start++)
		for (n = 0; n < 300; n++) {
			u32 want = unit_crc32c(buf + start, n);

			for (i = 0; i < ARRAY_SIZE(implementations); i++) {
				u32 crc;

				if (!have(i))
					continue;
				crc = implementations[i].step(~0U, buf + start, n);
				assert_int_equal(~crc, want);
				crc = implementations[i].step(~0U, buf + start, n / 3);
				crc = implementations[i].step(crc, buf + start + n / 3,
							      n - n / 3);
				assert_int_equal(~crc, want);
			}
			assert_int_equal(~vhdx_crc32c_step(~0U, buf + start, n), want);
		}
}

/* The checksum field counts as 0, whatever it holds. */
static void test_checksum(void **state)
{
	u8 buf[64];
	u32 want;

	(void)state;
	unit_random(buf, sizeof(buf), 2);
	unit_put32(buf + 4, 0);
	want = unit_crc32c(buf, sizeof(buf));
	assert_int_equal(vhdx_checksum(buf, sizeof(buf)), want);
	unit_put32(buf + 4, 0x12345678);
	assert_int_equal(vhdx_checksum(buf, sizeof(buf)), want);
	assert_int_equal(unit_get32(buf + 4), 0x12345678);
	buf[3] ^= 1;
	assert_int_not_equal(vhdx_checksum(buf, sizeof(buf)), want);
	buf[3] ^= 1;
	buf[8] ^= 1;
	assert_int_not_equal(vhdx_checksum(buf, sizeof(buf)), want);
	buf[8] ^= 1;
	buf[63] ^= 1;
	assert_int_not_equal(vhdx_checksum(buf, sizeof(buf)), want);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_vectors),
		cmocka_unit_test(test_agree),
		cmocka_unit_test(test_checksum),
	};

	return cmocka_run_group_tests_name("crc32c", tests, NULL, NULL);
}
