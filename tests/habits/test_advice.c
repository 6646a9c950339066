/* SPDX-License-Identifier: MIT */
/*
 * Programs advise the kernel about their memory, lock it, seal it, name it, move it between nodes, while it is a region
 * and a snapshot of it runs. What keeps the content must not show: the image is right. What discards it either does not
 * show, or fails the snapshot with a text. No thread waits for ever, and the next snapshot works.
 */
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "habit.h"

#define ADVICE_PAGES 512u
#define ADVICE_FIRST 448u /* pages [448, 464): the sweep that waits has not come there, see habit.h */
#define ADVICE_COUNT 16u

/* Numbers of the kernel's interface, for headers that do not have them. */
#define ADVICE_COLD 20
#define ADVICE_PAGEOUT 21
#define ADVICE_POPULATE_READ 22
#define ADVICE_POPULATE_WRITE 23
#define ADVICE_COLLAPSE 25
#define ADVICE_GUARD_INSTALL 102
#define ADVICE_GUARD_REMOVE 103
#define ADVICE_SYS_MSEAL 462
#ifndef PR_SET_VMA
#define PR_SET_VMA 0x53564d41
#endif

static struct habit habit;

static int advise(uint8_t *at, size_t length, int advice)
{
	return madvise(at, length, advice) == 0 ? 0 : -errno;
}

static int advise_lock(uint8_t *at, size_t length, int unused)
{
	(void)unused;
	return mlock(at, length) == 0 && munlock(at, length) == 0 ? 0 : -errno;
}

static int advise_lock_on_fault(uint8_t *at, size_t length, int unused)
{
	(void)unused;
	return mlock2(at, length, MLOCK_ONFAULT) == 0 && munlock(at, length) == 0 ? 0 : -errno;
}

static int advise_lock_all(uint8_t *at, size_t length, int flags)
{
	(void)at;
	(void)length;
	return mlockall(flags) == 0 && munlockall() == 0 ? 0 : -errno;
}

static int advise_seal(uint8_t *at, size_t length, int unused)
{
	(void)unused;
	return syscall(ADVICE_SYS_MSEAL, at, length, 0) == 0 ? 0 : -errno;
}

static int advise_name(uint8_t *at, size_t length, int unused)
{
	(void)unused;
	return prctl(PR_SET_VMA, 0, at, length, "advised") == 0 ? 0 : -errno;
}

/* To the node where it is. */
static int advise_move(uint8_t *at, size_t length, int unused)
{
	void *pages[ADVICE_COUNT];
	int nodes[ADVICE_COUNT] = {0};
	int status[ADVICE_COUNT];
	(void)unused;
	for (size_t i = 0; i < ADVICE_COUNT; i++) {
		pages[i] = at + i * (length / ADVICE_COUNT);
	}
	return syscall(SYS_move_pages, 0, ADVICE_COUNT, pages, nodes, status, 2) >= 0 ? 0 : -errno;
}

static int advise_sync(uint8_t *at, size_t length, int unused)
{
	(void)unused;
	return msync(at, length, MS_SYNC) == 0 ? 0 : -errno;
}

/* Guards and takes them off again: what was there is gone. */
static int advise_guard(uint8_t *at, size_t length, int unused)
{
	(void)unused;
	int error = advise(at, length, ADVICE_GUARD_INSTALL);
	return error != 0 ? error : advise(at, length, ADVICE_GUARD_REMOVE);
}

static const struct {
	const char *name;
	int (*give)(uint8_t *at, size_t length, int argument);
	int argument;
} advices[] = {
        {"MADV_NORMAL", advise, MADV_NORMAL},
        {"MADV_RANDOM", advise, MADV_RANDOM},
        {"MADV_SEQUENTIAL", advise, MADV_SEQUENTIAL},
        {"MADV_WILLNEED", advise, MADV_WILLNEED},
        {"MADV_COLD", advise, ADVICE_COLD},
        {"MADV_PAGEOUT", advise, ADVICE_PAGEOUT},
        {"MADV_POPULATE_READ", advise, ADVICE_POPULATE_READ},
        {"MADV_POPULATE_WRITE", advise, ADVICE_POPULATE_WRITE},
        {"MADV_COLLAPSE", advise, ADVICE_COLLAPSE},
        {"MADV_HUGEPAGE", advise, MADV_HUGEPAGE},
        {"MADV_NOHUGEPAGE", advise, MADV_NOHUGEPAGE},
        {"MADV_DONTDUMP", advise, MADV_DONTDUMP},
        {"MADV_DODUMP", advise, MADV_DODUMP},
        {"MADV_DOFORK", advise, MADV_DOFORK},
        {"MADV_DONTFORK", advise, MADV_DONTFORK},
        {"MADV_WIPEONFORK", advise, MADV_WIPEONFORK},
        {"MADV_KEEPONFORK", advise, MADV_KEEPONFORK},
        {"MADV_MERGEABLE", advise, MADV_MERGEABLE},
        {"MADV_UNMERGEABLE", advise, MADV_UNMERGEABLE},
        {"mlock", advise_lock, 0},
        {"mlock2, on fault", advise_lock_on_fault, 0},
        {"mlockall, current", advise_lock_all, MCL_CURRENT},
        {"mlockall, current and future", advise_lock_all, MCL_CURRENT | MCL_FUTURE},
        {"mlockall, on fault", advise_lock_all, MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT},
        {"a name", advise_name, 0},
        {"move_pages", advise_move, 0},
        {"msync", advise_sync, 0},
        {"MADV_FREE", advise, MADV_FREE},
        {"MADV_DONTNEED", advise, MADV_DONTNEED},
        {"MADV_REMOVE", advise, MADV_REMOVE},
        {"MADV_GUARD_INSTALL and _REMOVE", advise_guard, 0},
};
/* The last of them discard. */
#define ADVICES_KEEPING (ADVICES - 4)
#define ADVICES ((int)(sizeof(advices) / sizeof(advices[0])))

static void advice_write_all(void)
{
	for (size_t page = 0; page < habit.pages; page++) {
		habit_write(&habit, page, page % habit.page_bytes, 0x3c);
	}
}

static void advice_give(int index)
{
	uint8_t *at = habit.base + ADVICE_FIRST * habit.page_bytes;
	int error = advices[index].give(at, ADVICE_COUNT * habit.page_bytes, advices[index].argument);
	if (error != 0) {
		fprintf(stderr, "%s, %s: %s\n", habit_name(habit.which), advices[index].name, strerror(-error));
	}
}

/* Some pages were written before, some are armed when the advice comes, and all are written after it. */
static int advice_round(int first, int last, int write_after)
{
	habit_fill(&habit, (uint64_t)first + 1);
	habit_cut(&habit);
	for (size_t page = ADVICE_FIRST; page < ADVICE_FIRST + 4; page++) {
		habit_write(&habit, page, 0, 0x5a);
	}
	for (int index = first; index < last; index++) {
		advice_give(index);
	}
	if (write_after) {
		advice_write_all();
	}
	int rc = habit_try_end(&habit);
	advice_write_all();
	return rc;
}

START_TEST(test_advice_that_keeps_the_content)
{
	struct habit_case which = habit_case(_i);
	if (!habit_possible(which)) {
		return;
	}
	habit_open(&habit, which, ADVICE_PAGES);
	must(advice_round(0, ADVICES_KEEPING, 1) == 0 && advice_round(0, ADVICES_KEEPING, 0) == 0);
	for (int index = 0; index < ADVICES_KEEPING; index++) {
		must(advice_round(index, index + 1, 1) == 0);
	}
	habit_round(&habit, 1);
	habit_close(&habit);
}
END_TEST

/* The header names what may be discarded and filled again unseen: in shared memory under marker and mprotect a hole, in
 * anonymous memory under mprotect everything. */
static int advice_shows(struct habit_case which)
{
	if (which.memory == UFFDWP_MEMORY_SHMEM) {
		return which.mechanism == UFFDWP_MECHANISM_REARM || which.mechanism == UFFDWP_MECHANISM_MINOR;
	}
	return which.mechanism != UFFDWP_MECHANISM_MPROTECT;
}

START_TEST(test_advice_that_discards_the_content)
{
	struct habit_case which = habit_case(_i);
	if (!habit_possible(which)) {
		return;
	}
	for (int index = ADVICES_KEEPING; index < ADVICES; index++) {
		habit_open(&habit, which, ADVICE_PAGES);
		if (advice_shows(which)) {
			(void)advice_round(index, index + 1, 1);
		}
		(void)advice_round(index, index + 1, 0);
		habit_fill(&habit, 3);
		habit_round(&habit, 1);
		habit_close(&habit);
	}
}
END_TEST

/* --- guards that stay ------------------------------------------------------------------------------------------- */

/* An allocator guards pages of its arena: they cannot be read. A snapshot has zeros there, or is refused. */
START_TEST(test_guards_in_a_region)
{
	struct habit_case which = habit_case(_i);
	if (!habit_possible(which)) {
		return;
	}
	habit_open(&habit, which, ADVICE_PAGES);
	habit_fill(&habit, 1);
	uint8_t *at = habit.base + ADVICE_FIRST * habit.page_bytes;
	if (advise(at, ADVICE_COUNT * habit.page_bytes, ADVICE_GUARD_INSTALL) != 0) {
		support_note(habit_name(which), "no MADV_GUARD_INSTALL (Linux 6.13)");
		habit_close(&habit);
		return;
	}
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	options.sink = UFFDWP_SINK_STREAM;
	options.fd = memfd_create("stream", MFD_CLOEXEC);
	int rc = uffdwp_snapshot_begin(habit.region, &options, &snapshot);
	if (rc == 0) {
		rc = uffdwp_snapshot_wait(snapshot, -1, NULL);
		must_be(habit.runtime, uffdwp_snapshot_free(snapshot), 0);
	}
	fprintf(stderr, "%s, guards: %s\n", habit_name(which), strerror(-rc));
	must_be(habit.runtime, advise(at, ADVICE_COUNT * habit.page_bytes, ADVICE_GUARD_REMOVE), 0);
	must(close(options.fd) == 0);
	advice_write_all();
	habit_round(&habit, 2);
	habit_close(&habit);
}
END_TEST

/* --- mseal ------------------------------------------------------------------------------------------------------ */

/* Sealed memory cannot be unmapped or re-protected any more: the program ends with it. */
static void seal(void *which)
{
	habit_open(&habit, *(const struct habit_case *)which, ADVICE_PAGES);
	habit_fill(&habit, 1);
	habit_cut(&habit);
	int error = advise_seal(habit.base, habit.length_bytes, 0);
	if (error != 0) {
		support_note("mseal", strerror(-error));
	}
	if (habit.which.mechanism != UFFDWP_MECHANISM_MPROTECT || error != 0) {
		advice_write_all(); /* under mprotect the seal has made read-only what was armed */
	}
	(void)habit_try_end(&habit);
	if (habit.which.mechanism != UFFDWP_MECHANISM_MPROTECT || error != 0) {
		(void)habit_try_round(&habit, 1);
	}
	(void)uffdwp_region_close(habit.region);
	_exit(0);
}

START_TEST(test_a_region_that_is_sealed)
{
	struct habit_case which = habit_case(_i);
	if (habit_possible(which)) {
		fprintf(stderr, "%s\n", habit_name(which));
		must(habit_child(seal, &which) == 0);
	}
}
END_TEST

int main(void)
{
	habit_begin(TEST_NAME, 0);
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("advice");
	tcase_set_timeout(tcase, 30);
	tcase_add_loop_test(tcase, test_advice_that_keeps_the_content, 0, HABIT_SMALL_CASES);
	tcase_add_loop_test(tcase, test_advice_that_discards_the_content, 0, HABIT_SMALL_CASES);
	tcase_add_loop_test(tcase, test_guards_in_a_region, 0, HABIT_SMALL_CASES);
	tcase_add_loop_test(tcase, test_a_region_that_is_sealed, 0, HABIT_SMALL_CASES);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
