/* SPDX-License-Identifier: MIT */
/*
 * Which thread resolves a fault: what thread and inline delivery promise beyond "the write lands". System calls that
 * write into armed pages, errno, foreign SIGBUS signals, many writers at once.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "catch.h"
#include "chance.h"
#include "pace.h"
#include "place.h"
#include "scratch.h"
#include "support.h"

static struct place place;

/* Shared memory by SIGBUS, with each mechanism that a userfaultfd serves; what SIGSEGV does: test_mprotect.c. */
#define SIGBUS_CASES 3

static struct place_case sigbus_case(int index)
{
	return (struct place_case){UFFDWP_MEMORY_SHMEM, (enum uffdwp_mechanism)(UFFDWP_MECHANISM_MARKER + index),
	                           UFFDWP_DELIVERY_INLINE};
}

static void open_armed(struct place_case which, size_t pages)
{
	place_open(&place, which, pages);
	place_touch(&place);
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
}

/* --- system calls --------------------------------------------------------------------------------------------- */

static ssize_t read_into_page(size_t page, const char *text)
{
	int ends[2];
	ck_assert_int_eq(pipe(ends), 0);
	ck_assert_int_eq((int)write(ends[1], text, strlen(text)), (int)strlen(text));
	ssize_t got = read(ends[0], place.base + page * place.page_bytes, strlen(text));
	int error = errno;
	close(ends[0]);
	close(ends[1]);
	return got < 0 ? -error : got;
}

static uint32_t says_that_they_wait(void)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	ck_assert_int_eq(uffdwp_region_info(place.region, &info), 0);
	return info.syscalls_wait;
}

START_TEST(test_system_call_waits)
{
	struct place_case which = place_case(_i);
	if (!place_system_calls_wait(which) || !place_possible(which)) {
		return;
	}
	open_armed(which, 4);
	ck_assert_uint_eq(says_that_they_wait(), 1);
	ck_assert_int_eq((int)read_into_page(2, "hello"), 5);
	ck_assert_mem_eq(place.base + 2 * place.page_bytes, "hello", 5);
	ck_assert_uint_eq(place_faults(&place, 1), 1);
	place_close(&place);
}
END_TEST

START_TEST(test_system_call_that_cannot_wait_gets_efault_unless_prepared)
{
	struct place_case which = place_case(_i);
	if (place_system_calls_wait(which) || !place_possible(which)) {
		return;
	}
	open_armed(which, 4);
	ck_assert_uint_eq(says_that_they_wait(), 0);
	ck_assert_int_eq((int)read_into_page(2, "hello"), -EFAULT);
	ck_assert_uint_eq(place.base[2 * place.page_bytes], 3);
	ck_assert_int_eq(uffdwp_prepare_write(place.region, 2 * place.page_bytes, 5), 0);
	ck_assert_int_eq((int)read_into_page(2, "hello"), 5);
	ck_assert_mem_eq(place.base + 2 * place.page_bytes, "hello", 5);
	place_close(&place);
}
END_TEST

/* --- signals -------------------------------------------------------------------------------------------------- */

/* A page of a file mapping that lies beyond the end of the file: touching it raises SIGBUS. */
static volatile uint8_t *beyond_the_end(void)
{
	int fd = memfd_create("short", MFD_CLOEXEC);
	must(fd >= 0);
	void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(page != MAP_FAILED);
	close(fd);
	return page;
}

START_TEST(test_foreign_sigbus_reaches_the_handler_before_us)
{
	struct place_case which = sigbus_case(_i / 2);
	if (!place_possible(which)) {
		return;
	}
	catch_install(SIGBUS, _i % 2);
	volatile uint8_t *beyond = beyond_the_end();
	open_armed(which, 4);
	for (volatile int round = 1; round <= 3; round = round + 1) {
		if (sigsetjmp(catch_jump, 1) == 0) {
			*beyond = 1;
		}
		ck_assert_int_eq(catch_count, round);
		*(volatile uint8_t *)place.base = 1;
	}
	if (_i % 2) {
		ck_assert_ptr_eq(catch_address, (const void *)(uintptr_t)beyond);
	}
	ck_assert_uint_eq(place_faults(&place, 1), 1);
	place_close(&place);
}
END_TEST

START_TEST(test_handler_before_us_is_back_after_close)
{
	if (!place_possible(sigbus_case(_i))) {
		return;
	}
	catch_install(SIGBUS, 1);
	volatile uint8_t *beyond = beyond_the_end();
	open_armed(sigbus_case(_i), 4);
	place_close(&place);
	if (sigsetjmp(catch_jump, 1) == 0) {
		*beyond = 1;
	}
	ck_assert_int_eq(catch_count, 1);
}
END_TEST

static void die_of_foreign_sigbus(void *argument)
{
	const struct place_case *which = argument;
	(void)signal(SIGBUS, SIG_DFL);
	volatile uint8_t *beyond = beyond_the_end();
	struct place own;
	must(place_try(&own, NULL, 0, *which, 4) == 0);
	pace_alarm(20);
	*beyond = 1;
}

START_TEST(test_foreign_sigbus_kills_without_a_handler)
{
	struct place_case which = sigbus_case(_i);
	if (!place_possible(which)) {
		return;
	}
	int status = child_run(die_of_foreign_sigbus, &which);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(WTERMSIG(status), SIGBUS);
}
END_TEST

START_TEST(test_errno_survives_a_fault)
{
	struct place_case which = place_case(_i);
	if (!place_possible(which)) {
		return;
	}
	open_armed(which, 4);
	errno = 1234;
	*(volatile uint8_t *)place.base = 9;
	int after = errno;
	ck_assert_int_eq(after, 1234);
	ck_assert_uint_eq(place_faults(&place, 1), 1);
	place_close(&place);
}
END_TEST

START_TEST(test_other_signals_may_be_blocked_during_a_fault)
{
	if (!place_possible(place_case(_i))) {
		return;
	}
	open_armed(place_case(_i), 4);
	sigset_t all;
	sigset_t before;
	sigfillset(&all);
	sigdelset(&all, SIGBUS); /* a blocked one kills: the kernel's rule for synchronous signals */
	sigdelset(&all, SIGSEGV);
	ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, &all, &before), 0);
	*(volatile uint8_t *)place.base = 9;
	ck_assert_int_eq(pthread_sigmask(SIG_SETMASK, &before, NULL), 0);
	ck_assert_uint_eq(place_faults(&place, 1), 1);
	place_close(&place);
}
END_TEST

/* --- many writers --------------------------------------------------------------------------------------------- */

#define WRITERS 4
#define ROUNDS 30

static pthread_barrier_t barrier;

struct writer {
	unsigned index;
	struct chance chance;
};

/* Each writer owns a byte in every page, and writes all pages in an order of its own. */
static void *write_all_pages(void *argument)
{
	struct writer *writer = argument;
	for (unsigned round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(&barrier);
		size_t start = chance_below(&writer->chance, place.pages);
		for (size_t i = 0; i < place.pages; i++) {
			size_t page = (start + i) % place.pages;
			((volatile uint8_t *)place.base)[page * place.page_bytes + 64 * writer->index] =
			        (uint8_t)(round + 1);
		}
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void check_round(unsigned round)
{
	place_expect_armed(&place, 0);
	for (size_t page = 0; page < place.pages; page++) {
		for (unsigned i = 0; i < WRITERS; i++) {
			ck_assert_uint_eq(place.base[page * place.page_bytes + 64 * i], (uint8_t)(round + 1));
		}
	}
}

START_TEST(test_writers_at_once_each_land_every_write)
{
	struct place_case which = place_case(_i);
	if (!place_possible(which)) {
		return;
	}
	place_open(&place, which, which.memory == UFFDWP_MEMORY_HUGETLB ? 4 : 64);
	struct writer writers[WRITERS];
	pthread_t threads[WRITERS];
	ck_assert_int_eq(pthread_barrier_init(&barrier, NULL, WRITERS + 1), 0);
	for (unsigned i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){i, chance_new(i + 1)};
		threads[i] = thread_start(write_all_pages, &writers[i]);
	}
	for (unsigned round = 0; round < ROUNDS; round++) {
		ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
		pthread_barrier_wait(&barrier);
		pthread_barrier_wait(&barrier);
		check_round(round);
	}
	for (unsigned i = 0; i < WRITERS; i++) {
		thread_join(threads[i]);
	}
	(void)place_faults(&place, ROUNDS * place.pages);
	struct uffdwp_region_stats stats = place_stats(&place);
	ck_assert_uint_eq(stats.pages_disarmed, ROUNDS * place.pages);
	ck_assert_uint_ge(stats.faults, ROUNDS * place.pages);
	place_close(&place);
}
END_TEST

static _Atomic int stop;

static void *write_for_ever(void *argument)
{
	struct writer *writer = argument;
	while (!atomic_load(&stop)) {
		size_t page = chance_below(&writer->chance, place.pages);
		((volatile uint8_t *)place.base)[page * place.page_bytes + 64 * writer->index] = 1;
	}
	return NULL;
}

START_TEST(test_arming_and_closing_under_writers_loses_no_writer)
{
	struct place_case which = place_case(_i);
	if (!place_possible(which)) {
		return;
	}
	place_attach(&place, which, which.memory == UFFDWP_MEMORY_HUGETLB ? 4 : 256, 1);
	struct writer writers[2] = {{0, chance_new(8)}, {1, chance_new(9)}};
	pthread_t threads[2] = {thread_start(write_for_ever, &writers[0]), thread_start(write_for_ever, &writers[1])};
	struct chance chance = chance_new(10);
	for (unsigned round = 0; round < 200; round++) {
		size_t start = chance_below(&chance, place.pages);
		size_t pages = 1 + chance_below(&chance, place.pages - start);
		int (*change)(struct uffdwp_region *, uint64_t, uint64_t) =
		        round % 3 == 2 ? uffdwp_region_disarm : uffdwp_region_arm;
		ck_assert_int_eq(change(place.region, start * place.page_bytes, pages * place.page_bytes), 0);
	}
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
	ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	atomic_store(&stop, 1);
	thread_join(threads[0]);
	thread_join(threads[1]);
	ck_assert_int_eq(place_released(&place), 1);
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
	struct patch patch = {place.base, place.page_bytes, place.length_bytes, place.fd};
	patch_unmap(&patch);
}
END_TEST

int main(void)
{
	support_begin("test_delivery", &(struct support_needs){.huge_pages = 12, .swap = 0});
	place_begin();
	Suite *suite = suite_create("delivery");
	TCase *tests = tcase_create("delivery");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_system_call_waits, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_system_call_that_cannot_wait_gets_efault_unless_prepared, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_foreign_sigbus_reaches_the_handler_before_us, 0, 2 * SIGBUS_CASES);
	tcase_add_loop_test(tests, test_handler_before_us_is_back_after_close, 0, SIGBUS_CASES);
	tcase_add_loop_test(tests, test_foreign_sigbus_kills_without_a_handler, 0, SIGBUS_CASES);
	tcase_add_loop_test(tests, test_errno_survives_a_fault, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_other_signals_may_be_blocked_during_a_fault, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_writers_at_once_each_land_every_write, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_arming_and_closing_under_writers_loses_no_writer, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
