# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Bits of blocks that do not use them, as they stay from an earlier life.

image base.vhdx '{"type": "dynamic", "size": "16M", "block_size": "2M", "seed": 1}'
image bad.vhdx '{"size": "16M", "block_size": "2M", "parent": "base.vhdx", "seed": 2,
	"stale_bits": true, "tail_bits": true, "blocks": {"0": {"state": 7,
	"sectors": [[0, 5]]}, "1": {"state": 6, "fill": {"tag": "x"}}}}'
