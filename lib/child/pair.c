/* SPDX-License-Identifier: MIT */
/*
 * How the parent learns which process its child is. With fork(3) handlers of the program run in the parent before the
 * call has returned: their writes would wait for a process id that only the call's return brings. So the child reports
 * by a socket as soon as its regions are in place: the kernel says by which number this process knows the sender,
 * whatever PID namespace that is in; and where a child has ended before, the socket has no other end. See child.h.
 *
 * Threads: the caller of uffdwp_fork(), the child's thread; in the child the thread that forked.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "base/errno_name.h"
#include "child/child_private.h"
#include "kernel/own.h"

/* Low numbers are the program's, see prepare_descriptors(). The copy is the same open file, with its tag. */
int child_lift(const struct uffdwp_child *child, int fd)
{
	int least = child->cuts[0].region->fd;
	int copy = fd < 0 || fd >= least ? -1 : child->k->dup(fd, least);

	if (copy < 0)
		return fd;
	child->k->close(fd);
	return copy;
}

/* A link of /proc/self/ns, from the folder that was open before the process changed its root, perhaps. */
static int pair_read_link(const struct uffdwp_child *child, const char *name, char *to, size_t size)
{
	const struct uffdwp *runtime = child->cuts[0].region->runtime;
	int is_lost = runtime->proc < 0 || own_check(child->k, runtime->proc, runtime->tag);
	char path[64];

	(void)snprintf(path, sizeof(path), "%sself/ns/%s", is_lost ? "/proc/" : "", name);
	memset(to, 0, size);
	return (int)child->k->readlinkat(is_lost ? AT_FDCWD : runtime->proc, path, to, size - 1);
}

/* 1: children are of the PID namespace of this process, so that it knows them by their own numbers. */
static int pair_shares_numbers(const struct uffdwp_child *child)
{
	char ours[64];
	char theirs[64];

	return pair_read_link(child, "pid", ours, sizeof(ours)) > 0 &&
	       pair_read_link(child, "pid_for_children", theirs, sizeof(theirs)) > 0 && !strcmp(ours, theirs);
}

/* Tried at once by this process: a sandbox may forbid part of it. */
static int pair_try(struct uffdwp_child *child)
{
	int error = child->k->pair(child->ends);

	if (error)
		return error;
	for (unsigned i = 0; i < 2; i++) {
		int untaken = own_take(child->k, child->ends[i], child->in.tag);

		child->ends[i] = untaken ? -1 : child_lift(child, child->ends[i]);
		error = error ? error : untaken;
	}
	if (!error)
		error = child->k->pair_send(child->ends[1]);
	int got = error ? error : child->k->pair_receive(child->ends[0]);

	return got > 0 ? 0 : got < 0 ? got : -EPIPE;
}

/* Without sockets the child's own number has to do, which a child of another PID namespace does not know. */
int child_pair_open(struct uffdwp_child *child, struct text *text)
{
	int error = pair_try(child);

	if (!error)
		return 0;
	child_pair_close(child);
	if (kernel_is_passing(error))
		return text_fail(text, error, "no sockets for a child: %s", errno_text(error));
	if (pair_shares_numbers(child))
		return 0;
	return text_fail(text, -EOPNOTSUPP,
	                 "handlers of pthread_atfork(3) would wait for ever in a write: which process the child is the "
	                 "parent cannot know before they run: socketpair(2): %s",
	                 errno_text(error));
}

static void pair_close_end(struct uffdwp_child *child, unsigned i)
{
	own_close(child->k, child->ends[i], child->in.tag);
	child->ends[i] = -1;
}

void child_pair_leave(struct uffdwp_child *child)
{
	pair_close_end(child, 1);
}

void child_pair_close(struct uffdwp_child *child)
{
	pair_close_end(child, 0);
	pair_close_end(child, 1);
}

int child_hear(struct uffdwp_child *child)
{
	if (child->ends[0] < 0)
		return (int)atomic_load(&child->in.meeting->arrived);
	if (own_check(child->k, child->ends[0], child->in.tag))
		return 0;
	int pid = child->k->pair_receive(child->ends[0]);

	return pid > 0 ? pid : pid == 0 ? -1 : 0;
}

/* To its parent an end that is closed without a byte means that this process is there no more. */
int child_report(struct uffdwp_child *child)
{
	int error = 0;

	if (child->ends[1] >= 0) {
		error = own_check(child->k, child->ends[1], child->in.tag);
		error = error ? error : child->k->pair_send(child->ends[1]);
	}
	child_pair_close(child);
	return error == -EPIPE ? 0 : error;
}
