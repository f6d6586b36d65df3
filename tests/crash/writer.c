// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The writer of the crash test: random writes, flushes, discards and zeroes on a
 * clone whose delta lies on dm-log-writes, and marks in that target's log that tell
 * what was acknowledged when.
 *
 *	writer disk DEV LOGNAME HISTORY OPTION...
 *	writer files DIR LOGNAME COUNT SEED
 *	writer verify DIR COUNT SEED
 *
 * Marks ("-" as LOGNAME: none):
 *
 *	f N	a flush has returned that was called when N operations had completed
 *	s GEN	this write was O_DSYNC and has returned
 *	i GEN	this discard or write-zeroes is about to be called
 *	e N	(files) the first N files have been fsynced
 *
 * The history has a line per operation: generation, letter, sector, count, and the
 * how-manieth it was to complete; -1 if it did not, for lack of space, and did any part
 * of what it should.  A later run goes on with an earlier one's.
 *
 * Operations on overlapping sectors are never in flight together, and generations
 * only go up: so what a sector may hold is what its durable generation wrote, or a
 * higher one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "stamp.h"

#define MAX_THREADS	16
#define MAX_WINDOWS	16
#define MAX_SECTORS	8192

struct op {
	u64 sector;
	long long done;
	u32 count;
	u32 gen;
	char kind;
};

static struct {
	const char *log;
	int fd;
	int control;
	u64 end;
	u64 window[MAX_WINDOWS][2];
	unsigned int nr_windows;
	u32 weight[128];
	u32 seed;
	u32 unit;
	u32 max;
	u32 block;
	unsigned int threads;
	unsigned int nr_ops;

	pthread_mutex_t lock;
	pthread_cond_t idle;
	struct op *history;
	size_t nr, room;
	struct op active[MAX_THREADS];
	u64 completed;
	u32 gen;
	unsigned int issued;
} w = {
	.unit = 1,
	.max = 512,
	.block = 4096,
	.threads = 3,
	.nr_ops = 500,
	.weight = { ['w'] = 60, ['s'] = 6, ['f'] = 12, ['d'] = 3, ['z'] = 3 },
	.lock = PTHREAD_MUTEX_INITIALIZER,
	.idle = PTHREAD_COND_INITIALIZER,
	.gen = 1,
};

static void __attribute__((format(printf, 1, 2), noreturn)) die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("writer: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	_exit(1);
}

/* dmsetup would take a tenth of a second each time in an emulated guest. */
static void __attribute__((format(printf, 1, 2))) mark(const char *fmt, ...)
{
	struct {
		struct dm_ioctl io;
		struct dm_target_msg msg;
		char text[64];
	} request = { 0 };
	va_list ap;
	int n;

	if (w.control < 0)
		return;
	request.io.version[0] = DM_VERSION_MAJOR;
	request.io.data_size = sizeof(request);
	request.io.data_start = sizeof(request.io);
	snprintf(request.io.name, sizeof(request.io.name), "%s", w.log);
	n = snprintf(request.msg.message, sizeof(request.text), "mark ");
	va_start(ap, fmt);
	vsnprintf(request.msg.message + n, sizeof(request.text) - n, fmt, ap);
	va_end(ap);
	/* The target takes one word. */
	for (char *p = request.msg.message + n; *p; p++)
		if (*p == ' ')
			*p = ':';
	if (ioctl(w.control, DM_TARGET_MSG, &request))
		die("%s: message: %s", w.log, strerror(errno));
}

static void open_control(const char *log)
{
	w.log = log;
	w.control = -1;
	if (!strcmp(log, "-"))
		return;
	w.control = open("/dev/mapper/control", O_RDWR | O_CLOEXEC);
	if (w.control < 0)
		die("/dev/mapper/control: %s", strerror(errno));
}

/* ---- writer disk --------------------------------------------------------- */

struct thread {
	pthread_t id;
	unsigned int nr;
	u64 x;
	void *buf;
};

static u64 rnd(struct thread *t, u64 below)
{
	t->x += 0x9e3779b97f4a7c15ULL;
	return mix(t->x) % below;
}

static u64 round_down(u64 x, u64 to)
{
	return x / to * to;
}

/*
 * Where and how much: small ones mostly, half of them in the first quarter of a
 * window, so that bitmap pages are shared and sectors written again; some across a
 * block's border, some whole blocks.
 */
static void choose(struct thread *t, struct op *op)
{
	u64 *window = w.window[rnd(t, w.nr_windows)];
	u64 first = window[0], size = window[1], at, n;

	switch (rnd(t, 32)) {
	case 0 ... 19:
		n = 1 + rnd(t, 16);
		break;
	case 20 ... 27:
		n = 1 + rnd(t, 128);
		break;
	default:
		n = 1 + rnd(t, w.max);
		break;
	}
	at = first + rnd(t, rnd(t, 2) ? size : size / 4);
	if (rnd(t, 10) == 0)
		at = round_down(at, w.block) - rnd(t, n + 1);
	if (op->kind == 'd' || op->kind == 'z' ||
	    (op->kind == 'w' && rnd(t, 40) == 0)) {
		if (op->kind != 'z' || rnd(t, 3)) {
			at = round_down(at, w.block);
			n = w.block;
		}
	}
	if (at < first || at >= first + size)
		at = first;
	at = round_down(at, w.unit);
	n = round_down(n + w.unit - 1, w.unit);
	if (n > MAX_SECTORS)
		n = MAX_SECTORS;
	if (n > first + size - at)
		n = first + size - at;
	op->sector = at;
	op->count = n;
}

static bool overlaps(const struct op *a, const struct op *b)
{
	return a->count && b->count && a->sector < b->sector + b->count &&
	       b->sector < a->sector + a->count;
}

/* Wait until nobody works on these sectors, then take them.  Lock held. */
static void claim(struct thread *t, struct op *op)
{
again:
	for (unsigned int i = 0; i < w.threads; i++)
		if (i != t->nr && overlaps(&w.active[i], op)) {
			pthread_cond_wait(&w.idle, &w.lock);
			goto again;
		}
	op->gen = w.gen++;
	w.active[t->nr] = *op;
}

static void record(const struct op *op)
{
	if (w.nr == w.room) {
		w.room = w.room ? 2 * w.room : 1024;
		w.history = realloc(w.history, w.room * sizeof(*op));
		if (!w.history)
			die("no memory");
	}
	w.history[w.nr++] = *op;
}

static void flush(void)
{
	u64 completed;

	pthread_mutex_lock(&w.lock);
	completed = w.completed;
	pthread_mutex_unlock(&w.lock);
	if (fdatasync(w.fd))
		die("flush: %s", strerror(errno));
	mark("f %llu", (unsigned long long)completed);
}

/* No room is an answer; anything else is not. */
static bool no_space(const struct op *op)
{
	if (errno != ENOSPC)
		die("%c %llu+%u: %s", op->kind, (unsigned long long)op->sector, op->count,
		    strerror(errno));
	return true;
}

static void do_op(struct thread *t, struct op *op)
{
	struct iovec iov = { .iov_base = t->buf };
	bool failed = false;
	u64 range[2];

	choose(t, op);
	pthread_mutex_lock(&w.lock);
	claim(t, op);
	pthread_mutex_unlock(&w.lock);

	range[0] = op->sector * SECTOR;
	range[1] = (u64)op->count * SECTOR;
	switch (op->kind) {
	case 'd':
		mark("i %u", op->gen);
		if (ioctl(w.fd, BLKDISCARD, range))
			die("discard: %s", strerror(errno));
		break;
	case 'z':
		mark("i %u", op->gen);
		failed = ioctl(w.fd, BLKZEROOUT, range) && no_space(op);
		break;
	default:
		for (u32 i = 0; i < op->count; i++)
			stamp(t->buf + (size_t)i * SECTOR, op->sector + i, op->gen, w.seed);
		iov.iov_len = range[1];
		errno = ENOSPC;
		failed = pwritev2(w.fd, &iov, 1, range[0], op->kind == 's' ? RWF_DSYNC : 0) !=
			 (ssize_t)range[1] && no_space(op);
		if (op->kind == 's' && !failed)
			mark("s %u", op->gen);
		break;
	}

	pthread_mutex_lock(&w.lock);
	op->done = failed ? -1 : (long long)w.completed++;
	record(op);
	w.active[t->nr].count = 0;
	pthread_cond_broadcast(&w.idle);
	pthread_mutex_unlock(&w.lock);
}

static char choose_kind(struct thread *t)
{
	static const char kinds[] = "wsfdz";
	u32 sum = 0, x;
	const char *k;

	for (k = kinds; *k; k++)
		sum += w.weight[(int)*k];
	x = rnd(t, sum);
	for (k = kinds; x >= w.weight[(int)*k]; k++)
		x -= w.weight[(int)*k];
	return *k;
}

static void *worker(void *data)
{
	struct thread *t = data;

	while (__atomic_fetch_add(&w.issued, 1, __ATOMIC_RELAXED) < w.nr_ops) {
		struct op op = { .kind = choose_kind(t) };

		if (op.kind == 'f')
			flush();
		else
			do_op(t, &op);
	}
	return NULL;
}

static void load_history(const char *path)
{
	FILE *f = fopen(path, "r");
	unsigned long long gen;
	long long done;
	char line[128];

	if (!f)
		return;
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llu %*c %*u %*u %lld", &gen, &done) != 2)
			die("%s: bad line: %s", path, line);
		if (gen >= w.gen)
			w.gen = gen + 1;
		if (done >= (long long)w.completed)
			w.completed = done + 1;
	}
	fclose(f);
}

static void save_history(const char *path)
{
	FILE *f = fopen(path, "a");

	if (!f)
		die("%s: %s", path, strerror(errno));
	for (size_t i = 0; i < w.nr; i++) {
		struct op *op = &w.history[i];

		fprintf(f, "%u %c %llu %u %lld\n", op->gen, op->kind,
			(unsigned long long)op->sector, op->count, op->done);
	}
	if (fflush(f) || fsync(fileno(f)) || fclose(f))
		die("%s: %s", path, strerror(errno));
}

static void parse_mix(char *text)
{
	memset(w.weight, 0, sizeof(w.weight));
	for (char *p = strtok(text, ","); p; p = strtok(NULL, ","))
		if (strchr("wsfdz", p[0]) && p[1] == '=')
			w.weight[(int)p[0]] = atoi(p + 2);
		else
			die("bad mix: %s", p);
}

static int usage(void)
{
	fputs("usage: writer disk DEV LOGNAME HISTORY [-s SEED] [-n OPS] [-t THREADS]\n"
	      "                   [-u UNIT] [-m MAX] [-b BLOCK] [-w FIRST:COUNT]...\n"
	      "                   [-x w=60,s=6,f=12,d=3,z=3]	(all in sectors)\n"
	      "       writer files DIR LOGNAME COUNT SEED\n"
	      "       writer verify DIR COUNT SEED\n", stderr);
	return 2;
}

static int disk(int argc, char **argv)
{
	struct thread thread[MAX_THREADS] = { 0 };
	const char *dev, *history;
	u64 *window;
	int c;

	if (argc < 4)
		return usage();
	dev = argv[1];
	open_control(argv[2]);
	history = argv[3];
	optind = 4;
	while ((c = getopt(argc, argv, "s:n:t:u:m:b:w:x:")) != -1) {
		switch (c) {
		case 's':
			w.seed = atoi(optarg);
			break;
		case 'n':
			w.nr_ops = atoi(optarg);
			break;
		case 't':
			w.threads = atoi(optarg);
			break;
		case 'u':
			w.unit = atoi(optarg);
			break;
		case 'm':
			w.max = atoi(optarg);
			break;
		case 'b':
			w.block = atoi(optarg);
			break;
		case 'x':
			parse_mix(optarg);
			break;
		case 'w':
			if (w.nr_windows == MAX_WINDOWS)
				return usage();
			window = w.window[w.nr_windows++];
			if (sscanf(optarg, "%lu:%lu", &window[0], &window[1]) != 2)
				return usage();
			break;
		default:
			return usage();
		}
	}
	if (w.threads < 1 || w.threads > MAX_THREADS || !w.nr_windows)
		return usage();
	load_history(history);
	w.fd = open(dev, O_RDWR | O_DIRECT | O_CLOEXEC);
	if (w.fd < 0)
		die("%s: %s", dev, strerror(errno));
	for (unsigned int i = 0; i < w.threads; i++) {
		thread[i].nr = i;
		thread[i].x = mix((u64)w.seed << 32 ^ w.gen ^ (u64)i << 20);
		if (posix_memalign(&thread[i].buf, 4096, MAX_SECTORS * SECTOR))
			die("no memory");
		if (pthread_create(&thread[i].id, NULL, worker, &thread[i]))
			die("no thread");
	}
	for (unsigned int i = 0; i < w.threads; i++)
		pthread_join(thread[i].id, NULL);
	save_history(history);
	return 0;
}

/* ---- writer files -------------------------------------------------------- */

/* File N has N * 1009 % 40000 + 1 bytes of text that follows from N and the seed. */
static const char *content(unsigned int n, unsigned int seed, size_t *size)
{
	static char text[40032];

	*size = n * 1009 % 40000 + 1;
	for (size_t i = 0; i < *size; i += 32)
		sprintf(text + i, "%010u %010u %08zu\n.", n, seed, i);
	return text;
}

/* Are the first COUNT files there, whole? */
static int verify(int argc, char **argv)
{
	static char got[40032];
	int dir;

	if (argc != 4)
		return usage();
	dir = open(argv[1], O_RDONLY | O_DIRECTORY);
	if (dir < 0)
		die("%s: %s", argv[1], strerror(errno));
	for (int n = 0; n < atoi(argv[2]); n++) {
		size_t size;
		const char *text = content(n, atoi(argv[3]), &size);
		char name[16];
		int fd;

		snprintf(name, sizeof(name), "f%u", n);
		fd = openat(dir, name, O_RDONLY);
		if (fd < 0)
			die("%s: %s", name, strerror(errno));
		if (read(fd, got, sizeof(got)) != (ssize_t)size || memcmp(got, text, size))
			die("%s has not its content", name);
		close(fd);
	}
	return 0;
}

static int files(int argc, char **argv)
{
	unsigned int count, seed;
	int dir;

	if (argc != 5)
		return usage();
	open_control(argv[2]);
	count = atoi(argv[3]);
	seed = atoi(argv[4]);
	dir = open(argv[1], O_RDONLY | O_DIRECTORY);
	if (dir < 0)
		die("%s: %s", argv[1], strerror(errno));
	for (unsigned int n = 0; n < count; n++) {
		const char *text;
		char name[16];
		size_t size;
		int fd;

		text = content(n, seed, &size);
		snprintf(name, sizeof(name), "f%u", n);
		fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (fd < 0 || write(fd, text, size) != (ssize_t)size || fsync(fd) ||
		    fsync(dir) || close(fd))
			die("%s: %s", name, strerror(errno));
		mark("e %u", n + 1);
		/* Some that nobody asked to be safe, and some removed. */
		if (n % 3 == 0) {
			snprintf(name, sizeof(name), "u%u", n);
			fd = openat(dir, name, O_WRONLY | O_CREAT, 0644);
			if (fd < 0 || write(fd, text, size) != (ssize_t)size || close(fd))
				die("%s: %s", name, strerror(errno));
		}
		if (n % 6 == 0)
			unlinkat(dir, name, 0);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "disk"))
		return disk(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "files"))
		return files(argc - 1, argv + 1);
	if (argc > 1 && !strcmp(argv[1], "verify"))
		return verify(argc - 1, argv + 1);
	return usage();
}
