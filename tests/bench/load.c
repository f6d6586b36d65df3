// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * load: I/O on a block device, the same each time, and what it cost.
 *
 *	load [options] DEVICE
 *
 * Slots of --bs bytes are visited in an order that the seed alone decides, past the
 * page cache.  Some warm up, the rest are measured.  One line is printed:
 *
 *	ns mean, ns least, reads, writes, flushes, bytes, p50, p99
 *
 * ns is per operation, of the monotonic clock: in a guest whose clock counts
 * instructions, these are instructions.  The mean is that of all batches of --batch
 * operations, with --no-ticks only of those that no tick of the timer fell into; the
 * least is that of the cheapest batch.  Reads to bytes are per operation and from the
 * block layer's statistics of the --stat devices.  p50 and p99 are of single operations,
 * in ns, with --latency only.
 */
#define _GNU_SOURCE
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <liburing.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define HUGE_PAGE	(2UL << 20)
#define MAX_STATS	8
#define MAX_DEPTH	128

enum engine {
	PSYNC,
	URING,
};

enum op {
	READ,
	WRITE,
	FSYNC,			/* a write and an fdatasync */
	STORM,			/* reads, and a 4 KiB write each tenth time */
};

static struct {
	const char *device;
	enum engine engine;
	enum op op;
	uint64_t bs;
	uint64_t start;		/* of the region */
	uint64_t groups;	/* it has so many groups of slots ... */
	uint64_t stride;	/* ... which lie so far apart, ... */
	uint64_t slots;		/* ... have so many slots ... */
	uint64_t offset;	/* ... and begin so far behind their start */
	uint64_t warm, count, batch;
	uint64_t seed;
	uint64_t depth, threads, cpus;
	bool sequential, latency, align, mark, no_ticks;
	const char *trace;	/* file that gets 1 and 0 around what is measured */
	const char *stat[MAX_STATS];
	unsigned int nr_stats;
} opt = {
	.bs = 4096,
	.groups = 1,
	.stride = 0,
	.slots = 1,
	.warm = 256,
	.count = 1024,
	.batch = 64,
	.seed = 1,
	.depth = 32,
	.threads = 1,
	.cpus = 1,
};

struct counters {
	double reads, writes, flushes, sectors;
};

static uint64_t *order;		/* offsets, in the order in which they are visited */
static uint64_t nr_order;
static int fd;

static uint64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/*
 * For durations.  The monotonic clock is scaled by what the kernel found the counter's
 * frequency to be, a bit differently each time; where it counts instructions, the
 * counter itself is exact.
 */
static uint64_t stamp(void)
{
#ifdef __x86_64__
	if (opt.no_ticks)
		return __builtin_ia32_rdtsc();
#endif
	return now();
}

static uint64_t random64(void)
{
	static uint64_t state;

	/* splitmix64's step: any seed will do */
	state += 0x9e3779b97f4a7c15ULL * (opt.seed | 1);
	uint64_t z = state;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return z ^ z >> 31;
}

static void make_order(void)
{
	uint64_t g, s, n = 0;

	nr_order = opt.groups * opt.slots;
	order = calloc(nr_order, sizeof(*order));
	if (!order)
		err(1, "calloc");
	for (g = 0; g < opt.groups; g++)
		for (s = 0; s < opt.slots; s++)
			order[n++] = opt.start + g * opt.stride + opt.offset + s * opt.bs;
	if (opt.sequential)
		return;
	for (n = nr_order - 1; n; n--) {
		uint64_t other = random64() % (n + 1), tmp = order[n];

		order[n] = order[other];
		order[other] = tmp;
	}
}

/*
 * A boot: every slot once, in an order of its own, and as many reads of slots that were
 * read already, the first of them most often (Zipf).
 */
static void make_storm(void)
{
	uint64_t n = nr_order, i, *once = order;
	double *weight = calloc(n, sizeof(*weight)), sum = 0;

	order = calloc(2 * n, sizeof(*order));
	if (!weight || !order)
		err(1, "calloc");
	for (i = 0; i < n; i++) {
		double at;
		uint64_t low = 0, high = i;

		sum += 1.0 / (i + 1);
		weight[i] = sum;
		order[2 * i] = once[i];
		at = (random64() >> 11) * (1.0 / (1ULL << 53)) * sum;
		while (low < high) {
			uint64_t mid = (low + high) / 2;

			if (weight[mid] < at)
				low = mid + 1;
			else
				high = mid;
		}
		order[2 * i + 1] = once[low];
	}
	nr_order = 2 * n;
	free(weight);
	free(once);
}

/* Slots are visited anew when all of them were. */
static uint64_t offset_of(uint64_t i)
{
	return order[i % nr_order];
}

static void add_stat(const char *name, struct counters *sum)
{
	uint64_t f[17] = { 0 };
	char path[256];
	unsigned int i;
	FILE *file;

	snprintf(path, sizeof(path), "/sys/class/block/%s/stat", name);
	file = fopen(path, "r");
	if (!file)
		err(1, "%s", path);
	for (i = 0; i < 17; i++)
		if (fscanf(file, "%" SCNu64, &f[i]) != 1)
			break;
	fclose(file);
	sum->reads += f[0];
	sum->writes += f[4];
	sum->flushes += f[15];
	sum->sectors += f[2] + f[6];
}

static struct counters get_stats(void)
{
	struct counters sum = { 0 };
	unsigned int i;

	for (i = 0; i < opt.nr_stats; i++)
		add_stat(opt.stat[i], &sum);
	return sum;
}

/*
 * Sleep to a beginning: the kernel's timers that are due each tick, each second, or each
 * five seconds are as far away as the last time.
 */
static void align(void)
{
	struct timespec ts;

	if (!opt.align)
		return;
	clock_gettime(CLOCK_MONOTONIC, &ts);
	ts.tv_sec = (ts.tv_sec / 10 + 1) * 10;
	ts.tv_nsec = 500000000;
	clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &ts, NULL);
}

/*
 * All buffers are in huge pages, if there are some: how many pieces of memory an I/O has
 * is no chance then.
 */
static char *arena;
static size_t arena_left;
static pthread_mutex_t arena_lock = PTHREAD_MUTEX_INITIALIZER;

static void arena_make(uint64_t nr)
{
	size_t size = (nr * opt.bs + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
	const int flags = MAP_PRIVATE | MAP_ANONYMOUS;

	arena = mmap(NULL, size, PROT_READ | PROT_WRITE, flags | MAP_HUGETLB, -1, 0);
	if (arena == MAP_FAILED)
		arena = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, -1, 0);
	if (arena == MAP_FAILED)
		err(1, "no memory");
	memset(arena, 0xa5, size);
	arena_left = size;
}

/*
 * When the timer ticks: it takes some thousand instructions in what is measured just
 * then, which have nothing to do with it, and the mean would depend on how many ticks
 * there happen to be.  A tick shows as a gap in the clock.
 */
static struct {
	uint64_t period, begin, end;	/* begin and end of the gap, modulo period */
	int64_t offset;			/* from stamp() to now() */
} tick;

static uint64_t next_gap(uint64_t *end)
{
	uint64_t last = now(), t, limit = last + 100000000;

	while ((t = now()) < limit) {
		if (t - last > 800) {
			*end = t;
			return last;
		}
		last = t;
	}
	errx(1, "no tick in 100 ms");
}

static void find_ticks(void)
{
	uint64_t first, second, end, i;

	if (!opt.no_ticks)
		return;
	/* Other timers may be due at one of them; the least distance is the period. */
	first = next_gap(&end);
	for (i = 0; i < 4; i++) {
		second = next_gap(&end);
		if (!tick.period || second - first < tick.period)
			tick.period = second - first;
		first = second;
	}
	/* HZ is 250 or 1000. */
	tick.period = (tick.period + 125000) / 250000 * 250000;
	tick.begin = first % tick.period;
	tick.end = tick.begin + (end - first);
}

/* Did a tick fall between the two? */
static bool ticked(uint64_t from, uint64_t to)
{
	uint64_t at;

	if (!opt.no_ticks)
		return false;
	from += tick.offset;
	to += tick.offset;
	/* The last tick that began before @to. */
	at = to - (to - tick.begin) % tick.period;
	return at + (tick.end - tick.begin) > from;
}

static void *buffer(void)
{
	void *buf;

	pthread_mutex_lock(&arena_lock);
	if (arena_left < opt.bs)
		errx(1, "no buffer is left");
	arena_left -= opt.bs;
	buf = arena + arena_left;
	pthread_mutex_unlock(&arena_lock);
	return buf;
}

static void one(void *buf, uint64_t i)
{
	uint64_t offset = offset_of(i);
	ssize_t r, size = opt.bs;

	if (opt.op == STORM && i % 10 == 9) {
		size = 4096;
		r = pwrite(fd, buf, size, offset);
	} else if (opt.op == READ || opt.op == STORM) {
		r = pread(fd, buf, size, offset);
	} else {
		r = pwrite(fd, buf, size, offset);
	}
	if (r != size)
		err(1, "%s: %" PRIu64, opt.device, offset);
	if (opt.op == FSYNC && fdatasync(fd))
		err(1, "%s: fdatasync", opt.device);
}

/* ---- io_uring ------------------------------------------------------------- */

static struct io_uring ring;
static struct iovec *ring_bufs;

static void ring_open(void)
{
	unsigned int i;
	int r;

	r = io_uring_queue_init(2 * opt.depth, &ring, 0);
	if (r)
		errx(1, "io_uring: %s", strerror(-r));
	ring_bufs = calloc(opt.depth, sizeof(*ring_bufs));
	for (i = 0; i < opt.depth; i++) {
		ring_bufs[i].iov_base = buffer();
		ring_bufs[i].iov_len = opt.bs;
	}
	r = io_uring_register_buffers(&ring, ring_bufs, opt.depth);
	if (!r)
		r = io_uring_register_files(&ring, &fd, 1);
	if (r)
		errx(1, "io_uring: register: %s", strerror(-r));
}

static void ring_prepare(unsigned int slot, uint64_t i)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&ring);
	uint64_t offset = offset_of(i);

	if (!sqe)
		errx(1, "io_uring: no room");
	if (opt.op == READ)
		io_uring_prep_read_fixed(sqe, 0, ring_bufs[slot].iov_base, opt.bs, offset,
					 slot);
	else
		io_uring_prep_write_fixed(sqe, 0, ring_bufs[slot].iov_base, opt.bs, offset,
					  slot);
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data64(sqe, slot);
	if (opt.op != FSYNC)
		return;
	/* The write reports with the fsync, or in its stead if it fails. */
	sqe->flags |= IOSQE_IO_LINK | IOSQE_CQE_SKIP_SUCCESS;
	sqe = io_uring_get_sqe(&ring);
	if (!sqe)
		errx(1, "io_uring: no room");
	io_uring_prep_fsync(sqe, 0, IORING_FSYNC_DATASYNC);
	sqe->flags |= IOSQE_FIXED_FILE;
	io_uring_sqe_set_data64(sqe, slot);
}

static unsigned int ring_reap(struct io_uring_cqe *cqe)
{
	unsigned int slot = io_uring_cqe_get_data64(cqe);

	if (cqe->res != (int)opt.bs && (opt.op != FSYNC || cqe->res))
		errx(1, "%s: io_uring: %s", opt.device,
		     cqe->res < 0 ? strerror(-cqe->res) : "short");
	io_uring_cqe_seen(&ring, cqe);
	return slot;
}

/* @nr operations from @first on, --depth of them at a time. */
static void ring_run(uint64_t first, uint64_t nr)
{
	while (nr) {
		unsigned int i, n = nr < opt.depth ? nr : opt.depth;
		int r;

		for (i = 0; i < n; i++)
			ring_prepare(i, first + i);
		r = io_uring_submit_and_wait(&ring, n);
		if (r < 0)
			errx(1, "io_uring: submit: %s", strerror(-r));
		for (i = 0; i < n; i++) {
			struct io_uring_cqe *cqe;

			r = io_uring_wait_cqe(&ring, &cqe);
			if (r)
				errx(1, "io_uring: wait: %s", strerror(-r));
			ring_reap(cqe);
		}
		first += n;
		nr -= n;
	}
}

/* The depth is kept: each operation that ends is followed by another one. */
static void ring_latency(uint64_t first, uint64_t nr, uint64_t *took)
{
	uint64_t begun[MAX_DEPTH], issued = 0, done = 0;
	unsigned int slot;

	for (slot = 0; slot < opt.depth && issued < nr; slot++) {
		begun[slot] = now();
		ring_prepare(slot, first + issued++);
	}
	while (done < nr) {
		struct io_uring_cqe *cqe;
		int r = io_uring_submit_and_wait(&ring, 1);

		if (r < 0)
			errx(1, "io_uring: submit: %s", strerror(-r));
		while (!io_uring_peek_cqe(&ring, &cqe)) {
			slot = ring_reap(cqe);
			took[done++] = now() - begun[slot];
			if (issued < nr) {
				begun[slot] = now();
				ring_prepare(slot, first + issued++);
			}
		}
	}
}

/* ---- threads ------------------------------------------------------------------ */

static pthread_barrier_t barrier;

struct thread {
	pthread_t id;
	unsigned int nr;
	uint64_t begin, end;
};

/* Each has its own slots: every opt.threads'th of them. */
static void *thread_run(void *arg)
{
	struct thread *t = arg;
	void *buf = buffer();
	uint64_t i;

	if (opt.op == FSYNC && opt.no_ticks) {
		/* One after the other, until each waits: no chance in who runs when. */
		struct sched_param one = { .sched_priority = 1 };

		if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &one))
			errx(1, "no real-time priority");
	} else {
		cpu_set_t set;

		CPU_ZERO(&set);
		CPU_SET(t->nr % opt.cpus, &set);
		sched_setaffinity(0, sizeof(set), &set);
	}
	for (i = t->nr; i < opt.warm; i += opt.threads)
		one(buf, i);
	pthread_barrier_wait(&barrier);
	pthread_barrier_wait(&barrier);
	t->begin = stamp();
	for (i = t->nr; i < opt.count; i += opt.threads)
		one(buf, opt.warm + i);
	t->end = stamp();
	return NULL;
}

/* ---- */

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void report(double mean, double least, const struct counters *a,
		   const struct counters *b, uint64_t *took)
{
	double n = opt.count;
	uint64_t p50 = 0, p99 = 0;

	if (took) {
		qsort(took, opt.count, sizeof(*took), compare);
		p50 = took[opt.count / 2];
		p99 = took[opt.count * 99 / 100];
	}
	printf("%.1f %.1f %.3f %.3f %.3f %.0f %" PRIu64 " %" PRIu64 "\n", mean, least,
	       (b->reads - a->reads) / n, (b->writes - a->writes) / n,
	       (b->flushes - a->flushes) / n, (b->sectors - a->sectors) * 512 / n, p50, p99);
}

static void run_threads(void)
{
	struct thread *threads = calloc(opt.threads, sizeof(*threads));
	uint64_t begin = UINT64_MAX, end = 0;
	struct counters before, after;
	unsigned int i;

	pthread_barrier_init(&barrier, NULL, opt.threads + 1);
	for (i = 0; i < opt.threads; i++) {
		threads[i].nr = i;
		if (pthread_create(&threads[i].id, NULL, thread_run, &threads[i]))
			errx(1, "no thread");
	}
	pthread_barrier_wait(&barrier);
	align();
	before = get_stats();
	pthread_barrier_wait(&barrier);
	for (i = 0; i < opt.threads; i++) {
		pthread_join(threads[i].id, NULL);
		begin = threads[i].begin < begin ? threads[i].begin : begin;
		end = threads[i].end > end ? threads[i].end : end;
	}
	after = get_stats();
	report((double)(end - begin) / opt.count, 0, &before, &after, NULL);
	free(threads);
}

/* What tests/bench/profile.c looks out for. */
static void mark(void)
{
#ifdef __x86_64__
	if (opt.mark)
		__asm__ volatile("xchg %%bx, %%bx" : : : "memory");
#endif
}

static void trace(const char *on)
{
	int file;

	if (!opt.trace)
		return;
	file = open(opt.trace, O_WRONLY);
	if (file < 0 || write(file, on, 1) != 1)
		err(1, "%s", opt.trace);
	close(file);
}

static void run(void)
{
	uint64_t nr_batches = opt.count / opt.batch, nr_used = 0, i, j, last;
	uint64_t *batches = calloc(nr_batches, sizeof(*batches)), *took = NULL;
	struct counters before, after;
	void *buf = buffer();
	double sum = 0;

	if (opt.latency) {
		took = malloc(opt.count * sizeof(*took));
		memset(took, 0xff, opt.count * sizeof(*took));
	}
	if (opt.engine == URING)
		ring_open();
	if (opt.engine == URING)
		ring_run(0, opt.warm);
	for (i = 0; i < opt.warm && opt.engine == PSYNC; i++)
		one(buf, i);
	find_ticks();
	align();
	before = get_stats();
	trace("1");
	tick.offset = now() - stamp();
	mark();
	last = stamp();
	if (opt.latency && opt.engine == URING) {
		ring_latency(opt.warm, opt.count, took);
		sum = stamp() - last;
		nr_used = nr_batches;
		batches[0] = sum / nr_batches;
	} else {
		for (j = 0; j < nr_batches; j++) {
			uint64_t first = opt.warm + j * opt.batch, t;

			if (opt.engine == URING) {
				ring_run(first, opt.batch);
			} else {
				for (i = 0; i < opt.batch; i++) {
					uint64_t t0 = took ? now() : 0;

					one(buf, first + i);
					if (took)
						took[j * opt.batch + i] = now() - t0;
				}
			}
			t = stamp();
			batches[j] = t - last;
			if (!ticked(last, t)) {
				sum += batches[j];
				nr_used++;
			}
			last = t;
		}
	}
	mark();
	trace("0");
	after = get_stats();
	/* They take longer than it is from tick to tick. */
	for (j = 0; !nr_used && j < nr_batches; j++)
		sum += batches[j];
	if (!nr_used)
		nr_used = nr_batches;
	qsort(batches, nr_batches, sizeof(*batches), compare);
	report(sum / (nr_used * opt.batch), (double)batches[0] / opt.batch, &before, &after,
	       took);
}

/* ---- options -------------------------------------------------------------------- */

static uint64_t number(const char *arg)
{
	static const char units[] = "KMG";
	char *end;
	uint64_t n = strtoull(arg, &end, 0);
	const char *unit = *end ? strchr(units, *end) : NULL;

	if (unit) {
		n <<= 10 * (unit - units + 1);
		end++;
	}
	if (end == arg || *end)
		errx(2, "not a number: %s", arg);
	return n;
}

static enum op parse_op(const char *arg)
{
	if (!strcmp(arg, "read"))
		return READ;
	if (!strcmp(arg, "write"))
		return WRITE;
	if (!strcmp(arg, "fsync"))
		return FSYNC;
	errx(2, "not read, write or fsync: %s", arg);
}

static const struct option options[] = {
	{ "uring", no_argument, NULL, 'u' },
	{ "op", required_argument, NULL, 'o' },
	{ "bs", required_argument, NULL, 'b' },
	{ "start", required_argument, NULL, 's' },
	{ "groups", required_argument, NULL, 'g' },
	{ "stride", required_argument, NULL, 'S' },
	{ "slots", required_argument, NULL, 'k' },
	{ "offset", required_argument, NULL, 'O' },
	{ "warm", required_argument, NULL, 'w' },
	{ "count", required_argument, NULL, 'n' },
	{ "batch", required_argument, NULL, 'B' },
	{ "seed", required_argument, NULL, 'r' },
	{ "depth", required_argument, NULL, 'd' },
	{ "threads", required_argument, NULL, 't' },
	{ "sequential", no_argument, NULL, 'q' },
	{ "storm", no_argument, NULL, 'z' },
	{ "cpus", required_argument, NULL, 'c' },
	{ "trace", required_argument, NULL, 'T' },
	{ "latency", no_argument, NULL, 'l' },
	{ "align", no_argument, NULL, 'a' },
	{ "mark", no_argument, NULL, 'm' },
	{ "no-ticks", no_argument, NULL, 'x' },
	{ "stat", required_argument, NULL, 'D' },
	{ NULL, 0, NULL, 0 },
};

static void parse_one(int c)
{
	switch (c) {
	case 'u':
		opt.engine = URING;
		break;
	case 'o':
		opt.op = parse_op(optarg);
		break;
	case 'z':
		opt.op = STORM;
		break;
	case 'q':
		opt.sequential = true;
		break;
	case 'l':
		opt.latency = true;
		break;
	case 'a':
		opt.align = true;
		break;
	case 'x':
		opt.no_ticks = true;
		break;
	case 'm':
		opt.mark = true;
		break;
	case 'T':
		opt.trace = optarg;
		break;
	case 'D':
		if (opt.nr_stats == MAX_STATS)
			errx(2, "too many --stat");
		opt.stat[opt.nr_stats++] = optarg;
		break;
	default:
		exit(2);
	}
}

static void parse(int argc, char **argv)
{
	static const struct {
		char c;
		uint64_t *value;
	} numbers[] = {
		{ 'b', &opt.bs }, { 's', &opt.start }, { 'g', &opt.groups },
		{ 'S', &opt.stride }, { 'k', &opt.slots }, { 'O', &opt.offset },
		{ 'w', &opt.warm }, { 'n', &opt.count }, { 'B', &opt.batch },
		{ 'r', &opt.seed }, { 'd', &opt.depth }, { 't', &opt.threads },
		{ 'c', &opt.cpus },
	};
	size_t i;
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		for (i = 0; i < sizeof(numbers) / sizeof(*numbers); i++)
			if (numbers[i].c == c)
				break;
		if (i < sizeof(numbers) / sizeof(*numbers))
			*numbers[i].value = number(optarg);
		else
			parse_one(c);
	}
	if (optind != argc - 1)
		errx(2, "which device?");
	opt.device = argv[optind];
	if (!opt.bs || opt.bs % 512 || !opt.batch || !opt.groups || !opt.slots ||
	    !opt.count || opt.count % opt.batch || !opt.depth || opt.depth > MAX_DEPTH ||
	    !opt.threads || !opt.cpus)
		errx(2, "these numbers do not fit together");
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	/* Whether a read changes the node's atime depends on the time of day. */
	fd = open(opt.device, (opt.op == READ ? O_RDONLY : O_RDWR) | O_DIRECT | O_NOATIME);
	if (fd < 0)
		err(1, "%s", opt.device);
	make_order();
	if (opt.op == STORM)
		make_storm();
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		warn("mlockall");
	arena_make(1 + (opt.engine == URING ? opt.depth : opt.threads));
	if (opt.threads > 1)
		run_threads();
	else
		run();
	return 0;
}
