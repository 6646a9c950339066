/* SPDX-License-Identifier: MIT */
/*
 * Accesses to pages that a lazy restore has not fetched, or could not fetch; keeps INV-ABSENT (region/lazy.h). Part of
 * the fault path: nothing here reads the image. Who meets an absent page asks for it and sleeps.
 *
 * A page that failed shall raise SIGBUS. Under inline delivery the signal is there already, and is passed on as if
 * nobody had a handler for it. A thread that sleeps in the kernel is woken by UFFDIO_POISON: its access, and all later
 * ones, get SIGBUS. The kernel does not poison an entry that carries a mark, so such a page is let go before; a
 * snapshot that still needs it fails. Is the poison lost with its entry, the next access comes here again.
 */
#include <errno.h>
#include <sys/mman.h>

#include "base/signals.h"
#include "fault/fault.h"
#include "kernel/abi.h"
#include "region/lazy.h"

/* How many pages somebody who waits for a range asks for at a time. */
#define ASK_PAGES 256

int fault_is_absent(struct uffdwp_region *region, uint64_t page)
{
	const struct lazy *lazy = atomic_load(&region->lazy);

	return lazy && lazy_state(lazy, page) != LAZY_DONE;
}

static enum fault_verdict again(const struct fault *fault)
{
	atomic_store(&fault->region->again, 1);
	return FAULT_AGAIN;
}

/* The mark goes, also one that was being taken off when the kernel refused that: poison does not go over marks. 0 or
 * -errno: come again. */
static int let_go(const struct fault *fault, enum ledger_state state, int error)
{
	struct uffdwp_region *region = fault->region;

	if (ledger_is_marked(state) && !ledger_move(&region->ledger, fault->page, state, LEDGER_LEAVING))
		return -EAGAIN;
	if (state == LEDGER_ARMED)
		fault_fail_page(region, error, fault->page);
	int refused = region->mechanism->disarm(region, fault->page, fault->page + 1);

	if (!refused)
		ledger_disarmed(&region->ledger, fault->page);
	return refused;
}

static enum fault_verdict poison(const struct fault *fault)
{
	struct uffdwp_region *region = fault->region;
	int error = region->k->uffd_poison(region->uffd, (uintptr_t)region_address(region, fault->page),
	                                   region->page_bytes, 0);

	if (error == -EAGAIN || error == -ENOMEM)
		return again(fault);
	fault_wake_pages(region, fault->page, fault->page + 1);
	return FAULT_DONE;
}

static enum fault_verdict refuse(const struct fault *fault, enum phase phase, int error)
{
	struct uffdwp_region *region = fault->region;
	enum ledger_state state = ledger_get(&region->ledger, fault->page);

	if (fault->by != FAULT_BY_HANDLER)
		return FAULT_REFUSED;
	if (phase == PHASE_HOLD)
		return FAULT_HELD;
	if (state == LEDGER_CLAIMED)
		return FAULT_BUSY;
	if (let_go(fault, state, error))
		return again(fault);
	return poison(fault);
}

int fault_meets_restore(struct fault *fault, enum phase phase, enum fault_verdict *verdict)
{
	struct lazy *lazy = atomic_load(&fault->region->lazy);
	int error = lazy ? lazy_page_error(lazy, fault->page) : 0;

	if (error) {
		*verdict = refuse(fault, phase, error);
		return 1;
	}
	if (!lazy || !lazy_is_absent(lazy, fault->page))
		return 0;
	lazy_want(lazy, fault->page);
	*verdict = FAULT_ABSENT;
	return 1;
}

/* Poison, or where that is not to be had no access at all: of the page, and where there are too many mappings of all.
 */
static void forbid(struct uffdwp_region *region, uint64_t page)
{
	const struct kernel_ops *k = region->k;
	uintptr_t address = (uintptr_t)region_address(region, page);

	region->mechanism->disarm(region, page, page + 1);
	if (region->can_poison && !k->uffd_poison(region->uffd, address, region->page_bytes, 0))
		return;
	if (k->mprotect(region_address(region, page), region->page_bytes, PROT_NONE))
		k->mprotect(region_address(region, 0), atomic_load(&region->length_bytes), PROT_NONE);
}

void fault_seal(struct uffdwp_region *region)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	const struct lazy *lazy = atomic_load(&region->lazy);

	for (uint64_t page = 0; lazy && page < lazy->end_page; page++) {
		if (lazy_state(lazy, page) != LAZY_DONE)
			forbid(region, page);
	}
	epoch_leave(ticket);
}

/* ---- who waits without a fault ---- */

struct wait {
	uint64_t page; /* all before it are there */
	uint64_t end;
	uint64_t asked; /* all before it are there, or were asked for */
};

/* Goes on to the first page that is not there, and asks for some from there on. 0, or why it never will be. */
static int look(struct uffdwp_region *region, struct wait *wait)
{
	struct lazy *lazy = atomic_load(&region->lazy);

	while (wait->page < wait->end && (!lazy || lazy_state(lazy, wait->page) == LAZY_DONE))
		wait->page++;
	for (; wait->asked < wait->end && wait->asked < wait->page + ASK_PAGES && lazy; wait->asked++) {
		if (lazy_state(lazy, wait->asked) == LAZY_PENDING)
			lazy_want(lazy, wait->asked);
	}
	return lazy && wait->page < wait->end ? lazy_page_error(lazy, wait->page) : 0;
}

/* A signal handler that wrote to the region inside of the epoch would wait for whoever waits for the epoch. */
static int look_safely(struct uffdwp_region *region, struct wait *wait)
{
	sigset_t before;

	signals_block(&before);
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	int error = look(region, wait);

	epoch_leave(ticket);
	signals_restore(&before);
	return error;
}

int fault_await(struct uffdwp_region *region, uint64_t first, uint64_t end, const _Atomic int *stop, uint64_t *at)
{
	struct wait wait = {first, end, first};

	while (wait.page < end && atomic_load(&region->lazy)) {
		uint32_t seen = atomic_load(&fault_change);
		int stopped = stop ? atomic_load(stop) : 0;
		int error = stopped ? stopped : look_safely(region, &wait);

		if (error) {
			if (at)
				*at = wait.page;
			return error;
		}
		if (wait.page < end)
			fault_nap(region->k, FAULT_ABSENT, seen);
	}
	return 0;
}
