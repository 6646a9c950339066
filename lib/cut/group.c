/* SPDX-License-Identifier: MIT */
/*
 * What every owner of cuts does around them, of one region or of several: what is prepared while faults go on, and the
 * regions' locks, taken by address, so that two groups that share regions never wait for each other. See cut.h.
 *
 * Threads: as of cut.h.
 */
#include <errno.h>

#include "base/errno_name.h"
#include "cut/cut.h"
#include "cut/move.h"

int cut_prepare(struct cut *cut)
{
	struct uffdwp_region *region = cut->region;

	lock_take(&region->lock);
	int error = region_prepare(region);
	int refused = error ? 0 : move_prepare(cut);

	if (refused && !cut_fall_back(cut))
		error = refused;
	lock_give(&region->lock);
	return error;
}

void cut_sort(struct cut **cuts, size_t count)
{
	for (size_t i = 1; i < count; i++) {
		struct cut *one = cuts[i];
		size_t at = i;

		for (; at > 0 && (uintptr_t)cuts[at - 1]->region > (uintptr_t)one->region; at--)
			cuts[at] = cuts[at - 1];
		cuts[at] = one;
	}
}

void cut_lock(struct cut *const *cuts, size_t count)
{
	for (size_t i = 0; i < count; i++)
		lock_take(&cuts[i]->region->lock);
}

void cut_unlock(struct cut *const *cuts, size_t count)
{
	for (size_t i = count; i-- > 0;)
		lock_give(&cuts[i]->region->lock);
}

int cut_any_dead(struct cut *const *cuts, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		if (atomic_load(&cuts[i]->region->dead))
			return 1;
	}
	return 0;
}

int cut_enter_refused(struct text *text, int error)
{
	return text_fail(text, error < 0 ? error : -EINVAL, "the caller's cut_enter refused: %s",
	                 error < 0 ? errno_text(error) : "no error number");
}
