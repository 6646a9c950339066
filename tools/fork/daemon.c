/* SPDX-License-Identifier: MIT */
/*
 * Functions of the C library that fork inside, where no other fork can stand before theirs: daemon(3) and forkpty(3),
 * made from the calls that they are made from there. And setsid(2), by which a daemon begins.
 *
 * Threads: the one that calls.
 */
#include <fcntl.h>
#include <pty.h>
#include <unistd.h>
#include <utmp.h>

#include "preload.h"
#include "raw.h"
#include "start.h"

static int daemon_drop_streams(void)
{
	int fd = open("/dev/null", O_RDWR);

	if (fd < 0)
		return -1;
	for (int stream = STDIN_FILENO; stream <= STDERR_FILENO; stream++)
		(void)dup2(fd, stream);
	if (fd > STDERR_FILENO)
		(void)close(fd);
	return 0;
}

PRELOAD_EXPORT pid_t setsid(void)
{
	pid_t session = raw_setsid();

	if (session != -1)
		start_again();
	return session;
}

PRELOAD_EXPORT int daemon(int stay, int keep_streams)
{
	pid_t pid = fork();

	if (pid < 0)
		return -1;
	if (pid > 0)
		_exit(0);
	if (setsid() == -1 || (!stay && chdir("/") != 0))
		return -1;
	return keep_streams ? 0 : daemon_drop_streams();
}

PRELOAD_EXPORT int forkpty(int *master, char *name, const struct termios *settings, const struct winsize *size)
{
	int terminal;
	int own;
	pid_t pid;

	if (openpty(&own, &terminal, name, settings, size) != 0)
		return -1;
	pid = fork();
	if (pid == 0) {
		(void)close(own);
		if (login_tty(terminal) != 0)
			_exit(1);
		return 0;
	}
	(void)close(terminal);
	if (pid < 0)
		(void)close(own);
	else
		*master = own;
	return pid;
}
