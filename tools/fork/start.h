/* SPDX-License-Identifier: MIT */
/*
 * The beginning: before main() the environment is read, the runtime opened, the region created (address space only) and
 * one fork tried. Whatever of it is not possible, the program runs without us, and a line says why.
 *
 * A daemon that has gone into the background by a fork, before it had much memory, has none of that: it begins anew
 * when it makes a session of its own (setsid(2)).
 *
 * Threads: before others are there, or as said.
 */
#ifndef UFFDWP_FORK_START_H
#define UFFDWP_FORK_START_H

/* In a child with one thread, outside of any allocator. Nothing happens where there is a region. */
void start_again(void);

#endif
