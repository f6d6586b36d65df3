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
#include <unistd.h>

#include "image.h"

#define HOGS		3
#define PAGE		4096
/* What is to be in the swap at any time */
#define TOO_MUCH	(12 * MIB)
#define NODE		"/dev/torture-swap"

static const char name[] = "swapped";

static void kmsg_line(const char *text)
{
	if (kmsg_is_trouble(text) || strstr(text, "switching to") ||
	    strstr(text, "Out of memory") || strstr(text, "rite-error on swap"))
		complain("the kernel says: %s", text);
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

/* A page as the hog of this seed leaves it in this round */
static void fill(u8 *page, u64 nr, u64 seed, u32 round)
{
	for (int i = 0; i < PAGE / SECTOR; i++)
		stamp(page + i * SECTOR, nr * (PAGE / SECTOR) + i, seed << 32 | round);
}

static bool is_right(const u8 *page, u64 nr, u64 seed, u32 round)
{
	for (int i = 0; i < PAGE / SECTOR; i++)
		if (!is_stamp(page + i * SECTOR, nr * (PAGE / SECTOR) + i, seed << 32 | round))
			return false;
	return true;
}

/* Never returns.  Exit status: 0, or 1 if a page was not as it had been left. */
static void hog(u64 size, u64 seed, const bool *stop)
{
	u64 nr = size / PAGE;
	struct rng r;
	u32 *round;
	u8 *pages;

	pages = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	round = calloc(nr, sizeof(*round));
	if (pages == MAP_FAILED || !round)
		_exit(2);
	rng_init(&r, seed, 1);
	for (u64 i = 0; i < nr && !load(stop); i++) {
		round[i] = 1;
		fill(pages + i * PAGE, i, seed, 1);
	}
	while (!load(stop)) {
		u64 i = rng_below(&r, nr);

		if (!is_right(pages + i * PAGE, i, seed, round[i]))
			_exit(1);
		if (!rng_below(&r, 3))
			fill(pages + i * PAGE, i, seed, ++round[i]);
	}
	for (u64 i = 0; i < nr; i++)
		if (round[i] && !is_right(pages + i * PAGE, i, seed, round[i]))
			_exit(1);
	_exit(0);
}

/* ---- the clone ---- */

static void make_clone(const char *image, struct image *img)
{
	char command[200], table[400], *p = table;
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
	p += sprintf(p, "0 %llu vhdclone 2", img->sectors);
	p = image_words(p, img, "/dev/ram0");
	sprintf(p, " raw /dev/ram1 0 %llu", img->sectors);
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
	int fd = open("/dev/ram0", O_RDONLY | O_CLOEXEC);
	static u8 head[MIB];

	if (fd < 0 || pread(fd, head, sizeof(head), 0) != sizeof(head))
		die("/dev/ram0: %s", strerror(errno));
	close(fd);
	if (!image_is_clean(head))
		complain("the image is not clean");
}

static void disturb(struct rng *r, int fd, unsigned int *suspends, unsigned int *flushes)
{
	char text[1000];

	switch (rng_below(r, 8)) {
	case 0:
		if (dm_suspend(name) || dm_resume(name))
			complain("suspend or resume: %s", strerror(errno));
		++*suspends;
		break;
	case 1:
		if (dm_status(name, text, sizeof(text)) || strstr(text, " fail"))
			complain("status: %s", text);
		break;
	case 2:
		if (dm_message(name, "commit", text, sizeof(text)))
			complain("commit: %s", strerror(errno));
		break;
	default:
		if (fdatasync(fd))
			complain("flush: %s", strerror(errno));
		++*flushes;
		break;
	}
}

int main(int argc, char **argv)
{
	u64 seed = 1, seconds = 20, size, out, in, most = 0, began, shown = 0;
	const struct opt opts[] = { { 's', .number = &seed }, { 't', .number = &seconds }, {} };
	unsigned int suspends = 0, flushes = 0;
	struct image img = {};
	bool *stop;
	pid_t pid[HOGS];
	struct rng r;
	int c, fd;

	argv = options(argc, argv, opts, 1, 1, "swap [-s SEED] [-t SECONDS] IMAGE");
	kmsg_read(NULL);
	make_clone(argv[0], &img);
	fd = dm_open(name, O_RDWR);
	make_swap(&img, fd);
	stop = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (stop == MAP_FAILED)
		die("no memory");
	size = value_of("/proc/meminfo", "MemAvailable:") * 1024 + TOO_MUCH;
	/* Who suspends a swap must not be in it.  This is not for children. */
	if (mlockall(MCL_CURRENT | MCL_FUTURE))
		die("mlockall: %s", strerror(errno));
	/* In an emulated guest without memory one turn of this has taken minutes. */
	watchdog_start(300);
	watchdog_feed("memory, until it is short");
	fflush(stdout);
	for (int i = 0; i < HOGS; i++) {
		pid[i] = fork();
		if (!pid[i])
			hog(size / HOGS & ~(PAGE - 1ULL), seed * HOGS + i, stop);
	}
	rng_init(&r, seed, 0);
	/* The time counts from when memory is short. */
	began = time_now();
	for (u64 end = 0; !end || time_now() < end; usleep(50000)) {
		out = value_of("/proc/vmstat", "pswpout");
		in = value_of("/proc/vmstat", "pswpin");
		if (!end && out > 1000)
			end = time_now() + seconds;
		if (out + in != most)
			watchdog_feed("swapping");
		most = out + in;
		if (time_now() >= shown + 20) {
			shown = time_now();
			printf("#   %4llu s: %llu pages out, %llu in, %u flushes, %u suspends\n",
			       shown - began, out, in, flushes, suspends);
			fflush(stdout);
		}
		disturb(&r, fd, &suspends, &flushes);
		kmsg_read(kmsg_line);
		if (waitpid(-1, &c, WNOHANG) > 0) {
			complain("a process has ended: status %#x", c);
			break;
		}
	}
	store(stop, true);
	watchdog_feed("the end of the processes");
	for (int i = 0; i < HOGS; i++)
		if (waitpid(pid[i], &c, 0) == pid[i] && c)
			complain("process %d: status %#x: memory is not what it was", i, c);
	out = value_of("/proc/vmstat", "pswpout");
	in = value_of("/proc/vmstat", "pswpin");
	watchdog_feed("swapoff");
	if (swapoff(NODE))
		complain("swapoff: %s", strerror(errno));
	close(fd);
	watchdog_feed("remove");
	if (dm_remove(name))
		die("remove: %s", strerror(errno));
	check_clean();
	kmsg_read(kmsg_line);
	printf("# swap for %llu s, seed %llu: %llu pages out, %llu in; ", seconds, seed,
	       out, in);
	printf("%u flushes, %u suspends; %u bad\n", flushes, suspends, complaints);
	if (out < 1000 || in < 1000 || !flushes || !suspends)
		complain("memory was not short");
	return complaints > 0;
}
