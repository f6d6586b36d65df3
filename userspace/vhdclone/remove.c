// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone remove */
#include "depend.h"
#include "options.h"

int cmd_remove(struct options *options)
{
	struct json_object *object;
	struct vc_err err;
	u64 freed;

	if (!options_arguments(options, 1, 1, "need one DELTA"))
		return options->code;
	if (vc_remove(options->argv[0], &freed, &err))
		return report_error(&err);
	if (!options->json)
		return VC_EXIT_OK;
	object = json_new();
	json_add_string(object, "path", options->argv[0]);
	json_add_number(object, "freed", freed);
	return json_finish(object);
}
