#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# The table line, status, messages, and the module itself.
# Of the list in the project's kernel notes: 1 (round trip), 21 (unload).
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

# Two images and a raw base, on loops; sets D, B, R (layer words, numeric devices)
setup() {
	local dev
	raw base 12 BASE
	image base '{"type": "dynamic", "size": "12M", "block_size": "2M"}'
	image delta '{"size": "12M", "block_size": "1M", "free": "14M"}'
	DELTA=$(loop "$TMP/delta.vhdx")
	D=$(layer delta "$(devno "$DELTA")")
	dev=$(loop "$TMP/base.vhdx" ro)
	B=$(layer base "$(devno "$dev")")
	dev=$(loop "$TMP/base.raw" ro)
	R="raw $(devno "$dev") 0 24576"
}

round_trip() {
	local line=$1 name=$PREFIX-rt
	echo "$line"
	activate rt "$@"
	same_text "$(dmsetup table "$name")" "$line" "table"
	# What it prints can be loaded again.
	dmsetup table "$name" | dmsetup load "$name"
	same_text "$(dmsetup table --inactive "$name")" "$line" "inactive table"
	resume rt
	same_text "$(dmsetup table "$name")" "$line" "table after reload"
	deactivate rt
}

test_round_trip() {
	setup
	round_trip "$(table "$D" "$B")"
	round_trip "$(table "$D" "$R")"
	round_trip "$(table "$B")" --readonly
	round_trip "$(table "$D" "$R" -- read_only)"
	round_trip "$(table "$D" "$R" -- low_water_mark 3)"
	round_trip "$(table "$D" "$R" -- no_discard_passdown)"
	round_trip "$(table "$D" "$B" -- read_only low_water_mark 3 no_discard_passdown)"
	round_trip "$(table "$D" "$R" -- no_discard_passdown low_water_mark 3)"
}

# A count of zero feature args is a form that other targets accept, too
test_zero_features() {
	setup
	activate zf "$(table "$D" "$R") 0"
	io zf r:0:100:BASE
}

test_status() {
	local fields
	setup
	activate st "$(table "$D" "$R")"
	read -ra fields < <(dmsetup status "$PREFIX-st")
	same_text "${#fields[@]}" 12 "number of words"
	same_text "$(status st mode)" rw mode
	same_text "$(status st block)" "$MIB" "block sectors"
	same_text "$(status st present)/$(status st total)" 0/12 "blocks"
	same_text "$(status st partial)" 0 "partial"
	same_text "$(status st errors)" 0 "errors"
	[ "$(status st free)" -ge $((12 * MIB)) ] || fail "free: $(status st free)"
	# One whole block, one partial one, and a bitmap block.
	io st "w:0:$MIB:A" "w:$((2 * MIB)):8:B" f
	same_text "$(status st present)/$(status st total)" 2/12 "blocks"
	same_text "$(status st partial)" 1 "partial"
	[ "$(status st commits)" -ge 1 ] || fail "commits: $(status st commits)"
	[ "$(status st free)" -le $((11 * MIB)) ] || fail "free: $(status st free)"
	same_text "$(status st dirty)" 0 "dirty pages after a flush"
	# A table that is not active yet knows no numbers.
	dmsetup load "$PREFIX-st" --table "$(table "$D" "$R")"
	dmsetup status --inactive "$PREFIX-st" | grep -q ' - ' || fail "inactive status"
	dmsetup clear "$PREFIX-st"
	deactivate st
	activate st "$(table "$D" "$R" -- read_only)"
	same_text "$(status st mode)" ro mode
}

# Every one of these must be refused by the constructor, with a word about it
test_refused_lines() {
	local dn bn bad=0 n=0 line len=24576
	setup
	read -r _ dn _ <<<"$D"
	read -r _ bn _ <<<"$B"
	# <virtual sectors> <block sectors> <sector size> <BAT> <log> <log sectors>
	same_text "$D" "vhdx $dn 24576 2048 512 6144 2048 2048" "layer words of the image"
	while IFS= read -r line; do
		case $line in
		""|\#*) continue ;;
		esac
		n=$((n + 1))
		[ "$line" != NONE ] || line=
		line=${line//BASE/$B}
		line=${line//RAW/$R}
		line=${line//DELTA/$D}
		line=${line//DDEV/$dn}
		line=${line//BDEV/$bn}
		refused "0 $len vhdclone${line:+ $line}" || bad=$((bad + 1))
	done <<-'END'
	# the number of layers
	NONE
	0
	-1 DELTA RAW
	x DELTA RAW
	2x DELTA RAW
	257 DELTA RAW
	4294967298 DELTA RAW
	2
	2 DELTA
	3 DELTA RAW
	1 DELTA RAW
	# kinds and order of layers
	2 vhd DDEV 24576 2048 512 6144 2048 2048 RAW
	2 DELTA qcow2 BDEV 0 24576
	1 RAW
	2 RAW DELTA
	3 DELTA RAW BASE
	# words of a vhdx layer
	2 vhdx DDEV 24576 2048 512 6144 2048 RAW
	2 vhdx /dev/no-such-device 24576 2048 512 6144 2048 2048 RAW
	2 vhdx DDEV 0 2048 512 6144 2048 2048 RAW
	2 vhdx DDEV -24576 2048 512 6144 2048 2048 RAW
	2 vhdx DDEV 24576x 2048 512 6144 2048 2048 RAW
	2 vhdx DDEV 0x6000 2048 512 6144 2048 2048 RAW
	2 vhdx DDEV 18446744073709576192 2048 512 6144 2048 2048 RAW
	2 vhdx DDEV 137438953473 2048 512 6144 2048 2048 RAW
	2 vhdx DDEV 24576 0 512 6144 2048 2048 RAW
	2 vhdx DDEV 24576 1024 512 6144 2048 2048 RAW
	2 vhdx DDEV 24576 3072 512 6144 2048 2048 RAW
	2 vhdx DDEV 24576 1048576 512 6144 2048 2048 RAW
	2 vhdx DDEV 24576 2048 0 6144 2048 2048 RAW
	2 vhdx DDEV 24576 2048 1024 6144 2048 2048 RAW
	2 vhdx DDEV 24576 2048 8192 6144 2048 2048 RAW
	2 vhdx DDEV 24577 2048 4096 6144 2048 2048 RAW
	2 vhdx DDEV 24576 2048 512 6145 2048 2048 RAW
	2 vhdx DDEV 24576 2048 512 0 2048 2048 RAW
	2 vhdx DDEV 24576 2048 512 1024 2048 2048 RAW
	2 vhdx DDEV 24576 2048 512 1048576000 2048 2048 RAW
	2 vhdx DDEV 24576 2048 512 6144 0 2048 RAW
	2 vhdx DDEV 24576 2048 512 6144 2056 2048 RAW
	2 vhdx DDEV 24576 2048 512 6144 2048 0 RAW
	2 vhdx DDEV 24576 2048 512 6144 2048 2047 RAW
	2 vhdx DDEV 24576 2048 512 6144 2048 1048576000 RAW
	2 vhdx DDEV 24576 2048 512 6144 6144 2048 RAW
	# sector sizes differ between layers
	2 DELTA vhdx BDEV 24576 4096 4096 6144 2048 2048
	# words of a raw layer
	2 DELTA raw BDEV 0
	2 DELTA raw BDEV 0 0
	2 DELTA raw BDEV 0 1048576000
	2 DELTA raw BDEV 1048576000 8
	2 DELTA raw BDEV -8 8
	2 DELTA raw /dev/no-such-device 0 24576
	# the delta below itself
	2 DELTA DELTA
	2 DELTA raw DDEV 0 24576
	# features
	2 DELTA RAW 1
	2 DELTA RAW x
	2 DELTA RAW -1
	2 DELTA RAW 2 read_only
	2 DELTA RAW 1 write_only
	2 DELTA RAW 1 low_water_mark
	2 DELTA RAW 2 low_water_mark x
	2 DELTA RAW 2 low_water_mark -1
	2 DELTA RAW 99 read_only
	2 DELTA RAW 1 read_only too_much
	END
	[ "$bad" = 0 ] || fail "$bad of $n lines"
	# After all of these nothing holds the devices.
	refused "0 $((len + 8)) vhdclone 2 $D $R" || fail "longer than the image"
	activate ok "$(table "$D" "$R")"
	io ok r:0:8:BASE
}

test_messages() {
	setup
	activate msg "$(table "$D" "$R")"
	io msg w:0:8:A
	message msg commit
	same_text "$(status msg dirty)" 0 "dirty pages"
	message msg stats >"$TMP/stats"
	[ -s "$TMP/stats" ] || fail "stats says nothing"
	if grep -vE '^([a-z0-9_]+ [0-9]+[ ;,]*)+$' "$TMP/stats"; then
		fail "stats are not <name> <value> pairs"
	fi
	message msg reset_stats
	must_fail message msg commit now
	must_fail message msg no_such_message
	must_fail message msg ""
	klog_mark
	must_fail message msg make_coffee
	klog_has 'vhdclone.*(make_coffee|message)'
	suspend msg
	# Whatever it answers, it may not hang or write.
	message msg commit || true
	resume msg
	io msg r:0:8:A r:8:8:BASE
	deactivate msg
	activate msg "$(table "$D" "$R" -- read_only)"
	message msg stats >/dev/null
}

# As many layers as the interface allows, and one more
test_most_layers() {
	local words=() i line layer
	setup
	image thin '{"size": "12M", "block_size": "1M"}'
	for ((i = 1; i < 256; i++)); do
		words+=("$(layer thin "$(loop "$TMP/thin.vhdx" ro)")")
	done
	layer=${words[254]}
	unset 'words[254]'
	line=$(table "$D" "${words[@]}" "$R")
	activate deep "$line"
	io deep r:0:8:BASE w:3:5:TOP r:0:3:BASE r:3:5:TOP
	deactivate deep
	refused "$(table "$D" "${words[@]}" "$layer" "$R")"
}

test_module() {
	local version
	setup
	version=$(dmsetup targets | awk '$1 == "vhdclone" { print $2 }')
	[[ $version =~ ^v[0-9]+\.[0-9]+\.[0-9]+$ ]] || fail "version '$version'"
	grep -q '^dm_vhdclone ' /proc/modules || skip "vhdclone is not a module"
	activate mod "$(table "$D" "$R")"
	must_fail rmmod dm-vhdclone
	io mod w:0:8:A
	deactivate mod
	local ko
	ko=$(find_ko) || skip "dm-vhdclone could not be loaded again"
	for _ in 1 2 3; do
		rmmod dm-vhdclone
		if [ -n "$ko" ]; then
			insmod "$ko"
		else
			modprobe dm-vhdclone
		fi
		activate mod "$(table "$D" "$R")"
		io mod r:0:8:A w:8:8:B r:8:8:B r:16:8:BASE w:0:8:A
		deactivate mod
	done
	good "$TMP/delta.vhdx"
}

run_tests "$@"
