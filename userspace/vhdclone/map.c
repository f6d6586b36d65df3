// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone map */
#include "active.h"
#include "disk.h"
#include "vhdclone.h"

static const struct option map_options[] = {
	{ "base", required_argument, NULL, OPT_BASE },
	{ "parent", required_argument, NULL, OPT_BASE },
	{ "base-dir", required_argument, NULL, OPT_BASE_DIR },
	{ "parent-dir", required_argument, NULL, OPT_BASE_DIR },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 }
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
	printf("%s{ \"start\": %llu, \"length\": %llu, \"depth\": %u, \"present\": %s, \"zero\": %s, \"data\": %s",
	       extent->offset ? ",\n" : "[", extent->offset, extent->length, extent->layer,
	       extent->kind == VC_EXTENT_ABSENT ? "false" : "true",
	       extent->kind == VC_EXTENT_DATA ? "false" : "true",
	       extent->kind == VC_EXTENT_DATA ? "true" : "false");
	if (extent->kind == VC_EXTENT_DATA)
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

int cmd_map(const struct command *cmd, int argc, char **argv)
{
	struct chain_args args = {
		.options = {
			.image_flags = VC_IMAGE_REPLAY,
			.base_flags = VC_IMAGE_REPLAY,
		},
	};
	bool json = false;
	int code;
	int opt;

	chain_args_init(&args);
	while ((opt = getopt_long(argc, argv, "h", map_options, NULL)) != -1) {
		if (opt == OPT_JSON) {
			json = true;
		} else if (!chain_args_take(&args, opt, optarg)) {
			code = usage_option(cmd, opt);
			goto out;
		}
	}
	if (argc - optind != 1)
		code = usage_error(cmd, "need one IMAGE");
	else
		code = map_run(argv[optind], json, &args.options);
out:
	chain_args_free(&args);
	return code;
}
