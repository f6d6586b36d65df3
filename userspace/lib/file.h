/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Regular files and block devices.  A path is opened once; what was checked is
 * what is used later, through the same descriptor.
 */
#ifndef VC_FILE_H
#define VC_FILE_H

#include <signal.h>
#include <sys/types.h>

#include "err.h"

/**
 * struct vc_file - an open file or block device
 * @path: as it was given
 * @real: where that led to, symbolic links and ".." resolved
 * @size: bytes, when it was opened, locked or last resized
 * @dev: st_dev of a regular file, for vc_file_same()
 * @rdev: the device number of a block device, else 0
 * @sector_size: logical sector size of a block device, else 0
 * @phys_sector_size: physical sector size of a block device, else 0
 */
struct vc_file {
	char *path;
	char *real;
	int fd;
	bool is_block;
	bool writable;
	u64 size;
	dev_t dev;
	ino_t ino;
	dev_t rdev;
	u32 sector_size;
	u32 phys_sector_size;
};

#define VC_FILE_CLOSED	{ .fd = -1 }

#define VC_FILE_WRITE		0x1U
#define VC_FILE_EXCLUSIVE	0x2U	/* a block device must not be in use */

/**
 * struct vc_fence - where a path from an untrusted place may lead
 * @directory: real path of a directory for regular files, or NULL
 * @roots: real paths of directories for files and block devices
 * @nr_roots: so many
 */
struct vc_fence {
	const char *directory;
	char **roots;
	unsigned int nr_roots;
};

/**
 * vc_file_open() - open a regular file or a block device
 * @file: result; valid for vc_file_close() also after an error
 * @path: where
 * @flags: VC_FILE_*
 * @fence: where the path may lead to, NULL: anywhere
 * @err: filled in on error
 *
 * Anything else than a regular file or a block device is refused before it is
 * opened.  For writing also a file without any permission to write, even by root:
 * see protect.h.  The fence is asked about what the path resolved to.
 */
int vc_file_open(struct vc_file *file, const char *path, unsigned int flags,
		 const struct vc_fence *fence, struct vc_err *err);
void vc_file_close(struct vc_file *file);

/* Do both name one file or one device? */
bool vc_file_same(const struct vc_file *a, const struct vc_file *b);

/*
 * Forget what the node of a block device has cached: an open clone writes to the
 * device below that.
 */
void vc_file_refresh(const struct vc_file *file);

/* Exactly @len bytes; @what names the structure in the message. */
int vc_file_read(const struct vc_file *file, const char *what, u64 offset, void *buf,
		 size_t len, struct vc_err *err);
int vc_file_write(const struct vc_file *file, const char *what, u64 offset,
		  const void *buf, size_t len, struct vc_err *err);
int vc_file_sync(const struct vc_file *file, struct vc_err *err);

/* Make a range read as zeros, and own its space where the file system can. */
int vc_file_zero(const struct vc_file *file, u64 offset, u64 len, struct vc_err *err);

/*
 * Give space back that nothing refers to; what it reads as afterwards is not defined.
 * Return: false if the file system or the device cannot.
 */
bool vc_file_punch(const struct vc_file *file, u64 offset, u64 len);

/* Set the length of a regular file. */
int vc_file_resize(struct vc_file *file, u64 size, struct vc_err *err);

/*
 * Keep other tools out as long as the descriptor is open: a lock on the whole
 * file, which also meets the byte locks that QEMU takes.  What was read before may be
 * out of date; @file->size is not.  Error EBUSY also if the file has no name any more.
 */
int vc_file_lock(struct vc_file *file, struct vc_err *err);

/*
 * The same against those who write, QEMU among them: many may read.  Two descriptors of
 * one file are in each other's way, in one process, too.
 */
int vc_file_share(struct vc_file *file, struct vc_err *err);
void vc_file_unlock(const struct vc_file *file);

/*
 * Error EBUSY if anybody has the regular file open for writing.  File systems and users
 * that cannot tell (network file systems; not the file's owner) say that nobody has.
 */
int vc_file_no_writers(const struct vc_file *file, struct vc_err *err);

/* The directory part of a real path, to be freed. */
char *vc_dirname(const char *real);

/* Flush a directory, so that a name in it stays. */
int vc_sync_directory(const char *dir, struct vc_err *err);

/*
 * Signals that would end the program are delivered when what must not be left half
 * done is done.  To hold them again while they are held does no harm.
 */
void vc_signals_hold(sigset_t *old);
void vc_signals_release(const sigset_t *old);
bool vc_signal_waits(void);

/* It was heeded: it shall not be delivered. */
void vc_signal_take(void);

#endif /* VC_FILE_H */
