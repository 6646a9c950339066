/* SPDX-License-Identifier: MIT */
/* See forks.h. A table of slots that are taken by compare-and-swap, so that a child finds it whole at any moment. */
#include "base/forks.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>

static _Atomic(forks_fn *) forks_table[FORKS_MOST];
static _Atomic(const struct forks_around *) forks_around;
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

void forks_add_around(const struct forks_around *around)
{
	atomic_store(&forks_around, around);
}

static void forks_run_before(void)
{
	const struct forks_around *around = atomic_load(&forks_around);

	if (around)
		around->before();
}

static void forks_run_in_parent(void)
{
	const struct forks_around *around = atomic_load(&forks_around);

	if (around)
		around->in_parent();
}

void forks_after_bare(void)
{
	for (size_t i = 0; i < FORKS_MOST; i++) {
		forks_fn *in_child = atomic_load(&forks_table[i]);

		if (in_child)
			in_child();
	}
}

static void forks_run_in_child(void)
{
	const struct forks_around *around = atomic_load(&forks_around);

	if (around)
		around->in_child();
	forks_after_bare();
}

/* Two threads may come here at once, and a child of fork() while one of them is inside: then all runs twice. */
int forks_watch(void)
{
	if (atomic_load(&forks_are_watched))
		return 0;
	int error = -pthread_atfork(forks_run_before, forks_run_in_parent, forks_run_in_child);

	if (!error)
		atomic_store(&forks_are_watched, 1);
	return error;
}
