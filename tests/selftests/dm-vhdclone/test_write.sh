#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What a write does to a block, by the state the block is in: every cell of the
# table, with and without a parent.  Judged by reads through the clone, by the image
# while it is in use (log replayed in memory), and by the image after the close.
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

P='"fill": {"tag": "OLD"}'

# A block of 1 MiB for each case.  Anchored: states 1 and 3 may keep a place with old
# content, and it is the block's own.
BLOCKS='
	"3": 1, "4": 1, "7": 2, "8": 2, "9": 3, "10": 3,
	"5": {"state": 1, "at": 90, '$P'}, "6": {"state": 1, "at": 91, '$P'},
	"11": {"state": 3, "at": 92, '$P'}, "12": {"state": 3, "at": 93, '$P'},
	"13": {"state": 6, '$P'}, "14": {"state": 6, '$P'},
	"21": {"state": 6, '$P'}, "22": {"state": 3, "at": 94, '$P'}, "23": 2, "24": 1'
PARTIAL='
	"15": {"state": 7, '$P', "sectors": [[0, 64], [1000, 8], [2040, 8]]},
	"16": {"state": 7, '$P', "sectors": [[0, 64], [1000, 8], [2040, 8]]},
	"17": {"state": 7, '$P', "sectors": [[0, 64], [1000, 8], [2040, 8]]},
	"18": {"state": 7, '$P', "sectors": [[0, 64], [1000, 8], [2040, 8]]},
	"20": {"state": 7, '$P', "sectors": [[0, 64], [1000, 8], [2040, 8]]}'

# The writes of one column each; sizes are multiples of 4 KiB for 4096-byte sectors.
write_all() {
	local b ops=()
	# partial
	for b in 0 3 5 7 9 11 13; do
		ops+=("w:$((b * MIB + 808)):16:NEW" "W:$((b * MIB + 2040)):8:NEWF")
	done
	# whole block in one request
	for b in 1 4 6 8 10 12 14 17; do
		ops+=("w:$((b * MIB)):$MIB:NEW")
	done
	# whole block in pieces
	ops+=("w:$((2 * MIB + 1024)):1024:NEW" "w:$((2 * MIB)):1024:NEW")
	# only sectors that are there; some that are not; all that are not
	ops+=("w:$((15 * MIB + 8)):16:NEW" "w:$((15 * MIB + 1000)):8:NEW")
	ops+=("w:$((16 * MIB + 56)):16:NEW" "w:$((16 * MIB + 960)):80:NEW")
	ops+=("w:$((18 * MIB + 64)):936:NEW" "w:$((18 * MIB + 1008)):1032:NEW")
	both "$1" "${ops[@]}"
}

# check(states of blocks 0-24, image, layers below...)
check() {
	local want=$1
	shift
	matches w
	write_all w
	matches w
	io w f
	# The session is open: what a crash now would leave.
	vx check --quiet "$1" || fail "image in use is not valid"
	holds "$@"
	matches w
	deactivate w
	good "$1"
	states "$1" 0 24 "$want"
	holds "$@"
}

# bits(image, block, want): how many sector bits are set
bits() {
	same_text "$(vx blocks "$1" "$2" "$2" | awk 'NR == 1 { print $4 }')" "$3" \
		"bits of block $2"
}

child() {
	raw base 25 BASE
	image delta '{"size": "25M", "block_size": "1M", "lss": '"$1"', "capacity": "96M",
		"garbage": true, "stale_bits": true, "tail_bits": true,
		"blocks": {'"$BLOCKS,$PARTIAL"'}}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	activate w "$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")")"
	# States 1 and 3 that nobody wrote to may stay or become 2.
	check '76{14}7766076[23]2[12]' "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

test_child() {
	child 512
	# Exactly the written sectors, whatever the bits were before.
	bits "$TMP/delta.vhdx" 0 24
	bits "$TMP/delta.vhdx" 15 80
	bits "$TMP/delta.vhdx" 16 $((80 + 8 + 72))
	bits "$TMP/delta.vhdx" 20 80
}

test_child_sectors_4096() {
	PARTIAL='
	"15": {"state": 7, '$P', "sectors": [[0, 8], [125, 1], [255, 1]]},
	"16": {"state": 7, '$P', "sectors": [[0, 8], [125, 1], [255, 1]]},
	"17": {"state": 7, '$P', "sectors": [[0, 8], [125, 1], [255, 1]]},
	"18": {"state": 7, '$P', "sectors": [[0, 8], [125, 1], [255, 1]]},
	"20": {"state": 7, '$P', "sectors": [[0, 8], [125, 1], [255, 1]]}'
	child 4096
	bits "$TMP/delta.vhdx" 0 3
	bits "$TMP/delta.vhdx" 15 10
	bits "$TMP/delta.vhdx" 16 20
}

# Without a parent nothing is ever partial, and the rest of a new block is zeros
test_dynamic() {
	image top '{"type": "dynamic", "size": "25M", "block_size": "1M", "capacity": "96M",
		"garbage": true, "blocks": {'"$BLOCKS"'}}'
	expect "$TMP/top.vhdx"
	activate w "$(table "$(layer top)")"
	check '6{19}006[23]2[12]' "$TMP/top.vhdx"
}

test_fixed() {
	image top '{"type": "fixed", "size": "25M", "block_size": "1M", "garbage": true,
		"default": {"state": 6, '"$P"'}}'
	expect "$TMP/top.vhdx"
	cp "$TMP/top.vhdx" "$TMP/before"
	activate w "$(table "$(layer top)")"
	check '6*' "$TMP/top.vhdx"
	# A fixed image has no metadata to change, apart from the headers.
	same_text "$(vx blocks "$TMP/top.vhdx")" "$(vx blocks "$TMP/before")" "BAT"
}

# The rest of a ZERO block in dirty free space: zeros, also at the edges of the write
test_zero_fill() {
	image top '{"type": "dynamic", "size": "12M", "block_size": "2M", "free": "14M",
		"garbage": true}'
	expect "$TMP/top.vhdx"
	activate w "$(table "$(layer top)")"
	both w w:0:1:A w:8191:1:B w:9000:7:C w:12288:2048:D w:20479:2:E
	check_small w "$TMP/top.vhdx"
}

check_small() {
	matches "$1"
	io "$1" f
	holds "${@:2}"
	deactivate "$1"
	good "$2"
	holds "${@:2}"
}

# A block that was partial, dropped, and written again: old bits must not come back
test_stale_bits() {
	raw base 4 BASE
	image delta '{"size": "4M", "block_size": "1M", "free": "8M", "garbage": true}'
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	local line
	line=$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")")
	activate w "$line"
	io w w:2048:512:A "d:2048:2048" f
	if [ "$(vx states "$TMP/delta.vhdx" 1 1)" = 7 ]; then
		skip "no discard"
	fi
	both w w:2100:8:B
	matches w
	io w f
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	bits "$TMP/delta.vhdx" 1 8
	deactivate w
	activate w "$line"
	matches w
	# Over two sessions, too.
	io w d:2048:2048
	suspend w
	good "$TMP/delta.vhdx"
	resume w
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	both w w:3000:3:C
	check_small w "$TMP/delta.vhdx" "raw:$TMP/base.raw"
}

# A write of new sectors reads nothing, and writes nothing but itself
test_no_extra_io() {
	local base delta reads writes b ops=()
	raw base 66 BASE
	image delta '{"size": "66M", "block_size": "1M", "free": "80M"}'
	base=$(loop "$TMP/base.raw" ro)
	delta=$(loop "$TMP/delta.vhdx")
	activate w "$(table "$(layer delta "$delta")" "$(raw_layer "$base")")"
	# The first one starts the session and makes the bitmap block.
	io w w:0:8:A f
	for ((b = 1; b < 65; b++)); do
		ops+=("w:$((b * MIB + 8)):8:N")
	done
	reads=$(stat_of "$base" 1)
	writes=$(stat_of "$delta" 5)
	io w "${ops[@]}"
	writes=$(($(stat_of "$delta" 5) - writes))
	same_text "$(stat_of "$base" 1)" "$reads" "reads of the base"
	# The timer may have committed once or twice meanwhile.
	between "$writes" 64 80 "writes"
	# Again: plain overwrites.
	io w f
	writes=$(stat_of "$delta" 5)
	io w "${ops[@]}"
	writes=$(($(stat_of "$delta" 5) - writes))
	between "$writes" 64 70 "overwrites"
	same_text "$(stat_of "$base" 1)" "$reads" "reads of the base"
}

run_tests "$@"
