// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone remove */
#include "depend.h"
#include "vhdclone.h"

static const struct option remove_options[] = {
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 }
};

int cmd_remove(const struct command *cmd, int argc, char **argv)
{
	struct json_object *object;
	bool json = false;
	struct vc_err err;
	u64 freed;
	int opt;

	while ((opt = getopt_long(argc, argv, "h", remove_options, NULL)) != -1) {
		if (opt != OPT_JSON)
			return usage_option(cmd, opt);
		json = true;
	}
	if (argc - optind != 1)
		return usage_error(cmd, "need one DELTA");
	if (vc_remove(argv[optind], &freed, &err))
		return report_error(&err);
	if (!json)
		return VC_EXIT_OK;
	object = json_new();
	json_add_string(object, "path", argv[optind]);
	json_add_number(object, "freed", freed);
	return json_finish(object);
}
