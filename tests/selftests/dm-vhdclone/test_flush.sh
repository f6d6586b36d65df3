#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# When does what was written become durable?  The image is looked at while it is in use,
# its log replayed in memory: what is in there then is what a crash would leave.
# Of the list in the project's kernel notes: 7 (flush on a cache-less delta), 8 (FUA),
# 9 (commit while writing).
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

setup() {
	raw base 24 BASE
	image delta '{"size": "24M", "block_size": "1M", "free": "40M", "garbage": true}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	DEV=${DEV:-$(loop "$TMP/delta.vhdx")}
	activate f "$(table "$(layer delta "$DEV")" "$(raw_layer "$TMP/base.raw")")"
}

# A crash now would leave all of this
durable() {
	vx check --quiet "$TMP/delta.vhdx" || fail "image is not valid"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

test_flush() {
	local i
	setup
	for i in 1 2 3 4 5; do
		both f w:$((i * 5000)):33:"A$i" w:$((i * 100)):1:"B$i"
		io f f
		durable
	done
	both f "w:$((20 * MIB)):$MIB:C" "z:0:$MIB"
	io f f
	durable
}

# Without a volatile cache below, the block layer would never pass a flush on
test_cacheless_delta() {
	local ram
	ram=$(ram 0)
	[ "$(<"/sys/block/${ram#/dev/}/queue/write_cache")" = "write through" ] || skip "$ram has a cache"
	raw base 24 BASE
	image delta '{"size": "24M", "block_size": "1M", "free": "40M"}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	dd if="$TMP/delta.vhdx" of="$ram" bs=1M oflag=direct status=none
	activate f "$(table "$(layer delta "$ram")" "$(raw_layer "$TMP/base.raw")")"
	both f w:100:8:A w:$((3 * MIB + 7)):100:A
	io f f
	vx check --quiet "$ram"
	holds "$ram" "raw:$TMP/base.raw"
	both f W:5000:8:B
	holds "$ram" "raw:$TMP/base.raw"
	deactivate f
	vx check --clean --quiet "$ram"
	holds "$ram" "raw:$TMP/base.raw"
}

# FUA: no flush follows, and this sector and its metadata are there all the same
test_fua() {
	local i
	setup
	for i in 1 2 3 4; do
		both f W:$((i * 4000)):8:"F$i"
		durable
	done
	# Of a block that exists, new sectors and old ones; a whole block; over zeros.
	both f W:4002:20:G
	durable
	both f W:4002:20:H
	durable
	both f "W:$((18 * MIB)):$MIB:I"
	durable
	both f "z:$((19 * MIB)):$MIB" W:$((19 * MIB + 9)):3:J
	durable
	# Written before without FUA: the bits of this sector are not durable yet.
	both f w:$((21 * MIB)):8:K W:$((21 * MIB)):8:L
	durable
}

# Nobody flushes: the timer does, after a second or so
test_timer() {
	setup
	both f w:100:8:A w:$((9 * MIB)):50:B
	sleep 3
	durable
	same_text "$(status f dirty)" 0 "dirty pages"
}

test_message() {
	setup
	both f w:100:8:A w:$((9 * MIB)):50:B
	message f commit
	durable
	both f w:300:8:A "w:$((10 * MIB)):$MIB:B"
	message f commit
	durable
}

# A flush with nothing to commit costs the flush and nothing more
test_idle_flush() {
	local commits writes
	setup
	io f w:100:8:A f f
	commits=$(status f commits)
	# In-place writes may still be under way.
	sleep 3
	io f f
	# Sectors: an empty flush counts as a write.
	writes=$(stat_of "$DEV" 7)
	io f f f f f
	same_text "$(status f commits)" "$commits" "commits of an idle clone"
	same_text "$(stat_of "$DEV" 7)" "$writes" "sectors written by an idle clone"
	# An overwrite of data that is there changes no metadata.
	io f w:100:8:B f w:101:3:C f
	same_text "$(status f commits)" "$commits" "commits after overwrites"
	same_text "$(($(stat_of "$DEV" 7) - writes))" 11 "sectors written by two overwrites"
}

# Many flushes at a time share commits
test_group_commit() {
	local commits
	setup
	io f w:100:8:A f
	commits=$(status f commits)
	"$ORACLE" run "$(device f)" --base "$TMP/base.raw" --threads 8 --ops 400 --max 4K \
		--mix w=1,f=1 --window $((2 * MIB)):$((16 * MIB))
	commits=$(($(status f commits) - commits))
	between "$commits" 1 300 "commits for about 200 flushes"
}

# Commits with writes under way, over a slow delta: bits may only be committed for
# writes that have completed.  Each image taken is judged like after a crash.
test_commit_while_writing() {
	need_target delay
	local i
	raw base 24 BASE
	image delta '{"size": "24M", "block_size": "1M", "free": "200M", "garbage": true}'
	DEV=$(loop "$TMP/delta.vhdx")
	activate slow "0 $(blockdev --getsz "$DEV") delay $DEV 0 0 $DEV 0 15 $DEV 0 10"
	activate f "$(table "$(layer delta "$(device slow)")" "$(raw_layer "$TMP/base.raw")")"
	"$ORACLE" run "$(device f)" --base "$TMP/base.raw" --block 1M --threads 6 --ops 700 \
		--mix r=5,w=40,s=5,f=5 --max 64K --journal "$TMP/journal" \
		--live-every 120 \
		--live-hook "cp $TMP/journal $TMP/crash\$ORACLE_EVENT.journal; cp --sparse=always $TMP/delta.vhdx $TMP/crash\$ORACLE_EVENT.vhdx"
	deactivate f
	good "$TMP/delta.vhdx"
	for i in 1 2 3 4 5; do
		vx check --quiet "$TMP/crash$i.vhdx" || fail "crash image $i"
		vx merge "$TMP/crash.raw" "$TMP/crash$i.vhdx" "raw:$TMP/base.raw"
		"$ORACLE" verify "$TMP/crash.raw" --base "$TMP/base.raw" --crash \
			--state "$TMP/crash$i.journal" || fail "crash image $i"
	done
}

# The smallest log there is, and commits larger than it: it wraps and fills many times
test_log_wraps() {
	local i ops=()
	raw base 700
	image delta '{"size": "700M", "block_size": "1M", "free": "760M", "garbage": true}'
	cp "$TMP/base.raw" "$TMP/expected.raw"
	DEV=$(loop "$TMP/delta.vhdx")
	activate f "$(table "$(layer delta "$DEV")" "$(raw_layer "$TMP/base.raw")")"
	for ((i = 0; i < 600; i++)); do
		ops+=("w:$((i * MIB + i)):1:W")
		[ $((i % 3)) != 0 ] || ops+=("f")
	done
	io f "${ops[@]}"
	"$ORACLE" io "$TMP/expected.raw" "${ops[@]}"
	io f f
	durable
	deactivate f
	good "$TMP/delta.vhdx"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# One flush for a great many dirty pages: 256 MiB blocks dirty 16 bitmap pages each
test_large_commit() {
	local i ops=()
	raw base $((64 * 256))
	image delta '{"size": "16G", "block_size": "256M", "free": "17000M"}'
	cp --sparse=always "$TMP/base.raw" "$TMP/expected.raw"
	DEV=$(loop "$TMP/delta.vhdx")
	activate f "$(table "$(layer delta "$DEV")" "$(raw_layer "$TMP/base.raw")")"
	for ((i = 0; i < 60; i++)); do
		ops+=("w:$((i * 256 * MIB + 1000 * i)):3:W")
	done
	both f "${ops[@]}"
	io f f
	durable
	deactivate f
	good "$TMP/delta.vhdx"
}

run_tests "$@"
