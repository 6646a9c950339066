/* SPDX-License-Identifier: MIT */
/*
 * A program starts, opens its region, and then shuts itself off by a seccomp filter: one system call after the other is
 * refused from then on, for all threads, with EPERM or ENOSYS. A snapshot, a track, a view and a new region then work,
 * or are refused with an error and a text; writers never wait for ever, and what commits is right.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "filter.h"
#include "habit.h"

#define SANDBOX_PAGES 64u
#define SANDBOX_STEP 8 /* the short form takes every eighth case, another one for each call */

struct denied {
	const char *name;
	int number;
	int needless; /* 1: a region that is there can be snapshotted without it */
};

/* What sandboxes leave out. Not those without which no program runs (futex, exit, read, write, close, nanosleep). */
static const struct denied denied[] = {
        {"userfaultfd", SYS_userfaultfd, 1},
        {"io_uring_setup", SYS_io_uring_setup, 1},
        {"io_uring_enter", SYS_io_uring_enter, 1},
        {"io_uring_register", SYS_io_uring_register, 1},
        {"mremap", SYS_mremap, 0},
        {"madvise", SYS_madvise, 0},
        {"mprotect", SYS_mprotect, 0},
        {"ioctl", SYS_ioctl, 0},
        {"openat", SYS_openat, 0},
        {"memfd_create", SYS_memfd_create, 1},
        {"fallocate", SYS_fallocate, 0},
        {"fsync", SYS_fsync, 1},
        {"lseek", SYS_lseek, 0},
        {"fstatfs", SYS_fstatfs, 0},
        {"ftruncate", SYS_ftruncate, 0},
        {"clone3", SYS_clone3, 0},
        {"clone", SYS_clone, 0},
        {"prctl", SYS_prctl, 1},
        {"mincore", SYS_mincore, 1},
        {"sched_setaffinity", SYS_sched_setaffinity, 1},
        {"sched_getaffinity", SYS_sched_getaffinity, 1},
        {"sched_setattr", SYS_sched_setattr, 1},
        {"setpriority", SYS_setpriority, 1},
        {"get_mempolicy", SYS_get_mempolicy, 1},
        {"set_mempolicy", SYS_set_mempolicy, 1},
        {"mbind", SYS_mbind, 1},
        {"pread64", SYS_pread64, 0},
        {"pwrite64", SYS_pwrite64, 0},
        {"process_vm_readv", SYS_process_vm_readv, 0},
        {"process_vm_writev", SYS_process_vm_writev, 0},
        {"eventfd2", SYS_eventfd2, 1},
        {"epoll_create1", SYS_epoll_create1, 1},
        {"getdents64", SYS_getdents64, 1},
        {"membarrier", SYS_membarrier, 1},
        {"getrandom", SYS_getrandom, 1},
        {"tgkill", SYS_tgkill, 1},
        {"sigaltstack", SYS_sigaltstack, 1},
};
#define DENIED ((int)(sizeof(denied) / sizeof(denied[0])))

static int while_it_runs; /* its address says so */
static struct habit_case sandbox_case;
static const struct denied *sandbox_call;
static int sandbox_error;

static void sandbox_close_in(void)
{
	must(filter_call(sandbox_call->number, filter_errno(sandbox_error)) == 0);
}

static void sandbox_track(struct habit *habit)
{
	struct uffdwp_track *track;
	struct uffdwp_written ranges[16];
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	if (uffdwp_track_start(habit->runtime, NULL, &track) != 0) {
		habit_says_why();
		return;
	}
	if (uffdwp_track_add(track, habit->base, habit->length_bytes, 0) != 0) {
		habit_says_why();
	} else {
		habit_write(habit, 3, 0, 9);
		collect.ranges = ranges;
		collect.capacity = 16;
		int rc = uffdwp_track_collect(track, &collect);
		uint64_t page = (uintptr_t)habit->base + 3 * habit->page_bytes;
		int found = 0;
		for (size_t i = 0; i < collect.count; i++) {
			found |= ranges[i].start <= page && page < ranges[i].end;
		}
		must(rc != 0 || found);
	}
	must_be(habit->runtime, uffdwp_track_stop(track), 0);
}

static void sandbox_view(struct habit *habit)
{
	struct uffdwp_view *view;
	memcpy(habit->copy, habit->base, habit->length_bytes);
	if (uffdwp_view_open(habit->region, NULL, &view) != 0) {
		habit_says_why();
		return;
	}
	habit_write(habit, 1, 1, (uint8_t)(habit->base[habit->page_bytes + 1] + 1));
	struct uffdwp_view_info info = {.sz = sizeof(info)};
	must_be(habit->runtime, uffdwp_view_info(view, &info), 0);
	must(info.error != 0 || memcmp(uffdwp_view_base(view), habit->copy, habit->length_bytes) == 0);
	must_be(habit->runtime, uffdwp_view_close(view), 0);
}

static void sandbox_second_region(struct habit *habit)
{
	struct uffdwp_region *region;
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.delivery = habit->which.delivery;
	if (uffdwp_region_create(habit->runtime, 16 * habit->page_bytes, &options, &region) != 0) {
		habit_says_why();
		return;
	}
	if (uffdwp_region_arm(region, 0, 16 * habit->page_bytes) != 0) {
		habit_says_why();
	}
	memset(uffdwp_region_base(region), 1, 16 * habit->page_bytes);
	must_be(habit->runtime, uffdwp_region_close(region), 0);
}

static void sandbox_run(void *during)
{
	struct habit habit;
	habit_open(&habit, sandbox_case, SANDBOX_PAGES);
	habit_fill(&habit, 1);
	if (during != NULL) {
		habit_cut(&habit);
		sandbox_close_in();
		for (size_t i = 0; i < habit.pages; i++) {
			habit_write(&habit, i, 0, 7);
		}
		must(habit_try_end(&habit) == 0 || !sandbox_call->needless);
	} else {
		sandbox_close_in();
	}
	for (uint64_t i = 0; i < 2; i++) {
		must(habit_try_round(&habit, i) == 0 || !sandbox_call->needless);
	}
	sandbox_track(&habit);
	sandbox_view(&habit);
	sandbox_second_region(&habit);
	(void)habit_try_round(&habit, 2);
	_exit(0); /* a program that cannot give its memory back ends as well */
}

/* The program has taken away the only means to unprotect what is armed, as the header says. */
static int sandbox_is_fatal(void)
{
	return (sandbox_case.mechanism == UFFDWP_MECHANISM_MPROTECT && sandbox_call->number == SYS_mprotect) ||
	       (sandbox_case.delivery == UFFDWP_DELIVERY_INLINE && sandbox_call->number == SYS_ioctl);
}

static void sandbox_test(int index, int error)
{
	sandbox_call = &denied[index];
	sandbox_error = error;
	for (int i = 0; i < HABIT_SMALL_CASES; i++) {
		sandbox_case = habit_case(i);
		if (!habit_possible(sandbox_case) || (habit_factor() == 1 && (index + i) % SANDBOX_STEP != 0)) {
			continue;
		}
		fprintf(stderr, "%s, %s is refused:\n", habit_name(sandbox_case), sandbox_call->name);
		must(habit_child(sandbox_run, NULL) == 0);
		must(sandbox_is_fatal() || habit_child(sandbox_run, &while_it_runs) == 0);
	}
}

START_TEST(test_a_sandbox_that_forbids)
{
	sandbox_test(_i, EPERM);
}
END_TEST

START_TEST(test_a_sandbox_that_knows_no_such_call)
{
	if (habit_factor() == 1 && _i % 3 != 0) {
		return; /* in the long form all of them */
	}
	sandbox_test(_i, ENOSYS);
}
END_TEST

int main(void)
{
	habit_begin(TEST_NAME, 0);
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("sandbox");
	tcase_set_timeout(tcase, 120);
	tcase_add_loop_test(tcase, test_a_sandbox_that_forbids, 0, DENIED);
	tcase_add_loop_test(tcase, test_a_sandbox_that_knows_no_such_call, 0, DENIED);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
