// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone compact */
#include "change.h"
#include "compact.h"
#include "options.h"

enum {
	OPT_DEDUP = OPT_OWN,
};

static const struct option compact_options[] = {
	{ "dedup-parent", no_argument, NULL, OPT_DEDUP },
	{ }
};

static int compact_run(struct options *options, bool dedup, struct vc_compacted *done,
		       struct vc_err *err)
{
	struct vc_chain chain = { .nr = 1 };
	int ret;

	ret = vc_change_open(&chain.layer[0], options->argv[0], err);
	if (ret)
		return ret;
	/* The base is asked for nothing but what is the same in it. */
	options_read_data(options);
	if (dedup)
		ret = vc_chain_walk(&chain, chain.layer[0], &options->chain, err);
	if (!ret) {
		progress_start(&options->progress, "compact");
		ret = vc_compact(&chain, dedup, &options->progress.progress, done, err);
		progress_end(&options->progress);
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

int cmd_compact(struct options *options)
{
	struct vc_compacted done;
	bool dedup = false;
	struct vc_err err;

	while (options_next(options, compact_options) != -1)
		dedup = true;
	if (!options_arguments(options, 1, 1, "need one IMAGE"))
		return options->code;
	if (compact_run(options, dedup, &done, &err))
		return report_error(&err);
	return compact_report(options->argv[0], options->json, &done);
}
