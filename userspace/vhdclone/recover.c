// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone recover */
#include "active.h"
#include "options.h"

static int recover_image(const char *path, struct vc_log_report *report, bool *headers,
			 struct vc_err *err)
{
	struct vc_image *image;
	int ret;

	/* Look first: an image that needs nothing need not be writable. */
	ret = vc_image_open(&image, path, VC_IMAGE_HEADERS, NULL, err);
	if (ret)
		return ret;
	if (image->format != VC_FORMAT_VHDX)
		ret = vc_error(err, EINVAL, path, "not a VHDX");
	if (ret || (!image->header.log_dirty && image->header.other_valid)) {
		vc_image_close(image);
		return ret;
	}
	vc_image_close(image);

	ret = vc_image_open(&image, path,
			    VC_IMAGE_HEADERS | VC_IMAGE_WRITE | VC_IMAGE_EXCLUSIVE, NULL, err);
	if (ret)
		return ret;
	ret = vc_active_refuse(&image->file, err);
	if (!ret)
		ret = vc_file_lock(&image->file, err);
	/* Somebody may have been faster. */
	if (!ret)
		ret = vc_image_reload(image, VC_IMAGE_HEADERS, err);
	if (!ret && image->format != VC_FORMAT_VHDX)
		ret = vc_error(err, EINVAL, path, "not a VHDX");
	if (!ret) {
		*headers = !image->header.other_valid;
		ret = vc_log_recover(image, report, err);
	}
	vc_image_close(image);
	return ret;
}

static int recover_json(const char *path, const struct vc_log_report *report, bool headers)
{
	struct json_object *json = json_new();

	json_add_string(json, "path", path);
	json_add_bool(json, "replayed", report->nr_entries);
	json_add_bool(json, "header-repaired", headers);
	json_add_number(json, "entries", report->nr_entries);
	json_add_number(json, "pages", report->nr_pages);
	json_add_number(json, "bytes", report->bytes);
	json_add_number(json, "zero-bytes", report->zero_bytes);
	json_add_number(json, "first-sequence", report->first_sequence);
	json_add_number(json, "last-sequence", report->last_sequence);
	json_add_number(json, "file-grown-by", report->new_size - report->old_size);
	return json_finish(json);
}

static int recover_print(const char *path, const struct vc_log_report *report, bool headers)
{
	print_clean(stdout, path);
	if (report->nr_entries) {
		printf(": replayed %llu log entries, %llu pages, %llu bytes",
		       report->nr_entries, report->nr_pages, report->bytes);
		if (report->new_size > report->old_size)
			printf(", file grown by %llu bytes",
			       report->new_size - report->old_size);
		putchar('\n');
	} else if (headers) {
		puts(": the log is empty, a damaged header was written anew");
	} else {
		puts(": the log is empty, nothing to do");
	}
	return finish_stdout(VC_EXIT_OK);
}

int cmd_recover(struct options *options)
{
	struct vc_log_report report = { };
	bool headers = false;
	struct vc_err err;
	const char *path;

	if (!options_arguments(options, 1, 1, "need one IMAGE"))
		return options->code;
	path = options->argv[0];
	if (recover_image(path, &report, &headers, &err))
		return report_error(&err);
	return options->json ? recover_json(path, &report, headers) :
			       recover_print(path, &report, headers);
}
