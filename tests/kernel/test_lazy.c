/* SPDX-License-Identifier: MIT */
/*
 * Lazy restores on the real kernel: INV-ABSENT. Every byte that any thread sees is the image's, or what was written
 * since: for each type of memory and each delivery, from raw images and from chains, plain and compressed; by loads,
 * stores and system calls; while writers keep a shadow, pages are punched, and snapshots and increments are compared
 * with the shadow of their cut.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "chain.h"
#include "chance.h"
#include "image.h"
#include "kernel/abi.h"
#include "kernel/kernel.h"
#include "place.h"
#include "shadow.h"
#include "support.h"

#define LENGTH_MOST CHAIN_SHADOW_MOST
#define SOURCES 3
#define WRITERS 2
#define READERS 2
#define STRIPE 64
#define STEPS support_rounds(20, 60)

static struct place place;
static struct test_chain chain;
static struct uffdwp_restore *restore;

/* --- what is restored ----------------------------------------------------------------------------------------------
 */

/* 0: a raw image; 1: deltas; 2: deltas of 64 KiB, compressed, that shrink and grow. */
static void make_source(int source)
{
	size_t tail = 1234;
	test_chain_begin(&chain, source == 2 ? 65536 : 4096, LENGTH_MOST - tail, 100 + (uint64_t)source);
	if (source == 1) {
		test_chain_step(&chain, 0, LENGTH_MOST - tail);
		test_chain_step(&chain, 0, LENGTH_MOST - 3 * tail);
	}
	if (source == 2) {
		test_chain_step(&chain, 3, LENGTH_MOST / 2);
		test_chain_step(&chain, 3, LENGTH_MOST - tail);
	}
}

/* Room for the image, and some pages after it. */
static size_t pages_for(enum uffdwp_memory memory)
{
	return LENGTH_MOST / place_page_bytes(memory) + (memory == UFFDWP_MEMORY_HUGETLB ? 2 : 9);
}

static void begin(uint32_t flags, uint32_t threads)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	char text[512];
	options.path = chain.path;
	options.flags = flags;
	options.threads = threads;
	int error = uffdwp_restore_begin(place.region, &options, &restore);
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(error == 0, "%s: %s", strerror(-error), text);
}

static struct uffdwp_restore_progress progress_now(void)
{
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};
	(void)uffdwp_restore_wait(restore, 0, &progress);
	return progress;
}

/* What the region must show at an offset. */
static uint8_t expected_at(size_t offset)
{
	return offset < LENGTH_MOST ? chain.shadow[offset] : 0;
}

static void expect_page(size_t page)
{
	size_t at = page * place.page_bytes;
	size_t there = at >= LENGTH_MOST                     ? 0
	               : LENGTH_MOST - at < place.page_bytes ? LENGTH_MOST - at
	                                                     : place.page_bytes;
	must(there == 0 || memcmp(place.base + at, chain.shadow + at, there) == 0);
	for (size_t i = there; i < place.page_bytes; i++) {
		must(place.base[at + i] == 0);
	}
}

/* --- reading -------------------------------------------------------------------------------------------------------
 */

static void *read_pages_in_any_order(void *salt)
{
	struct chance chance = chance_new(700 + *(const size_t *)salt);
	for (size_t i = 0; i < place.pages; i++) {
		expect_page(chance_below(&chance, place.pages));
	}
	return NULL;
}

static void read_by_threads(void)
{
	pthread_t threads[READERS];
	size_t salts[READERS];
	for (size_t i = 0; i < READERS; i++) {
		salts[i] = i;
		threads[i] = thread_start(read_pages_in_any_order, &salts[i]);
	}
	for (size_t i = 0; i < READERS; i++) {
		thread_join(threads[i]);
	}
}

static void expect_all(void)
{
	for (size_t page = 0; page < place.pages; page++) {
		expect_page(page);
	}
}

static void restore_and_read(struct place_case which, int source, uint32_t flags)
{
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};
	make_source(source);
	place_open(&place, which, pages_for(which.memory));
	place_fill(&place, 1); /* what is discarded */
	begin(flags, source == 1 ? 1 : 0);
	read_by_threads();
	expect_all();
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, &progress), 0);
	ck_assert_uint_eq(progress.state, UFFDWP_RESTORE_STATE_DONE);
	ck_assert_uint_eq(progress.length_bytes, chain.length);
	ck_assert_uint_eq(progress.pages_total, (chain.length + place.page_bytes - 1) / place.page_bytes);
	ck_assert_uint_eq(progress.pages_done, progress.pages_total);
	ck_assert_uint_eq(progress.pages_failed, 0);
	ck_assert_int_eq(progress.error, 0);
	ck_assert(progress.bytes_read > 0 && progress.begin_ns > 0 && progress.elapsed_ns >= progress.begin_ns);
	if (flags & UFFDWP_RESTORE_BEGIN_ON_DEMAND) {
		ck_assert(progress.pages_demand > 0);
	}
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	expect_all();
	place_close(&place);
	test_chain_end(&chain);
}

START_TEST(test_all_that_is_read_is_the_image)
{
	struct place_case which = place_case(_i);
	if (!place_restores_lazily(which)) {
		return;
	}
	for (int source = 0; source < SOURCES; source++) {
		restore_and_read(which, source, 0);
		restore_and_read(which, source, UFFDWP_RESTORE_BEGIN_ON_DEMAND);
	}
	printf("%s: all that was read was the image\n", place_case_name(which));
}
END_TEST

START_TEST(test_nothing_is_fetched_that_is_not_touched)
{
	struct place_case which = place_by(UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_REARM);
	if (!place_restores_lazily(which)) {
		return;
	}
	make_source(1);
	place_open(&place, which, pages_for(which.memory));
	begin(UFFDWP_RESTORE_BEGIN_ON_DEMAND, 2);
	ck_assert_uint_eq(progress_now().pages_done, 0);
	ck_assert_int_eq(uffdwp_restore_wait(restore, 1, NULL), -ETIMEDOUT);
	expect_page(100);
	struct uffdwp_restore_progress progress = progress_now();
	ck_assert_uint_eq(progress.pages_demand, 1);
	ck_assert_uint_le(progress.pages_done, 16); /* and some that follow */
	ck_assert_uint_eq(progress.state, UFFDWP_RESTORE_STATE_RUNNING);
	ck_assert_int_eq(uffdwp_restore_check(restore, 5000, 10000), 0);
	ck_assert_int_eq(uffdwp_restore_check(restore, place.length_bytes, 1), -ERANGE);
	ck_assert_int_eq(uffdwp_restore_check(restore, UINT64_MAX, 2), -EOVERFLOW);
	ck_assert_int_eq(uffdwp_restore_check(restore, 0, place.length_bytes), 0);
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), 0);
	expect_all();
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	ck_assert_int_eq(uffdwp_restore_free(NULL), 0);
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

/* --- system calls --------------------------------------------------------------------------------------------------
 */

static void write_by_system_call(int *ends, size_t offset, const uint8_t *bytes, size_t length)
{
	must(write(ends[1], bytes, length) == (ssize_t)length);
	must(read(ends[0], place.base + offset, length) == (ssize_t)length);
	memcpy(chain.shadow + offset, bytes, length);
}

static void read_by_system_call(int *ends, size_t offset, size_t length)
{
	uint8_t bytes[512];
	must(write(ends[1], place.base + offset, length) == (ssize_t)length);
	must(read(ends[0], bytes, length) == (ssize_t)length);
	ck_assert_mem_eq(bytes, chain.shadow + offset, length);
}

/* Where they cannot wait a barrier goes before. */
START_TEST(test_system_calls_wait_for_pages_or_a_barrier_does)
{
	struct place_case which = place_case(_i);
	if (!place_restores_lazily(which)) {
		return;
	}
	struct chance chance = chance_new(31);
	int ends[2];
	uint8_t bytes[512];
	make_source(1);
	place_open(&place, which, pages_for(which.memory));
	begin(UFFDWP_RESTORE_BEGIN_ON_DEMAND, 0);
	must(pipe(ends) == 0);
	for (int i = 0; i < 200; i++) {
		size_t length = 1 + chance_below(&chance, sizeof(bytes));
		size_t offset = chance_below(&chance, chain.length - length);
		chance_fill(&chance, bytes, length);
		if (!place_system_calls_wait(which)) {
			ck_assert_int_eq(uffdwp_prepare_write(place.region, offset, length), 0);
		}
		if (i % 2) {
			write_by_system_call(ends, offset, bytes, length);
		} else {
			read_by_system_call(ends, offset, length);
		}
	}
	expect_all();
	close(ends[0]);
	close(ends[1]);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

/* --- what comes before it ------------------------------------------------------------------------------------------
 */

static struct uffdwp_snapshot *snapshot_to(const char *path, uint32_t flags, int *result)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	options.path = path;
	options.flags = flags;
	*result = uffdwp_snapshot_begin(place.region, &options, &snapshot);
	return snapshot;
}

static int snapshot_whole(const char *path, uint32_t flags)
{
	int result;
	struct uffdwp_snapshot *snapshot = snapshot_to(path, flags, &result);
	if (result == 0) {
		result = uffdwp_snapshot_wait(snapshot, -1, NULL);
	}
	must(uffdwp_snapshot_free(snapshot) == 0);
	return result;
}

/* A region that is armed, tracked or left protected by a snapshot is restored all the same; the past is forgotten. */
START_TEST(test_what_was_armed_is_restored)
{
	struct place_case which = place_case(_i);
	char path[SCRATCH_PATH];
	struct uffdwp_track *track = NULL;
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	if (!place_restores_lazily(which)) {
		return;
	}
	make_source(0);
	scratch_join(path, chain.folder, "before");
	place_open(&place, which, pages_for(which.memory));
	place_fill(&place, 2);
	ck_assert_int_eq(snapshot_whole(path, UFFDWP_SNAPSHOT_KEEP), 0);
	begin(0, 0);
	expect_all();
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	char delta[SCRATCH_PATH];
	scratch_join(delta, chain.folder, "delta");
	options.path = delta;
	options.parent = path;
	int refused = uffdwp_snapshot_begin(place.region, &options, &snapshot);
	ck_assert(refused == -ENODATA || refused == -EOPNOTSUPP);

	ck_assert_int_eq(uffdwp_track_start(place.runtime, NULL, &track), 0);
	ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, 0), 0);
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	begin(UFFDWP_RESTORE_BEGIN_ON_DEMAND, 0);
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	ck_assert_uint_eq(collect.bytes, place.length_bytes); /* all of it has changed */
	expect_all();
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	if (which.memory != UFFDWP_MEMORY_HUGETLB) { /* what is not there is not written: a fill is none */
		ck_assert_uint_le(collect.bytes, place.length_bytes / 2);
	}
	ck_assert_int_eq(place_agrees(&place), 1);
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	expect_all();
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

/* --- a kernel that cannot poison -----------------------------------------------------------------------------------
 */

static struct kernel_ops older_kernel;

static int api_without_poison(int uffd, uint64_t *features)
{
	int error = kernel_real.uffd_api(uffd, features);
	*features &= ~(uint64_t)UFFD_FEATURE_POISON;
	return error;
}

START_TEST(test_without_poison_only_inline_delivery_restores)
{
	struct place_case which = place_case(_i);
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	char text[512];
	if (which.mechanism != UFFDWP_MECHANISM_REARM || !place_possible(which)) {
		return;
	}
	older_kernel = kernel_real;
	older_kernel.uffd_api = api_without_poison;
	make_source(0);
	ck_assert_int_eq(place_try(&place, &older_kernel, 0, which, pages_for(which.memory)), 0);
	if (which.delivery == UFFDWP_DELIVERY_INLINE) {
		begin(0, 0);
		expect_all();
		ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), 0);
		ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	} else {
		options.path = chain.path;
		ck_assert_int_eq(uffdwp_restore_begin(place.region, &options, &restore), -EOPNOTSUPP);
		(void)uffdwp_error_text(text, sizeof(text));
		ck_assert(strstr(text, "UFFDWP_DELIVERY_INLINE") != NULL);
	}
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

/* --- everything at once --------------------------------------------------------------------------------------------
 */

static pthread_rwlock_t lock;
static _Atomic int stop;
static uint8_t *shadow; /* of the whole region */

struct writer {
	size_t index;
	struct chance chance;
};

static void write_stripe(struct writer *writer)
{
	size_t rows = place.length_bytes / (STRIPE * WRITERS);
	size_t offset = (chance_below(&writer->chance, rows) * WRITERS + writer->index) * STRIPE;
	must(pthread_rwlock_rdlock(&lock) == 0);
	if (chance_below(&writer->chance, 4) == 0) {
		must(uffdwp_prepare_write(place.region, offset, STRIPE) == 0);
	}
	must(memcmp(place.base + offset, shadow + offset, STRIPE) == 0);
	chance_fill(&writer->chance, shadow + offset, STRIPE);
	memcpy(place.base + offset, shadow + offset, STRIPE);
	must(pthread_rwlock_unlock(&lock) == 0);
}

static void read_stripe(struct writer *writer)
{
	size_t offset = chance_below(&writer->chance, place.length_bytes / STRIPE) * STRIPE;
	if (offset / STRIPE % WRITERS != writer->index) {
		return; /* another's */
	}
	must(pthread_rwlock_rdlock(&lock) == 0);
	must(memcmp(place.base + offset, shadow + offset, STRIPE) == 0);
	must(pthread_rwlock_unlock(&lock) == 0);
}

static void *write_for_ever(void *argument)
{
	struct writer *writer = argument;
	while (!atomic_load(&stop)) {
		size_t what = chance_below(&writer->chance, 200);
		if (what == 0) {
			shadow_punch(&place, shadow, &lock, &writer->chance, 9);
		} else if (what < 100) {
			write_stripe(writer);
		} else {
			read_stripe(writer);
		}
		if (what % 16 == 0) {
			sleep_us(200); /* not all pages before the first snapshot */
		}
	}
	return NULL;
}

/* A snapshot by a callback; an increment is laid over what the last one had. */
static void take_snapshot(struct chance *chance, uint8_t *last, int *has_last)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct image image;
	uint8_t *expected = malloc(place.length_bytes);
	must(expected != NULL);
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	options.wait_ns = 60000000000u;
	options.flags = chance_below(chance, 3) ? UFFDWP_SNAPSHOT_KEEP : 0;
	if (*has_last) {
		options.flags |= UFFDWP_SNAPSHOT_INCREMENT;
		memcpy(image.bytes, last, place.length_bytes);
	}
	must(pthread_rwlock_wrlock(&lock) == 0);
	int error = image_begin(&image, place.region, &options);
	memcpy(expected, shadow, place.length_bytes);
	must(pthread_rwlock_unlock(&lock) == 0);
	ck_assert_int_eq(error, 0);
	ck_assert_int_eq(image_finish(&image, NULL), 0);
	size_t differs = image_difference(&image, expected);
	ck_assert_msg(differs == place.length_bytes, "%s at byte %zu of page %zu",
	              *has_last ? "an increment differs" : "a snapshot differs", differs % place.page_bytes,
	              differs / place.page_bytes);
	memcpy(last, image.bytes, place.length_bytes);
	*has_last = (options.flags & UFFDWP_SNAPSHOT_KEEP) != 0;
	image_free(&image);
	free(expected);
}

static void begin_anew(void)
{
	must(pthread_rwlock_wrlock(&lock) == 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	memcpy(shadow, chain.shadow, place.length_bytes < LENGTH_MOST ? place.length_bytes : LENGTH_MOST);
	if (place.length_bytes > LENGTH_MOST) {
		memset(shadow + LENGTH_MOST, 0, place.length_bytes - LENGTH_MOST);
	}
	begin(UFFDWP_RESTORE_BEGIN_ON_DEMAND, 0);
	must(pthread_rwlock_unlock(&lock) == 0);
}

static void run_snapshots(struct place_case which)
{
	struct chance chance = chance_new(3);
	uint8_t *last = malloc(place.length_bytes);
	int has_last = 0;
	must(last != NULL);
	for (unsigned i = 0; i < STEPS; i++) {
		take_snapshot(&chance, last, &has_last);
		has_last = has_last && place_has_increments(which);
		if (i % 10 == 9) { /* most pages have come */
			begin_anew();
			has_last = 0;
		}
	}
	free(last);
}

static void run(struct place_case which, int source)
{
	struct writer writers[WRITERS];
	pthread_t threads[WRITERS];
	make_source(source);
	place_open(&place, which, pages_for(which.memory));
	shadow = calloc(1, place.length_bytes);
	must(shadow != NULL && pthread_rwlock_init(&lock, NULL) == 0);
	for (size_t at = 0; at < place.length_bytes; at++) {
		shadow[at] = expected_at(at);
	}
	begin(0, 1);
	atomic_store(&stop, 0);
	for (size_t i = 0; i < WRITERS; i++) {
		writers[i] = (struct writer){i, chance_new(50 + i)};
		threads[i] = thread_start(write_for_ever, &writers[i]);
	}
	run_snapshots(which);
	atomic_store(&stop, 1);
	for (size_t i = 0; i < WRITERS; i++) {
		thread_join(threads[i]);
	}
	ck_assert_int_eq(memcmp(place.base, shadow, place.length_bytes), 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	ck_assert_int_eq(memcmp(place.base, shadow, place.length_bytes), 0);
	place_close(&place);
	free(shadow);
	test_chain_end(&chain);
}

START_TEST(test_writers_punches_and_snapshots_go_on_meanwhile)
{
	struct place_case which = place_case(_i);
	if (!place_restores_lazily(which)) {
		return;
	}
	for (int source = 0; source < SOURCES; source++) {
		run(which, source);
	}
	printf("%s: writers, punches and snapshots saw what they should\n", place_case_name(which));
}
END_TEST

int main(void)
{
	support_begin("test_lazy", &(struct support_needs){.huge_pages = 8, .swap = 0});
	place_begin();
	Suite *suite = suite_create("lazy");
	TCase *tests = tcase_create("lazy");
	tcase_set_timeout(tests, 240);
	tcase_add_loop_test(tests, test_all_that_is_read_is_the_image, 0, PLACE_CASES);
	tcase_add_test(tests, test_nothing_is_fetched_that_is_not_touched);
	tcase_add_loop_test(tests, test_system_calls_wait_for_pages_or_a_barrier_does, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_what_was_armed_is_restored, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_without_poison_only_inline_delivery_restores, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_writers_punches_and_snapshots_go_on_meanwhile, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
