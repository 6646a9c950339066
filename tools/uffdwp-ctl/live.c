/* SPDX-License-Identifier: MIT */
/* See live.h. */
#include "live.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "live_say.h"
#include "reword.h"

/* ------------------------------------------------------------------------------------------------ command line -- */

enum { KEY_SOCKET = 512 };

static const struct argp_option live_options[] = {
        {"socket", KEY_SOCKET, "PATH", 0, "Ask the process that listens there, and no other", 0},
        {0},
};

static const struct argp_option live_options_json[] = {
        {"json", 'j', NULL, 0, "For programs: JSON with stable names (share/doc/uffdwp/uffdwp-ctl.md lists them)", 0},
        {"socket", KEY_SOCKET, "PATH", 0, "Ask the process that listens there, and no other", 0},
        {0},
};

/* PID or PID:REGION. -1: it is neither. */
static int live_parse_target(struct live_command *command, const char *text)
{
	char pid[24] = "";
	size_t length = strcspn(text, ":");
	uint64_t number;

	if (length >= sizeof(pid))
		return -1;
	memcpy(pid, text, length);
	if (live_parse_number(pid, &number) || number == 0)
		return -1;
	command->pid = (int64_t)number;
	command->region = -1;
	if (!text[length])
		return 0;
	if (command->takes == LIVE_TAKES_PID || live_parse_number(text + length + 1, &number))
		return -1;
	command->region = (int64_t)number;
	return 0;
}

static error_t live_take_target(struct argp_state *state, struct live_command *command, const char *text)
{
	static const char *const forms[] = {"", "PID", "PID or PID:REGION", "PID or PID:REGION", "PID:REGION"};

	if (command->takes == LIVE_TAKES_NONE || command->has_target)
		argp_error(state, "'%s' is one argument too many", text);
	else if (live_parse_target(command, text) || (command->takes == LIVE_TAKES_REGION && command->region < 0))
		argp_error(state, "'%s' is no %s: uffdwp-ctl list shows those that there are", text,
		           forms[command->takes]);
	command->has_target = 1;
	return 0;
}

static error_t live_parse(int key, char *argument, struct argp_state *state)
{
	struct live_command *command = state->input;

	switch (key) {
	case 'j':
		command->json = 1;
		return 0;
	case KEY_SOCKET:
		if (!*argument)
			argp_error(state, "--socket takes the path of a socket, not ''");
		command->socket = argument;
		return 0;
	case ARGP_KEY_ARG:
		return live_take_target(state, command, argument);
	case ARGP_KEY_END:
		if (command->takes >= LIVE_TAKES_ONE && !command->has_target)
			argp_error(state, "%s is missing: uffdwp-ctl list shows those that there are",
			           command->takes == LIVE_TAKES_ONE ? "PID" : "PID:REGION");
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const struct argp live_argp = {live_options, live_parse, NULL, NULL, NULL, NULL, NULL};
static const struct argp live_argp_json = {live_options_json, live_parse, NULL, NULL, NULL, NULL, NULL};
const struct argp_child live_children[] = {{&live_argp, 0, NULL, 0}, {0}};
const struct argp_child live_children_json[] = {{&live_argp_json, 0, NULL, 0}, {0}};

/* --------------------------------------------------------------------------------------------------- processes -- */

enum live_end live_worse(enum live_end a, enum live_end b)
{
	return a > b ? a : b;
}

enum live_end live_weigh(const struct live_peer *peer, enum live_end end)
{
	return peer->is_one_of_all && peer->uid != geteuid() ? LIVE_DONE : end;
}

static enum live_end live_meet_one(const struct live_command *command, struct live_peers *peers)
{
	char text[512];

	if (peers->count == 0) {
		live_find_explain(command->pid, text, sizeof(text));
		live_complain(command->name, "%s", text);
		return LIVE_ABSENT;
	}
	return peers->peers[0].fd < 0 ? live_fail(command, &peers->peers[0]) : LIVE_DONE;
}

enum live_end live_meet(const struct live_command *command, struct live_peers *peers)
{
	enum live_end end = LIVE_DONE;

	if (live_find(peers, command->pid, command->socket)) {
		live_complain(command->name, "no memory");
		live_peers_free(peers);
		return LIVE_BROKEN;
	}
	live_find_say_strays(command->name, peers);
	if (command->socket && peers->count && peers->peers[0].fd < 0) {
		live_complain(command->name, "%s: %s", command->socket, peers->peers[0].text);
		end = peers->peers[0].end;
	} else if (command->pid) {
		end = live_meet_one(command, peers);
	} else if (peers->count == 0) {
		live_complain(command->name, "no process has a control socket: start one with UFFDWP_CONTROL=1 in its "
		                             "environment, or have it open its runtime with UFFDWP_OPEN_CONTROL");
		end = LIVE_ABSENT;
	}
	if (end)
		live_peers_free(peers);
	return end;
}

enum live_end live_fail(const struct live_command *command, struct live_peer *peer)
{
	char text[REWORD_BYTES];
	const char *said = peer->text;

	if (peer->pid == 0) { /* --socket, and no process there */
		live_complain(command->name, "%s: %s", command->socket, peer->text);
		return peer->end;
	}
	if (peer->error[0]) /* what the library said there */
		said = reword(REWORD_LIVE, peer->text, text, sizeof(text));
	live_complain(command->name, "process %lld (%s): %s%s%s%s", (long long)peer->pid, peer->program, said,
	              peer->error[0] ? " (" : "", peer->error, peer->error[0] ? ")" : "");
	return peer->end;
}

enum live_end live_greet(const struct live_command *command, struct live_peer *peer)
{
	struct json_object *answer;

	if (live_ask(peer, live_request("hello"), LIVE_LIMIT_MS, answer_hello, &answer) != LIVE_DONE)
		return live_fail(command, peer);
	(void)snprintf(peer->program, sizeof(peer->program), "%s", shape_text(answer, "program"));
	json_object_put(answer);
	return LIVE_DONE;
}

/* The numbers of all regions, "1, 2, 3". */
static void live_name_regions(struct json_object *list, char *text, size_t size)
{
	size_t count = shape_length(list, "regions");
	size_t used = 0;

	(void)snprintf(text, size, "it has none");
	for (size_t i = 0; i < count && used + 32 < size; i++)
		used += (size_t)snprintf(text + used, size - used, "%s%llu", i ? ", " : "it has ",
		                         (unsigned long long)shape_number(shape_item(list, "regions", i), "region"));
}

/* By halves, since a process may send some ten thousand: live_look() has seen that they ascend. */
static struct json_object *live_row(struct json_object *answer, uint64_t region)
{
	size_t low = 0;
	size_t high = shape_length(answer, "regions");

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		struct json_object *row = shape_item(answer, "regions", middle);
		uint64_t number = shape_number(row, "region");

		if (number == region)
			return row;
		if (number < region)
			low = middle + 1;
		else
			high = middle;
	}
	return NULL;
}

enum live_end live_fail_region(const struct live_command *command, struct live_peer *peer)
{
	struct live_peer before = *peer;
	struct json_object *list = NULL;
	char regions[256];

	if (peer->end != LIVE_REFUSED || command->region < 0 ||
	    live_ask(peer, live_request("list"), LIVE_LIMIT_MS, answer_list, &list) != LIVE_DONE ||
	    live_row(list, (uint64_t)command->region)) {
		json_object_put(list);
		return live_fail(command, &before);
	}
	live_name_regions(list, regions, sizeof(regions));
	json_object_put(list);
	live_complain(command->name, "process %lld (%s) has no region %lld: %s", (long long)peer->pid, peer->program,
	              (long long)command->region, regions);
	return LIVE_ABSENT;
}

/* ----------------------------------------------------------------------------------------------------- answers -- */

/* A number that stands twice would be two series of one name. */
static int live_ascends(struct json_object *answer)
{
	for (size_t i = 1; i < shape_length(answer, "regions"); i++) {
		if (shape_number(shape_item(answer, "regions", i - 1), "region") >=
		    shape_number(shape_item(answer, "regions", i), "region"))
			return 0;
	}
	return 1;
}

enum live_end live_look(const struct live_command *command, struct live_peer *peer, struct live_state *state)
{
	struct json_object *request = live_request("stat");

	*state = (struct live_state){0};
	if (command->region >= 0)
		live_request_number(request, "region", (uint64_t)command->region);
	if (live_ask(peer, request, LIVE_LIMIT_MS, answer_stat, &state->stat) == LIVE_DONE)
		(void)live_ask(peer, live_request("list"), LIVE_LIMIT_MS, answer_list, &state->list);
	if (!peer->end && (!live_ascends(state->list) || !live_ascends(state->stat))) {
		(void)snprintf(peer->text, sizeof(peer->text), "its answer is none: its regions are not in order");
		live_disconnect(peer);
		peer->end = LIVE_BROKEN;
	}
	if (peer->end)
		live_state_free(state);
	else
		(void)snprintf(peer->program, sizeof(peer->program), "%s", shape_text(state->list, "program"));
	return peer->end;
}

void live_state_free(struct live_state *state)
{
	json_object_put(state->list);
	json_object_put(state->stat);
	*state = (struct live_state){0};
}

struct json_object *live_list_row(const struct live_state *state, uint64_t region)
{
	return live_row(state->list, region);
}

struct json_object *live_stat_row(const struct live_state *state, uint64_t region)
{
	return live_row(state->stat, region);
}

const char *live_title(char *title, const struct live_peer *peer, uint64_t region)
{
	(void)snprintf(title, LIVE_TITLE, "%s %lld, region %llu", peer->program, (long long)peer->pid,
	               (unsigned long long)region);
	return title;
}

uint64_t live_saved(struct json_object *progress)
{
	static const char *const kinds[] = {"pages_fault", "pages_prepare", "pages_sweep", "pages_hole"};
	uint64_t total = shape_number(progress, "pages_total");
	uint64_t saved = 0;

	for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
		uint64_t more = shape_number(progress, kinds[i]);

		saved = more > total - saved ? total : saved + more; /* they are counted one after the other */
	}
	return saved;
}

/* length_bytes of the snapshot may end within its last page: pages have a power of two of bytes. */
static uint64_t live_page_bytes(struct json_object *progress)
{
	uint64_t total = shape_number(progress, "pages_total");
	uint64_t page = 1;

	while (total && page < (uint64_t)1 << 40 && page < shape_number(progress, "length_bytes") / total)
		page *= 2;
	return page;
}

uint64_t live_written(struct json_object *progress, struct json_object *pool)
{
	uint64_t saved = live_saved(progress);
	uint64_t waiting = shape_number(pool, "used_bytes") / live_page_bytes(progress);

	return saved > waiting ? saved - waiting : 0;
}
