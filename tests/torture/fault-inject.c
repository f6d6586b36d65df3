// SPDX-License-Identifier: GPL-2.0-or-later
/* The kernel's own fault injection: see fault-inject.h. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fault-inject.h"
#include "torture.h"

const char * const fault_names[NR_FAULTS] = {
	"failslab", "fail_page_alloc", "fail_make_request",
};

static int open_file(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);

	if (fd < 0)
		die("%s: %s", path, strerror(errno));
	return fd;
}

static void write_file(const char *path, const char *value)
{
	int fd = open_file(path, O_WRONLY);

	if (write(fd, value, strlen(value)) < 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
}

int fault_open(enum fault fault, const char *knob, int flags)
{
	char path[100];

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", fault_names[fault], knob);
	return open_file(path, flags);
}

void fault_set(enum fault fault, const char *knob, const char *value)
{
	char path[100];

	snprintf(path, sizeof(path), "/sys/kernel/debug/%s/%s", fault_names[fault], knob);
	write_file(path, value);
}

void fault_setup(void)
{
	for (enum fault i = 0; i < NR_FAULTS; i++) {
		fault_set(i, "verbose", "0");
		fault_set(i, "times", "-1");
	}
	fault_set(FAULT_SLAB, "ignore-gfp-wait", "N");
	fault_set(FAULT_PAGE, "ignore-gfp-wait", "N");
	fault_set(FAULT_PAGE, "ignore-gfp-highmem", "N");
	fault_set(FAULT_PAGE, "min-order", "0");
}

void fault_victims(const char *pattern)
{
	char script[300];

	for (enum fault i = 0; i < NR_FAULTS; i++)
		fault_set(i, "task-filter", "Y");
	snprintf(script, sizeof(script),
		 "for t in /proc/[0-9]*; do\n"
		 "	read -r name <$t/comm || continue\n"
		 "	case $name in\n"
		 "	%s) echo 1 >$t/make-it-fail ;;\n"
		 "	esac\n"
		 "done 2>/dev/null\n", pattern);
	if (system(script))
		perror("sh");
}

void fault_disk(const char *disk)
{
	char path[100];

	snprintf(path, sizeof(path), "/sys/block/%.40s/make-it-fail", disk);
	write_file(path, "1");
}
