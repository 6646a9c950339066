/* SPDX-License-Identifier: MIT */
/* See live_talk.h. */
#include "live_talk.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "live_wait.h"

#define TALK_RETRY_MS 20
#define TALK_REQUEST_MAX 4096
#define TALK_PIECE 65536

__attribute__((format(printf, 3, 4))) static enum live_end talk_fail(struct live_peer *peer, enum live_end end,
                                                                     const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(peer->text, sizeof(peer->text), format, arguments);
	va_end(arguments);
	peer->error[0] = '\0';
	peer->end = end;
	live_disconnect(peer);
	return end;
}

void live_disconnect(struct live_peer *peer)
{
	if (peer->fd >= 0)
		(void)close(peer->fd);
	peer->fd = -1;
	free(peer->in);
	peer->in = NULL;
	peer->start = peer->used = peer->room = 0;
}

/* ------------------------------------------------------------------------------------------------- connecting -- */

/* By the open folder, since its path may be longer than an address takes. */
static int talk_connect_once(int fd, int folder, const char *name)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	if (snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d/%s", folder, name) >=
	    (int)sizeof(address.sun_path))
		return -ENAMETOOLONG;
	return connect(fd, (const struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
}

/* A queue of connections that is full answers EAGAIN, and cannot be polled for. */
static int talk_connect(int fd, int folder, const char *name)
{
	int64_t until_ms = live_wait_now_ms() + LIVE_LIMIT_MS;
	int error = talk_connect_once(fd, folder, name);

	while (error == -EAGAIN && live_wait_now_ms() < until_ms && !live_wait_stops()) {
		(void)live_wait(-1, 0, live_wait_now_ms() + TALK_RETRY_MS);
		error = talk_connect_once(fd, folder, name);
	}
	return error;
}

/* Whether the process at the other end is of the folder's owner: a name may lead elsewhere, and nothing was sent yet.
 */
static enum live_end talk_check_peer(struct live_peer *peer, uid_t owner)
{
	struct ucred other = {0};
	socklen_t length = sizeof(other);

	if (getsockopt(peer->fd, SOL_SOCKET, SO_PEERCRED, &other, &length))
		return talk_fail(peer, LIVE_BROKEN, "the other end of its socket is not known: %s", strerror(errno));
	if (other.uid != owner)
		return talk_fail(peer, LIVE_BROKEN, "user %u listens at its socket, which must be user %u's",
		                 (unsigned)other.uid, (unsigned)owner);
	if (peer->pid == 0)
		peer->pid = other.pid;
	if (other.pid != 0 && other.pid != peer->pid)
		return talk_fail(peer, LIVE_BROKEN, "process %d has its socket: it is not what its name says",
		                 (int)other.pid);
	peer->uid = owner;
	return LIVE_DONE;
}

enum live_end live_connect(struct live_peer *peer, int folder, const char *name, const uid_t *owner)
{
	struct stat facts;
	int error;

	if (fstatat(folder, name, &facts, AT_SYMLINK_NOFOLLOW))
		return talk_fail(peer, LIVE_ABSENT, "its socket is gone");
	if (!S_ISSOCK(facts.st_mode))
		return talk_fail(peer, LIVE_BROKEN, "what has the name of its socket is none");
	peer->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (peer->fd < 0)
		return talk_fail(peer, LIVE_BROKEN, "no socket can be made: %s", strerror(errno));
	error = talk_connect(peer->fd, folder, name);
	if (error == -ECONNREFUSED || error == -ENOENT)
		return talk_fail(peer, LIVE_ABSENT, "nothing listens at its socket");
	if (error == -EACCES || error == -EPERM)
		return talk_fail(peer, LIVE_ABSENT, "this user may not connect to its socket");
	if (error == -EAGAIN)
		return talk_fail(peer, LIVE_BROKEN, "it takes no connection within %d s", LIVE_LIMIT_MS / 1000);
	if (error)
		return talk_fail(peer, LIVE_BROKEN, "connecting to its socket fails: %s", strerror(-error));
	return talk_check_peer(peer, owner ? *owner : facts.st_uid);
}

/* --------------------------------------------------------------------------------------------------- requests -- */

struct json_object *live_request(const char *what)
{
	struct json_object *request = json_object_new_object();

	live_request_number(request, "v", 1);
	live_request_text(request, "do", what);
	return request;
}

void live_request_number(struct json_object *request, const char *key, uint64_t number)
{
	(void)json_object_object_add(request, key, json_object_new_int64((int64_t)number));
}

void live_request_text(struct json_object *request, const char *key, const char *text)
{
	(void)json_object_object_add(request, key, json_object_new_string(text));
}

static enum live_end talk_waited(struct live_peer *peer, int ready, int limit_ms)
{
	if (ready > 0)
		return LIVE_DONE;
	if (ready == 0)
		return talk_fail(peer, LIVE_BROKEN, "it does not answer within %d s", limit_ms / 1000);
	if (live_wait_stops() > peer->stops)
		return talk_fail(peer, LIVE_BROKEN, "interrupted");
	return LIVE_DONE;
}

static enum live_end talk_send(struct live_peer *peer, const char *line, size_t length, int64_t until_ms)
{
	for (size_t sent = 0; sent < length;) {
		ssize_t more = send(peer->fd, line + sent, length - sent, MSG_NOSIGNAL);

		if (more >= 0)
			sent += (size_t)more;
		else if (errno == EPIPE || errno == ECONNRESET)
			return LIVE_DONE; /* the answer that it gave before says why */
		else if (errno != EAGAIN && errno != EINTR)
			return talk_fail(peer, LIVE_BROKEN, "sending to it fails: %s", strerror(errno));
		else if (talk_waited(peer, live_wait(peer->fd, POLLOUT, until_ms), LIVE_LIMIT_MS))
			return LIVE_BROKEN;
	}
	return LIVE_DONE;
}

static enum live_end talk_send_request(struct live_peer *peer, struct json_object *request, int64_t until_ms)
{
	char line[TALK_REQUEST_MAX + 1];
	const char *text;
	int length;

	live_request_number(request, "id", ++peer->id);
	text = json_object_to_json_string_ext(request, JSON_C_TO_STRING_PLAIN | JSON_C_TO_STRING_NOSLASHESCAPE);
	length = text ? snprintf(line, sizeof(line), "%s\n", text) : -1;
	json_object_put(request);
	if (length < 0)
		return talk_fail(peer, LIVE_BROKEN, "no memory for a request");
	if (length > TALK_REQUEST_MAX)
		return talk_fail(peer, LIVE_USAGE,
		                 "a request takes %d bytes at most, and this one has %d: shorten its paths",
		                 TALK_REQUEST_MAX, length);
	return talk_send(peer, line, (size_t)length, until_ms);
}

/* ---------------------------------------------------------------------------------------------------- answers -- */

/* Makes room for another piece; lines that were taken make some first. */
static int talk_make_room(struct live_peer *peer)
{
	if (peer->start && peer->in) {
		memmove(peer->in, peer->in + peer->start, peer->used - peer->start);
		peer->used -= peer->start;
		peer->start = 0;
	}
	if (peer->room - peer->used < TALK_PIECE) {
		size_t room = peer->room ? 2 * peer->room : (size_t)2 * TALK_PIECE;
		char *more = realloc(peer->in, room);

		if (!more)
			return -1;
		peer->in = more;
		peer->room = room;
	}
	return 0;
}

/* Receives a piece, or waits for one. */
static enum live_end talk_receive(struct live_peer *peer, int64_t until_ms, int limit_ms)
{
	ssize_t more;

	if (peer->used - peer->start > SHAPE_LINE_MAX)
		return talk_fail(peer, LIVE_BROKEN, "its answer has more than %zu MiB", SHAPE_LINE_MAX >> 20);
	if (talk_make_room(peer))
		return talk_fail(peer, LIVE_BROKEN, "no memory for its answer");
	more = recv(peer->fd, peer->in + peer->used, peer->room - peer->used, 0);
	if (more == 0)
		return talk_fail(peer, LIVE_BROKEN, "it closed the connection%s",
		                 peer->used > peer->start ? " within a line" : " without an answer");
	if (more > 0) {
		peer->used += (size_t)more;
		/* The bound counts also for a process that never stops sending. */
		return live_wait_now_ms() < until_ms ? LIVE_DONE : talk_waited(peer, 0, limit_ms);
	}
	if (errno != EAGAIN && errno != EINTR)
		return talk_fail(peer, LIVE_BROKEN, "it closed the connection: %s", strerror(errno));
	return talk_waited(peer, live_wait(peer->fd, POLLIN, until_ms), limit_ms);
}

/* The next line, without its newline. */
static enum live_end talk_line(struct live_peer *peer, int64_t until_ms, int limit_ms, const char **line,
                               size_t *length)
{
	size_t looked = peer->start;

	for (;;) {
		const char *end = peer->in ? memchr(peer->in + looked, '\n', peer->used - looked) : NULL;
		size_t before = peer->used - peer->start;

		if (end) {
			*line = peer->in + peer->start;
			*length = (size_t)(end - *line);
			peer->start += *length + 1;
			return LIVE_DONE;
		}
		if (talk_receive(peer, until_ms, limit_ms))
			return peer->end;
		looked = peer->start + before;
	}
}

/* Keeps what a process says about a refusal: the conversation goes on. */
static enum live_end talk_refused(struct live_peer *peer, struct json_object *answer)
{
	(void)snprintf(peer->error, sizeof(peer->error), "%s", shape_text(answer, "error"));
	(void)snprintf(peer->text, sizeof(peer->text), "%s", shape_text(answer, "text"));
	peer->end =
	        strcmp(peer->error, "EPERM") == 0 || strcmp(peer->error, "EACCES") == 0 ? LIVE_ABSENT : LIVE_REFUSED;
	return peer->end;
}

static enum live_end talk_check(struct live_peer *peer, struct json_object *answer, const struct shape *shape)
{
	static const struct shape refused[] = {{"error", SHAPE_TEXT, 0, NULL}, {"text", SHAPE_TEXT, 0, NULL}, {0}};
	static const struct shape any[] = {{"v", SHAPE_NUMBER, 0, NULL}, {"ok", SHAPE_FLAG, SHAPE_ABSENT, NULL}, {0}};
	char wrong[512];
	int refusal;

	if (shape_check(answer, any, wrong, sizeof(wrong)))
		return talk_fail(peer, LIVE_BROKEN, "its answer is none: %s", wrong);
	if (shape_number(answer, "v") != 1)
		return talk_fail(peer, LIVE_BROKEN,
		                 "it speaks version %llu of the protocol, and this program version 1",
		                 (unsigned long long)shape_number(answer, "v"));
	refusal = shape_has(answer, "ok") && !shape_flag(answer, "ok");
	if (shape_check(answer, refusal ? refused : shape, wrong, sizeof(wrong)))
		return talk_fail(peer, LIVE_BROKEN, "its answer is none: %s", wrong);
	return refusal ? talk_refused(peer, answer) : LIVE_DONE;
}

static enum live_end talk_take(struct live_peer *peer, int64_t until_ms, int limit_ms, struct json_object **answer)
{
	char wrong[512];
	const char *line = NULL;
	size_t length = 0;

	if (talk_line(peer, until_ms, limit_ms, &line, &length))
		return peer->end;
	*answer = shape_read(line, length, wrong, sizeof(wrong));
	return *answer ? LIVE_DONE : talk_fail(peer, LIVE_BROKEN, "its answer is none: %s", wrong);
}

static void talk_drop(struct json_object **answer)
{
	json_object_put(*answer);
	*answer = NULL;
}

static enum live_end talk_answer(struct live_peer *peer, int64_t until_ms, int limit_ms, const struct shape *shape,
                                 struct json_object **answer)
{
	if (talk_take(peer, until_ms, limit_ms, answer))
		return peer->end;
	if (!shape_has(*answer, "ok"))
		(void)talk_fail(peer, LIVE_BROKEN, "its answer is none: ok is missing");
	else if (talk_check(peer, *answer, shape) == LIVE_DONE && shape_number(*answer, "id") != peer->id)
		(void)talk_fail(peer, LIVE_BROKEN, "it answers another request than it was asked");
	if (peer->end)
		talk_drop(answer);
	return peer->end;
}

enum live_end live_ask(struct live_peer *peer, struct json_object *request, int limit_ms, const struct shape *shape,
                       struct json_object **answer)
{
	int64_t until_ms = live_wait_now_ms() + limit_ms;

	*answer = NULL;
	if (peer->fd < 0) { /* it has failed before */
		json_object_put(request);
		return peer->end ? peer->end : LIVE_BROKEN;
	}
	peer->end = LIVE_DONE;
	if (talk_send_request(peer, request, until_ms))
		return peer->end;
	return talk_answer(peer, until_ms, limit_ms, shape, answer);
}

enum live_end live_next(struct live_peer *peer, int limit_ms, const struct shape *shape, struct json_object **line)
{
	*line = NULL;
	peer->end = LIVE_DONE;
	if (talk_take(peer, live_wait_now_ms() + limit_ms, limit_ms, line))
		return live_wait_stops() > peer->stops ? LIVE_DONE : peer->end;
	if (talk_check(peer, *line, shape))
		talk_drop(line);
	return peer->end;
}
