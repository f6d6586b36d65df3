/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the fuzzers share.  An image is fuzzed as a list of pieces, because it is mostly
 * holes: byte 0 says what is put right afterwards (FIX_*), byte 1 is the size of the
 * file in MiB, then for each piece its offset (4 bytes), length (2 bytes) and bytes.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "vhdx-format.h"

#define FUZZ_MAX_PIECES		64U
#define FUZZ_MAX_PIECE		8192U
#define FUZZ_MAX_MIB		10U
#define FUZZ_PAGE		4096U
#define FUZZ_FILE_MAX		(17ULL << 20)	/* the replay may make it longer */

#define FIX_HEADERS		0x1U	/* checksums of both copies */
#define FIX_REGIONS		0x2U	/* of both copies of the region table */
#define FIX_LOG			0x4U	/* of whatever looks like an entry */
#define FIX_VHD			0x10U	/* footer, its copy and the header of a VHD */
#define FIX_ALL			0x17U
#define CAN_ZERO		0x8U	/* the file system zeroes ranges by itself */

/**
 * struct fuzz_piece - bytes in a file
 * @at: offset
 * @len: so many
 * @data: in the input, or in the mutator's own copy
 */
struct fuzz_piece {
	u32 at;
	u32 len;
	const u8 *data;
};

struct fuzz_image {
	u8 fix;
	u8 mib;
	unsigned int nr;
	struct fuzz_piece piece[FUZZ_MAX_PIECES];
};

/* Return: false if there is not even a size. */
bool fuzz_parse(const u8 *data, size_t size, struct fuzz_image *image);

/* The inverse.  Return: bytes; pieces that do not fit are left out. */
size_t fuzz_print(const struct fuzz_image *image, u8 *out, size_t room);

/* Make it the file. */
void fuzz_write(const struct fuzz_image *image);

/* The file in memory: see memfile.c.  All of @size bytes is a hole now. */
void fuzz_file_reset(u64 size, bool zero_range);

/* Write, behind the back of the library; the length stays. */
void fuzz_file_put(u64 at, const void *data, size_t len);

/* Return: bytes of the file, to be read only; NULL if it does not have all of them. */
const u8 *fuzz_file_bytes(u64 at, size_t len);

/* Return: page @number, NULL: it is a hole.  From page fuzz_file_pages() on all are. */
const u8 *fuzz_file_page(u64 number);
u64 fuzz_file_pages(void);

/* The library has freed what it had. */
void fuzz_no_leak(void);

/* Something is as it must not be. */
#define fuzz_assert(true_)						\
	do {								\
		if (!(true_)) {						\
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__,	\
				__LINE__, #true_);			\
			abort();					\
		}							\
	} while (0)

/* The tool's main(), and what the linker gives it in place of others. */
int vhdclone_main(int argc, char **argv);
int __wrap_nanosleep(const struct timespec *nap, struct timespec *left);
int __wrap_clock_gettime(clockid_t id, struct timespec *now);
int __real_clock_gettime(clockid_t id, struct timespec *now);

size_t LLVMFuzzerMutate(u8 *data, size_t size, size_t max);
int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t max, unsigned int seed);
size_t LLVMFuzzerCustomCrossOver(const u8 *a, size_t a_size, const u8 *b, size_t b_size,
				 u8 *out, size_t room, unsigned int seed);

#endif /* FUZZ_H */
