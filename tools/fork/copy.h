/* SPDX-License-Identifier: MIT */
/*
 * fork(2) where uffdwp_fork() is not possible: slow, and right.
 *
 * Idea: all that the program has in the region is copied into private anonymous memory, which the child inherits and
 * moves to the region's address. From the copy to the fork all other threads of the program are stopped (stop.h).
 *
 * Threads: any, with the heap's lock and signals blocked.
 */
#ifndef UFFDWP_FORK_COPY_H
#define UFFDWP_FORK_COPY_H

#include <sys/types.h>

/* As _Fork(3), but for -EAGAIN instead of -1: it is not possible. */
pid_t copy_fork(void);

#endif
