/* SPDX-License-Identifier: MIT */
/*
 * Clients of a Redis server: one thread, several connections, GET and SET of keys drawn at random, half each.
 *
 * Open loop: each request has a time at which it is due, by a fixed rate, whether or not the server has answered those
 * before it. Its latency runs from then until its reply was read: while a server stands still, requests become due all
 * the same, and each of them is late (window.h). Requests go round over the connections, and several are under way on
 * each. Closed loop: as many requests as `depth` are in flight on each connection, the next is sent when a reply came:
 * what the server can do. Fill: closed, each key is set once, in order.
 *
 * Spans are the times in which something special goes on (a save). A request belongs to the spans if any moment between
 * when it was due and when its reply was read lies in one: a request that was due just before, and that the special
 * thing delays, is not lost. The bounds of the record, [from, until), are for the time at which a request was due.
 *
 * Each reply is checked: a value must be of the key that was asked for. A reply that is wrong ends the program, and so
 * does a server that sends none for a minute.
 *
 * Threads: openloop_start() gives the loop a thread of its own; the main thread begins and ends spans and the record
 * meanwhile. Results are read after openloop_stop().
 */
#ifndef UFFDWP_BENCH_OPENLOOP_H
#define UFFDWP_BENCH_OPENLOOP_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "histogram.h"

#define OPENLOOP_CONNECTIONS_MAX 16
#define OPENLOOP_SPANS_MAX 64
#define OPENLOOP_SLOT_NS UINT64_C(10000000)
#define OPENLOOP_SLOTS 65536 /* 655 s from the start on; what is due later is not in the timeline */

/* ------------------------------------------------------------------------------------------------------ spans -- */

struct openloop_spans {
	_Atomic unsigned count;
	struct {
		_Atomic uint64_t from_ns;
		_Atomic uint64_t until_ns; /* UINT64_MAX: it goes on */
	} all[OPENLOOP_SPANS_MAX];
};

/* One thread begins and ends them, one after the other; ends the program if there are too many. */
void openloop_span_begin(struct openloop_spans *spans, uint64_t at_ns);
void openloop_span_end(struct openloop_spans *spans, uint64_t at_ns);

/* 1: a moment of [due_ns, done_ns] lies in a span. */
int openloop_spans_meet(const struct openloop_spans *spans, uint64_t due_ns, uint64_t done_ns);

/* ------------------------------------------------------------------------------------------------------- loop -- */

enum openloop_kind { OPENLOOP_FILL, OPENLOOP_CLOSED, OPENLOOP_OPEN };
enum openloop_class { OPENLOOP_REST, OPENLOOP_SPAN, OPENLOOP_CLASSES };

struct openloop_request {
	uint64_t due_ns;
	uint64_t key;
	int is_read;
};

struct openloop_connection {
	int fd;
	char *out; /* requests that were not sent yet: [out_sent, out_used) */
	size_t out_sent;
	size_t out_used;
	size_t out_size;
	int waits_to_send;
	char *in; /* replies that were not whole yet */
	size_t in_used;
	size_t in_size;
	struct openloop_request *requests; /* under way, a ring: [request_first, request_end), modulo its size */
	size_t request_first;
	size_t request_end;
	size_t request_size; /* a power of two */
};

struct openloop {
	/* Set by the caller. */
	enum openloop_kind kind;
	int fds[OPENLOOP_CONNECTIONS_MAX]; /* connected, not blocking; stay the caller's */
	unsigned connection_count;
	uint64_t keys;
	size_t value_bytes;
	uint64_t requests_per_s; /* OPEN */
	unsigned depth;          /* CLOSED, FILL */
	uint64_t seed;
	uint64_t limit_ns; /* CLOSED: how long */

	/* The main thread's, while the loop runs. */
	struct openloop_spans spans;
	_Atomic uint64_t record_from_ns;
	_Atomic uint64_t record_until_ns;
	_Atomic int stop;

	/* The loop's. */
	pthread_t thread;
	struct openloop_connection connections[OPENLOOP_CONNECTIONS_MAX];
	int epoll;
	char *values; /* random bytes, which values are cut from */
	uint64_t random;
	uint64_t origin_ns;
	uint64_t made; /* requests, of which `done` have a reply */
	uint64_t done;
	uint64_t ended_ns;
	struct histogram latencies[OPENLOOP_CLASSES];
	uint32_t slots_us[OPENLOOP_SLOTS]; /* the longest latency of the requests that were due in a slot */
};

/* Runs a closed loop to its end, in the calling thread. Replies a second. */
double openloop_run(struct openloop *loop);

/* OPEN: until openloop_stop(), which waits for all replies. The record is from record_from_ns on, which is set before,
 * until a moment soon after openloop_end_record() is called, which returns after that moment. */
void openloop_start(struct openloop *loop);
void openloop_end_record(struct openloop *loop);
void openloop_stop(struct openloop *loop);

/* How many requests of an open loop are due before at_ns. */
uint64_t openloop_due(const struct openloop *loop, uint64_t at_ns);

/* Keeps the latency of one request in its class, and in the timeline. */
void openloop_keep(struct openloop *loop, uint64_t due_ns, uint64_t done_ns);

#endif
