// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The log: see log.h.
 *
 * An entry is valid if its checksum, its descriptors and its data sectors are, and
 * it carries the GUID of the header.  A sequence is a run of valid entries with
 * consecutive sequence numbers around the ring; it is acceptable if the tail that
 * its last entry names is one of its entries.  The acceptable sequence with the
 * highest last number is active, and is replayed from that tail on.
 */
#define _GNU_SOURCE
#include <stdlib.h>
#include <unistd.h>

#include "guid.h"
#include "log.h"

/*
 * An entry that is not valid costs as much as one that is.  Those that a writer left lie
 * side by side, or on what is left of older ones: whoever meets more than so many times
 * the log, or a log of this length, meets what was made to take long.
 */
#define VC_RING_WORK	64U
#define VC_RING_SMALL	(64 * VHDX_MIB)

/* One thing to write: a page, or zeros; @order: so many others were said before. */
struct vc_overlay_op {
	u64 offset;
	u64 length;
	u64 order;
	u8 *data;
};

struct vc_overlay_list {
	u64 nr;
	u64 room;
	struct vc_overlay_op *op;
};

/* The active sequence of a log. */
struct vc_sequence {
	struct vc_ring ring;
	struct vhdx_guid guid;
	struct vhdx_log_entry_info head;
	bool found;
};

/* First the zeros, then the pages: see vc_overlay_settle(). */
struct vc_overlay {
	struct vc_log_report report;
	struct vc_overlay_list zeros;
	struct vc_overlay_list pages;
};

const struct vc_log_report *vc_overlay_report(const struct vc_overlay *overlay)
{
	return &overlay->report;
}

bool vc_overlay_range(const struct vc_overlay *overlay, u64 i, u64 *offset, u64 *length)
{
	const struct vc_overlay_list *list = &overlay->zeros;

	if (i >= list->nr) {
		i -= list->nr;
		list = &overlay->pages;
	}
	if (i >= list->nr)
		return false;
	*offset = list->op[i].offset;
	*length = list->op[i].length;
	return true;
}

void vc_overlay_free(struct vc_overlay *overlay)
{
	u64 i;

	if (!overlay)
		return;
	for (i = 0; i < overlay->pages.nr; i++)
		free(overlay->pages.op[i].data);
	free(overlay->pages.op);
	free(overlay->zeros.op);
	free(overlay);
}

/* In a list in order, whose ranges do not meet: the first that ends behind @offset. */
static u64 vc_overlay_find(const struct vc_overlay_list *list, u64 offset)
{
	u64 low = 0;
	u64 high = list->nr;
	u64 middle;

	while (low < high) {
		middle = low + (high - low) / 2;
		if (list->op[middle].offset + list->op[middle].length > offset)
			high = middle;
		else
			low = middle + 1;
	}
	return low;
}

static void vc_overlay_apply_list(const struct vc_overlay_list *list, u64 offset, u8 *bytes,
				  size_t len)
{
	const struct vc_overlay_op *op;
	u64 from;
	u64 to;

	if (!list->nr)
		return;
	for (op = &list->op[vc_overlay_find(list, offset)];
	     op < list->op + list->nr && op->offset < offset + len; op++) {
		from = op->offset > offset ? op->offset : offset;
		to = op->offset + op->length < offset + len ? op->offset + op->length :
							      offset + len;
		if (op->data)
			memcpy(bytes + (from - offset), op->data + (from - op->offset), to - from);
		else
			memset(bytes + (from - offset), 0, to - from);
	}
}

void vc_overlay_apply(const struct vc_overlay *overlay, u64 offset, void *buf, size_t len)
{
	vc_overlay_apply_list(&overlay->zeros, offset, buf, len);
	vc_overlay_apply_list(&overlay->pages, offset, buf, len);
}

static int vc_overlay_push(struct vc_overlay *overlay, u64 offset, u64 length, u8 *data,
			   struct vc_err *err)
{
	struct vc_overlay_list *list = data ? &overlay->pages : &overlay->zeros;
	u64 order = overlay->pages.nr + overlay->zeros.nr;
	struct vc_overlay_op *op = list->op;
	u64 room;

	if (list->nr == list->room) {
		room = list->room ? 2 * list->room : 64;
		op = realloc(op, room * sizeof(*op));
		if (!op) {
			free(data);
			return vc_error_nomem(err);
		}
		list->op = op;
		list->room = room;
	}
	op[list->nr++] = (struct vc_overlay_op){ offset, length, order, data };
	return 0;
}

static int vc_overlay_compare(const void *a, const void *b)
{
	const struct vc_overlay_op *x = a;
	const struct vc_overlay_op *y = b;

	if (x->offset != y->offset)
		return x->offset < y->offset ? -1 : 1;
	return x->order < y->order ? -1 : x->order > y->order;
}

static void vc_overlay_sort(struct vc_overlay_list *list)
{
	if (list->nr)
		qsort(list->op, list->nr, sizeof(*list->op), vc_overlay_compare);
}

/* Those with data alone; of a place that has several the last. */
static void vc_overlay_thin(struct vc_overlay_list *pages)
{
	struct vc_overlay_op *op = pages->op;
	u64 nr = 0;
	u64 i;

	for (i = 0; i < pages->nr; i++) {
		if (i + 1 < pages->nr && op[i + 1].offset == op[i].offset)
			free(op[i].data);
		else if (op[i].data)
			op[nr++] = op[i];
	}
	pages->nr = nr;
}

/* Drop the pages that zeros came after.  @zeros are as they were said, still. */
static int vc_overlay_drop(struct vc_overlay_list *pages, const struct vc_overlay_list *zeros,
			   struct vc_err *err)
{
	const struct vc_overlay_op *zero;
	struct vc_overlay_op *page;
	u64 *next;	/* page not done with, from this one on, or where to go on looking */
	u64 i, z;

	if (!pages->nr || !zeros->nr)
		return 0;
	next = malloc((pages->nr + 1) * sizeof(*next));
	if (!next)
		return vc_error_nomem(err);
	for (i = 0; i <= pages->nr; i++)
		next[i] = i;
	/* The newest first: of all zeros on a page that one counts, and it is done with. */
	for (z = zeros->nr; z--;) {
		zero = &zeros->op[z];
		for (i = vc_overlay_find(pages, zero->offset);; next[i] = i + 1) {
			for (; next[i] != i; i = next[i])
				next[i] = next[next[i]];
			page = &pages->op[i];
			if (i == pages->nr || page->offset >= zero->offset + zero->length)
				break;
			if (page->order < zero->order) {
				free(page->data);
				page->data = NULL;
			}
		}
	}
	free(next);
	vc_overlay_thin(pages);
	return 0;
}

static void vc_overlay_merge(struct vc_overlay_list *zeros)
{
	struct vc_overlay_op *last = zeros->op;
	struct vc_overlay_op *op;
	u64 end;

	if (!zeros->nr)
		return;
	for (op = last + 1; op < zeros->op + zeros->nr; op++) {
		end = op->offset + op->length;
		if (op->offset > last->offset + last->length)
			*++last = *op;
		else if (end > last->offset + last->length)
			last->length = end - last->offset;
	}
	zeros->nr = last + 1 - zeros->op;
}

/*
 * What comes of it, whatever the order that it was said in: zeros, and then pages, of each
 * place one; both sorted, so that a hostile log can neither make each read go through all
 * of it, nor have one place written again and again.
 */
static int vc_overlay_settle(struct vc_overlay *overlay, struct vc_err *err)
{
	int ret;

	vc_overlay_sort(&overlay->pages);
	vc_overlay_thin(&overlay->pages);
	ret = vc_overlay_drop(&overlay->pages, &overlay->zeros, err);
	vc_overlay_sort(&overlay->zeros);
	vc_overlay_merge(&overlay->zeros);
	return ret;
}

/* ---- the ring -------------------------------------------------------------- */

/* The next part of the file from @at on, up to @end, that is no hole. */
static bool vc_log_data(const struct vc_file *file, u64 *at, u64 end, u64 *length)
{
	off_t data = lseek(file->fd, *at, SEEK_DATA);
	off_t hole;

	if (data < 0 && errno == ENXIO)
		return false;
	hole = data < 0 ? -1 : lseek(file->fd, data, SEEK_HOLE);
	/* A device, or a file system, that cannot tell: */
	if (hole < 0) {
		data = *at;
		hole = end;
	}
	if ((u64)hole > end)
		hole = end;
	*at = data;
	*length = hole - data;
	return data < hole;
}

int vc_ring_read(struct vc_ring *ring, const struct vc_file *file,
		 const struct vhdx_header_info *h, struct vc_err *err)
{
	u64 end = h->log_offset + h->log_length;
	u64 at = h->log_offset;
	u64 length;
	int ret = 0;

	*ring = (struct vc_ring) {
		.path = file->path,
		.offset = h->log_offset,
		.length = h->log_length,
		.work = h->log_length < VC_RING_SMALL ? VC_RING_SMALL : h->log_length,
	};
	ring->work *= VC_RING_WORK;
	if (end > file->size)
		return vc_error(err, EINVAL, file->path,
				"ends at %llu, inside the log (offset %llu)", file->size, at);
	ring->buf = calloc(1, ring->length);
	if (!ring->buf)
		return vc_error_nomem(err);
	for (; !ret && at < end && vc_log_data(file, &at, end, &length); at += length)
		ret = vc_file_read(file, "log", at, ring->buf + (at - ring->offset), length, err);
	return ret;
}

void vc_ring_free(struct vc_ring *ring)
{
	free(ring->buf);
	free(ring->joined);
}

bool vc_ring_parse(const struct vc_ring *ring, u32 pos, struct vhdx_log_entry_info *info)
{
	return !vhdx_log_entry_parse((const void *)(ring->buf + pos), ring->length, info);
}

int vc_ring_check(struct vc_ring *ring, u32 pos, const struct vhdx_log_entry_info *info,
		  const u8 **entry, struct vc_err *err)
{
	u32 left = ring->length - pos;

	if (info->entry_length > ring->work)
		return vc_error(err, EINVAL, ring->path,
				"log: cannot be searched, its entries lie on each other (offset %llu)",
				ring->offset + pos);
	ring->work -= info->entry_length;
	*entry = ring->buf + pos;
	if (info->entry_length > left) {
		free(ring->joined);
		ring->joined = malloc(info->entry_length);
		if (!ring->joined)
			return vc_error_nomem(err);
		memcpy(ring->joined, *entry, left);
		memcpy(ring->joined + left, ring->buf, info->entry_length - left);
		*entry = ring->joined;
	}
	return !vhdx_log_entry_check(*entry, info);
}

/* The same, if it is of this log. */
static int vc_sequence_entry(struct vc_sequence *seq, u32 pos,
			     struct vhdx_log_entry_info *info, const u8 **entry,
			     struct vc_err *err)
{
	if (!vc_ring_parse(&seq->ring, pos, info) ||
	    !vhdx_guid_equal(&info->log_guid, &seq->guid))
		return 0;
	return vc_ring_check(&seq->ring, pos, info, entry, err);
}

/*
 * Follow the sequence that starts at @start.  Every entry on the way is noted in
 * @seen: a later start there would give the same end, or be as unacceptable.
 */
static int vc_sequence_follow(struct vc_sequence *seq, u32 start, u32 *seen,
			      struct vc_err *err)
{
	struct vhdx_log_entry_info info;
	struct vhdx_log_entry_info head = { };
	u32 mark = start / VHDX_LOG_SECTOR + 1;
	u32 length = seq->ring.length;
	u32 pos = start;
	u64 total = 0;
	const u8 *entry;
	int ret;

	while (total < length) {
		ret = vc_sequence_entry(seq, pos, &info, &entry, err);
		if (ret < 0)
			return ret;
		if (!ret || (total && info.sequence_number != head.sequence_number + 1) ||
		    total + info.entry_length > length)
			break;
		head = info;
		seen[pos / VHDX_LOG_SECTOR] = mark;
		total += info.entry_length;
		pos = (pos + (u64)info.entry_length) % length;
	}
	if (total && seen[head.tail / VHDX_LOG_SECTOR] == mark &&
	    (!seq->found || head.sequence_number > seq->head.sequence_number)) {
		seq->found = true;
		seq->head = head;
	}
	return 0;
}

static int vc_sequence_search(struct vc_sequence *seq, struct vc_err *err)
{
	u32 sectors = seq->ring.length / VHDX_LOG_SECTOR;
	u32 *seen = calloc(sectors, sizeof(*seen));
	char guid[VC_GUID_TEXT];
	int ret = 0;
	u32 i;

	if (!seen)
		return vc_error_nomem(err);
	for (i = 0; i < sectors && !ret; i++)
		if (!seen[i])
			ret = vc_sequence_follow(seq, i * VHDX_LOG_SECTOR, seen, err);
	free(seen);
	if (!ret && !seq->found)
		ret = vc_error(err, EINVAL, seq->ring.path,
			       "log: no valid sequence of entries of GUID %s (offset %llu)",
			       vc_guid_format(&seq->guid, guid), seq->ring.offset);
	return ret;
}

/* ---- from the ring to the overlay ---------------------------------------------- */

/*
 * So far may an entry write: to the end of the file that it was made for, or that is
 * there.  Was the file cut since, a later entry tells of less than this one.
 */
static u64 vc_replay_limit(const struct vc_image *image,
			   const struct vhdx_log_entry_info *info, u64 size)
{
	u64 most = (u64)VHDX_MAX_FILE_MIB << VHDX_MIB_SHIFT;

	if (image->file.is_block)
		return image->file.size;
	if (size < info->last_file_offset)
		size = info->last_file_offset;
	return size < most ? size : most;
}

/*
 * The log may change all metadata but the headers, and not itself.  Everything else
 * would be a file made to harm.
 */
static int vc_replay_target(const struct vc_image *image, u64 offset, u64 length, u64 limit,
			    u32 pos, struct vc_err *err)
{
	const struct vhdx_header_info *h = &image->header;
	const char *what = NULL;

	if (offset < VHDX_REGION_TABLE1_OFFSET)
		what = "on the headers";
	else if (offset < h->log_offset + h->log_length && h->log_offset < offset + length)
		what = "on the log itself";
	else if (offset > limit || length > limit - offset)
		what = image->file.is_block ? "behind the end of the device" :
					      "behind the end of the file";
	if (!what)
		return 0;
	return vc_error(err, EINVAL, image->file.path,
			"log entry: would write %llu bytes at %llu, %s (entry at offset %llu)",
			length, offset, what, h->log_offset + pos);
}

static int vc_replay_entry(const struct vc_image *image, struct vc_overlay *overlay,
			   const u8 *entry, const struct vhdx_log_entry_info *info, u32 pos,
			   struct vc_err *err)
{
	const struct vhdx_log_zero_descriptor *zero;
	const struct vhdx_log_data_descriptor *desc;
	const u8 *sector = entry + vhdx_log_entry_bytes(info->descriptor_count, 0);
	u64 limit = vc_replay_limit(image, info, overlay->report.new_size);
	u64 offset;
	u64 length;
	u8 *page;
	int ret;
	u32 i;

	zero = (const void *)(entry + sizeof(struct vhdx_log_entry_header));
	for (i = 0; i < info->descriptor_count; i++, zero++) {
		bool data = le32_to_cpu(zero->signature) == VHDX_LOG_DESC_SIGNATURE;

		/* Both kinds have the place at the same bytes. */
		offset = le64_to_cpu(zero->file_offset);
		length = data ? VHDX_PAGE_SIZE : le64_to_cpu(zero->zero_length);
		if (!length)
			continue;
		ret = vc_replay_target(image, offset, length, limit, pos, err);
		if (ret)
			return ret;
		page = NULL;
		if (data) {
			desc = (const void *)zero;
			page = malloc(VHDX_PAGE_SIZE);
			if (!page)
				return vc_error_nomem(err);
			memcpy(page, sector, VHDX_PAGE_SIZE);
			vhdx_log_data_unpack(page, desc);
			sector += VHDX_LOG_SECTOR;
			overlay->report.nr_pages++;
		} else {
			overlay->report.zero_bytes += length;
		}
		ret = vc_overlay_push(overlay, offset, length, page, err);
		if (ret)
			return ret;
		overlay->report.bytes += length;
		if (offset + length > overlay->report.new_size)
			overlay->report.new_size = offset + length;
	}
	overlay->report.nr_entries++;
	return 0;
}

static int vc_replay_sequence(const struct vc_image *image, struct vc_sequence *seq,
			      struct vc_overlay *overlay, struct vc_err *err)
{
	struct vc_log_report *report = &overlay->report;
	struct vhdx_log_entry_info info;
	u32 pos = seq->head.tail;
	const u8 *entry;
	int ret;

	do {
		/* Found and checked in the search; it cannot have gone. */
		ret = vc_sequence_entry(seq, pos, &info, &entry, err);
		if (!ret)
			ret = vc_error(err, EINVAL, image->file.path,
				       "log: the sequence breaks off (offset %llu)",
				       image->header.log_offset + pos);
		if (ret < 0)
			return ret;
		if (!report->nr_entries)
			report->first_sequence = info.sequence_number;
		ret = vc_replay_entry(image, overlay, entry, &info, pos, err);
		if (ret)
			return ret;
		pos = (pos + (u64)info.entry_length) % seq->ring.length;
	} while (info.sequence_number < seq->head.sequence_number);
	report->last_sequence = info.sequence_number;
	return 0;
}

static int vc_replay_sizes(const struct vc_image *image, const struct vc_sequence *seq,
			   struct vc_log_report *report, struct vc_err *err)
{
	u64 flushed = seq->head.flushed_file_offset;
	u64 last = seq->head.last_file_offset;

	report->old_size = image->file.size;
	report->new_size = image->file.size;
	if (image->file.size < flushed)
		return vc_error(err, EINVAL, image->file.path,
				"truncated: has %llu bytes, the log knows of %llu",
				image->file.size, flushed);
	if (last <= image->file.size)
		return 0;
	if (image->file.is_block)
		return vc_error(err, EINVAL, image->file.path,
				"the device has %llu bytes, the log needs %llu: make the device larger",
				image->file.size, last);
	if (last >> VHDX_MIB_SHIFT > VHDX_MAX_FILE_MIB)
		return vc_error(err, EINVAL, image->file.path,
				"log: needs a file of %llu bytes", last);
	report->new_size = last;
	return 0;
}

static int vc_log_load(const struct vc_image *image, struct vc_overlay *overlay,
		       struct vc_err *err)
{
	const struct vhdx_header_info *h = &image->header;
	struct vc_sequence seq = { .guid = h->log_guid };
	int ret;

	ret = vc_ring_read(&seq.ring, &image->file, h, err);
	if (!ret)
		ret = vc_sequence_search(&seq, err);
	if (!ret)
		ret = vc_replay_sizes(image, &seq, &overlay->report, err);
	if (!ret)
		ret = vc_replay_sequence(image, &seq, overlay, err);
	vc_ring_free(&seq.ring);
	return ret ? ret : vc_overlay_settle(overlay, err);
}

int vc_log_replay_memory(struct vc_image *image, struct vc_err *err)
{
	struct vc_overlay *overlay = calloc(1, sizeof(*overlay));
	int ret;

	if (!overlay)
		return vc_error_nomem(err);
	ret = vc_log_load(image, overlay, err);
	if (ret) {
		vc_overlay_free(overlay);
		return ret;
	}
	image->overlay = overlay;
	image->size = overlay->report.new_size;
	return 0;
}

/* ---- recovery ------------------------------------------------------------------ */

/*
 * Holes are zeros already, and stay holes: an image may name more of them than there is
 * space.
 */
static int vc_replay_zero(const struct vc_file *file, u64 offset, u64 end,
			  struct vc_err *err)
{
	u64 length;
	int ret = 0;

	for (; !ret && offset < end && vc_log_data(file, &offset, end, &length);
	     offset += length)
		ret = vc_file_zero(file, offset, length, err);
	return ret;
}

static int vc_overlay_write(struct vc_image *image, const struct vc_overlay *overlay,
			    struct vc_err *err)
{
	const struct vc_overlay_op *op;
	u64 end;
	int ret = 0;
	u64 i;

	for (i = 0; !ret && i < overlay->zeros.nr; i++) {
		op = &overlay->zeros.op[i];
		end = op->offset + op->length;
		/* What is behind the old end is zeros since the file is longer. */
		if (end > overlay->report.old_size)
			end = overlay->report.old_size;
		ret = vc_replay_zero(&image->file, op->offset, end, err);
	}
	for (i = 0; !ret && i < overlay->pages.nr; i++) {
		op = &overlay->pages.op[i];
		ret = vc_file_write(&image->file, "metadata", op->offset, op->data, op->length,
				    err);
	}
	if (!ret)
		ret = vc_file_sync(&image->file, err);
	return ret;
}

/*
 * The order: until the last step the header names the log, which is not touched, so
 * whoever is stopped at any point can begin anew.
 *
 *  1. The length.  It changes nothing that is there, and is what the file system refuses,
 *     if it does: then nothing was written.
 *  2. A header with a new FileWriteGuid, flushed: from here on the file counts as modified.
 *  3. All changes in place, flushed.  Each byte that the log names gets the one value that
 *     the log has for it in the end, whatever was there before.
 *  4. Both headers without the log, each flushed.
 */
int vc_log_recover(struct vc_image *image, struct vc_log_report *report,
		   struct vc_err *err)
{
	struct vc_overlay *overlay;
	int ret;

	memset(report, 0, sizeof(*report));
	if (!image->header.log_dirty && image->header.other_valid)
		return 0;
	if (!image->header.log_dirty) {
		vc_guid_random(&image->header.file_write_guid);
		return vc_header_update_both(image, err);
	}

	overlay = calloc(1, sizeof(*overlay));
	if (!overlay)
		return vc_error_nomem(err);
	ret = vc_log_load(image, overlay, err);
	if (ret)
		goto out;
	*report = overlay->report;

	if (report->new_size > image->file.size)
		ret = vc_file_resize(&image->file, report->new_size, err);
	vc_guid_random(&image->header.file_write_guid);
	if (!ret)
		ret = vc_header_update(image, err);
	if (!ret)
		ret = vc_overlay_write(image, overlay, err);
	if (!ret) {
		image->header.log_guid = vhdx_guid_zero;
		image->header.log_dirty = false;
		ret = vc_header_update_both(image, err);
	}
out:
	vc_overlay_free(overlay);
	return ret;
}
