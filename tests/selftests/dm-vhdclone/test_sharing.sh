#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Who may use what at the same time, and taking devices away.
# Of the list in the project's kernel notes: 4 (a second device on one delta), 5 (clones that
# share a base), 19 (dmsetup remove -f under I/O).
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

SPEC='"size": "12M", "block_size": "1M", "free": "20M"'

setup() {
	raw base 12 BASE
	image delta "{$SPEC}"
	TOP=$(layer delta)
	BASE=$(raw_layer "$TMP/base.raw")
	LINE=$(table "$TOP" "$BASE")
	activate one "$LINE"
}

test_second_writer() {
	setup
	# Written to, it has a log to replay: one more reason to refuse it.
	refused "$LINE" 'busy|in use|already|active' || fail "second device on a clean delta"
	io one w:0:8:A
	refused "$LINE" 'busy|in use|already|active' || fail "second device on a delta"
	io one r:0:8:A w:8:8:B f
	# A table that is only loaded is no user.
	dmsetup create "$PREFIX-two" --notable
	dmsetup load "$PREFIX-two" --table "$LINE"
	klog_mark
	must_fail resume two
	klog_has 'vhdclone:.*(busy|in use|already|active)'
	# The first one goes: now the second may.
	deactivate one
	good "$TMP/delta.vhdx"
	dmsetup load "$PREFIX-two" --table "$LINE" 2>/dev/null || true
	resume two
	io two r:0:8:A r:8:8:B w:16:8:C f
	deactivate two
	good "$TMP/delta.vhdx"
}

# While one is suspended another may have the delta; then the first one has to wait
test_handover() {
	setup
	io one w:0:8:A
	suspend one
	activate two "$LINE"
	io two r:0:8:A w:8:8:B
	must_fail resume one
	io two w:16:8:C
	deactivate two
	resume one
	io one r:0:8:A r:8:8:B r:16:8:C w:24:8:D
	deactivate one
	good "$TMP/delta.vhdx"
}

# The delta of an active clone as a layer of another one would change under it
test_delta_as_layer() {
	local child
	setup
	image child "{$SPEC}"
	child=$(layer child)
	refused "$(table "$child" "$TOP" "$BASE")" 'busy|in use|already|active' ||
		fail "active delta as a layer, unwritten"
	io one w:0:8:A f
	refused "$(table "$child" "$TOP" "$BASE")" 'busy|in use|already|active|recover' ||
		fail "active delta as a layer"
	deactivate one
	activate two "$(table "$child" "$TOP" "$BASE")"
	io two r:0:8:A w:4:8:B
	# And the reverse: a layer that is in use may not be written.
	refused "$LINE" 'busy|in use|already|active' || fail "layer in use as a delta"
	# Reading it is fine.
	activate three "$LINE 1 read_only"
	io_ro three r:0:8:A
	deactivate three
	deactivate two
	activate one "$LINE"
	io one w:0:8:C
}

test_shared_base() {
	local i words
	image base '{"type": "dynamic", "size": "12M", "block_size": "2M",
		"blocks": {"0": {"state": 6, "fill": {"tag": "BASE"}},
			"3": {"state": 6, "fill": {"tag": "BASE"}}}}'
	vx merge "$TMP/base.raw" "$TMP/base.vhdx"
	words=$(layer base "$(loop "$TMP/base.vhdx" ro)")
	cp "$TMP/base.vhdx" "$TMP/before"
	for i in 1 2 3; do
		image "delta$i" '{"size": "12M", "block_size": "1M", "free": "2G"}'
		activate "c$i" "$(table "$(layer "delta$i")" "$words")"
	done
	for i in 1 2 3; do
		"$ORACLE" run "$(device "c$i")" --base "$TMP/base.raw" --block 1M --ops 250 \
			--seed "$i" --save "$TMP/state$i" &
	done
	for i in 1 2 3; do
		wait -n || fail "one of the oracles"
	done
	# One of them goes, the others do not notice.
	deactivate c2
	for i in 1 3; do
		"$ORACLE" verify "$(device "c$i")" --base "$TMP/base.raw" --state "$TMP/state$i"
		deactivate "c$i"
	done
	good "$TMP/delta1.vhdx" "$TMP/delta2.vhdx" "$TMP/delta3.vhdx"
	cmp "$TMP/base.vhdx" "$TMP/before" || fail "the base has changed"
}

# In use by something that is not a clone
test_busy_elsewhere() {
	raw base 12 BASE
	image delta "{$SPEC}"
	TOP=$(layer delta)
	BASE=$(raw_layer "$TMP/base.raw")
	need mkfs.ext4
	raw fs 12
	local dev
	dev=$(loop "$TMP/fs.raw")
	mkfs.ext4 -q "$dev"
	mkdir "$TMP/mnt"
	mount "$dev" "$TMP/mnt" || skip "no ext4"
	if dmsetup create "$PREFIX-x" --table "$(table "$TOP" "raw $dev 0 $((12 * MIB))")"; then
		umount "$TMP/mnt"
		fail "mounted file system as a base"
	fi
	umount "$TMP/mnt"
}

# The device itself below itself
test_loop() {
	setup
	local self
	self=$(devno "$(device one)")
	if dmsetup load "$PREFIX-one" --table "$(table "$TOP" "raw $self 0 $((12 * MIB))")"; then
		must_fail resume one
	fi
	dmsetup clear "$PREFIX-one"
	dmsetup resume "$PREFIX-one"
	io one w:0:8:A f r:0:8:A
}

has_blocks() {
	[ "$(status "$1" present)" -gt 2 ]
}

gone() {
	! dmsetup info "$PREFIX-$1" >/dev/null 2>&1 || dmsetup remove "$PREFIX-$1" 2>/dev/null
}

# remove -f swaps the table for one that fails all I/O, with I/O going on
test_remove_force() {
	local pid
	setup
	"$ORACLE" run "$(device one)" --base "$TMP/base.raw" --block 1M --seconds 20 --threads 3 \
		--errors-ok --no-final --mix r=40,w=40,s=5,f=5 --max 64K >"$TMP/log" 2>&1 &
	pid=$!
	wait_for 20 has_blocks one || true
	dmsetup remove -f "$PREFIX-one" || true
	kill "$pid" 2>/dev/null || true
	wait "$pid" || true
	wait_for 10 gone one
	good "$TMP/delta.vhdx"
	# Free again, and all of it there.
	activate one "$LINE"
	io one w:0:8:A r:0:8:A
}

# Deferred: gone when the last user goes
test_remove_deferred() {
	setup
	exec 7<>"$(device one)"
	dmsetup remove --deferred "$PREFIX-one"
	# Without udev its node is gone already.
	io /dev/fd/7 w:0:8:A f
	exec 7<&-
	wait_for 10 gone one || fail "still there"
	good "$TMP/delta.vhdx"
}

run_tests "$@"
