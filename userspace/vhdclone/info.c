// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone info */
#include <sys/stat.h>

#include "children.h"
#include "options.h"
#include "vhd.h"

enum {
	OPT_CHAIN = OPT_OWN,
	OPT_CHILDREN,
};

static const struct option info_options[] = {
	{ "chain", no_argument, NULL, OPT_CHAIN },
	{ "children", no_argument, NULL, OPT_CHILDREN },
	{ }
};

/* What there is to say about one image. */
struct image_facts {
	const struct vc_image *image;
	char *parent;
	u64 allocated;
	struct vc_usage usage;
	bool usage_known;
	u32 nr_present;			/* blocks of a VHD */
};

static void facts_collect(struct image_facts *facts, const struct vc_image *image)
{
	struct vc_err err;
	struct stat st;
	u32 *places;

	memset(facts, 0, sizeof(*facts));
	facts->image = image;
	facts->parent = vc_chain_hint(image);
	facts->allocated = image->file.size;
	if (!image->file.is_block && !fstat(image->file.fd, &st))
		facts->allocated = (u64)st.st_blocks * 512;
	if (image->format == VC_FORMAT_VHDX) {
		facts->usage_known = !vc_image_walk(image, &facts->usage, NULL, NULL, &err);
		if (!facts->usage_known)
			report_warning("%s", err.msg);
		vc_usage_free(&facts->usage);
	} else if (image->format == VC_FORMAT_VHD && !vc_vhd_is_fixed(image)) {
		facts->usage_known = !vc_vhd_bat(image, &places, &facts->nr_present, &err);
		if (!facts->usage_known)
			report_warning("%s", err.msg);
		free(places);
	}
}

/* The identity that a delta expects of its parent. */
static bool facts_expects(const struct vc_image *image, struct vhdx_guid *guid)
{
	const char *linkage = NULL;

	if (image->locator && !vc_locator_is_raw(image->locator))
		linkage = vc_locator_get(image->locator, VC_KEY_LINKAGE);
	return linkage && vc_guid_parse(linkage, guid);
}

static struct json_object *facts_json_log(const struct vhdx_header_info *h)
{
	struct json_object *log = json_object_new_object();

	json_add_number(log, "offset", h->log_offset);
	json_add_number(log, "size", h->log_length);
	json_add_bool(log, "dirty", h->log_dirty);
	json_add_guid(log, "guid", &h->log_guid);
	return log;
}

static struct json_object *facts_json_locator(const struct vc_locator *locator)
{
	struct json_object *object = json_object_new_object();
	unsigned int i;

	json_add_guid(object, "type", &locator->type);
	for (i = 0; i < locator->nr_pairs; i++)
		json_add_string(object, locator->pairs[i].key, locator->pairs[i].value);
	return object;
}

static void facts_json_region(struct json_object *object, const char *key,
			      const struct vhdx_region *region)
{
	struct json_object *json = json_object_new_object();

	json_add_number(json, "offset", region->offset);
	json_add_number(json, "size", region->length);
	json_object_object_add(object, key, json);
}

static void facts_json_vhdx(struct json_object *json, const struct image_facts *facts)
{
	const struct vc_image *image = facts->image;
	struct vhdx_guid expects;

	json_add_number(json, "block-size", image->meta.block_size);
	json_add_number(json, "logical-sector-size", image->meta.logical_sector_size);
	json_add_number(json, "physical-sector-size", image->meta.physical_sector_size);
	json_add_guid(json, "virtual-disk-id", &image->meta.virtual_disk_id);
	json_add_guid(json, "data-write-guid", &image->header.data_write_guid);
	json_add_guid(json, "file-write-guid", &image->header.file_write_guid);
	json_add_string(json, "creator", image->creator);
	json_add_number(json, "total-blocks", image->geo.nr_blocks);
	if (facts->usage_known) {
		json_add_number(json, "full-blocks", facts->usage.nr_full);
		json_add_number(json, "partial-blocks", facts->usage.nr_partial);
		json_add_number(json, "bitmap-blocks", facts->usage.nr_bitmaps);
		json_add_number(json, "used-size", facts->usage.end);
	}
	json_add_guid(json, "expects", facts_expects(image, &expects) ? &expects :
								      &vhdx_guid_zero);
	json_object_object_add(json, "log", facts_json_log(&image->header));
	facts_json_region(json, "bat-region", &image->regions.bat);
	facts_json_region(json, "metadata-region", &image->regions.metadata);
	json_object_object_add(json, "parent-locator", image->locator ?
			       facts_json_locator(image->locator) : NULL);
}

static void facts_json_vhd(struct json_object *json, const struct image_facts *facts)
{
	const struct vc_image *image = facts->image;
	const struct vc_vhd *vhd = image->vhd;

	json_add_guid(json, "unique-id", &vhd->footer.unique_id);
	json_add_number(json, "timestamp", VHD_EPOCH + vhd->footer.timestamp);
	json_add_bool(json, "footer-damaged", vhd->footer_damaged);
	json_add_string(json, "creator", image->creator);
	if (!vc_vhd_is_fixed(image)) {
		json_add_number(json, "block-size", vhd->header.block_size);
		json_add_number(json, "total-blocks", vhd->header.nr_blocks);
		if (facts->usage_known)
			json_add_number(json, "present-blocks", facts->nr_present);
	}
	json_object_object_add(json, "parent-locator", image->locator ?
			       facts_json_locator(image->locator) : NULL);
}

static void facts_json(struct json_object *json, const struct image_facts *facts)
{
	const struct vc_image *image = facts->image;

	json_add_string(json, "path", image->file.path);
	json_add_string(json, "type", vc_image_type(image));
	json_add_string(json, "format", vc_format_name(image->format));
	json_add_string(json, "parent", facts->parent);
	json_add_number(json, "virtual-size", vc_image_virtual_size(image));
	json_add_number(json, "file-size", image->file.size);
	json_add_number(json, "allocated-size", facts->allocated);
	if (image->format == VC_FORMAT_VHDX)
		facts_json_vhdx(json, facts);
	else if (image->format == VC_FORMAT_VHD)
		facts_json_vhd(json, facts);
}

static void print_field(const char *name, const char *value)
{
	printf("%-22s ", name);
	print_clean(stdout, value);
	putchar('\n');
}

static void print_size(const char *name, u64 bytes)
{
	char text[VC_SIZE_TEXT];

	printf("%-22s %s (%llu bytes)\n", name, vc_size_format(bytes, text), bytes);
}

static void print_guid(const char *name, const struct vhdx_guid *guid)
{
	char text[VC_GUID_TEXT];

	print_field(name, vc_guid_format(guid, text));
}

static void print_locator(const struct vc_locator *locator)
{
	unsigned int i;

	for (i = 0; locator && i < locator->nr_pairs; i++) {
		printf("%-22s ", i ? "" : "parent locator:");
		print_clean(stdout, locator->pairs[i].key);
		fputs(" = ", stdout);
		print_clean(stdout, locator->pairs[i].value);
		putchar('\n');
	}
}

static void facts_print_vhdx(const struct image_facts *facts)
{
	const struct vc_image *image = facts->image;
	const struct vc_usage *usage = &facts->usage;
	char text[VC_SIZE_TEXT];
	struct vhdx_guid expects;

	printf("%-22s %s\n", "block size:", vc_size_format(image->meta.block_size, text));
	printf("%-22s %u/%u (logical/physical)\n", "sector size:",
	       image->meta.logical_sector_size, image->meta.physical_sector_size);
	if (facts->usage_known)
		printf("%-22s %u of %u (%u full, %u partial), %u bitmap blocks\n",
		       "blocks present:", usage->nr_full + usage->nr_partial,
		       image->geo.nr_blocks, usage->nr_full, usage->nr_partial,
		       usage->nr_bitmaps);
	printf("%-22s %s, %s at %llu\n", "log:",
	       image->header.log_dirty ? "dirty (open, or needs 'vhdclone recover')" : "clean",
	       vc_size_format(image->header.log_length, text), image->header.log_offset);
	print_guid("virtual disk ID:", &image->meta.virtual_disk_id);
	print_guid("data write GUID:", &image->header.data_write_guid);
	if (facts_expects(image, &expects))
		print_guid("expects of its parent:", &expects);
	print_field("creator:", image->creator);
	print_locator(image->locator);
}

static void facts_print_vhd(const struct image_facts *facts)
{
	const struct vc_image *image = facts->image;
	const struct vc_vhd *vhd = image->vhd;
	char text[VC_SIZE_TEXT];

	if (!vc_vhd_is_fixed(image)) {
		printf("%-22s %s\n", "block size:",
		       vc_size_format(vhd->header.block_size, text));
		if (facts->usage_known)
			printf("%-22s %u of %u\n", "blocks present:", facts->nr_present,
			       vhd->header.nr_blocks);
	}
	print_guid("unique ID:", &vhd->footer.unique_id);
	print_field("creator:", image->creator);
	if (vhd->footer_damaged)
		print_field("footer:", "damaged, or not the same as its copy");
	print_locator(image->locator);
}

static void facts_print(const struct image_facts *facts)
{
	const struct vc_image *image = facts->image;

	print_field("path:", image->file.path);
	print_field("type:", vc_image_type(image));
	if (image->format == VC_FORMAT_VHD)
		print_field("format:", "VHD, version 1");
	print_field("parent:", facts->parent ? facts->parent : "-");
	print_size("virtual size:", vc_image_virtual_size(image));
	print_size("file size:", image->file.size);
	print_size("allocated:", facts->allocated);
	if (image->format == VC_FORMAT_VHDX)
		facts_print_vhdx(facts);
	else if (image->format == VC_FORMAT_VHD)
		facts_print_vhd(facts);
}

/* ---- who expects what of the image --------------------------------------------------- */

/* A child's own words; one that cannot be read any more has none. */
static bool child_expects(const struct vc_child *child, struct vhdx_guid *guid)
{
	struct vc_image *image;
	struct vc_err ignored;
	bool found;

	if (vc_image_open(&image, child->path, VC_IMAGE_REPLAY, NULL, &ignored))
		return false;
	found = image->format == VC_FORMAT_VHDX && facts_expects(image, guid);
	vc_image_close(image);
	return found;
}

static struct json_object *children_json(const struct vc_children *children)
{
	struct json_object *array = json_object_new_array();
	struct json_object *json;
	struct vhdx_guid expects;
	unsigned int i;

	for (i = 0; i < children->nr; i++) {
		json = json_object_new_object();
		json_add_string(json, "path", children->child[i].path);
		json_add_guid(json, "expects", child_expects(&children->child[i], &expects) ?
					       &expects : &vhdx_guid_zero);
		json_add_bool(json, "mismatch", children->child[i].mismatch);
		json_add_string(json, "open-as", children->child[i].open_as);
		json_object_array_add(array, json);
	}
	return array;
}

static void children_print(const struct vc_children *children)
{
	struct vhdx_guid expects;
	char text[VC_GUID_TEXT];
	unsigned int i;

	for (i = 0; i < children->nr; i++) {
		printf("%-22s ", i ? "" : "children:");
		print_clean(stdout, children->child[i].path);
		if (child_expects(&children->child[i], &expects))
			printf(" expects %s", vc_guid_format(&expects, text));
		puts(children->child[i].mismatch ? ": NOT this image" : "");
	}
	if (!children->nr)
		print_field("children:", "none found");
}

static int info_print(const struct vc_chain *chain, const struct vc_children *children)
{
	struct image_facts facts;
	unsigned int i;

	for (i = 0; i < chain->nr; i++) {
		facts_collect(&facts, chain->layer[i]);
		if (i)
			putchar('\n');
		facts_print(&facts);
		if (!i && children)
			children_print(children);
		free(facts.parent);
	}
	return finish_stdout(VC_EXIT_OK);
}

/* Of one image the facts are the object's own, of a chain they are a list. */
static int info_json(const struct vc_chain *chain, bool whole,
		     const struct vc_children *children)
{
	struct json_object *list = json_object_new_array();
	struct json_object *top = json_new();
	struct json_object *json;
	struct image_facts facts;
	unsigned int i;

	for (i = 0; i < chain->nr; i++) {
		json = whole ? json_object_new_object() : top;
		facts_collect(&facts, chain->layer[i]);
		facts_json(json, &facts);
		if (whole)
			json_object_array_add(list, json);
		free(facts.parent);
	}
	if (whole)
		json_object_object_add(top, "chain", list);
	else
		json_object_put(list);
	if (children)
		json_object_object_add(top, "children", children_json(children));
	return json_finish(top);
}

struct info_args {
	const struct options *options;
	bool whole;
	bool children;
};

static int info_show(const struct vc_chain *chain, const struct info_args *args)
{
	struct vc_children children = { };
	struct vc_children *found = NULL;
	struct vc_err err;
	int ret;

	if (args->children && !vc_children_find(chain->layer[0], NULL, 0, &children, &err))
		found = &children;
	if (args->children && !found)
		report_warning("%s", err.msg);
	ret = args->options->json ? info_json(chain, args->whole, found) : info_print(chain, found);
	vc_children_free(&children);
	return ret;
}

static int info_run(const char *path, const struct info_args *args)
{
	const struct vc_chain_options *options = &args->options->chain;
	struct vc_chain chain = { };
	struct vc_err err;
	int code;
	int ret;

	if (args->whole) {
		ret = vc_chain_open(&chain, path, options, &err);
	} else {
		ret = vc_image_open(&chain.layer[0], path, options->image_flags, NULL, &err);
		chain.nr = !ret;
	}
	if (!ret && chain.layer[0]->format == VC_FORMAT_RAW)
		ret = vc_error(&err, EINVAL, path, "not a VHDX, nor a VHD");
	if (!ret) {
		code = info_show(&chain, args);
	} else {
		/* A broken chain is shown as far as it holds. */
		if (chain.nr && chain.layer[0]->format != VC_FORMAT_RAW)
			info_show(&chain, args);
		code = report_error(&err);
	}
	vc_chain_close(&chain);
	return code;
}

int cmd_info(struct options *options)
{
	struct info_args args = { .options = options };
	int opt;

	options_replay(options);
	while ((opt = options_next(options, info_options)) != -1) {
		if (opt == OPT_CHAIN)
			args.whole = true;
		else
			args.children = true;
	}
	if (!options_arguments(options, 1, 1, "need one IMAGE"))
		return options->code;
	return info_run(options->argv[0], &args);
}
