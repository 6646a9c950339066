/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-ctl watch: what goes on in the regions of live processes, again and again. On a terminal it has the screen for
 * itself and gives it back as it was, whatever ends it but SIGKILL; elsewhere it prints a line a region. A process that
 * does not answer is named in its place, and is asked again only later, so that the others are shown on time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "live.h"
#include "live_report.h"
#include "live_say.h"
#include "live_wait.h"
#include "watch_screen.h"
#include "watch_show.h"

#define WATCH_SILENT_MS 10000
#define WATCH_IDLE_S 60
#define WATCH_INTERVAL_LEAST_S 0.1
#define WATCH_INTERVAL_MOST_S 3600

struct watch_command {
	struct live_command live;
	double interval_s;
	uint64_t count; /* 0: until it is ended */
	int lines;
};

/* What was known of a process at the look before. */
struct watch_process {
	int64_t pid;
	struct live_state now;
	struct live_state before;
};

struct watch {
	const struct watch_command *command;
	struct live_peers peers;
	struct watch_process *processes; /* of peers, by the same index */
	size_t count;
	struct watch_screen screen;
	int on_screen;
	int over; /* what was watched is gone */
	enum live_end end;
};

/* ------------------------------------------------------------------------------------------------ command line -- */

enum { KEY_LINES = 256 };

static const struct argp_option watch_options[] = {
        {"count", 'n', "N", 0, "End after so many looks", 0},
        {"interval", 'i', "TIME", 0, "Look so often: 100ms to 3600s; 1s", 0},
        {"lines", KEY_LINES, NULL, 0, "A line a region for each look, also on a terminal", 0},
        {0},
};

/* "0.5", "500ms", "2s"; 0: it is none. */
static double watch_parse_time(const char *text)
{
	char *end;
	double seconds = strtod(text, &end);

	if (end == text)
		return 0;
	if (strcmp(end, "ms") == 0)
		seconds /= 1000;
	else if (*end && strcmp(end, "s") != 0)
		return 0;
	return seconds >= WATCH_INTERVAL_LEAST_S && seconds <= WATCH_INTERVAL_MOST_S ? seconds : 0;
}

static error_t watch_parse(int key, char *argument, struct argp_state *state)
{
	struct watch_command *command = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		live_parse_init(state);
		return 0;
	case 'n':
		if (live_parse_number(argument, &command->count) || command->count == 0)
			argp_error(state, "--count takes a number from 1 on, not '%s'", argument);
		return 0;
	case 'i':
		command->interval_s = watch_parse_time(argument);
		if (command->interval_s <= 0)
			argp_error(state, "--interval takes a time of 100ms to 3600s such as 500ms or 2s, not '%s'",
			           argument);
		return 0;
	case KEY_LINES:
		command->lines = 1;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* ----------------------------------------------------------------------------------------------------- looking -- */

static void watch_take_over(struct watch_process *process, struct watch *watch)
{
	for (size_t i = 0; i < watch->count; i++) {
		if (watch->processes[i].pid == process->pid) {
			process->before = watch->processes[i].now;
			watch->processes[i].now = (struct live_state){0};
		}
	}
}

static void watch_forget(struct watch *watch)
{
	for (size_t i = 0; i < watch->count; i++) {
		live_state_free(&watch->processes[i].now);
		live_state_free(&watch->processes[i].before);
	}
	free(watch->processes);
	watch->processes = NULL;
	watch->count = 0;
}

static void watch_ask(struct watch *watch, struct live_peer *peer, struct watch_process *process)
{
	if (peer->fd < 0)
		return;
	if (live_look(&watch->command->live, peer, &process->now) == LIVE_REFUSED && watch->command->live.region >= 0)
		watch->over = 1;
	else if (peer->fd < 0 && !peer->is_stopped)
		peer->silent_until = live_wait_now_ms() + WATCH_SILENT_MS;
	else if (watch->command->interval_s > WATCH_IDLE_S) /* processes close idle connections after some minutes */
		live_disconnect(peer);
}

/* -1: no memory. */
static int watch_look(struct watch *watch)
{
	struct watch_process *processes;

	if (live_find(&watch->peers, watch->command->live.pid, watch->command->live.socket))
		return -1;
	processes = calloc(watch->peers.count + 1, sizeof(*processes));
	if (!processes)
		return -1;
	for (size_t i = 0; i < watch->peers.count; i++) {
		processes[i].pid = watch->peers.peers[i].pid;
		watch_take_over(&processes[i], watch);
		watch_ask(watch, &watch->peers.peers[i], &processes[i]);
	}
	watch_forget(watch);
	watch->processes = processes;
	watch->count = watch->peers.count;
	if (watch->count == 0 && (watch->command->live.pid || watch->command->live.socket))
		watch->over = 1;
	return 0;
}

/* ----------------------------------------------------------------------------------------------------- showing -- */

static void watch_print_clock(FILE *out)
{
	time_t now = time(NULL);
	struct tm parts = {0};

	(void)localtime_r(&now, &parts);
	(void)fprintf(out, "%02d:%02d:%02d", parts.tm_hour, parts.tm_min, parts.tm_sec);
}

/* Lines have the time each, a screen has it at its top. */
static void watch_print_clock_first(const struct watch *watch, FILE *out)
{
	if (watch->on_screen)
		return;
	watch_print_clock(out);
	(void)fputc(' ', out);
}

static int watch_means(const struct watch *watch, struct json_object *stat)
{
	return watch->command->live.region < 0 || shape_number(stat, "region") == (uint64_t)watch->command->live.region;
}

static void watch_print_process(const struct watch *watch, size_t index, FILE *out, int blocks)
{
	const struct watch_process *process = &watch->processes[index];
	struct watch_view view = {.peer = &watch->peers.peers[index], .now = &process->now, .before = &process->before};

	if (!process->now.stat) {
		watch_print_clock_first(watch, out);
		(void)fprintf(out, "%s %lld: %s\n%s", view.peer->program, (long long)view.peer->pid, view.peer->text,
		              blocks ? "\n" : "");
		return;
	}
	for (size_t i = 0; i < shape_length(process->now.stat, "regions"); i++) {
		struct json_object *stat = shape_item(process->now.stat, "regions", i);

		if (!watch_means(watch, stat))
			continue;
		watch_print_clock_first(watch, out);
		if (blocks)
			watch_show_block(out, &view, stat);
		else
			watch_show_line(out, &view, stat);
	}
}

static void watch_print_head(const struct watch *watch, FILE *out)
{
	size_t regions = 0;

	for (size_t i = 0; i < watch->count; i++)
		regions += shape_length(watch->processes[i].now.stat, "regions");
	(void)fputs("uffdwp-ctl watch   ", out);
	watch_print_clock(out);
	(void)fprintf(out, "   processes %zu, regions %zu   every %g s, q quits\n\n", watch->count, regions,
	              watch->command->interval_s);
}

static void watch_print(const struct watch *watch, FILE *out, int blocks)
{
	for (size_t i = 0; i < watch->count; i++)
		watch_print_process(watch, i, out, blocks);
	if (watch->count == 0)
		(void)fputs("no process has a control socket: UFFDWP_CONTROL=1 gives one to a program that uses the "
		            "library\n",
		            out);
}

/* A text of all, in lines or in blocks; NULL: no memory. */
static char *watch_form(const struct watch *watch, int blocks, size_t *lines)
{
	char *text = NULL;
	size_t length = 0;
	FILE *out = open_memstream(&text, &length);

	if (!out)
		return NULL;
	if (watch->on_screen)
		watch_print_head(watch, out);
	watch_print(watch, out, blocks);
	if (fclose(out) != 0) {
		free(text);
		return NULL;
	}
	*lines = 0;
	for (size_t i = 0; i < length; i++)
		*lines += text[i] == '\n';
	return text;
}

/* Blocks where they fit (the last one's empty line need not), else a line a region. */
static int watch_show_screen(struct watch *watch)
{
	size_t lines = 0;
	char *text = watch_form(watch, 1, &lines);
	int result;

	if (text && lines > watch->screen.rows + 1) {
		free(text);
		text = watch_form(watch, 0, &lines);
	}
	if (!text)
		return -1;
	if (lines == watch->screen.rows + 1)
		text[strlen(text) - 1] = '\0';
	result = watch_screen_show(&watch->screen, text);
	free(text);
	return result;
}

static int watch_show_json(const struct watch *watch)
{
	struct live_report report;
	int result;

	live_report_init(&report);
	for (size_t i = 0; i < watch->count; i++) {
		if (watch->processes[i].now.stat)
			live_report_add(&report, &watch->peers.peers[i], json_object_get(watch->processes[i].now.stat));
		else
			live_report_fail(&report, &watch->peers.peers[i]);
	}
	result = live_report_print(&report);
	live_report_fini(&report);
	return result;
}

static int watch_show(struct watch *watch)
{
	size_t lines = 0;
	char *text;

	if (watch->on_screen)
		return watch_show_screen(watch);
	if (watch->command->live.json)
		return watch_show_json(watch) || fflush(stdout) ? -1 : 0;
	text = watch_form(watch, 0, &lines);
	if (!text)
		return -1;
	(void)fputs(text, stdout);
	free(text);
	return fflush(stdout) ? -1 : 0;
}

/* -------------------------------------------------------------------------------------------------------- time -- */

static void watch_pause(struct watch *watch)
{
	if (watch->on_screen)
		watch_screen_close(&watch->screen);
	live_wait_pause();
	if (watch->on_screen)
		watch_screen_open(&watch->screen);
}

/* Until the next look. 1: the user asks to end. */
static int watch_wait(struct watch *watch, int64_t until_ms)
{
	while (live_wait_now_ms() < until_ms && !live_wait_stops()) {
		int key = watch_screen_key(&watch->screen, until_ms);

		if (key == 'q' || key == 'Q' || key == 4) /* Ctrl-D */
			return 1;
		if (live_wait_paused())
			watch_pause(watch);
		else if (!live_wait_resized())
			continue;
		watch_screen_measure(&watch->screen);
		if (watch->on_screen && watch_show_screen(watch))
			return 1;
	}
	return live_wait_stops() > 0;
}

/* Once, and not on a screen: after it. Where one process is watched they were said when it was met. */
static void watch_say_strays(const struct watch *watch)
{
	if (!watch->command->live.pid && !watch->command->live.socket)
		live_find_say_strays("watch", &watch->peers);
}

static enum live_end watch_run(struct watch *watch)
{
	const struct watch_command *command = watch->command;
	int64_t next_ms = live_wait_now_ms();

	for (uint64_t looks = 1;; looks++) {
		if (watch_look(watch))
			return LIVE_BROKEN;
		if (watch->over || live_wait_stops())
			return LIVE_DONE;
		if (looks == 1 && !watch->on_screen)
			watch_say_strays(watch);
		if (watch_show(watch))
			return LIVE_BROKEN;
		if (looks == command->count)
			return LIVE_DONE;
		next_ms += (int64_t)(command->interval_s * 1000);
		if (next_ms < live_wait_now_ms())
			next_ms = live_wait_now_ms() + 100;
		if (watch_wait(watch, next_ms))
			return LIVE_DONE;
	}
}

/* What is refused is said before the screen is taken: a region that is not there, a process that does not answer. */
static enum live_end watch_try(struct watch *watch)
{
	const struct live_command *live = &watch->command->live;
	struct live_state state = {0};
	enum live_end end = LIVE_DONE;

	if (!live->pid && !live->socket)
		return LIVE_DONE;
	end = live_meet(live, &watch->peers);
	if (!end && live_look(live, &watch->peers.peers[0], &state) != LIVE_DONE)
		end = live_fail_region(live, &watch->peers.peers[0]);
	live_state_free(&state);
	return end;
}

static const char watch_doc[] =
        "Shows what goes on in the regions of a process, or of all: faults a second, armed, dirty and lost pages, how "
        "long faults take, the pool of pre-images, snapshots and restores with the time that is left."
        "\v"
        "On a terminal it has the screen for itself; q or Ctrl-C ends it. Where blocks do not fit, each region has a "
        "line. Into a pipe, with TERM=dumb or with --lines, each look is a line a region; with --json, a line a "
        "look. A process that is stopped, or does not answer, is named in its place, and shown again when it does.\n"
        "\n"
        "Exit codes:\n"
        "  0  ended by q, Ctrl-C, --count, or because what was watched has ended\n"
        "  1  the process refused it\n"
        "  2  the command line was not understood\n"
        "  3  no such process, socket or region, or no right to it\n"
        "  4  the process answers nothing or nonsense; output not writable\n"
        "\n"
        "Examples:\n"
        "  uffdwp-ctl watch\n"
        "  uffdwp-ctl watch 4711:1 --interval 100ms\n"
        "  uffdwp-ctl watch 4711 --lines --count 60 >minute.txt\n";

int run_watch(int argc, char **argv)
{
	static const struct argp argp = {watch_options, watch_parse, "[PID[:REGION]]", watch_doc, live_children_json,
	                                 NULL,          NULL};
	static struct watch watch;
	struct watch_command command = {.live = {.name = "watch", .takes = LIVE_TAKES_ANY, .region = -1},
	                                .interval_s = 1};

	if (argp_parse(&argp, argc, argv, 0, NULL, &command) != 0)
		return LIVE_USAGE;
	watch.command = &command;
	watch.on_screen = !command.lines && !command.live.json && watch_screen_works();
	live_wait_catch(watch.on_screen);
	watch.end = watch_try(&watch);
	if (watch.end == LIVE_DONE) {
		if (watch.on_screen)
			watch_screen_open(&watch.screen);
		watch.end = watch_run(&watch);
		watch_screen_close(&watch.screen);
		if (watch.on_screen)
			watch_say_strays(&watch);
	}
	if (watch.over)
		live_complain("watch", "what was watched has ended");
	watch_forget(&watch);
	live_peers_free(&watch.peers);
	return (int)watch.end;
}
