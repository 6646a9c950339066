/* SPDX-License-Identifier: MIT */
/*
 * A moment without descriptors or memory. The n-th call of the kernel meets it, for every n, while the first region of
 * a runtime is opened: that is either refused with the error, or all is as without; a lesser mechanism is not taken.
 * The next region, when the moment has passed, is as in a runtime that never met it.
 */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "api.h"
#include "pace.h"
#include "place.h"
#include "refusing.h"
#include "scratch.h"
#include "support.h"
#include "watchdog.h"

#define PAGES 16
#define MOST_CALLS 5000

static const struct {
	refusing_ops ops;
	int error;
} moments[] = {
        {REFUSING_BIT(uffd_open_syscall) | REFUSING_BIT(open) | REFUSING_BIT(memfd_create), EMFILE},
        {REFUSING_BIT(uffd_open_syscall) | REFUSING_BIT(open) | REFUSING_BIT(memfd_create) | REFUSING_BIT(mmap) |
                 REFUSING_BIT(mmap_unlocked) | REFUSING_BIT(uffd_register) | REFUSING_BIT(uffd_writeprotect) |
                 REFUSING_BIT(uffd_copy) | REFUSING_BIT(uffd_continue) | REFUSING_BIT(madvise),
         ENOMEM},
        {REFUSING_BIT(pread) | REFUSING_BIT(read) | REFUSING_BIT(pagemap_scan), EINTR},
        {REFUSING_BIT(mmap_unlocked), EAGAIN},
};
#define MOMENTS ((int)(sizeof(moments) / sizeof(moments[0])))

static struct place_case which;

/* Want of memory where huge pages are mapped says that none is free, and no mechanism is tried then. */
static refusing_ops ops_of(int moment)
{
	int huge_pages = which.memory == UFFDWP_MEMORY_HUGETLB && moments[moment].error == ENOMEM;

	return moments[moment].ops &
	       ~(huge_pages ? REFUSING_BIT(mmap_unlocked) | REFUSING_BIT(uffd_copy) | REFUSING_BIT(uffd_continue) : 0);
}

/* 0 and the mechanism, or the error. */
static int try_region(struct uffdwp *runtime, const struct patch *patch, uint32_t *mechanism)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	struct uffdwp_region *region;

	options.fd = patch->fd;
	options.delivery = (uint32_t)which.delivery;
	int error = uffdwp_region_attach(runtime, patch->base, patch->length_bytes, &options, &region);

	if (error)
		return error;
	watchdog_expect(uffdwp_region_info(region, &info) == 0, "no info");
	*mechanism = info.mechanism;
	watchdog_expect(uffdwp_region_close(region) == 0, "the region cannot be closed");
	return 0;
}

static struct uffdwp *open_refusing(void)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct uffdwp *runtime = NULL;

	options.handler_threads = 1;
	watchdog_expect(api_open(&kernel_refusing, &options, &runtime) == 0, "no runtime");
	return runtime;
}

static uint64_t meet_moment(int moment, const struct patch *patch, uint32_t wanted)
{
	struct uffdwp *runtime = open_refusing();
	uint32_t first = wanted;
	uint32_t second = 0;

	refusing_set(&(struct refusal){ops_of(moment), watchdog_nth, 1, moments[moment].error});
	int error = try_region(runtime, patch, &first);
	uint64_t refused = refusing_refused();

	refusing_stop();
	watchdog_expect(error == 0 || -error == moments[moment].error || error == -ENOMEM, "another error");
	watchdog_expect(first == wanted, "the first region has a lesser mechanism");
	watchdog_expect(try_region(runtime, patch, &second) == 0, "the second region was refused");
	watchdog_expect(second == wanted, "the moment was remembered");
	watchdog_expect(uffdwp_close(runtime) == 0, "the runtime cannot be closed");
	return refused;
}

START_TEST(test_passing_want_is_not_remembered)
{
	which = place_any((enum uffdwp_memory)(_i % UFFDWP_MEMORY_COUNT));
	int moment = _i / UFFDWP_MEMORY_COUNT;

	if (!place_possible(which))
		return;
	const struct patch patch = patch_map(which.memory, which.memory == UFFDWP_MEMORY_HUGETLB ? 2 : PAGES);
	const uint32_t wanted = (uint32_t)place_mechanism(which);

	for (watchdog_nth = 1; watchdog_nth < MOST_CALLS; watchdog_nth++) {
		pace_alarm(2);
		if (!meet_moment(moment, &patch, wanted))
			break;
	}
	pace_alarm(0);
	ck_assert_uint_lt(watchdog_nth, MOST_CALLS);
	printf("%s, %s: %llu calls\n", place_memory_name(which.memory), strerror(moments[moment].error),
	       (unsigned long long)watchdog_nth - 1);
	patch_unmap(&patch);
}
END_TEST

/* The same with the real limit, which refuses all that the library opens. */
static void meet_limit(void *ignored)
{
	struct patch patch = patch_map(UFFDWP_MEMORY_SHMEM, PAGES);
	const uint32_t wanted = (uint32_t)place_mechanism(place_any(UFFDWP_MEMORY_SHMEM));
	struct rlimit usual;

	(void)ignored;
	which = place_any(UFFDWP_MEMORY_SHMEM);
	must(getrlimit(RLIMIT_NOFILE, &usual) == 0);
	for (rlim_t more = 0; more < 16; more++) {
		struct rlimit few = usual;
		struct uffdwp *runtime = NULL;
		uint32_t mechanism = wanted;

		must(uffdwp_open(NULL, &runtime) == 0);
		few.rlim_cur = scratch_open_files() + more;
		must(setrlimit(RLIMIT_NOFILE, &few) == 0);
		int error = try_region(runtime, &patch, &mechanism);

		must(setrlimit(RLIMIT_NOFILE, &usual) == 0);
		must(error == 0 || error == -EMFILE);
		must(mechanism == wanted);
		must(try_region(runtime, &patch, &mechanism) == 0);
		must(mechanism == wanted);
		must(uffdwp_close(runtime) == 0);
	}
}

START_TEST(test_passing_limit_of_descriptors_is_not_remembered)
{
	if (place_possible(place_any(UFFDWP_MEMORY_SHMEM)))
		ck_assert_int_eq(child_run(meet_limit, NULL), 0);
}
END_TEST

int main(void)
{
	support_begin("test_passing", &(struct support_needs){.huge_pages = 8, .swap = 1});
	place_begin();
	Suite *suite = suite_create("passing");
	TCase *tests = tcase_create("passing");

	tcase_set_timeout(tests, 100);
	tcase_add_checked_fixture(tests, watchdog_install, NULL);
	tcase_add_loop_test(tests, test_passing_want_is_not_remembered, 0, MOMENTS * UFFDWP_MEMORY_COUNT);
	tcase_add_test(tests, test_passing_limit_of_descriptors_is_not_remembered);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
