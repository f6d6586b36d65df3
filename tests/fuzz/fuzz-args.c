// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The command line: main() of the tool, in a root of its own as nobody, since what
 * is tried may be "create --force /dev/sda".  Words are lines.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "fuzz.h"

#define MAX_WORDS	24U

/* FUZZ_ROOT: a directory with proc/, and some images; see Makefile. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const char *root = getenv("FUZZ_ROOT");
	struct stat st;

	(void)argc;
	(void)argv;
	fuzz_assert(root && !chdir(root));
	/* Files that it needs itself must be reachable: only the tool is locked up. */
	fuzz_assert(!unshare(CLONE_NEWNS));
	fuzz_assert(!mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	/* Nobody else's processes. */
	fuzz_assert(!mount("proc", "proc", "proc", 0, "hidepid=invisible"));
	fuzz_assert(!chroot("."));
	fuzz_assert(!setgroups(0, NULL) && !setgid(65534) && !setuid(65534));
	fuzz_assert(stat("/dev", &st) && setuid(0));
	fuzz_assert(!chdir("/fuzz"));
	return 0;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	char *argv[MAX_WORDS + 2] = { (char *)"vhdclone" };
	int argc = 1;
	char *words;
	char *rest;
	int code;

	words = strndup((const char *)data, size);
	fuzz_assert(words);
	rest = words;
	while (argc <= (int)MAX_WORDS && rest)
		argv[argc++] = strsep(&rest, "\n");
	/* Start all over, also with what getopt remembers of the last line. */
	optind = 0;
	code = vhdclone_main(argc, argv);
	fuzz_assert(code >= 0 && (code <= 8 || code == 63));
	free(words);
	return 0;
}
