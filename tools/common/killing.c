/* SPDX-License-Identifier: MIT */
/* See killing.h. */
#include "killing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kernel/abi.h"

#define KILLING_STATUS_BYTES 4096

static void killing_call_userfaultfd(void)
{
	(void)syscall(SYS_userfaultfd, 0);
}

/* A filter may look at what is asked of a descriptor. */
static void killing_call_ioctl(void)
{
	static const unsigned long requests[] = {UFFDIO_API,          UFFDIO_REGISTER, UFFDIO_UNREGISTER,
	                                         UFFDIO_WAKE,         UFFDIO_COPY,     UFFDIO_ZEROPAGE,
	                                         UFFDIO_WRITEPROTECT, UFFDIO_CONTINUE, PAGEMAP_SCAN};

	for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++)
		(void)syscall(SYS_ioctl, -1, requests[i], NULL);
}

static void killing_call_uring(void)
{
	struct io_uring_params parameters;

	memset(&parameters, 0, sizeof(parameters));
	(void)syscall(SYS_io_uring_setup, 1, &parameters);
}

static void killing_call_memfd(void)
{
	(void)syscall(SYS_memfd_create, "uffdwp", 0u);
}

static void killing_call_read_process(void)
{
	(void)syscall(SYS_process_vm_readv, getpid(), NULL, 0ul, NULL, 0ul, 0ul);
}

static void killing_call_write_process(void)
{
	(void)syscall(SYS_process_vm_writev, getpid(), NULL, 0ul, NULL, 0ul, 0ul);
}

static void killing_call_mincore(void)
{
	(void)syscall(SYS_mincore, NULL, 0ul, NULL);
}

static void killing_call_fallocate(void)
{
	(void)syscall(SYS_fallocate, -1, 0, 0l, 0l);
}

static void killing_call_ftruncate(void)
{
	(void)syscall(SYS_ftruncate, -1, 0l);
}

static void killing_call_mremap(void)
{
	(void)syscall(SYS_mremap, NULL, 0ul, 0ul, 0ul, NULL);
}

static void killing_call_madvise(void)
{
	(void)syscall(SYS_madvise, NULL, 0ul, 0);
}

static void killing_call_pidfd(void)
{
	(void)syscall(SYS_pidfd_open, -1, 0u);
}

static void killing_call_pidfd_signal(void)
{
	(void)syscall(SYS_pidfd_send_signal, -1, 0, NULL, 0u);
}

static void killing_call_epoll(void)
{
	(void)syscall(SYS_epoll_create1, -1);
}

static void killing_call_eventfd(void)
{
	(void)syscall(SYS_eventfd2, 0u, -1);
}

static void killing_call_attributes(void)
{
	(void)syscall(SYS_sched_getattr, 0, NULL, 0u, 0u);
	(void)syscall(SYS_sched_setattr, 0, NULL, 0u);
}

static void killing_call_prctl(void)
{
	(void)prctl(PR_GET_DUMPABLE, 0, 0, 0, 0);
}

static void killing_call_clone3(void)
{
#ifdef SYS_clone3
	(void)syscall(SYS_clone3, NULL, 0ul);
#endif
}

/* Those that only images need are the last. */
static const struct {
	const char *name;
	void (*call)(void);
} killing_calls[] = {
        {"userfaultfd", killing_call_userfaultfd},
        {"ioctl", killing_call_ioctl},
        {"memfd_create", killing_call_memfd},
        {"process_vm_readv", killing_call_read_process},
        {"process_vm_writev", killing_call_write_process},
        {"mincore", killing_call_mincore},
        {"fallocate", killing_call_fallocate},
        {"ftruncate", killing_call_ftruncate},
        {"mremap", killing_call_mremap},
        {"madvise", killing_call_madvise},
        {"pidfd_open", killing_call_pidfd},
        {"pidfd_send_signal", killing_call_pidfd_signal},
        {"epoll_create1", killing_call_epoll},
        {"eventfd2", killing_call_eventfd},
        {"sched_setattr", killing_call_attributes},
        {"prctl", killing_call_prctl},
        {"clone3", killing_call_clone3},
        {"io_uring_setup", killing_call_uring},
};

#define KILLING_CALLS (sizeof(killing_calls) / sizeof(killing_calls[0]))
#define KILLING_CALLS_OF_IMAGES 1

static void killing_call_all(void)
{
	for (size_t i = 0; i < KILLING_CALLS; i++)
		killing_calls[i].call();
}

int killing_may_be(void)
{
	char text[KILLING_STATUS_BYTES];
	int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text) - 1);

	if (fd >= 0)
		(void)close(fd);
	text[got > 0 ? got : 0] = '\0';
	return !strstr(text, "\nSeccomp:\t0\n");
}

int killing_kills(void (*call)(void))
{
	const struct rlimit no_core = {0, 0};
	int status = 0;
	long child = syscall(SYS_clone, 0ul, 0ul, 0ul, 0ul, 0ul);
	long ended;

	if (child == 0) {
		(void)setrlimit(RLIMIT_CORE, &no_core);
		call();
		_exit(0);
	}
	if (child < 0)
		return 0;
	do
		ended = syscall(SYS_wait4, child, &status, __WCLONE, NULL);
	while (ended < 0 && errno == EINTR);
	return ended == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

size_t killing_find(char *names, size_t size, int with_images)
{
	size_t count = with_images ? KILLING_CALLS : KILLING_CALLS - KILLING_CALLS_OF_IMAGES;
	size_t used = 0;

	names[0] = '\0';
	if (!killing_kills(killing_call_all))
		return 0;
	for (size_t i = 0; i < count && used < size; i++) {
		if (killing_kills(killing_calls[i].call))
			used += (size_t)snprintf(names + used, size - used, "%s%s", used ? ", " : "",
			                         killing_calls[i].name);
	}
	return used;
}
