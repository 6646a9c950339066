/* SPDX-License-Identifier: MIT */
/*
 * vm.overcommit_memory=1, which programs that fork() with much memory are run with: without it the kernel may refuse
 * the fork because the child could write all of its memory.
 *
 * The setting is the machine's, so it is put back however the program ends: a guardian process waits for a word of the
 * program, or for its end, also by SIGKILL, and writes the former value.
 *
 * Threads: the main thread, before there are others.
 */
#ifndef UFFDWP_BENCH_OVERCOMMIT_H
#define UFFDWP_BENCH_OVERCOMMIT_H

/* Until the program ends. NULL, or why the setting is not 1. */
const char *overcommit_always(void);

#endif
