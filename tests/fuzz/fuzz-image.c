// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A whole image: opened, its log replayed in memory, checked, read, recovered.  What the
 * replay in memory showed must be what the specification makes of the log, and what
 * recovery then makes of the file, page by page.  BATs that are accepted are gone over
 * entry by entry.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "check.h"
#include "disk.h"
#include "oracle.h"
#include "table.h"
#include "vhd.h"

/* What a hostile image may cost is bounded by its size; a fuzzer wants to be quick. */
#define MAX_SIZE	(16ULL << 20)
#define MAX_ENTRIES	0x1000U
#define MAX_EXTENTS	64U

static int memory = -1;
static char path[64];

static void finding(void *data, const struct vc_image *image,
		    const struct vc_finding *found)
{
	unsigned int *nr = data;

	fuzz_assert(image && *found->text && found->severity <= VC_CORRUPT);
	fuzz_assert(vc_finding_name(found->kind));
	*nr += found->severity == VC_CORRUPT;
}

static bool small(const struct vc_image *image)
{
	return image->size <= MAX_SIZE && image->geo.nr_entries <= MAX_ENTRIES;
}

/*
 * What the image is, page by page, with its log replayed: of each its checksum.  Only of
 * pages that are there, or that the log writes to; all others are zeros, and stay so.
 */
static u32 sums[FUZZ_FILE_MAX / FUZZ_PAGE];
static bool known[FUZZ_FILE_MAX / FUZZ_PAGE];
static u64 nr_sums;

static u32 sum(const u8 *page)
{
	return vhdx_crc32c_step(~0U, page, FUZZ_PAGE);
}

static void remember(const struct vc_image *image, u64 page)
{
	static u8 buf[FUZZ_PAGE];
	u64 at = page * FUZZ_PAGE;
	u64 n = sizeof(buf);
	struct vc_err err;

	/* Recovery changes the headers, and not what was behind the end. */
	if (at < VHDX_REGION_TABLE1_OFFSET || at >= image->size || known[page])
		return;
	if (n > image->size - at)
		n = image->size - at;
	memset(buf, 0, sizeof(buf));
	fuzz_assert(!vc_image_read(image, "image", at, buf, n, &err));
	sums[page] = sum(buf);
	known[page] = true;
}

static void remember_all(const struct vc_image *image)
{
	u64 length;
	u64 offset;
	u64 page;
	u64 i;

	memset(known, 0, nr_sums * sizeof(known[0]));
	nr_sums = (image->size + FUZZ_PAGE - 1) / FUZZ_PAGE;
	for (page = 0; page < fuzz_file_pages(); page++)
		if (fuzz_file_page(page))
			remember(image, page);
	for (i = 0; vc_overlay_range(image->overlay, i, &offset, &length); i++)
		for (page = offset / FUZZ_PAGE; page * FUZZ_PAGE < offset + length; page++)
			remember(image, page);
}

/* Most pages are holes: NULL. */
static u32 sum_of_page(const u8 *page)
{
	static const u8 zeros[FUZZ_PAGE];
	static u32 zero;

	if (!zero)
		zero = sum(zeros);
	return page ? sum(page) : zero;
}

static u32 remembered(u64 page)
{
	return known[page] ? sums[page] : sum_of_page(NULL);
}

/* Recovery has made of the file what was remembered. */
static void compare_all(void)
{
	u64 page;

	for (page = VHDX_REGION_TABLE1_OFFSET / FUZZ_PAGE; page < nr_sums; page++)
		fuzz_assert(sum_of_page(fuzz_file_page(page)) == remembered(page));
	for (; page < fuzz_file_pages(); page++)
		fuzz_assert(!fuzz_file_page(page));
}

/* ---- against the specification --------------------------------------------------- */

/* What the log writes by itself: of each page its checksum. */
static u32 wanted[FUZZ_FILE_MAX / FUZZ_PAGE];
static bool written[FUZZ_FILE_MAX / FUZZ_PAGE];

static bool write_wanted(const struct oracle_change *change, u64 size)
{
	u64 page;

	if (!change->length)
		return true;
	if (change->offset < VHDX_REGION_TABLE1_OFFSET || change->offset > size ||
	    change->length > size - change->offset)
		return false;
	for (page = change->offset / FUZZ_PAGE;
	     page * FUZZ_PAGE < change->offset + change->length; page++) {
		wanted[page] = sum_of_page(change->data);
		written[page] = true;
	}
	return true;
}

/* Replay what leads from the tail of @head to it: is that what the tool did? */
static bool replays_to(const struct vc_image *image, const struct oracle_ring *ring,
		       const struct oracle_entry *head)
{
	const struct vc_log_report *report = vc_overlay_report(image->overlay);
	struct oracle_entry entry = { .length = 0 };
	struct oracle_change change;
	u64 sequence = report->first_sequence;
	u64 end = image->file.size;
	u64 nr_entries = 0;
	u64 nr_pages = 0;
	u64 zeros = 0;
	u64 total = 0;
	u32 pos = head->tail;
	u32 sector;
	u64 page;
	u32 i;

	memset(written, 0, nr_sums * sizeof(written[0]));
	/* Nothing is behind the end that was there, or that an entry tells of (2.3.1.1). */
	if (end < head->last_size)
		end = head->last_size;
	do {
		if (!oracle_entry(ring, pos, &entry) || entry.sequence != sequence++ ||
		    memcmp(entry.guid, head->guid, 16))
			return false;
		if (end < entry.last_size)
			end = entry.last_size;
		for (i = 0, sector = 0; i < entry.nr_descriptors; i++) {
			oracle_change(ring, &entry, i, &sector, &change);
			if (!write_wanted(&change, end < image->size ? end : image->size))
				return false;
		}
		nr_entries++;
		nr_pages += entry.nr_data;
		zeros += entry.zero_bytes;
		total += entry.length;
		pos = (pos + entry.length) % ring->length;
	} while (entry.pos != head->pos && total < ring->length);
	if (entry.pos != head->pos || total > ring->length ||
	    nr_entries != report->nr_entries || nr_pages != report->nr_pages ||
	    zeros != report->zero_bytes || image->file.size < head->flushed_size ||
	    image->size < head->last_size)
		return false;
	for (page = VHDX_REGION_TABLE1_OFFSET / FUZZ_PAGE; page < nr_sums; page++) {
		if (!written[page])
			wanted[page] = sum_of_page(fuzz_file_page(page));
		if (wanted[page] != remembered(page))
			return false;
	}
	return true;
}

/* There is a valid entry in the log that the replay ends with. */
static void check_replay(const struct vc_image *image)
{
	struct oracle_ring ring = {
		.bytes = fuzz_file_bytes(image->header.log_offset, image->header.log_length),
		.length = image->header.log_length,
	};
	u64 last = vc_overlay_report(image->overlay)->last_sequence;
	struct oracle_entry entry;
	u32 pos;

	fuzz_assert(ring.bytes);
	for (pos = 0; pos < ring.length; pos += FUZZ_PAGE)
		if (oracle_entry(&ring, pos, &entry) && entry.sequence == last &&
		    !memcmp(entry.guid, &image->header.log_guid, 16) &&
		    replays_to(image, &ring, &entry))
			return;
	fuzz_assert(!"the replay is what the log says");
}

/* All of a BAT was accepted. */
static void check_bat(const struct vc_image *image)
{
	static struct oracle_disk disk;
	struct vhdx_region region;
	static __le64 bat[MAX_ENTRIES];
	u32 nr = image->geo.nr_entries;
	struct vc_err err;
	u32 i;

	disk.virtual_size = image->meta.virtual_size;
	disk.block_size = image->meta.block_size;
	disk.sector_size = image->meta.logical_sector_size;
	disk.has_parent = image->meta.has_parent;
	/* Behind the last byte only what cannot be read may lie, in the last MiB. */
	disk.nr_mib = (image->size + VHDX_MIB - 1) / VHDX_MIB;
	disk.size = image->size;
	oracle_disk_init(&disk);
	fuzz_assert(nr == oracle_bat_entries(&disk));
	oracle_claim(&disk, image->header.log_offset, image->header.log_length);
	for (i = 0; i < image->regions.count; i++) {
		vhdx_region_get(image->table, i, &region);
		oracle_claim(&disk, region.offset, region.length);
	}
	fuzz_assert(!vc_image_read(image, "BAT", image->regions.bat.offset, bat,
				   nr * sizeof(bat[0]), &err));
	for (i = 0; i < nr; i++)
		oracle_bat_entry(&disk, i, le64_to_cpu(bat[i]));
}

/* ---- what the tool does with it ---------------------------------------------------- */

/* What the disk reads as, from its start: extents that follow each other, and bytes. */
static void read_disk(const struct vc_chain *chain)
{
	static u8 buf[FUZZ_PAGE];
	struct vc_extent extent;
	struct vc_disk *disk;
	struct vc_err err = { };
	unsigned int i;
	u64 size;
	u64 at;

	if (vc_disk_open(&disk, chain, 0, chain->nr, &err))
		return;
	size = vc_disk_size(disk);
	for (i = 0, at = 0; i < MAX_EXTENTS && at < size; i++, at += extent.length) {
		if (vc_disk_extent(disk, at, size - at, &extent, &err))
			break;
		fuzz_assert(extent.offset == at && extent.length &&
			    extent.length <= size - at);
		if (extent.length >= sizeof(buf))
			vc_disk_read(disk, at, buf, sizeof(buf), &err);
	}
	vc_disk_close(disk);
}

static void use(const struct vc_image *image, bool disk)
{
	unsigned int corrupt = 0;
	struct vc_check check = { .fn = finding, .data = &corrupt };
	struct vc_chain chain = { .nr = 1, .layer = { (struct vc_image *)image } };
	struct vc_usage usage;
	struct vc_err err = { };
	dev_t device = 1;
	char *text;

	vc_check_image(image, &check, &err);
	if (!vc_image_walk(image, &usage, NULL, NULL, &err)) {
		fuzz_assert(usage.end <= image->size + VHDX_MIB);
		fuzz_assert(vc_image_full_size(image, &usage) >= usage.end);
		check_bat(image);
		vc_image_open_size(image, &usage);
	}
	vc_usage_free(&usage);
	if (disk)
		read_disk(&chain);
	text = vc_chain_hint(image);
	free(text);
	if (!vc_table_build(&chain, &device, false, &text, &err))
		free(text);
}

static void use_vhd(const struct vc_image *image)
{
	struct vc_chain chain = { .nr = 1, .layer = { (struct vc_image *)image } };
	struct vc_err err = { };
	dev_t device = 1;
	char *text;

	if (!vc_vhd_is_fixed(image) && image->vhd->header.nr_blocks > MAX_ENTRIES)
		return;
	read_disk(&chain);
	if (!vc_table_build(&chain, &device, false, &text, &err))
		free(text);
}

static void recover_once(u64 size, bool dirty)
{
	struct vc_log_report report;
	struct vc_image *image;
	struct vc_err err = { };

	if (vc_image_open(&image, path, VC_IMAGE_HEADERS | VC_IMAGE_WRITE, NULL, &err)) {
		fuzz_assert(!dirty);
		return;
	}
	/* It could be opened, so it must be possible to recover it. */
	fuzz_assert(image->header.log_dirty == dirty);
	fuzz_assert(!vc_log_recover(image, &report, &err));
	fuzz_assert(!vc_image_reload(image, 0, &err));
	fuzz_assert(!image->header.log_dirty && image->header.other_valid);
	fuzz_assert(image->size == size);
	vc_image_close(image);
	if (dirty)
		compare_all();
}

/* Who is killed in the midst of it begins anew: a log can be replayed twice. */
static void recover(u64 size, bool dirty)
{
	static struct vhdx_header headers[2];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(headers); i++)
		memcpy(&headers[i], fuzz_file_bytes(vhdx_header_offset(i), sizeof(headers[i])),
		       sizeof(headers[i]));
	recover_once(size, dirty);
	if (!dirty)
		return;
	for (i = 0; i < ARRAY_SIZE(headers); i++)
		fuzz_file_put(vhdx_header_offset(i), &headers[i], sizeof(headers[i]));
	recover_once(size, true);
	recover_once(size, false);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	/* Only to be opened: what is read and written is memfile.c's. */
	memory = memfd_create("fuzz", MFD_CLOEXEC);
	fuzz_assert(memory >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", memory);
	return 0;
}

static void try_image(bool disk)
{
	struct vc_image *image;
	struct vc_err err = { };
	bool dirty;
	u64 length;

	if (vc_image_open(&image, path, VC_IMAGE_REPLAY, NULL, &err)) {
		fuzz_assert(err.errnum > 0 && *err.msg && !strchr(err.msg, '\n'));
		return;
	}
	if (image->format == VC_FORMAT_VHD)
		use_vhd(image);
	if (image->format != VC_FORMAT_VHDX || !small(image)) {
		vc_image_close(image);
		return;
	}
	use(image, disk);
	dirty = image->overlay;
	length = image->size;
	/* Zeros are written one by one into memory. */
	if (dirty && vc_overlay_report(image->overlay)->bytes >= MAX_SIZE) {
		vc_image_close(image);
		return;
	}
	if (dirty) {
		remember_all(image);
		check_replay(image);
	}
	vc_image_close(image);
	recover(length, dirty);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct fuzz_image input;

	if (fuzz_parse(data, size, &input)) {
		fuzz_write(&input);
		/* Reading takes as long as all else, and is not for every time. */
		try_image(size % 4 == 0);
		fuzz_no_leak();
	}
	return 0;
}
