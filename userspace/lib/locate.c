// SPDX-License-Identifier: GPL-2.0-or-later
/* The parent locator of a child: see locate.h. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>

#include "chain.h"
#include "guid.h"
#include "locate.h"
#include "vhd.h"

/* The path from directory @from to @to, both real. */
static char *vc_relative_path(const char *from, const char *to)
{
	size_t common = 0;
	size_t up = 0;
	size_t room;
	size_t i;
	char *path;
	char *p;

	if (!strcmp(from, "/"))
		from = "";
	/* As far as both have the same directories. */
	for (i = 0; from[i] == to[i] && from[i]; i++)
		if (to[i] == '/')
			common = i;
	if (!from[i] && to[i] == '/')
		common = i;
	for (i = common; from[i]; i++)
		if (from[i] == '/')
			up++;
	/* "./" or some "../", and the rest of @to. */
	room = 3 * up + strlen(to + common) + 3;
	path = malloc(room);
	if (!path)
		return NULL;
	p = up ? path : stpcpy(path, "./");
	while (up--)
		p = stpcpy(p, "../");
	stpcpy(p, to + common + 1);
	return path;
}

static int vc_locate_vhdx(struct vc_locator *locator, const struct vc_image *base,
			  char *relative, struct vc_err *err)
{
	char linkage[VC_GUID_TEXT + 2];
	char text[VC_GUID_TEXT];
	char *p;
	int ret;

	if (strchr(relative, '\\'))
		return vc_error(err, EINVAL, base->file.real,
				"a backslash in the path cannot stand in a parent locator");
	for (p = relative; *p; p++)
		if (*p == '/')
			*p = '\\';
	snprintf(linkage, sizeof(linkage), "{%s}",
		 vc_guid_format(&base->header.data_write_guid, text));
	ret = vc_locator_add(locator, VC_KEY_LINKAGE, linkage, err);
	if (!ret)
		ret = vc_locator_add(locator, VC_KEY_RELATIVE, relative, err);
	if (!ret) {
		snprintf(linkage, sizeof(linkage), "{%s}",
			 vc_guid_format(&vhdx_guid_zero, text));
		ret = vc_locator_add(locator, VC_KEY_LINKAGE2, linkage, err);
	}
	return ret;
}

/* A raw base, or a VHD. */
static int vc_locate_raw(struct vc_locator *locator, const struct vc_image *base,
			 const char *relative, struct vc_err *err)
{
	char fingerprint[VC_FINGERPRINT_TEXT];
	char linkage[VC_GUID_TEXT];
	char size[24];
	int ret;

	ret = vc_fingerprint(&base->file, fingerprint, err);
	if (ret)
		return ret;
	snprintf(size, sizeof(size), "%llu", base->size);
	ret = vc_locator_add(locator, VC_KEY_RELATIVE, relative, err);
	if (!ret && base->format == VC_FORMAT_VHD)
		ret = vc_locator_add(locator, VC_KEY_LINKAGE,
				     vc_guid_format(&base->vhd->footer.unique_id, linkage),
				     err);
	if (!ret)
		ret = vc_locator_add(locator, VC_KEY_ABSOLUTE, base->file.real, err);
	if (!ret)
		ret = vc_locator_add(locator, VC_KEY_SIZE, size, err);
	if (!ret)
		ret = vc_locator_add(locator, VC_KEY_FINGERPRINT, fingerprint, err);
	return ret;
}

int vc_locate(const char *path, const struct vc_image *base, struct vc_locator **result,
	      struct vc_err *err)
{
	const struct vhdx_guid *type = &vhdx_guid_locator_vhdx;
	char *directory;
	char *relative;
	char *real;
	int ret;

	*result = NULL;
	directory = vc_dirname(path);
	real = directory ? realpath(directory, NULL) : NULL;
	free(directory);
	if (!real)
		return vc_error_sys(err, errno, path, "cannot resolve the directory");
	relative = vc_relative_path(real, base->file.real);
	free(real);
	if (base->format == VC_FORMAT_RAW)
		type = &vc_guid_locator_raw;
	else if (base->format == VC_FORMAT_VHD)
		type = &vc_guid_locator_vhd;
	*result = vc_locator_new(type);
	if (!relative || !*result)
		ret = vc_error_nomem(err);
	else if (base->format != VC_FORMAT_VHDX)
		ret = vc_locate_raw(*result, base, relative, err);
	else
		ret = vc_locate_vhdx(*result, base, relative, err);
	free(relative);
	return ret;
}
