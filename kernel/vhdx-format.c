// SPDX-License-Identifier: (GPL-2.0-only OR GPL-2.0-or-later)
/*
 * The VHDX format: checks and arithmetic.  See vhdx-format.h for the contract.
 *
 * The same source is compiled into the module, the tool, the unit tests and the
 * fuzzers.  All input is hostile: nothing read from the image is used as an
 * index, a count or a length before it was checked.
 */
#include "vhdx-format.h"

const struct vhdx_guid vhdx_guid_zero;

/* 2DC27766-F623-4200-9D64-115E9BFD4A08 */
const struct vhdx_guid vhdx_guid_bat_region = {
	.b = { 0x66, 0x77, 0xc2, 0x2d, 0x23, 0xf6, 0x00, 0x42,
	       0x9d, 0x64, 0x11, 0x5e, 0x9b, 0xfd, 0x4a, 0x08 }
};

/* 8B7CA206-4790-4B9A-B8FE-575F050F886E */
const struct vhdx_guid vhdx_guid_metadata_region = {
	.b = { 0x06, 0xa2, 0x7c, 0x8b, 0x90, 0x47, 0x9a, 0x4b,
	       0xb8, 0xfe, 0x57, 0x5f, 0x05, 0x0f, 0x88, 0x6e }
};

/* CAA16737-FA36-4D43-B3B6-33F0AA44E76B */
const struct vhdx_guid vhdx_guid_file_parameters = {
	.b = { 0x37, 0x67, 0xa1, 0xca, 0x36, 0xfa, 0x43, 0x4d,
	       0xb3, 0xb6, 0x33, 0xf0, 0xaa, 0x44, 0xe7, 0x6b }
};

/* 2FA54224-CD1B-4876-B211-5DBED83BF4B8 */
const struct vhdx_guid vhdx_guid_virtual_disk_size = {
	.b = { 0x24, 0x42, 0xa5, 0x2f, 0x1b, 0xcd, 0x76, 0x48,
	       0xb2, 0x11, 0x5d, 0xbe, 0xd8, 0x3b, 0xf4, 0xb8 }
};

/* BECA12AB-B2E6-4523-93EF-C309E000C746 */
const struct vhdx_guid vhdx_guid_virtual_disk_id = {
	.b = { 0xab, 0x12, 0xca, 0xbe, 0xe6, 0xb2, 0x23, 0x45,
	       0x93, 0xef, 0xc3, 0x09, 0xe0, 0x00, 0xc7, 0x46 }
};

/* 8141BF1D-A96F-4709-BA47-F233A8FAAB5F */
const struct vhdx_guid vhdx_guid_logical_sector_size = {
	.b = { 0x1d, 0xbf, 0x41, 0x81, 0x6f, 0xa9, 0x09, 0x47,
	       0xba, 0x47, 0xf2, 0x33, 0xa8, 0xfa, 0xab, 0x5f }
};

/* CDA348C7-445D-4471-9CC9-E9885251C556 */
const struct vhdx_guid vhdx_guid_physical_sector_size = {
	.b = { 0xc7, 0x48, 0xa3, 0xcd, 0x5d, 0x44, 0x71, 0x44,
	       0x9c, 0xc9, 0xe9, 0x88, 0x52, 0x51, 0xc5, 0x56 }
};

/* A8D35F2D-B30B-454D-ABF7-D3D84834AB0C */
const struct vhdx_guid vhdx_guid_parent_locator = {
	.b = { 0x2d, 0x5f, 0xd3, 0xa8, 0x0b, 0xb3, 0x4d, 0x45,
	       0xab, 0xf7, 0xd3, 0xd8, 0x48, 0x34, 0xab, 0x0c }
};

/* B04AEFB7-D19E-4A81-B789-25B8E9445913 */
const struct vhdx_guid vhdx_guid_locator_vhdx = {
	.b = { 0xb7, 0xef, 0x4a, 0xb0, 0x9e, 0xd1, 0x81, 0x4a,
	       0xb7, 0x89, 0x25, 0xb8, 0xe9, 0x44, 0x59, 0x13 }
};

static int vhdx_fail(struct vhdx_fault *fault, int err, const char *what,
		     u64 offset, u64 value)
{
	fault->what = what;
	fault->offset = offset;
	fault->value = value;
	return err;
}

static bool vhdx_is_mib_aligned(u64 x)
{
	return !(x & (VHDX_MIB - 1));
}

static bool vhdx_is_power_of_2(u64 x)
{
	return x && !(x & (x - 1));
}

/* log2 of a power of two. */
static u8 vhdx_log2(u32 x)
{
	u8 shift = 0;

	while (x >>= 1)
		shift++;
	return shift;
}

static bool vhdx_is_sector_size(u32 size)
{
	return size == 512 || size == 4096;
}

/*
 * May a structure lie at this place, as far as that can be told without the
 * size of the file?  Keeps all later sums of offset and length far from overflow.
 */
static bool vhdx_is_addressable(u64 offset, u64 length)
{
	return (offset >> VHDX_MIB_SHIFT) + (length >> VHDX_MIB_SHIFT) <= VHDX_MAX_FILE_MIB;
}

/* ---- checksums ---------------------------------------------------------- */

u32 vhdx_checksum(const void *buf, size_t size)
{
	static const u8 zero[4];
	const u8 *p = buf;
	u32 crc;

	crc = vhdx_crc32c_step(~0U, p, 4);
	crc = vhdx_crc32c_step(crc, zero, sizeof(zero));
	crc = vhdx_crc32c_step(crc, p + 8, size - 8);
	return ~crc;
}

/* ---- identifier, headers ------------------------------------------------- */

int vhdx_identifier_check(const void *buf, struct vhdx_fault *fault)
{
	if (memcmp(buf, VHDX_IDENTIFIER_SIGNATURE, 8))
		return vhdx_fail(fault, -EINVAL, "file identifier: signature is wrong",
				 VHDX_IDENTIFIER_OFFSET, 0);
	return 0;
}

static bool vhdx_header_is_valid(const struct vhdx_header *h)
{
	return le32_to_cpu(h->signature) == VHDX_HEADER_SIGNATURE &&
	       le32_to_cpu(h->checksum) == vhdx_checksum(h, sizeof(*h));
}

int vhdx_header_parse(const struct vhdx_header *h1, const struct vhdx_header *h2,
		      struct vhdx_header_info *info, struct vhdx_fault *fault)
{
	bool valid1 = vhdx_header_is_valid(h1);
	bool valid2 = vhdx_header_is_valid(h2);
	u64 seq1 = le64_to_cpu(h1->sequence_number);
	u64 seq2 = le64_to_cpu(h2->sequence_number);
	const struct vhdx_header *h;
	u64 offset;

	if (!valid1 && !valid2)
		return vhdx_fail(fault, -EBADMSG,
				 "headers: no copy has a right signature and checksum",
				 VHDX_HEADER1_OFFSET, 0);
	if (valid1 && valid2 && seq1 == seq2 && memcmp(h1, h2, sizeof(*h1)))
		return vhdx_fail(fault, -EINVAL,
				 "headers: copies differ but have one sequence number",
				 VHDX_HEADER1_OFFSET +
				 offsetof(struct vhdx_header, sequence_number), seq1);

	info->slot = valid2 && (!valid1 || seq2 > seq1);
	info->other_valid = valid1 && valid2;
	h = info->slot ? h2 : h1;
	offset = vhdx_header_offset(info->slot);

	info->sequence_number = le64_to_cpu(h->sequence_number);
	info->file_write_guid = h->file_write_guid;
	info->data_write_guid = h->data_write_guid;
	info->log_guid = h->log_guid;
	info->log_dirty = !vhdx_guid_is_zero(&h->log_guid);
	info->log_offset = le64_to_cpu(h->log_offset);
	info->log_length = le32_to_cpu(h->log_length);

	if (le16_to_cpu(h->version) != VHDX_HEADER_VERSION)
		return vhdx_fail(fault, -EOPNOTSUPP, "header: version is unknown",
				 offset + offsetof(struct vhdx_header, version),
				 le16_to_cpu(h->version));
	/* The log's version says how to replay it; an empty log needs no replay. */
	if (info->log_dirty && le16_to_cpu(h->log_version) != VHDX_LOG_VERSION)
		return vhdx_fail(fault, -EOPNOTSUPP, "header: log version is unknown",
				 offset + offsetof(struct vhdx_header, log_version),
				 le16_to_cpu(h->log_version));
	if (!info->log_length || !vhdx_is_mib_aligned(info->log_length))
		return vhdx_fail(fault, -EINVAL,
				 "header: log length is not a multiple of 1 MiB",
				 offset + offsetof(struct vhdx_header, log_length),
				 info->log_length);
	if (info->log_length > VHDX_MAX_LOG_LENGTH)
		return vhdx_fail(fault, -EOPNOTSUPP, "header: log is longer than 1 GiB",
				 offset + offsetof(struct vhdx_header, log_length),
				 info->log_length);
	if (info->log_offset < VHDX_HEADER_SECTION_SIZE ||
	    !vhdx_is_mib_aligned(info->log_offset))
		return vhdx_fail(fault, -EINVAL,
				 "header: log offset is not a multiple of 1 MiB",
				 offset + offsetof(struct vhdx_header, log_offset),
				 info->log_offset);
	if (!vhdx_is_addressable(info->log_offset, info->log_length))
		return vhdx_fail(fault, -EINVAL, "header: log offset is out of range",
				 offset + offsetof(struct vhdx_header, log_offset),
				 info->log_offset);
	return 0;
}

void vhdx_header_build(struct vhdx_header *h, const struct vhdx_header_info *info)
{
	memset(h, 0, sizeof(*h));
	h->signature = cpu_to_le32(VHDX_HEADER_SIGNATURE);
	h->sequence_number = cpu_to_le64(info->sequence_number);
	h->file_write_guid = info->file_write_guid;
	h->data_write_guid = info->data_write_guid;
	h->log_guid = info->log_guid;
	h->log_version = cpu_to_le16(VHDX_LOG_VERSION);
	h->version = cpu_to_le16(VHDX_HEADER_VERSION);
	h->log_length = cpu_to_le32(info->log_length);
	h->log_offset = cpu_to_le64(info->log_offset);
	h->checksum = cpu_to_le32(vhdx_checksum(h, sizeof(*h)));
}

/* ---- regions ------------------------------------------------------------- */

static const struct vhdx_region_table_entry *vhdx_region_entry(const void *table,
							       unsigned int i)
{
	const struct vhdx_region_table_entry *entries =
		table + sizeof(struct vhdx_region_table_header);

	return entries + i;
}

static u64 vhdx_region_entry_offset(u64 table_offset, unsigned int i)
{
	return table_offset + sizeof(struct vhdx_region_table_header) +
	       (u64)i * sizeof(struct vhdx_region_table_entry);
}

void vhdx_region_get(const void *table, unsigned int i, struct vhdx_region *region)
{
	const struct vhdx_region_table_entry *e = vhdx_region_entry(table, i);

	region->offset = le64_to_cpu(e->file_offset);
	region->length = le32_to_cpu(e->length);
	region->required = le32_to_cpu(e->flags) & VHDX_REGION_REQUIRED;
	region->guid = e->guid;
}

/* Entry @i against the rules for one entry, and against the entries before it. */
static int vhdx_region_check(const void *table, u64 table_offset, unsigned int i,
			     struct vhdx_region *r, struct vhdx_fault *fault)
{
	u64 at = vhdx_region_entry_offset(table_offset, i);
	struct vhdx_region other;
	unsigned int j;

	vhdx_region_get(table, i, r);
	if (r->offset < VHDX_HEADER_SECTION_SIZE || !vhdx_is_mib_aligned(r->offset))
		return vhdx_fail(fault, -EINVAL,
				 "region table entry: offset is not a multiple of 1 MiB",
				 at + offsetof(struct vhdx_region_table_entry, file_offset),
				 r->offset);
	if (!r->length || !vhdx_is_mib_aligned(r->length))
		return vhdx_fail(fault, -EINVAL,
				 "region table entry: length is not a multiple of 1 MiB",
				 at + offsetof(struct vhdx_region_table_entry, length),
				 r->length);
	if (!vhdx_is_addressable(r->offset, r->length))
		return vhdx_fail(fault, -EINVAL, "region table entry: offset is out of range",
				 at + offsetof(struct vhdx_region_table_entry, file_offset),
				 r->offset);

	for (j = 0; j < i; j++) {
		vhdx_region_get(table, j, &other);
		if (vhdx_guid_equal(&r->guid, &other.guid))
			return vhdx_fail(fault, -EINVAL, "region table: one region twice",
					 at, 0);
		if (r->offset < other.offset + other.length &&
		    other.offset < r->offset + r->length)
			return vhdx_fail(fault, -EINVAL, "region table: regions overlap",
					 at + offsetof(struct vhdx_region_table_entry,
						       file_offset), r->offset);
	}
	return 0;
}

int vhdx_region_table_parse(const void *table, u64 offset,
			    struct vhdx_regions *regions, struct vhdx_fault *fault)
{
	const struct vhdx_region_table_header *h = table;
	struct vhdx_region r;
	unsigned int i;
	int err;

	memset(regions, 0, sizeof(*regions));
	if (le32_to_cpu(h->signature) != VHDX_REGION_SIGNATURE)
		return vhdx_fail(fault, -EBADMSG, "region table: signature is wrong",
				 offset, le32_to_cpu(h->signature));
	if (le32_to_cpu(h->checksum) != vhdx_checksum(table, VHDX_REGION_TABLE_SIZE))
		return vhdx_fail(fault, -EBADMSG, "region table: checksum is wrong",
				 offset + offsetof(struct vhdx_region_table_header, checksum),
				 le32_to_cpu(h->checksum));

	regions->count = le32_to_cpu(h->entry_count);
	if (regions->count > VHDX_REGION_MAX_ENTRIES)
		return vhdx_fail(fault, -EINVAL, "region table: too many entries",
				 offset + offsetof(struct vhdx_region_table_header, entry_count),
				 regions->count);

	for (i = 0; i < regions->count; i++) {
		err = vhdx_region_check(table, offset, i, &r, fault);
		if (err)
			return err;
		if (vhdx_guid_equal(&r.guid, &vhdx_guid_bat_region))
			regions->bat = r;
		else if (vhdx_guid_equal(&r.guid, &vhdx_guid_metadata_region))
			regions->metadata = r;
		else if (r.required)
			return vhdx_fail(fault, -EOPNOTSUPP,
					 "region table: a required region is unknown",
					 vhdx_region_entry_offset(offset, i), 0);
		if (regions->metadata.length > VHDX_MAX_METADATA_LENGTH)
			return vhdx_fail(fault, -EOPNOTSUPP,
					 "region table: metadata region is longer than 128 MiB",
					 vhdx_region_entry_offset(offset, i) +
					 offsetof(struct vhdx_region_table_entry, length),
					 r.length);
	}
	if (!regions->bat.length)
		return vhdx_fail(fault, -EINVAL, "region table: no BAT region", offset, 0);
	if (!regions->metadata.length)
		return vhdx_fail(fault, -EINVAL, "region table: no metadata region", offset, 0);
	return 0;
}

static void vhdx_region_put(void *table, unsigned int i, const struct vhdx_region *region,
			    const struct vhdx_guid *guid)
{
	struct vhdx_region_table_entry *e =
		table + sizeof(struct vhdx_region_table_header);

	e += i;
	e->guid = *guid;
	e->file_offset = cpu_to_le64(region->offset);
	e->length = cpu_to_le32(region->length);
	e->flags = cpu_to_le32(region->required ? VHDX_REGION_REQUIRED : 0);
}

void vhdx_region_table_build(void *table, const struct vhdx_region *bat,
			     const struct vhdx_region *metadata)
{
	struct vhdx_region_table_header *h = table;

	memset(table, 0, VHDX_REGION_TABLE_SIZE);
	h->signature = cpu_to_le32(VHDX_REGION_SIGNATURE);
	h->entry_count = cpu_to_le32(2);
	vhdx_region_put(table, 0, bat, &vhdx_guid_bat_region);
	vhdx_region_put(table, 1, metadata, &vhdx_guid_metadata_region);
	h->checksum = cpu_to_le32(vhdx_checksum(table, VHDX_REGION_TABLE_SIZE));
}

/* ---- metadata ------------------------------------------------------------- */

#define VHDX_METADATA_MAX_USER_ENTRIES	1024U

/* The known items.  Length 0: any that holds a locator header. */
static const struct vhdx_item_rule {
	const struct vhdx_guid *id;
	u32 length;
	const char *missing;
} vhdx_item_rules[VHDX_ITEM_COUNT] = {
	[VHDX_ITEM_FILE_PARAMETERS] = {
		&vhdx_guid_file_parameters, sizeof(struct vhdx_file_parameters),
		"metadata table: no file parameters item"
	},
	[VHDX_ITEM_VIRTUAL_DISK_SIZE] = {
		&vhdx_guid_virtual_disk_size, 8,
		"metadata table: no virtual disk size item"
	},
	[VHDX_ITEM_VIRTUAL_DISK_ID] = {
		&vhdx_guid_virtual_disk_id, 16,
		"metadata table: no virtual disk ID item"
	},
	[VHDX_ITEM_LOGICAL_SECTOR_SIZE] = {
		&vhdx_guid_logical_sector_size, 4,
		"metadata table: no logical sector size item"
	},
	[VHDX_ITEM_PHYSICAL_SECTOR_SIZE] = {
		&vhdx_guid_physical_sector_size, 4,
		"metadata table: no physical sector size item"
	},
	[VHDX_ITEM_PARENT_LOCATOR] = {
		&vhdx_guid_parent_locator, 0, NULL
	},
};

/* Entry @i against the rules for one entry, and against the entries before it. */
static int vhdx_metadata_entry_check(const struct vhdx_metadata_table_entry *entries,
				     unsigned int i, const struct vhdx_region *region,
				     u64 at, struct vhdx_fault *fault)
{
	u32 offset = le32_to_cpu(entries[i].offset);
	u32 length = le32_to_cpu(entries[i].length);
	u32 user = le32_to_cpu(entries[i].flags) & VHDX_METADATA_IS_USER;
	u64 offset_at = at + offsetof(struct vhdx_metadata_table_entry, offset);
	u64 length_at = at + offsetof(struct vhdx_metadata_table_entry, length);
	unsigned int j;

	if (length > VHDX_METADATA_MAX_ITEM)
		return vhdx_fail(fault, -EINVAL, "metadata entry: item is longer than 1 MiB",
				 length_at, length);
	if (!length && offset)
		return vhdx_fail(fault, -EINVAL, "metadata entry: empty item has an offset",
				 offset_at, offset);
	if (length && offset < VHDX_METADATA_TABLE_SIZE)
		return vhdx_fail(fault, -EINVAL, "metadata entry: item lies on the table",
				 offset_at, offset);
	if ((u64)offset + length > region->length)
		return vhdx_fail(fault, -EINVAL, "metadata entry: item is out of the region",
				 offset_at, offset);

	for (j = 0; j < i; j++) {
		u32 other = le32_to_cpu(entries[j].offset);
		u32 other_length = le32_to_cpu(entries[j].length);
		u32 other_user = le32_to_cpu(entries[j].flags) & VHDX_METADATA_IS_USER;

		if (user == other_user &&
		    vhdx_guid_equal(&entries[i].item_id, &entries[j].item_id))
			return vhdx_fail(fault, -EINVAL, "metadata table: one item twice",
					 at, 0);
		if (length && other_length && offset < (u64)other + other_length &&
		    other < (u64)offset + length)
			return vhdx_fail(fault, -EINVAL, "metadata table: items overlap",
					 offset_at, offset);
	}
	return 0;
}

static int vhdx_metadata_entry_take(const struct vhdx_metadata_table_entry *e, u64 at,
				    struct vhdx_item_place *items,
				    struct vhdx_fault *fault)
{
	u32 flags = le32_to_cpu(e->flags);
	u32 length = le32_to_cpu(e->length);
	unsigned int item;

	for (item = 0; item < VHDX_ITEM_COUNT; item++)
		if (vhdx_guid_equal(&e->item_id, vhdx_item_rules[item].id))
			break;

	/* User items have a name space of their own. */
	if (item == VHDX_ITEM_COUNT || (flags & VHDX_METADATA_IS_USER)) {
		if (flags & VHDX_METADATA_IS_REQUIRED)
			return vhdx_fail(fault, -EOPNOTSUPP,
					 "metadata table: a required item is unknown", at, 0);
		return 0;
	}

	if (item == VHDX_ITEM_PARENT_LOCATOR ? length < sizeof(struct vhdx_locator_header) :
	    length != vhdx_item_rules[item].length)
		return vhdx_fail(fault, -EINVAL, "metadata entry: length is wrong for the item",
				 at + offsetof(struct vhdx_metadata_table_entry, length),
				 length);
	items[item].offset = le32_to_cpu(e->offset);
	items[item].length = length;
	return 0;
}

int vhdx_metadata_table_parse(const void *table, const struct vhdx_region *region,
			      struct vhdx_item_place *items,
			      struct vhdx_fault *fault)
{
	const struct vhdx_metadata_table_header *h = table;
	const struct vhdx_metadata_table_entry *entries = table + sizeof(*h);
	unsigned int count = le16_to_cpu(h->entry_count);
	unsigned int users = 0;
	unsigned int i;
	u64 at;
	int err;

	memset(items, 0, VHDX_ITEM_COUNT * sizeof(*items));
	if (le64_to_cpu(h->signature) != VHDX_METADATA_SIGNATURE)
		return vhdx_fail(fault, -EBADMSG, "metadata table: signature is wrong",
				 region->offset, le64_to_cpu(h->signature));
	if (count > VHDX_METADATA_MAX_ENTRIES)
		return vhdx_fail(fault, -EINVAL, "metadata table: too many entries",
				 region->offset +
				 offsetof(struct vhdx_metadata_table_header, entry_count),
				 count);

	for (i = 0; i < count; i++) {
		at = region->offset + sizeof(*h) + i * sizeof(*entries);
		if (le32_to_cpu(entries[i].flags) & VHDX_METADATA_IS_USER)
			users++;
		if (users > VHDX_METADATA_MAX_USER_ENTRIES)
			return vhdx_fail(fault, -EINVAL, "metadata table: too many user entries",
					 at, users);
		err = vhdx_metadata_entry_check(entries, i, region, at, fault);
		if (err)
			return err;
		err = vhdx_metadata_entry_take(&entries[i], at, items, fault);
		if (err)
			return err;
	}

	for (i = 0; i < VHDX_ITEM_PARENT_LOCATOR; i++)
		if (!items[i].length)
			return vhdx_fail(fault, -EINVAL, vhdx_item_rules[i].missing,
					 region->offset, 0);
	return 0;
}

static u32 vhdx_get_le32(const u8 *p)
{
	__le32 x;

	memcpy(&x, p, sizeof(x));
	return le32_to_cpu(x);
}

static u64 vhdx_get_le64(const u8 *p)
{
	__le64 x;

	memcpy(&x, p, sizeof(x));
	return le64_to_cpu(x);
}

static const char *vhdx_block_size_fault(u64 size)
{
	if (size < VHDX_MIN_BLOCK_SIZE || size > VHDX_MAX_BLOCK_SIZE)
		return "block size: not in 1 MiB to 256 MiB";
	if (!vhdx_is_power_of_2(size))
		return "block size: not a power of two";
	return NULL;
}

static const char *vhdx_virtual_size_fault(u64 size, u32 sector_size)
{
	if (!size)
		return "virtual disk size: 0";
	if (size > VHDX_MAX_VIRTUAL_SIZE)
		return "virtual disk size: more than 64 TiB";
	if (size & (sector_size - 1))
		return "virtual disk size: not a multiple of the logical sector size";
	return NULL;
}

int vhdx_metadata_decode(const u8 values[][VHDX_ITEM_VALUE_MAX],
			 const struct vhdx_region *region,
			 const struct vhdx_item_place *items,
			 struct vhdx_metadata *meta, struct vhdx_fault *fault)
{
	const u8 *params = values[VHDX_ITEM_FILE_PARAMETERS];
	u64 at[VHDX_ITEM_COUNT];
	const char *what;
	unsigned int i;
	u32 flags;

	for (i = 0; i < VHDX_ITEM_COUNT; i++)
		at[i] = region->offset + items[i].offset;

	meta->block_size =
		vhdx_get_le32(params + offsetof(struct vhdx_file_parameters, block_size));
	flags = vhdx_get_le32(params + offsetof(struct vhdx_file_parameters, flags));
	meta->has_parent = flags & VHDX_PARAM_HAS_PARENT;
	/* 2.6.2.1: without a meaning in an image that has a parent. */
	meta->leave_allocated = (flags & VHDX_PARAM_LEAVE_ALLOCATED) && !meta->has_parent;
	meta->virtual_size = vhdx_get_le64(values[VHDX_ITEM_VIRTUAL_DISK_SIZE]);
	meta->logical_sector_size = vhdx_get_le32(values[VHDX_ITEM_LOGICAL_SECTOR_SIZE]);
	meta->physical_sector_size = vhdx_get_le32(values[VHDX_ITEM_PHYSICAL_SECTOR_SIZE]);
	memcpy(&meta->virtual_disk_id, values[VHDX_ITEM_VIRTUAL_DISK_ID],
	       sizeof(meta->virtual_disk_id));

	what = vhdx_block_size_fault(meta->block_size);
	if (what)
		return vhdx_fail(fault, -EINVAL, what, at[VHDX_ITEM_FILE_PARAMETERS],
				 meta->block_size);
	if (!vhdx_is_sector_size(meta->logical_sector_size))
		return vhdx_fail(fault, -EINVAL, "logical sector size: not 512 or 4096",
				 at[VHDX_ITEM_LOGICAL_SECTOR_SIZE],
				 meta->logical_sector_size);
	if (!vhdx_is_sector_size(meta->physical_sector_size))
		return vhdx_fail(fault, -EINVAL, "physical sector size: not 512 or 4096",
				 at[VHDX_ITEM_PHYSICAL_SECTOR_SIZE],
				 meta->physical_sector_size);
	what = vhdx_virtual_size_fault(meta->virtual_size, meta->logical_sector_size);
	if (what)
		return vhdx_fail(fault, -EINVAL, what, at[VHDX_ITEM_VIRTUAL_DISK_SIZE],
				 meta->virtual_size);
	if (meta->has_parent && !items[VHDX_ITEM_PARENT_LOCATOR].length)
		return vhdx_fail(fault, -EINVAL, "metadata: has a parent but no parent locator",
				 at[VHDX_ITEM_FILE_PARAMETERS] +
				 offsetof(struct vhdx_file_parameters, flags), flags);
	if (!meta->has_parent && items[VHDX_ITEM_PARENT_LOCATOR].length)
		return vhdx_fail(fault, -EINVAL, "metadata: has a parent locator but no parent",
				 at[VHDX_ITEM_PARENT_LOCATOR], flags);
	return 0;
}

static void vhdx_metadata_put(void *buf, unsigned int i, enum vhdx_item item, u32 offset,
			      u32 flags, const void *value, u32 length)
{
	struct vhdx_metadata_table_entry *e =
		buf + sizeof(struct vhdx_metadata_table_header);

	e += i;
	e->item_id = *vhdx_item_rules[item].id;
	e->offset = cpu_to_le32(VHDX_METADATA_TABLE_SIZE + offset);
	e->length = cpu_to_le32(length);
	e->flags = cpu_to_le32(flags);
	memcpy(buf + VHDX_METADATA_TABLE_SIZE + offset, value, length);
}

int vhdx_metadata_build(void *buf, size_t size, const struct vhdx_metadata *meta,
			const void *locator, u32 locator_length)
{
	const u32 disk = VHDX_METADATA_IS_REQUIRED | VHDX_METADATA_IS_VIRTUAL_DISK;
	const __le64 virtual_size = cpu_to_le64(meta->virtual_size);
	const __le32 logical = cpu_to_le32(meta->logical_sector_size);
	const __le32 physical = cpu_to_le32(meta->physical_sector_size);
	const struct vhdx_file_parameters params = {
		.block_size = cpu_to_le32(meta->block_size),
		.flags = cpu_to_le32((meta->leave_allocated ? VHDX_PARAM_LEAVE_ALLOCATED : 0) |
				     (meta->has_parent ? VHDX_PARAM_HAS_PARENT : 0)),
	};
	struct vhdx_metadata_table_header *h = buf;

	if (size < VHDX_METADATA_TABLE_SIZE + 64)
		return -EINVAL;
	if (meta->has_parent != !!locator)
		return -EINVAL;
	if (locator && (locator_length > VHDX_METADATA_MAX_ITEM ||
			locator_length > size - VHDX_METADATA_TABLE_SIZE - 0x28))
		return -EINVAL;

	memset(buf, 0, size);
	h->signature = cpu_to_le64(VHDX_METADATA_SIGNATURE);
	h->entry_count = cpu_to_le16(locator ? 6 : 5);
	vhdx_metadata_put(buf, 0, VHDX_ITEM_FILE_PARAMETERS, 0, VHDX_METADATA_IS_REQUIRED,
			  &params, sizeof(params));
	vhdx_metadata_put(buf, 1, VHDX_ITEM_VIRTUAL_DISK_SIZE, 0x8, disk,
			  &virtual_size, sizeof(virtual_size));
	vhdx_metadata_put(buf, 2, VHDX_ITEM_LOGICAL_SECTOR_SIZE, 0x10, disk,
			  &logical, sizeof(logical));
	vhdx_metadata_put(buf, 3, VHDX_ITEM_PHYSICAL_SECTOR_SIZE, 0x14, disk,
			  &physical, sizeof(physical));
	vhdx_metadata_put(buf, 4, VHDX_ITEM_VIRTUAL_DISK_ID, 0x18, disk,
			  &meta->virtual_disk_id, sizeof(meta->virtual_disk_id));
	if (locator)
		vhdx_metadata_put(buf, 5, VHDX_ITEM_PARENT_LOCATOR, 0x28,
				  VHDX_METADATA_IS_REQUIRED, locator, locator_length);
	return 0;
}

/* ---- geometry -------------------------------------------------------------- */

int vhdx_geometry_init(struct vhdx_geometry *geo, u64 virtual_size, u32 block_size,
		       u32 sector_size, bool has_parent, struct vhdx_fault *fault)
{
	const char *what;

	if (!vhdx_is_sector_size(sector_size))
		return vhdx_fail(fault, -EINVAL, "logical sector size: not 512 or 4096",
				 0, sector_size);
	what = vhdx_block_size_fault(block_size);
	if (what)
		return vhdx_fail(fault, -EINVAL, what, 0, block_size);
	what = vhdx_virtual_size_fault(virtual_size, sector_size);
	if (what)
		return vhdx_fail(fault, -EINVAL, what, 0, virtual_size);

	geo->virtual_size = virtual_size;
	geo->block_size = block_size;
	geo->sector_size = sector_size;
	geo->block_shift = vhdx_log2(block_size);
	geo->sector_shift = vhdx_log2(sector_size);
	geo->ratio_shift = VHDX_SECTORS_PER_CHUNK_SHIFT + geo->sector_shift - geo->block_shift;
	geo->has_parent = has_parent;
	geo->nr_blocks = (virtual_size + block_size - 1) >> geo->block_shift;
	geo->nr_chunks = ((geo->nr_blocks - 1) >> geo->ratio_shift) + 1;
	/* The last entry is the last block's, or the last chunk's bitmap's. */
	if (has_parent)
		geo->nr_entries = vhdx_bat_bitmap_index(geo, geo->nr_chunks - 1) + 1;
	else
		geo->nr_entries = vhdx_bat_payload_index(geo, geo->nr_blocks - 1) + 1;
	return 0;
}

u32 vhdx_bat_chunk(const struct vhdx_geometry *geo, u32 index)
{
	return index / ((1U << geo->ratio_shift) + 1);
}

/* ---- BAT checks ------------------------------------------------------------- */

/* The bits of @map's word that holds bit @bit, from there on, no more than @nr. */
static unsigned long vhdx_claim_mask(u64 bit, u64 nr, unsigned int *done)
{
	unsigned int low = bit & (BITS_PER_LONG - 1);
	unsigned int n = BITS_PER_LONG - low;

	if (nr < n)
		n = nr;
	*done = n;
	return (~0UL >> (BITS_PER_LONG - n)) << low;
}

int vhdx_claim(struct vhdx_claims *claims, u64 mib, u64 nr_mib)
{
	unsigned long mask;
	unsigned int n;
	u64 i;

	if (mib > claims->nr_mib || nr_mib > claims->nr_mib - mib)
		return -ERANGE;

	for (i = 0; i < nr_mib; i += n) {
		mask = vhdx_claim_mask(mib + i, nr_mib - i, &n);
		if (claims->map[(mib + i) / BITS_PER_LONG] & mask)
			return -EEXIST;
	}
	for (i = 0; i < nr_mib; i += n) {
		mask = vhdx_claim_mask(mib + i, nr_mib - i, &n);
		claims->map[(mib + i) / BITS_PER_LONG] |= mask;
	}
	return 0;
}

int vhdx_claim_regions(struct vhdx_claims *claims, const struct vhdx_header_info *info,
		       const void *table, u64 table_offset, struct vhdx_fault *fault)
{
	const struct vhdx_region_table_header *h = table;
	u32 count = le32_to_cpu(h->entry_count);
	struct vhdx_region r;
	unsigned int i;
	u64 at;
	int err;

	err = vhdx_claim(claims, 0, VHDX_HEADER_SECTION_SIZE >> VHDX_MIB_SHIFT);
	if (err)
		return vhdx_fail(fault, -EINVAL, "header section: file is shorter than 1 MiB",
				 0, claims->nr_mib);

	at = vhdx_header_offset(info->slot) + offsetof(struct vhdx_header, log_offset);
	err = vhdx_claim(claims, info->log_offset >> VHDX_MIB_SHIFT,
			 info->log_length >> VHDX_MIB_SHIFT);
	if (err)
		return vhdx_fail(fault, -EINVAL,
				 err == -ERANGE ? "header: log lies behind the end of the file" :
						  "header: log lies on the header section",
				 at, info->log_offset);

	for (i = 0; i < count && i < VHDX_REGION_MAX_ENTRIES; i++) {
		vhdx_region_get(table, i, &r);
		at = vhdx_region_entry_offset(table_offset, i) +
		     offsetof(struct vhdx_region_table_entry, file_offset);
		err = vhdx_claim(claims, r.offset >> VHDX_MIB_SHIFT,
				 r.length >> VHDX_MIB_SHIFT);
		if (err)
			return vhdx_fail(fault, -EINVAL, err == -ERANGE ?
					 "region table: region lies behind the end of the file" :
					 "region table: region lies on the log",
					 at, r.offset);
	}
	return 0;
}

/*
 * Take @nr_mib of the file for a block; @least of them must be there, the rest may
 * be cut off by the end of the file.
 */
static int vhdx_bat_claim(struct vhdx_bat_walk *walk, u64 entry, u64 at, u32 nr_mib,
			  u32 least, struct vhdx_fault *fault)
{
	struct vhdx_claims *claims = walk->claims;
	u64 mib = vhdx_bat_mib(entry);

	if (!mib)
		return vhdx_fail(fault, -EINVAL, "BAT entry: block lies on the header section",
				 at, entry);
	if (mib > claims->nr_mib || least > claims->nr_mib - mib)
		return vhdx_fail(fault, -EINVAL,
				 "BAT entry: block lies behind the end of the file", at, entry);
	if (mib + nr_mib > VHDX_MAX_FILE_MIB)
		return vhdx_fail(fault, -EOPNOTSUPP, "BAT entry: block lies behind 512 TiB",
				 at, entry);
	if (nr_mib > claims->nr_mib - mib)
		nr_mib = claims->nr_mib - mib;
	if (vhdx_claim(claims, mib, nr_mib))
		return vhdx_fail(fault, -EINVAL,
				 "BAT entry: block lies on a region or another block",
				 at, entry);
	return 0;
}

static int vhdx_bat_walk_payload(struct vhdx_bat_walk *walk, u64 entry, u64 at, u32 block,
				 struct vhdx_fault *fault)
{
	const struct vhdx_geometry *geo = walk->geo;
	u32 least = vhdx_block_mib(geo);
	u64 left = geo->virtual_size - ((u64)block << geo->block_shift);
	int err;

	if (left < geo->block_size)
		least = (left + VHDX_MIB - 1) >> VHDX_MIB_SHIFT;

	switch (vhdx_bat_state(entry)) {
	case VHDX_BLOCK_NOT_PRESENT:
	case VHDX_BLOCK_ZERO:
		/* The place is reserved: whatever stands there names no block. */
		return 0;
	case VHDX_BLOCK_UNDEFINED:
	case VHDX_BLOCK_UNMAPPED:
		/* A place, if there is one, still belongs to this block. */
		if (!vhdx_bat_mib(entry))
			return 0;
		return vhdx_bat_claim(walk, entry, at, vhdx_block_mib(geo), least, fault);
	case VHDX_BLOCK_FULLY_PRESENT:
		err = vhdx_bat_claim(walk, entry, at, vhdx_block_mib(geo), least, fault);
		if (!err)
			walk->nr_full++;
		return err;
	case VHDX_BLOCK_PARTIALLY_PRESENT:
		if (!geo->has_parent)
			return vhdx_fail(fault, -EINVAL,
					 "BAT entry: partial block in an image without parent",
					 at, entry);
		walk->chunk_partial = true;
		err = vhdx_bat_claim(walk, entry, at, vhdx_block_mib(geo), least, fault);
		if (!err)
			walk->nr_partial++;
		return err;
	default:
		return vhdx_fail(fault, -EINVAL, "BAT entry: state is reserved", at, entry);
	}
}

static int vhdx_bat_walk_bitmap(struct vhdx_bat_walk *walk, u64 entry, u64 at,
				bool partial, struct vhdx_fault *fault)
{
	int err;

	if (!walk->geo->has_parent) {
		if (entry)
			return vhdx_fail(fault, -EINVAL,
					 "BAT entry: bitmap block in an image without parent",
					 at, entry);
		return 0;
	}
	switch (vhdx_bat_state(entry)) {
	case VHDX_BITMAP_NOT_PRESENT:
		if (partial)
			return vhdx_fail(fault, -EINVAL,
					 "BAT entry: no bitmap block for a partial block",
					 at, entry);
		return 0;
	case VHDX_BITMAP_PRESENT:
		err = vhdx_bat_claim(walk, entry, at, 1, 1, fault);
		if (!err)
			walk->nr_bitmaps++;
		return err;
	default:
		return vhdx_fail(fault, -EINVAL, "BAT entry: bitmap state is reserved",
				 at, entry);
	}
}

int vhdx_bat_walk_entry(struct vhdx_bat_walk *walk, u64 entry, bool *is_bitmap,
			u32 *number, struct vhdx_fault *fault)
{
	const struct vhdx_geometry *geo = walk->geo;
	u64 at = walk->bat_offset + 8ULL * walk->index;
	u32 index = walk->index;
	u32 chunk = walk->chunk;
	bool partial = walk->chunk_partial;

	*is_bitmap = false;
	*number = ~0U;
	if (index >= geo->nr_entries)
		return 0;

	walk->index++;
	*is_bitmap = vhdx_bat_is_bitmap(geo, index, chunk);
	if (*is_bitmap) {
		*number = chunk;
		walk->chunk++;
		walk->chunk_partial = false;
	} else if (index - chunk < geo->nr_blocks) {
		*number = index - chunk;
	} else {
		return 0;
	}

	if (entry & VHDX_BAT_RESERVED_MASK)
		return vhdx_fail(fault, -EINVAL, "BAT entry: reserved bits are set", at, entry);
	if (*is_bitmap)
		return vhdx_bat_walk_bitmap(walk, entry, at, partial, fault);
	return vhdx_bat_walk_payload(walk, entry, at, *number, fault);
}

u32 vhdx_bat_walk_absent(struct vhdx_bat_walk *walk, const __le64 *bat, u32 nr)
{
	const struct vhdx_geometry *geo = walk->geo;
	u32 payload = vhdx_bat_bitmap_index(geo, walk->chunk) - walk->index;
	u32 block = walk->index - walk->chunk;
	u32 blocks = block < geo->nr_blocks ? geo->nr_blocks - block : 0;
	u32 n = 0;

	if (nr > payload)
		nr = payload;
	if (nr > blocks)
		nr = blocks;
	while (nr - n >= 4 && !(bat[n] | bat[n + 1] | bat[n + 2] | bat[n + 3]))
		n += 4;
	while (n < nr && !bat[n])
		n++;
	walk->index += n;
	return n;
}

/* ---- log entries -------------------------------------------------------------- */

void vhdx_log_entry_build(struct vhdx_log_entry_header *h,
			  const struct vhdx_log_entry_info *info)
{
	memset(h, 0, sizeof(*h));
	h->signature = cpu_to_le32(VHDX_LOG_ENTRY_SIGNATURE);
	h->entry_length = cpu_to_le32(info->entry_length);
	h->tail = cpu_to_le32(info->tail);
	h->sequence_number = cpu_to_le64(info->sequence_number);
	h->descriptor_count = cpu_to_le32(info->descriptor_count);
	h->log_guid = info->log_guid;
	h->flushed_file_offset = cpu_to_le64(info->flushed_file_offset);
	h->last_file_offset = cpu_to_le64(info->last_file_offset);
}

void vhdx_log_data_pack(void *page, struct vhdx_log_data_descriptor *desc,
			u64 file_offset, u64 sequence_number)
{
	struct vhdx_log_data_sector *sector = page;

	desc->signature = cpu_to_le32(VHDX_LOG_DESC_SIGNATURE);
	memcpy(desc->leading_bytes, page, sizeof(desc->leading_bytes));
	memcpy(desc->trailing_bytes, &sector->sequence_low, sizeof(desc->trailing_bytes));
	desc->file_offset = cpu_to_le64(file_offset);
	desc->sequence_number = cpu_to_le64(sequence_number);

	sector->signature = cpu_to_le32(VHDX_LOG_DATA_SIGNATURE);
	sector->sequence_high = cpu_to_le32((u32)(sequence_number >> 32));
	sector->sequence_low = cpu_to_le32((u32)sequence_number);
}

void vhdx_log_data_unpack(void *page, const struct vhdx_log_data_descriptor *desc)
{
	struct vhdx_log_data_sector *sector = page;

	memcpy(page, desc->leading_bytes, sizeof(desc->leading_bytes));
	memcpy(&sector->sequence_low, desc->trailing_bytes, sizeof(desc->trailing_bytes));
}

void vhdx_log_entry_seal(struct vhdx_log_entry_header *h, u32 crc)
{
	h->checksum = cpu_to_le32(~crc);
}

int vhdx_log_entry_parse(const struct vhdx_log_entry_header *h, u32 log_length,
			 struct vhdx_log_entry_info *info)
{
	if (le32_to_cpu(h->signature) != VHDX_LOG_ENTRY_SIGNATURE)
		return -EBADMSG;

	info->entry_length = le32_to_cpu(h->entry_length);
	info->tail = le32_to_cpu(h->tail);
	info->sequence_number = le64_to_cpu(h->sequence_number);
	info->descriptor_count = le32_to_cpu(h->descriptor_count);
	info->log_guid = h->log_guid;
	info->flushed_file_offset = le64_to_cpu(h->flushed_file_offset);
	info->last_file_offset = le64_to_cpu(h->last_file_offset);

	if (!info->entry_length || info->entry_length % VHDX_LOG_SECTOR ||
	    info->entry_length > log_length)
		return -EBADMSG;
	if (info->tail % VHDX_LOG_SECTOR || info->tail >= log_length)
		return -EBADMSG;
	if (!info->sequence_number)
		return -EBADMSG;
	if (vhdx_log_entry_bytes(info->descriptor_count, 0) > info->entry_length)
		return -EBADMSG;
	return 0;
}

/* A zero or data descriptor; @data tells which. */
static bool vhdx_log_descriptor_is_valid(const void *desc, u64 sequence_number, bool *data)
{
	const struct vhdx_log_zero_descriptor *zero = desc;
	u64 length;
	u64 offset;

	/* Both kinds have signature, place and sequence number at the same bytes. */
	switch (le32_to_cpu(zero->signature)) {
	case VHDX_LOG_DESC_SIGNATURE:
		*data = true;
		length = VHDX_PAGE_SIZE;
		break;
	case VHDX_LOG_ZERO_SIGNATURE:
		*data = false;
		length = le64_to_cpu(zero->zero_length);
		break;
	default:
		return false;
	}
	offset = le64_to_cpu(zero->file_offset);
	return le64_to_cpu(zero->sequence_number) == sequence_number &&
	       !(length % VHDX_PAGE_SIZE) && !(offset % VHDX_PAGE_SIZE) &&
	       offset + length >= offset;
}

int vhdx_log_entry_check(const void *entry, const struct vhdx_log_entry_info *info)
{
	const struct vhdx_log_entry_header *h = entry;
	const struct vhdx_log_zero_descriptor *descs = entry + sizeof(*h);
	const struct vhdx_log_data_sector *sector;
	u64 seq = info->sequence_number;
	u32 nr_data = 0;
	bool data;
	u32 i;

	/* The header was read twice perhaps: it must still be the one that was parsed. */
	if (le32_to_cpu(h->signature) != VHDX_LOG_ENTRY_SIGNATURE ||
	    le32_to_cpu(h->entry_length) != info->entry_length ||
	    le32_to_cpu(h->descriptor_count) != info->descriptor_count ||
	    le64_to_cpu(h->sequence_number) != seq)
		return -EBADMSG;
	if (le32_to_cpu(h->checksum) != vhdx_checksum(entry, info->entry_length))
		return -EBADMSG;

	for (i = 0; i < info->descriptor_count; i++) {
		if (!vhdx_log_descriptor_is_valid(&descs[i], seq, &data))
			return -EBADMSG;
		nr_data += data;
	}
	if (vhdx_log_entry_bytes(info->descriptor_count, nr_data) > info->entry_length)
		return -EBADMSG;

	sector = entry + vhdx_log_entry_bytes(info->descriptor_count, 0);
	for (i = 0; i < nr_data; i++, sector++)
		if (le32_to_cpu(sector->signature) != VHDX_LOG_DATA_SIGNATURE ||
		    le32_to_cpu(sector->sequence_high) != (u32)(seq >> 32) ||
		    le32_to_cpu(sector->sequence_low) != (u32)seq)
			return -EBADMSG;
	return 0;
}
