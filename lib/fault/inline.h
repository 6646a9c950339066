/* SPDX-License-Identifier: MIT */
/* Inline delivery: the writer resolves its own fault in a handler of SIGBUS, or of SIGSEGV for mprotect. */
#ifndef UFFDWP_FAULT_INLINE_H
#define UFFDWP_FAULT_INLINE_H

struct uffdwp_region;

/* Sees to it that the handler in front, of the signal that this region's faults raise, is ours. 0; 1: it was put there
 * now; or -errno (trap.h). */
int inline_install(const struct uffdwp_region *region);

/* Between these two calls of a handler thread a region may be at a new place that the registry does not know: from
 * before events are read until none of them is a move that was not acted on. (The owner of the mapping goes on as soon
 * as its event was read, and may write there.) */
void inline_moves_begin(void);
void inline_moves_end(void);

#endif
