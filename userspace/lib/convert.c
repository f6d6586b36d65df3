// SPDX-License-Identifier: GPL-2.0-or-later
/* A new image: see convert.h. */
#define _GNU_SOURCE

#include "children.h"
#include "convert.h"
#include "create.h"
#include "newfile.h"
#include "vhdwrite.h"

const char * const vc_convert_names[VC_CONVERT_TYPES] = {
	[VC_CONVERT_RAW] = "raw",
	[VC_CONVERT_FIXED] = "fixed",
	[VC_CONVERT_DYNAMIC] = "dynamic",
	[VC_CONVERT_DIFFERENCING] = "differencing",
	[VC_CONVERT_VHD_FIXED] = "vhd-fixed",
	[VC_CONVERT_VHD_DYNAMIC] = "vhd-dynamic",
};

struct vc_conversion {
	const struct vc_chain *chain;
	const struct vc_convert_options *options;
	struct vc_copy copy;
	struct vc_newfile new;
	u64 file_size;
};

static int vc_convert_copy(struct vc_conversion *conv, struct vc_target *target,
			   struct vc_err *err)
{
	struct vc_copy *copy = &conv->copy;
	struct vc_progress *progress = conv->options->progress;
	int ret = 0;

	copy->target = target;
	if (progress)
		ret = vc_copy_measure(copy, &progress->total, err);
	return ret ? ret : vc_copy_run(copy, err);
}

/* Raw, or a fixed VHD, which has a footer more and all its space. */
static int vc_convert_raw(struct vc_conversion *conv, struct vc_err *err)
{
	bool vhd = conv->options->type == VC_CONVERT_VHD_FIXED;
	u64 size = vc_disk_size(conv->copy.disk);
	struct vc_raw_target to;
	struct vc_file file;
	int ret;

	ret = vc_newfile_file(&conv->new, &file, err);
	if (!ret && vhd)
		ret = vc_file_zero(&file, 0, size, err);
	if (!ret)
		ret = vc_file_resize(&file, size, err);
	vc_raw_target_init(&to, &file, true);
	if (!ret)
		ret = vc_convert_copy(conv, &to.target, err);
	if (!ret && vhd)
		ret = vc_vhd_fixed_finish(&file, size, err);
	if (!ret)
		ret = vc_file_sync(&file, err);
	conv->file_size = file.size;
	vc_file_close(&file);
	return ret;
}

static int vc_convert_vhd(struct vc_conversion *conv, struct vc_err *err)
{
	struct vc_vhd_target to = { };
	struct vc_file file;
	int ret;

	ret = vc_newfile_file(&conv->new, &file, err);
	if (!ret)
		ret = vc_vhd_target_init(&to, &file, vc_disk_size(conv->copy.disk), err);
	if (!ret)
		ret = vc_convert_copy(conv, &to.target, err);
	if (!ret)
		ret = vc_vhd_target_finish(&to, err);
	if (!ret)
		ret = vc_file_sync(&file, err);
	conv->file_size = file.size;
	vc_vhd_target_free(&to);
	vc_file_close(&file);
	return ret;
}

static int vc_convert_create(struct vc_conversion *conv, struct vc_err *err)
{
	const struct vc_image *top = conv->chain->layer[0];
	const struct vc_convert_options *options = conv->options;
	struct vc_create_options create = {
		.type = VC_CREATE_DYNAMIC,
		.virtual_size = vc_disk_size(conv->copy.disk),
		.block_size = options->block_size,
		.creator = options->creator,
	};
	struct vc_chain base = { };
	struct vc_created created;
	struct vc_file file;
	unsigned int i;
	int ret;

	if (top->format == VC_FORMAT_VHDX) {
		if (!create.block_size)
			create.block_size = top->meta.block_size;
		create.logical_sector_size = top->meta.logical_sector_size;
		create.physical_sector_size = top->meta.physical_sector_size;
	}
	if (options->logical_sector_size)
		create.logical_sector_size = options->logical_sector_size;
	if (options->type == VC_CONVERT_FIXED)
		create.type = VC_CREATE_FIXED;
	if (options->type == VC_CONVERT_DIFFERENCING) {
		create.type = VC_CREATE_DIFFERENCING;
		for (i = options->nr_layers; i < conv->chain->nr; i++)
			base.layer[base.nr++] = conv->chain->layer[i];
		create.base = &base;
	}
	ret = vc_newfile_file(&conv->new, &file, err);
	create.into = &file;
	if (!ret)
		ret = vc_create(conv->new.path, &create, &created, err);
	vc_file_close(&file);
	return ret;
}

static int vc_convert_vhdx(struct vc_conversion *conv, struct vc_err *err)
{
	struct vc_vhdx_target to;
	struct vc_image *image;
	struct vc_edit *edit;
	int ret;

	ret = vc_convert_create(conv, err);
	if (!ret)
		ret = vc_newfile_image(&conv->new, &image, VC_IMAGE_WRITE, err);
	if (ret)
		return ret;
	ret = vc_edit_begin(&edit, image, err);
	if (!ret) {
		vc_edit_stay_sparse(edit);
		vc_vhdx_target_init(&to, image, edit);
		to.new = true;
		ret = vc_convert_copy(conv, &to.target, err);
		if (ret)
			vc_edit_abort(edit);
		else
			ret = vc_edit_end(edit, err);
	}
	conv->file_size = image->file.size;
	vc_image_close(image);
	return ret;
}

static int vc_convert_type(struct vc_conversion *conv, struct vc_err *err)
{
	const struct vc_image *top = conv->chain->layer[0];
	u32 sector_size = top->format == VC_FORMAT_VHDX ? top->meta.logical_sector_size : 512;
	int ret;

	switch (conv->options->type) {
	case VC_CONVERT_RAW:
		return vc_convert_raw(conv, err);
	case VC_CONVERT_VHD_FIXED:
	case VC_CONVERT_VHD_DYNAMIC:
		ret = vc_vhd_possible(top->file.path, vc_disk_size(conv->copy.disk),
				      sector_size, err);
		if (ret)
			return ret;
		if (conv->options->type == VC_CONVERT_VHD_FIXED)
			return vc_convert_raw(conv, err);
		return vc_convert_vhd(conv, err);
	default:
		return vc_convert_vhdx(conv, err);
	}
}

int vc_convert(const struct vc_chain *chain, const char *path,
	       const struct vc_convert_options *options, struct vc_converted *converted,
	       struct vc_err *err)
{
	struct vc_conversion conv = { .chain = chain, .options = options };
	unsigned int nr = chain->nr;
	struct vc_err ignored;
	int ret;

	if (options->type == VC_CONVERT_DIFFERENCING)
		nr = options->nr_layers;
	if (!nr || (options->type == VC_CONVERT_DIFFERENCING && nr >= chain->nr))
		return vc_error(err, EINVAL, chain->layer[0]->file.path,
				"has no parent, so nothing can be told from one");
	ret = vc_newfile_begin(&conv.new, path, options->force, chain, err);
	conv.copy.chain = chain;
	conv.copy.progress = options->progress;
	if (!ret)
		ret = vc_disk_open(&conv.copy.disk, chain, 0, nr, err);
	if (!ret) {
		converted->virtual_size = vc_disk_size(conv.copy.disk);
		if (!converted->virtual_size || converted->virtual_size % 512)
			ret = vc_error(err, EINVAL, chain->layer[0]->file.path,
				       "size %llu is no multiple of 512: lengthen it with truncate(1)",
				       converted->virtual_size);
	}
	if (!ret)
		ret = vc_convert_type(&conv, err);
	if (!ret)
		ret = vc_newfile_publish(&conv.new, err);
	if (!ret && options->type == VC_CONVERT_DIFFERENCING)
		vc_children_add(&chain->layer[nr]->file, conv.new.path, &ignored);
	if (ret == -EINTR)
		vc_error(err, EINTR, path, "interrupted: nothing was made, start again");
	converted->file_size = conv.file_size;
	converted->bytes = conv.copy.bytes;
	vc_disk_close(conv.copy.disk);
	vc_newfile_end(&conv.new);
	return ret;
}
