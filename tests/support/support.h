/* SPDX-License-Identifier: MIT */
/*
 * What every test program starts with: main() calls support_begin() before Check forks anything. It prints the seed,
 * makes a scratch folder, and changes the settings of the machine that the tests need (huge pages, swap).
 *
 * Settings are put back when the program ends, however it ends: by an atexit() hook of the process that changed them,
 * and by a guardian process that outlives it if it is killed. What a failing test must never do is leave the machine
 * changed.
 *
 * Words: must() is the assertion for threads and children that Check knows nothing of: it prints and aborts.
 */
#ifndef SUPPORT_SUPPORT_H
#define SUPPORT_SUPPORT_H

#include <check.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* What a test program wants of the machine. */
struct support_needs {
	unsigned huge_pages; /* of the default size, besides those that others use */
	int swap;            /* 1: some swap */
};

/* Call once, first in main(). What is not available is printed with its reason and answered by the functions below. */
void support_begin(const char *program, const struct support_needs *needs);

/* Runs the suite and gives the exit code of main(). */
int support_run(Suite *suite);

/* 1 where support_begin() got it, or it was there before. */
int support_has_huge_pages(void);
int support_has_swap(void);

/* 0: the kernel forbids to write by /proc/PID/mem what is mapped read-only (proc_mem.force_override). */
int support_may_force_writes(void);

/* 0: an emulator of user programs, which takes the advice MADV_WIPEONFORK and does nothing. */
int support_wipes_on_fork(void);

/* 1: this process is root, and may become a user without rights (65534): not so where a user namespace maps root only.
 */
int support_may_change_user(void);

/* Exit code for "something that this group needs is missing"; prints why. */
int support_skip(const char *reason);

/* What the process has mapped, and what of that is in memory, in bytes; NULL: not asked for. */
void support_memory(uint64_t *mapped, uint64_t *resident);

/* One line about a single test that could not be made here. */
void support_note(const char *test, const char *reason);

/* A fixture for tests of what threads of the library do: with signals blocked, as all of these have them. */
void support_block_signals(void);

/* 1 where the thread sanitizer watches: some tests are beyond it. */
#ifdef __SANITIZE_THREAD__
#define SUPPORT_THREAD_SANITIZER 1
#else
#define SUPPORT_THREAD_SANITIZER 0
#endif

#define must(condition) must_hold((condition) ? 1 : 0, __FILE__, __LINE__, #condition)
void must_hold(int holds, const char *file, int line, const char *text);

pthread_t thread_start(void *(*function)(void *), void *argument);
void thread_join(pthread_t thread);

/* A lock whose writers are not kept waiting by ever new readers, where the C library has such locks. */
void lock_for_writers_init(pthread_rwlock_t *lock);

/* Runs function(argument) in a forked child and gives the wait status; 0: it returned and all must() held. */
int child_run(void (*function)(void *), void *argument);

/* Waits until ready(argument) is not 0, at most `seconds` of a quiet machine (pace.h): a bound against hanging, not a
 * measure. 1: it was. */
int wait_until(int (*ready)(void *), void *argument, unsigned seconds);

/* How often a test does what it does many times: `quick` by default, `all` where UFFDWP_TEST_LONG is set (.ci/long). */
unsigned support_rounds(unsigned quick, unsigned all);

void sleep_us(unsigned long microseconds);

#endif
