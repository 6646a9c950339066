/* SPDX-License-Identifier: MIT */
/*
 * NUMA nodes of this machine: by libnuma (nodes_numa.c), or none, in a library that was built without it
 * (nodes_none.c).
 *
 * Threads: any.
 */
#ifndef UFFDWP_KERNEL_NODES_H
#define UFFDWP_KERNEL_NODES_H

#include <sched.h>

/* What is said of -EOPNOTSUPP. */
#define NODES_NOT_BUILT "this library was built without libnuma (UFFDWP_NUMA)"

/* 1, or 0: the library was built without libnuma. */
int nodes_built(void);

/* The highest node. -ENOSYS: this kernel has no NUMA placement; -EOPNOTSUPP: the library was built without libnuma. */
int nodes_last(void);

/* Adds the CPUs of a node: 0 or -EINVAL. */
int nodes_add_cpus(int node, cpu_set_t *cpus);

/* Memory that the calling thread touches first comes from this node, if there is some: best effort. -1: any node. */
void nodes_prefer(int node);

#endif
