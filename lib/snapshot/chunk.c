/* SPDX-License-Identifier: MIT */
/* What all sinks do with a chunk: leave out what is zero. */
#include <string.h>

#include "snapshot/sink.h"

/* Blocks of this size are looked at; a gap is left out when it has CHUNK_GAP_BLOCKS of them, else it is written along.
 */
#define CHUNK_BLOCK 4096
#define CHUNK_GAP_BLOCKS 4

static int block_is_zero(const unsigned char *block)
{
	/* First byte zero, and every byte equal to its neighbour; libc's memcmp is as fast as memory. */
	return block[0] == 0 && memcmp(block, block + 1, CHUNK_BLOCK - 1) == 0;
}

static size_t skip_zero(const struct chunk *chunk, size_t at)
{
	while (at < chunk->length && block_is_zero(chunk->buffer + at))
		at += CHUNK_BLOCK;
	return at;
}

int chunk_next_run(const struct chunk *chunk, size_t from, struct chunk_run *run)
{
	size_t start = skip_zero(chunk, from);
	size_t end = start;

	if (start >= chunk->length)
		return 0;
	for (size_t at = start; at < chunk->length && at - end < (size_t)CHUNK_GAP_BLOCKS * CHUNK_BLOCK;
	     at += CHUNK_BLOCK) {
		if (!block_is_zero(chunk->buffer + at))
			end = at + CHUNK_BLOCK;
	}
	run->offset = start;
	run->length = end - start;
	return 1;
}

void chunk_done(struct chunk *chunk)
{
	chunk->busy = 0;
}
