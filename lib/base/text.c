/* SPDX-License-Identifier: MIT */
/* See text.h. */
#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/escape.h"

void text_init(struct text *text)
{
	lock_init(&text->lock);
	text->is_apart = 0;
	text->line[0] = '\0';
}

void text_init_apart(struct text *text)
{
	text_init(text);
	text->is_apart = 1;
}

void text_fini(struct text *text)
{
	lock_fini(&text->lock);
}

/* The last text of this thread. */
static _Thread_local char text_of_thread[TEXT_BYTES];

static void text_put(struct text *text, const char line[TEXT_BYTES])
{
	if (!text || !text->is_apart)
		memcpy(text_of_thread, line, TEXT_BYTES);
	if (!text)
		return;
	lock_take(&text->lock);
	memcpy(text->line, line, TEXT_BYTES);
	lock_give(&text->lock);
}

int text_fail(struct text *text, int error, const char *format, ...)
{
	char line[TEXT_BYTES] = "";
	int saved = errno;
	va_list arguments;

	va_start(arguments, format);
	char raw[sizeof(line)];

	vsnprintf(raw, sizeof(raw), format, arguments);
	escape_text(line, sizeof(line), raw, 0);
	va_end(arguments);
	text_put(text, line);
	errno = saved;
	return error;
}

static size_t text_copy_line(const char *line, char *buffer, size_t size)
{
	size_t length = strlen(line);

	if (buffer && size > 0) {
		size_t part = length < size - 1 ? length : size - 1;

		memcpy(buffer, line, part);
		buffer[part] = '\0';
	}
	return length;
}

int text_adopt(struct text *text, int error)
{
	char line[TEXT_BYTES];

	text_copy(text, line, sizeof(line));
	memcpy(text_of_thread, line, strlen(line) + 1);
	return error;
}

void text_forget(void)
{
	text_of_thread[0] = '\0';
}

size_t text_copy(struct text *text, char *buffer, size_t size)
{
	if (!text)
		return text_copy_line(text_of_thread, buffer, size);
	lock_take(&text->lock);
	size_t length = text_copy_line(text->line, buffer, size);

	lock_give(&text->lock);
	return length;
}
