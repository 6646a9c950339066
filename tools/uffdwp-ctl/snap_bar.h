/* SPDX-License-Identifier: MIT */
/* A line on the terminal that shows how far a snapshot is; nothing where stderr is no terminal. */
#ifndef UFFDWP_CTL_SNAP_BAR_H
#define UFFDWP_CTL_SNAP_BAR_H

#include <stdint.h>

struct snap_bar_figures {
	uint64_t part;  /* pages that were written, */
	uint64_t whole; /* of so many */
	uint64_t written_bytes;
	uint64_t waiting_bytes; /* preserved for writers, and not written yet */
	uint64_t elapsed_ns;
};

struct snap_bar {
	int shown;
	int on;
};

void snap_bar_begin(struct snap_bar *bar);
void snap_bar_at(struct snap_bar *bar, const struct snap_bar_figures *figures);
void snap_bar_end(struct snap_bar *bar);

#endif
