/* SPDX-License-Identifier: MIT */
/* See mapping.h. A line is "start-end perms offset device inode path"; the kernel begins a read where a line does. */
#include "kernel/mapping.h"

#include <errno.h>
#include <string.h>

/* Most of a line: longer paths than this are no reason to fail, only lines whose fields are not all in it. */
#define MAPPING_BYTES 1024

static const char *mapping_number(const char *at, unsigned base, uint64_t *number)
{
	static const char digits[] = "0123456789abcdef";
	const char *digit;

	for (*number = 0; *at && (digit = strchr(digits, *at)) && digit < digits + base; at++)
		*number = *number * base + (uint64_t)(digit - digits);
	return at;
}

static const char *mapping_next_field(const char *at)
{
	while (*at && *at != ' ')
		at++;
	while (*at == ' ')
		at++;
	return at;
}

static void mapping_parse(const char *line, struct mapping *out)
{
	const char *at = mapping_number(line, 16, &out->start);

	at = mapping_number(*at ? at + 1 : at, 16, &out->end);
	at = mapping_next_field(at);
	out->writable = at[0] && at[1] == 'w';
	out->is_private = at[0] && at[1] && at[2] && at[3] == 'p';
	at = mapping_next_field(mapping_next_field(mapping_next_field(at)));
	mapping_number(at, 10, &out->inode);
}

int mapping_at(const struct kernel_ops *k, int maps, uint64_t address, struct mapping *out)
{
	char text[MAPPING_BYTES + 1];
	size_t kept = 0; /* bytes of a line that has begun */
	uint64_t offset = 0;
	int skips = 0; /* the rest of a line that was too long */

	for (;;) {
		ssize_t got = k->pread(maps, text + kept, MAPPING_BYTES - kept, offset);

		if (got <= 0)
			return (int)got;
		offset += (uint64_t)got;
		kept += (size_t)got;
		text[kept] = '\0';
		char *line = text;

		for (char *end; (end = strchr(line, '\n')) || (line == text && kept == MAPPING_BYTES); line = end + 1) {
			int is_whole = end != NULL;

			if (!is_whole)
				end = text + kept - 1;
			if (!skips)
				mapping_parse(line, out);
			if (!skips && address < out->end)
				return 1;
			skips = !is_whole;
		}
		kept -= (size_t)(line - text);
		memmove(text, line, kept);
	}
}

int mapping_rewrite(const struct kernel_ops *k, int mem, uint64_t address)
{
	unsigned char byte;
	ssize_t done = k->pread(mem, &byte, 1, address);

	if (done == 1)
		done = k->pwrite(mem, &byte, 1, address);
	return done == 1 ? 0 : done < 0 ? (int)done : -EIO;
}
