/* SPDX-License-Identifier: MIT */
/*
 * The small generic things: epochs, rings, the text of an error. Threads of these tests meet by atomics and joins,
 * never by time.
 */
#include <check.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "base/epoch.h"
#include "base/math.h"
#include "base/ring.h"
#include "base/signals.h"
#include "base/text.h"
#include "base/thread.h"
#include "support.h"

/* -------------------------------------------------------------------------------------------------------- epoch -- */

#define READERS 4
#define ROUNDS 300

/* A table that readers look at without a lock, as users of an epoch have one. */
struct table {
	_Atomic int alive;
};

struct readers {
	struct epoch epoch;
	_Atomic(struct table *) current;
	_Atomic int stop;
	_Atomic int dead_seen;
	_Atomic uint64_t reads;
};

START_TEST(test_wait_returns_at_once_when_no_thread_is_inside)
{
	struct epoch epoch;

	epoch_init(&epoch);
	epoch_wait(&epoch);
	epoch_leave(epoch_enter(&epoch));
	epoch_wait(&epoch);
}
END_TEST

START_TEST(test_a_thread_may_be_inside_several_times)
{
	struct epoch epoch;
	epoch_ticket outer;
	epoch_ticket inner;

	epoch_init(&epoch);
	outer = epoch_enter(&epoch);
	inner = epoch_enter(&epoch);
	epoch_leave(outer);
	epoch_leave(inner);
	epoch_wait(&epoch);
}
END_TEST

struct waiter {
	struct epoch epoch;
	_Atomic int left;
	_Atomic int order_held;
};

static void *wait_and_look(void *argument)
{
	struct waiter *waiter = argument;

	epoch_wait(&waiter->epoch);
	atomic_store(&waiter->order_held, atomic_load(&waiter->left));
	return NULL;
}

/* What INV-EPOCH stands on: every thread that was inside when the wait began has left when it ends. */
START_TEST(test_wait_outlasts_all_that_were_inside)
{
	struct waiter waiter = {.left = 0};
	pthread_t thread;
	epoch_ticket ticket;

	epoch_init(&waiter.epoch);
	ticket = epoch_enter(&waiter.epoch);
	ck_assert_int_eq(pthread_create(&thread, NULL, wait_and_look, &waiter), 0);
	while ((atomic_load(&waiter.epoch.side) & 1) == 0) /* until the wait has begun */
		sched_yield();
	atomic_store(&waiter.left, 1);
	epoch_leave(ticket);
	pthread_join(thread, NULL);
	ck_assert_int_eq(atomic_load(&waiter.order_held), 1);
}
END_TEST

static void *read_tables(void *argument)
{
	struct readers *readers = argument;

	while (!atomic_load_explicit(&readers->stop, memory_order_relaxed)) {
		epoch_ticket ticket = epoch_enter(&readers->epoch);
		struct table *table = atomic_load(&readers->current);

		if (!atomic_load_explicit(&table->alive, memory_order_relaxed))
			atomic_store(&readers->dead_seen, 1);
		epoch_leave(ticket);
		atomic_fetch_add_explicit(&readers->reads, 1, memory_order_relaxed);
	}
	return NULL;
}

/* Publishes, waits, and makes the former table invalid: no thread may look at it any more. */
static void replace_tables(struct readers *readers, struct table tables[2])
{
	for (unsigned i = 1; i <= ROUNDS; i++) {
		struct table *next = &tables[i & 1];

		atomic_store(&next->alive, 1);
		atomic_store(&readers->current, next);
		epoch_wait(&readers->epoch);
		atomic_store(&tables[(i + 1) & 1].alive, 0);
	}
}

START_TEST(test_no_thread_looks_at_a_table_that_was_replaced)
{
	struct table tables[2] = {{1}, {0}};
	struct readers readers = {.current = &tables[0]};
	pthread_t threads[READERS];

	epoch_init(&readers.epoch);
	for (unsigned i = 0; i < READERS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, read_tables, &readers), 0);
	while (atomic_load(&readers.reads) < READERS)
		sched_yield();
	replace_tables(&readers, tables);
	atomic_store(&readers.stop, 1);
	for (unsigned i = 0; i < READERS; i++)
		pthread_join(threads[i], NULL);
	ck_assert_int_eq(atomic_load(&readers.dead_seen), 0);
}
END_TEST

/* --------------------------------------------------------------------------------------------------------- ring -- */

START_TEST(test_ring_gives_back_in_order_and_refuses_when_full_or_empty)
{
	struct ring_cell cells[4];
	struct ring ring;
	uint32_t value = 77;

	ring_init(&ring, cells, 4);
	ck_assert_int_eq(ring_pop(&ring, &value), 0);
	ck_assert_uint_eq(value, 77);
	for (uint32_t i = 0; i < 4; i++)
		ck_assert_int_eq(ring_push(&ring, 10 + i), 1);
	ck_assert_int_eq(ring_push(&ring, 99), 0);
	for (uint32_t i = 0; i < 4; i++) {
		ck_assert_int_eq(ring_pop(&ring, &value), 1);
		ck_assert_uint_eq(value, 10 + i);
	}
	ck_assert_int_eq(ring_pop(&ring, &value), 0);
}
END_TEST

START_TEST(test_ring_goes_on_when_its_positions_wrap_around)
{
	struct ring_cell cells[2];
	struct ring ring;
	uint32_t value;

	ring_init(&ring, cells, 2);
	atomic_store(&ring.head, UINT32_MAX - 1);
	atomic_store(&ring.tail, UINT32_MAX - 1);
	atomic_store(&cells[0].turn, UINT32_MAX - 1);
	atomic_store(&cells[1].turn, UINT32_MAX);
	for (uint32_t i = 0; i < 7; i++) {
		ck_assert_int_eq(ring_push(&ring, i), 1);
		ck_assert_int_eq(ring_push(&ring, i + 100), 1);
		ck_assert_int_eq(ring_push(&ring, 5), 0);
		ck_assert_int_eq(ring_pop(&ring, &value), 1);
		ck_assert_uint_eq(value, i);
		ck_assert_int_eq(ring_pop(&ring, &value), 1);
		ck_assert_uint_eq(value, i + 100);
		ck_assert_int_eq(ring_pop(&ring, &value), 0);
	}
}
END_TEST

#define PRODUCERS 2
#define CONSUMERS 2
#define VALUES 20000u /* a producer */

struct traffic {
	struct ring ring;
	struct ring_cell cells[16];
	_Atomic uint32_t first_value;
	_Atomic uint32_t taken;
	_Atomic unsigned char seen[PRODUCERS * VALUES];
};

static void *produce(void *argument)
{
	struct traffic *traffic = argument;
	uint32_t first = atomic_fetch_add(&traffic->first_value, VALUES);

	for (uint32_t i = 0; i < VALUES; i++) {
		while (!ring_push(&traffic->ring, first + i))
			sched_yield();
	}
	return NULL;
}

static void *consume(void *argument)
{
	struct traffic *traffic = argument;
	uint32_t value;

	while (atomic_load(&traffic->taken) < PRODUCERS * VALUES) {
		if (!ring_pop(&traffic->ring, &value)) {
			sched_yield();
			continue;
		}
		if (value < PRODUCERS * VALUES)
			atomic_fetch_add(&traffic->seen[value], 1);
		atomic_fetch_add(&traffic->taken, 1);
	}
	return NULL;
}

START_TEST(test_ring_hands_each_value_to_one_of_many)
{
	struct traffic *traffic = calloc(1, sizeof(*traffic));
	pthread_t threads[PRODUCERS + CONSUMERS];

	ck_assert_ptr_nonnull(traffic);
	ring_init(&traffic->ring, traffic->cells, 16);
	for (unsigned i = 0; i < PRODUCERS + CONSUMERS; i++)
		ck_assert_int_eq(pthread_create(&threads[i], NULL, i < PRODUCERS ? produce : consume, traffic), 0);
	for (unsigned i = 0; i < PRODUCERS + CONSUMERS; i++)
		pthread_join(threads[i], NULL);
	for (uint32_t i = 0; i < PRODUCERS * VALUES; i++)
		ck_assert_uint_eq(atomic_load(&traffic->seen[i]), 1);
	free(traffic);
}
END_TEST

/* ------------------------------------------------------------------------------------------------- text and math -- */

START_TEST(test_a_failure_keeps_its_text_and_errno)
{
	struct text text;
	char line[64];

	text_init(&text);
	ck_assert_uint_eq(text_copy(&text, line, sizeof(line)), 0);
	ck_assert_str_eq(line, "");
	errno = ENOTTY;
	ck_assert_int_eq(text_fail(&text, -EINVAL, "length %d: use a multiple of %d", 5, 4096), -EINVAL);
	ck_assert_int_eq(errno, ENOTTY);
	ck_assert_uint_eq(text_copy(&text, line, sizeof(line)), strlen("length 5: use a multiple of 4096"));
	ck_assert_str_eq(line, "length 5: use a multiple of 4096");
	text_fini(&text);
}
END_TEST

START_TEST(test_a_text_that_is_apart_is_not_the_threads)
{
	struct text text;
	struct text apart;
	char line[64];

	text_init(&text);
	text_init_apart(&apart);
	(void)text_fail(&text, -EPERM, "of the call");
	(void)text_fail(&apart, -ENOENT, "of a trial");
	ck_assert_uint_gt(text_copy(NULL, line, sizeof(line)), 0);
	ck_assert_str_eq(line, "of the call");
	(void)text_copy(&apart, line, sizeof(line));
	ck_assert_str_eq(line, "of a trial");
	text_forget();
	ck_assert_uint_eq(text_copy(NULL, line, sizeof(line)), 0);
	text_fini(&text);
	text_fini(&apart);
}
END_TEST

START_TEST(test_a_text_is_cut_to_the_buffer)
{
	struct text text;
	char line[6] = "xxxxx";

	text_init(&text);
	ck_assert_int_eq(text_fail(&text, -EPERM, "0123456789"), -EPERM);
	ck_assert_uint_eq(text_copy(&text, line, sizeof(line)), 10);
	ck_assert_str_eq(line, "01234");
	ck_assert_uint_eq(text_copy(&text, NULL, 0), 10);
	text_fini(&text);
}
END_TEST

START_TEST(test_math_rounds_as_it_says)
{
	ck_assert_uint_eq(math_min_u64(3, 4), 3);
	ck_assert_uint_eq(math_round_up(0, 4096), 0);
	ck_assert_uint_eq(math_round_up(1, 4096), 4096);
	ck_assert_uint_eq(math_round_up(4096, 4096), 4096);
	ck_assert(math_is_aligned(8192, 4096) && !math_is_aligned(8193, 4096));
	ck_assert(math_is_power_of_two(1) && math_is_power_of_two(64) && !math_is_power_of_two(0) &&
	          !math_is_power_of_two(65));
	ck_assert_uint_eq(math_next_power_of_two(1), 1);
	ck_assert_uint_eq(math_next_power_of_two(17), 32);
}
END_TEST

static volatile int signals_seen;

static void see_signal(int number)
{
	(void)number;
	signals_seen = signals_seen + 1;
}

START_TEST(test_blocked_signals_come_when_they_are_restored)
{
	struct sigaction action = {.sa_handler = see_signal};
	sigset_t before;

	sigemptyset(&action.sa_mask);
	ck_assert_int_eq(sigaction(SIGUSR1, &action, NULL), 0);
	signals_block(&before);
	ck_assert_int_eq(raise(SIGUSR1), 0);
	ck_assert_int_eq(signals_seen, 0);
	signals_restore(&before);
	ck_assert_int_eq(signals_seen, 1);
}
END_TEST

struct apart_seen {
	pthread_t thread;
	sigset_t mask;
	int runs;
};

static void *look_apart(void *argument)
{
	struct apart_seen *seen = argument;

	seen->thread = pthread_self();
	seen->runs++;
	pthread_sigmask(SIG_SETMASK, NULL, &seen->mask);
	return NULL;
}

START_TEST(test_a_call_apart_is_made_once_by_a_thread_that_gets_no_signal)
{
	struct apart_seen seen = {0};
	sigset_t before;
	sigset_t after;

	pthread_sigmask(SIG_SETMASK, NULL, &before);
	ck_assert_int_eq(thread_apart(look_apart, &seen), 0);
	pthread_sigmask(SIG_SETMASK, NULL, &after);
	ck_assert_int_eq(seen.runs, 1);
	ck_assert(!pthread_equal(seen.thread, pthread_self()));
	ck_assert_int_eq(sigismember(&seen.mask, SIGUSR1), 1);
	ck_assert_int_eq(sigismember(&seen.mask, SIGALRM), 1);
	for (int number = 1; number < 32; number++)
		ck_assert_int_eq(sigismember(&after, number), sigismember(&before, number));
}
END_TEST

struct thread_seen {
	char name[16];
	sigset_t mask;
	cpu_set_t cpus;
	int cancel_state;
	uintptr_t frame; /* an address on the thread's stack */
};

static void *look_thread(void *argument)
{
	struct thread_seen *seen = argument;

	thread_begin("uffdwp-look");
	pthread_getname_np(pthread_self(), seen->name, sizeof(seen->name));
	pthread_sigmask(SIG_SETMASK, NULL, &seen->mask);
	pthread_getaffinity_np(pthread_self(), sizeof(seen->cpus), &seen->cpus);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &seen->cancel_state);
	seen->frame = (uintptr_t)__builtin_frame_address(0);
	return NULL;
}

START_TEST(test_a_thread_of_the_library_is_named_undisturbed_and_in_its_place)
{
	static _Alignas(65536) unsigned char stack[1 << 20];
	struct thread_seen seen = {.cancel_state = -1};
	cpu_set_t cpus;
	pthread_t thread;

	/* The last of the CPUs that there are for this process. */
	ck_assert_int_eq(pthread_getaffinity_np(pthread_self(), sizeof(cpus), &cpus), 0);
	for (size_t cpu = 0; CPU_COUNT(&cpus) > 1; cpu++)
		CPU_CLR(cpu, &cpus);
	const struct thread_place place = {&cpus, stack, sizeof(stack)};

	ck_assert_int_eq(thread_spawn(&thread, &place, look_thread, &seen), 0);
	pthread_join(thread, NULL);
	ck_assert_str_eq(seen.name, "uffdwp-look");
	ck_assert_int_eq(sigismember(&seen.mask, SIGUSR1), 1);
	ck_assert_int_eq(sigismember(&seen.mask, SIGBUS), 0);
	ck_assert_int_eq(sigismember(&seen.mask, SIGSEGV), 0);
	ck_assert(CPU_EQUAL(&seen.cpus, &cpus));
	ck_assert_int_eq(seen.cancel_state, PTHREAD_CANCEL_DISABLE);
	ck_assert(seen.frame >= (uintptr_t)stack && seen.frame < (uintptr_t)stack + sizeof(stack));
}
END_TEST

static void add_epoch(Suite *suite)
{
	TCase *tcase = tcase_create("epoch");
	tcase_add_checked_fixture(tcase, support_block_signals, NULL);

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_wait_returns_at_once_when_no_thread_is_inside);
	tcase_add_test(tcase, test_a_thread_may_be_inside_several_times);
	tcase_add_test(tcase, test_wait_outlasts_all_that_were_inside);
	tcase_add_test(tcase, test_no_thread_looks_at_a_table_that_was_replaced);
	suite_add_tcase(suite, tcase);
}

static void add_ring(Suite *suite)
{
	TCase *tcase = tcase_create("ring");

	tcase_set_timeout(tcase, 60);
	tcase_add_test(tcase, test_ring_gives_back_in_order_and_refuses_when_full_or_empty);
	tcase_add_test(tcase, test_ring_goes_on_when_its_positions_wrap_around);
	tcase_add_test(tcase, test_ring_hands_each_value_to_one_of_many);
	suite_add_tcase(suite, tcase);
}

static void add_rest(Suite *suite)
{
	TCase *tcase = tcase_create("text and math");

	tcase_add_test(tcase, test_a_failure_keeps_its_text_and_errno);
	tcase_add_test(tcase, test_a_text_that_is_apart_is_not_the_threads);
	tcase_add_test(tcase, test_a_text_is_cut_to_the_buffer);
	tcase_add_test(tcase, test_math_rounds_as_it_says);
	tcase_add_test(tcase, test_blocked_signals_come_when_they_are_restored);
	tcase_add_test(tcase, test_a_call_apart_is_made_once_by_a_thread_that_gets_no_signal);
	tcase_add_test(tcase, test_a_thread_of_the_library_is_named_undisturbed_and_in_its_place);
	suite_add_tcase(suite, tcase);
}

int main(void)
{
	Suite *suite = suite_create(TEST_NAME);
	SRunner *runner = srunner_create(suite);
	int failed;

	add_epoch(suite);
	add_ring(suite);
	add_rest(suite);
	srunner_run_all(runner, CK_ENV);
	failed = srunner_ntests_failed(runner);
	srunner_free(runner);
	return failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
