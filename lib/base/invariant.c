/* SPDX-License-Identifier: MIT */
/* See invariant.h. Nothing here but with UFFDWP_INVARIANTS; no lock and no allocation, for signal handlers. */
#include "base/invariant.h"

#ifdef UFFDWP_INVARIANTS

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define LOCKS_MAX 256
#define PRINT_NAME "UFFDWP_TEST_INVARIANTS" /* in the environment of the tests */

static _Atomic uint64_t invariant_own_counts[INVARIANT_COUNT];
static _Atomic uint64_t *invariant_counts = invariant_own_counts;
static pid_t invariant_printer;

/* Written by the thread, and by signal handlers that have given everything back when they return. */
static _Thread_local struct {
	const void *locks[LOCKS_MAX];
	unsigned lock_count;
	int is_full; /* there were more than there is room for: nothing is known until all were given back */
	int inside;
} invariant_thread;

#define INVARIANT_TEXT(name) "INV-" #name,
static const char *const invariant_names[] = {INVARIANT_NAMES(INVARIANT_TEXT)};

static void invariant_write(const char *text)
{
	ssize_t ignored = write(STDERR_FILENO, text, strlen(text));

	(void)ignored;
}

static void invariant_write_number(int number)
{
	char digits[12] = {0};
	size_t at = sizeof(digits) - 1;

	do
		digits[--at] = (char)('0' + number % 10);
	while (number /= 10);
	invariant_write(digits + at);
}

/* Tests are children of fork(), and their parent prints the sums. */
__attribute__((constructor)) static void invariant_share(void)
{
	void *shared =
	        mmap(NULL, sizeof(invariant_own_counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (shared != MAP_FAILED)
		invariant_counts = shared;
	if (getenv(PRINT_NAME))
		invariant_printer = getpid();
	unsetenv(PRINT_NAME); /* what it starts has an output of its own */
}

/* A line at the end of a program that was asked for it: tests/run.sh adds them up. */
__attribute__((destructor)) static void invariant_print(void)
{
	char line[1024] = "invariants checked:";
	size_t at = strlen(line);

	for (int name = 0; name < INVARIANT_COUNT; name++)
		at += (size_t)snprintf(line + at, sizeof(line) - at, " %s %llu", invariant_names[name],
		                       (unsigned long long)invariant_checked((enum invariant)name));
	_Static_assert(INVARIANT_COUNT * 40 < sizeof(line) - 40, "a name and 20 digits each");
	if (getpid() == invariant_printer)
		dprintf(STDERR_FILENO, "%s\n", line);
}

void invariant_check(enum invariant name, int holds, const char *condition, const char *file, int line)
{
	atomic_fetch_add_explicit(&invariant_counts[name], 1, memory_order_relaxed);
	if (holds)
		return;
	invariant_write(file);
	invariant_write(":");
	invariant_write_number(line);
	invariant_write(": ");
	invariant_write(invariant_names[name]);
	invariant_write(" is broken: ");
	invariant_write(condition);
	invariant_write("\n");
	abort();
}

uint64_t invariant_checked(enum invariant name)
{
	return atomic_load(&invariant_counts[name]);
}

const char *invariant_name(enum invariant name)
{
	return invariant_names[name];
}

void invariant_take(const void *lock)
{
	if (invariant_thread.lock_count < LOCKS_MAX)
		invariant_thread.locks[invariant_thread.lock_count] = lock;
	else
		invariant_thread.is_full = 1;
	invariant_thread.lock_count++;
}

/* Mostly the last; of several regions they may be given back in any order. */
void invariant_give(const void *lock)
{
	unsigned count = invariant_thread.lock_count < LOCKS_MAX ? invariant_thread.lock_count : LOCKS_MAX;

	for (unsigned i = count; i > 0; i--) {
		if (invariant_thread.locks[i - 1] != lock)
			continue;
		memmove(&invariant_thread.locks[i - 1], &invariant_thread.locks[i], (count - i) * sizeof(lock));
		break;
	}
	if (--invariant_thread.lock_count == 0)
		invariant_thread.is_full = 0;
}

int invariant_holds(const void *lock)
{
	unsigned count = invariant_thread.lock_count;

	for (unsigned i = 0; i < count && !invariant_thread.is_full; i++) {
		if (invariant_thread.locks[i] == lock)
			return 1;
	}
	return invariant_thread.is_full;
}

int invariant_signals_blocked(void)
{
	sigset_t now;

	return !pthread_sigmask(SIG_SETMASK, NULL, &now) && sigismember(&now, SIGUSR1) && sigismember(&now, SIGALRM);
}

void invariant_enter(void)
{
	invariant_thread.inside++;
}

void invariant_leave(void)
{
	invariant_thread.inside--;
}

int invariant_inside(void)
{
	return invariant_thread.inside;
}

void invariant_forget(void)
{
	invariant_thread.inside = 0;
	invariant_thread.lock_count = 0;
	invariant_thread.is_full = 0;
}

#endif
