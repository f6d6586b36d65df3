// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-vhdclone: the arguments of a table, as the constructor gets them.  See
 * dm-vhdclone-if.h for the grammar.  Nothing but parsing, so that it can be fuzzed
 * outside of the kernel.
 */
#include "dm-vhdclone-table.h"

#define VC_MAX_SECTORS	(~0ULL >> 1 >> SECTOR_SHIFT)

static int vc_parse_number(struct dm_arg_set *as, u64 *value)
{
	const char *arg = dm_shift_arg(as);

	return !arg || kstrtou64(arg, 10, value) ? -EINVAL : 0;
}

static int vc_parse_raw(struct dm_arg_set *as, struct vc_layer_args *args, char **error)
{
	u64 first, sectors;

	if (vc_parse_number(as, &first) || vc_parse_number(as, &sectors) || !sectors ||
	    sectors > VC_MAX_SECTORS || first > VC_MAX_SECTORS) {
		*error = "Invalid raw layer: want <dev> <first sector> <sectors>";
		return -EINVAL;
	}
	args->raw = true;
	args->first = first;
	args->sectors = sectors;
	return 0;
}

static int vc_parse_vhdx(struct dm_arg_set *as, struct vc_layer_args *args, char **error)
{
	u64 sectors, block, size, bat, log, log_sectors;
	const u64 mib = 1ULL << MIB_SECTOR_SHIFT;
	struct vhdx_geometry geo;
	struct vhdx_fault fault;

	if (vc_parse_number(as, &sectors) || vc_parse_number(as, &block) ||
	    vc_parse_number(as, &size) || vc_parse_number(as, &bat) ||
	    vc_parse_number(as, &log) || vc_parse_number(as, &log_sectors)) {
		*error = "Invalid vhdx layer: want <dev> and six numbers";
		return -EINVAL;
	}
	if (sectors > VHDX_MAX_VIRTUAL_SIZE >> SECTOR_SHIFT ||
	    block > VHDX_MAX_BLOCK_SIZE >> SECTOR_SHIFT || size > VHDX_PAGE_SIZE ||
	    vhdx_geometry_init(&geo, sectors << SECTOR_SHIFT, block << SECTOR_SHIFT, size,
			       true, &fault)) {
		*error = "Invalid virtual size, block size or sector size";
		return -EINVAL;
	}
	if (!bat || bat % mib || bat > (u64)VHDX_MAX_FILE_MIB << MIB_SECTOR_SHIFT) {
		*error = "Invalid BAT sector";
		return -EINVAL;
	}
	if (!log || log % mib || log > (u64)VHDX_MAX_FILE_MIB << MIB_SECTOR_SHIFT ||
	    !log_sectors || log_sectors % mib ||
	    log_sectors > VHDX_MAX_LOG_LENGTH >> SECTOR_SHIFT) {
		*error = "Invalid log sector or length";
		return -EINVAL;
	}
	args->sectors = sectors;
	args->block_sectors = block;
	args->sector_size = size;
	args->bat = bat;
	args->log = log;
	args->log_sectors = log_sectors;
	return 0;
}

static int vc_parse_vhd(struct dm_arg_set *as, struct vc_layer_args *args, char **error)
{
	u64 sectors, block, bat;

	if (vc_parse_number(as, &sectors) || vc_parse_number(as, &block) ||
	    vc_parse_number(as, &bat)) {
		*error = "Invalid vhd layer: want <dev> and three numbers";
		return -EINVAL;
	}
	if (!sectors || sectors > VHD_MAX_DYNAMIC_SIZE >> VHD_SECTOR_SHIFT ||
	    block < VHDCLONE_LAYER_VHD_MIN_BLOCK ||
	    block > VHD_MAX_BLOCK_SIZE >> VHD_SECTOR_SHIFT || (block & (block - 1)) ||
	    !bat || bat >= VHD_NO_BLOCK) {
		*error = "Invalid virtual size, block size or BAT sector of a vhd layer";
		return -EINVAL;
	}
	args->vhd = true;
	args->sectors = sectors;
	args->block_sectors = block;
	args->sector_size = VHD_SECTOR;
	args->bat = bat;
	return 0;
}

int vc_parse_nr_layers(struct dm_arg_set *as, unsigned int *nr_layers, char **error)
{
	u64 nr;

	if (vc_parse_number(as, &nr) || !nr || nr > VHDCLONE_MAX_LAYERS) {
		*error = "Invalid number of layers";
		return -EINVAL;
	}
	*nr_layers = nr;
	return 0;
}

int vc_parse_layer(struct dm_arg_set *as, struct vc_layer_args *args, const char **path,
		   char **error)
{
	const char *kind = dm_shift_arg(as);

	*path = dm_shift_arg(as);
	if (!kind || !*path) {
		*error = "Not as many layers as the table says";
		return -EINVAL;
	}
	if (!strcmp(kind, VHDCLONE_LAYER_VHDX))
		return vc_parse_vhdx(as, args, error);
	if (!strcmp(kind, VHDCLONE_LAYER_VHD))
		return vc_parse_vhd(as, args, error);
	if (!strcmp(kind, VHDCLONE_LAYER_RAW))
		return vc_parse_raw(as, args, error);
	*error = "Unknown kind of layer: want vhdx, vhd or raw";
	return -EINVAL;
}

int vc_check_layer(const struct vc_layer_args *args, unsigned int i,
		   unsigned int nr_layers, const struct vc_layer_args *top, char **error)
{
	if (!i && (args->raw || args->vhd)) {
		*error = "The top layer must be vhdx";
		return -EINVAL;
	}
	if (args->raw) {
		if (i != nr_layers - 1) {
			*error = "A raw layer can only be the last one";
			return -EINVAL;
		}
	} else if (args->sector_size != top->sector_size) {
		*error = "Layers have different logical sector sizes";
		return -EINVAL;
	}
	return 0;
}

int vc_parse_features(struct dm_arg_set *as, struct vc_features *features, char **error)
{
	u64 argc;

	if (!as->argc)
		return 0;
	/* Not dm_read_arg_group(): it takes 2^32 + 1 for 1. */
	if (vc_parse_number(as, &argc) || argc > VHDCLONE_MAX_FEATURE_ARGS ||
	    argc > as->argc) {
		*error = "Invalid number of feature arguments";
		return -EINVAL;
	}

	while (argc) {
		const char *arg = dm_shift_arg(as);

		argc--;
		if (!strcasecmp(arg, VHDCLONE_FEATURE_READ_ONLY)) {
			features->read_only = true;
		} else if (!strcasecmp(arg, VHDCLONE_FEATURE_NO_PASSDOWN)) {
			features->no_discard_passdown = true;
		} else if (!strcasecmp(arg, VHDCLONE_FEATURE_LOW_WATER) && argc) {
			argc--;
			if (vc_parse_number(as, &features->low_water_blocks)) {
				*error = "Invalid low water mark";
				return -EINVAL;
			}
			features->has_low_water = true;
		} else {
			*error = "Unknown feature argument";
			return -EINVAL;
		}
	}
	if (as->argc) {
		*error = "Too many arguments";
		return -EINVAL;
	}
	return 0;
}
