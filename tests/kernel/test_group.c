/* SPDX-License-Identifier: MIT */
/*
 * INV-CUT across regions: several regions share one cut. Each writer has a slot on pages of its own in every region and
 * writes an ever growing number to the regions in their order, so that at any instant a later region is never ahead of
 * an earlier one. The images of one group must say the same: else a write is in one whose cause the other lacks.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "chance.h"
#include "image.h"
#include "place.h"
#include "scratch.h"
#include "support.h"

#define REGIONS 5
#define WRITERS 3
#define PAGES 512
#define SLOTS 64 /* of each writer, on pages that lie apart */
#define GROUPS 40

static struct uffdwp *runtime;
static struct uffdwp_region *regions[REGIONS];
static uint8_t *bases[REGIONS];
static size_t page_bytes;
static _Atomic int stop;

static const struct place_case requests[REGIONS] = {
        {UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_MARKER, UFFDWP_DELIVERY_THREAD},
        {UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_REARM, UFFDWP_DELIVERY_INLINE},
        {UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_MPROTECT, UFFDWP_DELIVERY_INLINE},
        {UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_REARM, UFFDWP_DELIVERY_THREAD},
        {UFFDWP_MEMORY_SHMEM, UFFDWP_MECHANISM_REARM, UFFDWP_DELIVERY_THREAD},
};

static _Atomic uint64_t *slot_in(uint8_t *base, size_t writer, size_t slot)
{
	size_t page = slot * (PAGES / SLOTS) + writer;
	return (_Atomic uint64_t *)(void *)(base + page * page_bytes);
}

static void *write_in_order(void *argument)
{
	size_t writer = *(size_t *)argument;
	struct chance chance = chance_new(300 + writer);
	for (uint64_t n = 1; !atomic_load_explicit(&stop, memory_order_relaxed); n++) {
		size_t slot = chance_below(&chance, SLOTS);
		for (size_t i = 0; i < REGIONS; i++) {
			atomic_store(slot_in(bases[i], writer, slot), n);
		}
	}
	return NULL;
}

static void open_regions(void)
{
	page_bytes = place_page_bytes(UFFDWP_MEMORY_SHMEM);
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	for (size_t i = 0; i < REGIONS; i++) {
		struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
		if (place_possible(requests[i])) {
			options.mechanism = requests[i].mechanism;
			options.delivery = requests[i].delivery;
		}
		ck_assert_int_eq(uffdwp_region_create(runtime, PAGES * page_bytes, &options, &regions[i]), 0);
		bases[i] = uffdwp_region_base(regions[i]);
		memset(bases[i], 0, PAGES * page_bytes);
	}
}

static void close_regions(void)
{
	for (size_t i = 0; i < REGIONS; i++) {
		ck_assert_int_eq(uffdwp_region_close(regions[i]), 0);
	}
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}

/* What each region's image is made of. */
struct kept_image {
	uint8_t *bytes;
};

static int keep(void *user, uint64_t offset, const void *data, uint64_t length)
{
	memcpy(((struct kept_image *)user)->bytes + offset, data, length);
	return 0;
}

static void set_options(struct uffdwp_snapshot_options *options, struct kept_image *images)
{
	for (size_t i = 0; i < REGIONS; i++) {
		struct uffdwp_snapshot_options one = UFFDWP_SNAPSHOT_OPTIONS_INIT;
		one.sink = UFFDWP_SINK_CALLBACK;
		one.callback = keep;
		one.user = &images[i];
		one.wait_ns = 60000000000u;
		options[i] = one;
		images[i].bytes = calloc(1, PAGES * page_bytes);
		ck_assert_ptr_nonnull(images[i].bytes);
	}
}

static uint64_t number_in(const struct kept_image *images, size_t region, size_t writer, size_t slot)
{
	return atomic_load(slot_in(images[region].bytes, writer, slot));
}

static void judge(const struct kept_image *images, unsigned group)
{
	for (size_t writer = 0; writer < WRITERS; writer++) {
		for (size_t slot = 0; slot < SLOTS; slot++) {
			for (size_t i = 1; i < REGIONS; i++) {
				uint64_t before = number_in(images, i - 1, writer, slot);
				uint64_t after = number_in(images, i, writer, slot);
				ck_assert_msg(after <= before, "group %u: region %zu has %llu, the one before %llu",
				              group, i, (unsigned long long)after, (unsigned long long)before);
			}
		}
	}
}

static int moves_keep(void)
{
	return (place_report()->memory[UFFDWP_MEMORY_SHMEM].fills & UFFDWP_PROBE_FILL_CONTINUE_WP) != 0;
}

static void take_group(unsigned group, int keeps)
{
	struct uffdwp_snapshot_options options[REGIONS];
	struct kept_image images[REGIONS];
	struct uffdwp_snapshot *snapshots[REGIONS];
	uint64_t pauses[REGIONS];
	set_options(options, images);
	for (size_t i = 0; i < REGIONS; i++) {
		int moves = place_moves(requests[i]) && moves_keep() && group % 3;
		options[i].arming = moves ? UFFDWP_ARMING_MOVE : UFFDWP_ARMING_ROUNDS;
		options[i].flags = keeps ? UFFDWP_SNAPSHOT_KEEP : 0;
	}
	ck_assert_int_eq(uffdwp_snapshot_begin_group(regions, options, REGIONS, snapshots), 0);
	for (size_t i = 0; i < REGIONS; i++) {
		struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
		ck_assert_int_eq(uffdwp_snapshot_wait(snapshots[i], -1, &progress), 0);
		ck_assert_int_eq(uffdwp_snapshot_free(snapshots[i]), 0);
		pauses[i] = progress.pause_ns;
	}
	for (size_t i = 1; i < REGIONS; i++) {
		ck_assert_uint_eq(pauses[i], pauses[0]); /* one cut */
	}
	judge(images, group);
	for (size_t i = 0; i < REGIONS; i++) {
		free(images[i].bytes);
	}
}

START_TEST(test_a_group_has_one_cut)
{
	size_t indices[WRITERS];
	pthread_t threads[WRITERS];
	open_regions();
	atomic_store(&stop, 0);
	for (size_t i = 0; i < WRITERS; i++) {
		indices[i] = i;
		threads[i] = thread_start(write_in_order, &indices[i]);
	}
	struct chance chance = chance_new(5);
	for (unsigned group = 0; group < GROUPS; group++) {
		take_group(group, chance_below(&chance, 2) != 0);
		sleep_us(chance_below(&chance, 5000));
	}
	atomic_store(&stop, 1);
	for (size_t i = 0; i < WRITERS; i++) {
		thread_join(threads[i]);
	}
	close_regions();
}
END_TEST

static int begin_expecting(struct uffdwp_region *const *some, const struct uffdwp_snapshot_options *options,
                           size_t count, const char *wanted)
{
	struct uffdwp_snapshot *snapshots[REGIONS];
	char text[256] = "";
	int error = uffdwp_snapshot_begin_group(some, options, count, snapshots);
	if (wanted != NULL) {
		(void)uffdwp_error_text(text, sizeof(text));
		ck_assert_msg(strstr(text, wanted) != NULL, "'%s' does not say '%s'", text, wanted);
	}
	return error;
}

static int enter_nothing(void *user, uint64_t *length)
{
	(void)user;
	(void)length;
	return 0;
}

static void leave_nothing(void *user)
{
	(void)user;
}

START_TEST(test_what_is_no_group)
{
	struct uffdwp_snapshot_options options[REGIONS];
	struct kept_image images[REGIONS];
	open_regions();
	set_options(options, images);
	struct uffdwp_region *twice[] = {regions[0], regions[1], regions[0]};
	ck_assert_int_eq(begin_expecting(regions, options, 0, NULL), -EINVAL);
	ck_assert_int_eq(begin_expecting(regions, options, 65, "at most 64"), -E2BIG);
	ck_assert_int_eq(begin_expecting(twice, options, REGIONS, "are the same"), -EINVAL);
	options[1].cut_enter = enter_nothing;
	options[1].cut_leave = leave_nothing;
	ck_assert_int_eq(begin_expecting(regions, options, REGIONS, "only the first"), -EINVAL);
	options[1].cut_enter = NULL;
	options[1].cut_leave = NULL;
	/* One is busy: none is begun, and none stays armed. */
	struct uffdwp_snapshot *single = NULL;
	ck_assert_int_eq(uffdwp_snapshot_begin(regions[2], &options[2], &single), 0);
	ck_assert_int_eq(begin_expecting(regions, options, REGIONS, "has not been freed"), -EBUSY);
	ck_assert_int_eq(uffdwp_snapshot_wait(single, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(single), 0);
	for (size_t i = 0; i < REGIONS; i++) {
		uint64_t armed = 1;
		ck_assert_int_eq(uffdwp_region_armed(regions[i], 0, PAGES * page_bytes, &armed), 0);
		ck_assert_uint_eq(armed, 0);
		free(images[i].bytes);
	}
	take_group(0, 0);
	close_regions();
}
END_TEST

/* --- images that rest on each other ---------------------------------------------------------------------------------
 */

static struct uffdwp_snapshot_options delta_of(const char *path, const char *parent)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.path = path;
	options.parent = parent;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	return options;
}

static void take_one(struct uffdwp_region *region, const char *path, const char *parent)
{
	struct uffdwp_snapshot_options options = delta_of(path, parent);
	struct uffdwp_snapshot *snapshot = NULL;
	ck_assert_int_eq(uffdwp_snapshot_begin(region, &options, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
}

/* In both orders: the first region's delta rests on what the second's image would replace. */
static void expect_refused_place(struct uffdwp_region *const pair[2], const char *delta, const char *parent,
                                 const char *path)
{
	struct uffdwp_region *turned[2] = {pair[1], pair[0]};
	struct uffdwp_snapshot_options options[2] = {delta_of(delta, parent), delta_of(path, NULL)};
	struct uffdwp_snapshot_options reversed[2] = {options[1], options[0]};
	ck_assert_int_eq(begin_expecting(pair, options, 2, "snapshot 1 would replace \""), -EINVAL);
	ck_assert_int_eq(begin_expecting(turned, reversed, 2, "snapshot 0 would replace \""), -EINVAL);
}

START_TEST(test_no_image_of_a_group_replaces_what_another_rests_on)
{
	char folder[SCRATCH_PATH];
	char base[SCRATCH_PATH];
	char link[SCRATCH_PATH];
	char first[SCRATCH_PATH];
	char second[SCRATCH_PATH];
	struct uffdwp_region *pair[2] = {NULL, NULL};
	if (!place_has_increments(place_any(UFFDWP_MEMORY_SHMEM))) {
		support_note("test_no_image_of_a_group_replaces_what_another_rests_on", "no increments of shmem here");
		return;
	}
	page_bytes = place_page_bytes(UFFDWP_MEMORY_SHMEM);
	scratch_folder(folder);
	scratch_join(base, folder, "base");
	scratch_join(link, folder, "link");
	scratch_join(first, folder, "first");
	scratch_join(second, folder, "second");
	ck_assert_int_eq(symlink("base", link), 0);
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	for (size_t i = 0; i < 2; i++) {
		ck_assert_int_eq(uffdwp_region_create(runtime, PAGES * page_bytes, NULL, &pair[i]), 0);
	}
	take_one(pair[0], base, NULL);
	expect_refused_place(pair, first, base, base);
	expect_refused_place(pair, first, base, link);
	expect_refused_place(pair, first, link, base);
	take_one(pair[0], first, base);
	expect_refused_place(pair, second, first, first);
	expect_refused_place(pair, second, first, base); /* an ancestor */
	struct uffdwp_snapshot_options options = delta_of(base, first);
	ck_assert_int_eq(begin_expecting(pair, &options, 1, "one of its ancestors"), -EINVAL);
	take_one(pair[0], second, first); /* nothing has changed */
	for (size_t i = 0; i < 2; i++) {
		ck_assert_int_eq(uffdwp_region_close(pair[i]), 0);
	}
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}
END_TEST

int main(void)
{
	support_begin("test_group", &(struct support_needs){0, 0});
	place_begin();
	Suite *suite = suite_create("group");
	TCase *tests = tcase_create("group");
	tcase_set_timeout(tests, 120);
	tcase_add_test(tests, test_a_group_has_one_cut);
	tcase_add_test(tests, test_what_is_no_group);
	tcase_add_test(tests, test_no_image_of_a_group_replaces_what_another_rests_on);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
