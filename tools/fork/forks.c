/* SPDX-License-Identifier: MIT */
/* See forks.h. */
#include "forks.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "copy.h"
#include "handlers.h"
#include "heap.h"
#include "raw.h"
#include "reword.h"
#include "rights.h"
#include "say.h"
#include "settings.h"
#include "streams.h"
#include "whole.h"

/* How long is waited for another cut (-EBUSY), or for the region to come to rest after a child (-ENOENT). */
#define FORKS_TRIES 2000
#define FORKS_PAUSE_NS 1000000

/* 1 in a thread inside of a fork of ours: the functions around it see to the child. */
static _Thread_local int forks_is_ours __attribute__((tls_model("initial-exec")));

/* In the child. */
static void forks_arrive(int phase)
{
	heap.phase = phase;
	heap.paused = 0;
	/* It has as much of the region as there was, or nothing; calls for all else are the kernel's. */
	heap.capacity = phase == HEAP_OUT ? 0 : atomic_load(&heap.length);
	(void)rights_apply(0, heap.capacity);
	if (phase == HEAP_CHILD && settings.nice) {
		(void)nice(settings.nice);
		settings.nice = 0; /* its own children have it already */
	}
}

/* ------------------------------------------------------------------------------------ forks of the C library -- */

/* The nearest handler of pthread_atfork(3). */
static void forks_in_child(void)
{
	if (forks_is_ours)
		return;
	forks_arrive(HEAP_OUT);
	heap_renew_lock(); /* another thread of the parent may have had it */
}

int forks_init(void)
{
	static int added;

	if (added || handlers_add_nearest(NULL, NULL, forks_in_child) == 0)
		added = 1;
	return added ? 0 : -ENOMEM;
}

/* ------------------------------------------------------------------------------------------------ bare forks -- */

struct forks_bare {
	int with_handlers;
	int child_phase;
	size_t handlers;
};

/* In the thread that forks. Threads that the library needs are there already: the handlers of an allocator take its
 * locks. */
static int forks_enter(void *argument)
{
	struct forks_bare *bare = argument;

	*heap.own = 1;
	forks_is_ours = 1;
	if (bare->with_handlers) {
		bare->handlers = handlers_prepare();
		streams_lock();
	}
	heap_lock_bare();
	heap_is_inside++;
	if (bare->with_handlers)
		whole_begin(heap.phase == HEAP_SERVING ? whole_library_in_child : NULL);
	return 0;
}

/* Streams are as the C library's fork leaves them, or would: the lock of their list was taken once more here. */
static void forks_leave_handlers(const struct forks_bare *bare, int in_child)
{
	if (in_child) {
		streams_reset();
		handlers_child(bare->handlers);
	} else {
		streams_unlock();
		handlers_parent(bare->handlers);
	}
}

static void forks_leave(void *argument)
{
	const struct forks_bare *bare = argument;
	int in_child = !*heap.own; /* a process id would be the same where each of them is the first of its namespace */

	whole_end();
	if (in_child)
		forks_arrive(bare->child_phase);
	heap_is_inside--;
	heap_unlock_bare();
	if (bare->with_handlers)
		forks_leave_handlers(bare, in_child);
	forks_is_ours = 0;
}

/* A fork that calls nothing back. */
static pid_t forks_around(struct forks_bare *bare, pid_t (*plain)(void))
{
	pid_t pid;

	(void)forks_enter(bare);
	pid = plain();
	forks_leave(bare);
	return pid;
}

/* --------------------------------------------------------------------------------------------- an empty region -- */

/* 1: the region is empty, and stays so until forks_end_empty(). */
static int forks_begin_empty(void)
{
	sigset_t before;
	int empty;

	if (heap.phase != HEAP_SERVING)
		return 0;
	heap_lock(&before);
	empty = heap.phase == HEAP_SERVING && !heap.arena.used_bytes;
	heap.paused += empty;
	heap_unlock(&before);
	return empty;
}

static pid_t forks_end_empty(pid_t pid)
{
	int error = errno;

	if (pid != 0)
		atomic_fetch_sub(&heap.paused, 1);
	errno = error;
	return pid;
}

/* -------------------------------------------------------------------------------------------- the library's -- */

static void forks_say(const struct uffdwp_child *child)
{
	struct uffdwp_child_info info = {.sz = sizeof(info)};

	if (uffdwp_child_info(child, &info) == 0)
		say_verbose("has child %d: fork() took %.3f ms, other threads stopped for %.3f ms%s; %llu MiB in the "
		            "region",
		            (int)info.pid, (double)info.call_ns / 1e6, (double)info.pause_ns / 1e6,
		            info.arming == UFFDWP_ARMING_MOVE ? "" : " (in rounds)",
		            (unsigned long long)(heap.arena.used_bytes >> 20));
}

static pid_t forks_once(struct forks_bare *bare)
{
	struct uffdwp_child *child = NULL;
	struct uffdwp_fork_options options = {.sz = sizeof(options),
	                                      .flags = UFFDWP_FORK_BARE,
	                                      .private_bytes = settings.private_bytes,
	                                      .window_max = settings.window_max,
	                                      .cut_enter = forks_enter,
	                                      .cut_leave = forks_leave,
	                                      .cut_user = bare};
	pid_t pid = uffdwp_fork(heap.runtime, &options, settings.verbose ? &child : NULL);
	if (pid > 0 && child) {
		forks_say(child);
		(void)uffdwp_child_free(child);
	}
	return pid;
}

/* By another cut, or by what is left of a child. */
static int forks_may_come(pid_t answer)
{
	return answer == -EBUSY || (answer == -ENOENT && !heap_is_dead());
}

static pid_t forks_with_retry(struct forks_bare *bare)
{
	static const struct timespec pause = {0, FORKS_PAUSE_NS};
	pid_t pid = forks_once(bare);

	for (int i = 0; forks_may_come(pid) && i < FORKS_TRIES; i++) {
		(void)nanosleep(&pause, NULL);
		pid = forks_once(bare);
	}
	return pid;
}

/* What uffdwp_fork() cannot do. An error of fork(2) itself, as by a limit of processes, is the program's own, and not
 * worth a word. */
static pid_t forks_copy(pid_t answer, struct forks_bare *bare)
{
	static _Atomic(int) said;
	const char *why = NULL;
	char text[300] = "";
	char said_there[300] = "";
	pid_t pid;

	(void)uffdwp_error_text(said_there, sizeof(said_there));
	(void)reword(REWORD_FORK, said_there, text, sizeof(text));
	if (!text[0])
		(void)snprintf(text, sizeof(text), "%s", strerror(-(int)answer));
	(void)forks_enter(bare);
	pid = copy_fork(&why);
	forks_leave(bare);
	if (pid > 0)
		say_once(&said, "forks by copying its memory, which takes long (%s)", text);
	else if (pid < 0 && why && (answer != -EAGAIN || pid != -EAGAIN))
		say_once(&said, "cannot fork now: %s: %s (%s)", why, strerror(-(int)pid), text);
	return pid;
}

static pid_t forks_answer(pid_t pid)
{
	if (pid >= 0)
		return pid;
	errno = -(int)pid;
	return -1;
}

static pid_t forks_serving(int with_handlers)
{
	struct forks_bare bare = {.with_handlers = with_handlers, .child_phase = HEAP_CHILD};
	sigset_t before;
	pid_t pid;

	heap_block_signals(&before);
	pid = forks_with_retry(&bare);
	if (pid < 0)
		pid = forks_copy(pid, &bare);
	heap_restore_signals(&before);
	return forks_answer(pid);
}

static pid_t forks_take_and_fork(void)
{
	struct uffdwp_fork_options options = {.sz = sizeof(options), .flags = UFFDWP_FORK_BARE};

	return uffdwp_fork(heap.runtime, &options, NULL);
}

/* A child of ours: the library takes what is shared with its parent first. */
static pid_t forks_in_turn(int with_handlers)
{
	struct forks_bare bare = {.with_handlers = with_handlers, .child_phase = HEAP_CHILD};
	sigset_t before;
	pid_t pid;

	heap_block_signals(&before);
	pid = forks_around(&bare, forks_take_and_fork);
	heap_restore_signals(&before);
	return forks_answer(pid);
}

/* ------------------------------------------------------------------------------------------------------- calls -- */

static pid_t forks_say_empty(pid_t pid)
{
	if (pid > 0)
		say_verbose("forks as ever: nothing of its heap is in the region (child %d)", (int)pid);
	return pid;
}

pid_t forks_fork(void)
{
	if (forks_begin_empty())
		return forks_say_empty(forks_end_empty(raw_fork()));
	if (heap.phase == HEAP_OUT)
		return raw_fork();
	return heap.phase == HEAP_CHILD ? forks_in_turn(1) : forks_serving(1);
}

pid_t forks_fork_bare(void)
{
	struct forks_bare bare = {.child_phase = HEAP_OUT};

	if (forks_begin_empty())
		return forks_say_empty(forks_end_empty(forks_around(&bare, raw_bare_fork)));
	if (heap.phase == HEAP_OUT)
		return raw_bare_fork();
	return heap.phase == HEAP_CHILD ? forks_in_turn(0) : forks_serving(0);
}

int forks_try(char *why, size_t size)
{
	struct uffdwp_fork_options options = {.sz = sizeof(options), .flags = UFFDWP_FORK_BARE};
	sigset_t before;
	int status = 0;
	pid_t pid;

	heap_block_signals(&before);
	pid = uffdwp_fork(heap.runtime, &options, NULL);
	if (pid == 0)
		_exit(0);
	if (pid > 0) {
		struct timespec now = {0, 0};
		sigset_t ended;

		while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
			continue;
		sigemptyset(&ended);
		sigaddset(&ended, SIGCHLD);
		(void)sigtimedwait(&ended, NULL, &now); /* the program shall not meet a signal of a child of ours */
	}
	heap_restore_signals(&before);
	if (pid > 0 && status) {
		(void)snprintf(why, size, "a child that was tried has ended by signal %d", WTERMSIG(status));
		return -ECHILD;
	}
	return pid < 0 ? (int)pid : 0;
}
