/* SPDX-License-Identifier: MIT */
/*
 * Inline delivery: a write to an armed page of a uffd with UFFD_FEATURE_SIGBUS raises SIGBUS in the writer, at the
 * exact address (Documentation/admin-guide/mm/userfaultfd.rst), and so does any access to an empty entry that is ours;
 * a write to a page that mprotect(2) has armed raises SIGSEGV. The handler finds the region, lets fault_resolve() do
 * the work, and returns; the access is tried again by the CPU.
 *
 * The signal does not say what the access was. Where the processor told (its error code is in the context), a read and
 * an entry that was not empty are known; else the worst is assumed, a write to an empty entry.
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
#include <sys/mman.h>
#include <ucontext.h>

#include "fault/fault.h"

/* How often an address without a region is looked up again while events are being acted on. */
#define INLINE_PATIENCE 4000

/* How long after a region went or moved a fault at nobody's address may still be one of its. */
#define INLINE_GRACE_NS 1000000000ull

/* How often a fault on a page that is neither armed nor in memory is tried again; of mprotect all writers that met one
 * protection may come in turn. */
#define INLINE_SUSPICION 64
#define INLINE_SUSPICION_MPROTECT 10000

/* One signal, and who had it before us. */
struct trap {
	int number;
	struct sigaction previous;
	pthread_once_t once;
	int error;
};

static struct trap bus = {.number = SIGBUS, .once = PTHREAD_ONCE_INIT};
static struct trap segv = {.number = SIGSEGV, .once = PTHREAD_ONCE_INIT};
static _Atomic uint32_t events_under_way;

/* 1; 0 in a child that has a copy of this memory: the kernel wipes the page there. */
static volatile uint32_t *home;

void inline_events_begin(void)
{
	atomic_fetch_add(&events_under_way, 1);
}

void inline_events_end(void)
{
	atomic_fetch_sub(&events_under_way, 1);
}

/* A fault on a page that is not protected: of a marker or of mprotect(2) it may have been a moment ago, and be let go
 * by another writer meanwhile. */
static int is_suspect(struct uffdwp_region *region, uint64_t page)
{
	enum ledger_state state = ledger_get(&region->ledger, page);
	unsigned char in_memory = 1;

	if (region->soft_dirty || atomic_load(&region->phase) == PHASE_HOLD)
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
 * or a mapping that its owner has protected himself. The page then is not armed, and not in memory either; as that may
 * be chance (it was just swapped out, or punched, or let go by another), such a fault is passed on only when it comes
 * again and again. One counter for many addresses: a hint.
 */
static int is_foreign(struct uffdwp_region *region, uint64_t page)
{
	static _Atomic uint32_t suspects[64];
	_Atomic uint32_t *suspect = &suspects[(page ^ (uintptr_t)region >> 12) % 64];

	if (!is_suspect(region, page)) {
		atomic_store_explicit(suspect, 0, memory_order_relaxed);
		return 0;
	}
	uint32_t limit = region->uffd < 0 ? INLINE_SUSPICION_MPROTECT : INLINE_SUSPICION;

	return atomic_fetch_add_explicit(suspect, 1, memory_order_relaxed) >= limit;
}

/* What one look made of the fault. */
enum look { LOOK_DONE, LOOK_AGAIN, LOOK_UNSURE, LOOK_NOBODY };

struct inline_fault {
	uintptr_t address;
	int number; /* of the signal */
	enum fault_access access;
	const struct kernel_ops *k;
	enum fault_verdict verdict;
	uint64_t until_ns;
	uint32_t brake_ns;
};

/* What the processor said of the access. */
static enum fault_access access_of(const ucontext_t *context)
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
static enum look let_child_write(struct uffdwp_region *region, uint64_t page)
{
	return region->mechanism->disarm(region, page, page + 1) ? LOOK_NOBODY : LOOK_DONE;
}

static enum look resolve_in(struct inline_fault *fault, struct uffdwp_region *region)
{
	uint64_t pages = region_pages(region);
	struct fault met = {.region = region,
	                    .page = (fault->address - atomic_load(&region->base)) >> region->page_shift,
	                    .limit = pages,
	                    .by = FAULT_BY_WRITER,
	                    .access = region_owns_empty(region) ? fault->access : FAULT_WRITE,
	                    .until_ns = fault->until_ns};

	fault->k = region->k;
	if (region->uffd < 0 && !*home)
		return let_child_write(region, met.page);
	if (met.page >= pages || is_foreign(region, met.page))
		return LOOK_NOBODY;
	fault->verdict = fault_resolve_patiently(&met);
	fault->until_ns = met.until_ns;
	fault->brake_ns = met.brake_ns;
	if (fault->verdict == FAULT_REFUSED)
		return LOOK_NOBODY;
	return fault->verdict == FAULT_DONE ? LOOK_DONE : LOOK_AGAIN;
}

/* mprotect raises the one signal, a uffd the other. */
static int is_its_signal(const struct inline_fault *fault, const struct uffdwp_region *region)
{
	return region->delivery == UFFDWP_DELIVERY_INLINE && (region->uffd < 0) == (fault->number == SIGSEGV);
}

/* Nobody's address: or of a region that just went or moves; then the access is simply tried again. */
static enum look look_for(struct inline_fault *fault)
{
	int quiet = atomic_load(&events_under_way) == 0; /* before the look: else the table may be new by now */
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	struct uffdwp_region *region = registry_find(fault->address);
	enum look look = LOOK_NOBODY;

	if (region && is_its_signal(fault, region))
		look = resolve_in(fault, region);
	epoch_leave(ticket);
	fault_brake(fault->k, fault->brake_ns);
	fault->brake_ns = 0;
	if (region || kernel_now_ns() - registry_changed_ns() > INLINE_GRACE_NS)
		return look == LOOK_NOBODY && !quiet ? LOOK_UNSURE : look;
	fault_nap(fault->k, FAULT_AGAIN, atomic_load(&fault_change));
	return LOOK_DONE;
}

/* 1: the write may be tried again. */
static int inline_resolve(int number, uintptr_t address, const ucontext_t *context)
{
	struct inline_fault fault = {.address = address,
	                             .number = number,
	                             .access = access_of(context),
	                             .k = &kernel_real,
	                             .verdict = FAULT_AGAIN};

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
static void mask_for_previous(const struct trap *trap, const ucontext_t *context, sigset_t *before)
{
	sigset_t mask = context->uc_sigmask;

	for (int number = 1; number < NSIG; number++) {
		if (sigismember(&trap->previous.sa_mask, number) == 1)
			sigaddset(&mask, number);
	}
	if (!(trap->previous.sa_flags & SA_NODEFER))
		sigaddset(&mask, trap->number);
	pthread_sigmask(SIG_SETMASK, &mask, before);
}

static void call_previous(const struct trap *trap, siginfo_t *info, void *context)
{
	sigset_t before;

	mask_for_previous(trap, context, &before);
	if (trap->previous.sa_flags & SA_SIGINFO)
		trap->previous.sa_sigaction(trap->number, info, context);
	else
		trap->previous.sa_handler(trap->number);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
}

static void chain(const struct trap *trap, siginfo_t *info, void *context)
{
	const struct sigaction *previous = &trap->previous;
	int has_handler =
	        previous->sa_flags & SA_SIGINFO || (previous->sa_handler != SIG_DFL && previous->sa_handler != SIG_IGN);

	if (has_handler) {
		call_previous(trap, info, context);
		return;
	}
	/* The default: the access is repeated without us and ends the process. A fault cannot be ignored. One that was
	 * sent by somebody is sent again. */
	struct sigaction standard = {.sa_handler = SIG_DFL};

	if (previous->sa_handler == SIG_IGN && info->si_code <= 0)
		return;
	sigaction(trap->number, &standard, NULL);
	if (info->si_code <= 0)
		raise(trap->number);
}

static void on_signal(int number, siginfo_t *info, void *context)
{
	int saved = errno;
	int code = number == SIGBUS ? BUS_ADRERR : SEGV_ACCERR;
	int ours = info->si_code == code && inline_resolve(number, (uintptr_t)info->si_addr, context);

	errno = saved;
	if (!ours)
		chain(number == SIGBUS ? &bus : &segv, info, context);
}

static void install(struct trap *trap)
{
	struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESTART};

	sigfillset(&action.sa_mask);
	sigaction(trap->number, NULL, &trap->previous); /* known before ours can run */
	trap->error = sigaction(trap->number, &action, NULL) ? -errno : 0;
}

static void install_bus(void)
{
	install(&bus);
}

static void install_segv(void)
{
	void *page = pages_new(&kernel_real, sizeof(*home));

	segv.error = page ? kernel_real.madvise(page, sizeof(*home), MADV_WIPEONFORK) : -ENOMEM;
	if (segv.error)
		return;
	home = page;
	*home = 1;
	install(&segv);
}

int inline_install(const struct uffdwp_region *region)
{
	if (region->uffd < 0) {
		pthread_once(&segv.once, install_segv);
		return segv.error;
	}
	pthread_once(&bus.once, install_bus);
	return bus.error;
}
