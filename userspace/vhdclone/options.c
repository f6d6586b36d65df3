// SPDX-License-Identifier: GPL-2.0-or-later
/* The command line of a verb: see options.h. */
#define _GNU_SOURCE
#include <stdarg.h>

#include "dm.h"
#include "options.h"

/* ---- what verbs share ----------------------------------------------------------- */

static const struct option base_rows[] = {
	{ "base", required_argument, NULL, OPT_BASE },
	{ "parent", required_argument, NULL, OPT_BASE },
	{ }
};

static const struct option base_dir_rows[] = {
	{ "base-dir", required_argument, NULL, OPT_BASE_DIR },
	{ "parent-dir", required_argument, NULL, OPT_BASE_DIR },
	{ }
};

static const struct option new_rows[] = {
	{ "type", required_argument, NULL, OPT_TYPE },
	{ "block-size", required_argument, NULL, OPT_BLOCK_SIZE },
	{ "force", no_argument, NULL, 'f' },
	{ }
};

static const struct option progress_rows[] = {
	{ "progress-json", no_argument, NULL, OPT_PROGRESS_JSON },
	{ "rate", required_argument, NULL, OPT_RATE },
	{ }
};

static const struct option tree_rows[] = {
	{ "output", required_argument, NULL, 'o' },
	{ "noheadings", no_argument, NULL, 'n' },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "dot", no_argument, NULL, OPT_DOT },
	{ }
};

static const struct option json_rows[] = {
	{ "json", no_argument, NULL, OPT_JSON },
	{ }
};

static const struct option help_rows[] = {
	{ "help", no_argument, NULL, 'h' },
	{ }
};

/* In the order in which help has them. */
static const struct group {
	unsigned int group;	/* 0: every verb has it */
	const struct option *rows;
	const char *help;
} groups[] = {
	{ OPTIONS_NEW, new_rows, "" },
	{ OPTIONS_BASE, base_rows,
	  "      --base PATH          where the base is; again for its own base\n" },
	{ OPTIONS_BASE_DIR, base_dir_rows,
	  "      --base-dir DIR       bases may be in DIR or below\n" },
	{ OPTIONS_PROGRESS, progress_rows,
	  "      --progress-json      how far it is: lines of JSON on standard error\n"
	  "      --rate SIZE          at most so much a second\n" },
	{ OPTIONS_TREE, tree_rows,
	  "  -o, --output COLUMN,...  PATH TYPE FORMAT SIZE FILE ALLOCATED OWN DEPTH STATE\n"
	  "                           PARENT ID EXPECTED OPEN PROBLEM\n"
	  "  -n, --noheadings         no line of headings\n"
	  "      --json               print JSON\n"
	  "      --dot                print a graph for Graphviz' dot\n" },
	{ OPTIONS_JSON, json_rows, "      --json               print JSON\n" },
	{ 0, help_rows, "  -h, --help               print this\n" },
};

static bool group_is_in(const struct group *group, const struct command *cmd)
{
	return !group->group || cmd->groups & group->group;
}

int options_help(const struct command *cmd)
{
	unsigned int i;

	printf("usage: vhdclone %s [OPTIONS] %s\n\n%s\n\n%s", cmd->name, cmd->arguments,
	       cmd->summary, cmd->options ? cmd->options : "");
	for (i = 0; i < ARRAY_SIZE(groups); i++)
		if (group_is_in(&groups[i], cmd))
			fputs(groups[i].help, stdout);
	return finish_stdout(VC_EXIT_OK);
}

/* ---- the values ------------------------------------------------------------------- */

void list_push(const char ***list, unsigned int *nr, const char *value)
{
	const char **longer = realloc(*list, (*nr + 1) * sizeof(*longer));

	if (!longer) {
		fprintf(stderr, "vhdclone: out of memory\n");
		exit(VC_EXIT_MEMORY);
	}
	longer[(*nr)++] = value;
	*list = longer;
}

void options_wrong(struct options *options, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	options->code = usage_verror(options->cmd, fmt, ap);
	va_end(ap);
}

u64 options_size(struct options *options, const char *option, const char *value)
{
	u64 bytes;

	if (vc_size_parse(value, &bytes) && bytes)
		return bytes;
	options_wrong(options, "%s: '%s' is no size such as 512, 64K, 2M, 1.5G", option, value);
	return 0;
}

u64 options_block_size(struct options *options, const char *value)
{
	u64 bytes = options_size(options, "--block-size", value);

	if (bytes && (bytes & (bytes - 1) || bytes < VHDX_MIN_BLOCK_SIZE ||
		      bytes > VHDX_MAX_BLOCK_SIZE))
		options_wrong(options, "--block-size: not a power of two from 1M to 256M");
	return bytes;
}

unsigned int options_word(struct options *options, const char *option, const char *value,
			  const char * const *words, unsigned int nr)
{
	char text[256] = "";
	size_t n = 0;
	unsigned int i;

	for (i = 0; i < nr; i++)
		if (!strcmp(value, words[i]))
			return i;
	for (i = 0; i < nr && n < sizeof(text); i++)
		n += snprintf(text + n, sizeof(text) - n, "%s%s",
			      !i ? "" : i == nr - 1 ? " or " : ", ", words[i]);
	options_wrong(options, "%s: '%s' is not %s", option, value, text);
	return 0;
}

unsigned int options_format(struct options *options, const char *option, const char *value)
{
	static const char * const formats[] = { "auto", "raw" };

	return options_word(options, option, value, formats, 2) ? VC_IMAGE_RAW : 0;
}

/* ---- taking them ------------------------------------------------------------------ */

static bool options_take(struct options *options, int opt)
{
	struct vc_chain_options *chain = &options->chain;
	unsigned int groups = options->cmd->groups;

	switch (opt) {
	case OPT_JSON:
		options->json = true;
		return true;
	case OPT_BASE:
		list_push(&chain->bases, &chain->nr_bases, optarg);
		return true;
	case OPT_BASE_DIR:
		list_push(&chain->roots, &chain->nr_roots, optarg);
		return true;
	case OPT_PROGRESS_JSON:
		options->progress.json = true;
		return true;
	case OPT_RATE:
		options->progress.progress.rate = options_size(options, "--rate", optarg);
		return true;
	}
	if (groups & OPTIONS_NEW) {
		switch (opt) {
		case OPT_TYPE:
			options->convert.type = options_word(options, "--type", optarg,
							     vc_convert_names, VC_CONVERT_TYPES);
			options->typed = true;
			return true;
		case OPT_BLOCK_SIZE:
			options->convert.block_size = options_block_size(options, optarg);
			return true;
		case 'f':
			options->convert.force = true;
			return true;
		}
	}
	return groups & OPTIONS_TREE && tree_view_take(options, opt, optarg);
}

static void options_add_rows(struct options *options, const struct option *rows)
{
	char *letter = options->letters + strlen(options->letters);
	struct option *row = options->row;

	while (row->name)
		row++;
	for (; rows && rows->name; rows++) {
		if (row - options->row == ARRAY_SIZE(options->row) - 1 ||
		    letter - options->letters > (int)sizeof(options->letters) - 3)
			abort();
		*row++ = *rows;
		if (rows->val > 255)
			continue;
		*letter++ = rows->val;
		if (rows->has_arg == required_argument)
			*letter++ = ':';
	}
}

int options_next(struct options *options, const struct option *own)
{
	unsigned int i;
	int opt;

	if (!options->row[0].name) {
		options_add_rows(options, own);
		for (i = 0; i < ARRAY_SIZE(groups); i++)
			if (group_is_in(&groups[i], options->cmd))
				options_add_rows(options, groups[i].rows);
	}
	while (options->code < 0) {
		opt = getopt_long(options->argc, options->argv, options->letters,
				  options->row, NULL);
		if (opt == 'h') {
			options->code = options_help(options->cmd);
		} else if (opt == '?') {
			/* getopt has said what is wrong. */
			fprintf(stderr, "See 'vhdclone help %s'.\n", options->cmd->name);
			options->code = VC_EXIT_USAGE;
		} else if (opt == -1 || !options_take(options, opt)) {
			return opt;
		}
	}
	return -1;
}

static void options_environment(struct options *options)
{
	const char *path = getenv(VC_BASE_PATH_ENV);
	char *rest;
	char *dir;

	if (!path)
		return;
	options->environment = strdup(path);
	rest = options->environment;
	while (rest) {
		dir = strsep(&rest, ":");
		if (*dir)
			list_push(&options->chain.roots, &options->chain.nr_roots, dir);
	}
}

bool options_arguments(struct options *options, int least, int most, const char *need)
{
	while (options_next(options, NULL) != -1)
		;
	if (options->code >= 0)
		return false;
	options->argc -= optind;
	options->argv += optind;
	if (options->argc < least || options->argc > most) {
		options_wrong(options, "%s", need);
		return false;
	}
	options->view.json = options->json;
	options_environment(options);
	return true;
}

void options_replay(struct options *options)
{
	options->chain.image_flags = VC_IMAGE_REPLAY;
	options->chain.base_flags = VC_IMAGE_REPLAY;
}

void options_read_data(struct options *options)
{
	options_replay(options);
	options->chain.share = true;
}

void options_init(struct options *options, const struct command *cmd, int argc, char **argv)
{
	memset(options, 0, sizeof(*options));
	options->cmd = cmd;
	options->argc = argc;
	options->argv = argv;
	options->code = -1;
	options->convert.creator = TOOL_CREATOR;
	options->convert.progress = &options->progress.progress;
	tree_view_init(&options->view);
}

void options_free(struct options *options)
{
	free(options->chain.bases);
	free(options->chain.roots);
	free(options->environment);
}

const char *clone_name(const char *argument)
{
	char *path = vc_dm_path("");
	size_t n = path ? strlen(path) : 0;
	const char *name = argument;

	if (n && !strncmp(argument, path, n))
		name = argument + n;
	free(path);
	return name;
}
