/* SPDX-License-Identifier: MIT */
/* See loss.h. */
#include "loss.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/mman.h>

#include "kernel/abi.h"
#include "kernel/kernel.h"
#include "region/region.h"
#include "support.h"
#include "witness.h"

const char *loss_name(enum loss_kind kind)
{
	static const char *const names[] = {"zap", "punch", "swap"};
	return names[kind];
}

static enum uffdwp_memory memory_of(const struct place *place)
{
	return (enum uffdwp_memory)place->region->memory;
}

int loss_possible(const struct place *place, enum loss_kind kind)
{
	switch (kind) {
	case LOSS_KIND_PUNCH:
		return memory_of(place) != UFFDWP_MEMORY_ANON;
	case LOSS_KIND_SWAP:
		return memory_of(place) != UFFDWP_MEMORY_HUGETLB && support_has_swap();
	default:
		return place_takes_dontneed(memory_of(place));
	}
}

void loss_empty(const struct place *place, enum loss_kind kind, size_t page, size_t pages)
{
	uint8_t *start = place->base + page * place->page_bytes;
	size_t length = pages * place->page_bytes;
	if (kind == LOSS_KIND_PUNCH) {
		off_t offset = (off_t)(place->region->fd_offset + page * place->page_bytes);
		int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
		must(fallocate(place_fd(place), mode, offset, (off_t)length) == 0);
	} else {
		must(madvise(start, length, kind == LOSS_KIND_ZAP ? MADV_DONTNEED : MADV_PAGEOUT) == 0);
	}
}

/* The kernel says -EAGAIN until the library has read the event of what was just done. */
void loss_strip(const struct place *place, size_t page, size_t pages)
{
	uint64_t start = (uint64_t)(uintptr_t)(place->base + page * place->page_bytes);
	int error = 0;
	do {
		error = kernel_real.uffd_writeprotect(place->region->uffd, start, pages * place->page_bytes, 0);
	} while (error == -EAGAIN && sched_yield() == 0);
	must(error == 0);
}

/* A marker looks like a swap entry in the pagemap: in shared memory it is none, and what anonymous memory has in the
 * swap is not lost. */
size_t loss_make(const struct place *place, enum loss_kind kind, size_t page, size_t pages)
{
	int keeps = kind == LOSS_KIND_SWAP && memory_of(place) == UFFDWP_MEMORY_ANON;
	int strips = place->mechanism == UFFDWP_MECHANISM_REARM && !keeps;
	uint8_t *views = calloc(pages, 1);
	must(views != NULL);
	loss_empty(place, kind, page, pages);
	witness_entries(place->base + page * place->page_bytes, pages * place->page_bytes, place->page_bytes, views);
	size_t empty = 0;
	for (size_t i = 0; i < pages; i++) {
		empty += (views[i] & WITNESS_PRESENT) == 0;
		if (strips && (views[i] & (WITNESS_PRESENT | WITNESS_WP)) == WITNESS_WP) {
			loss_strip(place, page + i, 1);
		}
	}
	free(views);
	return empty;
}
