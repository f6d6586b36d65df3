// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone scan */
#include "tree-view.h"

static const struct option scan_options[] = {
	{ "base-dir", required_argument, NULL, OPT_BASE_DIR },
	{ "parent-dir", required_argument, NULL, OPT_BASE_DIR },
	TREE_VIEW_OPTIONS,
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 }
};

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

int cmd_scan(const struct command *cmd, int argc, char **argv)
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
	int i;

	tree_view_init(&view);
	chain_args_init(&args);
	while ((opt = getopt_long(argc, argv, "hno:", scan_options, NULL)) != -1) {
		if (!tree_view_take(&view, cmd, opt, optarg, &bad) &&
		    !chain_args_take(&args, opt, optarg)) {
			code = usage_option(cmd, opt);
			goto out;
		}
	}
	if (bad) {
		code = VC_EXIT_USAGE;
	} else if (argc == optind) {
		code = usage_error(cmd, "need a DIR");
	} else {
		/* Whoever names a directory trusts what is in it. */
		for (i = optind; i < argc; i++)
			chain_args_take(&args, OPT_BASE_DIR, argv[i]);
		code = scan_run(argv + optind, &view, &args.options);
	}
out:
	chain_args_free(&args);
	return code;
}
