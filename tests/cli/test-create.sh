# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later

strict() {
	"$VHDX" check --clean --quiet "$1" || fail "$1: the other implementation objects"
	vc 0 check "$1"
}

test_create_over_vhdx() {
	image base.vhdx '{"type": "dynamic", "size": "10M", "block_size": "2M",
		"blocks": {"0-2": {"state": 6, "fill": {"tag": "base"}}}}'
	vc 0 create base.vhdx clone.vhdx
	[ ! -s out ] || fail "it printed something"
	strict clone.vhdx
	[ "$(stat -c %s clone.vhdx)" -le $((4 << 20)) ] || fail "too large"
	vc 0 info --json base.vhdx
	cp out base.json
	vc 0 info --json clone.vhdx
	same "$(json '[j["type"], j["parent"], j["virtual-size"], j["block-size"],
		j["logical-sector-size"], j["physical-sector-size"]]')" \
		"['differencing', './base.vhdx', 10485760, 2097152, 512, 4096]"
	# Same disk: same identity.  It expects this very state of the base.
	same "$(json 'json.load(open("base.json"))["virtual-disk-id"] ==
		j["virtual-disk-id"]')" True
	same "$(json 'j["parent-locator"]["parent_linkage"] ==
		"{%s}" % json.load(open("base.json"))["data-write-guid"]')" True
	same "$(json 'j["parent-locator"]["relative_path"]')" '.\base.vhdx'
	same "$(json 'j["parent-locator"]["parent_linkage2"]')" \
		'{00000000-0000-0000-0000-000000000000}'
	"$VHDX" merge base.raw base.vhdx
	"$VHDX" compare base.raw clone.vhdx base.vhdx
}

test_create_read_by_libvhdi() {
	/usr/bin/python3 -c 'import pyvhdi' 2>/dev/null || skip "no python3-libvhdi"
	image base.vhdx '{"type": "dynamic", "size": "10M", "block_size": "2M",
		"blocks": {"1-2": {"state": 6, "fill": {"tag": "base"}}}}'
	vc 0 create base.vhdx clone.vhdx
	vc 0 create clone.vhdx clone2.vhdx
	"$VHDX" merge base.raw base.vhdx
	same "$("$VHDI" clone.vhdx base.vhdx | cut -d' ' -f1)" "$(hash_of base.raw)"
	same "$("$VHDI" clone2.vhdx clone.vhdx base.vhdx | cut -d' ' -f1)" \
		"$(hash_of base.raw)"
}

test_create_over_windows_image() {
	need_image fat-parent.vhdx
	need_image fat-differential.vhdx
	vc 0 check fat-differential.vhdx
	vc 0 info --chain --json fat-differential.vhdx
	same "$(json '[i["type"] for i in j["chain"]]')" "['differencing', 'fixed']"
	vc 0 create fat-differential.vhdx clone.vhdx
	strict clone.vhdx
	vc 0 info --chain --json clone.vhdx
	same "$(json 'len(j["chain"])')" 3
}

test_create_over_raw() {
	raw base.img 9M
	vc 0 create base.img clone.vhdx
	vc 0 check clone.vhdx
	vc 0 info --json --chain clone.vhdx
	same "$(json '[i["type"] for i in j["chain"]]')" "['differencing', 'raw']"
	same "$(json 'j["chain"][0]["virtual-size"]')" 9437184
	same "$(json 'j["chain"][0]["parent-locator"]["type"]')" \
		cc0ca12a-9e33-46a4-90da-45680eec92bb
	same "$(json 'sorted(j["chain"][0]["parent-locator"])')" \
		"['absolute_path', 'fingerprint', 'relative_path', 'size', 'type']"
	same "$(json 'j["chain"][0]["logical-sector-size"],
		j["chain"][0]["physical-sector-size"]')" '(512, 512)'
	truncate -s 1000 odd.img
	refused 4 'multiple of 512' create odd.img x.vhdx
	: >empty.img
	refused 4 'is empty' create empty.img x.vhdx
	[ ! -e x.vhdx ] || fail "x.vhdx is there"
}

test_create_base_formats() {
	image base.vhdx '{"type": "dynamic", "size": "4M", "block_size": "2M"}'
	raw base.img 4M
	vc 0 create --base-format vhdx base.vhdx a.vhdx
	vc 0 create --base-format raw base.vhdx b.vhdx
	vc 0 info --json --chain b.vhdx
	same "$(json 'j["chain"][1]["type"]')" raw
	vc 0 check b.vhdx
	refused 4 'not a VHDX' create --base-format vhdx base.img c.vhdx
	refused 1 'base-format' create --base-format nonsense base.img c.vhdx
	# Other formats would make a clone of garbage.
	truncate -s 1M fixed.vhd
	printf conectix | dd of=fixed.vhd bs=1 seek=$((1048576 - 512)) conv=notrunc status=none
	refused 4 'footer: checksum is wrong' create fixed.vhd c.vhdx
	printf 'QFI\373' >image.qcow2
	truncate -s 1M image.qcow2
	refused 4 'a QCOW' create image.qcow2 c.vhdx
	vc 0 create --base-format raw image.qcow2 c.vhdx
}

test_create_sizes() {
	raw base.img 8M
	vc 0 create --size 1.5G --block-size 4M --log-size 3M base.img a.vhdx
	strict a.vhdx
	vc 0 info --json a.vhdx
	same "$(json '[j["virtual-size"], j["block-size"], j["log"]["size"]]')" \
		"[1610612736, 4194304, 3145728]"
	vc 0 create --size 1M base.img b.vhdx
	strict b.vhdx
	vc 0 create --size 64T --block-size 256MiB base.img c.vhdx
	strict c.vhdx
	same "$(stat -c %s c.vhdx)" $((6 << 20))
	vc 0 create --size 64T base.img d.vhdx
	vc 0 info --json d.vhdx
	same "$(json 'j["bat-region"]["size"]')" $((257 << 20))
	rm d.vhdx
	for bad in 0 1000 x 1K1 -1 65T 1.1 99999999999999999999; do
		refused 1 'size' create --size=$bad base.img x.vhdx
	done
	for bad in 3M 512K 512M 1; do
		refused 1 'block-size' create --block-size $bad base.img x.vhdx
	done
	refused 1 'log-size' create --log-size 1000K base.img x.vhdx
	refused 1 'log-size' create --log-size 2G base.img x.vhdx
	[ ! -e x.vhdx ] || fail "x.vhdx is there"
}

test_create_sector_sizes() {
	image base.vhdx '{"type": "dynamic", "size": "8M", "lss": 4096, "pss": 4096}'
	vc 0 create base.vhdx a.vhdx
	vc 0 info --json a.vhdx
	same "$(json 'j["logical-sector-size"], j["physical-sector-size"]')" '(4096, 4096)'
	strict a.vhdx
	vc 0 create --physical-sector-size 512 base.vhdx b.vhdx
	vc 0 info --json b.vhdx
	same "$(json 'j["physical-sector-size"]')" 512
	refused 4 'sectors of 4096' create --logical-sector-size 512 base.vhdx c.vhdx
	refused 4 'cannot be made' create --size 8389120 base.vhdx c.vhdx
	refused 1 'not 512 or 4096' create --logical-sector-size 1024 base.vhdx c.vhdx
	raw base.img 8M
	vc 0 create --logical-sector-size 4096 base.img d.vhdx
	strict d.vhdx
}

test_create_dynamic_and_fixed() {
	local type
	for type in dynamic fixed; do
		vc 0 create --type $type --size 20M $type.vhdx
		strict $type.vhdx
		vc 0 info --json $type.vhdx
		same "$(json '[j["type"], j["parent"], j["virtual-size"],
			j["logical-sector-size"], j["physical-sector-size"]]')" \
			"['$type', None, 20971520, 512, 4096]"
		command -v qemu-img >/dev/null || continue
		qemu-img check -q $type.vhdx || fail "qemu-img check"
		truncate -s 20M zeros
		qemu-img compare -q -F raw -f vhdx $type.vhdx zeros || fail "not zeros"
	done
	same "$(stat -c %s dynamic.vhdx)" $((4 << 20))
	same "$(stat -c %s fixed.vhdx)" $((24 << 20))
	[ "$(($(stat -c %b fixed.vhdx) * 512))" -ge $((24 << 20)) ] || fail "has holes"
	refused 1 'need --size' create --type fixed x.vhdx
	refused 1 'need one FILE' create --type fixed --size 1M a b
	refused 1 'nonsense' create --type nonsense a b
	# Past one chunk, entries of bitmaps lie between those of blocks.
	vc 0 create --type dynamic --size 5G --block-size 1M big.vhdx
	strict big.vhdx
}

test_create_takes_its_space() {
	local n
	raw base.img 1M
	vc 0 create base.img clone.vhdx
	n=$(($(stat -c %b clone.vhdx) * 512))
	[ $n -ge $((4 << 20)) ] || fail "only $n bytes are allocated"
}

test_create_overwrites_nothing() {
	raw base.img 1M
	echo precious >clone.vhdx
	unchanged refused 5 'exists.*--force' create base.img clone.vhdx
	unchanged refused 5 'stand on' create --force base.img base.img
	ln -s base.img link
	unchanged refused 5 'stand on' create --force base.img link
	ln base.img hard
	unchanged refused 5 'stand on' create --force base.img hard
	ln -s nowhere dangling
	unchanged refused 5 'link to nothing' create base.img dangling
	vc 0 create --force base.img clone.vhdx
	strict clone.vhdx
	# Not the base of the base either.
	vc 0 create clone.vhdx clone2.vhdx
	unchanged refused 5 'stand on' create --force clone2.vhdx base.img
	# Through a link the file is replaced, not the link.
	ln -s target.vhdx link2
	echo precious >target.vhdx
	vc 0 create -f base.img link2
	[ -L link2 ] || fail "the link is gone"
	strict target.vhdx
}

test_create_leaves_nothing_behind() {
	raw base.img 1M
	refused 4 'No such file' create base.img nowhere/clone.vhdx
	refused 4 'No such file' create nothing.img clone.vhdx
	refused 4 'directory' create base.img .
	mkdir full
	if [ "$(id -u)" = 0 ] && mount -t tmpfs -o size=2M tmpfs full 2>/dev/null; then
		"$VHDCLONE" create base.img full/clone.vhdx 2>err && fail "in 2 MiB?"
		has 'space' err
		same "$(ls -A full)" ''
		umount full
	fi
	same "$(find . -name 'clone*' -o -name '.vhd*')" ''
}

test_create_file_size_limit() {
	local code=0
	raw base.img 1M
	( ulimit -f 2048; exec "$VHDCLONE" create base.img clone.vhdx ) 2>err || code=$?
	same "$code" 7 "exit code"
	[ ! -e clone.vhdx ] || fail "clone.vhdx is there"
}

test_create_json() {
	raw base.img 1M
	vc 0 create --json base.img clone.vhdx
	same "$(json '[j["path"], j["parent"], j["virtual-size"], j["block-size"],
		j["file-size"]]')" "['clone.vhdx', 'base.img', 1048576, 2097152, 4194304]"
}

test_create_dirty_base() {
	image base.vhdx '{"type": "dynamic", "size": "4M", "block_size": "2M",
		"blocks": {"0": 6}, "dirty": {}}'
	unchanged refused 4 'vhdclone recover base.vhdx' create base.vhdx clone.vhdx
	vc 0 recover base.vhdx
	vc 0 create base.vhdx clone.vhdx
	vc 0 check clone.vhdx
}

test_create_paths() {
	mkdir -p a/b c
	image a/base.vhdx '{"type": "dynamic", "size": "4M", "block_size": "2M"}'
	vc 0 create a/base.vhdx a/b/clone.vhdx
	vc 0 info --json a/b/clone.vhdx
	same "$(json 'j["parent-locator"]["relative_path"]')" '..\base.vhdx'
	vc 0 create "$PWD/a/base.vhdx" c/clone.vhdx
	vc 0 info --json c/clone.vhdx
	same "$(json 'j["parent-locator"]["relative_path"]')" '..\a\base.vhdx'
	cp a/base.vhdx 'c/bäse €𝄞.vhdx'
	vc 0 create 'c/bäse €𝄞.vhdx' c/odd.vhdx
	vc 0 check c/odd.vhdx
	vc 0 info --json c/odd.vhdx
	same "$(json 'j["parent"]')" './bäse €𝄞.vhdx'
	cp a/base.vhdx 'c/ba\se.vhdx'
	refused 4 'backslash' create 'c/ba\se.vhdx' c/x.vhdx
	cp a/base.vhdx $'c/\xff\xfe.vhdx'
	refused 4 'UTF-8' create $'c/\xff\xfe.vhdx' c/x.vhdx
}

test_create_is_fast() {
	local best=999999 start end i
	# One without sanitizers, where there is one.
	[ ! -x "$TOP/build/vhdclone" ] || VHDCLONE=$TOP/build/vhdclone
	dd if=/dev/urandom of=base.img bs=1M count=64 status=none
	truncate -s 100G base.img
	for i in 1 2 3 4 5 6 7 8; do
		start=$(date +%s%N)
		"$VHDCLONE" create base.img $i.vhdx
		end=$(date +%s%N)
		best=$(((end - start) / 1000 < best ? (end - start) / 1000 : best))
	done
	echo "$best microseconds, fsync and the start of the program included"
	[ $best -lt 100000 ] || fail "took $best microseconds"
}
