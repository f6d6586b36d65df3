// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone scan */
#include <limits.h>

#include "options.h"

static int scan_run(char **dirs, const struct tree_view *view,
		    const struct vc_chain_options *options)
{
	struct vc_tree tree = { };
	struct vc_err err;
	unsigned int i;
	int code = 0;

	for (; *dirs && !code; dirs++)
		if (vc_tree_scan(&tree, *dirs, options, &err))
			code = report_error(&err);
	if (code)
		goto out;
	vc_tree_finish(&tree);
	code = tree_view_forest(view, &tree);
	for (i = 0; i < tree.nr_unread; i++)
		report_warning("%s", tree.unread[i]);
	if (tree.nr_unread && !code)
		code = VC_EXIT_PERMISSION;
	for (i = 0; i < tree.nr; i++) {
		tree_view_complain(tree.node[i]);
		if (vc_node_is_wrong(tree.node[i]))
			code = VC_EXIT_WRONG;
	}
out:
	vc_tree_free(&tree);
	return code;
}

int cmd_scan(struct options *options)
{
	int i;

	options_replay(options);
	if (!options_arguments(options, 1, INT_MAX, "need a DIR"))
		return options->code;
	/* Whoever names a directory trusts what is in it. */
	for (i = 0; i < options->argc; i++)
		list_push(&options->chain.roots, &options->chain.nr_roots, options->argv[i]);
	return scan_run(options->argv, &options->view, &options->chain);
}
