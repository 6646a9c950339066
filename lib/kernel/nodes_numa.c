/* SPDX-License-Identifier: MIT */
/* nodes.h by libnuma. */
#include <errno.h>
#include <numa.h>

#include "kernel/nodes.h"

int nodes_built(void)
{
	return 1;
}

int nodes_last(void)
{
	return numa_available() < 0 ? -ENOSYS : numa_max_node();
}

int nodes_add_cpus(int node, cpu_set_t *cpus)
{
	struct bitmask *mask = numa_allocate_cpumask();
	int error = !mask || numa_node_to_cpus(node, mask) ? -EINVAL : 0;

	for (size_t cpu = 0; !error && cpu < CPU_SETSIZE && cpu < mask->size; cpu++) {
		if (numa_bitmask_isbitset(mask, (unsigned)cpu))
			CPU_SET(cpu, cpus);
	}
	numa_free_cpumask(mask);
	return error;
}

void nodes_prefer(int node)
{
	if (node >= 0 && numa_available() >= 0)
		numa_set_preferred(node);
}
