// SPDX-License-Identifier: GPL-2.0-only
/*
 * dm-vhdclone: free space on the delta device.
 *
 * Next fit over a bitmap of MiB.  Nothing is given back to others while the clone
 * is active (see the comment on locks in dm-vhdclone.h), so the cursor only moves
 * on: the search does not start over until it reached the end once.
 */
#include "dm-vhdclone.h"

#include <linux/bitmap.h>

s64 vc_space_search(struct vc_space *space, u32 nr_mib)
{
	u64 mib;

	if (space->nr_free < nr_mib || (space->exhausted && nr_mib >= space->run))
		return -ENOSPC;

	mib = bitmap_find_next_zero_area(space->used, space->nr_mib, space->cursor,
					 nr_mib, 0);
	if (mib >= space->nr_mib && space->cursor)
		mib = bitmap_find_next_zero_area(space->used, space->nr_mib, 0,
						 nr_mib, 0);
	if (mib >= space->nr_mib) {
		/* Do not search again and again under the lock. */
		if (nr_mib <= space->run)
			space->exhausted = true;
		return -ENOSPC;
	}

	bitmap_set(space->used, mib, nr_mib);
	space->nr_free -= nr_mib;
	space->cursor = mib + nr_mib;
	return mib;
}

void vc_space_give_back(struct vc_space *space, u64 mib, u32 nr_mib)
{
	bitmap_clear(space->used, mib, nr_mib);
	space->nr_free += nr_mib;
	space->cursor = min(space->cursor, mib);
	space->exhausted = false;
}
