/* SPDX-License-Identifier: MIT */
/*
 * The parent meets its child: opens what pages are broken off by, and has the child go on. See child.h.
 *
 * Threads: the caller of uffdwp_fork(), where it knows the process id before faults go on; else the child's thread.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "child/child_private.h"
#include "kernel/own.h"

void child_go_on(struct uffdwp_child *child)
{
	view_child_stall(&child->in, 0);
	for (unsigned i = 0; i < child->count; i++) {
		if (!atomic_load(&child->views[i].left))
			fault_wake_stalled(child->cuts[i].region);
	}
}

int child_open_proc(struct uffdwp_child *child, const char *process, const char *name, int flags, int *fd)
{
	const struct uffdwp *runtime = child->cuts[0].region->runtime;
	char path[64];

	/* From the folder that was open before the process changed its root, perhaps. */
	(void)snprintf(path, sizeof(path), "/proc/%s/%s", process, name);
	*fd = -1;
	int opened = runtime->proc < 0 || own_check(child->k, runtime->proc, runtime->tag)
	                     ? child->k->open(path, flags | O_CLOEXEC, 0)
	                     : child->k->openat(runtime->proc, path + strlen("/proc/"), flags | O_CLOEXEC, 0);
	int error = opened < 0 ? opened : own_take(child->k, opened, child->in.tag);

	if (!error)
		*fd = child_lift(child, opened);
	return error;
}

/* Other threads may take a number as soon as it is free: so one is freed at a time, and only where there is no other.
 */
static int meet_open(struct uffdwp_child *child, const char *name, int flags, int *fd)
{
	char process[16];

	if (*fd >= 0) /* by the last try */
		return 0;
	(void)snprintf(process, sizeof(process), "%d", child->in.pid);
	int error = child_open_proc(child, process, name, flags, fd);

	while (error == -EMFILE && child_free_descriptor(child))
		error = child_open_proc(child, process, name, flags, fd);
	if (!error && *fd < child->cuts[0].region->fd && child_free_descriptor(child))
		*fd = child_lift(child, *fd);
	return error;
}

/* Best effort, errors ignored: after the files, because there may be a child without. */
static void meet_open_pidfd(struct uffdwp_child *child)
{
	int fd = child->k->pidfd_open(child->in.pid);

	while (fd == -EMFILE && child_free_descriptor(child))
		fd = child->k->pidfd_open(child->in.pid);
	if (fd >= 0 && own_take(child->k, fd, child->in.tag))
		fd = -1;
	child_free_descriptors(child);
	child->in.pidfd = child_lift(child, fd);
}

static int meet_open_all(struct uffdwp_child *child)
{
	int error = meet_open(child, "pagemap", O_RDONLY, &child->in.pagemap);

	if (!error)
		error = meet_open(child, "mem", O_RDWR, &child->in.mem);
	return error ? error : meet_open(child, "maps", O_RDONLY, &child->in.maps);
}

void child_meet(struct uffdwp_child *child, int pid, int is_last)
{
	child->in.pid = pid;
	int error = meet_open_all(child);

	if (kernel_is_passing(error) && !is_last)
		return;
	meet_open_pidfd(child);
	if (error == -ESRCH || (error && child->k->exited(pid))) /* the first: it has no memory any more */
		atomic_store(&child->in.gone, 1);                /* it was so short-lived */
	else if (error)
		view_child_end(&child->in, error);
	atomic_store(&child->in.known, 1);
	atomic_store(&child->in.meeting->met, 1);
	syscall(SYS_futex, &child->in.meeting->met, FUTEX_WAKE, 1, NULL, NULL, 0);
	if (!error || atomic_load(&child->in.gone))
		child_go_on(child);
}
