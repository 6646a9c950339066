/* SPDX-License-Identifier: MIT */
/*
 * Write protection by bare system calls, outside of the library: memory registered for UFFDIO_REGISTER_MODE_WP and
 * nothing else, and a thread that clears the wp bit of a page that is written. It knows of a write what the kernel
 * reports. Where a wp bit is lost it misses the write, and that is what it is for: tests show with it that they would
 * notice.
 */
#ifndef SUPPORT_BARE_H
#define SUPPORT_BARE_H

#include <pthread.h>
#include <stddef.h>

#include "place.h"

struct bare {
	struct patch patch;
	size_t pages;
	int uffd;
	pthread_t thread;
	_Atomic uint8_t *armed; /* by page: no write has been seen since bare_arm() */
	_Atomic int stop;
};

/* 0, or -errno: this kernel does not write-protect such memory. */
int bare_open(struct bare *bare, enum uffdwp_memory memory, size_t pages);
void bare_close(struct bare *bare);

void bare_arm(struct bare *bare);

/* Empties the entries of pages [page, page + pages) and clears the wp bits that the kernel left there. Not beside
 * writers. */
void bare_lose(struct bare *bare, size_t page, size_t pages);

#endif
