/* SPDX-License-Identifier: MIT */
/*
 * The log of losses: which armed pages were found without their protection, by cause, since the program last asked. A
 * bit for each page and cause, in memory that is touched only where something was lost.
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
	_Atomic uint32_t news;                      /* not reported yet */
};

/* -ENOMEM. */
int losses_open(struct losses *losses, const struct kernel_ops *k, uint64_t pages);
void losses_close(struct losses *losses, const struct kernel_ops *k);

/* Counts and lists a page; a handler is woken to report it. (signal) */
void loss_add(struct uffdwp_region *region, enum uffdwp_loss cause, uint64_t page);

/* The same for a thread that will call losses_report() itself: no thread is woken. */
void loss_note(struct uffdwp_region *region, enum uffdwp_loss cause, uint64_t page);

/* Takes up to `capacity` ranges off the list: how many. */
size_t losses_take(struct losses *losses, unsigned page_shift, struct uffdwp_lost_range *ranges, size_t capacity);

/* How many pages were lost since the region was opened, and of which cause. */
uint64_t losses_count(const struct losses *losses, uint64_t by_cause[UFFDWP_LOSS_COUNT]);

/* 1: losses_report() would call the caller's function. */
int losses_have_news(const struct uffdwp_region *region);

/* Calls the caller's function, if there is news and a function. Outside of the epoch and of any lock. */
void losses_report(struct uffdwp_region *region);

#endif
