/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Who stands on a base.  Nothing in a base says so; what is known comes from a list
 * beside the base that create keeps, from looking into directories, and from the
 * tables of open clones.
 */
#ifndef VC_CHILDREN_H
#define VC_CHILDREN_H

#include "chain.h"

/**
 * struct vc_child - an image whose parent is the base
 * @path: of the child; of an open clone whose file is not known, its device's name
 * @open_as: name of the open clone that has the base as a layer, or NULL
 * @mismatch: it names the base, but expects another identity
 */
struct vc_child {
	char *path;
	char *open_as;
	bool mismatch;
};

struct vc_children {
	unsigned int nr;
	struct vc_child *child;
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
 * written has none.
 */
int vc_children_add(const struct vc_file *base, const char *child, struct vc_err *err);
int vc_children_remove(const struct vc_file *base, const char *child, struct vc_err *err);

#endif /* VC_CHILDREN_H */
