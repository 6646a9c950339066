/* SPDX-License-Identifier: MIT */
/*
 * Snapshots that succeed: each sink, memory, mechanism and delivery, with writers at work; lengths, holes, policies,
 * windows, growth and punches meanwhile, and what the progress says. Snapshots that fail: test_snapshot_fails.c.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chance.h"
#include "gate.h"
#include "image.h"
#include "kernel/kernel.h"
#include "place.h"
#include "scratch.h"
#include "support.h"

#define SINKS 3
#define SHMEM_CASES (2 * PLACE_MECHANISMS) /* of PLACE_CASES, the first */
#define PAGES_SMALL 64
#define PAGES_MANY 1024 /* far more than any sweep has in hand at once: a quarter of a pool, which is twice that */

static struct place place;
static uint8_t *expected;
static const struct uffdwp_snapshot_options defaults = UFFDWP_SNAPSHOT_OPTIONS_INIT;

static struct gate gate = GATE_INIT;

static void setup(void)
{
	gate = (struct gate)GATE_INIT;
}

static size_t small_pages(struct place_case which)
{
	return which.memory == UFFDWP_MEMORY_HUGETLB ? 3 : PAGES_SMALL;
}

static size_t many_pages(struct place_case which)
{
	return which.memory == UFFDWP_MEMORY_HUGETLB ? 16 : PAGES_MANY;
}

static void fill(uint64_t salt)
{
	place_fill(&place, salt);
	expected = realloc(expected, place.length_bytes);
	must(expected != NULL);
	memcpy(expected, place.base, place.length_bytes);
}

static int open_filled(struct place_case which, size_t pages)
{
	if (!place_possible(which)) {
		return 0;
	}
	place_open(&place, which, pages);
	fill(pages);
	return 1;
}

static void write_everywhere(uint8_t value)
{
	for (size_t page = 0; page < place.pages; page++) {
		((volatile uint8_t *)place.base)[page * place.page_bytes + 100] = value;
	}
}

static void expect_disarmed(void)
{
	place_expect_armed(&place, 0);
}

static void expect_accounts(const struct uffdwp_snapshot_progress *progress, size_t length)
{
	ck_assert_uint_eq(progress->state, UFFDWP_SNAPSHOT_STATE_COMMITTED);
	ck_assert_int_eq(progress->error, 0);
	ck_assert_uint_eq(progress->length_bytes, length);
	ck_assert_uint_eq(progress->pages_total, (length + place.page_bytes - 1) / place.page_bytes);
	uint64_t saved = progress->pages_fault + progress->pages_prepare + progress->pages_sweep + progress->pages_hole;
	ck_assert_uint_eq(saved, progress->pages_total);
	ck_assert_uint_gt(progress->pause_ns, 0);
	ck_assert_uint_ge(progress->elapsed_ns, progress->pause_ns);
	ck_assert_uint_le(progress->pages_fault + progress->pages_prepare, progress->pages_total);
}

static void expect_image(struct image *image, size_t length)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	int result = image_finish(image, &progress);
	char text[256] = "";
	uffdwp_snapshot_text(image->snapshot, text, sizeof(text));
	ck_assert_msg(result == 0, "snapshot: %s: %s", strerror(-result), text);
	ck_assert_uint_eq(image_difference(image, expected), length);
	expect_accounts(&progress, length);
}

START_TEST(test_image_shows_the_cut_while_everything_is_overwritten)
{
	if (open_filled(place_case(_i / SINKS), small_pages(place_case(_i / SINKS)))) {
		struct image image;
		image_prepare(&image, (enum uffdwp_sink)(_i % SINKS), place.length_bytes);
		ck_assert_int_eq(image_begin(&image, place.region, &defaults), 0);
		write_everywhere(1);
		expect_image(&image, place.length_bytes);
		image_free(&image);
		expect_disarmed();
		ck_assert_uint_eq(place_stats(&place).snapshots, 1);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_length_need_not_be_aligned)
{
	if (open_filled(place_auto_case(_i / SINKS), small_pages(place_auto_case(_i / SINKS)))) {
		static const size_t lengths[] = {1, 511, 4097, 5000};
		for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
			struct image image;
			fill(i + 1);
			image_prepare(&image, (enum uffdwp_sink)(_i % SINKS), lengths[i]);
			ck_assert_int_eq(image_begin(&image, place.region, &defaults), 0);
			write_everywhere((uint8_t)(i + 1));
			expect_image(&image, lengths[i]);
			image_free(&image);
			expect_disarmed();
		}
		place_close(&place);
	}
}
END_TEST

START_TEST(test_snapshots_follow_each_other)
{
	struct place_case which = place_case(_i);
	if (open_filled(which, small_pages(which))) {
		for (unsigned round = 0; round < support_rounds(2 * SINKS, 4 * SINKS); round++) {
			struct image image;
			fill(round + 3);
			image_prepare(&image, (enum uffdwp_sink)(round % SINKS), place.length_bytes);
			ck_assert_int_eq(image_begin(&image, place.region, &defaults), 0);
			write_everywhere((uint8_t)round);
			expect_image(&image, place.length_bytes);
			image_free(&image);
		}
		expect_disarmed();
		place_close(&place);
	}
}
END_TEST

START_TEST(test_runtime_without_uring_takes_the_same_image)
{
	struct place_case which = place_auto_case(_i);
	if (!place_possible(which)) {
		return;
	}
	ck_assert_int_eq(place_try(&place, NULL, UFFDWP_OPEN_NO_URING, which, small_pages(which)), 0);
	fill(9);
	struct image image;
	image_prepare(&image, UFFDWP_SINK_IMAGE, place.length_bytes);
	ck_assert_int_eq(image_begin(&image, place.region, &defaults), 0);
	write_everywhere(1);
	expect_image(&image, place.length_bytes);
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	ck_assert_int_eq(uffdwp_snapshot_poll(image.snapshot, &progress), 0);
	ck_assert_uint_eq(progress.uring, 0);
	image_free(&image);
	place_close(&place);
}
END_TEST

START_TEST(test_buffered_image_is_the_same)
{
	if (!open_filled(place_auto_case(_i), PAGES_SMALL)) {
		return;
	}
	struct uffdwp_snapshot_options options = defaults;
	options.flags = UFFDWP_SNAPSHOT_BUFFERED;
	struct image image;
	image_prepare(&image, UFFDWP_SINK_IMAGE, place.length_bytes - 1000);
	ck_assert_int_eq(image_begin(&image, place.region, &options), 0);
	write_everywhere(1);
	expect_image(&image, place.length_bytes - 1000);
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	ck_assert_int_eq(uffdwp_snapshot_poll(image.snapshot, &progress), 0);
	ck_assert_uint_eq(progress.direct, 0);
	image_free(&image);
	place_close(&place);
}
END_TEST

START_TEST(test_stream_goes_into_a_file_from_where_it_stands)
{
	if (!open_filled(place_auto_case(_i), PAGES_SMALL)) {
		return;
	}
	char folder[SCRATCH_PATH];
	char path[SCRATCH_PATH];
	scratch_folder(folder);
	scratch_join(path, folder, "stream");
	FILE *file = fopen(path, "we");
	must(file != NULL);
	struct uffdwp_snapshot_options options = defaults;
	options.sink = UFFDWP_SINK_STREAM;
	options.fd = fileno(file);
	struct uffdwp_snapshot *snapshot = NULL;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	write_everywhere(1);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	(void)fclose(file);
	uint8_t *got = malloc(place.length_bytes);
	ck_assert_int_eq(scratch_read(path, got, place.length_bytes), 1);
	ck_assert_mem_eq(got, expected, place.length_bytes);
	free(got);
	place_close(&place);
}
END_TEST

/* --- holes ---------------------------------------------------------------------------------------------------- */

static uint64_t blocks_of(int fd)
{
	struct stat st;
	must(fstat(fd, &st) == 0);
	return (uint64_t)st.st_blocks;
}

START_TEST(test_holes_stay_holes_in_image_and_region)
{
	struct place_case which = place_case(_i);
	if (!place_possible(which)) {
		return;
	}
	place_open(&place, which, PAGES_MANY);
	for (size_t page = 0; page < PAGES_MANY; page += 1000) {
		memset(place.base + page * place.page_bytes, 0xee, place.page_bytes);
	}
	ck_assert_int_eq(uffdwp_region_punch(place.region, 1000 * place.page_bytes, place.page_bytes), 0);
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	ck_assert_int_eq(uffdwp_region_info(place.region, &info), 0);
	uint64_t before = blocks_of(info.fd);
	struct image image;
	image_prepare(&image, UFFDWP_SINK_IMAGE, place.length_bytes);
	ck_assert_int_eq(image_begin(&image, place.region, &defaults), 0);
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	ck_assert_int_eq(image_finish(&image, &progress), 0);
	ck_assert_uint_eq(blocks_of(info.fd), before);
	ck_assert_uint_eq(image_difference(&image, place.base), place.length_bytes);
	ck_assert_uint_gt(progress.pages_hole, PAGES_MANY / 2);
	struct stat st;
	ck_assert_int_eq(stat(image.path, &st), 0);
	ck_assert_uint_lt((uint64_t)st.st_blocks * 512, place.length_bytes / 8);
	image_free(&image);
	place_close(&place);
}
END_TEST

START_TEST(test_hole_written_during_the_snapshot_is_zeros_in_the_image)
{
	struct place_case which = place_case(_i / SINKS);
	if (!place_possible(which)) {
		return;
	}
	place_open(&place, which, small_pages(which));
	expected = calloc(1, place.length_bytes);
	struct image image;
	image_prepare(&image, (enum uffdwp_sink)(_i % SINKS), place.length_bytes);
	ck_assert_int_eq(image_begin(&image, place.region, &defaults), 0);
	write_everywhere(0xaa);
	expect_image(&image, place.length_bytes);
	image_free(&image);
	place_close(&place);
}
END_TEST

/* --- with the sink held in the middle ------------------------------------------------------------------------- */

static uint8_t *copied;

static int copy_at_gate(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	gate_pass(&gate);
	memcpy(copied + offset, data, length);
	return 0;
}

/* Begins a snapshot, and returns when its sweep stands at the gate with the first run. */
static struct uffdwp_snapshot *begin_gated(const struct uffdwp_snapshot_options *base)
{
	struct uffdwp_snapshot_options options = *base;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = copy_at_gate;
	if (options.pool_bytes == 0) {
		options.pool_bytes = 2 * place.length_bytes; /* while the gate is closed nothing leaves the pool */
	}
	copied = calloc(1, place.length_bytes);
	must(copied != NULL);
	struct uffdwp_snapshot *snapshot = NULL;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	gate_await(&gate);
	return snapshot;
}

static void finish_gated(struct uffdwp_snapshot *snapshot, struct uffdwp_snapshot_progress *progress)
{
	gate_open(&gate);
	progress->sz = sizeof(*progress);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, progress), 0);
	ck_assert_int_eq(memcmp(copied, expected, progress->length_bytes), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	expect_disarmed();
}

START_TEST(test_running_snapshot_says_so)
{
	struct place_case which = place_case(_i);
	if (open_filled(which, many_pages(which))) {
		struct uffdwp_snapshot *snapshot = begin_gated(&defaults);
		struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
		ck_assert_int_eq(uffdwp_snapshot_poll(snapshot, &progress), 0);
		ck_assert_uint_eq(progress.state, UFFDWP_SNAPSHOT_STATE_RUNNING);
		ck_assert_uint_eq(progress.pages_total, place.pages);
		progress.pages_total = 0;
		ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, 0, &progress), -ETIMEDOUT);
		ck_assert_uint_eq(progress.pages_total, place.pages);
		ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, 10, NULL), -ETIMEDOUT);
		ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.page_bytes), -EBUSY);
		ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, place.page_bytes), -EBUSY);
		progress.sz = 3;
		ck_assert_int_eq(uffdwp_snapshot_poll(snapshot, &progress), -EINVAL);
		finish_gated(snapshot, &progress);
		expect_accounts(&progress, place.length_bytes);
		place_close(&place);
	}
}
END_TEST

/* What a thread writes while the test looks on. */
static void *overwrite_everything(void *argument)
{
	(void)argument;
	write_everywhere(0x55);
	return NULL;
}

static int writer_waits(void *argument)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	return uffdwp_snapshot_poll(argument, &progress) == 0 && progress.waits > 0;
}

START_TEST(test_writers_wait_for_a_full_pool_and_go_on)
{
	struct place_case which = place_case(_i);
	if (open_filled(which, many_pages(which))) {
		struct uffdwp_snapshot_options options = defaults;
		options.pool_bytes = 16 * place.page_bytes;
		options.wait_ns = 60000000000u;
		struct uffdwp_snapshot *snapshot = begin_gated(&options);
		pthread_t writer = thread_start(overwrite_everything, NULL);
		ck_assert_int_eq(wait_until(writer_waits, snapshot, 20), 1);
		struct uffdwp_snapshot_progress progress = {0};
		finish_gated(snapshot, &progress);
		thread_join(writer);
		ck_assert_uint_le(progress.pool_peak_bytes, options.pool_bytes);
		ck_assert_uint_gt(progress.pool_peak_bytes, 0);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_sequential_writer_faults_once_per_window)
{
	struct place_case which = place_case(_i);
	if (!open_filled(which, PAGES_MANY)) {
		return;
	}
	struct uffdwp_snapshot *snapshot = begin_gated(&defaults);
	write_everywhere(3);
	struct uffdwp_snapshot_progress progress = {0};
	finish_gated(snapshot, &progress);
	ck_assert_uint_gt(progress.pages_fault, PAGES_MANY / 2);
	ck_assert_uint_le(progress.faults * 4, progress.pages_fault);
	place_close(&place);
}
END_TEST

START_TEST(test_window_of_one_saves_only_what_is_written)
{
	struct place_case which = place_case(_i);
	if (!open_filled(which, PAGES_MANY)) {
		return;
	}
	struct uffdwp_snapshot_options options = defaults;
	options.window_max = 1;
	struct uffdwp_snapshot *snapshot = begin_gated(&options);
	for (size_t page = PAGES_MANY / 2; page < PAGES_MANY / 2 + 20; page++) {
		((volatile uint8_t *)place.base)[page * place.page_bytes] ^= 1;
	}
	ck_assert_uint_eq(place_faults(&place, 20), 20);
	struct uffdwp_snapshot_progress progress = {0};
	finish_gated(snapshot, &progress);
	ck_assert_uint_eq(progress.pages_fault, 20);
	ck_assert_uint_eq(progress.faults, 20);
	place_close(&place);
}
END_TEST

START_TEST(test_prepared_pages_are_preserved_without_a_fault)
{
	struct place_case which = place_case(_i);
	if (open_filled(which, many_pages(which))) {
		struct uffdwp_snapshot *snapshot = begin_gated(&defaults);
		size_t offset = place.length_bytes / 2 - 17; /* far from where a sweep begins */
		ck_assert_int_eq(uffdwp_prepare_write(place.region, offset, 2 * place.page_bytes), 0);
		memset(place.base + offset, 0, 2 * place.page_bytes);
		struct uffdwp_snapshot_progress progress = {0};
		finish_gated(snapshot, &progress);
		ck_assert_uint_eq(progress.faults, 0);
		ck_assert_uint_eq(progress.pages_prepare, 3);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_punch_during_a_snapshot_preserves_first)
{
	struct place_case which = place_case(_i);
	if (open_filled(which, many_pages(which))) {
		struct uffdwp_snapshot *snapshot = begin_gated(&defaults);
		size_t offset = place.length_bytes / 2; /* far from where a sweep begins */
		ck_assert_int_eq(uffdwp_region_punch(place.region, offset, 3 * place.page_bytes), 0);
		ck_assert_uint_eq(place.base[offset], 0);
		ck_assert_uint_eq(place.base[offset + 3 * place.page_bytes - 1], 0);
		write_everywhere(8);
		struct uffdwp_snapshot_progress progress = {0};
		finish_gated(snapshot, &progress);
		ck_assert_uint_eq(progress.pages_prepare, 3);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_moved_memory_is_followed_during_a_snapshot)
{
	struct place_case which = place_case(_i);
	if (!place_follows(which) || !place_possible(which)) {
		return;
	}
	place_attach(&place, which, many_pages(which), 1);
	fill(5);
	struct uffdwp_snapshot *snapshot = begin_gated(&defaults);
	void *target = mmap(NULL, 2 * place.length_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert_ptr_ne(target, MAP_FAILED);
	uintptr_t aligned = ((uintptr_t)target + place.page_bytes - 1) / place.page_bytes * place.page_bytes;
	void *moved = mremap(place.base, place.length_bytes, place.length_bytes, MREMAP_MAYMOVE | MREMAP_FIXED,
	                     (void *)aligned);
	ck_assert_ptr_eq(moved, (void *)aligned);
	place.base = moved;
	write_everywhere(7);
	struct uffdwp_snapshot_progress progress = {0};
	finish_gated(snapshot, &progress);
	ck_assert_ptr_eq(uffdwp_region_base(place.region), moved);
	place_close(&place);
}
END_TEST

START_TEST(test_region_may_grow_during_a_snapshot)
{
	struct place_case which = place_case(_i);
	if (!place_possible(which)) {
		return;
	}
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.capacity_bytes = 2 * PAGES_MANY * place_page_bytes(UFFDWP_MEMORY_SHMEM);
	place_open_with(&place, which, PAGES_MANY, &options);
	fill(4);
	struct uffdwp_snapshot *snapshot = begin_gated(&defaults);
	ck_assert_int_eq(uffdwp_region_grow(place.region, options.capacity_bytes), 0);
	place.pages *= 2;
	write_everywhere(7);
	struct uffdwp_snapshot_progress progress = {0};
	finish_gated(snapshot, &progress);
	ck_assert_uint_eq(progress.length_bytes, place.length_bytes);
	place.length_bytes *= 2;
	expect_disarmed();
	place_close(&place);
}
END_TEST

START_TEST(test_pages_beyond_the_image_are_not_armed)
{
	struct place_case which = place_case(_i);
	if (!open_filled(which, PAGES_MANY)) {
		return;
	}
	struct uffdwp_snapshot_options options = defaults;
	options.length = (PAGES_MANY - 10) * place.page_bytes - 5;
	struct uffdwp_snapshot *snapshot = begin_gated(&options);
	for (size_t page = PAGES_MANY - 10; page < PAGES_MANY; page++) {
		place.base[page * place.page_bytes] ^= 1;
	}
	struct uffdwp_snapshot_progress progress = {0};
	finish_gated(snapshot, &progress);
	ck_assert_uint_eq(progress.faults, 0);
	place_close(&place);
}
END_TEST

/* --- commit --------------------------------------------------------------------------------------------------- */

static int gated_fsync(int fd)
{
	gate_pass(&gate);
	return kernel_real.fsync(fd);
}

START_TEST(test_old_file_is_replaced_only_at_the_commit)
{
	if (!place_possible(place_auto_case(_i))) {
		return;
	}
	struct kernel_ops ops = kernel_real;
	ops.fsync = gated_fsync;
	ck_assert_int_eq(place_try(&place, &ops, 0, place_auto_case(_i), PAGES_SMALL), 0);
	fill(1);
	struct image image;
	image_prepare(&image, UFFDWP_SINK_IMAGE, place.length_bytes);
	scratch_write(image.path, "old", 3);
	ck_assert_int_eq(image_begin(&image, place.region, &defaults), 0);
	gate_await(&gate);
	char old[3];
	ck_assert_int_eq(scratch_read(image.path, old, sizeof(old)), 1);
	ck_assert_mem_eq(old, "old", 3);
	gate_open(&gate);
	expect_image(&image, place.length_bytes);
	ck_assert_uint_eq(scratch_entries(image.folder), 1);
	image_free(&image);
	place_close(&place);
}
END_TEST

static long faults_of(int scope)
{
	struct rusage used;

	must(getrusage(scope, &used) == 0);
	return used.ru_minflt;
}

/* The pool is touched beside the thread that begins, and once for all snapshots that keep the region protected. */
START_TEST(test_a_pool_is_touched_once_and_not_by_the_caller)
{
	struct uffdwp_snapshot_options options = defaults;
	const long pool_pages = (64l << 20) / getpagesize();
	struct uffdwp_snapshot *snapshot;
	long all[3];

	if (SUPPORT_THREAD_SANITIZER) /* its shadow faults, too */
		return;
	if (!open_filled(place_any(UFFDWP_MEMORY_SHMEM), PAGES_MANY))
		return;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = gate_sink;
	options.user = &gate;
	gate_open(&gate);
	for (int i = 0; i < 3; i++) {
		options.flags = i < 2 ? UFFDWP_SNAPSHOT_KEEP : 0;
		all[i] = faults_of(RUSAGE_SELF);
		long own = faults_of(RUSAGE_THREAD);

		ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
		ck_assert_int_lt(faults_of(RUSAGE_THREAD) - own, pool_pages / 8);
		ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
		ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
		all[i] = faults_of(RUSAGE_SELF) - all[i];
	}
	place_close(&place);
	printf("faults of snapshots that keep: %ld, %ld, %ld\n", all[0], all[1], all[2]);
	if (all[0] > 1000) /* else nearly all of it is huge pages, which take few faults at any time */
		ck_assert_int_lt(all[1], all[0] / 4);
}
END_TEST

START_TEST(test_several_regions_are_saved_at_once)
{
	enum { REGIONS = 3 };
	struct uffdwp *runtime = NULL;
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	struct uffdwp_region *regions[REGIONS];
	struct image images[REGIONS];
	size_t length = PAGES_SMALL * place_page_bytes(UFFDWP_MEMORY_SHMEM);
	expected = malloc(length);
	memset(expected, 0x11, length);
	for (unsigned i = 0; i < REGIONS; i++) {
		struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
		options.delivery = place_delivery(UFFDWP_MEMORY_SHMEM, i);
		ck_assert_int_eq(uffdwp_region_create(runtime, length, &options, &regions[i]), 0);
		memset(uffdwp_region_base(regions[i]), 0x11, length);
		image_prepare(&images[i], (enum uffdwp_sink)i, length);
		ck_assert_int_eq(image_begin(&images[i], regions[i], &defaults), 0);
	}
	for (unsigned i = 0; i < REGIONS; i++) {
		memset(uffdwp_region_base(regions[i]), 0x22, length);
	}
	for (unsigned i = 0; i < REGIONS; i++) {
		ck_assert_int_eq(image_finish(&images[i], NULL), 0);
		ck_assert_uint_eq(image_difference(&images[i], expected), length);
		image_free(&images[i]);
		ck_assert_int_eq(uffdwp_region_close(regions[i]), 0);
	}
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}
END_TEST

static void add_matrix(TCase *tests)
{
	tcase_add_loop_test(tests, test_image_shows_the_cut_while_everything_is_overwritten, 0, PLACE_CASES * SINKS);
	tcase_add_loop_test(tests, test_length_need_not_be_aligned, 0, PLACE_AUTO_CASES * SINKS);
	tcase_add_loop_test(tests, test_hole_written_during_the_snapshot_is_zeros_in_the_image, 0, PLACE_CASES * SINKS);
	tcase_add_loop_test(tests, test_snapshots_follow_each_other, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_runtime_without_uring_takes_the_same_image, 0, PLACE_AUTO_CASES);
	tcase_add_loop_test(tests, test_running_snapshot_says_so, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_writers_wait_for_a_full_pool_and_go_on, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_prepared_pages_are_preserved_without_a_fault, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_punch_during_a_snapshot_preserves_first, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_moved_memory_is_followed_during_a_snapshot, 0, PLACE_CASES);
}

int main(void)
{
	support_begin("test_snapshot", &(struct support_needs){.huge_pages = 40, .swap = 0});
	place_begin();
	Suite *suite = suite_create("snapshot");
	TCase *tests = tcase_create("snapshot");
	tcase_set_timeout(tests, 60);
	tcase_add_checked_fixture(tests, setup, NULL);
	add_matrix(tests);
	tcase_add_loop_test(tests, test_buffered_image_is_the_same, 0, 2);
	tcase_add_loop_test(tests, test_stream_goes_into_a_file_from_where_it_stands, 0, 2);
	tcase_add_loop_test(tests, test_holes_stay_holes_in_image_and_region, 0, SHMEM_CASES);
	tcase_add_loop_test(tests, test_sequential_writer_faults_once_per_window, 0, SHMEM_CASES);
	tcase_add_loop_test(tests, test_window_of_one_saves_only_what_is_written, 0, SHMEM_CASES);
	tcase_add_loop_test(tests, test_region_may_grow_during_a_snapshot, 0, SHMEM_CASES);
	tcase_add_loop_test(tests, test_pages_beyond_the_image_are_not_armed, 0, SHMEM_CASES);
	tcase_add_loop_test(tests, test_old_file_is_replaced_only_at_the_commit, 0, 2);
	tcase_add_test(tests, test_several_regions_are_saved_at_once);
	tcase_add_test(tests, test_a_pool_is_touched_once_and_not_by_the_caller);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
