/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the torture tests share: device-mapper by its ioctls, since a dmsetup for each
 * step would be most of the time; loop devices; random numbers by case; the kernel's log.
 *
 * All of it runs in a guest, as root.  What the tests need and do not get ends them.
 */
#ifndef TORTURE_H
#define TORTURE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <time.h>

/* As the kernel has them: %llu prints a u64. */
typedef unsigned long long u64;
typedef unsigned int u32;
typedef unsigned short u16;
typedef unsigned char u8;

#define SECTOR		512
#define MIB		1048576
#define MIB_SECTORS	(MIB / SECTOR)

#define min(a, b) ({ typeof(a) _a = (a); typeof(b) _b = (b); _a < _b ? _a : _b; })

/* What threads share */
#define load(p)		__atomic_load_n(p, __ATOMIC_SEQ_CST)
#define store(p, value)	__atomic_store_n(p, value, __ATOMIC_SEQ_CST)
#define inc(p)		__atomic_add_fetch(p, 1, __ATOMIC_SEQ_CST)
#define dec(p)		__atomic_sub_fetch(p, 1, __ATOMIC_SEQ_CST)

void die(const char *fmt, ...) __attribute__((format(printf, 1, 2), noreturn));

/*
 * Something is not as it should be.  All are counted, and the first 20 printed, a line
 * each, which begins with the subject if there is one.
 */
extern unsigned int complaints;
extern char subject[160];
void complain(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* A line about what happens, for who asked for it. */
extern bool verbose;
void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* "-s N" sets *@number, "-v" sets *@flag, "-k WORD" sets *@text; one of the three. */
struct opt {
	char letter;
	u64 *number;
	bool *flag;
	const char **text;
};

/*
 * Takes the options off; @opts ends with an empty one.  After them there must be @least to
 * @most words, or it dies with @usage.  Return: the first of these.
 */
char **options(int argc, char **argv, const struct opt *opts, int least, int most,
	       const char *usage);

/* Both die if they can't. */
pthread_t start_thread(void *(*run)(void *data), void *data);
void *alloc_aligned(size_t size);

/* Seconds */
static inline u64 time_now(void)
{
	return time(NULL);
}

/* A stream of random numbers that follows from its seed alone. */
struct rng {
	u64 x;
};

void rng_init(struct rng *r, u64 seed, u64 stream);
u64 rng_next(struct rng *r);
/* Less than @below; 0 if that is 0. */
u64 rng_below(struct rng *r, u64 below);

/*
 * What a test writes to a sector, or to 512 bytes of memory: three numbers that say what
 * it is, and then what follows from them.
 */
#define STAMP		0x7365636172636863ULL
enum { STAMP_MAGIC, STAMP_SECTOR = 8, STAMP_ID = 16 };

void stamp(u8 *p, u64 sector, u64 id);
bool is_stamp(const u8 *p, u64 sector, u64 id);
bool is_zero(const u8 *p);

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

/* How many reads "/dev/NAME" has served. */
u64 reads_of(const char *dev);

/* Lines of the kernel's log since the last call; each goes to @line. */
void kmsg_read(void (*line)(const char *text));
/* Is this the begin of a report that must not be? */
bool kmsg_is_trouble(const char *text);
/* Complains of each such line since the last call. */
void kmsg_check(void);

/* Ends the process, with a word on what hangs, unless fed every @seconds. */
void watchdog_start(unsigned int seconds);
void watchdog_feed(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

u32 crc32c(const void *data, size_t size);

/* Reads all of a file; dies if it can't.  *@size is set. */
void *read_file(const char *path, size_t *size);

#endif /* TORTURE_H */
