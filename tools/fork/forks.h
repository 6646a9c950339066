/* SPDX-License-Identifier: MIT */
/*
 * fork(2) of the program.
 *
 * Idea: while the region is empty it is the C library's fork. Else it is uffdwp_fork(). Objects of the C library
 * (streams, the dtv of a thread) may lie in the region, which must not be touched between the cut and the fork, and
 * which the child does not have before the library has put it there; so may what the program's handlers use. So it is
 * the bare one, around which the program's handlers and the locks of streams are our business; but what is called for
 * the fork itself is not _Fork(3), after which the child would keep the parent's threads, locks and helpers: whole.h.
 *
 * Threads: any. Several forks at a time take turns.
 * Never: a child without the region's content, or with that of another instant. Where neither uffdwp_fork() nor a copy
 * is possible fork(2) fails with EAGAIN.
 */
#ifndef UFFDWP_FORK_FORKS_H
#define UFFDWP_FORK_FORKS_H

#include <stddef.h>
#include <sys/types.h>

/* fork(3), and _Fork(3), which runs no handlers. */
pid_t forks_fork(void);
pid_t forks_fork_bare(void);

/* Before the first of them, after the library has added its handlers. 0 or -ENOMEM. */
int forks_init(void);

/* One fork of ours whose child ends at once, of a region that is empty: 0, or -errno where it is not possible; *why is
 * left alone where uffdwp_error_text() says it. */
int forks_try(char *why, size_t size);

#endif
