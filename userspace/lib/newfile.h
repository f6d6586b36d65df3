/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Files that are written aside, and get their name when they are complete. */
#ifndef VC_NEWFILE_H
#define VC_NEWFILE_H

#include "chain.h"

/* The error for a path that exists. */
int vc_exists(const char *path, struct vc_err *err);

/**
 * struct vc_newfile - a file to be
 * @path: its name, links resolved
 * @temporary: leads to it until it has that
 * @hidden: a name beside @path
 * @fd: the file
 * @named: it has the name @hidden; what is killed leaves nothing before that
 * @force: it may replace one
 */
struct vc_newfile {
	char *path;
	char *temporary;
	char *hidden;
	int fd;
	bool named;
	bool force;
};

/**
 * vc_newfile_begin() - make an empty file, if it may get this name later
 * @new: result; for vc_newfile_end(), also after an error
 * @path: its name
 * @force: replace what has it
 * @chain: but none of these, NULL for any
 * @err: filled in on error
 *
 * It has no name at all where the file system can do that.
 */
int vc_newfile_begin(struct vc_newfile *new, const char *path, bool force,
		     const struct vc_chain *chain, struct vc_err *err);

/* The same for a path that was looked at; @path is where links led to. */
int vc_newfile_make(struct vc_newfile *new, const char *path, bool force,
		    struct vc_err *err);

/* Open it for writing.  Messages give it the name that it is to have. */
int vc_newfile_file(const struct vc_newfile *new, struct vc_file *file, struct vc_err *err);
int vc_newfile_image(const struct vc_newfile *new, struct vc_image **image,
		     unsigned int flags, struct vc_err *err);

/**
 * vc_newfile_publish() - give it its name
 *
 * The file is complete and durable, and so is its name then.  Without @force no file
 * loses its name for it, and after an error none is there.
 */
int vc_newfile_publish(struct vc_newfile *new, struct vc_err *err);

/* Close it, and delete it if it was not published. */
void vc_newfile_end(struct vc_newfile *new);

#endif /* VC_NEWFILE_H */
