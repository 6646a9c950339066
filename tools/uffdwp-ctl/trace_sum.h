/* SPDX-License-Identifier: MIT */
/* The sum of a trace: how many writes of which thread, and to which block of 64 pages. A table has a bound; what comes
 * when it is full is counted together. */
#ifndef UFFDWP_CTL_TRACE_SUM_H
#define UFFDWP_CTL_TRACE_SUM_H

#include <stddef.h>
#include <stdint.h>

#define TRACE_BLOCK_PAGES 64
#define TRACE_TOP 10

struct trace_count {
	uint64_t a; /* tid; or the region */
	uint64_t b; /* 0; or the block's number */
	uint64_t count;
};

struct trace_table {
	struct trace_count *slots; /* open addressing; a count of 0: free */
	size_t room;               /* a power of two; 0: no memory */
	size_t used;
	uint64_t others;
};

void trace_table_init(struct trace_table *table);
void trace_table_fini(struct trace_table *table);
void trace_table_count(struct trace_table *table, uint64_t a, uint64_t b);
/* The most frequent ones first, at most `most`; returns how many. Afterwards nothing can be counted any more. */
size_t trace_table_top(struct trace_table *table, size_t most);

#endif
