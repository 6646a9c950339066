/* SPDX-License-Identifier: MIT */
/*
 * What the library was built without is refused with -EOPNOTSUPP and a text that names it, before anything is changed;
 * what it was built with is not. SUPPORT_ZSTD, SUPPORT_NUMA, SUPPORT_NBD and SUPPORT_CONTROL are what CMake was asked
 * for.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include "base/errno_name.h"
#include "chain.h"
#include "image/pack.h"
#include "kernel/nodes.h"
#include "scratch.h"
#include "snapshot/nbdlink.h"
#include "squeeze.h"
#include "support.h"
#include "uffdwp.h"

static void expect_not_built(int error, const char *what)
{
	char text[512] = "";
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_int_eq(error, -EOPNOTSUPP);
	ck_assert_msg(strstr(text, "built without") != NULL && strstr(text, what) != NULL, "\"%s\"", text);
}

static int merge_compressed(struct uffdwp_image *image, const struct test_chain *chain, char *path)
{
	struct uffdwp_image_merge_options merge = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	merge.deltas = 1;
	merge.compress = 1;
	scratch_join(path, chain->folder, "merged");
	return uffdwp_image_merge(image, path, &merge);
}

START_TEST(test_compression_without_zstd_is_refused)
{
	struct test_chain chain;
	struct uffdwp_image *image = NULL;
	char path[SCRATCH_PATH];
	char text[512] = "";
	test_chain_begin(&chain, 4096, 9000, 0);
	test_chain_step(&chain, 0, 9000);
	ck_assert_int_eq(pack_built(), SUPPORT_ZSTD);
	ck_assert_int_eq(uffdwp_image_open(chain.path, NULL, &image), 0);
	int error = merge_compressed(image, &chain, path);
	(void)uffdwp_image_text(image, text, sizeof(text));
	ck_assert_int_eq(error, SUPPORT_ZSTD ? 0 : -EOPNOTSUPP);
	ck_assert(SUPPORT_ZSTD || strstr(text, "built without zstd") != NULL);
	ck_assert_int_eq(access(path, F_OK), SUPPORT_ZSTD ? 0 : -1);
	(void)uffdwp_image_close(image);
	test_chain_end(&chain);
}
END_TEST

START_TEST(test_squeezed_page_comes_back)
{
	static char page[4096];
	static char packed[4096];
	static char back[4096];
	memset(page, 'a', sizeof(page));
	size_t length = squeeze(packed, sizeof(packed), page, sizeof(page));
	ck_assert(SUPPORT_ZSTD ? length > 0 && length < sizeof(page) : length == 0);
	ck_assert_int_eq(unsqueeze(back, sizeof(back), packed, length), SUPPORT_ZSTD);
	ck_assert(!SUPPORT_ZSTD || memcmp(back, page, sizeof(page)) == 0);
}
END_TEST

START_TEST(test_nodes_without_libnuma_are_refused)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct uffdwp *runtime = NULL;
	options.numa_nodes = 1;
	int error = uffdwp_open(&options, &runtime);
	if (SUPPORT_NUMA) {
		ck_assert_int_ne(error, -EOPNOTSUPP);
		ck_assert_int_ne(nodes_last(), -EOPNOTSUPP);
		ck_assert_int_eq(error == 0 ? uffdwp_close(runtime) : 0, 0);
	} else {
		expect_not_built(error, "libnuma");
		ck_assert_ptr_null(runtime);
	}
}
END_TEST

START_TEST(test_placement_without_libnuma_is_refused)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_region *region = NULL;
	struct uffdwp *runtime = NULL;
	options.numa = UFFDWP_NUMA_BIND;
	options.numa_nodes = 1;
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	int error = uffdwp_region_create(runtime, 1 << 16, &options, &region);
	if (SUPPORT_NUMA) {
		ck_assert_int_ne(error, -EOPNOTSUPP);
		ck_assert_int_eq(error == 0 ? uffdwp_region_close(region) : 0, 0);
	} else {
		expect_not_built(error, "libnuma");
		ck_assert_ptr_null(region);
	}
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}
END_TEST

START_TEST(test_the_library_says_what_it_was_built_with)
{
	uint32_t built = UFFDWP_BUILT_URING;
	built |= SUPPORT_ZSTD ? UFFDWP_BUILT_ZSTD : 0;
	built |= SUPPORT_NUMA ? UFFDWP_BUILT_NUMA : 0;
	built |= SUPPORT_NBD ? UFFDWP_BUILT_NBD : 0;
	built |= SUPPORT_CONTROL ? UFFDWP_BUILT_CONTROL : 0;
	ck_assert_uint_eq(uffdwp_built(), built);
}
END_TEST

/* The rest of control is tested by unit_control_ask and kernel_control. */
START_TEST(test_control_without_json_is_refused)
{
#if !SUPPORT_CONTROL
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct uffdwp *runtime = NULL;
	options.flags = UFFDWP_OPEN_CONTROL;
	expect_not_built(uffdwp_open(&options, &runtime), "json-c");
	ck_assert_ptr_null(runtime);
#endif
}
END_TEST

START_TEST(test_export_without_libnbd_is_refused)
{
#if !SUPPORT_NBD
	struct text text;
	struct nbdlink link;
	text_init(&text);
	expect_not_built(nbdlink_open("nbd://localhost", &text, &link), "libnbd");
	text_fini(&text);
#endif
}
END_TEST

START_TEST(test_errors_have_names)
{
	ck_assert_str_eq(errno_name(-EINVAL), "EINVAL");
	ck_assert_str_eq(errno_name(EOPNOTSUPP), "EOPNOTSUPP");
	ck_assert_str_eq(errno_name(0), "0");
	ck_assert_str_eq(errno_name(EHWPOISON), "EHWPOISON");
	ck_assert_ptr_null(errno_name(EHWPOISON + 1));
	ck_assert_ptr_null(errno_name(100000));
	ck_assert_ptr_null(errno_name(-100000));
	ck_assert_ptr_null(errno_name(INT32_MIN));
	for (int error = 1; error <= EHWPOISON; error++) { /* what the C library has a text for has a name */
		ck_assert_msg(errno_name(error) || strstr(strerror(error), "nknown") ||
		                      strstr(strerror(error), "No error"),
		              "%d: %s", error, strerror(error));
	}
}
END_TEST

int main(void)
{
	support_begin("test_built", &(struct support_needs){0, 0});
	Suite *suite = suite_create("built");
	TCase *tests = tcase_create("built");
	tcase_add_test(tests, test_compression_without_zstd_is_refused);
	tcase_add_test(tests, test_squeezed_page_comes_back);
	tcase_add_test(tests, test_nodes_without_libnuma_are_refused);
	tcase_add_test(tests, test_placement_without_libnuma_is_refused);
	tcase_add_test(tests, test_export_without_libnbd_is_refused);
	tcase_add_test(tests, test_control_without_json_is_refused);
	tcase_add_test(tests, test_the_library_says_what_it_was_built_with);
	tcase_add_test(tests, test_errors_have_names);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
