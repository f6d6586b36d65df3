/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Images and what they stand on, as a tree, as JSON, as a picture. */
#ifndef VHDCLONE_TREE_VIEW_H
#define VHDCLONE_TREE_VIEW_H

#include "tree.h"
#include "vhdclone.h"

#define TREE_VIEW_COLUMNS	14

/**
 * struct tree_view - how to show it
 * @json: print JSON
 * @dot: print a graph for Graphviz
 * @noheadings: no line of headings
 * @column: which, in this order
 * @nr_columns: so many
 */
struct tree_view {
	bool json;
	bool dot;
	bool noheadings;
	int column[TREE_VIEW_COLUMNS];
	unsigned int nr_columns;
};

void tree_view_init(struct tree_view *view);

/* Take one of OPTIONS_TREE; false if @opt is none of these. */
bool tree_view_take(struct options *options, int opt, char *value);

/* Everything in the tree, from the bases up. */
int tree_view_forest(const struct tree_view *view, const struct vc_tree *tree);

/* One image, and what stands on it. */
int tree_view_above(const struct tree_view *view, const struct vc_tree *tree,
		    struct vc_node *base);

/* One image, and under it what it stands on. */
int tree_view_chain(const struct tree_view *view, const struct vc_tree *tree,
		    struct vc_node *top);

/* One node as JSON. */
struct json_object *tree_view_json(const struct vc_node *node);

/* A line on stderr for what is wrong with a node itself; nothing if it is right. */
void tree_view_complain(const struct vc_node *node);

#endif /* VHDCLONE_TREE_VIEW_H */
