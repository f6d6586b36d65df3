// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Swap on a clone, with memory short: each page that is written out is an I/O that the
 * clone must get done without memory, or nobody will ever get any.
 *
 *	swap [-s SEED] [-t SECONDS] IMAGE
 *
 * IMAGE is a differencing image without any blocks; it goes to a brd, which has all its
 * pages before memory is short; its base is another, which nobody ever writes to.  Processes then
 * fill all memory that there is and some more with numbers of their own, and look at them
 * again and again, while the clone is flushed, suspended and resumed, and asked.  In the
 * end the swap is taken off, and the image must be clean.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "image.h"

#define HOGS		3
#define PAGE		4096
/* What is to be in the swap at any time */
#define TOO_MUCH	(20 * MIB)
#define NODE		"/dev/torture-swap"

static const char name[] = "swapped";
static const u8 no_guid[16];
static unsigned int bad_lines;

static void kmsg_line(const char *text)
{
	if (!kmsg_is_trouble(text) && !strstr(text, "switching to") &&
	    !strstr(text, "Out of memory") && !strstr(text, "rite-error on swap"))
		return;
	printf("# the kernel says: %s\n", text);
	bad_lines++;
}

/* "NAME[:] VALUE" of a file in /proc */
static u64 value_of(const char *path, const char *key)
{
	FILE *file = fopen(path, "re");
	char line[200], word[64];
	unsigned long long value;
	u64 found = 0;

	if (!file)
		die("%s: %s", path, strerror(errno));
	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "%63s %llu", word, &value) == 2 && !strcmp(word, key))
			found = value;
	fclose(file);
	return found;
}

/* ---- the hogs ---- */

static void fill(u64 *page, u64 nr, u64 round, u64 seed)
{
	struct rng r;

	rng_init(&r, seed + round, nr);
	for (int i = 0; i < PAGE / 8; i++)
		page[i] = rng_next(&r);
}

static bool is_right(const u64 *page, u64 nr, u64 round, u64 seed)
{
	struct rng r;

	rng_init(&r, seed + round, nr);
	for (int i = 0; i < PAGE / 8; i++)
		if (page[i] != rng_next(&r))
			return false;
	return true;
}

static bool is_set(const bool *flag)
{
	return __atomic_load_n(flag, __ATOMIC_SEQ_CST);
}

/* Never returns.  Exit status: 0, or 1 if a page was not as it had been left. */
static void hog(u64 size, u64 seed, const bool *stop)
{
	u64 nr = size / PAGE, *pages;
	struct rng r;
	u32 *round;

	pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	round = calloc(nr, sizeof(*round));
	if (pages == MAP_FAILED || !round)
		_exit(2);
	rng_init(&r, seed, 1);
	for (u64 i = 0; i < nr && !is_set(stop); i++) {
		fill(pages + i * (PAGE / 8), i, 0, seed);
		round[i] = 1;
	}
	while (!is_set(stop)) {
		u64 i = rng_below(&r, nr);

		if (!is_right(pages + i * (PAGE / 8), i, round[i] - 1, seed))
			_exit(1);
		if (!rng_below(&r, 3))
			fill(pages + i * (PAGE / 8), i, round[i]++, seed);
	}
	for (u64 i = 0; i < nr; i++)
		if (round[i] && !is_right(pages + i * (PAGE / 8), i, round[i] - 1, seed))
			_exit(1);
	_exit(0);
}

/* ---- the clone ---- */

static void make_clone(const char *image, struct image *img)
{
	char command[200], table[400];
	int fd;

	img->data = read_file(image, &img->size);
	image_parse(img);
	snprintf(command, sizeof(command), "modprobe brd rd_nr=2 rd_size=%zu",
		 img->size / 1024);
	if (system(command))
		die("no brd");
	fd = open("/dev/ram0", O_RDWR | O_CLOEXEC);
	if (fd < 0 || write(fd, img->data, img->size) != (ssize_t)img->size || fsync(fd))
		die("/dev/ram0: %s", strerror(errno));
	close(fd);
	free(img->data);
	snprintf(table, sizeof(table),
		 "0 %llu vhdclone 2 vhdx /dev/ram0 %llu %llu %llu %llu %llu %llu raw /dev/ram1 0 %llu",
		 (unsigned long long)img->sectors,
		 (unsigned long long)img->sectors, (unsigned long long)img->block,
		 (unsigned long long)img->lss, (unsigned long long)img->bat,
		 (unsigned long long)img->log, (unsigned long long)img->log_sectors,
		 (unsigned long long)img->sectors);
	dm_make(name, table);
}

/* What mkswap writes */
static void make_swap(const struct image *img, int fd)
{
	static u8 page[PAGE] __attribute__((aligned(PAGE)));
	unsigned int major, minor;

	put(page + 1024, 4, 1);
	put(page + 1028, 4, img->sectors * SECTOR / PAGE - 1);
	memcpy(page + PAGE - 10, "SWAPSPACE2", 10);
	if (pwrite(fd, page, PAGE, 0) != PAGE)
		die("swap: %s", strerror(errno));
	if (sscanf(dm_devno(name), "%u:%u", &major, &minor) != 2)
		die("%s: no number", name);
	unlink(NODE);
	if (mknod(NODE, S_IFBLK | 0600, makedev(major, minor)) ||
	    /* No discards: space that they release comes back by a resume only. */
	    swapon(NODE, 0))
		die("swapon: %s", strerror(errno));
}

static void check_clean(void)
{
	int fd = open("/dev/ram0", O_RDONLY | O_CLOEXEC), slot;
	static u8 head[MIB];

	if (fd < 0 || pread(fd, head, sizeof(head), 0) != sizeof(head))
		die("/dev/ram0: %s", strerror(errno));
	close(fd);
	slot = image_header(head);
	if (slot < 0 || memcmp(head + HEADER(slot) + H_LOG_GUID, no_guid, sizeof(no_guid))) {
		puts("# the image is not clean");
		bad_lines++;
	}
}

static void disturb(struct rng *r, int fd, unsigned int *suspends, unsigned int *flushes)
{
	char text[1000];

	switch (rng_below(r, 8)) {
	case 0:
		if (dm_suspend(name) || dm_resume(name)) {
			printf("# suspend or resume: %s\n", strerror(errno));
			bad_lines++;
		}
		++*suspends;
		break;
	case 1:
		if (dm_status(name, text, sizeof(text)) || strstr(text, " fail")) {
			printf("# status: %s\n", text);
			bad_lines++;
		}
		break;
	case 2:
		if (dm_message(name, "commit", text, sizeof(text)))
			bad_lines++;
		break;
	default:
		if (fdatasync(fd)) {
			printf("# flush: %s\n", strerror(errno));
			bad_lines++;
		}
		++*flushes;
		break;
	}
}

int main(int argc, char **argv)
{
	unsigned int seconds = 20, suspends = 0, flushes = 0;
	u64 seed = 1, size, out, in, most = 0;
	struct image img = {};
	bool *stop;
	pid_t pid[HOGS];
	struct rng r;
	int c, fd;

	while ((c = getopt(argc, argv, "s:t:")) != -1) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 't')
			seconds = atoi(optarg);
		else
			die("usage: swap [-s SEED] [-t SECONDS] IMAGE");
	}
	if (argc - optind != 1)
		die("usage: swap [-s SEED] [-t SECONDS] IMAGE");
	kmsg_read(NULL);
	make_clone(argv[optind], &img);
	fd = dm_open(name, O_RDWR);
	make_swap(&img, fd);
	stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (stop == MAP_FAILED)
		die("no memory");
	size = value_of("/proc/meminfo", "MemAvailable:") * 1024 + TOO_MUCH;
	fflush(stdout);
	for (int i = 0; i < HOGS; i++) {
		pid[i] = fork();
		if (!pid[i])
			hog(size / HOGS & ~(PAGE - 1ULL), seed * HOGS + i, stop);
	}
	/* Who suspends a swap must not be in it. */
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		die("mlockall: %s", strerror(errno));
	/* In an emulated guest without memory one turn of this has taken minutes. */
	watchdog_start(300);
	rng_init(&r, seed, 0);
	/* The time counts from when memory is short. */
	for (time_t end = 0; !end || time(NULL) < end; usleep(50000)) {
		if (!end && value_of("/proc/vmstat", "pswpout") > 1000)
			end = time(NULL) + seconds;
		disturb(&r, fd, &suspends, &flushes);
		kmsg_read(kmsg_line);
		out = value_of("/proc/vmstat", "pswpout");
		if (out + value_of("/proc/vmstat", "pswpin") != most || !end)
			watchdog_feed("swapping");
		most = out + value_of("/proc/vmstat", "pswpin");
		if (waitpid(-1, &c, WNOHANG) > 0) {
			printf("# a process has ended: status %#x\n", c);
			bad_lines++;
			break;
		}
	}
	__atomic_store_n(stop, true, __ATOMIC_SEQ_CST);
	watchdog_feed("the end of the processes");
	for (int i = 0; i < HOGS; i++)
		if (waitpid(pid[i], &c, 0) == pid[i] && c) {
			printf("# process %d: status %#x: memory is not what it was\n", i, c);
			bad_lines++;
		}
	out = value_of("/proc/vmstat", "pswpout");
	in = value_of("/proc/vmstat", "pswpin");
	watchdog_feed("swapoff");
	if (swapoff(NODE)) {
		printf("# swapoff: %s\n", strerror(errno));
		bad_lines++;
	}
	close(fd);
	watchdog_feed("remove");
	if (dm_remove(name))
		die("remove: %s", strerror(errno));
	check_clean();
	kmsg_read(kmsg_line);
	printf("# swap for %u s, seed %llu: %llu pages out, %llu in; ", seconds,
	       (unsigned long long)seed, (unsigned long long)out, (unsigned long long)in);
	printf("%u flushes, %u suspends; %u bad\n", flushes, suspends, bad_lines);
	if (out < 1000 || in < 1000 || !flushes || !suspends) {
		puts("# memory was not short");
		bad_lines++;
	}
	return bad_lines > 0;
}
