# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A bitmap block that no block needs.

image base.vhdx '{"type": "dynamic", "size": "16M", "block_size": "2M", "seed": 1}'
image bad.vhdx '{"size": "16M", "block_size": "2M", "parent": "base.vhdx", "seed": 2,
	"bitmaps": [0], "blocks": {"1": {"state": 6, "fill": {"tag": "x"}}}}'
