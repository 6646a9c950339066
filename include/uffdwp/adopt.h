/* SPDX-License-Identifier: MIT */
/* Part of uffdwp.h, whose top states what the library cannot see and the conventions that hold for all calls. Here:
 * regions whose memory is mapped by other processes. */
#ifndef UFFDWP_ADOPT_H
#define UFFDWP_ADOPT_H

#include "region.h"

#ifdef __cplusplus
extern "C" {
#endif

/*
 * A monitor of virtual machines, or any program, maps a memfd and hands that memfd and a userfaultfd to this process
 * (SCM_RIGHTS): the memory becomes a region here, which is armed in the page tables of the other process, the mapper.
 * Its first write to an armed page is an event that a handler thread of this process resolves; content is read by the
 * memfd. Snapshots, increments, restores, views and tracks work on it as on a region of one's own. Several processes
 * that map one memfd are mappers of one region: a cut is one instant of all of them, and what causality joins across
 * processes stays joined.
 *
 * A mapper makes its userfaultfd, and calls UFFDIO_API, itself. UFFD_FEATURE_SIGBUS and
 * UFFD_FEATURE_WP_ASYNC are refused, where the kernel shows them (/proc/self/fdinfo). It needs
 * UFFD_FEATURE_PAGEFAULT_FLAG_WP and UFFD_FEATURE_WP_HUGETLBFS_SHMEM; UFFD_FEATURE_EVENT_REMOVE, _UNMAP, _REMAP and
 * _FORK report what else it does with the memory. O_NONBLOCK is set on it, and a number by fcntl(2) F_SETSIG, which
 * both processes share. One userfaultfd serves one region.
 *
 * What a mapper does, and what then happens:
 *  - it ends, or calls execve(2): it is a mapper no more, which costs no other mapper anything; its end is noticed by
 *    its pidfd, and without one at the next arming. A region without mappers is dead (-EOWNERDEAD), a snapshot that
 *    runs fails with that.
 *  - it unmaps or moves a part (UNMAP, REMAP events), or forks and UFFD_FEATURE_EVENT_FORK reports it: writes may go
 *    unseen from then on, so the region is dead (-ESTALE).
 *  - it discards memory (madvise(2), fallocate(2) on the memfd): content vanishes before this process can read it; a
 *    snapshot that still needed it fails with -ENODATA, by MARKER at any event of a discard. uffdwp_region_punch()
 *    preserves first.
 * Not seen: UFFDIO_UNREGISTER and UFFDIO_WRITEPROTECT by the mapper itself, mappings that it makes over the memory
 * where it did not ask for the events; and as ever write(2) to the memfd, other mappings of it, children of fork()
 * without the event; and the mapping that this process has of it (uffdwp_region_base()), by which it may read at any
 * time. A mapper that lies about where it has the memory spoils the region's snapshots, and nothing else.
 *
 * What a lazy restore could not fetch raises SIGBUS in the mappers, also after the region was closed: until the mapper
 * discards it (MADV_DONTNEED), or maps the memfd anew, which shows zeros there.
 *
 * While a lazy restore runs nothing may be read by uffdwp_region_base(): a page that is not there yet would become one
 * of zeros. A page is fetched once, whichever mapper asks for it; the others find it in the memfd. What no mapper has
 * mapped is written to the memfd.
 *
 * Memory that only the mapper has (UFFDWP_REGION_ADOPT_PRIVATE). A monitor whose guest has private anonymous memory, of
 * small or of huge pages, has no memfd: it registers each mapping for missing pages (UFFDIO_REGISTER_MODE_MISSING) and
 * sends the userfaultfd. Nothing of such memory is in this process: uffdwp_region_base() is NULL, and -EOPNOTSUPP is
 * the answer of what would read, protect or discard it (snapshots, views, tracks, uffdwp_region_arm(),
 * uffdwp_region_punch(), uffdwp_restore(), a second mapper). It is restored lazily, once: uffdwp_restore_begin().
 *  - Before, its accesses to pages that are not there wait; what the mapper has touched before it registered stays. A
 *    region that is closed before is left as it was, and the userfaultfd can be adopted again.
 *  - What the image has is filled as it is asked for; all else is zeros. After the restore was freed a page that is not
 *    there is one of zeros. When all is there the region may be closed: then the kernel fills what is missing itself.
 *  - What the mapper discards (MADV_DONTNEED, a balloon) is zeros from then on, before a restore has begun,
 *    fetched, being fetched or not: for that its userfaultfd needs UFFD_FEATURE_EVENT_REMOVE. Without it a page that
 *    was discarded before it was fetched shows the image.
 *  - A page that could not be fetched raises SIGBUS there until it is discarded.
 *
 * What becomes of a mapper when this process ends depends on whether it has kept a copy of its userfaultfd:
 *  - A mapper whose memory is restored lazily keeps it. Without it what is not there yet would become zeros; with it,
 *    threads that need such a page sleep: so the mapper watches this process by a pidfd or its socket.
 *  - Any other mapper closes it when it has sent it. Its writes go on unseen then; with a copy left, threads that wait
 *    at a protected page would sleep for ever.
 *
 * A userfaultfd for user mode only (UFFD_USER_MODE_ONLY) makes system calls and virtual CPUs fail at armed pages.
 *
 * This process needs no right to make a userfaultfd of its own.
 */

/* Mappers of a region that may live at a time, and mappings of each. */
#define UFFDWP_MAPPERS_MAX 64
#define UFFDWP_MAPPINGS_MAX 16

/* The mapper has registered its mappings for write protection, and takes the registration away itself. Without: it is
 * registered and unregistered here, with which modes of the mapper's own are replaced. */
#define UFFDWP_MAPPER_REGISTERED (1u << 0)

/* Bytes [offset, offset + length) of the region, at an address of the other process; all three are of whole pages. */
struct uffdwp_mapping {
	uint64_t address;
	uint64_t offset;
	uint64_t length;
};

struct uffdwp_mapper {
	size_t sz;              /* sizeof(struct uffdwp_mapper) */
	uint32_t flags;         /* UFFDWP_MAPPER_* */
	int32_t uffd;           /* of that process; it is duplicated */
	int32_t pidfd;          /* pidfd_open(2) of it, duplicated; 0 or -1: none */
	uint32_t mapping_count; /* of `mappings`: 1 to UFFDWP_MAPPINGS_MAX; what none of them has is not armed there */
	const struct uffdwp_mapping *mappings;
};
#define UFFDWP_MAPPER_INIT UFFDWP_INIT(struct uffdwp_mapper)

/*
 * Makes a region of memory that another process maps. Its memory are the first `length` bytes from options->fd_offset
 * on of options->fd, a memfd or a file of tmpfs or hugetlbfs that is open for reading and writing; `mapper` is the
 * first process that maps it. These options are taken, and no others: sz, flags, fd, fd_offset, mechanism (AUTO,
 * MARKER, or REARM, which lazy restores need), delivery (AUTO or THREAD), on_loss, on_loss_user. All of it is mapped in
 * this process, too. With the flag UFFDWP_REGION_ADOPT_PRIVATE fd and fd_offset are left out (fd -1 or 0), the
 * mechanism is AUTO or REARM, and huge_page_bytes is the size of the pages that the mapper has there, if they are huge.
 *
 * Errors, nothing changed: -EBUSY (the userfaultfd serves another region), -EINVAL (a length of 0 or not of whole
 * pages, an option that is for others, mappings that are not aligned, overlap or reach beyond the length, or are not of
 * such pages as huge_page_bytes has it), -E2BIG, -EBADF (fd, uffd or pidfd are not open), -EACCES (fd is not open for
 * both), -EMEDIUMTYPE (fd is a file on disk), -ENXIO (the file is shorter), -ENOTTY (uffd is no userfaultfd), -ENOENT
 * (what is registered does not reach so far), -ESRCH (the mapper has ended), -EOPNOTSUPP (nothing that its userfaultfd
 * can protect is mapped there), -ENFILE, -EMFILE, -ENOMEM. Since 0.1.
 */
UFFDWP_MUST_CHECK UFFDWP_EXPORT int uffdwp_region_adopt(struct uffdwp *runtime, uint64_t length,
                                                        const struct uffdwp_region_options *options,
                                                        const struct uffdwp_mapper *mapper, struct uffdwp_region **out);

/*
 * Adds a process that maps the memory of an adopted region. While nothing of it is armed: -EBUSY while a snapshot or a
 * restore of it has not been freed, or a page of it is protected, for a track, a view, by uffdwp_region_arm() or since
 * a snapshot by UFFDWP_SNAPSHOT_KEEP. Further errors: -EOPNOTSUPP (it is no adopted region, or one of private memory),
 * -EMFILE (UFFDWP_MAPPERS_MAX live), -ESTALE (dead), and those of uffdwp_region_adopt() that are about the mapper.
 * Since 0.1.
 */
UFFDWP_EXPORT int uffdwp_region_join(struct uffdwp_region *region, const struct uffdwp_mapper *mapper);

#ifdef __cplusplus
}
#endif

#endif
