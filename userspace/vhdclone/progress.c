// SPDX-License-Identifier: GPL-2.0-or-later
/* Long work at the terminal: see progress.h. */
#define _GNU_SOURCE
#include <signal.h>
#include <unistd.h>

#include "long.h"

#define NS		1000000000ULL
#define TERMINAL_NS	(NS / 5)
#define JSON_NS		NS

static atomic_int stop_asked;
static atomic_int line_asked;

static void on_stop(int sig __always_unused)
{
	stop_asked = 1;
}

static void on_usr1(int sig __always_unused)
{
	line_asked = 1;
}

/* Bytes a second, and the seconds that are left; 0: not known yet. */
static void progress_speed(const struct vc_progress *progress, u64 *speed, u64 *left)
{
	u64 ms = (vc_progress_now() - progress->started_ns) / 1000000;

	*speed = ms ? progress->done / ms * 1000 : 0;
	*left = 0;
	if (*speed && progress->total > progress->done)
		*left = (progress->total - progress->done) / *speed + 1;
}

static void progress_json(const struct progress_args *args)
{
	const struct vc_progress *progress = &args->progress;
	struct json_object *json = json_new();
	u64 speed, left;

	progress_speed(progress, &speed, &left);
	json_add_string(json, "verb", args->verb);
	json_add_number(json, "done", progress->done);
	json_add_number(json, "total", progress->total);
	json_add_number(json, "bytes-per-second", speed);
	json_add_number(json, "seconds-left", left);
	fprintf(stderr, "%s\n", json_object_to_json_string_ext(json, JSON_C_TO_STRING_PLAIN));
	json_object_put(json);
}

static void progress_line(const struct progress_args *args, const char *end)
{
	const struct vc_progress *progress = &args->progress;
	char done[VC_SIZE_TEXT], total[VC_SIZE_TEXT], rate[VC_SIZE_TEXT];
	unsigned int percent = 100;
	u64 speed, left;

	progress_speed(progress, &speed, &left);
	if (progress->total > progress->done)
		percent = progress->done * 100.0 / progress->total;
	fprintf(stderr, "%s%s: %u %%, %s of %s, %s/s, %llu:%02llu left%s",
		args->terminal ? "\r" : "", args->verb, percent,
		vc_size_format(progress->done, done), vc_size_format(progress->total, total),
		vc_size_format(speed, rate), left / 60, left % 60,
		args->terminal ? "\033[K" : "");
	fputs(end, stderr);
	fflush(stderr);
}

static void progress_report(struct vc_progress *progress)
{
	struct progress_args *args = progress->data;
	u64 now = vc_progress_now();

	if (line_asked) {
		line_asked = 0;
		if (args->json)
			progress_json(args);
		else
			progress_line(args, "\n");
	}
	if (now - args->last_ns < (args->json ? JSON_NS : TERMINAL_NS))
		return;
	args->last_ns = now;
	if (args->json) {
		progress_json(args);
	} else if (args->terminal) {
		progress_line(args, "");
		args->shown = true;
	}
}

void progress_start(struct progress_args *args, const char *verb)
{
	struct sigaction action = { .sa_handler = on_stop };

	args->verb = verb;
	args->terminal = !args->json && isatty(STDERR_FILENO);
	args->last_ns = vc_progress_now();
	args->progress.report = progress_report;
	args->progress.stop = &stop_asked;
	args->progress.data = args;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	sigaction(SIGHUP, &action, NULL);
	action.sa_handler = on_usr1;
	action.sa_flags = SA_RESTART;
	sigaction(SIGUSR1, &action, NULL);
}

void progress_end(struct progress_args *args)
{
	if (args->json)
		progress_json(args);
	else if (args->shown)
		fputs("\r\033[K", stderr);
	signal(SIGINT, SIG_DFL);
	signal(SIGTERM, SIG_DFL);
	signal(SIGHUP, SIG_DFL);
	signal(SIGUSR1, SIG_DFL);
}
