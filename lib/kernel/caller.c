/* SPDX-License-Identifier: MIT */
/* See caller.h. */
#include "kernel/caller.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

static int caller_is_in(uintptr_t start, uintptr_t end, uintptr_t address)
{
	return address >= start && address < end;
}

/* The word that the kernel clears when the thread ends lies in what pthread_self() points to (glibc, musl). */
static int caller_tls_is_in(uintptr_t start, uintptr_t end)
{
	return caller_is_in(start, end, (uintptr_t)pthread_self()) || caller_is_in(start, end, (uintptr_t)&errno);
}

static int caller_robust_is_in(uintptr_t start, uintptr_t end)
{
	void *head = NULL;
	size_t length;

	return !syscall(SYS_get_robust_list, 0, &head, &length) && head && caller_is_in(start, end, (uintptr_t)head);
}

static int caller_alternate_is_in(uintptr_t start, uintptr_t end)
{
	stack_t stack;

	if (sigaltstack(NULL, &stack) || stack.ss_flags & SS_DISABLE || !stack.ss_size)
		return 0;
	uintptr_t low = (uintptr_t)stack.ss_sp;

	return low < end && low + stack.ss_size > start;
}

const char *caller_in(uintptr_t start, uintptr_t end, int waits)
{
	if (caller_is_in(start, end, caller_stack()))
		return "the stack of the calling thread";
	if (caller_tls_is_in(start, end))
		return "the thread-local memory of the calling thread";
	if (caller_robust_is_in(start, end))
		return "the list of robust mutexes of the calling thread";
	if (!waits && caller_alternate_is_in(start, end))
		return "the alternate signal stack of the calling thread";
	return NULL;
}
