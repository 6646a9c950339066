/* SPDX-License-Identifier: MIT */
/* See whole.h. */
#include "whole.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>

#include "handlers.h"
#include "heap.h"

#define WHOLE_TLS _Thread_local __attribute__((tls_model("initial-exec")))

static int whole_is_possible;
static raw_handler *whole_library;
static raw_handler *whole_in_child;   /* until it has run */
static struct sigaction whole_before; /* the program's action */
static WHOLE_TLS int whole_is_wanted;
static WHOLE_TLS int whole_is_inside;

/* ------------------------------------------------------------------------------------------------ the one object -- */

/* glibc has it since 2.33; the first call allocates what fork(3) locks in the parent. Before, fork(3) locks nothing of
 * the kind, and has not been tried. Where malloc(3) is the C library's, nothing of it lies in the region. */
void whole_init(int is_foreign)
{
	int (*get)(int database, void **actions);
	void *actions = NULL;
	int error = errno;

	raw_find_fork();
	whole_is_possible = !is_foreign;
	if (whole_is_possible)
		return;
	*(void **)&get = dlsym(RTLD_NEXT, "__nss_database_get");
	if (get)
		(void)get(0, &actions);
	whole_is_possible = get != NULL;
	errno = error;
}

/* ------------------------------------------------------------------------------------------------------- faults -- */

/* What the program would have met without us. */
static void whole_pass_on(int signal, siginfo_t *info, void *context)
{
	const struct sigaction *before = &whole_before;
	int is_default = !(before->sa_flags & SA_SIGINFO) && before->sa_handler == SIG_DFL;
	int is_ignored = !(before->sa_flags & SA_SIGINFO) && before->sa_handler == SIG_IGN;
	int is_sent = info->si_code <= 0; /* by kill(2): it does not come again by itself */

	if (is_ignored && is_sent)
		return;
	if (is_default || is_ignored || (before->sa_flags & (int)SA_RESETHAND)) {
		(void)sigaction(signal, before, NULL);
		if (is_sent)
			(void)raise(signal);
	} else if (before->sa_flags & SA_SIGINFO) {
		before->sa_sigaction(signal, info, context);
	} else {
		before->sa_handler(signal);
	}
}

static void whole_meet_fault(int signal, siginfo_t *info, void *context)
{
	raw_handler *in_child = whole_in_child;
	uintptr_t address = (uintptr_t)info->si_addr;
	int error = errno;

	if (!whole_is_inside || *heap.own || !in_child || info->si_code <= 0 || address < heap.base ||
	    address - heap.base >= heap.capacity) {
		whole_pass_on(signal, info, context);
		return;
	}
	whole_in_child = NULL;
	in_child();
	errno = error;
}

struct whole_saved {
	stack_t stack;
	sigset_t mask;
};

/* The handler must not run on a stack for signals, which may lie in the region. */
static void whole_take_faults(struct whole_saved *saved)
{
	static const stack_t none = {.ss_flags = SS_DISABLE};
	struct sigaction action = {.sa_sigaction = whole_meet_fault};
	sigset_t faults;

	sigemptyset(&faults);
	sigaddset(&faults, SIGSEGV);
	pthread_sigmask(SIG_UNBLOCK, &faults, &saved->mask);
	if (sigaltstack(NULL, &saved->stack) == 0 && !(saved->stack.ss_flags & (SS_DISABLE | SS_ONSTACK)))
		(void)sigaltstack(&none, NULL);
	(void)sigaction(SIGSEGV, NULL, &whole_before);
	action.sa_mask = whole_before.sa_mask;
	action.sa_flags = SA_SIGINFO | SA_ONSTACK | (whole_before.sa_flags & (SA_NODEFER | SA_RESTART));
	(void)sigaction(SIGSEGV, &action, NULL);
}

/* Unless another thread of the program has set an action meanwhile. */
static void whole_give_faults(const struct whole_saved *saved)
{
	struct sigaction now;

	if (sigaction(SIGSEGV, NULL, &now) == 0 && (now.sa_flags & SA_SIGINFO) && now.sa_sigaction == whole_meet_fault)
		(void)sigaction(SIGSEGV, &whole_before, NULL);
	if (!(saved->stack.ss_flags & (SS_DISABLE | SS_ONSTACK)))
		(void)sigaltstack(&saved->stack, NULL);
	pthread_sigmask(SIG_SETMASK, &saved->mask, NULL);
}

/* -------------------------------------------------------------------------------------------------------- forks -- */

void whole_begin(raw_handler *in_child)
{
	whole_is_wanted = whole_is_possible;
	whole_in_child = in_child;
}

void whole_change(raw_handler *in_child)
{
	whole_in_child = in_child;
}

void whole_end(void)
{
	whole_is_wanted = 0;
	whole_in_child = NULL;
}

static pid_t whole_fork(void)
{
	struct whole_saved saved;
	int error;
	pid_t pid;

	whole_take_faults(&saved);
	whole_is_inside = 1;
	handlers_have_run(1);
	pid = raw_fork();
	error = errno;
	handlers_have_run(0);
	whole_is_inside = 0;
	whole_give_faults(&saved);
	errno = error;
	return pid;
}

pid_t whole_bare_fork(void)
{
	return whole_is_wanted ? whole_fork() : raw_bare_fork();
}

int whole_atfork(raw_handler *prepare, raw_handler *parent, raw_handler *child)
{
	whole_library = child;
	return handlers_add_nearest(prepare, parent, child);
}

void whole_library_in_child(void)
{
	if (whole_library)
		whole_library();
}
