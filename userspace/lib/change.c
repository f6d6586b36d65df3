// SPDX-License-Identifier: GPL-2.0-or-later
/* One change of metadata: see change.h. */
#include <stdlib.h>

#include "active.h"
#include "change.h"
#include "guid.h"

#define VC_CHANGE_ZEROS		4	/* ranges of zeros in one change */

struct vc_change_page {
	u64 offset;
	u8 *data;
};

struct vc_change_range {
	u64 offset;
	u64 length;
};

struct vc_change {
	struct vc_image *image;
	bool data;
	struct vhdx_guid file_guid;
	u32 nr_pages;
	u32 nr_zeros;
	struct vc_change_page *pages;
	struct vc_change_range zeros[VC_CHANGE_ZEROS];
};

int vc_change_open(struct vc_image **result, const char *path, struct vc_err *err)
{
	struct vc_image *image;
	int ret;

	*result = NULL;
	/* Look first: what is no image, or needs no change, need not be writable. */
	ret = vc_image_open(&image, path, VC_IMAGE_UNREAD, NULL, err);
	if (!ret)
		ret = vc_active_refuse_any(&image->file, err);
	if (!ret)
		ret = vc_image_reload(image, 0, err);
	if (!ret && image->format != VC_FORMAT_VHDX)
		ret = vc_error(err, EINVAL, path, "not a VHDX");
	vc_image_close(image);
	if (ret)
		return ret;
	/* Once more, with the lock: somebody may have been faster. */
	ret = vc_image_open(&image, path,
			    VC_IMAGE_UNREAD | VC_IMAGE_WRITE | VC_IMAGE_EXCLUSIVE, NULL, err);
	if (ret)
		return ret;
	ret = vc_file_lock(&image->file, err);
	if (!ret)
		ret = vc_active_refuse_any(&image->file, err);
	if (!ret)
		ret = vc_image_reload(image, 0, err);
	if (!ret && image->format != VC_FORMAT_VHDX)
		ret = vc_error(err, EINVAL, path, "not a VHDX");
	if (ret)
		vc_image_close(image);
	else
		*result = image;
	return ret;
}

int vc_change_begin(struct vc_change **result, struct vc_image *image, struct vc_err *err)
{
	*result = calloc(1, sizeof(**result));
	if (!*result)
		return vc_error_nomem(err);
	(*result)->image = image;
	vc_guid_random(&(*result)->file_guid);
	return 0;
}

void vc_change_drop(struct vc_change *change)
{
	u32 i;

	if (!change)
		return;
	for (i = 0; i < change->nr_pages; i++)
		free(change->pages[i].data);
	free(change->pages);
	free(change);
}

u32 vc_change_room(const struct vc_change *change)
{
	u32 n = change->nr_pages;

	while (vhdx_log_entry_bytes(VC_CHANGE_ZEROS + n + 1, n + 1) <=
	       change->image->header.log_length)
		n++;
	return n - change->nr_pages;
}

static struct vc_change_page *vc_change_page(struct vc_change *change, const char *what,
					     u64 offset, struct vc_err *err)
{
	struct vc_change_page *pages;
	u32 i;

	for (i = 0; i < change->nr_pages; i++)
		if (change->pages[i].offset == offset)
			return &change->pages[i];
	if (!vc_change_room(change)) {
		vc_error(err, EINVAL, change->image->file.path,
			 "the log is too small for a change of more than %u pages",
			 change->nr_pages);
		return NULL;
	}
	pages = realloc(change->pages, (change->nr_pages + 1) * sizeof(*pages));
	if (!pages) {
		vc_error_nomem(err);
		return NULL;
	}
	change->pages = pages;
	pages += change->nr_pages;
	pages->offset = offset;
	pages->data = malloc(VHDX_PAGE_SIZE);
	if (!pages->data) {
		vc_error_nomem(err);
		return NULL;
	}
	change->nr_pages++;
	if (vc_file_read(&change->image->file, what, offset, pages->data, VHDX_PAGE_SIZE, err))
		return NULL;
	return pages;
}

int vc_change_write(struct vc_change *change, const char *what, u64 offset,
		    const void *buf, size_t length, struct vc_err *err)
{
	struct vc_change_page *page;
	const u8 *from = buf;
	size_t skip;
	size_t n;

	for (; length; offset += n, from += n, length -= n) {
		skip = offset & (VHDX_PAGE_SIZE - 1);
		n = VHDX_PAGE_SIZE - skip < length ? VHDX_PAGE_SIZE - skip : length;
		page = vc_change_page(change, what, offset - skip, err);
		if (!page)
			return -err->errnum;
		memcpy(page->data + skip, from, n);
	}
	return 0;
}

int vc_change_zero(struct vc_change *change, u64 offset, u64 length, struct vc_err *err)
{
	if (change->nr_zeros == VC_CHANGE_ZEROS)
		return vc_error(err, EINVAL, change->image->file.path,
				"too many ranges in one change");
	change->zeros[change->nr_zeros++] = (struct vc_change_range){ offset, length };
	return 0;
}

void vc_change_file_guid(struct vc_change *change, const struct vhdx_guid *guid)
{
	change->file_guid = *guid;
}

void vc_change_data(struct vc_change *change)
{
	change->data = true;
}

/* ---- making it ------------------------------------------------------------------ */

static void vc_change_fill_entry(const struct vc_change *change, u8 *entry, u32 bytes,
				 struct vhdx_header_info *next)
{
	u32 nr = change->nr_zeros + change->nr_pages;
	u64 size = change->image->file.size;
	struct vhdx_log_entry_info info = {
		.entry_length = bytes,
		.descriptor_count = nr,
		.log_guid = next->log_guid,
		.flushed_file_offset = size & ~(VHDX_MIB - 1),
		.last_file_offset = (size + VHDX_MIB - 1) & ~(VHDX_MIB - 1),
	};
	struct vhdx_log_zero_descriptor *desc;
	struct vhdx_guid random;
	u8 *sector = entry + vhdx_log_entry_bytes(nr, 0);
	u32 i;

	/* Random, so that nothing an older log left can look like its successor. */
	vc_guid_random(&random);
	memcpy(&info.sequence_number, &random, sizeof(info.sequence_number));
	info.sequence_number = (info.sequence_number >> 2) + 1;
	vhdx_log_entry_build((void *)entry, &info);
	desc = (void *)(entry + sizeof(struct vhdx_log_entry_header));
	for (i = 0; i < change->nr_zeros; i++, desc++) {
		desc->signature = cpu_to_le32(VHDX_LOG_ZERO_SIGNATURE);
		desc->zero_length = cpu_to_le64(change->zeros[i].length);
		desc->file_offset = cpu_to_le64(change->zeros[i].offset);
		desc->sequence_number = cpu_to_le64(info.sequence_number);
	}
	for (i = 0; i < change->nr_pages; i++, desc++, sector += VHDX_LOG_SECTOR) {
		memcpy(sector, change->pages[i].data, VHDX_PAGE_SIZE);
		vhdx_log_data_pack(sector, (void *)desc, change->pages[i].offset,
				   info.sequence_number);
	}
	vhdx_log_entry_seal((void *)entry, vhdx_crc32c_step(~0U, entry, bytes));
}

static int vc_change_log(const struct vc_change *change, struct vhdx_header_info *next,
			 struct vc_err *err)
{
	const struct vc_file *file = &change->image->file;
	u64 bytes = vhdx_log_entry_bytes(change->nr_zeros + change->nr_pages,
					 change->nr_pages);
	u8 *entry = calloc(1, bytes);
	int ret;

	if (!entry)
		return vc_error_nomem(err);
	vc_change_fill_entry(change, entry, bytes, next);
	ret = vc_file_write(file, "log", next->log_offset, entry, bytes, err);
	free(entry);
	return ret ? ret : vc_file_sync(file, err);
}

static int vc_change_apply(const struct vc_change *change, struct vc_err *err)
{
	const struct vc_file *file = &change->image->file;
	int ret = 0;
	u32 i;

	for (i = 0; i < change->nr_zeros && !ret; i++)
		ret = vc_file_zero(file, change->zeros[i].offset, change->zeros[i].length, err);
	for (i = 0; i < change->nr_pages && !ret; i++)
		ret = vc_file_write(file, "metadata", change->pages[i].offset,
				    change->pages[i].data, VHDX_PAGE_SIZE, err);
	return ret ? ret : vc_file_sync(file, err);
}

int vc_change_commit(struct vc_change *change, struct vc_err *err)
{
	struct vc_image *image = change->image;
	struct vhdx_header_info next = image->header;
	bool logged = false;
	int ret;

	vc_guid_random(&next.log_guid);
	next.file_write_guid = change->file_guid;
	next.log_dirty = true;
	if (change->data)
		vc_guid_random(&next.data_write_guid);
	ret = vc_change_log(change, &next, err);
	if (!ret) {
		logged = true;
		image->header = next;
		ret = vc_header_update_both(image, err);
	}
	if (!ret)
		ret = vc_change_apply(change, err);
	if (!ret) {
		image->header.log_guid = vhdx_guid_zero;
		image->header.log_dirty = false;
		ret = vc_header_update_both(image, err);
	}
	if (ret && logged)
		vc_error_append(err, "; 'vhdclone recover %s' ends what was begun",
				image->file.path);
	vc_change_drop(change);
	return ret;
}
