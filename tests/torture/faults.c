// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Faults: a short life of a clone, from its table to its removal, again and again, and
 * each time something else goes wrong.
 *
 *	faults disk [-s SEED] [-e EVERY] [-k KIND[:N]] [-v] SCENE TOOL
 *	faults memory [-s SEED] [-e EVERY] [-v] SCENE TOOL
 *	faults chance [-s SEED] [-n ROUNDS] [-v] SCENE TOOL
 *
 * disk:    the delta's disk (nbd.c) fails from its N-th I/O on, for each N and each kind
 *          of failure, and then loses what was not flushed, or does not.  A read may also
 *          come back wrong.
 * memory:  the N-th allocation of the task that makes, resumes, writes, flushes, suspends
 *          fails, for each N (fail-nth: slab and pages).
 * chance:  one in so many allocations of everybody fails, and of I/Os to the delta.
 *
 * In all of them:
 *
 *	- nothing hangs: the watchdog;
 *	- nothing lies: after a flush that failed all later ones fail, until a resume; what
 *	  reads back is what was written last, or what failed after that;
 *	- "vhdclone recover" makes what is left a clean image, in which each sector has what
 *	  was flushed last, or anything that was written later;
 *	- then the module opens it, reads the same, writes on and closes it.
 *
 * The caller looks for leaks: all devices are gone at the end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "image.h"
#include "nbd.h"

#define MAX_OPS		128
#define MAX_BYTES	(512 * 1024)

struct op {
	char kind;		/* w, d, z */
	u32 sector, count;
	bool ok;		/* it returned without an error */
	bool durable;		/* a flush that came after it did, too */
};

static struct {
	u64 seed;
	bool verbose;
	const char *tool;
	struct disk disk;
	bool is_loop;
	char dev[32];
	u8 *good;		/* the delta as it was built */
	size_t size;
	u8 *shown;		/* what the module was given */
	struct image layer[2];	/* of that, and the base */
	char table[400];
	char what[100];		/* this run */
	u32 ticket;		/* of this run */

	struct op op[MAX_OPS];
	unsigned int nr_ops;
	bool active;
	bool flush_failed;
	int fd;
	u8 *buf;
	struct rng rng;

	unsigned int bad, runs, injected, recovered, ios;
	char trouble[256];
} f;

static const char name[] = "faulty";
static const u8 no_guid[16];

static void bad(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void bad(const char *fmt, ...)
{
	va_list ap;

	f.bad++;
	printf("# %s: ", f.what);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static void note(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
static void note(const char *fmt, ...)
{
	va_list ap;

	if (!f.verbose)
		return;
	printf("#   ");
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	putchar('\n');
	fflush(stdout);
}

static void kmsg_line(const char *text)
{
	if (strstr(text, "vhdclone: "))
		note("%s", text);
	if (kmsg_is_trouble(text) && !f.trouble[0])
		snprintf(f.trouble, sizeof(f.trouble), "%s", text);
}

/* Of memory and chance the disk is a loop device: the server would fail, too. */
static void set_disk(const u8 *image)
{
	if (f.is_loop)
		memcpy(f.disk.data, image, f.size);
	else
		nbd_set(&f.disk, image);
}

/* ---- what may be in a sector ---- */

static void stamp(u8 *p, u64 sector, u32 nr)
{
	struct rng r;

	rng_init(&r, (u64)f.ticket << 8 | nr, sector);
	for (int i = 0; i < SECTOR; i += 8)
		put(p + i, 8, rng_next(&r));
}

/*
 * While it is active: what the last operation left that succeeded, or one that failed
 * after that.  @crashed: the last one that is durable, or any later.
 */
static bool allowed(u64 sector, const u8 *data, bool crashed)
{
	static const u8 zeros[SECTOR];
	const u8 *p;
	u8 want[SECTOR];

	for (unsigned int n = f.nr_ops; n; n--) {
		const struct op *op = &f.op[n - 1];

		if (sector < op->sector || sector - op->sector >= op->count)
			continue;
		if (op->kind == 'd') {
			p = chain_sector(&f.layer[1], 1, sector);
			if (!memcmp(data, p, SECTOR))
				return true;
			continue;
		}
		if (op->kind == 'z')
			memset(want, 0, SECTOR);
		else
			stamp(want, sector, n - 1);
		if (!memcmp(data, want, SECTOR))
			return true;
		if (crashed ? op->durable : op->ok)
			return false;
	}
	p = chain_sector(f.layer, 2, sector);
	return p && (!memcmp(data, p, SECTOR) || (!p && !memcmp(data, zeros, SECTOR)));
}

static void check_reads(bool must)
{
	u64 at, end = f.layer[0].sectors;

	for (at = 0; at < end; at += 512) {
		u32 n = min(end - at, 512UL);

		if (pread(f.fd, f.buf, n * SECTOR, at * SECTOR) != (ssize_t)n * SECTOR) {
			if (must)
				bad("read at %llu: %s", (unsigned long long)at, strerror(errno));
			continue;
		}
		for (u32 i = 0; i < n; i++)
			if (!allowed(at + i, f.buf + i * SECTOR, false)) {
				bad("sector %llu reads as it must not",
				    (unsigned long long)at + i);
				return;
			}
	}
}

/* ---- the short life ---- */

/* Called before and after each step; the "memory" test arms and disarms here. */
static void (*before_step)(void);
static void (*after_step)(void);

#define STEP(call) ({					\
	typeof(call) _r;				\
	int _e;						\
	if (before_step)				\
		before_step();				\
	_r = (call);					\
	_e = errno;					\
	if (after_step)					\
		after_step();				\
	errno = _e;					\
	_r;						\
})

static void all_durable(void)
{
	for (unsigned int i = 0; i < f.nr_ops; i++)
		f.op[i].durable |= f.op[i].ok;
}

static void flushed(bool ok, const char *how)
{
	note("%s: %s", how, ok ? "ok" : strerror(errno));
	if (ok && f.flush_failed)
		bad("%s succeeded, though a flush had failed before", how);
	if (ok)
		all_durable();
	/* Without memory it may not have got to the target, whose errors are EIO. */
	else if (!f.is_loop || errno != ENOMEM)
		f.flush_failed = true;
}

static void do_write(u32 sector, u32 count, bool fua)
{
	struct op *op = &f.op[f.nr_ops];
	struct iovec iov = { .iov_base = f.buf, .iov_len = count * SECTOR };

	*op = (struct op){ .kind = 'w', .sector = sector, .count = count };
	for (u32 i = 0; i < count; i++)
		stamp(f.buf + i * SECTOR, sector + i, f.nr_ops);
	op->ok = STEP(pwritev2(f.fd, &iov, 1, (u64)sector * SECTOR, fua ? RWF_DSYNC : 0)) ==
		 (ssize_t)iov.iov_len;
	f.nr_ops++;
	note("write %u+%u%s: %s", sector, count, fua ? " fua" : "",
	     op->ok ? "ok" : strerror(errno));
	/* What is FUA may have been data, then a flush: nobody can tell which failed. */
	if (fua && op->ok) {
		if (f.flush_failed && f.disk.sick != SICK_ONE)
			bad("a FUA write succeeded, though a flush had failed before");
		op->durable = true;
	}
}

static void do_range(char kind, u32 sector, u32 count)
{
	u64 range[2] = { (u64)sector * SECTOR, (u64)count * SECTOR };
	struct op *op = &f.op[f.nr_ops++];

	*op = (struct op){ .kind = kind, .sector = sector, .count = count };
	op->ok = !STEP(ioctl(f.fd, kind == 'd' ? BLKDISCARD : BLKZEROOUT, range));
	note("%c %u+%u: %s", kind, sector, count, op->ok ? "ok" : strerror(errno));
}

static bool resume(void)
{
	int r = STEP(dm_resume(name));

	note("resume: %s", r ? strerror(errno) : "ok");
	f.active = !r;
	if (!r)
		f.flush_failed = false;
	return !r;
}

/* Not every program of this kind knows that it has to. */
static bool mode_is_fail(void)
{
	char status[300];

	return !dm_status(name, status, sizeof(status)) && strstr(status, " fail");
}

/* A clean image and all headers flushed is what a suspend leaves that went well. */
static bool suspend_resume(void)
{
	if (STEP(dm_suspend(name)))
		bad("suspend: %s", strerror(errno));
	if (!resume())
		return false;
	all_durable();
	return true;
}

static void life(void)
{
	const u32 block = f.layer[0].block;
	int r;

	f.nr_ops = 0;
	f.active = false;
	f.flush_failed = false;
	if (dm_create(name))
		die("create: %s", strerror(errno));
	/* With its first table a device gets its queue, which is dm's to fail at. */
	if (f.is_loop && dm_load(name, "0 8 error", false))
		die("load: %s", strerror(errno));
	r = STEP(dm_load(name, f.table, false));
	note("load: %s", r ? strerror(errno) : "ok");
	if (r || !resume())
		goto out;
	f.fd = dm_open(name, O_RDWR | O_DIRECT);
	if (f.fd < 0) {
		bad("open: %s", strerror(errno));
		goto out;
	}
	STEP(pread(f.fd, f.buf, 64 * SECTOR, 0));
	do_write(8, 8, false);			/* a session; some of a partial block */
	do_write(2 * block + 3, 40, false);	/* a new block */
	flushed(!STEP(fdatasync(f.fd)), "flush");
	do_write(block + 5, 9, false);		/* a whole one */
	do_write(3 * block - 4, 8, true);	/* two */
	do_range('d', block, block);
	do_range('z', 4 * block, block);
	flushed(!STEP(dm_message(name, "commit", NULL, 0)), "commit");
	do_write(4 * block + 100, 16, false);	/* a block of zeros */
	do_write(block + 7, 3, false);		/* released before */
	flushed(!STEP(fdatasync(f.fd)), "flush");
	do_write(2 * block, 3, false);
	do_write(5 * block, block, false);	/* becomes whole */
	check_reads(false);
	if (mode_is_fail()) {
		flushed(!STEP(fdatasync(f.fd)), "flush in fail mode");
		do_write(16, 8, false);
		if (f.op[f.nr_ops - 1].ok)
			bad("a write succeeded in fail mode");
		flushed(!STEP(dm_message(name, "commit", NULL, 0)), "commit in fail mode");
	}
	if (!suspend_resume())
		goto closed;
	do_write(40, 8, false);
	do_write(6 * block + 1, 8, true);
	flushed(!STEP(fdatasync(f.fd)), "flush");
	do_range('d', 2 * block, block);
	do_write(7 * block, 20, false);
	check_reads(false);
closed:
	if (f.active && STEP(dm_suspend(name)))
		bad("suspend: %s", strerror(errno));
	close(f.fd);
out:
	if (dm_remove(name))
		die("%s: remove: %s", f.what, strerror(errno));
}

/* ---- afterwards ---- */

static int run_tool(const char *verb, const char *path)
{
	char *words[4] = { (char *)f.tool, (char *)verb, (char *)path, NULL };
	posix_spawn_file_actions_t actions;
	int status = -1;
	pid_t pid;

	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_addopen(&actions, 1, "/dev/shm/tool.log",
					 O_WRONLY | O_CREAT | O_TRUNC, 0600);
	posix_spawn_file_actions_adddup2(&actions, 1, 2);
	if (posix_spawn(&pid, f.tool, &actions, NULL, words, environ) ||
	    waitpid(pid, &status, 0) != pid)
		die("%s: %s", f.tool, strerror(errno));
	posix_spawn_file_actions_destroy(&actions);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128;
}

/* The image as it is now is recovered; what is in it? */
static void judge(u8 *image)
{
	static const char path[] = "/dev/shm/after.vhdx";
	struct image after = f.layer[0];
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), slot, r;

	if (fd < 0 || write(fd, image, f.size) != (ssize_t)f.size)
		die("%s: %s", path, strerror(errno));
	r = run_tool("recover", path);
	if (r) {
		size_t n;
		char *text = read_file("/dev/shm/tool.log", &n);

		bad("vhdclone recover: status %d: %.*s", r, (int)n, text);
		free(text);
		close(fd);
		return;
	}
	if (pread(fd, image, f.size, 0) < (ssize_t)(f.size / 2))
		die("%s: %s", path, strerror(errno));
	close(fd);
	f.recovered++;
	after.data = image;
	slot = image_header(image);
	if (slot < 0 || memcmp(image + HEADER(slot) + H_LOG_GUID, no_guid, sizeof(no_guid))) {
		bad("not clean after recover");
		return;
	}
	for (u64 s = 0; s < f.layer[0].sectors; s++) {
		const u8 *p = chain_sector((struct image[]){ after, f.layer[1] }, 2, s);

		if (!p || !allowed(s, p, true)) {
			bad("sector %llu of block %llu has what it must not, after recover",
			    (unsigned long long)s,
			    (unsigned long long)(s / f.layer[0].block));
			return;
		}
	}
}

/* The module reads the same, can write, and closes it. */
static void reopen(u8 *image)
{
	struct image now = f.layer[0];

	set_disk(image);
	memcpy(f.shown, image, f.size);
	now.data = f.shown;
	f.layer[0] = now;
	f.nr_ops = 0;
	f.flush_failed = false;
	before_step = NULL;
	after_step = NULL;
	if (dm_create(name) || dm_load(name, f.table, false) || dm_resume(name)) {
		bad("cannot be used again: %s", strerror(errno));
	} else {
		f.fd = dm_open(name, O_RDWR | O_DIRECT);
		check_reads(true);
		do_write(0, 64, false);
		do_write(f.layer[0].block * 3 + 5, 64, true);
		flushed(!fdatasync(f.fd), "flush afterwards");
		for (unsigned int i = 0; i < f.nr_ops; i++)
			if (!f.op[i].ok || !f.op[i].durable)
				bad("a write afterwards failed");
		check_reads(true);
		close(f.fd);
	}
	dm_remove(name);
	memcpy(image, f.is_loop ? f.disk.data : f.disk.stable, f.size);
	judge(image);
}

/* One run: set up, live, judge.  @again: and the module has another look. */
static void run(bool again)
{
	static u8 *left;

	if (!left)
		left = malloc(f.size);
	f.runs++;
	f.ticket++;
	watchdog_feed("%s", f.what);
	note("%s", f.what);
	memcpy(f.shown, f.good, f.size);
	life();
	f.ios = f.disk.count;
	before_step = NULL;
	after_step = NULL;
	if (f.is_loop || f.disk.sick == SICK_NOT || !(f.ticket & 1)) {
		memcpy(left, f.disk.data, f.size);
	} else {
		nbd_power_cut();
		memcpy(left, f.disk.stable, f.size);
	}
	f.injected += f.disk.failed > 0;
	f.disk.sick = SICK_NOT;
	judge(left);
	if (again)
		reopen(left);
	kmsg_read(kmsg_line);
	if (f.trouble[0]) {
		bad("the kernel says: %s", f.trouble);
		f.trouble[0] = 0;
	}
}

/* ---- disk ---- */

static void disk_run(enum sick kind, u32 from)
{
	snprintf(f.what, sizeof(f.what), "%s:%u", sick_names[kind], from);
	set_disk(f.good);
	rng_init(&f.disk.rng, f.seed, kind * 100000 + from);
	f.ticket = kind * 100000 + from;
	f.disk.from = from;
	f.disk.sick = kind;
	run(from % 4 == 0);
}

static void faults_disk(u32 every, const char *only)
{
	u32 total, from;
	enum sick kind;

	set_disk(f.good);
	snprintf(f.what, sizeof(f.what), "none");
	run(false);
	for (unsigned int i = 0; i < f.nr_ops; i++)
		if (!f.op[i].ok)
			bad("operation %u failed without a fault", i);
	total = f.ios;
	if (only) {
		for (kind = SICK_ALL; kind < SICK_KINDS; kind++) {
			size_t n = strlen(sick_names[kind]);

			if (!strncmp(only, sick_names[kind], n) && only[n] == ':')
				disk_run(kind, atoi(only + n + 1));
		}
		if (strchr(only, ':'))
			return;
	}
	for (kind = SICK_ALL; kind < SICK_KINDS; kind++)
		for (from = (f.seed + kind) % every; from < total; from += every) {
			if (only && strcmp(only, sick_names[kind]))
				break;
			disk_run(kind, from);
			if (f.bad >= 20)
				return;
		}
	printf("# %u I/Os in the life of a clone\n", total);
}

/* ---- memory -------------------------------------------------------------- */

static void set_knob(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		die("%s: %s", path, strerror(errno));
	close(fd);
}

static const char holder[] = "holder";

/*
 * A table that is loaded and never used keeps the slab caches of its bio sets: the kernel
 * loses the name of a cache that it fails to make, and that would count as a leak of ours.
 */
static void hold_caches(void)
{
	if (dm_create(holder) || dm_load(holder, f.table, false))
		die("%s: %s", holder, strerror(errno));
}

static int nth_fd = -1;
static unsigned int nth_step, nth, step_now;

static bool nth_reached, nth_hit;

static void arm(void)
{
	char text[16];

	if (step_now++ != nth_step)
		return;
	nth_reached = true;
	snprintf(text, sizeof(text), "%u", nth);
	if (pwrite(nth_fd, text, strlen(text), 0) < 0)
		die("fail-nth: %s", strerror(errno));
}

static void disarm(void)
{
	char text[16] = "";

	if (step_now - 1 != nth_step)
		return;
	if (pread(nth_fd, text, sizeof(text) - 1, 0) <= 0)
		die("fail-nth: %s", strerror(errno));
	nth_hit = atoi(text) == 0;
	if (pwrite(nth_fd, "0", 1, 0) < 0)
		die("fail-nth: %s", strerror(errno));
}

static void injection_knobs(void)
{
	static const char dir[] = "/sys/kernel/debug/";
	static const char * const knobs[][2] = {
		{ "failslab/ignore-gfp-wait", "N" }, { "fail_page_alloc/ignore-gfp-wait", "N" },
		{ "fail_page_alloc/ignore-gfp-highmem", "N" }, { "fail_page_alloc/min-order", "0" },
		{ "failslab/verbose", "0" }, { "fail_page_alloc/verbose", "0" },
		{ "fail_make_request/verbose", "0" },
	};
	char path[128];

	for (size_t i = 0; i < sizeof(knobs) / sizeof(*knobs); i++) {
		snprintf(path, sizeof(path), "%s%s", dir, knobs[i][0]);
		set_knob(path, knobs[i][1]);
	}
}

static void faults_memory(u32 every)
{
	unsigned int total = 0;

	injection_knobs();
	hold_caches();
	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (nth_fd < 0)
		die("fail-nth: %s", strerror(errno));
	for (nth_step = 0; ; nth_step++) {
		for (nth = 1 + (f.seed + nth_step) % every; ; nth += every) {
			snprintf(f.what, sizeof(f.what), "step %u, allocation %u", nth_step, nth);
			set_disk(f.good);
			step_now = 0;
			nth_reached = false;
			nth_hit = false;
			before_step = arm;
			after_step = disarm;
			run(nth % 8 == 0);
			if (!nth_hit)
				break;
			total++;
			if (f.bad >= 20)
				return;
		}
		if (!nth_reached)
			break;
	}
	f.injected = total;
	printf("# %u steps\n", nth_step);
}

/* ---- chance -------------------------------------------------------------- */

#define NR_CHANCES	3

static const char * const chance_names[NR_CHANCES] = {
	"failslab", "fail_page_alloc", "fail_make_request",
};

static int chance_fd[NR_CHANCES];

static unsigned int chance[NR_CHANCES];

/* These files are open already, and a write that fails is one more try. */
static void chance_set(const unsigned int *percent)
{
	char value[16];

	for (int i = 0; i < NR_CHANCES; i++) {
		int n = snprintf(value, sizeof(value), "%u", percent ? percent[i] : 0);

		while (write(chance_fd[i], value, n) != n)
			if (errno != ENOMEM)
				die("%s: %s", chance_names[i], strerror(errno));
	}
}

static void chance_on(void)
{
	chance_set(chance);
}

static void chance_off(void)
{
	chance_set(NULL);
}

/* Only this task and those that work for the target and its devices have bad luck. */
static void choose_victims(void)
{
	static const char script[] =
		"for t in /proc/[0-9]*; do\n"
		"	read -r name <$t/comm || continue\n"
		"	case $name in\n"
		"	kworker/*|loop*|faults) echo 1 >$t/make-it-fail ;;\n"
		"	esac\n"
		"done 2>/dev/null\n";

	if (system(script))
		perror("sh");
}

static void open_chances(void)
{
	char path[100];

	for (int i = 0; i < NR_CHANCES; i++) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/task-filter", chance_names[i]);
		set_knob(path, "Y");
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/times", chance_names[i]);
		set_knob(path, "-1");
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/probability", chance_names[i]);
		chance_fd[i] = open(path, O_WRONLY | O_CLOEXEC);
		if (chance_fd[i] < 0)
			die("%s: %s", path, strerror(errno));
	}
}

static void faults_chance(u32 rounds)
{
	char path[100];

	injection_knobs();
	hold_caches();
	open_chances();
	snprintf(path, sizeof(path), "/sys/block/%.20s/make-it-fail", f.dev + 5);
	set_knob(path, "1");
	for (u32 i = 0; i < rounds; i++) {
		rng_init(&f.rng, f.seed, i);
		for (int k = 0; k < NR_CHANCES; k++)
			chance[k] = rng_below(&f.rng, 2) ? 0 : 1 + rng_below(&f.rng, 12);
		snprintf(f.what, sizeof(f.what), "round %u: slab %u%%, pages %u%%, I/O %u%%", i,
			 chance[0], chance[1], chance[2]);
		choose_victims();
		set_disk(f.good);
		before_step = chance_on;
		after_step = chance_off;
		f.ticket = i * 2;
		run(i % 4 == 0);
		f.injected++;
		if (f.bad >= 20)
			break;
	}
}

/* ---- setup --------------------------------------------------------------- */

static void setup(const char *scene)
{
	char path[300], base[32], path2[300];
	size_t base_size;
	u8 *raw, *map;

	snprintf(path, sizeof(path), "%s/0.vhdx", scene);
	snprintf(path2, sizeof(path2), "%s/1.raw", scene);
	f.good = read_file(path, &f.size);
	raw = read_file(path2, &base_size);
	loop_make("/dev/shm/base", base_size, true, &map, base);
	memcpy(map, raw, base_size);
	f.shown = malloc(f.size);
	f.layer[0] = (struct image){ .data = f.good, .size = f.size };
	image_parse(&f.layer[0]);
	f.layer[0].data = f.shown;
	f.layer[1] = (struct image){ .data = raw, .size = base_size, .raw = true,
				     .sectors = base_size / SECTOR };
	if (f.is_loop) {
		loop_make("/dev/shm/delta", f.size, false, &f.disk.data, f.dev);
	} else {
		strcpy(f.dev, "/dev/nbd0");
		nbd_start(&f.disk, 0, f.size);
	}
	snprintf(f.table, sizeof(f.table),
		 "0 %llu vhdclone 2 vhdx %s %llu %llu %llu %llu %llu %llu raw %s 0 %llu",
		 (unsigned long long)f.layer[0].sectors, f.dev,
		 (unsigned long long)f.layer[0].sectors, (unsigned long long)f.layer[0].block,
		 (unsigned long long)f.layer[0].lss, (unsigned long long)f.layer[0].bat,
		 (unsigned long long)f.layer[0].log, (unsigned long long)f.layer[0].log_sectors,
		 base, (unsigned long long)f.layer[1].sectors);
	if (posix_memalign((void **)&f.buf, 4096, MAX_BYTES + 1024 * SECTOR))
		die("no memory");
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "", *only = NULL;
	u32 every = 1, rounds = 100;
	time_t began;
	int c;

	f.seed = 1;
	optind = 2;
	while ((c = getopt(argc, argv, "s:e:n:k:v")) != -1) {
		switch (c) {
		case 's':
			f.seed = strtoull(optarg, NULL, 0);
			break;
		case 'e':
			every = atoi(optarg);
			break;
		case 'n':
			rounds = atoi(optarg);
			break;
		case 'k':
			only = optarg;
			break;
		case 'v':
			f.verbose = true;
			break;
		default:
			die("bad option");
		}
	}
	if (argc - optind != 2 || !every)
		die("usage: faults disk|memory|chance [OPTION]... SCENE TOOL");
	f.tool = argv[optind + 1];
	kmsg_read(NULL);
	f.is_loop = strcmp(mode, "disk");
	setup(argv[optind]);
	watchdog_start(60);
	began = time(NULL);
	if (!strcmp(mode, "disk"))
		faults_disk(every, only);
	else if (!strcmp(mode, "memory"))
		faults_memory(every);
	else if (!strcmp(mode, "chance"))
		faults_chance(rounds);
	else
		die("unknown: %s", mode);
	printf("# %s: %u lives of seed %llu in %ld s, %u with a fault, %u images recovered; ",
	       mode, f.runs, (unsigned long long)f.seed,
	       (long)(time(NULL) - began), f.injected, f.recovered);
	printf("%u bad\n", f.bad);
	fflush(stdout);
	if (f.is_loop && dm_remove(holder))
		die("%s: remove: %s", holder, strerror(errno));
	/* The server's thread and the kernel's go with the process. */
	_exit(f.bad ? 1 : 0);
}
