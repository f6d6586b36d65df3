/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Parent locators (2.6.2.6): who an image's parent is and where it may be found.
 *
 * A parent that is a VHDX has the locator type of the specification, which every
 * reader knows.  A raw parent, or a VHD, cannot be said in VHDX; each gets a type of our
 * own, which any other reader must refuse.
 */
#ifndef VC_LOCATOR_H
#define VC_LOCATOR_H

#include <sys/types.h>

#include "err.h"

/* Keys of the specification's type. */
#define VC_KEY_LINKAGE		"parent_linkage"
#define VC_KEY_LINKAGE2		"parent_linkage2"
#define VC_KEY_RELATIVE		"relative_path"
#define VC_KEY_ABSOLUTE_WIN32	"absolute_win32_path"
#define VC_KEY_VOLUME		"volume_path"

/*
 * The type of a raw parent: cc0ca12a-9e33-46a4-90da-45680eec92bb.  Its keys, all
 * of them needed but the absolute path; paths are as Linux writes them:
 *
 *	relative_path	from the child's directory
 *	absolute_path
 *	size		bytes, decimal
 *	fingerprint	as vc_fingerprint() gives it
 */
extern const struct vhdx_guid vc_guid_locator_raw;

/*
 * The type of a VHD (version 1) as the parent: 4f1a6c3e-7b52-4d0e-9c18-e3a5d20b6f94.  It
 * has the keys of a raw parent, size and fingerprint being those of the file, and
 * parent_linkage, the VHD's unique ID.
 */
extern const struct vhdx_guid vc_guid_locator_vhd;

#define VC_KEY_ABSOLUTE		"absolute_path"
#define VC_KEY_SIZE		"size"
#define VC_KEY_FINGERPRINT	"fingerprint"

/*
 * While a child is merged into its raw parent, the parent's fingerprint changes.  For
 * that time there are these, too: the sampled sectors that the merge writes, and the
 * fingerprint of the others, as vc_fingerprint_masked() has them.
 */
#define VC_KEY_MERGE_MASK	"merge_mask"
#define VC_KEY_MERGE_FINGERPRINT "merge_fingerprint"

/*
 * There are five keys, and nobody is known to write others.  Strings may lie on each other:
 * without a limit an item could hold thousands of times its size.
 */
#define VC_LOCATOR_MAX_PAIRS	64U

struct vc_locator_pair {
	char *key;
	char *value;
};

struct vc_locator {
	struct vhdx_guid type;
	unsigned int nr_pairs;
	struct vc_locator_pair *pairs;
};

/**
 * vc_locator_parse() - decode and check a parent locator item
 * @item: the item, @length bytes
 * @path: the image's, for the message
 * @offset: where in the file the item lies, for the message
 * @result: to be freed with vc_locator_free()
 */
int vc_locator_parse(const void *item, u32 length, const char *path, u64 offset,
		     struct vc_locator **result, struct vc_err *err);

/* The inverse; @item is to be freed. */
int vc_locator_build(const struct vc_locator *locator, void **item, u32 *length,
		     struct vc_err *err);

struct vc_locator *vc_locator_new(const struct vhdx_guid *type);
int vc_locator_add(struct vc_locator *locator, const char *key, const char *value,
		   struct vc_err *err);

/* Replace the value of a key, or add it; take it out. */
int vc_locator_set(struct vc_locator *locator, const char *key, const char *value,
		   struct vc_err *err);
void vc_locator_unset(struct vc_locator *locator, const char *key);
const char *vc_locator_get(const struct vc_locator *locator, const char *key);
void vc_locator_free(struct vc_locator *locator);

bool vc_locator_is_raw(const struct vc_locator *locator);
bool vc_locator_is_vhd(const struct vc_locator *locator);

/**
 * vc_utf16_decode() - little-endian UTF-16 to UTF-8
 * @strict: refuse NULs and unpaired surrogates; else stop at the first
 *
 * Return: a string to be freed, NULL if it is not UTF-16 or without memory (errno).
 */
char *vc_utf16_decode(const u8 *buf, size_t bytes, bool strict);

/* Return: bytes written to @buf (at most @room), or -1 if it does not fit or is no UTF-8. */
ssize_t vc_utf16_encode(const char *text, u8 *buf, size_t room);

#endif /* VC_LOCATOR_H */
