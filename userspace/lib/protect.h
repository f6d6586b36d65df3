/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Keeping a base as it is.  A file loses all permissions to write, which this tool
 * respects even as root, and gets the immutable flag, if the file system has it; then
 * it cannot be deleted or renamed either.  A block device is made read-only, until the
 * next boot.
 */
#ifndef VC_PROTECT_H
#define VC_PROTECT_H

#include <sys/types.h>

#include "file.h"

/**
 * struct vc_protection - how an image is protected
 * @is_block: it is a device: @read_only counts, else the others
 * @mode: permission bits
 * @immutable: the flag is set
 * @immutable_errno: why it could not be changed: EOPNOTSUPP: there is no such flag
 * @read_only: the device is
 */
struct vc_protection {
	bool is_block;
	mode_t mode;
	bool immutable;
	int immutable_errno;
	bool read_only;
};

int vc_protection(const struct vc_file *file, struct vc_protection *state,
		  struct vc_err *err);

/*
 * Protect or unprotect; @state is what became of it.  Unprotected, the owner may write.
 * That the immutable flag cannot be set is no error; that it cannot be cleared is.
 */
int vc_protect(const struct vc_file *file, bool protect, struct vc_protection *state,
	       struct vc_err *err);

#endif /* VC_PROTECT_H */
