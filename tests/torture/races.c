// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Races: everything that a clone can be asked for, from many threads at once.
 *
 *	races [-s SEED] [-t SECONDS] SCENE SMALL
 *
 * Four writers share each block, slot by slot, and mostly work in one that is new, so that
 * first writes meet; what they wrote is read back.  Beside them: discards and zeroes of the
 * blocks that are being written, flushes and commits, large reads, suspend and resume,
 * reloads, status and messages, caches dropped, a second clone that wants the same delta,
 * and one that comes and goes over the same base; a clone that is written to and removed at
 * once, dirty, again and again; and one whose page of the sector bitmap has to be loaded
 * each time that the shrinker took it.
 *
 * Each of these meetings is counted (enum scene), and none may be missing in the end.
 *
 * A sector holds the last thing its owner wrote; if its block was discarded or zeroed since
 * that write began, what is below, or zeros.  In the end the image is read in memory and
 * must say the same.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "image.h"

#define WRITERS		4
#define SLOT		8
#define MAX_THREADS	20
#define STAMP		0x7365636172736863ULL

struct sector {
	u32 gen;		/* the owner's last write; 0: none */
	u32 began;		/* releases of the block that had ended when it began */
};

struct block {
	u32 starts, ends;	/* of discards and zeroes */
	u32 writing;		/* writes under way */
	bool written;		/* by one that has ended, since it was released */
};

/* What has really met */
enum scene {
	FIRST_WRITES, WRITE_AND_RELEASE, FLUSHES_AT_ONCE, COMMITS, SUSPENDS, RELOADS, STATUSES,
	MESSAGES, SHRINKS, PAGES_LOADED, REFUSED, STOLEN, VISITS, REMOVALS, NR_SCENES
};

static const char * const scene_names[NR_SCENES] = {
	"first writes that met in a block", "writes that met a release of their block",
	"flushes and commits that met another", "commits", "suspends", "reloads",
	"statuses", "messages", "shrinker runs", "bitmap pages loaded again",
	"second opens refused", "second opens that got it", "visits", "removals",
};

struct thread {
	pthread_t id;
	void *(*run)(void *data);
	const char *what;
	unsigned int nr;
	struct rng rng;
	u8 *buf;
	u64 count;
	u64 seen;
};

static struct {
	struct image layer[3];	/* delta, middle, base */
	struct image old[3];	/* the same, with the delta as it was built */
	char table[500], other[500];
	int fd;
	struct sector *sector;
	struct block *block;
	u32 nr_blocks;
	u32 hot;
	bool stop;
	unsigned int bad;
	u32 met[NR_SCENES];
	u32 flushing;
	char small[500], small_raw[32];	/* another clone's table, and its delta */
	char probe[500], probe_dev[32];
	u64 probe_sector;
	struct thread thread[MAX_THREADS];
	unsigned int nr_threads;
	pthread_mutex_t device;	/* suspend, reload */
} t = { .device = PTHREAD_MUTEX_INITIALIZER };

static const u8 no_guid[16];
static const char name[] = "raced", second[] = "raced-second", guest[] = "raced-other";

static void bad(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void bad(const char *fmt, ...)
{
	va_list ap;

	if (__atomic_add_fetch(&t.bad, 1, __ATOMIC_RELAXED) > 20)
		return;
	printf("# ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static u32 load(const u32 *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static bool stopped(struct thread *th)
{
	__atomic_add_fetch(&th->count, 1, __ATOMIC_RELAXED);
	return __atomic_load_n(&t.stop, __ATOMIC_RELAXED);
}

static void met(enum scene scene)
{
	__atomic_add_fetch(&t.met[scene], 1, __ATOMIC_RELAXED);
}

static void flush_begins(void)
{
	if (__atomic_add_fetch(&t.flushing, 1, __ATOMIC_SEQ_CST) > 1)
		met(FLUSHES_AT_ONCE);
}

static void flush_ends(void)
{
	__atomic_sub_fetch(&t.flushing, 1, __ATOMIC_SEQ_CST);
}

static void nap(unsigned int ms)
{
	usleep(ms * 1000);
}

/* ---- what a sector may hold ---- */

static void stamp(u8 *p, u64 sector, u32 gen)
{
	put(p, 8, STAMP);
	put(p + 8, 8, sector);
	put(p + 16, 8, gen);
	for (int i = 24; i < SECTOR; i += 8)
		put(p + i, 8, sector * 0x9e3779b97f4a7c15ULL ^ (u64)gen << 20 ^ i);
}

static bool is_zero(const u8 *p)
{
	return !p[0] && !memcmp(p, p + 1, SECTOR - 1);
}

static bool is_below(u64 sector, const u8 *data)
{
	const u8 *p = chain_sector(t.layer + 1, 2, sector);

	return p && !memcmp(p, data, SECTOR);
}

static bool is_old(u64 sector, const u8 *data)
{
	return !memcmp(chain_sector(t.old, 3, sector), data, SECTOR);
}

/* Nobody writes to it now; discards and zeroes may be under way. */
static bool allowed(u64 sector, const u8 *data)
{
	struct sector *s = &t.sector[sector];
	u8 want[SECTOR];

	if (s->gen) {
		stamp(want, sector, s->gen);
		if (!memcmp(want, data, SECTOR))
			return true;
	} else if (is_old(sector, data)) {
		return true;
	}
	/* The counter is read after the data were. */
	return load(&t.block[sector / t.layer[0].block].starts) != s->began &&
	       (is_below(sector, data) || is_zero(data));
}

/* Whoever wrote it: is it of this place? */
static bool plausible(u64 sector, const u8 *data)
{
	u8 want[SECTOR];

	if (get64(data) == STAMP) {
		stamp(want, sector, get64(data + 16));
		return !memcmp(want, data, SECTOR);
	}
	return is_zero(data) || is_below(sector, data) || is_old(sector, data);
}

/* ---- threads ---- */

static u64 choose_block(struct thread *th)
{
	return rng_below(&th->rng, 3) ? load(&t.hot) : rng_below(&th->rng, t.nr_blocks);
}

static void write_begins(struct block *b)
{
	if (__atomic_add_fetch(&b->writing, 1, __ATOMIC_SEQ_CST) > 1 &&
	    !__atomic_load_n(&b->written, __ATOMIC_SEQ_CST))
		met(FIRST_WRITES);
	if (load(&b->starts) != load(&b->ends))
		met(WRITE_AND_RELEASE);
}

static void write_ends(struct block *b)
{
	__atomic_store_n(&b->written, true, __ATOMIC_SEQ_CST);
	__atomic_sub_fetch(&b->writing, 1, __ATOMIC_SEQ_CST);
}

static void *writer(void *data)
{
	struct thread *th = data;
	u64 per_block = t.layer[0].block / (SLOT * WRITERS);

	while (!stopped(th)) {
		u64 block = choose_block(th);
		u64 slot = rng_below(&th->rng, rng_below(&th->rng, 2) ? 8 : per_block);
		u64 first = block * t.layer[0].block + (slot * WRITERS + th->nr) * SLOT;
		u32 skip = rng_below(&th->rng, 4) ? 0 : rng_below(&th->rng, SLOT);
		u32 n = rng_below(&th->rng, 4) ? SLOT - skip :
			1 + rng_below(&th->rng, SLOT - skip);
		struct iovec iov = { .iov_base = th->buf, .iov_len = n * SECTOR };
		static u32 gens;
		u32 gen = __atomic_add_fetch(&gens, 1, __ATOMIC_RELAXED);

		first += skip;
		for (u32 i = 0; i < n; i++) {
			stamp(th->buf + i * SECTOR, first + i, gen);
			t.sector[first + i].began = load(&t.block[block].ends);
			t.sector[first + i].gen = gen;
		}
		write_begins(&t.block[block]);
		if (pwritev2(t.fd, &iov, 1, first * SECTOR, rng_below(&th->rng, 10) ? 0 :
			     RWF_DSYNC) != (ssize_t)iov.iov_len)
			bad("write of %u sectors at %llu: %s", n, (unsigned long long)first,
			    strerror(errno));
		write_ends(&t.block[block]);
		if (rng_below(&th->rng, 3))
			continue;
		first -= skip;
		if (pread(t.fd, th->buf, SLOT * SECTOR, first * SECTOR) != SLOT * SECTOR)
			bad("read at %llu: %s", (unsigned long long)first, strerror(errno));
		for (u32 i = 0; i < SLOT; i++)
			if (!allowed(first + i, th->buf + i * SECTOR))
				bad("sector %llu: generation %llu of %llu, not %u",
				    (unsigned long long)first + i,
				    (unsigned long long)get64(th->buf + i * SECTOR + 16),
				    (unsigned long long)get64(th->buf + i * SECTOR + 8),
				    t.sector[first + i].gen);
	}
	return NULL;
}

static void *reader(void *data)
{
	struct thread *th = data;
	const u32 n = 256;

	while (!stopped(th)) {
		u64 first = rng_below(&th->rng, t.layer[0].sectors - n);

		if (pread(t.fd, th->buf, n * SECTOR, first * SECTOR) != (ssize_t)n * SECTOR)
			bad("read at %llu: %s", (unsigned long long)first, strerror(errno));
		for (u32 i = 0; i < n; i++) {
			u8 *p = th->buf + i * SECTOR;
			int tries = 0;

			/* Who reads what is being written may get a part. */
			while (!plausible(first + i, p) && tries++ < 5)
				if (pread(t.fd, p, SECTOR, (first + i) * SECTOR) != SECTOR)
					bad("read: %s", strerror(errno));
			if (tries > 5)
				bad("sector %llu holds what nobody wrote there",
				    (unsigned long long)first + i);
		}
		nap(5);
	}
	return NULL;
}

static void *releaser(void *data)
{
	struct thread *th = data;

	while (!stopped(th)) {
		u64 block = choose_block(th);
		u64 range[2] = { block * t.layer[0].block * SECTOR, t.layer[0].block * SECTOR };

		__atomic_add_fetch(&t.block[block].starts, 1, __ATOMIC_SEQ_CST);
		if (ioctl(t.fd, rng_below(&th->rng, 3) ? BLKDISCARD : BLKZEROOUT, range))
			bad("release of block %llu: %s", (unsigned long long)block,
			    strerror(errno));
		__atomic_store_n(&t.block[block].written, false, __ATOMIC_SEQ_CST);
		__atomic_add_fetch(&t.block[block].ends, 1, __ATOMIC_SEQ_CST);
		nap(rng_below(&th->rng, 30));
	}
	return NULL;
}

static void *flusher(void *data)
{
	struct thread *th = data;

	while (!stopped(th)) {
		flush_begins();
		if (fdatasync(t.fd))
			bad("flush: %s", strerror(errno));
		flush_ends();
		nap(rng_below(&th->rng, 4));
	}
	return NULL;
}

/* A new block to meet in */
static void *heater(void *data)
{
	struct thread *th = data;

	while (!stopped(th)) {
		__atomic_store_n(&t.hot, rng_below(&th->rng, t.nr_blocks), __ATOMIC_SEQ_CST);
		nap(20 + rng_below(&th->rng, 100));
	}
	return NULL;
}

static void *suspender(void *data)
{
	struct thread *th = data;

	while (!stopped(th)) {
		bool reload = th->count % 2;
		int r, tries = 0;

		pthread_mutex_lock(&t.device);
		if (reload && dm_load(name, t.table, false))
			bad("load: %s", strerror(errno));
		met(reload ? RELOADS : SUSPENDS);
		if ((!reload || rng_below(&th->rng, 2)) && dm_suspend(name))
			bad("suspend: %s", strerror(errno));
		/* The other one may have taken the delta while we slept. */
		while ((r = dm_resume(name)) && errno == EBUSY && tries++ < 500)
			nap(20);
		if (r)
			bad("resume: %s", strerror(errno));
		pthread_mutex_unlock(&t.device);
		nap(100 + rng_below(&th->rng, 600));
	}
	return NULL;
}

/* The counter of the target begins anew with each table, and when told to. */
static void count_commits(u32 now)
{
	static u32 before;

	if (now > before)
		__atomic_add_fetch(&t.met[COMMITS], now - before, __ATOMIC_RELAXED);
	before = now;
}

static void *asker(void *data)
{
	static const char * const messages[] = { "stats", "commit", "reset_stats", "stats" };
	struct thread *th = data;
	char text[1000];

	while (!stopped(th)) {
		const char *message = messages[rng_below(&th->rng, 4)];

		if (dm_status(name, text, sizeof(text)))
			bad("status: %s", strerror(errno));
		else if (strstr(text, "fail") || strstr(text, "out_of_space"))
			bad("status: %s", text);
		else
			met(STATUSES);
		if (!strcmp(message, "commit"))
			flush_begins();
		if (!dm_message(name, message, text, sizeof(text)))
			met(MESSAGES);
		else if (errno != EBUSY)
			bad("message %s: %s", message, strerror(errno));
		if (!strcmp(message, "commit"))
			flush_ends();
		else if (!strcmp(message, "stats") && strstr(text, "commits "))
			count_commits(atoi(strstr(text, "commits ") + 8));
		nap(rng_below(&th->rng, 20));
	}
	return NULL;
}

static void *dropper(void *data)
{
	struct thread *th = data;
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	while (!stopped(th)) {
		if (pwrite(fd, "2", 1, 0) != 1)
			bad("drop_caches: %s", strerror(errno));
		met(SHRINKS);
		nap(10 + rng_below(&th->rng, 100));
	}
	close(fd);
	return NULL;
}

/* Two that open one delta */
static void *thief(void *data)
{
	struct thread *th = data;

	while (!stopped(th)) {
		if (dm_create(second) || dm_load(second, t.table, false))
			bad("second: %s", strerror(errno));
		if (!dm_resume(second))
			met(STOLEN);
		else if (errno == EBUSY)
			met(REFUSED);
		/* The first one ends its session meanwhile, or is just loading. */
		else if (errno != EUCLEAN)
			bad("second: %s", strerror(errno));
		if (dm_remove(second))
			bad("second: remove: %s", strerror(errno));
		nap(rng_below(&th->rng, 100));
	}
	return NULL;
}

/* One that comes and goes over the same base, and reads it */
static void *visitor(void *data)
{
	struct thread *th = data;

	while (!stopped(th)) {
		u64 first = rng_below(&th->rng, t.layer[0].sectors - 64);
		int fd;

		if (dm_create(guest) || dm_load(guest, t.other, true) || dm_resume(guest)) {
			bad("visitor: %s", strerror(errno));
		} else {
			fd = dm_open(guest, O_RDONLY | O_DIRECT);
			if (pread(fd, th->buf, 64 * SECTOR, first * SECTOR) != 64 * SECTOR)
				bad("visitor: read: %s", strerror(errno));
			for (u32 i = 0; i < 64; i++)
				if (!is_below(first + i, th->buf + i * SECTOR))
					bad("visitor: sector %llu", (unsigned long long)first + i);
			close(fd);
			met(VISITS);
		}
		if (dm_remove(guest))
			bad("visitor: remove: %s", strerror(errno));
		nap(rng_below(&th->rng, 50));
	}
	return NULL;
}

/* A clone of its own that is written to, and goes while it is dirty, again and again */
static void *remover(void *data)
{
	static const char mine[] = "raced-removed";
	struct thread *th = data;
	u64 size = strtoull(t.small + 2, NULL, 10), sector = 0;
	u8 want[SECTOR];
	u32 gen = 0;
	int fd;

	while (!stopped(th)) {
		if (dm_create(mine) || dm_load(mine, t.small, false) || dm_resume(mine)) {
			bad("remover: %s", strerror(errno));
			break;
		}
		fd = dm_open(mine, O_RDWR | O_DIRECT);
		if (gen) {
			stamp(want, sector, gen);
			if (pread(fd, th->buf, SECTOR, sector * SECTOR) != SECTOR ||
			    memcmp(th->buf, want, SECTOR))
				bad("sector %llu was lost by a removal",
				    (unsigned long long)sector);
		}
		for (unsigned int n = 1 + rng_below(&th->rng, 8); n; n--) {
			sector = rng_below(&th->rng, size);
			stamp(th->buf, sector, ++gen);
			if (pwrite(fd, th->buf, SECTOR, sector * SECTOR) != SECTOR)
				bad("remover: write: %s", strerror(errno));
		}
		close(fd);
		if (dm_remove(mine))
			bad("remover: remove: %s", strerror(errno));
		met(REMOVALS);
		nap(rng_below(&th->rng, 20));
	}
	return NULL;
}

static u64 reads_of(const char *dev)
{
	char path[100], text[200] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/block/%.30s/stat", dev + strlen("/dev/"));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		bad("%s: %s", path, strerror(errno));
	close(fd);
	return strtoull(text, NULL, 10);
}

/* Nobody else reads there: two reads for one are a page of the bitmap, and then the data. */
static void *loader(void *data)
{
	static const char mine[] = "raced-probe";
	struct thread *th = data;
	int fd;

	dm_make(mine, t.probe);
	fd = dm_open(mine, O_RDONLY | O_DIRECT);
	while (!stopped(th)) {
		u64 before = reads_of(t.probe_dev);

		if (pread(fd, th->buf, SECTOR, t.probe_sector * SECTOR) != SECTOR)
			bad("probe: read: %s", strerror(errno));
		if (reads_of(t.probe_dev) - before > 1)
			met(PAGES_LOADED);
		nap(rng_below(&th->rng, 4));
	}
	close(fd);
	if (dm_remove(mine))
		bad("probe: remove: %s", strerror(errno));
	return NULL;
}

/* ---- setup ---- */

static void add_thread(const char *what, void *(*run)(void *data), u64 seed)
{
	struct thread *th = &t.thread[t.nr_threads];

	th->nr = t.nr_threads++;
	th->run = run;
	th->what = what;
	rng_init(&th->rng, seed, th->nr);
	if (posix_memalign((void **)&th->buf, 4096, 256 * SECTOR))
		die("no memory");
}

static char *words_of(char *p, struct image *img, const char *dev)
{
	if (img->raw)
		return p + sprintf(p, " raw %s 0 %llu", dev, (unsigned long long)img->sectors);
	return p + sprintf(p, " vhdx %s %llu %llu %llu %llu %llu %llu", dev,
			   (unsigned long long)img->sectors, (unsigned long long)img->block,
			   (unsigned long long)img->lss, (unsigned long long)img->bat,
			   (unsigned long long)img->log, (unsigned long long)img->log_sectors);
}

static void setup(const char *scene)
{
	static const char * const files[] = { "0.vhdx", "1.vhdx", "2.raw" };
	char *p = t.table, *q = t.other;

	for (int i = 0; i < 3; i++) {
		struct image *img = &t.layer[i];
		char path[300], dev[32];
		u8 *map, *good;

		snprintf(path, sizeof(path), "%s/%s", scene, files[i]);
		good = read_file(path, &img->size);
		snprintf(path, sizeof(path), "/dev/shm/races-%d", i);
		loop_make(path, img->size, i > 0, &map, dev);
		unlink(path);
		memcpy(map, good, img->size);
		img->data = map;
		img->raw = i == 2;
		if (img->raw)
			img->sectors = img->size / SECTOR;
		else
			image_parse(img);
		t.old[i] = *img;
		t.old[i].data = good;
		if (!i) {
			p += sprintf(p, "0 %llu vhdclone 3", (unsigned long long)img->sectors);
			q += sprintf(q, "0 %llu vhdclone 2", (unsigned long long)img->sectors);
		} else {
			q = words_of(q, img, dev);
		}
		p = words_of(p, img, dev);
	}
	strcpy(q, " 1 read_only");
	t.nr_blocks = t.layer[0].sectors / t.layer[0].block;
	t.block = calloc(t.nr_blocks, sizeof(*t.block));
	t.sector = calloc(t.layer[0].sectors, sizeof(*t.sector));
	if (!t.block || !t.sector)
		die("no memory");
}

/* Two more clones, with a delta of their own each, which begin as the same image */
static void setup_small(const char *scene)
{
	char path[300], base[32], delta[2][32];
	char *tables[2] = { t.small, t.probe };
	struct image img[2] = {}, low = { .raw = true };
	u8 *map, *good;

	snprintf(path, sizeof(path), "%s/1.raw", scene);
	good = read_file(path, &low.size);
	low.sectors = low.size / SECTOR;
	loop_make("/dev/shm/races-small", low.size, true, &map, base);
	memcpy(map, good, low.size);
	for (int i = 0; i < 2; i++) {
		char *p = tables[i];

		snprintf(path, sizeof(path), "%s/0.vhdx", scene);
		img[i].data = read_file(path, &img[i].size);
		image_parse(&img[i]);
		snprintf(path, sizeof(path), "/dev/shm/races-small-%d", i);
		loop_make(path, img[i].size, false, &map, delta[i]);
		memcpy(map, img[i].data, img[i].size);
		p += sprintf(p, "0 %llu vhdclone 2", (unsigned long long)img[i].sectors);
		p = words_of(p, &img[i], delta[i]);
		p = words_of(p, &low, base);
		if (i)
			strcpy(p, " 1 read_only");
	}
	strcpy(t.probe_dev, delta[1]);
	/* A sector that is in the delta, of a block that is so in part */
	for (u64 s = 0; s < img[1].sectors; s++) {
		const u8 *place;

		if ((image_entry(&img[1], s / img[1].block) & 7) != 7 ||
		    image_find(&img[1], s, &place) != FOUND_HERE)
			continue;
		t.probe_sector = s;
		return;
	}
	die("%s: no block is partially present", scene);
}

/* Does everybody get on? */
static bool all_move(void)
{
	for (unsigned int i = 0; i < t.nr_threads; i++)
		if (__atomic_load_n(&t.thread[i].count, __ATOMIC_RELAXED) == t.thread[i].seen)
			return false;
	for (unsigned int i = 0; i < t.nr_threads; i++)
		t.thread[i].seen = __atomic_load_n(&t.thread[i].count, __ATOMIC_RELAXED);
	return true;
}

static bool all_met(void)
{
	for (int i = 0; i < NR_SCENES; i++)
		if (!__atomic_load_n(&t.met[i], __ATOMIC_RELAXED))
			return false;
	return true;
}

static void kmsg_line(const char *text)
{
	/* The second clone is refused all the time, and the table has been taken. */
	if (kmsg_is_trouble(text))
		bad("the kernel says: %s", text);
}

int main(int argc, char **argv)
{
	unsigned int seconds = 30, i;
	time_t began;
	u64 seed = 1, s;
	u8 *buf;
	int c;

	while ((c = getopt(argc, argv, "s:t:")) != -1) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 't')
			seconds = atoi(optarg);
		else
			die("usage: races [-s SEED] [-t SECONDS] SCENE SMALL");
	}
	if (argc - optind != 2)
		die("usage: races [-s SEED] [-t SECONDS] SCENE SMALL");
	kmsg_read(NULL);
	setup(argv[optind]);
	setup_small(argv[optind + 1]);
	dm_make(name, t.table);
	t.fd = dm_open(name, O_RDWR | O_DIRECT);
	for (i = 0; i < WRITERS; i++)
		add_thread("writes", writer, seed);
	add_thread("reads", reader, seed);
	add_thread("reads", reader, seed);
	add_thread("releases", releaser, seed);
	add_thread("flushes", flusher, seed);
	add_thread("flushes", flusher, seed);
	add_thread("hot blocks", heater, seed);
	add_thread("suspends", suspender, seed);
	add_thread("messages", asker, seed);
	add_thread("cache drops", dropper, seed);
	add_thread("second opens", thief, seed);
	add_thread("visits", visitor, seed);
	add_thread("removals", remover, seed);
	add_thread("loads", loader, seed);
	watchdog_start(150);
	for (i = 0; i < t.nr_threads; i++)
		if (pthread_create(&t.thread[i].id, NULL, t.thread[i].run, &t.thread[i]))
			die("no thread");
	/* A machine with much else to do gets more time for what has not met yet. */
	began = time(NULL);
	while (time(NULL) < began + seconds ||
	       (!all_met() && time(NULL) < began + 6 * seconds)) {
		sleep(1);
		kmsg_read(kmsg_line);
		if (all_move())
			watchdog_feed("a thread");
	}
	t.stop = true;
	for (i = 0; i < t.nr_threads; i++) {
		watchdog_feed("the end of thread %u: %s", i, t.thread[i].what);
		pthread_join(t.thread[i].id, NULL);
	}

	watchdog_feed("the end");
	buf = t.thread[0].buf;
	for (s = 0; s < t.layer[0].sectors; s += 256) {
		if (pread(t.fd, buf, 256 * SECTOR, s * SECTOR) != 256 * SECTOR)
			bad("read at %llu: %s", (unsigned long long)s, strerror(errno));
		for (i = 0; i < 256; i++)
			if (!allowed(s + i, buf + i * SECTOR))
				bad("in the end sector %llu does not hold what it should",
				    (unsigned long long)s + i);
	}
	close(t.fd);
	if (dm_remove(name))
		bad("remove: %s", strerror(errno));
	/* Closed: the file has it all, in its place. */
	c = image_header(t.layer[0].data);
	if (c < 0 || memcmp(t.layer[0].data + HEADER(c) + H_LOG_GUID, no_guid, sizeof(no_guid)))
		bad("the image is not clean");
	for (s = 0; s < t.layer[0].sectors; s++) {
		const u8 *p = chain_sector(t.layer, 3, s);

		if (!p || !allowed(s, p))
			bad("in the image sector %llu is not what it should be",
			    (unsigned long long)s);
	}
	kmsg_read(kmsg_line);
	printf("# %u s of seed %llu:", seconds, (unsigned long long)seed);
	for (i = 0; i < t.nr_threads; i++) {
		u64 sum = t.thread[i].count;

		while (i + 1 < t.nr_threads && !strcmp(t.thread[i].what, t.thread[i + 1].what))
			sum += t.thread[++i].count;
		printf(" %llu %s,", (unsigned long long)sum, t.thread[i].what);
	}
	printf(" %u bad\n", t.bad);
	for (i = 0; i < NR_SCENES; i++) {
		printf("#   %7u %s\n", t.met[i], scene_names[i]);
		if (!t.met[i])
			bad("no %s", scene_names[i]);
	}
	return t.bad ? 1 : 0;
}
