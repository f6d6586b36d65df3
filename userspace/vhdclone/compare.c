// SPDX-License-Identifier: GPL-2.0-or-later
/* vhdclone compare */
#include "disk.h"
#include "options.h"

/* Not vc_exit: the codes of cmp(1). */
enum {
	COMPARE_SAME		= 0,
	COMPARE_DIFFERENT	= 1,
	COMPARE_FAILED		= 2,
};

#define COMPARE_PIECE	0x40000U

enum {
	OPT_STRICT = OPT_OWN,
};

static const struct option compare_options[] = {
	{ "strict", no_argument, NULL, OPT_STRICT },
	{ "quiet", no_argument, NULL, 'q' },
	{ }
};

struct compare_side {
	const char *path;
	struct vc_chain chain;
	struct vc_disk *disk;
	u64 size;
	struct vc_extent extent;	/* behind the end of the disk: zeros without end */
	u8 *buf;
};

/**
 * struct compare - one comparison
 * @side: A and B
 * @read: bytes that had to be read, of both sides together
 * @different: the first difference is at @offset
 */
struct compare {
	struct compare_side side[2];
	u64 read;
	bool different;
	u64 offset;
};

static int side_open(struct compare_side *side, const struct vc_chain_options *options,
		     struct vc_err *err)
{
	int ret;

	ret = vc_chain_open(&side->chain, side->path, options, err);
	if (!ret)
		ret = vc_disk_open(&side->disk, &side->chain, 0, side->chain.nr, err);
	if (ret)
		return ret;
	side->size = vc_disk_size(side->disk);
	side->buf = malloc(COMPARE_PIECE);
	return side->buf ? 0 : vc_error_nomem(err);
}

static void side_close(struct compare_side *side)
{
	free(side->buf);
	vc_disk_close(side->disk);
	vc_chain_close(&side->chain);
}

/* Let @extent hold @offset. */
static int side_extent(struct compare_side *side, u64 offset, struct vc_err *err)
{
	struct vc_extent *extent = &side->extent;

	if (offset - extent->offset < extent->length)
		return 0;
	if (offset < side->size)
		return vc_disk_extent(side->disk, offset, side->size, extent, err);
	*extent = (struct vc_extent){ .offset = offset, .length = ~0ULL - offset,
				      .kind = VC_EXTENT_ABSENT };
	return 0;
}

static bool same_source(const struct compare *compare, u64 offset)
{
	const struct compare_side *a = &compare->side[0];
	const struct compare_side *b = &compare->side[1];

	if (a->extent.kind != VC_EXTENT_DATA || b->extent.kind != VC_EXTENT_DATA)
		return a->extent.kind != VC_EXTENT_DATA && b->extent.kind != VC_EXTENT_DATA;
	return a->extent.place + (offset - a->extent.offset) ==
	       b->extent.place + (offset - b->extent.offset) &&
	       vc_file_same(&a->chain.layer[a->extent.layer]->file,
			    &b->chain.layer[b->extent.layer]->file);
}

static int side_read(struct compare *compare, struct compare_side *side, u64 offset,
		     size_t len, struct vc_err *err)
{
	if (side->extent.kind != VC_EXTENT_DATA) {
		memset(side->buf, 0, len);
		return 0;
	}
	compare->read += len;
	return vc_disk_read(side->disk, offset, side->buf, len, err);
}

/* Read and compare @len bytes. */
static int compare_piece(struct compare *compare, u64 offset, size_t len,
			 struct vc_err *err)
{
	struct compare_side *side = compare->side;
	size_t i;
	int ret;

	ret = side_read(compare, &side[0], offset, len, err);
	if (!ret)
		ret = side_read(compare, &side[1], offset, len, err);
	if (ret || !memcmp(side[0].buf, side[1].buf, len))
		return ret;
	for (i = 0; side[0].buf[i] == side[1].buf[i]; i++)
		;
	compare->different = true;
	compare->offset = offset + i;
	return 0;
}

static int compare_disks(struct compare *compare, struct vc_err *err)
{
	struct compare_side *side = compare->side;
	u64 size = side[0].size > side[1].size ? side[0].size : side[1].size;
	u64 offset;
	unsigned int i;
	u64 len;
	u64 left;
	int ret;

	for (offset = 0; offset < size && !compare->different; offset += len) {
		len = size - offset;
		for (i = 0; i < 2; i++) {
			ret = side_extent(&side[i], offset, err);
			if (ret)
				return ret;
			left = side[i].extent.length - (offset - side[i].extent.offset);
			len = len < left ? len : left;
		}
		if (same_source(compare, offset))
			continue;
		len = len < COMPARE_PIECE ? len : COMPARE_PIECE;
		ret = compare_piece(compare, offset, len, err);
		if (ret)
			return ret;
	}
	return 0;
}

static int compare_json(const struct compare *compare, int code)
{
	struct json_object *json = json_new();

	json_add_bool(json, "equal", code == COMPARE_SAME);
	json_add_string(json, "a", compare->side[0].path);
	json_add_string(json, "b", compare->side[1].path);
	json_add_number(json, "a-virtual-size", compare->side[0].size);
	json_add_number(json, "b-virtual-size", compare->side[1].size);
	if (compare->different)
		json_add_number(json, "offset", compare->offset);
	else
		json_object_object_add(json, "offset", NULL);
	json_add_number(json, "read-bytes", compare->read);
	return json_finish(json) ? COMPARE_FAILED : code;
}

static int compare_report(const struct compare *compare, bool strict, bool quiet, bool json)
{
	const struct compare_side *side = compare->side;
	bool sizes = strict && side[0].size != side[1].size;
	int code = compare->different || sizes ? COMPARE_DIFFERENT : COMPARE_SAME;

	if (json)
		return compare_json(compare, code);
	if (quiet)
		return code;
	if (compare->different)
		printf("The first difference is at offset %llu (sector %llu).\n",
		       compare->offset, compare->offset / 512);
	else if (sizes)
		printf("The virtual sizes differ: %llu and %llu bytes.\n", side[0].size,
		       side[1].size);
	else if (side[0].size != side[1].size)
		printf("The same, and zeros from there on: %llu and %llu bytes.\n",
		       side[0].size, side[1].size);
	else
		puts("The same.");
	return finish_stdout(code) == code ? code : COMPARE_FAILED;
}

static int compare_run(struct compare *compare, const struct vc_chain_options *options,
		       bool strict, bool quiet, bool json)
{
	struct compare_side *side = compare->side;
	struct vc_err err;
	int ret;

	ret = side_open(&side[0], options, &err);
	if (!ret)
		ret = side_open(&side[1], options, &err);
	/* With --strict the sizes alone may tell. */
	if (!ret && !(strict && side[0].size != side[1].size))
		ret = compare_disks(compare, &err);
	if (ret)
		report_error(&err);
	ret = ret ? COMPARE_FAILED : compare_report(compare, strict, quiet, json);
	side_close(&side[0]);
	side_close(&side[1]);
	return ret;
}

int cmd_compare(struct options *options)
{
	struct compare *compare;
	bool strict = false;
	bool quiet = false;
	int code;
	int opt;

	options_read_data(options);
	while ((opt = options_next(options, compare_options)) != -1) {
		if (opt == OPT_STRICT)
			strict = true;
		else
			quiet = true;
	}
	/* 1 would say that they differ. */
	if (!options_arguments(options, 2, 2, "need images A and B"))
		return options->code == VC_EXIT_OK ? VC_EXIT_OK : COMPARE_FAILED;
	compare = calloc(1, sizeof(*compare));
	if (!compare)
		return COMPARE_FAILED;
	compare->side[0].path = options->argv[0];
	compare->side[1].path = options->argv[1];
	code = compare_run(compare, &options->chain, strict, quiet, options->json);
	free(compare);
	return code;
}
