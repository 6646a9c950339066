/* SPDX-License-Identifier: MIT */
/* Requests of the control socket: what the protocol has is taken, all else is refused with a text that names it. */
#include <errno.h>
#include <string.h>

#include "chance.h"
#include "control/ask.h"
#include "support.h"

static struct ask ask;

static int parse(const char *line)
{
	return ask_parse(line, strlen(line), &ask);
}

#define EXPECT_REFUSED(line, error, word)                                                                              \
	do {                                                                                                           \
		ck_assert_int_eq(parse(line), error);                                                                  \
		ck_assert_msg(strstr(ask.text, word) != NULL, "\"%s\": \"%s\"", line, ask.text);                       \
	} while (0)

START_TEST(test_requests_are_taken)
{
	ck_assert_int_eq(parse("{\"v\":1,\"id\":7,\"do\":\"stat\",\"region\":2}"), 0);
	ck_assert_int_eq(ask.act, ASK_STAT);
	ck_assert_uint_eq(ask.number[ASK_ID], 7);
	ck_assert_uint_eq(ask.number[ASK_REGION], 2);
	ck_assert_int_eq(parse(" { \"do\" : \"hello\" ,\t\"v\":1 } \r"), 0);
	ck_assert_int_eq(ask.act, ASK_HELLO);
	ck_assert_uint_eq(ask.has & ASK_BIT(ASK_ID), 0);
	ck_assert_int_eq(
	        parse("{\"v\":1,\"do\":\"snapshot\",\"region\":9223372036854775807,\"path\":\"/a\\n\\\"\\u00e9\","
	              "\"keep\":true,\"compress\":3,\"arming\":\"move\",\"mode\":384}"),
	        0);
	ck_assert_uint_eq(ask.number[ASK_REGION], INT64_MAX);
	ck_assert_uint_eq(ask.number[ASK_KEEP], 1);
	ck_assert_str_eq(ask.path, "/a\n\"\xc3\xa9");
	ck_assert_str_eq(ask.arming, "move");
	ck_assert_str_eq(ask.parent, "");
}
END_TEST

START_TEST(test_no_json_is_refused)
{
	static const char *const lines[] = {
	        "",
	        "x",
	        "{",
	        "}",
	        "[]",
	        "1",
	        "\"hello\"",
	        "null",
	        "{\"v\":1,}",
	        "{'v':1}",
	        "{\"v\":1} {}",
	        "{\"v\":1}x",
	        "{v:1}",
	        "{\"v\":1 \"do\":2}",
	        "{\"v\":\"",
	        "{\"v\":[[[[[[1]]]]]]}",
	        "{\"v\":{\"v\":{\"v\":{\"v\":{}}}}}",
	        "{\"do\":\"\xff\",\"v\":1}",
	        "{\"v\":1,\"do\":\"a\x01\"}",
	        "/* */ {\"v\":1}",
	};
	for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
		ck_assert_msg(parse(lines[i]) == -EPROTO && *ask.text, "\"%s\": %s", lines[i], ask.text);
	ck_assert_int_eq(ask_parse("{\"v\":1}\0{}", 10, &ask), -EPROTO);
	char deep[2 * ASK_BYTES_MOST];
	memset(deep, '[', sizeof(deep));
	ck_assert_int_eq(ask_parse(deep, ASK_BYTES_MOST - 1, &ask), -EPROTO);
	ck_assert_int_eq(ask_parse(deep, sizeof(deep), &ask), -EPROTO);
}
END_TEST

START_TEST(test_another_version_is_refused_and_its_id_kept)
{
	EXPECT_REFUSED("{\"v\":2,\"id\":5,\"do\":\"what\",\"new\":{}}", -EPROTONOSUPPORT, "version 1");
	ck_assert_uint_eq(ask.number[ASK_ID], 5);
	ck_assert(ask.has & ASK_BIT(ASK_ID));
	EXPECT_REFUSED("{\"do\":\"hello\"}", -EPROTONOSUPPORT, "\"v\":1");
	EXPECT_REFUSED("{\"v\":\"1\",\"do\":\"hello\"}", -EPROTONOSUPPORT, "\"v\":1");
	EXPECT_REFUSED("{\"v\":1.0,\"do\":\"hello\"}", -EPROTONOSUPPORT, "\"v\":1");
}
END_TEST

START_TEST(test_keys_are_named_where_they_are_wrong)
{
	EXPECT_REFUSED("{\"v\":1}", -EINVAL, "\"do\"");
	EXPECT_REFUSED("{\"v\":1,\"do\":\"fly\"}", -EOPNOTSUPP, "fly");
	EXPECT_REFUSED("{\"v\":1,\"do\":\"stat\",\"regoin\":1}", -EINVAL, "regoin");
	EXPECT_REFUSED("{\"v\":1,\"do\":\"stat\",\"\\u0072egion\":1}", -EINVAL, "u0072egion");
	EXPECT_REFUSED("{\"v\":1,\"do\":\"stat\",\"region\":1,\"region\":1}", -EINVAL, "twice");
	EXPECT_REFUSED("{\"v\":1,\"do\":\"hello\",\"v\":1}", -EINVAL, "\"v\" comes twice");
	EXPECT_REFUSED("{\"v\":1,\"do\":\"hello\",\"region\":1}", -EINVAL, "no key \"region\"");
	EXPECT_REFUSED("{\"v\":1,\"do\":\"arm\"}", -EINVAL, "needs the key \"region\"");
	EXPECT_REFUSED("{\"v\":1,\"do\":\"snapshot\",\"region\":1}", -EINVAL, "needs the key \"path\"");
	EXPECT_REFUSED("{\"v\":1,\"do\":\"hello\",\"\":1}", -EINVAL, "unknown key");
	/* A key inside of a value is none of the request's. */
	EXPECT_REFUSED("{\"v\":1,\"do\":\"stat\",\"region\":{\"region\":1}}", -EINVAL, "whole number");
	ck_assert_int_eq(parse("{\"v\":1,\"do\":\"snapshot\",\"region\":1,\"path\":\"/\\\\\\\"region\\\":\"}"), 0);
	ck_assert_str_eq(ask.path, "/\\\"region\":");
	/* json-c 0.18 itself takes no characters beyond ASCII. */
	ck_assert_int_eq(parse("{\"v\":1,\"do\":\"snapshot\",\"region\":1,\"path\":\"/\xc3\xa4\xf0\x9f\x90\xa7\"}"), 0);
	ck_assert_str_eq(ask.path, "/\xc3\xa4\xf0\x9f\x90\xa7");
}
END_TEST

START_TEST(test_values_are_named_where_they_are_wrong)
{
	static const char *const numbers[] = {"-1", "1.5", "1e3", "\"1\"", "null", "true", "9223372036854775808",
	                                      "[1]"};
	/* Beyond 64 bits: no JSON for json-c from 0.17 on, before that it is cut to what fits. */
	static const char *const beyond[] = {"18446744073709551616", "99999999999999999999999"};
	char line[200];
	for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
		(void)snprintf(line, sizeof(line), "{\"v\":1,\"do\":\"stat\",\"region\":%s}", numbers[i]);
		EXPECT_REFUSED(line, -EINVAL, "\"region\"");
		(void)snprintf(line, sizeof(line), "{\"v\":1,\"do\":\"hello\",\"id\":%s}", numbers[i]);
		EXPECT_REFUSED(line, -EINVAL, "\"id\"");
	}
	for (size_t i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
		(void)snprintf(line, sizeof(line), "{\"v\":1,\"do\":\"stat\",\"region\":%s}", beyond[i]);
		int error = parse(line);
		ck_assert(error == -EINVAL || error == -EPROTO);
		ck_assert_str_ne(ask.text, "");
	}
	EXPECT_REFUSED("{\"v\":1,\"do\":1}", -EINVAL, "\"do\"");
	EXPECT_REFUSED("{\"v\":1,\"do\":\"snapshot\",\"region\":1,\"path\":\"\"}", -EINVAL, "\"path\"");
	EXPECT_REFUSED("{\"v\":1,\"do\":\"snapshot\",\"region\":1,\"path\":\"/a\\u0000b\"}", -EINVAL, "\"path\"");
	EXPECT_REFUSED("{\"v\":1,\"do\":\"snapshot\",\"region\":1,\"path\":\"/a\",\"keep\":1}", -EINVAL, "\"keep\"");
	EXPECT_REFUSED(
	        "{\"v\":1,\"do\":\"snapshot\",\"region\":1,\"path\":\"/a\",\"arming\":\"mmmmmmmmmmmmmmmmmmmmmm\"}",
	        -EINVAL, "\"arming\"");
}
END_TEST

START_TEST(test_the_longest_line_is_taken)
{
	static const char head[] = "{\"v\":1,\"do\":\"snapshot\",\"region\":1,\"path\":\"/";
	char line[ASK_BYTES_MOST];
	memset(line, 'a', sizeof(line));
	memcpy(line, head, sizeof(head) - 1);
	line[ASK_BYTES_MOST - 3] = '"';
	line[ASK_BYTES_MOST - 2] = '}';
	ck_assert_int_eq(ask_parse(line, ASK_BYTES_MOST - 1, &ask), 0);
	ck_assert_uint_eq(strlen(ask.path), ASK_BYTES_MOST - 3 - sizeof(head) + 2);
}
END_TEST

/* Whatever a line becomes by chance, it is taken or refused with a text, and nothing is read beyond it. */
START_TEST(test_chance_is_taken_or_refused)
{
	static const char good[] = "{\"v\":1,\"id\":3,\"do\":\"snapshot\",\"region\":1,\"path\":\"/x\",\"keep\":true}";
	struct chance chance = chance_new(1);
	for (unsigned i = 0; i < support_rounds(20000, 400000); i++) {
		size_t length = chance_below(&chance, sizeof(good));
		char *line = malloc(length + 1);
		must(line != NULL);
		memcpy(line, good, length);
		for (size_t n = chance_below(&chance, 4); n > 0 && length; n--)
			line[chance_below(&chance, length)] = (char)chance_next(&chance);
		int error = ask_parse(line, length, &ask);
		ck_assert_msg(error <= 0 && (!error || *ask.text), "%.*s", (int)length, line);
		free(line);
	}
}
END_TEST

int main(void)
{
	support_begin("test_control_ask", &(struct support_needs){0, 0});
	if (!ask_built())
		return support_skip("the library was built without json-c");
	Suite *suite = suite_create("control_ask");
	TCase *tests = tcase_create("control_ask");
	tcase_add_test(tests, test_requests_are_taken);
	tcase_add_test(tests, test_no_json_is_refused);
	tcase_add_test(tests, test_another_version_is_refused_and_its_id_kept);
	tcase_add_test(tests, test_keys_are_named_where_they_are_wrong);
	tcase_add_test(tests, test_values_are_named_where_they_are_wrong);
	tcase_add_test(tests, test_the_longest_line_is_taken);
	tcase_add_test(tests, test_chance_is_taken_or_refused);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
