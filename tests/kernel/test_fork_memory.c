/* SPDX-License-Identifier: MIT */
/*
 * libuffdwp-fork.so: what else a program maps beside its heap, and calls of memory that the kernel refuses, or that are
 * refused to the program. The second witness is the kernel, for memory that is not of the heap.
 */
#include <sched.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "fork_linked.h"
#include "pace.h"
#include "test_fork_preload.h"
#include "test_fork_run.h"

#define GIB ((size_t)1 << 30)

/* A role that hangs is ended, whatever signals it blocks. */
#define LIMITED "/usr/bin/timeout", "-s", "KILL", "20", self

/* ------------------------------------------------------------------------------------------------------- roles -- */

/* A shared mapping of a file is one also where it would have room beside the heap. */
static void use_file(size_t length)
{
	int fd = memfd_create("file", MFD_CLOEXEC);
	unsigned char byte = 0;

	must(fd >= 0 && ftruncate(fd, (off_t)(length + length / 2)) == 0);
	unsigned char *file = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	must(file != MAP_FAILED);
	file[page_bytes] = 3;
	must(madvise(file, length, MADV_DONTNEED) == 0 && file[page_bytes] == 3);
	must(mprotect(file, page_bytes, PROT_NONE) == 0 && is_guarded(file));
	must(mprotect(file, page_bytes, PROT_READ | PROT_WRITE) == 0);
	file = mremap(file, length, length + length / 2, MREMAP_MAYMOVE);
	must(file != MAP_FAILED && file[page_bytes] == 3);
	file[length] = 4;
	must(pread(fd, &byte, 1, (off_t)length) == 1 && byte == 4);
	must(munmap(file, length + length / 2) == 0 && is_guarded(file) && close(fd) == 0);
}

static void fork_and_use_files(unsigned char *heap)
{
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		use_file(2 * GIB);
		use_file(64 * MIB);
		must(is_filled(heap, 8 * MIB, 7));
		use_calls();
		_exit(0);
	}
	await_right(child);
}

static void role_files(void)
{
	unsigned char *heap = fill_heap();

	use_file(2 * GIB);
	fork_and_use_files(heap);
	free(heap);
}

/* The child is one by a copy: its parent could not write to its memory from a table of descriptors of its own. */
static void role_filescopy(void)
{
	unsigned char *heap = fill_heap();

	must(unshare(CLONE_FILES) == 0);
	fork_and_use_files(heap);
	free(heap);
}

/* Handlers of a library that came before ours use the heap, in a parent, a child and that one's. */
static void role_linked(void)
{
	fork_linked_block = map_anew(MIB);
	for (unsigned char i = 1; i < 6; i++) {
		memset(fork_linked_block + page_bytes, i, page_bytes);
		pid_t child = fork();

		must(child >= 0);
		if (child == 0) {
			must(fork_linked_block[0] == i && fork_linked_block[1] == i - 1 && fork_linked_block[2] == 1);
			must(is_filled(fork_linked_block + page_bytes, page_bytes, 0));
			child = fork();
			must(child >= 0);
			if (child == 0)
				_exit(fork_linked_block[0] != i + 1 || fork_linked_block[2] != 2);
			must(fork_linked_block[1] == i);
			await_right(child);
			_exit(0);
		}
		must(fork_linked_block[0] == i && fork_linked_block[1] == i && fork_linked_block[2] == 0);
		await_right(child);
	}
}

static atomic_int mapper_end;

/* Calls for memory that was the heap's. */
static void *call_often(void *argument)
{
	while (!atomic_load(&mapper_end))
		(void)mprotect(argument, MIB, PROT_READ | PROT_WRITE);
	return NULL;
}

/* Where nothing of the heap is in the region forks are plain ones, while other threads call for memory. */
static void role_plain(void)
{
	unsigned char *memory = map_anew(MIB);
	pthread_t threads[2];

	must(munmap(memory, MIB) == 0);
	for (size_t i = 0; i < 2; i++)
		threads[i] = thread_start(call_often, memory);
	for (unsigned i = 0; i < 400; i++) {
		pid_t child = fork();

		must(child >= 0);
		if (child == 0) {
			child = fork();
			must(child >= 0);
			if (child == 0)
				_exit(0);
			await_right(child);
			_exit(0);
		}
		await_right(child);
	}
	atomic_store(&mapper_end, 1);
	for (size_t i = 0; i < 2; i++)
		thread_join(threads[i]);
}

static unsigned char *signal_block;

static void use_in_handler(int signal)
{
	(void)signal;
	must(madvise(signal_block, page_bytes, MADV_DONTNEED) == 0);
	in_handler++;
}

/* A child forks again and again, and signals come whose handler calls for its heap. */
static void role_again(void)
{
	signal_block = map_anew(MIB);
	memset(signal_block, 1, MIB);
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		struct sigaction action = {.sa_handler = use_in_handler, .sa_flags = SA_RESTART};
		struct itimerval often = {{0, 150}, {0, 150}};

		must(sigaction(SIGALRM, &action, NULL) == 0 && setitimer(ITIMER_REAL, &often, NULL) == 0);
		for (unsigned i = 0; i < 300; i++) {
			pid_t next = fork();

			must(next >= 0);
			if (next == 0)
				_exit(0);
			await_right(next);
		}
		must(in_handler > 0);
		_exit(0);
	}
	await_right(child);
}

#define EDGE_BYTES (4 * MIB)
#define EDGES 14

/* A call that is refused: its error. */
static int edge_error(unsigned char *at, unsigned edge)
{
	size_t most = SIZE_MAX - 100;
	size_t around = MIB - (uintptr_t)at; /* ends at the first MiB */
	int move = MREMAP_MAYMOVE;
	int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;

	errno = 0;
	switch (edge) {
	case 0:
		return mremap(at, MIB, most, move) == MAP_FAILED ? errno : 0;
	case 1:
		return mremap(at, most, MIB, move) == MAP_FAILED ? errno : 0;
	case 2:
		return munmap(at, most) == -1 ? errno : 0;
	case 3:
		return munmap(at, around) == -1 ? errno : 0;
	case 4:
		return munmap(at, (size_t)1 << 60) == -1 ? errno : 0;
	case 5:
		return madvise(at, most, MADV_DONTNEED) == -1 ? errno : 0;
	case 6:
		return madvise(at, around, MADV_DONTNEED) == -1 ? errno : 0;
	case 7:
		return mprotect(at, most, PROT_NONE) == -1 ? errno : 0;
	case 8:
		return mprotect(at, around, PROT_NONE) == -1 ? errno : 0;
	case 9:
		return mremap(at, 2 * MIB, 2 * MIB, fixed, at + MIB) == MAP_FAILED ? errno : 0;
	case 10:
		return mremap(at + MIB, 2 * MIB, 2 * MIB, fixed, at) == MAP_FAILED ? errno : 0;
	case 11:
		return mremap(at, 2 * MIB, MIB, move | MREMAP_DONTUNMAP, NULL) == MAP_FAILED ? errno : 0;
	case 12:
		return mremap(at, MIB, MIB, fixed, at + MIB + 1) == MAP_FAILED ? errno : 0;
	default:
		return mremap(at, MIB, MIB, MREMAP_FIXED, at + MIB) == MAP_FAILED ? errno : 0;
	}
}

static unsigned char *map_inside(void)
{
	unsigned char *memory = map_anew(EDGE_BYTES);

	memset(memory, 5, EDGE_BYTES);
	return memory;
}

static unsigned char *map_beside(void)
{
	void *memory =
	        (void *)syscall(SYS_mmap, NULL, EDGE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	must(memory != MAP_FAILED);
	memset(memory, 5, EDGE_BYTES);
	return memory;
}

/* 1: system calls may read, and not write. */
static int is_read_only(unsigned char *memory)
{
	int zero = open("/dev/zero", O_RDONLY | O_CLOEXEC);
	int is = read(zero, memory, 1) == -1 && errno == EFAULT && !is_guarded(memory);

	must(zero >= 0 && close(zero) == 0);
	return is;
}

/* What is moved keeps its rights; what it grows by has them, too. */
static void use_rights(unsigned char *at, unsigned char *(*map)(void))
{
	unsigned char *to = map();

	must(mprotect(at, MIB, PROT_NONE) == 0);
	at = mremap(at, MIB, 2 * MIB, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	must(at == to && is_guarded(at) && is_guarded(at + 2 * MIB - 1));
	must(mprotect(at, 2 * MIB, PROT_READ) == 0 && is_filled(at, MIB, 5) && is_filled(at + MIB, MIB, 0));
	at = mremap(at, 2 * MIB, MIB, MREMAP_MAYMOVE | MREMAP_FIXED, map());
	must(at != MAP_FAILED && is_read_only(at) && is_filled(at, MIB, 5));
	must(mprotect(at, MIB, PROT_READ | PROT_WRITE) == 0 && munmap(at, MIB) == 0);
}

static void use_edges(unsigned char *inside)
{
	unsigned char *beside = map_beside();

	for (unsigned edge = 0; edge < EDGES; edge++) {
		int error = edge_error(beside, edge);
		int answer = edge_error(inside, edge);

		if (answer != error)
			fprintf(stderr, "call %u: error %d, not %d\n", edge, answer, error);
		must(answer == error && error != 0);
		must(is_filled(beside, EDGE_BYTES, 5) && is_filled(inside, EDGE_BYTES, 5));
	}
	use_rights(beside, map_beside);
	use_rights(inside, map_inside);
}

static void role_edges(void)
{
	unsigned char *kept = map_inside();

	use_edges(map_inside());
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		use_edges(kept);
		_exit(0);
	}
	await_right(child);
}

static size_t count_resident(unsigned char *memory, size_t length)
{
	static unsigned char pages[8 * MIB / 4096];
	size_t count = 0;

	must(length / page_bytes <= sizeof(pages) && mincore(memory, length, pages) == 0);
	for (size_t i = 0; i < length / page_bytes; i++)
		count += pages[i] & 1;
	return count;
}

/* What is given back is the system's, and what a child has of it stays. */
static void fork_and_give_back(void)
{
	unsigned char *memory = map_anew(8 * MIB);

	memset(memory, 7, 8 * MIB);
	must(count_resident(memory, 8 * MIB) == 8 * MIB / page_bytes);
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		usleep(20000);
		_exit(!is_filled(memory, 8 * MIB, 7));
	}
	must(madvise(memory, 4 * MIB, MADV_DONTNEED) == 0 && munmap(memory + 4 * MIB, 4 * MIB) == 0);
	must(count_resident(memory, 8 * MIB) == 0);
	must(is_filled(memory, 4 * MIB, 0));
	await_right(child);
	must(munmap(memory, 4 * MIB) == 0);
}

static void role_nopunch(void)
{
	fork_and_give_back();
	must(filter_call(SYS_fallocate, filter_errno(EPERM)) == 0);
	fork_and_give_back();
}

/* A part of the region that the program unmaps past the library, while a child lives, is its death. */
static void end_region(void)
{
	unsigned char *memory = map_anew(8 * MIB);

	memset(memory, 7, 8 * MIB);
	pid_t child = fork();

	must(child >= 0);
	if (child == 0) {
		usleep(20000);
		_exit(0);
	}
	must(syscall(SYS_munmap, memory + 4 * MIB, page_bytes) == 0);
	await_right(child);
}

static void role_dead(void)
{
	struct timespec from;
	struct timespec to;

	end_region();
	must(clock_gettime(CLOCK_MONOTONIC, &from) == 0);
	for (unsigned i = 0; i < 4; i++)
		fork_and_give_back();
	must(clock_gettime(CLOCK_MONOTONIC, &to) == 0);
	must(to.tv_sec - from.tv_sec < 5);
}

/* 1: helpers of this process may trace it unasked. */
static int may_be_traced(void)
{
	FILE *scope = fopen("/proc/sys/kernel/yama/ptrace_scope", "re");
	int digit = scope ? fgetc(scope) : '0';

	if (scope)
		(void)fclose(scope);
	return digit == '0' || geteuid() == 0;
}

/* Which process may trace it is the program's setting, and stays so where the library needs no right of its own. */
static void role_tracer(void)
{
	unsigned char *heap = fill_heap();

	(void)thread_start(libc_pause, NULL);
	must(unshare(CLONE_FILES) == 0);
	if (may_be_traced())
		must(filter_argument(SYS_prctl, 0, PR_SET_PTRACER, SECCOMP_RET_KILL_PROCESS) == 0);
	fork_and_change(heap);
	free(heap);
}

static const struct role memory_roles[] = {
        {"files", role_files},     {"filescopy", role_filescopy}, {"linked", role_linked},
        {"plain", role_plain},     {"again", role_again},         {"edges", role_edges},
        {"nopunch", role_nopunch}, {"dead", role_dead},           {"tracer", role_tracer},
};

/* ------------------------------------------------------------------------------------------------------- tests -- */

static void has_copied(void)
{
	is_right();
	ck_assert_msg(strstr(outcome.text, "forks by copying its memory"), "%s", outcome.text);
}

START_TEST(test_files_that_a_child_maps_are_files)
{
	RUN("--verbose", "--", self, "--role", "files");
	is_right();
	ck_assert_msg(strstr(outcome.text, "has child"), "%s", outcome.text);
}
END_TEST

START_TEST(test_so_they_are_in_a_child_by_a_copy)
{
	RUN("--", self, "--role", "filescopy");
	has_copied();
}
END_TEST

START_TEST(test_handlers_of_a_linked_library_use_the_heap)
{
	RUN("--verbose", "--malloc=none", "--", LIMITED, "--role", "linked");
	is_right();
	ck_assert_msg(strstr(outcome.text, "has child"), "%s", outcome.text);
	RUN("--from=all", "--", LIMITED, "--role", "linked");
	is_right();
}
END_TEST

START_TEST(test_a_child_of_a_plain_fork_forks)
{
	RUN("--malloc=none", "--", LIMITED, "--role", "plain");
	is_right();
}
END_TEST

START_TEST(test_a_child_that_forks_takes_signals)
{
	RUN("--malloc=none", "--", LIMITED, "--role", "again");
	is_right();
}
END_TEST

START_TEST(test_calls_at_the_edges_are_answered_as_by_the_kernel)
{
	RUN("--malloc=none", "--", self, "--role", "edges");
	is_right();
	RUN("--from=all", "--", self, "--role", "edges");
	is_right();
}
END_TEST

START_TEST(test_memory_is_given_back_where_fallocate_is_refused)
{
	RUN("--verbose", "--malloc=none", "--", self, "--role", "nopunch");
	is_right();
	ck_assert_msg(strstr(outcome.text, "has child"), "%s", outcome.text);
}
END_TEST

START_TEST(test_a_dead_region_gives_memory_back_and_forks_at_once)
{
	RUN("--malloc=none", "--", self, "--role", "dead");
	has_copied();
}
END_TEST

START_TEST(test_a_copy_leaves_the_tracer_of_the_program_alone)
{
	RUN("--", self, "--role", "tracer");
	has_copied();
}
END_TEST

static Suite *fork_memory_suite(void)
{
	Suite *suite = suite_create("fork_memory");
	TCase *tcase = tcase_create("memory");

	tcase_set_timeout(tcase, pace_seconds(60));
	tcase_add_test(tcase, test_files_that_a_child_maps_are_files);
	tcase_add_test(tcase, test_so_they_are_in_a_child_by_a_copy);
	tcase_add_test(tcase, test_handlers_of_a_linked_library_use_the_heap);
	tcase_add_test(tcase, test_a_child_of_a_plain_fork_forks);
	tcase_add_test(tcase, test_a_child_that_forks_takes_signals);
	tcase_add_test(tcase, test_calls_at_the_edges_are_answered_as_by_the_kernel);
	tcase_add_test(tcase, test_memory_is_given_back_where_fallocate_is_refused);
	tcase_add_test(tcase, test_a_dead_region_gives_memory_back_and_forks_at_once);
	tcase_add_test(tcase, test_a_copy_leaves_the_tracer_of_the_program_alone);
	suite_add_tcase(suite, tcase);
	return suite;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "--role") == 0)
		return play_role_of(memory_roles, sizeof(memory_roles) / sizeof(memory_roles[0]), argv[2]);
	support_begin(TEST_NAME, &(struct support_needs){.swap = 0});
	const char *lacks = run_init();

	return lacks ? support_skip(lacks) : support_run(fork_memory_suite());
}
