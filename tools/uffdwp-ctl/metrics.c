/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-ctl metrics: the figures of `list` and `stat` in Prometheus' text exposition format 0.0.4. All samples of a
 * name stand together, so the answers of all processes are kept first, and the table of names is gone through then.
 *
 * Histograms have the same bounds in each scrape, powers of two from 1024 ns on, which are bounds of the library's own
 * finer buckets: nothing is counted in the wrong one.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "live.h"
#include "live_say.h"

#define METRICS_LEAST_SHIFT 10
#define METRICS_MOST_SHIFT 37
#define METRICS_THREADS 1024

struct metrics_process {
	const struct live_peer *peer;
	struct live_state state; /* empty: it did not answer */
};

struct metrics {
	struct metrics_process *processes;
	size_t count;
};

/* A region of a process. */
struct metrics_row {
	const struct live_peer *peer;
	struct json_object *stat;
	struct json_object *list; /* NULL: not known */
};

struct metrics_family {
	const char *name;
	const char *type;
	const char *help;
	void (*print)(const struct metrics_family *family, const struct metrics_row *row);
	const char *object; /* of the region's stat, in which `key` is; NULL: stat itself */
	const char *key;
};

/* ------------------------------------------------------------------------------------------------------ samples -- */

/* A label's value: backslashes, quotes and newlines are escaped, control characters are none any more. */
static void metrics_print_label(const char *value)
{
	for (; *value; value++) {
		if (*value == '\\' || *value == '"')
			(void)putchar('\\');
		(void)putchar(*value == '\n' ? ' ' : *value);
	}
}

/* NAME{pid="..",program="..",region=".." without the closing brace. */
static void metrics_begin(const char *name, const char *suffix, const struct metrics_row *row)
{
	(void)printf("%s%s{pid=\"%lld\",program=\"", name, suffix, (long long)row->peer->pid);
	metrics_print_label(row->peer->program);
	(void)printf("\",region=\"%llu\"", (unsigned long long)shape_number(row->stat, "region"));
}

static void metrics_add_label(const char *name, const char *value)
{
	(void)printf(",%s=\"", name);
	metrics_print_label(value);
	(void)putchar('"');
}

static void metrics_end(uint64_t value)
{
	(void)printf("} %llu\n", (unsigned long long)value);
}

static void metrics_end_seconds(uint64_t ns)
{
	(void)printf("} %llu.%09llu\n", (unsigned long long)(ns / 1000000000u), (unsigned long long)(ns % 1000000000u));
}

static struct json_object *metrics_object(const struct metrics_family *family, const struct metrics_row *row)
{
	return family->object ? shape_object(row->stat, family->object) : row->stat;
}

static void metrics_print_number(const struct metrics_family *family, const struct metrics_row *row)
{
	struct json_object *object = metrics_object(family, row);

	if (!shape_has(object, family->key))
		return;
	metrics_begin(family->name, "", row);
	metrics_end(shape_number(object, family->key));
}

static void metrics_print_seconds(const struct metrics_family *family, const struct metrics_row *row)
{
	struct json_object *object = metrics_object(family, row);

	if (!shape_has(object, family->key))
		return;
	metrics_begin(family->name, "", row);
	metrics_end_seconds(shape_number(object, family->key));
}

static void metrics_print_list(const struct metrics_family *family, const struct metrics_row *row)
{
	if (!shape_has(row->list, family->key))
		return;
	metrics_begin(family->name, "", row);
	metrics_end(shape_number(row->list, family->key));
}

static void metrics_print_info(const struct metrics_family *family, const struct metrics_row *row)
{
	static const char *const keys[] = {"memory", "mechanism", "delivery", "state"};

	if (!row->list)
		return;
	metrics_begin(family->name, "", row);
	for (int i = 0; i < 4; i++)
		metrics_add_label(keys[i], shape_text(row->list, keys[i]));
	metrics_end(1);
}

static void metrics_print_losses(const struct metrics_family *family, const struct metrics_row *row)
{
	json_object_object_foreach(shape_object(row->stat, family->key), cause, count)
	{
		metrics_begin(family->name, "", row);
		metrics_add_label("cause", cause);
		metrics_end(json_object_get_uint64(count));
	}
}

static void metrics_print_events(const struct metrics_family *family, const struct metrics_row *row)
{
	static const char *const keys[] = {"events_remove", "events_remap", "events_unmap"};
	static const char *const names[] = {"remove", "remap", "unmap"};

	for (int i = 0; i < 3; i++) {
		metrics_begin(family->name, "", row);
		metrics_add_label("event", names[i]);
		metrics_end(shape_number(row->stat, keys[i]));
	}
}

static void metrics_print_saved(const struct metrics_family *family, const struct metrics_row *row)
{
	if (!shape_has(row->stat, family->object))
		return;
	metrics_begin(family->name, "", row);
	metrics_end(live_saved(metrics_object(family, row)));
}

static void metrics_print_running(const struct metrics_family *family, const struct metrics_row *row)
{
	metrics_begin(family->name, "", row);
	metrics_end(strcmp(shape_text(metrics_object(family, row), "state"), "running") == 0);
}

/* A thread that stands twice would be two samples of one name, for which Prometheus refuses all of them. */
static int metrics_is_again(const struct metrics_row *row, size_t index)
{
	for (size_t i = 0; i < index; i++) {
		if (shape_number(shape_item(row->stat, "threads", i), "tid") ==
		    shape_number(shape_item(row->stat, "threads", index), "tid"))
			return 1;
	}
	return 0;
}

static void metrics_print_threads(const struct metrics_family *family, const struct metrics_row *row)
{
	for (size_t i = 0; i < shape_length(row->stat, "threads") && i < METRICS_THREADS; i++) {
		struct json_object *thread = shape_item(row->stat, "threads", i);
		char tid[24];

		if (metrics_is_again(row, i))
			continue;
		(void)snprintf(tid, sizeof(tid), "%llu", (unsigned long long)shape_number(thread, "tid"));
		metrics_begin(family->name, "", row);
		metrics_add_label("tid", tid);
		metrics_end(shape_number(thread, "faults"));
	}
}

/* --------------------------------------------------------------------------------------------------- histograms -- */

/* How many took at most so long; all, where the bound is UINT64_MAX. */
static uint64_t metrics_count_up_to(struct json_object *buckets, uint64_t bound_ns)
{
	uint64_t sum = 0;

	for (size_t i = 0; i < json_object_array_length(buckets); i++) {
		struct json_object *bucket = json_object_array_get_idx(buckets, i);
		uint64_t count = shape_at(bucket, 1);

		if (shape_at(bucket, 0) <= bound_ns)
			sum = count > INT64_MAX - sum ? INT64_MAX : sum + count;
	}
	return sum;
}

static void metrics_begin_histogram(const struct metrics_family *family, const struct metrics_row *row,
                                    const char *suffix, const char *delivery)
{
	metrics_begin(family->name, suffix, row);
	metrics_add_label("delivery", delivery);
}

static void metrics_print_histogram(const struct metrics_family *family, const struct metrics_row *row,
                                    const char *delivery)
{
	struct json_object *histogram = shape_object(shape_object(row->stat, family->object), delivery);
	struct json_object *buckets = shape_object(histogram, "buckets");
	uint64_t all = buckets ? metrics_count_up_to(buckets, UINT64_MAX) : 0;

	if (!histogram)
		return;
	for (unsigned shift = METRICS_LEAST_SHIFT; shift <= METRICS_MOST_SHIFT; shift++) {
		uint64_t bound_ns = 1ull << shift;
		char bound[LIVE_WORD];

		(void)snprintf(bound, sizeof(bound), "%llu.%09llu", (unsigned long long)(bound_ns / 1000000000u),
		               (unsigned long long)(bound_ns % 1000000000u));
		metrics_begin_histogram(family, row, "_bucket", delivery);
		metrics_add_label("le", bound);
		metrics_end(metrics_count_up_to(buckets, bound_ns));
	}
	metrics_begin_histogram(family, row, "_bucket", delivery);
	metrics_add_label("le", "+Inf");
	metrics_end(all);
	metrics_begin_histogram(family, row, "_sum", delivery);
	metrics_end_seconds(shape_number(histogram, "sum_ns"));
	metrics_begin_histogram(family, row, "_count", delivery);
	metrics_end(all);
}

static void metrics_print_latency(const struct metrics_family *family, const struct metrics_row *row)
{
	metrics_print_histogram(family, row, "thread");
	metrics_print_histogram(family, row, "inline");
}

/* ------------------------------------------------------------------------------------------------------ families -- */

static const struct metrics_family metrics_families[] = {
        {"uffdwp_region_info", "gauge", "What a region is; always 1", metrics_print_info, NULL, NULL},
        {"uffdwp_region_length_bytes", "gauge", "Memory of the region", metrics_print_list, NULL, "length"},
        {"uffdwp_region_page_bytes", "gauge", "The size of its pages", metrics_print_list, NULL, "page"},
        {"uffdwp_region_armed_pages", "gauge", "Pages that are protected", metrics_print_number, NULL, "armed_pages"},
        {"uffdwp_region_dirty_pages", "gauge", "Pages written since the last snapshot that was kept",
         metrics_print_number, NULL, "dirty_pages"},
        {"uffdwp_faults_total", "counter", "Write faults resolved", metrics_print_number, NULL, "faults"},
        {"uffdwp_faults_repeated_total", "counter", "Write faults of pages that were no longer armed",
         metrics_print_number, NULL, "faults_repeated"},
        {"uffdwp_pages_disarmed_total", "counter", "Pages unprotected by faults", metrics_print_number, NULL,
         "pages_disarmed"},
        {"uffdwp_pages_lost_total", "counter", "Armed pages found without protection, by cause", metrics_print_losses,
         NULL, "lost_by"},
        {"uffdwp_pages_rearmed_total", "counter", "Lost pages that were armed again", metrics_print_number, NULL,
         "pages_rearmed"},
        {"uffdwp_pages_filled_total", "counter", "Empty page-table entries filled", metrics_print_number, NULL,
         "pages_filled"},
        {"uffdwp_events_total", "counter", "Events of the kernel: memory discarded, moved, unmapped",
         metrics_print_events, NULL, NULL},
        {"uffdwp_snapshots_total", "counter", "Snapshots begun", metrics_print_number, NULL, "snapshots"},
        {"uffdwp_thread_faults_total", "counter", "Faults by the thread that resolved them; tid 0: writers themselves",
         metrics_print_threads, NULL, NULL},
        {"uffdwp_fault_latency_seconds", "histogram", "From when the library got a fault until the writer went on",
         metrics_print_latency, "latency", NULL},
        {"uffdwp_pool_bytes", "gauge", "Bound on memory for pre-images", metrics_print_number, "pool", "bytes"},
        {"uffdwp_pool_used_bytes", "gauge", "Memory that pre-images take", metrics_print_number, "pool", "used_bytes"},
        {"uffdwp_pool_peak_bytes", "gauge", "Most memory that pre-images took", metrics_print_number, "pool",
         "peak_bytes"},
        {"uffdwp_snapshot_running", "gauge", "1 while a snapshot of the region runs", metrics_print_running, "snapshot",
         NULL},
        {"uffdwp_snapshot_pages", "gauge", "Pages to be saved, holes included", metrics_print_number, "snapshot",
         "pages_total"},
        {"uffdwp_snapshot_saved_pages", "gauge", "Pages saved, holes included", metrics_print_saved, "snapshot", NULL},
        {"uffdwp_snapshot_written_bytes", "gauge", "Bytes that the sink has taken", metrics_print_number, "snapshot",
         "bytes_written"},
        {"uffdwp_snapshot_pause_seconds", "gauge", "How long writers paused", metrics_print_seconds, "snapshot",
         "pause_ns"},
        {"uffdwp_snapshot_elapsed_seconds", "gauge", "How long it takes since its begin", metrics_print_seconds,
         "snapshot", "elapsed_ns"},
        {"uffdwp_restore_running", "gauge", "1 while a restore of the region runs", metrics_print_running, "restore",
         NULL},
        {"uffdwp_restore_pages", "gauge", "Pages to be restored", metrics_print_number, "restore", "pages_total"},
        {"uffdwp_restore_done_pages", "gauge", "Pages that are there", metrics_print_number, "restore", "pages_done"},
        {"uffdwp_restore_failed_pages", "gauge", "Pages that could not be restored", metrics_print_number, "restore",
         "pages_failed"},
};
#define METRICS_FAMILIES (sizeof(metrics_families) / sizeof(metrics_families[0]))

static void metrics_print_family(const struct metrics_family *family, const struct metrics *metrics)
{
	(void)printf("# HELP %s %s\n# TYPE %s %s\n", family->name, family->help, family->name, family->type);
	for (size_t i = 0; i < metrics->count; i++) {
		const struct metrics_process *process = &metrics->processes[i];

		for (size_t at = 0; at < shape_length(process->state.stat, "regions"); at++) {
			struct json_object *stat = shape_item(process->state.stat, "regions", at);
			struct metrics_row row = {.peer = process->peer,
			                          .stat = stat,
			                          .list = live_list_row(&process->state, shape_number(stat, "region"))};

			family->print(family, &row);
		}
	}
}

static void metrics_print_processes(const struct metrics *metrics)
{
	(void)printf("# HELP uffdwp_processes Processes with a control socket\n# TYPE uffdwp_processes gauge\n"
	             "uffdwp_processes %zu\n"
	             "# HELP uffdwp_up 1 where the process answers\n# TYPE uffdwp_up gauge\n",
	             metrics->count);
	for (size_t i = 0; i < metrics->count; i++) {
		(void)printf("uffdwp_up{pid=\"%lld\",program=\"", (long long)metrics->processes[i].peer->pid);
		metrics_print_label(metrics->processes[i].peer->program);
		(void)printf("\"} %d\n", metrics->processes[i].state.stat != NULL);
	}
}

/* --------------------------------------------------------------------------------------------------- the whole -- */

static enum live_end metrics_ask_all(const struct live_command *command, struct live_peers *peers,
                                     struct metrics *metrics)
{
	enum live_end worst = LIVE_DONE;

	for (size_t i = 0; i < peers->count; i++) {
		struct metrics_process *process = &metrics->processes[metrics->count++];

		process->peer = &peers->peers[i];
		if (peers->peers[i].fd < 0 || live_look(command, &peers->peers[i], &process->state) != LIVE_DONE)
			worst = live_worse(worst, live_weigh(&peers->peers[i], live_fail(command, &peers->peers[i])));
		live_disconnect(&peers->peers[i]);
	}
	return worst;
}

static enum live_end metrics_run(const struct live_command *command, struct live_peers *peers)
{
	struct metrics metrics = {.processes = calloc(peers->count + 1, sizeof(*metrics.processes))};
	enum live_end end;

	if (!metrics.processes) {
		live_complain(command->name, "no memory");
		return LIVE_BROKEN;
	}
	end = metrics_ask_all(command, peers, &metrics);
	metrics_print_processes(&metrics);
	for (size_t i = 0; i < METRICS_FAMILIES; i++)
		metrics_print_family(&metrics_families[i], &metrics);
	for (size_t i = 0; i < metrics.count; i++)
		live_state_free(&metrics.processes[i].state);
	free(metrics.processes);
	return end;
}

static error_t metrics_parse(int key, char *argument, struct argp_state *state)
{
	(void)argument;
	if (key != ARGP_KEY_INIT)
		return ARGP_ERR_UNKNOWN;
	live_parse_init(state);
	return 0;
}

static const char metrics_doc[] =
        "Prints the figures of a process, or of all, in the text format that Prometheus scrapes (exposition format "
        "0.0.4)."
        "\v"
        "For the textfile collector of node_exporter: write to a file of another name first, and rename it. A process "
        "that does not answer has uffdwp_up 0, and is named on standard error.\n"
        "\n"
        "Exit codes:\n"
        "  0  done, also where there is no process\n"
        "  1  a process refused it\n"
        "  2  the command line was not understood\n"
        "  3  PID: no such process or socket, or no right to it\n"
        "  4  a process (of all: one of this user's) answers nothing or nonsense;\n"
        "     output not writable\n"
        "\n"
        "Example:\n"
        "  uffdwp-ctl metrics >uffdwp.tmp; mv uffdwp.tmp textfiles/uffdwp.prom\n";

int run_metrics(int argc, char **argv)
{
	static const struct argp argp = {NULL, metrics_parse, "[PID]", metrics_doc, live_children, NULL, NULL};
	struct live_command command = {.name = "metrics", .takes = LIVE_TAKES_PID, .region = -1};
	struct live_peers peers = {0};
	enum live_end end = LIVE_DONE;

	if (argp_parse(&argp, argc, argv, 0, NULL, &command) != 0)
		return LIVE_USAGE;
	if (command.pid || command.socket)
		end = live_meet(&command, &peers);
	else if (live_find(&peers, 0, NULL))
		end = LIVE_BROKEN;
	else
		live_find_say_strays("metrics", &peers);
	if (!end)
		end = metrics_run(&command, &peers);
	live_peers_free(&peers);
	return (int)end;
}
