// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone: linked clones as differencing VHDX.  The command table. */
#include <signal.h>

#include "options.h"

static int cmd_help(struct options *options);

/*
 * As help has them, in two columns: what has no name is a heading, and one of these
 * begins the second column, in the middle.
 */
static const struct command commands[] = {
	{ .brief = "Clones" },
	{ "create", NULL, cmd_create, "a clone, or a new image",
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
	{ "open", "attach", cmd_open, "as /dev/mapper/NAME",
	  "IMAGE [NAME]",
	  "make an image a block device, /dev/mapper/NAME",
	  OPTIONS_BASES | OPTIONS_JSON,
	  "  -r, --read-only          never write, not even to the delta\n"
	  "      --probe              let the host look for filesystems on it\n" },
	{ "close", "detach", cmd_close, "and leave a clean image",
	  "NAME",
	  "remove the block device, leave a clean image", 0,
	  "      --deferred           when it is in use: as soon as it is not\n" },
	{ "list", NULL, cmd_list, "all open clones",
	  "", "list open clones", OPTIONS_JSON,
	  "  -n, --noheadings         no line of headings\n"
	  "  -o, --output COLUMN,...  NAME SIZE USED MODE LAYERS DELTA BASE\n" },
	{ "status", NULL, cmd_status, "how they are doing",
	  "[NAME]", "show how open clones are doing",
	  OPTIONS_JSON, NULL },
	{ "reset", NULL, cmd_reset, "make a delta empty",
	  "NAME|DELTA", "make a delta empty again",
	  OPTIONS_JSON, NULL },
	{ "remove", NULL, cmd_remove, "a delta, never its base",
	  "DELTA", "remove a delta, never its base",
	  OPTIONS_JSON, NULL },
	{ .brief = "Safety" },
	{ "check", NULL, cmd_check, "and repair an image",
	  "IMAGE", "check an image and its chain",
	  OPTIONS_BASES | OPTIONS_JSON,
	  "      --no-chain           only the image itself\n"
	  "      --repair             mend what has one right answer, in the image itself\n"
	  "      --undo-file FILE     what was before goes there, default IMAGE.undo\n"
	  "      --undo FILE          take a repair back, and nothing else\n"
	  "  -v, --verbose            tell also what is legal but odd\n"
	  "  -q, --quiet              print nothing, just exit with the code\n" },
	{ "recover", NULL, cmd_recover, "replay its log",
	  "IMAGE", "replay the log of an image that was not closed",
	  OPTIONS_JSON, NULL },
	{ "protect", NULL, cmd_protect, "keep a base as it is",
	  "BASE", "keep a base from being changed or removed",
	  OPTIONS_JSON, NULL },
	{ "unprotect", NULL, cmd_unprotect, "allow changes again",
	  "BASE", "allow changes of a base again",
	  OPTIONS_JSON, NULL },
	{ .brief = "Size and identity" },
	{ "resize", NULL, cmd_resize, "a disk",
	  "IMAGE [+|-]SIZE", "make a disk larger or smaller",
	  OPTIONS_BASES | OPTIONS_JSON,
	  "      --cut-data           a smaller disk may lose what is behind its new end\n" },
	{ "compact", NULL, cmd_compact, "a file",
	  "IMAGE", "make the file of an image as small as can be",
	  OPTIONS_BASES | OPTIONS_PROGRESS | OPTIONS_JSON,
	  "      --dedup-parent       drop blocks that read the same without them\n" },
	{ "set", NULL, cmd_set, "the identity of a disk",
	  "IMAGE", "change what an image says about itself",
	  OPTIONS_JSON,
	  "      --disk-id new|GUID   the identity of the disk, as a guest sees it\n" },
	{ .brief = "Look" },
	{ "info", NULL, cmd_info, "what an image says",
	  "IMAGE", "show what an image says about itself",
	  OPTIONS_BASES | OPTIONS_JSON,
	  "      --chain              and the same for all below it\n"
	  "      --children           and who stands on it, and what they expect\n" },
	{ "chain", NULL, cmd_chain, "what it stands on",
	  "IMAGE", "show what an image stands on",
	  OPTIONS_BASES | OPTIONS_TREE, NULL },
	{ "children", NULL, cmd_children, "what stands on it",
	  "BASE [DIR...]", "show what stands on an image",
	  OPTIONS_TREE, NULL },
	{ "scan", NULL, cmd_scan, "all images below DIR",
	  "DIR...", "show all images in directories and what they stand on",
	  OPTIONS_BASE_DIR | OPTIONS_TREE, NULL },
	{ "map", NULL, cmd_map, "where the data come from",
	  "IMAGE", "show where each part of the disk comes from",
	  OPTIONS_BASES,
	  "      --json               print JSON, as 'qemu-img map --output=json' does\n" },
	{ "compare", NULL, cmd_compare, "do two read the same?",
	  "A B",
	  "tell whether two images read the same",
	  OPTIONS_BASE_DIR | OPTIONS_JSON,
	  "      --strict             the virtual sizes must be the same, too\n"
	  "  -q, --quiet              print nothing, just exit with the code\n" },
	{ "dump", NULL, cmd_dump, "all metadata",
	  "IMAGE", "print all metadata, for a report of a bug",
	  OPTIONS_JSON, NULL },
	{ .brief = "Move data" },
	{ "merge", NULL, cmd_merge, "a delta into its parent",
	  "DELTA",
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
	{ "flatten", NULL, cmd_flatten, "leave the parent",
	  "DELTA",
	  "copy all that a delta has from below, and leave its parent",
	  OPTIONS_NEW | OPTIONS_BASES | OPTIONS_PROGRESS | OPTIONS_JSON,
	  "      --to NEW             make a new image, change none\n"
	  "      --type TYPE          of NEW; default: dynamic\n"
	  "      --block-size SIZE    of NEW\n"
	  "  -f, --force              replace NEW\n" },
	{ "reparent", NULL, cmd_reparent, "name another parent",
	  "DELTA NEWBASE",
	  "write another parent, or its new path, into a delta",
	  OPTIONS_BASES | OPTIONS_PROGRESS | OPTIONS_JSON,
	  "      --compare            if NEWBASE reads as the old parent does\n"
	  "      --unsafe             whatever NEWBASE holds\n"
	  "      --base-format FMT    NEWBASE is auto (default) or raw\n" },
	{ "convert", NULL, cmd_convert, "to another type",
	  "--type TYPE IN OUT",
	  "make an image of another type with the same content",
	  OPTIONS_NEW | OPTIONS_BASES | OPTIONS_PROGRESS | OPTIONS_JSON,
	  "      --type TYPE          raw, fixed, dynamic, differencing, vhd-fixed or\n"
	  "                           vhd-dynamic\n"
	  "      --block-size SIZE    1M to 256M, default: as IN has it\n"
	  "      --format FMT         IN is auto (default) or raw\n"
	  "      --as-parent-of DELTA of which IN is the base: OUT is from now on\n"
	  "  -f, --force              replace OUT\n" },
	{ "copy", NULL, cmd_copy, "and find the parent still",
	  "IMAGE DESTINATION",
	  "copy an image, or a chain, so that it finds its parent from there",
	  OPTIONS_BASES | OPTIONS_PROGRESS | OPTIONS_JSON,
	  "      --chain              with all below it, into a directory\n"
	  "  -f, --force              replace what is there\n" },
	{ .brief = "More" },
	{ "table", NULL, cmd_table, "the line for dmsetup",
	  "IMAGE", "print the line that dmsetup create needs",
	  OPTIONS_BASES | OPTIONS_JSON,
	  "  -r, --read-only          for a device that is never written\n" },
	{ "help", NULL, cmd_help, "the options of a COMMAND",
	  "[COMMAND]",
	  "show all commands, or the options of one", 0, NULL },
};

static const struct command *find_command(const char *name)
{
	const struct command *cmd;

	for (cmd = commands; cmd < commands + ARRAY_SIZE(commands); cmd++)
		if (cmd->name && (!strcmp(cmd->name, name) ||
				  (cmd->alias && !strcmp(cmd->alias, name))))
			return cmd;
	return NULL;
}

static void print_brief(FILE *out, const struct command *cmd, int width)
{
	if (cmd->name)
		fprintf(out, "  %-9s  %-*s", cmd->name, width ? width - 13 : 0, cmd->brief);
	else
		fprintf(out, "%-*s", width, cmd->brief);
}

static void print_usage(FILE *out)
{
	unsigned int half = (ARRAY_SIZE(commands) + 1) / 2;
	unsigned int i;

	fputs("usage: vhdclone COMMAND [OPTIONS] ARGUMENTS\n\n"
	      "Linked clones: block devices over a read-only base and a differencing VHDX.\n\n",
	      out);
	for (i = 0; i < half; i++) {
		print_brief(out, &commands[i], 40);
		if (half + i < ARRAY_SIZE(commands))
			print_brief(out, &commands[half + i], 0);
		fputc('\n', out);
	}
	fputs("\nAlso -V, --version and -h, --help.  The manual: man vhdclone\n", out);
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

static int cmd_help(struct options *options)
{
	const struct command *cmd;

	if (!options_arguments(options, 0, 1, "need no more than one COMMAND"))
		return options->code;
	if (!options->argc) {
		print_usage(stdout);
		return finish_stdout(VC_EXIT_OK);
	}
	cmd = find_command(options->argv[0]);
	if (cmd)
		return options_help(cmd);
	fprintf(stderr, "vhdclone help: no command '%s'; see 'vhdclone help'\n",
		options->argv[0]);
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
	cmd = find_command(!strcmp(argv[1], "-h") || !strcmp(argv[1], "--help") ? "help" :
			   argv[1]);
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
