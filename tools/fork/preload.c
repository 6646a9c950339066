/* SPDX-License-Identifier: MIT */
/*
 * The functions of the C library in whose place ours stand: each looks whether the region is meant, and calls.
 *
 * Idea: a range of addresses may be partly the region's, since an allocator joins mappings that lie side by side: the
 * rest is the kernel's. errno is set where -1 or MAP_FAILED is the answer, and else left alone.
 *
 * Threads: any, also before main(), and in signal handlers as far as the C library's own may be.
 * Never: a call of the C library that allocates; the caller may be the allocator, with its locks.
 */
#include "preload.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <unistd.h>

#include "child_memory.h"
#include "choice.h"
#include "forks.h"
#include "handlers.h"
#include "heap.h"
#include "memory.h"
#include "raw.h"

/* Not in headers. */
int __register_atfork(raw_handler *prepare, raw_handler *parent, raw_handler *child, void *object);
void __cxa_finalize(void *object);
pid_t _Fork(void); /* in those of glibc since 2.34 */

/* ------------------------------------------------------------------------------------------------------ ranges -- */

struct preload_call {
	int (*inside)(uint64_t start, uint64_t end, int argument);
	int (*in_child)(uint64_t start, uint64_t end, int argument);
	int (*outside)(void *address, size_t length, int argument);
	int beyond_error;    /* of a range that ends beyond the last address */
	int refuses_at_once; /* what is beyond the addresses of programs is refused before anything happens */
};

static int preload_is_child(void)
{
	return atomic_load(&heap.phase) == HEAP_CHILD;
}

static int preload_is_aligned(const void *address)
{
	return ((uintptr_t)address & (heap.page_bytes - 1)) == 0;
}

static int preload_answer(int error)
{
	errno = error;
	return -1;
}

/* Also one whose length has no multiple of pages. */
static int preload_ends_beyond(const void *address, size_t length)
{
	uint64_t bytes = heap_round(length);

	return bytes < length || (uintptr_t)address + bytes < (uintptr_t)address;
}

/* Makes one call of up to three: before the region, in it, after it. */
static int preload_split(const struct preload_call *call, void *address, size_t length, int argument)
{
	uint64_t start;
	uint64_t end;
	int result = 0;

	if (!heap_overlap(address, length, &start, &end))
		return call->outside(address, length, argument);
	if (!preload_is_aligned(address))
		return preload_answer(EINVAL);
	if (preload_ends_beyond(address, length))
		return preload_answer(call->beyond_error);
	char *from = address;
	char *to = from + heap_round(length);
	char *after = heap_at(end);

	if (after < to && call->refuses_at_once) {
		result = call->outside(after, (size_t)(to - after), argument);
		after = to;
	}
	if (result == 0 && from < heap_at(start))
		result = call->outside(from, (size_t)(heap_at(start) - from), argument);
	if (result == 0)
		result = (preload_is_child() ? call->in_child : call->inside)(start, end, argument);
	if (result == 0 && after < to)
		result = call->outside(after, (size_t)(to - after), argument);
	return result;
}

/* ------------------------------------------------------------------------------------------------------ memory -- */

/* MAP_FIXED over a part of the region: new zeros there. What is of another kind cannot be a part of the region. */
static void *preload_map_over(void *address, size_t length, int protection, int flags, uint64_t start, uint64_t end)
{
	int is_plain = (flags & MAP_PRIVATE) && (flags & MAP_ANONYMOUS) && !(flags & (MAP_HUGETLB | MAP_GROWSDOWN));

	if (!preload_is_aligned(address)) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	if (!is_plain || end - start != heap_round(length)) {
		errno = ENOMEM;
		return MAP_FAILED;
	}
	return memory_map_over(start, end, protection) == 0 ? address : MAP_FAILED;
}

static void *preload_map(void *address, size_t length, int protection, int flags, int fd, off_t offset,
                         const void *caller)
{
	uint64_t alignment = choice_make(address, length, protection, flags, caller);
	void *place = alignment ? memory_map(heap_round(length), alignment, flags & MAP_POPULATE) : NULL;
	uint64_t start;
	uint64_t end;

	if (place)
		return place;
	if (!(flags & MAP_FIXED) || !length || !heap_overlap(address, length, &start, &end))
		return raw_mmap(address, length, protection, flags, fd, offset);
	if (!preload_is_child())
		return preload_map_over(address, length, protection, flags, start, end);
	place = raw_mmap(address, length, protection, flags, fd, offset);
	if (place != MAP_FAILED)
		child_memory_replaced(start, end);
	return place;
}

PRELOAD_EXPORT void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t offset)
{
	return preload_map(address, length, protection, flags, fd, offset, __builtin_return_address(0));
}

PRELOAD_EXPORT void *mmap64(void *address, size_t length, int protection, int flags, int fd, off64_t offset)
{
	return preload_map(address, length, protection, flags, fd, offset, __builtin_return_address(0));
}

static int preload_unmap_inside(uint64_t start, uint64_t end, int unused)
{
	(void)unused;
	return memory_unmap(start, end);
}

static int preload_unmap_in_child(uint64_t start, uint64_t end, int unused)
{
	(void)unused;
	return child_memory_unmap(start, end);
}

static int preload_unmap_outside(void *address, size_t length, int unused)
{
	(void)unused;
	return raw_munmap(address, length);
}

PRELOAD_EXPORT int munmap(void *address, size_t length)
{
	static const struct preload_call call = {preload_unmap_inside, preload_unmap_in_child, preload_unmap_outside,
	                                         EINVAL, 1};

	return length ? preload_split(&call, address, length, 0) : raw_munmap(address, length);
}

PRELOAD_EXPORT int madvise(void *address, size_t length, int advice)
{
	static const struct preload_call call = {memory_advise, child_memory_advise, raw_madvise, EINVAL, 0};

	return length ? preload_split(&call, address, length, advice) : raw_madvise(address, length, advice);
}

PRELOAD_EXPORT int mprotect(void *address, size_t length, int protection)
{
	static const struct preload_call call = {memory_protect, child_memory_protect, raw_mprotect, ENOMEM, 0};

	return length ? preload_split(&call, address, length, protection) : raw_mprotect(address, length, protection);
}

/* What the kernel refuses whatever is mapped. */
static int preload_refuses_remap(const char *old, size_t old_length, size_t length, int flags, const char *to)
{
	uint64_t old_bytes = heap_round(old_length);
	uint64_t bytes = heap_round(length);

	if (!preload_is_aligned(old) || !old_bytes || !bytes)
		return 1;
	if (flags & ~(MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP))
		return 1;
	if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) && !(flags & MREMAP_MAYMOVE))
		return 1;
	if ((flags & MREMAP_DONTUNMAP) && old_bytes != bytes)
		return 1;
	return (flags & MREMAP_FIXED) && (!preload_is_aligned(to) || preload_ends_beyond(to, bytes) ||
	                                  (old + old_bytes > to && to + bytes > old));
}

/* A range that is partly the region's is no mapping of the program's. */
static void *preload_remap_inside(void *old, size_t old_length, size_t length, int flags, void *to)
{
	uint64_t start;
	uint64_t end;

	if (preload_refuses_remap(old, old_length, length, flags, to)) {
		errno = EINVAL;
		return MAP_FAILED;
	}
	if (!heap_overlap(old, old_length, &start, &end) || end - start != heap_round(old_length)) {
		errno = EFAULT;
		return MAP_FAILED;
	}
	return (preload_is_child() ? child_memory_remap : memory_remap)(start, end, heap_round(length), flags, to);
}

PRELOAD_EXPORT void *mremap(void *old, size_t old_length, size_t length, int flags, ...)
{
	void *to = NULL;
	uint64_t start;
	uint64_t end;
	va_list more;

	va_start(more, flags);
	if (flags & (MREMAP_FIXED | MREMAP_DONTUNMAP))
		to = va_arg(more, void *);
	va_end(more);
	if (heap_overlap(old, old_length ? old_length : 1, &start, &end))
		return preload_remap_inside(old, old_length, length, flags, to);
	if ((flags & MREMAP_FIXED) && heap_overlap(to, length, &start, &end) && !preload_is_child()) {
		errno = ENOMEM; /* what is moved there is not the region's */
		return MAP_FAILED;
	}
	return raw_mremap(old, old_length, length, flags, to);
}

/* ------------------------------------------------------------------------------------------------------- forks -- */

PRELOAD_EXPORT pid_t fork(void)
{
	return forks_fork();
}

PRELOAD_EXPORT pid_t _Fork(void)
{
	return forks_fork_bare();
}

PRELOAD_EXPORT int __register_atfork(raw_handler *prepare, raw_handler *parent, raw_handler *child, void *object)
{
	return handlers_add(prepare, parent, child, object);
}

/* Programs have a copy of their own, linked from libc_nonshared.a, that calls the function above. Objects that look for
 * this one by a weak reference (tcmalloc) find none in glibc since 2.34, and run without handlers. */
PRELOAD_EXPORT int pthread_atfork(raw_handler *prepare, raw_handler *parent, raw_handler *child)
{
	return __register_atfork(prepare, parent, child, NULL);
}

/* Each object that is unloaded comes by, and each at exit(3). */
PRELOAD_EXPORT void __cxa_finalize(void *object)
{
	if (object)
		handlers_drop(object);
	raw_finalize(object);
}
