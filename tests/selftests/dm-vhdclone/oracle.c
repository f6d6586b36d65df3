// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The data oracle: knows what every sector of a block device must hold.
 *
 * Four programs in one:
 *
 *	oracle io DEV COMMAND...	a few I/Os, each exactly as told
 *	oracle cmp DEV FILE		a device against a raw file
 *	oracle run DEV OPTION...	random I/O, each read compared with the model
 *	oracle verify DEV OPTION...	the model of an earlier run against the device
 *
 * The model.  Every write stamps each 512-byte sector with its number, the
 * generation of the write (they only go up) and a seed, and fills the rest of
 * the sector with words made of these three.  So a sector tells by itself
 * which write it comes from, and a sector that is torn, old, of another place or of
 * another run is seen.  Per sector the model keeps what it may hold: a
 * range of generations, zeros, or what the base has there (a raw file).  More than
 * one of these is allowed after a discard (old, base or zeros, but nobody
 * else's data) and after a write that failed.
 *
 * Crashes.  With --journal, what is certain goes to a file, which is synced before
 * anything relies on it: "d" lines (this is durable: the flush that covers it
 * has returned) and "a" lines (zeros or a discard may show from now on).  Plain
 * writes need no line before they start: a stamp with a newer
 * generation than the durable one is legal.  After the crash, verify --crash
 * accepts in each sector the durable content or anything newer, and nothing else.
 *
 * Operations on overlapping sectors are never in flight together: what a
 * device then holds is undefined.  Different sectors of one block are.
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint8_t u8;

#define SECTOR		512
#define WORDS		(SECTOR / 8)
#define MAGIC		0x656c6361726f4456ULL
#define MAX_IO		(4u << 20)
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

static void __attribute__((format(printf, 1, 2), noreturn)) die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("oracle: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	/* Other threads may be inside an I/O that never ends. */
	_exit(1);
}

static void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		die("no memory for %zu * %zu bytes", n, size);
	return p;
}

static void *io_buffer(size_t size)
{
	void *p;

	if (posix_memalign(&p, 4096, size))
		die("no memory for a buffer");
	return p;
}

static u64 mix(u64 x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* ---- device -------------------------------------------------------------- */

struct device {
	const char *path;
	int fd;
	bool block;			/* a block device, not a file */
	bool direct;
	u64 sectors;
};

static void device_open(struct device *d, bool writable, bool direct)
{
	int flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC;
	struct stat st;
	off_t end;

	d->direct = direct;
	d->fd = open(d->path, flags | (direct ? O_DIRECT : 0));
	/* No file on tmpfs can be opened so; and there it makes no difference. */
	if (d->fd < 0 && errno == EINVAL) {
		d->direct = false;
		d->fd = open(d->path, flags);
	}
	if (d->fd < 0)
		die("%s: %s", d->path, strerror(errno));
	if (fstat(d->fd, &st))
		die("%s: %s", d->path, strerror(errno));
	d->block = S_ISBLK(st.st_mode);
	end = lseek(d->fd, 0, SEEK_END);
	if (end < 0)
		die("%s: %s", d->path, strerror(errno));
	d->sectors = end / SECTOR;
}

/* Zero, or the errno of the first part that failed. */
static int device_rw(struct device *d, bool write, void *buf, u64 sector, u32 count,
		     bool dsync)
{
	struct iovec iov = { .iov_base = buf, .iov_len = (size_t)count * SECTOR };
	off_t at = sector * SECTOR;

	while (iov.iov_len) {
		ssize_t n;

		if (write)
			n = pwritev2(d->fd, &iov, 1, at, dsync ? RWF_DSYNC : 0);
		else
			n = preadv(d->fd, &iov, 1, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0)
			return write ? ENOSPC : ENODATA;
		iov.iov_base = (char *)iov.iov_base + n;
		iov.iov_len -= n;
		at += n;
	}
	return 0;
}

static int device_range(struct device *d, unsigned long request, u64 sector, u64 count)
{
	u64 range[2] = { sector * SECTOR, count * SECTOR };

	return ioctl(d->fd, request, range) ? errno : 0;
}

static int device_zero(struct device *d, u64 sector, u64 count, void *buf)
{
	if (d->block)
		return device_range(d, BLKZEROOUT, sector, count);
	/* The file that mirrors a device. */
	memset(buf, 0, MAX_IO);
	while (count) {
		u32 n = count < MAX_IO / SECTOR ? count : MAX_IO / SECTOR;
		int err = device_rw(d, true, buf, sector, n, false);

		if (err)
			return err;
		sector += n;
		count -= n;
	}
	return 0;
}

static int device_punch(struct device *d, u64 sector, u64 count)
{
	if (fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      sector * SECTOR, count * SECTOR))
		return errno;
	return 0;
}

/* ---- oracle io ----------------------------------------------------------- */

static const struct {
	const char *name;
	int err;
} errno_names[] = {
	{ "EIO", EIO }, { "ENOSPC", ENOSPC }, { "EPERM", EPERM }, { "EACCES", EACCES },
	{ "EROFS", EROFS }, { "EINVAL", EINVAL }, { "EOPNOTSUPP", EOPNOTSUPP },
	{ "EBADF", EBADF }, { "ENODATA", ENODATA }, { "EBADE", EBADE },
};

static const char *errno_name(int err)
{
	static char number[16];

	for (size_t i = 0; i < ARRAY_SIZE(errno_names); i++)
		if (errno_names[i].err == err)
			return errno_names[i].name;
	snprintf(number, sizeof(number), "%d", err);
	return err ? number : "success";
}

/* The pattern that the image builder knows as {"tag": ...}. */
static void tag_fill(void *buf, const char *tag, u64 sector, u32 count)
{
	char *p = buf, text[17];

	for (; count; count--, sector++) {
		snprintf(text, sizeof(text), "%-4.4s%012" PRIx64, tag, sector);
		for (int i = 0; i < 32; i++, p += 16)
			memcpy(p, text, 16);
	}
}

static void show(const u8 *p)
{
	for (int i = 0; i < 16; i++)
		putchar(isprint(p[i]) ? p[i] : '.');
}

/* -1: mismatch, already reported; else an errno. */
static int io_read(struct device *d, u64 sector, u64 count, const char *tag, u8 *buf,
		   u8 *want)
{
	while (count) {
		u32 n = count < MAX_IO / SECTOR ? count : MAX_IO / SECTOR;
		int err = device_rw(d, false, buf, sector, n, false);

		if (err)
			return err;
		if (!strcmp(tag, "0"))
			memset(want, 0, (size_t)n * SECTOR);
		else
			tag_fill(want, tag, sector, n);
		for (u32 i = 0; *tag && i < n; i++) {
			if (!memcmp(buf + i * SECTOR, want + i * SECTOR, SECTOR))
				continue;
			printf("sector %" PRIu64 ": found \"", sector + i);
			show(buf + i * SECTOR);
			printf("\", want \"");
			show(want + i * SECTOR);
			printf("\"\n");
			return -1;
		}
		sector += n;
		count -= n;
	}
	return 0;
}

static int io_write(struct device *d, u64 sector, u64 count, const char *tag, u8 *buf,
		    bool dsync)
{
	while (count) {
		u32 n = count < MAX_IO / SECTOR ? count : MAX_IO / SECTOR;
		int err;

		tag_fill(buf, tag, sector, n);
		err = device_rw(d, true, buf, sector, n, dsync);
		if (err)
			return err;
		sector += n;
		count -= n;
	}
	return 0;
}

static const char io_usage[] =
	"usage: oracle io [-b] [-r] DEV COMMAND...\n"
	"  -b  through the page cache, not O_DIRECT;  -r  open read-only\n"
	"  w:FIRST:COUNT:TAG   write (W: with FUA)     r:FIRST:COUNT:TAG  read, compare\n"
	"  z:FIRST:COUNT       BLKZEROOUT              p:FIRST:COUNT  punch a hole\n"
	"  d:FIRST:COUNT       BLKDISCARD              D: BLKSECDISCARD\n"
	"  f  flush   s:SECONDS  sleep                 l  size in sectors\n"
	"FIRST and COUNT are 512-byte sectors; TAG 0 compares with zeros, an empty one not\n"
	"at all.  COMMAND?ERROR must fail so: w:0:8:A?ENOSPC\n";

static int io_one(struct device *d, char *command)
{
	static u8 *buf, *want;
	char *error = strchr(command, '?'), op = command[0], tag[8] = "";
	u64 first = 0, count = 0;
	int err = 0;

	if (!buf) {
		buf = io_buffer(MAX_IO);
		want = io_buffer(MAX_IO);
	}
	if (error)
		*error++ = 0;
	/* Not all of them have all fields. */
	if (sscanf(command + 1, ":%" SCNu64 ":%" SCNu64 ":%7s", &first, &count, tag) < 0)
		tag[0] = 0;
	switch (op) {
	case 'w':
	case 'W':
		err = io_write(d, first, count, tag, buf, op == 'W');
		break;
	case 'r':
		err = io_read(d, first, count, tag, buf, want);
		break;
	case 'z':
		err = device_zero(d, first, count, buf);
		break;
	case 'p':
		err = device_punch(d, first, count);
		break;
	case 'd':
		/* A file that mirrors a device: undefined content can stay. */
		err = d->block ? device_range(d, BLKDISCARD, first, count) : 0;
		break;
	case 'D':
		err = device_range(d, BLKSECDISCARD, first, count);
		break;
	case 'f':
		err = fdatasync(d->fd) ? errno : 0;
		break;
	case 's':
		sleep(first);
		break;
	case 'l':
		printf("%" PRIu64 "\n", d->sectors);
		break;
	default:
		fputs(io_usage, stderr);
		return 2;
	}
	if (err == -1)
		return 1;
	if (strcmp(errno_name(err), error ? error : "success")) {
		printf("%s: %s: %s, want %s\n", d->path, command, errno_name(err),
		       error ? error : "success");
		return 1;
	}
	return 0;
}

static int oracle_io(int argc, char **argv)
{
	struct device d = { 0 };
	bool direct = true, writable = true;
	int c, ret = 0;

	while ((c = getopt(argc, argv, "+br")) != -1) {
		if (c == 'b')
			direct = false;
		else if (c == 'r')
			writable = false;
		else
			optind = argc;
	}
	if (optind >= argc) {
		fputs(io_usage, stderr);
		return 2;
	}
	d.path = argv[optind++];
	device_open(&d, writable, direct);
	for (; optind < argc && !ret; optind++)
		ret = io_one(&d, argv[optind]);
	return ret;
}

/* ---- oracle cmp ------------------------------------------------------------ */

static int oracle_cmp(int argc, char **argv)
{
	struct device a = { 0 }, b = { 0 };
	u8 *one = io_buffer(MAX_IO), *two = io_buffer(MAX_IO);
	u64 at = 0, count;
	int err;

	if (argc < 3) {
		fputs("usage: oracle cmp DEV FILE [FIRST COUNT]\n", stderr);
		return 2;
	}
	a.path = argv[1];
	b.path = argv[2];
	device_open(&a, false, true);
	device_open(&b, false, true);
	count = a.sectors;
	if (argc > 4) {
		at = strtoull(argv[3], NULL, 0);
		count = strtoull(argv[4], NULL, 0);
	} else if (a.sectors != b.sectors) {
		die("%s has %" PRIu64 " sectors, %s has %" PRIu64, a.path, a.sectors, b.path,
		    b.sectors);
	}
	while (count) {
		u32 n = count < MAX_IO / SECTOR ? count : MAX_IO / SECTOR;

		err = device_rw(&a, false, one, at, n, false);
		if (err)
			die("%s: %" PRIu64 "+%u: %s", a.path, at, n, strerror(err));
		err = device_rw(&b, false, two, at, n, false);
		if (err)
			die("%s: %" PRIu64 "+%u: %s", b.path, at, n, strerror(err));
		if (memcmp(one, two, (size_t)n * SECTOR)) {
			unsigned int bad = 0;

			for (u32 i = 0; i < n; i++) {
				if (!memcmp(one + i * SECTOR, two + i * SECTOR, SECTOR))
					continue;
				if (bad++ >= 5)
					continue;
				printf("sector %" PRIu64 ": found \"", at + i);
				show(one + i * SECTOR);
				printf("\", want \"");
				show(two + i * SECTOR);
				printf("\"\n");
			}
			printf("%u bad sectors of %u here\n", bad, n);
			return 1;
		}
		at += n;
		count -= n;
	}
	return 0;
}

/* ---- the model ----------------------------------------------------------- */

#define CAN_BASE	1	/* what the base has there */
#define CAN_ZERO	2
#define CAN_STAMP	4	/* a stamp with lo <= generation <= hi */

struct sector {
	/* What it holds now. */
	u32 lo, hi;
	u8 can;
	/* What a crash leaves: these, stamps from dur_lo on, and what late says. */
	u8 dur_can;
	u8 late_can;
	u32 dur_gen;		/* the operation that made it durable */
	u32 dur_lo;
	u32 late_gen;		/* the newest operation that late_can comes from */
};

/* A part of the device that is modelled: a 64 TiB disk does not fit in memory. */
struct window {
	u64 first;
	u64 count;
	u64 index;		/* of its first sector in the model */
};

#define MAX_WINDOWS	64

enum kind { READ, WRITE, DSYNC, DISCARD, ZEROES, PUNCH, FLUSH, NR_KINDS };

static const char kind_letter[] = "rwsdzpf";

struct op {
	u64 sector;
	u32 count;
	u32 gen;
	enum kind kind;
};

struct ops {
	struct op *op;
	size_t nr, max;
};

static struct {
	struct device dev;
	struct device base;
	bool has_base;
	struct window window[MAX_WINDOWS];
	unsigned int nr_windows;
	struct sector *model;
	u64 nr_sectors;
	u32 gen;
	u64 seed;		/* of the stamps; of the order of things: rnd */
	u64 rnd;
	u32 unit;		/* sectors: alignment of every I/O */
	u64 block;		/* sectors; 0 unknown */
	u32 max;		/* sectors in an I/O */
	u32 weight[NR_KINDS];
	unsigned int threads;
	u64 nr_ops;
	unsigned int seconds;
	unsigned int hot;
	bool errors_ok;
	bool disjoint;
	const char *live_hook, *quiet_hook;
	u64 live_every, quiet_every;
	int journal;
	bool crash;

	pthread_mutex_t lock;	/* model, history, counters */
	pthread_cond_t idle;	/* an operation ended: its sectors are free */
	pthread_rwlock_t open;	/* held shared around I/O, for writing to reopen */
	struct ops done;	/* completed since the last flush was started */
	struct ops history;	/* for the report of a mismatch */
	struct op *active;	/* one a thread */
	u64 issued;
	u64 count[NR_KINDS];
	u64 failed[NR_KINDS];
	bool unsupported[NR_KINDS];
	time_t end;
} o = {
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

static void ops_add(struct ops *ops, const struct op *op)
{
	if (ops->nr == ops->max) {
		ops->max = ops->max ? 2 * ops->max : 1024;
		ops->op = realloc(ops->op, ops->max * sizeof(*op));
		if (!ops->op)
			die("no memory for %zu operations", ops->max);
	}
	ops->op[ops->nr++] = *op;
}

static void stamp(void *buf, u64 sector, u32 gen)
{
	u64 *w = buf, x;

	w[0] = MAGIC;
	w[1] = sector;
	w[2] = (u64)(u32)o.seed << 32 | gen;
	x = mix(w[1] * 0x100000001b3ULL ^ w[2]);
	for (int i = 3; i < WORDS; i++)
		w[i] = x += 0x9e3779b97f4a7c15ULL;
}

static struct sector *model_at(u64 sector)
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
static void model_now(const struct op *op, bool failed)
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
static void model_late(const struct op *op)
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
static void model_durable(const struct op *op)
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

static void read_base(void *buf, u64 sector, u32 count)
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
static unsigned int check_data(u64 sector, u32 count, const u8 *data, const u8 *base)
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

static void add_window(u64 first, u64 count)
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

static void make_model(void)
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

static void save_state(const char *path)
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
static void load_state(const char *path)
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

static void journal_ops(char what, const struct op *op, size_t nr)
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

static void journal_open(const char *path)
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
static u64 verify_all(void)
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

enum { OPT_SEED = 256, OPT_OPS, OPT_SECONDS, OPT_THREADS, OPT_UNIT, OPT_BLOCK, OPT_MAX,
	OPT_BASE, OPT_WINDOW, OPT_IN, OPT_OUT, OPT_JOURNAL, OPT_MIX, OPT_LIVE,
	OPT_LIVE_EVERY, OPT_QUIET, OPT_QUIET_EVERY, OPT_DISJOINT, OPT_ERRORS, OPT_HOT,
	OPT_CRASH, OPT_NO_FINAL, OPT_BREAK };

static const struct option options[] = {
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "ops", required_argument, NULL, OPT_OPS },
	{ "seconds", required_argument, NULL, OPT_SECONDS },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "unit", required_argument, NULL, OPT_UNIT },
	{ "block", required_argument, NULL, OPT_BLOCK },
	{ "max", required_argument, NULL, OPT_MAX },
	{ "hot", required_argument, NULL, OPT_HOT },
	{ "base", required_argument, NULL, OPT_BASE },
	{ "window", required_argument, NULL, OPT_WINDOW },
	{ "state", required_argument, NULL, OPT_IN },
	{ "save", required_argument, NULL, OPT_OUT },
	{ "journal", required_argument, NULL, OPT_JOURNAL },
	{ "mix", required_argument, NULL, OPT_MIX },
	{ "live-hook", required_argument, NULL, OPT_LIVE },
	{ "live-every", required_argument, NULL, OPT_LIVE_EVERY },
	{ "quiet-hook", required_argument, NULL, OPT_QUIET },
	{ "quiet-every", required_argument, NULL, OPT_QUIET_EVERY },
	{ "disjoint", no_argument, NULL, OPT_DISJOINT },
	{ "errors-ok", no_argument, NULL, OPT_ERRORS },
	{ "crash", no_argument, NULL, OPT_CRASH },
	{ "no-final", no_argument, NULL, OPT_NO_FINAL },
	{ "break-model", no_argument, NULL, OPT_BREAK },
	{ 0 }
};

static const char run_usage[] =
"usage: oracle run DEV [OPTION]...\n"
"       oracle verify DEV --state FILE [--crash] [--base FILE] [--save FILE]\n"
"  --base FILE       what an unwritten device holds (default: zeros)\n"
"  --seed N          same seed, same operations (with one thread)\n"
"  --ops N | --seconds N         how long (1000 operations)\n"
"  --threads N [--disjoint]      --disjoint: each in its own part of the device\n"
"  --unit BYTES      logical sector size\n"
"  --block BYTES     block size of the top image: where borders are, and what a\n"
"                    discard may change\n"
"  --max BYTES       largest I/O (1M)\n"
"  --hot PERCENT     share that goes to the first eighth (50)\n"
"  --window FIRST:SECTORS        only this part (may be given often)\n"
"  --mix r=40,w=40,s=1,d=3,z=4,p=2,f=2   weights: read, write, FUA write, discard,\n"
"                    BLKZEROOUT, punch, flush\n"
"  --live-hook CMD --live-every N    run CMD with I/O going on\n"
"  --quiet-hook CMD --quiet-every N  stop, close, run CMD, open again\n"
"  --errors-ok       I/O errors are counted, their sectors old or new\n"
"  --state FILE      go on from where an earlier run ended; a journal is taken too\n"
"  --save FILE       the model at the end\n"
"  --journal FILE    what is durable, synced before anything relies on it\n"
"  --crash           (verify) the device went through a crash\n"
"  --break-model     for tests of this program: forget one write\n"
"  --no-final        no verification of everything at the end\n"
"In sizes K, M and G may be used.\n";

static u64 number(const char *text)
{
	char *end;
	u64 n = strtoull(text, &end, 0);

	switch (*end) {
	case 'K':
		n <<= 10;
		end++;
		break;
	case 'M':
		n <<= 20;
		end++;
		break;
	case 'G':
		n <<= 30;
		end++;
		break;
	}
	if (end == text || *end)
		die("not a number: %s", text);
	return n;
}

static void parse_mix(char *text)
{
	memset(o.weight, 0, sizeof(o.weight));
	for (char *p = strtok(text, ","); p; p = strtok(NULL, ",")) {
		const char *k = strchr(kind_letter, p[0]);

		if (!k || p[1] != '=')
			die("bad mix: %s", p);
		o.weight[k - kind_letter] = number(p + 2);
	}
}

static int usage(void)
{
	fputs(io_usage, stderr);
	fputs(run_usage, stderr);
	return 2;
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

static void run_threads(void)
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

/* Shows that a wrong device would be noticed. */
static void break_model(void)
{
	for (size_t i = 0; i < o.history.nr; i++) {
		struct op *op = &o.history.op[i];
		struct sector *m = model_at(op->sector);

		if (op->kind == WRITE && m->can == CAN_STAMP && m->hi == op->gen) {
			m->hi = op->gen - 1;
			m->lo = m->hi;
			return;
		}
	}
}

static int oracle_run(int argc, char **argv, bool verify)
{
	const char *state = NULL, *save = NULL, *journal = NULL;
	bool final = true, broken = false;
	u64 bad = 0;
	int c;

	o.rnd = 1;
	o.seed = o.rnd;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		u64 first, count;

		switch (c) {
		case OPT_SEED:
			o.rnd = number(optarg);
			o.seed = o.rnd;
			break;
		case OPT_OPS:
			o.nr_ops = number(optarg);
			break;
		case OPT_SECONDS:
			o.seconds = number(optarg);
			break;
		case OPT_THREADS:
			o.threads = number(optarg);
			break;
		case OPT_UNIT:
			o.unit = number(optarg) / SECTOR;
			break;
		case OPT_BLOCK:
			o.block = number(optarg) / SECTOR;
			break;
		case OPT_MAX:
			o.max = number(optarg) / SECTOR;
			break;
		case OPT_HOT:
			o.hot = number(optarg);
			break;
		case OPT_BASE:
			o.base.path = optarg;
			o.has_base = true;
			break;
		case OPT_WINDOW:
			if (sscanf(optarg, "%" SCNu64 ":%" SCNu64, &first, &count) != 2)
				die("bad window: %s", optarg);
			add_window(first, count);
			break;
		case OPT_IN:
			state = optarg;
			break;
		case OPT_OUT:
			save = optarg;
			break;
		case OPT_JOURNAL:
			journal = optarg;
			break;
		case OPT_MIX:
			parse_mix(optarg);
			break;
		case OPT_LIVE:
			o.live_hook = optarg;
			break;
		case OPT_LIVE_EVERY:
			o.live_every = number(optarg);
			break;
		case OPT_QUIET:
			o.quiet_hook = optarg;
			break;
		case OPT_QUIET_EVERY:
			o.quiet_every = number(optarg);
			break;
		case OPT_DISJOINT:
			o.disjoint = true;
			break;
		case OPT_ERRORS:
			o.errors_ok = true;
			break;
		case OPT_CRASH:
			o.crash = true;
			break;
		case OPT_NO_FINAL:
			final = false;
			break;
		case OPT_BREAK:
			broken = true;
			break;
		default:
			return usage();
		}
	}
	if (optind + 1 != argc || !o.unit || !o.threads || !o.max ||
	    (verify && !state))
		return usage();
	if (!o.live_every)
		o.live_every = 200;
	if (!o.quiet_every)
		o.quiet_every = 200;
	if (o.max > MAX_IO / SECTOR)
		o.max = MAX_IO / SECTOR;
	o.dev.path = argv[optind];
	device_open(&o.dev, !verify, true);
	if (o.has_base)
		device_open(&o.base, false, false);
	if (state) {
		load_state(state);
		/* What was in flight when the earlier run ended had such numbers. */
		o.gen += verify ? 0 : 1000000;
	} else {
		if (!o.nr_windows)
			add_window(0, o.dev.sectors / o.unit * o.unit);
		make_model();
	}
	if (journal)
		journal_open(journal);
	if (!verify)
		run_threads();
	if (broken)
		break_model();
	if (final || verify)
		bad = verify_all();
	if (bad) {
		printf("%" PRIu64 " bad sectors\n", bad);
		return 1;
	}
	if (save)
		save_state(save);
	return 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 2 && !strcmp(argv[1], "io"))
		return oracle_io(argc - 1, argv + 1);
	if (argc > 2 && !strcmp(argv[1], "cmp"))
		return oracle_cmp(argc - 1, argv + 1);
	if (argc > 2 && !strcmp(argv[1], "run"))
		return oracle_run(argc - 1, argv + 1, false);
	if (argc > 2 && !strcmp(argv[1], "verify"))
		return oracle_run(argc - 1, argv + 1, true);
	return usage();
}
