/* SPDX-License-Identifier: MIT */
/*
 * Content that vanishes after the cut although it came late: the library looks at what has content before the cut, and
 * pages that are written for the first time between that look and the cut are content as well. So is what a region has
 * grown by. Each is discarded after the cut, outside of the library and before the sweep comes by: the snapshot fails,
 * because its image would hold zeros there.
 */
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gate.h"
#include "place.h"
#include "support.h"

#define PAGES_MANY 4096
#define GAP 2 /* every second page is a hole */

static struct place place;
static struct gate gate = GATE_INIT;

/* What cut_enter does. */
enum late { LATE_NOTHING, LATE_WRITE, LATE_GROW };

static enum late late;
static size_t late_page;

static void write_page(size_t page)
{
	((volatile uint8_t *)place.base)[page * place.page_bytes + 7] = 'A';
}

static int enter(void *user, uint64_t *length)
{
	(void)user;
	if (late == LATE_GROW) {
		*length = (late_page + 1) * place.page_bytes;
		must(uffdwp_region_grow(place.region, *length) == 0);
	}
	if (late != LATE_NOTHING) {
		write_page(late_page);
	}
	return 0;
}

static void leave(void *user)
{
	(void)user;
}

static struct uffdwp_snapshot *begin(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = gate_sink;
	options.user = &gate;
	options.cut_enter = enter;
	options.cut_leave = leave;
	options.pool_bytes = 16 * place.page_bytes; /* small chunks: the gate holds the sweep at the first of them */
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	gate_await(&gate);
	return snapshot;
}

static void discard(size_t page)
{
	off_t offset = (off_t)(page * place.page_bytes);
	int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	if (place_fd(&place) < 0) {
		ck_assert_int_eq(madvise(place.base + offset, place.page_bytes, MADV_DONTNEED), 0);
	} else {
		ck_assert_int_eq(fallocate(place_fd(&place), mode, offset, (off_t)place.page_bytes), 0);
	}
}

/* 0 or the error that it ended with. */
static int end(struct uffdwp_snapshot *snapshot)
{
	gate_open(&gate);
	int result = uffdwp_snapshot_wait(snapshot, -1, NULL);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	return result;
}

/* Every second page has content. */
static int open_sparse(struct place_case which, size_t more_pages)
{
	if (!place_possible(which)) {
		return 0;
	}
	size_t pages = which.memory == UFFDWP_MEMORY_HUGETLB ? 24 : PAGES_MANY;
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.capacity_bytes = more_pages ? (pages + more_pages) * place_page_bytes(which.memory) : 0;
	place_open_with(&place, which, pages, &options);
	gate = (struct gate)GATE_INIT;
	late = LATE_NOTHING;
	for (size_t page = 0; page < pages; page += GAP) {
		write_page(page);
	}
	return 1;
}

START_TEST(test_page_first_written_before_the_cut_and_discarded_after_fails_the_snapshot)
{
	if (!open_sparse(place_case(_i), 0)) {
		return;
	}
	late = LATE_WRITE;
	late_page = 3; /* a hole until then; the sweep begins at the other end */
	struct uffdwp_snapshot *snapshot = begin();
	discard(late_page);
	ck_assert_int_eq(end(snapshot), -ENODATA);
	place_close(&place);
}
END_TEST

START_TEST(test_page_of_what_has_grown_and_discarded_after_fails_the_snapshot)
{
	struct place_case which = place_case(_i);
	/* hugetlbfs gives a file its pages when the capacity is mapped */
	if (which.memory != UFFDWP_MEMORY_SHMEM || !open_sparse(which, 8 * PAGES_MANY)) {
		return;
	}
	late = LATE_GROW;
	late_page = 2 * place.pages;
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	int ordered[2] = {-1, -1}; /* a stream goes upwards, and stops where its pipe is full */
	ck_assert_int_eq(pipe2(ordered, O_CLOEXEC), 0);
	options.sink = UFFDWP_SINK_STREAM;
	options.fd = ordered[1];
	options.cut_enter = enter;
	options.cut_leave = leave;
	options.pool_bytes = 16 * place.page_bytes;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	discard(late_page);
	static uint8_t bytes[1 << 16];
	while (uffdwp_snapshot_wait(snapshot, 0, NULL) == -ETIMEDOUT) {
		if (fcntl(ordered[0], F_SETFL, O_NONBLOCK) != 0 || read(ordered[0], bytes, sizeof(bytes)) < 0) {
			sleep_us(100);
		}
	}
	ck_assert_int_eq(end(snapshot), -ENODATA);
	close(ordered[0]);
	close(ordered[1]);
	place_close(&place);
}
END_TEST

/* The other side: pages that never had content, and were only read, do not fail it. */
START_TEST(test_hole_that_stays_one_does_not_fail_the_snapshot)
{
	if (!open_sparse(place_case(_i), 0)) {
		return;
	}
	struct uffdwp_snapshot *snapshot = begin();
	ck_assert_int_eq(end(snapshot), 0);
	place_close(&place);
}
END_TEST

int main(void)
{
	support_begin("test_content", &(struct support_needs){.huge_pages = 24, .swap = 0});
	place_begin();
	Suite *suite = suite_create("content at the cut");
	TCase *tests = tcase_create("content at the cut");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_page_first_written_before_the_cut_and_discarded_after_fails_the_snapshot, 0,
	                    PLACE_CASES);
	tcase_add_loop_test(tests, test_page_of_what_has_grown_and_discarded_after_fails_the_snapshot, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_hole_that_stays_one_does_not_fail_the_snapshot, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
