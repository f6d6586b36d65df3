// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CRC-32C (Castagnoli) for userspace; the kernel has its own.
 *
 * Log replay, checks and copies put every metadata byte through this, so it uses
 * the CPU's instruction where there is one, else eight tables of 256 entries.
 */
#include "vhdx-port.h"

#define CRC32C_POLY	0x82f63b78U	/* reflected */

static u32 crc32c_tables[8][256];

static void __attribute__((constructor)) crc32c_init_tables(void)
{
	unsigned int i, k;

	for (i = 0; i < 256; i++) {
		u32 crc = i;

		for (k = 0; k < 8; k++)
			crc = (crc >> 1) ^ (crc & 1 ? CRC32C_POLY : 0);
		crc32c_tables[0][i] = crc;
	}
	for (k = 1; k < 8; k++)
		for (i = 0; i < 256; i++) {
			u32 crc = crc32c_tables[k - 1][i];

			crc32c_tables[k][i] = (crc >> 8) ^ crc32c_tables[0][crc & 0xff];
		}
}

static u32 crc32c_bytes(u32 crc, const u8 *p, size_t n)
{
	while (n--)
		crc = (crc >> 8) ^ crc32c_tables[0][(crc ^ *p++) & 0xff];
	return crc;
}

static u32 crc32c_slicing(u32 crc, const u8 *p, size_t n)
{
	for (; n >= 8; p += 8, n -= 8) {
		u64 x;

		memcpy(&x, p, sizeof(x));
		x = le64toh(x) ^ crc;
		crc = crc32c_tables[7][x & 0xff] ^
		      crc32c_tables[6][(x >> 8) & 0xff] ^
		      crc32c_tables[5][(x >> 16) & 0xff] ^
		      crc32c_tables[4][(x >> 24) & 0xff] ^
		      crc32c_tables[3][(x >> 32) & 0xff] ^
		      crc32c_tables[2][(x >> 40) & 0xff] ^
		      crc32c_tables[1][(x >> 48) & 0xff] ^
		      crc32c_tables[0][x >> 56];
	}
	return crc32c_bytes(crc, p, n);
}

#if defined(__x86_64__)
static u32 __attribute__((target("sse4.2"))) crc32c_sse42(u32 crc, const u8 *p, size_t n)
{
	u64 c = crc;

	for (; n >= 8; p += 8, n -= 8) {
		u64 x;

		memcpy(&x, p, sizeof(x));
		c = __builtin_ia32_crc32di(c, x);
	}
	for (crc = c; n; n--)
		crc = __builtin_ia32_crc32qi(crc, *p++);
	return crc;
}
#endif

u32 vhdx_crc32c_step(u32 crc, const void *p, size_t n)
{
#if defined(__x86_64__)
	if (__builtin_cpu_supports("sse4.2"))
		return crc32c_sse42(crc, p, n);
#endif
	return crc32c_slicing(crc, p, n);
}
