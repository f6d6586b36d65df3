// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone table */
#include "activate.h"
#include "loop.h"
#include "options.h"
#include "table.h"

static const struct option table_options[] = {
	{ "read-only", no_argument, NULL, 'r' },
	{ }
};

/* A path as a shell takes it. */
static void print_quoted(FILE *out, const char *path)
{
	putc('\'', out);
	for (; *path; path++) {
		if (*path == '\'')
			fputs("'\\''", out);
		else
			putc(*path, out);
	}
	putc('\'', out);
}

static void table_say_losetup(const struct vc_image *image, bool written)
{
	fputs("losetup --find --show", stderr);
	if (!written)
		fputs(" --read-only", stderr);
	else if (vc_loop_direct_works(&image->file))
		fputs(" --direct-io=on", stderr);
	if (vc_layer_sector_size(image) != 512)
		fprintf(stderr, " --sector-size %u", vc_layer_sector_size(image));
	putc(' ', stderr);
	print_quoted(stderr, image->file.real);
	putc('\n', stderr);
}

/* The devices of all layers; what is missing is said on stderr. */
static unsigned int table_devices(const struct vc_chain *chain, bool read_only,
				  dev_t *device)
{
	unsigned int missing = 0;
	unsigned int i;

	for (i = 0; i < chain->nr; i++) {
		const struct vc_image *image = chain->layer[i];
		bool written = !i && !read_only;
		struct vc_loop loop;

		if (image->file.is_block) {
			device[i] = image->file.rdev;
		} else if (vc_loop_find(&loop, &image->file, !written,
					vc_layer_sector_size(image))) {
			device[i] = loop.device;
			vc_loop_close(&loop);
		} else {
			if (!missing++)
				fputs("vhdclone: attach these loop devices and try again:\n",
				      stderr);
			table_say_losetup(image, written);
		}
	}
	return missing;
}

/* A delta file must be as long as it may become: the target cannot make it longer. */
static int table_check_room(const struct vc_image *top, struct vc_err *err)
{
	struct vc_usage usage;
	u64 full;
	int ret;

	ret = vc_image_walk(top, &usage, NULL, NULL, err);
	vc_usage_free(&usage);
	if (ret || top->file.is_block)
		return ret;
	full = vc_image_full_size(top, &usage);
	if (top->file.size < full) {
		fputs("vhdclone: the delta file is short; before it is attached, do:\n", stderr);
		fprintf(stderr, "truncate -s %llu ", vc_image_open_size(top, &usage));
		print_quoted(stderr, top->file.real);
		putc('\n', stderr);
	}
	return 0;
}

static int table_print(const struct vc_chain *chain, const dev_t *device, bool read_only,
		       bool json, struct vc_err *err)
{
	struct json_object *object;
	char *params;
	int ret;

	ret = vc_table_build(chain, device, read_only, &params, err);
	if (ret)
		return report_error(err);
	if (json) {
		object = json_new();
		json_add_string(object, "path", chain->layer[0]->file.path);
		json_add_number(object, "start", 0);
		json_add_number(object, "sectors", vc_table_sectors(chain));
		json_add_string(object, "target", VHDCLONE_TARGET_NAME);
		json_add_string(object, "arguments", params);
		ret = json_finish(object);
	} else {
		printf("0 %llu " VHDCLONE_TARGET_NAME " %s\n", vc_table_sectors(chain),
		       params);
		ret = finish_stdout(VC_EXIT_OK);
	}
	free(params);
	return ret;
}

static int table_run(const char *path, bool read_only, bool json,
		     const struct vc_chain_options *options)
{
	dev_t device[VHDCLONE_MAX_LAYERS] = { };
	struct vc_chain chain = { };
	struct vc_err err;
	int code;
	int ret;

	ret = vc_chain_open(&chain, path, options, &err);
	if (!ret)
		ret = vc_table_possible(&chain, &err);
	if (!ret && chain.layer[0]->format != VC_FORMAT_VHDX)
		ret = vc_error(&err, EINVAL, path, "not a VHDX");
	if (!ret && !read_only)
		ret = table_check_room(chain.layer[0], &err);
	if (ret)
		code = report_error(&err);
	else if (table_devices(&chain, read_only, device))
		code = VC_EXIT_WRONG;
	else
		code = table_print(&chain, device, read_only, json, &err);
	vc_chain_close(&chain);
	return code;
}

int cmd_table(struct options *options)
{
	bool read_only = false;

	while (options_next(options, table_options) != -1)
		read_only = true;
	if (!options_arguments(options, 1, 1, "need one IMAGE"))
		return options->code;
	return table_run(options->argv[0], read_only, options->json, &options->chain);
}
