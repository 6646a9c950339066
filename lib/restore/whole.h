/* SPDX-License-Identifier: MIT */
/*
 * A whole restore: an image, raw or a chain, into a region, all of it before the call returns.
 *
 * First nothing is armed any more and the region's content is discarded, where the raw file does not bring every byte
 * of it anew, so that all the rest is zeros. Then the image comes in blocks of 1 MiB. A block's data in the raw file is
 * read straight to its place, by a second mapping of the region's file, which no userfaultfd is registered with; pages
 * of deltas are laid over it by the checked reader. Where no byte of an image is stored nothing is done, and the region
 * keeps its holes.
 *
 * Places: shmem and huge pages whose file is known have the second mapping; where an access to an empty entry does not
 * come to us the region itself serves (SELF); elsewhere (anonymous memory by rearm, a sealed file) the bytes go through
 * a buffer, page by page.
 *
 * What must never happen: an error without its place, or success before all that can be checked was.
 *
 * Threads: the caller's reads raw data, several requests at a time; some more of the restore's own lay pages of deltas
 * over it, or read, where io_uring is not available. The region's lock is held from the first change to the last, so
 * that callers that want a snapshot, a view or a collect wait.
 */
#ifndef UFFDWP_RESTORE_WHOLE_H
#define UFFDWP_RESTORE_WHOLE_H

#include "image/chain.h"
#include "region/region.h"
#include "uffdwp.h"

struct whole_request {
	const char *path;
	struct chain_options chain;
	unsigned threads; /* 1 to RESTORE_THREADS_MAX */
	int no_uring;
	uffdwp_progress_fn progress; /* NULL: none */
	void *progress_user;
};

/* 0 or -errno, with the region's text; *progress is filled in both cases. */
int whole_restore(struct uffdwp_region *region, const struct whole_request *request,
                  struct uffdwp_restore_progress *progress);

#endif
