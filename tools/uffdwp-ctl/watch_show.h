/* SPDX-License-Identifier: MIT */
/* What uffdwp-ctl watch shows of a region, from two answers of its process: as a block of lines, or as one line. */
#ifndef UFFDWP_CTL_WATCH_SHOW_H
#define UFFDWP_CTL_WATCH_SHOW_H

#include <stdio.h>

#include "live.h"

struct watch_view {
	const struct live_peer *peer;
	const struct live_state *now;
	const struct live_state *before; /* empty: there is none */
};

/* `stat` is a region's row of view->now. */
void watch_show_block(FILE *out, const struct watch_view *view, struct json_object *stat);
void watch_show_line(FILE *out, const struct watch_view *view, struct json_object *stat);

/* The time that `per_mille` of the faults between two histograms did not exceed; 0: there was none. `before` may be
 * NULL: all of `now`. (watch_latency.c) */
uint64_t watch_percentile(struct json_object *now, struct json_object *before, unsigned per_mille);

#endif
