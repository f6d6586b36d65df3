/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Everything that can be checked about one image without reading its blocks. */
#ifndef VC_CHECK_H
#define VC_CHECK_H

#include "image.h"
#include "log.h"

enum vc_severity {
	VC_HINT,		/* legal, and of no harm */
	VC_NOTE,		/* not wrong, but worth a word */
	VC_LEAK,		/* space that nothing refers to */
	VC_CORRUPT,
};

enum vc_finding_kind {
	VC_FOUND_HEADER_COPY,	/* @number: which, from 0 */
	VC_FOUND_REGION_COPY,	/* @number: which, from 0 */
	VC_FOUND_REGIONS,	/* both copies are valid, and differ */
	VC_FOUND_LOG,
	VC_FOUND_LOCATOR,
	VC_FOUND_BAT,		/* @number: block or chunk */
	VC_FOUND_PLACE,		/* a block that is not there has a place; @number: block */
	VC_FOUND_LENGTH,	/* the file is too short; @length: what it should be */
	VC_FOUND_BITMAP_UNUSED,	/* @number: chunk */
	VC_FOUND_BITS,		/* what bits and states tell each other; @number: block */
	VC_FOUND_STALE_BITS,	/* @number: chunk */
	VC_FOUND_LEAK,		/* @offset, @length */
	VC_FOUND_FOOTER,	/* of a VHD, or its copy */
};

/* The kind's name in JSON. */
const char *vc_finding_name(enum vc_finding_kind kind);

/**
 * struct vc_finding - one thing that was found
 * @offset: where in the file, bytes
 * @length: how much, 0 if that says nothing
 * @number: see the kinds
 * @repairable: it has one right answer, see repair.h
 * @text: for people
 */
struct vc_finding {
	enum vc_finding_kind kind;
	enum vc_severity severity;
	u64 offset;
	u64 length;
	u32 number;
	bool repairable;
	char text[VC_ERR_MSG_MAX];
};

typedef void (*vc_finding_fn)(void *data, const struct vc_image *image,
			      const struct vc_finding *finding);

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

/* The same for a VHD: footers, parent locators, BAT.  Of @check, @fn and @data count. */
int vc_check_vhd(const struct vc_image *image, struct vc_check *check, struct vc_err *err);

#endif /* VC_CHECK_H */
