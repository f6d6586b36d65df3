/* SPDX-License-Identifier: (GPL-2.0-only OR GPL-2.0-or-later) */
/*
 * What the dm target "vhdclone" and its users agree on: names, the table line,
 * the status line, messages.  The only place where this grammar is written.
 *
 * Table (design: one flat chain, layer 0 on top, the only one ever written):
 *
 *   <start> <length> vhdclone <#layers> <layer 0> ... <layer n-1>
 *                             [<#feature args> <feature arg>...]
 *
 *   layer := vhdx <dev> <virtual sectors> <block sectors>
 *                 <logical sector size in bytes>
 *                 <BAT sector> <log sector> <log sectors>
 *          | vhd <dev> <virtual sectors> <block sectors> <BAT sector>
 *          | raw <dev> <first sector> <sectors>
 *
 *   "sectors" are 512 bytes.  A vhd layer is a dynamic or differencing one, never
 *   the first; its blocks have 128 sectors or more.  A raw layer can only be the
 *   last one, and not the first.
 *   At most VHDCLONE_MAX_LAYERS layers.
 *
 *   feature args:
 *     read_only                  never write, not even the header
 *     low_water_mark <blocks>    raise a dm event when fewer blocks are free
 *     no_discard_passdown        do not discard released space on the delta
 *
 * Status (fields are only ever appended):
 *
 *   <block sectors> <present blocks>/<total blocks> <partial blocks>
 *   <free sectors> <dirty pages> <used log pages>/<total log pages>
 *   <commits> <errors> <mode>
 *
 *   mode := rw | ro | out_of_space | fail ; a table that was not resumed yet
 *   prints "-" for each number that it cannot know.  "pages" are 4096 bytes.
 *
 * Messages:
 *
 *   commit        make everything that completed durable; returns when it is
 *   stats         print "<name> <value>" pairs, see VHDCLONE_STATS
 *   reset_stats   zero them
 */
#ifndef DM_VHDCLONE_IF_H
#define DM_VHDCLONE_IF_H

#define VHDCLONE_TARGET_NAME		"vhdclone"
#define VHDCLONE_MODULE_NAME		"dm-vhdclone"
#define VHDCLONE_VERSION_MAJOR		1
#define VHDCLONE_VERSION_MINOR		0
#define VHDCLONE_VERSION_PATCH		0

/* "VHDCLONE-" and the delta's VirtualDiskId or a random UUID, as libdevmapper wants it. */
#define VHDCLONE_UUID_PREFIX		"VHDCLONE-"

#define VHDCLONE_MAX_LAYERS		256
#define VHDCLONE_LAYER_VHDX		"vhdx"
#define VHDCLONE_LAYER_VHDX_ARGS	7	/* after the word "vhdx" */
#define VHDCLONE_LAYER_VHD		"vhd"
#define VHDCLONE_LAYER_VHD_ARGS		4	/* after the word "vhd" */
#define VHDCLONE_LAYER_VHD_MIN_BLOCK	128	/* sectors; bounds what a map takes */
#define VHDCLONE_LAYER_RAW		"raw"
#define VHDCLONE_LAYER_RAW_ARGS		3	/* after the word "raw" */

#define VHDCLONE_FEATURE_READ_ONLY	"read_only"
#define VHDCLONE_FEATURE_LOW_WATER	"low_water_mark"
#define VHDCLONE_FEATURE_NO_PASSDOWN	"no_discard_passdown"
#define VHDCLONE_MAX_FEATURE_ARGS	4

#define VHDCLONE_MODE_RW		"rw"
#define VHDCLONE_MODE_RO		"ro"
#define VHDCLONE_MODE_OUT_OF_SPACE	"out_of_space"
#define VHDCLONE_MODE_FAIL		"fail"

#define VHDCLONE_MSG_COMMIT		"commit"
#define VHDCLONE_MSG_STATS		"stats"
#define VHDCLONE_MSG_RESET_STATS	"reset_stats"

#endif /* DM_VHDCLONE_IF_H */
