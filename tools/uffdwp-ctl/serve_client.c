/* SPDX-License-Identifier: MIT */
/*
 * The life of a client's process: its handshake, its memory, its commands, its end; see serve.h. One thread waits for
 * all of that at once (poll(2)); faults, reads of the image and writes of snapshots are done by threads of the library.
 *
 * It ends when nothing runs any more and the client has left: by "bye", by closing the connection (Firecracker does
 * that right after the handshake, so there it says nothing), by the end of its process, at which all is aborted at
 * once; or when the first process was asked to end.
 */
#include <errno.h>
#include <json-c/json.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "doctor.h"
#include "serve.h"

#define LOOK_MS 1000 /* how often is looked whether the region is dead */

static int serve_client_is_leaving(const struct serve_client *client)
{
	return client->leaves || client->is_gone || (client->stream.is_ended && !client->handshake.is_firecracker);
}

/* ---- what happens ---- */

/* A terminal, and a service manager, signal this process and the first one, which passes it on: that is one request. */
static void serve_client_on_signal(struct serve_client *client)
{
	struct signalfd_siginfo signal;

	if (read(client->signals, &signal, sizeof(signal)) != (ssize_t)sizeof(signal))
		return;
	int is_passed_on = signal.ssi_pid != 0 && signal.ssi_pid == (uint32_t)getppid();
	struct stops *stops = &client->stops[is_passed_on];

	stops_take(stops, (int64_t)serve_now_ms());
	if (stops->count > 1)
		client->stop_at_ms = serve_now_ms();
	else if (!client->stop_at_ms)
		client->stop_at_ms = serve_now_ms() + client->settings->stop_ms;
	client->leaves = 1;
}

static void serve_client_abort(const struct serve_client *client)
{
	if (client->snapshot)
		(void)uffdwp_snapshot_abort(client->snapshot);
	if (client->restore)
		(void)uffdwp_restore_abort(client->restore);
}

static void serve_client_on_end(struct serve_client *client)
{
	client->is_gone = !client->is_other;
	if (!client->settings->quiet || client->snapshot || client->restore)
		serve_say("%s: its process has ended%s%s", client->slot->name,
		          client->snapshot ? ", and the snapshot that runs fails" : "",
		          client->restore ? ", before all of its memory was restored" : "");
	if (!client->lost_error)
		client->lost_error = serve_fail(client->lost, -EOWNERDEAD, "the process that had the memory has ended");
	serve_client_abort(client);
	(void)close(client->pidfd);
	client->pidfd = -1;
}

static void serve_client_on_time(struct serve_client *client)
{
	client->stop_at_ms = UINT64_MAX;
	serve_client_abort(client);
}

/* What runs is ended where the memory was lost. The connection stays, for answers that say so; Firecracker asks
 * nothing. */
static void serve_client_look(struct serve_client *client)
{
	if (client->lost_error || serve_lost_look(client) == 0)
		return;
	serve_say("%s: %s", client->slot->name, client->lost);
	serve_client_abort(client);
	client->leaves |= client->handshake.is_firecracker;
}

/* Commands that are there; none while one of them waits for a snapshot. */
static void serve_client_run_commands(struct serve_client *client)
{
	size_t length;
	char *line;

	while (!client->waits && !client->leaves && (line = serve_stream_line(&client->stream, &length)) != NULL) {
		unsigned later = serve_stream_hold_back(&client->stream, length);

		serve_client_look(client);
		serve_command_run(client, line);
		serve_stream_close_descriptors(&client->stream);
		client->stream.descriptor_count = later;
		serve_stream_drop(&client->stream, length);
	}
}

static void serve_client_on_bytes(struct serve_client *client)
{
	int got = serve_stream_receive(&client->stream, client->text);

	if (client->handshake.is_firecracker) { /* which says nothing more */
		serve_stream_close_descriptors(&client->stream);
		client->stream.used = 0;
		if (client->stream.is_ended)
			serve_stream_close(&client->stream);
		return;
	}
	if (got < 0) {
		serve_command_refuse(client, -1, got);
		serve_say("%s: the connection was closed: %s", client->slot->name, client->text);
		serve_stream_close(&client->stream);
	}
	serve_client_run_commands(client);
}

/* ---- the loop ---- */

enum { SOURCE_BYTES, SOURCE_SIGNALS, SOURCE_PROCESS, SOURCE_RESTORE, SOURCE_SNAPSHOT, SOURCES };

/* A descriptor of -1 is passed over by poll(2). */
static int serve_client_wait(const struct serve_client *client, struct pollfd sources[SOURCES])
{
	int listens = !client->waits && !client->leaves && !client->stream.is_ended;
	uint64_t now = serve_now_ms();
	int time = LOOK_MS;

	sources[SOURCE_BYTES] = (struct pollfd){listens ? client->stream.fd : -1, POLLIN, 0};
	sources[SOURCE_SIGNALS] = (struct pollfd){client->signals, POLLIN, 0};
	sources[SOURCE_PROCESS] = (struct pollfd){client->pidfd, POLLIN, 0};
	sources[SOURCE_RESTORE] = (struct pollfd){client->restore ? uffdwp_restore_fd(client->restore) : -1, POLLIN, 0};
	sources[SOURCE_SNAPSHOT] =
	        (struct pollfd){client->snapshot ? uffdwp_snapshot_fd(client->snapshot) : -1, POLLIN, 0};
	if (client->stop_at_ms && client->stop_at_ms != UINT64_MAX)
		time = client->stop_at_ms <= now            ? 0
		       : client->stop_at_ms - now < LOOK_MS ? (int)(client->stop_at_ms - now)
		                                            : LOOK_MS;
	return poll(sources, SOURCES, time);
}

static void serve_client_step(struct serve_client *client)
{
	struct pollfd sources[SOURCES];

	if (serve_client_wait(client, sources) < 0)
		return;
	if (sources[SOURCE_SIGNALS].revents)
		serve_client_on_signal(client);
	if (sources[SOURCE_PROCESS].revents)
		serve_client_on_end(client);
	if (sources[SOURCE_RESTORE].revents)
		serve_region_end_restore(client);
	if (sources[SOURCE_SNAPSHOT].revents)
		serve_region_end_snapshot(client);
	if (client->waits && !client->snapshot)
		serve_command_finish(client);
	if (sources[SOURCE_BYTES].revents)
		serve_client_on_bytes(client);
	else
		serve_client_run_commands(client); /* that came before one that waited */
	if (client->stop_at_ms && serve_now_ms() >= client->stop_at_ms)
		serve_client_on_time(client);
	serve_client_look(client);
}

/* ---- the beginning ---- */

static int serve_client_prepare(struct serve_client *client)
{
	sigset_t mask;

	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGCHLD);
	(void)sigprocmask(SIG_UNBLOCK, &mask, NULL);
	(void)sigemptyset(&mask);
	(void)sigaddset(&mask, SIGTERM);
	(void)sigaddset(&mask, SIGINT);
	client->signals = signalfd(-1, &mask, SFD_CLOEXEC | SFD_NONBLOCK);
	(void)prctl(PR_SET_NAME, "uffdwp-client");
	return client->signals >= 0 ? 0 : serve_fail(client->text, -errno, "no signalfd: %s", strerror(errno));
}

/* Reads until a handshake is whole. */
static int serve_client_receive_handshake(struct serve_client *client)
{
	uint64_t until_ms = serve_now_ms() + client->settings->handshake_ms;
	size_t length = 0;
	int got = 0;

	while (got == 0) {
		got = serve_stream_wait(&client->stream, until_ms, client->text);
		if (got > 0)
			got = serve_message_handshake(&client->stream, &client->handshake, &length, client->text);
		if (got == 0 && client->stream.is_ended)
			got = serve_fail(client->text, -EPROTO, "the connection ended before a whole handshake came");
	}
	if (got < 0)
		return got;
	serve_stream_drop(&client->stream, length);
	(void)snprintf(client->slot->name, sizeof(client->slot->name), "%.90s%sprocess %d", client->handshake.name,
	               client->handshake.name[0] ? ", " : "", (int)client->peer);
	return 0;
}

static int serve_client_open(struct serve_client *client)
{
	const struct serve_memory *memory = &client->handshake.memory;
	int error = serve_client_prepare(client);

	if (!error)
		error = serve_client_receive_handshake(client);
	if (!error && client->settings->memory_max && memory->length > client->settings->memory_max)
		error = serve_fail(client->text, -EFBIG, "the memory has %llu bytes, and --memory-max allows %llu",
		                   (unsigned long long)memory->length,
		                   (unsigned long long)client->settings->memory_max);
	return error ? error : serve_region_open(client);
}

/* 1: Firecracker sent a userfaultfd: no thread resolves its faults. */
static int serve_client_leaves_waiting(const struct serve_client *client)
{
	const struct serve_memory any = {.descriptor_count = 1, .kinds = {SERVE_KIND_UFFD}};
	int found[SERVE_KINDS];
	char text[SERVE_TEXT];

	if (!client->handshake.is_firecracker && !(client->stream.used && client->stream.bytes[0] == '['))
		return 0;
	return serve_region_check_descriptors(&client->stream, &any, found, text) == 0;
}

/* The memory is as it was found before the answer is sent: the client may keep its userfaultfd, at which no thread
 * would read. */
static void serve_client_give_back(struct serve_client *client)
{
	if (client->restore) {
		(void)uffdwp_restore_abort(client->restore);
		(void)uffdwp_restore_free(client->restore);
		client->restore = NULL;
	}
	if (client->region)
		serve_region_close(client);
}

static int serve_client_refuse(struct serve_client *client, int error)
{
	int waits = serve_client_leaves_waiting(client);

	if (!client->handshake.is_firecracker)
		serve_client_give_back(client);
	serve_region_release_guard(client);
	if (!client->slot->name[0])
		(void)snprintf(client->slot->name, sizeof(client->slot->name), "process %d", (int)client->peer);
	serve_say("%s: refused: %s", client->slot->name, client->text);
	serve_command_refuse(client, -1, error);
	serve_stream_close(&client->stream);
	return waits ? EXIT_LIMITS : EXIT_ALL;
}

static void serve_client_answer(struct serve_client *client)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	struct json_object *answer = json_object_new_object();

	(void)uffdwp_region_info(client->region, &info);
	if (!client->settings->quiet)
		serve_say("%s: %llu bytes%s%s", client->slot->name, (unsigned long long)info.length_bytes,
		          client->restore ? ", restored from " : "", client->restore ? client->image : "");
	(void)json_object_object_add(answer, "ok", json_object_new_boolean(1));
	(void)json_object_object_add(answer, "uffdwp", json_object_new_int(1));
	(void)json_object_object_add(answer, "pid", json_object_new_int(getpid()));
	(void)json_object_object_add(
	        answer, "mechanism",
	        json_object_new_string(info.mechanism == UFFDWP_MECHANISM_REARM ? "rearm" : "marker"));
	(void)json_object_object_add(answer, "length", json_object_new_int64((int64_t)info.length_bytes));
	(void)json_object_object_add(answer, "page_bytes", json_object_new_int64((int64_t)info.page_bytes));
	(void)json_object_object_add(answer, "restoring", json_object_new_boolean(client->restore != NULL));
	if (client->handshake.is_firecracker)
		(void)json_object_put(answer); /* it expects none */
	else
		serve_stream_send(&client->stream, answer);
}

/* What was not there when all ended. */
static int serve_client_close(struct serve_client *client)
{
	if (client->missing_pages && !client->is_gone)
		serve_say("%s: %llu pages were not fetched: its process gets SIGBUS where it uses them",
		          client->slot->name, (unsigned long long)client->missing_pages);
	serve_region_close(client);
	serve_region_release_guard(client);
	if (client->waits)
		serve_command_finish(client);
	serve_stream_close(&client->stream);
	if (!client->settings->quiet)
		serve_say("%s: closed", client->slot->name);
	return EXIT_ALL;
}

int serve_client(const struct serve_settings *settings, struct serve_slot *slot, int connection, int channel,
                 pid_t peer, int pidfd)
{
	static struct serve_client client;

	client.settings = settings;
	client.slot = slot;
	client.stream.fd = connection;
	client.channel = channel;
	client.peer = peer;
	client.pidfd = pidfd;
	client.uffd = -1;
	client.memfd = -1;
	client.snapshot_lock = -1;
	int error = serve_client_open(&client);

	if (error)
		return serve_client_refuse(&client, error);
	if (!client.restore)
		serve_region_release_guard(&client);
	serve_client_answer(&client);
	serve_client_run_commands(&client);
	while (!(serve_client_is_leaving(&client) && !client.restore && !client.snapshot))
		serve_client_step(&client);
	return serve_client_close(&client);
}
