# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# For the tests of the command line.  A test is a function test_NAME; it runs with
# "set -e" in a directory of its own, and says why when it fails.

fail() {
	echo "$*"
	[ ! -s out ] || { echo "stdout:"; head -n 20 out; }
	[ ! -s err ] || { echo "stderr:"; head -n 20 err; }
	exit 1
}

skip() {
	echo "$*"
	exit 4
}

# vc(exit code, argument...): run the tool, its output is in "out" and "err"
vc() {
	local want=$1 code=0
	shift
	"$VHDCLONE" "$@" >out 2>err </dev/null || code=$?
	[ "$code" = "$want" ] || fail "vhdclone $*: exit code $code, not $want"
}

# refused(exit code, pattern, argument...): one line on stderr, none on stdout
refused() {
	local want=$1 pattern=$2
	shift 2
	vc "$want" "$@"
	[ ! -s out ] || fail "vhdclone $*: printed something"
	[ "$(wc -l <err)" = 1 ] || fail "vhdclone $*: not one line on stderr"
	grep -qE -- "$pattern" err || fail "vhdclone $*: the message has no '$pattern'"
}

# json(expression): what the last output has there, as Python sees it in "j"
json() {
	/usr/bin/python3 -c 'import json, sys
j = json.load(open("out"))
print(eval("(%s)" % sys.argv[1]))' "$1" || fail "no JSON, or not with $1"
}

# same(what is, what should be)
same() {
	[ "$1" = "$2" ] || fail "${3-it} is '$1', not '$2'"
}

has() {
	grep -qE -- "$1" "${2-out}" || fail "no '$1' in ${2-the output}"
}

hash_of() {
	sha256sum "$@" | cut -d' ' -f1
}

# unchanged(command...): no file here differs afterwards, none is new
unchanged() {
	find . -type f ! -name out ! -name err -exec sha256sum {} + | sort >../before
	"$@"
	find . -type f ! -name out ! -name err -exec sha256sum {} + | sort >../after
	cmp -s ../before ../after || { diff ../before ../after; fail "$*: changed files"; }
}

image() {
	"$VHDX" build "$2" "$1" >/dev/null || fail "cannot build $1"
}

set_field() {
	"$VHDX" set "$@" || fail "cannot set $*"
}

# log_entry(file, arguments): one for tests/lib/vhdx.py's log_entry(), at the start of the
# log of a dirty image; the arguments may use "size", of the file, and "M"
log_entry() {
	/usr/bin/python3 - "$TOP/tests/lib" "$@" <<-'END' || fail "cannot write a log entry"
		import sys
		sys.path.insert(0, sys.argv[1])
		import vhdx
		M = 1 << 20
		image = vhdx.Image(sys.argv[2], strict=False)
		h = image.header
		size = image.store.size
		bat = image.regions["bat"][0]
		out = vhdx.Store(sys.argv[2], writable=True)
		args = eval("dict(%s)" % sys.argv[3])
		out.write(h["log_offset"], vhdx.log_entry(h["log_guid"], 1 << 62, 0, **args))
		out.close()
	END
}

need_image() {
	[ -e "$IMAGES/$1.xz" ] || skip "no images that Windows made"
	xz -dc "$IMAGES/$1.xz" >"$1"
}

need_root() {
	[ "$(id -u)" = 0 ] || skip "not root"
}

# A raw file with something in it.
raw() {
	truncate -s "$2" "$1"
	"$VHDX" tag raw 0 256 | dd of="$1" conv=notrunc status=none
}

# each_write(restore, check, argument...): the tool, killed before and torn in the middle
# of each call that changes anything; restore and check are for the shell
each_write() {
	local restore=$1 check=$2 mode
	shift 2
	[ -x "${INJECT_EACH:=$TOP/tests/inject/each}" ] || skip "no tests/inject"
	for mode in kill tear; do
		ASAN_OPTIONS=$ASAN_OPTIONS:verify_asan_link_order=0 "$INJECT_EACH" -m $mode \
			-r "$restore" -c "$check" -- "$VHDCLONE" "$@" >each.log 2>&1 ||
			{ cat each.log; fail "$mode"; }
		grep -E '^[1-9][0-9]* runs' each.log || { cat each.log; fail "no runs"; }
	done
}
