/* SPDX-License-Identifier: MIT */
/*
 * All together, for long: in one process regions of created shared memory under both deliveries, of anonymous memory,
 * and an adopted one with another process as its mapper, written to by threads (and by the mapper) all the time. One
 * thread does deeds at random: snapshots into callbacks, files, increments and deltas, which run on while it does
 * others; tracks; views; children; punches; growth; pages swapped out; handlers that end. Each image, view, child and
 * track is compared with a shadow as of its cut.
 *
 * A run is made of laps. At the end of a lap all is closed: then descriptors and threads must be as many as at the end
 * of the first lap, and the memory of the process no more than a little above.
 *
 * UFFDWP_STRESS_SECONDS says how long, UFFDWP_SEED repeats the random numbers of a former run.
 */
#include <dirent.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "chance.h"
#include "fault/runtime.h"
#include "mapper.h"
#include "place.h"
#include "scratch.h"
#include "support.h"

#define SECONDS_DEFAULT support_rounds(10, 60)
#define LAP_DEEDS 400
#define PAGES 192
#define GROWN_PAGES 256
#define WRITERS 2 /* of each region but the adopted one */
#define STRIPE 64
#define CHAIN_MOST 12
#define CHILDREN 2
#define GROWTH_BYTES ((uint64_t)16 << 20)

enum soak_kind { SOAK_SHMEM, SOAK_SHMEM_INLINE, SOAK_ANON, SOAK_ADOPTED, SOAK_KINDS };
static const char *const kind_names[] = {"shmem, thread", "shmem, inline", "anonymous", "adopted"};

/* What a snapshot that runs becomes. */
enum soak_sink { SOAK_CALLBACK, SOAK_INCREMENT, SOAK_FILE, SOAK_DELTA, SOAK_SINKS };

struct soak {
	enum soak_kind kind;
	int possible;
	struct uffdwp_region *region;
	uint8_t *base;
	size_t length;
	uint8_t *anonymous;         /* SOAK_ANON: its memory */
	struct mapper_board *board; /* SOAK_ADOPTED */
	uint8_t *shadow;
	pthread_rwlock_t lock;

	struct uffdwp_snapshot *snapshot; /* NULL: none runs */
	enum soak_sink sink;
	int keeps;
	int handler_ended; /* since it began */
	int kept;          /* the last one was, into `image` or into a file */
	enum soak_sink kept_in;
	size_t cut_length;
	uint8_t *at_cut;
	uint8_t *image;
	unsigned chain; /* deltas of the newest file */
	unsigned chain_number;

	struct uffdwp_track *track;
	uint8_t *copy;
	struct uffdwp_view *view;
	uint8_t *view_cut;
	size_t view_length;
};

static struct soak soaks[SOAK_KINDS];
static struct uffdwp *runtime;
static struct uffdwp_child *children[CHILDREN];
static pid_t child_pids[CHILDREN];
static struct mapper_process mapper;
static int memory;
static char folder[SCRATCH_PATH];
static size_t page_bytes;
static struct chance chance;
static _Atomic int stop;
static uint64_t deeds_done;
static uint64_t counts[32];

static size_t random_below(size_t limit)
{
	return chance_below(&chance, limit);
}

static void soak_fail(const struct soak *soak, const char *what, int error)
{
	char text[512] = "";
	(void)uffdwp_error_text(text, sizeof(text));
	if (soak->snapshot)
		(void)uffdwp_snapshot_text(soak->snapshot, text, sizeof(text));
	fprintf(stderr, "seed %llu, deed %llu: %s: %s: %s (%s)\n", (unsigned long long)chance_seed(),
	        (unsigned long long)deeds_done, kind_names[soak->kind], what, strerror(-error), text);
	abort();
}

static void soak_expect(const struct soak *soak, const char *what, int error)
{
	if (error)
		soak_fail(soak, what, error);
}

static void soak_compare(const struct soak *soak, const char *what, const uint8_t *bytes, const uint8_t *expected,
                         size_t length)
{
	size_t at = 0;
	if (memcmp(bytes, expected, length) == 0)
		return;
	while (bytes[at] == expected[at])
		at++;
	fprintf(stderr, "seed %llu, deed %llu: %s: %s: page %zu, +%zu is %02x, was %02x\n",
	        (unsigned long long)chance_seed(), (unsigned long long)deeds_done, kind_names[soak->kind], what,
	        at / page_bytes, at % page_bytes, bytes[at], expected[at]);
	abort();
}

/* --- writers ------------------------------------------------------------------------------------------------------ */

struct writer {
	struct soak *soak;
	size_t index;
	struct chance chance;
	pthread_t thread;
};

static void *soak_write(void *argument)
{
	struct writer *writer = argument;
	struct soak *soak = writer->soak;
	while (!atomic_load(&stop)) {
		uint64_t value = chance_next(&writer->chance);
		must(pthread_rwlock_rdlock(&soak->lock) == 0);
		if (soak->base) {
			size_t page = chance_below(&writer->chance, soak->length / page_bytes);
			size_t rows = page_bytes / (WRITERS * STRIPE);
			size_t row = chance_below(&writer->chance, rows) * WRITERS + writer->index;
			size_t offset = page * page_bytes + row * STRIPE;
			*(volatile uint64_t *)(void *)(soak->base + offset) = value;
			memcpy(soak->shadow + offset, &value, sizeof(value));
		}
		must(pthread_rwlock_unlock(&soak->lock) == 0);
		if (value % 64 == 0)
			sleep_us(value / 64 % 500);
	}
	return NULL;
}

/* No thread writes to the region until soak_resume_writers(). */
static void soak_stop_writers(struct soak *soak)
{
	if (soak->board)
		must(mapper_gate_close(soak->board, NULL) == 0);
	else
		must(pthread_rwlock_wrlock(&soak->lock) == 0);
}

static void soak_resume_writers(struct soak *soak)
{
	if (soak->board)
		mapper_gate_open(soak->board);
	else
		must(pthread_rwlock_unlock(&soak->lock) == 0);
}

/* --- regions ------------------------------------------------------------------------------------------------------ */

static void soak_open_region(struct soak *soak)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	int error;
	soak_stop_writers(soak);
	soak->length = PAGES * page_bytes;
	options.delivery = soak->kind == SOAK_SHMEM_INLINE ? UFFDWP_DELIVERY_INLINE : UFFDWP_DELIVERY_AUTO;
	if (soak->kind == SOAK_ADOPTED) {
		options.fd = memory;
		error = uffdwp_region_adopt(runtime, soak->length, &options, &mapper.mapper, &soak->region);
	} else if (soak->kind == SOAK_ANON) {
		error = uffdwp_region_attach(runtime, soak->anonymous, soak->length, &options, &soak->region);
	} else {
		options.capacity_bytes = GROWN_PAGES * page_bytes;
		error = uffdwp_region_create(runtime, soak->length, &options, &soak->region);
	}
	soak_expect(soak, "open", error);
	uint8_t *base = uffdwp_region_base(soak->region);
	if (!soak->board)
		memcpy(base, soak->shadow, soak->length);
	soak->base = base;
	soak_resume_writers(soak);
}

static void soak_close_region(struct soak *soak)
{
	soak_stop_writers(soak);
	soak->base = NULL;
	soak->kept = 0;
	soak_expect(soak, "close", uffdwp_region_close(soak->region));
	soak_resume_writers(soak);
}

static void soak_begin(struct soak *soak, enum soak_kind kind)
{
	size_t most = GROWN_PAGES * page_bytes;
	soak->kind = kind;
	lock_for_writers_init(&soak->lock);
	uint8_t **buffers[] = {&soak->at_cut, &soak->image, &soak->copy, &soak->view_cut, &soak->anonymous};
	for (size_t i = 0; i < sizeof(buffers) / sizeof(buffers[0]); i++) {
		*buffers[i] = mmap(NULL, most, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		must(*buffers[i] != MAP_FAILED);
		memset(*buffers[i], 1, most); /* so that it counts in the first lap */
	}
	if (soak->board) {
		soak->shadow = soak->board->shadow;
		return;
	}
	soak->shadow = mmap(NULL, most, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(soak->shadow != MAP_FAILED);
	memset(soak->shadow, 2, most);
}

/* --- snapshots ---------------------------------------------------------------------------------------------------- */

static int soak_enter_cut(void *user, uint64_t *length)
{
	(void)length;
	soak_stop_writers(user);
	return 0;
}

static void soak_leave_cut(void *user)
{
	struct soak *soak = user;
	soak->cut_length = soak->length;
	memcpy(soak->at_cut, soak->shadow, soak->length);
	soak_resume_writers(soak);
}

static int soak_take(void *user, uint64_t offset, const void *data, uint64_t length)
{
	struct soak *soak = user;
	memcpy(soak->image + offset, data, length);
	return 0;
}

static void soak_path(const struct soak *soak, unsigned number, char path[SCRATCH_PATH])
{
	char name[64];
	(void)snprintf(name, sizeof(name), "%d-%u-%u", (int)soak->kind, soak->chain_number % 2, number);
	scratch_join(path, folder, name);
}

static enum soak_sink soak_choose_sink(const struct soak *soak)
{
	enum soak_sink sink = (enum soak_sink)random_below(SOAK_SINKS);
	int is_file = soak->kept_in == SOAK_FILE || soak->kept_in == SOAK_DELTA;
	if (sink == SOAK_INCREMENT && (!soak->kept || is_file))
		return SOAK_CALLBACK;
	if (sink == SOAK_DELTA && (!soak->kept || !is_file || soak->chain == CHAIN_MOST))
		return SOAK_FILE;
	return sink;
}

/* An increment is of a length that cannot have shrunk: what it does not say stays. */
static void soak_begin_snapshot(struct soak *soak)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	char path[SCRATCH_PATH];
	char parent[SCRATCH_PATH];
	soak->sink = soak_choose_sink(soak);
	soak->keeps = random_below(4) != 0;
	soak->handler_ended = 0;
	options.flags = (soak->keeps ? UFFDWP_SNAPSHOT_KEEP : 0) |
	                (soak->keeps && random_below(3) == 0 ? UFFDWP_SNAPSHOT_COARSE : 0);
	options.cut_enter = soak_enter_cut;
	options.cut_leave = soak_leave_cut;
	options.cut_user = soak;
	options.wait_ns = 120000000000u;
	if (soak->sink == SOAK_CALLBACK || soak->sink == SOAK_INCREMENT) {
		options.sink = UFFDWP_SINK_CALLBACK;
		options.callback = soak_take;
		options.user = soak;
		options.flags |= soak->sink == SOAK_INCREMENT ? UFFDWP_SNAPSHOT_INCREMENT : 0;
	} else {
		soak->chain = soak->sink == SOAK_DELTA ? soak->chain + 1 : 0;
		soak->chain_number += soak->sink == SOAK_FILE;
		soak_path(soak, soak->chain, path);
		options.path = path;
		if (soak->sink == SOAK_DELTA) {
			soak_path(soak, soak->chain - 1, parent);
			options.parent = parent;
		}
	}
	if (soak->sink == SOAK_CALLBACK)
		memset(soak->image, 0, GROWN_PAGES * page_bytes);
	int error = uffdwp_snapshot_begin(soak->region, &options, &soak->snapshot);
	/* What was lost since, or never is known there, is refused: a full one is next. */
	if ((error == -ENODATA || error == -EOPNOTSUPP) && (soak->sink == SOAK_INCREMENT || soak->sink == SOAK_DELTA)) {
		soak->snapshot = NULL;
		soak->kept = 0;
		counts[20]++;
		return;
	}
	if (error)
		soak->snapshot = NULL;
	soak_expect(soak, "snapshot, begin", error);
}

static void soak_compare_file(struct soak *soak)
{
	char path[SCRATCH_PATH];
	struct uffdwp_image *image;
	soak_path(soak, soak->chain, path);
	soak_expect(soak, "image, open", uffdwp_image_open(path, NULL, &image));
	soak_expect(soak, "image, read", uffdwp_image_read(image, 0, soak->image, soak->cut_length));
	soak_compare(soak, soak->sink == SOAK_DELTA ? "delta" : "file", soak->image, soak->at_cut, soak->cut_length);
	soak_expect(soak, "image, close", uffdwp_image_close(image));
}

static void soak_end_snapshot(struct soak *soak)
{
	int error = uffdwp_snapshot_wait(soak->snapshot, -1, NULL);
	if (error && !(error == -EOWNERDEAD && soak->handler_ended))
		soak_fail(soak, "snapshot, wait", error);
	soak_expect(soak, "snapshot, free", uffdwp_snapshot_free(soak->snapshot));
	soak->snapshot = NULL;
	soak->kept = !error && soak->keeps;
	soak->kept_in = soak->sink;
	counts[error ? 21 : 22 + soak->sink]++;
	if (error)
		return;
	if (soak->sink == SOAK_FILE || soak->sink == SOAK_DELTA)
		soak_compare_file(soak);
	else
		soak_compare(soak, soak->sink == SOAK_INCREMENT ? "increment" : "callback", soak->image, soak->at_cut,
		             soak->cut_length);
}

static void deed_snapshot(struct soak *soak)
{
	if (soak->snapshot)
		soak_end_snapshot(soak);
	else
		soak_begin_snapshot(soak);
}

/* --- tracks ------------------------------------------------------------------------------------------------------- */

static void soak_copy_range(void *user, const struct uffdwp_written *range)
{
	struct soak *soak = user;
	size_t first = (size_t)(range->start - (uint64_t)(uintptr_t)soak->base);
	memcpy(soak->copy + first, soak->shadow + first, (size_t)(range->end - range->start));
}

static void soak_collect(struct soak *soak)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	collect.callback = soak_copy_range;
	collect.user = soak;
	soak_stop_writers(soak);
	soak_expect(soak, "collect", uffdwp_track_collect(soak->track, &collect));
	soak_compare(soak, "track", soak->copy, soak->shadow, PAGES * page_bytes);
	soak_resume_writers(soak);
}

static void soak_end_track(struct soak *soak)
{
	soak_collect(soak);
	soak_expect(soak, "track, stop", uffdwp_track_stop(soak->track));
	soak->track = NULL;
}

static void deed_track(struct soak *soak)
{
	if (soak->track && random_below(4) == 0) {
		soak_end_track(soak);
	} else if (soak->track) {
		soak_collect(soak);
	} else {
		soak_expect(soak, "track, start", uffdwp_track_start(runtime, NULL, &soak->track));
		soak_stop_writers(soak);
		memcpy(soak->copy, soak->shadow, PAGES * page_bytes);
		int error = uffdwp_track_add(soak->track, soak->base, PAGES * page_bytes, 0);
		soak_resume_writers(soak);
		if (error) {
			(void)uffdwp_track_stop(soak->track);
			soak->track = NULL;
		}
		if (error != -EBUSY)
			soak_expect(soak, "track, add", error);
	}
}

/* --- views -------------------------------------------------------------------------------------------------------- */

static int soak_enter_view(void *user)
{
	soak_stop_writers(user);
	return 0;
}

static void soak_leave_view(void *user)
{
	struct soak *soak = user;
	soak->view_length = soak->length;
	memcpy(soak->view_cut, soak->shadow, soak->length);
	soak_resume_writers(soak);
}

static void soak_end_view(struct soak *soak)
{
	soak_compare(soak, "view", uffdwp_view_base(soak->view), soak->view_cut, soak->view_length);
	soak_expect(soak, "view, close", uffdwp_view_close(soak->view));
	soak->view = NULL;
}

static void deed_view(struct soak *soak)
{
	struct uffdwp_view_options options = UFFDWP_VIEW_OPTIONS_INIT;
	options.cut_enter = soak_enter_view;
	options.cut_leave = soak_leave_view;
	options.cut_user = soak;
	if (soak->view) {
		soak_end_view(soak);
		return;
	}
	int error = uffdwp_view_open(soak->region, &options, &soak->view);
	if (error)
		soak->view = NULL;
	if (error != -EBUSY && error != -EOPNOTSUPP)
		soak_expect(soak, "view, open", error);
}

/* --- children ----------------------------------------------------------------------------------------------------- */

static pid_t forking; /* in the child: 0 */

static int soak_enter_fork(void *user)
{
	(void)user;
	forking = getpid();
	soak_stop_writers(&soaks[SOAK_SHMEM]);
	soak_stop_writers(&soaks[SOAK_SHMEM_INLINE]);
	return 0;
}

static void soak_leave_fork(void *user)
{
	(void)user;
	if (getpid() != forking)
		return;
	soak_resume_writers(&soaks[SOAK_SHMEM_INLINE]);
	soak_resume_writers(&soaks[SOAK_SHMEM]);
}

/* Its copy of the shadow is of the same instant. */
static void soak_live_as_child(unsigned pause_us)
{
	int differ = 0;
	for (int round = 0; round < 2; round++) {
		for (int kind = SOAK_SHMEM; kind <= SOAK_SHMEM_INLINE; kind++) {
			const struct soak *soak = &soaks[kind];
			differ |= memcmp(soak->base, soak->shadow, soak->length) != 0 ? 1 << kind : 0;
		}
		sleep_us(pause_us);
	}
	_exit(differ);
}

static void soak_end_child(int index)
{
	int status = -1;
	must(waitpid(child_pids[index], &status, 0) == child_pids[index]);
	must(uffdwp_child_free(children[index]) == 0);
	children[index] = NULL;
	if (status != 0) {
		fprintf(stderr, "seed %llu, deed %llu: a child ended with %#x\n", (unsigned long long)chance_seed(),
		        (unsigned long long)deeds_done, (unsigned)status);
		abort();
	}
}

static void deed_child(struct soak *soak)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	struct uffdwp_region *const regions[] = {soaks[SOAK_SHMEM].region, soaks[SOAK_SHMEM_INLINE].region};
	int index = (int)random_below(CHILDREN);
	unsigned pause_us = (unsigned)random_below(20000);
	(void)soak;
	if (children[index]) {
		soak_end_child(index);
		return;
	}
	if (!soaks[SOAK_SHMEM].possible || !soaks[SOAK_SHMEM_INLINE].possible)
		return;
	options.regions = regions;
	options.region_count = 2;
	options.cut_enter = soak_enter_fork;
	options.cut_leave = soak_leave_fork;
	pid_t pid = uffdwp_fork(runtime, &options, &children[index]);
	if (pid == 0)
		soak_live_as_child(pause_us);
	if (pid < 0)
		children[index] = NULL;
	if (pid < 0 && pid != -EBUSY && pid != -EOPNOTSUPP)
		soak_fail(&soaks[SOAK_SHMEM], "fork", pid);
	child_pids[index] = pid;
}

/* --- other deeds -------------------------------------------------------------------------------------------------- */

static void deed_punch(struct soak *soak)
{
	size_t page = random_below(soak->length / page_bytes);
	size_t left = soak->length / page_bytes - page;
	size_t pages = 1 + random_below(left < 8 ? left : 8);
	soak_stop_writers(soak);
	soak_expect(soak, "punch", uffdwp_region_punch(soak->region, page * page_bytes, pages * page_bytes));
	memset(soak->shadow + page * page_bytes, 0, pages * page_bytes);
	soak_resume_writers(soak);
}

static void deed_grow(struct soak *soak)
{
	size_t length = soak->length + (1 + random_below(8)) * page_bytes;
	if (soak->kind > SOAK_SHMEM_INLINE || length > GROWN_PAGES * page_bytes)
		return;
	soak_stop_writers(soak);
	soak_expect(soak, "grow", uffdwp_region_grow(soak->region, length));
	memset(soak->shadow + soak->length, 0, length - soak->length);
	soak->length = length;
	soak_resume_writers(soak);
}

/* Where there is swap pages go there. */
static void deed_page_out(struct soak *soak)
{
	size_t page = random_below(soak->length / page_bytes);
	size_t pages = 1 + random_below(soak->length / page_bytes - page);
	(void)madvise(soak->base + page * page_bytes, pages * page_bytes, MADV_PAGEOUT);
}

static void deed_compare(struct soak *soak)
{
	soak_stop_writers(soak);
	soak_compare(soak, "memory", soak->base, soak->shadow, soak->length);
	soak_resume_writers(soak);
}

/* Snapshots of all its regions fail. A guard is there again, as after any call that arms: without one regions die. */
static void deed_end_handler(struct soak *soak)
{
	guard_renew(&runtime->guard, runtime->k, runtime->handlers, runtime->handler_count);
	for (int kind = 0; kind < SOAK_KINDS; kind++)
		soaks[kind].handler_ended = 1;
	handler_provoke(soak->region->handler, HANDLER_ENDS);
	for (unsigned i = 0; atomic_load(&runtime->guard.state); i++) { /* until it has taken the place */
		must(i < 60000);
		sleep_us(1000);
	}
}

static const struct {
	const char *name;
	void (*function)(struct soak *);
	unsigned weight;
} deeds[] = {
        {"snapshots", deed_snapshot, 30}, {"tracks", deed_track, 20},       {"views", deed_view, 12},
        {"children", deed_child, 5},      {"punches", deed_punch, 10},      {"growth", deed_grow, 4},
        {"pages out", deed_page_out, 5},  {"comparisons", deed_compare, 5}, {"handlers ended", deed_end_handler, 1},
};
#define DEEDS (sizeof(deeds) / sizeof(deeds[0]))

static void soak_do_something(void)
{
	struct soak *soak = &soaks[random_below(SOAK_KINDS)];
	size_t number = 0;
	size_t sum = 0;
	for (size_t i = 0; i < DEEDS; i++)
		sum += deeds[i].weight;
	size_t at = random_below(sum);
	while (at >= deeds[number].weight)
		at -= deeds[number++].weight;
	if (!soak->possible)
		return;
	deeds[number].function(soak);
	counts[number]++;
	deeds_done++;
}

/* --- laps --------------------------------------------------------------------------------------------------------- */

struct size_of_all {
	size_t descriptors;
	size_t threads;
	uint64_t resident;
	uint64_t proportional;
};

static uint64_t soak_rollup(const char *key)
{
	char line[256];
	unsigned long long kilobytes = 0;
	FILE *file = fopen("/proc/self/smaps_rollup", "re");
	while (file && fgets(line, sizeof(line), file)) {
		if (strncmp(line, key, strlen(key)) == 0)
			kilobytes = strtoull(line + strlen(key), NULL, 10);
	}
	if (file)
		(void)fclose(file);
	return kilobytes * 1024;
}

static struct size_of_all soak_measure(void)
{
	return (struct size_of_all){scratch_open_files(), scratch_entries("/proc/self/task"), soak_rollup("Rss:"),
	                            soak_rollup("Pss:")};
}

static void soak_run_lap(uint64_t until_s)
{
	must(uffdwp_open(NULL, &runtime) == 0);
	for (int kind = 0; kind < SOAK_KINDS; kind++) {
		if (soaks[kind].possible)
			soak_open_region(&soaks[kind]);
	}
	for (unsigned i = 0; i < LAP_DEEDS && (uint64_t)time(NULL) < until_s; i++)
		soak_do_something();
	for (int i = 0; i < CHILDREN; i++) {
		if (children[i])
			soak_end_child(i);
	}
	for (int kind = 0; kind < SOAK_KINDS; kind++) {
		struct soak *soak = &soaks[kind];
		if (!soak->possible)
			continue;
		if (soak->snapshot)
			soak_end_snapshot(soak);
		if (soak->track)
			soak_end_track(soak);
		if (soak->view)
			soak_end_view(soak);
		soak_close_region(soak);
	}
	must(uffdwp_close(runtime) == 0);
}

static void soak_expect_flat(const struct size_of_all *first, const struct size_of_all *last)
{
	printf("descriptors %zu, then %zu; threads %zu, then %zu; KiB resident %llu, then %llu; proportional %llu, "
	       "then %llu\n",
	       first->descriptors, last->descriptors, first->threads, last->threads,
	       (unsigned long long)first->resident >> 10, (unsigned long long)last->resident >> 10,
	       (unsigned long long)first->proportional >> 10, (unsigned long long)last->proportional >> 10);
	must(last->descriptors == first->descriptors);
	must(last->threads == first->threads);
	must(last->resident < first->resident + GROWTH_BYTES);
	must(last->proportional < first->proportional + GROWTH_BYTES);
}

static void soak_report(void)
{
	for (size_t i = 0; i < DEEDS; i++)
		printf("%s%s %llu", i ? ", " : "", deeds[i].name, (unsigned long long)counts[i]);
	printf("; increments refused %llu, snapshots that failed with their handler %llu, images: callback %llu, "
	       "increment %llu, file %llu, delta %llu\n",
	       (unsigned long long)counts[20], (unsigned long long)counts[21], (unsigned long long)counts[22],
	       (unsigned long long)counts[23], (unsigned long long)counts[24], (unsigned long long)counts[25]);
}

/* The mapper first: it is made by fork(), and inherits no threads. */
static void soak_prepare(void)
{
	page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	chance = chance_new(1);
	scratch_folder(folder);
	memory = mapper_memory(PAGES * page_bytes, 0, &soaks[SOAK_ADOPTED].board);
	soaks[SOAK_ADOPTED].possible =
	        mapper_start(&mapper, soaks[SOAK_ADOPTED].board, memory, 0, MAPPER_WRITES, 0) == 0;
	struct place_case inlined = place_any(UFFDWP_MEMORY_SHMEM);
	inlined.delivery = UFFDWP_DELIVERY_INLINE;
	soaks[SOAK_SHMEM].possible = place_possible(place_any(UFFDWP_MEMORY_SHMEM));
	soaks[SOAK_SHMEM_INLINE].possible = place_possible(inlined);
	soaks[SOAK_ANON].possible = place_possible(place_any(UFFDWP_MEMORY_ANON));
	for (int kind = 0; kind < SOAK_KINDS; kind++)
		soak_begin(&soaks[kind], (enum soak_kind)kind);
}

START_TEST(test_all_together_is_right_and_takes_no_more_at_the_end)
{
	static struct writer writers[SOAK_KINDS * WRITERS];
	const char *asked = getenv("UFFDWP_STRESS_SECONDS");
	uint64_t seconds = asked ? strtoull(asked, NULL, 10) : SECONDS_DEFAULT;
	uint64_t until_s = (uint64_t)time(NULL) + seconds;
	struct size_of_all first = {0};
	struct size_of_all last = {0};
	uint64_t laps = 0;
	soak_prepare();
	for (size_t i = 0; i < SOAK_ADOPTED * WRITERS; i++) {
		writers[i] = (struct writer){&soaks[i / WRITERS], i % WRITERS, chance_new(100 + i), 0};
		writers[i].thread = thread_start(soak_write, &writers[i]);
	}
	for (; laps < 2 || (uint64_t)time(NULL) < until_s; laps++) {
		soak_run_lap(laps < 2 ? UINT64_MAX : until_s);
		last = soak_measure();
		if (laps == 0)
			first = last;
	}
	soak_report();
	printf("%llu laps; ", (unsigned long long)laps);
	soak_expect_flat(&first, &last);
	atomic_store(&stop, 1);
	for (size_t i = 0; i < SOAK_ADOPTED * WRITERS; i++)
		thread_join(writers[i].thread);
	atomic_store(&soaks[SOAK_ADOPTED].board->stop, 1);
	if (soaks[SOAK_ADOPTED].possible)
		mapper_end(&mapper);
}
END_TEST

int main(void)
{
	support_begin(TEST_NAME, &(struct support_needs){.huge_pages = 0});
	place_begin();
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("soak");
	tcase_set_timeout(tcase, 0);
	tcase_add_test(tcase, test_all_together_is_right_and_takes_no_more_at_the_end);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
