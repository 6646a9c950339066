/* SPDX-License-Identifier: MIT */
/*
 * What the public functions say of arguments that are wrong, where no other test asks: nothing beyond a structure's sz
 * is read, and each refusal has a text of its own. And the words of the headers that nothing else uses.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "scratch.h"
#include "support.h"
#include "uffdwp.h"
#include "witness.h"

#define LENGTH_BYTES ((size_t)1 << 20)

static struct uffdwp *runtime;
static struct uffdwp_region *region;
static char path[SCRATCH_PATH];

static void setup(void)
{
	char folder[SCRATCH_PATH];
	scratch_folder(folder);
	scratch_join(path, folder, "image");
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region), 0);
}

static void teardown(void)
{
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}

static int take_nothing(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	(void)offset;
	(void)data;
	(void)length;
	return 0;
}

static void take_image(const char *parent, const char *to)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	options.path = to;
	options.parent = parent;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	ck_assert_int_eq(uffdwp_snapshot_begin(region, &options, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
}

/* Two structures at the end of a page, after which nothing may be read: the second one says that it is longer. */
START_TEST(test_the_options_of_a_group_are_of_one_sz)
{
	size_t page = (size_t)getpagesize();
	struct uffdwp_snapshot *out[2] = {(void *)path, (void *)path};
	struct uffdwp_region *regions[2] = {region, NULL};
	char text[256];
	char *room = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(room, MAP_FAILED);
	ck_assert_int_eq(mprotect(room + page, page, PROT_NONE), 0);
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &regions[1]), 0);
	struct uffdwp_snapshot_options *options = (void *)(room + page - 2 * sizeof(*options));
	for (unsigned i = 0; i < 2; i++) {
		options[i].sz = sizeof(*options);
		options[i].sink = UFFDWP_SINK_CALLBACK;
		options[i].callback = take_nothing;
	}
	static const size_t others[] = {4096, 16, 0, sizeof(*options) + 8, sizeof(*options) - 8};
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		options[1].sz = others[i];
		ck_assert_int_eq(uffdwp_snapshot_begin_group(regions, options, 2, out), -EINVAL);
		ck_assert_ptr_eq(out[0], path);
		ck_assert_ptr_eq(out[1], path);
		uffdwp_error_text(text, sizeof(text));
		ck_assert_msg(strstr(text, "sz") != NULL, "%s", text);
	}
	options[1].sz = sizeof(*options);
	ck_assert_int_eq(uffdwp_snapshot_begin_group(regions, options, 2, out), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(out[0]), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(out[1]), 0);
	ck_assert_int_eq(uffdwp_region_close(regions[1]), 0);
	munmap(room, 2 * page);
}
END_TEST

/* The text of a call that failed before must not be taken for that of the next. */
static void forget_text(void)
{
	ck_assert_int_eq(uffdwp_probe_run(NULL), -EINVAL);
}

static void expect_text(const char *word)
{
	char text[256];
	uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, word) != NULL, "\"%s\" does not say \"%s\"", text, word);
}

START_TEST(test_an_sz_that_cuts_a_pointer_is_refused)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region *out;
	options.name = "whole";
	for (size_t cut = 1; cut < sizeof(void *); cut++) {
		options.sz = offsetof(struct uffdwp_region_options, name) + cut;
		ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, &options, &out), -EINVAL);
	}
	options.sz = offsetof(struct uffdwp_region_options, fd);
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, &options, &out), 0);
	ck_assert_int_eq(uffdwp_region_close(out), 0);
}
END_TEST

START_TEST(test_a_group_of_nothing_has_a_text)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *out;
	forget_text();
	ck_assert_int_eq(uffdwp_snapshot_begin_group(NULL, &options, 1, &out), -EINVAL);
	expect_text("group");
	forget_text();
	ck_assert_int_eq(uffdwp_snapshot_begin_group(&region, &options, 0, &out), -EINVAL);
	expect_text("group");
}
END_TEST

START_TEST(test_a_link_that_is_none_has_a_text)
{
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	struct uffdwp_image *image;
	take_image(NULL, path);
	ck_assert_int_eq(uffdwp_image_open(path, NULL, &image), 0);
	forget_text();
	ck_assert_int_eq(uffdwp_image_info(image, 1, &info), -ERANGE);
	expect_text("link");
	ck_assert_int_eq(uffdwp_image_close(image), 0);
}
END_TEST

START_TEST(test_counting_into_nothing_is_refused)
{
	uint64_t pages;
	forget_text();
	ck_assert_int_eq(uffdwp_region_armed(region, 0, LENGTH_BYTES, NULL), -EINVAL);
	expect_text("NULL");
	ck_assert_int_eq(uffdwp_region_armed(region, 0, LENGTH_BYTES, &pages), 0);
	struct uffdwp_lost_range range;
	ck_assert_int_eq(uffdwp_region_losses(region, NULL, 1), -EINVAL);
	expect_text("NULL");
	ck_assert_int_eq(uffdwp_region_losses(region, &range, 1), 0);
}
END_TEST

/* Neither one that was asked for nor the default; mapped is what is touched sooner or later. */
START_TEST(test_a_pool_beyond_the_image_takes_no_memory)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = take_nothing;
	options.rate_bytes = 1; /* it does not end before it was looked at */
	options.pool_bytes = _i ? 1ull << 30 : 0;
	memset(uffdwp_region_base(region), 'a', LENGTH_BYTES);
	uint64_t before;
	uint64_t after;
	ck_assert_int_eq(uffdwp_snapshot_begin(region, &options, &snapshot), 0); /* what is loaded once is there */
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	support_memory(&before, NULL);
	ck_assert_int_eq(uffdwp_snapshot_begin(region, &options, &snapshot), 0);
	support_memory(&after, NULL);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	ck_assert_uint_lt(after - before, 32 * LENGTH_BYTES);
}
END_TEST

START_TEST(test_every_uffd_can_be_of_user_mode)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	struct uffdwp_region *watched;
	struct uffdwp *limited;
	options.flags = UFFDWP_OPEN_USER_MODE;
	ck_assert_int_eq(uffdwp_open(&options, &limited), 0);
	ck_assert_int_eq(uffdwp_region_create(limited, LENGTH_BYTES, NULL, &watched), 0);
	ck_assert_int_eq(uffdwp_region_info(watched, &info), 0);
	ck_assert_uint_eq(info.syscalls_wait, 0); /* whatever info.delivery is */
	ck_assert_int_eq(uffdwp_region_arm(watched, 0, LENGTH_BYTES), 0);
	volatile char *memory = uffdwp_region_base(watched);
	memory[0] = 1;
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	ck_assert_int_eq(uffdwp_region_stats(watched, &stats), 0);
	ck_assert_uint_gt(stats.faults, 0);
	/* The kernel itself is not waited for: a pipe is read into an armed page. */
	int ends[2];
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq(write(ends[1], "x", 1), 1);
	ck_assert_int_eq(uffdwp_region_arm(watched, 0, LENGTH_BYTES), 0);
	ck_assert_int_eq(read(ends[0], (void *)(uintptr_t)memory, 1), -1);
	ck_assert_int_eq(errno, EFAULT);
	close(ends[0]);
	close(ends[1]);
	ck_assert_int_eq(uffdwp_region_close(watched), 0);
	ck_assert_int_eq(uffdwp_close(limited), 0);
}
END_TEST

START_TEST(test_a_chain_says_what_its_files_and_extents_are)
{
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	struct uffdwp_image_extent extent = {.sz = sizeof(extent)};
	struct uffdwp_image *image;
	char newer[SCRATCH_PATH];
	(void)snprintf(newer, sizeof(newer), "%.*s.2", (int)sizeof(newer) - 3, path);
	memset(uffdwp_region_base(region), 'a', LENGTH_BYTES / 2);
	take_image(NULL, path);
	memset(uffdwp_region_base(region), 'b', LENGTH_BYTES / 4);
	take_image(path, newer);
	ck_assert_int_eq(uffdwp_image_open(newer, NULL, &image), 0);
	ck_assert_int_eq(uffdwp_image_info(image, 0, &info), 0);
	ck_assert_uint_eq(info.kind, UFFDWP_IMAGE_KIND_DELTA);
	struct uffdwp_image_id parent = info.parent;
	ck_assert_int_eq(uffdwp_image_info(image, 1, &info), 0);
	ck_assert_uint_eq(info.kind, UFFDWP_IMAGE_KIND_RAW);
	ck_assert(info.id.low == parent.low && info.id.high == parent.high);
	ck_assert_int_eq(uffdwp_image_next(image, 0, &extent), 1);
	ck_assert_uint_eq(extent.kind, UFFDWP_EXTENT_DATA);
	ck_assert_int_eq(uffdwp_image_next(image, LENGTH_BYTES / 2, &extent), 1);
	ck_assert_uint_eq(extent.kind, UFFDWP_EXTENT_ZEROS);
	ck_assert_int_eq(extent.fd, -1);
	ck_assert_int_eq(uffdwp_image_close(image), 0);
}
END_TEST

static void expect_text_of(const char *part)
{
	char text[512] = "";
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, part) != NULL, "'%s' does not say '%s'", text, part);
}

/* The second of two images under one name would replace the first. */
START_TEST(test_images_of_a_group_need_names_of_their_own)
{
	struct uffdwp_snapshot_options options[2] = {UFFDWP_SNAPSHOT_OPTIONS_INIT, UFFDWP_SNAPSHOT_OPTIONS_INIT};
	struct uffdwp_region *regions[2] = {region, NULL};
	struct uffdwp_snapshot *out[2] = {NULL, NULL};
	char link[SCRATCH_PATH + 8];
	char twin[SCRATCH_PATH + 8];
	(void)snprintf(link, sizeof(link), "%s.link", path);
	(void)snprintf(twin, sizeof(twin), "/.%s", path);
	ck_assert_int_eq(symlink(path, link), 0);
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &regions[1]), 0);
	const char *const names[] = {path, link, twin};
	options[0].path = path;
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		options[1].path = names[i];
		ck_assert_int_eq(uffdwp_snapshot_begin_group(regions, options, 2, out), -EINVAL);
		ck_assert_ptr_null(out[0]);
		expect_text_of("the same place");
		ck_assert_int_ne(access(path, F_OK), 0);
	}
	(void)snprintf(twin, sizeof(twin), "%s.2", path);
	options[1].path = twin;
	ck_assert_int_eq(uffdwp_snapshot_begin_group(regions, options, 2, out), 0);
	for (size_t i = 0; i < 2; i++) {
		ck_assert_int_eq(uffdwp_snapshot_wait(out[i], -1, NULL), 0);
		ck_assert_int_eq(uffdwp_snapshot_free(out[i]), 0);
	}
	ck_assert_int_eq(access(path, F_OK), 0);
	ck_assert_int_eq(access(twin, F_OK), 0);
	ck_assert_int_eq(uffdwp_region_close(regions[1]), 0);
}
END_TEST

START_TEST(test_a_text_without_a_buffer_is_measured)
{
	ck_assert_int_eq(uffdwp_region_arm(region, 1, 1), -EINVAL);
	ck_assert_uint_gt(uffdwp_error_text(NULL, 10), 8);
}
END_TEST

/* A chain that was broken is not one that never began. */
START_TEST(test_a_parent_after_a_snapshot_that_was_no_image_says_so)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	take_image(NULL, path);
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = take_nothing;
	options.flags = UFFDWP_SNAPSHOT_KEEP; /* else there is no delta of any parent */
	ck_assert_int_eq(uffdwp_snapshot_begin(region, &options, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	struct uffdwp_snapshot_options delta = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	char child[SCRATCH_PATH + 8];
	(void)snprintf(child, sizeof(child), "%s.delta", path);
	delta.path = child;
	delta.parent = path;
	delta.flags = UFFDWP_SNAPSHOT_KEEP;
	int error = uffdwp_snapshot_begin(region, &delta, &snapshot);
	if (error == -EOPNOTSUPP || error == -ENODATA) {
		support_note(__func__, "no deltas of this region");
		return;
	}
	ck_assert_int_eq(error, -EXDEV);
	expect_text_of("left no image file");
	expect_text_of("; take a snapshot without a parent");
}
END_TEST

/* A child of fork() learns why, and not what failed before. */
START_TEST(test_a_child_of_fork_gets_a_text)
{
	int status = -1;
	ck_assert_int_eq(uffdwp_region_arm(region, 1, 1), -EINVAL);
	pid_t child = fork();
	if (child == 0) {
		char text[512] = "";
		int refused = uffdwp_close(runtime) == -ECHILD;
		(void)uffdwp_error_text(text, sizeof(text));
		_exit(refused && strstr(text, "child of fork()") != NULL ? 0 : 1);
	}
	ck_assert_int_gt(child, 0);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_int_eq(status, 0);
}
END_TEST

/* Everything that a child may call with what its parent had; the number of the first that was not refused. */
static int call_all(struct uffdwp_region *inherited, struct uffdwp_snapshot *snapshot)
{
	size_t page = (size_t)getpagesize();
	uint64_t pages = 0;
	struct uffdwp_lost_range lost;
	struct uffdwp_region *other;
	struct uffdwp_view *view;
	struct uffdwp_track *track;
	struct uffdwp_restore *restore;
	struct uffdwp_audit audit = {.sz = sizeof(audit)};
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_restore_options from = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_snapshot *second;
	options.path = from.path = path;
	const int answers[] = {
	        uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &other),
	        uffdwp_region_attach(runtime, uffdwp_region_base(inherited), page, NULL, &other),
	        uffdwp_region_arm(inherited, 0, page),
	        uffdwp_region_disarm(inherited, 0, page),
	        uffdwp_region_armed(inherited, 0, page, &pages),
	        uffdwp_region_grow(inherited, LENGTH_BYTES),
	        uffdwp_region_punch(inherited, 0, page),
	        uffdwp_region_losses(inherited, &lost, 1),
	        uffdwp_region_audit(inherited, &audit),
	        uffdwp_prepare_write(inherited, page, page),
	        uffdwp_snapshot_begin(inherited, &options, &second),
	        uffdwp_snapshot_begin_group(&inherited, &options, 1, &second),
	        uffdwp_snapshot_poll(snapshot, &progress),
	        uffdwp_snapshot_fd(snapshot),
	        uffdwp_snapshot_wait(snapshot, -1, &progress),
	        uffdwp_snapshot_abort(snapshot),
	        uffdwp_snapshot_free(snapshot),
	        uffdwp_view_open(inherited, NULL, &view),
	        uffdwp_restore(inherited, &from, NULL),
	        uffdwp_restore_begin(inherited, &from, &restore),
	        uffdwp_track_start(runtime, NULL, &track),
	        uffdwp_region_close(inherited),
	        uffdwp_close(runtime),
	};
	for (size_t i = 0; i < sizeof(answers) / sizeof(answers[0]); i++) {
		if (answers[i] != -ECHILD) {
			return (int)i + 1;
		}
	}
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	int reads = uffdwp_region_info(inherited, &info) == 0 && info.base == uffdwp_region_base(inherited);
	return reads ? 0 : 99;
}

/* A child's copies of the uffds reach its parent's page tables: nothing that it calls changes these. */
START_TEST(test_a_child_of_fork_leaves_its_parents_pages_armed)
{
	struct uffdwp_region *inherited;
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_snapshot_options stream = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	int status = -1;
	options.flags = UFFDWP_REGION_CREATE_INHERIT;
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, &options, &inherited), 0);
	memset(uffdwp_region_base(inherited), 1, LENGTH_BYTES);
	stream.sink = UFFDWP_SINK_CALLBACK;
	stream.callback = take_nothing;
	ck_assert_int_eq(uffdwp_snapshot_begin(inherited, &stream, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_region_arm(inherited, 0, LENGTH_BYTES), 0);
	size_t before = witness_armed(uffdwp_region_base(inherited), LENGTH_BYTES, (size_t)getpagesize());
	pid_t child = fork();
	if (child == 0) {
		_exit(call_all(inherited, snapshot));
	}
	ck_assert_int_gt(child, 0);
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 0, "call %d of the child was not refused: status %#x",
	              WEXITSTATUS(status), (unsigned)status);
	uint64_t pages = 0;
	ck_assert_int_eq(uffdwp_region_armed(inherited, 0, LENGTH_BYTES, &pages), 0);
	ck_assert_uint_eq(pages, LENGTH_BYTES / (size_t)getpagesize());
	ck_assert_uint_eq(witness_armed(uffdwp_region_base(inherited), LENGTH_BYTES, (size_t)getpagesize()), before);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	ck_assert_int_eq(uffdwp_region_close(inherited), 0);
}
END_TEST

int main(void)
{
	support_begin("test_refusals", &(struct support_needs){0, 0});
	Suite *suite = suite_create("refusals");
	TCase *tests = tcase_create("refusals");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, test_the_options_of_a_group_are_of_one_sz);
	tcase_add_test(tests, test_an_sz_that_cuts_a_pointer_is_refused);
	tcase_add_test(tests, test_a_group_of_nothing_has_a_text);
	tcase_add_test(tests, test_a_link_that_is_none_has_a_text);
	tcase_add_test(tests, test_counting_into_nothing_is_refused);
	tcase_add_loop_test(tests, test_a_pool_beyond_the_image_takes_no_memory, 0, 2);
	tcase_add_test(tests, test_every_uffd_can_be_of_user_mode);
	tcase_add_test(tests, test_a_chain_says_what_its_files_and_extents_are);
	tcase_add_test(tests, test_images_of_a_group_need_names_of_their_own);
	tcase_add_test(tests, test_a_text_without_a_buffer_is_measured);
	tcase_add_test(tests, test_a_parent_after_a_snapshot_that_was_no_image_says_so);
	tcase_add_test(tests, test_a_child_of_fork_gets_a_text);
	tcase_add_test(tests, test_a_child_of_fork_leaves_its_parents_pages_armed);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
