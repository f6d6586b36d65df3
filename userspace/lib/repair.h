/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Mending what has one right answer. */
#ifndef VC_REPAIR_H
#define VC_REPAIR_H

#include "check.h"

/**
 * struct vc_repair - one repair
 * @fn: called for each finding of the check before
 * @data: for @fn
 * @undo_path: where the undo file is to be
 * @nr_repaired: findings that are no more
 * @nr_left: errors that have no one right answer
 * @refused: findings that were left because of those errors
 */
struct vc_repair {
	vc_finding_fn fn;
	void *data;
	const char *undo_path;
	unsigned int nr_repaired;
	unsigned int nr_left;
	unsigned int refused;
};

/**
 * vc_repair_image() - check an image, and repair what can be
 * @path: where
 * @repair: how, and the result
 * @err: filled in on error
 *
 * Repaired are: a copy of the header or of the region table that is damaged; places of
 * blocks that are not there; bitmap blocks that no block uses; a file that ends inside
 * its last block; space that nothing refers to.  If there is an error that cannot be
 * repaired, only the copies are: what looks like free space may be what that error has
 * lost.
 *
 * An image without anything to repair is not written, and has no undo file.
 */
int vc_repair_image(const char *path, struct vc_repair *repair, struct vc_err *err);

#endif /* VC_REPAIR_H */
