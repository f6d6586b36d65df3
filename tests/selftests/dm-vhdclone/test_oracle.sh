#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Do the tests see what they are there for?  The data oracle and the helpers against
# devices that are known to be right (linear, snapshot) and known to be wrong.

# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"
# shellcheck disable=SC2034
WITHOUT_TARGET=y
SIZE=16		# MiB

linear() {
	echo "0 $((SIZE * MIB)) linear $1 0"
}

# A device of SIZE MiB over a loop; sets LOOP
make_linear() {
	raw disk "$SIZE"
	LOOP=$(loop "$TMP/disk.raw")
	activate lin "$(linear "$LOOP")"
}

run_oracle() {
	"$ORACLE" run "$(device lin)" --ops 800 --seed 3 "$@"
}

test_right_device() {
	make_linear
	run_oracle --save "$TMP/state"
	"$ORACLE" verify "$(device lin)" --state "$TMP/state"
}

test_hooks() {
	make_linear
	run_oracle --threads 2 \
		--live-every 200 --live-hook "dmsetup suspend $PREFIX-lin && dmsetup resume $PREFIX-lin" \
		--quiet-every 300 --quiet-hook "dmsetup remove $PREFIX-lin && dmsetup create $PREFIX-lin --table '$(linear "$LOOP")'"
	must_fail run_oracle --quiet-every 300 --quiet-hook false
}

# dm-snapshot is a clone, too: base below, writes beside it
test_snapshot() {
	need_target snapshot
	raw base "$SIZE" BASE
	raw cow $((2 * SIZE))
	activate snap "0 $((SIZE * MIB)) snapshot $(loop "$TMP/base.raw" ro) $(loop "$TMP/cow.raw") P 8"
	"$ORACLE" run "$(device snap)" --base "$TMP/base.raw" --ops 500
}

test_broken_model() {
	make_linear
	must_fail run_oracle --break-model
}

test_corrupt_sector() {
	make_linear
	run_oracle --save "$TMP/state"
	printf X | dd of="$TMP/disk.raw" bs=1 seek=$((4711 * 512 + 300)) conv=notrunc status=none
	must_fail "$ORACLE" verify "$(device lin)" --state "$TMP/state"
}

# A sector of another place, and an old one
test_wrong_sectors() {
	make_linear
	run_oracle --mix w=1 --ops 400 --save "$TMP/state"
	cp "$TMP/disk.raw" "$TMP/old.raw"
	dd if="$TMP/old.raw" of="$TMP/disk.raw" bs=512 count=1 skip=20 seek=4000 conv=notrunc status=none
	must_fail "$ORACLE" verify "$(device lin)" --state "$TMP/state"
	cp "$TMP/old.raw" "$TMP/disk.raw"
	run_oracle --mix w=1 --ops 400 --state "$TMP/state" --save "$TMP/state2"
	"$ORACLE" verify "$(device lin)" --state "$TMP/state2"
	cp "$TMP/old.raw" "$TMP/disk.raw"
	must_fail "$ORACLE" verify "$(device lin)" --state "$TMP/state2"
}

# Writes that are lost
test_lost_writes() {
	need_target flakey
	raw disk "$SIZE"
	local loop
	loop=$(loop "$TMP/disk.raw")
	activate lin "0 $((SIZE * MIB)) flakey $loop 0 0 60 1 drop_writes"
	must_fail run_oracle
}

# After a crash each sector may be durable or newer, and never older
test_crash_model() {
	make_linear
	run_oracle --ops 600 --mix w=20,z=2,f=1 --journal "$TMP/journal" --no-final
	cp "$TMP/disk.raw" "$TMP/end.raw"
	cp "$TMP/journal" "$TMP/end.journal"
	"$ORACLE" verify "$(device lin)" --crash --state "$TMP/journal"
	# The last line of a journal may be cut.
	printf 'd w 99' >>"$TMP/journal"
	"$ORACLE" verify "$(device lin)" --crash --state "$TMP/journal" --save "$TMP/state"
	# What was found is a state to go on from.
	run_oracle --ops 300 --state "$TMP/state" --journal "$TMP/journal"
	"$ORACLE" verify "$(device lin)" --crash --state "$TMP/journal"
	# All writes gone: the flushed ones are missed ...
	truncate -s 0 "$TMP/disk.raw"
	truncate -s "${SIZE}M" "$TMP/disk.raw"
	must_fail "$ORACLE" verify "$(device lin)" --crash --state "$TMP/journal"
	# ... and if nothing was flushed they are not.
	raw disk2 "$SIZE"
	activate lin2 "$(linear "$(loop "$TMP/disk2.raw")")"
	"$ORACLE" run "$(device lin2)" --mix w=1 --journal "$TMP/journal" --no-final
	truncate -s 0 "$TMP/disk2.raw"
	truncate -s "${SIZE}M" "$TMP/disk2.raw"
	"$ORACLE" verify "$(device lin2)" --crash --state "$TMP/journal"
	# Sectors of one write in any mixture; half a sector never.
	cp "$TMP/end.raw" "$TMP/disk.raw"
	printf X | dd of="$TMP/disk.raw" bs=1 seek=$((77 * 512 + 9)) conv=notrunc status=none
	must_fail "$ORACLE" verify "$(device lin)" --crash --state "$TMP/end.journal"
}

# A discard may leave old, base or zeros in whole blocks, and nothing else anywhere
test_discard_model() {
	local all=0:$((SIZE * MIB))
	make_linear
	"$ORACLE" run "$(device lin)" --ops 300 --mix w=1 --save "$TMP/state"
	"$ORACLE" run "$(device lin)" --ops 40 --mix d=1 --state "$TMP/state" \
		--save "$TMP/state2" --no-final || fail "discards"
	io lin "w:$all:JUNK"
	must_fail "$ORACLE" verify "$(device lin)" --state "$TMP/state2"
}

test_io_commands() {
	make_linear
	raw expected "$SIZE"
	both lin w:0:100:AAAA W:100:8:BBBB w:2048:2048:CCCC z:50:10 f
	io lin r:0:50:AAAA r:50:10:0 r:60:40:AAAA r:100:8:BBBB r:108:4:0 r:2048:2048:CCCC
	matches lin
	must_fail io lin r:0:60:AAAA
	must_fail io lin "w:0:8:X?EIO"
	io lin "w:$((SIZE * MIB)):8:X?ENOSPC"
	io lin w:5:1:Z
	must_fail "$ORACLE" cmp "$(device lin)" "$TMP/expected.raw"
	dmsetup load "$PREFIX-lin" --table "0 $((SIZE * MIB)) error"
	resume lin
	io lin "r:0:8:AAAA?EIO" "w:0:8:AAAA?EIO"
}

# The builder, the checker and the reader, in the interpreter of this guest
test_images() {
	raw base 12 BASE
	image delta '{"size": "12M", "block_size": "1M", "free": "8M", "garbage": true,
		"blocks": {"0": {"state": 7, "sectors": [[3, 5]], "fill": {"tag": "P"}},
			   "1": {"state": 6, "fill": {"tag": "F"}}, "2": 2}}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	good "$TMP/delta.vhdx"
	states "$TMP/delta.vhdx" 0 3 7620
	"$ORACLE" io "$TMP/expected.raw" r:0:3:BASE r:3:5:P r:8:2040:BASE r:2048:2048:F \
		r:4096:2048:0 r:6144:100:BASE
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	"$ORACLE" io "$TMP/expected.raw" w:7:1:X
	must_fail vx compare "$TMP/expected.raw" "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	vx set "$TMP/delta.vhdx" "block[1].state=5"
	must_fail vx check --quiet "$TMP/delta.vhdx"
	must_fail vx no-such-command
}

run_tests "$@"
