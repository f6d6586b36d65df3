/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Long work at the terminal: the signals, and the line that tells. */
#ifndef VHDCLONE_LONG_H
#define VHDCLONE_LONG_H

#include "convert.h"
#include "progress.h"
#include "vhdclone.h"

/**
 * struct progress_args - long work as the user wants it
 * @progress: for the library, after progress_start()
 * @verb: for the line
 * @json: lines of JSON instead
 */
struct progress_args {
	struct vc_progress progress;
	const char *verb;
	bool json;
	bool terminal;
	bool shown;
	u64 last_ns;
};

/*
 * From here on SIGINT, SIGTERM and SIGHUP ask the work to end, and SIGUSR1 for one line
 * on standard error.
 */
void progress_start(struct progress_args *args, const char *verb);

/* Take the line away, or print the last one; signals are as before. */
void progress_end(struct progress_args *args);

/* ---- what the verbs that copy share ----------------------------------------------- */

/* May this be read as it is? @flags: VC_IMAGE_RAW if the user said that it is raw. */
int source_check(const struct vc_chain *chain, unsigned int flags, struct vc_err *err);

/* JSON about a new image. */
int converted_report(const struct vc_chain *chain, const char *path,
		     enum vc_convert_type type, const struct vc_converted *converted);

#endif /* VHDCLONE_LONG_H */
