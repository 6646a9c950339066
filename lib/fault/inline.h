/* SPDX-License-Identifier: MIT */
/* Inline delivery: the writer resolves its own fault in a handler of SIGBUS, or of SIGSEGV for mprotect. */
#ifndef UFFDWP_FAULT_INLINE_H
#define UFFDWP_FAULT_INLINE_H

struct uffdwp_region;

/* Installs the process's handler of the signal that this region's faults raise, once; it stays. 0 or -errno. */
int inline_install(const struct uffdwp_region *region);

/* A handler thread says that it is between reading an event and having acted on it (count up, count down): an address
 * that no region has may just be moving. */
void inline_events_begin(void);
void inline_events_end(void);

#endif
