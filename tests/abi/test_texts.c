/* SPDX-License-Identifier: MIT */
/*
 * Error texts: each thread reads why its own call failed, whatever other threads fail at with the same handles
 * meanwhile; and what fails in the background has a text for the thread that waits for it.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

#define LENGTH_BYTES ((size_t)1 << 20)

static struct uffdwp *runtime;
static struct uffdwp_region *region;

static void setup(void)
{
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region), 0);
}

static void teardown(void)
{
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}

static int text_says(const char *part)
{
	char text[512] = "";
	size_t length = uffdwp_error_text(text, sizeof(text));
	return length == strlen(text) && strstr(text, part) != NULL;
}

/* --- two threads ------------------------------------------------------------------------------------------------- */

static _Atomic unsigned turn;

/* Fails, then lets the other thread fail, then reads: in turns, so that each time the other one came between. */
static void fail_in_turn(unsigned mine, void (*refuse)(void), const char *part)
{
	for (unsigned i = 0; i < 8; i++) {
		while (atomic_load(&turn) % 2 != mine)
			sleep_us(50);
		must(i == 0 || text_says(part));
		refuse();
		atomic_fetch_add(&turn, 1);
	}
	while (atomic_load(&turn) < 16)
		sleep_us(50);
	must(text_says(part));
}

static void fail_offset(void)
{
	must(uffdwp_region_arm(region, 1, 1) == -EINVAL);
}

static void fail_grow(void)
{
	must(uffdwp_region_grow(region, 4 * LENGTH_BYTES) == -ENOSPC);
}

static void *grow_main(void *unused)
{
	fail_in_turn(1, fail_grow, "capacity");
	return unused;
}

START_TEST(test_a_text_is_not_overwritten_by_another_thread)
{
	atomic_store(&turn, 0);
	pthread_t other = thread_start(grow_main, NULL);
	fail_in_turn(0, fail_offset, "offset 1 ");
	thread_join(other);
}
END_TEST

static void *look_main(void *unused)
{
	must(uffdwp_error_text(NULL, 0) == 0);
	return unused;
}

START_TEST(test_a_thread_whose_calls_did_not_fail_has_no_text)
{
	fail_offset();
	pthread_t other = thread_start(look_main, NULL);
	thread_join(other);
	ck_assert(text_says("offset 1 "));
}
END_TEST

START_TEST(test_a_text_stays_until_the_next_failure_of_any_handle)
{
	fail_offset();
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	ck_assert_int_eq(uffdwp_region_info(region, &info), 0);
	ck_assert(text_says("offset 1 "));
	struct uffdwp_image *image;
	ck_assert_int_eq(uffdwp_image_open("", NULL, &image), -EINVAL);
	ck_assert(text_says("path"));
	char little[4];
	ck_assert_uint_gt(uffdwp_error_text(little, sizeof(little)), 3);
	ck_assert_uint_eq(strlen(little), 3);
}
END_TEST

/* They may leave a text although they answer 0, which must not be taken for an older one. */
START_TEST(test_a_text_after_a_create_is_of_that_create)
{
	struct uffdwp *another;
	struct uffdwp_region *created;
	struct uffdwp_track *track;
	fail_offset();
	ck_assert_int_eq(uffdwp_open(NULL, &another), 0);
	ck_assert(!text_says("offset 1 "));
	fail_offset();
	ck_assert_int_eq(uffdwp_region_create(another, LENGTH_BYTES, NULL, &created), 0);
	ck_assert(!text_says("offset 1 "));
	fail_offset();
	ck_assert_int_eq(uffdwp_track_start(another, NULL, &track), 0);
	ck_assert(!text_says("offset 1 "));
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	ck_assert_int_eq(uffdwp_region_close(created), 0);
	ck_assert_int_eq(uffdwp_close(another), 0);
	size_t page = (size_t)getpagesize();
	void *mapped = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(mapped != MAP_FAILED);
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.flags = UFFDWP_REGION_CREATE_INHERIT;
	fail_offset();
	ck_assert_int_eq(uffdwp_region_attach(runtime, mapped, page, &options, &created), -EINVAL);
	ck_assert(text_says("flag"));
	fail_offset();
	ck_assert_int_eq(uffdwp_region_attach(runtime, mapped, page, NULL, &created), 0);
	ck_assert(!text_says("offset 1 "));
	ck_assert_int_eq(uffdwp_region_close(created), 0);
	munmap(mapped, page);
}
END_TEST

/* --- in the background ------------------------------------------------------------------------------------------- */

static int refuse_all(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	(void)offset;
	(void)data;
	(void)length;
	return -EDQUOT;
}

START_TEST(test_a_snapshot_that_fails_says_why_to_the_thread_that_waits)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	char text[512] = "";
	memset(uffdwp_region_base(region), 'a', LENGTH_BYTES);
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = refuse_all;
	ck_assert_int_eq(uffdwp_snapshot_begin(region, &options, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), -EDQUOT);
	ck_assert(text_says("snapshot failed"));
	fail_offset();
	ck_assert_uint_gt(uffdwp_snapshot_text(snapshot, text, sizeof(text)), 10);
	ck_assert_ptr_nonnull(strstr(text, "snapshot failed"));
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
}
END_TEST

/* Begins a lazy restore of a file that is cut off then. 0: this kernel or memory has none. */
static int begin_damaged(struct uffdwp_region **target, struct uffdwp_restore **restore)
{
	struct uffdwp_region_options created = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	uint8_t *bytes = malloc(LENGTH_BYTES);
	scratch_folder(folder);
	scratch_join(path, folder, "cut.img");
	memset(bytes, 'b', LENGTH_BYTES);
	scratch_write(path, bytes, LENGTH_BYTES);
	created.mechanism = UFFDWP_MECHANISM_REARM;
	options.path = path;
	options.flags = UFFDWP_RESTORE_BEGIN_ON_DEMAND;
	*target = NULL;
	int works = uffdwp_region_create(runtime, LENGTH_BYTES, &created, target) == 0 &&
	            uffdwp_restore_begin(*target, &options, restore) == 0;
	scratch_write(path, bytes, 4096);
	free(bytes);
	return works;
}

START_TEST(test_a_restore_that_fails_has_a_text_of_its_own)
{
	struct uffdwp_region *target;
	struct uffdwp_restore *restore;
	char text[512] = "";
	if (!begin_damaged(&target, &restore)) {
		support_note("test_a_restore_that_fails_has_a_text_of_its_own", "no lazy restore here");
		ck_assert_int_eq(uffdwp_region_close(target), 0);
		return;
	}
	for (uint64_t offset = 0; offset < LENGTH_BYTES; offset += 4096)
		(void)uffdwp_restore_check(restore, offset, 4096);
	int error = uffdwp_restore_wait(restore, -1, NULL);
	ck_assert_int_lt(error, 0);
	ck_assert(text_says("restore failed"));
	fail_offset();
	ck_assert_uint_gt(uffdwp_restore_text(restore, text, sizeof(text)), 10);
	ck_assert_ptr_nonnull(strstr(text, "restore failed"));
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	ck_assert_int_eq(uffdwp_region_close(target), 0);
}
END_TEST

int main(void)
{
	support_begin("test_texts", &(struct support_needs){0, 0});
	Suite *suite = suite_create("texts");
	TCase *tests = tcase_create("texts");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, test_a_text_is_not_overwritten_by_another_thread);
	tcase_add_test(tests, test_a_thread_whose_calls_did_not_fail_has_no_text);
	tcase_add_test(tests, test_a_text_stays_until_the_next_failure_of_any_handle);
	tcase_add_test(tests, test_a_text_after_a_create_is_of_that_create);
	tcase_add_test(tests, test_a_snapshot_that_fails_says_why_to_the_thread_that_waits);
	tcase_add_test(tests, test_a_restore_that_fails_has_a_text_of_its_own);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
