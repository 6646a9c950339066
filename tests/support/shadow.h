/* SPDX-License-Identifier: MIT */
/*
 * A copy of a region that its writers keep up to date: writers hold a lock for reading while they write to both, each
 * to stripes of its own; a thread that takes a cut, or discards pages, holds it for writing, and finds the two alike. A
 * copy of the shadow at a cut is what an image, a view or a child must show.
 */
#ifndef SUPPORT_SHADOW_H
#define SUPPORT_SHADOW_H

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "chance.h"
#include "place.h"

#define SHADOW_WRITERS 2
#define SHADOW_STRIPE 64

struct shadow {
	const struct place *place;
	uint8_t *bytes;
	pthread_rwlock_t lock;
	_Atomic int stop;
};

struct shadow_writer {
	struct shadow *shadow;
	size_t index;
	struct chance chance;
};

/* Punches up to `most` pages out of the region and out of its shadow. */
void shadow_punch(const struct place *place, uint8_t *bytes, pthread_rwlock_t *lock, struct chance *chance,
                  size_t most);

/* A thread of a struct shadow_writer: writes, now and then punches, until `stop`; sometimes it sleeps, so that not all
 * pages are written before a cut was looked at. */
void *shadow_write_for_ever(void *writer);

#endif
