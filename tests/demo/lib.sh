# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# How the demo talks.

step() {
	printf '\n== %s\n\n' "$*"
}

say() {
	printf '   %s\n' "$*"
}

show() {
	sed -u 's/^/     /'
}

# run COMMAND...: show it, run it, show what it says; its exit status.
run() {
	printf '   # %s\n' "$*"
	"$@" 2>&1 | show
	return "${PIPESTATUS[0]}"
}
