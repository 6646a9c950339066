/* SPDX-License-Identifier: MIT */
/* nodes.h in a library that was built without libnuma: a caller that asks for a node is refused. */
#include <errno.h>

#include "kernel/nodes.h"

int nodes_built(void)
{
	return 0;
}

int nodes_last(void)
{
	return -EOPNOTSUPP;
}

int nodes_add_cpus(int node, cpu_set_t *cpus)
{
	(void)node;
	(void)cpus;
	return -EINVAL;
}

void nodes_prefer(int node)
{
	(void)node;
}
