// SPDX-License-Identifier: GPL-2.0-or-later
/* Mending: see repair.h. */
#include <stdlib.h>

#include "change.h"
#include "guid.h"
#include "repair.h"
#include "undo.h"

struct vc_repairing {
	struct vc_repair *repair;
	struct vc_image *image;
	struct vhdx_guid file_guid;	/* of the image, when it is repaired */
	unsigned int nr;
	struct vc_finding *found;	/* what can be repaired */
	struct vc_change *change;
	bool changed;
	bool nomem;
};

/* Can it be done whatever else is wrong? */
static bool vc_is_copy(const struct vc_finding *finding)
{
	return finding->kind == VC_FOUND_HEADER_COPY || finding->kind == VC_FOUND_REGION_COPY;
}

/* ---- what there is to do ------------------------------------------------------------- */

static void vc_repair_found(void *data, const struct vc_image *image,
			    const struct vc_finding *finding)
{
	struct vc_repairing *r = data;
	struct vc_finding *longer;

	r->repair->fn(r->repair->data, image, finding);
	if (!finding->repairable) {
		r->repair->nr_left += finding->severity == VC_CORRUPT;
		return;
	}
	longer = realloc(r->found, (r->nr + 1) * sizeof(*longer));
	if (!longer) {
		r->nomem = true;
		return;
	}
	r->found = longer;
	r->found[r->nr++] = *finding;
}

/* With errors that cannot be repaired, what looks free may be what they have lost. */
static void vc_repair_restrict(struct vc_repairing *r)
{
	unsigned int nr = 0;
	unsigned int i;

	for (i = 0; i < r->nr; i++) {
		if (r->repair->nr_left && !vc_is_copy(&r->found[i]))
			r->repair->refused++;
		else
			r->found[nr++] = r->found[i];
	}
	r->nr = nr;
}

/* ---- the undo file -------------------------------------------------------------------- */

static u64 vc_entry_offset(const struct vc_image *image, u32 index)
{
	return image->regions.bat.offset + 8ULL * index;
}

/* The entry to be cleared. */
static u64 vc_repair_entry(const struct vc_image *image, const struct vc_finding *finding)
{
	if (finding->kind == VC_FOUND_BITMAP_UNUSED)
		return vc_entry_offset(image, vhdx_bat_bitmap_index(&image->geo,
								    finding->number));
	return finding->offset;
}

static int vc_repair_keep(struct vc_repairing *r, struct vc_undo *undo,
			  const struct vc_finding *finding, struct vc_err *err)
{
	switch (finding->kind) {
	case VC_FOUND_PLACE:
		return vc_undo_keep(undo, vc_repair_entry(r->image, finding), 8, err);
	case VC_FOUND_BITMAP_UNUSED:
		return vc_undo_keep(undo, vc_repair_entry(r->image, finding), 8, err) ?:
		       vc_undo_keep(undo, finding->offset, finding->length, err);
	case VC_FOUND_LEAK:
		return vc_undo_keep(undo, finding->offset, finding->length, err);
	default:
		return 0;
	}
}

static int vc_repair_write_undo(struct vc_repairing *r, struct vc_err *err)
{
	const struct vhdx_header_info *h = &r->image->header;
	struct vc_undo *undo;
	unsigned int i;
	int ret;

	ret = vc_undo_create(&undo, r->repair->undo_path, r->image, &r->file_guid, err);
	if (ret)
		return ret;
	/* Both headers and region tables, and the log: changes go through it. */
	ret = vc_undo_keep(undo, VHDX_HEADER1_OFFSET,
			   VHDX_REGION_TABLE2_OFFSET + VHDX_REGION_TABLE_SIZE -
			   VHDX_HEADER1_OFFSET, err);
	if (!ret)
		ret = vc_undo_keep(undo, h->log_offset, h->log_length, err);
	for (i = 0; i < r->nr && !ret; i++)
		ret = vc_repair_keep(r, undo, &r->found[i], err);
	if (ret)
		vc_undo_abort(undo);
	else
		ret = vc_undo_finish(undo, err);
	return ret;
}

/* ---- metadata -------------------------------------------------------------------------- */

static int vc_repair_commit(struct vc_repairing *r, struct vc_err *err)
{
	struct vc_change *change = r->change;

	r->change = NULL;
	if (!change)
		return 0;
	r->changed = true;
	return vc_change_commit(change, err);
}

/* A change with room for what one finding needs. */
static int vc_repair_change(struct vc_repairing *r, struct vc_err *err)
{
	int ret = 0;

	if (r->change && vc_change_room(r->change) < VHDX_REGION_TABLE_SIZE / VHDX_PAGE_SIZE)
		ret = vc_repair_commit(r, err);
	if (!ret && !r->change) {
		ret = vc_change_begin(&r->change, r->image, err);
		if (!ret)
			vc_change_file_guid(r->change, &r->file_guid);
	}
	return ret;
}

static int vc_repair_region_copy(struct vc_repairing *r, const struct vc_finding *finding,
				 struct vc_err *err)
{
	/* The table that is used, image->table, is the other one. */
	return vc_change_write(r->change, "region table", finding->number ?
			       VHDX_REGION_TABLE2_OFFSET : VHDX_REGION_TABLE1_OFFSET,
			       r->image->table, VHDX_REGION_TABLE_SIZE, err);
}

static int vc_repair_bat(struct vc_repairing *r, const struct vc_finding *finding,
			 struct vc_err *err)
{
	u64 offset = vc_repair_entry(r->image, finding);
	__le64 entry;
	int ret;

	ret = vc_file_read(&r->image->file, "BAT", offset, &entry, sizeof(entry), err);
	if (ret)
		return ret;
	/* The state stays, the place goes; a bitmap block goes with all. */
	if (finding->kind == VC_FOUND_PLACE)
		entry &= cpu_to_le64(VHDX_BAT_STATE_MASK);
	else
		entry = 0;
	return vc_change_write(r->change, "BAT", offset, &entry, sizeof(entry), err);
}

static int vc_repair_metadata(struct vc_repairing *r, struct vc_err *err)
{
	const struct vc_finding *finding;
	unsigned int i;
	int ret = 0;

	for (i = 0; i < r->nr && !ret; i++) {
		finding = &r->found[i];
		if (finding->kind != VC_FOUND_REGION_COPY && finding->kind != VC_FOUND_PLACE &&
		    finding->kind != VC_FOUND_BITMAP_UNUSED)
			continue;
		ret = vc_repair_change(r, err);
		if (!ret && finding->kind == VC_FOUND_REGION_COPY)
			ret = vc_repair_region_copy(r, finding, err);
		else if (!ret)
			ret = vc_repair_bat(r, finding, err);
	}
	if (!ret)
		ret = vc_repair_commit(r, err);
	vc_change_drop(r->change);
	r->change = NULL;
	return ret;
}

/* ---- all else ----------------------------------------------------------------------------- */

static int vc_repair_length(struct vc_repairing *r, struct vc_err *err)
{
	u64 size = r->image->file.size;
	unsigned int i;
	int ret;

	for (i = 0; i < r->nr; i++)
		if (r->found[i].kind == VC_FOUND_LENGTH && r->found[i].length > size)
			size = r->found[i].length;
	if (size == r->image->file.size)
		return 0;
	ret = vc_file_resize(&r->image->file, size, err);
	if (!ret)
		ret = vc_file_sync(&r->image->file, err);
	r->image->size = r->image->file.size;
	return ret;
}

static int vc_repair_free(struct vc_repairing *r, struct vc_err *err)
{
	const struct vc_finding *finding;
	bool any = false;
	unsigned int i;
	int ret = 0;
	u64 cut;

	for (i = 0; i < r->nr && !ret; i++) {
		finding = &r->found[i];
		if (finding->kind != VC_FOUND_LEAK && finding->kind != VC_FOUND_BITMAP_UNUSED)
			continue;
		any = true;
		if (!vc_file_punch(&r->image->file, finding->offset, finding->length))
			ret = vc_file_zero(&r->image->file, finding->offset, finding->length,
					   err);
	}
	if (any && !ret)
		ret = vc_file_sync(&r->image->file, err);
	if (any && !ret)
		ret = vc_image_reload(r->image, 0, err);
	if (any && !ret)
		ret = vc_image_trim(r->image, &cut, err);
	return ret;
}

static int vc_repair_headers(struct vc_repairing *r, struct vc_err *err)
{
	/* Every change has written both. */
	if (r->changed)
		return 0;
	r->image->header.file_write_guid = r->file_guid;
	return vc_header_update_both(r->image, err);
}

static int vc_repair_all(struct vc_repairing *r, struct vc_err *err)
{
	int ret;

	vc_guid_random(&r->file_guid);
	ret = vc_repair_write_undo(r, err);
	if (!ret)
		ret = vc_repair_length(r, err);
	if (!ret)
		ret = vc_repair_metadata(r, err);
	if (!ret)
		ret = vc_repair_headers(r, err);
	/* What was freed by then is punched only when nothing refers to it any more. */
	if (!ret)
		ret = vc_repair_free(r, err);
	if (!ret)
		r->repair->nr_repaired = r->nr;
	return ret;
}

int vc_repair_image(const char *path, struct vc_repair *repair, struct vc_err *err)
{
	struct vc_repairing r = { .repair = repair };
	struct vc_check check = { .fn = vc_repair_found, .data = &r };
	int ret;

	ret = vc_change_open(&r.image, path, err);
	if (ret)
		return ret;
	ret = vc_check_image(r.image, &check, err);
	if (!ret && r.nomem)
		ret = vc_error_nomem(err);
	if (!ret) {
		vc_repair_restrict(&r);
		if (r.nr)
			ret = vc_repair_all(&r, err);
	}
	vc_change_drop(r.change);
	free(r.found);
	vc_image_close(r.image);
	return ret;
}
