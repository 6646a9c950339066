/* SPDX-License-Identifier: MIT */
/* See escape.h. */
#include "base/escape.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* The length of the UTF-8 character there (RFC 3629: no overlong form, no surrogate, nothing above U+10FFFF), and the
 * character; 0: it is none. */
static size_t escape_decode(const unsigned char *at, uint32_t *character)
{
	static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
	size_t length = at[0] < 0x80 ? 1 : at[0] >> 5 == 6 ? 2 : at[0] >> 4 == 14 ? 3 : at[0] >> 3 == 30 ? 4 : 0;

	if (length == 0)
		return 0;
	*character = length == 1 ? at[0] : at[0] & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if (at[i] >> 6 != 2) /* the terminating zero, too */
			return 0;
		*character = *character << 6 | (at[i] & 0x3f);
	}
	return *character < least[length] || (*character >= 0xd800 && *character < 0xe000) || *character > 0x10ffff
	               ? 0
	               : length;
}

static int escape_is_plain(uint32_t character, int flags)
{
	if (character < 0x20 || (character >= 0x7f && character < 0xa0))
		return (flags & ESCAPE_KEEP_CONTROLS) != 0;
	/* line and paragraph separators; characters of direction */
	return !(character == 0x2028 || character == 0x2029 || character == 0x200e || character == 0x200f ||
	         (character >= 0x202a && character <= 0x202e) || (character >= 0x2066 && character <= 0x2069));
}

struct escape_out {
	char *to;
	size_t size;
	size_t length; /* of the whole result */
	int full;
};

static void escape_put(struct escape_out *out, const char *bytes, size_t length)
{
	if (!out->full && out->length + length < out->size)
		memcpy(out->to + out->length, bytes, length);
	else if (!out->full && out->size) {
		out->full = 1;
		out->to[out->length] = '\0';
	}
	out->length += length;
}

static const char digits[] = "0123456789abcdef";

size_t escape_text(char *to, size_t size, const char *in, int flags)
{
	struct escape_out out = {.to = to, .size = size, .full = size == 0};

	for (const char *at = in; *at;) {
		uint32_t character = 0;
		size_t length = escape_decode((const unsigned char *)at, &character);
		int plain = length && escape_is_plain(character, flags);

		length = length ? length : 1;
		if (plain)
			escape_put(&out, at, length);
		for (size_t i = 0; i < length && !plain; i++) {
			unsigned char byte = (unsigned char)at[i];
			const char escaped[4] = {'\\', 'x', digits[byte >> 4], digits[byte & 15]};

			escape_put(&out, escaped, sizeof(escaped));
		}
		at += length;
	}
	if (!out.full)
		to[out.length] = '\0';
	return out.length;
}

static size_t escape_unit(char out[6], uint32_t unit)
{
	const char escaped[6] = {
	        '\\', 'u', digits[unit >> 12 & 15], digits[unit >> 8 & 15], digits[unit >> 4 & 15], digits[unit & 15]};

	memcpy(out, escaped, sizeof(escaped));
	return sizeof(escaped);
}

/* One character, or a pair of surrogates. */
static size_t escape_units(char out[12], uint32_t character)
{
	if (character < 0x10000)
		return escape_unit(out, character);
	character -= 0x10000;
	return escape_unit(out, 0xd800 + (character >> 10)) + escape_unit(out + 6, 0xdc00 + (character & 0x3ff));
}

/* The next character of `in` as ASCII, into out[12]: how many bytes that takes, and *taken of `in`. */
static size_t escape_json_next(char out[12], const char *in, size_t left, int is_escaped, size_t *taken)
{
	unsigned char next[5] = {0};
	uint32_t character = 0;

	memcpy(next, in, left < 4 ? left : 4);
	*taken = next[0] ? escape_decode(next, &character) : 1;
	if (*taken > 1 && !is_escaped)
		return escape_units(out, character);
	if (*taken) {
		memcpy(out, next, *taken);
		return *taken;
	}
	const char escaped[5] = {'\\', '\\', 'x', digits[next[0] >> 4], digits[next[0] & 15]};

	memcpy(out, escaped, sizeof(escaped));
	return sizeof(escaped);
}

char *escape_json(const char *in, size_t length, size_t *out_length, int *is_utf8)
{
	/* The most for a byte: \\xNN; a character of two bytes is at most \uNNNN, one of four two of them. */
	char *out = length <= (SIZE_MAX - 1) / 5 ? malloc(length * 5 + 1) : NULL;
	int is_escaped = 0;

	*is_utf8 = 1;
	*out_length = 0;
	for (size_t at = 0, taken; out && at < length; at += taken) {
		char next[12];
		size_t count = escape_json_next(next, in + at, length - at, is_escaped, &taken);

		if (!taken) {
			*is_utf8 = 0;
			taken = 1;
		}
		is_escaped = !is_escaped && in[at] == '\\';
		memcpy(out + *out_length, next, count);
		*out_length += count;
	}
	if (out)
		out[*out_length] = '\0';
	return out;
}
