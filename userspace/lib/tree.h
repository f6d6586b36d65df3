/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Many images, and which stands on which.  Made for looking at what is broken: an
 * image that cannot be read, or whose parent is not what it should be, is a node too,
 * and says why.
 */
#ifndef VC_TREE_H
#define VC_TREE_H

#include "chain.h"

enum vc_node_state {
	VC_NODE_CLEAN,
	VC_NODE_OPEN,			/* it is the delta of an open clone */
	VC_NODE_NEEDS_RECOVERY,		/* its log is not empty, and it is not open */
	VC_NODE_ORPHAN,			/* something further down is broken */
	VC_NODE_CYCLE,			/* it stands on itself */
	VC_NODE_PARENT_MISMATCH,	/* its parent is not the one that it expects */
	VC_NODE_PARENT_MISSING,
	VC_NODE_DAMAGED,		/* it cannot be read, or not to its end */
};

/**
 * struct vc_node - one image
 * @file: which it is, closed; @path is as it was given, @real where that led to
 * @parent: the image that it stands on, if that was found
 * @state: the worst that is to be said
 * @problem: in words, from VC_NODE_ORPHAN on; else NULL
 * @errnum: of the problem
 * @read: what follows, up to @own_known, is known
 * @format: of the image
 * @type: "raw", "fixed", "dynamic" or "differencing"
 * @has_parent: it should stand on another
 * @dirty: its log is not empty
 * @virtual_size: bytes
 * @allocated: what its file takes on the disk, bytes
 * @own: data in this file, bytes of the disk
 * @own_known: @own could be found out
 * @id: its DataWriteGuid, or what stands for it, as text; or empty
 * @expected: what it wants its parent's @id to be, or empty
 * @found: what that is, if it is another
 * @hint: where it says that its parent is, or NULL
 * @open_as: names of the open clones that have it as delta, or NULL
 * @nr_users: open clones that have it as a base
 * @depth: layers from it down to the base, it and the base included, as far as they
 *	   are known
 * @mark: for whoever walks the tree
 */
struct vc_node {
	struct vc_file file;
	struct vc_node *parent;
	enum vc_node_state state;
	char *problem;
	int errnum;
	bool read;
	enum vc_format format;
	const char *type;
	bool has_parent;
	bool dirty;
	u64 virtual_size;
	u64 allocated;
	u64 own;
	bool own_known;
	char id[VC_FINGERPRINT_TEXT];
	char expected[VC_FINGERPRINT_TEXT];
	char found[VC_FINGERPRINT_TEXT];
	char *hint;
	char *open_as;
	unsigned int nr_users;
	unsigned int depth;
	unsigned int mark;
};

/**
 * struct vc_tree - the images that were found
 * @nr: so many
 * @node: sorted by path, after vc_tree_finish()
 * @nr_unread: directories, and files that have the name of an image, that could not be
 *	       looked into
 * @unread: a line about each
 */
struct vc_tree {
	unsigned int nr;
	struct vc_node **node;
	unsigned int nr_unread;
	char **unread;
	struct vc_open_layers *active;
};

/**
 * vc_tree_add() - one image, and all that it stands on
 * @tree: zeroed before the first; to be freed with vc_tree_free(), also after an error
 * @path: of the image
 * @options: where its parents may be
 * @node: result, may be NULL
 * @err: filled in on error
 *
 * Return: 0 if there is a node, whatever state it has; an error if there is no file, or
 * something that cannot hold an image.
 */
int vc_tree_add(struct vc_tree *tree, const char *path,
		const struct vc_chain_options *options, struct vc_node **node,
		struct vc_err *err);

/*
 * All images in a directory and below, and all that these stand on.  A proc, sysfs or
 * the like is passed over.
 */
int vc_tree_scan(struct vc_tree *tree, const char *dir,
		 const struct vc_chain_options *options, struct vc_err *err);

/* To be called when all are there: depths, cycles, orphans, order. */
void vc_tree_finish(struct vc_tree *tree);
void vc_tree_free(struct vc_tree *tree);

/* "clean", "open", "needs-recovery", "orphan", ... */
const char *vc_node_state_name(enum vc_node_state state);

static inline bool vc_node_is_wrong(const struct vc_node *node)
{
	return node->state >= VC_NODE_ORPHAN;
}

#endif /* VC_TREE_H */
