/* SPDX-License-Identifier: MIT */
/*
 * The kinds of access to a userfaultfd, and what it is asked for.
 *
 * Idea: privilege decides the access, not the version. The system call is tried first, the device (which only needs
 * file permission) next, and last the system call for user-mode faults only, which any process may have, but with which
 * system calls that write into armed pages fail. Features are asked of a throw-away descriptor, because UFFDIO_API
 * refuses unknown bits and is answered once per descriptor.
 *
 * Threads: any; there is no state. Never: leave a descriptor open on failure.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "kernel/kernel.h"

int kernel_uffd_open_by(const struct kernel_ops *k, enum kernel_access access)
{
	switch (access) {
	case KERNEL_ACCESS_SYSCALL:
		return k->uffd_open_syscall(O_CLOEXEC | O_NONBLOCK);
	case KERNEL_ACCESS_DEVICE:
		return k->uffd_open_device(O_CLOEXEC | O_NONBLOCK);
	case KERNEL_ACCESS_USER_MODE:
		return k->uffd_open_syscall(O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	case KERNEL_ACCESS_COUNT:
		break;
	}
	return -EINVAL;
}

/* The system call's plain "no" is worth less than what the device says, unless there is no device. */
static int uffd_reported_error(const int errors[KERNEL_ACCESS_COUNT], int user_mode_only)
{
	int device = errors[KERNEL_ACCESS_DEVICE];

	if (user_mode_only)
		return errors[KERNEL_ACCESS_USER_MODE];
	if (errors[KERNEL_ACCESS_SYSCALL] != -EPERM || device == -ENOENT)
		return errors[KERNEL_ACCESS_SYSCALL];
	return device;
}

int kernel_uffd_open(const struct kernel_ops *k, int user_mode_only, enum kernel_access *access,
                     int errors[KERNEL_ACCESS_COUNT])
{
	unsigned first = user_mode_only ? KERNEL_ACCESS_USER_MODE : KERNEL_ACCESS_SYSCALL;

	for (unsigned method = 0; method < KERNEL_ACCESS_COUNT; method++)
		errors[method] = 0;
	for (unsigned method = first; method < KERNEL_ACCESS_COUNT; method++) {
		int uffd = kernel_uffd_open_by(k, (enum kernel_access)method);

		if (uffd >= 0) {
			*access = (enum kernel_access)method;
			return uffd;
		}
		errors[method] = uffd;
	}
	return uffd_reported_error(errors, user_mode_only);
}

/* A descriptor with exactly these features; *features becomes what the kernel has. */
static int uffd_open_with(const struct kernel_ops *k, enum kernel_access access, uint64_t *features)
{
	int uffd = kernel_uffd_open_by(k, access);
	int error;

	if (uffd < 0)
		return uffd;
	error = k->uffd_api(uffd, features);
	if (error == 0)
		return uffd;
	k->close(uffd);
	return error;
}

int kernel_uffd_features(const struct kernel_ops *k, enum kernel_access access, uint64_t *features)
{
	uint64_t offered = 0;
	int uffd = uffd_open_with(k, access, &offered);

	if (uffd < 0)
		return uffd;
	k->close(uffd);
	*features = offered;
	return 0;
}

int kernel_uffd_new(const struct kernel_ops *k, enum kernel_access access, uint64_t wanted, uint64_t *granted)
{
	uint64_t offered;
	uint64_t asked;
	int uffd = kernel_uffd_features(k, access, &offered);

	if (uffd < 0)
		return uffd;
	wanted &= offered;
	asked = wanted;
	uffd = uffd_open_with(k, access, &asked);
	/* The event of forks is offered to all and granted to CAP_SYS_PTRACE only. */
	if (uffd == -EPERM && (wanted & UFFD_FEATURE_EVENT_FORK)) {
		wanted &= ~(uint64_t)UFFD_FEATURE_EVENT_FORK;
		asked = wanted;
		uffd = uffd_open_with(k, access, &asked);
	}
	if (uffd >= 0)
		*granted = wanted;
	return uffd;
}

int kernel_discard(const struct kernel_ops *k, void *address, size_t length)
{
	int error = k->madvise(address, length, MADV_DONTNEED);

	return error == -EINVAL ? k->madvise(address, length, MADV_DONTNEED_LOCKED_NOW) : error;
}

uint64_t kernel_now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

void kernel_sleep(const struct kernel_ops *k, uint64_t sleep_ns)
{
	static const uint32_t unused_word;

	k->futex_wait(&unused_word, 0, sleep_ns);
}

uint32_t kernel_thread_id(void)
{
	int saved = errno;
	uint32_t id = (uint32_t)syscall(SYS_gettid);

	errno = saved;
	return id;
}
