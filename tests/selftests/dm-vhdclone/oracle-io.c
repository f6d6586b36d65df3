// SPDX-License-Identifier: GPL-2.0-or-later
/* "oracle io" and "oracle cmp": I/Os exactly as told, no model. */
#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "oracle-io.h"

/* ---- oracle io ----------------------------------------------------------- */

static const struct {
	const char *name;
	int err;
} errno_names[] = {
	{ "EIO", EIO }, { "ENOSPC", ENOSPC }, { "EPERM", EPERM }, { "EACCES", EACCES },
	{ "EROFS", EROFS }, { "EINVAL", EINVAL }, { "EOPNOTSUPP", EOPNOTSUPP },
	{ "EBADF", EBADF }, { "ENODATA", ENODATA }, { "EBADE", EBADE },
};

static const char *errno_name(int err)
{
	static char number[16];

	for (size_t i = 0; i < ARRAY_SIZE(errno_names); i++)
		if (errno_names[i].err == err)
			return errno_names[i].name;
	snprintf(number, sizeof(number), "%d", err);
	return err ? number : "success";
}

/* The pattern that the image builder knows as {"tag": ...}. */
static void tag_fill(void *buf, const char *tag, u64 sector, u32 count)
{
	char *p = buf, text[17];

	for (; count; count--, sector++) {
		snprintf(text, sizeof(text), "%-4.4s%012" PRIx64, tag, sector);
		for (int i = 0; i < 32; i++, p += 16)
			memcpy(p, text, 16);
	}
}

static void show(const u8 *p)
{
	for (int i = 0; i < 16; i++)
		putchar(isprint(p[i]) ? p[i] : '.');
}

/* -1: mismatch, already reported; else an errno. */
static int io_read(struct device *d, u64 sector, u64 count, const char *tag, u8 *buf,
		   u8 *want)
{
	while (count) {
		u32 n = count < MAX_IO / SECTOR ? count : MAX_IO / SECTOR;
		int err = device_rw(d, false, buf, sector, n, false);

		if (err)
			return err;
		if (!strcmp(tag, "0"))
			memset(want, 0, (size_t)n * SECTOR);
		else
			tag_fill(want, tag, sector, n);
		for (u32 i = 0; *tag && i < n; i++) {
			if (!memcmp(buf + i * SECTOR, want + i * SECTOR, SECTOR))
				continue;
			printf("sector %" PRIu64 ": found \"", sector + i);
			show(buf + i * SECTOR);
			printf("\", want \"");
			show(want + i * SECTOR);
			printf("\"\n");
			return -1;
		}
		sector += n;
		count -= n;
	}
	return 0;
}

static int io_write(struct device *d, u64 sector, u64 count, const char *tag, u8 *buf,
		    bool dsync)
{
	while (count) {
		u32 n = count < MAX_IO / SECTOR ? count : MAX_IO / SECTOR;
		int err;

		tag_fill(buf, tag, sector, n);
		err = device_rw(d, true, buf, sector, n, dsync);
		if (err)
			return err;
		sector += n;
		count -= n;
	}
	return 0;
}

const char io_usage[] =
	"usage: oracle io [-b] [-r] [-m FILE] DEV COMMAND...\n"
	"  -b  through the page cache, not O_DIRECT;  -r  open read-only;\n"
	"  -m  then do the same to FILE, which mirrors the device\n"
	"  w:FIRST:COUNT:TAG   write (W: with FUA)     r:FIRST:COUNT:TAG  read, compare\n"
	"  z:FIRST:COUNT       BLKZEROOUT              p:FIRST:COUNT  punch a hole\n"
	"  d:FIRST:COUNT       BLKDISCARD              D: BLKSECDISCARD\n"
	"  f  flush   s:SECONDS  sleep                 l  size in sectors\n"
	"FIRST and COUNT are 512-byte sectors; TAG 0 compares with zeros, an empty one not\n"
	"at all.  COMMAND?ERROR must fail so: w:0:8:A?ENOSPC\n";

static int io_one(struct device *d, char *command)
{
	static u8 *buf, *want;
	char *error = strchr(command, '?'), op = command[0], tag[8] = "";
	u64 first = 0, count = 0;
	int err = 0;

	if (!buf) {
		buf = io_buffer(MAX_IO);
		want = io_buffer(MAX_IO);
	}
	if (error)
		*error++ = 0;
	/* Not all of them have all fields. */
	if (sscanf(command + 1, ":%" SCNu64 ":%" SCNu64 ":%7s", &first, &count, tag) < 0)
		tag[0] = 0;
	switch (op) {
	case 'w':
	case 'W':
		err = io_write(d, first, count, tag, buf, op == 'W');
		break;
	case 'r':
		err = io_read(d, first, count, tag, buf, want);
		break;
	case 'z':
		err = device_zero(d, first, count, buf);
		break;
	case 'p':
		err = device_punch(d, first, count);
		break;
	case 'd':
		/* A file that mirrors a device: undefined content can stay. */
		err = d->block ? device_range(d, BLKDISCARD, first, count) : 0;
		break;
	case 'D':
		err = device_range(d, BLKSECDISCARD, first, count);
		break;
	case 'f':
		err = fdatasync(d->fd) ? errno : 0;
		break;
	case 's':
		sleep(first);
		break;
	case 'l':
		printf("%" PRIu64 "\n", d->sectors);
		break;
	default:
		fputs(io_usage, stderr);
		return 2;
	}
	if (err == -1)
		return 1;
	if (strcmp(errno_name(err), error ? error : "success")) {
		printf("%s: %s: %s, want %s\n", d->path, command, errno_name(err),
		       error ? error : "success");
		return 1;
	}
	return 0;
}

static int io_all(struct device *d, bool writable, bool direct, char **commands)
{
	int ret = 0;

	device_open(d, writable, direct);
	for (; *commands && !ret; commands++)
		ret = io_one(d, *commands);
	return ret;
}

int oracle_io(int argc, char **argv)
{
	struct device d = { 0 }, mirror = { 0 };
	bool direct = true, writable = true;
	int c, ret;

	while ((c = getopt(argc, argv, "+brm:")) != -1) {
		if (c == 'b')
			direct = false;
		else if (c == 'r')
			writable = false;
		else if (c == 'm')
			mirror.path = optarg;
		else
			optind = argc;
	}
	if (optind >= argc) {
		fputs(io_usage, stderr);
		return 2;
	}
	d.path = argv[optind++];
	ret = io_all(&d, writable, direct, argv + optind);
	if (!ret && mirror.path)
		ret = io_all(&mirror, writable, direct, argv + optind);
	return ret;
}

/* ---- oracle cmp ------------------------------------------------------------ */

int oracle_cmp(int argc, char **argv)
{
	struct device a = { 0 }, b = { 0 };
	u8 *one = io_buffer(MAX_IO), *two = io_buffer(MAX_IO);
	u64 at = 0, count;
	int err;

	if (argc < 3) {
		fputs("usage: oracle cmp DEV FILE [FIRST COUNT]\n", stderr);
		return 2;
	}
	a.path = argv[1];
	b.path = argv[2];
	device_open(&a, false, true);
	device_open(&b, false, true);
	count = a.sectors;
	if (argc > 4) {
		at = strtoull(argv[3], NULL, 0);
		count = strtoull(argv[4], NULL, 0);
	} else if (a.sectors != b.sectors) {
		die("%s has %" PRIu64 " sectors, %s has %" PRIu64, a.path, a.sectors, b.path,
		    b.sectors);
	}
	while (count) {
		u32 n = count < MAX_IO / SECTOR ? count : MAX_IO / SECTOR;

		err = device_rw(&a, false, one, at, n, false);
		if (err)
			die("%s: %" PRIu64 "+%u: %s", a.path, at, n, strerror(err));
		err = device_rw(&b, false, two, at, n, false);
		if (err)
			die("%s: %" PRIu64 "+%u: %s", b.path, at, n, strerror(err));
		if (memcmp(one, two, (size_t)n * SECTOR)) {
			unsigned int bad = 0;

			for (u32 i = 0; i < n; i++) {
				if (!memcmp(one + i * SECTOR, two + i * SECTOR, SECTOR))
					continue;
				if (bad++ >= 5)
					continue;
				printf("sector %" PRIu64 ": found \"", at + i);
				show(one + i * SECTOR);
				printf("\", want \"");
				show(two + i * SECTOR);
				printf("\"\n");
			}
			printf("%u bad sectors of %u here\n", bad, n);
			return 1;
		}
		at += n;
		count -= n;
	}
	return 0;
}
