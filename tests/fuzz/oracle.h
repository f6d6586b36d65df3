/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What it promises that something was accepted, written anew from [MS-VHDX]: no function
 * of the format code is asked, so that a check that is missing there is missed here.
 */
#ifndef FUZZ_ORACLE_H
#define FUZZ_ORACLE_H

#include "fuzz.h"

#define ORACLE_MAX_MIB	65536U

/**
 * struct oracle_ring - a log, not joined where it wraps
 * @bytes: of it
 * @length: so many, a multiple of 4096
 */
struct oracle_ring {
	const u8 *bytes;
	u32 length;
};

/**
 * struct oracle_entry - a valid log entry
 * @pos: where it is in the ring
 * @first_sector: of its data, counted from 0
 */
struct oracle_entry {
	u32 pos;
	u32 length;
	u32 tail;
	u32 nr_descriptors;
	u32 nr_data;
	u32 first_sector;
	u64 sequence;
	u64 zero_bytes;
	u64 flushed_size;
	u64 last_size;
	const u8 *guid;
};

/* 2.3.1: is there a valid entry at @pos, whatever its GUID? */
bool oracle_entry(const struct oracle_ring *ring, u32 pos, struct oracle_entry *entry);

/**
 * struct oracle_change - what a descriptor writes
 * @data: a page, of @length 4096; NULL: zeros
 */
struct oracle_change {
	u64 offset;
	u64 length;
	const u8 *data;
};

/* What the @i-th descriptor writes, for @i counting up from 0; @sector: 0 before. */
void oracle_change(const struct oracle_ring *ring, const struct oracle_entry *entry, u32 i,
		   u32 *sector, struct oracle_change *change);

/**
 * struct oracle_disk - a BAT and its file
 * @nr_mib: length of the file, rounded up
 * @size: and not rounded, bytes
 * @partial: the last chunk that has a partially present block, counted from 1
 * @taken: MiB that belong to something
 */
struct oracle_disk {
	u64 virtual_size;
	u32 block_size;
	u32 sector_size;
	bool has_parent;
	u32 nr_mib;
	u64 size;
	u32 partial;
	bool taken[ORACLE_MAX_MIB];
};

/* The rest of @disk is filled in. */
void oracle_disk_init(struct oracle_disk *disk);

/* A log or a region: inside the file, on MiB, and on nothing else. */
void oracle_claim(struct oracle_disk *disk, u64 offset, u64 length);

/* 2.5.1: entry number @index was accepted, all those before it were looked at. */
void oracle_bat_entry(struct oracle_disk *disk, u32 index, u64 entry);

/* How many entries a BAT has. */
u32 oracle_bat_entries(const struct oracle_disk *disk);

#endif /* FUZZ_ORACLE_H */
