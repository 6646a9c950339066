/* SPDX-License-Identifier: MIT */
/*
 * A cut beside one whose pre-images are still being kept: region->preserve is there, and is another owner's. What that
 * has saved already, and writers may have written since, is armed again, and nothing is taken from it:
 *
 *   page is            becomes    because
 *   ARMED, CLAIMED     the same   it is protected, and the other owner wants it
 *   WATCHED, STORED    the same   it is protected, and the other owner has its bytes, or wants none
 *   SAVED, OPEN        STORED     its bytes wait in the pool for the other owner's thread, which goes by the ledger
 *   others             WATCHED    the other owner has its bytes, or wants none
 *
 * The next writer of an ARMED page keeps its pre-image, breaks it off what this cut shows and unprotects it, in this
 * order, in one fault. What the other owner's thread has claimed it leaves WATCHED, not bare.
 *
 * None becomes ARMED: it would be saved once more, with later bytes. Those that collect writes learn what was
 * unprotected as from any arming (region_note_written()).
 *
 * The other owner's thread goes on meanwhile. What it does to the ledger it does by compare-and-swap, as this cut; what
 * it does to page tables it does inside the epoch, where it looks at `keeps`, which is raised before the first page is
 * armed. It stays raised when this cut is given up: then the end of the other unprotects all.
 *
 * Phases: faults are stalled as for any cut, and go on to PRESERVE, or, if the other has failed meanwhile, to RELEASE.
 * Its end takes the region's lock, so that it comes before a stall or after it.
 *
 * Threads: as of cut.h.
 */
#include "cut/cut.h"

#include "kernel/backoff.h"

/* It hurries so long. */
static int beside_looks(struct uffdwp_region *region)
{
	int looks = 0;

	lock_take(&region->lock);
	struct preserve *preserve = atomic_load(&region->preserve);

	if (preserve) {
		looks = atomic_load(&preserve->looks);
		atomic_store(&preserve->hurries, looks);
	}
	lock_give(&region->lock);
	return looks;
}

void cut_await_looks(struct uffdwp_region *region)
{
	unsigned turn = 0;

	while (beside_looks(region))
		kernel_back_off(region->k, &turn);
}

void beside_begin(const struct cut *cut)
{
	if (cut_is_beside(cut))
		atomic_store(&atomic_load(&cut->region->preserve)->keeps, 1);
}

/* What was saved may be taken out of the pool at the same time. */
void beside_arm_page(struct uffdwp_region *region, uint64_t page)
{
	struct ledger *ledger = &region->ledger;
	enum ledger_state state;
	enum ledger_state next;

	do {
		state = ledger_get(ledger, page);
		next = state == LEDGER_SAVED || state == LEDGER_OPEN ? LEDGER_STORED : LEDGER_WATCHED;
	} while (!ledger_move(ledger, page, state, next));
}

/* What carries its wp bit all the same is LEAVING or SAVED as any page is whose disarming was refused: a write, a
 * barrier or the next arming takes care of it. */
static void beside_distrust_page(struct uffdwp_region *region, uint64_t page)
{
	struct ledger *ledger = &region->ledger;
	enum ledger_state state;
	enum ledger_state next;

	do {
		state = ledger_get(ledger, page);
		if (!ledger_is_protected(state) || (state == LEDGER_ARMED && atomic_load(&region->preserve)))
			return;
		region_note_written(region, page);
		next = state == LEDGER_STORED ? LEDGER_SAVED : LEDGER_LEAVING;
	} while (!ledger_move(ledger, page, state, next));
}

void beside_distrust(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++)
		beside_distrust_page(region, page);
	atomic_store(&region->clinging, 1);
}
