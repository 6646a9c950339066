/* SPDX-License-Identifier: MIT */
/* See follow.h. */
#include "fault/follow.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

#include "kernel/own.h"
#include "kernel/procfs.h"

/* A thread is followed when so many more faults were its own than twice those of others; and no more when so few. */
#define FOLLOW_FROM 64
#define FOLLOW_UNTIL 16
#define FOLLOW_MOST 256
#define FOLLOW_OTHER 2

/* How often is looked where it is: a look takes some 20 us. */
#define FOLLOW_FAULTS 32
#define FOLLOW_NS 10000000ull

void follow_begin(struct follow *follow, const struct kernel_ops *k, int tag)
{
	*follow = (struct follow){.k = k, .cpu = -1, .tag = tag};
	CPU_ZERO(&follow->cpus);
	follow->may = sched_getaffinity(0, sizeof(follow->cpus), &follow->cpus) == 0 && CPU_COUNT(&follow->cpus) > 1;
}

static void follow_stay_on(struct follow *follow, const cpu_set_t *cpus, int cpu)
{
	if (sched_setaffinity(0, sizeof(*cpus), cpus) == 0) {
		follow->cpu = cpu;
		return;
	}
	follow->may = 0;
	sched_setaffinity(0, sizeof(follow->cpus), &follow->cpus); /* best effort, errors ignored */
}

static void follow_stop(struct follow *follow)
{
	if (follow->cpu >= 0)
		follow_stay_on(follow, &follow->cpus, -1);
}

/* The CPU that the thread ran on last, or -errno. */
static int follow_find(const struct follow *follow)
{
	char path[64];

	(void)snprintf(path, sizeof(path), "/proc/self/task/%u/stat", (unsigned)follow->thread);
	int fd = follow->k->open(path, O_RDONLY | O_CLOEXEC, 0);

	if (fd < 0 || own_take(follow->k, fd, follow->tag))
		return fd < 0 ? fd : -ENOMEM;
	int cpu = procfs_stat_cpu(follow->k, fd);

	own_close(follow->k, fd, follow->tag);
	return cpu;
}

static void follow_look(struct follow *follow, uint64_t now_ns)
{
	int cpu = follow_find(follow);
	cpu_set_t one;

	follow->looked_ns = now_ns;
	if (cpu < 0 || cpu >= CPU_SETSIZE || !CPU_ISSET((size_t)cpu, &follow->cpus)) {
		follow_stop(follow);
		return;
	}
	CPU_ZERO(&one);
	CPU_SET((size_t)cpu, &one);
	if (cpu != follow->cpu)
		follow_stay_on(follow, &one, cpu);
}

static void follow_count(struct follow *follow, uint32_t thread)
{
	if (thread == follow->thread)
		follow->faults += follow->faults < FOLLOW_MOST;
	else
		follow->faults -= FOLLOW_OTHER;
	if (follow->faults >= 0)
		return;
	follow->thread = thread;
	follow->faults = 1;
}

void follow_fault(struct follow *follow, uint32_t thread)
{
	if (!follow->may || !thread)
		return;
	follow_count(follow, thread);
	if (follow->faults < FOLLOW_UNTIL)
		follow_stop(follow);
	if (follow->faults < FOLLOW_FROM)
		return;
	if (follow->cpu >= 0 && follow->until-- > 0)
		return;
	follow->until = FOLLOW_FAULTS;
	uint64_t now_ns = kernel_now_ns();

	if (now_ns - follow->looked_ns >= FOLLOW_NS)
		follow_look(follow, now_ns);
}
