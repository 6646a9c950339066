/* SPDX-License-Identifier: MIT */
/* See object.h. */
#include "object.h"

#include <stdio.h>
#include <stdlib.h>

#include "pauses.h"

static bool measure_stalls;

uint64_t chance_next(uint64_t *state)
{
	uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

uint64_t chance_below(uint64_t *state, uint64_t bound)
{
	return chance_next(state) % bound;
}

static uint64_t object_sum(uint64_t id)
{
	return chance_next(&id);
}

void *object_new(size_t bytes, uint64_t id)
{
	uint64_t began = measure_stalls ? pauses_now_ns() : 0;
	struct object *object = GC_MALLOC(bytes);
	if (measure_stalls)
		pauses_stall(pauses_now_ns() - began);
	if (!object) {
		fprintf(stderr, "the collector has no more memory: a smaller --size\n");
		exit(PROGRAM_REFUSED);
	}
	object->id = id;
	object->sum = object_sum(id);
	return object;
}

bool object_is(const void *object, uint64_t id)
{
	const struct object *known = object;
	return known && known->id == id && known->sum == object_sum(id);
}

void object_measure_stalls(void)
{
	measure_stalls = true;
}
