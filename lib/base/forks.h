/* SPDX-License-Identifier: MIT */
/*
 * What a child of fork() makes anew. It has a copy of each lock that lives as long as the process, as it was at that
 * moment: where another thread of the parent held it, no thread of the child can give it back. So the module of such a
 * lock adds a function that puts it into its first state, before the lock is first taken; all of them run in the child,
 * on its only thread, before fork() returns there.
 *
 * Threads: any; nothing is locked here, and a function that was added once stays.
 * Never: a lock that lives as long as the process and is taken before its module has called forks_add().
 */
#ifndef UFFDWP_BASE_FORKS_H
#define UFFDWP_BASE_FORKS_H

#define FORKS_MOST 8 /* functions: one of a module */

typedef void forks_fn(void);

/* Adds a function that allocates nothing and may run twice; again: nothing happens. When it returns the function is
 * there, whichever thread has added it. */
void forks_add(forks_fn *in_child);

/* What else happens around a fork(), on the thread that forks: before, after all handlers of pthread_atfork(3) that
 * were added later; then in the parent and in the child, before all such handlers, and in the child before what was
 * added by forks_add(). One module has it. */
struct forks_around {
	void (*before)(void);
	void (*in_parent)(void);
	void (*in_child)(void);
};

void forks_add_around(const struct forks_around *around);

/* What handlers of pthread_atfork(3) would have run, for a fork that runs none. */
void forks_after_bare(void);

/* From now on what was added, and what will be, runs in children. Before the first region, with signals as the caller
 * has them: the C library may allocate, the first time. 0 or -ENOMEM. */
int forks_watch(void);

#endif
