/* SPDX-License-Identifier: MIT */
/*
 * A handler's thread that ends in its loop, or stands still there or in a function of the program's: writers that wait
 * for it go on within a second, the snapshot that runs fails and says why, the next one works, and views, tracks and
 * restores stay right. The thread that lost its place ends when it comes back.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "fault/runtime.h"
#include "pace.h"
#include "place.h"
#include "support.h"

#define PAGES_LEAST 16
#define LENGTH_LEAST ((size_t)4 << 20) /* beyond what a snapshot has read when its sink takes the first piece */

static struct place place;
static uint8_t image[PAGES_LEAST << 21];
static _Atomic int gate; /* 0: the sink waits */
static enum handler_provocation how;

/* --- snapshots ---------------------------------------------------------------------------------------------------- */

static int lost_take(void *unused, uint64_t offset, const void *data, uint64_t length)
{
	(void)unused;
	while (!atomic_load(&gate)) {
		usleep(1000);
	}
	must(offset + length <= sizeof(image));
	memcpy(image + offset, data, length);
	return 0;
}

static struct uffdwp_snapshot *lost_begin(uint32_t flags)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = lost_take;
	options.flags = flags;
	must(uffdwp_snapshot_begin(place.region, &options, &snapshot) == 0);
	return snapshot;
}

static int lost_end(struct uffdwp_snapshot *snapshot, char *text, size_t size)
{
	atomic_store(&gate, 1);
	int rc = uffdwp_snapshot_wait(snapshot, -1, NULL);
	(void)uffdwp_error_text(text, size);
	must(uffdwp_snapshot_free(snapshot) == 0);
	return rc;
}

/* Every page has the byte. */
static void lost_set(uint8_t value)
{
	for (size_t page = 0; page < place.pages; page++) {
		place.base[page * place.page_bytes] = value;
	}
}

/* A snapshot of what is there now, while a writer changes all of it. */
static void lost_expect_a_right_snapshot(uint8_t now)
{
	char text[512];
	memset(image, 0xee, sizeof(image));
	lost_set(now);
	atomic_store(&gate, 0);
	struct uffdwp_snapshot *snapshot = lost_begin(0);
	lost_set((uint8_t)(now + 1));
	ck_assert_int_eq(lost_end(snapshot, text, sizeof(text)), 0);
	for (size_t page = 0; page < place.pages; page++) {
		ck_assert_uint_eq(image[page * place.page_bytes], now);
	}
}

/* --- the thread --------------------------------------------------------------------------------------------------- */

static struct handler *lost_handler(void)
{
	return place.region->handler;
}

static void lost_provoke(enum handler_provocation what)
{
	handler_provoke(lost_handler(), what);
}

static size_t lost_pages(enum uffdwp_memory memory)
{
	size_t pages = LENGTH_LEAST / place_page_bytes(memory);
	return pages > PAGES_LEAST ? pages : PAGES_LEAST;
}

static int lost_open(int index)
{
	struct place_case which = place_auto_case(index / 3);
	which.delivery = UFFDWP_DELIVERY_THREAD;
	if (index / 3 % 2 || !place_possible(which)) { /* both deliveries are one here */
		return 0;
	}
	how = (enum handler_provocation)(HANDLER_ENDS + index % 3);
	place_open(&place, which, lost_pages(which.memory));
	ck_assert_uint_eq(place.delivery, UFFDWP_DELIVERY_THREAD);
	return 1;
}

/* Writes every page, in a thread that a dead handler would stop for ever. */
static void *lost_write(void *value)
{
	lost_set(*(uint8_t *)value);
	return NULL;
}

static uint64_t lost_write_all(uint8_t value)
{
	pthread_t writer;
	uint64_t begun_ns = kernel_now_ns();
	must(pthread_create(&writer, NULL, lost_write, &value) == 0 && pthread_join(writer, NULL) == 0);
	return (kernel_now_ns() - begun_ns) / 1000000;
}

START_TEST(test_writers_go_on_the_snapshot_fails_and_the_next_one_works)
{
	char text[512] = "";
	if (!lost_open(_i)) {
		return;
	}
	lost_expect_a_right_snapshot(1);
	lost_set(5);
	atomic_store(&gate, 0);
	struct uffdwp_snapshot *snapshot = lost_begin(0);
	lost_provoke(how);
	printf("%s: %llu ms\n", place_memory_name(place_auto_case(_i / 3).memory),
	       (unsigned long long)lost_write_all(6));
	int rc = lost_end(snapshot, text, sizeof(text));
	ck_assert_msg(rc == -EOWNERDEAD, "%d: %s", rc, text);
	ck_assert_msg(strstr(text, "handler thread") != NULL, "%s", text);
	lost_expect_a_right_snapshot(7);
	lost_provoke(HANDLER_SERVES); /* the first one comes back */
	lost_expect_a_right_snapshot(9);
	lost_set(11);
	place_close(&place);
}
END_TEST

START_TEST(test_handlers_are_lost_again_and_again)
{
	char text[512] = "";
	if (!lost_open(_i)) {
		return;
	}
	for (uint8_t round = 0; round < 3; round++) {
		lost_set(5);
		atomic_store(&gate, 0);
		struct uffdwp_snapshot *snapshot = lost_begin(0);
		lost_provoke(how);
		(void)lost_write_all(6);
		ck_assert_int_eq(lost_end(snapshot, text, sizeof(text)), -EOWNERDEAD);
		lost_provoke(HANDLER_SERVES);
		lost_expect_a_right_snapshot((uint8_t)(7 + round));
	}
	place_close(&place);
}
END_TEST

START_TEST(test_a_track_reports_what_is_written_while_a_handler_is_lost)
{
	struct uffdwp_track_options options = UFFDWP_TRACK_OPTIONS_INIT;
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	struct uffdwp_written ranges[64];
	struct uffdwp_track *track;
	if (!lost_open(_i)) {
		return;
	}
	ck_assert_int_eq(uffdwp_track_start(place.runtime, &options, &track), 0);
	ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, 0), 0);
	lost_set(1);
	collect.ranges = ranges;
	collect.capacity = 64;
	ck_assert_int_ge(uffdwp_track_collect(track, &collect), 0);
	lost_provoke(how);
	(void)lost_write_all(2);
	lost_provoke(HANDLER_SERVES);
	ck_assert_int_ge(uffdwp_track_collect(track, &collect), 0);
	ck_assert_uint_eq(collect.bytes, place.length_bytes);
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	place_close(&place);
}
END_TEST

START_TEST(test_a_view_stays_as_of_its_cut_while_a_handler_is_lost)
{
	struct uffdwp_view *view;
	if (!lost_open(_i)) {
		return;
	}
	lost_set(1);
	int rc = uffdwp_view_open(place.region, NULL, &view);
	if (rc == 0) {
		const uint8_t *frozen = uffdwp_view_base(view);
		lost_provoke(how);
		(void)lost_write_all(2);
		lost_provoke(HANDLER_SERVES);
		for (size_t page = 0; page < place.pages; page++) {
			ck_assert_uint_eq(frozen[page * place.page_bytes], 1);
		}
		ck_assert_int_eq(uffdwp_view_close(view), 0);
	}
	ck_assert(rc == 0 || rc == -EOPNOTSUPP);
	lost_expect_a_right_snapshot(3);
	place_close(&place);
}
END_TEST

/* --- on_loss that does not return ------------------------------------------------------------------------------------
 */

static _Atomic int hangs;
static _Atomic int reports;

static void lost_report(void *unused, struct uffdwp_region *region)
{
	(void)unused;
	(void)region;
	atomic_fetch_add(&reports, 1);
	while (atomic_load(&hangs)) {
		usleep(1000);
	}
}

START_TEST(test_a_function_of_the_program_that_hangs_stops_no_writer)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct place_case which = place_by(UFFDWP_MEMORY_ANON, UFFDWP_MECHANISM_MARKER);
	char text[512] = "";
	which.delivery = UFFDWP_DELIVERY_THREAD;
	if (!place_possible(which)) {
		return;
	}
	options.on_loss = lost_report;
	place_open_with(&place, which, lost_pages(which.memory), &options);
	lost_set(5);
	atomic_store(&hangs, 1);
	atomic_store(&gate, 0);
	struct uffdwp_snapshot *snapshot = lost_begin(0);
	loss_add(place.region, UFFDWP_LOSS_ZAP, 0);
	for (int i = 0; i < 5000 && !atomic_load(&reports); i++) {
		usleep(1000);
	}
	ck_assert_int_eq(atomic_load(&reports), 1);
	(void)lost_write_all(6);
	ck_assert_int_eq(lost_end(snapshot, text, sizeof(text)), -EOWNERDEAD);
	lost_expect_a_right_snapshot(7);
	atomic_store(&hangs, 0);
	lost_expect_a_right_snapshot(9);
	place_close(&place);
}
END_TEST

/* --- false alarms ------------------------------------------------------------------------------------------------- */

static void lost_live_stopped(void *unused)
{
	char text[512] = "";
	(void)unused;
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), lost_pages(UFFDWP_MEMORY_SHMEM));
	lost_set(5);
	for (int round = 0; round < 3; round++) {
		pid_t me = getpid();
		pid_t waker = fork();
		if (waker == 0) {
			usleep(900000);
			_exit(kill(me, SIGCONT));
		}
		atomic_store(&gate, 0);
		struct uffdwp_snapshot *snapshot = lost_begin(0);
		must(waker > 0 && kill(me, SIGSTOP) == 0);
		lost_set(6);
		must(lost_end(snapshot, text, sizeof(text)) == 0);
		must(waitpid(waker, NULL, 0) == waker);
	}
	place_close(&place);
}

START_TEST(test_a_process_that_was_stopped_and_goes_on_has_lost_nothing)
{
	int status = child_run(lost_live_stopped, NULL);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
}
END_TEST

START_TEST(test_a_runtime_is_closed_while_its_handlers_have_ended)
{
	if (!lost_open(_i)) {
		return;
	}
	lost_set(1);
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
	for (unsigned i = 0; i < place.runtime->handler_count; i++) {
		handler_provoke(place.runtime->handlers[i], HANDLER_ENDS);
	}
	(void)lost_write_all(2);
	place_close(&place);
}
END_TEST

int main(void)
{
	support_begin(TEST_NAME, &(struct support_needs){.huge_pages = 2 * PAGES_LEAST});
	place_begin();
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("lost");
	int cases = 3 * PLACE_AUTO_CASES;
	tcase_set_timeout(tcase, 120);
	tcase_add_loop_test(tcase, test_writers_go_on_the_snapshot_fails_and_the_next_one_works, 0, cases);
	tcase_add_loop_test(tcase, test_handlers_are_lost_again_and_again, 0, cases);
	tcase_add_loop_test(tcase, test_a_track_reports_what_is_written_while_a_handler_is_lost, 0, cases);
	tcase_add_loop_test(tcase, test_a_view_stays_as_of_its_cut_while_a_handler_is_lost, 0, cases);
	tcase_add_test(tcase, test_a_function_of_the_program_that_hangs_stops_no_writer);
	tcase_add_test(tcase, test_a_process_that_was_stopped_and_goes_on_has_lost_nothing);
	tcase_add_loop_test(tcase, test_a_runtime_is_closed_while_its_handlers_have_ended, 0, cases);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
