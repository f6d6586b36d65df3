/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The options of a verb: those that verbs share are taken here, with their help. */
#ifndef VHDCLONE_OPTIONS_H
#define VHDCLONE_OPTIONS_H

#include <getopt.h>

#include "convert.h"
#include "long.h"
#include "tree-view.h"

/* What verbs share: see struct command. */
enum {
	OPTIONS_BASE		= 1 << 0,	/* --base, --parent */
	OPTIONS_BASE_DIR	= 1 << 1,	/* --base-dir, --parent-dir */
	OPTIONS_NEW		= 1 << 2,	/* --type, --block-size, --force: no help */
	OPTIONS_PROGRESS	= 1 << 3,	/* --progress-json, --rate */
	OPTIONS_TREE		= 1 << 4,	/* --output, --noheadings, --json, --dot */
	OPTIONS_JSON		= 1 << 5,	/* --json */
	OPTIONS_BASES		= OPTIONS_BASE | OPTIONS_BASE_DIR,
};

/* Values of long options without a letter; every verb has its own from OPT_OWN on. */
enum {
	OPT_JSON = 256,
	OPT_BASE,
	OPT_BASE_DIR,
	OPT_TYPE,
	OPT_BLOCK_SIZE,
	OPT_PROGRESS_JSON,
	OPT_RATE,
	OPT_DOT,
	OPT_OWN,
};

/**
 * struct options - the command line of one verb
 * @cmd: the verb
 * @argc: words in @argv
 * @argv: all, the verb first; after options_arguments() what is left of them
 * @code: what the verb must exit with, because of them; -1: none yet
 * @json: --json
 * @chain: where bases are, ready for vc_chain_open() after options_arguments()
 * @convert: what is made
 * @typed: @convert.type was given
 * @progress: long work as the user wants it
 * @view: how to show a tree
 * @row: for getopt_long(), ended by zeros
 * @letters: for getopt_long()
 * @environment: the split environment variable
 */
struct options {
	const struct command *cmd;
	int argc;
	char **argv;
	int code;
	bool json;
	struct vc_chain_options chain;
	struct vc_convert_options convert;
	bool typed;
	struct progress_args progress;
	struct tree_view view;
	struct option row[40];
	char letters[40];
	char *environment;
};

void options_init(struct options *options, const struct command *cmd, int argc, char **argv);
void options_free(struct options *options);

/**
 * options_next() - the next one that the verb has to take itself
 * @own: its own options, ended by zeros, or NULL
 *
 * Return: its value, with optarg; -1 at the end, which help and a wrong option are, too.
 */
int options_next(struct options *options, const struct option *own);

/**
 * options_arguments() - what comes behind the options
 * @least: so many are needed
 * @most: and there may be so many
 * @need: what to say if not
 *
 * Return: true: go on; false: exit with @options->code, what there is to say was said.
 */
bool options_arguments(struct options *options, int least, int most, const char *need);

/* Take the verb to be called in a wrong way, with a message. */
void options_wrong(struct options *options, const char *fmt, ...) __printf(2, 3);

/* An image is read as if its log had been replayed, and so are those below. */
void options_replay(struct options *options);

/* And nobody shall change what they hold. */
void options_read_data(struct options *options);

/* Values: options_wrong() if they are none. */
u64 options_size(struct options *options, const char *option, const char *value);
u64 options_block_size(struct options *options, const char *value);
unsigned int options_word(struct options *options, const char *option, const char *value,
			  const char * const *words, unsigned int nr);

/* "auto" or "raw"; returns flags for vc_image_open(). */
unsigned int options_format(struct options *options, const char *option, const char *value);

/* Print the help of a verb. */
int options_help(const struct command *cmd);

#endif /* VHDCLONE_OPTIONS_H */
