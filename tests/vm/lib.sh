# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# What the guests under QEMU and under User Mode Linux have in common.
# The caller has set these: the checkout, its own name, where this run's files
# are, and what the options said.
: "${top:=}" "${self:=}" "${run:=}"
: "${share:=}" "${udev:=}" "${module:=}" "${kmemleak:=}" "${timeout:=}"

cache_dir() {
	echo "${VHDCLONE_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/dm-vhdclone}"
}

# One lock at a time is all that is ever needed.
lock() {
	exec {lock_fd}>"$1.lock"
	flock "$lock_fd"
}

unlock() {
	exec {lock_fd}>&-
}

say() {
	echo "$self: $*" >&2
}

die() {
	say "$*"
	exit 2
}

# Make what the options said fit for use.
check_options() {
	# Nothing that kbuild has to do with may have them, either.
	case $top$(cache_dir) in
	*[[:space:]]*)	die 'the checkout and the cache must not lie in a path with blanks' ;;
	esac
	[[ $timeout =~ ^[0-9]+$ ]] || die "bad timeout: $timeout"
	if [ -n "$share" ]; then
		[ -d "$share" ] || die "$share: not a directory"
		share=$(readlink -f "$share")
	fi
}

# begin_run NAME: a place for this run's files, and nothing left behind.
begin_run() {
	run=$(mktemp -d "${TMPDIR:-/tmp}/$1.XXXXXX") || exit 2
	# The path goes through the kernel's command line.
	case $run in
	*[[:space:]]*)	rmdir "$run"; die 'TMPDIR must not have blanks' ;;
	esac
	pump=
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM
	trap 'exit 129' HUP
}

# shellcheck disable=SC2317	# called by trap
cleanup() {
	[ -z "$pump" ] || { kill "$pump" && wait "$pump"; } 2>/dev/null
	rm -rf "$run"
}

# The tool of this checkout: from the top's makefile, if that knows it.
build_tool() {
	[ -n "$module" ] || return 0
	[ -f "$top/Makefile" ] || return 0
	mkdir -p "$top/build"
	lock "$top/build/tool"
	if make -C "$top" -n build/vhdclone >/dev/null 2>&1 &&
	   ! make -C "$top" -s build/vhdclone >"$run/log" 2>&1 </dev/null; then
		cat "$run/log" >&2
		die 'the tool does not build'
	fi
	unlock
}

# udevd for --udev: the host's own, or Debian's, unpacked and not installed,
# for installing would start it on the host.
get_udev() {
	local cache dir

	[ -n "$udev" ] || return 0
	[ ! -e /lib/systemd/systemd-udevd ] || return 0
	cache=$(cache_dir)
	dir=$cache/udev-12
	lock "$dir"
	if [ ! -d "$dir" ]; then
		mkdir "$run/udev"
		if ! (cd "$run/udev" && { apt-get download udev ||
				{ apt-get update && apt-get download udev; } } &&
		      dpkg -x ./udev_*.deb out) >"$run/log" 2>&1; then
			cat "$run/log" >&2
			die 'cannot download udev'
		fi
		rm -rf "$run/udev/out/lib/udev/hwdb.d" "$run/udev/out/usr/share"
		# By way of a copy: the cache may be on another file system.
		cp -a "$run/udev/out" "$dir.$$" && mv "$dir.$$" "$dir"
		rm -rf "$run/udev"
	fi
	unlock
	udev=$dir
}

# build_module KERNELDIR ARCH: build the module of this checkout against
# a kernel.  In a copy per kernel, so that runs with different kernels, and
# developers' own builds, do not get into each other's way.
build_module() {
	local kernel=$1 arch=$2
	local rel build sum file

	[ -n "$module" ] || return 0
	rel=$(cat "$kernel/release")
	build=$top/build/module-$rel
	[ -f "$top/kernel/Kbuild" ] ||
		die "there is no kernel/Kbuild to build (--no-module runs without)"
	mkdir -p "$build"
	lock "$build"
	# A no-op make costs seconds: ask first whether anything changed.
	sum=$( (cd "$top" && find kernel include -type f \
			\( -name '*.[chS]' -o -name Kbuild -o -name Makefile \) \
			-print0 | sort -z | xargs -0 sha256sum
		readlink -f "$kernel/build"
		echo "${VHDCLONE_KBUILD-}") | sha256sum)
	if [ ! -f "$build/kernel/dm-vhdclone.ko" ] ||
	   [ "$(cat "$build/sum" 2>/dev/null)" != "$sum" ]; then
		rm -f "$build/sum"
		# Keep what is equal, for make's sake; drop what is gone.
		(cd "$top" && find kernel include -type f \
			\( -name '*.[chS]' -o -name Kbuild -o -name Makefile \) \
			-print) | sort >"$build/files"
		while read -r file; do
			if ! cmp -s "$top/$file" "$build/$file"; then
				mkdir -p "$(dirname "$build/$file")"
				cp "$top/$file" "$build/$file"
			fi
		done <"$build/files"
		(cd "$build" && find kernel include -type f \
			\( -name '*.[ch]' ! -name '*.mod.c' -o -name Kbuild \) \
			-print) | sort | comm -13 "$build/files" - |
		while read -r file; do
			rm -f "${build:?}/$file"
		done
		# shellcheck disable=SC2086	# a list of make's arguments
		if ! make -C "$kernel/build" ARCH="$arch" M="$build/kernel" \
				KBUILD_MODPOST_WARN=1 ${VHDCLONE_KBUILD-} \
				modules >"$build/log" 2>&1 </dev/null; then
			cat "$build/log" >&2
			die "the module does not build for $rel"
		fi
		[ -f "$build/kernel/dm-vhdclone.ko" ] ||
			die "kernel/Kbuild did not make dm-vhdclone.ko"
		echo "$sum" >"$build/sum"
	fi
	cp "$build"/kernel/dm-vhdclone*.ko "$run/"
	unlock
	module_depends=$(modinfo -F depends "$run/dm-vhdclone.ko" | tr , ' ')
}

# What it takes to be believed to be in trouble.  FAULT_INJECTION's and
# warn_alloc()'s backtraces are no trouble: they are asked for.
trouble='BUG: |BUG [a-z0-9_-]+ \(|kernel BUG at|WARNING: |Oops|Kernel panic'
trouble+='|general protection fault|unable to handle|KASAN:|KCSAN:|UBSAN:'
trouble+='|INFO: task .* blocked|INFO: rcu|rcu: INFO|detected stall'
trouble+='|INFO: (possible|inconsistent|suspicious|trying to register|lockdep)'
trouble+='|self-detected stall|soft lockup|hard LOCKUP|divide error:'
trouble+='|list_(add|del) corruption|refcount_t:|ODEBUG:|DEBUG_LOCKS_WARN'
trouble+='|kmemleak: [0-9]+ new suspected|invalid opcode:'
trouble+='|stack segment:|Bad page (state|map)|workqueue lockup|INFO: NMI'
# Died because it was told to.
no_trouble='sysrq triggered crash|tests/vm: end of run'
told='sysrq triggered crash|reboot: Restarting|reboot: Power down|reboot: System'
told+='|sysrq: Resetting|sysrq: Power Off'

# verdict RC CONSOLE STATUSFILE: print what must be printed, return the code
# that the run ends with.
#   RC is what "pump host" returned.
verdict() {
	local rc=$1 console=$2 statusfile=$3
	local i status='' taint=0 bad keep why=''

	if [ "$rc" = 0 ]; then
		read -r status taint <"$statusfile"
		# The log takes another way than the status, and may be late.
		for ((i = 0; i < 40; i++)); do
			grep -qF 'tests/vm: end of run' "$console" && break
			sleep 0.05
		done
	fi
	bad=$(grep -anE "$trouble" "$console" | grep -vE "$no_trouble" |
		head -n 1)
	if [ -n "$bad" ]; then
		why="the guest's kernel is in trouble"
		# The report, from a few lines before its first line.
		sed -n "$((${bad%%:*} > 3 ? ${bad%%:*} - 3 : 1)),\$p" "$console" |
			tr -d '\r' | head -n "${VM_REPORT_LINES:-120}" >&2
		rc=99
	# Died or machine check, bad page, warned, soft lockup: in case the
	# log was silenced.
	elif ((taint & (1 << 7 | 1 << 4 | 1 << 5 | 1 << 9 | 1 << 14))); then
		why="the guest's kernel is tainted ($taint)"
		rc=99
	else
		case $rc in
		0)	rc=$status ;;
		1)	# A power cut that was asked for is no news.
			if grep -qa '^\(guest\|init\): ' "$console" ||
			   { [ -z "${VM_PIDFILE-}" ] &&
			     ! grep -qaE "$told" "$console"; }; then
				why='the guest died'
			fi
			rc=98 ;;
		2)	why="no end after $timeout seconds"
			rc=124 ;;
		3)	why='the guest did not come up'
			rc=98 ;;
		*)	return "$rc" ;;
		esac
		if [ -n "$why" ]; then
			[ "$console" = "$statusfile.log" ] ||
				cat "$statusfile.log" >&2
			tail -n 25 "$console" | tr -d '\r' >&2
		fi
	fi
	if [ -n "$why" ]; then
		keep=${VM_LOGDIR:-$top/build/vm-logs}
		if mkdir -p "$keep" 2>/dev/null; then
			keep=$keep/$(date +%Y%m%d-%H%M%S)-$$.log
			cp "$console" "$keep" && say "$why; its log is $keep"
		else
			say "$why"
		fi
	fi
	[ -z "${VM_CONSOLE-}" ] || cp "$console" "$VM_CONSOLE"
	return "$rc"
}

# run_guest CONSOLE BOOTTIMEOUT CMD...: the last thing a run does.
run_guest() {
	local console=$1 boot=$2 rc
	shift 2
	: >"$console"
	# Whatever happens to us, the guest is not to outlive it.
	setpriv --pdeathsig KILL perl "$run/pump" host "$run/status" \
		"${VM_PIDFILE-}" "$timeout" "$boot" \
		setpriv --pdeathsig KILL "$@" &
	pump=$!
	wait "$pump"
	rc=$?
	pump=
	verdict "$rc" "$console" "$run/status"
	exit
}

# prepare_run KERNELDIR FLAVOUR: fill $run with what tests/vm/guest needs.
# Reads share, udev, module, kmemleak; the command is in "$@" after two.
prepare_run() {
	local kernel=$1 flavour=$2 name
	shift 2
	printf '%s\0' "$@" >"$run/args"
	for name in $(compgen -e); do
		case $name in
		VHDCLONE_*|KSFT_*|KSELFTEST_*|TEST_*|VM_*)
			printf '%s=%s\0' "$name" "${!name}" ;;
		esac
	done >"$run/env"
	{
		printf '%s=%q\n' kernel "$kernel" flavour "$flavour" \
			release "$(cat "$kernel/release")" top "$top" \
			dir "$PWD" share "$share" udev "$udev" \
			module "$module" kmemleak "$kmemleak" \
			module_depends "${module_depends-}" \
			disks "${disks[*]-}"
	} >"$run/conf"
	cp "$top/tests/vm/guest" "$top/tests/vm/pump" "$run/"
}
