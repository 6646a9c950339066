/* SPDX-License-Identifier: MIT */
/* See zeros.h. */
#include "image/zeros.h"

/* Blocks of this size are looked at; a gap is left out when it has ZEROS_GAP_BLOCKS of them, else it is written along.
 */
#define ZEROS_BLOCK 4096
#define ZEROS_GAP_BLOCKS 4

int zeros_next_run(const unsigned char *buffer, size_t length, size_t from, size_t *offset, size_t *run)
{
	size_t start = from;

	while (start < length && zeros_only(buffer + start, ZEROS_BLOCK))
		start += ZEROS_BLOCK;
	size_t end = start;

	if (start >= length)
		return 0;
	for (size_t at = start; at < length && at - end < (size_t)ZEROS_GAP_BLOCKS * ZEROS_BLOCK; at += ZEROS_BLOCK) {
		if (!zeros_only(buffer + at, ZEROS_BLOCK))
			end = at + ZEROS_BLOCK;
	}
	*offset = start;
	*run = end - start;
	return 1;
}
