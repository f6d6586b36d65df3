# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What others do with a base, and images that change while they are opened.

test_paths_base_in_use() {
	local device
	truncate -s 16M base.img
	mke2fs -q base.img
	device=$(losetup --find --show base.img)
	vc 0 create "$device" clone.vhdx
	mkdir mnt
	# Read-only, or it would be another base already.
	mount -o ro "$device" mnt
	unchanged refused 5 'in use|busy' open --base "$device" clone.vhdx
	umount mnt
	# A file that somebody writes, or may write at any time.
	losetup -d "$device"
	settle
	vc 0 create --force base.img clone.vhdx
	exec 7<>base.img
	unchanged refused 5 'base.img: is open for writing' open clone.vhdx
	exec 7>&-
	vc 0 open clone.vhdx
	vc 0 close clone
	# One that only reads it does no harm.
	exec 7<base.img
	vc 0 open clone.vhdx
	vc 0 close clone
	exec 7<&-
	nothing_left
}

test_paths_name_a_device() {
	local device
	truncate -s 8M secret.img
	device=$(losetup --find --show secret.img)
	image clone.vhdx "{\"size\": \"8M\", \"block_size\": \"2M\", \"parent\": {
		\"relative_path\": \"$device\", \"absolute_path\": \"$device\",
		\"size\": \"8388608\", \"fingerprint\": \"v1:0\"},
		\"locator\": \"cc0ca12a-9e33-46a4-90da-45680eec92bb\"}"
	unchanged refused 2 'may not name by itself' open clone.vhdx
	# By a link beside it: the device is what counts.
	ln -s "$device" link
	unchanged refused 2 'may not name by itself' open clone.vhdx
	losetup -d "$device"
	settle
	nothing_left
}

# Another image gets the name, before the N-th read or change.  What is attached is what
# was checked, or nothing is.
test_paths_swapped_while_opened() {
	local n what
	[ -e "$TOP/build/inject/inject.so" ] || skip "no inject.so"
	files
	mv clone.vhdx good-clone.vhdx
	cp base.vhdx good-base.vhdx
	truncate -s 8M other.raw
	vc 0 create other.raw other.vhdx
	for what in base clone; do
		for ((n = 1; n < 100; n += 11)); do
			rm -f hit
			cp good-base.vhdx base.vhdx
			cp good-clone.vhdx clone.vhdx
			cp other.vhdx other
			LD_PRELOAD=$TOP/build/inject/inject.so INJECT="run@$n" \
				INJECT_RUN="mv other $what.vhdx && : >hit" \
				"$VHDCLONE" open clone.vhdx >out 2>err || true
			if [ -b /dev/mapper/clone ]; then
				same_content /dev/mapper/clone base.raw
				vc 0 close clone
			else
				[ "$(wc -l <err)" = 1 ] || fail "$what, call $n: no message"
			fi
			nothing_left
			[ -e hit ] || break
		done
		[ "$n" -gt 12 ] || fail "only $n calls"
	done
}
