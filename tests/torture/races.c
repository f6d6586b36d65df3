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
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include "image.h"

#define WRITERS		4
#define SLOT		8
#define MAX_THREADS	20

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
	u32 met[NR_SCENES];
	u32 flushing;
	char small[500];	/* another clone's table */
	char probe[500], probe_dev[32];
	u64 probe_sector;
	struct thread thread[MAX_THREADS];
	unsigned int nr_threads;
	pthread_mutex_t device;	/* suspend, reload */
} t = { .device = PTHREAD_MUTEX_INITIALIZER };

static const char name[] = "raced", second[] = "raced-second", guest[] = "raced-other";

static bool stopped(struct thread *th)
{
	inc(&th->count);
	return load(&t.stop);
}

static void met(enum scene scene)
{
	inc(&t.met[scene]);
}

static void flush_begins(void)
{
	if (inc(&t.flushing) > 1)
		met(FLUSHES_AT_ONCE);
}

static void flush_ends(void)
{
	dec(&t.flushing);
}

static void nap(unsigned int ms)
{
	usleep(ms * 1000);
}

/* ---- what a sector may hold ---- */

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

	if (s->gen ? is_stamp(data, sector, s->gen) : is_old(sector, data))
		return true;
	/* The counter is read after the data were. */
	return load(&t.block[sector / t.layer[0].block].starts) != s->began &&
	       (is_below(sector, data) || is_zero(data));
}

/* Whoever wrote it: is it of this place? */
static bool plausible(u64 sector, const u8 *data)
{
	if (get64(data + STAMP_MAGIC) == STAMP)
		return is_stamp(data, sector, get64(data + STAMP_ID));
	return is_zero(data) || is_below(sector, data) || is_old(sector, data);
}

/* ---- threads ---- */

static u64 choose_block(struct thread *th)
{
	return rng_below(&th->rng, 3) ? load(&t.hot) : rng_below(&th->rng, t.nr_blocks);
}

static void write_begins(struct block *b)
{
	if (inc(&b->writing) > 1 && !load(&b->written))
		met(FIRST_WRITES);
	if (load(&b->starts) != load(&b->ends))
		met(WRITE_AND_RELEASE);
}

static void write_ends(struct block *b)
{
	store(&b->written, true);
	dec(&b->writing);
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
		u32 gen = inc(&gens);

		first += skip;
		for (u32 i = 0; i < n; i++) {
			stamp(th->buf + i * SECTOR, first + i, gen);
			t.sector[first + i].began = load(&t.block[block].ends);
			t.sector[first + i].gen = gen;
		}
		write_begins(&t.block[block]);
		if (pwritev2(t.fd, &iov, 1, first * SECTOR, rng_below(&th->rng, 10) ? 0 :
			     RWF_DSYNC) != (ssize_t)iov.iov_len)
			complain("write of %u sectors at %llu: %s", n, first,
				 strerror(errno));
		write_ends(&t.block[block]);
		if (rng_below(&th->rng, 3))
			continue;
		first -= skip;
		if (pread(t.fd, th->buf, SLOT * SECTOR, first * SECTOR) != SLOT * SECTOR)
			complain("read at %llu: %s", first, strerror(errno));
		for (u32 i = 0; i < SLOT; i++)
			if (!allowed(first + i, th->buf + i * SECTOR))
				complain("sector %llu: generation %llu of %llu, not %u",
					 first + i,
					 get64(th->buf + i * SECTOR + STAMP_ID),
					 get64(th->buf + i * SECTOR + STAMP_SECTOR),
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
			complain("read at %llu: %s", first, strerror(errno));
		for (u32 i = 0; i < n; i++) {
			u8 *p = th->buf + i * SECTOR;
			int tries = 0;

			/* Who reads what is being written may get a part. */
			while (!plausible(first + i, p) && tries++ < 5)
				if (pread(t.fd, p, SECTOR, (first + i) * SECTOR) != SECTOR)
					complain("read: %s", strerror(errno));
			if (tries > 5)
				complain("sector %llu holds what nobody wrote there",
					 first + i);
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

		inc(&t.block[block].starts);
		if (ioctl(t.fd, rng_below(&th->rng, 3) ? BLKDISCARD : BLKZEROOUT, range))
			complain("release of block %llu: %s", block, strerror(errno));
		store(&t.block[block].written, false);
		inc(&t.block[block].ends);
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
			complain("flush: %s", strerror(errno));
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
		store(&t.hot, rng_below(&th->rng, t.nr_blocks));
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
			complain("load: %s", strerror(errno));
		met(reload ? RELOADS : SUSPENDS);
		if ((!reload || rng_below(&th->rng, 2)) && dm_suspend(name))
			complain("suspend: %s", strerror(errno));
		/* The other one may have taken the delta while we slept. */
		while ((r = dm_resume(name)) && errno == EBUSY && tries++ < 500)
			nap(20);
		if (r)
			complain("resume: %s", strerror(errno));
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
			complain("status: %s", strerror(errno));
		else if (strstr(text, "fail") || strstr(text, "out_of_space"))
			complain("status: %s", text);
		else
			met(STATUSES);
		if (!strcmp(message, "commit"))
			flush_begins();
		if (!dm_message(name, message, text, sizeof(text)))
			met(MESSAGES);
		else if (errno != EBUSY)
			complain("message %s: %s", message, strerror(errno));
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
			complain("drop_caches: %s", strerror(errno));
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
			complain("second: %s", strerror(errno));
		if (!dm_resume(second))
			met(STOLEN);
		else if (errno == EBUSY)
			met(REFUSED);
		/* The first one ends its session meanwhile, or is just loading. */
		else if (errno != EUCLEAN)
			complain("second: %s", strerror(errno));
		if (dm_remove(second))
			complain("second: remove: %s", strerror(errno));
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
			complain("visitor: %s", strerror(errno));
		} else {
			fd = dm_open(guest, O_RDONLY | O_DIRECT);
			if (pread(fd, th->buf, 64 * SECTOR, first * SECTOR) != 64 * SECTOR)
				complain("visitor: read: %s", strerror(errno));
			for (u32 i = 0; i < 64; i++)
				if (!is_below(first + i, th->buf + i * SECTOR))
					complain("visitor: sector %llu", first + i);
			close(fd);
			met(VISITS);
		}
		if (dm_remove(guest))
			complain("visitor: remove: %s", strerror(errno));
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
	u32 gen = 0;
	int fd;

	while (!stopped(th)) {
		if (dm_create(mine) || dm_load(mine, t.small, false) || dm_resume(mine)) {
			complain("remover: %s", strerror(errno));
			break;
		}
		fd = dm_open(mine, O_RDWR | O_DIRECT);
		if (gen) {
			if (pread(fd, th->buf, SECTOR, sector * SECTOR) != SECTOR ||
			    !is_stamp(th->buf, sector, gen))
				complain("sector %llu was lost by a removal", sector);
		}
		for (unsigned int n = 1 + rng_below(&th->rng, 8); n; n--) {
			sector = rng_below(&th->rng, size);
			stamp(th->buf, sector, ++gen);
			if (pwrite(fd, th->buf, SECTOR, sector * SECTOR) != SECTOR)
				complain("remover: write: %s", strerror(errno));
		}
		close(fd);
		if (dm_remove(mine))
			complain("remover: remove: %s", strerror(errno));
		met(REMOVALS);
		nap(rng_below(&th->rng, 20));
	}
	return NULL;
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
			complain("probe: read: %s", strerror(errno));
		if (reads_of(t.probe_dev) - before > 1)
			met(PAGES_LOADED);
		nap(rng_below(&th->rng, 4));
	}
	close(fd);
	if (dm_remove(mine))
		complain("probe: remove: %s", strerror(errno));
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
	th->buf = alloc_aligned(256 * SECTOR);
}

static void setup(const char *scene)
{
	char *p = t.table, *q = t.other;

	for (int i = 0; i < 3; i++) {
		struct image *img = &t.layer[i];
		char dev[32];
		u8 *map = image_load(img, scene, i, i > 0, dev);

		t.old[i] = *img;
		img->data = map;
		if (!i) {
			p += sprintf(p, "0 %llu vhdclone 3", img->sectors);
			q += sprintf(q, "0 %llu vhdclone 2", img->sectors);
		} else {
			q = image_words(q, img, dev);
		}
		p = image_words(p, img, dev);
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
	char *tables[2] = { t.small, t.probe };
	struct image img, low;
	char base[32];

	image_load(&low, scene, 1, true, base);
	for (int i = 0; i < 2; i++) {
		char *p = tables[i];

		image_load(&img, scene, 0, false, t.probe_dev);
		p += sprintf(p, "0 %llu vhdclone 2", img.sectors);
		p = image_words(p, &img, t.probe_dev);
		p = image_words(p, &low, base);
		if (i)
			strcpy(p, " 1 read_only");
	}
	/* A sector that is in the delta, of a block that is so in part */
	for (u64 s = 0; s < img.sectors; s++) {
		const u8 *place;

		if ((image_entry(&img, s / img.block) & 7) != 7 ||
		    image_find(&img, s, &place) != FOUND_HERE)
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
		if (load(&t.thread[i].count) == t.thread[i].seen)
			return false;
	for (unsigned int i = 0; i < t.nr_threads; i++)
		t.thread[i].seen = load(&t.thread[i].count);
	return true;
}

static bool all_met(void)
{
	for (int i = 0; i < NR_SCENES; i++)
		if (!load(&t.met[i]))
			return false;
	return true;
}

int main(int argc, char **argv)
{
	u64 seed = 1, seconds = 30, began, s;
	const struct opt opts[] = { { 's', .number = &seed }, { 't', .number = &seconds }, {} };
	unsigned int i;
	u8 *buf;

	argv = options(argc, argv, opts, 2, 2, "races [-s SEED] [-t SECONDS] SCENE SMALL");
	kmsg_read(NULL);
	setup(argv[0]);
	setup_small(argv[1]);
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
		t.thread[i].id = start_thread(t.thread[i].run, &t.thread[i]);
	/* A machine with much else to do gets more time for what has not met yet. */
	began = time_now();
	while (time_now() < began + seconds || (!all_met() && time_now() < began + 6 * seconds)) {
		sleep(1);
		kmsg_check();
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
			complain("read at %llu: %s", s, strerror(errno));
		for (i = 0; i < 256; i++)
			if (!allowed(s + i, buf + i * SECTOR))
				complain("in the end sector %llu does not hold what it should",
					 s + i);
	}
	close(t.fd);
	if (dm_remove(name))
		complain("remove: %s", strerror(errno));
	/* Closed: the file has it all, in its place. */
	if (!image_is_clean(t.layer[0].data))
		complain("the image is not clean");
	for (s = 0; s < t.layer[0].sectors; s++) {
		const u8 *p = chain_sector(t.layer, 3, s);

		if (!p || !allowed(s, p))
			complain("in the image sector %llu is not what it should be", s);
	}
	kmsg_check();
	printf("# %llu s of seed %llu:", seconds, seed);
	for (i = 0; i < t.nr_threads; i++) {
		u64 sum = t.thread[i].count;

		while (i + 1 < t.nr_threads && !strcmp(t.thread[i].what, t.thread[i + 1].what))
			sum += t.thread[++i].count;
		printf(" %llu %s,", sum, t.thread[i].what);
	}
	printf(" %u bad\n", complaints);
	for (i = 0; i < NR_SCENES; i++) {
		printf("#   %7u %s\n", t.met[i], scene_names[i]);
		if (!t.met[i])
			complain("no %s", scene_names[i]);
	}
	return complaints ? 1 : 0;
}
