// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What each sector of a clone may hold after a crash.  A library for replay.py: it
 * asks for every crash point and every sector.
 *
 * A sector holds what the newest operation wrote that is known to be durable there,
 * or what any newer one wrote.  A discard may leave the old content, what is below,
 * or zeros.
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "stamp.h"

#define MAX_WINDOWS	16

struct op {
	u64 sector;
	u32 count;
	char kind;
};

struct sector {
	u32 durable;		/* generation; 0: what is below */
	u32 zeroed;		/* newest write-zeroes that may have been started */
	u32 dropped;		/* newest discard */
};

struct window {
	u64 first;
	u64 count;
	struct sector *sector;
	const char *below;
};

struct model {
	u64 end;
	u32 block;
	u32 seed;
	struct window window[MAX_WINDOWS];
	unsigned int nr_windows;
	struct op *op;
	u32 nr_ops;
};

struct model *model_new(u64 end, u32 block, u32 seed)
{
	struct model *m = calloc(1, sizeof(*m));

	if (m) {
		m->end = end;
		m->block = block;
		m->seed = seed;
	}
	return m;
}

/* @below is copied. */
int model_window(struct model *m, u64 first, u64 count, const char *below)
{
	struct window *w = &m->window[m->nr_windows];
	char *copy = malloc(count * SECTOR);

	w->first = first;
	w->count = count;
	w->sector = calloc(count, sizeof(*w->sector));
	if (m->nr_windows == MAX_WINDOWS || !copy || !w->sector)
		return -1;
	memcpy(copy, below, count * SECTOR);
	w->below = copy;
	m->nr_windows++;
	return 0;
}

int model_op(struct model *m, u32 gen, char kind, u64 sector, u32 count)
{
	if (gen >= m->nr_ops) {
		u32 nr = gen + 1024;

		m->op = realloc(m->op, nr * sizeof(*m->op));
		if (!m->op)
			return -1;
		memset(m->op + m->nr_ops, 0, (nr - m->nr_ops) * sizeof(*m->op));
		m->nr_ops = nr;
	}
	m->op[gen] = (struct op){ .sector = sector, .count = count, .kind = kind };
	return 0;
}

static struct window *window_of(struct model *m, u64 sector)
{
	for (unsigned int i = 0; i < m->nr_windows; i++)
		if (sector - m->window[i].first < m->window[i].count)
			return &m->window[i];
	return NULL;
}

/* Whole blocks only; the last one may be cut by the end. */
static bool dropped(struct model *m, const struct op *op, u64 sector)
{
	u64 first = sector / m->block * m->block, end = first + m->block;

	if (end > m->end)
		end = m->end;
	return first >= op->sector && end <= op->sector + op->count;
}

void model_issued(struct model *m, u32 gen)
{
	const struct op *op = &m->op[gen];
	struct window *w = window_of(m, op->sector);

	for (u64 s = op->sector; s < op->sector + op->count; s++) {
		struct sector *sector = &w->sector[s - w->first];

		if (op->kind == 'z')
			sector->zeroed = gen;
		else if (op->kind == 'd' && dropped(m, op, s))
			sector->dropped = gen;
	}
}

void model_durable(struct model *m, u32 gen)
{
	const struct op *op = &m->op[gen];
	struct window *w = window_of(m, op->sector);

	if (op->kind == 'd')
		return;
	for (u64 s = op->sector; s < op->sector + op->count; s++) {
		struct sector *sector = &w->sector[s - w->first];

		if (sector->durable < gen)
			sector->durable = gen;
	}
}

static bool all_zero(const char *p)
{
	return !p[0] && !memcmp(p, p + 1, SECTOR - 1);
}

static bool good_stamp(struct model *m, const struct sector *sector, u64 s,
		       const char *data)
{
	u64 want[WORDS], head[3];
	u32 gen;

	memcpy(head, data, sizeof(head));
	gen = head[2];
	if (head[0] != STAMP_MAGIC || gen < sector->durable || gen >= m->nr_ops || !gen)
		return false;
	if (!m->op[gen].kind || s - m->op[gen].sector >= m->op[gen].count ||
	    m->op[gen].kind == 'd' || m->op[gen].kind == 'z')
		return false;
	stamp(want, s, gen, m->seed);
	return !memcmp(want, data, SECTOR);
}

static void describe(struct model *m, const struct sector *sector, u64 s,
		     const char *data, const char *below, char *why, size_t size)
{
	u64 head[3], want[WORDS];
	int n;

	memcpy(head, data, sizeof(head));
	n = snprintf(why, size, "sector %llu (block %llu + %llu): found ",
		     (unsigned long long)s, (unsigned long long)(s / m->block),
		     (unsigned long long)(s % m->block));
	if (all_zero(data)) {
		n += snprintf(why + n, size - n, "zeros");
	} else if (!memcmp(data, below, SECTOR)) {
		n += snprintf(why + n, size - n, "the base's");
	} else if (head[0] == STAMP_MAGIC) {
		stamp(want, head[1], head[2], head[2] >> 32);
		n += snprintf(why + n, size - n, "generation %u of sector %llu%s",
			      (u32)head[2], (unsigned long long)head[1],
			      memcmp(want, data, SECTOR) ? ", torn" : "");
	} else {
		n += snprintf(why + n, size - n, "%016llx", (unsigned long long)head[0]);
	}
	n += snprintf(why + n, size - n, "; durable is generation %u%s", sector->durable,
		      !sector->durable ? ", the base's" :
		      m->op[sector->durable].kind == 'z' ? ", zeros" : "");
	if (sector->zeroed > sector->durable)
		n += snprintf(why + n, size - n, ", zeroed by %u", sector->zeroed);
	if (sector->dropped > sector->durable)
		snprintf(why + n, size - n, ", discarded by %u", sector->dropped);
}

/* The number of sectors that hold what they must not; @why is about the first. */
u32 model_check(struct model *m, u64 first, u32 count, const char *data, char *why,
		u32 size)
{
	struct window *w = window_of(m, first);
	u32 bad = 0;

	for (u32 i = 0; i < count; i++, data += SECTOR) {
		u64 s = first + i;
		struct sector *sector = &w->sector[s - w->first];
		const char *below = w->below + (s - w->first) * SECTOR;
		bool drop = sector->dropped > sector->durable;

		if (good_stamp(m, sector, s, data))
			continue;
		if ((!sector->durable || drop) && !memcmp(data, below, SECTOR))
			continue;
		if ((drop || (sector->zeroed && sector->zeroed >= sector->durable)) &&
		    all_zero(data))
			continue;
		if (!bad++)
			describe(m, sector, s, data, below, why, size);
	}
	return bad;
}

/* CRC-32C; the Python one is fine, but takes most of the time of a crash point. */
u32 model_crc32c(const unsigned char *data, u64 size)
{
	static u32 table[8][256];
	u32 crc = ~0U;

	if (!table[0][1]) {
		for (u32 i = 0; i < 256; i++) {
			u32 c = i;

			for (int k = 0; k < 8; k++)
				c = c >> 1 ^ (c & 1 ? 0x82f63b78 : 0);
			table[0][i] = c;
		}
		for (u32 i = 0; i < 256; i++)
			for (int t = 1; t < 8; t++)
				table[t][i] = table[t - 1][i] >> 8 ^
					      table[0][table[t - 1][i] & 255];
	}
	for (; size >= 8; size -= 8, data += 8) {
		u32 lo, hi;

		memcpy(&lo, data, 4);
		memcpy(&hi, data + 4, 4);
		lo ^= crc;
		crc = table[7][lo & 255] ^ table[6][lo >> 8 & 255] ^
		      table[5][lo >> 16 & 255] ^ table[4][lo >> 24] ^
		      table[3][hi & 255] ^ table[2][hi >> 8 & 255] ^
		      table[1][hi >> 16 & 255] ^ table[0][hi >> 24];
	}
	for (; size; size--, data++)
		crc = crc >> 8 ^ table[0][(crc ^ *data) & 255];
	return ~crc;
}
