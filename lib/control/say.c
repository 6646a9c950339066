/* SPDX-License-Identifier: MIT */
/* See say.h. */
#include "control/say.h"

#include <stdio.h>
#include <string.h>

#include "base/errno_name.h"
#include "base/escape.h"
#include "kernel/pages.h"

#define SAY_BYTES_FIRST ((size_t)16 << 10)

void say_free(struct say *say)
{
	pages_free(say->k, say->bytes, say->room);
	say->bytes = NULL;
	say->length = 0;
	say->room = 0;
	say->error = 0;
}

void say_back_to(struct say *say, size_t length)
{
	say->length = length;
	say->error = 0;
}

void say_drop(struct say *say, size_t length)
{
	say->length -= length;
	memmove(say->bytes, say->bytes + length, say->length);
}

static int say_grow(struct say *say, size_t wanted)
{
	size_t room = say->room ? say->room : SAY_BYTES_FIRST;

	while (room < wanted)
		room *= 2;
	if (room > SAY_BYTES_MOST)
		return -EMSGSIZE;
	char *bytes = pages_new(say->k, room);

	if (!bytes)
		return -ENOMEM;
	if (say->length)
		memcpy(bytes, say->bytes, say->length);
	pages_free(say->k, say->bytes, say->room);
	say->bytes = bytes;
	say->room = room;
	return 0;
}

static void say_bytes(struct say *say, const char *bytes, size_t length)
{
	if (!say->error && say->length + length > say->room)
		say->error = say_grow(say, say->length + length);
	if (say->error)
		return;
	memcpy(say->bytes + say->length, bytes, length);
	say->length += length;
}

static void say_sign(struct say *say, char sign)
{
	say_bytes(say, &sign, 1);
}

static void say_quoted(struct say *say, const char *text)
{
	say_sign(say, '"');
	for (; *text; text++) {
		unsigned char byte = (unsigned char)*text;
		char escaped[8] = "";
		int length = byte < 0x20 ? snprintf(escaped, sizeof(escaped), "\\u%04x", byte) : 0;

		if (length)
			say_bytes(say, escaped, (size_t)length);
		else if (byte == '"' || byte == '\\')
			say_bytes(say, (const char[]){'\\', *text}, 2);
		else
			say_sign(say, *text);
	}
	say_sign(say, '"');
}

/* What stands before a value. */
static void say_begin(struct say *say, const char *key)
{
	char last = say->length ? say->bytes[say->length - 1] : '\n';

	if (last != '{' && last != '[' && last != '\n')
		say_sign(say, ',');
	if (!key)
		return;
	say_quoted(say, key);
	say_sign(say, ':');
}

void say_open(struct say *say, const char *key, char kind)
{
	say_begin(say, key);
	say_sign(say, kind);
}

void say_close(struct say *say, char kind)
{
	say_sign(say, kind);
}

void say_number(struct say *say, const char *key, uint64_t number)
{
	char digits[24];
	int length = snprintf(digits, sizeof(digits), "%llu", (unsigned long long)number);

	say_begin(say, key);
	say_bytes(say, digits, (size_t)length);
}

void say_bool(struct say *say, const char *key, int value)
{
	say_begin(say, key);
	say_bytes(say, value ? "true" : "false", value ? 4 : 5);
}

void say_null(struct say *say, const char *key)
{
	say_begin(say, key);
	say_bytes(say, "null", 4);
}

void say_text(struct say *say, const char *key, const char *text)
{
	char escaped[4 * 4096 + 1];

	if (!text) {
		say_null(say, key);
		return;
	}
	escape_text(escaped, sizeof(escaped), text, ESCAPE_KEEP_CONTROLS);
	say_begin(say, key);
	say_quoted(say, escaped);
}

void say_errno(struct say *say, const char *key, int error)
{
	const char *name = errno_name(error);

	say_text(say, key, !error ? NULL : name ? name : "EIO");
}

void say_address(struct say *say, const char *key, uint64_t address)
{
	char digits[24];

	snprintf(digits, sizeof(digits), "0x%llx", (unsigned long long)address);
	say_text(say, key, digits);
}

void say_line_end(struct say *say)
{
	say_sign(say, '\n');
}
