/* SPDX-License-Identifier: MIT */
/*
 * A stand-in for a monitor of virtual machines, for tools/test_serve.sh: a process with guest memory, which it hands to
 * `uffdwp-ctl serve`, uses by threads (the guest's), and has restored and snapshotted. It knows what its memory has to
 * be: a shadow, a private copy of the image, is written along with it.
 *
 * Two modes of writers. LOCKED: each write to memory and shadow happens under a lock; for a cut the monitor takes it,
 * copies what the shadow changed, asks for the snapshot, and gives it back at the answer, so that the image has to be
 * that copy. COUNTERS: a thread writes n = 1, 2, ... into pages all over the memory, one after the other, and is not
 * stopped: in an image of one instant each page has the count of the page before it, or one less, and only one of them
 * less.
 */
#ifndef TESTS_SERVE_MONITOR_H
#define TESTS_SERVE_MONITOR_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define MONITOR_WRITERS 2
#define MONITOR_COUNTERS 64
#define MONITOR_BUCKETS 64

struct monitor_options {
	const char *socket;
	const char *name;
	const char *image;     /* its name; NULL: Firecracker's handshake, or none */
	const char *raw;       /* what it has to show */
	const char *snapshots; /* the folder */
	const char *until;     /* it ends after a round when this file is there; NULL: after `rounds` */
	uint64_t seed;
	unsigned rounds;
	unsigned interval_ms;
	int is_huge;
	int is_firecracker;
	int counters;
	int leaves_last; /* the last chain, and what it has to show, stay */
};

struct monitor {
	struct monitor_options options;
	size_t length;
	size_t page_bytes;
	size_t page_count;
	uint8_t *memory;
	uint8_t *shadow;
	uint8_t *expected;        /* the shadow at the last cut */
	_Atomic uint8_t *changed; /* a byte a page: the shadow has changed since */
	int memfd;
	int uffd;
	int socket;
	pthread_mutex_t lock;
	_Atomic int stop;
	_Atomic uint64_t writes;
	_Atomic uint64_t counter; /* COUNTERS: begun */
	size_t counter_pages[MONITOR_COUNTERS];
	_Atomic uint64_t latency[MONITOR_BUCKETS]; /* by powers of the fourth root of 2, of accesses */
};

/* Ends the process with a text. */
__attribute__((format(printf, 1, 2), noreturn)) void monitor_fail(const char *format, ...);

/* monitor_socket.c */
/* Makes the memory, its userfaultfd, and hands both over. */
void monitor_open(struct monitor *monitor);
/* A line to the server, and its answer. */
const char *monitor_ask(const struct monitor *monitor, const char *line);
int monitor_open_uffd(void);
int monitor_connect(const char *path);
int monitor_send(int socket, const char *bytes, size_t length, const int *descriptors, unsigned count);

/* monitor_guest.c */
void monitor_start_writers(struct monitor *monitor, pthread_t threads[MONITOR_WRITERS]);
/* What accesses took since it was last printed. */
void monitor_print_latency(struct monitor *monitor, const char *when);
/* All of the memory is the shadow. Caller: no writer runs, or the lock is taken. */
void monitor_check_memory(const struct monitor *monitor);
/* Discards some pages, as a balloon does: zeros, from then on. */
void monitor_discard(struct monitor *monitor, uint64_t seed);

/* monitor_image.c */
/* An image in the folder of snapshots is what was expected: pages that changed, a part of the others, or all. */
void monitor_check_image(struct monitor *monitor, const char *name, const uint8_t *changed, int all);
void monitor_check_counters(struct monitor *monitor, const char *name, uint64_t least, uint64_t most);

#endif
