// SPDX-License-Identifier: GPL-2.0-or-later
/* Block devices and files, sector by sector: see oracle-device.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include "oracle-device.h"

void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("oracle: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	/* Other threads may be inside an I/O that never ends. */
	_exit(1);
}

void *xcalloc(size_t n, size_t size)
{
	void *p = calloc(n, size);

	if (!p)
		die("no memory for %zu * %zu bytes", n, size);
	return p;
}

void *io_buffer(size_t size)
{
	void *p;

	if (posix_memalign(&p, 4096, size))
		die("no memory for a buffer");
	return p;
}

u64 mix(u64 x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ x >> 27) * 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

/* ---- device -------------------------------------------------------------- */

void device_open(struct device *d, bool writable, bool direct)
{
	int flags = (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC;
	struct stat st;
	off_t end;

	d->direct = direct;
	d->fd = open(d->path, flags | (direct ? O_DIRECT : 0));
	/* No file on tmpfs can be opened so; and there it makes no difference. */
	if (d->fd < 0 && errno == EINVAL) {
		d->direct = false;
		d->fd = open(d->path, flags);
	}
	if (d->fd < 0)
		die("%s: %s", d->path, strerror(errno));
	if (fstat(d->fd, &st))
		die("%s: %s", d->path, strerror(errno));
	d->block = S_ISBLK(st.st_mode);
	end = lseek(d->fd, 0, SEEK_END);
	if (end < 0)
		die("%s: %s", d->path, strerror(errno));
	d->sectors = end / SECTOR;
}

/* Zero, or the errno of the first part that failed. */
int device_rw(struct device *d, bool write, void *buf, u64 sector, u32 count,
	      bool dsync)
{
	struct iovec iov = { .iov_base = buf, .iov_len = (size_t)count * SECTOR };
	off_t at = sector * SECTOR;

	while (iov.iov_len) {
		ssize_t n;

		if (write)
			n = pwritev2(d->fd, &iov, 1, at, dsync ? RWF_DSYNC : 0);
		else
			n = preadv(d->fd, &iov, 1, at);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return errno;
		if (n == 0)
			return write ? ENOSPC : ENODATA;
		iov.iov_base = (char *)iov.iov_base + n;
		iov.iov_len -= n;
		at += n;
	}
	return 0;
}

int device_range(struct device *d, unsigned long request, u64 sector, u64 count)
{
	u64 range[2] = { sector * SECTOR, count * SECTOR };

	return ioctl(d->fd, request, range) ? errno : 0;
}

int device_zero(struct device *d, u64 sector, u64 count, void *buf)
{
	if (d->block)
		return device_range(d, BLKZEROOUT, sector, count);
	/* The file that mirrors a device. */
	memset(buf, 0, MAX_IO);
	while (count) {
		u32 n = count < MAX_IO / SECTOR ? count : MAX_IO / SECTOR;
		int err = device_rw(d, true, buf, sector, n, false);

		if (err)
			return err;
		sector += n;
		count -= n;
	}
	return 0;
}

int device_punch(struct device *d, u64 sector, u64 count)
{
	if (fallocate(d->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		      sector * SECTOR, count * SECTOR))
		return errno;
	return 0;
}
