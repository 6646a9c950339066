/* SPDX-License-Identifier: MIT */
/* Part of uffdwp.h, whose top states what the library cannot see and the conventions that hold for all calls. Here:
 * images back into regions. */
#ifndef UFFDWP_RESTORE_H
#define UFFDWP_RESTORE_H

#include "region.h"

#ifdef __cplusplus
extern "C" {
#endif

/* The file is raw, also if it begins as a delta does. */
#define UFFDWP_RESTORE_RAW (1u << 0)

/* Only accesses fetch: each brings its page and its neighbours up to 64 KiB, up to 1 MiB where accesses go upwards
 * (pages_demand counts the pages that were waited for, not their neighbours). With this flag uffdwp_restore_wait()
 * returns only when every page has been touched, or read by a snapshot, or the restore was aborted; give it a
 * timeout. */
#define UFFDWP_RESTORE_BEGIN_ON_DEMAND (1u << 1)

struct uffdwp_restore_options {
	size_t sz;                /* sizeof(struct uffdwp_restore_options) */
	uint32_t flags;           /* UFFDWP_RESTORE_*; _BEGIN_*: uffdwp_restore_begin() only */
	uint32_t threads;         /* that fetch, 1 to 64; 0: 4 */
	const char *path;         /* the image: raw, or the newest delta of a chain */
	const char *const *paths; /* files that may be its ancestors, as of uffdwp_image_options; NULL: beside it */
	size_t path_count;        /* of paths */

	/* uffdwp_restore() only: gets how far it is, of the image's length, as that of uffdwp_image_progress(); it must
	 * not use the region. NULL: none */
	uffdwp_progress_fn progress;
	void *progress_user;   /* for progress */
	uint64_t touches_max;  /* _begin(): first accesses that are noted for uffdwp_restore_touched(); 0: none */
	const uint64_t *first; /* _begin(): offsets whose pages are fetched before all others that no access waits for,
	                        * in this order; NULL: none. They are copied */
	size_t first_count;    /* of first, at most the pages of the image */
};
#define UFFDWP_RESTORE_OPTIONS_INIT UFFDWP_INIT(struct uffdwp_restore_options)

enum uffdwp_restore_state {
	UFFDWP_RESTORE_STATE_RUNNING = 0, /* pages are being fetched */
	UFFDWP_RESTORE_STATE_DONE = 1,    /* all are there */
	UFFDWP_RESTORE_STATE_FAILED = 2   /* some are not; `error` says why */
};

struct uffdwp_restore_progress {
	size_t sz;             /* set by the caller */
	uint32_t state;        /* enum uffdwp_restore_state */
	int32_t error;         /* the first, negative errno; 0: none */
	uint64_t error_offset; /* in the region */
	uint64_t length_bytes; /* of the image */
	uint64_t pages_total;  /* of the region, that the image covers */
	uint64_t pages_done;   /* that are there, or were discarded since */
	uint64_t pages_demand; /* of these, fetched because a thread waited */
	uint64_t pages_failed; /* that could not be fetched: accessing them raises SIGBUS */
	uint64_t bytes_read;   /* of the image's content */
	uint64_t begin_ns;     /* what begin took: from then on the memory may be used */
	uint64_t elapsed_ns;   /* since begin was called; of one that ended, until then */
	uint32_t direct;       /* 1: past the page cache (O_DIRECT) */
	uint32_t uring;        /* 1: by io_uring */
};

/*
 * Reads an image into a region, whole, and returns when all of it is there. The region may have any length that the
 * image fits in, and lie at any address: uffdwp_image_open() and uffdwp_image_info() give length_bytes (a region has
 * whole pages: round it up); a memory full of pointers needs the address that it had (`address` in struct
 * uffdwp_region_options). The region's content is discarded; beyond the image's end it is zeros. No other thread may
 * use the memory meanwhile. The image must not be longer than the region. All that has checksums is checked, and of a
 * chain also that the raw image is the right one. `progress`, if it is not NULL, is filled in any case but -ECHILD and
 * -EINVAL (sz). Any thread. Any region but one of other processes' private memory; tracks report all of it as written.
 *
 * A file that does not begin as a delta does is a raw image of its own length, whatever it holds, and a raw image alone
 * has no checksum: one that was cut off restores as a shorter one, with 0. Compare length_bytes with what you expect.
 *
 * Errors, the content is undefined then: those of uffdwp_image_open(), -EINVAL, -E2BIG, -ERANGE (the image is longer
 * than the region), -EBUSY (a snapshot or a restore has not been freed, a view is open, or a child lives), -ESTALE
 * (dead), -EBADMSG (a file is damaged: the text names the place), -EXDEV (the raw image is not the one that its child
 * names), -EFBIG (that one is longer than 128 TiB), -EIO, -ENOMEM, and what the options' `progress` returned. Since
 * 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_restore(struct uffdwp_region *region,
                                                   const struct uffdwp_restore_options *options,
                                                   struct uffdwp_restore_progress *progress);

/* A lazy restore that runs. */
struct uffdwp_restore;

/*
 * Begins to read an image into a region and does not wait for it. First the region's content is discarded, which takes
 * as long as freeing it does: no other thread may use the memory until this call has returned. From then on it may be
 * used, written, armed, tracked and snapshotted. A page is fetched at its first access, which waits for it (one by a
 * barrier or by uffdwp_restore_check() is an access, too), or by threads of the library that fetch the rest meanwhile.
 *
 * A page that cannot be read, or is damaged, raises SIGBUS when it is accessed (a system call fails with EFAULT), and
 * is counted in the progress; it never shows zeros. In its handler uffdwp_restore_check() says why: the offset is the
 * address in siginfo less uffdwp_region_base(); the program keeps the restore's handle for that. A snapshot that needs
 * the page fails with the same error, or with -ENOLINK where the restore was aborted or freed. The page stays so until
 * it is discarded by uffdwp_region_punch(), or the region is restored anew or closed.
 *
 * Only for regions whose mechanism sees accesses to empty pages, which only UFFDWP_MECHANISM_REARM does; AUTO does not
 * take it on a current kernel, so name it when the region is created. It stays the region's mechanism afterwards: the
 * first touch of a page that was never touched, or was lost, costs a fault. While a lazy restore is not freed, no view
 * can be opened and no second restore begun. Without UFFDIO_POISON (before Linux 6.6) name
 * UFFDWP_DELIVERY_INLINE, too, which AUTO does not take: system calls then need barriers.
 * Not seen: other mappings of the same file, and read(2) on it, show holes until a page was fetched; content that was
 * not fetched yet can be discarded by uffdwp_region_punch() only. The files of the chain must stay as they are until
 * the restore was freed. Only the length of a chain's raw image is checked, as by uffdwp_image_open(): a lazy restore
 * does not notice that it was replaced by another file of the same length, and shows wrong memory. Run
 * uffdwp_image_verify() first if that can have happened; uffdwp_restore() does it.
 *
 * With `first` these pages are fetched before the others, each with its neighbours up to 64 KiB, and after what an
 * access waits for; with UFFDWP_RESTORE_BEGIN_ON_DEMAND they alone come without an access. It costs 8 bytes for each of
 * them until the restore is freed.
 *
 * Errors, nothing changed: those of uffdwp_image_open(), -EINVAL (also more of `first` than the image has pages),
 * -E2BIG, -ERANGE (the image is longer than the region, or an offset of `first` lies beyond its end), -EBUSY (a
 * snapshot or a restore has not been freed, a view is open, or a child lives), -EOPNOTSUPP (the mechanism or delivery,
 * see above; private memory of another process that was restored already), -EPERM (a sealed region), -ESTALE, -EAGAIN
 * (no thread), -ENOMEM. Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_restore_begin(struct uffdwp_region *region,
                                                         const struct uffdwp_restore_options *options,
                                                         struct uffdwp_restore **out);

/* Looks at a restore without waiting. -EINVAL (sz too small). Since 0.1. */
UFFDWP_EXPORT int uffdwp_restore_poll(struct uffdwp_restore *restore, struct uffdwp_restore_progress *progress);

/* Gives a descriptor of a restore for event loops: it becomes readable when the restore has ended; as
 * uffdwp_snapshot_fd(). Returns the descriptor, or a negative errno. -EMFILE, -ENFILE, -ENOMEM. Since 0.1. */
UFFDWP_EXPORT int uffdwp_restore_fd(struct uffdwp_restore *restore);

/*
 * Asks a restore to end: what was not fetched fails with -ECANCELED, and accessing it raises SIGBUS, as after
 * uffdwp_restore_free(). Does not wait. Nothing happens if it has ended already. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_restore_abort(struct uffdwp_restore *restore);

/*
 * Waits until a restore has ended: until all pages are there, or timeout_ms have passed (-1, or any below 0: for ever;
 * 0: only looks). Returns 0: all are there; -ETIMEDOUT: it still runs (none ends with that: such an error of a file
 * becomes -ETIME); else the error that the restore ended with when everything that can be fetched was: -ECANCELED
 * (aborted), -EBADMSG (a file is damaged), -EIO, -ESTALE (the region is dead), or what else reading the files answered.
 * `progress` may be NULL; it is filled in any case, also on -ETIMEDOUT, but not on -EINVAL (sz too small) and -ECHILD.
 * After an error the pages that were not fetched raise SIGBUS when they are accessed. Any thread. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_restore_wait(struct uffdwp_restore *restore, int timeout_ms,
                                      struct uffdwp_restore_progress *progress);

/* Says why a restore failed, and where. Returns the length of the text, which is copied as by uffdwp_error_text();
 * empty before uffdwp_restore_wait() answered so. Since 0.1. */
UFFDWP_EXPORT size_t uffdwp_restore_text(struct uffdwp_restore *restore, char *buffer, size_t size);

/*
 * Waits for pages of a lazy restore: until those of [offset, offset + length) are there, for callers that want an error
 * instead of SIGBUS. Returns 0, also where the restore has nothing to fetch; or the error of the first page that could
 * not be fetched. The range need not be aligned. Async-signal-safe. -ERANGE (outside), -EOVERFLOW. Forms no text. Since
 * 0.1.
 */
UFFDWP_EXPORT int uffdwp_restore_check(struct uffdwp_restore *restore, uint64_t offset, uint64_t length);

/*
 * Gives the order in which pages of a lazy restore were accessed before they were there: the offsets of the first
 * `capacity` of them, and in *count how many were noted, which may be more. A list for `first` of the next restore of
 * the same image, in any process. Pages that came along with another, or in the background, before their first access
 * are not among them; with UFFDWP_RESTORE_BEGIN_ON_DEMAND fewer come unasked. At any time until the restore is freed;
 * accesses that come at the same moment may be in either order, or in the next answer. Any thread.
 *
 * Only so many as touches_max are noted. That costs 8 bytes for each and a bit for each page of the image, taken when
 * the restore begins, and two atomic operations for each such access.
 *
 * Returns 0; -EINVAL (count is NULL, or offsets is with a capacity). Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_restore_touched(struct uffdwp_restore *restore, uint64_t *offsets, size_t capacity,
                                         size_t *count);

/*
 * Ends a restore, with its threads and files. Pages that were not fetched until then fail with -ECANCELED: accessing
 * them raises SIGBUS. NULL is ignored. To be called before the region is closed; no other thread may use the handle any
 * more. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_restore_free(struct uffdwp_restore *restore);

#ifdef __cplusplus
}
#endif

#endif
