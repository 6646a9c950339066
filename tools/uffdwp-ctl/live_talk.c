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

#include "live_say.h"
#include "live_stopped.h"
#include "live_wait.h"

#define TALK_RETRY_MS 20
#define TALK_REQUEST_MAX 4096
#define TALK_PIECE 65536
#define TALK_OTHERS 64    /* users with an account of their own; what are more share the last one */
#define TALK_SLICE_MS 500 /* after which a wait looks whether the process is stopped */

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

/* ------------------------------------------------------------------------------------------------ other users -- */

static struct talk_account {
	uid_t uid;
	int is_used;
	int64_t spent_ms;
	uint64_t bytes;
} talk_accounts[TALK_OTHERS];

void live_talk_begin(void)
{
	memset(talk_accounts, 0, sizeof(talk_accounts));
}

/* NULL: this process may take what any may. */
static struct talk_account *talk_account_of(const struct live_peer *peer)
{
	size_t i = 0;

	if (!peer->is_one_of_all || peer->uid == geteuid())
		return NULL;
	while (i + 1 < TALK_OTHERS && talk_accounts[i].is_used && talk_accounts[i].uid != peer->uid)
		i++;
	talk_accounts[i].is_used = 1;
	talk_accounts[i].uid = peer->uid;
	return &talk_accounts[i];
}

/* How long an answer may take; 0: no longer. */
static int talk_limit(const struct live_peer *peer, int limit_ms)
{
	const struct talk_account *account = talk_account_of(peer);
	int64_t left_ms = account ? LIVE_OTHERS_MS - account->spent_ms : limit_ms;

	if (account && account->bytes > LIVE_OTHERS_BYTES)
		return 0;
	return left_ms < limit_ms ? (left_ms > 0 ? (int)left_ms : 0) : limit_ms;
}

static void talk_charge(const struct live_peer *peer, int64_t since_ms)
{
	struct talk_account *account = talk_account_of(peer);

	if (account)
		account->spent_ms += live_wait_now_ms() - since_ms;
}

static enum live_end talk_fail_others(struct live_peer *peer)
{
	return talk_fail(peer, LIVE_BROKEN,
	                 "it is not asked: processes of user %u have taken the %d s, or the %llu MiB, that each other "
	                 "user's are given",
	                 (unsigned)peer->uid, LIVE_OTHERS_MS / 1000, (unsigned long long)(LIVE_OTHERS_BYTES >> 20));
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

/* By the file that was looked at, since its path may be longer than an address takes, and lead elsewhere by now. */
static int talk_connect_once(int fd, int file)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", file);
	return connect(fd, (const struct sockaddr *)&address, sizeof(address)) ? -errno : 0;
}

/* A queue of connections that is full answers EAGAIN, and cannot be polled for. */
static int talk_connect(const struct live_peer *peer, int file)
{
	int64_t begin_ms = live_wait_now_ms();
	int64_t until_ms = begin_ms + talk_limit(peer, LIVE_LIMIT_MS);
	int error = talk_connect_once(peer->fd, file);

	while (error == -EAGAIN && live_wait_now_ms() < until_ms && !live_wait_stops() && !live_is_stopped(peer->pid)) {
		(void)live_wait(-1, 0, live_wait_now_ms() + TALK_RETRY_MS);
		error = talk_connect_once(peer->fd, file);
	}
	talk_charge(peer, begin_ms);
	return error;
}

static enum live_end talk_fail_stopped(struct live_peer *peer)
{
	(void)talk_fail(peer, LIVE_BROKEN,
	                "it does not answer: it is stopped, by a signal or a debugger (kill -CONT %lld)",
	                (long long)peer->pid);
	peer->is_stopped = 1;
	return peer->end;
}

/* Not what its name says: no fault of the process that has that name. */
__attribute__((format(printf, 2, 3))) static enum live_end talk_fail_planted(struct live_peer *peer, const char *format,
                                                                             ...)
{
	char text[256];
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(text, sizeof(text), format, arguments);
	va_end(arguments);
	(void)talk_fail(peer, LIVE_BROKEN, "%s", text);
	peer->is_planted = 1;
	return peer->end;
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
		return talk_fail_planted(peer, "user %u listens at its socket, which must be user %u's",
		                         (unsigned)other.uid, (unsigned)owner);
	if (peer->pid == 0)
		peer->pid = other.pid;
	if (other.pid != 0 && other.pid != peer->pid)
		return talk_fail_planted(peer, "process %d has its socket: it is not what its name says",
		                         (int)other.pid);
	peer->uid = owner;
	return LIVE_DONE;
}

static enum live_end talk_connect_to(struct live_peer *peer, int file, const uid_t *owner)
{
	struct stat facts;
	int error;

	if (fstat(file, &facts))
		return talk_fail(peer, LIVE_ABSENT, "its socket is gone");
	if (!S_ISSOCK(facts.st_mode))
		return talk_fail_planted(peer, "what has the name of its socket is none");
	peer->uid = owner ? *owner : facts.st_uid;
	if (!talk_limit(peer, LIVE_LIMIT_MS))
		return talk_fail_others(peer);
	peer->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (peer->fd < 0)
		return talk_fail(peer, LIVE_BROKEN, "no socket can be made: %s", strerror(errno));
	error = talk_connect(peer, file);
	if (error == -ECONNREFUSED || error == -ENOENT)
		return talk_fail(peer, LIVE_ABSENT, "nothing listens at its socket");
	if (error == -EACCES || error == -EPERM)
		return talk_fail(peer, LIVE_ABSENT, "this user may not connect to its socket");
	if (error == -EAGAIN && live_is_stopped(peer->pid))
		return talk_fail_stopped(peer);
	if (error == -EAGAIN)
		return talk_fail(peer, LIVE_BROKEN, "it takes no connection within %d s", LIVE_LIMIT_MS / 1000);
	if (error)
		return talk_fail(peer, LIVE_BROKEN, "connecting to its socket fails: %s", strerror(-error));
	return talk_check_peer(peer, peer->uid);
}

enum live_end live_connect(struct live_peer *peer, int folder, const char *name, const uid_t *owner)
{
	int file = openat(folder, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	enum live_end end;

	peer->is_planted = 0;
	peer->is_stopped = 0;
	if (file < 0)
		return talk_fail(peer, LIVE_ABSENT, "its socket is gone");
	end = talk_connect_to(peer, file, owner);
	(void)close(file);
	return end;
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

static void talk_set_limit(struct live_peer *peer, int limit_ms)
{
	peer->limit_ms = limit_ms;
	peer->until_ms = live_wait_now_ms() + limit_ms;
}

static enum live_end talk_fail_late(struct live_peer *peer)
{
	return talk_fail(peer, LIVE_BROKEN, "it does not answer within %d s", (peer->limit_ms + 999) / 1000);
}

/* Says once that a process is stopped, and gives it the time that it lost; until the command wants no more. */
static void talk_wait_longer(struct live_peer *peer)
{
	int64_t until_ms = peer->until_ms + TALK_SLICE_MS;

	if (!peer->is_stopped)
		live_complain(
		        peer->outwaits,
		        "process %lld (%s) is stopped, by a signal or a debugger: waiting until it goes on (kill -CONT "
		        "%lld)",
		        (long long)peer->pid, peer->program, (long long)peer->pid);
	peer->is_stopped = 1;
	peer->until_ms = until_ms < peer->outwait_until_ms ? until_ms : peer->outwait_until_ms;
}

/* As live_wait(), until the answer is due; it takes a process for stopped that is so at two looks in a row. */
static enum live_end talk_wait(struct live_peer *peer, int events)
{
	int stopped = 0;

	for (;;) {
		int64_t slice_ms = live_wait_now_ms() + TALK_SLICE_MS;
		int ready = live_wait(peer->fd, events, slice_ms < peer->until_ms ? slice_ms : peer->until_ms);

		if (ready > 0)
			return LIVE_DONE;
		if (ready < 0)
			return live_wait_stops() > peer->stops ? talk_fail(peer, LIVE_BROKEN, "interrupted")
			                                       : LIVE_DONE;
		stopped = live_is_stopped(peer->pid) ? stopped + 1 : 0;
		if (stopped && peer->outwaits)
			talk_wait_longer(peer);
		else if (stopped > 1)
			return talk_fail_stopped(peer);
		else if (!stopped)
			peer->is_stopped = 0;
		if (live_wait_now_ms() >= peer->until_ms)
			return stopped ? talk_fail_stopped(peer) : talk_fail_late(peer);
	}
}

static enum live_end talk_send(struct live_peer *peer, const char *line, size_t length)
{
	for (size_t sent = 0; sent < length;) {
		ssize_t more = send(peer->fd, line + sent, length - sent, MSG_NOSIGNAL);

		if (more >= 0)
			sent += (size_t)more;
		else if (errno == EPIPE || errno == ECONNRESET)
			return LIVE_DONE; /* the answer that it gave before says why */
		else if (errno != EAGAIN && errno != EINTR)
			return talk_fail(peer, LIVE_BROKEN, "sending to it fails: %s", strerror(errno));
		else if (talk_wait(peer, POLLOUT))
			return LIVE_BROKEN;
	}
	return LIVE_DONE;
}

static enum live_end talk_send_request(struct live_peer *peer, struct json_object *request)
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
	return talk_send(peer, line, (size_t)length);
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
static enum live_end talk_receive(struct live_peer *peer)
{
	struct talk_account *account = talk_account_of(peer);
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
		peer->is_stopped = 0;
		if (account && (account->bytes += (uint64_t)more) > LIVE_OTHERS_BYTES)
			return talk_fail_others(peer);
		/* The bound counts also for a process that never stops sending. */
		return live_wait_now_ms() < peer->until_ms ? LIVE_DONE : talk_fail_late(peer);
	}
	if (errno != EAGAIN && errno != EINTR)
		return talk_fail(peer, LIVE_BROKEN, "it closed the connection: %s", strerror(errno));
	return talk_wait(peer, POLLIN);
}

/* The next line, without its newline. */
static enum live_end talk_line(struct live_peer *peer, const char **line, size_t *length)
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
		if (talk_receive(peer))
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

static enum live_end talk_take(struct live_peer *peer, struct json_object **answer)
{
	char wrong[512];
	const char *line = NULL;
	size_t length = 0;

	if (talk_line(peer, &line, &length))
		return peer->end;
	*answer = shape_read(line, length, wrong, sizeof(wrong));
	return *answer ? LIVE_DONE : talk_fail(peer, LIVE_BROKEN, "its answer is none: %s", wrong);
}

static void talk_drop(struct json_object **answer)
{
	json_object_put(*answer);
	*answer = NULL;
}

static enum live_end talk_answer(struct live_peer *peer, const struct shape *shape, struct json_object **answer)
{
	if (talk_take(peer, answer))
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
	int64_t begin_ms = live_wait_now_ms();

	*answer = NULL;
	if (peer->fd < 0) { /* it has failed before */
		json_object_put(request);
		return peer->end ? peer->end : LIVE_BROKEN;
	}
	peer->end = LIVE_DONE;
	talk_set_limit(peer, talk_limit(peer, limit_ms));
	if (!peer->limit_ms) {
		json_object_put(request);
		return talk_fail_others(peer);
	}
	if (talk_send_request(peer, request) == LIVE_DONE)
		(void)talk_answer(peer, shape, answer);
	talk_charge(peer, begin_ms);
	return peer->end;
}

enum live_end live_next(struct live_peer *peer, int limit_ms, const struct shape *shape, struct json_object **line)
{
	*line = NULL;
	peer->end = LIVE_DONE;
	talk_set_limit(peer, limit_ms);
	if (talk_take(peer, line))
		return live_wait_stops() > peer->stops ? LIVE_DONE : peer->end;
	if (talk_check(peer, *line, shape))
		talk_drop(line);
	return peer->end;
}
