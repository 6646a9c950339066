/* SPDX-License-Identifier: MIT */
/* Names and descriptions of errors, which are asked for where no memory can be allocated. */
#include <errno.h>
#include <limits.h>
#include <locale.h>
#include <string.h>

#include "base/errno_name.h"
#include "support.h"

START_TEST(test_name_and_description_are_of_the_number_and_of_its_negative)
{
	ck_assert_str_eq(errno_name(EINVAL), "EINVAL");
	ck_assert_str_eq(errno_name(-EINVAL), "EINVAL");
	ck_assert_str_eq(errno_text(-EINVAL), errno_text(EINVAL));
	ck_assert_str_ne(errno_text(EINVAL), errno_text(EPERM));
}
END_TEST

START_TEST(test_each_error_has_a_description)
{
	static const int known[] = {EPERM, ENOENT, EIO, ENOMEM, EFAULT, EINVAL, ENOSPC, EOPNOTSUPP, ECANCELED};
	for (int error = 1; error < 4096; error++) {
		ck_assert(errno_text(-error)[0] != '\0');
	}
	ck_assert(errno_text(INT_MIN)[0] != '\0');
	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		ck_assert_str_ne(errno_text(known[i]), errno_text(INT_MIN));
	}
}
END_TEST

/* glibc's strerror(3) looks for a translation then, and allocates memory. */
START_TEST(test_description_is_no_translation)
{
	const char *before = errno_text(EPERM);
	must(setenv("LANGUAGE", "de", 1) == 0);
	(void)setlocale(LC_ALL, "C.UTF-8");
	ck_assert_ptr_eq(errno_text(EPERM), before);
}
END_TEST

int main(void)
{
	support_begin("test_errno", &(struct support_needs){0, 0});
	Suite *suite = suite_create("errno");
	TCase *tests = tcase_create("errno");
	tcase_add_test(tests, test_name_and_description_are_of_the_number_and_of_its_negative);
	tcase_add_test(tests, test_each_error_has_a_description);
	tcase_add_test(tests, test_description_is_no_translation);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
