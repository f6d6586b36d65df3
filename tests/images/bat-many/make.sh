# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# More faults than anybody wants to read.

image base.vhdx '{"type": "dynamic", "size": "128M", "block_size": "1M", "seed": 1}'
image bad.vhdx '{"size": "128M", "block_size": "1M", "parent": "base.vhdx", "seed": 2}'
for i in {0..59}; do
	fields+=("bat[$i]=0x500001")
done
set_field bad.vhdx "${fields[@]}"
