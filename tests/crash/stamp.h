/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the writer puts into a sector, and the model knows it by: the sector's number,
 * the generation of the write and a seed, then words that follow from these.  So a
 * sector tells which write it comes from, and whether all of it does.
 */
#ifndef CRASH_STAMP_H
#define CRASH_STAMP_H

#include <stdint.h>

typedef uint64_t u64;
typedef uint32_t u32;

#define SECTOR		512
#define WORDS		(SECTOR / 8)
#define STAMP_MAGIC	0x68736172436c6476ULL

static inline u64 mix(u64 x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static inline void stamp(void *buf, u64 sector, u32 gen, u32 seed)
{
	u64 *w = buf, x;

	w[0] = STAMP_MAGIC;
	w[1] = sector;
	w[2] = (u64)seed << 32 | gen;
	x = mix(w[1] * 0x100000001b3ULL ^ w[2]);
	for (int i = 3; i < WORDS; i++)
		w[i] = x += 0x9e3779b97f4a7c15ULL;
}

#endif /* CRASH_STAMP_H */
