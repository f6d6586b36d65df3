/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the verbs share: the command table, options, and all that is printed. */
#ifndef VHDCLONE_H
#define VHDCLONE_H

#include <json-c/json.h>
#include <stdarg.h>
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

struct options;

/**
 * struct command - one verb
 * @name: as it is typed
 * @alias: another name for it, or NULL
 * @run: returns the exit code
 * @brief: a few words about it, for a screen that has all of them
 * @arguments: for the usage line
 * @summary: one line
 * @groups: the options that it shares with others: OPTIONS_ in options.h
 * @options: help of its own options, a line for each, or NULL
 */
struct command {
	const char *name;
	const char *alias;
	int (*run)(struct options *options);
	const char *brief;
	const char *arguments;
	const char *summary;
	unsigned int groups;
	const char *options;
};

int cmd_create(struct options *options);
int cmd_open(struct options *options);
int cmd_close(struct options *options);
int cmd_status(struct options *options);
int cmd_list(struct options *options);
int cmd_info(struct options *options);
int cmd_table(struct options *options);
int cmd_recover(struct options *options);
int cmd_protect(struct options *options);
int cmd_unprotect(struct options *options);
int cmd_remove(struct options *options);
int cmd_reset(struct options *options);
int cmd_set(struct options *options);
int cmd_resize(struct options *options);
int cmd_compact(struct options *options);
int cmd_dump(struct options *options);
int cmd_check(struct options *options);
int cmd_convert(struct options *options);
int cmd_copy(struct options *options);
int cmd_merge(struct options *options);
int cmd_flatten(struct options *options);
int cmd_reparent(struct options *options);
int cmd_chain(struct options *options);
int cmd_children(struct options *options);
int cmd_scan(struct options *options);
int cmd_map(struct options *options);
int cmd_compare(struct options *options);

/* ---- the command line: see options.h, too ---------------------------------------- */

/* Add to a list that free() frees; there is always memory for it, or no program. */
void list_push(const char ***list, unsigned int *nr, const char *value);

/* Exit codes of wrong usage; both print. */
int usage_error(const struct command *cmd, const char *fmt, ...) __printf(2, 3);
int usage_verror(const struct command *cmd, const char *fmt, va_list ap);

/* The name in "NAME" or "/dev/mapper/NAME". */
const char *clone_name(const char *argument);

/* ---- output --------------------------------------------------------------------- */

/* Print an error as one line on stderr, return its exit code. */
int report_error(const struct vc_err *err);
void report_warning(const char *fmt, ...) __printf(1, 2);

/* One line of text: control characters of untrusted names become '?'. */
void print_clean(FILE *out, const char *text);

/*
 * JSON is printed when it is complete, and is complete: there is memory for it, or no
 * program.  What json_object_new_...() returned goes through json_need().
 */
struct json_object *json_need(struct json_object *object);
void json_add(struct json_object *object, const char *key, struct json_object *value);
void json_push(struct json_object *array, struct json_object *value);

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
