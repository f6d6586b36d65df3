#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Devices that are full, and devices that fail: what the writer sees, the mode, the
# event, what still works, and what is in the image afterwards.
# Of the list in the project's kernel notes: 11 (out of space, then grown), 12 (error of
# a log write, later flushes fail too), 13 (error of the base: only that bio).
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

F='"fill": {"tag": "OLD"}'

# ---- devices that can be broken --------------------------------------------------

# lower(name, file): a linear device over a loop device, see sick()
lower() {
	local dev size
	dev=$(loop "$2")
	size=$(blockdev --getsz "$dev")
	printf -v "LOOP_$1" %s "$dev"
	printf -v "SIZE_$1" %s "$size"
	activate "$1" "0 $size linear $dev 0"
}

# sick(name, kind, first, count...): ranges of sectors, in order, fail from now on
#
#	error		all I/O
#	writes		writes, but not flushes of the device
#	flushes		writes and flushes
sick() {
	local name=$1 kind=$2 dev=LOOP_$1 size=SIZE_$1 pos=0 lines=()
	shift 2
	dev=${!dev}
	size=${!size}
	while [ $# -gt 0 ]; do
		[ "$pos" = "$1" ] || lines+=("$pos $(($1 - pos)) linear $dev $pos")
		case $kind in
		error)	lines+=("$1 $2 error") ;;
		*)	lines+=("$1 $2 flakey $dev $1 0 1 1 error_writes") ;;
		esac
		pos=$(($1 + $2))
		shift 2
	done
	[ "$pos" = "$size" ] || lines+=("$pos $((size - pos)) linear $dev $pos")
	printf '%s\n' "${lines[@]}" | dmsetup load "$PREFIX-$name"
	# This suspends the old table.
	dmsetup resume --noflush --nolockfs "$PREFIX-$name"
	# Without a cache, a flush ends before it gets to dm-flakey, to which it is a write.
	[ "$kind" != writes ] ||
		echo "write through" >"/sys/dev/block/$(devno "$(device "$name")")/queue/write_cache"
}

# sick_all(name, kind)
sick_all() {
	local size=SIZE_$1
	sick "$1" "$2" 0 "${!size}"
}

heal() {
	sick "$1" none
}

# area(log|bat): first sector and count
area() {
	local bat log count
	# shellcheck disable=SC2154	# image() sets it
	read -r _ _ _ _ _ bat log count <<<"$WORDS_delta"
	case $1 in
	bat)	echo "$bat $MIB" ;;
	log)	echo "$log $count" ;;
	esac
}

# place(block): its first sector in the delta; c0: of the bitmap block
place() {
	vx blocks "$TMP/delta.vhdx" | awk -v b="$1" -v mib="$MIB" '$1 == b { print $3 * mib }'
}

# free_area: what the builder left free is at the end
free_area() {
	# shellcheck disable=SC2154	# lower() sets it
	echo $((SIZE_low - $1 * MIB)) $(($1 * MIB))
}

# ---- what happens to a clone --------------------------------------------------------

events() {
	dmsetup info -c --noheadings -o events "$PREFIX-$1"
}

events_are() {
	[ "$(events "$1")" = "$2" ]
}

# one_event(name, events before, mode): the clone is in that mode, and said so once
one_event() {
	local status id line lines count=0
	status=$(dmsetup status "$PREFIX-$1")
	same_text "${status##* }" "$3" "mode"
	wait_for 5 events_are "$1" $(($2 + 1)) ||
		fail "got $(($(events "$1") - $2)) events for mode $3"
	id=$(dmsetup info -c --noheadings --separator : -o major,minor "$PREFIX-$1")
	mapfile -t lines < <(klog)
	for line in "${lines[@]}"; do
		[[ $line != *" $id: switching to $3 mode"* ]] || count=$((count + 1))
	done
	same_text "$count" 1 "log lines"
}

# changes_nothing(name): every request that would change or save something fails
changes_nothing() {
	io "$1" "f?EIO" "w:0:8:X?EIO" "W:$((MIB)):8:X?EIO" "w:$((6 * MIB)):8:X?EIO" \
		"d:$((MIB)):$MIB?EIO" "z:$((MIB)):$MIB?EIO" "z:0:8?EIO" "f?EIO"
}

# has_failed(name, events before): it said so once, and changes nothing any more
has_failed() {
	one_event "$1" "$2" fail
	changes_nothing "$1"
	must_fail message "$1" commit
	events_are "$1" $(($2 + 1)) || fail "another event"
	[ "$(status "$1" errors)" -gt 0 ] || fail "no errors counted"
}

# works(name): in rw mode, all of it
works() {
	both "$1" "w:9:3:WORK" "w:$((MIB + 5)):9:WORK" "W:$((6 * MIB + 77)):5:WORK" f
	same_text "$(status "$1" mode)" rw "mode"
	matches "$1"
}

finish_good() {
	deactivate c
	good "$TMP/delta.vhdx"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# replayed([closed]): a replay of the log makes the image hold expected.raw.  closed:
# perhaps there is nothing to replay, and only one header is new
replayed() {
	vx check --quiet "$TMP/delta.vhdx" || fail "image is not recoverable"
	vx replay "$TMP/delta.vhdx"
	[ "${1:-}" = closed ] || good "$TMP/delta.vhdx"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# recover([closed]): and then it can be used again
recover() {
	replayed "$@"
	activate c "$LINE"
	works c
	finish_good
}

# is_dirty: the log was not closed
is_dirty() {
	vx check --quiet "$TMP/delta.vhdx" || fail "image is not valid"
	must_fail vx check --clean --quiet "$TMP/delta.vhdx"
}

# build(free MiB): base, delta, expected.raw; the delta is on low, for sick()
build() {
	raw base 8 BASE
	image delta '{"size": "8M", "block_size": "1M", "free": "'"$1"'M", "garbage": true,
		"at": {"log": 1, "metadata": 2, "bat": 3}, "blocks": {"0": {"state": 7, '"$F"', "sectors": [[0, 64]]},
			"1": {"state": 6, '"$F"'}}}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	lower low "$TMP/delta.vhdx"
	LINE=$(table "$(layer delta "$(device low)")" "$(raw_layer "$TMP/base.raw")")
}

# setup(free MiB): and the clone c is active
setup() {
	build "${1:-8}"
	klog_mark
	activate c "$LINE"
}

# ---- out of space ---------------------------------------------------------------------

# Room for three blocks, taken
setup_full() {
	raw base 8 BASE
	image delta '{"size": "8M", "block_size": "1M", "free": "3M", "garbage": true,
		"blocks": {"0": {"state": 7, '"$F"', "sectors": [[0, 64]]},
			"1": {"state": 6, '"$F"'}}}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	DELTA=$(loop "$TMP/delta.vhdx")
	LINE=$(table "$(layer delta "$DELTA")" "$(raw_layer "$TMP/base.raw")")
	klog_mark
	activate c "$LINE"
	same_text "$(status c free)" $((3 * MIB)) "free"
	EVENTS=$(events c)
	both c "w:$((2 * MIB)):8:NEW" "w:$((3 * MIB + 8)):8:NEW" "w:$((4 * MIB + 16)):8:NEW"
	same_text "$(status c mode)" rw "mode with the last block taken"
	same_text "$(status c free)" 0 "free"
	same_text "$(events c)" "$EVENTS" "events"
}

test_out_of_space() {
	local waiter start
	setup_full
	dmsetup wait "$PREFIX-c" "$EVENTS" &
	waiter=$!
	start=$SECONDS
	io c "w:$((5 * MIB)):8:NO?ENOSPC" "W:$((6 * MIB)):8:NO?ENOSPC" "w:$((7 * MIB)):$MIB:NO?ENOSPC" \
		"z:$((7 * MIB)):8?ENOSPC"
	between $((SECONDS - start)) 0 5 "seconds to fail"
	wait "$waiter"
	one_event c "$EVENTS" out_of_space
	# All else goes on, also what needs a block but no space.
	matches c
	both c "w:0:128:MORE" "w:$((MIB + 100)):50:MORE" "w:$((3 * MIB + 1000)):50:MORE" \
		"W:$((4 * MIB)):$MIB:MORE" "z:$((6 * MIB)):$MIB"
	io c f
	message c commit
	matches c
	io c "w:$((5 * MIB)):8:NO?ENOSPC"
	events_are c $((EVENTS + 1)) || fail "another event"
	same_text "$(status c mode)" out_of_space "mode"
	vx check --quiet "$TMP/delta.vhdx"
	finish_good
	states "$TMP/delta.vhdx" 0 7 76776020
}

test_grow() {
	setup_full
	io c "w:$((5 * MIB)):8:NO?ENOSPC"
	one_event c "$EVENTS" out_of_space
	truncate -s +2M "$TMP/delta.vhdx"
	vx loop-grow "$DELTA"
	# Nobody writes.
	wait_for 10 mode_is c rw || fail "has not seen that the device has grown"
	one_event c $((EVENTS + 1)) rw
	same_text "$(status c free)" $((2 * MIB)) "free"
	both c "w:$((5 * MIB)):8:NEW" "w:$((6 * MIB)):8:NEW"
	io c f "w:$((7 * MIB)):8:NO?ENOSPC"
	klog_mark
	same_text "$(status c mode)" out_of_space "mode"
	wait_for 5 events_are c $((EVENTS + 3)) || fail "got $(events c) events"
	# A write can be what finds the new space, too.
	truncate -s +1M "$TMP/delta.vhdx"
	vx loop-grow "$DELTA"
	both c "w:$((7 * MIB)):8:NEW"
	same_text "$(status c mode)" rw "mode"
	matches c
	finish_good
}

# Released space is there after the next resume
test_released_space() {
	setup_full
	io c "w:$((5 * MIB)):8:NO?ENOSPC" "d:$((2 * MIB)):$MIB" f
	"$ORACLE" io "$TMP/expected.raw" "w:$((2 * MIB)):$MIB:BASE"
	suspend c
	resume c
	same_text "$(status c mode)" rw "mode"
	same_text "$(status c free)" "$MIB" "free"
	both c "w:$((5 * MIB)):8:NEW"
	io c "w:$((6 * MIB)):8:NO?ENOSPC"
	matches c
	finish_good
}

# There is room for the sector bitmap block, but not for a block besides
test_no_room_for_both() {
	raw base 8 BASE
	image delta '{"size": "8M", "block_size": "2M", "free": "2M", "garbage": true}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	DELTA=$(loop "$TMP/delta.vhdx")
	LINE=$(table "$(layer delta "$DELTA")" "$(raw_layer "$TMP/base.raw")")
	activate c "$LINE"
	io c "w:0:8:NO?ENOSPC" f "w:$((4 * MIB)):8:NO?ENOSPC" "z:0:$((2 * MIB))"
	"$ORACLE" io "$TMP/expected.raw" "z:0:$((2 * MIB))"
	same_text "$(status c mode)" out_of_space "mode"
	matches c
	finish_good
	truncate -s +1M "$TMP/delta.vhdx"
	vx loop-grow "$DELTA"
	activate c "$LINE"
	both c "w:$((4 * MIB)):8:NEW"
	io c "w:$((6 * MIB)):8:NO?ENOSPC"
	matches c
	finish_good
}

# Blocks that are zero-filled; what is left is too small for one
test_dynamic_out_of_space() {
	image top '{"type": "dynamic", "size": "8M", "block_size": "2M", "free": "3M",
		"garbage": true}'
	expect "$TMP/top.vhdx"
	klog_mark
	activate c "$(table "$(layer top)")"
	EVENTS=$(events c)
	both c "w:100:8:NEW"
	io c "w:$((2 * MIB)):8:NO?ENOSPC" "w:$((4 * MIB)):8:NO?ENOSPC" f
	one_event c "$EVENTS" out_of_space
	same_text "$(status c free)" "$MIB" "free"
	both c "w:$((MIB)):8:NEW" "z:$((2 * MIB)):8" "z:$((4 * MIB)):$((4 * MIB))"
	matches c
	deactivate c
	good "$TMP/top.vhdx"
	holds "$TMP/top.vhdx"
}

test_low_water_mark() {
	build 6
	LINE="$LINE 2 low_water_mark 3"
	activate c "$LINE"
	EVENTS=$(events c)
	both c "w:$((2 * MIB)):8:NEW" "w:$((3 * MIB)):8:NEW" "w:$((4 * MIB)):8:NEW"
	sleep 0.2
	same_text "$(events c)" "$EVENTS" "events with 3 blocks free"
	both c "w:$((5 * MIB)):8:NEW"
	wait_for 5 events_are c $((EVENTS + 1)) || fail "no event with 2 blocks free"
	both c "w:$((6 * MIB)):8:NEW" "w:500:8:NEW"
	sleep 0.2
	same_text "$(events c)" $((EVENTS + 1)) "events with 1 block free"
	same_text "$(status c mode)" rw "mode"
	matches c
	finish_good
}

# ---- the log -----------------------------------------------------------------------------

# What is flushed is safe; then the log fails.  The write after that is one bio: the
# timer may be faster than a flush.
break_log() {
	setup
	EVENTS=$(events c)
	both c "w:50:100:SAFE" "w:$((3 * MIB + 8)):64:SAFE" "w:$((MIB + 8)):8:SAFE" f
	cp "$TMP/expected.raw" "$TMP/flushed"
	# shellcheck disable=SC2046	# two words
	sick low error $(area log)
	both c "w:$((4 * MIB + 16)):48:LOST"
}

test_log_write_error() {
	break_log
	io c "f?EIO"
	has_failed c "$EVENTS"
	heal low
	changes_nothing c
	# With what was never flushed
	matches c
	vx check --quiet "$TMP/delta.vhdx"
	suspend c
	same_text "$(status c mode)" fail "mode"
	must_fail resume c
	klog_has "needs recovery"
	deactivate c
	is_dirty
	cp "$TMP/flushed" "$TMP/expected.raw"
	recover
}

# Nobody flushed: the close finds out
test_log_write_error_at_close() {
	break_log
	deactivate c
	klog_has "switching to fail mode"
	is_dirty
	cp "$TMP/flushed" "$TMP/expected.raw"
	replayed
}

# Nobody flushed: the timer finds out
test_log_write_error_timer() {
	break_log
	wait_for 10 mode_is c fail || fail "no commit"
	one_event c "$EVENTS" fail
	matches c
	deactivate c
	cp "$TMP/flushed" "$TMP/expected.raw"
	replayed
}

# A FUA write that could not be made durable; what it wrote may be seen or not
test_log_write_error_fua() {
	break_log
	io c "W:$((5 * MIB)):8:FUA?EIO"
	has_failed c "$EVENTS"
	"$ORACLE" cmp "$(device c)" "$TMP/expected.raw" 0 $((5 * MIB))
	deactivate c
	is_dirty
	cp "$TMP/flushed" "$TMP/expected.raw"
	replayed
}

# All of the delta is gone: the base can still be read
test_dead_device() {
	setup
	EVENTS=$(events c)
	both c "w:50:100:SAFE" "w:$((3 * MIB + 8)):64:SAFE" f
	sick_all low error
	io c "r:$((4 * MIB)):$MIB:BASE" "r:$((3 * MIB)):8:BASE" "r:$((3 * MIB + 8)):8:?EIO" \
		"r:0:8:?EIO" "w:$((4 * MIB)):8:LOST?EIO"
	# Only those bios so far; but its block is new, and that cannot be committed.
	io c "f?EIO"
	has_failed c "$EVENTS"
	io c "r:$((4 * MIB)):$MIB:BASE"
	suspend c
	must_fail resume c
	deactivate c
	heal low
	is_dirty
	recover
}

# ---- metadata in its place --------------------------------------------------------------

# in_place_error(first, count, [suspend])
in_place_error() {
	EVENTS=$(events c)
	klog_mark
	both c "w:50:100:SAFE" "w:$((3 * MIB + 8)):64:SAFE" f
	both c "w:$((4 * MIB + 16)):48:SAFE"
	sick low error "$1" "$2"
	# Only the log is written.
	io c f
	same_text "$(status c mode)" rw "mode"
	if [ $# -gt 2 ]; then
		suspend c
		one_event c "$EVENTS" fail
		heal low
		must_fail resume c
		klog_has "needs recovery"
	fi
	deactivate c
	klog_has "cannot write metadata in place"
	is_dirty
	heal low
	recover
}

test_bat_write_error_at_close() {
	setup
	# shellcheck disable=SC2046	# two words
	in_place_error $(area bat)
}

test_bat_write_error_at_suspend() {
	setup
	# shellcheck disable=SC2046	# two words
	in_place_error $(area bat) suspend
}

test_bitmap_write_error_at_close() {
	setup
	in_place_error "$(place c0)" "$MIB"
}

# ---- headers -------------------------------------------------------------------------------

# Both, and each: one of them is the second to be written
HEADERS=("128 8 256 8" "128 8" "256 8")

test_header_write_error_at_start() {
	local ranges
	need_target flakey
	build 8
	for ranges in "${HEADERS[@]}"; do
		klog_mark
		activate c "$LINE"
		EVENTS=$(events c)
		# shellcheck disable=SC2086	# words
		sick low writes $ranges
		io c "w:0:8:NO?EIO"
		one_event c "$EVENTS" fail
		changes_nothing c
		klog_has "cannot write a header"
		heal low
		deactivate c
		replayed
	done
	recover
}

# Not even read: then nothing at all is written
test_header_read_error_at_start() {
	setup
	cp "$TMP/delta.vhdx" "$TMP/before"
	EVENTS=$(events c)
	sick low error 128 8 256 8
	io c "w:0:8:NO?EIO"
	has_failed c "$EVENTS"
	matches c
	deactivate c
	cmp "$TMP/delta.vhdx" "$TMP/before" || fail "image has changed"
	heal low
	recover
}

test_header_write_error_at_close() {
	local ranges pos=100
	need_target flakey
	build 8
	for ranges in "${HEADERS[@]}"; do
		klog_mark
		activate c "$LINE"
		# All of them new sectors, so that there is something in the log
		both c "w:$pos:100:SAFE" "w:$((3 * MIB + pos)):64:SAFE" f
		both c "w:$((4 * MIB + pos)):48:SAFE"
		# shellcheck disable=SC2086	# words
		sick low writes $ranges
		deactivate c
		klog_has "cannot write a header"
		heal low
		replayed closed
		pos=$((pos + 200))
	done
	recover closed
}

# ---- data ------------------------------------------------------------------------------------

# only_those(errors before, how many more): no change of the mode
only_those() {
	same_text "$(($(status c errors) - $1))" "$2" "errors counted"
	same_text "$(status c mode)" rw "mode"
	same_text "$(events c)" "$EVENTS" "events"
}

test_data_write_error() {
	local at errors
	need_target flakey
	setup
	EVENTS=$(events c)
	errors=$(status c errors)
	at=$(place 0)
	# Of a partial block: sectors that are there, and some that are not
	sick low writes $((at + 32)) 8 $((at + 128)) 8
	io c "w:32:8:NO?EIO" "w:128:8:NO?EIO" "w:100:64:NO?EIO"
	only_those "$errors" 3
	matches c
	both c "w:24:8:NEW" "w:40:8:NEW" "w:120:8:NEW" "W:136:8:NEW"
	io c f
	matches c
	vx check --quiet "$TMP/delta.vhdx"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	same_text "$(vx blocks "$TMP/delta.vhdx" 0 0 | awk 'NR == 1 { print $4 }')" $((64 + 16)) \
		"bits of block 0"
	# Of a whole one
	at=$(place 1)
	sick low writes $((at + 32)) 8
	io c "w:$((MIB + 32)):8:NO?EIO"
	both c "w:$((MIB + 40)):8:NEW"
	matches c
	only_those "$errors" 4
	finish_good
	heal low
	activate c "$LINE"
	works c
	finish_good
}

# The first write of a block: it has a place then, but nothing in it
test_new_block_write_error() {
	local errors
	need_target flakey
	setup 4
	EVENTS=$(events c)
	errors=$(status c errors)
	# shellcheck disable=SC2046	# two words
	sick low writes $(free_area 4)
	io c "w:$((3 * MIB)):8:NO?EIO" "w:$((3 * MIB)):64:NO?EIO"
	only_those "$errors" 2
	matches c
	io c f
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	heal low
	both c "w:$((3 * MIB + 4)):8:NEW"
	works c
	finish_good
	same_text "$(vx blocks "$TMP/delta.vhdx" 3 3 | awk 'NR == 1 { print $4 }')" 8 \
		"bits of block 3"
}

# The sector bitmap block cannot be zeroed
test_new_bitmap_write_error() {
	need_target flakey
	raw base 8 BASE
	image delta '{"size": "8M", "block_size": "1M", "free": "4M", "garbage": true}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	lower low "$TMP/delta.vhdx"
	LINE=$(table "$(layer delta "$(device low)")" "$(raw_layer "$TMP/base.raw")")
	activate c "$LINE"
	# shellcheck disable=SC2046	# two words
	sick low writes $(free_area 4)
	io c "w:0:8:NO?EIO" "w:$((3 * MIB)):8:NO?EIO" f
	same_text "$(status c mode)" rw "mode"
	same_text "$(status c free)" $((4 * MIB)) "free"
	matches c
	vx check --quiet "$TMP/delta.vhdx"
	heal low
	works c
	finish_good
}

# A new block of a dynamic image cannot be zeroed
test_zero_fill_error() {
	need_target flakey
	image top '{"type": "dynamic", "size": "8M", "block_size": "1M", "free": "4M",
		"garbage": true}'
	expect "$TMP/top.vhdx"
	lower low "$TMP/top.vhdx"
	activate c "$(table "$(layer top "$(device low)")")"
	# shellcheck disable=SC2046	# two words
	sick low writes $(free_area 4)
	io c "w:0:8:NO?EIO" "w:$((3 * MIB)):8:NO?EIO" f
	same_text "$(status c mode)" rw "mode"
	same_text "$(status c free)" $((4 * MIB)) "free"
	[ "$(status c errors)" -gt 0 ] || fail "no errors counted"
	matches c
	heal low
	works c
	deactivate c
	good "$TMP/top.vhdx"
	holds "$TMP/top.vhdx"
}

has_passed_down() {
	[[ $(message c stats) != *"passdowns 0"* ]]
}

# Space could not be given back to the device: nobody's error
test_passdown_error() {
	setup
	EVENTS=$(events c)
	sick low error "$(place 1)" "$MIB"
	io c "d:$((MIB)):$MIB" f
	wait_for 5 has_passed_down || skip "no discards below"
	"$ORACLE" io "$TMP/expected.raw" "w:$((MIB)):$MIB:BASE"
	only_those 0 0
	matches c
	heal low
	works c
	finish_good
}

# ---- reads ---------------------------------------------------------------------------------

test_base_read_error() {
	local errors
	raw base 8 BASE
	image delta '{"size": "8M", "block_size": "1M", "free": "8M", "garbage": true,
		"blocks": {"0": {"state": 7, '"$F"', "sectors": [[0, 64]]}}}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	lower base "$TMP/base.raw"
	LINE=$(table "$(layer delta)" "$(raw_layer "$(device base)")")
	activate c "$LINE"
	EVENTS=$(events c)
	errors=$(status c errors)
	sick base error 0 8 200 8 "$((3 * MIB + 100))" 8
	io c "r:200:8:?EIO" "r:$((3 * MIB + 100)):8:?EIO" "r:$((3 * MIB + 96)):16:?EIO"
	only_those "$errors" 3
	io c "r:192:8:BASE" "r:208:8:BASE" "r:$((3 * MIB + 108)):64:BASE" "r:$((4 * MIB)):$MIB:BASE" \
		"r:0:64:OLD"
	# One bio with several sources, of which one fails
	io c "r:56:160:?EIO" "r:56:80:"
	# Nothing of the base is needed for a write, and then no more.
	both c "w:204:4:NEW" "w:$((3 * MIB + 100)):8:NEW"
	io c "r:204:4:NEW" "r:200:8:?EIO" f
	both c "w:200:4:NEW"
	matches c
	same_text "$(status c mode)" rw "mode"
	finish_good
}

# The page of the sector bitmap is not in memory, and cannot be read
test_bitmap_read_error() {
	build 8
	sick low error "$(place c0)" "$MIB"
	activate c "$LINE"
	EVENTS=$(events c)
	io c "r:0:8:?EIO" "r:0:$MIB:?EIO" "w:0:8:NO?EIO" "w:$((3 * MIB)):8:NO?EIO" \
		"W:100:8:NO?EIO"
	same_text "$(status c mode)" rw "mode"
	same_text "$(events c)" "$EVENTS" "events"
	# What needs no bits
	"$ORACLE" cmp "$(device c)" "$TMP/expected.raw" "$MIB" $((7 * MIB))
	both c "w:$((MIB + 10)):8:NEW"
	io c f
	heal low
	works c
	finish_good
}

test_bitmap_read_error_below() {
	build 8
	image top '{"size": "8M", "block_size": "1M", "free": "8M", "garbage": true,
		"blocks": {"5": {"state": 7, '"$F"', "sectors": [[0, 64]]}}}'
	expect "$TMP/top.vhdx" "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	sick low error "$(place c0)" "$MIB"
	activate c "$(table "$(layer top)" "$(layer delta "$(device low)")" \
		"$(raw_layer "$TMP/base.raw")")"
	io c "r:0:8:?EIO" "r:64:8:?EIO"
	same_text "$(status c mode)" rw "mode"
	"$ORACLE" cmp "$(device c)" "$TMP/expected.raw" "$MIB" $((7 * MIB))
	both c "w:0:8:NEW"
	io c "r:0:8:NEW" "r:8:8:?EIO" f
	heal low
	works c
	deactivate c
	good "$TMP/top.vhdx" "$TMP/delta.vhdx"
	holds "$TMP/top.vhdx" "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# ---- resume ---------------------------------------------------------------------------------

test_load_errors() {
	local what first count upper
	build 8
	image top '{"size": "8M", "block_size": "1M", "free": "8M"}'
	upper=$(table "$(layer top)" "$(layer delta "$(device low)")" \
		"$(raw_layer "$TMP/base.raw")")
	cp "$TMP/delta.vhdx" "$TMP/before"
	while read -r first count what; do
		sick low error "$first" "$count"
		refused "$LINE" "cannot read $what"
		# The layer above was loaded already.
		[ "$what" != BAT ] || refused "$upper" "cannot read $what"
	done <<-END
		0 8 file identifier
		128 8 header 1
		256 8 header 2
		384 128 region table
		$((2 * MIB)) $MIB metadata
		$(area bat) BAT
	END
	cmp "$TMP/delta.vhdx" "$TMP/before" || fail "image has changed"
	heal low
	# The registry has forgotten all of them.
	activate c "$upper"
	matches c
	deactivate c
	activate c "$LINE"
	works c
	finish_good
}

# The same with a clone that was active, and will be again
test_resume_error() {
	local bat
	setup
	both c "w:50:100:SAFE" "w:$((3 * MIB + 8)):64:SAFE"
	suspend c
	good "$TMP/delta.vhdx"
	bat=$(area bat)
	# shellcheck disable=SC2086	# two words
	sick low error $bat
	must_fail resume c
	must_fail resume c
	klog_has "cannot read BAT"
	heal low
	resume c
	works c
	# And removed while it cannot be resumed.
	suspend c
	# shellcheck disable=SC2086	# two words
	sick low error $bat
	must_fail resume c
	finish_good
	heal low
	activate c "$LINE"
	works c
	finish_good
}

# ---- flushes ----------------------------------------------------------------------------------

# Nothing was written: there was nothing to lose, but nobody knows that
test_flush_error_when_clean() {
	need_target flakey
	setup
	cp "$TMP/delta.vhdx" "$TMP/before"
	EVENTS=$(events c)
	io c f
	sick_all low flushes
	io c "f?EIO"
	has_failed c "$EVENTS"
	heal low
	changes_nothing c
	matches c
	suspend c
	cmp "$TMP/delta.vhdx" "$TMP/before" || fail "image has changed"
	# It says so by its state that it needs no recovery.
	resume c
	works c
	finish_good
}

# Everything is in the log
test_flush_error_after_commit() {
	need_target flakey
	setup
	EVENTS=$(events c)
	both c "w:50:100:SAFE" "w:$((3 * MIB + 8)):64:SAFE" f
	sick_all low flushes
	io c "f?EIO"
	has_failed c "$EVENTS"
	heal low
	changes_nothing c
	matches c
	deactivate c
	is_dirty
	recover
}

run_tests "$@"
