/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The parent locator that a child of an image is to have. */
#ifndef VC_LOCATE_H
#define VC_LOCATE_H

#include "image.h"

/**
 * vc_locate() - say who a child's parent is and where
 * @path: of the child, which need not be there; its directory must
 * @base: the parent
 * @result: to be freed with vc_locator_free(), also after an error
 * @err: filled in on error
 */
int vc_locate(const char *path, const struct vc_image *base, struct vc_locator **result,
	      struct vc_err *err);

#endif /* VC_LOCATE_H */
