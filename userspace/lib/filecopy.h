/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A file byte for byte: shared where the file system can, holes kept. */
#ifndef VC_FILECOPY_H
#define VC_FILECOPY_H

#include "file.h"
#include "progress.h"

/**
 * vc_file_copy() - copy a file or device into an empty file
 * @from: what
 * @to: where; it becomes as long
 * @progress: or NULL; counts the bytes of data
 * @shared: result: nothing was copied, both have one space
 * @err: filled in on error; EINTR: the progress said so
 *
 * Nothing is flushed.
 */
int vc_file_copy(const struct vc_file *from, struct vc_file *to,
		 struct vc_progress *progress, bool *shared, struct vc_err *err);

#endif /* VC_FILECOPY_H */
