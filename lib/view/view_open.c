/* SPDX-License-Identifier: MIT */
/*
 * How a view comes to be: it is mapped, then cut (cut/cut.h), and attached while faults are stalled. What it is:
 * region/view.h.
 *
 * Threads: callers'. While it opens, the region is reserved as for a snapshot.
 */
#include "view/view_open.h"

#include <errno.h>

#include "base/errno_name.h"
#include "base/math.h"
#include "cut/cut.h"
#include "fault/phase.h"
#include "region/lazy.h"
#include "region/view.h"

static int view_open_reserve(struct uffdwp_region *region)
{
	int error = 0;

	lock_take(&region->lock);
	const struct lazy *lazy = atomic_load(&region->lazy);

	if (atomic_load(&region->dead))
		error = text_fail(region->text, -ESTALE, "%s: close it", region_death(region));
	else if (region->snapshot_open)
		error = text_fail(region->text, -EBUSY,
		                  "a view cannot be opened while a snapshot of the region has not been freed");
	else if (region->cut_comes)
		error = text_fail(region->text, -EBUSY, "another view, or a child, of the region is just being made");
	else if (region->restore_open)
		error = text_fail(region->text, -EBUSY,
		                  "a view cannot be opened while a restore of the region has not been freed");
	else if (lazy && atomic_load(&lazy->failed))
		error = text_fail(region->text, -EBUSY,
		                  "a view would show zeros where a restore has failed: punch these pages, or restore "
		                  "the region anew");
	else
		region->cut_comes = 1;
	lock_give(&region->lock);
	return error;
}

static void view_open_unreserve(struct uffdwp_region *region)
{
	lock_take(&region->lock);
	region->cut_comes = 0;
	lock_give(&region->lock);
}

static int view_open_check(const struct uffdwp_region *region)
{
	int error = region_refuse_private(region, region->text);

	if (error)
		return error;
	if (region->memory != UFFDWP_MEMORY_SHMEM || region->fd < 0 || !cut_has_rounds(region))
		return text_fail(
		        region->text, -EOPNOTSUPP,
		        "views are of shared memory whose file is known, by mechanism marker or rearm; this is "
		        "%s%s",
		        region->mechanism->name, region->fd < 0 ? " without a file" : "");
	if (atomic_load(&region->view_count) - atomic_load(&region->child_count) == UFFDWP_VIEWS_MAX)
		return text_fail(region->text, -EMFILE, "%d views of this region are open, which is all there may be",
		                 UFFDWP_VIEWS_MAX);
	return 0;
}

static int view_open_enter(const struct view_request *request, struct uffdwp_region *region)
{
	int error = request->cut_enter ? request->cut_enter(request->cut_user) : 0;

	return error ? cut_enter_refused(region->text, error) : 0;
}

static int view_open_cut(struct cut *one, const struct view_request *request)
{
	struct uffdwp_region *region = one->region;

	cut_rounds(&one, 1);
	int error = view_open_enter(request, region);

	if (!error) {
		lock_take(&region->lock);
		/* The caller may have let the region grow until now. */
		cut_set_length(one, atomic_load(&region->length_bytes));
		error = atomic_load(&region->dead) ? -ESTALE : cut_establish(&one, 1);
		lock_give(&region->lock);
		if (request->cut_leave)
			request->cut_leave(request->cut_user);
		if (error)
			text_fail(region->text, error, "the region could not be armed: %s", errno_text(error));
	}
	if (error)
		cut_forget(one);
	return error;
}

/* In the pause, with the region's lock held. */
static int view_open_establish(void *owner)
{
	struct uffdwp_view *view = owner;

	view->length_bytes = atomic_load(&view->region->length_bytes);
	view->end_page = math_round_up(view->length_bytes, view->region->page_bytes) >> view->page_shift;
	return view_attach(view);
}

static int open_cut(struct uffdwp_region *region, const struct view_request *request, struct uffdwp_view *view)
{
	struct cut one = {.establish = view_open_establish, .owner = view};

	cut_init(&one, region, atomic_load(&region->length_bytes));
	int error = view_open_cut(&one, request);

	view->pause_ns = one.pause_ns;
	return error;
}

int view_open(struct uffdwp_region *region, const struct view_request *request, struct uffdwp_view **out)
{
	struct uffdwp_view *view = NULL;
	int error = view_open_check(region);

	if (!error)
		error = view_open_reserve(region);
	if (error)
		return error;
	error = view_map(region, &view);
	if (!error)
		error = open_cut(region, request, view);
	view_open_unreserve(region);
	if (error && view)
		view_unmap(view);
	if (!error)
		*out = view;
	return error;
}

void view_close(struct uffdwp_view *view)
{
	struct uffdwp_region *region = view->region;

	lock_take(&region->lock);
	view_detach(view);
	fault_epoch_wait(); /* and no thread breaks pages off it */
	phase_quiesce_if_unwanted(region);
	lock_give(&region->lock);
	view_unmap(view);
}
