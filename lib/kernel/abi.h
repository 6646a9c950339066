/* SPDX-License-Identifier: MIT */
/*
 * Facts of the kernel's ABI that the headers of an older distribution lack. Numbers never change once released; each
 * has its source and the release that brought it. Anything that <linux/userfaultfd.h> has since 5.11 is taken from
 * there.
 */
#ifndef UFFDWP_KERNEL_ABI_H
#define UFFDWP_KERNEL_ABI_H

#include <linux/types.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
/* Before 2.37 <sys/mount.h> does not go along with it; nothing of it is needed then. */
#if defined(__GLIBC_PREREQ)
#if __GLIBC_PREREQ(2, 37)
#include <linux/fs.h>
#endif
#endif

/* include/uapi/linux/userfaultfd.h */
#ifndef UFFD_USER_MODE_ONLY /* 5.11 */
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef USERFAULTFD_IOC_NEW /* 6.1: on /dev/userfaultfd */
#define USERFAULTFD_IOC_NEW _IO(0xAA, 0x00)
#endif
#ifndef UFFDIO_REGISTER_MODE_MINOR /* 5.13 */
#define UFFDIO_REGISTER_MODE_MINOR ((__u64)1 << 2)
#endif
#ifndef UFFD_FEATURE_MINOR_HUGETLBFS /* 5.13 */
#define UFFD_FEATURE_MINOR_HUGETLBFS (1 << 9)
#endif
#ifndef UFFD_FEATURE_MINOR_SHMEM /* 5.14 */
#define UFFD_FEATURE_MINOR_SHMEM (1 << 10)
#endif
#ifndef UFFD_FEATURE_EXACT_ADDRESS /* 5.18 */
#define UFFD_FEATURE_EXACT_ADDRESS (1 << 11)
#endif
#ifndef UFFD_FEATURE_WP_HUGETLBFS_SHMEM /* 5.19 */
#define UFFD_FEATURE_WP_HUGETLBFS_SHMEM (1 << 12)
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED /* 6.4 */
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif
#ifndef UFFD_FEATURE_POISON /* 6.6 */
#define UFFD_FEATURE_POISON (1 << 14)
#endif
#ifndef UFFD_FEATURE_WP_ASYNC /* 6.7 */
#define UFFD_FEATURE_WP_ASYNC (1 << 15)
#endif
#ifndef UFFD_FEATURE_MOVE /* 6.8 */
#define UFFD_FEATURE_MOVE (1 << 16)
#endif

#ifndef UFFDIO_CONTINUE /* 5.13 */
struct uffdio_continue {
	struct uffdio_range range;
	__u64 mode;
	__s64 mapped;
};
#define UFFDIO_CONTINUE _IOWR(UFFDIO, 0x07, struct uffdio_continue)
#define UFFDIO_CONTINUE_MODE_DONTWAKE ((__u64)1 << 0)
#endif
#ifndef UFFDIO_CONTINUE_MODE_WP /* 6.4 */
#define UFFDIO_CONTINUE_MODE_WP ((__u64)1 << 1)
#endif
#ifndef UFFDIO_POISON /* 6.6 */
struct uffdio_poison {
	struct uffdio_range range;
	__u64 mode;
	__s64 updated;
};
#define UFFDIO_POISON _IOWR(UFFDIO, 0x08, struct uffdio_poison)
#define UFFDIO_POISON_MODE_DONTWAKE ((__u64)1 << 0)
#endif
#ifndef UFFD_PAGEFAULT_FLAG_MINOR /* 5.13 */
#define UFFD_PAGEFAULT_FLAG_MINOR (1 << 2)
#endif

#ifndef MAP_FIXED_NOREPLACE /* Linux 4.17 */
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* include/uapi/linux/fs.h, 6.7 */
#ifndef PAGEMAP_SCAN
#define PAGEMAP_SCAN _IOWR('f', 16, struct pm_scan_arg)
#define PAGE_IS_WPALLOWED (1 << 0)
#define PAGE_IS_WRITTEN (1 << 1)
#define PAGE_IS_FILE (1 << 2)
#define PAGE_IS_PRESENT (1 << 3)
#define PAGE_IS_SWAPPED (1 << 4)
#define PAGE_IS_PFNZERO (1 << 5)
#define PAGE_IS_HUGE (1 << 6)
#define PM_SCAN_WP_MATCHING (1 << 0)
#define PM_SCAN_CHECK_WPASYNC (1 << 1)

struct page_region {
	__u64 start;
	__u64 end;
	__u64 categories;
};

struct pm_scan_arg {
	__u64 size;
	__u64 flags;
	__u64 start;
	__u64 end;
	__u64 walk_end;
	__u64 vec;
	__u64 vec_len;
	__u64 max_pages;
	__u64 category_inverted;
	__u64 category_mask;
	__u64 category_anyof_mask;
	__u64 return_mask;
};
#endif

/* include/uapi/asm-generic/mman-common.h, 5.18: the same number on every architecture */
#define MADV_DONTNEED_LOCKED_NOW 24

/* include/uapi/linux/mman.h: 5.7, of shared memory 5.13 */
#define MREMAP_DONTUNMAP_NOW 4

/* include/uapi/linux/mman.h and asm-generic/unistd.h, 6.5; under names of our own beside those of newer headers */
#define SYS_CACHESTAT_NOW 451
struct cachestat_range_now {
	__u64 off;
	__u64 len;
};
struct cachestat_now {
	__u64 nr_cache;
	__u64 nr_dirty;
	__u64 nr_writeback;
	__u64 nr_evicted;
	__u64 nr_recently_evicted;
};

/* include/uapi/asm-generic/unistd.h */
#ifndef SYS_pidfd_send_signal /* 5.1 */
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open /* 5.3 */
#define SYS_pidfd_open 434
#endif
#ifndef RWF_NOWAIT /* 4.14 */
#define RWF_NOWAIT 0x00000008
#endif
#ifndef SYS_epoll_pwait2 /* 5.11 */
#define SYS_epoll_pwait2 441
#endif

/* include/uapi/linux/sched/types.h: struct sched_attr, SCHED_ATTR_SIZE_VER0, which every kernel takes */
struct thread_attributes {
	__u32 size;
	__u32 policy;
	__u64 flags;
	__s32 nice;
	__u32 priority;
	__u64 runtime_ns; /* of SCHED_OTHER: its slice, since 6.12 */
	__u64 deadline_ns;
	__u64 period_ns;
};

/* include/uapi/linux/fcntl.h, 5.1 */
#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010
#endif

/* include/uapi/asm-generic/mman-common.h */
#ifndef MADV_PAGEOUT /* 5.4 */
#define MADV_PAGEOUT 21
#endif
#ifndef MADV_POPULATE_READ /* 5.14 */
#define MADV_POPULATE_READ 22
#endif
#ifndef MADV_POPULATE_WRITE /* 5.14 */
#define MADV_POPULATE_WRITE 23
#endif

/* Documentation/admin-guide/mm/soft-dirty.rst: bit 55, 3.11 */
#define PAGEMAP_SOFT_DIRTY ((__u64)1 << 55)
/* Documentation/admin-guide/mm/pagemap.rst: bit 57, "pte is uffd-wp write-protected", 5.13 */
#define PAGEMAP_UFFD_WP ((__u64)1 << 57)
#define PAGEMAP_SWAPPED ((__u64)1 << 62)
#define PAGEMAP_PRESENT ((__u64)1 << 63)

#endif
