/* SPDX-License-Identifier: MIT */
/* See copy.h. Nothing here allocates: the allocator's locks may be taken by the program's prepare handlers. */
#include "copy.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "heap.h"
#include "raw.h"
#include "rights.h"
#include "stop.h"

/* ----------------------------------------------------------------------------------------------------- memory -- */

static int copy_next(uint64_t *at, struct arena_range *range)
{
	uint64_t length = atomic_load(&heap.length);

	if (!arena_next_used(&heap.arena, *at, range) || range->start >= length)
		return 0;
	range->end = range->end < length ? range->end : length;
	*at = range->end;
	return 1;
}

static uint64_t copy_count_bytes(void)
{
	struct arena_range range;
	uint64_t bytes = 0;

	for (uint64_t at = 0; copy_next(&at, &range);)
		bytes += range.end - range.start;
	return bytes;
}

/* What the memory is read from, which asks neither for rights nor for entries of page tables: the region's file; or in
 * a child of ours, which has other content, and where the program has closed that file, so that nothing is armed, the
 * process's memory. *close_it: it was opened here. */
static int copy_open(off_t *base, int *close_it)
{
	*close_it = heap.phase == HEAP_CHILD || !heap_has_file();
	*base = *close_it ? (off_t)heap.base : 0;
	return *close_it ? heap_open_proc("self/mem", O_RDONLY) : heap.fd;
}

static int copy_read_range(int fd, off_t base, const struct arena_range *range, char *to)
{
	for (uint64_t from = range->start; from < range->end;) {
		ssize_t got = pread(fd, to + (from - range->start), range->end - from, base + (off_t)from);

		if (got <= 0)
			return -1;
		from += (uint64_t)got;
	}
	return 0;
}

static int copy_read(char *to)
{
	struct arena_range range;
	off_t base;
	int close_it;
	int fd = copy_open(&base, &close_it);
	int failed = fd < 0;

	for (uint64_t at = 0; !failed && copy_next(&at, &range);) {
		failed = copy_read_range(fd, base, &range, to);
		to += range.end - range.start;
	}
	if (fd >= 0 && close_it)
		close(fd);
	return failed;
}

/* The child gives each piece its place. One that finds none would run without its memory: it ends. */
static void copy_place(char *from)
{
	struct arena_range range;

	for (uint64_t at = 0; copy_next(&at, &range);) {
		uint64_t bytes = range.end - range.start;
		void *to = heap_at(range.start);

		if (raw_mremap(from, bytes, bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to) != to)
			abort();
		from += bytes;
	}
}

/* With all other threads of the program stopped. */
static pid_t copy_and_fork(char *copy)
{
	pid_t pid = copy_read(copy) ? -EAGAIN : raw_bare_fork();

	if (pid == -1)
		return -errno;
	return pid;
}

/* A child of a moment in which the threads were not stopped is none. */
static pid_t copy_undo(pid_t pid)
{
	if (pid > 0) {
		(void)kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			continue;
	}
	return -EAGAIN;
}

static pid_t copy_fork_stopped(char *copy)
{
	pid_t pid;

	if (stop_begin() != 0)
		return -EAGAIN;
	pid = copy_and_fork(copy);
	if (pid == 0) {
		stop_leave();
		copy_place(copy);
	} else if (!stop_end()) {
		pid = copy_undo(pid);
	}
	return pid;
}

pid_t copy_fork(void)
{
	uint64_t bytes = copy_count_bytes();
	pid_t pid;
	char *copy;

	if (!bytes)
		return -EAGAIN;
	copy = raw_mmap(NULL, bytes, RIGHTS_USUAL, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (copy == MAP_FAILED)
		return -ENOMEM;
	pid = copy_fork_stopped(copy);
	if (pid != 0)
		raw_munmap(copy, bytes);
	return pid;
}
