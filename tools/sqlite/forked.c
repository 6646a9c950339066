/* SPDX-License-Identifier: MIT */
/* See forked.h. A page that the kernel wipes in children (MADV_WIPEONFORK, Linux 4.14) shows it. */
#include "forked.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <unistd.h>

static _Atomic(unsigned char *) parent_page; /* 1 in the process that made it, 0 in its children */

static int forked_make_page(void)
{
	size_t length = (size_t)sysconf(_SC_PAGESIZE);
	unsigned char *page = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (page == MAP_FAILED)
		return -errno;
	if (madvise(page, length, MADV_WIPEONFORK) != 0) {
		int error = -errno;
		munmap(page, length);
		return error;
	}
	*page = 1;
	parent_page = page;
	return 0;
}

int forked_begin(void)
{
	static pthread_mutex_t once = PTHREAD_MUTEX_INITIALIZER;
	pthread_mutex_lock(&once);
	int result = parent_page ? 0 : forked_make_page();
	pthread_mutex_unlock(&once);
	return result;
}

int forked_is_child(void)
{
	const unsigned char *page = parent_page;
	return page && !*page;
}
