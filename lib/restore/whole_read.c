/* SPDX-License-Identifier: MIT */
/*
 * All blocks of a whole restore. With io_uring the caller's thread starts the reads of some blocks at a time (they
 * fly), and hands over what deltas have to be laid over when a block has landed; without it blocks are handed over as
 * they are. Orders are taken by the restore's own threads, or done at once where there are none.
 *
 * Threads: flights are the caller's; orders pass under `lock`. After an error nothing new is begun, and what flies is
 * waited for: its memory will be unmapped.
 */
#include <errno.h>

#include "base/signals.h"
#include "fault/loop.h"
#include "restore/whole_private.h"

#define FLIGHTS 8
#define LOOP_ENTRIES 256
#define MOMENT_NS 10000000ull

struct flight {
	struct block block;
	uint64_t number;
	int busy;
	unsigned sent;         /* reads under way */
	uint64_t unsent;       /* a bit for each run of which something is still to be read, and nothing is under way */
	size_t at[BLOCK_RUNS]; /* how far each run was read */
};

struct flights {
	struct whole *whole;
	struct loop *loop;
	int broken; /* nothing will come back any more */
	struct flight all[FLIGHTS];
};

static int failed(const struct whole *whole)
{
	return atomic_load(&whole->error);
}

/* ---- orders ---- */

static void run_order(struct whole *whole, const struct order *order, unsigned char *buffer)
{
	struct block block;

	if (failed(whole))
		return;
	block_look(whole, order->number, &block);
	if (order->landed)
		(void)block_finish(whole, &block);
	else
		(void)block_run(whole, &block, buffer);
}

/* 0: there will be none any more. */
static int take_order(struct whole *whole, struct order *order)
{
	pthread_mutex_lock(&whole->lock);
	while (whole->order_taken == whole->order_count && !whole->closed)
		pthread_cond_wait(&whole->more, &whole->lock);
	int is = whole->order_taken < whole->order_count;

	if (is)
		*order = whole->orders[whole->order_taken++];
	pthread_mutex_unlock(&whole->lock);
	return is;
}

static void *whole_main(void *argument)
{
	struct whole *whole = argument;
	unsigned char *buffer = pages_new(whole->k, BLOCK_BYTES);
	struct order order;

	pthread_setname_np(pthread_self(), "uffdwp-restore");
	if (!buffer)
		whole_fail(whole, -ENOMEM, 0);
	while (take_order(whole, &order))
		run_order(whole, &order, buffer);
	pages_free(whole->k, buffer, BLOCK_BYTES);
	return NULL;
}

static void hand_over(struct whole *whole, uint64_t number, int landed)
{
	struct order order = {number, landed};

	if (whole->thread_count == 0) {
		run_order(whole, &order, whole->buffer);
		return;
	}
	pthread_mutex_lock(&whole->lock);
	whole->orders[whole->order_count++] = order;
	pthread_cond_signal(&whole->more);
	pthread_mutex_unlock(&whole->lock);
}

/* As many as there are to be had; without any the caller's does it all. */
static void start_threads(struct whole *whole, unsigned wanted)
{
	sigset_t before;

	signals_block(&before);
	while (whole->thread_count < wanted &&
	       pthread_create(&whole->threads[whole->thread_count], NULL, whole_main, whole) == 0)
		whole->thread_count++;
	signals_restore(&before);
}

static void join_threads(struct whole *whole)
{
	pthread_mutex_lock(&whole->lock);
	whole->closed = 1;
	pthread_cond_broadcast(&whole->more);
	pthread_mutex_unlock(&whole->lock);
	for (unsigned i = 0; i < whole->thread_count; i++)
		pthread_join(whole->threads[i], NULL);
}

/* ---- flights ---- */

/* What of it is to be sent; the rest waits where the queue takes no more. */
static void send_flight(struct flights *flights, struct flight *flight)
{
	struct whole *whole = flights->whole;

	while (flight->unsent && !failed(whole)) {
		unsigned run = (unsigned)__builtin_ctzll(flight->unsent);
		uint64_t offset = flight->block.offset + flight->at[run];
		size_t length = flight->block.runs[run].end - flight->at[run];
		uint64_t token = (uint64_t)(flight - flights->all) << 32 | run;
		int error = loop_read(flights->loop, block_fd(whole), whole->place + offset, length, offset, token);

		if (error == -EAGAIN)
			return;
		if (error)
			whole_fail(whole, error, offset);
		flight->unsent &= ~(1ull << run);
		flight->sent += !error;
	}
}

static void land(struct flights *flights, struct flight *flight)
{
	struct whole *whole = flights->whole;

	flight->busy = 0;
	if (failed(whole))
		return;
	block_landed(whole, &flight->block);
	if (block_has_pieces(whole, &flight->block))
		hand_over(whole, flight->number, 1);
	else
		(void)block_finish(whole, &flight->block);
}

static void take_result(struct flights *flights, const struct loop_event *event)
{
	struct flight *flight = &flights->all[event->token >> 32];
	unsigned run = (unsigned)event->token;
	size_t left = flight->block.runs[run].end - flight->at[run];
	int64_t got = block_read_result(flights->whole, flight->block.offset + flight->at[run], left, event->result);

	flight->sent--;
	if (got < 0)
		return;
	flight->at[run] += (size_t)got;
	if ((size_t)got < left)
		flight->unsent |= 1ull << run;
}

/* Sends, waits for something to happen, and lands what is there. */
static void go_on(struct flights *flights)
{
	struct loop_event events[32];

	for (unsigned i = 0; i < FLIGHTS; i++)
		send_flight(flights, &flights->all[i]);
	int count = loop_wait(flights->loop, events, 32, MOMENT_NS);

	if (count < 0) {
		flights->broken = 1;
		whole_fail(flights->whole, count, 0);
	}
	for (int i = 0; i < count; i++)
		take_result(flights, &events[i]);
	for (unsigned i = 0; i < FLIGHTS; i++) {
		struct flight *flight = &flights->all[i];

		if (flight->busy && !flight->sent && (!flight->unsent || failed(flights->whole)))
			land(flights, flight);
	}
}

static struct flight *find_flight(struct flights *flights, int busy)
{
	for (unsigned i = 0; i < FLIGHTS; i++) {
		if (flights->all[i].busy == busy)
			return &flights->all[i];
	}
	return NULL;
}

static void start_flight(struct flights *flights, struct flight *flight)
{
	unsigned count = flight->block.count;

	flight->busy = 1;
	flight->unsent = count < 64 ? (1ull << count) - 1 : UINT64_MAX;
	for (unsigned run = 0; run < count; run++)
		flight->at[run] = flight->block.runs[run].start;
	send_flight(flights, flight);
}

static void begin_block(struct flights *flights, uint64_t number)
{
	struct whole *whole = flights->whole;
	struct flight *flight;

	while (!(flight = find_flight(flights, 0)) && !flights->broken)
		go_on(flights);
	if (!flight)
		return;
	block_look(whole, number, &flight->block);
	flight->number = number;
	if (!block_is_straight(whole, &flight->block))
		hand_over(whole, number, 0);
	else if (flight->block.count > 0)
		start_flight(flights, flight);
	else
		land(flights, flight);
}

static void fly(struct whole *whole, struct flights *flights)
{
	for (uint64_t number = 0; number < whole->block_count && !failed(whole); number++)
		begin_block(flights, number);
	while (find_flight(flights, 1) && !flights->broken)
		go_on(flights);
}

/* ---- all ---- */

/* NULL: no io_uring here, or no place to read into. */
static struct flights *open_flights(struct whole *whole, int no_uring)
{
	struct flights *flights = whole->place && !no_uring ? pages_new(whole->k, sizeof(*flights)) : NULL;

	if (!flights)
		return NULL;
	flights->whole = whole;
	if (loop_new(whole->k, LOOP_ENTRIES, 0, &flights->loop) == 0 && loop_is_uring(flights->loop))
		return flights;
	loop_free(flights->loop);
	pages_free(whole->k, flights, sizeof(*flights));
	return NULL;
}

static void close_flights(struct whole *whole, struct flights *flights)
{
	loop_free(flights->loop);
	pages_free(whole->k, flights, sizeof(*flights));
}

void whole_read(struct whole *whole, const struct whole_wish *wish)
{
	struct flights *flights = open_flights(whole, wish->no_uring);

	whole->uring = flights != NULL;
	/* Without a place only the caller's thread writes: a fault of his is like any other. */
	if (whole->place && (!flights || whole->list.blocks))
		start_threads(whole, wish->threads);
	if (flights) {
		fly(whole, flights);
		close_flights(whole, flights);
	}
	for (uint64_t number = 0; !flights && number < whole->block_count && !failed(whole); number++)
		hand_over(whole, number, 0);
	join_threads(whole);
}
