# SPDX-License-Identifier: GPL-2.0-or-later
#
# Instructions by function and operation: dm-linear's, dm-vhdclone's, and what the
# second takes more.
#
#	awk -f profile.awk symbols marks profile
#
# symbols: "address name", sorted; marks: "target case operations" for each mark in
# profile, which tests/bench/profile.c wrote.

# Addresses are compared as strings: all have 16 digits.
function find(address,	low, high, mid) {
	low = 1
	high = nr_symbols
	if (address < start[1])
		return "(user)"
	while (low < high) {
		mid = int((low + high + 1) / 2)
		if (start[mid] "" <= address "")
			low = mid
		else
			high = mid - 1
	}
	return name[low]
}

FILENAME == ARGV[1] {
	start[++nr_symbols] = $1
	name[nr_symbols] = $2
	next
}

FILENAME == ARGV[2] {
	target[nr_marks + 0] = $1
	kind[nr_marks + 0] = $2
	ops[nr_marks++ + 0] = $3
	next
}

$1 == "mark" {
	at = $2
	next
}

{
	f = find($1)
	n[kind[at], target[at], f] += $2 / ops[at]
	sum[kind[at], target[at]] += $2 / ops[at]
	seen[kind[at], f] = 1
}

END {
	print "case\tfunction\tlinear\tvhdclone\tmore"
	for (pair in seen) {
		split(pair, part, SUBSEP)
		l = n[part[1], "linear", part[2]]
		v = n[part[1], "vhdclone", part[2]]
		if (v - l >= 0.5 || l - v >= 0.5)
			printf "%s\t%s\t%.1f\t%.1f\t%.1f\n", part[1], part[2], l, v, v - l
	}
	for (pair in sum) {
		split(pair, part, SUBSEP)
		if (part[2] != "linear")
			continue
		l = sum[part[1], "linear"]
		v = sum[part[1], "vhdclone"]
		printf "%s\t%s\t%.1f\t%.1f\t%.1f\n", part[1], "(all)", l, v, v - l
	}
}
