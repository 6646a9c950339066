/* SPDX-License-Identifier: MIT */
/*
 * A managed runtime owns SIGSEGV and SIGBUS: it reads through null pointers on purpose, stops its threads by taking a
 * page away that they poll, has guard pages, and files that others truncate; it has alternate signal stacks and many
 * threads. Its handlers are there before the library or come after it, in which case they pass on what is not theirs.
 * Each of its faults must come to its handler, exactly once, however many regions come and go meanwhile, and each of
 * the library's to the library, so that the images are right.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chance.h"
#include "habit.h"

#define VM_THREADS 4
#define VM_PAGES 64u
#define ALTERNATE_BYTES 65536u

enum trap { TRAP_NULL = 0, TRAP_GUARD = 1, TRAP_FILE = 2, TRAP_COUNT = 3 };

static struct habit habit;
static size_t page;
static volatile uint8_t *polling; /* a page: PROT_NONE while threads shall stop */
static volatile uint8_t *guard;   /* a page that is never to be touched */
static volatile uint8_t *cut_off; /* a page beyond the end of its file */
static volatile uint8_t *null_page;
static _Atomic int stopping;
static _Atomic int stopped;
static _Atomic int running;
static _Atomic uint64_t handled[TRAP_COUNT];
static _Atomic uint64_t polls;
static struct sigaction before[NSIG];
static int passes_on; /* 1: the handlers came after the library's */
static _Thread_local sigjmp_buf *back;

static int vm_is_in(const void *address, const volatile uint8_t *start)
{
	return (uintptr_t)address - (uintptr_t)start < page;
}

static void vm_wait_at_safepoint(void)
{
	atomic_fetch_add(&polls, 1);
	atomic_fetch_add(&stopped, 1);
	while (atomic_load(&stopping)) {
		sleep_us(50);
	}
	atomic_fetch_sub(&stopped, 1);
}

static void vm_pass_on(int number, siginfo_t *info, void *context)
{
	if (passes_on && (before[number].sa_flags & SA_SIGINFO)) {
		before[number].sa_sigaction(number, info, context);
		return;
	}
	if (passes_on && before[number].sa_handler != SIG_DFL && before[number].sa_handler != SIG_IGN) {
		before[number].sa_handler(number);
		return;
	}
	(void)sigaction(number, &(struct sigaction){.sa_handler = SIG_DFL}, NULL); /* a crash: the access kills */
}

static void vm_on_fault(int number, siginfo_t *info, void *context)
{
	enum trap trap = TRAP_COUNT;
	if (vm_is_in(info->si_addr, polling)) {
		vm_wait_at_safepoint();
		return;
	}
	if (vm_is_in(info->si_addr, null_page)) {
		trap = TRAP_NULL;
	} else if (vm_is_in(info->si_addr, guard)) {
		trap = TRAP_GUARD;
	} else if (vm_is_in(info->si_addr, cut_off)) {
		trap = TRAP_FILE;
	}
	if (trap == TRAP_COUNT || back == NULL) {
		vm_pass_on(number, info, context);
		return;
	}
	atomic_fetch_add(&handled[trap], 1);
	siglongjmp(*back, 1);
}

static void vm_install(void)
{
	struct sigaction action = {.sa_sigaction = vm_on_fault, .sa_flags = SA_SIGINFO | SA_ONSTACK};
	must(sigemptyset(&action.sa_mask) == 0);
	must(sigaction(SIGSEGV, &action, &before[SIGSEGV]) == 0 && sigaction(SIGBUS, &action, &before[SIGBUS]) == 0);
}

static volatile uint8_t *vm_page(int protection)
{
	void *memory = mmap(NULL, page, protection, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(memory != MAP_FAILED);
	return memory;
}

static void vm_memory(void)
{
	page = (size_t)sysconf(_SC_PAGESIZE);
	polling = vm_page(PROT_READ);
	guard = vm_page(PROT_NONE);
	int fd = memfd_create("truncated", MFD_CLOEXEC);
	must(fd >= 0 && ftruncate(fd, (off_t)page) == 0);
	cut_off = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(cut_off != MAP_FAILED && ftruncate(fd, 0) == 0 && close(fd) == 0);
}

static void vm_access(enum trap trap)
{
	volatile uint8_t *const addresses[TRAP_COUNT] = {null_page + 16, guard + 8, cut_off + 32};
	sigjmp_buf here;
	if (sigsetjmp(here, 1) == 0) {
		back = &here;
		*addresses[trap] = 1;
		must_hold(0, __FILE__, __LINE__, "the access does not go through");
	}
	back = NULL;
}

/* A thread of the managed program: faults of its own, polls, and writes to the region. */
static void *vm_thread(void *argument)
{
	struct chance chance = chance_new((uintptr_t)argument);
	uint8_t *alternate = habit_map(ALTERNATE_BYTES);
	stack_t stack = {.ss_sp = alternate, .ss_size = ALTERNATE_BYTES};
	must(sigaltstack(&stack, NULL) == 0);
	uint64_t traps[TRAP_COUNT] = {0};
	while (atomic_load(&running)) {
		enum trap trap = (enum trap)chance_below(&chance, TRAP_COUNT);
		vm_access(trap);
		traps[trap]++;
		(void)*polling;
		for (int i = 0; i < 16; i++) {
			size_t at = chance_below(&chance, habit.page_bytes);
			habit_write(&habit, chance_below(&chance, habit.pages), at, (uint8_t)chance_next(&chance));
			(void)*polling;
		}
	}
	stack.ss_flags = SS_DISABLE;
	must(sigaltstack(&stack, NULL) == 0 && munmap(alternate, ALTERNATE_BYTES) == 0);
	for (int trap = 0; trap < TRAP_COUNT; trap++) {
		atomic_fetch_sub(&handled[trap], traps[trap]);
	}
	return NULL;
}

/* Stops the threads as a collector does, and lets them run on. A thread that waits for the writers' lock comes
 * later. */
static void vm_stop_the_world(void)
{
	atomic_store(&stopping, 1);
	must(mprotect((void *)(uintptr_t)polling, page, PROT_NONE) == 0);
	while (atomic_load(&stopped) != VM_THREADS) {
		sleep_us(100);
	}
	must(mprotect((void *)(uintptr_t)polling, page, PROT_READ) == 0);
	atomic_store(&stopping, 0);
	while (atomic_load(&stopped) != 0) {
		sleep_us(100);
	}
}

/* Arenas come and go beside it. */
static void *vm_churn(void *argument)
{
	struct habit *of = argument;
	for (uint64_t round = 0; atomic_load(&running); round++) {
		struct habit arena;
		habit_open(&arena, of->which, 16);
		habit_fill(&arena, round);
		if (round % 2) {
			habit_round(&arena, round);
		}
		habit_close(&arena);
	}
	return NULL;
}

static void vm_run(int rounds)
{
	pthread_t threads[VM_THREADS];
	atomic_store(&running, 1);
	for (uintptr_t i = 0; i < VM_THREADS; i++) {
		threads[i] = thread_start(vm_thread, (void *)i); // NOLINT(performance-no-int-to-ptr)
	}
	pthread_t churn = thread_start(vm_churn, &habit);
	for (int round = 0; round < rounds; round++) {
		habit_cut(&habit);
		vm_stop_the_world();
		habit_end(&habit);
		vm_stop_the_world();
	}
	atomic_store(&running, 0);
	for (int i = 0; i < VM_THREADS; i++) {
		thread_join(threads[i]);
	}
	thread_join(churn);
	for (int trap = 0; trap < TRAP_COUNT; trap++) {
		must(atomic_load(&handled[trap]) == 0); /* each came exactly once */
	}
	must(atomic_load(&polls) != 0);
}

static void vm_test(struct habit_case which, int handlers_first)
{
	if (!habit_possible(which)) {
		return;
	}
	vm_memory();
	if (handlers_first) {
		vm_install();
	}
	habit_open(&habit, which, VM_PAGES);
	habit_fill(&habit, 1);
	if (!handlers_first) {
		passes_on = 1;
		vm_install();
	}
	vm_run(2 * habit_factor());
	habit_close(&habit);
}

START_TEST(test_handlers_that_were_there_first_get_their_faults)
{
	vm_test(habit_case(_i), 1);
}
END_TEST

START_TEST(test_handlers_that_came_later_and_pass_on_get_their_faults)
{
	vm_test(habit_case(_i), 0);
}
END_TEST

/* --- a crash is a crash ----------------------------------------------------------------------------------------- */

static int crash_first;
static int crash_signal;
static struct habit_case crash_case;

static void crash(void *unused)
{
	(void)unused;
	vm_memory();
	if (crash_first) {
		vm_install();
	}
	habit_open(&habit, crash_case, 16);
	passes_on = !crash_first;
	if (!crash_first) {
		vm_install();
	}
	habit_close(&habit);
	habit_open(&habit, crash_case, 16); /* the library looks at the handlers again */
	habit_fill(&habit, 1);
	habit_cut(&habit);
	volatile uint8_t *bad = crash_signal == SIGSEGV ? vm_page(PROT_NONE) : cut_off;
	if (crash_signal == SIGBUS) {
		cut_off = guard;
	}
	*bad = 1;
}

START_TEST(test_a_crash_ends_the_program_by_its_signal)
{
	crash_case = habit_case(_i);
	if (!habit_possible(crash_case)) {
		return;
	}
	for (int variant = 0; variant < 4; variant++) {
		crash_first = variant & 1;
		crash_signal = variant & 2 ? SIGSEGV : SIGBUS;
		int status = habit_child(crash, NULL);
		must(WIFSIGNALED(status) && WTERMSIG(status) == crash_signal);
	}
}
END_TEST

int main(void)
{
	habit_begin(TEST_NAME, 0);
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("sigsegv");
	tcase_set_timeout(tcase, 60 * habit_factor());
	tcase_add_loop_test(tcase, test_handlers_that_were_there_first_get_their_faults, 0, HABIT_SMALL_CASES);
	tcase_add_loop_test(tcase, test_handlers_that_came_later_and_pass_on_get_their_faults, 0, HABIT_SMALL_CASES);
	tcase_add_loop_test(tcase, test_a_crash_ends_the_program_by_its_signal, 0, HABIT_SMALL_CASES);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
