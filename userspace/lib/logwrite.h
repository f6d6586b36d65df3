/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writing to the log of an image at rest: the write session of
 * Documentation/commit-protocol.rst, one entry at a time, each put in place at once.
 */
#ifndef VC_LOGWRITE_H
#define VC_LOGWRITE_H

#include "image.h"

/* Pages in an entry: two of these, and an empty one, fit into the smallest log. */
#define VC_LOG_PAGES	62U

/* 4 KiB of metadata and where in the file it belongs. */
struct vc_log_page {
	u64 offset;
	const u8 *data;
};

/**
 * struct vc_log_writer - a write session
 * @image: its log is empty when the session starts
 * @open: the headers name the log
 * @torn: an entry is durable and not all of it in place: replay must do it
 */
struct vc_log_writer {
	struct vc_image *image;
	bool open;
	bool torn;
	u64 sequence;
	u32 head;
	u8 *buf;
};

/*
 * An empty entry, then both headers with a new LogGuid and FileWriteGuid, and what
 * else image->header says now; all of it durable.
 */
int vc_log_start(struct vc_log_writer *writer, struct vc_image *image, struct vc_err *err);

/**
 * vc_log_write() - make what was written so far durable, then these pages, all or none
 * @nr: at most VC_LOG_PAGES
 *
 * They are put in place in the order given, which the next entry, or the end of the
 * session, makes durable.
 */
int vc_log_write(struct vc_log_writer *writer, const struct vc_log_page *pages,
		 unsigned int nr, struct vc_err *err);

/* Both headers with an empty log.  Not if @torn. */
int vc_log_stop(struct vc_log_writer *writer, struct vc_err *err);

#endif /* VC_LOGWRITE_H */
