/* SPDX-License-Identifier: MIT */
/* See guard.h. */
#include "fault/guard.h"

#include <string.h>

#include "base/errno_name.h"
#include "base/thread.h"
#include "base/trace.h"
#include "fault/handler_private.h"
#include "kernel/backoff.h"

/* NONE --renew--> RUNS --a handler is lost--> TAKES --its place is taken--> NONE, else RUNS; NONE, RUNS --stop--> STOPS
 */
enum guard_state { GUARD_NONE, GUARD_RUNS, GUARD_TAKES, GUARD_STOPS };

static int guard_move(struct guard *guard, int from, int to)
{
	return atomic_compare_exchange_strong(&guard->state, &from, to);
}

static void guard_all(const struct guard *guard, struct region_bell *bell)
{
	for (unsigned i = 0; i < guard->count; i++)
		handler_guard(guard->handlers[i], bell);
}

/* HANDLER_LOST: *which. */
static enum handler_look guard_look(const struct guard *guard, struct handler_pulse *pulses, int late, unsigned *which)
{
	enum handler_look all = HANDLER_QUIET;

	for (unsigned i = 0; i < guard->count; i++) {
		enum handler_look one = handler_look_at(guard->handlers[i], &pulses[i], late);

		if (one == HANDLER_LOST) {
			*which = i;
			return one;
		}
		all = one == HANDLER_WATCHED ? one : all;
	}
	return all;
}

/* 1: it was no tick: shorter, or so long that the process, or this thread, did not run for a part of it. Partner:
 * region_activate(), which raises `active` before it looks whether the bell is awaited. */
static int guard_sleep(struct guard *guard, enum handler_look found, uint32_t rung)
{
	uint64_t begun_ns = kernel_now_ns();
	uint64_t bound_ns = found == HANDLER_QUIET ? 0 : GUARD_TICK_NS;

	if (found != HANDLER_QUIET)
		atomic_store(&guard->bell.awaited, 0);
	guard->k->futex_wait((const uint32_t *)&guard->bell.rung, rung, bound_ns);
	uint64_t slept_ns = kernel_now_ns() - begun_ns;

	return slept_ns < GUARD_TICK_NS / 2 || slept_ns > 2 * GUARD_TICK_NS;
}

/* The shift that this thread is to serve; NULL: none. */
static struct shift *guard_take_place(struct guard *guard, struct handler *handler, const struct handler_pulse *pulse)
{
	struct shift *fresh = guard->fresh;

	if (!guard_move(guard, GUARD_RUNS, GUARD_TAKES))
		return NULL;
	int taken = handler_take_place(handler, pulse, fresh);

	if (taken)
		guard->fresh = NULL;
	if (taken == 1) {
		guard_all(guard, NULL);
		atomic_store(&guard->state, GUARD_NONE); /* from here on the guard is that of the next thread */
		return fresh;
	}
	if (taken < 0 && fresh)
		shift_free(guard->k, fresh);
	if (taken < 0)
		(void)shift_new(guard->k, &guard->fresh); /* without one no place can be taken */
	atomic_store(&guard->state, GUARD_RUNS);
	return NULL;
}

static struct shift *guard_loop(struct guard *guard)
{
	struct handler_pulse pulses[GUARD_HANDLERS_MAX];
	enum handler_look found = HANDLER_QUIET;
	unsigned which = 0;
	struct shift *shift = NULL;
	int late = 1;

	memset(pulses, 0, sizeof(pulses));
	while (!shift && atomic_load(&guard->state) == GUARD_RUNS) {
		uint32_t rung = atomic_load(&guard->bell.rung);

		atomic_store(&guard->bell.awaited, 1);
		found = guard_look(guard, pulses, late, &which);
		if (found == HANDLER_LOST)
			shift = guard_take_place(guard, guard->handlers[which], &pulses[which]);
		else
			late = guard_sleep(guard, found, rung);
	}
	return shift;
}

static void *guard_main(void *argument)
{
	struct guard *guard = argument;

	thread_begin("uffdwp-guard");
	struct shift *shift = guard_loop(guard);

	if (shift)
		handler_serve(shift);
	return NULL;
}

void guard_renew(struct guard *guard, const struct kernel_ops *k, struct handler *const *handlers, unsigned count)
{
	if (atomic_load(&guard->state) != GUARD_NONE || !guard_move(guard, GUARD_NONE, GUARD_RUNS))
		return;
	guard->k = k;
	guard->handlers = handlers;
	guard->count = count;
	for (unsigned i = 0; i < count; i++)
		handler_reap(handlers[i]);
	int error = shift_new(k, &guard->fresh);

	if (!error)
		guard_all(guard, &guard->bell);
	if (!error)
		error = thread_spawn(&guard->thread, NULL, guard_main, guard);
	if (!error)
		return;
	TRACE("no thread looks after the handlers: %s", errno_text(error));
	guard_all(guard, NULL);
	if (guard->fresh)
		shift_free(k, guard->fresh);
	guard->fresh = NULL;
	(void)guard_move(guard, GUARD_RUNS, GUARD_NONE);
}

void guard_stop(struct guard *guard)
{
	unsigned turn = 0;

	while (!guard_move(guard, GUARD_NONE, GUARD_STOPS)) {
		if (guard_move(guard, GUARD_RUNS, GUARD_STOPS)) {
			region_ring(&guard->bell, guard->k);
			pthread_join(guard->thread, NULL);
			break;
		}
		kernel_back_off(guard->k, &turn);
	}
	guard_all(guard, NULL);
	if (guard->fresh)
		shift_free(guard->k, guard->fresh);
}
