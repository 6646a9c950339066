/* SPDX-License-Identifier: MIT */
/* uffdwp-ctl abort, audit, arm, disarm: one request for one region, and its answer. */
#include <stdio.h>
#include <string.h>

#include "live.h"
#include "live_report.h"
#include "live_say.h"

struct act_command {
	struct live_command live;
	const char *range[2]; /* as it was written: offset, length */
	uint64_t offset;
	uint64_t length;
};

/* ------------------------------------------------------------------------------------------------ command line -- */

static error_t act_take_range(struct argp_state *state, struct act_command *command, const char *text)
{
	uint64_t *number = command->range[0] ? &command->length : &command->offset;

	if (command->range[1])
		argp_error(state, "'%s' is one argument too many", text);
	if (live_parse_size(text, number))
		argp_error(state, "%s takes bytes such as 4096, 64K, 1M or 0x1000, not '%s'",
		           command->range[0] ? "LENGTH" : "OFFSET", text);
	command->range[command->range[0] != NULL] = text;
	return 0;
}

static error_t act_parse_range(int key, char *argument, struct argp_state *state)
{
	struct act_command *command = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		live_parse_init(state);
		return 0;
	case ARGP_KEY_ARG:
		return command->live.has_target ? act_take_range(state, command, argument) : ARGP_ERR_UNKNOWN;
	case ARGP_KEY_END:
		if (command->range[0] && !command->range[1])
			argp_error(state, "LENGTH is missing: a range is OFFSET LENGTH, and all is armed without one");
		if (command->range[1] && command->length == 0)
			argp_error(state, "LENGTH is 0: leave OFFSET and LENGTH out for all of the region");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static error_t act_parse(int key, char *argument, struct argp_state *state)
{
	(void)argument;
	if (key != ARGP_KEY_INIT)
		return ARGP_ERR_UNKNOWN;
	live_parse_init(state);
	return 0;
}

/* ---------------------------------------------------------------------------------------------------- requests -- */

static enum live_end act_ask(struct act_command *command, struct json_object *request, const struct shape *shape,
                             struct live_peer *peer, struct json_object **answer)
{
	enum live_end end = live_greet(&command->live, peer);

	if (end) {
		json_object_put(request);
		return end;
	}
	if (!shape_has(request, "snapshot")) /* which says which region it is */
		live_request_number(request, "region", (uint64_t)command->live.region);
	if (live_ask(peer, request, LIVE_LIMIT_WORK_MS, shape, answer) != LIVE_DONE)
		return live_fail_region(&command->live, peer);
	return LIVE_DONE;
}

/* The answer's own fields, after the process and the region. */
static enum live_end act_print_json(const struct act_command *command, struct json_object *answer)
{
	struct json_object *all = json_object_new_object();
	int result;

	live_request_number(all, "pid", (uint64_t)command->live.pid);
	live_request_number(all, "region", (uint64_t)command->live.region);
	json_object_object_foreach(live_report_bare(answer), key, value)
	{
		(void)json_object_object_add(all, key, json_object_get(value));
	}
	result = shape_print(all);
	json_object_put(all);
	return result ? LIVE_BROKEN : LIVE_DONE;
}

static enum live_end act_run(struct act_command *command, struct json_object *request, const struct shape *shape,
                             void (*print)(const char *title, struct json_object *answer))
{
	struct live_peers peers = {0};
	struct json_object *answer = NULL;
	char title[LIVE_TITLE];
	enum live_end end = live_meet(&command->live, &peers);

	if (end) {
		json_object_put(request);
		return end;
	}
	end = act_ask(command, request, shape, &peers.peers[0], &answer);
	if (!end && command->live.json)
		end = act_print_json(command, answer);
	else if (!end)
		print(live_title(title, &peers.peers[0], (uint64_t)command->live.region), answer);
	json_object_put(answer);
	live_peers_free(&peers);
	return end;
}

/* ------------------------------------------------------------------------------------------------------- abort -- */

#define ACT_EXIT_CODES                                                                                                 \
	"Exit codes:\n"                                                                                                \
	"  0  done\n"                                                                                                  \
	"  1  the process refused it\n"                                                                                \
	"  2  the command line was not understood\n"                                                                   \
	"  3  no such process, socket or region, or no right to it\n"                                                  \
	"  4  the process answers nothing or nonsense; output not writable\n"

static void act_print_abort(const char *title, struct json_object *answer)
{
	(void)answer;
	(void)printf("%s: the snapshot was asked to end without an image\n", title);
}

/* The number of the region's snapshot, if control began it; the protocol aborts these by number. Where that may not be
 * looked at, the region has to do. */
static enum live_end act_find_snapshot(struct act_command *command, struct json_object *request)
{
	struct live_peers peers = {0};
	struct live_state state;
	enum live_end end = live_meet(&command->live, &peers);

	if (end)
		return end;
	if (live_look(&command->live, &peers.peers[0], &state) != LIVE_DONE) {
		if (strcmp(peers.peers[0].error, "EPERM") != 0)
			end = live_fail_region(&command->live, &peers.peers[0]);
	} else {
		struct json_object *snapshot =
		        shape_object(live_stat_row(&state, (uint64_t)command->live.region), "snapshot");

		if (snapshot && strcmp(shape_text(snapshot, "by"), "control") == 0)
			live_request_number(request, "snapshot", shape_number(snapshot, "snapshot"));
	}
	live_state_free(&state);
	live_peers_free(&peers);
	return end;
}

int run_abort(int argc, char **argv)
{
	static const char doc[] = "Asks the running snapshot of a region to end without an image. A snapshot that the "
	                          "program began itself "
	                          "is aborted only where the process allows \"arm\" (UFFDWP_CONTROL=look,snapshot,arm)."
	                          "\v" ACT_EXIT_CODES "\n"
	                          "Example:\n"
	                          "  uffdwp-ctl abort 4711:1\n";
	static const struct argp argp = {NULL, act_parse, "PID:REGION", doc, live_children_json, NULL, NULL};
	struct act_command command = {.live = {.name = "abort", .takes = LIVE_TAKES_REGION, .region = -1}};
	struct json_object *request;
	enum live_end end;

	if (argp_parse(&argp, argc, argv, 0, NULL, &command) != 0)
		return LIVE_USAGE;
	request = live_request("abort");
	end = act_find_snapshot(&command, request);
	if (end) {
		json_object_put(request);
		return (int)end;
	}
	return (int)act_run(&command, request, answer_none, act_print_abort);
}

/* ------------------------------------------------------------------------------------------------------- audit -- */

static void act_print_audit(const char *title, struct json_object *answer)
{
	char armed[LIVE_WORD];
	char lost[LIVE_WORD];
	char rearmed[LIVE_WORD];

	(void)printf("%s: %s pages armed and looked at; %s of them had lost their protection unnoticed, %s were armed "
	             "again\n",
	             title, live_say_count(armed, shape_number(answer, "pages_armed")),
	             live_say_count(lost, shape_number(answer, "pages_lost")),
	             live_say_count(rearmed, shape_number(answer, "pages_rearmed")));
}

int run_audit(int argc, char **argv)
{
	static const char doc[] = "Looks for pages of a region that lost their protection unnoticed: compares what the "
	                          "library knows with "
	                          "what the kernel shows. Pages that were lost are armed again; a running snapshot "
	                          "that had not saved one of "
	                          "them fails, since it may have been written. The program goes on meanwhile."
	                          "\v" ACT_EXIT_CODES "\n"
	                          "Example:\n"
	                          "  uffdwp-ctl audit --json 4711:1 | jq .pages_lost\n";
	static const struct argp argp = {NULL, act_parse, "PID:REGION", doc, live_children_json, NULL, NULL};
	struct act_command command = {.live = {.name = "audit", .takes = LIVE_TAKES_REGION, .region = -1}};

	if (argp_parse(&argp, argc, argv, 0, NULL, &command) != 0)
		return LIVE_USAGE;
	return (int)(act_run(&command, live_request("audit"), answer_audit, act_print_audit));
}

/* --------------------------------------------------------------------------------------------------------- arm -- */

static void act_print_pages(const char *title, struct json_object *answer)
{
	char pages[LIVE_WORD];

	(void)printf("%s: %s pages are armed now\n", title, live_say_count(pages, shape_number(answer, "pages")));
}

static int act_run_range(const struct argp *argp, const char *name, int argc, char **argv)
{
	struct act_command command = {.live = {.name = name, .takes = LIVE_TAKES_REGION, .region = -1}};
	struct json_object *request;

	if (argp_parse(argp, argc, argv, 0, NULL, &command) != 0)
		return LIVE_USAGE;
	request = live_request(name);
	live_request_number(request, "offset", command.offset);
	live_request_number(request, "length", command.length);
	return (int)act_run(&command, request, answer_pages, act_print_pages);
}

#define ACT_RANGE_DOC                                                                                                  \
	" Without OFFSET and LENGTH, all of the region. Only where the process allows \"arm\" "                        \
	"(UFFDWP_CONTROL=look,snapshot,arm), and no snapshot runs."                                                    \
	"\v"                                                                                                           \
	"OFFSET and LENGTH are bytes from the region's start, with K, M, G or T for powers of 1024, or hexadecimal "   \
	"(0x1000).\n"                                                                                                  \
	"\n" ACT_EXIT_CODES "\n"                                                                                       \
	"Example:\n"

int run_arm(int argc, char **argv)
{
	static const char doc[] =
	        "Protects pages of a region: the program's next write to each of them is a fault, which "
	        "counts, and which uffdwp-ctl trace shows." ACT_RANGE_DOC "  uffdwp-ctl arm 4711:1 0 64M\n";
	static const struct argp argp = {
	        NULL, act_parse_range, "PID:REGION [OFFSET LENGTH]", doc, live_children_json, NULL, NULL};

	return act_run_range(&argp, "arm", argc, argv);
}

int run_disarm(int argc, char **argv)
{
	static const char doc[] = "Unprotects pages of a region: writes to them are no faults any more." ACT_RANGE_DOC
	                          "  uffdwp-ctl disarm 4711:1\n";
	static const struct argp argp = {
	        NULL, act_parse_range, "PID:REGION [OFFSET LENGTH]", doc, live_children_json, NULL, NULL};

	return act_run_range(&argp, "disarm", argc, argv);
}
