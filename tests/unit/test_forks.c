/* SPDX-License-Identifier: MIT */
/*
 * A thread of the parent holds a lock of the library while another thread forks: the child, which has no thread that
 * could give it back, takes it all the same. For each lock that lives as long as the process: the holder stands at a
 * gate inside of it, and the child must come to its end: a child that waits is ended by the limit of the test.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "base/forks.h"
#include "base/text.h"
#include "base/trace.h"
#include "fault/runtime.h"
#include "gate.h"
#include "snapshot/nbdlink.h"
#include "support.h"
#include "track/track.h"

static struct gate gate;
static _Atomic int passes; /* calls go on, as they do in the child */
static _Atomic int entered;

/* The library's thread stands here with the lock. */
static void forks_stand(void)
{
	if (!atomic_load(&passes)) {
		gate_pass(&gate);
	} else {
		atomic_store(&entered, 1);
	}
}

/* --- the locks --------------------------------------------------------------------------------------------------- */

static void forks_log(void *unused, const char *line)
{
	(void)unused;
	(void)line;
	forks_stand();
}

static void *forks_trace(void *unused)
{
	trace_line("a line");
	return unused;
}

/* Replacing the function waits for calls of the one before; then a line is passed on. */
static void *forks_log_anew(void *unused)
{
	trace_to(forks_log, NULL);
	trace_line("another line");
	return unused;
}

static int forks_open(const char *path, int flags, uint32_t mode)
{
	(void)path;
	return kernel_real.open("/dev/null", flags, mode);
}

static ssize_t forks_write(int fd, const void *bytes, size_t length)
{
	(void)fd;
	(void)bytes;
	forks_stand();
	return (ssize_t)length;
}

/* The track has no region, so that nothing but the lock is taken. */
static void *forks_harvest(void *unused)
{
	static struct kernel_ops ops;
	static struct uffdwp runtime;
	struct uffdwp_track track = {.k = &ops, .runtime = &runtime};
	ops = kernel_real;
	ops.open = forks_open;
	ops.write = forks_write;
	runtime.k = &ops;
	runtime.pagemap = -1;
	must(soft_dirty_harvest(&track) == 0);
	return unused;
}

/* What the library loads libnbd by. */
void *dlopen(const char *name, int flags)
{
	typedef void *dlopen_fn(const char *name, int flags);
	static dlopen_fn *real;
	if (name != NULL && strstr(name, "libnbd") != NULL) {
		forks_stand();
		return NULL;
	}
	if (real == NULL) {
		void *found = dlsym(RTLD_NEXT, "dlopen");
		must(found != NULL);
		memcpy(&real, &found, sizeof(found));
	}
	return real(name, flags);
}

#if SUPPORT_NBD
static void *forks_link(void *unused)
{
	struct nbdlink link;
	struct text text;
	text_init(&text);
	must(nbdlink_open("nbd://localhost", &text, &link) == -EOPNOTSUPP);
	text_fini(&text);
	return unused;
}
#endif

static const struct {
	const char *name;
	void *(*hold)(void *unused);
	void *(*take)(void *unused);
} locks[] = {
        {"of the log, for reading", forks_trace, forks_log_anew},
        {"of soft-dirty", forks_harvest, forks_harvest},
#if SUPPORT_NBD
        {"of loading libnbd", forks_link, forks_link},
#endif
};
#define LOCKS ((int)(sizeof(locks) / sizeof(locks[0])))

/* --- the child --------------------------------------------------------------------------------------------------- */

static void forks_take(void *index)
{
	atomic_store(&passes, 1);
	(void)locks[*(const int *)index].take(NULL);
	must(atomic_load(&entered)); /* the lock was taken: what is done with it was done */
}

START_TEST(test_a_lock_that_a_thread_held_at_the_fork_is_free_in_the_child)
{
	int index = _i;
	gate = (struct gate)GATE_INIT;
	ck_assert_int_eq(forks_watch(), 0);
	trace_to(forks_log, NULL);
	pthread_t holder = thread_start(locks[_i].hold, NULL);
	gate_await(&gate);
	int status = child_run(forks_take, &index);
	ck_assert_msg(status == 0, "the lock %s: the child ended with status %#x", locks[_i].name, (unsigned)status);
	gate_open(&gate);
	thread_join(holder);
	trace_to(NULL, NULL);
}
END_TEST

/* --- the table --------------------------------------------------------------------------------------------------- */

static int runs[2];

static void forks_run_first(void)
{
	runs[0]++;
}

static void forks_run_second(void)
{
	runs[1]++;
}

static void forks_expect_runs(void *expected)
{
	must(memcmp(runs, expected, sizeof(runs)) == 0);
}

START_TEST(test_what_is_added_runs_once_in_a_child_and_never_in_its_parent)
{
	static int expected[2] = {1, 0};
	forks_add(forks_run_first);
	forks_add(forks_run_first);
	ck_assert_int_eq(forks_watch(), 0);
	ck_assert_int_eq(forks_watch(), 0);
	ck_assert_int_eq(child_run(forks_expect_runs, expected), 0);
	expected[1] = 1;
	forks_add(forks_run_second); /* also what is added after the watch */
	ck_assert_int_eq(child_run(forks_expect_runs, expected), 0);
	ck_assert_int_eq(runs[0] + runs[1], 0);
}
END_TEST

int main(void)
{
	support_begin(TEST_NAME, &(struct support_needs){0, 0});
	Suite *suite = suite_create(TEST_NAME);
	TCase *tests = tcase_create("forks");
	tcase_add_loop_test(tests, test_a_lock_that_a_thread_held_at_the_fork_is_free_in_the_child, 0, LOCKS);
	tcase_add_test(tests, test_what_is_added_runs_once_in_a_child_and_never_in_its_parent);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
