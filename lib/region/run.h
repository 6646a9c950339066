/* SPDX-License-Identifier: MIT */
/*
 * A run of pages that is to be armed in one call, as it grows while faults are stalled: the next page joins it if it is
 * its neighbour, or if what lies between carries wp bits anyway, for a call costs as much as protecting some pages
 * again.
 */
#ifndef UFFDWP_REGION_RUN_H
#define UFFDWP_REGION_RUN_H

#include "region/ledger.h"

/* Protected pages between two parts of a run. */
#define RUN_GAP_PAGES 32

struct run {
	uint64_t first;
	uint64_t end; /* first == end: none yet */
};

/* 1: the page was joined; 0: it is too far off, the run has to be armed first. */
static inline int run_join(struct run *run, const struct ledger *ledger, uint64_t page)
{
	if (run->end == run->first)
		run->first = run->end = page;
	if (page - run->end > RUN_GAP_PAGES)
		return 0;
	for (uint64_t between = run->end; between < page; between++) {
		if (!ledger_is_protected(ledger_get(ledger, between)))
			return 0;
	}
	run->end = page + 1;
	return 1;
}

#endif
