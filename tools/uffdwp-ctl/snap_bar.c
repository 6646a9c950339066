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

void snap_bar_at(struct snap_bar *bar, uint64_t part, uint64_t whole, uint64_t bytes, uint64_t elapsed_ns)
{
	char picture[SNAP_BAR_WIDTH + 1];
	char percent[LIVE_WORD];
	char written[LIVE_WORD];
	char rate[LIVE_WORD];
	char left[LIVE_WORD];

	if (!bar->on)
		return;
	(void)live_say_bytes(rate, live_say_pace(bytes, elapsed_ns));
	(void)live_say_time(left, live_say_left(elapsed_ns, part, whole - part));
	(void)fprintf(stderr, "\r%s %6s  %s  %s/s  %s left\033[K", live_say_bar(picture, SNAP_BAR_WIDTH, part, whole),
	              live_say_percent(percent, part, whole), live_say_bytes(written, bytes), rate, part ? left : "?");
	(void)fflush(stderr);
	bar->shown = 1;
}

void snap_bar_end(struct snap_bar *bar)
{
	if (bar->shown)
		(void)fputs("\r\033[K", stderr);
	bar->shown = 0;
}
