/* SPDX-License-Identifier: MIT */
/*
 * The rival that is no library: a userfaultfd, and the fewest system calls that let a writer go. With a thread: poll(),
 * read() of up to 16 messages, one UFFDIO_WRITEPROTECT for each. Inline: UFFD_FEATURE_SIGBUS, and one
 * UFFDIO_WRITEPROTECT in the signal handler. No table of regions, no counters, no checks.
 *
 * Threads: one inline rival at a time (the signal handler finds it in a static variable).
 */
#ifndef UFFDWP_BENCH_BARE_H
#define UFFDWP_BENCH_BARE_H

#include <pthread.h>
#include <signal.h>

#include "area.h"

struct bare {
	struct area area;
	int uffd;
	int cpu; /* of the thread, or BENCH_ANY_CPU */
	enum uffdwp_delivery delivery;
	pthread_t thread;
	struct sigaction action; /* inline: what handles SIGBUS in its turn */
};

void bare_open(struct bare *bare, enum uffdwp_memory memory, size_t length_bytes, enum uffdwp_delivery delivery,
               int cpu);
void bare_close(struct bare *bare);

/* Arms the whole area. */
void bare_arm(struct bare *bare);

#endif
