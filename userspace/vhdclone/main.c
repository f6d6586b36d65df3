// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone: linked clones as differencing VHDX.  The command table. */
#include <signal.h>

#include "options.h"

/* In groups, as help has them. */
static const struct command commands[] = {
	{ "create", NULL, cmd_create,
	  "BASE DELTA\n       vhdclone create --count N [OPTIONS] BASE PATTERN\n"
	  "       vhdclone create --type fixed|dynamic --size SIZE FILE",
	  "make a clone of BASE, or a new empty image",
	  OPTIONS_BASE_DIR | OPTIONS_PROGRESS | OPTIONS_JSON,
	  "      --size SIZE          virtual size; default: the base's\n"
	  "      --block-size SIZE    1M to 256M, default 2M\n"
	  "      --log-size SIZE      a multiple of 1M, default 1M\n"
	  "      --type TYPE          differencing (default), dynamic or fixed\n"
	  "      --base-format FMT    auto (default), raw, vhdx or vhd\n"
	  "      --logical-sector-size N\n"
	  "      --physical-sector-size N\n"
	  "                           512 or 4096; default: the base's\n"
	  "      --full               copy all that BASE has, stand on nothing\n"
	  "      --count N            so many clones; '%03d' in PATTERN is their number\n"
	  "      --first N            the first one's number, default 1\n"
	  "  -f, --force              overwrite\n" },
	{ "open", "attach", cmd_open, "IMAGE [NAME]",
	  "make an image a block device, /dev/mapper/NAME",
	  OPTIONS_BASES | OPTIONS_JSON,
	  "  -r, --read-only          never write, not even to the delta\n"
	  "      --probe              let the host look for filesystems on it\n" },
	{ "close", "detach", cmd_close, "NAME",
	  "remove the block device, leave a clean image", 0,
	  "      --deferred           when it is in use: as soon as it is not\n" },
	{ "status", NULL, cmd_status, "[NAME]", "show how open clones are doing",
	  OPTIONS_JSON, NULL },
	{ "list", NULL, cmd_list, "", "list open clones", OPTIONS_JSON,
	  "  -n, --noheadings         no line of headings\n"
	  "  -o, --output COLUMN,...  NAME SIZE USED MODE LAYERS DELTA BASE\n" },
	{ "info", NULL, cmd_info, "IMAGE", "show what an image says about itself",
	  OPTIONS_BASES | OPTIONS_JSON,
	  "      --chain              and the same for all below it\n"
	  "      --children           and who stands on it, and what they expect\n" },
	{ "table", NULL, cmd_table, "IMAGE", "print the line that dmsetup create needs",
	  OPTIONS_BASES | OPTIONS_JSON,
	  "  -r, --read-only          for a device that is never written\n" },
	{ "recover", NULL, cmd_recover, "IMAGE", "replay the log of an image that was not closed",
	  OPTIONS_JSON, NULL },
	{ "resize", NULL, cmd_resize, "IMAGE [+|-]SIZE", "make a disk larger or smaller",
	  OPTIONS_BASES | OPTIONS_JSON,
	  "      --cut-data           a smaller disk may lose what is behind its new end\n" },
	{ "compact", NULL, cmd_compact, "IMAGE", "make the file of an image as small as can be",
	  OPTIONS_BASES | OPTIONS_PROGRESS | OPTIONS_JSON,
	  "      --dedup-parent       drop blocks that read the same without them\n" },
	{ "dump", NULL, cmd_dump, "IMAGE", "print all metadata, for a report of a bug",
	  OPTIONS_JSON, NULL },
	{ "reset", NULL, cmd_reset, "NAME|DELTA", "make a delta empty again",
	  OPTIONS_JSON, NULL },
	{ "remove", NULL, cmd_remove, "DELTA", "remove a delta, never its base",
	  OPTIONS_JSON, NULL },
	{ "protect", NULL, cmd_protect, "BASE", "keep a base from being changed or removed",
	  OPTIONS_JSON, NULL },
	{ "unprotect", NULL, cmd_unprotect, "BASE", "allow changes of a base again",
	  OPTIONS_JSON, NULL },
	{ "set", NULL, cmd_set, "IMAGE", "change what an image says about itself",
	  OPTIONS_JSON,
	  "      --disk-id new|GUID   the identity of the disk, as a guest sees it\n" },
	{ "check", NULL, cmd_check, "IMAGE", "check an image and its chain",
	  OPTIONS_BASES | OPTIONS_JSON,
	  "      --no-chain           only the image itself\n"
	  "      --repair             mend what has one right answer, in the image itself\n"
	  "      --undo-file FILE     what was before goes there, default IMAGE.undo\n"
	  "      --undo FILE          take a repair back, and nothing else\n"
	  "  -v, --verbose            tell also what is legal but odd\n"
	  "  -q, --quiet              print nothing, just exit with the code\n" },
	{ "copy", NULL, cmd_copy, "IMAGE DESTINATION",
	  "copy an image, or a chain, so that it finds its parent from there",
	  OPTIONS_BASES | OPTIONS_PROGRESS | OPTIONS_JSON,
	  "      --chain              with all below it, into a directory\n"
	  "  -f, --force              replace what is there\n" },
	{ "merge", NULL, cmd_merge, "DELTA",
	  "write what a delta has into its parent, or all into a new image",
	  OPTIONS_NEW | OPTIONS_BASE_DIR | OPTIONS_PROGRESS | OPTIONS_JSON,
	  "      --base LAYER         and all between into that one\n"
	  "      --to NEW             make a new image, change none\n"
	  "      --type TYPE          of NEW; default: as the base\n"
	  "      --block-size SIZE    of NEW\n"
	  "  -f, --force              replace NEW\n"
	  "      --scan DIR           DIR may have other children of the base\n"
	  "      --delete             then remove what was merged\n"
	  "  -n, --dry-run            print what there is to do and what it takes\n" },
	{ "flatten", NULL, cmd_flatten, "DELTA",
	  "copy all that a delta has from below, and leave its parent",
	  OPTIONS_NEW | OPTIONS_BASES | OPTIONS_PROGRESS | OPTIONS_JSON,
	  "      --to NEW             make a new image, change none\n"
	  "      --type TYPE          of NEW; default: dynamic\n"
	  "      --block-size SIZE    of NEW\n"
	  "  -f, --force              replace NEW\n" },
	{ "reparent", NULL, cmd_reparent, "DELTA NEWBASE",
	  "write another parent, or its new path, into a delta",
	  OPTIONS_BASES | OPTIONS_PROGRESS | OPTIONS_JSON,
	  "      --compare            if NEWBASE reads as the old parent does\n"
	  "      --unsafe             whatever NEWBASE holds\n"
	  "      --base-format FMT    NEWBASE is auto (default) or raw\n" },
	{ "convert", NULL, cmd_convert, "--type TYPE IN OUT",
	  "make an image of another type with the same content",
	  OPTIONS_NEW | OPTIONS_BASES | OPTIONS_PROGRESS | OPTIONS_JSON,
	  "      --type TYPE          raw, fixed, dynamic, differencing, vhd-fixed or\n"
	  "                           vhd-dynamic\n"
	  "      --block-size SIZE    1M to 256M, default: as IN has it\n"
	  "      --format FMT         IN is auto (default) or raw\n"
	  "      --as-parent-of DELTA of which IN is the base: OUT is from now on\n"
	  "  -f, --force              replace OUT\n" },
	{ "chain", NULL, cmd_chain, "IMAGE", "show what an image stands on",
	  OPTIONS_BASES | OPTIONS_TREE, NULL },
	{ "children", NULL, cmd_children, "BASE [DIR...]", "show what stands on an image",
	  OPTIONS_TREE, NULL },
	{ "scan", NULL, cmd_scan, "DIR...", "show all images in directories and what they stand on",
	  OPTIONS_BASE_DIR | OPTIONS_TREE, NULL },
	{ "map", NULL, cmd_map, "IMAGE", "show where each part of the disk comes from",
	  OPTIONS_BASES,
	  "      --json               print JSON, as 'qemu-img map --output=json' does\n" },
	{ "compare", NULL, cmd_compare, "A B",
	  "tell whether two images read the same",
	  OPTIONS_BASE_DIR | OPTIONS_JSON,
	  "      --strict             the virtual sizes must be the same, too\n"
	  "  -q, --quiet              print nothing, just exit with the code\n" },
};

static const struct command *find_command(const char *name)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(commands[i].name, name) ||
		    (commands[i].alias && !strcmp(commands[i].alias, name)))
			return &commands[i];
	return NULL;
}

static void print_usage(FILE *out)
{
	unsigned int i;

	fprintf(out, "usage: vhdclone COMMAND [OPTIONS] ARGUMENTS\n\n"
		"Linked clones: block devices over a read-only base and a differencing VHDX.\n\n");
	for (i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].summary);
	fprintf(out, "  %-9s %s\n\n", "help", "print this, or the help of a COMMAND");
	fprintf(out, "  -V, --version\n  -h, --help\n");
}

int usage_verror(const struct command *cmd, const char *fmt, va_list ap)
{
	fprintf(stderr, "vhdclone %s: ", cmd->name);
	vfprintf(stderr, fmt, ap);
	fprintf(stderr, "; see 'vhdclone help %s'\n", cmd->name);
	return VC_EXIT_USAGE;
}

int usage_error(const struct command *cmd, const char *fmt, ...)
{
	va_list ap;
	int code;

	va_start(ap, fmt);
	code = usage_verror(cmd, fmt, ap);
	va_end(ap);
	return code;
}

static int run_help(int argc, char **argv)
{
	const struct command *cmd;

	if (argc < 2) {
		print_usage(stdout);
		return finish_stdout(VC_EXIT_OK);
	}
	cmd = find_command(argv[1]);
	if (cmd && argc == 2)
		return options_help(cmd);
	fprintf(stderr, "vhdclone help: no command '%s'; see 'vhdclone help'\n", argv[1]);
	return VC_EXIT_USAGE;
}

int main(int argc, char **argv)
{
	const struct command *cmd;
	struct options options;
	char name[64];
	int code;

	/* A file size limit is an error like any other, not the end. */
	signal(SIGXFSZ, SIG_IGN);
	/* Somebody wants to write a base while it is looked at. */
	signal(SIGIO, SIG_IGN);
	if (argc < 2) {
		print_usage(stderr);
		return VC_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "-V") || !strcmp(argv[1], "--version") ||
	    !strcmp(argv[1], "version")) {
		printf("vhdclone " VHDCLONE_TOOL_VERSION "\n");
		return finish_stdout(VC_EXIT_OK);
	}
	if (!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help") || !strcmp(argv[1], "help"))
		return run_help(argc - 1, argv + 1);

	cmd = find_command(argv[1]);
	if (!cmd) {
		fprintf(stderr, "vhdclone: no command '%s'; see 'vhdclone help'\n", argv[1]);
		return VC_EXIT_USAGE;
	}
	/* getopt begins its messages with this. */
	snprintf(name, sizeof(name), "vhdclone %s", cmd->name);
	argv[1] = name;
	options_init(&options, cmd, argc - 1, argv + 1);
	code = cmd->run(&options);
	options_free(&options);
	return code;
}
