// SPDX-License-Identifier: GPL-2.0-or-later
/* Keeping a base as it is: see protect.h. */
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "protect.h"

#define VC_MODE_WRITE	0222

int vc_protection(const struct vc_file *file, struct vc_protection *state,
		  struct vc_err *err)
{
	int read_only = 0;
	struct stat st;
	int flags = 0;

	*state = (struct vc_protection){ .is_block = file->is_block };
	if (file->is_block) {
		if (ioctl(file->fd, BLKROGET, &read_only))
			return vc_error_sys(err, errno, file->path,
					    "cannot ask whether the device is read-only");
		state->read_only = read_only;
		return 0;
	}
	if (fstat(file->fd, &st))
		return vc_error_sys(err, errno, file->path, "cannot stat");
	state->mode = st.st_mode & 07777;
	if (ioctl(file->fd, FS_IOC_GETFLAGS, &flags))
		state->immutable_errno = EOPNOTSUPP;
	state->immutable = flags & FS_IMMUTABLE_FL;
	return 0;
}

/* Return: 0, or a negative errno without a message; -EOPNOTSUPP: there is no such flag. */
static int vc_set_immutable(const struct vc_file *file, bool immutable)
{
	int flags;

	if (ioctl(file->fd, FS_IOC_GETFLAGS, &flags))
		return -EOPNOTSUPP;
	if (!(flags & FS_IMMUTABLE_FL) == !immutable)
		return 0;
	flags ^= FS_IMMUTABLE_FL;
	if (!ioctl(file->fd, FS_IOC_SETFLAGS, &flags))
		return 0;
	return errno == ENOTTY ? -EOPNOTSUPP : -errno;
}

static int vc_protect_device(const struct vc_file *file, bool protect, struct vc_err *err)
{
	int read_only = protect;

	if (ioctl(file->fd, BLKROSET, &read_only))
		return vc_error_sys(err, errno, file->path, "cannot make the device %s",
				    protect ? "read-only" : "writable");
	return 0;
}

static int vc_protect_mode(const struct vc_file *file, mode_t mode, struct vc_err *err)
{
	if (fchmod(file->fd, mode))
		return vc_error_sys(err, errno, file->path, "cannot set the mode to %04o", mode);
	return 0;
}

int vc_protect(const struct vc_file *file, bool protect, struct vc_protection *state,
	       struct vc_err *err)
{
	int flag = 0;
	int ret;

	ret = vc_protection(file, state, err);
	if (ret)
		return ret;
	if (file->is_block) {
		ret = vc_protect_device(file, protect, err);
		return ret ? ret : vc_protection(file, state, err);
	}
	/* An immutable file has a mode that nobody can change. */
	if (!protect) {
		flag = vc_set_immutable(file, false);
		if (flag && flag != -EOPNOTSUPP)
			return vc_error_sys(err, -flag, file->path,
					    "cannot clear the immutable flag");
		ret = vc_protect_mode(file, state->mode | 0200, err);
	} else if (!state->immutable) {
		ret = vc_protect_mode(file, state->mode & ~VC_MODE_WRITE, err);
		if (!ret)
			flag = vc_set_immutable(file, true);
	} else if (state->mode & VC_MODE_WRITE) {
		return vc_error(err, EPERM, file->path,
				"immutable, but of mode %04o: 'chattr -i' it, then protect it again",
				state->mode);
	}
	if (!ret)
		ret = vc_protection(file, state, err);
	if (!ret)
		state->immutable_errno = -flag;
	return ret;
}
