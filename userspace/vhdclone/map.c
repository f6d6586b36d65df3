// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone map */
#include "active.h"
#include "disk.h"
#include "options.h"

/* Its own help: what this prints is known. */
static const struct option map_options[] = {
	{ "json", no_argument, NULL, OPT_JSON },
	{ }
};

static void map_print(const struct vc_chain *chain, const struct vc_extent *extent)
{
	printf("%#-16llx %#-16llx ", extent->offset, extent->length);
	if (extent->kind == VC_EXTENT_DATA)
		printf("%#-16llx ", extent->place);
	else
		printf("%-16s ", extent->kind == VC_EXTENT_ZERO ? "zero" : "-");
	if (extent->kind != VC_EXTENT_ABSENT)
		print_clean(stdout, chain->layer[extent->layer]->file.path);
	else
		putchar('-');
	putchar('\n');
}

/* Whole lines are what scripts read, and a map may be long: no tree in memory. */
static void map_json(const struct vc_extent *extent)
{
	bool data = extent->kind == VC_EXTENT_DATA;

	printf("%s{ \"start\": %llu, \"length\": %llu, \"depth\": %u",
	       extent->offset ? ",\n" : "[", extent->offset, extent->length, extent->layer);
	printf(", \"present\": %s, \"zero\": %s, \"data\": %s",
	       extent->kind == VC_EXTENT_ABSENT ? "false" : "true", data ? "false" : "true",
	       data ? "true" : "false");
	if (data)
		printf(", \"offset\": %llu", extent->place);
	putchar('}');
}

static void map_show(const struct vc_chain *chain, const struct vc_extent *extent, bool json)
{
	if (!extent->length)
		return;
	if (json)
		map_json(extent);
	else
		map_print(chain, extent);
}

static bool map_joins(const struct vc_extent *a, const struct vc_extent *b)
{
	return a->kind == b->kind && a->layer == b->layer &&
	       (a->kind != VC_EXTENT_DATA || a->place + a->length == b->place);
}

static int map_walk(const struct vc_chain *chain, struct vc_disk *disk, bool json,
		    struct vc_err *err)
{
	struct vc_extent last = { };
	struct vc_extent extent;
	u64 size = vc_disk_size(disk);
	u64 offset;
	int ret;

	for (offset = 0; offset < size; offset += extent.length) {
		ret = vc_disk_extent(disk, offset, size, &extent, err);
		if (ret)
			return ret;
		if (offset && map_joins(&last, &extent)) {
			last.length += extent.length;
		} else {
			map_show(chain, &last, json);
			last = extent;
		}
	}
	map_show(chain, &last, json);
	return 0;
}

static int map_run(const char *path, bool json, const struct vc_chain_options *options)
{
	struct vc_disk *disk = NULL;
	struct vc_chain chain;
	struct vc_err err;
	int ret;

	ret = vc_chain_open(&chain, path, options, &err);
	if (!ret)
		ret = vc_active_refuse(&chain.layer[0]->file, &err);
	if (!ret)
		ret = vc_disk_open(&disk, &chain, 0, chain.nr, &err);
	if (!ret) {
		if (!json)
			printf("%-16s %-16s %-16s %s\n", "OFFSET", "LENGTH", "PLACE", "FILE");
		ret = map_walk(&chain, disk, json, &err);
		if (json)
			puts(vc_disk_size(disk) ? "]" : "[]");
	}
	vc_disk_close(disk);
	vc_chain_close(&chain);
	return ret ? report_error(&err) : finish_stdout(VC_EXIT_OK);
}

int cmd_map(struct options *options)
{
	options_replay(options);
	while (options_next(options, map_options) != -1)
		;
	if (!options_arguments(options, 1, 1, "need one IMAGE"))
		return options->code;
	return map_run(options->argv[0], options->json, &options->chain);
}
