/* SPDX-License-Identifier: MIT */
/*
 * Parts of the region that the program has made other than readable and writable, by mprotect(2): guard pages, frozen
 * data. The kernel has them so in this process; a child of ours begins with a mapping that knows nothing of them.
 *
 * Idea: a sorted table of ranges. A table that is full refuses, as mprotect(2) does where a process has too many
 * mappings.
 *
 * Threads: the caller has the heap's lock.
 */
#ifndef UFFDWP_FORK_RIGHTS_H
#define UFFDWP_FORK_RIGHTS_H

#include <stdint.h>

#define RIGHTS_USUAL (PROT_READ | PROT_WRITE)

/* Has the kernel give [start, end) this protection, and notes it. 0 or -errno, and nothing happened. */
int rights_set(uint64_t start, uint64_t end, int protection);

/* Notes it only: the kernel has done so. */
void rights_note(uint64_t start, uint64_t end, int protection);

/* 1: some of [start, end) has not the usual protection. */
int rights_differ(uint64_t start, uint64_t end);

/* Has the kernel give what the table says for [start, end), which is readable and writable now. 0 or -errno. */
int rights_apply(uint64_t start, uint64_t end);

int rights_at(uint64_t at);

/* Has the kernel make [start, end) readable and writable, until rights_apply(). 0 or -errno. */
int rights_suspend(uint64_t start, uint64_t end);

/* Gives `length` bytes at `place`, in the region or not, what the table says for [start, end), and those beyond its end
 * what its last page has. 0 or -errno. */
int rights_carry(uint64_t start, uint64_t end, char *place, uint64_t length);

#endif
