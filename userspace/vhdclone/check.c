// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone check */
#define _GNU_SOURCE
#include <sys/stat.h>

#include "active.h"
#include "check.h"
#include "options.h"
#include "repair.h"
#include "undo.h"

/* Not vc_exit: the codes of qemu-img check. */
enum {
	CHECK_CLEAN		= 0,
	CHECK_FAILED		= 1,	/* could not be done */
	CHECK_CORRUPT		= 2,
	CHECK_LEAKS		= 3,
	CHECK_UNSUPPORTED	= 63,
};

enum {
	OPT_NO_CHAIN = OPT_OWN,
	OPT_REPAIR,
	OPT_UNDO,
	OPT_UNDO_FILE,
};

static const struct option check_options[] = {
	{ "no-chain", no_argument, NULL, OPT_NO_CHAIN },
	{ "repair", no_argument, NULL, OPT_REPAIR },
	{ "undo", required_argument, NULL, OPT_UNDO },
	{ "undo-file", required_argument, NULL, OPT_UNDO_FILE },
	{ "quiet", no_argument, NULL, 'q' },
	{ "verbose", no_argument, NULL, 'v' },
	{ }
};

struct check_args {
	struct options *options;
	const char *path;
	const char *undo;		/* apply this, instead of all else */
	const char *undo_file;		/* write this when repairing */
	bool repair;
	bool whole;
	bool quiet;
	bool verbose;
};

struct check_run {
	const struct check_args *args;
	struct json_object *findings;	/* NULL: print them */
	bool repairing;			/* tell what will be repaired, and no more */
	unsigned int nr_corrupt;
	unsigned int nr_leaks;
	unsigned int nr_images;
	u64 leaked;
};

static void check_print(const struct check_run *run, const char *path,
			const char *severity, const char *text)
{
	if (run->args->quiet)
		return;
	if (path) {
		print_clean(stdout, path);
		fputs(": ", stdout);
	}
	printf("%s: ", severity);
	print_clean(stdout, text);
	putchar('\n');
}

/* What ended the check. */
static void check_say(struct check_run *run, const char *severity, const char *text)
{
	struct json_object *json;

	if (!run->findings) {
		check_print(run, NULL, severity, text);
		return;
	}
	json = json_object_new_object();
	json_add_string(json, "path", NULL);
	json_add_string(json, "severity", severity);
	json_add_string(json, "text", text);
	json_object_array_add(run->findings, json);
}

static void check_finding(void *data, const struct vc_image *image,
			  const struct vc_finding *finding)
{
	static const char * const names[] = {
		[VC_HINT] = "hint",
		[VC_NOTE] = "note",
		[VC_LEAK] = "leak",
		[VC_CORRUPT] = "error",
	};
	const char *severity = names[finding->severity];
	struct check_run *run = data;
	struct json_object *json;

	if (run->repairing && !finding->repairable)
		return;
	run->nr_corrupt += finding->severity == VC_CORRUPT;
	run->nr_leaks += finding->severity == VC_LEAK;
	if (!run->findings) {
		if (finding->severity != VC_HINT || run->args->verbose || run->repairing)
			check_print(run, image->file.path, severity, finding->text);
		return;
	}
	json = json_object_new_object();
	json_add_string(json, "path", image->file.path);
	json_add_string(json, "severity", severity);
	json_add_string(json, "kind", vc_finding_name(finding->kind));
	json_add_number(json, "offset", finding->offset);
	json_add_number(json, "length", finding->length);
	json_add_bool(json, "repairable", finding->repairable);
	json_add_string(json, "text", finding->text);
	json_object_array_add(run->findings, json);
}

/* What an error that ends the check means in qemu-img's codes. */
static int check_code(const struct vc_err *err)
{
	switch (err->errnum) {
	case EINVAL:
	case EBADMSG:
	case EUCLEAN:
	case ELOOP:
	case ESTALE:
		return CHECK_CORRUPT;
	case EOPNOTSUPP:
		return CHECK_UNSUPPORTED;
	default:
		return CHECK_FAILED;
	}
}

static int check_chain(struct check_run *run, const struct vc_chain *chain,
		       struct vc_err *err)
{
	struct vc_check check = { .fn = check_finding, .data = run };
	unsigned int i;
	int ret = 0;

	for (i = 0; i < chain->nr && !ret; i++) {
		if (chain->layer[i]->format == VC_FORMAT_RAW)
			continue;
		check.leaked = 0;
		ret = chain->layer[i]->format == VC_FORMAT_VHD ?
		      vc_check_vhd(chain->layer[i], &check, err) :
		      vc_check_image(chain->layer[i], &check, err);
		run->leaked += check.leaked;
		run->nr_images++;
	}
	return ret;
}

/* A file that is no image, or that was one? */
static int check_raw(const struct vc_image *image, struct vc_err *err)
{
	struct vhdx_header header;
	struct vc_err ignored;

	if (!vc_file_read(&image->file, "header", VHDX_HEADER1_OFFSET, &header,
			  sizeof(header), &ignored) &&
	    le32_to_cpu(header.signature) == VHDX_HEADER_SIGNATURE &&
	    le32_to_cpu(header.checksum) == vhdx_checksum(&header, sizeof(header)))
		return vc_error(err, EINVAL, image->file.path,
				"file identifier: signature is wrong, but there is a valid header (offset 0)");
	return vc_error(err, EOPNOTSUPP, image->file.path, "not a VHDX or VHD, cannot be checked");
}

static int check_image(struct check_run *run, struct vc_err *err)
{
	const struct vc_chain_options *options = &run->args->options->chain;
	struct vc_chain chain = { };
	struct vc_err chain_err = { };
	struct vc_image *top;
	int chain_ret = 0;
	int ret;

	ret = vc_image_open(&top, run->args->path, options->image_flags, NULL, err);
	if (ret)
		return ret;
	if (top->format == VC_FORMAT_RAW) {
		ret = check_raw(top, err);
		vc_image_close(top);
		return ret;
	}
	if (run->args->whole) {
		chain_ret = vc_chain_walk(&chain, top, options, &chain_err);
	} else {
		chain.layer[0] = top;
		chain.nr = 1;
	}
	ret = vc_active_refuse(&top->file, err);
	/* Check as far as the chain holds, then say where it breaks. */
	if (!ret)
		ret = check_chain(run, &chain, err);
	if (!ret && chain_ret) {
		*err = chain_err;
		ret = chain_ret;
	}
	vc_chain_close(&chain);
	return ret;
}

/* ---- repair ------------------------------------------------------------------------- */

static int check_repair(const struct check_args *args, struct json_object *top,
			struct vc_err *err)
{
	struct check_run before = {
		.args = args,
		.findings = top ? json_object_new_array() : NULL,
		.repairing = true,
	};
	struct vc_repair repair = {
		.fn = check_finding,
		.data = &before,
		.undo_path = args->undo_file,
	};
	enum vc_format format;
	struct stat st;
	int ret;

	if (!vc_image_peek(args->path, &format, &st) && format == VC_FORMAT_VHD)
		return vc_error(err, EOPNOTSUPP, args->path,
				"a VHD is checked, but not repaired: see 'vhdclone convert'");
	ret = vc_repair_image(args->path, &repair, err);
	if (top)
		json_object_object_add(top, "repairs", before.findings);
	if (ret)
		return ret;
	if (top) {
		json_add_number(top, "repaired", repair.nr_repaired);
		json_add_string(top, "undo-file", repair.nr_repaired ? args->undo_file : NULL);
	} else if (!args->quiet) {
		if (repair.nr_repaired)
			printf("Repaired: %u; 'vhdclone check --undo %s %s' takes it back.\n",
			       repair.nr_repaired, args->undo_file, args->path);
		if (repair.refused)
			printf("Left alone: %u, because of errors that cannot be repaired.\n",
			       repair.refused);
	}
	return 0;
}

static int check_undo(const struct command *cmd, const struct check_args *args)
{
	struct vc_image *image;
	struct vc_err err;
	int ret;

	if (args->repair || args->options->json || args->quiet)
		return usage_error(cmd, "--undo: goes with no other option");
	ret = vc_image_open(&image, args->path,
			    VC_IMAGE_UNREAD | VC_IMAGE_WRITE | VC_IMAGE_EXCLUSIVE, NULL, &err);
	if (!ret)
		ret = vc_active_refuse_any(&image->file, &err);
	if (!ret)
		ret = vc_file_lock(&image->file, &err);
	if (!ret)
		ret = vc_undo_apply(args->undo, image, &err);
	vc_image_close(image);
	if (!ret)
		return CHECK_CLEAN;
	report_error(&err);
	return CHECK_FAILED;
}

/* ---- the report ---------------------------------------------------------------------- */

static int check_summary(const struct check_run *run, int code)
{
	if (run->args->quiet || run->findings)
		return code;
	if (code == CHECK_CLEAN)
		printf("No errors found in %u image%s.\n", run->nr_images,
		       run->nr_images == 1 ? "" : "s");
	else if (code == CHECK_LEAKS)
		printf("Leaks found: %llu bytes.\n", run->leaked);
	else if (code == CHECK_CORRUPT)
		puts("The image is corrupt.");
	return code;
}

static int check_json(const struct check_run *run, struct json_object *top, int code)
{
	json_add_string(top, "path", run->args->path);
	json_add_number(top, "exit-code", code);
	json_add_number(top, "images", run->nr_images);
	json_add_number(top, "corruptions", run->nr_corrupt);
	json_add_number(top, "leaked-bytes", run->leaked);
	json_object_object_add(top, "findings", run->findings);
	return json_finish(top) ? CHECK_FAILED : code;
}

static int check_run_and_report(const struct check_args *args)
{
	struct check_run run = { .args = args };
	struct json_object *top = NULL;
	struct vc_err err = { };
	int code = CHECK_CLEAN;
	int ret = 0;

	if (args->options->json) {
		run.findings = json_object_new_array();
		top = json_new();
	}
	if (args->repair)
		ret = check_repair(args, top, &err);
	if (!ret)
		ret = check_image(&run, &err);
	if (ret) {
		code = check_code(&err);
		if (code == CHECK_CORRUPT) {
			run.nr_corrupt++;
			check_say(&run, "error", err.msg);
		} else {
			if (args->options->json)
				check_say(&run, "failed", err.msg);
			report_error(&err);
		}
	}
	if (code == CHECK_CLEAN && run.nr_leaks)
		code = CHECK_LEAKS;
	if (run.nr_corrupt && code != CHECK_FAILED)
		code = CHECK_CORRUPT;
	if (args->options->json)
		return check_json(&run, top, code);
	check_summary(&run, code);
	return finish_stdout(code) == code ? code : CHECK_FAILED;
}

static void check_parse(struct check_args *args)
{
	int opt;

	while ((opt = options_next(args->options, check_options)) != -1) {
		switch (opt) {
		case OPT_NO_CHAIN:
			args->whole = false;
			break;
		case OPT_REPAIR:
			args->repair = true;
			break;
		case OPT_UNDO:
			args->undo = optarg;
			break;
		case OPT_UNDO_FILE:
			args->undo_file = optarg;
			break;
		case 'q':
			args->quiet = true;
			break;
		case 'v':
			args->verbose = true;
			break;
		}
	}
}

static int check_main(const struct command *cmd, struct check_args *args)
{
	char *undo_file = NULL;
	struct stat st;
	int code;

	if (args->undo)
		return check_undo(cmd, args);
	if (args->undo_file && !args->repair)
		return usage_error(cmd, "--undo-file: for --repair only");
	if (args->repair && !args->undo_file) {
		if (!stat(args->path, &st) && S_ISBLK(st.st_mode))
			return usage_error(cmd, "need --undo-file to repair a device");
		if (asprintf(&undo_file, "%s.undo", args->path) < 0)
			return VC_EXIT_MEMORY;
		args->undo_file = undo_file;
	}
	code = check_run_and_report(args);
	free(undo_file);
	return code;
}

int cmd_check(struct options *options)
{
	struct check_args args = { .options = options, .whole = true };

	options_replay(options);
	check_parse(&args);
	if (!options_arguments(options, 1, 1, "need one IMAGE"))
		return options->code;
	args.path = options->argv[0];
	return check_main(options->cmd, &args);
}
