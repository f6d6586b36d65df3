/* SPDX-License-Identifier: GPL-2.0-or-later */
/* As much of the kernel's as dm-vhdclone-table.c needs, for programs. */
#ifndef FUZZ_DEVICE_MAPPER_H
#define FUZZ_DEVICE_MAPPER_H

#include <ctype.h>
#include <stdlib.h>
#include <strings.h>

#include "vhdx-port.h"

#define SECTOR_SHIFT	9

typedef u64 sector_t;

struct dm_arg_set {
	unsigned int argc;
	char **argv;
};

static inline const char *dm_shift_arg(struct dm_arg_set *as)
{
	if (!as->argc)
		return NULL;
	as->argc--;
	return *as->argv++;
}

/* A '+' in front and a newline behind are allowed, blanks are not. */
static inline int kstrtou64(const char *text, unsigned int base, u64 *value)
{
	char *end;

	if (!isdigit((unsigned char)text[*text == '+']))
		return -EINVAL;
	errno = 0;
	*value = strtoull(text, &end, base);
	if (errno)
		return -ERANGE;
	return end[*end == '\n'] ? -EINVAL : 0;
}

#endif /* FUZZ_DEVICE_MAPPER_H */
