/* SPDX-License-Identifier: MIT */
/*
 * Zero is the default of every field: {.sz = sizeof o} does what NULL does. And what an embedding program asks of the
 * interface: a region at an address of its own, descriptors for its event loop, an end of its own choice, its own log.
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

#define LENGTH_BYTES ((size_t)1 << 20)

static struct uffdwp *runtime;

static void setup(void)
{
	struct uffdwp_options options = {.sz = sizeof(options)};
	ck_assert_int_eq(uffdwp_open(&options, &runtime), 0);
}

static void teardown(void)
{
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}

static int is_zero(const void *bytes, size_t sz)
{
	size_t at = sizeof(size_t);
	while (at < sz && ((const unsigned char *)bytes)[at] == 0) /* NOLINT(clang-analyzer-core*): all of it is set */
		at++;
	return at == sz;
}

START_TEST(test_initial_values_are_zeros_after_the_size)
{
	struct uffdwp_options open = UFFDWP_OPTIONS_INIT;
	struct uffdwp_region_options region = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_snapshot_options snapshot = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_track_options track = UFFDWP_TRACK_OPTIONS_INIT;
	ck_assert(open.sz == sizeof(open) && is_zero(&open, sizeof(open)));
	ck_assert(region.sz == sizeof(region) && is_zero(&region, sizeof(region)));
	ck_assert(snapshot.sz == sizeof(snapshot) && is_zero(&snapshot, sizeof(snapshot)));
	ck_assert(track.sz == sizeof(track) && is_zero(&track, sizeof(track)));
}
END_TEST

/* Anonymous memory has no file; descriptor 0 is none, not a file to be compared with. */
START_TEST(test_zeroed_options_attach_memory_without_a_file)
{
	struct uffdwp_region_options options = {.sz = sizeof(options)};
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	struct uffdwp_region *region;
	void *memory = mmap(NULL, LENGTH_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(memory, MAP_FAILED);
	ck_assert_int_eq(uffdwp_region_attach(runtime, memory, LENGTH_BYTES, &options, &region), 0);
	ck_assert_int_eq(uffdwp_region_info(region, &info), 0);
	ck_assert_int_eq(info.fd, -1);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	munmap(memory, LENGTH_BYTES);
}
END_TEST

START_TEST(test_a_stream_without_a_descriptor_is_refused)
{
	struct uffdwp_snapshot_options options = {.sz = sizeof(options), .sink = UFFDWP_SINK_STREAM};
	struct uffdwp_region *region;
	struct uffdwp_snapshot *snapshot;
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region), 0);
	ck_assert_int_eq(uffdwp_snapshot_begin(region, &options, &snapshot), -EBADF);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
}
END_TEST

/* --- a region where the program wants it -------------------------------------------------------------------------- */

START_TEST(test_a_region_is_created_at_the_address_that_is_asked_for)
{
	struct uffdwp_region_options options = {.sz = sizeof(options)};
	struct uffdwp_region *region;
	uint8_t *place = mmap(NULL, 4 * LENGTH_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(place, MAP_FAILED);
	options.address = place;
	options.capacity_bytes = 2 * LENGTH_BYTES;
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, &options, &region), -EEXIST);
	munmap(place, LENGTH_BYTES); /* the length is free, the capacity is not */
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, &options, &region), -EEXIST);
	ck_assert_int_eq(mprotect(place + LENGTH_BYTES, LENGTH_BYTES, PROT_NONE), 0); /* what was there still is */
	munmap(place + LENGTH_BYTES, LENGTH_BYTES);
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, &options, &region), 0);
	ck_assert_ptr_eq(uffdwp_region_base(region), place);
	place[0] = 1;
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	options.address = place + 1;
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, &options, &region), -EINVAL);
	options.address = place;
	options.capacity_bytes = 0;
	ck_assert_int_eq(uffdwp_region_attach(runtime, place + 2 * LENGTH_BYTES, LENGTH_BYTES, &options, &region),
	                 -EINVAL);
	munmap(place + 2 * LENGTH_BYTES, 2 * LENGTH_BYTES);
}
END_TEST

/* --- descriptors for event loops ---------------------------------------------------------------------------------- */

static int is_readable(int fd, int timeout_ms)
{
	struct pollfd one = {.fd = fd, .events = POLLIN};
	return poll(&one, 1, timeout_ms) == 1 && (one.revents & POLLIN) != 0;
}

static _Atomic int gate_open;

static int wait_at_gate(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	(void)offset;
	(void)data;
	(void)length;
	while (!atomic_load(&gate_open))
		sleep_us(100);
	return 0;
}

START_TEST(test_a_descriptor_becomes_readable_when_the_snapshot_ends)
{
	struct uffdwp_snapshot_options options = {.sz = sizeof(options), .sink = UFFDWP_SINK_CALLBACK};
	struct uffdwp_region *region;
	struct uffdwp_snapshot *snapshot;
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region), 0);
	memset(uffdwp_region_base(region), 1, LENGTH_BYTES);
	options.callback = wait_at_gate;
	atomic_store(&gate_open, 0);
	ck_assert_int_eq(uffdwp_snapshot_begin(region, &options, &snapshot), 0);
	int fd = uffdwp_snapshot_fd(snapshot);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(uffdwp_snapshot_fd(snapshot), fd);
	ck_assert(!is_readable(fd, 0));
	atomic_store(&gate_open, 1);
	ck_assert(is_readable(fd, 60000));
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, 0, NULL), 0);
	ck_assert(is_readable(fd, 0));
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_begin(region, &options, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert(is_readable(uffdwp_snapshot_fd(snapshot), 0)); /* asked for after the end */
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
}
END_TEST

/* NULL: this kernel or memory has none. */
static struct uffdwp_restore *begin_restore(struct uffdwp_region **region)
{
	struct uffdwp_region_options created = {.sz = sizeof(created), .mechanism = UFFDWP_MECHANISM_REARM};
	struct uffdwp_restore_options options = {.sz = sizeof(options), .flags = UFFDWP_RESTORE_BEGIN_ON_DEMAND};
	struct uffdwp_restore *restore;
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	uint8_t *bytes = malloc(LENGTH_BYTES);
	memset(bytes, 'b', LENGTH_BYTES);
	scratch_folder(folder);
	scratch_join(path, folder, "whole.img");
	scratch_write(path, bytes, LENGTH_BYTES);
	free(bytes);
	options.path = path;
	*region = NULL;
	if (uffdwp_region_create(runtime, LENGTH_BYTES, &created, region) == 0 &&
	    uffdwp_restore_begin(*region, &options, &restore) == 0)
		return restore;
	support_note("lazy restores", "not available here");
	ck_assert_int_eq(uffdwp_region_close(*region), 0);
	return NULL;
}

START_TEST(test_a_restore_is_polled_and_its_descriptor_says_that_it_ended)
{
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};
	struct uffdwp_region *region;
	struct uffdwp_restore *restore = begin_restore(&region);
	if (!restore)
		return;
	int fd = uffdwp_restore_fd(restore);
	ck_assert_int_ge(fd, 0);
	ck_assert(!is_readable(fd, 0));
	ck_assert_int_eq(uffdwp_restore_poll(restore, &progress), 0);
	ck_assert_uint_eq(progress.state, UFFDWP_RESTORE_STATE_RUNNING);
	for (size_t at = 0; at < LENGTH_BYTES; at += 4096)
		ck_assert_int_eq(((volatile uint8_t *)uffdwp_region_base(region))[at], 'b');
	ck_assert(is_readable(fd, 60000));
	ck_assert_int_eq(uffdwp_restore_poll(restore, &progress), 0);
	ck_assert_uint_eq(progress.state, UFFDWP_RESTORE_STATE_DONE);
	ck_assert_int_eq(uffdwp_restore_fd(restore), fd);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
}
END_TEST

START_TEST(test_a_restore_that_is_aborted_ends_with_that_error)
{
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};
	struct uffdwp_region *region;
	struct uffdwp_restore *restore = begin_restore(&region);
	if (!restore)
		return;
	int fd = uffdwp_restore_fd(restore);
	ck_assert_int_eq(((volatile uint8_t *)uffdwp_region_base(region))[0], 'b');
	ck_assert_int_eq(uffdwp_restore_abort(restore), 0);
	ck_assert_int_eq(uffdwp_restore_wait(restore, 60000, &progress), -ECANCELED);
	ck_assert_uint_eq(progress.state, UFFDWP_RESTORE_STATE_FAILED);
	ck_assert_int_eq(progress.error, -ECANCELED);
	char text[512] = "";
	(void)uffdwp_restore_text(restore, text, sizeof(text));
	ck_assert_msg(strstr(text, "was aborted") && strstr(text, "SIGBUS") && strstr(text, "uffdwp_region_punch()"),
	              "\"%s\"", text);
	ck_assert(is_readable(fd, 0));
	ck_assert_int_eq(uffdwp_restore_check(restore, 0, 1), 0); /* what was fetched stays */
	ck_assert_int_eq(uffdwp_restore_check(restore, LENGTH_BYTES - 1, 1), -ECANCELED);
	ck_assert_int_eq(uffdwp_restore_abort(restore), 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
}
END_TEST

/* --- the log ------------------------------------------------------------------------------------------------------ */

struct story {
	_Atomic unsigned lines;
	_Atomic int has_region;
};

static void note_line(void *user, const char *line)
{
	struct story *story = user;
	atomic_fetch_add(&story->lines, 1);
	must(strchr(line, '\n') == NULL && strncmp(line, "uffdwp ", 7) == 0);
	if (strstr(line, "region") != NULL)
		atomic_store(&story->has_region, 1);
}

START_TEST(test_the_story_goes_to_the_programs_own_function)
{
	static struct story story;
	struct uffdwp_region *region;
	ck_assert_int_eq(uffdwp_log_to(note_line, &story), 0);
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region), 0);
	ck_assert_uint_gt(atomic_load(&story.lines), 0);
	ck_assert(atomic_load(&story.has_region));
	ck_assert_int_eq(uffdwp_log_to(NULL, NULL), 0);
	unsigned lines = atomic_load(&story.lines);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_assert_int_eq(uffdwp_region_create(runtime, LENGTH_BYTES, NULL, &region), 0);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_assert_uint_eq(atomic_load(&story.lines), lines);
}
END_TEST

int main(void)
{
	support_begin("test_defaults", &(struct support_needs){0, 0});
	Suite *suite = suite_create("defaults");
	TCase *tests = tcase_create("defaults");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, test_initial_values_are_zeros_after_the_size);
	tcase_add_test(tests, test_zeroed_options_attach_memory_without_a_file);
	tcase_add_test(tests, test_a_stream_without_a_descriptor_is_refused);
	tcase_add_test(tests, test_a_region_is_created_at_the_address_that_is_asked_for);
	tcase_add_test(tests, test_a_descriptor_becomes_readable_when_the_snapshot_ends);
	tcase_add_test(tests, test_a_restore_is_polled_and_its_descriptor_says_that_it_ended);
	tcase_add_test(tests, test_a_restore_that_is_aborted_ends_with_that_error);
	tcase_add_test(tests, test_the_story_goes_to_the_programs_own_function);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
