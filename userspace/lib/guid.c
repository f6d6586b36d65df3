// SPDX-License-Identifier: GPL-2.0-or-later
/* GUIDs: see guid.h. */
#include <uuid/uuid.h>

#include "guid.h"

/* The first three fields are little-endian on disk; the swap is its own inverse. */
static void vc_guid_swap(const u8 *from, u8 *to)
{
	static const u8 order[16] = {
		3, 2, 1, 0, 5, 4, 7, 6, 8, 9, 10, 11, 12, 13, 14, 15
	};
	unsigned int i;

	for (i = 0; i < sizeof(order); i++)
		to[i] = from[order[i]];
}

void vc_guid_random(struct vhdx_guid *guid)
{
	uuid_t uuid;

	uuid_generate_random(uuid);
	vc_guid_swap(uuid, guid->b);
}

const char *vc_guid_format(const struct vhdx_guid *guid, char *text)
{
	uuid_t uuid = { };

	vc_guid_swap(guid->b, uuid);
	uuid_unparse_lower(uuid, text);
	return text;
}

bool vc_guid_parse(const char *text, struct vhdx_guid *guid)
{
	char plain[VC_GUID_TEXT];
	size_t n = strlen(text);
	uuid_t uuid;

	if (n == VC_GUID_TEXT + 1 && text[0] == '{' && text[n - 1] == '}') {
		text++;
		n -= 2;
	}
	if (n != VC_GUID_TEXT - 1)
		return false;
	memcpy(plain, text, n);
	plain[n] = '\0';
	if (uuid_parse(plain, uuid))
		return false;
	vc_guid_swap(uuid, guid->b);
	return true;
}
