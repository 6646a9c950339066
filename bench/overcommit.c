/* SPDX-License-Identifier: MIT */
/*
 * See overcommit.h. The guardian reads a pipe. At exit() a byte comes: children of the program may still have the other
 * end of the pipe open, so that its end would not come. When the program is killed the end comes, since its children
 * die with it. The guardian blocks the signals that a terminal sends to the program.
 */
#include "overcommit.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

static const char path[] = "/proc/sys/vm/overcommit_memory";

static struct {
	pid_t guardian;
	int word; /* the program's end of the pipe */
} overcommit;

static int overcommit_read(char *value)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t got = fd < 0 ? -1 : read(fd, value, 1);
	int error = got == 1 ? 0 : -errno;

	if (fd >= 0)
		close(fd);
	return error;
}

static int overcommit_write(char value)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	ssize_t put = fd < 0 ? -1 : write(fd, &value, 1);
	int error = put == 1 ? 0 : -errno;

	if (fd >= 0)
		close(fd);
	return error;
}

static _Noreturn void overcommit_guard(int word, char former)
{
	sigset_t all;
	char byte;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	while (read(word, &byte, 1) < 0 && errno == EINTR)
		;
	_exit(overcommit_write(former) ? 1 : 0);
}

static void overcommit_put_back(void)
{
	int status = 0;

	if (write(overcommit.word, "", 1) == 1 && waitpid(overcommit.guardian, &status, 0) > 0 && status == 0)
		return;
	static const char text[] = "uffdwp-bench: vm.overcommit_memory was not put back\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(BENCH_EXIT_ERROR);
}

static void overcommit_start_guardian(char former)
{
	int ends[2];

	if (pipe2(ends, O_CLOEXEC))
		bench_die("pipe: %s", strerror(errno));
	overcommit.guardian = fork();
	if (overcommit.guardian < 0)
		bench_die("fork: %s", strerror(errno));
	if (overcommit.guardian == 0) {
		close(ends[1]);
		overcommit_guard(ends[0], former);
	}
	close(ends[0]);
	overcommit.word = ends[1];
	atexit(overcommit_put_back);
}

const char *overcommit_always(void)
{
	char former = 0;
	int error = overcommit_read(&former);

	if (error)
		return strerror(-error);
	if (former == '1' || overcommit.guardian)
		return NULL;
	if (access(path, W_OK))
		return strerror(errno);
	overcommit_start_guardian(former);
	error = overcommit_write('1');
	return error ? strerror(-error) : NULL;
}
