// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone chain */
#include "tree-view.h"

static const struct option chain_options[] = {
	{ "base", required_argument, NULL, OPT_BASE },
	{ "parent", required_argument, NULL, OPT_BASE },
	{ "base-dir", required_argument, NULL, OPT_BASE_DIR },
	{ "parent-dir", required_argument, NULL, OPT_BASE_DIR },
	TREE_VIEW_OPTIONS,
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 }
};

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

int cmd_chain(const struct command *cmd, int argc, char **argv)
{
	struct chain_args args = {
		.options = {
			.image_flags = VC_IMAGE_REPLAY,
			.base_flags = VC_IMAGE_REPLAY,
		},
	};
	struct tree_view view;
	bool bad = false;
	int code;
	int opt;

	tree_view_init(&view);
	chain_args_init(&args);
	while ((opt = getopt_long(argc, argv, "hno:", chain_options, NULL)) != -1) {
		if (!tree_view_take(&view, cmd, opt, optarg, &bad) &&
		    !chain_args_take(&args, opt, optarg)) {
			code = usage_option(cmd, opt);
			goto out;
		}
	}
	if (bad)
		code = VC_EXIT_USAGE;
	else if (argc - optind != 1)
		code = usage_error(cmd, "need one IMAGE");
	else
		code = chain_run(argv[optind], &view, &args.options);
out:
	chain_args_free(&args);
	return code;
}
