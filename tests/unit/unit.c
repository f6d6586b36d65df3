// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the unit tests of the VHDX format share.
 */
#include "unit.h"

#define UNIT_POISON	{ "untouched", 0xbad0bad0bad0ULL, 0xbad0bad0bad0ULL }

static const struct vhdx_fault unit_poison = UNIT_POISON;
struct vhdx_fault unit_fault = UNIT_POISON;

const struct vhdx_region unit_bat_region = {
	.offset = 3 * VHDX_MIB, .length = VHDX_MIB, .required = true
};

const struct vhdx_region unit_metadata_region = {
	.offset = 2 * VHDX_MIB, .length = VHDX_MIB, .required = true
};

void unit_assert_ok(int rc, const char *file, int line)
{
	if (rc)
		print_message("fault: %s at 0x%llx\n", unit_fault.what,
			      (unsigned long long)unit_fault.offset);
	_assert_int_equal(rc, 0, file, line);
	unit_fault = unit_poison;
}

void unit_assert_fault(int rc, int err, const char *what, u64 at, const char *file,
		       int line)
{
	_assert_int_equal(rc, err, file, line);
	_assert_string_equal(unit_fault.what, what, file, line);
	_assert_int_equal(unit_fault.offset, at, file, line);
	/* Whatever the value is, somebody must have thought of it. */
	_assert_true(unit_fault.value != unit_poison.value, "fault has a value", file, line);
	unit_fault = unit_poison;
}

u32 unit_crc32c(const void *buf, size_t size)
{
	const u8 *p = buf;
	u32 crc = ~0U;
	unsigned int k;

	while (size--) {
		crc ^= *p++;
		for (k = 0; k < 8; k++)
			crc = (crc >> 1) ^ (0x82f63b78U & -(crc & 1));
	}
	return ~crc;
}

void unit_seal(void *buf, size_t size)
{
	unit_put32((u8 *)buf + 4, 0);
	unit_put32((u8 *)buf + 4, unit_crc32c(buf, size));
}

void unit_put16(void *p, u16 x)
{
	u8 *b = p;

	b[0] = x;
	b[1] = x >> 8;
}

void unit_put32(void *p, u32 x)
{
	unit_put16(p, x);
	unit_put16((u8 *)p + 2, x >> 16);
}

void unit_put64(void *p, u64 x)
{
	unit_put32(p, x);
	unit_put32((u8 *)p + 4, x >> 32);
}

u32 unit_get32(const void *p)
{
	const u8 *b = p;

	return b[0] | b[1] << 8 | b[2] << 16 | (u32)b[3] << 24;
}

u64 unit_get64(const void *p)
{
	return unit_get32(p) | (u64)unit_get32((const u8 *)p + 4) << 32;
}

void unit_random(void *buf, size_t size, u64 seed)
{
	u8 *p = buf;

	while (size--) {
		seed ^= seed << 13;
		seed ^= seed >> 7;
		seed ^= seed << 17;
		*p++ = seed >> 32;
	}
}

void unit_header_info(struct vhdx_header_info *info, unsigned int slot)
{
	*info = (struct vhdx_header_info) {
		.slot = slot,
		.other_valid = true,
		.sequence_number = 10 + slot,
		.file_write_guid = { { 0xae, 0x16, 0x51, 0x06, 0x3f, 0xd5, 0x8b, 0x48,
				       0x9d, 0x32, 0x69, 0x4f, 0x56, 0xf2, 0xb9, 0xca } },
		.data_write_guid = { { 0x82, 0x76, 0xe3, 0xe9, 0x27, 0x82, 0xa7, 0x44,
				       0x86, 0x48, 0x39, 0xcb, 0x9f, 0x52, 0xe5, 0xe6 } },
		.log_offset = VHDX_MIB,
		.log_length = VHDX_MIB,
	};
}

void *unit_load_image(const char *name, size_t *size)
{
	const char *dir = getenv("VHDCLONE_IMAGES");
	size_t room = 0;
	char path[4096];
	char command[4200];
	u8 *image = NULL;
	size_t n;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir ? dir : "../shared/images", name);
	f = fopen(path, "rb");
	if (!f) {
		print_message("%s is not there\n", path);
		return NULL;
	}
	fclose(f);

	snprintf(command, sizeof(command), "%s -dc '%s'",
		 strstr(name, ".xz") ? "xz" : "bzip2", path);
	f = popen(command, "r");
	assert_non_null(f);
	*size = 0;
	do {
		if (*size == room) {
			room += 16 * VHDX_MIB;
			image = realloc(image, room);
			assert_non_null(image);
		}
		n = fread(image + *size, 1, room - *size, f);
		*size += n;
	} while (n);
	assert_int_equal(pclose(f), 0);
	return image;
}
