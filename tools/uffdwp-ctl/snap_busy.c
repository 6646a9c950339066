/* SPDX-License-Identifier: MIT */
/*
 * See snap_busy.h. The process answers EBUSY for whatever it is; what it is shows the region itself: a snapshot that
 * runs, one that ended and is still there, or none, and then a cut is being made, which takes moments. Only the first
 * is worth no second try.
 */
#include "snap_busy.h"

#include <stdio.h>
#include <string.h>

#include "live_say.h"
#include "live_wait.h"

#define BUSY_LIMIT_MS 5000
#define BUSY_AGAIN_MS 50

enum busy_with { BUSY_CUT, BUSY_RUNNING, BUSY_ENDED };

/* What the region is busy with, with its snapshot in `stat` if there is one. */
static enum busy_with busy_look(const struct live_command *command, struct live_peer *peer, struct json_object **stat)
{
	struct json_object *request = live_request("stat");
	struct json_object *snapshot;

	live_request_number(request, "region", (uint64_t)command->region);
	if (live_ask(peer, request, LIVE_LIMIT_MS, answer_stat, stat) != LIVE_DONE)
		return BUSY_CUT;
	snapshot = shape_object(shape_item(*stat, "regions", 0), "snapshot");
	if (!snapshot)
		return BUSY_CUT;
	return strcmp(shape_text(snapshot, "state"), "running") == 0 ? BUSY_RUNNING : BUSY_ENDED;
}

/* "begun by the program", "/tmp/a.img, begun by uffdwp-ctl" */
static void busy_name(struct json_object *snapshot, char *name, size_t size)
{
	int is_ours = strcmp(shape_text(snapshot, "by"), "control") == 0;

	(void)snprintf(name, size, "%s%sbegun by %s", shape_text(snapshot, "path"),
	               shape_has(snapshot, "path") ? ", " : "", is_ours ? "uffdwp-ctl" : "the program");
}

static void busy_say(const struct live_command *command, const struct live_peer *peer, struct json_object *stat,
                     enum busy_with with)
{
	struct json_object *region = shape_item(stat, "regions", 0);
	struct json_object *snapshot = shape_object(region, "snapshot");
	unsigned long long number = shape_number(snapshot, "snapshot");
	char title[LIVE_TITLE];
	char percent[LIVE_WORD];
	char name[1024];

	(void)live_title(title, peer, (uint64_t)command->region);
	busy_name(snapshot, name, sizeof(name));
	if (with == BUSY_RUNNING)
		live_complain(
		        command->name,
		        "%s: snapshot %llu of it is under way (%s; %s are written): wait until it has ended, or end it "
		        "by uffdwp-ctl abort %lld:%lld (EBUSY)",
		        title, number, name,
		        live_say_percent(percent, live_written(snapshot, shape_object(region, "pool")),
		                         shape_number(snapshot, "pages_total")),
		        (long long)peer->pid, (long long)command->region);
	else
		live_complain(
		        command->name,
		        "%s: snapshot %llu of it has ended (%s), and the program has not released it within %d s: it "
		        "takes no other one before (EBUSY)",
		        title, number, name, BUSY_LIMIT_MS / 1000);
}

/* LIVE_DONE: ask again. */
static enum live_end busy_wait(const struct live_command *command, struct live_peer *peer, int64_t until_ms)
{
	struct live_peer before = *peer;
	struct json_object *stat = NULL;
	enum busy_with with = busy_look(command, peer, &stat);
	int is_over = live_wait_now_ms() >= until_ms || live_wait_stops();
	enum live_end end = LIVE_DONE;

	if (peer->fd < 0) /* it is gone, or answers nonsense */
		end = live_fail(command, peer);
	else if (with == BUSY_RUNNING || (with == BUSY_ENDED && is_over))
		busy_say(command, peer, stat, with);
	else if (is_over)
		(void)live_fail(command, &before);
	else
		(void)live_wait(-1, 0, live_wait_now_ms() + BUSY_AGAIN_MS);
	if (!end && (with == BUSY_RUNNING || is_over))
		end = LIVE_REFUSED;
	json_object_put(stat);
	return end;
}

enum live_end snap_busy_ask(const struct live_command *command, struct live_peer *peer, struct json_object *request,
                            struct json_object **answer)
{
	int64_t until_ms = live_wait_now_ms() + BUSY_LIMIT_MS;
	enum live_end end;

	do {
		end = live_ask(peer, json_object_get(request), LIVE_LIMIT_WORK_MS, answer_snapshot, answer);
		if (end && (end != LIVE_REFUSED || strcmp(peer->error, "EBUSY") != 0)) {
			end = live_fail_region(command, peer);
			break;
		}
	} while (end && (end = busy_wait(command, peer, until_ms)) == LIVE_DONE);
	json_object_put(request);
	return end;
}
