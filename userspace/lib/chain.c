// SPDX-License-Identifier: GPL-2.0-or-later
/* Chains: see chain.h. */
#define _GNU_SOURCE
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "active.h"
#include "chain.h"
#include "guid.h"
#include "vhd.h"

/* ---- fingerprints of raw bases ------------------------------------------------ */

#define VC_SAMPLE	4096U
#define VC_SAMPLES	66U

struct vc_sums {
	u64 a;
	u64 b;
};

/* FNV-1a, and a multiply-rotate sum over 8 bytes at once. */
static void vc_sums_add(struct vc_sums *sums, const u8 *buf, size_t len)
{
	__le64 word;
	size_t i;

	for (i = 0; i < len; i++)
		sums->a = (sums->a ^ buf[i]) * 0x100000001b3ULL;
	for (i = 0; i + sizeof(word) <= len; i += sizeof(word)) {
		memcpy(&word, buf + i, sizeof(word));
		sums->b ^= le64_to_cpu(word) * 0x9e3779b97f4a7c15ULL;
		sums->b = (sums->b << 27 | sums->b >> 37) * 0xc2b2ae3d27d4eb4fULL + 1;
	}
}

/* The first is the head, the last the tail. */
static u64 vc_sample_offset(u64 size, unsigned int i)
{
	u64 last = size > VC_SAMPLE ? size - VC_SAMPLE : 0;

	return i == VC_SAMPLES - 1 ? last : last / (VC_SAMPLES - 1) * i;
}

u64 vc_fingerprint_sector(u64 size, unsigned int i)
{
	return vc_sample_offset(size, i / VC_SAMPLE_SECTORS) / 512 + i % VC_SAMPLE_SECTORS;
}

/* What was sampled of the sectors in the mask counts as zeros. */
static void vc_sample_mask(u8 *buf, u64 offset, const u8 *mask, unsigned int sample)
{
	unsigned int skew = offset % 512;
	unsigned int i, bit;

	for (i = 0; i < VC_SAMPLE; i++) {
		bit = sample * VC_SAMPLE_SECTORS + (skew + i) / 512;
		if (mask[bit / 8] >> bit % 8 & 1)
			buf[i] = 0;
	}
}

int vc_fingerprint_masked(const struct vc_file *file, u64 size, const u8 *mask, char *text,
			  struct vc_err *err)
{
	struct vc_sums sums = { 0xcbf29ce484222325ULL, size };
	u8 buf[VC_SAMPLE];
	unsigned int i;
	u64 offset;
	u64 there;
	int ret;

	for (i = 0; i < VC_SAMPLES; i++) {
		offset = vc_sample_offset(size, i);
		there = offset < file->size ? file->size - offset : 0;
		if (there > VC_SAMPLE)
			there = VC_SAMPLE;
		memset(buf, 0, sizeof(buf));
		ret = vc_file_read(file, "base", offset, buf, there, err);
		if (ret)
			return ret;
		if (mask)
			vc_sample_mask(buf, offset, mask, i);
		vc_sums_add(&sums, buf, sizeof(buf));
	}
	snprintf(text, VC_FINGERPRINT_TEXT, "v1:%016llx%016llx", sums.a, sums.b);
	return 0;
}

int vc_fingerprint(const struct vc_file *file, char *text, struct vc_err *err)
{
	return vc_fingerprint_masked(file, file->size, NULL, text, err);
}

/* ---- identity -------------------------------------------------------------------- */

/* A merge was interrupted: is the base the same but for what that writes? */
static int vc_check_merge(const struct vc_image *child, const struct vc_image *parent,
			  bool *same, struct vc_err *err)
{
	const char *expected = vc_locator_get(child->locator, VC_KEY_MERGE_FINGERPRINT);
	const char *hex = vc_locator_get(child->locator, VC_KEY_MERGE_MASK);
	char found[VC_FINGERPRINT_TEXT];
	u8 mask[VC_FINGERPRINT_MASK];
	unsigned int byte;
	unsigned int i;
	int ret;

	*same = false;
	if (!expected || !hex || strlen(hex) != 2 * sizeof(mask))
		return 0;
	for (i = 0; i < sizeof(mask); i++) {
		if (sscanf(hex + 2 * i, "%2x", &byte) != 1)
			return 0;
		mask[i] = byte;
	}
	ret = vc_fingerprint_masked(&parent->file, parent->file.size, mask, found, err);
	*same = !ret && !strcmp(found, expected);
	return ret;
}

static int vc_check_raw_parent(const struct vc_image *child, const struct vc_image *parent,
			       struct vc_err *err)
{
	const char *size = vc_locator_get(child->locator, VC_KEY_SIZE);
	const char *fingerprint = vc_locator_get(child->locator, VC_KEY_FINGERPRINT);
	char found[VC_FINGERPRINT_TEXT];
	bool merging;
	char *end;
	u64 bytes;
	int ret;

	if (!size || !fingerprint)
		return vc_error(err, EINVAL, child->file.path,
				"parent locator: no size or no fingerprint of the base");
	bytes = strtoull(size, &end, 10);
	if (*end || end == size)
		return vc_error(err, EINVAL, child->file.path,
				"parent locator: the size of the base is no number");
	/* A merge may have made it larger. */
	ret = vc_check_merge(child, parent, &merging, err);
	if (ret || merging)
		return ret;
	if (bytes != parent->size)
		return vc_error(err, ESTALE, child->file.path,
				"%s is not the base of this clone: it has %llu bytes, the base had %llu",
				parent->file.path, parent->size, bytes);
	ret = vc_fingerprint(&parent->file, found, err);
	if (ret)
		return ret;
	if (strcmp(found, fingerprint))
		return vc_error(err, ESTALE, child->file.path,
				"%s is not the base of this clone, or was changed since: its fingerprint is %s, expected %s",
				parent->file.path, found, fingerprint);
	return 0;
}

static int vc_check_linkage(const struct vc_image *child, const struct vc_image *parent,
			    struct vc_err *err)
{
	const char *linkage = vc_locator_get(child->locator, VC_KEY_LINKAGE);
	const char *linkage2 = vc_locator_get(child->locator, VC_KEY_LINKAGE2);
	const struct vhdx_guid *found = &parent->header.data_write_guid;
	struct vhdx_guid expected;
	struct vhdx_guid other;
	char text[VC_GUID_TEXT];
	char text2[VC_GUID_TEXT];

	if (!linkage || !vc_guid_parse(linkage, &expected))
		return vc_error(err, EINVAL, child->file.path,
				"parent locator: no " VC_KEY_LINKAGE ", or not a GUID");
	if (vhdx_guid_equal(found, &expected))
		return 0;
	/* A merge that was interrupted leaves the new identity here. */
	if (linkage2 && vc_guid_parse(linkage2, &other) && !vhdx_guid_is_zero(&other) &&
	    vhdx_guid_equal(found, &other))
		return 0;
	return vc_error(err, ESTALE, child->file.path,
			"%s is not the parent of this image, or was changed since: its DataWriteGuid is %s, expected %s",
			parent->file.path, vc_guid_format(found, text),
			vc_guid_format(&expected, text2));
}

/* The child is a VHD, or a VHDX that stands on one. */
static int vc_check_vhd_parent(const struct vc_image *child, const struct vc_image *parent,
			       struct vc_err *err)
{
	const char *linkage = vc_locator_get(child->locator, VC_KEY_LINKAGE);
	struct vhdx_guid expected;
	char text[VC_GUID_TEXT];
	char text2[VC_GUID_TEXT];

	if (!linkage || !vc_guid_parse(linkage, &expected))
		return vc_error(err, EINVAL, child->file.path,
				"parent locator: no " VC_KEY_LINKAGE ", or not a GUID");
	if (parent->format != VC_FORMAT_VHD)
		return vc_error(err, EINVAL, parent->file.path,
				"not a VHD, but %s needs one as its parent",
				child->file.path);
	if (vhdx_guid_equal(&parent->vhd->footer.unique_id, &expected))
		return 0;
	return vc_error(err, ESTALE, child->file.path,
			"%s is not the parent of this image: its unique ID is %s, expected %s",
			parent->file.path,
			vc_guid_format(&parent->vhd->footer.unique_id, text),
			vc_guid_format(&expected, text2));
}

int vc_chain_check_parent(const struct vc_image *child, const struct vc_image *parent,
			  struct vc_err *err)
{
	int ret;

	if (child->format == VC_FORMAT_VHD)
		return vc_check_vhd_parent(child, parent, err);
	if (vc_locator_is_raw(child->locator) || vc_locator_is_vhd(child->locator)) {
		if (vc_image_virtual_size(parent) % child->meta.logical_sector_size)
			return vc_error(err, EINVAL, parent->file.path,
					"%llu bytes are no multiple of the sector size, %u",
					vc_image_virtual_size(parent),
					child->meta.logical_sector_size);
		ret = vc_check_raw_parent(child, parent, err);
		if (!ret && vc_locator_is_vhd(child->locator))
			ret = vc_check_vhd_parent(child, parent, err);
		return ret;
	}
	if (parent->format != VC_FORMAT_VHDX)
		return vc_error(err, EINVAL, parent->file.path,
				"not a VHDX, but %s needs one as its parent",
				child->file.path);
	if (parent->meta.logical_sector_size != child->meta.logical_sector_size)
		return vc_error(err, EINVAL, child->file.path,
				"logical sector size %u, but %u in the parent %s",
				child->meta.logical_sector_size,
				parent->meta.logical_sector_size, parent->file.path);
	return vc_check_linkage(child, parent, err);
}

/* ---- finding the parent ------------------------------------------------------------ */

static void vc_slashes(char *path)
{
	for (; *path; path++)
		if (*path == '\\')
			*path = '/';
}

static const char *vc_basename(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

char *vc_chain_hint(const struct vc_image *child)
{
	static const char * const keys[] = {
		VC_KEY_RELATIVE, VC_KEY_ABSOLUTE, VC_KEY_VOLUME, VC_KEY_ABSOLUTE_WIN32
	};
	const char *value = NULL;
	unsigned int i;
	char *path;

	if (!child->locator)
		return NULL;
	for (i = 0; i < ARRAY_SIZE(keys) && !value; i++)
		value = vc_locator_get(child->locator, keys[i]);
	if (!value)
		return NULL;
	path = strdup(value);
	if (path && !vc_locator_get(child->locator, VC_KEY_ABSOLUTE))
		vc_slashes(path);
	return path;
}

static int vc_layer_open(struct vc_image **image, const char *path, unsigned int flags,
			 const struct vc_fence *fence, bool share, struct vc_err *err)
{
	int ret;

	if (!share)
		return vc_image_open(image, path, flags, fence, err);
	ret = vc_image_open(image, path, flags | VC_IMAGE_UNREAD, fence, err);
	if (ret)
		return ret;
	ret = vc_active_share(&(*image)->file, err);
	if (!ret)
		ret = vc_image_reload(*image, flags, err);
	if (ret) {
		vc_image_close(*image);
		*image = NULL;
	}
	return ret;
}

struct vc_search {
	const struct vc_image *child;
	const struct vc_chain_options *options;
	unsigned int flags;
	struct vc_fence fence;
	char *directory;		/* the child's */
	struct vc_image *other;		/* of the most telling try, if it could be opened */
	int ret;			/* and why that is not the parent */
};

/*
 * Open one candidate, and ask whether it is the parent.  What was refused tells more than
 * what is not there, or than something else of that name in another place.
 */
static struct vc_image *vc_search_try(struct vc_search *search, const char *dir,
				      const char *path, const struct vc_fence *fence,
				      struct vc_err *err)
{
	struct vc_image *parent;
	struct vc_err try_err;
	char *joined = NULL;
	int ret;

	/* As locators of this directory begin; nothing that a message should repeat. */
	if (dir && !strncmp(path, "./", 2))
		path += 1 + strspn(path + 1, "/");
	if (dir && *path != '/' && asprintf(&joined, "%s/%s", dir, path) < 0) {
		search->ret = vc_error_nomem(err);
		return NULL;
	}
	ret = vc_layer_open(&parent, joined ? joined : path, search->flags, fence,
			    search->options->share, &try_err);
	free(joined);
	if (!ret)
		ret = vc_chain_check_parent(search->child, parent, &try_err);
	if (!ret)
		return parent;
	if (!search->other && (!search->ret || search->ret == -ENOENT)) {
		search->ret = ret;
		search->other = parent;
		*err = try_err;
		return NULL;
	}
	vc_image_close(parent);
	return NULL;
}

static struct vc_image *vc_search_paths(struct vc_search *search, const char *path,
					struct vc_err *err)
{
	const struct vc_chain_options *options = search->options;
	struct vc_image *parent;
	unsigned int i;

	parent = vc_search_try(search, search->directory, path, &search->fence, err);
	/* An image that was moved: the same name beside the child, or in a root. */
	if (!parent)
		parent = vc_search_try(search, search->directory, vc_basename(path),
				       &search->fence, err);
	for (i = 0; !parent && i < options->nr_roots; i++)
		parent = vc_search_try(search, options->roots[i], vc_basename(path),
				       &search->fence, err);
	return parent;
}

static int vc_fence_init(struct vc_search *search, struct vc_err *err)
{
	const struct vc_chain_options *options = search->options;
	char *real;
	unsigned int i;

	search->directory = vc_dirname(search->child->file.real);
	search->fence.roots = calloc(options->nr_roots + 1, sizeof(char *));
	if (!search->directory || !search->fence.roots)
		return vc_error_nomem(err);
	/* The directory of a device node says nothing about the image on it. */
	if (!search->child->file.is_block)
		search->fence.directory = search->directory;
	for (i = 0; i < options->nr_roots; i++) {
		real = realpath(options->roots[i], NULL);
		if (real)
			search->fence.roots[search->fence.nr_roots++] = real;
	}
	return 0;
}

static void vc_fence_free(struct vc_search *search)
{
	unsigned int i;

	for (i = 0; i < search->fence.nr_roots; i++)
		free(search->fence.roots[i]);
	free(search->fence.roots);
	free(search->directory);
}

int vc_chain_find_parent(const struct vc_image *child,
			 const struct vc_chain_options *options, const char *named,
			 struct vc_image **result, struct vc_err *err)
{
	struct vc_search search = { .child = child, .options = options };
	bool raw = vc_locator_is_raw(child->locator);
	const char *absolute;
	char *hint = NULL;
	int ret;

	*result = NULL;
	if (!raw && child->format == VC_FORMAT_VHDX && !vc_locator_is_vhd(child->locator) &&
	    !vhdx_guid_equal(&child->locator->type, &vhdx_guid_locator_vhdx)) {
		char text[VC_GUID_TEXT];

		return vc_error(err, EOPNOTSUPP, child->file.path,
				"parent locator: unknown type %s",
				vc_guid_format(&child->locator->type, text));
	}
	search.flags = options->base_flags | (raw ? VC_IMAGE_RAW : 0);
	if (named) {
		ret = vc_layer_open(result, named, search.flags, NULL, options->share, err);
		return ret ? ret : vc_chain_check_parent(child, *result, err);
	}
	hint = vc_chain_hint(child);
	if (!hint)
		return vc_error(err, EINVAL, child->file.path,
				"the parent locator has no path: name the parent with --base");
	ret = vc_fence_init(&search, err);
	if (!ret) {
		*result = vc_search_paths(&search, hint, err);
		absolute = vc_locator_get(child->locator, VC_KEY_ABSOLUTE);
		if (!*result && absolute)
			*result = vc_search_try(&search, NULL, absolute, &search.fence, err);
		if (*result) {
			vc_image_close(search.other);
		} else {
			*result = search.other;
			ret = search.ret;
		}
	}
	vc_fence_free(&search);
	free(hint);
	if (!*result && (ret == -ENOENT || ret == -EACCES))
		vc_error_append(err,
				"; it is the base of %s: name it with --base, or its directory with --base-dir",
				child->file.path);
	return ret;
}

/* Is there something at @path, seen from @dir, and is it @file? */
static bool vc_is_there(const char *dir, const char *path, const struct vc_file *file,
			bool *same)
{
	char *joined = NULL;
	struct stat st;
	bool there;

	if (*path != '/' && asprintf(&joined, "%s/%s", dir, path) < 0)
		return false;
	there = !stat(joined ? joined : path, &st);
	free(joined);
	if (there && file->is_block)
		*same = S_ISBLK(st.st_mode) && st.st_rdev == file->rdev;
	else if (there)
		*same = st.st_dev == file->dev && st.st_ino == file->ino;
	return there;
}

bool vc_chain_leads_to(const struct vc_image *child, const struct vc_image *base)
{
	char *directory = vc_dirname(child->file.real);
	char *hint = vc_chain_hint(child);
	const char *absolute = NULL;
	struct vc_err ignored;
	bool same = false;

	if (child->locator)
		absolute = vc_locator_get(child->locator, VC_KEY_ABSOLUTE);
	if (directory && hint &&
	    (vc_is_there(directory, hint, &base->file, &same) ||
	     vc_is_there(directory, vc_basename(hint), &base->file, &same) ||
	     (absolute && vc_is_there(directory, absolute, &base->file, &same))))
		goto out;
	/* Whoever was moved still knows whom to expect. */
	same = child->locator && !vc_chain_check_parent(child, base, &ignored);
out:
	free(directory);
	free(hint);
	return same;
}

/* ---- the walk ------------------------------------------------------------------------ */

bool vc_chain_has(const struct vc_chain *chain, const struct vc_file *file)
{
	unsigned int i;

	for (i = 0; i < chain->nr; i++)
		if (vc_file_same(&chain->layer[i]->file, file))
			return true;
	return false;
}

int vc_chain_walk(struct vc_chain *chain, struct vc_image *top,
		  const struct vc_chain_options *options, struct vc_err *err)
{
	struct vc_image *child = top;
	struct vc_image *parent;
	const char *named;
	int ret;

	chain->nr = 0;
	chain->layer[chain->nr++] = top;
	while (child->meta.has_parent) {
		named = NULL;
		if (chain->nr <= options->nr_bases)
			named = options->bases[chain->nr - 1];
		ret = vc_chain_find_parent(child, options, named, &parent, err);
		if (parent && vc_chain_has(chain, &parent->file))
			ret = vc_error(err, ELOOP, parent->file.path,
				       "stands in the chain of %s twice", top->file.path);
		else if (parent && chain->nr == VHDCLONE_MAX_LAYERS)
			ret = vc_error(err, ELOOP, top->file.path,
				       "the chain has more than %u layers",
				       VHDCLONE_MAX_LAYERS);
		if (ret) {
			vc_image_close(parent);
			return ret;
		}
		chain->layer[chain->nr++] = parent;
		child = parent;
	}
	if (options->nr_bases >= chain->nr)
		return vc_error(err, EINVAL, top->file.path,
				"--base names %u parents, the chain has %u",
				options->nr_bases, chain->nr - 1);
	return 0;
}

int vc_chain_open(struct vc_chain *chain, const char *path,
		  const struct vc_chain_options *options, struct vc_err *err)
{
	struct vc_image *top;
	int ret;

	chain->nr = 0;
	ret = vc_layer_open(&top, path, options->image_flags, NULL, options->share, err);
	return ret ? ret : vc_chain_walk(chain, top, options, err);
}

void vc_chain_close(struct vc_chain *chain)
{
	unsigned int i;

	for (i = 0; i < chain->nr; i++)
		vc_image_close(chain->layer[i]);
	chain->nr = 0;
}
