/* SPDX-License-Identifier: MIT */
/* See thread.h. */
#include "base/thread.h"

#include <dlfcn.h>
#include <errno.h>
#include <semaphore.h>

#include "base/signals.h"

/* A thread that goes to its CPUs before it runs: not every C library has an attribute for them. On the stack of the
 * spawner, which waits. */
struct thread_start {
	const cpu_set_t *cpus;
	void *(*run)(void *);
	void *argument;
	int error;
	sem_t decided;
};

static void *thread_on_cpus(void *argument)
{
	struct thread_start *start = argument;
	void *(*run)(void *) = start->run;
	void *for_run = start->argument;
	int error = sched_setaffinity(0, sizeof(*start->cpus), start->cpus) ? -errno : 0;

	start->error = error;
	sem_post(&start->decided); /* `start` is gone */
	return error ? NULL : run(for_run);
}

/* Threads of ours that cannot be woken any more, because the program has closed what wakes them, are cancelled. glibc
 * loads what unwinds them at the first pthread_cancel(3), by name, and ends the process where that fails: after
 * chroot(2), in a sandbox. So it is loaded while a thread can be started, and stays. */
static void thread_load_unwinder(void)
{
#ifdef __GLIBC__
	(void)dlopen("libgcc_s.so.1", RTLD_NOW | RTLD_LOCAL);
#endif
}

static int thread_create(pthread_t *thread, const struct thread_place *place, void *(*run)(void *), void *argument)
{
	pthread_attr_t attributes;
	sigset_t before;

	pthread_attr_init(&attributes);
	int error = place && place->stack ? pthread_attr_setstack(&attributes, place->stack, place->stack_bytes) : 0;

	signals_block_but_faults(&before);
	if (!error)
		error = pthread_create(thread, &attributes, run, argument);
	signals_restore(&before);
	pthread_attr_destroy(&attributes);
	return -error;
}

int thread_spawn(pthread_t *thread, const struct thread_place *place, void *(*run)(void *), void *argument)
{
	static pthread_once_t loaded = PTHREAD_ONCE_INIT;

	CANCEL_DISABLED();
	pthread_once(&loaded, thread_load_unwinder);
	if (!place || !place->cpus)
		return thread_create(thread, place, run, argument);
	struct thread_start start = {.cpus = place->cpus, .run = run, .argument = argument};

	sem_init(&start.decided, 0, 0);
	int error = thread_create(thread, place, thread_on_cpus, &start);

	while (!error && sem_wait(&start.decided)) {
		/* a signal */
	}
	if (!error && start.error) {
		pthread_join(*thread, NULL);
		error = start.error;
	}
	sem_destroy(&start.decided);
	return error;
}

int thread_apart(void *(*run)(void *), void *argument)
{
	pthread_t thread;

	CANCEL_DISABLED();
	int error = thread_spawn(&thread, NULL, run, argument);

	if (!error)
		pthread_join(thread, NULL);
	return error;
}
