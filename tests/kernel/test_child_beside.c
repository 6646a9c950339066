/* SPDX-License-Identifier: MIT */
/*
 * Children of uffdwp_fork() that are made while a snapshot of their region runs. Writers keep a shadow under a lock
 * that all cuts take, and note which pages they write: so a child has the shadow of its instant (by fork(2) itself), a
 * snapshot a copy of it, and an increment the pages that were written since the cut before, neither more nor less.
 *
 *   step by step   a snapshot that is stopped in the middle, a child, and writes to pages of each kind that the cut of
 * the child can meet, for each pair of armings; twice, so that a page is saved for two cuts in turn at random      one
 * thread takes snapshots one after the other, in full or increments, aborts some; another makes children; writers and
 * punches go on; with a track and without
 *
 * UFFDWP_CHILDREN=N makes so many in each case.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chance.h"
#include "image.h"
#include "place.h"
#include "shadow.h"
#include "support.h"

#define PAGES 256
#define LIVE_MOST 4
#define WRITERS 2
#define PUNCH_MOST 5

/* Exit codes of children that are right and wrong. */
#define RIGHT 7
#define WRONG 9

static struct place place;
static struct shadow shadow = {.place = &place};
static _Atomic uint8_t dirty[PAGES]; /* written since the last cut of a snapshot */

static int is_as_shadow(void)
{
	return memcmp(place.base, shadow.bytes, place.length_bytes) == 0;
}

/* --- cuts --------------------------------------------------------------------------------------------------------- */

static int enter_fork(void *user)
{
	(void)user;
	must(pthread_rwlock_wrlock(&shadow.lock) == 0);
	return 0;
}

static void leave_cut(void *user)
{
	(void)user;
	must(pthread_rwlock_unlock(&shadow.lock) == 0);
}

/* What a snapshot is to show. */
struct expected {
	uint8_t *bytes;
	uint8_t dirty[PAGES];
};

static int enter_snapshot(void *user, uint64_t *length)
{
	struct expected *expected = user;
	(void)length;
	must(pthread_rwlock_wrlock(&shadow.lock) == 0);
	memcpy(expected->bytes, shadow.bytes, place.length_bytes);
	for (size_t page = 0; page < PAGES; page++) {
		expected->dirty[page] = atomic_exchange(&dirty[page], 0);
	}
	return 0;
}

static void expect_all(const struct image *image, const struct expected *expected)
{
	size_t at = image_difference(image, expected->bytes);
	ck_assert_msg(at == place.length_bytes, "a snapshot differs at page %zu", at / place.page_bytes);
}

/* The pages that were written, and no other. */
static void expect_increment(const struct image *image, const struct expected *expected)
{
	size_t small = place.length_bytes / PAGES;
	for (size_t page = 0; page < PAGES; page++) {
		int seen = image->seen[page * small / 4096] != 0;
		int same = memcmp(image->bytes + page * small, expected->bytes + page * small, small) == 0;
		ck_assert_msg(!seen || expected->dirty[page], "an increment has page %zu, which was not written", page);
		ck_assert_msg(!expected->dirty[page] || same, "an increment differs at page %zu, seen %d", page, seen);
	}
}

/* --- a snapshot that is stopped in the middle
 * -------------------------------------------------------------------------- */

static struct {
	pthread_mutex_t lock;
	pthread_cond_t changed;
	int is_open;
	int calls;
	struct image *image;
} gate = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

static int take_at_gate(void *user, uint64_t offset, const void *data, uint64_t length)
{
	struct image *image = user;
	must(pthread_mutex_lock(&gate.lock) == 0);
	gate.calls++;
	(void)pthread_cond_broadcast(&gate.changed);
	while (!gate.is_open) {
		(void)pthread_cond_wait(&gate.changed, &gate.lock);
	}
	must(pthread_mutex_unlock(&gate.lock) == 0);
	memcpy(image->bytes + offset, data, length);
	for (uint64_t at = offset; at < offset + length; at += 4096) {
		image->seen[at / 4096]++;
	}
	return 0;
}

static void open_gate(void)
{
	must(pthread_mutex_lock(&gate.lock) == 0);
	gate.is_open = 1;
	(void)pthread_cond_broadcast(&gate.changed);
	must(pthread_mutex_unlock(&gate.lock) == 0);
}

static void await_call(void)
{
	must(pthread_mutex_lock(&gate.lock) == 0);
	while (gate.calls == 0) {
		(void)pthread_cond_wait(&gate.changed, &gate.lock);
	}
	must(pthread_mutex_unlock(&gate.lock) == 0);
}

/* Some of its pages are swept when it returns, and others are not. */
static void begin_at_gate(struct image *image, struct expected *expected, uint32_t arming, uint32_t flags)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	uint64_t length = 0;
	gate.is_open = 0;
	gate.calls = 0;
	image_prepare(image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = take_at_gate;
	options.user = image;
	options.arming = arming;
	options.flags = flags;
	options.pool_bytes = 400 * place.page_bytes; /* chunks of 50 pages */
	options.window_max = 1;
	must(enter_snapshot(expected, &length) == 0);
	int error = uffdwp_snapshot_begin(place.region, &options, &image->snapshot);
	leave_cut(NULL);
	char text[512];
	uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(error == 0, "uffdwp_snapshot_begin: %d, %s", error, text);
	await_call();
}

static void write_page(size_t page, uint8_t value)
{
	size_t at = page * place.page_bytes + 8;
	place.base[at] = value;
	shadow.bytes[at] = value;
	atomic_store(&dirty[page], 1);
}

static pid_t fork_armed(uint32_t arming, struct uffdwp_child **child)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	char text[512];
	sigset_t wanted;
	sigemptyset(&wanted);
	sigaddset(&wanted, SIGUSR1);
	sigprocmask(SIG_BLOCK, &wanted, NULL);
	options.arming = arming;
	pid_t pid = uffdwp_fork(place.runtime, &options, child);
	if (pid == 0) { /* until a signal comes */
		int right = is_as_shadow();
		int got = 0;
		sigwait(&wanted, &got);
		_exit(right && is_as_shadow() ? RIGHT : WRONG);
	}
	uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(pid > 0, "uffdwp_fork: %d, %s", (int)pid, pid > 0 ? "" : text);
	return pid;
}

static void end_right(pid_t pid, struct uffdwp_child *child)
{
	int status = 0;
	ck_assert_int_eq(kill(pid, SIGUSR1), 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, RIGHT << 8);
	ck_assert_int_eq(uffdwp_child_free(child), 0);
}

static int has_nothing_armed(void *region)
{
	uint64_t armed = 1;
	must(uffdwp_region_armed(region, 0, place.length_bytes, &armed) == 0);
	return armed == 0;
}

/* Every third page: what the sweep has not come to is saved by its writer, what it has is not. */
static void write_some(size_t first, uint8_t value)
{
	for (size_t page = first; page < PAGES; page += 3) {
		write_page(page, value);
	}
}

static void expect_page(size_t page, uint8_t value)
{
	ck_assert_uint_eq(place.base[page * place.page_bytes + 8], value);
}

static void run_step_by_step(uint32_t snapshot_arming, uint32_t fork_arming, uint32_t flags)
{
	struct expected expected = {.bytes = malloc(place.length_bytes)};
	struct uffdwp_child *children[3];
	struct image image;
	pid_t pids[3];
	must(expected.bytes != NULL);
	begin_at_gate(&image, &expected, snapshot_arming, flags);
	write_some(0, 11);
	pids[0] = fork_armed(fork_arming, &children[0]); /* pages 0, 3, ...: saved, or swept and written */
	write_some(0, 22);
	write_some(1, 33);
	pids[1] = fork_armed(fork_arming, &children[1]); /* the same, and some are saved and armed */
	pids[2] = fork_armed(fork_arming, &children[2]);
	write_some(0, 44);
	end_right(pids[0], children[0]);
	open_gate();
	ck_assert_int_eq(uffdwp_snapshot_wait(image.snapshot, -1, NULL), 0);
	if (flags & UFFDWP_SNAPSHOT_INCREMENT) {
		expect_increment(&image, &expected);
	} else {
		expect_all(&image, &expected);
	}
	write_some(2, 55);
	end_right(pids[1], children[1]);
	image_free(&image);
	end_right(pids[2], children[2]);
	expect_page(0, 44);
	free(expected.bytes);
}

static void run_pair(uint32_t snapshot_arming, uint32_t fork_arming)
{
	run_step_by_step(snapshot_arming, fork_arming, 0);
	ck_assert(wait_until(has_nothing_armed, place.region, 20));
	run_step_by_step(snapshot_arming, fork_arming, UFFDWP_SNAPSHOT_KEEP);
	run_step_by_step(snapshot_arming, fork_arming, UFFDWP_SNAPSHOT_KEEP | UFFDWP_SNAPSHOT_INCREMENT);
	run_step_by_step(snapshot_arming, fork_arming, UFFDWP_SNAPSHOT_KEEP | UFFDWP_SNAPSHOT_INCREMENT);
	run_step_by_step(snapshot_arming, fork_arming, UFFDWP_SNAPSHOT_INCREMENT);
	ck_assert(wait_until(has_nothing_armed, place.region, 20));
}

static void begin_case(struct place_case which)
{
	lock_for_writers_init(&shadow.lock);
	place_open(&place, which, PAGES);
	shadow.bytes = calloc(1, place.length_bytes);
	ck_assert_ptr_nonnull(shadow.bytes);
	for (size_t page = 0; page < PAGES; page++) {
		write_page(page, (uint8_t)(page | 1));
	}
}

static void end_case(void)
{
	ck_assert_int_eq(memcmp(place.base, shadow.bytes, place.length_bytes), 0);
	free(shadow.bytes);
	place_close(&place);
}

START_TEST(test_a_cut_beside_a_snapshot)
{
	struct place_case which = place_case(_i);
	if (!place_possible(which) || which.memory != UFFDWP_MEMORY_SHMEM || !place_has_increments(which)) {
		return;
	}
	begin_case(which);
	run_pair(UFFDWP_ARMING_ROUNDS, UFFDWP_ARMING_ROUNDS);
	if (place_moves(which) && (place_report()->memory[which.memory].fills & UFFDWP_PROBE_FILL_CONTINUE_WP)) {
		run_pair(UFFDWP_ARMING_ROUNDS, UFFDWP_ARMING_MOVE);
		run_pair(UFFDWP_ARMING_MOVE, UFFDWP_ARMING_ROUNDS);
		run_pair(UFFDWP_ARMING_MOVE, UFFDWP_ARMING_MOVE);
	}
	end_case();
}
END_TEST

/* What the region grows by while the snapshot runs is a later child's, and not the snapshot's. */
START_TEST(test_the_region_grows_between)
{
	struct place_case which = place_case(_i);
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct expected expected = {0};
	struct uffdwp_child *children[2];
	struct image image;
	pid_t pids[2];
	if (!place_possible(which) || which.memory != UFFDWP_MEMORY_SHMEM || !place_has_increments(which)) {
		return;
	}
	options.capacity_bytes = 2 * PAGES * place_page_bytes(which.memory);
	lock_for_writers_init(&shadow.lock);
	place_open_with(&place, which, PAGES, &options);
	shadow.bytes = calloc(1, options.capacity_bytes);
	ck_assert_ptr_nonnull(shadow.bytes);
	expected.bytes = malloc(place.length_bytes);
	must(expected.bytes != NULL);
	write_some(0, 11);
	begin_at_gate(&image, &expected, UFFDWP_ARMING_AUTO, 0);
	pids[0] = fork_armed(UFFDWP_ARMING_AUTO, &children[0]);
	ck_assert_int_eq(uffdwp_region_grow(place.region, options.capacity_bytes), 0);
	memset(place.base + place.length_bytes, 22, place.length_bytes);
	memset(shadow.bytes + place.length_bytes, 22, place.length_bytes);
	write_some(0, 22);
	place.length_bytes *= 2; /* what children compare */
	pids[1] = fork_armed(UFFDWP_ARMING_AUTO, &children[1]);
	place.length_bytes /= 2;
	memset(place.base + place.length_bytes, 33, place.length_bytes);
	memset(shadow.bytes + place.length_bytes, 33, place.length_bytes);
	write_some(1, 33);
	open_gate();
	ck_assert_int_eq(uffdwp_snapshot_wait(image.snapshot, -1, NULL), 0);
	expect_all(&image, &expected);
	image_free(&image);
	memset(place.base + place.length_bytes, 44, place.length_bytes);
	memset(shadow.bytes + place.length_bytes, 44, place.length_bytes);
	for (int i = 0; i < 2; i++) {
		end_right(pids[i], children[i]);
	}
	ck_assert(wait_until(has_nothing_armed, place.region, 20));
	free(expected.bytes);
	end_case();
}
END_TEST

/* The snapshot fails while a child lives that was made beside it: the child keeps its instant. */
START_TEST(test_the_snapshot_is_aborted)
{
	struct place_case which = place_case(_i);
	struct expected expected = {0};
	struct uffdwp_child *child = NULL;
	struct image image;
	if (!place_possible(which) || which.memory != UFFDWP_MEMORY_SHMEM || !place_has_increments(which)) {
		return;
	}
	begin_case(which);
	expected.bytes = malloc(place.length_bytes);
	must(expected.bytes != NULL);
	begin_at_gate(&image, &expected, UFFDWP_ARMING_AUTO, 0);
	write_some(0, 11);
	pid_t pid = fork_armed(UFFDWP_ARMING_AUTO, &child);
	ck_assert_int_eq(uffdwp_snapshot_abort(image.snapshot), 0);
	write_some(0, 22);
	write_some(1, 33);
	open_gate();
	ck_assert_int_eq(uffdwp_snapshot_wait(image.snapshot, -1, NULL), -ECANCELED);
	write_some(2, 44);
	image_free(&image);
	end_right(pid, child);
	ck_assert(wait_until(has_nothing_armed, place.region, 20));
	free(expected.bytes);
	end_case();
}
END_TEST

/* --- at random ---------------------------------------------------------------------------------------------------- */

static struct {
	_Atomic int stop;
	_Atomic int runs; /* a snapshot does */
	unsigned snapshots;
	unsigned increments;
	unsigned aborted;
	unsigned children;
	unsigned beside;
} seen;

struct writer {
	size_t index;
	struct chance chance;
};

static void note_dirty(size_t page, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		atomic_store(&dirty[page + i], 1);
	}
}

static void write_stripe(struct writer *writer)
{
	size_t rows = place.length_bytes / (SHADOW_STRIPE * WRITERS);
	size_t offset = (chance_below(&writer->chance, rows) * WRITERS + writer->index) * SHADOW_STRIPE;
	must(pthread_rwlock_rdlock(&shadow.lock) == 0);
	chance_fill(&writer->chance, shadow.bytes + offset, SHADOW_STRIPE);
	memcpy(place.base + offset, shadow.bytes + offset, SHADOW_STRIPE);
	note_dirty(offset / place.page_bytes, 1);
	must(pthread_rwlock_unlock(&shadow.lock) == 0);
}

static void punch(struct writer *writer)
{
	size_t page = chance_below(&writer->chance, PAGES - PUNCH_MOST);
	size_t pages = 1 + chance_below(&writer->chance, PUNCH_MOST);
	must(pthread_rwlock_wrlock(&shadow.lock) == 0);
	must(uffdwp_region_punch(place.region, page * place.page_bytes, pages * place.page_bytes) == 0);
	memset(shadow.bytes + page * place.page_bytes, 0, pages * place.page_bytes);
	note_dirty(page, pages);
	must(pthread_rwlock_unlock(&shadow.lock) == 0);
}

static void *write_for_ever(void *argument)
{
	struct writer *writer = argument;
	while (!atomic_load(&seen.stop)) {
		if (chance_below(&writer->chance, 200) == 0) {
			punch(writer);
		} else {
			write_stripe(writer);
		}
		if (chance_below(&writer->chance, 8) == 0) {
			sleep_us(100);
		}
	}
	return NULL;
}

static uint32_t random_arming(struct chance *chance)
{
	static const uint32_t armings[] = {UFFDWP_ARMING_AUTO, UFFDWP_ARMING_ROUNDS, UFFDWP_ARMING_MOVE};
	return armings[chance_below(chance, 3)];
}

/* Another cut may be prepared just now; and page tables cannot be moved everywhere. */
static int begins_again(int error, uint32_t *arming)
{
	if (error == -EOPNOTSUPP && *arming == UFFDWP_ARMING_MOVE) {
		*arming = UFFDWP_ARMING_ROUNDS;
		return 1;
	}
	if (error == -EBUSY) {
		sleep_us(200);
	}
	return error == -EBUSY;
}

static struct uffdwp_snapshot_options random_options(struct chance *chance, struct expected *expected, int has_kept)
{
	static const uint64_t rates[] = {0, 8u << 20, 32u << 20};
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.flags = chance_below(chance, 3) ? UFFDWP_SNAPSHOT_KEEP : 0;
	options.flags |= has_kept && chance_below(chance, 3) ? UFFDWP_SNAPSHOT_INCREMENT : 0;
	options.arming = random_arming(chance);
	options.rate_bytes = rates[chance_below(chance, 3)];
	options.pool_bytes = (32 + chance_below(chance, PAGES)) * place.page_bytes;
	options.wait_ns = 60000000000u;
	options.cut_enter = enter_snapshot;
	options.cut_leave = leave_cut;
	options.cut_user = expected;
	return options;
}

/* 1: the next may be an increment. */
static int take_snapshot(struct chance *chance, struct expected *expected, int has_kept)
{
	struct uffdwp_snapshot_options options = random_options(chance, expected, has_kept);
	int increment = (options.flags & UFFDWP_SNAPSHOT_INCREMENT) != 0;
	int aborts = chance_below(chance, 8) == 0;
	struct image image;
	char text[512] = "";
	int error = 0;
	image_prepare(&image, increment ? UFFDWP_SINK_CALLBACK : (enum uffdwp_sink)chance_below(chance, 3),
	              place.length_bytes);
	do {
		error = image_begin(&image, place.region, &options);
	} while (begins_again(error, &options.arming));
	uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(error == 0, "uffdwp_snapshot_begin: %d, %s", error, text);
	atomic_store(&seen.runs, 1);
	if (aborts) {
		sleep_us(chance_below(chance, 5000));
		ck_assert_int_eq(uffdwp_snapshot_abort(image.snapshot), 0);
	}
	int result = image_finish(&image, NULL);
	uffdwp_snapshot_text(image.snapshot, text, sizeof(text));
	atomic_store(&seen.runs, 0);
	ck_assert_msg(result == 0 || (aborts && result == -ECANCELED), "a snapshot failed: %d, %s", result, text);
	if (result == 0 && increment) {
		expect_increment(&image, expected);
	} else if (result == 0) {
		expect_all(&image, expected);
	}
	seen.snapshots++;
	seen.increments += result == 0 && increment;
	seen.aborted += result != 0;
	image_free(&image);
	return result == 0 && (options.flags & UFFDWP_SNAPSHOT_KEEP);
}

static void *take_snapshots(void *argument)
{
	struct chance chance = chance_new(7);
	struct expected expected = {.bytes = malloc(place.length_bytes)};
	int has_kept = 0;
	(void)argument;
	must(expected.bytes != NULL);
	while (!atomic_load(&seen.stop)) {
		has_kept = take_snapshot(&chance, &expected, has_kept);
		if (chance_below(&chance, 3) == 0) {
			sleep_us(chance_below(&chance, 5000));
		}
	}
	free(expected.bytes);
	return NULL;
}

struct born {
	pid_t pid;
	struct uffdwp_child *child;
};

static void child_lives(struct chance *chance)
{
	int right = is_as_shadow();
	for (size_t i = chance_below(chance, 3); i > 0; i--) {
		size_t at = chance_below(chance, place.length_bytes / SHADOW_STRIPE) * SHADOW_STRIPE;
		chance_fill(chance, shadow.bytes + at, SHADOW_STRIPE);
		memcpy(place.base + at, shadow.bytes + at, SHADOW_STRIPE);
		sleep_us(chance_below(chance, 4000));
		right = right && is_as_shadow();
	}
	sleep_us(chance_below(chance, 8000));
	_exit(right && is_as_shadow() ? RIGHT : WRONG);
}

static void bear(struct born *born, struct chance *chance)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	struct chance own = chance_new(chance_next(chance));
	char text[512] = "";
	pid_t pid = 0;
	options.cut_enter = enter_fork;
	options.cut_leave = leave_cut;
	options.flags = chance_below(chance, 2) ? UFFDWP_FORK_BARE : 0;
	options.arming = random_arming(chance);
	do {
		pid = uffdwp_fork(place.runtime, &options, &born->child);
		if (pid == 0) {
			child_lives(&own);
		}
	} while (begins_again((int)pid, &options.arming));
	uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(pid > 0, "uffdwp_fork: %d, %s", (int)pid, pid > 0 ? "" : text);
	born->pid = pid;
	seen.children++;
	seen.beside += (unsigned)atomic_load(&seen.runs);
}

static void bury(struct born *born)
{
	int status = 0;
	ck_assert_int_eq(waitpid(born->pid, &status, 0), born->pid);
	ck_assert_int_eq(uffdwp_child_free(born->child), 0);
	ck_assert_msg(status == RIGHT << 8, "a child ended with status %#x", (unsigned)status);
	born->pid = 0;
}

static unsigned children_wanted(void)
{
	const char *asked = getenv("UFFDWP_CHILDREN");
	return asked != NULL ? (unsigned)strtoul(asked, NULL, 10) : support_rounds(60, 1000);
}

static void bear_many(struct uffdwp_track *track)
{
	struct born born[LIVE_MOST] = {0};
	struct chance chance = chance_new(3);
	struct uffdwp_collect nowhere = UFFDWP_COLLECT_INIT;
	for (unsigned i = 0; i < children_wanted(); i++) {
		struct born *one = &born[chance_below(&chance, LIVE_MOST)];
		if (one->pid > 0) {
			bury(one);
		}
		bear(one, &chance);
		if (track != NULL && chance_below(&chance, 3) == 0) {
			ck_assert_int_eq(uffdwp_track_collect(track, &nowhere), 0);
		}
	}
	for (size_t i = 0; i < LIVE_MOST; i++) {
		if (born[i].pid > 0) {
			bury(&born[i]);
		}
	}
}

static void run_at_random(int tracked)
{
	struct writer writers[WRITERS];
	pthread_t threads[WRITERS];
	struct uffdwp_track *track = NULL;
	if (tracked) {
		ck_assert_int_eq(uffdwp_track_start(place.runtime, NULL, &track), 0);
		ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, 0), 0);
	}
	atomic_store(&seen.stop, 0);
	for (size_t i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){i, chance_new(50 + i)};
		threads[i] = thread_start(write_for_ever, &writers[i]);
	}
	pthread_t snapshots = thread_start(take_snapshots, NULL);
	bear_many(track);
	atomic_store(&seen.stop, 1);
	thread_join(snapshots);
	for (size_t i = 0; i < WRITERS; i++) {
		thread_join(threads[i]);
	}
	if (track != NULL) {
		ck_assert_int_eq(uffdwp_track_stop(track), 0);
	}
	ck_assert(uffdwp_region_disarm(place.region, 0, place.length_bytes) == 0);
	ck_assert(wait_until(has_nothing_armed, place.region, 20));
}

START_TEST(test_children_and_snapshots_at_random)
{
	struct place_case which = place_case(_i);
	if (!place_possible(which) || which.memory != UFFDWP_MEMORY_SHMEM || !place_has_increments(which)) {
		return;
	}
	begin_case(which);
	run_at_random(0);
	run_at_random(1);
	printf("%s: %u children, %u of them beside a snapshot; %u snapshots, %u of them increments, %u aborted\n",
	       place_case_name(which), seen.children, seen.beside, seen.snapshots, seen.increments, seen.aborted);
	end_case();
}
END_TEST

/* --- what the child maps itself ---------------------------------------------------------------------------------- */

/* Where the region could grow to there would be room for it. */
START_TEST(test_a_mapping_of_the_child_is_beside_the_region)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	int status = 0;
	options.capacity_bytes = (uint64_t)64 << 30;
	place_open_with(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES, &options);
	pid_t pid = uffdwp_fork(place.runtime, NULL, NULL);
	if (pid == 0) {
		size_t length = (size_t)2 << 30;
		uint8_t *own = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		must(own != MAP_FAILED);
		_exit(own + length <= place.base || own >= place.base + options.capacity_bytes ? RIGHT : WRONG);
	}
	ck_assert_int_gt(pid, 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, RIGHT << 8);
	place_close(&place);
}
END_TEST

int main(void)
{
	support_begin("test_child_beside", &(struct support_needs){.huge_pages = 0, .swap = 0});
	place_begin();
	if (!place_has_children()) {
		return support_skip(PLACE_NO_CHILDREN);
	}
	Suite *suite = suite_create("child_beside");
	TCase *tests = tcase_create("child_beside");
	tcase_set_timeout(tests, 600);
	tcase_add_loop_test(tests, test_a_cut_beside_a_snapshot, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_the_region_grows_between, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_the_snapshot_is_aborted, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_children_and_snapshots_at_random, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	tests = tcase_create("mappings");
	tcase_add_test(tests, test_a_mapping_of_the_child_is_beside_the_region);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
