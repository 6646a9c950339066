/* SPDX-License-Identifier: MIT */
/*
 * See bare.h. The thread is ended by pthread_cancel(), whose cancellation point is poll(): the loop needs no second
 * descriptor to be told to stop, and stays the barest possible.
 */
#include "bare.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"

static const struct bare *inline_bare;

static int writeprotect(const struct bare *bare, uint64_t start, uint64_t length_bytes, uint64_t mode)
{
	struct uffdio_writeprotect request = {.range = {start, length_bytes}, .mode = mode};

	return ioctl(bare->uffd, UFFDIO_WRITEPROTECT, &request);
}

static void *serve(void *argument)
{
	const struct bare *bare = argument;
	const uint64_t mask = ~(uint64_t)(bare->area.page_bytes - 1);
	struct pollfd wait = {.fd = bare->uffd, .events = POLLIN};
	struct uffd_msg messages[16];

	bench_pin(bare->cpu);
	for (;;) {
		ssize_t got;

		poll(&wait, 1, -1);
		got = read(bare->uffd, messages, sizeof(messages));
		for (size_t i = 0; got > 0 && i < (size_t)got / sizeof(messages[0]); i++)
			writeprotect(bare, messages[i].arg.pagefault.address & mask, bare->area.page_bytes, 0);
	}
	return NULL;
}

static void on_bus_error(int number, siginfo_t *info, void *context)
{
	const uint64_t mask = ~(uint64_t)(inline_bare->area.page_bytes - 1);

	(void)context;
	if (writeprotect(inline_bare, (uint64_t)(uintptr_t)info->si_addr & mask, inline_bare->area.page_bytes, 0))
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

static void negotiate(struct bare *bare)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP};
	struct uffdio_register range = {
	        .range = {(uint64_t)(uintptr_t)bare->area.base, bare->area.length_bytes},
	        .mode = UFFDIO_REGISTER_MODE_WP,
	};

	if (bare->area.memory != UFFDWP_MEMORY_ANON)
		api.features |= UFFD_FEATURE_WP_HUGETLBFS_SHMEM;
	if (bare->delivery == UFFDWP_DELIVERY_INLINE)
		api.features |= UFFD_FEATURE_SIGBUS;
	if (ioctl(bare->uffd, UFFDIO_API, &api) || ioctl(bare->uffd, UFFDIO_REGISTER, &range))
		bench_skip("this kernel write-protects no %s memory: %s", area_memory_name(bare->area.memory),
		           strerror(errno));
}

void bare_open(struct bare *bare, enum uffdwp_memory memory, size_t length_bytes, enum uffdwp_delivery delivery,
               int cpu)
{
	bare->cpu = cpu;
	bare->delivery = delivery;
	area_map(&bare->area, memory, length_bytes);
	bare->uffd = open_uffd();
	negotiate(bare);
	if (delivery == UFFDWP_DELIVERY_INLINE) {
		inline_bare = bare;
		memset(&bare->action, 0, sizeof(bare->action));
		bare->action.sa_sigaction = on_bus_error;
		bare->action.sa_flags = SA_SIGINFO;
	} else {
		bench_must(-pthread_create(&bare->thread, NULL, serve, bare), "a thread for the bare loop");
	}
}

void bare_close(struct bare *bare)
{
	if (bare->delivery == UFFDWP_DELIVERY_THREAD) {
		pthread_cancel(bare->thread);
		pthread_join(bare->thread, NULL);
	}
	close(bare->uffd);
	area_unmap(&bare->area);
}

void bare_arm(struct bare *bare)
{
	uint64_t start = (uint64_t)(uintptr_t)bare->area.base;

	if (writeprotect(bare, start, bare->area.length_bytes, UFFDIO_WRITEPROTECT_MODE_WP))
		bench_die("arming for the bare loop: %s", strerror(errno));
}
