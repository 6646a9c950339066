/* SPDX-License-Identifier: MIT */
/*
 * Children of uffdwp_fork() in programs with handlers of pthread_atfork(3), which run inside of the call and write to
 * the region, as an allocator that lies in it does: also where the parent cannot know its child by the child's own
 * number, where there is no child after all, and where a signal handler on the same thread forks meanwhile. What hangs
 * is ended by an alarm.
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "filter.h"
#include "kernel/kernel.h"
#include "pace.h"
#include "place.h"
#include "scratch.h"
#include "support.h"
#include "watchdog.h"

#define PAGES 64
#define HANG_SECONDS 5

/* Exit codes of children that are right and wrong. */
#define RIGHT 7
#define WRONG 9

static struct place place;
static int in_prepare;
static int in_parent;
static int in_child;
static int is_quiet;               /* they only count */
static void (*prepare_more)(void); /* the last thing before the cut */

static void note_prepare(void)
{
	in_prepare++;
	if (place.base != NULL && !is_quiet) {
		place.base[0]++;
	}
	if (prepare_more != NULL) {
		prepare_more();
	}
}

static void note_parent(void)
{
	in_parent++;
	if (place.base != NULL && !is_quiet) {
		place.base[place.page_bytes]++;
	}
}

static void note_child(void)
{
	in_child++;
	if (place.base != NULL && !is_quiet) {
		place.base[2 * place.page_bytes]++;
	}
}

static void begin_again(void)
{
	memset(place.base, 0, 3 * place.page_bytes);
	in_prepare = in_parent = in_child = 0;
}

static int open_place(int which, const struct kernel_ops *k)
{
	struct place_case chosen = place_case(which);
	if (!place_possible(chosen) || chosen.memory != UFFDWP_MEMORY_SHMEM || !place_has_increments(chosen)) {
		return 0;
	}
	ck_assert_int_eq(place_try(&place, k, 0, chosen, PAGES), 0);
	place_touch(&place);
	begin_again();
	ck_assert_int_eq(pthread_atfork(note_prepare, note_parent, note_child), 0);
	watchdog_listen();
	pace_alarm(HANG_SECONDS);
	return 1;
}

static void end_place(void)
{
	pace_alarm(0);
	place_close(&place);
	place.base = NULL;
}

/* The process has lost what a check for leaks needs at its end. */
static void end_process(void)
{
	end_place();
	(void)fflush(stdout);
	_exit(0);
}

static pid_t fork_here(uint32_t flags, struct uffdwp_child **child)
{
	struct uffdwp_fork_options options = UFFDWP_FORK_OPTIONS_INIT;
	options.flags = flags;
	int bare = (flags & UFFDWP_FORK_BARE) != 0;
	pid_t pid = uffdwp_fork(place.runtime, &options, child);
	if (pid == 0) {
		_exit(in_prepare == 1 && in_child == !bare && in_parent == bare && place.base[0] == 1 &&
		                      place.base[place.page_bytes] == bare && place.base[2 * place.page_bytes] == !bare
		              ? RIGHT
		              : WRONG);
	}
	return pid;
}

static void expect_right(pid_t pid)
{
	char text[512] = "";
	int status = 0;
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(pid > 0, "uffdwp_fork: %d, %s", (int)pid, text);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, RIGHT << 8);
	ck_assert_int_eq(in_parent, 1);
	ck_assert_int_eq(place.base[2 * place.page_bytes], 0);
}

START_TEST(test_handlers_write_to_the_region)
{
	if (!open_place(_i, NULL)) {
		return;
	}
	expect_right(fork_here(0, NULL));
	expect_right(fork_here(UFFDWP_FORK_BARE, NULL));
	end_place();
}
END_TEST

/* --- a parent that does not know its child by the child's number -------------------------------------------------- */

static int leave_root(const char *test)
{
	char folder[SCRATCH_PATH];
	scratch_folder(folder);
	if (chroot(folder) != 0 || chdir("/") != 0) {
		support_note(test, "a process may not change its root here");
		return 0;
	}
	return 1;
}

START_TEST(test_handlers_write_in_a_root_without_proc)
{
	if (!open_place(_i, NULL)) {
		return;
	}
	expect_right(fork_here(0, NULL)); /* what is tried once is tried with /proc */
	begin_again();
	if (leave_root(__func__)) {
		expect_right(fork_here(0, NULL));
		expect_right(fork_here(UFFDWP_FORK_BARE, NULL));
	}
	end_process();
}
END_TEST

/* The same where a sandbox has no sockets: then the child's own number has to do. */
START_TEST(test_handlers_write_in_a_sandbox_without_sockets)
{
	if (!open_place(_i, NULL)) {
		return;
	}
	if (filter_call(SYS_socketpair, filter_errno(EPERM)) != 0) {
		support_note(__func__, "there are no seccomp filters");
	} else {
		expect_right(fork_here(0, NULL));
		begin_again();
		if (leave_root(__func__)) {
			expect_right(fork_here(0, NULL));
		}
	}
	end_process();
}
END_TEST

static int namespace_error;

static void take_namespace(void)
{
	namespace_error = unshare(CLONE_NEWPID) == 0 ? 0 : errno;
}

/* From a prepare handler: a thread whose children are of another namespace can start no thread. */
START_TEST(test_handlers_write_beside_a_child_of_another_pid_namespace)
{
	if (!open_place(_i, NULL)) {
		return;
	}
	prepare_more = take_namespace;
	pid_t pid = fork_here(0, NULL);
	if (namespace_error != 0) {
		support_note(__func__, "a process may not make a PID namespace here");
	}
	expect_right(pid);
	ck_assert_int_lt(fork_here(0, NULL), 0);
	prepare_more = NULL;
	end_process();
}
END_TEST

/* --- no child after all ------------------------------------------------------------------------------------------- */

static struct kernel_ops few; /* of which one fails in a child */
static pid_t parent;

static void *mremap_here(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	if (getpid() == parent) {
		return kernel_real.mremap(address, old_length, new_length, flags, target, error);
	}
	*error = -ENOMEM;
	return NULL;
}

static void *mremap_killed(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	if (getpid() != parent) {
		raise(SIGKILL);
	}
	return kernel_real.mremap(address, old_length, new_length, flags, target, error);
}

static int has_ended(void *child)
{
	struct uffdwp_child_info info = {.sz = sizeof(info)};
	must(uffdwp_child_info(child, &info) == 0);
	return info.state != UFFDWP_CHILD_STATE_RUNNING;
}

static int is_free(void *unused)
{
	(void)unused;
	return place_ledger(&place) == 0;
}

/* The parent's handler has written beside it. */
static void fork_a_dead_child(int which)
{
	struct uffdwp_child *child = NULL;
	int status = 0;
	parent = getpid();
	if (!open_place(which, &few)) {
		return;
	}
	pid_t pid = fork_here(0, &child);
	ck_assert_int_gt(pid, 0);
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, SIGKILL);
	ck_assert_int_eq(place.base[place.page_bytes], 1);
	ck_assert(wait_until(has_ended, child, 20));
	ck_assert_int_eq(uffdwp_child_free(child), 0);
	ck_assert(wait_until(is_free, NULL, 20));
	end_place();
}

START_TEST(test_handlers_write_beside_a_child_that_cannot_move_its_memory)
{
	few = kernel_real;
	few.mremap = mremap_here;
	fork_a_dead_child(_i);
}
END_TEST

START_TEST(test_handlers_write_beside_a_child_that_is_killed_at_birth)
{
	few = kernel_real;
	few.mremap = mremap_killed;
	fork_a_dead_child(_i);
}
END_TEST

static int filter_error;

static void lose_fork(void)
{
	filter_error = filter_call(SYS_clone, filter_errno(EAGAIN)) == 0 ? 0 : errno;
}

START_TEST(test_handlers_write_where_there_is_no_child)
{
	struct uffdwp_child *child = NULL;
	if (!open_place(_i, NULL)) {
		return;
	}
	prepare_more = lose_fork;
	pid_t pid = fork_here(0, &child);
	if (filter_error != 0) {
		support_note(__func__, "there are no seccomp filters");
		expect_right(pid);
	} else {
		ck_assert_int_eq(pid, -EAGAIN);
		ck_assert_ptr_null(child);
		ck_assert_int_eq(place.base[place.page_bytes], 1);
		ck_assert(wait_until(is_free, NULL, 20));
	}
	prepare_more = NULL;
	end_process();
}
END_TEST

/* --- a signal handler that forks ---------------------------------------------------------------------------------- */

static int signal_pid;
static _Atomic int *go; /* shared with the children: their parent has written */

/* Another child of the program's, which has no region, as of fork(2); while it lives nothing may wait for it. */
static void fork_in_handler(int number)
{
	(void)number;
	pid_t pid = fork();
	if (pid == 0) {
		_exit(msync(place.base, place.page_bytes, MS_ASYNC) != 0 && errno == ENOMEM ? RIGHT : WRONG);
	}
	signal_pid = pid;
}

static _Atomic int raise_where; /* 1: before the cut, 2: after it, in the parent */

static void raise_in_prepare(void)
{
	if (atomic_load(&raise_where) == 1) {
		atomic_store(&raise_where, 0); /* for handlers run for that fork, too */
		raise(SIGUSR1);
	}
}

static void raise_in_parent(void)
{
	if (atomic_load(&raise_where) == 2) {
		atomic_store(&raise_where, 0);
		raise(SIGUSR1);
	}
}

static void child_looks(void)
{
	while (!atomic_load(go)) {
		sleep_us(200);
	}
	for (size_t at = 0; at < place.length_bytes; at++) {
		if (place.base[at] != 1) {
			_exit(WRONG);
		}
	}
	_exit(RIGHT);
}

static void expect_end(pid_t pid)
{
	int status = 0;
	ck_assert_int_eq(waitpid(pid, &status, 0), pid);
	ck_assert_int_eq(status, RIGHT << 8);
}

static void fork_and_write(void)
{
	struct uffdwp_child *child = NULL;
	char text[512] = "";
	is_quiet = 1;
	memset(place.base, 1, place.length_bytes);
	atomic_store(go, 0);
	pid_t pid = uffdwp_fork(place.runtime, NULL, &child);
	if (pid == 0) {
		child_looks();
	}
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(pid > 0, "uffdwp_fork: %d, %s", (int)pid, text);
	memset(place.base, 2, place.length_bytes);
	atomic_store(go, 1);
	expect_end(pid);
	ck_assert(wait_until(has_ended, child, 20));
	ck_assert_int_eq(uffdwp_child_free(child), 0);
}

static int open_with_handler(int which, int flags)
{
	struct sigaction action = {.sa_handler = fork_in_handler, .sa_flags = flags};
	static uint8_t room[1 << 16];
	stack_t stack = {.ss_sp = room, .ss_size = sizeof(room)};
	must(sigaltstack(&stack, NULL) == 0);
	must(sigaction(SIGUSR1, &action, NULL) == 0);
	go = mmap(NULL, sizeof(*go), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must((void *)go != MAP_FAILED);
	if (!open_place(which, NULL)) {
		return 0;
	}
	must(pthread_atfork(raise_in_prepare, raise_in_parent, NULL) == 0);
	return 1;
}

/* Some C libraries hold a lock while prepare handlers run: glibc does not from 2.36 on. */
static int may_fork_in_prepare(const char *test)
{
#ifdef __GLIBC__
	int may = __GLIBC_PREREQ(2, 36);
#else
	int may = 0;
#endif
	if (!may) {
		support_note(test, "this C library has no fork(3) from a handler of pthread_atfork(3)");
	}
	return may;
}

START_TEST(test_a_signal_handler_forks_before_the_cut)
{
	if (!may_fork_in_prepare(__func__)) {
		return;
	}
	for (int on_stack = 0; on_stack < 2; on_stack++) {
		if (!open_with_handler(_i, on_stack ? SA_ONSTACK : 0)) {
			return;
		}
		atomic_store(&raise_where, 1);
		fork_and_write();
		expect_end(signal_pid);
		end_place();
	}
}
END_TEST

START_TEST(test_a_signal_handler_forks_after_the_cut)
{
	if (!may_fork_in_prepare(__func__) || !open_with_handler(_i, 0)) {
		return;
	}
	atomic_store(&raise_where, 2);
	fork_and_write();
	expect_end(signal_pid);
	end_place();
}
END_TEST

/* What stands before the C library's fork(3) may take much of the stack: it is learned how much. */
static int fork_deep(enum kernel_fork how)
{
	volatile char room[1 << 14] = {1};
	int pid = kernel_real.fork(how);
	return room[0] == 1 ? pid : -EIO;
}

START_TEST(test_a_fork_from_deep_on_the_stack)
{
	few = kernel_real;
	few.fork = fork_deep;
	if (!open_place(_i, &few)) {
		return;
	}
	go = mmap(NULL, sizeof(*go), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must((void *)go != MAP_FAILED);
	fork_and_write();
	ck_assert_int_eq(in_prepare, 2);
	fork_and_write();
	ck_assert_int_eq(in_prepare, 3);
	end_place();
}
END_TEST

int main(void)
{
	support_begin("test_child_handlers", &(struct support_needs){0, 0});
	place_begin();
	if (!place_has_children()) {
		return support_skip(PLACE_NO_CHILDREN);
	}
	Suite *suite = suite_create("child_handlers");
	TCase *tests = tcase_create("child_handlers");
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, test_handlers_write_to_the_region, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_handlers_write_in_a_root_without_proc, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_handlers_write_in_a_sandbox_without_sockets, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_handlers_write_beside_a_child_of_another_pid_namespace, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_handlers_write_beside_a_child_that_cannot_move_its_memory, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_handlers_write_beside_a_child_that_is_killed_at_birth, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_handlers_write_where_there_is_no_child, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_signal_handler_forks_before_the_cut, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_signal_handler_forks_after_the_cut, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_fork_from_deep_on_the_stack, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
