/* SPDX-License-Identifier: MIT */
/* See serve.h. */
#include "control/serve.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/math.h"
#include "base/signals.h"
#include "base/thread.h"
#include "base/trace.h"
#include "control/acts.h"
#include "control/answer.h"
#include "control/ask.h"
#include "control/say.h"
#include "control/tapped.h"
#include "io/loop.h"
#include "kernel/own.h"
#include "kernel/pages.h"

#define SERVE_KICK 1 /* tokens; a client's is its index after these */
#define SERVE_LISTEN 2
#define SERVE_FIRST 3

/* How often is looked after answers that a client has not read, and after snapshots that run. */
#define SERVE_SOON_NS 10000000ull
#define SERVE_REAP_NS 50000000ull
#define SERVE_LOOK_NS 1000000000ull

/* What is done for one client in a turn, reads and lines together; and how many are accepted. */
#define SERVE_TURN_MOST 16

/* An answer's memory is kept for the next one up to this. */
#define SERVE_KEEP_BYTES ((size_t)64 << 10)

struct client {
	int fd; /* -1: none */
	int is_readable;
	int is_leaving; /* it is closed when its answer was sent */
	size_t used;    /* of `line` */
	char line[ASK_BYTES_MOST + 1];
	struct say say;
	struct tapped tapped;
	size_t sent;       /* of the answer */
	uint64_t seen_ns;  /* its last request */
	uint64_t half_ns;  /* when half a line came; 0: there is none */
	uint64_t stuck_ns; /* since when it reads nothing; 0: all was sent */
};

struct serve {
	const struct kernel_ops *k;
	pthread_t thread;
	struct loop *loop;
	int tag; /* of all descriptors, see kernel/own.h */
	int kick;
	int listening;
	_Atomic int is_stopping;
	uint64_t accept_ns; /* from now, a client may wait that was not accepted; UINT64_MAX: none that is known of */
	struct client clients[SERVE_CLIENTS_MOST];
};

static struct serve *_Atomic serve_now; /* NULL: none */

/* ---- one client ---- */

static void serve_close_client(struct serve *serve, struct client *client)
{
	if (own_check(serve->k, client->fd, serve->tag) == 0)
		loop_remove(serve->loop, client->fd, SERVE_FIRST + (uint64_t)(client - serve->clients));
	own_close(serve->k, client->fd, serve->tag);
	tapped_end(&client->tapped);
	say_free(&client->say);
	client->fd = -1;
}

/* Bytes, 0 where none can be written or read now, or -errno; at the end of the stream -EPIPE. */
static ssize_t serve_io(const struct serve *serve, const struct client *client, char *to, const char *from,
                        size_t length)
{
	int lost = own_check(serve->k, client->fd, serve->tag);

	if (lost)
		return lost;
	ssize_t done = to ? serve->k->read(client->fd, to, length) : serve->k->write(client->fd, from, length);

	if (done == -EAGAIN || done == -EINTR)
		return 0;
	return done == 0 ? -EPIPE : done;
}

/* Sends what the client takes. The thread blocks SIGPIPE. */
static void serve_flush(struct serve *serve, struct client *client, uint64_t now_ns)
{
	while (client->sent < client->say.length) {
		ssize_t done = serve_io(serve, client, NULL, client->say.bytes + client->sent,
		                        client->say.length - client->sent);

		if (done < 0) {
			serve_close_client(serve, client);
			return;
		}
		if (done == 0) {
			client->stuck_ns = client->stuck_ns ? client->stuck_ns : now_ns;
			say_drop(&client->say, client->sent);
			client->sent = 0;
			return;
		}
		client->sent += (size_t)done;
		client->stuck_ns = now_ns;
	}
	client->sent = 0;
	client->stuck_ns = 0;
	say_back_to(&client->say, 0);
	if (client->say.room > SERVE_KEEP_BYTES)
		say_free(&client->say);
	if (client->is_leaving)
		serve_close_client(serve, client);
}

static void serve_refuse(struct client *client, int error, const char *text)
{
	answer_refusal(&client->say, error, text);
	client->is_leaving = 1;
}

/* Answers the first line that is whole. 0: there is none. */
static int serve_take_line(struct serve *serve, struct client *client, uint64_t now_ns)
{
	char *end = memchr(client->line, '\n', client->used);

	if (!end) {
		if (client->used >= ASK_BYTES_MOST)
			serve_refuse(client, -EMSGSIZE,
			             "a request has at most 4096 bytes, with the newline at its end");
		return 0;
	}
	size_t length = (size_t)(end - client->line);

	client->is_leaving = answer_line(serve->k, client->line, length, &client->tapped, &client->say);
	client->seen_ns = now_ns;
	client->used -= length + 1;
	memmove(client->line, end + 1, client->used);
	client->half_ns = client->used ? now_ns : 0;
	return 1;
}

/* 1: something was read. */
static int serve_read(struct serve *serve, struct client *client, uint64_t now_ns)
{
	ssize_t got = serve_io(serve, client, client->line + client->used, NULL, ASK_BYTES_MOST - client->used);

	if (got < 0)
		serve_close_client(serve, client);
	client->is_readable = got > 0;
	if (got <= 0)
		return 0;
	client->half_ns = client->used ? client->half_ns : now_ns;
	client->used += (size_t)got;
	return 1;
}

/* The client may be served a line, or more of one. */
static int serve_is_ready(const struct serve *serve, const struct client *client)
{
	return client->fd >= 0 && !client->say.length && !client->is_leaving && !atomic_load(&serve->is_stopping);
}

/* Lines are answered one after the other: the next one when the client has its answer. 1: there may be more to do for
 * it at once, after the others' turn. */
static int serve_client(struct serve *serve, struct client *client, uint64_t now_ns)
{
	serve_flush(serve, client, now_ns);
	for (int i = 0; i < SERVE_TURN_MOST && serve_is_ready(serve, client); i++) {
		int answered = serve_take_line(serve, client, now_ns);

		if (client->say.length)
			serve_flush(serve, client, now_ns);
		else if (!answered && (!client->is_readable || !serve_read(serve, client, now_ns)))
			return 0;
	}
	return serve_is_ready(serve, client);
}

static int serve_is_late(const struct client *client, uint64_t now_ns)
{
	if (client->stuck_ns && now_ns - client->stuck_ns > SERVE_STUCK_NS)
		return 1;
	if (client->half_ns && now_ns - client->half_ns > SERVE_STUCK_NS)
		return 1;
	return client->tapped.tap < 0 && now_ns - client->seen_ns > SERVE_IDLE_NS;
}

/* ---- new clients ---- */

static struct client *serve_free_client(struct serve *serve)
{
	for (unsigned i = 0; i < SERVE_CLIENTS_MOST; i++) {
		if (serve->clients[i].fd < 0)
			return &serve->clients[i];
	}
	return NULL;
}

/* Best effort, errors ignored: a client that is one too many. */
static void serve_send_away(struct serve *serve, int fd)
{
	struct client client = {.fd = fd, .say = {.k = serve->k}};

	serve_refuse(&client, -EUSERS, "16 clients are connected: wait until one has gone");
	if (!client.say.error)
		serve->k->write(fd, client.say.bytes, client.say.length);
	say_free(&client.say);
	serve->k->close(fd);
}

static void serve_take_client(struct serve *serve, int fd, uint32_t uid)
{
	struct client *client = serve_free_client(serve);

	if (uid != 0 && uid != geteuid()) {
		serve->k->close(fd);
		return;
	}
	if (!client) {
		serve_send_away(serve, fd);
		return;
	}
	if (own_take(serve->k, fd, serve->tag))
		return;
	if (loop_add(serve->loop, fd, SERVE_FIRST + (uint64_t)(client - serve->clients))) {
		own_close(serve->k, fd, serve->tag);
		return;
	}
	memset(client, 0, sizeof(*client));
	client->say.k = serve->k;
	client->tapped.tap = -1;
	client->seen_ns = kernel_now_ns();
	client->is_readable = 1;
	client->fd = fd;
}

/* Until there is none, which is when the socket is reported the next time. A refusal, for want of descriptors, is tried
 * again after a while. */
static void serve_accept(struct serve *serve)
{
	serve->accept_ns = 0;
	for (int i = 0; i < SERVE_TURN_MOST && !atomic_load(&serve->is_stopping); i++) {
		uint32_t uid = 0;
		int fd = own_check(serve->k, serve->listening, serve->tag) ? -EBADF
		                                                           : serve->k->accept(serve->listening, &uid);

		if (fd >= 0) {
			serve_take_client(serve, fd, uid);
		} else if (fd != -ECONNABORTED && fd != -EINTR) {
			serve->accept_ns = fd == -EAGAIN ? UINT64_MAX : SERVE_SOON_NS;
			return;
		}
	}
}

/* ---- the thread ---- */

static void serve_take_event(struct serve *serve, const struct loop_event *event)
{
	uint64_t kicks;

	if (event->token == SERVE_KICK) {
		if (own_check(serve->k, serve->kick, serve->tag) == 0)
			serve->k->read(serve->kick, &kicks, sizeof(kicks));
	} else if (event->token == SERVE_LISTEN) {
		serve->accept_ns = 0;
	} else if (event->token < SERVE_FIRST + SERVE_CLIENTS_MOST) {
		serve->clients[event->token - SERVE_FIRST].is_readable = 1;
	}
}

/* How long the next wait may be. */
static uint64_t serve_turn(struct serve *serve)
{
	uint64_t now_ns = kernel_now_ns();
	uint64_t wait_ns = serve->accept_ns;

	for (unsigned i = 0; i < SERVE_CLIENTS_MOST; i++) {
		struct client *client = &serve->clients[i];

		if (client->fd >= 0 && client->tapped.tap >= 0 && !client->is_leaving)
			tapped_pass(&client->tapped, &client->say, client->say.length - client->sent, now_ns);
		if (client->fd >= 0 && serve_client(serve, client, now_ns))
			wait_ns = 0;
		if (client->fd >= 0 && serve_is_late(client, now_ns))
			serve_close_client(serve, client);
		if (client->fd >= 0)
			wait_ns = math_min_u64(wait_ns, client->say.length ? SERVE_SOON_NS : SERVE_LOOK_NS);
		if (client->fd >= 0 && client->tapped.tap >= 0)
			wait_ns = math_min_u64(wait_ns, TAPPED_TURN_NS);
	}
	if (acts_reap(serve->k))
		wait_ns = math_min_u64(wait_ns, SERVE_REAP_NS);
	return wait_ns;
}

/* 1: all that the thread waits by is the library's still. */
static int serve_is_whole(const struct serve *serve)
{
	return !own_check(serve->k, serve->kick, serve->tag) && !own_check(serve->k, serve->listening, serve->tag) &&
	       !loop_check(serve->loop);
}

static void serve_run(struct serve *serve)
{
	struct loop_event events[SERVE_FIRST + SERVE_CLIENTS_MOST];

	while (!atomic_load(&serve->is_stopping) && serve_is_whole(serve)) {
		uint64_t wait_ns = serve_turn(serve);

		/* The only place where the thread may be cancelled: it owns nothing here. */
		pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
		int count = loop_wait(serve->loop, events, SERVE_FIRST + SERVE_CLIENTS_MOST, wait_ns);

		pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
		if (count < 0)
			return;
		for (int i = 0; i < count; i++)
			serve_take_event(serve, &events[i]);
		if (serve->accept_ns != UINT64_MAX)
			serve_accept(serve);
	}
}

static void *serve_main(void *argument)
{
	struct serve *serve = argument;

	thread_begin("uffdwp-control");
	if (!loop_add(serve->loop, serve->kick, SERVE_KICK) && !loop_add(serve->loop, serve->listening, SERVE_LISTEN))
		serve_run(serve);
	return NULL;
}

static void serve_free(struct serve *serve)
{
	const struct kernel_ops *k = serve->k;

	for (unsigned i = 0; i < SERVE_CLIENTS_MOST; i++) {
		own_close(k, serve->clients[i].fd, serve->tag);
		tapped_end(&serve->clients[i].tapped);
		say_free(&serve->clients[i].say);
	}
	if (serve->loop)
		loop_free(serve->loop);
	own_close(k, serve->kick, serve->tag);
	own_close(k, serve->listening, serve->tag);
	pages_free(k, serve, sizeof(*serve));
}

int serve_start(const struct kernel_ops *k, int listening)
{
	struct serve *serve = pages_new(k, sizeof(*serve));

	if (!serve) {
		k->close(listening);
		return -ENOMEM;
	}
	serve->k = k;
	serve->tag = own_new();
	serve->accept_ns = UINT64_MAX;
	serve->kick = -1;
	for (unsigned i = 0; i < SERVE_CLIENTS_MOST; i++)
		serve->clients[i] = (struct client){.fd = -1, .say = {.k = k}, .tapped = {.tap = -1}};
	serve->listening = own_take(k, listening, serve->tag) ? -1 : listening;
	int error = serve->listening < 0 ? -ENOMEM : 0;

	if (!error) {
		serve->kick = own_eventfd(k, serve->tag);
		error = serve->kick < 0 ? serve->kick : 0;
	}
	if (!error) /* epoll: a request of io_uring would keep what the program has closed */
		error = loop_new(k, SERVE_FIRST + SERVE_CLIENTS_MOST, 1, &serve->loop);
	if (!error)
		error = thread_spawn(&serve->thread, NULL, serve_main, serve);
	if (error)
		serve_free(serve);
	else
		atomic_store(&serve_now, serve);
	return error;
}

void serve_stop(void)
{
	struct serve *serve = atomic_exchange(&serve_now, NULL);

	atomic_store(&serve->is_stopping, 1);
	if (own_kick(serve->k, serve->kick, serve->tag) || loop_check(serve->loop))
		pthread_cancel(serve->thread);
	pthread_join(serve->thread, NULL);
	serve_free(serve);
}

/* The loop as well: an epoll that a child has keeps the sockets that it watches. Its memory stays. */
void serve_forget(void)
{
	struct serve *serve = atomic_exchange(&serve_now, NULL);

	if (!serve)
		return;
	for (unsigned i = 0; i < SERVE_CLIENTS_MOST; i++) {
		own_close(&kernel_real, serve->clients[i].fd, serve->tag);
		tapped_end(&serve->clients[i].tapped);
	}
	loop_free(serve->loop);
	own_close(&kernel_real, serve->kick, serve->tag);
	own_close(&kernel_real, serve->listening, serve->tag);
}
