/* SPDX-License-Identifier: MIT */
/*
 * Which threads of this process are the library's, without a look into /proc, for which a descriptor may be missing.
 *
 * Idea: the library inside creates its threads by raw_thread_create() (raw.syms), which notes each while it runs.
 *
 * Threads: any.
 */
#ifndef UFFDWP_FORK_THREADS_H
#define UFFDWP_FORK_THREADS_H

#include <pthread.h>
#include <sys/types.h>

/* As pthread_create(3). */
int raw_thread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*run)(void *), void *argument);

/* 1: a thread of the library. */
int threads_has(pid_t thread);

/* In a child of a plain fork, where none of them is. */
void threads_renew(void);

#endif
