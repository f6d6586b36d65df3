// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone close */
#include "activate.h"
#include "vhdclone.h"

enum {
	OPT_DEFERRED = OPT_OWN,
};

static const struct option close_options[] = {
	{ "deferred", no_argument, NULL, OPT_DEFERRED },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 }
};

int cmd_close(const struct command *cmd, int argc, char **argv)
{
	struct vc_closed closed;
	bool deferred = false;
	const char *name;
	struct vc_err err;
	int opt;
	int ret;

	while ((opt = getopt_long(argc, argv, "h", close_options, NULL)) != -1) {
		if (opt != OPT_DEFERRED)
			return usage_option(cmd, opt);
		deferred = true;
	}
	if (argc - optind != 1)
		return usage_error(cmd, "need one NAME");
	name = clone_name(argv[optind]);
	if (!vc_dm_name_ok(name))
		return usage_error(cmd, "'%s' cannot be the name of a clone", name);
	ret = vc_close(name, deferred, &closed, &err);
	if (ret)
		return report_error(&err);
	if (closed.uncut[0])
		report_warning("%s: the delta file keeps its length: %s", name, closed.uncut);
	if (closed.deferred)
		report_warning("%s: in use, goes away with its last user; the file keeps its length",
			       name);
	return VC_EXIT_OK;
}
