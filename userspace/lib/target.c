// SPDX-License-Identifier: GPL-2.0-or-later
/* Images that are copied into: see copy.h. */
#include "copy.h"

/* So much data may have to be copied again after a crash. */
#define VC_COMMIT_BYTES	(256 * VHDX_MIB)

/* ---- VHDX ----------------------------------------------------------------------- */

static struct vc_vhdx_target *vc_to_vhdx(struct vc_target *target)
{
	return (struct vc_vhdx_target *)target;
}

/* New space; with @zeroed all of it reads as zeros. */
static int vc_vhdx_alloc(struct vc_vhdx_target *to, bool zeroed, u64 *mib, bool *clean,
			 struct vc_err *err)
{
	const struct vhdx_geometry *geo = &to->image->geo;
	int ret;

	ret = vc_edit_alloc(to->edit, vhdx_block_mib(geo), mib, err);
	if (ret)
		return ret;
	*clean = vc_edit_is_new(to->edit, *mib);
	if (zeroed && !*clean) {
		ret = vc_file_zero(&to->image->file, *mib << VHDX_MIB_SHIFT, geo->block_size,
				   err);
		*clean = true;
	}
	return ret;
}

static int vc_vhdx_put_new(struct vc_vhdx_target *to, struct vc_piece *piece, u32 block,
			   bool shine_through, struct vc_err *err)
{
	bool zeroed = !shine_through || (to->keep && !piece->whole);
	unsigned int state = VHDX_BLOCK_FULLY_PRESENT;
	u64 mib;
	int ret;

	ret = vc_vhdx_alloc(to, zeroed, &mib, &piece->clean, err);
	if (ret)
		return ret;
	piece->place = mib << VHDX_MIB_SHIFT;
	/*
	 * A whole block is named when it is there.  Another one hides nothing where there
	 * is nothing below, and elsewhere only what its bits say.
	 */
	if (shine_through && piece->whole)
		return 0;
	if (shine_through)
		state = VHDX_BLOCK_PARTIALLY_PRESENT;
	return vc_edit_set_block(to->edit, block, state, mib, err);
}

static int vc_vhdx_put(struct vc_target *target, struct vc_piece *piece, struct vc_err *err)
{
	struct vc_vhdx_target *to = vc_to_vhdx(target);
	const struct vhdx_geometry *geo = &to->image->geo;
	u32 block = piece->offset >> geo->block_shift;
	u64 in = piece->offset & (geo->block_size - 1);
	u64 entry = vc_edit_block(to->edit, block);
	unsigned int state = vhdx_bat_state(entry);
	bool below = geo->has_parent && state == VHDX_BLOCK_NOT_PRESENT;
	int ret;

	if (state == VHDX_BLOCK_FULLY_PRESENT || state == VHDX_BLOCK_PARTIALLY_PRESENT) {
		if (piece->zero && piece->whole)
			return target->zero(target, piece->offset, piece->length, err);
		piece->place = (vhdx_bat_mib(entry) << VHDX_MIB_SHIFT) + in;
		piece->clean = to->new;
		return 0;
	}
	/* It reads as zeros already, or it will once the parent is gone. */
	if (piece->zero && (!below || to->keep))
		return 0;
	if (piece->zero && piece->whole)
		return vc_edit_set_block(to->edit, block, VHDX_BLOCK_ZERO, 0, err);
	ret = vc_vhdx_put_new(to, piece, block, below, err);
	piece->place += in;
	return ret;
}

static int vc_vhdx_done(struct vc_target *target, const struct vc_piece *piece,
			struct vc_err *err)
{
	struct vc_vhdx_target *to = vc_to_vhdx(target);
	const struct vhdx_geometry *geo = &to->image->geo;
	u32 block = piece->offset >> geo->block_shift;
	const struct vc_extent *e;
	unsigned int state = vhdx_bat_state(vc_edit_block(to->edit, block));
	int ret = 0;

	/* With all its sectors there, nobody need ask for bits. */
	if (piece->whole && state != VHDX_BLOCK_FULLY_PRESENT) {
		ret = vc_edit_set_block(to->edit, block, VHDX_BLOCK_FULLY_PRESENT,
					piece->place >> VHDX_MIB_SHIFT, err);
	} else if (state == VHDX_BLOCK_PARTIALLY_PRESENT) {
		for (e = piece->extent; e < piece->extent + piece->nr && !ret; e++)
			if (e->kind != VC_EXTENT_ABSENT)
				ret = vc_edit_set_bits(to->edit, e->offset >> geo->sector_shift,
						       e->length >> geo->sector_shift, true,
						       err);
	}
	to->uncommitted += piece->length;
	if (!ret && !to->new && to->uncommitted >= VC_COMMIT_BYTES) {
		to->uncommitted = 0;
		ret = vc_edit_commit(to->edit, err);
	}
	return ret;
}

static int vc_vhdx_zero_block(struct vc_vhdx_target *to, u32 block, struct vc_err *err)
{
	const struct vc_image *image = to->image;
	u64 entry = vc_edit_block(to->edit, block);
	u64 place = vhdx_bat_mib(entry) << VHDX_MIB_SHIFT;
	int ret;

	switch (vhdx_bat_state(entry)) {
	case VHDX_BLOCK_FULLY_PRESENT:
	case VHDX_BLOCK_PARTIALLY_PRESENT:
		break;
	case VHDX_BLOCK_NOT_PRESENT:
		if (!image->geo.has_parent || to->keep)
			return 0;
		break;
	default:
		return 0;
	}
	/* A fixed image keeps its space. */
	if (!image->meta.leave_allocated || !place)
		return vc_edit_set_block(to->edit, block, VHDX_BLOCK_ZERO, 0, err);
	if (to->new)
		return 0;
	ret = vc_file_zero(&image->file, place, image->geo.block_size, err);
	if (!ret)
		ret = vc_edit_set_block(to->edit, block, VHDX_BLOCK_FULLY_PRESENT,
					place >> VHDX_MIB_SHIFT, err);
	return ret;
}

static int vc_vhdx_zero(struct vc_target *target, u64 offset, u64 length, struct vc_err *err)
{
	struct vc_vhdx_target *to = vc_to_vhdx(target);
	u32 block = offset >> to->image->geo.block_shift;
	u32 end = (offset + length - 1) >> to->image->geo.block_shift;
	int ret = 0;

	for (; block <= end && !ret; block++)
		ret = vc_vhdx_zero_block(to, block, err);
	return ret;
}

void vc_vhdx_target_init(struct vc_vhdx_target *to, const struct vc_image *image,
			 struct vc_edit *edit)
{
	*to = (struct vc_vhdx_target) {
		.target = {
			.file = &image->file,
			.block_size = image->geo.block_size,
			.put = vc_vhdx_put,
			.done = vc_vhdx_done,
			.zero = vc_vhdx_zero,
		},
		.edit = edit,
		.image = image,
	};
}

/* ---- raw ------------------------------------------------------------------------ */

static int vc_raw_put(struct vc_target *target, struct vc_piece *piece,
		      struct vc_err *err __always_unused)
{
	struct vc_raw_target *to = (struct vc_raw_target *)target;

	if (to->new && piece->zero)
		return 0;
	piece->place = piece->offset;
	piece->clean = to->new;
	return 0;
}

static int vc_raw_zero(struct vc_target *target, u64 offset, u64 length, struct vc_err *err)
{
	struct vc_raw_target *to = (struct vc_raw_target *)target;

	return to->new ? 0 : vc_file_zero(target->file, offset, length, err);
}

void vc_raw_target_init(struct vc_raw_target *to, const struct vc_file *file, bool new)
{
	*to = (struct vc_raw_target) {
		.target = {
			.file = file,
			.block_size = VC_PIECE,
			.put = vc_raw_put,
			.zero = vc_raw_zero,
		},
		.new = new,
	};
}
