# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later

# child(file, path of the parent as the locator has it): of base.vhdx
child() {
	image "$1" "{\"size\": \"8M\", \"block_size\": \"2M\", \"parent\": {
		\"parent_linkage\": \"{22222222-2222-3333-4444-555555555555}\",
		\"relative_path\": \"$2\"}}"
}

parent() {
	image "$1" '{"type": "dynamic", "size": "8M", "block_size": "2M",
		"data_write_guid": "22222222-2222-3333-4444-555555555555"}'
}

test_chain_stays_in_its_directory() {
	mkdir -p in/below out_there
	parent in/base.vhdx
	parent in/below/base.vhdx
	parent out_there/secret.vhdx
	child in/child.vhdx '.\\\\below\\\\base.vhdx'
	vc 0 check in/child.vhdx
	child in/child.vhdx '.\\\\below\\\\..\\\\base.vhdx'
	vc 0 check in/child.vhdx
	child in/child.vhdx '..\\\\out_there\\\\secret.vhdx'
	refused 2 'may not name by itself.*--base' table in/child.vhdx
	refused 1 'may not name' check -q in/child.vhdx
	ln -s ../out_there/secret.vhdx in/link.vhdx
	child in/child.vhdx '.\\\\link.vhdx'
	refused 2 'out_there/secret.vhdx, which an image may not' table in/child.vhdx
	ln -s ../out_there in/dir
	child in/child.vhdx '.\\\\dir\\\\secret.vhdx'
	refused 2 'may not name' table in/child.vhdx
	child in/child.vhdx "${PWD//\//\\\\\\\\}\\\\\\\\out_there\\\\\\\\secret.vhdx"
	refused 2 'may not name' table in/child.vhdx
	# A directory whose name only begins the same is another.
	mkdir in2
	parent in2/base2.vhdx
	child in/child.vhdx '..\\\\in2\\\\base2.vhdx'
	refused 2 'may not name' table in/child.vhdx
	# But the user may say so.
	vc 0 check --base in2/base2.vhdx in/child.vhdx
	vc 0 check --base-dir in2 in/child.vhdx
	vc 0 check --base-dir nowhere --base-dir in2/ in/child.vhdx
	VHDCLONE_BASE_PATH=nowhere:in2 vc 0 check in/child.vhdx
	VHDCLONE_BASE_PATH=nowhere refused 2 'may not name' table in/child.vhdx
}

test_chain_finds_moved_bases() {
	mkdir a b c
	parent a/base.vhdx
	vc 0 create a/base.vhdx b/clone.vhdx
	refused 2 '--base' table b/clone.vhdx
	vc 0 check --base-dir a b/clone.vhdx
	mv a/base.vhdx b/
	vc 0 check b/clone.vhdx
	mv b/base.vhdx c/
	refused 4 'No such file.*--base' table b/clone.vhdx
	vc 0 check --base-dir c b/clone.vhdx
	raw c/base.img 1M
	vc 0 create c/base.img a/clone.vhdx
	refused 2 '--base' table a/clone.vhdx
	vc 0 check --base-dir c a/clone.vhdx
	vc 0 check --base c/base.img a/clone.vhdx
	mv a/clone.vhdx b/deeper.vhdx
	vc 0 check --base-dir c b/deeper.vhdx
}

# Another image of the base's name, in a place that is looked at before the right one.
test_chain_passes_namesakes() {
	mkdir a b c
	parent a/base.vhdx
	vc 0 create a/base.vhdx b/clone.vhdx
	vc 0 convert --type dynamic a/base.vhdx b/base.vhdx
	refused 2 'may not name by itself.*--base' table b/clone.vhdx
	mv a/base.vhdx c/
	vc 0 check --base-dir c b/clone.vhdx
	refused 6 'b/base.vhdx is not the parent' table b/clone.vhdx
	vc 0 chain --base-dir c --json b/clone.vhdx
	same "$(json 'j["chain"][1]["path"]')" "$PWD/c/base.vhdx"
	# As short as can be.
	vc 0 create b/base.vhdx b/own.vhdx
	parent b/base.vhdx
	refused 6 ' [^ ]*files/b/base.vhdx is not the parent' table b/own.vhdx
}

test_chain_names_several_bases() {
	mkdir a b c
	parent a/base.vhdx
	vc 0 create a/base.vhdx b/one.vhdx
	vc 0 create --base-dir a b/one.vhdx c/two.vhdx
	refused 2 '--base' table c/two.vhdx
	refused 2 '--base' table --base b/one.vhdx c/two.vhdx
	vc 0 check --base b/one.vhdx --base a/base.vhdx c/two.vhdx
	refused 4 'names 3 parents' table --base b/one.vhdx --base a/base.vhdx --base x c/two.vhdx
}

test_chain_identity() {
	parent base.vhdx
	vc 0 create base.vhdx clone.vhdx
	cp base.vhdx changed.vhdx
	set_field changed.vhdx headers.data_write_guid=33333333-2222-3333-4444-555555555555
	refused 6 'DataWriteGuid.*33333333.*expected 22222222' \
		table --base changed.vhdx clone.vhdx
	# FileWriteGuid is another matter.
	set_field base.vhdx headers.file_write_guid=33333333-2222-3333-4444-555555555555
	vc 0 check clone.vhdx
	image two.vhdx '{"size": "8M", "block_size": "2M", "parent": {
		"parent_linkage": "{22222222-2222-3333-4444-555555555555}",
		"parent_linkage2": "{33333333-2222-3333-4444-555555555555}",
		"relative_path": ".\\base.vhdx"}}'
	vc 0 check two.vhdx
	vc 0 check --base changed.vhdx two.vhdx
	image upper.vhdx '{"size": "8M", "block_size": "2M", "parent": {
		"parent_linkage": "22222222-2222-3333-4444-55555555ABCD",
		"relative_path": ".\\base.vhdx"}}'
	set_field base.vhdx headers.data_write_guid=22222222-2222-3333-4444-55555555abcd
	vc 0 check upper.vhdx
	image none.vhdx '{"size": "8M", "block_size": "2M", "parent": {
		"relative_path": ".\\base.vhdx"}}'
	vc 2 check none.vhdx
	refused 4 'parent_linkage' table none.vhdx
}

test_chain_raw_identity() {
	raw base.img 3M
	vc 0 create base.img clone.vhdx
	cp base.img changed.img
	printf x | dd of=changed.img bs=1 seek=100 conv=notrunc status=none
	refused 6 'fingerprint' table --base changed.img clone.vhdx
	cp base.img changed.img
	printf x | dd of=changed.img bs=1 seek=$((3145728 - 1)) conv=notrunc status=none
	refused 6 'fingerprint' table --base changed.img clone.vhdx
	truncate -s 4M changed.img
	refused 6 'has 4194304 bytes' table --base changed.img clone.vhdx
	cp base.img same.img
	vc 0 check --base same.img clone.vhdx
	# However it looks: what was raw is raw.
	image inner.vhdx '{"type": "dynamic", "size": "8M"}'
	vc 0 create --base-format raw inner.vhdx clone2.vhdx
	vc 0 info --chain --json clone2.vhdx
	same "$(json 'j["chain"][1]["type"]')" raw
}

# 66 samples of a raw base, which may lie on a slow disk: each is read once.
test_chain_raw_identity_once() {
	local n
	command -v strace >/dev/null || skip "no strace"
	raw base.img 3M
	vc 0 create base.img clone.vhdx
	# Leaks cannot be looked for in a process that is traced.
	ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -f -qq -y -o trace -e trace=pread64 \
		"$VHDCLONE" map clone.vhdx >/dev/null
	n=$(grep -c 'base.img.* = 4096$' trace)
	same "$n" 66
}

test_chain_sector_sizes() {
	image base.vhdx '{"type": "dynamic", "size": "8M", "lss": 4096,
		"data_write_guid": "22222222-2222-3333-4444-555555555555"}'
	child clone.vhdx '.\\\\base.vhdx'
	refused 4 'sector size' table clone.vhdx
	vc 2 check clone.vhdx
}

test_chain_cycles() {
	image one.vhdx '{"size": "8M", "block_size": "2M",
		"data_write_guid": "22222222-2222-3333-4444-555555555555", "parent": {
		"parent_linkage": "{22222222-2222-3333-4444-555555555555}",
		"relative_path": ".\\two.vhdx"}}'
	ln one.vhdx two.vhdx
	refused 4 'twice' table one.vhdx
	vc 2 check one.vhdx
	vc 4 info --chain --json one.vhdx
	has 'twice' err
	same "$(json 'len(j["chain"])')" 1
}

test_chain_depth() {
	local i
	parent 0.vhdx
	for i in $(seq 255); do
		if [ "$i" -lt 255 ] && [ "$i" -gt 1 ]; then
			# All clones of one image that says it is its own parent's child.
			cp "$((i - 1)).vhdx" "$i.vhdx"
			continue
		fi
		image "$i.vhdx" '{"size": "8M", "block_size": "2M",
			"data_write_guid": "22222222-2222-3333-4444-555555555555", "parent": {
			"parent_linkage": "{22222222-2222-3333-4444-555555555555}",
			"relative_path": ".\\0.vhdx"}}'
	done
	set --
	for i in $(seq 254 -1 0); do
		set -- "$@" --base "$i.vhdx"
	done
	vc 0 check "$@" 255.vhdx
	has 'in 256 images'
	cp 254.vhdx 256.vhdx
	refused 4 'more than 256' table --base 255.vhdx "$@" 256.vhdx
}

# pairs(number): so many in the locator of child.vhdx
pairs() {
	image child.vhdx "$(/usr/bin/python3 - "$1" <<-'END'
		import json, sys
		parent = {"parent_linkage": "{11111111-2222-3333-4444-555555555555}",
		          "relative_path": "./base.vhdx"}
		for i in range(int(sys.argv[1]) - 2):
		    parent["key%d" % i] = "x" * 3
		print(json.dumps({"size": "4M", "parent": parent}))
	END
	)"
}

test_chain_many_pairs() {
	pairs 64
	vc 0 info child.vhdx
	vc 0 check --no-chain child.vhdx
	pairs 65
	refused 4 'parent locator: 65 entries, more than 64' info child.vhdx
	vc 2 check --no-chain child.vhdx
	# What could not be read again is not written.
	pairs 64
	image base.vhdx '{"size": "4M", "type": "dynamic",
		"data_write_guid": "11111111-2222-3333-4444-555555555555"}'
	unchanged refused 4 'parent locator: 65 entries, more than 64' merge child.vhdx
	pairs 63
	vc 0 merge child.vhdx
}

test_chain_locators() {
	parent base.vhdx
	image alien.vhdx '{"size": "8M", "block_size": "2M", "parent": {"a": "b"},
		"locator": "11111111-2222-3333-4444-555555555555"}'
	refused 4 'unknown type 11111111' table alien.vhdx
	vc 63 check alien.vhdx
	vc 63 check --no-chain alien.vhdx
	image nopath.vhdx '{"size": "8M", "block_size": "2M", "parent": {
		"parent_linkage": "{22222222-2222-3333-4444-555555555555}"}}'
	refused 4 'no path.*--base' table nopath.vhdx
	vc 2 check --base base.vhdx nopath.vhdx
	image windows.vhdx '{"size": "8M", "block_size": "2M", "parent": {
		"parent_linkage": "{22222222-2222-3333-4444-555555555555}",
		"absolute_win32_path": "\\\\?\\C:\\VMs\\base.vhdx"}}'
	vc 0 check windows.vhdx
	image raw.vhdx '{"size": "8M", "block_size": "2M", "parent": {
		"relative_path": "base.vhdx", "size": "8x", "fingerprint": "v1:0"},
		"locator": "cc0ca12a-9e33-46a4-90da-45680eec92bb"}'
	refused 4 'no number' table raw.vhdx
}

test_chain_dirty_base() {
	image base.vhdx '{"type": "dynamic", "size": "8M", "block_size": "2M",
		"blocks": {"0": 6}, "dirty": {},
		"data_write_guid": "22222222-2222-3333-4444-555555555555"}'
	child clone.vhdx '.\\\\base.vhdx'
	unchanged refused 4 "vhdclone recover [^ ]*base.vhdx" table clone.vhdx
	# To look at it needs no replay on disk.
	unchanged vc 0 check clone.vhdx
	unchanged vc 0 info --chain clone.vhdx
}
