# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A file cut inside a block's last MiB: data is lost.

image bad.vhdx '{"type": "fixed", "size": "4M", "block_size": "2M", "seed": 2}'
truncate -s -512K bad.vhdx
