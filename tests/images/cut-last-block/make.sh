# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A last block cut at the end of the disk, as old writers leave it.

image bad.vhdx '{"type": "fixed", "size": "3M", "block_size": "2M", "seed": 2}'
truncate -s -1M bad.vhdx
