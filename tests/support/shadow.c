/* SPDX-License-Identifier: MIT */
/* See shadow.h. */
#include "shadow.h"

#include <string.h>

#include "support.h"

#define PUNCH_MOST 9

void shadow_punch(const struct place *place, uint8_t *bytes, pthread_rwlock_t *lock, struct chance *chance, size_t most)
{
	size_t page = chance_below(chance, place->pages);
	size_t pages = 1 + chance_below(chance, place->pages - page < most ? place->pages - page : most);
	must(pthread_rwlock_wrlock(lock) == 0);
	must(uffdwp_region_punch(place->region, page * place->page_bytes, pages * place->page_bytes) == 0);
	memset(bytes + page * place->page_bytes, 0, pages * place->page_bytes);
	must(pthread_rwlock_unlock(lock) == 0);
}

static void shadow_write_stripe(struct shadow_writer *writer)
{
	struct shadow *shadow = writer->shadow;
	size_t rows = shadow->place->length_bytes / (SHADOW_STRIPE * SHADOW_WRITERS);
	size_t offset = (chance_below(&writer->chance, rows) * SHADOW_WRITERS + writer->index) * SHADOW_STRIPE;
	must(pthread_rwlock_rdlock(&shadow->lock) == 0);
	chance_fill(&writer->chance, shadow->bytes + offset, SHADOW_STRIPE);
	memcpy(shadow->place->base + offset, shadow->bytes + offset, SHADOW_STRIPE);
	must(pthread_rwlock_unlock(&shadow->lock) == 0);
}

void *shadow_write_for_ever(void *argument)
{
	struct shadow_writer *writer = argument;
	struct shadow *shadow = writer->shadow;
	while (!atomic_load(&shadow->stop)) {
		if (chance_below(&writer->chance, 300) == 0) {
			shadow_punch(shadow->place, shadow->bytes, &shadow->lock, &writer->chance, PUNCH_MOST);
		} else {
			shadow_write_stripe(writer);
		}
		if (chance_below(&writer->chance, 16) == 0) {
			sleep_us(100);
		}
	}
	return NULL;
}
