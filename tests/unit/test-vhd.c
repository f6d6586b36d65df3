// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The checks of VHD, version 1: footer, dynamic header, BAT.
 */
#include "unit.h"
#include "vhd-format.h"

static struct vhd_footer footer;
static struct vhd_header header;
static struct vhd_footer_info finfo;
static struct vhd_header_info hinfo;

/* An image of 10 MiB and a sector, in blocks of 2 MiB. */
static int setup(void **state)
{
	(void)state;
	memset(&footer, 0, sizeof(footer));
	memcpy(footer.cookie, VHD_FOOTER_COOKIE, 8);
	footer.version = cpu_to_be32(VHD_VERSION);
	footer.header_offset = cpu_to_be64(512);
	footer.timestamp = cpu_to_be32(7);
	memcpy(footer.creator, "unit", 4);
	footer.current_size = cpu_to_be64(10 * VHDX_MIB + 512);
	footer.type = cpu_to_be32(VHD_DIFFERENCING);
	memset(&footer.unique_id, 0x55, 16);
	memset(&header, 0, sizeof(header));
	memcpy(header.cookie, VHD_HEADER_COOKIE, 8);
	header.bat_offset = cpu_to_be64(1536);
	header.version = cpu_to_be32(VHD_VERSION);
	header.max_entries = cpu_to_be32(7);
	header.block_size = cpu_to_be32(2 * VHDX_MIB);
	memset(&header.parent_id, 0x66, 16);
	return 0;
}

static int parse(void)
{
	int ret;

	footer.checksum = cpu_to_be32(vhd_footer_checksum(&footer));
	header.checksum = cpu_to_be32(vhd_header_checksum(&header));
	ret = vhd_footer_parse(&footer, 4096, &finfo, &unit_fault);
	return ret ? ret : vhd_header_parse(&header, &finfo, &hinfo, &unit_fault);
}

static void test_good(void **state)
{
	(void)state;
	assert_ok(parse());
	assert_int_equal(finfo.type, VHD_DIFFERENCING);
	assert_int_equal(finfo.virtual_size, 10 * VHDX_MIB + 512);
	assert_int_equal(finfo.timestamp, 7);
	assert_string_equal(finfo.creator, "unit");
	assert_memory_equal(&finfo.unique_id, &footer.unique_id, 16);
	assert_int_equal(hinfo.nr_blocks, 6);
	assert_int_equal(hinfo.nr_entries, 7);
	assert_int_equal(hinfo.block_shift, 21);
	assert_int_equal(hinfo.bitmap_sectors, 1);
	assert_int_equal(vhd_block_sectors(&hinfo), 4097);
	assert_int_equal(vhd_data_offset(&hinfo, 0xfffffffe), (0xfffffffeULL + 1) * 512);
	assert_memory_equal(&hinfo.parent_id, &header.parent_id, 16);
	/* The bitmap of a block of 4 MiB is two sectors, of one of 4 KiB still one. */
	header.block_size = cpu_to_be32(4 * VHDX_MIB);
	assert_ok(parse());
	assert_int_equal(hinfo.bitmap_sectors, 2);
	assert_int_equal(hinfo.nr_blocks, 3);
	header.block_size = cpu_to_be32(4096);
	header.max_entries = cpu_to_be32(2561);
	assert_ok(parse());
	assert_int_equal(hinfo.bitmap_sectors, 1);
}

/* What the footer of fat-differential.vhd has: a sum that was not made here. */
static void test_windows(void **state)
{
	size_t size;
	u8 *image;

	(void)state;
	image = unit_load_image("fat-differential.vhd.xz", &size);
	if (!image)
		skip();
	assert_ok(vhd_footer_parse((void *)(image + size - 512), size - 512, &finfo,
				   &unit_fault));
	assert_ok(vhd_header_parse((void *)(image + 512), &finfo, &hinfo, &unit_fault));
	assert_int_equal(vhd_footer_checksum((void *)image), 4294963244U);
	assert_int_equal(vhd_header_checksum((void *)(image + 512)), 4294957393U);
	assert_int_equal(hinfo.bat_offset, 8192);
	assert_int_equal(hinfo.nr_blocks, 2);
	free(image);
}

#define AT_FOOTER(field)	(4096 + offsetof(struct vhd_footer, field))
#define AT_HEADER(field)	(512 + offsetof(struct vhd_header, field))

static void test_footer(void **state)
{
	(void)state;
	assert_ok(parse());
	footer.reserved[426] = 1;
	assert_fault(vhd_footer_parse(&footer, 4096, &finfo, &unit_fault), -EBADMSG,
		     "footer: checksum is wrong", AT_FOOTER(checksum));
	assert_ok(parse());
	footer.cookie[7] ^= 1;
	assert_fault(parse(), -EBADMSG, "footer: signature is wrong", 4096);
	setup(state);
	footer.version = cpu_to_be32(0x10001);
	assert_fault(parse(), -EOPNOTSUPP, "footer: version is unknown", AT_FOOTER(version));
	setup(state);
	footer.type = 0;
	assert_fault(parse(), -EOPNOTSUPP, "footer: type is unknown", AT_FOOTER(type));
	setup(state);
	footer.current_size = cpu_to_be64(2040 * VHDX_GIB + 512);
	assert_fault(parse(), -EINVAL,
		     "footer: size is not a multiple of 512 in the limit of its type",
		     AT_FOOTER(current_size));
	footer.type = cpu_to_be32(VHD_FIXED);
	footer.checksum = cpu_to_be32(vhd_footer_checksum(&footer));
	assert_ok(vhd_footer_parse(&footer, 4096, &finfo, &unit_fault));
	assert_int_equal(finfo.header_offset, 0);
	setup(state);
	footer.header_offset = cpu_to_be64(VHD_NO_OFFSET);
	assert_fault(parse(), -EINVAL, "footer: offset of the header is out of range",
		     AT_FOOTER(header_offset));
}

static void test_header(void **state)
{
	(void)state;
	assert_ok(parse());
	header.reserved2[255] = 1;
	assert_fault(vhd_header_parse(&header, &finfo, &hinfo, &unit_fault), -EBADMSG,
		     "dynamic header: checksum is wrong", AT_HEADER(checksum));
	setup(state);
	header.max_entries = cpu_to_be32(5);
	assert_fault(parse(), -EINVAL,
		     "dynamic header: the BAT has fewer entries than the disk has blocks",
		     AT_HEADER(max_entries));
	setup(state);
	header.bat_offset = cpu_to_be64(VHD_NO_OFFSET - 511);
	assert_fault(parse(), -EINVAL, "dynamic header: offset of the BAT is out of range",
		     AT_HEADER(bat_offset));
}

/* Walk a BAT of up to six entries in a file of so many sectors. */
static int walk(const u32 *bat, unsigned int nr, u64 sectors)
{
	struct vhd_bat_walk w = { .header = &hinfo, .file_size = sectors * 512 };
	u32 slot[64] = { };
	int ret = 0;
	unsigned int i;

	w.slot = slot;
	w.nr_slots = vhd_nr_slots(&hinfo, w.file_size);
	assert_true(w.nr_slots <= ARRAY_SIZE(slot));
	for (i = 0; i < nr && !ret; i++)
		ret = vhd_bat_walk_entry(&w, bat[i], &unit_fault);
	assert_int_equal(w.index, i);
	if (!ret)
		assert_int_equal(w.nr_present, nr);
	return ret;
}

#define WALK(sectors, ...) \
	walk((const u32[]){ __VA_ARGS__ }, sizeof((u32[]){ __VA_ARGS__ }) / 4, sectors)

static void test_bat(void **state)
{
	static const char other[] = "BAT entry: block lies on another block";
	static const char meta[] = "BAT entry: block lies on the header or the BAT";
	static const char end[] = "BAT entry: block lies behind the end of the file";

	(void)state;
	assert_ok(parse());
	/* Blocks side by side, in any order. */
	assert_ok(WALK(100000, 4, 4 + 4097, 4 + 2 * 4097));
	assert_ok(WALK(100000, 4 + 2 * 4097, 4, 4 + 4097));
	assert_ok(WALK(100000, 4 + 4097, 4 + 2 * 4097, 4));
	/* One sector too near, from both sides, and on one place. */
	assert_fault(WALK(100000, 4, 4100), -EINVAL, other, 1536 + 4);
	assert_fault(WALK(100000, 4100, 4), -EINVAL, other, 1536 + 4);
	assert_fault(WALK(100000, 20000, 20000), -EINVAL, other, 1536 + 4);
	assert_fault(WALK(100000, 20000, 24096), -EINVAL, other, 1536 + 4);
	assert_fault(WALK(100000, 24096, 20000), -EINVAL, other, 1536 + 4);
	/* Footer, header, BAT; the first sector behind them is free. */
	assert_fault(WALK(100000, 0), -EINVAL, meta, 1536);
	assert_fault(WALK(100000, 2), -EINVAL, meta, 1536);
	assert_fault(WALK(100000, 3), -EINVAL, meta, 1536);
	header.bat_offset = cpu_to_be64(10000 * 512);
	assert_ok(parse());
	assert_ok(WALK(100000, 3));
	assert_ok(WALK(100000, 10000 - 4097));
	assert_fault(WALK(100000, 10000 - 4096), -EINVAL, meta, 5120000);
	/* The file must hold a block, but of the last one only what is of the disk. */
	assert_ok(WALK(20000, 20000 - 4097));
	assert_fault(WALK(20000, 20000 - 4096), -EINVAL, end, 5120000);
	assert_ok(WALK(60000, 11000, 16000, 21000, 26000, 31000, 60000 - 2));
	assert_fault(WALK(60000, 11000, 16000, 21000, 26000, 31000, 60000 - 1), -EINVAL, end,
		     5120000 + 20);
	assert_fault(WALK(60000, 0xfffffffe), -EINVAL, end, 5120000);
}

static void test_bits(void **state)
{
	static const u8 bits[] = { 0x80, 0x01, 0x40 };
	unsigned int i;

	(void)state;
	for (i = 0; i < 24; i++)
		assert_int_equal(vhd_bitmap_test(bits, i), i == 0 || i == 15 || i == 17);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_good, setup),
		cmocka_unit_test(test_windows),
		cmocka_unit_test_setup(test_footer, setup),
		cmocka_unit_test_setup(test_header, setup),
		cmocka_unit_test_setup(test_bat, setup),
		cmocka_unit_test(test_bits),
	};

	return cmocka_run_group_tests_name("vhd", tests, NULL, NULL);
}
