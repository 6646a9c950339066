/* SPDX-License-Identifier: MIT */
/*
 * pthread_cancel(3) of the program's own threads: no call of the library is a cancellation point. A thread with a
 * pending cancel gets through each call, with its answer; threads that are cancelled at any moment end between two
 * calls; and the process can do everything after.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "chain.h"
#include "chance.h"
#include "image.h"
#include "place.h"
#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

#define PAGES 8

static struct place place;
static struct test_chain chain;
static char raw_path[SCRATCH_PATH];
static char work_path[SCRATCH_PATH];
static char merged_path[SCRATCH_PATH];
static _Atomic int stage; /* of the thread that is to be cancelled */
static _Atomic int running = 1;
static _Atomic unsigned seen; /* callbacks that ran */

/* --- callbacks ---------------------------------------------------------------------------------------------------- */

static void cancel_look(void)
{
	int before;
	must(pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &before) == 0);
	must(before == PTHREAD_CANCEL_DISABLE);
	atomic_fetch_add(&seen, 1);
}

static int cancel_enter(void *unused, uint64_t *length)
{
	(void)unused;
	(void)length;
	cancel_look();
	return 0;
}

static int cancel_enter_view(void *unused)
{
	(void)unused;
	cancel_look();
	return 0;
}

static void cancel_leave(void *unused)
{
	(void)unused;
	cancel_look();
}

static int cancel_sink(void *unused, uint64_t offset, const void *data, uint64_t length)
{
	(void)unused;
	(void)offset;
	(void)data;
	(void)length;
	cancel_look();
	return 0;
}

static void cancel_log(void *unused, const char *line)
{
	(void)unused;
	(void)line;
	cancel_look();
}

static void cancel_written(void *unused, const struct uffdwp_written *range)
{
	(void)unused;
	(void)range;
	cancel_look();
}

/* --- what a thread does ------------------------------------------------------------------------------------------- */

/* Each leaves nothing open and has no cancellation point of its own. */

static void cancel_wait_for(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	must(uffdwp_snapshot_poll(snapshot, &progress) == 0);
	int rc = uffdwp_snapshot_wait(snapshot, 0, NULL);
	must(rc == 0 || rc == -ETIMEDOUT);
	must(uffdwp_snapshot_fd(snapshot) >= 0);
	must(uffdwp_snapshot_wait(snapshot, -1, NULL) == 0);
	must(uffdwp_snapshot_free(snapshot) == 0);
}

static void cancel_image(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	options.path = work_path;
	options.cut_enter = cancel_enter;
	options.cut_leave = cancel_leave;
	must(uffdwp_snapshot_begin(place.region, &options, &snapshot) == 0);
	cancel_wait_for(snapshot);
}

static void cancel_callback(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = cancel_sink;
	must(uffdwp_snapshot_begin_group(&place.region, &options, 1, &snapshot) == 0);
	must(uffdwp_snapshot_abort(snapshot) == 0);
	int rc = uffdwp_snapshot_wait(snapshot, -1, NULL);
	must(rc == 0 || rc == -ECANCELED);
	must(uffdwp_snapshot_free(snapshot) == 0);
}

static void cancel_view(void)
{
	struct uffdwp_view_options options = UFFDWP_VIEW_OPTIONS_INIT;
	struct uffdwp_view *view;
	options.cut_enter = cancel_enter_view;
	options.cut_leave = cancel_leave;
	int rc = uffdwp_view_open(place.region, &options, &view);
	must(rc == 0 || rc == -EOPNOTSUPP);
	if (rc == 0) {
		must(((const uint8_t *)uffdwp_view_base(view))[0] == place.base[0]);
		must(uffdwp_view_close(view) == 0);
	}
}

static void cancel_pages(void)
{
	uint64_t armed;
	struct uffdwp_audit audit = {.sz = sizeof(audit)};
	must(uffdwp_region_arm(place.region, 0, place.length_bytes) == 0);
	must(uffdwp_region_armed(place.region, 0, place.length_bytes, &armed) == 0 && armed != 0);
	must(uffdwp_prepare_write(place.region, 0, 2 * place.page_bytes) == 0);
	place.base[3 * place.page_bytes] = 7;
	int rc = uffdwp_region_audit(place.region, &audit);
	must(rc == 0 || rc == -EAGAIN || rc == -EOPNOTSUPP);
	must(uffdwp_region_punch(place.region, place.page_bytes, 4 * place.page_bytes) == 0);
	must(uffdwp_region_disarm(place.region, 0, place.length_bytes) == 0);
}

static void cancel_region(void)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region *region;
	options.delivery = place.delivery;
	options.mechanism = place.mechanism;
	options.capacity_bytes = 65536 * 4;
	must(uffdwp_region_create(place.runtime, 65536, &options, &region) == 0);
	must(uffdwp_region_locate(uffdwp_region_base(region)) == region);
	must(uffdwp_region_grow(region, 65536 * 2) == 0);
	must(uffdwp_region_close(region) == 0);
}

static void cancel_runtime(void)
{
	struct uffdwp *runtime;
	must(uffdwp_open(NULL, &runtime) == 0);
	must(uffdwp_close(runtime) == 0);
}

static void cancel_track(void)
{
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	struct uffdwp_track *track;
	uint64_t vanished;
	collect.callback = cancel_written;
	must(uffdwp_track_start(place.runtime, &options, &track) == 0);
	must(uffdwp_track_add(track, place.base, place.length_bytes, 0) == 0);
	place.base[0]++;
	must(uffdwp_track_collect(track, &collect) == 0);
	must(uffdwp_track_audit(track, &vanished) == 0);
	must(uffdwp_track_remove(track, place.base, place.length_bytes) == 0);
	must(uffdwp_track_stop(track) == 0);
}

static void cancel_images(void)
{
	struct uffdwp_image_diff diff = UFFDWP_IMAGE_DIFF_INIT;
	struct uffdwp_image_verified verified = {.sz = sizeof(verified)};
	struct uffdwp_image *image;
	struct uffdwp_image *raw;
	uint8_t byte;
	must(uffdwp_image_open(chain.path, NULL, &image) == 0);
	must(uffdwp_image_open(raw_path, NULL, &raw) == 0);
	must(uffdwp_image_read(image, 5, &byte, 1) == 0);
	must(uffdwp_image_verify(image, &verified) == 0);
	must(uffdwp_image_merge(image, merged_path, NULL) == 0);
	must(uffdwp_image_diff(image, image, &diff) == 0);
	must(uffdwp_image_close(raw) == 0 && uffdwp_image_close(image) == 0);
}

static void cancel_restore(void)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	options.path = raw_path;
	must(uffdwp_restore(place.region, &options, NULL) == 0);
}

static void cancel_lazy(void)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore *restore;
	options.path = raw_path;
	int rc = uffdwp_restore_begin(place.region, &options, &restore);
	must(rc == 0 || rc == -EOPNOTSUPP);
	if (rc == 0) {
		must(uffdwp_restore_check(restore, 0, 1) == 0);
		must(uffdwp_restore_wait(restore, -1, NULL) == 0);
		must(uffdwp_restore_free(restore) == 0);
	}
}

static void cancel_probe(void)
{
	struct uffdwp_probe *probe;
	must(uffdwp_probe_run(&probe) == 0);
	must(uffdwp_probe_free(probe) == 0);
}

/* Writes that the library resolves in this thread, or in another. */
static void cancel_writes(void)
{
	must(uffdwp_region_arm(place.region, 0, place.length_bytes) == 0);
	for (size_t page = 0; page < place.pages; page++) {
		place.base[page * place.page_bytes + 1]++;
	}
}

static void (*const actions[])(void) = {cancel_image,   cancel_callback, cancel_view,  cancel_pages,
                                        cancel_region,  cancel_runtime,  cancel_track, cancel_images,
                                        cancel_restore, cancel_lazy,     cancel_probe, cancel_writes};
#define ACTIONS ((int)(sizeof(actions) / sizeof(actions[0])))

/* --- the tests ---------------------------------------------------------------------------------------------------- */

static int cancel_open(struct place_case which)
{
	if (!place_possible(which)) {
		return 0;
	}
	char folder[SCRATCH_PATH];
	scratch_folder(folder);
	scratch_join(raw_path, folder, "raw.img");
	scratch_join(work_path, folder, "work.img");
	scratch_join(merged_path, folder, "merged.img");
	test_chain_begin(&chain, 4096, 65536, 1);
	place_open(&place, which, PAGES);
	place_fill(&place, 5);
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	options.path = raw_path;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	return 1;
}

/* Nothing is locked, and nothing is left open. */
static void cancel_close(void)
{
	for (int i = 0; i < ACTIONS; i++) {
		actions[i]();
	}
	ck_assert_int_eq(uffdwp_log_to(NULL, NULL), 0);
	place_close(&place);
	test_chain_end(&chain);
}

static void cancel_join(pthread_t thread)
{
	void *result;
	must(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
}

static void *cancel_pending(void *argument)
{
	const int *action = argument;
	must(pthread_cancel(pthread_self()) == 0);
	actions[*action]();
	atomic_store(&stage, 1);
	pthread_testcancel();
	return NULL;
}

START_TEST(test_a_thread_with_a_pending_cancel_gets_through_each_call)
{
	int fits = cancel_open(place_auto_case(_i));
	for (int action = 0; fits && action < ACTIONS; action++) {
		atomic_store(&stage, 0);
		cancel_join(thread_start(cancel_pending, &action));
		ck_assert_msg(atomic_load(&stage) == 1, "action %d was cancelled inside of a call", action);
	}
	if (fits) {
		ck_assert_uint_gt(atomic_load(&seen), 0);
		cancel_close();
	}
}
END_TEST

START_TEST(test_callbacks_run_with_cancellation_disabled)
{
	ck_assert_int_eq(uffdwp_log_to(cancel_log, NULL), 0);
	if (cancel_open(place_auto_case(_i))) {
		ck_assert_uint_gt(atomic_load(&seen), 0);
		cancel_close();
	}
}
END_TEST

static void *cancel_loop(void *argument)
{
	struct chance *chance = argument;
	while (atomic_load(&running)) {
		actions[chance_below(chance, ACTIONS)]();
		pthread_testcancel();
	}
	return NULL;
}

START_TEST(test_threads_that_are_cancelled_at_any_moment_leave_all_usable)
{
	struct chance chance = chance_new((uint64_t)_i);
	struct chance inside = chance_new(100 + (uint64_t)_i);
	unsigned rounds = cancel_open(place_auto_case(_i)) ? support_rounds(10, 1000) : 0;
	for (unsigned round = 0; round < rounds; round++) {
		pthread_t thread = thread_start(cancel_loop, &inside);
		sleep_us(chance_below(&chance, 3000));
		must(pthread_cancel(thread) == 0);
		cancel_join(thread);
	}
	if (rounds > 0) {
		cancel_close();
	}
}
END_TEST

static void *cancel_writer(void *unused)
{
	(void)unused;
	for (size_t page = 0; atomic_load(&running); page = (page + 1) % place.pages) {
		place.base[page * place.page_bytes + 9]++;
		pthread_testcancel();
	}
	return NULL;
}

START_TEST(test_writers_that_are_cancelled_while_they_fault_leave_all_usable)
{
	struct chance chance = chance_new(200 + (uint64_t)_i);
	unsigned rounds = cancel_open(place_auto_case(_i)) ? support_rounds(20, 2000) : 0;
	for (unsigned round = 0; round < rounds; round++) {
		pthread_t thread = thread_start(cancel_writer, NULL);
		cancel_writes();
		sleep_us(chance_below(&chance, 300));
		must(uffdwp_region_arm(place.region, 0, place.length_bytes) == 0);
		must(pthread_cancel(thread) == 0);
		cancel_join(thread);
	}
	if (rounds > 0) {
		cancel_close();
	}
}
END_TEST

int main(void)
{
	support_begin(TEST_NAME, &(struct support_needs){.huge_pages = 2 * PAGES});
	place_begin();
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("cancel");
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_a_thread_with_a_pending_cancel_gets_through_each_call, 0, PLACE_AUTO_CASES);
	tcase_add_loop_test(tcase, test_callbacks_run_with_cancellation_disabled, 0, PLACE_AUTO_CASES);
	tcase_add_loop_test(tcase, test_threads_that_are_cancelled_at_any_moment_leave_all_usable, 0, PLACE_AUTO_CASES);
	tcase_add_loop_test(tcase, test_writers_that_are_cancelled_while_they_fault_leave_all_usable, 0,
	                    PLACE_AUTO_CASES);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
