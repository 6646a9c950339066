/* SPDX-License-Identifier: MIT */
/*
 * Inline delivery: a write to an armed page of a uffd with UFFD_FEATURE_SIGBUS raises SIGBUS in the writer, at the
 * exact address (Documentation/admin-guide/mm/userfaultfd.rst), and so does any access to an empty entry that is ours;
 * a write to a page that mprotect(2) has armed raises SIGSEGV. The handler finds the region, lets fault_resolve() do
 * the work, and returns; the access is tried again by the CPU.
 *
 * The signal does not say what the access was. Where the processor reports it (its error code is in the context), a
 * read and an entry that was not empty are known; else the worst is assumed, a write to an empty entry.
 *
 * All signals are blocked while the handler runs: another handler that wrote to an armed page would raise SIGBUS while
 * it is blocked, and that kills. errno is kept. Addresses of no region go to the handler that was there before, or to
 * the default action, as if we were not there (trap.h).
 *
 * A region may be closed or moved while a writer waits here: each try looks it up again, and nothing of it is touched
 * outside the epoch. Part of the fault path.
 */
#include "fault/inline.h"

#include <signal.h>
#include <stddef.h>
#include <sys/mman.h>
#include <ucontext.h>

#include "fault/fault.h"
#include "fault/measure.h"
#include "fault/tap.h"
#include "fault/trap.h"
#include "kernel/process.h"

/* How often an address without a region is looked up again while regions may be moving. */
#define INLINE_RETRIES 4000

/* How often a fault on a page that is neither armed nor in memory is tried again; by mprotect all writers that met one
 * protection may come in turn. */
#define INLINE_SUSPICION 64
#define INLINE_SUSPICION_MPROTECT 10000

static _Atomic uint32_t moves_in_progress;

void inline_moves_begin(void)
{
	atomic_fetch_add(&moves_in_progress, 1);
}

void inline_moves_end(void)
{
	atomic_fetch_sub(&moves_in_progress, 1);
}

/* A fault on a page that is not protected: by marker or mprotect(2) it may have been protected a moment ago, and
 * unprotected by another writer meanwhile. */
static int inline_is_suspect(struct uffdwp_region *region, uint64_t page)
{
	enum ledger_state state = ledger_get(&region->ledger, page);
	unsigned char in_memory = 1;

	if (region->soft_dirty || atomic_load(&region->phase) == PHASE_STALL)
		return 0;
	if (state != LEDGER_FREE && state != LEDGER_OPEN)
		return 0;
	if (region->uffd < 0)
		return 1;
	if (!region_owns_empty(region))
		region->k->mincore(region_address(region, page), 1, &in_memory);
	return !(in_memory & 1);
}

/*
 * Faults that are not ours although the address is: beyond the end of a file, no memory for a page of tmpfs or hugetlb,
 * or a mapping that its owner has protected. The page then is not armed, and not in memory either; as that may be
 * chance (it was just swapped out, or punched, or unprotected by another writer), such a fault is passed on only when
 * it comes again and again. One counter for many addresses: a hint.
 */
static int inline_is_foreign(struct uffdwp_region *region, uint64_t page)
{
	static _Atomic uint32_t suspects[64];
	_Atomic uint32_t *suspect = &suspects[(page ^ (uintptr_t)region >> 12) % 64];

	if (!inline_is_suspect(region, page)) {
		atomic_store_explicit(suspect, 0, memory_order_relaxed);
		return 0;
	}
	uint32_t limit = region->uffd < 0 ? INLINE_SUSPICION_MPROTECT : INLINE_SUSPICION;

	return atomic_fetch_add_explicit(suspect, 1, memory_order_relaxed) >= limit;
}

/* What one look made of the fault. */
enum look { LOOK_DONE, LOOK_AGAIN, LOOK_UNSURE, LOOK_NO_REGION };

struct inline_fault {
	uintptr_t address;
	int number; /* of the signal */
	enum fault_access access;
	const struct kernel_ops *k;
	enum fault_verdict verdict;
	uint64_t until_ns;
	uint64_t began_ns; /* when it was met; 0: nothing is measured */
	unsigned refusals;
	uint32_t brake_ns;
};

/* What the processor said of the access. */
static enum fault_access inline_access_of(const ucontext_t *context)
{
#if defined(__x86_64__)
	uint64_t error = (uint64_t)context->uc_mcontext.gregs[REG_ERR];

	if (!(error & 2)) /* Intel SDM volume 3, 4.7: bit 0 an entry was present, bit 1 a write */
		return FAULT_READ_EMPTY;
	return error & 1 ? FAULT_WRITE : FAULT_WRITE_EMPTY;
#else
	(void)context;
	return FAULT_WRITE_EMPTY;
#endif
}

/* A child of fork() has the protection of mprotect(2), but neither the threads nor the phases: it just writes. (One of
 * vfork() shares the memory, and is one more writer.) */
static enum look inline_let_child_write(struct uffdwp_region *region, uint64_t page)
{
	return region->mechanism->disarm(region, page, page + 1) ? LOOK_NO_REGION : LOOK_DONE;
}

static enum look inline_resolve_in(struct inline_fault *fault, struct uffdwp_region *region)
{
	uint64_t pages = region_pages(region);
	struct fault met = {.region = region,
	                    .page = (fault->address - atomic_load(&region->base)) >> region->page_shift,
	                    .limit = pages,
	                    .by = FAULT_BY_WRITER,
	                    .access = region_owns_empty(region) ? fault->access : FAULT_WRITE,
	                    .until_ns = fault->until_ns,
	                    .refusals = fault->refusals};

	fault->k = region->k;
	if (region->process != process_number()) /* a child of fork(): nothing there is ours */
		return region->uffd < 0 ? inline_let_child_write(region, met.page) : LOOK_NO_REGION;
	if (met.page >= pages || inline_is_foreign(region, met.page))
		return LOOK_NO_REGION;
	struct meter *meter = measure_meter(region);

	if (meter && !fault->began_ns)
		fault->began_ns = measure_met(&met, fault->address, TAP_THIS_THREAD, kernel_now_ns());
	fault->verdict = fault_resolve_with_retry(&met);
	if (meter && met.counted)
		meter_add_shared(meter, kernel_now_ns() - fault->began_ns + met.brake_ns, met.counted);
	fault->until_ns = met.until_ns;
	fault->refusals = met.refusals;
	fault->brake_ns = met.brake_ns;
	if (fault->verdict == FAULT_REFUSED)
		return LOOK_NO_REGION;
	return fault->verdict == FAULT_DONE ? LOOK_DONE : LOOK_AGAIN;
}

/* mprotect raises the one signal, a uffd the other. */
static int inline_is_its_signal(const struct inline_fault *fault, const struct uffdwp_region *region)
{
	return region->delivery == UFFDWP_DELIVERY_INLINE && (region->uffd < 0) == (fault->number == SIGSEGV);
}

/* Beyond a region lies what its owner's mremap(2) has added: registered as well, and no page of the region. It is taken
 * out. 1: it was that. */
static int inline_release_added(const struct inline_fault *fault)
{
	struct uffdwp_region *region = registry_find_below(fault->address);

	if (!region || !inline_is_its_signal(fault, region) || !region_owns_empty(region))
		return 0;
	uint64_t page = fault->address & ~(region->page_bytes - 1);

	return region->uffd >= 0 && !region->k->uffd_writeprotect(region->uffd, page, region->page_bytes, 0) &&
	       !region->k->uffd_unregister(region->uffd, page, region->page_bytes);
}

/* An address of no region: or of a region that moves; then another look will find it. Or of one that has just gone:
 * then the access is simply tried again. */
static enum look inline_look_for(struct inline_fault *fault)
{
	int quiet = atomic_load(&moves_in_progress) == 0; /* before the look: else the table may be new by now */
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	struct uffdwp_region *region = registry_find(fault->address);
	enum look look = LOOK_NO_REGION;

	if (region && inline_is_its_signal(fault, region))
		look = inline_resolve_in(fault, region);
	if (!region && inline_release_added(fault))
		look = LOOK_DONE;
	epoch_leave(ticket);
	fault_brake(fault->k, fault->brake_ns);
	fault->brake_ns = 0;
	if (look != LOOK_NO_REGION)
		return look;
	if (!region && registry_try_again(fault->address))
		return LOOK_DONE;
	return quiet ? LOOK_NO_REGION : LOOK_UNSURE;
}

/* 1: the write may be tried again. */
static int inline_resolve(int number, uintptr_t address, const ucontext_t *context)
{
	struct inline_fault fault = {.address = address,
	                             .number = number,
	                             .access = inline_access_of(context),
	                             .k = &kernel_real,
	                             .verdict = FAULT_AGAIN};

	for (unsigned unsure = 0; unsure < INLINE_RETRIES;) {
		uint32_t seen = atomic_load(&fault_change);
		enum look look = inline_look_for(&fault);

		if (look == LOOK_DONE || look == LOOK_NO_REGION)
			return look == LOOK_DONE;
		unsure += look == LOOK_UNSURE;
		fault_sleep(fault.k, fault.verdict, seen);
	}
	return 0;
}

static int inline_take(int number, const siginfo_t *info, const void *context)
{
	int code = number == SIGBUS ? BUS_ADRERR : SEGV_ACCERR;

	return info->si_code == code && inline_resolve(number, (uintptr_t)info->si_addr, context);
}

int inline_install(const struct uffdwp_region *region)
{
	return trap_install(region->uffd < 0 ? SIGSEGV : SIGBUS, inline_take);
}
