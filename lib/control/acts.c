/* SPDX-License-Identifier: MIT */
/* See acts.h. A table of what runs and a circle of what ended, both under a lock that is held for moments. */
#include "control/acts.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "base/errno_name.h"
#include "base/lock.h"
#include "base/text.h"
#include "kernel/roster.h"
#include "snapshot/snapshot.h"

/* A snapshot that a client began. */
struct act {
	uint64_t number; /* 0: the slot is free */
	uint64_t region; /* whose */
	struct uffdwp_snapshot *snapshot;
	char path[ASK_BYTES_MOST];
};

/* One that has ended. */
struct act_ended {
	uint64_t number;
	uint64_t region;
	struct uffdwp_snapshot_progress progress;
	char path[ASK_BYTES_MOST];
	char text[TEXT_BYTES];
};

static const struct control_calls *acts_calls;
static struct lock acts_lock = LOCK_INIT;
/* How long a request waits for a snapshot that it has aborted. */
#define ACTS_ABORT_MS 1000

static struct act acts_running[ACTS_SNAPSHOTS_MOST];
static struct act_ended acts_ended[ACTS_ENDED_MOST];
static unsigned acts_ended_count; /* ever */

void acts_begin(const struct control_calls *calls)
{
	acts_calls = calls;
}

void acts_forget(void)
{
	lock_init(&acts_lock);
	memset(acts_running, 0, sizeof(acts_running));
	acts_ended_count = 0;
}

/* Why the last call of this thread was refused. */
static int acts_refused(struct ask *ask, int error)
{
	text_copy(NULL, ask->text, sizeof(ask->text));
	if (!*ask->text)
		snprintf(ask->text, sizeof(ask->text), "%s", errno_text(error));
	return error;
}

static int acts_refuse(struct ask *ask, int error, const char *text)
{
	snprintf(ask->text, sizeof(ask->text), "%s", text);
	return error;
}

/* ---- S ---- */

static const char *const acts_states[] = {"running", "committed", "failed"};
static const char *const acts_armings[] = {"auto", "rounds", "move"};

/* The numbers of struct uffdwp_snapshot_progress by their names. */
#define NUMBER(name)                                                                                                   \
	{                                                                                                              \
#name, offsetof(struct uffdwp_snapshot_progress, name)                                                 \
	}
static const struct {
	const char *name;
	size_t offset;
} acts_numbers[] = {
        NUMBER(length_bytes),    NUMBER(pages_total),   NUMBER(pages_fault), NUMBER(pages_prepare),
        NUMBER(pages_sweep),     NUMBER(pages_hole),    NUMBER(faults),      NUMBER(waits),
        NUMBER(pool_peak_bytes), NUMBER(bytes_written), NUMBER(pause_ns),    NUMBER(elapsed_ns),
        NUMBER(pages_pause),     NUMBER(pages_rounds),  NUMBER(rounds_ns),   NUMBER(stalled_most_ns),
        NUMBER(braked_ns),
};

static void acts_say_progress(struct say *say, const struct uffdwp_snapshot_progress *progress)
{
	for (size_t i = 0; i < sizeof(acts_numbers) / sizeof(acts_numbers[0]); i++) {
		uint64_t number;

		memcpy(&number, (const char *)progress + acts_numbers[i].offset, sizeof(number));
		say_number(say, acts_numbers[i].name, number);
	}
	say_bool(say, "direct", progress->direct != 0);
	say_bool(say, "uring", progress->uring != 0);
	say_number(say, "rounds", progress->rounds);
	say_text(say, "arming", progress->arming < UFFDWP_ARMING_COUNT ? acts_armings[progress->arming] : NULL);
}

/* What is said of a snapshot, whether it runs or is a record. */
struct act_view {
	uint64_t number;
	uint64_t region;
	const char *path; /* NULL: not known */
	const char *by;
	const char *text;
	const struct uffdwp_snapshot_progress *progress;
};

static void acts_say_one(struct say *say, const char *key, const struct act_view *view)
{
	say_open(say, key, '{');
	say_number(say, "snapshot", view->number);
	say_number(say, "region", view->region);
	say_text(say, "path", view->path);
	say_text(say, "by", view->by);
	say_text(say, "state",
	         view->progress->state <= UFFDWP_SNAPSHOT_STATE_FAILED ? acts_states[view->progress->state] : NULL);
	say_errno(say, "error", view->progress->error);
	say_text(say, "text", view->text && *view->text ? view->text : NULL);
	acts_say_progress(say, view->progress);
	say_close(say, '}');
}

/* The path of a snapshot of ours. 0: it is the program's. */
static int acts_path_of(uint64_t number, char path[ASK_BYTES_MOST])
{
	int is_ours = 0;

	lock_take(&acts_lock);
	for (unsigned i = 0; i < ACTS_SNAPSHOTS_MOST && !is_ours; i++) {
		is_ours = acts_running[i].number == number;
		if (is_ours)
			memcpy(path, acts_running[i].path, ASK_BYTES_MOST);
	}
	lock_give(&acts_lock);
	return is_ours;
}

void acts_say_snapshot(struct uffdwp_region *region, struct say *say, const char *key)
{
	struct roster_entry *entry = roster_take(ROSTER_SNAPSHOT, 0, &region->roster);
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	char path[ASK_BYTES_MOST];
	char text[TEXT_BYTES] = "";

	if (!entry || acts_calls->snapshot_poll(entry->thing, &progress)) {
		say_null(say, key);
	} else {
		int is_ours = acts_path_of(entry->number, path);

		if (progress.state == UFFDWP_SNAPSHOT_STATE_FAILED)
			acts_calls->snapshot_text(entry->thing, text, sizeof(text));
		acts_say_one(say, key,
		             &(struct act_view){entry->number, region->roster.number, is_ours ? path : NULL,
		                                is_ours ? "control" : "program", text, &progress});
	}
	if (entry)
		roster_give(region->k, entry);
}

void acts_say_ended(struct say *say, const char *key)
{
	lock_take(&acts_lock);
	unsigned count = acts_ended_count;
	lock_give(&acts_lock);
	unsigned first = count > ACTS_ENDED_MOST ? count - ACTS_ENDED_MOST : 0;

	say_open(say, key, '[');
	for (unsigned i = first; i < count; i++) {
		struct act_ended ended;

		lock_take(&acts_lock);
		ended = acts_ended[i % ACTS_ENDED_MOST];
		lock_give(&acts_lock);
		acts_say_one(say, NULL,
		             &(struct act_view){ended.number, ended.region, ended.path, "control", ended.text,
		                                &ended.progress});
	}
	say_close(say, ']');
}

/* ---- the end of those that run ---- */

/* Keeps the record, frees the snapshot and its slot. By the one thread that may look after this region. */
static void acts_end(struct act *act)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct uffdwp_snapshot *snapshot = act->snapshot;
	char text[TEXT_BYTES] = "";

	acts_calls->snapshot_poll(snapshot, &progress);
	if (progress.state == UFFDWP_SNAPSHOT_STATE_FAILED)
		acts_calls->snapshot_text(snapshot, text, sizeof(text));
	acts_calls->snapshot_free(snapshot);
	lock_take(&acts_lock);
	struct act_ended *ended = &acts_ended[acts_ended_count++ % ACTS_ENDED_MOST];

	ended->number = act->number;
	ended->region = act->region;
	ended->progress = progress;
	memcpy(ended->path, act->path, sizeof(ended->path));
	memcpy(ended->text, text, sizeof(ended->text));
	act->number = 0;
	act->snapshot = NULL;
	lock_give(&acts_lock);
}

/* Which runs in a slot; 0: none. */
static uint64_t acts_number_at(unsigned slot, uint64_t *region)
{
	lock_take(&acts_lock);
	uint64_t number = acts_running[slot].snapshot ? acts_running[slot].number : 0;

	*region = acts_running[slot].region;
	lock_give(&acts_lock);
	return number;
}

static int acts_has_ended(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};

	acts_calls->snapshot_poll(snapshot, &progress);
	return progress.state != UFFDWP_SNAPSHOT_STATE_RUNNING;
}

/* 1: the slot has what it had before the entry was taken. A thread that closed the region meanwhile may have ended it,
 * and shown the region again. The thread that closes a region takes care of its snapshots: then another was taken. */
static int acts_is_still(unsigned slot, uint64_t number, const struct roster_entry *entry)
{
	uint64_t region;

	return entry && acts_number_at(slot, &region) == number && entry->number == region;
}

unsigned acts_reap(const struct kernel_ops *k)
{
	unsigned running = 0;

	for (unsigned i = 0; i < ACTS_SNAPSHOTS_MOST; i++) {
		uint64_t region;
		uint64_t number = acts_number_at(i, &region);

		if (!number)
			continue;
		struct roster_entry *entry = roster_take(ROSTER_REGION, region, NULL);

		if (acts_is_still(i, number, entry) && acts_has_ended(acts_running[i].snapshot))
			acts_end(&acts_running[i]);
		else
			running++;
		if (entry)
			roster_give(k, entry);
	}
	return running;
}

void acts_leave(struct uffdwp_region *region)
{
	for (unsigned i = 0; i < ACTS_SNAPSHOTS_MOST; i++) {
		uint64_t of;

		if (!acts_number_at(i, &of) || of != region->roster.number)
			continue;
		acts_calls->snapshot_abort(acts_running[i].snapshot);
		snapshot_wait(acts_running[i].snapshot, -1);
		acts_end(&acts_running[i]);
	}
}

uint64_t acts_region_of(uint64_t snapshot)
{
	uint64_t region = 0;

	lock_take(&acts_lock);
	for (unsigned i = 0; i < ACTS_SNAPSHOTS_MOST; i++) {
		if (snapshot && acts_running[i].number == snapshot)
			region = acts_running[i].region;
	}
	lock_give(&acts_lock);
	return region;
}

/* ---- what is done ---- */

/* A free slot, whose `snapshot` is not there yet: only the thread of clients takes one. NULL: all run. */
static struct act *acts_new(void)
{
	for (unsigned i = 0; i < ACTS_SNAPSHOTS_MOST; i++) {
		uint64_t region;

		if (!acts_number_at(i, &region))
			return &acts_running[i];
	}
	return NULL;
}

static int acts_take_arming(struct ask *ask, uint32_t *arming)
{
	if (!(ask->has & ASK_BIT(ASK_ARMING)))
		return 0;
	for (uint32_t i = 0; i < UFFDWP_ARMING_COUNT; i++) {
		*arming = i;
		if (!strcmp(acts_armings[i], ask->arming))
			return 0;
	}
	return acts_refuse(ask, -EINVAL, "\"arming\" is one of \"auto\", \"rounds\" and \"move\"");
}

static int acts_take_options(struct ask *ask, struct uffdwp_snapshot_options *options)
{
	if (ask->path[0] != '/' || (*ask->parent && ask->parent[0] != '/'))
		return acts_refuse(ask, -EINVAL,
		                   "\"path\" and \"parent\" must be absolute: the program may run in any folder");
	if (ask->number[ASK_COMPRESS] > UINT32_MAX || ask->number[ASK_MODE] > UINT32_MAX)
		return acts_refuse(ask, -EINVAL, "\"compress\" is 1 to 19, \"mode\" permission bits");
	options->path = ask->path;
	options->parent = *ask->parent ? ask->parent : NULL;
	options->flags = ask->number[ASK_KEEP] ? UFFDWP_SNAPSHOT_KEEP : 0;
	options->compress = (uint32_t)ask->number[ASK_COMPRESS];
	options->mode = (uint32_t)ask->number[ASK_MODE];
	options->rate_bytes = ask->number[ASK_RATE];
	options->pool_bytes = ask->number[ASK_POOL];
	return acts_take_arming(ask, &options->arming);
}

/* Keeps it, before any client sees it. */
static void acts_keep(struct act *act, const struct ask *ask, const struct uffdwp_region *region,
                      struct uffdwp_snapshot *snapshot)
{
	lock_take(&acts_lock);
	act->number = snapshot->roster.number;
	act->region = region->roster.number;
	act->snapshot = snapshot;
	memcpy(act->path, ask->path, sizeof(act->path));
	lock_give(&acts_lock);
}

int acts_snapshot(struct ask *ask, struct uffdwp_region *region, struct say *say)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct uffdwp_snapshot *snapshot = NULL;
	struct act *act = acts_new();
	int error = acts_take_options(ask, &options);

	if (error)
		return error;
	if (!act)
		return acts_refuse(ask, -EBUSY, "64 snapshots of clients run: wait until one has ended");
	uint64_t begun_ns = kernel_now_ns();

	error = acts_calls->snapshot_begin(region, &options, &snapshot);
	if (error)
		return acts_refused(ask, error);
	uint64_t begin_ns = kernel_now_ns() - begun_ns;

	acts_keep(act, ask, region, snapshot);
	acts_calls->snapshot_poll(snapshot, &progress);
	say_number(say, "snapshot", snapshot->roster.number);
	say_number(say, "pause_ns", progress.pause_ns);
	say_number(say, "begin_ns", begin_ns);
	return 0;
}

/* The region is taken, so that none of its snapshots of ours ends meanwhile; the program's are taken by themselves. The
 * answer comes when it has ended, so that the next one can begin; a sink that is stuck is not waited for. */
int acts_abort(struct ask *ask, struct uffdwp_region *region, struct say *say)
{
	struct roster_entry *entry = roster_take(ROSTER_SNAPSHOT, 0, &region->roster);
	uint64_t wanted = ask->number[ASK_OF_SNAPSHOT];

	(void)say;
	int found = entry && (!wanted || entry->number == wanted);

	if (found) {
		acts_calls->snapshot_abort(entry->thing);
		snapshot_wait(entry->thing, ACTS_ABORT_MS);
	}
	if (entry)
		roster_give(region->k, entry);
	if (found)
		(void)acts_reap(region->k);
	return found ? 0 : acts_refuse(ask, -ESRCH, "no such snapshot runs: \"stat\" lists those that do");
}

int acts_audit(struct ask *ask, struct uffdwp_region *region, struct say *say)
{
	struct uffdwp_audit audit = {.sz = sizeof(audit)};
	int error = acts_calls->region_audit(region, &audit);

	if (error)
		return acts_refused(ask, error);
	say_number(say, "pages_armed", audit.pages_armed);
	say_number(say, "pages_lost", audit.pages_lost);
	say_number(say, "pages_rearmed", audit.pages_rearmed);
	return 0;
}

int acts_arm(struct ask *ask, struct uffdwp_region *region, struct say *say)
{
	uint64_t offset = ask->number[ASK_OFFSET];
	uint64_t all = atomic_load(&region->length_bytes);
	uint64_t length = ask->number[ASK_LENGTH] ? ask->number[ASK_LENGTH] : offset < all ? all - offset : 0;
	uint64_t pages = 0;
	int error = ask->act == ASK_ARM ? acts_calls->region_arm(region, offset, length)
	                                : acts_calls->region_disarm(region, offset, length);

	if (!error)
		error = acts_calls->region_armed(region, 0, all, &pages);
	if (error)
		return acts_refused(ask, error);
	say_number(say, "pages", pages);
	return 0;
}
