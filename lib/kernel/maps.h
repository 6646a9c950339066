/* SPDX-License-Identifier: MIT */
/* What /proc/self/smaps says of an address range. */
#ifndef UFFDWP_KERNEL_MAPS_H
#define UFFDWP_KERNEL_MAPS_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/kernel.h"

/* One answer for a whole range: what its mappings have in common. */
struct maps_range {
	uint64_t page_bytes; /* KernelPageSize */
	uint64_t inode;      /* of a System V segment: its id, which may be 0 */
	uint64_t offset;     /* in the file, of the range's first byte */
	unsigned device_major;
	unsigned device_minor;
	int has_file; /* 0: private anonymous */
	int sysv;     /* shmat(2): a file, but none that can be opened */
	int readable;
	int writable;
	int executable;
	int shared;
	int hugetlb;
	int covered; /* the mappings cover the range without a gap */
	int uniform; /* and agree in file, sharing and page size */
};

/* Other writable shared mappings in this process of the same part of the same file. */
struct maps_aliases {
	uint32_t count;
	uint64_t start; /* of the first of them */
	uint64_t end;
};

/* Looks for aliases of [start, start + length), of which `range` was found. 0, or -errno of /proc. */
int maps_find_aliases(uint64_t start, uint64_t length, const struct maps_range *range, struct maps_aliases *out);

/* How many mappings this process has, and how many of them begin in [start, end). */
struct maps_count {
	uint64_t all;
	uint64_t inside;
};

/* 0, or -errno of /proc. */
int maps_count(uint64_t start, uint64_t end, struct maps_count *out);

/* Calls back for each part of [start, end) that is mapped writable, in order. 0 or -errno. */
int maps_each_writable(uint64_t start, uint64_t end, void (*each)(void *user, uint64_t from, uint64_t to), void *user);

/* Looks at [start, start + length). 0, or -errno of /proc. Reads a procfs text: not for the fault path. */
int maps_look(uint64_t start, uint64_t length, struct maps_range *out);

#endif
