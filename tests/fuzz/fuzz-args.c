// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The command line: main() of the tool, in a root of its own as nobody, since what
 * is tried may be "create --force /dev/sda".  Words are lines; the mutator knows those
 * that the tool's help has.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <getopt.h>
#include <grp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "fuzz.h"

#define MAX_WORDS	24U
#define MAX_KNOWN	512U
#define ANEW		200U		/* command lines, then all is as it was */

static char *known[MAX_KNOWN];
static unsigned int nr_known;

/* ---- time: who sleeps in order to be slow need not ------------------------------ */

static long ahead;

int __wrap_nanosleep(const struct timespec *nap, struct timespec *left)
{
	(void)nap;
	(void)left;
	ahead += 3600;
	return 0;
}

int __wrap_clock_gettime(clockid_t id, struct timespec *now)
{
	int ret = __real_clock_gettime(id, now);

	now->tv_sec += ahead;
	return ret;
}

/* ---- the root ------------------------------------------------------------------- */

static int run(const char *line, size_t size)
{
	char *argv[MAX_WORDS + 2] = { (char *)"vhdclone" };
	int argc = 1;
	char *words;
	char *rest;
	int code;

	words = strndup(line, size);
	fuzz_assert(words);
	rest = words;
	while (argc <= (int)MAX_WORDS && rest)
		argv[argc++] = strsep(&rest, "\n");
	/* Start all over, also with what getopt remembers of the last line. */
	optind = 0;
	code = vhdclone_main(argc, argv);
	free(words);
	return code;
}

/* What may be written to, as it was in the beginning. */
static void begin_anew(void)
{
	static const char * const lines[] = {
		"copy\ndirty.vhdx\nout/dirty.vhdx",
		"copy\nbase.vhdx\nout/base.vhdx",
		"create\nout/base.vhdx\nout/clone.vhdx",
		"create\nout/clone.vhdx\nout/leaf.vhdx",
		"convert\n--type\nraw\nbase.vhdx\nout/base.raw",
		"create\nout/base.raw\nout/raw.vhdx",
		"create\n--type\ndynamic\n--size\n4M\n--block-size\n1M\nout/new.vhdx",
		"convert\n--type\nvhd-dynamic\nbase.vhdx\nout/new.vhd",
	};
	struct dirent *entry;
	unsigned int i;
	DIR *dir;

	dir = opendir("out");
	fuzz_assert(dir);
	while ((entry = readdir(dir)))
		if (unlinkat(dirfd(dir), entry->d_name, 0))
			unlinkat(dirfd(dir), entry->d_name, AT_REMOVEDIR);
	closedir(dir);
	for (i = 0; i < ARRAY_SIZE(lines); i++)
		fuzz_assert(!run(lines[i], strlen(lines[i])));
}

static void read_known(void)
{
	FILE *file = fopen("words", "r");
	char line[256];

	fuzz_assert(file);
	while (nr_known < MAX_KNOWN && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = 0;
		known[nr_known] = strdup(line);
		fuzz_assert(known[nr_known++]);
	}
	fclose(file);
	fuzz_assert(nr_known > 100);
}

/* FUZZ_ROOT: a directory with proc/, and some images; see run. */
int LLVMFuzzerInitialize(int *argc, char ***argv)
{
	const struct rlimit longest = { VHDX_GIB, VHDX_GIB };
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
	/* Small, so that there is no space some time. */
	fuzz_assert(!mount("tmpfs", "fuzz/out", "tmpfs", 0,
			   "mode=1777,size=128m,nr_inodes=200"));
	fuzz_assert(!setrlimit(RLIMIT_FSIZE, &longest));
	fuzz_assert(!chroot("."));
	fuzz_assert(!setgroups(0, NULL) && !setgid(65534) && !setuid(65534));
	fuzz_assert(stat("/dev", &st) && setuid(0));
	fuzz_assert(!chdir("/fuzz"));
	read_known();
	return 0;
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	static unsigned int nr;
	int code;

	if (!(nr++ % ANEW))
		begin_anew();
	code = run((const char *)data, size);
	fuzz_assert(code >= 0 && (code <= 8 || code == 63));
	return 0;
}

/* ---- the mutator ------------------------------------------------------------------ */

static char *word_of_some_kind(char *word, size_t room)
{
	size_t len = strlen(word);

	if (rand() % 8)
		return known[rand() % nr_known];
	/* Something like it. */
	if (len >= room)
		len = room - 1;
	len = LLVMFuzzerMutate((u8 *)word, len, room - 1);
	word[len] = 0;
	return word;
}

size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t max, unsigned int seed)
{
	char text[1024];
	char own[64];
	char *word[MAX_WORDS + 1];
	unsigned int nr = 0;
	unsigned int i;
	size_t used = 0;
	char *rest = text;
	size_t len;

	srand(seed);
	if (size >= sizeof(text))
		size = sizeof(text) - 1;
	memcpy(text, data, size);
	text[size] = 0;
	while (nr < MAX_WORDS && rest)
		word[nr++] = strsep(&rest, "\n");
	i = rand() % nr;
	snprintf(own, sizeof(own), "%s", word[i]);
	switch (rand() % 4) {
	case 0:
		memmove(word + i, word + i + 1, (--nr - i) * sizeof(word[0]));
		break;
	case 1:
		memmove(word + i + 1, word + i, (nr++ - i) * sizeof(word[0]));
		word[i + (i + 2 == nr)] = known[rand() % nr_known];
		break;
	default:
		word[i] = word_of_some_kind(own, sizeof(own));
	}
	for (i = 0; i < nr; i++) {
		len = strlen(word[i]);
		if (used + len + 1 > max)
			break;
		if (i)
			data[used++] = '\n';
		memcpy(data + used, word[i], len);
		used += len;
	}
	return used;
}
