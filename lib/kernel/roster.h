/* SPDX-License-Identifier: MIT */
/*
 * A roster: what is open in this process, by numbers, so that a thread of the library that serves others (control/)
 * finds it, and uses it while the program may close it.
 *
 * Idea: a user takes an entry, uses the thing for as long as it likes, and gives it back; no lock is held meanwhile.
 * A thread that closes a thing hides it first: from then on no other takes it, and those that have it are waited for. A
 * close that is refused shows it again.
 *
 * Threads: any but one inside the epoch, or in a signal handler. One that closes a thing must not have taken it, nor
 * hold a lock that its users need. In a child of fork() the roster is empty, and what its parent had there is ignored.
 *
 * Never: a thing ends while a thread has taken it.
 */
#ifndef UFFDWP_KERNEL_ROSTER_H
#define UFFDWP_KERNEL_ROSTER_H

#include <stdatomic.h>
#include <stdint.h>

#include "kernel/kernel.h"

enum roster_kind { ROSTER_RUNTIME, ROSTER_REGION, ROSTER_SNAPSHOT, ROSTER_RESTORE, ROSTER_KINDS };

/* Part of the thing; all zeros: it is not on the roster. */
struct roster_entry {
	enum roster_kind kind;
	uint32_t process; /* that added it, by process_number(); 0: it was never added */
	uint64_t number;  /* from 1 on, of its kind; never used again */
	void *thing;
	const struct roster_entry *of; /* what it is a part of; NULL: of the process */
	struct roster_entry *next;
	struct roster_entry *before;
	unsigned users;           /* threads that have taken it */
	unsigned hidden;          /* closes that are under way */
	_Atomic uint32_t changes; /* moves when the last user has given it back; closers sleep on it */
};

/* Before the first entry. */
void roster_begin(void);

/* From now on other threads find the thing. */
void roster_add(struct roster_entry *entry, enum roster_kind kind, void *thing, const struct roster_entry *of);

/* 1: it is on the roster of this process. */
int roster_has(const struct roster_entry *entry);

/* No thread takes it from now on; returns when no thread has it. One that is not on the roster: nothing happens. */
void roster_hide(const struct kernel_ops *k, struct roster_entry *entry);
void roster_show(struct roster_entry *entry);

/* Hides it for good. */
void roster_remove(const struct kernel_ops *k, struct roster_entry *entry);

/* Takes the first of that kind whose number is `from` or more, and which is a part of `of` (NULL: of any). NULL: there
 * is none. */
struct roster_entry *roster_take(enum roster_kind kind, uint64_t from, const struct roster_entry *of);
void roster_give(const struct kernel_ops *k, struct roster_entry *entry);

#endif
