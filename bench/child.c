/* SPDX-License-Identifier: MIT */
/*
 * See child.h. The output is read until its end, which comes when the program and whatever it left with that descriptor
 * are gone; the time limit covers that, too.
 */
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

extern char **environ;

/* Its number, or a negative errno. */
static pid_t spawn(char *const argv[], int output)
{
	pid_t child = 0;
	posix_spawn_file_actions_t actions;
	int error = posix_spawn_file_actions_init(&actions);

	if (error)
		return -error;
	error = posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	if (!error)
		error = posix_spawn_file_actions_adddup2(&actions, output, STDOUT_FILENO);
	if (!error)
		error = posix_spawn(&child, argv[0], &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return error ? -error : child;
}

static int wait_readable(int fd, uint64_t until_ns)
{
	struct pollfd wait = {.fd = fd, .events = POLLIN};
	uint64_t left_ns = bench_minus(until_ns, bench_now_ns());
	int ready = poll(&wait, 1, (int)(left_ns / 1000000));

	if (ready < 0)
		return errno == EINTR ? 0 : -errno;
	return ready ? 1 : -ETIMEDOUT;
}

/* To the end of the output; what has no room is dropped. */
static int read_all(int fd, uint64_t until_ns, char *output, size_t size)
{
	size_t used = 0;
	char piece[4096];

	output[0] = '\0';
	for (;;) {
		int ready = wait_readable(fd, until_ns);
		ssize_t got = ready > 0 ? read(fd, piece, sizeof(piece)) : 1;
		size_t fits = size - 1 - used;

		if (ready < 0)
			return ready;
		if (got <= 0)
			return got ? -errno : 0;
		if (!ready)
			continue;
		if ((size_t)got < fits)
			fits = (size_t)got;
		memcpy(output + used, piece, fits);
		used += fits;
		output[used] = '\0';
	}
}

static int end_of(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0) {
		if (errno != EINTR)
			return -errno;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int child_run(char *const argv[], unsigned timeout_s, char *output, size_t size)
{
	uint64_t until_ns = bench_now_ns() + timeout_s * UINT64_C(1000000000);
	pid_t child;
	int ends[2];
	int error;
	int status;

	if (pipe2(ends, O_CLOEXEC))
		return -errno;
	child = spawn(argv, ends[1]);
	close(ends[1]);
	if (child <= 0) {
		close(ends[0]);
		return child;
	}
	error = read_all(ends[0], until_ns, output, size);
	close(ends[0]);
	if (error)
		kill(child, SIGKILL);
	status = end_of(child);
	return error ? error : status;
}

void child_beside(const char *folder, const char *name, char *path, size_t size)
{
	char self[4096];
	ssize_t length;
	char *slash;

	if (folder) {
		snprintf(path, size, "%s/%s", folder, name);
		return;
	}
	length = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (length >= 0)
		self[length] = '\0';
	else
		bench_die("/proc/self/exe: %s", strerror(errno));
	slash = strrchr(self, '/');
	if (slash)
		*slash = '\0';
	snprintf(path, size, "%s/%s", self, name);
}
