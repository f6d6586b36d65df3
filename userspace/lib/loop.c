// SPDX-License-Identifier: GPL-2.0-or-later
/* Loop devices: see loop.h. */
#define _GNU_SOURCE
#include <dirent.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <linux/major.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <time.h>
#include <unistd.h>

#include "loop.h"

#define VC_LOOP_CONTROL		"/dev/loop-control"
#define VC_LOOP_TRIES		64
#define VC_LOOP_WAIT_MS		2000

static void vc_sleep_ms(unsigned int ms)
{
	struct timespec ts = { .tv_nsec = ms * 1000000L };

	nanosleep(&ts, NULL);
}

void vc_loop_close(struct vc_loop *loop)
{
	if (loop->fd >= 0)
		close(loop->fd);
	loop->fd = -1;
}

/* Open a node that must be a loop device. */
static int vc_loop_open(struct vc_loop *loop, unsigned int number, int flags)
{
	struct stat st;
	int ret;

	snprintf(loop->name, sizeof(loop->name), "/dev/loop%u", number);
	loop->fd = open(loop->name, flags | O_CLOEXEC | O_NONBLOCK);
	if (loop->fd < 0)
		return -errno;
	if (!fstat(loop->fd, &st) && S_ISBLK(st.st_mode) && major(st.st_rdev) == LOOP_MAJOR) {
		loop->device = st.st_rdev;
		return 0;
	}
	ret = -ENODEV;
	vc_loop_close(loop);
	return ret;
}

static int vc_loop_configure(struct vc_loop *loop, const struct vc_file *file,
			     bool direct_io, u32 sector_size)
{
	struct loop_config config = {
		.fd = file->fd,
		.block_size = sector_size,
		.info.lo_flags = LO_FLAGS_AUTOCLEAR,
	};

	if (!file->writable)
		config.info.lo_flags |= LO_FLAGS_READ_ONLY;
	if (direct_io)
		config.info.lo_flags |= LO_FLAGS_DIRECT_IO;
	snprintf((char *)config.info.lo_file_name, LO_NAME_SIZE, "%s", file->real);
	return ioctl(loop->fd, LOOP_CONFIGURE, &config) ? -errno : 0;
}

bool vc_loop_direct_works(const struct vc_file *file)
{
	char path[sizeof("/proc/self/fd/") + 3 * sizeof(int)];
	void *buf = NULL;
	bool works;
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file->fd);
	fd = open(path, O_RDONLY | O_DIRECT | O_CLOEXEC);
	if (fd < 0)
		return false;
	works = !posix_memalign(&buf, VHDX_PAGE_SIZE, VHDX_PAGE_SIZE) &&
		pread(fd, buf, VHDX_PAGE_SIZE, 0) >= 0;
	free(buf);
	close(fd);
	return works;
}

int vc_loop_attach(struct vc_loop *loop, const struct vc_file *file, bool direct_io,
		   u32 sector_size, struct vc_err *err)
{
	int control;
	int number;
	int tries;
	bool again = true;
	int ret = 0;

	loop->fd = -1;
	control = open(VC_LOOP_CONTROL, O_RDWR | O_CLOEXEC);
	if (control < 0)
		return vc_error_sys(err, errno, VC_LOOP_CONTROL, "cannot open");

	/* Another process may take the free one before we do. */
	for (tries = 0; tries < VC_LOOP_TRIES && again; tries++) {
		number = ioctl(control, LOOP_CTL_GET_FREE);
		if (number < 0) {
			ret = -errno;
			break;
		}
		ret = vc_loop_open(loop, number, file->writable ? O_RDWR : O_RDONLY);
		/* The node is made by devtmpfs or udev, perhaps not yet. */
		if (ret == -ENOENT || ret == -ENXIO) {
			vc_sleep_ms(10);
			continue;
		}
		if (ret)
			break;
		ret = vc_loop_configure(loop, file,
					direct_io && vc_loop_direct_works(file), sector_size);
		if (ret)
			vc_loop_close(loop);
		/* Or udev has it open for a moment. */
		again = ret == -EBUSY;
		if (again)
			vc_sleep_ms(tries);
	}
	close(control);
	if (ret)
		return vc_error_sys(err, -ret, file->path, "cannot attach a loop device");
	return 0;
}

static int vc_loop_status(int fd, struct vc_loop_info *info)
{
	struct loop_info64 status;
	int sector_size = 0;
	u64 size = 0;

	if (ioctl(fd, LOOP_GET_STATUS64, &status) || ioctl(fd, BLKGETSIZE64, &size) ||
	    ioctl(fd, BLKSSZGET, &sector_size))
		return -errno;
	info->dev = status.lo_device;
	info->ino = status.lo_inode;
	info->rdev = status.lo_rdevice;
	info->read_only = status.lo_flags & LO_FLAGS_READ_ONLY;
	info->direct_io = status.lo_flags & LO_FLAGS_DIRECT_IO;
	info->autoclear = status.lo_flags & LO_FLAGS_AUTOCLEAR;
	info->whole = !status.lo_offset && !status.lo_sizelimit;
	info->size = size;
	info->sector_size = sector_size;
	return 0;
}

int vc_loop_info(dev_t device, struct vc_loop_info *info, struct vc_err *err)
{
	struct vc_loop loop = VC_LOOP_NONE;
	int ret;

	if (major(device) != LOOP_MAJOR)
		return -ENODEV;
	ret = vc_loop_open(&loop, minor(device), O_RDONLY);
	if (ret == -ENOENT || ret == -ENXIO)
		return -ENODEV;
	if (ret)
		return vc_error_sys(err, -ret, loop.name, "cannot open");
	if (loop.device != device)
		ret = -ENODEV;
	else
		ret = vc_loop_status(loop.fd, info);
	vc_loop_close(&loop);
	if (ret == -ENXIO)
		ret = -ENODEV;
	if (ret && ret != -ENODEV)
		vc_error_sys(err, -ret, loop.name, "cannot read the status");
	return ret;
}

bool vc_loop_is_over(const struct vc_loop_info *info, const struct vc_file *file)
{
	if (!info->whole)
		return false;
	if (file->is_block)
		return info->rdev == file->rdev;
	return info->dev == file->dev && info->ino == file->ino && !info->rdev;
}

/* Is a loop device with this number in use?  Without opening it. */
static bool vc_loop_in_use(unsigned int number)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/block/loop%u/loop/backing_file", number);
	return !access(path, F_OK);
}

/*
 * Device-mapper shares a device between its own, but not with a file system that is
 * mounted from it.
 */
static bool vc_loop_sharable(const struct vc_loop *loop)
{
	struct dirent *entry;
	bool held = false;
	char path[64];
	DIR *dir;
	int fd;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/holders", major(loop->device),
		 minor(loop->device));
	dir = opendir(path);
	while (dir && (entry = readdir(dir)))
		if (!strncmp(entry->d_name, "dm-", 3))
			held = true;
	if (dir)
		closedir(dir);
	if (held)
		return true;
	fd = open(loop->name, O_RDONLY | O_EXCL | O_CLOEXEC);
	if (fd >= 0)
		close(fd);
	return fd >= 0;
}

bool vc_loop_find(struct vc_loop *loop, const struct vc_file *file, bool read_only,
		  u32 sector_size)
{
	struct vc_loop_info info;
	struct dirent *entry;
	unsigned int number;
	bool found = false;
	DIR *dir;

	loop->fd = -1;
	dir = opendir("/sys/block");
	if (!dir)
		return false;
	while (!found && (entry = readdir(dir))) {
		if (sscanf(entry->d_name, "loop%u", &number) != 1 || !vc_loop_in_use(number) ||
		    vc_loop_open(loop, number, O_RDONLY))
			continue;
		found = !vc_loop_status(loop->fd, &info) && vc_loop_is_over(&info, file) &&
			info.read_only == read_only && info.sector_size == sector_size &&
			info.size == file->size - file->size % 512 &&
			vc_loop_sharable(loop);
		if (!found)
			vc_loop_close(loop);
	}
	closedir(dir);
	return found;
}

char *vc_loop_backing_path(dev_t device)
{
	char path[64];
	char *line = NULL;
	size_t room = 0;
	ssize_t n;
	FILE *in;

	snprintf(path, sizeof(path), "/sys/dev/block/%u:%u/loop/backing_file", major(device),
		 minor(device));
	in = fopen(path, "re");
	if (!in)
		return NULL;
	n = getline(&line, &room, in);
	fclose(in);
	if (n <= 0) {
		free(line);
		return NULL;
	}
	if (line[n - 1] == '\n')
		line[n - 1] = '\0';
	return line;
}

bool vc_loop_wait_gone(dev_t device, const struct vc_file *file)
{
	struct vc_loop_info info;
	struct vc_err ignored;
	int ms;

	for (ms = 0; ms <= VC_LOOP_WAIT_MS; ms += 10) {
		if (vc_loop_info(device, &info, &ignored) || !vc_loop_is_over(&info, file))
			return true;
		vc_sleep_ms(10);
	}
	return false;
}
