#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# I/O errors below: a data error costs the I/O at hand, a metadata error the writing, and
# never the clone.  The delta is a linear device over its loop, in pieces, of which any can
# be made to fail: dm-error fails reads and writes, dm-flakey writes, but flushes as well.
# Of the list in the project's kernel notes: 12 (errors on log writes), 13 (error of the base).
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

# Where things lie in images of this script, in MiB: log 1, metadata 2, BAT 3, bitmap 4
LOG=1
BAT=3
BITMAP=4

# pieces(name, device, [first MiB, MiB, target]...): the table that makes these parts fail
pieces() {
	local dev=$2 size at=0
	size=$(blockdev --getsz "$dev")
	shift 2
	while [ $# -gt 0 ]; do
		[ "$at" = $(($1 * MIB)) ] || echo "$at $(($1 * MIB - at)) linear $dev $at"
		case $3 in
		error)	echo "$(($1 * MIB)) $(($2 * MIB)) error" ;;
		writes)	echo "$(($1 * MIB)) $(($2 * MIB)) flakey $dev $(($1 * MIB)) 0 3600 1 error_writes" ;;
		esac
		at=$((($1 + $2) * MIB))
		shift 3
	done
	[ "$at" = "$size" ] || echo "$at $((size - at)) linear $dev $at"
}

# break_dev(name, device, pieces...): in place, as when a disk dies; no pieces: repaired
break_dev() {
	local name=$1
	pieces "$@" >"$TMP/pieces"
	dmsetup suspend --noflush --nolockfs "$PREFIX-$name"
	dmsetup load "$PREFIX-$name" "$TMP/pieces"
	dmsetup resume "$PREFIX-$name"
}

setup() {
	need_target flakey
	local size
	raw base 16 BASE
	# Blocks: 5 is full, 6 has some sectors and the first bitmap block is there.
	image delta '{"size": "16M", "block_size": "1M", "free": "24M", "blocks": {
		"5": {"state": 6, "fill": {"tag": "OLD"}, "at": 5},
		"6": {"state": 7, "sectors": [[0, 100]], "fill": {"tag": "OLD"}, "at": 6}}}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	same_text "$(vx blocks "$TMP/delta.vhdx" | awk '$1 == "c0" { print $3 }')" "$BITMAP" "bitmap's place"
	DEV=$(loop "$TMP/delta.vhdx")
	BASEDEV=$(loop "$TMP/base.raw" ro)
	size=$(blockdev --getsz "$DEV")
	activate delta "0 $size linear $DEV 0"
	activate base "0 $((16 * MIB)) linear $BASEDEV 0"
	LINE=$(table "$(layer delta "$(device delta)")" "raw $(device base) 0 $((16 * MIB))")
	activate e "$LINE"
	# Take the bitmap page in, and start the session.
	both e w:$((6 * MIB + 500)):4:A f
}

# The base fails in one place: whoever reads there gets an error, and nobody else
test_base_error() {
	setup
	break_dev base "$BASEDEV" 3 1 error
	io e "r:$((3 * MIB + 8)):8:BASE?EIO" "r:$((2 * MIB)):8:BASE" "r:$((4 * MIB)):8:BASE" \
		"r:$((3 * MIB - 8)):16:BASE?EIO"
	same_text "$(status e mode)" rw mode
	# No write needs the base.
	both e w:$((3 * MIB + 100)):8:B f
	io e r:$((3 * MIB + 100)):8:B
	same_text "$(status e mode)" rw mode
	break_dev base "$BASEDEV"
	matches e
	deactivate e
	good "$TMP/delta.vhdx"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# A payload block fails: that bio's error, no mode change, no bits for the lost sectors
test_data_error() {
	setup
	break_dev delta "$DEV" 5 2 writes
	io e "w:$((5 * MIB)):8:X?EIO" "w:$((6 * MIB + 600)):8:X?EIO" "r:$((5 * MIB)):8:OLD" \
		"r:$((6 * MIB + 600)):8:BASE"
	same_text "$(status e mode)" rw mode
	break_dev delta "$DEV" 5 2 error
	# A new block elsewhere, and a commit: all fine.
	both e w:$((9 * MIB)):8:B f
	same_text "$(status e mode)" rw mode
	io e "w:$((5 * MIB)):8:X?EIO" "w:$((6 * MIB + 600)):8:X?EIO" f
	io e "r:$((5 * MIB)):8:OLD?EIO" "r:$((6 * MIB)):8:OLD?EIO" "r:$((6 * MIB + 600)):8:BASE"
	same_text "$(status e mode)" rw mode
	break_dev delta "$DEV"
	matches e
	both e w:$((5 * MIB)):8:C w:$((6 * MIB + 600)):8:C f
	matches e
	deactivate e
	good "$TMP/delta.vhdx"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# failed(): fail mode, and what goes with it
failed() {
	wait_for 5 mode_is e fail || fail "mode is $(status e mode)"
	io e "w:$((10 * MIB)):8:X?EIO" "f?EIO"
	# Reads go on, with everything that had completed.
	matches e
	# The device is well again, and nothing is forgotten: later flushes fail, too.
	break_dev delta "$DEV"
	io e "f?EIO" "w:$((6 * MIB)):8:X?EIO" "f?EIO"
	matches e
	[ "$(status e errors)" -ge 1 ] || fail "no errors counted"
}

# The log cannot be written: the flush fails, and so does every later one
test_log_error() {
	local pid
	setup
	dmsetup wait "$PREFIX-e" &
	pid=$!
	klog_mark
	break_dev delta "$DEV" "$LOG" 1 error
	both e w:$((9 * MIB)):8:B
	io e "f?EIO"
	failed
	wait_for 5 ended "$pid" || fail "no event"
	klog_has 'vhdclone:.*(log|fail)'
	# Until the table is loaded anew, after whoever must has replayed the log.
	suspend e || true
	vx check --quiet "$TMP/delta.vhdx" || fail "what is left is not valid"
	vx replay "$TMP/delta.vhdx"
	good "$TMP/delta.vhdx"
	reload e "$LINE"
	same_text "$(status e mode)" rw mode
	io e r:$((6 * MIB + 500)):4:A w:$((12 * MIB)):8:C f r:$((12 * MIB)):8:C
	deactivate e
	good "$TMP/delta.vhdx"
}

ended() {
	! kill -0 "$1" 2>/dev/null
}

# In-place writes of the BAT fail: the log still has all of it
test_in_place_error() {
	setup
	break_dev delta "$DEV" "$BAT" 1 error
	both e w:$((9 * MIB)):8:B
	# The commit itself is in the log; the failure comes when it is applied.
	io e f || true
	wait_for 8 mode_is e fail || { suspend e || true; }
	break_dev delta "$DEV"
	deactivate e
	vx check --quiet "$TMP/delta.vhdx" || fail "what is left is not valid"
	vx replay "$TMP/delta.vhdx"
	good "$TMP/delta.vhdx"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# The headers cannot be written: then there is no session, and no write
test_header_error() {
	setup
	suspend e
	resume e
	cp "$TMP/delta.vhdx" "$TMP/before"
	break_dev delta "$DEV" 0 1 error
	io e "w:$((9 * MIB)):8:X?EIO" || io e "f?EIO"
	wait_for 5 mode_is e fail || fail "mode is $(status e mode)"
	matches e
	break_dev delta "$DEV"
	deactivate e
	vx check --quiet "$TMP/delta.vhdx" || fail "what is left is not valid"
	vx compare "$TMP/expected.raw" "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# A bitmap page cannot be read: errors for those who need it, no mode change
test_bitmap_read_error() {
	setup
	deactivate e
	activate e "$LINE"
	break_dev delta "$DEV" "$BITMAP" 1 error
	io e "r:$((6 * MIB)):8:OLD?EIO" "r:$((5 * MIB)):8:OLD" r:0:8:BASE
	same_text "$(status e mode)" rw mode
	break_dev delta "$DEV"
	io e "r:$((6 * MIB)):8:OLD"
	matches e
	deactivate e
	good "$TMP/delta.vhdx"
}

# Everything below gone at once, with I/O of all kinds; and away with it
test_dead_delta() {
	setup
	break_dev delta "$DEV" 0 $(($(blockdev --getsz "$DEV") / MIB)) error
	io e "w:$((9 * MIB)):8:X?EIO" || true
	io e "f?EIO"
	io e "r:$((9 * MIB)):8:BASE"
	must_fail io e "w:$((11 * MIB)):8:X"
	suspend e || true
	resume e || true
	deactivate e
	break_dev delta "$DEV"
	vx check --quiet "$TMP/delta.vhdx" || fail "what is left is not valid"
}

run_tests "$@"
