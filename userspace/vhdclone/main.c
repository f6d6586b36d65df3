// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone: linked clones as differencing VHDX.  The command table. */
#include <signal.h>
#include <stdarg.h>

#include "long.h"
#include "tree-view.h"

static const struct command commands[] = {
	{ "create", NULL, cmd_create,
	  "BASE DELTA\n       vhdclone create --count N [OPTIONS] BASE PATTERN\n"
	  "       vhdclone create --type fixed|dynamic --size SIZE FILE",
	  "make a clone of BASE, or a new empty image",
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
	  "  -f, --force              overwrite\n"
	  HELP_BASE_DIR HELP_PROGRESS HELP_JSON HELP_HELP },
	{ "open", "attach", cmd_open, "IMAGE [NAME]",
	  "make an image a block device, /dev/mapper/NAME",
	  HELP_BASE HELP_BASE_DIR
	  "  -r, --read-only          never write, not even to the delta\n"
	  "      --probe              let the host look for filesystems on it\n"
	  HELP_JSON HELP_HELP },
	{ "close", "detach", cmd_close, "NAME",
	  "remove the block device, leave a clean image",
	  "      --deferred           when it is in use: as soon as it is not\n"
	  HELP_HELP },
	{ "status", NULL, cmd_status, "[NAME]", "show how open clones are doing",
	  HELP_JSON HELP_HELP },
	{ "list", NULL, cmd_list, "", "list open clones",
	  "  -n, --noheadings         no line of headings\n"
	  "  -o, --output COLUMN,...  NAME SIZE USED MODE LAYERS DELTA BASE\n"
	  HELP_JSON HELP_HELP },
	{ "info", NULL, cmd_info, "IMAGE", "show what an image says about itself",
	  "      --chain              and the same for all below it\n"
	  "      --children           and who stands on it, and what they expect\n"
	  HELP_BASE HELP_BASE_DIR HELP_JSON HELP_HELP },
	{ "table", NULL, cmd_table, "IMAGE", "print the line that dmsetup create needs",
	  HELP_BASE HELP_BASE_DIR
	  "  -r, --read-only          for a device that is never written\n"
	  HELP_JSON HELP_HELP },
	{ "recover", NULL, cmd_recover, "IMAGE", "replay the log of an image that was not closed",
	  HELP_JSON HELP_HELP },
	{ "resize", NULL, cmd_resize, "IMAGE [+|-]SIZE", "make a disk larger or smaller",
	  "      --cut-data           a smaller disk may lose what is behind its new end\n"
	  HELP_BASE HELP_BASE_DIR HELP_JSON HELP_HELP },
	{ "compact", NULL, cmd_compact, "IMAGE", "make the file of an image as small as can be",
	  "      --dedup-parent       drop blocks that read the same without them\n"
	  HELP_BASE HELP_BASE_DIR HELP_PROGRESS HELP_JSON HELP_HELP },
	{ "dump", NULL, cmd_dump, "IMAGE", "print all metadata, for a report of a bug",
	  HELP_JSON HELP_HELP },
	{ "reset", NULL, cmd_reset, "NAME|DELTA", "make a delta empty again",
	  HELP_JSON HELP_HELP },
	{ "remove", NULL, cmd_remove, "DELTA", "remove a delta, never its base",
	  HELP_JSON HELP_HELP },
	{ "protect", NULL, cmd_protect, "BASE", "keep a base from being changed or removed",
	  HELP_JSON HELP_HELP },
	{ "unprotect", NULL, cmd_unprotect, "BASE", "allow changes of a base again",
	  HELP_JSON HELP_HELP },
	{ "set", NULL, cmd_set, "IMAGE", "change what an image says about itself",
	  "      --disk-id new|GUID   the identity of the disk, as a guest sees it\n"
	  HELP_JSON HELP_HELP },
	{ "check", NULL, cmd_check, "IMAGE", "check an image and its chain",
	  "      --no-chain           only the image itself\n"
	  "      --repair             mend what has one right answer, in the image itself\n"
	  "      --undo-file FILE     what was before goes there, default IMAGE.undo\n"
	  "      --undo FILE          take a repair back, and nothing else\n"
	  "  -v, --verbose            tell also what is legal but odd\n"
	  HELP_BASE HELP_BASE_DIR
	  "  -q, --quiet              print nothing, just exit with the code\n"
	  HELP_JSON HELP_HELP },
	{ "copy", NULL, cmd_copy, "IMAGE DESTINATION",
	  "copy an image, or a chain, so that it finds its parent from there",
	  "      --chain              with all below it, into a directory\n"
	  "  -f, --force              replace what is there\n"
	  HELP_BASE HELP_BASE_DIR HELP_PROGRESS HELP_JSON HELP_HELP },
	{ "merge", NULL, cmd_merge, "DELTA",
	  "write what a delta has into its parent, or all into a new image",
	  "      --base LAYER         and all between into that one\n"
	  "      --to NEW             make a new image, change none\n"
	  "      --type TYPE          of NEW; default: as the base\n"
	  "      --block-size SIZE    of NEW\n"
	  "  -f, --force              replace NEW\n"
	  "      --scan DIR           DIR may have other children of the base\n"
	  "      --delete             then remove what was merged\n"
	  "  -n, --dry-run            print what there is to do and what it takes\n"
	  HELP_BASE_DIR HELP_PROGRESS HELP_JSON HELP_HELP },
	{ "flatten", NULL, cmd_flatten, "DELTA",
	  "copy all that a delta has from below, and leave its parent",
	  "      --to NEW             make a new image, change none\n"
	  "      --type TYPE          of NEW; default: dynamic\n"
	  "      --block-size SIZE    of NEW\n"
	  "  -f, --force              replace NEW\n"
	  HELP_BASE HELP_BASE_DIR HELP_PROGRESS HELP_JSON HELP_HELP },
	{ "reparent", NULL, cmd_reparent, "DELTA NEWBASE",
	  "write another parent, or its new path, into a delta",
	  "      --compare            if NEWBASE reads as the old parent does\n"
	  "      --unsafe             whatever NEWBASE holds\n"
	  "      --base-format FMT    NEWBASE is auto (default) or raw\n"
	  HELP_BASE HELP_BASE_DIR HELP_PROGRESS HELP_JSON HELP_HELP },
	{ "convert", NULL, cmd_convert, "--type TYPE IN OUT",
	  "make an image of another type with the same content",
	  "      --type TYPE          raw, fixed, dynamic, differencing, vhd-fixed or\n"
	  "                           vhd-dynamic\n"
	  "      --block-size SIZE    1M to 256M, default: as IN has it\n"
	  "      --format FMT         IN is auto (default) or raw\n"
	  "      --as-parent-of DELTA of which IN is the base: OUT is from now on\n"
	  "  -f, --force              replace OUT\n"
	  HELP_BASE HELP_BASE_DIR HELP_PROGRESS HELP_JSON HELP_HELP },
	{ "chain", NULL, cmd_chain, "IMAGE", "show what an image stands on",
	  HELP_BASE HELP_BASE_DIR HELP_TREE_VIEW HELP_HELP },
	{ "children", NULL, cmd_children, "BASE [DIR...]", "show what stands on an image",
	  HELP_TREE_VIEW HELP_HELP },
	{ "scan", NULL, cmd_scan, "DIR...", "show all images in directories and what they stand on",
	  HELP_BASE_DIR HELP_TREE_VIEW HELP_HELP },
	{ "map", NULL, cmd_map, "IMAGE", "show where each part of the disk comes from",
	  HELP_BASE HELP_BASE_DIR
	  "      --json               print JSON, as 'qemu-img map --output=json' does\n"
	  HELP_HELP },
	{ "compare", NULL, cmd_compare, "A B",
	  "tell whether two images read the same",
	  "      --strict             the virtual sizes must be the same, too\n"
	  HELP_BASE_DIR
	  "  -q, --quiet              print nothing, just exit with the code\n"
	  HELP_JSON HELP_HELP },
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

int usage_help(const struct command *cmd)
{
	printf("usage: vhdclone %s [OPTIONS] %s\n\n%s\n\n%s", cmd->name, cmd->arguments,
	       cmd->summary, cmd->options);
	return finish_stdout(VC_EXIT_OK);
}

int usage_error(const struct command *cmd, const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "vhdclone %s: ", cmd->name);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "; see 'vhdclone help %s'\n", cmd->name);
	return VC_EXIT_USAGE;
}

int usage_option(const struct command *cmd, int opt)
{
	if (opt == 'h')
		return usage_help(cmd);
	fprintf(stderr, "See 'vhdclone help %s'.\n", cmd->name);
	return VC_EXIT_USAGE;
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
		return usage_help(cmd);
	fprintf(stderr, "vhdclone help: no command '%s'; see 'vhdclone help'\n", argv[1]);
	return VC_EXIT_USAGE;
}

int main(int argc, char **argv)
{
	const struct command *cmd;
	char name[64];

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
	return cmd->run(cmd, argc - 1, argv + 1);
}
