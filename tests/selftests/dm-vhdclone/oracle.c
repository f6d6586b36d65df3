// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The data oracle: knows what every sector of a block device must hold.
 *
 * Four programs in one (files: oracle-io.c has the first two; oracle-model.c and
 * oracle-load.c the others; here is the command line of these):
 *
 *	oracle io DEV COMMAND...	a few I/Os, each exactly as told
 *	oracle cmp DEV FILE		a device against a raw file
 *	oracle run DEV OPTION...	random I/O, each read compared with the model
 *	oracle verify DEV OPTION...	the model of an earlier run against the device
 *
 * The model.  Every write stamps each 512-byte sector with its number, the
 * generation of the write (they only go up) and a seed, and fills the rest of
 * the sector with words made of these three.  So a sector tells by itself
 * which write it comes from, and a sector that is torn, old, of another place or of
 * another run is seen.  Per sector the model keeps what it may hold: a
 * range of generations, zeros, or what the base has there (a raw file).  More than
 * one of these is allowed after a discard (old, base or zeros, but nobody
 * else's data) and after a write that failed.
 *
 * Crashes.  With --journal, what is certain goes to a file, which is synced before
 * anything relies on it: "d" lines (this is durable: the flush that covers it
 * has returned) and "a" lines (zeros or a discard may show from now on).  Plain
 * writes need no line before they start: a stamp with a newer
 * generation than the durable one is legal.  After the crash, verify --crash
 * accepts in each sector the durable content or anything newer, and nothing else.
 *
 * Operations on overlapping sectors are never in flight together: what a
 * device then holds is undefined.  Different sectors of one block are.
 */
#define _GNU_SOURCE
#include <getopt.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "oracle-io.h"
#include "oracle-load.h"

enum { OPT_SEED = 256, OPT_OPS, OPT_SECONDS, OPT_THREADS, OPT_UNIT, OPT_BLOCK, OPT_MAX,
	OPT_BASE, OPT_WINDOW, OPT_IN, OPT_OUT, OPT_JOURNAL, OPT_MIX, OPT_LIVE,
	OPT_LIVE_EVERY, OPT_QUIET, OPT_QUIET_EVERY, OPT_DISJOINT, OPT_ERRORS, OPT_HOT,
	OPT_CRASH, OPT_NO_FINAL, OPT_BREAK };

static const struct option options[] = {
	{ "seed", required_argument, NULL, OPT_SEED },
	{ "ops", required_argument, NULL, OPT_OPS },
	{ "seconds", required_argument, NULL, OPT_SECONDS },
	{ "threads", required_argument, NULL, OPT_THREADS },
	{ "unit", required_argument, NULL, OPT_UNIT },
	{ "block", required_argument, NULL, OPT_BLOCK },
	{ "max", required_argument, NULL, OPT_MAX },
	{ "hot", required_argument, NULL, OPT_HOT },
	{ "base", required_argument, NULL, OPT_BASE },
	{ "window", required_argument, NULL, OPT_WINDOW },
	{ "state", required_argument, NULL, OPT_IN },
	{ "save", required_argument, NULL, OPT_OUT },
	{ "journal", required_argument, NULL, OPT_JOURNAL },
	{ "mix", required_argument, NULL, OPT_MIX },
	{ "live-hook", required_argument, NULL, OPT_LIVE },
	{ "live-every", required_argument, NULL, OPT_LIVE_EVERY },
	{ "quiet-hook", required_argument, NULL, OPT_QUIET },
	{ "quiet-every", required_argument, NULL, OPT_QUIET_EVERY },
	{ "disjoint", no_argument, NULL, OPT_DISJOINT },
	{ "errors-ok", no_argument, NULL, OPT_ERRORS },
	{ "crash", no_argument, NULL, OPT_CRASH },
	{ "no-final", no_argument, NULL, OPT_NO_FINAL },
	{ "break-model", no_argument, NULL, OPT_BREAK },
	{ 0 }
};

static const char run_usage[] =
"usage: oracle run DEV [OPTION]...\n"
"       oracle verify DEV --state FILE [--crash] [--base FILE] [--save FILE]\n"
"  --base FILE       what an unwritten device holds (default: zeros)\n"
"  --seed N          same seed, same operations (with one thread)\n"
"  --ops N | --seconds N         how long (1000 operations)\n"
"  --threads N [--disjoint]      --disjoint: each in its own part of the device\n"
"  --unit BYTES      logical sector size\n"
"  --block BYTES     block size of the top image: where borders are, and what a\n"
"                    discard may change\n"
"  --max BYTES       largest I/O (1M)\n"
"  --hot PERCENT     share that goes to the first eighth (50)\n"
"  --window FIRST:SECTORS        only this part (may be given often)\n"
"  --mix r=40,w=40,s=1,d=3,z=4,p=2,f=2   weights: read, write, FUA write, discard,\n"
"                    BLKZEROOUT, punch, flush\n"
"  --live-hook CMD --live-every N    run CMD with I/O going on\n"
"  --quiet-hook CMD --quiet-every N  stop, close, run CMD, open again\n"
"  --errors-ok       I/O errors are counted, their sectors old or new\n"
"  --state FILE      go on from where an earlier run ended; a journal is taken too\n"
"  --save FILE       the model at the end\n"
"  --journal FILE    what is durable, synced before anything relies on it\n"
"  --crash           (verify) the device went through a crash\n"
"  --break-model     for tests of this program: forget one write\n"
"  --no-final        no verification of everything at the end\n"
"In sizes K, M and G may be used.\n";

static u64 number(const char *text)
{
	char *end;
	u64 n = strtoull(text, &end, 0);

	switch (*end) {
	case 'K':
		n <<= 10;
		end++;
		break;
	case 'M':
		n <<= 20;
		end++;
		break;
	case 'G':
		n <<= 30;
		end++;
		break;
	}
	if (end == text || *end)
		die("not a number: %s", text);
	return n;
}

static void parse_mix(char *text)
{
	memset(o.weight, 0, sizeof(o.weight));
	for (char *p = strtok(text, ","); p; p = strtok(NULL, ",")) {
		const char *k = strchr(kind_letter, p[0]);

		if (!k || p[1] != '=')
			die("bad mix: %s", p);
		o.weight[k - kind_letter] = number(p + 2);
	}
}

static int usage(void)
{
	fputs(io_usage, stderr);
	fputs(run_usage, stderr);
	return 2;
}

/* Shows that a wrong device would be noticed. */
static void break_model(void)
{
	for (size_t i = 0; i < o.history.nr; i++) {
		struct op *op = &o.history.op[i];
		struct sector *m = model_at(op->sector);

		if (op->kind == WRITE && m->can == CAN_STAMP && m->hi == op->gen) {
			m->hi = op->gen - 1;
			m->lo = m->hi;
			return;
		}
	}
}

static int oracle_run(int argc, char **argv, bool verify)
{
	const char *state = NULL, *save = NULL, *journal = NULL;
	bool final = true, broken = false;
	u64 bad = 0;
	int c;

	o.rnd = 1;
	o.seed = o.rnd;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		u64 first, count;

		switch (c) {
		case OPT_SEED:
			o.rnd = number(optarg);
			o.seed = o.rnd;
			break;
		case OPT_OPS:
			o.nr_ops = number(optarg);
			break;
		case OPT_SECONDS:
			o.seconds = number(optarg);
			break;
		case OPT_THREADS:
			o.threads = number(optarg);
			break;
		case OPT_UNIT:
			o.unit = number(optarg) / SECTOR;
			break;
		case OPT_BLOCK:
			o.block = number(optarg) / SECTOR;
			break;
		case OPT_MAX:
			o.max = number(optarg) / SECTOR;
			break;
		case OPT_HOT:
			o.hot = number(optarg);
			break;
		case OPT_BASE:
			o.base.path = optarg;
			o.has_base = true;
			break;
		case OPT_WINDOW:
			if (sscanf(optarg, "%" SCNu64 ":%" SCNu64, &first, &count) != 2)
				die("bad window: %s", optarg);
			add_window(first, count);
			break;
		case OPT_IN:
			state = optarg;
			break;
		case OPT_OUT:
			save = optarg;
			break;
		case OPT_JOURNAL:
			journal = optarg;
			break;
		case OPT_MIX:
			parse_mix(optarg);
			break;
		case OPT_LIVE:
			o.live_hook = optarg;
			break;
		case OPT_LIVE_EVERY:
			o.live_every = number(optarg);
			break;
		case OPT_QUIET:
			o.quiet_hook = optarg;
			break;
		case OPT_QUIET_EVERY:
			o.quiet_every = number(optarg);
			break;
		case OPT_DISJOINT:
			o.disjoint = true;
			break;
		case OPT_ERRORS:
			o.errors_ok = true;
			break;
		case OPT_CRASH:
			o.crash = true;
			break;
		case OPT_NO_FINAL:
			final = false;
			break;
		case OPT_BREAK:
			broken = true;
			break;
		default:
			return usage();
		}
	}
	if (optind + 1 != argc || !o.unit || !o.threads || !o.max ||
	    (verify && !state))
		return usage();
	if (!o.live_every)
		o.live_every = 200;
	if (!o.quiet_every)
		o.quiet_every = 200;
	if (o.max > MAX_IO / SECTOR)
		o.max = MAX_IO / SECTOR;
	o.dev.path = argv[optind];
	device_open(&o.dev, !verify, true);
	if (o.has_base)
		device_open(&o.base, false, false);
	if (state) {
		load_state(state);
		/* What was in flight when the earlier run ended had such numbers. */
		o.gen += verify ? 0 : 1000000;
	} else {
		if (!o.nr_windows)
			add_window(0, o.dev.sectors / o.unit * o.unit);
		make_model();
	}
	if (journal)
		journal_open(journal);
	if (!verify)
		run_threads();
	if (broken)
		break_model();
	if (final || verify)
		bad = verify_all();
	if (bad) {
		printf("%" PRIu64 " bad sectors\n", bad);
		return 1;
	}
	if (save)
		save_state(save);
	return 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc > 2 && !strcmp(argv[1], "io"))
		return oracle_io(argc - 1, argv + 1);
	if (argc > 2 && !strcmp(argv[1], "cmp"))
		return oracle_cmp(argc - 1, argv + 1);
	if (argc > 2 && !strcmp(argv[1], "run"))
		return oracle_run(argc - 1, argv + 1, false);
	if (argc > 2 && !strcmp(argv[1], "verify"))
		return oracle_run(argc - 1, argv + 1, true);
	return usage();
}
