// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A worker that gets no memory at all: who writes to a clone that swap is on may be the
 * one whom memory depends on.
 *
 *	starve BITS
 *
 * All pages of BITS' bitmap are cold, and each I/O needs another one of them, while every
 * allocation of every kernel thread fails.  Writes, a flush, and then reads must get on,
 * with what the clone has put aside for it, as often as there are pages.  The reads once
 * more of a clone that is read-only: nothing is committed there.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault-inject.h"
#include "image.h"

#define PAGES		32
#define PAGE_SECTORS	32768ULL
#define THREADS		4
#define BYTES		4096
/* What a thread writes begins here in the block of a page; its sectors were absent. */
#define OFFSET		16
#define MANY		1000000

static const char name[] = "starved";
/* Who is born by kthreadd takes after it; the last is the rescuer. */
static const char hungry[] = "kthreadd|kworker/*|vhdclone*";
static char table[400];
static int fd;

static void hunger(bool on)
{
	char times[16];

	snprintf(times, sizeof(times), "%d", MANY);
	for (enum fault i = FAULT_SLAB; i <= FAULT_PAGE; i++) {
		if (on)
			fault_set(i, "times", times);
		fault_set(i, "probability", on ? "100" : "0");
	}
}

static unsigned int nr_failed(void)
{
	unsigned int nr = 0;

	for (enum fault i = FAULT_SLAB; i <= FAULT_PAGE; i++) {
		char text[20] = "";
		int file = fault_open(i, "times", O_RDONLY);

		if (read(file, text, sizeof(text) - 1) <= 0)
			die("%s: %s", fault_names[i], strerror(errno));
		close(file);
		nr += MANY - atoi(text);
	}
	return nr;
}

static u64 place_of(unsigned int page)
{
	return (page * PAGE_SECTORS + OFFSET) * SECTOR;
}

static void *writer(void *arg)
{
	u8 *buf = alloc_aligned(BYTES);

	for (unsigned int page = (size_t)arg; page < PAGES; page += THREADS) {
		memset(buf, 1 + page, BYTES);
		if (pwrite(fd, buf, BYTES, place_of(page)) != BYTES)
			complain("write, page %u: %s", page, strerror(errno));
	}
	return buf;
}

static void *reader(void *arg)
{
	u8 *buf = alloc_aligned(BYTES);

	for (unsigned int page = (size_t)arg; page < PAGES; page += THREADS) {
		memset(buf, 0xff, BYTES);
		if (pread(fd, buf, BYTES, place_of(page)) != BYTES)
			complain("read, page %u: %s", page, strerror(errno));
		else if (buf[0] != 1 + page || memcmp(buf, buf + 1, BYTES - 1))
			complain("wrong data, page %u", page);
	}
	return buf;
}

static void all(void *(*what)(void *))
{
	pthread_t thread[THREADS];
	void *buf;

	for (size_t i = 0; i < THREADS; i++)
		thread[i] = start_thread(what, (void *)i);
	for (int i = 0; i < THREADS; i++) {
		pthread_join(thread[i], &buf);
		free(buf);
	}
}

/* On brd, which takes no memory once it is written; a loop device has no rescuer. */
static void to_ram(const struct image *img, const char *dev)
{
	int ram = open(dev, O_RDWR | O_CLOEXEC);

	if (ram < 0 || write(ram, img->data, img->size) != (ssize_t)img->size || fsync(ram))
		die("%s: %s", dev, strerror(errno));
	close(ram);
}

static void make_clone(const char *scene)
{
	struct image img[2] = {};
	char text[100], *p;
	size_t size = 0;

	for (int i = 0; i < 2; i++) {
		if (!image_path(text, sizeof(text), scene, i))
			die("%s: no layer %d", scene, i);
		img[i].data = read_file(text, &img[i].size);
		image_parse(&img[i]);
		size += img[i].size;
	}
	sprintf(text, "modprobe brd rd_nr=2 rd_size=%zu", size / 1024);
	if (system(text))
		die("no brd");
	p = table + sprintf(table, "0 %llu vhdclone 2", img[0].sectors);
	for (int i = 0; i < 2; i++) {
		const char *dev = i ? "/dev/ram1" : "/dev/ram0";

		to_ram(&img[i], dev);
		p = image_words(p, &img[i], dev);
		free(img[i].data);
	}
	dm_make(name, table);
}

/* The map is there, a session is open, and all pages but one are cold. */
static void make_cold(void)
{
	u8 *buf = alloc_aligned(BYTES);

	if (dm_suspend(name) || dm_resume(name))
		die("%s: %s", name, strerror(errno));
	memset(buf, 1, BYTES);
	if (pwrite(fd, buf, BYTES, place_of(0)) != BYTES)
		die("%s: %s", name, strerror(errno));
	free(buf);
}

static unsigned int starved_reads(void)
{
	hunger(true);
	all(reader);
	hunger(false);
	return nr_failed();
}

int main(int argc, char **argv)
{
	unsigned int failed = 0;
	u8 *page = alloc_aligned(BYTES);

	if (argc != 2)
		die("usage: starve BITS");
	kmsg_read(NULL);
	make_clone(argv[1]);
	fd = dm_open(name, O_RDWR | O_DIRECT);
	fault_setup();
	fault_victims(hungry);
	watchdog_start(60);

	make_cold();
	watchdog_feed("writes without memory");
	hunger(true);
	all(writer);
	if (fdatasync(fd))
		complain("flush: %s", strerror(errno));
	hunger(false);
	failed += nr_failed();

	make_cold();
	watchdog_feed("reads without memory");
	failed += starved_reads();
	close(fd);

	watchdog_feed("reads of a read-only clone without memory");
	if (dm_suspend(name) || dm_load(name, table, true) || dm_resume(name))
		die("%s: %s", name, strerror(errno));
	fd = dm_open(name, O_RDONLY | O_DIRECT);
	/* Its directory of pages. */
	if (pread(fd, page, BYTES, place_of(0)) != BYTES)
		die("%s: %s", name, strerror(errno));
	failed += starved_reads();
	close(fd);

	watchdog_feed("the end");
	if (dm_remove(name) || system("modprobe -r brd"))
		die("remove: %s", strerror(errno));
	kmsg_check();
	if (failed < 3 * PAGES)
		complain("memory was not short");
	printf("# starved: %d pages, %u allocations failed, %u bad\n", PAGES, failed, complaints);
	return complaints > 0;
}
