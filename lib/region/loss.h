/* SPDX-License-Identifier: MIT */
/*
 * The book of losses: which armed pages were found without their protection, by cause, since somebody last asked. A bit
 * for each page and cause, in memory that is touched only where something was lost.
 *
 * Threads: loss_add() anywhere, also in a signal handler; losses_take() from any thread, one at a time.
 */
#ifndef UFFDWP_REGION_LOSS_H
#define UFFDWP_REGION_LOSS_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#include "kernel/kernel.h"
#include "uffdwp.h"

struct uffdwp_region;

struct losses {
	_Atomic uint64_t *bits[UFFDWP_LOSS_COUNT];
	uint64_t words; /* of each */
	_Atomic uint64_t count[UFFDWP_LOSS_COUNT];
	_Atomic uint32_t listed[UFFDWP_LOSS_COUNT]; /* some bit of this cause may be set */
	_Atomic uint32_t news;                      /* nobody was told yet */
};

/* -ENOMEM. */
int losses_open(struct losses *losses, const struct kernel_ops *k, uint64_t pages);
void losses_close(struct losses *losses, const struct kernel_ops *k);

/* Counts and lists a page; a handler is woken to tell of it. (signal) */
void loss_add(struct uffdwp_region *region, enum uffdwp_loss cause, uint64_t page);

/* The same for a thread that will call losses_tell() itself: nobody is woken. */
void loss_note(struct uffdwp_region *region, enum uffdwp_loss cause, uint64_t page);

/* Takes up to `capacity` ranges off the list: how many. */
size_t losses_take(struct losses *losses, unsigned page_shift, struct uffdwp_lost_range *ranges, size_t capacity);

/* Tells the caller's function, if there is news and a function. Outside of the epoch and of any lock. */
void losses_tell(struct uffdwp_region *region);

#endif
