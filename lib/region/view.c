/* SPDX-License-Identifier: MIT */
/* Breaking pages off views; see view.h. Part of the fault path. */
#include "region/view.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/math.h"
#include "kernel/backoff.h"
#include "kernel/mapping.h"
#include "kernel/own.h"
#include "region/registry.h"

/* ---- fault path ---- */

/* What is read here is the view's page in any case: of the file, which is still protected, or its own already. */
static int view_break_off(struct uffdwp_view *view, uint64_t page)
{
	uint64_t at = (uint64_t)(uintptr_t)view->base + (page << view->page_shift);
	int error = own_check(view->k, view->mem, view->tag);

	return error ? error : mapping_rewrite(view->k, view->mem, at);
}

/* No thread can read pages [first, end) any more. Should the kernel refuse that, for it would split the mapping, no
 * thread can read any: to take the whole mapping splits nothing, so that there is no reason to refuse it. */
static void view_forbid_run(const struct uffdwp_view *view, uint64_t first, uint64_t end)
{
	unsigned shift = view->page_shift;

	if (view->k->mprotect(view->base + (first << shift), (end - first) << shift, PROT_NONE))
		view->k->mprotect(view->base, view->map_bytes, PROT_NONE);
}

/* A page that is not its own may change from now on: a thread that reads it gets a signal, not a wrong byte. */
static void view_give_up(struct uffdwp_view *view, uint64_t page, int error)
{
	int none = 0;

	atomic_compare_exchange_strong(&view->error, &none, error);
	view_forbid_run(view, page, page + 1);
}

static void view_break_page(struct uffdwp_view *view, uint64_t page)
{
	uint64_t bit = 1ull << (page % 64);

	if (atomic_load_explicit(&view->broken[page / 64], memory_order_acquire) & bit)
		return;
	int error = view_break_off(view, page);

	if (error)
		view_give_up(view, page, error);
	/* Two threads may break the same page; only now it is safe for others to unprotect it. */
	if (!(atomic_fetch_or(&view->broken[page / 64], bit) & bit))
		atomic_fetch_add_explicit(&view->pages_broken, 1, memory_order_relaxed);
}

/* The thread that stalls or resumes writes finds a view in its slot, or it is not in the epoch any more. */
int view_break_all(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	int waits = 0;

	for (unsigned i = 0; i < REGION_VIEWS_MAX; i++) {
		struct uffdwp_view *view = atomic_load_explicit(&region->views[i], memory_order_acquire);

		if (view && view->child)
			waits |= view_child_break(view, first, math_min_u64(end, view->end_page));
		for (uint64_t page = first; view && !view->child && page < math_min_u64(end, view->end_page); page++)
			view_break_page(view, page);
	}
	epoch_leave(ticket);
	return waits;
}

/* What is not the view's own, in runs. */
static void view_forbid(const struct uffdwp_view *view)
{
	for (uint64_t page = 0, end; page < view->end_page; page = end + 1) {
		for (end = page; end < view->end_page; end++) {
			if (atomic_load(&view->broken[end / 64]) >> (end % 64) & 1)
				break;
		}
		if (end > page)
			view_forbid_run(view, page, end);
	}
}

void view_fail_all(struct uffdwp_region *region, int error)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);

	for (unsigned i = 0; i < REGION_VIEWS_MAX; i++) {
		struct uffdwp_view *view = atomic_load_explicit(&region->views[i], memory_order_acquire);
		int none = 0;

		if (!view)
			continue;
		atomic_compare_exchange_strong(&view->error, &none, error);
		if (view->child)
			view_child_end(view->child, error);
		else
			view_forbid(view);
	}
	epoch_leave(ticket);
}

/* ---- coming and going ---- */

/* To increments, tracks and callers that arm each page is reported. A view in this process takes no more memory than it
 * has to. */
static uint32_t view_coarseness(const struct uffdwp_view *view)
{
	const struct uffdwp_region *region = view->region;
	int is_exact = region->kept || region->caller_armed || atomic_load(&region->tracked) ||
	               atomic_load(&region->preserve); /* which may be kept */
	int are_children = atomic_load(&region->view_count) == atomic_load(&region->child_count);

	return view->child && view->child->window_max > 1 && are_children && !is_exact ? REGION_COARSE_AREAS
	                                                                               : REGION_EXACT;
}

static void view_open_windows(const struct uffdwp_view *view)
{
	struct uffdwp_region *region = view->region;

	atomic_store(&region->area_window, view->child ? view->child->window_max : 0);
	atomic_store(&region->area_is_busy, 0);
	atomic_store(&region->area_faults, 0);
	atomic_store(&region->area_hot, 0);
	atomic_store(&region->coarse, view_coarseness(view));
}

int view_children_have_room(struct uffdwp_region *region, uint64_t pages)
{
	int have = 1;

	for (unsigned i = 0; i < REGION_VIEWS_MAX && have; i++) {
		const struct uffdwp_view *view = atomic_load_explicit(&region->views[i], memory_order_acquire);

		if (view && view->child && view->child->pages_most)
			have = atomic_load(&view->child->pages_broken) + pages <= view->child->pages_most / 2;
	}
	return have;
}

int view_attach(struct uffdwp_view *view)
{
	struct uffdwp_region *region = view->region;

	uint32_t children = atomic_load(&region->child_count);

	if (view->child && children >= UFFDWP_CHILDREN_MAX)
		return -EMFILE;
	if (!view->child && atomic_load(&region->view_count) - children >= UFFDWP_VIEWS_MAX)
		return -EMFILE;
	for (unsigned i = 0; i < REGION_VIEWS_MAX; i++) {
		if (atomic_load(&region->views[i]))
			continue;
		atomic_store(&region->views[i], view);
		view_open_windows(view);
		atomic_fetch_add(&region->view_count, 1); /* first: a reader of both may find too many others */
		atomic_fetch_add(&region->child_count, view->child != NULL);
		return 0;
	}
	return -EMFILE;
}

void view_detach(struct uffdwp_view *view)
{
	struct uffdwp_region *region = view->region;

	for (unsigned i = 0; i < REGION_VIEWS_MAX; i++) {
		if (atomic_load(&region->views[i]) != view)
			continue;
		atomic_store(&region->views[i], NULL);
		atomic_fetch_sub(&region->child_count, view->child != NULL);
		atomic_fetch_sub(&region->view_count, 1);
	}
}

void view_children_leave(struct uffdwp_region *region)
{
	unsigned turn = 0;

	while (atomic_load(&region->child_users)) {
		sigset_t before;

		signals_block(&before);
		epoch_ticket ticket = epoch_enter(&fault_epoch);

		for (unsigned i = 0; i < REGION_VIEWS_MAX; i++) {
			struct uffdwp_view *view = atomic_load(&region->views[i]);

			if (view && view->child)
				atomic_store(&view->leaves, 1);
		}
		epoch_leave(ticket);
		signals_restore(&before);
		kernel_back_off(region->k, &turn);
	}
}
