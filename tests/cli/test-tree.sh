# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later

ID=22222222-2222-3333-4444-555555555555

# diff_of(file, parent as the locator has it, its identity, more)
diff_of() {
	image "$1" "{\"size\": \"8M\", \"block_size\": \"2M\", \"parent\": {
		\"relative_path\": \"$2\", \"parent_linkage\": \"{$3}\"}${4:+, $4}}"
}

# All that can be wrong, and some that is right.
zoo() {
	mkdir -p vms lost
	image golden.vhdx "{\"type\": \"dynamic\", \"size\": \"8M\", \"block_size\": \"2M\",
		\"data_write_guid\": \"$ID\", \"blocks\": {\"0-1\": {\"state\": 6, \"fill\": {\"byte\": 1}}}}"
	vc 0 create golden.vhdx vms/web.vhdx
	raw base.img 4M
	vc 0 create base.img vms/ci.vhdx
	diff_of crashed.vhdx '.\\golden.vhdx' $ID '"dirty": {}, "blocks": {"1":
		{"state": 7, "sectors": [[0, 3], [9, 1]], "fill": {"tag": "x"}}}'
	diff_of lost/alone.vhdx '.\\gone.vhdx' $ID "\"data_write_guid\": \"$ID\""
	diff_of lost/above.vhdx '.\\alone.vhdx' $ID
	diff_of lost/other.vhdx '..\\golden.vhdx' 33333333-2222-3333-4444-555555555555
	diff_of lost/c1.vhdx '.\\c2.vhdx' $ID "\"data_write_guid\": \"$ID\""
	diff_of lost/c2.vhdx '.\\c1.vhdx' $ID "\"data_write_guid\": \"$ID\""
	diff_of lost/on-c.vhdx '.\\c1.vhdx' $ID
	head -c 100000 golden.vhdx >lost/half.vhdx
	: >lost/empty.vhdx
	echo text >lost/notes.txt
	mkfifo lost/fifo.vhdx
}

# One field of one image: field(what, path)
field() {
	json "[i['$1'] for i in j['images'] if i['path'].endswith('/$2')][0]"
}

test_scan_says_what_is_wrong() {
	zoo
	unchanged vc 4 scan --json .
	same "$(json 'len(j["images"])')" 13 'number of images'
	same "$(json 'j["wrong"]')" 8
	same "$(field state golden.vhdx)" clean
	same "$(field own-bytes golden.vhdx)" 4194304
	same "$(field depth golden.vhdx)" 1
	same "$(field state web.vhdx)" clean
	same "$(field parent web.vhdx)" "$(realpath golden.vhdx)"
	same "$(field depth web.vhdx)" 2
	same "$(field type base.img)" raw
	same "$(field parent ci.vhdx)" "$(realpath base.img)"
	same "$(field state crashed.vhdx)" needs-recovery
	same "$(field own-bytes crashed.vhdx)" 2048
	same "$(field state alone.vhdx)" parent-missing
	same "$(field parent-hint alone.vhdx)" ./gone.vhdx
	same "$(field state above.vhdx)" orphan
	same "$(field state other.vhdx)" parent-mismatch
	same "$(field expected-id other.vhdx)" 33333333-2222-3333-4444-555555555555
	same "$(field found-id other.vhdx)" $ID
	same "$(field state c1.vhdx)" cycle
	same "$(field state c2.vhdx)" cycle
	same "$(field state on-c.vhdx)" orphan
	same "$(field state half.vhdx)" damaged
	same "$(field state empty.vhdx)" damaged
	# A line for each that is wrong by itself.
	same "$(wc -l <err)" 6 'number of lines on stderr'
	has 'half.vhdx: ends at 100000, before the header .offset 131072' err
	has "other.vhdx: .*golden.vhdx is not the parent.*DataWriteGuid is $ID, expected 3333" err
}

test_scan_tree_and_columns() {
	zoo
	rm -r lost
	unchanged vc 0 scan .
	[ ! -s err ] || fail 'said something'
	has '^golden.vhdx +dynamic +8 MiB +[0-9]+ MiB +4 MiB +1 clean$'
	has 'crashed.vhdx +differencing .* 2 KiB +2 needs recovery$'
	vc 0 scan -n -o state,path --base-dir . vms/web.vhdx
	same "$(head -c 5 out)" clean
	same "$(wc -l <out)" 2 'number of lines'
	# The bases are elsewhere, and "open" would not go there either.
	vc 4 scan vms
	vc 0 scan --base-dir . vms
	same "$(wc -l <out)" 5 'number of lines'
	refused 1 "no column 'wrong'" scan -o wrong .
	refused 4 'No such file' scan nothing
}

test_scan_takes_each_image_once() {
	zoo
	rm -r lost
	ln golden.vhdx again.vhdx
	ln -s golden.vhdx link.vhdx
	vc 0 scan --json . vms ./vms/..
	same "$(json 'len(j["images"])')" 5 'number of images'
	mkdir dir
	ln -s ../vms dir/vms
	vc 0 scan --json dir
	same "$(json 'j["images"]')" '[]'
	vc 0 scan --json dir/vms --base-dir .
	same "$(json 'len(j["images"])')" 4 'number of images'
}

test_scan_cannot_look_everywhere() {
	[ "$(id -u)" = 0 ] || skip 'not root'
	zoo
	rm -r lost
	chmod 700 vms
	chmod 000 crashed.vhdx
	chmod 755 .
	setpriv --reuid=65534 --clear-groups "$VHDCLONE" scan . >out 2>err && fail 'success'
	has 'vms: cannot look into it: Permission denied' err
	has 'crashed.vhdx: cannot look into it' err
	has '^golden.vhdx'
}

test_scan_passes_over_proc() {
	[ "$(id -u)" = 0 ] || skip 'not root'
	# What somebody may not look into, he would be told.
	setpriv --reuid=65534 --clear-groups "$VHDCLONE" scan /proc >out 2>err || fail 'no success'
	[ ! -s err ] || fail 'it was in there'
}

test_scan_deep_and_wide() {
	local i
	parent 0.vhdx
	for i in $(seq 16); do
		child "$i.vhdx" ".\\\\$((i > 8 ? 0 : i - 1)).vhdx"
		set_field "$i.vhdx" headers.data_write_guid=$ID
	done
	vc 0 scan --json .
	same "$(json 'max(i["depth"] for i in j["images"])')" 9
}

test_scan_picture() {
	command -v dot >/dev/null || skip 'no Graphviz'
	zoo
	mv lost/other.vhdx "lost/<b>&\"\\.vhdx"
	cp vms/web.vhdx vms/$'not\377utf.vhdx'
	vc 4 scan --dot .
	dot -Tsvg out >picture.svg 2>err || fail 'dot cannot draw it'
	[ ! -s err ] || fail 'dot complains'
	# 13 images, one more web, and the one that is missing.
	same "$(grep -c 'class="node"' picture.svg)" 15 'number of nodes'
	same "$(grep -c 'class="edge"' picture.svg)" 10 'number of edges'
	has 'expects 33333333' picture.svg
	has '&lt;b&gt;&amp;' picture.svg
	dot -Tpng out >picture.png
	vc 0 chain --dot vms/ci.vhdx --base-dir .
	dot -Tsvg out >picture.svg
	same "$(grep -c 'class="edge"' picture.svg)" 1 'number of edges'
}

test_chain_of_an_image() {
	zoo
	vc 0 create --base-dir . vms/web.vhdx vms/web1.vhdx
	unchanged vc 0 chain --base-dir . --json vms/web1.vhdx
	same "$(json '[i["path"].rsplit("/", 1)[1] for i in j["chain"]], j["complete"]')" \
		"(['web1.vhdx', 'web.vhdx', 'golden.vhdx'], True)"
	vc 0 chain --base vms/web.vhdx --base golden.vhdx vms/web1.vhdx
	same "$(wc -l <out)" 4 'number of lines'
	# The broken are shown as far as they hold.
	vc 4 chain lost/above.vhdx
	has 'above.vhdx .* orphan'
	has 'alone.vhdx .* parent missing'
	same "$(wc -l <err)" 1 'number of lines on stderr'
	vc 6 chain --base-dir . lost/other.vhdx
	has 'golden.vhdx +dynamic'
	vc 4 chain lost/c2.vhdx
	same "$(wc -l <out)" 3 'number of lines'
	vc 4 chain lost/half.vhdx
	has 'damaged'
	vc 4 chain lost/on-c.vhdx
	vc 0 chain base.img
	refused 4 'No such file' chain nothing
	refused 4 'a directory' chain lost
	refused 4 'a FIFO' chain lost/fifo.vhdx
	vc 6 chain vms/ci.vhdx --base golden.vhdx
}

children_of() {
	vc 0 children --json "$@"
	json '" ".join(c["path"].rsplit("/", 1)[1] for c in j["children"])'
}

# Who may read the list may lock it: nobody waits for him, and what is in it counts.
test_children_list_locked() {
	local locker
	parent golden.vhdx
	mkdir a
	vc 0 create golden.vhdx a/one.vhdx
	( flock -x 9 && exec sleep 60 ) 9<.golden.vhdx.vhdclone &
	locker=$!
	sleep 0.2
	timeout 20 "$VHDCLONE" create golden.vhdx two.vhdx >out 2>err || fail "create: $?"
	same "$(children_of golden.vhdx)" 'one.vhdx two.vhdx'
	kill $locker
	vc 0 check two.vhdx
}

# Whoever owns the directory writes the list: what it names is looked at before it is
# opened.
test_children_list_names_devices() {
	local verb
	command -v strace >/dev/null || skip "no strace"
	parent golden.vhdx
	vc 0 create golden.vhdx d.vhdx
	ln -s /dev/zero zero.vhdx
	printf '%s\n' /dev/zero zero.vhdx >>.golden.vhdx.vhdclone
	for verb in 'children golden.vhdx' 'merge -n d.vhdx' 'scan .'; do
		# shellcheck disable=SC2086
		ASAN_OPTIONS=$ASAN_OPTIONS:detect_leaks=0 strace -qq -o trace -e trace=open,openat \
			"$VHDCLONE" $verb >out 2>err || fail "$verb"
		[ "$verb" = 'scan .' ] || has '/dev/zero.*O_PATH' trace
		! grep -E 'zero' trace | grep -v O_PATH || fail "$verb: it opened /dev/zero"
	done
}

test_children_are_listed_and_found() {
	parent golden.vhdx
	mkdir -p a/b
	vc 0 create golden.vhdx here.vhdx
	vc 0 create golden.vhdx a/listed.vhdx
	vc 0 create --base-dir . a/listed.vhdx a/grand.vhdx
	child a/b/unlisted.vhdx '..\\..\\golden.vhdx'
	child here-unlisted.vhdx '.\\golden.vhdx'
	child elsewhere.vhdx '.\\a\\listed.vhdx'
	same "$(children_of golden.vhdx)" 'listed.vhdx here-unlisted.vhdx here.vhdx'
	same "$(children_of golden.vhdx a)" \
		'unlisted.vhdx listed.vhdx here-unlisted.vhdx here.vhdx'
	same "$(children_of a/listed.vhdx)" grand.vhdx
	same "$(children_of here.vhdx)" ''
	# Gone, moved, or another one now: the list is not believed.
	rm here.vhdx elsewhere.vhdx
	mv a/listed.vhdx a/b/moved.vhdx
	same "$(children_of golden.vhdx)" here-unlisted.vhdx
	same "$(children_of golden.vhdx a)" 'moved.vhdx unlisted.vhdx here-unlisted.vhdx'
	parent here.vhdx
	same "$(children_of golden.vhdx)" here-unlisted.vhdx
	# The base was moved: its children know whom to expect, if asked.
	mkdir new
	mv golden.vhdx new/
	same "$(children_of new/golden.vhdx)" ''
	same "$(children_of new/golden.vhdx .)" 'moved.vhdx unlisted.vhdx here-unlisted.vhdx'
	# A copy of the base has none of those that find the base.
	cp new/golden.vhdx golden.vhdx
	same "$(children_of new/golden.vhdx .)" moved.vhdx
}

test_children_of_what_was_changed() {
	parent golden.vhdx
	vc 0 create golden.vhdx vm.vhdx
	set_field golden.vhdx headers.data_write_guid=33333333-2222-3333-4444-555555555555
	vc 0 children --json golden.vhdx
	same "$(json 'j["children"][0]["state"]')" parent-mismatch
	raw base.img 4M
	vc 0 create base.img ci.vhdx
	printf x | dd of=base.img bs=1 conv=notrunc status=none
	vc 0 children --json base.img
	same "$(json 'j["children"][0]["state"]')" parent-mismatch
	# Broken as it is, it has children.
	truncate -s 100000 golden.vhdx
	vc 0 children golden.vhdx
	has 'vm.vhdx'
}

test_children_list_survives_all() {
	local i
	parent golden.vhdx
	vc 0 create golden.vhdx $'odd \\ name\n.vhdx'
	same "$(wc -l <.golden.vhdx.vhdclone)" 2 'number of lines'
	vc 0 create -f golden.vhdx $'odd \\ name\n.vhdx'
	same "$(wc -l <.golden.vhdx.vhdclone)" 2 'number of lines'
	vc 0 children --json golden.vhdx
	same "$(json 'j["children"][0]["path"].rsplit("/", 1)[1]')" $'odd \\ name\n.vhdx'
	# A line that was cut off, and rubbish.
	printf './cut' >>.golden.vhdx.vhdclone
	vc 0 create golden.vhdx vm.vhdx
	grep -qx ./vm.vhdx .golden.vhdx.vhdclone || fail 'not on the list'
	printf '/etc/passwd\nrubbish\n./\\9\n\0\n' >>.golden.vhdx.vhdclone
	vc 0 create golden.vhdx vm2.vhdx
	same "$(children_of golden.vhdx)" $'odd \\ name\n.vhdx vm.vhdx vm2.vhdx'
	# Somebody else's file of that name stays as it is.
	echo mine >.golden.vhdx.vhdclone
	vc 0 create golden.vhdx vm3.vhdx
	same "$(cat .golden.vhdx.vhdclone)" mine
	rm .golden.vhdx.vhdclone
	ln -s elsewhere .golden.vhdx.vhdclone
	vc 0 create golden.vhdx vm4.vhdx
	[ ! -e elsewhere ] || fail 'followed a link'
	rm .golden.vhdx.vhdclone
	# Many at once.
	for i in $(seq 8); do
		"$VHDCLONE" create golden.vhdx "many$i.vhdx" &
	done
	wait
	same "$(wc -l <.golden.vhdx.vhdclone)" 9 'number of lines'
	# The dead go when there are many.
	{ echo 'vhdclone children 1'; seq -f './gone%g.vhdx' 510; } >.golden.vhdx.vhdclone
	vc 0 create golden.vhdx vm5.vhdx
	same "$(tr '\n' ' ' <.golden.vhdx.vhdclone)" 'vhdclone children 1 ./vm5.vhdx '
}

test_children_list_cannot_be_written() {
	[ "$(id -u)" = 0 ] || skip 'not root'
	mkdir bases
	chmod 755 . ..
	parent bases/golden.vhdx
	chmod 777 .
	setpriv --reuid=65534 --clear-groups "$VHDCLONE" create bases/golden.vhdx vm.vhdx \
		>out 2>err || fail 'cannot create'
	[ ! -s err ] || fail 'said something'
	same "$(children_of bases/golden.vhdx .)" vm.vhdx
}
