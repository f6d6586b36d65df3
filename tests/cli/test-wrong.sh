# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# Every verb at every wrong thing: one line, the right exit code, all as it was.

# A verb a line, @ is the thing: the exit code, for things that are there; for what is
# not there or cannot be opened; the words.
wrong_verbs='
4 4 info @
4 4 table @
4 4 open @
4 4 recover @
4 4 dump @
4 4 chain @
4 4 children @
4 4 map @
4 4 resize @ +1M
4 4 compact @
4 4 reset @
4 4 remove @
4 4 protect @
4 4 unprotect @
4 4 set --disk-id new @
4 4 status @
4 4 close @
4 4 scan @
4 4 copy @ new.vhdx
4 4 convert --type raw @ new.raw
4 4 merge @
4 4 flatten @
4 4 reparent @ good.vhdx
4 4 create @ new.vhdx
4 4 create --count 2 @ new%d
2 1 check -q @
2 1 check -q --repair @
2 2 compare @ good.vhdx
2 2 compare good.vhdx @
'

# To some a file of any content is a raw image, and good: NAME of the thing, verb.
wrong_but_right() {
	case $1:$2 in
	# The headers are there, and the log is empty.
	truncated:recover) return 0 ;;
	# A broken chain is shown as far as it goes.
	truncated:chain|truncated:children|truncated:scan|short:scan|short:copy) return 0 ;;
	# A directory is what scan is for, and of other files it says nothing.
	directory:scan|empty:scan|fifo:scan|dangling:scan) return 0 ;;
	*:unprotect|empty:protect|empty:chain|empty:children|empty:map|empty:compare|empty:copy) return 0 ;;
	esac
	return 1
}

# A verb says it with a code of its own.
wrong_code() {
	case $1:$2 in
	# Not a VHDX at all.
	empty:check\ -q\ @) echo 63 ;;
	# Nothing said about what is no image.
	*)	echo "$3" ;;
	esac
}

# wrong(thing, exit code field 1 or 2, [wrapper...])
wrong() {
	local thing=$1 field=$2 there missing words want code line
	shift 2
	while read -r there missing words; do
		[ -n "$words" ] || continue
		! wrong_but_right "$thing" "${words%% *}" || continue
		want=$there
		[ "$field" = 1 ] || want=$missing
		want=$(wrong_code "$thing" "$words" "$want")
		line=${words//@/$thing}
		code=0
		find . -type f ! -name out ! -name err -exec sha256sum {} + | sort >../before
		# shellcheck disable=SC2086
		"$@" "${TOOL:-$VHDCLONE}" $line >out 2>err </dev/null || code=$?
		find . -type f ! -name out ! -name err -exec sha256sum {} + | sort >../after
		cmp -s ../before ../after || { diff ../before ../after; fail "$line: changes"; }
		[ "$code" = "$want" ] || fail "$line: exit code $code, not $want"
		[ ! -s out ] || fail "$line: printed something"
		case $words in
		# Says it on stdout, and nothing with -q.
		check*)	[ "$(wc -l <err)" -le 1 ] || fail "$line: more than a line" ;;
		*)	[ "$(wc -l <err)" = 1 ] || fail "$line: not one line" ;;
		esac
	done <<<"$wrong_verbs"
}

wrong_good() {
	image good.vhdx '{"type": "dynamic", "size": "8M", "block_size": "2M",
		"blocks": {"0": {"state": 6, "fill": {"tag": "g"}}}}'
}

test_wrong_directory() {
	wrong_good
	mkdir directory
	wrong directory 1
}

test_wrong_empty_file() {
	wrong_good
	: >empty
	wrong empty 1
}

test_wrong_truncated() {
	wrong_good
	head -c 200000 good.vhdx >truncated
	wrong truncated 1
	rm truncated
	head -c 3200000 good.vhdx >short
	# A BAT that is cut can be read, what it says is no good.
	wrong_verbs=$(grep -vE ' (info|dump|chain|children|protect|create|reset|recover|remove) ' \
		<<<"$wrong_verbs")
	wrong short 1
}

test_wrong_nothing() {
	wrong_good
	wrong nothing 2
	ln -s nowhere dangling
	wrong dangling 2
}

test_wrong_fifo() {
	wrong_good
	mkfifo fifo
	wrong fifo 1 timeout 10
}

# As somebody who may not read it, and as one who may not write.
test_wrong_permission() {
	need_root
	command -v setpriv >/dev/null || skip "no setpriv"
	wrong_good
	cp good.vhdx secret
	chmod 600 secret
	chmod 755 "$WORK" "$WORK"/* .. . 2>/dev/null || true
	chmod 666 good.vhdx
	: >out
	: >err
	chmod 666 out err
	cp "$VHDCLONE" "$WORK/tool.$$"
	wrong_verbs=$(grep -vE ' (status|close|scan) ' <<<"${wrong_verbs//4 4 /4 2 }")
	TOOL=$WORK/tool.$$
	# Of what cannot be read nothing is said; remove sees that it is there.
	wrong secret 2 setpriv --reuid 65534 --clear-groups
	chmod 644 secret
	wrong_verbs='
2 2 resize @ +1M
2 2 compact @
2 2 set --disk-id new @
2 2 protect @
2 2 unprotect @
2 2 create @ new.vhdx
2 2 copy @ new.vhdx
2 2 convert --type raw @ new.raw
1 1 check -q --repair @
'
	wrong_but_right() { return 1; }
	wrong secret 1 setpriv --reuid 65534 --clear-groups
	rm "$WORK/tool.$$"
}

# A file system that is read-only.
test_wrong_read_only() {
	need_root
	mkdir mnt
	unshare -m mount -t tmpfs none mnt 2>/dev/null || skip "cannot mount"
	wrong_good
	image delta.vhdx '{"size": "8M", "block_size": "2M", "parent": "good.vhdx",
		"blocks": {"0": 6, "2": 6}}'
	image dirty.vhdx '{"type": "dynamic", "size": "8M", "blocks": {"0": 6}, "dirty": {}}'
	cat >script <<-'END'
		mount -t tmpfs none mnt && cp *.vhdx mnt && mount -o remount,ro mnt || exit 99
		sha256sum mnt/* >../before
		ls -l mnt >>../before
		while read -r want words; do
			[ -n "$words" ] || continue
			code=0
			"$VHDCLONE" $words >out 2>err || code=$?
			[ $code = $want ] || { echo "$words: $code"; cat err; exit 1; }
			[ "$(wc -l <err)" = 1 ] || { echo "$words:"; cat err; exit 1; }
		done
		sha256sum mnt/* >../after
		ls -l mnt >>../after
		cmp ../before ../after
	END
	unshare -m sh ./script >said <<-'END' || { cat said; fail "read-only"; }
		2 create mnt/good.vhdx mnt/new.vhdx
		2 create --count 2 mnt/good.vhdx mnt/new%d.vhdx
		2 create --force mnt/good.vhdx mnt/delta.vhdx
		2 create --type dynamic --size 8M mnt/new.vhdx
		2 recover mnt/dirty.vhdx
		2 resize mnt/delta.vhdx 10M
		2 compact mnt/delta.vhdx
		2 reset mnt/delta.vhdx
		2 remove mnt/delta.vhdx
		2 set --disk-id new mnt/delta.vhdx
		2 copy good.vhdx mnt/new.vhdx
		2 convert --type raw good.vhdx mnt/new.raw
		2 merge mnt/delta.vhdx
		2 merge --to mnt/new.vhdx mnt/delta.vhdx
		2 flatten mnt/delta.vhdx
		2 reparent --unsafe mnt/delta.vhdx mnt/good.vhdx
		2 protect mnt/good.vhdx
		2 unprotect mnt/good.vhdx
		1 check -q --repair mnt/delta.vhdx
		1 check --undo mnt/good.vhdx mnt/delta.vhdx
	END
}

# full(what stays true, verb...): from each call on, the disk is full
full() {
	local right=$1
	shift
	[ -x "$TOP/tests/inject/each" ] || skip "no tests/inject"
	ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0 "$TOP/tests/inject/each" -m enospc+ \
		-r 'rm -f *.undo new*; cp before delta.vhdx' -s said -c "
			[ \$INJECT_FIRED = 0 ] || [ \$(wc -l <said) -le 1 ] || exit 1
			[ \$INJECT_STATUS = 0 ] || [ \$INJECT_STATUS = 7 ] || $right || exit 1
			\"\$VHDCLONE\" check -q delta.vhdx || [ \$? = 3 ] || exit 1
			\"\$VHDCLONE\" recover delta.vhdx >/dev/null &&
			\"\$VHDX\" compare raw delta.vhdx good.vhdx" \
		-- "$VHDCLONE" "$@" >each.log 2>&1 || { cat each.log said; fail "$*"; }
}

test_wrong_full_disk() {
	wrong_good
	image delta.vhdx '{"size": "8M", "block_size": "2M", "parent": "good.vhdx", "gap": 1,
		"blocks": {"1": {"state": 6, "fill": {"tag": "d"}},
		"2": {"state": 6, "fill": {"byte": 0}}}}'
	cp delta.vhdx before
	"$VHDX" merge raw delta.vhdx good.vhdx
	full false compact delta.vhdx
	full false set --disk-id new delta.vhdx
	full false create --count 2 good.vhdx new%d
	full false copy delta.vhdx new.vhdx
	full false convert --type raw delta.vhdx new.raw
	full false flatten --to new.vhdx delta.vhdx
	full false reparent --unsafe delta.vhdx good.vhdx
	set_field before 'block[3]=0x6400002'
	# check has its own codes.
	# shellcheck disable=SC2016
	full '[ $INJECT_STATUS = 1 ]' check -q --repair delta.vhdx
}
