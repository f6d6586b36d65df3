// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone children */
#include <limits.h>

#include "children.h"
#include "options.h"

/*
 * The children as nodes of a tree.  Where the base is, is known: it is named to each of
 * them, wherever they say that it is.
 */
static int children_tree(const struct vc_image *base, const struct vc_children *children,
			 struct vc_tree *tree, struct vc_err *err)
{
	const char *path = base->file.path;
	struct vc_chain_options options = {
		.image_flags = VC_IMAGE_REPLAY,
		.base_flags = VC_IMAGE_REPLAY,
		.bases = &path,
		.nr_bases = 1,
	};
	struct vc_node *child;
	struct vc_node *node;
	unsigned int i;
	int ret;

	options.nr_bases = 0;
	ret = vc_tree_add(tree, path, &options, &node, err);
	options.nr_bases = 1;
	for (i = 0; i < children->nr && !ret; i++) {
		ret = vc_tree_add(tree, children->child[i].path, &options, &child, err);
		/* A base that cannot be read is theirs all the same. */
		if (!ret && child != node && !child->parent)
			child->parent = node;
		/* Nobody can look into a device mapper's name, or what was removed. */
		if (ret && ret != -ENOMEM) {
			report_warning("%s", err->msg);
			ret = 0;
		}
	}
	if (!ret)
		vc_tree_finish(tree);
	return ret;
}

static int children_json(const struct vc_tree *tree, const struct vc_image *base,
			 unsigned int nr_unread)
{
	struct json_object *list = json_object_new_array();
	struct json_object *json = json_new();
	const struct vc_node *node;
	unsigned int i;

	for (i = 0; i < tree->nr; i++) {
		node = tree->node[i];
		if (node->parent && vc_file_same(&node->parent->file, &base->file))
			json_object_array_add(list, tree_view_json(node));
	}
	json_add_string(json, "path", base->file.real);
	json_object_object_add(json, "children", list);
	json_add_number(json, "unread", nr_unread);
	return json_finish(json);
}

static unsigned int base_index(const struct vc_tree *tree, const struct vc_image *base)
{
	unsigned int i;

	for (i = 0; i < tree->nr; i++)
		if (vc_file_same(&tree->node[i]->file, &base->file))
			break;
	return i;
}

static int children_run(const char *path, const char **dirs, unsigned int nr_dirs,
			const struct tree_view *view)
{
	struct vc_children children = { };
	struct vc_tree tree = { };
	struct vc_image *base;
	struct vc_err err;
	int code;
	int ret;

	ret = vc_image_open(&base, path, VC_IMAGE_REPLAY, NULL, &err);
	/* Whoever stands on something broken wants to be known all the more. */
	if (ret == -EINVAL || ret == -EBADMSG || ret == -EUCLEAN || ret == -EOPNOTSUPP)
		ret = vc_image_open(&base, path, VC_IMAGE_RAW, NULL, &err);
	if (!ret)
		ret = vc_children_find(base, dirs, nr_dirs, &children, &err);
	if (!ret)
		ret = children_tree(base, &children, &tree, &err);
	if (ret)
		code = report_error(&err);
	else if (view->json)
		code = children_json(&tree, base, children.nr_unread);
	else
		code = tree_view_above(view, &tree, tree.node[base_index(&tree, base)]);
	if (children.nr_unread)
		report_warning("%u files or directories could not be looked into",
			       children.nr_unread);
	vc_tree_free(&tree);
	vc_children_free(&children);
	vc_image_close(base);
	return code;
}

int cmd_children(struct options *options)
{
	if (!options_arguments(options, 1, INT_MAX, "need a BASE"))
		return options->code;
	return children_run(options->argv[0], (const char **)options->argv + 1,
			    options->argc - 1, &options->view);
}
