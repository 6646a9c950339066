/* SPDX-License-Identifier: MIT */
/*
 * The fake kernel: userfaultfd and mprotect(2) played in plain memory. It needs no privilege and no userfaultfd, and
 * every step of it is ordinary C, which the thread sanitizer follows.
 *
 * Memory is real and never protected. The "page table" is an entry and a mutex for each page of a registered range; the
 * mutex orders an access and a change of the entry as the flush of a real processor's tables does. An entry has a wp
 * bit, may be empty, and knows whether there is content to map. Code that is to be seen by it stores through
 * fake_write() and loads through fake_read(): what is stopped by a wp bit, by an empty entry of a range that is
 * registered for missing pages or minor faults, or by mprotect(), either has the process's handler of SIGBUS or SIGSEGV
 * called in its own thread, as the kernel would call it, with the address and the kind of access (which a signal that a
 * process sends to itself could not carry); or it leaves a message in the uffd and sleeps until a wake covers its
 * address. A uffd is an eventfd that is readable while messages wait. Everything else goes to the real kernel, but for
 * the discarding and swapping out of registered memory, hole punches, the reading of registered memory, and what
 * pagemap and mincore() say of it, which are played as well.
 *
 * As the kernel does: a call that changes protection or fills an entry answers -EAGAIN while a thread waits for its
 * event to be read; wp bits survive all but MADV_DONTNEED on anonymous memory, unless this kernel has no markers; an
 * empty entry is reported before its wp bit is; UFFDIO_CONTINUE without the mode wipes a wp bit, and UFFDIO_ZEROPAGE
 * refuses one on anonymous memory; faults are read before events; closing and unregistering resume all waiters.
 *
 * Threads: any. Hooks are called by the thread that does the thing, with nothing locked.
 */
#ifndef SUPPORT_FAKE_H
#define SUPPORT_FAKE_H

#include <stddef.h>
#include <stdint.h>

#include "kernel/kernel.h"

/* Where a test looks in or steps between; each may be NULL. */
struct fake_hooks {
	void (*armed)(void *user); /* the wp bits are set, the arming call has not returned */
	void (*disarming)(void *user, uint64_t start, uint64_t length); /* the wp bits are still set */
	void (*faulting)(void *user); /* a writer met a wp bit, no other thread knows it yet */
	void (*reading)(void *user);  /* a uffd is about to be read */
	void (*has_read)(void *user); /* messages were read, and not acted on yet */
	void (*sleeping)(void *user); /* a thread is about to sleep on a futex */
	void *user;
};

/* What the kernel is like. A runtime asks when it opens its first region of a memory. */
struct fake_kind {
	int no_userfaultfd;     /* negative errno: no access to one; 0: there is */
	int no_markers;         /* an empty entry has no wp bit: emptying it clears the bit, arming it sets none */
	int no_wp_continue;     /* UFFDIO_CONTINUE_MODE_WP is not known (before Linux 6.4) */
	uint64_t refused_modes; /* UFFDIO_REGISTER_MODE_*: registration for any of these answers -EINVAL */
};

/* It is like this from now on; NULL: it can all. Stays the caller's. */
void fake_be(const struct fake_kind *kind);

/* The table of operations. */
const struct kernel_ops *fake_kernel(void);

/* The hooks from now on, NULL: none. They stay the caller's, and must outlive every thread that may call them. */
void fake_hook(const struct fake_hooks *hooks);

/* Every n-th change of protection answers -EAGAIN; 0: none. */
void fake_again_every(unsigned n);

/* Every change of protection answers -EAGAIN until some thread sleeps on a futex: the owner of an event has no CPU
 * before. */
void fake_again_until_sleep(void);

/* Arming stops in the middle with this negative errno; 0: it works. */
void fake_refuse_arming(int error);

/* Disarming does nothing and answers this negative errno; 0: it works. */
void fake_refuse_disarming(int error);
/* How often that was so. */
unsigned fake_refusals(void);

/* A store by user code: waits wherever a store to protected memory would. */
void fake_write(void *to, const void *from, size_t length);

/* A load by user code. */
void fake_read(const void *from, void *to, size_t length);

/* 1: the page at this address carries a wp bit, or is read-only. */
int fake_is_armed(const void *address);

/* 1: its entry is empty, and the next access of any kind comes as a fault. */
int fake_is_empty(const void *address);

/* The wp bit is cleared without a report: what a zap does on a kernel without markers. */
void fake_strip(void *address);

/* How many writers sleep in a fault with a message that was read and were not woken. */
unsigned fake_asleep(void);

#endif
