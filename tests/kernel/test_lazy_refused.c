/* SPDX-License-Identifier: MIT */
/*
 * What the beginning of a lazy restore refuses, with which error and words; nothing has changed then.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "chain.h"
#include "place.h"
#include "support.h"

#define PAGES 700
#define LENGTH ((size_t)PAGES * 4096)

static struct place place;
static struct test_chain chain;
static struct uffdwp_restore *restore;

static int try_begin(const char *path, uint32_t flags, uint32_t threads)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	options.path = path;
	options.flags = flags;
	options.threads = threads;
	return uffdwp_restore_begin(place.region, &options, &restore);
}

static void expect_text(const char *part)
{
	char text[1024];
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, part) != NULL, "\"%s\" does not say \"%s\"", text, part);
}

/* A raw image of noise: no page is zeros. */
static void make_raw(void)
{
	struct chance chance = chance_new(41);
	test_chain_begin(&chain, 4096, LENGTH, 40);
	chance_fill(&chance, chain.shadow, LENGTH);
	scratch_write(chain.path, chain.shadow, LENGTH);
}

/* --- what is refused -----------------------------------------------------------------------------------------------
 */

static int accept_all(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	(void)offset;
	(void)data;
	(void)length;
	return 0;
}

static struct uffdwp_snapshot *open_snapshot(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *running = NULL;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = accept_all;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &running), 0);
	return running;
}

static void expect_refused(const char *path, int error, const char *text)
{
	struct uffdwp_restore *before = restore;
	ck_assert_int_eq(try_begin(path, 0, 0), error);
	ck_assert_ptr_eq(restore, before);
	expect_text(text);
	ck_assert_int_eq(place.base[5], 55); /* nothing has changed */
}

static void refuse_options(void)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	options.path = chain.path;
	ck_assert_int_eq(uffdwp_restore_begin(place.region, &options, NULL), -EINVAL);
	options.flags = 1u << 9;
	ck_assert_int_eq(uffdwp_restore_begin(place.region, &options, &restore), -EINVAL);
	options.flags = 0;
	options.threads = 65;
	ck_assert_int_eq(uffdwp_restore_begin(place.region, &options, &restore), -EINVAL);
	options.threads = 0;
	options.path_count = 1;
	ck_assert_int_eq(uffdwp_restore_begin(place.region, &options, &restore), -EINVAL);
	options.path_count = 0;
	options.sz = 8;
	ck_assert_int_eq(uffdwp_restore_begin(place.region, &options, &restore), -EINVAL);
	ck_assert_int_eq(uffdwp_restore_begin(place.region, NULL, &restore), -EINVAL);
	expect_text("path");
}

static void refuse_images(void)
{
	char path[SCRATCH_PATH];
	char lonely[SCRATCH_PATH];
	scratch_join(path, chain.folder, "none");
	expect_refused(path, -ENOENT, "none");
	expect_refused(chain.folder, -EISDIR, chain.folder);
	test_chain_step(&chain, 0, LENGTH);
	scratch_join(path, chain.folder, "base");
	scratch_join(lonely, chain.folder, "hidden");
	ck_assert_int_eq(rename(path, lonely), 0);
	expect_refused(chain.path, -ENOENT, "base");
	ck_assert_int_eq(rename(lonely, path), 0);
	ck_assert_int_eq(truncate(path, (off_t)(LENGTH + 4096)), 0);
	expect_refused(path, -ERANGE, "grow it");
	ck_assert_int_eq(truncate(path, (off_t)LENGTH), 0);
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	ck_assert_int_eq(uffdwp_region_info(place.region, &info), 0);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", info.fd);
	expect_refused(path, -EINVAL, "own memory");
}

static void refuse_others(void)
{
	struct uffdwp_view *view = NULL;
	struct uffdwp_restore *first = NULL;
	struct uffdwp_snapshot *running = open_snapshot();
	expect_refused(chain.path, -EBUSY, "uffdwp_snapshot_free");
	ck_assert_int_eq(uffdwp_snapshot_free(running), 0);
	int viewed = uffdwp_view_open(place.region, NULL, &view);
	ck_assert(viewed == 0 || viewed == -EOPNOTSUPP); /* what they need is not on every kernel */
	if (viewed == 0) {
		expect_refused(chain.path, -EBUSY, "uffdwp_view_close");
	}
	ck_assert_int_eq(uffdwp_view_close(view), 0);
	view = NULL;
	ck_assert_int_eq(try_begin(chain.path, 0, 0), 0);
	first = restore;
	ck_assert_int_eq(try_begin(chain.path, 0, 0), -EBUSY);
	expect_text("uffdwp_restore_free");
	ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &view), -EBUSY);
	ck_assert_int_eq(uffdwp_region_close(place.region), -EBUSY);
	struct uffdwp_restore_progress small = {.sz = 8};
	ck_assert_int_eq(uffdwp_restore_wait(first, -1, &small), -EINVAL);
	ck_assert_int_eq(uffdwp_restore_wait(first, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_restore_free(first), 0);
	ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &view), viewed);
	ck_assert_int_eq(uffdwp_view_close(view), 0);
}

START_TEST(test_what_begin_refuses)
{
	struct place_case which = place_by(UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_REARM);
	if (!place_restores_lazily(which)) {
		return;
	}
	make_raw();
	size_t before = scratch_open_files();
	place_open(&place, which, PAGES);
	place.base[5] = 55;
	refuse_options();
	refuse_images();
	refuse_others();
	place_close(&place);
	ck_assert_uint_eq(scratch_open_files(), before);
	test_chain_end(&chain);
}
END_TEST

START_TEST(test_mechanisms_that_do_not_see_empty_pages_are_refused)
{
	make_raw();
	for (int mechanism = UFFDWP_MECHANISM_MARKER; mechanism < UFFDWP_MECHANISM_REGION_COUNT; mechanism++) {
		struct place_case which = place_by(UFFDWP_MEMORY_SHMEM, (enum uffdwp_mechanism)mechanism);
		if (mechanism == UFFDWP_MECHANISM_REARM || !place_possible(which)) {
			continue;
		}
		place_open(&place, which, PAGES);
		place.base[5] = 55;
		expect_refused(chain.path, -EOPNOTSUPP, "UFFDWP_MECHANISM_REARM");
		place_close(&place);
	}
	test_chain_end(&chain);
}
END_TEST

START_TEST(test_sealed_regions_are_refused)
{
	struct place_case which = place_by(UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_REARM);
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	if (!place_possible(which)) {
		return;
	}
	make_raw();
	options.flags = UFFDWP_REGION_CREATE_SEALED;
	place_open_with(&place, which, PAGES, &options);
	place.base[5] = 55;
	expect_refused(chain.path, -EPERM, "sealed");
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

int main(void)
{
	support_begin("test_lazy_refused", &(struct support_needs){.huge_pages = 0, .swap = 0});
	place_begin();
	Suite *suite = suite_create("lazy_refused");
	TCase *tests = tcase_create("lazy_refused");
	tcase_add_test(tests, test_what_begin_refuses);
	tcase_add_test(tests, test_mechanisms_that_do_not_see_empty_pages_are_refused);
	tcase_add_test(tests, test_sealed_regions_are_refused);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
