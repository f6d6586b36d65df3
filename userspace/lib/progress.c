// SPDX-License-Identifier: GPL-2.0-or-later
/* Long work: see progress.h. */
#include <time.h>

#include "progress.h"

#define VC_NS		1000000000ULL
#define VC_NAP_NS	50000000ULL

u64 vc_progress_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * VC_NS + now.tv_nsec + 1;
}

static bool vc_progress_stopped(const struct vc_progress *progress)
{
	return progress->stop && *progress->stop;
}

/* When so much may have been done, at the earliest. */
static u64 vc_progress_due(const struct vc_progress *progress)
{
	return progress->started_ns + progress->done / progress->rate * VC_NS +
	       progress->done % progress->rate * VC_NS / progress->rate;
}

int vc_progress_step(struct vc_progress *progress, u64 bytes)
{
	struct timespec nap = { };
	u64 now;
	u64 due;

	if (!progress)
		return 0;
	if (!progress->started_ns)
		progress->started_ns = vc_progress_now();
	progress->done += bytes;
	if (progress->report)
		progress->report(progress);
	while (progress->rate && !vc_progress_stopped(progress)) {
		now = vc_progress_now();
		due = vc_progress_due(progress);
		if (now >= due)
			break;
		nap.tv_nsec = due - now < VC_NAP_NS ? due - now : VC_NAP_NS;
		nanosleep(&nap, NULL);
		if (progress->report)
			progress->report(progress);
	}
	return vc_progress_stopped(progress) ? -EINTR : 0;
}
