/* SPDX-License-Identifier: MIT */
/*
 * The registry's lock is taken by handler threads, too, when a region has moved. So a thread of the program that has
 * it, or waits for it, must not run a signal handler meanwhile: that might write to a region of such a handler thread,
 * and wait for it.
 */
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "region/registry.h"
#include "support.h"

#define TIME_LIMIT_S 30
#define PLACE 0x10000000u /* of no memory */
#define LENGTH 0x10000u

enum change { CHANGE_ADD, CHANGE_REMOVE, CHANGE_MOVE, CHANGE_NOTE, CHANGES };

struct changer {
	enum change change;
	struct uffdwp_region *region;
	_Atomic int thread; /* its number, when it is about to begin */
};

static struct uffdwp_region regions[2];

static void *run_change(void *argument)
{
	struct changer *changer = argument;
	atomic_store(&changer->thread, (int)gettid());
	switch (changer->change) {
	case CHANGE_ADD:
		must(registry_add(changer->region, PLACE, LENGTH) == 0);
		break;
	case CHANGE_REMOVE:
		registry_remove(changer->region);
		break;
	case CHANGE_MOVE:
		registry_move(changer->region, PLACE + 2 * LENGTH);
		break;
	default:
		registry_note_gone(PLACE, PLACE + LENGTH);
	}
	return NULL;
}

/* What the kernel says of a thread: 1 when it sleeps; its blocked signals. */
static int sleeps(int thread, unsigned long long *blocked)
{
	char path[64];
	char line[128];
	char state = '?';
	(void)snprintf(path, sizeof(path), "/proc/self/task/%d/status", thread);
	FILE *status = fopen(path, "re");
	must(status != NULL);
	while (fgets(line, sizeof(line), status)) {
		(void)sscanf(line, "State: %c", &state);
		(void)sscanf(line, "SigBlk: %llx", blocked);
	}
	must(fclose(status) == 0);
	return state == 'S';
}

static int waits_for_the_lock(void *argument)
{
	struct changer *changer = argument;
	unsigned long long blocked;
	int thread = atomic_load(&changer->thread);
	return thread && sleeps(thread, &blocked);
}

static int is_published(void *ignored)
{
	(void)ignored;
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	int is = registry_find(PLACE + 5 * LENGTH) != NULL;
	epoch_leave(ticket);
	return is;
}

static void *add_other(void *ignored)
{
	(void)ignored;
	must(registry_add(&regions[1], PLACE + 5 * LENGTH, LENGTH) == 0);
	return NULL;
}

static unsigned count_tries(uintptr_t address)
{
	unsigned tries = 0;
	while (tries <= 2 * REGISTRY_GONE_TRIES && registry_try_again(address)) {
		tries++;
	}
	return tries;
}

/* It was stopped, or the machine was busy: the region went long before it looks. */
START_TEST(test_a_writer_that_comes_late_tries_again)
{
	registry_init();
	ck_assert_int_eq(registry_try_again(PLACE), 0);
	registry_note_gone(PLACE, PLACE + LENGTH);
	registry_note_gone(PLACE + LENGTH, PLACE + 2 * LENGTH);
	(void)sleep(2);
	ck_assert_int_eq(registry_try_again(PLACE - 1), 0);
	ck_assert_int_eq(registry_try_again(PLACE + 2 * LENGTH), 0);
	ck_assert_uint_eq(count_tries(PLACE + LENGTH - 1), REGISTRY_GONE_TRIES);
	ck_assert_int_eq(registry_try_again(PLACE), 0);
	ck_assert_int_eq(registry_try_again(PLACE + LENGTH), 1);
	registry_note_gone(PLACE, PLACE + LENGTH);
	ck_assert_uint_eq(count_tries(PLACE), REGISTRY_GONE_TRIES);
}
END_TEST

/* A thread that adds a region has the lock as long as this one is inside the epoch; another waits for it. */
START_TEST(test_no_signal_is_taken_with_the_lock)
{
	struct changer changer = {.change = (enum change)_i, .region = &regions[0]};
	unsigned long long blocked = 0;
	registry_init();
	if (_i == CHANGE_REMOVE || _i == CHANGE_MOVE) {
		ck_assert_int_eq(registry_add(&regions[0], PLACE, LENGTH), 0);
	}
	epoch_ticket ticket = epoch_enter(&fault_epoch);
	pthread_t other = thread_start(add_other, NULL);
	must(wait_until(is_published, NULL, TIME_LIMIT_S));
	pthread_t thread = thread_start(run_change, &changer);
	must(wait_until(waits_for_the_lock, &changer, TIME_LIMIT_S));
	must(sleeps(atomic_load(&changer.thread), &blocked));
	epoch_leave(ticket);
	thread_join(thread);
	thread_join(other);
	ck_assert_uint_ne(blocked & 1ull << (SIGUSR1 - 1), 0);
	ck_assert_uint_ne(blocked & 1ull << (SIGALRM - 1), 0);
	registry_remove(&regions[0]);
	registry_remove(&regions[1]);
}
END_TEST

int main(void)
{
	support_begin("test_registry", &(struct support_needs){0, 0});
	Suite *suite = suite_create("registry");
	TCase *tests = tcase_create("registry");
	tcase_add_checked_fixture(tests, support_block_signals, NULL);
	tcase_set_timeout(tests, 2 * TIME_LIMIT_S);
	tcase_add_test(tests, test_a_writer_that_comes_late_tries_again);
	tcase_add_loop_test(tests, test_no_signal_is_taken_with_the_lock, 0, CHANGES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
