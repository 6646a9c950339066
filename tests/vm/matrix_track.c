/* SPDX-License-Identifier: MIT */
/*
 * The matrix of tracks: what each method to track does on the kernel that runs this, for each memory. A program of its
 * own, by the public interface and the judge of the tests (track_judge.h). It prints, for run.sh and for people,
 *
 *     track VERDICT MEMORY by METHOD: DETAIL
 *
 * where the verdict is proved (everything that was written was reported, by counts and by content, while threads wrote,
 * ranges came and went, and memory was discarded, swapped out and moved), refused (the library said why) or failed.
 *
 * usage: track [--only=TEXT]
 * UFFDWP_SEED repeats a run. Exit code: 0, or 1 when something failed.
 *
 * Threads: a cell runs in a process of its own, so that one that crashes or hangs is a failed cell and no more. All of
 * it is bounded by counts: an emulated machine may take its time.
 *
 * What must never happen: a cell counts as proved without a check.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pace.h"
#include "place.h"
#include "support.h"
#include "track_actors.h"
#include "track_collector.h"

/* A bound against hanging, not a measure. */
#define CELL_SECONDS (120 + (int)(6 * pace_slowness()))
#define WRITERS 2
#define WRITES 600 /* of each writer */
#define DEEDS 80
#define CHANGES 20
#define TIME_LIMIT_S 2
#define CELLS ((int)FIELD_MEMORIES * FIELD_METHODS)

enum verdict { PROVED, REFUSED, FAILED };

struct outcome {
	enum verdict verdict;
	char text[400];
};

struct actor {
	pthread_t thread;
	struct chance chance;
	size_t role;
};

static struct field field;
static struct judge judge;
static struct actors actors;
static _Atomic int acting;

static void *act(void *argument)
{
	struct actor *actor = argument;
	unsigned count = actor->role < WRITERS ? WRITES : actor->role == WRITERS ? CHANGES : DEEDS;
	for (unsigned i = 0; i < count; i++) {
		if (actor->role < WRITERS) {
			actor_write(&actors, &actor->chance, actor->role);
		} else if (actor->role == WRITERS) {
			actor_change(&actors, &actor->chance);
			sleep_us(2000);
		} else {
			actor_spoil(&actors, &actor->chance);
			sleep_us(500);
		}
	}
	atomic_fetch_sub(&acting, 1);
	return NULL;
}

/* 1: all that was written is in the answers, and the copy that is made of them equals the memory. */
static int is_settled(struct collector *collector)
{
	for (unsigned waited_ms = 0; waited_ms < pace_seconds(TIME_LIMIT_S) * 1000; waited_ms++) {
		collector_ask_all(collector);
		if (judge_differs(&judge) == 0) {
			return 1;
		}
		if (field_is_async(&field)) {
			return 0;
		}
		sleep_us(1000);
	}
	return 0;
}

static void play_actors(struct collector *collector)
{
	struct actor players[WRITERS + 2];
	atomic_store(&acting, WRITERS + 2);
	for (size_t i = 0; i < WRITERS + 2; i++) {
		players[i].role = i;
		players[i].chance = chance_new(10 + i);
		players[i].thread = thread_start(act, &players[i]);
	}
	while (atomic_load(&acting) > 0) {
		collector_ask(collector);
		sleep_us(chance_below(&collector->chance, 300));
	}
	for (size_t i = 0; i < WRITERS + 2; i++) {
		thread_join(players[i].thread);
	}
}

static void judge_cell(struct outcome *outcome)
{
	struct collector collector;
	collector_open(&collector, &judge, collect_by_library, 20);
	collector.alone = 1;
	int settled = is_settled(&collector);
	play_actors(&collector);
	settled &= is_settled(&collector);
	judge_compare(&judge);
	outcome->verdict = settled && judge.late == 0 && judge.missed == 0 && judge.reported > 0 ? PROVED : FAILED;
	(void)snprintf(outcome->text, sizeof(outcome->text),
	               "writes=%llu collects=%llu reported=%llu over=%llu late=%llu missed=%llu",
	               (unsigned long long)atomic_load(&actors.writes), (unsigned long long)judge.collects,
	               (unsigned long long)judge.reported, (unsigned long long)judge.over,
	               (unsigned long long)judge.late, (unsigned long long)judge.missed);
	collector_close(&collector);
}

/* As a user would: block by block. 0; or -errno, refused. */
static int add_blocks(void)
{
	for (size_t block = 0; block < field.blocks; block++) {
		size_t page = block * field.block_pages;
		int error = uffdwp_track_add(field.track, field_address(&field, page), field.block_bytes, 0);
		if (error != 0) {
			return error;
		}
		judge_watch(&judge, page, field.block_pages);
	}
	return 0;
}

static void play(int cell, struct outcome *outcome)
{
	const struct field_method *method = &field_methods[cell % FIELD_METHODS];
	enum field_memory memory = (enum field_memory)(cell / FIELD_METHODS);
	outcome->verdict = REFUSED;
	if (field_open(&field, memory, method, outcome->text, sizeof(outcome->text)) != 0) {
		return;
	}
	for (size_t page = 0; page < field.pages; page++) {
		memset(field_address(&field, page), 1, field.page_bytes);
	}
	judge_open(&judge, &field, STAGE_ROLES);
	actors_open(&actors, &field, &judge);
	if (add_blocks() != 0) {
		(void)uffdwp_error_text(outcome->text, sizeof(outcome->text));
	} else {
		judge_cell(outcome);
	}
	field_close(&field);
}

/* Waits for a child, with a bound. The wait status, or -1 when it had to be killed. */
static int await(pid_t child, int end)
{
	struct pollfd closed = {.fd = end, .events = 0};
	int status = 0;
	int came = poll(&closed, 1, CELL_SECONDS * 1000);
	if (came == 0) {
		(void)kill(child, SIGKILL);
	}
	(void)waitpid(child, &status, 0);
	return came == 0 ? -1 : status;
}

/* In a process of its own; what came of it is in the outcome, which both share. */
static void play_apart(int cell, struct outcome *outcome)
{
	int ends[2];
	*outcome = (struct outcome){FAILED, "the cell ended without a word"};
	must(pipe(ends) == 0);
	(void)fflush(stdout);
	pid_t child = fork();
	must(child >= 0);
	if (child == 0) {
		(void)close(ends[0]);
		play(cell, outcome);
		_exit(0);
	}
	(void)close(ends[1]);
	int status = await(child, ends[0]);
	(void)close(ends[0]);
	if (status != 0) {
		outcome->verdict = FAILED;
		(void)snprintf(outcome->text, sizeof(outcome->text), status == -1 ? "no end" : "killed by signal %d",
		               WTERMSIG(status));
	}
}

static int cell_fails(int cell, const char *only, struct outcome *outcome)
{
	static const char *const verdicts[] = {"proved", "refused", "failed"};
	const struct field_method *method = &field_methods[cell % FIELD_METHODS];
	enum field_memory memory = (enum field_memory)(cell / FIELD_METHODS);
	char name[80];
	(void)snprintf(name, sizeof(name), "%s by %s", field_memory_name(memory), method->name);
	if (field_pointless(memory, method) || (only != NULL && strstr(name, only) == NULL)) {
		return 0;
	}
	play_apart(cell, outcome);
	printf("track %s %s: %s\n", verdicts[outcome->verdict], name, outcome->text);
	return outcome->verdict == FAILED;
}

int main(int argc, char **argv)
{
	const char *only = NULL;
	int failed = 0;
	for (int i = 1; i < argc; i++) {
		if (strncmp(argv[i], "--only=", 7) != 0) {
			return 2;
		}
		only = argv[i] + 7;
	}
	support_begin("track", &(struct support_needs){.huge_pages = 8, .swap = 1});
	place_begin();
	struct outcome *outcome =
	        mmap(NULL, sizeof(*outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(outcome != MAP_FAILED);
	for (int cell = 0; cell < CELLS; cell++) {
		failed |= cell_fails(cell, only, outcome);
	}
	return failed;
}
