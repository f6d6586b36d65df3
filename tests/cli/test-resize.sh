# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# resize, compact.

# reads(raw file, image...): that is what it reads as, and nothing is wrong with it
reads() {
	local raw=$1
	shift
	vc 0 check -v "$1"
	! grep -E ': (leak|error|note): ' out || fail "not in order"
	"$VHDX" check --clean --quiet "$1" || fail "$1 is not clean"
	"$VHDX" compare "$raw" "$@" || fail "$1 reads as something else"
}

big_base() {
	image base.vhdx '{"type": "dynamic", "size": "32M", "block_size": "2M",
		"blocks": {"0-15": {"state": 6, "fill": {"tag": "b"}}}}'
}

# The end of the disk lies in the middle of block 3, and the base goes on behind it.
odd() {
	image odd.vhdx "{\"size\": \"7168K\", \"block_size\": \"2M\", \"parent\": \"base.vhdx\",
		\"garbage\": true, \"tail_bits\": true, \"stale_bits\": true, $1}"
	"$VHDX" merge odd.raw odd.vhdx base.vhdx
}

test_resize_grow() {
	local state blocks
	big_base
	for state in 0 1 2 6 '{"state": 7, "sectors": [[3, 4], [1024, 1000]]}'; do
		for blocks in "\"0\": {\"state\": 7, \"sectors\": [[1, 2]]}, " ''; do
			odd "\"blocks\": {$blocks\"3\": $state}"
			vc 0 resize --json odd.vhdx 30M
			same "$(json 'j["old-virtual-size"], j["virtual-size"], j["bat-moved"]')" \
				'(7340032, 31457280, False)'
			truncate -s 30M odd.raw
			reads odd.raw odd.vhdx base.vhdx
			# Again, from a whole block on, and past the end of the base.
			vc 0 resize odd.vhdx +10M
			truncate -s 40M odd.raw
			reads odd.raw odd.vhdx base.vhdx
		done
	done
}

test_resize_grow_others() {
	image dynamic.vhdx '{"type": "dynamic", "size": "3M", "block_size": "2M",
		"garbage": true, "blocks": {"1": {"state": 6, "fill": {"tag": "d"}}}}'
	image fixed.vhdx '{"type": "fixed", "size": "3M", "block_size": "2M",
		"garbage": true, "blocks": {"0-1": {"state": 6, "fill": {"tag": "d"}}}}'
	for image in dynamic fixed; do
		"$VHDX" merge raw $image.vhdx
		vc 0 resize $image.vhdx 20M
		truncate -s 20M raw
		reads raw $image.vhdx
		vc 0 info --json $image.vhdx
		same "$(json 'j["type"], j["virtual-size"]')" "('$image', 20971520)"
	done
}

# The BAT has to go elsewhere.
test_resize_moves_bat() {
	big_base
	odd '"blocks": {"0-2": {"state": 6, "fill": {"tag": "d"}}}'
	set_field --no-crc odd.vhdx region2.count=1
	vc 0 resize --json odd.vhdx 500G
	same "$(json 'j["bat-moved"]')" True
	truncate -s 500G odd.raw
	reads odd.raw odd.vhdx base.vhdx
	vc 0 resize --json odd.vhdx 9M
	truncate -s 9M odd.raw
	reads odd.raw odd.vhdx base.vhdx
	vc 0 resize odd.vhdx 64T
	vc 0 check odd.vhdx
}

test_resize_shrink() {
	local image
	image plain.vhdx '{"type": "dynamic", "size": "32M", "block_size": "2M",
		"garbage": true, "blocks": {"0-1": {"state": 6, "fill": {"tag": "d"}},
		"6": {"state": 6, "fill": {"tag": "d"}}, "9": {"state": 6,
		"fill": {"byte": 0}}}}'
	"$VHDX" merge raw plain.vhdx
	unchanged refused 4 'at 12582912.*--cut-data' resize plain.vhdx 10M
	unchanged refused 4 'at 13631488.*--cut-data' resize plain.vhdx 13M
	# Zeros are no data.
	vc 0 resize plain.vhdx -18M
	truncate -s 14M raw
	reads raw plain.vhdx
	vc 0 resize --cut-data plain.vhdx 3M
	truncate -s 3M raw
	reads raw plain.vhdx
	vc 0 resize plain.vhdx 30M
	truncate -s 30M raw
	reads raw plain.vhdx
	# Of a clone, what the base has behind the new end is data of the disk.
	big_base
	odd '"blocks": {"1": {"state": 7, "sectors": [[1, 2]]}}'
	unchanged refused 4 'at 5242880.*--cut-data' resize odd.vhdx 5M
	vc 0 resize --cut-data odd.vhdx 3M
	truncate -s 3M odd.raw
	reads odd.raw odd.vhdx base.vhdx
	vc 0 resize odd.vhdx 40M
	truncate -s 40M odd.raw
	reads odd.raw odd.vhdx base.vhdx
}

test_resize_refused() {
	big_base
	odd '"blocks": {"1": 6}'
	unchanged refused 5 'stands on it: .*odd.vhdx' resize base.vhdx 40M
	unchanged refused 4 'sector size' resize odd.vhdx 7000001
	unchanged refused 4 'cannot' resize odd.vhdx 65T
	unchanged refused 4 'cannot get' resize odd.vhdx -7M
	unchanged refused 1 'no size' resize odd.vhdx x
	unchanged refused 1 'no size' resize odd.vhdx +-1M
	unchanged refused 1 'need IMAGE and SIZE' resize odd.vhdx
	unchanged vc 0 resize odd.vhdx 7M
	vc 0 resize odd.vhdx 7168K
	mv base.vhdx away.vhdx
	unchanged refused 4 'base.vhdx' resize odd.vhdx 8M
	vc 0 resize --base away.vhdx odd.vhdx 8M
	raw base.img 1M
	unchanged refused 4 'not a VHDX' resize base.img 2M
	# A disk that is full.
	( ulimit -f 16384; unchanged refused 7 . resize --base away.vhdx odd.vhdx 64T )
}

test_resize_killed() {
	big_base
	odd '"blocks": {"1": {"state": 7, "sectors": [[1, 2]]}}'
	cp odd.vhdx before
	cp odd.raw new.raw
	truncate -s 300G new.raw
	cat >right <<-'END'
		"$VHDCLONE" check -q odd.vhdx || [ $? = 3 ] || exit 1
		"$VHDCLONE" recover odd.vhdx >/dev/null || exit 1
		"$VHDX" compare odd.raw odd.vhdx base.vhdx >/dev/null ||
			"$VHDX" compare new.raw odd.vhdx base.vhdx || exit 1
		[ "$INJECT_N" -gt 8 ] || exit 0
		"$VHDCLONE" resize odd.vhdx 300G && "$VHDCLONE" check -q odd.vhdx || [ $? = 3 ]
	END
	each_write 'cp before odd.vhdx' 'sh ./right' resize odd.vhdx 300G
}

# a.vhdx: blocks of zeros, of what the base has, and of neither, with holes between
loose() {
	big_base
	"$VHDX" merge base.raw base.vhdx
	image a.vhdx '{"size": "40M", "block_size": "2M", "parent": "base.vhdx",
		"order": "down", "garbage": true, "bitmaps": [0], "blocks": {
		"0": {"state": 6, "fill": {"byte": 0}},
		"1": {"state": 6, "fill": {"file": "base.raw"}},
		"2": {"state": 6, "fill": {"tag": "a"}},
		"3": {"state": 7, "sectors": [[5, 100]], "fill": {"file": "base.raw"}},
		"4": {"state": 7, "sectors": [[5, 100]], "fill": {"tag": "a"}},
		"5": {"state": 7, "sectors": []}, "6": 2,
		"7": {"state": 7, "sectors": [[0, 4096]], "fill": {"byte": 0}},
		"18": {"state": 6, "fill": {"byte": 0}}, "19": {"state": 6, "fill": {"tag": "a"}}}}'
	"$VHDX" merge a.raw a.vhdx base.vhdx
}

test_compact() {
	local guid
	loose
	vc 0 info --json a.vhdx
	guid=$(json 'j["data-write-guid"]')
	vc 0 compact --json a.vhdx
	same "$(json 'j["zero-blocks"], j["parent-blocks"], j["bitmap-blocks"]')" '(3, 1, 0)'
	same "$(json 'j["file-size"] < j["old-file-size"]')" True
	# Header, log, metadata, BAT; a bitmap block; blocks 1 to 4 and 19.
	same "$(stat -c %s a.vhdx)" $((15 << 20))
	reads a.raw a.vhdx base.vhdx
	vc 0 compact --dedup-parent --json a.vhdx
	same "$(json 'j["zero-blocks"], j["parent-blocks"]')" '(0, 2)'
	same "$(stat -c %s a.vhdx)" $((11 << 20))
	reads a.raw a.vhdx base.vhdx
	vc 0 info --json a.vhdx
	same "$(json 'j["data-write-guid"]')" "$guid" "the DataWriteGuid"
	# There is nothing left to do.
	unchanged vc 0 compact --dedup-parent a.vhdx
	has 'dropped 0 blocks of zeros, 0 for .*, 0 bitmap blocks; moved 0'
}

# Zeros that are holes in the file hide the base, too.
test_compact_holes() {
	loose
	cp --sparse=always a.vhdx holes.vhdx
	vc 0 compact --dedup-parent --json holes.vhdx
	same "$(json 'j["zero-blocks"], j["parent-blocks"]')" '(2, 4)'
	reads a.raw holes.vhdx base.vhdx
	cp --sparse=always a.vhdx holes.vhdx
	vc 0 compact --json holes.vhdx
	same "$(json 'j["zero-blocks"], j["parent-blocks"]')" '(3, 1)'
	reads a.raw holes.vhdx base.vhdx
}

test_compact_others() {
	image fixed.vhdx '{"type": "fixed", "size": "4M", "block_size": "2M"}'
	unchanged refused 4 'a fixed image' compact fixed.vhdx
	image dynamic.vhdx '{"type": "dynamic", "size": "33M", "block_size": "1M", "gap": 3,
		"garbage": true, "order": "shuffle", "seed": 3, "blocks": {
		"0-9": {"state": 6, "fill": {"tag": "d"}}, "10-19": {"state": 6,
		"fill": {"byte": 0}}, "30-32": {"state": 6, "fill": {"tag": "e"}}}}'
	"$VHDX" merge raw dynamic.vhdx
	unchanged refused 4 'no parent' compact --dedup-parent dynamic.vhdx
	vc 0 compact dynamic.vhdx
	reads raw dynamic.vhdx
	# Between the regions there is room, too: 3 MiB before each of them.
	[ "$(stat -c %s dynamic.vhdx)" -le $((17 << 20)) ] || fail "not compact"
	# A delta whose bitmap block nobody needs, far behind.
	big_base
	image a.vhdx '{"size": "32M", "block_size": "2M", "parent": "base.vhdx",
		"bitmaps": [0], "blocks": {"0": {"state": 6, "fill": {"tag": "a"}}}}'
	"$VHDX" merge raw a.vhdx base.vhdx
	vc 0 compact --json a.vhdx
	same "$(json 'j["bitmap-blocks"]')" 1
	reads raw a.vhdx base.vhdx
}

test_compact_killed() {
	loose
	cp a.vhdx before
	cat >right <<-'END'
		"$VHDCLONE" check -q a.vhdx || [ $? = 3 ] || exit 1
		"$VHDX" compare a.raw a.vhdx base.vhdx || exit 1
		"$VHDCLONE" recover a.vhdx >/dev/null || exit 1
		"$VHDCLONE" compact --dedup-parent a.vhdx || exit 1
		"$VHDX" compare a.raw a.vhdx base.vhdx && [ "$(stat -c %s a.vhdx)" = 11534336 ]
	END
	each_write 'cp before a.vhdx' 'sh ./right' compact --dedup-parent a.vhdx
}
