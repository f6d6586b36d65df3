# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later

verbs_on_images='info table recover check'

# each(exit code, that of check, pattern, path): all verbs that read an image
each() {
	local verb want
	for verb in $verbs_on_images; do
		want=$1
		[ "$verb" != check ] || want=$2
		if [ "$verb" = check ]; then
			timeout 10 "$VHDCLONE" check "$4" >out 2>err && fail "$4: no error"
			grep -qE -- "$3" out err || fail "$verb $4: no '$3'"
			vc "$want" check "$4"
		else
			unchanged refused "$want" "$3" "$verb" "$4"
		fi
	done
}

test_files_of_other_kinds() {
	mkdir dir
	mkfifo fifo
	/usr/bin/python3 -c 'import socket
socket.socket(socket.AF_UNIX).bind("socket")'
	ln -s nowhere dangling
	ln -s loop loop
	each 4 2 'a directory' dir
	each 4 2 'a FIFO' fifo
	each 4 2 'a socket' socket
	each 4 2 'a character device' /dev/null
	each 4 2 'a character device' /dev/tty
	each 4 1 'No such file' nothing
	each 4 1 'No such file' dangling
	each 4 2 'symbolic links' loop
	for base in dir fifo socket /dev/null nothing; do
		refused 4 . create $base x.vhdx
	done
	raw base.img 1M
	refused 4 'a FIFO' create base.img fifo
	refused 4 'a character device' create base.img /dev/null
	refused 4 'a FIFO' create --force base.img fifo
	[ -p fifo ] || fail "the FIFO is gone"
}

test_files_cut_short() {
	local n
	image good.vhdx '{"type": "fixed", "size": "4M", "block_size": "2M"}'
	: >cut.vhdx
	each 4 63 'not a VHDX' cut.vhdx
	for n in 8 100 519 520 65536 69631 131072 135168 196608 262144 327680 1048576 2097152 \
		2097153 2162688 3145728 3145735; do
		head -c "$n" good.vhdx >cut.vhdx
		vc 4 info cut.vhdx
		vc 4 table cut.vhdx
		code=0
		timeout 10 "$VHDCLONE" check cut.vhdx >out 2>err || code=$?
		[ $code = 2 ] || { [ "$n" -lt 520 ] && [ $code = 63 ]; } || fail "$n: $code"
	done
	# A last block that is cut at the virtual end is what old writers leave.
	image odd.vhdx '{"type": "fixed", "size": "3M", "block_size": "2M"}'
	truncate -s -1M odd.vhdx
	vc 0 check odd.vhdx
}

# What is missing of a block is never taken for zeros, be it less than a MiB.
test_files_cut_in_last_mib() {
	local n
	image good.vhdx '{"type": "fixed", "size": 3146752, "block_size": "2M",
		"default": {"state": 6, "fill": {"tag": "x"}}}'
	truncate -s -1047552 good.vhdx
	vc 0 check good.vhdx
	vc 0 convert --type raw good.vhdx good.raw
	for n in 1 512 1024 524288; do
		cp good.vhdx cut.vhdx
		truncate -s -$n cut.vhdx
		vc 2 check cut.vhdx
		has 'block 1: BAT entry: block lies behind the end of the file .offset 3145736'
		unchanged vc 2 check --repair cut.vhdx
		refused 4 'behind the end of the file' convert --type raw cut.vhdx cut.raw
		refused 4 'behind the end of the file' map cut.vhdx
		unchanged refused 4 'behind the end of the file' resize cut.vhdx +4M
	done
	# Bits that are not there are not clear.
	image base.vhdx '{"type": "dynamic", "size": "4M", "block_size": "1M"}'
	image cut.vhdx '{"size": "4M", "block_size": "1M", "parent": "base.vhdx", "blocks": {
		"0": {"state": 7, "at": 4, "sectors": [[0, 5]]}}}'
	truncate -s -4096 cut.vhdx
	vc 2 check cut.vhdx
	has 'behind the end of the file'
	refused 4 'behind the end of the file' convert --type raw cut.vhdx cut.raw
}

test_files_without_permission() {
	need_root
	command -v setpriv >/dev/null || skip "no setpriv"
	image secret.vhdx '{"type": "dynamic", "size": "4M", "dirty": {}}'
	raw base.img 1M
	chmod 600 secret.vhdx
	chmod 644 base.img
	cp -r . "$WORK/perm"
	chmod 755 "$WORK" "$WORK/perm"
	cp "$VHDCLONE" "$WORK/tool"
	for verb in $verbs_on_images; do
		code=0
		( cd "$WORK/perm" && exec setpriv --reuid 65534 --clear-groups \
			"$WORK/tool" "$verb" secret.vhdx ) >out 2>err || code=$?
		[ $code = 2 ] || { [ "$verb" = check ] && [ $code = 1 ]; } ||
			fail "$verb: exit code $code"
	done
	code=0
	( cd "$WORK/perm" && exec setpriv --reuid 65534 --clear-groups \
		"$WORK/tool" create base.img clone.vhdx ) >out 2>err || code=$?
	same "$code" 2
	has 'Permission denied' err
	rm -rf "$WORK/perm" "$WORK/tool"
}

test_files_locked() {
	local code
	image a.vhdx '{"type": "dynamic", "size": "4M", "block_size": "2M",
		"blocks": {"0": 6}, "dirty": {}}'
	cat >locker.py <<-'END'
		import fcntl, struct, subprocess, sys
		f = open("a.vhdx", "r+b")
		# One byte, as QEMU does.
		fcntl.fcntl(f, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 100, 1, 0))
		sys.exit(subprocess.call(sys.argv[1:]))
	END
	code=0
	/usr/bin/python3 locker.py "$VHDCLONE" recover a.vhdx 2>err || code=$?
	same "$code" 5
	has 'in use by another program' err
	raw base.img 1M
	code=0
	/usr/bin/python3 locker.py "$VHDCLONE" create --force base.img a.vhdx 2>err || code=$?
	same "$code" 5
	vc 0 recover a.vhdx
	# Nothing would be written, but that it could not be is seen.
	vc 0 create a.vhdx clone.vhdx
	vc 0 merge -n clone.vhdx
	code=0
	/usr/bin/python3 locker.py "$VHDCLONE" merge -n clone.vhdx 2>err || code=$?
	same "$code" 5
	has 'a.vhdx: in use by another program' err
}

# locked(file, read|write, first byte, bytes, argument...): the tool, while another
# program has that lock; its exit code is in "code"
locked() {
	code=0
	/usr/bin/python3 - "$VHDCLONE" "$@" >out 2>err <<-'END' || code=$?
		import fcntl, struct, subprocess, sys
		tool, path, how, start, length = sys.argv[1:6]
		f = open(path, "r+b" if how == "write" else "rb")
		kind = fcntl.F_WRLCK if how == "write" else fcntl.F_RDLCK
		fcntl.fcntl(f, 37, struct.pack("hhqqi4x", kind, 0, int(start), int(length), 0))
		sys.exit(subprocess.call([tool] + sys.argv[6:]))
	END
}

# What another tool changes is not read, and what is read is not changed.
test_files_read_under_lock() {
	local code layer copy
	base_of() {
		image "$1" '{"type": "dynamic", "size": "8M", "block_size": "2M",
			"blocks": {"0-3": {"state": 6, "fill": {"tag": "b"}}}}'
	}
	base_of base.vhdx
	vc 0 create base.vhdx mid.vhdx
	vc 0 create mid.vhdx d.vhdx
	cp base.vhdx other.vhdx
	for layer in base mid; do
		while read -r line; do
			# shellcheck disable=SC2086
			unchanged locked $layer.vhdx write 0 0 $line
			[ "$code" = 5 ] || [ "$line $code" = 'compare d.vhdx other.vhdx 2' ] ||
				fail "$layer is written: $line: exit code $code"
			has "$layer.vhdx: is being written by another program" err
		done <<-END
			copy $layer.vhdx new
			copy --chain d.vhdx .
			convert --type dynamic d.vhdx new
			convert --type raw $layer.vhdx new
			compare d.vhdx other.vhdx
			flatten --to new d.vhdx
			flatten d.vhdx
			merge --to new --base base.vhdx d.vhdx
			merge d.vhdx
			create $layer.vhdx new
			create --full $layer.vhdx new
			compact --dedup-parent d.vhdx
			resize d.vhdx -4M
			reparent --compare mid.vhdx $layer.vhdx
		END
	done
	# Readers are not in each other's way, but in that of writers.
	locked base.vhdx read 0 1 convert --type raw d.vhdx raw
	same "$code" 0
	locked base.vhdx read 0 1 compact base.vhdx
	same "$code" 5
	# QEMU: one that reads, one that writes.
	locked base.vhdx read 100 1 compare d.vhdx raw
	same "$code" 0
	locked base.vhdx read 101 1 compare d.vhdx raw
	same "$code" 2
	has 'base.vhdx: is being written' err
	# On a file system that cannot be written, and without the right to.
	chmod 444 base.vhdx
	vc 0 convert --type raw --force d.vhdx raw
	chmod 644 base.vhdx
	# In earnest: base and copy would have one identity, and different content.
	dd if=/dev/urandom of=new.img bs=1M count=8 status=none
	vc 0 convert --type dynamic new.img base.vhdx --force
	vc 0 create --force base.vhdx d.vhdx
	"$VHDCLONE" copy --rate 4M base.vhdx copy.vhdx 2>copy.err &
	copy=$!
	sleep 0.5
	vc 5 merge d.vhdx
	has 'base.vhdx: in use by another program' err
	vc 0 convert --type raw d.vhdx again
	wait $copy || fail "$(cat copy.err)"
	vc 0 compare base.vhdx copy.vhdx
	vc 0 merge d.vhdx
}

# No node of the loop device, however long one waits for it.
test_files_no_loop_device() {
	need_root
	[ -c /dev/loop-control ] || skip "no /dev/loop-control"
	raw base.img 1M
	vc 0 create base.img d.vhdx
	mkdir dev
	code=0
	# shellcheck disable=SC2016
	unshare -m --propagation private sh -c '{ mount -t tmpfs none dev && mkdir dev/shm &&
		mount --bind /dev/shm dev/shm && mknod dev/null c 1 3 &&
		mknod dev/loop-control c 10 237 && mount --move dev /dev &&
		: </dev/loop-control; } || exit 77
		exec "$@"' sh "$VHDCLONE" open d.vhdx >out 2>err </dev/null || code=$?
	[ $code != 77 ] || skip "no /dev of one's own"
	same $code 4 'exit code'
	has 'cannot attach a loop device: No such file' err
	vc 0 check d.vhdx
}

test_files_messages_are_one_line() {
	raw base.img 1M
	vc 4 info $'no\nthing\e[31m'
	same "$(wc -l <err)" 1
	has 'no.thing.\[31m' err
}

test_table() {
	raw base.img 4M
	vc 0 create base.img clone.vhdx
	[ ! -s out ] || fail "printed something"
	vc 4 table clone.vhdx
	[ ! -s out ] || fail "printed something"
	has "^losetup --find --show (--direct-io=on )?'$PWD/clone.vhdx'" err
	has "^losetup --find --show --read-only '$PWD/base.img'" err
	has "^truncate -s [0-9]+ '$PWD/clone.vhdx'" err
	vc 4 table -r clone.vhdx
	has "^losetup --find --show --read-only '$PWD/clone.vhdx'" err
}
