// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A worker that gets no memory at all: who writes to a clone that swap is on may be the
 * one whom memory depends on.
 *
 *	starve BITS
 *
 * All pages of BITS' bitmap are cold, and each I/O needs another one of them, while every
 * allocation of every kernel thread fails.  Writes, a flush, and then reads must get on,
 * with what the clone has put aside for it, as often as there are pages.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image.h"

#define PAGES		32
#define PAGE_SECTORS	32768ULL
#define THREADS		4
#define BYTES		4096
/* What a thread writes begins here in the block of a page; its sectors were absent. */
#define OFFSET		16
#define MANY		1000000

static const char name[] = "starved";
static const char * const kinds[] = { "failslab", "fail_page_alloc" };
static unsigned int bad_lines;
static int fd;

static void knob(const char *kind, const char *what, const char *value)
{
	char path[100];
	int file;

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", kind, what);
	file = open(path, O_WRONLY | O_CLOEXEC);
	if (file < 0 || write(file, value, strlen(value)) < 0)
		die("%s: %s", path, strerror(errno));
	close(file);
}

static void choose_victims(void)
{
	/* Who is born by kthreadd takes after it; the last is the rescuer. */
	static const char script[] =
		"for t in /proc/[0-9]*; do\n"
		"	read -r name <$t/comm || continue\n"
		"	case $name in\n"
		"	kthreadd|kworker/*|vhdclone*) echo 1 >$t/make-it-fail ;;\n"
		"	esac\n"
		"done 2>/dev/null\n";

	for (int i = 0; i < 2; i++) {
		knob(kinds[i], "task-filter", "Y");
		knob(kinds[i], "ignore-gfp-wait", "N");
		knob(kinds[i], "verbose", "0");
	}
	knob(kinds[1], "min-order", "0");
	knob(kinds[1], "ignore-gfp-highmem", "N");
	if (system(script))
		perror("sh");
}

static void hunger(bool on)
{
	char times[16];

	snprintf(times, sizeof(times), "%d", MANY);
	for (int i = 0; i < 2; i++) {
		if (on)
			knob(kinds[i], "times", times);
		knob(kinds[i], "probability", on ? "100" : "0");
	}
}

static unsigned int nr_failed(void)
{
	unsigned int nr = 0;

	for (int i = 0; i < 2; i++) {
		char path[100], text[20] = "";
		int file;

		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/times", kinds[i]);
		file = open(path, O_RDONLY | O_CLOEXEC);
		if (file < 0 || read(file, text, sizeof(text) - 1) <= 0)
			die("%s: %s", path, strerror(errno));
		close(file);
		nr += MANY - atoi(text);
	}
	return nr;
}

static void complain(const char *what, unsigned int page)
{
	printf("# %s in page %u: %s\n", what, page, strerror(errno));
	__atomic_add_fetch(&bad_lines, 1, __ATOMIC_RELAXED);
}

static u64 place_of(unsigned int page)
{
	return (page * PAGE_SECTORS + OFFSET) * SECTOR;
}

static void *buffer(void)
{
	void *buf;

	if (posix_memalign(&buf, BYTES, BYTES))
		die("no memory");
	return buf;
}

static void *writer(void *arg)
{
	u8 *buf = buffer();

	for (unsigned int page = (size_t)arg; page < PAGES; page += THREADS) {
		memset(buf, 1 + page, BYTES);
		if (pwrite(fd, buf, BYTES, place_of(page)) != BYTES)
			complain("write", page);
	}
	return buf;
}

static void *reader(void *arg)
{
	u8 *buf = buffer();

	for (unsigned int page = (size_t)arg; page < PAGES; page += THREADS) {
		memset(buf, 0xff, BYTES);
		if (pread(fd, buf, BYTES, place_of(page)) != BYTES)
			complain("read", page);
		else if (buf[0] != 1 + page || memcmp(buf, buf + 1, BYTES - 1))
			complain("wrong data", page);
	}
	return buf;
}

static void all(void *(*what)(void *))
{
	pthread_t thread[THREADS];
	void *buf;

	for (size_t i = 0; i < THREADS; i++)
		if (pthread_create(&thread[i], NULL, what, (void *)i))
			die("no thread");
	for (int i = 0; i < THREADS; i++) {
		pthread_join(thread[i], &buf);
		free(buf);
	}
}

static void to_ram(unsigned int nr, const struct image *img)
{
	char path[20];
	int ram;

	/* brd has all its memory from here on. */
	snprintf(path, sizeof(path), "/dev/ram%u", nr);
	ram = open(path, O_RDWR | O_CLOEXEC);
	if (ram < 0 || write(ram, img->data, img->size) != (ssize_t)img->size || fsync(ram))
		die("%s: %s", path, strerror(errno));
	close(ram);
}

static void make_clone(const char *directory)
{
	struct image img[2] = {};
	size_t most = 0;
	char text[400];
	int n;

	for (int i = 0; i < 2; i++) {
		snprintf(text, sizeof(text), "%s/%d.vhdx", directory, i);
		img[i].data = read_file(text, &img[i].size);
		image_parse(&img[i]);
		most = img[i].size > most ? img[i].size : most;
	}
	snprintf(text, sizeof(text), "modprobe -r brd; modprobe brd rd_nr=2 rd_size=%zu",
		 most / 1024);
	if (system(text))
		die("no brd");
	n = snprintf(text, sizeof(text), "0 %llu vhdclone 2", (unsigned long long)img[0].sectors);
	for (int i = 0; i < 2; i++) {
		to_ram(i, &img[i]);
		n += snprintf(text + n, sizeof(text) - n,
			      " vhdx /dev/ram%d %llu %llu %llu %llu %llu %llu", i,
			      (unsigned long long)img[i].sectors,
			      (unsigned long long)img[i].block, (unsigned long long)img[i].lss,
			      (unsigned long long)img[i].bat, (unsigned long long)img[i].log,
			      (unsigned long long)img[i].log_sectors);
		free(img[i].data);
	}
	dm_make(name, text);
}

/* The map is there, a session is open, and all pages but one are cold. */
static void make_cold(void)
{
	u8 *buf = buffer();

	if (dm_suspend(name) || dm_resume(name))
		die("%s: %s", name, strerror(errno));
	memset(buf, 1, BYTES);
	if (pwrite(fd, buf, BYTES, place_of(0)) != BYTES)
		die("%s: %s", name, strerror(errno));
	free(buf);
}

static void kmsg_line(const char *text)
{
	if (!kmsg_is_trouble(text))
		return;
	printf("# the kernel says: %s\n", text);
	bad_lines++;
}

int main(int argc, char **argv)
{
	unsigned int failed = 0;

	if (argc != 2)
		die("usage: starve BITS");
	kmsg_read(NULL);
	make_clone(argv[1]);
	fd = dm_open(name, O_RDWR | O_DIRECT);
	choose_victims();
	watchdog_start(60);

	make_cold();
	watchdog_feed("writes without memory");
	hunger(true);
	all(writer);
	if (fdatasync(fd))
		complain("flush", 0);
	hunger(false);
	failed += nr_failed();

	make_cold();
	watchdog_feed("reads without memory");
	hunger(true);
	all(reader);
	hunger(false);
	failed += nr_failed();

	watchdog_feed("the end");
	close(fd);
	if (dm_remove(name) || system("modprobe -r brd"))
		die("remove: %s", strerror(errno));
	kmsg_read(kmsg_line);
	printf("# starved: %d pages, %u allocations failed, %u bad\n", PAGES, failed, bad_lines);
	if (failed < PAGES)
		puts("# memory was not short");
	return bad_lines > 0 || failed < PAGES;
}
