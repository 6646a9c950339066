/* SPDX-License-Identifier: MIT */
/* See copy.h. Nothing here allocates: the allocator's locks may be taken by the program's prepare handlers. */
#include "copy.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "heap.h"
#include "kernel/abi.h"
#include "kernel/holes.h"
#include "raw.h"
#include "rights.h"
#include "stop.h"
#include "whole.h"

#define COPY_FLAGS (MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED)
#define COPY_BEGUN UINT32_MAX

/* What both processes see: COPY_BEGUN, or the child's result as an errno, 0: it has all. Mapped at the start. */
static _Atomic uint32_t *copy_result;

int copy_init(void)
{
	void *page = raw_mmap(NULL, heap.page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (page == MAP_FAILED)
		return -ENOMEM;
	copy_result = page;
	return 0;
}

/* ----------------------------------------------------------------------------------------------------- memory -- */

/* What the memory is read from, which asks neither for rights nor for entries of page tables: the region's file; or
 * where the program has closed that, so that nothing is armed, the memory of the parent. */
struct copy_source {
	int fd;
	int is_file;
	off_t base;
};

static int copy_next(uint64_t *at, struct arena_range *range)
{
	uint64_t length = atomic_load(&heap.length);

	if (!arena_next_used(&heap.arena, *at, range) || range->start >= length)
		return 0;
	range->end = range->end < length ? range->end : length;
	*at = range->end;
	return 1;
}

/* In the parent. 0 or -errno. */
static int copy_open(struct copy_source *source)
{
	*source = (struct copy_source){.fd = heap.fd, .is_file = heap_has_file()};
	if (source->is_file)
		return 0;
	source->base = (off_t)heap.base;
	source->fd = heap_open_proc("self/mem", O_RDONLY);
	return source->fd < 0 ? -errno : 0;
}

static void copy_close(const struct copy_source *source)
{
	if (!source->is_file)
		(void)close(source->fd);
}

/* ---- what holes.c asks of the kernel ---- */

static int64_t copy_do_seek(int fd, uint64_t offset, int whence)
{
	off_t found = lseek(fd, (off_t)offset, whence);

	return found < 0 ? -errno : found;
}

static ssize_t copy_do_pread(int fd, void *buffer, size_t length, uint64_t offset)
{
	return pread(fd, buffer, length, (off_t)offset);
}

static int copy_do_cachestat(int fd, uint64_t offset, uint64_t length, uint64_t *cached, uint64_t *evicted)
{
	struct cachestat_range_now range = {.off = offset, .len = length};
	struct cachestat_now found = {0};

	if (syscall(SYS_CACHESTAT_NOW, fd, &range, &found, 0u))
		return -errno;
	*cached = found.nr_cache;
	*evicted = found.nr_evicted;
	return 0;
}

static int64_t copy_do_fs_type(int fd)
{
	(void)fd;
	return TMPFS_MAGIC;
}

static const struct kernel_ops copy_kernel = {
        .seek = copy_do_seek,
        .pread = copy_do_pread,
        .cachestat = copy_do_cachestat,
        .fs_type = copy_do_fs_type,
};

/* The next content from `at` on: where it begins; `end`: there is none. */
static uint64_t copy_seek(const struct copy_source *source, uint64_t at, uint64_t end)
{
	return source->is_file && at < end ? holes_next_data(&copy_kernel, source->fd, at, end) : at;
}

static uint64_t copy_seek_hole(const struct copy_source *source, uint64_t at, uint64_t end)
{
	uint64_t hole = source->is_file ? holes_next(&copy_kernel, source->fd, at, end) : end;

	return hole > at ? hole : end;
}

static int copy_read(const struct copy_source *source, uint64_t from, uint64_t end)
{
	while (from < end) {
		ssize_t got = pread(source->fd, heap_at(from), end - from, source->base + (off_t)from);

		if (got <= 0)
			return got ? -errno : -EIO;
		from += (uint64_t)got;
	}
	return 0;
}

/* Holes of the file stay holes. */
static int copy_read_range(const struct copy_source *source, const struct arena_range *range)
{
	int error = 0;

	for (uint64_t at = copy_seek(source, range->start, range->end); !error && at < range->end;) {
		uint64_t hole = copy_seek_hole(source, at, range->end);

		error = copy_read(source, at, hole);
		at = copy_seek(source, hole, range->end);
	}
	return error;
}

/* Where mmap(2) is not allowed: memory that brk(2) has made, moved. The end of the program's own stays where it was. */
static int copy_map_by_brk(uint64_t start, uint64_t bytes)
{
	uintptr_t own = (uintptr_t)syscall(SYS_brk, 0ul);
	uintptr_t from = heap_round(own);
	void *to = heap_at(start);
	void *moved = MAP_FAILED;

	if ((uintptr_t)syscall(SYS_brk, from + bytes) == from + bytes)
		moved = raw_mremap((void *)from, bytes, bytes, /* NOLINT(performance-no-int-to-ptr) */
		                   MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to);
	(void)syscall(SYS_brk, own);
	return moved == to ? 0 : -1;
}

static int copy_map(const struct arena_range *range)
{
	uint64_t bytes = range->end - range->start;

	if (raw_mmap(heap_at(range->start), bytes, RIGHTS_USUAL, COPY_FLAGS, -1, 0) != MAP_FAILED)
		return 0;
	int error = -errno;

	return copy_map_by_brk(range->start, bytes) == 0 ? 0 : error;
}

/* In the child. 0 or -errno. What is between the ranges in use stays the region's. Where mmap(2) is refused the child
 * makes no mapping that could come to lie there. */
static int copy_fill(const struct copy_source *source)
{
	struct arena_range range;
	int error = 0;

	(void)raw_mmap(heap_at(0), atomic_load(&heap.length), PROT_NONE, COPY_FLAGS, -1, 0);
	for (uint64_t at = 0; !error && copy_next(&at, &range);) {
		error = copy_map(&range);
		if (!error)
			error = copy_read_range(source, &range);
	}
	return error;
}

/* ------------------------------------------------------------------------------------------------ the two sides -- */

/* In the child: what its heap is filled from, while it is not. */
static const struct copy_source *copy_pending;

static void copy_arrive(void)
{
	const struct copy_source *source = copy_pending;
	int error;

	if (!source)
		return;
	copy_pending = NULL;
	error = copy_fill(source);
	stop_leave();
	copy_close(source);
	atomic_store(copy_result, (uint32_t)-error);
	(void)syscall(SYS_futex, copy_result, FUTEX_WAKE, 1, NULL, NULL, 0);
	if (error)
		_exit(1);
	(void)raw_munmap((void *)copy_result, heap.page_bytes);
	copy_result = NULL;
}

static int copy_child_is_there(pid_t pid)
{
	siginfo_t info = {0};

	return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && !info.si_pid;
}

/* Until the child has all. 0 or -errno; a child that ended before, as by the OOM killer, lacks memory. */
static int copy_await(pid_t pid)
{
	static const struct timespec look = {0, 100000000};

	while (atomic_load(copy_result) == COPY_BEGUN && copy_child_is_there(pid))
		(void)syscall(SYS_futex, copy_result, FUTEX_WAIT, COPY_BEGUN, &look, NULL, 0);
	return atomic_load(copy_result) == COPY_BEGUN ? -ENOMEM : -(int)atomic_load(copy_result);
}

/* A child that lacks memory, or has that of a moment in which the threads were not stopped, is none. The program shall
 * not meet its signal, unless that is one of another child, too. */
static void copy_undo(pid_t pid)
{
	const struct timespec now = {0, 0};
	siginfo_t other = {0};
	sigset_t ended;

	(void)kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		continue;
	if (waitid(P_ALL, 0, &other, WEXITED | WNOHANG | WNOWAIT) == 0 && other.si_pid)
		return;
	sigemptyset(&ended);
	sigaddset(&ended, SIGCHLD);
	(void)sigtimedwait(&ended, NULL, &now);
}

static pid_t copy_fork_stopped(const struct copy_source *source, const char **why)
{
	pid_t pid;
	int error;

	atomic_store(copy_result, COPY_BEGUN);
	copy_pending = source;
	if (stop_has_others()) /* fork(3) could wait for locks that they hold */
		whole_end();
	else
		whole_change(copy_arrive);
	pid = whole_bare_fork();
	if (pid == 0)
		copy_arrive();
	error = pid == -1 ? -errno : 0;
	if (pid <= 0)
		return error;
	error = copy_await(pid);
	if (!error)
		return pid;
	*why = error == -ENOMEM ? "a child has no room for a copy of the heap" : "a child cannot copy the heap";
	copy_undo(pid);
	return error;
}

pid_t copy_fork(const char **why)
{
	struct copy_source source;
	int error = stop_begin(why);
	pid_t pid;

	if (error)
		return error;
	error = copy_open(&source);
	*why = error ? "the heap cannot be read" : NULL;
	pid = error ? error : copy_fork_stopped(&source, why);
	if (pid == 0)
		return 0;
	if (!error)
		copy_close(&source);
	if (stop_end() || pid < 0)
		return pid;
	copy_undo(pid);
	*why = "the other threads did not stay stopped for a copy of the heap";
	return -EAGAIN;
}
