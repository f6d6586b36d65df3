# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Partial blocks that have no sector, and all of them.

image base.vhdx '{"type": "dynamic", "size": "16M", "block_size": "2M", "seed": 1}'
image bad.vhdx '{"size": "16M", "block_size": "2M", "parent": "base.vhdx", "seed": 2,
	"blocks": {"0": {"state": 7, "sectors": []}, "1": {"state": 7, "sectors": [[0, 4096]]}}}'
