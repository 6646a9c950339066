/* SPDX-License-Identifier: MIT */
/*
 * The rival that is no library: a userfaultfd, and the fewest system calls that resume a writer. With a thread: poll(),
 * read() of up to 16 messages, one call for each that resolves it. Inline: UFFD_FEATURE_SIGBUS, and that call in the
 * signal handler. No table of regions, no counters, no checks.
 *
 * Kinds, by what makes a page fault and what resolves that: a wp bit and UFFDIO_WRITEPROTECT; an emptied page-table
 * entry and UFFDIO_CONTINUE; a hole and zeros.
 *
 * A caller that wants to keep a page before it is written has `on_fault` called instead of that call, in the thread or
 * in the signal handler, and unprotects the page itself.
 *
 * Threads: one inline rival is entered at a time (the signal handler finds it in a static variable).
 */
#ifndef UFFDWP_BENCH_BARE_H
#define UFFDWP_BENCH_BARE_H

#include <pthread.h>
#include <signal.h>

#include "area.h"

enum bare_kind { BARE_WP, BARE_MINOR, BARE_MISSING };

struct bare {
	struct area area;
	enum bare_kind kind;
	int uffd;
	int cpu; /* of the thread, or BENCH_ANY_CPU */
	enum uffdwp_delivery delivery;
	pthread_t thread;
	void (*on_fault)(struct bare *bare, uint64_t address); /* NULL: unprotect the page */
	char *zeros; /* a page; hugetlb, BARE_MISSING: what holes are filled with */
};

/* `bare` has kind, delivery, cpu and on_fault set. */
void bare_open(struct bare *bare, enum uffdwp_memory memory, size_t length_bytes);
void bare_close(struct bare *bare);

/* The same for memory that is mapped already, inline, kind BARE_WP; close takes the registration away. */
void bare_attach(struct bare *bare, const struct area *area);
void bare_detach(struct bare *bare);

/* Puts the signal handler of an inline rival in place. */
void bare_enter(struct bare *bare);

/* Unprotects the page of an address: 0, or -1 and errno. */
int bare_unprotect(const struct bare *bare, uint64_t address);

/* Arms the whole area. */
void bare_arm(struct bare *bare);

#endif
