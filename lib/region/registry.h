/* SPDX-License-Identifier: MIT */
/*
 * Which region does an address lie in? One sorted table for the process, because signals are the process's: the inline
 * delivery asks it for each fault. Readers look at it inside the epoch, without a lock; a change writes the spare
 * table, publishes it, and waits until no thread looks at the old one.
 *
 * Threads: registry_find() anywhere inside the epoch, also in a signal handler. Changes from any thread but one that is
 * inside; they are ordered by a lock that no reader takes.
 */
#ifndef UFFDWP_REGION_REGISTRY_H
#define UFFDWP_REGION_REGISTRY_H

#include <stddef.h>
#include <stdint.h>

#include "base/epoch.h"
#include "region/region.h"

#define REGISTRY_MAX 4096

/*
 * The fault path's epoch: every fault, on whatever thread, is inside while it looks at a phase and acts on it; no
 * thread waits while inside. Ready before the first region: registry_init().
 */
extern struct epoch fault_epoch;

/* Before the epoch is entered or waited for, after process_begin(): in a child of fork(), which has a copy of its
 * parent's, the first call makes it the child's own. 0: process_begin() was never called, so there is no region.
 * (signal)
 */
int registry_init(void);

/* From now on a child of fork() closes the uffds that it got from its parent. Before the first region, with signals as
 * the caller has them: the C library may allocate. -ENOMEM. */
int registry_watch_forks(void);

/* Waits until all threads that are inside now have left; orders those that wait. Not from inside. */
void fault_epoch_wait(void);

/* -EBUSY: overlaps a region that is there; -ENFILE: REGISTRY_MAX are. */
int registry_add(struct uffdwp_region *region, uintptr_t start, uint64_t length);

/* Forgets a region; after the return no reader has it through the table. */
void registry_remove(struct uffdwp_region *region);

/* A region moved: region->base becomes `start`, and the table says so, before any reader sees one without the other. */
void registry_move(struct uffdwp_region *region, uintptr_t start);

/* Ranges that regions had, the last of them: a writer may have faulted there before the region went, and looks for it
 * after. How long after is not known: it may have been stopped meanwhile, or the machine may be busy. */
#define REGISTRY_GONE 1024

/* The same of a range that the memory of a region was moved to, and that is not watched any more. */
void registry_note_gone(uintptr_t start, uintptr_t end);

/* How many accesses to one such range are tried again; a writer of the region's needs one try. Where other memory lies
 * there now a fault that is not ours comes again, and is passed on after so many. */
#define REGISTRY_GONE_TRIES 4096

/* 1: no region is at the address any more, but one was: the access may be tried again. (signal) */
int registry_try_again(uintptr_t address);

/* The last region that begins at or below the address, and may end before it. NULL: none. Only inside the epoch.
 * (signal) */
struct uffdwp_region *registry_find_below(uintptr_t address);

/* NULL: none. Only inside the epoch. (signal) */
struct uffdwp_region *registry_find(uintptr_t address);

/* The first `most` regions of this process that `wants` says yes to; how many there are in all. While it is called none
 * can be removed. From outside of the epoch. */
size_t registry_list(int (*wants)(struct uffdwp_region *region, void *user), void *user, struct uffdwp_region **out,
                     size_t most);

/* The same from outside of the epoch. NULL: none, also before the first runtime. */
struct uffdwp_region *registry_locate(uintptr_t address);

#endif
