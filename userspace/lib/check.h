/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Everything that can be checked about one image without reading its blocks. */
#ifndef VC_CHECK_H
#define VC_CHECK_H

#include "image.h"
#include "log.h"

enum vc_severity {
	VC_NOTE,		/* not wrong */
	VC_LEAK,		/* space that nothing refers to */
	VC_CORRUPT,
};

typedef void (*vc_finding_fn)(void *data, const struct vc_image *image,
			      enum vc_severity severity, const char *text);

/**
 * struct vc_check - one check
 * @fn: called for each finding
 * @data: for @fn
 * @usage: what the BAT says
 * @present_sectors: set bits of the sector bitmaps of partial blocks
 * @leaked: bytes
 */
struct vc_check {
	vc_finding_fn fn;
	void *data;
	struct vc_usage usage;
	u64 present_sectors;
	u64 leaked;
};

/**
 * vc_check_image() - check one image that could be opened
 * @image: a VHDX, opened with VC_IMAGE_REPLAY
 * @check: how, and the result
 * @err: filled in on error
 *
 * What was checked when the image was opened is not checked again.
 * Return: 0 with all findings reported; an error if the check could not be done.
 */
int vc_check_image(const struct vc_image *image, struct vc_check *check,
		   struct vc_err *err);

#endif /* VC_CHECK_H */
