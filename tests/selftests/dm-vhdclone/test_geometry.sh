#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Block sizes, sector sizes, disk sizes, and where tables and devices start.
# Of the list in the project's kernel notes: 6 (partitions), 14 (4 KiB sectors on a
# 512-byte device and the reverse), 18 (a table at a start that is not 0).
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

# geometry(block size, LSS, size, sectors...): writes around each of these sectors
geometry() {
	local block=$1 lss=$2 size=$3 s ops=() u=$(($2 / 512))
	shift 3
	truncate -s "$size" "$TMP/base.raw"
	for s; do
		"$ORACLE" io "$TMP/base.raw" "w:$s:$((8 * u)):BASE"
	done
	image delta '{"size": '"$size"', "block_size": "'"$block"'", "lss": '"$lss"', "free": "1800M"}'
	activate g "$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")")"
	same_text "$(blockdev --getss "$(device g)")" "$lss" "logical block size"
	for s; do
		ops+=("r:$s:$((8 * u)):BASE" "w:$((s + 2 * u)):$((3 * u)):NEW")
	done
	io g "${ops[@]}" f
	ops=()
	for s; do
		ops+=("r:$s:$((2 * u)):BASE" "r:$((s + 2 * u)):$((3 * u)):NEW"
			"r:$((s + 5 * u)):$((3 * u)):BASE")
	done
	io g "${ops[@]}"
	vx check --quiet "$TMP/delta.vhdx"
	deactivate g
	good "$TMP/delta.vhdx"
	activate g "$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")")"
	io g "${ops[@]}"
	for s; do
		"$ORACLE" io "$TMP/base.raw" "w:$((s + 2 * u)):$((3 * u)):NEW"
	done
	deactivate g
	vx compare "$TMP/base.raw" "$TMP/delta.vhdx" "raw:$TMP/base.raw" || fail "content"
	rm "$TMP/base.raw" "$TMP/delta.vhdx"
}

# Around: the start, a bitmap page's end (16 or 128 MiB), blocks' ends, the disk's end
test_block_1m() {
	geometry 1M 512 $((40 << 20)) 0 $((16 * MIB - 4)) $((33 * MIB)) $((40 * MIB - 8))
	geometry 1M 4096 $((300 << 20)) 0 $((128 * MIB - 32)) $((299 * MIB)) $((300 * MIB - 64))
}

test_block_2m() {
	geometry 2M 512 $((64 << 20)) 0 $((16 * MIB - 4)) $((62 * MIB - 4)) $((64 * MIB - 8))
	geometry 2M 4096 $((300 << 20)) 8 $((128 * MIB - 32)) $((300 * MIB - 64))
}

test_block_32m() {
	geometry 32M 512 $((100 << 20)) 0 $((16 * MIB - 4)) $((32 * MIB - 4)) $((96 * MIB + 8)) $((100 * MIB - 8))
	geometry 32M 4096 $((100 << 20)) 0 $((32 * MIB - 32)) $((100 * MIB - 64))
}

test_block_256m() {
	geometry 256M 512 $((1024 << 20)) 0 $((16 * MIB - 4)) $((256 * MIB - 4)) $((1024 * MIB - 8))
	geometry 256M 4096 $((600 << 20)) 64 $((256 * MIB - 32)) $((600 * MIB - 64))
}

# Both sides of the border between two chunks (4 GiB and 32 GiB), and an end that cuts
# the last block and the last chunk short
test_chunks() {
	geometry 2M 512 $(((9 << 30) + 512 * 1001)) 0 $((4096 * MIB - 4)) $((8192 * MIB - 4)) $((9216 * MIB + 990))
	geometry 32M 4096 $(((70 << 30) + 4096 * 77)) 0 $((32768 * MIB - 32)) $((65536 * MIB - 32)) $((71680 * MIB + 64))
}

test_64_tib() {
	local last=$((64 << 31))
	geometry 256M 512 $((64 << 40)) 0 $((4096 * MIB - 4)) $((last / 2 - 4)) $((last - 8))
	geometry 32M 4096 $((64 << 40)) 0 $((32768 * MIB - 32)) $((last - 64))
}

# Random I/O around the end of an odd disk
test_odd_end() {
	local size=$((5 * 1048576 + 512 * 1234))
	raw base 6 BASE
	truncate -s "$size" "$TMP/base.raw"
	image delta '{"size": '"$size"', "block_size": "2M", "free": "2G", "garbage": true,
		"tail_bits": true, "bitmaps": [0]}'
	activate g "$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")")"
	"$ORACLE" run "$(device g)" --base "$TMP/base.raw" --block 2M --ops 300
	deactivate g
	good "$TMP/delta.vhdx"
}

# A delta that has no block yet, on a device that has no room for one
test_smaller_than_a_block() {
	raw base 8 BASE
	image delta '{"size": "8M", "block_size": "256M"}'
	activate g "$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")")"
	io g "r:0:$((8 * MIB)):BASE"
	must_fail io g w:1:1:A
	io g "r:0:$((8 * MIB)):BASE"
	deactivate g
	good "$TMP/delta.vhdx"
}

# 4096-byte sectors over devices with 512-byte ones is all of the above.  512-byte
# sectors over a device that has 4096-byte ones cannot work, and is refused.
test_device_sectors() {
	local dev
	raw base 8 BASE
	image delta '{"size": "8M", "block_size": "1M", "free": "9M"}'
	image delta4k '{"size": "8M", "block_size": "1M", "lss": 4096, "free": "2G"}'
	dev=$(loop "$TMP/delta.vhdx" bs=4096)
	[ "$(blockdev --getss "$dev")" = 4096 ] || skip "no loop device with 4 KiB sectors"
	refused "$(table "$(layer delta "$dev")" "$(raw_layer "$TMP/base.raw")")" "sector|block size" ||
		fail "512-byte image on a 4096-byte device"
	dev=$(loop "$TMP/base.raw" bs=4096 ro)
	refused "$(table "$(layer delta)" "$(raw_layer "$dev")")" "sector|block size" ||
		fail "512-byte image over a 4096-byte base"
	activate g "$(table "$(layer delta4k "$(loop "$TMP/delta4k.vhdx" bs=4096)")" "$(raw_layer "$dev")")"
	"$ORACLE" run "$(device g)" --base "$TMP/base.raw" --block 1M --unit 4096 --ops 200
	must_fail io g w:1:1:A
	deactivate g
	good "$TMP/delta4k.vhdx"
}

# Two halves of a disk, each a clone of its own, and a linear device in between: the
# second clone's table starts where the first one's ends
test_table_start() {
	local words
	raw base 8 BASE
	raw plain 1 LIN
	image a '{"size": "8M", "block_size": "1M", "free": "2G"}'
	image b '{"size": "8M", "block_size": "1M", "free": "2G"}'
	words=$(raw_layer "$(loop "$TMP/base.raw" ro)")
	printf '%s\n' "0 $MIB linear $(loop "$TMP/plain.raw") 0" \
		"$MIB $((8 * MIB)) vhdclone 2 $(layer a) $words" \
		"$((9 * MIB)) $((8 * MIB)) vhdclone 2 $(layer b) $words" >"$TMP/lines"
	klog_mark
	if ! dmsetup create "$PREFIX-two" "$TMP/lines"; then
		klog
		fail "cannot activate two in one table"
	fi
	io two "r:0:$MIB:LIN" f
	cat "$TMP/plain.raw" "$TMP/base.raw" "$TMP/base.raw" >"$TMP/whole.raw"
	"$ORACLE" cmp "$(device two)" "$TMP/whole.raw"
	# Across both borders at once, and flushed once.
	io two w:$((MIB - 8)):16:X w:$((9 * MIB - 8)):16:Y f
	"$ORACLE" io "$TMP/whole.raw" w:$((MIB - 8)):16:X w:$((9 * MIB - 8)):16:Y
	"$ORACLE" cmp "$(device two)" "$TMP/whole.raw"
	"$ORACLE" run "$(device two)" --base "$TMP/whole.raw" --ops 200 \
		--mix r=40,w=40,s=1,z=4,f=2
	deactivate two
	good "$TMP/a.vhdx" "$TMP/b.vhdx"
}

# Base and delta on partitions: a bio that forgets the partition's start goes wrong
test_partitions() {
	local base delta dev
	need addpart
	raw base 8 BASE
	image delta '{"size": "8M", "block_size": "1M", "capacity": "40M", "garbage": true}'
	raw disk 64
	dd if="$TMP/base.raw" of="$TMP/disk.raw" bs=512 seek=$((3 * MIB + 8)) conv=notrunc status=none
	dd if="$TMP/delta.vhdx" of="$TMP/disk.raw" bs=512 seek=$((20 * MIB + 40)) conv=notrunc status=none
	dev=$(loop "$TMP/disk.raw" part)
	addpart "$dev" 1 $((3 * MIB + 8)) $((8 * MIB))
	addpart "$dev" 2 $((20 * MIB + 40)) $((40 * MIB))
	wait_for 5 test -b "${dev}p2" || skip "no partitions on $dev"
	base="raw ${dev}p1 0 $((8 * MIB))"
	delta=$(layer delta "${dev}p2")
	cp "$TMP/disk.raw" "$TMP/before"
	activate g "$(table "$delta" "$base")"
	"$ORACLE" run "$(device g)" --base "$TMP/base.raw" --block 1M --ops 300 \
		--mix r=40,w=40,s=1,z=4,f=2
	deactivate g
	# Outside the delta's partition nothing has changed.
	cmp -n $(((20 * MIB + 40) * 512)) "$TMP/disk.raw" "$TMP/before" || fail "before the partition"
	cmp -i $(((60 * MIB + 40) * 512)) "$TMP/disk.raw" "$TMP/before" || fail "behind the partition"
	dd if="$TMP/disk.raw" of="$TMP/delta.vhdx" bs=512 skip=$((20 * MIB + 40)) count=$((40 * MIB)) status=none
	good "$TMP/delta.vhdx"
}

run_tests "$@"
