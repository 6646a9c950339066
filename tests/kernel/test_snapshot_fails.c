/* SPDX-License-Identifier: MIT */
/*
 * Snapshots that fail: a sink that is full or broken, a pool that is full, an abort, content that vanishes. Each time
 * the snapshot says what and where, every writer goes on, the region is disarmed, the caller's memory is untouched, no
 * file is left, and the next snapshot works.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

#include "gate.h"
#include "image.h"
#include "pace.h"
#include "place.h"
#include "refusing.h"
#include "scratch.h"
#include "support.h"

#define PAGES_MANY 1024

static struct place place;
static struct gate gate = GATE_INIT;
static int sink_result;
static char folder[SCRATCH_PATH];
static char path[SCRATCH_PATH];

static void setup(void)
{
	gate = (struct gate)GATE_INIT;
	sink_result = 0;
	scratch_folder(folder);
	scratch_join(path, folder, "image");
}

static size_t many_pages(struct place_case which)
{
	return which.memory == UFFDWP_MEMORY_HUGETLB ? 16 : PAGES_MANY;
}

static void write_everywhere(uint8_t value)
{
	for (size_t page = 0; page < place.pages; page++) {
		((volatile uint8_t *)place.base)[page * place.page_bytes + 100] = value;
	}
}

static int pass_gate(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)offset;
	(void)data;
	(void)length;
	gate_pass(&gate);
	return *(const int *)user;
}

static struct uffdwp_snapshot_options gated_options(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = pass_gate;
	options.user = &sink_result;
	return options;
}

static struct uffdwp_snapshot *begin(const struct uffdwp_snapshot_options *options)
{
	struct uffdwp_snapshot *snapshot = NULL;
	must(uffdwp_snapshot_begin(place.region, options, &snapshot) == 0);
	return snapshot;
}

static struct uffdwp_snapshot *begin_gated(void)
{
	struct uffdwp_snapshot_options options = gated_options();
	options.pool_bytes = 2 * place.length_bytes; /* while the gate is closed nothing leaves the pool */
	struct uffdwp_snapshot *snapshot = begin(&options);
	gate_await(&gate);
	return snapshot;
}

/* Nothing is left of a failed snapshot. In children too, hence must(). */
static void expect_clean(void)
{
	must(place_ledger(&place) == 0);
	must(place_agrees(&place));
	must(scratch_entries(folder) == 0);
	uint64_t faults = place_stats(&place).faults;
	write_everywhere(0x77);
	must(place_stats(&place).faults == faults);
}

static void expect_next_works(void)
{
	struct image image;
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	must(image_begin(&image, place.region, &options) == 0);
	must(image_finish(&image, NULL) == 0);
	must(image_difference(&image, place.base) == place.length_bytes);
	image_free(&image);
}

static void expect_text(struct uffdwp_snapshot *snapshot, const char *part)
{
	char text[512] = "";
	(void)uffdwp_snapshot_wait(snapshot, -1, NULL);
	(void)uffdwp_snapshot_text(snapshot, text, sizeof(text));
	ck_assert_msg(strstr(text, part) != NULL, "\"%s\" does not say \"%s\"", text, part);
}

/* The error and its text; `error` 0: any. */
static void expect_failed(struct uffdwp_snapshot *snapshot, int error, int names_range)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	int result = uffdwp_snapshot_wait(snapshot, -1, &progress);
	char text[512] = "";
	must(uffdwp_snapshot_text(snapshot, text, sizeof(text)) > 5);
	if (result != error && error != 0) {
		fprintf(stderr, "expected %s, got %s: %s\n", strerror(-error), strerror(-result), text);
	}
	must(error == 0 ? result < 0 : result == error);
	must(progress.state == UFFDWP_SNAPSHOT_STATE_FAILED);
	must(progress.error == result);
	must(uffdwp_snapshot_wait(snapshot, 0, NULL) == result);
	size_t digits = strcspn(text, "0123456789");
	if (names_range && text[digits] == '\0') {
		fprintf(stderr, "names no range: %s\n", text);
	}
	must(!names_range || text[digits] != '\0');
	must(uffdwp_snapshot_free(snapshot) == 0);
}

static int open_many(struct place_case which)
{
	if (!place_possible(which)) {
		return 0;
	}
	place_open(&place, which, many_pages(which));
	place_touch(&place);
	return 1;
}

/* --- asked to end --------------------------------------------------------------------------------------------- */

START_TEST(test_aborted_snapshot_is_cancelled)
{
	if (open_many(place_case(_i))) {
		struct uffdwp_snapshot *snapshot = begin_gated();
		write_everywhere(1);
		ck_assert_int_eq(uffdwp_snapshot_abort(snapshot), 0);
		gate_open(&gate);
		expect_failed(snapshot, -ECANCELED, 0);
		expect_clean();
		expect_next_works();
		place_close(&place);
	}
}
END_TEST

START_TEST(test_abort_after_the_end_changes_nothing)
{
	if (!open_many(place_auto_case(_i))) {
		return;
	}
	gate_open(&gate);
	struct uffdwp_snapshot *snapshot = begin_gated();
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_abort(snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	place_close(&place);
}
END_TEST

START_TEST(test_snapshot_freed_while_it_runs_leaves_nothing)
{
	if (open_many(place_case(_i))) {
		struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
		options.path = path;
		for (unsigned round = 0; round < support_rounds(3, 5); round++) {
			struct uffdwp_snapshot *snapshot = begin(&options);
			write_everywhere((uint8_t)round);
			ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
			(void)unlink(path); /* it may have been quick enough to commit */
			expect_clean();
		}
		expect_next_works();
		place_close(&place);
	}
}
END_TEST

/* --- no memory for pre-images --------------------------------------------------------------------------------- */

START_TEST(test_full_pool_under_policy_abort_fails_and_resumes_writers)
{
	if (open_many(place_case(_i))) {
		struct uffdwp_snapshot_options options = gated_options();
		options.policy = UFFDWP_POLICY_ABORT;
		options.pool_bytes = 16 * place.page_bytes;
		struct uffdwp_snapshot *snapshot = begin(&options);
		gate_await(&gate);
		write_everywhere(1);
		gate_open(&gate);
		expect_failed(snapshot, -ENOBUFS, 1);
		expect_clean();
		expect_next_works();
		place_close(&place);
	}
}
END_TEST

START_TEST(test_writers_wait_no_longer_than_asked)
{
	if (open_many(place_case(_i))) {
		struct uffdwp_snapshot_options options = gated_options();
		options.wait_ns = 20000000;
		options.pool_bytes = 16 * place.page_bytes;
		struct uffdwp_snapshot *snapshot = begin(&options);
		gate_await(&gate);
		write_everywhere(1);
		gate_open(&gate);
		expect_text(snapshot, "raise wait_ns or pool_bytes, or use a faster sink");
		expect_failed(snapshot, -ETIME, 1);
		expect_clean();
		expect_next_works();
		place_close(&place);
	}
}
END_TEST

/* --- sinks that break ----------------------------------------------------------------------------------------- */

START_TEST(test_error_of_the_callback_is_the_error_of_the_snapshot)
{
	if (open_many(place_case(_i))) {
		sink_result = -EDQUOT;
		struct uffdwp_snapshot *snapshot = begin_gated();
		write_everywhere(1);
		gate_open(&gate);
		expect_failed(snapshot, -EDQUOT, 1);
		expect_clean();
		expect_next_works();
		place_close(&place);
	}
}
END_TEST

/* Errors that also have a meaning of the library's own are the sink's where the sink returned them. */
START_TEST(test_text_says_what_the_callback_returned)
{
	static const struct {
		int returned;
		int error;
		const char *text;
	} cases[] = {{7, -EIO, "the sink's callback returned 7: it returns 0, or -errno where it fails"},
	             {-ENODATA, -ENODATA, "the sink's callback failed:"},
	             {-ETIME, -ETIME, "the sink's callback failed:"},
	             {-ETIMEDOUT, -ETIME, "the sink's callback failed:"}};
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), 16);
	place_touch(&place);
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		gate = (struct gate)GATE_INIT;
		sink_result = cases[i].returned;
		struct uffdwp_snapshot *snapshot = begin_gated();
		gate_open(&gate);
		expect_text(snapshot, cases[i].text);
		expect_failed(snapshot, cases[i].error, 1);
	}
	place_close(&place);
}
END_TEST

START_TEST(test_stream_whose_reader_went_away_fails)
{
	if (open_many(place_auto_case(_i))) {
		(void)signal(SIGPIPE, SIG_DFL); /* the library must not raise it */
		int ends[2];
		ck_assert_int_eq(pipe2(ends, O_CLOEXEC), 0);
		struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
		options.sink = UFFDWP_SINK_STREAM;
		options.fd = ends[1];
		options.pool_bytes = 2 * place.length_bytes; /* no reader: nothing leaves the pool */
		struct uffdwp_snapshot *snapshot = begin(&options);
		write_everywhere(1);
		close(ends[0]);
		expect_failed(snapshot, -EPIPE, 1);
		close(ends[1]);
		expect_clean();
		expect_next_works();
		place_close(&place);
	}
}
END_TEST

START_TEST(test_stream_without_a_reader_can_be_aborted)
{
	if (!open_many(place_auto_case(_i / 2))) {
		return;
	}
	int ends[2];
	ck_assert_int_eq(pipe2(ends, O_CLOEXEC | (_i % 2 ? O_NONBLOCK : 0)), 0);
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.sink = UFFDWP_SINK_STREAM;
	options.fd = ends[1];
	struct uffdwp_snapshot *snapshot = begin(&options);
	write_everywhere(1);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, 20, NULL), -ETIMEDOUT);
	ck_assert_int_eq(uffdwp_snapshot_abort(snapshot), 0);
	expect_failed(snapshot, -ECANCELED, 0);
	expect_clean();
	place_close(&place);
}
END_TEST

/* Pool sinks that fail with an error of the device: each write of the sink is refused, of either kind of loop. */
START_TEST(test_eio_in_the_sink_fails_the_snapshot)
{
	struct place_case which = place_auto_case(_i / 2);
	if (!place_possible(which)) {
		return;
	}
	refusing_nothing();
	uint32_t flags = _i % 2 ? UFFDWP_OPEN_NO_URING : 0;
	ck_assert_int_eq(place_try(&place, &kernel_refusing, flags, which, many_pages(which)), 0);
	place_touch(&place);
	refusing_ops writes = REFUSING_BIT(pwrite) | REFUSING_BIT(uring_result); /* write(2) also kicks the handler */
	for (uint64_t first = 1; first <= 3; first += 2) {
		refusing_set(&(struct refusal){writes, first, UINT64_MAX, EIO});
		struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
		options.path = path;
		struct uffdwp_snapshot *snapshot = begin(&options);
		write_everywhere(1);
		expect_failed(snapshot, -EIO, 1);
		refusing_nothing();
		expect_clean();
		expect_next_works();
	}
	place_close(&place);
}
END_TEST

START_TEST(test_error_of_fsync_or_rename_leaves_no_file)
{
	if (!place_possible(place_auto_case(_i / 2))) {
		return;
	}
	refusing_nothing();
	ck_assert_int_eq(place_try(&place, &kernel_refusing, 0, place_auto_case(_i / 2), 64), 0);
	place_touch(&place);
	scratch_write(path, "old", 3);
	refusing_set(
	        &(struct refusal){_i % 2 ? REFUSING_BIT(fsync) | REFUSING_BIT(uring_result) : REFUSING_BIT(renameat), 1,
	                          UINT64_MAX, EIO});
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.path = path;
	struct uffdwp_snapshot *snapshot = begin(&options);
	expect_failed(snapshot, -EIO, 0);
	refusing_nothing();
	char old[3];
	ck_assert_int_eq(scratch_read(path, old, sizeof(old)), 1);
	ck_assert_int_eq(unlink(path), 0);
	expect_clean();
	place_close(&place);
}
END_TEST

/* A file system of 1 MiB, in a mount namespace of the child's own. */
static void fill_a_small_disk(void *argument)
{
	struct place_case which = *(struct place_case *)argument;
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("tmpfs", folder, "tmpfs", 0, "size=1m") != 0) {
		support_note("test_full_disk_fails_the_snapshot", strerror(errno));
		return;
	}
	pace_alarm(50);
	must(place_try(&place, NULL, 0, which, many_pages(which)) == 0);
	place_touch(&place);
	if (which.memory == UFFDWP_MEMORY_HUGETLB) {
		memset(place.base, 7, place.length_bytes);
	}
	scratch_write(path, "old", 3);
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.path = path;
	struct uffdwp_snapshot *snapshot = begin(&options);
	write_everywhere(1);
	expect_failed(snapshot, -ENOSPC, 1);
	char old[3];
	must(scratch_read(path, old, sizeof(old)));
	must(unlink(path) == 0);
	expect_clean();
	expect_next_works();
	place_close(&place);
}

START_TEST(test_full_disk_fails_the_snapshot)
{
	struct place_case which = place_auto_case(_i);
	if (place_possible(which)) {
		ck_assert_int_eq(child_run(fill_a_small_disk, &which), 0);
	}
}
END_TEST

/* --- content that vanishes ------------------------------------------------------------------------------------ */

/* The page that vanishes lies far from where a sweep begins. */
static int middle_is_armed(void)
{
	return place_is_armed(&place, place.pages / 2);
}

static void punch_outside(int with_madvise)
{
	uint64_t offset = place.length_bytes / 2;
	if (with_madvise) {
		ck_assert_int_eq(madvise(place.base + offset, place.page_bytes, MADV_REMOVE), 0);
		return;
	}
	ck_assert_int_eq(fallocate(place_fd(&place), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)offset,
	                           (off_t)place.page_bytes),
	                 0);
}

START_TEST(test_content_that_vanishes_fails_the_snapshot)
{
	struct place_case which = place_case(_i / 2);
	if (which.memory == UFFDWP_MEMORY_ANON || !open_many(which)) {
		return;
	}
	struct uffdwp_snapshot *snapshot = begin_gated();
	ck_assert_int_eq(middle_is_armed(), 1);
	punch_outside(_i % 2);
	gate_open(&gate);
	expect_failed(snapshot, 0, 1);
	expect_clean();
	expect_next_works();
	place_close(&place);
}
END_TEST

/* By mprotect no event reports it: the entry is looked at before it is read. */
START_TEST(test_anonymous_memory_that_vanishes_fails_the_snapshot)
{
	struct place_case which = place_case(_i);
	if (which.memory != UFFDWP_MEMORY_ANON || !open_many(which)) {
		return;
	}
	struct uffdwp_snapshot *snapshot = begin_gated();
	ck_assert_int_eq(middle_is_armed(), 1);
	ck_assert_int_eq(madvise(place.base + place.length_bytes / 2, place.page_bytes, MADV_DONTNEED), 0);
	gate_open(&gate);
	expect_failed(snapshot, 0, 1);
	expect_clean();
	expect_next_works();
	place_close(&place);
}
END_TEST

static int is_dead(void *argument)
{
	(void)argument;
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	return uffdwp_region_info(place.region, &info) == 0 && info.dead;
}

START_TEST(test_memory_unmapped_during_a_snapshot_fails_it)
{
	struct place_case which = place_case(_i);
	if (!place_follows(which) || !place_possible(which)) {
		return;
	}
	place_attach(&place, which, many_pages(which), 1);
	place_touch(&place);
	struct uffdwp_snapshot *snapshot = begin_gated();
	ck_assert_int_eq(middle_is_armed(), 1);
	ck_assert_int_eq(munmap(place.base, place.length_bytes), 0);
	ck_assert_int_eq(wait_until(is_dead, NULL, 20), 1);
	gate_open(&gate);
	expect_failed(snapshot, -ESTALE, 0);
	place.base = NULL;
	place_close(&place);
}
END_TEST

int main(void)
{
	support_begin("test_snapshot_fails", &(struct support_needs){.huge_pages = 40, .swap = 0});
	place_begin();
	Suite *suite = suite_create("snapshots that fail");
	TCase *tests = tcase_create("snapshots that fail");
	tcase_set_timeout(tests, 60);
	tcase_add_checked_fixture(tests, setup, NULL);
	tcase_add_loop_test(tests, test_aborted_snapshot_is_cancelled, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_abort_after_the_end_changes_nothing, 0, 2);
	tcase_add_loop_test(tests, test_snapshot_freed_while_it_runs_leaves_nothing, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_full_pool_under_policy_abort_fails_and_resumes_writers, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_writers_wait_no_longer_than_asked, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_error_of_the_callback_is_the_error_of_the_snapshot, 0, PLACE_CASES);
	tcase_add_test(tests, test_text_says_what_the_callback_returned);
	tcase_add_loop_test(tests, test_stream_whose_reader_went_away_fails, 0, PLACE_AUTO_CASES);
	tcase_add_loop_test(tests, test_stream_without_a_reader_can_be_aborted, 0, 4);
	tcase_add_loop_test(tests, test_eio_in_the_sink_fails_the_snapshot, 0, PLACE_AUTO_CASES * 2);
	tcase_add_loop_test(tests, test_error_of_fsync_or_rename_leaves_no_file, 0, 4);
	tcase_add_loop_test(tests, test_full_disk_fails_the_snapshot, 0, PLACE_AUTO_CASES);
	tcase_add_loop_test(tests, test_content_that_vanishes_fails_the_snapshot, 0, PLACE_CASES * 2);
	tcase_add_loop_test(tests, test_anonymous_memory_that_vanishes_fails_the_snapshot, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_memory_unmapped_during_a_snapshot_fails_it, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
