// SPDX-License-Identifier: GPL-2.0-or-later
/* Random I/O, each read compared with the model. */
#define _GNU_SOURCE
#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "oracle-load.h"

/* ---- oracle run ------------------------------------------------------------ */

struct thread {
	pthread_t id;
	unsigned int nr;
	u64 x;			/* random state */
	u8 *buf, *base;
};

static u64 rnd(struct thread *t, u64 below)
{
	t->x += 0x9e3779b97f4a7c15ULL;
	return mix(t->x) % below;
}

static bool chance(struct thread *t, unsigned int percent)
{
	return rnd(t, 100) < percent;
}

/*
 * Where and how much.  Half of it goes to a few hot blocks (so that blocks
 * fill up, and metadata pages are shared), and often to both sides of a
 * block border; sizes from one unit to several blocks.
 */
static void choose(struct thread *t, struct op *op)
{
	struct window *w = &o.window[rnd(t, o.nr_windows)];
	u64 lo = 0, end = w->count, at, n;
	u64 block = o.block ? o.block : 2048;

	if (o.disjoint) {
		u64 part = w->count / o.threads / o.unit * o.unit;

		lo = part * t->nr;
		end = lo + part;
	}
	switch (rnd(t, 8)) {
	case 0 ... 3:
		n = 1 + rnd(t, 16);
		break;
	case 4 ... 5:
		n = 1 + rnd(t, 128);
		break;
	case 6:
		n = 1 + rnd(t, o.max);
		break;
	default:
		n = block;
		break;
	}
	if (chance(t, o.hot))
		at = lo + rnd(t, (end - lo) / 8 + 1);
	else
		at = lo + rnd(t, end - lo);
	if (n == block)
		at = (at + w->first) / block * block - w->first;
	else if (chance(t, 15))
		at = (at + w->first + block / 2) / block * block - w->first - rnd(t, n + 1);
	if ((op->kind == DISCARD || op->kind == ZEROES || op->kind == PUNCH) &&
	    chance(t, 50)) {
		/* Whole blocks, or nearly so at both ends. */
		n = block * (1 + rnd(t, 3));
		at = (at + w->first) / block * block - w->first;
		if (chance(t, 50)) {
			at += rnd(t, 17);
			n += rnd(t, 17);
		}
	}
	/* "at" may have gone below the window: then it is a huge number. */
	if (at >= end || at < lo)
		at = lo;
	at = at / o.unit * o.unit;
	n = (n + o.unit - 1) / o.unit * o.unit;
	if (op->kind <= DSYNC && n > MAX_IO / SECTOR)
		n = MAX_IO / SECTOR;
	if (n > end - at)
		n = (end - at) / o.unit * o.unit;
	op->sector = w->first + at;
	op->count = n;
}

static bool overlaps(const struct op *a, const struct op *b)
{
	return a->count && b->count && a->sector < b->sector + b->count &&
	       b->sector < a->sector + a->count;
}

/* Wait until nobody works on these sectors, then take them.  Lock held. */
static void claim(struct thread *t, const struct op *op)
{
	bool busy;

	do {
		busy = false;
		for (unsigned int i = 0; i < o.threads; i++)
			if (i != t->nr && overlaps(&o.active[i], op) &&
			    (op->kind != READ || o.active[i].kind != READ))
				busy = true;
		if (busy)
			pthread_cond_wait(&o.idle, &o.lock);
	} while (busy);
	o.active[t->nr] = *op;
}

static void release(struct thread *t)
{
	o.active[t->nr].count = 0;
	pthread_cond_broadcast(&o.idle);
}

static void failure(struct op *op, int err)
{
	o.failed[op->kind]++;
	if (err == EOPNOTSUPP && (op->kind == DISCARD || op->kind == PUNCH)) {
		o.unsupported[op->kind] = true;
		return;
	}
	if (!o.errors_ok)
		die("%c %" PRIu64 "+%u: %s", kind_letter[op->kind], op->sector, op->count,
		    strerror(err));
}

static void do_flush(struct op *op)
{
	struct ops batch;
	int err;

	/* Only what has completed before the flush starts is covered. */
	pthread_mutex_lock(&o.lock);
	batch = o.done;
	memset(&o.done, 0, sizeof(o.done));
	pthread_mutex_unlock(&o.lock);
	err = fdatasync(o.dev.fd) ? errno : 0;
	pthread_mutex_lock(&o.lock);
	if (err) {
		failure(op, err);
		for (size_t i = 0; i < batch.nr; i++)
			ops_add(&o.done, &batch.op[i]);
	} else {
		journal_ops('d', batch.op, batch.nr);
		for (size_t i = 0; i < batch.nr; i++)
			model_durable(&batch.op[i]);
	}
	pthread_mutex_unlock(&o.lock);
	free(batch.op);
}

static void do_io(struct thread *t, struct op *op)
{
	int err;

	pthread_mutex_lock(&o.lock);
	claim(t, op);
	op->gen = o.gen++;
	if (op->kind != READ) {
		ops_add(&o.history, op);
		if (op->kind == DISCARD || op->kind == ZEROES || op->kind == PUNCH) {
			journal_ops('a', op, 1);
			model_late(op);
		}
	}
	pthread_mutex_unlock(&o.lock);

	switch (op->kind) {
	case READ:
		err = device_rw(&o.dev, false, t->buf, op->sector, op->count, false);
		read_base(t->base, op->sector, op->count);
		break;
	case WRITE:
	case DSYNC:
		for (u32 i = 0; i < op->count; i++)
			stamp(t->buf + (size_t)i * SECTOR, op->sector + i, op->gen);
		err = device_rw(&o.dev, true, t->buf, op->sector, op->count,
				op->kind == DSYNC);
		break;
	case DISCARD:
		err = device_range(&o.dev, BLKDISCARD, op->sector, op->count);
		break;
	case ZEROES:
		err = device_zero(&o.dev, op->sector, op->count, t->buf);
		break;
	default:
		err = device_punch(&o.dev, op->sector, op->count);
		break;
	}

	pthread_mutex_lock(&o.lock);
	if (err)
		failure(op, err);
	if (op->kind == READ) {
		unsigned int bad = 0;

		if (!err)
			bad = check_data(op->sector, op->count, t->buf, t->base);
		if (bad)
			die("%u bad sectors in a read of %" PRIu64 "+%u, operation %" PRIu64,
			    bad, op->sector, op->count, o.issued);
	} else if (!(err == EOPNOTSUPP)) {
		model_now(op, err);
		if (!err) {
			if (op->kind == DSYNC) {
				journal_ops('d', op, 1);
				model_durable(op);
			}
			ops_add(&o.done, op);
		}
	}
	release(t);
	pthread_mutex_unlock(&o.lock);
}

static void run_hook(const char *hook, u64 number)
{
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	char command[1024];
	int status;

	snprintf(command, sizeof(command), "ORACLE_EVENT=%" PRIu64 "; %s", number, hook);
	/* Two resumes at a time: dm fails one of them. */
	pthread_mutex_lock(&lock);
	status = system(command);
	pthread_mutex_unlock(&lock);
	if (status)
		die("hook failed with status %d: %s", WEXITSTATUS(status), hook);
}

/* Everybody stops, the device is closed, and opened again after the hook. */
static void quiet(u64 number)
{
	u64 sectors = o.dev.sectors;

	pthread_rwlock_wrlock(&o.open);
	close(o.dev.fd);
	run_hook(o.quiet_hook, number);
	device_open(&o.dev, true, true);
	/* What was modelled must still be there; a grown device is fine. */
	if (o.dev.sectors < sectors)
		die("the device has shrunk");
	o.dev.sectors = sectors;
	pthread_rwlock_unlock(&o.open);
}

static enum kind choose_kind(struct thread *t)
{
	u32 sum = 0, x;

	for (int i = 0; i < NR_KINDS; i++)
		sum += o.unsupported[i] ? 0 : o.weight[i];
	x = rnd(t, sum);
	for (int i = 0; i < NR_KINDS; i++) {
		u32 weight = o.unsupported[i] ? 0 : o.weight[i];

		if (x < weight)
			return i;
		x -= weight;
	}
	return READ;
}

static bool finished(u64 number)
{
	if (o.seconds)
		return time(NULL) >= o.end;
	return number >= o.nr_ops;
}

static void *worker(void *data)
{
	struct thread *t = data;

	for (;;) {
		struct op op = { 0 };
		u64 number = __atomic_fetch_add(&o.issued, 1, __ATOMIC_RELAXED);

		if (finished(number))
			return NULL;
		if (o.quiet_hook && number && number % o.quiet_every == 0)
			quiet(number / o.quiet_every);
		if (o.live_hook && number && number % o.live_every == 0)
			run_hook(o.live_hook, number / o.live_every);
		op.kind = choose_kind(t);
		__atomic_fetch_add(&o.count[op.kind], 1, __ATOMIC_RELAXED);
		pthread_rwlock_rdlock(&o.open);
		if (op.kind == FLUSH) {
			do_flush(&op);
		} else {
			choose(t, &op);
			do_io(t, &op);
		}
		pthread_rwlock_unlock(&o.open);
	}
}

/* Every modelled sector; the number of bad ones. */
u64 verify_all(void)
{
	u8 *buf = io_buffer(MAX_IO), *base = io_buffer(MAX_IO);
	u64 bad = 0;

	for (unsigned int i = 0; i < o.nr_windows; i++) {
		struct window *w = &o.window[i];

		for (u64 at = 0; at < w->count;) {
			u64 n = w->count - at, sector = w->first + at;
			int err;

			if (n > MAX_IO / SECTOR)
				n = MAX_IO / SECTOR;
			err = device_rw(&o.dev, false, buf, sector, n, false);
			if (err)
				die("reading %" PRIu64 "+%" PRIu64 ": %s", sector, n,
				    strerror(err));
			read_base(base, sector, n);
			bad += check_data(sector, n, buf, base);
			at += n;
		}
	}
	free(buf);
	free(base);
	return bad;
}

static void summary(void)
{
	for (int i = 0; i < NR_KINDS; i++)
		if (o.count[i])
			printf("%s%c %" PRIu64 "%s", i ? ", " : "", kind_letter[i], o.count[i],
			       o.unsupported[i] ? " (not supported)" : "");
	for (int i = 0; i < NR_KINDS; i++)
		if (o.failed[i] && !o.unsupported[i])
			printf(", %c failed %" PRIu64, kind_letter[i], o.failed[i]);
	printf("\n");
}

void run_threads(void)
{
	struct thread *t = xcalloc(o.threads, sizeof(*t));
	pthread_rwlockattr_t attr;

	pthread_rwlockattr_init(&attr);
	/* Or a quiet hook would wait for ever. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&o.open, &attr);
	o.active = xcalloc(o.threads, sizeof(*o.active));
	o.end = time(NULL) + o.seconds;
	for (unsigned int i = 0; i < o.threads; i++) {
		t[i].nr = i;
		t[i].x = mix(o.rnd + i);
		t[i].buf = io_buffer(MAX_IO);
		t[i].base = io_buffer(MAX_IO);
		if (pthread_create(&t[i].id, NULL, worker, &t[i]))
			die("no thread");
	}
	for (unsigned int i = 0; i < o.threads; i++)
		pthread_join(t[i].id, NULL);
	summary();
}
