/* SPDX-License-Identifier: MIT */
/*
 * Whole restores: raw images, sparse ones and chains come back byte for byte into every type of memory under every
 * mechanism, whatever was armed there; zeros stay holes; what is damaged, swapped, cut or too long is refused with its
 * place. The shadow of the chain is the witness.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chain.h"
#include "image.h"
#include "kernel/kernel.h"
#include "place.h"
#include "support.h"
#include "uffdwp.h"

#define MIB ((size_t)1 << 20)
#define REGION_BYTES (4 * MIB)

static struct place place;
static struct test_chain chain;

static void teardown(void)
{
	if (place.runtime != NULL) {
		place_close(&place);
	}
	test_chain_end(&chain);
}

static size_t pages_of(struct place_case which)
{
	return REGION_BYTES / place_page_bytes(which.memory);
}

/* Memory that holds something else, and half of which is armed. */
static int open_place(struct place_case which, const struct kernel_ops *k, uint32_t flags)
{
	if (!place_possible(which)) {
		return 0;
	}
	ck_assert_int_eq(place_try(&place, k, flags, which, pages_of(which)), 0);
	place_fill(&place, 3);
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, REGION_BYTES / 2), 0);
	return 1;
}

static int open_shmem(void)
{
	return open_place(place_any(UFFDWP_MEMORY_SHMEM), NULL, 0);
}

static int restore(struct uffdwp_restore_progress *progress)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	options.path = chain.path;
	*progress = (struct uffdwp_restore_progress){.sz = sizeof(*progress)};
	return uffdwp_restore(place.region, &options, progress);
}

static void print_text(void)
{
	char text[512] = "";
	(void)uffdwp_error_text(text, sizeof(text));
	fprintf(stderr, "%s\n", text);
}

static void expect_memory(void)
{
	static uint8_t expected[REGION_BYTES];
	size_t at = 0;
	memcpy(expected, chain.shadow, chain.length);
	memset(expected + chain.length, 0, REGION_BYTES - chain.length);
	if (memcmp(place.base, expected, REGION_BYTES) == 0) {
		return;
	}
	while (place.base[at] == expected[at]) {
		at++;
	}
	ck_abort_msg("byte %zu is %u, expected %u", at, place.base[at], expected[at]);
}

static void expect_restored(void)
{
	struct uffdwp_restore_progress progress;
	int error = restore(&progress);
	if (error != 0) {
		print_text();
	}
	ck_assert_int_eq(error, 0);
	ck_assert_uint_eq(progress.state, UFFDWP_RESTORE_STATE_DONE);
	ck_assert_int_eq(progress.error, 0);
	ck_assert_uint_eq(progress.length_bytes, chain.length);
	ck_assert_uint_eq(progress.pages_total, (chain.length + place.page_bytes - 1) / place.page_bytes);
	ck_assert_uint_eq(progress.pages_done, progress.pages_total);
	ck_assert_uint_gt(progress.elapsed_ns, 0);
	place_expect_armed(&place, 0);
	expect_memory();
}

static void expect_refused(int error, const char *part)
{
	struct uffdwp_restore_progress progress;
	char text[512] = "";
	int result = restore(&progress);
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(result == error && strstr(text, part) != NULL, "%d and \"%s\", expected %d and \"%s\"", result,
	              text, error, part);
	ck_assert_int_eq(progress.error, error);
	ck_assert_uint_eq(progress.state, UFFDWP_RESTORE_STATE_FAILED);
}

/* ---- what comes back ---- */

START_TEST(test_raw_image_comes_back)
{
	if (!open_place(place_case(_i / 2), NULL, _i % 2 ? UFFDWP_OPEN_NO_URING : 0)) {
		return;
	}
	test_chain_begin(&chain, 4096, 2 * MIB + 300123, 1);
	expect_restored();
	expect_restored();
}
END_TEST

START_TEST(test_chain_comes_back)
{
	if (!open_place(place_case(_i / 2), NULL, _i % 2 ? UFFDWP_OPEN_NO_URING : 0)) {
		return;
	}
	test_chain_begin(&chain, _i % 4 < 2 ? 4096 : 65536, 3 * MIB - 5000, 2);
	test_chain_step(&chain, 3, 3 * MIB - 5000);
	expect_restored();
	test_chain_step(&chain, 0, 1 * MIB + 70001); /* what it cuts off does not come back */
	expect_restored();
	test_chain_step(&chain, 1, 3 * MIB);
	expect_restored();
}
END_TEST

/* Images of every length around pages and blocks. */
START_TEST(test_every_length_comes_back)
{
	static const size_t lengths[] = {0,       1,           4095,        4096,        4097,    8191,
	                                 MIB - 1, MIB,         MIB + 1,     MIB + 4096,  2 * MIB, 2 * MIB - 4096,
	                                 3 * MIB, 3 * MIB - 1, 2 * MIB + 7, MIB + 12288, 65536,   65537};
	if (!open_shmem()) {
		return;
	}
	for (size_t i = 0; i < sizeof(lengths) / sizeof(*lengths); i++) {
		test_chain_begin(&chain, 4096, lengths[i], i);
		expect_restored();
		test_chain_step(&chain, 0, lengths[(i * 7 + 1) % (sizeof(lengths) / sizeof(*lengths))]);
		expect_restored();
		test_chain_end(&chain);
		chain.shadow = NULL;
	}
}
END_TEST

static size_t memory_bytes(void)
{
	struct stat st;
	ck_assert_int_eq(fstat(place_fd(&place), &st), 0);
	return (size_t)st.st_blocks * 512;
}

START_TEST(test_zeros_stay_holes)
{
	if (!open_place(place_any(UFFDWP_MEMORY_SHMEM), NULL, _i ? UFFDWP_OPEN_NO_URING : 0)) {
		return;
	}
	test_chain_begin(&chain, 4096, 0, 4);
	int fd = open(chain.path, O_RDWR | O_CLOEXEC);
	must(fd >= 0);
	chain.length = 3 * MIB;
	must(ftruncate(fd, (off_t)chain.length) == 0);
	for (size_t at = 5 * 4096; at < chain.length; at += 131 * 4096) {
		chain.shadow[at + 9] = (uint8_t)(at / 4096);
		must(pwrite(fd, &chain.shadow[at + 9], 1, (off_t)at + 9) == 1);
	}
	close(fd);
	struct uffdwp_restore_progress progress;
	ck_assert_int_eq(restore(&progress), 0);
	size_t pages = chain.length / 4096 / 131 + 1;
	ck_assert_uint_le(memory_bytes(), pages * 4096);
	ck_assert_uint_le(progress.bytes_read, pages * 4096);
	expect_memory();
}
END_TEST

/* A file system with blocks of 1 KiB: its data and holes lie where the bytes say. */
static int64_t small_blocks_seek(int fd, uint64_t offset, int whence)
{
	struct stat st;
	must(fstat(fd, &st) == 0);
	for (uint64_t at = offset; at < (uint64_t)st.st_size; at = (at / 1024 + 1) * 1024) {
		static const uint8_t zeros[1024];
		uint8_t bytes[1024];
		size_t part = 1024 - at % 1024;
		ssize_t got = pread(fd, bytes, part, (off_t)at);
		must(got > 0);
		if ((memcmp(bytes, zeros, (size_t)got) != 0) == (whence == SEEK_DATA)) {
			return (int64_t)at;
		}
	}
	return whence == SEEK_DATA || offset >= (uint64_t)st.st_size ? -(int64_t)ENXIO : (int64_t)st.st_size;
}

/* Data and holes in turn, of one block each: more runs than a table of them has room for, within each page. */
START_TEST(test_files_of_small_blocks_come_back)
{
	static struct kernel_ops small_blocks;
	small_blocks = kernel_real;
	small_blocks.seek = small_blocks_seek;
	if (!open_place(place_auto_case(_i / 2), &small_blocks, _i % 2 ? UFFDWP_OPEN_NO_URING : 0)) {
		return;
	}
	test_chain_begin(&chain, 4096, 2 * MIB + 5 * 1024, 6);
	memset(chain.shadow, 0, chain.length);
	for (size_t at = 0; at < chain.length; at += at < MIB ? 2048 : 7 * 1024) {
		memset(chain.shadow + at, 'A', 1024);
	}
	scratch_write(chain.path, chain.shadow, chain.length);
	chain.newest.id = test_chain_raw_id(chain.path, chain.length);
	expect_restored();
	test_chain_step(&chain, 0, chain.length);
	expect_restored();
}
END_TEST

static _Atomic uint64_t seek_count;

static int64_t counted_seek(int fd, uint64_t offset, int whence)
{
	atomic_fetch_add(&seek_count, 1);
	return kernel_real.seek(fd, offset, whence);
}

/* All of a chain's raw file is looked at; 8 TiB of hole are passed over in one step. */
START_TEST(test_hole_beyond_the_image_costs_nothing)
{
	static struct kernel_ops counting;
	static const uint64_t length = (uint64_t)8 << 40;
	counting = kernel_real;
	counting.seek = counted_seek;
	if (!open_place(place_any(UFFDWP_MEMORY_SHMEM), &counting, _i ? UFFDWP_OPEN_NO_URING : 0)) {
		return;
	}
	test_chain_begin(&chain, 4096, 2 * MIB, 8);
	if (truncate(chain.path, (off_t)length) != 0) {
		support_note("test_hole_beyond_the_image_costs_nothing", "the file system has no file of 8 TiB");
		return;
	}
	chain.newest.length_bytes = length;
	chain.newest.id = test_chain_raw_id(chain.path, length);
	test_chain_step(&chain, 0, MIB + 5000);
	expect_restored();
	ck_assert_uint_le(atomic_load(&seek_count), 10000);
}
END_TEST

START_TEST(test_sealed_memory_and_memory_without_its_file)
{
	struct place_case which = place_case(_i / 2);
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.flags = UFFDWP_REGION_CREATE_SEALED;
	if (!place_possible(which) || which.memory == UFFDWP_MEMORY_ANON) {
		return;
	}
	if (_i % 2) {
		place_open_with(&place, which, pages_of(which), &options);
	} else if (!place_needs_fd(which)) {
		place_attach(&place, which, pages_of(which), 0);
	} else {
		return;
	}
	place_fill(&place, 3);
	test_chain_begin(&chain, 4096, 3 * MIB - 5000, 2);
	expect_restored();
	test_chain_step(&chain, 3, 2 * MIB + 1);
	expect_restored();
}
END_TEST

START_TEST(test_snapshot_after_a_restore_is_the_image)
{
	if (!open_place(place_auto_case(_i), NULL, 0)) {
		return;
	}
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	char path[SCRATCH_PATH];
	test_chain_begin(&chain, 4096, 3 * MIB - 5000, 6);
	test_chain_step(&chain, 3, 3 * MIB - 9000);
	expect_restored();
	scratch_join(path, chain.folder, "again");
	options.path = path;
	options.length = chain.length;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	memset(place.base, 0x5a, REGION_BYTES);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	ck_assert_int_eq(test_chain_shows(path, chain.shadow, chain.length, &chain.chance), 1);
}
END_TEST

/* ---- what is refused ---- */

static void flip(const char *name, off_t offset)
{
	char path[SCRATCH_PATH];
	uint8_t byte = 0;
	scratch_join(path, chain.folder, name);
	int fd = open(path, O_RDWR | O_CLOEXEC);
	must(fd >= 0 && pread(fd, &byte, 1, offset) == 1);
	byte ^= 0x10;
	must(pwrite(fd, &byte, 1, offset) == 1);
	close(fd);
}

START_TEST(test_damaged_page_is_found)
{
	if (!open_place(place_auto_case(_i / 2), NULL, _i % 2 ? UFFDWP_OPEN_NO_URING : 0)) {
		return;
	}
	test_chain_begin(&chain, 4096, 2 * MIB, 7);
	test_chain_step(&chain, _i % 3 ? 3 : 0, 2 * MIB);
	flip("delta-1", 70000);
	expect_refused(-EBADMSG, "delta-1\" is damaged at byte");
}
END_TEST

START_TEST(test_other_base_is_found)
{
	struct test_chain other;
	char path[SCRATCH_PATH];
	if (!open_place(place_auto_case(_i / 2), NULL, _i % 2 ? UFFDWP_OPEN_NO_URING : 0)) {
		return;
	}
	test_chain_begin(&chain, 4096, 2 * MIB, 8);
	test_chain_step(&chain, 0, MIB);
	flip("base", 2 * (off_t)MIB - 77); /* where no byte is shown */
	expect_refused(-EXDEV, "is not the parent of");
	flip("base", 2 * (off_t)MIB - 77);
	expect_restored();
	test_chain_begin(&other, 4096, 2 * MIB, 9);
	scratch_join(path, chain.folder, "base");
	ck_assert_int_eq(rename(other.path, path), 0);
	test_chain_end(&other);
	expect_refused(-EXDEV, "is not the parent of");
}
END_TEST

START_TEST(test_cut_files_are_found)
{
	char path[SCRATCH_PATH];
	if (!open_shmem()) {
		return;
	}
	test_chain_begin(&chain, 4096, 2 * MIB, 10);
	test_chain_step(&chain, 0, 2 * MIB);
	scratch_join(path, chain.folder, "base");
	ck_assert_int_eq(truncate(path, (off_t)MIB), 0);
	expect_refused(-EXDEV, "base");
	ck_assert_int_eq(truncate(chain.path, 9000), 0);
	expect_refused(-EBADMSG, "delta-1");
	ck_assert_int_eq(unlink(path), 0);
	ck_assert_int_eq(unlink(chain.path), 0);
	expect_refused(-ENOENT, "delta-1");
}
END_TEST

START_TEST(test_too_long_changes_nothing)
{
	if (!open_shmem()) {
		return;
	}
	uint8_t *before = malloc(REGION_BYTES);
	memcpy(before, place.base, REGION_BYTES);
	test_chain_begin(&chain, 4096, MIB, 11);
	ck_assert_int_eq(truncate(chain.path, (off_t)REGION_BYTES + 1), 0);
	expect_refused(-ERANGE, "4194305 bytes");
	place_expect_armed(&place, place.pages / 2);
	ck_assert_mem_eq(place.base, before, REGION_BYTES);
	free(before);
}
END_TEST

START_TEST(test_region_is_not_its_own_image)
{
	if (!open_shmem()) {
		return;
	}
	uint8_t *before = malloc(REGION_BYTES);
	memcpy(before, place.base, REGION_BYTES);
	test_chain_begin(&chain, 4096, MIB, 18);
	(void)snprintf(chain.path, sizeof(chain.path), "/proc/self/fd/%d", place_fd(&place));
	expect_refused(-EINVAL, "own memory");
	ck_assert_mem_eq(place.base, before, REGION_BYTES);
	free(before);
}
END_TEST

START_TEST(test_snapshots_and_views_come_first)
{
	if (!open_shmem()) {
		return;
	}
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	struct uffdwp_view *view = NULL;
	char path[SCRATCH_PATH];
	test_chain_begin(&chain, 4096, MIB, 12);
	scratch_join(path, chain.folder, "image");
	options.path = path;
	options.flags = UFFDWP_SNAPSHOT_KEEP;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	expect_refused(-EBUSY, "uffdwp_snapshot_free");
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	expect_refused(-EBUSY, "uffdwp_snapshot_free");
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	if (uffdwp_view_open(place.region, NULL, &view) == 0) {
		expect_refused(-EBUSY, "uffdwp_view_close");
		ck_assert_int_eq(uffdwp_view_close(view), 0);
	}
	expect_restored();
	options.parent = path; /* of what the region does not hold any more */
	options.path = chain.path;
	ck_assert_int_ne(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
}
END_TEST

START_TEST(test_track_sees_it_all)
{
	if (!open_place(place_auto_case(_i), NULL, 0)) {
		return;
	}
	struct uffdwp_track *track = NULL;
	struct uffdwp_collect collect = UFFDWP_COLLECT_INIT;
	ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, REGION_BYTES), 0);
	test_chain_begin(&chain, 4096, 2 * MIB, 13);
	ck_assert_int_eq(uffdwp_track_start(place.runtime, NULL, &track), 0);
	ck_assert_int_eq(uffdwp_track_add(track, place.base, REGION_BYTES, 0), 0);
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	struct uffdwp_restore_progress progress;
	ck_assert_int_eq(restore(&progress), 0);
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	ck_assert_uint_eq(collect.bytes, REGION_BYTES);
	expect_memory();
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	((volatile uint8_t *)place.base)[5] = 1;
	ck_assert_int_eq(uffdwp_track_collect(track, &collect), 0);
	ck_assert_uint_ge(collect.bytes, place.page_bytes);
	ck_assert_int_eq(uffdwp_track_stop(track), 0);
}
END_TEST

START_TEST(test_arguments_are_checked)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore_progress progress = {.sz = 15};
	const char *paths[] = {NULL};
	if (!open_shmem()) {
		return;
	}
	test_chain_begin(&chain, 4096, MIB, 14);
	ck_assert_int_eq(uffdwp_restore(place.region, NULL, NULL), -EINVAL);
	ck_assert_int_eq(uffdwp_restore(place.region, &options, NULL), -EINVAL);
	options.path = chain.path;
	ck_assert_int_eq(uffdwp_restore(place.region, &options, &progress), -EINVAL);
	options.threads = 65;
	ck_assert_int_eq(uffdwp_restore(place.region, &options, NULL), -EINVAL);
	options.threads = 1;
	options.flags = 1u << 31;
	ck_assert_int_eq(uffdwp_restore(place.region, &options, NULL), -EINVAL);
	options.flags = UFFDWP_RESTORE_RAW;
	options.path_count = 1;
	ck_assert_int_eq(uffdwp_restore(place.region, &options, NULL), -EINVAL);
	options.paths = paths;
	ck_assert_int_eq(uffdwp_restore(place.region, &options, NULL), -EINVAL);
	options.path_count = 0;
	ck_assert_int_eq(uffdwp_restore(place.region, &options, NULL), 0);
	expect_memory();
}
END_TEST

/* ---- a kernel that gives less than was asked for ---- */

static struct kernel_ops odd_kernel; /* in use until the teardown */
static _Atomic unsigned reads;

static int result_odd(int result)
{
	unsigned number = atomic_fetch_add(&reads, 1);
	if (number % 5 == 1) {
		return -EINTR;
	}
	if (number % 5 == 2) {
		return -EAGAIN;
	}
	return number % 5 == 3 && result > 4096 * 3 ? 4096 * 3 - 1 : result;
}

static ssize_t pread_odd(int fd, void *buffer, size_t length, uint64_t offset)
{
	int result = result_odd((int)kernel_real.pread(fd, buffer, length, offset));
	return result == -EAGAIN ? -EINTR : result;
}

START_TEST(test_short_reads_are_gone_on_with)
{
	odd_kernel = kernel_real;
	odd_kernel.pread = pread_odd;
	odd_kernel.uring_result = result_odd;
	if (!open_place(place_auto_case(_i / 2), &odd_kernel, _i % 2 ? UFFDWP_OPEN_NO_URING : 0)) {
		return;
	}
	test_chain_begin(&chain, 4096, 3 * MIB - 5000, 15);
	expect_restored();
}
END_TEST

static int result_einval(int result)
{
	return atomic_fetch_add(&reads, 1) == 0 ? -EINVAL : result;
}

START_TEST(test_disk_with_another_alignment_is_read_through_the_cache)
{
	struct uffdwp_restore_progress progress;
	odd_kernel = kernel_real;
	odd_kernel.uring_result = result_einval;
	if (!open_place(place_any(UFFDWP_MEMORY_SHMEM), &odd_kernel, 0)) {
		return;
	}
	test_chain_begin(&chain, 4096, 3 * MIB, 16);
	ck_assert_int_eq(restore(&progress), 0);
	ck_assert_uint_eq(progress.direct, 0);
	expect_memory();
}
END_TEST

static int result_eio(int result)
{
	return atomic_fetch_add(&reads, 1) == 1 ? -EIO : result;
}

static ssize_t pread_eio(int fd, void *buffer, size_t length, uint64_t offset)
{
	return length > 65536 ? -EIO : kernel_real.pread(fd, buffer, length, offset);
}

START_TEST(test_io_error_is_reported_with_its_place)
{
	odd_kernel = kernel_real;
	odd_kernel.uring_result = result_eio;
	odd_kernel.pread = pread_eio;
	if (!open_place(place_auto_case(_i / 2), &odd_kernel, _i % 2 ? UFFDWP_OPEN_NO_URING : 0)) {
		return;
	}
	test_chain_begin(&chain, 4096, 3 * MIB, 17);
	memset(chain.shadow, 1, chain.length);
	scratch_write(chain.path, chain.shadow, chain.length);
	expect_refused(-EIO, "at byte");
}
END_TEST

/* ---- progress ---- */

struct reported {
	_Atomic int inside;
	unsigned calls;
	uint64_t done;
	uint64_t total;
	unsigned ends_at; /* 0: never */
};

static int take_progress(void *user, uint64_t done_bytes, uint64_t total_bytes)
{
	struct reported *reported = user;
	must(atomic_exchange(&reported->inside, 1) == 0);
	must(done_bytes >= reported->done && done_bytes <= total_bytes);
	reported->done = done_bytes;
	reported->total = total_bytes;
	reported->calls++;
	atomic_store(&reported->inside, 0);
	return reported->calls == reported->ends_at ? -ECANCELED : 0;
}

START_TEST(test_progress_is_reported_and_ends_the_restore)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore *lazy = NULL;
	struct reported all = {.calls = 0};
	char text[512];
	test_chain_begin(&chain, 4096, 3 * MIB, 31);
	test_chain_step(&chain, 0, 3 * MIB - 100);
	ck_assert(open_place(place_any(UFFDWP_MEMORY_SHMEM), NULL, _i ? UFFDWP_OPEN_NO_URING : 0));
	options.path = chain.path;
	options.progress = take_progress;
	options.progress_user = &all;
	ck_assert_int_eq(uffdwp_restore(place.region, &options, NULL), 0);
	ck_assert_uint_ge(all.calls, 2);
	ck_assert_uint_eq(all.done, 3 * MIB - 100);
	ck_assert_uint_eq(all.total, 3 * MIB - 100);
	expect_memory();
	for (unsigned turn = 1;; turn++) {
		struct reported one = {.ends_at = turn};
		options.progress_user = &one;
		int error = uffdwp_restore(place.region, &options, NULL);
		if (one.calls < turn) {
			ck_assert_int_eq(error, 0);
			break;
		}
		ck_assert_int_eq(error, -ECANCELED);
		ck_assert_uint_eq(one.calls, turn);
		(void)uffdwp_error_text(text, sizeof(text));
		ck_assert_msg(strstr(text, "progress callback") != NULL, "%s", text);
	}
	expect_memory();
	ck_assert_int_eq(uffdwp_restore_begin(place.region, &options, &lazy), -EINVAL);
}
END_TEST

int main(void)
{
	support_begin("test_restore", &(struct support_needs){8, 0});
	place_begin();
	Suite *suite = suite_create("restore");
	TCase *tests = tcase_create("restore");
	tcase_add_checked_fixture(tests, NULL, teardown);
	tcase_set_timeout(tests, 100);
	tcase_add_loop_test(tests, test_raw_image_comes_back, 0, PLACE_CASES * 2);
	tcase_add_loop_test(tests, test_chain_comes_back, 0, PLACE_CASES * 2);
	tcase_add_test(tests, test_every_length_comes_back);
	tcase_add_loop_test(tests, test_progress_is_reported_and_ends_the_restore, 0, 2);
	tcase_add_loop_test(tests, test_zeros_stay_holes, 0, 2);
	tcase_add_loop_test(tests, test_files_of_small_blocks_come_back, 0, PLACE_AUTO_CASES * 2);
	tcase_add_loop_test(tests, test_hole_beyond_the_image_costs_nothing, 0, 2);
	tcase_add_loop_test(tests, test_sealed_memory_and_memory_without_its_file, 0, PLACE_CASES * 2);
	tcase_add_loop_test(tests, test_snapshot_after_a_restore_is_the_image, 0, PLACE_AUTO_CASES);
	tcase_add_loop_test(tests, test_damaged_page_is_found, 0, PLACE_AUTO_CASES * 2);
	tcase_add_loop_test(tests, test_other_base_is_found, 0, PLACE_AUTO_CASES * 2);
	tcase_add_test(tests, test_cut_files_are_found);
	tcase_add_test(tests, test_too_long_changes_nothing);
	tcase_add_test(tests, test_region_is_not_its_own_image);
	tcase_add_test(tests, test_snapshots_and_views_come_first);
	tcase_add_loop_test(tests, test_track_sees_it_all, 0, PLACE_AUTO_CASES);
	tcase_add_test(tests, test_arguments_are_checked);
	tcase_add_loop_test(tests, test_short_reads_are_gone_on_with, 0, PLACE_AUTO_CASES * 2);
	tcase_add_test(tests, test_disk_with_another_alignment_is_read_through_the_cache);
	tcase_add_loop_test(tests, test_io_error_is_reported_with_its_place, 0, PLACE_AUTO_CASES * 2);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
