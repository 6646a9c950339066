/* SPDX-License-Identifier: MIT */
/*
 * The memory of another process, watched from outside: its userfaultfd, pagemap and maps, as its shim handed them over.
 *
 * Asynchronous write protection: the kernel itself clears a wp bit when its page is written, PAGEMAP_SCAN lists the
 * pages without one and sets the wp bits again, in one step against writers. Parts of a mapping that were never
 * registered are noticed by the scan (EPERM) and registered then: so all memory that is new counts as written, once,
 * and nothing that lives at a collect is missed. Pages without content (never touched, only read as zeros, only read
 * from their file) do not count.
 *
 * One thread. Nothing here waits for the process. When this process ends, however, the kernel clears every wp bit and
 * the program runs on.
 */
#ifndef UFFDWP_DIRTY_TARGET_H
#define UFFDWP_DIRTY_TARGET_H

#include <stdint.h>
#include <sys/types.h>

#include "hello.h"
#include "maps.h"

struct target {
	pid_t pid;    /* 0: none */
	pid_t holder; /* 0: none, the memory goes with the program */
	int fds[HELLO_FDS];
	struct page_region *found; /* all zero between two scans */
	struct maps maps;
	int maps_error;   /* of the last read */
	uint64_t refused; /* bytes that another userfaultfd has, or that cannot be registered: at the last collect */
	int refused_error;
};

/* Takes over the descriptors, also on failure. 0, or -errno with the name of the step that failed. */
int target_open(struct target *target, pid_t pid, const struct hello *hello, const int fds[HELLO_FDS],
                const char **failed);

/* Ends the holder: what is left of the memory is given back. */
void target_close(struct target *target);

/* The holder is gone while the program runs: its maps are read from now on. */
void target_lose_holder(struct target *target);

/* Reads the mappings. 0; -ESRCH: the memory is gone; -errno. */
int target_look(struct target *target);

/* A run of pages. huge: a transparent huge page, of which no part is known better. */
typedef void (*target_fn)(void *user, uint64_t start, uint64_t end, int huge);

/* What of a mapping was written since the last call, all that it holds if it is new. 0, -ESRCH, -errno. */
int target_collect(struct target *target, const struct mapping *mapping, target_fn each, void *user);

/* What a mapping holds. Changes nothing. */
int target_populated(struct target *target, const struct mapping *mapping, target_fn each, void *user);

/* 1: the process runs another program by now: this memory is a thing of the past. */
int target_is_left(const struct target *target);

#endif
