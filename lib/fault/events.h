/* SPDX-License-Identifier: MIT */
/* The kernel's events of a uffd, other than faults: what happened to the mapping. Called by the handler thread. */
#ifndef UFFDWP_FAULT_EVENTS_H
#define UFFDWP_FAULT_EVENTS_H

#include "region/region.h"

struct mapper;
struct uffd_msg;

/* Acts on a remove, remap or unmap event; others are ignored. */
void events_take(struct uffdwp_region *region, const struct uffd_msg *message);

/* The same of a process that maps an adopted region. */
void events_take_of(struct mapper *mapper, const struct uffd_msg *message);

/* All discards among what was read together from a mapper of private memory. They come before the faults of that batch:
 * a fault on a page that was discarded must not find what was there before. */
void events_take_discards_of(struct mapper *mapper, const struct uffd_msg *messages, size_t count);

/* A mapper has ended: it writes no more. Without another one the region is dead. */
void events_lose_mapper(struct mapper *mapper);

/* The mapping is gone (or its handler): a running snapshot fails with `error`; the region stays, to be closed. */
void events_die(struct uffdwp_region *region, enum region_death death, int error, uint64_t page);

/* The same, and writes may go unseen from now on: views of the region fail, too. */
void events_lose_sight(struct uffdwp_region *region, enum region_death death, int error);

#endif
