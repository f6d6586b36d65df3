# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later

# damaged(exit code, pattern, [--no-crc,] field=value...): a good image, with that changed
damaged() {
	local want=$1 pattern=$2 crc=
	shift 2
	if [ "$1" = --no-crc ]; then
		crc=$1
		shift
	fi
	cp good.vhdx bad.vhdx
	set_field ${crc:+"$crc"} bad.vhdx "$@"
	unchanged vc "$want" check bad.vhdx
	cat out err >both
	has "$pattern" both
	rm both
	if [ "$want" = 2 ] || [ "$want" = 63 ]; then
		# No verb believes what check does not, nor changes it.
		unchanged refused 4 . table bad.vhdx
	fi
}

good() {
	image base.vhdx '{"type": "dynamic", "size": "16M", "block_size": "2M"}'
	image good.vhdx '{"size": "16M", "block_size": "2M", "parent": "base.vhdx",
		"blocks": {"0": {"state": 7, "sectors": [[0, 5], [9, 100]]},
		"1-2": {"state": 6, "fill": {"tag": "x"}}, "4": 2}}'
	vc 0 check good.vhdx
	same "$(cat out)" 'No errors found in 2 images.'
}

test_check_headers() {
	good
	damaged 2 'no copy' --no-crc headers.seq=5
	damaged 2 'sequence number' header1.seq=9 header2.seq=9 \
		header2.data_write_guid=11111111-2222-3333-4444-555555555555
	damaged 63 'version' headers.version=2
	damaged 2 'log length' headers.log_length=4096
	damaged 2 'log offset' headers.log_offset=4096
	damaged 2 'log' headers.log_offset=3M
	damaged 2 'end of the file' headers.log_offset=1T
	damaged 2 'identifier' identifier=vhdxfilX
}

test_check_regions() {
	good
	damaged 2 'region table' --no-crc regions.count=1
	for n in 1 2; do
		cp good.vhdx bad.vhdx
		set_field bad.vhdx region$n.signature=nope
		vc 2 check bad.vhdx
		has 'copies of the region table'
		# The other copy will do.
		vc 0 info bad.vhdx
	done
	damaged 2 'no metadata region' regions.count=1
	damaged 2 'too many' regions.count=5000
	damaged 2 'multiple of 1 MiB' regions.bat.offset=4096
	damaged 2 'overlap' regions.bat.offset=2M
	damaged 2 'end' regions.bat.offset=100G
	damaged 63 'unknown' regions.bat.guid=11111111-2222-3333-4444-555555555555 \
		regions.metadata.flags=1
}

test_check_metadata() {
	good
	damaged 2 'signature' table.signature=nonsense
	damaged 2 'locator' flags=0
	damaged 2 'block size' block_size=3000000
	damaged 2 'virtual' virtual_size=1
	damaged 2 'virtual' virtual_size=65T
	damaged 2 'sector size' lss=1024
	damaged 2 'region' item.locator.offset=2M
	damaged 2 'item' item.virtual_size.offset=65536
	damaged 63 'unknown' item.pss.id=11111111-2222-3333-4444-555555555555
	damaged 2 'BAT' virtual_size=64T
}

test_check_bat() {
	good
	damaged 2 'reserved' 'block[1].state=5'
	damaged 2 'reserved' 'bat[1]=0x80006'
	damaged 2 'end of the file' 'block[1].mib=5000'
	damaged 2 'another block' 'block[1].mib=2'
	damaged 2 'header section' 'block[1].mib=0'
	damaged 2 'bitmap' 'chunk[0]=0'
	damaged 2 'reserved' 'chunk[0].state=3'
	# What lies behind the entries in use says nothing.
	damaged 0 'No errors' 'bat[4000]=0xffffffffffffffff'
}

test_check_leaks() {
	good
	damaged 3 'hold data that nothing refers to' 'block[1]=0'
	same "$(tail -n 1 out)" 'Leaks found: 2097152 bytes.'
	vc 3 check --json bad.vhdx
	same "$(json 'j["leaked-bytes"], j["exit-code"], j["corruptions"]')" '(2097152, 3, 0)'
	# Room for more is not a leak.
	cp good.vhdx bad.vhdx
	truncate -s 1T bad.vhdx
	vc 0 check bad.vhdx
	head -c 3M /dev/zero >>good.vhdx
	vc 0 check good.vhdx
}

test_check_chain() {
	good
	vc 0 check --json good.vhdx
	same "$(json 'j["images"], j["findings"], j["json-version"]')" '(2, [], 1)'
	set_field base.vhdx headers.data_write_guid=11111111-2222-3333-4444-555555555555
	vc 2 check good.vhdx
	has 'not the parent'
	vc 0 check --no-chain good.vhdx
	mv base.vhdx other.vhdx
	refused 1 'base.vhdx.*--base' check good.vhdx -q
	vc 1 check --json good.vhdx
	same "$(json 'j["exit-code"], j["findings"][0]["severity"]')" "(1, 'failed')"
	# A fault in a base is a fault of the chain.
	good
	set_field base.vhdx 'block[0].state=5'
	vc 2 check good.vhdx
	has '^.*base.vhdx.*reserved' || true
}

test_check_other_files() {
	raw base.img 1M
	refused 63 'not a VHDX' check base.img
	: >empty
	refused 63 'not a VHDX' check empty
	refused 1 'No such file' check nothing
	printf vhdxfile >short
	vc 63 check short
	head -c 100000 /dev/zero >>short
	vc 2 check short
}

test_check_quiet() {
	good
	vc 0 check -q good.vhdx
	same "$(cat out err)" ''
	set_field good.vhdx 'block[1].state=5'
	vc 2 check --quiet good.vhdx
	same "$(cat out err)" ''
}

test_check_other_creators() {
	local name
	if command -v qemu-img >/dev/null; then
		for sub in dynamic fixed; do
			qemu-img create -q -f vhdx -o subformat=$sub q.vhdx 70M
			vc 0 check q.vhdx
			vc 0 info --json q.vhdx
			same "$(json 'j["type"], j["virtual-size"]')" "('$sub', 73400320)"
			vc 0 create -f q.vhdx c.vhdx
			vc 0 check c.vhdx
		done
	fi
	for name in fat-parent fat-differential; do
		need_image $name.vhdx
		vc 0 check $name.vhdx
	done
}

# bad.vhdx: a bit of all that can be repaired
mendable() {
	image base.vhdx '{"type": "dynamic", "size": "16M", "block_size": "2M"}'
	image bad.vhdx '{"size": "16M", "block_size": "2M", "parent": "base.vhdx",
		"bitmaps": [0], "blocks": {"1-3": {"state": 6, "fill": {"tag": "x"}}}}'
	set_field bad.vhdx 'block[2]=0' 'block[5]=0x6400002' 'region1.signature=nope'
	set_field --no-crc bad.vhdx header1.seq=5
}

test_check_repair() {
	mendable
	cp bad.vhdx before
	vc 0 check --repair --json bad.vhdx
	same "$(json 'j["repaired"], j["undo-file"], j["exit-code"], j["findings"]')" \
		"(5, 'bad.vhdx.undo', 0, [])"
	same "$(json 'sorted(f["kind"] for f in j["repairs"])')" \
		"['header-copy', 'leak', 'region-table-copy', 'unused-bitmap', 'unused-place']"
	"$VHDX" check --clean --quiet bad.vhdx
	unchanged refused 1 'exists' check --repair -q before --undo-file bad.vhdx.undo
	cp bad.vhdx after
	vc 0 check --undo bad.vhdx.undo bad.vhdx
	cmp bad.vhdx before || fail "not what it was"
	# Not for another image, nor after a change, nor when damaged.
	unchanged refused 1 'another image' check --undo bad.vhdx.undo base.vhdx
	cp after bad.vhdx
	vc 0 set --disk-id new bad.vhdx
	unchanged refused 1 'written to since' check --undo bad.vhdx.undo bad.vhdx
	cp after bad.vhdx
	set_field bad.vhdx.undo bytes@200=11
	unchanged refused 1 'checksum' check --undo bad.vhdx.undo bad.vhdx
	unchanged refused 1 'not an undo file' check --undo base.vhdx bad.vhdx
	# Nothing to do: no undo file.
	rm bad.vhdx.undo
	unchanged vc 0 check --repair bad.vhdx
	refused 1 'for --repair only' check --undo-file x bad.vhdx
	chmod 444 bad.vhdx
	unchanged refused 1 'protected' check --repair bad.vhdx
}

# What is left can be repaired, and can be taken back, wherever it was killed.
test_check_repair_killed() {
	mendable
	cp bad.vhdx before
	cat >right <<-'END'
		cp bad.vhdx copy.vhdx
		"$VHDCLONE" recover copy.vhdx >/dev/null || exit 1
		"$VHDCLONE" check --repair --undo-file other.undo copy.vhdx >/dev/null || exit 1
		rm -f other.undo
		"$VHDX" check --clean --quiet copy.vhdx || exit 1
		cmp -s bad.vhdx before && exit
		"$VHDCLONE" check --undo bad.vhdx.undo bad.vhdx && cmp bad.vhdx before
	END
	each_write 'cp before bad.vhdx; rm -f bad.vhdx.undo' 'sh ./right' check --repair bad.vhdx
}

# However the bits look, a dump takes no more than a few times their memory.
test_dump_many_runs() {
	local at tool=$TOP/build/vhdclone
	image base.vhdx '{"type": "dynamic", "size": "1G", "block_size": "1M"}'
	image a.vhdx '{"size": "1G", "block_size": "1M", "parent": "base.vhdx",
		"blocks": {"0": {"state": 7, "sectors": [[0, 1]]}}}'
	at=$("$VHDX" blocks a.vhdx | awk '$1 == "c0" { print $3 }')
	/usr/bin/python3 - a.vhdx $((at << 20)) <<-'END'
		import sys
		with open(sys.argv[1], "r+b") as f:
		    f.seek(int(sys.argv[2]))
		    # A run goes from page 1 to 2, 64 are in page 3, 65 in page 4.
		    f.write(bytes(8191) + b"\x80" + b"\x01" + bytes(4095) +
		            (b"\x05" * 32).ljust(4096, b"\0") +
		            (b"\x05" * 32 + b"\x01").ljust(4096, b"\0") +
		            b"\x55" * (1048576 - 5 * 4096))
	END
	vc 0 dump a.vhdx
	[ "$(stat -c %s out)" -lt 4000000 ] || fail "$(stat -c %s out) bytes are printed"
	json 'j["bat"]["bitmaps"][0]["bits"]' >bits
	same "$(head -c 60 bits)" '[[65535, 2], [98304, 1], [98306, 1], [98312, 1], [98314, 1],'
	same "$(json 'len(j["bat"]["bitmaps"][0]["bits"])')" 65
	same "$(json '[(p["first"], p["bits"][:68]) for p in j["bat"]["bitmaps"][0]["pages"]][0]')" \
		"(131072, '$(printf '05%.0s' {1..32})0100')"
	same "$(json '[p["bits"] == "55" * 4096 for p in j["bat"]["bitmaps"][0]["pages"]].count(True)')" \
		251
	# Without memory it says so, and prints nothing half.
	[ -x "$tool" ] || skip "no tool without sanitizers"
	for at in 8000 10000 12000 14000 16000; do
		code=0
		(ulimit -v $at; exec "$tool" dump a.vhdx) >out 2>err || code=$?
		[ $code = 0 ] || [ ! -s out ] || fail "with $at KiB: half of it"
		grep -qiE 'assert' err && fail "with $at KiB: exit code $code"
		[ $code -lt 128 ] || fail "with $at KiB: exit code $code"
	done
}

test_dump() {
	image base.vhdx '{"type": "dynamic", "size": "16M", "block_size": "2M"}'
	image a.vhdx '{"size": "16M", "block_size": "2M", "parent": "base.vhdx",
		"order": "up", "blocks": {"0": {"state": 7, "sectors": [[0, 5], [9, 100]],
		"fill": {"tag": "secret"}}, "1-3": {"state": 6, "fill": {"tag": "secret"}},
		"6": 2}, "dirty": {}}'
	unchanged vc 0 dump a.vhdx
	! grep -q 73656372 out || fail "there is data in it"
	same "$(json 'j["disk"]["type"], j["disk"]["log-replayed"], j["errors"]')" \
		"('differencing', True, [])"
	same "$(json '[(r["first"], r["count"], r["state"]) for r in j["bat"]["blocks"]]')" \
		'[(0, 1, 7), (1, 3, 6), (4, 2, 0), (6, 1, 2), (7, 1, 0)]'
	same "$(json 'j["bat"]["bitmaps"][0]["bits"]')" '[[0, 5], [9, 100]]'
	same "$(json 'sum(e["valid"] for e in j["log"]) > 0')" True
	raw base.img 2M
	unchanged refused 4 'not a VHDX' dump base.img
}
