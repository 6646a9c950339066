/* SPDX-License-Identifier: MIT */
/*
 * The side `bare` of the question `fork`: the calls that uffdwp_fork() cannot do without, and nothing else. It is the
 * limit of what is measured, and no contender: writers would have to stand still until it is ready.
 *
 * The call: a private mapping of the file for the child, mremap(MREMAP_DONTUNMAP), which takes the page tables away,
 * and a fork() of the rest. Then, not timed: all entries are mapped again, the old page tables are unmapped, and all is
 * protected. A write comes as a signal; in its handler the child's page is broken off by process_vm_writev() from a
 * page that cannot be read (so that the child gets a copy of its own, and nothing is written into it), and the parent's
 * page is unprotected.
 *
 * Threads: the main thread only.
 */
#include "fork_bare.h"

#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bare.h"
#include "bench.h"

static struct {
	struct bare uffd;
	int fd;
	struct area area;
	char *moved;              /* where the page tables went */
	char *unreadable;         /* a page */
	_Atomic int *is_in_place; /* shared with the child: its mapping is at the address of the parent's */
	pid_t child;
	int error; /* of the handler */
} fork_bare;

static void *fork_bare_map(size_t length_bytes, int protection, int flags, int fd)
{
	void *base = mmap(NULL, length_bytes, protection, flags, fd, 0);

	if (base == MAP_FAILED)
		bench_die("mapping %zu bytes: %s", length_bytes, strerror(errno));
	return base;
}

static void fork_bare_break_off(struct bare *uffd, uint64_t address)
{
	size_t page_bytes = uffd->area.page_bytes;
	uint64_t page = address & ~(uint64_t)(page_bytes - 1);
	struct iovec from = {fork_bare.unreadable, page_bytes};
	struct iovec to = {(void *)(uintptr_t)page, page_bytes};

	if (process_vm_writev(fork_bare.child, &from, 1, &to, 1, 0) >= 0 || errno != EFAULT)
		fork_bare.error = errno;
	if (bare_unprotect(uffd, page))
		_exit(BENCH_EXIT_ERROR);
}

void fork_bare_open(const struct fork_side *side, size_t size_bytes, struct area *area)
{
	size_t page_bytes = area_page_bytes(UFFDWP_MEMORY_SHMEM);
	char *base;

	(void)side;
	fork_bare.fd = memfd_create("uffdwp-bench", MFD_CLOEXEC);
	if (fork_bare.fd < 0 || ftruncate(fork_bare.fd, (off_t)size_bytes))
		bench_die("memfd_create: %s", strerror(errno));
	base = fork_bare_map(size_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fork_bare.fd);
	if (madvise(base, size_bytes, MADV_DONTFORK))
		bench_die("MADV_DONTFORK: %s", strerror(errno));
	fork_bare.area = *area = (struct area){UFFDWP_MEMORY_SHMEM, base, size_bytes, page_bytes};
	fork_bare.unreadable = fork_bare_map(page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	fork_bare.is_in_place = fork_bare_map(page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1);
}

pid_t fork_bare_fork(void)
{
	size_t length_bytes = fork_bare.area.length_bytes;
	char *view = mmap(NULL, length_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fork_bare.fd, 0);
	pid_t child;

	if (view == MAP_FAILED)
		return -errno;
	atomic_store(fork_bare.is_in_place, 0);
	fork_bare.moved =
	        mremap(fork_bare.area.base, length_bytes, length_bytes, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL);
	if (fork_bare.moved == MAP_FAILED) {
		munmap(view, length_bytes);
		return -errno;
	}
	child = fork();
	if (child == 0) {
		if (mremap(view, length_bytes, length_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, fork_bare.area.base) !=
		    fork_bare.area.base)
			_exit(1);
		atomic_store(fork_bare.is_in_place, 1);
		return 0;
	}
	munmap(view, length_bytes);
	return child < 0 ? -errno : child;
}

static void fork_bare_map_again(void)
{
	for (size_t at = 0; at < fork_bare.area.length_bytes; at += fork_bare.area.page_bytes)
		(void)*(volatile char *)(fork_bare.area.base + at);
	munmap(fork_bare.moved, fork_bare.area.length_bytes);
}

void fork_bare_ready(pid_t child)
{
	fork_bare.child = child;
	fork_bare.error = 0;
	fork_bare_map_again();
	fork_bare.uffd =
	        (struct bare){.kind = BARE_WP, .delivery = UFFDWP_DELIVERY_INLINE, .on_fault = fork_bare_break_off};
	bare_attach(&fork_bare.uffd, &fork_bare.area);
	bare_arm(&fork_bare.uffd);
	bare_enter(&fork_bare.uffd);
	while (!atomic_load(fork_bare.is_in_place))
		sched_yield();
}

void fork_bare_ended(void)
{
	bare_detach(&fork_bare.uffd);
	if (fork_bare.error)
		bench_die("bare: a page could not be broken off the child: %s", strerror(fork_bare.error));
}

void fork_bare_close(void)
{
	munmap(fork_bare.area.base, fork_bare.area.length_bytes);
	munmap(fork_bare.unreadable, fork_bare.area.page_bytes);
	munmap(fork_bare.is_in_place, fork_bare.area.page_bytes);
	close(fork_bare.fd);
}
