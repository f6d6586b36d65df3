// SPDX-License-Identifier: GPL-2.0-or-later
/* A file byte for byte: see filecopy.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "copy.h"
#include "filecopy.h"

#define VC_COPY_BYTES	(8 * VHDX_MIB)

/* By hand, where the kernel does not: as a raw image. */
static int vc_file_copy_queue(const struct vc_file *from, struct vc_file *to,
			      struct vc_progress *progress, struct vc_err *err)
{
	struct vc_image image = { .file = *from, .format = VC_FORMAT_RAW, .size = from->size };
	struct vc_chain chain = { .nr = 1, .layer = { &image } };
	struct vc_raw_target raw;
	struct vc_copy copy = { .chain = &chain, .progress = progress };
	int ret;

	ret = vc_disk_open(&copy.disk, &chain, 0, 1, err);
	if (ret)
		return ret;
	vc_raw_target_init(&raw, to, true);
	copy.target = &raw.target;
	ret = vc_copy_run(&copy, err);
	vc_disk_close(copy.disk);
	return ret;
}

/* Return: 1 if the kernel cannot. */
static int vc_file_copy_piece(const struct vc_file *from, struct vc_file *to, u64 at,
			      size_t len, struct vc_err *err)
{
	loff_t in = at;
	loff_t out = at;
	ssize_t n;

	while (len) {
		n = copy_file_range(from->fd, &in, to->fd, &out, len, 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (!n || (n < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP)))
			return 1;
		if (n < 0)
			return vc_error_sys(err, errno, to->path,
					    "cannot copy (offset %llu)", (u64)in);
		len -= n;
	}
	return 0;
}

/* The data at or behind @at; false: there is none. */
static bool vc_file_data(const struct vc_file *file, u64 *at, u64 *end)
{
	off_t data = lseek(file->fd, *at, SEEK_DATA);
	off_t hole;

	*end = file->size;
	if (data < 0)
		return errno != ENXIO && *at < file->size;
	*at = data;
	hole = lseek(file->fd, data, SEEK_HOLE);
	if (hole > data && (u64)hole < file->size)
		*end = hole;
	return *at < file->size;
}

int vc_file_copy(const struct vc_file *from, struct vc_file *to,
		 struct vc_progress *progress, bool *shared, struct vc_err *err)
{
	u64 at = 0;
	u64 end;
	u64 n;
	int ret;

	*shared = !from->is_block && !ioctl(to->fd, FICLONE, from->fd);
	ret = vc_file_resize(to, from->size, err);
	if (*shared)
		return ret;
	while (!ret && vc_file_data(from, &at, &end)) {
		for (; at < end && !ret; at += n) {
			n = end - at < VC_COPY_BYTES ? end - at : VC_COPY_BYTES;
			ret = vc_file_copy_piece(from, to, at, n, err);
			if (!ret && vc_progress_step(progress, n))
				ret = vc_error(err, EINTR, to->path, "interrupted");
		}
	}
	/* It says so at the first of them. */
	if (ret > 0)
		ret = vc_file_copy_queue(from, to, progress, err);
	return ret;
}
