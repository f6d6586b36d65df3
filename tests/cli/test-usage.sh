# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later

# Verbs that want at least one argument, and all others.
needing='create open close info table recover check chain children scan map dump
	reset remove protect unprotect set resize compact'
verbs="$needing status list compare"

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
		has "^  $verb "
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
