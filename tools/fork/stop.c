/* SPDX-License-Identifier: MIT */
/*
 * See stop.h. The helper looks at the list of threads again and again until it finds none that it has not stopped: a
 * thread that is stopped starts no other.
 */
#include "stop.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "heap.h"
#include "raw.h"
#include "threads.h"

#define STOP_THREADS 4096
#define STOP_LOOKS 4

/* How long a thread may take to stop: one in an uninterruptible system call does not. */
#define STOP_LIMIT_S 5

enum stop_state { STOP_BEGUN, STOP_ASKS, STOP_STOPPED, STOP_REFUSED, STOP_OVER };

/* What both processes see. Mapped at the start: later a limit of the program's own may leave no room. */
struct stop {
	_Atomic uint32_t state; /* enum stop_state */
	pid_t program;
	pid_t caller; /* the thread that goes on */
	int tasks;    /* /proc/self/task of the program */
	int others;   /* threads of the program beside the caller */
	int has_caller;
	int has_asked; /* the helper may not trace the program by itself */
	pid_t helper;
	size_t count;
	pid_t threads[STOP_THREADS]; /* that are traced */
};

static struct stop *stop_shared;

/* /proc/self/task, open since the start: later a limit of the program's own may leave no descriptor. */
static int stop_list = -1;
static ino_t stop_list_inode;

static void stop_set(struct stop *stop, uint32_t state)
{
	atomic_store(&stop->state, state);
	(void)syscall(SYS_futex, &stop->state, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* Waits while the state is `state`, and the other process is there. */
static uint32_t stop_await(struct stop *stop, uint32_t state, int (*is_there)(const struct stop *stop))
{
	static const struct timespec look = {0, 100000000};

	while (atomic_load(&stop->state) == state && is_there(stop))
		(void)syscall(SYS_futex, &stop->state, FUTEX_WAIT, state, &look, NULL, 0);
	return atomic_load(&stop->state);
}

static int stop_program_is_there(const struct stop *stop)
{
	return getppid() == stop->program;
}

/* Looks, and leaves it to be waited for. */
static int stop_helper_is_there(const struct stop *stop)
{
	siginfo_t info = {0};

	return syscall(SYS_waitid, P_PID, stop->helper, &info, WEXITED | WNOHANG | WNOWAIT | __WCLONE, NULL) == 0 &&
	       !info.si_pid;
}

/* ------------------------------------------------------------------------------------------------- the helper -- */

static int stop_is_traced(const struct stop *stop, pid_t thread)
{
	for (size_t i = 0; i < stop->count; i++) {
		if (stop->threads[i] == thread)
			return 1;
	}
	return 0;
}

/* Calls for each thread that is listed. The sum of the answers; -1: one of them is less than 0, or there is no list. */
static int stop_for_each(struct stop *stop, int (*visit)(struct stop *stop, pid_t thread))
{
	_Alignas(struct dirent64) char entries[8192];
	int sum = 0;
	long got;

	if (lseek(stop->tasks, 0, SEEK_SET) != 0)
		return -1;
	while ((got = syscall(SYS_getdents64, stop->tasks, entries, sizeof(entries))) > 0) {
		for (long at = 0; at < got;) {
			const struct dirent64 *entry = (const void *)(entries + at);
			pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);
			int answer = thread > 0 ? visit(stop, thread) : 0;

			if (answer < 0)
				return -1;
			sum += answer;
			at += entry->d_reclen;
		}
	}
	return got < 0 ? -1 : sum;
}

/* Where it is refused (yama's ptrace_scope) once more, when the program has allowed it. */
static int stop_seize(struct stop *stop, pid_t thread)
{
	if (ptrace(PTRACE_SEIZE, thread, NULL, NULL) == 0)
		return 0;
	if (errno != EPERM || stop->has_asked)
		return -1;
	stop->has_asked = 1;
	stop_set(stop, STOP_ASKS);
	(void)stop_await(stop, STOP_ASKS, stop_program_is_there);
	return ptrace(PTRACE_SEIZE, thread, NULL, NULL) == 0 ? 0 : -1;
}

/* 1: it stands. A thread that has ended meanwhile counts as well. */
static int stop_thread(struct stop *stop, pid_t thread)
{
	int status;

	if (stop->count == STOP_THREADS)
		return 0;
	if (stop_seize(stop, thread) != 0)
		return errno == ESRCH;
	stop->threads[stop->count++] = thread;
	if (ptrace(PTRACE_INTERRUPT, thread, NULL, NULL) != 0)
		return errno == ESRCH;
	return waitpid(thread, &status, __WALL) == thread || errno == ECHILD;
}

/* 1: it was stopped now; -1: it could not be. */
static int stop_visit(struct stop *stop, pid_t thread)
{
	if (thread == stop->caller || stop_is_traced(stop, thread) || threads_has(thread))
		return 0;
	return stop_thread(stop, thread) ? 1 : -1;
}

static _Noreturn void stop_help(struct stop *stop)
{
	int stopped;

	(void)alarm(STOP_LIMIT_S);
	do
		stopped = stop_for_each(stop, stop_visit);
	while (stopped > 0);
	(void)alarm(0);
	stop_set(stop, stopped == 0 ? STOP_STOPPED : STOP_REFUSED);
	if (stopped == 0)
		(void)stop_await(stop, STOP_STOPPED, stop_program_is_there);
	for (size_t i = 0; i < stop->count; i++)
		(void)ptrace(PTRACE_DETACH, stop->threads[i], NULL, NULL);
	_exit(0);
}

/* ------------------------------------------------------------------------------------------------ the program -- */

static int stop_has_list(void)
{
	struct stat st;

	return stop_list >= 0 && fstat(stop_list, &st) == 0 && st.st_ino == stop_list_inode;
}

/* -1: there is none. */
static int stop_open_list(void)
{
	if (stop_has_list())
		return stop_list;
	return heap_open_proc("self/task", O_RDONLY | O_DIRECTORY); /* the program has closed ours */
}

static void stop_close_list(struct stop *stop)
{
	if (stop->tasks >= 0 && stop->tasks != stop_list)
		(void)close(stop->tasks);
	stop->tasks = -1;
}

static void stop_forget(struct stop *stop)
{
	int status;

	while (stop->helper && syscall(SYS_wait4, stop->helper, &status, __WCLONE, NULL) < 0 && errno == EINTR)
		continue;
	stop_close_list(stop);
}

/* Counts. A list that lacks the caller is one of another namespace. */
static int stop_visit_first(struct stop *stop, pid_t thread)
{
	stop->has_caller |= thread == stop->caller;
	stop->others += thread != stop->caller && !threads_has(thread);
	return 0;
}

/* Looks again for a moment: a thread of the library that begins, or ends, is not known as one. */
static int stop_count(struct stop *stop)
{
	static const struct timespec moment = {0, 1000000};

	for (int i = 0; i < STOP_LOOKS; i++) {
		if (i)
			(void)nanosleep(&moment, NULL);
		stop->others = stop->has_caller = 0;
		if (stop_for_each(stop, stop_visit_first) != 0 || !stop->has_caller)
			return -EAGAIN;
		if (!stop->others)
			break;
	}
	return 0;
}

/* Where the next child is the first of a new namespace the helper must not be that child. */
static int stop_may_clone(void)
{
	struct stat own;
	struct stat next;
	int fds[] = {heap_open_proc("self/ns/pid", O_RDONLY), heap_open_proc("self/ns/pid_for_children", O_RDONLY)};
	int same = fds[0] < 0 || fds[1] < 0 ||
	           (fstat(fds[0], &own) == 0 && fstat(fds[1], &next) == 0 && own.st_ino == next.st_ino);

	for (size_t i = 0; i < 2; i++) {
		if (fds[i] >= 0)
			(void)close(fds[i]);
	}
	return same;
}

/* A child that sends no signal when it ends, and that no wait(2) of the program finds. */
static void stop_start_helper(struct stop *stop)
{
	long helper = syscall(SYS_clone, 0ul, 0ul, 0ul, 0ul, 0ul);
	sigset_t none;

	if (helper != 0) {
		stop->helper = (pid_t)(helper < 0 ? -errno : helper);
		return;
	}
	sigemptyset(&none);
	(void)signal(SIGALRM, SIG_DFL);
	(void)sigprocmask(SIG_SETMASK, &none, NULL);
	while (!__atomic_load_n(&stop->program, __ATOMIC_ACQUIRE))
		(void)sched_yield();
	stop_help(stop);
}

/* 0: the helper has stopped all. */
static int stop_by_helper(struct stop *stop, const char **why)
{
	int error;

	if (!stop_may_clone())
		return -EAGAIN;
	stop_start_helper(stop);
	error = stop->helper;
	if (error < 0) {
		stop->helper = 0;
		*why = NULL;
		return error;
	}
	__atomic_store_n(&stop->program, getpid(), __ATOMIC_RELEASE);
	if (stop_await(stop, STOP_BEGUN, stop_helper_is_there) == STOP_ASKS) {
		(void)prctl(PR_SET_PTRACER, (unsigned long)stop->helper, 0, 0, 0);
		stop_set(stop, STOP_BEGUN);
	}
	return stop_await(stop, STOP_BEGUN, stop_helper_is_there) == STOP_STOPPED ? 0 : -EAGAIN;
}

static void stop_drop(void)
{
	if (stop_has_list())
		(void)close(stop_list);
	stop_list = -1;
	if (stop_shared)
		(void)raw_munmap(stop_shared, sizeof(*stop_shared));
	stop_shared = NULL;
}

int stop_init(void)
{
	struct stat st;
	void *shared = raw_mmap(NULL, sizeof(*stop_shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	stop_drop(); /* the parent's */
	if (shared == MAP_FAILED)
		return -ENOMEM;
	stop_shared = shared;
	stop_list = heap_open_proc("self/task", O_RDONLY | O_DIRECTORY);
	if (stop_list >= 0 && fstat(stop_list, &st) == 0)
		stop_list_inode = st.st_ino;
	return 0;
}

int stop_begin(const char **why)
{
	struct stop *stop = stop_shared;
	int error = -EAGAIN;

	*why = "the other threads cannot be stopped for a copy of the heap";
	atomic_store(&stop->state, STOP_BEGUN);
	__atomic_store_n(&stop->program, 0, __ATOMIC_RELEASE);
	stop->helper = 0;
	stop->has_asked = 0;
	stop->count = 0;
	stop->caller = (pid_t)syscall(SYS_gettid);
	stop->tasks = stop_open_list();
	if (stop->tasks >= 0 && stop_count(stop) == 0)
		error = stop->others ? stop_by_helper(stop, why) : 0;
	if (error)
		(void)stop_end();
	return error;
}

int stop_has_others(void)
{
	return stop_shared->others > 0;
}

void stop_leave(void)
{
	stop_close_list(stop_shared);
	stop_drop();
}

int stop_end(void)
{
	struct stop *stop = stop_shared;
	int held = !stop->others || stop_helper_is_there(stop);

	if (stop->helper) {
		stop_set(stop, STOP_OVER);
		if (stop->has_asked)
			(void)prctl(PR_SET_PTRACER, 0ul, 0, 0, 0);
	}
	stop_forget(stop);
	return held;
}
