/* SPDX-License-Identifier: MIT */
/* See snap_bar.h. */
#include "snap_bar.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "live_say.h"

#define SNAP_BAR_WIDTH 32

void snap_bar_begin(struct snap_bar *bar)
{
	const char *terminal = getenv("TERM");

	*bar = (struct snap_bar){.on = isatty(STDERR_FILENO) && terminal && strcmp(terminal, "dumb") != 0};
}

/* How much waits is said only where there is something: mostly nothing does. */
static void snap_bar_say_waiting(uint64_t bytes)
{
	char waiting[LIVE_WORD];

	if (bytes)
		(void)fprintf(stderr, ", %s preserved", live_say_bytes(waiting, bytes));
}

void snap_bar_at(struct snap_bar *bar, const struct snap_bar_figures *figures)
{
	uint64_t part = figures->part < figures->whole ? figures->part : figures->whole;
	uint64_t elapsed_ns = figures->elapsed_ns;
	char picture[SNAP_BAR_WIDTH + 1];
	char percent[LIVE_WORD];
	char written[LIVE_WORD];
	char rate[LIVE_WORD];
	char left[LIVE_WORD];

	if (!bar->on)
		return;
	(void)live_say_bytes(rate, live_say_pace(figures->written_bytes, elapsed_ns));
	(void)live_say_time(left, live_say_left(elapsed_ns, part, figures->whole - part));
	(void)fprintf(stderr, "\r%s %6s  %s written", live_say_bar(picture, SNAP_BAR_WIDTH, part, figures->whole),
	              live_say_percent(percent, part, figures->whole), live_say_bytes(written, figures->written_bytes));
	snap_bar_say_waiting(figures->waiting_bytes);
	(void)fprintf(stderr, "  %s/s  %s left\033[K", rate, part ? left : "?");
	(void)fflush(stderr);
	bar->shown = 1;
}

void snap_bar_end(struct snap_bar *bar)
{
	if (bar->shown)
		(void)fputs("\r\033[K", stderr);
	bar->shown = 0;
}
