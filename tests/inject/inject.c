// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What changes anything outside of a process is counted; the N-th of these calls kills
 * it, is torn, or fails.  To be preloaded; see README.
 *
 *	INJECT=MODE[:BYTES]@N[+]
 *	INJECT_STATE=FILE	of 512 bytes, shared by all processes: struct state
 *	INJECT_LOG=FILE		what was written, for powercut.py
 *	INJECT_RUN=COMMAND	with the mode "run", which counts reads and locks, too
 *
 * Only what goes through the C library's entry points is seen: not stores to mapped
 * files, not stdio, not raw system calls.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include <liburing.h>

#define TORN	512		/* a disk writes this much or nothing of it */

enum mode {
	COUNT,			/* do nothing */
	KILL,			/* before the call */
	TEAR,			/* when a part is written */
	SHORT,			/* write a part, say so, and go on */
	FAIL,
	RUN,			/* a command first, while the process waits */
};

/**
 * struct state - what is known of all processes together
 * @count: calls so far
 * @fired: of the calls that were killed, torn or failed
 * @what: the last of these, text
 */
struct state {
	uint64_t count;
	uint64_t fired;
	char what[496];
};

static struct state private_state;
static struct state *state = &private_state;
static enum mode mode;
static int mode_errno;
static uint64_t mode_bytes;
static uint64_t at;
static bool from_then_on;
static int log_fd = -1;

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))
#define ARRAY_SIZE(array) (sizeof(array) / sizeof((array)[0]))

static void die(void)
{
	kill(getpid(), SIGKILL);
	for (;;)
		pause();
}

static void bad(const char *what)
{
	dprintf(2, "inject: %s\n", what);
	_exit(125);
}

static void parse(const char *text)
{
	static const struct {
		const char *name;
		enum mode mode;
		int error;
	} modes[] = {
		{ "count", COUNT, 0 }, { "kill", KILL, 0 }, { "tear", TEAR, 0 },
		{ "short", SHORT, 0 }, { "eio", FAIL, EIO }, { "enospc", FAIL, ENOSPC },
		{ "edquot", FAIL, EDQUOT }, { "run", RUN, 0 },
	};
	char name[16] = "";
	unsigned int i;
	int n = 0;

	if (sscanf(text, "%15[a-z]%n", name, &n) != 1)
		bad("INJECT: no mode");
	text += n;
	if (*text == ':')
		mode_bytes = strtoull(text + 1, (char **)&text, 10);
	if (*text++ != '@')
		bad("INJECT: no @");
	at = strtoull(text, (char **)&text, 10);
	from_then_on = *text == '+';
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		if (strcmp(modes[i].name, name))
			continue;
		mode = modes[i].mode;
		mode_errno = modes[i].error;
		return;
	}
	bad("INJECT: unknown mode");
}

static __attribute((constructor)) void start(void)
{
	const char *text = getenv("INJECT");
	const char *file = getenv("INJECT_STATE");
	const char *log = getenv("INJECT_LOG");
	int fd;

	if (text)
		parse(text);
	if (file) {
		fd = syscall(SYS_openat, AT_FDCWD, file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
		if (fd < 0 || syscall(SYS_ftruncate, fd, sizeof(*state)))
			bad("cannot open INJECT_STATE");
		state = mmap(NULL, sizeof(*state), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (state == MAP_FAILED)
			bad("cannot map INJECT_STATE");
		close(fd);
	}
	if (log) {
		fd = syscall(SYS_openat, AT_FDCWD, log,
			     O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
		/* Out of the way of programs that count on low numbers. */
		log_fd = fcntl(fd, F_DUPFD_CLOEXEC, 900);
		if (log_fd < 0)
			bad("cannot open INJECT_LOG");
		close(fd);
	}
}

static void run_command(void)
{
	char *command = getenv("INJECT_RUN");
	char *argv[4] = { (char *)"sh", (char *)"-c", command, NULL };
	char *env[2] = { (char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL };
	pid_t pid = fork();

	if (!pid) {
		execve("/bin/sh", argv, env);
		_exit(127);
	}
	waitpid(pid, NULL, 0);
}

/* ---- which calls count, and what becomes of them ----------------------------- */

/* Files and disks; not what the program says to the user, nor pipes. */
static bool matters(int fd)
{
	struct stat st;

	if (fd >= 0 && fd <= 2)
		return false;
	if (fstat(fd, &st))
		return false;
	return S_ISREG(st.st_mode) || S_ISBLK(st.st_mode) || S_ISDIR(st.st_mode);
}

static void name_of(int fd, char *path)
{
	char proc[64];
	ssize_t n;

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", fd);
	n = readlink(proc, path, PATH_MAX - 1);
	path[n < 0 ? 0 : n] = '\0';
}

/*
 * Count one call, and say what to do with it: COUNT (go on), FAIL with errno set,
 * TEAR or SHORT.  @path NULL: take that of @fd.
 */
static enum mode decide(const char *call, const char *path, int fd, uint64_t offset,
			uint64_t len)
{
	uint64_t n = __atomic_add_fetch(&state->count, 1, __ATOMIC_SEQ_CST);
	char name[PATH_MAX];

	if (mode == COUNT || (n != at && !(from_then_on && n > at)))
		return COUNT;
	/* A disk that is full lets go of things. */
	if (mode == FAIL && mode_errno != EIO && !strcmp(call, "unlink"))
		return COUNT;
	if (!path) {
		name_of(fd, name);
		path = name;
	}
	__atomic_add_fetch(&state->fired, 1, __ATOMIC_SEQ_CST);
	snprintf(state->what, sizeof(state->what), "call %" PRIu64 ", %s(%.300s), %" PRIu64
		 " bytes at %" PRIu64, n, call, path, len, offset);
	if (mode == KILL)
		die();
	if (mode == RUN) {
		run_command();
		return COUNT;
	}
	errno = mode_errno;
	return mode;
}

/* For what cannot be done in part. */
static bool refused(const char *call, const char *path, int fd, uint64_t offset,
		    uint64_t len)
{
	switch (decide(call, path, fd, offset, len)) {
	case FAIL:
		return true;
	case TEAR:
		die();
		return true;
	default:
		return false;
	}
}

/* So much of a write reaches the disk. */
static uint64_t part(uint64_t len)
{
	uint64_t n = mode_bytes ? mode_bytes : len / 2;

	if (n >= len)
		n = len ? len - 1 : 0;
	return n / TORN * TORN;
}

/* ---- the log for power cuts -------------------------------------------------- */

/*
 * A line "WHAT DEV INO OFFSET LENGTH PATHS BYTES", then so many bytes of paths
 * (two are separated by a NUL) and of data.
 */
static void record(const char *what, const struct stat *st, uint64_t offset,
		   uint64_t length, const char *paths, size_t path_len, const void *data,
		   size_t bytes)
{
	char line[160];
	struct iovec iov[3] = {
		{ line, 0 }, { (void *)paths, path_len }, { (void *)data, bytes },
	};
	ssize_t want;

	iov[0].iov_len = snprintf(line, sizeof(line),
				  "%s %ju %ju %" PRIu64 " %" PRIu64 " %zu %zu\n", what,
				  (uintmax_t)(st->st_rdev ? st->st_rdev : st->st_dev),
				  (uintmax_t)st->st_ino, offset, length, path_len, bytes);
	want = iov[0].iov_len + path_len + bytes;
	if (syscall(SYS_writev, log_fd, iov, 3) != want)
		bad("cannot write INJECT_LOG");
}

static void record_fd(const char *what, int fd, uint64_t offset, uint64_t length,
		      const void *data, size_t bytes)
{
	int saved = errno;
	char path[PATH_MAX];
	struct stat st;

	if (log_fd >= 0 && !fstat(fd, &st)) {
		name_of(fd, path);
		record(what, &st, offset, length, path, strlen(path), data, bytes);
	}
	errno = saved;
}

/* A name as it is seen from the root. */
static size_t full_path(char *out, int dir, const char *path)
{
	char base[PATH_MAX] = "";

	if (*path != '/') {
		if (dir == AT_FDCWD) {
			if (!getcwd(base, sizeof(base)))
				base[0] = '\0';
		} else {
			name_of(dir, base);
		}
		strncat(base, "/", sizeof(base) - strlen(base) - 1);
	}
	return snprintf(out, 2 * PATH_MAX, "%s%s", base, path) + 1;
}

static void record_names(const char *what, int dir1, const char *path1, int dir2,
			 const char *path2)
{
	char both[4 * PATH_MAX];
	struct stat st = { };
	int saved = errno;
	size_t n;

	if (log_fd < 0)
		return;
	n = full_path(both, dir1, path1);
	if (path2)
		n += full_path(both + n, dir2, path2);
	/* What the new name leads to; a removed one is gone. */
	fstatat(path2 ? dir2 : dir1, path2 ? path2 : path1, &st, AT_SYMLINK_NOFOLLOW);
	record(what, &st, 0, 0, both, n - 1, NULL, 0);
	errno = saved;
}

/* What a copy inside the kernel has brought. */
static void record_copied(int fd, uint64_t offset, uint64_t len)
{
	char buf[65536];
	ssize_t n;

	for (; log_fd >= 0 && len; offset += n, len -= n) {
		n = pread(fd, buf, len < sizeof(buf) ? len : sizeof(buf), offset);
		if (n <= 0)
			break;
		record_fd("write", fd, offset, n, buf, n);
	}
}

/* ---- reads and locks: only for "run" ------------------------------------------ */

int fcntl(int fd, int cmd, ...)
{
	va_list ap;
	void *arg;

	va_start(ap, cmd);
	arg = va_arg(ap, void *);
	va_end(ap);
	if (mode == RUN && cmd == F_OFD_SETLK && matters(fd))
		decide("fcntl", NULL, fd, 0, 0);
	return REAL(fcntl)(fd, cmd, arg);
}

ssize_t pread(int fd, void *buf, size_t n, off_t offset)
{
	if (mode == RUN && matters(fd))
		decide("pread", NULL, fd, offset, n);
	return REAL(pread)(fd, buf, n, offset);
}

/* ---- writes ------------------------------------------------------------------ */

ssize_t pwrite(int fd, const void *buf, size_t n, off_t offset)
{
	enum mode fate;
	ssize_t ret;

	if (!matters(fd))
		return REAL(pwrite)(fd, buf, n, offset);
	fate = decide("pwrite", NULL, fd, offset, n);
	if (fate == FAIL)
		return -1;
	ret = REAL(pwrite)(fd, buf, fate == COUNT ? n : part(n), offset);
	if (fate == TEAR)
		die();
	if (ret > 0)
		record_fd("write", fd, offset, ret, buf, ret);
	return ret;
}

ssize_t write(int fd, const void *buf, size_t n)
{
	enum mode fate;
	off_t offset;
	ssize_t ret;

	if (!matters(fd))
		return REAL(write)(fd, buf, n);
	offset = lseek(fd, 0, SEEK_CUR);
	fate = decide("write", NULL, fd, offset, n);
	if (fate == FAIL)
		return -1;
	ret = REAL(write)(fd, buf, fate == COUNT ? n : part(n));
	if (fate == TEAR)
		die();
	/* Behind O_APPEND the offset is known only now. */
	if (ret > 0)
		record_fd("write", fd, lseek(fd, 0, SEEK_CUR) - ret, ret, buf, ret);
	return ret;
}

static size_t iov_bytes(const struct iovec *iov, int nr)
{
	size_t n = 0;

	while (nr-- > 0)
		n += iov++->iov_len;
	return n;
}

/* The first @n bytes; what lies behind the last whole vector is left out. */
static int iov_cut(const struct iovec *iov, int nr, size_t n, struct iovec *out)
{
	int i;

	for (i = 0; i < nr && n; i++) {
		out[i] = iov[i];
		if (out[i].iov_len > n)
			out[i].iov_len = n;
		n -= out[i].iov_len;
	}
	return i;
}

static void record_iov(int fd, off_t offset, const struct iovec *iov, int nr, ssize_t n)
{
	size_t len;

	for (; nr-- > 0 && n > 0; iov++) {
		len = iov->iov_len < (size_t)n ? iov->iov_len : (size_t)n;
		record_fd("write", fd, offset, len, iov->iov_base, len);
		offset += len;
		n -= len;
	}
}

/* @offset -1: where the descriptor stands. */
static ssize_t write_vector(const char *call, int fd, const struct iovec *iov, int nr,
			    off_t offset, int flags)
{
	struct iovec cut[nr > 0 ? nr : 1];
	size_t n = iov_bytes(iov, nr);
	enum mode fate = COUNT;
	ssize_t ret;

	if (matters(fd))
		fate = decide(call, NULL, fd, offset, n);
	if (fate == FAIL)
		return -1;
	if (fate != COUNT) {
		nr = iov_cut(iov, nr, part(n), cut);
		iov = cut;
	}
	ret = REAL(pwritev2)(fd, iov, nr, offset, flags);
	if (fate == TEAR)
		die();
	if (ret > 0 && matters(fd)) {
		if (offset < 0)
			offset = lseek(fd, 0, SEEK_CUR) - ret;
		record_iov(fd, offset, iov, nr, ret);
	}
	return ret;
}

ssize_t writev(int fd, const struct iovec *iov, int nr)
{
	return write_vector("writev", fd, iov, nr, -1, 0);
}

ssize_t pwritev(int fd, const struct iovec *iov, int nr, off_t offset)
{
	return write_vector("pwritev", fd, iov, nr, offset, 0);
}

ssize_t pwritev2(int fd, const struct iovec *iov, int nr, off_t offset, int flags)
{
	return write_vector("pwritev2", fd, iov, nr, offset, flags);
}

/* ---- copies ------------------------------------------------------------------ */

ssize_t copy_file_range(int in, off64_t *in_at, int out, off64_t *out_at, size_t n,
			unsigned int flags)
{
	off64_t offset = out_at ? *out_at : lseek(out, 0, SEEK_CUR);
	enum mode fate = decide("copy_file_range", NULL, out, offset, n);
	ssize_t ret;

	if (fate == FAIL)
		return -1;
	ret = REAL(copy_file_range)(in, in_at, out, out_at, fate == COUNT ? n : part(n),
				    flags);
	if (fate == TEAR)
		die();
	if (ret > 0)
		record_copied(out, offset, ret);
	return ret;
}

ssize_t sendfile(int out, int in, off_t *in_at, size_t n)
{
	enum mode fate = COUNT;
	off_t offset;
	ssize_t ret;

	if (!matters(out))
		return REAL(sendfile)(out, in, in_at, n);
	offset = lseek(out, 0, SEEK_CUR);
	fate = decide("sendfile", NULL, out, offset, n);
	if (fate == FAIL)
		return -1;
	ret = REAL(sendfile)(out, in, in_at, fate == COUNT ? n : part(n));
	if (fate == TEAR)
		die();
	if (ret > 0)
		record_copied(out, offset, ret);
	return ret;
}

ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t n,
	       unsigned int flags)
{
	off64_t offset;
	ssize_t ret;

	if (!matters(out))
		return REAL(splice)(in, in_at, out, out_at, n, flags);
	offset = out_at ? *out_at : lseek(out, 0, SEEK_CUR);
	if (refused("splice", NULL, out, offset, n))
		return -1;
	ret = REAL(splice)(in, in_at, out, out_at, n, flags);
	if (ret > 0)
		record_copied(out, offset, ret);
	return ret;
}

/* ---- lengths ----------------------------------------------------------------- */

int ftruncate(int fd, off_t length)
{
	int ret;

	if (refused("ftruncate", NULL, fd, length, 0))
		return -1;
	ret = REAL(ftruncate)(fd, length);
	if (!ret)
		record_fd("truncate", fd, 0, length, NULL, 0);
	return ret;
}

int truncate(const char *path, off_t length)
{
	int fd;
	int ret;

	if (refused("truncate", path, -1, length, 0))
		return -1;
	ret = REAL(truncate)(path, length);
	if (!ret && log_fd >= 0) {
		fd = syscall(SYS_openat, AT_FDCWD, path, O_PATH | O_CLOEXEC);
		record_fd("truncate", fd, 0, length, NULL, 0);
		close(fd);
	}
	return ret;
}

static void record_fallocate(int fd, int how, off_t offset, off_t len)
{
	if (!how)
		record_fd("extend", fd, offset, len, NULL, 0);
	else if (!(how & ~(FALLOC_FL_ZERO_RANGE | FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)))
		record_fd(how & FALLOC_FL_KEEP_SIZE ? "punch" : "zero", fd, offset, len,
			  NULL, 0);
	else
		record_fd("unknown", fd, offset, len, NULL, 0);
}

int fallocate(int fd, int how, off_t offset, off_t len)
{
	enum mode fate = decide("fallocate", NULL, fd, offset, len);
	off_t some;
	int ret;

	if (fate == FAIL)
		return -1;
	some = part(len);
	if (fate == TEAR && some)
		REAL(fallocate)(fd, how, offset, some);
	if (fate == TEAR)
		die();
	ret = REAL(fallocate)(fd, how, offset, len);
	if (!ret)
		record_fallocate(fd, how, offset, len);
	return ret;
}

int posix_fallocate(int fd, off_t offset, off_t len)
{
	int ret;

	if (refused("posix_fallocate", NULL, fd, offset, len))
		return errno;
	ret = REAL(posix_fallocate)(fd, offset, len);
	if (!ret)
		record_fd("extend", fd, offset, len, NULL, 0);
	return ret;
}

/* ---- flushes ----------------------------------------------------------------- */

int fsync(int fd)
{
	int ret;

	if (refused("fsync", NULL, fd, 0, 0))
		return -1;
	ret = REAL(fsync)(fd);
	if (!ret)
		record_fd("sync", fd, 0, 0, NULL, 0);
	return ret;
}

int fdatasync(int fd)
{
	int ret;

	if (refused("fdatasync", NULL, fd, 0, 0))
		return -1;
	ret = REAL(fdatasync)(fd);
	if (!ret)
		record_fd("sync", fd, 0, 0, NULL, 0);
	return ret;
}

int syncfs(int fd)
{
	int ret;

	if (refused("syncfs", NULL, fd, 0, 0))
		return -1;
	ret = REAL(syncfs)(fd);
	if (!ret)
		record_fd("syncall", fd, 0, 0, NULL, 0);
	return ret;
}

/* It makes nothing durable that can be relied on, so it is not in the log. */
int sync_file_range(int fd, off64_t offset, off64_t n, unsigned int flags)
{
	if (refused("sync_file_range", NULL, fd, offset, n))
		return -1;
	return REAL(sync_file_range)(fd, offset, n, flags);
}

int msync(void *addr, size_t n, int flags)
{
	if (refused("msync", "", -1, 0, n))
		return -1;
	return REAL(msync)(addr, n, flags);
}

/* ---- names ------------------------------------------------------------------- */

int renameat2(int from_dir, const char *from, int to_dir, const char *to,
	      unsigned int flags)
{
	int ret;

	if (refused("rename", to, -1, 0, 0))
		return -1;
	ret = REAL(renameat2)(from_dir, from, to_dir, to, flags);
	if (!ret)
		record_names(flags & RENAME_EXCHANGE ? "exchange" : "rename", from_dir, from,
			     to_dir, to);
	return ret;
}

int renameat(int from_dir, const char *from, int to_dir, const char *to)
{
	return renameat2(from_dir, from, to_dir, to, 0);
}

int rename(const char *from, const char *to)
{
	return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags)
{
	int ret;

	if (refused("link", to, -1, 0, 0))
		return -1;
	ret = REAL(linkat)(from_dir, from, to_dir, to, flags);
	if (!ret)
		record_names("link", from_dir, from, to_dir, to);
	return ret;
}

int link(const char *from, const char *to)
{
	return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}

int symlinkat(const char *target, int dir, const char *path)
{
	int ret;

	if (refused("symlink", path, -1, 0, 0))
		return -1;
	ret = REAL(symlinkat)(target, dir, path);
	if (!ret)
		record_names("symlink", dir, path, AT_FDCWD, target);
	return ret;
}

int symlink(const char *target, const char *path)
{
	return symlinkat(target, AT_FDCWD, path);
}

int unlinkat(int dir, const char *path, int flags)
{
	int ret;

	if (refused("unlink", path, -1, 0, 0))
		return -1;
	ret = REAL(unlinkat)(dir, path, flags);
	if (!ret)
		record_names("unlink", dir, path, 0, NULL);
	return ret;
}

int unlink(const char *path)
{
	return unlinkat(AT_FDCWD, path, 0);
}

int rmdir(const char *path)
{
	return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}

int remove(const char *path)
{
	struct stat st;

	return unlinkat(AT_FDCWD, path,
			!lstat(path, &st) && S_ISDIR(st.st_mode) ? AT_REMOVEDIR : 0);
}

int mkdirat(int dir, const char *path, mode_t perm)
{
	int ret;

	if (refused("mkdir", path, -1, 0, 0))
		return -1;
	ret = REAL(mkdirat)(dir, path, perm);
	if (!ret)
		record_names("mkdir", dir, path, 0, NULL);
	return ret;
}

int mkdir(const char *path, mode_t perm)
{
	return mkdirat(AT_FDCWD, path, perm);
}

int mknodat(int dir, const char *path, mode_t perm, dev_t device)
{
	if (refused("mknod", path, -1, 0, 0))
		return -1;
	return REAL(mknodat)(dir, path, perm, device);
}

int mknod(const char *path, mode_t perm, dev_t device)
{
	return mknodat(AT_FDCWD, path, perm, device);
}

/*
 * A file that comes into being, or loses what it had.  Devices are only opened:
 * everybody says O_CREAT there, too.
 */
static int open_counted(const char *call, int dir, const char *path, int flags, mode_t perm)
{
	bool nameless = (flags & O_TMPFILE) == O_TMPFILE;
	struct stat st;
	bool there = !fstatat(dir, path, &st, 0);
	bool made = !there && flags & O_CREAT;
	bool cut = there && flags & O_TRUNC && S_ISREG(st.st_mode);
	int fd;

	if ((made || cut || nameless) && refused(call, path, -1, 0, 0))
		return -1;
	fd = syscall(SYS_openat, dir, path, flags, perm);
	if (fd < 0)
		return fd;
	if (cut)
		record_fd("truncate", fd, 0, 0, NULL, 0);
	else if (nameless)
		record_fd("nameless", fd, 0, 0, NULL, 0);
	else if (made)
		record_names("create", dir, path, 0, NULL);
	return fd;
}

static mode_t perm_of(int flags, va_list args)
{
	if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE)
		return va_arg(args, mode_t);
	return 0;
}

int open(const char *path, int flags, ...)
{
	va_list args;
	mode_t perm;

	va_start(args, flags);
	perm = perm_of(flags, args);
	va_end(args);
	return open_counted("open", AT_FDCWD, path, flags, perm);
}

int openat(int dir, const char *path, int flags, ...)
{
	va_list args;
	mode_t perm;

	va_start(args, flags);
	perm = perm_of(flags, args);
	va_end(args);
	return open_counted("open", dir, path, flags, perm);
}

int creat(const char *path, mode_t perm)
{
	return open_counted("creat", AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, perm);
}

int fchmod(int fd, mode_t perm)
{
	if (refused("fchmod", NULL, fd, 0, 0))
		return -1;
	return REAL(fchmod)(fd, perm);
}

int fchown(int fd, uid_t user, gid_t group)
{
	if (refused("fchown", NULL, fd, 0, 0))
		return -1;
	return REAL(fchown)(fd, user, group);
}

/* ---- ioctls ------------------------------------------------------------------ */

static const char *ioctl_name(unsigned long request)
{
	static const struct {
		unsigned long request;
		const char *name;
	} names[] = {
		{ FICLONE, "FICLONE" }, { FICLONERANGE, "FICLONERANGE" },
		{ FIDEDUPERANGE, "FIDEDUPERANGE" }, { BLKDISCARD, "BLKDISCARD" },
		{ BLKSECDISCARD, "BLKSECDISCARD" }, { BLKZEROOUT, "BLKZEROOUT" },
		{ LOOP_SET_FD, "LOOP_SET_FD" }, { LOOP_CLR_FD, "LOOP_CLR_FD" },
		{ LOOP_CHANGE_FD, "LOOP_CHANGE_FD" }, { LOOP_CONFIGURE, "LOOP_CONFIGURE" },
		{ LOOP_SET_STATUS64, "LOOP_SET_STATUS64" },
		{ LOOP_SET_CAPACITY, "LOOP_SET_CAPACITY" },
		{ LOOP_SET_DIRECT_IO, "LOOP_SET_DIRECT_IO" },
		{ LOOP_SET_BLOCK_SIZE, "LOOP_SET_BLOCK_SIZE" },
		{ DM_REMOVE_ALL, "DM_REMOVE_ALL" }, { DM_DEV_CREATE, "DM_DEV_CREATE" },
		{ DM_DEV_REMOVE, "DM_DEV_REMOVE" }, { DM_DEV_RENAME, "DM_DEV_RENAME" },
		{ DM_DEV_SUSPEND, "DM_DEV_SUSPEND" }, { DM_TABLE_LOAD, "DM_TABLE_LOAD" },
		{ DM_TABLE_CLEAR, "DM_TABLE_CLEAR" }, { DM_TARGET_MSG, "DM_TARGET_MSG" },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].request == request)
			return names[i].name;
	return NULL;
}

static void record_ioctl(int fd, unsigned long request, const void *arg)
{
	const struct file_clone_range *range = arg;
	const uint64_t *pair = arg;
	struct stat st;

	if (log_fd < 0)
		return;
	if (request == BLKZEROOUT)
		record_fd("zero", fd, pair[0], pair[1], NULL, 0);
	else if (request == FICLONE && !fstat(fd, &st))
		record_copied(fd, 0, st.st_size);
	else if (request == FICLONERANGE)
		record_copied(fd, range->dest_offset, range->src_length ? range->src_length :
			      UINT64_MAX);
}

int ioctl(int fd, unsigned long request, ...)
{
	const char *name = ioctl_name(request);
	va_list args;
	void *arg;
	int ret;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (name && refused(name, NULL, fd, 0, 0))
		return -1;
	ret = REAL(ioctl)(fd, request, arg);
	if (name && !ret)
		record_ioctl(fd, request, arg);
	return ret;
}

/* ---- io_uring ---------------------------------------------------------------- */

static const char *sqe_name(const struct io_uring_sqe *sqe)
{
	switch (sqe->opcode) {
	case IORING_OP_WRITE:		return "uring write";
	case IORING_OP_WRITE_FIXED:	return "uring write_fixed";
	case IORING_OP_WRITEV:		return "uring writev";
	case IORING_OP_FSYNC:		return "uring fsync";
	case IORING_OP_SYNC_FILE_RANGE:	return "uring sync_file_range";
	case IORING_OP_FALLOCATE:	return "uring fallocate";
	case IORING_OP_SPLICE:		return "uring splice";
	case IORING_OP_RENAMEAT:	return "uring renameat";
	case IORING_OP_UNLINKAT:	return "uring unlinkat";
	case IORING_OP_LINKAT:		return "uring linkat";
	case IORING_OP_MKDIRAT:		return "uring mkdirat";
	default:			return NULL;
	}
}

/* Make it fail: with ENOSPC if it is a write, else with EBADF. */
static void sqe_fail(struct io_uring_sqe *sqe)
{
	static int full = -1;

	if (mode_errno == ENOSPC && full < 0)
		full = syscall(SYS_openat, AT_FDCWD, "/dev/full", O_WRONLY | O_CLOEXEC);
	sqe->fd = mode_errno == ENOSPC ? full : -1;
	sqe->flags &= ~IOSQE_FIXED_FILE;
}

/*
 * A request for the log of what is written: as if it were done when it is submitted, so
 * that a flush must not come before it is known to be done.
 */
static void record_sqe(const struct io_uring_sqe *sqe)
{
	if (log_fd < 0 || sqe->opcode == IORING_OP_SYNC_FILE_RANGE)
		return;
	if (sqe->opcode != IORING_OP_WRITE || sqe->flags & IOSQE_FIXED_FILE)
		bad("INJECT_LOG does not know this request of io_uring");
	record_fd("write", sqe->fd, sqe->off, sqe->len, (void *)(uintptr_t)sqe->addr,
		  sqe->len);
}

/*
 * Requests that were queued and not yet submitted.  Return: true if the process is to
 * die when those before the N-th are done, as far as they may be.
 */
static bool uring_look(struct io_uring *ring)
{
	unsigned int shift = ring->flags & IORING_SETUP_SQE128 ? 1 : 0;
	unsigned int i;
	bool doomed = false;

	for (i = ring->sq.sqe_head; i != ring->sq.sqe_tail; i++) {
		struct io_uring_sqe *sqe;
		const char *name;
		uint64_t n;

		sqe = &ring->sq.sqes[(i & *ring->sq.kring_mask) << shift];
		name = sqe_name(sqe);
		if (!name)
			continue;
		if (doomed) {
			io_uring_prep_nop(sqe);
			continue;
		}
		record_sqe(sqe);
		n = __atomic_add_fetch(&state->count, 1, __ATOMIC_SEQ_CST);
		if (mode == COUNT || (n != at && !(from_then_on && n > at)))
			continue;
		__atomic_add_fetch(&state->fired, 1, __ATOMIC_SEQ_CST);
		snprintf(state->what, sizeof(state->what),
			 "call %" PRIu64 ", %s, %u bytes at %llu", n, name, sqe->len, sqe->off);
		doomed = mode == KILL || mode == TEAR;
		if (mode == FAIL)
			sqe_fail(sqe);
		else if (mode != KILL && sqe->opcode != IORING_OP_WRITEV &&
			 strstr(name, "write"))
			sqe->len = part(sqe->len);
		else if (doomed)
			io_uring_prep_nop(sqe);
	}
	return doomed;
}

static void uring_die(struct io_uring *ring)
{
	REAL(io_uring_submit)(ring);
	usleep(50000);
	die();
}

int io_uring_submit(struct io_uring *ring)
{
	if (uring_look(ring))
		uring_die(ring);
	return REAL(io_uring_submit)(ring);
}

int io_uring_submit_and_wait(struct io_uring *ring, unsigned int nr)
{
	if (uring_look(ring))
		uring_die(ring);
	return REAL(io_uring_submit_and_wait)(ring, nr);
}

int io_uring_submit_and_wait_timeout(struct io_uring *ring, struct io_uring_cqe **cqe,
				     unsigned int nr, struct __kernel_timespec *time,
				     sigset_t *signals)
{
	if (uring_look(ring))
		uring_die(ring);
	return REAL(io_uring_submit_and_wait_timeout)(ring, cqe, nr, time, signals);
}

/* ---- the names that large files have ----------------------------------------- */

#define ALIAS(name) __attribute((alias(#name)))

int fcntl64(int fd, int cmd, ...) ALIAS(fcntl);
ssize_t pread64(int fd, void *buf, size_t n, off64_t offset) ALIAS(pread);
ssize_t pwrite64(int fd, const void *buf, size_t n, off64_t offset) ALIAS(pwrite);
ssize_t pwritev64(int fd, const struct iovec *iov, int nr, off64_t at) ALIAS(pwritev);
ssize_t pwritev64v2(int fd, const struct iovec *iov, int nr, off64_t at, int flags)
	ALIAS(pwritev2);
ssize_t sendfile64(int out, int in, off64_t *in_at, size_t n) ALIAS(sendfile);
int ftruncate64(int fd, off64_t length) ALIAS(ftruncate);
int truncate64(const char *path, off64_t length) ALIAS(truncate);
int fallocate64(int fd, int how, off64_t offset, off64_t len) ALIAS(fallocate);
int posix_fallocate64(int fd, off64_t offset, off64_t len) ALIAS(posix_fallocate);
int open64(const char *path, int flags, ...) ALIAS(open);
int openat64(int dir, const char *path, int flags, ...) ALIAS(openat);
int creat64(const char *path, mode_t perm) ALIAS(creat);
