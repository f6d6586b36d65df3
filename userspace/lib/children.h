/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who stands on a base.  Nothing in a base says so; what is known comes from a list
 * beside the base that create keeps, from looking into directories, and from the
 * tables of open clones.
 *
 * The list of DIR/NAME is DIR/.NAME.vhdclone, a text file:
 *
 *	vhdclone children 1
 *	./below/vm1.vhdx
 *	/elsewhere/vm2.vhdx
 *
 * A path is seen from DIR if the child was there or below, else it is absolute.  In it
 * a backslash and what is not printable are written as \ooo, three octal digits.  A
 * line that is none of this, or has no end, is passed over.
 */
#ifndef VC_CHILDREN_H
#define VC_CHILDREN_H

#include "chain.h"

/**
 * struct vc_child - an image whose parent is the base
 * @path: of the child; of an open clone whose file is not known, its device's name
 * @open_as: name of an open clone that has child and base as layers, or NULL
 * @mismatch: it names the base, but expects another identity
 * @dev: with @ino, which file it is; both 0 if that is not known
 * @ino: see there
 */
struct vc_child {
	char *path;
	char *open_as;
	bool mismatch;
	dev_t dev;
	ino_t ino;
};

/**
 * struct vc_children - all that were found
 * @nr: so many
 * @child: sorted by path
 * @nr_unread: images and directories that could not be looked at, for want of
 *	       permission or because they are broken
 */
struct vc_children {
	unsigned int nr;
	struct vc_child *child;
	unsigned int nr_unread;
};

/**
 * vc_children_find() - all children of a base that can be found
 * @base: the base
 * @dirs: directories to look into, with all below; the base's own directory is always
 *	  looked into, without those below
 * @nr_dirs: so many
 * @result: to be freed with vc_children_free(), also after an error
 * @err: filled in on error
 *
 * A listed child is believed only after a look at it; what is gone is left out.
 */
int vc_children_find(const struct vc_image *base, const char **dirs, unsigned int nr_dirs,
		     struct vc_children *result, struct vc_err *err);
void vc_children_free(struct vc_children *children);

/*
 * Keep the list beside the base; best effort: a base in a directory that cannot be
 * written has none, nor has a block device.  To add costs no flush: after a crash the
 * newest lines may be missing.
 */
int vc_children_add(const struct vc_file *base, const char *child, struct vc_err *err);
int vc_children_remove(const struct vc_file *base, const char *child, struct vc_err *err);

#endif /* VC_CHILDREN_H */
