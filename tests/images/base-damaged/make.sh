# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The fault is in the base.

image base.vhdx '{"type": "dynamic", "size": "16M", "block_size": "2M", "seed": 1, "blocks": {"0": 6}}'
image bad.vhdx '{"size": "16M", "block_size": "2M", "parent": "base.vhdx", "seed": 2,
	"blocks": {"0": {"state": 7, "sectors": [[0, 5], [9, 100]]},
	"1-2": {"state": 6, "fill": {"tag": "x"}}, "4": 2}}'
set_field base.vhdx 'block[0].state=5'
