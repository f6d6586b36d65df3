// SPDX-License-Identifier: GPL-2.0-or-later
/* Images that others stand on: see depend.h. */
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "active.h"
#include "depend.h"

#define VC_CHILDREN_NAMED	8	/* in a message; all others are counted */

static void vc_append_children(const struct vc_children *children, struct vc_err *err)
{
	unsigned int i;

	for (i = 0; i < children->nr && i < VC_CHILDREN_NAMED; i++)
		vc_error_append(err, "%s%s", i ? ", " : "", children->child[i].path);
	if (i < children->nr)
		vc_error_append(err, " and %u more", children->nr - i);
}

int vc_refuse_children(const struct vc_image *image, struct vc_err *err)
{
	struct vc_children children = { };
	int ret;

	ret = vc_children_find(image, NULL, 0, &children, err);
	if (!ret && children.nr) {
		ret = vc_error(err, EBUSY, image->file.path,
			       children.nr == 1 ? "an image stands on it: " :
						  "images stand on it: ");
		vc_append_children(&children, err);
	}
	vc_children_free(&children);
	return ret;
}

/* ---- remove -------------------------------------------------------------------- */

static int vc_remove_check_path(const char *path, struct vc_err *err)
{
	struct stat st;

	if (lstat(path, &st))
		return vc_error_sys(err, errno, path, "cannot remove");
	if (S_ISLNK(st.st_mode))
		return vc_error(err, EINVAL, path,
				"a symbolic link: name the delta itself");
	if (S_ISBLK(st.st_mode))
		return vc_error(err, EINVAL, path, "a block device, cannot be removed");
	return 0;
}

static int vc_remove_check(struct vc_image *image, struct vc_err *err)
{
	int ret;

	ret = vc_active_refuse_any(&image->file, err);
	if (!ret)
		ret = vc_file_lock(&image->file, err);
	/* One that was not closed can go, too. */
	if (!ret)
		ret = vc_image_reload(image, VC_IMAGE_REPLAY, err);
	if (ret)
		return ret;
	if (image->format != VC_FORMAT_VHDX || !image->meta.has_parent)
		return vc_error(err, EINVAL, image->file.path,
				"not a delta: it has no parent");
	return vc_refuse_children(image, err);
}

/* The base need not be there; if it is, its list gets shorter.  Closes @image. */
static void vc_remove_from_list(struct vc_image *image)
{
	struct vc_chain_options options = { .base_flags = VC_IMAGE_REPLAY };
	struct vc_chain chain = { };
	struct vc_err ignored;

	vc_chain_walk(&chain, image, &options, &ignored);
	if (chain.nr > 1)
		vc_children_remove(&chain.layer[1]->file, image->file.real, &ignored);
	vc_chain_close(&chain);
}

int vc_remove_file(const struct vc_file *file, struct vc_err *err)
{
	char *directory;
	struct stat st;
	int ret;

	if (lstat(file->real, &st))
		return vc_error_sys(err, errno, file->path, "cannot remove");
	/* Still the file that was looked at? */
	if (st.st_dev != file->dev || st.st_ino != file->ino)
		return vc_error(err, EBUSY, file->path, "somebody has replaced it meanwhile");
	directory = vc_dirname(file->real);
	if (!directory)
		return vc_error_nomem(err);
	if (unlink(file->real))
		ret = vc_error_sys(err, errno, file->path, "cannot remove");
	else
		ret = vc_sync_directory(directory, err);
	free(directory);
	return ret;
}

int vc_remove(const char *path, u64 *freed, struct vc_err *err)
{
	struct vc_image *image;
	struct stat st;
	int ret;

	*freed = 0;
	ret = vc_remove_check_path(path, err);
	if (!ret)
		ret = vc_image_open(&image, path, VC_IMAGE_UNREAD | VC_IMAGE_WRITE, NULL, err);
	if (ret)
		return ret;
	ret = vc_remove_check(image, err);
	if (!ret && fstat(image->file.fd, &st))
		ret = vc_error_sys(err, errno, path, "cannot stat");
	if (!ret)
		ret = vc_remove_file(&image->file, err);
	if (ret) {
		vc_image_close(image);
		return ret;
	}
	if (st.st_nlink == 1)
		*freed = (u64)st.st_blocks * 512;
	vc_remove_from_list(image);
	return 0;
}
