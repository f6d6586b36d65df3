#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# A delta that is too small: who gets what error, what goes on, and the way back.
# Of the list in the project's kernel notes: 11 (out of space, then extend).
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

# setup(free MiB, [more of the spec], [features...])
setup() {
	local free=$1 more=${2:-}
	shift
	[ $# = 0 ] || shift
	raw base 16 BASE
	image delta '{"size": "16M", "block_size": "1M", "free": "'"$free"'M", "garbage": true'"$more"'}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	DEV=$(loop "$TMP/delta.vhdx")
	LINE=$(table "$(layer delta "$DEV")" "$(raw_layer "$TMP/base.raw")" ${1:+-- "$@"})
	activate sp "$LINE"
}

check() {
	matches sp
	vx check --quiet "$TMP/delta.vhdx"
	deactivate sp
	good "$TMP/delta.vhdx"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# Three blocks fit (and a bitmap block)
test_full() {
	setup 4
	both sp w:5:8:A w:$((MIB + 5)):8:A w:$((2 * MIB + 5)):8:A
	io sp "w:$((3 * MIB)):8:X?ENOSPC" "w:$((4 * MIB)):$MIB:X?ENOSPC" "r:$((3 * MIB)):8:BASE"
	same_text "$(status sp mode)" out_of_space mode
	# Everything that needs no block goes on, flushes too.
	both sp w:50:8:B w:6:4:C "w:$((2 * MIB)):$MIB:D"
	io sp f "w:$((3 * MIB)):8:X?ENOSPC" "r:$((2 * MIB)):$MIB:D"
	check
}

# Exactly full, to the last MiB, with whole blocks (no bitmap needed)
# The chunk's bitmap block is reserved with its first block, whatever that is
test_exactly_full() {
	local i
	setup 6
	for i in 0 1 2 3 4; do
		both sp "w:$((i * MIB)):$MIB:A"
	done
	io sp "w:$((5 * MIB)):8:X?ENOSPC"
	check
}

# One MiB: not enough for a partial block and its bitmap, and the bitmap block
# may not be what fails at the commit
test_bitmap_reserved() {
	setup 1
	io sp "w:5:8:X?ENOSPC" f r:0:100:BASE
	matches sp
	deactivate sp
	good "$TMP/delta.vhdx"
	activate sp "$LINE"
	matches sp
}

running() {
	kill -0 "$1" 2>/dev/null
}

ended() {
	! running "$1"
}

test_event() {
	local pid
	setup 3
	# Blocks until the device raises an event.
	dmsetup wait "$PREFIX-sp" &
	pid=$!
	sleep 0.5
	io sp w:5:8:A w:$((MIB + 5)):8:A
	running "$pid" || fail "an event too early"
	io sp "w:$((3 * MIB)):8:X?ENOSPC"
	wait_for 5 ended "$pid" || fail "no event when it was full"
	klog_mark
	# Once: not for every further failure.
	io sp "w:$((4 * MIB)):8:X?ENOSPC" "w:$((5 * MIB)):8:X?ENOSPC"
	if klog_match 'vhdclone:.*out.of.space'; then
		fail "said again"
	fi
}

test_low_water() {
	local pid
	setup 8 "" low_water_mark 3
	dmsetup wait "$PREFIX-sp" &
	pid=$!
	sleep 0.5
	io sp w:5:8:A w:$((MIB + 5)):8:A
	sleep 0.5
	running "$pid" || fail "an event too early"
	io sp w:$((2 * MIB + 5)):8:A w:$((3 * MIB + 5)):8:A w:$((4 * MIB + 5)):8:A w:$((5 * MIB + 5)):8:A
	wait_for 5 ended "$pid" || fail "no event at the low-water mark"
	same_text "$(status sp mode)" rw mode
	deactivate sp
	# Already below when it starts.
	activate sp "$LINE"
	io sp "w:$((6 * MIB)):8:B"
}

# The file and its loop device grow; suspend and resume, and writing goes on
test_grow() {
	setup 2
	both sp w:5:8:A
	io sp "w:$((3 * MIB)):8:X?ENOSPC"
	same_text "$(status sp mode)" out_of_space mode
	truncate -s +4M "$TMP/delta.vhdx"
	vx loop-grow "$DEV"
	suspend sp
	resume sp
	same_text "$(status sp mode)" rw mode
	both sp w:$((3 * MIB)):8:B w:$((4 * MIB)):8:B w:$((5 * MIB)):8:B w:$((6 * MIB)):8:B
	io sp "w:$((7 * MIB)):8:X?ENOSPC"
	check
}

# A discard and a suspend give room, too
test_discard_gives_room() {
	setup 3
	both sp w:5:8:A "w:$((2 * MIB)):$MIB:A"
	io sp f "w:$((3 * MIB)):8:X?ENOSPC"
	io sp "d:$((2 * MIB)):$MIB" f
	suspend sp
	resume sp
	same_text "$(status sp mode)" rw mode
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	both sp w:$((3 * MIB)):8:B f
	check
}

# Random I/O that hits the end again and again: a write that failed leaves old data
test_random() {
	setup 9
	"$ORACLE" run "$(device sp)" --base "$TMP/base.raw" --block 1M --errors-ok --ops 800 \
		--threads 2 --mix r=40,w=40,s=2,z=2,f=3 --max 256K --save "$TMP/state"
	same_text "$(status sp mode)" out_of_space mode
	deactivate sp
	good "$TMP/delta.vhdx"
	activate sp "$LINE"
	"$ORACLE" verify "$(device sp)" --base "$TMP/base.raw" --state "$TMP/state"
}

run_tests "$@"
