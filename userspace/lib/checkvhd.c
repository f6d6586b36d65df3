// SPDX-License-Identifier: GPL-2.0-or-later
/* Checks of a VHD: see check.h. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "check.h"
#include "vhd.h"

#define VC_BAT_FAULTS	50	/* told one by one; the others are counted */

struct vc_vhd_checker {
	const struct vc_image *image;
	struct vc_check *check;
	struct vhd_header header;
};

static void vc_vhd_found(struct vc_vhd_checker *checker, enum vc_finding_kind kind,
			 u64 offset, const char *fmt, ...) __printf(4, 5);

static void vc_vhd_found(struct vc_vhd_checker *checker, enum vc_finding_kind kind,
			 u64 offset, const char *fmt, ...)
{
	struct vc_finding finding = {
		.kind = kind,
		.severity = VC_CORRUPT,
		.offset = offset,
	};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(finding.text, sizeof(finding.text), fmt, ap);
	va_end(ap);
	checker->check->fn(checker->check->data, checker->image, &finding);
}

/* One of them is right, or the image could not have been opened. */
static int vc_vhd_check_footers(struct vc_vhd_checker *checker, struct vc_err *err)
{
	struct vhd_footer_info info;
	struct vhd_footer f[2];
	unsigned int wrong = 0;
	unsigned int i;
	u64 offset;
	int ret;

	if (vc_vhd_is_fixed(checker->image))
		return 0;
	for (i = 0; i < 2; i++) {
		struct vhdx_fault fault = { };

		ret = vc_vhd_read_footer(checker->image, i, &f[i], &offset, err);
		if (ret)
			return ret;
		if (!vhd_footer_parse(&f[i], offset, &info, &fault))
			continue;
		wrong++;
		vc_vhd_found(checker, VC_FOUND_FOOTER, fault.offset,
			     "%s%s (offset %llu): %s is used", i ? "copy of the " : "",
			     fault.what, fault.offset, i ? "the footer" : "its copy");
	}
	/* The byte that some leave out counts for neither. */
	if (!wrong && memcmp(&f[0], &f[1], sizeof(f[0]) - 1))
		vc_vhd_found(checker, VC_FOUND_FOOTER, offset,
			     "the footer and its copy differ (offset %llu): the footer is used",
			     offset);
	return 0;
}

/* The text of those that are read was read when the image was opened. */
static void vc_vhd_check_locators(struct vc_vhd_checker *checker)
{
	const struct vc_image *image = checker->image;
	const struct vhd_locator_entry *e = checker->header.locator;
	u64 at = image->vhd->header.header_offset + offsetof(struct vhd_header, locator);
	unsigned int i;

	for (i = 0; i < VHD_NR_LOCATORS; i++) {
		u64 offset = be64_to_cpu(e[i].data_offset);
		u32 length = be32_to_cpu(e[i].data_length);

		if (!be32_to_cpu(*(const __be32 *)e[i].code) || !length)
			continue;
		if (offset > image->size || length > image->size - offset)
			vc_vhd_found(checker, VC_FOUND_LOCATOR, at + i * sizeof(*e),
				     "parent locator: '%.4s' lies behind the end of the file (offset %llu)",
				     e[i].code, at + i * sizeof(*e));
	}
	/* The linkage is always there. */
	if (image->locator->nr_pairs == 1)
		vc_vhd_found(checker, VC_FOUND_LOCATOR, at,
			     "parent locator: there is no path that can be read (offset %llu)",
			     at);
}

/* Does a block lie on what a locator leads to? */
static bool vc_vhd_on_locator(const struct vc_vhd_checker *checker, u32 place)
{
	const struct vhd_header_info *h = &checker->image->vhd->header;
	u64 start = vhd_bitmap_offset(place);
	u64 end = start + ((u64)vhd_block_sectors(h) << VHD_SECTOR_SHIFT);
	unsigned int i;

	for (i = 0; i < VHD_NR_LOCATORS && checker->image->meta.has_parent; i++) {
		const struct vhd_locator_entry *e = &checker->header.locator[i];
		u64 offset = be64_to_cpu(e->data_offset);

		if (be32_to_cpu(e->data_length) && offset < end &&
		    offset + be32_to_cpu(e->data_length) > start)
			return true;
	}
	return false;
}

static int vc_vhd_check_bat(struct vc_vhd_checker *checker, struct vc_err *err)
{
	const struct vhd_header_info *h = &checker->image->vhd->header;
	struct vhd_bat_walk walk = {
		.header = h,
		.file_size = checker->image->size,
		.nr_slots = vhd_nr_slots(h, checker->image->size),
	};
	__be32 bat[VC_VHD_BAT_STEP];
	u32 nr_faults = 0;
	u32 entry;
	u32 i;
	int ret;

	walk.slot = calloc(walk.nr_slots, 4);
	ret = walk.slot ? 0 : vc_error_nomem(err);
	for (i = 0; i < h->nr_blocks && !ret; i++) {
		struct vhdx_fault fault = { .offset = h->bat_offset + 4ULL * i };

		if (!(i % VC_VHD_BAT_STEP))
			ret = vc_vhd_read_bat(checker->image, i, bat, err);
		if (ret)
			break;
		entry = be32_to_cpu(bat[i % VC_VHD_BAT_STEP]);
		if (!vhd_bat_walk_entry(&walk, entry, &fault) && entry != VHD_NO_BLOCK &&
		    vc_vhd_on_locator(checker, entry))
			fault.what = "BAT entry: block lies on a parent locator";
		if (fault.what && nr_faults++ < VC_BAT_FAULTS)
			vc_vhd_found(checker, VC_FOUND_BAT, fault.offset,
				     "%s (offset %llu, block %u at sector %u)", fault.what,
				     fault.offset, i, entry);
	}
	if (nr_faults > VC_BAT_FAULTS)
		vc_vhd_found(checker, VC_FOUND_BAT, h->bat_offset,
			     "and %u more faults in the BAT", nr_faults - VC_BAT_FAULTS);
	free(walk.slot);
	return ret;
}

int vc_check_vhd(const struct vc_image *image, struct vc_check *check, struct vc_err *err)
{
	struct vc_vhd_checker checker = { .image = image, .check = check };
	int ret;

	ret = vc_vhd_check_footers(&checker, err);
	if (ret || vc_vhd_is_fixed(image))
		return ret;
	ret = vc_file_read(&image->file, "dynamic header", image->vhd->header.header_offset,
			   &checker.header, sizeof(checker.header), err);
	if (!ret && image->meta.has_parent)
		vc_vhd_check_locators(&checker);
	return ret ? ret : vc_vhd_check_bat(&checker, err);
}
