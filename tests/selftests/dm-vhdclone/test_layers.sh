#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What a read sees through every kind of layer, and through many of them.
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

# session(layer words...): write a little, close, and compare everything; needs
# $TMP/expected.raw and FILES, top first
session() {
	activate l "$(table "$@")"
	matches l
	both l w:5:3:TOP "w:$((2 * MIB)):$MIB:TOP" w:$((5 * MIB - 4)):8:TOP f
	matches l
	holds "${FILES[@]}"
	deactivate l
	good "${FILES[0]}"
	holds "${FILES[@]}"
}

BLOCKS='"0": {"state": 6, "fill": {"tag": "BASE"}}, "2-4": {"state": 6, "fill": {"tag": "BASE"}},
	"5": 2, "6": {"state": 1, "at": 40, "fill": {"tag": "GONE"}},
	"7": {"state": 3, "at": 41, "fill": {"tag": "GONE"}}'
TOP='"size": "10M", "block_size": "1M", "free": "10M", "garbage": true, "stale_bits": true,
	"blocks": {"1": {"state": 6, "fill": {"tag": "TOP1"}}, "3": 2,
		"4": {"state": 7, "sectors": [[9, 100], [2000, 48]], "fill": {"tag": "TOP1"}}}'

test_on_raw() {
	raw base 10 BASE
	image top "{$TOP}"
	FILES=("$TMP/top.vhdx" "raw:$TMP/base.raw")
	expect "${FILES[@]}"
	session "$(layer top)" "$(raw_layer "$TMP/base.raw")"
}

# A raw layer that starts in the middle of its device
test_on_raw_offset() {
	local dev
	raw disk 14 JUNK
	raw base 10 BASE
	dd if="$TMP/base.raw" of="$TMP/disk.raw" bs=512 seek=4321 conv=notrunc status=none
	image top "{$TOP}"
	FILES=("$TMP/top.vhdx" "raw:$TMP/base.raw")
	expect "${FILES[@]}"
	dev=$(loop "$TMP/disk.raw" ro)
	session "$(layer top)" "raw $dev 4321 $((10 * MIB))"
}

on_vhdx() {
	image base "$1"
	image top "{$TOP}"
	cp "$TMP/base.vhdx" "$TMP/before"
	FILES=("$TMP/top.vhdx" "$TMP/base.vhdx")
	expect "${FILES[@]}"
	session "$(layer top)" "$(layer base "$(loop "$TMP/base.vhdx" ro)")"
	cmp "$TMP/base.vhdx" "$TMP/before" || fail "the base has changed"
}

test_on_fixed() {
	on_vhdx '{"type": "fixed", "size": "10M", "block_size": "1M", "order": "shuffle",
		"default": {"state": 6, "fill": {"tag": "BASE"}}}'
}

test_on_dynamic() {
	on_vhdx '{"type": "dynamic", "size": "10M", "block_size": "1M", "garbage": true,
		"order": "down", "blocks": {'"$BLOCKS"'}}'
}

# A top without a parent
test_top_fixed() {
	image top '{"type": "fixed", "size": "10M", "block_size": "1M",
		"default": {"state": 6, "fill": {"tag": "TOP1"}}}'
	FILES=("$TMP/top.vhdx")
	expect "${FILES[@]}"
	session "$(layer top)"
}

test_top_dynamic() {
	image top '{"type": "dynamic", "size": "10M", "block_size": "1M", "capacity": "60M",
		"garbage": true, "blocks": {'"$BLOCKS"'}}'
	FILES=("$TMP/top.vhdx")
	expect "${FILES[@]}"
	session "$(layer top)"
}

# A differencing image whose parent is not in the table: partial blocks have no other half
test_parent_missing() {
	raw base 10 BASE
	image top "{$TOP}"
	image base "{$TOP}"
	refused "$(table "$(layer top)")" "parent|partial|differencing" || fail "alone"
	refused "$(table "$(layer top)" "$(layer base "$(loop "$TMP/base.vhdx" ro)")")" "parent|partial|differencing" ||
		fail "at the bottom"
}

# And the reverse: an image without a parent hides what is below; nothing may be there
test_parent_not_wanted() {
	raw base 10 BASE
	image top '{"type": "dynamic", "size": "10M", "block_size": "1M", "free": "9M"}'
	refused "$(table "$(layer top)" "$(raw_layer "$TMP/base.raw")")" "parent|differencing" ||
		fail "a dynamic image over a base"
}

# deep(n): n differencing layers of different block sizes on a raw base.  Each has a few
# blocks and a few sectors, and hides something with ZERO.
deep() {
	local n=$1 i sizes=(1M 2M 1M 4M) words=() b
	raw base 24 BASE
	FILES=("raw:$TMP/base.raw")
	words=("$(raw_layer "$TMP/base.raw")")
	for ((i = 1; i <= n; i++)); do
		b=$((i % 4))
		image "l$i" '{"size": "24M", "block_size": "'"${sizes[$b]}"'", "free": "12M",
			"garbage": true, "seed": '"$i"', "order": "shuffle",
			"blocks": {"'$((i % 3))'": {"state": 6, "fill": {"tag": "L'"$i"'"}},
			"'$((3 + i % 2))'": {"state": 7, "fill": {"tag": "L'"$i"'"},
				"sectors": [['$((i * 37))', 50], ['$((900 + i * 11))', 13]]},
			"5": '$((i == 2 ? 2 : 0))'}}'
		FILES=("$TMP/l$i.vhdx" "${FILES[@]}")
		if [ "$i" = "$n" ]; then
			words=("$(layer "l$i")" "${words[@]}")
		else
			words=("$(layer "l$i" "$(loop "$TMP/l$i.vhdx" ro)")" "${words[@]}")
		fi
	done
	expect "${FILES[@]}"
	session "${words[@]}"
	rm "$TMP"/*.vhdx
}

test_depth_2() {
	deep 2
}

test_depth_3() {
	deep 3
}

test_depth_8() {
	deep 8
}

# Each layer smaller or larger than the one above, with odd ends: past a layer's end
# there are zeros, whatever lies below it
test_sizes() {
	local m1 m2
	m1=$((6 * 1048576 + 512 * 33))
	m2=$((9 * 1048576 + 512 * 5))
	raw base 12 BASE
	image m2 '{"size": '"$m2"', "block_size": "2M", "blocks": {
		"4": {"state": 7, "sectors": [[0, 10], [2048, 5]], "fill": {"tag": "M2"}}}}'
	image m1 '{"size": '"$m1"', "block_size": "1M", "blocks": {
		"6": {"state": 7, "sectors": [[0, 5], [32, 1]], "fill": {"tag": "M1"}}}}'
	image top '{"size": "11M", "block_size": "2M", "free": "9M", "garbage": true,
		"blocks": {"0": {"state": 7, "sectors": [[5, 7]], "fill": {"tag": "T"}}}}'
	FILES=("$TMP/top.vhdx" "$TMP/m1.vhdx" "$TMP/m2.vhdx" "raw:$TMP/base.raw")
	expect "${FILES[@]}"
	session "$(layer top)" "$(layer m1)" "$(layer m2)" "$(raw_layer "$TMP/base.raw")"
	# Without the small one in between more of the base shows.
	image top2 '{"size": "14M", "block_size": "1M", "free": "9M", "garbage": true}'
	FILES=("$TMP/top2.vhdx" "$TMP/m2.vhdx" "raw:$TMP/base.raw")
	expect "${FILES[@]}"
	session "$(layer top2)" "$(layer m2)" "$(raw_layer "$TMP/base.raw")"
}

# A raw base whose size is not a multiple of anything
test_odd_raw() {
	raw base 4 BASE
	truncate -s $((3 * 1048576 + 512 * 77)) "$TMP/base.raw"
	image top '{"size": "8M", "block_size": "1M", "free": "9M", "garbage": true}'
	FILES=("$TMP/top.vhdx" "raw:$TMP/base.raw")
	expect "${FILES[@]}"
	session "$(layer top)" "$(raw_layer "$TMP/base.raw")"
}

run_tests "$@"
