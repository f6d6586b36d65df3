// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Hostile images: mutates images in memory, has the target open each, and looks at what
 * it does.
 *
 *	hostile [-s SEED] [-f FIRST] [-n COUNT] [-t SECONDS] [-w MIB] [-vx] SCENE...
 *
 * A scene is a directory with layers 0.vhdx, 1.vhdx ... N.raw, top first, as good images.
 * Case N of a seed is always the same one: -f N -n 1 -v repeats it, alone.
 *
 * One to three things in an image, or in the table line, are changed, mostly to what is
 * nearly right, and then the checksums are put right again.  The table line mostly follows
 * the image, as the tool would have it.  Then the image is either
 *
 *	refused		and neither it nor a base was written to; or
 *	served		and every sector reads as a reader of its own has it, also after
 *			writes, discards and a close; then the image is clean, and all in
 *			it that is not the target's to write is as before.
 *
 * Each device is a window between targets that fail: an I/O that left the image would be
 * an error, and no I/O to an image that was accepted may fail.  Bases are read-only, and
 * compared.  The kernel's log is read after each case.  -w: where all takes ten times as
 * long, so much of a disk is looked at, not 9 MiB; that is another case then.  -x: ends with
 * the first bad one.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "image.h"

#define MAX_LAYERS	4
#define MAX_SCENES	16
#define MAX_OPS		24
#define MAX_WINDOWS	8
#define MAX_REASONS	200
#define GUARD		(64 * MIB_SECTORS)
#define CHUNK		(256 * 1024)

struct layer {
	u8 *good;		/* as it was built */
	u8 *map;		/* what the loop device has */
	u8 *work;		/* what it had when the target got it */
	size_t size;
	bool raw;
	char low[40];		/* name of the window */
	char loop[32];
	char devno[32];
	u64 cut;		/* sectors that the window is too short by */
	struct image image;	/* of the work copy */
};

struct scene {
	const char *name;
	struct layer layer[MAX_LAYERS];
	unsigned int nr;
};

struct op {
	char kind;		/* 'w', 'z', 'd'; '?': a write that may have failed in part */
	u64 sector;
	u32 count;
	u32 nr;
};

static struct {
	struct scene scene[MAX_SCENES];
	unsigned int nr_scenes;
	u64 seed, number;
	u64 first_window;	/* MiB of the disk that are compared in any case */
	struct rng rng;

	struct scene *now;
	struct image had[MAX_LAYERS];
	unsigned int top;	/* the layer that the table begins with */
	unsigned int end;	/* behind the one that it ends with */
	bool read_only;
	bool lies;		/* the table says otherwise than an image */
	bool created;
	u64 window[MAX_WINDOWS][2];
	unsigned int nr_windows;
	struct op op[MAX_OPS];
	unsigned int nr_ops;

	char last_reason[256];
	char trouble[256];
	unsigned int accepted, written, refused, nr_reasons, lied;
	struct { char text[160]; unsigned int count; } reason[MAX_REASONS];
} h;

static const char clone_name[] = "hostile";

/* ---- mutations ---- */

static u64 pick(u64 below)
{
	return rng_below(&h.rng, below);
}

/* What is nearly right, or just beyond an end. */
static u64 odd_value(unsigned int bytes, u64 old)
{
	static const u64 values[] = {
		0, 1, 2, 3, 6, 7, 8, 255, 256, 511, 512, 513, 1023, 1024, 2047, 2048, 4095, 4096,
		4097, 65535, 65536, 65552, 0x100000, 0x100000 - 1, 0x100001, 0x200000, 0x300000,
		0x400000, 0x800000, 0x1000000, 0x2000000, 0x10000000, 0x20000000, 0x40000000,
		0x7fffffff, 0x80000000, 0xfff00000, 0xffffffff, 0x100000000, 0x4000000000,
		0x400000000000, 0x7fffffffffffffff, 0x8000000000000000, 0xfffffffffff00000,
		0xffffffffffffffff,
	};
	u64 v;

	switch (pick(6)) {
	case 0:
		v = old ^ 1ULL << pick(8 * bytes);
		break;
	case 1:
		v = old + pick(3) + 1;
		break;
	case 2:
		v = old - pick(3) - 1;
		break;
	case 3:
		v = rng_next(&h.rng) >> pick(64);
		break;
	default:
		v = values[pick(sizeof(values) / sizeof(*values))];
		break;
	}
	return bytes == 8 ? v : v & ((1ULL << 8 * bytes) - 1);
}

static u64 get(const u8 *p, unsigned int bytes)
{
	u64 v = 0;

	while (bytes--)
		v = v << 8 | p[bytes];
	return v;
}

static void change(struct layer *l, u64 at, unsigned int bytes, u64 value)
{
	if (at > l->size || l->size - at < bytes)
		return;
	note("layer %d: %u bytes at %#llx: %#llx -> %#llx", (int)(l - h.now->layer),
	     bytes, at, get(l->work + at, bytes), value);
	put(l->work + at, bytes, value);
}

static void change_odd(struct layer *l, u64 at, unsigned int bytes)
{
	if (at <= l->size && l->size - at >= bytes)
		change(l, at, bytes, odd_value(bytes, get(l->work + at, bytes)));
}

static void mutate_header(struct layer *l)
{
	static const struct { u8 at, bytes; } field[] = {
		{ 0, 4 }, { H_SEQ, 8 }, { H_FILE_WRITE, 8 }, { H_LOG_GUID, 8 }, { H_LOG_GUID, 8 },
		{ H_LOG_VERSION, 2 }, { H_VERSION, 2 }, { H_LOG_LENGTH, 4 }, { H_LOG_LENGTH, 4 },
		{ H_LOG_OFFSET, 8 }, { H_LOG_OFFSET, 8 }, { 200, 4 },
	};
	unsigned int i = pick(sizeof(field) / sizeof(*field));
	int slot = pick(3);
	u64 at = field[i].at, value;

	value = odd_value(field[i].bytes, get(l->work + HEADER(0) + at, field[i].bytes));
	/* Offsets and lengths are whole MiB, or nobody looks any further. */
	if ((at == H_LOG_LENGTH || at == H_LOG_OFFSET) && pick(3))
		value = pick(l->size / MIB + 3) * MIB;
	if (at == H_LOG_GUID && pick(2))
		value = 0;
	for (int k = 0; k < 2; k++)
		if (slot == 2 || slot == k)
			change(l, HEADER(k) + at, field[i].bytes, value);
	if (at == H_LOG_GUID && !value)
		for (int k = 0; k < 2; k++)
			change(l, HEADER(k) + at + 8, 8, 0);
}

static void mutate_regions(struct layer *l)
{
	u32 n = min(get32(l->work + REGIONS(0) + R_COUNT), 20U);
	u32 entry = R_ENTRIES + pick(n + 1) * E_SIZE;
	int copies = pick(3), what = pick(9);
	u64 value = odd_value(8, get64(l->work + REGIONS(0) + entry + E_OFFSET));

	if (pick(3))
		value = pick(l->size / MIB + 3) * MIB;
	/* Where another one is, or the log */
	if (!pick(3))
		value = get64(l->work + REGIONS(0) + R_ENTRIES + pick(n) * E_SIZE + E_OFFSET);
	if (!pick(6))
		value = l->image.log * SECTOR;
	for (int k = 0; k < 2; k++) {
		u8 *table = l->work + REGIONS(k);

		if (copies != 2 && copies != k)
			continue;
		switch (what) {
		case 0:
			change(l, REGIONS(k) + R_COUNT, 4, odd_value(4, n));
			break;
		case 1:
			change(l, REGIONS(k), 4, value);
			break;
		case 2:
			change(l, REGIONS(k) + entry, 8, value);
			break;
		case 3 ... 4:
			change(l, REGIONS(k) + entry + E_OFFSET, 8, value);
			break;
		case 5:
			change(l, REGIONS(k) + entry + E_LENGTH, 4, value);
			break;
		case 6:
			change(l, REGIONS(k) + entry + E_FLAGS, 4, value & 3);
			break;
		default:
			/* One more: another one's double, or a stranger. */
			memcpy(table + R_ENTRIES + n * E_SIZE, table + R_ENTRIES, E_SIZE);
			if (what == 8)
				put(table + R_ENTRIES + n * E_SIZE, 4, value);
			put(table + R_ENTRIES + n * E_SIZE + E_OFFSET, 8, value);
			put(table + R_ENTRIES + n * E_SIZE + E_FLAGS, 4, 0);
			change(l, REGIONS(k) + R_COUNT, 4, n + 1);
			break;
		}
	}
}

static void mutate_metadata(struct layer *l)
{
	struct image *img = &l->image;
	u64 table = img->metadata, entry, at;
	static const u8 size[NR_ITEMS] = { 4, 8, 8, 4, 4, 8 };
	u32 n, k;

	if (!table || table + TABLE_BYTES > l->size)
		return;
	n = get16(l->work + table + M_COUNT);
	n = min(n, 20U);
	entry = table + M_ENTRIES + pick(n + 1) * I_SIZE;
	k = pick(NR_ITEMS);
	switch (pick(13)) {
	case 0:
		change_odd(l, table + M_COUNT, 2);
		break;
	case 1:
		change_odd(l, table + pick(32), 1);
		break;
	case 2:
		change_odd(l, entry + pick(16), 1);
		break;
	case 3:
		change_odd(l, entry + I_OFFSET, 4);
		break;
	case 4:
		change_odd(l, entry + I_LENGTH, 4);
		break;
	case 5:
		change(l, entry + I_FLAGS, 4, pick(2) ? pick(8) : odd_value(4, 6));
		break;
	case 6:
		/* The double of an item */
		memcpy(l->work + table + M_ENTRIES + n * I_SIZE, l->work + table + M_ENTRIES +
		       pick(n) * I_SIZE, I_SIZE);
		change(l, table + M_COUNT, 2, n + 1);
		break;
	case 7:
		if (img->item[0])
			change(l, img->item[0] + 4, 4, pick(2) ? pick(4) : odd_value(4, 2));
		break;
	case 8:
		if (img->item[0])
			change(l, img->item[0], 4, 1U << (17 + pick(14)));
		break;
	case 9:
		/* Just what the BAT has entries for, or a little more; or a little odd */
		n = img->bat_bytes / 8;
		n -= n / (image_ratio(img) + 1) + 2;
		if (img->item[1])
			change(l, img->item[1], 8, !pick(3) ? pick(40 * MIB_SECTORS) * SECTOR :
			       img->block * SECTOR * (pick(2) ? n + pick(6) :
			       pick(1 << pick(21))) + pick(2) * SECTOR * pick(100));
		break;
	case 10:
		/* An item goes elsewhere: to the region's end, or behind it */
		at = (pick(2) ? img->metadata_bytes : MIB) + pick(4) * 8 - pick(4) * 4;
		if (!img->item[k] || img->metadata + at + 64 > l->size)
			break;
		memmove(l->work + img->metadata + at, l->work + img->item[k],
			min(img->item_bytes[k], 64U));
		for (entry = table + M_ENTRIES; n--; entry += I_SIZE)
			if (!memcmp(l->work + entry, guid_items[k], 16))
				change(l, entry + I_OFFSET, 4, at);
		break;
	default:
		if (img->item[k])
			change_odd(l, img->item[k], size[k]);
		break;
	}
}

static void mutate_locator(struct layer *l)
{
	u64 at = l->image.item[5];

	if (at)
		change_odd(l, at + pick(60), 1 << pick(3));
}

static u64 entry_place(struct layer *l)
{
	struct image *img = &l->image;
	u64 ratio = image_ratio(img), blocks = image_blocks(img), index;

	if (!img->block)
		return img->bat * SECTOR;
	switch (pick(8)) {
	case 0:
		index = (pick(blocks / ratio + 1) + 1) * ratio + pick(blocks / ratio + 1);
		break;
	case 1:
		index = blocks + blocks / ratio + pick(4);
		break;
	case 2:
		index = min(blocks, ratio) - pick(3);
		break;
	default:
		index = pick(min(blocks, 16UL));
		break;
	}
	return img->bat * SECTOR + index * 8;
}

static void mutate_bat(struct layer *l)
{
	u64 at = entry_place(l), other = entry_place(l), entry, mib, end = l->size / MIB;

	if (at + 8 > l->size || other + 8 > l->size)
		return;
	entry = get64(l->work + at);
	switch (pick(9)) {
	case 8:
		/* A chunk's bitmap: none, or in another's place. */
		at = l->image.bat * SECTOR + 8 * image_ratio(&l->image);
		if (at + 8 <= l->size)
			change(l, at, 8, pick(2) ? 0 : pick(2) ? entry : pick(end + 1) << 20 | 6);
		break;
	case 0:
		change(l, at, 8, (entry & ~7ULL) | pick(8));
		break;
	case 1:
		change(l, at, 8, get64(l->work + other));
		break;
	case 2:
		change(l, at, 8, entry | 1ULL << (3 + pick(17)));
		break;
	case 3:
		change_odd(l, at, 8);
		break;
	case 4:
		change(l, other, 8, entry);
		change(l, at, 8, 0);
		break;
	default:
		mib = pick(3) ? pick(end + 2) : pick(2) ? end - pick(5) :
		      rng_next(&h.rng) >> (20 + pick(44));
		change(l, at, 8, mib << 20 | (pick(3) ? 6 + pick(2) : pick(8)));
		break;
	}
}

/* Sectors up to somewhere in the last block that has a place; 0 if none has. */
static u64 end_of_data(struct layer *l)
{
	struct image *img = &l->image;
	u64 mib = 0;

	for (u64 i = 0; img->block && i < min(img->sectors / img->block + 1, 6000UL); i++) {
		u64 entry = image_entry(img, i);

		if ((entry & 7) >= 6 && entry >> 20 > mib && entry >> 20 < l->size / MIB)
			mib = entry >> 20;
	}
	return mib ? mib * MIB_SECTORS + pick(min(img->block, 8UL * MIB_SECTORS)) : 0;
}

/* The device ends before the image, or in the middle of something. */
static void cut(struct layer *l)
{
	u64 end = pick(2) ? end_of_data(l) : 0;

	if (end && end < l->size / SECTOR)
		l->cut = l->size / SECTOR - end;
	else
		l->cut = pick(3) ? pick(2 * MIB_SECTORS) : pick(l->size / SECTOR);
	/* Within a MiB only what is not written to may end. */
	if (pick(2))
		l->cut = (l->cut | (MIB_SECTORS - 1)) + 1;
	else
		h.read_only |= pick(2);
	l->cut &= ~7ULL;
	l->cut = min(l->cut, l->size / SECTOR - 8);
	note("layer %d: device is shorter by %llu sectors", (int)(l - h.now->layer),
	     l->cut);
}

/* Where nothing depends on it, or should not. */
static void mutate_noise(struct layer *l)
{
	u64 at = pick(l->size / MIB) * MIB + pick(MIB / 8) * 8;

	switch (pick(5)) {
	case 0:
		at = pick(MIB / 8) * 8;
		break;
	case 1:
		at = l->image.log * SECTOR + pick(4096);
		break;
	case 2:
		at = l->image.bat * SECTOR + pick(MIB / 8) * 8;
		break;
	case 3:
		/* Bits: all are right. */
		at = (image_bitmap_entry(&l->image, 0) >> 20) * MIB + pick(1024) * 8;
		break;
	}
	change_odd(l, at, 8);
}

static void mutate(struct layer *l)
{
	image_parse(&l->image);
	switch (pick(16)) {
	case 0 ... 1:
		mutate_header(l);
		break;
	case 2 ... 3:
		mutate_regions(l);
		break;
	case 4 ... 6:
		mutate_metadata(l);
		break;
	case 7:
		mutate_locator(l);
		break;
	case 8:
		mutate_noise(l);
		break;
	case 9:
		cut(l);
		break;
	default:
		mutate_bat(l);
		break;
	}
}

/* ---- the table ---- */

/* A part of a raw layer is no lie, if it is there. */
static void show_window(struct image *img, u64 first, u64 sectors)
{
	if (first > img->sectors || sectors > img->sectors - first)
		return;
	img->data += first * SECTOR;
	img->size = sectors * SECTOR;
	img->sectors = sectors;
}

/* The numbers of a layer; some are lies, and then *lied is set. */
static int print_layer(char *p, size_t size, struct layer *l, bool lie)
{
	struct image *img = &l->image;
	u64 v[6] = { img->sectors, img->block, img->lss, img->bat, img->log,
		     img->log_sectors }, true_value;

	if (l->raw) {
		u64 first = 0, n = img->sectors;

		if (lie) {
			first = odd_value(4, 0);
			n = odd_value(4, n);
			h.lied++;
			show_window(&h.had[l - h.now->layer], first, n);
		}
		return snprintf(p, size, " raw %s %llu %llu", l->devno, first, n);
	}
	if (lie) {
		unsigned int i = pick(6);

		true_value = v[i];
		v[i] = pick(2) ? odd_value(8, v[i]) : pick(16) * MIB_SECTORS;
		note("the table's word %u is %llu", i, v[i]);
		h.lied++;
		h.lies |= v[i] != true_value;
	}
	return snprintf(p, size, " vhdx %s %llu %llu %llu %llu %llu %llu", l->devno, v[0],
			v[1], v[2], v[3], v[4], v[5]);
}

static void make_table(char *p, size_t size)
{
	struct scene *s = h.now;
	bool lies = !pick(8);
	unsigned int n = 0;
	u64 length;

	h.top = lies && !pick(8) ? pick(s->nr) : 0;
	h.end = s->nr;
	if (lies && !pick(8))
		h.end = h.top + 1 + pick(s->nr - h.top);
	/* A base on a window can't say that it is read-only. */
	h.read_only |= h.top > 0;
	length = s->layer[h.top].image.sectors;

	/* Shorter is legal. */
	if (!pick(10))
		length = pick(length) & ~7ULL;
	n += snprintf(p + n, size - n, "0 %llu vhdclone %u",
		      (length ? length : 8), h.end - h.top);
	for (unsigned int i = h.top; i < h.end; i++)
		n += print_layer(p + n, size - n, &s->layer[i], lies && !pick(2));
	if (h.read_only)
		n += snprintf(p + n, size - n, " 1 read_only");
	note("%s", p);
}

static void set_window(struct layer *l)
{
	char table[200];
	u64 sectors = l->size / SECTOR - l->cut;

	snprintf(table, sizeof(table), "0 %llu linear %s %u", sectors, l->loop, GUARD);
	if (dm_load(l->low, table, false) || dm_resume(l->low))
		die("%s: %s: %s", l->low, table, strerror(errno));
}

/* ---- what must be there ---- */

static bool covers(const struct op *op, u64 sector)
{
	return sector >= op->sector && sector - op->sector < op->count;
}

/* What the layers from @first on had. */
static const u8 *held(unsigned int first, u64 sector)
{
	return chain_sector(h.had + first, h.end - first, sector);
}

/* The layers as they were when the target got them. */
static void remember_layers(void)
{
	for (unsigned int i = 0; i < h.now->nr; i++)
		h.had[i] = h.now->layer[i].image;
}

/* May this be in the sector, after the first @n operations? */
static bool allowed(u64 sector, const u8 *data, unsigned int n)
{
	const u8 *p;

	for (; n; n--) {
		const struct op *op = &h.op[n - 1];

		if (!covers(op, sector))
			continue;
		switch (op->kind) {
		case 'w':
		case '?':
			if (is_stamp(data, sector, h.number << 8 | op->nr))
				return true;
			if (op->kind == 'w')
				return false;
			break;
		case 'z':
			return is_zero(data);
		case 'd':
			p = held(h.top + 1, sector);
			if (is_zero(data) || (p && !memcmp(data, p, SECTOR)))
				return true;
			break;
		}
	}
	p = held(h.top, sector);
	return p && !memcmp(data, p, SECTOR);
}

/* What may be read well, and must be refused none the less */
static void check_layer(unsigned int nr)
{
	const struct image *img = &h.had[nr];

	if (img->raw)
		return;
	if (nr == h.end - 1 && img->has_parent)
		complain("a differencing image without a base is accepted");
	if (image_bat_entries(img) * 8 > img->bat_bytes)
		complain("a BAT that is too short is accepted, in layer %u", nr);
	for (int i = 0; i < NR_ITEMS; i++)
		if (img->item[i] && img->item[i] + img->item_bytes[i] >
		    img->metadata + img->metadata_bytes)
			complain("an item outside of its region is accepted, in layer %u", nr);
}

static void check_accepted(void)
{
	const struct layer *l = &h.now->layer[h.top];
	const struct image *img = &h.had[h.top];

	if (h.lies)
		complain("a table that says otherwise than its image is accepted");
	for (unsigned int i = h.top; i < h.end; i++)
		check_layer(i);
	if (img->raw || h.read_only)
		return;
	for (u64 i = 0; i < min(image_blocks(img), img->bat_bytes / 8ULL); i++) {
		u64 entry = image_entry(img, i);

		if ((entry & 7) >= 6 && (entry >> 20) * MIB + img->block * SECTOR >
		    l->size - l->cut * SECTOR)
			complain("block %llu, which the device's end cuts, is accepted", i);
	}
}

static void choose_windows(u64 length)
{
	u64 mib = (length + MIB_SECTORS - 1) / MIB_SECTORS, first = 0;

	if (mib > 1 && h.first_window < 9)
		first = pick(min(mib, 9UL) - 1) * MIB_SECTORS;
	h.nr_windows = 0;
	h.window[h.nr_windows][0] = first;
	h.window[h.nr_windows++][1] = min(length - first, h.first_window * MIB_SECTORS);
	if (mib <= 9)
		return;
	for (unsigned int i = 0; i < 3; i++) {
		u64 at = i == 0 ? mib - 1 : i == 1 ? min(4095UL, mib - 1) : pick(mib);

		h.window[h.nr_windows][0] = at * MIB_SECTORS;
		h.window[h.nr_windows++][1] = min(length - at * MIB_SECTORS, 2UL * MIB_SECTORS);
	}
}

static void compare(int fd)
{
	static u8 *buf;

	if (!buf)
		buf = alloc_aligned(CHUNK);
	for (unsigned int w = 0; w < h.nr_windows; w++) {
		u64 at = h.window[w][0] * SECTOR, end = at + h.window[w][1] * SECTOR;

		while (at < end) {
			u64 n = min(end - at, (u64)CHUNK);
			ssize_t got = pread(fd, buf, n, at);

			if (got != (ssize_t)n) {
				complain("a read of %llu bytes at %llu: %zd, %s", n, at,
					 got, strerror(errno));
				return;
			}
			for (u64 i = 0; i < n; i += SECTOR)
				if (!allowed((at + i) / SECTOR, buf + i, h.nr_ops)) {
					complain("sector %llu reads as it must not",
						 (at + i) / SECTOR);
					return;
				}
			at += n;
		}
	}
}

static void do_op(int fd)
{
	struct op *op = &h.op[h.nr_ops];
	u64 *window = h.window[pick(h.nr_windows)], range[2];
	u32 unit = h.now->layer[0].image.lss / SECTOR;
	u64 block = h.now->layer[0].image.block;
	static u8 *buf;
	int r;

	if (!buf)
		buf = alloc_aligned(CHUNK);
	*op = (struct op){ .nr = h.nr_ops, .kind = "wwwwwwdz"[pick(8)] };
	op->sector = window[0] + pick(window[1]) / unit * unit;
	op->count = (1 + pick(pick(3) ? 16 : CHUNK / SECTOR - unit)) * unit;
	if (op->kind != 'w' && pick(3)) {
		op->sector = op->sector / block * block;
		op->count = min(block, 32UL * MIB_SECTORS);
	}
	if (op->sector < window[0])
		op->sector = window[0];
	op->count = min((u64)op->count, window[0] + window[1] - op->sector) / unit * unit;
	op->count = min(op->count, op->kind == 'w' ? CHUNK / SECTOR : ~0U);
	if (!op->count)
		return;
	range[0] = op->sector * SECTOR;
	range[1] = (u64)op->count * SECTOR;
	switch (op->kind) {
	case 'd':
		r = ioctl(fd, BLKDISCARD, range);
		if (r && errno == EOPNOTSUPP)
			return;
		break;
	case 'z':
		r = ioctl(fd, BLKZEROOUT, range);
		if (r && errno == ENOSPC) {
			/* As if it were a discard: old or zeros, and no more to ask. */
			op->kind = 'd';
			r = 0;
		}
		break;
	default:
		for (u32 i = 0; i < op->count; i++)
			stamp(buf + i * SECTOR, op->sector + i, h.number << 8 | op->nr);
		r = pwrite(fd, buf, range[1], range[0]) != (ssize_t)range[1];
		if (r && errno == ENOSPC) {
			op->kind = '?';
			r = 0;
		}
		break;
	}
	if (r)
		complain("%c of %u sectors at %llu: %s", op->kind, op->count, op->sector,
			 strerror(errno));
	h.nr_ops++;
}

/* ---- after it was closed -------------------------------------------------- */

static void check_unwritten(struct layer *l, unsigned int nr)
{
	if (memcmp(l->map, l->work, l->size)) {
		u64 at = 0;

		while (l->map[at] == l->work[at])
			at++;
		complain("layer %u was written to, at %#llx", nr, at);
	}
}

static void same(struct layer *l, u64 at, u64 size, const char *what)
{
	if (at <= l->size && l->size - at >= size && memcmp(l->map + at, l->work + at, size))
		complain("%s was written to", what);
}

/* Only what is the target's to write is new, and every sector is as it was read. */
static void check_written(struct layer *l)
{
	const u8 *table = image_regions(l->work);
	struct image has[MAX_LAYERS];
	u32 i, n;

	same(l, 0, HEADER(0), "the file identifier");
	same(l, HEADER(0) + HEADER_BYTES, HEADER(1) - HEADER(0) - HEADER_BYTES,
	     "behind header 1");
	same(l, HEADER(1) + HEADER_BYTES, MIB - HEADER(1) - HEADER_BYTES, "region tables");
	n = min(get32(table + R_COUNT), 2047U);
	for (i = 0; i < n; i++) {
		const u8 *e = table + R_ENTRIES + i * E_SIZE;

		if (memcmp(e, guid_bat, 16))
			same(l, get64(e + E_OFFSET), get32(e + E_LENGTH), "a region");
	}
	if (image_header(l->map) < 0)
		complain("no header is valid any more");
	else if (!image_is_clean(l->map))
		complain("the log was not closed");

	/* What has come to the disk is what was read; allowed() needs the image before. */
	memcpy(has, h.had, sizeof(has));
	has[0].data = l->map;
	for (unsigned int w = 0; w < h.nr_windows; w++)
		for (u64 s = h.window[w][0]; s < h.window[w][0] + h.window[w][1]; s++) {
			const u8 *p = chain_sector(has, h.end, s);

			if (!p || !allowed(s, p, h.nr_ops)) {
				complain("sector %llu in the image is as it must not be",
					 s);
				return;
			}
		}
}

/* ---- the kernel's log ---------------------------------------------------- */

static void count_reason(void)
{
	unsigned int i;

	for (i = 0; i < h.nr_reasons; i++)
		if (!strcmp(h.reason[i].text, h.last_reason))
			break;
	if (i == MAX_REASONS)
		return;
	if (i == h.nr_reasons)
		snprintf(h.reason[h.nr_reasons++].text, sizeof(h.reason[i].text), "%.150s",
			 h.last_reason);
	h.reason[i].count++;
}

/* Names and numbers are no part of a reason. */
static void kmsg_line(const char *text)
{
	const char *p = strstr(text, "vhdclone: ");
	char *q = h.last_reason, *end = q + sizeof(h.last_reason) - 1;

	if (kmsg_is_trouble(text) && !h.trouble[0])
		snprintf(h.trouble, sizeof(h.trouble), "%s", text);
	if (!p || strstr(text, "not activated") || strstr(text, "preresume failed"))
		return;
	for (p += 10; *p && strncmp(p, ", at byte", 9) && q < end; p++)
		if ((*p < '0' || *p > '9') && *p != ':')
			*q++ = *p;
	*q = 0;
}

/* ---- one case ------------------------------------------------------------ */

static void serve(u64 length)
{
	int fd = dm_open(clone_name, (h.read_only ? O_RDONLY : O_RDWR) | O_DIRECT);

	if (fd < 0) {
		complain("cannot open it: %s", strerror(errno));
		return;
	}
	choose_windows(length);
	h.nr_ops = 0;
	compare(fd);
	if (!h.read_only) {
		unsigned int n = pick(MAX_OPS);

		for (unsigned int i = 0; i < n; i++) {
			do_op(fd);
			if (!pick(6) && fdatasync(fd))
				complain("flush: %s", strerror(errno));
		}
		if (pick(2) && fdatasync(fd))
			complain("flush: %s", strerror(errno));
		h.written += h.nr_ops > 0;
		if (h.nr_ops)
			compare(fd);
	}
	close(fd);
}

static void restore(struct layer *l)
{
	memcpy(l->work, l->good, l->size);
	l->image = (struct image){ .data = l->work, .size = l->size, .raw = l->raw };
	image_parse(&l->image);
	if (l->cut) {
		l->cut = 0;
		set_window(l);
	}
}

static void close_clone(bool destroy)
{
	if (dm_suspend(clone_name) && errno != EINVAL)
		complain("suspend: %s", strerror(errno));
	if (!destroy)
		return;
	if (dm_remove(clone_name))
		die("case %llu: remove: %s", h.number, strerror(errno));
	h.created = false;
}

static void one_case(u64 number)
{
	unsigned int i, n, victim;
	char table[1024];
	struct scene *s;
	bool ok;

	h.number = number;
	rng_init(&h.rng, h.seed, number);
	s = &h.scene[pick(h.nr_scenes)];
	h.now = s;
	snprintf(subject, sizeof(subject), "case %llu of seed %llu (%s)", number, h.seed,
		 s->name);
	watchdog_feed("%s", subject);
	h.read_only = !pick(6);
	h.lies = false;
	h.last_reason[0] = 0;
	h.nr_ops = 0;
	note("case %llu: %s", number, s->name);

	for (i = 0; i < s->nr; i++)
		restore(&s->layer[i]);
	n = pick(20) ? 1 + !pick(5) + !pick(8) : 0;
	/* One look is enough for a log that must be replayed. */
	if (image_header(s->layer[0].work) >= 0 && pick(5))
		for (i = 0; i < 2; i++)
			memset(s->layer[0].work + HEADER(i) + H_LOG_GUID, 0, 16);
	for (i = 0; i < n; i++) {
		victim = pick(4) ? 0 : pick(s->nr);
		if (s->layer[victim].raw)
			victim = 0;
		mutate(&s->layer[victim]);
	}
	for (i = 0; i < s->nr; i++) {
		struct layer *l = &s->layer[i];

		if (!l->raw) {
			/* A wrong checksum is found by the first look. */
			if (pick(12))
				image_seal(l->work);
			image_parse(&l->image);
		}
		memcpy(l->map, l->work, l->size);
		if (l->cut)
			set_window(l);
	}
	remember_layers();
	make_table(table, sizeof(table));

	if (!h.created && dm_create(clone_name))
		die("create: %s", strerror(errno));
	h.created = true;
	ok = !dm_load(clone_name, table, h.read_only) && !dm_resume(clone_name);
	kmsg_read(kmsg_line);
	if (ok) {
		h.accepted++;
		note("accepted");
		check_accepted();
		serve(strtoull(table + 2, NULL, 10));
	} else {
		h.refused++;
		note("refused: %s", h.last_reason);
		count_reason();
	}
	close_clone(!pick(16));
	kmsg_read(kmsg_line);
	if (h.trouble[0]) {
		complain("the kernel says: %s", h.trouble);
		h.trouble[0] = 0;
	}
	for (i = 0; i < s->nr; i++)
		if (ok && !i && !h.read_only && h.nr_ops)
			check_written(&s->layer[i]);
		else
			check_unwritten(&s->layer[i], i);
}

/* ---- scenes -------------------------------------------------------------- */

static void load_scene(const char *path)
{
	struct scene *s = &h.scene[h.nr_scenes++];
	char outer[40], table[300], file[400];

	s->name = strrchr(path, '/') ? strrchr(path, '/') + 1 : path;
	for (s->nr = 0; s->nr < MAX_LAYERS; s->nr++) {
		struct layer *l = &s->layer[s->nr];
		char dev[32];

		if (!image_path(file, sizeof(file), path, s->nr))
			break;
		l->map = image_load(&l->image, path, s->nr, s->nr > 0, dev);
		l->good = l->image.data;
		l->size = l->image.size;
		l->raw = l->image.raw;
		l->work = malloc(l->size);
		if (!l->work)
			die("no memory");
		/* The window, between two that fail */
		snprintf(outer, sizeof(outer), "outer-%s-%u", s->name, s->nr);
		snprintf(table, sizeof(table), "0 %u error\n%u %zu linear %s 0\n%zu %u error",
			 GUARD, GUARD, l->size / SECTOR, dev, GUARD + l->size / SECTOR, GUARD);
		dm_make(outer, table);
		snprintf(l->loop, sizeof(l->loop), "%s", dm_devno(outer));
		snprintf(l->low, sizeof(l->low), "low-%s-%u", s->name, s->nr);
		if (dm_create(l->low))
			die("%s: %s", l->low, strerror(errno));
		set_window(l);
		snprintf(l->devno, sizeof(l->devno), "%s", dm_devno(l->low));
	}
	if (!s->nr)
		die("%s: no layers", path);
}

static void unload(void)
{
	char outer[40];

	if (h.created)
		dm_remove(clone_name);
	for (unsigned int i = 0; i < h.nr_scenes; i++)
		for (unsigned int k = 0; k < h.scene[i].nr; k++) {
			snprintf(outer, sizeof(outer), "outer-%s-%u", h.scene[i].name, k);
			if (dm_remove(h.scene[i].layer[k].low) || dm_remove(outer))
				complain("something still holds %s", h.scene[i].layer[k].low);
		}
}

int main(int argc, char **argv)
{
	u64 first = 0, most = 100, done = 0, seconds = ~0ULL, began;
	unsigned int most_bad;
	bool stops = false;
	const struct opt opts[] = {
		{ 's', .number = &h.seed }, { 'f', .number = &first }, { 'n', .number = &most },
		{ 't', .number = &seconds }, { 'w', .number = &h.first_window },
		{ 'v', .flag = &verbose }, { 'x', .flag = &stops }, {},
	};

	h.seed = 1;
	h.first_window = 9;
	argv = options(argc, argv, opts, 1, MAX_SCENES,
		       "hostile [-s SEED] [-f FIRST] [-n COUNT] [-t SECONDS] [-w MIB] [-vx] SCENE...");
	most_bad = stops ? 1 : 20;
	kmsg_read(NULL);
	while (*argv)
		load_scene(*argv++);
	watchdog_start(60);
	began = time_now();
	for (u64 i = first; i < first + most && time_now() - began < seconds; i++) {
		one_case(i);
		done++;
		if (complaints >= most_bad)
			break;
	}
	unload();
	printf("# %llu images of seed %llu in %llu s: ", done, h.seed, time_now() - began);
	printf("%u served (%u written to), %u refused for %u reasons, %u lies in tables; %u bad\n",
	       h.accepted, h.written, h.refused, h.nr_reasons, h.lied, complaints);
	if (verbose)
		for (unsigned int i = 0; i < h.nr_reasons; i++)
			printf("#   %5u %s\n", h.reason[i].count, h.reason[i].text);
	if (done > 500 && (h.accepted < done / 10 || h.nr_reasons < 25)) {
		subject[0] = 0;
		complain("too few are served, or refused for too few reasons");
	}
	return complaints ? 1 : 0;
}
