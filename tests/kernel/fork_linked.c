/* SPDX-License-Identifier: MIT */
/* See fork_linked.h. */
#include "fork_linked.h"

#include <pthread.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

unsigned char *volatile fork_linked_block;

/* Also calls of memory, which an allocator's handlers may make. */
static void fork_linked_renew(void)
{
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);

	if (madvise(fork_linked_block + page_bytes, page_bytes, MADV_DONTNEED) != 0)
		abort();
}

static void fork_linked_prepare(void)
{
	if (fork_linked_block) {
		fork_linked_block[0]++;
		fork_linked_renew();
	}
}

static void fork_linked_parent(void)
{
	if (fork_linked_block) {
		fork_linked_block[1]++;
		fork_linked_renew();
	}
}

static void fork_linked_child(void)
{
	void *own = mmap(NULL, (size_t)1 << 20, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (own == MAP_FAILED)
		abort();
	if (fork_linked_block) {
		fork_linked_block[2]++;
		fork_linked_renew();
	}
}

__attribute__((constructor)) static void fork_linked_begin(void)
{
	if (pthread_atfork(fork_linked_prepare, fork_linked_parent, fork_linked_child) != 0)
		abort();
}
