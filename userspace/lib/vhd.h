/* SPDX-License-Identifier: GPL-2.0-or-later */
/* VHD, version 1, as far as it is read: fixed, dynamic and differencing. */
#ifndef VC_VHD_H
#define VC_VHD_H

#include "image.h"
#include "vhd-format.h"

/**
 * struct vc_vhd - what an image of this format has
 * @footer: from the end of the file, or its copy
 * @footer_damaged: one of the two is damaged, or they differ
 * @header: of a dynamic or differencing image
 */
struct vc_vhd {
	struct vhd_footer_info footer;
	bool footer_damaged;
	struct vhd_header_info header;
};

/**
 * vc_vhd_load() - read the metadata of an image, if it is a VHD
 * @image: its file is open; on success with a VHD, @vhd, @meta, @locator and @creator
 *	   are filled in.  Whoever frees @locator and @creator frees @vhd, too
 * @err: filled in on error
 *
 * The locator has the keys of VHDX: relative_path, absolute_win32_path, and the ID of
 * the parent as parent_linkage.
 * Return: 1 if it is a VHD, 0 if it is not; an error if it is one that cannot be read.
 */
int vc_vhd_load(struct vc_image *image, struct vc_err *err);

static inline bool vc_vhd_is_fixed(const struct vc_image *image)
{
	return image->vhd->footer.type == VHD_FIXED;
}

/**
 * vc_vhd_read_footer() - read the footer or its copy, unchecked
 * @image: not necessarily a VHD
 * @copy: the one at offset 0, that a fixed image has not
 * @f: result
 * @offset: result: where it lies
 * @err: filled in on error
 */
int vc_vhd_read_footer(const struct vc_image *image, bool copy, struct vhd_footer *f,
		       u64 *offset, struct vc_err *err);

/*
 * Entry @first of the BAT and those behind it, up to VC_VHD_BAT_STEP of them: only a BAT
 * that has passed so far is read further.
 */
#define VC_VHD_BAT_STEP	1024U
int vc_vhd_read_bat(const struct vc_image *image, u32 first, __be32 *bat, struct vc_err *err);

/**
 * vc_vhd_bat() - read and check the BAT
 * @image: dynamic or differencing
 * @places: result, to be freed: of each block, the sector of the file, or VHD_NO_BLOCK
 * @nr_present: result: blocks that have one; may be NULL
 * @err: filled in on error
 */
int vc_vhd_bat(const struct vc_image *image, u32 **places, u32 *nr_present,
	       struct vc_err *err);

#endif /* VC_VHD_H */
