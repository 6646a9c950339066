/* SPDX-License-Identifier: MIT */
/* See text.h. */
#include "base/text.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void text_init(struct text *text)
{
	pthread_mutex_init(&text->lock, NULL);
	text->line[0] = '\0';
}

void text_fini(struct text *text)
{
	pthread_mutex_destroy(&text->lock);
}

int text_fail(struct text *text, int error, const char *format, ...)
{
	int saved = errno;
	va_list arguments;

	va_start(arguments, format);
	pthread_mutex_lock(&text->lock);
	vsnprintf(text->line, sizeof(text->line), format, arguments);
	pthread_mutex_unlock(&text->lock);
	va_end(arguments);
	errno = saved;
	return error;
}

size_t text_copy(struct text *text, char *buffer, size_t size)
{
	pthread_mutex_lock(&text->lock);
	size_t length = strlen(text->line);

	if (size > 0) {
		size_t part = length < size - 1 ? length : size - 1;

		memcpy(buffer, text->line, part);
		buffer[part] = '\0';
	}
	pthread_mutex_unlock(&text->lock);
	return length;
}
