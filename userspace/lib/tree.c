// SPDX-License-Identifier: GPL-2.0-or-later
/* Many images, and which stands on which: see tree.h. */
#define _GNU_SOURCE
#include <fts.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>

#include "active.h"
#include "disk.h"
#include "guid.h"
#include "loop.h"
#include "tree.h"
#include "vhd.h"

/* ---- open clones ------------------------------------------------------------- */

/* One layer of an open clone. */
struct vc_open_layer {
	char name[VC_DM_NAME_MAX];
	bool top;
	dev_t device;
	bool is_loop;
	struct vc_loop_info loop;
};

struct vc_open_layers {
	unsigned int nr;
	struct vc_open_layer layer[];
};

static int vc_open_layers_add(struct vc_open_layers **layers, const char *name,
			      const struct vc_table *table)
{
	struct vc_open_layers *longer = *layers;
	struct vc_open_layer *layer;
	struct vc_err ignored;
	unsigned int i;

	longer = realloc(longer, sizeof(*longer) +
			 (longer->nr + table->nr) * sizeof(longer->layer[0]));
	if (!longer)
		return -ENOMEM;
	*layers = longer;
	for (i = 0; i < table->nr; i++) {
		layer = &longer->layer[longer->nr++];
		memset(layer, 0, sizeof(*layer));
		strcpy(layer->name, name);
		layer->top = !i;
		layer->device = table->layer[i].device;
		layer->is_loop = !vc_loop_info(layer->device, &layer->loop, &ignored);
	}
	return 0;
}

/* Whoever may not ask, sees no clone open. */
static int vc_open_layers_load(struct vc_open_layers **layers, struct vc_err *err)
{
	struct vc_dm_device *devs = NULL;
	struct vc_table *table;
	struct vc_err ignored;
	unsigned int nr = 0;
	unsigned int i;
	int ret = 0;

	*layers = calloc(1, sizeof(**layers));
	table = malloc(sizeof(*table));
	if (!*layers || !table)
		ret = -ENOMEM;
	else if (vc_dm_list(&devs, &nr, &ignored))
		nr = 0;
	for (i = 0; i < nr && !ret; i++)
		if (devs[i].params && !vc_table_parse(devs[i].params, table, &ignored))
			ret = vc_open_layers_add(layers, devs[i].name, table);
	if (nr)
		vc_dm_list_free(devs, nr);
	free(table);
	return ret ? vc_error_nomem(err) : 0;
}

static bool vc_open_layer_is(const struct vc_open_layer *layer, const struct vc_file *file)
{
	struct vc_loop_info info = layer->loop;

	if (file->is_block && file->rdev == layer->device)
		return true;
	info.whole = true;
	return layer->is_loop && vc_loop_is_over(&info, file);
}

static void vc_node_ask_open(struct vc_node *node, const struct vc_open_layers *layers)
{
	const struct vc_open_layer *layer;
	unsigned int i;
	char *names;

	for (i = 0; i < layers->nr; i++) {
		layer = &layers->layer[i];
		if (!vc_open_layer_is(layer, &node->file))
			continue;
		if (!layer->top) {
			node->nr_users++;
			continue;
		}
		if (asprintf(&names, "%s%s%s", node->open_as ? node->open_as : "",
			     node->open_as ? ", " : "", layer->name) < 0)
			continue;
		free(node->open_as);
		node->open_as = names;
	}
}

/* ---- nodes ------------------------------------------------------------------- */

static const char * const vc_node_states[] = {
	[VC_NODE_CLEAN] = "clean",
	[VC_NODE_OPEN] = "open",
	[VC_NODE_NEEDS_RECOVERY] = "needs-recovery",
	[VC_NODE_ORPHAN] = "orphan",
	[VC_NODE_CYCLE] = "cycle",
	[VC_NODE_PARENT_MISMATCH] = "parent-mismatch",
	[VC_NODE_PARENT_MISSING] = "parent-missing",
	[VC_NODE_DAMAGED] = "damaged",
};

const char *vc_node_state_name(enum vc_node_state state)
{
	return vc_node_states[state];
}

static void vc_node_wrong(struct vc_node *node, enum vc_node_state state, int errnum,
			  const char *problem)
{
	if (node->state >= state)
		return;
	free(node->problem);
	node->problem = strdup(problem);
	node->state = state;
	node->errnum = errnum;
}

static struct vc_node *vc_tree_find(const struct vc_tree *tree, const struct vc_file *file)
{
	unsigned int i;

	for (i = 0; i < tree->nr; i++)
		if (vc_file_same(&tree->node[i]->file, file))
			return tree->node[i];
	return NULL;
}

static void vc_node_free(struct vc_node *node)
{
	vc_file_close(&node->file);
	free(node->problem);
	free(node->hint);
	free(node->open_as);
	free(node);
}

static struct vc_node *vc_tree_new(struct vc_tree *tree, const struct vc_file *file,
				   struct vc_err *err)
{
	struct vc_node *node = calloc(1, sizeof(*node));
	struct vc_node **list = tree->node;

	if (node && !(tree->nr & (tree->nr + 1))) {
		list = realloc(list, 2 * (tree->nr + 1) * sizeof(*list));
		if (list)
			tree->node = list;
	}
	if (!node || !list) {
		free(node);
		vc_error_nomem(err);
		return NULL;
	}
	node->file = *file;
	node->file.fd = -1;
	node->file.path = strdup(file->path);
	node->file.real = strdup(file->real);
	if (!node->file.path || !node->file.real) {
		vc_node_free(node);
		vc_error_nomem(err);
		return NULL;
	}
	tree->node[tree->nr++] = node;
	vc_node_ask_open(node, tree->active);
	return node;
}

/* How much of the disk lies in this file. */
static void vc_node_count_own(struct vc_node *node, struct vc_image *image)
{
	struct vc_chain *chain = malloc(sizeof(*chain));
	struct vc_disk *disk = NULL;
	struct vc_extent extent;
	struct vc_err err;
	u64 offset;
	u64 size;
	int ret;

	if (!chain)
		return;
	chain->layer[0] = image;
	chain->nr = 1;
	ret = vc_disk_open(&disk, chain, 0, 1, &err);
	size = ret ? 0 : vc_disk_size(disk);
	for (offset = 0; offset < size && !ret; offset += extent.length) {
		ret = vc_disk_extent(disk, offset, size, &extent, &err);
		if (!ret && extent.kind == VC_EXTENT_DATA)
			node->own += extent.length;
	}
	node->own_known = !ret;
	/* What is being written may look like anything. */
	if (ret && !node->open_as)
		vc_node_wrong(node, VC_NODE_DAMAGED, err.errnum, err.msg);
	vc_disk_close(disk);
	free(chain);
}

/* Who an image says that it is. */
static void vc_identity(const struct vc_image *image, char *text)
{
	struct vc_err ignored;

	*text = '\0';
	if (image->format == VC_FORMAT_RAW)
		vc_fingerprint(&image->file, text, &ignored);
	else if (image->format == VC_FORMAT_VHD)
		vc_guid_format(&image->vhd->footer.unique_id, text);
	else
		vc_guid_format(&image->header.data_write_guid, text);
}

static void vc_node_fill(struct vc_node *node, struct vc_image *image)
{
	const char *expected = NULL;
	struct vhdx_guid guid;
	struct stat st;

	node->read = true;
	node->format = image->format;
	node->type = vc_image_type(image);
	node->has_parent = image->meta.has_parent;
	node->dirty = image->header.log_dirty;
	node->virtual_size = vc_image_virtual_size(image);
	node->allocated = image->file.size;
	if (!image->file.is_block && !fstat(image->file.fd, &st))
		node->allocated = (u64)st.st_blocks * 512;
	node->hint = vc_chain_hint(image);
	if (image->format != VC_FORMAT_RAW)
		vc_identity(image, node->id);
	if (image->locator)
		expected = vc_locator_get(image->locator, VC_KEY_LINKAGE);
	if (expected && vc_guid_parse(expected, &guid)) {
		vc_guid_format(&guid, node->expected);
	} else if (image->locator) {
		expected = vc_locator_get(image->locator, VC_KEY_FINGERPRINT);
		snprintf(node->expected, sizeof(node->expected), "%s",
			 expected ? expected : "");
	}
	if (node->open_as)
		node->state = VC_NODE_OPEN;
	else if (node->dirty)
		node->state = VC_NODE_NEEDS_RECOVERY;
	vc_node_count_own(node, image);
}

/* ---- one image and what it stands on ----------------------------------------- */

/* Open the parent and say what is wrong with it.  NULL if there is none to go on with. */
static struct vc_image *vc_node_parent(struct vc_node *node, const struct vc_image *child,
				       const struct vc_chain_options *options,
				       const char *named)
{
	struct vc_image *parent;
	struct vc_err err;
	int ret;

	ret = vc_chain_find_parent(child, options, named, &parent, &err);
	if (ret && parent)
		vc_node_wrong(node, VC_NODE_PARENT_MISMATCH, err.errnum, err.msg);
	else if (ret == -ENOENT || ret == -EACCES || ret == -ENOTDIR || ret == -ENXIO)
		vc_node_wrong(node, VC_NODE_PARENT_MISSING, err.errnum, err.msg);
	else if (ret)
		vc_node_wrong(node, VC_NODE_ORPHAN, err.errnum, err.msg);
	if (parent && ret == -ESTALE)
		vc_identity(parent, node->found);
	return parent;
}

/* Takes @image over. */
static int vc_tree_add_image(struct vc_tree *tree, struct vc_image *image,
			     const struct vc_chain_options *options,
			     struct vc_node **first, struct vc_err *err)
{
	struct vc_node *above = NULL;
	struct vc_node *node = NULL;
	struct vc_image *parent;
	unsigned int layer = 0;
	const char *named;
	bool known;

	for (; image; image = parent) {
		node = vc_tree_find(tree, &image->file);
		known = node;
		if (!known)
			node = vc_tree_new(tree, &image->file, err);
		if (above)
			above->parent = node;
		else if (first)
			*first = node;
		if (known || !node)
			break;
		vc_node_fill(node, image);
		named = layer < options->nr_bases ? options->bases[layer] : NULL;
		layer++;
		parent = NULL;
		if (node->has_parent)
			parent = vc_node_parent(node, image, options, named);
		vc_image_close(image);
		above = node;
	}
	vc_image_close(image);
	return node ? 0 : -ENOMEM;
}

/* A file that is an image by its look or its name, but cannot be read as one. */
static int vc_tree_add_damaged(struct vc_tree *tree, const char *path,
			       const struct vc_err *why, struct vc_node **result,
			       struct vc_err *err)
{
	struct vc_file file;
	struct vc_node *node;
	int ret;

	ret = vc_file_open(&file, path, 0, NULL, err);
	if (!ret) {
		node = vc_tree_find(tree, &file);
		if (!node) {
			node = vc_tree_new(tree, &file, err);
			if (node)
				vc_node_wrong(node, VC_NODE_DAMAGED, why->errnum, why->msg);
			else
				ret = -ENOMEM;
		}
		if (result)
			*result = node;
	}
	vc_file_close(&file);
	return ret;
}

static int vc_tree_prepare(struct vc_tree *tree, struct vc_err *err)
{
	return tree->active ? 0 : vc_open_layers_load(&tree->active, err);
}

int vc_tree_add(struct vc_tree *tree, const char *path,
		const struct vc_chain_options *options, struct vc_node **node,
		struct vc_err *err)
{
	struct vc_image *image;
	struct vc_err why;
	int ret;

	ret = vc_tree_prepare(tree, err);
	if (ret)
		return ret;
	ret = vc_image_open(&image, path, options->image_flags, NULL, &why);
	if (!ret)
		return vc_tree_add_image(tree, image, options, node, err);
	if (ret == -ENOMEM) {
		*err = why;
		return ret;
	}
	ret = vc_tree_add_damaged(tree, path, &why, node, err);
	if (ret)
		*err = why;
	return ret;
}

/* ---- directories ------------------------------------------------------------- */

static int vc_tree_unread(struct vc_tree *tree, const char *path, int errnum,
			  struct vc_err *err)
{
	char **list = realloc(tree->unread, (tree->nr_unread + 1) * sizeof(*list));

	if (!list)
		return vc_error_nomem(err);
	tree->unread = list;
	if (asprintf(&list[tree->nr_unread], "%s: cannot look into it: %s", path,
		     strerror(errnum)) < 0)
		return vc_error_nomem(err);
	tree->nr_unread++;
	return 0;
}

static bool vc_has_image_name(const char *path)
{
	static const char * const suffixes[] = { ".vhdx", ".avhdx", ".vhd", ".avhd" };
	size_t n = strlen(path);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(suffixes); i++)
		if (n > strlen(suffixes[i]) &&
		    !strcasecmp(path + n - strlen(suffixes[i]), suffixes[i]))
			return true;
	return false;
}

static int vc_tree_scan_file(struct vc_tree *tree, const char *path,
			     const struct vc_chain_options *options, struct vc_err *err)
{
	enum vc_format format;
	struct vc_err why;
	struct stat st;
	int ret;

	ret = vc_image_peek(path, &format, &st);
	if (ret && ret != -ENOENT && vc_has_image_name(path))
		return vc_tree_unread(tree, path, -ret, err);
	if (ret)
		return 0;
	if (format == VC_FORMAT_RAW) {
		if (!vc_has_image_name(path))
			return 0;
		vc_error(&why, EINVAL, path, "not the image that its name says: no signature");
		ret = vc_tree_add_damaged(tree, path, &why, NULL, err);
	} else {
		ret = vc_tree_add(tree, path, options, NULL, err);
	}
	/* It was there a moment ago. */
	return ret == -ENOENT ? 0 : ret;
}

/* The kernel shows itself there: no images, much to read, and more each time. */
static bool vc_is_pseudo(const char *dir)
{
	static const unsigned long magics[] = {
		PROC_SUPER_MAGIC, SYSFS_MAGIC, CGROUP_SUPER_MAGIC, CGROUP2_SUPER_MAGIC,
		DEBUGFS_MAGIC, TRACEFS_MAGIC, SECURITYFS_MAGIC, BPF_FS_MAGIC,
	};
	struct statfs st;
	unsigned int i;

	if (statfs(dir, &st))
		return false;
	for (i = 0; i < ARRAY_SIZE(magics); i++)
		if ((unsigned long)st.f_type == magics[i])
			return true;
	return false;
}

int vc_tree_scan(struct vc_tree *tree, const char *dir,
		 const struct vc_chain_options *options, struct vc_err *err)
{
	char *roots[2] = { };
	dev_t device = 0;
	FTSENT *entry;
	int ret;
	FTS *fts;

	roots[0] = (char *)dir;
	ret = vc_tree_prepare(tree, err);
	if (ret)
		return ret;
	fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR | FTS_COMFOLLOW, NULL);
	if (!fts)
		return vc_error_sys(err, errno, dir, "cannot look into");
	while (!ret && (entry = fts_read(fts))) {
		if (entry->fts_info == FTS_F) {
			ret = vc_tree_scan_file(tree, entry->fts_path, options, err);
		} else if (entry->fts_info == FTS_D && entry->fts_dev != device) {
			if (vc_is_pseudo(entry->fts_path))
				fts_set(fts, entry, FTS_SKIP);
			else
				device = entry->fts_dev;
		} else if (entry->fts_info != FTS_DNR && entry->fts_info != FTS_NS &&
			   entry->fts_info != FTS_ERR) {
			continue;
		} else if (!entry->fts_level) {
			ret = vc_error_sys(err, entry->fts_errno, dir, "cannot look into");
		} else if (entry->fts_errno != ENOENT) {
			ret = vc_tree_unread(tree, entry->fts_path, entry->fts_errno, err);
		}
	}
	fts_close(fts);
	return ret;
}

/* ---- what follows from all together ------------------------------------------ */

static void vc_node_cycle(struct vc_node *node)
{
	struct vc_node *at = node;

	do {
		vc_node_wrong(at, VC_NODE_CYCLE, ELOOP, "it stands on itself");
		at = at->parent;
	} while (at != node);
}

/* @turn: a number that no other walk has. */
static void vc_node_find_cycle(struct vc_node *node, unsigned int turn)
{
	for (; node; node = node->parent) {
		if (node->mark == turn) {
			vc_node_cycle(node);
			return;
		}
		if (node->mark)
			return;
		node->mark = turn;
	}
}

/* How deep it stands, and whether all below is right. */
static void vc_node_look_down(struct vc_node *node, unsigned int nr)
{
	const struct vc_node *at;
	char *problem;

	node->depth = 1;
	if (node->state == VC_NODE_CYCLE)
		return;
	/* Whoever stands on a cycle never comes to a base. */
	for (at = node->parent; at && node->depth < nr; at = at->parent) {
		node->depth++;
		/* Who is an orphan because of others is not the one at fault. */
		if (!vc_node_is_wrong(at) || (at->state == VC_NODE_ORPHAN && at->parent))
			continue;
		if (asprintf(&problem, "%s: it stands on %s, and that is: %s",
			     node->file.path, at->file.path,
			     vc_node_state_name(at->state)) < 0)
			return;
		vc_node_wrong(node, VC_NODE_ORPHAN, at->errnum, problem);
		free(problem);
		if (at->state == VC_NODE_CYCLE)
			return;
	}
	if (node->depth > VHDCLONE_MAX_LAYERS)
		vc_node_wrong(node, VC_NODE_ORPHAN, ELOOP, "it stands on too many layers");
}

static int vc_node_order(const void *a, const void *b)
{
	const struct vc_node * const *one = a;
	const struct vc_node * const *two = b;

	return strcmp((*one)->file.real, (*two)->file.real);
}

void vc_tree_finish(struct vc_tree *tree)
{
	unsigned int i;

	for (i = 0; i < tree->nr; i++)
		vc_node_find_cycle(tree->node[i], i + 1);
	for (i = 0; i < tree->nr; i++)
		vc_node_look_down(tree->node[i], tree->nr);
	for (i = 0; i < tree->nr; i++)
		tree->node[i]->mark = 0;
	if (tree->nr)
		qsort(tree->node, tree->nr, sizeof(*tree->node), vc_node_order);
}

void vc_tree_free(struct vc_tree *tree)
{
	unsigned int i;

	for (i = 0; i < tree->nr; i++)
		vc_node_free(tree->node[i]);
	for (i = 0; i < tree->nr_unread; i++)
		free(tree->unread[i]);
	free(tree->node);
	free(tree->unread);
	free(tree->active);
	memset(tree, 0, sizeof(*tree));
}
