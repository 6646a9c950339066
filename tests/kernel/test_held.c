/* SPDX-License-Identifier: MIT */
/*
 * What the library does while it holds a lock, or blocks signals. Stands between it and the C library: looks at the
 * signals of threads that take a lock, and of threads that allocate.
 *
 *  - A lock is taken with signals blocked: a handler of the program that ran meanwhile might wait, at an armed page or
 *    because it stops the world, for a thread that wants the lock.
 *  - Nothing is allocated while SIGBUS or SIGSEGV is blocked: the heap may be a region of inline delivery, whose faults
 *    kill then.
 */
#include <dlfcn.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "place.h"
#include "scratch.h"
#include "support.h"
#include "tour.h"

enum { WATCH_NOTHING, WATCH_LOCKS, WATCH_MEMORY };

static _Atomic int watch;
static _Atomic unsigned looks;
static _Atomic unsigned failures;
static const char *volatile first_at;
static void *volatile first_caller;
static _Thread_local int is_inside; /* of a look */

static void *real_function(const char *name)
{
	void *found = dlsym(RTLD_NEXT, name);
	must(found != NULL);
	return found;
}

static void look(int what, void *caller)
{
	sigset_t now;

	if (atomic_load(&watch) != what || is_inside) {
		return;
	}
	is_inside = 1;
	atomic_fetch_add(&looks, 1);
	(void)pthread_sigmask(SIG_SETMASK, NULL, &now);
	int is_wrong = what == WATCH_LOCKS ? !sigismember(&now, SIGUSR1)
	                                   : sigismember(&now, SIGBUS) || sigismember(&now, SIGSEGV);
	if (is_wrong && atomic_fetch_add(&failures, 1) == 0) {
		first_at = tour_at;
		first_caller = caller;
	}
	is_inside = 0;
}

/* A function has no place in a void *, as C sees it: POSIX says that it has. */
#define REAL(type, name)                                                                                               \
	static type *real;                                                                                             \
	if (!real) {                                                                                                   \
		void *found = real_function(name);                                                                     \
		memcpy(&real, &found, sizeof(found));                                                                  \
	}

typedef int mutex_fn(pthread_mutex_t *mutex);
typedef int rwlock_fn(pthread_rwlock_t *lock);
typedef void *malloc_fn(size_t size);
typedef void free_fn(void *memory);
typedef int create_fn(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *argument);

int pthread_mutex_lock(pthread_mutex_t *mutex)
{
	REAL(mutex_fn, "pthread_mutex_lock")
	look(WATCH_LOCKS, __builtin_return_address(0));
	return real(mutex);
}

int pthread_rwlock_rdlock(pthread_rwlock_t *lock)
{
	REAL(rwlock_fn, "pthread_rwlock_rdlock")
	look(WATCH_LOCKS, __builtin_return_address(0));
	return real(lock);
}

int pthread_rwlock_wrlock(pthread_rwlock_t *lock)
{
	REAL(rwlock_fn, "pthread_rwlock_wrlock")
	look(WATCH_LOCKS, __builtin_return_address(0));
	return real(lock);
}

/* It allocates, where no stack is left of a thread that has ended. */
int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*function)(void *), void *argument)
{
	REAL(create_fn, "pthread_create")
	look(WATCH_MEMORY, __builtin_return_address(0));
	return real(thread, attributes, function, argument);
}

void *malloc(size_t size)
{
	REAL(malloc_fn, "malloc")
	look(WATCH_MEMORY, __builtin_return_address(0));
	return real(size);
}

/* Called by malloc(): dlsym() itself may call this. */
void *calloc(size_t count, size_t size)
{
	size_t bytes;
	void *memory = __builtin_mul_overflow(count, size, &bytes) ? NULL : malloc(bytes);
	return memory ? memset(memory, 0, bytes) : NULL;
}

void free(void *memory)
{
	REAL(free_fn, "free")
	look(WATCH_MEMORY, __builtin_return_address(0));
	real(memory);
}

static void tour_watching(int what)
{
	char folder[SCRATCH_PATH];
	scratch_folder(folder);
	atomic_store(&watch, what);
	tour_run(folder);
	atomic_store(&watch, WATCH_NOTHING);
	unsigned seen = atomic_load(&looks);
	ck_assert_uint_gt(seen, 0);
	if (atomic_load(&failures)) {
		ck_abort_msg("%u times, the first in uffdwp_%s() at %p", atomic_load(&failures), first_at,
		             first_caller);
	}
}

START_TEST(test_locks_are_held_with_signals_blocked)
{
	tour_watching(WATCH_LOCKS);
}
END_TEST

START_TEST(test_nothing_is_allocated_while_fault_signals_are_blocked)
{
	tour_watching(WATCH_MEMORY);
}
END_TEST

int main(void)
{
	support_begin("test_held", &(struct support_needs){0});
	place_begin();
	const char *sanitizers = getenv("UFFDWP_SANITIZE");
	if (sanitizers && *sanitizers) {
		return support_skip("a sanitizer stands between the library and the C library itself");
	}
	Suite *suite = suite_create("held");
	TCase *tests = tcase_create("held");
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, test_locks_are_held_with_signals_blocked);
	tcase_add_test(tests, test_nothing_is_allocated_while_fault_signals_are_blocked);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
