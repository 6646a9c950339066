/* SPDX-License-Identifier: MIT */
/*
 * What the calling thread itself lives on: its stack, its thread-local memory, its alternate signal stack. A thread
 * that arms such memory, or stalls faults there, waits for itself at its next step; and what the kernel writes there
 * when the thread ends or gets a signal does not wait for a fault: it is dropped, or the process is killed.
 *
 * Threads: any, each for itself. Nothing can be seen of other threads.
 */
#ifndef UFFDWP_KERNEL_CALLER_H
#define UFFDWP_KERNEL_CALLER_H

#include <stdint.h>

/* An address on the stack that the thread runs on now. */
static inline uintptr_t caller_stack(void)
{
	return (uintptr_t)__builtin_frame_address(0);
}

/* The first of these things that lies in [start, end), in words that go before "lies in the region"; NULL: none.
 * `waits`: what the kernel writes for a signal waits for a fault there, so that the alternate stack may lie there. */
const char *caller_in(uintptr_t start, uintptr_t end, int waits);

#endif
