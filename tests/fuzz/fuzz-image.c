// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A whole image: opened, its log replayed in memory, checked, recovered on disk.  What
 * the replay in memory showed must be what recovery then makes.
 */
#define _GNU_SOURCE
#include <sys/mman.h>

#include "check.h"
#include "fuzz.h"
#include "table.h"

/* What a hostile image may cost is bounded by its size; a fuzzer wants to be quick. */
#define MAX_SIZE	(16ULL << 20)
#define MAX_ENTRIES	0x20000U

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

/* Of an image whose log is replayed; another one is not written to. */
static u32 sum_of(const struct vc_image *image, bool dirty)
{
	static u8 buf[VHDX_REGION_TABLE_SIZE];
	struct vc_err err;
	u32 crc = ~0U;
	u64 at;
	u64 n;

	if (!dirty)
		return 0;
	/* All but the headers, which recovery changes. */
	for (at = VHDX_REGION_TABLE1_OFFSET; at < image->size; at += n) {
		n = image->size - at < sizeof(buf) ? image->size - at : sizeof(buf);
		fuzz_assert(!vc_image_read(image, "image", at, buf, n, &err));
		crc = vhdx_crc32c_step(crc, buf, n);
	}
	return crc;
}

static void use(const struct vc_image *image, unsigned int *corrupt)
{
	struct vc_check check = { .fn = finding, .data = corrupt };
	struct vc_chain chain = { .nr = 1, .layer = { (struct vc_image *)image } };
	struct vc_usage usage;
	struct vc_err err = { };
	dev_t device = 1;
	char *text;

	vc_check_image(image, &check, &err);
	if (!vc_image_walk(image, &usage, NULL, NULL, &err)) {
		fuzz_assert(usage.end <= image->size + VHDX_MIB);
		fuzz_assert(vc_image_full_size(image, &usage) >= usage.end);
		vc_image_open_size(image, &usage);
	}
	vc_usage_free(&usage);
	text = vc_chain_hint(image);
	free(text);
	if (!vc_table_build(&chain, &device, false, &text, &err))
		free(text);
}

static void recover(u64 size, u32 sum, bool dirty)
{
	struct vc_log_report report;
	struct vc_image *image;
	struct vc_err err = { };

	if (vc_image_open(&image, path, VC_IMAGE_HEADERS | VC_IMAGE_WRITE, NULL, &err))
		return;
	if (image->format == VC_FORMAT_VHDX && !vc_log_recover(image, &report, &err)) {
		fuzz_assert(!vc_image_reload(image, 0, &err));
		fuzz_assert(!image->header.log_dirty && image->header.other_valid);
		fuzz_assert(image->size == size || !dirty);
		fuzz_assert(sum_of(image, dirty) == sum);
	} else if (image->format == VC_FORMAT_VHDX) {
		/* It could be opened, so it must be possible to recover it. */
		fuzz_assert(0 && "recover");
	}
	vc_image_close(image);
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	(void)argc;
	(void)argv;
	memory = memfd_create("fuzz", MFD_CLOEXEC);
	fuzz_assert(memory >= 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", memory);
	return 0;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	unsigned int corrupt = 0;
	struct fuzz_image input;
	struct vc_image *image;
	struct vc_err err = { };
	bool dirty;
	u64 length;
	u32 sum;

	if (!fuzz_parse(data, size, &input))
		return 0;
	fuzz_write(&input, memory);
	if (vc_image_open(&image, path, VC_IMAGE_REPLAY, NULL, &err)) {
		fuzz_assert(err.errnum > 0 && *err.msg && !strchr(err.msg, '\n'));
		return 0;
	}
	if (image->format != VC_FORMAT_VHDX || !small(image)) {
		vc_image_close(image);
		return 0;
	}
	use(image, &corrupt);
	dirty = image->header.log_dirty;
	length = image->size;
	/* Zeros are written one by one into memory. */
	if (!image->overlay || vc_overlay_report(image->overlay)->bytes < MAX_SIZE) {
		sum = sum_of(image, dirty);
		vc_image_close(image);
		recover(length, sum, dirty);
	} else {
		vc_image_close(image);
	}
	return 0;
}
