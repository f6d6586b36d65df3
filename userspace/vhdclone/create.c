// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone create */
#include "active.h"
#include "create.h"
#include "long.h"

#define CREATE_DEEP	16	/* a chain longer than this deserves a word */

enum {
	OPT_SIZE = OPT_OWN,
	OPT_BLOCK_SIZE,
	OPT_LOG_SIZE,
	OPT_TYPE,
	OPT_BASE_FORMAT,
	OPT_LOGICAL,
	OPT_PHYSICAL,
	OPT_FULL,
};

static const struct option create_options[] = {
	{ "size", required_argument, NULL, OPT_SIZE },
	{ "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
	{ "log-size", required_argument, NULL, OPT_LOG_SIZE },
	{ "type", required_argument, NULL, OPT_TYPE },
	{ "base-format", required_argument, NULL, OPT_BASE_FORMAT },
	{ "logical-sector-size", required_argument, NULL, OPT_LOGICAL },
	{ "physical-sector-size", required_argument, NULL, OPT_PHYSICAL },
	{ "full", no_argument, NULL, OPT_FULL },
	OPTION_PROGRESS,
	OPTION_RATE,
	{ "force", no_argument, NULL, 'f' },
	{ "base-dir", required_argument, NULL, OPT_BASE_DIR },
	{ "parent-dir", required_argument, NULL, OPT_BASE_DIR },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 }
};

struct create_args {
	struct vc_create_options create;
	struct chain_args chain;
	const char *base_format;
	struct progress_args progress;
	bool full;
	bool json;
	bool bad;		/* a message was printed */
};

static u64 create_size(const struct command *cmd, struct create_args *args,
		       const char *option, const char *value)
{
	u64 bytes = 0;

	if (!size_option(cmd, option, value, &bytes))
		args->bad = true;
	return bytes;
}

static u32 create_sector_size(const struct command *cmd, struct create_args *args,
			      const char *option, const char *value)
{
	u64 bytes = create_size(cmd, args, option, value);

	if (!args->bad && bytes != 512 && bytes != 4096) {
		usage_error(cmd, "%s: '%s' is not 512 or 4096", option, value);
		args->bad = true;
	}
	return bytes;
}

static void create_type(const struct command *cmd, struct create_args *args,
			const char *value)
{
	static const char * const types[] = {
		[VC_CREATE_DIFFERENCING] = "differencing",
		[VC_CREATE_DYNAMIC] = "dynamic",
		[VC_CREATE_FIXED] = "fixed",
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(types); i++)
		if (!strcmp(value, types[i])) {
			args->create.type = i;
			return;
		}
	usage_error(cmd, "--type: '%s' is not differencing, dynamic or fixed", value);
	args->bad = true;
}

static void create_base_format(const struct command *cmd, struct create_args *args,
			       const char *value)
{
	args->base_format = value;
	if (strcmp(value, "auto") && strcmp(value, "raw") && strcmp(value, "vhdx") &&
	    strcmp(value, "vhd")) {
		usage_error(cmd, "--base-format: '%s' is not auto, raw, vhdx or vhd", value);
		args->bad = true;
	}
}

/* Returns an option that is not its own, or -1 at the end. */
static int create_parse(const struct command *cmd, int argc, char **argv,
			struct create_args *args)
{
	struct vc_create_options *create = &args->create;
	int opt;

	while ((opt = getopt_long(argc, argv, "fh", create_options, NULL)) != -1) {
		switch (opt) {
		case OPT_SIZE:
			create->virtual_size = create_size(cmd, args, "--size", optarg);
			break;
		case OPT_BLOCK_SIZE:
			create->block_size = create_size(cmd, args, "--block-size", optarg);
			break;
		case OPT_LOG_SIZE:
			create->log_size = create_size(cmd, args, "--log-size", optarg);
			break;
		case OPT_TYPE:
			create_type(cmd, args, optarg);
			break;
		case OPT_BASE_FORMAT:
			create_base_format(cmd, args, optarg);
			break;
		case OPT_LOGICAL:
			create->logical_sector_size =
				create_sector_size(cmd, args, "--logical-sector-size", optarg);
			break;
		case OPT_PHYSICAL:
			create->physical_sector_size =
				create_sector_size(cmd, args, "--physical-sector-size", optarg);
			break;
		case 'f':
			create->force = true;
			break;
		case OPT_FULL:
			args->full = true;
			break;
		case OPT_JSON:
			args->json = true;
			break;
		default:
			if (!chain_args_take(&args->chain, opt, optarg) &&
			    !progress_take(cmd, &args->progress, opt, optarg))
				return opt;
		}
	}
	return -1;
}

static int create_check_usage(const struct command *cmd, const struct create_args *args,
			      int nr_names)
{
	const struct vc_create_options *create = &args->create;
	bool differencing = create->type == VC_CREATE_DIFFERENCING;
	u64 block = create->block_size;

	if (args->full && !differencing)
		return usage_error(cmd, "--full does not go with --type");
	if (differencing && nr_names != 2)
		return usage_error(cmd, "need BASE and DELTA");
	if (!differencing && nr_names != 1)
		return usage_error(cmd, "need one FILE");
	if (!differencing && !create->virtual_size)
		return usage_error(cmd, "need --size");
	if (block && (block & (block - 1) || block < VHDX_MIN_BLOCK_SIZE ||
		      block > VHDX_MAX_BLOCK_SIZE))
		return usage_error(cmd, "--block-size: not a power of two from 1M to 256M");
	if (create->log_size % VHDX_MIB || create->log_size > VHDX_MAX_LOG_LENGTH)
		return usage_error(cmd, "--log-size: not a multiple of 1M up to 1G");
	if (create->virtual_size % 512 || create->virtual_size > VHDX_MAX_VIRTUAL_SIZE)
		return usage_error(cmd, "--size: not a multiple of 512 up to 64T");
	return 0;
}

static int create_check_raw(const struct vc_image *base, const struct create_args *args,
			    struct vc_err *err)
{
	u32 sector_size = args->create.logical_sector_size;
	const char *foreign;

	foreign = strcmp(args->base_format, "raw") ? vc_image_foreign(base) : NULL;
	if (foreign)
		return vc_error(err, EINVAL, base->file.path,
				"a %s: convert it to VHDX, or say --base-format raw", foreign);
	if (!sector_size)
		sector_size = base->file.sector_size ? base->file.sector_size : 512;
	if (!base->size)
		return vc_error(err, EINVAL, base->file.path, "is empty");
	if (base->size % sector_size)
		return vc_error(err, EINVAL, base->file.path,
				"size %llu is no multiple of %u: lengthen it with truncate(1)",
				base->size, sector_size);
	return 0;
}

static int create_check_base(const struct vc_chain *chain, const struct create_args *args,
			     struct vc_err *err)
{
	const struct vc_image *base = chain->layer[0];
	u32 sector_size = args->create.logical_sector_size;

	if (chain->nr >= VHDCLONE_MAX_LAYERS)
		return vc_error(err, EINVAL, base->file.path,
				"the chain has %u layers already, the most there can be",
				chain->nr);
	if (strcmp(args->base_format, "auto") &&
	    strcmp(args->base_format, vc_format_name(base->format)))
		return vc_error(err, EINVAL, base->file.path,
				"not %s: convert it to VHDX, or say --base-format raw",
				strcmp(args->base_format, "vhd") ? "a VHDX" : "a VHD");
	if (base->format == VC_FORMAT_RAW)
		return create_check_raw(base, args, err);
	if (base->format == VC_FORMAT_VHD && sector_size &&
	    base->meta.virtual_size % sector_size)
		return vc_error(err, EINVAL, base->file.path,
				"size %llu is no multiple of %u", base->meta.virtual_size,
				sector_size);
	if (base->format == VC_FORMAT_VHD)
		return 0;
	if (sector_size && sector_size != base->meta.logical_sector_size)
		return vc_error(err, EINVAL, base->file.path,
				"has sectors of %u bytes, and so must a clone of it",
				base->meta.logical_sector_size);
	return 0;
}

/* A clone that shares nothing: all that the base reads as. */
static int create_full(struct create_args *args, const struct vc_chain *chain,
		       const char *path, struct vc_created *created, struct vc_err *err)
{
	struct vc_convert_options options = {
		.type = VC_CONVERT_DYNAMIC,
		.block_size = args->create.block_size,
		.logical_sector_size = args->create.logical_sector_size,
		.force = args->create.force,
		.creator = args->create.creator,
		.progress = &args->progress.progress,
	};
	struct vc_converted converted;
	int ret;

	progress_start(&args->progress, "create");
	ret = vc_convert(chain, path, &options, &converted, err);
	progress_end(&args->progress);
	if (ret)
		return ret;
	*created = (struct vc_created) {
		.virtual_size = converted.virtual_size,
		.file_size = converted.file_size,
		.block_size = options.block_size ? options.block_size :
			      chain->layer[0]->format == VC_FORMAT_VHDX ?
			      chain->layer[0]->meta.block_size : VC_DEFAULT_BLOCK_SIZE,
	};
	return 0;
}

static int create_clone(struct create_args *args, const char *base, const char *delta,
			struct vc_created *created, struct vc_err *err)
{
	struct vc_chain chain = { };
	unsigned int flags = 0;
	struct vc_image *image;
	int ret;

	chain_args_init(&args->chain);
	if (!strcmp(args->base_format, "raw"))
		flags = VC_IMAGE_RAW;
	ret = vc_image_open(&image, base, VC_IMAGE_UNREAD, NULL, err);
	if (ret)
		return ret;
	chain.layer[chain.nr++] = image;
	/* What is written now is another thing the next moment. */
	ret = vc_active_refuse(&image->file, err);
	if (!ret)
		ret = vc_image_reload(image, flags, err);
	if (!ret)
		ret = vc_chain_walk(&chain, image, &args->chain.options, err);
	if (!ret)
		ret = create_check_base(&chain, args, err);
	if (!ret && chain.nr >= CREATE_DEEP)
		report_warning("%s: the chain has %u layers with the new one", delta,
			       chain.nr + 1);
	args->create.base = &chain;
	if (!ret && args->full)
		ret = create_full(args, &chain, delta, created, err);
	else if (!ret)
		ret = vc_create(delta, &args->create, created, err);
	vc_chain_close(&chain);
	return ret;
}

static int create_report(const struct create_args *args, const char *path,
			 const char *base, const struct vc_created *created)
{
	struct json_object *json;

	if (!args->json)
		return VC_EXIT_OK;
	json = json_new();
	json_add_string(json, "path", path);
	json_add_string(json, "parent", base);
	json_add_number(json, "virtual-size", created->virtual_size);
	json_add_number(json, "block-size", created->block_size);
	json_add_number(json, "file-size", created->file_size);
	return json_finish(json);
}

int cmd_create(const struct command *cmd, int argc, char **argv)
{
	struct create_args args = {
		.create.creator = TOOL_CREATOR,
		.base_format = "auto",
	};
	struct vc_created created;
	struct vc_err err;
	int opt;
	int ret;

	opt = create_parse(cmd, argc, argv, &args);
	if (opt != -1) {
		ret = usage_option(cmd, opt);
		goto out;
	}
	ret = args.bad ? VC_EXIT_USAGE : create_check_usage(cmd, &args, argc - optind);
	if (ret)
		goto out;
	if (args.create.type == VC_CREATE_DIFFERENCING)
		ret = create_clone(&args, argv[optind], argv[optind + 1], &created, &err);
	else
		ret = vc_create(argv[optind], &args.create, &created, &err);
	if (ret)
		ret = report_error(&err);
	else if (args.create.type == VC_CREATE_DIFFERENCING && !args.full)
		ret = create_report(&args, argv[optind + 1], argv[optind], &created);
	else
		ret = create_report(&args, argv[argc - 1], NULL, &created);
out:
	chain_args_free(&args.chain);
	return ret;
}
