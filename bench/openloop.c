/* SPDX-License-Identifier: MIT */
/*
 * See openloop.h. The loop sleeps in epoll until replies come or the next request is due, and then makes all that are
 * due: what the wake-up costs is in each latency, the same for all servers. It does not spin, since the server and its
 * child need the CPUs.
 */
#include "openloop.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "resp.h"
#include "window.h"

#define VALUES_BYTES (1u << 20)
#define OUT_BYTES (1u << 20)
#define OUT_BYTES_MAX (1u << 30) /* on one connection: the server does not keep up */
#define IN_BYTES (1u << 18)
#define REQUESTS 4096
#define IDLE_NS 100000000u /* the loop looks at `stop` as often as that */
#define NS_PER_S UINT64_C(1000000000)
#define RECORD_NS 100000000
#define REPLY_NS_MAX (60ull * NS_PER_S)

/* ------------------------------------------------------------------------------------------------------ spans -- */

void openloop_span_begin(struct openloop_spans *spans, uint64_t at_ns)
{
	unsigned count = atomic_load(&spans->count);

	if (count < OPENLOOP_SPANS_MAX) {
		atomic_store(&spans->all[count].from_ns, at_ns);
		atomic_store(&spans->all[count].until_ns, UINT64_MAX);
		atomic_store(&spans->count, count + 1);
	} else {
		bench_die("more than %d saves", OPENLOOP_SPANS_MAX);
	}
}

void openloop_span_end(struct openloop_spans *spans, uint64_t at_ns)
{
	atomic_store(&spans->all[atomic_load(&spans->count) - 1].until_ns, at_ns);
}

int openloop_spans_meet(const struct openloop_spans *spans, uint64_t due_ns, uint64_t done_ns)
{
	unsigned count = atomic_load(&spans->count);

	while (count--) {
		if (atomic_load(&spans->all[count].from_ns) <= done_ns &&
		    due_ns < atomic_load(&spans->all[count].until_ns))
			return 1;
	}
	return 0;
}

/* ---------------------------------------------------------------------------------------------------- latency -- */

static void openloop_keep_in_slot(struct openloop *loop, uint64_t due_ns, uint64_t latency_ns)
{
	uint64_t slot = (due_ns - loop->origin_ns) / OPENLOOP_SLOT_NS;
	uint64_t latency_us = latency_ns / 1000;

	if (latency_us > UINT32_MAX)
		latency_us = UINT32_MAX;
	if (slot < OPENLOOP_SLOTS && loop->slots_us[slot] < latency_us)
		loop->slots_us[slot] = (uint32_t)latency_us;
}

void openloop_keep(struct openloop *loop, uint64_t due_ns, uint64_t done_ns)
{
	uint64_t latency_ns = bench_minus(done_ns, due_ns);
	int meets = openloop_spans_meet(&loop->spans, due_ns, done_ns);

	openloop_keep_in_slot(loop, due_ns, latency_ns);
	if (window_holds(atomic_load(&loop->record_from_ns), atomic_load(&loop->record_until_ns), due_ns))
		histogram_record(&loop->latencies[meets ? OPENLOOP_SPAN : OPENLOOP_REST], latency_ns);
}

uint64_t openloop_due(const struct openloop *loop, uint64_t at_ns)
{
	return window_due_count(loop->origin_ns, at_ns, loop->requests_per_s);
}

/* --------------------------------------------------------------------------------------------------- requests -- */

static size_t openloop_in_flight(const struct openloop_connection *connection)
{
	return connection->request_end - connection->request_first;
}

static void *openloop_memory(void *former, size_t size)
{
	void *memory = realloc(former, size);

	if (!memory)
		bench_die("no memory for requests");
	return memory;
}

/* The ring has no room: twice as large, in order from its start. */
static void openloop_grow_requests(struct openloop_connection *connection)
{
	size_t count = openloop_in_flight(connection);
	size_t size = connection->request_size * 2;
	struct openloop_request *requests = openloop_memory(NULL, size * sizeof(*requests));

	for (size_t i = 0; i < count; i++)
		requests[i] = connection->requests[(connection->request_first + i) & (connection->request_size - 1)];
	free(connection->requests);
	connection->requests = requests;
	connection->request_first = 0;
	connection->request_end = count;
	connection->request_size = size;
}

static void openloop_push(struct openloop_connection *connection, struct openloop_request request)
{
	if (openloop_in_flight(connection) == connection->request_size)
		openloop_grow_requests(connection);
	connection->requests[connection->request_end++ & (connection->request_size - 1)] = request;
}

/* So much room after out_used. */
static void openloop_make_room(struct openloop_connection *connection, size_t bytes)
{
	size_t pending = connection->out_used - connection->out_sent;

	if (connection->out_size - connection->out_used >= bytes)
		return;
	memmove(connection->out, connection->out + connection->out_sent, pending);
	connection->out_sent = 0;
	connection->out_used = pending;
	if (connection->out_size - pending >= bytes)
		return;
	if (connection->out_size >= OUT_BYTES_MAX)
		bench_die("the server does not read its requests: it cannot do the rate that was asked for");
	connection->out_size *= 2;
	connection->out = openloop_memory(connection->out, connection->out_size);
}

static void openloop_append_set(struct openloop *loop, struct openloop_connection *connection, uint64_t key)
{
	char *out = connection->out + connection->out_used;
	size_t from = (size_t)(bench_random(&loop->random) % (VALUES_BYTES - loop->value_bytes));
	size_t head = resp_set_head(out, key, loop->value_bytes);

	memcpy(out + head, loop->values + from, loop->value_bytes);
	resp_stamp(out + head, key);
	out[head + loop->value_bytes] = '\r';
	out[head + loop->value_bytes + 1] = '\n';
	connection->out_used += head + loop->value_bytes + 2;
}

static void openloop_make(struct openloop *loop, struct openloop_connection *connection, uint64_t due_ns)
{
	struct openloop_request request = {.due_ns = due_ns};

	if (loop->kind == OPENLOOP_FILL) {
		request.key = loop->made;
	} else {
		uint64_t drawn = bench_random(&loop->random);

		request.is_read = (int)(drawn & 1);
		request.key = (drawn >> 1) % loop->keys;
	}
	openloop_make_room(connection, RESP_HEAD_BYTES + loop->value_bytes + 2);
	if (request.is_read)
		connection->out_used += resp_get(connection->out + connection->out_used, request.key);
	else
		openloop_append_set(loop, connection, request.key);
	openloop_push(connection, request);
	loop->made++;
}

static int openloop_is_at_end(const struct openloop *loop, uint64_t now_ns)
{
	if (loop->kind == OPENLOOP_FILL)
		return loop->made == loop->keys;
	return atomic_load(&loop->stop) ||
	       (loop->kind == OPENLOOP_CLOSED && now_ns - loop->origin_ns >= loop->limit_ns);
}

static void openloop_make_due(struct openloop *loop, uint64_t now_ns)
{
	while (window_due_ns(loop->origin_ns, loop->made, loop->requests_per_s) <= now_ns)
		openloop_make(loop, &loop->connections[loop->made % loop->connection_count],
		              window_due_ns(loop->origin_ns, loop->made, loop->requests_per_s));
}

static void openloop_make_closed(struct openloop *loop, uint64_t now_ns)
{
	for (unsigned i = 0; i < loop->connection_count; i++) {
		struct openloop_connection *connection = &loop->connections[i];

		while (openloop_in_flight(connection) < loop->depth && !openloop_is_at_end(loop, now_ns))
			openloop_make(loop, connection, now_ns);
	}
}

/* ---------------------------------------------------------------------------------------------------- replies -- */

static void openloop_judge(const struct openloop *loop, const struct openloop_request *request,
                           const struct resp_reply *reply)
{
	if (request->is_read ? resp_is_value(reply, request->key, loop->value_bytes) : reply->type == '+')
		return;
	bench_die("the server answered a %s of key %llu with %c%.*s", request->is_read ? "GET" : "SET",
	          (unsigned long long)request->key, reply->type,
	          (int)(reply->text_length > 100 ? 100 : reply->text_length), reply->text ? reply->text : "(nothing)");
}

static void openloop_take_reply(struct openloop *loop, struct openloop_connection *connection,
                                const struct resp_reply *reply, uint64_t now_ns)
{
	const struct openloop_request *request;

	if (!openloop_in_flight(connection))
		bench_die("the server has sent a reply to no request");
	request = &connection->requests[connection->request_first++ & (connection->request_size - 1)];
	openloop_judge(loop, request, reply);
	if (loop->kind == OPENLOOP_OPEN)
		openloop_keep(loop, request->due_ns, now_ns);
	loop->done++;
}

static void openloop_take_replies(struct openloop *loop, struct openloop_connection *connection, uint64_t now_ns)
{
	struct resp_reply reply;
	size_t taken = 0;
	ssize_t length;

	while ((length = resp_parse(connection->in + taken, connection->in_used - taken, &reply)) > 0) {
		openloop_take_reply(loop, connection, &reply, now_ns);
		taken += (size_t)length;
	}
	if (length < 0)
		bench_die("the server has sent what is no reply");
	memmove(connection->in, connection->in + taken, connection->in_used - taken);
	connection->in_used -= taken;
	if (connection->in_used == connection->in_size)
		bench_die("the server has sent a reply that is too long");
}

static void openloop_receive(struct openloop *loop, struct openloop_connection *connection)
{
	for (;;) {
		size_t room = connection->in_size - connection->in_used;
		ssize_t got = recv(connection->fd, connection->in + connection->in_used, room, MSG_DONTWAIT);

		if (got < 0 && errno == EAGAIN)
			return;
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			bench_die("the server has ended a connection: %s", got ? strerror(errno) : "end of file");
		connection->in_used += (size_t)got;
		openloop_take_replies(loop, connection, bench_now_ns());
		if ((size_t)got < room)
			return;
	}
}

static void openloop_send(struct openloop_connection *connection)
{
	while (connection->out_sent < connection->out_used) {
		ssize_t put = send(connection->fd, connection->out + connection->out_sent,
		                   connection->out_used - connection->out_sent, MSG_DONTWAIT | MSG_NOSIGNAL);

		if (put < 0 && errno == EAGAIN)
			return;
		if (put < 0 && errno != EINTR)
			bench_die("the server has ended a connection: %s", strerror(errno));
		connection->out_sent += put > 0 ? (size_t)put : 0;
	}
}

/* ------------------------------------------------------------------------------------------------------ the loop -- */

/* When the loop has to run again, without a reply. */
static uint64_t openloop_sleep_ns(const struct openloop *loop, uint64_t now_ns, int at_end)
{
	uint64_t due_ns;

	if (loop->kind != OPENLOOP_OPEN || at_end)
		return IDLE_NS;
	due_ns = bench_minus(window_due_ns(loop->origin_ns, loop->made, loop->requests_per_s), now_ns);
	return due_ns < IDLE_NS ? due_ns : IDLE_NS;
}

static void openloop_watch(struct openloop *loop, unsigned number, int change)
{
	struct openloop_connection *connection = &loop->connections[number];
	struct epoll_event event = {.events = EPOLLIN, .data.u32 = number};

	connection->waits_to_send = connection->out_sent < connection->out_used;
	if (connection->waits_to_send)
		event.events |= EPOLLOUT;
	if (epoll_ctl(loop->epoll, change, connection->fd, &event))
		bench_die("epoll_ctl: %s", strerror(errno));
}

static void openloop_sleep(struct openloop *loop, uint64_t sleep_ns)
{
	struct epoll_event events[OPENLOOP_CONNECTIONS_MAX];
	struct timespec limit = {(time_t)(sleep_ns / NS_PER_S), (long)(sleep_ns % NS_PER_S)};
	int count = epoll_pwait2(loop->epoll, events, OPENLOOP_CONNECTIONS_MAX, &limit, NULL);

	if (count < 0 && errno != EINTR)
		bench_die("epoll_pwait2: %s", strerror(errno));
	for (int i = 0; i < count; i++)
		openloop_receive(loop, &loop->connections[events[i].data.u32]);
}

static void openloop_turn(struct openloop *loop, uint64_t now_ns, int at_end)
{
	if (!at_end && loop->kind == OPENLOOP_OPEN)
		openloop_make_due(loop, now_ns);
	else if (!at_end)
		openloop_make_closed(loop, now_ns);
	for (unsigned i = 0; i < loop->connection_count; i++) {
		struct openloop_connection *connection = &loop->connections[i];

		openloop_send(connection);
		if (connection->waits_to_send != (connection->out_sent < connection->out_used))
			openloop_watch(loop, i, EPOLL_CTL_MOD);
	}
	openloop_sleep(loop, openloop_sleep_ns(loop, bench_now_ns(), at_end));
}

static void openloop_open(struct openloop *loop)
{
	loop->random = loop->seed | 1;
	loop->made = loop->done = 0;
	loop->epoll = epoll_create1(EPOLL_CLOEXEC);
	loop->values = openloop_memory(NULL, VALUES_BYTES);
	for (size_t i = 0; i < VALUES_BYTES; i++)
		loop->values[i] = (char)(bench_random(&loop->random) >> 56);
	if (loop->epoll < 0)
		bench_die("epoll_create1: %s", strerror(errno));
	for (unsigned i = 0; i < loop->connection_count; i++) {
		struct openloop_connection *connection = &loop->connections[i];

		*connection = (struct openloop_connection){
		        .fd = loop->fds[i], .out_size = OUT_BYTES, .in_size = IN_BYTES, .request_size = REQUESTS};
		connection->out = openloop_memory(NULL, OUT_BYTES);
		connection->in = openloop_memory(NULL, IN_BYTES);
		connection->requests = openloop_memory(NULL, REQUESTS * sizeof(*connection->requests));
		openloop_watch(loop, i, EPOLL_CTL_ADD);
	}
	loop->origin_ns = bench_now_ns();
}

static void openloop_close(struct openloop *loop)
{
	for (unsigned i = 0; i < loop->connection_count; i++) {
		free(loop->connections[i].out);
		free(loop->connections[i].in);
		free(loop->connections[i].requests);
	}
	free(loop->values);
	close(loop->epoll);
}

/* To the end, and until each request has its reply. */
static void openloop_serve(struct openloop *loop)
{
	uint64_t reply_ns = loop->origin_ns;
	uint64_t done = 0;
	int at_end = 0;

	while (!at_end || loop->done < loop->made) {
		uint64_t now_ns = bench_now_ns();

		if (loop->done != done || loop->done == loop->made)
			reply_ns = now_ns;
		else if (now_ns - reply_ns > REPLY_NS_MAX)
			bench_die("the server has sent no reply for %llu s",
			          (unsigned long long)(REPLY_NS_MAX / NS_PER_S));
		done = loop->done;
		if (!at_end && openloop_is_at_end(loop, now_ns)) {
			at_end = 1;
			if (loop->kind == OPENLOOP_OPEN)
				openloop_make_due(loop, bench_now_ns());
		}
		openloop_turn(loop, now_ns, at_end);
	}
	loop->ended_ns = bench_now_ns();
}

double openloop_run(struct openloop *loop)
{
	openloop_open(loop);
	openloop_serve(loop);
	openloop_close(loop);
	return (double)loop->done * 1e9 / (double)(loop->ended_ns - loop->origin_ns);
}

static void *openloop_thread(void *argument)
{
	struct openloop *loop = argument;

	prctl(PR_SET_TIMERSLACK, 1000);
	openloop_serve(loop);
	return NULL;
}

void openloop_start(struct openloop *loop)
{
	openloop_open(loop);
	bench_must(-pthread_create(&loop->thread, NULL, openloop_thread, loop), "a thread for the clients");
}

/* The bound lies ahead when it is set: no reply to a request beyond it may have come yet. */
void openloop_end_record(struct openloop *loop)
{
	struct timespec pause = {0, 2 * RECORD_NS};

	atomic_store(&loop->record_until_ns, bench_now_ns() + RECORD_NS);
	nanosleep(&pause, NULL);
}

void openloop_stop(struct openloop *loop)
{
	atomic_store(&loop->stop, 1);
	pthread_join(loop->thread, NULL);
	openloop_close(loop);
}
