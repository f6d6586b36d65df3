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
 * Others look at much of a block, from the sector on whose bit may just be changing.
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
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "image.h"

#define READERS		6
#define WRITERS		4
#define LOOKERS		2
/* Sectors that a page of the bitmap covers, and a chunk */
#define PAGE_SECTORS	32768
#define CHUNK_SECTORS	8388608
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
	u64 about[WRITERS];		/* the sector that each is about to write */
	bool stop;
	u64 reads, writes, discards, looks, shrinks;
} t;

static const char * const names[2] = { "pages-read", "pages-written" };

static bool is_right(const u8 *p, u64 sector, u32 gen)
{
	return gen ? is_stamp(p, sector, gen) : is_zero(p);
}

/* The first block of each page has bits: of all but its first sectors none. */
static void *reader(void *data)
{
	u8 *buf = alloc_aligned(SECTOR);
	struct rng r;

	rng_init(&r, (u64)data, 1);
	while (!load(&t.stop)) {
		u64 sector = rng_below(&r, t.image[0].sectors / PAGE_SECTORS) *
			     PAGE_SECTORS + 64 +
			     rng_below(&r, 64);

		if (pread(t.fd[0], buf, SECTOR, sector * SECTOR) != SECTOR)
			complain("read: %s", strerror(errno));
		if (!is_zero(buf))
			complain("sector %llu shows what is not there", sector);
		inc(&t.reads);
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
	u8 *buf = alloc_aligned(SECTOR);
	struct rng r;
	u32 gen = 0;

	rng_init(&r, nr, 2);
	while (!load(&t.stop)) {
		u32 chunk = rng_below(&r, 4) ? load(&t.chunk) : rng_below(&r, CHUNKS);
		u32 page = rng_below(&r, CHUNK_PAGES), at = rng_below(&r, BLOCK_SECTORS);
		u64 first = block_sector(chunk, page, nr);
		u32 *gens = t.gen[chunk][page][nr];

		store(&t.about[nr], first + at);
		if (!rng_below(&r, 100)) {
			u64 range[2] = { first * SECTOR, size };

			if (ioctl(t.fd[1], BLKDISCARD, range))
				complain("discard: %s", strerror(errno));
			memset(gens, 0, sizeof(t.gen[0][0][0]));
			inc(&t.discards);
		} else if (rng_below(&r, 2)) {
			stamp(buf, first + at, ++gen);
			if (pwrite(t.fd[1], buf, SECTOR, (first + at) * SECTOR) != SECTOR)
				complain("write: %s", strerror(errno));
			gens[at] = gen;
			inc(&t.writes);
			at = rng_below(&r, BLOCK_SECTORS);
		}
		if (pread(t.fd[1], buf, SECTOR, (first + at) * SECTOR) != SECTOR)
			complain("read: %s", strerror(errno));
		if (!is_right(buf, first + at, gens[at]))
			complain("sector %llu: not generation %u", first + at, gens[at]);
	}
	return NULL;
}

/* Any generation will do if it is of this sector, or what was never written. */
static bool may_be(const u8 *p, u64 sector)
{
	u32 gen;

	memcpy(&gen, p + STAMP_ID, sizeof(gen));
	return is_zero(p) || is_stamp(p, sector, gen);
}

static void *looker(void *data)
{
	u8 *buf = alloc_aligned(BLOCK_SECTORS * SECTOR);
	const ssize_t size = BLOCK_SECTORS * SECTOR;
	struct rng r;

	rng_init(&r, (u64)data, 3);
	while (!load(&t.stop)) {
		u64 first = load(&t.about[rng_below(&r, WRITERS)]);

		if (pread(t.fd[1], buf, size, first * SECTOR) != size)
			complain("read: %s", strerror(errno));
		for (u64 i = 0; i < BLOCK_SECTORS; i++)
			if (!may_be(buf + i * SECTOR, first + i))
				complain("sector %llu is not any generation", first + i);
		inc(&t.looks);
	}
	return NULL;
}

static void *shrinker(void *data)
{
	struct sched_param first = { .sched_priority = 1 };
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (pthread_setschedparam(pthread_self(), SCHED_FIFO, &first))
		die("no priority");
	while (!load(&t.stop)) {
		if (pwrite(fd, "2", 1, 0) != 1)
			complain("drop_caches: %s", strerror(errno));
		inc(&t.shrinks);
		usleep(300);
	}
	close(fd);
	return data;
}

static void setup(int i, const char *scene)
{
	struct image *img = &t.image[i], low;
	char base[32], table[500], *p = table;
	u8 *map;

	image_load(&low, scene, 1, true, base);
	map = image_load(img, scene, 0, false, t.dev[i]);
	free(low.data);
	free(img->data);
	img->data = map;
	p += sprintf(p, "0 %llu vhdclone 2", img->sectors);
	p = image_words(p, img, t.dev[i]);
	p = image_words(p, &low, base);
	if (!i)
		strcpy(p, " 1 read_only");
	dm_make(names[i], table);
	t.fd[i] = dm_open(names[i], (i ? O_RDWR : O_RDONLY) | O_DIRECT);
}

static void check_image(void)
{
	const struct image *img = &t.image[1];

	if (!image_is_clean(img->data))
		complain("the image is not clean");
	for (u32 i = 0; i < CHUNKS * CHUNK_PAGES * WRITERS * BLOCK_SECTORS; i++) {
		u32 gen = ((u32 *)t.gen)[i], block = i / BLOCK_SECTORS;
		u32 page = block / WRITERS;
		u64 sector = block_sector(page / CHUNK_PAGES, page % CHUNK_PAGES,
					  block % WRITERS) + i % BLOCK_SECTORS;
		const u8 *p = chain_sector(img, 1, sector);

		if (!p || !is_right(p, sector, gen))
			complain("in the image sector %llu is not generation %u", sector,
				 gen);
	}
}

int main(int argc, char **argv)
{
	u64 seed = 1, seconds = 10, before, began, loaded, seen = 0;
	const struct opt opts[] = { { 's', .number = &seed }, { 't', .number = &seconds }, {} };
	pthread_t id[READERS + WRITERS + LOOKERS + 1];
	unsigned int resumes = 0, nr = 0;

	argv = options(argc, argv, opts, 2, 2, "pages [-s SEED] [-t SECONDS] BITS FRESH");
	kmsg_read(NULL);
	setup(0, argv[0]);
	setup(1, argv[1]);
	before = reads_of(t.dev[0]);
	watchdog_start(120);
	for (u64 i = 0; i < READERS; i++)
		id[nr++] = start_thread(reader, (void *)(seed * READERS + i));
	for (u64 i = 0; i < WRITERS; i++)
		id[nr++] = start_thread(writer, (void *)i);
	for (u64 i = 0; i < LOOKERS; i++)
		id[nr++] = start_thread(looker, (void *)(seed * LOOKERS + i));
	id[nr++] = start_thread(shrinker, NULL);
	/* Space that a discard released comes back by a resume. */
	began = time_now();
	while (time_now() < began + seconds && !complaints) {
		usleep(1500000);
		if (dm_suspend(names[1]) || dm_resume(names[1]))
			complain("suspend, resume: %s", strerror(errno));
		store(&t.chunk, ++resumes % CHUNKS);
		kmsg_check();
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
			complain("remove: %s", strerror(errno));
	}
	check_image();
	kmsg_check();
	loaded = reads_of(t.dev[0]) - before;
	printf("# %llu pages loaded, %llu reads, %llu writes, %llu discards, %u resumes,",
	       loaded, t.reads, t.writes, t.discards, resumes);
	printf(" %llu looks, %llu shrinker runs, %u bad\n", t.looks, t.shrinks, complaints);
	if (!complaints && loaded < 2 * t.image[0].sectors / PAGE_SECTORS)
		complain("too few pages were loaded again");
	return complaints ? 1 : 0;
}
