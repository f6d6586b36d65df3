# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Paths that come from an image, and images that change under the tool's hands.

guid=22222222-2222-3333-4444-555555555555

# named(path as the locator has it): child.vhdx
named() {
	image child.vhdx "{\"size\": \"8M\", \"block_size\": \"2M\", \"parent\": {
		\"parent_linkage\": \"{$guid}\", \"relative_path\": \"$1\"}}"
}

# named_raw(relative path, absolute path)
named_raw() {
	image child.vhdx "{\"size\": \"8M\", \"block_size\": \"2M\", \"parent\": {
		\"relative_path\": \"$1\", \"absolute_path\": \"$2\", \"size\": \"8388608\",
		\"fingerprint\": \"v1:0\"},
		\"locator\": \"cc0ca12a-9e33-46a4-90da-45680eec92bb\"}"
}

base_image() {
	image "$1" "{\"type\": \"dynamic\", \"size\": \"8M\", \"block_size\": \"2M\",
		\"data_write_guid\": \"$guid\"}"
}

test_paths_absolute() {
	mkdir in
	raw secret.img 8M
	cd in || return
	named_raw /etc/shadow /etc/shadow
	refused 2 'may not name by itself' table child.vhdx
	named_raw nothing "$(dirname "$PWD")/secret.img"
	refused 2 'may not name by itself' table child.vhdx
	named_raw ../secret.img nothing
	refused 2 'may not name by itself' table child.vhdx
	named_raw /proc/self/exe /proc/self/fd/0
	refused 2 'may not name by itself' table child.vhdx
	# Nor by a link beside the child.
	ln -s ../secret.img inside
	named_raw inside nothing
	refused 2 'secret.img, which an image may not name' table child.vhdx
}

test_paths_of_other_kinds() {
	local path
	mkdir dir
	mkfifo fifo
	ln -s loop loop
	for path in dir fifo; do
		named ".\\\\$path"
		refused 4 'need a regular file' table child.vhdx
		named_raw $path nothing
		timeout 5 "$VHDCLONE" table child.vhdx >out 2>err && fail "$path: no error"
		has 'need a regular file' err
	done
	named '.\\loop'
	refused 4 'symbolic links' table child.vhdx
	for path in /dev/null /dev/zero /dev/tty /dev/stdin; do
		named_raw $path $path
		vc 4 table child.vhdx
		[ "$(wc -l <err)" = 1 ] || fail "$path: not one line"
	done
	# A disk: none here need be a real one.
	named ''
	refused 4 'directory|no path' table child.vhdx
	named '.'
	refused 4 'directory' table child.vhdx
}

test_paths_huge() {
	local long
	# Longer than a path may be, and longer than a key and value may be.
	long=$(printf 'd%.0s' $(seq 5000))
	named "$long"
	refused 4 'too long' table child.vhdx
	vc 1 check child.vhdx
	long=$(printf '..\\\\%.0s' $(seq 1000))
	named "${long//\\/\\\\}base.vhdx"
	vc 4 table child.vhdx
	[ "$(wc -l <err)" = 1 ] || fail 'not one line'
	long=$(printf 'd%.0s' $(seq 300))
	named "$long"
	refused 4 'too long' table child.vhdx
}

# The message must not do anything to a terminal.
test_paths_with_control_characters() {
	named '.\\a\u001b[31m\nb\u0007.vhdx'
	refused 4 'No such file' table child.vhdx
	! grep -q "$(printf '\033\|\007')" err || fail 'control characters in the message'
	vc 4 info --chain --json child.vhdx
	! grep -q "$(printf '\033\|\007')" err || fail 'control characters in the message'
	# U+009B is an escape sequence's begin, too, U+00A0 is none.
	named '.\\a\u009b31m\u00a0b.vhdx'
	refused 4 'No such file' table child.vhdx
	! LC_ALL=C grep -q "$(printf '\302\233')" err || fail 'C1 in the message'
	LC_ALL=C grep -q "a?31m$(printf '\302\240')b" err || fail 'more was replaced'
}

# spoiled(UTF-16 unit in hex): in the middle of the path
spoiled() {
	named '.\\base.vhdx'
	/usr/bin/python3 - child.vhdx "$1" <<-'END'
		import sys
		data = open(sys.argv[1], "rb").read()
		at = data.index("base.vhdx".encode("utf-16-le"))
		with open(sys.argv[1], "r+b") as f:
		    f.seek(at + 4)
		    f.write(bytes.fromhex(sys.argv[2])[::-1])
	END
}

test_paths_invalid_utf16() {
	local unit
	base_image base.vhdx
	# A half of a pair, the other half, a NUL.
	for unit in d800 dc00 0000; do
		spoiled $unit
		refused 4 'parent locator' table child.vhdx
		has 'offset' err
		vc 2 check child.vhdx
	done
}

test_paths_loops() {
	local i
	# Itself, by its own name.
	image child.vhdx "{\"size\": \"8M\", \"block_size\": \"2M\",
		\"data_write_guid\": \"$guid\", \"parent\": {
		\"parent_linkage\": \"{$guid}\", \"relative_path\": \".\\\\child.vhdx\"}}"
	refused 4 'twice' table child.vhdx
	# A ring of three.
	for i in 1 2 3; do
		image $i.vhdx "{\"size\": \"8M\", \"block_size\": \"2M\",
			\"data_write_guid\": \"$guid\", \"parent\": {
			\"parent_linkage\": \"{$guid}\",
			\"relative_path\": \".\\\\$((i % 3 + 1)).vhdx\"}}"
	done
	refused 4 'twice' table 1.vhdx
	vc 2 check 1.vhdx
}

# 300 that each name the next one themselves.
test_paths_deep() {
	local i
	image 0000.vhdx "{\"size\": \"8M\", \"block_size\": \"2M\",
		\"data_write_guid\": \"$guid\", \"parent\": {
		\"parent_linkage\": \"{$guid}\", \"relative_path\": \".\\\\0001.vhdx\"}}"
	/usr/bin/python3 - <<-'END'
		data = open("0000.vhdx", "rb").read()
		old = "0001.vhdx".encode("utf-16-le")
		assert data.count(old) == 1
		for i in range(1, 300):
		    with open("%04d.vhdx" % i, "wb") as f:
		        f.write(data.replace(old, ("%04d.vhdx" % (i + 1)).encode("utf-16-le")))
	END
	refused 4 'more than 256' table 0000.vhdx
	vc 4 info --chain 0000.vhdx
	vc 2 check 0000.vhdx
}

# Before each read in turn, something else gets the base's name, or the clone's.  What
# was opened and checked is what counts: all is as if nothing had happened.
test_paths_swapped() {
	local n what code
	make -s -C "$TOP/tests/inject" 2>/dev/null || skip "no liburing"
	base_image good.vhdx
	named '.\\base.vhdx'
	cp child.vhdx clone.vhdx
	cp good.vhdx base.vhdx
	vc 0 info --chain --json clone.vhdx
	cp out expected
	export ASAN_OPTIONS=exitcode=99:detect_leaks=0:verify_asan_link_order=0
	for what in base clone; do
		for ((n = 1; ; n++)); do
			rm -f hit
			cp good.vhdx base.vhdx
			cp child.vhdx clone.vhdx
			image other "{\"type\": \"dynamic\", \"size\": \"16M\",
				\"block_size\": \"1M\"}"
			code=0
			LD_PRELOAD=$TOP/build/inject/inject.so INJECT="run@$n" \
				INJECT_RUN="mv other $what.vhdx && : >hit" \
				"$VHDCLONE" info --chain --json clone.vhdx >out 2>err || code=$?
			[ -e hit ] || break
			# Only before it is opened a base can be another one.
			if [ $what = base ] && [ $code = 6 ]; then
				has DataWriteGuid err
				continue
			fi
			same $code 0 'exit code'
			cmp -s out expected || fail "$what, read $n: a mixture"
			[ $n -lt 100 ] || fail 'never came to an end'
		done
		[ $n -gt 5 ] || fail "only $n reads"
	done
}

# It gets shorter while it is read.
test_paths_cut_while_read() {
	local n
	make -s -C "$TOP/tests/inject" 2>/dev/null || skip "no liburing"
	image good.vhdx '{"type": "dynamic", "size": "8M", "block_size": "1M",
		"blocks": {"0-7": 6}, "dirty": {"per_entry": 1}}'
	export ASAN_OPTIONS=exitcode=99:detect_leaks=0:verify_asan_link_order=0
	for ((n = 1; n < 100; n++)); do
		cp good.vhdx a.vhdx
		rm -f hit
		code=0
		LD_PRELOAD=$TOP/build/inject/inject.so INJECT="run@$n" \
			INJECT_RUN='truncate -s 65536 a.vhdx && : >hit' \
			"$VHDCLONE" check a.vhdx >out 2>err || code=$?
		[ -e hit ] || break
		[ $code = 0 ] || [ $code = 1 ] || [ $code = 2 ] || [ $code = 63 ] ||
			fail "read $n: exit code $code"
	done
	[ $n -gt 5 ] || fail "only $n reads"
}

# Whoever had it before may have cut it, or put another in its place.
test_paths_changed_before_lock() {
	local n code replaced=
	command -v strace >/dev/null || skip "no strace"
	make -s -C "$TOP/tests/inject" 2>/dev/null || skip "no liburing"
	image good.vhdx '{"type": "dynamic", "size": "32M", "block_size": "2M",
		"blocks": {"0-7": 6}}'
	truncate -s +16M good.vhdx
	export ASAN_OPTIONS=exitcode=99:verify_asan_link_order=0:detect_leaks=0
	for ((n = 1; n < 40; n++)); do
		rm -f hit
		cp good.vhdx a.vhdx
		# What it leaves when it is killed in the end must be the new length's.
		strace -qq -o /dev/null -e trace=pwrite64 \
			-e inject=pwrite64:signal=KILL:when=4 \
			-E LD_PRELOAD="$TOP/build/inject/inject.so" -E INJECT="run@$n" \
			-E INJECT_RUN="'$VHDCLONE' compact a.vhdx; : >hit" \
			"$VHDCLONE" resize a.vhdx +32M >out 2>err || :
		[ -e hit ] || break
		vc 0 recover a.vhdx
		vc 0 check a.vhdx
	done
	[ $n -gt 5 ] || fail "only $n places"
	for ((n = 1; n < 40; n++)); do
		rm -f hit
		cp good.vhdx a.vhdx
		cp good.vhdx other
		code=0
		LD_PRELOAD=$TOP/build/inject/inject.so INJECT="run@$n" \
			INJECT_RUN='mv other a.vhdx; : >hit' \
			"$VHDCLONE" resize a.vhdx +32M >out 2>err || code=$?
		[ -e hit ] || break
		[ $code != 0 ] || continue
		same $code 5
		has 'a.vhdx: was removed or replaced' err
		replaced=y
	done
	[ "$replaced" ] || fail "it changed what has no name"
}
