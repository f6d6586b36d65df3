# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later

VHD=$TOP/tests/lib/vhd.py
VHD_A=aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa
VHD_B=bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb

vhd() {
	"$VHD" build "$2" "$1" || fail "cannot build $1"
}

vhd_set() {
	"$VHD" set "$@" || fail "cannot set $*"
}

# Three layers: of other block sizes, all with something of their own.
vhd_chain() {
	vhd base.vhd "{\"type\": \"${1-fixed}\", \"size\": 5243392, \"id\": \"$VHD_A\",
		\"blocks\": {\"0\": {\"tag\": \"base\"}, \"2\": {\"tag\": \"base\"}}}"
	vhd middle.vhd "{\"type\": \"differencing\", \"size\": 5243392, \"id\": \"$VHD_B\",
		\"block_size\": 524288, \"parent_id\": \"$VHD_A\", \"relative\": \".\\\\base.vhd\",
		\"absolute\": \"C:\\\\vms\\\\base.vhd\", \"blocks\": {
		\"0\": {\"tag\": \"mid\", \"sectors\": [[1, 1], [7, 2], [16, 100], [1023, 1]]},
		\"1\": {\"tag\": \"mid\"}, \"10\": {\"tag\": \"mid\", \"sectors\": [[0, 1]]}}}"
	vhd top.vhd "{\"type\": \"differencing\", \"size\": 5243392, \"cut\": true,
		\"parent_id\": \"$VHD_B\", \"relative\": \".\\\\middle.vhd\", \"blocks\": {
		\"0\": {\"tag\": \"top\", \"sectors\": [[0, 1], [5, 3], [4000, 90]]},
		\"2\": {\"tag\": \"top\", \"sectors\": [[2000, 49]]}}}"
}

test_vhd_chain_reads_right() {
	local type
	for type in fixed dynamic; do
		vhd_chain $type
		"$VHD" merge want top.vhd middle.vhd base.vhd
		unchanged vc 0 compare --strict top.vhd want
		"$VHD" merge want middle.vhd base.vhd
		vc 0 compare --strict middle.vhd want
		unchanged vc 0 chain --json top.vhd
		same "$(json '[(i["format"], i["type"], i["state"]) for i in j["chain"]]')" \
			"[('vhd', 'differencing', 'clean'), ('vhd', 'differencing', 'clean'), ('vhd', '$type', 'clean')]"
	done
	vc 0 map --json top.vhd
	same "$(json '[(e["start"], e["length"], e["depth"]) for e in j][:6]')" \
		'[(0, 512, 0), (512, 512, 1), (1024, 1536, 2), (2560, 1536, 0), (4096, 512, 1), (4608, 3584, 2)]'
	vc 0 scan .
	has 'top.vhd'
	vc 0 children --json base.vhd
	same "$(json 'j["children"][0]["path"].rsplit("/", 1)[1]')" middle.vhd
}

# A sparse file takes no memory for what it only claims to have.
test_vhd_sparse() {
	local what
	vhd a.vhd '{"type": "dynamic", "size": 1048576, "block_size": 4096, "blocks": {
		"0": {"tag": "x"}, "200": {"tag": "x"}}}'
	"$VHD" merge want a.vhd
	tail -c 512 a.vhd >footer
	truncate -s $(((2 << 40) - 512)) a.vhd
	cat footer >>a.vhd
	cp --sparse=always a.vhd b.vhd
	vhd_set b.vhd {footer,copy}.current_size=$((2040 << 30)) \
		header.max_entries=$(((2040 << 30) / 4096))
	for what in 'compare a.vhd want' 'check a.vhd' 'map b.vhd'; do
		# shellcheck disable=SC2086
		/usr/bin/python3 - "$VHDCLONE" $what >most 2>err <<-'END'
			import resource, subprocess, sys
			code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode
			print(code, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
		END
		[ "$(cut -d' ' -f2 most)" -lt 300000 ] || fail "$what: $(cat most) KiB"
		same "$(cut -d' ' -f1 most)" "$([ "$what" = 'map b.vhd' ] && echo 4 || echo 0)" "$what"
	done
}

test_vhd_info() {
	vhd_chain
	vc 0 info --json middle.vhd
	same "$(json '[j[k] for k in ("format", "type", "virtual-size", "block-size", "total-blocks",
		"present-blocks", "unique-id", "footer-damaged")]')" \
		"['vhd', 'differencing', 5243392, 524288, 11, 3, 'bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb', False]"
	same "$(json 'j["parent-locator"]["absolute_win32_path"]')" 'C:\vms\base.vhd'
	vc 0 info middle.vhd
	has 'VHD, version 1'
	has 'relative_path = .\\base.vhd'
	vc 0 info --chain top.vhd
	same "$(grep -c ^path: out)" 3 layers
}

test_vhd_identity() {
	vhd_chain
	vhd base.vhd "{\"type\": \"fixed\", \"size\": 5243392, \"id\": \"$VHD_B\"}"
	vc 6 chain middle.vhd
	has 'unique ID is bbbbbbbb.*expected aaaaaaaa' err
	vc 6 map top.vhd
	# A parent that is no VHD, and one that is not there.
	image base.vhd '{"type": "dynamic", "size": "8M"}'
	refused 4 'not a VHD, but' map middle.vhd
	rm base.vhd
	refused 4 'No such file.*--base' map middle.vhd
	vhd_chain
	mkdir old
	mv base.vhd old/
	vc 0 chain --base old/base.vhd middle.vhd
	vc 0 chain --base-dir old middle.vhd
	# Only a name is there.
	vhd child.vhd "{\"type\": \"differencing\", \"size\": 5243392,
		\"parent_id\": \"$VHD_A\", \"name\": \"old\\\\base.vhd\"}"
	vc 0 chain child.vhd
}

# damaged(pattern, field=value): of a fresh dynamic image, refused in one line
damaged_vhd() {
	vhd_chain dynamic
	vhd_set base.vhd "$2"
	refused 4 "$1" map base.vhd
}

test_vhd_damage_is_refused() {
	damaged_vhd 'footer: version is unknown.*offset' footer.version=0x20000
	damaged_vhd 'footer: type is unknown' footer.type=5
	damaged_vhd 'footer: size' footer.current_size=0
	damaged_vhd 'footer: size' footer.current_size=1000
	damaged_vhd 'footer: size' footer.current_size=0x1fe00000200
	damaged_vhd 'footer: offset of the header' footer.header_offset=0
	damaged_vhd 'footer: offset of the header' footer.header_offset=513
	damaged_vhd 'ends at [0-9]{7}, before the dynamic header' footer.header_offset=0x40000000
	damaged_vhd 'dynamic header: signature' footer.header_offset=1024
	damaged_vhd 'dynamic header: checksum.*offset 548' header.checksum=1
	damaged_vhd 'dynamic header: version' header.version=1
	damaged_vhd 'dynamic header: block size' header.block_size=3000000
	damaged_vhd 'dynamic header: block size' header.block_size=0
	damaged_vhd 'dynamic header: block size' header.block_size=0x80000000
	damaged_vhd 'fewer entries' header.max_entries=2
	damaged_vhd 'offset of the BAT' header.bat_offset=1000
	damaged_vhd 'ends at .* inside the BAT' header.bat_offset=0x40000000
	damaged_vhd 'BAT entry: block lies behind the end.*offset 1540' 'bat[1]=100000'
	damaged_vhd 'BAT entry: block lies behind the end' 'bat[1]=0xfffffffe'
	damaged_vhd 'BAT entry: block lies on the header or the BAT' 'bat[1]=0'
	damaged_vhd 'BAT entry: block lies on the header or the BAT' 'bat[1]=2'
	damaged_vhd 'BAT entry: block lies on the header or the BAT' 'bat[1]=3'
	damaged_vhd 'BAT entry: block lies on another block' 'bat[1]=5'
	damaged_vhd 'BAT entry: block lies on another block' 'bat[1]=4000'
	vhd_chain
	vhd_set middle.vhd header.locator_length=0x10000000
	refused 4 'parent locator: length' map middle.vhd
	vhd_chain
	vhd_set middle.vhd header.locator_offset=0x10000000
	refused 4 'ends at [0-9]{7}, before the parent locator' map middle.vhd
	vhd_chain
	vhd_set base.vhd footer.current_size=5243904
	refused 4 'the disk has 5243904 bytes and a footer' map base.vhd
	vhd_set base.vhd footer.checksum=1
	refused 4 'footer: checksum' map base.vhd
	# Whatever it is, somebody may know better.
	vc 0 create --base-format raw base.vhd clone.vhdx
	rm clone.vhdx .base.vhd.vhdclone
	vc 4 scan --json .
	same "$(json '[i["state"] for i in j["images"]]')" \
		"['damaged', 'orphan', 'orphan']"
}

test_vhd_has_two_footers() {
	vhd_chain dynamic
	"$VHD" merge want base.vhd
	vhd_set base.vhd copy.checksum=1
	vc 0 compare base.vhd want
	vc 0 info --json base.vhd
	same "$(json 'j["footer-damaged"]')" True
	vhd_chain dynamic
	vhd_set base.vhd footer.checksum=1
	vc 0 compare base.vhd want
	vc 0 info base.vhd
	has 'footer: +damaged'
	# The end was never written.
	truncate -s -512 base.vhd
	vc 0 compare base.vhd want
	# But a raw disk does not become a VHD by what its guest writes to its start.
	truncate -s 4M raw.img
	vhd fixed.vhd '{"type": "fixed", "size": 1048576}'
	tail -c 512 fixed.vhd | dd of=raw.img conv=notrunc status=none
	vc 0 map --json raw.img
	same "$(json 'j[-1]["start"] + j[-1]["length"]')" 4194304
}

# found(pattern, field=value...): of a fresh chain, by check of its middle
found_vhd() {
	local pattern=$1
	shift
	vhd_chain dynamic
	vhd_set middle.vhd "$@"
	unchanged vc 2 check --no-chain middle.vhd
	has "$pattern"
	vc 2 check --json top.vhd
	same "$(json 'j["exit-code"], j["corruptions"] > 0')" '(2, True)'
}

test_vhd_check() {
	local type
	for type in fixed dynamic; do
		vhd_chain $type
		unchanged vc 0 check top.vhd
		has 'No errors found in 3 images'
		vc 0 check --no-chain base.vhd
	done
	found_vhd 'error: footer: checksum is wrong.*its copy is used' footer.checksum=1
	found_vhd 'copy of the footer: checksum is wrong.*the footer is used' copy.checksum=1
	found_vhd 'footer and its copy differ' copy.features=77
	found_vhd 'dynamic header: checksum' header.checksum=1
	found_vhd 'BAT entry: block lies behind the end.*offset 1548, block 3 at sector 100000' \
		'bat[3]=100000'
	found_vhd 'block lies on another block' 'bat[3]=10'
	found_vhd 'block lies on the header or the BAT' 'bat[3]=1'
	# All of them are told, not only the first.
	found_vhd 'block 5 at' 'bat[3]=100000' 'bat[5]=100000'
	has 'block 3 at'
	found_vhd 'block lies on a parent locator' 'bat[0]=4' 'bat[1]=0xffffffff' 'bat[10]=0xffffffff'
	vhd_chain
	"$VHD" build "{\"type\": \"differencing\", \"size\": 5243392, \"parent_id\": \"$VHD_A\"}" \
		nameless.vhd
	vc 2 check --no-chain nameless.vhd
	has 'no path that can be read'
	vc 2 check middle.vhd --base top.vhd
	raw raw.img 1M
	refused 63 'not a VHDX or VHD' check raw.img
	unchanged refused 63 'not repaired' check --repair middle.vhd
	# As layers of a clone.
	vhd_chain dynamic
	vc 0 create base.vhd clone.vhdx
	vhd_set base.vhd copy.checksum=1
	vc 0 check --no-chain clone.vhdx
}

# The footers of the first writers had 511 bytes.
test_vhd_short_footer() {
	local type
	for type in fixed dynamic; do
		vhd_chain $type
		"$VHD" merge want base.vhd
		truncate -s -1 base.vhd
		vc 0 info --json base.vhd
		same "$(json 'j["format"], j["type"], j["footer-damaged"]')" "('vhd', '$type', False)"
		vc 0 compare --strict base.vhd want
		vc 0 check base.vhd
	done
}

test_vhd_as_base() {
	vhd_chain
	vc 0 create base.vhd clone.vhdx
	vc 0 compare --strict clone.vhdx base.vhd
	vc 0 chain --json clone.vhdx
	same "$(json '[i["format"] for i in j["chain"]], j["complete"]')" "(['vhdx', 'vhd'], True)"
	vc 0 check clone.vhdx
	vc 0 children base.vhd
	has 'clone.vhdx'
	vc 0 info --json clone.vhdx
	same "$(json 'j["parent-locator"]["parent_linkage"]')" aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa
	# Moved, as any base.
	mkdir new
	cp base.vhd clone.vhdx new/
	rm base.vhd
	vc 0 compare new/clone.vhdx new/base.vhd
	printf x | dd of=new/base.vhd bs=1 conv=notrunc status=none
	vc 6 chain new/clone.vhdx
	has 'fingerprint' err
	vhd_chain
	refused 4 'convert' create --base-format vhdx base.vhd clone2.vhdx
	vc 0 create --base-format vhd base.vhd clone2.vhdx
	refused 4 'not a VHD:' create --base-format vhd clone.vhdx clone3.vhdx
	refused 4 'no multiple of 4096' create --logical-sector-size 4096 base.vhd clone3.vhdx
}

test_vhd_table() {
	[ "$(id -u)" = 0 ] || skip 'not root'
	vhd_chain dynamic
	vc 0 create top.vhd on-top.vhdx
	"$VHD" merge want top.vhd middle.vhd base.vhd
	vc 0 compare --strict on-top.vhdx want
	"$VHD" build '{"type": "dynamic", "size": 8388608}' 8M.vhd
	vc 0 create --logical-sector-size 4096 8M.vhd 4k.vhdx
	unchanged refused 4 "8M.vhd: a dynamic VHD .* 4096 .*'vhdclone convert'" table 4k.vhdx
	unchanged refused 4 'a dynamic VHD .*convert' open 4k.vhdx
	"$VHD" build '{"type": "dynamic", "size": 8388608, "block_size": 32768}' small.vhd
	vc 0 create small.vhd on-small.vhdx
	unchanged refused 4 'blocks of 32768 bytes .*convert' table on-small.vhdx
}

test_vhd_of_windows() {
	need_image fat-parent.vhd
	need_image fat-differential.vhd
	bzip2 -dc "$IMAGES/hyperv2012r2-dynamic.vhd.bz2" >dynamic.vhd
	vc 0 scan --json .
	same "$(json '[(i["type"], i["state"]) for i in j["images"]]')" \
		"[('dynamic', 'clean'), ('differencing', 'clean'), ('fixed', 'clean')]"
	# Read with a parser of its own, long before this one: shared by those who know.
	"$VHD" merge want fat-differential.vhd fat-parent.vhd
	same "$(hash_of want)" f4b61a33ee2f7e8c19f737792a4107e46340026a9a829e4169b751901cc3ef02
	vc 0 compare --strict fat-differential.vhd want
	head -c 4194304 fat-parent.vhd >want
	vc 0 compare --strict fat-parent.vhd want
	truncate -s 0 want
	truncate -s 136365211648 want
	vc 0 compare --strict --json dynamic.vhd want
	same "$(json 'j["read-bytes"]')" 0
}

test_vhd_as_others_read_it() {
	command -v qemu-img >/dev/null || skip 'no qemu-img'
	qemu-img create -q -f vpc -o subformat=dynamic,force_size=on q.vhd 70M
	qemu-io -f vpc -c 'write -q -P 5 1000k 3000k' -c 'write -q -P 7 66M 4M' q.vhd
	qemu-img convert -f vpc -O raw q.vhd want
	vc 0 compare --strict q.vhd want
	qemu-img convert -f raw -O vpc -o subformat=fixed,force_size=on want fixed.vhd
	vc 0 compare --strict fixed.vhd want
	/usr/bin/python3 -c 'import pyvhdi' 2>/dev/null || skip 'no libvhdi'
	same "$("$VHDI" q.vhd | cut -d' ' -f1)" "$(hash_of want)"
}
