/* SPDX-License-Identifier: MIT */
/*
 * Which region does an address lie in? One sorted table for the process, because signals are the process's: the inline
 * delivery asks it for each fault. Readers look at it inside the epoch, without a lock; a change writes the spare
 * table, publishes it, and waits until nobody looks at the old one.
 *
 * Threads: registry_find() anywhere inside the epoch, also in a signal handler. Changes from any thread but one that is
 * inside; they are ordered by a lock that no reader takes.
 */
#ifndef UFFDWP_REGION_REGISTRY_H
#define UFFDWP_REGION_REGISTRY_H

#include <stdint.h>

#include "base/epoch.h"
#include "region/region.h"

#define REGISTRY_MAX 4096

/*
 * The fault path's epoch: every fault, on whatever thread, is inside while it looks at a phase and acts on it; nobody
 * waits while inside. Ready before the first region: registry_init().
 */
extern struct epoch fault_epoch;

/* Before the first region of a process, and in a child of fork() before its first; more calls do nothing. */
void registry_init(void);

/* Waits until everybody who is inside now has left; orders those who wait. Not from inside. */
void fault_epoch_wait(void);

/* -EBUSY: overlaps a region that is there; -ENFILE: REGISTRY_MAX are. */
int registry_add(struct uffdwp_region *region, uintptr_t start, uint64_t length);

/* Forgets a region; after the return no reader holds it by way of the table. */
void registry_remove(struct uffdwp_region *region);

/* A region moved: region->base becomes `start`, and the table says so, before any reader sees one without the other. */
void registry_move(struct uffdwp_region *region, uintptr_t start);

/* When a region was last forgotten or moved: a writer that faulted before may look for it after. (signal) */
uint64_t registry_changed_ns(void);

/* NULL: none. Only inside the epoch. (signal) */
struct uffdwp_region *registry_find(uintptr_t address);

#endif
