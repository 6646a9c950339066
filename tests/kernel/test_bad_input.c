/* SPDX-License-Identifier: MIT */
/*
 * Every error that uffdwp.h states for bad arguments and bad memory: the right errno, a text that says something, the
 * output untouched, and nothing changed: no armed page, and a region that was there works as before. What has to do
 * with the files of snapshots is in test_bad_sink.c, a kernel that refuses in test_no_kernel.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "place.h"
#include "scratch.h"
#include "support.h"

#define PAGES 4

static struct place place;
static size_t page;
static struct uffdwp_region *const untouched = (struct uffdwp_region *)&place;

static void setup(void)
{
	page = place_page_bytes(UFFDWP_MEMORY_SHMEM);
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES);
	place_touch(&place);
}

static void expect_region_works(void)
{
	place_expect_armed(&place, 0);
	uint64_t before = place_stats(&place).faults;
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
	*(volatile uint8_t *)place.base = 1;
	ck_assert_uint_eq(place_faults(&place, before + 1), before + 1);
	ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, place.length_bytes), 0);
}

static void teardown(void)
{
	expect_region_works();
	place_close(&place);
}

static void expect_text(void)
{
	char text[256] = "";
	size_t length = uffdwp_error_text(text, sizeof(text));
	ck_assert_uint_gt(length, 8);
	ck_assert_uint_eq(strlen(text), length < sizeof(text) ? length : sizeof(text) - 1);
	char little[4] = "zzz";
	ck_assert_uint_eq(uffdwp_error_text(little, sizeof(little)), length);
	ck_assert_uint_eq(strlen(little), 3);
}

/* --- opening -------------------------------------------------------------------------------------------------- */

static void expect_open_refused(const struct uffdwp_options *options, int error)
{
	struct uffdwp *runtime = (struct uffdwp *)&place;
	size_t files = scratch_open_files();
	ck_assert_int_eq(uffdwp_open(options, &runtime), error);
	ck_assert_ptr_eq(runtime, (struct uffdwp *)&place);
	ck_assert_uint_eq(scratch_open_files(), files);
	expect_text();
}

START_TEST(test_open_refuses_what_it_does_not_know)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	options.flags = 1u << 30;
	expect_open_refused(&options, -EINVAL);
	options = (struct uffdwp_options)UFFDWP_OPTIONS_INIT;
	options.handler_threads = 65;
	expect_open_refused(&options, -EINVAL);
	options = (struct uffdwp_options)UFFDWP_OPTIONS_INIT;
	options.numa_nodes = 1ull << 63;
	expect_open_refused(&options, SUPPORT_NUMA ? -EINVAL : -EOPNOTSUPP);
}
END_TEST

START_TEST(test_open_refuses_a_bad_cpu_list)
{
	static const char *const lists[] = {"x", "3-1", "0-", ",", "0,,1", "100000", "-1", "0 1"};
	for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
		struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
		options.handler_cpus = lists[i];
		expect_open_refused(&options, -EINVAL);
	}
}
END_TEST

/* A list that is none is refused by its text, this one by the kernel, when the thread is there already. */
START_TEST(test_open_refuses_cpus_that_are_not_there)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	options.handler_cpus = "1023";
	if (sysconf(_SC_NPROCESSORS_CONF) <= 1000) {
		expect_open_refused(&options, -EINVAL);
	}
}
END_TEST

/* Structure sizes: too small -EINVAL, an unknown tail is taken when it is zero and refused when it is not. */
START_TEST(test_open_options_may_grow)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	options.sz = sizeof(size_t) - 1;
	expect_open_refused(&options, -EINVAL);
	options.sz = 0;
	expect_open_refused(&options, -EINVAL);
	_Alignas(8) uint8_t larger[sizeof(struct uffdwp_options) + 16] = {0};
	options.sz = sizeof(larger);
	memcpy(larger, &options, sizeof(options));
	struct uffdwp *runtime = NULL;
	ck_assert_int_eq(uffdwp_open((void *)larger, &runtime), 0);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	larger[sizeof(larger) - 1] = 1;
	expect_open_refused((void *)larger, -E2BIG);
}
END_TEST

START_TEST(test_region_and_snapshot_options_may_grow)
{
	_Alignas(8) uint8_t larger[sizeof(struct uffdwp_region_options) + 16] = {0};
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.sz = sizeof(larger);
	memcpy(larger, &options, sizeof(options));
	struct uffdwp_region *region = NULL;
	ck_assert_int_eq(uffdwp_region_create(place.runtime, page, (void *)larger, &region), 0);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	larger[sizeof(larger) - 2] = 9;
	region = untouched;
	ck_assert_int_eq(uffdwp_region_create(place.runtime, page, (void *)larger, &region), -E2BIG);
	options.sz = 3;
	ck_assert_int_eq(uffdwp_region_create(place.runtime, page, &options, &region), -EINVAL);
	ck_assert_ptr_eq(region, untouched);
	_Alignas(8) uint8_t longer[sizeof(struct uffdwp_snapshot_options) + 16] = {0};
	struct uffdwp_snapshot_options want = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	want.sz = sizeof(longer);
	memcpy(longer, &want, sizeof(want));
	longer[sizeof(longer) - 1] = 1;
	struct uffdwp_snapshot *snapshot = NULL;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, (void *)longer, &snapshot), -E2BIG);
	want.sz = 1;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &want, &snapshot), -EINVAL);
	ck_assert_ptr_null(snapshot);
}
END_TEST

START_TEST(test_answers_with_a_size_too_small_are_refused)
{
	struct uffdwp_region_info info = {.sz = 4};
	ck_assert_int_eq(uffdwp_region_info(place.region, &info), -EINVAL);
	struct uffdwp_region_stats stats = {.sz = 4};
	ck_assert_int_eq(uffdwp_region_stats(place.region, &stats), -EINVAL);
}
END_TEST

/* --- creating ------------------------------------------------------------------------------------------------- */

static void expect_create_refused(size_t length, const struct uffdwp_region_options *options, int error)
{
	struct uffdwp_region *region = untouched;
	size_t files = scratch_open_files();
	ck_assert_int_eq(uffdwp_region_create(place.runtime, length, options, &region), error);
	ck_assert_ptr_eq(region, untouched);
	ck_assert_uint_eq(scratch_open_files(), files);
	expect_text();
}

START_TEST(test_create_refuses_bad_lengths)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	expect_create_refused(0, NULL, -EINVAL);
	expect_create_refused(page + 1, NULL, -EINVAL);
	options.capacity_bytes = page;
	expect_create_refused(2 * page, &options, -EINVAL);
	options.capacity_bytes = 2 * page + 7;
	expect_create_refused(page, &options, -EINVAL);
	struct uffdwp_region *region = untouched;
	int error = uffdwp_region_create(place.runtime, SIZE_MAX & ~(page - 1), NULL, &region);
	ck_assert(error == -EOVERFLOW || error == -ENOMEM);
	ck_assert_ptr_eq(region, untouched);
}
END_TEST

START_TEST(test_create_refuses_bad_options)
{
	struct uffdwp_region_options good = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region_options options = good;
	options.flags = 1u << 20;
	expect_create_refused(page, &options, -EINVAL);
	options = good;
	options.mechanism = 77;
	expect_create_refused(page, &options, -EINVAL);
	options = good;
	options.delivery = 3;
	expect_create_refused(page, &options, -EINVAL);
	options = good;
	options.numa = 3;
	expect_create_refused(page, &options, -EINVAL);
	options = good;
	options.numa = UFFDWP_NUMA_BIND;
	options.numa_nodes = (uint64_t)1 << 63;
	expect_create_refused(page, &options, SUPPORT_NUMA ? -EINVAL : -EOPNOTSUPP);
	options.numa_nodes = 0;
	expect_create_refused(page, &options, -EINVAL);
	options = good;
	options.reserved = 5;
	expect_create_refused(page, &options, -EINVAL);
}
END_TEST

START_TEST(test_create_refuses_huge_pages_that_are_not_there)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.flags = UFFDWP_REGION_CREATE_HUGETLB;
	size_t huge = place_page_bytes(UFFDWP_MEMORY_HUGETLB);
	expect_create_refused(huge / 2, &options, -EINVAL);
	expect_create_refused(huge << 20, &options, -ENOMEM);
	options.huge_page_bytes = 12345;
	expect_create_refused(huge, &options, -EINVAL);
}
END_TEST

/* --- attaching ------------------------------------------------------------------------------------------------ */

static void expect_attach_refused(void *address, size_t length, const struct uffdwp_region_options *options, int error)
{
	struct uffdwp_region *region = untouched;
	size_t files = scratch_open_files();
	int result = uffdwp_region_attach(place.runtime, address, length, options, &region);
	ck_assert_int_eq(result, error);
	ck_assert_ptr_eq(region, untouched);
	ck_assert_uint_eq(scratch_open_files(), files);
	expect_text();
}

START_TEST(test_attach_refuses_bad_ranges)
{
	struct patch patch = patch_map((enum uffdwp_memory)_i, 2);
	expect_attach_refused(patch.base, 0, NULL, -EINVAL);
	expect_attach_refused(patch.base + 1, patch.page_bytes, NULL, -EINVAL);
	expect_attach_refused(patch.base, patch.page_bytes + 1, NULL, -EINVAL);
	expect_attach_refused(patch.base, SIZE_MAX & ~(page - 1), NULL, -EINVAL);
	expect_attach_refused(NULL, page, NULL, -EINVAL);
	patch_unmap(&patch);
}
END_TEST

START_TEST(test_attach_refuses_part_of_a_huge_page)
{
	if (!support_has_huge_pages()) {
		return;
	}
	struct patch patch = patch_map(UFFDWP_MEMORY_HUGETLB, 1);
	expect_attach_refused(patch.base, page, NULL, -EINVAL);
	expect_attach_refused(patch.base + page, patch.page_bytes - page, NULL, -EINVAL);
	patch_unmap(&patch);
}
END_TEST

START_TEST(test_attach_refuses_gaps)
{
	struct patch patch = patch_map((enum uffdwp_memory)_i, 3);
	ck_assert_int_eq(munmap(patch.base + page, page), 0);
	expect_attach_refused(patch.base, 3 * page, NULL, -ENOENT);
	expect_attach_refused(patch.base + page, page, NULL, -ENOENT);
	patch_unmap(&patch);
	expect_attach_refused(patch.base, page, NULL, -ENOENT);
}
END_TEST

START_TEST(test_attach_refuses_read_only_memory)
{
	struct patch patch = patch_map((enum uffdwp_memory)_i, 2);
	ck_assert_int_eq(mprotect(patch.base + page, page, PROT_READ), 0);
	expect_attach_refused(patch.base, 2 * page, NULL, -EACCES);
	ck_assert_int_eq(mprotect(patch.base, 2 * page, PROT_NONE), 0);
	expect_attach_refused(patch.base, 2 * page, NULL, -EACCES);
	patch_unmap(&patch);
}
END_TEST

START_TEST(test_attach_refuses_a_file_on_disk)
{
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	scratch_folder(folder);
	scratch_join(path, folder, "file");
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	ck_assert_int_ge(fd, 0);
	ck_assert_int_eq(ftruncate(fd, (off_t)page), 0);
	void *shared = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	void *private = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
	expect_attach_refused(shared, page, NULL, -EMEDIUMTYPE);
	expect_attach_refused(private, page, NULL, -EMEDIUMTYPE);
	close(fd);
}
END_TEST

START_TEST(test_attach_refuses_mixed_memory)
{
	struct patch patch = patch_map(UFFDWP_MEMORY_SHMEM, 2);
	void *mixed =
	        mmap(patch.base + page, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	ck_assert_ptr_eq(mixed, patch.base + page);
	expect_attach_refused(patch.base, 2 * page, NULL, -EINVAL);
	patch_unmap(&patch);
}
END_TEST

START_TEST(test_attach_refuses_closed_and_foreign_descriptors)
{
	struct patch patch = patch_map(UFFDWP_MEMORY_SHMEM, 2);
	struct patch other = patch_map(UFFDWP_MEMORY_SHMEM, 2);
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.fd = 1000; /* closed */
	expect_attach_refused(patch.base, 2 * page, &options, -EBADF);
	options.fd = other.fd;
	expect_attach_refused(patch.base, 2 * page, &options, -EINVAL);
	options.fd = patch.fd;
	options.fd_offset = page;
	expect_attach_refused(patch.base, 2 * page, &options, -EINVAL);
	patch_unmap(&patch);
	patch_unmap(&other);
}
END_TEST

START_TEST(test_attach_refuses_overlapping_regions)
{
	expect_attach_refused(place.base, place.length_bytes, NULL, -EBUSY);
	expect_attach_refused(place.base + page, page, NULL, -EBUSY);
	struct uffdwp *other = NULL;
	struct uffdwp_region *region = untouched;
	ck_assert_int_eq(uffdwp_open(NULL, &other), 0);
	ck_assert_int_eq(uffdwp_region_attach(other, place.base, page, NULL, &region), -EBUSY);
	ck_assert_ptr_eq(region, untouched);
	expect_text();
	ck_assert_int_eq(uffdwp_close(other), 0);
}
END_TEST

START_TEST(test_attach_refuses_memory_of_another_userfaultfd)
{
	/* Anonymous, which every kernel watches by a userfaultfd of its own. */
	struct patch patch = patch_map(UFFDWP_MEMORY_ANON, 2);
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY);
	if (uffd < 0 && errno == EINVAL) { /* before 5.11 */
		uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	}
	if (uffd < 0) {
		support_note(__func__, strerror(errno));
		patch_unmap(&patch);
		return;
	}
	struct uffdio_api api = {.api = UFFD_API};
	ck_assert_int_eq(ioctl(uffd, UFFDIO_API, &api), 0);
	struct uffdio_register reg = {{(uintptr_t)patch.base, patch.length_bytes}, UFFDIO_REGISTER_MODE_MISSING, 0};
	ck_assert_int_eq(ioctl(uffd, UFFDIO_REGISTER, &reg), 0);
	expect_attach_refused(patch.base, 2 * page, NULL, -EBUSY);
	close(uffd);
	patch_unmap(&patch);
}
END_TEST

START_TEST(test_attach_refuses_bad_options)
{
	struct patch patch = patch_map(UFFDWP_MEMORY_SHMEM, 1);
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.flags = 1u << 9;
	expect_attach_refused(patch.base, page, &options, -EINVAL);
	options.flags = 0;
	options.delivery = 9;
	expect_attach_refused(patch.base, page, &options, -EINVAL);
	patch_unmap(&patch);
}
END_TEST

/* --- ranges of a region --------------------------------------------------------------------------------------- */

static int count_armed(struct uffdwp_region *region, uint64_t offset, uint64_t length)
{
	uint64_t pages = 4711;
	int result = uffdwp_region_armed(region, offset, length, &pages);
	ck_assert(result == 0 || pages == 4711);
	return result;
}

START_TEST(test_ranges_are_checked)
{
	int (*const calls[])(struct uffdwp_region *, uint64_t, uint64_t) = {uffdwp_region_arm, uffdwp_region_disarm,
	                                                                    uffdwp_region_punch, count_armed};
	for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
		ck_assert_int_eq(calls[i](place.region, 0, 0), -EINVAL);
		ck_assert_int_eq(calls[i](place.region, 1, page), -EINVAL);
		ck_assert_int_eq(calls[i](place.region, 0, page - 1), -EINVAL);
		ck_assert_int_eq(calls[i](place.region, place.length_bytes, page), -ERANGE);
		ck_assert_int_eq(calls[i](place.region, page, place.length_bytes), -ERANGE);
		int wrapped = calls[i](place.region, page, UINT64_MAX & ~((uint64_t)page - 1));
		ck_assert(wrapped == -ERANGE || wrapped == -EOVERFLOW || wrapped == -EINVAL);
		expect_text();
	}
}
END_TEST

START_TEST(test_grow_and_punch_refuse_attached_memory_without_its_file)
{
	struct place attached;
	struct place_case which = place_any(UFFDWP_MEMORY_SHMEM);
	if (place_needs_fd(which)) {
		which.mechanism = UFFDWP_MECHANISM_MPROTECT;
	}
	place_attach(&attached, which, 2, 0);
	place_touch(&attached);
	ck_assert_int_eq(uffdwp_region_grow(attached.region, 4 * page), -EOPNOTSUPP);
	ck_assert_int_eq(uffdwp_region_punch(attached.region, 0, page), -EOPNOTSUPP);
	ck_assert_uint_eq(attached.base[0], 1);
	expect_text();
	place_close(&attached);
}
END_TEST

START_TEST(test_nowhere_to_put_a_handle_is_refused)
{
	ck_assert_int_eq(uffdwp_open(NULL, NULL), -EINVAL);
	ck_assert_int_eq(uffdwp_region_create(place.runtime, page, NULL, NULL), -EINVAL);
	ck_assert_int_eq(uffdwp_region_attach(place.runtime, place.base, page, NULL, NULL), -EINVAL);
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, NULL, NULL), -EINVAL);
	ck_assert_ptr_null(uffdwp_region_locate(NULL));
}
END_TEST

int main(void)
{
	support_begin("test_bad_input", &(struct support_needs){.huge_pages = 4, .swap = 0});
	place_begin();
	Suite *suite = suite_create("bad input");
	TCase *tests = tcase_create("bad input");
	tcase_set_timeout(tests, 60);
	tcase_add_checked_fixture(tests, setup, teardown);
	tcase_add_test(tests, test_open_refuses_what_it_does_not_know);
	tcase_add_test(tests, test_open_refuses_a_bad_cpu_list);
	tcase_add_test(tests, test_open_refuses_cpus_that_are_not_there);
	tcase_add_test(tests, test_open_options_may_grow);
	tcase_add_test(tests, test_region_and_snapshot_options_may_grow);
	tcase_add_test(tests, test_answers_with_a_size_too_small_are_refused);
	tcase_add_test(tests, test_create_refuses_bad_lengths);
	tcase_add_test(tests, test_create_refuses_bad_options);
	tcase_add_test(tests, test_create_refuses_huge_pages_that_are_not_there);
	tcase_add_loop_test(tests, test_attach_refuses_bad_ranges, 0, 1);
	tcase_add_loop_test(tests, test_attach_refuses_bad_ranges, 2, 3);
	tcase_add_test(tests, test_attach_refuses_part_of_a_huge_page);
	tcase_add_loop_test(tests, test_attach_refuses_gaps, 0, 1);
	tcase_add_loop_test(tests, test_attach_refuses_gaps, 2, 3);
	tcase_add_loop_test(tests, test_attach_refuses_read_only_memory, 0, 1);
	tcase_add_loop_test(tests, test_attach_refuses_read_only_memory, 2, 3);
	tcase_add_test(tests, test_attach_refuses_a_file_on_disk);
	tcase_add_test(tests, test_attach_refuses_mixed_memory);
	tcase_add_test(tests, test_attach_refuses_closed_and_foreign_descriptors);
	tcase_add_test(tests, test_attach_refuses_overlapping_regions);
	tcase_add_test(tests, test_attach_refuses_memory_of_another_userfaultfd);
	tcase_add_test(tests, test_attach_refuses_bad_options);
	tcase_add_test(tests, test_ranges_are_checked);
	tcase_add_test(tests, test_grow_and_punch_refuse_attached_memory_without_its_file);
	tcase_add_test(tests, test_nowhere_to_put_a_handle_is_refused);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
