/* SPDX-License-Identifier: MIT */
/*
 * Threads that live on memory of a region: on its stack, its thread-local memory, its alternate signal stack. Calls
 * that arm it or stall faults are refused to such a thread, with a text that names what lies there, and nothing is
 * armed; other threads may call.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include "image.h"
#include "place.h"
#include "support.h"

#define STACK_BYTES ((size_t)1 << 18)
#define PAGES 128 /* of 4 KiB at least */

/* Shared memory: by a thread, inline, by mprotect; and private anonymous memory by a thread. */
#define STACKS_CASES 4

static struct place place;
static struct place other;
static const char *word; /* that the text of each refusal has */
static int expected;     /* by each call */
static ucontext_t back;
static ucontext_t coroutine;

static struct place_case stacks_case(int index)
{
	switch (index) {
	case 0:
		return (struct place_case){UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_AUTO, UFFDWP_DELIVERY_THREAD};
	case 1:
		return (struct place_case){UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_AUTO, UFFDWP_DELIVERY_INLINE};
	case 2:
		return (struct place_case){UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_MPROTECT, UFFDWP_DELIVERY_INLINE};
	default:
		return (struct place_case){UFFDWP_MEMORY_ANON, UFFDWP_MECHANISM_AUTO, UFFDWP_DELIVERY_THREAD};
	}
}

static int stacks_open(int index)
{
	if (!place_possible(stacks_case(index))) {
		return 0;
	}
	place_open(&place, stacks_case(index), PAGES);
	place_touch(&place);
	return 1;
}

static int stacks_sink(void *unused, uint64_t offset, const void *data, uint64_t length)
{
	(void)unused;
	(void)offset;
	(void)data;
	(void)length;
	return 0;
}

static void stacks_expect(int rc, int line)
{
	char text[512] = "";
	(void)uffdwp_error_text(text, sizeof(text));
	if (rc != expected || (rc != 0 && strstr(text, word) == NULL)) {
		fprintf(stderr, "line %d: %d, expected %d \"%s\": %s\n", line, rc, expected, word, text);
		abort();
	}
}

static void stacks_snapshot(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = stacks_sink;
	int rc = uffdwp_snapshot_begin(place.region, &options, &snapshot);
	stacks_expect(rc, __LINE__);
	if (rc == 0) {
		must(uffdwp_snapshot_wait(snapshot, -1, NULL) == 0 && uffdwp_snapshot_free(snapshot) == 0);
	}
}

static void stacks_view(void)
{
	struct uffdwp_view *view;
	int rc = uffdwp_view_open(place.region, NULL, &view);
	if (rc == -EOPNOTSUPP) {
		return;
	}
	stacks_expect(rc, __LINE__);
	if (rc == 0) {
		must(uffdwp_view_close(view) == 0);
	}
}

static void stacks_track(void)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	struct uffdwp_track *track;
	must(uffdwp_track_start(place.runtime, NULL, &track) == 0);
	int rc = uffdwp_track_add(track, place.base, place.length_bytes, 0);
	stacks_expect(rc, __LINE__);
	if (rc == 0) {
		stacks_expect(uffdwp_track_collect(track, &collect), __LINE__);
	}
	must(uffdwp_track_stop(track) == 0);
}

/* All of them, from the thread that runs here. */
static void stacks_call(void)
{
	struct uffdwp_audit audit = {.sz = sizeof(audit)};
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore *restore;
	size_t page = place.page_bytes;
	stacks_expect(uffdwp_region_arm(place.region, (place.pages - 1) * page, page), __LINE__);
	int rc = uffdwp_region_audit(place.region, &audit);
	if (rc != -EOPNOTSUPP) {
		stacks_expect(rc, __LINE__);
	}
	stacks_expect(uffdwp_region_disarm(place.region, (place.pages - 1) * page, page), __LINE__);
	stacks_expect(uffdwp_region_punch(place.region, (place.pages - 1) * page, page), __LINE__);
	stacks_snapshot();
	stacks_view();
	stacks_track();
	if (expected != 0) {
		options.path = "/nowhere";
		stacks_expect(uffdwp_restore(place.region, &options, NULL), __LINE__);
		stacks_expect(uffdwp_restore_begin(place.region, &options, &restore), __LINE__);
	}
	uint64_t armed = 1;
	must(uffdwp_region_armed(place.region, 0, place.length_bytes, &armed) == 0 && armed == 0);
}

static void *stacks_thread(void *unused)
{
	(void)unused;
	stacks_call();
	must(uffdwp_prepare_write(place.region, 0, 1) == expected);
	return NULL;
}

static void *stacks_thread_of_other(void *unused)
{
	(void)unused;
	stacks_call();
	return NULL;
}

static void stacks_run_on(void *stack, void *(*function)(void *))
{
	pthread_attr_t attributes;
	pthread_t thread;
	must(pthread_attr_init(&attributes) == 0 && pthread_attr_setstack(&attributes, stack, STACK_BYTES) == 0);
	must(pthread_create(&thread, &attributes, function, NULL) == 0);
	must(pthread_attr_destroy(&attributes) == 0);
	thread_join(thread);
}

/* Another thread of the process may do it all. */
static void stacks_close(void)
{
	expected = 0;
	stacks_call();
	place_close(&place);
}

START_TEST(test_a_thread_on_a_stack_in_the_region_is_refused)
{
	if (stacks_open(_i)) {
		expected = -EDEADLK;
		word = "the stack of the calling thread";
		stacks_run_on(place.base, stacks_thread);
		stacks_close();
	}
}
END_TEST

static void stacks_coroutine(void)
{
	stacks_call();
	must(uffdwp_prepare_write(place.region, 0, 1) == expected);
	must(swapcontext(&coroutine, &back) == 0);
}

static void stacks_switch_to(void *stack)
{
	must(getcontext(&coroutine) == 0);
	coroutine.uc_stack.ss_sp = stack;
	coroutine.uc_stack.ss_size = STACK_BYTES;
	coroutine.uc_link = &back;
	makecontext(&coroutine, stacks_coroutine, 0);
	must(swapcontext(&back, &coroutine) == 0);
}

START_TEST(test_a_coroutine_on_a_stack_in_the_region_is_refused)
{
	if (stacks_open(_i)) {
		expected = -EDEADLK;
		word = "the stack of the calling thread";
		stacks_switch_to(place.base);
		stacks_close();
	}
}
END_TEST

static void *stacks_leave(void *unused)
{
	static uint8_t stack[STACK_BYTES] __attribute__((aligned(4096)));
	(void)unused;
	must(getcontext(&coroutine) == 0);
	coroutine.uc_stack.ss_sp = stack;
	coroutine.uc_stack.ss_size = sizeof(stack);
	coroutine.uc_link = &back;
	makecontext(&coroutine, stacks_call, 0);
	must(swapcontext(&back, &coroutine) == 0);
	return NULL;
}

START_TEST(test_a_thread_whose_thread_local_memory_lies_in_the_region_is_refused)
{
	if (stacks_open(_i)) {
		expected = -EDEADLK;
		word = "the thread-local memory";
		stacks_run_on(place.base, stacks_leave);
		stacks_close();
	}
}
END_TEST

START_TEST(test_a_stack_in_another_region_is_refused)
{
	if (stacks_open(_i)) {
		place_open(&other, stacks_case(_i), PAGES);
		expected = -EDEADLK;
		word = "the stack of the calling thread";
		stacks_run_on(other.base, stacks_thread_of_other);
		place_close(&other);
		stacks_close();
	}
}
END_TEST

/* --- signals ------------------------------------------------------------------------------------------------------ */

static _Atomic int signals;

static void stacks_on_signal(int number)
{
	(void)number;
	atomic_fetch_add(&signals, 1);
}

START_TEST(test_an_alternate_stack_in_the_region_is_refused_where_signals_cannot_wait)
{
	if (!stacks_open(_i)) {
		return;
	}
	struct sigaction action = {.sa_handler = stacks_on_signal, .sa_flags = SA_ONSTACK};
	stack_t stack = {.ss_sp = place.base, .ss_size = 65536};
	int waits = place_system_calls_wait(stacks_case(_i));
	ck_assert_int_eq(sigaction(SIGUSR1, &action, NULL), 0);
	ck_assert_int_eq(sigaltstack(&stack, NULL), 0);
	expected = waits ? 0 : -EDEADLK;
	word = "the alternate signal stack";
	stacks_call();
	if (waits) { /* on an armed stack */
		ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
		ck_assert_int_eq(raise(SIGUSR1), 0);
		ck_assert_int_eq(atomic_load(&signals), 1);
		ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, place.length_bytes), 0);
	}
	stack.ss_flags = SS_DISABLE;
	ck_assert_int_eq(sigaltstack(&stack, NULL), 0);
	stacks_close();
}
END_TEST

/* --- attach ------------------------------------------------------------------------------------------------------- */

static uint8_t *own_stack;

static void *stacks_attach(void *unused)
{
	struct uffdwp_region *region;
	(void)unused;
	stacks_expect(uffdwp_region_attach(place.runtime, own_stack, STACK_BYTES, NULL, &region), __LINE__);
	return NULL;
}

START_TEST(test_the_own_stack_cannot_be_attached)
{
	if (!place_possible(stacks_case(3)) || !stacks_open(0)) {
		return;
	}
	own_stack = mmap(NULL, STACK_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(own_stack, MAP_FAILED);
	expected = -EDEADLK;
	word = "the stack of the calling thread";
	stacks_run_on(own_stack, stacks_attach);
	ck_assert_int_eq(munmap(own_stack, STACK_BYTES), 0);
	stacks_close();
}
END_TEST

int main(void)
{
	support_begin(TEST_NAME, &(struct support_needs){.huge_pages = 0});
	place_begin();
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("stacks");
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_a_thread_on_a_stack_in_the_region_is_refused, 0, STACKS_CASES);
	tcase_add_loop_test(tcase, test_a_coroutine_on_a_stack_in_the_region_is_refused, 0, STACKS_CASES);
	tcase_add_loop_test(tcase, test_a_thread_whose_thread_local_memory_lies_in_the_region_is_refused, 0,
	                    STACKS_CASES);
	tcase_add_loop_test(tcase, test_a_stack_in_another_region_is_refused, 0, STACKS_CASES);
	tcase_add_loop_test(tcase, test_an_alternate_stack_in_the_region_is_refused_where_signals_cannot_wait, 0,
	                    STACKS_CASES);
	tcase_add_test(tcase, test_the_own_stack_cannot_be_attached);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
