/* SPDX-License-Identifier: MIT */
/* See heap.h. */
#include "heap.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include "threads.h"

/* The file grows in steps: it is sparse, so that only its end moves. */
#define HEAP_PATH_BYTES 128
#define HEAP_STEP_BYTES ((uint64_t)256 << 20)

struct heap heap = {.page_bytes = 4096, .fd = -1, .proc = -1};
_Thread_local int heap_is_inside __attribute__((tls_model("initial-exec")));
static pthread_mutex_t heap_mutex = PTHREAD_MUTEX_INITIALIZER;

void heap_block_signals(sigset_t *before)
{
	static const int left[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGSYS};
	sigset_t blocked;

	sigfillset(&blocked);
	for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++)
		sigdelset(&blocked, left[i]);
	pthread_sigmask(SIG_BLOCK, &blocked, before);
}

void heap_restore_signals(const sigset_t *before)
{
	pthread_sigmask(SIG_SETMASK, before, NULL);
}

void heap_lock_bare(void)
{
	pthread_mutex_lock(&heap_mutex);
}

void heap_unlock_bare(void)
{
	pthread_mutex_unlock(&heap_mutex);
}

void heap_lock(sigset_t *before)
{
	heap_block_signals(before);
	heap_lock_bare();
}

void heap_unlock(const sigset_t *before)
{
	heap_unlock_bare();
	heap_restore_signals(before);
}

void heap_renew_lock(void)
{
	static const pthread_mutex_t fresh = PTHREAD_MUTEX_INITIALIZER;

	heap_mutex = fresh;
}

void heap_renew(void)
{
	heap_renew_lock();
	threads_renew();
	atomic_store(&heap.paused, 0);
	atomic_store(&heap.outside_bytes, 0);
	atomic_store(&heap.length, 0);
}

int heap_overlap(const void *address, size_t length, uint64_t *start, uint64_t *end)
{
	uintptr_t from = (uintptr_t)address;
	uintptr_t to = from + length < from ? UINTPTR_MAX : from + length;

	if (!heap.capacity || to <= heap.base || from >= heap.base + heap.capacity)
		return 0;
	*start = from > heap.base ? from - heap.base : 0;
	*end = to - heap.base < heap.capacity ? heap_round(to - heap.base) : heap.capacity;
	return 1;
}

int heap_has_file(void)
{
	struct stat st;

	return heap.fd >= 0 && fstat(heap.fd, &st) == 0 && st.st_ino == heap.inode;
}

int heap_is_dead(void)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};

	return uffdwp_region_info(heap.region, &info) == 0 && info.dead;
}

int heap_open_proc(const char *path, int flags)
{
	char whole[HEAP_PATH_BYTES];
	int fd;

	(void)snprintf(whole, sizeof(whole), "/proc/%s", path);
	fd = open(whole, flags | O_CLOEXEC);
	return fd >= 0 || heap.proc < 0 ? fd : openat(heap.proc, path, flags | O_CLOEXEC);
}

/* A file that would grow beyond the limit of files ends the process by SIGXFSZ. */
static int heap_is_allowed(uint64_t length)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_FSIZE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY || limit.rlim_cur >= length;
}

int heap_reach(uint64_t end)
{
	uint64_t length = (end + HEAP_STEP_BYTES - 1) / HEAP_STEP_BYTES * HEAP_STEP_BYTES;
	sigset_t before;
	int error;

	if (end <= atomic_load(&heap.length))
		return 0;
	if (length > heap.capacity)
		length = heap.capacity;
	if (!heap_is_allowed(length))
		return -EFBIG;
	heap_block_signals(&before);
	error = uffdwp_region_grow(heap.region, length);
	heap_restore_signals(&before);
	if (!error || error == -EINVAL) { /* another thread has grown it further */
		uint64_t known = atomic_load(&heap.length);

		while (!error && known < length && !atomic_compare_exchange_weak(&heap.length, &known, length))
			continue;
		return atomic_load(&heap.length) >= end ? 0 : -EAGAIN;
	}
	return error;
}
