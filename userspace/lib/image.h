/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One image: opened through one descriptor, read and checked as far as its metadata. */
#ifndef VC_IMAGE_H
#define VC_IMAGE_H

#include "file.h"
#include "locator.h"

struct stat;
struct vc_overlay;
struct vc_vhd;

enum vc_format {
	VC_FORMAT_RAW,
	VC_FORMAT_VHDX,
	VC_FORMAT_VHD,		/* version 1 */
};

/**
 * struct vc_image - an open image
 * @file: the descriptor that everything goes through
 * @size: of the file, after the replay of the log
 * @table: the region table copy that is used, at @table_offset
 * @table_damaged: the other copy is damaged, or says something else
 * @creator: what wrote the file, as it says; may be empty
 * @locator: where the parent is, NULL without parent
 * @overlay: the log replayed in memory, NULL if there was nothing to replay
 *
 * @vhd: of a VHD only
 *
 * All but @file and @size are of a VHDX only; a VHD has @creator, @meta and @locator,
 * too.
 */
struct vc_image {
	struct vc_file file;
	enum vc_format format;
	u64 size;
	struct vhdx_header_info header;
	u8 *table;
	u64 table_offset;
	bool table_damaged;
	char *creator;
	struct vhdx_regions regions;
	struct vhdx_item_place items[VHDX_ITEM_COUNT];
	struct vhdx_metadata meta;
	struct vhdx_geometry geo;
	struct vc_locator *locator;
	struct vc_overlay *overlay;
	struct vc_vhd *vhd;
};

#define VC_IMAGE_WRITE		0x1U	/* open for writing */
#define VC_IMAGE_EXCLUSIVE	0x2U	/* a block device must not be in use */
#define VC_IMAGE_REPLAY		0x4U	/* replay a dirty log in memory, else refuse it */
#define VC_IMAGE_HEADERS	0x8U	/* a VHDX, no further than its headers */
#define VC_IMAGE_RAW		0x10U	/* whatever it holds, it is raw */
#define VC_IMAGE_UNREAD		0x20U	/* just open it, for vc_image_reload() later */

/**
 * vc_image_open() - open an image and read its metadata
 * @result: to be closed with vc_image_close()
 * @path: where
 * @flags: VC_IMAGE_*
 * @fence: see vc_file_open()
 * @err: filled in on error; EUCLEAN: the log must be replayed first
 *
 * A file without the signature of VHDX or VHD is raw.
 */
int vc_image_open(struct vc_image **result, const char *path, unsigned int flags,
		  const struct vc_fence *fence, struct vc_err *err);
void vc_image_close(struct vc_image *image);

/**
 * vc_image_peek() - does a path have the signature of an image?
 * @path: where
 * @format: result; VC_FORMAT_RAW if there is no signature
 * @st: result: what is there
 *
 * Never hangs, reads a sector or two only, and opens nothing but files and block devices.
 * Return: 0 or a negative errno, without a message; -EINVAL if it is neither a file nor
 * a block device.
 */
int vc_image_peek(const char *path, enum vc_format *format, struct stat *st);

/* Read all again through the same descriptor, after the file has changed. */
int vc_image_reload(struct vc_image *image, unsigned int flags, struct vc_err *err);

/* Exactly @len bytes, as they are once the log is replayed. */
int vc_image_read(const struct vc_image *image, const char *what, u64 offset, void *buf,
		  size_t len, struct vc_err *err);

/* Virtual size of a VHDX or VHD, size of a raw image. */
u64 vc_image_virtual_size(const struct vc_image *image);

/* "raw", "fixed", "dynamic" or "differencing". */
const char *vc_image_type(const struct vc_image *image);

/* "raw", "vhdx" or "vhd". */
const char *vc_format_name(enum vc_format format);

/**
 * vc_image_foreign() - does a raw image look like another known image format?
 * Return: the name of the format, or NULL.
 */
const char *vc_image_foreign(const struct vc_image *image);

/**
 * struct vc_usage - what the BAT says
 * @nr_full: FULLY_PRESENT blocks
 * @nr_partial: PARTIALLY_PRESENT blocks
 * @nr_bitmaps: sector bitmap blocks
 * @nr_placed: blocks that own a place, with the soft-anchored ones
 * @end: the end of the last structure or block, bytes, a multiple of 1 MiB
 * @claims: which MiB are taken
 */
struct vc_usage {
	u32 nr_full;
	u32 nr_partial;
	u32 nr_bitmaps;
	u32 nr_placed;
	u64 end;
	struct vhdx_claims claims;
};

/* Called for every BAT entry in use; a value other than 0 ends the walk. */
typedef int (*vc_bat_fn)(void *data, u32 number, bool is_bitmap, u64 entry,
			 struct vc_err *err);

/**
 * vc_image_walk() - check the whole BAT against the file
 * @image: a VHDX
 * @usage: result; to be freed with vc_usage_free(), also after an error
 * @fn: called for each entry that passed, may be NULL
 * @data: for @fn
 * @err: filled in on error
 */
int vc_image_walk(const struct vc_image *image, struct vc_usage *usage, vc_bat_fn fn,
		  void *data, struct vc_err *err);

/* Called for every BAT entry that did not pass. */
typedef void (*vc_bat_fault_fn)(void *data, u32 number, bool is_bitmap, u64 entry, int ret,
				const struct vhdx_fault *fault);

/* The same, but faults of entries do not end it: @fault_fn hears of all. */
int vc_image_walk_all(const struct vc_image *image, struct vc_usage *usage, vc_bat_fn fn,
		      vc_bat_fault_fn fault_fn, void *data, struct vc_err *err);

/* The same without the BAT: @usage has header section, log and regions alone. */
int vc_image_walk_regions(const struct vc_image *image, struct vc_usage *usage,
			  struct vc_err *err);
void vc_usage_free(struct vc_usage *usage);
bool vc_usage_taken(const struct vc_usage *usage, u64 mib);

/* What the file needs when every block is written. */
u64 vc_image_full_size(const struct vc_image *image, const struct vc_usage *usage);

/*
 * The length that a file should have while it is open: the target does not give the
 * space of discarded blocks to others before the next resume, so there is more of
 * it than blocks.  It is sparse, and costs nothing.
 */
u64 vc_image_open_size(const struct vc_image *image, const struct vc_usage *usage);

/*
 * Give back what is not used, as far as file system or device can.  @usage is of all
 * that is to stay.
 */
void vc_image_punch_free(const struct vc_image *image, const struct vc_usage *usage);

/**
 * vc_image_trim() - cut a file to its used length
 * @image: open for writing, its log empty
 * @cut: result: bytes that were cut off
 */
int vc_image_trim(struct vc_image *image, u64 *cut, struct vc_err *err);

/**
 * vc_header_update() - write the header copy that is not current, and flush
 * @image: its @header, with the next sequence number, is what gets written
 */
int vc_header_update(struct vc_image *image, struct vc_err *err);

/* Both copies, one after the other, so that they agree. */
int vc_header_update_both(struct vc_image *image, struct vc_err *err);

#endif /* VC_IMAGE_H */
