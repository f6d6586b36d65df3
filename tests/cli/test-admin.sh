# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# create --count, reset, remove, protect, set.

# base.vhdx, and delta.vhdx with something in it
pair() {
	image base.vhdx '{"type": "dynamic", "size": "16M", "block_size": "2M",
		"blocks": {"0-5": {"state": 6, "fill": {"tag": "b"}}}}'
	image delta.vhdx '{"size": "16M", "block_size": "2M", "parent": "base.vhdx",
		"blocks": {"0": {"state": 7, "sectors": [[0, 5], [9, 100]],
		"fill": {"tag": "d"}}, "1-2": {"state": 6, "fill": {"tag": "d"}}, "4": 2}}'
}

# guid(image, key)
guid() {
	vc 0 info --json "$1"
	json "j['$2']"
}

clean() {
	local f
	for f; do
		vc 0 check "$f"
		"$VHDX" check --clean --quiet "$f" || fail "$f is not clean"
	done
}

test_create_count() {
	pair
	vc 0 create --count 3 base.vhdx 'lab-%03d.vhdx'
	same "$(echo lab-*)" 'lab-001.vhdx lab-002.vhdx lab-003.vhdx'
	clean lab-*
	vc 0 create --count 2 --first 9 --json base.vhdx '%%%d'
	same "$(json 'j["paths"]')" "['%9', '%10']"
	clean %9 %10
	# All or none.
	unchanged refused 5 'lab-003.vhdx: exists already: none of 3' \
		create --count 3 --first 3 base.vhdx 'lab-%03d.vhdx'
	mkdir 102
	unchanged refused 4 '103/x.* none of 2' create --count 2 --first 102 base.vhdx %d/x
	same "$(ls 102)" ''
	for pattern in x %s %3d %d%d %0123456789d '%' 'a%%d'; do
		unchanged refused 1 'need one %d' create --count 2 base.vhdx "$pattern"
	done
	for n in 0 -1 '' x 1x 99999999; do
		unchanged refused 1 . create --count "$n" base.vhdx x%d
	done
	refused 1 'clones only' create --count 2 --type fixed --size 4M x%d
}

test_create_count_undone() {
	local status=0
	pair
	mkdir many
	: >many/x
	ln -s nothing/3 many/3
	unchanged refused 5 'none of 3' create --count 3 base.vhdx many/%d
	rm many/3
	"$VHDCLONE" create --count 100000 base.vhdx many/%d >out 2>err &
	while [ ! -e many/3 ]; do
		kill -0 $! || break
	done
	kill -INT $! 2>/dev/null || true
	# A shell's child in the background ignores SIGINT.
	kill -TERM $!
	wait $! || status=$?
	same "$status" 8
	has 'interrupted; none of 100000 was made' err
	same "$(ls many)" x
}

test_reset() {
	local id locator old
	pair
	id=$(guid delta.vhdx virtual-disk-id)
	locator=$(json 'j["parent-locator"]')
	old=$(json 'j["data-write-guid"]')
	chmod 640 delta.vhdx
	vc 0 reset --json delta.vhdx
	same "$(json 'j["freed"] > 4 << 20, j["name"]')" '(True, None)'
	same "$(stat -c %a,%s delta.vhdx)" "640,$((4 << 20))"
	same "$(guid delta.vhdx virtual-disk-id)" "$id"
	same "$(json 'j["parent-locator"]')" "$locator"
	[ "$(json 'j["data-write-guid"]')" != "$old" ] || fail "the same DataWriteGuid"
	same "$(json 'j["full-blocks"], j["partial-blocks"], j["bitmap-blocks"]')" '(0, 0, 0)'
	clean delta.vhdx
	"$VHDX" merge base.raw base.vhdx
	"$VHDX" compare base.raw delta.vhdx base.vhdx
	unchanged refused 4 'no parent' reset base.vhdx
	# Regions behind and between the blocks.
	image odd.vhdx '{"size": "8M", "block_size": "1M", "parent": "base.vhdx", "gap": 1,
		"layout": ["data", "log", "bat", "metadata"], "garbage": true,
		"blocks": {"0-3": {"state": 6, "fill": {"tag": "d"}}}}'
	vc 0 reset odd.vhdx
	clean odd.vhdx
}

test_reset_refused() {
	pair
	image dirty.vhdx '{"size": "16M", "block_size": "2M", "parent": "base.vhdx",
		"blocks": {"0": 6}, "dirty": {}}'
	unchanged refused 4 'recover' reset dirty.vhdx
	chmod 444 delta.vhdx
	unchanged refused 2 'protected' reset delta.vhdx
	chmod 644 delta.vhdx
	vc 0 create delta.vhdx child.vhdx
	unchanged refused 5 'stands on it: .*child.vhdx' reset delta.vhdx
}

# Whatever the size: 64 TiB, and many blocks.
# Whatever the size, it does not walk the table.
test_reset_is_fast() {
	local bytes
	image base.vhdx '{"type": "dynamic", "size": "64T", "block_size": "1M"}'
	image delta.vhdx '{"size": "64T", "block_size": "1M", "parent": "base.vhdx",
		"blocks": {"0-300": 6, "60000000-60000100": 6}}'
	# Leaks cannot be looked for in a process that is traced.
	ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -f -qq -o trace \
		-e trace=read,pread64 "$VHDCLONE" reset delta.vhdx
	vc 0 info --json delta.vhdx
	same "$(json 'j["full-blocks"]')" 0
	# The BAT has 512 MiB.
	bytes=$(awk '$NF > 0 { n += $NF } END { print n + 0 }' trace)
	[ "$bytes" -gt 65536 ] || fail "the trace shows $bytes bytes"
	[ "$bytes" -lt $((4 << 20)) ] || fail "read $bytes bytes"
}

test_reset_killed() {
	pair
	cp delta.vhdx good
	"$VHDX" merge base.raw base.vhdx
	"$VHDX" merge old.raw delta.vhdx base.vhdx
	# The old delta or an empty one; and a second time it comes through.
	cat >right <<-'END'
		"$VHDCLONE" check -q delta.vhdx || [ $? = 3 ] || exit 1
		cp delta.vhdx copy.vhdx
		"$VHDCLONE" recover copy.vhdx >/dev/null || exit 1
		"$VHDX" compare old.raw copy.vhdx base.vhdx >/dev/null ||
			"$VHDX" compare base.raw copy.vhdx base.vhdx || exit 1
		"$VHDCLONE" reset copy.vhdx && "$VHDCLONE" check -q copy.vhdx
	END
	each_write 'cp good delta.vhdx' 'sh ./right' reset delta.vhdx
}

test_remove() {
	pair
	before=$(hash_of base.vhdx)
	unchanged refused 4 'no parent' remove base.vhdx
	raw base.img 1M
	unchanged refused 4 'no parent' remove base.img
	ln -s delta.vhdx link.vhdx
	unchanged refused 4 'symbolic link' remove link.vhdx
	vc 0 create delta.vhdx child.vhdx
	unchanged refused 5 'an image stands on it: .*child.vhdx' remove delta.vhdx
	vc 0 remove child.vhdx
	same "$(cat out err)" ''
	vc 0 remove --json delta.vhdx
	same "$(json 'j["path"], j["freed"] > 0')" "('delta.vhdx', True)"
	[ ! -e delta.vhdx ] || fail "still there"
	same "$(hash_of base.vhdx)" "$before"
	# One that was not closed may go, and one whose base has gone.
	image dirty.vhdx '{"size": "16M", "parent": "base.vhdx", "blocks": {"0": 6},
		"dirty": {}}'
	rm base.vhdx
	vc 0 remove dirty.vhdx
	[ ! -e dirty.vhdx ] || fail "still there"
}

test_protect() {
	pair
	need_root
	vc 0 protect --json base.vhdx
	same "$(json 'j["mode"]')" 0444
	if [ "$(json 'j["immutable"]')" = True ]; then
		! rm -f base.vhdx 2>/dev/null || fail "removed"
	else
		has 'not immutable: Operation not supported' err
	fi
	# Even root writes only what somebody may write.
	vc 0 create base.vhdx c.vhdx
	vc 0 check c.vhdx
	unchanged refused 2 'protected \(mode 0444\)' create --force delta.vhdx base.vhdx
	unchanged refused 2 'protected' set --disk-id new base.vhdx
	vc 0 protect base.vhdx
	vc 0 unprotect --json base.vhdx
	same "$(json 'j["mode"], j["immutable"]')" "('0644', False)"
	vc 0 unprotect base.vhdx
	image dirty.vhdx '{"type": "dynamic", "size": "4M", "blocks": {"0": 6}, "dirty": {}}'
	unchanged refused 4 'recover' protect dirty.vhdx
	same "$(stat -c %a dirty.vhdx)" 644
}

# On a file system that has the flag; the tests' own may not.
test_protect_immutable() {
	local dir
	need_root
	dir=$(mktemp -d -p /var/tmp vhdclone-cli.XXXXXX)
	if ! { : >"$dir/probe" && chattr +i "$dir/probe"; } 2>/dev/null; then
		rm -rf "$dir"
		skip "no immutable flag here"
	fi
	chattr -i "$dir/probe"
	raw "$dir/base" 1M
	vc 0 protect --json "$dir/base"
	same "$(json 'j["mode"], j["immutable"]')" "('0444', True)"
	[ ! -s err ] || fail "a warning"
	! rm -f "$dir/base" 2>/dev/null || fail "removed"
	vc 0 protect "$dir/base"
	vc 0 create "$dir/base" "$dir/c.vhdx"
	vc 0 unprotect "$dir/base"
	rm -r "$dir"
}

test_set_disk_id() {
	local new data
	pair
	data=$(guid base.vhdx data-write-guid)
	new=01234567-89ab-cdef-0123-456789abcdef
	vc 0 set --disk-id "{$new}" base.vhdx
	same "$(cat out err)" ''
	same "$(guid base.vhdx virtual-disk-id)" "$new"
	same "$(guid base.vhdx data-write-guid)" "$data"
	clean base.vhdx delta.vhdx
	vc 0 set --disk-id new --json base.vhdx
	same "$(json 'j["old-virtual-disk-id"]')" "$new"
	[ "$(json 'j["virtual-disk-id"]')" != $new ] || fail "nothing new"
	unchanged refused 1 'not .new. or a GUID' set --disk-id x base.vhdx
	unchanged refused 1 'need --disk-id' set base.vhdx
	raw base.img 1M
	unchanged refused 4 'not a VHDX' set --disk-id new base.img
}

test_set_killed() {
	pair
	cp delta.vhdx good
	cat >right <<-'END'
		"$VHDCLONE" check -q delta.vhdx || exit 1
		"$VHDCLONE" set --disk-id new delta.vhdx && exit
		[ $? = 4 ] && "$VHDCLONE" recover delta.vhdx >/dev/null &&
			"$VHDCLONE" set --disk-id new delta.vhdx &&
			"$VHDCLONE" check -q delta.vhdx
	END
	each_write 'cp good delta.vhdx' 'sh ./right' set --disk-id new delta.vhdx
}

test_info_expects() {
	local data
	pair
	vc 0 create delta.vhdx child.vhdx
	data=$(guid base.vhdx data-write-guid)
	same "$(json 'j["expects"]')" None
	same "$(guid delta.vhdx expects)" "$data"
	vc 0 info delta.vhdx
	has "^expects of its parent: $data"
	vc 0 info --children base.vhdx
	has "^children: .*delta.vhdx expects $data\$"
	vc 0 info --children --json delta.vhdx
	same "$(json '[(c["path"][-10:], c["expects"] == j["data-write-guid"], c["mismatch"])
		for c in j["children"]]')" "[('child.vhdx', True, False)]"
	vc 0 info --children child.vhdx
	has '^children: *none found'
	set_field base.vhdx headers.data_write_guid=11111111-2222-3333-4444-555555555555
	vc 0 info --children base.vhdx
	has "delta.vhdx expects $data: NOT this image"
}
