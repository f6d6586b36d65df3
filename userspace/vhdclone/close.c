// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone close */
#include "activate.h"
#include "options.h"

enum {
	OPT_DEFERRED = OPT_OWN,
};

static const struct option close_options[] = {
	{ "deferred", no_argument, NULL, OPT_DEFERRED },
	{ }
};

int cmd_close(struct options *options)
{
	struct vc_closed closed;
	bool deferred = false;
	const char *name;
	struct vc_err err;
	int ret;

	while (options_next(options, close_options) != -1)
		deferred = true;
	if (!options_arguments(options, 1, 1, "need one NAME"))
		return options->code;
	name = clone_name(options->argv[0]);
	if (!vc_dm_name_ok(name))
		return usage_error(options->cmd, "'%s' cannot be the name of a clone", name);
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
