// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A device that fails in one place or in one way; see under.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "under.h"

const char * const flakey_names[FLAKEY_KINDS] = {
	"all", "error_reads", "error_writes", "drop_writes", "corrupt_reads",
	"corrupt_writes",
};

static const char name[] = "under";
static char below[64];
static u64 sectors;

static bool switch_to(const char *table)
{
	if (dm_load(name, table, false))
		return false;
	if (dm_suspend(name) || dm_resume(name))
		die("%s: %s: %s", name, table, strerror(errno));
	return true;
}

static void must_switch_to(const char *table)
{
	if (!switch_to(table))
		die("%s: %s: %s", name, table, strerror(errno));
}

void under_is_well(void)
{
	char table[200];

	snprintf(table, sizeof(table), "0 %llu linear %s 0", sectors, below);
	must_switch_to(table);
}

const char *under_make(const char *device, u64 size)
{
	snprintf(below, sizeof(below), "%s", device);
	sectors = size;
	if (dm_create(name))
		die("%s: %s", name, strerror(errno));
	under_is_well();
	return dm_devno(name);
}

void under_remove(void)
{
	if (dm_remove(name))
		die("%s: remove: %s", name, strerror(errno));
}

void under_has_dust(u64 sector)
{
	char text[200];

	snprintf(text, sizeof(text), "0 %llu dust %s 0 512", sectors, below);
	must_switch_to(text);
	snprintf(text, sizeof(text), "addbadblock %llu", sector);
	if (dm_message(name, "quiet", NULL, 0) || dm_message(name, text, NULL, 0) ||
	    dm_message(name, "enable", NULL, 0))
		die("%s: %s: %s", name, text, strerror(errno));
}

void under_has_hole(u64 sector)
{
	unsigned long long at = sector & ~7ULL;
	char table[400];
	int n = 0;

	if (at)
		n += sprintf(table + n, "0 %llu linear %s 0\n", at, below);
	n += sprintf(table + n, "%llu 8 error", at);
	if (at + 8 < sectors)
		sprintf(table + n, "\n%llu %llu linear %s %llu", at + 8,
			sectors - at - 8, below, at + 8);
	must_switch_to(table);
}

bool under_is_flakey(enum flakey kind, u32 byte, u8 value)
{
	char table[200];
	int n = sprintf(table, "0 %llu flakey %s 0 0 3600", sectors,
			below);

	switch (kind) {
	case FLAKEY_ALL:
		break;
	case FLAKEY_CORRUPT_READS:
	case FLAKEY_CORRUPT_WRITES:
		sprintf(table + n, " 5 corrupt_bio_byte %u %c %u 0", byte,
			kind == FLAKEY_CORRUPT_READS ? 'r' : 'w', value);
		break;
	default:
		sprintf(table + n, " 1 %s", flakey_names[kind]);
		break;
	}
	return switch_to(table);
}

bool under_corrupts_reads(void)
{
	static u8 page[4096] __attribute__((aligned(4096)));
	bool corrupts = false;
	int fd;

	/* An image begins with other letters. */
	if (under_is_flakey(FLAKEY_CORRUPT_READS, 1, 0xa5)) {
		fd = dm_open(name, O_RDONLY | O_DIRECT);
		if (pread(fd, page, sizeof(page), 0) != sizeof(page))
			die("%s: read: %s", name, strerror(errno));
		corrupts = page[0] == 0xa5;
		close(fd);
	}
	under_is_well();
	return corrupts;
}
