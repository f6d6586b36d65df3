#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What runs on a clone in the end: filesystems, fio's own verification, swap; and the
# module's life.  Of the list in the project's kernel notes: 16 (swap under memory
# pressure), 21 (module unload and reload), 15 (io_uring), 22 in part.
# shellcheck disable=SC2317

. "$(dirname "$0")/lib.sh"

# setup(MiB): a delta over a raw base that is not all zeros
setup() {
	raw base 8 BASE
	truncate -s "$1M" "$TMP/base.raw"
	image delta '{"size": "'"$1"'M", "block_size": "2M", "garbage": true,
		"capacity": "'$(($1 + 64))'M"}'
	LINE=$(table "$(layer delta)" "$(raw_layer "$TMP/base.raw")")
	activate f "$LINE"
	DEV=$(device f)
	mkdir "$TMP/mnt"
}

# Some files of each kind: many small, a large one, a sparse one, some gone again.
fill() {
	local i
	mkdir "$TMP/mnt/small" "$TMP/mnt/gone"
	for i in $(seq 100); do
		echo "file $i" >"$TMP/mnt/small/$i"
		echo "gone $i" >"$TMP/mnt/gone/$i"
	done
	dd if=/dev/urandom of="$TMP/mnt/large" bs=1M count=12 conv=fsync status=none
	dd if=/dev/urandom of="$TMP/mnt/sparse" bs=4k count=1 seek=20000 conv=fsync status=none
	rm -r "$TMP/mnt/gone"
}

sums() {
	(cd "$TMP/mnt" && find . -type f -exec sha256sum {} + | sort -k 2)
}

# filesystem(mkfs command, check command, mount options)
filesystem() {
	local mkfs=$1 check=$2 options=$3 before
	setup 320
	$mkfs "$DEV"
	mount -o "$options" "$DEV" "$TMP/mnt"
	fill
	before=$(sums)
	# In the middle of it: the delta is a complete image each time.
	suspend f
	good "$TMP/delta.vhdx"
	resume f
	fstrim "$TMP/mnt"
	same_text "$(sums)" "$before" "files after a suspend and a trim"
	umount "$TMP/mnt"
	$check "$DEV"
	expect "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	matches f
	deactivate f

	good "$TMP/delta.vhdx"
	holds "$TMP/delta.vhdx" "raw:$TMP/base.raw"
	activate f "$LINE"
	$check "$DEV"
	mount -o "$options" "$DEV" "$TMP/mnt"
	same_text "$(sums)" "$before" "files after a reopen"
	umount "$TMP/mnt"
}

test_ext4() {
	need mkfs.ext4 e2fsck fstrim
	modprobe -q ext4 || true
	grep -qw ext4 /proc/filesystems || skip "no ext4"
	filesystem "mkfs.ext4 -q" "e2fsck -fn" defaults
}

test_xfs() {
	need mkfs.xfs xfs_repair fstrim
	modprobe -q xfs || true
	grep -qw xfs /proc/filesystems || skip "no xfs"
	filesystem "mkfs.xfs -q" "xfs_repair -n" nouuid
}

# fio_verify(engine, options...): random writes of many sizes, all read back
fio_verify() {
	local engine=$1
	shift
	need fio
	setup 64
	fio --name=verify --filename="$DEV" --direct=1 --ioengine="$engine" --rw=randrw \
		--bsrange=512-64k --bs_unaligned=0 --blockalign=512 --size=64M --io_size=24M \
		--verify=crc32c --verify_fatal=1 --fsync=64 --randseed=7 --output="$TMP/fio.log" \
		"$@" || { cat "$TMP/fio.log"; fail "fio"; }
	deactivate f
	good "$TMP/delta.vhdx"
}

test_fio_psync() {
	fio_verify psync
}

test_fio_io_uring() {
	# Not every kernel has it, and some refuse it.
	fio --name=probe --ioengine=io_uring --filename=/dev/zero --size=4k --rw=read \
		>/dev/null 2>&1 || skip "no io_uring"
	fio_verify io_uring --iodepth=32
}

test_swap() {
	local total
	need mkswap swapon python3
	setup 128
	mkswap "$DEV" >/dev/null
	swapon "$DEV" || skip "no swap in this kernel"
	[ -d /sys/fs/cgroup ] || skip "no cgroups"
	mountpoint -q /sys/fs/cgroup || mount -t cgroup2 none /sys/fs/cgroup || skip "no cgroup2"
	echo +memory >/sys/fs/cgroup/cgroup.subtree_control 2>/dev/null || skip "no memory cgroup"
	mkdir -p "/sys/fs/cgroup/$PREFIX"
	echo 24M >"/sys/fs/cgroup/$PREFIX/memory.max"
	# 64 MiB that tell their place, in 24 MiB of memory.
	(
		echo "$BASHPID" >"/sys/fs/cgroup/$PREFIX/cgroup.procs"
		exec timeout 150 python3 -SE - <<-'PYTHON'
		import array
		n = 64 * 256
		pages = bytearray(n * 4096)
		for i in range(n):
		    pages[i * 4096:i * 4096 + 8] = i.to_bytes(8, "little")
		for i in range(n):
		    if int.from_bytes(pages[i * 4096:i * 4096 + 8], "little") != i:
		        raise SystemExit("page %d is wrong" % i)
		PYTHON
	) || fail "swapped pages came back wrong, or not in time: $?"
	total=$(status f present)
	swapoff "$DEV"
	rmdir "/sys/fs/cgroup/$PREFIX"
	[ "$total" -gt 10 ] || fail "only $total blocks were written: nothing was swapped out"
}

test_module() {
	local ko
	modinfo dm-vhdclone >/dev/null 2>&1 || ko=$(find_ko) || skip "the module's file is not here"
	setup 16
	must_fail rmmod dm_vhdclone
	io f w:0:8:A f
	deactivate f
	rmmod dm_vhdclone || skip "built in"
	if [ -n "${ko:-}" ]; then
		insmod "$ko"
	else
		modprobe dm-vhdclone
	fi
	activate f "$LINE"
	io f r:0:8:A
}

run_tests "$@"
