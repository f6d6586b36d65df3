#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Images that break a rule are refused before any I/O, with one line that names structure
# and offset; images that are merely odd are taken.
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

GOOD='"size": "12M", "block_size": "1M", "free": "8M", "seed": 3'
BLOCKS='"blocks": {"0": {"state": 7, "sectors": [[3, 4]], "fill": {"tag": "P"}},
	"1": {"state": 6, "fill": {"tag": "F"}}, "2": 2, "5": {"state": 6, "fill": {"tag": "G"}},
	"11": {"state": 6, "fill": {"tag": "H"}}}'

# setup: $TMP/good.vhdx and a copy behind TOP
setup() {
	raw base 12 BASE
	image good "{$GOOD, $BLOCKS}"
	cp "$TMP/good.vhdx" "$TMP/bad.vhdx"
	TOP=$(layer good "$(loop "$TMP/bad.vhdx")")
	BASE=$(raw_layer "$TMP/base.raw")
}

# broken("field=value ...", regular expression)...: each alone must be refused, and named
broken() {
	local bad=0 fields
	while [ $# -gt 0 ]; do
		cp "$TMP/good.vhdx" "$TMP/bad.vhdx"
		read -ra fields <<<"$1"
		vx set "$TMP/bad.vhdx" "${fields[@]}" || return 1
		cp "$TMP/bad.vhdx" "$TMP/before.vhdx"
		# An offset is named, too.
		if ! refused "$(table "$TOP" "$BASE")" "$2"; then
			echo "^^^ $1"
			bad=$((bad + 1))
		elif ! klog_match "vhdclone:.*(0x|byte |offset |sector )[0-9a-f]+"; then
			klog
			echo "^^^ no offset: $1"
			bad=$((bad + 1))
		fi
		cmp "$TMP/bad.vhdx" "$TMP/before.vhdx" || bad=$((bad + 1))
		shift 2
	done
	cp "$TMP/good.vhdx" "$TMP/bad.vhdx"
	[ "$bad" = 0 ] || fail "$bad"
	# The tools of this test are right: unbroken it works.
	activate good "$(table "$TOP" "$BASE")"
	io good r:3:4:P "r:$MIB:$MIB:F"
	deactivate good
}

test_headers() {
	setup
	broken identifier=vhdxfilf 'identifier|signature' \
		headers.signature=haed 'header' \
		headers.checksum=1 'header' \
		headers.version=2 'version' \
		headers.version=0 'version' \
		headers.log_guid=11111111-2222-3333-4444-555555555555 'recover' \
		headers.log_length=0 'log' \
				headers.log_offset=3M 'log' \
		headers.log_offset=4096 'log' \
		headers.log_offset=64T 'log' \
		'header2.seq=0x1234 header2.data_write_guid=11111111-2222-3333-4444-555555555555' 'header'
}

test_regions() {
	setup
	broken regions.signature=rege 'region' \
		regions.checksum=1 'region' \
		regions.count=3000 'region' \
		regions.count=1 'region' \
		regions.bat.offset=1052672 'region|bat' \
		regions.bat.offset=1M 'overlap|region|taken|bat' \
		regions.bat.offset=0 'region|bat' \
		regions.bat.offset=64T 'region|bat' \
		regions.bat.length=0 'region|bat' \
		regions.bat.length=4096 'region|bat' \
		regions.bat.guid=11111111-2222-3333-4444-555555555555 'region' \
		regions.metadata.offset=3M 'overlap|region|taken|metadata' \
		regions.metadata.length=64 'region|metadata'
}

test_metadata() {
	setup
	broken table.signature=metadatA 'metadata' \
		table.count=3000 'metadata' \
		table.count=4 'metadata|missing|item' \
		item.lss.id=11111111-2222-3333-4444-555555555555 'metadata|item' \
		item.virtual_size.length=4 'metadata|item|length' \
		item.virtual_size.offset=4096 'metadata|item' \
		item.virtual_size.offset=1M 'metadata|item' \
		block_size=3M 'block size' \
		block_size=512K 'block size' \
		block_size=512M 'block size' \
		lss=1024 'sector size' \
		pss=512K 'sector size' \
		virtual_size=12583012 'size' \
		virtual_size=128T 'size' \
		virtual_size=0 'size'
}

# Sizes and places in the table line that are not those of the image
test_geometry_differs() {
	local words bad=0
	setup
	read -ra words <<<"$TOP"
	other() {
		local w=("${words[@]}")
		w[$1]=$2
		# The target is no longer than the smaller of the two.
		refused "0 16384 vhdclone 2 ${w[*]} $BASE" "$3" || { echo "^^^ $1=$2"; bad=$((bad + 1)); }
	}
	other 2 24568 'size|geometry|table'
	other 2 32768 'size|geometry|table'
	other 3 4096 'block|geometry|table'
	other 4 4096 'sector|geometry|table'
	other 5 4096 'bat|geometry|table'
	other 6 4096 'log|geometry|table'
	other 7 4096 'log|geometry|table'
	[ "$bad" = 0 ] || fail "$bad"
	# The same for a layer below.
	image top "{$GOOD}"
	words[3]=4096
	refused "$(table "$(layer top)" "${words[*]}" "$BASE")" 'block|geometry|table' || fail "below"
}

test_bat() {
	setup
	local five
	five=$(vx blocks "$TMP/good.vhdx" 5 5 | awk 'NR == 1 { print $3 }')
	broken 'block[1].state=4' 'bat|block|state' \
		'block[1].state=5' 'bat|block|state' \
		'block[1]=6' 'bat|block|place|range' \
		'block[1]=+8' 'bat|block|reserved' \
		'block[1]=+4096' 'bat|block|reserved' \
		'block[1].mib=100000' 'bat|block|range|end' \
		'block[1].mib=17592186044415' 'bat|block|range|end' \
		'block[1].mib=0' 'bat|block' \
		'block[1].mib=1' 'bat|block|taken|overlap|log' \
		'block[1].mib=2' 'bat|block|taken|overlap' \
		'block[1].mib=3' 'bat|block|taken|overlap' \
		"block[1].mib=$five" 'bat|block|taken|overlap|twice' \
		"block[11].mib=$five" 'bat|block|taken|overlap|twice' \
		"chunk[0].mib=$five" 'bat|bitmap|taken|overlap|twice' \
		'chunk[0].state=0' 'bitmap' \
		'chunk[0]=0' 'bitmap' \
		'chunk[0].state=7' 'bitmap' \
		'chunk[0].state=1' 'bitmap' \
		'chunk[0].mib=100000' 'bitmap|range|end' \
		'chunk[0].mib=2' 'bitmap|taken|overlap|lies on' \
		'chunk[0]=+16' 'bitmap|reserved'
}

# Anchors of states 1 and 3 own their place, so they count as well
test_bat_anchors() {
	setup
	image good "{$GOOD"', "blocks": {"1": {"state": 6, "fill": {"tag": "F"}},
		"0": {"state": 7, "sectors": [[3, 4]], "fill": {"tag": "P"}},
		"3": {"state": 1, "at": 20}, "4": {"state": 3, "at": 21}}, "capacity": "24M"}'
	cp "$TMP/good.vhdx" "$TMP/bad.vhdx"
	vx loops-off "$TMP/"
	TOP=$(layer good "$(loop "$TMP/bad.vhdx")")
	BASE=$(raw_layer "$TMP/base.raw")
	broken 'block[3].mib=21' 'bat|block|taken|overlap|twice' \
		'block[4].mib=100000' 'bat|block|range|end'
}

# No parent: no partial block, and no bitmap
test_bat_no_parent() {
	setup
	image good "{$GOOD"', "type": "dynamic", "blocks": {"1": {"state": 6, "fill": {"tag": "F"}}}}'
	cp "$TMP/good.vhdx" "$TMP/bad.vhdx"
	vx loops-off "$TMP/"
	TOP=$(layer good "$(loop "$TMP/bad.vhdx")")
	vx set "$TMP/bad.vhdx" 'block[1].state=7'
	refused "$(table "$TOP")" 'partial|bat|block' || fail "partial without parent"
	klog_match "vhdclone:.*(0x|byte |offset |sector )[0-9a-f]+" || fail "no offset"
}

# Broken images are no better below the top
test_below() {
	local words
	setup
	image top "{$GOOD}"
	words=$(layer top)
	vx set "$TMP/bad.vhdx" 'block[1].state=5'
	refused "$(table "$words" "$TOP" "$BASE")" 'bat|block|state' || fail "reserved state"
	cp "$TMP/good.vhdx" "$TMP/bad.vhdx"
	vx set "$TMP/bad.vhdx" headers.checksum=1
	refused "$(table "$words" "$TOP" "$BASE")" 'header' || fail "headers"
	cp "$TMP/good.vhdx" "$TMP/bad.vhdx"
	activate ok "$(table "$words" "$TOP" "$BASE")"
	io ok r:3:4:P
}

# Not an image at all
test_garbage() {
	setup
	dd if=/dev/zero of="$TMP/bad.vhdx" bs=1M count=1 conv=notrunc status=none
	refused "$(table "$TOP" "$BASE")" 'identifier|signature' || fail "zeros"
	head -c 1M /dev/urandom | dd of="$TMP/bad.vhdx" conv=notrunc status=none
	refused "$(table "$TOP" "$BASE")" 'identifier|signature' || fail "noise"
}

# odd(name, field=value...): must be taken, and work
odd() {
	local name=$1
	shift
	cp "$TMP/good.vhdx" "$TMP/bad.vhdx"
	vx set "$TMP/bad.vhdx" "$@"
	klog_mark
	if ! dmsetup create "$PREFIX-odd" --table "$(table "$TOP" "$BASE")"; then
		klog
		fail "$name: refused"
	fi
	io odd r:3:4:P "r:$MIB:$MIB:F" w:100:5:NEW "w:$((3 * MIB)):$MIB:NEW" f r:100:5:NEW
	deactivate odd
	good "$TMP/bad.vhdx"
}

# Odd but within the rules
test_odd_images() {
	setup
	odd "header 1 torn" header1.checksum=1
	odd "header 2 torn" header2.checksum=1
	odd "header 1 is the newer one" header1.seq=0x9999
	odd "bytes behind the creator" bytes@600=00112233
	odd "log version without a log" headers.log_version=7
	# disk2vhd writes the same header twice.
	odd "equal headers" header2.seq=0x1234
}

# Behind the needed entries a BAT may hold anything; other regions keep their place
test_odd_layout() {
	setup
	image good "{$GOOD"', "type": "dynamic", "blocks": {"1": {"state": 6, "fill": {"tag": "F"}}},
		"capacity": "40M", "regions": [{"guid": "99999999-2222-3333-4444-555555555555",
			"mib": 6, "length": "3M"}]}'
	vx set "$TMP/good.vhdx" 'bat[12]=2' 'bat[600]=0xffffffffffffffff'
	dd if=/dev/urandom of="$TMP/good.vhdx" bs=1M seek=6 count=3 conv=notrunc status=none
	vx loops-off "$TMP/"
	cp "$TMP/good.vhdx" "$TMP/bad.vhdx"
	activate odd "$(table "$(layer good "$(loop "$TMP/bad.vhdx")")")"
	io odd "w:0:$((12 * MIB)):NEW" f "r:0:$((12 * MIB)):NEW"
	deactivate odd
	good "$TMP/bad.vhdx"
	cmp -i $((6 << 20)) -n $((3 << 20)) "$TMP/good.vhdx" "$TMP/bad.vhdx" ||
		fail "a foreign region was written to"
}

# An image whose last block ends with the disk, not with the block
test_cut_block() {
	local size=$((5 * 1048576 + 512 * 100)) end
	image good '{"type": "dynamic", "size": '"$size"', "block_size": "1M",
		"blocks": {"5": {"state": 6, "fill": {"tag": "F"}}}}'
	cp "$TMP/good.vhdx" "$TMP/bad.vhdx"
	end=$(($(stat -c %s "$TMP/bad.vhdx") - 1048576 + 512 * 100))
	truncate -s "$end" "$TMP/bad.vhdx"
	activate cut "$(table "$(layer good "$(loop "$TMP/bad.vhdx")")" -- read_only)"
	io_ro cut "r:$((5 * MIB)):100:F"
}

run_tests "$@"
