/* SPDX-License-Identifier: MIT */
/* See bare.h. */
#include "bare.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "support.h"

static int writeprotect(const struct bare *bare, size_t page, size_t pages, uint64_t mode)
{
	uint64_t start = (uint64_t)(uintptr_t)(bare->patch.base + page * bare->patch.page_bytes);
	struct uffdio_writeprotect protect = {{start, pages * bare->patch.page_bytes}, mode};
	return ioctl(bare->uffd, UFFDIO_WRITEPROTECT, &protect) == 0 ? 0 : -errno;
}

static void see_write(struct bare *bare, uintptr_t address)
{
	size_t page = (address - (uintptr_t)bare->patch.base) / bare->patch.page_bytes;
	atomic_store(&bare->armed[page], 0);
	must(writeprotect(bare, page, 1, 0) == 0);
}

static void *serve(void *argument)
{
	struct bare *bare = argument;
	struct pollfd ready = {.fd = bare->uffd, .events = POLLIN};
	struct uffd_msg message;
	while (!atomic_load(&bare->stop)) {
		if (poll(&ready, 1, 10) > 0 && read(bare->uffd, &message, sizeof(message)) == sizeof(message)) {
			must(message.event == UFFD_EVENT_PAGEFAULT);
			see_write(bare, (uintptr_t)message.arg.pagefault.address);
		}
	}
	return NULL;
}

static int open_uffd(void)
{
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0) {
		uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	}
	struct uffdio_api api = {.api = UFFD_API};
	return uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0 ? -errno : uffd;
}

static int protect(struct bare *bare)
{
	struct uffdio_register registration = {
	        {(uintptr_t)bare->patch.base, bare->patch.length_bytes}, UFFDIO_REGISTER_MODE_WP, 0};
	bare->uffd = open_uffd();
	if (bare->uffd < 0) {
		return bare->uffd;
	}
	if (ioctl(bare->uffd, UFFDIO_REGISTER, &registration) != 0) {
		int error = -errno;
		close(bare->uffd);
		return error;
	}
	return 0;
}

int bare_open(struct bare *bare, enum uffdwp_memory memory, size_t pages)
{
	memset(bare, 0, sizeof(*bare));
	bare->patch = patch_map(memory, pages);
	bare->pages = pages;
	memset(bare->patch.base, 1, bare->patch.length_bytes);
	int error = protect(bare);
	if (error != 0) {
		patch_unmap(&bare->patch);
		return error;
	}
	bare->armed = calloc(pages, sizeof(*bare->armed));
	must(bare->armed != NULL);
	bare->thread = thread_start(serve, bare);
	return 0;
}

void bare_close(struct bare *bare)
{
	atomic_store(&bare->stop, 1);
	thread_join(bare->thread);
	close(bare->uffd);
	patch_unmap(&bare->patch);
	free((void *)bare->armed);
}

void bare_arm(struct bare *bare)
{
	for (size_t page = 0; page < bare->pages; page++) {
		atomic_store(&bare->armed[page], 1);
	}
	must(writeprotect(bare, 0, bare->pages, UFFDIO_WRITEPROTECT_MODE_WP) == 0);
}

void bare_lose(struct bare *bare, size_t page, size_t pages)
{
	uint8_t *start = bare->patch.base + page * bare->patch.page_bytes;
	must(madvise(start, pages * bare->patch.page_bytes, MADV_DONTNEED) == 0);
	must(writeprotect(bare, page, pages, 0) == 0);
}
