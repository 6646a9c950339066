/* SPDX-License-Identifier: MIT */
/* See progress.h. */
#include "progress.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "units.h"

#define TERMINAL STDERR_FILENO
#define BAR_AFTER_S 1.0
#define BAR_EVERY_S 0.25
#define LINE_EVERY_S 1.0
#define BAR_MOST 40
#define BAR_LEAST 8
#define LINE_BYTES 256
#define LEFT_MOST_S 359999.0 /* 99:59:59 */

int progress_parse(const char *word, enum progress_mode *mode)
{
	static const char *const words[] = {"auto", "never", "plain", "bar"};

	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
		if (strcmp(word, words[i]) == 0) {
			*mode = (enum progress_mode)i;
			return 0;
		}
	}
	return -1;
}

static double progress_now(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* -------------------------------------------------------------------------------------------------------- lines -- */

static unsigned progress_percent(uint64_t done, uint64_t total)
{
	return done >= total ? 100 : (unsigned)((double)done / (double)total * 100);
}

/* "verify: 42 % 1.2 GiB of 2.9 GiB"; without a total "verify: 1.2 GiB". */
static void progress_form_plain(char *line, size_t size, const struct progress *progress)
{
	uint64_t done = atomic_load(&progress->done);
	uint64_t total = atomic_load(&progress->total);
	char a[UNITS_TEXT];
	char b[UNITS_TEXT];

	if (total)
		(void)snprintf(line, size, "%s: %u %% %s of %s", progress->what, progress_percent(done, total),
		               units_bytes(a, (double)(done < total ? done : total)), units_bytes(b, (double)total));
	else
		(void)snprintf(line, size, "%s: %s", progress->what, units_bytes(a, (double)done));
}

/* "3:05", "1:00:00" */
static void progress_form_left(char *text, size_t size, double seconds)
{
	unsigned all = (unsigned)(seconds + 0.5);

	if (all >= 3600)
		(void)snprintf(text, size, "%u:%02u:%02u", all / 3600, all / 60 % 60, all % 60);
	else
		(void)snprintf(text, size, "%u:%02u", all / 60, all % 60);
}

/* " 1.2 GiB of 2.9 GiB, 512 MiB/s, 0:12 left", as far as it is known. */
static void progress_form_figures(char *text, size_t size, const struct progress *progress)
{
	uint64_t done = atomic_load(&progress->done);
	uint64_t total = atomic_load(&progress->total);
	char a[UNITS_TEXT];
	char b[UNITS_TEXT];
	char left[32];
	size_t used;

	done = total && done > total ? total : done;
	(void)snprintf(text, size, " %s", units_bytes(a, (double)done));
	used = strlen(text);
	if (total)
		(void)snprintf(text + used, size - used, " of %s", units_bytes(b, (double)total));
	if (progress->rate < 1)
		return;
	used = strlen(text);
	(void)snprintf(text + used, size - used, ", %s/s", units_bytes(a, progress->rate));
	if (!total || (double)(total - done) / progress->rate > LEFT_MOST_S)
		return;
	progress_form_left(left, sizeof(left), (double)(total - done) / progress->rate);
	used = strlen(text);
	(void)snprintf(text + used, size - used, ", %s left", left);
}

/* " [####....]" of `room` columns. */
static void progress_form_bar(char *text, size_t room, const struct progress *progress)
{
	uint64_t done = atomic_load(&progress->done);
	uint64_t total = atomic_load(&progress->total);
	size_t width = room - 3;
	size_t full = done >= total ? width : (size_t)((double)done / (double)total * (double)width);

	text[0] = ' ';
	text[1] = '[';
	memset(text + 2, '#', full);
	memset(text + 2 + full, '.', width - full);
	text[2 + width] = ']';
	text[room] = '\0';
}

size_t progress_format(char *line, size_t size, unsigned columns, const struct progress *progress)
{
	uint64_t total = atomic_load(&progress->total);
	char percent[16] = "";
	char head[96];
	char figures[LINE_BYTES / 2];
	char bar[BAR_MOST + 4] = "";

	if (total)
		(void)snprintf(percent, sizeof(percent), "%3u %%",
		               progress_percent(atomic_load(&progress->done), total));
	(void)snprintf(head, sizeof(head), "%s:%s%s", progress->what, total ? " " : "", percent);
	progress_form_figures(figures, sizeof(figures), progress);
	columns = columns < size ? columns : (unsigned)size - 1;
	size_t used = strlen(head) + strlen(figures);
	size_t room = columns > used ? columns - used : 0;

	if (total && room >= BAR_LEAST + 3)
		progress_form_bar(bar, room < BAR_MOST + 3 ? room : BAR_MOST + 3, progress);
	if (used <= columns)
		(void)snprintf(line, size, "%s%s%s", head, bar, figures);
	else if (strlen(head) <= columns)
		(void)snprintf(line, size, "%s", head);
	else if (strlen(percent) <= columns)
		(void)snprintf(line, size, "%s", percent);
	else
		line[0] = '\0';
	return strlen(line);
}

/* ------------------------------------------------------------------------------------------------------ drawing -- */

static void progress_write(const char *text, size_t length)
{
	ssize_t ignored = write(TERMINAL, text, length);

	(void)ignored; /* a terminal that is gone: the work goes on */
}

static unsigned progress_columns(void)
{
	struct winsize size = {0};

	return ioctl(TERMINAL, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

/* 1: the terminal is this job's. */
static int progress_in_foreground(void)
{
	pid_t group = tcgetpgrp(TERMINAL);

	return group < 0 || group == getpgrp();
}

/* What takes the line away that is shown. A terminal that became narrower has broken it into several. */
static size_t progress_form_erase(const struct progress *progress, char *text, size_t size)
{
	unsigned columns = progress_columns();
	unsigned above = (progress->shown - 1) / columns;

	if (progress->is_dumb)
		(void)snprintf(text, size, "\r%*s\r", (int)progress->shown, "");
	else if (above)
		(void)snprintf(text, size, "\r\033[%uA\033[J", above);
	else
		(void)snprintf(text, size, "\r\033[K");
	return strlen(text);
}

static void progress_erase(struct progress *progress)
{
	char text[LINE_BYTES + 8];

	if (!progress->shown || !progress_in_foreground())
		return;
	progress_write(text, progress_form_erase(progress, text, sizeof(text)));
	progress->shown = 0;
}

/* The last column stays empty: a line that fills it breaks in some terminals. */
static void progress_draw_bar(struct progress *progress)
{
	char text[2 * LINE_BYTES + 16];
	size_t used;

	if (!progress_in_foreground())
		return;
	used = progress->shown ? progress_form_erase(progress, text, sizeof(text)) : 0;
	progress->shown = (unsigned)progress_format(text + used, LINE_BYTES, progress_columns() - 1, progress);
	progress_write(text, used + progress->shown);
}

static void progress_draw_line(struct progress *progress)
{
	char line[LINE_BYTES];

	size_t length;

	progress_form_plain(line, sizeof(line) - 1, progress);
	length = strlen(line);
	line[length] = '\n';
	progress_write(line, length + 1);
	progress->lines++;
}

/* The rate of the last seconds: each time it is taken, the former one counts for four fifths. */
static void progress_take_rate(struct progress *progress, double now_s)
{
	uint64_t done = atomic_load(&progress->done);
	double rate;

	if (now_s - progress->drawn_s < BAR_EVERY_S / 2)
		return;
	rate = done > progress->drawn_done ? (double)(done - progress->drawn_done) / (now_s - progress->drawn_s) : 0;
	progress->rate = progress->rate > 0 ? 0.8 * progress->rate + 0.2 * rate : rate;
	progress->drawn_done = done;
	progress->drawn_s = now_s;
}

static void progress_draw(struct progress *progress)
{
	double now_s = progress_now();

	progress_take_rate(progress, now_s);
	if (atomic_load(&progress->signal))
		return;
	if (progress->style == PROGRESS_STYLE_PLAIN && now_s - progress->begun_s >= LINE_EVERY_S * 0.9)
		progress_draw_line(progress);
	else if (progress->style == PROGRESS_STYLE_BAR &&
	         (progress->was_asked || now_s - progress->begun_s >= BAR_AFTER_S))
		progress_draw_bar(progress);
}

/* ------------------------------------------------------------------------------------------------------ signals -- */

/* By a signal that is not blocked in this thread, the process ends or stops. */
static void progress_raise(int signal)
{
	sigset_t one;

	sigemptyset(&one);
	sigaddset(&one, signal);
	(void)raise(signal);
	(void)pthread_sigmask(SIG_UNBLOCK, &one, NULL);
}

static void progress_stop(void)
{
	sigset_t one;

	progress_raise(SIGTSTP);
	sigemptyset(&one);
	sigaddset(&one, SIGTSTP);
	(void)pthread_sigmask(SIG_BLOCK, &one, NULL);
}

static void progress_take_signal(struct progress *progress)
{
	struct signalfd_siginfo info;

	if (read(progress->signals, &info, sizeof(info)) != (ssize_t)sizeof(info))
		return;
	progress_erase(progress);
	if (info.ssi_signo == SIGTSTP)
		progress_stop();
	else if (atomic_load(&progress->signal))
		progress_raise((int)info.ssi_signo);
	else
		atomic_store(&progress->signal, (int)info.ssi_signo);
}

/* Those that the process would end or stop by: neither ignored, nor handled, nor blocked. */
static void progress_choose_signals(struct progress *progress)
{
	static const int all[] = {SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP};

	sigemptyset(&progress->taken);
	(void)pthread_sigmask(SIG_BLOCK, NULL, &progress->before);
	for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
		struct sigaction action;

		if (sigaction(all[i], NULL, &action) == 0 && action.sa_handler == SIG_DFL &&
		    !sigismember(&progress->before, all[i]))
			sigaddset(&progress->taken, all[i]);
	}
}

/* --------------------------------------------------------------------------------------------------- the thread -- */

static int progress_wait_ms(const struct progress *progress)
{
	if (progress->style == PROGRESS_STYLE_NONE)
		return -1;
	return (int)(1000 * (progress->style == PROGRESS_STYLE_PLAIN ? LINE_EVERY_S : BAR_EVERY_S));
}

static void *progress_main(void *argument)
{
	struct progress *progress = argument;
	struct pollfd ready[] = {{.fd = progress->signals, .events = POLLIN}, {.fd = progress->end, .events = POLLIN}};

	for (;;) {
		int count = poll(ready, 2, progress_wait_ms(progress));

		if (count > 0 && ready[0].revents)
			progress_take_signal(progress);
		else if (count > 0)
			return NULL;
		else if (count == 0)
			progress_draw(progress);
	}
}

/* Without a thread nothing is drawn, and signals do what they do. */
static void progress_start(struct progress *progress)
{
	sigset_t all;

	progress_choose_signals(progress);
	progress->signals = signalfd(-1, &progress->taken, SFD_CLOEXEC | SFD_NONBLOCK);
	progress->end = eventfd(0, EFD_CLOEXEC);
	if (progress->signals < 0 || progress->end < 0)
		return;
	sigfillset(&all);
	(void)pthread_sigmask(SIG_BLOCK, &all, NULL); /* what the thread begins with */
	progress->has_thread = pthread_create(&progress->thread, NULL, progress_main, progress) == 0;
	(void)pthread_sigmask(SIG_SETMASK, &progress->before, NULL);
	if (progress->has_thread)
		(void)pthread_sigmask(SIG_BLOCK, &progress->taken, NULL);
}

static void progress_choose_style(struct progress *progress, enum progress_mode mode)
{
	const char *term = getenv("TERM");
	int is_terminal = isatty(TERMINAL);

	progress->is_dumb = !is_terminal || !term || !*term || strcmp(term, "dumb") == 0;
	progress->was_asked = mode == PROGRESS_PLAIN || mode == PROGRESS_BAR;
	if (mode == PROGRESS_PLAIN || (mode == PROGRESS_AUTO && is_terminal && progress->is_dumb))
		progress->style = PROGRESS_STYLE_PLAIN;
	else if (mode == PROGRESS_BAR || (mode == PROGRESS_AUTO && is_terminal))
		progress->style = PROGRESS_STYLE_BAR;
}

void progress_begin(struct progress *progress, const char *what, uint64_t total, enum progress_mode mode)
{
	memset(progress, 0, sizeof(*progress));
	progress->what = what;
	progress->total = total;
	progress->begun_s = progress->drawn_s = progress_now();
	progress_choose_style(progress, mode);
	if (progress->style == PROGRESS_STYLE_BAR && progress->was_asked)
		progress_draw_bar(progress);
	progress_start(progress);
}

void progress_total(struct progress *progress, uint64_t total)
{
	atomic_store(&progress->total, total);
}

int progress_at(struct progress *progress, uint64_t done)
{
	atomic_store(&progress->done, done);
	return progress_is_ended(progress) ? -ECANCELED : 0;
}

int progress_is_ended(const struct progress *progress)
{
	return atomic_load(&progress->signal) != 0;
}

static void progress_join(struct progress *progress)
{
	uint64_t one = 1;
	ssize_t ignored = write(progress->end, &one, sizeof(one));

	(void)ignored; /* an event descriptor of zero takes a one */
	(void)pthread_join(progress->thread, NULL);
}

static int progress_is_complete(const struct progress *progress)
{
	uint64_t total = atomic_load(&progress->total);

	return total && atomic_load(&progress->done) >= total;
}

void progress_end(struct progress *progress)
{
	if (progress->has_thread)
		progress_join(progress);
	progress_erase(progress);
	if (progress->style == PROGRESS_STYLE_PLAIN && (progress->was_asked || progress->lines) &&
	    progress_is_complete(progress) && !progress_is_ended(progress))
		progress_draw_line(progress);
	if (progress->signals >= 0)
		close(progress->signals);
	if (progress->end >= 0)
		close(progress->end);
	if (progress_is_ended(progress))
		progress_raise(atomic_load(&progress->signal));
	if (progress->has_thread)
		(void)pthread_sigmask(SIG_SETMASK, &progress->before, NULL);
}
