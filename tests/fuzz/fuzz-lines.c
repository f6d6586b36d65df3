// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lines of text: the arguments of a table, as the kernel's constructor parses them and
 * as the tool reads them back; a status; sizes and GUIDs.
 */
#define _GNU_SOURCE
#include "dm-vhdclone-table.h"
#include "fuzz.h"
#include "guid.h"
#include "size.h"
#include "table.h"

#define MAX_WORDS	2048U

/* As the constructor goes about it. */
static bool kernel_table(unsigned int argc, char **argv)
{
	static struct vc_layer_args layer[VHDCLONE_MAX_LAYERS];
	struct dm_arg_set as = { .argc = argc, .argv = argv };
	struct vc_features features = { };
	const char *path = NULL;
	unsigned int nr = 0;
	char *error = NULL;
	unsigned int i;
	int ret;

	ret = vc_parse_nr_layers(&as, &nr, &error);
	fuzz_assert(ret || (nr && nr <= VHDCLONE_MAX_LAYERS));
	for (i = 0; !ret && i < nr; i++) {
		memset(&layer[i], 0, sizeof(layer[i]));
		ret = vc_parse_layer(&as, &layer[i], &path, &error);
		if (ret)
			break;
		fuzz_assert(path && layer[i].sectors);
		fuzz_assert(layer[i].sectors << SECTOR_SHIFT >> SECTOR_SHIFT ==
			    layer[i].sectors);
		ret = vc_check_layer(&layer[i], i, nr, &layer[0], &error);
	}
	if (!ret)
		ret = vc_parse_features(&as, &features, &error);
	fuzz_assert(!ret == !error);
	fuzz_assert(ret || !as.argc);
	return !ret;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static char *argv[MAX_WORDS];
	struct vc_status status;
	struct vc_table *table;
	struct vhdx_guid guid;
	struct vc_err err = { };
	unsigned int argc = 0;
	char text[VC_GUID_TEXT];
	char *line;
	char *copy;
	char *word;
	char *rest;
	u64 bytes;

	line = strndup((const char *)data, size);
	copy = strdup(line);
	table = malloc(sizeof(*table));
	fuzz_assert(line && copy && table);
	rest = copy;
	/* dm's own splitting knows backslashes, too; not our business. */
	while (argc < MAX_WORDS && (word = strsep(&rest, " ")))
		if (*word)
			argv[argc++] = word;
	kernel_table(argc, argv);

	if (!vc_table_parse(line, table, &err))
		fuzz_assert(table->nr && table->nr <= VHDCLONE_MAX_LAYERS);
	vc_status_parse(line, &status, &err);
	if (vc_size_parse(line, &bytes))
		vc_size_format(bytes, text);
	if (vc_guid_parse(line, &guid)) {
		vc_guid_format(&guid, text);
		fuzz_assert(vc_guid_parse(text, &guid));
	}
	free(table);
	free(copy);
	free(line);
	return 0;
}
