/* SPDX-License-Identifier: MIT */
#include "squeeze.h"

#include <stdlib.h>

#include "image/pack.h"

#define LEVEL 3

size_t squeeze(void *to, size_t room, const void *from, size_t length)
{
	size_t bytes = pack_bytes(LEVEL, length);
	void *memory = pack_built() ? malloc(bytes) : NULL;
	void *state = memory ? pack_init(memory, bytes) : NULL;
	size_t got = state ? pack_run(state, LEVEL, from, length, to, room) : 0;

	free(memory);
	return got;
}

int unsqueeze(void *to, size_t length, const void *from, size_t squeezed)
{
	size_t bytes = pack_back_bytes();
	void *memory = pack_built() ? malloc(bytes) : NULL;
	void *state = memory ? pack_back_init(memory, bytes) : NULL;
	int got = state && pack_back_run(state, from, squeezed, to, length) == 0;

	free(memory);
	return got;
}
