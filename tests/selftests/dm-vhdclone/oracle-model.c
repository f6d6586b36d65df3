// SPDX-License-Identifier: GPL-2.0-or-later
/* What every sector must hold: see oracle-model.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oracle-model.h"

#define WORDS		(SECTOR / 8)
#define MAGIC		0x656c6361726f4456ULL

const char * const kind_letter = "rwsdzpf";

struct oracle o = {
	.unit = 1,
	.max = 2048,
	.threads = 1,
	.nr_ops = 1000,
	.hot = 50,
	.journal = -1,
	.gen = 1,
	.weight = { [READ] = 40, [WRITE] = 40, [DSYNC] = 1, [DISCARD] = 3, [ZEROES] = 4,
		    [PUNCH] = 2, [FLUSH] = 2 },
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.idle = PTHREAD_COND_INITIALIZER,
};

void ops_add(struct ops *ops, const struct op *op)
{
	if (ops->nr == ops->max) {
		ops->max = ops->max ? 2 * ops->max : 1024;
		ops->op = realloc(ops->op, ops->max * sizeof(*op));
		if (!ops->op)
			die("no memory for %zu operations", ops->max);
	}
	ops->op[ops->nr++] = *op;
}

void stamp(void *buf, u64 sector, u32 gen)
{
	u64 *w = buf, x;

	w[0] = MAGIC;
	w[1] = sector;
	w[2] = (u64)(u32)o.seed << 32 | gen;
	x = mix(w[1] * 0x100000001b3ULL ^ w[2]);
	for (int i = 3; i < WORDS; i++)
		w[i] = x += 0x9e3779b97f4a7c15ULL;
}

struct sector *model_at(u64 sector)
{
	for (unsigned int i = 0; i < o.nr_windows; i++) {
		struct window *w = &o.window[i];

		if (sector >= w->first && sector - w->first < w->count)
			return o.model + w->index + (sector - w->first);
	}
	return NULL;
}

/* A discard changes whole blocks only; the last one may be cut by the end. */
static bool discarded(const struct op *op, u64 sector)
{
	u64 first, end;

	if (!o.block)
		return true;
	first = sector / o.block * o.block;
	end = first + o.block;
	if (end > o.dev.sectors)
		end = o.dev.sectors;
	return first >= op->sector && end <= op->sector + op->count;
}

/* The operation has completed: what do its sectors hold now? */
void model_now(const struct op *op, bool failed)
{
	struct sector *m = model_at(op->sector);

	for (u32 i = 0; i < op->count; i++, m++) {
		u8 keep = failed ? m->can : 0;

		switch (op->kind) {
		case WRITE:
		case DSYNC:
			if (!(keep & CAN_STAMP))
				m->lo = op->gen;
			m->hi = op->gen;
			m->can = keep | CAN_STAMP;
			break;
		case ZEROES:
		case PUNCH:
			m->can = keep | CAN_ZERO;
			break;
		case DISCARD:
			if (discarded(op, op->sector + i))
				m->can |= CAN_BASE | CAN_ZERO;
			break;
		default:
			break;
		}
	}
}

/* From now on a crash may show this, though nothing is certain yet. */
void model_late(const struct op *op)
{
	struct sector *m = model_at(op->sector);
	u8 can = op->kind == DISCARD ? CAN_BASE | CAN_ZERO : CAN_ZERO;

	for (u32 i = 0; i < op->count; i++, m++) {
		if (op->kind == DISCARD && !discarded(op, op->sector + i))
			continue;
		m->late_can |= can;
		m->late_gen = op->gen;
	}
}

/* A flush that covers the operation has returned. */
void model_durable(const struct op *op)
{
	struct sector *m = model_at(op->sector);

	for (u32 i = 0; i < op->count; i++, m++) {
		if (op->gen < m->dur_gen)
			continue;
		if (op->kind == DISCARD) {
			/* It may have been a no-op: dur_lo stays. */
			if (!discarded(op, op->sector + i))
				continue;
			m->dur_can |= CAN_BASE | CAN_ZERO;
		} else {
			m->dur_lo = op->gen;
			m->dur_can = op->kind == ZEROES || op->kind == PUNCH ?
				     CAN_ZERO : CAN_STAMP;
		}
		m->dur_gen = op->gen;
		if (m->late_gen <= op->gen)
			m->late_can = 0;
	}
}

static void describe(const struct sector *m, char *text, size_t size)
{
	u8 can = o.crash ? m->dur_can | m->late_can | CAN_STAMP : m->can;
	int n = 0;

	if (can & CAN_STAMP && o.crash)
		n += snprintf(text + n, size - n, " generation >= %u", m->dur_lo);
	else if (can & CAN_STAMP)
		n += snprintf(text + n, size - n, " generation %u-%u", m->lo, m->hi);
	if (can & CAN_BASE)
		n += snprintf(text + n, size - n, " base");
	if (can & CAN_ZERO)
		n += snprintf(text + n, size - n, " zeros");
}

static bool all_zero(const u8 *p)
{
	return !p[0] && !memcmp(p, p + 1, SECTOR - 1);
}

/* What lies there, for a person. */
static void recognise(const u8 *data, const u8 *base, u64 sector, char *text, size_t size)
{
	const u64 *w = (const void *)data;
	u64 good[WORDS];
	int same = 0;

	if (all_zero(data)) {
		snprintf(text, size, "zeros");
	} else if (!memcmp(data, base, SECTOR)) {
		snprintf(text, size, "base");
	} else if (w[0] == MAGIC) {
		stamp(good, w[1], w[2]);
		for (int i = 0; i < WORDS; i++)
			same += good[i] == w[i];
		snprintf(text, size, "generation %u of sector %" PRIu64 "%s%s%s", (u32)w[2],
			 w[1], w[1] == sector ? "" : " (another place)",
			 w[2] >> 32 == (u32)o.seed ? "" : " (another run)",
			 same == WORDS ? "" : " (torn)");
	} else {
		snprintf(text, size, "%016" PRIx64 " %016" PRIx64 "...", w[0], w[1]);
	}
}

static void report(u64 sector, const u8 *data, const u8 *base)
{
	char want[128] = " nothing", found[160];
	unsigned int shown = 0;

	describe(model_at(sector), want, sizeof(want));
	recognise(data, base, sector, found, sizeof(found));
	printf("sector %" PRIu64, sector);
	if (o.block)
		printf(" (block %" PRIu64 " + %" PRIu64 ")", sector / o.block,
		       sector % o.block);
	printf(": found %s, want%s\n", found, want);
	for (size_t i = o.history.nr; i-- && shown < 6;) {
		struct op *op = &o.history.op[i];

		if (sector < op->sector || sector - op->sector >= op->count)
			continue;
		printf("  generation %u: %c %" PRIu64 "+%u\n", op->gen,
		       kind_letter[op->kind], op->sector, op->count);
		shown++;
	}
	fflush(stdout);
}

/* Is this what the sector may hold?  Remembers what it was. */
static bool sector_good(struct sector *m, u64 sector, const u8 *data, const u8 *base)
{
	const u64 *w = (const void *)data;
	u8 can = o.crash ? m->dur_can | m->late_can | CAN_STAMP : m->can;
	u32 lo = o.crash ? m->dur_lo : m->lo, hi = o.crash ? UINT32_MAX : m->hi;
	u64 good[WORDS];
	u32 gen = w[2];

	if (can & CAN_STAMP && w[0] == MAGIC && gen >= lo && gen <= hi) {
		stamp(good, sector, gen);
		if (!memcmp(good, data, SECTOR)) {
			m->can = CAN_STAMP;
			m->lo = gen;
			m->hi = gen;
			if (o.crash && gen >= o.gen)
				o.gen = gen + 1;
			return true;
		}
	}
	if (can & CAN_BASE && !memcmp(data, base, SECTOR)) {
		/* Base and zeros may look the same: keep both if both may be. */
		m->can = can & CAN_ZERO && all_zero(data) ? CAN_BASE | CAN_ZERO : CAN_BASE;
		return true;
	}
	if (can & CAN_ZERO && all_zero(data)) {
		m->can = CAN_ZERO;
		return true;
	}
	return false;
}

void read_base(void *buf, u64 sector, u32 count)
{
	size_t done = 0, size = (size_t)count * SECTOR;

	while (o.has_base && done < size) {
		ssize_t n = pread(o.base.fd, (char *)buf + done, size - done,
				  sector * SECTOR + done);

		if (n < 0)
			die("%s: %s", o.base.path, strerror(errno));
		if (n == 0)
			break;
		done += n;
	}
	memset((char *)buf + done, 0, size - done);
}

/* Number of bad sectors; reports the first few.  Called with the lock held. */
unsigned int check_data(u64 sector, u32 count, const u8 *data, const u8 *base)
{
	struct sector *m = model_at(sector);
	unsigned int bad = 0;

	for (u32 i = 0; i < count; i++, m++) {
		if (sector_good(m, sector + i, data + (size_t)i * SECTOR,
				base + (size_t)i * SECTOR))
			continue;
		if (bad++ < 5)
			report(sector + i, data + (size_t)i * SECTOR,
			       base + (size_t)i * SECTOR);
	}
	return bad;
}

/* ---- state and journal files --------------------------------------------- */

void add_window(u64 first, u64 count)
{
	struct window *w = &o.window[o.nr_windows];

	if (o.nr_windows == MAX_WINDOWS)
		die("too many windows");
	w->first = first;
	w->count = count;
	w->index = o.nr_sectors;
	o.nr_windows++;
	o.nr_sectors += count;
}

void make_model(void)
{
	o.model = xcalloc(o.nr_sectors, sizeof(*o.model));
	for (u64 i = 0; i < o.nr_sectors; i++) {
		o.model[i].can = CAN_BASE;
		o.model[i].dur_can = CAN_BASE;
	}
}

static void print_header(FILE *f)
{
	fprintf(f, "H 1 %" PRIu64 " %u %u %" PRIu64 "\n", o.seed, o.gen, o.unit, o.block);
	for (unsigned int i = 0; i < o.nr_windows; i++)
		fprintf(f, "W %" PRIu64 " %" PRIu64 "\n", o.window[i].first,
			o.window[i].count);
}

static void print_model(FILE *f)
{
	for (unsigned int i = 0; i < o.nr_windows; i++) {
		struct window *w = &o.window[i];
		u64 at = 0;

		while (at < w->count) {
			struct sector *m = o.model + w->index + at, *e = m;
			u64 n = 0;

			while (at + n < w->count && e->can == m->can &&
			       (!(m->can & CAN_STAMP) ||
				(e->lo == m->lo && e->hi == m->hi))) {
				n++;
				e++;
			}
			if (m->can != CAN_BASE)
				fprintf(f, "r %" PRIu64 " %" PRIu64 " %u %u %u\n",
					w->first + at, n, m->can, m->lo, m->hi);
			at += n;
		}
	}
}

void save_state(const char *path)
{
	FILE *f = fopen(path, "w");

	if (!f)
		die("%s: %s", path, strerror(errno));
	print_header(f);
	print_model(f);
	if (fflush(f) || fsync(fileno(f)) || fclose(f))
		die("%s: %s", path, strerror(errno));
}

/*
 * A state file has r lines; a journal goes on with a and d lines, and its last
 * line may be cut.
 */
void load_state(const char *path)
{
	FILE *f = fopen(path, "r");
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	if (!f)
		die("%s: %s", path, strerror(errno));
	while ((n = getline(&line, &size, f)) > 0) {
		u64 first, count, seed, block;
		u32 can, lo, hi, gen, unit;
		struct op op;
		char letter;

		if (line[n - 1] != '\n')
			break;
		if (sscanf(line, "H 1 %" SCNu64 " %u %u %" SCNu64, &seed, &gen, &unit,
			   &block) == 4) {
			o.seed = seed;
			o.gen = gen;
			o.unit = unit;
			o.block = block;
			o.nr_windows = 0;
			o.nr_sectors = 0;
			continue;
		}
		if (sscanf(line, "W %" SCNu64 " %" SCNu64, &first, &count) == 2) {
			add_window(first, count);
			continue;
		}
		if (!o.nr_windows)
			die("%s: not a state file", path);
		if (!o.model)
			make_model();
		if (sscanf(line, "r %" SCNu64 " %" SCNu64 " %u %u %u", &first, &count, &can,
			   &lo, &hi) == 5) {
			struct sector *m = model_at(first);

			if (!m || !model_at(first + count - 1))
				die("%s: bad line: %s", path, line);
			for (; count; count--, m++) {
				m->can = can;
				m->lo = lo;
				m->hi = hi;
				m->dur_can = can;
				m->dur_lo = lo;
			}
			continue;
		}
		if ((line[0] == 'a' || line[0] == 'd') &&
		    sscanf(line + 1, " %c %u %" SCNu64 " %u", &letter, &op.gen, &op.sector,
			   &op.count) == 4) {
			const char *k = strchr(kind_letter, letter);

			if (!k || !model_at(op.sector) ||
			    !model_at(op.sector + op.count - 1))
				die("%s: bad line: %s", path, line);
			op.kind = k - kind_letter;
			if (line[0] == 'a')
				model_late(&op);
			else
				model_durable(&op);
			ops_add(&o.history, &op);
			if (op.gen >= o.gen)
				o.gen = op.gen + 1;
			continue;
		}
		die("%s: bad line: %s", path, line);
	}
	if (!o.model && o.nr_windows)
		make_model();
	free(line);
	fclose(f);
}

static void journal_write(const char *text, size_t size)
{
	while (size) {
		ssize_t n = write(o.journal, text, size);

		if (n < 0)
			die("journal: %s", strerror(errno));
		text += n;
		size -= n;
	}
	if (fdatasync(o.journal))
		die("journal: %s", strerror(errno));
}

void journal_ops(char what, const struct op *op, size_t nr)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f;

	if (o.journal < 0 || !nr)
		return;
	f = open_memstream(&text, &size);
	if (!f)
		die("no memory");
	for (; nr; nr--, op++)
		fprintf(f, "%c %c %u %" PRIu64 " %u\n", what, kind_letter[op->kind],
			op->gen, op->sector, op->count);
	fclose(f);
	journal_write(text, size);
	free(text);
}

void journal_open(const char *path)
{
	char *text = NULL;
	size_t size = 0;
	FILE *f = open_memstream(&text, &size);

	o.journal = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
	if (o.journal < 0 || !f)
		die("%s: %s", path, strerror(errno));
	print_header(f);
	print_model(f);
	fclose(f);
	journal_write(text, size);
	free(text);
}
