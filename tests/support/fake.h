/* SPDX-License-Identifier: MIT */
/*
 * The fake kernel: userfaultfd write protection played in plain memory. It needs no privilege and no userfaultfd, and
 * every step of it is ordinary C, which the thread sanitizer follows.
 *
 * Memory is real and never protected. The "page table" is a mark and a mutex for each page of a registered range; the
 * mutex orders a store and a change of the mark as the flush of a real processor's tables does. Who wants to be seen by
 * it stores through fake_write(): where the mark is on, the writer either gets a SIGBUS of its own
 * (UFFD_FEATURE_SIGBUS, the signal is real), or leaves a message in the uffd and sleeps until a wake covers its
 * address. A uffd is an eventfd that is readable while messages wait. Everything that is not userfaultfd goes to the
 * real kernel, but for the discarding of anonymous memory, the reading of registered memory and the marks in the page
 * map, which are played as well.
 *
 * As the kernel does: a call that changes protection answers -EAGAIN while a thread waits for its event to be read;
 * marks survive all but MADV_DONTNEED on anonymous memory; faults are read before events; closing and unregistering let
 * everybody go.
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
	void (*armed)(void *user); /* the marks are on, the arming call has not returned */
	void (*disarming)(void *user, uint64_t start, uint64_t length); /* the marks are still on */
	void (*faulting)(void *user);                                   /* a writer met a mark, nobody knows it yet */
	void (*reading)(void *user);                                    /* a uffd is about to be read */
	void (*has_read)(void *user); /* messages were read, nobody has acted on them yet */
	void *user;
};

/* The table of operations. */
const struct kernel_ops *fake_kernel(void);

/* The hooks from now on, NULL: none. They stay the caller's, and must outlive every thread that may call them. */
void fake_hook(const struct fake_hooks *hooks);

/* Every n-th change of protection answers -EAGAIN; 0: none. */
void fake_again_every(unsigned n);

/* Arming stops half-way with this negative errno; 0: it works. */
void fake_refuse_arming(int error);

/* A store by user code: waits wherever a store to protected memory would. */
void fake_write(void *to, const void *from, size_t length);

/* A load by user code. */
void fake_read(const void *from, void *to, size_t length);

/* 1: the mark of the page at this address is on. */
int fake_is_armed(const void *address);

/* How many writers sleep in a fault whose message was read and who were not woken. */
unsigned fake_asleep(void);

#endif
