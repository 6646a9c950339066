/* SPDX-License-Identifier: MIT */
/*
 * INV-VIEW: a view shows its cut for ever. Writers keep a shadow under a lock that cuts take; at each cut the shadow is
 * copied, and the view is compared with that copy again and again while writers, punches and the swap go on, other
 * views come and go, and snapshots, increments and a track run beside. What a view costs is asked from the kernel, too:
 * the anonymous pages of its mapping.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "api.h"
#include "chance.h"
#include "image.h"
#include "kernel/kernel.h"
#include "kernel/maps.h"
#include "place.h"
#include "shadow.h"
#include "support.h"

#define PAGES 512
#define OPEN_MOST 4
#define STEPS 120

static struct place place;
static struct shadow shadow = {.place = &place};

struct shown {
	struct uffdwp_view *view;
	uint8_t *expected;
};

static void *swap_for_ever(void *argument)
{
	struct chance chance = chance_new(9);
	(void)argument;
	while (!atomic_load(&shadow.stop)) {
		size_t page = chance_below(&chance, place.pages);
		size_t pages = 1 + chance_below(&chance, place.pages - page);
		must(madvise(place.base + page * place.page_bytes, pages * place.page_bytes, MADV_PAGEOUT) == 0);
		sleep_us(2000);
	}
	return NULL;
}

/* --- views -------------------------------------------------------------------------------------------------------- */

static int enter_cut(void *user)
{
	(void)user;
	must(pthread_rwlock_wrlock(&shadow.lock) == 0);
	return 0;
}

static void leave_cut(void *user)
{
	memcpy(((struct shown *)user)->expected, shadow.bytes, place.length_bytes);
	must(pthread_rwlock_unlock(&shadow.lock) == 0);
}

static void show(struct shown *shown)
{
	struct uffdwp_view_options options = UFFDWP_VIEW_OPTIONS_INIT;
	shown->expected = malloc(place.length_bytes);
	must(shown->expected != NULL);
	options.cut_enter = enter_cut;
	options.cut_leave = leave_cut;
	options.cut_user = shown;
	ck_assert_int_eq(uffdwp_view_open(place.region, &options, &shown->view), 0);
}

static void compare(const struct shown *shown)
{
	const uint8_t *base = uffdwp_view_base(shown->view);
	for (size_t page = 0; page < place.pages; page++) {
		size_t at = page * place.page_bytes;
		ck_assert_msg(memcmp(base + at, shown->expected + at, place.page_bytes) == 0,
		              "page %zu changed in a view", page);
	}
}

/* The memory of its own of the mapping at the address. */
static size_t anonymous_bytes(const void *base)
{
	FILE *smaps = fopen("/proc/self/smaps", "re");
	char line[256];
	size_t kib = 0;
	int inside = 0;
	must(smaps != NULL);
	while (fgets(line, sizeof(line), smaps) != NULL) {
		char *rest = line;
		unsigned long first = strtoul(line, &rest, 16);
		if (rest != line && *rest == '-') {
			unsigned long end = strtoul(rest + 1, NULL, 16);
			inside = (uintptr_t)base >= first && (uintptr_t)base < end;
		} else if (inside && strncmp(line, "Anonymous:", 10) == 0) {
			kib = strtoul(line + 10, NULL, 10);
		}
	}
	(void)fclose(smaps);
	return kib << 10;
}

static void hide(struct shown *shown)
{
	struct uffdwp_view_info info = {.sz = sizeof(info)};
	compare(shown);
	size_t anonymous = anonymous_bytes(uffdwp_view_base(shown->view));
	ck_assert_int_eq(uffdwp_view_info(shown->view, &info), 0);
	ck_assert_int_eq(info.error, 0);
	ck_assert_uint_eq(info.length_bytes, place.length_bytes);
	/* A page may be broken off right now by each writer and the handler, and not be counted yet. */
	ck_assert_uint_le(anonymous, info.private_bytes + (SHADOW_WRITERS + 2) * place.page_bytes);
	ck_assert_int_eq(uffdwp_view_close(shown->view), 0);
	free(shown->expected);
	shown->view = NULL;
}

/* A snapshot beside: sometimes it stays armed, sometimes it is aborted. */
static void take_snapshot(struct chance *chance)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct image image;
	int abort = chance_below(chance, 3) == 0;
	uint8_t *expected = malloc(place.length_bytes);
	must(expected != NULL);
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	options.flags = chance_below(chance, 2) ? UFFDWP_SNAPSHOT_KEEP : 0;
	options.wait_ns = 60000000000u;
	must(pthread_rwlock_wrlock(&shadow.lock) == 0);
	int error = image_begin(&image, place.region, &options);
	memcpy(expected, shadow.bytes, place.length_bytes);
	must(pthread_rwlock_unlock(&shadow.lock) == 0);
	ck_assert_int_eq(error, 0);
	if (abort) {
		ck_assert_int_eq(uffdwp_snapshot_abort(image.snapshot), 0);
	}
	int result = image_finish(&image, NULL);
	ck_assert(result == 0 || (abort && result == -ECANCELED));
	ck_assert(result != 0 || image_difference(&image, expected) == place.length_bytes);
	image_free(&image);
	free(expected);
}

static void collect(struct uffdwp_track *track)
{
	struct uffdwp_collect nowhere = UFFDWP_COLLECT_INIT;
	ck_assert_int_eq(uffdwp_track_collect(track, &nowhere), 0);
}

static void step(struct shown *shown, struct uffdwp_track *track, struct chance *chance)
{
	struct shown *one = &shown[chance_below(chance, OPEN_MOST)];
	if (one->view == NULL) {
		show(one);
	} else if (chance_below(chance, 4) == 0) {
		hide(one);
	} else {
		compare(one);
	}
	if (chance_below(chance, 4) == 0) {
		take_snapshot(chance);
	}
	if (chance_below(chance, 4) == 0) {
		collect(track);
	}
}

static void run(void)
{
	struct shown shown[OPEN_MOST] = {0};
	struct shadow_writer writers[SHADOW_WRITERS];
	pthread_t threads[SHADOW_WRITERS + 1];
	struct uffdwp_track *track = NULL;
	struct chance chance = chance_new(3);
	ck_assert_int_eq(uffdwp_track_start(place.runtime, NULL, &track), 0);
	ck_assert_int_eq(uffdwp_track_add(track, place.base, place.length_bytes, 0), 0);
	atomic_store(&shadow.stop, 0);
	for (size_t i = 0; i < SHADOW_WRITERS; i++) {
		writers[i] = (struct shadow_writer){&shadow, i, chance_new(50 + i)};
		threads[i] = thread_start(shadow_write_for_ever, &writers[i]);
	}
	threads[SHADOW_WRITERS] = thread_start(swap_for_ever, NULL);
	for (unsigned i = 0; i < STEPS; i++) {
		step(shown, track, &chance);
	}
	for (size_t i = 0; i < OPEN_MOST; i++) {
		if (shown[i].view != NULL) {
			hide(&shown[i]);
		}
	}
	atomic_store(&shadow.stop, 1);
	for (size_t i = 0; i <= SHADOW_WRITERS; i++) {
		thread_join(threads[i]);
	}
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
	ck_assert_int_eq(memcmp(place.base, shadow.bytes, place.length_bytes), 0);
}

START_TEST(test_a_view_shows_its_cut)
{
	struct place_case which = place_case(_i);
	if (!place_possible(which) || which.memory != UFFDWP_MEMORY_SHMEM || !place_has_increments(which)) {
		return;
	}
	ck_assert_int_eq(pthread_rwlock_init(&shadow.lock, NULL), 0);
	place_open(&place, which, PAGES);
	shadow.bytes = calloc(1, place.length_bytes);
	ck_assert_ptr_nonnull(shadow.bytes);
	run();
	printf("%s: a view showed its cut\n", place_case_name(which));
	free(shadow.bytes);
	place_close(&place);
}
END_TEST

/* --- beside increments -------------------------------------------------------------------------------------------- */

static uint8_t came[PAGES];

static int note_pages(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	for (uint64_t at = 0; at < length; at += place.page_bytes) {
		uint64_t page = (offset + at) / place.page_bytes;
		must(page < PAGES &&
		     memcmp((const uint8_t *)data + at, shadow.bytes + offset + at, place.page_bytes) == 0);
		came[page] = 1;
	}
	return 0;
}

static void take_kept(uint32_t flags)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	options.flags = UFFDWP_SNAPSHOT_KEEP | flags;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = note_pages;
	memset(came, 0, sizeof(came));
	memcpy(shadow.bytes, place.base, place.length_bytes);
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
}

static void expect_increment(size_t first)
{
	take_kept(UFFDWP_SNAPSHOT_INCREMENT);
	for (size_t page = 0; page < PAGES; page++) {
		int written = page >= first && page < first + 300 && (page - first) % 100 == 0;
		ck_assert_msg(came[page] == written, "page %zu: came %d, written %d", page, came[page], written);
	}
}

/* The later snapshot has what was written before the view, while it was open, and after it; and nothing else. */
START_TEST(test_a_view_ends_no_chain_of_increments)
{
	struct place_case which = place_case(_i);
	struct uffdwp_view *view = NULL;
	if (!place_possible(which) || which.memory != UFFDWP_MEMORY_SHMEM || !place_has_increments(which)) {
		return;
	}
	place_open(&place, which, PAGES);
	place_touch(&place);
	shadow.bytes = calloc(1, place.length_bytes);
	ck_assert_ptr_nonnull(shadow.bytes);
	take_kept(0);
	expect_increment(PAGES); /* from here on neighbours are not taken along */
	place.base[10 * place.page_bytes]++;
	ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &view), 0);
	place.base[110 * place.page_bytes]++;
	ck_assert_int_eq(uffdwp_view_close(view), 0);
	place.base[210 * place.page_bytes]++;
	expect_increment(10);
	place.base[20 * place.page_bytes]++;
	ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &view), 0);
	place.base[120 * place.page_bytes]++;
	place.base[220 * place.page_bytes]++;
	expect_increment(20); /* the view is still open */
	ck_assert_int_eq(uffdwp_view_close(view), 0);
	free(shadow.bytes);
	place_close(&place);
}
END_TEST

/* --- costs and refusals ------------------------------------------------------------------------------------------- */

START_TEST(test_a_view_costs_what_was_written)
{
	struct uffdwp_view *views[2];
	struct uffdwp_view_info info = {.sz = sizeof(info)};
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES);
	place_touch(&place);
	ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &views[0]), 0);
	uint8_t before = place.base[0];
	place.base[0] = (uint8_t)(before + 1);
	ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &views[1]), 0);
	place.base[0] = (uint8_t)(before + 2);
	place.base[9 * place.page_bytes]++;
	const uint8_t *first = uffdwp_view_base(views[0]);
	const uint8_t *second = uffdwp_view_base(views[1]);
	ck_assert_int_eq(first[0], before);
	ck_assert_int_eq(second[0], before + 1);
	ck_assert_int_eq(place.base[0], before + 2);
	for (int i = 0; i < 2; i++) {
		ck_assert_int_eq(uffdwp_view_info(views[i], &info), 0);
		ck_assert_uint_eq(info.private_bytes, 2 * place.page_bytes);
		ck_assert_uint_eq(anonymous_bytes(uffdwp_view_base(views[i])), 2 * place.page_bytes);
	}
	ck_assert_int_eq(uffdwp_region_close(place.region), -EBUSY);
	ck_assert_int_eq(uffdwp_view_close(views[0]), 0);
	ck_assert_int_eq(second[0], before + 1);
	ck_assert_int_eq(uffdwp_view_close(views[1]), 0);
	uint64_t armed = 1;
	ck_assert_int_eq(uffdwp_region_armed(place.region, 0, place.length_bytes, &armed), 0);
	ck_assert_uint_eq(armed, 0);
	ck_assert_int_eq(uffdwp_view_close(NULL), 0);
	place_close(&place);
}
END_TEST

static void read_view(void *view)
{
	must(*(volatile const uint8_t *)uffdwp_view_base(view) == 0);
}

START_TEST(test_a_child_has_no_view)
{
	struct uffdwp_view *view = NULL;
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES);
	ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &view), 0);
	ck_assert_int_ne(child_run(read_view, view), 0); /* SIGSEGV, or what a sanitizer makes of it */
	ck_assert_int_eq(uffdwp_view_close(view), 0);
	place_close(&place);
}
END_TEST

static int refuse(void *user)
{
	(void)user;
	return -EPERM;
}

static void leave_nothing(void *user)
{
	(void)user;
}

static int grow_and_write(void *user)
{
	const uint64_t *grown = user;
	must(uffdwp_region_grow(place.region, *grown) == 0);
	memset(place.base + *grown - place.page_bytes, 'g', place.page_bytes);
	return 0;
}

static void leave_grown(void *user)
{
	(void)user;
}

/* The cut is where cut_enter leaves the region, not where it found it. */
START_TEST(test_a_view_shows_what_the_region_grew_by_until_its_cut)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp_view_options request = UFFDWP_VIEW_OPTIONS_INIT;
	struct uffdwp_view_info info = {.sz = sizeof(info)};
	struct uffdwp_view *view = NULL;
	uint64_t grown = 2 * PAGES * place_page_bytes(UFFDWP_MEMORY_SHMEM);
	options.capacity_bytes = grown;
	place_open_with(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES, &options);
	request.cut_enter = grow_and_write;
	request.cut_leave = leave_grown;
	request.cut_user = &grown;
	ck_assert_int_eq(uffdwp_view_open(place.region, &request, &view), 0);
	ck_assert_int_eq(uffdwp_view_info(view, &info), 0);
	ck_assert_uint_eq(info.length_bytes, grown);
	memset(place.base + grown - place.page_bytes, 'n', place.page_bytes);
	ck_assert_int_eq(((const uint8_t *)uffdwp_view_base(view))[grown - 1], 'g');
	ck_assert_int_eq(uffdwp_view_close(view), 0);
	place_close(&place);
}
END_TEST

START_TEST(test_what_is_refused)
{
	struct uffdwp_view *views[UFFDWP_VIEWS_MAX];
	struct uffdwp_view *more = NULL;
	struct uffdwp_view_options options = UFFDWP_VIEW_OPTIONS_INIT;
	struct uffdwp_view_info info = {.sz = 4};
	uint64_t armed = 1;
	place_open(&place, place_any(UFFDWP_MEMORY_SHMEM), PAGES);
	options.flags = 1;
	ck_assert_int_eq(uffdwp_view_open(place.region, &options, &more), -EINVAL);
	options.flags = 0;
	options.cut_enter = refuse;
	ck_assert_int_eq(uffdwp_view_open(place.region, &options, &more), -EINVAL);
	options.cut_leave = leave_nothing;
	ck_assert_int_eq(uffdwp_view_open(place.region, &options, &more), -EPERM);
	ck_assert_int_eq(uffdwp_region_armed(place.region, 0, place.length_bytes, &armed), 0);
	ck_assert_uint_eq(armed, 0);
	ck_assert_int_eq(uffdwp_view_open(place.region, NULL, NULL), -EINVAL);
	for (int i = 0; i < UFFDWP_VIEWS_MAX; i++) {
		ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &views[i]), 0);
	}
	ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &more), -EMFILE);
	ck_assert_int_eq(uffdwp_view_info(views[0], &info), -EINVAL);
	for (int i = 0; i < UFFDWP_VIEWS_MAX; i++) {
		ck_assert_int_eq(uffdwp_view_close(views[i]), 0);
	}
	struct uffdwp_snapshot_options image = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	image.sink = UFFDWP_SINK_STREAM;
	image.fd = fileno(tmpfile());
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &image, &snapshot), 0);
	ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &more), -EBUSY);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	place_close(&place);
	if (place_possible(place_any(UFFDWP_MEMORY_ANON))) {
		place_open(&place, place_any(UFFDWP_MEMORY_ANON), PAGES);
		ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &more), -EOPNOTSUPP);
		place_close(&place);
	}
}
END_TEST

/* A kernel without uffd-wp for shared memory has no views. In a child: Check is not running yet. */
static void try_view(void *argument)
{
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	struct uffdwp_view *view = NULL;
	(void)argument;
	must(uffdwp_open(NULL, &runtime) == 0);
	must(uffdwp_region_create(runtime, PAGES * place_page_bytes(UFFDWP_MEMORY_SHMEM), NULL, &region) == 0);
	must(uffdwp_view_open(region, NULL, &view) == 0);
	must(uffdwp_view_close(view) == 0);
	must(uffdwp_region_close(region) == 0);
	must(uffdwp_close(runtime) == 0);
}

/* --- a kernel that forbids to write to read-only mappings --------------------------------------------------------- */

static struct kernel_ops unforced;
static int mem = -1;
static _Atomic int forbidden;

static int open_and_note(const char *path, int flags, unsigned mode)
{
	int fd = kernel_real.open(path, flags, mode);
	if (strcmp(path, "/proc/self/mem") == 0) {
		mem = fd;
	}
	return fd;
}

static ssize_t write_unforced(int fd, const void *buffer, size_t length, uint64_t offset)
{
	struct maps_range range;
	if (fd == mem && (maps_look(offset, length, &range) != 0 || !range.writable)) {
		atomic_fetch_add(&forbidden, 1);
		return -EIO;
	}
	return kernel_real.pwrite(fd, buffer, length, offset);
}

START_TEST(test_a_view_needs_no_forced_write)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	size_t page_bytes = (size_t)sysconf(_SC_PAGESIZE);
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	struct uffdwp_view *view;
	unforced = kernel_real;
	unforced.open = open_and_note;
	unforced.pwrite = write_unforced;
	ck_assert_int_eq(api_open(&unforced, NULL, &runtime), 0);
	options.delivery = UFFDWP_DELIVERY_THREAD;
	options.mechanism = UFFDWP_MECHANISM_REARM;
	if (uffdwp_region_create(runtime, PAGES * page_bytes, &options, &region) != 0) {
		support_note(__func__, "rearm is not possible here");
		ck_assert_int_eq(uffdwp_close(runtime), 0);
		return;
	}
	char *base = uffdwp_region_base(region);
	memset(base, 'a', PAGES * page_bytes);
	ck_assert_int_eq(uffdwp_view_open(region, NULL, &view), 0);
	ck_assert_int_eq(atomic_load(&forbidden), 1);
	memset(base, 'b', PAGES * page_bytes / 2);
	const char *shown = uffdwp_view_base(view);
	for (size_t at = 0; at < PAGES * page_bytes; at++) {
		ck_assert_int_eq(shown[at], 'a');
	}
	ck_assert_int_eq(atomic_load(&forbidden), 1);
	ck_assert_int_eq(uffdwp_view_close(view), 0);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}
END_TEST

int main(void)
{
	support_begin("test_view", &(struct support_needs){.huge_pages = 0, .swap = 1});
	place_begin();
	if (child_run(try_view, NULL) != 0) {
		return support_skip("a view of shared memory cannot be opened here: no uffd-wp for it, perhaps");
	}
	Suite *suite = suite_create("view");
	TCase *tests = tcase_create("view");
	tcase_set_timeout(tests, 240);
	tcase_add_loop_test(tests, test_a_view_shows_its_cut, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_view_ends_no_chain_of_increments, 0, PLACE_CASES);
	tcase_add_test(tests, test_a_view_costs_what_was_written);
	tcase_add_test(tests, test_a_child_has_no_view);
	tcase_add_test(tests, test_a_view_shows_what_the_region_grew_by_until_its_cut);
	tcase_add_test(tests, test_what_is_refused);
	tcase_add_test(tests, test_a_view_needs_no_forced_write);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
