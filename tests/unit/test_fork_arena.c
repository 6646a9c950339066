/* SPDX-License-Identifier: MIT */
/* The arena of libuffdwp-fork.so: what is taken is never taken twice, what comes back joins its neighbours. */
#include "../../tools/fork/arena.h"

#include "chance.h"
#include "support.h"

#define PAGE 4096ull
#define PAGES 512ull
#define ROOM 1024

static struct arena_range room[ROOM];
static struct arena arena;

static void begin(size_t most)
{
	arena_init(&arena, PAGES * PAGE, room, most);
}

START_TEST(test_ranges_are_taken_from_the_start)
{
	begin(ROOM);
	ck_assert_uint_eq(arena_take(&arena, PAGE, PAGE), 0);
	ck_assert_uint_eq(arena_take(&arena, 3 * PAGE, PAGE), PAGE);
	ck_assert_uint_eq(arena_take(&arena, PAGE, 16 * PAGE), 16 * PAGE);
	ck_assert_uint_eq(arena_take(&arena, 12 * PAGE, PAGE), 4 * PAGE);
	ck_assert_uint_eq(arena_take(&arena, PAGE, PAGE), 17 * PAGE);
	ck_assert_uint_eq(arena.used_bytes, 18 * PAGE);
	ck_assert_uint_eq(arena_take(&arena, PAGES * PAGE, PAGE), ARENA_NONE);
	ck_assert_uint_eq(arena_take(&arena, 0, PAGE), ARENA_NONE);
}
END_TEST

START_TEST(test_what_comes_back_joins_its_neighbours)
{
	begin(ROOM);
	ck_assert_uint_eq(arena_take(&arena, 10 * PAGE, PAGE), 0);
	arena_give(&arena, 2 * PAGE, 4 * PAGE);
	arena_give(&arena, 6 * PAGE, 8 * PAGE);
	ck_assert_uint_eq(arena.count, 3);
	arena_give(&arena, 4 * PAGE, 6 * PAGE);
	ck_assert_uint_eq(arena.count, 2);
	arena_give(&arena, 0, 10 * PAGE); /* some of it is free already */
	ck_assert_uint_eq(arena.count, 1);
	ck_assert_uint_eq(arena.used_bytes, 0);
	ck_assert_uint_eq(arena_take(&arena, PAGES * PAGE, PAGE), 0);
}
END_TEST

START_TEST(test_a_range_is_extended_only_into_what_is_free)
{
	begin(ROOM);
	ck_assert_uint_eq(arena_take(&arena, 10 * PAGE, PAGE), 0);
	arena_give(&arena, 4 * PAGE, 6 * PAGE);
	ck_assert_int_eq(arena_extend(&arena, 4 * PAGE, 7 * PAGE), 0);
	ck_assert_int_eq(arena_extend(&arena, 4 * PAGE, 6 * PAGE), 1);
	ck_assert_int_eq(arena_extend(&arena, 10 * PAGE, 20 * PAGE), 1);
	ck_assert_uint_eq(arena.used_bytes, 20 * PAGE);
}
END_TEST

START_TEST(test_a_full_array_loses_address_space_and_nothing_else)
{
	begin(2);
	ck_assert_uint_eq(arena_take(&arena, 10 * PAGE, PAGE), 0);
	arena_give(&arena, PAGE, 2 * PAGE);
	arena_give(&arena, 3 * PAGE, 4 * PAGE); /* no room */
	ck_assert_uint_eq(arena.used_bytes, 9 * PAGE);
	arena_give(&arena, 2 * PAGE, 3 * PAGE); /* joins */
	ck_assert_uint_eq(arena.used_bytes, 8 * PAGE);
	arena_claim(&arena, 20 * PAGE, 21 * PAGE); /* no room for the tail: it is used, too */
	ck_assert_uint_eq(arena.used_bytes, 8 * PAGE + (PAGES - 20) * PAGE);
}
END_TEST

START_TEST(test_used_ranges_are_listed)
{
	struct arena_range used;

	begin(ROOM);
	ck_assert_int_eq(arena_next_used(&arena, 0, &used), 0);
	arena_claim(&arena, 2 * PAGE, 4 * PAGE);
	arena_claim(&arena, (PAGES - 1) * PAGE, PAGES * PAGE);
	ck_assert_int_eq(arena_next_used(&arena, 0, &used), 1);
	ck_assert(used.start == 2 * PAGE && used.end == 4 * PAGE);
	ck_assert_int_eq(arena_next_used(&arena, 3 * PAGE, &used), 1);
	ck_assert(used.start == 3 * PAGE && used.end == 4 * PAGE);
	ck_assert_int_eq(arena_next_used(&arena, used.end, &used), 1);
	ck_assert(used.start == (PAGES - 1) * PAGE && used.end == PAGES * PAGE);
	ck_assert_int_eq(arena_next_used(&arena, used.end, &used), 0);
}
END_TEST

/* ----------------------------------------------------------------------------------------------------- by chance -- */

static unsigned char shadow[PAGES]; /* 1: used */

static int shadow_is(uint64_t start, uint64_t end, int used)
{
	for (uint64_t page = start / PAGE; page < end / PAGE; page++) {
		if (shadow[page] != used)
			return 0;
	}
	return 1;
}

static void shadow_set(uint64_t start, uint64_t end, int used)
{
	for (uint64_t page = start / PAGE; page < end / PAGE; page++)
		shadow[page] = (unsigned char)used;
}

static void compare(void)
{
	uint64_t used_bytes = 0;
	uint64_t at = 0;
	struct arena_range used;

	while (arena_next_used(&arena, at, &used)) {
		ck_assert(shadow_is(at, used.start, 0) && shadow_is(used.start, used.end, 1));
		used_bytes += used.end - used.start;
		at = used.end;
	}
	ck_assert(shadow_is(at, PAGES * PAGE, 0));
	ck_assert_uint_eq(used_bytes, arena.used_bytes);
	for (size_t i = 1; i < arena.count; i++)
		ck_assert_uint_lt(arena.free[i - 1].end, arena.free[i].start);
}

static void take_some(struct chance *chance)
{
	uint64_t length = (1 + chance_next(chance) % 24) * PAGE;
	uint64_t alignment = PAGE << chance_next(chance) % 5;
	uint64_t start = arena_take(&arena, length, alignment);

	if (start == ARENA_NONE)
		return;
	ck_assert_uint_eq(start % alignment, 0);
	ck_assert(shadow_is(start, start + length, 0));
	shadow_set(start, start + length, 1);
}

START_TEST(test_it_agrees_with_a_shadow)
{
	struct chance chance = chance_new(1);

	begin(ROOM);
	shadow_set(0, PAGES * PAGE, 0);
	for (int i = 0; i < 20000; i++) {
		uint64_t start = chance_next(&chance) % PAGES * PAGE;
		uint64_t end = start + (1 + chance_next(&chance) % 32) * PAGE;

		end = end < PAGES * PAGE ? end : PAGES * PAGE;
		switch (chance_next(&chance) % 5) {
		case 0:
		case 1:
			take_some(&chance);
			break;
		case 2:
			arena_claim(&arena, start, end);
			shadow_set(start, end, 1);
			break;
		case 3:
			ck_assert_int_eq(arena_extend(&arena, start, end), shadow_is(start, end, 0));
			if (shadow_is(start, end, 0))
				shadow_set(start, end, 1);
			break;
		default:
			arena_give(&arena, start, end);
			shadow_set(start, end, 0);
		}
		compare();
	}
}
END_TEST

int main(void)
{
	Suite *suite = suite_create("fork_arena");
	TCase *tcase = tcase_create("arena");
	tcase_set_timeout(tcase, 300);

	support_begin(TEST_NAME, &(struct support_needs){.swap = 0});
	tcase_add_test(tcase, test_ranges_are_taken_from_the_start);
	tcase_add_test(tcase, test_what_comes_back_joins_its_neighbours);
	tcase_add_test(tcase, test_a_range_is_extended_only_into_what_is_free);
	tcase_add_test(tcase, test_a_full_array_loses_address_space_and_nothing_else);
	tcase_add_test(tcase, test_used_ranges_are_listed);
	tcase_add_test(tcase, test_it_agrees_with_a_shadow);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
