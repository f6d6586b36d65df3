#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Suspend, resume, reload, close: whoever looks at the delta then finds a clean, complete
# VHDX, and whatever was changed in it meanwhile is seen afterwards.
# Of the list in the project's kernel notes: 2 (reload with dirty metadata), 3 (image swapped
# while suspended).
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

SPEC='"size": "12M", "block_size": "1M", "free": "20M", "seed": 9'

setup() {
	raw base 12 BASE
	image delta "{$SPEC}"
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	TOP=$(layer delta)
	BASE=$(raw_layer "$TMP/base.raw")
	LINE=$(table "$TOP" "$BASE")
	activate s "$LINE"
}

clean_and_complete() {
	good "$TMP/delta.vhdx"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

header() {
	vx info "$TMP/delta.vhdx" | sed -n 's/^ "'"$1"'": "\?\([^",]*\)"\?,\?$/\1/p'
}

# A session without a write leaves the image as it was, to the last bit
test_unwritten() {
	setup
	cp "$TMP/delta.vhdx" "$TMP/before"
	matches s
	io s f r:0:8:BASE f
	message s commit
	suspend s
	resume s
	suspend s --noflush --nolockfs
	resume s
	reload s "$LINE"
	matches s
	deactivate s
	cmp "$TMP/delta.vhdx" "$TMP/before" || fail "not identical"
}

test_suspend() {
	local i
	setup
	for i in 1 2 3; do
		both s "w:$((i * 3000)):50:A$i" "w:$((i * MIB * 2)):$MIB:B$i"
		suspend s
		clean_and_complete
		resume s
		matches s
	done
	both s w:77:5:C
	suspend s --noflush --nolockfs
	clean_and_complete
	resume s
	both s w:99:5:D
	deactivate s
	clean_and_complete
}

# While written the log is in use; each session has its own GUIDs
test_session() {
	local fw dw seq
	setup
	fw=$(header file_write_guid) dw=$(header data_write_guid) seq=$(header seq)
	io s w:0:8:A f
	[ "$(header log_guid)" != 00000000-0000-0000-0000-000000000000 ] || fail "LogGuid is zero"
	[ "$(header file_write_guid)" != "$fw" ] || fail "same FileWriteGuid"
	[ "$(header data_write_guid)" != "$dw" ] || fail "same DataWriteGuid"
	[ "$(header seq)" -ge $((seq + 2)) ] || fail "sequence number"
	fw=$(header file_write_guid) dw=$(header data_write_guid)
	# More writes are the same session.
	io s w:90:8:A f
	same_text "$(header data_write_guid)" "$dw" "DataWriteGuid in a session"
	suspend s
	same_text "$(header log_guid)" 00000000-0000-0000-0000-000000000000 LogGuid
	same_text "$(header data_write_guid)" "$dw" "DataWriteGuid after it"
	resume s
	io s r:0:8:A f
	same_text "$(header file_write_guid)" "$fw" "FileWriteGuid after reads"
	io s w:20:8:A
	message s commit
	[ "$(header file_write_guid)" != "$fw" ] || fail "same FileWriteGuid in the next session"
	[ "$(header data_write_guid)" != "$dw" ] || fail "same DataWriteGuid in the next session"
	deactivate s
	good "$TMP/delta.vhdx"
	# An overwrite of what is there needs no log, but children must notice it.
	dw=$(header data_write_guid)
	activate s "$LINE"
	io s w:20:8:B f
	[ "$(header data_write_guid)" != "$dw" ] || fail "same DataWriteGuid after an overwrite"
	deactivate s
	good "$TMP/delta.vhdx"
}

# The new table is loaded, and its constructor run, while the old one is live and dirty
test_reload_dirty() {
	setup
	both s w:0:8:A
	dmsetup load "$PREFIX-s" --table "$LINE"
	both s w:$((3 * MIB)):100:B "w:$((5 * MIB)):$MIB:C"
	resume s
	matches s
	clean_and_complete
	# Other features, another layer in between.
	both s w:200:8:D
	dmsetup load "$PREFIX-s" --table "$LINE 3 low_water_mark 1 no_discard_passdown"
	both s w:300:8:E
	resume s
	matches s
	both s w:400:8:F
	reload s "$LINE"
	matches s
	# A table that is loaded and never resumed does no harm.
	dmsetup load "$PREFIX-s" --table "$LINE"
	both s w:500:8:G
	dmsetup clear "$PREFIX-s"
	both s w:600:8:H f
	matches s
	deactivate s
	clean_and_complete
}

# A live snapshot: a child of the delta is put on top while it is suspended
test_live_snapshot() {
	local child
	setup
	both s w:0:8:A w:$((2 * MIB)):100:A
	image child "{$SPEC}"
	child=$(layer child)
	suspend s
	clean_and_complete
	dmsetup load "$PREFIX-s" --table "$(table "$child" "$TOP" "$BASE")"
	resume s
	matches s
	cp "$TMP/delta.vhdx" "$TMP/before"
	both s w:4:8:B w:$((4 * MIB)):8:B f
	matches s
	deactivate s
	cmp "$TMP/delta.vhdx" "$TMP/before" || fail "the frozen layer has changed"
	good "$TMP/child.vhdx" "$TMP/delta.vhdx"
	holds "$TMP/child.vhdx" "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# Edited while suspended (legally): resume sees it
test_edited() {
	setup
	io s w:0:8:A f
	suspend s
	image other "{$SPEC"', "blocks": {"7": {"state": 6, "fill": {"tag": "EDIT"}},
		"0": {"state": 7, "sectors": [[4, 2]], "fill": {"tag": "EDIT"}}}}'
	truncate -s "$(stat -c %s "$TMP/delta.vhdx")" "$TMP/other.vhdx"
	cat "$TMP/other.vhdx" >"$TMP/delta.vhdx"
	resume s
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	matches s
	both s w:60:8:B "w:$((7 * MIB + 9)):9:B" f
	deactivate s
	clean_and_complete
}

# Swapped for something that the table does not describe: refused, and the device stays
# suspended until there is a table that fits
test_swapped() {
	setup
	io s w:0:8:A f
	suspend s
	cp "$TMP/delta.vhdx" "$TMP/keep.vhdx"
	image other '{"size": "12M", "block_size": "2M", "free": "9M"}'
	truncate -s "$(stat -c %s "$TMP/delta.vhdx")" "$TMP/other.vhdx"
	cat "$TMP/other.vhdx" >"$TMP/delta.vhdx"
	klog_mark
	must_fail resume s
	klog_has 'vhdclone:.*(block|size|geometry)'
	# A dirty log, as from a crash of somebody else in between.
	cat "$TMP/keep.vhdx" >"$TMP/delta.vhdx"
	vx set "$TMP/delta.vhdx" headers.log_guid=11111111-2222-3333-4444-555555555555
	klog_mark
	must_fail resume s
	klog_has 'vhdclone:.*recover'
	dd if=/dev/zero of="$TMP/delta.vhdx" bs=64K count=1 conv=notrunc status=none
	must_fail resume s
	# Put right again.
	cat "$TMP/keep.vhdx" >"$TMP/delta.vhdx"
	resume s
	io s r:0:8:A r:8:8:BASE w:16:8:B f
	deactivate s
	good "$TMP/delta.vhdx"
}

# Suspend with I/O in flight, again and again
test_under_load() {
	SPEC='"size": "12M", "block_size": "1M", "free": "2G"'
	setup
	"$ORACLE" run "$(device s)" --base "$TMP/base.raw" --block 1M --ops 900 --threads 3 \
		--mix r=30,w=40,s=2,z=2,f=2 --max 256K \
		--live-every 150 --live-hook "dmsetup suspend $PREFIX-s && dmsetup resume $PREFIX-s"
	deactivate s
	good "$TMP/delta.vhdx"
}

# Grown by its owner: suspend, longer table on a larger image, resume
test_grow() {
	setup
	both s w:$((11 * MIB)):100:A
	suspend s
	image big '{"size": "16M", "block_size": "1M", "free": "16M", "seed": 9,
		"blocks": {"11": {"state": 7, "sectors": [[0, 100]], "fill": {"tag": "A"}}}}'
	cat "$TMP/big.vhdx" >"$TMP/delta.vhdx"
	vx loop-grow "$(cut -d" " -f2 <<<"$TOP")"
	TOP=$(layer big "$(cut -d' ' -f2 <<<"$TOP")")
	dmsetup load "$PREFIX-s" --table "$(table "$TOP" "$BASE")"
	resume s
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	matches s
	both s w:$((15 * MIB)):$((MIB / 2)):B f
	matches s
	deactivate s
	clean_and_complete
}

run_tests "$@"
