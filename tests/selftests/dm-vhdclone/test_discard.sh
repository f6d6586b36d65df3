#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Discard and write-zeroes, by the state of the block: whole blocks change their
# state, parts of blocks are no-ops (discard) or zeros (write-zeroes).
# Of the list in the project's kernel notes: 10 (discards that straddle blocks, from a
# dm-linear above), 20 (blkdiscard -z, fallocate).
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

F='"fill": {"tag": "OLD"}'
# Two of each kind: one to be changed as a whole, one in part
KINDS='"0": 0, "1": 0, "2": 2, "3": 2, "4": {"state": 6, '$F'}, "5": {"state": 6, '$F'},
	"6": {"state": 7, '$F', "sectors": [[0, 64], [1024, 512]]},
	"7": {"state": 7, '$F', "sectors": [[0, 64], [1024, 512]]},
	"8": {"state": 6, '$F'}, "9": {"state": 7, '$F', "sectors": [[7, 9]]}, "10": 1'

setup() {
	raw base 12 BASE
	image delta '{"size": "12M", "block_size": "1M", "free": "16M", "garbage": true,
		"blocks": {'"$KINDS"'}}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	LINE=$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")")
	activate d "$LINE"
}

# whole(letter, block...): one command for each whole block
whole() {
	local letter=$1 b
	shift
	for b; do
		echo "$letter:$((b * MIB)):$MIB"
	done
}

test_limits() {
	setup
	local queue
	queue=/sys/dev/block/$(devno "$(device d)")/queue
	same_text "$(<"$queue/discard_granularity")" 1048576 "discard_granularity"
	[ "$(<"$queue/discard_max_bytes")" -ge 1048576 ] || fail "discard_max_bytes"
	same_text "$(<"$queue/logical_block_size")" 512 "logical_block_size"
	same_text "$(<"$queue/write_cache")" "write back" "write_cache"
	same_text "$(<"$queue/dax")" 0 "dax"
}

# Whole blocks: what they hold then is undefined, but it is base, zeros or old data;
# design: NOT_PRESENT, which shows the base
test_discard_blocks() {
	local cmds
	setup
	mapfile -t cmds < <(whole d 0 2 4 6 10)
	io d "${cmds[@]}" f
	vx check --quiet "$TMP/delta.vhdx"
	# The others are as before.
	local b
	for b in 1 3 5 7 8 9 11; do
		"$ORACLE" cmp "$(device d)" "$TMP/expected.raw" $((b * MIB)) "$MIB"
	done
	deactivate d
	good "$TMP/delta.vhdx"
	states "$TMP/delta.vhdx" 0 11 '00[02]2060767[012]0'
	activate d "$LINE"
	io d r:$((4 * MIB)):"$MIB":BASE r:$((6 * MIB)):"$MIB":BASE
}

# Parts of blocks, and whole blocks with odd ends: only what is whole changes
test_discard_parts() {
	setup
	io d d:0:8 d:$((3 * MIB)):1024 d:$((5 * MIB + 8)):$((MIB - 8)) \
		d:$((7 * MIB)):64 d:$((7 * MIB + 1024)):1024 d:$((8 * MIB + 1)):$((2 * MIB - 2))
	matches d
	deactivate d
	good "$TMP/delta.vhdx"
	# Nothing was asked for that changes a bit.
	states "$TMP/delta.vhdx" 0 11 '0022667767[12]0'
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# Blocks 8 and 9 and a bit on both sides, through a linear device that starts in the
# middle of a block: nobody has aligned this
test_straddling() {
	setup
	activate lin "0 $((11 * MIB)) linear $(device d) 777"
	io lin "d:$((8 * MIB - 777 - 100)):$((2 * MIB + 300))" f
	local b
	for b in 0 1 2 3 4 5 6 7 10 11; do
		"$ORACLE" cmp "$(device d)" "$TMP/expected.raw" $((b * MIB)) "$MIB"
	done
	deactivate lin
	deactivate d
	good "$TMP/delta.vhdx"
	# The block layer has cut it where the linear device is aligned: in block 8.
	states "$TMP/delta.vhdx" 8 9 '[06]0'
	states "$TMP/delta.vhdx" 0 7 00226677
}

test_write_zeroes_blocks() {
	local cmds
	setup
	mapfile -t cmds < <(whole z 0 2 4 6 10)
	both d "${cmds[@]}"
	check
	# No data where a state can say it; 6 if the devices below cannot zero.
	states "$TMP/delta.vhdx" 0 10 '2022262767[12]|60[26]2666767[126]'
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

test_write_zeroes_parts() {
	setup
	both d z:100:50 z:$((3 * MIB + 7)):9 z:$((5 * MIB)):1024 z:$((7 * MIB + 32)):1100 \
		z:$((8 * MIB + 1)):$((3 * MIB))
	check
	states "$TMP/delta.vhdx" 7 7 7
	# ZERO may stay, but it may never become partial.
	states "$TMP/delta.vhdx" 3 3 '[26]'
}

# blkdiscard -z, fallocate: punch (zeros, may unmap) and zero range
test_user_space_paths() {
	need blkdiscard fallocate
	local dev
	setup
	dev=$(device d)
	blkdiscard -z -o $((4 << 20)) -l $((1 << 20)) "$dev"
	"$ORACLE" io "$TMP/expected.raw" "z:$((4 * MIB)):$MIB"
	matches d
	fallocate -z -o $((6 << 20)) -l $((1 << 20)) "$dev"
	"$ORACLE" io "$TMP/expected.raw" "z:$((6 * MIB)):$MIB"
	matches d
	if fallocate -p -o $((8 << 20)) -l $((2 << 20)) "$dev"; then
		"$ORACLE" io "$TMP/expected.raw" "z:$((8 * MIB)):$((2 * MIB))"
	fi
	matches d
	fallocate -z -o $((5 << 20)) -l 4096 "$dev"
	"$ORACLE" io "$TMP/expected.raw" "z:$((5 * MIB)):8"
	check
	activate d "$LINE"
	blkdiscard "$dev"
	deactivate d
	good "$TMP/delta.vhdx"
	states "$TMP/delta.vhdx" 0 11 '[023]*'
}

# The space goes back to the file system below at once, but only after the commit
test_passdown() {
	local before after cmds
	setup
	sync "$TMP/delta.vhdx"
	before=$(stat -c %b "$TMP/delta.vhdx")
	mapfile -t cmds < <(whole d 4 5 8)
	io d "${cmds[@]}" f
	message d commit
	after=$(stat -c %b "$TMP/delta.vhdx")
	between $((before - after)) $((3 * MIB)) $((4 * MIB)) "blocks given back"
	deactivate d
	good "$TMP/delta.vhdx"
	LINE="$LINE 1 no_discard_passdown"
	image delta2 '{"size": "12M", "block_size": "1M", "free": "16M", "garbage": true,
		"blocks": {'"$KINDS"'}}'
	before=$(stat -c %b "$TMP/delta2.vhdx")
	activate d2 "$(table "$(layer delta2)" "$(raw_layer "$TMP/base.raw")" -- no_discard_passdown)"
	io d2 "${cmds[@]}" f
	message d2 commit
	after=$(stat -c %b "$TMP/delta2.vhdx")
	between $((before - after)) -64 64 "blocks given back against no_discard_passdown"
}

# A fixed image keeps its blocks
test_fixed() {
	image top '{"type": "fixed", "size": "6M", "block_size": "1M",
		"default": {"state": 6, "fill": {"tag": "OLD"}}}'
	expect "$TMP/top.vhdx"
	activate d "$(table "$(layer top)")"
	io d d:0:$((2 * MIB))
	io d "r:$((2 * MIB)):$((4 * MIB)):OLD"
	both d z:0:$((2 * MIB)) z:$((3 * MIB + 5)):100
	matches d
	deactivate d
	good "$TMP/top.vhdx"
	states "$TMP/top.vhdx" 0 5 666666
	holds "$TMP/top.vhdx"
}

# Without a parent: zeros either way
test_dynamic() {
	image top '{"type": "dynamic", "size": "6M", "block_size": "1M", "free": "6M",
		"garbage": true, "blocks": {"0-5": {"state": 6, "fill": {"tag": "OLD"}}}}'
	expect "$TMP/top.vhdx"
	activate d "$(table "$(layer top)")"
	io d "d:0:$MIB" "r:0:$MIB:0"
	both d "z:0:$MIB" "z:$MIB:$MIB" w:10:5:A z:$((3 * MIB + 5)):100
	matches d
	io d f
	holds "$TMP/top.vhdx"
	deactivate d
	good "$TMP/top.vhdx"
	holds "$TMP/top.vhdx"
}

# The last block is cut by the end of the disk: a range up to there covers it
test_last_block() {
	raw base 6 BASE
	truncate -s $((5 * 1048576 + 512 * 1000)) "$TMP/base.raw"
	image delta '{"size": '$((5 * 1048576 + 512 * 1000))', "block_size": "1M", "free": "2M",
		"garbage": true, "blocks": {"5": {"state": 6, "fill": {"tag": "OLD"}}}}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	LINE=$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")")
	activate d "$LINE"
	matches d
	io d d:$((5 * MIB)):999
	matches d
	both d z:$((5 * MIB)):1000
	check
	activate d "$LINE"
	both d w:$((5 * MIB)):1000:NEW
	check
	states "$TMP/delta.vhdx" 5 5 6
	activate d "$LINE"
	io d d:$((5 * MIB)):1000
	deactivate d
	states "$TMP/delta.vhdx" 5 5 '[02]'
}

# What a discard frees may not be given away before it is safe; afterwards it is used again
test_reuse() {
	local i
	raw base 8 BASE
	image delta '{"size": "8M", "block_size": "1M", "free": "3M", "garbage": true}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	LINE=$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")")
	activate d "$LINE"
	for i in 0 1 2 3 4 5 6 7; do
		# Room for three blocks; each round uses one or two.
		io d "w:$((i * MIB)):$MIB:ROUND" f "r:$((i * MIB)):$MIB:ROUND"
		[ "$i" = 7 ] || io d "d:$((i * MIB)):$MIB" f
		suspend d
		vx check --clean --quiet "$TMP/delta.vhdx"
		resume d
	done
	"$ORACLE" io "$TMP/expected.raw" "w:$((7 * MIB)):$MIB:ROUND"
	check
}

run_tests "$@"
