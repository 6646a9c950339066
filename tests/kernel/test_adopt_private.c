/* SPDX-License-Identifier: MIT */
/*
 * Private anonymous memory of another process, of which this one has the userfaultfd alone: it is restored lazily, and
 * what that process discards meanwhile is zeros. The witness is the process itself: it reads its memory, and compares
 * with a shadow or hands over what it has read.
 */
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "chance.h"
#include "fault/runtime.h"
#include "kernel/kernel.h"
#include "mapper.h"
#include "place.h"
#include "scratch.h"
#include "support.h"

#define PAGES 2048
#define HUGE_PAGES 8
#define BALLOON_PAGES 8192

static struct uffdwp *runtime;
static struct kernel_ops late_kernel;
static struct uffdwp_region *region;
static struct uffdwp_restore *restore;
static struct mapper_process process;
static struct mapper_board *board;
static uint8_t *expected;
static char folder[SCRATCH_PATH];
static char path[SCRATCH_PATH];

/* _i of the loops: bit 0: huge pages. */
static int is_huge(int row)
{
	return row & 1;
}

static int is_possible(int row)
{
	struct place_case place = {is_huge(row) ? UFFDWP_MEMORY_HUGETLB : UFFDWP_MEMORY_ANON, UFFDWP_MECHANISM_REARM,
	                           UFFDWP_DELIVERY_THREAD};
	return place_restores_lazily(place) && (!is_huge(row) || support_has_huge_pages());
}

/* The process first: it shall not have what the library opens. */
static void open_process(int row, size_t pages, enum mapper_work work)
{
	size_t page = is_huge(row) ? place_page_bytes(UFFDWP_MEMORY_HUGETLB) : (size_t)sysconf(_SC_PAGESIZE);
	board = mapper_board_new(page * pages, page);
	board->seed = chance_seed();
	ck_assert_int_eq(mapper_start(&process, board, -1, 0, work, (row & 2) == 0), 0);
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
}

static struct uffdwp_region_options private_options(void)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.flags = UFFDWP_REGION_ADOPT_PRIVATE;
	options.fd = -1;
	options.huge_page_bytes = board->page_bytes > (size_t)sysconf(_SC_PAGESIZE) ? board->page_bytes : 0;
	return options;
}

static void ck_call(int error)
{
	char text[512];
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(error == 0, "%d: %s", error, text);
}

static void ck_adopt(void)
{
	struct uffdwp_region_options options = private_options();
	ck_call(uffdwp_region_adopt(runtime, board->length, &options, &process.mapper, &region));
}

static void ck_begin(uint32_t flags)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	options.path = path;
	options.flags = flags;
	ck_call(uffdwp_restore_begin(region, &options, &restore));
}

/* An image of bytes by chance, in which every third page is of zeros. */
static void make_image(void)
{
	struct chance chance = chance_new(31);
	expected = malloc(board->length);
	chance_fill(&chance, expected, board->length);
	for (size_t page = 0; page < board->length / board->page_bytes; page += 3) {
		memset(expected + page * board->page_bytes, 0, board->page_bytes);
	}
	scratch_folder(folder);
	scratch_join(path, folder, "image");
	scratch_write(path, expected, board->length);
}

static void close_all(void)
{
	ck_call(uffdwp_region_close(region));
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	mapper_board_free(board);
	free(expected);
}

static void end_process(void)
{
	atomic_store(&board->stop, 1);
	mapper_end(&process);
}

static void wait_for_done(void)
{
	while (!atomic_load(&board->done[0])) {
		usleep(1000);
	}
	atomic_store(&board->done[0], 0);
}

static void ck_shadow(void)
{
	size_t at = 0;
	while (at < board->length && board->shadow[at] == expected[at]) {
		at++;
	}
	ck_assert_msg(at == board->length, "byte %zu of page %zu was read as %#x, not %#x", at % board->page_bytes,
	              at / board->page_bytes, board->shadow[at % board->length], expected[at % board->length]);
}

static void read_once_more(void)
{
	atomic_store(&board->again, 1);
	wait_for_done();
}

/* All of it is there. */
static void end_restored(void)
{
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
}

/* --- restores ----------------------------------------------------------------------------------------------------- */

START_TEST(test_the_process_reads_what_is_restored)
{
	if (!is_possible(_i)) {
		return;
	}
	open_process(_i, is_huge(_i) ? HUGE_PAGES : PAGES, MAPPER_READS_DOWN);
	make_image();
	ck_adopt();
	ck_begin(_i & 4 ? UFFDWP_RESTORE_BEGIN_ON_DEMAND : 0);
	atomic_store(&board->gate, 1);
	wait_for_done();
	ck_shadow();
	end_restored();
	/* What it discards is zeros from now on. */
	atomic_store(&board->discard, 1);
	read_once_more();
	memset(expected, 0, board->length);
	ck_shadow();
	end_process();
	close_all();
}
END_TEST

/* An access that comes before the restore waits for it. */
START_TEST(test_an_access_before_the_restore_waits)
{
	if (!is_possible(_i)) {
		return;
	}
	open_process(_i, is_huge(_i) ? HUGE_PAGES : PAGES, MAPPER_READS);
	make_image();
	atomic_store(&board->gate, 1);
	ck_adopt();
	usleep(20000);
	ck_begin(0);
	wait_for_done();
	ck_shadow();
	end_restored();
	end_process();
	close_all();
}
END_TEST

/* What it discards before the restore begins is zeros, as what it discards later. */
START_TEST(test_what_is_discarded_before_the_restore_is_zeros)
{
	if (!is_possible(_i)) {
		return;
	}
	open_process(_i, is_huge(_i) ? HUGE_PAGES : PAGES, MAPPER_READS_DOWN);
	make_image();
	memset(expected, 0, board->length);
	atomic_store(&board->discard, 1);
	ck_adopt();
	atomic_store(&board->gate, 1); /* registered by now, by whichever process */
	while (atomic_load(&board->discards) < 2) {
		sleep_us(1000);
	}
	ck_begin(_i & 4 ? UFFDWP_RESTORE_BEGIN_ON_DEMAND : 0);
	wait_for_done();
	ck_shadow();
	end_restored();
	end_process();
	close_all();
}
END_TEST

/* A region that is closed before any restore leaves the process as it was: it can be adopted once more. */
START_TEST(test_a_second_region_takes_over_what_the_first_left)
{
	if (!is_possible(_i)) {
		return;
	}
	open_process(_i, is_huge(_i) ? HUGE_PAGES : PAGES, MAPPER_READS);
	make_image();
	atomic_store(&board->gate, 1);
	ck_adopt();
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	options.path = "/nowhere";
	ck_assert_int_eq(uffdwp_restore_begin(region, &options, &restore), -ENOENT);
	ck_assert_int_eq(uffdwp_region_close(region), 0);
	ck_adopt();
	ck_begin(0);
	wait_for_done();
	ck_shadow();
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	end_process();
	close_all();
}
END_TEST

START_TEST(test_chains_come_back_in_another_process)
{
	if (!is_possible(0)) {
		return;
	}
	struct uffdwp_region *source = NULL;
	char parent[SCRATCH_PATH];
	open_process(0, PAGES, MAPPER_READS_DOWN);
	make_image();
	ck_call(uffdwp_region_create(runtime, board->length, NULL, &source));
	memcpy(uffdwp_region_base(source), expected, board->length);
	for (unsigned link = 0; link < 3; link++) {
		struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
		struct uffdwp_snapshot *snapshot = NULL;
		char name[32];
		memcpy(parent, path, sizeof(path));
		(void)snprintf(name, sizeof(name), "link%u", link);
		scratch_join(path, folder, name);
		options.sink = UFFDWP_SINK_IMAGE;
		options.flags = UFFDWP_SNAPSHOT_KEEP;
		options.path = path;
		options.parent = link ? parent : NULL;
		memset((uint8_t *)uffdwp_region_base(source) + (size_t)(31 * link) * board->page_bytes, (int)link + 1,
		       2 * board->page_bytes);
		ck_call(uffdwp_snapshot_begin(source, &options, &snapshot));
		ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
		ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	}
	memcpy(expected, uffdwp_region_base(source), board->length);
	ck_assert_int_eq(uffdwp_region_close(source), 0);
	ck_adopt();
	ck_begin(0);
	atomic_store(&board->gate, 1);
	wait_for_done();
	ck_shadow();
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	end_process();
	close_all();
}
END_TEST

/* --- discards ----------------------------------------------------------------------------------------------------- */

/* Each takes long to begin: the discards that are not waited for come between. */
static int late_copy(int uffd, uint64_t to, const void *from, uint64_t length, uint64_t mode)
{
	usleep(200);
	return kernel_real.uffd_copy(uffd, to, from, length, mode);
}

/* While pages are fetched for one thread its neighbours' are discarded by others: no old content comes back. _i: also
 * with copies that are late (bit 1). */
START_TEST(test_what_is_discarded_while_it_is_fetched_is_zeros)
{
	if (!is_possible(_i)) {
		return;
	}
	open_process(_i, is_huge(_i) ? 8 * HUGE_PAGES : BALLOON_PAGES, MAPPER_BALLOON);
	make_image();
	memcpy(board->shadow, expected, board->length);
	if (_i & 2) {
		struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
		late_kernel = kernel_real;
		late_kernel.uffd_copy = late_copy;
		ck_assert_int_eq(uffdwp_close(runtime), 0);
		ck_assert_int_eq(runtime_open(&late_kernel, &options, NULL, &runtime), 0);
	}
	ck_adopt();
	ck_begin(UFFDWP_RESTORE_BEGIN_ON_DEMAND);
	atomic_store(&board->gate, 1);
	wait_for_done();
	ck_assert_msg(!atomic_load(&board->wrong), "page %llu was not as its shadow",
	              (unsigned long long)((atomic_load(&board->wrong) - 1) / board->page_bytes));
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};
	ck_assert_int_eq(uffdwp_region_stats(region, &stats), 0);
	ck_assert_uint_eq(stats.events_remove, atomic_load(&board->discards));
	end_restored();
	end_process();
	close_all();
}
END_TEST

/* --- the order of accesses ---------------------------------------------------------------------------------------- */

/* The process reads downwards, and what comes along lies above: each page is asked for. */
START_TEST(test_pages_are_noted_in_the_order_of_their_first_access)
{
	if (!is_possible(0)) {
		return;
	}
	size_t most = _i ? PAGES / 4 : 2 * PAGES;
	size_t noted = most < PAGES ? most : PAGES;
	uint64_t *offsets = calloc(PAGES + 1, sizeof(*offsets));
	size_t count = 1;
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	open_process(0, PAGES, MAPPER_READS_DOWN);
	make_image();
	ck_adopt();
	options.path = path;
	options.flags = UFFDWP_RESTORE_BEGIN_ON_DEMAND;
	options.touches_max = most;
	ck_call(uffdwp_restore_begin(region, &options, &restore));
	ck_assert_int_eq(uffdwp_restore_touched(restore, NULL, 0, &count), 0);
	ck_assert_uint_eq(count, 0);
	ck_assert_int_eq(uffdwp_restore_touched(restore, NULL, 1, &count), -EINVAL);
	ck_assert_int_eq(uffdwp_restore_touched(restore, offsets, 1, NULL), -EINVAL);
	atomic_store(&board->gate, 1);
	wait_for_done();
	ck_assert_int_eq(uffdwp_restore_touched(restore, offsets, 2, &count), 0);
	ck_assert_uint_eq(count, noted);
	ck_assert_uint_eq(offsets[2], 0);
	ck_assert_int_eq(uffdwp_restore_touched(restore, offsets, PAGES + 1, &count), 0);
	for (size_t i = 0; i < noted; i++) {
		ck_assert_uint_eq(offsets[i], (PAGES - 1 - i) * board->page_bytes);
	}
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	end_process();
	close_all();
	free(offsets);
}
END_TEST

#define COPIES_MOST PAGES
static uint64_t copied[COPIES_MOST];
static _Atomic size_t copy_count;

static int noted_copy(int uffd, uint64_t to, const void *from, uint64_t length, uint64_t mode)
{
	size_t at = atomic_fetch_add(&copy_count, 1);
	if (at < COPIES_MOST) {
		copied[at] = to;
	}
	return kernel_real.uffd_copy(uffd, to, from, length, mode);
}

static size_t copy_of(size_t page)
{
	size_t offset = page * board->page_bytes;
	const struct uffdwp_mapping *mapping = &process.mappings[offset >= process.mappings[0].length];
	size_t at = 0;
	while (at < atomic_load(&copy_count) && copied[at] != mapping->address + (offset - mapping->offset)) {
		at++;
	}
	return at;
}

static int has_come(void *pages)
{
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};
	return uffdwp_restore_poll(restore, &progress) == 0 && progress.pages_done == *(const uint64_t *)pages;
}

/* On demand (_i 1) these alone come, and what lies beside them. */
START_TEST(test_listed_pages_come_first_and_in_order)
{
	if (!is_possible(0)) {
		return;
	}
	struct uffdwp_options opened = UFFDWP_OPTIONS_INIT;
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	uint64_t beside = 65536 / (uint64_t)sysconf(_SC_PAGESIZE);
	uint64_t expect_done = _i ? 3 * (beside ? beside : 1) : PAGES;
	open_process(0, PAGES, MAPPER_READS_DOWN);
	make_image();
	late_kernel = kernel_real;
	late_kernel.uffd_copy = noted_copy;
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	ck_assert_int_eq(runtime_open(&late_kernel, &opened, NULL, &runtime), 0);
	ck_adopt();
	atomic_store(&copy_count, 0);
	const uint64_t first[] = {512 * board->page_bytes, 40 * board->page_bytes + 1, 1000 * board->page_bytes,
	                          512 * board->page_bytes};
	options.path = path;
	options.threads = 1;
	options.flags = _i ? UFFDWP_RESTORE_BEGIN_ON_DEMAND : 0;
	options.first = first;
	options.first_count = 4;
	ck_call(uffdwp_restore_begin(region, &options, &restore));
	ck_assert(wait_until(has_come, &expect_done, 20));
	ck_assert_uint_eq(copy_of(512), 0);
	ck_assert_uint_lt(copy_of(512), copy_of(40));
	ck_assert_uint_lt(copy_of(40), copy_of(1000));
	ck_assert_uint_lt(copy_of(1000), copy_of(1));
	atomic_store(&board->gate, 1);
	wait_for_done();
	ck_shadow();
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	end_process();
	close_all();
}
END_TEST

/* --- failures ----------------------------------------------------------------------------------------------------- */

static size_t pages_of(uint8_t byte)
{
	size_t count = 0;
	for (size_t page = 0; page < board->length; page += board->page_bytes) {
		count += board->shadow[page] == byte && board->shadow[page + board->page_bytes - 1] == byte;
	}
	return count;
}

/* Nor is one that was closed with what it has not fetched, until the process discards it. */
START_TEST(test_what_was_not_fetched_is_never_zeros)
{
	if (!is_possible(_i)) {
		return;
	}
	open_process(_i, is_huge(_i) ? HUGE_PAGES : PAGES, MAPPER_READS_DOWN);
	make_image();
	size_t pages = board->length / board->page_bytes;
	ck_adopt();
	ck_begin(UFFDWP_RESTORE_BEGIN_ON_DEMAND);
	ck_assert_int_eq(uffdwp_restore_abort(restore), 0);
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), -ECANCELED);
	atomic_store(&board->gate, 1);
	wait_for_done();
	ck_assert_uint_eq(pages_of(MAPPER_BUS), pages);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	read_once_more();
	ck_assert_uint_eq(pages_of(MAPPER_BUS), pages);
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	options.path = path;
	ck_assert_int_eq(uffdwp_restore_begin(region, &options, &restore), -EOPNOTSUPP);
	atomic_store(&board->discard, 1);
	read_once_more();
	ck_assert_uint_eq(pages_of(0), pages);
	end_process();
	close_all();
}
END_TEST

START_TEST(test_a_closed_region_leaves_no_zeros)
{
	if (!is_possible(_i)) {
		return;
	}
	open_process(_i, is_huge(_i) ? HUGE_PAGES : PAGES, MAPPER_READS_DOWN);
	make_image();
	ck_adopt();
	ck_begin(UFFDWP_RESTORE_BEGIN_ON_DEMAND);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	ck_call(uffdwp_region_close(region));
	atomic_store(&board->gate, 1);
	wait_for_done();
	ck_assert_uint_eq(pages_of(MAPPER_BUS), board->length / board->page_bytes);
	end_process();
	region = NULL;
	close_all();
}
END_TEST

START_TEST(test_a_killed_process_ends_its_restore)
{
	if (!is_possible(_i)) {
		return;
	}
	open_process(_i, is_huge(_i) ? HUGE_PAGES : PAGES, MAPPER_READS_DOWN);
	make_image();
	ck_adopt();
	ck_begin(UFFDWP_RESTORE_BEGIN_ON_DEMAND);
	atomic_store(&board->gate, 1);
	mapper_kill(&process, board, 0);
	ck_assert_int_lt(uffdwp_restore_wait(restore, 20000, NULL), 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	ck_assert_int_eq(uffdwp_region_info(region, &info), 0);
	ck_assert(info.dead);
	close_all();
}
END_TEST

/* --- refusals ----------------------------------------------------------------------------------------------------- */

static void expect(int error, int wanted, const char *words)
{
	char text[512] = "";
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(error == wanted && strstr(text, words), "%d, \"%s\" instead of %d, \"%s\"", error, text, wanted,
	              words);
}

START_TEST(test_odd_lists_are_refused)
{
	if (!is_possible(0)) {
		return;
	}
	open_process(0, PAGES, MAPPER_WAITS);
	make_image();
	ck_adopt();
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	uint64_t *first = calloc(PAGES + 1, sizeof(*first));
	options.path = path;
	options.first_count = 1;
	expect(uffdwp_restore_begin(region, &options, &restore), -EINVAL, "first is NULL");
	options.first = first;
	options.first_count = PAGES + 1;
	expect(uffdwp_restore_begin(region, &options, &restore), -EINVAL, "first_count is");
	options.first_count = 3;
	first[2] = board->length;
	expect(uffdwp_restore_begin(region, &options, &restore), -ERANGE, "first[2]");
	first[2] = UINT64_MAX;
	expect(uffdwp_restore_begin(region, &options, &restore), -ERANGE, "first[2]");
	expect(uffdwp_restore(region, &options, NULL), -EINVAL, "uffdwp_restore_begin");
	first[2] = board->length - 1;
	ck_call(uffdwp_restore_begin(region, &options, &restore));
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	end_process();
	close_all();
	free(first);
}
END_TEST

static int adopt_by(const struct uffdwp_region_options *options)
{
	struct uffdwp_region *none = NULL;
	return uffdwp_region_adopt(runtime, board->length, options, &process.mapper, &none);
}

START_TEST(test_what_needs_the_content_is_refused)
{
	if (!is_possible(_i)) {
		return;
	}
	open_process(_i, is_huge(_i) ? HUGE_PAGES : PAGES, MAPPER_WAITS);
	make_image();
	ck_adopt();
	struct uffdwp_snapshot_options snapshot_options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	struct uffdwp_view *view = NULL;
	struct uffdwp_audit audit = {.sz = sizeof(audit)};
	struct uffdwp_restore_options restore_options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	uint64_t armed;
	snapshot_options.sink = UFFDWP_SINK_IMAGE;
	snapshot_options.path = "never";
	restore_options.path = path;
	ck_assert_ptr_null(uffdwp_region_base(region));
	ck_assert_int_eq(uffdwp_region_info(region, &info), 0);
	ck_assert_ptr_null(info.base);
	ck_assert_int_eq((int)info.mechanism, UFFDWP_MECHANISM_REARM);
	expect(uffdwp_snapshot_begin(region, &snapshot_options, &snapshot), -EOPNOTSUPP, "no memfd");
	expect(uffdwp_view_open(region, NULL, &view), -EOPNOTSUPP, "no memfd");
	expect(uffdwp_region_arm(region, 0, board->length), -EOPNOTSUPP, "no memfd");
	expect(uffdwp_region_disarm(region, 0, board->length), -EOPNOTSUPP, "no memfd");
	expect(uffdwp_region_armed(region, 0, board->length, &armed), -EOPNOTSUPP, "no memfd");
	expect(uffdwp_region_punch(region, 0, board->length), -EOPNOTSUPP, "no memfd");
	expect(uffdwp_region_audit(region, &audit), -EOPNOTSUPP, "no memfd");
	expect(uffdwp_restore(region, &restore_options, NULL), -EOPNOTSUPP, "uffdwp_restore_begin");
	expect(uffdwp_region_join(region, &process.mapper), -EOPNOTSUPP, "one process");
	ck_assert_int_eq(uffdwp_prepare_write(region, 0, board->length), -EOPNOTSUPP);
	ck_assert_int_eq(uffdwp_prepare_read(region, 0, board->length), -EOPNOTSUPP);
	end_process();
	close_all();
}
END_TEST

START_TEST(test_odd_options_are_refused)
{
	if (!is_possible(_i)) {
		return;
	}
	size_t system_page = (size_t)sysconf(_SC_PAGESIZE);
	open_process(_i, is_huge(_i) ? HUGE_PAGES : PAGES, MAPPER_WAITS);
	size_t files = scratch_open_files();
	struct uffdwp_region_options options = private_options();
	options.huge_page_bytes = is_huge(_i) ? 0 : 16 * system_page;
	expect(adopt_by(&options), -EINVAL, "not of pages of");
	options.huge_page_bytes = is_huge(_i) ? board->page_bytes * 2 : 3 * system_page;
	expect(adopt_by(&options), -EINVAL, is_huge(_i) ? "pages of" : "huge_page_bytes");
	options.huge_page_bytes = system_page;
	expect(adopt_by(&options), -EINVAL, "huge_page_bytes");
	options = private_options();
	options.fd = process.uffd;
	expect(adopt_by(&options), -EINVAL, "has no file");
	options = private_options();
	options.mechanism = UFFDWP_MECHANISM_MARKER;
	expect(adopt_by(&options), -EINVAL, "rearm");
	options = private_options();
	options.flags |= UFFDWP_REGION_CREATE_INHERIT;
	expect(adopt_by(&options), -EINVAL, "UFFDWP_REGION_ADOPT_PRIVATE");
	options = private_options();
	uint64_t address = process.mappings[0].address;
	process.mappings[0].address += 1ull << 40;
	expect(adopt_by(&options), -EOPNOTSUPP, "if anything is");
	process.mappings[0].address = address;
	ck_assert_uint_eq(scratch_open_files(), files);
	ck_adopt();
	make_image();
	end_process();
	close_all();
}
END_TEST

int main(void)
{
	support_begin("test_adopt_private", &(struct support_needs){.huge_pages = 8 * HUGE_PAGES + 4});
	place_begin();
	if (!is_possible(0)) {
		return support_skip("no page of private memory can be filled here");
	}
	Suite *suite = suite_create("adopt_private");
	TCase *tests = tcase_create("adopt_private");
	tcase_set_timeout(tests, 300);
	tcase_add_loop_test(tests, test_the_process_reads_what_is_restored, 0, 8);
	tcase_add_loop_test(tests, test_what_is_discarded_before_the_restore_is_zeros, 0, 8);
	tcase_add_loop_test(tests, test_an_access_before_the_restore_waits, 0, 2);
	tcase_add_loop_test(tests, test_a_second_region_takes_over_what_the_first_left, 0, 2);
	tcase_add_test(tests, test_chains_come_back_in_another_process);
	tcase_add_loop_test(tests, test_what_is_discarded_while_it_is_fetched_is_zeros, 0, 4);
	tcase_add_loop_test(tests, test_pages_are_noted_in_the_order_of_their_first_access, 0, 2);
	tcase_add_loop_test(tests, test_listed_pages_come_first_and_in_order, 0, 2);
	tcase_add_test(tests, test_odd_lists_are_refused);
	tcase_add_loop_test(tests, test_what_was_not_fetched_is_never_zeros, 0, 2);
	tcase_add_loop_test(tests, test_a_closed_region_leaves_no_zeros, 0, 2);
	tcase_add_loop_test(tests, test_a_killed_process_ends_its_restore, 0, 2);
	tcase_add_loop_test(tests, test_what_needs_the_content_is_refused, 0, 2);
	tcase_add_loop_test(tests, test_odd_options_are_refused, 0, 2);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
