/* SPDX-License-Identifier: MIT */
/* The record for programs. Names are stable: they are only ever added, and README.md beside this file lists them. */
#include <inttypes.h>
#include <json-c/json.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "report.h"
#include "uffdwp.h"

#define AREAS_TOLD 4096

/* json-c answers NULL when there is no memory; such a member reads as null. */
static void add(struct json_object *object, const char *name, struct json_object *value)
{
	(void)json_object_object_add(object, name, value);
}

static void add_bytes(struct json_object *object, const char *name, uint64_t value)
{
	add(object, name, json_object_new_uint64(value));
}

static void add_number(struct json_object *object, const char *name, double value)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "%.6g", value);
	add(object, name, json_object_new_double_s(value, text));
}

static void add_text(struct json_object *object, const char *name, const char *value)
{
	add(object, name, json_object_new_string(value));
}

static void add_address(struct json_object *object, const char *name, uint64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "0x%" PRIx64, value);
	add_text(object, name, text);
}

static struct json_object *command_array(const struct report *report)
{
	struct json_object *array = json_object_new_array();

	for (char *const *word = report->argv; *word; word++)
		(void)json_object_array_add(array, json_object_new_string(*word));
	return array;
}

static struct json_object *ended_object(const struct report *report)
{
	struct json_object *object = json_object_new_object();
	int signaled = WIFSIGNALED(report->status);

	add(object, "exit_status", signaled ? NULL : json_object_new_int(WEXITSTATUS(report->status)));
	add(object, "signal", signaled ? json_object_new_int(WTERMSIG(report->status)) : NULL);
	return object;
}

static struct json_object *rate_object(const struct report *report)
{
	struct json_object *object = json_object_new_object();
	double seconds = report_seconds(report);

	add_number(object, "mean_bytes_per_s", seconds > 0 ? (double)report->record->written_bytes / seconds : 0);
	add_number(object, "peak_bytes_per_s", report->record->peak_rate);
	add_number(object, "peak_at_s", report->record->peak_s);
	return object;
}

static struct json_object *collecting_object(const struct report *report)
{
	const struct record *record = report->record;
	struct json_object *object = json_object_new_object();
	double total = (double)record->collect_ns / 1e9;

	add_bytes(object, "collects", record->collects);
	add_number(object, "total_s", total);
	add_number(object, "mean_s", record->collects ? total / (double)record->collects : 0);
	add_number(object, "max_s", (double)record->collect_max_ns / 1e9);
	add_bytes(object, "program_faults", report->faults);
	return object;
}

static struct json_object *window_object(const struct window *window)
{
	struct json_object *object = json_object_new_object();
	double count = (double)window->count;

	add_number(object, "every_s", window->seconds);
	add_bytes(object, "count", window->count);
	add(object, "mean_bytes", window->count ? json_object_new_double((double)window->sum_bytes / count) : NULL);
	add(object, "max_bytes", window->count ? json_object_new_uint64(window->max_bytes) : NULL);
	add(object, "mean_s", window->count ? json_object_new_double(window->sum_s / count) : NULL);
	add_bytes(object, "open_bytes", window->open_bytes);
	add_number(object, "open_s", window->open_s);
	return object;
}

static struct json_object *windows_array(const struct record *record)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < PAGES_WINDOWS; i++) {
		if (i == 0 || record->windows[i].seconds > record->interval_s * 1.5)
			(void)json_object_array_add(array, window_object(&record->windows[i]));
	}
	return array;
}

static struct json_object *mappings_array(const struct record *record)
{
	struct json_object *array = json_object_new_array();
	size_t count;
	struct group *groups = report_groups(record, &count);

	for (size_t i = 0; groups && i < count; i++) {
		struct json_object *object = json_object_new_object();

		add_text(object, "name", groups[i].name);
		add_text(object, "kind", area_kind_name(groups[i].kind));
		add_bytes(object, "areas", groups[i].areas);
		add_bytes(object, "written_bytes", groups[i].written_bytes);
		add_bytes(object, "unique_bytes", groups[i].unique_bytes);
		add_bytes(object, "populated_bytes", groups[i].populated_bytes);
		add_bytes(object, "peak_bytes", groups[i].peak_bytes);
		(void)json_object_array_add(array, object);
	}
	free(groups);
	return array;
}

static struct json_object *area_object(const struct area *area)
{
	struct json_object *object = json_object_new_object();

	add_text(object, "name", area->name);
	add_text(object, "kind", area_kind_name(area->kind));
	add_address(object, "start", area->start);
	add_address(object, "end", area->end);
	add_bytes(object, "written_bytes", area->written_bytes);
	add_bytes(object, "unique_bytes", area->unique_bytes);
	add_bytes(object, "populated_bytes", area->populated_bytes);
	add_bytes(object, "peak_bytes", area->peak_bytes);
	add_number(object, "first_s", area->first_s);
	add_number(object, "last_s", area->last_s);
	return object;
}

/* The first ones, and all of them in mappings[]. */
static struct json_object *areas_array(const struct record *record)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; i < record->area_count && i < AREAS_TOLD; i++)
		(void)json_object_array_add(array, area_object(&record->areas[i]));
	return array;
}

static struct json_object *hottest_array(const struct record *record)
{
	struct json_object *array = json_object_new_array();
	struct hot_range hottest[REPORT_HOT * 5];
	size_t count = pages_hottest(&record->pages, hottest, REPORT_HOT * 5);

	for (size_t i = 0; i < count; i++) {
		struct json_object *object = json_object_new_object();
		uint64_t start = hottest[i].first * record->page_bytes;
		const struct area *area = record_area_of(record, start);

		add_address(object, "start", start);
		add_address(object, "end", start + hottest[i].count * record->page_bytes);
		add(object, "name", area ? json_object_new_string(area->name) : NULL);
		add_bytes(object, "written_bytes", hottest[i].hits * record->page_bytes);
		add_number(object, "share_of_collects",
		           (double)hottest[i].hits / (double)hottest[i].count / (double)record->collects);
		(void)json_object_array_add(array, object);
	}
	return array;
}

static struct json_object *timeline_array(const struct record *record)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; i < record->moment_count; i++) {
		const struct moment *moment = &record->moments[i];
		struct json_object *object = json_object_new_object();

		add_number(object, "at_s", moment->at_s);
		add_number(object, "length_s", moment->length_s);
		add_bytes(object, "written_bytes", moment->written_bytes);
		add_bytes(object, "populated_bytes", moment->populated_bytes);
		(void)json_object_array_add(array, object);
	}
	return array;
}

static struct json_object *notes_array(const struct report *report)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < report->note_count; i++)
		(void)json_object_array_add(array, json_object_new_string(report->notes[i]));
	return array;
}

static void add_head(struct json_object *root, const struct report *report)
{
	struct utsname system;

	add_text(root, "version", uffdwp_version());
	add_text(root, "kernel", uname(&system) == 0 ? system.release : "unknown");
	add(root, "command", command_array(report));
	add_bytes(root, "pid", (uint64_t)report->pid);
	add(root, "ended", ended_object(report));
	add_number(root, "run_s", report->run_s);
	add(root, "tracked", json_object_new_boolean(report->tracked));
	add(root, "complete", json_object_new_boolean(report->complete));
	add_bytes(root, "programs", report->record->programs);
	add_bytes(root, "page_bytes", report->record->page_bytes);
	add_number(root, "interval_s", report->record->interval_s);
	add_number(root, "measured_s", report_seconds(report));
}

static struct json_object *root_object(const struct report *report)
{
	const struct record *record = report->record;
	struct json_object *root = json_object_new_object();

	add_head(root, report);
	add_bytes(root, "written_bytes", record->written_bytes);
	add_bytes(root, "unique_bytes", record->pages.unique * record->page_bytes);
	add_bytes(root, "huge_page_bytes", record->huge_bytes);
	add_bytes(root, "start_bytes", record->start_bytes);
	add_bytes(root, "populated_bytes", record->populated_bytes);
	add_bytes(root, "populated_max_bytes", record->populated_max_bytes);
	add_bytes(root, "refused_bytes", record->refused_bytes);
	add(root, "rate", rate_object(report));
	add(root, "collecting", collecting_object(report));
	add(root, "increments", windows_array(record));
	add(root, "mappings", mappings_array(record));
	add(root, "areas", areas_array(record));
	add(root, "hottest", hottest_array(record));
	add(root, "timeline", timeline_array(record));
	add(root, "notes", notes_array(report));
	return root;
}

int report_json(const struct report *report, FILE *out)
{
	struct json_object *root = root_object(report);
	const char *text =
	        json_object_to_json_string_ext(root, JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE);

	if (text)
		(void)fprintf(out, "%s\n", text);
	json_object_put(root);
	return text ? 0 : -1;
}
