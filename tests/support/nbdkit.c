/* SPDX-License-Identifier: MIT */
/* See nbdkit.h. */
#include "nbdkit.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "support.h"

#define ARGUMENTS_MAX 32
#define TIME_LIMIT_S 30

extern char **environ;

/* No code writes to the arguments: posix_spawn(3) only has no word for it. */
static pid_t start(const char *const *argv)
{
	pid_t pid = 0;
	must(posix_spawnp(&pid, argv[0], NULL, NULL, (char *const *)(uintptr_t)argv, environ) == 0);
	return pid;
}

static int status_of(pid_t pid)
{
	int status = 0;
	must(waitpid(pid, &status, 0) == pid);
	return status;
}

static int is_here(const char *program)
{
	char command[64];
	(void)snprintf(command, sizeof(command), "%s --version >/dev/null 2>&1", program);
	const char *argv[] = {"sh", "-c", command, NULL};
	return status_of(start(argv)) == 0;
}

int nbdkit_here(void)
{
	return is_here("nbdkit") && is_here("nbdcopy");
}

/* The file is written when the socket listens. */
static int is_ready(void *argument)
{
	const struct nbdkit *server = argument;
	must(waitpid(server->pid, NULL, WNOHANG) == 0);
	return access(server->pid_file, F_OK) == 0;
}

void nbdkit_start(struct nbdkit *server, const char *folder, const char *const *arguments)
{
	scratch_join(server->socket, folder, "socket");
	scratch_join(server->pid_file, folder, "pid");
	(void)unlink(server->socket);
	(void)unlink(server->pid_file);
	(void)snprintf(server->uri, sizeof(server->uri), "nbd+unix:///?socket=%s", server->socket);
	const char *argv[ARGUMENTS_MAX] = {"nbdkit", "--exit-with-parent", "-f", "-U", server->socket,
	                                   "-P",     server->pid_file};
	size_t count = 7;
	for (; *arguments != NULL; arguments++) {
		must(count < ARGUMENTS_MAX - 1);
		argv[count++] = *arguments;
	}
	server->pid = start(argv);
	must(wait_until(is_ready, server, TIME_LIMIT_S));
}

void nbdkit_kill(struct nbdkit *server)
{
	if (server->pid > 0) {
		must(kill(server->pid, SIGKILL) == 0);
		(void)status_of(server->pid);
		server->pid = 0;
	}
}

void nbdkit_read(const struct nbdkit *server, const char *folder, void *buffer, size_t length)
{
	char path[SCRATCH_PATH];
	scratch_join(path, folder, "copy");
	const char *argv[] = {"nbdcopy", server->uri, path, NULL};
	must(status_of(start(argv)) == 0);
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	must(fd >= 0);
	must(pread(fd, buffer, length, 0) == (ssize_t)length);
	close(fd);
	must(unlink(path) == 0);
}
