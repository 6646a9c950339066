/* SPDX-License-Identifier: MIT */
/*
 * Handlers of SIGBUS and SIGSEGV that the program installs over the library's: each call that arms puts the library's
 * in front again, and passes on what is not its own to the later handler, and that one to the library, to those of
 * before, or to none. Faults that are not the library's reach each handler once, and end the process where no handler
 * wants them.
 */
#include <errno.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "place.h"
#include "support.h"

#define PAGES 4

static struct place place;
static int number; /* of the signal that the case raises */
static volatile int first_count;
static volatile int later_count;
static volatile int later_passes_on;
static volatile int first_jumps;
static sigjmp_buf first_jump;
static struct sigaction later_before;
static uint8_t *foreign; /* an access there raises the signal, and is not the library's */

/* --- handlers ----------------------------------------------------------------------------------------------------- */

static void handlers_first(int signal_number, siginfo_t *info, void *context)
{
	(void)context;
	must(signal_number == number && info->si_addr != NULL);
	first_count++;
	if (first_jumps) {
		siglongjmp(first_jump, 1);
	}
}

static void handlers_later(int signal_number, siginfo_t *info, void *context)
{
	later_count++;
	if (later_count > 100) {
		_exit(77); /* a circle */
	}
	if (later_passes_on && (later_before.sa_flags & SA_SIGINFO)) {
		later_before.sa_sigaction(signal_number, info, context);
	} else if (!later_passes_on) {
		_exit(99); /* "a crash" */
	}
}

static void handlers_install(void (*function)(int, siginfo_t *, void *), int flags, struct sigaction *before)
{
	struct sigaction action = {.sa_sigaction = function, .sa_flags = SA_SIGINFO | flags};
	must(sigemptyset(&action.sa_mask) == 0 && sigaction(number, &action, before) == 0);
}

static void handlers_default(void)
{
	struct sigaction action = {.sa_handler = SIG_DFL};
	must(sigaction(number, &action, NULL) == 0);
}

/* --- cases -------------------------------------------------------------------------------------------------------- */

/* One for each signal. */
static int handlers_case(int index)
{
	struct place_case which = {UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_MPROTECT, UFFDWP_DELIVERY_INLINE};
	number = SIGSEGV;
	if (index == 0) {
		which.mechanism = UFFDWP_MECHANISM_AUTO;
		number = SIGBUS;
	}
	if (!place_possible(which)) {
		return 0;
	}
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	int fd = memfd_create("foreign", MFD_CLOEXEC);
	must(fd >= 0 && ftruncate(fd, (off_t)page) == 0);
	foreign = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(foreign != MAP_FAILED);
	must(number == SIGBUS ? ftruncate(fd, 0) == 0 : mprotect(foreign, page, PROT_READ) == 0);
	must(close(fd) == 0);
	return 1;
}

static void handlers_open(int index)
{
	struct place_case which = {UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_MPROTECT, UFFDWP_DELIVERY_INLINE};
	if (index == 0) {
		which.mechanism = UFFDWP_MECHANISM_AUTO;
	}
	place_open(&place, which, PAGES);
	place_fill(&place, 1);
}

static int handlers_ignore(void *unused, uint64_t offset, const void *data, uint64_t length)
{
	(void)unused;
	(void)offset;
	(void)data;
	(void)length;
	return 0;
}

static struct uffdwp_snapshot *handlers_begin(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = handlers_ignore;
	must(uffdwp_snapshot_begin(place.region, &options, &snapshot) == 0);
	return snapshot;
}

static void handlers_end(struct uffdwp_snapshot *snapshot)
{
	must(uffdwp_snapshot_wait(snapshot, -1, NULL) == 0 && uffdwp_snapshot_free(snapshot) == 0);
}

static void handlers_write(void)
{
	for (size_t page = 0; page < place.pages; page++) {
		place.base[page * place.page_bytes]++;
	}
}

/* --- each call that arms looks ------------------------------------------------------------------------------------ */

static void handlers_do_arm(void)
{
	must(uffdwp_region_arm(place.region, 0, place.length_bytes) == 0);
	handlers_write();
}

static void handlers_do_snapshot(void)
{
	struct uffdwp_snapshot *snapshot = handlers_begin();
	handlers_write();
	handlers_end(snapshot);
}

static void handlers_do_view(void)
{
	struct uffdwp_view *view;
	int rc = uffdwp_view_open(place.region, NULL, &view);
	if (rc == 0) {
		handlers_write();
		must(uffdwp_view_close(view) == 0);
	}
	must(rc == 0 || rc == -EOPNOTSUPP);
}

/* Installed between two collects. */
static struct uffdwp_track *track;

static void handlers_do_collect(void)
{
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	must(uffdwp_track_collect(track, &collect) == 0);
	handlers_write();
}

static void handlers_do_create(void)
{
	place_close(&place);
	handlers_open(number == SIGSEGV);
	must(uffdwp_region_arm(place.region, 0, place.length_bytes) == 0);
	handlers_write();
}

static void (*const handlers_calls[])(void) = {handlers_do_arm, handlers_do_snapshot, handlers_do_view,
                                               handlers_do_create};
#define CALLS ((int)(sizeof(handlers_calls) / sizeof(handlers_calls[0])))

START_TEST(test_a_handler_that_swallows_all_does_not_get_the_faults_of_what_is_armed_later)
{
	if (!handlers_case(_i)) {
		return;
	}
	handlers_open(_i);
	for (int call = 0; call < CALLS; call++) {
		handlers_install(handlers_later, 0, NULL);
		handlers_calls[call]();
		handlers_default();
		handlers_calls[call]();
	}
	ck_assert_int_eq(uffdwp_track_start(place.runtime, NULL, &track), 0);
	ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, 0), 0);
	handlers_do_collect();
	handlers_install(handlers_later, 0, NULL);
	handlers_do_collect();
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	ck_assert_int_eq(later_count, 0);
	place_close(&place);
}
END_TEST

/* --- what is not the library's ------------------------------------------------------------------------------------ */

static void handlers_touch_foreign(void)
{
	if (sigsetjmp(first_jump, 1) == 0) {
		foreign[0] = 1;
		must_hold(0, __FILE__, __LINE__, "the access does not go through");
	}
}

START_TEST(test_each_handler_gets_a_foreign_fault_once)
{
	if (!handlers_case(_i)) {
		return;
	}
	first_jumps = 1;
	later_passes_on = 1;
	handlers_install(handlers_first, 0, NULL);
	handlers_open(_i);
	handlers_install(handlers_later, 0, &later_before);
	handlers_do_arm();
	for (int round = 1; round <= 10; round++) {
		handlers_touch_foreign();
		ck_assert_int_eq(later_count, round);
		ck_assert_int_eq(first_count, round);
		handlers_do_snapshot();
	}
	place_close(&place);
}
END_TEST

START_TEST(test_a_handler_that_comes_and_goes_is_asked_only_while_it_is_there)
{
	if (!handlers_case(_i)) {
		return;
	}
	first_jumps = 1;
	later_passes_on = 1;
	handlers_install(handlers_first, 0, NULL);
	handlers_open(_i);
	for (int round = 1; round <= 3 * 8; round++) { /* more often than there are layers */
		handlers_install(handlers_later, 0, &later_before);
		handlers_do_snapshot();
		handlers_touch_foreign();
		must(sigaction(number, &later_before, NULL) == 0);
		handlers_do_snapshot();
		handlers_touch_foreign();
		ck_assert_int_eq(later_count, round);
		ck_assert_int_eq(first_count, 2 * round);
	}
	place_close(&place);
}
END_TEST

static int which_end;

static void handlers_die(void *unused)
{
	(void)unused;
	handlers_open(number == SIGSEGV);
	later_passes_on = 1;
	switch (which_end) {
	case 0: /* no handler was there, and none came */
		break;
	case 1: /* the default was put over ours */
		handlers_default();
		break;
	case 2: /* one that passes on to us alone */
		handlers_install(handlers_later, 0, &later_before);
		break;
	default: /* one that remembers the layer that goes to it: a circle */
		handlers_install(handlers_later, 0, &later_before);
		handlers_do_arm();
		handlers_install(handlers_later, 0, &later_before);
		break;
	}
	handlers_do_arm();
	foreign[0] = 1;
}

START_TEST(test_a_foreign_fault_that_nobody_wants_ends_the_process_by_its_signal)
{
	if (!handlers_case(_i / 4)) {
		return;
	}
	which_end = _i % 4;
	int status = child_run(handlers_die, NULL);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == number, "status %#x", (unsigned)status);
}
END_TEST

static void handlers_spend(void *unused)
{
	(void)unused;
	first_jumps = 1;
	handlers_install(handlers_first, (int)SA_RESETHAND, NULL);
	handlers_open(number == SIGSEGV);
	handlers_touch_foreign();
	must(first_count == 1);
	handlers_do_arm();
	handlers_touch_foreign();
}

START_TEST(test_a_handler_that_wants_one_signal_gets_one)
{
	if (!handlers_case(_i)) {
		return;
	}
	int status = child_run(handlers_spend, NULL);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == number, "status %#x", (unsigned)status);
}
END_TEST

/* A page of memory is broken, says the kernel, which was not touched. */
static void handlers_report_memory(void *unused)
{
	siginfo_t info;
	(void)unused;
	handlers_open(0);
	memset(&info, 0, sizeof(info));
	info.si_signo = SIGBUS;
	info.si_code = BUS_MCEERR_AO;
	info.si_addr = place.base;
	must(syscall(SYS_rt_tgsigqueueinfo, getpid(), gettid(), SIGBUS, &info) == 0);
}

START_TEST(test_a_report_of_broken_memory_has_its_default_action)
{
	if (!handlers_case(0)) {
		return;
	}
	int status = child_run(handlers_report_memory, NULL);
	ck_assert_msg(WIFSIGNALED(status) && WTERMSIG(status) == SIGBUS, "status %#x", (unsigned)status);
}
END_TEST

/* Handlers that differ in their masks. */
START_TEST(test_more_handlers_than_can_be_kept_apart_are_refused)
{
	int rc = 0;
	if (!handlers_case(_i)) {
		return;
	}
	handlers_open(_i);
	for (int i = 0; i < 20 && rc == 0; i++) {
		struct sigaction action = {.sa_sigaction = handlers_later, .sa_flags = SA_SIGINFO};
		must(sigemptyset(&action.sa_mask) == 0 && sigaddset(&action.sa_mask, SIGRTMIN + i) == 0);
		must(sigaction(number, &action, NULL) == 0);
		rc = uffdwp_region_arm(place.region, 0, place.length_bytes);
		if (rc == 0) {
			handlers_write();
		}
	}
	char text[512] = "";
	ck_assert_int_eq(rc, -EMLINK);
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, "handlers of SIG") != NULL, "%s", text);
	ck_assert_uint_eq(place_ledger(&place), 0);
	place_close(&place);
}
END_TEST

int main(void)
{
	support_begin(TEST_NAME, &(struct support_needs){.huge_pages = 0});
	place_begin();
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("handlers");
	tcase_set_timeout(tcase, 60);
	tcase_add_loop_test(tcase, test_a_handler_that_swallows_all_does_not_get_the_faults_of_what_is_armed_later, 0,
	                    2);
	tcase_add_loop_test(tcase, test_each_handler_gets_a_foreign_fault_once, 0, 2);
	tcase_add_loop_test(tcase, test_a_handler_that_comes_and_goes_is_asked_only_while_it_is_there, 0, 2);
	tcase_add_loop_test(tcase, test_a_foreign_fault_that_nobody_wants_ends_the_process_by_its_signal, 0, 8);
	tcase_add_loop_test(tcase, test_a_handler_that_wants_one_signal_gets_one, 0, 2);
	tcase_add_test(tcase, test_a_report_of_broken_memory_has_its_default_action);
	tcase_add_loop_test(tcase, test_more_handlers_than_can_be_kept_apart_are_refused, 0, 2);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
