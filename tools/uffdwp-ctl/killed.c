/* SPDX-License-Identifier: MIT */
/*
 * Seccomp filters that kill: a call that such a filter forbids ends the program that makes it, and no error can be
 * returned. So the probe is made by a child first. Where the child is killed by SIGSYS, each system call that matters
 * is made by a child of its own, to name those that kill; the doctor itself makes none of them then.
 */
#include <linux/io_uring.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "doctor.h"

static void killed_call_userfaultfd(void)
{
	(void)syscall(SYS_userfaultfd, 0);
}

static void killed_call_uring(void)
{
	struct io_uring_params parameters;

	memset(&parameters, 0, sizeof(parameters));
	(void)syscall(SYS_io_uring_setup, 1, &parameters);
}

static void killed_call_memfd(void)
{
	(void)syscall(SYS_memfd_create, "uffdwp-ctl", 0u);
}

static void killed_call_read_self(void)
{
	(void)syscall(SYS_process_vm_readv, getpid(), NULL, 0ul, NULL, 0ul, 0ul);
}

static void killed_call_mincore(void)
{
	(void)syscall(SYS_mincore, NULL, 0ul, NULL);
}

static void killed_call_fallocate(void)
{
	(void)syscall(SYS_fallocate, -1, 0, 0l, 0l);
}

static const struct {
	const char *name;
	void (*call)(void);
} calls[] = {
        {"userfaultfd", killed_call_userfaultfd}, {"io_uring_setup", killed_call_uring},
        {"memfd_create", killed_call_memfd},      {"process_vm_readv", killed_call_read_self},
        {"mincore", killed_call_mincore},         {"fallocate", killed_call_fallocate},
};

/* 1: a child that makes the call is killed by a filter. A call that refuses, or a fork() that fails, kills no
 * process. */
static int killed_is_killed(void (*call)(void))
{
	const struct rlimit no_core = {0, 0};
	int status = 0;
	pid_t child = fork();

	if (child == 0) {
		(void)setrlimit(RLIMIT_CORE, &no_core);
		call();
		_exit(0);
	}
	return child > 0 && waitpid(child, &status, 0) == child && WIFSIGNALED(status) && WTERMSIG(status) == SIGSYS;
}

int killed_look(void (*probe)(void), struct facts *facts)
{
	size_t used = 0;

	facts->killed[0] = '\0';
	if (!killed_is_killed(probe))
		return 0;
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]) && used < sizeof(facts->killed); i++) {
		if (killed_is_killed(calls[i].call))
			used += (size_t)snprintf(facts->killed + used, sizeof(facts->killed) - used, "%s%s",
			                         used ? ", " : "", calls[i].name);
	}
	if (!used)
		(void)snprintf(facts->killed, sizeof(facts->killed), "a system call of the probe");
	return 1;
}
