/* SPDX-License-Identifier: MIT */
/*
 * Snapshots that cannot begin: every error that uffdwp_snapshot_begin() states. After each one: a text, no file in the
 * folder, no armed page, and the next snapshot of the region works.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "place.h"
#include "scratch.h"
#include "support.h"

#define PAGES 4

static struct place place;
static char folder[SCRATCH_PATH];

static void expect_image_works(void)
{
	char path[SCRATCH_PATH];
	scratch_join(path, folder, "after");
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.path = path;
	struct uffdwp_snapshot *snapshot = NULL;
	must(uffdwp_snapshot_begin(place.region, &options, &snapshot) == 0);
	must(uffdwp_snapshot_wait(snapshot, -1, NULL) == 0);
	must(uffdwp_snapshot_free(snapshot) == 0);
	must(scratch_entries(folder) == 1);
	must(unlink(path) == 0);
}

static void setup(void)
{
	scratch_folder(folder);
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES);
	place_touch(&place);
}

static void teardown(void)
{
	ck_assert_uint_eq(scratch_entries(folder), 0);
	place_expect_armed(&place, 0);
	expect_image_works();
	place_close(&place);
}

/* `named`: what the text has to name; NULL: any text will do. Also used in children, hence must(). */
static void expect_refused(const struct uffdwp_snapshot_options *options, int error, const char *named)
{
	struct uffdwp_snapshot *const untouched = (struct uffdwp_snapshot *)&place;
	struct uffdwp_snapshot *snapshot = untouched;
	size_t files = scratch_open_files();
	int result = uffdwp_snapshot_begin(place.region, options, &snapshot);
	if (result != error) {
		fprintf(stderr, "expected %d, got %d\n", error, result);
	}
	must(result == error);
	must(snapshot == untouched);
	must(scratch_open_files() == files);
	char text[1024] = "";
	must(uffdwp_error_text(text, sizeof(text)) > 8);
	if (named != NULL && strstr(text, named) == NULL) {
		fprintf(stderr, "not named: %s in: %s\n", named, text);
	}
	must(named == NULL || strstr(text, named) != NULL);
	must(uffdwp_region_arm(place.region, 0, place.page_bytes) == 0);
	must(uffdwp_region_disarm(place.region, 0, place.page_bytes) == 0);
}

static struct uffdwp_snapshot_options image_at(const char *path)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.path = path;
	return options;
}

static void expect_path_refused(const char *path, int error)
{
	struct uffdwp_snapshot_options options = image_at(path);
	expect_refused(&options, error, strrchr(path, '/') + 1);
}

START_TEST(test_folder_that_does_not_exist)
{
	char path[SCRATCH_PATH];
	scratch_join(path, folder, "nowhere/image");
	expect_path_refused(path, -ENOENT);
}
END_TEST

START_TEST(test_path_through_a_file)
{
	char file[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	scratch_join(file, folder, "file");
	scratch_write(file, "x", 1);
	scratch_join(path, file, "image");
	expect_path_refused(path, -ENOTDIR);
	ck_assert_int_eq(unlink(file), 0);
}
END_TEST

START_TEST(test_directory_as_the_path)
{
	char path[SCRATCH_PATH];
	scratch_join(path, folder, "directory");
	ck_assert_int_eq(mkdir(path, 0755), 0);
	expect_path_refused(path, -EISDIR);
	ck_assert_int_eq(rmdir(path), 0);
	expect_path_refused(folder, -EISDIR);
	scratch_join(path, folder, "");
	expect_path_refused(path, -EISDIR);
}
END_TEST

START_TEST(test_no_path_and_no_sink)
{
	struct uffdwp_snapshot_options options = image_at(NULL);
	expect_refused(&options, -EINVAL, NULL);
	expect_refused(NULL, -EINVAL, NULL);
	struct uffdwp_snapshot_options callback = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	callback.sink = UFFDWP_SINK_CALLBACK;
	expect_refused(&callback, -EINVAL, NULL);
	options = image_at("");
	options.sink = 4;
	expect_refused(&options, -EINVAL, NULL);
}
END_TEST

START_TEST(test_stream_without_a_descriptor)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.sink = UFFDWP_SINK_STREAM;
	expect_refused(&options, -EBADF, NULL);
	options.fd = 1000;
	expect_refused(&options, -EBADF, NULL);
	options.fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	expect_refused(&options, -EBADF, NULL);
	close(options.fd);
}
END_TEST

START_TEST(test_bad_figures)
{
	char path[SCRATCH_PATH];
	scratch_join(path, folder, "image");
	struct uffdwp_snapshot_options options = image_at(path);
	options.length = place.length_bytes + 1;
	expect_refused(&options, -ERANGE, NULL);
	options = image_at(path);
	options.length = UINT64_MAX;
	expect_refused(&options, -ERANGE, NULL);
	options = image_at(path);
	options.flags = 1u << 7;
	expect_refused(&options, -EINVAL, NULL);
	options = image_at(path);
	options.flags = UFFDWP_SNAPSHOT_COARSE; /* without KEEP */
	expect_refused(&options, -EINVAL, NULL);
	options = image_at(path);
	options.policy = 2;
	expect_refused(&options, -EINVAL, NULL);
	options = image_at(path);
	options.window_max = 65;
	expect_refused(&options, -EINVAL, NULL);
	options = image_at(path);
	options.pool_bytes = 15 * place.page_bytes;
	expect_refused(&options, -EINVAL, NULL);
	options = image_at(path);
	options.arming = UFFDWP_ARMING_MOVE + 1;
	expect_refused(&options, -EINVAL, NULL);
}
END_TEST

START_TEST(test_second_snapshot_of_a_region)
{
	char path[SCRATCH_PATH];
	scratch_join(path, folder, "first");
	struct uffdwp_snapshot_options options = image_at(path);
	struct uffdwp_snapshot *snapshot = NULL;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	struct uffdwp_snapshot *second = NULL;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &second), -EBUSY);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &second), -EBUSY);
	ck_assert_ptr_null(second);
	char text[200];
	ck_assert_uint_gt(uffdwp_error_text(text, sizeof(text)), 8);
	ck_assert_int_eq(uffdwp_region_close(place.region), -EBUSY);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	ck_assert_int_eq(unlink(path), 0);
}
END_TEST

/* --- as another user, or on another mount: in children ------------------------------------------------------- */

static void unprivileged(void *argument)
{
	char *path = argument;
	must(setresgid(65534, 65534, 65534) == 0 && setresuid(65534, 65534, 65534) == 0);
	must(prctl(PR_SET_DUMPABLE, 1) == 0); /* else /proc/self belongs to root */
	struct place_case which = place_any(UFFDWP_MEMORY_SHMEM);
	which.delivery = place_delivery(UFFDWP_MEMORY_SHMEM, 1);
	must(place_try(&place, NULL, 0, which, PAGES) == 0);
	place_touch(&place);
	expect_path_refused(path, -EACCES);
	must(place_agrees(&place));
	scratch_join(path, folder, "of-nobody");
	struct uffdwp_snapshot_options options = image_at(path);
	struct uffdwp_snapshot *snapshot = NULL;
	must(uffdwp_snapshot_begin(place.region, &options, &snapshot) == 0);
	*(volatile uint8_t *)place.base = 1;
	must(uffdwp_snapshot_wait(snapshot, -1, NULL) == 0);
	must(uffdwp_snapshot_free(snapshot) == 0);
	must(unlink(path) == 0);
	place_close(&place);
}

START_TEST(test_folder_of_another_user)
{
	if (SUPPORT_THREAD_SANITIZER) {
		support_note(__func__, "the thread sanitizer does not follow a fork of several threads");
		return;
	}
	char path[SCRATCH_PATH];
	char locked[SCRATCH_PATH];
	scratch_folder(locked);
	ck_assert_int_eq(chmod(locked, 0755), 0);
	scratch_join(path, locked, "image");
	if (!support_may_change_user()) {
		support_note(__func__, "needs root to become another user");
		return;
	}
	struct place kept = place;
	ck_assert_int_eq(child_run(unprivileged, path), 0);
	place = kept;
	ck_assert_uint_eq(scratch_entries(locked), 0);
}
END_TEST

static void on_read_only_mount(void *argument)
{
	char *mounted = argument;
	if (unshare(CLONE_NEWNS) != 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) != 0 ||
	    mount("tmpfs", mounted, "tmpfs", MS_RDONLY, NULL) != 0) {
		support_note("test_read_only_file_system", strerror(errno));
		return;
	}
	must(place_try(&place, NULL, 0, place_any(UFFDWP_MEMORY_SHMEM), PAGES) == 0);
	char path[SCRATCH_PATH];
	scratch_join(path, mounted, "image");
	expect_path_refused(path, -EROFS);
	place_close(&place);
}

START_TEST(test_read_only_file_system)
{
	if (SUPPORT_THREAD_SANITIZER) {
		support_note(__func__, "the thread sanitizer does not follow a fork of several threads");
		return;
	}
	char mounted[SCRATCH_PATH];
	scratch_folder(mounted);
	ck_assert_int_eq(child_run(on_read_only_mount, mounted), 0);
}
END_TEST

int main(void)
{
	support_begin("test_bad_sink", &(struct support_needs){0, 0});
	place_begin();
	Suite *suite = suite_create("bad sink");
	TCase *tests = tcase_create("bad sink");
	tcase_set_timeout(tests, 60);
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, test_folder_that_does_not_exist);
	tcase_add_test(tests, test_path_through_a_file);
	tcase_add_test(tests, test_directory_as_the_path);
	tcase_add_test(tests, test_no_path_and_no_sink);
	tcase_add_test(tests, test_stream_without_a_descriptor);
	tcase_add_test(tests, test_bad_figures);
	tcase_add_test(tests, test_second_snapshot_of_a_region);
	tcase_add_test(tests, test_folder_of_another_user);
	tcase_add_test(tests, test_read_only_file_system);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
