/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-ctl snapshot: a snapshot of a region of a live process, which that process makes itself. This program asks for
 * it and then asks how far it is, until it has ended; the exit code says whether there is an image. The snapshot does
 * not depend on this program: where it ends by a second Ctrl-C, or is killed, the snapshot goes on.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "live.h"
#include "live_report.h"
#include "live_say.h"
#include "live_wait.h"
#include "reword.h"
#include "snap_bar.h"
#include "snap_busy.h"

#define SNAP_PATH 4096
#define SNAP_LOOK_MS 200
#define SNAP_COMPRESS_MOST 19

struct snap_command {
	struct live_command live;
	const char *out;
	const char *parent;
	const char *arming;
	int keep;
	int no_wait;
	uint64_t compress;
	uint64_t rate_bytes;
	uint64_t pool_bytes;
	uint64_t mode;
};

struct snap {
	const struct snap_command *command;
	struct live_peer *peer;
	uint64_t number;
	uint64_t expected; /* pages of a delta, as far as they are known; 0: all of the region */
	struct snap_bar_figures figures;
	int aborted;
	struct snap_bar bar;
};

/* ------------------------------------------------------------------------------------------------ command line -- */

enum { KEY_PARENT = 256, KEY_KEEP, KEY_RATE, KEY_POOL, KEY_ARMING, KEY_MODE, KEY_WAIT, KEY_NO_WAIT };

static const struct argp_option snap_options[] = {
        {"parent", KEY_PARENT, "FILE", 0, "OUT becomes a delta: what was written since that image, kept by --keep", 0},
        {"keep", KEY_KEEP, NULL, 0, "Afterwards go on noting what is written: the next one may be a delta", 0},
        {"compress", 'z', "LEVEL", 0, "With --parent: compress the delta's pages by zstd, 1 to 19", 0},
        {"rate", KEY_RATE, "BYTES", 0,
         "Write so many bytes a second to OUT.img at most, such as 100M; what is preserved for writers comes on top",
         0},
        {"pool", KEY_POOL, "BYTES", 0, "Memory for pages that are written before they are saved; 64M", 0},
        {"arming", KEY_ARMING, "METHOD", 0, "How pages come to be protected: auto, rounds, move", 0},
        {"mode", KEY_MODE, "OCTAL", 0, "Permissions of OUT, from which the process's umask takes; 600", 0},
        {"wait", KEY_WAIT, NULL, 0, "Wait until it has ended (the default); Ctrl-C aborts it", 0},
        {"no-wait", KEY_NO_WAIT, NULL, 0, "Print its number and leave it to the process", 0},
        {0},
};

static uint64_t snap_take_size(struct argp_state *state, const char *option, const char *text)
{
	uint64_t bytes = 0;

	if (live_parse_size(text, &bytes) || bytes == 0)
		argp_error(state, "%s takes bytes such as 64M, not '%s'", option, text);
	return bytes;
}

static uint64_t snap_take_level(struct argp_state *state, const char *text)
{
	uint64_t level = 0;

	if (live_parse_number(text, &level) || level < 1 || level > SNAP_COMPRESS_MOST)
		argp_error(state, "--compress takes a number from 1 to %d, not '%s'", SNAP_COMPRESS_MOST, text);
	return level;
}

static uint64_t snap_take_mode(struct argp_state *state, const char *text)
{
	char *end;
	unsigned long mode = strtoul(text, &end, 8);

	if (*text < '0' || *text > '7' || *end || mode == 0 || mode > 0777)
		argp_error(state, "--mode takes an octal number from 1 to 777 such as 640, not '%s'", text);
	return mode;
}

static const char *snap_take_arming(struct argp_state *state, const char *text)
{
	if (strcmp(text, "auto") != 0 && strcmp(text, "rounds") != 0 && strcmp(text, "move") != 0)
		argp_error(state, "--arming takes auto, rounds or move, not '%s'", text);
	return text;
}

static error_t snap_take_out(struct argp_state *state, struct snap_command *command, const char *out)
{
	if (!command->live.has_target)
		return ARGP_ERR_UNKNOWN;
	if (command->out)
		argp_error(state, "'%s' is one argument too many", out);
	if (!*out)
		argp_error(state, "OUT.img is empty");
	command->out = out;
	return 0;
}

static error_t snap_parse_end(struct argp_state *state, const struct snap_command *command)
{
	if (command->live.has_target && !command->out)
		argp_error(state, "where the image goes is missing: uffdwp-ctl snapshot PID:REGION OUT.img");
	if (command->compress && !command->parent)
		argp_error(state, "only deltas are compressed: --compress needs --parent");
	return 0;
}

static error_t snap_parse(int key, char *argument, struct argp_state *state)
{
	struct snap_command *command = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		live_parse_init(state);
		return 0;
	case KEY_PARENT:
		if (!*argument)
			argp_error(state, "--parent takes the name of an image, not ''");
		command->parent = argument;
		return 0;
	case KEY_KEEP:
		command->keep = 1;
		return 0;
	case 'z':
		command->compress = snap_take_level(state, argument);
		return 0;
	case KEY_RATE:
		command->rate_bytes = snap_take_size(state, "--rate", argument);
		return 0;
	case KEY_POOL:
		command->pool_bytes = snap_take_size(state, "--pool", argument);
		return 0;
	case KEY_ARMING:
		command->arming = snap_take_arming(state, argument);
		return 0;
	case KEY_MODE:
		command->mode = snap_take_mode(state, argument);
		return 0;
	case KEY_WAIT:
	case KEY_NO_WAIT:
		command->no_wait = key == KEY_NO_WAIT;
		return 0;
	case ARGP_KEY_ARG:
		return snap_take_out(state, command, argument);
	case ARGP_KEY_END:
		return snap_parse_end(state, command);
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* ----------------------------------------------------------------------------------------------------- request -- */

/* By this program's folder: the process has one of its own. -1: too long, or the folder is gone. */
static int snap_make_absolute(const char *path, char *absolute)
{
	char folder[SNAP_PATH] = "";
	int length;

	if (path[0] != '/' && !getcwd(folder, sizeof(folder)))
		return -1;
	length = snprintf(absolute, SNAP_PATH, "%s%s%s", folder, path[0] == '/' ? "" : "/", path);
	return length < SNAP_PATH ? 0 : -1;
}

static int snap_add_path(struct json_object *request, const char *key, const char *path)
{
	char absolute[SNAP_PATH];

	if (snap_make_absolute(path, absolute)) {
		live_complain("snapshot", "%s: its folder is gone, or its path is too long", path);
		return -1;
	}
	live_request_text(request, key, absolute);
	return 0;
}

static void snap_add_number(struct json_object *request, const char *key, uint64_t number)
{
	if (number)
		live_request_number(request, key, number);
}

/* NULL: what is wrong was said. */
static struct json_object *snap_form_request(const struct snap_command *command)
{
	struct json_object *request = live_request("snapshot");

	live_request_number(request, "region", (uint64_t)command->live.region);
	if (snap_add_path(request, "path", command->out) ||
	    (command->parent && snap_add_path(request, "parent", command->parent))) {
		json_object_put(request);
		return NULL;
	}
	if (command->keep)
		(void)json_object_object_add(request, "keep", json_object_new_boolean(1));
	if (command->arming)
		live_request_text(request, "arming", command->arming);
	snap_add_number(request, "compress", command->compress);
	snap_add_number(request, "rate_bytes", command->rate_bytes);
	snap_add_number(request, "pool_bytes", command->pool_bytes);
	snap_add_number(request, "mode", command->mode);
	return request;
}

/* ----------------------------------------------------------------------------------------------------- waiting -- */

/* What is preserved for writers is no progress of the image: it waits in the pool. */
static void snap_take_figures(struct snap *snap, struct json_object *progress, struct json_object *pool)
{
	snap->figures = (struct snap_bar_figures){.part = live_written(progress, pool),
	                                          .whole = snap->expected ? snap->expected
	                                                                  : shape_number(progress, "pages_total"),
	                                          .written_bytes = shape_number(progress, "bytes_written"),
	                                          .waiting_bytes = shape_number(pool, "used_bytes"),
	                                          .elapsed_ns = shape_number(progress, "elapsed_ns")};
}

static struct json_object *snap_search(struct json_object *stat, struct snap *snap)
{
	for (size_t i = 0; i < shape_length(stat, "regions"); i++) {
		struct json_object *region = shape_item(stat, "regions", i);
		struct json_object *running = shape_object(region, "snapshot");

		if (running && shape_number(running, "snapshot") == snap->number &&
		    shape_number(running, "region") == (uint64_t)snap->command->live.region) {
			snap_take_figures(snap, running, shape_object(region, "pool"));
			return running;
		}
	}
	for (size_t i = shape_length(stat, "ended"); i > 0; i--) {
		struct json_object *ended = shape_item(stat, "ended", i - 1);

		if (shape_number(ended, "snapshot") == snap->number)
			return ended;
	}
	return NULL;
}

/* Asks how far it is. A region that was closed meanwhile may be no more, and its snapshot be among those that ended.
 * LIVE_REFUSED: it is not there any more. */
static enum live_end snap_look(struct snap *snap, struct json_object **progress)
{
	struct json_object *request = live_request("stat");
	struct json_object *stat;

	*progress = NULL;
	live_request_number(request, "region", (uint64_t)snap->command->live.region);
	if (live_ask(snap->peer, request, LIVE_LIMIT_MS, answer_stat, &stat) == LIVE_REFUSED)
		(void)live_ask(snap->peer, live_request("stat"), LIVE_LIMIT_MS, answer_stat, &stat);
	if (snap->peer->end)
		return snap->peer->end;
	*progress = json_object_get(snap_search(stat, snap));
	json_object_put(stat);
	return *progress ? LIVE_DONE : LIVE_REFUSED;
}

/* After the first signal. The second one ends this program. */
static void snap_abort(struct snap *snap)
{
	struct json_object *request = live_request("abort");
	struct json_object *answer;

	snap->aborted = 1;
	live_request_number(request, "snapshot", snap->number);
	snap_bar_end(&snap->bar);
	live_complain("snapshot", "aborting snapshot %llu", (unsigned long long)snap->number);
	if (live_ask(snap->peer, request, LIVE_LIMIT_MS, answer_none, &answer) == LIVE_REFUSED)
		(void)live_fail(&snap->command->live, snap->peer); /* it may have ended by itself: that is seen next */
	json_object_put(answer);
}

/* Gives the last that was said about it: an answer whose state is "committed" or "failed". */
static enum live_end snap_wait(struct snap *snap, struct json_object **progress)
{
	enum live_end end;

	snap_bar_begin(&snap->bar);
	while ((end = snap_look(snap, progress)) == LIVE_DONE &&
	       strcmp(shape_text(*progress, "state"), "running") == 0) {
		snap_bar_at(&snap->bar, &snap->figures);
		json_object_put(*progress);
		*progress = NULL;
		if (live_wait_stops() && !snap->aborted)
			snap_abort(snap);
		else
			(void)live_wait(-1, 0, live_wait_now_ms() + SNAP_LOOK_MS);
	}
	snap_bar_end(&snap->bar);
	return end;
}

/* ------------------------------------------------------------------------------------------------------ report -- */

static enum live_end snap_report_lost(struct snap *snap, enum live_end end)
{
	struct live_peer *peer = snap->peer;
	const struct live_command *live = &snap->command->live;

	if (end == LIVE_REFUSED) {
		live_complain("snapshot",
		              "process %lld (%s) has closed region %lld, and the snapshot with it: there is no image",
		              (long long)peer->pid, peer->program, (long long)live->region);
		return end;
	}
	if (live_wait_stops() > 1)
		live_complain("snapshot", "not waiting any longer: see uffdwp-ctl stat %lld:%lld", (long long)live->pid,
		              (long long)live->region);
	else
		live_complain("snapshot",
		              "process %lld (%s): %s. Whether there is an image is not known: one that is not complete "
		              "never has the name %s",
		              (long long)peer->pid, peer->program, peer->text, snap->command->out);
	return LIVE_BROKEN;
}

static void snap_print_committed(struct json_object *progress, const char *title)
{
	char written[LIVE_WORD];
	char length[LIVE_WORD];
	char elapsed[LIVE_WORD];
	char pause[LIVE_WORD];

	(void)printf("%s: %s is complete: %s of memory, %s written in %s, writers paused for %s\n", title,
	             shape_text(progress, "path"), live_say_bytes(length, shape_number(progress, "length_bytes")),
	             live_say_bytes(written, shape_number(progress, "bytes_written")),
	             live_say_time(elapsed, shape_number(progress, "elapsed_ns")),
	             live_say_time(pause, shape_number(progress, "pause_ns")));
}

static enum live_end snap_report(struct snap *snap, struct json_object *progress)
{
	int committed = strcmp(shape_text(progress, "state"), "committed") == 0;
	char title[LIVE_TITLE];
	char text[REWORD_BYTES];

	(void)live_title(title, snap->peer, (uint64_t)snap->command->live.region);
	(void)reword(REWORD_LIVE, shape_text(progress, "text"), text, sizeof(text));
	if (snap->command->live.json) {
		live_request_number(progress, "pid", (uint64_t)snap->peer->pid);
		if (shape_print(progress))
			return LIVE_BROKEN;
	} else if (committed) {
		snap_print_committed(progress, title);
	}
	if (!committed)
		live_complain("snapshot", "%s: there is no image: %s (%s)", title, text, shape_text(progress, "error"));
	return committed ? LIVE_DONE : LIVE_REFUSED;
}

static enum live_end snap_report_begun(const struct snap *snap, struct json_object *answer)
{
	char pause[LIVE_WORD];
	char title[LIVE_TITLE];

	if (snap->command->live.json) {
		live_request_number(live_report_bare(answer), "pid", (uint64_t)snap->peer->pid);
		live_request_number(answer, "region", (uint64_t)snap->command->live.region);
		return shape_print(answer) ? LIVE_BROKEN : LIVE_DONE;
	}
	(void)printf("%s: snapshot %llu has begun, writers paused for %s\n",
	             live_title(title, snap->peer, (uint64_t)snap->command->live.region),
	             (unsigned long long)snap->number, live_say_time(pause, shape_number(answer, "pause_ns")));
	return LIVE_DONE;
}

/* --------------------------------------------------------------------------------------------------- the whole -- */

static enum live_end snap_follow(struct snap *snap)
{
	struct json_object *progress = NULL;
	enum live_end end = snap_wait(snap, &progress);

	end = end ? snap_report_lost(snap, end) : snap_report(snap, progress);
	json_object_put(progress);
	return end;
}

/* A delta has what was written since its parent, and that is known only before it begins. Best effort: 0. */
static uint64_t snap_expect(const struct snap_command *command, struct live_peer *peer)
{
	struct live_state state = {0};
	uint64_t pages = 0;

	if (command->parent && live_look(&command->live, peer, &state) == LIVE_DONE)
		pages = shape_number(live_stat_row(&state, (uint64_t)command->live.region), "dirty_pages");
	live_state_free(&state);
	return pages;
}

static enum live_end snap_run(const struct snap_command *command, struct live_peer *peer, struct json_object *request)
{
	struct snap snap = {.command = command, .peer = peer};
	struct json_object *answer;
	enum live_end end;

	snap.expected = snap_expect(command, peer);
	peer->stops = 1; /* the first signal aborts the snapshot, once its number is known */
	end = snap_busy_ask(&command->live, peer, request, &answer);
	if (end)
		return end;
	snap.number = shape_number(answer, "snapshot");
	peer->outwaits = "snapshot"; /* what has begun goes on when the process does */
	peer->outwait_until_ms = INT64_MAX;
	end = command->no_wait ? snap_report_begun(&snap, answer) : snap_follow(&snap);
	json_object_put(answer);
	return end;
}

static const char snap_doc[] =
        "Takes a snapshot of a region of a process while it runs: OUT.img becomes an image of that memory as of one "
        "instant. The process writes it, by its own rights; a relative name is one in this program's folder. OUT.img "
        "appears complete and synced, or not at all."
        "\v"
        "This program waits until it has ended, and shows how far it is where standard error is a terminal. Ctrl-C (or "
        "SIGTERM) "
        "aborts the snapshot; once more, and this program ends without waiting for that. A process in "
        "another root folder or mount namespace takes OUT.img as a name in there. While the program forks, or makes a "
        "view, it is asked again for 5 s.\n"
        "\n"
        "--rate bounds what goes to OUT.img. It holds no writer back: pages that are written before they were saved "
        "are preserved in memory at once, on top of it; and while less than half of --pool is left OUT.img is written "
        "as fast as it can be, and slower afterwards, until the rate is kept again. How far it is counts what "
        "is in OUT.img; what is preserved and waits for that is named beside it.\n"
        "\n"
        "Exit codes:\n"
        "  0  the image is there; with --no-wait: it has begun\n"
        "  1  there is no image: it was refused (also where another snapshot of the\n"
        "     region runs), failed, or was aborted\n"
        "  2  the command line was not understood\n"
        "  3  no such process, socket or region, or no right to it\n"
        "  4  the process answers nothing or nonsense, or has ended; output not\n"
        "     writable\n"
        "\n"
        "Examples:\n"
        "  uffdwp-ctl snapshot 4711:1 monday.img --keep\n"
        "  uffdwp-ctl snapshot 4711:1 tuesday.img --parent monday.img --keep -z 3\n"
        "  uffdwp-ctl snapshot 4711:1 quiet.img --rate 100M --no-wait\n";

int run_snapshot(int argc, char **argv)
{
	static const struct argp argp = {snap_options, snap_parse, "PID:REGION OUT.img", snap_doc, live_children_json,
	                                 NULL,         NULL};
	struct snap_command command = {.live = {.name = "snapshot", .takes = LIVE_TAKES_REGION, .region = -1}};
	struct json_object *request;
	struct live_peers peers = {0};
	enum live_end end;

	if (argp_parse(&argp, argc, argv, 0, NULL, &command) != 0)
		return LIVE_USAGE;
	request = snap_form_request(&command);
	if (!request)
		return LIVE_BROKEN;
	end = live_meet(&command.live, &peers);
	if (end) {
		json_object_put(request);
		return (int)end;
	}
	end = live_greet(&command.live, &peers.peers[0]);
	if (!end && !command.no_wait)
		live_wait_catch(0);
	if (!end)
		end = snap_run(&command, &peers.peers[0], request);
	else
		json_object_put(request);
	live_peers_free(&peers);
	return (int)end;
}
