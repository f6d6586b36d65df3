// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone create */
#include <sys/stat.h>
#include <unistd.h>

#include "active.h"
#include "children.h"
#include "create.h"
#include "options.h"

#define CREATE_DEEP	16	/* a chain longer than this deserves a word */
#define CREATE_MOST	1000000	/* clones at once, and the highest number of one */

enum {
	OPT_SIZE = OPT_OWN,
	OPT_LOG_SIZE,
	OPT_BASE_FORMAT,
	OPT_LOGICAL,
	OPT_PHYSICAL,
	OPT_FULL,
	OPT_COUNT,
	OPT_FIRST,
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
	{ "count", required_argument, NULL, OPT_COUNT },
	{ "first", required_argument, NULL, OPT_FIRST },
	{ "force", no_argument, NULL, 'f' },
	{ }
};

struct create_args {
	struct vc_create_options create;
	struct options *options;
	const char *base_format;
	bool full;
	u64 count;		/* 0: one, whose name is not a pattern */
	u64 first;
};

static u32 create_sector_size(struct options *options, const char *option, const char *value)
{
	u64 bytes = options_size(options, option, value);

	if (bytes && bytes != 512 && bytes != 4096)
		options_wrong(options, "%s: '%s' is not 512 or 4096", option, value);
	return bytes;
}

static enum vc_create_type create_type(struct options *options, const char *value)
{
	static const char * const types[] = {
		[VC_CREATE_DIFFERENCING] = "differencing",
		[VC_CREATE_DYNAMIC] = "dynamic",
		[VC_CREATE_FIXED] = "fixed",
	};

	return options_word(options, "--type", value, types, ARRAY_SIZE(types));
}

static const char *create_base_format(struct options *options, const char *value)
{
	static const char * const formats[] = { "auto", "raw", "vhdx", "vhd" };

	options_word(options, "--base-format", value, formats, ARRAY_SIZE(formats));
	return value;
}

static u64 create_number(struct options *options, const char *option, const char *value)
{
	char *end;
	u64 n = strtoull(value, &end, 10);

	if (value[0] < '0' || value[0] > '9' || *end || n > CREATE_MOST)
		options_wrong(options, "%s: '%s' is not a number up to %u", option, value,
			      CREATE_MOST);
	return n;
}

static void create_parse(struct create_args *args)
{
	struct vc_create_options *create = &args->create;
	struct options *options = args->options;
	int opt;

	while ((opt = options_next(options, create_options)) != -1) {
		switch (opt) {
		case OPT_SIZE:
			create->virtual_size = options_size(options, "--size", optarg);
			break;
		case OPT_BLOCK_SIZE:
			create->block_size = options_block_size(options, optarg);
			break;
		case OPT_LOG_SIZE:
			create->log_size = options_size(options, "--log-size", optarg);
			break;
		case OPT_TYPE:
			create->type = create_type(options, optarg);
			break;
		case OPT_BASE_FORMAT:
			args->base_format = create_base_format(options, optarg);
			break;
		case OPT_LOGICAL:
			create->logical_sector_size =
				create_sector_size(options, "--logical-sector-size", optarg);
			break;
		case OPT_PHYSICAL:
			create->physical_sector_size =
				create_sector_size(options, "--physical-sector-size", optarg);
			break;
		case OPT_COUNT:
			args->count = create_number(options, "--count", optarg);
			if (!args->count && options->code < 0)
				options_wrong(options, "--count: need one at least");
			break;
		case OPT_FIRST:
			args->first = create_number(options, "--first", optarg);
			break;
		case 'f':
			create->force = true;
			break;
		case OPT_FULL:
			args->full = true;
			break;
		}
	}
}

/* ---- names ------------------------------------------------------------------------ */

/* The "%d" or "%03d" of a pattern: where it ends; NULL if it is none. */
static const char *create_conversion(const char *at, int *width)
{
	char *end;

	if (*at != '%')
		return NULL;
	*width = strtoul(at + 1, &end, 10);
	/* Without the zero, there would be blanks in it. */
	if (*end != 'd' || *width > 9 || (end > at + 1 && at[1] != '0'))
		return NULL;
	return end + 1;
}

/* One conversion, and nothing else with a percent sign but "%%". */
static bool create_pattern_ok(const char *pattern)
{
	unsigned int n = 0;
	const char *next;
	int width;

	while (*pattern) {
		next = create_conversion(pattern, &width);
		if (next)
			n++;
		else if (*pattern != '%')
			next = pattern + 1;
		else if (pattern[1] == '%')
			next = pattern + 2;
		else
			return false;
		pattern = next;
	}
	return n == 1;
}

static char *create_expand(const char *pattern, u64 number)
{
	size_t room = strlen(pattern) + 24;
	char *name = malloc(room);
	const char *next;
	char *p = name;
	int width;

	while (name && *pattern) {
		next = create_conversion(pattern, &width);
		if (next) {
			p += sprintf(p, "%0*llu", width, number);
		} else {
			*p++ = *pattern;
			next = pattern + (*pattern == '%' ? 2 : 1);
		}
		pattern = next;
	}
	if (name)
		*p = '\0';
	return name;
}

static void create_free_names(char **names, unsigned int nr)
{
	unsigned int i;

	for (i = 0; names && i < nr; i++)
		free(names[i]);
	free(names);
}

static char **create_names(const struct create_args *args, const char *delta,
			   unsigned int *nr, struct vc_err *err)
{
	char **names;
	unsigned int i;

	*nr = args->count ? args->count : 1;
	names = calloc(*nr, sizeof(*names));
	for (i = 0; names && i < *nr; i++) {
		names[i] = args->count ? create_expand(delta, args->first + i) :
					 strdup(delta);
		if (!names[i]) {
			create_free_names(names, *nr);
			names = NULL;
		}
	}
	if (!names)
		vc_error_nomem(err);
	return names;
}

/* ---- what is asked for --------------------------------------------------------------- */

static int create_check_usage(const struct create_args *args)
{
	const struct command *cmd = args->options->cmd;
	int nr_names = args->options->argc;
	char **names = args->options->argv;
	const struct vc_create_options *create = &args->create;
	bool differencing = create->type == VC_CREATE_DIFFERENCING;

	if (args->full && !differencing)
		return usage_error(cmd, "--full does not go with --type");
	if (args->full && args->count)
		return usage_error(cmd, "--full does not go with --count");
	if (differencing && nr_names != 2)
		return usage_error(cmd, "need BASE and DELTA");
	if (!differencing && nr_names != 1)
		return usage_error(cmd, "need one FILE");
	if (args->count && !differencing)
		return usage_error(cmd, "--count: for clones only");
	if (args->count && !create_pattern_ok(names[1]))
		return usage_error(cmd, "--count: need one %%d or %%03d in the name, not '%s'",
				   names[1]);
	if (!differencing && !create->virtual_size)
		return usage_error(cmd, "need --size");
	if (create->log_size % VHDX_MIB || create->log_size > VHDX_MAX_LOG_LENGTH)
		return usage_error(cmd, "--log-size: not a multiple of 1M up to 1G");
	if (create->virtual_size % 512 || create->virtual_size > VHDX_MAX_VIRTUAL_SIZE)
		return usage_error(cmd, "--size: not a multiple of 512 up to 64T");
	return 0;
}

/* ---- the clones ------------------------------------------------------------------- */

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
		.progress = &args->options->progress.progress,
	};
	struct vc_converted converted;
	int ret;

	progress_start(&args->options->progress, "create");
	ret = vc_convert(chain, path, &options, &converted, err);
	progress_end(&args->options->progress);
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

/* Who wants many, wants none where one is in the way. */
static int create_check_names(const struct create_args *args, char **names,
			      unsigned int nr, struct vc_err *err)
{
	unsigned int i;
	struct stat st;

	for (i = 0; i < nr && args->count && !args->create.force; i++)
		if (!lstat(names[i], &st))
			return vc_error(err, EEXIST, names[i],
					"exists already: none of %u was made", nr);
	return 0;
}

static void create_undo(const struct vc_image *base, const char *name)
{
	char *real = realpath(name, NULL);
	struct vc_err ignored;

	unlink(name);
	if (real)
		vc_children_remove(&base->file, real, &ignored);
	free(real);
}

/*
 * All or none: what was made goes again if one cannot be, or if a signal comes.  Only
 * what --force has overwritten cannot come back.
 */
static int create_all(const struct create_args *args, char **names, unsigned int nr,
		      struct vc_created *created, struct vc_err *err)
{
	unsigned int done = 0;
	sigset_t signals;
	int ret;

	ret = create_check_names(args, names, nr, err);
	if (ret || nr == 1)
		return ret ? ret : vc_create(names[0], &args->create, created, err);
	vc_signals_hold(&signals);
	while (done < nr && !ret) {
		ret = vc_create(names[done], &args->create, created, err);
		done += !ret;
		if (!ret && done < nr && vc_signal_waits())
			ret = vc_error(err, EINTR, names[done], "interrupted");
	}
	if (ret && !args->create.force) {
		while (done)
			create_undo(args->create.base->layer[0], names[--done]);
		vc_error_append(err, "; none of %u was made", nr);
	}
	if (ret == -EINTR)
		vc_signal_take();
	vc_signals_release(&signals);
	return ret;
}

static int create_clones(struct create_args *args, const char *base, char **names,
			 unsigned int nr, struct vc_created *created, struct vc_err *err)
{
	struct vc_chain_options options = args->options->chain;
	struct vc_chain chain = { };
	int ret;

	if (!strcmp(args->base_format, "raw"))
		options.image_flags = VC_IMAGE_RAW;
	/* What is written now is another thing the next moment. */
	options.share = true;
	ret = vc_chain_open(&chain, base, &options, err);
	if (!ret)
		ret = create_check_base(&chain, args, err);
	if (!ret && chain.nr >= CREATE_DEEP)
		report_warning("%s: the chain has %u layers with the new one", names[0],
			       chain.nr + 1);
	args->create.base = &chain;
	if (!ret && args->full)
		ret = create_full(args, &chain, names[0], created, err);
	else if (!ret)
		ret = create_all(args, names, nr, created, err);
	vc_chain_close(&chain);
	return ret;
}

static int create_report(const struct create_args *args, char **names, unsigned int nr,
			 const char *base, const struct vc_created *created)
{
	struct json_object *json;
	struct json_object *list;
	unsigned int i;

	if (!args->options->json)
		return VC_EXIT_OK;
	json = json_new();
	if (args->count) {
		list = json_object_new_array();
		for (i = 0; i < nr; i++)
			json_object_array_add(list, json_object_new_string(names[i]));
		json_object_object_add(json, "paths", list);
	} else {
		json_add_string(json, "path", names[0]);
	}
	json_add_string(json, "parent", base);
	json_add_number(json, "virtual-size", created->virtual_size);
	json_add_number(json, "block-size", created->block_size);
	json_add_number(json, "file-size", created->file_size);
	return json_finish(json);
}

static int create_run(struct create_args *args)
{
	char **arguments = args->options->argv;
	bool clone = args->create.type == VC_CREATE_DIFFERENCING;
	const char *base = clone ? arguments[0] : NULL;
	struct vc_created created;
	struct vc_err err;
	unsigned int nr;
	char **names;
	int ret;

	names = create_names(args, clone ? arguments[1] : arguments[0], &nr, &err);
	if (!names)
		return report_error(&err);
	if (clone)
		ret = create_clones(args, base, names, nr, &created, &err);
	else
		ret = vc_create(names[0], &args->create, &created, &err);
	if (ret)
		ret = report_error(&err);
	else
		ret = create_report(args, names, nr, args->full ? NULL : base, &created);
	create_free_names(names, nr);
	return ret;
}

int cmd_create(struct options *options)
{
	struct create_args args = {
		.options = options,
		.create.creator = TOOL_CREATOR,
		.base_format = "auto",
		.first = 1,
	};
	int ret;

	create_parse(&args);
	if (!options_arguments(options, 1, 2, "need BASE and DELTA, or --type and one FILE"))
		return options->code;
	ret = create_check_usage(&args);
	return ret ? ret : create_run(&args);
}
