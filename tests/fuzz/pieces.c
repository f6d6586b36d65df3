// SPDX-License-Identifier: GPL-2.0-or-later
/* Images as lists of pieces: see fuzz.h. */
#define _GNU_SOURCE
#include "fuzz.h"
#include "vhd-format.h"

#define PIECE_HEAD	6U
#define ENTRY_HEAD	64U		/* of a log entry, before its descriptors */
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

static void put_sum(u64 at, u32 sum)
{
	u8 bytes[4];

	put32(bytes, sum);
	fuzz_file_put(at, bytes, sizeof(bytes));
}

/* The checksum of @len bytes, in which bytes 4 to 7 count as zeros. */
static u32 sum_of(const u8 *buf, size_t len)
{
	static const u8 zeros[4];
	u32 crc = vhdx_crc32c_step(~0U, buf, 4);

	crc = vhdx_crc32c_step(crc, zeros, 4);
	return ~vhdx_crc32c_step(crc, buf + 8, len - 8);
}

static void seal_at(u64 offset, size_t len)
{
	const u8 *buf = fuzz_file_bytes(offset, len);

	if (buf)
		put_sum(offset + 4, sum_of(buf, len));
}

/* Entries may wrap. */
static void seal_log(void)
{
	static u8 first[FUZZ_PAGE];
	const struct vhdx_header *header;
	u32 work = LOG_WORK;
	const u8 *ring;
	u32 length;
	u64 offset;
	u32 entry;
	u32 crc;
	u32 pos;
	u32 n;

	header = (const void *)fuzz_file_bytes(VHDX_HEADER1_OFFSET, VHDX_HEADER_SIZE);
	if (!header)
		return;
	length = le32_to_cpu(header->log_length);
	offset = le64_to_cpu(header->log_offset);
	if (!length || length % VHDX_LOG_SECTOR)
		return;
	ring = fuzz_file_bytes(offset, length);
	if (!ring)
		return;
	for (pos = 0; pos < length; pos += VHDX_LOG_SECTOR) {
		if (memcmp(ring + pos, "loge", 4))
			continue;
		entry = get32(ring + pos + 8);
		if (!entry || entry % VHDX_LOG_SECTOR || entry > length || entry > work)
			continue;
		work -= entry;
		memcpy(first, ring + pos, sizeof(first));
		put32(first + 4, 0);
		crc = vhdx_crc32c_step(~0U, first, sizeof(first));
		n = length - pos < entry ? length - pos : entry;
		crc = vhdx_crc32c_step(crc, ring + pos + FUZZ_PAGE, n - FUZZ_PAGE);
		crc = vhdx_crc32c_step(crc, ring, entry - n);
		put_sum(offset + pos + 4, ~crc);
	}
}

static void seal_vhd(u64 end)
{
	const u64 footers[] = { 0, end - VHD_FOOTER_SIZE };
	const struct vhd_footer *footer;
	const struct vhd_header *header;
	unsigned int i;
	__be32 sum;
	u64 at;

	for (i = 0; i < ARRAY_SIZE(footers); i++) {
		footer = (const void *)fuzz_file_bytes(footers[i], sizeof(*footer));
		if (!footer || !vhd_footer_is(footer))
			continue;
		sum = cpu_to_be32(vhd_footer_checksum(footer));
		fuzz_file_put(footers[i] + offsetof(struct vhd_footer, checksum), &sum,
			      sizeof(sum));
		at = be64_to_cpu(footer->header_offset);
		header = (const void *)fuzz_file_bytes(at, sizeof(*header));
		if (!header)
			continue;
		sum = cpu_to_be32(vhd_header_checksum(header));
		fuzz_file_put(at + offsetof(struct vhd_header, checksum), &sum, sizeof(sum));
	}
}

void fuzz_write(const struct fuzz_image *image)
{
	const struct fuzz_piece *piece = image->piece;
	u64 end = (u64)image->mib << 20;
	unsigned int i;
	size_t len;

	fuzz_file_reset(end, image->fix & CAN_ZERO);
	for (i = 0; i < image->nr; i++, piece++) {
		if (piece->at >= end)
			continue;
		len = piece->len < end - piece->at ? piece->len : end - piece->at;
		fuzz_file_put(piece->at, piece->data, len);
	}
	if (image->fix & FIX_HEADERS) {
		seal_at(VHDX_HEADER1_OFFSET, VHDX_HEADER_SIZE);
		seal_at(VHDX_HEADER2_OFFSET, VHDX_HEADER_SIZE);
	}
	if (image->fix & FIX_REGIONS) {
		seal_at(VHDX_REGION_TABLE1_OFFSET, VHDX_REGION_TABLE_SIZE);
		seal_at(VHDX_REGION_TABLE2_OFFSET, VHDX_REGION_TABLE_SIZE);
	}
	if (image->fix & FIX_LOG)
		seal_log();
	if (image->fix & FIX_VHD)
		seal_vhd(end);
}

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

/* A length or a place that is one too much or too little, and looks right otherwise. */
static u32 one_off(u32 value, u32 step)
{
	return value + step * (chance(2) ? 1 : -1);
}

/* The first piece from @i on, going round, that holds a log entry's header. */
static struct fuzz_piece *find_entry(struct fuzz_image *image, unsigned int i)
{
	struct fuzz_piece *piece;
	unsigned int n;

	for (n = 0; n < image->nr; n++) {
		piece = &image->piece[(i + n) % image->nr];
		if (piece->len >= ENTRY_HEAD && piece->at % VHDX_LOG_SECTOR == 0 &&
		    !memcmp(piece->data, "loge", 4))
			return piece;
	}
	return NULL;
}

/*
 * A log entry whose length, descriptors and data do not quite agree, or whose tail is
 * another.
 */
static bool change_entry(struct fuzz_image *image, unsigned int i)
{
	struct fuzz_piece *piece = find_entry(image, i);
	u32 count;
	u32 room;
	u8 *desc;

	if (!piece)
		return false;
	memcpy(own, piece->data, piece->len);
	count = get32(own + 24);
	room = (piece->len - ENTRY_HEAD) / 32;
	desc = own + ENTRY_HEAD + 32 * chance(room < count ? room : count);
	switch (chance(6)) {
	case 0:
		put32(own + 8, one_off(get32(own + 8), VHDX_LOG_SECTOR));
		break;
	case 1:
		put32(own + 12, one_off(get32(own + 12), VHDX_LOG_SECTOR * chance(4)));
		break;
	case 2:
		put32(own + 24, one_off(count, 1));
		break;
	case 3:
		/* One more that is as good as the last. */
		if (!count || count > room || count >= VHDX_LOG_FIRST_DESCRIPTORS)
			return false;
		desc = own + ENTRY_HEAD + 32 * count;
		memcpy(desc, desc - 32, 32);
		put32(own + 24, count + 1);
		if (piece->len < ENTRY_HEAD + 32 * (count + 1))
			piece->len = ENTRY_HEAD + 32 * (count + 1);
		break;
	case 4:
		/* The sizes of the file. */
		put32(own + 48 + 8 * chance(2), one_off((u32)image->mib << 20, 1 << 20));
		break;
	default:
		if (!count || !room)
			return false;
		memcpy(desc, memcmp(desc, "zero", 4) ? "zero" : "desc", 4);
	}
	piece->data = own;
	return true;
}

/*
 * A block of the BAT at the end of the file, or around it.  What is a BAT cannot be
 * told, but its entries look like nothing else.
 */
static bool change_place(struct fuzz_piece *piece, u32 mib)
{
	u32 nr = piece->len / 8;
	u32 first;
	u32 entry;
	u32 n;
	u8 *at;

	if (!nr)
		return false;
	memcpy(own, piece->data, piece->len);
	first = chance(nr);
	for (n = 0; n < nr; n++) {
		at = own + 8 * ((first + n) % nr);
		entry = get32(at);
		if (get32(at + 4) || !(entry >> 20) || entry >> 20 > 2 * FUZZ_MAX_MIB ||
		    !(entry & 7) || entry & 0xffff8)
			continue;
		put32(at, (mib + chance(4) - 2) << 20 | (entry & 7));
		piece->data = own;
		return true;
	}
	return false;
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
		image.fix = chance(32);
		if (chance(4))
			image.fix |= FIX_ALL;
		break;
	case 5:
	case 6:
		if (!change_entry(&image, i))
			change_piece(&image.piece[i]);
		break;
	case 7:
		if (!change_place(&image.piece[i], image.mib))
			change_piece(&image.piece[i]);
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
