/* SPDX-License-Identifier: MIT */
/*
 * Children that the library had to end by SIGKILL, because they would have seen what their parent writes: said once for
 * each reason.
 *
 * Idea: the library's own story of a run (UFFDWP_DEBUG) has a line for each child's end; it is read here. With
 * UFFDWP_DEBUG in the environment the line itself is on standard error.
 *
 * Threads: the child's, of the library.
 */
#ifndef UFFDWP_FORK_KILLS_H
#define UFFDWP_FORK_KILLS_H

/* Once, after the library was opened. */
void kills_init(void);

#endif
