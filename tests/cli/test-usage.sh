# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later

# Verbs that want at least one argument, and all others.
verbs=$(sed -n 's/^int cmd_\([a-z]*\)(.*/\1/p' "$TOP/userspace/vhdclone/vhdclone.h")
needing=$(tr ' ' '\n' <<<"$verbs" | grep -vxE 'status|list|compare')

test_version() {
	local v
	v=$(awk '/define VHDCLONE_VERSION_/ { printf "%s%s", d, $3; d = "." }' \
		"$TOP/include/dm-vhdclone-if.h")
	for opt in -V --version version; do
		vc 0 $opt
		same "$(cat out)" "vhdclone $v"
	done
}

test_help() {
	local verb
	vc 0 help
	for verb in $verbs; do
		has "(^|^.{40})  $verb  "
	done
	cp out help
	for opt in -h --help; do
		vc 0 $opt
		cmp -s out help || fail "$opt is not help"
	done
	for verb in $verbs; do
		vc 0 help "$verb"
		has "^usage: vhdclone $verb "
		cp out help
		vc 0 "$verb" --help
		cmp -s out help || fail "$verb --help is not help $verb"
	done
	refused 1 'no command' help nonsense
}

test_usage_errors() {
	local verb
	vc 1
	refused 1 "no command 'nonsense'" nonsense
	for verb in $verbs; do
		# Has codes of its own.
		[ "$verb" != compare ] || continue
		vc 1 "$verb" --nonsense
		[ -s err ] || fail "no message"
		case $verb in
		children|scan) continue ;;	# Take as many as there are.
		esac
		vc 1 "$verb" a b c d
	done
	for verb in $needing; do
		refused 1 'need' "$verb"
	done
}

test_options_are_in_help_and_man() {
	local verb opt
	for verb in $verbs; do
		vc 0 help "$verb"
		[ -s "$TOP/Documentation/man/vhdclone-$verb.8" ] || fail "no page of $verb"
		grep -oE -- '--[a-z-]+' out | sort -u >opts
		while read -r opt; do
			mandoc -T ascii "$TOP/Documentation/man/vhdclone-$verb.8" |
				col -b | grep -q -- "$opt" ||
				fail "$opt of $verb is not in its page"
		done <opts
	done
}

test_aliases() {
	raw base 1M
	vc 0 create base c.vhdx
	vc 0 help attach
	vc 0 help detach
	vc 0 check --parent base c.vhdx
	vc 0 check --parent-dir / c.vhdx
}

test_output_cannot_be_written() {
	local code=0
	[ -c /dev/full ] || skip "no /dev/full"
	"$VHDCLONE" help >/dev/full 2>err || code=$?
	same "$code" 4
}

test_list_without_clones() {
	[ ! -e /sys/class/misc/device-mapper ] || skip "there is a device-mapper"
	vc 0 list --json
	same "$(json 'j["clones"], j["json-version"]')" '([], 1)'
	vc 0 list
	vc 0 status
	refused 4 'no such clone' status nothing
	refused 4 'no such clone' close nothing
	refused 1 "no column 'X'" list -o NAME,X
}

# A screen has 24 lines of 80 columns.
test_help_fits() {
	local verb
	[ "$(wc -w <<<"$verbs")" -gt 25 ] || fail "which verbs are there?"
	for verb in '' $verbs; do
		# shellcheck disable=SC2086	# or none
		vc 0 help $verb
		[ "$(wc -l <out)" -le 23 ] || fail "help $verb: too long"
		[ "$(wc -L <out)" -le 79 ] || fail "help $verb: too wide"
	done
}

test_man_pages_are_whole() {
	local page section
	for verb in $verbs; do
		page=$TOP/Documentation/man/vhdclone-$verb.8
		for section in SYNOPSIS OPTIONS 'EXIT STATUS' EXAMPLES 'SEE ALSO'; do
			grep -q "^.Sh $section" "$page" || fail "$verb: no $section"
		done
		vc 0 help "$verb"
		! grep -q -- --json out || grep -qE '^.Sh JSON|json-version|qemu-img map' "$page" ||
			fail "$verb: its JSON is not documented"
		grep -q "vhdclone-$verb 8" "$TOP/Documentation/man/vhdclone.8" ||
			fail "$verb is not in vhdclone.8"
	done
}

# completes(word..., what should be offered): the last but one is completed
completes() {
	local want=${*: -1}
	COMP_WORDS=("${@:1:$#-1}")
	COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
	_vhdclone
	same "$(printf '%s\n' "${COMPREPLY[@]}" | sort -u | tr '\n' ' ')" "$want " "${*:1:$#-1}"
}

test_completion() {
	local verb
	mkdir bin dir
	ln -s "$VHDCLONE" bin/vhdclone
	PATH=$PWD/bin:$PATH
	# shellcheck source=userspace/completion/vhdclone
	. "$TOP/userspace/completion/vhdclone"
	for verb in $verbs; do
		COMP_WORDS=(vhdclone "$verb")
		COMP_CWORD=1
		_vhdclone
		[[ " ${COMPREPLY[*]} " == *" $verb "* ]] || fail "$verb is not offered"
		COMP_WORDS=(vhdclone "$verb" -)
		COMP_CWORD=2
		_vhdclone
		vc 0 help "$verb"
		same "$(printf '%s\n' "${COMPREPLY[@]}" | grep ^-- | sort -u)" \
			"$(grep -oE -- '(^|[ ,])--[a-z-]+' out | tr -d ' ,' | sort -u)" "$verb -"
	done
	: >a.vhdx
	: >b.vhdx
	: >c.txt
	completes vhdclone che check
	completes vhdclone help prot protect
	completes vhdclone info '' 'a.vhdx b.vhdx bin dir'
	completes vhdclone info b 'b.vhdx bin'
	completes vhdclone info c c.txt
	completes vhdclone create --type d 'differencing dynamic'
	completes vhdclone convert --type vhd 'vhd-dynamic vhd-fixed'
	completes vhdclone create --base-format v 'vhd vhdx'
	completes vhdclone convert --format '' 'auto raw'
	completes vhdclone info --base-dir '' 'bin dir'
	completes vhdclone list -o NAME,SI NAME,SIZE
	completes vhdclone chain -o P 'PARENT PATH PROBLEM'
	completes vhdclone set --disk-id '' new
}
