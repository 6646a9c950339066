/* SPDX-License-Identifier: MIT */
/* Part of uffdwp.h, whose top states what the library cannot see and the conventions that hold for all calls. Here:
 * regions. */
#ifndef UFFDWP_REGION_H
#define UFFDWP_REGION_H

#include "runtime.h"

#ifdef __cplusplus
extern "C" {
#endif

struct uffdwp_region;

/* F_SEAL_FUTURE_WRITE and F_SEAL_SHRINK: the kernel then refuses write(2), new writable mappings and hole punches: so
 * there is no uffdwp_region_punch(), and no lazy restore (-EPERM) */
#define UFFDWP_REGION_CREATE_SEALED (1u << 0)
/* leave the mapping to children of fork(); their writes are NOT seen. Without it a child that touches the region gets
 * SIGSEGV. Attached memory is inherited as fork(2) always does it */
#define UFFDWP_REGION_CREATE_INHERIT (1u << 1)
#define UFFDWP_REGION_CREATE_HUGETLB (1u << 2) /* from huge pages */
/* take shared memory that has another writable mapping in this process, and say so (uffdwp_region_info(),
 * uffdwp_error_text()) instead of refusing; what is written there is NOT seen */
#define UFFDWP_REGION_ATTACH_ALIASED (1u << 3)
/* adopt: the memory is private anonymous memory of the other process, and there is no file of it: it can be restored
 * lazily, once, and no more; see adopt.h */
#define UFFDWP_REGION_ADOPT_PRIVATE (1u << 4)

/*
 * Pages were lost: uffdwp_region_losses() now has something to report, and may be called from here. Called in a handler
 * thread of the runtime, after the faults that were read together were resolved; in the thread that calls
 * uffdwp_region_audit(), a begin, a view or uffdwp_fork() for what that finds (a thread of the library's where a client
 * asked for it, see UFFDWP_OPEN_CONTROL). Must not touch memory of any region, wait (also not for a lock, see Locks at
 * the top of uffdwp.h), or call anything else of the library. If it does not return for half a second while writers
 * wait, another thread takes the place of that handler, and running snapshots of the regions that it served fail
 * (-EOWNERDEAD).
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
	uint64_t huge_page_bytes; /* create, HUGETLB: size of a huge page; 0: the system's default. ADOPT_PRIVATE: of
	                           * the process's huge pages; 0: it has none there */
	const char *name;         /* create: shown in /proc/PID/maps, up to 200 bytes; NULL: "uffdwp" */
	int32_t fd;         /* attach, adopt: the memfd or tmpfs file of the mapping, so that it can be punched and read
	                     * without touching the mapping; duplicated, stays the caller's. 0 or -1: none, not known:
	                     * adopt needs one (a file that is descriptor 0: dup(2) it) */
	uint32_t reserved;  /* 0 */
	uint64_t fd_offset; /* attach, adopt: offset of the mapping's first byte in fd */
	uffdwp_loss_fn on_loss; /* called when pages were lost; NULL: none */
	void *on_loss_user;     /* for on_loss */
	/* create: where to map it, all of its capacity; a multiple of its page size. Refused with -EEXIST where
	 * something is mapped there already. For memory full of pointers: an image does not record where it was, the
	 * program does. NULL: anywhere */
	void *address;
};
#define UFFDWP_REGION_OPTIONS_INIT UFFDWP_INIT(struct uffdwp_region_options)

/*
 * Creates a region: a new memfd of `length` bytes, mapped shared and readable and writable at an address that stays the
 * same when the region grows (up to capacity_bytes). Its memory reads as zeros. A region has at most 2^32 - 1 pages,
 * created (-EOVERFLOW) or attached (-EINVAL). UFFDWP_MEMORY_ANON cannot be created, only attached.
 *
 * Which mechanism and delivery AUTO took: uffdwp_region_info(). A program whose system calls write into the region
 * (read(2) into it) looks at `syscalls_wait` there: delivery THREAD, also by name, does not say it, because in a
 * process that may have user-mode faults only they fail with EFAULT all the same. At rest a region costs some bits of
 * memory a page, and a byte a page once it was armed (256 KiB for a GiB of 4 KiB pages).
 *
 * Errors: -EINVAL (length 0 or not a multiple of the page size, capacity below length, unknown flag, mechanism or
 * delivery, a node that does not exist), -E2BIG, -EOVERFLOW (more than 2^32 - 1 pages), -ENFILE (each handler thread
 * serves 1024 regions already), -EOPNOTSUPP (no mechanism works for this memory here; `numa`, and the library was built
 * without libnuma; the text gives the reason), -ENOMEM (no memory, huge pages or address space), -EPERM, -EMFILE,
 * -EEXIST (something is mapped at `address`). Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_region_create(struct uffdwp *runtime, uint64_t length,
                                                         const struct uffdwp_region_options *options,
                                                         struct uffdwp_region **out);

/*
 * Makes a region of memory that is mapped already: of an arena of the program's own, for example, which is not trimmed
 * or moved. (An allocator's heap is: it unmaps and discards what is free. The library's own tables lie elsewhere.) The
 * range [address, address + length) must lie in readable and writable mappings of one type (shmem, hugetlb or private
 * anonymous) without a gap. The mapping stays the caller's, which keeps it mapped until uffdwp_region_close(); mremap()
 * of the whole range is followed, also where it grows (what is added is not the region's). munmap() of a part, mremap()
 * of a part and MREMAP_DONTUNMAP make the region dead: -ESTALE from then on, also from snapshots, views, tracks and
 * restores of it; what was moved away is not protected any more. Do not mremap() a region while other threads attach or
 * move others: it dies loudly (-ESTALE), or the attach answers -EBUSY. (Under UFFDWP_MECHANISM_MPROTECT none of this is
 * seen: see point 6 at the top of uffdwp.h.) What is discarded during a snapshot without the library fails it
 * (-ENODATA), see point 5 there.
 *
 * Errors: -EINVAL (unaligned, zero or overflowing range, more than 2^32 - 1 pages, an option that is for others, fd
 * that is not what is mapped there), -E2BIG, -EBADF (fd is closed), -ENFILE (each handler thread serves 1024 regions
 * already), -EMFILE, -ENOENT (nothing, or not everything, is mapped there), -EACCES (not readable and writable), -EBUSY
 * (overlaps another region, or another userfaultfd is registered there; mprotect does not mind that), -EADDRINUSE
 * (another writable mapping of this memory, see UFFDWP_REGION_ATTACH_ALIASED), -EMEDIUMTYPE (a file on disk, a private
 * mapping of a file, a device: not memory that can be armed; System V shared memory, except by
 * UFFDWP_MECHANISM_MPROTECT), -EDEADLK (the calling thread's own stack or thread-local memory lies there, see the top
 * of uffdwp.h), -EMLINK, -EOPNOTSUPP, -ENOMEM. Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_region_attach(struct uffdwp *runtime, void *address, uint64_t length,
                                                         const struct uffdwp_region_options *options,
                                                         struct uffdwp_region **out);

/*
 * Closes a region: disarms it, resumes every waiting writer, unregisters; unmaps and closes what create made. -EBUSY
 * while a snapshot or a restore of it has not been freed, a view of it is open, a child of it is just being made, or a
 * track watches it: nothing happened then. A snapshot that a client began (UFFDWP_OPEN_CONTROL) refuses no close: the
 * close that succeeds aborts it. -ECHILD. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_region_close(struct uffdwp_region *region);

struct uffdwp_region_info {
	size_t sz;               /* set by the caller: sizeof(struct uffdwp_region_info) */
	void *base;              /* first byte; follows mremap() of attached memory */
	uint64_t length_bytes;   /* what may be used now */
	uint64_t capacity_bytes; /* up to where it may grow */
	uint64_t page_bytes;     /* granularity of arming */
	uint32_t memory;         /* enum uffdwp_memory */
	uint32_t mechanism;      /* enum uffdwp_mechanism: the one in use */
	uint32_t delivery;       /* enum uffdwp_delivery */
	int32_t fd;              /* the memfd; -1: none is known. Stays the library's: do not close */
	uint32_t dead;           /* 1: it is dead, see Words at the top of uffdwp.h */
	uint32_t aliases;        /* other writable mappings of the same memory that this process had at the attach */
	uint32_t syscalls_wait;  /* 1: system calls that meet a protected or unmapped page wait, and succeed; 0: they
	                          * fail with EFAULT (inline delivery; user-mode faults only), and barriers are needed.
	                          * Of an adopted region: 1, which is not known of its mappers */
	uint32_t reserved;
};

/* Describes a region. -EINVAL (sz too small). Takes no lock; each field is read once. Since 0.1. */
UFFDWP_EXPORT int uffdwp_region_info(const struct uffdwp_region *region, struct uffdwp_region_info *info);

/* Gives the address of a region. Returns that of its first byte, which uffdwp_region_info() gives as `base`, for
 * callers in a hurry. Async-signal-safe. Since 0.1. */
UFFDWP_EXPORT void *uffdwp_region_base(const struct uffdwp_region *region);

/* Finds the region that an address lies in. Returns the region, of whatever runtime of this process, or NULL.
 * Async-signal-safe. The caller knows that no thread closes the region meanwhile. Since 0.1. */
UFFDWP_EXPORT struct uffdwp_region *uffdwp_region_locate(const void *address);

/*
 * Grows a created region in place: to `length` bytes; the new part reads as zeros. A running snapshot does not contain
 * it. -EINVAL (not aligned, or smaller than the region is), -ENOSPC (beyond the capacity), -EOPNOTSUPP (the region was
 * attached), -ESTALE (dead), -ENOMEM. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_region_grow(struct uffdwp_region *region, uint64_t length);

/*
 * Gives the memory of a page-aligned range back to the system; it reads as zeros afterwards. Pages that a running
 * snapshot still needs are preserved first. May wait for pool memory as a write would. -EINVAL (not aligned, zero),
 * -ERANGE (outside), -EOVERFLOW, -EPERM (the region is sealed), -EOPNOTSUPP (attached shmem without fd), -ESTALE, or
 * what the kernel answered. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_region_punch(struct uffdwp_region *region, uint64_t offset, uint64_t length);

/*
 * Arms a page-aligned range: the next write to each of its pages faults once, is counted (faults, pages_disarmed) and
 * goes on. For measurement and for callers that only want to know; snapshots arm by themselves.
 * -EINVAL (not aligned, zero), -ERANGE, -EOVERFLOW, -EBUSY (a snapshot runs, or a track watches), -ESTALE, or
 * what the kernel answered. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_region_arm(struct uffdwp_region *region, uint64_t offset, uint64_t length);

/* Takes the protection of a range off again. Where increments of the region are kept its pages count as written. Errors
 * as of uffdwp_region_arm(). Since 0.1. */
UFFDWP_EXPORT int uffdwp_region_disarm(struct uffdwp_region *region, uint64_t offset, uint64_t length);

/* Counts the armed pages of a range: those that the ledger holds for armed, into *pages. Errors as of
 * uffdwp_region_arm(), except -EBUSY; -EINVAL also if pages is NULL. Since 0.1. */
UFFDWP_EXPORT int uffdwp_region_armed(const struct uffdwp_region *region, uint64_t offset, uint64_t length,
                                      uint64_t *pages);

struct uffdwp_region_stats {
	size_t sz;                /* set by the caller */
	uint64_t faults;          /* write faults resolved, by either delivery */
	uint64_t faults_repeated; /* of these: the page was no longer armed (another thread was first) */
	uint64_t pages_disarmed;  /* pages unprotected by faults */
	uint64_t events_remove;   /* madvise(2) calls that discard, seen by the handler */
	uint64_t events_remap;    /* mremap(2) calls, likewise */
	uint64_t events_unmap;    /* munmap(2) calls, likewise */
	uint64_t pages_lost;      /* armed pages that were found without protection: the sum of lost_by */
	uint64_t snapshots;       /* begun */
	uint64_t lost_by[16];     /* by cause, enum uffdwp_loss; 0 where there is no such cause */
	uint64_t pages_rearmed;   /* lost pages that were armed again, by a read fault or an audit */
	uint64_t pages_filled;    /* empty page-table entries that the library filled (rearm, minor, moves) */
};

/* Reads the counters of a region. -EINVAL (sz too small). Since 0.1. */
UFFDWP_EXPORT int uffdwp_region_stats(const struct uffdwp_region *region, struct uffdwp_region_stats *stats);

/* A run of pages that were lost for one cause. */
struct uffdwp_lost_range {
	uint64_t start; /* bytes [start, end) of the region */
	uint64_t end;   /* the first byte after them */
	uint32_t cause; /* enum uffdwp_loss */
	uint32_t reserved;
};

/*
 * Takes the list of lost pages: of those that were lost since it was last asked, up to `capacity` ranges, by cause and
 * then by offset; a page that was lost twice for one cause is there once. What does not fit stays for the next call:
 * ask until it returns less than `capacity`. Never waits for a fault. Returns the number of ranges, or a negative
 * errno. -EINVAL (capacity is 0, ranges is NULL). Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_region_losses(struct uffdwp_region *region, struct uffdwp_lost_range *ranges, size_t capacity);

struct uffdwp_audit {
	size_t sz;              /* set by the caller */
	uint64_t pages_armed;   /* that the ledger holds for armed, and were looked at */
	uint64_t pages_lost;    /* of these: unprotected, and no event had reported it */
	uint64_t pages_rearmed; /* of these: armed again */
};

/*
 * Looks for pages that lost their protection unnoticed: compares the ledger with the kernel's own view (pagemap bit 57;
 * for mprotect the mappings), arms again what lost its protection without an event, counts and lists it as
 * UFFDWP_LOSS_UNKNOWN, and fails a running snapshot that has not saved it yet (-ENODATA): it may have been written.
 * Writers go on meanwhile. An adopted region is compared with the page tables of each process that maps it
 * (/proc/PID/pagemap, by its pidfd), which this process needs the right to trace.
 *
 * Errors: -EINVAL (sz too small), -EOPNOTSUPP (a mapper without a pidfd; private memory of another process; this
 * kernel's pagemap does not show uffd-wp bits: Linux before 5.13; there is no answer), -ESTALE (the region is dead, or
 * its registration was taken away: it is dead from now on), -EACCES (no /proc/self/pagemap, or that of a mapper may not
 * be read), -EAGAIN (an event of the kernel waits to be read: once more), -ENOMEM.
 * Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_region_audit(struct uffdwp_region *region, struct uffdwp_audit *audit);

/*
 * Announces a write, which then does not fault: the explicit barrier, "I am about to write [offset, offset + length)".
 * Preserves what a running snapshot still needs and disarms, without a fault; costs a few nanoseconds where nothing is
 * armed, and waits for pool memory as a write would. The range need not be aligned. Call it for buffers that are handed
 * to system calls where these do not wait (`syscalls_wait`). The promise holds until any thread, or a client of the
 * control socket, arms again: by a begin, a view, a fork, a collect, an arm, an audit, a restore; under rearm and minor
 * inline, and with any by UFFDWP_ARMING_MOVE, also only as long as the kernel does not swap the page out. So such a
 * call is a loop: barrier, system call, and on EFAULT or a short count both again. Where the library fills empty
 * entries itself and a system call could not wait for that (the same, inline or in user mode only) it fills those of
 * the range, too: some system calls for each page. Pages that a lazy restore has not fetched yet are waited for; the
 * error of one that it could not fetch is the answer, and then nothing is promised. Async-signal-safe. -ERANGE
 * (outside, armed or not), -EDEADLK (the calling thread runs on a stack in this region, armed or not), -ESTALE (dead),
 * -ECHILD (a child of fork(), while its parent had something armed). Forms no text. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_prepare_write(struct uffdwp_region *region, uint64_t offset, uint64_t length);

/*
 * Announces that a system call reads: the barrier for reads, "it will read [offset, offset + length)", as write(2) from
 * the region does. Maps what is not mapped, where a system call could not wait for the library to do it: under inline
 * delivery (or in user mode only) with UFFDWP_MECHANISM_REARM or _MINOR at any time, with any other while a snapshot
 * armed by UFFDWP_ARMING_MOVE has something armed (attached memory: from the first of them on). What is armed stays so.
 * The range need not be aligned; where there is nothing to do it costs a few nanoseconds, else up to a system call for
 * each page. The promise holds as long as that of uffdwp_prepare_write(), and as long as the kernel does not take the
 * page out of memory: barrier, system call, and on EFAULT or a short count both again. Pages that a lazy restore has
 * not fetched yet are waited for, as by uffdwp_prepare_write(). Async-signal-safe. Errors as of uffdwp_prepare_write().
 * Forms no text. Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_prepare_read(struct uffdwp_region *region, uint64_t offset, uint64_t length);

#ifdef __cplusplus
}
#endif

#endif
