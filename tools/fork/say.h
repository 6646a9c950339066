/* SPDX-License-Identifier: MIT */
/*
 * How libuffdwp-fork.so speaks: a line on standard error, by one write(2), which allocates nothing.
 *
 * Threads: any.
 */
#ifndef UFFDWP_FORK_SAY_H
#define UFFDWP_FORK_SAY_H

/* Before main(): what standard error is. Where it has become another file, nothing is said any more. */
void say_init(void);

/* "uffdwp-fork: PROGRAM ...", once for each `said`, and never where UFFDWP_FORK_QUIET is set. errno is kept. */
__attribute__((format(printf, 2, 3))) void say_once(_Atomic(int) *said, const char *format, ...);

/* The same each time, where UFFDWP_FORK_VERBOSE is set. */
__attribute__((format(printf, 1, 2))) void say_verbose(const char *format, ...);

#endif
