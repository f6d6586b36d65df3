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
		log_entry a.vhdx "pages=[($target // 4096 * 4096, bytes(4096))], ff=size, lf=size"
		unchanged refused 4 'would write' recover a.vhdx
		vc 2 check a.vhdx
	done
	# Behind the end that the log itself tells of.
	for target in 'pages=[(size, bytes(4096))]' 'zeros=[(size - M, 2 * M)]' \
		'zeros=[(M * 8 * M, 64 * M)]'; do
		image a.vhdx "{$dirty, \"dirty\": {\"per_entry\": 1}}"
		log_entry a.vhdx "$target, ff=size, lf=size"
		unchanged refused 4 'would write .* behind the end of the file' recover a.vhdx
		vc 2 check a.vhdx
		refused 4 'would write' info a.vhdx
	done
}

# Many entries, at random: pages and zeros on each other, on data and behind the end.
test_recover_overwrites() {
	local seed
	for seed in 1 2 3 4 5 6; do
		image a.vhdx "{$dirty, \"dirty\": {\"per_entry\": 1}}"
		log_entries a.vhdx $((seed * 7)) $seed
		cp a.vhdx expected.vhdx
		"$VHDX" replay expected.vhdx >/dev/null
		# What it reads as before is what it is afterwards.
		vc 0 convert --type dynamic a.vhdx before.vhdx
		vc 0 recover --json a.vhdx
		same "$(json 'j["entries"]')" $((seed * 7))
		cmp -i 196608 a.vhdx expected.vhdx
		vc 0 compare a.vhdx before.vhdx
		rm before.vhdx
	done
}

# log_entries(file, number, seed): so many, that leave the metadata as they are
log_entries() {
	/usr/bin/python3 - "$TOP/tests/lib" "$@" <<-'END' || fail "cannot write log entries"
		import random, sys
		sys.path.insert(0, sys.argv[1])
		import vhdx
		rand = random.Random(int(sys.argv[4]))
		image = vhdx.Image(sys.argv[2], strict=False)
		h = image.header
		size = image.store.size
		bat = image.regions["bat"][0]
		page = image.store.read(bat, 4096)
		out = vhdx.Store(sys.argv[2], writable=True)
		free = bat + 65536
		pages = [free + 4096 * i for i in range(16)] + [size + 4096 * i for i in range(16)]
		out.write(free, b"junk" * 16384)
		at = 0
		nr = int(sys.argv[3])
		for i in range(nr):
		    zeros = []
		    for _ in range(rand.randrange(4)):
		        a, b = sorted(rand.sample(range(17), 2))
		        zeros.append((rand.choice((free, size)) + 4096 * a, 4096 * (b - a)))
		    what = [(p, rand.randbytes(4096))
		            for p in rand.sample(pages, rand.randrange(1, 3))]
		    what.append((bat, page))
		    entry = vhdx.log_entry(h["log_guid"], (1 << 62) + i, 0, what, zeros=zeros,
		                           ff=size, lf=size + vhdx.MIB)
		    out.write(h["log_offset"] + at, entry)
		    at += len(entry)
		out.close()
	END
}

# Work is bounded: 32,000 times the same zeros are zeros once.
test_recover_many_zeros() {
	image a.vhdx '{"type": "dynamic", "size": "16T", "block_size": "1M", "dirty": {}}'
	log_entry a.vhdx 'zeros=[(bat, 128 * M)] * 32000, ff=size, lf=size'
	code=0
	timeout 30 "$VHDCLONE" info a.vhdx >out 2>err || code=$?
	same $code 0 "the exit code of info"
	timeout 30 "$VHDCLONE" recover a.vhdx >out 2>err || code=$?
	same $code 0 "the exit code of recover"
}

# Nothing is looked through again and again: each sector names all of the log its own.
test_recover_long_search() {
	image a.vhdx '{"type": "dynamic", "size": "4M", "log_size": "64M", "dirty": {}}'
	/usr/bin/python3 - "$TOP/tests/lib" a.vhdx <<-'END'
		import struct, sys
		sys.path.insert(0, sys.argv[1])
		import vhdx
		h = vhdx.Image(sys.argv[2], strict=False).header
		head = struct.pack("<4sIIIQII16sQQ", b"loge", 1, h["log_length"], 0, 1, 0, 0,
		                   h["log_guid"], 0, 0)
		with open(sys.argv[2], "r+b") as f:
		    for at in range(0, h["log_length"], 4096):
		        f.seek(h["log_offset"] + at)
		        f.write(head)
	END
	code=0
	timeout 60 "$VHDCLONE" info a.vhdx >out 2>err || code=$?
	same $code 4 "the exit code of info"
	has 'log: cannot be searched' err
	timeout 60 "$VHDCLONE" recover a.vhdx >out 2>err && fail "recovered"
	has 'log: cannot be searched' err
	timeout 60 "$VHDCLONE" dump a.vhdx >out 2>err || fail "exit code $?"
	has 'log: cannot be searched'
}

# A log that is a hole takes no memory, whatever length it claims to have.
test_recover_sparse_log() {
	image a.vhdx '{"type": "dynamic", "size": "4M", "log_size": "512M", "dirty": {}}'
	for verb in info recover; do
		/usr/bin/python3 - "$VHDCLONE" $verb a.vhdx >most <<-'END'
			import resource, subprocess, sys
			subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
			print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
		END
		[ "$(cat most)" -lt 300000 ] || fail "$verb: $(cat most) KiB"
	done
}

# What is zeros costs no space, however much of it there is.
test_recover_zeros_stay_holes() {
	local before
	image a.vhdx "{$dirty, \"dirty\": {}}"
	truncate -s 100M a.vhdx
	log_entry a.vhdx 'zeros=[(60 * M, 200 * M), (62 * M, 4096), (60 * M, 200 * M)],
		pages=[(80 * M, b"page" * 1024), (bat, bytes(4096))], ff=size, lf=300 * M'
	printf x | dd of=a.vhdx bs=1 seek=$((70 << 20)) conv=notrunc status=none
	before=$(stat -c %b a.vhdx)
	vc 0 recover --json a.vhdx
	same "$(json 'j["zero-bytes"], j["file-grown-by"]')" "($((400 << 20 | 4096)), 209715200)"
	[ $(($(stat -c %b a.vhdx) - before)) -lt 64 ] || fail "zeros were allocated"
	same "$(tail -c +$(((60 << 20) + 1)) a.vhdx | tr -d '\0' | head -c 9)" pagepagep
	"$VHDX" check --clean --quiet a.vhdx
}

# A length that no file here can have is refused before anything is written.
test_recover_too_long() {
	image a.vhdx "{$dirty, \"dirty\": {}}"
	log_entry a.vhdx 'zeros=[(size, M)], ff=size, lf=1 << 49'
	(
		ulimit -f $((1 << 20))
		trap '' XFSZ
		unchanged refused 7 'cannot set the length' recover a.vhdx
	)
}

# All of a range is looked at, not its start alone.
test_recover_zeros_on_blocks() {
	image a.vhdx '{"type": "dynamic", "size": "2M", "block_size": "1M", "gap": 1,
		"default": 6, "dirty": {}}'
	"$VHDX" info a.vhdx
	log_entry a.vhdx 'pages=[(bat, image.store.read(bat, 4096))],
		zeros=[(size - 4 * M, M)], ff=size, lf=size'
	vc 0 check a.vhdx
	log_entry a.vhdx 'pages=[(bat, image.store.read(bat, 4096))],
		zeros=[(size - 4 * M, M + 4096)], ff=size, lf=size'
	vc 2 check a.vhdx
	has 'the log would write 1052672 bytes on a block'
}

test_recover_extends() {
	image a.vhdx "{$dirty, \"dirty\": {\"per_entry\": 9}}"
	size=$(stat -c %s a.vhdx)
	log_entry a.vhdx 'pages=[(bat, image.store.read(bat, 4096)),
		(size + 4096, b"new!" * 1024)], zeros=[(size, 4096)], ff=size, lf=size + 3 * M'
	vc 0 recover --json a.vhdx
	same "$(json 'j["entries"], j["pages"], j["zero-bytes"], j["file-grown-by"]')" \
		"(1, 2, 4096, 3145728)"
	same "$(stat -c %s a.vhdx)" $((size + (3 << 20)))
	same "$(tail -c +$((size + 4097)) a.vhdx | head -c 4)" 'new!'
	"$VHDX" check --clean --quiet a.vhdx
}
