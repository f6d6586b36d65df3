// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone compact */
#include "change.h"
#include "compact.h"
#include "long.h"

enum {
	OPT_DEDUP = OPT_OWN,
};

static const struct option compact_options[] = {
	{ "dedup-parent", no_argument, NULL, OPT_DEDUP },
	{ "base", required_argument, NULL, OPT_BASE },
	{ "parent", required_argument, NULL, OPT_BASE },
	{ "base-dir", required_argument, NULL, OPT_BASE_DIR },
	{ "parent-dir", required_argument, NULL, OPT_BASE_DIR },
	OPTION_PROGRESS,
	OPTION_RATE,
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 }
};

static int compact_run(const char *path, bool dedup, struct chain_args *args,
		       struct progress_args *progress, struct vc_compacted *done,
		       struct vc_err *err)
{
	struct vc_chain chain = { .nr = 1 };
	int ret;

	ret = vc_change_open(&chain.layer[0], path, err);
	if (ret)
		return ret;
	/* The base is asked for nothing but what is the same in it. */
	args->options.base_flags = VC_IMAGE_REPLAY;
	if (dedup)
		ret = vc_chain_walk(&chain, chain.layer[0], &args->options, err);
	if (!ret) {
		progress_start(progress, "compact");
		ret = vc_compact(&chain, dedup, &progress->progress, done, err);
		progress_end(progress);
	}
	vc_chain_close(&chain);
	return ret;
}

static int compact_report(const char *path, bool as_json, const struct vc_compacted *done)
{
	struct json_object *json;
	char old[VC_SIZE_TEXT];
	char now[VC_SIZE_TEXT];

	if (!as_json) {
		print_clean(stdout, path);
		printf(": %s, was %s; dropped %u blocks of zeros, %u for the parent's, ",
		       vc_size_format(done->new_size, now), vc_size_format(done->old_size, old),
		       done->nr_zero, done->nr_same);
		printf("%u bitmap blocks; moved %u\n", done->nr_bitmaps, done->nr_moved);
		return finish_stdout(VC_EXIT_OK);
	}
	json = json_new();
	json_add_string(json, "path", path);
	json_add_number(json, "old-file-size", done->old_size);
	json_add_number(json, "file-size", done->new_size);
	json_add_number(json, "old-allocated-size", done->old_allocated);
	json_add_number(json, "allocated-size", done->new_allocated);
	json_add_number(json, "zero-blocks", done->nr_zero);
	json_add_number(json, "parent-blocks", done->nr_same);
	json_add_number(json, "bitmap-blocks", done->nr_bitmaps);
	json_add_number(json, "moved-blocks", done->nr_moved);
	return json_finish(json);
}

int cmd_compact(const struct command *cmd, int argc, char **argv)
{
	struct progress_args progress = { };
	struct chain_args args = { };
	struct vc_compacted done;
	bool dedup = false;
	bool json = false;
	struct vc_err err;
	int opt;
	int ret;

	chain_args_init(&args);
	while ((opt = getopt_long(argc, argv, "h", compact_options, NULL)) != -1) {
		if (opt == OPT_DEDUP) {
			dedup = true;
		} else if (opt == OPT_JSON) {
			json = true;
		} else if (!chain_args_take(&args, opt, optarg) &&
			   !progress_take(cmd, &progress, opt, optarg)) {
			ret = usage_option(cmd, opt);
			goto out;
		}
	}
	if (progress.bad)
		ret = VC_EXIT_USAGE;
	else if (argc - optind != 1)
		ret = usage_error(cmd, "need one IMAGE");
	else if (compact_run(argv[optind], dedup, &args, &progress, &done, &err))
		ret = report_error(&err);
	else
		ret = compact_report(argv[optind], json, &done);
out:
	chain_args_free(&args);
	return ret;
}
