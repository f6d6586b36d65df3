// SPDX-License-Identifier: GPL-2.0-or-later
/* Who stands on a base: see children.h. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "active.h"
#include "children.h"

#define VC_LIST_HEAD	"vhdclone children 1\n"
#define VC_LIST_SUFFIX	".vhdclone"
#define VC_LIST_MAX	(64 * VHDX_MIB)
#define VC_LIST_WAIT_MS	1000U
#define VC_LIST_TIDY	512		/* so many lines more, and the dead ones go */

/* ---- the list: its lines ----------------------------------------------------- */

/* The real path that a new or a vanished file has, or would have; to be freed. */
static char *vc_real_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *dir = vc_dirname(path);
	char *real = dir ? realpath(dir, NULL) : NULL;
	char *name = NULL;

	if (real && asprintf(&name, "%s/%s", strcmp(real, "/") ? real : "",
			     slash ? slash + 1 : path) < 0)
		name = NULL;
	free(dir);
	free(real);
	return name;
}

/* A child's line, with its end, to be freed. */
static char *vc_list_line(const char *dir, const char *child)
{
	size_t n = strlen(dir);
	char *line;
	char *p;

	line = malloc(4 * strlen(child) + 3);
	if (!line)
		return NULL;
	p = line;
	if (!strncmp(child, dir, n) && child[n] == '/') {
		*p++ = '.';
		child += n;
	}
	for (; *child; child++) {
		if (*child == '\\' || (unsigned char)*child < 0x20 || *child == 0x7f)
			p += sprintf(p, "\\%03o", (unsigned char)*child);
		else
			*p++ = *child;
	}
	strcpy(p, "\n");
	return line;
}

/* The path in a line whose end is cut off, to be freed; NULL if it is no line of ours. */
static char *vc_list_path(const char *dir, const char *line)
{
	char *path;
	char *p;

	if (*line != '/' && strncmp(line, "./", 2))
		return NULL;
	path = malloc(strlen(dir) + strlen(line) + 1);
	if (!path)
		return NULL;
	p = path;
	if (*line == '.') {
		p = stpcpy(p, dir);
		line++;
	}
	for (; *line; line++) {
		if (*line != '\\') {
			*p++ = *line;
		} else if (line[1] >= '0' && line[1] <= '3' && line[2] >= '0' &&
			   line[2] <= '7' && line[3] >= '0' && line[3] <= '7') {
			*p++ = (line[1] - '0') << 6 | (line[2] - '0') << 3 | (line[3] - '0');
			line += 3;
		} else {
			free(path);
			return NULL;
		}
	}
	*p = '\0';
	return path;
}

/* ---- the list: its file ------------------------------------------------------ */

/**
 * struct vc_list - the list of one base
 * @dir: where it is
 * @path: its file
 * @fd: locked; -1 if there is none
 * @text: what is in it, as a string
 * @size: of that
 */
struct vc_list {
	char *dir;
	char *path;
	int fd;
	char *text;
	size_t size;
};

static void vc_list_close(struct vc_list *list)
{
	if (list->fd >= 0)
		close(list->fd);
	free(list->dir);
	free(list->path);
	free(list->text);
}

/* Another process may have put a new file in place of the one that was locked. */
static bool vc_list_is_current(const struct vc_list *list)
{
	struct stat here;
	struct stat named;

	return !fstat(list->fd, &here) && !lstat(list->path, &named) &&
	       here.st_dev == named.st_dev && here.st_ino == named.st_ino;
}

/* Whoever can read the list can lock it, for as long as he likes. */
static bool vc_list_wait(int fd, int how)
{
	const struct timespec pause = { .tv_nsec = 10000000 };
	unsigned int ms;

	for (ms = 0; flock(fd, how | LOCK_NB) && errno == EWOULDBLOCK; ms += 10) {
		if (ms >= VC_LIST_WAIT_MS)
			return false;
		nanosleep(&pause, NULL);
	}
	return true;
}

static int vc_list_lock(struct vc_list *list, int flags, struct vc_err *err)
{
	bool write = flags & O_RDWR;

	for (;;) {
		list->fd = open(list->path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0644);
		if (list->fd < 0)
			return vc_error_sys(err, errno, list->path, "cannot open");
		/* To read it all the same is better than to know of no child. */
		if (!vc_list_wait(list->fd, write ? LOCK_EX : LOCK_SH) && write)
			return vc_error(err, EBUSY, list->path, "locked by another program");
		if (vc_list_is_current(list))
			return 0;
		close(list->fd);
	}
}

static int vc_list_load(struct vc_list *list, struct vc_err *err)
{
	struct vc_file file = { .path = list->path, .fd = list->fd };
	struct stat st;
	int ret;

	if (fstat(list->fd, &st))
		return vc_error_sys(err, errno, list->path, "cannot stat");
	if (!S_ISREG(st.st_mode) || (u64)st.st_size > VC_LIST_MAX)
		return vc_error(err, EINVAL, list->path, "not a list of children");
	list->size = st.st_size;
	list->text = malloc(list->size + 1);
	if (!list->text)
		return vc_error_nomem(err);
	ret = vc_file_read(&file, "list", 0, list->text, list->size, err);
	list->text[list->size] = '\0';
	if (!ret && list->size &&
	    strncmp(list->text, VC_LIST_HEAD, strlen(VC_LIST_HEAD)))
		ret = vc_error(err, EINVAL, list->path, "not a list of children");
	return ret;
}

/* ENOENT if there is none, and @flags do not say to make it. */
static int vc_list_open(struct vc_list *list, const struct vc_file *base, int flags,
			struct vc_err *err)
{
	const char *name = strrchr(base->real, '/') + 1;
	int ret;

	*list = (struct vc_list){ .fd = -1 };
	list->dir = vc_dirname(base->real);
	if (!list->dir || asprintf(&list->path, "%s/.%s" VC_LIST_SUFFIX, list->dir, name) < 0) {
		list->path = NULL;
		return vc_error_nomem(err);
	}
	ret = vc_list_lock(list, flags, err);
	return ret ? ret : vc_list_load(list, err);
}

typedef int (*vc_line_fn)(void *data, const char *line, const char *path);

/* Each line that is one, cut at its end. */
static int vc_list_each(struct vc_list *list, vc_line_fn fn, void *data)
{
	char *line = list->text;
	char *end;
	char *path;
	int ret = 0;

	while (!ret && (end = memchr(line, '\n', list->text + list->size - line))) {
		*end = '\0';
		path = vc_list_path(list->dir, line);
		if (path)
			ret = fn(data, line, path);
		free(path);
		line = end + 1;
	}
	return ret;
}

struct vc_list_rewrite {
	FILE *out;
	const char *without;
	unsigned int kept;
};

static int vc_list_keep(void *data, const char *line, const char *path)
{
	struct vc_list_rewrite *rewrite = data;
	struct stat st;

	if (rewrite->without ? !strcmp(path, rewrite->without) : lstat(path, &st) < 0)
		return 0;
	rewrite->kept++;
	return fprintf(rewrite->out, "%s\n", line) < 0;
}

/* Write it anew without one path, or (NULL) without all that are gone. */
static int vc_list_rewrite(struct vc_list *list, const char *without, struct vc_err *err)
{
	struct vc_list_rewrite rewrite = { .without = without };
	char *aside;
	int bad;
	int fd;

	if (asprintf(&aside, "%s.XXXXXX", list->path) < 0)
		return vc_error_nomem(err);
	fd = mkostemp(aside, O_CLOEXEC);
	rewrite.out = fd < 0 ? NULL : fdopen(fd, "w");
	bad = !rewrite.out || fchmod(fd, 0644) || fputs(VC_LIST_HEAD, rewrite.out) < 0 ||
	      vc_list_each(list, vc_list_keep, &rewrite) || fflush(rewrite.out) || fsync(fd);
	if (!bad)
		bad = rewrite.kept ? rename(aside, list->path) : unlink(list->path);
	if (bad)
		bad = vc_error_sys(err, errno, list->path, "cannot write");
	if (fd >= 0 && (bad || !rewrite.kept))
		unlink(aside);
	if (rewrite.out)
		fclose(rewrite.out);
	free(aside);
	return bad;
}

static unsigned int vc_list_lines(const struct vc_list *list)
{
	const char *p = list->text;
	unsigned int nr = 0;

	while ((p = strchr(p, '\n'))) {
		p++;
		nr++;
	}
	return nr;
}

/* Is the line there?  All lines but the head have one before them. */
static bool vc_list_has(const struct vc_list *list, const char *line)
{
	const char *p = list->text;

	while ((p = strstr(p, line))) {
		if (p > list->text && p[-1] == '\n')
			return true;
		p++;
	}
	return false;
}

/* One write: whole, or cut off before its end, which a reader passes over. */
static int vc_list_append(const struct vc_list *list, const char *line, struct vc_err *err)
{
	const char *head = list->size ? "" : VC_LIST_HEAD;
	const char *end = "";
	char *text;
	ssize_t n;
	int len;

	if (list->size && list->text[list->size - 1] != '\n')
		end = "\n";
	len = asprintf(&text, "%s%s%s", end, head, line);
	if (len < 0)
		return vc_error_nomem(err);
	n = write(list->fd, text, len);
	free(text);
	if (n != len)
		return vc_error_sys(err, n < 0 ? errno : ENOSPC, list->path, "cannot write");
	return 0;
}

int vc_children_add(const struct vc_file *base, const char *child, struct vc_err *err)
{
	struct vc_list list;
	char *line = NULL;
	char *real;
	int ret;

	if (base->is_block)
		return 0;
	real = vc_real_name(child);
	if (!real)
		return vc_error_sys(err, errno, child, "cannot resolve");
	ret = vc_list_open(&list, base, O_RDWR | O_CREAT | O_APPEND, err);
	if (!ret) {
		line = vc_list_line(list.dir, real);
		if (!line)
			ret = vc_error_nomem(err);
		else if (!vc_list_has(&list, line))
			ret = vc_list_append(&list, line, err);
	}
	if (!ret && vc_list_lines(&list) % VC_LIST_TIDY == VC_LIST_TIDY - 1) {
		free(list.text);
		list.text = NULL;
		ret = vc_list_load(&list, err);
		if (!ret)
			ret = vc_list_rewrite(&list, NULL, err);
	}
	vc_list_close(&list);
	free(line);
	free(real);
	return ret;
}

int vc_children_remove(const struct vc_file *base, const char *child, struct vc_err *err)
{
	struct vc_list list;
	char *real;
	int ret;

	if (base->is_block)
		return 0;
	real = vc_real_name(child);
	if (!real)
		return vc_error_sys(err, errno, child, "cannot resolve");
	ret = vc_list_open(&list, base, O_RDWR, err);
	if (!ret)
		ret = vc_list_rewrite(&list, real, err);
	else if (ret == -ENOENT)
		ret = 0;
	vc_list_close(&list);
	free(real);
	return ret;
}

/* ---- finding ----------------------------------------------------------------- */

struct vc_finder {
	const struct vc_image *base;
	struct vc_children *result;
	struct vc_err *err;
};

static struct vc_child *vc_child_known(struct vc_children *children, const char *path,
				       const struct stat *st)
{
	struct vc_child *child;
	unsigned int i;

	for (i = 0; i < children->nr; i++) {
		child = &children->child[i];
		if (st ? child->ino == st->st_ino && child->dev == st->st_dev :
			 !strcmp(child->path, path))
			return child;
	}
	return NULL;
}

/* @st: of the file, NULL if it is not known. */
static struct vc_child *vc_child_new(struct vc_finder *finder, const char *path,
				     const struct stat *st)
{
	struct vc_children *children = finder->result;
	struct vc_child *child = NULL;

	if (!(children->nr & (children->nr + 1))) {
		child = realloc(children->child, 2 * (children->nr + 1) * sizeof(*child));
		if (!child)
			goto nomem;
		children->child = child;
	}
	child = &children->child[children->nr];
	*child = (struct vc_child){ .path = strdup(path) };
	if (!child->path)
		goto nomem;
	if (st) {
		child->dev = st->st_dev;
		child->ino = st->st_ino;
	}
	children->nr++;
	return child;
nomem:
	vc_error_nomem(finder->err);
	return NULL;
}

/* Look at one file.  Return: -ENOMEM, or 0 whatever it was. */
static int vc_find_file(struct vc_finder *finder, const char *path)
{
	enum vc_format format = VC_FORMAT_RAW;
	struct vc_image *image;
	struct vc_child *child;
	struct vc_err ignored;
	struct stat st;
	int ret;

	ret = vc_image_peek(path, &format, &st);
	if (ret && ret != -ENOENT && ret != -EINVAL && ret != -ENXIO)
		finder->result->nr_unread++;
	if (ret || format == VC_FORMAT_RAW)
		return 0;
	if (st.st_dev == finder->base->file.dev && st.st_ino == finder->base->file.ino)
		return 0;
	if (vc_child_known(finder->result, path, &st))
		return 0;
	if (vc_image_open(&image, path, VC_IMAGE_REPLAY, NULL, &ignored)) {
		finder->result->nr_unread++;
		return 0;
	}
	if (image->meta.has_parent && vc_chain_leads_to(image, finder->base)) {
		child = vc_child_new(finder, image->file.real, &st);
		if (child)
			child->mismatch = vc_chain_check_parent(image, finder->base, &ignored);
		else
			ret = -ENOMEM;
	}
	vc_image_close(image);
	return ret;
}

static int vc_find_listed(void *data, const char *line __always_unused, const char *path)
{
	return vc_find_file(data, path);
}

static int vc_find_in_list(struct vc_finder *finder)
{
	struct vc_err ignored;
	struct vc_list list;
	int ret;

	if (finder->base->file.is_block)
		return 0;
	ret = vc_list_open(&list, &finder->base->file, O_RDONLY, &ignored);
	if (!ret) {
		ret = vc_list_each(&list, vc_find_listed, finder);
	} else {
		finder->result->nr_unread += ret != -ENOENT;
		ret = 0;
	}
	vc_list_close(&list);
	return ret;
}

static int vc_find_in_tree(struct vc_finder *finder, const char *dir, bool below)
{
	char *roots[2] = { };
	FTSENT *entry;
	int ret = 0;
	FTS *fts;

	roots[0] = (char *)dir;
	fts = fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
	if (!fts)
		return vc_error_sys(finder->err, errno, dir, "cannot look into");
	while (!ret && (entry = fts_read(fts))) {
		if (entry->fts_info == FTS_F)
			ret = vc_find_file(finder, entry->fts_path);
		else if (entry->fts_info == FTS_D && entry->fts_level && !below)
			fts_set(fts, entry, FTS_SKIP);
		else if (entry->fts_info != FTS_DNR && entry->fts_info != FTS_NS &&
			 entry->fts_info != FTS_ERR)
			continue;
		else if (!entry->fts_level)
			ret = vc_error_sys(finder->err, entry->fts_errno, dir,
					   "cannot look into");
		else if (entry->fts_errno != ENOENT)
			finder->result->nr_unread++;
	}
	fts_close(fts);
	return ret;
}

/* The layer above the base in an open clone. */
static int vc_find_in_table(struct vc_finder *finder, const struct vc_dm_device *dev,
			    const struct vc_table *table, unsigned int layer)
{
	char *path = vc_device_path(table->layer[layer].device);
	struct vc_child *child;
	struct stat st;
	bool known;
	int ret = 0;

	if (!path)
		return vc_error_nomem(finder->err);
	known = !stat(path, &st) && S_ISREG(st.st_mode);
	child = vc_child_known(finder->result, path, known ? &st : NULL);
	if (!child)
		child = vc_child_new(finder, path, known ? &st : NULL);
	free(path);
	if (!child)
		return -ENOMEM;
	if (!child->open_as) {
		child->open_as = strdup(dev->name);
		if (!child->open_as)
			ret = vc_error_nomem(finder->err);
	}
	return ret;
}

static int vc_find_active(struct vc_finder *finder)
{
	struct vc_dm_device *devs;
	struct vc_table *table;
	struct vc_err ignored;
	unsigned int layer;
	unsigned int nr;
	unsigned int i;
	int ret;

	table = malloc(sizeof(*table));
	if (!table)
		return vc_error_nomem(finder->err);
	ret = vc_dm_list(&devs, &nr, finder->err);
	if (ret)
		goto out;
	for (i = 0; i < nr && !ret; i++) {
		if (!devs[i].params || vc_table_parse(devs[i].params, table, &ignored))
			continue;
		for (layer = 1; layer < table->nr && !ret; layer++)
			if (vc_device_is_over(table->layer[layer].device, &finder->base->file))
				ret = vc_find_in_table(finder, &devs[i], table, layer - 1);
	}
	vc_dm_list_free(devs, nr);
out:
	free(table);
	return ret;
}

static int vc_child_order(const void *a, const void *b)
{
	const struct vc_child *one = a;
	const struct vc_child *two = b;

	return strcmp(one->path, two->path);
}

int vc_children_find(const struct vc_image *base, const char **dirs, unsigned int nr_dirs,
		     struct vc_children *result, struct vc_err *err)
{
	struct vc_finder finder = { .base = base, .result = result, .err = err };
	char *own = vc_dirname(base->file.real);
	unsigned int i;
	int ret;

	memset(result, 0, sizeof(*result));
	if (!own)
		return vc_error_nomem(err);
	ret = vc_find_in_list(&finder);
	/* The directory of a device node has no images. */
	if (!ret && !base->file.is_block)
		ret = vc_find_in_tree(&finder, own, false);
	for (i = 0; i < nr_dirs && !ret; i++)
		ret = vc_find_in_tree(&finder, dirs[i], true);
	if (!ret)
		ret = vc_find_active(&finder);
	if (result->nr)
		qsort(result->child, result->nr, sizeof(*result->child), vc_child_order);
	free(own);
	return ret;
}

void vc_children_free(struct vc_children *children)
{
	unsigned int i;

	for (i = 0; i < children->nr; i++) {
		free(children->child[i].path);
		free(children->child[i].open_as);
	}
	free(children->child);
	memset(children, 0, sizeof(*children));
}
