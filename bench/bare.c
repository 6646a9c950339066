/* SPDX-License-Identifier: MIT */
/*
 * See bare.h. The thread is ended by pthread_cancel(), whose cancellation point is poll(): the loop needs no second
 * descriptor as a sign to stop, and stays the barest possible.
 */
#include "bare.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"

static struct bare *inline_bare;

static int writeprotect(const struct bare *bare, uint64_t start, uint64_t length_bytes, uint64_t mode)
{
	struct uffdio_writeprotect request = {.range = {start, length_bytes}, .mode = mode};

	return ioctl(bare->uffd, UFFDIO_WRITEPROTECT, &request);
}

static int fill_hole(const struct bare *bare, uint64_t page)
{
	struct uffdio_zeropage zero = {.range = {page, bare->area.page_bytes}};
	struct uffdio_copy copy = {.dst = page, .src = (uint64_t)(uintptr_t)bare->zeros, .len = bare->area.page_bytes};

	return bare->zeros ? ioctl(bare->uffd, UFFDIO_COPY, &copy) : ioctl(bare->uffd, UFFDIO_ZEROPAGE, &zero);
}

int bare_unprotect(const struct bare *bare, uint64_t address)
{
	uint64_t page = address & ~(uint64_t)(bare->area.page_bytes - 1);
	struct uffdio_continue minor = {.range = {page, bare->area.page_bytes}};

	switch (bare->kind) {
	case BARE_WP:
		return writeprotect(bare, page, bare->area.page_bytes, 0);
	case BARE_MINOR:
		return ioctl(bare->uffd, UFFDIO_CONTINUE, &minor);
	default:
		return fill_hole(bare, page);
	}
}

static void serve_fault(struct bare *bare, uint64_t address)
{
	if (bare->on_fault)
		bare->on_fault(bare, address);
	else
		bare_unprotect(bare, address);
}

static void *serve(void *argument)
{
	struct bare *bare = argument;
	struct pollfd wait = {.fd = bare->uffd, .events = POLLIN};
	struct uffd_msg messages[16];

	bench_pin(bare->cpu);
	for (;;) {
		ssize_t got;

		poll(&wait, 1, -1);
		got = read(bare->uffd, messages, sizeof(messages));
		for (size_t i = 0; got > 0 && i < (size_t)got / sizeof(messages[0]); i++)
			serve_fault(bare, messages[i].arg.pagefault.address);
	}
	return NULL;
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
	uint64_t address = (uint64_t)(uintptr_t)info->si_addr;

	(void)context;
	if (inline_bare->on_fault)
		inline_bare->on_fault(inline_bare, address);
	else if (bare_unprotect(inline_bare, address))
		signal(number, SIG_DFL);
}

static int open_uffd(void)
{
	int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 && errno == EPERM)
		fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (fd < 0)
		bench_skip("no userfaultfd: %s", strerror(errno));
	return fd;
}

/* What a kind asks of the kernel, for shared memory (first) and for private anonymous memory. */
static const struct {
	uint64_t mode;
	uint64_t features[2];
} wanted[] = {
        [BARE_WP] = {UFFDIO_REGISTER_MODE_WP,
                     {UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
                      UFFD_FEATURE_PAGEFAULT_FLAG_WP}},
        [BARE_MINOR] = {UFFDIO_REGISTER_MODE_MINOR, {UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MINOR_HUGETLBFS, 0}},
        [BARE_MISSING] = {UFFDIO_REGISTER_MODE_MISSING,
                          {UFFD_FEATURE_MISSING_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS, 0}},
};

static void negotiate(struct bare *bare)
{
	struct uffdio_api api = {
	        .api = UFFD_API,
	        .features = wanted[bare->kind].features[bare->area.memory == UFFDWP_MEMORY_ANON],
	};
	struct uffdio_register range = {
	        .range = {(uint64_t)(uintptr_t)bare->area.base, bare->area.length_bytes},
	        .mode = wanted[bare->kind].mode,
	};

	if (bare->delivery == UFFDWP_DELIVERY_INLINE)
		api.features |= UFFD_FEATURE_SIGBUS;
	if (ioctl(bare->uffd, UFFDIO_API, &api) || ioctl(bare->uffd, UFFDIO_REGISTER, &range))
		bench_skip("this kernel does not register %s memory for the bare loop: %s",
		           area_memory_name(bare->area.memory), strerror(errno));
}

void bare_open(struct bare *bare, enum uffdwp_memory memory, size_t length_bytes)
{
	area_map(&bare->area, memory, length_bytes);
	bare->zeros = NULL;
	if (bare->kind == BARE_MISSING && memory == UFFDWP_MEMORY_HUGETLB) {
		bare->zeros = calloc(1, bare->area.page_bytes);
		if (!bare->zeros)
			bench_die("no memory for a page of zeros");
	}
	bare->uffd = open_uffd();
	negotiate(bare);
	if (bare->delivery == UFFDWP_DELIVERY_THREAD)
		bench_must(-pthread_create(&bare->thread, NULL, serve, bare), "a thread for the bare loop");
}

void bare_attach(struct bare *bare, const struct area *area)
{
	bare->area = *area;
	bare->uffd = open_uffd();
	negotiate(bare);
}

void bare_detach(struct bare *bare)
{
	close(bare->uffd);
}

void bare_close(struct bare *bare)
{
	if (bare->delivery == UFFDWP_DELIVERY_THREAD) {
		pthread_cancel(bare->thread);
		pthread_join(bare->thread, NULL);
	}
	close(bare->uffd);
	area_unmap(&bare->area);
	free(bare->zeros);
}

void bare_enter(struct bare *bare)
{
	struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};

	if (bare->delivery != UFFDWP_DELIVERY_INLINE)
		return;
	inline_bare = bare;
	sigaction(SIGBUS, &action, NULL);
}

/* MADV_REMOVE punches a hole into shared memory; for private memory MADV_DONTNEED is all that there is. */
static int lose(const struct bare *bare)
{
	int is_hole = bare->kind == BARE_MISSING && bare->area.memory != UFFDWP_MEMORY_ANON;

	return madvise(bare->area.base, bare->area.length_bytes, is_hole ? MADV_REMOVE : MADV_DONTNEED);
}

void bare_arm(struct bare *bare)
{
	uint64_t start = (uint64_t)(uintptr_t)bare->area.base;

	if (bare->kind == BARE_WP ? writeprotect(bare, start, bare->area.length_bytes, UFFDIO_WRITEPROTECT_MODE_WP)
	                          : lose(bare))
		bench_die("arming for the bare loop: %s", strerror(errno));
}
