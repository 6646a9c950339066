/* SPDX-License-Identifier: MIT */
/*
 * Regions on the real kernel, for each type of memory, each mechanism and each delivery: arming, what the ledger says
 * against what the kernel says (place.h), everything that happens to memory while it is armed, growing, punching,
 * closing. What is special to one mechanism has a file of its own; here tests differ only where a mechanism promises
 * something else: with `minor` reading counts as writing, and with `mprotect` the kernel reports nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernel/kernel.h"
#include "place.h"
#include "scratch.h"
#include "support.h"

#define PAGES 8

static struct place place;

static int open_case(int index)
{
	if (!place_possible(place_case(index))) {
		return 0;
	}
	place_open(&place, place_case(index), PAGES);
	return 1;
}

static void store(size_t page, uint8_t value)
{
	((volatile uint8_t *)place.base)[page * place.page_bytes + 5] = value;
}

static uint8_t load(size_t page)
{
	return ((volatile uint8_t *)place.base)[page * place.page_bytes + 5];
}

static int arm(size_t page, size_t pages)
{
	return uffdwp_region_arm(place.region, page * place.page_bytes, pages * place.page_bytes);
}

static int is_minor(void)
{
	return place.mechanism == UFFDWP_MECHANISM_MINOR;
}

static void expect_armed(size_t pages)
{
	place_expect_armed(&place, pages);
}

/* A write to an armed page faults once, lands, and leaves the page open. */
static void expect_caught(size_t page, uint8_t value)
{
	uint64_t before = place_stats(&place).faults;
	store(page, value);
	ck_assert_uint_eq(load(page), value);
	ck_assert_uint_eq(place_faults(&place, before + 1), before + 1);
	store(page, (uint8_t)(value + 1));
	ck_assert_uint_eq(place_faults(&place, before + 1), before + 1);
}

START_TEST(test_region_describes_itself)
{
	if (open_case(_i)) {
		struct uffdwp_region_info info = {.sz = sizeof(info)};
		ck_assert_int_eq(uffdwp_region_info(place.region, &info), 0);
		ck_assert_ptr_eq(info.base, place.base);
		ck_assert_uint_eq(info.length_bytes, place.length_bytes);
		ck_assert_uint_eq(info.capacity_bytes, place.length_bytes);
		ck_assert_uint_eq(info.page_bytes, place.page_bytes);
		ck_assert_uint_eq(info.memory, place_case(_i).memory);
		ck_assert_uint_eq(info.mechanism, place_case(_i).mechanism);
		ck_assert_uint_eq(info.delivery, place_case(_i).delivery);
		ck_assert_uint_eq(info.dead, 0);
		ck_assert_uint_eq(info.aliases, 0);
		ck_assert_int_eq(info.fd >= 0, place_case(_i).memory != UFFDWP_MEMORY_ANON);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_auto_takes_what_the_probe_said)
{
	struct place_case which = place_any((enum uffdwp_memory)_i);
	if (!place_possible(which)) {
		return;
	}
	place_open(&place, which, PAGES);
	ck_assert_uint_eq(place.mechanism, place_report()->memory[_i].mechanism);
	int with_thread = place_report()->memory[_i].rungs[place.mechanism].thread_works != 0;
	ck_assert_uint_eq(place.delivery, with_thread ? UFFDWP_DELIVERY_THREAD : UFFDWP_DELIVERY_INLINE);
	place_close(&place);
}
END_TEST

START_TEST(test_new_region_is_not_armed_and_reads_as_zeros)
{
	if (open_case(_i)) {
		expect_armed(0);
		for (size_t page = 0; page < PAGES; page++) {
			ck_assert_uint_eq(load(page), 0);
		}
		store(1, 3);
		ck_assert_uint_eq(place_faults(&place, 0), 0);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_armed_page_faults_once_per_arming)
{
	if (open_case(_i)) {
		place_touch(&place);
		for (unsigned round = 0; round < 3; round++) {
			ck_assert_int_eq(arm(0, PAGES), 0);
			expect_armed(PAGES);
			expect_caught(2, (uint8_t)(round + 10));
			expect_armed(PAGES - 1);
		}
		ck_assert_uint_eq(place_stats(&place).pages_disarmed, 3);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_reads_do_not_fault)
{
	if (place_case(_i).mechanism != UFFDWP_MECHANISM_MINOR && open_case(_i)) {
		place_touch(&place);
		ck_assert_int_eq(arm(0, PAGES), 0);
		for (size_t page = 0; page < PAGES; page++) {
			(void)load(page);
		}
		expect_armed(PAGES);
		ck_assert_uint_eq(place_faults(&place, 0), 0);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_ledger_and_page_tables_agree_on_every_range)
{
	if (open_case(_i)) {
		place_touch(&place);
		ck_assert_int_eq(arm(1, 3), 0);
		ck_assert_int_eq(arm(6, 1), 0);
		expect_armed(4);
		ck_assert_int_eq(arm(2, 4), 0); /* overlaps what is armed */
		expect_armed(6);
		ck_assert_int_eq(uffdwp_region_disarm(place.region, 3 * place.page_bytes, 2 * place.page_bytes), 0);
		expect_armed(4);
		uint64_t pages = 0;
		ck_assert_int_eq(uffdwp_region_armed(place.region, 2 * place.page_bytes, 2 * place.page_bytes, &pages),
		                 0);
		ck_assert_uint_eq(pages, 1);
		ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, place.length_bytes), 0);
		expect_armed(0);
		store(1, 1);
		ck_assert_uint_eq(place_faults(&place, 0), 0);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_never_populated_page_is_caught)
{
	if (open_case(_i)) {
		ck_assert_int_eq(arm(0, PAGES), 0);
		ck_assert_uint_eq(place_ledger(&place), PAGES);
		ck_assert_uint_eq(load(4), 0);
		ck_assert_int_eq(place_is_armed(&place, 4), !is_minor());
		expect_caught(3, 42);
		if (!is_minor()) {
			expect_caught(4, 43);
		}
		place_close(&place);
	}
}
END_TEST

static int takes_dontneed(int index)
{
	return place_possible(place_case(index)) && place_takes_dontneed(place_case(index).memory);
}

static int remove_was_seen(void *argument)
{
	(void)argument;
	return place_stats(&place).events_remove > 0;
}

START_TEST(test_dontneed_page_is_caught)
{
	if (place_case(_i).memory == UFFDWP_MEMORY_ANON) {
		return; /* the kernel forgets anonymous memory then, and the wp bit: reported, see below */
	}
	if (takes_dontneed(_i) && open_case(_i)) {
		place_touch(&place);
		ck_assert_int_eq(arm(0, PAGES), 0);
		ck_assert_int_eq(madvise(place.base, place.length_bytes, MADV_DONTNEED), 0);
		expect_caught(2, 7);
		if (place.mechanism == UFFDWP_MECHANISM_MARKER) {
			ck_assert_int_eq(wait_until(remove_was_seen, NULL, 20), 1);
			ck_assert_uint_eq(place_stats(&place).events_remove, 1);
		}
		place_close(&place);
	}
}
END_TEST

/* The event is counted before it is acted on. */
static int losses_were_counted(void *argument)
{
	(void)argument;
	return place_stats(&place).pages_lost >= 2;
}

/* By marker: nothing faults where the wp bit went away with the content, the event is all there is. */
START_TEST(test_dontneed_of_anonymous_memory_is_reported_as_lost)
{
	struct place_case which = {UFFDWP_MEMORY_ANON, UFFDWP_MECHANISM_MARKER,
	                           (enum uffdwp_delivery)(UFFDWP_DELIVERY_THREAD + _i)};
	if (!place_possible(which)) {
		return;
	}
	place_open(&place, which, PAGES);
	place_touch(&place);
	ck_assert_int_eq(arm(0, PAGES), 0);
	ck_assert_int_eq(madvise(place.base + place.page_bytes, 2 * place.page_bytes, MADV_DONTNEED), 0);
	ck_assert_int_eq(wait_until(losses_were_counted, NULL, 20), 1);
	struct uffdwp_region_stats stats = place_stats(&place);
	ck_assert_uint_eq(stats.pages_lost, 2);
	ck_assert_uint_eq(stats.lost_by[UFFDWP_LOSS_ZAP], 2);
	expect_armed(PAGES - 2);
	store(1, 9);
	expect_caught(5, 9);
	place_close(&place);
}
END_TEST

START_TEST(test_punch_gives_zeros_and_the_page_works)
{
	if (open_case(_i)) {
		place_touch(&place);
		ck_assert_int_eq(arm(0, PAGES), 0);
		ck_assert_int_eq(uffdwp_region_punch(place.region, 2 * place.page_bytes, 3 * place.page_bytes), 0);
		for (size_t page = 2; page < 5; page++) {
			ck_assert_uint_eq(place.base[page * place.page_bytes], 0);
		}
		ck_assert_uint_eq(place.base[5 * place.page_bytes], 6);
		ck_assert_int_eq(place_agrees(&place), 1);
		store(3, 77);
		ck_assert_uint_eq(load(3), 77);
		expect_caught(6, 1);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_page_punched_outside_is_caught)
{
	if (place_case(_i).memory != UFFDWP_MEMORY_ANON && open_case(_i)) {
		place_touch(&place);
		ck_assert_int_eq(arm(0, PAGES), 0);
		ck_assert_int_eq(fallocate(place_fd(&place), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
		                           (off_t)place.length_bytes),
		                 0);
		ck_assert_uint_eq(load(1), 0);
		if (!is_minor()) {
			expect_caught(1, 5);
		}
		expect_caught(2, 5);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_swapped_out_page_is_caught)
{
	if (place_case(_i).memory == UFFDWP_MEMORY_HUGETLB) {
		return; /* is never swapped */
	}
	if (!place_possible(place_case(_i))) {
		return;
	}
	if (!support_has_swap()) {
		support_note(__func__, "no swap");
		return;
	}
	place_open(&place, place_case(_i), PAGES);
	place_touch(&place);
	ck_assert_int_eq(arm(0, PAGES), 0);
	ck_assert_int_eq(madvise(place.base, place.length_bytes, MADV_PAGEOUT), 0);
	expect_armed(PAGES);
	ck_assert_uint_eq(place.base[3 * place.page_bytes], 4);
	expect_armed(is_minor() ? PAGES - 1 : PAGES);
	if (!is_minor()) {
		expect_caught(3, 50);
	}
	expect_caught(4, 51);
	expect_armed(PAGES - 2);
	place_close(&place);
}
END_TEST

static int base_has_moved(void *argument)
{
	return uffdwp_region_base(place.region) == argument;
}

START_TEST(test_mremap_of_attached_memory_is_followed)
{
	if (!place_follows(place_case(_i)) || !place_possible(place_case(_i))) {
		return;
	}
	place_attach(&place, place_case(_i), PAGES, 1);
	place_touch(&place);
	ck_assert_int_eq(arm(0, PAGES), 0);
	struct patch target = patch_map(place_case(_i).memory, PAGES);
	void *moved =
	        mremap(place.base, place.length_bytes, place.length_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, target.base);
	ck_assert_ptr_eq(moved, target.base);
	ck_assert_int_eq(wait_until(base_has_moved, moved, 20), 1);
	uint8_t *old = place.base;
	place.base = moved;
	ck_assert_ptr_null(uffdwp_region_locate(old));
	ck_assert_ptr_eq(uffdwp_region_locate(place.base + 9), place.region);
	ck_assert_uint_eq(place_stats(&place).events_remap, 1);
	expect_armed(PAGES);
	expect_caught(2, 20);
	ck_assert_uint_eq(place.base[2 * place.page_bytes], 3);
	ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, place.length_bytes), 0);
	expect_armed(0);
	place_close(&place);
	if (target.fd >= 0) {
		close(target.fd);
	}
}
END_TEST

static int is_dead(void *argument)
{
	(void)argument;
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	return uffdwp_region_info(place.region, &info) == 0 && info.dead;
}

START_TEST(test_unmapped_region_is_dead_and_says_so)
{
	if (!place_follows(place_case(_i)) || !place_possible(place_case(_i))) {
		return;
	}
	place_attach(&place, place_case(_i), PAGES, 1);
	place_touch(&place);
	ck_assert_int_eq(arm(0, PAGES), 0);
	ck_assert_int_eq(munmap(place.base, place.length_bytes), 0);
	ck_assert_int_eq(wait_until(is_dead, NULL, 20), 1);
	ck_assert_int_eq(arm(0, 1), -ESTALE);
	ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, place.page_bytes), -ESTALE);
	ck_assert_int_eq(uffdwp_region_punch(place.region, 0, place.page_bytes), -ESTALE);
	ck_assert_int_eq(uffdwp_prepare_write(place.region, 0, 1), -ESTALE);
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.sink = UFFDWP_SINK_STREAM;
	options.fd = 1;
	struct uffdwp_snapshot *snapshot = NULL;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), -ESTALE);
	ck_assert_ptr_null(snapshot);
	char text[200];
	ck_assert_uint_gt(uffdwp_error_text(text, sizeof(text)), 0);
	ck_assert_uint_eq(place_stats(&place).events_unmap, 1);
	place.base = NULL;
	int fd = place.fd;
	place_close(&place);
	if (fd >= 0) {
		close(fd);
	}
}
END_TEST

/* Not by mprotect: there the caller's mprotect() takes the protection itself, see test_audit.c. */
START_TEST(test_mprotect_and_back_keeps_the_wp_bits)
{
	if (place_case(_i).mechanism != UFFDWP_MECHANISM_MPROTECT && open_case(_i)) {
		place_touch(&place);
		ck_assert_int_eq(arm(0, PAGES), 0);
		ck_assert_int_eq(mprotect(place.base, place.length_bytes, PROT_READ), 0);
		ck_assert_int_eq(mprotect(place.base, place.length_bytes, PROT_READ | PROT_WRITE), 0);
		expect_armed(PAGES);
		expect_caught(0, 4);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_region_grows_in_place)
{
	if (place_case(_i).memory == UFFDWP_MEMORY_ANON || !place_possible(place_case(_i))) {
		return;
	}
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	size_t page = place_page_bytes(place_case(_i).memory);
	options.capacity_bytes = 4 * page;
	place_open_with(&place, place_case(_i), 1, &options);
	store(0, 8);
	ck_assert_int_eq(uffdwp_region_grow(place.region, 3 * page), 0);
	ck_assert_ptr_eq(uffdwp_region_base(place.region), place.base);
	place.pages = 3;
	place.length_bytes = 3 * page;
	ck_assert_uint_eq(load(0), 8);
	ck_assert_uint_eq(load(2), 0);
	ck_assert_int_eq(arm(0, 3), 0);
	ck_assert_uint_eq(place_ledger(&place), 3);
	expect_caught(2, 9);
	ck_assert_int_eq(uffdwp_region_grow(place.region, 2 * page), -EINVAL);
	ck_assert_int_eq(uffdwp_region_grow(place.region, 5 * page), -ENOSPC);
	ck_assert_int_eq(uffdwp_region_grow(place.region, 3 * page + 1), -EINVAL);
	expect_caught(1, 9);
	place_close(&place);
}
END_TEST

START_TEST(test_prepared_write_does_not_fault)
{
	if (open_case(_i)) {
		place_touch(&place);
		/* Before anything is armed, too. */
		ck_assert_int_eq(uffdwp_prepare_write(place.region, place.length_bytes, 1), -ERANGE);
		ck_assert_int_eq(arm(0, PAGES), 0);
		ck_assert_int_eq(uffdwp_prepare_write(place.region, 2 * place.page_bytes - 1, 2), 0);
		expect_armed(PAGES - 2);
		store(1, 1);
		store(2, 2);
		ck_assert_uint_eq(place_faults(&place, 0), 0);
		ck_assert_int_eq(uffdwp_prepare_write(place.region, 2 * place.page_bytes - 1, 2), 0);
		ck_assert_int_eq(uffdwp_prepare_write(place.region, place.length_bytes, 1), -ERANGE);
		ck_assert_int_eq(uffdwp_prepare_write(place.region, 1, UINT64_MAX), -ERANGE);
		expect_armed(PAGES - 2);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_closed_region_is_disarmed_and_memory_stays)
{
	if (!place_possible(place_case(_i))) {
		return;
	}
	place_attach(&place, place_case(_i), PAGES, place_needs_fd(place_case(_i)));
	place_touch(&place);
	ck_assert_int_eq(arm(0, PAGES), 0);
	ck_assert_int_eq(uffdwp_close(place.runtime), -EBUSY);
	ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	ck_assert_int_eq(place_released(&place), 1);
	place_touch(&place);
	ck_assert_ptr_null(uffdwp_region_locate(place.base));
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
	struct patch patch = {place.base, place.page_bytes, place.length_bytes, place.fd};
	patch_unmap(&patch);
}
END_TEST

START_TEST(test_memory_can_be_attached_again)
{
	if (!place_possible(place_case(_i))) {
		return;
	}
	place_attach(&place, place_case(_i), PAGES, 1);
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.fd = place.fd;
	for (unsigned round = 0; round < 5; round++) {
		ck_assert_int_eq(arm(0, PAGES), 0);
		store(round, 3);
		ck_assert_int_eq(uffdwp_region_close(place.region), 0);
		options.delivery = place_delivery(place_case(_i).memory, round);
		ck_assert_int_eq(
		        uffdwp_region_attach(place.runtime, place.base, place.length_bytes, &options, &place.region),
		        0);
	}
	place_close(&place);
}
END_TEST

/* --- more than one -------------------------------------------------------------------------------------------- */

START_TEST(test_part_of_a_mapping_can_be_attached)
{
	if (!place_possible(place_case(_i))) {
		return;
	}
	struct patch patch = patch_map(place_case(_i).memory, 4);
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.mechanism = place_case(_i).mechanism;
	options.delivery = place_case(_i).delivery;
	options.fd = patch.fd;
	options.fd_offset = patch.fd >= 0 ? patch.page_bytes : 0;
	ck_assert_int_eq(uffdwp_open(NULL, &place.runtime), 0);
	ck_assert_int_eq(uffdwp_region_attach(place.runtime, patch.base + patch.page_bytes, 2 * patch.page_bytes,
	                                      &options, &place.region),
	                 0);
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, 2 * patch.page_bytes), 0);
	for (size_t page = 0; page < 4; page++) {
		((volatile uint8_t *)patch.base)[page * patch.page_bytes] = 1;
	}
	ck_assert_uint_eq(place_faults(&place, 2), 2);
	ck_assert_int_eq(uffdwp_region_punch(place.region, 0, patch.page_bytes), 0);
	ck_assert_uint_eq(patch.base[0], 1);
	ck_assert_uint_eq(patch.base[patch.page_bytes], 0);
	ck_assert_uint_eq(patch.base[2 * patch.page_bytes], 1);
	place_close(&place);
	patch_unmap(&patch);
}
END_TEST

/* A terabyte of 4 KiB pages: its ledger alone would be 256 MiB. */
START_TEST(test_a_sparse_region_takes_what_it_uses)
{
	const uint64_t bytes = (uint64_t)getpagesize() << 28;
	struct uffdwp_region *region;
	struct uffdwp *runtime;
	uint64_t before;
	uint64_t after;

	support_memory(NULL, &before);
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	int error = uffdwp_region_create(runtime, bytes, NULL, &region);

	if (error == 0) {
		volatile uint8_t *base = uffdwp_region_base(region);
		const uint64_t page = (uint64_t)getpagesize();

		base[bytes - 1] = 1;
		ck_assert_int_eq(uffdwp_region_arm(region, bytes - page, page), 0);
		base[bytes - 1] = 2;
		ck_assert_int_eq(base[bytes - 1], 2);
		support_memory(NULL, &after);
		long taken = ((long)after - (long)before) >> 20;

		printf("a sparse region of %llu GiB takes %ld MiB\n", (unsigned long long)bytes >> 30, taken);
		ck_assert_int_lt(taken, 64);
		ck_assert_int_eq(uffdwp_region_close(region), 0);
	} else {
		support_note("a sparse region", strerror(-error));
	}
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}
END_TEST

START_TEST(test_regions_of_one_runtime_do_not_disturb_each_other)
{
	enum { REGIONS = 6 };
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *regions[REGIONS];
	size_t page = place_page_bytes(UFFDWP_MEMORY_SHMEM);
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	for (unsigned i = 0; i < REGIONS; i++) {
		struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
		options.delivery = place_delivery(UFFDWP_MEMORY_SHMEM, i);
		ck_assert_int_eq(uffdwp_region_create(runtime, 4 * page, &options, &regions[i]), 0);
		ck_assert_int_eq(uffdwp_region_arm(regions[i], 0, 4 * page), 0);
	}
	for (unsigned i = 0; i < REGIONS; i++) {
		volatile uint8_t *base = uffdwp_region_base(regions[i]);
		for (size_t p = 0; p < i % 4; p++) {
			base[p * page] = 1;
		}
	}
	for (unsigned i = 0; i < REGIONS; i++) {
		uint64_t armed = 0;
		ck_assert_int_eq(uffdwp_region_armed(regions[i], 0, 4 * page, &armed), 0);
		ck_assert_uint_eq(armed, 4 - i % 4);
		ck_assert_int_eq(uffdwp_region_close(regions[i]), 0);
	}
	ck_assert_int_eq(uffdwp_close(runtime), 0);
}
END_TEST

START_TEST(test_several_runtimes_work_side_by_side)
{
	enum { RUNTIMES = 4 };
	struct place places[RUNTIMES];
	for (unsigned i = 0; i < RUNTIMES; i++) {
		struct place_case which = place_any(UFFDWP_MEMORY_SHMEM);
		which.delivery = place_delivery(UFFDWP_MEMORY_SHMEM, i);
		place_open(&places[i], which, 4);
		ck_assert_int_eq(uffdwp_region_arm(places[i].region, 0, places[i].length_bytes), 0);
	}
	place_close(&places[1]);
	for (unsigned i = 0; i < RUNTIMES; i++) {
		if (i != 1) {
			place_touch(&places[i]);
			ck_assert_uint_eq(place_faults(&places[i], 4), 4);
			place_close(&places[i]);
		}
	}
}
END_TEST

START_TEST(test_runtime_with_many_handlers_and_no_uring_works)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	options.flags = _i & 1 ? UFFDWP_OPEN_NO_URING : 0;
	options.handler_threads = _i & 2 ? 3 : 1;
	options.handler_cpus = _i & 4 ? "0" : NULL;
	ck_assert_int_eq(uffdwp_open(&options, &place.runtime), 0);
	size_t page = place_page_bytes(UFFDWP_MEMORY_SHMEM);
	for (unsigned round = 0; round < 4; round++) {
		ck_assert_int_eq(uffdwp_region_create(place.runtime, page, NULL, &place.region), 0);
		ck_assert_int_eq(uffdwp_region_arm(place.region, 0, page), 0);
		*(volatile uint8_t *)uffdwp_region_base(place.region) = 1;
		ck_assert_uint_eq(place_faults(&place, 1), 1);
		ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	}
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
}
END_TEST

/* --- flags ---------------------------------------------------------------------------------------------------- */

START_TEST(test_numa_placement_is_taken)
{
	size_t page = place_page_bytes(UFFDWP_MEMORY_SHMEM);
	if (!SUPPORT_NUMA) {
		support_note(__func__, "the library was built without libnuma");
		return;
	}
	ck_assert_int_eq(uffdwp_open(NULL, &place.runtime), 0);
	for (uint32_t numa = UFFDWP_NUMA_BIND; numa <= UFFDWP_NUMA_INTERLEAVE; numa++) {
		struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
		options.numa = numa;
		options.numa_nodes = 1;
		ck_assert_int_eq(uffdwp_region_create(place.runtime, page, &options, &place.region), 0);
		*(volatile uint8_t *)uffdwp_region_base(place.region) = 1;
		ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	}
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
}
END_TEST

START_TEST(test_open_and_close_leak_no_descriptor)
{
	if (open_case(_i)) {
		place_close(&place);
		size_t before = scratch_open_files();
		for (unsigned round = 0; round < 5; round++) {
			place_open(&place, place_case(_i), 2);
			ck_assert_int_eq(arm(0, 2), 0);
			store(0, 1);
			place_close(&place);
		}
		ck_assert_uint_eq(scratch_open_files(), before);
	}
}
END_TEST

static void add_matrix(TCase *tests)
{
	tcase_add_loop_test(tests, test_region_describes_itself, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_auto_takes_what_the_probe_said, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_new_region_is_not_armed_and_reads_as_zeros, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_armed_page_faults_once_per_arming, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_reads_do_not_fault, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_ledger_and_page_tables_agree_on_every_range, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_never_populated_page_is_caught, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_dontneed_page_is_caught, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_dontneed_of_anonymous_memory_is_reported_as_lost, 0, 2);
	tcase_add_loop_test(tests, test_punch_gives_zeros_and_the_page_works, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_page_punched_outside_is_caught, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_swapped_out_page_is_caught, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_mremap_of_attached_memory_is_followed, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_unmapped_region_is_dead_and_says_so, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_mprotect_and_back_keeps_the_wp_bits, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_region_grows_in_place, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_prepared_write_does_not_fault, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_closed_region_is_disarmed_and_memory_stays, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_memory_can_be_attached_again, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_part_of_a_mapping_can_be_attached, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_open_and_close_leak_no_descriptor, 0, PLACE_CASES);
}

/* --- the kernel --------------------------------------------------------------------------------------------------- */

static void *write_byte(void *to)
{
	*(volatile uint8_t *)to = 1;
	return NULL;
}

/* The kernel itself wakes only those that wait for missing pages. */
START_TEST(test_a_thread_that_waits_at_a_wp_bit_goes_on_when_the_page_is_unregistered)
{
	size_t length = (size_t)sysconf(_SC_PAGESIZE);
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_PAGEFAULT_FLAG_WP};
	pthread_t writer;
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0) {
		support_note(__func__, "no userfaultfd with wp bits");
		return;
	}
	uint8_t *page = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(page != MAP_FAILED);
	*page = 0;
	uintptr_t start = (uintptr_t)page;
	ck_assert_int_eq(kernel_real.uffd_register(uffd, start, length, UFFDIO_REGISTER_MODE_WP), 0);
	ck_assert_int_eq(kernel_real.uffd_writeprotect(uffd, start, length, UFFDIO_WRITEPROTECT_MODE_WP), 0);
	must(pthread_create(&writer, NULL, write_byte, page) == 0);
	struct pollfd fault = {.fd = uffd, .events = POLLIN};
	ck_assert_int_eq(poll(&fault, 1, 20000), 1); /* it waits */
	ck_assert_int_eq(kernel_real.uffd_unregister(uffd, start, length), 0);
	must(pthread_join(writer, NULL) == 0);
	ck_assert_uint_eq(*page, 1);
	must(munmap(page, length) == 0 && close(uffd) == 0);
}
END_TEST

int main(void)
{
	support_begin("test_region", &(struct support_needs){.huge_pages = 24, .swap = 1});
	place_begin();
	Suite *suite = suite_create("region");
	TCase *tests = tcase_create("region");
	tcase_set_timeout(tests, 60);
	add_matrix(tests);
	tcase_add_test(tests, test_regions_of_one_runtime_do_not_disturb_each_other);
	tcase_add_test(tests, test_a_sparse_region_takes_what_it_uses);
	tcase_add_test(tests, test_several_runtimes_work_side_by_side);
	tcase_add_loop_test(tests, test_runtime_with_many_handlers_and_no_uring_works, 0, 8);
	tcase_add_test(tests, test_numa_placement_is_taken);
	tcase_add_test(tests, test_a_thread_that_waits_at_a_wp_bit_goes_on_when_the_page_is_unregistered);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
