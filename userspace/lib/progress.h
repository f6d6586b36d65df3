/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Long work: how far it is, whether somebody wants it to stop, and how fast it may
 * go.  The library calls vc_progress_step() after each piece; the tool decides what
 * to show.
 */
#ifndef VC_PROGRESS_H
#define VC_PROGRESS_H

#include <stdatomic.h>

#include "err.h"

/**
 * struct vc_progress - one piece of long work
 * @done: bytes so far
 * @total: bytes in all, as far as is known
 * @rate: at most so many bytes a second, 0: as fast as can be
 * @report: called by vc_progress_step(), NULL for none
 * @stop: set by a signal handler: end as soon as the image is in order
 * @data: for @report
 * @started_ns: monotonic time of the first step, 0 before it
 */
struct vc_progress {
	u64 done;
	u64 total;
	u64 rate;
	void (*report)(struct vc_progress *progress);
	const atomic_int *stop;
	void *data;
	u64 started_ns;
};

/* Monotonic nanoseconds, never 0. */
u64 vc_progress_now(void);

/**
 * vc_progress_step() - so many more bytes are done
 *
 * Sleeps if that was too fast, but not long enough to keep a signal waiting.  Not for
 * two threads at once.  @progress may be NULL.
 * Return: 0, or -EINTR if the work is to end now; the caller then leaves what it
 * works on valid.
 */
int vc_progress_step(struct vc_progress *progress, u64 bytes);

#endif /* VC_PROGRESS_H */
