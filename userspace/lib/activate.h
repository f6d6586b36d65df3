/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Opening and closing clones: everything between an image and its block device. */
#ifndef VC_ACTIVATE_H
#define VC_ACTIVATE_H

#include "active.h"
#include "chain.h"
#include "log.h"

/**
 * struct vc_open_options - how to open
 * @chain: where bases may be; its flags are set by vc_open()
 * @read_only: never write
 * @probe: let the host look at the content
 */
struct vc_open_options {
	struct vc_chain_options chain;
	bool read_only;
	bool probe;
};

/**
 * struct vc_opened - what was done
 * @path: of the block device, to be freed
 * @was_open: it was there already, nothing was done
 * @recovered: the log was replayed first
 * @capacity: size of the delta file while it is open
 * @capacity_wanted: what it needs to hold every block; more than @capacity if the
 *		     file system cannot have so large a file
 * @nr_layers: of the chain
 */
struct vc_opened {
	char *path;
	bool was_open;
	struct vc_log_report recovered;
	u64 capacity;
	u64 capacity_wanted;
	unsigned int nr_layers;
};

int vc_open(const char *path, const char *name, const struct vc_open_options *options,
	    struct vc_opened *opened, struct vc_err *err);

/**
 * struct vc_closed - what was done
 * @deferred: still in use, will go away later; the file keeps its length
 * @cut: bytes cut off the delta file
 * @uncut: why the file was not cut, empty if it was
 */
struct vc_closed {
	bool deferred;
	u64 cut;
	char uncut[VC_ERR_MSG_MAX];
};

/**
 * vc_close() - remove a clone's device and leave a clean image of its used length
 *
 * EUCLEAN: the device is gone, but the image's log must be replayed.
 */
int vc_close(const char *name, bool deferred, struct vc_closed *closed,
	     struct vc_err *err);

/**
 * vc_open_delta() - open what is behind a clone's written layer
 * @device: of the layer
 * @write: for writing
 * @image: result: VC_IMAGE_UNREAD
 *
 * While the device is there: afterwards nothing would say any more which file it was.
 */
int vc_open_delta(dev_t device, bool write, struct vc_image **image, struct vc_err *err);

/* The error EBUSY that says who uses a clone. */
int vc_busy(const struct vc_dm_device *dev, struct vc_err *err);

/* The sector size that a layer's loop device must have. */
u32 vc_layer_sector_size(const struct vc_image *image);

#endif /* VC_ACTIVATE_H */
