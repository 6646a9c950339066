/* SPDX-License-Identifier: MIT */
/* Part of uffdwp.h, which includes it: images back into regions. The conventions are those told there. */
#ifndef UFFDWP_RESTORE_H
#define UFFDWP_RESTORE_H

#include "../uffdwp.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The file is raw, also if it begins as a delta does. */
#define UFFDWP_RESTORE_RAW (1u << 0)

/* Nobody fetches what is not accessed: a lazy restore ends when the last page was touched, or is aborted. */
#define UFFDWP_RESTORE_ON_DEMAND (1u << 1)

struct uffdwp_restore_options {
	size_t sz;                /* sizeof(struct uffdwp_restore_options) */
	uint32_t flags;           /* UFFDWP_RESTORE_* */
	uint32_t threads;         /* that fetch, 1 to 64; 0: 4 */
	const char *path;         /* the image: raw, or the newest delta of a chain */
	const char *const *paths; /* where its ancestors may be, as of uffdwp_image_options; NULL: beside it */
	size_t path_count;
};
/* clang-format off */
#define UFFDWP_RESTORE_OPTIONS_INIT { sizeof(struct uffdwp_restore_options), 0, 0, NULL, NULL, 0 }
/* clang-format on */

enum uffdwp_restore_state { UFFDWP_RESTORE_RUNNING = 0, UFFDWP_RESTORE_DONE = 1, UFFDWP_RESTORE_FAILED = 2 };

struct uffdwp_restore_progress {
	size_t sz;             /* set by the caller */
	uint32_t state;        /* enum uffdwp_restore_state */
	int32_t error;         /* the first, negative errno; 0: none */
	uint64_t error_offset; /* in the region */
	uint64_t length_bytes; /* of the image */
	uint64_t pages_total;  /* of the region, that the image covers */
	uint64_t pages_done;   /* that are there, or were discarded since */
	uint64_t pages_demand; /* of these, fetched because somebody waited */
	uint64_t pages_failed; /* that could not be fetched: accessing them raises SIGBUS */
	uint64_t bytes_read;   /* of the image's content */
	uint64_t begin_ns;     /* what begin took: from then on the memory may be used */
	uint64_t elapsed_ns;   /* since begin was called; of one that ended, until then */
	uint32_t direct;       /* 1: past the page cache (O_DIRECT) */
	uint32_t uring;        /* 1: by io_uring */
};

/*
 * Reads an image into a region, whole, and returns when all of it is there. What the region held is discarded; behind
 * the image's end it is zeros. Nobody else may use the memory meanwhile. The image must not be longer than the region.
 * All that has checksums is checked, and of a chain also that the raw image is the right one. `progress`, if it is not
 * NULL, is filled in any case but -EINVAL (sz). Any thread.
 *
 * Errors, the content is undefined then: those of uffdwp_image_open(), -EINVAL, -E2BIG, -ERANGE (the image is longer
 * than the region), -EBUSY (a snapshot or a restore has not been freed, or a view is open), -ESTALE (unmapped),
 * -EBADMSG (damaged: the text names the place), -EXDEV (the raw image is not the one that its child names), -EIO,
 * -ENOMEM. Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_restore(struct uffdwp_region *region,
                                                   const struct uffdwp_restore_options *options,
                                                   struct uffdwp_restore_progress *progress);

/* A lazy restore that runs. */
struct uffdwp_restore;

/*
 * Begins to read an image into a region and returns at once: the memory may be used, written, armed, tracked and
 * snapshotted from now on. A page is fetched at its first access, which waits for it, or by threads of the library that
 * fetch the rest meanwhile. What the region held is discarded before, which takes as long as freeing it does.
 *
 * A page that cannot be read, or is damaged, raises SIGBUS when it is accessed, and is told by the progress; it never
 * shows zeros. A snapshot that needs it fails with the same error. So it stays until it is discarded by
 * uffdwp_region_punch(), or the region is restored anew or closed.
 *
 * Of regions whose mechanism sees accesses to empty pages: ask for UFFDWP_MECHANISM_REARM when the region is made.
 * Without UFFDIO_POISON (before Linux 6.6) inline delivery is needed, too. Not seen: other mappings of the same file,
 * and read(2) on it, show holes until a page was fetched; content that was not fetched yet can be discarded by
 * uffdwp_region_punch() only. The files of the chain must stay as they are until the restore was freed. Of a chain's
 * raw image only the length is checked, as by uffdwp_image_open().
 *
 * Errors, nothing changed: those of uffdwp_image_open(), -EINVAL, -E2BIG, -ERANGE (the image is longer than the
 * region), -EBUSY (a snapshot or a restore has not been freed, or a view is open), -EOPNOTSUPP (the mechanism or
 * delivery, see above), -EPERM (a sealed region), -ESTALE, -EAGAIN (no thread), -ENOMEM. Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_restore_begin(struct uffdwp_region *region,
                                                         const struct uffdwp_restore_options *options,
                                                         struct uffdwp_restore **out);

/*
 * Waits until all pages are there, or timeout_ms have passed (-1: for ever; 0: only looks). 0: all are there;
 * -ETIMEDOUT: still running; else the error that the restore ended with when everything that can be fetched was.
 * `progress` may be NULL. Any thread. -EINVAL (sz too small). Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_restore_wait(struct uffdwp_restore *restore, int timeout_ms,
                                      struct uffdwp_restore_progress *progress);

/*
 * Waits until the pages of [offset, offset + length) are there: for callers who want an error instead of SIGBUS. 0,
 * also where the restore has nothing to fetch; or the error of the first page that could not be fetched. The range need
 * not be aligned. Async-signal-safe. -ERANGE (outside of the region), -EOVERFLOW. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_restore_check(struct uffdwp_restore *restore, uint64_t offset, uint64_t length);

/*
 * Ends it, with its threads and files. Pages that were not fetched until then fail with -ECANCELED: accessing them
 * raises SIGBUS. NULL is nothing. To be called before the region is closed; nobody else may use the handle any more.
 * Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_restore_free(struct uffdwp_restore *restore);

#ifdef __cplusplus
}
#endif

#endif
