/* SPDX-License-Identifier: MIT */
/* See handler.h: another thread takes the place of a handler's. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <time.h>

#include "base/errno_name.h"
#include "base/trace.h"
#include "fault/fault.h"
#include "fault/guard.h"
#include "fault/handler_private.h"
#include "kernel/own.h"
#include "kernel/procfs.h"
#include "region/mapper.h"

void handler_guard(struct handler *handler, struct region_bell *bell)
{
	lock_take(&handler->lock);
	handler->guarded = bell != NULL && !atomic_load(&handler->dead);
	handler->bell = bell;
	int is_left = handler->ended && !bell;

	handler->ended &= bell != NULL;
	lock_give(&handler->lock);
	if (is_left)
		handler_end(handler);
}

/* ---- a look ---- */

/* POLLERR is the answer of a userfaultfd that blocks: one that is shared with a mapper, which has cleared O_NONBLOCK.
 */
static int succession_has_faults(const struct kernel_ops *k, int uffd)
{
	int events = k->poll(uffd, POLLIN, 0);

	if (events > 0 && events & POLLERR) {
		k->change_flags(uffd, O_NONBLOCK, 0);
		events = k->poll(uffd, POLLIN, 0);
	}
	return events > 0 && (events & POLLIN) != 0;
}

static int succession_is_readable(const struct uffdwp_region *region)
{
	const struct kernel_ops *k = region->k;

	if (!region->mappers)
		return own_check(k, region->uffd, region->tag) == 0 && succession_has_faults(k, region->uffd);
	for (unsigned i = 0; i < atomic_load(&region->mappers->end); i++) {
		const struct mapper *mapper = &region->mappers->at[i];

		if (atomic_load(&mapper->used) && !atomic_load(&mapper->gone) && succession_has_faults(k, mapper->uffd))
			return 1;
	}
	return 0;
}

static int succession_is_armed(const struct uffdwp_region *region)
{
	return region->delivery == UFFDWP_DELIVERY_THREAD && atomic_load(&region->active) &&
	       !atomic_load(&region->dead);
}

/* With the lock held. */
static int succession_is_any_armed(const struct handler *handler)
{
	for (unsigned i = 0; i < atomic_load(&handler->count); i++) {
		if (succession_is_armed(handler->regions[i]))
			return 1;
	}
	return 0;
}

/* With the lock held: some thread waits for this one. */
static int succession_is_awaited(const struct handler *handler)
{
	for (unsigned i = 0; i < atomic_load(&handler->count); i++) {
		if (succession_is_armed(handler->regions[i]) && succession_is_readable(handler->regions[i]))
			return 1;
	}
	return 0;
}

/* How long the thread has run; 0 where that is not known. */
static uint64_t succession_cpu_ns(const struct shift *shift)
{
	struct timespec ran;
	clockid_t clock;

	if (pthread_getcpuclockid(shift->thread, &clock) || clock_gettime(clock, &ran))
		return 0;
	return (uint64_t)ran.tv_sec * 1000000000u + (uint64_t)ran.tv_nsec;
}

/* How many looks it takes; 0: the thread wants to run, and has no CPU. */
static unsigned succession_looks(const struct handler *handler, int has_run)
{
	int state = procfs_thread_state(handler->k, atomic_load(&handler->shift->id));

	if (state == 'R' && !has_run)
		return 0;
	return state < 0 || state == 'D' ? GUARD_STILL_UNKNOWN : GUARD_STILL;
}

/* With the lock held. 1: the thread stands still, for the so manieth time. */
static int succession_stands_still(const struct handler *handler, struct handler_pulse *pulse, int late)
{
	const struct shift *shift = handler->shift;
	uint64_t turn = atomic_load(&shift->turn);
	uint64_t cpu_ns = succession_cpu_ns(shift);
	int is_new = turn != pulse->turn || (turn & 1) || (turn & SHIFT_OVER) || late;
	unsigned looks =
	        is_new || !succession_is_awaited(handler) ? 0 : succession_looks(handler, cpu_ns != pulse->cpu_ns);

	pulse->still = looks ? pulse->still + 1 : 0;
	pulse->turn = turn;
	pulse->cpu_ns = cpu_ns;
	return looks && pulse->still >= looks;
}

enum handler_look handler_look_at(struct handler *handler, struct handler_pulse *pulse, int late)
{
	enum handler_look found = HANDLER_QUIET;

	lock_take(&handler->lock);
	if (handler->ended)
		found = HANDLER_LOST;
	else if (!atomic_load(&handler->dead) && succession_is_any_armed(handler))
		found = succession_stands_still(handler, pulse, late) ? HANDLER_LOST : HANDLER_WATCHED;
	lock_give(&handler->lock);
	return found;
}

/* ---- the place ---- */

/* With the lock held. */
static int succession_watch(struct handler *handler, struct shift *fresh)
{
	int error = handler->leaving ? -EBADF : handler_find_lost(handler);

	if (!error)
		error = fresh ? loop_check(fresh->loop) : -ENOMEM;
	if (!error)
		error = loop_add(fresh->loop, handler->kick, HANDLER_KICK);
	for (unsigned i = 0; i < atomic_load(&handler->count) && !error; i++) {
		struct uffdwp_region *region = handler->regions[i];

		if (!atomic_load(&region->dead)) /* of a dead one the uffd may be closed; there is nothing to read */
			error = handler_watch_region(fresh->loop, region);
	}
	return error;
}

/* With the lock held. 1: no thread serves the handler, and the one of before will not. */
static int succession_take_away(struct handler *handler, const struct handler_pulse *pulse)
{
	uint64_t turn = pulse->turn;

	if (atomic_load(&handler->dead))
		return 0;
	if (handler->ended)
		return 1;
	return atomic_compare_exchange_strong(&handler->shift->turn, &turn, turn | SHIFT_OVER);
}

/* With the lock held. */
static void succession_begin(struct handler *handler, struct shift *fresh)
{
	fresh->handler = handler;
	fresh->thread = pthread_self();
	fresh->former = handler->shift;
	handler->shift = fresh;
	handler->stopping = 0;
	handler->starving = 1; /* looks itself whether that is so */
	handler->news = 1;
}

/* Snapshots end, and every writer comes again: to this thread. */
static void succession_announce(struct handler *handler)
{
	lock_take(&handler->lock);
	for (unsigned i = 0; i < atomic_load(&handler->count); i++) {
		struct uffdwp_region *region = handler->regions[i];

		if (region->delivery != UFFDWP_DELIVERY_THREAD || atomic_load(&region->dead))
			continue;
		fault_fail_running(region, -EOWNERDEAD, 0);
		fault_wake_region(region);
	}
	lock_give(&handler->lock);
}

int handler_take_place(struct handler *handler, const struct handler_pulse *pulse, struct shift *fresh)
{
	lock_take(&handler->lock);
	const char *what = handler->ended ? "has ended" : "stands still";
	int is_free = succession_take_away(handler, pulse);
	int error = is_free ? succession_watch(handler, fresh) : 0;

	if (is_free)
		handler->ended = 0;
	if (is_free && !error)
		succession_begin(handler, fresh);
	lock_give(&handler->lock);
	if (is_free)
		TRACE("handler %p: its thread %s; %s", (void *)handler, what,
		      error ? errno_text(error) : "another takes its place");
	if (error)
		handler_end(handler);
	if (!is_free || error)
		return error;
	if (handler->has_cpus)
		(void)sched_setaffinity(0, sizeof(handler->cpus), &handler->cpus); /* best effort, errors ignored */
	succession_announce(handler);
	return 1;
}

void handler_reap(struct handler *handler)
{
	lock_take(&handler->lock);
	struct shift **link = &handler->shift->former;
	struct shift *gone = NULL;

	while (*link) {
		struct shift *shift = *link;

		if (!atomic_load(&shift->ended)) {
			pthread_cancel(shift->thread); /* where it sleeps in its loop: the next time it has ended */
			link = &shift->former;
			continue;
		}
		*link = shift->former;
		shift->former = gone;
		gone = shift;
	}
	lock_give(&handler->lock);
	for (struct shift *next; gone; gone = next) {
		next = gone->former;
		pthread_join(gone->thread, NULL);
		shift_free(handler->k, gone);
	}
}
