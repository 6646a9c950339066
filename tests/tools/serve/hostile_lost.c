/* SPDX-License-Identifier: MIT */
/*
 * Clients that hand their memory over and spoil it afterwards: each command that follows is answered, by what was wrong
 * or, where nothing is, as ever; then "bye" is. A connection that ends without an answer fails the test.
 */
#include <errno.h>
#include <linux/userfaultfd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostile.h"
#include "monitor.h"

#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd 438
#endif

/* ---- what has to be answered ---- */

static const char *hostile_ask(const struct hostile *hostile, const char *command, const char *what)
{
	hostile_send(hostile, command, NULL, 0);
	const char *answer = hostile_answer(hostile);

	if (!*answer)
		monitor_fail("hostile: %s: %.60s was not answered", what, command);
	return answer;
}

static void hostile_expect_text(const struct hostile *hostile, const char *command, const char *text, const char *what)
{
	const char *answer = hostile_ask(hostile, command, what);

	if (!strstr(answer, text))
		monitor_fail("hostile: %s: %.60s: no \"%s\" in %s", what, command, text, answer);
}

/* An event reaches the server a moment after the call that raised it. */
static void hostile_await_loss(const struct hostile *hostile, const char *what)
{
	while (!strstr(hostile_ask(hostile, "{\"do\":\"status\"}\n", what), "\"state\":\"lost\""))
		(void)usleep(1000);
}

/* Each command, by the state of the connection that has lost its memory. */
static void hostile_expect_lost(const struct hostile *hostile, const char *error, const char *text, const char *what)
{
	hostile_await_loss(hostile, what);
	hostile_expect_text(hostile, "{\"do\":\"status\"}\n", text, what);
	hostile_expect_text(hostile, "{\"do\":\"snapshot\",\"path\":\"lost\",\"id\":7}\n", error, what);
	hostile_expect_text(hostile, "{\"do\":\"snapshot\",\"path\":\"lost\",\"id\":7}\n", text, what);
	hostile_expect_text(hostile, "{\"do\":\"snapshot\",\"path\":\"lost\",\"id\":7}\n", "\"id\":7", what);
	hostile_expect_text(hostile, "{\"do\":\"dirty\"}\n", error, what);
	hostile_expect_text(hostile, "{\"do\":\"fly\"}\n", "ENOSYS", what);
	hostile_expect_text(hostile, "{\"do\":\"wait\"}\n", "\"ok\":true", what);
	hostile_expect_text(hostile, "{\"do\":\"bye\",\"id\":8}\n", "{\"ok\":true,\"id\":8", what);
	if (*hostile_answer(hostile))
		monitor_fail("hostile: %s: more than an answer to bye", what);
}

/* Names of snapshots are shared with other clients of this program. */
static void hostile_expect_served(const struct hostile *hostile, const char *what)
{
	char command[128];

	(void)snprintf(command, sizeof(command), "{\"do\":\"snapshot\",\"path\":\"hostile-%d\"}\n", (int)getpid());
	hostile_expect_text(hostile, command, "\"ok\":true", what);
	hostile_expect_text(hostile, "{\"do\":\"wait\"}\n", "\"state\":\"committed\"", what);
	hostile_expect_text(hostile, "{\"do\":\"bye\"}\n", "\"ok\":true", what);
}

/* ---- mappings ---- */

void hostile_unmap(struct hostile *hostile)
{
	hostile_begin(hostile, "");
	(void)munmap(hostile->memory + HOSTILE_PAGE, HOSTILE_PAGE);
	hostile_expect_lost(hostile, "ESTALE", "unmapped or moved a part", "munmap of a page");
}

void hostile_unmap_all(struct hostile *hostile)
{
	hostile_begin(hostile, "\"track\":true,");
	(void)munmap(hostile->memory, HOSTILE_LENGTH);
	hostile_expect_lost(hostile, "ESTALE", "unmapped or moved a part", "munmap of all");
}

void hostile_move(struct hostile *hostile)
{
	size_t length = chance_below(&hostile->chance, 2) ? HOSTILE_LENGTH : HOSTILE_LENGTH / 2;

	hostile_begin(hostile, "");
	uint8_t *to = mmap(NULL, HOSTILE_LENGTH, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (to == MAP_FAILED ||
	    mremap(hostile->memory, length, length, MREMAP_MAYMOVE | MREMAP_FIXED, to) == MAP_FAILED)
		monitor_fail("hostile: mremap: %s", strerror(errno));
	hostile_expect_lost(hostile, "ESTALE", "unmapped or moved a part", "mremap");
}

void hostile_cover(struct hostile *hostile)
{
	hostile_begin(hostile, "");
	if (mmap(hostile->memory, HOSTILE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
	         0) == MAP_FAILED)
		monitor_fail("hostile: mmap: %s", strerror(errno));
	hostile_expect_lost(hostile, "ESTALE", "unmapped or moved a part", "another mapping");
}

/* Nothing is wrong there: the memory is what it is. */
void hostile_protect(struct hostile *hostile)
{
	hostile_begin(hostile, "");
	memset(hostile->memory, 1, HOSTILE_LENGTH);
	(void)mprotect(hostile->memory, HOSTILE_LENGTH / 2, chance_below(&hostile->chance, 2) ? PROT_NONE : PROT_READ);
	hostile_expect_served(hostile, "mprotect");
}

void hostile_unregister(struct hostile *hostile)
{
	struct uffdio_range range = {(uintptr_t)hostile->memory, HOSTILE_LENGTH};
	int uffd;

	hostile_map(hostile);
	const int descriptors[2] = {hostile->uffd, hostile->memfd};

	hostile_connect(hostile);
	hostile_hello(hostile, 0, HOSTILE_LENGTH, "", descriptors, 2);
	if (strstr(hostile_answer(hostile), "EUSERS"))
		_exit(0);
	uffd = hostile->uffd;
	range.start = (uintptr_t)hostile->memory;
	memset(hostile->memory, 1, HOSTILE_LENGTH);
	if (ioctl(uffd, UFFDIO_UNREGISTER, &range) != 0)
		monitor_fail("hostile: unregister: %s", strerror(errno));
	hostile_expect_text(hostile, "{\"do\":\"snapshot\",\"path\":\"unregistered\"}\n", "not registered",
	                    "a registration that was taken away");
	hostile_expect_text(hostile, "{\"do\":\"bye\"}\n", "\"ok\":true", "a registration that was taken away");
}

/* What was registered for a handshake that is refused afterwards is given back: no thread would resolve its faults. */
void hostile_refused(struct hostile *hostile)
{
	hostile_map(hostile);
	const int descriptors[2] = {hostile->uffd, hostile->memfd};
	uintptr_t at = ((uintptr_t)hostile->memory + HOSTILE_LENGTH / 2) & ~(HOSTILE_LENGTH / 2 - 1);
	struct uffdio_writeprotect protect = {.range = {at, HOSTILE_PAGE}, .mode = UFFDIO_WRITEPROTECT_MODE_WP};
	char line[256];

	(void)snprintf(
	        line, sizeof(line),
	        "{\"uffdwp\":1,\"page_size\":%zu,\"mappings\":[{\"address\":%llu,\"offset\":0,\"length\":%zu}]}\n",
	        HOSTILE_LENGTH / 2, (unsigned long long)at, HOSTILE_LENGTH / 2);
	hostile_connect(hostile);
	hostile_send(hostile, line, descriptors, 2);
	const char *answer = hostile_answer(hostile);

	if (strstr(answer, "EUSERS"))
		_exit(0);
	if (!strstr(answer, "EINVAL") || !strstr(answer, "has pages of"))
		monitor_fail("hostile: a wrong page size: %s", answer);
	if (ioctl(hostile->uffd, UFFDIO_WRITEPROTECT, &protect) == 0 || errno != ENOENT)
		monitor_fail("hostile: memory that was refused is registered still");
}

/* ---- the file ---- */

void hostile_truncate(struct hostile *hostile)
{
	hostile_begin(hostile, "");
	memset(hostile->memory, 1, HOSTILE_LENGTH);
	if (ftruncate(hostile->memfd, chance_below(&hostile->chance, 2) ? 0 : (off_t)(HOSTILE_LENGTH / 2)) != 0)
		monitor_fail("hostile: ftruncate: %s", strerror(errno));
	hostile_expect_lost(hostile, "ENXIO", "was made shorter", "a shorter file");
}

/* What the server reads of it raises SIGBUS there: the answer is of its handler, or of a look that came first. */
void hostile_truncate_in_snapshot(struct hostile *hostile)
{
	char command[128];

	hostile_begin(hostile, "");
	memset(hostile->memory, 1, HOSTILE_LENGTH);
	(void)snprintf(command, sizeof(command),
	               "{\"do\":\"snapshot\",\"path\":\"hostile-%d\",\"rate_bytes\":4194304}\n", (int)getpid());
	hostile_expect_text(hostile, command, "\"ok\":true", "a snapshot");
	hostile_send(hostile, "{\"do\":\"wait\",\"id\":9}\n", NULL, 0);
	(void)usleep((useconds_t)chance_below(&hostile->chance, 100000));
	if (ftruncate(hostile->memfd, 0) != 0)
		monitor_fail("hostile: ftruncate: %s", strerror(errno));
	const char *answer = hostile_answer(hostile);

	if (strncmp(answer, "{\"ok\":false,\"id\":9,", 19) != 0 && !strstr(answer, "\"committed\""))
		monitor_fail("hostile: a file that was made shorter in a snapshot: %s", answer);
}

/* As a read of a file does that became shorter a moment before, which no test can time. */
void hostile_bus(struct hostile *hostile)
{
	long pid = hostile_begin(hostile, "");

	hostile_expect_text(hostile, "{\"do\":\"status\",\"id\":11}\n", "\"id\":11", "status");
	if (kill((pid_t)pid, SIGBUS) != 0)
		monitor_fail("hostile: SIGBUS: %s", strerror(errno));
	const char *answer = hostile_answer(hostile);

	if (!strstr(answer, "EFAULT") || !strstr(answer, "\"id\":11"))
		monitor_fail("hostile: SIGBUS in the server: %s", answer);
}

/* ---- processes ---- */

int hostile_executed(int socket)
{
	const struct hostile hostile = {.socket = socket};

	hostile_expect_lost(&hostile, "EOWNERDEAD", "executed another program", "exec");
	return 0;
}

void hostile_execute(struct hostile *hostile)
{
	char number[16];

	hostile_begin(hostile, "");
	(void)snprintf(number, sizeof(number), "%d", dup(hostile->socket));
	(void)execl("/proc/self/exe", hostile->program, HOSTILE_EXECUTED, number, (char *)NULL);
	monitor_fail("hostile: exec: %s", strerror(errno));
}

/* The memory of a child of this process, which speaks for it. */
static pid_t hostile_begin_other(struct hostile *hostile)
{
	static const char more[] = "\"descriptors\":[\"uffd\",\"memfd\",\"pidfd\"],";
	int *number = mmap(NULL, sizeof(*number), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	hostile_map(hostile);
	(void)close(hostile->uffd);
	pid_t pid = fork();

	if (pid == 0) {
		__atomic_store_n(number, monitor_open_uffd(), __ATOMIC_RELEASE);
		for (;;)
			(void)pause();
	}
	while (pid > 0 && __atomic_load_n(number, __ATOMIC_ACQUIRE) == 0)
		(void)usleep(1000);
	int pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
	const int descriptors[3] = {(int)syscall(SYS_pidfd_getfd, pidfd, *number, 0), hostile->memfd, pidfd};

	if (descriptors[0] < 0) {
		(void)kill(pid, SIGKILL);
		_exit(0); /* a kernel without, or a limit of ptrace(2) */
	}
	hostile_connect(hostile);
	hostile_hello(hostile, 0, HOSTILE_LENGTH, more, descriptors, 3);
	const char *answer = hostile_answer(hostile);

	if (strncmp(answer, "{\"ok\":true", 10) != 0) {
		(void)kill(pid, SIGKILL);
		if (strstr(answer, "EUSERS"))
			_exit(0);
		monitor_fail("hostile: memory of another process: %s", answer);
	}
	(void)close(descriptors[0]);
	return pid;
}

void hostile_other_ends(struct hostile *hostile)
{
	pid_t pid = hostile_begin_other(hostile);

	(void)kill(pid, SIGKILL);
	(void)waitpid(pid, NULL, 0);
	hostile_expect_lost(hostile, "EOWNERDEAD", "has ended", "the end of the process");
}

/* The userfaultfd reports no forks: a child is not seen, and not served. */
void hostile_fork(struct hostile *hostile)
{
	hostile_begin(hostile, "");
	pid_t pid = fork();

	if (pid == 0) {
		memset(hostile->memory, 2, HOSTILE_LENGTH);
		_exit(0);
	}
	(void)waitpid(pid, NULL, 0);
	hostile_expect_served(hostile, "fork");
}
