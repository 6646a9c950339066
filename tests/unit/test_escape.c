/* SPDX-License-Identifier: MIT */
/* Names from outside, in texts: each byte comes out as valid UTF-8, and moves no cursor. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/escape.h"
#include "base/text.h"
#include "chance.h"
#include "support.h"

static void expect(const char *in, const char *plain, const char *json)
{
	char out[256];

	ck_assert_uint_eq(escape_text(out, sizeof(out), in, 0), strlen(plain));
	ck_assert_str_eq(out, plain);
	ck_assert_uint_eq(escape_text(out, sizeof(out), in, ESCAPE_KEEP_CONTROLS), strlen(json));
	ck_assert_str_eq(out, json);
}

START_TEST(test_what_moves_no_cursor_stays)
{
	expect("", "", "");
	expect("/var/lib/a b\\\"c'.img", "/var/lib/a b\\\"c'.img", "/var/lib/a b\\\"c'.img");
	expect("\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xa7", "\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xa7",
	       "\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xa7");
}
END_TEST

START_TEST(test_controls_are_escaped)
{
	expect("a\x1b[2Jb\nc\td\x7f", "a\\x1b[2Jb\\x0ac\\x09d\\x7f", "a\x1b[2Jb\nc\td\x7f");
	expect("\xc2\x9b"
	       "31m",
	       "\\xc2\\x9b31m",
	       "\xc2\x9b"
	       "31m");                                                /* C1 */
	expect("\xe2\x80\xae", "\\xe2\\x80\\xae", "\\xe2\\x80\\xae"); /* right to left */
}
END_TEST

START_TEST(test_bytes_that_are_no_utf8_are_escaped)
{
	expect("\xff", "\\xff", "\\xff");
	expect("\xc3", "\\xc3", "\\xc3");
	expect("\xe2\x82z", "\\xe2\\x82z", "\\xe2\\x82z");
	expect("\xc0\xaf", "\\xc0\\xaf", "\\xc0\\xaf");                             /* overlong */
	expect("\xed\xa0\x80", "\\xed\\xa0\\x80", "\\xed\\xa0\\x80");               /* a surrogate */
	expect("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80", "\\xf4\\x90\\x80\\x80"); /* above U+10FFFF */
	expect("\x80"
	       "a",
	       "\\x80"
	       "a",
	       "\\x80"
	       "a");
}
END_TEST

static void expect_json(const char *in, const char *json, int is_utf8)
{
	int is = -1;
	size_t out_length;
	size_t length = strlen(in);
	char *exact = malloc(length + 1); /* a sanitizer sees what is read beyond */
	must(exact != NULL);
	memcpy(exact, in, length);
	char *out = escape_json(exact, length, &out_length, &is);

	must(out != NULL);
	ck_assert_str_eq(out, json);
	ck_assert_uint_eq(out_length, strlen(json));
	ck_assert_int_eq(is, is_utf8);
	free(out);
	free(exact);
}

START_TEST(test_json_is_written_in_ascii)
{
	expect_json("", "", 1);
	expect_json("{\"a\": [1, \"b\\n\"]}", "{\"a\": [1, \"b\\n\"]}", 1);
	expect_json("\xc3\xa4\xe2\x82\xac\xf0\x9f\x90\xa7", "\\u00e4\\u20ac\\ud83d\\udc27", 1);
	expect_json("\\\\\xc3\xa4", "\\\\\\u00e4", 1);
	expect_json("\\\xc3\xa4", "\\\xc3\xa4", 1); /* no JSON, and none after it */
	expect_json("a\xff", "a\\\\xff", 0);
	expect_json("\xe2\x82", "\\\\xe2\\\\x82", 0);
}
END_TEST

/* What escape_text() leaves as it is must be what it would leave again. */
START_TEST(test_result_is_clean_and_cut_between_characters)
{
	struct chance chance = chance_new(3);

	for (int round = 0; round < 20000; round++) {
		char in[40];
		char out[200];
		char again[200];
		char part[200];
		size_t length = chance_below(&chance, sizeof(in));

		chance_fill(&chance, (uint8_t *)in, length);
		in[length] = '\0';
		size_t whole = escape_text(out, sizeof(out), in, 0);

		ck_assert_uint_eq(whole, strlen(out));
		ck_assert_uint_eq(escape_text(again, sizeof(again), out, 0), whole);
		ck_assert_str_eq(again, out);
		size_t size = 1 + chance_below(&chance, sizeof(part) - 1);

		ck_assert_uint_eq(escape_text(part, size, in, 0), whole);
		ck_assert_uint_lt(strlen(part), size);
		ck_assert_int_eq(strncmp(out, part, strlen(part)), 0);
		ck_assert_uint_eq(escape_text(again, sizeof(again), part, 0), strlen(part));
	}
	ck_assert_uint_eq(escape_text(NULL, 0, "abc", 0), 3);
}
END_TEST

START_TEST(test_error_texts_are_escaped)
{
	struct text text;
	char line[600];

	text_init(&text);
	ck_assert_int_eq(text_fail(&text, -ENOENT, "\"%s\" is not there", "/tmp/\x1b]0;x\x07\xff"), -ENOENT);
	text_copy(&text, line, sizeof(line));
	ck_assert_str_eq(line, "\"/tmp/\\x1b]0;x\\x07\\xff\" is not there");
	text_fini(&text);
}
END_TEST

int main(void)
{
	support_begin("test_escape", &(struct support_needs){.huge_pages = 0, .swap = 0});
	Suite *suite = suite_create("escape");
	TCase *tests = tcase_create("escape");

	tcase_add_test(tests, test_what_moves_no_cursor_stays);
	tcase_add_test(tests, test_controls_are_escaped);
	tcase_add_test(tests, test_bytes_that_are_no_utf8_are_escaped);
	tcase_add_test(tests, test_json_is_written_in_ascii);
	tcase_add_test(tests, test_result_is_clean_and_cut_between_characters);
	tcase_add_test(tests, test_error_texts_are_escaped);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
