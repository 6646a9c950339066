/* SPDX-License-Identifier: MIT */
/* See advice.h. */
#include "advice.h"

#include <errno.h>
#include <sys/mman.h>

#include "heap.h"
#include "kernel/abi.h"
#include "raw.h"

#ifndef MADV_COLD /* glibc before 2.32 */
#define MADV_COLD 20
#endif

enum advice {
	ADVICE_REFUSED, /* EINVAL */
	ADVICE_IGNORED,
	ADVICE_PASSED_ON,
	ADVICE_DISCARDS /* reads as zeros afterwards */
};

static enum advice advice_meaning(int advice)
{
	switch (advice) {
	case MADV_DONTNEED:
	case MADV_FREE:
	case MADV_DONTNEED_LOCKED_NOW:
		return ADVICE_DISCARDS;
	case MADV_WILLNEED:
	case MADV_COLD:
	case MADV_PAGEOUT:
	case MADV_POPULATE_READ:
	case MADV_POPULATE_WRITE:
		return ADVICE_PASSED_ON;
	case MADV_NORMAL:
	case MADV_RANDOM:
	case MADV_SEQUENTIAL:
	case MADV_HUGEPAGE:
	case MADV_NOHUGEPAGE:
	case MADV_MERGEABLE:
	case MADV_UNMERGEABLE:
	case MADV_DONTDUMP:
	case MADV_DODUMP:
	case MADV_DOFORK:
	case MADV_DONTFORK: /* the child has it all the same, of its own; pages stay the parent's */
	case MADV_KEEPONFORK:
		return ADVICE_IGNORED;
	default: /* MADV_WIPEONFORK, MADV_GUARD_INSTALL, MADV_REMOVE ... */
		return ADVICE_REFUSED;
	}
}

int advice_apply(uint64_t start, uint64_t end, int advice, void (*zero)(uint64_t start, uint64_t end))
{
	switch (advice_meaning(advice)) {
	case ADVICE_DISCARDS:
		zero(start, end);
		return 0;
	case ADVICE_PASSED_ON:
		return raw_madvise(heap_at(start), end - start, advice);
	case ADVICE_IGNORED:
		return 0;
	default:
		errno = EINVAL;
		return -1;
	}
}
