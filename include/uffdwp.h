/* SPDX-License-Identifier: MIT */
/*
 * libuffdwp: "this page is about to be written", for programs that need to know.
 *
 * READ THIS FIRST: what the library cannot see
 * --------------------------------------------
 * Writes are caught in the page tables of this process, for the mapping that was given. Content changes unseen by
 *
 *  1. write(2), pwrite(2), fallocate(2), ftruncate(2) on the memfd (UFFDWP_REGION_SEALED makes the kernel refuse them);
 *  2. any other mapping of the same memory, in this process or in another (sealed regions forbid new ones; attach
 *     refuses where it sees another writable one in this process, see UFFDWP_REGION_ALIASED);
 *  3. devices that write into pages pinned before they were armed (RDMA, io_uring fixed buffers, vfio);
 *  4. a child after fork(): its writes are not seen, whatever its copy of the page tables carries. Created regions are
 *     MADV_DONTFORK unless UFFDWP_REGION_INHERIT was asked for, so that the child has no such mapping at all;
 *  5. MADV_REMOVE and hole punches behind the library's back: use uffdwp_region_punch(), which preserves first. A
 *     snapshot compares the data extents at its cut with what its sweep finds, and fails if content vanished. It cannot
 *     see a hole that was filled again before the sweep came by; nor, of memory attached without its fd, what
 *     fallocate(2) and ftruncate(2) did (there any madvise(2) that may discard fails it);
 *  6. under UFFDWP_MECHANISM_MPROTECT the kernel tells no events: memory that is attached must not be moved or
 *     unmapped, and anonymous memory that was discarded by madvise(2) and written again before the sweep came by is
 *     not noticed.
 *
 * Under UFFDWP_DELIVERY_INLINE a system call that writes into an armed page (read(2) into it, for example) fails with
 * EFAULT instead of waiting: call uffdwp_prepare_write() on the buffer first, or choose UFFDWP_DELIVERY_THREAD, where
 * system calls simply wait (unless only UFFD_USER_MODE_ONLY was to be had: uffdwp-ctl doctor says so). With
 * UFFDWP_MECHANISM_REARM and _MINOR that holds for reads from pages that were never touched or were lost, too: the
 * barrier fills them. A thread that blocks SIGBUS (SIGSEGV with UFFDWP_MECHANISM_MPROTECT) must not write to such a
 * region, and a handler of that signal that is installed later must pass on what is not its own. (Kernel:
 * Documentation/admin-guide/mm/userfaultfd.rst, UFFD_FEATURE_SIGBUS.)
 *
 * Conventions
 * -----------
 * Functions return 0 (or a count) or a negative errno. Outputs come last and are written only on success. Every option
 * structure starts with its own size in `sz`; use the *_INIT macros. An unknown non-zero tail is -E2BIG, a size that is
 * too small or an unknown flag -EINVAL; NULL options mean the defaults. A text that says what was wrong and what to do
 * is kept per runtime: uffdwp_error_text(). Handles and outputs must not be NULL, except where *_close() and *_free()
 * take one and do nothing. Offsets and lengths are bytes; ranges are half-open.
 *
 * Processes: after fork() the child must not use the handles: it has none of the threads. Calls that open, close,
 * begin, wait or free answer -ECHILD there.
 *
 * Threads: all functions may be called from any thread unless they say otherwise; a handle must not be used while or
 * after it is closed. None may be called from a signal handler except uffdwp_prepare_write() and
 * uffdwp_region_locate(). Do not call the library while holding a lock that a thread takes while it faults, unless the
 * function says that it never waits for a fault.
 */
#ifndef UFFDWP_H
#define UFFDWP_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define UFFDWP_VERSION_MAJOR 0
#define UFFDWP_VERSION_MINOR 1
#define UFFDWP_VERSION_PATCH 0

#if defined(__GNUC__)
#define UFFDWP_EXPORT __attribute__((visibility("default")))
#define UFFDWP_MUST_CHECK __attribute__((warn_unused_result))
#else
#define UFFDWP_EXPORT
#define UFFDWP_MUST_CHECK
#endif

/* The version of the library that is linked, as "major.minor.patch". Never NULL. */
UFFDWP_EXPORT const char *uffdwp_version(void);

/* ---------------------------------------------------------------------------------------------------- the words -- */

/* What a region is made of. */
enum uffdwp_memory {
	UFFDWP_MEMORY_SHMEM = 0,   /* memfd, tmpfs file, MAP_SHARED|MAP_ANONYMOUS */
	UFFDWP_MEMORY_HUGETLB = 1, /* hugetlbfs or MAP_HUGETLB; armed and resolved in whole huge pages */
	UFFDWP_MEMORY_ANON = 2,    /* MAP_PRIVATE|MAP_ANONYMOUS */
	UFFDWP_MEMORY_COUNT = 3
};

/* How writes are caught: a ladder, the best rung first. */
enum uffdwp_mechanism {
	/* The first rung that a trial on this kernel proved, for this type of memory. */
	UFFDWP_MECHANISM_AUTO = 0,
	/* uffd-wp marks that the kernel keeps when it empties a page-table entry. */
	UFFDWP_MECHANISM_MARKER = 1,
	/* uffd-wp marks that a zap may take. Every access to an empty entry comes to the library first, which puts the
	 * mark back, or preserves: nothing passes unseen. First touches of pages cost a fault each. shmem and hugetlb
	 * need the file behind the mapping. */
	UFFDWP_MECHANISM_REARM = 2,
	/* Arming empties the page-table entries; the next access of any kind, reads too, counts as a write. shmem and
	 * hugetlb, with the file behind the mapping. */
	UFFDWP_MECHANISM_MINOR = 3,
	/* mprotect(2) and SIGSEGV: works where userfaultfd does not. Inline delivery only. */
	UFFDWP_MECHANISM_MPROTECT = 4,
	/* For tracks only: the kernel takes the mark off by itself, and PAGEMAP_SCAN collects. */
	UFFDWP_MECHANISM_ASYNC = 5,
	/* For tracks only: the kernel's soft-dirty bits, cleared for the whole process. */
	UFFDWP_MECHANISM_SOFT_DIRTY = 6,
	UFFDWP_MECHANISM_COUNT = 7
};

/* Those below may be a region's. */
#define UFFDWP_MECHANISM_REGION_COUNT 5

/* Who resolves a write fault. */
enum uffdwp_delivery {
	UFFDWP_DELIVERY_AUTO = 0,   /* THREAD where the mechanism can, else INLINE: uffdwp_region_info() says which */
	UFFDWP_DELIVERY_THREAD = 1, /* a handler thread of the runtime; the writer sleeps, system calls wait too */
	UFFDWP_DELIVERY_INLINE = 2  /* the writer itself, in a signal handler: faster, see the caveat on EFAULT above */
};

/* How a page that the library had armed came to be without its protection. */
enum uffdwp_loss {
	UFFDWP_LOSS_HOLE = 0, /* it has no content: punched, truncated, never written */
	UFFDWP_LOSS_SWAP = 1, /* it was swapped out */
	UFFDWP_LOSS_ZAP = 2,  /* its page-table entry was emptied, as by MADV_DONTNEED; of anonymous memory the content
	                       * went with it */
	UFFDWP_LOSS_UNMAPPED = 3, /* its mapping went away or was replaced */
	UFFDWP_LOSS_UNKNOWN = 4,  /* found by uffdwp_region_audit(), no event told of it */
	UFFDWP_LOSS_COUNT = 5
};

/* ------------------------------------------------------------------------------------------------------ runtime -- */

struct uffdwp;

#define UFFDWP_OPEN_NO_URING (1u << 0)  /* use epoll and pwrite even where io_uring is to be had */
#define UFFDWP_OPEN_USER_MODE (1u << 1) /* open every uffd UFFD_USER_MODE_ONLY, as an unprivileged process would */

struct uffdwp_options {
	size_t sz;                /* sizeof(struct uffdwp_options) */
	uint32_t flags;           /* UFFDWP_OPEN_* */
	uint32_t handler_threads; /* 1 to 64; 0: 2, or 1 on one CPU, as was measured (bench/README.md). A region is
	                           * served by one of them: more than there are regions idle */
	const char *handler_cpus; /* CPUs that handlers may run on, "0-3,8"; NULL: any, so that the scheduler can put
	                           * the handler beside the thread that faults */
	int32_t numa_node;        /* node of the handlers (their CPUs and stacks); -1: any */
	uint32_t reserved;        /* 0 */
};
/* clang-format off */
#define UFFDWP_OPTIONS_INIT { sizeof(struct uffdwp_options), 0, 0, NULL, -1, 0 }
/* clang-format on */

/*
 * Opens a runtime: finds a way to open a userfaultfd and starts the handler threads. Where there is no way (a kernel
 * without it, no right to it) only mechanism mprotect is left: uffdwp_error_text() of the runtime then says why and
 * what to change, and uffdwp_region_info() of each region which mechanism it got.
 *
 * Errors: -EINVAL (unknown flag, CPU list, node), -E2BIG, -EMFILE, -ENFILE, -ENOMEM, -EAGAIN (no thread). The text of a
 * failed open is uffdwp_error_text(NULL, ...) in the calling thread. Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_open(const struct uffdwp_options *options, struct uffdwp **out);

/*
 * Closes a runtime, ends its threads. -EBUSY while a region of it is open: nothing happened then. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_close(struct uffdwp *runtime);

/*
 * Copies the text of the last error of this runtime (NULL: of the last failed uffdwp_open() or uffdwp_probe() of this
 * thread) into `buffer`, always terminated; returns the length of the whole text, as snprintf does. Empty if there was
 * none. Since 0.1.
 */
UFFDWP_EXPORT size_t uffdwp_error_text(struct uffdwp *runtime, char *buffer, size_t size);

/* ------------------------------------------------------------------------------------------------------- region -- */

struct uffdwp_region;

/* create: F_SEAL_FUTURE_WRITE and F_SEAL_SHRINK: the kernel then refuses write(2), new writable mappings and hole
 * punches (uffdwp_region_punch() too: -EPERM) */
#define UFFDWP_REGION_SEALED (1u << 0)
#define UFFDWP_REGION_INHERIT (1u << 1) /* leave the mapping to children of fork(); their writes are NOT seen */
#define UFFDWP_REGION_HUGETLB (1u << 2) /* create: from huge pages */
/* attach: take shared memory that has another writable mapping in this process, and say so (uffdwp_region_info(),
 * uffdwp_error_text()) instead of refusing; what is written there is NOT seen */
#define UFFDWP_REGION_ALIASED (1u << 3)

/*
 * Pages were lost: uffdwp_region_losses() now has something to tell, and may be called from here. Called in a handler
 * thread of the runtime, after the faults that were read together were resolved; in the thread that calls
 * uffdwp_region_audit() for what that finds. Must not touch the region's memory, wait, or call anything else of the
 * library.
 */
typedef void (*uffdwp_loss_fn)(void *user, struct uffdwp_region *region);

/* Placement of a created region, as set_mempolicy(2) means it. */
enum uffdwp_numa { UFFDWP_NUMA_DEFAULT = 0, UFFDWP_NUMA_BIND = 1, UFFDWP_NUMA_INTERLEAVE = 2 };

struct uffdwp_region_options {
	size_t sz;                /* sizeof(struct uffdwp_region_options) */
	uint32_t flags;           /* UFFDWP_REGION_* */
	uint32_t mechanism;       /* enum uffdwp_mechanism; one that is named is taken or refused, never replaced */
	uint32_t delivery;        /* enum uffdwp_delivery */
	uint32_t numa;            /* enum uffdwp_numa (create) */
	uint64_t numa_nodes;      /* bit n: node n, for BIND and INTERLEAVE */
	uint64_t capacity_bytes;  /* create: address space kept for growth, multiple of the page size; 0: the length.
	                           * hugetlb: its huge pages are reserved at once */
	uint64_t huge_page_bytes; /* create, HUGETLB: size of a huge page; 0: the system's default */
	const char *name;         /* create: shown in /proc/PID/maps, up to 200 bytes; NULL: "uffdwp" */
	int32_t fd;         /* attach: the memfd or tmpfs file behind the mapping, so that it can be grown, punched and
	                     * read without touching the mapping; stays the caller's. -1: none, not known */
	uint32_t reserved;  /* 0 */
	uint64_t fd_offset; /* attach: offset of the mapping's first byte in fd */
	uffdwp_loss_fn on_loss; /* told of lost pages; NULL: nobody */
	void *on_loss_user;
};
/* clang-format off */
#define UFFDWP_REGION_OPTIONS_INIT { sizeof(struct uffdwp_region_options), 0, 0, 0, 0, 0, 0, 0, NULL, -1, 0, 0, NULL, NULL }
/* clang-format on */

/*
 * Creates a region: a new memfd of `length` bytes, mapped shared and readable and writable at an address that stays the
 * same when the region grows (up to capacity_bytes). Its memory reads as zeros.
 *
 * Errors: -EINVAL (length 0 or not a multiple of the page size, capacity below length, unknown flag, mechanism or
 * delivery, a node that does not exist), -E2BIG, -EOVERFLOW, -ENFILE (1024 regions a handler thread), -EOPNOTSUPP (no
 * mechanism works for this memory here; the text gives the reason), -ENOMEM (memory, huge pages or address space),
 * -EPERM, -EMFILE. Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_region_create(struct uffdwp *runtime, size_t length,
                                                         const struct uffdwp_region_options *options,
                                                         struct uffdwp_region **out);

/*
 * Attaches to memory that is mapped already: [address, address + length) must lie in readable and writable mappings of
 * one type (shmem, hugetlb or private anonymous) without a gap. The mapping stays the caller's, who keeps it mapped
 * until uffdwp_region_close(); mremap() of the whole range is followed, munmap() makes the region dead (-ESTALE from
 * then on).
 *
 * Errors: -EINVAL (unaligned, zero or overflowing range, fd that is not what is mapped there), -EBADF (fd is closed),
 * -ENOENT (nothing, or not
 * everything, is mapped there), -EACCES (not readable and writable), -EBUSY (overlaps another region, or another
 * userfaultfd is registered there; mprotect does not mind that), -EADDRINUSE (another writable mapping of this memory,
 * see UFFDWP_REGION_ALIASED), -EMEDIUMTYPE (a file on disk, a device: not memory that can be armed), -EOPNOTSUPP,
 * -ENOMEM. Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_region_attach(struct uffdwp *runtime, void *address, size_t length,
                                                         const struct uffdwp_region_options *options,
                                                         struct uffdwp_region **out);

/*
 * Closes a region: disarms it, lets every waiting writer go, unregisters; unmaps and closes what create made. -EBUSY
 * while a snapshot or a restore of it has not been freed: nothing happened then. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_region_close(struct uffdwp_region *region);

struct uffdwp_region_info {
	size_t sz;               /* set by the caller: sizeof(struct uffdwp_region_info) */
	void *base;              /* first byte; follows mremap() of attached memory */
	uint64_t length_bytes;   /* what may be used now */
	uint64_t capacity_bytes; /* up to where it may grow */
	uint64_t page_bytes;     /* granularity of arming */
	uint32_t memory;         /* enum uffdwp_memory */
	uint32_t mechanism;      /* the one in use */
	uint32_t delivery;       /* enum uffdwp_delivery */
	int32_t fd;              /* the memfd; -1: none is known. Stays the library's: do not close */
	uint32_t dead;           /* 1: unmapped behind the library's back */
	uint32_t aliases;        /* other writable mappings of the same memory that this process had at the attach */
};

/* Describes a region. -EINVAL (sz too small). Takes no lock; each field is read once. Since 0.1. */
UFFDWP_EXPORT int uffdwp_region_info(const struct uffdwp_region *region, struct uffdwp_region_info *info);

/* The first byte of a region: what info gives as base, for callers in a hurry. Since 0.1. */
UFFDWP_EXPORT void *uffdwp_region_base(const struct uffdwp_region *region);

/* The region that `address` lies in, of whatever runtime of this process, or NULL. Async-signal-safe. Since 0.1. */
UFFDWP_EXPORT struct uffdwp_region *uffdwp_region_locate(const void *address);

/*
 * Grows a created region in place to `length` bytes; the new part reads as zeros. A running snapshot does not contain
 * it. -EINVAL (unaligned, smaller), -ENOSPC (beyond the capacity), -EOPNOTSUPP (an attached region), -ESTALE (dead),
 * -ENOMEM. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_region_grow(struct uffdwp_region *region, uint64_t length);

/*
 * Gives the memory of a page-aligned range back to the system; it reads as zeros afterwards. Pages that a running
 * snapshot still needs are preserved first. May wait for pool memory as a write would. -EINVAL, -ERANGE (outside),
 * -EOVERFLOW, -EPERM (sealed), -EOPNOTSUPP (attached shmem without fd), -ESTALE. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_region_punch(struct uffdwp_region *region, uint64_t offset, uint64_t length);

/*
 * Arms a page-aligned range: the next write to each of its pages faults once, is counted (faults, pages_disarmed) and
 * goes on. For measurement and for callers that only want to know; snapshots arm by themselves.
 * -EINVAL (unaligned, zero), -ERANGE, -EOVERFLOW, -EBUSY (a snapshot runs), -ESTALE. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_region_arm(struct uffdwp_region *region, uint64_t offset, uint64_t length);

/* Takes the protection of a range off again. Errors as for arm. Since 0.1. */
UFFDWP_EXPORT int uffdwp_region_disarm(struct uffdwp_region *region, uint64_t offset, uint64_t length);

/* Counts the pages of a range that the ledger holds for armed into *pages. Errors as for arm. Since 0.1. */
UFFDWP_EXPORT int uffdwp_region_armed(const struct uffdwp_region *region, uint64_t offset, uint64_t length,
                                      uint64_t *pages);

struct uffdwp_region_stats {
	size_t sz;                /* set by the caller */
	uint64_t faults;          /* write faults resolved, by either delivery */
	uint64_t faults_repeated; /* of these: the page was no longer armed (another thread was first) */
	uint64_t pages_disarmed;  /* pages let go by faults */
	uint64_t events_remove;   /* madvise(2) calls that discard, seen by the handler */
	uint64_t events_remap;
	uint64_t events_unmap;
	uint64_t pages_lost;                 /* armed pages that were found without protection: the sum of lost_by */
	uint64_t snapshots;                  /* begun */
	uint64_t lost_by[UFFDWP_LOSS_COUNT]; /* by cause, enum uffdwp_loss */
	uint64_t pages_rearmed;              /* lost pages that were armed again, by a read fault or an audit */
	uint64_t pages_filled;               /* empty page-table entries that the library filled (rearm, minor) */
};

/* Reads the counters of a region. -EINVAL (sz too small). Since 0.1. */
UFFDWP_EXPORT int uffdwp_region_stats(const struct uffdwp_region *region, struct uffdwp_region_stats *stats);

/* A run of pages that were lost for one cause. */
struct uffdwp_lost_range {
	uint64_t offset;
	uint64_t length;
	uint32_t cause; /* enum uffdwp_loss */
	uint32_t reserved;
};

/*
 * Takes the list of pages lost since it was last asked: up to `capacity` ranges, by cause and then by offset; a page
 * that was lost twice for one cause is there once. What does not fit stays for the next call: ask until it returns less
 * than `capacity`. Never waits for a fault. The number of ranges, or -EINVAL (capacity is 0). Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_region_losses(struct uffdwp_region *region, struct uffdwp_lost_range *ranges, size_t capacity);

struct uffdwp_audit {
	size_t sz;              /* set by the caller */
	uint64_t pages_armed;   /* that the ledger holds for armed, and were looked at */
	uint64_t pages_lost;    /* of these: unprotected, and no event had told */
	uint64_t pages_rearmed; /* of these: armed again */
};

/*
 * Compares the ledger with the kernel's own view (pagemap bit 57; for mprotect the mappings), arms again what lost its
 * protection without an event, counts and lists it as UFFDWP_LOSS_UNKNOWN, and fails a running snapshot that has not
 * saved it yet (-ENODATA): it may have been written. Writers go on meanwhile.
 *
 * Errors: -EINVAL (sz too small), -EOPNOTSUPP (this kernel's pagemap does not show marks: Linux before 5.13; nobody can
 * know), -ESTALE (the region is dead, or its registration was taken away: it is dead from now on), -EACCES (no
 * /proc/self/pagemap), -EAGAIN (an event of the kernel waits to be read: once more), -ENOMEM. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_region_audit(struct uffdwp_region *region, struct uffdwp_audit *audit);

/*
 * The explicit barrier: "I am about to write [offset, offset + length)". Preserves what a running snapshot still needs
 * and disarms, without a fault; costs a few nanoseconds where nothing is armed. The range need not be aligned. Call it
 * for buffers that are handed to system calls under inline delivery. The promise holds until the next begin or arm;
 * under rearm and minor inline also only as long as the kernel does not swap the page out: a system call that fails
 * with EFAULT is made once more after another barrier. Where the library fills empty entries itself and a system call
 * could not wait for that (rearm and minor, inline or in user mode only) it fills those of the range, too: some system
 * calls for each page. Pages that a lazy restore has not fetched yet are waited for; the error of one that it could not
 * fetch is the answer, and then nothing is promised. Async-signal-safe. -ERANGE (outside), -ESTALE (dead); 0 for any
 * range while nothing is armed. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_prepare_write(struct uffdwp_region *region, uint64_t offset, uint64_t length);

/* ----------------------------------------------------------------------------------------------------- snapshot -- */

struct uffdwp_snapshot;

/* What writers do when the pool of pre-images is full. */
enum uffdwp_policy {
	/* They wait until the sink has taken some. When none was freed for wait_ns the snapshot fails (-ETIME), and
	 * they go on. */
	UFFDWP_POLICY_WAIT = 0,
	/* The snapshot fails at once (-ENOBUFS); writers go on. */
	UFFDWP_POLICY_ABORT = 1
};

/* Where the bytes go. */
enum uffdwp_sink {
	/* A raw sparse file at `path`: appears complete and synced, or not at all. Until then it is .uffdwp-PID-N.tmp
	 * in the same folder; only a process that was killed leaves that behind, to be removed by hand. (Should only
	 * the sync of its folder fail at the very end, the snapshot fails, and its text says that the image is there.)
	 */
	UFFDWP_SINK_IMAGE = 0,
	UFFDWP_SINK_STREAM = 1,   /* `fd`, from the first byte to the last, holes as zeros: a pipe, a socket, a file */
	UFFDWP_SINK_CALLBACK = 2, /* `callback`, in runs of pages, each page once, in any order */
	/* An export of a network block device, by the URI in `path`: see uffdwp/nbd.h. */
	UFFDWP_SINK_NBD = 3
};

/*
 * Takes [offset, offset + length) of the snapshot; data is valid during the call only. Called in the snapshot's own
 * thread, one call at a time. Ranges that hold only zeros may be left out. 0, or a negative errno: the snapshot fails
 * with it. Must not write to the region (it would wait for itself) and must not call the library.
 */
typedef int (*uffdwp_sink_fn)(void *user, uint64_t offset, const void *data, size_t length);

#define UFFDWP_SNAPSHOT_BUFFERED (1u << 0) /* image: through the page cache, even where O_DIRECT is to be had */
/*
 * The region stays protected when the snapshot has committed: the next begin only has to protect what was written
 * since, and may be an increment. Until then the first write to each page costs a fault; where an eighth of a block of
 * 64 pages was written the rest is let go along, so that the first increment may hold pages that were not written. Not
 * when window_max is 1, or the region is tracked or viewed, or once an increment was begun. A later snapshot without
 * this flag, or one that fails, ends it; so does closing the region. Without effect where the mechanism or the memory
 * allows no rounds (see struct uffdwp_snapshot_progress).
 */
#define UFFDWP_SNAPSHOT_KEEP (1u << 1)
/*
 * Callback sink: only pages that were written since the cut of the region's last snapshot, which must have committed
 * with UFFDWP_SNAPSHOT_KEEP; a page may come although it was not written. Pages of zeros come, too: the callback hears
 * of every page that may differ, and of no other. Refused with -ENODATA where that is not known, with -EOPNOTSUPP where
 * it never is (anonymous memory that loses marks, huge pages, mechanisms minor and mprotect).
 */
#define UFFDWP_SNAPSHOT_INCREMENT (1u << 2)

struct uffdwp_snapshot_options {
	size_t sz;           /* sizeof(struct uffdwp_snapshot_options) */
	uint32_t flags;      /* UFFDWP_SNAPSHOT_* */
	uint32_t sink;       /* enum uffdwp_sink */
	uint32_t policy;     /* enum uffdwp_policy */
	uint32_t window_max; /* most pages that one fault preserves, 1 to 64; 0: 16. It adapts between 1 and this */
	uint64_t length;     /* bytes from the region's start that the image holds (a last partial page is allowed);
	                      * 0: all that the region has when begin is called */
	uint64_t pool_bytes; /* bound on memory for pre-images, with their tables; 0: 64 MiB; at least 16 pages */
	uint64_t wait_ns;    /* POLICY_WAIT: how long writers wait while no memory is freed; 0: 10 s */
	const char *path;    /* SINK_IMAGE; its folder must exist and be writable; a file there is replaced at commit.
	                      * SINK_NBD: the export's URI */
	int32_t fd;          /* SINK_STREAM; stays the caller's; blocking or not */
	uint32_t reserved;   /* 0 */
	uffdwp_sink_fn callback; /* SINK_CALLBACK */
	void *user;              /* for callback */

	/*
	 * The caller's boundary, if he has one: cut_enter takes the lock that his writers take, right before faults are
	 * held, when all that takes time is done; cut_leave gives it back right after the cut. Both run in the thread
	 * that calls begin. cut_enter may set *length (it comes with the value of `length`), up to what the region has
	 * then, and may refuse by a negative errno: begin fails with it. cut_leave is called after every cut_enter that
	 * returned 0.
	 */
	int (*cut_enter)(void *cut_user, uint64_t *length);
	void (*cut_leave)(void *cut_user);
	void *cut_user;

	/* SINK_IMAGE: the image that this region's last snapshot became; the new one then is a delta, which holds only
	 * what was written since (uffdwp_image_open() reads both). NULL: a raw image. */
	const char *parent;
	uint32_t compress;  /* with a parent: level of zstd, 1 to 19; 0: none. The sweep's thread does it */
	uint32_t reserved2; /* 0 */

	/*
	 * Bytes per second that go to the sink, 0: as fast as it takes them. Over any stretch of time it is at most
	 * that, and what a tenth of a second and one piece (1 MiB or one page) make more. Zeros that the sink leaves
	 * out do not count; pages that a delta compresses count as they were. The limit never brakes a writer: while
	 * less than half of the pool is left the sweep goes on without it, and is slower afterwards, until the rate is
	 * kept again.
	 */
	uint64_t rate_bytes;
};
/* clang-format off */
#define UFFDWP_SNAPSHOT_OPTIONS_INIT { sizeof(struct uffdwp_snapshot_options), 0, 0, 0, 0, 0, 0, 0, NULL, -1, 0, NULL, NULL, NULL, NULL, NULL, NULL, 0, 0, 0 }
/* clang-format on */

/*
 * Makes the cut: returns when every later write is excluded from the snapshot; the saving goes on in the background.
 * Before it, rounds: pages are armed while writers go on, until little is left that was written since; writers that are
 * too fast for that are braked for moments. Then, for the pause, write faults wait until the rest is armed, so that no
 * thread sees an effect whose cause the image lacks. A caller that wants a
 * transaction boundary holds the lock that its writers take for this call, or better gives cut_enter and cut_leave.
 *
 * Errors, nothing changed: -EINVAL, -E2BIG, -ERANGE (length beyond the region), -EBUSY (a snapshot of this region has
 * not been freed), -ENOENT, -EACCES, -ENOTDIR, -EROFS, -EISDIR, -ENAMETOOLONG (path), -ENOSPC, -EDQUOT (no room for the
 * image), -EBADF (fd), -EXDEV (the parent is not the image of this region's last snapshot), -EBADMSG (it is damaged),
 * of SINK_NBD -EROFS, -ENOSPC (a small export), -EOPNOTSUPP (no libnbd; no flush), -ETIMEDOUT (10 s without an answer)
 * and what libnbd says of the URI and the server (-ECONNREFUSED, ...), what cut_enter refused with, -ESTALE (dead
 * region), -ENOMEM, -EAGAIN (no thread), -ENOBUFS (mprotect with too few mappings for so many pages: a larger pool), or
 * what the kernel answered to arming. Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_snapshot_begin(struct uffdwp_region *region,
                                                          const struct uffdwp_snapshot_options *options,
                                                          struct uffdwp_snapshot **out);

/*
 * The same of several regions with one cut: options[i] and out[i] belong to regions[i]. Faults of all regions wait
 * until all are armed, so no thread sees in one region the effect of a write to another that its image lacks. cut_enter
 * and cut_leave are those of options[0]; the others must have none. All are begun or none; from then on each is a
 * snapshot of its own, and may fail alone. Regions must be different, of one runtime; 1 to 64 of them. Errors as above,
 * and -EINVAL, -E2BIG (count). Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_snapshot_begin_group(struct uffdwp_region *const *regions,
                                                                const struct uffdwp_snapshot_options *options,
                                                                size_t count, struct uffdwp_snapshot **out);

enum uffdwp_snapshot_state { UFFDWP_SNAPSHOT_RUNNING = 0, UFFDWP_SNAPSHOT_COMMITTED = 1, UFFDWP_SNAPSHOT_FAILED = 2 };

struct uffdwp_snapshot_progress {
	size_t sz;                /* set by the caller */
	uint32_t state;           /* enum uffdwp_snapshot_state */
	int32_t error;            /* of a failed snapshot: negative errno */
	uint64_t length_bytes;    /* of the image */
	uint64_t pages_total;     /* to be saved, holes included */
	uint64_t pages_fault;     /* saved by write faults */
	uint64_t pages_prepare;   /* saved by uffdwp_prepare_write() and uffdwp_region_punch() */
	uint64_t pages_sweep;     /* saved by the sweep */
	uint64_t pages_hole;      /* holes: nothing to save */
	uint64_t faults;          /* write faults since the cut; the windows make it less than pages_fault */
	uint64_t waits;           /* writers that had to wait for pool memory */
	uint64_t pool_peak_bytes; /* most memory that pre-images took */
	uint64_t bytes_written;   /* to the sink */
	uint64_t pause_ns;        /* from when faults began to wait until the cut was made */
	uint64_t elapsed_ns;      /* from the begin call until now, or until it ended */
	uint32_t direct;          /* 1: the image is written with O_DIRECT */
	uint32_t uring;           /* 1: the image is written with io_uring */
	uint64_t pages_pause;     /* protected in the pause: written since the last round before it */
	uint64_t pages_rounds;    /* protected in the rounds before, again and again */
	uint64_t rounds_ns;       /* what they took: part of the begin call, writers went on */
	uint64_t held_most_ns;    /* the longest time that they held faults at a stretch, to arm some pages */
	uint64_t braked_ns;       /* how long faults of writers slept in the rounds, all together */
	uint32_t rounds;          /* 0: the mechanism or the memory allows none; all is protected in the pause */
	uint32_t reserved;
};

/* Looks at a snapshot without waiting. -EINVAL (sz too small). Since 0.1. */
UFFDWP_EXPORT int uffdwp_snapshot_poll(const struct uffdwp_snapshot *snapshot,
                                       struct uffdwp_snapshot_progress *progress);

/*
 * Waits up to timeout_ms (-1: for ever) until the snapshot ended. 0: committed; -ETIMEDOUT: it still runs; else the
 * error that ended it, -ECANCELED after an abort. progress may be NULL; it is filled whenever the snapshot has ended,
 * also by an error. A failed snapshot's text: uffdwp_snapshot_text(). Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_snapshot_wait(struct uffdwp_snapshot *snapshot, int timeout_ms,
                                       struct uffdwp_snapshot_progress *progress);

/* Why the snapshot failed, and where; as uffdwp_error_text(). Since 0.1. */
UFFDWP_EXPORT size_t uffdwp_snapshot_text(struct uffdwp_snapshot *snapshot, char *buffer, size_t size);

/* Asks the snapshot to end without a commit; does not wait. Nothing happens if it has ended already. Since 0.1. */
UFFDWP_EXPORT int uffdwp_snapshot_abort(struct uffdwp_snapshot *snapshot);

/* Frees a snapshot; one that runs is aborted and waited for. Since 0.1. */
UFFDWP_EXPORT int uffdwp_snapshot_free(struct uffdwp_snapshot *snapshot);

/* -------------------------------------------------------------------------------------------------------- track -- */

/*
 * Which pages were written since I last asked?
 *
 * A track is a set of ranges of memory. Every write through their mappings lands in the answer of one collect, or stays
 * for a later one; a page may be in an answer although it was not written: it over-reports where it must, and never
 * under-reports. What is over-reported: memory that was just added (unless UFFDWP_TRACK_CLEAN), lost pages, memory that
 * was discarded (MADV_DONTNEED; see UFFDWP_TRACK_POPULATED), all of a transparent huge page, reads under mechanism
 * minor, the pages that a snapshot which failed had let go, what was written during a snapshot until its sweep came by,
 * and under mprotect anonymous pages that were never touched.
 *
 * Not seen are the writes listed at the top of this file: of tracks these, too: hole punches and MADV_REMOVE of shared
 * memory (not uffdwp_region_punch()), whose pages change to zeros without a write.
 *
 * Mechanisms: async (UFFD_FEATURE_WP_ASYNC and PAGEMAP_SCAN, Linux 6.7: the kernel resolves the faults, no thread is
 * woken, system calls are not disturbed) is taken where a trial proved it, which it does not for huge pages (hugetlb)
 * yet. Memory inside a region of this library is tracked by the region's ledger, whatever its mechanism is, and may be
 * snapshotted at the same time. Elsewhere each range that is added becomes such a region (uffdwp_region_attach() lists
 * what it refuses, the text of which is the track's). soft-dirty is taken only by name and with
 * UFFDWP_TRACK_RESET_PROCESS: each collect clears the marks of the whole process, for everybody who looks at them.
 */
struct uffdwp_track;

/* Of private memory report only pages that are in memory or in swap: not what was discarded or never touched. For
 * garbage collectors and for those who measure: such memory holds zeros (as does a page that was written with zeros and
 * that the kernel merged with its zero page since). A large range of which little is used costs nothing then. */
#define UFFDWP_TRACK_POPULATED (1u << 0)
/* The caller promises that tracked memory is removed from the track before it is unmapped, replaced or moved
 * (uffdwp_track_remove()). Otherwise munmap(2) and mremap(2) of tracked memory wait shortly for a thread of the track,
 * which follows them; async only. */
#define UFFDWP_TRACK_NO_EVENTS (1u << 1)
/* soft-dirty may clear the marks of the whole process */
#define UFFDWP_TRACK_RESET_PROCESS (1u << 2)

struct uffdwp_track_options {
	size_t sz;          /* sizeof(struct uffdwp_track_options) */
	uint32_t flags;     /* UFFDWP_TRACK_POPULATED, _NO_EVENTS, _RESET_PROCESS */
	uint32_t mechanism; /* enum uffdwp_mechanism; one that is named is taken or refused, never replaced */
	uint32_t delivery;  /* enum uffdwp_delivery, of the mechanisms with faults */
	uint32_t reserved;  /* 0 */
};
/* clang-format off */
#define UFFDWP_TRACK_OPTIONS_INIT { sizeof(struct uffdwp_track_options), 0, 0, 0, 0 }
/* clang-format on */

/*
 * Starts a track, which is empty at first. -EINVAL (unknown flag, mechanism or delivery; soft-dirty without
 * UFFDWP_TRACK_RESET_PROCESS), -E2BIG, -EOPNOTSUPP (the mechanism does not work here: the text says why), -EMFILE,
 * -ENOMEM, -EAGAIN (no thread). Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int
uffdwp_track_start(struct uffdwp *runtime, const struct uffdwp_track_options *options, struct uffdwp_track **out);

/* add: as if it had just been collected. Otherwise memory that is added counts as written until the first collect. */
#define UFFDWP_TRACK_CLEAN (1u << 0)

/*
 * Adds [address, address + length), aligned to its pages. Under async that is one or two system calls, for thousands of
 * ranges; ranges that touch are kept as one, and gaps of up to 16 pages between two are registered along with them:
 * that memory is never reported, but another userfaultfd cannot be registered there (this library's tracks and regions
 * can). Mappings of any type: under async files on disk, too. No range may be tracked twice.
 *
 * Errors, nothing changed: -EINVAL (not aligned, zero, unknown flag), -EOVERFLOW, -EBUSY (some of it is tracked
 * already, or another userfaultfd is registered there), -ENOENT (nothing, or not everything, is mapped there), -ERANGE
 * (partly inside of a region), -ESTALE (dead region), -EOPNOTSUPP, -EPERM (not writable), -ENOMEM, and what
 * uffdwp_region_attach() answers where a region is made of it. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_track_add(struct uffdwp_track *track, void *address, size_t length, uint32_t flags);

/*
 * Takes a range out of the track: before it is unmapped, or when its writes do not matter any more. May be a part of
 * what was added, under async; a range that became or lies in a region is removed as it was added. What was written
 * there and not collected is forgotten. -EINVAL (not aligned, zero), -EOVERFLOW, -ENOMEM, -ENOENT (none of it is
 * tracked; nothing happened). Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_track_remove(struct uffdwp_track *track, void *address, size_t length);

/* Bytes [start, end) were written, in whole pages. */
struct uffdwp_written {
	uint64_t start; /* an address */
	uint64_t end;
	uint64_t flags; /* UFFDWP_WRITTEN; more may come */
};
#define UFFDWP_WRITTEN (1u << 1)

typedef void (*uffdwp_written_fn)(void *user, const struct uffdwp_written *range);

#define UFFDWP_COLLECT_PEEK (1u << 0) /* look only: all stays written for the next collect */

/*
 * What to collect and where to put it: of `ranges`, `bitmap` and `callback` one at most; with none of them all is only
 * counted, and armed again.
 */
struct uffdwp_collect {
	size_t sz;      /* sizeof(struct uffdwp_collect) */
	uint32_t flags; /* UFFDWP_COLLECT_PEEK */
	uint32_t reserved;
	void *start;   /* a page; NULL: from the lowest that is tracked */
	size_t length; /* whole pages; 0: all that is tracked from `start` on */

	struct uffdwp_written *ranges; /* room for `capacity` of them, in the order of addresses */
	size_t capacity;
	uint64_t *bitmap;    /* bit n: the system page n behind `start` was written, which must be given with `length`;
	                      * bits    are set and none is cleared */
	size_t bitmap_bytes; /* one bit for each system page at least, a multiple of 8 */
	/* Called in the thread that collects, while the library holds no lock. May write to tracked memory; must not
	 * call the library with this track. */
	uffdwp_written_fn callback;
	void *user;

	/* The answer. */
	size_t count;            /* ranges that were put or called with */
	uint64_t bytes;          /* that were written, of all ranges */
	void *next;              /* NULL: complete. Else `ranges` was full: collect again from here, behind it nothing
	                          * was armed yet */
	uint64_t vanished_bytes; /* tracked memory that was unmapped since the last collect: it is tracked no more */
};
/* clang-format off */
#define UFFDWP_COLLECT_INIT { sizeof(struct uffdwp_collect), 0, 0, NULL, 0, NULL, 0, NULL, 0, NULL, NULL, 0, 0, NULL, 0 }
/* clang-format on */

/*
 * Says what was written since the last collect and arms it again, atomically against writers. Nothing is allocated.
 * May be called by several threads at once; each write is in one of their answers then. Under mechanisms with faults
 * writers are held while their pages are armed again (soft-dirty: all writers to tracked memory, by mprotect(2); system
 * calls that write there fail with EFAULT meanwhile).
 *
 * A thread whose stack is inside of a tracked region would wait for itself. Huge pages (hugetlb) are collected in
 * whole.
 *
 * Errors, nothing was armed: -EINVAL (sz, unknown flag, alignment, more than one place for the answer, a bitmap without
 * start and length), -E2BIG, -EOVERFLOW, -ENOSPC (the bitmap is too small, capacity is 0), -ENOENT (nothing of
 * [start, start + length) is tracked). Errors on the way, where the answer holds what was found below `next`, and all
 * behind stays written: -ESTALE (the region there is dead: remove it), -EINVAL (start or end lies inside of a huge
 * page), -EFAULT
 * (`ranges` cannot be written: an armed page under inline delivery, see uffdwp_prepare_write()), -ENOMEM. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_track_collect(struct uffdwp_track *track, struct uffdwp_collect *collect);

struct uffdwp_track_info {
	size_t sz;          /* set by the caller */
	uint32_t mechanism; /* of ranges outside of regions; AUTO: each is a region, and has its own */
	uint32_t flags;     /* UFFDWP_TRACK_* */
	uint64_t ranges;    /* tracked, those that touch counted once */
	uint64_t bytes;
	uint64_t collects;
	uint64_t vanished_bytes; /* since the start */
};

/* Describes a track. -EINVAL (sz too small), -ECHILD. Since 0.1. */
UFFDWP_EXPORT int uffdwp_track_info(struct uffdwp_track *track, struct uffdwp_track_info *info);

/*
 * Compares the track with the mappings: ranges that were unmapped, replaced or moved behind its back
 * (UFFDWP_TRACK_NO_EVENTS, MAP_FIXED) are taken out and counted into *vanished_bytes. One system call a range, or more.
 * -EINVAL, -ENOMEM. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_track_audit(struct uffdwp_track *track, uint64_t *vanished_bytes);

/* Ends a track: its memory is not watched any more; regions that it made are closed, the caller's stay. Since 0.1. */
UFFDWP_EXPORT int uffdwp_track_stop(struct uffdwp_track *track);

/* -------------------------------------------------------------------------------------------------------- probe -- */

/* What a trial showed. */
enum uffdwp_answer {
	UFFDWP_ANSWER_UNTRIED = 0, /* see the reason: no swap, no huge pages, ... */
	UFFDWP_ANSWER_KEPT = 1,    /* an armed page stays armed */
	UFFDWP_ANSWER_LOST = 2,    /* the next write passes unseen */
	UFFDWP_ANSWER_FAILED = 3   /* the trial itself could not be done */
};

/* What a page went through between being armed and being written. */
enum uffdwp_trial {
	UFFDWP_TRIAL_POPULATED = 0,   /* nothing */
	UFFDWP_TRIAL_UNPOPULATED = 1, /* it was never touched before it was armed; of a file, zapped and punched then */
	UFFDWP_TRIAL_DONTNEED = 2,    /* MADV_DONTNEED */
	UFFDWP_TRIAL_PUNCH = 3,       /* FALLOC_FL_PUNCH_HOLE */
	UFFDWP_TRIAL_SWAP = 4,        /* MADV_PAGEOUT with swap on */
	UFFDWP_TRIAL_MREMAP = 5,      /* mremap() to another address, EVENT_REMAP on */
	UFFDWP_TRIAL_COUNT = 6
};

/* What was tried of one mechanism. */
struct uffdwp_probe_rung {
	uint32_t works;        /* 1: seen to stop every write of the trials */
	uint32_t thread_works; /* 1: a handler thread can resolve its faults */
	uint32_t inline_works; /* 1: the writer can, in a signal handler */
	uint32_t reserved;
	char reason[160]; /* why it works, or what it misses */
};

/* What a read fault may be filled with, in one step with the mark (rearm). */
#define UFFDWP_FILL_COPY_WP (1u << 0)     /* UFFDIO_COPY_MODE_WP */
#define UFFDWP_FILL_CONTINUE_WP (1u << 1) /* UFFDIO_CONTINUE_MODE_WP (Linux 6.4) */

struct uffdwp_probe_memory {
	int32_t registered;    /* MODE_WP: 0 accepted, else -errno */
	uint32_t mechanism;    /* the one that AUTO would take; UFFDWP_MECHANISM_AUTO: none works */
	uint32_t inline_works; /* 1: UFFD_FEATURE_SIGBUS delivery was tried and works */
	uint32_t fills;        /* UFFDWP_FILL_* */
	uint64_t page_bytes;
	uint32_t answers[UFFDWP_TRIAL_COUNT];                   /* enum uffdwp_answer */
	char reasons[UFFDWP_TRIAL_COUNT][96];                   /* why UNTRIED or FAILED; else empty */
	char reason[192];                                       /* why this mechanism, or why none */
	struct uffdwp_probe_rung rungs[UFFDWP_MECHANISM_COUNT]; /* by enum uffdwp_mechanism; [AUTO] is empty */
};

/* The ways to a userfaultfd. */
enum uffdwp_access {
	UFFDWP_ACCESS_SYSCALL = 0,   /* userfaultfd(0) */
	UFFDWP_ACCESS_DEVICE = 1,    /* /dev/userfaultfd (Linux 6.1) */
	UFFDWP_ACCESS_USER_MODE = 2, /* userfaultfd(UFFD_USER_MODE_ONLY) (Linux 5.11) */
	UFFDWP_ACCESS_COUNT = 3
};

struct uffdwp_probe_report {
	size_t sz;                           /* set by the caller */
	int32_t access[UFFDWP_ACCESS_COUNT]; /* 0: works, else -errno */
	int32_t access_chosen;               /* enum uffdwp_access, -1: none */
	uint64_t features;                   /* UFFD_FEATURE_* that the kernel offers */
	int32_t sysctl_unprivileged;         /* vm.unprivileged_userfaultfd, or -errno */
	int32_t uring;                       /* io_uring_setup(2): 0 works, else -errno */
	int32_t pagemap_scan;                /* PAGEMAP_SCAN: 0 works, else -errno */
	int32_t pagemap_bit57;               /* pagemap shows the mark: 1 yes, 0 no, or -errno */
	int32_t scan_holes;                  /* PAGEMAP_SCAN reports discarded memory without a page table: 1 yes, 0 no
	                                      * (tracks work around that), or -errno */
	int32_t seccomp;                     /* Seccomp: of /proc/self/status, or -errno */
	uint32_t swap_on;                    /* 1: some swap is on */
	uint64_t huge_pages_free;            /* of the default size */
	uint64_t max_map_count;              /* vm.max_map_count: bounds mprotect; 0: not known */
	struct uffdwp_probe_memory memory[UFFDWP_MEMORY_COUNT];
};

/*
 * Asks this kernel, as this user, by trial on scratch memory. Takes some milliseconds; no runtime is needed. 0 also
 * where nothing works: the report then says why. -EINVAL (sz too small), -ENOMEM. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_probe(struct uffdwp_probe_report *report);

#ifdef __cplusplus
}
#endif

#include "uffdwp/image.h"
#include "uffdwp/nbd.h"
#include "uffdwp/restore.h"
#include "uffdwp/view.h"

#endif /* UFFDWP_H */
