/* SPDX-License-Identifier: MIT */
/* See live.h. */
#include "live.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "report.h"
#include "say.h"
#include "units.h"

#define TERMINAL STDERR_FILENO
#define BLOCK_ROWS 6
#define LINE_EVERY_S 1.0
#define DRAW_EVERY_S 0.2

/* A picture is gathered and written at once. */
struct canvas {
	char text[4096];
	size_t used;
};

__attribute__((format(printf, 2, 3))) static void live_paint(struct canvas *canvas, const char *format, ...)
{
	size_t room = sizeof(canvas->text) - canvas->used;
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(canvas->text + canvas->used, room, format, arguments);
	va_end(arguments);
	if (length > 0)
		canvas->used += (size_t)length < room ? (size_t)length : room - 1;
}

static void live_show(const struct canvas *canvas)
{
	/* A terminal that is gone is no reason to stop measuring. */
	if (write(TERMINAL, canvas->text, canvas->used) < 0)
		return;
}

/* -------------------------------------------------------------------------------------------------- the terminal -- */

static void live_measure_terminal(struct live *live)
{
	struct winsize size = {0};

	(void)ioctl(TERMINAL, TIOCGWINSZ, &size);
	live->rows = size.ws_row > 2 ? size.ws_row : 24;
	live->columns = size.ws_col > 10 ? size.ws_col : 80;
}

static int live_in_foreground(void)
{
	pid_t group = tcgetpgrp(TERMINAL);

	return group < 0 || group == getpgrp();
}

static int live_in_raw_mode(void)
{
	struct termios mode;

	return tcgetattr(TERMINAL, &mode) == 0 && !(mode.c_lflag & ICANON);
}

void live_open(struct live *live, enum live_mode mode, FILE *lines)
{
	*live = (struct live){.lines = lines ? lines : stderr, .next_s = DRAW_EVERY_S};
	if (mode == LIVE_NEVER)
		return;
	if (mode == LIVE_LINES || !isatty(TERMINAL)) {
		live->style = LIVE_STYLE_LINES;
		live->next_s = LINE_EVERY_S;
		return;
	}
	live_measure_terminal(live);
	live->style = isatty(STDIN_FILENO) || isatty(STDOUT_FILENO) ? LIVE_STYLE_BOTTOM : LIVE_STYLE_BLOCK;
}

/* --------------------------------------------------------------------------------------------------- the figures -- */

static double live_rate_now(const struct record *record)
{
	return record->last_tick_s > 0 && record->collects > 1 ? (double)record->tick_bytes / record->last_tick_s : 0;
}

static void live_format_line(const struct record *record, char *line, size_t size)
{
	char rate[UNITS_TEXT];
	char written[UNITS_TEXT];
	char unique[UNITS_TEXT];
	char populated[UNITS_TEXT];

	(void)snprintf(line, size, "%.1f s: %s/s; written %s, different %s, populated %s", record->now_s,
	               units_bytes(rate, live_rate_now(record)), units_bytes(written, (double)record->written_bytes),
	               units_bytes(unique, (double)(record->pages.unique * record->page_bytes)),
	               units_bytes(populated, (double)record->populated_bytes));
}

/* The rate of the last moments as blocks of eighths, the newest on the right. */
static void live_paint_sparks(struct canvas *canvas, const struct record *record, unsigned width)
{
	static const char *const bars[] = {" ", "▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	size_t first = record->moment_count > width ? record->moment_count - width : 0;
	double top = 1;

	for (size_t i = first; i < record->moment_count; i++) {
		const struct moment *moment = &record->moments[i];
		double rate = moment->length_s > 0 ? (double)moment->written_bytes / moment->length_s : 0;

		top = rate > top ? rate : top;
	}
	for (size_t i = first; i < record->moment_count; i++) {
		const struct moment *moment = &record->moments[i];
		double rate = moment->length_s > 0 ? (double)moment->written_bytes / moment->length_s : 0;

		live_paint(canvas, "%s", bars[(int)(rate / top * 8)]);
	}
}

static void live_paint_groups(struct canvas *canvas, const struct record *record, unsigned columns)
{
	size_t count = 0;
	struct group *groups = report_groups(record, &count);

	for (size_t i = 0; i < BLOCK_ROWS - 2; i++) {
		char written[UNITS_TEXT];
		char populated[UNITS_TEXT];

		if (groups && i < count)
			live_paint(canvas, "  %-*.*s %11s of %11s", (int)(columns > 60 ? 30 : 10),
			           (int)(columns > 60 ? 30 : 10), groups[i].name,
			           units_bytes(written, (double)groups[i].written_bytes),
			           units_bytes(populated, (double)groups[i].populated_bytes));
		live_paint(canvas, "\033[K\n");
	}
	free(groups);
}

/* ------------------------------------------------------------------------------------------------------- drawing -- */

static void live_draw_block(struct live *live, const struct record *record)
{
	struct canvas canvas = {.used = 0};
	char line[160];

	if (live->shown)
		live_paint(&canvas, "\033[%dA\r", live->shown);
	live_format_line(record, line, sizeof(line));
	live_paint(&canvas, "%.*s\033[K\n  ", (int)live->columns - 1, line);
	live_paint_sparks(&canvas, record, live->columns - 4 < 200 ? live->columns - 4 : 200);
	live_paint(&canvas, "\033[K\n");
	live_paint_groups(&canvas, record, live->columns);
	live->shown = BLOCK_ROWS;
	live_show(&canvas);
}

static void live_draw_bottom(struct live *live, const struct record *record)
{
	struct canvas canvas = {.used = 0};
	char line[160];

	if (live_in_raw_mode()) {
		live_clear(live);
		return;
	}
	if (!live->shown) /* a line scrolls up, and the last row is ours */
		live_paint(&canvas, "\n\0337\033[1;%ur\0338\033[1A", live->rows - 1);
	live->shown = 1;
	live_format_line(record, line, sizeof(line));
	live_paint(&canvas, "\0337\033[%u;1H\033[7m%.*s\033[K\033[0m\0338", live->rows, (int)live->columns - 1, line);
	live_show(&canvas);
}

static void live_draw_line(const struct live *live, const struct record *record)
{
	char line[160];

	live_format_line(record, line, sizeof(line));
	(void)fprintf(live->lines, "%s: %s\n", say_name(), line);
	(void)fflush(live->lines);
}

void live_draw(struct live *live, const struct record *record)
{
	if (live->style == LIVE_STYLE_NONE || record->now_s < live->next_s)
		return;
	live->next_s = record->now_s + (live->style == LIVE_STYLE_LINES ? LINE_EVERY_S : DRAW_EVERY_S);
	if (live->style == LIVE_STYLE_LINES) {
		live_draw_line(live, record);
	} else if (live_in_foreground()) {
		if (live->style == LIVE_STYLE_BLOCK)
			live_draw_block(live, record);
		else
			live_draw_bottom(live, record);
	}
}

void live_resize(struct live *live)
{
	if (live->style != LIVE_STYLE_BLOCK && live->style != LIVE_STYLE_BOTTOM)
		return;
	live_clear(live);
	live_measure_terminal(live);
}

void live_clear(struct live *live)
{
	struct canvas canvas = {.used = 0};

	if (!live->shown || !live_in_foreground())
		return;
	if (live->style == LIVE_STYLE_BLOCK)
		live_paint(&canvas, "\033[%dA\r\033[J", live->shown);
	else
		live_paint(&canvas, "\0337\033[1;%ur\033[%u;1H\033[K\0338", live->rows, live->rows);
	live_show(&canvas);
	live->shown = 0;
}
