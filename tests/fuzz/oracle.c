// SPDX-License-Identifier: GPL-2.0-or-later
/* What was accepted, against the specification: see oracle.h. */
#include "oracle.h"

#define MIB	1048576U
#define SECTOR	4096U

static u32 get32(const u8 *p)
{
	return p[0] | p[1] << 8 | p[2] << 16 | (u32)p[3] << 24;
}

static u64 get64(const u8 *p)
{
	return get32(p) | (u64)get32(p + 4) << 32;
}

/* ---- the log (2.3.1) ----------------------------------------------------------- */

static const u8 *ring_sector(const struct oracle_ring *ring, u32 pos, u32 i)
{
	return ring->bytes + (pos + (u64)i * SECTOR) % ring->length;
}

/* The entry's header takes the place of two descriptors. */
static const u8 *ring_descriptor(const struct oracle_ring *ring, u32 pos, u32 i)
{
	return ring_sector(ring, pos, (i + 2) / 128) + (i + 2) % 128 * 32;
}

static bool sum_is_right(const struct oracle_ring *ring, u32 pos, u32 nr_sectors)
{
	const u8 *first = ring_sector(ring, pos, 0);
	static const u8 zeros[4];
	u32 crc;
	u32 i;

	crc = vhdx_crc32c_step(~0U, first, 4);
	crc = vhdx_crc32c_step(crc, zeros, 4);
	crc = vhdx_crc32c_step(crc, first + 8, SECTOR - 8);
	for (i = 1; i < nr_sectors; i++)
		crc = vhdx_crc32c_step(crc, ring_sector(ring, pos, i), SECTOR);
	return ~crc == get32(first + 4);
}

static bool descriptor_is_valid(const u8 *d, struct oracle_entry *entry)
{
	if (get64(d + 24) != entry->sequence || get64(d + 16) % SECTOR)
		return false;
	if (!memcmp(d, "zero", 4)) {
		entry->zero_bytes += get64(d + 8);
		return get64(d + 8) % SECTOR == 0;
	}
	entry->nr_data++;
	return !memcmp(d, "desc", 4);
}

static bool sector_is_valid(const u8 *s, u64 sequence)
{
	return !memcmp(s, "data", 4) && get32(s + 4) == sequence >> 32 &&
	       get32(s + 4092) == (u32)sequence;
}

bool oracle_entry(const struct oracle_ring *ring, u32 pos, struct oracle_entry *entry)
{
	const u8 *h = ring->bytes + pos;
	u32 nr_sectors;
	u32 i;

	*entry = (struct oracle_entry) {
		.pos = pos,
		.length = get32(h + 8),
		.tail = get32(h + 12),
		.nr_descriptors = get32(h + 24),
		.sequence = get64(h + 16),
		.flushed_size = get64(h + 48),
		.last_size = get64(h + 56),
		.guid = h + 32,
	};
	if (memcmp(h, "loge", 4) || !entry->length || entry->length % SECTOR ||
	    entry->length > ring->length || entry->tail % SECTOR ||
	    entry->tail >= ring->length || !entry->sequence)
		return false;
	nr_sectors = entry->length / SECTOR;
	if (entry->nr_descriptors + 2ULL > 128ULL * nr_sectors)
		return false;
	for (i = 0; i < entry->nr_descriptors; i++)
		if (!descriptor_is_valid(ring_descriptor(ring, pos, i), entry))
			return false;
	entry->first_sector = (entry->nr_descriptors + 2 + 127) / 128;
	if (entry->first_sector + entry->nr_data > nr_sectors)
		return false;
	for (i = 0; i < entry->nr_data; i++)
		if (!sector_is_valid(ring_sector(ring, pos, entry->first_sector + i),
				     entry->sequence))
			return false;
	return sum_is_right(ring, pos, nr_sectors);
}

void oracle_change(const struct oracle_ring *ring, const struct oracle_entry *entry, u32 i,
		   u32 *sector, struct oracle_change *change)
{
	const u8 *d = ring_descriptor(ring, entry->pos, i);
	static u8 page[SECTOR];

	change->offset = get64(d + 16);
	change->length = get64(d + 8);
	change->data = NULL;
	if (!memcmp(d, "zero", 4))
		return;
	memcpy(page, ring_sector(ring, entry->pos, entry->first_sector + (*sector)++),
	       SECTOR);
	memcpy(page, d + 8, 8);
	memcpy(page + 4092, d + 4, 4);
	change->length = SECTOR;
	change->data = page;
}

/* ---- the BAT (2.5) ------------------------------------------------------------- */

void oracle_disk_init(struct oracle_disk *disk)
{
	fuzz_assert(disk->nr_mib <= ORACLE_MAX_MIB);
	disk->partial = 0;
	memset(disk->taken, 0, disk->nr_mib);
}

void oracle_claim(struct oracle_disk *disk, u64 offset, u64 length)
{
	u64 i;

	fuzz_assert(offset % MIB == 0 && offset && length && length % MIB == 0);
	fuzz_assert(offset / MIB + length / MIB <= disk->nr_mib);
	for (i = offset / MIB; i < offset / MIB + length / MIB; i++) {
		fuzz_assert(!disk->taken[i]);
		disk->taken[i] = true;
	}
}

/* So many blocks are in a chunk. */
static u64 chunk_ratio(const struct oracle_disk *disk)
{
	return (1ULL << 23) * disk->sector_size / disk->block_size;
}

static u64 nr_blocks(const struct oracle_disk *disk)
{
	return (disk->virtual_size + disk->block_size - 1) / disk->block_size;
}

u32 oracle_bat_entries(const struct oracle_disk *disk)
{
	u64 ratio = chunk_ratio(disk);
	u64 blocks = nr_blocks(disk);

	if (disk->has_parent)
		return (blocks + ratio - 1) / ratio * (ratio + 1);
	return blocks + (blocks - 1) / ratio;
}

/*
 * All of a block is its own.  Of the last one the file need only have what is of the
 * disk: there are writers that do so.
 */
static void claim_block(struct oracle_disk *disk, u64 place, u64 block, bool data)
{
	u64 there = disk->virtual_size - block * disk->block_size;
	u64 end = (u64)disk->nr_mib * MIB;
	u64 length = disk->block_size;

	if (there > length)
		there = length;
	fuzz_assert(place < end && there <= end - place);
	/* What can be read of it is there to the last byte. */
	fuzz_assert(!data || place + there <= disk->size);
	oracle_claim(disk, place, length < end - place ? length : end - place);
}

void oracle_bat_entry(struct oracle_disk *disk, u32 index, u64 entry)
{
	u64 ratio = chunk_ratio(disk);
	u32 chunk = index / (ratio + 1);
	u64 block = chunk * ratio + index % (ratio + 1);
	bool is_bitmap = index % (ratio + 1) == ratio;
	u64 place = entry - entry % MIB;
	unsigned int state = entry % 8;

	if (!is_bitmap && block >= nr_blocks(disk))
		return;
	fuzz_assert(entry % MIB == state);
	if (is_bitmap) {
		fuzz_assert(state == 6 || (!state && disk->partial != chunk + 1));
		fuzz_assert(disk->has_parent || !state);
		fuzz_assert(!state || place + MIB <= disk->size);
		if (state == 6)
			oracle_claim(disk, place, MIB);
		return;
	}
	fuzz_assert(state != 4 && state != 5 && (state != 7 || disk->has_parent));
	/* What is not present may keep a place. */
	if (state >= 6 || ((state == 1 || state == 3) && place))
		claim_block(disk, place, block, state >= 6);
	if (state == 7)
		disk->partial = chunk + 1;
}
