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

#include "fault/fault.h"

/* How often an address without a region is looked up again while events are being acted on, 50 us apart. */
#define INLINE_PATIENCE 4000

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

/* 0: the address is no region's. Else *verdict. */
static int resolve_at(uintptr_t address, enum fault_verdict *verdict, uint64_t *until_ns, const struct kernel_ops **k)
{
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	struct uffdwp_region *region = registry_find(address);
	int ours = region && region->delivery == UFFDWP_DELIVERY_INLINE;

	if (ours) {
		uint64_t page = (address - atomic_load(&region->base)) >> region->page_shift;
		uint64_t pages = region_pages(region);

		ours = page < pages; /* beyond: the kernel's own SIGBUS of a file that ends there */
		*k = region->k;
		if (ours) {
			*verdict = fault_resolve_patiently(region, page, pages, FAULT_BY_WRITER, until_ns);
			atomic_fetch_add_explicit(&region->counters.faults, *verdict == FAULT_DONE,
			                          memory_order_relaxed);
		}
	}
	epoch_leave(ticket);
	return ours;
}

/* 1: resolved, the write may be tried again. */
static int inline_resolve(uintptr_t address)
{
	const struct kernel_ops *k = &kernel_real;
	enum fault_verdict verdict = FAULT_AGAIN;
	uint64_t until_ns = 0;

	for (unsigned tries = 0;;) {
		uint32_t seen = atomic_load(&fault_change);
		int quiet = atomic_load(&events_under_way) == 0; /* before the look: else the table may be new by now */

		if (resolve_at(address, &verdict, &until_ns, &k)) {
			if (verdict == FAULT_DONE)
				return 1;
		} else if (quiet || ++tries > INLINE_PATIENCE) {
			return 0;
		}
		fault_nap(k, verdict, seen);
	}
}

static void chain(int number, siginfo_t *info, void *context)
{
	if (previous.sa_flags & SA_SIGINFO) {
		previous.sa_sigaction(number, info, context);
		return;
	}
	if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
		previous.sa_handler(number);
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
	install_error = sigaction(SIGBUS, &action, &previous) ? -errno : 0;
}

int inline_install(void)
{
	pthread_once(&install_once, install);
	return install_error;
}
