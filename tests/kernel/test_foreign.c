/* SPDX-License-Identifier: MIT */
/*
 * Faults of the program's own, while the library has its signal handlers: they reach the program's handler at once,
 * whatever regions come, go and move meanwhile.
 */
#include <signal.h>
#include <stdatomic.h>
#include <sys/mman.h>

#include "catch.h"
#include "place.h"
#include "support.h"

#define FAULTS 20

static struct place place;
static _Atomic int stop;

static struct place_case inline_case(int index)
{
	return (struct place_case){UFFDWP_MEMORY_SHMEM, (enum uffdwp_mechanism)(UFFDWP_MECHANISM_MARKER + index),
	                           UFFDWP_DELIVERY_INLINE};
}

/* A page that raises the signal which this mechanism's regions raise. */
static volatile char *trap_of(enum uffdwp_mechanism mechanism)
{
	void *page = mechanism == UFFDWP_MECHANISM_MPROTECT
	                     ? mmap(NULL, place.page_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
	                     : mmap(NULL, place.page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED,
	                            memfd_create("empty", MFD_CLOEXEC), 0);
	must(page != MAP_FAILED);
	return page;
}

static void fault_often(volatile char *trap)
{
	for (volatile int i = 1; i <= FAULTS; i = i + 1) {
		if (sigsetjmp(catch_jump, 1) == 0) {
			*trap = 1;
		}
		ck_assert_int_eq(catch_count, i);
	}
}

static _Atomic int rounds;

static void *open_and_close(void *argument)
{
	const struct place_case *which = argument;
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.mechanism = which->mechanism;
	options.delivery = which->delivery;
	while (!atomic_load(&stop)) {
		struct uffdwp_region *region;
		must(uffdwp_region_create(place.runtime, place.page_bytes, &options, &region) == 0);
		must(uffdwp_region_close(region) == 0);
		atomic_fetch_add(&rounds, 1);
	}
	return NULL;
}

static int has_begun(void *unused)
{
	(void)unused;
	return atomic_load(&rounds) > 0;
}

/* Were it not passed on at once, it would not be as long as regions go: the time limit of the test says so. */
START_TEST(test_foreign_fault_is_passed_on_while_regions_come_and_go)
{
	struct place_case which = inline_case(_i);
	if (!place_possible(which)) {
		return;
	}
	catch_install(SIGBUS, 1);
	catch_install(SIGSEGV, 1);
	place_open(&place, which, 4);
	pthread_t other = thread_start(open_and_close, &which);
	ck_assert(wait_until(has_begun, NULL, 20));
	fault_often(trap_of(which.mechanism));
	atomic_store(&stop, 1);
	thread_join(other);
	place_close(&place);
}
END_TEST

/* The whole region moves to and fro: each move is an event that a handler thread acts on. */
static void *move_about(void *argument)
{
	struct uffdwp_region *region = argument;
	size_t length = 4 * place.page_bytes;
	void *places[2] = {uffdwp_region_base(region),
	                   mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)};
	must(places[1] != MAP_FAILED);
	for (unsigned i = 0; !atomic_load(&stop); i++) {
		must(mremap(places[i % 2], length, length, MREMAP_MAYMOVE | MREMAP_FIXED, places[(i + 1) % 2]) ==
		     places[(i + 1) % 2]);
		atomic_fetch_add(&rounds, 1);
	}
	return NULL;
}

START_TEST(test_foreign_fault_is_passed_on_while_regions_move)
{
	struct place_case which = inline_case(_i);
	if (!place_possible(which) || !place_follows(which)) {
		return;
	}
	catch_install(SIGBUS, 1);
	place_attach(&place, which, 4, 1);
	volatile char *trap = trap_of(which.mechanism); /* now: later it might lie where the region moves to */
	pthread_t other = thread_start(move_about, place.region);
	ck_assert(wait_until(has_begun, NULL, 20));
	fault_often(trap);
	atomic_store(&stop, 1);
	thread_join(other);
	ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
}
END_TEST

int main(void)
{
	support_begin("test_foreign", &(struct support_needs){0});
	place_begin();
	Suite *suite = suite_create("foreign");
	TCase *tests = tcase_create("foreign");
	tcase_set_timeout(tests, 30);
	tcase_add_loop_test(tests, test_foreign_fault_is_passed_on_while_regions_come_and_go, 0, PLACE_MECHANISMS);
	tcase_add_loop_test(tests, test_foreign_fault_is_passed_on_while_regions_move, 0, PLACE_MECHANISMS);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
