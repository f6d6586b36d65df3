// SPDX-License-Identifier: GPL-2.0-or-later
/* VHD: see vhd.h. */
#include <stdio.h>
#include <stdlib.h>

#include "guid.h"
#include "vhd.h"

/* ---- the footer and its copy ------------------------------------------------- */

/* Old writers left out the last byte, which is reserved. */
static u32 vc_vhd_footer_length(const struct vc_image *image)
{
	return image->size % VHD_SECTOR == VHD_FOOTER_SIZE - 1 ? VHD_FOOTER_SIZE - 1 :
								 VHD_FOOTER_SIZE;
}

int vc_vhd_read_footer(const struct vc_image *image, bool copy, struct vhd_footer *f,
		       u64 *offset, struct vc_err *err)
{
	u32 length = copy ? VHD_FOOTER_SIZE : vc_vhd_footer_length(image);

	*offset = copy ? 0 : (image->size - length) & ~(u64)(VHD_SECTOR - 1);
	memset(f, 0, sizeof(*f));
	return vc_file_read(&image->file, "footer", *offset, f, length, err);
}

/* Read one of them.  Return: 1 if it is there and right. */
static int vc_vhd_footer(const struct vc_image *image, bool copy,
			 struct vhd_footer_info *info, struct vhd_footer *f, bool *there,
			 struct vc_err *err)
{
	struct vhdx_fault fault = { };
	u64 offset;
	int ret;

	*there = false;
	ret = vc_vhd_read_footer(image, copy, f, &offset, err);
	if (ret)
		return ret;
	*there = vhd_footer_is(f);
	if (!*there)
		return 0;
	ret = vhd_footer_parse(f, offset, info, &fault);
	if (ret)
		return vc_error_fault(err, ret, image->file.path, &fault);
	return 1;
}

/*
 * The one at the end counts.  The copy in front is for the time when an image that grew
 * was not given its new end.
 */
static int vc_vhd_footers(const struct vc_image *image, struct vc_vhd *vhd,
			  struct vc_err *err)
{
	struct vhd_footer_info copy_info = { };
	struct vhd_footer footer;
	struct vhd_footer copy;
	struct vc_err copy_err;
	bool copy_there;
	bool there;
	int at_end;
	int at_start;

	at_end = vc_vhd_footer(image, false, &vhd->footer, &footer, &there, err);
	/* What has a right checksum was meant so. */
	if ((at_end < 0 && at_end != -EBADMSG) ||
	    (at_end == 1 && vhd->footer.type == VHD_FIXED))
		return at_end;
	at_start = vc_vhd_footer(image, true, &copy_info, &copy, &copy_there, &copy_err);
	if (at_end == 1) {
		vhd->footer_damaged = at_start != 1 || memcmp(&footer, &copy, sizeof(copy));
		return 1;
	}
	/* A guest that writes one to its first sector makes no VHD of a raw disk. */
	if (at_start == 1 && copy_info.type != VHD_FIXED) {
		vhd->footer = copy_info;
		vhd->footer_damaged = true;
		return 1;
	}
	if (at_end < 0 || at_start >= 0)
		return at_end;
	*err = copy_err;
	return at_start;
}

/* ---- the parent locators ----------------------------------------------------- */

static char *vc_vhd_utf16be(const u8 *buf, size_t bytes)
{
	u8 *swapped = malloc(bytes);
	char *text = NULL;
	size_t i;

	for (i = 0; swapped && i + 1 < bytes; i += 2) {
		swapped[i] = buf[i + 1];
		swapped[i + 1] = buf[i];
	}
	if (swapped)
		text = vc_utf16_decode(swapped, bytes, false);
	free(swapped);
	return text;
}

/* One of the locators as text, to be freed; NULL if there is none of this kind. */
static int vc_vhd_locator_text(const struct vc_image *image, const struct vhd_header *h,
			       const char *code, char **text, struct vc_err *err)
{
	const struct vhd_locator_entry *e;
	unsigned int i;
	u32 length;
	u8 *buf;
	int ret;

	*text = NULL;
	for (i = 0; i < VHD_NR_LOCATORS; i++)
		if (!memcmp(h->locator[i].code, code, sizeof(h->locator[i].code)))
			break;
	if (i == VHD_NR_LOCATORS)
		return 0;
	e = &h->locator[i];
	length = be32_to_cpu(e->data_length);
	if (!length || length > VHD_MAX_LOCATOR_LENGTH || length % 2)
		return vc_error(err, EINVAL, image->file.path,
				"parent locator: length %u of '%s' is out of range (offset %llu)",
				length, code, image->vhd->header.header_offset +
				offsetof(struct vhd_header, locator[i]));
	buf = malloc(length);
	if (!buf)
		return vc_error_nomem(err);
	ret = vc_file_read(&image->file, "parent locator", be64_to_cpu(e->data_offset), buf,
			   length, err);
	if (!ret) {
		*text = vc_utf16_decode(buf, length, false);
		if (!*text)
			ret = vc_error_nomem(err);
	}
	free(buf);
	return ret;
}

static int vc_vhd_add_path(struct vc_image *image, const char *key, const char *path,
			   struct vc_err *err)
{
	if (!path || !*path || vc_locator_get(image->locator, key))
		return 0;
	return vc_locator_add(image->locator, key, path, err);
}

static int vc_vhd_load_locator(struct vc_image *image, const struct vhd_header *h,
			       struct vc_err *err)
{
	static const char * const codes[][2] = {
		{ VHD_LOCATOR_W2RU, VC_KEY_RELATIVE },
		{ VHD_LOCATOR_W2KU, VC_KEY_ABSOLUTE_WIN32 },
	};
	char linkage[VC_GUID_TEXT];
	unsigned int i;
	char *text;
	int ret;

	image->locator = vc_locator_new(&vhdx_guid_zero);
	if (!image->locator)
		return vc_error_nomem(err);
	vc_guid_format(&image->vhd->header.parent_id, linkage);
	ret = vc_locator_add(image->locator, VC_KEY_LINKAGE, linkage, err);
	for (i = 0; i < ARRAY_SIZE(codes) && !ret; i++) {
		ret = vc_vhd_locator_text(image, h, codes[i][0], &text, err);
		if (!ret)
			ret = vc_vhd_add_path(image, codes[i][1], text, err);
		free(text);
	}
	/* Old ones have a name only. */
	if (!ret && image->locator->nr_pairs == 1) {
		text = vc_vhd_utf16be(h->parent_name, sizeof(h->parent_name));
		ret = vc_vhd_add_path(image, VC_KEY_RELATIVE, text, err);
		free(text);
	}
	return ret;
}

/* ---- all of it --------------------------------------------------------------- */

static int vc_vhd_load_header(struct vc_image *image, struct vc_err *err)
{
	struct vc_vhd *vhd = image->vhd;
	struct vhdx_fault fault = { };
	struct vhd_header h;
	u64 end;
	int ret;

	ret = vc_file_read(&image->file, "dynamic header", vhd->footer.header_offset, &h,
			   sizeof(h), err);
	if (ret)
		return ret;
	ret = vhd_header_parse(&h, &vhd->footer, &vhd->header, &fault);
	if (ret)
		return vc_error_fault(err, ret, image->file.path, &fault);
	end = vhd->header.bat_offset + 4ULL * vhd->header.nr_blocks;
	if (end > image->size)
		return vc_error(err, EINVAL, image->file.path,
				"ends at %llu, inside the BAT (offset %llu)", image->size,
				vhd->header.bat_offset);
	return vhd->footer.type == VHD_DIFFERENCING ? vc_vhd_load_locator(image, &h, err) : 0;
}

int vc_vhd_load(struct vc_image *image, struct vc_err *err)
{
	struct vc_vhd *vhd;
	int ret;

	if (image->size < VHD_FOOTER_SIZE - 1)
		return 0;
	vhd = calloc(1, sizeof(*vhd));
	if (!vhd)
		return vc_error_nomem(err);
	ret = vc_vhd_footers(image, vhd, err);
	if (ret != 1) {
		free(vhd);
		return ret;
	}
	image->vhd = vhd;
	image->creator = strdup(vhd->footer.creator);
	if (!image->creator)
		return vc_error_nomem(err);
	image->meta = (struct vhdx_metadata){
		.leave_allocated = vhd->footer.type == VHD_FIXED,
		.has_parent = vhd->footer.type == VHD_DIFFERENCING,
		.virtual_size = vhd->footer.virtual_size,
		.logical_sector_size = VHD_SECTOR,
		.physical_sector_size = VHD_SECTOR,
		.virtual_disk_id = vhd->footer.unique_id,
	};
	if (vhd->footer.type == VHD_FIXED) {
		if (vhd->footer.virtual_size > image->size - vc_vhd_footer_length(image))
			return vc_error(err, EINVAL, image->file.path,
					"ends at %llu, but the disk has %llu bytes and a footer",
					image->size, vhd->footer.virtual_size);
		return 1;
	}
	ret = vc_vhd_load_header(image, err);
	image->meta.block_size = vhd->header.block_size;
	return ret ? ret : 1;
}

int vc_vhd_read_bat(const struct vc_image *image, u32 first, __be32 *bat, struct vc_err *err)
{
	const struct vhd_header_info *h = &image->vhd->header;
	u32 nr = h->nr_blocks - first;

	if (nr > VC_VHD_BAT_STEP)
		nr = VC_VHD_BAT_STEP;
	return vc_file_read(&image->file, "BAT", h->bat_offset + 4ULL * first, bat, 4ULL * nr,
			    err);
}

int vc_vhd_bat(const struct vc_image *image, u32 **places, u32 *nr_present,
	       struct vc_err *err)
{
	const struct vhd_header_info *h = &image->vhd->header;
	struct vhd_bat_walk walk = {
		.header = h,
		.file_size = image->size,
		.nr_slots = vhd_nr_slots(h, image->size),
	};
	struct vhdx_fault fault = { };
	__be32 *bat;
	int ret = 0;
	u32 i;

	*places = NULL;
	/* What is a hole in a sparse file takes no memory. */
	bat = malloc(4ULL * h->nr_blocks);
	walk.slot = calloc(walk.nr_slots, 4);
	if (!bat || !walk.slot) {
		ret = vc_error_nomem(err);
		goto out;
	}
	for (i = 0; i < h->nr_blocks && !ret; i++) {
		u32 entry;

		if (!(i % VC_VHD_BAT_STEP))
			ret = vc_vhd_read_bat(image, i, &bat[i], err);
		if (ret)
			break;
		entry = be32_to_cpu(bat[i]);
		ret = vhd_bat_walk_entry(&walk, entry, &fault);
		if (ret)
			vc_error_fault(err, ret, image->file.path, &fault);
		/* From here on in the byte order of this machine. */
		memcpy(&bat[i], &entry, sizeof(entry));
	}
	if (!ret) {
		*places = (u32 *)bat;
		bat = NULL;
		if (nr_present)
			*nr_present = walk.nr_present;
	}
out:
	free(bat);
	free(walk.slot);
	return ret;
}
