/* SPDX-License-Identifier: MIT */
/*
 * The headers of today against the frozen numbers of release 0.1 (layout_0_1.h): a field is where it was and as large
 * as it was, a word has the number that it had, and a structure has grown at its end only. A field or word that is gone
 * does not compile.
 */
#include <stddef.h>
#include <string.h>

#include "layout_0_1.h"
#include "support.h"
#include "uffdwp.h"

struct frozen_size {
	const char *name;
	size_t was;
	size_t is;
};

struct frozen_field {
	const char *name;
	size_t was_at;
	size_t was_bytes;
	size_t at;
	size_t bytes;
};

struct frozen_word {
	const char *name;
	long was;
	long is;
};

#define SIZE(type, bytes)                                                                                              \
	{                                                                                                              \
#type, bytes, sizeof(struct type)                                                                      \
	}
#define FIELD(type, field, at, bytes)                                                                                  \
	{                                                                                                              \
#type "." #field, at, bytes, offsetof(struct type, field), sizeof(((struct type *)NULL)->field)        \
	}
#define WORD(name, value)                                                                                              \
	{                                                                                                              \
#name, value, (long)(name)                                                                             \
	}

static const struct frozen_size sizes[] = {LAYOUT_SIZES};
static const struct frozen_field fields[] = {LAYOUT_FIELDS};
static const struct frozen_word words[] = {LAYOUT_WORDS};

START_TEST(test_no_structure_has_shrunk)
{
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
		ck_assert_msg(sizes[i].is >= sizes[i].was, "%s: %zu bytes, once %zu", sizes[i].name, sizes[i].is,
		              sizes[i].was);
}
END_TEST

START_TEST(test_every_field_is_where_it_was)
{
	for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
		ck_assert_msg(fields[i].at == fields[i].was_at && fields[i].bytes == fields[i].was_bytes,
		              "%s: %zu bytes at %zu, once %zu at %zu", fields[i].name, fields[i].bytes, fields[i].at,
		              fields[i].was_bytes, fields[i].was_at);
}
END_TEST

/* What has no sz is filled in arrays of the caller, by programs that know one size only. */
START_TEST(test_what_has_no_size_of_its_own_has_not_grown)
{
	for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
		int has_sz = 0;
		size_t length = strlen(sizes[i].name);
		for (size_t k = 0; k < sizeof(fields) / sizeof(fields[0]); k++)
			has_sz |= strncmp(fields[k].name, sizes[i].name, length) == 0 &&
			          strcmp(fields[k].name + length, ".sz") == 0 && fields[k].at == 0;
		if (!has_sz)
			ck_assert_msg(sizes[i].is == sizes[i].was, "%s: %zu bytes, once %zu", sizes[i].name,
			              sizes[i].is, sizes[i].was);
	}
}
END_TEST

START_TEST(test_every_word_has_the_number_that_it_had)
{
	for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++)
		ck_assert_msg(words[i].is == words[i].was, "%s is %ld, once %ld", words[i].name, words[i].is,
		              words[i].was);
}
END_TEST

int main(void)
{
	if (sizeof(void *) != 8)
		return support_skip("the numbers are those of 64-bit machines");
	support_begin("test_layout", &(struct support_needs){0, 0});
	Suite *suite = suite_create("layout");
	TCase *tests = tcase_create("layout");
	tcase_add_test(tests, test_no_structure_has_shrunk);
	tcase_add_test(tests, test_every_field_is_where_it_was);
	tcase_add_test(tests, test_what_has_no_size_of_its_own_has_not_grown);
	tcase_add_test(tests, test_every_word_has_the_number_that_it_had);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
