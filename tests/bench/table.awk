# SPDX-License-Identifier: GPL-2.0-or-later
#
# Rows of tests/bench/guest to out/bench.tsv, bench-latency.tsv and bench-scale.tsv.

# What a row is compared with on the bare device and dm-linear.
function reference(name) {
	if (name ~ /^(base|chain)\./)
		return "base.raw"
	if (name == "cold")
		return "first.sectors"
	return name
}

# What comes now and then is in the mean; what does not, such as the timer's tick, is
# in no batch of the least.
function is_mean(name) {
	return name ~ /^(first|fsync|cold|activate|nvme|storm)/ || name ~ /\.first$/
}

function median(list, n,	i, j, tmp) {
	for (i = 1; i <= n; i++)
		for (j = i + 1; j <= n; j++)
			if (list[j] < list[i]) {
				tmp = list[i]
				list[i] = list[j]
				list[j] = tmp
			}
	return list[int((n + 1) / 2)]
}

{
	pass = $1
	key = $2 "\t" $3 "\t" $4
	if (pass == "scale") {
		nr_scale[$2, $3]++
		scale[$2, $3, nr_scale[$2, $3]] = $5
		next
	}
	# On the way to its own cases it does others, on a slower device.
	if (pass == "nvme" && $3 !~ /^nvme/)
		next
	if (!(key in seen)) {
		seen[key] = 1
		keys[++nr] = key
		target[key] = $2
		case_of[key] = $3
		engine[key] = $4
	}
	if (pass != "count" || $3 ~ /^cmd/)
		figure[key] = is_mean($3) || $6 == 0 ? $5 : $6
	if (pass != "time")
		io[key] = $7 "\t" $8 "\t" $9 "\t" $10
	if ($11)
		latency[key] = sprintf("%.0f\t%s\t%s", 1e9 / $5, $11, $12)
}

END {
	file = out "/bench.tsv"
	print "target\tcase\tengine\tinsns_per_io\tcost\tdev_reads\tdev_writes\t" \
	      "dev_flushes\tdev_bytes" >file
	for (i = 1; i <= nr; i++) {
		key = keys[i]
		bare = "bare\t" reference(case_of[key]) "\t" engine[key]
		linear = "linear\t" reference(case_of[key]) "\t" engine[key]
		cost = "-"
		if (case_of[key] ~ /^storm/) {
			one = key
			sub(/\.[0-9]+\t/, ".1\t", one)
			if (one in figure)
				cost = sprintf("%.2f", figure[key] / figure[one])
		} else if (target[key] != "bare" && bare in figure && linear in figure) {
			unit = figure[linear] - figure[bare]
			if (unit)
				cost = sprintf("%.2f", (figure[key] - figure[bare]) / unit)
		}
		insns = (key in figure) ? sprintf("%.0f", figure[key]) : "-"
		ios = (key in io) ? io[key] : "-\t-\t-\t-"
		printf "%s\t%s\t%s\t%s\n", key, insns, cost, ios >file
	}
	file = out "/bench-latency.tsv"

	for (i = 1; i <= nr; i++) {
		key = keys[i]
		if (!(key in latency))
			continue
		if (!nr_latency++)
			print "target\tcase\tengine\tiops\tp50_ns\tp99_ns" >file
		print key "\t" latency[key] >file
	}
	file = out "/bench-scale.tsv"

	for (pair in nr_scale) {
		split(pair, part, SUBSEP)
		if (part[2] !~ /\.1$/)
			continue
		two = part[2]
		sub(/1$/, "2", two)
		n = nr_scale[pair]
		for (i = 1; i <= n; i++) {
			speedup[i] = scale[part[1], part[2], i] / scale[part[1], two, i]
			# In the same turn, next to each other.
			ratio[i] = speedup[i] * scale["linear", two, i] / \
				   scale["linear", part[2], i]
		}
		if (!nr_pairs++)
			print "target\tcase\tspeedup_of_2_cpus\tof_linear" >file
		sub(/\.1$/, "", part[2])
		printf "%s\t%s\t%.2f\t%.2f\n", part[1], part[2], median(speedup, n), \
			median(ratio, n) >file
	}
}
