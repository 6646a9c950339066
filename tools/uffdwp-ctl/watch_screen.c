/* SPDX-License-Identifier: MIT */
/* See watch_screen.h. */
#include "watch_screen.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "live_wait.h"

#define SCREEN_OPEN "\033[?1049h\033[?25l\033[2J" /* the alternate screen, no cursor, empty */
#define SCREEN_CLOSE "\033[?25h\033[?1049l"

int watch_screen_works(void)
{
	const char *terminal = getenv("TERM");

	return isatty(STDOUT_FILENO) && terminal && *terminal && strcmp(terminal, "dumb") != 0;
}

static int watch_screen_write(const char *bytes, size_t length)
{
	while (length) {
		ssize_t more = write(STDOUT_FILENO, bytes, length);

		if (more < 0 && (errno == EINTR || errno == EAGAIN)) {
			(void)live_wait(STDOUT_FILENO, POLLOUT, live_wait_now_ms() + 1000);
			if (live_wait_stops())
				return -1;
			continue;
		}
		if (more < 0)
			return -1;
		bytes += more;
		length -= (size_t)more;
	}
	return 0;
}

void watch_screen_measure(struct watch_screen *screen)
{
	struct winsize size = {0};

	(void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
	screen->rows = size.ws_row ? size.ws_row : 24;
	screen->columns = size.ws_col ? size.ws_col : 80;
}

void watch_screen_open(struct watch_screen *screen)
{
	struct termios raw;

	*screen = (struct watch_screen){.on = 1};
	watch_screen_measure(screen);
	if (isatty(STDIN_FILENO) && tcgetattr(STDIN_FILENO, &screen->before) == 0) {
		raw = screen->before;
		raw.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
		raw.c_cc[VMIN] = 1;
		raw.c_cc[VTIME] = 0;
		screen->keys = tcsetattr(STDIN_FILENO, TCSADRAIN, &raw) == 0;
	}
	(void)watch_screen_write(SCREEN_OPEN, strlen(SCREEN_OPEN));
}

void watch_screen_close(struct watch_screen *screen)
{
	if (screen->on)
		(void)watch_screen_write(SCREEN_CLOSE, strlen(SCREEN_CLOSE));
	if (screen->keys)
		(void)tcsetattr(STDIN_FILENO, TCSADRAIN, &screen->before);
	screen->on = 0;
	screen->keys = 0;
}

/* The bytes of a line's first so many characters. */
static size_t watch_screen_cut(const char *line, size_t length, unsigned columns)
{
	unsigned seen = 0;

	for (size_t i = 0; i < length; i++) {
		if (((unsigned char)line[i] >> 6) == 2)
			continue;
		if (seen++ == columns)
			return i;
	}
	return length;
}

static size_t watch_screen_count_lines(const char *text)
{
	size_t lines = 0;

	for (; *text; text++)
		lines += *text == '\n';
	return lines;
}

static void watch_screen_draw(const struct watch_screen *screen, const char *text, FILE *out)
{
	size_t lines = watch_screen_count_lines(text);
	size_t shown = lines > screen->rows ? screen->rows - 1 : lines;

	(void)fputs("\033[H", out);
	for (size_t i = 0; i < shown; i++) {
		size_t length = strcspn(text, "\n");

		(void)fwrite(text, 1, watch_screen_cut(text, length, screen->columns), out);
		/* No newline after the last row: the screen would scroll. */
		(void)fputs(i + 1 < screen->rows ? "\033[K\r\n" : "\033[K", out);
		text += length + 1;
	}
	if (lines > shown) {
		char more[64];
		int length = snprintf(more, sizeof(more), "... and %zu more lines", lines - shown);

		(void)fwrite(more, 1, (size_t)length < screen->columns ? (size_t)length : screen->columns, out);
		(void)fputs("\033[K", out);
	} else if (lines < screen->rows) {
		(void)fputs("\033[J", out);
	}
}

int watch_screen_show(const struct watch_screen *screen, const char *text)
{
	char *bytes = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&bytes, &length);
	int result = -1;

	if (!out)
		return -1;
	watch_screen_draw(screen, text, out);
	if (fclose(out) == 0)
		result = watch_screen_write(bytes, length);
	free(bytes);
	return result;
}

int watch_screen_key(struct watch_screen *screen, int64_t until_ms)
{
	unsigned char key = 0;

	if (live_wait(screen->keys ? STDIN_FILENO : -1, POLLIN, until_ms) <= 0)
		return 0;
	if (read(STDIN_FILENO, &key, 1) == 1)
		return key;
	screen->keys = 0; /* gone: no key will come */
	return 0;
}
