/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The log (2.3): the search of the active sequence, and its replay, on disk or in
 * memory.  Until the replay nothing but the headers and the log may be believed.
 */
#ifndef VC_LOG_H
#define VC_LOG_H

#include "image.h"

/**
 * struct vc_ring - a log in memory
 * @path: of the file, for messages
 * @offset: of the log in the file, for messages
 * @buf: all @length bytes, as they are there
 * @joined: the last entry that was checked and goes around the end
 * @work: bytes that may yet be checked
 */
struct vc_ring {
	const char *path;
	u64 offset;
	u8 *buf;
	u32 length;
	u8 *joined;
	u64 work;
};

/* @ring is valid for vc_ring_free() also after an error; @file must stay open. */
int vc_ring_read(struct vc_ring *ring, const struct vc_file *file,
		 const struct vhdx_header_info *h, struct vc_err *err);
void vc_ring_free(struct vc_ring *ring);

/* Is there an entry's header at @pos? */
bool vc_ring_parse(const struct vc_ring *ring, u32 pos, struct vhdx_log_entry_info *info);

/**
 * vc_ring_check() - check a whole entry
 * @ring: the log
 * @pos: where in it
 * @info: as vc_ring_parse() gave it
 * @entry: result: the entry in one piece, until the next call
 * @err: filled in on error: without memory, or if it all takes too long
 *
 * Return: 1 if it is valid, 0 if not, or a negative errno.
 */
int vc_ring_check(struct vc_ring *ring, u32 pos, const struct vhdx_log_entry_info *info,
		  const u8 **entry, struct vc_err *err);

/**
 * struct vc_log_report - what a replay did
 * @nr_entries: entries replayed
 * @nr_pages: 4 KiB pages written
 * @zero_bytes: bytes of zeros written
 * @bytes: all bytes written
 * @first_sequence: of the oldest entry that was still needed
 * @last_sequence: of the newest
 * @old_size: of the file, before
 * @new_size: and after
 */
struct vc_log_report {
	u64 nr_entries;
	u64 nr_pages;
	u64 zero_bytes;
	u64 bytes;
	u64 first_sequence;
	u64 last_sequence;
	u64 old_size;
	u64 new_size;
};

/* The log, replayed in memory: what it would write, of each place the last. */
struct vc_overlay;

const struct vc_log_report *vc_overlay_report(const struct vc_overlay *overlay);
void vc_overlay_apply(const struct vc_overlay *overlay, u64 offset, void *buf, size_t len);
void vc_overlay_free(struct vc_overlay *overlay);

/* The @i-th range that it would write.  Return: false behind the last. */
bool vc_overlay_range(const struct vc_overlay *overlay, u64 i, u64 *offset, u64 *length);

/* Read the log of a dirty image, and set its overlay and its size. */
int vc_log_replay_memory(struct vc_image *image, struct vc_err *err);

/**
 * vc_log_recover() - replay the log on disk, or find that there is nothing to do
 * @image: open for writing, VC_IMAGE_HEADERS is enough
 * @report: what was done; all zero if the log was empty
 * @err: filled in on error
 *
 * Can be interrupted at any point and started again.  A header copy that is
 * damaged is written anew.  The image must be reloaded afterwards.
 */
int vc_log_recover(struct vc_image *image, struct vc_log_report *report,
		   struct vc_err *err);

#endif /* VC_LOG_H */
