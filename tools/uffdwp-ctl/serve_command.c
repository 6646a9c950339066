/* SPDX-License-Identifier: MIT */
/* Commands of a client, and answers; see serve.h and SERVE.md. Thread: the first of a client's process. */
#include <errno.h>
#include <json-c/json.h>
#include <string.h>
#include <unistd.h>

#include "base/errno_name.h"
#include "serve.h"

#define DIRTY_RANGES 256 /* in an answer */

static struct json_object *serve_command_answer(int64_t id)
{
	struct json_object *answer = json_object_new_object();

	(void)json_object_object_add(answer, "ok", json_object_new_boolean(1));
	if (id >= 0)
		(void)json_object_object_add(answer, "id", json_object_new_int64(id));
	return answer;
}

static void serve_command_add(struct json_object *object, const char *name, uint64_t value)
{
	(void)json_object_object_add(object, name, json_object_new_int64((int64_t)value));
}

static void serve_command_add_error(struct json_object *object, int error, const char *text)
{
	(void)json_object_object_add(object, "ok", json_object_new_boolean(0));
	(void)json_object_object_add(object, "error", json_object_new_string(errno_name(error)));
	(void)json_object_object_add(object, "text", json_object_new_string(text));
}

void serve_command_refuse(struct serve_client *client, int64_t id, int error)
{
	struct json_object *answer = serve_command_answer(id);

	if (client->handshake.is_firecracker) {
		(void)json_object_put(answer);
		return;
	}
	serve_command_add_error(answer, error, client->text);
	serve_stream_send(&client->stream, answer);
}

/* ---- snapshots ---- */

static int serve_command_is_own(const struct serve_client *client, const char *name)
{
	uint64_t hash = serve_names_hash(name);

	for (unsigned i = 0; i < client->own_count; i++) {
		if (client->own[i] == hash)
			return 1;
	}
	return 0;
}

/* The names of the newest ones are kept. */
static void serve_command_note_own(struct serve_client *client, const char *name)
{
	if (serve_command_is_own(client, name))
		return;
	if (client->own_count == SERVE_OWN_MAX)
		memmove(client->own, client->own + 1, --client->own_count * sizeof(client->own[0]));
	client->own[client->own_count++] = serve_names_hash(name);
}

static int serve_command_begin_snapshot(struct serve_client *client, const struct serve_command *command)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	char path[PATH_MAX];
	char parent[PATH_MAX];
	int error = serve_names_reserve(client->settings->snapshots, command->path,
	                                serve_command_is_own(client, command->path), path, &client->snapshot_lock,
	                                client->text);

	if (!error && command->parent[0])
		error = serve_names_path(client->settings->snapshots, command->parent, parent, client->text);
	options.path = path;
	options.parent = command->parent[0] ? parent : NULL;
	options.flags = command->keep ? UFFDWP_SNAPSHOT_KEEP : 0;
	options.compress = command->compress;
	options.rate_bytes = command->rate_bytes;
	options.pool_bytes = client->settings->pool_bytes;
	if (!error) {
		error = uffdwp_snapshot_begin(client->region, &options, &client->snapshot);
		if (error)
			(void)serve_fail_library(client->text, error);
	}
	if (error && client->snapshot_lock >= 0) {
		(void)close(client->snapshot_lock);
		client->snapshot_lock = -1;
	}
	return error;
}

static int serve_command_check_snapshot(struct serve_client *client)
{
	if (!client->settings->snapshots || !client->handshake.snapshots)
		return serve_fail(client->text, -EPERM, "%s",
		                  client->settings->snapshots ? "the handshake said \"snapshot\": false"
		                                              : "no snapshots are taken: --snapshots FOLDER");
	if (client->snapshot)
		return serve_fail(client->text, -EBUSY, "snapshot %lld runs: {\"do\":\"wait\"}",
		                  (long long)client->snapshot_number);
	return 0;
}

static int serve_command_snapshot(struct serve_client *client, const struct serve_command *command)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	int error = serve_command_check_snapshot(client);

	if (!error)
		error = serve_command_begin_snapshot(client, command);
	if (error)
		return error;
	serve_command_note_own(client, command->path);
	memcpy(client->snapshot_name, command->path, sizeof(client->snapshot_name));
	client->snapshot_number++;
	(void)uffdwp_snapshot_poll(client->snapshot, &progress);
	struct json_object *answer = serve_command_answer(command->id);

	serve_command_add(answer, "snapshot", (uint64_t)client->snapshot_number);
	serve_command_add(answer, "pause_ns", progress.pause_ns);
	serve_stream_send(&client->stream, answer);
	return 0;
}

static void serve_command_add_snapshot(const struct serve_client *client, struct json_object *answer)
{
	struct uffdwp_snapshot_progress progress = client->snapshot_progress;
	const char *state = client->snapshot ? "running" : client->snapshot_error ? "failed" : "committed";
	struct json_object *object;

	if (!client->snapshot_number)
		return;
	progress.sz = sizeof(progress);
	if (client->snapshot)
		(void)uffdwp_snapshot_poll(client->snapshot, &progress);
	object = json_object_new_object();
	serve_command_add(object, "snapshot", (uint64_t)client->snapshot_number);
	(void)json_object_object_add(object, "path", json_object_new_string(client->snapshot_name));
	(void)json_object_object_add(object, "state", json_object_new_string(state));
	serve_command_add(object, "pages_total", progress.pages_total);
	serve_command_add(object, "pages_fault", progress.pages_fault);
	serve_command_add(object, "pages_sweep", progress.pages_sweep);
	serve_command_add(object, "faults", progress.faults);
	serve_command_add(object, "bytes_written", progress.bytes_written);
	serve_command_add(object, "pause_ns", progress.pause_ns);
	serve_command_add(object, "elapsed_ns", progress.elapsed_ns);
	(void)json_object_object_add(answer, "snapshot", object);
}

/* ---- others ---- */

static int serve_command_status(struct serve_client *client, const struct serve_command *command)
{
	struct json_object *answer = serve_command_answer(command->id);
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	struct uffdwp_restore_progress restore = {.sz = sizeof(restore)};

	(void)uffdwp_region_stats(client->region, &stats);
	(void)json_object_object_add(answer, "state",
	                             json_object_new_string(client->lost_error ? "lost"
	                                                    : client->restore  ? "restoring"
	                                                                       : "serving"));
	if (client->lost_error)
		(void)json_object_object_add(answer, "text", json_object_new_string(client->lost));
	serve_command_add(answer, "faults", stats.faults);
	serve_command_add(answer, "pages_lost", stats.pages_lost);
	serve_command_add(answer, "events_remove", stats.events_remove);
	serve_command_add(answer, "pages_missing", client->missing_pages);
	if (client->restore && uffdwp_restore_poll(client->restore, &restore) == 0) {
		serve_command_add(answer, "pages_total", restore.pages_total);
		serve_command_add(answer, "pages_done", restore.pages_done);
		serve_command_add(answer, "pages_demand", restore.pages_demand);
	}
	serve_command_add_snapshot(client, answer);
	serve_stream_send(&client->stream, answer);
	return 0;
}

static int serve_command_dirty(struct serve_client *client, const struct serve_command *command)
{
	struct uffdwp_written ranges[DIRTY_RANGES];
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	uint64_t base = (uintptr_t)uffdwp_region_base(client->region);
	int error;

	if (!client->track)
		return serve_fail(client->text, -EPERM, "the handshake did not say \"track\": true");
	collect.ranges = ranges;
	collect.capacity = DIRTY_RANGES;
	error = uffdwp_track_collect(client->track, &collect);
	if (error)
		return serve_fail_library(client->text, error);
	struct json_object *answer = serve_command_answer(command->id);
	struct json_object *list = json_object_new_array();

	for (size_t i = 0; i < collect.count; i++) {
		struct json_object *range = json_object_new_array();

		(void)json_object_array_add(range, json_object_new_int64((int64_t)(ranges[i].start - base)));
		(void)json_object_array_add(range, json_object_new_int64((int64_t)(ranges[i].end - ranges[i].start)));
		(void)json_object_array_add(list, range);
	}
	(void)json_object_object_add(answer, "ranges", list);
	(void)json_object_object_add(answer, "more", json_object_new_boolean(collect.next != NULL));
	serve_stream_send(&client->stream, answer);
	return 0;
}

static int serve_command_join(struct serve_client *client, const struct serve_command *command)
{
	int error = serve_region_join(client, &command->memory);

	if (!error)
		serve_stream_send(&client->stream, serve_command_answer(command->id));
	return error;
}

/* Answered when nothing runs, by serve_command_finish(). */
static int serve_command_wait(struct serve_client *client, const struct serve_command *command)
{
	client->waits = 1;
	client->wait_id = command->id;
	if (!client->snapshot)
		serve_command_finish(client);
	return 0;
}

static int serve_command_bye(struct serve_client *client, const struct serve_command *command)
{
	client->waits = 2;
	client->wait_id = command->id;
	client->leaves = 1;
	return 0;
}

void serve_command_finish(struct serve_client *client)
{
	struct json_object *answer;

	if (client->waits == 2 && client->region)
		return; /* "bye" is answered when the memory was given back */
	answer = serve_command_answer(client->wait_id);
	if (client->waits == 1 && client->snapshot_error)
		serve_command_add_error(answer, client->snapshot_error, client->snapshot_text);
	serve_command_add_snapshot(client, answer);
	serve_command_add(answer, "pages_missing", client->missing_pages);
	serve_stream_send(&client->stream, answer);
	client->waits = 0;
}

void serve_command_run(struct serve_client *client, const char *line)
{
	static const struct {
		const char *what;
		int (*run)(struct serve_client *client, const struct serve_command *command);
		int has_descriptors;
		int needs_memory;
	} commands[] = {
	        {"snapshot", serve_command_snapshot, 0, 1}, {"status", serve_command_status, 0, 0},
	        {"wait", serve_command_wait, 0, 0},         {"join", serve_command_join, 1, 1},
	        {"dirty", serve_command_dirty, 0, 1},       {"bye", serve_command_bye, 0, 0},
	};
	struct serve_command command;
	int error = serve_message_command(line, &command, client->text);
	size_t number = 0;

	while (!error && number < sizeof(commands) / sizeof(commands[0]) &&
	       strcmp(commands[number].what, command.what) != 0)
		number++;
	if (!error && number == sizeof(commands) / sizeof(commands[0]))
		error = serve_fail(client->text, -ENOSYS,
		                   "there is no such command: snapshot, status, wait, join, dirty or bye");
	if (!error && !commands[number].has_descriptors && client->stream.descriptor_count)
		error = serve_fail(client->text, -EBADF, "a descriptor came with a command that takes none");
	if (!error && client->lost_error && commands[number].needs_memory)
		error = serve_fail(client->text, client->lost_error, "%s", client->lost);
	serve_lost_prepare(client, command.id);
	if (!error)
		error = commands[number].run(client, &command);
	if (error)
		serve_command_refuse(client, command.id, error);
}
