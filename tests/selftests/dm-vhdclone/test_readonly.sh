#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Read-only: the feature, tables loaded with --readonly, devices that are.
# Of the list in the project's kernel notes: 17 (read-only with a log that is not empty).
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

setup() {
	raw base 8 BASE
	image delta '{"size": "8M", "block_size": "1M", "free": "4M", "garbage": true,
		"blocks": {"1": {"state": 6, "fill": {"tag": "OLD"}}, "3": 2,
			"2": {"state": 7, "sectors": [[5, 6]], "fill": {"tag": "OLD"}}}}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	cp "$TMP/delta.vhdx" "$TMP/before"
}

# No write gets through, and not a bit of the image changes
nothing_written() {
	matches ro
	must_fail io ro w:0:8:A
	must_fail io ro w:$((2 * MIB)):8:A
	must_fail io ro "z:0:$MIB"
	must_fail io ro "d:$MIB:$MIB"
	io_ro ro r:0:8:BASE
	suspend ro
	resume ro
	matches ro
	deactivate ro
	cmp "$TMP/delta.vhdx" "$TMP/before" || fail "the image has changed"
}

test_feature() {
	setup
	activate ro "$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")" -- read_only)"
	same_text "$(status ro mode)" ro mode
	nothing_written
}

test_readonly_table() {
	setup
	activate ro "$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")")" --readonly
	same_text "$(status ro mode)" ro mode
	same_text "$(blockdev --getro "$(device ro)")" 1 "blockdev --getro"
	nothing_written
}

test_readonly_devices() {
	local top
	setup
	top=$(layer delta "$(loop "$TMP/delta.vhdx" ro)")
	activate ro "$(table "$top" "$(raw_layer "$TMP/base.raw")")" --readonly
	nothing_written
	# A writable table over it: device-mapper itself does not mind.
	if refused "$(table "$top" "$(raw_layer "$TMP/base.raw")")"; then
		return
	fi
	activate ro "$(table "$top" "$(raw_layer "$TMP/base.raw")")"
	matches ro
	must_fail io ro w:0:8:A f
	must_fail io ro w:0:8:A f
	matches ro
	deactivate ro
	cmp "$TMP/delta.vhdx" "$TMP/before" || fail "the image has changed"
}

# The same image read-only in several places, and in none when it is written
test_shared() {
	local base
	setup
	base=$(raw_layer "$TMP/base.raw")
	TOP=$(layer delta)
	activate ro "$(table "$TOP" "$base" -- read_only)"
	activate ro2 "$(table "$TOP" "$base")" --readonly
	matches ro2
	nothing_written
	deactivate ro2
}

# Read-write afterwards, in one device
test_reload_rw() {
	local top base
	setup
	top=$(layer delta)
	base=$(raw_layer "$TMP/base.raw")
	activate ro "$(table "$top" "$base" -- read_only)"
	must_fail io ro w:0:8:A
	reload ro "$(table "$top" "$base")"
	same_text "$(status ro mode)" rw mode
	both ro w:0:8:A w:$((2 * MIB)):8:A f
	reload ro "$(table "$top" "$base" -- read_only)"
	matches ro
	must_fail io ro w:8:8:A
	good "$TMP/delta.vhdx"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# Nothing in the kernel replays a log
test_dirty_log() {
	local top
	raw base 8 BASE
	image delta '{"size": "8M", "block_size": "1M", "free": "4M", "dirty": {},
		"blocks": {"1": {"state": 6, "fill": {"tag": "OLD"}},
			"2": {"state": 7, "sectors": [[5, 6]], "fill": {"tag": "OLD"}}}}'
	cp "$TMP/delta.vhdx" "$TMP/before"
	top=$(layer delta)
	refused "$(table "$top" "$(raw_layer "$TMP/base.raw")")" recover ||
		fail "read-write"
	refused "$(table "$top" "$(raw_layer "$TMP/base.raw")" -- read_only)" recover ||
		fail "read-only"
	# As a layer below, too.
	image top '{"size": "8M", "block_size": "1M", "free": "4M"}'
	refused "$(table "$(layer top)" "$top" "$(raw_layer "$TMP/base.raw")")" recover ||
		fail "below"
	cmp "$TMP/delta.vhdx" "$TMP/before" || fail "the image has changed"
	# Replayed by somebody else it is fine.
	vx replay "$TMP/delta.vhdx"
	activate d "$(table "$top" "$(raw_layer "$TMP/base.raw")")"
	io d "r:$MIB:$MIB:OLD" r:$((2 * MIB + 5)):6:OLD r:$((2 * MIB + 11)):6:BASE
}

run_tests "$@"
