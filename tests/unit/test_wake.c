/* SPDX-License-Identifier: MIT */
/*
 * INV-WAKE on a fake kernel (fake.h): no thread sleeps for ever. A writer that was stalled, starved, sent to come
 * again, or left by a snapshot that failed, a region that closed, a handler that died, ends by itself while everything
 * else in the test stands still; a time limit is there against hanging only.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

#include "fake.h"
#include "fault/fault.h"
#include "fault/phase.h"
#include "play.h"
#include "support.h"

#define PAGES 256

static _Atomic unsigned faults_begun;

static void count_fault(void *user)
{
	(void)user;
	atomic_fetch_add(&faults_begun, 1);
}

static int two_are_in_a_fault(void *ignored)
{
	(void)ignored;
	return atomic_load(&faults_begun) >= 2 && (stage.is_inline || fake_asleep() >= 2);
}

static int dirty_a_page(void *user, uint64_t *length)
{
	static const struct fake_hooks hooks = {.armed = play_stop, .faulting = count_fault};
	(void)user;
	(void)length;
	stage_write(&stage, 0, 7);
	memcpy(stage.cut, stage.base, stage.length_bytes);
	fake_hook(&hooks);
	return 0;
}

static void leave_cut(void *user)
{
	(void)user;
}

/* INV-WAKE, INV-CUT: a write to a page that is armed already waits until the last page is armed, and no longer. The
 * rounds have armed all but page 0; the pause stops in the kernel when it has armed that. */
START_TEST(test_stalled_writer_goes_on_after_the_cut)
{
	struct uffdwp_snapshot_progress progress;
	struct writer writers[3];
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 512);
	options.cut_enter = dirty_a_page;
	options.cut_leave = leave_cut;
	atomic_store(&faults_begun, 0);
	pthread_t beginner = thread_start(play_begin, &options);
	gate_await(&play_step);
	for (unsigned i = 0; i < 3; i++) {
		play_writer_start(&writers[i], 3 + i / 2, PAGES, 1, i == 2);
	}
	must(wait_until(two_are_in_a_fault, NULL, PLAY_TIME_LIMIT_S));
	ck_assert(memcmp(stage.base, stage.cut, stage.length_bytes) == 0);
	gate_open(&play_step);
	for (unsigned i = 0; i < 3; i++) {
		play_writer_ends(&writers[i]);
	}
	thread_join(beginner);
	play_end_well(&progress);
	play_close_case();
}
END_TEST

/* A pool of 12 slots, and writers for more pages than that, of which at least one sleeps now. */
static void begin_starving(struct writer *writers, const struct uffdwp_snapshot_options *options)
{
	play_begin_held(options);
	play_writer_start(&writers[0], stage.first, stage.end, 1, 0);
	play_writer_start(&writers[1], stage.first, stage.end, 2, 0);
	play_writer_start(&writers[2], stage.first, stage.end, 3, 1);
}

static void starving_end(struct writer *writers)
{
	for (unsigned i = 0; i < 3; i++) {
		play_writer_ends(&writers[i]);
	}
}

START_TEST(test_starved_writer_goes_on_when_the_sink_takes_some)
{
	struct uffdwp_snapshot_progress progress;
	struct writer writers[3];
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 16);
	options.wait_ns = UINT64_MAX; /* for as long as it takes */
	begin_starving(writers, &options);
	must(wait_until(play_writer_starves, NULL, PLAY_TIME_LIMIT_S));
	ck_assert(!play_is_done(&writers[0]) && !play_is_done(&writers[1]) && !play_is_done(&writers[2]));
	gate_open(&play_sink);
	starving_end(writers);
	play_end_well(&progress);
	ck_assert_uint_ge(progress.waits, 1);
	ck_assert_uint_le(progress.pool_peak_bytes, options.pool_bytes);
	play_close_case();
}
END_TEST

static uint64_t saved_by_writers(void)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	must(uffdwp_snapshot_poll(stage.snapshot, &progress) == 0);
	return progress.pages_fault + progress.pages_prepare;
}

static int more_was_saved(void *before)
{
	return saved_by_writers() > *(uint64_t *)before;
}

/* The sweep empties some slots and is held again, far from the page that is waited for. */
START_TEST(test_starved_writer_goes_on_as_soon_as_a_slot_is_free)
{
	struct uffdwp_snapshot_progress progress;
	struct writer writer;
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 16);
	play_begin_held(&options);
	play_writer_start(&writer, stage.first, stage.end, 1, 0);
	must(wait_until(play_writer_starves, NULL, PLAY_TIME_LIMIT_S));
	uint64_t saved = saved_by_writers();
	stage.gate = &play_step;
	gate_open(&play_sink);
	gate_await(&play_step);
	must(wait_until(more_was_saved, &saved, PLAY_TIME_LIMIT_S));
	ck_assert(!play_is_done(&writer));
	gate_open(&play_step);
	play_writer_ends(&writer);
	play_end_well(&progress);
	play_close_case();
}
END_TEST

START_TEST(test_starved_writer_goes_on_when_the_snapshot_is_aborted)
{
	struct writer writers[3];
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 16);
	begin_starving(writers, &options);
	must(wait_until(play_writer_starves, NULL, PLAY_TIME_LIMIT_S));
	ck_assert_int_eq(uffdwp_snapshot_abort(stage.snapshot), 0);
	starving_end(writers);
	play_end_badly(-ECANCELED);
	play_close_case();
}
END_TEST

START_TEST(test_starved_writer_waits_no_longer_than_was_asked)
{
	struct writer writers[3];
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 16);
	options.wait_ns = 1000000;
	begin_starving(writers, &options);
	starving_end(writers);
	play_end_badly(-ETIME);
	play_close_case();
}
END_TEST

START_TEST(test_full_pool_ends_the_snapshot_where_the_policy_is_to_abort)
{
	struct writer writers[3];
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 16);
	options.policy = UFFDWP_POLICY_ABORT;
	begin_starving(writers, &options);
	starving_end(writers);
	ck_assert(!play_writer_starves(NULL));
	play_end_badly(-ENOBUFS);
	play_close_case();
}
END_TEST

static void *close_in_thread(void *ignored)
{
	(void)ignored;
	must(uffdwp_region_close(stage.region) == 0);
	return NULL;
}

/* The handler is about to read the writer's fault when the region closes. Memory is the test's own here. */
START_TEST(test_writer_goes_on_when_its_region_closes)
{
	static const struct fake_hooks hooks = {.reading = play_stop};
	struct writer writer;
	stage_open(&stage, 0, PAGES);
	ck_assert_int_eq(uffdwp_region_arm(stage.region, 0, stage.length_bytes), 0);
	fake_hook(&hooks);
	play_writer_start(&writer, 5, 6, 1, 0);
	gate_await(&play_step);
	ck_assert(!play_is_done(&writer));
	pthread_t closer = thread_start(close_in_thread, NULL);
	play_writer_ends(&writer);
	gate_open(&play_step);
	thread_join(closer);
	stage.region = NULL;
	stage_close(&stage);
}
END_TEST

static _Atomic int handler_shall_die;

static void die_when_asked(void *user)
{
	(void)user;
	if (atomic_load(&handler_shall_die)) {
		pthread_exit(NULL);
	}
}

START_TEST(test_writer_goes_on_when_the_handler_dies)
{
	static const struct fake_hooks hooks = {.reading = die_when_asked};
	struct writer writer;
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 512);
	play_begin_held(&options);
	atomic_store(&handler_shall_die, 1);
	fake_hook(&hooks);
	play_writer_start(&writer, stage.first, stage.end, 1, 0);
	play_writer_ends(&writer);
	gate_open(&play_sink);
	ck_assert_int_eq(stage_end(&stage, NULL), -EOWNERDEAD);
	ck_assert_int_eq(uffdwp_region_arm(stage.region, 0, STAGE_PAGE), -ESTALE);
	play_close_case();
}
END_TEST

/* --- a failure that wakes no thread ---------------------------------------------------------------------------- */

static int pool_is_empty_and_a_writer_sleeps(void *preserve)
{
	return pool_left(&((struct preserve *)preserve)->pool) == 0 && (stage.is_inline || fake_asleep() > 0);
}

/* A snapshot fails while a collect has stalled the faults: its wakes find no waiter, and the phase moves on to PRESERVE
 * for a moment before it becomes RELEASE. The writer whose fault is resolved in that moment was never stalled. */
START_TEST(test_writer_goes_on_that_faults_between_a_failure_and_the_release)
{
	struct writer writer;
	play_open_case(_i, PAGES);
	struct uffdwp_snapshot_options options = stage_options(&stage, 16);
	options.policy = UFFDWP_POLICY_ABORT;
	play_begin_held(&options);
	struct preserve *preserve = atomic_load(&stage.region->preserve);
	atomic_store(&preserve->error, -ECANCELED);
	play_writer_start(&writer, stage.first, stage.end, 1, 0);
	must(wait_until(pool_is_empty_and_a_writer_sleeps, preserve, PLAY_TIME_LIMIT_S));
	phase_fail(stage.region);
	(void)phase_wake(stage.region);
	play_writer_ends(&writer);
	play_end_badly(-ECANCELED);
	play_close_case();
}
END_TEST

/* --- the kernel says: come again -------------------------------------------------------------------------------- */

START_TEST(test_no_wake_is_lost_when_the_kernel_says_come_again)
{
	struct uffdwp_snapshot_progress progress;
	struct writer writers[4];
	play_open_case(_i, PAGES);
	fake_again_every(2);
	for (unsigned round = 0; round < 8; round++) {
		struct uffdwp_snapshot_options options = stage_options(&stage, round % 2 ? 16 : 512);
		play_begin_held(&options);
		for (unsigned i = 0; i < 4; i++) {
			play_writer_start(&writers[i], 0, PAGES, (uint8_t)i, i == 3);
		}
		gate_open(&play_sink);
		for (unsigned i = 0; i < 4; i++) {
			play_writer_ends(&writers[i]);
		}
		play_end_well(&progress);
	}
	fake_again_every(0);
	play_close_case();
}
END_TEST

static void *discard_page_5(void *ignored)
{
	(void)ignored;
	must(fake_kernel()->madvise(stage.base + 5 * STAGE_PAGE, STAGE_PAGE, MADV_DONTNEED) == 0);
	return NULL;
}

/* While madvise(2) waits for its event to be read no wp bit can be cleared; both wait for the handler, which is free.
 */
START_TEST(test_barrier_waits_until_an_event_was_read)
{
	static const struct fake_hooks hooks = {.reading = play_stop};
	struct writer writer;
	play_open_case(_i, PAGES);
	ck_assert_int_eq(uffdwp_region_arm(stage.region, 0, stage.length_bytes), 0);
	fake_hook(&hooks);
	pthread_t discarder = thread_start(discard_page_5, NULL);
	gate_await(&play_step);
	play_writer_start(&writer, 9, 10, 1, 1);
	gate_open(&play_step);
	play_writer_ends(&writer);
	thread_join(discarder);
	ck_assert_uint_eq(stage_stats(&stage).events_remove, 1);
	ck_assert_uint_eq(stage_stats(&stage).pages_lost, stage.attached ? 1 : 0);
	play_close_case();
}
END_TEST

#define CASES(test) tcase_add_loop_test(tests, test, 0, STAGE_CASES)

int main(void)
{
	support_begin("test_wake", &(struct support_needs){0, 0});
	Suite *suite = suite_create("wake");
	TCase *tests = tcase_create("wake");
	tcase_set_timeout(tests, 4 * PLAY_TIME_LIMIT_S);
	CASES(test_stalled_writer_goes_on_after_the_cut);
	CASES(test_starved_writer_goes_on_when_the_sink_takes_some);
	CASES(test_starved_writer_goes_on_as_soon_as_a_slot_is_free);
	CASES(test_starved_writer_goes_on_when_the_snapshot_is_aborted);
	CASES(test_starved_writer_waits_no_longer_than_was_asked);
	CASES(test_full_pool_ends_the_snapshot_where_the_policy_is_to_abort);
	CASES(test_writer_goes_on_that_faults_between_a_failure_and_the_release);
	tcase_add_test(tests, test_writer_goes_on_when_its_region_closes);
	tcase_add_loop_test(tests, test_writer_goes_on_when_the_handler_dies, 0, 2);
	CASES(test_no_wake_is_lost_when_the_kernel_says_come_again);
	CASES(test_barrier_waits_until_an_event_was_read);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
