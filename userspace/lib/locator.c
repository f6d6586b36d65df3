// SPDX-License-Identifier: GPL-2.0-or-later
/* Parent locators: see locator.h. */
#include <stdlib.h>

#include "locator.h"

const struct vhdx_guid vc_guid_locator_raw = {
	.b = { 0x2a, 0xa1, 0x0c, 0xcc, 0x33, 0x9e, 0xa4, 0x46,
	       0x90, 0xda, 0x45, 0x68, 0x0e, 0xec, 0x92, 0xbb }
};

const struct vhdx_guid vc_guid_locator_vhd = {
	.b = { 0x3e, 0x6c, 0x1a, 0x4f, 0x52, 0x7b, 0x0e, 0x4d,
	       0x9c, 0x18, 0xe3, 0xa5, 0xd2, 0x0b, 0x6f, 0x94 }
};

#define VC_LOCATOR_MAX_STRING	0xfffeU		/* what 16 bits of bytes hold */

static size_t vc_utf8_put(char *out, u32 c)
{
	if (c < 0x80) {
		out[0] = c;
		return 1;
	}
	if (c < 0x800) {
		out[0] = 0xc0 | c >> 6;
		out[1] = 0x80 | (c & 0x3f);
		return 2;
	}
	if (c < 0x10000) {
		out[0] = 0xe0 | c >> 12;
		out[1] = 0x80 | (c >> 6 & 0x3f);
		out[2] = 0x80 | (c & 0x3f);
		return 3;
	}
	out[0] = 0xf0 | c >> 18;
	out[1] = 0x80 | (c >> 12 & 0x3f);
	out[2] = 0x80 | (c >> 6 & 0x3f);
	out[3] = 0x80 | (c & 0x3f);
	return 4;
}

char *vc_utf16_decode(const u8 *buf, size_t bytes, bool strict)
{
	char *text = malloc(bytes / 2 * 3 + 1);
	size_t used = 0;
	size_t i;
	u32 low;
	u32 c;

	if (!text)
		return NULL;
	errno = EINVAL;
	if (bytes % 2 && strict)
		goto bad;
	for (i = 0; i + 1 < bytes; i += 2) {
		c = buf[i] | buf[i + 1] << 8;
		if (c >= 0xd800 && c < 0xe000) {
			low = i + 3 < bytes ? buf[i + 2] | buf[i + 3] << 8 : 0;
			if (c >= 0xdc00 || low < 0xdc00 || low >= 0xe000)
				c = 0;
			else
				c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
			i += 2;
		}
		if (!c && strict)
			goto bad;
		if (!c)
			break;
		used += vc_utf8_put(text + used, c);
	}
	text[used] = '\0';
	return text;
bad:
	free(text);
	return NULL;
}

/* The next character of UTF-8 text, or ~0 if that is none. */
static u32 vc_utf8_get(const char **text)
{
	static const u32 least[4] = { 0, 0x80, 0x800, 0x10000 };
	const u8 *p = (const u8 *)*text;
	unsigned int more;
	unsigned int i;
	u32 c = p[0];

	if (c < 0x80)
		more = 0;
	else if (c >= 0xc0 && c < 0xe0)
		more = 1;
	else if (c >= 0xe0 && c < 0xf0)
		more = 2;
	else if (c >= 0xf0 && c < 0xf8)
		more = 3;
	else
		return ~0U;
	if (more)
		c &= 0x3f >> more;
	for (i = 1; i <= more; i++) {
		if ((p[i] & 0xc0) != 0x80)
			return ~0U;
		c = c << 6 | (p[i] & 0x3f);
	}
	if (c < least[more] || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
		return ~0U;
	*text += more + 1;
	return c;
}

static void vc_put_le16(u8 *p, u32 value)
{
	p[0] = value;
	p[1] = value >> 8;
}

ssize_t vc_utf16_encode(const char *text, u8 *buf, size_t room)
{
	size_t used = 0;
	u32 c;

	while (*text) {
		c = vc_utf8_get(&text);
		if (c == ~0U || used + (c < 0x10000 ? 2 : 4) > room)
			return -1;
		if (c >= 0x10000) {
			c -= 0x10000;
			vc_put_le16(buf + used, 0xd800 + (c >> 10));
			used += 2;
			c = 0xdc00 + (c & 0x3ff);
		}
		vc_put_le16(buf + used, c);
		used += 2;
	}
	return used;
}

struct vc_locator *vc_locator_new(const struct vhdx_guid *type)
{
	struct vc_locator *locator = calloc(1, sizeof(*locator));

	if (locator)
		locator->type = *type;
	return locator;
}

void vc_locator_free(struct vc_locator *locator)
{
	unsigned int i;

	if (!locator)
		return;
	for (i = 0; i < locator->nr_pairs; i++) {
		free(locator->pairs[i].key);
		free(locator->pairs[i].value);
	}
	free(locator->pairs);
	free(locator);
}

/* Takes both strings over, also when it fails. */
static int vc_locator_push(struct vc_locator *locator, char *key, char *value)
{
	struct vc_locator_pair *pairs = NULL;

	if (key && value)
		pairs = realloc(locator->pairs, (locator->nr_pairs + 1) * sizeof(*pairs));
	if (!pairs) {
		free(key);
		free(value);
		return -ENOMEM;
	}
	locator->pairs = pairs;
	pairs[locator->nr_pairs].key = key;
	pairs[locator->nr_pairs].value = value;
	locator->nr_pairs++;
	return 0;
}

int vc_locator_add(struct vc_locator *locator, const char *key, const char *value,
		   struct vc_err *err)
{
	if (vc_locator_push(locator, strdup(key), strdup(value)))
		return vc_error_nomem(err);
	return 0;
}

int vc_locator_set(struct vc_locator *locator, const char *key, const char *value,
		   struct vc_err *err)
{
	unsigned int i;
	char *copy;

	for (i = 0; i < locator->nr_pairs; i++) {
		if (strcmp(locator->pairs[i].key, key))
			continue;
		copy = strdup(value);
		if (!copy)
			return vc_error_nomem(err);
		free(locator->pairs[i].value);
		locator->pairs[i].value = copy;
		return 0;
	}
	return vc_locator_add(locator, key, value, err);
}

void vc_locator_unset(struct vc_locator *locator, const char *key)
{
	struct vc_locator_pair *pair = locator->pairs;
	struct vc_locator_pair *end = pair + locator->nr_pairs;

	while (pair < end && strcmp(pair->key, key))
		pair++;
	if (pair == end)
		return;
	free(pair->key);
	free(pair->value);
	memmove(pair, pair + 1, (end - pair - 1) * sizeof(*pair));
	locator->nr_pairs--;
}

const char *vc_locator_get(const struct vc_locator *locator, const char *key)
{
	unsigned int i;

	for (i = 0; i < locator->nr_pairs; i++)
		if (!strcmp(locator->pairs[i].key, key))
			return locator->pairs[i].value;
	return NULL;
}

bool vc_locator_is_raw(const struct vc_locator *locator)
{
	return vhdx_guid_equal(&locator->type, &vc_guid_locator_raw);
}

bool vc_locator_is_vhd(const struct vc_locator *locator)
{
	return vhdx_guid_equal(&locator->type, &vc_guid_locator_vhd);
}

/* One string of the item, or NULL and errno. */
static char *vc_locator_string(const u8 *item, u32 length, u32 offset, u32 bytes)
{
	if (!offset || offset > length || bytes > length - offset) {
		errno = ERANGE;
		return NULL;
	}
	return vc_utf16_decode(item + offset, bytes, true);
}

static int vc_locator_parse_pair(struct vc_locator *locator, const u8 *item, u32 length,
				 const struct vhdx_locator_entry *e)
{
	char *key;
	char *value;

	key = vc_locator_string(item, length, le32_to_cpu(e->key_offset),
				le16_to_cpu(e->key_length));
	if (!key)
		return -errno;
	value = vc_locator_string(item, length, le32_to_cpu(e->value_offset),
				  le16_to_cpu(e->value_length));
	if (!value) {
		int ret = -errno;

		free(key);
		return ret;
	}
	if (!*key || vc_locator_get(locator, key)) {
		free(key);
		free(value);
		return -EEXIST;
	}
	return vc_locator_push(locator, key, value);
}

int vc_locator_parse(const void *item, u32 length, const char *path, u64 offset,
		     struct vc_locator **result, struct vc_err *err)
{
	const struct vhdx_locator_header *h = item;
	const struct vhdx_locator_entry *entries = (const void *)(h + 1);
	struct vc_locator *locator;
	const char *what;
	unsigned int count;
	unsigned int i;
	int ret = 0;

	*result = NULL;
	if (length < sizeof(*h))
		return vc_error(err, EINVAL, path, "parent locator: too short (offset %llu)",
				offset);
	count = le16_to_cpu(h->key_value_count);
	if (count > (length - sizeof(*h)) / sizeof(*entries))
		return vc_error(err, EINVAL, path,
				"parent locator: %u entries do not fit (offset %llu)", count,
				offset);
	if (count > VC_LOCATOR_MAX_PAIRS)
		return vc_error(err, EINVAL, path,
				"parent locator: %u entries, more than %u (offset %llu)", count,
				VC_LOCATOR_MAX_PAIRS, offset);
	locator = vc_locator_new(&h->locator_type);
	if (!locator)
		return vc_error_nomem(err);
	for (i = 0; i < count && !ret; i++)
		ret = vc_locator_parse_pair(locator, item, length, &entries[i]);
	if (!ret) {
		*result = locator;
		return 0;
	}

	vc_locator_free(locator);
	if (ret == -ENOMEM)
		return vc_error_nomem(err);
	if (ret == -ERANGE)
		what = "lies outside the item";
	else if (ret == -EEXIST)
		what = "has no key, or one that was there before";
	else
		what = "is not UTF-16";
	offset += sizeof(*h) + (u64)(i - 1) * sizeof(*entries);
	return vc_error(err, EINVAL, path, "parent locator: entry %u %s (offset %llu)",
			i - 1, what, offset);
}

static int vc_locator_put(u8 *item, u32 *used, size_t room, const char *text,
			  __le32 *offset, __le16 *bytes, struct vc_err *err)
{
	ssize_t n;

	if (room > VC_LOCATOR_MAX_STRING)
		room = VC_LOCATOR_MAX_STRING;
	n = vc_utf16_encode(text, item + *used, room);
	if (n < 0)
		return vc_error(err, EINVAL, text,
				"cannot stand in a parent locator: not UTF-8, or too long");
	*offset = cpu_to_le32(*used);
	*bytes = cpu_to_le16(n);
	*used += n;
	return 0;
}

int vc_locator_build(const struct vc_locator *locator, void **item, u32 *length,
		     struct vc_err *err)
{
	struct vhdx_locator_entry *entries;
	struct vhdx_locator_header *h;
	size_t room = sizeof(*h);
	unsigned int i;
	u32 used;
	int ret = 0;
	u8 *buf;

	if (locator->nr_pairs > VC_LOCATOR_MAX_PAIRS)
		return vc_error(err, EINVAL, NULL, "parent locator: %u entries, more than %u",
				locator->nr_pairs, VC_LOCATOR_MAX_PAIRS);
	/* No character of UTF-8 needs more than twice its bytes in UTF-16. */
	for (i = 0; i < locator->nr_pairs; i++)
		room += sizeof(*entries) + 2 * strlen(locator->pairs[i].key) +
			2 * strlen(locator->pairs[i].value);
	if (room > VHDX_METADATA_MAX_ITEM)
		return vc_error(err, EINVAL, NULL, "parent locator: paths are too long");
	buf = calloc(1, room);
	if (!buf)
		return vc_error_nomem(err);
	h = (struct vhdx_locator_header *)buf;
	h->locator_type = locator->type;
	h->key_value_count = cpu_to_le16(locator->nr_pairs);
	entries = (struct vhdx_locator_entry *)(buf + sizeof(*h));
	used = sizeof(*h) + locator->nr_pairs * sizeof(*entries);
	for (i = 0; i < locator->nr_pairs && !ret; i++) {
		__le32 offset = 0;
		__le16 bytes = 0;

		ret = vc_locator_put(buf, &used, room - used, locator->pairs[i].key,
				     &offset, &bytes, err);
		entries[i].key_offset = offset;
		entries[i].key_length = bytes;
		if (!ret)
			ret = vc_locator_put(buf, &used, room - used,
					     locator->pairs[i].value, &offset, &bytes, err);
		entries[i].value_offset = offset;
		entries[i].value_length = bytes;
	}
	if (ret) {
		free(buf);
		return ret;
	}
	*item = buf;
	*length = used;
	return 0;
}
