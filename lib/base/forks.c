/* SPDX-License-Identifier: MIT */
/* See forks.h. A table of slots that are taken by compare-and-swap, so that a child finds it whole at any moment. */
#include "base/forks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

static _Atomic(forks_fn *) forks_table[FORKS_MOST];
static _Atomic int forks_are_watched;

void forks_add(forks_fn *in_child)
{
	for (size_t i = 0; i < FORKS_MOST; i++) {
		forks_fn *found = NULL;

		if (atomic_compare_exchange_strong(&forks_table[i], &found, in_child) || found == in_child)
			return;
	}
	__builtin_trap(); /* a module more than FORKS_MOST: whichever test comes by finds it */
}

static void forks_run_in_child(void)
{
	for (size_t i = 0; i < FORKS_MOST; i++) {
		forks_fn *in_child = atomic_load(&forks_table[i]);

		if (in_child)
			in_child();
	}
}

/* Two threads may come here at once, and a child of fork() while one of them is inside: then all runs twice. */
int forks_watch(void)
{
	if (atomic_load(&forks_are_watched))
		return 0;
	int error = -pthread_atfork(NULL, NULL, forks_run_in_child);

	if (!error)
		atomic_store(&forks_are_watched, 1);
	return error;
}
