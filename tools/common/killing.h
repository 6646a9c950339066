/* SPDX-License-Identifier: MIT */
/*
 * Seccomp filters that kill: a call that such a filter forbids ends the program that makes it, and no error can be
 * returned. So calls that the library makes are made by a child first, with arguments by which they change nothing.
 *
 * Threads: any; a child is made by clone(2) as of fork(2), without handlers, and sends no signal when it ends.
 * Never: a call that allocates.
 */
#ifndef UFFDWP_COMMON_KILLING_H
#define UFFDWP_COMMON_KILLING_H

#include <stddef.h>

/* 0: this process has no filter. */
int killing_may_be(void);

/* 1: a child that makes the call is killed by a filter. A call that refuses, or a fork that fails, kills no process. */
int killing_kills(void (*call)(void));

/* The names of the calls for which a filter kills, "a, b": how many bytes; 0: none. with_images: also of those that
 * only images need. */
size_t killing_find(char *names, size_t size, int with_images);

#endif
