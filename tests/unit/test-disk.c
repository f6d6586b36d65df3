// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a chain reads as (userspace/lib/disk.c): two deltas with random blocks, of other
 * block sizes, on a base of each format, and larger than that.  Each sector holds its
 * number and its layer's, so that one from anywhere else is noticed.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <unistd.h>

#include "convert.h"
#include "create.h"
#include "disk.h"
#include "unit.h"

#define BASE_SECTORS	(5 * 2048U + 3)
#define TOP_SECTORS	(7 * 2048U)

#define ZEROS		0U

static u32 model[TOP_SECTORS];		/* what the layers so far read as */
static bool own[TOP_SECTORS];		/* the top has it itself */
static u64 seed;

static u32 number(u32 below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 20) % below;
}

static void check(int ret, const struct vc_err *err)
{
	if (ret)
		fail_msg("%s", err->msg);
}

static void sector_fill(u8 *buf, u32 value)
{
	u32 i;

	for (i = 0; i < 512; i += 4)
		unit_put32(buf + i, value);
}

static bool sector_is(const u8 *buf, u32 value)
{
	u8 expected[512];

	sector_fill(expected, value);
	return !memcmp(buf, expected, 512);
}

static void put(int fd, u64 at, u32 value)
{
	u8 buf[512];

	sector_fill(buf, value);
	assert_int_equal(pwrite(fd, buf, 512, at), 512);
}

/* ---- the images ----------------------------------------------------------------- */

static void make_raw(const char *path)
{
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	u32 sector = 0;
	u32 end;

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, BASE_SECTORS * 512), 0);
	memset(model, 0, sizeof(model));
	while (sector < BASE_SECTORS) {
		end = sector + 1 + number(1500);
		for (; sector < end && sector < BASE_SECTORS; sector++) {
			model[sector] = 1U << 24 | sector;
			put(fd, sector * 512, model[sector]);
		}
		sector += number(1500);
	}
	close(fd);
}

static void make_base(const char *path, enum vc_convert_type type)
{
	struct vc_convert_options options = { .type = type, .creator = "test" };
	struct vc_chain_options walk = { .image_flags = VC_IMAGE_RAW };
	struct vc_converted converted;
	struct vc_chain chain = { };
	struct vc_err err;

	make_raw("raw");
	check(vc_chain_open(&chain, "raw", &walk, &err), &err);
	check(vc_convert(&chain, path, &options, &converted, &err), &err);
	vc_chain_close(&chain);
}

static void hide(struct vc_image *image, u64 place, u32 first, u32 nr, u32 tag)
{
	u32 i;

	for (i = first; i < first + nr && i < TOP_SECTORS; i++) {
		own[i] = true;
		model[i] = place ? tag << 24 | i : ZEROS;
		if (place)
			put(image->file.fd, place + (i - first) * 512, model[i]);
	}
}

static void change_block(struct vc_edit *edit, struct vc_image *image, u32 block, u32 tag)
{
	u32 sectors = image->geo.block_size / 512;
	u32 first = block * sectors;
	unsigned int state = VHDX_BLOCK_FULLY_PRESENT;
	u32 what = number(4);
	struct vc_err err;
	u64 mib;
	u32 nr;
	u32 i;

	if (!what)
		return;
	if (what == 1) {
		check(vc_edit_set_block(edit, block, VHDX_BLOCK_ZERO, 0, &err), &err);
		hide(image, 0, first, sectors, tag);
		return;
	}
	if (what == 2)
		state = VHDX_BLOCK_PARTIALLY_PRESENT;
	check(vc_edit_alloc(edit, vhdx_block_mib(&image->geo), &mib, &err), &err);
	check(vc_edit_set_block(edit, block, state, mib, &err), &err);
	if (state == VHDX_BLOCK_FULLY_PRESENT)
		hide(image, mib << VHDX_MIB_SHIFT, first, sectors, tag);
	for (i = 0; state == VHDX_BLOCK_PARTIALLY_PRESENT && i < sectors; i += nr + number(900)) {
		nr = 1 + number(sectors - i < 900 ? sectors - i : 900);
		check(vc_edit_set_bits(edit, first + i, nr, true, &err), &err);
		hide(image, (mib << VHDX_MIB_SHIFT) + i * 512, first + i, nr, tag);
	}
}

static void make_delta(const char *path, const char *base, u64 sectors, u32 block_size,
		       u32 tag)
{
	struct vc_create_options options = {
		.type = VC_CREATE_DIFFERENCING,
		.virtual_size = sectors * 512,
		.block_size = block_size,
		.creator = "test",
		.force = true,
	};
	struct vc_chain_options walk = { };
	struct vc_chain chain = { };
	struct vc_created created;
	struct vc_image *image;
	struct vc_edit *edit;
	struct vc_err err;
	u32 i;

	check(vc_chain_open(&chain, base, &walk, &err), &err);
	options.base = &chain;
	check(vc_create(path, &options, &created, &err), &err);
	vc_chain_close(&chain);
	memset(own, 0, sizeof(own));
	check(vc_image_open(&image, path, VC_IMAGE_WRITE, NULL, &err), &err);
	check(vc_edit_begin(&edit, image, &err), &err);
	for (i = 0; i < image->geo.nr_blocks; i++)
		change_block(edit, image, i, tag);
	check(vc_edit_end(edit, &err), &err);
	vc_image_close(image);
	/* Whoever looks from above sees zeros behind the end. */
	for (i = sectors; i < TOP_SECTORS; i++)
		model[i] = ZEROS;
}

/* ---- what they read as ---------------------------------------------------------- */

static void check_extent(const struct vc_chain *chain, const struct vc_extent *extent)
{
	u32 sector = extent->offset / 512;
	u32 nr = extent->length / 512;
	u8 buf[512] = { };
	struct vc_err err;
	u32 i;

	for (i = 0; i < nr; i++) {
		if (extent->kind == VC_EXTENT_DATA)
			check(vc_image_read(chain->layer[extent->layer], "data",
					    extent->place + i * 512, buf, 512, &err), &err);
		if (!sector_is(buf, model[sector + i]))
			fail_msg("sector %u of kind %u is wrong", sector + i, extent->kind);
	}
}

static void check_extents(const struct vc_chain *chain, struct vc_disk *disk, bool top)
{
	u64 size = vc_disk_size(disk);
	struct vc_extent extent;
	struct vc_err err;
	u64 max;
	u64 at;
	u32 i;

	for (at = 0; at < size; at += extent.length) {
		max = 512 * (1 + number(number(2) ? 9000 : 20));
		check(vc_disk_extent(disk, at, max, &extent, &err), &err);
		assert_int_equal(extent.offset, at);
		assert_true(extent.length && extent.length <= max && extent.length % 512 == 0);
		for (i = at / 512; top && i < (at + extent.length) / 512; i++)
			assert_int_equal(own[i], extent.kind != VC_EXTENT_ABSENT);
		if (!top || extent.kind != VC_EXTENT_ABSENT)
			check_extent(chain, &extent);
	}
	assert_int_equal(at, size);
}

/* Any bytes, in any order. */
static void check_reads(struct vc_disk *disk, const u8 *all)
{
	static u8 buf[3 * VHDX_MIB];
	u64 size = vc_disk_size(disk);
	struct vc_err err;
	u32 len;
	u64 at;
	u32 i;

	for (i = 0; i < 300; i++) {
		at = number(size);
		len = number(i % 3 ? 5000 : sizeof(buf));
		if (len > size - at)
			len = size - at;
		check(vc_disk_read(disk, at, buf, len, &err), &err);
		assert_memory_equal(buf, all + at, len);
	}
	assert_int_equal(vc_disk_read(disk, size - 100, buf, 101, &err), -EINVAL);
}

static void check_chain(const char *path)
{
	u8 *all = malloc(TOP_SECTORS * 512);
	struct vc_chain_options walk = { };
	struct vc_chain chain = { };
	struct vc_disk *disk;
	struct vc_err err;
	u32 i;

	for (i = 0; i < TOP_SECTORS; i++)
		sector_fill(all + i * 512, model[i]);
	check(vc_chain_open(&chain, path, &walk, &err), &err);
	assert_int_equal(chain.nr, 3);
	check(vc_disk_open(&disk, &chain, 0, chain.nr, &err), &err);
	assert_int_equal(vc_disk_size(disk), TOP_SECTORS * 512);
	check_extents(&chain, disk, false);
	check_reads(disk, all);
	vc_disk_close(disk);
	check(vc_disk_open(&disk, &chain, 0, 1, &err), &err);
	check_extents(&chain, disk, true);
	vc_disk_close(disk);
	vc_chain_close(&chain);
	free(all);
}

static void test_chain(void **state)
{
	enum vc_convert_type type = *(enum vc_convert_type *)*state;
	char dir[] = "/dev/shm/test-disk.XXXXXX";
	char cmd[64];
	u32 i;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	for (i = 1; i <= 5; i++) {
		seed = i;
		unlink("base");
		make_base("base", type);
		make_delta("1.vhdx", "base", BASE_SECTORS, (i & 1 ? 4 : 1) * VHDX_MIB, 2);
		make_delta("2.vhdx", "1.vhdx", TOP_SECTORS, (i & 2 ? 2 : 1) * VHDX_MIB, 3);
		check_chain("2.vhdx");
	}
	assert_int_equal(chdir("/"), 0);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	assert_int_equal(system(cmd), 0);
}

int main(void)
{
	static enum vc_convert_type types[] = {
		VC_CONVERT_RAW, VC_CONVERT_FIXED, VC_CONVERT_DYNAMIC, VC_CONVERT_VHD_FIXED,
		VC_CONVERT_VHD_DYNAMIC,
	};
	static const struct CMUnitTest tests[] = {
		{ "raw", test_chain, NULL, NULL, &types[0] },
		{ "vhdx fixed", test_chain, NULL, NULL, &types[1] },
		{ "vhdx dynamic", test_chain, NULL, NULL, &types[2] },
		{ "vhd fixed", test_chain, NULL, NULL, &types[3] },
		{ "vhd dynamic", test_chain, NULL, NULL, &types[4] },
	};

	return cmocka_run_group_tests_name("disk", tests, NULL, NULL);
}
