/* SPDX-License-Identifier: MIT */
/*
 * A debugger attaches to all threads of a process that has handler threads and a snapshot running, looks at its
 * registers and memory, stops it for a while, and lets it run on, again and again; another process reads its memory by
 * /proc/PID/mem. The process must not notice: its images are right.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chance.h"
#include "habit.h"
#include "pace.h"

#define TRACED_PAGES 320u
#define TRACED_THREADS_MAX 64

static struct habit habit;
static _Atomic int *finished; /* shared with the debugger */
static _Atomic uintptr_t *address;
static int visits; /* that stopped a thread */

static void *traced_writer(void *unused)
{
	struct chance chance = chance_new(1);
	(void)unused;
	while (!atomic_load(finished)) {
		habit_write(&habit, chance_below(&chance, habit.pages), 0, (uint8_t)chance_next(&chance));
	}
	return NULL;
}

static void traced(struct habit_case which)
{
	(void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
	habit_open(&habit, which, TRACED_PAGES);
	habit_fill(&habit, 1);
	pthread_t writer = thread_start(traced_writer, NULL);
	atomic_store(address, (uintptr_t)habit.base);
	for (int round = 0; round < 6 * habit_factor(); round++) {
		habit_round(&habit, (uint64_t)round);
		sleep_us(2000);
	}
	atomic_store(finished, 1);
	thread_join(writer);
	habit_close(&habit);
}

static size_t debugger_threads(pid_t process, pid_t *threads)
{
	char path[64];
	size_t count = 0;
	(void)snprintf(path, sizeof(path), "/proc/%d/task", (int)process);
	DIR *folder = opendir(path);
	for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
		pid_t thread = (pid_t)strtol(entry->d_name, NULL, 10);
		if (thread > 0 && count < TRACED_THREADS_MAX) {
			threads[count++] = thread;
		}
	}
	if (folder != NULL) {
		(void)closedir(folder);
	}
	return count;
}

/* A thread that stopped for its group, or for a signal, gets what it stopped for. */
static int debugger_stop(pid_t thread, int *signal_number)
{
	int status = 0;
	*signal_number = 0;
	if (ptrace(PTRACE_SEIZE, thread, NULL, NULL) != 0) {
		return 0; /* it has ended meanwhile */
	}
	if (ptrace(PTRACE_INTERRUPT, thread, NULL, NULL) != 0 || waitpid(thread, &status, __WALL) != thread) {
		return 0;
	}
	if (WIFSTOPPED(status) && status >> 16 == 0) {
		*signal_number = WSTOPSIG(status);
	}
	return WIFSTOPPED(status);
}

/* A page that is not mapped is the handler's to fill, which stands still like all other threads: the debugger would
 * wait for it for good, as uffdwp.h says. */
static int debugger_page_is_mapped(pid_t process, uintptr_t at)
{
	char path[64];
	uint64_t entry = 0;
	(void)snprintf(path, sizeof(path), "/proc/%d/pagemap", (int)process);
	int pagemap = open(path, O_RDONLY | O_CLOEXEC);
	if (pagemap < 0) {
		return 0;
	}
	off_t offset = (off_t)(at / (uintptr_t)sysconf(_SC_PAGESIZE) * sizeof(entry));
	ssize_t got = pread(pagemap, &entry, sizeof(entry), offset);
	must(close(pagemap) == 0);
	return got == (ssize_t)sizeof(entry) && entry >> 63;
}

static void debugger_look(pid_t process, pid_t thread)
{
	uint8_t bytes[256];
	char path[64];
	uintptr_t base = atomic_load(address);
	if (!debugger_page_is_mapped(process, base)) {
		return;
	}
	errno = 0;
	(void)ptrace(PTRACE_PEEKDATA, thread, base, NULL); /* EIO where the page is empty and inline */
	(void)snprintf(path, sizeof(path), "/proc/%d/mem", (int)process);
	int memory = open(path, O_RDONLY | O_CLOEXEC);
	if (memory >= 0) {
		(void)!pread(memory, bytes, sizeof(bytes), (off_t)base);
		must(close(memory) == 0);
	}
}

static void debugger_visit(pid_t process)
{
	pid_t threads[TRACED_THREADS_MAX];
	int stopped[TRACED_THREADS_MAX];
	int signals[TRACED_THREADS_MAX];
	size_t count = debugger_threads(process, threads);
	for (size_t i = 0; i < count; i++) {
		stopped[i] = debugger_stop(threads[i], &signals[i]);
	}
	for (size_t i = 0; i < count; i++) {
		if (stopped[i]) {
			visits++;
			debugger_look(process, threads[i]);
		}
	}
	for (size_t i = 0; i < count; i++) {
		if (stopped[i]) {
			(void)ptrace(PTRACE_DETACH, threads[i], NULL, (void *)(intptr_t)signals[i]); // NOLINT
		}
	}
}

static int debugger_ended(pid_t process, int *status)
{
	siginfo_t info = {.si_pid = 0};
	must(waitid(P_PID, (id_t)process, &info, WEXITED | WNOHANG | WNOWAIT) == 0);
	return info.si_pid == process && waitpid(process, status, 0) == process;
}

START_TEST(test_a_debugger_visits)
{
	struct habit_case which = habit_case(_i);
	if (!habit_possible(which)) {
		return;
	}
	void *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(shared != MAP_FAILED);
	finished = shared;
	address = (_Atomic uintptr_t *)((uintptr_t *)shared + 8);
	pid_t process = fork();
	if (process == 0) {
		(void)signal(SIGALRM, SIG_DFL);
		pace_alarm(2);
		traced(which);
		_exit(0);
	}
	must(process > 0);
	int status = -1;
	while (!debugger_ended(process, &status)) {
		if (atomic_load(address) != 0 && !atomic_load(finished)) {
			debugger_visit(process);
		}
		sleep_us(1000);
	}
	must(status == 0);
	if (visits == 0) {
		support_note(habit_name(which), "no thread could be stopped by ptrace(2)");
	}
}
END_TEST

int main(void)
{
	habit_begin(TEST_NAME, 0);
	Suite *suite = suite_create(TEST_NAME);
	TCase *tcase = tcase_create("ptrace");
	tcase_set_timeout(tcase, 60 * habit_factor());
	tcase_add_loop_test(tcase, test_a_debugger_visits, 0, HABIT_SMALL_CASES);
	suite_add_tcase(suite, tcase);
	return support_run(suite);
}
