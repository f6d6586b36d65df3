// SPDX-License-Identifier: GPL-2.0-or-later
/* Regular files and block devices: see file.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <limits.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "file.h"

static bool vc_path_below(const char *real, const char *dir)
{
	size_t n = strlen(dir);

	while (n && dir[n - 1] == '/')
		n--;
	return !strncmp(real, dir, n) && real[n] == '/';
}

static bool vc_fence_allows(const struct vc_fence *fence, const char *real, bool is_block)
{
	unsigned int i;

	if (!is_block && fence->directory && vc_path_below(real, fence->directory))
		return true;
	for (i = 0; i < fence->nr_roots; i++)
		if (vc_path_below(real, fence->roots[i]))
			return true;
	return false;
}

static const char *vc_file_kind(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFDIR:
		return "a directory";
	case S_IFCHR:
		return "a character device";
	case S_IFIFO:
		return "a FIFO";
	case S_IFSOCK:
		return "a socket";
	default:
		return "not a file";
	}
}

static int vc_file_block_setup(struct vc_file *file, struct vc_err *err)
{
	unsigned int phys = 0;
	int read_only = 0;
	int logical = 0;
	u64 size = 0;

	/* The kernel lets it be opened for writing all the same. */
	if (file->writable && !ioctl(file->fd, BLKROGET, &read_only) && read_only)
		return vc_error(err, EROFS, file->path, "the device is read-only");
	if (ioctl(file->fd, BLKGETSIZE64, &size) || ioctl(file->fd, BLKSSZGET, &logical) ||
	    ioctl(file->fd, BLKPBSZGET, &phys))
		return vc_error_sys(err, errno, file->path,
				    "cannot ask the device for its size");
	file->size = size;
	file->sector_size = logical;
	file->phys_sector_size = phys;
	return 0;
}

/*
 * The path is resolved once, to a descriptor that can do nothing but be looked at.
 * What is looked at is then opened: no name is resolved a second time.
 */
static int vc_file_reopen(struct vc_file *file, int path_fd, unsigned int flags,
			  const struct vc_fence *fence, struct vc_err *err)
{
	int oflags = O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
	char link[PATH_MAX];
	char proc[64];
	struct stat st;
	ssize_t n;

	if (fstat(path_fd, &st))
		return vc_error_sys(err, errno, file->path, "cannot stat");
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return vc_error(err, EINVAL, file->path,
				"%s, need a regular file or a block device",
				vc_file_kind(st.st_mode));
	file->is_block = S_ISBLK(st.st_mode);
	file->size = st.st_size;
	file->dev = st.st_dev;
	file->ino = st.st_ino;
	file->rdev = file->is_block ? st.st_rdev : 0;

	snprintf(proc, sizeof(proc), "/proc/self/fd/%d", path_fd);
	n = readlink(proc, link, sizeof(link));
	if (n < 0 || n >= (ssize_t)sizeof(link))
		return vc_error(err, EIO, file->path, "cannot resolve the path: need /proc");
	file->real = strndup(link, n);
	if (!file->real)
		return vc_error_nomem(err);
	if (fence && !vc_fence_allows(fence, file->real, file->is_block))
		return vc_error(err, EACCES, file->path,
				"leads to %s, which an image may not name by itself",
				file->real);

	/* Root could all the same, but somebody wants it to stay as it is. */
	if (!file->is_block && flags & VC_FILE_WRITE && !(st.st_mode & 0222))
		return vc_error(err, EACCES, file->path,
				"protected (mode %04o): 'vhdclone unprotect' allows changes",
				st.st_mode & 07777);
	oflags |= flags & VC_FILE_WRITE ? O_RDWR : O_RDONLY;
	if (file->is_block && flags & VC_FILE_EXCLUSIVE)
		oflags |= O_EXCL;
	file->fd = open(proc, oflags);
	if (file->fd < 0 && errno == EBUSY && file->is_block)
		return vc_error(err, EBUSY, file->path, "the device is in use");
	if (file->fd < 0)
		return vc_error_sys(err, errno, file->path, "cannot open%s",
				    flags & VC_FILE_WRITE ? " for writing" : "");
	file->writable = flags & VC_FILE_WRITE;
	if (fcntl(file->fd, F_SETFL, 0))
		return vc_error_sys(err, errno, file->path, "cannot open");
	return file->is_block ? vc_file_block_setup(file, err) : 0;
}

int vc_file_open(struct vc_file *file, const char *path, unsigned int flags,
		 const struct vc_fence *fence, struct vc_err *err)
{
	int path_fd;
	int ret;

	*file = (struct vc_file)VC_FILE_CLOSED;
	file->path = strdup(path);
	if (!file->path)
		return vc_error_nomem(err);
	path_fd = open(path, O_PATH | O_CLOEXEC);
	if (path_fd < 0)
		return vc_error_sys(err, errno, path, "cannot open");
	ret = vc_file_reopen(file, path_fd, flags, fence, err);
	close(path_fd);
	return ret;
}

void vc_file_close(struct vc_file *file)
{
	if (file->fd >= 0)
		close(file->fd);
	free(file->path);
	free(file->real);
	*file = (struct vc_file)VC_FILE_CLOSED;
}

bool vc_file_same(const struct vc_file *a, const struct vc_file *b)
{
	if (a->is_block != b->is_block)
		return false;
	if (a->is_block)
		return a->rdev == b->rdev;
	return a->dev == b->dev && a->ino == b->ino;
}

void vc_file_refresh(const struct vc_file *file)
{
	if (file->is_block)
		ioctl(file->fd, BLKFLSBUF, 0);
}

/* There is nothing to read at @at; the file may end long before it. */
static int vc_file_too_short(const struct vc_file *file, const char *what, u64 offset,
			     u64 at, struct vc_err *err)
{
	off_t end = lseek(file->fd, 0, SEEK_END);

	if (end >= 0 && (u64)end < at)
		at = end;
	return vc_error(err, EINVAL, file->path, "ends at %llu, %s the %s (offset %llu)", at,
			at < offset ? "before" : "inside", what, offset);
}

int vc_file_read(const struct vc_file *file, const char *what, u64 offset, void *buf,
		 size_t len, struct vc_err *err)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pread(file->fd, (u8 *)buf + done, len - done, offset + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return vc_error_sys(err, errno, file->path,
					    "cannot read the %s (offset %llu)", what,
					    (offset + done));
		if (!n)
			return vc_file_too_short(file, what, offset, offset + done, err);
		done += n;
	}
	return 0;
}

int vc_file_write(const struct vc_file *file, const char *what, u64 offset,
		  const void *buf, size_t len, struct vc_err *err)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pwrite(file->fd, (const u8 *)buf + done, len - done, offset + done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return vc_error_sys(err, n ? errno : ENOSPC, file->path,
					    "cannot write the %s (offset %llu)", what,
					    (offset + done));
		done += n;
	}
	return 0;
}

int vc_file_sync(const struct vc_file *file, struct vc_err *err)
{
	if (fsync(file->fd))
		return vc_error_sys(err, errno, file->path, "cannot flush");
	return 0;
}

static void vc_signals_set(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGINT);
	sigaddset(set, SIGTERM);
	sigaddset(set, SIGHUP);
}

void vc_signals_hold(sigset_t *old)
{
	sigset_t set;

	vc_signals_set(&set);
	sigprocmask(SIG_BLOCK, &set, old);
}

void vc_signals_release(const sigset_t *old)
{
	sigprocmask(SIG_SETMASK, old, NULL);
}

bool vc_signal_waits(void)
{
	sigset_t set;

	return !sigpending(&set) && (sigismember(&set, SIGINT) > 0 ||
				     sigismember(&set, SIGTERM) > 0 ||
				     sigismember(&set, SIGHUP) > 0);
}

void vc_signal_take(void)
{
	struct timespec now = { };
	sigset_t set;

	vc_signals_set(&set);
	while (sigtimedwait(&set, NULL, &now) > 0)
		;
}

static bool vc_file_zero_fast(const struct vc_file *file, u64 offset, u64 len)
{
	u64 range[2] = { offset, len };

	if (file->is_block)
		return !ioctl(file->fd, BLKZEROOUT, range);
	/* New space of a file reads as zeros; old space wants the other call. */
	if (!fallocate(file->fd, FALLOC_FL_ZERO_RANGE, offset, len))
		return true;
	return offset >= file->size && !fallocate(file->fd, 0, offset, len);
}

int vc_file_zero(const struct vc_file *file, u64 offset, u64 len, struct vc_err *err)
{
	static const u8 zeros[1 << 20];
	size_t n;
	int ret;

	if (!len || vc_file_zero_fast(file, offset, len))
		return 0;
	if (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)
		return vc_error_sys(err, errno, file->path, "cannot allocate space");
	for (; len; offset += n, len -= n) {
		/* This may take long.  Whoever has to clean up has blocked signals. */
		if (vc_signal_waits())
			return vc_error(err, EINTR, file->path, "interrupted");
		n = len < sizeof(zeros) ? len : sizeof(zeros);
		ret = vc_file_write(file, "zeros", offset, zeros, n, err);
		if (ret)
			return ret;
	}
	return 0;
}

bool vc_file_punch(const struct vc_file *file, u64 offset, u64 len)
{
	u64 range[2] = { offset, len };

	if (file->is_block)
		return !ioctl(file->fd, BLKDISCARD, range);
	return !fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, len);
}

int vc_file_resize(struct vc_file *file, u64 size, struct vc_err *err)
{
	if (ftruncate(file->fd, size))
		return vc_error_sys(err, errno, file->path,
				    "cannot set the length to %llu bytes",
				    size);
	file->size = size;
	return 0;
}

/*
 * QEMU locks bytes of an image from 100 on: who writes has the one, who cannot do with
 * a writer has the other.  Neither of them shall meet readers, as whole locks would.
 */
#define VC_LOCK_QEMU_WRITES	101
#define VC_LOCK_QEMU_NO_WRITER	201

/* @length 0: to the end */
static bool vc_locked(const struct vc_file *file, int type, off_t start, off_t length)
{
	struct flock lock = { .l_type = type, .l_whence = SEEK_SET, .l_start = start,
			      .l_len = length };

	/* No locks here (some network file systems): the kernel's registry remains. */
	return !fcntl(file->fd, F_OFD_SETLK, &lock) || (errno != EAGAIN && errno != EACCES);
}

static bool vc_qemu_writes(const struct vc_file *file)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET,
			      .l_start = VC_LOCK_QEMU_WRITES, .l_len = 1 };

	return !fcntl(file->fd, F_OFD_GETLK, &lock) && lock.l_type != F_UNLCK;
}

/* Whoever had a lock before may have cut the file, or removed it. */
static int vc_file_after_lock(struct vc_file *file, struct vc_err *err)
{
	struct stat st;

	if (file->is_block)
		return vc_file_block_setup(file, err);
	if (fstat(file->fd, &st))
		return vc_error_sys(err, errno, file->path, "cannot stat");
	file->size = st.st_size;
	if (file->writable && !st.st_nlink)
		return vc_error(err, EBUSY, file->path, "was removed or replaced meanwhile");
	return 0;
}

int vc_file_lock(struct vc_file *file, struct vc_err *err)
{
	if (!vc_locked(file, F_WRLCK, 0, 0))
		return vc_error(err, EBUSY, file->path, "in use by another program");
	return vc_file_after_lock(file, err);
}

int vc_file_share(struct vc_file *file, struct vc_err *err)
{
	if (!vc_locked(file, F_RDLCK, 0, 1) ||
	    !vc_locked(file, F_RDLCK, VC_LOCK_QEMU_NO_WRITER, 1) || vc_qemu_writes(file))
		return vc_error(err, EBUSY, file->path, "is being written by another program");
	return vc_file_after_lock(file, err);
}

void vc_file_unlock(const struct vc_file *file)
{
	vc_locked(file, F_UNLCK, 0, 0);
}

int vc_file_no_writers(const struct vc_file *file, struct vc_err *err)
{
	/* A lease for reading is given only while there are no writers. */
	if (file->is_block || file->writable || !fcntl(file->fd, F_SETLEASE, F_RDLCK)) {
		fcntl(file->fd, F_SETLEASE, F_UNLCK);
		return 0;
	}
	if (errno != EAGAIN)
		return 0;
	return vc_error(err, EBUSY, file->path, "is open for writing by another program");
}

char *vc_dirname(const char *real)
{
	const char *slash = strrchr(real, '/');

	if (!slash)
		return strdup(".");
	return strndup(real, slash == real ? 1 : slash - real);
}

int vc_sync_directory(const char *dir, struct vc_err *err)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int ret = 0;

	if (fd < 0)
		return vc_error_sys(err, errno, dir, "cannot open the directory");
	/* Some file systems cannot flush a directory and need not. */
	if (fsync(fd) && errno != EINVAL && errno != EROFS)
		ret = vc_error_sys(err, errno, dir, "cannot flush the directory");
	close(fd);
	return ret;
}
