/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A device between a clone and its disk, of device-mapper's own targets, which does as it
 * should, or fails in one place, or in one way.  It changes under a clone that is active.
 */
#ifndef TORTURE_UNDER_H
#define TORTURE_UNDER_H

#include "torture.h"

enum flakey {
	FLAKEY_ALL,		/* fails all I/O */
	FLAKEY_ERROR_READS,	/* newer kernels' only */
	FLAKEY_ERROR_WRITES,
	FLAKEY_DROP_WRITES,	/* says that it has written, and has not */
	FLAKEY_CORRUPT_READS,	/* one byte of each read, or write */
	FLAKEY_CORRUPT_WRITES,
	FLAKEY_KINDS
};

extern const char * const flakey_names[FLAKEY_KINDS];

/* Makes it over @below, @sectors long; to be opened by the number that is returned. */
const char *under_make(const char *below, u64 sectors);
void under_remove(void);

/* As it should be. */
void under_is_well(void);

/* dm-dust: this sector can't be read, until it is written to. */
void under_has_dust(u64 sector);

/* These 8 sectors can be neither read nor written. */
void under_has_hole(u64 sector);

/*
 * dm-flakey; @byte: which one of each I/O is corrupted, from 1 on, and becomes @value.
 * Return: false if this kernel has no such thing.
 */
bool under_is_flakey(enum flakey kind, u32 byte, u8 value);

/* Some kernels' dm-flakey takes corrupt_bio_byte for reads, and then does nothing. */
bool under_corrupts_reads(void);

#endif /* TORTURE_UNDER_H */
