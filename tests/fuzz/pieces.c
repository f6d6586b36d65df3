// SPDX-License-Identifier: GPL-2.0-or-later
/* Images as lists of pieces: see fuzz.h. */
#define _GNU_SOURCE
#include "fuzz.h"

#define PIECE_HEAD	6U
#define LOG_WORK	(4U << 20)	/* bytes of entries that are sealed, at most */

static u32 get32(const u8 *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (u32)p[3] << 24;
}

static void put32(u8 *p, u32 value)
{
	p[0] = value;
	p[1] = value >> 8;
	p[2] = value >> 16;
	p[3] = value >> 24;
}

bool fuzz_parse(const u8 *data, size_t size, struct fuzz_image *image)
{
	struct fuzz_piece *piece;

	if (size < 2)
		return false;
	image->fix = data[0];
	image->mib = data[1] % (FUZZ_MAX_MIB + 1);
	image->nr = 0;
	data += 2;
	size -= 2;
	while (size > PIECE_HEAD && image->nr < FUZZ_MAX_PIECES) {
		piece = &image->piece[image->nr++];
		piece->at = get32(data) % (FUZZ_MAX_MIB << 20);
		piece->len = data[4] | data[5] << 8;
		if (piece->len > FUZZ_MAX_PIECE)
			piece->len = FUZZ_MAX_PIECE;
		if (piece->len > size - PIECE_HEAD)
			piece->len = size - PIECE_HEAD;
		piece->data = data + PIECE_HEAD;
		data += PIECE_HEAD + piece->len;
		size -= PIECE_HEAD + piece->len;
	}
	return true;
}

size_t fuzz_print(const struct fuzz_image *image, u8 *out, size_t room)
{
	const struct fuzz_piece *piece = image->piece;
	size_t used = 2;
	unsigned int i;

	if (room < 2)
		return 0;
	out[0] = image->fix;
	out[1] = image->mib;
	for (i = 0; i < image->nr; i++, piece++) {
		if (!piece->len || piece->len > room - used ||
		    room - used - piece->len < PIECE_HEAD)
			continue;
		put32(out + used, piece->at);
		out[used + 4] = piece->len;
		out[used + 5] = piece->len >> 8;
		memcpy(out + used + PIECE_HEAD, piece->data, piece->len);
		used += PIECE_HEAD + piece->len;
	}
	return used;
}

void fuzz_seal(u8 *buf, size_t len)
{
	put32(buf + 4, 0);
	put32(buf + 4, ~vhdx_crc32c_step(~0U, buf, len));
}

static void seal_at(int fd, u64 offset, size_t len)
{
	static u8 buf[VHDX_REGION_TABLE_SIZE];

	if (pread(fd, buf, len, offset) != (ssize_t)len)
		return;
	fuzz_seal(buf, len);
	fuzz_assert(pwrite(fd, buf + 4, 4, offset + 4) == 4);
}

/* Entries may wrap: the ring is sealed in memory. */
static void seal_log(int fd)
{
	static u8 sector[VHDX_LOG_SECTOR];
	u32 work = LOG_WORK;
	u8 head[VHDX_HEADER_SIZE];
	u32 length;
	u64 offset;
	u32 entry;
	u32 crc;
	u32 pos;
	u32 i;

	if (pread(fd, head, sizeof(head), VHDX_HEADER1_OFFSET) != sizeof(head))
		return;
	length = le32_to_cpu(((struct vhdx_header *)head)->log_length);
	offset = le64_to_cpu(((struct vhdx_header *)head)->log_offset);
	if (!length || length % VHDX_LOG_SECTOR || length > FUZZ_MAX_MIB << 20)
		return;
	for (pos = 0; pos < length; pos += VHDX_LOG_SECTOR) {
		if (pread(fd, head, 16, offset + pos) != 16)
			return;
		entry = get32(head + 8);
		if (memcmp(head, "loge", 4) || !entry || entry % VHDX_LOG_SECTOR ||
		    entry > length || entry > work)
			continue;
		work -= entry;
		crc = ~0U;
		for (i = 0; i < entry; i += VHDX_LOG_SECTOR) {
			if (pread(fd, sector, sizeof(sector), offset + (pos + i) % length) !=
			    sizeof(sector))
				return;
			if (!i)
				put32(sector + 4, 0);
			crc = vhdx_crc32c_step(crc, sector, sizeof(sector));
		}
		put32(head, ~crc);
		fuzz_assert(pwrite(fd, head, 4, offset + pos + 4) == 4);
	}
}

void fuzz_write(const struct fuzz_image *image, int fd)
{
	const struct fuzz_piece *piece = image->piece;
	u64 end = (u64)image->mib << 20;
	unsigned int i;
	size_t len;

	fuzz_assert(!ftruncate(fd, 0));
	fuzz_assert(!ftruncate(fd, end));
	for (i = 0; i < image->nr; i++, piece++) {
		if (piece->at >= end)
			continue;
		len = piece->len < end - piece->at ? piece->len : end - piece->at;
		fuzz_assert(pwrite(fd, piece->data, len, piece->at) == (ssize_t)len);
	}
	if (image->fix & FIX_HEADERS) {
		seal_at(fd, VHDX_HEADER1_OFFSET, VHDX_HEADER_SIZE);
		seal_at(fd, VHDX_HEADER2_OFFSET, VHDX_HEADER_SIZE);
	}
	if (image->fix & FIX_REGIONS) {
		seal_at(fd, VHDX_REGION_TABLE1_OFFSET, VHDX_REGION_TABLE_SIZE);
		seal_at(fd, VHDX_REGION_TABLE2_OFFSET, VHDX_REGION_TABLE_SIZE);
	}
	if (image->fix & FIX_LOG)
		seal_log(fd);
}

#ifndef NO_MUTATOR

/* ---- the mutator -------------------------------------------------------------- */

static u32 state;

static u32 chance(u32 n)
{
	state = state * 1664525 + 1013904223;
	return (u64)(state >> 4) * n >> 28;
}

static const u64 interesting[] = {
	0, 1, 2, 3, 4, 5, 6, 7, 0x7f, 0x80, 0xff, 0x1ff, 512, 4095, 4096, 4097, 0xffff,
	0x10000, 0x10001, 0xfffff, 0x100000, 0x100001, 0x200000, 0x10000000, 0x7fffffff,
	0x80000000, 0xffffffff, 0x100000000, 0xfffff00000, 0x400000000000,
	0x7fffffffffffffff, 0x8000000000000000, 0xfffffffffff00000, 0xffffffffffffffff,
};

/* One field: a number that means something, or the old one and a bit. */
static void change_field(u8 *data, u32 len)
{
	u32 width = 1U << chance(4);
	u64 value = 0;
	u32 at;

	if (len < width)
		return;
	at = chance(len / width) * width;
	memcpy(&value, data + at, width);
	switch (chance(4)) {
	case 0:
		value += chance(2) ? 1 : -1;
		break;
	case 1:
		value ^= 1ULL << chance(8 * width);
		break;
	case 2:
		value += interesting[chance(ARRAY_SIZE(interesting))] *
			 (chance(2) ? 1 : -1);
		break;
	default:
		value = interesting[chance(ARRAY_SIZE(interesting))];
	}
	memcpy(data + at, &value, width);
}

static u8 own[FUZZ_MAX_PIECE];

static void change_piece(struct fuzz_piece *piece)
{
	u32 times = 1 + chance(4);

	memcpy(own, piece->data, piece->len);
	if (!chance(4)) {
		piece->len = LLVMFuzzerMutate(own, piece->len,
					      chance(8) ? piece->len : FUZZ_MAX_PIECE);
	} else {
		while (times--)
			change_field(own, piece->len);
	}
	piece->data = own;
}

static void move_piece(struct fuzz_piece *piece)
{
	static const int steps[] = { 8, 32, 4096, 65536, 1 << 20 };
	u32 step = steps[chance(ARRAY_SIZE(steps))];

	piece->at += chance(2) ? step : -step;
}

/* A log entry's place may be named by another, so it is copied rather than moved. */
static void copy_piece(struct fuzz_image *image, unsigned int i)
{
	if (image->nr == FUZZ_MAX_PIECES)
		return;
	image->piece[image->nr] = image->piece[i];
	move_piece(&image->piece[image->nr++]);
}

size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t max, unsigned int seed)
{
	static u8 copy[1 << 20];
	struct fuzz_image image;
	unsigned int i;

	state = seed;
	if (size > sizeof(copy))
		size = sizeof(copy);
	memcpy(copy, data, size);
	if (!fuzz_parse(copy, size, &image) || !image.nr)
		return LLVMFuzzerMutate(data, size, max);
	i = chance(image.nr);
	switch (chance(16)) {
	case 0:
		image.piece[i] = image.piece[--image.nr];
		break;
	case 1:
		copy_piece(&image, i);
		break;
	case 2:
		move_piece(&image.piece[i]);
		break;
	case 3:
		image.mib = chance(FUZZ_MAX_MIB + 1);
		break;
	case 4:
		image.fix = chance(4) ? FIX_ALL : chance(8);
		break;
	default:
		change_piece(&image.piece[i]);
	}
	return fuzz_print(&image, data, max);
}

/* Some pieces of the one, some of the other; the later one wins where they overlap. */
size_t LLVMFuzzerCustomCrossOver(const u8 *a, size_t a_size, const u8 *b, size_t b_size,
				 u8 *out, size_t room, unsigned int seed)
{
	struct fuzz_image image;
	struct fuzz_image other;
	unsigned int i;

	state = seed;
	if (!fuzz_parse(a, a_size, &image) || !fuzz_parse(b, b_size, &other))
		return 0;
	for (i = 0; i < other.nr && image.nr < FUZZ_MAX_PIECES; i++)
		if (chance(2))
			image.piece[image.nr++] = other.piece[i];
	if (other.mib > image.mib)
		image.mib = other.mib;
	return fuzz_print(&image, out, room);
}

#endif /* NO_MUTATOR */
