/* SPDX-License-Identifier: MIT */
/*
 * Inline delivery: a write to an armed page of a uffd with UFFD_FEATURE_SIGBUS raises SIGBUS in the writer, at the
 * exact address (Documentation/admin-guide/mm/userfaultfd.rst). The handler finds the region, lets fault_resolve() do
 * the work, and returns; the write is tried again by the CPU.
 *
 * All signals are blocked while the handler runs: another handler that wrote to an armed page would raise SIGBUS while
 * it is blocked, and that kills. errno is kept. Addresses that are nobody's go to the handler that was there before, or
 * to the default action, as if we were not there. A handler that somebody installs over ours later must do the same.
 *
 * A region may be closed or moved while a writer waits here: each try looks it up again, and nothing of it is touched
 * outside the epoch. Part of the fault path.
 */
#include "fault/inline.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <ucontext.h>

#include "fault/fault.h"

/* How often an address without a region is looked up again while events are being acted on. */
#define INLINE_PATIENCE 4000

/* How long after a region went or moved a fault at nobody's address may still be one of its. */
#define INLINE_GRACE_NS 1000000000ull

/* How often a fault on a page that is neither armed nor in memory is tried again. */
#define INLINE_SUSPICION 64

static struct sigaction previous;
static _Atomic uint32_t events_under_way;
static pthread_once_t install_once = PTHREAD_ONCE_INIT;
static int install_error;

void inline_events_begin(void)
{
	atomic_fetch_add(&events_under_way, 1);
}

void inline_events_end(void)
{
	atomic_fetch_sub(&events_under_way, 1);
}

/*
 * Faults that are not ours although the address is: beyond the end of a file, no memory for a page of tmpfs or hugetlb.
 * The page then is not armed, and not in memory either; as that may be chance (it was just swapped out, or punched),
 * such a fault is passed on only when it comes again and again. One counter for many addresses: a hint.
 */
static int is_foreign(struct uffdwp_region *region, uint64_t page)
{
	static _Atomic uint32_t suspects[64];
	_Atomic uint32_t *suspect = &suspects[(page ^ (uintptr_t)region >> 12) % 64];
	unsigned char in_memory = 1;

	enum ledger_state state = ledger_get(&region->ledger, page);

	if (state == LEDGER_FREE || state == LEDGER_OPEN)
		region->k->mincore(region_address(region, page), 1, &in_memory);
	if (in_memory & 1) {
		atomic_store_explicit(suspect, 0, memory_order_relaxed);
		return 0;
	}
	return atomic_fetch_add_explicit(suspect, 1, memory_order_relaxed) >= INLINE_SUSPICION;
}

/* What one look made of the fault. */
enum look { LOOK_DONE, LOOK_AGAIN, LOOK_UNSURE, LOOK_NOBODY };

struct inline_fault {
	uintptr_t address;
	const struct kernel_ops *k;
	enum fault_verdict verdict;
	uint64_t until_ns;
};

static enum look resolve_in(struct inline_fault *fault, struct uffdwp_region *region)
{
	uint64_t page = (fault->address - atomic_load(&region->base)) >> region->page_shift;
	uint64_t pages = region_pages(region);

	fault->k = region->k;
	if (page >= pages || is_foreign(region, page))
		return LOOK_NOBODY;
	fault->verdict = fault_resolve_patiently(region, page, pages, FAULT_BY_WRITER, &fault->until_ns);
	if (fault->verdict != FAULT_DONE)
		return LOOK_AGAIN;
	atomic_fetch_add_explicit(&region->counters.faults, 1, memory_order_relaxed);
	return LOOK_DONE;
}

/* Nobody's address: or of a region that just went or moves; then the access is simply tried again. */
static enum look look_for(struct inline_fault *fault)
{
	int quiet = atomic_load(&events_under_way) == 0; /* before the look: else the table may be new by now */
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	struct uffdwp_region *region = registry_find(fault->address);
	enum look look = LOOK_NOBODY;

	if (region && region->delivery == UFFDWP_DELIVERY_INLINE)
		look = resolve_in(fault, region);
	epoch_leave(ticket);
	if (region || kernel_now_ns() - registry_changed_ns() > INLINE_GRACE_NS)
		return look == LOOK_NOBODY && !quiet ? LOOK_UNSURE : look;
	fault_nap(fault->k, FAULT_AGAIN, atomic_load(&fault_change));
	return LOOK_DONE;
}

/* 1: the write may be tried again. */
static int inline_resolve(uintptr_t address)
{
	struct inline_fault fault = {.address = address, .k = &kernel_real, .verdict = FAULT_AGAIN};

	for (unsigned unsure = 0; unsure < INLINE_PATIENCE;) {
		uint32_t seen = atomic_load(&fault_change);
		enum look look = look_for(&fault);

		if (look == LOOK_DONE || look == LOOK_NOBODY)
			return look == LOOK_DONE;
		unsure += look == LOOK_UNSURE;
		fault_nap(fault.k, fault.verdict, seen);
	}
	return 0;
}

/* The signals that would be blocked if the kernel had called the previous handler itself. */
static void mask_for_previous(const ucontext_t *context, sigset_t *before)
{
	sigset_t mask = context->uc_sigmask;

	for (int number = 1; number < NSIG; number++) {
		if (sigismember(&previous.sa_mask, number) == 1)
			sigaddset(&mask, number);
	}
	if (!(previous.sa_flags & SA_NODEFER))
		sigaddset(&mask, SIGBUS);
	pthread_sigmask(SIG_SETMASK, &mask, before);
}

static void call_previous(int number, siginfo_t *info, void *context)
{
	sigset_t before;

	mask_for_previous(context, &before);
	if (previous.sa_flags & SA_SIGINFO)
		previous.sa_sigaction(number, info, context);
	else
		previous.sa_handler(number);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void chain(int number, siginfo_t *info, void *context)
{
	int has_handler =
	        previous.sa_flags & SA_SIGINFO || (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN);

	if (has_handler) {
		call_previous(number, info, context);
		return;
	}
	/* The default: the access is repeated without us and ends the process. A fault cannot be ignored. One that was
	 * sent by somebody is sent again. */
	struct sigaction standard = {.sa_handler = SIG_DFL};

	if (previous.sa_handler == SIG_IGN && info->si_code <= 0)
		return;
	sigaction(SIGBUS, &standard, NULL);
	if (info->si_code <= 0)
		raise(SIGBUS);
}

static void on_sigbus(int number, siginfo_t *info, void *context)
{
	int saved = errno;
	int ours = info->si_code == BUS_ADRERR && inline_resolve((uintptr_t)info->si_addr);

	errno = saved;
	if (!ours)
		chain(number, info, context);
}

static void install(void)
{
	struct sigaction action = {.sa_sigaction = on_sigbus, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};

	sigfillset(&action.sa_mask);
	sigaction(SIGBUS, NULL, &previous); /* known before ours can run */
	install_error = sigaction(SIGBUS, &action, NULL) ? -errno : 0;
}

int inline_install(void)
{
	pthread_once(&install_once, install);
	return install_error;
}
