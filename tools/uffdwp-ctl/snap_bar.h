/* SPDX-License-Identifier: MIT */
/* A line on the terminal that shows how far a snapshot is; nothing where stderr is no terminal. */
#ifndef UFFDWP_CTL_SNAP_BAR_H
#define UFFDWP_CTL_SNAP_BAR_H

#include <stdint.h>

struct snap_bar {
	int shown;
	int on;
};

void snap_bar_begin(struct snap_bar *bar);
void snap_bar_at(struct snap_bar *bar, uint64_t part, uint64_t whole, uint64_t bytes, uint64_t elapsed_ns);
void snap_bar_end(struct snap_bar *bar);

#endif
