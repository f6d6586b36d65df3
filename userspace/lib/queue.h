/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Several reads and writes of files under way at a time. */
#ifndef VC_QUEUE_H
#define VC_QUEUE_H

#include "file.h"

enum vc_io_kind {
	VC_IO_READ,
	VC_IO_WRITE,
	VC_IO_WRITEBACK,	/* begin to write back what was written: a hint */
};

/**
 * struct vc_io - a read or a write
 * @kind: which
 * @file: of what
 * @what: names it in a message; a constant
 * @offset: bytes
 * @len: bytes
 * @buf: must stay until it is complete; unused for VC_IO_WRITEBACK
 * @owner: whatever the caller wants to find there
 * @next: the queue's
 */
struct vc_io {
	enum vc_io_kind kind;
	const struct vc_file *file;
	const char *what;
	u64 offset;
	u32 len;
	u8 *buf;
	void *owner;
	struct vc_io *next;
};

struct vc_queue;

/**
 * vc_queue_open() - get a queue
 * @result: to be closed with vc_queue_close()
 * @err: filled in on error
 *
 * It is an io_uring, or where there is none (old kernels, containers) does one after
 * the other.  The latter also if VHDCLONE_NO_IO_URING is in the environment.
 */
int vc_queue_open(struct vc_queue **result, struct vc_err *err);

/* Waits for the kernel to be done with all buffers; what it has not begun is dropped. */
void vc_queue_close(struct vc_queue *queue);

/* Is there more than one under way at a time? */
bool vc_queue_is_parallel(const struct vc_queue *queue);

/* Begin with @io, some time before the next vc_queue_wait() returns, in any order. */
void vc_queue_add(struct vc_queue *queue, struct vc_io *io);

/**
 * vc_queue_wait() - wait until one is complete
 * @queue: the queue
 * @io: result, as a whole or with an error; NULL: there was none to wait for, or the
 *	queue itself does not work
 * @err: filled in on error
 *
 * Return: 0 or a negative errno, of this @io.
 */
int vc_queue_wait(struct vc_queue *queue, struct vc_io **io, struct vc_err *err);

#endif /* VC_QUEUE_H */
