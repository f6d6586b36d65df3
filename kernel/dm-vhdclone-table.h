/* SPDX-License-Identifier: GPL-2.0-only */
/* Parsing a table: only what needs no device. */
#ifndef DM_VHDCLONE_TABLE_H
#define DM_VHDCLONE_TABLE_H

#include <linux/device-mapper.h>
#include <linux/kernel.h>
#include <linux/string.h>

#include "dm-vhdclone-if.h"
#include "vhd-format.h"

/* 1 MiB in sectors. */
#define MIB_SECTOR_SHIFT	(VHDX_MIB_SHIFT - SECTOR_SHIFT)

/**
 * struct vc_layer_args - a layer as the table names it
 * @raw: a raw window; then only @first and @sectors count
 * @vhd: a VHD; then only @sectors, @block_sectors and @bat do; @sector_size is 512
 * @first: first sector of the window
 * @sectors: virtual size
 * @block_sectors: block size
 * @sector_size: logical sector size in bytes
 * @bat, @log, @log_sectors: where the table says these are
 */
struct vc_layer_args {
	bool raw;
	bool vhd;
	sector_t first;
	sector_t sectors;
	u32 block_sectors;
	u32 sector_size;
	sector_t bat;
	sector_t log;
	sector_t log_sectors;
};

/**
 * struct vc_features - feature arguments
 */
struct vc_features {
	bool read_only;
	bool no_discard_passdown;
	bool has_low_water;
	u64 low_water_blocks;
};

/*
 * All of these take their words from @as.  Return: 0, or -EINVAL and one line in
 * @error.
 */
int vc_parse_nr_layers(struct dm_arg_set *as, unsigned int *nr_layers, char **error);

/* @path: result: the layer's device, a word of @as. */
int vc_parse_layer(struct dm_arg_set *as, struct vc_layer_args *args, const char **path,
		   char **error);

/* May layer @i of so many stand where it does?  @top: layer 0. */
int vc_check_layer(const struct vc_layer_args *args, unsigned int i,
		   unsigned int nr_layers, const struct vc_layer_args *top, char **error);

/* The rest of the words. */
int vc_parse_features(struct dm_arg_set *as, struct vc_features *features, char **error);

#endif /* DM_VHDCLONE_TABLE_H */
