/* SPDX-License-Identifier: MIT */
/*
 * An interpreter keeps the stacks of its coroutines in the region that it snapshots, so that an image is all of its
 * state. Inline the signal's frame needs a stack of its own then (sigaltstack). Each coroutine fills frames with values
 * and checks them; the images are right.
 */
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "chance.h"
#include "habit.h"

#define STACKS 8u
#define STACK_PAGES 16u
#define ALTERNATE_BYTES 65536u

static struct habit habit;
static ucontext_t home;
static ucontext_t coroutines[STACKS];
static unsigned current;
static uint64_t finished;

/* A frame with values that are checked after deeper frames came and went. */
static uint64_t stack_deep(unsigned depth, uint64_t seed)
{
	volatile uint64_t frame[64];
	uint64_t sum = seed;
	for (unsigned i = 0; i < 64; i++) {
		frame[i] = seed * (i + 1);
	}
	if (depth != 0) {
		sum += stack_deep(depth - 1, seed * 31 + 7);
	}
	for (unsigned i = 0; i < 64; i++) {
		must(frame[i] == seed * (i + 1));
	}
	return sum;
}

static void stack_run(void)
{
	unsigned self = current;
	for (uint64_t round = 0;; round++) {
		must(stack_deep(1 + (unsigned)((self + round) % 40), self + round) != 1);
		finished++;
		must(swapcontext(&coroutines[self], &home) == 0);
	}
}

/* A function of its own: getcontext() returns twice for all that the compiler knows. */
static void stack_make(ucontext_t *coroutine, uint8_t *stack, size_t stack_bytes)
{
	must(getcontext(coroutine) == 0);
	coroutine->uc_stack.ss_sp = stack;
	coroutine->uc_stack.ss_size = stack_bytes;
	coroutine->uc_link = NULL;
	makecontext(coroutine, stack_run, 0);
}

static void stacks_make(void)
{
	size_t stack_bytes = STACK_PAGES * habit.page_bytes;
	for (unsigned i = 0; i < STACKS; i++) {
		stack_make(&coroutines[i], habit.base + i * stack_bytes, stack_bytes);
	}
}

static void stacks_schedule(struct chance *chance, unsigned switches)
{
	for (unsigned i = 0; i < switches; i++) {
		current = (unsigned)chance_below(chance, STACKS);
		must(swapcontext(&home, &coroutines[current]) == 0);
	}
}

static void *stacks_thread(void *unused)
{
	struct chance chance = chance_new(1);
	uint8_t *alternate = habit_map(ALTERNATE_BYTES);
	stack_t stack = {.ss_sp = alternate, .ss_size = ALTERNATE_BYTES};
	must(sigaltstack(&stack, NULL) == 0);
	(void)unused;
	stacks_make();
	stacks_schedule(&chance, 50);
	for (int round = 0; round < 5 * habit_factor(); round++) {
		habit_cut(&habit);
		stacks_schedule(&chance, 200);
		habit_end(&habit);
		stacks_schedule(&chance, 20);
	}
	must(finished != 0);
	stack.ss_flags = SS_DISABLE;
	must(sigaltstack(&stack, NULL) == 0 && munmap(alternate, ALTERNATE_BYTES) == 0);
	return NULL;
}

START_TEST(test_coroutine_stacks_in_a_region)
{
	struct habit_case which = habit_case(_i);
	if (!habit_possible(which)) {
		return;
	}
	habit_open(&habit, which, STACKS * STACK_PAGES);
	habit_fill(&habit, 1);
	thread_join(thread_start(stacks_thread, NULL));
	habit_close(&habit);
}
END_TEST

int main(void)
{
	habit_begin(TEST_NAME, 0);
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("stacks");
	tcase_set_timeout(tcase, 30 * habit_factor());
	tcase_add_loop_test(tcase, test_coroutine_stacks_in_a_region, 0, HABIT_SMALL_CASES);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
