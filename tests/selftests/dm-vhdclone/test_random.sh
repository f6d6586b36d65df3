#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The data oracle on clones of all shapes: random reads, writes, discards, zeroes and
# flushes against a model that knows every sector, with suspends, reloads, and closes in
# between; with devices that are full or that fail; and what is in the image after it all.
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

ALL="r=35,w=40,s=2,d=4,z=5,p=3,f=3"

# setup(spec of the top, layers below...): sets LINE, FILES, and the content's raw file
setup() {
	image top "$1"
	shift
	FILES=("$TMP/top.vhdx" "$@")
	expect "${FILES[@]}"
	local words=() file
	for file; do
		case $file in
		raw:*)	words+=("$(raw_layer "${file#raw:}")") ;;
		*)	words+=("$(layer "$(basename "$file" .vhdx)")") ;;
		esac
	done
	LINE=$(table "$(layer top)" "${words[@]}")
	activate r "$LINE"
	matches r
}

# A discard may show what the layers below hold, zeros, or what was there: for a top that
# is empty at first that is what the oracle calls the base.
oracle() {
	"$ORACLE" run "$(device r)" --base "$TMP/expected.raw" --mix "$ALL" "$@"
}

# closed: the image is good, and after a reopen all is still there
closed() {
	deactivate r
	good "$TMP/top.vhdx"
	activate r "$LINE"
	"$ORACLE" verify "$(device r)" --base "$TMP/expected.raw" --state "$TMP/state"
	deactivate r
	# And read by somebody else.
	vx merge "$TMP/merged.raw" "${FILES[@]}"
	"$ORACLE" verify "$TMP/merged.raw" --base "$TMP/expected.raw" --state "$TMP/state"
}

SUSPEND="dmsetup suspend $PREFIX-r && dmsetup resume $PREFIX-r"

test_on_raw() {
	raw base 24 BASE
	setup '{"size": "24M", "block_size": "1M", "free": "2G", "garbage": true}' "raw:$TMP/base.raw"
	oracle --block 1M --ops 1200 --seed 11 --save "$TMP/state"
	closed
}

test_threads() {
	raw base 24 BASE
	setup '{"size": "24M", "block_size": "2M", "free": "4G", "garbage": true}' "raw:$TMP/base.raw"
	oracle --block 2M --threads 6 --ops 1500 --seed 12 --max 256K --save "$TMP/state"
	closed
}

# One block and a little more, everybody in there
test_crowd() {
	raw base 3 BASE
	setup '{"size": "3M", "block_size": "2M", "free": "4G", "garbage": true}' "raw:$TMP/base.raw"
	oracle --block 2M --threads 8 --ops 2000 --seed 13 --max 32K --save "$TMP/state"
	closed
}

test_sectors_4096() {
	raw base 24 BASE
	setup '{"size": "24M", "block_size": "1M", "lss": 4096, "free": "2G", "garbage": true,
		"stale_bits": true, "bitmaps": [0]}' "raw:$TMP/base.raw"
	oracle --block 1M --unit 4096 --threads 3 --ops 1000 --seed 14 --save "$TMP/state"
	closed
}

test_dynamic() {
	setup '{"type": "dynamic", "size": "24M", "block_size": "1M", "free": "2G", "garbage": true}'
	oracle --block 1M --threads 3 --ops 1000 --seed 15 --save "$TMP/state"
	closed
}

test_fixed() {
	setup '{"type": "fixed", "size": "24M", "block_size": "1M",
		"default": {"state": 6, "fill": {"tag": "OLD"}}}'
	oracle --block 1M --threads 3 --ops 1000 --seed 16 --save "$TMP/state"
	closed
}

test_chain() {
	raw base 20 BASE
	image m1 '{"size": "22M", "block_size": "2M", "blocks": {
		"2": {"state": 6, "fill": {"tag": "M1"}}, "3": 2,
		"4": {"state": 7, "sectors": [[5, 900], [3000, 7]], "fill": {"tag": "M1"}}}}'
	image m2 '{"size": "24M", "block_size": "1M", "blocks": {
		"5": {"state": 6, "fill": {"tag": "M2"}}, "6": 2,
		"8": {"state": 7, "sectors": [[5, 900], [2040, 8]], "fill": {"tag": "M2"}}}}'
	setup '{"size": "24M", "block_size": "1M", "free": "2G", "garbage": true}' \
		"$TMP/m2.vhdx" "$TMP/m1.vhdx" "raw:$TMP/base.raw"
	oracle --block 1M --threads 3 --ops 1000 --seed 17 --save "$TMP/state"
	closed
}

test_large_blocks() {
	raw base 40 BASE
	setup '{"size": "40M", "block_size": "32M", "free": "8G"}' "raw:$TMP/base.raw"
	oracle --block 32M --threads 3 --ops 800 --seed 18 --save "$TMP/state"
	closed
}

# Windows around the ends of chunks, bitmap pages and the disk
test_64_tib() {
	local last=$((64 << 31)) chunk=$((1 << 23))
	truncate -s 64T "$TMP/base.raw"
	image top '{"size": "64T", "block_size": "256M", "free": "64G"}'
	activate r "$(table "$(layer top)" "$(raw_layer "$TMP/base.raw")")"
	"$ORACLE" run "$(device r)" --block 256M --threads 3 --ops 700 --seed 19 --max 128K \
		--mix r=40,w=40,s=1,f=2 --window 0:3000 --window $((chunk - 2000)):4000 \
		--window $((last / 2 - 1000)):2000 --window $((last - 3000)):3000 --save "$TMP/state"
	deactivate r
	good "$TMP/top.vhdx"
	activate r "$(table "$(layer top)" "$(raw_layer "$TMP/base.raw")")"
	"$ORACLE" verify "$(device r)" --state "$TMP/state"
}

# With suspends under way, and closes and reloads in between
test_suspends_and_closes() {
	raw base 16 BASE
	setup '{"size": "16M", "block_size": "1M", "free": "2G", "garbage": true}' "raw:$TMP/base.raw"
	cat >"$TMP/quiet" <<-END
	case \$((ORACLE_EVENT % 2)) in
	0)	dmsetup load $PREFIX-r --table '$LINE' && dmsetup resume $PREFIX-r ;;
	1)	dmsetup remove --retry $PREFIX-r && dmsetup create $PREFIX-r --table '$LINE' ;;
	esac
	END
	oracle --block 1M --threads 4 --ops 1500 --seed 20 --max 256K --save "$TMP/state" \
		--live-every 230 --live-hook "$SUSPEND" \
		--quiet-every 350 --quiet-hook ". $TMP/quiet"
	closed
}

# Memory is short: clean bitmap pages are dropped and read again
test_shrinker() {
	[ -w /proc/sys/vm/drop_caches ] || skip "no drop_caches"
	truncate -s 3G "$TMP/base.raw"
	setup '{"size": "3G", "block_size": "2M", "free": "4G"}' "raw:$TMP/base.raw"
	"$ORACLE" run "$(device r)" --block 2M --threads 3 --ops 600 --seed 21 --max 16K \
		--mix r=50,w=40,f=3 --live-every 100 --live-hook "echo 2 >/proc/sys/vm/drop_caches" \
		--window 0:6000 --window 1000000:6000 --window 3000000:6000 --window 6000000:6000
	deactivate r
	good "$TMP/top.vhdx"
}

# Full again and again: what failed is old or new, everything else exact
test_out_of_space() {
	raw base 16 BASE
	setup '{"size": "16M", "block_size": "1M", "free": "9M", "garbage": true}' "raw:$TMP/base.raw"
	"$ORACLE" run "$(device r)" --base "$TMP/expected.raw" --block 1M --errors-ok --ops 800 \
		--threads 2 --mix r=40,w=40,s=2,z=2,f=3 --max 256K --seed 22 --save "$TMP/state" \
		--live-every 300 --live-hook "$SUSPEND"
	closed
}

# Parts of the payload's device come and go; metadata is never hurt
test_failing_payload() {
	local dev size delta
	raw base 16 BASE
	image top '{"size": "16M", "block_size": "1M", "free": "200M"}'
	cp "$TMP/base.raw" "$TMP/expected.raw"
	dev=$(loop "$TMP/top.vhdx")
	size=$(blockdev --getsz "$dev")
	echo "0 $size linear $dev 0" >"$TMP/well"
	# Places are taken from the front, and the bitmap block's is the first.
	cat >"$TMP/sick" <<-END
	0 $((8 * MIB)) linear $dev 0
	$((8 * MIB)) $((3 * MIB)) error
	$((11 * MIB)) $((2 * MIB)) linear $dev $((11 * MIB))
	$((13 * MIB)) $((4 * MIB)) error
	$((17 * MIB)) $((size - 17 * MIB)) linear $dev $((17 * MIB))
	END
	dmsetup create "$PREFIX-delta" "$TMP/well"
	delta=$(device delta)
	LINE=$(table "$(layer top "$delta")" "$(raw_layer "$TMP/base.raw")")
	FILES=("$TMP/top.vhdx" "raw:$TMP/base.raw")
	activate r "$LINE"
	cat >"$TMP/hook" <<-END
	table=well
	[ \$((ORACLE_EVENT % 2)) = 0 ] || table=sick
	dmsetup suspend --noflush --nolockfs $PREFIX-delta &&
		dmsetup load $PREFIX-delta $TMP/\$table && dmsetup resume $PREFIX-delta
	END
	"$ORACLE" run "$(device r)" --base "$TMP/base.raw" --block 1M --errors-ok --ops 1100 \
		--threads 2 --mix r=40,w=40,s=2,f=3 --max 128K --seed 23 --save "$TMP/state" \
		--live-every 200 --live-hook ". $TMP/hook" --no-final
	same_text "$(status r mode)" rw mode
	dmsetup load "$PREFIX-delta" "$TMP/well"
	dmsetup resume --noflush --nolockfs "$PREFIX-delta"
	closed
}

# The others take minutes: by name, or with ALL=1.
[ $# -gt 0 ] || [ -n "${ALL:-}" ] || set -- test_on_raw test_threads
run_tests "$@"
