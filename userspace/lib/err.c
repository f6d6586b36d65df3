// SPDX-License-Identifier: GPL-2.0-or-later
/* Errors: see err.h. */
#include <stdarg.h>
#include <stdio.h>

#include "err.h"

static void vc_error_vadd(struct vc_err *err, const char *fmt, va_list ap)
{
	size_t used = strlen(err->msg);

	vsnprintf(err->msg + used, sizeof(err->msg) - used, fmt, ap);
}

void vc_error_append(struct vc_err *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vc_error_vadd(err, fmt, ap);
	va_end(ap);
}

static void vc_error_start(struct vc_err *err, int errnum, const char *path)
{
	size_t len = path ? strlen(path) : 0;

	err->errnum = errnum;
	err->msg[0] = '\0';
	/* What is wrong must still find room. */
	if (len > VC_ERR_PATH_MAX)
		vc_error_append(err, "...%s: ", path + len - VC_ERR_PATH_MAX);
	else if (path)
		vc_error_append(err, "%s: ", path);
}

int vc_error(struct vc_err *err, int errnum, const char *path, const char *fmt, ...)
{
	va_list ap;

	vc_error_start(err, errnum, path);
	va_start(ap, fmt);
	vc_error_vadd(err, fmt, ap);
	va_end(ap);
	return -errnum;
}

int vc_error_sys(struct vc_err *err, int errnum, const char *path, const char *fmt, ...)
{
	va_list ap;

	vc_error_start(err, errnum, path);
	va_start(ap, fmt);
	vc_error_vadd(err, fmt, ap);
	va_end(ap);
	vc_error_append(err, ": %s", strerror(errnum));
	return -errnum;
}

int vc_error_fault(struct vc_err *err, int ret, const char *path,
		   const struct vhdx_fault *fault)
{
	vc_error(err, -ret, path, "%s (offset %llu", fault->what, fault->offset);
	if (fault->value)
		vc_error_append(err, ", value 0x%llx", fault->value);
	vc_error_append(err, ")");
	return ret;
}

int vc_error_nomem(struct vc_err *err)
{
	return vc_error(err, ENOMEM, NULL, "out of memory");
}

enum vc_exit vc_exit_code(int ret)
{
	switch (-ret) {
	case 0:
		return VC_EXIT_OK;
	case EPERM:
	case EACCES:
	case EROFS:
		return VC_EXIT_PERMISSION;
	case ENOMEM:
		return VC_EXIT_MEMORY;
	case EBUSY:
	case EEXIST:
	case EAGAIN:
	case ETXTBSY:
		return VC_EXIT_BUSY;
	case ESTALE:
		return VC_EXIT_MISMATCH;
	case ENOSPC:
	case EDQUOT:
	case EFBIG:
		return VC_EXIT_NO_SPACE;
	case EINTR:
		return VC_EXIT_RESUMABLE;
	default:
		return VC_EXIT_WRONG;
	}
}
