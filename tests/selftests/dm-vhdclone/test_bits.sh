#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Sector bitmaps: runs of any length and alignment, blocks that become complete in any
# order, and those that only seem to.
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

# setup(size, block size)
setup() {
	raw base 16 BASE
	image delta '{"size": "'"$1"'", "block_size": "'"$2"'", "free": "40M"}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	LINE=$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")")
	activate d "$LINE"
}

# matches now, after a flush in the image in use, and after the close
check() {
	matches d
	io d f
	vx check --quiet "$TMP/delta.vhdx"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	deactivate d
	good "$TMP/delta.vhdx"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# Ends and lengths around words of 64 bits, some of them over what is there already
test_lengths() {
	local at=0 nr cmds=() n=0
	setup 16M 2M
	for nr in 1 63 64 65 127 128 129 191 255 256 257 320 321 511 512 513 1024 1500; do
		cmds+=("w:$at:$nr:L$nr" "w:$((32767 - at - nr)):$nr:H$nr")
		# The next one begins anywhere in a word, and leaves a gap or none.
		at=$((at + nr + n++ % 3))
	done
	both d "${cmds[@]}"
	matches d
	both d w:100:300:AGAIN w:64:64:WORD w:4000:200:EDGE w:32000:768:END
	check
}

# A block that is written in pieces is complete with the last of them, whichever it is
test_complete() {
	local b order=() k
	setup 16M 2M
	for ((b = 0; b < 8; b++)); do
		case $b in
		0)	order=(0 1 2 3 4 5 6 7) ;;
		1)	order=(7 6 5 4 3 2 1 0) ;;
		2)	order=(0 2 4 6 1 3 5 7) ;;
		3)	order=(7 0 6 1 5 2 4 3) ;;
		4)	order=(0 1 2 3 5 6 7) ;;
		5)	order=(1 2 3 4 5 6 7) ;;
		6)	order=(0 1 2 3 4 5 6) ;;
		7)	order=(4 5 6 7 0 1 2 3) ;;
		esac
		for k in "${order[@]}"; do
			both d "w:$((b * 4096 + k * 512)):512:P$k"
		done
	done
	check
	states "$TMP/delta.vhdx" 0 7 66667776
}

# The last block ends inside a word, and is complete all the same
test_last_block() {
	local nr
	for nr in 1 100 2000; do
		setup "$((5 * 1048576 + nr * 512))" 1M
		[ "$nr" = 1 ] || both d "w:$((5 * MIB)):$((nr / 2)):A" \
			"w:$((5 * MIB + nr / 2)):$((nr - nr / 2 - 1)):B"
		both d "w:$((5 * MIB + nr - 1)):1:C"
		check
		states "$TMP/delta.vhdx" 5 5 6
		cleanup
	done
}

# What was a run in a block's earlier life is none now
test_second_life() {
	setup 16M 2M
	both d "w:0:2048:A" "w:2048:2048:B" f
	io d "d:0:4096" f f
	# The last two words: nothing else is here.
	io d "w:3968:64:X" "w:4032:64:Y" f
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	io d r:0:3968:BASE
	deactivate d
	good "$TMP/delta.vhdx"
	states "$TMP/delta.vhdx" 0 0 7
	activate d "$LINE"
	io d r:0:3968:BASE r:3968:64:X r:4032:64:Y
}

# With blocks of several bitmap pages
test_big_blocks() {
	raw base 64 BASE
	image delta '{"size": "64M", "block_size": "32M", "free": "140M"}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	activate d "$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")")"
	local at cmds=()
	for ((at = 0; at < 65536; at += 4096)); do
		cmds+=("w:$at:4096:L")
	done
	# The second one has a page that is complete, and one that isn't.
	for ((at = 65536 + 32768; at < 131072; at += 4096)); do
		cmds+=("w:$at:4096:L")
	done
	both d "${cmds[@]}" w:65536:64:X
	check
	states "$TMP/delta.vhdx" 0 1 67
}

run_tests "$@"
