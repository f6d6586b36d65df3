# SPDX-License-Identifier: GPL-2.0-or-later
# shellcheck shell=bash
#
# What the tests of dm-vhdclone share.  A script looks like this:
#
#	. "$(dirname "$0")/lib.sh"
#	test_something() { ...; }	# runs in a subshell under set -e
#	run_tests "$@"			# all test_ functions, or those named
#
# Scripts need SC2317 disabled: nothing in them calls the tests by name.
#
# A test passes if it ends with 0; fail() and skip() end it early.  Whatever it left
# behind (device-mapper devices, loop devices, files in $TMP) is removed behind it.
# Devices of the tests are named vct<pid>-*, so two scripts can run at a time.
# Images are made and judged by vhdx.py, which shares no code with the target.

KSFT_PASS=0
KSFT_FAIL=1
KSFT_SKIP=4

HERE=$(dirname "$(readlink -f "$0")")
ME=$(basename "$0" .sh)
PREFIX=vct$$
PATH=$PATH:/usr/sbin:/sbin
MIB=2048			# sectors
US=$'\037'
RS=$'\036'

# ---- TAP, in the kernel's vocabulary (ktap_helpers.sh is younger than 6.1) ----

ktap_print_header() {
	echo "TAP version 13"
}

ktap_set_plan() {
	echo "1..$1"
}

ktap_print_msg() {
	local line
	while IFS= read -r line; do
		echo "# $line"
	done <<<"$*"
}

ktap_skip_all() {
	echo "1..0 # SKIP $*"
}

ktap_cnt_pass=0
ktap_cnt_fail=0
ktap_cnt_skip=0
ktap_testno=1

# __ktap_test(result, name, directive)
__ktap_test() {
	echo "$1 $ktap_testno $2${3:+ # $3}"
	ktap_testno=$((ktap_testno + 1))
}

ktap_test_pass() {
	__ktap_test ok "$1"
	ktap_cnt_pass=$((ktap_cnt_pass + 1))
}

ktap_test_fail() {
	__ktap_test "not ok" "$1"
	ktap_cnt_fail=$((ktap_cnt_fail + 1))
}

ktap_test_skip() {
	__ktap_test ok "$1" "SKIP $2"
	ktap_cnt_skip=$((ktap_cnt_skip + 1))
}

ktap_finished() {
	echo "# Totals: pass:$ktap_cnt_pass fail:$ktap_cnt_fail xfail:0 xpass:0 skip:$ktap_cnt_skip error:0"
	[ "$ktap_cnt_fail" = 0 ] || exit $KSFT_FAIL
	[ "$ktap_cnt_pass" != 0 ] || exit $KSFT_SKIP
	exit $KSFT_PASS
}

# ---- inside a test ---------------------------------------------------------------

fail() {
	echo "FAIL: $*"
	exit $KSFT_FAIL
}

skip() {
	echo "$*" >"$TMP/keep-skip"
	exit $KSFT_SKIP
}

# need(tool...): skip the test without it
need() {
	local tool
	for tool; do
		command -v "$tool" >/dev/null || skip "no $tool"
	done
}

# need_target(name): device-mapper target, its module loaded
need_target() {
	modprobe -q "dm-$1" 2>/dev/null || true
	dmsetup targets | grep -q "^$1 " || skip "no dm target $1"
}

# find_ko: prints the module's file, nothing if modprobe knows it, or fails
find_ko() {
	local ko
	for ko in ${VHDCLONE_KO:+"$VHDCLONE_KO"} "$HERE"/../../../build/module*/kernel/dm-vhdclone.ko; do
		[ -f "$ko" ] || continue
		[ "$(modinfo -F vermagic "$ko" | cut -d' ' -f1)" = "$(uname -r)" ] || continue
		echo "$ko"
		return 0
	done
	modinfo dm-vhdclone >/dev/null 2>&1
}

# stat_of(device, field): a counter of /sys/block/*/stat, by its number
# (1 reads, 5 writes, 7 sectors written)
stat_of() {
	local fields
	read -ra fields <"/sys/dev/block/$(devno "$1")/stat"
	echo "${fields[$(($2 - 1))]}"
}

# must_fail(command...): the command fails, and says something
must_fail() {
	local out
	if out=$("$@" 2>&1); then
		fail "should have failed: $*"
	fi
	echo "(as it should) $out"
}

# same_text(got, want, what)
same_text() {
	[ "$1" = "$2" ] || fail "${3:-}: got '$1', want '$2'"
}

# between(value, low, high, what)
between() {
	if [ "$1" -lt "$2" ] || [ "$1" -gt "$3" ]; then
		fail "$4: got $1, want $2 to $3"
	fi
}

# wait_for(seconds, command...): until it succeeds
wait_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@"; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.1
	done
}

# ---- images ------------------------------------------------------------------------

# vx(arguments of vhdx.py...): one Python serves all of a script's calls
vx() {
	local IFS=$US line id=$BASHPID.$RANDOM
	printf '%s\n' "$id$US${*//$'\n'/ }" >&8
	until IFS= read -r -u 9 line && [ "$line" = "$RS$id" ]; do
		[ -d "/proc/$VHDX_PID" ] || { echo "vhdx.py has died"; return 1; }
	done
	while IFS= read -r -u 9 line; do
		case $line in
		"$RS"*)	return "${line#?}" ;;
		*)	printf '%s\n' "$line" ;;
		esac
	done
	return 1
}

# image(name, spec): makes $TMP/name.vhdx, sets WORDS_name to its layer words with @
# for the device
image() {
	local words
	words=$(vx build "$2" "$TMP/$1.vhdx") || fail "cannot build $1: $words"
	printf -v "WORDS_${1//[^a-zA-Z0-9]/_}" %s "$words"
}

# raw(name, MiB, [tag]): a raw file, every sector of it telling its number
raw() {
	truncate -s "$2M" "$TMP/$1.raw"
	if [ $# -gt 2 ]; then
		"$ORACLE" io "$TMP/$1.raw" "w:0:$(($2 * MIB)):$3"
	fi
}

# loop(file, [ro], [direct], [part], [bs=N]): prints the device
loop() {
	vx loop "$@"
}

# devno(device): as device-mapper prints it
devno() {
	local number
	number=$(stat -Lc '0x%t 0x%T' "$1") || return
	# shellcheck disable=SC2086	# two words
	printf '%d:%d\n' $number
}

# layer(name, [device]): words of an image() on a device (default: a new loop)
layer() {
	local words=WORDS_${1//[^a-zA-Z0-9]/_} dev=${2:-}
	[ -n "$dev" ] || dev=$(loop "$TMP/$1.vhdx")
	echo "${!words/@/$dev}"
}

# raw_layer(file or device)
raw_layer() {
	local dev=$1 size
	[ -b "$dev" ] || dev=$(loop "$dev")
	if [ -r "/sys/class/block/${dev##*/}/size" ]; then
		read -r size <"/sys/class/block/${dev##*/}/size"
	else
		size=$(blockdev --getsz "$dev")
	fi
	echo "raw $dev 0 $size"
}

# table(words of layer 0, ..., [-- feature args...]): a whole table line
table() {
	local layers=() features=() length
	while [ $# -gt 0 ] && [ "$1" != -- ]; do
		layers+=("$1")
		shift
	done
	[ $# = 0 ] || shift
	features=("$@")
	read -r _ _ length _ <<<"${layers[0]}"
	echo "0 $length vhdclone ${#layers[@]} ${layers[*]}${features[*]:+ ${#features[@]} ${features[*]}}"
}

# device(name): its path
device() {
	echo "/dev/mapper/$PREFIX-$1"
}

# activate(name, table line, [dmsetup options...])
activate() {
	local name=$PREFIX-$1 line=$2
	shift 2
	dmsetup create "$name" --table "$line" "$@" || fail "cannot activate: $line"
}

# refused(table line, [regular expression]): neither created nor left behind, and the
# log says why
refused() {
	klog_mark
	if dmsetup create "$PREFIX-refused" --table "$1" 2>/dev/null; then
		echo "accepted: $1"
		dmsetup table "$PREFIX-refused"
		dmsetup remove "$PREFIX-refused"
		return 1
	fi
	if [ -e "/dev/mapper/$PREFIX-refused" ]; then
		dmsetup remove -f "$PREFIX-refused"
	fi
	if ! klog_match "device-mapper: .*${2:-.}"; then
		echo "refused, but the log has no '${2:-word}' about it: $1"
		klog
		return 1
	fi
}

deactivate() {
	dmsetup remove --retry "$PREFIX-$1" || fail "cannot remove $1"
}

suspend() {
	dmsetup suspend "$PREFIX-$1" "${@:2}"
}

resume() {
	dmsetup resume "$PREFIX-$1"
}

# reload(name, table line): load and resume
reload() {
	dmsetup load "$PREFIX-$1" --table "$2"
	dmsetup resume "$PREFIX-$1"
}

message() {
	dmsetup message "$PREFIX-$1" 0 "${@:2}"
}

# status(name, field): mode, present, total, partial, free, dirty, log, commits, errors
status() {
	local block blocks partial free dirty log commits errors mode
	read -r _ _ _ block blocks partial free dirty log commits errors mode _ \
		< <(dmsetup status "$PREFIX-$1")
	case $2 in
	mode)		echo "$mode" ;;
	block)		echo "$block" ;;
	present)	echo "${blocks%/*}" ;;
	total)		echo "${blocks#*/}" ;;
	partial)	echo "$partial" ;;
	free)		echo "$free" ;;
	dirty)		echo "$dirty" ;;
	log)		echo "${log%/*}" ;;
	commits)	echo "$commits" ;;
	errors)		echo "$errors" ;;
	esac
}

# mode_is(name, mode): for wait_for
mode_is() {
	[ "$(status "$1" mode)" = "$2" ]
}

# io(name or device, commands of "oracle io"...)
io() {
	local dev=$1
	shift
	[ -e "$dev" ] || dev=/dev/mapper/$PREFIX-$dev
	"$ORACLE" io "$dev" "$@"
}

# io_ro(name, commands...): the device opened read-only
io_ro() {
	"$ORACLE" io -r "$(device "$1")" "${@:2}"
}

# both(name, commands...): to the clone and to $TMP/expected.raw
both() {
	local dev=$1
	shift
	[ -e "$dev" ] || dev=/dev/mapper/$PREFIX-$dev
	"$ORACLE" io -m "$TMP/expected.raw" "$dev" "$@"
}

# expect(top, layer...): $TMP/expected.raw becomes what the chain holds
expect() {
	vx merge "$TMP/expected.raw" "$@"
}

# matches(name): the whole clone reads as expected.raw, past the page cache
matches() {
	"$ORACLE" cmp "/dev/mapper/$PREFIX-$1" "$TMP/expected.raw" || fail "$1 does not hold what it should"
}

# good(image...): clean, and every rule kept
good() {
	vx check --clean --quiet "$@" || fail "image is not good"
}

# holds(top, layer...): images and raw base, read by vhdx.py, hold expected.raw
holds() {
	vx compare "$TMP/expected.raw" "$@" || fail "image does not hold what it should"
}

# states(image, first, last, want): the blocks' states, a digit each; want is a pattern
states() {
	local got
	got=$(vx states "$1" "$2" "$3")
	[[ $got =~ ^($4)$ ]] || fail "states of blocks $2-$3: got $got, want $4"
}

# ---- the kernel's log ------------------------------------------------------------

klog_mark() {
	vx klog-mark
}

klog() {
	vx klog
}

# klog_match(regular expression): is there such a line since the mark?
klog_match() {
	local line re=${1,,} lines
	mapfile -t lines < <(klog)
	for line in "${lines[@],,}"; do
		[[ $line =~ $re ]] && return 0
	done
	return 1
}

klog_has() {
	klog_match "$1" || {
		klog
		fail "no line like '$1' in the kernel's log"
	}
}

# ---- devices below ------------------------------------------------------------------

# ram(index): a brd device, or a skip; all of one script have the same size
ram() {
	[ -b "/dev/ram$1" ] || modprobe -q brd rd_nr=4 rd_size=131072 2>/dev/null || true
	wait_for 5 test -b "/dev/ram$1" || skip "no brd"
	echo "/dev/ram$1"
}

# ---- running the tests ------------------------------------------------------------------

# Removes what a test left.  Devices may be stacked, suspended, or hold bios back.
cleanup() {
	local name names dev file tries=0
	# It runs in a trap of a shell that ends on any error.
	set +e
	while :; do
		names=("/dev/mapper/$PREFIX-"*)
		names=("${names[@]#/dev/mapper/}")
		[ "${names[0]}" != "$PREFIX-*" ] || names=()
		[ ${#names[@]} -gt 0 ] || break
		for name in "${names[@]}"; do
			while read -r dev file _; do
				[ "$dev" != "/dev/mapper/$name" ] || umount -l "$file"
			done </proc/mounts
			[ ! -r /proc/swaps ] || while read -r dev _; do
				[ "$(readlink -f "/dev/mapper/$name")" != "$dev" ] || swapoff "$dev"
			done </proc/swaps
			if [ $tries -lt 5 ]; then
				dmsetup remove "$name" >/dev/null 2>&1
			else
				dmsetup remove -f "$name" >/dev/null 2>&1
				dmsetup resume "$name" >/dev/null 2>&1
			fi
		done
		tries=$((tries + 1))
		[ $tries -lt 20 ] || { echo "left behind: ${names[*]}"; break; }
		[ $tries -lt 2 ] || sleep 0.2
	done
	vx loops-off "$TMP/"
	shopt -s extglob nullglob
	eval 'rm -rf "$TMP"/!(keep-*)'
	return 0
}

run_one() (
	trap cleanup EXIT
	set -e
	"$1"
)

# A few things without which nothing here can run at all.
prepare() {
	[ "$(id -u)" = 0 ] || { ktap_skip_all "needs root"; exit $KSFT_SKIP; }
	local tool
	for tool in dmsetup blockdev python3; do
		command -v $tool >/dev/null || { ktap_skip_all "no $tool"; exit $KSFT_SKIP; }
	done
	TMP=$(mktemp -d "${TMPDIR:-/tmp}/$PREFIX.XXXXXX") || exit $KSFT_FAIL
	trap finish EXIT
	modprobe -q loop 2>/dev/null || true
	modprobe -q dm-mod 2>/dev/null || true
	modprobe -q dm-vhdclone 2>/dev/null || true
	# WITHOUT_TARGET: the script tests the tests, and does not need ours.
	if [ -z "${WITHOUT_TARGET:-}" ] && ! dmsetup targets 2>/dev/null | grep -q '^vhdclone '; then
		ktap_skip_all "no dm target vhdclone"
		exit $KSFT_SKIP
	fi
	ORACLE=${ORACLE:-$HERE/oracle}
	if ! [ -x "$ORACLE" ]; then
		# Installed without it, or the harness was not asked to build.
		ORACLE=$TMP/keep-oracle
		if ! ${CC:-cc} -O2 -pthread -o "$ORACLE" "$HERE"/oracle*.c 2>"$TMP/cc.log"; then
			ktap_skip_all "oracle is not built, and no compiler here"
			exit $KSFT_SKIP
		fi
	fi
	mkfifo "$TMP/keep-in" "$TMP/keep-out"
	python3 -SE "$HERE/server.py" <"$TMP/keep-in" >"$TMP/keep-out" 2>&1 &
	VHDX_PID=$!
	exec 8>"$TMP/keep-in" 9<"$TMP/keep-out"
}

finish() {
	exec 8>&- 9>&-
	[ -z "${VHDX_PID:-}" ] || wait "$VHDX_PID" 2>/dev/null
	rm -rf "$TMP"
}

# run_tests(name...)
run_tests() {
	local tests=("$@") t name rc log start
	if [ ${#tests[@]} = 0 ]; then
		# In the order in which the script defines them.
		mapfile -t tests < <(sed -n 's/^\(test_[a-z0-9_]*\)() *[{(].*/\1/p' "$0")
	fi
	ktap_print_header
	prepare
	ktap_set_plan ${#tests[@]}
	log=$TMP/keep-log
	for t in "${tests[@]}"; do
		name=$ME: start=$SECONDS
		name="$name ${t#test_}"
		: >"$TMP/keep-skip"
		run_one "$t" >"$log" 2>&1
		rc=$?
		[ $((SECONDS - start)) -lt 10 ] || ktap_print_msg "${t#test_}: $((SECONDS - start)) s"
		case $rc in
		0)	ktap_test_pass "$name" ;;
		"$KSFT_SKIP")
			ktap_test_skip "$name" "$(cat "$TMP/keep-skip")" ;;
		*)	ktap_print_msg "$(tail -n 40 "$log")"
			ktap_test_fail "$name" ;;
		esac
	done
	ktap_finished
}
