// SPDX-License-Identifier: GPL-2.0-or-later
/* Sizes: see size.h. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "size.h"

static const char vc_size_suffixes[] = "KMGT";

bool vc_size_parse(const char *text, u64 *bytes)
{
	unsigned int shift = 0;
	u64 fraction = 0;
	u64 scale = 1;
	const char *suffix;
	u64 whole;
	char *end;

	if (!isdigit((unsigned char)*text))
		return false;
	errno = 0;
	whole = strtoull(text, &end, 10);
	if (errno)
		return false;
	if (*end == '.') {
		if (!isdigit((unsigned char)end[1]))
			return false;
		for (end++; isdigit((unsigned char)*end); end++) {
			if (scale >= 1000000)
				return false;
			fraction = fraction * 10 + (*end - '0');
			scale *= 10;
		}
	}
	if (*end) {
		suffix = strchr(vc_size_suffixes, toupper((unsigned char)*end));
		if (!suffix)
			return false;
		shift = 10 * (suffix - vc_size_suffixes + 1);
		end++;
		if (*end && strcmp(end, "iB") && strcmp(end, "B"))
			return false;
	}
	if (whole > UINT64_MAX >> shift || (fraction && !shift))
		return false;
	/* A part of a byte is no size; 10^6 and 2^40 together fit into 64 bits. */
	if ((fraction << shift) % scale)
		return false;
	whole <<= shift;
	fraction = (fraction << shift) / scale;
	if (whole + fraction < whole)
		return false;
	*bytes = whole + fraction;
	return true;
}

const char *vc_size_format(u64 bytes, char *text)
{
	int i = -1;
	u64 unit = 1;

	while (i + 1 < (int)sizeof(vc_size_suffixes) - 1 && bytes / unit >= 1024) {
		unit <<= 10;
		i++;
	}
	if (i < 0)
		snprintf(text, VC_SIZE_TEXT, "%u B", (unsigned int)bytes);
	else if (bytes % unit)
		snprintf(text, VC_SIZE_TEXT, "%.2f %ciB", (double)bytes / unit,
			 vc_size_suffixes[i]);
	else
		snprintf(text, VC_SIZE_TEXT, "%llu %ciB", (bytes / unit),
			 vc_size_suffixes[i]);
	return text;
}
