// SPDX-License-Identifier: GPL-2.0-or-later
/* Checks: see check.h. */
#define _GNU_SOURCE
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "check.h"
#include "guid.h"

#define VC_BAT_FAULTS	50	/* told one by one; the others are counted */

struct vc_checker {
	const struct vc_image *image;
	struct vc_check *check;
	u64 *bitmap_place;		/* of each chunk, bytes, 0: none */
	u32 *partial;			/* blocks that need their bitmap looked at, rising */
	u32 nr_partial;
	u32 nr_faults;
	struct vc_finding finding;
};

const char *vc_finding_name(enum vc_finding_kind kind)
{
	static const char * const names[] = {
		[VC_FOUND_HEADER_COPY] = "header-copy",
		[VC_FOUND_REGION_COPY] = "region-table-copy",
		[VC_FOUND_REGIONS] = "region-tables",
		[VC_FOUND_LOG] = "log",
		[VC_FOUND_LOCATOR] = "parent-locator",
		[VC_FOUND_BAT] = "bat-entry",
		[VC_FOUND_PLACE] = "unused-place",
		[VC_FOUND_LENGTH] = "length",
		[VC_FOUND_BITMAP_UNUSED] = "unused-bitmap",
		[VC_FOUND_BITS] = "bits",
		[VC_FOUND_STALE_BITS] = "stale-bits",
		[VC_FOUND_LEAK] = "leak",
		[VC_FOUND_FOOTER] = "footer",
	};

	return names[kind];
}

/* Begin a finding: what the text alone does not tell is filled in before vc_find(). */
static struct vc_finding *vc_found(struct vc_checker *checker, enum vc_finding_kind kind,
				   enum vc_severity severity, u64 offset)
{
	checker->finding = (struct vc_finding) {
		.kind = kind,
		.severity = severity,
		.offset = offset,
	};
	return &checker->finding;
}

static void vc_find(struct vc_checker *checker, const char *fmt, ...) __printf(2, 3);

static void vc_find(struct vc_checker *checker, const char *fmt, ...)
{
	struct vc_finding *finding = &checker->finding;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(finding->text, sizeof(finding->text), fmt, ap);
	va_end(ap);
	checker->check->fn(checker->check->data, checker->image, finding);
}

/* ---- headers, log, region tables --------------------------------------------------- */

static int vc_check_headers(struct vc_checker *checker, struct vc_err *err)
{
	const struct vhdx_header_info *h = &checker->image->header;
	unsigned int other = !h->slot;
	struct vhdx_header *copies;
	struct vc_finding *finding;
	int ret;

	copies = calloc(2, sizeof(*copies));
	if (!copies)
		return vc_error_nomem(err);
	ret = vc_file_read(&checker->image->file, "header", vhdx_header_offset(0), &copies[0],
			   sizeof(*copies), err);
	if (!ret)
		ret = vc_file_read(&checker->image->file, "header", vhdx_header_offset(1),
				   &copies[1], sizeof(*copies), err);
	if (ret)
		goto out;
	/* What a header update leaves that was cut short: no damage. */
	finding = vc_found(checker, VC_FOUND_HEADER_COPY, VC_NOTE, vhdx_header_offset(other));
	finding->number = other;
	finding->repairable = true;
	if (!h->other_valid) {
		vc_find(checker,
			"header %u is not valid, header %u is used: 'vhdclone recover' writes both anew",
			other + 1, h->slot + 1);
	} else if (memcmp((u8 *)&copies[0] + offsetof(struct vhdx_header, file_write_guid),
			  (u8 *)&copies[1] + offsetof(struct vhdx_header, file_write_guid),
			  sizeof(*copies) - offsetof(struct vhdx_header, file_write_guid))) {
		finding->severity = VC_HINT;
		vc_find(checker, "header %u is older, and says something else than header %u",
			other + 1, h->slot + 1);
	}
out:
	free(copies);
	return ret;
}

static void vc_check_log(struct vc_checker *checker)
{
	const struct vc_image *image = checker->image;
	const struct vc_log_report *report;

	if (!image->header.log_dirty)
		return;
	report = vc_overlay_report(image->overlay);
	vc_found(checker, VC_FOUND_LOG, VC_NOTE, image->header.log_offset);
	vc_find(checker,
		"the log holds %llu entries with %llu pages to replay: checked as it will be then",
		report->nr_entries, report->nr_pages);
}

/* Of two copies that differ, one that is damaged can be told. */
static int vc_check_region_copies(struct vc_checker *checker, struct vc_err *err)
{
	const struct vc_image *image = checker->image;
	struct vhdx_fault fault = { };
	struct vc_finding *finding;
	struct vhdx_regions regions;
	unsigned int other;
	u64 offset;
	u8 *table;
	int ret;

	if (!image->table_damaged)
		return 0;
	other = image->table_offset == VHDX_REGION_TABLE1_OFFSET;
	offset = other ? VHDX_REGION_TABLE2_OFFSET : VHDX_REGION_TABLE1_OFFSET;
	table = malloc(VHDX_REGION_TABLE_SIZE);
	if (!table)
		return vc_error_nomem(err);
	ret = vc_image_read(image, "region table", offset, table, VHDX_REGION_TABLE_SIZE, err);
	if (!ret && vhdx_region_table_parse(table, offset, &regions, &fault)) {
		finding = vc_found(checker, VC_FOUND_REGION_COPY, VC_CORRUPT, fault.offset);
		finding->number = other;
		finding->repairable = true;
		vc_find(checker,
			"the copies of the region table differ: copy %u is damaged: %s (offset %llu)",
			other + 1, fault.what, fault.offset);
	} else if (!ret) {
		vc_found(checker, VC_FOUND_REGIONS, VC_CORRUPT, offset);
		vc_find(checker,
			"the copies of the region table differ, and both are valid (offsets %llu and %llu)",
			VHDX_REGION_TABLE1_OFFSET, VHDX_REGION_TABLE2_OFFSET);
	}
	free(table);
	return ret;
}

static int vc_check_locator(struct vc_checker *checker, struct vc_err *err)
{
	const struct vc_image *image = checker->image;
	const struct vc_locator *locator = image->locator;
	u64 offset = image->regions.metadata.offset +
		     image->items[VHDX_ITEM_PARENT_LOCATOR].offset;
	char text[VC_GUID_TEXT];
	struct vhdx_guid guid;
	const char *linkage;

	if (!locator || vc_locator_is_raw(locator) || vc_locator_is_vhd(locator))
		return 0;
	if (!vhdx_guid_equal(&locator->type, &vhdx_guid_locator_vhdx))
		return vc_error(err, EOPNOTSUPP, image->file.path,
				"parent locator: unknown type %s",
				vc_guid_format(&locator->type, text));
	vc_found(checker, VC_FOUND_LOCATOR, VC_CORRUPT, offset);
	linkage = vc_locator_get(locator, VC_KEY_LINKAGE);
	if (!linkage)
		vc_find(checker, "parent locator: no " VC_KEY_LINKAGE " (offset %llu)", offset);
	else if (!vc_guid_parse(linkage, &guid))
		vc_find(checker, "parent locator: " VC_KEY_LINKAGE " is no GUID (offset %llu)",
			offset);
	if (!vc_locator_get(locator, VC_KEY_RELATIVE) &&
	    !vc_locator_get(locator, VC_KEY_VOLUME) &&
	    !vc_locator_get(locator, VC_KEY_ABSOLUTE_WIN32))
		vc_find(checker, "parent locator: no path of the parent (offset %llu)", offset);
	return 0;
}

/* ---- the BAT -------------------------------------------------------------------------- */

static void vc_check_place(struct vc_checker *checker, u32 block, u64 entry)
{
	const struct vc_image *image = checker->image;
	unsigned int state = vhdx_bat_state(entry);
	u64 start = vhdx_bat_mib(entry) << VHDX_MIB_SHIFT;
	struct vc_finding *finding;
	u64 at;

	if (!start)
		return;
	at = image->regions.bat.offset + 8ULL * vhdx_bat_payload_index(&image->geo, block);
	if (state == VHDX_BLOCK_NOT_PRESENT || state == VHDX_BLOCK_ZERO) {
		finding = vc_found(checker, VC_FOUND_PLACE, VC_NOTE, at);
		finding->number = block;
		finding->repairable = true;
		vc_find(checker,
			"block %u is not present, but its entry has the place %llu, which some readers refuse (offset %llu)",
			block, start, at);
	} else if (start + image->geo.block_size > image->size) {
		/* What is there reaches the end of the disk, else it were a fault. */
		finding = vc_found(checker, VC_FOUND_LENGTH, VC_NOTE, start);
		finding->number = block;
		finding->length = start + image->geo.block_size;
		finding->repairable = !image->file.is_block;
		vc_find(checker,
			"the file ends at %llu, inside block %u (offset %llu), behind the end of the disk",
			image->size, block, start);
	}
}

static int vc_check_entry(void *data, u32 number, bool is_bitmap, u64 entry,
			  struct vc_err *err)
{
	struct vc_checker *checker = data;

	if (is_bitmap) {
		if (vhdx_bat_state(entry) == VHDX_BITMAP_PRESENT)
			checker->bitmap_place[number] = vhdx_bat_mib(entry) << VHDX_MIB_SHIFT;
		return 0;
	}
	vc_check_place(checker, number, entry);
	if (vhdx_bat_state(entry) == VHDX_BLOCK_PARTIALLY_PRESENT) {
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

/* Which block, of those before @index, has a part of the same place? */
static bool vc_find_owner(const struct vc_checker *checker, u32 index, u64 entry,
			  bool is_bitmap, u32 *owner)
{
	const struct vhdx_geometry *geo = &checker->image->geo;
	u64 nr = is_bitmap ? 1 : vhdx_block_mib(geo);
	__le64 page[VHDX_BAT_ENTRIES_PER_PAGE];
	u64 mib = vhdx_bat_mib(entry);
	struct vc_err ignored;
	u64 other;
	bool bitmap;
	u32 chunk;
	u64 n;
	u32 i;

	for (i = 0; i < index; i++) {
		if (!(i % VHDX_BAT_ENTRIES_PER_PAGE) &&
		    vc_image_read(checker->image, "BAT",
				  checker->image->regions.bat.offset + 8ULL * i, page,
				  sizeof(page), &ignored))
			return false;
		other = le64_to_cpu(page[i % VHDX_BAT_ENTRIES_PER_PAGE]);
		chunk = vhdx_bat_chunk(geo, i);
		bitmap = vhdx_bat_is_bitmap(geo, i, chunk);
		n = bitmap ? 1 : vhdx_block_mib(geo);
		if (vhdx_bat_state(other) >= VHDX_BLOCK_FULLY_PRESENT &&
		    vhdx_bat_mib(other) < mib + nr && mib < vhdx_bat_mib(other) + n) {
			*owner = i - chunk;
			return !bitmap;
		}
	}
	return false;
}

static void vc_check_fault(void *data, u32 number, bool is_bitmap, u64 entry,
			   __always_unused int ret, const struct vhdx_fault *fault)
{
	struct vc_checker *checker = data;
	const struct vhdx_geometry *geo = &checker->image->geo;
	char other[32] = "";
	u32 index;
	u32 owner;

	/* All are counted, in the end. */
	if (checker->nr_faults++ >= VC_BAT_FAULTS)
		return;
	index = is_bitmap ? vhdx_bat_bitmap_index(geo, number) :
			    vhdx_bat_payload_index(geo, number);
	if (vc_find_owner(checker, index, entry, is_bitmap, &owner))
		snprintf(other, sizeof(other), ", block %u", owner);
	vc_found(checker, VC_FOUND_BAT, VC_CORRUPT, fault->offset)->number = number;
	vc_find(checker, "%s %u: %s%s (offset %llu, value 0x%llx)",
		is_bitmap ? "bitmap block of chunk" : "block", number, fault->what, other,
		fault->offset, entry);
}

static int vc_check_bat(struct vc_checker *checker, struct vc_err *err)
{
	const struct vc_image *image = checker->image;
	int ret;

	ret = vc_image_walk_all(image, &checker->check->usage, vc_check_entry, vc_check_fault,
				checker, err);
	if (!ret && checker->nr_faults > VC_BAT_FAULTS) {
		vc_found(checker, VC_FOUND_BAT, VC_CORRUPT, image->regions.bat.offset);
		vc_find(checker, "and %u more faults in the BAT",
			checker->nr_faults - VC_BAT_FAULTS);
	}
	return ret;
}

/* ---- sector bitmaps -------------------------------------------------------------------- */

static u64 vc_count_bits(const u8 *buf, size_t first, size_t nr)
{
	u64 count = 0;
	u64 word;
	size_t i;

	for (i = first; i < first + nr && i % 64; i++)
		count += buf[i / 8] >> i % 8 & 1;
	for (; i + 64 <= first + nr; i += 64) {
		memcpy(&word, buf + i / 8, sizeof(word));
		count += __builtin_popcountll(word);
	}
	for (; i < first + nr; i++)
		count += buf[i / 8] >> i % 8 & 1;
	return count;
}

/* @bits is the chunk's bitmap; those of the block are cleared, for what comes then. */
static void vc_check_partial(struct vc_checker *checker, u32 block, u8 *bits)
{
	const struct vhdx_geometry *geo = &checker->image->geo;
	u64 first = (u64)block << (geo->block_shift - geo->sector_shift);
	u64 nr = geo->block_size >> geo->sector_shift;
	u64 end = geo->virtual_size >> geo->sector_shift;
	u64 in_chunk = first & ((1ULL << VHDX_SECTORS_PER_CHUNK_SHIFT) - 1);
	u64 inside = first + nr > end ? end - first : nr;
	u64 set = vc_count_bits(bits, in_chunk, inside);

	checker->check->present_sectors += set;
	/* 1 MiB of 4 KiB sectors is the least: a multiple of 8 bits, always. */
	memset(bits + in_chunk / 8, 0, nr / 8);
	vc_found(checker, VC_FOUND_BITS, VC_HINT,
		 checker->bitmap_place[vhdx_block_chunk(geo, block)] + in_chunk / 8)->number =
		block;
	if (!set)
		vc_find(checker, "block %u is partially present, but has no sector", block);
	else if (set == inside)
		vc_find(checker, "block %u is partially present, and has all its sectors", block);
}

/* What is left in @bits now belongs to blocks that do not ask for it. */
static void vc_check_stale(struct vc_checker *checker, u32 chunk, const u8 *bits)
{
	const struct vhdx_geometry *geo = &checker->image->geo;
	u64 first = (u64)chunk << VHDX_SECTORS_PER_CHUNK_SHIFT;
	u64 end = geo->virtual_size >> geo->sector_shift;
	u64 nr = 1ULL << VHDX_SECTORS_PER_CHUNK_SHIFT;
	u64 set;

	/* Behind the end of the disk anything may stand. */
	if (first + nr > end)
		nr = end - first;
	set = vc_count_bits(bits, 0, nr);
	if (!set)
		return;
	vc_found(checker, VC_FOUND_STALE_BITS, VC_HINT, checker->bitmap_place[chunk])->number =
		chunk;
	vc_find(checker, "%llu bits are set of blocks that do not use them (chunk %u)",
		set, chunk);
}

static int vc_check_chunk(struct vc_checker *checker, u32 chunk, u32 *i, u8 *bits,
			  struct vc_err *err)
{
	const struct vhdx_geometry *geo = &checker->image->geo;
	struct vc_finding *finding;
	bool used = false;
	int ret;

	ret = vc_image_read(checker->image, "sector bitmap", checker->bitmap_place[chunk], bits,
			    VHDX_MIB, err);
	if (ret)
		return ret;
	while (*i < checker->nr_partial &&
	       vhdx_block_chunk(geo, checker->partial[*i]) == chunk) {
		vc_check_partial(checker, checker->partial[(*i)++], bits);
		used = true;
	}
	if (!used) {
		finding = vc_found(checker, VC_FOUND_BITMAP_UNUSED, VC_HINT,
				   checker->bitmap_place[chunk]);
		finding->length = VHDX_MIB;
		finding->number = chunk;
		finding->repairable = true;
		vc_find(checker, "the bitmap block of chunk %u is used by no block (offset %llu)",
			chunk, finding->offset);
	}
	vc_check_stale(checker, chunk, bits);
	return 0;
}

static int vc_check_bitmaps(struct vc_checker *checker, struct vc_err *err)
{
	const struct vhdx_geometry *geo = &checker->image->geo;
	u8 *bits = malloc(VHDX_MIB);
	u32 chunk;
	int ret = 0;
	u32 i = 0;

	if (!bits)
		return vc_error_nomem(err);
	for (chunk = 0; chunk < geo->nr_chunks && !ret; chunk++) {
		if (checker->bitmap_place[chunk]) {
			ret = vc_check_chunk(checker, chunk, &i, bits, err);
			continue;
		}
		/* That they have no bitmap is a fault, which was told. */
		while (i < checker->nr_partial &&
		       vhdx_block_chunk(geo, checker->partial[i]) == chunk)
			i++;
	}
	free(bits);
	return ret;
}

/* ---- the log against all else ------------------------------------------------------------ */

static bool vc_within(u64 offset, u64 length, u64 start, u64 size)
{
	return offset >= start && offset - start + length <= size;
}

static bool vc_is_metadata(const struct vc_checker *checker, u64 offset, u64 length)
{
	const struct vc_image *image = checker->image;
	struct vhdx_region region;
	unsigned int i;

	if (vc_within(offset, length, 0, VHDX_HEADER_SECTION_SIZE))
		return true;
	for (i = 0; i < image->regions.count; i++) {
		vhdx_region_get(image->table, i, &region);
		if (vc_within(offset, length, region.offset, region.length))
			return true;
	}
	for (i = 0; i < image->geo.nr_chunks; i++)
		if (checker->bitmap_place[i] &&
		    vc_within(offset, length, checker->bitmap_place[i], VHDX_MIB))
			return true;
	return false;
}

/* Is a part of the range in a block of the guest? */
static bool vc_is_payload(const struct vc_checker *checker, u64 offset, u64 length)
{
	u64 end = offset + length;
	u64 next;

	for (; offset < end; offset = next) {
		next = (offset | (VHDX_MIB - 1)) + 1;
		if (next > end)
			next = end;
		if (vc_usage_taken(&checker->check->usage, offset >> VHDX_MIB_SHIFT) &&
		    !vc_is_metadata(checker, offset, next - offset))
			return true;
	}
	return false;
}

/* No replay may write to what the guest has written. */
static void vc_check_log_targets(struct vc_checker *checker)
{
	const struct vc_image *image = checker->image;
	u64 length;
	u64 offset;
	u64 i;

	for (i = 0; image->overlay && vc_overlay_range(image->overlay, i, &offset, &length);
	     i++) {
		if (!vc_is_payload(checker, offset, length))
			continue;
		vc_found(checker, VC_FOUND_LOG, VC_CORRUPT, offset)->length = length;
		vc_find(checker, "the log would write %llu bytes on a block (offset %llu)",
			length, offset);
	}
}

/* ---- leaks ------------------------------------------------------------------------------- */

static bool vc_has_data(const u8 *buf, size_t len)
{
	return len && (buf[0] || memcmp(buf, buf + 1, len - 1));
}

/*
 * One MiB that nothing refers to is leaked if there is data in it.  Holes and
 * zeros are what creators and growing files keep in reserve.
 */
static int vc_check_leak(struct vc_checker *checker, u64 mib, u8 *buf, u64 *leaked,
			 struct vc_err *err)
{
	const struct vc_file *file = &checker->image->file;
	u64 offset = mib << VHDX_MIB_SHIFT;
	u64 len = VHDX_MIB;
	int ret;

	if (offset + len > file->size)
		len = file->size - offset;
	ret = vc_file_read(file, "unused space", offset, buf, len, err);
	*leaked = !ret && vc_has_data(buf, len) ? len : 0;
	return ret;
}

/* Leaks that lie side by side are one. */
struct vc_leak {
	u64 offset;
	u64 length;
};

static void vc_leak_tell(struct vc_checker *checker, struct vc_leak *leak)
{
	struct vc_finding *finding;

	if (!leak->length)
		return;
	checker->check->leaked += leak->length;
	finding = vc_found(checker, VC_FOUND_LEAK, VC_LEAK, leak->offset);
	finding->length = leak->length;
	finding->repairable = true;
	vc_find(checker, "%llu bytes hold data that nothing refers to (offset %llu)",
		leak->length, leak->offset);
	leak->length = 0;
}

static int vc_check_leaks(struct vc_checker *checker, struct vc_err *err)
{
	const struct vc_file *file = &checker->image->file;
	u64 limit = (file->size + VHDX_MIB - 1) >> VHDX_MIB_SHIFT;
	struct vc_leak leak = { };
	u64 leaked;
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
		ret = vc_check_leak(checker, mib, buf, &leaked, err);
		if (leaked && leak.offset + leak.length != mib << VHDX_MIB_SHIFT) {
			vc_leak_tell(checker, &leak);
			leak.offset = mib << VHDX_MIB_SHIFT;
		}
		leak.length += leaked;
		mib++;
	}
	vc_leak_tell(checker, &leak);
	free(buf);
	return ret;
}

int vc_check_image(const struct vc_image *image, struct vc_check *check,
		   struct vc_err *err)
{
	struct vc_checker checker = { .image = image, .check = check };
	int ret;

	ret = vc_check_headers(&checker, err);
	vc_check_log(&checker);
	if (!ret)
		ret = vc_check_region_copies(&checker, err);
	if (!ret)
		ret = vc_check_locator(&checker, err);
	if (ret)
		return ret;
	checker.bitmap_place = calloc(image->geo.nr_chunks, sizeof(u64));
	if (!checker.bitmap_place)
		return vc_error_nomem(err);
	ret = vc_check_bat(&checker, err);
	if (!ret)
		ret = vc_check_bitmaps(&checker, err);
	if (!ret) {
		vc_check_log_targets(&checker);
		ret = vc_check_leaks(&checker, err);
	}
	vc_usage_free(&check->usage);
	free(checker.bitmap_place);
	free(checker.partial);
	return ret;
}
