# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What the scripts of the torture tests share.  They print TAP.

here=$(dirname "$(readlink -f "$0")")
top=$(dirname "$(dirname "$here")")
number=0 failed=0

usage() {
	sed -n '3,/^$/s/^#   //p' "$0" >&2
	exit 2
}

# begin_torture PLAN: $work becomes a place that guests see as /share
begin_torture() {
	echo "1..$1"
	work=$(mktemp -d "${TMPDIR:-/tmp}/vhdclone-torture.XXXXXX") || exit 2
	trap 'rm -rf "$work"' EXIT
	trap 'exit 130' INT TERM HUP
}

# result STATUS DESCRIPTION
result() {
	number=$((number + 1))
	if [ "$1" = 0 ]; then
		echo "ok $number - $2"
	else
		failed=$((failed + 1))
		echo "not ok $number - $2"
	fi
}

bail() {
	echo "Bail out! $*"
	exit 1
}

# build_program NAME SOURCE...
build_program() {
	local name=$1
	shift
	(cd "$here" && "${CC:-gcc}" -O2 -Wall -Wextra -pthread -o "$work/$name" "$@") >&2 ||
		bail "$name does not build"
}

# make_scenes NAME...: see scenes.py
make_scenes() {
	"$here/scenes.py" "$work" "$@" || bail 'no images'
}

# in_guest KERNEL SECONDS DESCRIPTION COMMAND...: in /share; one test
in_guest() {
	local kernel=$1 limit=$2 what=$3 runner began=$SECONDS rc
	shift 3
	case $kernel in
	uml)	runner=("$top/tests/uml/run") ;;
	*)	runner=("$top/tests/vm/run" --kernel "$kernel") ;;
	esac
	# shellcheck disable=SC2086,SC2016	# a list of options; for the guest
	"${runner[@]}" --share "$work" --timeout "$limit" ${GUEST_OPTIONS-} -- \
		sh -c 'cd /share && "$@"' - "$@" >"$work/out" 2>"$work/err"
	rc=$?
	grep '^#' "$work/out"
	if [ $rc != 0 ]; then
		grep -v '^#' "$work/out" | tail -n 40 | sed 's/^/# /'
		tail -n 60 "$work/err" | sed 's/^/# /'
		echo "# status $rc"
	fi
	result $rc "$what ($kernel, $((SECONDS - began)) s)"
}

end_torture() {
	[ $failed = 0 ]
	exit
}
