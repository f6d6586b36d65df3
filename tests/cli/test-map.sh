# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later

# What the tests' own reader says, as lines of start, length, depth or "-", offset.
map_lines() {
	json '"\n".join("%d %d %s" % (e["start"], e["length"], "%d %d" %
		(e["depth"], e["offset"]) if e["data"] else "-") for e in j)'
}

test_map_kinds() {
	image base.vhdx '{"type": "dynamic", "size": "12M", "block_size": "2M",
		"garbage": true, "data_write_guid": "22222222-2222-3333-4444-555555555555",
		"blocks": {"0-2": {"state": 6, "at": 16, "fill": {"tag": "base"}},
			"1": {"state": 6, "at": 18, "fill": {"tag": "base"}},
			"2": {"state": 6, "at": 30, "fill": {"tag": "base"}}}}'
	image top.vhdx '{"size": "14M", "block_size": "1M", "garbage": true, "parent": {
		"parent_linkage": "{22222222-2222-3333-4444-555555555555}",
		"relative_path": ".\\base.vhdx"},
		"blocks": {"1": {"state": 7, "at": 10, "fill": {"tag": "top"},
				"sectors": [[0, 1], [8, 120], [2047, 1]]},
			"2": {"state": 6, "at": 11, "fill": {"tag": "top"}},
			"5": 2, "8": 1, "9": 3}}'
	vc 0 map --json top.vhdx
	map_lines >got
	# Before, in and behind the partial block, into the full one beside it.
	cat >want <<-EOF
		0 1048576 1 16777216
		1048576 512 0 10485760
		1049088 3584 1 17826304
		1052672 61440 0 10489856
		1114112 982528 1 17891328
		2096640 1049088 0 11533824
		3145728 1048576 1 19922944
		4194304 1048576 1 31457280
		5242880 1048576 -
		6291456 2097152 -
		8388608 2097152 -
		10485760 4194304 -
	EOF
	cmp want got || fail "$(cat got)"
	same "$(json '[(e["present"], e["zero"], e["data"], e["depth"]) for e in j[-4:]]')" \
		"[(True, True, False, 0), (False, True, False, 1), (True, True, False, 0), (False, True, False, 1)]"
	vc 0 map top.vhdx
	has '^0x1ffe00 +0x100200 +0xaffe00 +top.vhdx$'
	has '^0x500000 +0x100000 +zero +top.vhdx$'
	has '^0xa00000 +0x400000 +- +-$'
	same "$(wc -l <out)" 13 'number of lines'
}

# Bitmaps are read in pieces of 256 MiB of disk, and one block of them is for 4 GiB.
test_map_far_blocks() {
	parent base.vhdx
	image top.vhdx '{"size": "9G", "block_size": "2M", "parent": {
		"parent_linkage": "{22222222-2222-3333-4444-555555555555}",
		"relative_path": ".\\base.vhdx"}, "blocks": {
		"1": {"state": 7, "sectors": [[1, 2]], "fill": {"byte": 1}},
		"129": {"state": 7, "sectors": [[3, 4]], "fill": {"byte": 2}},
		"2177": {"state": 7, "sectors": [[4094, 2]], "fill": {"byte": 3}},
		"4300": {"state": 7, "sectors": [[0, 1]], "fill": {"byte": 4}}}}'
	vc 0 map --json top.vhdx
	same "$(json '[(e["start"] >> 21, e["start"] // 512 % 4096, e["length"]) for e in j
		if e["data"]]')" \
		'[(1, 1, 1024), (129, 3, 2048), (2177, 4094, 1024), (4300, 0, 512)]'
}

test_map_behind_a_short_layer() {
	raw base.img 8M
	vc 0 create base.img middle.vhdx --size 4M
	vc 0 create middle.vhdx top.vhdx --size 8M
	vc 0 map --json top.vhdx
	# What the middle hides stays hidden.
	same "$(json 'j[-1]')" "{'start': 4194304, 'length': 4194304, 'depth': 1, 'present': True, 'zero': True, 'data': False}"
}

test_map_holes_and_cuts() {
	truncate -s 8M base.img
	"$VHDX" tag raw 0 256 | dd of=base.img conv=notrunc seek=4 bs=1M status=none
	vc 0 map --json base.img
	same "$(map_lines | tr '\n' ' ')" '0 4194304 - 4194304 131072 0 4194304 4325376 4063232 - '
	# A file that ends in the middle of its last block, at the end of the disk.
	image cut.vhdx '{"type": "dynamic", "size": 2098176, "block_size": "2M", "blocks": {
		"0": {"state": 6, "at": 5, "fill": {"byte": 1}},
		"1": {"state": 6, "at": 8, "fill": {"byte": 1}}}}'
	truncate -s $((8 * 1048576 + 1024)) cut.vhdx
	vc 0 map --json cut.vhdx
	same "$(map_lines | tr '\n' ' ')" "0 2097152 0 5242880 2097152 1024 0 8388608 "
	head -c 2098176 /dev/zero | tr '\0' '\1' >want
	vc 0 compare cut.vhdx want
	vc 0 convert --type raw cut.vhdx raw
	cmp raw want
	: >empty
	vc 0 map --json empty
	same "$(cat out)" '[]'
}

test_map_random_chains() {
	local seed top
	for seed in 1 2 3 4; do
		mkdir $seed
		top=$("$TOP/tests/cli/random-chain" $seed $seed)
		unchanged vc 0 compare --strict "$top" $seed/raw
		# Every byte once, in order.
		vc 0 map --json "$top"
		same "$(json 'all(a["start"] + a["length"] == b["start"] for a, b in
			zip(j, j[1:])) and j[0]["start"] == 0 and
			j[-1]["start"] + j[-1]["length"]')" "$(stat -c %s $seed/raw)"
		rm -r $seed
	done
}

test_map_as_qemu_img() {
	command -v qemu-img >/dev/null || skip 'no qemu-img'
	truncate -s 8M it.img
	"$VHDX" tag raw 0 2048 | dd of=it.img conv=notrunc seek=4 bs=1M status=none
	# It says where a hole is, too; and newer ones have keys that we lack.
	qemu-img map --output=json -f raw it.img >out
	json '[(e["start"], e["length"], e["depth"], e["present"], e["zero"], e["data"],
		e["offset"] if e["data"] else 0) for e in j]' >want
	vc 0 map --json it.img
	json '[(e["start"], e["length"], e["depth"], e["present"], e["zero"], e["data"],
		e.get("offset", 0)) for e in j]' >got
	cmp want got || fail "$(cat want got)"
}

test_map_wrong_things() {
	mkdir dir
	refused 4 'a directory' map dir
	refused 4 'No such file' map nothing
	refused 1 'need one IMAGE' map
	image bad.vhdx '{"type": "dynamic", "size": "8M", "block_size": "2M"}'
	set_field bad.vhdx 'bat[1]=0x80006'
	refused 4 'BAT entry.*offset' map bad.vhdx
}

test_compare_finds_the_first_difference() {
	local at
	raw base.img 6M
	vc 0 create base.img a.vhdx
	vc 0 compare a.vhdx base.img
	has '^The same\.$'
	for at in 0 511 512 1048575 1048576 3000000 6291455; do
		cp --sparse=always base.img other.img
		printf '\377' | dd of=other.img bs=1 seek=$at conv=notrunc status=none
		vc 1 compare other.img a.vhdx
		has "offset $at \\(sector $((at / 512))\\)"
		vc 1 compare -q a.vhdx other.img
		[ ! -s out ] || fail 'printed something'
	done
	vc 1 compare --json a.vhdx other.img
	same "$(json '(j["equal"], j["offset"])')" '(False, 6291455)'
}

test_compare_skips_what_cannot_differ() {
	raw base.img 64M
	vc 0 create base.img a.vhdx
	vc 0 create base.img b.vhdx
	vc 0 compare --json a.vhdx b.vhdx
	same "$(json '(j["equal"], j["offset"], j["read-bytes"])')" '(True, None, 0)'
	# The same place of another file is another thing.
	cp base.img c.img
	vc 0 compare --json a.vhdx c.img
	same "$(json 'j["read-bytes"]')" 262144
}

test_compare_sizes() {
	raw a.img 1M
	cp a.img b.img
	truncate -s 3M b.img
	vc 0 compare a.img b.img
	has 'zeros from there on: 1048576 and 3145728'
	vc 0 compare b.img a.img
	vc 1 compare --strict a.img b.img
	has 'sizes differ'
	printf x | dd of=b.img bs=1 seek=2000000 conv=notrunc status=none
	vc 1 compare a.img b.img
	has 'offset 2000000 '
	# Of no whole number of sectors.
	truncate -s 1000 a.img
	truncate -s 1000 b.img
	truncate -s 1001 b.img
	vc 0 compare a.img b.img
	printf x | dd of=b.img bs=1 seek=1000 conv=notrunc status=none
	vc 1 compare b.img a.img
	has 'offset 1000 '
}

test_compare_errors_are_2() {
	raw a.img 1M
	refused 2 'No such file' compare a.img nothing
	refused 2 'need images A and B' compare a.img
	vc 2 compare --wrong a.img a.img
	vc 0 compare --help
	image clone.vhdx '{"size": "8M", "parent": {"relative_path": ".\\gone.vhdx",
		"parent_linkage": "{22222222-2222-3333-4444-555555555555}"}}'
	refused 2 'gone.vhdx' compare clone.vhdx a.img
}
