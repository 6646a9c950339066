/* SPDX-License-Identifier: MIT */
/*
 * No call of the library interrupts what the calling thread does afterwards: the kernel gives each thread that made an
 * io_uring, or submitted to one, work to do some time after the ring was closed, and a blocking system call then ends
 * with EINTR although there was no signal. After each call the thread sits in epoll_wait(2) of nothing, and expects the
 * time-out. That can only fail to find the fault (a machine that closes rings late), never find one that is not there.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

#define LENGTH ((size_t)1 << 20)
#define ROUNDS 6
#define SIT_MS 30

static char folder[SCRATCH_PATH];
static int nothing; /* an epoll that watches no descriptor */
static int interrupted;

static void setup(void)
{
	scratch_folder(folder);
	nothing = epoll_create1(EPOLL_CLOEXEC);
	ck_assert_int_ge(nothing, 0);
	interrupted = 0;
}

static void teardown(void)
{
	(void)close(nothing);
}

static void sit(void)
{
	struct epoll_event event;
	int result;

	while ((result = epoll_wait(nothing, &event, 1, SIT_MS)) < 0) {
		ck_assert_int_eq(errno, EINTR);
		interrupted++;
	}
	ck_assert_int_eq(result, 0);
}

static void open_region(struct uffdwp **runtime, struct uffdwp_region **region)
{
	ck_assert_int_eq(uffdwp_open(NULL, runtime), 0);
	ck_assert_int_eq(uffdwp_region_create(*runtime, LENGTH, NULL, region), 0);
}

static void close_region(struct uffdwp *runtime, struct uffdwp_region *region)
{
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}

static void take(struct uffdwp_region *region, const char *path, const char *parent)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;

	options.path = path;
	options.parent = parent;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	ck_assert_int_eq(uffdwp_snapshot_begin(region, &options, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
}

START_TEST(test_open_and_close_interrupt_nothing)
{
	struct uffdwp_region *region;
	struct uffdwp *runtime;

	for (int round = 0; round < ROUNDS; round++) {
		open_region(&runtime, &region);
		close_region(runtime, region);
		sit();
	}
	ck_assert_int_eq(interrupted, 0);
}
END_TEST

START_TEST(test_probe_interrupts_nothing)
{
	for (int round = 0; round < ROUNDS; round++) {
		struct uffdwp_probe *probe = NULL;

		ck_assert_int_eq(uffdwp_probe_run(&probe), 0);
		uffdwp_probe_free(probe);
		sit();
	}
	ck_assert_int_eq(interrupted, 0);
}
END_TEST

/* Raw images and deltas. */
START_TEST(test_snapshots_interrupt_nothing)
{
	struct uffdwp_region *region;
	struct uffdwp *runtime;
	char base[SCRATCH_PATH];
	char delta[SCRATCH_PATH];

	scratch_join(base, folder, "base");
	scratch_join(delta, folder, "delta");
	open_region(&runtime, &region);
	for (int round = 0; round < ROUNDS; round++) {
		memset(uffdwp_region_base(region), round + 1, LENGTH);
		take(region, base, NULL);
		sit();
		((char *)uffdwp_region_base(region))[0] ^= 1;
		take(region, delta, base);
		sit();
	}
	close_region(runtime, region);
	ck_assert_int_eq(interrupted, 0);
}
END_TEST

START_TEST(test_restores_interrupt_nothing)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};
	struct uffdwp_region *region;
	struct uffdwp *runtime;
	char base[SCRATCH_PATH];

	scratch_join(base, folder, "base");
	open_region(&runtime, &region);
	memset(uffdwp_region_base(region), 7, LENGTH);
	take(region, base, NULL);
	options.path = base;
	for (int round = 0; round < ROUNDS; round++) {
		ck_assert_int_eq(uffdwp_restore(region, &options, &progress), 0);
		sit();
	}
	close_region(runtime, region);
	ck_assert_int_eq(interrupted, 0);
}
END_TEST

static void merge_and_compare(const char *older, const char *newer)
{
	struct uffdwp_image_merge_options merging = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	struct uffdwp_image_diff diff = UFFDWP_IMAGE_DIFF_INIT;
	struct uffdwp_image *from = NULL;
	struct uffdwp_image *to = NULL;
	char path[SCRATCH_PATH];

	scratch_join(path, folder, "made");
	ck_assert_int_eq(uffdwp_image_open(older, NULL, &from), 0);
	ck_assert_int_eq(uffdwp_image_open(newer, NULL, &to), 0);
	for (uint32_t deltas = 0; deltas < 2; deltas++) {
		merging.deltas = deltas;
		ck_assert_int_eq(uffdwp_image_merge(to, path, &merging), 0);
		sit();
	}
	diff.path = path;
	ck_assert_int_eq(uffdwp_image_diff(from, to, &diff), 0);
	sit();
	(void)uffdwp_image_close(from);
	(void)uffdwp_image_close(to);
}

START_TEST(test_merges_and_comparisons_interrupt_nothing)
{
	struct uffdwp_region *region;
	struct uffdwp *runtime;
	char base[SCRATCH_PATH];
	char delta[SCRATCH_PATH];

	scratch_join(base, folder, "base");
	scratch_join(delta, folder, "delta");
	open_region(&runtime, &region);
	memset(uffdwp_region_base(region), 7, LENGTH);
	take(region, base, NULL);
	((char *)uffdwp_region_base(region))[0] ^= 1;
	take(region, delta, base);
	for (int round = 0; round < ROUNDS; round++)
		merge_and_compare(base, delta);
	close_region(runtime, region);
	ck_assert_int_eq(interrupted, 0);
}
END_TEST

static int uring_works(void)
{
	struct uffdwp_probe_system system = {.sz = sizeof(system)};
	struct uffdwp_probe *probe = NULL;
	int works = uffdwp_probe_run(&probe) == 0 && uffdwp_probe_system(probe, &system) == 0 && system.uring == 0;

	(void)uffdwp_probe_free(probe);
	return works;
}

int main(void)
{
	if (!uring_works()) {
		printf("not tested here: io_uring is refused\n");
		return 77;
	}
	support_begin("test_eintr", &(struct support_needs){0, 0});
	Suite *suite = suite_create("eintr");
	TCase *tests = tcase_create("eintr");
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_set_timeout(tests, 60);
	tcase_add_test(tests, test_open_and_close_interrupt_nothing);
	tcase_add_test(tests, test_probe_interrupts_nothing);
	tcase_add_test(tests, test_snapshots_interrupt_nothing);
	tcase_add_test(tests, test_restores_interrupt_nothing);
	tcase_add_test(tests, test_merges_and_comparisons_interrupt_nothing);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
