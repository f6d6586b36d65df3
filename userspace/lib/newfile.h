/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that are written aside, and get their name when they are complete. */
#ifndef VC_NEWFILE_H
#define VC_NEWFILE_H

#include "chain.h"

/* A name beside @path that nobody has, to be freed. */
char *vc_temporary_name(const char *path);

/* Give a file its name; without @force never one that there is. */
int vc_publish(const char *path, const char *temporary, bool force, struct vc_err *err);

/* The error for a path that exists. */
int vc_exists(const char *path, struct vc_err *err);

/**
 * struct vc_newfile - a file to be
 * @path: its name, links resolved
 * @temporary: where it is written; NULL: it has its name
 * @force: it may replace one
 */
struct vc_newfile {
	char *path;
	char *temporary;
	bool force;
};

/**
 * vc_newfile_begin() - look whether there may be a file with this name
 * @new: result; for vc_newfile_end(), also after an error
 * @path: its name
 * @force: replace what has it
 * @chain: but none of these, NULL for any
 * @err: filled in on error
 *
 * The caller makes the temporary file and makes it durable.
 */
int vc_newfile_begin(struct vc_newfile *new, const char *path, bool force,
		     const struct vc_chain *chain, struct vc_err *err);

/* The file is complete and durable: make its name so, too. */
int vc_newfile_publish(struct vc_newfile *new, struct vc_err *err);

/* Delete the temporary file, if it is there yet. */
void vc_newfile_end(struct vc_newfile *new);

#endif /* VC_NEWFILE_H */
