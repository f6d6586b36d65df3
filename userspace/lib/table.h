/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The table and the status line of the target: see dm-vhdclone-if.h. */
#ifndef VC_TABLE_H
#define VC_TABLE_H

#include <sys/types.h>

#include "chain.h"

/* Has the target a kind of layer for each of the chain's?  EOPNOTSUPP if not. */
int vc_table_possible(const struct vc_chain *chain, struct vc_err *err);

/**
 * vc_table_build() - the arguments of the target for a chain
 * @chain: the layers
 * @device: their block devices, @chain->nr of them
 * @read_only: never write
 * @params: result, to be freed
 */
int vc_table_build(const struct vc_chain *chain, const dev_t *device, bool read_only,
		   char **params, struct vc_err *err);

static inline u64 vc_table_sectors(const struct vc_chain *chain)
{
	return chain->layer[0]->meta.virtual_size / 512;
}

/* One layer of a table line that is active. */
struct vc_table_layer {
	bool raw;
	bool vhd;
	dev_t device;
	u64 sectors;
};

struct vc_table {
	unsigned int nr;
	bool read_only;
	struct vc_table_layer layer[VHDCLONE_MAX_LAYERS];
};

int vc_table_parse(const char *params, struct vc_table *table, struct vc_err *err);

#define VC_STATUS_UNKNOWN	(~0ULL)		/* the target printed "-" */

struct vc_status {
	u64 block_sectors;
	u64 present_blocks;
	u64 total_blocks;
	u64 partial_blocks;
	u64 free_sectors;
	u64 dirty_pages;
	u64 used_log_pages;
	u64 total_log_pages;
	u64 commits;
	u64 errors;
	char mode[32];
};

int vc_status_parse(const char *line, struct vc_status *status, struct vc_err *err);

#endif /* VC_TABLE_H */
