/* SPDX-License-Identifier: MIT */
/* See live_report.h. json-c answers NULL when there is no memory; such a member reads as null. */
#include "live_report.h"

void live_report_init(struct live_report *report)
{
	report->processes = json_object_new_array();
	report->failed = json_object_new_array();
}

void live_report_fini(struct live_report *report)
{
	json_object_put(report->processes);
	json_object_put(report->failed);
}

struct json_object *live_report_bare(struct json_object *answer)
{
	json_object_object_del(answer, "v");
	json_object_object_del(answer, "id");
	json_object_object_del(answer, "ok");
	return answer;
}

void live_report_add(struct live_report *report, const struct live_peer *peer, struct json_object *answer)
{
	(void)live_report_bare(answer);
	live_request_number(answer, "pid", (uint64_t)peer->pid);
	live_request_text(answer, "program", peer->program);
	(void)json_object_array_add(report->processes, answer);
}

void live_report_fail(struct live_report *report, const struct live_peer *peer)
{
	struct json_object *row = json_object_new_object();

	live_request_number(row, "pid", (uint64_t)peer->pid);
	live_request_text(row, "program", peer->program);
	live_request_text(row, "text", peer->text);
	(void)json_object_array_add(report->failed, row);
}

int live_report_print(const struct live_report *report)
{
	struct json_object *all = json_object_new_object();
	int result;

	(void)json_object_object_add(all, "processes", json_object_get(report->processes));
	(void)json_object_object_add(all, "failed", json_object_get(report->failed));
	result = shape_print(all);
	json_object_put(all);
	return result;
}
