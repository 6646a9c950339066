/* SPDX-License-Identifier: MIT */
/*
 * Where a file has data, and where it surely has none.
 *
 * On tmpfs lseek(2) with SEEK_DATA and SEEK_HOLE, and mincore(2) where nothing is mapped, take a page for a hole while
 * the kernel moves it to another place in memory: the new folio stands in the file's tree before it is flagged up to
 * date (mm/migrate.c: folio_migrate_mapping(), then folio_migrate_flags(); mm/filemap.c: folio_seek_hole_data()).
 * Compaction, NUMA balancing and khugepaged do that to any page at any time. It takes a microsecond for a small page,
 * much more for a huge one, and as long as it pleases when the kernel's thread loses its CPU. What is taken for a hole
 * is stored as zeros: so no hole is believed at once.
 *
 * cachestat(2) (6.5) counts what stands in the tree, up to date or not. Where it is not available, or finds something,
 * a byte of each page is read: a read waits for the folio's lock, which the mover holds until it is done. Then the
 * kernel is asked once more.
 *
 * Threads: any. Async-signal-safe.
 */
#ifndef UFFDWP_KERNEL_HOLES_H
#define UFFDWP_KERNEL_HOLES_H

#include "kernel/kernel.h"

/* Where data begins in [offset, end); `end`: there is none. What a file system does not answer, or answers that is not
 * so far, counts as data. Without cachestat(2) a hole on tmpfs costs a read for each of its pages. */
uint64_t holes_next_data(const struct kernel_ops *k, int fd, uint64_t offset, uint64_t end);

/* The same, and no page is read: without cachestat(2) a page that is being moved counts as a hole. For hints, and where
 * threads are held meanwhile. */
uint64_t holes_next_data_hint(const struct kernel_ops *k, int fd, uint64_t offset, uint64_t end);

/* Where a hole begins in [offset, end), as the file system answers: it may be too early. `end` where it does not. */
uint64_t holes_next(const struct kernel_ops *k, int fd, uint64_t offset, uint64_t end);

#endif
