/* SPDX-License-Identifier: MIT */
/*
 * Snapshots that follow each other as deltas, on the real kernel: each chain shows the memory of its cut, the raw
 * image's id as the sweep made it is the one that is found by reading it, and only the last image of a region may be
 * the next one's parent.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chance.h"
#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

#define LENGTH ((size_t)5 << 20)
#define CUT (LENGTH - 1000)

static struct uffdwp *runtime;
static struct uffdwp_region *region;
static uint8_t *memory;
static uint8_t *shadow;
static char folder[SCRATCH_PATH];
static struct chance chance;

static void setup(void)
{
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH, NULL, &region), 0);
	memory = uffdwp_region_base(region);
	shadow = calloc(1, LENGTH);
	scratch_folder(folder);
	chance = chance_new(11);
}

static void teardown(void)
{
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	free(shadow);
}

static void write_some(void)
{
	for (int i = 0; i < 100; i++) {
		size_t length = 1 + chance_below(&chance, 6000);
		size_t offset = chance_below(&chance, LENGTH - length);
		chance_fill(&chance, shadow + offset, length / 2);
		memcpy(memory + offset, shadow + offset, length);
	}
}

static int snapshot(const char *name, const char *parent, struct uffdwp_snapshot_options *options)
{
	char path[SCRATCH_PATH];
	char parent_path[SCRATCH_PATH];
	struct uffdwp_snapshot *running = NULL;
	scratch_join(path, folder, name);
	scratch_join(parent_path, folder, parent ? parent : "");
	options->path = path;
	options->parent = parent ? parent_path : NULL;
	int error = uffdwp_snapshot_begin(region, options, &running);
	if (error != 0) {
		return error;
	}
	memory[CUT / 2] ^= 1; /* after the cut: must not show */
	error = uffdwp_snapshot_wait(running, -1, NULL);
	memory[CUT / 2] ^= 1;
	(void)uffdwp_snapshot_free(running);
	return error;
}

static void expect_shows(const char *name, size_t length, uint32_t links)
{
	char path[SCRATCH_PATH];
	struct uffdwp_image *image = NULL;
	struct uffdwp_image_verified verified = {.sz = sizeof(verified)};
	uint8_t *bytes = malloc(length);
	scratch_join(path, folder, name);
	ck_assert_int_eq(uffdwp_image_open(path, NULL, &image), 0);
	ck_assert_int_eq(uffdwp_image_verify(image, &verified), 0);
	ck_assert_uint_eq(verified.links, links);
	ck_assert_int_eq(uffdwp_image_read(image, 0, bytes, length), 0);
	ck_assert_mem_eq(bytes, shadow, length);
	ck_assert_int_eq(uffdwp_image_read(image, length, bytes, 1), -ERANGE);
	(void)uffdwp_image_close(image);
	free(bytes);
}

START_TEST(test_each_delta_shows_the_memory_of_its_cut)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	options.length = CUT;
	options.pool_bytes = _i ? (uint64_t)4096 * 16 : 0; /* chunks smaller than the blocks of the id */
	write_some();
	ck_assert_int_eq(snapshot("base", NULL, &options), 0);
	expect_shows("base", CUT, 1);
	write_some();
	ck_assert_int_eq(snapshot("one", "base", &options), 0);
	expect_shows("one", CUT, 2);
	write_some();
	options.compress = 3;
	options.length = CUT - 70000;
	ck_assert_int_eq(snapshot("two", "one", &options), 0);
	expect_shows("two", CUT - 70000, 3);
	options.length = 0;
	options.flags |= UFFDWP_SNAPSHOT_BUFFERED;
	ck_assert_int_eq(snapshot("three", "two", &options), 0);
	expect_shows("three", LENGTH, 4);
	ck_assert_uint_eq(scratch_entries(folder), 4);
}
END_TEST

static void expect_text(const char *part)
{
	char text[512];
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, part) != NULL, "\"%s\" does not say \"%s\"", text, part);
}

START_TEST(test_only_the_last_image_can_be_the_parent)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	write_some();
	char path[SCRATCH_PATH];
	scratch_join(path, folder, "stray");
	scratch_write(path, shadow, LENGTH);
	ck_assert_int_eq(snapshot("one", "stray", &options), -ENODATA);
	expect_text("UFFDWP_SNAPSHOT_KEEP");
	ck_assert_int_eq(snapshot("base", NULL, &options), 0);
	ck_assert_int_eq(snapshot("one", "stray", &options), -EXDEV);
	expect_text("name the image of the region's last snapshot, or take a snapshot without a parent");
	ck_assert_int_eq(snapshot("one", "nothing", &options), -ENOENT);
	ck_assert_int_eq(snapshot("base", "base", &options), -EINVAL);
	ck_assert_int_eq(snapshot("one", "base", &options), 0);
	ck_assert_int_eq(snapshot("two", "base", &options), -EXDEV);
	ck_assert_int_eq(snapshot("two", "one", &options), 0);
	ck_assert_int_eq(snapshot("three", "one", &options), -EXDEV);
	expect_text("has not the id of the image");
	ck_assert_uint_eq(scratch_entries(folder), 4);
	expect_shows("two", LENGTH, 3);
	options.sink = UFFDWP_SINK_CALLBACK;
	ck_assert_int_eq(snapshot("three", "two", &options), -EINVAL);
	options.sink = UFFDWP_SINK_IMAGE;
	options.compress = 20;
	ck_assert_int_eq(snapshot("three", "two", &options), -EINVAL);
	options.compress = 1;
	ck_assert_int_eq(snapshot("three", NULL, &options), -EINVAL);
	options.compress = 0;
	options.mode = 01000;
	ck_assert_int_eq(snapshot("three", "two", &options), -EINVAL);
	options.mode = 0;
	/* a program that was compiled when there were no deltas */
	options.sz = offsetof(struct uffdwp_snapshot_options, parent);
	ck_assert_int_eq(snapshot("raw", "two", &options), 0);
	expect_shows("raw", LENGTH, 1);
}
END_TEST

START_TEST(test_a_parent_that_was_written_since_is_refused)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	char path[SCRATCH_PATH];
	ck_assert_int_eq(snapshot("base", NULL, &options), 0);
	scratch_join(path, folder, "base");
	scratch_write(path, shadow, LENGTH);
	ck_assert_int_eq(snapshot("one", "base", &options), -EXDEV);
	expect_text("was written since; name the image");
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(snapshot("one", "base", &options), -ENOENT);
	ck_assert_uint_eq(scratch_entries(folder), 0);
}
END_TEST

static int refuse_bytes(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	(void)offset;
	(void)data;
	(void)length;
	return -EIO;
}

static void expect_no_delta_because(const char *parent, const char *reason)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	ck_assert_int_eq(snapshot("delta", parent, &options), -ENODATA);
	expect_text(reason);
	expect_text("take a snapshot of all first");
}

START_TEST(test_a_refusal_says_why_there_is_no_delta)
{
	struct uffdwp_snapshot_options kept = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_restore_options from = UFFDWP_RESTORE_OPTIONS_INIT;
	char path[SCRATCH_PATH];
	kept.flags = UFFDWP_SNAPSHOT_KEEP;
	scratch_join(path, folder, "base");
	from.path = path;
	expect_no_delta_because("base", "there was no snapshot of it yet");
	write_some();
	ck_assert_int_eq(snapshot("base", NULL, &options), 0);
	expect_no_delta_because("base", "without UFFDWP_SNAPSHOT_KEEP");
	ck_assert_int_eq(snapshot("base", NULL, &kept), 0);
	ck_assert_int_eq(uffdwp_restore(region, &from, NULL), 0);
	expect_no_delta_because("base", "restored after it");
	ck_assert_int_eq(snapshot("base", NULL, &kept), 0);
	options = kept;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = refuse_bytes;
	ck_assert_int_eq(snapshot("none", NULL, &options), -EIO);
	expect_no_delta_because("base", "failed or was aborted");
}
END_TEST

/* The shadow is not written to: what is refused changes nothing. */
static void expect_refused_in_place(const char *name, const char *parent)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	char quoted[SCRATCH_PATH];
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	ck_assert_msg(snapshot(name, parent, &options) == -EINVAL, "\"%s\" over its ancestor is not refused", name);
	(void)snprintf(quoted, sizeof(quoted), "/%s\" is the parent, or one of its ancestors", name);
	expect_text(quoted);
	expect_text("give it a path");
}

START_TEST(test_no_delta_replaces_a_file_that_it_rests_on)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	char path[SCRATCH_PATH];
	char away[SCRATCH_PATH];
	char link[SCRATCH_PATH];
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	scratch_join(path, folder, "base");
	scratch_join(away, folder, "away");
	scratch_join(link, folder, "link");
	ck_assert_int_eq(symlink("base", link), 0);
	write_some();
	ck_assert_int_eq(snapshot("base", NULL, &options), 0);
	ck_assert_int_eq(snapshot("one", "base", &options), 0);
	expect_refused_in_place("one", "one");
	expect_refused_in_place("base", "one"); /* two names in turn */
	expect_refused_in_place("link", "one");
	write_some();
	ck_assert_int_eq(snapshot("two", "one", &options), 0);
	expect_refused_in_place("base", "two");
	expect_refused_in_place("one", "two");
	ck_assert_int_eq(rename(path, away), 0); /* its name is still the one that "one" looks for */
	expect_refused_in_place("base", "two");
	expect_refused_in_place("link", "two");
	ck_assert_int_eq(rename(away, path), 0);
	ck_assert_int_eq(snapshot("three", "two", &options), 0);
	expect_shows("three", LENGTH, 4);
	ck_assert_int_eq(snapshot("base", NULL, &options), 0); /* a raw image rests on nothing */
	expect_shows("base", LENGTH, 1);
}
END_TEST

static void link_to(const char *target, const char *name)
{
	char path[SCRATCH_PATH];
	scratch_join(path, folder, name);
	(void)unlink(path);
	ck_assert_int_eq(symlink(target, path), 0);
}

START_TEST(test_a_parent_is_remembered_by_the_name_that_its_link_leads_to)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	char path[SCRATCH_PATH];
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	scratch_join(path, folder, "store");
	ck_assert_int_eq(mkdir(path, 0700), 0);
	link_to("store/1.raw", "cur");
	write_some();
	ck_assert_int_eq(snapshot("cur", NULL, &options), 0);
	write_some();
	ck_assert_int_eq(snapshot("store/2.delta", "cur", &options), 0);
	expect_shows("store/2.delta", LENGTH, 2);
	link_to("store/2.delta", "latest");
	expect_refused_in_place("store/1.raw", "latest");
	write_some();
	ck_assert_int_eq(snapshot("store/3.delta", "latest", &options), 0);
	link_to("store/3.delta", "latest");
	expect_shows("store/3.delta", LENGTH, 3);
	expect_shows("latest", LENGTH, 3);
	link_to("store/nothing", "latest");
	ck_assert_int_eq(snapshot("store/4.delta", "latest", &options), -ENOENT);
}
END_TEST

/* Two deltas that name each other as parent stand for a chain that is too long. */
START_TEST(test_a_delta_that_could_not_be_opened_is_refused)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	char path[SCRATCH_PATH];
	char newest[SCRATCH_PATH];
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	scratch_join(path, folder, "base");
	scratch_join(newest, folder, "two");
	ck_assert_int_eq(snapshot("base", NULL, &options), 0);
	ck_assert_int_eq(snapshot("one", "base", &options), 0);
	ck_assert_int_eq(snapshot("two", "one", &options), 0);
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(link(newest, path), 0);
	ck_assert_int_eq(snapshot("three", "two", &options), -ELOOP);
	expect_text("512 images");
	expect_text("without a parent");
	struct uffdwp_image *image;
	ck_assert_int_eq(uffdwp_image_open(newest, NULL, &image), -EXDEV);
	expect_text("written over the parent");
	ck_assert_uint_eq(scratch_entries(folder), 3);
}
END_TEST

int main(void)
{
	support_begin("test_image", &(struct support_needs){0, 0});
	Suite *suite = suite_create("image");
	TCase *tests = tcase_create("image");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_each_delta_shows_the_memory_of_its_cut, 0, 2);
	tcase_add_test(tests, test_only_the_last_image_can_be_the_parent);
	tcase_add_test(tests, test_a_parent_that_was_written_since_is_refused);
	tcase_add_test(tests, test_a_refusal_says_why_there_is_no_delta);
	tcase_add_test(tests, test_no_delta_replaces_a_file_that_it_rests_on);
	tcase_add_test(tests, test_a_parent_is_remembered_by_the_name_that_its_link_leads_to);
	tcase_add_test(tests, test_a_delta_that_could_not_be_opened_is_refused);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
