/* SPDX-License-Identifier: MIT */
/*
 * INV-CUT without a lock: the image never shows an effect without its cause. No thread stops at the cut; arming takes
 * its time over the region, and a page is protected earlier or later than another. If writes went on meanwhile, a cause
 * on a page that was armed early could be missing while its effect, on a page that was armed late, is there.
 *
 * Two threads count in turn: A writes n to one page, B sees it and writes n to the other, A sees that and writes n + 1.
 * So at every instant, cause == effect or cause == effect + 1, and an image must show the same. In the second form one
 * thread does both writes. The pages lie far apart, the cause at the low end or at the high end.
 */
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "chance.h"
#include "moves.h"
#include "place.h"
#include "support.h"

#define PAGES 4096
#define HUGE_PAGES 8
#define CUTS support_rounds(6, 16)

static struct place place;
static _Atomic uint64_t *cause;
static _Atomic uint64_t *effect;
static _Atomic int stop;
static enum uffdwp_arming arming;

static int stopped(void)
{
	return atomic_load_explicit(&stop, memory_order_relaxed);
}

/* Waits until the other side has written n. 0: the test ends. */
static int await(const _Atomic uint64_t *word, uint64_t n)
{
	while (atomic_load_explicit(word, memory_order_acquire) != n) {
		if (stopped()) {
			return 0;
		}
		sched_yield();
	}
	return 1;
}

static void *write_causes(void *argument)
{
	(void)argument;
	for (uint64_t n = 1; await(effect, n - 1); n++) {
		atomic_store_explicit(cause, n, memory_order_release);
	}
	return NULL;
}

static void *write_effects(void *argument)
{
	(void)argument;
	for (uint64_t n = 1; await(cause, n); n++) {
		atomic_store_explicit(effect, n, memory_order_release);
	}
	return NULL;
}

static void *write_both(void *argument)
{
	(void)argument;
	for (uint64_t n = 1; !stopped(); n++) {
		atomic_store_explicit(cause, n, memory_order_release);
		atomic_store_explicit(effect, n, memory_order_release);
	}
	return NULL;
}

/* --- what the image shows ------------------------------------------------------------------------------------- */

struct view {
	uint64_t cause;
	uint64_t effect;
};

static void look_for(uint64_t *value, const _Atomic uint64_t *word, uint64_t offset, const void *data, uint64_t length)
{
	uint64_t at = (uint64_t)((uintptr_t)word - (uintptr_t)place.base);
	if (at >= offset && at < offset + length) {
		memcpy(value, (const uint8_t *)data + (at - offset), sizeof(*value));
	}
}

static int take(void *user, uint64_t offset, const void *data, uint64_t length)
{
	struct view *view = user;
	look_for(&view->cause, cause, offset, data, length);
	look_for(&view->effect, effect, offset, data, length);
	return 0;
}

static void cut_once(struct chance *chance)
{
	struct view view = {0, 0};
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = take;
	options.user = &view;
	options.arming = arming;
	struct uffdwp_snapshot *snapshot = NULL;
	sleep_us(chance_below(chance, 3000));
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	ck_assert_msg(view.cause == view.effect || view.cause == view.effect + 1, "image: cause %llu, effect %llu",
	              (unsigned long long)view.cause, (unsigned long long)view.effect);
}

static void place_words(int cause_is_high)
{
	size_t last = place.length_bytes - place.page_bytes;
	cause = (_Atomic uint64_t *)(void *)(place.base + (cause_is_high ? last : 0));
	effect = (_Atomic uint64_t *)(void *)(place.base + (cause_is_high ? 0 : last));
}

static void cut_many(void)
{
	struct chance chance = chance_new(21);
	/* The threads may not have run at all yet. */
	for (unsigned cut = 0; cut < CUTS || atomic_load(effect) == 0; cut++) {
		cut_once(&chance);
	}
	atomic_store(&stop, 1);
}

static int open_case(struct place_case which, int cause_is_high)
{
	if (!place_possible(which)) {
		return 0;
	}
	place_open(&place, which, which.memory == UFFDWP_MEMORY_HUGETLB ? HUGE_PAGES : PAGES);
	for (size_t page = 1; page + 1 < place.pages; page++) {
		place.base[page * place.page_bytes] = 1;
	}
	place_words(cause_is_high);
	atomic_store(&stop, 0);
	return 1;
}

static void close_case(void)
{
	ck_assert_uint_gt(atomic_load(effect), 0);
	place_close(&place);
}

static void cut_two_threads(void)
{
	pthread_t threads[2] = {thread_start(write_causes, NULL), thread_start(write_effects, NULL)};
	cut_many();
	thread_join(threads[0]);
	thread_join(threads[1]);
	close_case();
}

static void cut_one_thread(void)
{
	pthread_t thread = thread_start(write_both, NULL);
	cut_many();
	thread_join(thread);
	close_case();
}

START_TEST(test_effect_of_another_thread_is_never_without_its_cause)
{
	if (open_case(place_case(_i / 2), _i % 2)) {
		arming = UFFDWP_ARMING_ROUNDS;
		cut_two_threads();
	}
}
END_TEST

START_TEST(test_second_write_of_a_thread_is_never_without_its_first)
{
	if (open_case(place_auto_case(_i / 2), _i % 2)) {
		arming = UFFDWP_ARMING_ROUNDS;
		cut_one_thread();
	}
}
END_TEST

/* INV-CUT: the move alone keeps it. */
START_TEST(test_move_leaves_no_effect_without_its_cause)
{
	if (place_moves(moves_case_of(_i / 2)) && open_case(moves_case_of(_i / 2), _i % 2)) {
		arming = UFFDWP_ARMING_MOVE;
		cut_two_threads();
	}
}
END_TEST

START_TEST(test_move_leaves_no_second_write_without_the_first)
{
	if (place_moves(moves_case_of(_i / 2)) && open_case(moves_case_of(_i / 2), _i % 2)) {
		arming = UFFDWP_ARMING_MOVE;
		cut_one_thread();
	}
}
END_TEST

int main(void)
{
	support_begin("test_causality", &(struct support_needs){.huge_pages = 12, .swap = 0});
	place_begin();
	Suite *suite = suite_create("causality");
	TCase *tests = tcase_create("INV-CUT");
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, test_effect_of_another_thread_is_never_without_its_cause, 0, PLACE_CASES * 2);
	tcase_add_loop_test(tests, test_second_write_of_a_thread_is_never_without_its_first, 0, PLACE_AUTO_CASES * 2);
	tcase_add_loop_test(tests, test_move_leaves_no_effect_without_its_cause, 0, MOVES_CASES * 2);
	tcase_add_loop_test(tests, test_move_leaves_no_second_write_without_the_first, 0, MOVES_CASES * 2);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
