/* SPDX-License-Identifier: MIT */
/*
 * How far a command is, on stderr: a bar where that is a terminal, lines of text where they are asked for, else
 * nothing.
 *
 *     struct progress progress;
 *
 *     progress_begin(&progress, "verify", total_bytes, mode);
 *     ...  progress_at(&progress, done_bytes)  ...
 *     progress_end(&progress);
 *
 * A thread of its own draws, a few times a second at most, so that progress_at() costs a store and may be called from
 * any thread. The bar appears after a second and is taken away at the end; it is one line, as wide as the terminal is
 * then, of ASCII, without colour. It is not drawn while the terminal belongs to another job.
 *
 * Signals: from begin to end those that ask the command to end or stop are blocked, and the thread takes them. At the
 * first one (SIGINT, SIGTERM, SIGHUP, SIGQUIT) the bar is taken away and progress_at() answers -ECANCELED: the command
 * ends what it does and leaves nothing half done, then progress_end() ends the process by that signal. A second one
 * ends it at once. SIGTSTP stops the process, without a bar on the terminal. Signals that were ignored or blocked are
 * left alone. So a command must heed the answer of progress_at(), or signals wait for its end.
 */
#ifndef UFFDWP_CTL_PROGRESS_H
#define UFFDWP_CTL_PROGRESS_H

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

enum progress_mode {
	PROGRESS_AUTO, /* a bar if stderr is a terminal (lines if it cannot move its cursor), after a second; or nothing
	                */
	PROGRESS_NEVER, /* nothing */
	PROGRESS_PLAIN, /* a line each second, and one at the end */
	PROGRESS_BAR    /* a bar, at once, whatever stderr is */
};

/* For option tables and messages. */
#define PROGRESS_WORDS "auto, never, plain or bar"

/* 0, or -1: there is no such mode. */
int progress_parse(const char *word, enum progress_mode *mode);

enum progress_style { PROGRESS_STYLE_NONE, PROGRESS_STYLE_PLAIN, PROGRESS_STYLE_BAR };

struct progress {
	const char *what;
	enum progress_style style;
	int was_asked; /* for by its name: begins at once */
	int is_dumb;   /* the terminal knows no more than a carriage return */
	_Atomic uint64_t done;
	_Atomic uint64_t total;
	_Atomic int signal; /* that asks the command to end; 0: none */

	/* The thread's, or of the caller's while there is none. */
	double begun_s;
	double drawn_s; /* when and what the rate was last taken from */
	uint64_t drawn_done;
	double rate;
	unsigned shown; /* columns that are on the terminal */
	int lines;      /* that were written */

	int has_thread;
	pthread_t thread;
	int signals; /* signalfd */
	int end;     /* eventfd: the thread is to end */
	sigset_t taken;
	sigset_t before;
};

/* `what` names the work in a word or two, and stays valid; a total of 0 is not known (yet). */
void progress_begin(struct progress *progress, const char *what, uint64_t total, enum progress_mode mode);

void progress_total(struct progress *progress, uint64_t total);

/* 0, or -ECANCELED: a signal asks the command to end. Any thread. */
int progress_at(struct progress *progress, uint64_t done);

/* 1: a signal has asked the command to end, and progress_end() will do so. */
int progress_is_ended(const struct progress *progress);

/* Takes the bar away. Does not return after such a signal. */
void progress_end(struct progress *progress);

/* The line of a bar that has `columns`, at most `size` - 1; for tests too. Returns its length. */
size_t progress_format(char *line, size_t size, unsigned columns, const struct progress *progress);

#endif
