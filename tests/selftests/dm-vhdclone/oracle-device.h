/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Block devices and files, sector by sector; and what each part of the oracle needs. */
#ifndef ORACLE_DEVICE_H
#define ORACLE_DEVICE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t u64;
typedef uint32_t u32;
typedef uint8_t u8;

#define SECTOR		512
#define MAX_IO		(4u << 20)	/* bytes that a buffer has */
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* Print, and end the process at once. */
void __attribute__((format(printf, 1, 2), noreturn)) die(const char *fmt, ...);

/* Never NULL. */
void *xcalloc(size_t n, size_t size);
void *io_buffer(size_t size);

/* A number that looks random, the same for the same @x. */
u64 mix(u64 x);

struct device {
	const char *path;
	int fd;
	bool block;			/* a block device, not a file */
	bool direct;
	u64 sectors;
};

/* Open d->path, or die.  @direct: past the page cache, where that can be. */
void device_open(struct device *d, bool writable, bool direct);

/* All of these return 0, or the errno of the first part that failed. */
int device_rw(struct device *d, bool write, void *buf, u64 sector, u32 count, bool dsync);
int device_range(struct device *d, unsigned long request, u64 sector, u64 count);
int device_punch(struct device *d, u64 sector, u64 count);

/* @buf: room for MAX_IO bytes */
int device_zero(struct device *d, u64 sector, u64 count, void *buf);

#endif /* ORACLE_DEVICE_H */
