/* SPDX-License-Identifier: MIT */
/*
 * The rival that is no library: the fewest system calls that track. One userfaultfd, a REGISTER for each piece, and
 * PAGEMAP_SCAN with PM_SCAN_WP_MATCHING from the first piece to the end of the last, until all is seen: the kernel
 * passes over what lies between and is not registered. No list of ranges, no locks, no checks.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"
#include "collector.h"
#include "kernel/abi.h"

static const char *open_uffd(int *uffd)
{
	static char text[96];
	struct uffdio_api api = {
	        .api = UFFD_API,
	        .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};

	*uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (*uffd < 0 && errno == EPERM)
		*uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (*uffd < 0)
		snprintf(text, sizeof(text), "no userfaultfd: %s", strerror(errno));
	else if (ioctl(*uffd, UFFDIO_API, &api))
		snprintf(text, sizeof(text), "no UFFD_FEATURE_WP_ASYNC: %s", strerror(errno));
	else
		return NULL;
	if (*uffd >= 0)
		close(*uffd);
	return text;
}

const char *collector_bare_refused(void)
{
	int uffd;
	const char *reason = open_uffd(&uffd);

	if (!reason)
		close(uffd);
	return reason;
}

static __attribute__((noinline)) void called_back(void *user, const struct uffdwp_written *range)
{
	struct collector *collector = user;

	collector->called += range->end - range->start;
}

static void set_bits(struct collector *collector, const struct uffdwp_written *range)
{
	const struct area *area = &collector->setup.area;
	size_t first = (size_t)(range->start - (uint64_t)(uintptr_t)area->base) / area->page_bytes;
	size_t end = (size_t)(range->end - (uint64_t)(uintptr_t)area->base) / area->page_bytes;

	while (first < end) {
		size_t bits = 64 - first % 64 < end - first ? 64 - first % 64 : end - first;

		collector->bitmap[first / 64] |= (bits < 64 ? ((uint64_t)1 << bits) - 1 : UINT64_MAX) << first % 64;
		first += bits;
	}
}

/* What the caller of the ioctl does with a full vector. */
static uint64_t take(struct collector *collector, size_t count)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < count; i++) {
		const struct uffdwp_written *range = &collector->ranges[i];

		bytes += range->end - range->start;
		if (collector->shape == COLLECTOR_BITMAP)
			set_bits(collector, range);
		else if (collector->shape == COLLECTOR_CALLBACK)
			called_back(collector, range);
	}
	return bytes;
}

static uint64_t collect(struct collector *collector)
{
	uint64_t end = (uint64_t)(uintptr_t)collector->setup.area.base + collector->span_bytes;
	uint64_t bytes = 0;
	struct pm_scan_arg scan = {
	        .size = sizeof(scan),
	        .flags = PM_SCAN_WP_MATCHING,
	        .end = end,
	        .vec = (uint64_t)(uintptr_t)collector->ranges,
	        .vec_len = collector_vector(collector),
	        .category_mask = PAGE_IS_WRITTEN,
	        .return_mask = PAGE_IS_WRITTEN,
	};

	if (collector->setup.populated) {
		scan.category_mask |= PAGE_IS_PFNZERO;
		scan.category_inverted = PAGE_IS_PFNZERO;
		scan.category_anyof_mask = PAGE_IS_PRESENT | PAGE_IS_SWAPPED;
	}
	scan.walk_end = (uint64_t)(uintptr_t)collector->setup.area.base;
	while (scan.walk_end < end) {
		int count;

		scan.start = scan.walk_end;
		count = ioctl(collector->pagemap, PAGEMAP_SCAN, &scan);
		if (count < 0)
			bench_die("PAGEMAP_SCAN: %s", strerror(errno));
		bytes += take(collector, (size_t)count);
	}
	return bytes;
}

static void close_bare(struct collector *collector)
{
	close(collector->pagemap);
	close(collector->uffd);
}

static void register_pieces(struct collector *collector)
{
	const struct collector_setup *setup = &collector->setup;
	uint64_t from = bench_now_ns();

	for (size_t i = 0; i < setup->pieces; i++) {
		struct uffdio_register range = {
		        .range = {(uint64_t)(uintptr_t)collector_page(collector, i * setup->piece_pages),
		                  setup->piece_pages * setup->area.page_bytes},
		        .mode = UFFDIO_REGISTER_MODE_WP,
		};

		if (ioctl(collector->uffd, UFFDIO_REGISTER, &range))
			bench_die("registering piece %zu for the bare ioctl: %s", i, strerror(errno));
	}
	collector->added_ns = bench_now_ns() - from;
}

void collector_open_bare(struct collector *collector, const struct collector_setup *setup)
{
	const char *reason;

	collector_init(collector, setup);
	reason = open_uffd(&collector->uffd);
	if (reason)
		bench_skip("%s", reason);
	collector->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (collector->pagemap < 0)
		bench_skip("/proc/self/pagemap: %s", strerror(errno));
	collector->collect = collect;
	collector->close = close_bare;
	register_pieces(collector);
	collect(collector);
}
