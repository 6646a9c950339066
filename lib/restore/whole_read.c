/* SPDX-License-Identifier: MIT */
/*
 * All blocks of a whole restore. With io_uring one thread starts the reads of some blocks at a time (they fly), and
 * hands over what deltas have to be laid over when a block has landed; without it the caller's thread hands over blocks
 * as they are. Orders are taken by the restore's own threads, or done at once where there are none.
 *
 * Threads: flights belong to a thread of their own, for which the caller's waits (a caller's thread that submitted
 * would be interrupted after the ring was closed); orders pass under `lock`. After an error nothing new is begun, and
 * what flies is waited for: its memory will be unmapped.
 */
#include <errno.h>

#include "base/thread.h"
#include "io/loop.h"
#include "restore/whole_private.h"

#define FLIGHTS 8
#define LOOP_ENTRIES 256
#define MOMENT_NS 10000000ull

struct flight {
	struct block block;
	uint64_t number;
	int busy;
	unsigned sent;         /* reads under way */
	uint64_t direct;       /* a bit for each run: its read under way is by direct_fd */
	uint64_t unsent;       /* a bit for each run of which something is still to be read, and nothing is under way */
	size_t at[BLOCK_RUNS]; /* how far each run was read */
};

struct flights {
	struct whole *whole;
	struct loop *loop;
	int broken; /* nothing will come back any more */
	struct flight all[FLIGHTS];
};

static int whole_read_failed(const struct whole *whole)
{
	return atomic_load(&whole->error);
}

/* ---- orders ---- */

static void whole_read_run_order(struct whole *whole, const struct block_order *order, unsigned char *buffer)
{
	struct block block;

	if (whole_read_failed(whole))
		return;
	block_look(whole, order->number, &block);
	if (order->landed)
		(void)block_finish(whole, &block);
	else
		(void)block_run(whole, &block, buffer);
}

/* 0: there will be none any more. */
static int whole_read_take_order(struct whole *whole, struct block_order *order)
{
	lock_take(&whole->lock);
	while (whole->order_taken == whole->order_count && !whole->closed)
		lock_wait(&whole->lock, &whole->more);
	int is = whole->order_taken < whole->order_count;

	if (is)
		*order = whole->orders[whole->order_taken++];
	lock_give(&whole->lock);
	return is;
}

static void *whole_main(void *argument)
{
	struct whole *whole = argument;
	unsigned char *buffer = pages_new(whole->k, BLOCK_BYTES);
	struct block_order order;

	thread_begin("uffdwp-restore");
	if (!buffer)
		whole_fail(whole, -ENOMEM, 0);
	while (whole_read_take_order(whole, &order))
		whole_read_run_order(whole, &order, buffer);
	pages_free(whole->k, buffer, BLOCK_BYTES);
	return NULL;
}

static void whole_read_hand_over(struct whole *whole, uint64_t number, int landed)
{
	struct block_order order = {number, landed};

	if (whole->thread_count == 0) {
		whole_read_run_order(whole, &order, whole->buffer);
		return;
	}
	lock_take(&whole->lock);
	whole->orders[whole->order_count++] = order;
	pthread_cond_signal(&whole->more);
	lock_give(&whole->lock);
}

/* As many threads as are available; without any the caller's does it all. */
static void whole_read_start_threads(struct whole *whole, unsigned wanted)
{
	while (whole->thread_count < wanted &&
	       thread_spawn(&whole->threads[whole->thread_count], NULL, whole_main, whole) == 0)
		whole->thread_count++;
}

static void whole_read_join_threads(struct whole *whole)
{
	lock_take(&whole->lock);
	whole->closed = 1;
	pthread_cond_broadcast(&whole->more);
	lock_give(&whole->lock);
	for (unsigned i = 0; i < whole->thread_count; i++)
		pthread_join(whole->threads[i], NULL);
}

/* ---- flights ---- */

/* What of it is to be sent; the rest waits where the queue takes no more. */
static void whole_read_send_flight(struct flights *flights, struct flight *flight)
{
	struct whole *whole = flights->whole;

	while (flight->unsent && !whole_read_failed(whole)) {
		unsigned run = (unsigned)__builtin_ctzll(flight->unsent);
		uint64_t offset = flight->block.offset + flight->at[run];
		size_t length = flight->block.runs[run].end - flight->at[run];
		uint64_t token = (uint64_t)(flight - flights->all) << 32 | run;
		int fd = block_fd(whole);
		int error = loop_read(flights->loop, fd, whole->place + offset, length, offset, token);

		if (error == -EAGAIN)
			return;
		if (error)
			whole_fail(whole, error, offset);
		flight->unsent &= ~(1ull << run);
		flight->direct &= ~(1ull << run);
		flight->direct |= (uint64_t)(fd == whole->direct_fd) << run;
		flight->sent += !error;
	}
}

static void whole_read_land(struct flights *flights, struct flight *flight)
{
	struct whole *whole = flights->whole;

	flight->busy = 0;
	if (whole_read_failed(whole))
		return;
	block_landed(whole, &flight->block);
	if (block_has_pieces(whole, &flight->block))
		whole_read_hand_over(whole, flight->number, 1);
	else
		(void)block_finish(whole, &flight->block);
}

static void whole_read_take_result(struct flights *flights, const struct loop_event *event)
{
	struct flight *flight = &flights->all[event->token >> 32];
	unsigned run = (unsigned)event->token;
	size_t left = flight->block.runs[run].end - flight->at[run];
	int direct = (int)(flight->direct >> run & 1);
	int64_t got =
	        block_read_result(flights->whole, direct, flight->block.offset + flight->at[run], left, event->result);

	flight->sent--;
	if (got < 0)
		return;
	flight->at[run] += (size_t)got;
	if ((size_t)got < left)
		flight->unsent |= 1ull << run;
}

/* Sends, waits for something to happen, and lands what is there. */
static void whole_read_go_on(struct flights *flights)
{
	struct loop_event events[32];

	for (unsigned i = 0; i < FLIGHTS; i++)
		whole_read_send_flight(flights, &flights->all[i]);
	int count = loop_wait(flights->loop, events, 32, MOMENT_NS);

	if (count < 0) {
		flights->broken = 1;
		whole_fail(flights->whole, count, 0);
	}
	for (int i = 0; i < count; i++)
		whole_read_take_result(flights, &events[i]);
	for (unsigned i = 0; i < FLIGHTS; i++) {
		struct flight *flight = &flights->all[i];

		if (flight->busy && !flight->sent && (!flight->unsent || whole_read_failed(flights->whole)))
			whole_read_land(flights, flight);
	}
}

static struct flight *whole_read_find_flight(struct flights *flights, int busy)
{
	for (unsigned i = 0; i < FLIGHTS; i++) {
		if (flights->all[i].busy == busy)
			return &flights->all[i];
	}
	return NULL;
}

static void whole_read_start_flight(struct flights *flights, struct flight *flight)
{
	unsigned count = flight->block.count;

	flight->busy = 1;
	flight->unsent = count < 64 ? (1ull << count) - 1 : UINT64_MAX;
	for (unsigned run = 0; run < count; run++)
		flight->at[run] = flight->block.runs[run].start;
	whole_read_send_flight(flights, flight);
}

static void whole_read_begin_block(struct flights *flights, uint64_t number)
{
	struct whole *whole = flights->whole;
	struct flight *flight;

	while (!(flight = whole_read_find_flight(flights, 0)) && !flights->broken)
		whole_read_go_on(flights);
	if (!flight)
		return;
	block_look(whole, number, &flight->block);
	flight->number = number;
	if (!block_is_straight(whole, &flight->block))
		whole_read_hand_over(whole, number, 0);
	else if (flight->block.count > 0)
		whole_read_start_flight(flights, flight);
	else
		whole_read_land(flights, flight);
}

static void whole_read_fly(struct whole *whole, struct flights *flights)
{
	for (uint64_t number = block_next(whole, 0); number < whole->block_count && !whole_read_failed(whole);
	     number = block_next(whole, number + 1))
		whole_read_begin_block(flights, number);
	while (whole_read_find_flight(flights, 1) && !flights->broken)
		whole_read_go_on(flights);
}

/* ---- all ---- */

/* NULL: no io_uring here. */
static struct flights *whole_read_open_flights(struct whole *whole)
{
	struct flights *flights = pages_new(whole->k, sizeof(*flights));

	if (!flights)
		return NULL;
	flights->whole = whole;
	if (loop_new(whole->k, LOOP_ENTRIES, 0, &flights->loop) == 0 && loop_is_uring(flights->loop))
		return flights;
	loop_free(flights->loop);
	pages_free(whole->k, flights, sizeof(*flights));
	return NULL;
}

static void whole_read_close_flights(struct whole *whole, struct flights *flights)
{
	loop_free(flights->loop);
	pages_free(whole->k, flights, sizeof(*flights));
}

struct journey {
	struct whole *whole;
	unsigned threads; /* wanted */
};

/* The thread of the flights; whole->uring reports whether there were any. */
static void *whole_read_fly_main(void *argument)
{
	struct journey *journey = argument;
	struct whole *whole = journey->whole;
	struct flights *flights = whole_read_open_flights(whole);

	thread_begin("uffdwp-restore");
	if (!flights)
		return NULL;
	whole->uring = 1;
	if (whole->list.blocks)
		whole_read_start_threads(whole, journey->threads);
	whole_read_fly(whole, flights);
	whole_read_close_flights(whole, flights);
	return NULL;
}

void whole_read(struct whole *whole, const struct whole_request *request)
{
	struct journey journey = {whole, request->threads};

	whole->uring = 0;
	if (whole->place && !request->no_uring)
		(void)thread_apart(whole_read_fly_main, &journey); /* without a thread nothing flies */
	if (!whole->uring) {
		/* Without a place only the caller's thread writes: its faults are like any other. */
		if (whole->place)
			whole_read_start_threads(whole, request->threads);
		for (uint64_t number = block_next(whole, 0); number < whole->block_count && !whole_read_failed(whole);
		     number = block_next(whole, number + 1))
			whole_read_hand_over(whole, number, 0);
	}
	whole_read_join_threads(whole);
}
