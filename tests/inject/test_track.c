/* SPDX-License-Identifier: MIT */
/*
 * Tracks while the kernel refuses: the n-th call, for every n until none is refused any more, in the life of a track:
 * start, add, write, peek, collect into little room, remove, audit, stop. After each refusal: what is said is an errno
 * with a text, no write was lost (what a failed collect did not report, the next one does: INV-TRACK), nothing stays
 * armed, registered or open.
 *
 * A run that hangs is ended by a watchdog that says which n it was.
 */
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "api.h"
#include "pace.h"
#include "place.h"
#include "refusing.h"
#include "scratch.h"
#include "support.h"
#include "track_check.h"
#include "watchdog.h"
#include "witness.h"

#define PAGES 40
#define MOST_CALLS 5000 /* a bound on n: no run here makes so many */
#define WATCHDOG_SECONDS 15

static struct uffdwp *runtime;
static struct uffdwp_track *track;
static uint8_t *base;
static size_t page;
static uint8_t due[PAGES]; /* written, and not reported since */

static void setup(void)
{
	watchdog_install();
	page = small_page();
}

/* 1: it was done. Else there is a text. */
static int done(int result, const char *what)
{
	char text[256] = "";
	if (result == 0) {
		return 1;
	}
	watchdog_expect(result < 0, what);
	watchdog_expect(result == -ENOMEM || uffdwp_error_text(text, sizeof(text)) > 0, what);
	return 0;
}

static void write_page(size_t index)
{
	touch(base, index);
	due[index] = 1;
}

static void take(const struct uffdwp_written *ranges, size_t count)
{
	for (size_t i = 0; i < count; i++) {
		for (uint64_t at = ranges[i].start; at < ranges[i].end; at += page) {
			due[(at - (uint64_t)(uintptr_t)base) / page] = 0;
		}
	}
}

/* What it reports before it fails is in the answer. */
static int collect_once(uint32_t flags, size_t capacity)
{
	struct uffdwp_written ranges[PAGES];
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	collect.flags = flags;
	collect.ranges = ranges;
	collect.capacity = capacity;
	int result = uffdwp_track_collect(track, &collect);
	watchdog_expect(collect.count <= capacity, "more ranges than there is room for");
	if (flags == 0) {
		take(ranges, collect.count);
	}
	return done(result, "a failed collect without a text");
}

static void write_some(void)
{
	for (size_t index = 0; index < PAGES; index += 4) {
		write_page(index);
	}
}

/* Where the kernel refuses to take the protection off, the write faults as it would have. */
static void announce_and_write(size_t index)
{
	uint64_t start = (uintptr_t)base + index * page;
	struct uffdwp_written range = {start, start + page, 0};
	watchdog_expect(uffdwp_track_prepare(track, &range, 1) == 0, "an announcement fails");
	write_page(index);
}

/* The whole life, of which any call may fail. */
static void live(void)
{
	uint64_t vanished = 0;
	write_some();
	(void)collect_once(UFFDWP_TRACK_COLLECT_PEEK, PAGES);
	(void)collect_once(0, 2);
	write_page(1);
	if (done(uffdwp_track_remove(track, base + 30 * page, 4 * page), "a failed removal without a text")) {
		memset(due + 30, 0, 4);
		if (done(uffdwp_track_add(track, base + 30 * page, 4 * page, 0), "a failed addition without a text")) {
			memset(due + 30, 1, 4);
		}
	}
	(void)done(uffdwp_track_audit(track, &vanished), "a failed audit without a text");
	(void)collect_once(0, PAGES);
	announce_and_write(5);
	write_some();
}

/* Nothing is refused any more: all that is due comes now. */
static void expect_nothing_lost(void)
{
	struct uffdwp_track_info info = {.sz = sizeof(info)};
	ck_assert_int_eq(uffdwp_track_info(track, &info), 0);
	if (info.ranges == 0) {
		return;
	}
	watchdog_expect(collect_once(0, PAGES), "a collect fails though nothing is refused");
	for (size_t index = 0; index < PAGES; index++) {
		int is_out = info.bytes != PAGES * page && index >= 30 && index < 34;
		watchdog_expect(is_out || !due[index], "a write was lost");
	}
}

static int start(uint32_t mechanism)
{
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
	options.mechanism = mechanism;
	options.flags = UFFDWP_TRACK_START_RESET_PROCESS;
	track = NULL;
	int result = uffdwp_track_start(runtime, &options, &track);
	watchdog_expect((result == 0) == (track != NULL), "an output of a failed start");
	return done(result, "a failed start without a text");
}

/* From here on the n-th call is refused; and not any more: how many were. */
static void refuse(void)
{
	refusing_set(&(struct refusal){REFUSING_ALL, watchdog_nth, 1, 0});
}

static uint64_t refuse_no_more(void)
{
	uint64_t refused = refusing_refused();
	refusing_stop();
	return refused;
}

static void close_all(void)
{
	watchdog_expect(uffdwp_close(runtime) == 0, "the runtime does not close");
	watchdog_expect(witness_armed(base, PAGES * page, page) == 0, "wp bits stay");
	watchdog_expect(witness_count(base, PAGES * page, page, WITNESS_READ_ONLY) == 0, "protection stays");
	touch(base, 0);
	anon_free(base, PAGES);
}

static uint64_t refuse_in_life(uint32_t mechanism)
{
	refuse();
	int is_started = start(mechanism);
	int is_added =
	        is_started && done(uffdwp_track_add(track, base, PAGES * page, 0), "a failed addition without a text");
	if (is_added) {
		memset(due, 1, sizeof(due));
		live();
	}
	uint64_t refused = refuse_no_more();
	if (is_added) {
		expect_nothing_lost();
	}
	watchdog_expect(!is_started || uffdwp_track_stop(track) == 0, "the track does not stop");
	return refused;
}

static uint64_t refuse_at_the_end(uint32_t mechanism)
{
	ck_assert_int_eq(start(mechanism), 1);
	ck_assert_int_eq(uffdwp_track_add(track, base, PAGES * page, 0), 0);
	write_some();
	watchdog_expect(collect_once(0, PAGES), "a collect fails though nothing is refused");
	refuse();
	int result = uffdwp_track_stop(track);
	uint64_t refused = refuse_no_more();
	watchdog_expect(result == 0, "the track does not stop");
	return refused;
}

static uint64_t once(uint32_t mechanism, uint64_t (*act)(uint32_t))
{
	memset(due, 0, sizeof(due));
	base = anon_new(PAGES, 1);
	must(api_open(&kernel_refusing, NULL, &runtime) == 0);
	uint64_t refused = act(mechanism);
	close_all();
	return refused;
}

static int offered(uint32_t mechanism)
{
	struct tracked tracked;
	int offers = tracked_open(&tracked, mechanism, UFFDWP_TRACK_START_RESET_PROCESS);
	if (offers) {
		uint8_t *memory = anon_new(1, 1);
		offers = uffdwp_track_add(tracked.track, memory, small_page(), 0) == 0;
		tracked_close(&tracked);
		anon_free(memory, 1);
	}
	return offers;
}

static void for_every_call(const char *what, uint32_t mechanism, uint64_t (*act)(uint32_t))
{
	uint64_t refused = 1;
	size_t files = 0;
	if (!offered(mechanism)) {
		return;
	}
	for (watchdog_nth = 1; watchdog_nth < MOST_CALLS && refused != 0; watchdog_nth++) {
		pace_alarm(WATCHDOG_SECONDS);
		refusing_nothing();
		refused = once(mechanism, act);
		pace_alarm(0);
		/* The first run may open what stays open for the life of the process. */
		watchdog_expect(watchdog_nth == 1 || scratch_open_files() <= files, "a descriptor leaked");
		files = watchdog_nth == 1 ? scratch_open_files() : files;
	}
	watchdog_expect(watchdog_nth < MOST_CALLS, "there is no end of calls");
	printf("%s, mechanism %u: %llu calls\n", what, mechanism, (unsigned long long)watchdog_nth - 2);
}

START_TEST(test_a_track_survives_every_refusal)
{
	for_every_call("life", (uint32_t)_i, refuse_in_life);
}
END_TEST

START_TEST(test_the_end_of_a_track_survives_every_refusal)
{
	for_every_call("end", (uint32_t)_i, refuse_at_the_end);
}
END_TEST

int main(void)
{
	support_begin("test_track", &(struct support_needs){.huge_pages = 0, .swap = 0});
	place_begin();
	Suite *suite = suite_create("track");
	TCase *tests = tcase_create("refused");
	tcase_set_timeout(tests, 300);
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_loop_test(tests, test_a_track_survives_every_refusal, UFFDWP_MECHANISM_MARKER,
	                    UFFDWP_MECHANISM_COUNT);
	tcase_add_loop_test(tests, test_the_end_of_a_track_survives_every_refusal, UFFDWP_MECHANISM_MARKER,
	                    UFFDWP_MECHANISM_COUNT);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
