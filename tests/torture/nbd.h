/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk that is a program: /dev/nbdN with a server thread in this process.  It fails
 * when told to, knows what a power cut would leave, and counts what it is asked for.
 */
#ifndef TORTURE_NBD_H
#define TORTURE_NBD_H

#include "torture.h"

/* Which I/Os fail, from the @from-th on that has been counted. */
enum sick {
	SICK_NOT,
	SICK_ALL,		/* the disk is gone */
	SICK_WRITES,		/* writes, flushes, discards; reads are fine */
	SICK_FLUSHES,		/* flushes, and writes with FUA */
	SICK_READS,
	SICK_ONE,		/* this one alone */
	SICK_LIES,		/* this one alone, if it is a read, has a wrong bit */
	SICK_KINDS
};

extern const char * const sick_names[SICK_KINDS];

/**
 * struct disk - the state of the disk; change it only when nothing is in flight
 * @data: what a read gets
 * @stable: what has been flushed
 * @size: bytes
 * @sick, @from: see above
 * @count: I/Os since it was last set to 0
 * @failed: how many of them failed
 * @lie: where the wrong bit was, in bytes; 0: nowhere yet
 * @late_at, @late_bytes: the next read that begins in here is late: it gets what is there
 *	now, but after @late_ms, and others are served meanwhile; then @late_bytes is 0
 * @late: that read is under way
 * @rng: what a failed write leaves, and what a power cut keeps
 */
struct disk {
	u8 *data;
	u8 *stable;
	size_t size;
	enum sick sick;
	u32 from;
	u32 count;
	u32 failed;
	u64 lie;
	u64 late_at;
	u64 late_bytes;
	u32 late_ms;
	bool late;
	struct rng rng;
};

/* Starts the server of /dev/nbdN; sets @disk->data and ->stable, zeros. */
void nbd_start(struct disk *disk, unsigned int nr, size_t size);

/* Both copies become this image, and the disk is well. */
void nbd_set(struct disk *disk, const u8 *image);

/* What was not flushed is lost, or not: stable is what is left. */
void nbd_power_cut(void);

#endif /* TORTURE_NBD_H */
