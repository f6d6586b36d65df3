// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Counting memory; see leaks.h.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "leaks.h"

#define MAX_KINDS	512
/* What comes and goes with the rest of the system, in objects of one kind. */
#define NOISE		48
#define NOISE_PAGES	2048

struct kind {
	char name[64];
	long count;
};

static struct kind before[MAX_KINDS], now[MAX_KINDS];

static void write_to(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, value, strlen(value)) < 0)
		fprintf(stderr, "torture: %s: %s\n", path, strerror(errno));
	close(fd);
}

/* Empty slabs are given back, and what KASAN has in quarantine: what is left is in use. */
static void settle(void)
{
	glob_t caches;

	/* RCU's callbacks; then those of the works that they queue. */
	usleep(300000);
	write_to("/proc/sys/vm/drop_caches", "3");
	if (!glob("/sys/kernel/slab/*/shrink", 0, NULL, &caches)) {
		for (size_t i = 0; i < caches.gl_pathc; i++)
			write_to(caches.gl_pathv[i], "1");
		globfree(&caches);
	}
}

/* Files and processes of the test itself are no matter. */
static bool is_ours(const char *cache)
{
	static const char * const names[] = {
		"kmalloc-", "bio", "dm", "kcopyd", "pool_workqueue", "task_struct",
		"request_queue", "bdev_cache",
	};

	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		if (!strncmp(cache, names[i], strlen(names[i])))
			return true;
	return false;
}

static void add(struct kind *kinds, const char *name, long count)
{
	unsigned int i;

	for (i = 0; i < MAX_KINDS && kinds[i].name[0]; i++)
		if (!strcmp(kinds[i].name, name))
			break;
	if (i == MAX_KINDS)
		die("too many slab caches");
	snprintf(kinds[i].name, sizeof(kinds[i].name), "%s", name);
	kinds[i].count += count;
}

static FILE *must_open(const char *path)
{
	FILE *file = fopen(path, "re");

	if (!file)
		die("%s: %s", path, strerror(errno));
	return file;
}

static void count_slabs(struct kind *kinds)
{
	FILE *file = must_open("/proc/slabinfo");
	char line[512], name[64];
	long active;

	while (fgets(line, sizeof(line), file))
		if (sscanf(line, "%63s %ld", name, &active) == 2 && is_ours(name))
			add(kinds, name, active);
	fclose(file);
}

static void count_vmalloc(struct kind *kinds)
{
	FILE *file = must_open("/proc/vmallocinfo");
	char line[512];
	long n = 0;

	while (fgets(line, sizeof(line), file))
		n += !!strstr(line, "[dm_vhdclone]");
	fclose(file);
	add(kinds, "vmalloc", n);
}

/* Of all pages those that nobody accounts for. */
static void count_pages(struct kind *kinds)
{
	static const char * const known[] = {
		"MemFree:", "Buffers:", "Cached:", "AnonPages:", "Slab:", "KernelStack:",
		"PageTables:", "VmallocUsed:", "Percpu:",
	};
	FILE *file = must_open("/proc/meminfo");
	char line[256], name[64];
	long kib, left = 0;

	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%63s %ld", name, &kib) != 2)
			continue;
		if (!strcmp(name, "MemTotal:"))
			left += kib;
		for (size_t i = 0; i < sizeof(known) / sizeof(*known); i++)
			if (!strcmp(name, known[i]))
				left -= kib;
	}
	fclose(file);
	add(kinds, "pages", left / 4);
}

static void count(struct kind *kinds)
{
	memset(kinds, 0, sizeof(before));
	settle();
	count_slabs(kinds);
	count_vmalloc(kinds);
	count_pages(kinds);
}

void leaks_begin(void)
{
	count(before);
}

static long grown(unsigned int i)
{
	for (unsigned int k = 0; k < MAX_KINDS && before[k].name[0]; k++)
		if (!strcmp(before[k].name, now[i].name))
			return now[i].count - before[k].count;
	return now[i].count;
}

unsigned int leaks_end(u32 lives)
{
	unsigned int i, leaks = 0, nr, most = 0;
	long pages = 0;

	count(now);
	for (i = 0; i < MAX_KINDS && now[i].name[0]; i++) {
		bool is_pages = !strcmp(now[i].name, "pages");
		long n = grown(i), limit = (long)lives / 2 + (is_pages ? NOISE_PAGES : NOISE);

		if (!strcmp(now[i].name, "vmalloc"))
			limit = 1;
		if (is_pages)
			pages = n;
		else if (n > grown(most))
			most = i;
		if (n < limit)
			continue;
		printf("# leak: %ld more of %s than %u lives ago\n", n, now[i].name, lives);
		leaks++;
	}
	nr = i;
	printf("# memory after %u lives: %u kinds, %ld more of %s, %ld more pages\n", lives, nr,
	       grown(most), now[most].name, pages);
	return leaks;
}
