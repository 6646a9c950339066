/* SPDX-License-Identifier: MIT */
/*
 * The audit: what lost its protection without an event is found, armed again, counted as unknown, listed, and fails the
 * running snapshot that might have missed a write. What lost nothing is left alone, whatever goes on meanwhile.
 *
 * The protection is taken outside of the library, by means that each mechanism cannot notice: a bare
 * UFFDIO_WRITEPROTECT on the region's own userfaultfd (marker, rearm), a bare UFFDIO_CONTINUE (minor), and the
 * program's own mprotect(2).
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "chance.h"
#include "gate.h"
#include "kernel/abi.h"
#include "kernel/kernel.h"
#include "loss.h"
#include "place.h"
#include "region/region.h"
#include "support.h"

#define PAGES 8

static struct place place;
static struct place_case current;

static int open_case(int index, size_t pages)
{
	current = place_case(index);
	if (!place_possible(current)) {
		return 0;
	}
	place_open(&place, current, pages);
	if (!place_witness_knows(&place)) {
		place_close(&place); /* see test_audit_says_where_it_cannot_know */
		return 0;
	}
	return 1;
}

static void arm_all(void)
{
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
}

static void store(size_t page, uint8_t value)
{
	__atomic_store_n(place.base + page * place.page_bytes, value, __ATOMIC_RELAXED);
}

static struct uffdwp_audit audit(void)
{
	struct uffdwp_audit found = {.sz = sizeof(found)};
	int error = uffdwp_region_audit(place.region, &found);
	ck_assert_msg(error == 0, "%s: %s", place_case_name(current), strerror(-error));
	return found;
}

static void expect_audit(uint64_t armed, uint64_t lost)
{
	struct uffdwp_audit found = audit();
	ck_assert_uint_eq(found.pages_armed, armed);
	ck_assert_uint_eq(found.pages_lost, lost);
	ck_assert_uint_eq(found.pages_rearmed, lost);
}

/* Takes the protection of a populated page. */
static void unprotect(size_t page)
{
	uint8_t *start = place.base + page * place.page_bytes;
	if (place.mechanism == UFFDWP_MECHANISM_MPROTECT) {
		ck_assert_int_eq(mprotect(start, place.page_bytes, PROT_READ | PROT_WRITE), 0);
	} else if (place.mechanism == UFFDWP_MECHANISM_MINOR) {
		ck_assert_int_gt(
		        (int)kernel_real.uffd_continue(place.region->uffd, (uintptr_t)start, place.page_bytes, 0), 0);
	} else {
		loss_strip(&place, page, 1);
	}
}

/* --- nothing is lost ---------------------------------------------------------------------------------------------- */

START_TEST(test_audit_of_a_sound_region_finds_nothing)
{
	if (open_case(_i, PAGES)) {
		expect_audit(0, 0);
		arm_all();
		expect_audit(PAGES, 0); /* never populated */
		place_touch(&place);
		arm_all();
		expect_audit(PAGES, 0);
		store(2, 1);
		expect_audit(PAGES - 1, 0);
		ck_assert_uint_eq(place_stats(&place).lost_by[UFFDWP_LOSS_UNKNOWN], 0);
		place_expect_armed(&place, PAGES - 1);
		place_close(&place);
	}
}
END_TEST

/* What the kernel does to entries is nothing that an audit has to find: wp bits survive, or the next access faults. */
START_TEST(test_audit_does_not_mistake_empty_entries_for_losses)
{
	if (!open_case(_i, PAGES)) {
		return;
	}
	place_touch(&place);
	arm_all();
	for (int kind = 0; kind < LOSS_KIND_COUNT; kind++) {
		int content_goes = kind == LOSS_KIND_ZAP && current.memory == UFFDWP_MEMORY_ANON;
		if (loss_possible(&place, (enum loss_kind)kind) && !content_goes) {
			(void)loss_make(&place, (enum loss_kind)kind, (size_t)kind + 1, 1);
		}
	}
	expect_audit(PAGES, 0);
	place_expect_armed(&place, PAGES);
	place_close(&place);
}
END_TEST

static _Atomic int stop;

static void *write_for_ever(void *argument)
{
	struct chance *chance = argument;
	while (!atomic_load(&stop)) {
		store(chance_below(chance, place.pages), 1);
	}
	return NULL;
}

static void *read_for_ever(void *argument)
{
	struct chance *chance = argument;
	while (!atomic_load(&stop)) {
		size_t page = chance_below(chance, place.pages);
		(void)__atomic_load_n(place.base + page * place.page_bytes, __ATOMIC_RELAXED);
	}
	return NULL;
}

START_TEST(test_audit_under_writers_finds_nothing)
{
	if (!open_case(_i, place_case(_i).memory == UFFDWP_MEMORY_HUGETLB ? 4 : 256)) {
		return;
	}
	struct chance chances[3] = {chance_new(1), chance_new(2), chance_new(3)};
	atomic_store(&stop, 0);
	pthread_t threads[3] = {thread_start(write_for_ever, &chances[0]), thread_start(write_for_ever, &chances[1]),
	                        thread_start(read_for_ever, &chances[2])};
	struct chance chance = chance_new(4);
	int zaps = current.memory != UFFDWP_MEMORY_ANON && loss_possible(&place, LOSS_KIND_ZAP);
	for (unsigned round = 0; round < 100; round++) {
		arm_all();
		if (zaps && round % 3 == 0) {
			size_t page = chance_below(&chance, place.pages);
			loss_empty(&place, LOSS_KIND_ZAP, page, 1 + chance_below(&chance, place.pages - page));
		}
		ck_assert_uint_eq(audit().pages_lost, 0);
	}
	atomic_store(&stop, 1);
	for (unsigned i = 0; i < 3; i++) {
		thread_join(threads[i]);
	}
	ck_assert_uint_eq(place_stats(&place).lost_by[UFFDWP_LOSS_UNKNOWN], 0);
	place_close(&place);
}
END_TEST

/* --- something is ------------------------------------------------------------------------------------------------- */

/* By turns the first, the last and one in the middle. */
START_TEST(test_audit_finds_and_arms_what_lost_its_protection)
{
	static const size_t pages[] = {3, 0, PAGES - 1};
	if (!open_case(_i, PAGES)) {
		return;
	}
	place_touch(&place);
	for (unsigned round = 0; round < 3; round++) {
		arm_all();
		unprotect(pages[round]);
		store(pages[round], 99); /* passes unseen */
		ck_assert_int_eq(place_is_armed(&place, pages[round]), 1);
		expect_audit(PAGES, 1);
		struct uffdwp_region_stats stats = place_stats(&place);
		ck_assert_uint_eq(stats.lost_by[UFFDWP_LOSS_UNKNOWN], round + 1);
		struct uffdwp_lost_range ranges[2];
		ck_assert_int_eq(uffdwp_region_losses(place.region, ranges, 2), 1);
		ck_assert_uint_eq(ranges[0].cause, UFFDWP_LOSS_UNKNOWN);
		ck_assert_uint_eq(ranges[0].start, pages[round] * place.page_bytes);
		ck_assert_uint_eq(ranges[0].end, (pages[round] + 1) * place.page_bytes);
		place_expect_armed(&place, PAGES);
		expect_audit(PAGES, 0);
		store(pages[round], 100);
		ck_assert_int_eq(place_is_armed(&place, pages[round]), 0);
	}
	place_close(&place);
}
END_TEST

struct ear {
	pthread_t heard_in;
	int called;
};

static void hear(void *user, struct uffdwp_region *region)
{
	struct ear *ear = user;
	struct uffdwp_lost_range range;
	ear->heard_in = pthread_self();
	ear->called += uffdwp_region_losses(region, &range, 1) == 1 ? 1 : 100;
}

START_TEST(test_callback_is_called_in_the_thread_of_the_audit)
{
	current = place_case(_i);
	if (!place_possible(current)) {
		return;
	}
	struct ear ear = {.called = 0};
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.on_loss = hear;
	options.on_loss_user = &ear;
	place_open_with(&place, current, PAGES, &options);
	if (place_witness_knows(&place)) {
		place_touch(&place);
		arm_all();
		unprotect(5);
		expect_audit(PAGES, 1);
		ck_assert_int_eq(ear.called, 1);
		ck_assert(pthread_equal(ear.heard_in, pthread_self()) != 0);
	}
	place_close(&place);
}
END_TEST

/* --- a running snapshot ------------------------------------------------------------------------------------------- */

static struct gate gate = GATE_INIT;

static struct uffdwp_snapshot *begin_gated(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = gate_sink;
	options.user = &gate;
	gate = (struct gate)GATE_INIT;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	gate_await(&gate);
	return snapshot;
}

START_TEST(test_audit_fails_a_snapshot_that_may_have_missed_a_write)
{
	if (!open_case(_i, place_case(_i).memory == UFFDWP_MEMORY_HUGETLB ? 32 : 4096)) {
		return;
	}
	place_touch(&place);
	struct uffdwp_snapshot *snapshot = begin_gated();
	size_t page = place.pages / 2;
	ck_assert_int_eq(place_is_armed(&place, page), 1);
	unprotect(page);
	ck_assert_uint_eq(audit().pages_lost, 1);
	gate_open(&gate);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), -ENODATA);
	char text[256] = "";
	char offset[32];
	uffdwp_snapshot_text(snapshot, text, sizeof(text));
	(void)snprintf(offset, sizeof(offset), "%zu", page * place.page_bytes);
	ck_assert_msg(strstr(text, offset) != NULL, "%s is not named: %s", offset, text);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	place_expect_armed(&place, 0);
	store(page, 3);
	place_close(&place);
}
END_TEST

START_TEST(test_audit_of_a_sound_region_does_not_disturb_the_snapshot)
{
	if (!open_case(_i, place_case(_i).memory == UFFDWP_MEMORY_HUGETLB ? 32 : 4096)) {
		return;
	}
	place_touch(&place);
	struct uffdwp_snapshot *snapshot = begin_gated();
	store(place.pages / 2, 3);
	ck_assert_uint_eq(audit().pages_lost, 0);
	gate_open(&gate);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	place_close(&place);
}
END_TEST

/* --- the registration --------------------------------------------------------------------------------------------- */

static int is_dead(void)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	must(uffdwp_region_info(place.region, &info) == 0);
	return info.dead != 0;
}

START_TEST(test_region_whose_registration_was_taken_is_dead)
{
	int by_wp_bits = place_case(_i).mechanism == UFFDWP_MECHANISM_MARKER ||
	                 place_case(_i).mechanism == UFFDWP_MECHANISM_REARM;
	if (!by_wp_bits || !open_case(_i, PAGES)) {
		return;
	}
	place_touch(&place);
	arm_all();
	ck_assert_int_eq(kernel_real.uffd_unregister(place.region->uffd, (uintptr_t)place.base, place.length_bytes), 0);
	struct uffdwp_audit found = {.sz = sizeof(found)};
	ck_assert_int_eq(uffdwp_region_audit(place.region, &found), -ESTALE);
	ck_assert_int_eq(is_dead(), 1);
	ck_assert_uint_eq(place_stats(&place).lost_by[UFFDWP_LOSS_UNKNOWN], PAGES);
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.page_bytes), -ESTALE);
	ck_assert_int_eq(uffdwp_region_audit(place.region, &found), -ESTALE);
	store(3, 8); /* the memory is the caller's as before */
	place_close(&place);
}
END_TEST

/* --- where it cannot be known ------------------------------------------------------------------------------------- */

START_TEST(test_audit_says_where_it_cannot_know)
{
	current = place_case(_i);
	if (!place_possible(current)) {
		return;
	}
	place_open(&place, current, PAGES);
	struct uffdwp_audit found = {.sz = sizeof(found)};
	int expected = place_witness_knows(&place) ? 0 : -EOPNOTSUPP;
	ck_assert_int_eq(uffdwp_region_audit(place.region, &found), expected);
	found.sz = sizeof(size_t);
	ck_assert_int_eq(uffdwp_region_audit(place.region, &found), -EINVAL);
	place_close(&place);
}
END_TEST

int main(void)
{
	support_begin("test_audit", &(struct support_needs){.huge_pages = 40, .swap = 1});
	place_begin();
	Suite *suite = suite_create("audit");
	TCase *tests = tcase_create("audit");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_audit_of_a_sound_region_finds_nothing, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_audit_does_not_mistake_empty_entries_for_losses, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_audit_under_writers_finds_nothing, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_audit_finds_and_arms_what_lost_its_protection, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_callback_is_called_in_the_thread_of_the_audit, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_audit_fails_a_snapshot_that_may_have_missed_a_write, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_audit_of_a_sound_region_does_not_disturb_the_snapshot, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_region_whose_registration_was_taken_is_dead, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_audit_says_where_it_cannot_know, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
