// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * vhdclone dump: all metadata of an image, however broken it is, and nothing of what
 * the guest wrote.  Each part says for itself what is wrong with it.
 */
#include <sys/stat.h>

#include "options.h"

#define DUMP_LOG_MOST	(64 * VHDX_MIB)	/* a longer log is not searched */
#define DUMP_LOG_WRITES	0x40000U	/* nor is more shown of one */
#define DUMP_PAGE_RUNS	64U		/* a bitmap page with more runs is shown as it is */

static struct json_object *dump_add_object(struct json_object *parent, const char *key)
{
	struct json_object *object = json_need(json_object_new_object());

	json_add(parent, key, object);
	return object;
}

static struct json_object *dump_add_array(struct json_object *parent, const char *key)
{
	struct json_object *array = json_need(json_object_new_array());

	json_add(parent, key, array);
	return array;
}

static struct json_object *dump_push(struct json_object *array)
{
	struct json_object *object = json_object_new_object();

	json_push(array, object);
	return object;
}

static void dump_add_fault(struct json_object *object, int ret,
			   const struct vhdx_fault *fault)
{
	json_add_string(object, "fault", ret ? fault->what : NULL);
	if (ret)
		json_add_number(object, "fault-offset", fault->offset);
}

static void dump_add_hex(struct json_object *object, const char *key, const u8 *buf,
			 size_t len)
{
	char *text = malloc(2 * len + 1);
	size_t i;

	for (i = 0; text && i < len; i++)
		sprintf(text + 2 * i, "%02x", buf[i]);
	json_add_string(object, key, text && len ? text : NULL);
	free(text);
}

/* ---- headers and region tables ------------------------------------------------------ */

static int dump_headers(const struct vc_file *file, struct json_object *top,
			struct vc_err *err)
{
	struct json_object *array = dump_add_array(top, "headers");
	struct vhdx_header *h = malloc(sizeof(*h));
	struct json_object *json;
	unsigned int slot;
	bool valid;
	int ret = 0;

	if (!h)
		return vc_error_nomem(err);
	for (slot = 0; slot < 2 && !ret; slot++) {
		ret = vc_file_read(file, "header", vhdx_header_offset(slot), h, sizeof(*h), err);
		if (ret)
			break;
		valid = le32_to_cpu(h->signature) == VHDX_HEADER_SIGNATURE &&
			le32_to_cpu(h->checksum) == vhdx_checksum(h, sizeof(*h));
		json = dump_push(array);
		json_add_number(json, "offset", vhdx_header_offset(slot));
		json_add_bool(json, "valid", valid);
		json_add_number(json, "checksum", le32_to_cpu(h->checksum));
		json_add_number(json, "sequence-number", le64_to_cpu(h->sequence_number));
		json_add_guid(json, "file-write-guid", &h->file_write_guid);
		json_add_guid(json, "data-write-guid", &h->data_write_guid);
		json_add_guid(json, "log-guid", &h->log_guid);
		json_add_number(json, "log-version", le16_to_cpu(h->log_version));
		json_add_number(json, "version", le16_to_cpu(h->version));
		json_add_number(json, "log-length", le32_to_cpu(h->log_length));
		json_add_number(json, "log-offset", le64_to_cpu(h->log_offset));
	}
	free(h);
	return ret;
}

static void dump_region_table(const u8 *table, u64 offset, struct json_object *json)
{
	const struct vhdx_region_table_header *head = (const void *)table;
	u32 count = le32_to_cpu(head->entry_count);
	struct vhdx_fault fault = { };
	struct vhdx_regions regions;
	struct vhdx_region region;
	struct json_object *array;
	struct json_object *entry;
	int ret;
	u32 i;

	ret = vhdx_region_table_parse(table, offset, &regions, &fault);
	json_add_number(json, "offset", offset);
	dump_add_fault(json, ret, &fault);
	json_add_number(json, "signature", le32_to_cpu(head->signature));
	json_add_number(json, "checksum", le32_to_cpu(head->checksum));
	json_add_number(json, "entry-count", count);
	array = dump_add_array(json, "entries");
	for (i = 0; i < count && i < VHDX_REGION_MAX_ENTRIES; i++) {
		vhdx_region_get(table, i, &region);
		entry = dump_push(array);
		json_add_guid(entry, "guid", &region.guid);
		json_add_number(entry, "offset", region.offset);
		json_add_number(entry, "length", region.length);
		json_add_bool(entry, "required", region.required);
	}
}

static int dump_region_tables(const struct vc_file *file, const struct vc_image *image,
			      struct json_object *top, struct vc_err *err)
{
	static const u64 offsets[] = { VHDX_REGION_TABLE1_OFFSET, VHDX_REGION_TABLE2_OFFSET };
	struct json_object *array = dump_add_array(top, "region-tables");
	u8 *table = malloc(VHDX_REGION_TABLE_SIZE);
	unsigned int i;
	int ret = 0;

	if (!table)
		return vc_error_nomem(err);
	for (i = 0; i < ARRAY_SIZE(offsets) && !ret; i++) {
		if (image)
			ret = vc_image_read(image, "region table", offsets[i], table,
					    VHDX_REGION_TABLE_SIZE, err);
		else
			ret = vc_file_read(file, "region table", offsets[i], table,
					   VHDX_REGION_TABLE_SIZE, err);
		if (!ret)
			dump_region_table(table, offsets[i], dump_push(array));
	}
	free(table);
	return ret;
}

/* ---- metadata items ------------------------------------------------------------------ */

static int dump_item(const struct vc_image *image, const struct vhdx_metadata_table_entry *e,
		     struct json_object *json, struct vc_err *err)
{
	const struct vhdx_region *region = &image->regions.metadata;
	u32 length = le32_to_cpu(e->length);
	u32 offset = le32_to_cpu(e->offset);
	u32 flags = le32_to_cpu(e->flags);
	u8 *value;
	int ret;

	json_add_guid(json, "id", &e->item_id);
	json_add_number(json, "offset", offset);
	json_add_number(json, "length", length);
	json_add_bool(json, "user", flags & VHDX_METADATA_IS_USER);
	json_add_bool(json, "virtual-disk", flags & VHDX_METADATA_IS_VIRTUAL_DISK);
	json_add_bool(json, "required", flags & VHDX_METADATA_IS_REQUIRED);
	/* What a program put there for itself may be anything. */
	if (flags & VHDX_METADATA_IS_USER || length > VHDX_METADATA_MAX_ITEM)
		return 0;
	value = malloc(length + 1);
	if (!value)
		return vc_error_nomem(err);
	ret = vc_image_read(image, "metadata item", region->offset + offset, value, length, err);
	if (!ret)
		dump_add_hex(json, "value", value, length);
	free(value);
	return ret;
}

static int dump_metadata(const struct vc_image *image, struct json_object *top,
			 struct vc_err *err)
{
	struct json_object *array = dump_add_array(top, "metadata");
	u8 *table = malloc(VHDX_METADATA_TABLE_SIZE);
	const struct vhdx_metadata_table_header *head = (const void *)table;
	const struct vhdx_metadata_table_entry *entry;
	int ret;
	u32 i;

	if (!table)
		return vc_error_nomem(err);
	ret = vc_image_read(image, "metadata table", image->regions.metadata.offset, table,
			    VHDX_METADATA_TABLE_SIZE, err);
	entry = (const void *)(table + sizeof(*head));
	for (i = 0; !ret && i < le16_to_cpu(head->entry_count) &&
	     i < VHDX_METADATA_MAX_ENTRIES; i++)
		ret = dump_item(image, &entry[i], dump_push(array), err);
	free(table);
	return ret;
}

static void dump_locator(const struct vc_locator *locator, struct json_object *top)
{
	struct json_object *json;
	unsigned int i;

	if (!locator) {
		json_add(top, "parent-locator", NULL);
		return;
	}
	json = dump_add_object(top, "parent-locator");
	json_add_guid(json, "type", &locator->type);
	for (i = 0; i < locator->nr_pairs; i++)
		json_add_string(json, locator->pairs[i].key, locator->pairs[i].value);
}

/* ---- the BAT and the bitmaps --------------------------------------------------------- */

/* A run of entries of one state, whose places follow each other. */
struct dump_run {
	u32 first;
	u32 count;
	u64 entry;		/* of the first */
	u64 step;		/* from place to place, 0: all are the same */
};

struct dump_bat {
	const struct vc_image *image;
	struct json_object *blocks;
	struct json_object *bitmaps;
	struct json_object *faults;
	struct dump_run run;
};

static void dump_run_end(struct dump_bat *bat)
{
	struct dump_run *run = &bat->run;
	struct json_object *json;

	if (!run->count)
		return;
	json = dump_push(bat->blocks);
	json_add_number(json, "first", run->first);
	json_add_number(json, "count", run->count);
	json_add_number(json, "state", vhdx_bat_state(run->entry));
	json_add_number(json, "offset", vhdx_bat_mib(run->entry) << VHDX_MIB_SHIFT);
	run->count = 0;
}

static void dump_block(struct dump_bat *bat, u32 block, u64 entry)
{
	struct dump_run *run = &bat->run;
	u64 step = bat->image->geo.block_size;

	if (!vhdx_bat_mib(entry))
		step = 0;
	if (!run->count || run->first + run->count != block || run->step != step ||
	    run->entry + run->count * step != entry) {
		dump_run_end(bat);
		*run = (struct dump_run){ .first = block, .entry = entry, .step = step };
	}
	run->count++;
}

/*
 * The bits that are set: runs, as [first sector, sectors], and of a page that has many the
 * page itself.  So it takes a few times the memory of the bitmap, however that looks.
 */
struct dump_bits {
	struct json_object *runs;
	struct json_object *pages;
	u64 start;		/* of a run that may go on */
	u64 end;
};

static void dump_bits_end(struct dump_bits *out)
{
	struct json_object *pair;

	if (out->start == out->end)
		return;
	pair = json_need(json_object_new_array());
	json_push(pair, json_object_new_uint64(out->start));
	json_push(pair, json_object_new_uint64(out->end - out->start));
	json_push(out->runs, pair);
	out->start = out->end;
}

static unsigned int dump_nr_runs(const u8 *bits)
{
	unsigned int last = 0;
	unsigned int nr = 0;
	unsigned int i;

	for (i = 0; i < VHDX_PAGE_SIZE; last = bits[i++] >> 7)
		nr += __builtin_popcount(bits[i] & ~(bits[i] << 1 | last) & 0xff);
	return nr;
}

static void dump_page(struct dump_bits *out, const u8 *bits, u64 first)
{
	struct json_object *page;
	u64 i = 0;

	if (dump_nr_runs(bits) > DUMP_PAGE_RUNS) {
		page = dump_push(out->pages);
		json_add_number(page, "first", first);
		dump_add_hex(page, "bits", bits, VHDX_PAGE_SIZE);
		return;
	}
	while (i < VHDX_SECTORS_PER_PAGE) {
		if (!(bits[i / 8] >> i % 8 & 1)) {
			i += !(i % 8) && !bits[i / 8] ? 8 : 1;
			continue;
		}
		if (out->end != first + i) {
			dump_bits_end(out);
			out->start = first + i;
		}
		while (i < VHDX_SECTORS_PER_PAGE && bits[i / 8] >> i % 8 & 1)
			i++;
		out->end = first + i;
	}
}

static int dump_bitmap(struct dump_bat *bat, u32 chunk, u64 entry, struct vc_err *err)
{
	u64 first = (u64)chunk << VHDX_SECTORS_PER_CHUNK_SHIFT;
	struct json_object *json = dump_push(bat->bitmaps);
	u64 offset = vhdx_bat_mib(entry) << VHDX_MIB_SHIFT;
	struct dump_bits out = { };
	unsigned int i;
	u8 *bits;
	int ret;

	json_add_number(json, "chunk", chunk);
	json_add_number(json, "state", vhdx_bat_state(entry));
	json_add_number(json, "offset", offset);
	bits = malloc(VHDX_MIB);
	if (!bits)
		return vc_error_nomem(err);
	ret = vc_image_read(bat->image, "sector bitmap", offset, bits, VHDX_MIB, err);
	if (!ret) {
		out.runs = dump_add_array(json, "bits");
		out.pages = dump_add_array(json, "pages");
		for (i = 0; i < VHDX_BITMAP_PAGES_PER_CHUNK; i++)
			dump_page(&out, bits + i * VHDX_PAGE_SIZE,
				  first + (u64)i * VHDX_SECTORS_PER_PAGE);
		dump_bits_end(&out);
	}
	free(bits);
	return ret;
}

static int dump_entry(void *data, u32 number, bool is_bitmap, u64 entry, struct vc_err *err)
{
	struct dump_bat *bat = data;

	if (!is_bitmap)
		dump_block(bat, number, entry);
	else if (vhdx_bat_state(entry) == VHDX_BITMAP_PRESENT)
		return dump_bitmap(bat, number, entry, err);
	return 0;
}

static void dump_fault(void *data, u32 number, bool is_bitmap, u64 entry, int ret,
		       const struct vhdx_fault *fault)
{
	struct dump_bat *bat = data;
	struct json_object *json = dump_push(bat->faults);

	json_add_string(json, "of", is_bitmap ? "bitmap" : "block");
	json_add_number(json, "number", number);
	json_add_number(json, "entry", entry);
	dump_add_fault(json, ret, fault);
}

static int dump_bat(const struct vc_image *image, struct json_object *top,
		    struct vc_err *err)
{
	struct json_object *json = dump_add_object(top, "bat");
	struct dump_bat bat = {
		.image = image,
		.blocks = dump_add_array(json, "blocks"),
		.bitmaps = dump_add_array(json, "bitmaps"),
		.faults = dump_add_array(json, "faults"),
	};
	struct vc_usage usage;
	int ret;

	ret = vc_image_walk_all(image, &usage, dump_entry, dump_fault, &bat, err);
	dump_run_end(&bat);
	vc_usage_free(&usage);
	return ret;
}

/* ---- the log -------------------------------------------------------------------------- */

static void dump_log_entry(const u8 *entry, bool valid,
			   const struct vhdx_log_entry_info *info, u64 at,
			   struct json_object *json)
{
	const struct vhdx_log_zero_descriptor *desc;
	struct json_object *array;
	struct json_object *object;
	u32 i;

	json_add_number(json, "offset", at);
	json_add_bool(json, "valid", valid);
	json_add_guid(json, "log-guid", &info->log_guid);
	json_add_number(json, "length", info->entry_length);
	json_add_number(json, "tail", info->tail);
	json_add_number(json, "sequence-number", info->sequence_number);
	json_add_number(json, "flushed-file-offset", info->flushed_file_offset);
	json_add_number(json, "last-file-offset", info->last_file_offset);
	array = dump_add_array(json, "writes");
	desc = (const void *)(entry + sizeof(struct vhdx_log_entry_header));
	for (i = 0; valid && i < info->descriptor_count; i++) {
		bool zeros = le32_to_cpu(desc[i].signature) == VHDX_LOG_ZERO_SIGNATURE;

		object = dump_push(array);
		json_add_number(object, "offset", le64_to_cpu(desc[i].file_offset));
		json_add_number(object, "length",
				zeros ? le64_to_cpu(desc[i].zero_length) : VHDX_PAGE_SIZE);
		json_add_bool(object, "zeros", zeros);
	}
}

/* Old ones of former sessions, too: they tell what happened. */
static int dump_log(const struct vc_file *file, const struct vhdx_header_info *h,
		    struct json_object *top, struct vc_err *err)
{
	struct json_object *array = dump_add_array(top, "log");
	struct vhdx_log_entry_info info;
	struct vc_ring ring;
	const u8 *entry;
	u64 nr = 0;
	u32 pos;
	int ret;

	if (h->log_length > DUMP_LOG_MOST)
		return vc_error(err, EINVAL, file->path,
				"log: too long to be searched (offset %llu)", h->log_offset);
	ret = vc_ring_read(&ring, file, h, err);
	for (pos = 0; ret >= 0 && pos < ring.length; pos += VHDX_LOG_SECTOR) {
		if (!vc_ring_parse(&ring, pos, &info))
			continue;
		ret = vc_ring_check(&ring, pos, &info, &entry, err);
		nr += ret > 0 ? info.descriptor_count : 0;
		if (nr > DUMP_LOG_WRITES)
			ret = vc_error(err, EINVAL, file->path,
				       "log: too many writes to be shown (offset %llu)",
				       h->log_offset + pos);
		if (ret >= 0)
			dump_log_entry(entry, ret, &info, h->log_offset + pos,
				       dump_push(array));
	}
	vc_ring_free(&ring);
	return ret < 0 ? ret : 0;
}

/* ---- all of it ------------------------------------------------------------------------- */

static void dump_file(const struct vc_file *file, struct json_object *top)
{
	struct stat st;

	json_add_string(top, "path", file->path);
	json_add_string(top, "tool", "vhdclone " VHDCLONE_TOOL_VERSION);
	json_add_bool(top, "device", file->is_block);
	json_add_number(top, "file-size", file->size);
	if (!file->is_block && !fstat(file->fd, &st))
		json_add_number(top, "allocated-size", (u64)st.st_blocks * 512);
}

static void dump_error(struct json_object *errors, int ret, const struct vc_err *err)
{
	if (ret)
		json_push(errors, json_object_new_string(err->msg));
}

static void dump_image(const struct vc_image *image, struct json_object *top,
		       struct json_object *errors)
{
	struct json_object *json;
	struct vc_err err;

	json = dump_add_object(top, "disk");
	json_add_string(json, "type", vc_image_type(image));
	json_add_number(json, "virtual-size", image->meta.virtual_size);
	json_add_number(json, "block-size", image->meta.block_size);
	json_add_number(json, "logical-sector-size", image->meta.logical_sector_size);
	json_add_number(json, "physical-sector-size", image->meta.physical_sector_size);
	json_add_guid(json, "virtual-disk-id", &image->meta.virtual_disk_id);
	json_add_bool(json, "log-replayed", image->overlay);
	json_add_string(top, "creator", image->creator);
	dump_locator(image->locator, top);
	dump_error(errors, dump_metadata(image, top, &err), &err);
	dump_error(errors, dump_bat(image, top, &err), &err);
}

/* Nothing is printed of what never was an image. */
static int dump_is_vhdx(const struct vc_file *file, struct vc_err *err)
{
	struct vhdx_fault fault = { };
	u8 id[sizeof(struct vhdx_file_identifier)];
	struct vhdx_header *h;
	unsigned int slot;
	bool found = false;
	int ret;

	if (file->size < VHDX_HEADER_SECTION_SIZE)
		return vc_error(err, EINVAL, file->path, "not a VHDX");
	ret = vc_file_read(file, "file identifier", 0, id, sizeof(id), err);
	if (ret || !vhdx_identifier_check(id, &fault))
		return ret;
	h = malloc(sizeof(*h));
	if (!h)
		return vc_error_nomem(err);
	for (slot = 0; slot < 2 && !ret && !found; slot++) {
		ret = vc_file_read(file, "header", vhdx_header_offset(slot), h, sizeof(*h), err);
		found = !ret && le32_to_cpu(h->signature) == VHDX_HEADER_SIGNATURE &&
			le32_to_cpu(h->checksum) == vhdx_checksum(h, sizeof(*h));
	}
	free(h);
	return ret || found ? ret : vc_error(err, EINVAL, file->path, "not a VHDX");
}

/* As far as each part can be read; what ends one is in "errors". */
static int dump_run(const char *path, struct vc_err *err)
{
	struct vc_image *headers = NULL;
	struct vc_image *image = NULL;
	struct json_object *errors;
	struct json_object *top;
	struct vc_file file;
	struct vc_err why;
	int ret;
	int bad;

	ret = vc_file_open(&file, path, 0, NULL, err);
	if (!ret)
		ret = dump_is_vhdx(&file, err);
	if (ret) {
		vc_file_close(&file);
		return ret;
	}
	vc_file_refresh(&file);
	top = json_new();
	errors = json_need(json_object_new_array());
	dump_file(&file, top);
	dump_error(errors, dump_headers(&file, top, &why), &why);
	bad = vc_image_open(&image, path, VC_IMAGE_REPLAY, NULL, &why);
	dump_error(errors, bad, &why);
	dump_error(errors, dump_region_tables(&file, image, top, &why), &why);
	if (!vc_image_open(&headers, path, VC_IMAGE_HEADERS, NULL, &why) &&
	    headers->format == VC_FORMAT_VHDX)
		dump_error(errors, dump_log(&file, &headers->header, top, &why), &why);
	if (image && image->format == VC_FORMAT_VHDX)
		dump_image(image, top, errors);
	else if (image)
		json_push(errors, json_object_new_string("not a VHDX"));
	json_add(top, "errors", errors);
	vc_image_close(headers);
	vc_image_close(image);
	vc_file_close(&file);
	return json_finish(top);
}

int cmd_dump(struct options *options)
{
	struct vc_err err;
	int ret;

	/* There is nothing else than JSON; who says so is right. */
	if (!options_arguments(options, 1, 1, "need one IMAGE"))
		return options->code;
	ret = dump_run(options->argv[0], &err);
	return ret < 0 ? report_error(&err) : ret;
}
