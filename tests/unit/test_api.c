/* SPDX-License-Identifier: MIT */
/*
 * The public interface where no userfaultfd is needed: versions, the words' numbers (which never change), initial
 * values of option structures, and what uffdwp_open() says of a kernel that refuses it, played by the refusing table.
 */
#include <errno.h>
#include <string.h>

#include "api.h"
#include "refusing.h"
#include "scratch.h"
#include "support.h"
#include "uffdwp.h"

START_TEST(test_version_of_header_and_library_agree)
{
	char text[32];
	(void)snprintf(text, sizeof(text), "%d.%d.%d", UFFDWP_VERSION_MAJOR, UFFDWP_VERSION_MINOR,
	               UFFDWP_VERSION_PATCH);
	ck_assert_str_eq(uffdwp_version(), text);
}
END_TEST

START_TEST(test_initial_values_are_the_defaults)
{
	struct uffdwp_options open = UFFDWP_OPTIONS_INIT;
	ck_assert_uint_eq(open.sz, sizeof(open));
	ck_assert_uint_eq(open.flags, 0);
	ck_assert_ptr_null(open.handler_cpus);
	ck_assert_uint_eq(open.numa_nodes, 0);
	struct uffdwp_region_options region = UFFDWP_REGION_OPTIONS_INIT;
	ck_assert_uint_eq(region.sz, sizeof(region));
	ck_assert_uint_eq(region.delivery, UFFDWP_DELIVERY_AUTO);
	ck_assert_uint_eq(region.mechanism, UFFDWP_MECHANISM_AUTO);
	ck_assert_ptr_null(region.name);
	ck_assert_int_eq(region.fd, 0);
	struct uffdwp_snapshot_options snapshot = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	ck_assert_uint_eq(snapshot.sz, sizeof(snapshot));
	ck_assert_uint_eq(snapshot.sink, UFFDWP_SINK_IMAGE);
	ck_assert_uint_eq(snapshot.policy, UFFDWP_POLICY_WAIT);
	ck_assert_ptr_null(snapshot.path);
	ck_assert_int_eq(snapshot.fd, 0);
	ck_assert_ptr_null(snapshot.user);
}
END_TEST

START_TEST(test_numbers_of_the_words_never_change)
{
	ck_assert_int_eq(UFFDWP_MEMORY_HUGETLB, 1);
	ck_assert_int_eq(UFFDWP_MEMORY_ANON, 2);
	ck_assert_int_eq(UFFDWP_MECHANISM_MARKER, 1);
	ck_assert_int_eq(UFFDWP_DELIVERY_INLINE, 2);
	ck_assert_int_eq(UFFDWP_POLICY_ABORT, 1);
	ck_assert_int_eq(UFFDWP_SINK_STREAM, 1);
	ck_assert_int_eq(UFFDWP_SINK_CALLBACK, 2);
	ck_assert_int_eq(UFFDWP_SINK_NBD, 3);
	ck_assert_int_eq(UFFDWP_SNAPSHOT_STATE_FAILED, 2);
}
END_TEST

START_TEST(test_no_address_is_in_a_region_before_there_is_one)
{
	int here = 0;
	ck_assert_ptr_null(uffdwp_region_locate(&here));
	ck_assert_ptr_null(uffdwp_region_locate(NULL));
	ck_assert_ptr_null(uffdwp_region_locate((void *)UINTPTR_MAX));
}
END_TEST

START_TEST(test_no_error_no_text)
{
	char text[8] = "zzz";
	ck_assert_uint_eq(uffdwp_error_text(text, sizeof(text)), 0);
	ck_assert_str_eq(text, "");
	ck_assert_uint_eq(uffdwp_error_text(NULL, 0), 0);
}
END_TEST

static void expect_open_fails(const struct refusal *refusal, int error)
{
	struct uffdwp *runtime = NULL;
	size_t files = scratch_open_files();
	refusing_set(refusal);
	ck_assert_int_eq(api_open(&kernel_refusing, NULL, &runtime), error);
	refusing_nothing();
	ck_assert_ptr_null(runtime);
	ck_assert_uint_eq(scratch_open_files(), files);
	char text[512] = "";
	ck_assert_uint_gt(uffdwp_error_text(text, sizeof(text)), 20);
}

#define UFFD_ACCESSES (REFUSING_BIT(uffd_open_syscall) | REFUSING_BIT(uffd_open_device))

static void expect_open_falls_back(int error)
{
	struct uffdwp *runtime = NULL;
	refusing_set(&(struct refusal){UFFD_ACCESSES, 1, UINT64_MAX, error});
	ck_assert_int_eq(api_open(&kernel_refusing, NULL, &runtime), 0);
	refusing_nothing();
	char text[512] = "";
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_ptr_nonnull(strstr(text, "userfaultfd"));
	ck_assert_ptr_nonnull(strstr(text, "mprotect"));
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}

START_TEST(test_open_without_access_to_a_userfaultfd_says_what_is_left)
{
	expect_open_falls_back(ENOSYS);
	expect_open_falls_back(EPERM);
	expect_open_falls_back(EACCES);
	expect_open_fails(&(struct refusal){UFFD_ACCESSES, 1, UINT64_MAX, EMFILE}, -EMFILE);
}
END_TEST

int main(void)
{
	support_begin("test_api", &(struct support_needs){0, 0});
	Suite *suite = suite_create("api");
	TCase *tests = tcase_create("api");
	tcase_add_test(tests, test_version_of_header_and_library_agree);
	tcase_add_test(tests, test_initial_values_are_the_defaults);
	tcase_add_test(tests, test_numbers_of_the_words_never_change);
	tcase_add_test(tests, test_no_address_is_in_a_region_before_there_is_one);
	tcase_add_test(tests, test_no_error_no_text);
	tcase_add_test(tests, test_open_without_access_to_a_userfaultfd_says_what_is_left);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
