/* SPDX-License-Identifier: MIT */
/*
 * The fork: faults of the regions are stalled, all pages are armed, the process is forked, faults go on. INV-CUT holds
 * for the child as a whole: what other threads write to other memory while faults are stalled cannot depend on a write
 * that the child lacks, because no such write is done before the fork.
 *
 * With fork(3) the cut is made by a handler of pthread_atfork(3), which was added when the library was loaded: so it
 * runs after the prepare handlers of all that came later, and before all their other handlers. Without, the same
 * functions are called around _Fork(3).
 *
 * Handlers of the program run with signals open, as from fork(3): a collector may have to stop this thread there. So a
 * signal handler may fork meanwhile, on the same thread; that child is the program's own, and has no cut (fork_mine()).
 *
 * Threads: any; one forks at a time.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/errno_name.h"
#include "base/forks.h"
#include "base/invariant.h"
#include "base/trace.h"
#include "child/child_private.h"
#include "fault/handler.h"
#include "kernel/backoff.h"
#include "kernel/caller.h"
#include "kernel/process.h"

/* Whose turn it is to fork. No lock: it is held while the caller's functions run, with the caller's signals open, and
 * for a thread that waits for it these stay open, too. 0: free; 1: taken; 2: taken, and others wait. */
static _Atomic uint32_t fork_turn;

/* A handler that runs in the library must not allocate. */
#define FORK_THREAD_LOCAL _Thread_local __attribute__((tls_model("initial-exec")))

/* How deep on the stack the handler is that makes the cut, below the call of fork(3): frames of the C library are
 * between, and of what else stands before its fork(3), which is learned. Less than a signal frame takes on any machine,
 * to begin with. */
static _Atomic size_t fork_frames_bytes = 1024;

/* The child that this thread is making by fork(3). */
static FORK_THREAD_LOCAL struct uffdwp_child *fork_own;
static FORK_THREAD_LOCAL uintptr_t fork_stack;           /* at the call */
static FORK_THREAD_LOCAL size_t fork_near_bytes;         /* the least depth of a handler since */
static FORK_THREAD_LOCAL struct uffdwp_child *fork_here; /* the fork that is being made is this child's */

/* The child whose sockets (pair.c) no child of another thread may keep: its parent would not hear of its end. */
static _Atomic(struct uffdwp_child *) fork_coming;

/* -errno: what this process, itself a child, shares with its parent could not be taken before it forked. */
static FORK_THREAD_LOCAL int fork_is_torn;

/* The child whose cut is to be made now; NULL: this fork is the program's own. A signal handler that has interrupted a
 * handler of pthread_atfork(3) may fork, too: then a signal frame is between, or another stack. */
static struct uffdwp_child *fork_mine(void)
{
	size_t depth = fork_stack - caller_stack();

	if (!fork_own)
		return NULL;
	fork_near_bytes = depth < fork_near_bytes ? depth : fork_near_bytes;
	return depth <= atomic_load(&fork_frames_bytes) ? fork_own : NULL;
}

/* While faults are stalled. There is room: no other cut of these regions is made meanwhile. */
static void fork_attach(struct uffdwp_child *child)
{
	for (unsigned i = 0; i < child->count; i++) {
		struct uffdwp_region *region = child->cuts[i].region;
		struct uffdwp_view *view = &child->views[i];

		view->base = region_address(region, 0);
		view->length_bytes = child->cuts[i].length_bytes;
		view->end_page = child->cuts[i].end_page;
		atomic_fetch_add(&region->child_users, 1);
		atomic_fetch_add(&region->leftovers, 1);
		int error = view_attach(view);

		INVARIANT(VIEW, !error);
		(void)error;
	}
	view_child_stall(&child->in, 1); /* until pages can be broken off */
}

/* The last moment before the fork. */
static void fork_cut(struct uffdwp_child *child)
{
	if (child->paused) /* handlers may have been added twice, see forks.c */
		return;
	cut_lock(child->sorted, child->count);
	for (unsigned i = 0; i < child->count; i++) {
		cut_set_length(&child->cuts[i], atomic_load(&child->cuts[i].region->length_bytes));
		child->k->madvise(child->mapped[i], child->views[i].map_bytes, MADV_DOFORK);
	}
	signals_block(&child->signals);
	child->error = cut_any_dead(child->sorted, child->count) ? -ESTALE : cut_pause(child->sorted, child->count);
	if (child->error) {
		signals_restore(&child->signals);
		cut_unlock(child->sorted, child->count);
		return;
	}
	fork_attach(child);
	child->paused = 1;
	child->forked_at_ns = kernel_now_ns();
}

static void fork_resume(struct uffdwp_child *child)
{
	child->paused = 0;
	cut_resume(child->sorted, child->count);
	signals_restore(&child->signals);
	cut_unlock(child->sorted, child->count);
}

/* The first moment after it. pid: 0: not known yet. */
static void fork_in_parent(struct uffdwp_child *child, int pid)
{
	if (!child->paused)
		return;
	child->fork_ns = kernel_now_ns() - child->forked_at_ns;
	child_pair_leave(child);
	if (pid > 0)
		child_meet(child, pid, 0);
	order_give(&child->order, child->k, ORDER_GO);
	fork_resume(child);
}

/* The same in the child. Locks are its own copies. */
static void fork_in_child(struct uffdwp_child *child)
{
	if (!child->paused) /* the parent says why */
		_exit(0);
	child->is_here = 1;
	child_free_descriptors(child); /* the parent's; here they would keep numbers from the program */
	child_arrive(child);
	signals_restore(&child->signals);
	cut_unlock(child->sorted, child->count);
}

/* ---- around every fork of the process ---- */

static void fork_before(void)
{
	struct uffdwp_child *child = fork_mine();

	fork_here = child;
	fork_is_torn = child ? 0 : child_take_all();
	if (child)
		fork_cut(child);
}

static void fork_after_in_parent(void)
{
	struct uffdwp_child *child = fork_here;

	fork_here = NULL;
	if (child)
		fork_in_parent(child, 0);
}

static void fork_begin_child(struct uffdwp_child *child)
{
	struct uffdwp_child *coming = atomic_exchange(&fork_coming, NULL);

	atomic_store(&fork_turn, 0);
	fork_own = NULL;
	fork_here = NULL;
	if (child)
		fork_in_child(child);
	else if (fork_is_torn)
		child_end_here(&kernel_real);
	else if (coming)
		child_pair_close(coming);
}

static void fork_after_in_child(void)
{
	fork_begin_child(fork_here);
}

/* Before the program's own constructors add handlers. What fails here fails when the first region is opened, too. */
__attribute__((constructor)) static void fork_watch(void)
{
	static const struct forks_around around = {fork_before, fork_after_in_parent, fork_after_in_child};

	forks_add_around(&around);
	(void)forks_watch();
}

/* ---- one fork ---- */

/* A child of _Fork(3) has glibc's list of threads as it is now, and setuid(2) there waits for one that was just being
 * started. */
static void fork_await_thread(const struct uffdwp_child *child)
{
	unsigned turn = 0;

	while (!atomic_load(&child->runs))
		kernel_back_off(child->k, &turn);
}

static pid_t fork_bare(struct uffdwp_child *child)
{
	fork_await_thread(child);
	fork_cut(child);
	if (child->error)
		return child->error;
	pid_t pid = child->k->fork(KERNEL_FORK_BARE);

	if (pid) {
		fork_in_parent(child, pid);
		return pid;
	}
	fork_begin_child(child);
	forks_after_bare();
	return 0;
}

/* In a frame of its own, from which fork_mine() counts. */
__attribute__((noinline)) static pid_t fork_by_libc(struct uffdwp_child *child)
{
	fork_stack = caller_stack();
	fork_near_bytes = SIZE_MAX;
	fork_own = child;
	pid_t pid = child->k->fork(KERNEL_FORK_LIBC);

	fork_own = NULL;
	return pid;
}

/* 1: the handler was deeper than was known: of all handlers that ran that of this very fork is the one least deep. */
static int fork_learn(void)
{
	if (fork_near_bytes == SIZE_MAX)
		return 0;
	atomic_store(&fork_frames_bytes, fork_near_bytes);
	return 1;
}

/* Without a cut the C library forks, too: that child ends at once. */
static pid_t fork_with_handlers(struct uffdwp_child *child)
{
	pid_t pid;

	do {
		pid = fork_by_libc(child);
		if (pid == 0 && !child->is_here)
			_exit(0);
		if (pid <= 0 || child->forked_at_ns)
			return pid;
		child->k->wait(pid, KERNEL_FORK_LIBC);
	} while (!child->error && fork_learn());
	return child->error ? child->error : -EOPNOTSUPP; /* the handlers could not be added */
}

/* There is no child, and no cut. */
static void fork_give_up(struct uffdwp_child *child)
{
	child_take_back(child);
	order_give(&child->order, child->k, ORDER_FORGET);
	child_put(child);
}

/* There is no child after all: of a cut that was made its thread takes everything back. */
static void fork_failed(struct uffdwp_child *child, pid_t error, struct text *text)
{
	text_fail(text, error, "%s could not be %s: %s", child->error ? "a region" : "the process",
	          child->error ? "armed" : "forked", errno_text(error));
	if (!child->forked_at_ns) {
		fork_give_up(child);
		return;
	}
	child_unmap_inherited(child);
	child_free_descriptors(child);
	child_unreserve(child);
	atomic_store(&child->pid, -1);
	child_put(child);
}

static pid_t fork_run(struct uffdwp_child *child, struct text *text)
{
	pid_t pid = child->bare ? fork_bare(child) : fork_with_handlers(child);

	if (pid == 0)
		return 0;
	atomic_store(&fork_coming, NULL);
	if (pid < 0) {
		fork_failed(child, pid, text);
		return pid;
	}
	child_unmap_inherited(child);
	atomic_store(&child->pid, pid);
	child_unreserve(child);
	child->call_ns = kernel_now_ns() - child->begun_ns;
	TRACE("child %d: %u regions, pause %llu us, of which %llu for the fork", (int)pid, child->count,
	      (unsigned long long)child->cuts[0].pause_ns / 1000, (unsigned long long)child->fork_ns / 1000);
	return pid;
}

static int fork_enter(const struct child_request *request, struct text *text)
{
	int error = request->cut_enter ? request->cut_enter(request->cut_user) : 0;

	return error ? cut_enter_refused(text, error) : 0;
}

/* All that may be refused after the child was prepared. */
static int fork_begin(struct uffdwp_child *child, const struct child_request *request, struct text *text)
{
	int error = child_rehearse(child, text);

	atomic_store(&fork_coming, child);
	if (!error && !child->bare)
		error = child_pair_open(child, text);
	if (error)
		return error;
	cut_rounds(child->sorted, child->count);
	return fork_enter(request, text);
}

static pid_t fork_one(const struct child_request *request, struct text *text, struct uffdwp_child **out)
{
	int error = child_take_all(); /* of this process's own parent, if it is such a child, and has a runtime of its
	                                 own */

	if (error)
		return text_fail(text, error,
		                 "what this process shares with its parent could not be copied: no memory");
	struct uffdwp_child *child = child_new(request, child_watch, text, &error);

	if (!child)
		return error;
	error = fork_begin(child, request, text);
	if (error) {
		atomic_store(&fork_coming, NULL);
		fork_give_up(child);
		return error;
	}
	pid_t pid = fork_run(child, text);

	if (request->cut_leave)
		request->cut_leave(request->cut_user);
	*out = pid > 0 ? child : NULL;
	return pid;
}

static void fork_take_turn(const struct kernel_ops *k)
{
	uint32_t found = 0;

	if (atomic_compare_exchange_strong(&fork_turn, &found, 1))
		return;
	while (atomic_exchange(&fork_turn, 2) != 0)
		k->futex_wait((const uint32_t *)&fork_turn, 2, 0);
}

static void fork_give_turn(const struct kernel_ops *k)
{
	if (atomic_exchange(&fork_turn, 0) == 2)
		k->futex_wake((const uint32_t *)&fork_turn, 1);
}

pid_t child_fork(struct uffdwp *runtime, const struct child_request *request, struct text *text,
                 struct uffdwp_child **out)
{
	struct probe_arming found;

	runtime_try_child(runtime, &found);
	if (!found.works)
		return text_fail(text, found.error ? found.error : -EOPNOTSUPP,
		                 "pages cannot be broken off a child: %s", found.reason);
	fork_take_turn(runtime->k);
	pid_t pid = fork_one(request, text, out);

	if (pid) /* in the child it was made anew */
		fork_give_turn(runtime->k);
	return pid;
}

pid_t child_fork_again(const struct kernel_ops *k, int bare)
{
	int error = child_take_all();

	if (error)
		return text_fail(NULL, error,
		                 "what this process shares with its parent could not be copied: no memory");
	if (!bare)
		return k->fork(KERNEL_FORK_LIBC);
	pid_t pid = k->fork(KERNEL_FORK_BARE);

	if (!pid) {
		fork_begin_child(NULL);
		forks_after_bare();
	}
	return pid;
}

/* ---- the handle ---- */

void child_info(const struct uffdwp_child *child, struct uffdwp_child_info *info)
{
	info->state = atomic_load(&child->state);
	info->pid = atomic_load(&child->pid);
	info->private_bytes = atomic_load(&child->in.pages_broken) << child->views[0].page_shift;
	info->pause_ns = child->cuts[0].pause_ns;
	info->fork_ns = child->fork_ns;
	info->call_ns = child->call_ns;
	info->error = atomic_load(&child->in.error);
	info->arming = UFFDWP_ARMING_MOVE;
	for (unsigned i = 0; i < child->count; i++) {
		if (child->cuts[i].arming != UFFDWP_ARMING_MOVE)
			info->arming = UFFDWP_ARMING_ROUNDS;
	}
}
