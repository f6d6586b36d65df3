// SPDX-License-Identifier: GPL-2.0-or-later
/* Checks: see check.h. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "guid.h"

struct vc_checker {
	const struct vc_image *image;
	struct vc_check *check;
	u64 *bitmap_place;		/* of each chunk, bytes, 0: none */
	u32 *partial;			/* blocks that need their bitmap looked at */
	u32 nr_partial;
};

static void vc_find(struct vc_checker *checker, enum vc_severity severity,
		    const char *fmt, ...) __printf(3, 4);

static void vc_find(struct vc_checker *checker, enum vc_severity severity,
		    const char *fmt, ...)
{
	char text[VC_ERR_MSG_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	checker->check->fn(checker->check->data, checker->image, severity, text);
}

static void vc_check_headers(struct vc_checker *checker)
{
	const struct vc_image *image = checker->image;
	const struct vhdx_header_info *h = &image->header;

	/* What a header update leaves that was cut short: no damage. */
	if (!h->other_valid)
		vc_find(checker, VC_NOTE,
			"header %u is not valid, header %u is used: 'vhdclone recover' writes both anew",
			2 - h->slot, h->slot + 1);
	if (h->log_dirty) {
		const struct vc_log_report *report = vc_overlay_report(image->overlay);

		vc_find(checker, VC_NOTE,
			"the log holds %llu entries with %llu pages to replay: checked as it will be then",
			report->nr_entries, report->nr_pages);
	}
	if (image->table_damaged)
		vc_find(checker, VC_CORRUPT,
			"the copies of the region table differ (offsets %llu and %llu)",
			VHDX_REGION_TABLE1_OFFSET, VHDX_REGION_TABLE2_OFFSET);
}

static int vc_check_locator(struct vc_checker *checker, struct vc_err *err)
{
	const struct vc_locator *locator = checker->image->locator;
	char text[VC_GUID_TEXT];
	struct vhdx_guid guid;
	const char *linkage;

	if (!locator || vc_locator_is_raw(locator) || vc_locator_is_vhd(locator))
		return 0;
	if (!vhdx_guid_equal(&locator->type, &vhdx_guid_locator_vhdx))
		return vc_error(err, EOPNOTSUPP, checker->image->file.path,
				"parent locator: unknown type %s",
				vc_guid_format(&locator->type, text));
	linkage = vc_locator_get(locator, VC_KEY_LINKAGE);
	if (!linkage)
		vc_find(checker, VC_CORRUPT, "parent locator: no " VC_KEY_LINKAGE);
	else if (!vc_guid_parse(linkage, &guid))
		vc_find(checker, VC_CORRUPT, "parent locator: " VC_KEY_LINKAGE " is no GUID");
	if (!vc_locator_get(locator, VC_KEY_RELATIVE) &&
	    !vc_locator_get(locator, VC_KEY_VOLUME) &&
	    !vc_locator_get(locator, VC_KEY_ABSOLUTE_WIN32))
		vc_find(checker, VC_CORRUPT, "parent locator: no path of the parent");
	return 0;
}

static int vc_check_entry(void *data, u32 number, bool is_bitmap, u64 entry,
			  struct vc_err *err)
{
	struct vc_checker *checker = data;

	if (is_bitmap && vhdx_bat_state(entry) == VHDX_BITMAP_PRESENT)
		checker->bitmap_place[number] = vhdx_bat_mib(entry) << VHDX_MIB_SHIFT;
	if (!is_bitmap && vhdx_bat_state(entry) == VHDX_BLOCK_PARTIALLY_PRESENT) {
		if (!(checker->nr_partial & (checker->nr_partial + 1))) {
			size_t room = 2 * ((size_t)checker->nr_partial + 1);
			u32 *partial = realloc(checker->partial, room * sizeof(*partial));

			if (!partial)
				return vc_error_nomem(err);
			checker->partial = partial;
		}
		checker->partial[checker->nr_partial++] = number;
	}
	return 0;
}

/* The sectors of a partial block that lie in this file. */
static int vc_count_block(struct vc_checker *checker, u32 block, u8 *buf,
			  struct vc_err *err)
{
	const struct vhdx_geometry *geo = &checker->image->geo;
	u64 first = ((u64)block << geo->block_shift) >> geo->sector_shift;
	u64 nr = geo->block_size >> geo->sector_shift;
	u64 end = geo->virtual_size >> geo->sector_shift;
	u64 place = checker->bitmap_place[vhdx_block_chunk(geo, block)];
	u64 i;
	int ret;

	/* 1 MiB of 4 KiB sectors is the least: a multiple of 8 bits, always. */
	place += (first & ((1ULL << VHDX_SECTORS_PER_CHUNK_SHIFT) - 1)) / 8;
	ret = vc_image_read(checker->image, "sector bitmap", place, buf, nr / 8, err);
	if (ret)
		return ret;
	if (first + nr > end)
		nr = end - first;
	for (i = 0; i < nr; i++)
		checker->check->present_sectors += buf[i / 8] >> i % 8 & 1;
	return 0;
}

static int vc_check_bitmaps(struct vc_checker *checker, struct vc_err *err)
{
	const struct vhdx_geometry *geo = &checker->image->geo;
	u8 *buf = malloc((geo->block_size >> geo->sector_shift) / 8);
	int ret = 0;
	u32 i;

	if (!buf)
		return vc_error_nomem(err);
	for (i = 0; i < checker->nr_partial && !ret; i++)
		ret = vc_count_block(checker, checker->partial[i], buf, err);
	free(buf);
	return ret;
}

static bool vc_has_data(const u8 *buf, size_t len)
{
	return len && (buf[0] || memcmp(buf, buf + 1, len - 1));
}

/*
 * One MiB that nothing refers to is leaked if there is data in it.  Holes and
 * zeros are what creators and growing files keep in reserve.
 */
static int vc_check_leak(struct vc_checker *checker, u64 mib, u8 *buf, struct vc_err *err)
{
	const struct vc_file *file = &checker->image->file;
	u64 offset = mib << VHDX_MIB_SHIFT;
	u64 len = VHDX_MIB;
	int ret;

	if (offset + len > file->size)
		len = file->size - offset;
	ret = vc_file_read(file, "unused space", offset, buf, len, err);
	if (!ret && vc_has_data(buf, len))
		checker->check->leaked += len;
	return ret;
}

static int vc_check_leaks(struct vc_checker *checker, struct vc_err *err)
{
	const struct vc_file *file = &checker->image->file;
	u64 limit = (file->size + VHDX_MIB - 1) >> VHDX_MIB_SHIFT;
	u64 mib = 1;
	u8 *buf;
	int ret = 0;

	/* All of a device is there, used or not. */
	if (file->is_block)
		return 0;
	buf = malloc(VHDX_MIB);
	if (!buf)
		return vc_error_nomem(err);
	while (mib < limit && !ret) {
		off_t data;

		if (vc_usage_taken(&checker->check->usage, mib)) {
			mib++;
			continue;
		}
		data = lseek(file->fd, mib << VHDX_MIB_SHIFT, SEEK_DATA);
		if (data < 0 && errno == ENXIO)
			break;
		if (data >= 0 && (u64)data >> VHDX_MIB_SHIFT > mib) {
			mib = (u64)data >> VHDX_MIB_SHIFT;
			continue;
		}
		ret = vc_check_leak(checker, mib++, buf, err);
	}
	free(buf);
	if (checker->check->leaked)
		vc_find(checker, VC_LEAK,
			"%llu bytes hold data that nothing refers to",
			checker->check->leaked);
	return ret;
}

int vc_check_image(const struct vc_image *image, struct vc_check *check,
		   struct vc_err *err)
{
	struct vc_checker checker = { .image = image, .check = check };
	int ret;

	vc_check_headers(&checker);
	ret = vc_check_locator(&checker, err);
	if (ret)
		return ret;
	checker.bitmap_place = calloc(image->geo.nr_chunks, sizeof(u64));
	if (!checker.bitmap_place)
		return vc_error_nomem(err);
	ret = vc_image_walk(image, &check->usage, vc_check_entry, &checker, err);
	if (!ret)
		ret = vc_check_bitmaps(&checker, err);
	if (!ret)
		ret = vc_check_leaks(&checker, err);
	vc_usage_free(&check->usage);
	free(checker.bitmap_place);
	free(checker.partial);
	return ret;
}
