// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone check */
#include "active.h"
#include "check.h"
#include "vhdclone.h"

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
};

static const struct option check_options[] = {
	{ "no-chain", no_argument, NULL, OPT_NO_CHAIN },
	{ "quiet", no_argument, NULL, 'q' },
	{ "base", required_argument, NULL, OPT_BASE },
	{ "parent", required_argument, NULL, OPT_BASE },
	{ "base-dir", required_argument, NULL, OPT_BASE_DIR },
	{ "parent-dir", required_argument, NULL, OPT_BASE_DIR },
	{ "json", no_argument, NULL, OPT_JSON },
	{ "help", no_argument, NULL, 'h' },
	{ NULL, 0, NULL, 0 }
};

struct check_run {
	bool quiet;
	struct json_object *findings;	/* NULL: print them */
	unsigned int nr_corrupt;
	unsigned int nr_leaks;
	unsigned int nr_images;
	u64 leaked;
};

static void check_say(struct check_run *run, const char *path, const char *severity,
		      const char *text)
{
	struct json_object *json;

	if (run->findings) {
		json = json_object_new_object();
		json_add_string(json, "path", path);
		json_add_string(json, "severity", severity);
		json_add_string(json, "text", text);
		json_object_array_add(run->findings, json);
	} else if (!run->quiet) {
		if (path) {
			print_clean(stdout, path);
			fputs(": ", stdout);
		}
		printf("%s: ", severity);
		print_clean(stdout, text);
		putchar('\n');
	}
}

static void check_finding(void *data, const struct vc_image *image,
			  enum vc_severity severity, const char *text)
{
	static const char * const names[] = {
		[VC_NOTE] = "note",
		[VC_LEAK] = "leak",
		[VC_CORRUPT] = "error",
	};
	struct check_run *run = data;

	run->nr_corrupt += severity == VC_CORRUPT;
	run->nr_leaks += severity == VC_LEAK;
	check_say(run, image->file.path, names[severity], text);
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
		if (chain->layer[i]->format != VC_FORMAT_VHDX)
			continue;
		check.leaked = 0;
		ret = vc_check_image(chain->layer[i], &check, err);
		run->leaked += check.leaked;
		run->nr_images++;
	}
	return ret;
}

/* A file that is no VHDX, or that was one? */
static int check_not_vhdx(const struct vc_image *image, struct vc_err *err)
{
	struct vhdx_header header;
	struct vc_err ignored;

	if (!vc_file_read(&image->file, "header", VHDX_HEADER1_OFFSET, &header,
			  sizeof(header), &ignored) &&
	    le32_to_cpu(header.signature) == VHDX_HEADER_SIGNATURE &&
	    le32_to_cpu(header.checksum) == vhdx_checksum(&header, sizeof(header)))
		return vc_error(err, EINVAL, image->file.path,
				"file identifier: signature is wrong, but there is a valid header (offset 0)");
	return vc_error(err, EOPNOTSUPP, image->file.path, "not a VHDX, cannot be checked");
}

static int check_image(struct check_run *run, const char *path, bool whole,
		       const struct vc_chain_options *options, struct vc_err *err)
{
	struct vc_chain chain = { };
	struct vc_err chain_err = { };
	struct vc_image *top;
	int chain_ret = 0;
	int ret;

	ret = vc_image_open(&top, path, options->image_flags, NULL, err);
	if (ret)
		return ret;
	if (top->format != VC_FORMAT_VHDX) {
		ret = check_not_vhdx(top, err);
		vc_image_close(top);
		return ret;
	}
	if (whole) {
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

static int check_summary(const struct check_run *run, int code)
{
	if (run->quiet || run->findings)
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

static int check_run_and_report(const char *path, bool whole, bool json, bool quiet,
				const struct vc_chain_options *options)
{
	struct check_run run = { .quiet = quiet };
	struct json_object *top = NULL;
	struct vc_err err = { };
	int code = CHECK_CLEAN;

	if (json)
		run.findings = json_object_new_array();
	if (check_image(&run, path, whole, options, &err)) {
		code = check_code(&err);
		if (code == CHECK_CORRUPT) {
			run.nr_corrupt++;
			check_say(&run, NULL, "error", err.msg);
		} else if (json) {
			check_say(&run, NULL, "failed", err.msg);
		}
		if (code != CHECK_CORRUPT)
			report_error(&err);
	}
	if (code == CHECK_CLEAN && run.nr_leaks)
		code = CHECK_LEAKS;
	if (run.nr_corrupt)
		code = CHECK_CORRUPT;
	if (json) {
		top = json_new();
		json_add_string(top, "path", path);
		json_add_number(top, "exit-code", code);
		json_add_number(top, "images", run.nr_images);
		json_add_number(top, "corruptions", run.nr_corrupt);
		json_add_number(top, "leaked-bytes", run.leaked);
		json_object_object_add(top, "findings", run.findings);
		if (json_finish(top))
			return CHECK_FAILED;
		return code;
	}
	check_summary(&run, code);
	return finish_stdout(code) == code ? code : CHECK_FAILED;
}

int cmd_check(const struct command *cmd, int argc, char **argv)
{
	struct chain_args args = {
		.options = {
			.image_flags = VC_IMAGE_REPLAY,
			.base_flags = VC_IMAGE_REPLAY,
		},
	};
	bool whole = true;
	bool quiet = false;
	bool json = false;
	int code;
	int opt;

	chain_args_init(&args);
	while ((opt = getopt_long(argc, argv, "hq", check_options, NULL)) != -1) {
		if (opt == OPT_NO_CHAIN) {
			whole = false;
		} else if (opt == OPT_JSON) {
			json = true;
		} else if (opt == 'q') {
			quiet = true;
		} else if (!chain_args_take(&args, opt, optarg)) {
			code = usage_option(cmd, opt);
			goto out;
		}
	}
	if (argc - optind != 1)
		code = usage_error(cmd, "need one IMAGE");
	else
		code = check_run_and_report(argv[optind], whole, json, quiet, &args.options);
out:
	chain_args_free(&args);
	return code;
}
