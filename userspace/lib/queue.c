// SPDX-License-Identifier: GPL-2.0-or-later
/* Several reads and writes under way: see queue.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <liburing.h>
#include <stdlib.h>

#include "queue.h"

#define VC_QUEUE_DEPTH	64U

/*
 * @first: with @last, those that the kernel does not know of yet
 * @nr: those that it does, or will with the next io_uring_submit()
 */
struct vc_queue {
	struct io_uring ring;
	bool parallel;
	unsigned int nr;
	struct vc_io *first;
	struct vc_io *last;
};

int vc_queue_open(struct vc_queue **result, struct vc_err *err)
{
	struct vc_queue *queue = calloc(1, sizeof(*queue));

	*result = queue;
	if (!queue)
		return vc_error_nomem(err);
	queue->parallel = !getenv("VHDCLONE_NO_IO_URING") &&
			  !io_uring_queue_init(VC_QUEUE_DEPTH, &queue->ring, 0);
	return 0;
}

bool vc_queue_is_parallel(const struct vc_queue *queue)
{
	return queue->parallel;
}

void vc_queue_add(struct vc_queue *queue, struct vc_io *io)
{
	io->next = NULL;
	if (queue->first)
		queue->last->next = io;
	else
		queue->first = io;
	queue->last = io;
}

static struct vc_io *vc_queue_take(struct vc_queue *queue)
{
	struct vc_io *io = queue->first;

	if (io)
		queue->first = io->next;
	return io;
}

/* Here and now, what of it is left from @done on. */
static int vc_io_do(const struct vc_io *io, u32 done, struct vc_err *err)
{
	switch (io->kind) {
	case VC_IO_READ:
		return vc_file_read(io->file, io->what, io->offset + done, io->buf + done,
				    io->len - done, err);
	case VC_IO_WRITE:
		return vc_file_write(io->file, io->what, io->offset + done, io->buf + done,
				     io->len - done, err);
	default:
		return 0;
	}
}

static void vc_io_prepare(struct vc_io *io, struct io_uring_sqe *sqe)
{
	switch (io->kind) {
	case VC_IO_READ:
		io_uring_prep_read(sqe, io->file->fd, io->buf, io->len, io->offset);
		break;
	case VC_IO_WRITE:
		io_uring_prep_write(sqe, io->file->fd, io->buf, io->len, io->offset);
		break;
	case VC_IO_WRITEBACK:
		io_uring_prep_sync_file_range(sqe, io->file->fd, io->len, io->offset,
					      SYNC_FILE_RANGE_WRITE);
		break;
	}
	io_uring_sqe_set_data(sqe, io);
}

/* Tell the kernel of all that there is room for. */
static int vc_queue_submit(struct vc_queue *queue, struct vc_err *err)
{
	struct io_uring_sqe *sqe;
	int ret;

	while (queue->first && queue->nr < VC_QUEUE_DEPTH) {
		sqe = io_uring_get_sqe(&queue->ring);
		if (!sqe)
			break;
		vc_io_prepare(vc_queue_take(queue), sqe);
		queue->nr++;
	}
	if (!io_uring_sq_ready(&queue->ring))
		return 0;
	do {
		ret = io_uring_submit(&queue->ring);
	} while (ret == -EINTR);
	/* It may have no memory for another one as long as there are others. */
	if (ret >= 0 || queue->nr > io_uring_sq_ready(&queue->ring))
		return 0;
	return vc_error_sys(err, -ret, NULL, "io_uring: cannot submit a request");
}

static int vc_queue_complete(struct vc_queue *queue, struct io_uring_cqe **cqe)
{
	int ret;

	do {
		ret = io_uring_wait_cqe(&queue->ring, cqe);
	} while (ret == -EINTR);
	return ret;
}

int vc_queue_wait(struct vc_queue *queue, struct vc_io **io, struct vc_err *err)
{
	struct io_uring_cqe *cqe;
	int done;
	int ret;

	if (!queue->parallel) {
		*io = vc_queue_take(queue);
		return *io ? vc_io_do(*io, 0, err) : 0;
	}
	*io = NULL;
	ret = vc_queue_submit(queue, err);
	if (ret || !queue->nr)
		return ret;
	ret = vc_queue_complete(queue, &cqe);
	if (ret)
		return vc_error_sys(err, -ret, NULL, "io_uring: cannot wait for a request");
	*io = io_uring_cqe_get_data(cqe);
	done = cqe->res < 0 ? 0 : cqe->res;
	io_uring_cqe_seen(&queue->ring, cqe);
	queue->nr--;
	if ((u32)done == (*io)->len)
		return 0;
	/* The plain way either gets the rest through, or says why not, and where. */
	return vc_io_do(*io, done, err);
}

void vc_queue_close(struct vc_queue *queue)
{
	struct io_uring_cqe *cqe;

	if (queue && queue->parallel) {
		while (queue->nr > io_uring_sq_ready(&queue->ring) &&
		       !vc_queue_complete(queue, &cqe)) {
			io_uring_cqe_seen(&queue->ring, cqe);
			queue->nr--;
		}
		io_uring_queue_exit(&queue->ring);
	}
	free(queue);
}
