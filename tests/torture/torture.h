/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the torture tests share: device-mapper by its ioctls, since a dmsetup for each
 * step would be most of the time; loop devices; random numbers by case; the kernel's log.
 *
 * All of it runs in a guest, as root.  What the tests need and do not get ends them.
 */
#ifndef TORTURE_H
#define TORTURE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef uint64_t u64;
typedef int64_t s64;
typedef uint32_t u32;
typedef uint16_t u16;
typedef uint8_t u8;

#define SECTOR		512
#define MIB		1048576
#define MIB_SECTORS	(MIB / SECTOR)

#define min(a, b) ({ typeof(a) _a = (a); typeof(b) _b = (b); _a < _b ? _a : _b; })

void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/* A stream of random numbers that follows from its seed alone. */
struct rng {
	u64 x;
};

void rng_init(struct rng *r, u64 seed, u64 stream);
u64 rng_next(struct rng *r);
/* Less than @below; 0 if that is 0. */
u64 rng_below(struct rng *r, u64 below);

/*
 * Device-mapper.  Names are of the tests' own devices; a table is one line for each
 * target, as dmsetup's.  Return: 0 or -1 with errno.
 */
int dm_create(const char *name);
int dm_load(const char *name, const char *table, bool read_only);
int dm_resume(const char *name);
int dm_suspend(const char *name);
int dm_remove(const char *name);
int dm_message(const char *name, const char *message, char *out, size_t size);
int dm_status(const char *name, char *out, size_t size);
/* create, load and resume; dies if that fails */
void dm_make(const char *name, const char *table);
/* Opens the device by its number: nobody needs a node for it. */
int dm_open(const char *name, int flags);
/* "major:minor" */
const char *dm_devno(const char *name);

/* A file of @size bytes in memory, mapped at *@map, and a loop device on it. */
void loop_make(const char *path, size_t size, bool read_only, u8 **map, char *dev);

/* Lines of the kernel's log since the last call; each goes to @line. */
void kmsg_read(void (*line)(const char *text));
/* Is this the begin of a report that must not be? */
bool kmsg_is_trouble(const char *text);

/* Ends the process, with a word on what hangs, unless fed every @seconds. */
void watchdog_start(unsigned int seconds);
void watchdog_feed(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

u32 crc32c(const void *data, size_t size);

/* Reads all of a file; dies if it can't.  *@size is set. */
void *read_file(const char *path, size_t *size);

#endif /* TORTURE_H */
