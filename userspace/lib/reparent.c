// SPDX-License-Identifier: GPL-2.0-or-later
/* Another parent: see reparent.h. */
#include <stdlib.h>

#include "children.h"
#include "edit.h"
#include "locate.h"
#include "merge.h"
#include "reparent.h"

/* Take the child off the list of the parent that its locator names, if that is there. */
static void vc_reparent_unlist(const struct vc_image *child)
{
	static const struct vc_chain_options nothing;
	struct vc_image *old;
	struct vc_err ignored;

	vc_chain_find_parent(child, &nothing, NULL, &old, &ignored);
	if (!old)
		return;
	vc_children_remove(&old->file, child->file.real, &ignored);
	vc_image_close(old);
}

int vc_reparent(struct vc_image *child, const struct vc_image *parent, struct vc_err *err)
{
	struct vc_locator *locator;
	struct vc_err ignored;
	struct vc_edit *edit;
	int ret;

	ret = vc_locate(child->file.real, parent, &locator, err);
	if (!ret)
		ret = vc_edit_begin(&edit, child, err);
	if (!ret) {
		vc_children_add(&parent->file, child->file.real, &ignored);
		ret = vc_edit_set_locator(edit, locator, err);
		if (ret)
			vc_edit_abort(edit);
		else
			ret = vc_edit_end(edit, err);
	}
	vc_locator_free(locator);
	if (ret)
		return ret;
	vc_reparent_unlist(child);
	/* The same, when only its path has changed. */
	vc_children_add(&parent->file, child->file.real, &ignored);
	return vc_image_reload(child, 0, err);
}

/* ---- equal content -------------------------------------------------------------- */

#define VC_COMPARE_BYTES	VHDX_MIB

/* What the disk reads as, zeros behind its end. */
static int vc_compare_read(struct vc_disk *disk, u64 at, void *buf, size_t len,
			   bool *zeros, struct vc_err *err)
{
	u64 size = vc_disk_size(disk);
	size_t there = at >= size ? 0 : size - at < len ? size - at : len;
	struct vc_extent extent;
	int ret;

	*zeros = !there;
	if (there) {
		ret = vc_disk_extent(disk, at, there, &extent, err);
		if (ret)
			return ret;
		*zeros = extent.kind != VC_EXTENT_DATA && extent.length == there;
	}
	memset((u8 *)buf + there, 0, len - there);
	return there ? vc_disk_read(disk, at, buf, there, err) : 0;
}

int vc_disks_equal(struct vc_disk *a, struct vc_disk *b, struct vc_progress *progress,
		   bool *equal, u64 *at, struct vc_err *err)
{
	u64 size = vc_disk_size(a) > vc_disk_size(b) ? vc_disk_size(a) : vc_disk_size(b);
	u8 *buf = malloc(2 * VC_COMPARE_BYTES);
	bool zeros_a, zeros_b;
	size_t len;
	size_t i;
	int ret = 0;

	if (!buf)
		return vc_error_nomem(err);
	*equal = true;
	if (progress)
		progress->total = size;
	for (*at = 0; *at < size && !ret; *at += len) {
		len = size - *at < VC_COMPARE_BYTES ? size - *at : VC_COMPARE_BYTES;
		ret = vc_compare_read(a, *at, buf, len, &zeros_a, err);
		if (!ret)
			ret = vc_compare_read(b, *at, buf + VC_COMPARE_BYTES, len, &zeros_b, err);
		if (!ret && !(zeros_a && zeros_b) && memcmp(buf, buf + VC_COMPARE_BYTES, len)) {
			for (i = 0; buf[i] == buf[VC_COMPARE_BYTES + i];)
				i++;
			*at += i;
			*equal = false;
			break;
		}
		if (!ret && vc_progress_step(progress, len))
			ret = vc_error(err, EINTR, NULL, "interrupted: nothing was changed");
	}
	free(buf);
	return ret;
}
