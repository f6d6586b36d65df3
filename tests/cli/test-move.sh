# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later

# A base, a middle and a top of different block sizes: 0.vhdx, 1.vhdx, 2.vhdx; what the
# top reads as: raw.
three() {
	image 0.vhdx '{"type": "dynamic", "size": "8M", "block_size": "2M", "blocks": {
		"0": {"state": 6, "fill": {"tag": "b"}}, "2": {"state": 6, "fill": {"tag": "b"}}}}'
	image 1.vhdx '{"size": "8M", "block_size": "2M", "parent": "0.vhdx", "blocks": {
		"0": {"state": 7, "fill": {"tag": "m"}, "sectors": [[5, 100]]},
		"1": {"state": 7, "fill": {"tag": "m"}, "sectors": [[7, 100]]}}}'
	image 2.vhdx '{"size": "8M", "block_size": "1M", "parent": "1.vhdx", "blocks": {
		"0": {"state": 7, "fill": {"tag": "t"}, "sectors": [[9, 100]]},
		"5": {"state": 7, "fill": {"tag": "t"}, "sectors": [[9, 100]]},
		"6": {"state": 2}, "7": {"state": 6, "fill": {"tag": "t"}}}}'
	"$VHDX" merge raw 2.vhdx 1.vhdx 0.vhdx >/dev/null
}

# reads_as(raw file, top, ... base): by the other implementation, which checks them too
reads_as() {
	"$VHDX" compare "$@" >/dev/null || fail "$2 reads as something else"
	shift
	"$VHDX" check --clean --quiet "$@" || fail "the other implementation objects"
}

guid_of() {
	"$VHDCLONE" info --json "$1" |
		/usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["data-write-guid"])'
}

test_merge() {
	local old
	three
	old=$(guid_of 1.vhdx)
	cp 0.vhdx base.before
	vc 0 merge 2.vhdx
	[ ! -s out ] || fail "it printed something"
	cmp 0.vhdx base.before || fail "the base's base was written"
	[ "$(guid_of 1.vhdx)" != "$old" ] || fail "the base has its old identity"
	reads_as raw 2.vhdx 1.vhdx 0.vhdx
	reads_as raw 1.vhdx 0.vhdx
	vc 0 check 2.vhdx
	vc 0 merge --json 2.vhdx --base 0.vhdx
	same "$(json 'j["layers"], j["dry-run"], j["deleted"]')" '(2, False, False)'
	reads_as raw 0.vhdx
	reads_as raw 2.vhdx 1.vhdx 0.vhdx
	if command -v qemu-img >/dev/null; then
		qemu-img compare -q -f raw -F vhdx raw 0.vhdx || fail "qemu-img"
	fi
}

test_merge_read_by_libvhdi() {
	/usr/bin/python3 -c 'import pyvhdi' 2>/dev/null || skip "no python3-libvhdi"
	three
	vc 0 merge 2.vhdx
	same "$("$VHDI" 1.vhdx 0.vhdx | cut -d' ' -f1)" "$(hash_of raw)"
	vc 0 merge 1.vhdx
	same "$("$VHDI" 1.vhdx 0.vhdx | cut -d' ' -f1)" "$(hash_of raw)"
	same "$("$VHDI" 0.vhdx | cut -d' ' -f1)" "$(hash_of raw)"
}

test_merge_windows_images() {
	need_image fat-parent.vhdx
	need_image fat-differential.vhdx
	"$VHDX" merge raw fat-differential.vhdx fat-parent.vhdx >/dev/null
	same "$(hash_of raw)" \
		a538161f34bc44c12bf9a542ce9218741c62728723ea18d0e4f6ea92e9f32e93
	mkdir t f
	cp fat-*.vhdx t/
	cp fat-*.vhdx f/
	vc 0 merge t/fat-differential.vhdx
	reads_as raw t/fat-parent.vhdx
	reads_as raw t/fat-differential.vhdx t/fat-parent.vhdx
	same "$("$VHDCLONE" info --json t/fat-parent.vhdx |
		/usr/bin/python3 -c 'import json, sys; print(json.load(sys.stdin)["type"])')" fixed
	vc 0 flatten f/fat-differential.vhdx
	reads_as raw f/fat-differential.vhdx
	if command -v qemu-img >/dev/null; then
		qemu-img compare -q -f raw -F vhdx raw t/fat-parent.vhdx || fail "qemu-img"
		qemu-img compare -q -f raw -F vhdx raw f/fat-differential.vhdx || fail "qemu-img"
	fi
}

test_merge_raw_base() {
	raw base.img 9M
	vc 0 create base.img d.vhdx --block-size 1M
	image d2.vhdx '{"size": "9M", "block_size": "1M", "parent": "d.vhdx", "blocks": {
		"0": {"state": 7, "fill": {"tag": "t"}, "sectors": [[9, 100]]},
		"3": 2, "7": {"state": 6, "fill": {"tag": "t"}}}}'
	vc 0 convert --type raw d2.vhdx want
	vc 0 merge d2.vhdx --base base.img
	cmp want base.img
	vc 0 convert --type raw d2.vhdx got
	cmp want got
	vc 0 check d2.vhdx
	! "$VHDCLONE" info --json d.vhdx | grep -q merge_mask || fail "the merge is not over"
	dd if=/dev/urandom of=base.img bs=4k seek=1 count=2 conv=notrunc status=none
	cp base.img base2.img
	dd if=/dev/urandom of=base.img bs=4k count=1 conv=notrunc status=none
	refused 6 'not the base' merge d.vhdx
}

test_merge_to() {
	local type
	three
	for type in dynamic fixed raw; do
		unchanged vc 0 compare 2.vhdx 2.vhdx
		vc 0 merge 2.vhdx --to new --type $type
		if [ $type = raw ]; then
			cmp raw new
		else
			reads_as raw new
		fi
		refused 5 'exists' merge 2.vhdx --to new --type $type
		vc 0 merge --force 2.vhdx --to new --type $type
		rm new
	done
	vc 0 merge 2.vhdx --to new.vhdx
	reads_as raw new.vhdx 0.vhdx
	vc 0 merge 2.vhdx --base 0.vhdx --to new2.vhdx --json
	same "$(json 'j["type"]')" dynamic
	reads_as raw new2.vhdx
	[ -z "$(find . -name '.vhdclone-*')" ] || fail "something is left behind"
}

test_merge_children() {
	three
	vc 0 create 1.vhdx other.vhdx
	vc 5 merge 2.vhdx
	has 'other.vhdx stands on .*1.vhdx' err
	has 'merge with --to' err
	vc 5 merge 2.vhdx --base 0.vhdx
	mkdir below
	mv other.vhdx below
	vc 0 create --base-dir . 1.vhdx below/b.vhdx
	rm below/b.vhdx .1.vhdx.vhdclone
	vc 0 reparent below/other.vhdx 1.vhdx
	rm -f .1.vhdx.vhdclone
	vc 5 merge 2.vhdx --scan below
	rm below/other.vhdx
	vc 0 merge 2.vhdx --scan below
}

test_merge_dry_run() {
	three
	cp 1.vhdx before
	unchanged vc 0 merge -n 2.vhdx
	has 'to move: .*space needed: 4 MiB, found: .*1.vhdx'
	vc 0 merge -n --json 2.vhdx
	same "$(json 'j["bytes"], j["space-needed"], j["dry-run"]')" \
		"($((1048576 + 100 * 512 * 2)), 4194304, True)"
	# What the merge would stumble over.
	vc 0 protect 1.vhdx
	refused 2 '1.vhdx: protected' merge -n 2.vhdx
	vc 0 unprotect 1.vhdx
	vc 0 merge 2.vhdx
	same $(($(stat -c %s 1.vhdx) - $(stat -c %s before))) 4194304
}

test_merge_delete() {
	three
	vc 0 create 2.vhdx 3.vhdx
	vc 0 merge 2.vhdx --base 0.vhdx --delete
	[ ! -e 2.vhdx ] || fail "the top is still there"
	[ ! -e 1.vhdx ] || fail "the middle is still there"
	reads_as raw 3.vhdx 0.vhdx
	vc 0 check 3.vhdx
	vc 0 children 0.vhdx
	has '3.vhdx'
}

# Only what was merged is removed, for good, and not what has its name now.
test_merge_delete_replaced() {
	local n code=0
	command -v strace >/dev/null || skip "no strace"
	make -s -C "$TOP/tests/inject" 2>/dev/null || skip "no liburing"
	three
	mkdir good
	cp [012].vhdx good
	ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -qq -y -o trace -e trace=unlink,fsync \
		"$VHDCLONE" merge 2.vhdx --base 0.vhdx --delete >out 2>err || fail "merge"
	same "$(grep -E -A1 'unlink.*[12]\.vhdx' trace | grep -c "fsync(.*<$PWD>)")" 2
	cp good/* .
	export ASAN_OPTIONS=exitcode=99:detect_leaks=0:verify_asan_link_order=0
	LD_PRELOAD=$TOP/build/inject/inject.so INJECT=run@1000000 INJECT_STATE=state \
		"$VHDCLONE" merge 2.vhdx --base 0.vhdx --delete >out 2>err || fail "merge"
	n=$(od -An -t u8 -N 8 state)
	cp good/* .
	echo precious >other
	LD_PRELOAD=$TOP/build/inject/inject.so INJECT_STATE=count INJECT=run@$((n * 4 / 5)) \
		INJECT_RUN='mv other 1.vhdx' \
		"$VHDCLONE" merge 2.vhdx --base 0.vhdx --delete >out 2>err || code=$?
	same $code 5 'exit code'
	has '1.vhdx: somebody has replaced it meanwhile; it was merged' err
	same "$(cat 1.vhdx)" precious
	reads_as raw 0.vhdx
}

test_merge_refused() {
	three
	refused 1 'need one DELTA' merge
	refused 1 'need --to' merge --type raw 2.vhdx
	refused 1 '--type' merge --to x --type nonsense 2.vhdx
	unchanged refused 4 'has no parent' merge 0.vhdx
	raw other.img 1M
	unchanged refused 4 'no layer below' merge --base other.img 2.vhdx
	refused 4 'directory' merge .
	: >empty
	refused 4 'no parent' merge empty
	image small.vhdx '{"size": "7M", "block_size": "1M", "parent": "2.vhdx"}'
	unchanged refused 4 "merged into it only 7340032: .*resize.*merge with --to" merge small.vhdx
	rm small.vhdx
	cp --sparse=always 2.vhdx cut.vhdx
	truncate -s 3M cut.vhdx
	unchanged refused 4 'cut.vhdx' merge cut.vhdx
	rm cut.vhdx
	if [ "$(id -u)" != 0 ]; then
		chmod a-w 1.vhdx
		unchanged refused 2 'ermission' merge 2.vhdx
	fi
}

# A clone that was made larger than its base, which ends in the middle of a block, with
# garbage behind that, and stands on one that goes on there.
grown() {
	image 0.vhdx '{"type": "dynamic", "size": "16M", "block_size": "2M",
		"blocks": {"0-7": {"state": 6, "fill": {"tag": "b"}}}}'
	image 1.vhdx "{\"size\": \"7168K\", \"block_size\": \"2M\", \"parent\": \"0.vhdx\",
		\"garbage\": true, \"tail_bits\": true, \"stale_bits\": true, \"blocks\": {
		\"1\": {\"state\": 7, \"fill\": {\"tag\": \"m\"}, \"sectors\": [[7, 100]]}$1}}"
	image 2.vhdx '{"size": "12M", "block_size": "1M", "parent": "1.vhdx", "blocks": {
		"0": {"state": 7, "fill": {"tag": "t"}, "sectors": [[9, 100]]},
		"7": {"state": 7, "fill": {"tag": "t"}, "sectors": [[9, 100]]},
		"9": {"state": 2}, "10": {"state": 6, "fill": {"tag": "t"}}}}'
	"$VHDX" merge raw 2.vhdx 1.vhdx 0.vhdx >/dev/null
}

test_merge_grown() {
	local block
	for block in '' ', "3": 6' ', "3": {"state": 7, "sectors": [[3, 4], [1024, 1000]]}'; do
		grown "$block"
		vc 0 merge 2.vhdx
		reads_as raw 2.vhdx 1.vhdx 0.vhdx
		reads_as raw 1.vhdx 0.vhdx
		vc 0 check 2.vhdx
		# Several layers, of which those between are smaller.
		grown "$block"
		vc 4 merge 2.vhdx --base 0.vhdx
		has 'resize' err
		vc 0 resize 2.vhdx 700G
		truncate -s 700G raw
		vc 0 merge 2.vhdx --base 0.vhdx
		reads_as raw 0.vhdx
		reads_as raw 2.vhdx 1.vhdx 0.vhdx
		vc 0 info --json 0.vhdx
		same "$(json 'j["virtual-size"]')" $((700 << 30))
	done
}

test_merge_grown_others() {
	local block
	for block in 1M 4M; do
		image f.vhdx '{"type": "fixed", "size": "3M", "block_size": "2M", "garbage": true,
			"blocks": {"0-1": {"state": 6, "fill": {"tag": "d"}}}}'
		image top.vhdx "{\"size\": \"9M\", \"block_size\": \"$block\", \"parent\": \"f.vhdx\",
			\"blocks\": {\"0-1\": {\"state\": 7, \"fill\": {\"tag\": \"t\"},
			\"sectors\": [[9, 100], [1900, 140]]}}}"
		"$VHDX" merge raw top.vhdx f.vhdx
		vc 0 merge -n --json top.vhdx
		same "$(json 'j["space-needed"]')" $((6 << 20))
		vc 0 merge top.vhdx
		reads_as raw f.vhdx
		reads_as raw top.vhdx f.vhdx
		vc 0 check top.vhdx
	done
	# A raw one, whose end is in the middle of a page.
	raw base.img 3000320
	vc 0 create base.img d.vhdx --block-size 1M
	vc 0 resize d.vhdx 9M
	image d2.vhdx '{"size": "9M", "block_size": "1M", "parent": "d.vhdx", "blocks": {
		"0": {"state": 7, "fill": {"tag": "t"}, "sectors": [[9, 100]]},
		"2": {"state": 7, "fill": {"tag": "t"}, "sectors": [[1500, 400]]},
		"8": {"state": 6, "fill": {"tag": "t"}}}}'
	vc 0 convert --type raw d2.vhdx want
	vc 0 merge d2.vhdx --base base.img
	cmp want base.img
	vc 0 convert --type raw d2.vhdx got
	cmp want got
	vc 0 check d2.vhdx
	! "$VHDCLONE" info --json d.vhdx | grep -q merge_mask || fail "the merge is not over"
}

test_merge_grown_killed() {
	grown ', "3": {"state": 7, "sectors": [[3, 4], [1024, 1000]]}'
	mkdir before
	cp [012].vhdx before
	cat >right <<-'END'
		"$VHDCLONE" check -q 2.vhdx || [ $? = 3 ] || exit 1
		"$VHDX" compare raw 2.vhdx 1.vhdx 0.vhdx >/dev/null || exit 1
		"$VHDCLONE" merge 2.vhdx || exit 1
		"$VHDX" compare raw 1.vhdx 0.vhdx >/dev/null || exit 1
		"$VHDX" compare raw 2.vhdx 1.vhdx 0.vhdx >/dev/null || exit 1
		"$VHDCLONE" check -q 2.vhdx || [ $? = 3 ]
	END
	each_write 'cp before/* .' 'sh ./right' merge 2.vhdx
}

test_merge_grown_raw_killed() {
	raw base.img 3M
	dd if=/dev/urandom of=base.img bs=1M seek=2 count=1 conv=notrunc status=none
	vc 0 create base.img d.vhdx --size 5M --block-size 1M
	image d2.vhdx '{"size": "5M", "block_size": "1M", "parent": "d.vhdx", "blocks": {
		"0": {"state": 7, "fill": {"tag": "t"}, "sectors": [[0, 1], [9, 100]]},
		"2": {"state": 7, "fill": {"tag": "t"}, "sectors": [[1500, 400]]},
		"4": {"state": 6, "fill": {"tag": "t"}}}}'
	vc 0 convert --type raw d2.vhdx raw
	mkdir before
	cp base.img d.vhdx d2.vhdx before
	cat >right <<-'END'
		"$VHDCLONE" check -q d2.vhdx || [ $? = 3 ] || exit 1
		"$VHDCLONE" compare -q raw d2.vhdx || exit 1
		"$VHDCLONE" merge d2.vhdx --base base.img || exit 1
		cmp raw base.img && "$VHDCLONE" compare -q raw d2.vhdx
	END
	each_write 'cp before/* .' 'sh ./right' merge d2.vhdx --base base.img
}

test_merge_no_space() {
	need_root
	three
	mkdir full
	mount -t tmpfs -o size=13M tmpfs full 2>/dev/null || skip "no tmpfs"
	cp ./*.vhdx full/
	dd if=/dev/zero of=full/fill bs=1M status=none 2>/dev/null || :
	local code=0
	"$VHDCLONE" merge full/2.vhdx 2>err || code=$?
	rm full/fill
	"$VHDX" compare raw full/2.vhdx full/1.vhdx full/0.vhdx >/dev/null || code="$code, and broken"
	umount full
	same "$code" 7 'exit code'
	has 'are free: nothing was changed' err
}

test_move_random_chains() {
	local seed top
	for seed in 1 2 3 4 5; do
		mkdir c w
		( cd c && "$TOP/tests/cli/random-chain" $seed . same >/dev/null )
		top=$(($(find c -name '*.vhdx' | wc -l) - 1))
		cp c/*.vhdx w
		vc 0 merge w/$top.vhdx --base w/0.vhdx
		"$VHDX" compare c/raw w/0.vhdx >/dev/null || fail "seed $seed: merge"
		cp c/*.vhdx w
		vc 0 flatten w/$top.vhdx
		"$VHDX" compare c/raw w/$top.vhdx >/dev/null || fail "seed $seed: flatten"
		"$VHDX" check --clean --quiet w/$top.vhdx || fail "seed $seed: flatten"
		cp c/*.vhdx w
		vc 0 convert --type dynamic w/$top.vhdx w/new.vhdx
		vc 0 compare w/$top.vhdx w/new.vhdx
		vc 0 convert --type differencing --block-size 4M w/$top.vhdx w/d.vhdx
		vc 0 compare w/$top.vhdx w/d.vhdx
		rm -rf c w
	done
}

test_flatten() {
	local guid
	three
	guid=$(guid_of 2.vhdx)
	vc 0 flatten --to new.vhdx 2.vhdx
	reads_as raw new.vhdx
	vc 0 create 2.vhdx child.vhdx
	vc 0 flatten 2.vhdx
	rm 0.vhdx 1.vhdx
	reads_as raw 2.vhdx
	vc 0 info --json 2.vhdx
	same "$(json 'j["type"], j["parent"]')" "('dynamic', None)"
	same "$(guid_of 2.vhdx)" "$guid" 'the identity'
	vc 0 check child.vhdx
	reads_as raw child.vhdx 2.vhdx
	refused 4 'has no parent' flatten 2.vhdx
	refused 1 'need --to' flatten --type raw child.vhdx
	refused 1 'not flat' flatten --to x --type differencing child.vhdx
}

test_convert() {
	local from to
	three
	vc 0 convert --type raw 2.vhdx a.raw
	vc 0 convert --type fixed 2.vhdx a.fixed
	vc 0 convert --type dynamic --block-size 4M 2.vhdx a.dynamic
	for from in raw fixed dynamic; do
		for to in raw fixed dynamic; do
			vc 0 convert --force --type $to a.$from b.$to
			vc 0 compare b.$to 2.vhdx
		done
	done
	cmp raw b.raw
	reads_as raw b.fixed
	reads_as raw b.dynamic
	# Zeros take no space.
	truncate -s 100M zeros
	dd if=/dev/zero of=zeros bs=1M count=5 conv=notrunc status=none
	vc 0 convert --type dynamic zeros z.vhdx
	same "$(stat -c %s z.vhdx)" $((4 << 20))
	vc 0 convert --type raw zeros z.raw
	same "$(stat -c '%s %b' z.raw)" "$((100 << 20)) 0"
	unchanged refused 5 'exists' convert --type raw 2.vhdx a.raw
	unchanged refused 5 'is to be read' convert --force --type raw a.raw a.raw
	refused 1 'need --type' convert a.raw x
	truncate -s 1000 odd
	refused 4 'multiple of 512' convert --type dynamic odd x
	[ ! -e x ] || fail "x is there"
	if command -v qemu-img >/dev/null; then
		qemu-img convert -f raw -O vhdx raw q.vhdx
		vc 0 convert --type raw q.vhdx q.raw
		cmp raw q.raw
	fi
}

test_convert_as_parent_of() {
	raw base.img 5M
	vc 0 create base.img d.vhdx
	vc 0 convert --as-parent-of d.vhdx base.img base.vhdx
	vc 0 info --json d.vhdx
	same "$(json 'j["parent-locator"]["relative_path"]')" '.\base.vhdx'
	"$VHDX" compare base.img d.vhdx base.vhdx >/dev/null || fail "reads as something else"
	rm base.img
	vc 0 check d.vhdx
	raw other.img 5M
	refused 6 'does not stand on' convert --as-parent-of d.vhdx other.img o.vhdx
}

test_reparent() {
	three
	mkdir moved
	mv 1.vhdx moved/
	refused 4 'No such file' map 2.vhdx
	vc 0 reparent 2.vhdx moved/1.vhdx --base-dir .
	vc 0 info --json 2.vhdx
	same "$(json 'j["parent-locator"]["relative_path"]')" '.\moved\1.vhdx'
	vc 0 reparent moved/1.vhdx 0.vhdx
	VHDCLONE_BASE_PATH=. vc 0 check 2.vhdx
	reads_as raw 2.vhdx moved/1.vhdx 0.vhdx
	# Another one.
	vc 0 flatten --to flat.vhdx moved/1.vhdx --base-dir .
	unchanged refused 6 'unsafe' reparent 2.vhdx flat.vhdx
	vc 0 reparent --compare 2.vhdx flat.vhdx --base-dir .
	reads_as raw 2.vhdx flat.vhdx
	unchanged refused 6 'differs from the parent.* at byte 2560' reparent --compare 2.vhdx 0.vhdx
	vc 0 reparent --unsafe 2.vhdx 0.vhdx
	vc 0 check 2.vhdx
	unchanged refused 4 'no parent' reparent 0.vhdx 2.vhdx
	vc 0 create 2.vhdx 3.vhdx
	unchanged refused 4 'stands on' reparent --unsafe 2.vhdx 3.vhdx
	refused 1 'not both' reparent --unsafe --compare 2.vhdx 0.vhdx
}

test_copy() {
	three
	vc 0 copy 0.vhdx copy.vhdx
	cmp 0.vhdx copy.vhdx
	refused 5 'exists' copy 0.vhdx copy.vhdx
	mkdir away
	vc 0 copy 2.vhdx away
	VHDCLONE_BASE_PATH=. vc 0 check away/2.vhdx
	mkdir all
	vc 0 copy --chain --json 2.vhdx all
	same "$(json '[e["path"][-6:] for e in j["copied"]]')" "['0.vhdx', '1.vhdx', '2.vhdx']"
	rm -r away [012].vhdx
	vc 0 check all/2.vhdx
	reads_as raw all/2.vhdx all/1.vhdx all/0.vhdx
	refused 4 'is none' copy --chain all/2.vhdx nowhere
	[ -z "$(find . -name '.vhdclone-*')" ] || fail "something is left behind"
}

# How much is under way at a time makes no difference to what is written.
test_move_without_io_uring() {
	local how
	command -v strace >/dev/null || skip "no strace"
	three
	dd if=/dev/urandom of=raw.img bs=1M count=20 status=none
	: >want
	for how in ENOSYS EPERM ENOMEM variable; do
		# The kernel has none, a container does not allow it, there is no room.
		set -- -e "inject=io_uring_setup:error=$how"
		[ $how != variable ] || set -- -E VHDCLONE_NO_IO_URING=1
		ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -f -o trace \
			-e trace=io_uring_setup,io_uring_enter,pwrite64 "$@" \
			"$VHDCLONE" convert --type dynamic raw.img $how.vhdx
		! grep -q io_uring_enter trace || fail "$how: it used io_uring"
		vc 0 compare raw.img $how.vhdx
	done
	ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -f -o trace -e trace=io_uring_enter \
		"$VHDCLONE" convert --type dynamic raw.img ring.vhdx
	grep -q io_uring_enter trace || skip "the host has no io_uring"
	vc 0 compare raw.img ring.vhdx
	export VHDCLONE_NO_IO_URING=1
	vc 0 merge 2.vhdx
	reads_as raw 1.vhdx 0.vhdx
	vc 0 flatten 1.vhdx
	reads_as raw 1.vhdx
}

# A write that was cut short goes on; one that fails says where.
test_move_io_errors() {
	local ring each=$TOP/tests/inject/each
	make -s -C "$TOP/tests/inject" 2>/dev/null || skip "no inject.so"
	dd if=/dev/urandom of=raw.img bs=1M count=9 status=none
	export ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0:verify_asan_link_order=0
	cat >right <<-'END'
		! ls -d .vhdclone-* 2>/dev/null || exit 1
		[ "$INJECT_STATUS" != 0 ] || exec cmp raw.img new
		[ "$INJECT_STATUS" = "$WANT" ] && [ "$(wc -l <said)" = 1 ] || exit 1
		# All that can fail when it has its name is the flush of that.
		[ ! -e new ] || cmp raw.img new || exit 1
		! grep 'write the block' said | grep -v '(offset [0-9]*):'
	END
	for ring in '' 1; do
		[ -z "$ring" ] || export VHDCLONE_NO_IO_URING=1
		WANT=none "$each" -m short -s said -r 'rm -f new' -c 'sh ./right' -- \
			"$VHDCLONE" convert --type raw raw.img new >each.log ||
			{ cat each.log said; fail short; }
		WANT=7 "$each" -m enospc+ -s said -r 'rm -f new' -c 'sh ./right' -- \
			"$VHDCLONE" convert --type raw raw.img new >each.log ||
			{ cat each.log said; fail enospc; }
		WANT=4 "$each" -m eio -s said -r 'rm -f new' -c 'sh ./right' -- \
			"$VHDCLONE" convert --type raw raw.img new >each.log ||
			{ cat each.log said; fail eio; }
		! grep -q ' 0 runs' each.log || fail "no runs"
	done
}

# shared(file): none of it has space of its own
shared() {
	filefrag -v "$1" >frag || fail "filefrag $1"
	grep -q shared frag || { cat frag; fail "$1 shares nothing"; }
}

# Where the file system can, a copy takes no space; and where it cannot, no more than
# its data.
test_copy_reflink() {
	need_root
	command -v mkfs.xfs >/dev/null || skip "no mkfs.xfs"
	truncate -s 400M xfs.img
	mkfs.xfs -q -m reflink=1 xfs.img || skip "no reflinks in mkfs.xfs"
	mkdir xfs other
	mount -o loop xfs.img xfs 2>/dev/null || skip "cannot mount XFS"
	( cd xfs && copy_reflink ) || { umount xfs; exit 1; }
	umount xfs
}

copy_reflink() {
	three
	mkdir all
	vc 0 copy --json 0.vhdx copy.vhdx
	same "$(json 'j["copied"][0]["shared"]')" True
	cmp 0.vhdx copy.vhdx
	shared copy.vhdx
	vc 0 copy --chain --json 2.vhdx all
	same "$(json '[c["shared"] for c in j["copied"]]')" '[True, True, True]'
	reads_as raw all/2.vhdx all/1.vhdx all/0.vhdx
	shared all/1.vhdx
	# Blocks alone, in a file that is another one.
	vc 0 convert --type dynamic 0.vhdx new.vhdx
	vc 0 compare 0.vhdx new.vhdx
	shared new.vhdx
	vc 0 flatten 2.vhdx
	reads_as raw 2.vhdx
	shared 2.vhdx
	# To another file system.
	vc 0 copy --json 0.vhdx ../other/0.vhdx
	same "$(json 'j["copied"][0]["shared"]')" False
	cmp 0.vhdx ../other/0.vhdx
	truncate -s 8M ../other/sparse
	vc 0 copy --json ../other/sparse sparse
	same "$(json 'j["copied"][0]["shared"]')" False
	same "$(stat -c '%s %b' sparse)" '8388608 0'
}

test_create_full() {
	three
	vc 0 create --full --json 2.vhdx new.vhdx
	same "$(json 'j["virtual-size"], j["parent"]')" '(8388608, None)'
	reads_as raw new.vhdx
	refused 1 'does not go with' create --full --type fixed --size 1M x.vhdx
}

# working PID: until it is where signals are for it to handle
working() {
	local caught n
	for ((n = 0; n < 200; n++)); do
		caught=$(sed -n 's/^SigCgt:.*\(...\)$/\1/p' "/proc/$1/status")
		[ $((0x${caught:-0} & 0x200)) = 0 ] || return 0
		sleep 0.05
	done
	fail "$1 handles no signal"
}

test_long_work() {
	local code=0
	three
	vc 0 merge --progress-json 2.vhdx
	same "$(/usr/bin/python3 -c 'import json
j = json.loads(open("err").readlines()[-1]); print(j["verb"], j["done"] == j["total"])')" \
		'merge True'
	# Slow enough for a signal; it goes on where it was.
	vc 0 create --type dynamic --size 64M base.vhdx
	vc 0 create base.vhdx d.vhdx
	raw d.img 64M
	dd if=/dev/urandom of=d.img bs=1M count=40 conv=notrunc status=none
	vc 0 convert --type dynamic d.img full.vhdx
	vc 0 reparent --unsafe d.vhdx full.vhdx
	"$VHDCLONE" flatten --rate 20M d.vhdx 2>err &
	working $!
	kill -USR1 $!
	sleep 0.2
	kill -INT $!
	wait $! || code=$?
	same "$code" 8 'exit code'
	has '^flatten: [0-9]+ %, ' err
	has 'interrupted: the images are valid' err
	vc 0 check d.vhdx
	vc 0 compare d.vhdx d.img
	vc 0 flatten d.vhdx
	rm full.vhdx
	vc 0 compare d.vhdx d.img
	code=0
	"$VHDCLONE" convert --type raw --rate 10M d.vhdx new 2>err &
	working $!
	sleep 0.1
	kill -TERM $!
	wait $! || code=$?
	same "$code" 8 'exit code'
	has 'nothing was made' err
	[ -z "$(find . -name 'new' -o -name '.vhdclone-*')" ] || fail "something is left behind"
	code=0
	"$VHDCLONE" compact --rate 20M d.vhdx 2>err &
	working $!
	kill -USR1 $!
	sleep 0.2
	kill -INT $!
	wait $! || code=$?
	same "$code" 8 'exit code'
	has '^compact: [0-9]+ %, ' err
	has 'interrupted: the image is in order' err
	vc 0 check d.vhdx
	vc 0 compare d.vhdx d.img
	vc 0 compact --progress-json d.vhdx
	has '"verb":"compact"' err
	vc 0 compare d.vhdx d.img
}

test_convert_vhd() {
	local type
	raw r.img 9M
	dd if=/dev/urandom of=r.img bs=1M seek=5 count=1 conv=notrunc status=none
	truncate -s 99999744 r.img
	for type in vhd-fixed vhd-dynamic; do
		vc 0 convert --type $type r.img $type.vhd
		vc 0 compare r.img $type.vhd
		vc 0 convert --type dynamic $type.vhd new.vhdx
		"$VHDX" compare r.img new.vhdx >/dev/null || fail "reads as something else"
		rm new.vhdx
		if command -v qemu-img >/dev/null; then
			qemu-img compare -q -f raw -F vpc r.img $type.vhd || fail "qemu-img"
		fi
		if /usr/bin/python3 -c 'import pyvhdi' 2>/dev/null; then
			same "$("$VHDI" $type.vhd | cut -d' ' -f1)" "$(hash_of r.img)"
		fi
	done
	# Only what is not zeros.
	same "$(stat -c %s vhd-dynamic.vhd)" $((4096 + 2 * (4096 + (2 << 20)) - 4096 + 512))
	vc 0 create vhd-fixed.vhd d.vhdx
	vc 0 convert --as-parent-of d.vhdx vhd-fixed.vhd new.vhdx
	rm vhd-fixed.vhd
	vc 0 check d.vhdx
	vc 0 compare d.vhdx r.img
	vc 0 create vhd-dynamic.vhd e.vhdx
	unchanged refused 4 'cannot be merged into' merge e.vhdx
	vc 0 merge e.vhdx --to merged.vhd
	vc 0 compare r.img merged.vhd
	truncate -s 3T huge
	refused 7 'more than a VHD can have' convert --type vhd-dynamic huge x.vhd
	vc 0 create --type dynamic --size 8M --logical-sector-size 4096 big.vhdx
	refused 4 'no other than 512' convert --type vhd-dynamic big.vhdx x.vhd
	[ ! -e x.vhd ] || fail "x.vhd is there"
}
