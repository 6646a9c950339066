/* SPDX-License-Identifier: MIT */
/*
 * The shim: preloaded into the program, it works once, before main(), and is silent afterwards.
 *
 * It takes its two words out of the environment (in place, so that main() sees the environment that the user gave),
 * opens a userfaultfd, hands that and the views of its memory to uffdwp-dirty, and starts the holder: a process that
 * shares the program's memory but neither its descriptors, signals, thread group nor parenthood. The holder does
 * nothing; it keeps the memory when the program ends, by whatever means, until uffdwp-dirty has seen the last writes.
 *
 * The holder runs on the thread-local storage of the thread that started it, which goes on meanwhile. So it makes bare
 * system calls only, and none that can fail once it has said that it is ready: errno is not its own.
 *
 * Nothing here allocates, and each failure leaves the program to run untracked, or to end before main() when
 * uffdwp-dirty says so.
 */
#include "shim.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#include "kernel/abi.h"

struct shim shim;

static _Alignas(16) char holder_stack[16384];
static int holder_fd; /* read end of the pipe by which uffdwp-dirty ends it */
static atomic_int holder_ready;

/* --------------------------------------------------------------------------------------------------- environment -- */

static char **shim_find_variable(const char *name)
{
	size_t length = strlen(name);

	for (char **at = environ; at && *at; at++) {
		if (strncmp(*at, name, length) == 0 && (*at)[length] == '=')
			return at;
	}
	return NULL;
}

static void shim_drop_variable(char **at)
{
	do {
		at[0] = at[1];
	} while (*at++);
}

/* "shim.so:others" becomes "others"; the string is the process's own and only gets shorter. */
static int shim_take_preload(char **at)
{
	char *value = *at + strlen("LD_PRELOAD=");
	size_t length = strcspn(value, ":");

	if (length >= sizeof(shim.path))
		return 0;
	memcpy(shim.path, value, length);
	shim.path[length] = '\0';
	if (value[length] == ':')
		memmove(value, value + length + 1, strlen(value + length + 1) + 1);
	else
		shim_drop_variable(at);
	return 1;
}

/* 1: this process was started to be tracked. */
static int shim_take_words(void)
{
	char **word = shim_find_variable(HELLO_VARIABLE);
	char **preload;

	if (!word || strlen(*word + sizeof(HELLO_VARIABLE)) >= sizeof(shim.word))
		return 0;
	(void)snprintf(shim.word, sizeof(shim.word), "%s", *word + sizeof(HELLO_VARIABLE));
	shim_drop_variable(word);
	preload = shim_find_variable("LD_PRELOAD");
	return preload && shim_take_preload(preload);
}

/* -------------------------------------------------------------------------------------------------------- holder -- */

static int shim_holder_main(void *unused)
{
	char byte;

	(void)unused;
	syscall(SYS_setsid); /* out of the program's process group: what kills that is not for us */
	syscall(SYS_chdir, "/");
	syscall(SYS_prctl, PR_SET_NAME, "uffdwp-hold", 0, 0, 0);
	if (holder_fd != 0)
		syscall(SYS_dup3, holder_fd, 0, 0);
	syscall(SYS_close_range, 1, ~0u, 0);
	atomic_store(&holder_ready, 1);
	while (syscall(SYS_read, 0, &byte, 1) > 0)
		;
	return 0;
}

/* Blocks every signal, those of the C library too, for the moment in which the holder is made: it inherits that. */
static pid_t shim_start_holder(int fd)
{
	uint64_t all = ~(uint64_t)0;
	uint64_t before;
	pid_t holder;

	holder_fd = fd;
	syscall(SYS_rt_sigprocmask, SIG_BLOCK, &all, &before, sizeof(all));
	holder = clone(shim_holder_main, holder_stack + sizeof(holder_stack), CLONE_VM | CLONE_PARENT | SIGCHLD, NULL);
	syscall(SYS_rt_sigprocmask, SIG_SETMASK, &before, NULL, sizeof(before));
	while (holder > 0 && !atomic_load(&holder_ready) && syscall(SYS_kill, holder, 0) == 0)
		sched_yield();
	return holder;
}

/* --------------------------------------------------------------------------------------------------- descriptors -- */

/* Asynchronous write protection serves no fault in user space, so the access that needs no rights comes first. */
static int shim_open_uffd(void)
{
	int flags = O_CLOEXEC | O_NONBLOCK;
	int fd = (int)syscall(SYS_userfaultfd, flags | UFFD_USER_MODE_ONLY);
	int device;
	int error = errno;

	if (fd >= 0)
		return fd;
	device = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
	if (device >= 0) {
		fd = ioctl(device, USERFAULTFD_IOC_NEW, flags);
		close(device);
	}
	if (fd < 0)
		errno = error;
	return fd;
}

/* The holder's view of the shared memory outlives the program. */
static int shim_open_maps(pid_t holder)
{
	char path[32];
	int fd = -1;

	if (holder > 0) {
		(void)snprintf(path, sizeof(path), "/proc/%d/maps", (int)holder);
		fd = open(path, O_RDONLY | O_CLOEXEC);
	}
	return fd >= 0 ? fd : open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
}

static void shim_open_holder(struct hello *hello, int fds[HELLO_FDS])
{
	int ends[2];
	pid_t holder;

	if (pipe2(ends, O_CLOEXEC) != 0) {
		hello->holder_error = errno;
		return;
	}
	holder = shim_start_holder(ends[0]);
	hello->holder_error = holder > 0 ? 0 : errno;
	hello->holder = holder > 0 ? holder : 0;
	close(ends[0]);
	if (holder > 0)
		fds[HELLO_HOLD] = ends[1];
	else
		close(ends[1]);
}

static void shim_open_all(struct hello *hello, int fds[HELLO_FDS])
{
	for (int i = 0; i < HELLO_FDS; i++)
		fds[i] = -1;
	fds[HELLO_UFFD] = shim_open_uffd();
	hello->error = fds[HELLO_UFFD] < 0 ? errno : 0;
	hello->failed = HELLO_UFFD;
	if (hello->error)
		return;
	fds[HELLO_PAGEMAP] = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	hello->error = fds[HELLO_PAGEMAP] < 0 ? errno : 0;
	hello->failed = HELLO_PAGEMAP;
	if (hello->error)
		return;
	shim_open_holder(hello, fds);
	fds[HELLO_MAPS] = shim_open_maps(hello->holder);
	hello->error = fds[HELLO_MAPS] < 0 ? errno : 0;
	hello->failed = HELLO_MAPS;
}

/* -------------------------------------------------------------------------------------------------- conversation -- */

static int shim_connect_tool(void)
{
	struct timeval time_limit = {.tv_sec = HELLO_TIME_LIMIT_S};
	struct sockaddr_un address;
	char name[sizeof(shim.word)];
	socklen_t length;
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		return -1;
	memcpy(name, shim.word, sizeof(name));
	name[strcspn(name, ",")] = '\0';
	length = hello_address(name, &address);
	(void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time_limit, sizeof(time_limit));
	(void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &time_limit, sizeof(time_limit));
	if (connect(fd, (struct sockaddr *)&address, length) == 0)
		return fd;
	close(fd);
	return -1;
}

static int shim_send_hello(int socket, struct hello *hello, const int fds[HELLO_FDS])
{
	union {
		struct cmsghdr header;
		char bytes[CMSG_SPACE(sizeof(int) * HELLO_FDS)];
	} control;
	struct iovec data = {hello, sizeof(*hello)};
	struct msghdr message = {.msg_iov = &data, .msg_iovlen = 1};
	size_t count = 0;

	memset(&control, 0, sizeof(control));
	while (!hello->error && count < HELLO_FDS && fds[count] >= 0)
		count++;
	if (count) {
		message.msg_control = control.bytes;
		message.msg_controllen = CMSG_SPACE(sizeof(int) * count);
		control.header.cmsg_level = SOL_SOCKET;
		control.header.cmsg_type = SCM_RIGHTS;
		control.header.cmsg_len = CMSG_LEN(sizeof(int) * count);
		memcpy(CMSG_DATA(&control.header), fds, sizeof(int) * count);
	}
	return sendmsg(socket, &message, MSG_NOSIGNAL) == (ssize_t)sizeof(*hello);
}

/* What uffdwp-dirty decided; without an answer the program just runs. */
static int shim_await_answer(int socket)
{
	struct hello_answer answer = {0, 0};

	while (recv(socket, &answer, sizeof(answer), 0) < 0 && errno == EINTR)
		;
	return answer.magic == HELLO_MAGIC ? answer.end : 0;
}

static void shim_introduce(int socket)
{
	struct hello hello = {.magic = HELLO_MAGIC};
	int fds[HELLO_FDS];
	int end = 0;
	int sent;

	shim_open_all(&hello, fds);
	sent = shim_send_hello(socket, &hello, fds);
	for (int i = 0; i < HELLO_FDS; i++) {
		if (fds[i] >= 0)
			close(fds[i]);
	}
	if (sent)
		end = shim_await_answer(socket);
	if (end)
		_exit(end);
	shim.target = getpid();
}

static unsigned long shim_word_flags(void)
{
	const char *comma = strchr(shim.word, ',');

	return comma ? strtoul(comma + 1, NULL, 10) : 0;
}

__attribute__((constructor)) static void shim_start(void)
{
	int error = errno;
	int socket;

	if (shim_take_words()) {
		follow_start();
		socket = shim_connect_tool();
		if (socket >= 0) {
			if (shim_word_flags() & HELLO_SMALL_PAGES)
				(void)prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
			shim_introduce(socket);
			close(socket);
		}
	}
	errno = error;
}
