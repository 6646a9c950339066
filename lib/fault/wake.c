/* SPDX-License-Identifier: MIT */
/*
 * Wakes, and the sleep of threads that wait for one: the ground of the fault path. INV-WAKE is in fault.h. Part of the
 * fault path.
 */
#include <errno.h>

#include "base/invariant.h"
#include "fault/fault.h"
#include "kernel/own.h"
#include "region/mapper.h"

/* How long a thread sleeps before it looks again where no wake is announced. */
#define FAULT_SLEEP_NS 20000

/* How many times in a row the kernel may refuse to resume threads before that is taken as final. */
#define WAKE_TRIES 8

_Atomic uint32_t fault_change;
static _Atomic uint32_t fault_sleepers;

int fault_has_sleepers(void)
{
	return atomic_load(&fault_sleepers) > 0;
}

void fault_announce(const struct kernel_ops *k)
{
	/* Pairs with fault_sleep(): a sleeper that is not counted yet will find the word moved. */
	atomic_fetch_add(&fault_change, 1);
	if (fault_has_sleepers())
		k->futex_wake((const uint32_t *)&fault_change, INT32_MAX);
}

/* A filter that the program has installed since forbids ioctl(2): no thread can be resumed by it any more. The handler
 * closes the uffd, which resumes all. */
static void wake_check(struct uffdwp_region *region, int error)
{
	if (!error || error == -EAGAIN || atomic_load(&region->dead) || region->delivery == UFFDWP_DELIVERY_INLINE)
		return;
	if (!atomic_exchange(&region->unwakeable, 1))
		own_kick(region->k, region->wake_fd, region->wake_tag);
}

static int wake_run(struct uffdwp_region *region, uint64_t first, uint64_t length_bytes)
{
	uint64_t start = (uint64_t)(uintptr_t)region_address(region, first);

	if (region->mappers)
		return mappers_wake(region, first, first + (length_bytes >> region->page_shift));
	return region->uffd >= 0 ? region->k->uffd_wake(region->uffd, start, length_bytes) : 0;
}

void fault_wake_region(struct uffdwp_region *region)
{
	wake_check(region, wake_run(region, 0, region->capacity_bytes));
}

int fault_wake_again(struct uffdwp_region *region)
{
	int error = -EAGAIN;

	for (int i = 0; i < WAKE_TRIES && error; i++)
		error = wake_run(region, 0, region->capacity_bytes);
	return error == -EAGAIN ? 0 : error;
}

void fault_wake_pages(struct uffdwp_region *region, uint64_t first, uint64_t end)
{
	if (region->delivery != UFFDWP_DELIVERY_INLINE)
		wake_check(region, wake_run(region, first, (end - first) << region->page_shift));
}

void fault_wake_stalled(struct uffdwp_region *region)
{
	fault_announce(region->k);
	if (atomic_exchange(&region->held, 0))
		fault_wake_region(region);
}

void fault_wake_starved(struct uffdwp_region *region)
{
	atomic_store(&region->starved_since_ns, 0);
	fault_announce(region->k);
	if (atomic_exchange(&region->starved, 0))
		fault_wake_region(region);
}

void fault_sleep(const struct kernel_ops *k, enum fault_verdict verdict, uint32_t seen)
{
	/* A claimant is done in microseconds and announces nothing; what the others wait for is announced. */
	int brief = verdict == FAULT_BUSY || verdict == FAULT_AGAIN;

	INVARIANT(EPOCH, invariant_inside() == 0); /* no thread waits while inside */
	atomic_fetch_add(&fault_sleepers, 1);
	k->futex_wait((const uint32_t *)&fault_change, seen, brief ? FAULT_SLEEP_NS : 200 * FAULT_SLEEP_NS);
	INVARIANT(WAKE, atomic_load(&fault_sleepers) > 0);
	atomic_fetch_sub(&fault_sleepers, 1);
}

void fault_brake(const struct kernel_ops *k, uint32_t brake_ns)
{
	if (brake_ns)
		k->futex_wait((const uint32_t *)&fault_change, atomic_load(&fault_change), brake_ns);
}
