/* SPDX-License-Identifier: MIT */
/* What --json prints of several processes: {"processes":[...],"failed":[{"pid","program","text"}]}. */
#ifndef UFFDWP_CTL_LIVE_REPORT_H
#define UFFDWP_CTL_LIVE_REPORT_H

#include "live_talk.h"

struct live_report {
	struct json_object *processes;
	struct json_object *failed;
};

void live_report_init(struct live_report *report);
void live_report_fini(struct live_report *report);

/* Takes over the answer of a process, to which its pid and program are added. */
void live_report_add(struct live_report *report, const struct live_peer *peer, struct json_object *answer);
void live_report_fail(struct live_report *report, const struct live_peer *peer);

/* Drops what belongs to the conversation: v, id, ok. Returns the answer. */
struct json_object *live_report_bare(struct json_object *answer);

/* One line. 0, or -1: no memory, or not writable. */
int live_report_print(const struct live_report *report);

#endif
