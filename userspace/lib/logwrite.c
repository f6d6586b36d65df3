// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Writing to the log: see logwrite.h.
 *
 * Every entry finds all before it in place, and makes that durable before it is
 * written itself.  So each names itself as the tail, and the ring needs room for two:
 * the newest durable one, and the one on its way.
 */
#include <stdlib.h>

#include "guid.h"
#include "logwrite.h"

/* A sequence number to start from: positive, and far from the end. */
static u64 vc_log_random(void)
{
	struct vhdx_guid guid;
	__le64 number;

	vc_guid_random(&guid);
	/* The last eight bytes have the version bits of a GUID on top: not these. */
	memcpy(&number, guid.b, sizeof(number));
	return (le64_to_cpu(number) >> 2) + 1;
}

/* The entry may go around the end of the ring. */
static int vc_log_put(struct vc_log_writer *writer, u32 bytes, struct vc_err *err)
{
	const struct vhdx_header_info *h = &writer->image->header;
	const struct vc_file *file = &writer->image->file;
	u32 first = h->log_length - writer->head;
	int ret;

	if (first > bytes)
		first = bytes;
	ret = vc_file_write(file, "log", h->log_offset + writer->head, writer->buf, first, err);
	if (!ret && first < bytes)
		ret = vc_file_write(file, "log", h->log_offset, writer->buf + first,
				    bytes - first, err);
	if (!ret)
		ret = vc_file_sync(file, err);
	if (ret)
		return ret;
	writer->head = (writer->head + bytes) % h->log_length;
	writer->sequence++;
	return 0;
}

static u32 vc_log_fill(struct vc_log_writer *writer, const struct vc_log_page *pages,
		       unsigned int nr)
{
	u64 size = writer->image->file.size & ~(VHDX_MIB - 1);
	struct vhdx_log_entry_info info = {
		.entry_length = vhdx_log_entry_bytes(nr, nr),
		.tail = writer->head,
		.sequence_number = writer->sequence,
		.descriptor_count = nr,
		.log_guid = writer->image->header.log_guid,
		.flushed_file_offset = size,
		.last_file_offset = size,
	};
	struct vhdx_log_entry_header *header = (void *)writer->buf;
	struct vhdx_log_data_descriptor *desc = (void *)(header + 1);
	u8 *sector = writer->buf + vhdx_log_entry_bytes(nr, 0);
	unsigned int i;

	memset(writer->buf, 0, vhdx_log_entry_bytes(nr, 0));
	vhdx_log_entry_build(header, &info);
	for (i = 0; i < nr; i++, sector += VHDX_LOG_SECTOR) {
		memcpy(sector, pages[i].data, VHDX_PAGE_SIZE);
		vhdx_log_data_pack(sector, &desc[i], pages[i].offset, writer->sequence);
	}
	vhdx_log_entry_seal(header, vhdx_crc32c_step(~0U, writer->buf, info.entry_length));
	return info.entry_length;
}

int vc_log_start(struct vc_log_writer *writer, struct vc_image *image, struct vc_err *err)
{
	u64 bytes = vhdx_log_entry_bytes(VC_LOG_PAGES, VC_LOG_PAGES);
	struct vhdx_header_info *h = &image->header;
	u64 whole = (image->file.size + VHDX_MIB - 1) & ~(VHDX_MIB - 1);
	int ret = 0;

	*writer = (struct vc_log_writer) {
		.image = image,
		.sequence = vc_log_random(),
		.buf = malloc(bytes),
	};
	if (!writer->buf)
		return vc_error_nomem(err);
	/* The log knows whole MiB of a file only. */
	if (!image->file.is_block && image->file.size != whole) {
		ret = vc_file_resize(&image->file, whole, err);
		image->size = image->file.size;
	}
	vc_guid_random(&h->log_guid);
	vc_guid_random(&h->file_write_guid);
	if (!ret)
		ret = vc_log_put(writer, vc_log_fill(writer, NULL, 0), err);
	/* From the first of these on, the log counts. */
	if (!ret) {
		writer->open = true;
		h->log_dirty = true;
		ret = vc_header_update_both(image, err);
	}
	return ret;
}

int vc_log_write(struct vc_log_writer *writer, const struct vc_log_page *pages,
		 unsigned int nr, struct vc_err *err)
{
	const struct vc_file *file = &writer->image->file;
	unsigned int i;
	int ret;

	ret = vc_file_sync(file, err);
	if (!ret)
		ret = vc_log_put(writer, vc_log_fill(writer, pages, nr), err);
	if (ret)
		return ret;
	writer->torn = true;
	for (i = 0; i < nr && !ret; i++)
		ret = vc_file_write(file, "metadata", pages[i].offset, pages[i].data,
				    VHDX_PAGE_SIZE, err);
	writer->torn = ret;
	return ret;
}

int vc_log_stop(struct vc_log_writer *writer, struct vc_err *err)
{
	struct vc_image *image = writer->image;
	int ret = 0;

	if (writer->open && !writer->torn) {
		ret = vc_file_sync(&image->file, err);
		if (!ret) {
			image->header.log_guid = vhdx_guid_zero;
			image->header.log_dirty = false;
			ret = vc_header_update_both(image, err);
		}
	}
	free(writer->buf);
	*writer = (struct vc_log_writer) { };
	return ret;
}
