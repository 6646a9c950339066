/* SPDX-License-Identifier: MIT */
/*
 * What the owner of attached memory may do to it: a part of it is given back, moved, protected, mapped anew, while
 * pages are armed. Whatever it is, the barrier keeps its promise, no thread sleeps for ever, and nothing that was
 * missed is called complete.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/ipc.h>
#include <sys/mman.h>
#include <sys/shm.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gate.h"
#include "kernel/abi.h"
#include "place.h"
#include "support.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4 /* linux/mman.h, 5.7 */
#endif

#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL 102 /* linux/mman.h, 6.13 */
#define MADV_GUARD_REMOVE 103
#endif

#define PAGES 64
#define PART 8 /* pages that something is done to */

static struct place place;

static int open_armed(struct place_case which)
{
	if (!place_possible(which)) {
		return 0;
	}
	place_attach(&place, which, PAGES, 1);
	place_touch(&place);
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
	return 1;
}

static int has_seen_discard(void *unused)
{
	(void)unused;
	return place_stats(&place).events_remove > 0;
}

/* A system call writes into each page of the part. */
static void write_by_system_call(void)
{
	int ends[2];
	ck_assert_int_eq(pipe(ends), 0);
	for (size_t page = 0; page < PART; page++) {
		ck_assert_int_eq((int)write(ends[1], "w", 1), 1);
		ck_assert_int_eq((int)read(ends[0], place.base + page * place.page_bytes, 1), 1);
	}
	close(ends[0]);
	close(ends[1]);
}

START_TEST(test_barrier_keeps_its_promise_after_a_discard_that_leaves_the_wp_bit)
{
	struct place_case which = place_case(_i);
	if (which.memory != UFFDWP_MEMORY_ANON || !open_armed(which)) {
		return;
	}
	ck_assert_int_eq(madvise(place.base, PART * place.page_bytes, MADV_FREE), 0);
	if (place_follows(which)) {
		ck_assert_int_eq(wait_until(has_seen_discard, NULL, 20), 1);
	}
	ck_assert_int_eq(uffdwp_prepare_write(place.region, 0, PART * place.page_bytes), 0);
	write_by_system_call();
	place_expect_armed(&place, PAGES - PART);
	place_close(&place);
}
END_TEST

/* --- moves ----------------------------------------------------------------------------------------------------- */

static struct gate gate = GATE_INIT;
static uint8_t image[PAGES]; /* the first byte of each page */

static int pass_gate(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	for (size_t at = 0; at < length; at += place.page_bytes) {
		image[(offset + at) / place.page_bytes] = ((const uint8_t *)data)[at];
	}
	gate_pass(&gate);
	return 0;
}

/* A snapshot whose sweep has saved a few pages of the end, and stops there. */
static struct uffdwp_snapshot *begin_gated(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	gate = (struct gate)GATE_INIT;
	memset(image, 0, sizeof(image));
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = pass_gate;
	options.pool_bytes = 16 * place.page_bytes;
	options.window_max = 1;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	gate_await(&gate);
	return snapshot;
}

static int end(struct uffdwp_snapshot *snapshot)
{
	gate_open(&gate);
	int result = uffdwp_snapshot_wait(snapshot, -1, NULL);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	return result;
}

static int open_followed(struct place_case which)
{
	if (!place_possible(which) || !place_follows(which) || which.memory == UFFDWP_MEMORY_HUGETLB) {
		return 0;
	}
	place_attach(&place, which, PAGES, 1);
	place_touch(&place);
	return 1;
}

static int is_dead(void *unused)
{
	(void)unused;
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	return uffdwp_region_info(place.region, &info) == 0 && info.dead;
}

static void write_all(uint8_t *base, size_t pages)
{
	for (size_t page = 0; page < pages; page++) {
		((volatile uint8_t *)base)[page * place.page_bytes] = 99;
	}
}

/* mremap(2) to a place that was free, leaving the old one mapped or not. */
static uint8_t *move(uint8_t *from, size_t pages, int flags)
{
	size_t length = pages * place.page_bytes;
	void *to = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(to, MAP_FAILED);
	void *moved = mremap(from, length, length, MREMAP_MAYMOVE | MREMAP_FIXED | flags, to);
	if (moved == MAP_FAILED) {
		munmap(to, length);
		return NULL;
	}
	return moved;
}

START_TEST(test_move_that_leaves_the_old_place_mapped_fails_the_snapshot_and_stalls_no_writer)
{
	if (!open_followed(place_case(_i))) {
		return;
	}
	struct uffdwp_snapshot *snapshot = begin_gated();
	uint8_t *moved = move(place.base, PAGES, MREMAP_DONTUNMAP);
	if (moved == NULL) {
		support_note(__func__, strerror(errno)); /* of shared memory since Linux 5.13 */
		end(snapshot);
		place_close(&place);
		return;
	}
	ck_assert_int_eq(wait_until(is_dead, NULL, 20), 1);
	write_all(place.base, PAGES);
	write_all(moved, PAGES);
	ck_assert_int_eq(end(snapshot), -ESTALE);
	munmap(moved, place.length_bytes);
	place_close(&place);
}
END_TEST

START_TEST(test_part_that_is_moved_stalls_no_writer_and_fails_the_snapshot)
{
	if (!open_followed(place_case(_i))) {
		return;
	}
	struct uffdwp_snapshot *snapshot = begin_gated();
	uint8_t *part = place.base + PART * place.page_bytes;
	uint8_t *moved = move(part, PART, 0);
	ck_assert_ptr_nonnull(moved);
	ck_assert_int_eq(wait_until(is_dead, NULL, 20), 1);
	write_all(moved, PART);
	write_all(place.base, PART);
	write_all(place.base + 2 * PART * place.page_bytes, PAGES - 2 * PART);
	ck_assert_int_eq(end(snapshot), -ESTALE);
	munmap(moved, PART * place.page_bytes);
	place_close(&place);
}
END_TEST

/* What is added is no page of the region, but the kernel has registered it along. */
static void grow(int may_move)
{
	uint8_t *before = place.base;
	/* room after the memory, so that it can grow where it is */
	size_t more = PART * place.page_bytes;
	uint8_t *end_of = place.base + place.length_bytes;
	void *room = mmap(end_of, more, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	if (!may_move && room == end_of) {
		munmap(room, more);
	}
	place.base = mremap(before, place.length_bytes, place.length_bytes + more, MREMAP_MAYMOVE);
	if (may_move && room == end_of) {
		munmap(room, more);
	}
	ck_assert_ptr_ne(place.base, MAP_FAILED);
}

static int has_followed(void *unused)
{
	(void)unused;
	return uffdwp_region_base(place.region) == place.base;
}

START_TEST(test_mapping_that_grows_keeps_the_region_and_stalls_no_writer)
{
	struct place_case which = place_case(_i / 2);
	if (which.memory != UFFDWP_MEMORY_ANON || !open_followed(which)) {
		return;
	}
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
	grow(_i % 2);
	ck_assert_int_eq(wait_until(has_followed, NULL, 20), 1);
	write_all(place.base + place.length_bytes, PART);
	place_expect_armed(&place, PAGES);
	write_all(place.base, PAGES);
	place_expect_armed(&place, 0);
	munmap(place.base + place.length_bytes, PART * place.page_bytes);
	place_close(&place);
}
END_TEST

START_TEST(test_mapping_that_shrinks_kills_the_region_and_stalls_no_writer)
{
	if (!open_followed(place_case(_i))) {
		return;
	}
	struct uffdwp_snapshot *snapshot = begin_gated();
	uint8_t *to = move(place.base, PAGES, 0); /* whole: it follows */
	ck_assert_ptr_nonnull(to);
	place.base = to;
	ck_assert_int_eq(wait_until(has_followed, NULL, 20), 1);
	void *target = mmap(NULL, place.length_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *less = mremap(to, place.length_bytes, PART * place.page_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, target);
	ck_assert_ptr_ne(less, MAP_FAILED);
	ck_assert_int_eq(wait_until(is_dead, NULL, 20), 1);
	write_all(less, PART);
	ck_assert_int_eq(end(snapshot), -ESTALE);
	munmap(target, place.length_bytes);
	place.base = NULL;
	place_close(&place);
}
END_TEST

START_TEST(test_view_fails_when_its_region_was_moved_and_stays_mapped)
{
	struct place_case which = place_case(_i);
	if (which.memory != UFFDWP_MEMORY_SHMEM || !place_has_increments(which) || !open_followed(which)) {
		return;
	}
	struct uffdwp_view *view = NULL;
	ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &view), 0);
	((volatile uint8_t *)place.base)[0] = 77; /* the view's own from now on */
	uint8_t *moved = move(place.base, PAGES, MREMAP_DONTUNMAP);
	if (moved != NULL) {
		struct uffdwp_view_info info = {.sz = sizeof(info)};
		ck_assert_int_eq(wait_until(is_dead, NULL, 20), 1);
		write_all(place.base, PAGES);
		ck_assert_int_eq(uffdwp_view_info(view, &info), 0);
		ck_assert_int_eq(info.error, -ESTALE);
		ck_assert_uint_ne(*(const uint8_t *)uffdwp_view_base(view), 77);
		munmap(moved, place.length_bytes);
	}
	ck_assert_int_eq(uffdwp_view_close(view), 0);
	place_close(&place);
}
END_TEST

START_TEST(test_track_reports_a_region_that_was_moved_and_stays_mapped)
{
	if (!open_followed(place_case(_i))) {
		return;
	}
	struct uffdwp_track *track = NULL;
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	ck_assert_int_eq(uffdwp_track_start(place.runtime, NULL, &track), 0);
	ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, 0), 0);
	uint8_t *moved = move(place.base, PAGES, MREMAP_DONTUNMAP);
	if (moved != NULL) {
		ck_assert_int_eq(wait_until(is_dead, NULL, 20), 1);
		write_all(place.base, PAGES);
		ck_assert_int_eq(uffdwp_track_collect(track, &collect), -ESTALE);
		munmap(moved, place.length_bytes);
	}
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	place_close(&place);
}
END_TEST

/* --- System V segments ----------------------------------------------------------------------------------------- */

static uint8_t *attach_segment(size_t length)
{
	if (unshare(CLONE_NEWIPC) != 0) { /* the first has the id 0 there */
		support_note(__func__, "no namespace of System V segments");
	}
	int id = shmget(IPC_PRIVATE, length, IPC_CREAT | 0600);
	ck_assert_int_ge(id, 0);
	uint8_t *base = shmat(id, NULL, 0);
	ck_assert_int_eq(shmctl(id, IPC_RMID, NULL), 0);
	return base;
}

START_TEST(test_system_v_segment_is_shared_memory)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	size_t length = PAGES * place_page_bytes(UFFDWP_MEMORY_SHMEM);
	uint8_t *base = attach_segment(length);

	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	/* the kernel registers no such memory with a userfaultfd, and nothing lesser is taken without a word */
	ck_assert_int_eq(uffdwp_region_attach(runtime, base, length, &options, &region), -EMEDIUMTYPE);
	options.mechanism = UFFDWP_MECHANISM_MPROTECT;
	ck_assert_int_eq(uffdwp_region_attach(runtime, base, length, &options, &region), 0);
	ck_assert_int_eq(uffdwp_region_info(region, &info), 0);
	ck_assert_uint_eq(info.memory, UFFDWP_MEMORY_SHMEM);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	options.fd = memfd_create("other", MFD_CLOEXEC);
	ck_assert_int_eq(uffdwp_region_attach(runtime, base, length, &options, &region), -EINVAL);
	close(options.fd);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	shmdt(base);
}
END_TEST

/* --- protection ------------------------------------------------------------------------------------------------ */

/* What makes armed pages writable outside of the library. */
static void toggle_part(void)
{
	uint8_t *part = place.base + PART * place.page_bytes;
	ck_assert_int_eq(mprotect(part, PART * place.page_bytes, PROT_READ), 0);
	ck_assert_int_eq(mprotect(part, PART * place.page_bytes, PROT_READ | PROT_WRITE), 0);
	write_all(part, PART);
}

/* 1: whether a mapping allows writes can be asked without a text: MADV_POPULATE_WRITE, Linux 5.14. */
static int shows_writable(void)
{
	size_t length = (size_t)getpagesize();
	void *page = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int shows = madvise(page, length, MADV_POPULATE_WRITE) == 0;
	munmap(page, length);
	return shows;
}

START_TEST(test_protection_that_the_owner_changes_makes_no_wrong_image)
{
	struct place_case which = place_case(_i);
	if (which.memory == UFFDWP_MEMORY_HUGETLB || !place_possible(which)) {
		return;
	}
	if (which.mechanism == UFFDWP_MECHANISM_MPROTECT && !shows_writable()) {
		support_note(__func__, "no MADV_POPULATE_WRITE");
		return;
	}
	place_attach(&place, which, PAGES, 1);
	place_touch(&place);
	uint8_t before = place.base[PART * place.page_bytes];
	struct uffdwp_snapshot *snapshot = begin_gated();
	toggle_part();
	int result = end(snapshot);
	/* by a userfaultfd the writes were seen: mprotect(2) leaves wp bits alone */
	ck_assert_int_eq(result, which.mechanism == UFFDWP_MECHANISM_MPROTECT ? -ENODATA : 0);
	ck_assert_uint_ne(before, place.base[PART * place.page_bytes]);
	place_close(&place);
}
END_TEST

/* 0, or -errno: a userfaultfd that has nothing to do with the region takes its registration away. */
static int unregister_part(void)
{
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);
	struct uffdio_api api = {.api = UFFD_API};
	struct uffdio_range part = {(uintptr_t)place.base + PART * place.page_bytes, PART * place.page_bytes};
	int error = uffd < 0 || ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_UNREGISTER, &part) ? -errno : 0;
	close(uffd);
	return error;
}

/* Where content was, none is found; what comes there next is not armed. */
static int guard_part(void)
{
	uint8_t *part = place.base + PART * place.page_bytes;
	if (madvise(part, PART * place.page_bytes, MADV_GUARD_INSTALL) != 0) {
		return -errno;
	}
	return madvise(part, PART * place.page_bytes, MADV_GUARD_REMOVE) ? -errno : 0;
}

/* The writes were seen, or the snapshot fails. */
START_TEST(test_wp_bits_that_others_take_make_no_wrong_image)
{
	struct place_case which = place_case(_i / 2);
	/* Over the markers of armed shared memory MADV_GUARD_INSTALL tries for ever (seen on Linux 6.18). */
	if ((_i % 2 == 0 && which.memory != UFFDWP_MEMORY_ANON) || !open_followed(which)) {
		return;
	}
	memset(place.base, 1, place.length_bytes);
	struct uffdwp_snapshot *snapshot = begin_gated();
	int error = _i % 2 ? unregister_part() : guard_part();
	if (error != 0) {
		support_note(__func__, _i % 2 ? "this kernel lets no other userfaultfd unregister" : "no guard pages");
	}
	write_all(place.base + PART * place.page_bytes, PART);
	int result = end(snapshot);
	for (size_t page = 0; page < PAGES && result == 0; page++) {
		ck_assert_uint_eq(image[page], 1);
	}
	ck_assert_int_eq(error != 0 ? result : 0, 0);
	place_close(&place);
}
END_TEST

START_TEST(test_memory_mapped_anew_makes_no_wrong_image)
{
	struct place_case which = place_case(_i);
	if (which.memory == UFFDWP_MEMORY_HUGETLB || !place_possible(which) ||
	    (which.mechanism == UFFDWP_MECHANISM_MPROTECT && !shows_writable())) {
		return;
	}
	place_attach(&place, which, PAGES, 1);
	place_touch(&place);
	struct uffdwp_snapshot *snapshot = begin_gated();
	uint8_t *part = place.base + PART * place.page_bytes;
	int flags = MAP_FIXED | (place.fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS : MAP_SHARED);
	ck_assert_ptr_eq(mmap(part, PART * place.page_bytes, PROT_READ | PROT_WRITE, flags, place.fd,
	                      place.fd < 0 ? 0 : (off_t)(PART * place.page_bytes)),
	                 part);
	write_all(part, PART);
	ck_assert_int_ne(end(snapshot), 0);
	place_close(&place);
}
END_TEST

START_TEST(test_track_reports_what_was_written_while_its_owner_had_unprotected_it)
{
	struct place_case which = place_case(_i);
	if (which.memory == UFFDWP_MEMORY_HUGETLB || !place_possible(which)) {
		return;
	}
	place_attach(&place, which, PAGES, 1);
	place_touch(&place);
	struct uffdwp_track *track = NULL;
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	ck_assert_int_eq(uffdwp_track_start(place.runtime, NULL, &track), 0);
	ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, 0), 0);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	}
	toggle_part();
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	ck_assert_uint_ge(collect.bytes, PART * place.page_bytes);
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	place_close(&place);
}
END_TEST

/* --- the caller's heap ---------------------------------------------------------------------------------------------
 */

/* What malloc(3) takes small pieces from. 0: it takes them elsewhere. */
static size_t find_heap(uint8_t **base)
{
	FILE *maps = fopen("/proc/self/maps", "re");
	char line[512];
	size_t length = 0;
	must(maps != NULL);
	while (!length && fgets(line, sizeof(line), maps)) {
		unsigned long start;
		unsigned long end;
		if (strstr(line, "[heap]") && sscanf(line, "%lx-%lx rw-p", &start, &end) == 2) {
			*base = (uint8_t *)start;
			length = end - start;
		}
	}
	must(fclose(maps) == 0);
	return length;
}

/* Where the library holds the signals back by which writes are resolved, it must not write there. */
START_TEST(test_heap_may_be_armed)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	uint8_t *base = NULL;
	size_t length = find_heap(&base);
	if (!length) {
		support_note(__func__, "malloc(3) has no heap of its own here");
		return;
	}
	options.mechanism = UFFDWP_MECHANISM_MPROTECT;
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	ck_assert_int_eq(uffdwp_region_attach(runtime, base, length, &options, &region), 0);
	for (int round = 0; round < 4; round++) {
		struct uffdwp_audit audit = {.sz = sizeof(audit)};
		int armed = uffdwp_region_arm(region, 0, length);
		int audited = uffdwp_region_audit(region, &audit);
		ck_assert_int_eq(armed, 0);
		ck_assert_int_eq(audited, 0);
		ck_assert_uint_eq(audit.pages_lost, 0);
	}
	ck_assert_int_eq(uffdwp_region_disarm(region, 0, length), 0);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}
END_TEST

int main(void)
{
	support_begin("test_owner", &(struct support_needs){.huge_pages = 0, .swap = 0});
	place_begin();
	Suite *suite = suite_create("what the owner does");
	TCase *tests = tcase_create("what the owner does");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_barrier_keeps_its_promise_after_a_discard_that_leaves_the_wp_bit, 0,
	                    PLACE_CASES);
	tcase_add_loop_test(tests, test_move_that_leaves_the_old_place_mapped_fails_the_snapshot_and_stalls_no_writer,
	                    0, PLACE_CASES);
	tcase_add_loop_test(tests, test_part_that_is_moved_stalls_no_writer_and_fails_the_snapshot, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_mapping_that_grows_keeps_the_region_and_stalls_no_writer, 0, 2 * PLACE_CASES);
	tcase_add_loop_test(tests, test_mapping_that_shrinks_kills_the_region_and_stalls_no_writer, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_view_fails_when_its_region_was_moved_and_stays_mapped, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_track_reports_a_region_that_was_moved_and_stays_mapped, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_protection_that_the_owner_changes_makes_no_wrong_image, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_wp_bits_that_others_take_make_no_wrong_image, 0, 2 * PLACE_CASES);
	tcase_add_loop_test(tests, test_memory_mapped_anew_makes_no_wrong_image, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_track_reports_what_was_written_while_its_owner_had_unprotected_it, 0,
	                    PLACE_CASES);
	tcase_add_test(tests, test_system_v_segment_is_shared_memory);
	tcase_add_test(tests, test_heap_may_be_armed);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
