/* SPDX-License-Identifier: MIT */
/*
 * uffdwp-ctl list: a table of all processes that can be asked, and of their regions. A process that does not answer, or
 * answers nonsense, is named on standard error, and the others are listed.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "live.h"
#include "live_report.h"
#include "live_say.h"

#define LIST_COLUMNS 8

struct list_command {
	struct live_command live;
	int targets;
};

struct list_row {
	char cells[LIST_COLUMNS][160];
};

struct list_table {
	struct list_row *rows;
	size_t count;
	size_t room;
	int failed; /* no memory */
};

/* ------------------------------------------------------------------------------------------------------- rows -- */

static struct list_row *list_add(struct list_table *table)
{
	if (table->count == table->room) {
		size_t room = table->room ? 2 * table->room : 64;
		struct list_row *more = realloc(table->rows, room * sizeof(*more));

		if (!more) {
			table->failed = 1;
			return NULL;
		}
		table->rows = more;
		table->room = room;
	}
	memset(&table->rows[table->count], 0, sizeof(struct list_row));
	return &table->rows[table->count++];
}

__attribute__((format(printf, 2, 3))) static void list_append(char *cell, const char *format, ...)
{
	size_t used = strlen(cell);
	va_list arguments;

	va_start(arguments, format);
	(void)vsnprintf(cell + used, sizeof(((struct list_row *)NULL)->cells[0]) - used, format, arguments);
	va_end(arguments);
}

static void list_append_count(char *cell, struct json_object *region, const char *key, const char *one)
{
	uint64_t count = shape_number(region, key);

	if (count)
		list_append(cell, ", %llu %s%s", (unsigned long long)count, one, count > 1 ? "s" : "");
}

static void list_append_pids(char *cell, struct json_object *region, const char *key, const char *what)
{
	size_t count = shape_length(region, key);

	if (count == 1)
		list_append(cell, ", %s %llu", what, (unsigned long long)shape_at(shape_object(region, key), 0));
	else if (count)
		list_append(cell, ", %s of %zu", what, count);
}

/* What runs, and why it is dead. */
static void list_state(struct json_object *region, char *cell)
{
	list_append(cell, "%s", shape_text(region, "state"));
	if (shape_has(region, "dead"))
		list_append(cell, ": %s", shape_text(region, "dead"));
	if (shape_flag(region, "snapshot"))
		list_append(cell, ", snapshot");
	if (shape_flag(region, "restore"))
		list_append(cell, ", restore");
	list_append_count(cell, region, "tracks", "track");
	list_append_count(cell, region, "views", "view");
	list_append_pids(cell, region, "children", "child");
	list_append_pids(cell, region, "mappers", "memory");
}

static void list_fill(struct list_row *row, const struct live_peer *peer, struct json_object *region)
{
	char word[LIVE_WORD];

	(void)snprintf(row->cells[0], sizeof(row->cells[0]), "%lld", (long long)peer->pid);
	(void)snprintf(row->cells[1], sizeof(row->cells[1]), "%s", peer->program);
	for (int i = 2; i < LIST_COLUMNS; i++)
		(void)snprintf(row->cells[i], sizeof(row->cells[i]), "-");
	if (!region)
		return;
	(void)snprintf(row->cells[2], sizeof(row->cells[2]), "%llu",
	               (unsigned long long)shape_number(region, "region"));
	(void)snprintf(row->cells[3], sizeof(row->cells[3]), "%s", shape_text(region, "memory"));
	(void)snprintf(row->cells[4], sizeof(row->cells[4]), "%s", shape_text(region, "mechanism"));
	(void)snprintf(row->cells[5], sizeof(row->cells[5]), "%s", shape_text(region, "delivery"));
	(void)snprintf(row->cells[6], sizeof(row->cells[6]), "%s",
	               live_say_bytes(word, shape_number(region, "length")));
	row->cells[7][0] = '\0';
	list_state(region, row->cells[7]);
}

static void list_add_process(struct list_table *table, const struct live_peer *peer, struct json_object *list)
{
	size_t regions = shape_length(list, "regions");

	for (size_t i = 0; i < (regions ? regions : 1); i++) {
		struct list_row *row = list_add(table);

		if (row)
			list_fill(row, peer, regions ? shape_item(list, "regions", i) : NULL);
	}
}

/* ---------------------------------------------------------------------------------------------------- printing -- */

/* Characters, not bytes: the texts are UTF-8. */
static size_t list_width(const char *text)
{
	size_t width = 0;

	for (; *text; text++)
		width += ((unsigned char)*text >> 6) != 2;
	return width;
}

static void list_print_cell(const char *cell, size_t width, int right)
{
	int fill = (int)(width - list_width(cell));

	if (right)
		(void)printf("%*s%s  ", fill, "", cell);
	else
		(void)printf("%s%*s  ", cell, fill, "");
}

static void list_print_row(const struct list_row *row, const size_t *widths)
{
	for (int i = 0; i < LIST_COLUMNS - 1; i++)
		list_print_cell(row->cells[i], widths[i], i == 0 || i == 2 || i == 6);
	(void)puts(row->cells[LIST_COLUMNS - 1]);
}

static void list_print_table(const struct list_table *table)
{
	static const struct list_row head = {
	        {"PID", "PROGRAM", "REGION", "MEMORY", "MECHANISM", "DELIVERY", "LENGTH", "STATE"}};
	size_t widths[LIST_COLUMNS] = {0};

	for (int i = 0; i < LIST_COLUMNS; i++) {
		widths[i] = list_width(head.cells[i]);
		for (size_t row = 0; row < table->count; row++) {
			size_t width = list_width(table->rows[row].cells[i]);

			widths[i] = width > widths[i] ? width : widths[i];
		}
	}
	list_print_row(&head, widths);
	for (size_t row = 0; row < table->count; row++)
		list_print_row(&table->rows[row], widths);
}

/* For completion and scripts. */
static void list_print_targets(const struct list_table *table)
{
	for (size_t i = 0; i < table->count; i++) {
		const char *region = table->rows[i].cells[2];

		(void)printf("%s%s%s\n", table->rows[i].cells[0], *region == '-' ? "" : ":",
		             *region == '-' ? "" : region);
	}
}

/* --------------------------------------------------------------------------------------------------- the whole -- */

static enum live_end list_ask_all(const struct list_command *command, struct live_peers *peers,
                                  struct list_table *table, struct live_report *report)
{
	enum live_end worst = LIVE_DONE;

	for (size_t i = 0; i < peers->count; i++) {
		struct live_peer *peer = &peers->peers[i];
		struct json_object *list = NULL;
		enum live_end end = peer->end;

		if (peer->fd >= 0)
			end = live_ask(peer, live_request("list"), LIVE_LIMIT_MS, answer_list, &list);
		if (end) {
			worst = live_worse(worst, live_weigh(peer, live_fail(&command->live, peer)));
			live_report_fail(report, peer);
			continue;
		}
		(void)snprintf(peer->program, sizeof(peer->program), "%s", shape_text(list, "program"));
		list_add_process(table, peer, list);
		live_report_add(report, peer, list);
		live_disconnect(peer);
	}
	return worst;
}

static enum live_end list_print(const struct list_command *command, const struct list_table *table,
                                const struct live_report *report)
{
	if (table->failed)
		return LIVE_BROKEN;
	if (command->live.json)
		return live_report_print(report) ? LIVE_BROKEN : LIVE_DONE;
	if (command->targets)
		list_print_targets(table);
	else if (table->count)
		list_print_table(table);
	else if (json_object_array_length(report->failed) == 0)
		(void)puts("No process has a control socket. One gets it by UFFDWP_CONTROL=1 in its environment, or by "
		           "UFFDWP_OPEN_CONTROL when it opens its runtime.");
	return LIVE_DONE;
}

static enum live_end list_run(const struct list_command *command, struct live_peers *peers)
{
	struct list_table table = {0};
	struct live_report report;
	enum live_end end;

	live_report_init(&report);
	end = list_ask_all(command, peers, &table, &report);
	end = live_worse(end, list_print(command, &table, &report));
	free(table.rows);
	live_report_fini(&report);
	return end;
}

/* ------------------------------------------------------------------------------------------------ command line -- */

static const struct argp_option list_options[] = {
        {"targets", 't', NULL, 0, "Only PID:REGION, one a line, as the other commands take it", 0},
        {0},
};

static error_t list_parse(int key, char *argument, struct argp_state *state)
{
	struct list_command *command = state->input;

	(void)argument;
	switch (key) {
	case ARGP_KEY_INIT:
		live_parse_init(state);
		return 0;
	case 't':
		command->targets = 1;
		return 0;
	default:
		return ARGP_ERR_UNKNOWN;
	}
}

static const char list_doc[] =
        "Lists the processes that can be asked by control socket, and their regions: this user's, and for root those "
        "of "
        "all users. A process gets such a socket by UFFDWP_CONTROL=1 in its environment, or by UFFDWP_OPEN_CONTROL "
        "when it opens its runtime."
        "\v"
        "STATE is what runs in the region: a snapshot that is not freed, a restore, tracks, views, the children of "
        "uffdwp_fork(), and the processes whose memory it is where it was adopted. The socket of a process that is "
        "gone "
        "is removed. A process that does not answer within 5 s, is stopped, or answers nonsense, is named on standard "
        "error, as is a file that is not the socket that its name says, and "
        "the others are listed.\n"
        "\n"
        "Exit codes:\n"
        "  0  all were listed, or there is none\n"
        "  2  the command line was not understood\n"
        "  3  there is no such socket (--socket), or it is another user's\n"
        "  4  a process of this user's answers nothing or nonsense; output not\n"
        "     writable. What is wrong with those of other users is only named\n"
        "\n"
        "Examples:\n"
        "  uffdwp-ctl list\n"
        "  uffdwp-ctl list --json | jq -r '.processes[] | .pid'\n"
        "  UFFDWP_CONTROL=1 ./bank & uffdwp-ctl list\n";

int run_list(int argc, char **argv)
{
	static const struct argp argp = {list_options, list_parse, NULL, list_doc, live_children_json, NULL, NULL};
	struct list_command command = {.live = {.name = "list", .takes = LIVE_TAKES_NONE, .region = -1}};
	struct live_peers peers = {0};
	enum live_end end;

	if (argp_parse(&argp, argc, argv, 0, NULL, &command) != 0)
		return LIVE_USAGE;
	if (live_find(&peers, 0, command.live.socket)) {
		live_complain("list", "no memory");
		end = LIVE_BROKEN;
	} else {
		live_find_say_strays("list", &peers);
		end = list_run(&command, &peers);
	}
	live_peers_free(&peers);
	return (int)end;
}
