/* SPDX-License-Identifier: MIT */
/*
 * How far calls are that read an image whole: what is reported to the callback against the lengths of the files, by
 * each call; one thread is in it at a time; and a callback that ends a call, at each of its turns, leaves no file and
 * an image that can be read again.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/stat.h>

#include "chain.h"
#include "support.h"
#include "uffdwp.h"

#define MIB (1u << 20)
#define LENGTH_BYTES (3 * MIB)
#define DELTAS 3

struct reported {
	_Atomic int inside;
	unsigned calls;
	uint64_t done;
	uint64_t total;
	unsigned ends_at; /* call at which it ends; 0: never */
};

static int take(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
	struct reported *reported = user;
	ck_assert_int_eq(atomic_exchange(&reported->inside, 1), 0);
	ck_assert_uint_ge(done_bytes, reported->done);
	ck_assert_uint_le(done_bytes, total_bytes);
	ck_assert(reported->calls == 0 || reported->total == total_bytes);
	reported->done = done_bytes;
	reported->total = total_bytes;
	reported->calls++;
	atomic_store(&reported->inside, 0);
	return reported->calls == reported->ends_at ? -ECANCELED : 0;
}

static struct test_chain chain;
static struct uffdwp_image *image;
static struct uffdwp_image *base;
static char result[SCRATCH_PATH];

static uint64_t file_bytes(const char *path)
{
	struct stat st;
	must(stat(path, &st) == 0);
	return (uint64_t)st.st_size;
}

static void begin(void)
{
	char path[SCRATCH_PATH];
	test_chain_begin(&chain, 4096, LENGTH_BYTES, 11);
	for (unsigned i = 0; i < DELTAS; i++) {
		test_chain_step(&chain, i % 2 ? 3 : 0, LENGTH_BYTES);
	}
	scratch_join(result, chain.folder, "result");
	scratch_join(path, chain.folder, "base");
	ck_assert_int_eq(uffdwp_image_open(chain.path, NULL, &image), 0);
	ck_assert_int_eq(uffdwp_image_open(path, NULL, &base), 0);
}

static void end(void)
{
	(void)uffdwp_image_close(base);
	(void)uffdwp_image_close(image);
	test_chain_end(&chain);
}

/* ---- the calls ---- */

static int call_verify(void)
{
	struct uffdwp_image_verified verified = {.sz = sizeof(verified)};
	return uffdwp_image_verify(image, &verified);
}

static int call_restore(void)
{
	return uffdwp_image_merge(image, result, NULL);
}

static int call_merge(void)
{
	struct uffdwp_image_merge_options options = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	options.deltas = 2;
	return uffdwp_image_merge(image, result, &options);
}

static int call_diff(void)
{
	struct uffdwp_image_diff diff = UFFDWP_IMAGE_DIFF_INIT;
	diff.path = result;
	return uffdwp_image_diff(image, base, &diff);
}

static uint64_t total_of_files(void)
{
	uint64_t total = 0;
	struct uffdwp_image_info info = {.sz = sizeof(info)};
	for (uint32_t link = 0; uffdwp_image_info(image, link, &info) == 0; link++) {
		total += file_bytes(info.path);
	}
	return total;
}

static uint64_t total_of_result(void)
{
	return file_bytes(result);
}

/* Each page that a delta has, once. */
static uint64_t total_of_pages(void)
{
	uint64_t pages = 0;
	for (uint64_t at = 0; at < LENGTH_BYTES; at += 4096) {
		struct uffdwp_image_extent extent = {.sz = sizeof(extent)};
		must(uffdwp_image_next(image, at, &extent) == 1);
		pages += extent.link < DELTAS;
	}
	return pages * 4096;
}

/* The raw image to be checked, and both to be compared. */
static uint64_t total_of_diff(void)
{
	return 2ull * LENGTH_BYTES;
}

static const struct {
	const char *name;
	int (*call)(void);
	uint64_t (*total)(void);
} calls[] = {
        {"verify", call_verify, total_of_files},
        {"restore", call_restore, total_of_result},
        {"merge", call_merge, total_of_pages},
        {"diff", call_diff, total_of_diff},
};
#define CALLS ((int)(sizeof(calls) / sizeof(calls[0])))

START_TEST(test_progress_ends_with_all_of_what_was_read)
{
	struct reported reported = {.calls = 0};
	begin();
	ck_assert_int_eq(uffdwp_image_progress(image, take, &reported), 0);
	ck_assert_int_eq(calls[_i].call(), 0);
	ck_assert_uint_ge(reported.calls, 2);
	ck_assert_uint_eq(reported.done, reported.total);
	uint64_t total = calls[_i].total();
	/* Zeros are in no file: an extent of them may be a delta's. */
	ck_assert_msg(_i == 2 ? reported.total >= total : reported.total == total, "%s: %llu of %llu", calls[_i].name,
	              (unsigned long long)reported.total, (unsigned long long)total);
	end();
}
END_TEST

START_TEST(test_callback_ends_the_call_at_each_turn_and_leaves_nothing)
{
	struct reported counted = {.calls = 0};
	char text[512];
	begin();
	size_t entries = scratch_entries(chain.folder);
	size_t files = scratch_open_files();
	ck_assert_int_eq(uffdwp_image_progress(image, take, &counted), 0);
	for (unsigned turn = 1;; turn++) {
		struct reported reported = {.ends_at = turn};
		ck_assert_int_eq(uffdwp_image_progress(image, take, &reported), 0);
		int error = calls[_i].call();
		if (reported.calls < turn) {
			ck_assert_int_eq(error, 0);
			ck_assert_uint_gt(turn, 2);
			break;
		}
		ck_assert_int_eq(error, -ECANCELED);
		ck_assert_uint_eq(reported.calls, turn);
		(void)uffdwp_error_text(text, sizeof(text));
		ck_assert_msg(strstr(text, "progress callback") != NULL, "%s", text);
		ck_assert_uint_eq(scratch_entries(chain.folder), entries);
		ck_assert_uint_eq(scratch_open_files(), files);
	}
	end();
}
END_TEST

START_TEST(test_callback_is_called_no_more_when_it_is_taken_away)
{
	struct reported reported = {.calls = 0};
	begin();
	ck_assert_int_eq(uffdwp_image_progress(image, take, &reported), 0);
	ck_assert_int_eq(uffdwp_image_progress(image, NULL, NULL), 0);
	for (int i = 0; i < CALLS; i++) {
		ck_assert_int_eq(calls[i].call(), 0);
	}
	ck_assert_uint_eq(reported.calls, 0);
	end();
}
END_TEST

int main(void)
{
	support_begin("test_image_progress", &(struct support_needs){0, 0});
	Suite *suite = suite_create("image_progress");
	TCase *tests = tcase_create("image_progress");
	tcase_set_timeout(tests, 100);
	tcase_add_loop_test(tests, test_progress_ends_with_all_of_what_was_read, 0, CALLS);
	tcase_add_loop_test(tests, test_callback_ends_the_call_at_each_turn_and_leaves_nothing, 0, CALLS);
	tcase_add_test(tests, test_callback_is_called_no_more_when_it_is_taken_away);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
