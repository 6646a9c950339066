/* SPDX-License-Identifier: MIT */
/* See chance.h. The generator is splitmix64 (G. Steele et al., "Fast Splittable Pseudorandom Number Generators"). */
#include "chance.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

uint64_t chance_seed(void)
{
	static uint64_t seed;
	if (seed == 0) {
		const char *text = getenv("UFFDWP_SEED");
		seed = text != NULL ? strtoull(text, NULL, 0) : (uint64_t)time(NULL);
		seed += seed == 0;
	}
	return seed;
}

struct chance chance_new(uint64_t salt)
{
	struct chance chance = {chance_seed() ^ (salt * 0xd1342543de82ef95u)};
	(void)chance_next(&chance);
	return chance;
}

uint64_t chance_next(struct chance *chance)
{
	uint64_t z = (chance->state += 0x9e3779b97f4a7c15u);
	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return z ^ (z >> 31);
}

size_t chance_below(struct chance *chance, size_t limit)
{
	return (size_t)(chance_next(chance) % limit);
}

void chance_fill(struct chance *chance, void *buffer, size_t length)
{
	uint8_t *bytes = buffer;
	while (length > 0) {
		uint64_t value = chance_next(chance);
		size_t step = length < sizeof(value) ? length : sizeof(value);
		memcpy(bytes, &value, step);
		bytes += step;
		length -= step;
	}
}
