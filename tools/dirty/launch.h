/* SPDX-License-Identifier: MIT */
/*
 * Starts the program as if nothing stood between it and its caller, and ends as it ends.
 *
 * It runs in our process group and on our terminal, so that the terminal's own signals reach it without us. Signals
 * that were sent to us alone are passed on. We block all that can be blocked and read them in order, from a descriptor:
 * nothing interrupts a collect, and none of them can end us before the program. Stops: when the group was asked to stop
 * and the program did, we do as well, so that a shell sees its job stopped.
 *
 * What must never happen: the program with another signal mask, disposition or descriptor than it would have had; an
 * end of ours while it runs.
 */
#ifndef UFFDWP_DIRTY_LAUNCH_H
#define UFFDWP_DIRTY_LAUNCH_H

#include <signal.h>
#include <sys/types.h>

#include "hello.h"
#include "launch_codes.h"
#include "loadable.h"

struct launch {
	char shim[LOADABLE_PATH];
	char name[HELLO_NAME_BYTES];
	unsigned flags; /* enum hello_flags */
	char *words[2]; /* of the program's environment that we made */
	int listener;
	int signals;
	sigset_t mask; /* that the program gets: ours, as it was */
	struct sigaction on_child;
	pid_t pid;
	int status; /* of waitpid(2), once `ended` */
	int ended;
	int stopped;    /* the program is */
	int stop_asked; /* a stop signal came to us, too */
	int resized;    /* a SIGWINCH came */
	pid_t holder;   /* reaped here, too; 0: none */
	int holder_ended;
};

/* Finds the shim and makes the socket. 0, or an exit code; the complaint was printed. */
int launch_prepare(struct launch *launch, unsigned flags);

/* Can this program be tracked? 0, or an exit code; the complaint was printed. */
int launch_judge(const char *file);

/* Starts it. 0, or an exit code; the complaint was printed. */
int launch_start(struct launch *launch, char *const *argv);

/* Takes a greeting of the program that is waiting at the listener. The connection, or -1: it was another process. Those
 * of fds that did not come are -1. */
int launch_accept(struct launch *launch, struct hello *hello, int fds[HELLO_FDS]);

/* Lets it run on, or end with an exit code before its main(). */
void launch_answer(int connection, int end);

/* Handles the signals that wait: passes on, reaps. Stops us where that is due. */
void launch_signals(struct launch *launch);

/* Waits until the holder is gone, too: nothing of the program is left then. */
void launch_await_holder(struct launch *launch);

/* Ends this process as the program ended. */
_Noreturn void launch_end(const struct launch *launch);

/* Gives the sockets back. */
void launch_fini(struct launch *launch);

#endif
