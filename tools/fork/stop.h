/* SPDX-License-Identifier: MIT */
/*
 * Stops all threads of the program but the calling one, for a moment in which its memory is copied.
 *
 * Idea: a helper process, made by clone(2) with nothing shared but the page in which it reports, traces the threads
 * (ptrace(2), PTRACE_INTERRUPT): no handler runs, and most system calls of theirs go on as after a stop signal; those
 * that signal(7) names for that (epoll_wait(2), semop(2) ...) return EINTR. If the helper dies the kernel resumes them.
 * Threads of the library go on: they resolve faults. So while the others are stopped the calling thread must take no
 * lock and must not allocate. Which process may trace the program (PR_SET_PTRACER) is the program's setting; it is
 * changed where the helper is refused, and then there is none afterwards.
 *
 * Threads: one at a time, signals blocked.
 * Never: a thread that stays stopped.
 */
#ifndef UFFDWP_FORK_STOP_H
#define UFFDWP_FORK_STOP_H

/* At the start, what later may not be available. 0 or -ENOMEM. */
int stop_init(void);

/* 0: they are stopped, until stop_end(); -EAGAIN: the helper may not trace this process, or a thread did not stop, as
 * *why says; another error: that of clone(2), and *why is NULL. */
int stop_begin(const char **why);

/* Until then: 1: there are any; they may hold locks of the C library's. */
int stop_has_others(void);

/* They go on. 1: they were stopped until now; 0: the helper was ended before. */
int stop_end(void);

/* In a child that was forked meanwhile: drops what it has of this. */
void stop_leave(void);

#endif
