/* SPDX-License-Identifier: MIT */
/*
 * See resp.h. A reply begins with its type and a line; a string ('$') has its length there, and follows.
 */
#include "resp.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STRING_BYTES_MAX (64u << 20)

size_t resp_command(char *out, const char *name, const char *argument)
{
	int length = argument ? snprintf(out, RESP_HEAD_BYTES, "*2\r\n$%zu\r\n%s\r\n$%zu\r\n%s\r\n", strlen(name), name,
	                                 strlen(argument), argument)
	                      : snprintf(out, RESP_HEAD_BYTES, "*1\r\n$%zu\r\n%s\r\n", strlen(name), name);

	return (size_t)length;
}

size_t resp_get(char *out, uint64_t number)
{
	return (size_t)snprintf(out, RESP_HEAD_BYTES, "*2\r\n$3\r\nGET\r\n$20\r\nkey:%016llx\r\n",
	                        (unsigned long long)number);
}

size_t resp_set_head(char *out, uint64_t number, size_t value_bytes)
{
	return (size_t)snprintf(out, RESP_HEAD_BYTES, "*3\r\n$3\r\nSET\r\n$20\r\nkey:%016llx\r\n$%zu\r\n",
	                        (unsigned long long)number, value_bytes);
}

void resp_stamp(char out[RESP_STAMP_BYTES], uint64_t number)
{
	for (int i = RESP_STAMP_BYTES - 1; i >= 0; i--) {
		out[i] = "0123456789abcdef"[number & 15];
		number >>= 4;
	}
}

/* What follows the line of a string that says its length. */
static ssize_t resp_parse_string(const char *bytes, size_t length, size_t head, struct resp_reply *reply)
{
	long announced = strtol(bytes + 1, NULL, 10);

	if (announced == -1) {
		reply->text = NULL;
		reply->text_length = 0;
		return (ssize_t)head;
	}
	if (announced < 0 || announced > STRING_BYTES_MAX)
		return -1;
	if (length < head + (size_t)announced + 2)
		return 0;
	reply->text = bytes + head;
	reply->text_length = (size_t)announced;
	return memcmp(reply->text + announced, "\r\n", 2) ? -1 : (ssize_t)(head + (size_t)announced + 2);
}

static int resp_is_type(char type)
{
	return type == '+' || type == '-' || type == ':' || type == '$';
}

ssize_t resp_parse(const char *bytes, size_t length, struct resp_reply *reply)
{
	const char *end = memchr(bytes, '\n', length);

	if (length && !resp_is_type(bytes[0]))
		return -1;
	if (!length || !end)
		return 0;
	if (end < bytes + 2 || end[-1] != '\r')
		return -1;
	reply->type = bytes[0];
	if (reply->type == '$')
		return resp_parse_string(bytes, length, (size_t)(end + 1 - bytes), reply);
	reply->text = bytes + 1;
	reply->text_length = (size_t)(end - 1 - reply->text);
	return end + 1 - bytes;
}

int resp_is_value(const struct resp_reply *reply, uint64_t number, size_t value_bytes)
{
	char stamp[RESP_STAMP_BYTES];

	resp_stamp(stamp, number);
	return reply->type == '$' && reply->text && reply->text_length == value_bytes &&
	       memcmp(reply->text, stamp, sizeof(stamp)) == 0;
}

long long resp_info(const char *info, const char *field)
{
	size_t length = strlen(field);

	for (const char *line = info; line; line = strchr(line, '\n')) {
		line += *line == '\n';
		if (strncmp(line, field, length) == 0 && line[length] == ':')
			return strtoll(line + length + 1, NULL, 10);
	}
	return -1;
}
