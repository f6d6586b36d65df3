// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Changing an image at rest (userspace/lib/edit.c): what it writes is recorded, and
 * then the power fails at each of its writes.  Of what was not flushed each write is
 * kept, lost or torn.  The image must open, and read as some commit left it, the last
 * one that completed or a later one.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "chain.h"
#include "create.h"
#include "edit.h"
#include "log.h"
#include "unit.h"
#include "wrap.h"

#define DISK		(4 * VHDX_MIB)
#define SECTORS		(DISK / 512)
#define BLOCK_SECTORS	(VHDX_MIB / 512)
#define BLOCKS		(DISK / VHDX_MIB)
#define COMMITS		140
#define MAX_OPS		4096

/* What a sector holds: not in this image, zeros, or data with this number. */
#define ABSENT		0U
#define ZEROS		1U

enum op_kind { OP_WRITE, OP_FLUSH, OP_SIZE, OP_COMMITTED };

struct op {
	enum op_kind kind;
	u64 offset;
	size_t len;
	u8 *data;
};

static struct op ops[MAX_OPS];
static unsigned int nr_ops;
static bool recording;
static bool fail_realloc;
static bool fail_read;
static u32 models[COMMITS + 1][SECTORS];
static u64 seed = 1;

static u32 number(u32 below)
{
	seed ^= seed << 13;
	seed ^= seed >> 7;
	seed ^= seed << 17;
	return (seed >> 20) % below;
}

static void record(enum op_kind kind, u64 offset, const void *data, size_t len)
{
	struct op *op = &ops[nr_ops];

	if (!recording)
		return;
	assert_true(nr_ops < MAX_OPS);
	*op = (struct op){ kind, offset, len, NULL };
	if (data) {
		op->data = malloc(len);
		memcpy(op->data, data, len);
	}
	nr_ops++;
}

ssize_t __wrap_pwrite64(int fd, const void *buf, size_t len, off_t at)
{
	record(OP_WRITE, at, buf, len);
	return __real_pwrite64(fd, buf, len, at);
}

int __wrap_fsync(int fd)
{
	record(OP_FLUSH, 0, NULL, 0);
	return __real_fsync(fd);
}

int __wrap_ftruncate64(int fd, off_t size)
{
	record(OP_SIZE, size, NULL, 0);
	return __real_ftruncate64(fd, size);
}

/* Zeros are written, so that they are recorded like all else. */
int __wrap_fallocate64(int fd __always_unused, int mode __always_unused,
		       off_t at __always_unused, off_t len __always_unused)
{
	errno = EOPNOTSUPP;
	return -1;
}

void *__wrap_realloc(void *old, size_t size)
{
	return fail_realloc ? NULL : __real_realloc(old, size);
}

ssize_t __wrap_pread64(int fd, void *buf, size_t len, off_t at)
{
	errno = EIO;
	return fail_read ? -1 : __real_pread64(fd, buf, len, at);
}

/* ---- the image ------------------------------------------------------------------ */

static void check(int ret, const struct vc_err *err)
{
	if (ret)
		fail_msg("%s", err->msg);
}

static void sector_fill(u8 *buf, u32 what)
{
	memset(buf, 0, 512);
	if (what > ZEROS)
		unit_random(buf, 512, what);
}

static void make(const char *base, const char *delta, u64 size)
{
	struct vc_create_options options = { .block_size = VHDX_MIB, .creator = "test" };
	struct vc_chain_options walk = { };
	struct vc_chain chain = { };
	struct vc_created created;
	struct vc_err err;
	int fd = open(base, O_RDWR | O_CREAT | O_TRUNC, 0600);

	assert_true(fd >= 0);
	assert_int_equal(__real_ftruncate64(fd, size), 0);
	close(fd);
	check(vc_chain_open(&chain, base, &walk, &err), &err);
	options.base = &chain;
	options.force = true;
	check(vc_create(delta, &options, &created, &err), &err);
	vc_chain_close(&chain);
}

/* What each sector is, by the BAT and the bitmaps alone. */
struct reader {
	const struct vc_image *image;
	u64 bitmap;
	u64 entry[BLOCKS];
};

static int reader_entry(void *data, u32 nr, bool is_bitmap, u64 entry,
			struct vc_err *err __always_unused)
{
	struct reader *reader = data;

	if (is_bitmap)
		reader->bitmap = entry;
	else
		reader->entry[nr] = entry;
	return 0;
}

static bool block_is(struct reader *reader, u32 block, const u32 *model)
{
	u64 place = vhdx_bat_mib(reader->entry[block]) << VHDX_MIB_SHIFT;
	unsigned int state = vhdx_bat_state(reader->entry[block]);
	static u8 data[VHDX_MIB];
	u8 bits[BLOCK_SECTORS / 8];
	u8 expected[512];
	struct vc_err err;
	u32 i;

	if (state == VHDX_BLOCK_PARTIALLY_PRESENT)
		check(vc_image_read(reader->image, "bits", (vhdx_bat_mib(reader->bitmap) << 20) +
				    block * sizeof(bits), bits, sizeof(bits), &err), &err);
	if (state >= VHDX_BLOCK_FULLY_PRESENT)
		check(vc_image_read(reader->image, "data", place, data, sizeof(data), &err),
		      &err);
	for (i = 0; i < BLOCK_SECTORS; i++) {
		bool here = state == VHDX_BLOCK_FULLY_PRESENT ||
			    (state == VHDX_BLOCK_PARTIALLY_PRESENT && bits[i / 8] >> i % 8 & 1);

		if (here) {
			sector_fill(expected, model[i]);
			if (model[i] == ABSENT || memcmp(expected, data + 512 * i, 512))
				return false;
		} else if (model[i] != (state == VHDX_BLOCK_ZERO ? ZEROS : ABSENT)) {
			return false;
		}
	}
	return true;
}

/* The number of the commit that the image shows, at least @least. */
static int find_model(const char *path, unsigned int least)
{
	struct reader reader = { };
	struct vc_usage usage;
	struct vc_image *image;
	struct vc_err err;
	unsigned int i;
	u32 block;

	check(vc_image_open(&image, path, VC_IMAGE_REPLAY, NULL, &err), &err);
	reader.image = image;
	check(vc_image_walk(image, &usage, reader_entry, &reader, &err), &err);
	vc_usage_free(&usage);
	for (i = least; i <= COMMITS; i++) {
		for (block = 0; block < BLOCKS; block++)
			if (!block_is(&reader, block, models[i] + block * BLOCK_SECTORS))
				break;
		if (block == BLOCKS)
			break;
	}
	vc_image_close(image);
	return i <= COMMITS ? (int)i : -1;
}

/* ---- changes -------------------------------------------------------------------- */

static void write_sectors(struct vc_image *image, u64 mib, u32 first, u32 nr, u32 what)
{
	u8 *buf = malloc(512 * nr);
	struct vc_err err;
	u32 i;

	for (i = 0; i < nr; i++)
		sector_fill(buf + 512 * i, what);
	check(vc_file_write(&image->file, "data", (mib << 20) + 512 * first, buf, 512 * nr,
			    &err), &err);
	free(buf);
}

static void set_model(u32 *model, u32 nr, u32 what)
{
	while (nr--)
		*model++ = what;
}

/* Data to sectors that the block does not have yet. */
static void change_partial(struct vc_edit *edit, struct vc_image *image, u32 block,
			   u32 *model, u32 what)
{
	u64 entry = vc_edit_block(edit, block);
	u32 first = number(BLOCK_SECTORS);
	u32 nr = 1 + number(BLOCK_SECTORS - first);
	u64 mib = vhdx_bat_mib(entry);
	struct vc_err err;
	u32 i;

	if (vhdx_bat_state(entry) == VHDX_BLOCK_NOT_PRESENT) {
		check(vc_edit_alloc(edit, 1, &mib, &err), &err);
		check(vc_edit_set_block(edit, block, VHDX_BLOCK_PARTIALLY_PRESENT, mib, &err),
		      &err);
	}
	for (i = first; i < first + nr && model[i] == ABSENT; i++)
		;
	if (i == first)
		return;
	write_sectors(image, mib, first, i - first, what);
	check(vc_edit_set_bits(edit, block * BLOCK_SECTORS + first, i - first, true, &err), &err);
	set_model(model + first, i - first, what);
}

static void change(struct vc_edit *edit, struct vc_image *image, u32 *model, u32 what)
{
	u32 block = number(BLOCKS);
	unsigned int state = vhdx_bat_state(vc_edit_block(edit, block));
	struct vc_err err;
	u64 mib;

	model += block * BLOCK_SECTORS;
	switch (number(5)) {
	case 0:
		check(vc_edit_alloc(edit, 1, &mib, &err), &err);
		write_sectors(image, mib, 0, BLOCK_SECTORS, what);
		check(vc_edit_set_block(edit, block, VHDX_BLOCK_FULLY_PRESENT, mib, &err), &err);
		set_model(model, BLOCK_SECTORS, what);
		break;
	case 1:
		check(vc_edit_set_block(edit, block, VHDX_BLOCK_ZERO, 0, &err), &err);
		set_model(model, BLOCK_SECTORS, ZEROS);
		break;
	case 2:
		check(vc_edit_set_block(edit, block, VHDX_BLOCK_NOT_PRESENT, 0, &err), &err);
		set_model(model, BLOCK_SECTORS, ABSENT);
		break;
	default:
		if (state == VHDX_BLOCK_NOT_PRESENT || state == VHDX_BLOCK_PARTIALLY_PRESENT)
			change_partial(edit, image, block, model, what);
	}
}

static struct vc_image *open_for_edit(const char *path)
{
	struct vc_image *image;
	struct vc_err err;

	check(vc_image_open(&image, path, VC_IMAGE_WRITE, NULL, &err), &err);
	return image;
}

static void change_all(const char *path)
{
	static const char name[] = "renamed by test-edit";
	struct vc_image *image = open_for_edit(path);
	struct vc_locator *locator = image->locator;
	struct vc_edit *edit;
	struct vc_err err;
	u32 what = 2;
	u32 length;
	void *item;
	u32 i, n;

	check(vc_edit_begin(&edit, image, &err), &err);
	for (i = 1; i <= COMMITS; i++) {
		memcpy(models[i], models[i - 1], sizeof(models[i]));
		for (n = 1 + number(4); n; n--)
			change(edit, image, models[i], what++);
		if (i % 8 == 3)
			vc_edit_touch_data(edit);
		/* A longer locator must move. */
		if (i % 8 == 5) {
			check(vc_locator_add(locator, "renamed", name, &err), &err);
			check(vc_locator_build(locator, &item, &length, &err), &err);
			check(vc_edit_set_item(edit, VHDX_ITEM_PARENT_LOCATOR, item, length,
					       &err), &err);
			free(item);
			locator->nr_pairs--;
			free(locator->pairs[locator->nr_pairs].key);
			free(locator->pairs[locator->nr_pairs].value);
		}
		check(vc_edit_commit(edit, &err), &err);
		record(OP_COMMITTED, i, NULL, 0);
	}
	check(vc_edit_end(edit, &err), &err);
	vc_image_close(image);
}

/* ---- the power fails ------------------------------------------------------------ */

static void apply(int fd, const struct op *op, bool whole)
{
	size_t len = op->len;

	if (op->kind == OP_SIZE)
		assert_int_equal(__real_ftruncate64(fd, op->offset), 0);
	if (op->kind != OP_WRITE)
		return;
	if (!whole) {
		if (number(2))
			return;
		if (number(2))
			len = number(len / 512 + 1) * 512;
	}
	assert_int_equal(__real_pwrite64(fd, op->data, len, op->offset), (ssize_t)len);
}

static unsigned int crash(const char *before, const char *path, unsigned int at)
{
	unsigned int flushed = 0;
	unsigned int least = 0;
	unsigned int i;
	char cmd[256];
	int found;
	int fd;

	snprintf(cmd, sizeof(cmd), "cp --sparse=always %s %s", before, path);
	assert_int_equal(system(cmd), 0);
	fd = open(path, O_RDWR);
	assert_true(fd >= 0);
	for (i = 0; i < at; i++) {
		if (ops[i].kind == OP_FLUSH)
			flushed = i;
		if (ops[i].kind == OP_COMMITTED)
			least = ops[i].offset;
	}
	for (i = 0; i < at; i++)
		apply(fd, &ops[i], i < flushed);
	close(fd);
	found = find_model(path, least);
	if (found < 0)
		fail_msg("a crash at operation %u of %u shows no commit from %u on", at, nr_ops,
			 least);
	return found;
}

static void test_power_fails(void **state __always_unused)
{
	char dir[] = "/dev/shm/test-edit.XXXXXX";
	struct vc_log_report report;
	struct vc_image *image;
	char cmd[256];
	struct vc_err err;
	unsigned int i;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	make("base", "delta.vhdx", DISK);
	assert_int_equal(system("cp delta.vhdx before.vhdx"), 0);
	recording = true;
	change_all("delta.vhdx");
	recording = false;
	assert_int_equal(find_model("delta.vhdx", COMMITS), COMMITS);
	/* What was released was used again: no more than every block twice. */
	image = open_for_edit("delta.vhdx");
	assert_true(image->file.size <= (5 + 2 * BLOCKS) * VHDX_MIB);
	vc_image_close(image);
	for (i = 0; i <= nr_ops; i += 1 + number(6))
		crash("before.vhdx", "crashed.vhdx", i);
	/* And on disk as in memory. */
	crash("before.vhdx", "crashed.vhdx", nr_ops / 2);
	check(vc_image_open(&image, "crashed.vhdx", VC_IMAGE_WRITE | VC_IMAGE_HEADERS, NULL,
			    &err), &err);
	check(vc_log_recover(image, &report, &err), &err);
	vc_image_close(image);
	assert_true(find_model("crashed.vhdx", 0) > 0);
	for (i = 0; i < nr_ops; i++)
		free(ops[i].data);
	assert_int_equal(chdir("/"), 0);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	assert_int_equal(system(cmd), 0);
}

static void test_abort_leaves_all(void **state __always_unused)
{
	char dir[] = "/dev/shm/test-edit.XXXXXX";
	struct vc_image *image;
	struct vc_edit *edit;
	struct vc_err err;
	char cmd[256];
	u64 mib;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	make("base", "delta.vhdx", DISK);
	assert_int_equal(system("cp delta.vhdx before.vhdx"), 0);
	image = open_for_edit("delta.vhdx");
	check(vc_edit_begin(&edit, image, &err), &err);
	check(vc_edit_alloc(edit, 9, &mib, &err), &err);
	check(vc_edit_set_block(edit, 0, VHDX_BLOCK_FULLY_PRESENT, mib, &err), &err);
	vc_edit_abort(edit);
	check(vc_edit_begin(&edit, image, &err), &err);
	check(vc_edit_end(edit, &err), &err);
	/* Nor does space that was taken and never named. */
	check(vc_edit_begin(&edit, image, &err), &err);
	check(vc_edit_alloc(edit, 9, &mib, &err), &err);
	check(vc_edit_end(edit, &err), &err);
	vc_image_close(image);
	assert_int_equal(system("cmp delta.vhdx before.vhdx"), 0);
	assert_int_equal(chdir("/"), 0);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	assert_int_equal(system(cmd), 0);
}

/* What could not be read, or kept, is not known: others go on after such an error. */
static void test_pages_after_errors(void **state __always_unused)
{
	const u64 page = VHDX_SECTORS_PER_PAGE;
	char dir[] = "/dev/shm/test-edit.XXXXXX";
	struct vc_image *image;
	struct vc_edit *edit;
	struct vc_err err;
	char cmd[256];
	u8 byte = 0;
	u64 i;

	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir(dir), 0);
	make("base", "delta.vhdx", 40 * page * 512);
	image = open_for_edit("delta.vhdx");
	check(vc_edit_begin(&edit, image, &err), &err);
	for (i = 0; i < 40; i++) {
		/* Each time that there is no room, and more often. */
		fail_realloc = true;
		vc_edit_set_bits(edit, i * page, 1, true, &err);
		vc_edit_set_bits(edit, i * page, 1, true, &err);
		fail_realloc = false;
		check(vc_edit_set_bits(edit, i * page, 1, true, &err), &err);
	}
	check(vc_edit_end(edit, &err), &err);

	check(vc_edit_begin(&edit, image, &err), &err);
	fail_read = true;
	assert_int_equal(vc_edit_set_bits(edit, 1, 1, true, &err), -EIO);
	fail_read = false;
	check(vc_edit_set_bits(edit, 2, 1, true, &err), &err);
	i = vhdx_bat_mib(vc_edit_bitmap_block(edit, 0)) << VHDX_MIB_SHIFT;
	check(vc_edit_end(edit, &err), &err);
	check(vc_image_read(image, "bits", i, &byte, 1, &err), &err);
	assert_int_equal(byte, 5);
	vc_image_close(image);
	assert_int_equal(chdir("/"), 0);
	snprintf(cmd, sizeof(cmd), "rm -r %s", dir);
	assert_int_equal(system(cmd), 0);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_power_fails),
		cmocka_unit_test(test_abort_leaves_all),
		cmocka_unit_test(test_pages_after_errors),
	};

	return cmocka_run_group_tests_name("edit", tests, NULL, NULL);
}
