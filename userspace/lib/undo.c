// SPDX-License-Identifier: GPL-2.0-or-later
/* Undo files: see undo.h. */
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "undo.h"

#define VC_UNDO_MAGIC	"vhdclone undo 1\n"
#define VC_UNDO_ZEROS	0x8000000000000000ULL
#define VC_UNDO_PIECE	0x100000U

struct vc_undo_head {
	u8 magic[16];
	__le64 size;
	struct vhdx_guid before;
	struct vhdx_guid after;
} __packed;

struct vc_undo_record {
	__le64 offset;
	__le64 length;
} __packed;

struct vc_undo {
	const struct vc_image *image;
	struct vc_file file;
	u64 end;
	u32 crc;
	u8 *buf;
};

static int vc_undo_put(struct vc_undo *undo, const void *buf, size_t len,
		       struct vc_err *err)
{
	int ret = vc_file_write(&undo->file, "undo file", undo->end, buf, len, err);

	undo->end += len;
	undo->crc = vhdx_crc32c_step(undo->crc, buf, len);
	return ret;
}

static int vc_undo_put_record(struct vc_undo *undo, u64 offset, u64 length,
			      struct vc_err *err)
{
	struct vc_undo_record record = { cpu_to_le64(offset), cpu_to_le64(length) };

	return vc_undo_put(undo, &record, sizeof(record), err);
}

static void vc_undo_free(struct vc_undo *undo)
{
	if (undo->file.fd >= 0)
		close(undo->file.fd);
	free(undo->file.path);
	free(undo->buf);
	free(undo);
}

void vc_undo_abort(struct vc_undo *undo)
{
	if (!undo)
		return;
	unlink(undo->file.path);
	vc_undo_free(undo);
}

int vc_undo_create(struct vc_undo **result, const char *path, const struct vc_image *image,
		   const struct vhdx_guid *after, struct vc_err *err)
{
	struct vc_undo_head head = {
		.size = cpu_to_le64(image->file.size),
		.before = image->header.file_write_guid,
		.after = *after,
	};
	struct vc_undo *undo = calloc(1, sizeof(*undo));
	int ret;

	*result = NULL;
	if (!undo)
		return vc_error_nomem(err);
	undo->image = image;
	undo->crc = ~0U;
	undo->file.fd = -1;
	undo->file.path = strdup(path);
	undo->buf = malloc(VC_UNDO_PIECE);
	if (!undo->file.path || !undo->buf) {
		vc_undo_free(undo);
		return vc_error_nomem(err);
	}
	undo->file.fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	if (undo->file.fd < 0) {
		ret = vc_error_sys(err, errno, path, "cannot create the undo file");
		vc_undo_free(undo);
		return ret;
	}
	memcpy(head.magic, VC_UNDO_MAGIC, sizeof(head.magic));
	ret = vc_undo_put(undo, &head, sizeof(head), err);
	if (ret)
		vc_undo_abort(undo);
	else
		*result = undo;
	return ret;
}

static bool vc_undo_is_zero(const u8 *buf, size_t len)
{
	return !buf[0] && !memcmp(buf, buf + 1, len - 1);
}

int vc_undo_keep(struct vc_undo *undo, u64 offset, u64 length, struct vc_err *err)
{
	u64 size = undo->image->file.size;
	size_t n;
	int ret = 0;

	if (offset >= size)
		return 0;
	if (length > size - offset)
		length = size - offset;
	for (; length && !ret; offset += n, length -= n) {
		n = length < VC_UNDO_PIECE ? length : VC_UNDO_PIECE;
		ret = vc_file_read(&undo->image->file, "image", offset, undo->buf, n, err);
		if (!ret && vc_undo_is_zero(undo->buf, n)) {
			ret = vc_undo_put_record(undo, offset, n | VC_UNDO_ZEROS, err);
		} else if (!ret) {
			ret = vc_undo_put_record(undo, offset, n, err);
			if (!ret)
				ret = vc_undo_put(undo, undo->buf, n, err);
		}
	}
	return ret;
}

int vc_undo_finish(struct vc_undo *undo, struct vc_err *err)
{
	__le32 crc;
	char *directory;
	int ret;

	ret = vc_undo_put_record(undo, ~0ULL, 0, err);
	crc = cpu_to_le32(~undo->crc);
	if (!ret)
		ret = vc_file_write(&undo->file, "undo file", undo->end, &crc, sizeof(crc), err);
	if (!ret)
		ret = vc_file_sync(&undo->file, err);
	directory = vc_dirname(undo->file.path);
	if (!ret)
		ret = directory ? vc_sync_directory(directory, err) : vc_error_nomem(err);
	free(directory);
	if (ret)
		vc_undo_abort(undo);
	else
		vc_undo_free(undo);
	return ret;
}

/* ---- and back --------------------------------------------------------------------- */

static int vc_undo_check(const struct vc_file *file, u8 *buf, struct vc_err *err)
{
	u32 crc = ~0U;
	u64 offset;
	__le32 sum;
	size_t n;
	int ret;

	if (file->size < sizeof(struct vc_undo_head) + sizeof(struct vc_undo_record) + 4)
		return vc_error(err, EINVAL, file->path, "not an undo file");
	for (offset = 0; offset < file->size - 4; offset += n) {
		n = file->size - 4 - offset;
		if (n > VC_UNDO_PIECE)
			n = VC_UNDO_PIECE;
		ret = vc_file_read(file, "undo file", offset, buf, n, err);
		if (ret)
			return ret;
		crc = vhdx_crc32c_step(crc, buf, n);
		if (!offset && memcmp(buf, VC_UNDO_MAGIC, 16))
			return vc_error(err, EINVAL, file->path, "not an undo file");
	}
	ret = vc_file_read(file, "undo file", file->size - 4, &sum, sizeof(sum), err);
	if (!ret && le32_to_cpu(sum) != ~crc)
		ret = vc_error(err, EBADMSG, file->path,
			       "the undo file is damaged: its checksum is wrong");
	return ret;
}

/* Headers that cannot be read say nothing against it. */
static int vc_undo_check_image(const struct vc_undo_head *head, struct vc_image *image,
			       struct vc_err *err)
{
	const struct vhdx_guid *found = &image->header.file_write_guid;
	struct vc_err ignored;

	if (vc_image_reload(image, VC_IMAGE_HEADERS, &ignored))
		return 0;
	if (image->format == VC_FORMAT_VHDX &&
	    (vhdx_guid_equal(found, &head->before) || vhdx_guid_equal(found, &head->after)))
		return 0;
	return vc_error(err, ESTALE, image->file.path,
			"was written to since the repair, or is another image");
}

static int vc_undo_write(const struct vc_file *file, struct vc_image *image, u8 *buf,
			 struct vc_err *err)
{
	u64 from = sizeof(struct vc_undo_head);
	struct vc_undo_record record;
	u64 offset;
	u64 length;
	int ret;

	for (;;) {
		ret = vc_file_read(file, "undo file", from, &record, sizeof(record), err);
		if (ret)
			return ret;
		from += sizeof(record);
		offset = le64_to_cpu(record.offset);
		length = le64_to_cpu(record.length);
		if (offset == ~0ULL)
			return 0;
		if ((length & ~VC_UNDO_ZEROS) > VC_UNDO_PIECE)
			return vc_error(err, EINVAL, file->path, "a record is too long");
		if (length & VC_UNDO_ZEROS) {
			length &= ~VC_UNDO_ZEROS;
			memset(buf, 0, length);
		} else {
			ret = vc_file_read(file, "undo file", from, buf, length, err);
			from += length;
		}
		if (!ret)
			ret = vc_file_write(&image->file, "image", offset, buf, length, err);
		if (ret)
			return ret;
	}
}

int vc_undo_apply(const char *path, struct vc_image *image, struct vc_err *err)
{
	struct vc_undo_head head;
	struct vc_file file;
	u8 *buf = malloc(VC_UNDO_PIECE);
	int ret;

	ret = vc_file_open(&file, path, 0, NULL, err);
	if (!ret && !buf)
		ret = vc_error_nomem(err);
	if (!ret)
		ret = vc_undo_check(&file, buf, err);
	if (!ret)
		ret = vc_file_read(&file, "undo file", 0, &head, sizeof(head), err);
	if (!ret)
		ret = vc_undo_check_image(&head, image, err);
	if (!ret && !image->file.is_block)
		ret = vc_file_resize(&image->file, le64_to_cpu(head.size), err);
	if (!ret)
		ret = vc_undo_write(&file, image, buf, err);
	if (!ret)
		ret = vc_file_sync(&image->file, err);
	free(buf);
	vc_file_close(&file);
	return ret;
}
