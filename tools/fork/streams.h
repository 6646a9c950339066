/* SPDX-License-Identifier: MIT */
/*
 * Locks of the C library's streams, for forks that are not the C library's: its own fork(3) takes the lock of the list
 * of streams before, and puts that and the lock of each stream into its first state in the child.
 *
 * The functions are glibc's own, exported since 2.2. Where they are not there nothing is done.
 *
 * Threads: the one that forks.
 */
#ifndef UFFDWP_FORK_STREAMS_H
#define UFFDWP_FORK_STREAMS_H

void streams_lock(void);
void streams_unlock(void);

/* In the child, instead of streams_unlock(). */
void streams_reset(void);

#endif
