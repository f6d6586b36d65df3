/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Loop devices.  Only loop.c talks to them. */
#ifndef VC_LOOP_H
#define VC_LOOP_H

#include "file.h"

/**
 * struct vc_loop - a loop device that is held open
 * @fd: -1 if there is none; while it is open the device stays
 * @device: its number
 * @name: "/dev/loop7"
 */
struct vc_loop {
	int fd;
	dev_t device;
	char name[64];
};

#define VC_LOOP_NONE	{ .fd = -1 }

/**
 * struct vc_loop_info - what is behind a loop device
 * @dev: st_dev of the backing file
 * @ino: its inode
 * @rdev: the backing device's number, if it is one
 * @read_only: the loop device is
 * @direct_io: it goes around the page cache
 * @autoclear: it goes away with its last user
 * @whole: it shows all of the file, from its start
 * @size: bytes
 * @sector_size: logical sector size
 */
struct vc_loop_info {
	dev_t dev;
	ino_t ino;
	dev_t rdev;
	bool read_only;
	bool direct_io;
	bool autoclear;
	bool whole;
	u64 size;
	u32 sector_size;
};

/**
 * vc_loop_attach() - attach a loop device that goes away with its last user
 * @loop: result, to be closed with vc_loop_close()
 * @file: what to attach; its descriptor says whether it can be written
 * @direct_io: try to go around the page cache
 * @sector_size: logical sector size
 * @err: filled in on error
 */
int vc_loop_attach(struct vc_loop *loop, const struct vc_file *file, bool direct_io,
		   u32 sector_size, struct vc_err *err);

/*
 * Does direct I/O really work there?  The loop driver believes a filesystem that says
 * so, overlayfs says so for what is below, and then each read fails.
 */
bool vc_loop_direct_works(const struct vc_file *file);

/**
 * vc_loop_find() - a loop device that shows the whole file already
 * @loop: result if found, open read-only, to be closed with vc_loop_close()
 * @read_only: which kind is wanted
 * @sector_size: which is wanted
 *
 * Return: whether there is one.
 */
bool vc_loop_find(struct vc_loop *loop, const struct vc_file *file, bool read_only,
		  u32 sector_size);
void vc_loop_close(struct vc_loop *loop);

/**
 * vc_loop_info() - look behind a device
 * Return: 0, or -ENODEV if it is not a loop device in use (no message then).
 */
int vc_loop_info(dev_t device, struct vc_loop_info *info, struct vc_err *err);

/* The path of the backing file as the kernel prints it now, to be freed, or NULL. */
char *vc_loop_backing_path(dev_t device);

/* Is this a loop device over that file or device? */
bool vc_loop_is_over(const struct vc_loop_info *info, const struct vc_file *file);

/* Wait for a device that clears itself.  Return: false if it is still there. */
bool vc_loop_wait_gone(dev_t device, const struct vc_file *file);

#endif /* VC_LOOP_H */
