/* SPDX-License-Identifier: MIT */
/*
 * The control: shared memory under bare userfaultfd write protection, outside of the library. A page is armed, treated,
 * and written by another thread. Either a fault arrives (caught), or the writer is done (missed): whichever comes
 * first, so that nothing depends on time. It shows that a kernel is what it is said to be. See matrix.h.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "matrix.h"

#ifndef UFFD_USER_MODE_ONLY
#define UFFD_USER_MODE_ONLY 1
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT 21
#endif

#define PAGES 64

struct bare {
	int uffd;
	int memfd;
	int done; /* eventfd: the writer has written */
	uint8_t *base;
	size_t page_bytes;
	size_t length_bytes;
	size_t page; /* the one to write */
};

/* A descriptor with those of the wanted features that this kernel has. */
static int open_uffd(void)
{
	struct uffdio_api api = {.api = UFFD_API};
	uint64_t wanted = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM;

	for (int attempt = 0; attempt < 2; attempt++) {
		int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

		if (uffd < 0)
			uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
		if (uffd < 0 || (ioctl(uffd, UFFDIO_API, &api) == 0 && attempt == 1))
			return uffd;
		(void)close(uffd);
		api = (struct uffdio_api){.api = UFFD_API, .features = api.features & wanted};
	}
	return -1;
}

static int protect(const struct bare *bare, size_t page, uint64_t mode)
{
	struct uffdio_writeprotect wp = {.mode = mode};

	wp.range.start = (uint64_t)(uintptr_t)(bare->base + page * bare->page_bytes);
	wp.range.len = bare->page_bytes;
	return ioctl(bare->uffd, UFFDIO_WRITEPROTECT, &wp);
}

static int treat(const struct bare *bare, enum treatment treatment, size_t page)
{
	uint8_t *at = bare->base + page * bare->page_bytes;

	if (treatment == TREAT_PUNCH)
		return fallocate(bare->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		                 (off_t)(page * bare->page_bytes), (off_t)bare->page_bytes);
	if (treatment == TREAT_ZAP)
		return madvise(at, bare->page_bytes, MADV_DONTNEED);
	if (treatment == TREAT_SWAP)
		return madvise(at, bare->page_bytes, MADV_PAGEOUT);
	return 0;
}

static void *write_page(void *argument)
{
	const struct bare *bare = argument;
	uint64_t one = 1;

	bare->base[bare->page * bare->page_bytes] = 77;
	if (write(bare->done, &one, sizeof(one)) != sizeof(one))
		abort();
	return NULL;
}

/* Lets a second thread write the page: 1, a fault came; 0, none did. */
static int write_is_caught(struct bare *bare, size_t page)
{
	struct pollfd ends[2] = {{.fd = bare->uffd, .events = POLLIN}, {.fd = bare->done, .events = POLLIN}};
	struct uffd_msg message;
	uint64_t count;
	pthread_t writer;
	int caught;

	bare->page = page;
	if (pthread_create(&writer, NULL, write_page, bare) != 0)
		abort();
	while (poll(ends, 2, -1) <= 0) {
	}
	caught = read(bare->uffd, &message, sizeof(message)) == (ssize_t)sizeof(message) &&
	         message.event == UFFD_EVENT_PAGEFAULT && (message.arg.pagefault.flags & UFFD_PAGEFAULT_FLAG_WP);
	if (protect(bare, page, 0))
		abort();
	(void)pthread_join(writer, NULL);
	if (read(bare->done, &count, sizeof(count)) != (ssize_t)sizeof(count))
		abort();
	return caught;
}

/* Out of memory, and not only advised to be: the witness of a swap-out. */
static int is_in_memory(const struct bare *bare, size_t page)
{
	unsigned char there = 1;

	(void)mincore(bare->base + page * bare->page_bytes, bare->page_bytes, &there);
	return there & 1;
}

/* Says how many of the writes after a treatment were caught: 1, 0, or -1 where the treatment did not take place. */
static int try_treatment(struct bare *bare, enum treatment treatment, size_t first, size_t end)
{
	size_t caught = 0;
	size_t tried = 0;

	for (size_t page = first; page < end; page++) {
		bare->base[page * bare->page_bytes] = 1;
		if (protect(bare, page, UFFDIO_WRITEPROTECT_MODE_WP))
			return -1;
		if (treat(bare, treatment, page) || (treatment == TREAT_SWAP && is_in_memory(bare, page)))
			continue;
		tried++;
		caught += (size_t)write_is_caught(bare, page);
	}
	return tried == 0 ? -1 : caught == tried;
}

static int map_memory(struct bare *bare)
{
	bare->page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	bare->length_bytes = PAGES * bare->page_bytes;
	bare->uffd = open_uffd();
	bare->done = eventfd(0, EFD_CLOEXEC);
	bare->memfd = memfd_create("bare", MFD_CLOEXEC);
	if (bare->uffd < 0 || bare->done < 0 || bare->memfd < 0 || ftruncate(bare->memfd, (off_t)bare->length_bytes))
		return -errno;
	void *base = mmap(NULL, bare->length_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, bare->memfd, 0);

	if (base == MAP_FAILED)
		return -errno;
	bare->base = base;
	return 0;
}

static int watch_memory(const struct bare *bare)
{
	struct uffdio_register registration = {.mode = UFFDIO_REGISTER_MODE_WP};

	registration.range.start = (uint64_t)(uintptr_t)bare->base;
	registration.range.len = bare->length_bytes;
	return ioctl(bare->uffd, UFFDIO_REGISTER, &registration) ? -errno : 0;
}

/* A page that nothing happened to is caught wherever the registration is accepted. */
static int is_wrong(const char *expected, enum treatment treatment, const char *answer)
{
	if (strcmp(answer, "untried") == 0 || !expected)
		return 0;
	if (treatment == TREAT_NOTHING && strcmp(expected, "missed") == 0)
		expected = "caught";
	return strcmp(answer, expected) != 0;
}

static int say(const char *expected, enum treatment treatment, const char *answer, const char *reason)
{
	int wrong = is_wrong(expected, treatment, answer);

	printf("bare shmem %s %s%s%s%s\n", treatment_name(treatment), answer, reason[0] ? " " : "", reason,
	       wrong ? " (the kernel is not what it is said to be)" : "");
	return wrong;
}

int bare_control(const char *expected)
{
	static const char *const answers[] = {"untried", "missed", "caught"};
	struct bare bare = {.uffd = -1, .memfd = -1, .done = -1};
	int error = map_memory(&bare);
	int wrong = 0;

	if (error || !bare.base) {
		printf("bare shmem nothing untried %s\n", strerror(-error));
		return expected != NULL;
	}
	error = watch_memory(&bare);
	if (error)
		wrong = say(expected, TREAT_NOTHING, "refused", strerror(-error));
	for (size_t i = 0; i < TREAT_COUNT && !error; i++) {
		size_t share = PAGES / TREAT_COUNT;
		int answer = try_treatment(&bare, (enum treatment)i, i * share, (i + 1) * share);

		wrong |= say(expected, (enum treatment)i, answers[answer + 1], "");
	}
	(void)munmap(bare.base, bare.length_bytes);
	(void)close(bare.memfd);
	(void)close(bare.done);
	(void)close(bare.uffd);
	return wrong;
}
