// SPDX-License-Identifier: GPL-2.0-or-later
/* Options that several verbs have. */
#define _GNU_SOURCE
#include "dm.h"
#include "vhdclone.h"

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

bool chain_args_take(struct chain_args *args, int opt, char *value)
{
	struct vc_chain_options *options = &args->options;

	if (opt == OPT_BASE)
		list_push(&options->bases, &options->nr_bases, value);
	else if (opt == OPT_BASE_DIR)
		list_push(&options->roots, &options->nr_roots, value);
	else
		return false;
	return true;
}

void chain_args_init(struct chain_args *args)
{
	const char *path = getenv(VC_BASE_PATH_ENV);
	char *rest;
	char *dir;

	if (!path)
		return;
	args->environment = strdup(path);
	rest = args->environment;
	while (rest) {
		dir = strsep(&rest, ":");
		if (*dir)
			list_push(&args->options.roots, &args->options.nr_roots, dir);
	}
}

void chain_args_free(struct chain_args *args)
{
	free(args->options.bases);
	free(args->options.roots);
	free(args->environment);
}

bool size_option(const struct command *cmd, const char *option, const char *value,
		 u64 *bytes)
{
	if (vc_size_parse(value, bytes) && *bytes)
		return true;
	usage_error(cmd, "%s: '%s' is no size such as 512, 64K, 2M, 1.5G", option, value);
	return false;
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
