/* SPDX-License-Identifier: MIT */
/* See threads.h. */
#include "threads.h"

#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

/* One for each child that lives, and some. A thread beyond that is not known, and counts as the program's. */
#define THREADS_MOST 256

struct threads_slot {
	_Atomic int taken;
	_Atomic pid_t thread;
	void *(*run)(void *);
	void *argument;
};

static struct threads_slot threads_table[THREADS_MOST];

static struct threads_slot *threads_take(void)
{
	for (size_t i = 0; i < THREADS_MOST; i++) {
		int none = 0;

		if (atomic_compare_exchange_strong(&threads_table[i].taken, &none, 1))
			return &threads_table[i];
	}
	return NULL;
}

static void threads_give(void *argument)
{
	struct threads_slot *slot = argument;

	atomic_store(&slot->thread, 0);
	atomic_store(&slot->taken, 0);
}

/* Threads of the library may be cancelled. */
static void *threads_run(void *argument)
{
	struct threads_slot *slot = argument;
	void *result;

	atomic_store(&slot->thread, (pid_t)syscall(SYS_gettid));
	pthread_cleanup_push(threads_give, slot);
	result = slot->run(slot->argument);
	pthread_cleanup_pop(1);
	return result;
}

int raw_thread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument)
{
	struct threads_slot *slot = threads_take();
	int error;

	if (!slot)
		return pthread_create(thread, attributes, run, argument);
	slot->run = run;
	slot->argument = argument;
	error = pthread_create(thread, attributes, threads_run, slot);
	if (error)
		threads_give(slot);
	return error;
}

int threads_has(pid_t thread)
{
	for (size_t i = 0; i < THREADS_MOST; i++) {
		if (atomic_load(&threads_table[i].thread) == thread)
			return 1;
	}
	return 0;
}

void threads_renew(void)
{
	for (size_t i = 0; i < THREADS_MOST; i++)
		threads_give(&threads_table[i]);
}
