/* SPDX-License-Identifier: MIT */
/* Names for what a trace shows: of threads by /proc/PID/task/TID/comm, of addresses by /proc/PID/maps. Both are read
 * when a number is met that is not known; the mappings once a second at most, since they may be many. */
#ifndef UFFDWP_CTL_TRACE_NAMES_H
#define UFFDWP_CTL_TRACE_NAMES_H

#include <stddef.h>
#include <stdint.h>

#define TRACE_THREADS 4096

struct trace_thread {
	uint64_t tid; /* 0: the slot is free */
	char name[64];
};

struct trace_mapping {
	uint64_t start;
	uint64_t end;
	char *name;
};

struct trace_names {
	int64_t pid;
	struct trace_thread threads[TRACE_THREADS];
	struct trace_mapping *mappings; /* by address */
	size_t count;
	size_t room;
	int64_t read_ms; /* when the mappings were read; 0: never */
};

void trace_names_init(struct trace_names *names, int64_t pid);
void trace_names_fini(struct trace_names *names);

/* Without control characters; "?" where it is not known. */
const char *trace_names_thread(struct trace_names *names, uint64_t tid);
const char *trace_names_mapping(struct trace_names *names, uint64_t address);

#endif
