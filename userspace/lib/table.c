// SPDX-License-Identifier: GPL-2.0-or-later
/* Table and status lines: see table.h. */
#define _GNU_SOURCE
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "table.h"
#include "vhd.h"

static void vc_table_print_layer(FILE *out, const struct vc_image *image, dev_t device)
{
	if (image->format == VC_FORMAT_VHD && !vc_vhd_is_fixed(image)) {
		fprintf(out, " " VHDCLONE_LAYER_VHD " %u:%u %llu %u %llu", major(device),
			minor(device), vc_image_virtual_size(image) / 512,
			image->vhd->header.block_size / 512,
			image->vhd->header.bat_offset / 512);
		return;
	}
	/* A fixed VHD is a raw disk with a footer behind it. */
	if (image->format != VC_FORMAT_VHDX) {
		fprintf(out, " " VHDCLONE_LAYER_RAW " %u:%u 0 %llu", major(device),
			minor(device), vc_image_virtual_size(image) / 512);
		return;
	}
	fprintf(out, " " VHDCLONE_LAYER_VHDX " %u:%u %llu %u %u %llu %llu %u",
		major(device), minor(device), image->meta.virtual_size / 512,
		image->meta.block_size / 512, image->meta.logical_sector_size,
		image->regions.bat.offset / 512, image->header.log_offset / 512,
		image->header.log_length / 512);
}

int vc_table_possible(const struct vc_chain *chain, struct vc_err *err)
{
	u32 sector_size = chain->layer[0]->meta.logical_sector_size;
	const struct vc_image *image;
	unsigned int i;

	for (i = 1; i < chain->nr; i++) {
		image = chain->layer[i];
		if (image->format != VC_FORMAT_VHD || vc_vhd_is_fixed(image))
			continue;
		if (sector_size != VHD_SECTOR)
			return vc_error(err, EOPNOTSUPP, image->file.path,
					"a %s VHD cannot be a layer below sectors of %u bytes: make a VHDX of it with 'vhdclone convert'",
					vc_image_type(image), sector_size);
		if (image->vhd->header.block_size / 512 < VHDCLONE_LAYER_VHD_MIN_BLOCK)
			return vc_error(err, EOPNOTSUPP, image->file.path,
					"a VHD with blocks of %u bytes cannot be a layer: make a VHDX of it with 'vhdclone convert'",
					image->vhd->header.block_size);
	}
	return 0;
}

int vc_table_build(const struct vc_chain *chain, const dev_t *device, bool read_only,
		   char **params, struct vc_err *err)
{
	unsigned int i;
	size_t size;
	FILE *out;
	int ret;

	*params = NULL;
	ret = vc_table_possible(chain, err);
	if (ret)
		return ret;
	out = open_memstream(params, &size);
	if (!out)
		return vc_error_nomem(err);
	fprintf(out, "%u", chain->nr);
	for (i = 0; i < chain->nr; i++)
		vc_table_print_layer(out, chain->layer[i], device[i]);
	if (read_only)
		fprintf(out, " 1 " VHDCLONE_FEATURE_READ_ONLY);
	if (fclose(out)) {
		free(*params);
		*params = NULL;
		return vc_error_nomem(err);
	}
	return 0;
}

/* ---- parsing ------------------------------------------------------------------- */

struct vc_words {
	char *rest;
	bool bad;
};

static const char *vc_word(struct vc_words *words)
{
	const char *word = words->rest ? strsep(&words->rest, " ") : NULL;

	if (word && *word)
		return word;
	words->bad = true;
	return "";
}

static u64 vc_number(struct vc_words *words, const char *word, const char **end)
{
	char *stop;
	u64 value;

	*end = word;
	if (word[0] == '-') {
		*end = word + 1;
		return VC_STATUS_UNKNOWN;
	}
	if (!isdigit((unsigned char)*word)) {
		words->bad = true;
		return 0;
	}
	value = strtoull(word, &stop, 10);
	*end = stop;
	return value;
}

static u64 vc_word_number(struct vc_words *words)
{
	const char *end;
	u64 value = vc_number(words, vc_word(words), &end);

	if (*end)
		words->bad = true;
	return value;
}

/* "a/b" */
static u64 vc_word_pair(struct vc_words *words, u64 *second)
{
	const char *end;
	u64 value = vc_number(words, vc_word(words), &end);

	*second = 0;
	if (*end != '/') {
		words->bad = true;
		return value;
	}
	*second = vc_number(words, end + 1, &end);
	if (*end)
		words->bad = true;
	return value;
}

static dev_t vc_word_device(struct vc_words *words)
{
	const char *word = vc_word(words);
	unsigned int maj;
	unsigned int min;
	struct stat st;
	int used = 0;

	if (sscanf(word, "%u:%u%n", &maj, &min, &used) == 2 && used && !word[used])
		return makedev(maj, min);
	if (!stat(word, &st) && S_ISBLK(st.st_mode))
		return st.st_rdev;
	words->bad = true;
	return 0;
}

static void vc_parse_layer(struct vc_words *words, struct vc_table_layer *layer)
{
	const char *kind = vc_word(words);
	unsigned int args = VHDCLONE_LAYER_VHDX_ARGS;
	unsigned int skip;

	layer->raw = !strcmp(kind, VHDCLONE_LAYER_RAW);
	layer->vhd = !strcmp(kind, VHDCLONE_LAYER_VHD);
	if (layer->vhd)
		args = VHDCLONE_LAYER_VHD_ARGS;
	else if (!layer->raw && strcmp(kind, VHDCLONE_LAYER_VHDX))
		words->bad = true;
	layer->device = vc_word_device(words);
	if (layer->raw) {
		vc_word_number(words);
		layer->sectors = vc_word_number(words);
		return;
	}
	layer->sectors = vc_word_number(words);
	for (skip = 2; skip < args; skip++)
		vc_word_number(words);
}

int vc_table_parse(const char *params, struct vc_table *table, struct vc_err *err)
{
	char *copy = strdup(params);
	struct vc_words words = { .rest = copy };
	unsigned int i;
	u64 nr;

	if (!copy)
		return vc_error_nomem(err);
	memset(table, 0, sizeof(*table));
	nr = vc_word_number(&words);
	if (!nr || nr > VHDCLONE_MAX_LAYERS)
		words.bad = true;
	for (i = 0; i < nr && !words.bad; i++)
		vc_parse_layer(&words, &table->layer[i]);
	table->nr = i;
	while (!words.bad && words.rest)
		if (!strcmp(vc_word(&words), VHDCLONE_FEATURE_READ_ONLY))
			table->read_only = true;
	free(copy);
	if (words.bad)
		return vc_error(err, EINVAL, NULL, "cannot understand the table '%s'", params);
	return 0;
}

int vc_status_parse(const char *line, struct vc_status *status, struct vc_err *err)
{
	char *copy = strdup(line);
	struct vc_words words = { .rest = copy };

	if (!copy)
		return vc_error_nomem(err);
	memset(status, 0, sizeof(*status));
	status->block_sectors = vc_word_number(&words);
	status->present_blocks = vc_word_pair(&words, &status->total_blocks);
	status->partial_blocks = vc_word_number(&words);
	status->free_sectors = vc_word_number(&words);
	status->dirty_pages = vc_word_number(&words);
	status->used_log_pages = vc_word_pair(&words, &status->total_log_pages);
	status->commits = vc_word_number(&words);
	status->errors = vc_word_number(&words);
	snprintf(status->mode, sizeof(status->mode), "%s", vc_word(&words));
	free(copy);
	if (words.bad)
		return vc_error(err, EINVAL, NULL, "cannot understand the status '%s'", line);
	return 0;
}
