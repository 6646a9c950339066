/* SPDX-License-Identifier: MIT */
/* What all sinks do with a chunk: leave out what is zero. */
#include "image/zeros.h"
#include "snapshot/sink.h"

int chunk_next_run(const struct chunk *chunk, size_t from, struct chunk_run *run)
{
	return zeros_next_run(chunk->buffer, chunk->length, from, &run->offset, &run->length);
}

void chunk_done(struct chunk *chunk)
{
	chunk->busy = 0;
}
