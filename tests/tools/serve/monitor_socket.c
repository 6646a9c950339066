/* SPDX-License-Identifier: MIT */
/* The stand-in's memory, and how it is handed over; see monitor.h. */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "monitor.h"

#define HUGE_BYTES ((size_t)2 << 20)

void monitor_fail(const char *format, ...)
{
	va_list arguments;

	va_start(arguments, format);
	(void)fprintf(stderr, "monitor %d: ", (int)getpid());
	(void)vfprintf(stderr, format, arguments);
	(void)fputc('\n', stderr);
	va_end(arguments);
	_exit(1);
}

int monitor_open_uffd(void)
{
	struct uffdio_api api = {.api = UFFD_API,
	                         .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP | UFFD_FEATURE_WP_HUGETLBFS_SHMEM |
	                                     UFFD_FEATURE_EVENT_REMOVE | UFFD_FEATURE_EVENT_UNMAP |
	                                     UFFD_FEATURE_EVENT_REMAP | UFFD_FEATURE_MISSING_SHMEM |
	                                     UFFD_FEATURE_MINOR_SHMEM | UFFD_FEATURE_MISSING_HUGETLBFS |
	                                     UFFD_FEATURE_MINOR_HUGETLBFS};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0)
		monitor_fail("no userfaultfd: %s", strerror(errno));
	return uffd;
}

/* As Firecracker makes it: for missing pages and discards, registered by itself. */
static int monitor_open_firecracker_uffd(const struct monitor *monitor)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE};
	struct uffdio_register range = {.range = {.start = (uintptr_t)monitor->memory, .len = monitor->length},
	                                .mode = UFFDIO_REGISTER_MODE_MISSING};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0 || ioctl(uffd, UFFDIO_REGISTER, &range) != 0)
		monitor_fail("no userfaultfd: %s", strerror(errno));
	return uffd;
}

int monitor_connect(const char *path)
{
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	(void)snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	if (fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0)
		return fd;
	if (fd >= 0)
		(void)close(fd);
	return -1;
}

int monitor_send(int socket, const char *bytes, size_t length, const int *descriptors, unsigned count)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(64 * sizeof(int))];
	} control = {.space = {0}};
	struct iovec part = {(void *)(uintptr_t)bytes, length};
	struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

	if (count > 0) {
		message.msg_control = &control;
		message.msg_controllen = CMSG_SPACE(count * sizeof(int));
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(count * sizeof(int));
		memcpy(CMSG_DATA(&control.header), descriptors, count * sizeof(int));
	}
	return sendmsg(socket, &message, MSG_NOSIGNAL) == (ssize_t)length ? 0 : -1;
}

static const char *monitor_answer(const struct monitor *monitor)
{
	static char line[65536];
	size_t used = 0;

	while (used + 1 < sizeof(line)) {
		ssize_t got = read(monitor->socket, line + used, 1);

		if (got <= 0)
			monitor_fail("no answer: %s", got < 0 ? strerror(errno) : "the connection ended");
		if (line[used] == '\n')
			break;
		used++;
	}
	line[used] = '\0';
	return line;
}

const char *monitor_ask(const struct monitor *monitor, const char *line)
{
	if (monitor_send(monitor->socket, line, strlen(line), NULL, 0) != 0)
		monitor_fail("the connection does not take a command: %s", strerror(errno));
	return monitor_answer(monitor);
}

static void monitor_map(struct monitor *monitor)
{
	int flags = MAP_SHARED;

	if (monitor->options.is_firecracker) {
		flags = MAP_PRIVATE | MAP_ANONYMOUS | (monitor->options.is_huge ? MAP_HUGETLB : 0);
		monitor->memfd = -1;
	} else {
		monitor->memfd = memfd_create("guest", MFD_CLOEXEC | (monitor->options.is_huge ? MFD_HUGETLB : 0));
		if (monitor->memfd < 0 || ftruncate(monitor->memfd, (off_t)monitor->length) != 0)
			monitor_fail("no memory: %s", strerror(errno));
	}
	monitor->memory = mmap(NULL, monitor->length, PROT_READ | PROT_WRITE, flags, monitor->memfd, 0);
	if (monitor->memory == MAP_FAILED)
		monitor_fail("no memory: %s", strerror(errno));
}

static void monitor_map_shadow(struct monitor *monitor)
{
	struct stat status;
	int fd = open(monitor->options.raw, O_RDONLY | O_CLOEXEC);

	if (fd < 0 || fstat(fd, &status) != 0 || status.st_size < (off_t)HUGE_BYTES)
		monitor_fail("%s: %s", monitor->options.raw, strerror(errno));
	monitor->length = (size_t)status.st_size;
	monitor->page_bytes = monitor->options.is_huge ? HUGE_BYTES : (size_t)sysconf(_SC_PAGESIZE);
	monitor->shadow = mmap(NULL, monitor->length, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	monitor->expected = mmap(NULL, monitor->length, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	monitor->page_count = monitor->length / monitor->page_bytes;
	monitor->changed = calloc(monitor->page_count, 1);
	if (monitor->shadow == MAP_FAILED || monitor->expected == MAP_FAILED || !monitor->changed)
		monitor_fail("no memory for the shadow");
	(void)close(fd);
}

/* Two mappings, as there are of guests with more than 3 GiB. */
static void monitor_greet_as_firecracker(struct monitor *monitor)
{
	char line[1024];
	size_t half = monitor->length / 2 / monitor->page_bytes * monitor->page_bytes;
	unsigned long long at = (uintptr_t)monitor->memory;
	unsigned long long middle = at + half;
	int length = snprintf(line, sizeof(line),
	                      "[{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":0,\"page_size\":%zu,"
	                      "\"page_size_kib\":%zu},{\"base_host_virt_addr\":%llu,\"size\":%llu,\"offset\":%llu,"
	                      "\"page_size\":%zu,\"page_size_kib\":%zu}]",
	                      at, (unsigned long long)half, monitor->page_bytes, monitor->page_bytes, middle,
	                      (unsigned long long)monitor->length - half, (unsigned long long)half, monitor->page_bytes,
	                      monitor->page_bytes);

	monitor->uffd = monitor_open_firecracker_uffd(monitor);
	if (monitor_send(monitor->socket, line, (size_t)length, &monitor->uffd, 1) != 0)
		monitor_fail("the handshake was not taken: %s", strerror(errno));
	(void)close(monitor->socket);
	monitor->socket = -1;
}

static void monitor_greet(struct monitor *monitor)
{
	char line[1024];
	int length = snprintf(line, sizeof(line),
	                      "{\"uffdwp\":1,\"name\":\"%s\",%s%s%s\"descriptors\":[\"uffd\",\"memfd\"],"
	                      "\"page_size\":%zu,\"mappings\":[{\"address\":%llu,\"offset\":0,\"length\":%zu}]}\n",
	                      monitor->options.name, monitor->options.image ? "\"image\":\"" : "",
	                      monitor->options.image ? monitor->options.image : "", monitor->options.image ? "\"," : "",
	                      monitor->page_bytes, (unsigned long long)(uintptr_t)monitor->memory, monitor->length);

	monitor->uffd = monitor_open_uffd();
	int descriptors[2] = {monitor->uffd, monitor->memfd};

	/* A server with too many clients answers and closes before it is asked. */
	(void)monitor_send(monitor->socket, line, (size_t)length, descriptors, 2);
	const char *answer = monitor_answer(monitor);

	if (strncmp(answer, "{\"ok\":true", 10) != 0)
		monitor_fail("the handshake was refused: %s", answer);
	(void)close(monitor->uffd);
}

void monitor_open(struct monitor *monitor)
{
	monitor_map_shadow(monitor);
	monitor_map(monitor);
	monitor->socket = monitor_connect(monitor->options.socket);
	if (monitor->socket < 0)
		monitor_fail("no server at %s: %s", monitor->options.socket, strerror(errno));
	if (monitor->options.is_firecracker)
		monitor_greet_as_firecracker(monitor);
	else
		monitor_greet(monitor);
}
