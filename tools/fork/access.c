/* SPDX-License-Identifier: MIT */
/* See access.h. */
#include "access.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "killing.h"
#include "uffdwp.h"

/* A call that a filter kills for is not made. */
static int access_check_filters(char *why, size_t size)
{
	char names[256];

	if (!killing_may_be() || !killing_find(names, sizeof(names), 0))
		return 0;
	(void)snprintf(why, size, "a seccomp filter here ends a process that calls %s", names);
	return -EPERM;
}

/* Children are found there. */
static int access_check_proc(char *why, size_t size)
{
	int error = access("/proc/self/task", R_OK) == 0 ? 0 : -errno;

	if (error)
		(void)snprintf(why, size, "/proc/self/task is not there: %s: mount /proc", strerror(-error));
	return error;
}

static int access_check_memfd(char *why, size_t size)
{
	int fd = (int)syscall(SYS_memfd_create, "uffdwp-fork", 0u);
	int error = fd < 0 ? -errno : 0;

	if (fd >= 0)
		(void)close(fd);
	else
		(void)snprintf(why, size, "memfd_create(2) is refused: %s%s", strerror(-error),
		               error == -ENOSYS || error == -EPERM ? " (a seccomp filter?)" : "");
	return error;
}

/* Where only faults of user code may be caught a system call that writes to the heap would fail. Delivery inline has
 * them fail anyway. */
static int access_check_userfaultfd(uint32_t delivery, char *why, size_t size)
{
	int fd = delivery == UFFDWP_DELIVERY_INLINE ? -1 : (int)syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd >= 0)
		(void)close(fd);
	if (fd >= 0 || delivery == UFFDWP_DELIVERY_INLINE || access("/dev/userfaultfd", R_OK | W_OK) == 0)
		return 0;
	(void)snprintf(why, size,
	               "this user may not have userfaultfd for system calls: see uffdwp-ctl doctor, or give "
	               "--delivery=inline, if no system call writes to the heap while a child lives");
	return -EPERM;
}

int access_check(uint32_t delivery, char *why, size_t size)
{
	int error = access_check_filters(why, size);

	if (!error)
		error = access_check_proc(why, size);
	if (!error)
		error = access_check_memfd(why, size);
	return error ? error : access_check_userfaultfd(delivery, why, size);
}
