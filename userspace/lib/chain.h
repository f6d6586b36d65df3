/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Chains: an image, its parent, that one's parent, down to the base.
 *
 * The path of a parent stands in the child, which may come from anybody.  It is
 * followed to regular files in the child's directory or below it, and to files and
 * devices below the roots that the administrator allows.  What the user names
 * himself is followed anywhere.  All this is judged after symbolic links and ".."
 * are resolved.  And whatever was found must be the parent that the child expects.
 */
#ifndef VC_CHAIN_H
#define VC_CHAIN_H

#include "image.h"
#include "dm-vhdclone-if.h"

/* Colon separated directories that may hold bases. */
#define VC_BASE_PATH_ENV	"VHDCLONE_BASE_PATH"

/**
 * struct vc_chain - layers of a clone
 * @nr: layers
 * @layer: layer[0] is the top, layer[@nr - 1] the base
 */
struct vc_chain {
	unsigned int nr;
	struct vc_image *layer[VHDCLONE_MAX_LAYERS];
};

/**
 * struct vc_chain_options - how to walk
 * @image_flags: VC_IMAGE_* for the top
 * @base_flags: VC_IMAGE_* for all others
 * @bases: parents that the user named, the top's first
 * @nr_bases: so many
 * @roots: directories in which parents may be
 * @nr_roots: so many
 * @share: what the layers hold will be read: see vc_active_share()
 */
struct vc_chain_options {
	unsigned int image_flags;
	unsigned int base_flags;
	const char **bases;
	unsigned int nr_bases;
	const char **roots;
	unsigned int nr_roots;
	bool share;
};

/**
 * vc_chain_open() - open an image and all below it
 * @chain: result; to be closed with vc_chain_close(), also after an error: it then
 *	   holds the layers down to the one at fault
 * @path: of the top
 * @options: how
 * @err: filled in on error
 *
 * Checks identity, sector sizes, depth, and that no image stands in it twice.
 */
int vc_chain_open(struct vc_chain *chain, const char *path,
		  const struct vc_chain_options *options, struct vc_err *err);

/* The same below a top that is open already and becomes the chain's. */
int vc_chain_walk(struct vc_chain *chain, struct vc_image *top,
		  const struct vc_chain_options *options, struct vc_err *err);
void vc_chain_close(struct vc_chain *chain);

/* Does the chain hold this file? */
bool vc_chain_has(const struct vc_chain *chain, const struct vc_file *file);

/**
 * vc_chain_find_parent() - open what an image's locator leads to
 * @child: has a parent
 * @options: how to open it, and where it may be
 * @named: where the user says that it is, or NULL
 * @result: to be closed with vc_image_close(), also after an error
 * @err: filled in on error
 *
 * Each place is tried until the parent itself is found.  Failing that, the result is what
 * was found first in place of it, NULL if nothing was.
 * Return: 0; what vc_chain_check_parent() says of the result; or why there is none.
 */
int vc_chain_find_parent(const struct vc_image *child,
			 const struct vc_chain_options *options, const char *named,
			 struct vc_image **result, struct vc_err *err);

/* Is this the parent that the child expects?  ESTALE: it is another, or was changed. */
int vc_chain_check_parent(const struct vc_image *child, const struct vc_image *parent,
			  struct vc_err *err);

/*
 * Does the child's locator lead to this file, whatever is in it?  If it leads to
 * nothing: would the child take it?  No parent is opened.
 */
bool vc_chain_leads_to(const struct vc_image *child, const struct vc_image *base);

/**
 * vc_chain_hint() - where a child says that its parent is
 * Return: a path to be freed, as the child's locator has it, or NULL.
 */
char *vc_chain_hint(const struct vc_image *child);

/**
 * vc_fingerprint() - tell a raw base from another, or from itself when changed
 * @file: the base
 * @text: result, VC_FINGERPRINT_TEXT bytes
 * @err: filled in on error
 *
 * Sampled: the first and the last 4 KiB and 64 pieces of 4 KiB evenly between,
 * under two independent sums of 64 bits.  A base changed elsewhere is not noticed;
 * reading all of it at every open would take minutes.
 */
#define VC_FINGERPRINT_TEXT	40
int vc_fingerprint(const struct vc_file *file, char *text, struct vc_err *err);

/*
 * The same without some of the sampled sectors: @mask has a bit for each, lowest first,
 * in the order of vc_fingerprint_sector(), which gives the number on the disk of the
 * @i-th one.  The samples lie anywhere, so that 4 KiB may touch 9 sectors.  As if the
 * file had @size bytes, at least as many as it has: those that it has not are zeros.
 */
#define VC_SAMPLE_SECTORS	9U
#define VC_FINGERPRINT_SECTORS	(66U * VC_SAMPLE_SECTORS)
#define VC_FINGERPRINT_MASK	((VC_FINGERPRINT_SECTORS + 7) / 8)
int vc_fingerprint_masked(const struct vc_file *file, u64 size, const u8 *mask, char *text,
			  struct vc_err *err);
u64 vc_fingerprint_sector(u64 size, unsigned int i);

#endif /* VC_CHAIN_H */
