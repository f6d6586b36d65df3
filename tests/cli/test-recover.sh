# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later

dirty='"type": "dynamic", "size": "40M", "block_size": "1M",
	"default": {"state": 6, "fill": {"tag": "x"}}'

# recovered(file): the same as the other implementation makes of it
recovered() {
	cp "$1" expected.vhdx
	"$VHDX" replay expected.vhdx >/dev/null
	# Looking does not change it, and shows what will be.
	unchanged vc 0 info --json "$1"
	same "$(json 'j["log"]["dirty"], j["full-blocks"]')" '(True, 40)'
	unchanged vc 0 check "$1"
	has 'entries.*to replay'
	vc 0 recover --json "$1"
	same "$(json 'j["replayed"]')" True
	"$VHDX" check --clean --quiet "$1" || fail "not clean"
	"$VHDX" merge a.raw "$1"
	"$VHDX" merge b.raw expected.vhdx
	cmp a.raw b.raw
	# All but the headers, whose GUIDs are random.
	cmp -i 196608 "$1" expected.vhdx
	vc 0 recover "$1"
	has 'nothing to do'
	vc 0 check "$1"
	same "$(wc -l <out)" 1
}

test_recover() {
	image a.vhdx "{$dirty, \"dirty\": {\"per_entry\": 1}}"
	recovered a.vhdx
}

test_recover_wrapped() {
	# The ring ends in the middle of the second entry.
	image a.vhdx "{$dirty, \"dirty\": {\"start\": 1036288, \"per_entry\": 3}}"
	recovered a.vhdx
}

test_recover_many_entries() {
	image a.vhdx '{"size": "40M", "block_size": "1M", "parent": {"parent_linkage":
		"{11111111-2222-3333-4444-555555555555}", "relative_path": ".\\b.vhdx"},
		"blocks": {"0-39": {"state": 7, "sectors": [[3, 9]]}},
		"dirty": {"per_entry": 1, "start": 1044480}}'
	cp a.vhdx expected.vhdx
	"$VHDX" replay expected.vhdx >/dev/null
	vc 0 recover a.vhdx
	cmp -i 196608 a.vhdx expected.vhdx
}

test_recover_ignores_other_entries() {
	image a.vhdx "{$dirty, \"dirty\": {\"stale\": true}, \"garbage\": true}"
	recovered a.vhdx
	image a.vhdx "{$dirty, \"dirty\": {\"torn\": true}, \"garbage\": true}"
	recovered a.vhdx
}

test_recover_headers() {
	local before
	image a.vhdx "{$dirty, \"dirty\": {}}"
	vc 0 info --json a.vhdx
	before=$(json 'j["data-write-guid"]')
	cp out before
	vc 0 recover a.vhdx
	vc 0 info --json a.vhdx
	# The same data for its children, another file for those who cache it.
	same "$(json 'j["data-write-guid"]')" "$before"
	same "$(json 'json.load(open("before"))["file-write-guid"] ==
		j["file-write-guid"]')" False
	same "$(json 'j["log"]["guid"], j["log"]["dirty"]')" '(None, False)'
}

test_recover_nothing_to_do() {
	image a.vhdx "{$dirty}"
	unchanged vc 0 recover a.vhdx
	has 'nothing to do'
	vc 0 recover --json a.vhdx
	same "$(json 'j["replayed"], j["entries"]')" '(False, 0)'
	chmod 444 a.vhdx
	unchanged vc 0 recover a.vhdx
}

test_recover_damaged_header() {
	image a.vhdx "{$dirty}"
	set_field --no-crc a.vhdx header1.seq=77
	vc 0 check a.vhdx
	has 'note: header 1 is not valid'
	vc 0 recover a.vhdx
	has 'written anew'
	vc 0 check a.vhdx
	same "$(wc -l <out)" 1
}

test_recover_refuses() {
	image a.vhdx "{$dirty, \"dirty\": {}}"
	cp a.vhdx b.vhdx
	truncate -s 8M b.vhdx
	unchanged refused 4 'truncated' recover b.vhdx
	# No entry carries the GUID that the header names.
	cp a.vhdx c.vhdx
	set_field c.vhdx headers.log_guid=11111111-2222-3333-4444-555555555555
	unchanged refused 4 'no valid sequence' recover c.vhdx
	vc 2 check c.vhdx
	cp a.vhdx d.vhdx
	set_field d.vhdx headers.log_version=1
	unchanged refused 4 'log version' recover d.vhdx
	vc 63 check d.vhdx
	raw base.img 1M
	refused 4 'not a VHDX' recover base.img
	refused 4 'No such file' recover nothing
}

# An entry that would write where no entry may.
test_recover_evil_targets() {
	local target
	for target in 0 65536 131072 1048576 1052672 600000000000000; do
		image a.vhdx "{$dirty, \"dirty\": {\"per_entry\": 1}}"
		/usr/bin/python3 - "$TOP/tests/lib" a.vhdx $target <<-'END'
			import sys
			sys.path.insert(0, sys.argv[1])
			import vhdx
			image = vhdx.Image(sys.argv[2], strict=False)
			h = image.header
			out = vhdx.Store(sys.argv[2], writable=True)
			size = image.store.size
			out.write(h["log_offset"], vhdx.log_entry(
			    h["log_guid"], 1 << 62, 0,
			    [(int(sys.argv[3]) // 4096 * 4096, bytes(4096))],
			    ff=size, lf=size))
			out.close()
		END
		unchanged refused 4 'would write' recover a.vhdx
		vc 2 check a.vhdx
	done
}

test_recover_extends() {
	image a.vhdx "{$dirty, \"dirty\": {\"per_entry\": 9}}"
	/usr/bin/python3 - "$TOP/tests/lib" a.vhdx <<-'END'
		import sys
		sys.path.insert(0, sys.argv[1])
		import vhdx
		image = vhdx.Image(sys.argv[2], strict=False)
		h = image.header
		out = vhdx.Store(sys.argv[2], writable=True)
		size = image.store.size
		bat = image.regions["bat"][0]
		out.write(h["log_offset"], vhdx.log_entry(
		    h["log_guid"], 1 << 62, 0,
		    [(bat, image.store.read(bat, 4096)), (size + 4096, b"new!" * 1024)],
		    zeros=[(size, 4096)], ff=size, lf=size + (3 << 20)))
		out.close()
		print(size)
	END
	size=$(stat -c %s a.vhdx)
	vc 0 recover --json a.vhdx
	same "$(json 'j["entries"], j["pages"], j["zero-bytes"], j["file-grown-by"]')" \
		"(1, 2, 4096, 3145728)"
	same "$(stat -c %s a.vhdx)" $((size + (3 << 20)))
	same "$(tail -c +$((size + 4097)) a.vhdx | head -c 4)" 'new!'
	"$VHDX" check --clean --quiet a.vhdx
}
