/* SPDX-License-Identifier: MIT */
/* See process.h. */
#include "kernel/process.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/kernel.h"

/* Alone on a page that is wiped. */
struct process_page {
	_Atomic uint32_t number;
};

static _Atomic(struct process_page *) process_page;
static _Atomic uint32_t process_last; /* number that was given out */
static _Atomic int process_pid;       /* the process that has the number */
static _Atomic int process_unwiped;   /* a kernel that does not wipe: the process id decides */

static void process_adopt(struct process_page *page)
{
	uint32_t none = 0;
	uint32_t number = atomic_fetch_add(&process_last, 1) + 1;

	atomic_store(&process_pid, getpid());
	atomic_compare_exchange_strong(&page->number, &none, number);
}

int process_begin(void)
{
	struct process_page *none = NULL;
	int error = 0;

	if (atomic_load(&process_page))
		return 0;
	struct process_page *page = kernel_real.mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE,
	                                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0, &error);

	if (!page)
		return error;
	if (kernel_real.madvise(page, sizeof(*page), MADV_WIPEONFORK))
		atomic_store(&process_unwiped, 1);
	process_adopt(page);
	if (!atomic_compare_exchange_strong(&process_page, &none, page))
		kernel_real.munmap(page, sizeof(*page));
	return 0;
}

uint32_t process_number(void)
{
	struct process_page *page = atomic_load(&process_page);

	if (!page)
		return 0;
	if (atomic_load(&process_unwiped) && atomic_load(&process_pid) != getpid())
		atomic_store(&page->number, 0);
	if (!atomic_load(&page->number))
		process_adopt(page);
	return atomic_load(&page->number);
}

int process_is_guest(void)
{
	return process_number() != 0 && atomic_load(&process_pid) != getpid();
}
