/* SPDX-License-Identifier: MIT */
/*
 * One round of one side: a new server, all keys set, then
 *
 *   - at rest, a closed loop: operations a second;
 *   - an open loop, at the rate that all sides have: some time at rest, then the saves, with a pause between them. The
 *     record has a class for what meets a save, and one for what does not. A save is from just before BGSAVE is sent
 * until the server has noticed its end, and a bit more, in which what it leaves is cleared away;
 *   - one more save beside the same load, which is not in the record: looking at memory delays a server;
 *   - the last dump is checked.
 *
 * Threads: the main thread, and the loop's.
 */
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "duel.h"
#include "memory.h"
#include "redis.h"

#define CONNECTIONS 4
#define FILL_DEPTH 64
#define CLOSED_DEPTH 16
#define VALUE_BYTES 1024
#define WARM_NS UINT64_C(1000000000)
#define AFTER_NS UINT64_C(200000000) /* of a save whose end was noticed: the server looks ten times a second */
#define LOOK_NS UINT64_C(50000000)
#define SAVE_NS_MAX UINT64_C(600000000000)

static void redis_trial_sleep(uint64_t ns)
{
	struct timespec pause = {(time_t)(ns / 1000000000u), (long)(ns % 1000000000u)};

	nanosleep(&pause, NULL);
}

static void redis_trial_init_loop(const struct redis_plan *plan, struct openloop *loop, enum openloop_kind kind)
{
	memset(loop, 0, sizeof(*loop));
	loop->kind = kind;
	loop->connection_count = CONNECTIONS;
	loop->keys = plan->size_bytes / VALUE_BYTES;
	loop->value_bytes = VALUE_BYTES;
	loop->requests_per_s = plan->requests_per_s;
	loop->depth = kind == OPENLOOP_FILL ? FILL_DEPTH : CLOSED_DEPTH;
	loop->seed = plan->seed;
	loop->limit_ns = plan->rest_ns;
}

static void redis_trial_connect(const struct redis_server *server, struct openloop *loop)
{
	for (unsigned i = 0; i < loop->connection_count; i++)
		loop->fds[i] = redis_server_connect(server);
}

static void redis_trial_disconnect(const struct openloop *loop)
{
	for (unsigned i = 0; i < loop->connection_count; i++)
		close(loop->fds[i]);
}

/* Replies a second. */
static double redis_trial_closed(const struct redis_server *server, enum openloop_kind kind, struct openloop *loop)
{
	double rate;

	redis_trial_init_loop(server->plan, loop, kind);
	redis_trial_connect(server, loop);
	rate = openloop_run(loop);
	redis_trial_disconnect(loop);
	return rate;
}

/* ------------------------------------------------------------------------------------------------------- saves -- */

static void redis_trial_begin_save(const struct redis_server *server)
{
	char text[256];

	redis_server_command(server, "BGSAVE", NULL, text, sizeof(text));
	if (strncmp(text, "Background saving started", 25) != 0)
		bench_die("BGSAVE was answered with %s", text);
}

/* 1: it goes on. Ends the program if it has failed. */
static int redis_trial_is_saving(const struct redis_server *server)
{
	static char text[65536];
	static const char good[] = "rdb_last_bgsave_status:ok";

	if (redis_server_info(server, "persistence", "rdb_bgsave_in_progress"))
		return 1;
	redis_server_command(server, "INFO", "persistence", text, sizeof(text));
	if (!strstr(text, good))
		bench_die("a save has failed");
	return 0;
}

/* How long a save took. *peak: NULL, or the most memory that was seen meanwhile. */
static uint64_t redis_trial_save(const struct redis_server *server, struct redis_memory *peak)
{
	uint64_t from_ns = bench_now_ns();

	redis_trial_begin_save(server);
	do {
		struct redis_memory now;

		redis_trial_sleep(LOOK_NS);
		if (bench_now_ns() - from_ns > SAVE_NS_MAX)
			bench_die("a save does not end");
		if (!peak)
			continue;
		redis_server_memory(server, &now);
		peak->pss_bytes = now.pss_bytes > peak->pss_bytes ? now.pss_bytes : peak->pss_bytes;
		peak->system_bytes = now.system_bytes > peak->system_bytes ? now.system_bytes : peak->system_bytes;
	} while (redis_trial_is_saving(server));
	return bench_now_ns() - from_ns;
}

static void redis_trial_saves(const struct redis_server *server, struct openloop *loop, struct redis_row *row)
{
	double forks_ns[OPENLOOP_SPANS_MAX];
	double saves_ns[OPENLOOP_SPANS_MAX];
	unsigned count = server->plan->saves;
	double half;

	for (unsigned i = 0; i < count; i++) {
		openloop_span_begin(&loop->spans, bench_now_ns());
		saves_ns[i] = (double)redis_trial_save(server, NULL);
		redis_trial_sleep(AFTER_NS);
		openloop_span_end(&loop->spans, bench_now_ns());
		forks_ns[i] = (double)redis_server_info(server, "stats", "latest_fork_usec") * 1e3;
		redis_trial_sleep(server->plan->gap_ns);
	}
	rounds_keep(&row->figures[REDIS_FORK_NS], duel_median(forks_ns, count, &half));
	rounds_keep(&row->figures[REDIS_SAVE_NS], duel_median(saves_ns, count, &half));
}

/* A save that is looked at. */
static void redis_trial_memory(const struct redis_server *server, uint64_t before_bytes, struct redis_row *row)
{
	struct redis_memory peak = {0};

	redis_trial_save(server, &peak);
	rounds_keep(&row->figures[REDIS_PEAK_PSS_BYTES], (double)peak.pss_bytes);
	rounds_keep(&row->figures[REDIS_PEAK_SYSTEM_BYTES], (double)bench_minus(peak.system_bytes, before_bytes));
	rounds_keep(&row->figures[REDIS_PEAK_SERVER_BYTES], (double)memory_status_bytes(server->process, "VmHWM"));
}

/* -------------------------------------------------------------------------------------------------- the record -- */

static void redis_trial_keep_latencies(const struct openloop *loop, enum openloop_class class, enum redis_figure first,
                                       struct redis_row *row)
{
	static const double quantiles[] = {0.5, 0.99, 0.999};
	const struct histogram *latencies = &loop->latencies[class];

	for (unsigned i = 0; i < 3; i++)
		rounds_keep(&row->figures[first + i], histogram_quantile(latencies, quantiles[i]));
	rounds_keep(&row->figures[first + 3], (double)latencies->largest_ns);
}

/* Each request that was due in the record has one latency. */
static void redis_trial_expect_all(const struct openloop *loop)
{
	uint64_t due = openloop_due(loop, loop->record_until_ns) - openloop_due(loop, loop->record_from_ns);
	uint64_t kept = loop->latencies[OPENLOOP_REST].count + loop->latencies[OPENLOOP_SPAN].count;

	if (due != kept)
		bench_die("%llu requests were due, and %llu have a latency", (unsigned long long)due,
		          (unsigned long long)kept);
}

static void redis_trial_open(const struct redis_server *server, uint64_t before_bytes, struct redis_row *row)
{
	struct openloop *loop = &row->loop;

	redis_trial_init_loop(server->plan, loop, OPENLOOP_OPEN);
	redis_trial_connect(server, loop);
	loop->record_until_ns = UINT64_MAX;
	loop->record_from_ns = bench_now_ns() + WARM_NS;
	openloop_start(loop);
	redis_trial_sleep(WARM_NS + server->plan->rest_ns);
	redis_trial_saves(server, loop, row);
	openloop_end_record(loop);
	redis_trial_memory(server, before_bytes, row);
	openloop_stop(loop);
	redis_trial_disconnect(loop);
	redis_trial_expect_all(loop);
	redis_trial_keep_latencies(loop, OPENLOOP_SPAN, REDIS_SAVE_P50_NS, row);
	redis_trial_keep_latencies(loop, OPENLOOP_REST, REDIS_REST_P50_NS, row);
}

void redis_trial(struct redis_plan *plan, enum redis_side_number side, unsigned round, struct redis_row *row)
{
	struct redis_server server;
	struct redis_memory before;
	double rate;

	plan->seed = round + 1;
	redis_server_start(&server, plan, side);
	redis_server_memory(&server, &before);
	redis_trial_closed(&server, OPENLOOP_FILL, &row->loop);
	rate = redis_trial_closed(&server, OPENLOOP_CLOSED, &row->loop);
	rounds_keep(&row->figures[REDIS_REST_OPS], rate);
	if (!plan->requests_per_s)
		plan->requests_per_s = (uint64_t)(rate / 2) + 1;
	redis_trial_open(&server, before.system_bytes, row);
	row->dumps_checked += (unsigned)redis_server_check_dump(&server);
	redis_server_stop(&server);
}
