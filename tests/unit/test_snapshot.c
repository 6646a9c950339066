/* SPDX-License-Identifier: MIT */
/*
 * Random snapshots on a fake kernel (fake.h): writers by fault and by barrier, punches, discarding of other memory,
 * kernels that say "come again", small pools, aborts; all in ordinary C, so that the thread sanitizer sees each access.
 *
 * The model is a shadow copy that writers keep under a lock for reading; cuts and punches take it for writing. Writers
 * own interleaved stripes: they meet on pages and never on bytes. INV-CUT: the image is the shadow of the cut, byte for
 * byte; without any lock, it never shows an effect without its cause.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "chance.h"
#include "fake.h"
#include "stage.h"
#include "support.h"

#define PAGES 160
#define CUTS 30
#define WRITERS 3
#define STRIPE 32
#define COUNTER_PAGE 40

static struct stage stage;
static uint8_t *shadow;
static _Atomic int stop;
static pthread_rwlock_t lock;

struct writer {
	pthread_t thread;
	size_t index;
	struct chance chance;
};

/* A thread that wants to write is not kept waiting by ever new readers. */
static void lock_init(void)
{
	lock_for_writers_init(&lock);
}

/* --- what happens to the memory --------------------------------------------------------------------------------- */

static void write_stripe(struct writer *writer, size_t row)
{
	size_t offset = (row * WRITERS + writer->index) * STRIPE;
	uint8_t bytes[STRIPE];
	chance_fill(&writer->chance, bytes, sizeof(bytes));
	fake_write(stage.base + offset, bytes, sizeof(bytes));
	memcpy(shadow + offset, bytes, sizeof(bytes));
}

static void write_some(struct writer *writer)
{
	size_t rows = stage.length_bytes / (STRIPE * WRITERS);
	size_t row = chance_below(&writer->chance, rows);
	size_t kind = chance_below(&writer->chance, 16);
	must(pthread_rwlock_rdlock(&lock) == 0);
	if (kind < 2) {
		must(uffdwp_prepare_write(stage.region, row * WRITERS * STRIPE, 3 * STAGE_PAGE) == 0 ||
		     row * WRITERS * STRIPE + 3 * STAGE_PAGE > stage.length_bytes);
	}
	for (size_t end = kind == 2 ? row + 200 : row + 1; row < end && row < rows; row++) {
		write_stripe(writer, row);
	}
	must(pthread_rwlock_unlock(&lock) == 0);
}

static void punch_some(struct writer *writer)
{
	size_t page = chance_below(&writer->chance, PAGES - 8);
	size_t pages = 1 + chance_below(&writer->chance, 8);
	must(pthread_rwlock_wrlock(&lock) == 0);
	must(uffdwp_region_punch(stage.region, page * STAGE_PAGE, pages * STAGE_PAGE) == 0);
	memset(shadow + page * STAGE_PAGE, 0, pages * STAGE_PAGE);
	must(pthread_rwlock_unlock(&lock) == 0);
}

static void *write_for_ever(void *argument)
{
	struct writer *writer = argument;
	while (!atomic_load(&stop)) {
		if (chance_below(&writer->chance, 300) == 0) {
			punch_some(writer);
		} else {
			write_some(writer);
		}
	}
	return NULL;
}

static void writers_start(struct writer *writers)
{
	atomic_store(&stop, 0);
	for (size_t i = 0; i < WRITERS; i++) {
		writers[i].index = i;
		writers[i].chance = chance_new(10 + i);
		writers[i].thread = thread_start(write_for_ever, &writers[i]);
	}
}

static void writers_stop(struct writer *writers)
{
	atomic_store(&stop, 1);
	for (size_t i = 0; i < WRITERS; i++) {
		thread_join(writers[i].thread);
	}
}

/* --- the cuts --------------------------------------------------------------------------------------------------- */

static int enter_cut(void *user, uint64_t *length)
{
	(void)user;
	(void)length;
	must(pthread_rwlock_wrlock(&lock) == 0);
	return 0;
}

static void leave_cut(void *user)
{
	(void)user;
	memcpy(stage.cut, shadow, stage.length_bytes);
	must(pthread_rwlock_unlock(&lock) == 0);
}

static struct uffdwp_snapshot_options random_options(struct chance *chance)
{
	static const uint32_t windows[] = {0, 1, 4, 64};
	struct uffdwp_snapshot_options options = stage_options(&stage, 16 + chance_below(chance, 100));
	options.window_max = windows[chance_below(chance, 4)];
	if (chance_below(chance, 2)) {
		options.length = stage.length_bytes - chance_below(chance, 3 * STAGE_PAGE);
	}
	return options;
}

/* With the lock held for the whole call, or only for the cut. */
static void begin_some(struct chance *chance, struct uffdwp_snapshot_options *options)
{
	if (chance_below(chance, 2)) {
		options->cut_enter = enter_cut;
		options->cut_leave = leave_cut;
		must(stage_begin(&stage, options) == 0);
		return;
	}
	must(enter_cut(NULL, NULL) == 0);
	int error = stage_begin(&stage, options);
	leave_cut(NULL);
	must(error == 0);
}

static void compare(const struct uffdwp_snapshot_progress *progress, unsigned number)
{
	size_t length = progress->length_bytes;
	for (size_t at = 0; at < length; at++) {
		if (stage.image[at] != stage.cut[at]) {
			fprintf(stderr, "cut %u: byte %zu (page %zu) is %02x, was %02x\n", number, at, at / STAGE_PAGE,
			        stage.image[at], stage.cut[at]);
			must(stage.image[at] == stage.cut[at]);
		}
	}
}

static void cut_some(struct chance *chance, unsigned number)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct uffdwp_snapshot_options options = random_options(chance);
	int aborts = chance_below(chance, 8) == 0;
	fake_again_every(chance_below(chance, 2) ? 0 : 3 + (unsigned)chance_below(chance, 5));
	begin_some(chance, &options);
	if (aborts) {
		must(uffdwp_snapshot_abort(stage.snapshot) == 0);
	}
	int result = uffdwp_snapshot_wait(stage.snapshot, -1, &progress);
	if (result != 0 && !aborts) {
		char text[256];
		(void)uffdwp_snapshot_text(stage.snapshot, text, sizeof(text));
		fprintf(stderr, "cut %u: %s\n", number, text);
	}
	must(stage_end(&stage, NULL) == result);
	if (result == 0) {
		compare(&progress, number);
		must(progress.pages_fault + progress.pages_prepare + progress.pages_sweep + progress.pages_hole ==
		     progress.pages_total);
	} else {
		must(aborts && result == -ECANCELED);
	}
}

START_TEST(test_image_is_the_shadow_of_the_cut)
{
	struct writer writers[WRITERS];
	struct chance chance = chance_new(1);
	lock_init();
	stage_open(&stage, _i, PAGES);
	shadow = malloc(stage.length_bytes);
	ck_assert(shadow != NULL);
	memcpy(shadow, stage.base, stage.length_bytes);
	writers_start(writers);
	for (unsigned i = 0; i < CUTS; i++) {
		cut_some(&chance, i);
	}
	writers_stop(writers);
	fake_again_every(0);
	ck_assert(memcmp(stage.base, shadow, stage.length_bytes) == 0);
	ck_assert_uint_eq(stage_wp_bits(&stage), 0);
	ck_assert_uint_eq(stage_stats(&stage).snapshots, CUTS);
	stage_close(&stage);
	free(shadow);
}
END_TEST

/* --- causality -------------------------------------------------------------------------------------------------- */

struct counter {
	uint8_t *mine;
	uint8_t *theirs;
	uint64_t lead; /* how far it may be ahead */
};

static uint64_t value_at(const uint8_t *place)
{
	uint64_t value;
	memcpy(&value, place, sizeof(value));
	return value;
}

/* Counts on when the other one has: cause, effect, cause, ... */
static void *count_for_ever(void *argument)
{
	const struct counter *counter = argument;
	for (uint64_t value = 1; !atomic_load(&stop);) {
		uint64_t theirs;
		fake_read(counter->theirs, &theirs, sizeof(theirs));
		if (theirs + counter->lead >= value) {
			fake_write(counter->mine, &value, sizeof(value));
			value++;
		}
	}
	return NULL;
}

/* INV-CUT, without a lock: `cause` counts first, `effect` follows it; at any instant they are at most 1 apart. */
START_TEST(test_image_shows_no_effect_without_its_cause)
{
	static const uint64_t zero;
	stage_open(&stage, _i, PAGES);
	uint8_t *cause = stage.base + COUNTER_PAGE * STAGE_PAGE;
	uint8_t *effect = stage.base + (PAGES - COUNTER_PAGE) * STAGE_PAGE;
	fake_write(cause, &zero, sizeof(zero));
	fake_write(effect, &zero, sizeof(zero));
	struct counter counters[] = {{cause, effect, 1}, {effect, cause, 0}};
	atomic_store(&stop, 0);
	pthread_t first = thread_start(count_for_ever, &counters[0]);
	pthread_t second = thread_start(count_for_ever, &counters[1]);
	for (unsigned i = 0; i < CUTS; i++) {
		struct uffdwp_snapshot_options options = stage_options(&stage, 64);
		ck_assert_int_eq(stage_begin(&stage, &options), 0);
		ck_assert_int_eq(stage_end(&stage, NULL), 0);
		uint64_t causes = value_at(stage.image + (cause - stage.base));
		uint64_t effects = value_at(stage.image + (effect - stage.base));
		ck_assert_uint_ge(causes, effects);
		ck_assert_uint_le(causes, effects + 1);
	}
	atomic_store(&stop, 1);
	thread_join(first);
	thread_join(second);
	stage_close(&stage);
}
END_TEST

int main(void)
{
	support_begin("test_snapshot", &(struct support_needs){0, 0});
	Suite *suite = suite_create("snapshot");
	TCase *tests = tcase_create("snapshot");
	tcase_set_timeout(tests, 100);
	tcase_add_loop_test(tests, test_image_is_the_shadow_of_the_cut, 0, STAGE_CASES);
	tcase_add_loop_test(tests, test_image_shows_no_effect_without_its_cause, 0, STAGE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
