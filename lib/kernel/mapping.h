/* SPDX-License-Identifier: MIT */
/* One mapping of a process, by its open /proc/PID/maps and mem. Part of the fault path: no memory but the stack's. */
#ifndef UFFDWP_KERNEL_MAPPING_H
#define UFFDWP_KERNEL_MAPPING_H

#include <stdint.h>

#include "kernel/kernel.h"

struct mapping {
	uint64_t start;
	uint64_t end;
	uint64_t inode; /* 0: anonymous */
	int writable;
	int is_private;
};

/* The first mapping that ends beyond an address. 1: *out; 0: there is none; or -errno. (signal) */
int mapping_at(const struct kernel_ops *k, int maps, uint64_t address, struct mapping *out);

/* Writes a byte of a process with its own value by its open /proc/PID/mem: of a private mapping, also a read-only one,
 * it has a page of its own there then. 0 or -errno. (signal) */
int mapping_rewrite(const struct kernel_ops *k, int mem, uint64_t address);

#endif
