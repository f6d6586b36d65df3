// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Faults: a short life of a clone, from its table to its removal, again and again, and
 * each time something else goes wrong.
 *
 *	faults disk [-s SEED] [-e EVERY] [-k KIND[:N]] [-v] SCENE TOOL
 *	faults memory [-s SEED] [-e EVERY] [-v] SCENE TOOL
 *	faults chance [-s SEED] [-n ROUNDS] [-v] SCENE TOOL
 *	faults under [-s SEED] [-e EVERY] [-k KIND[:N]] [-v] SCENE TOOL
 *
 * disk:    the delta's disk (nbd.c) fails from its N-th I/O on, for each N and each kind
 *          of failure, and then loses what was not flushed, or does not.  A read may also
 *          come back with a wrong bit.
 * memory:  the N-th allocation of the task that makes, resumes, writes, flushes, suspends
 *          fails, for each N (fail-nth: slab and pages).
 * chance:  one in so many allocations of everybody fails, and of I/Os to the delta.
 * under:   a device between clone and disk (under.c) can't read one sector, or neither
 *          read nor write it, for each kind of place in the image, from three moments on;
 *          or is flaky in each of dm-flakey's ways, from each step on.
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
 * A device that lies, by dropping what it took, or by other data than it was given, is
 * another matter.  Headers, region tables and metadata have a checksum, or are in the table
 * too: there the lie must be found.  For the BAT, sector bitmaps and data the format has no
 * means: then nothing must hang, leak or end in trouble, and what was said to have failed
 * must go on failing.
 *
 * In each mode memory is counted (leaks.c), and which of the target's duties have seen a
 * failure.  The caller adds these up, and looks for leaks once more: all devices are gone
 * at the end.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault-inject.h"
#include "image.h"
#include "leaks.h"
#include "nbd.h"
#include "under.h"

#define MAX_OPS		256
#define MANY_COMMITS	80	/* more than fit into the log */
#define MAX_BYTES	(512 * 1024)

/* What the target has to do, and may fail at. */
enum duty { CTR, PRERESUME, MAP, COMMIT, APPLY, SUSPEND, REMOVE, NR_DUTIES };

static const char * const duty_names[NR_DUTIES] = {
	"ctr", "preresume", "map", "commit", "apply", "suspend", "remove",
};

struct op {
	char kind;		/* w, d, z */
	u32 sector, count;
	bool ok;		/* it returned without an error */
	bool durable;		/* a flush that came after it did, too */
};

static struct {
	u64 seed;
	const char *tool;
	struct disk disk;
	bool is_loop;
	bool has_under;		/* a device in between */
	char dev[32];
	u8 *good;		/* the delta as it was built */
	size_t size;
	u8 *shown;		/* what the module was given */
	struct image layer[2];	/* of that, and the base */
	char table[400];
	u32 ticket;		/* of this run */

	struct op op[MAX_OPS];
	unsigned int nr_ops;
	bool active;
	bool flush_failed;
	bool lies;		/* the device does, and nobody can know */
	bool refused;		/* the first resume failed */
	bool long_life;		/* so many commits that the log has to be emptied */
	enum duty now;
	unsigned int seen[NR_DUTIES];	/* lives in which it has failed */
	bool failed[NR_DUTIES];		/* in this one */
	int fd;
	u8 *buf;
	struct rng rng;

	unsigned int runs, injected, recovered, lied, ios;
	char trouble[256];
} f;

static const char name[] = "faulty";

/* What the target itself says has failed */
static void notice(const char *text)
{
	note("%s", text);
	if (strstr(text, "device-mapper: table: ") && !strstr(text, "preresume"))
		f.failed[CTR] = true;
	if (strstr(text, "not activated"))
		f.failed[PRERESUME] = true;
	if (strstr(text, "cannot write the log") || strstr(text, "cannot flush"))
		f.failed[COMMIT] = true;
	if (strstr(text, "cannot write metadata in place"))
		f.failed[APPLY] = true;
	if (strstr(text, "switching to fail") && (f.now == SUSPEND || f.now == REMOVE))
		f.failed[f.now] = true;
}

static void kmsg_line(const char *text)
{
	if (strstr(text, "vhdclone: "))
		notice(text);
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

/* Of the writes of this run the one with this number */
static u64 stamp_of(unsigned int nr)
{
	return (u64)f.ticket << 8 | nr;
}

/*
 * While it is active: what the last operation left that succeeded, or one that failed
 * after that.  @crashed: the last one that is durable, or any later.
 */
static bool allowed(u64 sector, const u8 *data, bool crashed)
{
	const u8 *p;

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
		if (op->kind == 'z' ? is_zero(data) : is_stamp(data, sector, stamp_of(n - 1)))
			return true;
		if (crashed ? op->durable : op->ok)
			return false;
	}
	p = chain_sector(f.layer, 2, sector);
	return p && !memcmp(data, p, SECTOR);
}

/* Has it been told what it can't know to be wrong? */
static bool is_lied_to(void)
{
	u64 metadata = f.layer[0].metadata, at = f.disk.lie;

	return f.lies || (f.disk.sick == SICK_LIES && at >= MIB &&
			  (at < metadata || at >= metadata + MIB));
}

static void check_reads(bool must)
{
	u64 at, end = f.layer[0].sectors;

	for (at = 0; at < end; at += 512) {
		u32 n = min(end - at, 512UL);

		if (pread(f.fd, f.buf, n * SECTOR, at * SECTOR) != (ssize_t)n * SECTOR) {
			if (must)
				complain("read at %llu: %s", at, strerror(errno));
			continue;
		}
		for (u32 i = 0; i < n; i++)
			if (!allowed(at + i, f.buf + i * SECTOR, false) && !is_lied_to()) {
				complain("sector %llu reads as it must not", at + i);
				return;
			}
	}
}

/* ---- the short life ---- */

/* Called before and after each step; the tests arm and disarm here. */
static void (*before_step)(void);
static void (*after_step)(void);

static void step_begins(enum duty duty)
{
	/* What is said from here on is about this. */
	kmsg_read(kmsg_line);
	f.now = duty;
	if (before_step)
		before_step();
}

static void step_ends(bool failed)
{
	if (after_step)
		after_step();
	kmsg_read(kmsg_line);
	if (failed && f.now == MAP)
		f.failed[MAP] = true;
}

#define STEP(duty, call) ({				\
	typeof(call) _r;				\
	int _e;						\
	step_begins(duty);				\
	_r = (call);					\
	_e = errno;					\
	step_ends(_r < 0);				\
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
		complain("%s succeeded, though a flush had failed before", how);
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
		stamp(f.buf + i * SECTOR, sector + i, stamp_of(f.nr_ops));
	op->ok = STEP(MAP, pwritev2(f.fd, &iov, 1, (u64)sector * SECTOR, fua ? RWF_DSYNC : 0)) ==
		 (ssize_t)iov.iov_len;
	f.nr_ops++;
	note("write %u+%u%s: %s", sector, count, fua ? " fua" : "",
	     op->ok ? "ok" : strerror(errno));
	/* What is FUA may have been data, then a flush: nobody can tell which failed. */
	if (fua && op->ok) {
		if (f.flush_failed && f.disk.sick != SICK_ONE)
			complain("a FUA write succeeded, though a flush had failed before");
		op->durable = true;
	}
}

static void do_range(char kind, u32 sector, u32 count)
{
	u64 range[2] = { (u64)sector * SECTOR, (u64)count * SECTOR };
	struct op *op = &f.op[f.nr_ops++];

	*op = (struct op){ .kind = kind, .sector = sector, .count = count };
	op->ok = !STEP(MAP, ioctl(f.fd, kind == 'd' ? BLKDISCARD : BLKZEROOUT, range));
	note("%c %u+%u: %s", kind, sector, count, op->ok ? "ok" : strerror(errno));
}

static bool resume(void)
{
	int r = STEP(PRERESUME, dm_resume(name));

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
	if (STEP(SUSPEND, dm_suspend(name)))
		complain("suspend: %s", strerror(errno));
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
	f.refused = true;
	r = STEP(CTR, dm_load(name, f.table, false));
	note("load: %s", r ? strerror(errno) : "ok");
	if (r || !resume())
		goto out;
	f.refused = false;
	f.fd = dm_open(name, O_RDWR | O_DIRECT);
	if (f.fd < 0) {
		complain("open: %s", strerror(errno));
		goto out;
	}
	STEP(MAP, pread(f.fd, f.buf, 64 * SECTOR, 0));
	do_write(8, 8, false);			/* a session; some of a partial block */
	do_write(2 * block + 3, 40, false);	/* a new block */
	flushed(!STEP(COMMIT, fdatasync(f.fd)), "flush");
	do_write(block + 5, 9, false);		/* a whole one */
	do_write(3 * block - 4, 8, true);	/* two */
	do_range('d', block, block);
	do_range('z', 4 * block, block);
	flushed(!STEP(COMMIT, dm_message(name, "commit", NULL, 0)), "commit");
	do_write(4 * block + 100, 16, false);	/* a block of zeros */
	do_write(block + 7, 3, false);		/* released before */
	flushed(!STEP(COMMIT, fdatasync(f.fd)), "flush");
	do_write(2 * block, 3, false);
	do_write(5 * block, block, false);	/* becomes whole */
	check_reads(false);
	if (mode_is_fail()) {
		flushed(!STEP(COMMIT, fdatasync(f.fd)), "flush in fail mode");
		do_write(16, 8, false);
		if (f.op[f.nr_ops - 1].ok)
			complain("a write succeeded in fail mode");
		flushed(!STEP(COMMIT, dm_message(name, "commit", NULL, 0)), "commit in fail mode");
	}
	if (!suspend_resume())
		goto closed;
	do_write(40, 8, false);
	do_write(6 * block + 1, 8, true);
	flushed(!STEP(COMMIT, fdatasync(f.fd)), "flush");
	do_range('d', 2 * block, block);
	do_write(7 * block, 20, false);
	for (unsigned int i = 0; f.long_life && i < MANY_COMMITS; i++) {
		do_write(7 * block + 24 + i * 8, 4, false);
		flushed(!STEP(COMMIT, fdatasync(f.fd)), "flush");
	}
	check_reads(false);
closed:
	/* Else that is up to the removal. */
	if (f.active && (f.ticket & 2) && STEP(SUSPEND, dm_suspend(name)))
		complain("suspend: %s", strerror(errno));
	close(f.fd);
out:
	if (STEP(REMOVE, dm_remove(name)) && dm_remove(name))
		die("%s: remove: %s", subject, strerror(errno));
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
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600), r;

	if (fd < 0 || write(fd, image, f.size) != (ssize_t)f.size)
		die("%s: %s", path, strerror(errno));
	r = run_tool("recover", path);
	/* Of what is left the tool may say that it is wrong, and no more. */
	if (is_lied_to() && (r == 0 || r == 4)) {
		close(fd);
		f.lied++;
		return;
	}
	if (r) {
		size_t n;
		char *text = read_file("/dev/shm/tool.log", &n);

		complain("vhdclone recover: status %d: %.*s", r, (int)n, text);
		free(text);
		close(fd);
		return;
	}
	if (pread(fd, image, f.size, 0) < (ssize_t)(f.size / 2))
		die("%s: %s", path, strerror(errno));
	close(fd);
	f.recovered++;
	after.data = image;
	if (!image_is_clean(image)) {
		complain("not clean after recover");
		return;
	}
	for (u64 s = 0; s < f.layer[0].sectors; s++) {
		const u8 *p = chain_sector((struct image[]){ after, f.layer[1] }, 2, s);

		if (!p || !allowed(s, p, true)) {
			complain("sector %llu of block %llu has what it must not, after recover",
				 s, s / f.layer[0].block);
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
		complain("cannot be used again: %s", strerror(errno));
	} else {
		f.fd = dm_open(name, O_RDWR | O_DIRECT);
		check_reads(true);
		do_write(0, 64, false);
		do_write(f.layer[0].block * 3 + 5, 64, true);
		flushed(!fdatasync(f.fd), "flush afterwards");
		for (unsigned int i = 0; i < f.nr_ops; i++)
			if (!f.op[i].ok || !f.op[i].durable)
				complain("a write afterwards failed");
		check_reads(true);
		close(f.fd);
	}
	dm_remove(name);
	memcpy(image, f.is_loop ? f.disk.data : f.disk.stable, f.size);
	judge(image);
}

/* A few lives must have been, so that all that is kept is there. */
#define LIVES_BEFORE	4

/* One run: set up, live, judge.  @again: and the module has another look. */
static void run(bool again)
{
	static u8 *left;

	if (!left)
		left = malloc(f.size);
	if (f.runs++ == LIVES_BEFORE)
		leaks_begin();
	f.ticket++;
	watchdog_feed("%s", subject);
	note("%s", subject);
	memcpy(f.shown, f.good, f.size);
	memset(f.failed, 0, sizeof(f.failed));
	life();
	f.ios = f.disk.count;
	before_step = NULL;
	after_step = NULL;
	if (f.has_under)
		under_is_well();
	if (f.is_loop || f.disk.sick == SICK_NOT || !(f.ticket & 1)) {
		memcpy(left, f.disk.data, f.size);
	} else {
		nbd_power_cut();
		memcpy(left, f.disk.stable, f.size);
	}
	f.injected += f.disk.failed > 0;
	for (int i = 0; i < NR_DUTIES; i++)
		f.seen[i] += f.failed[i];
	judge(left);
	again &= !is_lied_to();
	f.disk.sick = SICK_NOT;
	f.lies = false;
	if (again)
		reopen(left);
	kmsg_read(kmsg_line);
	if (f.trouble[0]) {
		complain("the kernel says: %s", f.trouble);
		f.trouble[0] = 0;
	}
}

/* ---- disk ---- */

static void disk_run(enum sick kind, u32 from)
{
	snprintf(subject, sizeof(subject), "%s%s:%u", f.long_life ? "long-" : "",
		 sick_names[kind], from);
	set_disk(f.good);
	rng_init(&f.disk.rng, f.seed, kind * 100000 + from);
	f.ticket = kind * 100000 + from;
	f.disk.from = from;
	f.disk.sick = kind;
	run(from % 4 == 0);
}

/* How many I/Os has a life without a fault? */
static u32 healthy_ios(void)
{
	set_disk(f.good);
	snprintf(subject, sizeof(subject), "none");
	run(false);
	for (unsigned int i = 0; i < f.nr_ops; i++)
		if (!f.op[i].ok)
			complain("operation %u failed without a fault", i);
	return f.ios;
}

static void print_kind(const char *kind, u32 runs, u32 injected, u32 lied)
{
	printf("#   %-14s %5u lives, %5u with a fault", kind, runs, injected);
	if (lied)
		printf(", %u lied to", lied);
	putchar('\n');
}

static void disk_kind(enum sick kind, u32 every, u32 total, const char *only)
{
	u32 runs = f.runs, injected = f.injected, lied = f.lied, from;
	size_t n = strlen(sick_names[kind]);
	char text[40];

	if (only && (strncmp(only, sick_names[kind], n) || (only[n] && only[n] != ':')))
		return;
	if (only && only[n] == ':') {
		disk_run(kind, atoi(only + n + 1));
		return;
	}
	for (from = (f.seed + kind) % every; from < total && complaints < 20; from += every)
		disk_run(kind, from);
	snprintf(text, sizeof(text), "%s%s", sick_names[kind], f.long_life ? ", long" : "");
	print_kind(text, f.runs - runs, f.injected - injected, f.lied - lied);
}

/* A long life is mostly the same again and again: a part of its I/Os will do. */
static void faults_disk(u32 every, const char *only)
{
	u32 total = healthy_ios(), more;
	enum sick kind;

	printf("# %u I/Os in the life of a clone", total);
	f.long_life = true;
	more = healthy_ios();
	printf(", %u in a long one\n", more);
	for (kind = SICK_ALL; kind < SICK_KINDS; kind++) {
		f.long_life = only && !strncmp(only, "long-", 5);
		if (!f.long_life)
			disk_kind(kind, every, total, only);
		f.long_life |= !only;
		if (f.long_life)
			disk_kind(kind, every * 7, more, only ? only + 5 : NULL);
	}
}

/* ---- memory -------------------------------------------------------------- */

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

static void faults_memory(u32 every)
{
	unsigned int total = 0;

	fault_setup();
	hold_caches();
	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (nth_fd < 0)
		die("fail-nth: %s", strerror(errno));
	for (nth_step = 0; ; nth_step++) {
		/* Some steps have no more than one or two allocations. */
		for (nth = 1 + (f.seed + nth_step) % min(every, 3U); ; nth += every) {
			snprintf(subject, sizeof(subject), "step %u, allocation %u", nth_step, nth);
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
			if (complaints >= 20)
				return;
		}
		if (!nth_reached)
			break;
	}
	f.injected = total;
	printf("# %u steps\n", nth_step);
}

/* ---- chance -------------------------------------------------------------- */

static int chance_fd[NR_FAULTS];

static unsigned int chance[NR_FAULTS];

/* These files are open already, and a write that fails is one more try. */
static void chance_set(const unsigned int *percent)
{
	char value[16];

	for (int i = 0; i < NR_FAULTS; i++) {
		int n = snprintf(value, sizeof(value), "%u", percent ? percent[i] : 0);

		while (write(chance_fd[i], value, n) != n)
			if (errno != ENOMEM)
				die("%s: %s", fault_names[i], strerror(errno));
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
static const char unlucky[] = "kworker/*|loop*|faults";

static void faults_chance(u32 rounds)
{
	fault_setup();
	fault_disk(f.dev + 5);
	hold_caches();
	for (int i = 0; i < NR_FAULTS; i++)
		chance_fd[i] = fault_open(i, "probability", O_WRONLY);
	for (u32 i = 0; i < rounds; i++) {
		rng_init(&f.rng, f.seed, i);
		for (int k = 0; k < NR_FAULTS; k++)
			chance[k] = rng_below(&f.rng, 2) ? 0 : 1 + rng_below(&f.rng, 12);
		snprintf(subject, sizeof(subject),
			 "round %u: slab %u%%, pages %u%%, I/O %u%%", i, chance[0],
			 chance[1], chance[2]);
		fault_victims(unlucky);
		set_disk(f.good);
		before_step = chance_on;
		after_step = chance_off;
		f.ticket = i * 2;
		run(i % 4 == 0);
		f.injected++;
		if (complaints >= 20)
			break;
	}
}

/* ---- under ----------------------------------------------------------------- */

#define MAX_PLACES	100

static struct { const char *what; u64 sector; } place[MAX_PLACES];

static unsigned int nr_places, under_from, under_place;

static enum flakey flakey_kind;

static u32 flakey_byte;

static bool flakey_is_known;

static void add_place(const char *what, u64 sector)
{
	if (nr_places == MAX_PLACES)
		die("too many places");
	place[nr_places].what = what;
	place[nr_places++].sector = sector;
}

static void find_places(void)
{
	static const char * const items[NR_ITEMS] = {
		"file parameters", "virtual size", "disk id", "logical sector size",
		"physical sector size", "parent locator",
	};
	const struct image *img = &f.layer[0];
	u64 mib;

	add_place("identifier", 0);
	for (int i = 0; i < 2; i++) {
		add_place("header", HEADER(i) / SECTOR);
		add_place("region table", REGIONS(i) / SECTOR);
		add_place("region table's end", (REGIONS(i) + TABLE_BYTES) / SECTOR - 1);
	}
	add_place("metadata table", img->metadata / SECTOR);
	for (int i = 0; i < NR_ITEMS; i++)
		if (img->item[i])
			add_place(items[i], img->item[i] / SECTOR);
	add_place("BAT", img->bat);
	for (int i = 0; i < 4; i++)
		add_place("bitmap", (image_bitmap_entry(img, 0) >> 20) * MIB_SECTORS + i);
	for (int i = 0; i < 12; i++)
		add_place("log", img->log + i * 8);
	/* Data, and what becomes data; in the place of sectors that are written. */
	for (mib = 1; mib < f.size / MIB; mib++)
		if (mib * MIB_SECTORS != img->bat && mib * MIB_SECTORS != img->log &&
		    mib * MIB != img->metadata)
			add_place("data", mib * MIB_SECTORS + (mib % 2 ? 8 : 3));
}

static void dust_falls(void)
{
	if (step_now++ == under_from)
		under_has_dust(place[under_place].sector);
}

static void hole_opens(void)
{
	if (step_now++ == under_from)
		under_has_hole(place[under_place].sector);
}

static void flakes(void)
{
	if (step_now++ == under_from)
		flakey_is_known = under_is_flakey(flakey_kind, flakey_byte, 0xa5);
}

static void under_run(void (*hook)(void), u32 ticket)
{
	set_disk(f.good);
	f.ticket = ticket;
	step_now = 0;
	before_step = hook;
	run(ticket % 4 == 0);
	if (f.failed[CTR] || f.failed[PRERESUME] || f.failed[MAP] || f.failed[COMMIT] ||
	    f.failed[APPLY] || f.failed[SUSPEND] || f.failed[REMOVE])
		f.injected++;
}

static void place_run(const char *kind, void (*hook)(void), u32 n, u32 ticket)
{
	snprintf(subject, sizeof(subject), "%s:%u (%s, sector %llu, from step %u)", kind,
		 n, place[under_place].what, place[under_place].sector, under_from);
	under_run(hook, ticket);
}

/*
 * Before anything; when it is open, and a session starts; with the session on; in the
 * second session.  The BAT's place is always among them, and is found bad by a suspend as
 * by a removal: nothing else fails at the end, and at nothing else.
 */
static void faults_place(const char *kind, void (*hook)(void), u32 every, int only)
{
	static const u32 from[] = { 0, 2, 12, 19 };
	u32 runs = f.runs, injected = f.injected, n = 0;

	for (under_place = 0; under_place < nr_places; under_place++)
		for (unsigned int i = 0; i < 4 && complaints < 20; i++, n++) {
			bool is_bat = !strcmp(place[under_place].what, "BAT");

			if (only >= 0 ? only != (int)n : !is_bat && (n + f.seed) % every)
				continue;
			under_from = from[i];
			place_run(kind, hook, n, n * 4);
			if (is_bat)
				place_run(kind, hook, n, n * 4 + 2);
		}
	print_kind(kind, f.runs - runs, f.injected - injected, 0);
}

static void faults_flakey(enum flakey kind, u32 steps, u32 every, int only)
{
	u32 runs = f.runs, injected = f.injected, lied = f.lied;

	if (kind == FLAKEY_CORRUPT_READS && !under_corrupts_reads()) {
		printf("#   %-14s this kernel's dm-flakey does not do it\n", flakey_names[kind]);
		return;
	}
	flakey_kind = kind;
	flakey_is_known = true;
	/* From the start is one of them: to read headers wrong. */
	for (under_from = 0; under_from < steps && complaints < 20;
	     under_from += every) {
		if (only >= 0)
			under_from = only;
		rng_init(&f.rng, f.seed, kind * 1000 + under_from);
		/* In the first page, which for headers is all that has a checksum. */
		flakey_byte = 1 + rng_below(&f.rng, 4096);
		f.lies = kind >= FLAKEY_DROP_WRITES;
		snprintf(subject, sizeof(subject), "flakey-%s:%u (byte %u)",
			 flakey_names[kind], under_from, flakey_byte);
		under_run(flakes, under_from);
		if (kind == FLAKEY_CORRUPT_READS && under_from < 2 && !f.refused &&
		    f.good[HEADER(0) + flakey_byte - 1] != 0xa5 &&
		    f.good[HEADER(1) + flakey_byte - 1] != 0xa5)
			complain("headers that were read wrong are accepted");
		if (only >= 0 || !flakey_is_known)
			break;
	}
	if (flakey_is_known)
		print_kind(flakey_names[kind], f.runs - runs, f.injected - injected,
			   f.lied - lied);
	else
		printf("#   %-14s this kernel's dm-flakey has it not\n", flakey_names[kind]);
}

/* Is this one of the kinds that were asked for?  *@n: which one, -1: all of them */
static bool is_wanted(const char *only, const char *kind, int *n)
{
	size_t length = strlen(kind);

	*n = -1;
	if (!only)
		return true;
	if (strncmp(only, kind, length) || (only[length] && only[length] != ':'))
		return false;
	if (only[length])
		*n = atoi(only + length + 1);
	return true;
}

static void count_step(void)
{
	step_now++;
}

static void faults_under(u32 every, const char *only)
{
	char text[40];
	u32 steps;
	int n;

	find_places();
	set_disk(f.good);
	snprintf(subject, sizeof(subject), "none");
	step_now = 0;
	before_step = count_step;
	run(false);
	steps = step_now;
	printf("# %u steps, %u places\n", steps, nr_places);
	if (is_wanted(only, "dust", &n))
		faults_place("dust", dust_falls, every, n);
	if (is_wanted(only, "hole", &n))
		faults_place("hole", hole_opens, every, n);
	for (enum flakey kind = 0; kind < FLAKEY_KINDS; kind++) {
		snprintf(text, sizeof(text), "flakey-%s", flakey_names[kind]);
		if (is_wanted(only, text, &n))
			faults_flakey(kind, steps, every, n);
	}
}

/* ---- setup --------------------------------------------------------------- */

static void setup(const char *scene)
{
	char base[32], *p = f.table;
	struct image *img = f.layer;
	u8 *map;

	map = image_load(&img[0], scene, 0, false, f.dev);
	image_load(&img[1], scene, 1, true, base);
	f.good = img[0].data;
	f.size = img[0].size;
	f.shown = malloc(f.size);
	f.buf = alloc_aligned(MAX_BYTES + 1024 * SECTOR);
	if (!f.shown)
		die("no memory");
	img[0].data = f.shown;
	if (f.is_loop) {
		f.disk.data = map;
		if (f.has_under)
			strcpy(f.dev, under_make(f.dev, f.size / SECTOR));
	} else {
		strcpy(f.dev, "/dev/nbd0");
		nbd_start(&f.disk, 0, f.size);
	}
	p += sprintf(p, "0 %llu vhdclone 2", img[0].sectors);
	p = image_words(p, &img[0], f.dev);
	image_words(p, &img[1], base);
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "", *only = NULL;
	u64 every = 1, rounds = 100, began;
	const struct opt opts[] = {
		{ 's', .number = &f.seed }, { 'e', .number = &every },
		{ 'n', .number = &rounds }, { 'k', .text = &only }, { 'v', .flag = &verbose }, {},
	};

	f.seed = 1;
	optind = 2;
	argv = options(argc, argv, opts, 2, 2,
		       "faults disk|memory|chance|under [OPTION]... SCENE TOOL");
	if (!every)
		die("-e: not 0");
	f.tool = argv[1];
	kmsg_read(NULL);
	f.is_loop = strcmp(mode, "disk");
	f.has_under = !strcmp(mode, "under");
	setup(argv[0]);
	watchdog_start(60);
	began = time_now();
	if (!strcmp(mode, "disk"))
		faults_disk(every, only);
	else if (!strcmp(mode, "memory"))
		faults_memory(every);
	else if (!strcmp(mode, "chance"))
		faults_chance(rounds);
	else if (!strcmp(mode, "under"))
		faults_under(every, only);
	else
		die("unknown: %s", mode);
	if (f.runs > LIVES_BEFORE && leaks_end(f.runs - LIVES_BEFORE))
		complain("memory is lost");
	printf("# %s: %u lives of seed %llu in %llu s, %u with a fault, %u images recovered; ",
	       mode, f.runs, f.seed, time_now() - began, f.injected, f.recovered);
	printf("%u bad\n# %s saw failures in:", complaints, mode);
	for (int i = 0; i < NR_DUTIES; i++)
		printf(" %s %u", duty_names[i], f.seen[i]);
	putchar('\n');
	fflush(stdout);
	if (f.has_under)
		under_remove();
	else if (f.is_loop && dm_remove(holder))
		die("%s: remove: %s", holder, strerror(errno));
	/* The server's thread and the kernel's go with the process. */
	_exit(complaints ? 1 : 0);
}
