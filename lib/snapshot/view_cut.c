/* SPDX-License-Identifier: MIT */
/*
 * How a view comes to be: it is mapped, then cut like a snapshot without sink and thread (cut.h), and attached while
 * faults are held. What it is: region/view.h.
 *
 * Threads: callers'. While it opens, the region is reserved as for a snapshot.
 */
#include "snapshot/view_cut.h"

#include <errno.h>
#include <string.h>

#include "region/lazy.h"
#include "region/view.h"
#include "snapshot/cut.h"

static int reserve(struct uffdwp_region *region)
{
	int error = 0;

	pthread_mutex_lock(&region->lock);
	const struct lazy *lazy = atomic_load(&region->lazy);

	if (atomic_load(&region->dead))
		error = text_fail(region->text, -ESTALE, "the region was unmapped: close it");
	else if (region->snapshot_open)
		error = text_fail(region->text, -EBUSY,
		                  "a view cannot be opened while a snapshot of the region has not been freed");
	else if (region->restore_open)
		error = text_fail(region->text, -EBUSY,
		                  "a view cannot be opened while a restore of the region has not been freed");
	else if (lazy && atomic_load(&lazy->failed))
		error = text_fail(region->text, -EBUSY,
		                  "a view would show zeros where a restore has failed: punch these pages, or restore "
		                  "the region anew");
	else
		region->snapshot_open = 1;
	pthread_mutex_unlock(&region->lock);
	return error;
}

static void unreserve(struct uffdwp_region *region)
{
	pthread_mutex_lock(&region->lock);
	region->snapshot_open = 0;
	pthread_mutex_unlock(&region->lock);
}

static int check(const struct uffdwp_region *region)
{
	if (region->memory != UFFDWP_MEMORY_SHMEM || region->fd < 0 || !cut_has_rounds(region))
		return text_fail(
		        region->text, -EOPNOTSUPP,
		        "views are of shared memory whose file is known, by mechanism marker or rearm; this is "
		        "%s%s",
		        region->mechanism->name, region->fd < 0 ? " without a file" : "");
	if (atomic_load(&region->view_count) == UFFDWP_VIEWS_MAX)
		return text_fail(region->text, -EMFILE, "%d views of this region are open, which is all there may be",
		                 UFFDWP_VIEWS_MAX);
	return 0;
}

static int enter(const struct view_wish *wish, struct uffdwp_region *region)
{
	int error = wish->cut_enter ? wish->cut_enter(wish->cut_user) : 0;

	return error ? text_fail(region->text, error < 0 ? error : -EINVAL, "the caller's cut_enter refused: %s",
	                         error < 0 ? strerror(-error) : "no error number")
	             : 0;
}

static int cut(struct uffdwp_snapshot *one, const struct view_wish *wish)
{
	struct uffdwp_region *region = one->region;

	cut_rounds(&one, 1);
	int error = enter(wish, region);

	if (!error) {
		pthread_mutex_lock(&region->lock);
		error = atomic_load(&region->dead) ? -ESTALE : cut_make(&one, 1);
		pthread_mutex_unlock(&region->lock);
		if (wish->cut_leave)
			wish->cut_leave(wish->cut_user);
		if (error)
			text_fail(region->text, error, "the region could not be armed: %s", strerror(-error));
	}
	if (error)
		cut_forget(one);
	return error;
}

static int open_cut(struct uffdwp_region *region, const struct view_wish *wish, struct uffdwp_view *view)
{
	struct uffdwp_snapshot *one = pages_new(region->k, sizeof(*one));

	if (!one)
		return text_fail(region->text, -ENOMEM, "no memory for a view");
	one->k = region->k;
	one->region = region;
	one->view = view;
	one->length_bytes = view->length_bytes;
	one->pages_most = region->ledger.count;
	one->preserve.end_page = view->end_page;
	int error = cut(one, wish);

	view->pause_ns = one->pause_ns;
	pages_free(region->k, one, sizeof(*one));
	return error;
}

int view_open(struct uffdwp_region *region, const struct view_wish *wish, struct uffdwp_view **out)
{
	struct uffdwp_view *view = NULL;
	int error = check(region);

	if (!error)
		error = reserve(region);
	if (error)
		return error;
	error = view_map(region, atomic_load(&region->length_bytes), &view);
	if (!error)
		error = open_cut(region, wish, view);
	unreserve(region);
	if (error && view)
		view_unmap(view);
	if (!error)
		*out = view;
	return error;
}

void view_close(struct uffdwp_view *view)
{
	struct uffdwp_region *region = view->region;

	pthread_mutex_lock(&region->lock);
	view_detach(view);
	fault_epoch_wait(); /* and nobody breaks pages off it */
	if (!region_is_wanted(region) && !atomic_load(&region->preserve) && !region->caller_armed &&
	    !atomic_load(&region->dead))
		fault_let_all_go(region);
	pthread_mutex_unlock(&region->lock);
	view_unmap(view);
}
