// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone set */
#include "change.h"
#include "options.h"

enum {
	OPT_DISK_ID = OPT_OWN,
};

static const struct option set_options[] = {
	{ "disk-id", required_argument, NULL, OPT_DISK_ID },
	{ }
};

/*
 * Not what the disk reads as, though a guest can see it: the DataWriteGuid stays, or
 * all children would be lost.
 */
static int set_disk_id(const char *path, const struct vhdx_guid *id,
		       struct vhdx_guid *old, struct vc_err *err)
{
	struct vc_change *change;
	struct vc_image *image;
	struct vc_usage usage;
	u64 offset;
	int ret;

	ret = vc_change_open(&image, path, err);
	if (ret)
		return ret;
	*old = image->meta.virtual_disk_id;
	offset = image->regions.metadata.offset +
		 image->items[VHDX_ITEM_VIRTUAL_DISK_ID].offset;
	/* One that is broken is better left as it is. */
	ret = vc_image_walk(image, &usage, NULL, NULL, err);
	vc_usage_free(&usage);
	if (ret || vhdx_guid_equal(old, id))
		goto out;
	ret = vc_change_begin(&change, image, err);
	if (!ret)
		ret = vc_change_write(change, "metadata item", offset, id, sizeof(*id), err);
	if (!ret)
		ret = vc_change_commit(change, err);
	else
		vc_change_drop(change);
out:
	vc_image_close(image);
	return ret;
}

int cmd_set(struct options *options)
{
	struct json_object *object;
	const char *value = NULL;
	struct vhdx_guid old;
	struct vhdx_guid id;
	struct vc_err err;

	while (options_next(options, set_options) != -1)
		value = optarg;
	if (!options_arguments(options, 1, 1, "need one IMAGE"))
		return options->code;
	if (!value)
		return usage_error(options->cmd, "need --disk-id");
	if (!strcmp(value, "new"))
		vc_guid_random(&id);
	else if (!vc_guid_parse(value, &id) || vhdx_guid_is_zero(&id))
		return usage_error(options->cmd, "--disk-id: '%s' is not 'new' or a GUID",
				   value);
	if (set_disk_id(options->argv[0], &id, &old, &err))
		return report_error(&err);
	if (!options->json)
		return VC_EXIT_OK;
	object = json_new();
	json_add_string(object, "path", options->argv[0]);
	json_add_guid(object, "virtual-disk-id", &id);
	json_add_guid(object, "old-virtual-disk-id", &old);
	return json_finish(object);
}
