/* SPDX-License-Identifier: MIT */
/*
 * fork(2) where uffdwp_fork() is not possible: slow, and right.
 *
 * Idea: the process is forked as ever while all other threads of the program are stopped (stop.h). The region, which
 * the child does not inherit, is filled there: private anonymous memory at the same addresses, with what the child
 * reads from the region's file. Until it has all, the threads stay stopped. So the parent needs no memory, no
 * descriptor and no mapping that it has not had since its start, whatever limits the program has set itself since.
 *
 * Threads: any, with the heap's lock and signals blocked.
 */
#ifndef UFFDWP_FORK_COPY_H
#define UFFDWP_FORK_COPY_H

#include <sys/types.h>

/* At the start, what later may not be available. 0 or -ENOMEM. */
int copy_init(void);

/* As _Fork(3), but for -errno instead of -1. Then *why says what a copy lacked; NULL: fork(2) itself has refused. */
pid_t copy_fork(const char **why);

#endif
