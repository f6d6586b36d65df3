// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The file of the image fuzzer, in memory: see fuzz.h.
 *
 * fuzz-image is linked with --wrap, so that what the library calls for the contents of
 * a file ends up here; opening and closing is real.  There is one file, whatever the
 * descriptor.  It is sparse: an image is mostly holes, and nobody wants to sum them up.
 *
 * Large buffers come from here, too: a fresh one costs hundreds of page faults.  Behind
 * each is poison, and in it once it is freed; who keeps one is found by fuzz_no_leak().
 */
#define _GNU_SOURCE
#include <errno.h>
#include <linux/falloc.h>
#include <sanitizer/asan_interface.h>
#include <stdint.h>

#include "fuzz.h"
#include "memfile.h"

#define PAGE		FUZZ_PAGE
#define NR_PAGES	(FUZZ_FILE_MAX / PAGE)

static u8 content[FUZZ_FILE_MAX];
static bool there[NR_PAGES];
static u64 used_pages;		/* none from here on */
static u64 length;
static bool can_zero;

/* ---- for the fuzzer ---------------------------------------------------------- */

static void drop(u64 first, u64 end)
{
	u64 i;

	for (i = first; i < end && i < used_pages; i++) {
		if (there[i])
			memset(content + i * PAGE, 0, PAGE);
		there[i] = false;
	}
}

void fuzz_file_reset(u64 size, bool zero_range)
{
	drop(0, NR_PAGES);
	used_pages = 0;
	length = size;
	can_zero = zero_range;
}

void fuzz_file_put(u64 at, const void *data, size_t len)
{
	u64 i;

	fuzz_assert(at <= FUZZ_FILE_MAX && len <= FUZZ_FILE_MAX - at);
	if (!len)
		return;
	memcpy(content + at, data, len);
	for (i = at / PAGE; i <= (at + len - 1) / PAGE; i++)
		there[i] = true;
	if (used_pages < i)
		used_pages = i;
}

const u8 *fuzz_file_bytes(u64 at, size_t len)
{
	return at <= length && len <= length - at ? content + at : NULL;
}

const u8 *fuzz_file_page(u64 number)
{
	return number < used_pages && there[number] ? content + number * PAGE : NULL;
}

u64 fuzz_file_pages(void)
{
	return used_pages;
}

/* ---- for the library --------------------------------------------------------- */

int __wrap_fstat64(int fd, struct stat *st)
{
	int ret = __real_fstat64(fd, st);

	st->st_size = length;
	return ret;
}

ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t at)
{
	u64 known = used_pages * PAGE;
	size_t n;

	(void)fd;
	if (at < 0 || (u64)at >= length)
		return 0;
	if (len > length - at)
		len = length - at;
	/* What is not there is zeros in @content, too, and none behind its end. */
	n = (u64)at < known ? known - at : 0;
	if (n > len)
		n = len;
	memcpy(buf, content + (n ? at : 0), n);
	memset((u8 *)buf + n, 0, len - n);
	return len;
}

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t at)
{
	(void)fd;
	fuzz_file_put(at, buf, len);
	if (at + len > length)
		length = at + len;
	return len;
}

off_t __wrap_lseek64(int fd, off_t at, int whence)
{
	u64 page = at / PAGE;

	(void)fd;
	if (whence == SEEK_END)
		return length + at;
	fuzz_assert(whence == SEEK_DATA || whence == SEEK_HOLE);
	if (at < 0 || (u64)at >= length) {
		errno = ENXIO;
		return -1;
	}
	while (page < used_pages && there[page] != (whence == SEEK_DATA))
		page++;
	if (page >= used_pages && whence == SEEK_DATA) {
		errno = ENXIO;
		return -1;
	}
	if (page > (u64)at / PAGE)
		at = page * PAGE;
	return (u64)at < length ? (u64)at : length;
}

int __wrap_ftruncate64(int fd, off_t size)
{
	u64 end = (size + PAGE - 1) / PAGE;

	(void)fd;
	fuzz_assert(size >= 0 && (u64)size <= FUZZ_FILE_MAX);
	drop(end, NR_PAGES);
	if (size % PAGE)
		memset(content + size, 0, end * PAGE - size);
	length = size;
	return 0;
}

int __wrap_fallocate64(int fd, int mode, off_t at, off_t len)
{
	u64 first = (at + PAGE - 1) / PAGE;
	u64 end = (at + len) / PAGE;

	(void)fd;
	if (!can_zero || at < 0 || len <= 0) {
		errno = EOPNOTSUPP;
		return -1;
	}
	fuzz_assert((u64)at <= FUZZ_FILE_MAX && (u64)len <= FUZZ_FILE_MAX - at);
	if (mode & (FALLOC_FL_ZERO_RANGE | FALLOC_FL_PUNCH_HOLE)) {
		memset(content + at, 0, len);
		drop(first, end);
	}
	if (!(mode & FALLOC_FL_KEEP_SIZE) && (u64)(at + len) > length)
		length = at + len;
	return 0;
}

int __wrap_fsync(int fd)
{
	(void)fd;
	return 0;
}

/* ---- large buffers ----------------------------------------------------------- */

#define NR_SLOTS	12
#define SMALLEST	(32U << 10)
#define LARGEST		(2U << 20)
#define FENCE		4096U
#define SLOT		(LARGEST + FENCE)
/* So much of a freed one is poisoned at each end: all of it would take long. */
#define MARK		(16U << 10)

static u8 arena[NR_SLOTS][SLOT] __attribute__((aligned(4096)));
static size_t taken[NR_SLOTS];

static unsigned int slot_of(const void *p)
{
	size_t at = (uintptr_t)p - (uintptr_t)arena;

	if (at >= sizeof(arena))
		return NR_SLOTS;
	fuzz_assert(at % SLOT == 0);
	return at / SLOT;
}

void *__wrap_malloc(size_t size)
{
	unsigned int i;

	if (size < SMALLEST || size > LARGEST)
		return __real_malloc(size);
	for (i = 0; i < NR_SLOTS && taken[i]; i++)
		;
	if (i == NR_SLOTS)
		return __real_malloc(size);
	taken[i] = size;
	ASAN_UNPOISON_MEMORY_REGION(arena[i], size);
	ASAN_POISON_MEMORY_REGION(arena[i] + size, FENCE);
	return arena[i];
}

void *__wrap_calloc(size_t n, size_t size)
{
	void *p;

	if (n && (size > LARGEST / n || n * size < SMALLEST))
		return __real_calloc(n, size);
	p = __wrap_malloc(n * size);
	return p ? memset(p, 0, n * size) : NULL;
}

void __wrap_free(void *p)
{
	unsigned int i = slot_of(p);
	size_t size;

	if (i == NR_SLOTS) {
		__real_free(p);
		return;
	}
	size = taken[i];
	fuzz_assert(size);
	taken[i] = 0;
	ASAN_POISON_MEMORY_REGION(p, size < MARK ? size : MARK);
	if (size > MARK)
		ASAN_POISON_MEMORY_REGION((u8 *)p + size - MARK, MARK);
}

void *__wrap_realloc(void *p, size_t size)
{
	unsigned int i = slot_of(p);
	void *copy;

	if (i == NR_SLOTS)
		return __real_realloc(p, size);
	copy = __wrap_malloc(size);
	if (copy) {
		memcpy(copy, p, size < taken[i] ? size : taken[i]);
		__wrap_free(p);
	}
	return copy;
}

void fuzz_no_leak(void)
{
	unsigned int i;

	for (i = 0; i < NR_SLOTS; i++)
		fuzz_assert(!taken[i] && "a large buffer was not freed");
}

/* ---- checksums --------------------------------------------------------------- */

/*
 * Of pages of zeros, which are most: what 4096 of them make of a checksum is linear in
 * it, so four tables say it.
 */
static u32 over_zeros[4][256];

static void make_tables(void)
{
	static const u8 zeros[PAGE];
	u32 i;
	u32 j;

	for (i = 0; i < 4; i++)
		for (j = 0; j < 256; j++)
			over_zeros[i][j] = __real_vhdx_crc32c_step(j << 8 * i, zeros,
								   sizeof(zeros));
}

u32 __wrap_vhdx_crc32c_step(u32 crc, const void *buf, size_t len)
{
	const u8 *at = buf;

	if (!over_zeros[0][1])
		make_tables();
	for (; len >= PAGE; at += PAGE, len -= PAGE) {
		if (at[0] || memcmp(at, at + 1, PAGE - 1))
			crc = __real_vhdx_crc32c_step(crc, at, PAGE);
		else
			crc = over_zeros[0][crc & 255] ^ over_zeros[1][crc >> 8 & 255] ^
			      over_zeros[2][crc >> 16 & 255] ^ over_zeros[3][crc >> 24];
	}
	return __real_vhdx_crc32c_step(crc, at, len);
}
