/* SPDX-License-Identifier: MIT */
/*
 * The region, which part of it the program has, and in which of three phases this process is.
 *
 * OUT:     the region does not exist, or is empty in a child of a plain fork: all calls are the kernel's.
 * SERVING: new mappings may come from the region.
 * CHILD:   a child of ours. The region's range, up to the length that it had, holds private mappings, and reservations
 *          where there are none; nothing new is taken from it.
 *
 * Threads: the arena and the table of rights belong to the lock, the rest is written before the phase or with it. The
 * thread that has the lock has all signals blocked but those of faults: a handler that forks cannot find it taken.
 * Never: a call of the library, or a touch of the region, under the lock: fork takes it after the library's locks.
 */
#ifndef UFFDWP_FORK_HEAP_H
#define UFFDWP_FORK_HEAP_H

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "arena.h"
#include "uffdwp.h"

enum heap_phase { HEAP_OUT, HEAP_SERVING, HEAP_CHILD };

struct heap {
	_Atomic int phase; /* enum heap_phase */
	uintptr_t base;
	uint64_t capacity;       /* 0: no address is the region's */
	_Atomic uint64_t length; /* of the region's file */
	size_t page_bytes;
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	int fd;      /* the region's file; the library's */
	ino_t inode; /* of that file */
	int proc;    /* /proc as it was at the start; -1: not known */
	struct arena arena;
	_Atomic int
	        *own; /* 1 in the process that has written it, 0 in a child that was forked since: its page is wiped */
	_Atomic int paused;             /* forks that need an empty region: nothing is taken from it meanwhile */
	_Atomic uint64_t outside_bytes; /* of mappings that might have gone to the region, until `small_bytes` */
};

extern struct heap heap;

/* 1 in a thread whose mappings are never the region's, because it is inside of the library. */
extern _Thread_local int heap_is_inside __attribute__((tls_model("initial-exec")));

/* Signals are blocked for a call of the library, which must not be interrupted by a handler that forks. */
void heap_block_signals(sigset_t *before);
void heap_restore_signals(const sigset_t *before);

/* The same and the lock. */
void heap_lock(sigset_t *before);
void heap_unlock(const sigset_t *before);

/* The lock alone, where signals are blocked already. */
void heap_lock_bare(void);
void heap_unlock_bare(void);

/* In a child of a plain fork, which has one thread: the lock is free; and nothing of the parent's is left. */
void heap_renew_lock(void);
void heap_renew(void);

/* The part [*start, *end) of a range of addresses that is the region's, as offsets. 0: none. */
int heap_overlap(const void *address, size_t length, uint64_t *start, uint64_t *end);

/* 1: `fd` is the region's file still. */
int heap_has_file(void);

/* 1: the region is dead: nothing of it is armed, and no cut of it is made, ever again. */
int heap_is_dead(void);

/* Opens a file of /proc by its path after that, as open(2): also after chroot(2), and where descriptors were closed. */
int heap_open_proc(const char *path, int flags);

/* Has the file grown to `end` bytes. 0 or -errno. */
int heap_reach(uint64_t end);

static inline char *heap_at(uint64_t offset)
{
	return (char *)heap.base + offset; /* NOLINT(performance-no-int-to-ptr): an address of our own */
}

static inline uint64_t heap_round(uint64_t length)
{
	return (length + heap.page_bytes - 1) & ~(uint64_t)(heap.page_bytes - 1);
}

#endif
