/* SPDX-License-Identifier: MIT */
/*
 * The parts of the question `serve`: a guest, which is a process with memory of its own that obeys, and the bare loop
 * that a monitor's author would write in place of the library.
 *
 * Guests are forked before the benchmark has threads. What a guest measures it leaves in memory that both share.
 */
#ifndef UFFDWP_BENCH_SERVE_H
#define UFFDWP_BENCH_SERVE_H

#include <pthread.h>
#include <stdint.h>
#include <sys/types.h>
#include <uffdwp.h>

#include "histogram.h"

enum guest_work { GUEST_FILL, GUEST_WRITE, GUEST_READ };

/* Shared by a guest and the benchmark. */
struct guest_board {
	struct histogram times; /* of the accesses of GUEST_WRITE and GUEST_READ */
	uint64_t end_ns;        /* when the last work ended */
	uint64_t sum;           /* of the first words that GUEST_READ has read */
	uint64_t until_ns;      /* work ends then; 0: when it is done */
	uint32_t done;          /* pages of the last work */
	uint32_t order[];       /* page numbers */
};

struct guest {
	pid_t pid;
	int socket;
	int memfd;
	int uffd;
	uint64_t address; /* there */
	size_t length_bytes;
	size_t page_bytes;
	struct guest_board *board;
};

/* modes: of UFFDIO_REGISTER, by the guest itself; 0: none. */
void guest_start(struct guest *guest, size_t length_bytes, uint64_t modes, int cpu);
void guest_end(struct guest *guest);
/* Works on pages board->order[first, first + count), and waits for that. */
void guest_work(const struct guest *guest, enum guest_work work, uint32_t first, uint32_t count);

/* Thread: its own, which polls, reads, and resolves each message by one call. */
struct serve_bare {
	const struct guest *guest;
	int image; /* -1: it unprotects; else it fills with what the file has */
	int cpu;
	void *page;
	pthread_t thread;
};

void serve_bare_start(struct serve_bare *bare);
void serve_bare_stop(struct serve_bare *bare);
void serve_bare_arm(const struct serve_bare *bare);

#endif
