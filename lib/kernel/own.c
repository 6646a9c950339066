/* SPDX-License-Identifier: MIT */
/* See own.h. */
#include "kernel/own.h"

#include <errno.h>
#include <stdatomic.h>

#include "kernel/backoff.h"

#define KICK_TRIES 1000
#define OWN_TAGS 63 /* signal numbers from 1 on that every kernel takes */

static _Atomic unsigned own_count;

int own_new(void)
{
	return (int)(atomic_fetch_add(&own_count, 1) % OWN_TAGS) + 1;
}

int own_take(const struct kernel_ops *k, int fd, int tag)
{
	if (k->tag(fd, tag) != -ENOMEM)
		return 0;
	k->close(fd);
	return -ENOMEM;
}

int own_check(const struct kernel_ops *k, int fd, int tag)
{
	int found = k->tagged(fd);

	if (found < 0)
		return found == -EBADF ? -EBADF : 0;
	return found == tag ? 0 : -ESTALE;
}

int own_eventfd(const struct kernel_ops *k, int tag)
{
	int fd = k->eventfd();

	return fd >= 0 && own_take(k, fd, tag) ? -ENOMEM : fd;
}

/* An eventfd takes a 1 at any time, unless a sandbox forbids write(2) or a signal comes between. */
int own_kick(const struct kernel_ops *k, int fd, int tag)
{
	static const uint64_t one = 1;
	unsigned turn = BACKOFF_YIELD;
	int error = -EAGAIN;

	for (int tries = 0; tries < KICK_TRIES; tries++) {
		int lost = own_check(k, fd, tag);
		ssize_t wrote = lost ? lost : k->write(fd, &one, sizeof(one));

		if (lost || wrote >= 0)
			return lost;
		error = (int)wrote;
		kernel_back_off(k, &turn);
	}
	return error;
}

void own_close(const struct kernel_ops *k, int fd, int tag)
{
	if (fd >= 0 && own_check(k, fd, tag) == 0)
		k->close(fd);
}
