/* SPDX-License-Identifier: MIT */
/*
 * Handlers of pthread_atfork(3), the program's and ours.
 *
 * Idea: all of them are here, and the C library has one triple alone, which runs them where its fork is called, unless
 * they have run before. Prepare handlers run in the reverse order of their registration, the others in its order. Ours
 * are nearest to the fork, whichever were registered before: libraries of the program begin before this one.
 * Handlers of an object that is unloaded go with it.
 *
 * Threads: any; a handler may register others, which run from the next fork on.
 */
#ifndef UFFDWP_FORK_HANDLERS_H
#define UFFDWP_FORK_HANDLERS_H

#include <stddef.h>

#include "raw.h"

/* 0 or an error number. */
int handlers_add(raw_handler *prepare, raw_handler *parent, raw_handler *child, const void *object);

/* Handlers that run after all others' prepare handlers, and before all others in the parent and the child. */
int handlers_add_nearest(raw_handler *prepare, raw_handler *parent, raw_handler *child);

/* The object is being unloaded. */
void handlers_drop(const void *object);

/* Runs what is there, and returns how many that are: for the other two. */
size_t handlers_prepare(void);
void handlers_parent(size_t count);

/* Forks of the C library by this thread run none from now on, or (0) again. */
void handlers_have_run(int on);

/* The child's only thread: whatever other threads did to the table is undone. */
void handlers_child(size_t count);

#endif
