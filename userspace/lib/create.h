/* SPDX-License-Identifier: GPL-2.0-or-later */
/* New images, written aside and complete before they get their name. */
#ifndef VC_CREATE_H
#define VC_CREATE_H

#include "chain.h"

enum vc_create_type {
	VC_CREATE_DIFFERENCING,
	VC_CREATE_DYNAMIC,
	VC_CREATE_FIXED,
};

#define VC_DEFAULT_BLOCK_SIZE	(2 * VHDX_MIB)
#define VC_DEFAULT_LOG_SIZE	VHDX_MIB

/**
 * struct vc_create_options - what to make
 * @type: of image
 * @virtual_size: bytes; 0: the base's
 * @block_size: bytes; 0: VC_DEFAULT_BLOCK_SIZE
 * @log_size: bytes; 0: VC_DEFAULT_LOG_SIZE
 * @logical_sector_size: 0: the base's, or 512
 * @physical_sector_size: 0: the base's, or 4096
 * @base: the chain that the image will stand on; NULL unless differencing
 * @into: an empty file that will get the path as its name: only write it
 * @force: overwrite
 * @creator: what to write as the creator
 */
struct vc_create_options {
	enum vc_create_type type;
	u64 virtual_size;
	u64 block_size;
	u64 log_size;
	u32 logical_sector_size;
	u32 physical_sector_size;
	const struct vc_chain *base;
	const struct vc_file *into;
	bool force;
	const char *creator;
};

/**
 * struct vc_created - what was made
 */
struct vc_created {
	u64 virtual_size;
	u64 file_size;
	u32 block_size;
};

/**
 * vc_create() - make an image at a path or on a block device
 *
 * A file appears under its name when it is complete and durable, or not at all.
 * On a device the file identifier is written last.  The list of the base's children
 * (children.h) is kept, as far as that can be done.
 */
int vc_create(const char *path, const struct vc_create_options *options,
	      struct vc_created *created, struct vc_err *err);

#endif /* VC_CREATE_H */
