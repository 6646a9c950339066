/* SPDX-License-Identifier: MIT */
/* Breaking pages off views; see view.h. Part of the fault path. */
#include "region/view.h"

#include <errno.h>
#include <sys/mman.h>

#include "base/math.h"
#include "region/registry.h"

/* ---- fault path ---- */

/* What is read here is the view's page in any case: of the file, which is still protected, or its own already. */
static int break_off(struct uffdwp_view *view, uint64_t page)
{
	uint64_t at = (uint64_t)(uintptr_t)view->base + (page << view->page_shift);
	unsigned char byte;
	ssize_t done = view->k->pread(view->mem, &byte, 1, at);

	if (done == 1)
		done = view->k->pwrite(view->mem, &byte, 1, at);
	return done == 1 ? 0 : done < 0 ? (int)done : -EIO;
}

/* A page that is not its own may change from now on: whoever reads it gets a signal, not a wrong byte. */
static void give_up(struct uffdwp_view *view, uint64_t page, int error)
{
	int none = 0;

	atomic_compare_exchange_strong(&view->error, &none, error);
	view->k->mprotect(view->base + (page << view->page_shift), (size_t)1 << view->page_shift, PROT_NONE);
}

static void break_page(struct uffdwp_view *view, uint64_t page)
{
	uint64_t bit = 1ull << (page % 64);

	if (atomic_load_explicit(&view->broken[page / 64], memory_order_acquire) & bit)
		return;
	int error = break_off(view, page);

	if (error)
		give_up(view, page, error);
	/* Two may break the same page; only now it is safe for others to let it go. */
	if (!(atomic_fetch_or(&view->broken[page / 64], bit) & bit))
		atomic_fetch_add_explicit(&view->pages_broken, 1, memory_order_relaxed);
}

void view_break_all(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);

	for (unsigned i = 0; i < UFFDWP_VIEWS_MAX; i++) {
		struct uffdwp_view *view = atomic_load_explicit(&region->views[i], memory_order_acquire);

		for (uint64_t page = first; view && page < min_u64(end, view->end_page); page++)
			break_page(view, page);
	}
	epoch_leave(ticket);
}

/* ---- coming and going ---- */

int view_attach(struct uffdwp_view *view)
{
	struct uffdwp_region *region = view->region;

	for (unsigned i = 0; i < UFFDWP_VIEWS_MAX; i++) {
		if (atomic_load(&region->views[i]))
			continue;
		atomic_store(&region->views[i], view);
		atomic_store(&region->coarse, 0);
		atomic_fetch_add(&region->view_count, 1);
		return 0;
	}
	return -EMFILE;
}

void view_detach(struct uffdwp_view *view)
{
	struct uffdwp_region *region = view->region;

	for (unsigned i = 0; i < UFFDWP_VIEWS_MAX; i++) {
		if (atomic_load(&region->views[i]) != view)
			continue;
		atomic_store(&region->views[i], NULL);
		atomic_fetch_sub(&region->view_count, 1);
	}
}
