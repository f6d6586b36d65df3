/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A new image with what a chain, or the top of one, reads as. */
#ifndef VC_CONVERT_H
#define VC_CONVERT_H

#include "copy.h"

enum vc_convert_type {
	VC_CONVERT_RAW,
	VC_CONVERT_FIXED,
	VC_CONVERT_DYNAMIC,
	VC_CONVERT_DIFFERENCING,
	VC_CONVERT_VHD_FIXED,
	VC_CONVERT_VHD_DYNAMIC,
	VC_CONVERT_TYPES
};

/* "raw", "fixed", "dynamic", "differencing", "vhd-fixed", "vhd-dynamic" */
extern const char * const vc_convert_names[VC_CONVERT_TYPES];

/**
 * struct vc_convert_options - what to make
 * @type: of the new image
 * @nr_layers: VC_CONVERT_DIFFERENCING: so many layers from the top are copied, what is
 *	       below them is the parent; else all are
 * @block_size: bytes; 0: as the top has it
 * @logical_sector_size: 0: as the top has it, or 512
 * @force: replace a file that is there
 * @creator: what to write as the creator
 * @progress: or NULL
 */
struct vc_convert_options {
	enum vc_convert_type type;
	unsigned int nr_layers;
	u64 block_size;
	u32 logical_sector_size;
	bool force;
	const char *creator;
	struct vc_progress *progress;
};

struct vc_converted {
	u64 virtual_size;
	u64 file_size;
	u64 bytes;		/* of data that were copied */
};

/**
 * vc_convert() - make it
 *
 * The file appears under its name when it is complete and durable, or not at all.
 */
int vc_convert(const struct vc_chain *chain, const char *path,
	       const struct vc_convert_options *options, struct vc_converted *converted,
	       struct vc_err *err);

#endif /* VC_CONVERT_H */
