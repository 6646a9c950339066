/* SPDX-License-Identifier: MIT */
/* See holes.h. */
#include "kernel/holes.h"

#include <errno.h>
#include <linux/magic.h>
#include <unistd.h>

#include "base/math.h"

/* Pages that are looked at together: between the read of a page and the second look at it no other move of it begins
 * and comes to the same point. */
#define HOLES_PIECE_PAGES 64

static uint64_t holes_seek(const struct kernel_ops *k, int fd, uint64_t offset, uint64_t end)
{
	int64_t data = k->seek(fd, offset, SEEK_DATA);

	if (data == -ENXIO)
		return end;
	return math_min_u64(data < 0 || (uint64_t)data < offset ? offset : (uint64_t)data, end);
}

/* 1: nothing is there, 0: something is, or -errno: the kernel does not say. */
static int holes_is_empty(const struct kernel_ops *k, int fd, uint64_t start, uint64_t end)
{
	uint64_t cached;
	uint64_t evicted;
	int error = k->cachestat(fd, start, end - start, &cached, &evicted);

	return error ? error : !cached && !evicted;
}

/* Waits until no page of it is being moved. */
static void holes_settle(const struct kernel_ops *k, int fd, uint64_t start, uint64_t end, uint64_t step)
{
	unsigned char ignored;

	for (uint64_t at = start; at < end; at += step - at % step)
		(void)k->pread(fd, &ignored, 1, at);
}

/* A hole [start, end) by the first look; `end`, or where data begins. A window that is not empty is halved down to a
 * piece, and doubled after an empty one: a great hole in which few pages stand costs few calls. */
static uint64_t holes_confirm(const struct kernel_ops *k, int fd, uint64_t start, uint64_t end)
{
	uint64_t step = (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t piece = HOLES_PIECE_PAGES * step;
	uint64_t window = end - start;

	while (start < end) {
		window = math_min_u64(window, end - start);
		uint64_t until = window == end - start ? end : start - start % step + window;
		int empty = holes_is_empty(k, fd, start, until);

		if (empty != 1 && window > piece) {
			window = empty < 0 ? piece : math_round_up(window / 2, piece);
			continue;
		}
		if (empty != 1) {
			holes_settle(k, fd, start, until, step);
			uint64_t data = holes_seek(k, fd, start, until);

			if (data < until)
				return data;
		}
		start = until;
		window *= empty == 1 ? 2 : 1; /* offsets are below 2^63 */
	}
	return end;
}

static uint64_t holes_look(const struct kernel_ops *k, int fd, uint64_t offset, uint64_t end, int reads)
{
	uint64_t data = holes_seek(k, fd, offset, end);

	if (data <= offset || k->fs_type(fd) != TMPFS_MAGIC)
		return data;
	int empty = holes_is_empty(k, fd, offset, data);

	if (empty > 0 || (empty < 0 && !reads))
		return data;
	return holes_confirm(k, fd, offset, data);
}

uint64_t holes_next_data(const struct kernel_ops *k, int fd, uint64_t offset, uint64_t end)
{
	return holes_look(k, fd, offset, end, 1);
}

uint64_t holes_next_data_hint(const struct kernel_ops *k, int fd, uint64_t offset, uint64_t end)
{
	return holes_look(k, fd, offset, end, 0);
}

uint64_t holes_next(const struct kernel_ops *k, int fd, uint64_t offset, uint64_t end)
{
	int64_t hole = k->seek(fd, offset, SEEK_HOLE);

	return hole < 0 || (uint64_t)hole < offset ? end : math_min_u64((uint64_t)hole, end);
}
