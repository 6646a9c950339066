/* SPDX-License-Identifier: MIT */
/* uffdwp-ctl stat: everything that a process says of its regions, for people or as JSON. */
#include <stdio.h>
#include <string.h>

#include "live.h"
#include "live_report.h"
#include "live_say.h"
#include "reword.h"

/* A row's name, and what follows it. */
#define STAT_NAME "  %-10s  "

struct stat_region {
	struct json_object *stat;
	struct json_object *list; /* NULL: it is not there any more */
	uint64_t pages;           /* of the region; 0: not known */
};

static const char *stat_count(char *word, struct json_object *object, const char *key)
{
	return live_say_count(word, shape_number(object, key));
}

static const char *stat_time(char *word, struct json_object *object, const char *key)
{
	return live_say_time(word, shape_number(object, key));
}

static const char *stat_bytes(char *word, struct json_object *object, const char *key)
{
	return live_say_bytes(word, shape_number(object, key));
}

/* --------------------------------------------------------------------------------------------------- the region -- */

static void stat_print_memory(const struct stat_region *region)
{
	char length[LIVE_WORD];
	char capacity[LIVE_WORD];
	char pages[LIVE_WORD];
	char page[LIVE_WORD];

	if (!region->list)
		return;
	(void)printf(STAT_NAME "%s at %s, %s pages of %s", "memory", stat_bytes(length, region->list, "length"),
	             shape_text(region->list, "address"), live_say_count(pages, region->pages),
	             stat_bytes(page, region->list, "page"));
	if (shape_number(region->list, "capacity") > shape_number(region->list, "length"))
		(void)printf(", may grow to %s", stat_bytes(capacity, region->list, "capacity"));
	(void)putchar('\n');
	if (shape_has(region->list, "dead"))
		(void)printf(STAT_NAME "%s\n", "dead", shape_text(region->list, "dead"));
}

static void stat_print_pages(const struct stat_region *region, const char *name, const char *key)
{
	uint64_t pages = shape_number(region->stat, key);
	char count[LIVE_WORD];
	char percent[LIVE_WORD];

	if (!shape_has(region->stat, key))
		(void)printf(STAT_NAME "not known\n", name);
	else if (region->pages)
		(void)printf(STAT_NAME "%s pages, %s\n", name, live_say_count(count, pages),
		             live_say_percent(percent, pages, region->pages));
	else
		(void)printf(STAT_NAME "%s pages\n", name, live_say_count(count, pages));
}

static void stat_print_faults(struct json_object *stat)
{
	char faults[LIVE_WORD];
	char repeated[LIVE_WORD];
	char disarmed[LIVE_WORD];
	char filled[LIVE_WORD];

	(void)printf(STAT_NAME "%s; %s repeated, %s pages unprotected, %s entries filled\n", "faults",
	             stat_count(faults, stat, "faults"), stat_count(repeated, stat, "faults_repeated"),
	             stat_count(disarmed, stat, "pages_disarmed"), stat_count(filled, stat, "pages_filled"));
}

static void stat_print_losses(struct json_object *stat)
{
	struct json_object *causes = shape_object(stat, "lost_by");
	char word[LIVE_WORD];
	const char *joint = ": ";

	(void)printf(STAT_NAME "%s pages", "lost", stat_count(word, stat, "pages_lost"));
	json_object_object_foreach(causes, cause, count)
	{
		if (json_object_get_uint64(count) == 0)
			continue;
		(void)printf("%s%s %s", joint, cause, live_say_count(word, json_object_get_uint64(count)));
		joint = ", ";
	}
	(void)printf("; armed again %s\n", stat_count(word, stat, "pages_rearmed"));
}

static void stat_print_events(struct json_object *stat)
{
	char remove[LIVE_WORD];
	char remap[LIVE_WORD];
	char unmap[LIVE_WORD];

	(void)printf(STAT_NAME "discards %s, moves %s, unmaps %s\n", "events",
	             stat_count(remove, stat, "events_remove"), stat_count(remap, stat, "events_remap"),
	             stat_count(unmap, stat, "events_unmap"));
}

static void stat_print_histogram(struct json_object *latency, const char *delivery)
{
	static const char *const keys[] = {"p50_ns", "p90_ns", "p99_ns", "p999_ns"};
	static const char *const names[] = {"p50", "p90", "p99", "p99.9"};
	struct json_object *histogram = shape_object(latency, delivery);
	uint64_t count = shape_number(histogram, "count");
	char word[LIVE_WORD];

	if (count == 0)
		return;
	(void)printf(STAT_NAME "%s: mean %s", "latency", delivery,
	             live_say_time(word, shape_number(histogram, "sum_ns") / count));
	for (int i = 0; i < 4; i++) {
		if (shape_has(histogram, keys[i]))
			(void)printf(", %s %s", names[i], stat_time(word, histogram, keys[i]));
	}
	(void)printf(", most %s", stat_time(word, histogram, "max_ns"));
	(void)printf("; %s faults\n", live_say_count(word, count));
}

static void stat_print_pool(struct json_object *pool)
{
	char used[LIVE_WORD];
	char bytes[LIVE_WORD];
	char percent[LIVE_WORD];
	char peak[LIVE_WORD];

	if (pool)
		(void)printf(STAT_NAME "%s of %s, %s; at most %s\n", "pool", stat_bytes(used, pool, "used_bytes"),
		             stat_bytes(bytes, pool, "bytes"),
		             live_say_percent(percent, shape_number(pool, "used_bytes"), shape_number(pool, "bytes")),
		             stat_bytes(peak, pool, "peak_bytes"));
}

static void stat_print_threads(struct json_object *stat)
{
	size_t count = shape_length(stat, "threads");
	char word[LIVE_WORD];

	if (count == 0)
		return;
	(void)printf(STAT_NAME, "threads");
	for (size_t i = 0; i < count; i++) {
		struct json_object *thread = shape_item(stat, "threads", i);
		uint64_t tid = shape_number(thread, "tid");

		(void)printf(i ? ", " : "");
		if (tid)
			(void)printf("%llu resolved ", (unsigned long long)tid);
		else
			(void)printf("writers themselves ");
		(void)printf("%s", stat_count(word, thread, "faults"));
	}
	(void)putchar('\n');
}

/* ---------------------------------------------------------------------------------------- snapshots and restores -- */

static void stat_print_result(struct json_object *snapshot)
{
	char text[REWORD_BYTES];

	(void)printf("%s", shape_text(snapshot, "state"));
	if (shape_has(snapshot, "by"))
		(void)printf(", begun by %s", shape_text(snapshot, "by"));
	if (shape_has(snapshot, "path"))
		(void)printf(": %s", shape_text(snapshot, "path"));
	(void)putchar('\n');
	if (shape_has(snapshot, "error") || shape_text(snapshot, "text")[0])
		(void)printf("              %s (%s)\n",
		             reword(REWORD_LIVE, shape_text(snapshot, "text"), text, sizeof(text)),
		             shape_text(snapshot, "error"));
}

static void stat_print_snapshot(struct json_object *snapshot, const char *name)
{
	int running = strcmp(shape_text(snapshot, "state"), "running") == 0;
	char saved[LIVE_WORD];
	char percent[LIVE_WORD];
	char total[LIVE_WORD];
	char written[LIVE_WORD];
	char elapsed[LIVE_WORD];
	char pause[LIVE_WORD];
	char word[LIVE_WORD];
	char title[LIVE_WORD];

	(void)snprintf(title, sizeof(title), "%s %llu", name, (unsigned long long)shape_number(snapshot, "snapshot"));
	(void)printf(STAT_NAME, title);
	stat_print_result(snapshot);
	(void)printf("              %s of %s pages saved or preserved%s%s, %s written in %s; pause %s\n",
	             live_say_count(saved, live_saved(snapshot)), stat_count(total, snapshot, "pages_total"),
	             running ? ", " : "", /* a delta never saves all of them */
	             running ? live_say_percent(percent, live_saved(snapshot), shape_number(snapshot, "pages_total"))
	                     : "",
	             stat_bytes(written, snapshot, "bytes_written"), stat_time(elapsed, snapshot, "elapsed_ns"),
	             stat_time(pause, snapshot, "pause_ns"));
	(void)printf("              saved by faults %s", stat_count(word, snapshot, "pages_fault"));
	(void)printf(", by barriers %s", stat_count(word, snapshot, "pages_prepare"));
	(void)printf(", by the sweep %s", stat_count(word, snapshot, "pages_sweep"));
	(void)printf(", holes %s", stat_count(word, snapshot, "pages_hole"));
	(void)printf("; writers waited %s times\n", stat_count(word, snapshot, "waits"));
}

static void stat_print_restore(struct json_object *restore)
{
	char percent[LIVE_WORD];
	char total[LIVE_WORD];
	char failed[LIVE_WORD];
	char elapsed[LIVE_WORD];

	if (restore)
		(void)printf(STAT_NAME "%s; %s of %s pages are there, %s failed, after %s\n", "restore",
		             shape_text(restore, "state"),
		             live_say_percent(percent, shape_number(restore, "pages_done"),
		                              shape_number(restore, "pages_total")),
		             stat_count(total, restore, "pages_total"), stat_count(failed, restore, "pages_failed"),
		             stat_time(elapsed, restore, "elapsed_ns"));
}

/* --------------------------------------------------------------------------------------------------- the whole -- */

static void stat_print_region(const struct live_peer *peer, const struct live_state *state, struct json_object *stat)
{
	struct stat_region region = {.stat = stat, .list = live_list_row(state, shape_number(stat, "region"))};
	uint64_t page = shape_number(region.list, "page");
	char title[LIVE_TITLE];

	region.pages = page ? shape_number(region.list, "length") / page : 0;
	(void)printf("%s", live_title(title, peer, shape_number(stat, "region")));
	if (region.list)
		(void)printf(": %s by %s, %s delivery, %s", shape_text(region.list, "memory"),
		             shape_text(region.list, "mechanism"), shape_text(region.list, "delivery"),
		             shape_text(region.list, "state"));
	(void)putchar('\n');
	stat_print_memory(&region);
	stat_print_pages(&region, "armed", "armed_pages");
	stat_print_pages(&region, "dirty", "dirty_pages");
	stat_print_faults(stat);
	stat_print_losses(stat);
	stat_print_events(stat);
	stat_print_histogram(shape_object(stat, "latency"), "thread");
	stat_print_histogram(shape_object(stat, "latency"), "inline");
	stat_print_threads(stat);
	stat_print_pool(shape_object(stat, "pool"));
	if (shape_has(stat, "snapshot"))
		stat_print_snapshot(shape_object(stat, "snapshot"), "snapshot");
	stat_print_restore(shape_object(stat, "restore"));
}

static void stat_print_process(const struct live_command *command, const struct live_peer *peer,
                               const struct live_state *state)
{
	for (size_t i = 0; i < shape_length(state->stat, "regions"); i++)
		stat_print_region(peer, state, shape_item(state->stat, "regions", i));
	if (shape_length(state->stat, "regions") == 0)
		(void)printf("%s %lld has no region\n", peer->program, (long long)peer->pid);
	for (size_t i = 0; i < shape_length(state->stat, "ended"); i++) {
		struct json_object *ended = shape_item(state->stat, "ended", i);

		if (command->region < 0 || shape_number(ended, "region") == (uint64_t)command->region)
			stat_print_snapshot(ended, "ended");
	}
}

static enum live_end stat_run(const struct live_command *command, struct live_peers *peers, struct live_report *report)
{
	enum live_end worst = LIVE_DONE;

	for (size_t i = 0; i < peers->count; i++) {
		struct live_peer *peer = &peers->peers[i];
		struct live_state state = {0};

		if (peer->fd < 0 || live_look(command, peer, &state) != LIVE_DONE) {
			worst = live_worse(worst, live_weigh(peer, live_fail_region(command, peer)));
			live_report_fail(report, peer);
		} else if (command->json) {
			live_report_add(report, peer, json_object_get(state.stat));
		} else {
			stat_print_process(command, peer, &state);
		}
		live_state_free(&state);
		live_disconnect(peer);
	}
	return worst;
}

static error_t stat_parse(int key, char *argument, struct argp_state *state)
{
	(void)argument;
	if (key != ARGP_KEY_INIT)
		return ARGP_ERR_UNKNOWN;
	live_parse_init(state);
	return 0;
}

static const char stat_doc[] =
        "Shows everything that a process says of a region: what is armed and dirty, faults, lost pages by cause, how "
        "long faults took, the pool of pre-images, snapshots and restores. Without PID, of all processes."
        "\v"
        "A latency is the time from when the library got a fault until the writer went on. Percentages of pages are of "
        "the region's length. \"ended\" are snapshots that uffdwp-ctl began, the last 16 of a process.\n"
        "\n"
        "Exit codes:\n"
        "  0  done\n"
        "  1  the process refused it\n"
        "  2  the command line was not understood\n"
        "  3  no such process, socket or region, or no right to it\n"
        "  4  a process (of all: one of this user's) answers nothing or nonsense;\n"
        "     output not writable\n"
        "\n"
        "Examples:\n"
        "  uffdwp-ctl stat 4711:1\n"
        "  uffdwp-ctl stat --json | jq '.processes[].regions[] | .pages_lost'\n";

int run_stat(int argc, char **argv)
{
	static const struct argp argp = {NULL, stat_parse, "[PID[:REGION]]", stat_doc, live_children_json, NULL, NULL};
	struct live_command command = {.name = "stat", .takes = LIVE_TAKES_ANY, .region = -1};
	struct live_report report;
	struct live_peers peers = {0};
	enum live_end end;

	if (argp_parse(&argp, argc, argv, 0, NULL, &command) != 0)
		return LIVE_USAGE;
	end = live_meet(&command, &peers);
	if (end)
		return (int)end;
	live_report_init(&report);
	end = stat_run(&command, &peers, &report);
	if (command.json && live_report_print(&report))
		end = LIVE_BROKEN;
	live_report_fini(&report);
	live_peers_free(&peers);
	return (int)end;
}
