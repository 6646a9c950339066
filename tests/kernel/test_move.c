/* SPDX-License-Identifier: MIT */
/*
 * Snapshots whose region is armed by a move of its page tables: what they show, what stays mapped, what they refuse,
 * and what happens when the owner or the kernel interferes. Random cuts and causality with moves among the rounds:
 * test_cut.c, test_causality.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "chance.h"
#include "gate.h"
#include "image.h"
#include "kernel/abi.h"
#include "moves.h"
#include "place.h"
#include "support.h"
#include "witness.h"

#define PAGES 2048 /* far more than the sweep has in hand at once */

static struct place place;
static uint8_t *expected;
static struct gate gate = GATE_INIT;
static struct kernel_ops ops;
static _Atomic int asked;

static void fill(void)
{
	place_fill(&place, 7);
	expected = realloc(expected, place.length_bytes);
	must(expected != NULL);
	memcpy(expected, place.base, place.length_bytes);
}

static void open_filled(void)
{
	place_open(&place, moves_case(), PAGES);
	fill();
}

/* The image is what was there at the cut; progress may be NULL. */
static void finish(struct image *image, struct uffdwp_snapshot_progress *progress)
{
	int result = image_finish(image, progress);
	char text[512] = "";
	(void)uffdwp_snapshot_text(image->snapshot, text, sizeof(text));
	ck_assert_msg(result == 0, "%s: %s", strerror(-result), text);
	ck_assert_uint_eq(image_difference(image, expected), image->length_bytes);
	image_free(image);
}

/* A snapshot that goes through the gate, which is closed at first. */
static struct uffdwp_snapshot *begin_gated(void)
{
	struct uffdwp_snapshot_options options = moves_options();
	struct uffdwp_snapshot *snapshot;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = gate_sink;
	options.user = &gate;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	return snapshot;
}

/* One that stays at its first chunk until the gate is opened. */
static struct uffdwp_snapshot *begin_held(void)
{
	struct uffdwp_snapshot *snapshot = begin_gated();
	gate_await(&gate);
	return snapshot;
}

static int end_held(struct uffdwp_snapshot *snapshot)
{
	gate_open(&gate);
	int result = uffdwp_snapshot_wait(snapshot, -1, NULL);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	return result;
}

/* --- what is shown -------------------------------------------------------------------------------------------- */

START_TEST(test_image_shows_the_cut_though_everything_is_written)
{
	struct uffdwp_snapshot_options options = moves_options();
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct image image;
	open_filled();
	image_prepare(&image, (enum uffdwp_sink)_i, place.length_bytes);
	moves_begin(&image, place.region, &options);
	for (size_t page = 0; page < place.pages; page++) {
		moves_write(&place, page);
	}
	finish(&image, &progress);
	ck_assert_uint_eq(progress.arming, UFFDWP_ARMING_MOVE);
	ck_assert_uint_eq(progress.rounds, 0);
	ck_assert_uint_eq(progress.braked_ns, 0);
	place_close(&place);
}
END_TEST

START_TEST(test_one_snapshot_follows_another)
{
	open_filled();
	for (unsigned i = 0; i < 6; i++) {
		struct uffdwp_snapshot_options options = moves_options();
		struct image image;
		options.arming = i % 3 == 2 ? UFFDWP_ARMING_ROUNDS : UFFDWP_ARMING_MOVE;
		image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
		moves_begin(&image, place.region, &options);
		for (size_t page = i; page < place.pages; page += 3) {
			moves_write(&place, page);
		}
		finish(&image, NULL);
		memcpy(expected, place.base, place.length_bytes);
	}
	place_close(&place);
}
END_TEST

START_TEST(test_holes_are_zeros_and_may_be_written)
{
	struct uffdwp_snapshot_options options = moves_options();
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct image image;
	place_open(&place, moves_case(), PAGES);
	expected = calloc(1, place.length_bytes);
	must(expected != NULL);
	for (size_t page = 0; page < place.pages; page += 100) {
		moves_write(&place, page);
		expected[page * place.page_bytes + 100] ^= 0xff; /* a look at the others would fill them */
	}
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	moves_begin(&image, place.region, &options);
	for (size_t page = 0; page < place.pages / 4; page += 7) {
		moves_write(&place, page);
	}
	finish(&image, &progress);
	ck_assert_uint_gt(progress.pages_hole, 0);
	place_close(&place);
}
END_TEST

START_TEST(test_short_image_and_growth)
{
	struct uffdwp_region_options region = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_snapshot_options options = moves_options();
	struct image image;
	region.capacity_bytes = 4 * (uint64_t)PAGES * place_page_bytes(UFFDWP_MEMORY_SHMEM);
	place_open_with(&place, moves_case(), PAGES, &region);
	fill();
	image_prepare(&image, UFFDWP_SINK_STREAM, place.length_bytes - place.page_bytes * 100 - 17);
	options.length = place.length_bytes - place.page_bytes * 100 - 17;
	moves_begin(&image, place.region, &options);
	ck_assert_int_eq(uffdwp_region_grow(place.region, 2 * place.length_bytes), 0);
	for (size_t page = 0; page < 2 * place.pages; page += 5) {
		moves_write(&place, page);
	}
	finish(&image, NULL);
	place_close(&place);
}
END_TEST

START_TEST(test_pages_in_swap_are_saved_and_armed)
{
	struct uffdwp_snapshot_options options = moves_options();
	struct image image;
	if (!support_has_swap()) {
		support_note(__func__, "no swap");
		return;
	}
	open_filled();
	for (unsigned i = 0; i < 3; i++) {
		must(madvise(place.base, place.length_bytes, MADV_PAGEOUT) == 0);
	}
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	moves_begin(&image, place.region, &options);
	must(madvise(place.base, place.length_bytes, MADV_PAGEOUT) == 0);
	for (size_t page = 0; page < place.pages; page += 2) {
		moves_write(&place, page);
	}
	finish(&image, NULL);
	place_close(&place);
}
END_TEST

START_TEST(test_sealed_region_is_moved)
{
	struct uffdwp_region_options region = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_snapshot_options options = moves_options();
	struct image image;
	region.flags = UFFDWP_REGION_CREATE_SEALED;
	place_open_with(&place, moves_case(), PAGES, &region);
	fill();
	image_prepare(&image, UFFDWP_SINK_IMAGE, place.length_bytes);
	moves_begin(&image, place.region, &options);
	moves_write(&place, 3);
	finish(&image, NULL);
	place_close(&place);
}
END_TEST

/* However the mapping lies to the page tables. */
START_TEST(test_attached_memory_is_moved_wherever_it_lies)
{
	struct uffdwp_region_options region = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_snapshot_options options = moves_options();
	struct image image;
	struct patch patch = patch_map(UFFDWP_MEMORY_SHMEM, PAGES + 1);
	memset(&place, 0, sizeof(place));
	place.page_bytes = patch.page_bytes;
	place.base = patch.base + patch.page_bytes;
	place.pages = PAGES;
	place.length_bytes = PAGES * patch.page_bytes;
	region.fd = patch.fd;
	region.fd_offset = patch.page_bytes;
	region.mechanism = moves_case().mechanism;
	region.delivery = moves_case().delivery;
	ck_assert_int_eq(uffdwp_open(NULL, &place.runtime), 0);
	ck_assert_int_eq(uffdwp_region_attach(place.runtime, place.base, place.length_bytes, &region, &place.region),
	                 0);
	fill();
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	moves_begin(&image, place.region, &options);
	patch.base[1] = 1; /* beside the region */
	for (size_t page = 0; page < place.pages; page += 2) {
		moves_write(&place, page);
	}
	finish(&image, NULL);
	ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
	patch_unmap(&patch);
}
END_TEST

/* --- what it does to the region ------------------------------------------------------------------------------- */

/* INV-REARM: in the middle of a snapshot every page that was not saved is armed, and reads leave it so. */
START_TEST(test_reads_leave_pages_armed)
{
	open_filled();
	struct uffdwp_snapshot *snapshot = begin_held();
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	for (size_t page = 0; page < place.pages; page++) {
		ck_assert_uint_eq(moves_read(&place, page), expected[page * place.page_bytes + 100]);
	}
	ck_assert_int_eq(uffdwp_snapshot_poll(snapshot, &progress), 0);
	if (place_report()->memory[UFFDWP_MEMORY_SHMEM].fills & UFFDWP_PROBE_FILL_CONTINUE_WP) {
		ck_assert_uint_eq(progress.pages_fault, 0);
		ck_assert_uint_gt(place_ledger(&place), place.pages / 2);
	} else {
		support_note(__func__, "reads count as writes: no UFFDIO_CONTINUE_MODE_WP");
	}
	ck_assert_int_ne(place_agrees(&place), 0);
	ck_assert_int_eq(end_held(snapshot), 0);
	place_close(&place);
}
END_TEST

START_TEST(test_to_be_moved_is_no_loss)
{
	struct uffdwp_snapshot_options options = moves_options();
	struct image image;
	open_filled();
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	moves_begin(&image, place.region, &options);
	for (size_t page = 0; page < place.pages; page++) {
		(void)moves_read(&place, page);
		moves_write(&place, page);
	}
	finish(&image, NULL);
	struct uffdwp_region_stats stats = place_stats(&place);
	for (size_t cause = 0; cause < UFFDWP_LOSS_COUNT; cause++) {
		ck_assert_uint_eq(stats.lost_by[cause], 0);
	}
	ck_assert_uint_eq(stats.events_remap, 0);
	place_close(&place);
}
END_TEST

/* The old page tables are given back, and no page has to come to the library any more. */
START_TEST(test_nothing_stays_mapped)
{
	struct uffdwp_snapshot_options options = moves_options();
	open_filled();
	size_t before = 0;
	for (unsigned i = 0; i < 4; i++) {
		struct image image;
		image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
		moves_begin(&image, place.region, &options);
		finish(&image, NULL);
		ck_assert_uint_eq(witness_count(place.base, place.length_bytes, place.page_bytes, WITNESS_PRESENT),
		                  place.pages);
		struct uffdwp_region_stats stats = place_stats(&place);
		for (size_t page = 0; page < place.pages; page++) {
			moves_write(&place, page);
		}
		ck_assert_uint_eq(place_stats(&place).faults, stats.faults);
		ck_assert_uint_eq(place_stats(&place).pages_filled, stats.pages_filled);
		memcpy(expected, place.base, place.length_bytes);
		ck_assert_uint_eq(witness_armed(place.base, place.length_bytes, place.page_bytes), 0);
		before = i == 0 ? witness_mappings() : before;
	}
	ck_assert_uint_le(witness_mappings(), before + 1);
	ck_assert_int_ne(place_released(&place), 0);
	place_close(&place);
}
END_TEST

/* After the end the registration is taken away in parts: what is armed meanwhile is registered, all of it. */
START_TEST(test_region_is_armed_while_it_comes_to_rest)
{
	gate_open(&gate);
	open_filled();
	for (unsigned i = 0; i < 20; i++) {
		struct uffdwp_snapshot *snapshot = begin_gated();
		ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
		sleep_us(i * 20);
		int error = uffdwp_region_arm(place.region, 0, place.length_bytes);
		ck_assert_msg(error == 0, "%s", strerror(-error));
		ck_assert_uint_eq(place_ledger(&place), place.pages);
		ck_assert_uint_eq(witness_armed(place.base, place.length_bytes, place.page_bytes), place.pages);
		for (size_t page = i; page < place.pages; page += 97) {
			moves_write(&place, page);
		}
		ck_assert_uint_eq(place_ledger(&place), place.pages - (place.pages - i + 96) / 97);
		ck_assert_int_ne(place_agrees(&place), 0);
		ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, place.length_bytes), 0);
		ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	}
	place_close(&place);
}
END_TEST

/* Nothing that was taken out already refuses to be disarmed. */
START_TEST(test_region_is_disarmed_while_it_comes_to_rest)
{
	gate_open(&gate);
	open_filled();
	for (unsigned i = 0; i < 20; i++) {
		struct uffdwp_snapshot *snapshot = begin_gated();
		ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
		sleep_us(i * 20);
		int error = uffdwp_region_disarm(place.region, 0, place.length_bytes);
		ck_assert_msg(error == 0, "%s", strerror(-error));
		ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
		ck_assert_int_ne(place_released(&place), 0);
	}
	place_close(&place);
}
END_TEST

START_TEST(test_aborted_snapshot_releases_the_region)
{
	open_filled();
	struct uffdwp_snapshot *snapshot = begin_held();
	ck_assert_int_eq(uffdwp_snapshot_abort(snapshot), 0);
	moves_write(&place, 0);
	moves_write(&place, place.pages - 1);
	ck_assert_int_eq(end_held(snapshot), -ECANCELED);
	for (size_t page = 0; page < place.pages; page++) {
		moves_write(&place, page);
	}
	ck_assert_uint_eq(place_ledger(&place), 0);
	ck_assert_int_ne(place_agrees(&place), 0);
	place_close(&place);
}
END_TEST

START_TEST(test_punch_keeps_what_the_snapshot_needs)
{
	struct uffdwp_snapshot_options options = moves_options();
	struct image image;
	open_filled();
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	moves_begin(&image, place.region, &options);
	ck_assert_int_eq(uffdwp_region_punch(place.region, 0, 100 * place.page_bytes), 0);
	finish(&image, NULL);
	ck_assert_uint_eq(moves_read(&place, 50), 0);
	place_close(&place);
}
END_TEST

/* A page-table page has an entry of eight bytes for each page, and so has the level above. */
START_TEST(test_created_regions_begin_with_a_page_table)
{
	struct uffdwp_region_options region = UFFDWP_REGION_OPTIONS_INIT;
	uint64_t table = place_page_bytes(UFFDWP_MEMORY_SHMEM) / 8 * place_page_bytes(UFFDWP_MEMORY_SHMEM);
	uint64_t upper = place_page_bytes(UFFDWP_MEMORY_SHMEM) / 8 * table;
	region.capacity_bytes = _i ? upper : 0;
	place_open_with(&place, moves_case(), 16, &region);
	ck_assert_uint_eq((uintptr_t)place.base % table, 0);
	ck_assert(!_i || (uintptr_t)place.base % upper == 0);
	ck_assert_uint_eq(witness_count(place.base, place.length_bytes, place.page_bytes, WITNESS_MAPPED), place.pages);
	place_close(&place);
}
END_TEST

static uint64_t looks_left;

/* Between the cut and a look of the snapshot's thread at what had content. */
static int mincore_and_punch(void *address, size_t length, unsigned char *pages)
{
	if (looks_left && --looks_left == 0) {
		must(fallocate(place_fd(&place), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		               (off_t)(1500 * place.page_bytes), (off_t)place.page_bytes) == 0);
	}
	return kernel_real.mincore(address, length, pages);
}

/* A discard outside of the library is noticed from the cut on, whenever the pages are looked at. */
START_TEST(test_discard_after_the_cut_is_noticed)
{
	struct uffdwp_snapshot_options options = moves_options();
	struct uffdwp_snapshot *snapshot;
	ops = kernel_real;
	ops.mincore = mincore_and_punch;
	ck_assert_int_eq(place_try(&place, &ops, 0, moves_case(), PAGES), 0);
	fill();
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = gate_sink;
	options.user = &gate;
	if (support_has_swap()) {
		support_note(__func__, "there is swap: what had content is looked at before the cut");
		place_close(&place);
		return;
	}
	gate_open(&gate);
	looks_left = _i ? PAGES / 64 - 2 : 1; /* after the page was looked at, and before */
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), -ENODATA);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	ck_assert_uint_eq(looks_left, 0);
	place_close(&place);
}
END_TEST

/* --- the owner, and other moves ------------------------------------------------------------------------------- */

static int is_dead(void *unused)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	(void)unused;
	must(uffdwp_region_info(place.region, &info) == 0);
	return info.dead != 0;
}

START_TEST(test_owner_that_moves_page_tables_is_distinguished_from_the_library)
{
	open_filled();
	struct uffdwp_snapshot *snapshot = begin_held();
	void *to = mmap(NULL, place.length_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	must(to != MAP_FAILED);
	must(mremap(place.base, place.length_bytes, place.length_bytes,
	            MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP_NOW, to) == to);
	ck_assert_int_eq(wait_until(is_dead, NULL, 20), 1); /* the handler acts after it has read */
	ck_assert_int_eq(end_held(snapshot), -ESTALE);
	munmap(to, place.length_bytes);
	ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
}
END_TEST

START_TEST(test_owner_that_moves_the_mapping_is_followed)
{
	struct uffdwp_snapshot_options options = moves_options();
	struct image image;
	place_attach(&place, moves_case(), PAGES, 1);
	fill();
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	moves_begin(&image, place.region, &options);
	uint8_t *base = mremap(place.base, place.length_bytes, place.length_bytes, MREMAP_MAYMOVE);
	must(base != MAP_FAILED);
	void *to = mmap(NULL, place.length_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	base = mremap(base, place.length_bytes, place.length_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	must(base == to);
	place.base = base;
	for (size_t page = 0; page < place.pages; page += 3) {
		moves_write(&place, page);
	}
	finish(&image, NULL);
	place_close(&place);
}
END_TEST

static void expect_refused(struct uffdwp_region *region, const struct uffdwp_snapshot_options *given, int error,
                           const char *part)
{
	struct uffdwp_snapshot_options options = *given;
	struct uffdwp_snapshot *snapshot = NULL;
	char text[512] = "";
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = gate_sink;
	options.user = &gate;
	ck_assert_int_eq(uffdwp_snapshot_begin(region, &options, &snapshot), error);
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, part) != NULL, "'%s' does not say '%s'", text, part);
	ck_assert_ptr_null(snapshot);
}

/* Nothing has changed: the next snapshot is right, armed as it is by default. */
static void expect_usable(uint32_t arming)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	struct image image;
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	moves_begin(&image, place.region, &options);
	moves_write(&place, 1);
	finish(&image, &progress);
	ck_assert_uint_eq(progress.arming, arming);
}

static uint32_t default_arming(void)
{
	return place_moves_unasked(moves_case()) ? UFFDWP_ARMING_MOVE : UFFDWP_ARMING_ROUNDS;
}

/* By name; where nobody has asked it is armed otherwise, at once the first time. */
START_TEST(test_mapping_in_parts_is_refused)
{
	struct uffdwp_snapshot_options options = moves_options();
	open_filled();
	must(madvise(place.base + 8 * place.page_bytes, place.page_bytes, MADV_DONTDUMP) == 0);
	expect_refused(place.region, &options, -EFAULT, "parts");
	for (int i = 0; i < 3; i++) {
		expect_usable(UFFDWP_ARMING_ROUNDS);
		memcpy(expected, place.base, place.length_bytes);
	}
	place_close(&place);
}
END_TEST

START_TEST(test_locked_memory_is_refused)
{
	const char *sanitizers = getenv("UFFDWP_SANITIZE");
	if (sanitizers != NULL && sanitizers[0] != '\0') {
		support_note("locked memory", "a sanitizer leaves mlock(2) out");
		return;
	}
	struct uffdwp_snapshot_options options = moves_options();
	open_filled();
	if (mlock(place.base, 4 * place.page_bytes) != 0) {
		support_note(__func__, strerror(errno));
	} else {
		expect_refused(place.region, &options, -EOPNOTSUPP, "mlock");
		expect_usable(UFFDWP_ARMING_ROUNDS);
		memcpy(expected, place.base, place.length_bytes);
		must(munlock(place.base, 4 * place.page_bytes) == 0);
	}
	expect_usable(default_arming());
	place_close(&place);
}
END_TEST

START_TEST(test_other_regions_are_refused_with_the_reason)
{
	static const struct {
		struct place_case other;
		const char *part;
	} others[] = {
	        {{UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_MINOR, UFFDWP_DELIVERY_THREAD}, "REARM"},
	        {{UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_MPROTECT, UFFDWP_DELIVERY_INLINE}, "REARM"},
	        {{UFFDWP_MEMORY_ANON, UFFDWP_MECHANISM_REARM, UFFDWP_DELIVERY_THREAD}, "anonymous"},
	};
	struct uffdwp_snapshot_options options = moves_options();
	if (!place_possible(others[_i].other)) {
		return;
	}
	place_open(&place, others[_i].other, 16);
	fill();
	expect_refused(place.region, &options, -EOPNOTSUPP, others[_i].part);
	place_close(&place);
}
END_TEST

/* --- a kernel that differs ------------------------------------------------------------------------------------ */

static void *counted_mremap(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	if (flags & MREMAP_DONTUNMAP_NOW) {
		atomic_fetch_add(&asked, 1);
	}
	return kernel_real.mremap(address, old_length, new_length, flags, target, error);
}

/* The first region makes the trial, no snapshot does. */
START_TEST(test_trial_is_made_with_the_first_region)
{
	struct image image;
	struct uffdwp_snapshot_options options = moves_options();
	ops = kernel_real;
	ops.mremap = counted_mremap;
	ck_assert_int_eq(place_try(&place, &ops, 0, moves_case(), PAGES), 0);
	fill();
	ck_assert_int_gt(atomic_load(&asked), 0);
	expect_usable(default_arming());
	memcpy(expected, place.base, place.length_bytes);
	for (int i = 0; i < 2; i++) {
		int before = atomic_load(&asked);
		image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
		moves_begin(&image, place.region, &options);
		finish(&image, NULL);
		ck_assert_int_eq(atomic_load(&asked) - before, 1);
	}
	place_close(&place);
}
END_TEST

static int refusal;

static void *refused_mremap(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	if (address != place.base || !refusal) {
		return kernel_real.mremap(address, old_length, new_length, flags, target, error);
	}
	*error = refusal;
	return NULL;
}

START_TEST(test_move_that_the_kernel_refuses_changes_nothing)
{
	struct image image;
	struct uffdwp_snapshot_options options = moves_options();
	ops = kernel_real;
	ops.mremap = refused_mremap;
	ck_assert_int_eq(place_try(&place, &ops, 0, moves_case(), PAGES), 0);
	fill();
	refusal = -ENOMEM;
	expect_refused(place.region, &options, -ENOMEM, "page tables");
	refusal = 0;
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	moves_begin(&image, place.region, &options);
	moves_write(&place, 2);
	finish(&image, NULL);
	place_close(&place);
}
END_TEST

static void *target_of_move;

/* As the kernel, which unmaps the target before it looks at the mapping. */
static void *late_refused_mremap(void *address, size_t old_length, size_t new_length, int flags, void *target,
                                 int *error)
{
	if (address != place.base || !refusal)
		return kernel_real.mremap(address, old_length, new_length, flags, target, error);
	must(munmap(target, new_length) == 0);
	target_of_move = target;
	*error = refusal;
	return NULL;
}

/* Another thread's memory comes to lie where the page tables were to go, while a snapshot runs that was armed
 * otherwise, or after the call that was refused. */
START_TEST(test_place_that_the_kernel_has_unmapped_is_left_alone)
{
	struct uffdwp_snapshot_options options = moves_options();
	ops = kernel_real;
	ops.mremap = late_refused_mremap;
	ck_assert_int_eq(place_try(&place, &ops, 0, moves_case(), PAGES), 0);
	fill();
	refusal = _i % 2 ? -EFAULT : -ENOMEM;
	options.arming = _i / 2 ? UFFDWP_ARMING_MOVE : UFFDWP_ARMING_AUTO;
	if (options.arming == UFFDWP_ARMING_AUTO && default_arming() != UFFDWP_ARMING_MOVE) {
		place_close(&place);
		return;
	}
	struct image image;
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	int error = image_begin(&image, place.region, &options);
	ck_assert_int_eq(error, options.arming == UFFDWP_ARMING_MOVE ? refusal : 0);
	ck_assert_ptr_nonnull(target_of_move);
	unsigned char *other = mmap(target_of_move, place.page_bytes, PROT_READ | PROT_WRITE,
	                            MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	ck_assert_ptr_eq(other, target_of_move);
	other[0] = 77;
	if (error)
		image_free(&image);
	else
		finish(&image, NULL);
	place_close(&place);
	ck_assert_uint_eq(other[0], 77);
	must(munmap(other, place.page_bytes) == 0);
}
END_TEST

static _Atomic int shall_die;

/* The thread that reads events ends instead of reading the one of the move. */
static ssize_t read_or_die(int uffd, struct uffd_msg *messages, size_t count)
{
	if (atomic_exchange(&shall_die, 0)) {
		pthread_exit(NULL);
	}
	return kernel_real.uffd_read(uffd, messages, count);
}

static void *mremap_and_die(void *address, size_t old_length, size_t new_length, int flags, void *target, int *error)
{
	if (address == place.base) {
		atomic_store(&shall_die, 1);
	}
	return kernel_real.mremap(address, old_length, new_length, flags, target, error);
}

START_TEST(test_death_of_the_handler_leaves_nobody_asleep)
{
	struct uffdwp_snapshot_options options = moves_options();
	struct uffdwp_snapshot *snapshot = NULL;
	ops = kernel_real;
	ops.mremap = mremap_and_die;
	ops.uffd_read = read_or_die;
	ck_assert_int_eq(place_try(&place, &ops, 0, moves_case(), PAGES), 0);
	fill();
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = gate_sink;
	options.user = &gate;
	gate_open(&gate);
	int error = uffdwp_snapshot_begin(place.region, &options, &snapshot);
	if (error == 0) {
		error = uffdwp_snapshot_wait(snapshot, -1, NULL);
		ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	}
	ck_assert_int_eq(error, -EOWNERDEAD);
	moves_write(&place, 0);
	ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
}
END_TEST

static void add_shown(TCase *tests)
{
	tcase_add_loop_test(tests, test_image_shows_the_cut_though_everything_is_written, 0, 3);
	tcase_add_test(tests, test_one_snapshot_follows_another);
	tcase_add_test(tests, test_holes_are_zeros_and_may_be_written);
	tcase_add_test(tests, test_short_image_and_growth);
	tcase_add_test(tests, test_pages_in_swap_are_saved_and_armed);
	tcase_add_loop_test(tests, test_created_regions_begin_with_a_page_table, 0, 2);
	tcase_add_test(tests, test_sealed_region_is_moved);
	tcase_add_test(tests, test_attached_memory_is_moved_wherever_it_lies);
	tcase_add_test(tests, test_reads_leave_pages_armed);
	tcase_add_test(tests, test_to_be_moved_is_no_loss);
	tcase_add_test(tests, test_nothing_stays_mapped);
	tcase_add_test(tests, test_region_is_armed_while_it_comes_to_rest);
	tcase_add_test(tests, test_region_is_disarmed_while_it_comes_to_rest);
	tcase_add_test(tests, test_aborted_snapshot_releases_the_region);
	tcase_add_test(tests, test_punch_keeps_what_the_snapshot_needs);
	tcase_add_loop_test(tests, test_discard_after_the_cut_is_noticed, 0, 2);
}

static void add_refused(TCase *tests)
{
	tcase_add_test(tests, test_owner_that_moves_page_tables_is_distinguished_from_the_library);
	tcase_add_test(tests, test_owner_that_moves_the_mapping_is_followed);
	tcase_add_test(tests, test_mapping_in_parts_is_refused);
	tcase_add_test(tests, test_locked_memory_is_refused);
	tcase_add_loop_test(tests, test_other_regions_are_refused_with_the_reason, 0, 3);
	tcase_add_test(tests, test_trial_is_made_with_the_first_region);
	tcase_add_test(tests, test_move_that_the_kernel_refuses_changes_nothing);
	tcase_add_loop_test(tests, test_place_that_the_kernel_has_unmapped_is_left_alone, 0, 4);
	tcase_add_test(tests, test_death_of_the_handler_leaves_nobody_asleep);
}

static void add(TCase *tests)
{
	add_shown(tests);
	add_refused(tests);
}

int main(void)
{
	support_begin("test_move", &(struct support_needs){.huge_pages = 0, .swap = 1});
	place_begin();
	if (!place_report()->moves[UFFDWP_MEMORY_SHMEM].works) {
		return support_skip(place_report()->moves[UFFDWP_MEMORY_SHMEM].reason);
	}
	Suite *suite = suite_create("move");
	moves_add_cases(suite, add);
	return support_run(suite);
}
