/* SPDX-License-Identifier: MIT */
/*
 * Modes of a whole process that change what memory does: after mlockall(MCL_FUTURE) new mappings are locked and
 * populated. The probe finds the same ladder as without them, and regions, tracks and views work as they do elsewhere.
 *
 * Each mode is set in a child of its own, and ends with it.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kernel/probe.h"
#include "place.h"
#include "support.h"

#define PAGES 64
#define PROBE_BYTES_MOST (256ul << 20) /* that the probe may have in memory at once */

#ifndef PR_SET_MEMORY_MERGE /* linux/prctl.h, 6.4 */
#define PR_SET_MEMORY_MERGE 67
#endif
#ifndef PR_SET_MDWE /* linux/prctl.h, 6.3 */
#define PR_SET_MDWE 65
#define PR_MDWE_REFUSE_EXEC_GAIN 1ul
#endif

static int set_nothing(void)
{
	return 0;
}

/* The call of a user without rights succeeds, and what is mapped after it is refused beyond the limit. */
static int lock_all(int flags)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	struct rlimit limit;
	if (mlockall(flags) != 0 || getrlimit(RLIMIT_MEMLOCK, &limit) != 0)
		return -1;
	if (limit.rlim_cur == RLIM_INFINITY)
		return 0;
	size_t length = (size_t)limit.rlim_cur / page * page + page;
	void *beyond = mmap(NULL, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	return beyond == MAP_FAILED ? -1 : munmap(beyond, length);
}

static int set_locked(void)
{
	return lock_all(MCL_FUTURE);
}

static int set_locked_on_fault(void)
{
	return lock_all(MCL_FUTURE | MCL_ONFAULT);
}

static int set_no_huge_pages(void)
{
	return prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0);
}

static int set_merged(void)
{
	return prctl(PR_SET_MEMORY_MERGE, 1, 0, 0, 0);
}

static int set_no_new_code(void)
{
	return prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0);
}

static const struct mode {
	const char *name;
	int (*set)(void);
} modes[] = {
        {"nothing", set_nothing},
        {"mlockall(MCL_FUTURE)", set_locked},
        {"mlockall(MCL_FUTURE | MCL_ONFAULT)", set_locked_on_fault},
        {"PR_SET_THP_DISABLE", set_no_huge_pages},
        {"PR_SET_MEMORY_MERGE", set_merged},
        {"PR_SET_MDWE", set_no_new_code},
};
#define MODES ((int)(sizeof(modes) / sizeof(modes[0])))

static const struct mode *mode;

/* 0: this process cannot be put into the mode. */
static int enter_mode(void)
{
	if (mode->set() == 0)
		return 1;
	printf("not tested here: %s: %s\n", mode->name, strerror(errno));
	return 0;
}

/* ---- the ladder ---- */

static void expect_same_ladder(const struct probe_report *before, const struct probe_report *after)
{
	for (int memory = 0; memory < UFFDWP_MEMORY_COUNT; memory++) {
		const struct probe_memory *was = &before->memory[memory];
		const struct probe_memory *is = &after->memory[memory];

		for (int i = 1; i < UFFDWP_MECHANISM_COUNT; i++) {
			if (was->rungs[i].works != is->rungs[i].works)
				printf("%s: memory %d, mechanism %d: %s\n", mode->name, memory, i, is->rungs[i].reason);
			must(was->rungs[i].works == is->rungs[i].works);
		}
		must(was->mechanism == is->mechanism);
		must(memcmp(was->answers, is->answers, sizeof(was->answers)) == 0);
	}
	must(before->pagemap_bit57 == after->pagemap_bit57);
	must(before->scan_holes == after->scan_holes);
}

static void probe_in_mode(void *ignored)
{
	static struct probe_report report;
	struct rusage used;

	(void)ignored;
	if (!enter_mode())
		return;
	must(probe_run(&kernel_real, &report) == 0);
	expect_same_ladder(place_report(), &report);
	must(getrusage(RUSAGE_SELF, &used) == 0);
	must((unsigned long)used.ru_maxrss * 1024 < PROBE_BYTES_MOST);
}

START_TEST(test_ladder_is_the_same_in_every_mode)
{
	mode = &modes[_i];
	ck_assert_int_eq(child_run(probe_in_mode, NULL), 0);
}
END_TEST

/* ---- regions ---- */

static struct place_case which;

static struct uffdwp_region *region_in_mode(struct uffdwp *runtime, struct patch *patch)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region *region = NULL;

	*patch = patch_map(which.memory, which.memory == UFFDWP_MEMORY_HUGETLB ? 2 : PAGES);
	options.mechanism = (uint32_t)which.mechanism;
	options.delivery = (uint32_t)which.delivery;
	options.fd = patch->fd;
	memset(patch->base, 1, patch->length_bytes);
	must(uffdwp_region_attach(runtime, patch->base, patch->length_bytes, &options, &region) == 0);
	return region;
}

static void take_snapshot(struct uffdwp_region *region, const struct patch *patch, int *seen)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	int pipes[2];

	must(pipe(pipes) == 0);
	options.sink = UFFDWP_SINK_STREAM;
	options.fd = pipes[1];
	must(uffdwp_snapshot_begin(region, &options, &snapshot) == 0);
	for (size_t at = 0; at < patch->length_bytes; at += patch->page_bytes)
		((volatile uint8_t *)patch->base)[at] = 2;
	for (size_t at = 0; at < patch->length_bytes;) {
		uint8_t bytes[4096];
		ssize_t got = read(pipes[0], bytes, sizeof(bytes));

		must(got > 0);
		for (ssize_t i = 0; i < got; i++)
			*seen += bytes[i] != 1;
		at += (size_t)got;
	}
	must(uffdwp_snapshot_wait(snapshot, -1, NULL) == 0);
	must(uffdwp_snapshot_free(snapshot) == 0);
	close(pipes[0]);
	close(pipes[1]);
}

/* The second witness of what was preserved is the bytes themselves. */
static void snapshot_in_mode(void *ignored)
{
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region;
	struct patch patch;
	int wrong = 0;

	(void)ignored;
	if (!enter_mode())
		return;
	must(uffdwp_open(NULL, &runtime) == 0);
	region = region_in_mode(runtime, &patch);
	take_snapshot(region, &patch, &wrong);
	must(wrong == 0);
	must(uffdwp_region_punch(region, 0, patch.page_bytes) == 0);
	must(patch.base[0] == 0);
	must(uffdwp_region_close(region) == 0);
	must(uffdwp_close(runtime) == 0);
}

START_TEST(test_snapshot_is_right_in_every_mode)
{
	mode = &modes[_i / PLACE_CASES];
	which = place_case(_i % PLACE_CASES);
	if (place_possible(which))
		ck_assert_int_eq(child_run(snapshot_in_mode, NULL), 0);
}
END_TEST

/* ---- views ---- */

/* Holes of the file stay holes when a view is mapped beside them. */
static void view_in_mode(void *ignored)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region *region = NULL;
	struct uffdwp *runtime = NULL;
	struct uffdwp_view *view = NULL;
	const struct patch patch = patch_map(UFFDWP_MEMORY_SHMEM, PAGES);
	unsigned char present[PAGES];

	(void)ignored;
	options.fd = patch.fd;
	patch.base[0] = 1;
	if (!enter_mode())
		return;
	must(uffdwp_open(NULL, &runtime) == 0);
	must(uffdwp_region_attach(runtime, patch.base, patch.length_bytes, &options, &region) == 0);
	must(uffdwp_view_open(region, NULL, &view) == 0);
	memset(present, 0, sizeof(present));
	must(mincore(patch.base, patch.length_bytes, present) == 0);
	for (size_t page = 1; page < PAGES; page++)
		must(!(present[page] & 1));
	must(uffdwp_view_close(view) == 0);
	must(uffdwp_region_close(region) == 0);
	must(uffdwp_close(runtime) == 0);
}

START_TEST(test_view_fills_no_holes_in_any_mode)
{
	mode = &modes[_i];
	ck_assert_int_eq(child_run(view_in_mode, NULL), 0);
}
END_TEST

int main(void)
{
	support_begin("test_modes", &(struct support_needs){.huge_pages = 8, .swap = 1});
	place_begin();
	Suite *suite = suite_create("modes");
	TCase *tests = tcase_create("modes");

	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_ladder_is_the_same_in_every_mode, 0, MODES);
	tcase_add_loop_test(tests, test_snapshot_is_right_in_every_mode, 0, MODES * PLACE_CASES);
	tcase_add_loop_test(tests, test_view_fills_no_holes_in_any_mode, 0, MODES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
