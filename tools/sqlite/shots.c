/* SPDX-License-Identifier: MIT */
/*
 * See shots.h. The mutex is held for moments, never while a cut is made or the saving is waited for.
 */
#include "shots.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "locks.h"

void shots_init(struct shots *shots)
{
	*shots = (struct shots){.id = 0};
	pthread_mutex_init(&shots->mutex, NULL);
	pthread_cond_init(&shots->idle, NULL);
}

/* With the mutex held: 1 if the running one has ended. */
static int shots_ended(const struct shots *shots, struct uffdwp_snapshot_progress *progress)
{
	*progress = (struct uffdwp_snapshot_progress){.sz = sizeof(*progress)};
	return shots->running && uffdwp_snapshot_poll(shots->running, progress) == 0 &&
	       progress->state != UFFDWP_SNAPSHOT_STATE_RUNNING;
}

/* With the mutex held: frees what has ended. */
static void shots_reap(struct shots *shots)
{
	struct uffdwp_snapshot_progress progress;
	if (shots->users || !shots_ended(shots, &progress))
		return;
	shots->last = progress;
	shots->text[0] = 0;
	if (progress.state == UFFDWP_SNAPSHOT_STATE_FAILED)
		uffdwp_snapshot_text(shots->running, shots->text, sizeof(shots->text));
	uffdwp_snapshot_free(shots->running);
	shots->running = NULL;
}

int shots_fini(struct shots *shots)
{
	if (shots->running)
		uffdwp_snapshot_wait(shots->running, -1, NULL);
	shots_reap(shots);
	free(shots->path);
	pthread_cond_destroy(&shots->idle);
	pthread_mutex_destroy(&shots->mutex);
	return shots->id ? shots->last.error : 0;
}

/* While `beginning` is set no other thread changes the path. */
static int shots_start(const struct shots *shots, struct uffdwp_region *region, const char *path, unsigned how,
                       const struct shot_boundary *boundary, struct uffdwp_snapshot **out)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.sink = UFFDWP_SINK_IMAGE;
	options.path = path;
	options.flags = how & (SHOT_KEEP | SHOT_DELTA) ? UFFDWP_SNAPSHOT_KEEP : 0;
	options.parent = how & SHOT_DELTA ? shots->path : NULL;
	if (how & SHOT_DELTA && !shots->path)
		return -ENODATA;
	options.cut_enter = boundary->enter;
	options.cut_leave = boundary->leave;
	options.cut_user = boundary->user;
	return uffdwp_snapshot_begin(region, &options, out);
}

/* One begin or snapshot at a time. */
static int shots_reserve(struct shots *shots)
{
	struct uffdwp_snapshot_progress progress;
	pthread_mutex_lock(&shots->mutex);
	while (shots->users && shots_ended(shots, &progress))
		pthread_cond_wait(&shots->idle, &shots->mutex);
	shots_reap(shots);
	int busy = shots->running || shots->beginning;
	if (!busy)
		shots->beginning = 1;
	pthread_mutex_unlock(&shots->mutex);
	return busy ? -EBUSY : 0;
}

/* The begin is over; of a snapshot that it made the caller is a user. Gives back what is not needed any more: the old
 * path, or without a snapshot the new one. */
static char *shots_settle(struct shots *shots, struct uffdwp_snapshot *snapshot, uint64_t begin_ns, char *path)
{
	char *spare = path;
	pthread_mutex_lock(&shots->mutex);
	shots->beginning = 0;
	if (snapshot) {
		shots->running = snapshot;
		shots->begin_ns = begin_ns;
		spare = shots->path;
		shots->path = path;
		shots->id++;
		shots->users++;
	}
	pthread_mutex_unlock(&shots->mutex);
	return spare;
}

/* With the mutex held. */
static void shots_report(const struct shots *shots, struct shot_status *status)
{
	*status = (struct shot_status){.id = shots->id, .begin_ns = shots->begin_ns};
	status->progress.sz = sizeof(status->progress);
	if (shots->path)
		status->path = strdup(shots->path);
	if (shots->running) {
		uffdwp_snapshot_poll(shots->running, &status->progress);
		uffdwp_snapshot_text(shots->running, status->text, sizeof(status->text));
	} else {
		status->progress = shots->last;
		memcpy(status->text, shots->text, sizeof(status->text));
	}
}

/* The end of what shots_settle() began: the snapshot is not reaped before its status is taken. */
static void shots_finish(struct shots *shots, struct uffdwp_snapshot *snapshot, unsigned how,
                         struct shot_status *status)
{
	if (how & SHOT_WAIT)
		uffdwp_snapshot_wait(snapshot, -1, NULL);
	pthread_mutex_lock(&shots->mutex);
	shots_report(shots, status);
	if (--shots->users == 0)
		pthread_cond_broadcast(&shots->idle);
	shots_reap(shots);
	pthread_mutex_unlock(&shots->mutex);
}

int shots_begin(struct shots *shots, struct uffdwp_region *region, const char *path, unsigned how,
                const struct shot_boundary *boundary, struct shot_status *status)
{
	struct uffdwp_snapshot *snapshot = NULL;
	char *copy = strdup(path);
	int result = copy ? shots_reserve(shots) : -ENOMEM;
	if (result < 0) {
		free(copy);
		return result;
	}
	uint64_t from_ns = locks_now_ns();
	result = shots_start(shots, region, path, how, boundary, &snapshot);
	free(shots_settle(shots, snapshot, locks_now_ns() - from_ns, copy));
	if (snapshot)
		shots_finish(shots, snapshot, how, status);
	return result;
}

int shots_any(struct shots *shots)
{
	pthread_mutex_lock(&shots->mutex);
	int any = shots->id != 0;
	pthread_mutex_unlock(&shots->mutex);
	return any;
}

void shots_status(struct shots *shots, struct shot_status *status)
{
	pthread_mutex_lock(&shots->mutex);
	shots_reap(shots);
	shots_report(shots, status);
	pthread_mutex_unlock(&shots->mutex);
}
