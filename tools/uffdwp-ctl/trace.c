/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-ctl trace: which thread writes where, as the process reports its faults. The process sends a sample where
 * there are more than --per-second, and counts what it left out; so the end says how much of it was seen.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "live.h"
#include "live_report.h"
#include "live_say.h"
#include "live_wait.h"
#include "trace_names.h"
#include "trace_sum.h"

#define TRACE_PAGE_MOST ((uint64_t)1 << 40)
#define TRACE_GRACE_MS 2000 /* for the last count, after the time is up */

struct trace_command {
	struct live_command live;
	uint64_t per_second;
	uint64_t seconds; /* 0: until a signal */
	int summary;
};

struct trace {
	const struct trace_command *command;
	struct live_peer *peer;
	struct json_object *list; /* for the size of pages */
	int64_t begin_ms;
	uint64_t to_wall_ns; /* from CLOCK_MONOTONIC to CLOCK_REALTIME */
	uint64_t shown;
	uint64_t seen; /* as the process says */
	uint64_t sent;
	uint64_t dropped; /* those that were to be sent and had no room */
	int is_last;      /* the process says that it is over */
	int is_begun;     /* the table has its head */
	struct trace_names names;
	struct trace_table threads;
	struct trace_table blocks;
};

/* ------------------------------------------------------------------------------------------------ command line -- */

enum { KEY_PER_SECOND = 256, KEY_SECONDS, KEY_SUMMARY };

static const struct argp_option trace_options[] = {
        {"per-second", KEY_PER_SECOND, "N", 0, "Show so many a second at most, 1 to 100000; 1000", 0},
        {"seconds", KEY_SECONDS, "N", 0, "End after so many seconds; else by Ctrl-C", 0},
        {"summary", KEY_SUMMARY, NULL, 0, "Only a sum at the end: threads, and blocks of 64 pages", 0},
        {0},
};

static uint64_t trace_take_number(struct argp_state *state, const char *option, const char *text, uint64_t most)
{
	uint64_t number = 0;

	if (live_parse_number(text, &number) || number < 1 || number > most)
		argp_error(state, "%s takes a number from 1 to %llu, not '%s'", option, (unsigned long long)most, text);
	return number;
}

static error_t trace_parse(int key, char *argument, struct argp_state *state)
{
	struct trace_command *command = state->input;

	switch (key) {
	case ARGP_KEY_INIT:
		live_parse_init(state);
		return 0;
	case KEY_PER_SECOND:
		command->per_second = trace_take_number(state, "--per-second", argument, 100000);
		return 0;
	case KEY_SECONDS:
		command->seconds = trace_take_number(state, "--seconds", argument, 86400);
		return 0;
	case KEY_SUMMARY:
		command->summary = 1;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

/* ------------------------------------------------------------------------------------------------------- lines -- */

static uint64_t trace_clock_ns(clockid_t clock)
{
	struct timespec now = {0};

	(void)clock_gettime(clock, &now);
	return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* "22:41:07.123456" */
static const char *trace_time(const struct trace *trace, uint64_t ns, char *word)
{
	uint64_t wall_ns = ns + trace->to_wall_ns;
	time_t seconds = (time_t)(wall_ns / 1000000000u);
	struct tm parts = {0};

	(void)localtime_r(&seconds, &parts);
	(void)snprintf(word, LIVE_WORD, "%02d:%02d:%02d.%06u", parts.tm_hour, parts.tm_min, parts.tm_sec,
	               (unsigned)(wall_ns % 1000000000u / 1000));
	return word;
}

static uint64_t trace_address(struct json_object *event)
{
	return strtoull(shape_text(event, "address"), NULL, 16);
}

/* Once there is something to show: a table of nothing says less than a line. */
static void trace_print_head(struct trace *trace)
{
	if (!trace->is_begun)
		(void)printf("%-15s  %8s  %-15s  %-18s  %-20s  %-5s  %s\n", "TIME", "TID", "THREAD", "ADDRESS",
		             "REGION+OFFSET", "KIND", "MAPPING");
	trace->is_begun = 1;
}

/* Addresses of an adopted region are those of a process that maps it, which may not be looked at. */
static const char *trace_mapping(struct trace *trace, struct json_object *event)
{
	struct live_state state = {.list = trace->list};
	struct json_object *region = live_list_row(&state, shape_number(event, "region"));

	return region && shape_length(region, "mappers") ? "?"
	                                                 : trace_names_mapping(&trace->names, trace_address(event));
}

static void trace_print_event(struct trace *trace, struct json_object *event)
{
	uint64_t tid = shape_number(event, "tid"); /* 0: not known */
	char place[LIVE_WORD];
	char when[LIVE_WORD];
	char thread[LIVE_WORD] = "?";

	if (tid)
		(void)snprintf(thread, sizeof(thread), "%llu", (unsigned long long)tid);
	trace_print_head(trace);
	(void)snprintf(place, sizeof(place), "%llu+0x%llx", (unsigned long long)shape_number(event, "region"),
	               (unsigned long long)shape_number(event, "offset"));
	(void)printf("%s  %8s  %-15s  0x%016llx  %-20s  %-5s  %s\n", trace_time(trace, shape_number(event, "ns"), when),
	             thread, trace_names_thread(&trace->names, tid), (unsigned long long)trace_address(event), place,
	             shape_text(event, "kind"), trace_mapping(trace, event));
}

static void trace_print_json(struct trace *trace, struct json_object *event)
{
	json_object_object_del(event, "v");
	live_request_text(event, "thread", trace_names_thread(&trace->names, shape_number(event, "tid")));
	live_request_text(event, "mapping", trace_mapping(trace, event));
	(void)shape_print(event);
}

/* ---------------------------------------------------------------------------------------------------- counting -- */

static uint64_t trace_page(const struct trace *trace, uint64_t region)
{
	struct live_state state = {.list = trace->list};
	uint64_t page = shape_number(live_list_row(&state, region), "page");

	return page && page <= TRACE_PAGE_MOST ? page : 4096;
}

static void trace_count(struct trace *trace, struct json_object *event)
{
	uint64_t region = shape_number(event, "region");
	uint64_t tid = shape_number(event, "tid");

	/* While it lives: a thread that has ended has no name any more. */
	(void)trace_names_thread(&trace->names, tid);
	trace_table_count(&trace->threads, tid, 0);
	trace_table_count(&trace->blocks, region,
	                  shape_number(event, "offset") / (TRACE_BLOCK_PAGES * trace_page(trace, region)));
}

static void trace_take_write(struct trace *trace, struct json_object *event)
{
	trace->shown++;
	if (trace->command->summary)
		trace_count(trace, event);
	else if (trace->command->live.json)
		trace_print_json(trace, event);
	else
		trace_print_event(trace, event);
}

/* Each says what came since the trace began. */
static void trace_take_tick(struct trace *trace, struct json_object *event)
{
	trace->seen = shape_number(event, "seen");
	trace->sent = shape_number(event, "sent");
	trace->dropped = shape_number(event, "dropped");
	trace->is_last = shape_flag(event, "last");
	if (trace->command->live.json && !trace->command->summary) {
		json_object_object_del(event, "v");
		(void)shape_print(event);
	}
	(void)fflush(stdout);
}

static enum live_end trace_take(struct trace *trace, struct json_object *event)
{
	const char *name = shape_text(event, "event");
	const struct shape *shape = strcmp(name, "write") == 0  ? answer_write
	                            : strcmp(name, "tick") == 0 ? answer_tick
	                                                        : NULL;
	char wrong[512];

	if (!shape) /* of a later release */
		return LIVE_DONE;
	if (shape_check(event, shape, wrong, sizeof(wrong))) {
		(void)snprintf(trace->peer->text, sizeof(trace->peer->text), "its line is no event: %s", wrong);
		live_disconnect(trace->peer);
		return trace->peer->end = LIVE_BROKEN;
	}
	if (shape == answer_write)
		trace_take_write(trace, event);
	else
		trace_take_tick(trace, event);
	return LIVE_DONE;
}

/* How long the next line may take; at most 0: the time is up. */
static int trace_limit_ms(const struct trace *trace)
{
	int64_t left_ms = LIVE_LIMIT_MS;

	if (trace->command->seconds)
		left_ms =
		        trace->begin_ms + (int64_t)trace->command->seconds * 1000 + TRACE_GRACE_MS - live_wait_now_ms();
	return left_ms < LIVE_LIMIT_MS ? (int)left_ms : LIVE_LIMIT_MS;
}

static int trace_is_over(const struct trace *trace)
{
	return live_wait_stops() || ferror(stdout) ||
	       (trace->command->seconds &&
	        live_wait_now_ms() - trace->begin_ms >= (int64_t)trace->command->seconds * 1000);
}

static enum live_end trace_follow(struct trace *trace)
{
	int limit_ms;

	while ((limit_ms = trace_limit_ms(trace)) > 0 && !trace->is_last && !live_wait_stops() && !ferror(stdout)) {
		struct json_object *event;
		enum live_end end = live_next(trace->peer, limit_ms, answer_event, &event);

		if (!end && event)
			end = trace_take(trace, event);
		json_object_put(event);
		if (end) /* the process may close when the time is up */
			return trace_is_over(trace) ? LIVE_DONE : live_fail(&trace->command->live, trace->peer);
	}
	return LIVE_DONE;
}

/* ----------------------------------------------------------------------------------------------------- the end -- */

static void trace_print_threads(struct trace *trace, size_t count)
{
	char word[LIVE_WORD];

	(void)printf("%12s  %8s  %s\n", "WRITES", "TID", "THREAD");
	for (size_t i = 0; i < count; i++) {
		const struct trace_count *row = &trace->threads.slots[i];

		(void)printf("%12s  %8llu  %s\n", live_say_count(word, row->count), (unsigned long long)row->a,
		             trace_names_thread(&trace->names, row->a));
	}
	if (trace->threads.others)
		(void)printf("%12s  %8s  others\n", live_say_count(word, trace->threads.others), "");
}

static void trace_print_blocks(struct trace *trace, size_t count)
{
	char word[LIVE_WORD];

	(void)printf("\n%12s  %8s  %s\n", "WRITES", "REGION", "BLOCK OF 64 PAGES");
	for (size_t i = 0; i < count; i++) {
		const struct trace_count *row = &trace->blocks.slots[i];
		unsigned long long length = TRACE_BLOCK_PAGES * trace_page(trace, row->a);
		unsigned long long from = row->b * length;

		(void)printf("%12s  %8llu  0x%llx-0x%llx\n", live_say_count(word, row->count),
		             (unsigned long long)row->a, from, from + length);
	}
	if (trace->blocks.others)
		(void)printf("%12s  %8s  others\n", live_say_count(word, trace->blocks.others), "");
}

static struct json_object *trace_json_threads(struct trace *trace, size_t count)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < count; i++) {
		const struct trace_count *row = &trace->threads.slots[i];
		struct json_object *item = json_object_new_object();

		live_request_number(item, "tid", row->a);
		live_request_text(item, "thread", trace_names_thread(&trace->names, row->a));
		live_request_number(item, "writes", row->count);
		(void)json_object_array_add(list, item);
	}
	return list;
}

static struct json_object *trace_json_blocks(struct trace *trace, size_t count)
{
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < count; i++) {
		const struct trace_count *row = &trace->blocks.slots[i];
		uint64_t length = TRACE_BLOCK_PAGES * trace_page(trace, row->a);
		struct json_object *item = json_object_new_object();

		live_request_number(item, "region", row->a);
		live_request_number(item, "offset", row->b * length);
		live_request_number(item, "length", length);
		live_request_number(item, "writes", row->count);
		(void)json_object_array_add(list, item);
	}
	return list;
}

static enum live_end trace_print_sum_json(struct trace *trace, size_t threads, size_t blocks)
{
	struct json_object *all = json_object_new_object();
	int result;

	live_request_number(all, "pid", (uint64_t)trace->peer->pid);
	live_request_text(all, "program", trace->peer->program);
	live_request_number(all, "shown", trace->shown);
	live_request_number(all, "seen", trace->seen);
	live_request_number(all, "sent", trace->sent);
	live_request_number(all, "dropped", trace->dropped);
	(void)json_object_object_add(all, "threads", trace_json_threads(trace, threads));
	(void)json_object_object_add(all, "blocks", trace_json_blocks(trace, blocks));
	result = shape_print(all);
	json_object_put(all);
	return result ? LIVE_BROKEN : LIVE_DONE;
}

static void trace_print_counts(const struct trace *trace)
{
	uint64_t sent = trace->sent + trace->dropped;
	char shown[LIVE_WORD];
	char seen[LIVE_WORD];
	char left_out[LIVE_WORD];
	char dropped[LIVE_WORD];

	(void)fflush(stdout);
	(void)fprintf(stderr, "%s %lld: %s of %s faults came here; %s were left out by --per-second, %s had no room\n",
	              trace->peer->program, (long long)trace->peer->pid, live_say_count(shown, trace->shown),
	              live_say_count(seen, trace->seen > trace->shown ? trace->seen : trace->shown),
	              live_say_count(left_out, trace->seen > sent ? trace->seen - sent : 0),
	              live_say_count(dropped, trace->dropped));
}

/* Where nothing came: a fault is an access to a page that is armed, so the first thing to know is whether one is. */
static void trace_print_none(const struct trace *trace)
{
	char time[LIVE_WORD];
	char seen[LIVE_WORD];

	(void)live_say_time(time, (uint64_t)(live_wait_now_ms() - trace->begin_ms) * 1000000);
	if (trace->seen)
		(void)printf(
		        "%s %lld: %s faults within %s, and none of them came here: --per-second left out, or had no "
		        "room for, all\n",
		        trace->peer->program, (long long)trace->peer->pid, live_say_count(seen, trace->seen), time);
	else
		(void)printf(
		        "%s %lld: no fault within %s: nothing wrote to an armed page (uffdwp-ctl stat shows how many "
		        "are armed; a snapshot arms them, or uffdwp-ctl arm)\n",
		        trace->peer->program, (long long)trace->peer->pid, time);
}

static enum live_end trace_report(struct trace *trace)
{
	if (!trace->shown && !trace->command->live.json) {
		trace_print_none(trace);
		return LIVE_DONE;
	}
	if (trace->command->summary) {
		size_t threads = trace_table_top(&trace->threads, TRACE_TOP);
		size_t blocks = trace_table_top(&trace->blocks, TRACE_TOP);

		if (trace->command->live.json)
			return trace_print_sum_json(trace, threads, blocks);
		trace_print_threads(trace, threads);
		trace_print_blocks(trace, blocks);
	}
	if (!trace->command->live.json)
		trace_print_counts(trace);
	return LIVE_DONE;
}

/* --------------------------------------------------------------------------------------------------- the whole -- */

static struct json_object *trace_form_request(const struct trace_command *command)
{
	struct json_object *request = live_request("trace");

	if (command->live.region >= 0)
		live_request_number(request, "region", (uint64_t)command->live.region);
	live_request_number(request, "per_second", command->per_second);
	if (command->seconds)
		live_request_number(request, "seconds", command->seconds);
	return request;
}

static enum live_end trace_begin(struct trace *trace)
{
	struct json_object *answer;
	enum live_end end = live_ask(trace->peer, live_request("list"), LIVE_LIMIT_MS, answer_list, &trace->list);

	if (end)
		return live_fail(&trace->command->live, trace->peer);
	if (live_ask(trace->peer, trace_form_request(trace->command), LIVE_LIMIT_MS, answer_none, &answer) != LIVE_DONE)
		return live_fail_region(&trace->command->live, trace->peer);
	json_object_put(answer);
	trace->begin_ms = live_wait_now_ms();
	trace->peer->outwaits = "trace"; /* it goes on when the process does */
	trace->peer->outwait_until_ms =
	        trace->command->seconds ? trace->begin_ms + (int64_t)trace->command->seconds * 1000 : INT64_MAX;
	trace->to_wall_ns = trace_clock_ns(CLOCK_REALTIME) - trace_clock_ns(CLOCK_MONOTONIC);
	return LIVE_DONE;
}

static enum live_end trace_run(const struct trace_command *command, struct live_peer *peer)
{
	static struct trace trace;
	enum live_end end;

	trace.command = command;
	trace.peer = peer;
	trace_names_init(&trace.names, peer->pid);
	if (command->summary) {
		trace_table_init(&trace.threads);
		trace_table_init(&trace.blocks);
	}
	live_wait_catch(0);
	end = trace_begin(&trace);
	if (!end) {
		end = trace_follow(&trace);
		end = live_worse(end, trace_report(&trace));
	}
	json_object_put(trace.list);
	trace_table_fini(&trace.threads);
	trace_table_fini(&trace.blocks);
	trace_names_fini(&trace.names);
	return end;
}

static const char trace_doc[] =
        "Shows which thread writes where: each write to an armed page, with the thread's name, the address, the region "
        "and the offset in it, and the mapping. Only faults are seen: a page that was written once is silent until it "
        "is armed again, by a snapshot or by uffdwp-ctl arm."
        "\v"
        "Where there are more than --per-second, the process sends a sample of them and counts the rest; the end says "
        "how many, and how many of the sample had no room. KIND is \"write\"; or \"read\" and \"empty\" for the "
        "accesses that come to the library where page "
        "tables were moved away. Where nothing came, one line says so. --json prints a line for each.\n"
        "\n"
        "Exit codes:\n"
        "  0  done, also when ended by Ctrl-C\n"
        "  1  the process refused it\n"
        "  2  the command line was not understood\n"
        "  3  no such process, socket or region, or no right to it\n"
        "  4  the process answers nothing or nonsense, or has ended; output not\n"
        "     writable\n"
        "\n"
        "Examples:\n"
        "  uffdwp-ctl trace 4711:1\n"
        "  uffdwp-ctl trace 4711 --summary --seconds 10 --per-second 100000\n";

int run_trace(int argc, char **argv)
{
	static const struct argp argp = {trace_options, trace_parse, "PID[:REGION]", trace_doc, live_children_json,
	                                 NULL,          NULL};
	struct trace_command command = {.live = {.name = "trace", .takes = LIVE_TAKES_ONE, .region = -1},
	                                .per_second = 1000};
	struct live_peers peers = {0};
	enum live_end end;

	if (argp_parse(&argp, argc, argv, 0, NULL, &command) != 0)
		return LIVE_USAGE;
	end = live_meet(&command.live, &peers);
	if (end)
		return (int)end;
	end = trace_run(&command, &peers.peers[0]);
	live_peers_free(&peers);
	return (int)end;
}
