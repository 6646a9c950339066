/* SPDX-License-Identifier: MIT */
/*
 * What follows when an empty entry is filled, or cannot be. The fault path's own: empty.c and preserve.c call it.
 *
 * Threads: the fault path's, inside the epoch. (signal)
 */
#ifndef UFFDWP_FAULT_FILL_H
#define UFFDWP_FAULT_FILL_H

#include "fault/fault.h"

/* Why the entry of an armed page is empty, if the file turns out to have the page. Asked before anything is read: that
 * brings the page back into memory. */
enum uffdwp_loss fill_cause_of(struct uffdwp_region *region, uint64_t page);

/* An armed page whose entry was empty had lost its wp bit. */
void fill_count_loss(struct uffdwp_region *region, uint64_t page, enum fill fill, enum uffdwp_loss cause);

/* A page that was armed until this fault turns out to be a hole: if it had content at the cut, that is gone, and the
 * snapshot fails. */
void fill_check_hole(struct uffdwp_region *region, uint64_t page, enum fill fill);

/* An entry was filled. */
void fill_count(struct uffdwp_region *region, uint64_t page, enum fill fill);

/* Fills the entry of a page that is being unprotected, if it is empty, and wakes no writer. enum fill, -EAGAIN, or why
 * there is no page. */
int fault_fill(struct fault *fault);

/* What follows when an entry could not be filled: the negative errno of a fill. */
enum fault_verdict fault_unfilled(struct fault *fault, int error);

/* A claim was given back, the page is ARMED as before: a writer that met it may come again. A handler resumes the
 * writer only when it has read everything: the kernel hands out faults before the event that is waited for. A page that
 * was to come along with the fault's puts nothing off. */
void fault_unclaimed(struct fault *fault, uint64_t page);

#endif
