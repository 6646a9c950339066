/* SPDX-License-Identifier: MIT */
/* Arming by a move of the region's page tables, for one region; see move.c. */
#ifndef UFFDWP_CUT_MOVE_H
#define UFFDWP_CUT_MOVE_H

#include "cut/cut.h"
#include "kernel/probe.h"

/* Whether the cut can be made so: 0; -EOPNOTSUPP, or an error of the moment, with the reason in *found. Unless it was
 * asked for `by_name` there may be reasons against it beside those that forbid it. Without a lock; makes a trial, where
 * none was made yet. */
int move_check(struct cut *cut, int by_name, struct probe_arming *found);

/* Then: finds a place to move to. -ENOMEM: there is no address space, which *found says. */
int move_open(struct cut *cut, struct probe_arming *found);

/* After it, before the pause: empty entries are ours from now on. 0 or -errno, with text. With the region's lock held.
 */
int move_prepare(struct cut *cut);

/* The cut was made, or failed: the region may be at rest again. With the region's lock held. */
void move_came(struct cut *cut);

/* In the pause: all entries of the region are empty, which the ledger does not know yet. 0; or -errno, and nothing has
 * changed. */
int move_arm(struct cut *cut);

/* What an error of the move means; NULL: no more than what any other does. */
const char *move_meaning(const struct cut *cut, int error);

/* After the cut: fills entries of some pages from `page` on, write-protected, if `fills`, and notes which of them had
 * content, if the cut has not. The next page to go on from; the cut's end, where there is nothing to do. */
uint64_t move_fill(struct cut *cut, uint64_t page, int fills);

/* Before it, of a cut that notes no content: the next page from `page` on that has content, so that not all need be
 * asked about. May take long, outside of the epoch. */
uint64_t move_skip_holes(struct cut *cut, uint64_t page);

/* The protection stays beyond the end: fills what move_fill() has not come to, in all of the region. */
void move_fill_rest(struct cut *cut);

/* When it has come to the end: 0; -ENODATA: content was discarded outside of the library before it was noted. */
int move_check_content(const struct cut *cut);

/* After a cut: gives back what was moved away, or only the place for it: all of it, or a part. */
void move_drop(struct cut *cut);
void move_drop_some(struct cut *cut);

/* Where nothing of a region is armed any more, and the mechanism leaves empty entries to the kernel: they are the
 * kernel's again. Without the region's lock. */
void move_rest(struct uffdwp_region *region);

/* After the end, or where no cut came: both. */
void move_close(struct cut *cut);

#endif
