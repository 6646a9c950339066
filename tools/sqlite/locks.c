/* SPDX-License-Identifier: MIT */
/*
 * See locks.h. Each waiter sleeps on a condition of its own, in a list in order of arrival; a thread that lowers a lock
 * walks the list and wakes those whose condition has come true. A waiter for a cut is given its SHARED by the thread
 * that wakes it, so that it cannot lose it again to a writer that is faster; so is a reader that has waited for long.
 */
#include "locks.h"

#include <errno.h>
#include <stddef.h>
#include <time.h>

#define OVERTAKE_NS UINT64_C(1000000) /* how long a waiter may be overtaken */
#define BATON_NS UINT64_C(5000000)    /* how long a baton waits for its thread to wake */
#define FETCH_NS UINT64_C(100000000)  /* and for a thread that has it to take RESERVED, as it is about to */
#define SECOND_NS UINT64_C(1000000000)

struct lock_waiter {
	pthread_cond_t wake;
	enum lock_level wanted;
	int granted; /* SHARED is counted already */
	uint64_t since_ns;
	const void *thread;
	struct lock_waiter *next;
};

/* Its address names the thread. */
static _Thread_local char locks_thread;

uint64_t locks_now_ns(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * SECOND_NS + (uint64_t)now.tv_nsec;
}

void locks_init(struct locks *locks)
{
	*locks = (struct locks){.shared = 0};
	pthread_mutex_init(&locks->mutex, NULL);
}

void locks_fini(struct locks *locks)
{
	pthread_mutex_destroy(&locks->mutex);
}

static int locks_baton_bars(const struct locks *locks, const void *thread)
{
	return locks->baton && locks->baton != thread && locks_now_ns() < locks->baton_until_ns;
}

static int locks_possible(const struct locks *locks, enum lock_level wanted, const void *thread)
{
	switch (wanted) {
	case LOCK_SHARED:
		return !locks->pending;
	case LOCK_RESERVED:
		return !locks->reserved && !locks->pending && !locks_baton_bars(locks, thread);
	case LOCK_EXCLUSIVE:
		return locks->shared <= 1;
	case LOCK_CUT:
		return !locks->exclusive;
	default:
		return 1;
	}
}

static int locks_take_shared(struct locks *locks, struct lock_holder *holder)
{
	if (!locks_possible(locks, LOCK_SHARED, &locks_thread))
		return -EBUSY;
	locks->shared++;
	holder->level = LOCK_SHARED;
	return 0;
}

static int locks_take_reserved(struct locks *locks, struct lock_holder *holder)
{
	if (!locks_possible(locks, LOCK_RESERVED, &locks_thread))
		return -EBUSY;
	locks->baton = NULL;
	locks->reserved = holder;
	holder->level = LOCK_RESERVED;
	return 0;
}

static int locks_take_exclusive(struct locks *locks, struct lock_holder *holder)
{
	if ((locks->reserved && locks->reserved != holder) || (locks->pending && locks->pending != holder))
		return -EBUSY;
	locks->pending = holder;
	holder->level = LOCK_PENDING;
	if (locks->shared > 1)
		return -EBUSY;
	locks->exclusive = holder;
	holder->level = LOCK_EXCLUSIVE;
	return 0;
}

static int locks_try(struct locks *locks, struct lock_holder *holder, enum lock_level wanted)
{
	if (wanted == LOCK_SHARED)
		return locks_take_shared(locks, holder);
	if (wanted == LOCK_RESERVED)
		return locks_take_reserved(locks, holder);
	return locks_take_exclusive(locks, holder);
}

/* To the first that waits for RESERVED, if it has waited long enough. */
static void locks_pass_baton(struct locks *locks)
{
	struct lock_waiter *waiter = locks->waiters;
	while (waiter && waiter->wanted != LOCK_RESERVED)
		waiter = waiter->next;
	if (!waiter)
		return;
	uint64_t now_ns = locks_now_ns();
	if (now_ns - waiter->since_ns < OVERTAKE_NS)
		return;
	locks->baton = waiter->thread;
	locks->baton_until_ns = now_ns + BATON_NS;
}

/* 1: the waiter gets its SHARED by being woken. */
static int locks_grants(const struct lock_waiter *waiter)
{
	return waiter->wanted == LOCK_CUT ||
	       (waiter->wanted == LOCK_SHARED && locks_now_ns() - waiter->since_ns >= OVERTAKE_NS);
}

static void locks_wake(struct locks *locks)
{
	for (struct lock_waiter *waiter = locks->waiters; waiter; waiter = waiter->next) {
		if (waiter->granted || !locks_possible(locks, waiter->wanted, waiter->thread))
			continue;
		if (locks_grants(waiter)) {
			waiter->granted = 1;
			locks->shared++;
		}
		pthread_cond_signal(&waiter->wake);
	}
}

static void locks_disown(struct locks *locks, const struct lock_holder *holder)
{
	if (locks->exclusive == holder)
		locks->exclusive = NULL;
	if (locks->pending == holder)
		locks->pending = NULL;
	if (locks->reserved == holder) {
		locks->reserved = NULL;
		locks_pass_baton(locks);
	}
}

void locks_drop(struct locks *locks, struct lock_holder *holder, enum lock_level level)
{
	if (holder->level <= level)
		return;
	pthread_mutex_lock(&locks->mutex);
	if (level == LOCK_NONE && locks->baton == &locks_thread) /* it gives up what it waited for */
		locks->baton = NULL;
	if (holder->level > LOCK_SHARED)
		locks_disown(locks, holder);
	if (level == LOCK_NONE)
		locks->shared--;
	holder->level = level;
	locks_wake(locks);
	pthread_mutex_unlock(&locks->mutex);
}

int locks_reserved(struct locks *locks)
{
	pthread_mutex_lock(&locks->mutex);
	int reserved = locks->reserved || locks->pending;
	pthread_mutex_unlock(&locks->mutex);
	return reserved;
}

int locks_free_and(struct locks *locks, int (*test)(const char *name), const char *name)
{
	pthread_mutex_lock(&locks->mutex);
	int holds = !locks->reserved && !locks->pending && test(name);
	pthread_mutex_unlock(&locks->mutex);
	return holds;
}

static void locks_waiter_join(struct locks *locks, struct lock_waiter *waiter)
{
	struct lock_waiter **end = &locks->waiters;
	while (*end)
		end = &(*end)->next;
	*end = waiter;
}

static void locks_waiter_part(struct locks *locks, struct lock_waiter *waiter)
{
	struct lock_waiter **place = &locks->waiters;
	while (*place != waiter)
		place = &(*place)->next;
	*place = waiter->next;
}

/* One sleep: to the deadline, or to when a baton of another thread expires. */
static void locks_waiter_sleep(struct locks *locks, struct lock_waiter *waiter, uint64_t deadline_ns)
{
	uint64_t until_ns = deadline_ns;
	if (waiter->wanted == LOCK_RESERVED && locks->baton && locks->baton != waiter->thread &&
	    locks->baton_until_ns < until_ns)
		until_ns = locks->baton_until_ns;
	struct timespec until = {.tv_sec = (time_t)(until_ns / SECOND_NS), .tv_nsec = (long)(until_ns % SECOND_NS)};
	pthread_cond_clockwait(&waiter->wake, &locks->mutex, CLOCK_MONOTONIC, &until);
}

/* What has become of a wait. */
enum await {
	AWAIT_OVER,      /* the time is over */
	AWAIT_AVAILABLE, /* until the mutex is released */
	AWAIT_GRANTED    /* SHARED is counted */
};

/* With the mutex held. */
static enum await locks_await(struct locks *locks, enum lock_level wanted, uint64_t since_ns, uint64_t deadline_ns)
{
	struct lock_waiter waiter = {
	        .wake = PTHREAD_COND_INITIALIZER, .wanted = wanted, .since_ns = since_ns, .thread = &locks_thread};
	locks_waiter_join(locks, &waiter);
	while (!waiter.granted && !locks_possible(locks, wanted, waiter.thread) && locks_now_ns() < deadline_ns)
		locks_waiter_sleep(locks, &waiter, deadline_ns);
	locks_waiter_part(locks, &waiter);
	pthread_cond_destroy(&waiter.wake);
	if (waiter.granted)
		return AWAIT_GRANTED;
	return locks_possible(locks, wanted, waiter.thread) ? AWAIT_AVAILABLE : AWAIT_OVER;
}

/* With the mutex held, after a refusal. EXCLUSIVE is waited for only with PENDING, which stops those that come. */
static int locks_take_awaited(struct locks *locks, struct lock_holder *holder, enum lock_level wanted,
                              uint64_t since_ns, uint64_t until_ns)
{
	if (wanted != LOCK_SHARED && holder->level != LOCK_PENDING)
		return -EBUSY;
	switch (locks_await(locks, wanted, since_ns, until_ns)) {
	case AWAIT_GRANTED:
		holder->level = LOCK_SHARED;
		return 0;
	case AWAIT_AVAILABLE:
		return locks_try(locks, holder, wanted);
	default:
		return -EBUSY;
	}
}

int locks_take(struct locks *locks, struct lock_holder *holder, enum lock_level wanted, uint64_t since_ns,
               uint64_t until_ns)
{
	if (holder->level >= wanted)
		return 0;
	pthread_mutex_lock(&locks->mutex);
	int result = locks_try(locks, holder, wanted);
	if (result < 0 && until_ns)
		result = locks_take_awaited(locks, holder, wanted, since_ns, until_ns);
	pthread_mutex_unlock(&locks->mutex);
	return result;
}

void locks_wait(struct locks *locks, enum lock_level wanted, uint64_t since_ns, uint64_t until_ns)
{
	pthread_mutex_lock(&locks->mutex);
	if (locks_await(locks, wanted, since_ns, until_ns) != AWAIT_OVER && wanted == LOCK_RESERVED) {
		locks->baton = &locks_thread;
		locks->baton_until_ns = locks_now_ns() + FETCH_NS;
	}
	pthread_mutex_unlock(&locks->mutex);
}

int locks_cut_enter(struct locks *locks, uint64_t timeout_ns)
{
	int result = 0;
	pthread_mutex_lock(&locks->mutex);
	uint64_t now_ns = locks_now_ns();
	if (!locks->exclusive)
		locks->shared++;
	else if (locks_await(locks, LOCK_CUT, now_ns, now_ns + timeout_ns) != AWAIT_GRANTED)
		result = -ETIMEDOUT;
	pthread_mutex_unlock(&locks->mutex);
	return result;
}

void locks_cut_leave(struct locks *locks)
{
	pthread_mutex_lock(&locks->mutex);
	locks->shared--;
	locks_wake(locks);
	pthread_mutex_unlock(&locks->mutex);
}
