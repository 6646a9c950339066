/* SPDX-License-Identifier: MIT */
/*
 * What a client may have done: snapshots, an abort, an audit, arming. Each goes through the interface that programs
 * use, so that the same is checked and refused with the same texts.
 *
 * A snapshot that a client began belongs to the library: it is freed when it has ended, and a record of it is kept for
 * a while. Its region answers the program's own begin with -EBUSY meanwhile.
 *
 * Threads: uffdwp-control; one that closes a region calls acts_leave() after it has hidden it (kernel/roster.h), so
 * that both never look after the snapshots of one region at a time.
 */
#ifndef UFFDWP_CONTROL_ACTS_H
#define UFFDWP_CONTROL_ACTS_H

#include "control/ask.h"
#include "control/control.h"
#include "control/say.h"
#include "region/region.h"

/* The snapshots that clients have begun and that run, of all regions. */
#define ACTS_SNAPSHOTS_MOST 64
/* Records of those that ended. */
#define ACTS_ENDED_MOST 16

/* Before the first request. */
void acts_begin(const struct control_calls *calls);

/* Each answers by members of the object that is open in `say`: 0, or -errno with a text in ask->text. */
int acts_snapshot(struct ask *ask, struct uffdwp_region *region, struct say *say);
int acts_abort(struct ask *ask, struct uffdwp_region *region, struct say *say);
int acts_audit(struct ask *ask, struct uffdwp_region *region, struct say *say);
int acts_arm(struct ask *ask, struct uffdwp_region *region, struct say *say);

/* The region that a snapshot of ours is of; 0: there is none of that number. */
uint64_t acts_region_of(uint64_t snapshot);

/* S of the protocol: the region's snapshot, a client's or the program's, or null; and the records of those that ended.
 */
void acts_say_snapshot(struct uffdwp_region *region, struct say *say, const char *key);
void acts_say_ended(struct say *say, const char *key);

/* Looks after those that run: how many there are. */
unsigned acts_reap(const struct kernel_ops *k);

/* The region is hidden and will be closed: a snapshot of ours is aborted and freed. */
void acts_leave(struct uffdwp_region *region);

/* In a child of fork(): they are its parent's. */
void acts_forget(void);

#endif
