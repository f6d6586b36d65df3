/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the verbs share: the command table, options, and all that is printed. */
#ifndef VHDCLONE_H
#define VHDCLONE_H

#include <getopt.h>
#include <json-c/json.h>
#include <stdio.h>
#include <stdlib.h>

#include "chain.h"
#include "guid.h"
#include "log.h"
#include "size.h"

#define STRINGIFY_1(x)	#x
#define STRINGIFY(x)	STRINGIFY_1(x)
#define VHDCLONE_TOOL_VERSION	STRINGIFY(VHDCLONE_VERSION_MAJOR) "." \
				STRINGIFY(VHDCLONE_VERSION_MINOR) "." \
				STRINGIFY(VHDCLONE_VERSION_PATCH)
#define TOOL_CREATOR		"vhdclone " VHDCLONE_TOOL_VERSION

/**
 * struct command - one verb
 * @name: as it is typed
 * @alias: another name for it, or NULL
 * @run: argv[0] is the verb; returns the exit code
 * @arguments: for the usage line
 * @summary: one line
 * @options: one line per option
 */
struct command {
	const char *name;
	const char *alias;
	int (*run)(const struct command *cmd, int argc, char **argv);
	const char *arguments;
	const char *summary;
	const char *options;
};

int cmd_create(const struct command *cmd, int argc, char **argv);
int cmd_open(const struct command *cmd, int argc, char **argv);
int cmd_close(const struct command *cmd, int argc, char **argv);
int cmd_status(const struct command *cmd, int argc, char **argv);
int cmd_list(const struct command *cmd, int argc, char **argv);
int cmd_info(const struct command *cmd, int argc, char **argv);
int cmd_table(const struct command *cmd, int argc, char **argv);
int cmd_recover(const struct command *cmd, int argc, char **argv);
int cmd_protect(const struct command *cmd, int argc, char **argv);
int cmd_unprotect(const struct command *cmd, int argc, char **argv);
int cmd_remove(const struct command *cmd, int argc, char **argv);
int cmd_reset(const struct command *cmd, int argc, char **argv);
int cmd_set(const struct command *cmd, int argc, char **argv);
int cmd_resize(const struct command *cmd, int argc, char **argv);
int cmd_compact(const struct command *cmd, int argc, char **argv);
int cmd_dump(const struct command *cmd, int argc, char **argv);
int cmd_check(const struct command *cmd, int argc, char **argv);
int cmd_convert(const struct command *cmd, int argc, char **argv);
int cmd_copy(const struct command *cmd, int argc, char **argv);
int cmd_merge(const struct command *cmd, int argc, char **argv);
int cmd_flatten(const struct command *cmd, int argc, char **argv);
int cmd_reparent(const struct command *cmd, int argc, char **argv);
int cmd_chain(const struct command *cmd, int argc, char **argv);
int cmd_children(const struct command *cmd, int argc, char **argv);
int cmd_scan(const struct command *cmd, int argc, char **argv);
int cmd_map(const struct command *cmd, int argc, char **argv);
int cmd_compare(const struct command *cmd, int argc, char **argv);

/* ---- options ------------------------------------------------------------------ */

/* Values of long options without a letter; every verb may add its own from OPT_OWN on. */
enum {
	OPT_JSON = 256,
	OPT_BASE,
	OPT_BASE_DIR,
	OPT_OWN,
};

#define HELP_JSON	"      --json               print JSON\n"
#define HELP_BASE	"      --base PATH          where the base is; again for its own base\n"
#define HELP_BASE_DIR	"      --base-dir DIR       bases may be in DIR or below\n"
#define HELP_HELP	"  -h, --help               print this\n"

/**
 * struct chain_args - the options that say where bases are
 * @options: ready for vc_chain_open() after chain_args_init()
 * @environment: the split environment variable
 */
struct chain_args {
	struct vc_chain_options options;
	char *environment;
};

/* Returns false if @opt is none of these options. */
bool chain_args_take(struct chain_args *args, int opt, char *value);
void chain_args_init(struct chain_args *args);
void chain_args_free(struct chain_args *args);

/* Add to a list that free() frees; there is always memory for it, or no program. */
void list_push(const char ***list, unsigned int *nr, const char *value);

/* Exit codes of wrong usage; both print. */
int usage_error(const struct command *cmd, const char *fmt, ...) __printf(2, 3);
int usage_help(const struct command *cmd);

/* What an option that is not the verb's own means: help, or a usage error. */
int usage_option(const struct command *cmd, int opt);

/* A size given to an option; prints and returns false if it is none. */
bool size_option(const struct command *cmd, const char *option, const char *value,
		 u64 *bytes);

/* The name in "NAME" or "/dev/mapper/NAME". */
const char *clone_name(const char *argument);

/* ---- output --------------------------------------------------------------------- */

/* Print an error as one line on stderr, return its exit code. */
int report_error(const struct vc_err *err);
void report_warning(const char *fmt, ...) __printf(1, 2);

/* One line of text: control characters of untrusted names become '?'. */
void print_clean(FILE *out, const char *text);

/* A JSON object with "json-version". */
struct json_object *json_new(void);
void json_add_string(struct json_object *object, const char *key, const char *value);
void json_add_number(struct json_object *object, const char *key, u64 value);
void json_add_bool(struct json_object *object, const char *key, bool value);
void json_add_guid(struct json_object *object, const char *key,
		   const struct vhdx_guid *guid);

/* Print and free; returns the exit code. */
int json_finish(struct json_object *object);

/* Anything printed is worth nothing if it did not get out: the exit code then. */
int finish_stdout(int code);

#endif /* VHDCLONE_H */
