/* SPDX-License-Identifier: MIT */
/*
 * Low numbers of descriptors belong to the program: a shell writes to descriptor 3, a server finds its sockets from 3
 * on. So while the runtime opens its own, all free low numbers are taken.
 *
 * Threads: before others are there.
 */
#ifndef UFFDWP_FORK_DESCRIPTORS_H
#define UFFDWP_FORK_DESCRIPTORS_H

/* Takes and gives back: up to 200, of a limit of descriptors below 400 the first half; below 64 nothing is taken. */
void descriptors_fill(void);
void descriptors_empty(void);

#endif
