// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Pages of the sector bitmap that come and go under those who look at them.
 *
 *	pages [-s SEED] [-t SECONDS] BITS FRESH
 *
 * On a read-only clone of BITS many threads read what is in the layer below, for which
 * they must look at a page of the bitmap; nothing else is read from that delta: its reads
 * are pages that were loaded.  In a clone of FRESH writers set bits and discard blocks,
 * each blocks of its own, but all in the same few pages; and read back what they wrote.
 * With each resume they go to the next chunk, which in the beginning has no bitmap yet.
 * Meanwhile memory is "short" all the time.
 *
 * There are more threads than CPUs, so that one often stops where it must not be alone:
 * between the look for a page and the look at its bits.  Who shrinks does not wait for
 * them, and needs two rounds to take a page that somebody used.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "image.h"

#define READERS		6
#define WRITERS		4
/* Sectors that a page of the bitmap covers, and a chunk */
#define PAGE_SECTORS	32768
#define CHUNK_SECTORS	8388608
#define STAMP		0x6567617073726962ULL
/*
 * Writers meet in so many chunks, and in so many pages of each, where each has a block;
 * in a block's first sectors.
 */
#define CHUNKS		8
#define CHUNK_PAGES	4
#define BLOCK_SECTORS	192

static struct {
	struct image image[2];		/* BITS, and FRESH */
	char dev[2][32];
	int fd[2];
	/* Of the sectors of FRESH; 0: not here */
	u32 gen[CHUNKS][CHUNK_PAGES][WRITERS][BLOCK_SECTORS];
	u32 chunk;			/* where writers are */
	bool stop;
	unsigned int bad;
	u64 reads, writes, discards, shrinks;
} t;

static const u8 no_guid[16];
static const char * const names[2] = { "pages-read", "pages-written" };

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
	return __atomic_load_n(p, __ATOMIC_RELAXED);
}

static bool stopped(void)
{
	return __atomic_load_n(&t.stop, __ATOMIC_RELAXED);
}

static void count(u64 *what)
{
	__atomic_add_fetch(what, 1, __ATOMIC_RELAXED);
}

static u8 *buffer(void)
{
	void *buf;

	if (posix_memalign(&buf, 4096, 64 * SECTOR))
		die("no memory");
	return buf;
}

static void stamp(u8 *p, u64 sector, u32 gen)
{
	put(p, 8, STAMP);
	put(p + 8, 8, sector);
	for (int i = 16; i < SECTOR; i += 8)
		put(p + i, 8, sector * 0x9e3779b97f4a7c15ULL ^ (u64)gen << 20 ^ i);
}

static bool is_zero(const u8 *p)
{
	return !p[0] && !memcmp(p, p + 1, SECTOR - 1);
}

static bool is_right(const u8 *p, u64 sector, u32 gen)
{
	u8 want[SECTOR];

	if (!gen)
		return is_zero(p);
	stamp(want, sector, gen);
	return !memcmp(want, p, SECTOR);
}

/* The first block of each page has bits: of all but its first sectors none. */
static void *reader(void *data)
{
	u8 *buf = buffer();
	struct rng r;

	rng_init(&r, (u64)data, 1);
	while (!stopped()) {
		u64 sector = rng_below(&r, t.image[0].sectors / PAGE_SECTORS) *
			     PAGE_SECTORS + 64 +
			     rng_below(&r, 64);

		if (pread(t.fd[0], buf, SECTOR, sector * SECTOR) != SECTOR)
			bad("read: %s", strerror(errno));
		if (!is_zero(buf))
			bad("sector %llu shows what is not there",
			    (unsigned long long)sector);
		count(&t.reads);
	}
	return NULL;
}

static u64 block_sector(u32 chunk, u32 page, u32 nr)
{
	return (u64)chunk * CHUNK_SECTORS + page * PAGE_SECTORS + nr * t.image[1].block;
}

static void *writer(void *data)
{
	u64 nr = (u64)data, size = t.image[1].block * SECTOR;
	u8 *buf = buffer();
	struct rng r;
	u32 gen = 0;

	rng_init(&r, nr, 2);
	while (!stopped()) {
		u32 chunk = rng_below(&r, 4) ? load(&t.chunk) : rng_below(&r, CHUNKS);
		u32 page = rng_below(&r, CHUNK_PAGES), at = rng_below(&r, BLOCK_SECTORS);
		u64 first = block_sector(chunk, page, nr);
		u32 *gens = t.gen[chunk][page][nr];

		if (!rng_below(&r, 100)) {
			u64 range[2] = { first * SECTOR, size };

			if (ioctl(t.fd[1], BLKDISCARD, range))
				bad("discard: %s", strerror(errno));
			memset(gens, 0, sizeof(t.gen[0][0][0]));
			count(&t.discards);
		} else if (rng_below(&r, 2)) {
			stamp(buf, first + at, ++gen);
			if (pwrite(t.fd[1], buf, SECTOR, (first + at) * SECTOR) != SECTOR)
				bad("write: %s", strerror(errno));
			gens[at] = gen;
			count(&t.writes);
			at = rng_below(&r, BLOCK_SECTORS);
		}
		if (pread(t.fd[1], buf, SECTOR, (first + at) * SECTOR) != SECTOR)
			bad("read: %s", strerror(errno));
		if (!is_right(buf, first + at, gens[at]))
			bad("sector %llu: not generation %u",
			    (unsigned long long)first + at, gens[at]);
	}
	return NULL;
}

static void *shrinker(void *data)
{
	struct sched_param first = { .sched_priority = 1 };
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &first))
		die("no priority");
	while (!stopped()) {
		if (pwrite(fd, "2", 1, 0) != 1)
			bad("drop_caches: %s", strerror(errno));
		count(&t.shrinks);
		usleep(300);
	}
	close(fd);
	return data;
}

static u64 loads(void)
{
	char path[100], text[200] = "";
	int fd;

	snprintf(path, sizeof(path), "/sys/block/%.30s/stat", t.dev[0] + strlen("/dev/"));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || read(fd, text, sizeof(text) - 1) <= 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
	return strtoull(text, NULL, 10);
}

static char *words_of(char *p, struct image *img, const char *dev)
{
	const u64 words[] = { img->sectors, img->block, img->lss, img->bat, img->log,
			      img->log_sectors };

	p += sprintf(p, " vhdx %s", dev);
	for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++)
		p += sprintf(p, " %llu", (unsigned long long)words[i]);
	return p;
}

/* Most of a new image is zeros, and so is a new file. */
static void copy_image(u8 *map, const u8 *data, size_t size)
{
	for (size_t at = 0; at < size; at += 4096) {
		size_t n = min(size - at, 4096UL);

		if (data[at] || memcmp(data + at, data + at + 1, n - 1))
			memcpy(map + at, data + at, n);
	}
}

static void load_image(struct image *img, const char *scene, int layer, bool read_only,
		       char *dev)
{
	char path[300];
	u8 *data;

	snprintf(path, sizeof(path), "%s/%d.vhdx", scene, layer);
	data = read_file(path, &img->size);
	snprintf(path, sizeof(path), "/dev/shm/pages-%.20s-%d", scene, layer);
	loop_make(path, img->size, read_only, &img->data, dev);
	copy_image(img->data, data, img->size);
	free(data);
	image_parse(img);
}

static void setup(int i, const char *scene)
{
	struct image *img = &t.image[i], low = {};
	char base[32], table[500], *p = table;

	load_image(&low, scene, 1, true, base);
	load_image(img, scene, 0, false, t.dev[i]);
	p += sprintf(p, "0 %llu vhdclone 2", (unsigned long long)img->sectors);
	p = words_of(p, img, t.dev[i]);
	p = words_of(p, &low, base);
	if (!i)
		strcpy(p, " 1 read_only");
	dm_make(names[i], table);
	t.fd[i] = dm_open(names[i], (i ? O_RDWR : O_RDONLY) | O_DIRECT);
}

static void kmsg_line(const char *text)
{
	if (kmsg_is_trouble(text))
		bad("the kernel says: %s", text);
}

static void check_image(void)
{
	const struct image *img = &t.image[1];
	int slot = image_header(img->data);

	if (slot < 0 ||
	    memcmp(img->data + HEADER(slot) + H_LOG_GUID, no_guid, sizeof(no_guid)))
		bad("the image is not clean");
	for (u32 i = 0; i < CHUNKS * CHUNK_PAGES * WRITERS * BLOCK_SECTORS; i++) {
		u32 gen = ((u32 *)t.gen)[i], block = i / BLOCK_SECTORS;
		u32 page = block / WRITERS;
		u64 sector = block_sector(page / CHUNK_PAGES, page % CHUNK_PAGES,
					  block % WRITERS) + i % BLOCK_SECTORS;
		const u8 *p = chain_sector(img, 1, sector);

		if (!p || !is_right(p, sector, gen))
			bad("in the image sector %llu is not generation %u",
			    (unsigned long long)sector, gen);
	}
}

int main(int argc, char **argv)
{
	pthread_t id[READERS + WRITERS + 1];
	unsigned int seconds = 10, resumes = 0, nr = 0;
	u64 seed = 1, before, seen = 0;
	time_t began;
	int c;

	while ((c = getopt(argc, argv, "s:t:")) != -1) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 't')
			seconds = atoi(optarg);
		else
			die("usage: pages [-s SEED] [-t SECONDS] BITS FRESH");
	}
	if (argc - optind != 2)
		die("usage: pages [-s SEED] [-t SECONDS] BITS FRESH");
	kmsg_read(NULL);
	setup(0, argv[optind]);
	setup(1, argv[optind + 1]);
	before = loads();
	watchdog_start(120);
	for (u64 i = 0; i < READERS; i++)
		if (pthread_create(&id[nr++], NULL, reader, (void *)(seed * READERS + i)))
			die("no thread");
	for (u64 i = 0; i < WRITERS; i++)
		if (pthread_create(&id[nr++], NULL, writer, (void *)i))
			die("no thread");
	if (pthread_create(&id[nr++], NULL, shrinker, NULL))
		die("no thread");
	/* Space that a discard released comes back by a resume. */
	began = time(NULL);
	while (time(NULL) < began + seconds && !t.bad) {
		usleep(1500000);
		if (dm_suspend(names[1]) || dm_resume(names[1]))
			bad("suspend, resume: %s", strerror(errno));
		__atomic_store_n(&t.chunk, ++resumes % CHUNKS, __ATOMIC_RELAXED);
		kmsg_read(kmsg_line);
		if (t.writes + t.reads + t.discards != seen)
			watchdog_feed("a thread");
		seen = t.writes + t.reads + t.discards;
	}
	t.stop = true;
	while (nr--)
		pthread_join(id[nr], NULL);
	watchdog_feed("the end");
	for (int i = 0; i < 2; i++) {
		close(t.fd[i]);
		if (dm_remove(names[i]))
			bad("remove: %s", strerror(errno));
	}
	check_image();
	kmsg_read(kmsg_line);
	printf("# %llu pages loaded, %llu reads, %llu writes, %llu discards, %u resumes,",
	       (unsigned long long)(loads() - before), (unsigned long long)t.reads,
	       (unsigned long long)t.writes, (unsigned long long)t.discards, resumes);
	printf(" %llu shrinker runs, %u bad\n", (unsigned long long)t.shrinks, t.bad);
	if (!t.bad && loads() - before < 2 * t.image[0].sectors / PAGE_SECTORS)
		bad("too few pages were loaded again");
	return t.bad ? 1 : 0;
}
