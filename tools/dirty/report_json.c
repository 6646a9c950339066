/* SPDX-License-Identifier: MIT */
/* The record for programs. Names are stable: they are only ever added, and README.md beside this file lists them. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "json_add.h"
#include "report.h"
#include "uffdwp.h"

#define AREAS_REPORTED 4096

static void report_json_add_number(struct json_object *object, const char *name, double value)
{
	char text[32];

	(void)snprintf(text, sizeof(text), "%.6g", value);
	json_add(object, name, json_object_new_double_s(value, text));
}

static void report_json_add_address(struct json_object *object, const char *name, uint64_t value)
{
	char text[24];

	(void)snprintf(text, sizeof(text), "0x%" PRIx64, value);
	json_add_text(object, name, text);
}

static struct json_object *report_json_command_array(const struct report *report)
{
	struct json_object *array = json_object_new_array();

	for (char *const *word = report->argv; *word; word++)
		(void)json_object_array_add(array, json_text(*word));
	return array;
}

static struct json_object *report_json_ended_object(const struct report *report)
{
	struct json_object *object = json_object_new_object();
	int signaled = WIFSIGNALED(report->status);

	json_add(object, "exit_status", signaled ? NULL : json_object_new_int(WEXITSTATUS(report->status)));
	json_add(object, "signal", signaled ? json_object_new_int(WTERMSIG(report->status)) : NULL);
	return object;
}

static struct json_object *report_json_rate_object(const struct report *report)
{
	struct json_object *object = json_object_new_object();
	double seconds = report_seconds(report);
	double at_s;
	double peak = report_peak_rate(report, &at_s);

	report_json_add_number(object, "mean_bytes_per_s",
	                       seconds > 0 ? (double)report->record->written_bytes / seconds : 0);
	report_json_add_number(object, "peak_bytes_per_s", peak);
	report_json_add_number(object, "peak_at_s", at_s);
	return object;
}

static struct json_object *report_json_collecting_object(const struct report *report)
{
	const struct record *record = report->record;
	struct json_object *object = json_object_new_object();
	double total = (double)record->collect_ns / 1e9;

	json_add_bytes(object, "collects", record->collects);
	report_json_add_number(object, "total_s", total);
	report_json_add_number(object, "mean_s", record->collects ? total / (double)record->collects : 0);
	report_json_add_number(object, "max_s", (double)record->collect_max_ns / 1e9);
	json_add_bytes(object, "program_faults", report->faults);
	return object;
}

static struct json_object *report_json_window_object(const struct window *window)
{
	struct json_object *object = json_object_new_object();
	double count = (double)window->count;

	report_json_add_number(object, "every_s", window->seconds);
	json_add_bytes(object, "count", window->count);
	json_add(object, "mean_bytes",
	         window->count ? json_object_new_double((double)window->sum_bytes / count) : NULL);
	json_add(object, "max_bytes", window->count ? json_object_new_uint64(window->max_bytes) : NULL);
	json_add(object, "mean_s", window->count ? json_object_new_double(window->sum_s / count) : NULL);
	json_add_bytes(object, "open_bytes", window->open_bytes);
	report_json_add_number(object, "open_s", window->open_s);
	return object;
}

static struct json_object *report_json_windows_array(const struct record *record)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < PAGES_WINDOWS; i++) {
		if (i == 0 || record->windows[i].seconds > record->interval_s * 1.5)
			(void)json_object_array_add(array, report_json_window_object(&record->windows[i]));
	}
	return array;
}

static struct json_object *report_json_mappings_array(const struct record *record)
{
	struct json_object *array = json_object_new_array();
	size_t count;
	struct group *groups = report_groups(record, &count);

	for (size_t i = 0; groups && i < count; i++) {
		struct json_object *object = json_object_new_object();

		json_add_text(object, "name", groups[i].name);
		json_add_text(object, "kind", area_kind_name(groups[i].kind));
		json_add_bytes(object, "areas", groups[i].areas);
		json_add_bytes(object, "written_bytes", groups[i].written_bytes);
		json_add_bytes(object, "unique_bytes", groups[i].unique_bytes);
		json_add_bytes(object, "populated_bytes", groups[i].populated_bytes);
		json_add_bytes(object, "peak_bytes", groups[i].peak_bytes);
		(void)json_object_array_add(array, object);
	}
	free(groups);
	return array;
}

static struct json_object *report_json_area_object(const struct area *area)
{
	struct json_object *object = json_object_new_object();

	json_add_text(object, "name", area->name);
	json_add_text(object, "kind", area_kind_name(area->kind));
	report_json_add_address(object, "start", area->start);
	report_json_add_address(object, "end", area->end);
	json_add_bytes(object, "written_bytes", area->written_bytes);
	json_add_bytes(object, "unique_bytes", area->unique_bytes);
	json_add_bytes(object, "populated_bytes", area->populated_bytes);
	json_add_bytes(object, "peak_bytes", area->peak_bytes);
	report_json_add_number(object, "first_s", area->first_s);
	report_json_add_number(object, "last_s", area->last_s);
	return object;
}

/* The first ones, and all of them in mappings[]. */
static struct json_object *report_json_areas_array(const struct record *record)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; i < record->area_count && i < AREAS_REPORTED; i++)
		(void)json_object_array_add(array, report_json_area_object(&record->areas[i]));
	return array;
}

static struct json_object *report_json_hottest_array(const struct record *record)
{
	struct json_object *array = json_object_new_array();
	struct hot_range hottest[REPORT_HOT * 5];
	size_t count = pages_hottest(&record->pages, hottest, REPORT_HOT * 5);

	for (size_t i = 0; i < count; i++) {
		struct json_object *object = json_object_new_object();
		uint64_t start = hottest[i].first * record->page_bytes;
		const struct area *area = record_area_of(record, start);

		report_json_add_address(object, "start", start);
		report_json_add_address(object, "end", start + hottest[i].count * record->page_bytes);
		json_add(object, "name", area ? json_text(area->name) : NULL);
		json_add_bytes(object, "written_bytes", hottest[i].hits * record->page_bytes);
		report_json_add_number(object, "share_of_collects",
		                       (double)hottest[i].hits / (double)hottest[i].count / (double)record->collects);
		(void)json_object_array_add(array, object);
	}
	return array;
}

static struct json_object *report_json_timeline_array(const struct record *record)
{
	struct json_object *array = json_object_new_array();

	for (size_t i = 0; i < record->moment_count; i++) {
		const struct moment *moment = &record->moments[i];
		struct json_object *object = json_object_new_object();

		report_json_add_number(object, "at_s", moment->at_s);
		report_json_add_number(object, "length_s", moment->length_s);
		json_add_bytes(object, "written_bytes", moment->written_bytes);
		json_add_bytes(object, "populated_bytes", moment->populated_bytes);
		(void)json_object_array_add(array, object);
	}
	return array;
}

static struct json_object *report_json_notes_array(const struct report *report)
{
	struct json_object *array = json_object_new_array();

	for (unsigned i = 0; i < report->note_count; i++)
		(void)json_object_array_add(array, json_text(report->notes[i]));
	return array;
}

static void report_json_add_head(struct json_object *root, const struct report *report)
{
	struct utsname system;

	json_add_text(root, "version", uffdwp_version());
	json_add_text(root, "kernel", uname(&system) == 0 ? system.release : "unknown");
	json_add(root, "command", report_json_command_array(report));
	json_add_bytes(root, "pid", (uint64_t)report->pid);
	json_add(root, "ended", report_json_ended_object(report));
	report_json_add_number(root, "run_s", report->run_s);
	json_add(root, "tracked", json_object_new_boolean(report->tracked));
	json_add(root, "complete", json_object_new_boolean(report->complete));
	json_add_bytes(root, "programs", report->record->programs);
	json_add_bytes(root, "page_bytes", report->record->page_bytes);
	report_json_add_number(root, "interval_s", report->record->interval_s);
	report_json_add_number(root, "measured_s", report_seconds(report));
}

static struct json_object *report_json_root_object(const struct report *report)
{
	const struct record *record = report->record;
	struct json_object *root = json_object_new_object();

	report_json_add_head(root, report);
	json_add_bytes(root, "written_bytes", record->written_bytes);
	json_add_bytes(root, "unique_bytes", record->pages.unique * record->page_bytes);
	json_add_bytes(root, "huge_page_bytes", record->huge_bytes);
	json_add_bytes(root, "start_bytes", record->start_bytes);
	json_add_bytes(root, "populated_bytes", record->populated_bytes);
	json_add_bytes(root, "populated_max_bytes", record->populated_max_bytes);
	json_add_bytes(root, "refused_bytes", record->refused_bytes);
	json_add(root, "rate", report_json_rate_object(report));
	json_add(root, "collecting", report_json_collecting_object(report));
	json_add(root, "increments", report_json_windows_array(record));
	json_add(root, "mappings", report_json_mappings_array(record));
	json_add(root, "areas", report_json_areas_array(record));
	json_add(root, "hottest", report_json_hottest_array(record));
	json_add(root, "timeline", report_json_timeline_array(record));
	json_add(root, "notes", report_json_notes_array(report));
	return root;
}

int report_json(const struct report *report, FILE *out)
{
	return json_write(report_json_root_object(report), JSON_C_TO_STRING_PRETTY | JSON_C_TO_STRING_NOSLASHESCAPE,
	                  out);
}
