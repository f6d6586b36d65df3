// SPDX-License-Identifier: GPL-2.0-or-later
/* Files that get their name when they are complete: see newfile.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "active.h"
#include "guid.h"
#include "newfile.h"

int vc_exists(const char *path, struct vc_err *err)
{
	return vc_error(err, EEXIST, path, "exists already: use --force to overwrite it");
}

static int vc_publish(const char *path, const char *temporary, bool force, struct vc_err *err)
{
	unsigned int flags = force ? 0 : RENAME_NOREPLACE;

	if (!renameat2(AT_FDCWD, temporary, AT_FDCWD, path, flags))
		return 0;
	if (errno == EINVAL && !force) {
		/* A file system without that flag: a link does not replace either. */
		if (!link(temporary, path)) {
			unlink(temporary);
			return 0;
		}
	}
	if (errno == EEXIST)
		return vc_exists(path, err);
	return vc_error_sys(err, errno, path, "cannot give the new image its name");
}

static char *vc_hidden_name(const char *path)
{
	struct vhdx_guid guid;
	char text[VC_GUID_TEXT];
	char *directory = vc_dirname(path);
	char *name;

	if (!directory)
		return NULL;
	vc_guid_random(&guid);
	if (asprintf(&name, "%s/.vhdclone-%s", directory, vc_guid_format(&guid, text)) < 0)
		name = NULL;
	free(directory);
	return name;
}

/*
 * What has the name already: nothing, or a file that may be replaced.  A link is
 * followed: what it leads to is replaced.
 */
static int vc_newfile_target(struct vc_newfile *new, const char *path, bool force,
			     const struct vc_chain *chain, struct vc_err *err)
{
	struct vc_file file = VC_FILE_CLOSED;
	struct stat st;
	int ret;

	if (lstat(path, &st)) {
		new->path = strdup(path);
		if (errno != ENOENT)
			return vc_error_sys(err, errno, path, "cannot stat");
		return new->path ? 0 : vc_error_nomem(err);
	}
	if (!force)
		return vc_exists(path, err);
	ret = vc_file_open(&file, path, VC_FILE_WRITE, NULL, err);
	if (!ret && file.is_block)
		ret = vc_error(err, EINVAL, path, "is a device: only a file can be written here");
	if (!ret && chain && vc_chain_has(chain, &file))
		ret = vc_error(err, EBUSY, path, "is what is to be read");
	if (!ret)
		ret = vc_active_refuse_any(&file, err);
	if (!ret)
		ret = vc_file_lock(&file, err);
	if (!ret) {
		new->path = strdup(file.real);
		if (!new->path)
			ret = vc_error_nomem(err);
	}
	vc_file_close(&file);
	return ret;
}

static int vc_newfile_open(struct vc_newfile *new, struct vc_err *err)
{
	char *directory = vc_dirname(new->path);
	int ret = 0;

	new->hidden = vc_hidden_name(new->path);
	if (!directory || !new->hidden) {
		free(directory);
		return vc_error_nomem(err);
	}
	new->fd = open(directory, O_RDWR | O_TMPFILE | O_CLOEXEC, 0644);
	/* Which error says "not here" is up to the file system. */
	if (new->fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == ENOENT)) {
		new->fd = open(new->hidden, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
		new->named = new->fd >= 0;
	}
	if (new->fd < 0)
		ret = vc_error_sys(err, errno, new->path, "cannot create a file in %s",
				   directory);
	else if (asprintf(&new->temporary, "/proc/self/fd/%d", new->fd) < 0)
		ret = vc_error_nomem(err);
	free(directory);
	return ret;
}

int vc_newfile_begin(struct vc_newfile *new, const char *path, bool force,
		     const struct vc_chain *chain, struct vc_err *err)
{
	int ret;

	*new = (struct vc_newfile){ .fd = -1, .force = force };
	ret = vc_newfile_target(new, path, force, chain, err);
	return ret ? ret : vc_newfile_open(new, err);
}

int vc_newfile_make(struct vc_newfile *new, const char *path, bool force,
		    struct vc_err *err)
{
	*new = (struct vc_newfile){ .path = strdup(path), .fd = -1, .force = force };
	return new->path ? vc_newfile_open(new, err) : vc_error_nomem(err);
}

static int vc_newfile_call(const struct vc_newfile *new, struct vc_file *file,
			   struct vc_err *err)
{
	free(file->path);
	file->path = strdup(new->path);
	return file->path ? 0 : vc_error_nomem(err);
}

int vc_newfile_file(const struct vc_newfile *new, struct vc_file *file, struct vc_err *err)
{
	int ret = vc_file_open(file, new->temporary, VC_FILE_WRITE, NULL, err);

	return ret ? ret : vc_newfile_call(new, file, err);
}

int vc_newfile_image(const struct vc_newfile *new, struct vc_image **image,
		     unsigned int flags, struct vc_err *err)
{
	int ret = vc_image_open(image, new->temporary, flags, NULL, err);

	return ret ? ret : vc_newfile_call(new, &(*image)->file, err);
}

/* A file without a name cannot take that of another: it gets one of its own first. */
static int vc_newfile_name(struct vc_newfile *new, struct vc_err *err)
{
	if (!new->named && !new->force) {
		if (!linkat(AT_FDCWD, new->temporary, AT_FDCWD, new->path, AT_SYMLINK_FOLLOW))
			return 0;
		if (errno == EEXIST)
			return vc_exists(new->path, err);
	}
	if (!new->named &&
	    linkat(AT_FDCWD, new->temporary, AT_FDCWD, new->hidden, AT_SYMLINK_FOLLOW))
		return vc_error_sys(err, errno, new->path,
				    "cannot give the new image a name");
	new->named = true;
	return vc_publish(new->path, new->hidden, new->force, err);
}

int vc_newfile_publish(struct vc_newfile *new, struct vc_err *err)
{
	char *directory = vc_dirname(new->path);
	int ret;

	if (!directory)
		return vc_error_nomem(err);
	ret = vc_newfile_name(new, err);
	if (!ret) {
		new->named = false;
		ret = vc_sync_directory(directory, err);
		/* What was replaced is gone, but a new name can be taken back. */
		if (ret && !new->force)
			unlink(new->path);
	}
	free(directory);
	return ret;
}

void vc_newfile_end(struct vc_newfile *new)
{
	if (new->named)
		unlink(new->hidden);
	if (new->fd >= 0)
		close(new->fd);
	free(new->hidden);
	free(new->temporary);
	free(new->path);
	*new = (struct vc_newfile) { .fd = -1 };
}
