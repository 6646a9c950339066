/* SPDX-License-Identifier: MIT */
/* Pages of our own. See pages.h. */
#include "kernel/pages.h"

#include <sys/mman.h>

#include "kernel/abi.h"

/* The smallest page of any architecture: a step that leaves no page out. */
#define STEP_BYTES 4096

/* What is touched at a time beside others: a huge page. */
#define PIECE_BYTES ((size_t)2 << 20)

void *pages_new(const struct kernel_ops *k, size_t length)
{
	int error;

	return k->mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0,
	               &error);
}

void pages_free(const struct kernel_ops *k, void *memory, size_t length)
{
	if (memory)
		k->munmap(memory, length);
}

void pages_touch(const struct kernel_ops *k, void *memory, size_t length)
{
	k->madvise(memory, length, MADV_HUGEPAGE); /* best effort, errors ignored */
	if (k->madvise(memory, length, MADV_POPULATE_WRITE) == 0)
		return;
	for (size_t at = 0; at < length; at += STEP_BYTES) /* before 5.14 */
		((volatile unsigned char *)memory)[at] = 0;
}

void pages_touch_beside(const struct kernel_ops *k, void *memory, size_t length, const _Atomic int *stop)
{
	k->madvise(memory, length, MADV_HUGEPAGE); /* best effort, errors ignored */
	for (size_t at = 0; at < length && !(stop && atomic_load(stop)); at += PIECE_BYTES) {
		size_t piece = length - at < PIECE_BYTES ? length - at : PIECE_BYTES;

		k->madvise((char *)memory + at, piece, MADV_POPULATE_WRITE);
	}
}
