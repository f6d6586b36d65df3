# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# open, close, status, list and table, with the target in the kernel.

# files: base.vhdx with something in it, clone.vhdx over it, base.raw: what it holds
files() {
	local cache=$WORK/cache
	# To start Python takes long in an emulated guest.
	if [ ! -d "$cache" ]; then
		mkdir "$cache"
		image "$cache/base.vhdx" '{"type": "dynamic", "size": "8M", "block_size": "2M",
			"blocks": {"1-2": {"state": 6, "fill": {"tag": "base"}}}}'
		"$VHDX" merge "$cache/base.raw" "$cache/base.vhdx"
	fi
	cp "$cache/base.vhdx" "$cache/base.raw" .
	vc 0 create base.vhdx clone.vhdx
}

# What a test that failed has left must not make the next one fail.
clean_up() {
	local name
	for name in $(dmsetup ls 2>/dev/null | sed -n 's/\t.*//p'); do
		umount "/dev/mapper/$name" 2>/dev/null
		dmsetup remove --retry "$name" 2>/dev/null
	done
	for name in $(losetup -n -O NAME,BACK-FILE | grep -F "$WORK/" | cut -d' ' -f1); do
		umount "$name" 2>/dev/null
		losetup -d "$name" 2>/dev/null
	done
}

# same_content(device, raw file)
same_content() {
	cmp "$1" "$2" || fail "$1 differs from $2"
}

loops() {
	losetup -n -O BACK-FILE | grep -F "$PWD/" | sort || true
}

nothing_left() {
	[ -z "$(loops)" ] || fail "loop devices are left: $(loops)"
	vc 0 list -n
	same "$(cat out)" ''
	! dmsetup table | grep vhdclone || fail "devices are left"
}

# A node that was made for the loop devices may come late.
settle() {
	! command -v udevadm >/dev/null || udevadm settle 2>/dev/null || true
}

test_open_write_close() {
	local before
	files
	before=$(hash_of base.vhdx)
	vc 0 open clone.vhdx
	same "$(cat out)" /dev/mapper/clone
	[ -b /dev/mapper/clone ] || fail "no node"
	same_content /dev/mapper/clone base.raw
	cp base.raw expected.raw
	head -c 25600 /dev/urandom >new
	dd if=new of=/dev/mapper/clone bs=512 seek=100 conv=fsync status=none
	dd if=new of=expected.raw bs=512 seek=100 conv=notrunc status=none
	same_content /dev/mapper/clone expected.raw
	vc 0 close clone
	same "$(cat out err)" ''
	nothing_left
	same "$(hash_of base.vhdx)" "$before" "the base"
	# Header, log, metadata, BAT; a bitmap block; one block.
	same "$(stat -c %s clone.vhdx)" $((7 << 20)) "length"
	vc 0 check clone.vhdx
	"$VHDX" check --clean --quiet clone.vhdx
	"$VHDX" compare expected.raw clone.vhdx base.vhdx
	vc 0 open clone.vhdx again
	same_content /dev/mapper/again expected.raw
	vc 0 close /dev/mapper/again
	nothing_left
}

test_open_not_written_changes_nothing() {
	local before
	files
	before=$(hash_of clone.vhdx base.vhdx)
	vc 0 open clone.vhdx
	[ "$(stat -c %s clone.vhdx)" -gt $((12 << 20)) ] || fail "no room"
	vc 0 close clone
	same "$(hash_of clone.vhdx base.vhdx)" "$before"
	nothing_left
}

test_open_twice() {
	files
	vc 0 create base.vhdx other.vhdx
	vc 0 open clone.vhdx
	vc 0 open --json clone.vhdx
	has '"was-open": true'
	has '"device": "/dev/mapper/clone"'
	refused 5 'is open already, but for writing' open -r clone.vhdx
	refused 5 'delta of the open clone clone' open clone.vhdx elsewhere
	refused 5 'delta of the open clone clone' open -r clone.vhdx elsewhere
	refused 5 'of another image' open other.vhdx clone
	refused 5 'a base of the open clone' open base.vhdx
	vc 0 close clone
	vc 0 open base.vhdx
	refused 5 'delta of the open clone base' open clone.vhdx
	vc 0 close base
	nothing_left
}

test_open_clones_share_their_base() {
	local i
	files
	for i in 1 2 3; do
		vc 0 create base.vhdx c$i.vhdx
		vc 0 open c$i.vhdx
	done
	same "$(loops | grep -c base.vhdx)" 1 "loop devices of the base"
	for i in 1 2 3; do
		same_content /dev/mapper/c$i base.raw
		vc 0 close c$i
	done
	nothing_left
}

test_open_read_only() {
	local before
	files
	before=$(hash_of clone.vhdx)
	chmod 444 clone.vhdx
	vc 0 open -r clone.vhdx a
	vc 0 open --read-only clone.vhdx b
	same_content /dev/mapper/a base.raw
	same "$(blockdev --getro /dev/mapper/a)" 1
	same "$(loops | wc -l)" 2 "loop devices"
	vc 0 status --json a
	has '"mode": "ro"'
	has '"read-only": true'
	# Nobody writes to what was protected; nor to what is in use, when it is not.
	refused 2 'protected' open clone.vhdx
	chmod 644 clone.vhdx
	refused 5 'a base of the open clone a' open clone.vhdx
	vc 0 close a
	vc 0 close b
	same "$(hash_of clone.vhdx)" "$before"
	nothing_left
}

test_open_recovers() {
	image base.vhdx '{"type": "dynamic", "size": "8M", "block_size": "2M"}'
	image clone.vhdx '{"size": "8M", "block_size": "2M", "parent": "base.vhdx",
		"blocks": {"0": {"state": 7, "sectors": [[1, 7]], "fill": {"tag": "x"}},
		"3": {"state": 6, "fill": {"tag": "y"}}}, "dirty": {"per_entry": 1}}'
	"$VHDX" merge expected.raw clone.vhdx base.vhdx
	refused 4 'vhdclone recover' open -r clone.vhdx
	refused 4 'vhdclone recover' table clone.vhdx
	vc 0 open clone.vhdx
	has 'replayed [1-9]' err
	same_content /dev/mapper/clone expected.raw
	vc 0 close clone
	vc 0 check clone.vhdx
	same "$(cat out)" 'No errors found in 2 images.'
	nothing_left
}

test_open_dirty_base() {
	image base.vhdx '{"type": "dynamic", "size": "8M", "block_size": "2M",
		"blocks": {"0": 6}, "dirty": {}}'
	image clone.vhdx '{"size": "8M", "block_size": "2M", "parent": "base.vhdx"}'
	unchanged refused 4 'vhdclone recover [^ ]*base.vhdx' open clone.vhdx
	vc 0 recover base.vhdx
	vc 0 open clone.vhdx
	vc 0 close clone
	nothing_left
}

test_open_refusals_change_nothing() {
	files
	unchanged refused 4 'No such file' open nothing.vhdx
	unchanged refused 4 'make a clone of it' open base.raw
	unchanged refused 1 'cannot name a device' open clone.vhdx a/b
	unchanged refused 1 'cannot name a device' open clone.vhdx 'a b'
	unchanged refused 1 'cannot name a device' open clone.vhdx ..
	cp base.vhdx changed.vhdx
	set_field changed.vhdx headers.data_write_guid=11111111-2222-3333-4444-555555555555
	unchanged refused 6 'DataWriteGuid' open --base changed.vhdx clone.vhdx
	mkdir elsewhere
	mv base.vhdx elsewhere/
	unchanged refused 4 '--base' open clone.vhdx
	vc 0 open --base-dir elsewhere clone.vhdx
	vc 0 close clone
	vc 0 open --base elsewhere/base.vhdx clone.vhdx
	vc 0 close clone
	dmsetup create "foreign-$$" --table '0 8 error'
	unchanged refused 5 'not a clone' open clone.vhdx "foreign-$$" --base-dir elsewhere
	refused 5 'not a clone' close "foreign-$$"
	dmsetup remove "foreign-$$"
	nothing_left
}

# The kernel refuses what the tool let pass: all must be undone.
test_open_undone() {
	local size
	files
	dmsetup create busy --table '0 8 error' -u VHDCLONE-file-"$(printf '%x-%x' \
		"$(stat -c %d clone.vhdx)" "$(stat -c %i clone.vhdx)")"
	size=$(stat -c %s clone.vhdx)
	vc 5 open clone.vhdx
	same "$(stat -c %s clone.vhdx)" "$size" "length"
	same "$(loops)" ''
	dmsetup remove busy
	vc 0 open clone.vhdx
	vc 0 close clone
	nothing_left
}

test_open_small_file_system() {
	files
	# No file may be longer than 10 MiB.
	( ulimit -f 10240; exec vhdclone open clone.vhdx ) >out 2>err || fail "not opened"
	has 'has room for 10 MiB, every block written would need' err
	same "$(stat -c %s clone.vhdx)" $((10 << 20))
	vc 0 close clone
	nothing_left
}

test_close_busy() {
	local loop
	files
	vc 0 open clone.vhdx
	mke2fs -q /dev/mapper/clone
	mkdir mnt
	mount /dev/mapper/clone mnt
	refused 5 "mounted on $PWD/mnt" close clone
	umount mnt
	exec 9</dev/mapper/clone
	refused 5 'open 1 times' close clone
	exec 9<&-
	loop=$(dmsetup create top-$$ --table "0 8 linear /dev/mapper/clone 0" && echo made)
	same "$loop" made
	refused 5 'held by dm-' close clone
	dmsetup remove top-$$
	settle
	vc 0 close clone
	nothing_left
	refused 4 'no such clone' close clone
}

test_close_deferred() {
	local i
	files
	vc 0 open clone.vhdx
	exec 9</dev/mapper/clone
	vc 0 close --deferred clone
	has 'goes away with its last user' err
	vc 0 status --json clone
	has '"deferred-remove": true'
	exec 9<&-
	for i in 1 2 3 4 5 6 7 8 9 10; do
		[ -e /sys/module/loop ] && [ -z "$(loops)" ] && break
		sleep 0.3
	done
	nothing_left
	vc 0 check clone.vhdx
	vc 0 open clone.vhdx
	vc 0 close --deferred clone
	same "$(cat err)" ''
	same "$(stat -c %s clone.vhdx)" $((4 << 20))
	nothing_left
}

# An open that was killed between a device and its table.
test_open_after_a_killed_one() {
	files
	dmsetup create --notable -u "VHDCLONE-$(printf 'file-%x-%x' \
		"0x$(stat -c %D clone.vhdx)" "$(stat -c %i clone.vhdx)")" clone
	vc 0 open clone.vhdx
	same_content /dev/mapper/clone base.raw
	vc 0 close clone
	# One of another image stays.
	dmsetup create --notable -u VHDCLONE-file-0-0 clone
	refused 5 'of another image' open clone.vhdx
	dmsetup remove clone
	nothing_left
}

# An image that somebody else writes is not opened, not even to be read.
test_open_read_only_written() {
	files
	exec 7<>clone.vhdx
	refused 5 'open for writing by another program' open -r clone.vhdx
	exec 7<&-
	vc 0 open -r clone.vhdx
	vc 0 open -r clone.vhdx two
	vc 0 close clone
	vc 0 close two
	nothing_left
}

# What is read is locked until the clone is there, and no longer.
test_open_lets_go_of_its_bases() {
	files
	vc 0 open clone.vhdx
	/usr/bin/python3 - <<-'END' || fail "the base has a lock"
		import fcntl, struct
		fcntl.fcntl(open("base.vhdx", "r+b"), 37,
			    struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
	END
	vc 0 close clone
	vc 0 merge clone.vhdx
	nothing_left
}

test_open_clone_is_left_alone() {
	files
	raw other.img 1M
	vc 0 open clone.vhdx
	dd if=/dev/zero of=/dev/mapper/clone bs=4k count=1 conv=fsync status=none
	refused 5 'in use' recover clone.vhdx
	refused 1 'in use' check clone.vhdx
	refused 5 'in use' create clone.vhdx child.vhdx
	refused 5 'in use' create --force other.img clone.vhdx
	refused 5 'in use' create --force other.img base.vhdx
	# Suspended it is whole, and may be read and built upon.
	dmsetup suspend clone
	vc 0 check clone.vhdx
	vc 0 create clone.vhdx child.vhdx
	dmsetup resume clone
	vc 0 close clone
	vc 0 check child.vhdx
	nothing_left
}

test_status_and_list() {
	files
	vc 0 open clone.vhdx
	dd if=/dev/zero of=/dev/mapper/clone bs=4k count=1 conv=fsync status=none
	vc 0 status
	has '^/dev/mapper/clone: rw$'
	has "delta: +$PWD/clone.vhdx"
	has "base: +$PWD/base.vhdx"
	has 'blocks present: +1 of 4'
	vc 0 status --json
	same "$(json '[(c["name"], c["size"], c["mode"], c["present-blocks"], len(c["layers"]))
		for c in j["clones"]]')" "[('clone', 8388608, 'rw', 1, 2)]"
	vc 0 list
	has '^NAME +SIZE'
	has "^clone +8 MiB +2 MiB rw +2 $PWD/clone.vhdx"
	vc 0 list -n -o name,mode
	same "$(tr -s ' ' <out)" 'clone rw'
	refused 4 'no such clone' status nothing
	vc 0 close clone
}

test_table_is_what_open_loads() {
	files
	vc 0 open clone.vhdx
	dmsetup table clone >opened
	vc 0 table clone.vhdx
	cmp out opened
	vc 0 close clone
	vc 4 table clone.vhdx
	bash -c "$(grep -E '^(truncate|losetup)' err)" >attached
	vc 0 table clone.vhdx
	dmsetup create by-hand <out
	same_content /dev/mapper/by-hand base.raw
	dd if=/dev/zero of=/dev/mapper/by-hand bs=4k count=1 conv=fsync status=none
	vc 0 list -n -o name
	same "$(tr -d ' ' <out)" by-hand
	# The user's loop devices are his.
	vc 0 close by-hand
	same "$(loops | wc -l)" 2
	xargs losetup -d <attached
	vc 0 check clone.vhdx
	nothing_left
}

test_open_block_devices() {
	local base delta
	raw base.img 8M
	truncate -s 24M delta
	base=$(losetup --find --show --read-only base.img)
	delta=$(losetup --find --show delta)
	refused 7 'needs' create --block-size 1M --log-size 30M "$base" "$delta"
	vc 0 create "$base" "$delta"
	refused 5 'not empty' create "$base" "$delta"
	vc 0 create --force "$base" "$delta"
	refused 2 'may not name by itself' open "$delta" clone
	vc 0 open --base "$base" "$delta" clone
	same_content /dev/mapper/clone base.img
	mke2fs -q /dev/mapper/clone
	refused 5 'in use' create --force "$base" "$delta"
	vc 0 open --base "$base" "$delta" clone
	hash=$(hash_of /dev/mapper/clone)
	vc 0 close clone
	same "$(cat err)" ''
	vc 0 check --base "$base" "$delta"
	vc 0 open --base-dir /dev "$delta" clone
	same "$(hash_of /dev/mapper/clone)" "$hash"
	vc 0 close clone
	refused 2 'read-only' create --force base.img "$base"
	losetup -d "$base" "$delta"
	mke2fs -q delta
	delta=$(losetup --find --show delta)
	refused 5 'holds ext2' create base.img "$delta"
	mkdir mnt
	mount "$delta" mnt
	vc 5 create --force base.img "$delta"
	umount mnt
	losetup -d "$delta"
	nothing_left
}

test_open_deep_chain() {
	local i
	files
	cp base.raw expected.raw
	ln clone.vhdx 1.vhdx
	for i in 1 2 3 4; do
		vc 0 open $i.vhdx chain
		head -c $((i * 20480)) /dev/urandom >new
		dd if=new of=/dev/mapper/chain bs=512 seek=$((i * 3000)) conv=fsync status=none
		dd if=new of=expected.raw bs=512 seek=$((i * 3000)) conv=notrunc status=none
		same_content /dev/mapper/chain expected.raw
		vc 0 close chain
		vc 0 create $i.vhdx $((i + 1)).vhdx
	done
	"$VHDX" compare expected.raw 5.vhdx 4.vhdx 3.vhdx 2.vhdx 1.vhdx base.vhdx
	vc 0 open -r 5.vhdx chain
	vc 0 list -n -o layers
	same "$(tr -d ' ' <out)" 6
	vc 0 close chain
	# One that has children changes its identity when it is written.
	vc 0 open 4.vhdx chain
	dd if=/dev/zero of=/dev/mapper/chain bs=4k count=1 conv=fsync status=none
	vc 0 close chain
	refused 6 'DataWriteGuid' open 5.vhdx chain
	nothing_left
}

test_open_and_udev() {
	[ -e /run/udev/control ] || skip "no udev here"
	files
	vc 0 open clone.vhdx
	mke2fs -q -U 11111111-2222-3333-4444-555555555555 /dev/mapper/clone
	vc 0 close clone
	vc 0 open clone.vhdx
	settle
	[ ! -e /dev/disk/by-uuid/11111111-2222-3333-4444-555555555555 ] ||
		fail "the host looked at the clone"
	vc 0 close clone
	vc 0 open --probe clone.vhdx
	settle
	[ -e /dev/disk/by-uuid/11111111-2222-3333-4444-555555555555 ] ||
		fail "the host did not look at the clone"
	vc 0 close clone
	nothing_left
}

test_open_at_once() {
	local i code pids=()
	files
	for i in 1 2 3 4; do
		vhdclone open clone.vhdx >out.$i 2>err.$i &
		pids+=($!)
	done
	for i in 0 1 2 3; do
		code=0
		wait "${pids[$i]}" || code=$?
		[ $code = 0 ] || [ $code = 5 ] || fail "exit code $code: $(cat err.*)"
	done
	same_content /dev/mapper/clone base.raw
	vc 0 list -n
	same "$(wc -l <out)" 1
	vc 0 close clone
	same "$(stat -c %s clone.vhdx)" $((4 << 20))
	nothing_left
}

test_open_over_a_fixed_vhd() {
	files
	# A footer is all that makes a VHD of it.
	"$TOP/tests/lib/vhd.py" build '{"type": "fixed", "size": 8388608}' footer.vhd
	{ cat base.raw; tail -c 512 footer.vhd; } >base.vhd
	vc 0 create base.vhd vm.vhdx
	vc 0 open vm.vhdx
	same_content /dev/mapper/vm base.raw
	same "$(blockdev --getsize64 /dev/mapper/vm)" 8388608
	cp base.raw expected.raw
	printf x | dd of=/dev/mapper/vm conv=fsync,notrunc status=none
	printf x | dd of=expected.raw conv=notrunc status=none
	same_content /dev/mapper/vm expected.raw
	vc 0 close vm
	vc 0 compare --strict vm.vhdx expected.raw
	nothing_left
}

# A dynamic VHD, and differencing ones on it, whose bits are in each block.
test_open_over_a_vhd() {
	local all='[[0, 1], [7, 3], [100, 50], [4090, 6]]' last='[[0, 5], [2047, 1]]'
	"$TOP/tests/lib/vhd.py" build '{"type": "dynamic", "size": 9437184, "blocks":
		{"0": {"tag": "BASE"}, "2": {"tag": "BASE"}, "4": {"tag": "BASE"}}}' base.vhd
	"$TOP/tests/lib/vhd.py" build '{"type": "differencing", "size": 9437184,
		"id": "22222222222222222222222222222222", "relative": ".\\\\base.vhd",
		"block_size": 524288, "parent_id": "11111111111111111111111111111111", "blocks":
		{"0": {"tag": "MIDL", "sectors": [[1, 9], [1000, 24]]},
		 "17": {"tag": "MIDL", "sectors": [[0, 3], [1020, 4]]}}}' middle.vhd
	"$TOP/tests/lib/vhd.py" build '{"type": "differencing", "size": 9437184,
		"id": "33333333333333333333333333333333", "relative": ".\\\\middle.vhd",
		"parent_id": "22222222222222222222222222222222", "blocks":
		{"0": {"tag": "TOPS", "sectors": '"$all"'},
		 "3": {"tag": "TOPS"}, "4": {"tag": "TOPS", "sectors": '"$last"'}}}' top.vhd
	"$TOP/tests/lib/vhd.py" merge dynamic.raw base.vhd
	"$TOP/tests/lib/vhd.py" merge top.raw top.vhd middle.vhd base.vhd
	vc 0 create base.vhd one.vhdx
	vc 0 create top.vhd two.vhdx
	vc 0 open one.vhdx
	vc 0 open two.vhdx
	vc 0 status --json two
	same "$(json '[l["type"] for l in j["clones"][0]["layers"]]')" \
		"['vhdx', 'vhd', 'vhd', 'vhd']"
	same_content /dev/mapper/one dynamic.raw
	same_content /dev/mapper/two top.raw
	# In pieces that begin and end anywhere, of what the kernel has not cached.
	for skip in 6 99 1023 4089 10239 16383; do
		dd if=/dev/mapper/two iflag=direct bs=512 skip=$skip count=77 status=none >piece
		dd if=top.raw bs=512 skip=$skip count=77 status=none | same_content piece -
	done
	head -c 3k /dev/urandom >new
	dd if=new of=/dev/mapper/two bs=512 seek=98 oflag=direct conv=fsync status=none
	dd if=new of=top.raw bs=512 seek=98 conv=notrunc status=none
	same_content /dev/mapper/two top.raw
	vc 0 close one
	vc 0 close two
	vc 0 compare --strict two.vhdx top.raw
	nothing_left
}

test_open_clones_are_seen() {
	files
	vc 0 create base.vhdx second.vhdx
	vc 0 create clone.vhdx upper.vhdx
	vc 0 open upper.vhdx one
	vc 0 open second.vhdx two
	vc 0 scan --json .
	same "$(json '[(i["path"].rsplit("/", 1)[1], i["state"], i["open-as"], i["base-of-open"])
		for i in j["images"]]')" \
		"[('base.vhdx', 'clean', None, 2), ('clone.vhdx', 'clean', None, 1), ('second.vhdx', 'open', 'two', 0), ('upper.vhdx', 'open', 'one', 0)]"
	vc 0 scan .
	has 'second.vhdx .* open as two$'
	# Neither listed nor in a directory that is looked into: the table says so.
	rm .base.vhdx.vhdclone .clone.vhdx.vhdclone
	mkdir away
	mv clone.vhdx second.vhdx away/
	vc 0 children --json base.vhdx
	same "$(json '[c["path"].rsplit("/", 2)[1:] for c in j["children"]]')" \
		"[['away', 'clone.vhdx'], ['away', 'second.vhdx']]"
	# What is being written is looked at by nobody.
	printf x | dd of=/dev/mapper/two conv=fsync,notrunc status=none
	vc 0 scan --base-dir . away
	has 'second.vhdx .* open as two$'
	refused 5 'open clone two' map --base base.vhdx away/second.vhdx
	refused 2 'open clone two' compare --base-dir . away/second.vhdx base.raw
	mv away/* .
	vc 0 close one
	vc 0 close two
	nothing_left
}

# ---- reset of an open clone ------------------------------------------------------

test_open_reset() {
	local before size
	files
	vc 0 open clone.vhdx
	head -c 2M /dev/urandom >new
	dd if=new of=/dev/mapper/clone bs=1M seek=1 conv=fsync status=none
	before=$(stat -c %b clone.vhdx)
	size=$(stat -c %s clone.vhdx)
	vc 0 reset clone
	same "$(cat out err)" ''
	same_content /dev/mapper/clone base.raw
	[ "$(stat -c %b clone.vhdx)" -lt "$before" ] || fail "no space came free"
	same "$(stat -c %s clone.vhdx)" "$size" "room of the open clone"
	# It goes on: written again, reset by path and by device, closed.
	cp base.raw expected.raw
	dd if=new of=/dev/mapper/clone bs=512 seek=7 conv=fsync status=none
	dd if=new of=expected.raw bs=512 seek=7 conv=notrunc status=none
	same_content /dev/mapper/clone expected.raw
	vc 0 reset --json clone.vhdx
	has '"name": "clone"'
	same_content /dev/mapper/clone base.raw
	vc 0 reset /dev/mapper/clone
	dd if=new of=/dev/mapper/clone bs=512 seek=7 conv=fsync status=none
	vc 0 close clone
	vc 0 check clone.vhdx
	"$VHDX" compare expected.raw clone.vhdx base.vhdx
	nothing_left
}

test_open_reset_refused() {
	files
	refused 4 'no such clone' reset clone
	vc 0 open clone.vhdx
	mke2fs -q /dev/mapper/clone
	mkdir mnt
	mount /dev/mapper/clone mnt
	echo precious >mnt/file
	refused 5 "mounted on $PWD/mnt" reset clone
	refused 5 "mounted on $PWD/mnt" reset clone.vhdx
	same "$(cat mnt/file)" precious
	umount mnt
	exec 9</dev/mapper/clone
	refused 5 'open 1 times' reset clone
	exec 9<&-
	dmsetup suspend clone
	refused 5 'suspended by somebody' reset clone
	dmsetup resume clone
	mount /dev/mapper/clone mnt
	same "$(cat mnt/file)" precious
	umount mnt
	# Nothing else touches the file of an open clone.
	for verb in remove compact 'resize +1G' 'set --disk-id new' 'check --repair'; do
		# shellcheck disable=SC2086
		set -- $verb
		case $1 in
		resize)	refused 5 'delta of the open clone' resize clone.vhdx +1G ;;
		check)	refused 1 'delta of the open clone' check --repair clone.vhdx ;;
		*)	refused 5 'delta of the open clone' "$@" clone.vhdx ;;
		esac
	done
	refused 5 'delta of the open clone' protect clone.vhdx
	vc 0 protect base.vhdx
	vc 0 close clone
	vc 0 open clone.vhdx
	vc 0 close clone
	vc 0 unprotect base.vhdx
	vc 0 open -r clone.vhdx
	refused 2 'read-only' reset clone
	vc 0 close clone
	nothing_left
}

# A block device that is read-only, and a delta on one.
test_protect_device() {
	local loop
	files
	truncate -s 64M disk
	loop=$(losetup -f --show disk)
	vc 0 protect --json "$loop"
	has '"read-only": true'
	same "$(blockdev --getro "$loop")" 1
	refused 2 'read-only' create --type dynamic --size 8M "$loop"
	vc 0 unprotect "$loop"
	vc 0 create base.vhdx "$loop"
	refused 4 'a block device, cannot be removed' remove "$loop"
	vc 0 open --base base.vhdx "$loop" dev
	head -c 1M /dev/urandom >new
	dd if=new of=/dev/mapper/dev bs=1M seek=1 conv=fsync status=none
	vc 0 reset dev
	same_content /dev/mapper/dev base.raw
	dd if=new of=/dev/mapper/dev bs=1M seek=1 conv=fsync status=none
	vc 0 close dev
	vc 0 reset "$loop"
	vc 0 open --base base.vhdx "$loop" dev
	same_content /dev/mapper/dev base.raw
	vc 0 close dev
	losetup -d "$loop"
	nothing_left
}
