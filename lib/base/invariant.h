/* SPDX-License-Identifier: MIT */
/*
 * The named invariants, asserted. INVARIANT(CLAIM, condition) stands where code relies on INV-CLAIM or establishes it.
 * With UFFDWP_INVARIANTS the condition is counted, the process ends with its text where it does not hold, and a test
 * program prints at its end how often each was checked: so the library that tests are linked with is built. Without,
 * which is the library that is installed and measured, no code is left of it.
 *
 * Threads: any, also in a signal handler. What a thread holds is noted by the thread itself.
 */
#ifndef UFFDWP_BASE_INVARIANT_H
#define UFFDWP_BASE_INVARIANT_H

#include <stdint.h>

/* Where each is stated: lib/README.md. */
#define INVARIANT_NAMES(each)                                                                                          \
	each(CUT) each(EPOCH) each(WAKE) each(CLAIM) each(IDEMPOTENT) each(OPEN) each(SAFE) each(COMMIT) each(LINK)    \
	        each(REARM) each(ABSENT) each(VIEW) each(TRACK) each(TRIED) each(LOCK) each(PHASE) each(LEDGER)

#define INVARIANT_MEMBER(name) INVARIANT_##name,
enum invariant { INVARIANT_NAMES(INVARIANT_MEMBER) INVARIANT_COUNT };

#ifdef UFFDWP_INVARIANTS
#define INVARIANT(name, condition) invariant_check(INVARIANT_##name, (condition) != 0, #condition, __FILE__, __LINE__)
#define INVARIANT_NOTE(call) call
#else
#define INVARIANT(name, condition) ((void)(0 && (condition)))
#define INVARIANT_NOTE(call) ((void)0)
#endif

/* Counts, and ends the process where it does not hold. */
void invariant_check(enum invariant name, int holds, const char *condition, const char *file, int line);

/* How often it was checked in this process and its children, and its name: "INV-CLAIM". */
uint64_t invariant_checked(enum invariant name);
const char *invariant_name(enum invariant name);

/* For INV-LOCK. A function that asks for a lock is called by the thread that holds it, and one that asks for blocked
 * signals with these blocked. */
void invariant_take(const void *lock);
void invariant_give(const void *lock);
int invariant_holds(const void *lock);
int invariant_signals_blocked(void);

/* How deep this thread is inside of epochs. */
void invariant_enter(void);
void invariant_leave(void);
int invariant_inside(void);

/* In a child of fork(): this thread is inside of no epoch and holds no lock. */
void invariant_forget(void);

#endif
