/* SPDX-License-Identifier: MIT */
/*
 * A lazy restore: an image becomes the content of a region that is in use meanwhile.
 *
 *   begin    the image is open, all memory is there, the threads run; then, with the region's lock held, the restore is
 *            published and the region's content is discarded. From here on an access to any page waits for its content.
 *   running  threads read the image, what was asked for first, and hand it to fault/supply.c.
 *   end      no page is absent; the threads have left. What could not be fetched has failed, page by page, and stays
 *            so.
 *   free     what is absent still fails (-ECANCELED). The table of pages goes, or the region keeps it: as long as some
 *            page has failed it is needed to say so.
 *
 * What the fault path does with it, and why (INV-ABSENT), is said in region/lazy.h.
 *
 * Threads: those of the restore read files and never touch the region's memory; they wait for files, and for moments
 * while faults are stalled. No lock is taken by them. Callers: any.
 */
#ifndef UFFDWP_RESTORE_RESTORE_H
#define UFFDWP_RESTORE_RESTORE_H

#include <pthread.h>

#include "base/text.h"
#include "image/chain.h"
#include "kernel/order.h"
#include "region/lazy.h"
#include "region/region.h"
#include "uffdwp.h"

#define RESTORE_THREADS_MAX 64
#define RESTORE_THREADS_DEFAULT 4

/* What one read takes at most, if a page is not larger. */
#define RESTORE_RUN_BYTES (1u << 20)

/* What one access takes along, at first and where accesses go upwards. */
#define RESTORE_AHEAD_BYTES (64u << 10)

struct fetcher {
	struct uffdwp_restore *restore;
	pthread_t thread;
	unsigned char *buffer; /* of run_pages */
	int on_demand;         /* it only fetches what was asked for */
	int takes_first;       /* and, before all else that is not, what the caller has listed */
	int is_nice;           /* another does */
};

struct uffdwp_restore {
	const struct kernel_ops *k;
	struct uffdwp_region *region;
	struct lazy *lazy;
	struct uffdwp_image *image;
	struct text text; /* why it failed */
	uint64_t run_pages;
	struct order order; /* the threads wait for it at first */

	uint64_t *first; /* pages that the caller wants first, in order; NULL: none */
	uint64_t first_count;
	_Atomic uint64_t first_next; /* those before it were handed to some thread */
	_Atomic uint64_t cursor;     /* pages before it were handed to some thread that fetches in order */
	_Atomic uint64_t ahead; /* where the last window of an access ended, and its width: end << 16 | pages; a hint */
	_Atomic uint64_t bytes_read;
	uint64_t begun_ns;
	uint64_t begin_ns;          /* what begin took */
	struct roster_entry roster; /* there, where the program has control */
	_Atomic uint64_t ended_ns;

	unsigned char *buffers;
	uint64_t buffer_bytes;
	struct fetcher fetchers[RESTORE_THREADS_MAX];
	unsigned thread_count;
};

struct restore_request {
	const char *path;
	uint32_t flags; /* UFFDWP_RESTORE_* */
	unsigned threads;
	const char *const *paths;
	size_t path_count;
	uint64_t touches_max;
	const uint64_t *first;
	size_t first_count;
};

int restore_begin(struct uffdwp_region *region, const struct restore_request *request, struct text *text,
                  struct uffdwp_restore **out);
void restore_progress(const struct uffdwp_restore *restore, struct uffdwp_restore_progress *progress);
int restore_wait(struct uffdwp_restore *restore, int timeout_ms);

/* A descriptor that becomes readable at the end, made once; takes the region's lock. -errno. */
int restore_fd(struct uffdwp_restore *restore);
void restore_free(struct uffdwp_restore *restore);

/* fetch.c: what a thread does. */
void *fetch_main(void *fetcher);

/* -EINVAL: some file of the chain is the region's own, which would be discarded before it is read. */
int restore_check_files(const struct uffdwp_region *region, const struct uffdwp_image *image);

#endif
