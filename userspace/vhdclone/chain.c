// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone chain */
#include "options.h"

static int chain_run(const char *path, const struct tree_view *view,
		     const struct vc_chain_options *options)
{
	struct vc_tree tree = { };
	struct vc_node *node;
	struct vc_node *top;
	struct vc_err err;
	unsigned int i;
	int code;

	if (vc_tree_add(&tree, path, options, &top, &err)) {
		code = report_error(&err);
		goto out;
	}
	vc_tree_finish(&tree);
	code = tree_view_chain(view, &tree, top);
	for (i = 0; i < tree.nr; i++)
		tree.node[i]->mark = 0;
	for (node = top; node && !node->mark; node = node->parent) {
		node->mark = 1;
		tree_view_complain(node);
		if (vc_node_is_wrong(node) && !code)
			code = vc_exit_code(-node->errnum);
	}
out:
	vc_tree_free(&tree);
	return code;
}

int cmd_chain(struct options *options)
{
	options_replay(options);
	if (!options_arguments(options, 1, 1, "need one IMAGE"))
		return options->code;
	return chain_run(options->argv[0], &options->view, &options->chain);
}
