/* SPDX-License-Identifier: MIT */
/*
 * Accesses to pages that a lazy restore has not fetched, or could not fetch; keeps INV-ABSENT (region/lazy.h). Part of
 * the fault path: nothing here reads the image. A thread that meets an absent page asks for it and sleeps.
 *
 * A page that failed shall raise SIGBUS. Under inline delivery the signal is there already, and is passed on as if no
 * handler of ours were there. A thread that sleeps in the kernel is woken by UFFDIO_POISON: its access, and all later
 * ones, get SIGBUS. The kernel does not poison an entry that carries a wp bit, so such a page is unprotected before; a
 * snapshot that still needs it fails. Is the poison lost with its entry, the next access comes here again.
 */
#include <errno.h>
#include <sys/mman.h>

#include "base/invariant.h"
#include "base/signals.h"
#include "fault/fault.h"
#include "kernel/abi.h"
#include "kernel/backoff.h"
#include "region/lazy.h"
#include "region/mapper.h"

/* How many pages a thread that waits for a range asks for at a time. */
#define ASK_PAGES 256

/* How often sealing is tried again, in all, while an event of a mapper waits to be read. */
#define SEAL_TRIES 1000

static enum fault_verdict absent_again(const struct fault *fault)
{
	atomic_store(&fault->region->again, 1);
	return FAULT_AGAIN;
}

/* The wp bit is cleared, also one that was being cleared when the kernel refused that: poison does not go over wp bits.
 * 0 or -errno: come again. */
static int absent_unprotect(const struct fault *fault, enum ledger_state state, int error)
{
	struct uffdwp_region *region = fault->region;

	if (ledger_is_protected(state) && !ledger_move(&region->ledger, fault->page, state, LEDGER_LEAVING))
		return -EAGAIN;
	if (state == LEDGER_ARMED)
		fault_fail_page(region, fault_unfetched_error(error), fault->page);
	INVARIANT(IDEMPOTENT, !ledger_has(&region->ledger, fault->page, fault->page + 1,
	                                  LEDGER_BITS_PROTECTED | LEDGER_BIT(CLAIMED)));
	int refused = region->mechanism->disarm(region, fault->page, fault->page + 1);

	if (!refused)
		ledger_disarmed(&region->ledger, fault->page);
	return refused;
}

static enum fault_verdict absent_poison(const struct fault *fault)
{
	struct uffdwp_region *region = fault->region;
	int error = region->mappers
	                    ? mappers_poison(region, fault->page)
	                    : region->k->uffd_poison(region->uffd, (uintptr_t)region_address(region, fault->page),
	                                             region->page_bytes, 0);

	if (error == -EAGAIN || error == -ENOMEM)
		return absent_again(fault);
	fault_wake_pages(region, fault->page, fault->page + 1);
	return FAULT_DONE;
}

static enum fault_verdict absent_refuse(const struct fault *fault, enum phase phase, int error)
{
	struct uffdwp_region *region = fault->region;
	enum ledger_state state = ledger_get(&region->ledger, fault->page);

	if (fault->by != FAULT_BY_HANDLER)
		return FAULT_REFUSED;
	if (phase == PHASE_STALL)
		return FAULT_STALLED;
	if (state == LEDGER_CLAIMED)
		return FAULT_BUSY;
	if (!region->is_private && absent_unprotect(fault, state, error))
		return absent_again(fault);
	return absent_poison(fault);
}

int fault_meets_restore(struct fault *fault, enum phase phase, enum fault_verdict *verdict)
{
	struct lazy *lazy = atomic_load(&fault->region->lazy);
	int error = lazy ? lazy_page_error(lazy, fault->page) : 0;

	if (error) {
		*verdict = absent_refuse(fault, phase, error);
		return 1;
	}
	if (!lazy || !lazy_is_absent(lazy, fault->page))
		return 0;
	lazy_want(lazy, fault->page);
	if (fault->by != FAULT_BY_PUNCH)
		lazy_touch(lazy, fault->page);
	*verdict = FAULT_ABSENT;
	return 1;
}

/* Poison, or where that is not available no access at all: to the page, and where there are too many mappings to all.
 */
static void absent_forbid(struct uffdwp_region *region, unsigned char *address)
{
	const struct kernel_ops *k = region->k;

	k->uffd_writeprotect(region->uffd, (uintptr_t)address, region->page_bytes, 0);
	if (region->can_poison && !k->uffd_poison(region->uffd, (uintptr_t)address, region->page_bytes, 0))
		return;
	if (k->mprotect(address, region->page_bytes, PROT_NONE))
		k->mprotect(region_address(region, 0), atomic_load(&region->length_bytes), PROT_NONE);
}

void fault_seal_at(struct uffdwp_region *region, uint64_t first, uint64_t end, uintptr_t address)
{
	sigset_t before;

	signals_block(&before);
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	const struct lazy *lazy = atomic_load(&region->lazy);

	for (uint64_t page = first; lazy && page < end && page < lazy->end_page; page++) {
		if (lazy_state(lazy, page) != LAZY_DONE)
			absent_forbid(region, (unsigned char *)address + ((page - first) << region->page_shift));
	}
	epoch_leave(ticket);
	signals_restore(&before);
}

/* A page in all mappers: poison alone, for mprotect(2) does not reach another process. Unprotected before, since the
 * kernel poisons no entry that carries a wp bit. 0 or -errno; -EAGAIN: an event of a mapper has to be read first. */
static int absent_seal_mapped(struct uffdwp_region *region, uint64_t page)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	const struct lazy *lazy = atomic_load(&region->lazy);
	int error = 0;

	if (lazy && page < lazy->end_page && lazy_state(lazy, page) != LAZY_DONE) {
		error = region->is_private ? 0 : mappers_writeprotect(region, page, page + 1, 0);
		if (error != -EAGAIN)
			error = mappers_poison(region, page);
	}
	epoch_leave(ticket);
	return error;
}

/* Where the thread is the one that reads events, what they put off stays undone when the tries are used up. */
static void absent_seal_mappers(struct uffdwp_region *region)
{
	unsigned turn = BACKOFF_YIELD;
	unsigned tries = SEAL_TRIES;
	sigset_t before;

	signals_block(&before);
	for (uint64_t page = 0; page < region->ledger.count && mappers_live(region) && atomic_load(&region->lazy);) {
		if (absent_seal_mapped(region, page) == -EAGAIN && tries) {
			tries--;
			kernel_back_off(region->k, &turn);
		} else {
			page++;
		}
	}
	signals_restore(&before);
}

void fault_seal(struct uffdwp_region *region)
{
	if (region->mappers) {
		absent_seal_mappers(region);
		return;
	}
	fault_seal_at(region, 0, region->ledger.count, atomic_load(&region->base));
}

/* ---- threads that wait without a fault ---- */

struct wait {
	uint64_t page; /* all before it are there */
	uint64_t end;
	uint64_t asked; /* all before it are there, or were asked for */
};

/* Goes on to the first page that is not there, and asks for some from there on. 0, or why it never will be. */
static int absent_look(struct uffdwp_region *region, struct wait *wait)
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

/* A signal handler that wrote to the region inside of the epoch would wait for the thread that waits for the epoch. */
static int absent_look_safely(struct uffdwp_region *region, struct wait *wait)
{
	sigset_t before;

	signals_block(&before);
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	int error = absent_look(region, wait);

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
		int error = stopped ? stopped : absent_look_safely(region, &wait);

		if (error) {
			if (at)
				*at = wait.page;
			return error;
		}
		if (wait.page < end)
			fault_sleep(region->k, FAULT_ABSENT, seen);
	}
	return 0;
}
