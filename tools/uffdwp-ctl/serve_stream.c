/* SPDX-License-Identifier: MIT */
/*
 * Bytes and descriptors of a connection; see serve.h. Nothing here waits for the client, but for serve_stream_wait(),
 * which has a limit. Descriptors that come are kept until the message that they belong to is there; more than a message
 * may have, or bytes than it may have, are an error, after which the connection is closed.
 *
 * Thread: the first of a client's process.
 */
#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "serve.h"

#define CONTROL_DESCRIPTORS 16 /* room for more than are taken: the kernel closes what has no room, and says so */

union serve_stream_control {
	struct cmsghdr header;
	char space[CMSG_SPACE(CONTROL_DESCRIPTORS * sizeof(int))];
};

/* Keeps what there is room for, closes the rest. */
static int serve_stream_keep(struct serve_stream *stream, const struct cmsghdr *header)
{
	size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
	int error = 0;

	for (size_t i = 0; i < count; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(header) + i * sizeof(fd), sizeof(fd));
		if (stream->descriptor_count < SERVE_DESCRIPTORS_MAX) {
			stream->descriptors[stream->descriptor_count++] = fd;
		} else {
			(void)close(fd);
			error = -E2BIG;
		}
	}
	return error;
}

static int serve_stream_keep_all(struct serve_stream *stream, struct msghdr *message)
{
	int error = message->msg_flags & MSG_CTRUNC ? -E2BIG : 0;

	for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header; header = CMSG_NXTHDR(message, header)) {
		if (header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS &&
		    serve_stream_keep(stream, header) != 0)
			error = -E2BIG;
	}
	return error;
}

int serve_stream_receive(struct serve_stream *stream, char text[SERVE_TEXT])
{
	union serve_stream_control control;
	struct iovec bytes = {stream->bytes + stream->used, SERVE_MESSAGE_MAX - stream->used};
	struct msghdr message = {
	        .msg_iov = &bytes, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control.space)};

	if (bytes.iov_len == 0)
		return serve_fail(text, -EMSGSIZE, "a message has more than %d bytes", SERVE_MESSAGE_MAX);
	ssize_t length = recvmsg(stream->fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);

	if (length < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (length <= 0) {
		stream->is_ended = 1;
		return 0;
	}
	stream->used += (size_t)length;
	stream->bytes[stream->used] = '\0';
	if (CMSG_FIRSTHDR(&message)) /* the kernel gives no byte with descriptors that was sent after them */
		stream->descriptors_end = stream->used;
	return serve_stream_keep_all(stream, &message) == 0
	               ? 1
	               : serve_fail(text, -E2BIG, "more than %d descriptors came with a message",
	                            SERVE_DESCRIPTORS_MAX);
}

int serve_stream_wait(struct serve_stream *stream, uint64_t until_ms, char text[SERVE_TEXT])
{
	struct pollfd wait = {.fd = stream->fd, .events = POLLIN};
	uint64_t now = serve_now_ms();

	if (now >= until_ms)
		return serve_fail(text, -ETIMEDOUT, "no whole message came in time");
	if (poll(&wait, 1, (int)(until_ms - now)) <= 0)
		return 0;
	return serve_stream_receive(stream, text);
}

char *serve_stream_line(struct serve_stream *stream, size_t *length)
{
	char *end = memchr(stream->bytes, '\n', stream->used);

	if (!end)
		return NULL;
	*end = '\0';
	*length = (size_t)(end - stream->bytes) + 1;
	return stream->bytes;
}

void serve_stream_drop(struct serve_stream *stream, size_t length)
{
	stream->used -= length;
	stream->descriptors_end -= stream->descriptors_end < length ? stream->descriptors_end : length;
	memmove(stream->bytes, stream->bytes + length, stream->used);
	stream->bytes[stream->used] = '\0';
}

unsigned serve_stream_hold_back(struct serve_stream *stream, size_t length)
{
	unsigned later = stream->descriptor_count;

	if (stream->descriptors_end <= length)
		return 0;
	stream->descriptor_count = 0;
	return later;
}

void serve_stream_close_descriptors(struct serve_stream *stream)
{
	while (stream->descriptor_count > 0)
		(void)close(stream->descriptors[--stream->descriptor_count]);
}

void serve_stream_close(struct serve_stream *stream)
{
	serve_stream_close_descriptors(stream);
	if (stream->fd >= 0)
		(void)close(stream->fd);
	stream->fd = -1;
	stream->is_ended = 1;
}

void serve_stream_send(struct serve_stream *stream, struct json_object *object)
{
	size_t length = 0;
	const char *json = json_object_to_json_string_length(object, JSON_C_TO_STRING_PLAIN, &length);
	struct iovec parts[2] = {{(void *)(uintptr_t)json, length}, {(void *)(uintptr_t) "\n", 1}};
	struct msghdr message = {.msg_iov = parts, .msg_iovlen = 2};

	if (stream->fd >= 0 && sendmsg(stream->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT) != (ssize_t)length + 1)
		stream->is_ended = 1; /* it is gone, or does not read */
	(void)json_object_put(object);
}
