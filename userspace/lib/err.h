/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * How the library reports errors: a negative errno as the return value, which is
 * the class of the error, and one message that names path, structure and offset
 * and says what to do next.  The library itself prints nothing.
 */
#ifndef VC_ERR_H
#define VC_ERR_H

#include "vhdx-format.h"

/* Exit codes of every verb but check. */
enum vc_exit {
	VC_EXIT_OK		= 0,
	VC_EXIT_USAGE		= 1,
	VC_EXIT_PERMISSION	= 2,
	VC_EXIT_MEMORY		= 3,
	VC_EXIT_WRONG		= 4,	/* device or image, or an I/O error */
	VC_EXIT_BUSY		= 5,	/* busy, exists, or children in the way */
	VC_EXIT_MISMATCH	= 6,	/* this is not the base that it was */
	VC_EXIT_NO_SPACE	= 7,
	VC_EXIT_RESUMABLE	= 8,	/* interrupted, start again to go on */
};

#define VC_ERR_MSG_MAX	1024
#define VC_ERR_PATH_MAX	400	/* of a longer path only the end is shown */

/**
 * struct vc_err - what went wrong
 * @errnum: positive errno; ESTALE means that a parent is not the one expected,
 *	    EUCLEAN that the log must be replayed first
 * @msg: one line, no newline
 */
struct vc_err {
	int errnum;
	char msg[VC_ERR_MSG_MAX];
};

#ifndef __printf
#define __printf(fmt, args)	__attribute((__format__(__printf__, fmt, args)))
#endif
#ifndef __always_unused
#define __always_unused		__attribute((__unused__))
#endif

/* Fill in @err with "PATH: message".  @path may be NULL.  Return: -@errnum. */
int vc_error(struct vc_err *err, int errnum, const char *path, const char *fmt, ...)
	__printf(4, 5);

/* The same with ": strerror(@errnum)" at the end. */
int vc_error_sys(struct vc_err *err, int errnum, const char *path, const char *fmt, ...)
	__printf(4, 5);

/* Turn a fault of the format code, which returned @ret, into an error. */
int vc_error_fault(struct vc_err *err, int ret, const char *path,
		   const struct vhdx_fault *fault);

int vc_error_nomem(struct vc_err *err);

/* Add to the message that is there, such as ": run this next". */
void vc_error_append(struct vc_err *err, const char *fmt, ...) __printf(2, 3);

/* The exit code for a negative errno. */
enum vc_exit vc_exit_code(int ret);

#endif /* VC_ERR_H */
