// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A page of the sector bitmap that is read late, by a disk that answers others meanwhile.
 *
 *	late [-s SEED] [-t SECONDS] SCENE
 *
 * Two may need a page that is not in memory: who serves I/O, and who commits, if a block was
 * discarded.  Here the first one's read of it is late (nbd.c).  A commit, which needs it too,
 * a write that sets a bit in it, another commit, and a shrinker that takes the page when
 * it has been written in its place would all get done before that read has come back, with
 * the bits as they were: if the second did not wait for the first.
 *
 * SCENE has a partial block 0, nothing in block DISCARDED, and one page of bitmap for all.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "image.h"
#include "nbd.h"

#define DISCARDED	5
#define LATE_MS		700

static struct {
	struct image image, base;
	struct disk disk;
	int fd, caches;
} t;

static const char name[] = "late";

static void setup(const char *scene)
{
	char dev[32], table[400], *p = table;

	/* It is on the other disk. */
	image_load(&t.image, scene, 0, false, dev);
	image_load(&t.base, scene, 1, true, dev);
	nbd_start(&t.disk, 0, t.image.size);
	nbd_set(&t.disk, t.image.data);
	p += sprintf(p, "0 %llu vhdclone 2", t.image.sectors);
	p = image_words(p, &t.image, "/dev/nbd0");
	image_words(p, &t.base, dev);
	dm_make(name, table);
	t.fd = dm_open(name, O_RDWR | O_DIRECT);
	t.caches = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);
}

static void write_sector(u64 sector, u64 id)
{
	static u8 *buf;

	if (!buf)
		buf = alloc_aligned(SECTOR);
	stamp(buf, sector, id);
	if (pwrite(t.fd, buf, SECTOR, sector * SECTOR) != SECTOR)
		complain("write: %s", strerror(errno));
}

static void flush(void)
{
	if (fdatasync(t.fd))
		complain("flush: %s", strerror(errno));
}

static void drop_caches(void)
{
	if (pwrite(t.caches, "2", 1, 0) != 1)
		complain("drop_caches: %s", strerror(errno));
	usleep(10000);
}

static void *read_first(void *buf)
{
	if (pread(t.fd, buf, SECTOR, 0) != SECTOR)
		complain("read: %s", strerror(errno));
	return NULL;
}

/* Return: was the read late? */
static bool round_of(u64 sector, u64 nr)
{
	u64 block = t.image.block * DISCARDED;
	u64 range[2] = { block * SECTOR, t.image.block * SECTOR };
	u8 *buf = alloc_aligned(SECTOR);
	pthread_t id;
	bool late;

	/* Something to discard.  A resume gives space back, and begins without any page. */
	write_sector(block + sector, nr);
	if (dm_suspend(name) || dm_resume(name))
		complain("suspend, resume: %s", strerror(errno));
	if (ioctl(t.fd, BLKDISCARD, range))
		complain("discard: %s", strerror(errno));
	t.disk.late_at = (image_bitmap_entry(&t.image, 0) >> 20) * MIB;
	t.disk.late_ms = LATE_MS;
	store(&t.disk.late_bytes, 4096);
	id = start_thread(read_first, buf);
	for (int i = 0; i < 100 && load(&t.disk.late_bytes); i++)
		usleep(1000);
	/* It was in memory, or not all reads need it. */
	store(&t.disk.late_bytes, 0);
	late = load(&t.disk.late);
	flush();
	write_sector(sector, nr);
	flush();
	while (load(&t.disk.late))
		drop_caches();
	pthread_join(id, NULL);
	if (pread(t.fd, buf, SECTOR, sector * SECTOR) != SECTOR)
		complain("read: %s", strerror(errno));
	if (!is_stamp(buf, sector, nr))
		complain("sector %llu was written, and is not what was written", sector);
	free(buf);
	return late;
}

int main(int argc, char **argv)
{
	u64 seed = 1, seconds = 20, began, nr = 0, late = 0;
	const struct opt opts[] = { { 's', .number = &seed }, { 't', .number = &seconds }, {} };
	struct rng r;

	argv = options(argc, argv, opts, 1, 1, "late [-s SEED] [-t SECONDS] SCENE");
	kmsg_read(NULL);
	setup(argv[0]);
	watchdog_start(60);
	rng_init(&r, seed, 0);
	began = time_now();
	while (time_now() < began + seconds && !complaints) {
		late += round_of(rng_below(&r, t.image.block), ++nr);
		kmsg_check();
		watchdog_feed("round %llu", nr);
	}
	close(t.fd);
	if (dm_remove(name))
		complain("remove: %s", strerror(errno));
	if (!image_is_clean(t.disk.data))
		complain("the image is not clean");
	kmsg_check();
	printf("# %llu rounds of seed %llu in %llu s, %llu reads were late; %u bad\n", nr, seed,
	       time_now() - began, late, complaints);
	if (late < nr / 2)
		complain("too few reads were late");
	fflush(stdout);
	/* The server's thread and the kernel's go with the process. */
	_exit(complaints ? 1 : 0);
}
