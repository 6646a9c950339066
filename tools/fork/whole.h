/* SPDX-License-Identifier: MIT */
/*
 * fork(3) of the C library where objects of the C library lie in the region, with all that it does in a child: threads
 * of the parent are forgotten and not counted, locks and helpers (of timers, name services, dlopen(3)) are new.
 *
 * Idea: it runs no handlers, which forks.c has run by then, and is called where _Fork(3) would be: faults are stalled
 * already. In the parent it touches nothing of the region (the one object that it did, the state of name services, is
 * allocated before the region serves). In the child it touches streams and data of threads before the region is at its
 * place; the first such access is a fault there, by which the region gets to its place. Until fork(3) returns SIGSEGV
 * is ours for that; other threads of the parent that meet one meanwhile are passed on to the program's own action.
 *
 * Threads: the one that forks, with the heap's lock, and signals blocked but those of faults.
 */
#ifndef UFFDWP_FORK_WHOLE_H
#define UFFDWP_FORK_WHOLE_H

#include <sys/types.h>

#include "raw.h"

/* Before the region serves. `is_foreign`: malloc(3) is not the C library's. */
void whole_init(int is_foreign);

/* Until whole_end(): whole_bare_fork() of this thread is fork(3), if that is possible. `in_child`: what gives the
 * region its place in the child, which may run once more afterwards; NULL: it is there. */
void whole_begin(raw_handler *in_child);
void whole_end(void);

/* Meanwhile: another such function. */
void whole_change(raw_handler *in_child);

/* As _Fork(3): for copy.c, and for the library, whose calls of _Fork(3) and pthread_atfork(3) come here. */
pid_t whole_bare_fork(void);
int whole_atfork(raw_handler *prepare, raw_handler *parent, raw_handler *child);

/* What the library does in a child. */
void whole_library_in_child(void);

#endif
