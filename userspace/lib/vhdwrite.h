/* SPDX-License-Identifier: GPL-2.0-or-later */
/* New images of VHD, version 1: fixed and dynamic. */
#ifndef VC_VHDWRITE_H
#define VC_VHDWRITE_H

#include "copy.h"
#include "vhd-format.h"

/**
 * struct vc_vhd_target - into a dynamic VHD
 * @target: for struct vc_copy
 * @file: new and empty
 * @size: of the disk, bytes
 * @nr_blocks: of the disk
 * @bat: sector of each block
 * @end: of what the file has so far
 */
struct vc_vhd_target {
	struct vc_target target;
	struct vc_file *file;
	u64 size;
	u32 nr_blocks;
	__be32 *bat;
	u64 end;
};

/* Can there be a VHD of this disk? */
int vc_vhd_possible(const char *path, u64 size, u32 sector_size, struct vc_err *err);

int vc_vhd_target_init(struct vc_vhd_target *to, struct vc_file *file, u64 size,
		       struct vc_err *err);

/* Write all but the blocks; nothing is flushed. */
int vc_vhd_target_finish(struct vc_vhd_target *to, struct vc_err *err);
void vc_vhd_target_free(struct vc_vhd_target *to);

/* The footer of a fixed image, behind the disk. */
int vc_vhd_fixed_finish(struct vc_file *file, u64 size, struct vc_err *err);

#endif /* VC_VHDWRITE_H */
