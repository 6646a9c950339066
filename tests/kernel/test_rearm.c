/* SPDX-License-Identifier: MIT */
/*
 * INV-REARM: no access can fill an empty entry of an armed page except through the fault path, and the fault path fills
 * it write-protected, or preserves first. For each type of memory, each delivery and each cause of a lost wp bit.
 *
 * The kernel that runs this may have PTE markers. So every loss is made twice (support/loss.h): the entry is emptied,
 * and the marker that a newer kernel leaves there is taken off. What remains is what a kernel without markers has.
 *
 * Where the kernel cannot fill an entry and protect it in one step, a read of a lost page counts as the write that it
 * might hide: in_one_step() says what is to be expected.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "chance.h"
#include "gate.h"
#include "kernel/abi.h"
#include "kernel/kernel.h"
#include "loss.h"
#include "place.h"
#include "support.h"
#include "witness.h"

#define PAGES 8
#define PAGES_MANY 4096
#define REARM_CASES (2 * (int)UFFDWP_MEMORY_COUNT)
#define LOST 2 /* the page that most tests lose */

static struct place place;
static struct place_case current;

static struct place_case rearm_case(int index)
{
	struct place_case which = place_auto_case(index);
	which.mechanism = UFFDWP_MECHANISM_REARM;
	return which;
}

static int is_anon_case(int index)
{
	return rearm_case(index).memory == UFFDWP_MEMORY_ANON;
}

static int open_case(int index)
{
	current = rearm_case(index);
	if (!place_possible(current)) {
		return 0;
	}
	place_open(&place, current, PAGES);
	return 1;
}

/* --- a page ------------------------------------------------------------------------------------------------------- */

static void store(size_t page, uint8_t value)
{
	((volatile uint8_t *)place.base)[page * place.page_bytes] = value;
}

static uint8_t load(size_t page)
{
	return ((volatile uint8_t *)place.base)[page * place.page_bytes];
}

static void arm_all(void)
{
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
}

static int is_anon(void)
{
	return current.memory == UFFDWP_MEMORY_ANON;
}

/* 1: what is empty for want of content, or of an entry, is filled and protected in one step here. */
static int in_one_step(int hole)
{
	uint32_t fills = place_report()->memory[current.memory].fills;
	return (fills & (hole ? UFFDWP_PROBE_FILL_COPY_WP : UFFDWP_PROBE_FILL_CONTINUE_WP)) != 0;
}

/* Anonymous memory has nothing at an empty entry. */
static int leaves_hole(enum loss_kind kind)
{
	return kind == LOSS_KIND_PUNCH || (kind == LOSS_KIND_ZAP && is_anon());
}

static uint8_t content_after(enum loss_kind kind, size_t page)
{
	return leaves_hole(kind) ? 0 : (uint8_t)(page + 1);
}

/* The page is armed: a write is caught, once, and lands. */
static void expect_caught_once(size_t page)
{
	uint64_t before = place_stats(&place).pages_disarmed;
	ck_assert_int_eq(place_is_armed(&place, page), 1);
	store(page, 77);
	ck_assert_uint_eq(load(page), 77);
	store(page, 78);
	ck_assert_int_eq(place_is_armed(&place, page), 0);
	ck_assert_uint_eq(place_stats(&place).pages_disarmed, before + 1);
}

/* The kernel may keep a page in memory that it was asked to swap out: asks again. 1: the entry is empty. */
static int lose(enum loss_kind kind, size_t page)
{
	for (unsigned tries = 0; tries < 200; tries++) {
		if (loss_make(&place, kind, page, 1) == 1) {
			return 1;
		}
		sleep_us(1000);
	}
	return 0;
}

/* Opens, arms everything and loses one page; 0: cannot be done here. For anonymous memory the swap keeps the wp
 * bits. */
static int open_and_lose(int index, enum loss_kind kind)
{
	if (!open_case(index))
		return 0;
	place_touch(&place);
	arm_all();
	int possible = loss_possible(&place, kind) && !(kind == LOSS_KIND_SWAP && is_anon());
	if (!possible || !lose(kind, LOST)) {
		place_close(&place);
		return 0;
	}
	return 1;
}

/* --- reads and writes --------------------------------------------------------------------------------------------- */

START_TEST(test_read_of_a_lost_page_leaves_it_armed)
{
	enum loss_kind kind = (enum loss_kind)(_i % LOSS_KIND_COUNT);
	if (!open_and_lose(_i / LOSS_KIND_COUNT, kind)) {
		return;
	}
	uint64_t disarmed = in_one_step(leaves_hole(kind)) ? 0 : 1;
	ck_assert_uint_eq(load(LOST), content_after(kind, LOST));
	ck_assert_uint_eq(load(LOST), content_after(kind, LOST));
	struct uffdwp_region_stats stats = place_stats(&place);
	ck_assert_uint_eq(stats.pages_disarmed, disarmed);
	ck_assert_uint_eq(stats.pages_rearmed, 1 - disarmed);
	ck_assert_uint_eq(stats.pages_lost, 1);
	place_expect_armed(&place, PAGES - disarmed);
	if (disarmed == 0) {
		expect_caught_once(LOST);
	}
	expect_caught_once(LOST + 1);
	place_close(&place);
}
END_TEST

START_TEST(test_write_to_a_lost_page_is_caught_once)
{
	enum loss_kind kind = (enum loss_kind)(_i % LOSS_KIND_COUNT);
	if (open_and_lose(_i / LOSS_KIND_COUNT, kind)) {
		place.base[LOST * place.page_bytes + 1] = 0x33;
		ck_assert_uint_eq(load(LOST), content_after(kind, LOST));
		ck_assert_uint_eq(place_faults(&place, 1), 1);
		ck_assert_uint_eq(place_stats(&place).pages_disarmed, 1);
		ck_assert_uint_eq(place_stats(&place).pages_lost, 1);
		place_expect_armed(&place, PAGES - 1);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_page_may_be_lost_again_and_again)
{
	if (!open_case(_i)) {
		return;
	}
	place_touch(&place);
	if (!in_one_step(is_anon())) {
		place_close(&place);
		return;
	}
	arm_all();
	for (unsigned round = 1; round <= 5; round++) {
		ck_assert_int_eq(lose(LOSS_KIND_ZAP, LOST), 1);
		ck_assert_uint_eq(load(LOST), content_after(LOSS_KIND_ZAP, LOST));
		ck_assert_uint_eq(place_stats(&place).pages_lost, round);
	}
	place_expect_armed(&place, PAGES);
	expect_caught_once(LOST);
	place_close(&place);
}
END_TEST

START_TEST(test_never_populated_page_is_caught)
{
	if (open_case(_i)) {
		arm_all();
		ck_assert_uint_eq(load(1), 0);
		ck_assert_int_eq(place_is_armed(&place, 1), in_one_step(1));
		expect_caught_once(2);
		const uint8_t *rest = place.base + 2 * place.page_bytes + 1;
		ck_assert_int_eq(memcmp(rest, place.base + place.page_bytes, place.page_bytes - 1), 0);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_truncated_page_is_caught)
{
	if (!is_anon_case(_i) && open_case(_i)) {
		place_touch(&place);
		arm_all();
		ck_assert_int_eq(ftruncate(place_fd(&place), 0), 0);
		ck_assert_int_eq(ftruncate(place_fd(&place), (off_t)place.length_bytes), 0);
		loss_strip(&place, 0, PAGES);
		ck_assert_uint_eq(load(1), 0);
		ck_assert_int_eq(place_is_armed(&place, 1), in_one_step(1));
		expect_caught_once(2);
		ck_assert_uint_eq(place_stats(&place).lost_by[UFFDWP_LOSS_HOLE], 2);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_page_that_is_not_armed_is_filled_and_no_loss)
{
	if (open_case(_i)) {
		place_touch(&place);
		ck_assert_int_eq(lose(LOSS_KIND_ZAP, LOST), 1);
		ck_assert_uint_eq(load(LOST), content_after(LOSS_KIND_ZAP, LOST));
		store(LOST, 9);
		ck_assert_int_eq(lose(LOSS_KIND_ZAP, LOST + 1), 1);
		store(LOST + 1, 9);
		struct uffdwp_region_stats stats = place_stats(&place);
		ck_assert_uint_eq(stats.pages_lost, 0);
		ck_assert_uint_eq(stats.pages_disarmed, 0);
		ck_assert_uint_ge(stats.pages_filled, 2);
		place_close(&place);
	}
}
END_TEST

START_TEST(test_disarmed_page_stays_disarmed_when_it_is_lost)
{
	if (open_and_lose(_i, LOSS_KIND_ZAP)) {
		ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, place.length_bytes), 0);
		ck_assert_uint_eq(load(LOST), content_after(LOSS_KIND_ZAP, LOST));
		store(LOST, 5);
		ck_assert_uint_eq(load(LOST), 5);
		ck_assert_uint_eq(place_stats(&place).pages_disarmed, 0);
		place_expect_armed(&place, 0);
		place_close(&place);
	}
}
END_TEST

/* --- the kernel before 6.4 ---------------------------------------------------------------------------------------- */

static int64_t continue_without_wp(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	return (mode & UFFDIO_CONTINUE_MODE_WP) != 0 ? -EINVAL : kernel_real.uffd_continue(uffd, start, length, mode);
}

START_TEST(test_read_counts_as_a_write_where_it_cannot_be_filled_in_one_step)
{
	current = rearm_case(_i);
	if (is_anon() || !place_possible(current)) {
		return;
	}
	struct kernel_ops ops = kernel_real;
	ops.uffd_continue = continue_without_wp;
	ck_assert_int_eq(place_try(&place, &ops, 0, current, PAGES), 0);
	place_touch(&place);
	arm_all();
	ck_assert_int_eq(lose(LOSS_KIND_ZAP, LOST), 1);
	ck_assert_uint_eq(load(LOST), LOST + 1);
	ck_assert_int_eq(place_is_armed(&place, LOST), 0);
	ck_assert_uint_eq(place_stats(&place).pages_disarmed, 1);
	ck_assert_int_eq(lose(LOSS_KIND_ZAP, LOST + 1), 1);
	expect_caught_once(LOST + 1);
	place_expect_armed(&place, PAGES - 2);
	place_close(&place);
}
END_TEST

/* --- the pre-image ------------------------------------------------------------------------------------------------ */

static struct gate gate = GATE_INIT;
static uint8_t *copied;
static uint8_t *expected;

static int copy_at_gate(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	gate_pass(&gate);
	memcpy(copied + offset, data, length);
	return 0;
}

/* Begins a snapshot, and returns when its sweep stands at the gate with the first run. */
static struct uffdwp_snapshot *begin_gated(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = copy_at_gate;
	options.pool_bytes = 2 * place.length_bytes;
	options.window_max = 1; /* no page goes with its neighbour */
	gate = (struct gate)GATE_INIT;
	copied = calloc(1, place.length_bytes);
	expected = malloc(place.length_bytes);
	must(copied != NULL && expected != NULL);
	struct uffdwp_snapshot *snapshot = NULL;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	gate_await(&gate);
	return snapshot;
}

static void finish_gated(struct uffdwp_snapshot *snapshot)
{
	gate_open(&gate);
	int result = uffdwp_snapshot_wait(snapshot, -1, NULL);
	char text[256] = "";
	uffdwp_snapshot_text(snapshot, text, sizeof(text));
	ck_assert_msg(result == 0, "%s: %s: %s", place_case_name(current), strerror(-result), text);
	ck_assert_int_eq(memcmp(copied, expected, place.length_bytes), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	place_expect_armed(&place, 0);
}

static int open_many(int index)
{
	current = rearm_case(index);
	if (!place_possible(current)) {
		return 0;
	}
	place_open(&place, current, current.memory == UFFDWP_MEMORY_HUGETLB ? 32 : PAGES_MANY);
	return 1;
}

/* What was discarded of anonymous or huge memory fails the snapshot; shmem keeps its content in the file. */
START_TEST(test_image_shows_what_a_lost_page_held)
{
	enum loss_kind kind = _i % 2 ? LOSS_KIND_SWAP : LOSS_KIND_ZAP;
	if (_i / 2 >= 2 || !open_many(_i / 2)) {
		return;
	}
	if (!loss_possible(&place, kind)) {
		place_close(&place);
		return;
	}
	place_fill(&place, 11);
	struct uffdwp_snapshot *snapshot = begin_gated();
	memcpy(expected, place.base, place.length_bytes);
	for (size_t page = place.pages / 2; page < place.pages / 2 + 20; page++) {
		ck_assert_int_eq(place_is_armed(&place, page), 1);
		(void)loss_make(&place, kind, page, 1);
		if (page % 3 == 0) {
			ck_assert_uint_eq(load(page), expected[page * place.page_bytes]);
		}
		if (page % 3 != 1) {
			memset(place.base + page * place.page_bytes, 0xee, place.page_bytes);
		}
	}
	finish_gated(snapshot);
	place_close(&place);
}
END_TEST

START_TEST(test_image_of_a_hole_is_zeros_whichever_thread_comes_first)
{
	if (!open_many(_i)) {
		return;
	}
	size_t hole = place.pages / 2;
	for (size_t page = 0; page < place.pages; page++) {
		if (page < hole || page >= hole + 3) {
			store(page, 9);
		}
	}
	struct uffdwp_snapshot *snapshot = begin_gated();
	ck_assert_uint_eq(load(hole), 0);
	store(hole, 5);
	store(hole + 1, 5);
	ck_assert_uint_eq(load(hole + 2), 0);
	memcpy(expected, place.base, place.length_bytes);
	memset(expected + hole * place.page_bytes, 0, 2 * place.page_bytes);
	finish_gated(snapshot);
	place_close(&place);
}
END_TEST

START_TEST(test_memory_that_was_armed_empty_is_no_content_that_vanished)
{
	if (!open_many(_i)) {
		return;
	}
	store(0, 7);
	arm_all();
	(void)load(1);
	struct uffdwp_snapshot *snapshot = begin_gated();
	ck_assert_uint_eq(load(place.pages / 2), 0);
	store(place.pages / 2, 5);
	(void)load(2);
	memset(expected, 0, place.length_bytes);
	expected[0] = 7;
	finish_gated(snapshot);
	place_close(&place);
}
END_TEST

/* --- several at once ---------------------------------------------------------------------------------------------- */

#define ROUNDS 30

static pthread_barrier_t barrier;
static _Atomic unsigned wrong;

static void *read_all_pages(void *argument)
{
	struct chance *chance = argument;
	for (unsigned round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(&barrier);
		size_t start = chance_below(chance, place.pages);
		for (size_t i = 0; i < place.pages; i++) {
			size_t page = (start + i) % place.pages;
			volatile const uint8_t *word = place.base + page * place.page_bytes + 64;
			uint8_t value = *word;
			atomic_fetch_add(&wrong, value == (is_anon() ? 0 : 0x42) ? 0 : 1);
		}
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void *write_all_pages(void *argument)
{
	struct chance *chance = argument;
	for (unsigned round = 0; round < ROUNDS; round++) {
		pthread_barrier_wait(&barrier);
		size_t start = chance_below(chance, place.pages);
		for (size_t i = 0; i < place.pages; i++) {
			store((start + i) % place.pages, (uint8_t)(round + 1));
		}
		pthread_barrier_wait(&barrier);
	}
	return NULL;
}

static void expect_written(uint8_t value)
{
	for (size_t page = 0; page < place.pages; page++) {
		ck_assert_uint_eq(load(page), value);
	}
}

START_TEST(test_readers_and_a_writer_meet_on_lost_pages)
{
	current = rearm_case(_i);
	if (!place_possible(current)) {
		return;
	}
	place_open(&place, current, current.memory == UFFDWP_MEMORY_HUGETLB ? 4 : 64);
	for (size_t page = 0; page < place.pages; page++) {
		place.base[page * place.page_bytes + 64] = 0x42;
	}
	struct chance chances[3] = {chance_new(1), chance_new(2), chance_new(3)};
	ck_assert_int_eq(pthread_barrier_init(&barrier, NULL, 4), 0);
	pthread_t threads[3] = {thread_start(read_all_pages, &chances[0]), thread_start(read_all_pages, &chances[1]),
	                        thread_start(write_all_pages, &chances[2])};
	for (unsigned round = 0; round < ROUNDS; round++) {
		arm_all();
		ck_assert_uint_eq(loss_make(&place, LOSS_KIND_ZAP, 0, place.pages), place.pages);
		pthread_barrier_wait(&barrier);
		pthread_barrier_wait(&barrier);
		place_expect_armed(&place, 0);
		expect_written((uint8_t)(round + 1));
	}
	for (unsigned i = 0; i < 3; i++) {
		thread_join(threads[i]);
	}
	ck_assert_uint_eq(atomic_load(&wrong), 0);
	struct uffdwp_region_stats stats = place_stats(&place);
	ck_assert_uint_eq(stats.pages_disarmed, ROUNDS * place.pages);
	ck_assert_uint_eq(stats.pages_lost, ROUNDS * place.pages);
	place_close(&place);
}
END_TEST

/* --- system calls ------------------------------------------------------------------------------------------------- */

/* The kernel reads from the page, or writes to it. */
static ssize_t through_a_pipe(size_t page, int writes)
{
	static const char text[] = "hello";
	char *there = (char *)place.base + page * place.page_bytes;
	int ends[2];
	must(pipe(ends) == 0);
	if (writes) {
		must(write(ends[1], text, 5) == 5);
	}
	ssize_t got = writes ? read(ends[0], there, 5) : write(ends[1], there, 5);
	int error = errno;
	close(ends[0]);
	close(ends[1]);
	return got < 0 ? -error : got;
}

START_TEST(test_system_calls_wait_for_a_lost_page)
{
	if (!place_system_calls_wait(rearm_case(_i)) || !open_and_lose(_i, LOSS_KIND_ZAP)) {
		return;
	}
	ck_assert_int_eq(lose(LOSS_KIND_ZAP, LOST + 1), 1);
	ck_assert_int_eq((int)through_a_pipe(LOST, 0), 5);
	ck_assert_int_eq(place_is_armed(&place, LOST), in_one_step(is_anon()));
	ck_assert_int_eq((int)through_a_pipe(LOST + 1, 1), 5);
	ck_assert_mem_eq(place.base + (LOST + 1) * place.page_bytes, "hello", 5);
	ck_assert_int_eq(place_is_armed(&place, LOST + 1), 0);
	place_close(&place);
}
END_TEST

START_TEST(test_barrier_makes_a_lost_page_fit_for_a_system_call)
{
	if (!open_and_lose(_i, LOSS_KIND_ZAP)) {
		return;
	}
	ck_assert_int_eq(uffdwp_prepare_write(place.region, LOST * place.page_bytes, 5), 0);
	ck_assert_int_eq((int)through_a_pipe(LOST, 1), 5);
	ck_assert_mem_eq(place.base + LOST * place.page_bytes, "hello", 5);
	ck_assert_uint_eq(place_stats(&place).pages_disarmed, 1);
	place_expect_armed(&place, PAGES - 1);
	place_close(&place);
}
END_TEST

START_TEST(test_barrier_makes_an_empty_page_fit_for_a_system_call_where_nothing_is_armed)
{
	if (open_case(_i)) {
		ck_assert_int_eq(uffdwp_prepare_write(place.region, LOST * place.page_bytes, 5), 0);
		ck_assert_int_eq((int)through_a_pipe(LOST, 1), 5);
		ck_assert_mem_eq(place.base + LOST * place.page_bytes, "hello", 5);
		ck_assert_uint_eq(place_stats(&place).pages_lost, 0);
		place_close(&place);
	}
}
END_TEST

/* --- pages that the kernel does not give ----------------------------------------------------------------------------
 */

static struct kernel_ops poor_kernel;
static _Atomic uint64_t poor_start;
static _Atomic uint64_t poor_bytes;

/* As memory of which none is left: neither of two pages of this region gets any. */
static int is_poor(uint64_t address)
{
	return address - atomic_load(&poor_start) < atomic_load(&poor_bytes);
}

static int poor_zeropage(int uffd, uint64_t address, uint64_t length, uint64_t mode)
{
	return is_poor(address) ? -ENOMEM : kernel_real.uffd_zeropage(uffd, address, length, mode);
}

static int poor_copy(int uffd, uint64_t to, const void *from, uint64_t length, uint64_t mode)
{
	return is_poor(to) ? -ENOMEM : kernel_real.uffd_copy(uffd, to, from, length, mode);
}

static void *read_page(void *page)
{
	(void)((volatile uint8_t *)place.base)[(uintptr_t)page * place.page_bytes];
	return NULL;
}

/* In the end the kernel is to say so itself: each page is taken out of the registration, however many wait. */
START_TEST(test_threads_at_pages_that_cannot_be_filled_are_resumed)
{
	current = place_auto_case(_i);
	current.mechanism = UFFDWP_MECHANISM_REARM;
	current.delivery = UFFDWP_DELIVERY_THREAD;
	if (!place_possible(current))
		return;
	poor_kernel = kernel_real;
	poor_kernel.uffd_zeropage = poor_zeropage;
	poor_kernel.uffd_copy = poor_copy;
	must(place_try(&place, &poor_kernel, 0, current, PAGES) == 0);
	atomic_store(&poor_start, (uintptr_t)place.base + LOST * place.page_bytes);
	atomic_store(&poor_bytes, 2 * place.page_bytes);
	pthread_t one = thread_start(read_page, (void *)(uintptr_t)LOST);
	pthread_t other = thread_start(read_page, (void *)(uintptr_t)(LOST + 1));
	thread_join(one);
	thread_join(other);
	place_close(&place);
}
END_TEST

/* --- the log of losses ------------------------------------------------------------------------------------------- */

/* 1: it cannot be seen here that it was swapped out: the swap still has it in memory, and there is no cachestat(2). */
static int is_indistinct(size_t page)
{
	unsigned char in_memory = 0;
	if (witness_file_swapped(place_fd(&place), page * place.page_bytes, place.page_bytes) >= 0) {
		return 0;
	}
	must(mincore(place.base + page * place.page_bytes, 1, &in_memory) == 0);
	return in_memory & 1;
}

static void expect_cause(enum loss_kind kind, enum uffdwp_loss cause)
{
	size_t page = (size_t)kind + 1;
	if (!loss_possible(&place, kind) || !lose(kind, page) || (kind == LOSS_KIND_SWAP && is_indistinct(page))) {
		return;
	}
	uint64_t before = place_stats(&place).lost_by[cause];
	ck_assert_uint_eq(load(page), content_after(kind, page));
	ck_assert_msg(place_stats(&place).lost_by[cause] == before + 1, "%s: %s is not counted",
	              place_case_name(current), loss_name(kind));
}

START_TEST(test_losses_are_counted_by_cause)
{
	if (is_anon_case(_i) || !open_case(_i)) {
		return;
	}
	place_touch(&place);
	arm_all();
	expect_cause(LOSS_KIND_ZAP, UFFDWP_LOSS_ZAP);
	expect_cause(LOSS_KIND_PUNCH, UFFDWP_LOSS_HOLE);
	expect_cause(LOSS_KIND_SWAP, UFFDWP_LOSS_SWAP);
	struct uffdwp_region_stats stats = place_stats(&place);
	uint64_t sum = 0;
	for (unsigned cause = 0; cause < UFFDWP_LOSS_COUNT; cause++) {
		sum += stats.lost_by[cause];
	}
	ck_assert_uint_eq(stats.pages_lost, sum);
	ck_assert_uint_eq(stats.lost_by[UFFDWP_LOSS_UNMAPPED] + stats.lost_by[UFFDWP_LOSS_UNKNOWN], 0);
	place_close(&place);
}
END_TEST

static void expect_range(size_t capacity, uint32_t cause, size_t page, size_t pages)
{
	struct uffdwp_lost_range ranges[4];
	ck_assert_int_ge(uffdwp_region_losses(place.region, ranges, capacity), 1);
	ck_assert_uint_eq(ranges[0].cause, cause);
	ck_assert_uint_eq(ranges[0].start, page * place.page_bytes);
	ck_assert_uint_eq(ranges[0].end, (page + pages) * place.page_bytes);
}

START_TEST(test_losses_are_listed_once_and_in_pieces)
{
	if (is_anon_case(_i) || !open_case(_i)) {
		return;
	}
	place_touch(&place);
	arm_all();
	ck_assert_int_eq(lose(LOSS_KIND_ZAP, 1), 1);
	ck_assert_int_eq(lose(LOSS_KIND_ZAP, 2), 1);
	ck_assert_int_eq(lose(LOSS_KIND_ZAP, 6), 1);
	ck_assert_int_eq(lose(LOSS_KIND_PUNCH, 4), 1);
	for (size_t page = 0; page < PAGES; page++) {
		(void)load(page);
	}
	ck_assert_int_eq(uffdwp_region_losses(place.region, NULL, 0), -EINVAL);
	expect_range(1, UFFDWP_LOSS_HOLE, 4, 1);
	expect_range(1, UFFDWP_LOSS_ZAP, 1, 2);
	expect_range(4, UFFDWP_LOSS_ZAP, 6, 1);
	struct uffdwp_lost_range range;
	ck_assert_int_eq(uffdwp_region_losses(place.region, &range, 1), 0);
	arm_all();
	for (unsigned round = 0; round < 2; round++) {
		ck_assert_int_eq(lose(LOSS_KIND_ZAP, 3), 1);
		(void)load(3);
	}
	expect_range(4, UFFDWP_LOSS_ZAP, 3, 1);
	ck_assert_int_eq(uffdwp_region_losses(place.region, &range, 1), 0);
	place_close(&place);
}
END_TEST

struct ear {
	pthread_t test;
	_Atomic int called;
	_Atomic int ranges;
	_Atomic int in_the_test;
};

static void hear(void *user, struct uffdwp_region *region)
{
	struct ear *ear = user;
	struct uffdwp_lost_range ranges[4];
	int got = uffdwp_region_losses(region, ranges, 4);
	atomic_fetch_add(&ear->ranges, got > 0 ? got : 0);
	atomic_fetch_add(&ear->in_the_test, pthread_equal(pthread_self(), ear->test) ? 1 : 0);
	atomic_fetch_add(&ear->called, 1);
}

static int has_heard(void *argument)
{
	struct ear *ear = argument;
	return atomic_load(&ear->ranges) > 0;
}

START_TEST(test_callback_is_called_in_a_thread_of_the_runtime)
{
	current = rearm_case(_i);
	if (!place_possible(current)) {
		return;
	}
	struct ear ear = {.test = pthread_self()};
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.on_loss = hear;
	options.on_loss_user = &ear;
	place_open_with(&place, current, PAGES, &options);
	place_touch(&place);
	arm_all();
	for (int round = 1; round <= 3; round++) {
		atomic_store(&ear.ranges, 0);
		ck_assert_int_eq(lose(LOSS_KIND_ZAP, (size_t)round), 1);
		(void)load((size_t)round);
		ck_assert_int_eq(wait_until(has_heard, &ear, 20), 1);
	}
	ck_assert_int_eq(atomic_load(&ear.in_the_test), 0);
	ck_assert_int_le(atomic_load(&ear.called), 6);
	struct uffdwp_lost_range range;
	ck_assert_int_eq(uffdwp_region_losses(place.region, &range, 1), 0);
	place_close(&place);
}
END_TEST

/* --- refusals ----------------------------------------------------------------------------------------------------- */

START_TEST(test_attached_memory_needs_its_file)
{
	current = rearm_case(_i);
	if (is_anon() || !place_possible(current)) {
		return;
	}
	struct patch patch = patch_map(current.memory, 2);
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.mechanism = UFFDWP_MECHANISM_REARM;
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	ck_assert_int_eq(uffdwp_region_attach(runtime, patch.base, patch.length_bytes, &options, &region), -EOPNOTSUPP);
	ck_assert_ptr_null(region);
	char text[256] = "";
	uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, "rearm") != NULL && strstr(text, "fd") != NULL, "%s", text);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	patch_unmap(&patch);
}
END_TEST

static void add_log(TCase *tests)
{
	tcase_add_loop_test(tests, test_losses_are_counted_by_cause, 0, REARM_CASES);
	tcase_add_loop_test(tests, test_losses_are_listed_once_and_in_pieces, 0, REARM_CASES);
	tcase_add_loop_test(tests, test_callback_is_called_in_a_thread_of_the_runtime, 0, REARM_CASES);
}

int main(void)
{
	support_begin("test_rearm", &(struct support_needs){.huge_pages = 40, .swap = 1});
	place_begin();
	Suite *suite = suite_create("rearm");
	TCase *tests = tcase_create("INV-REARM");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_read_of_a_lost_page_leaves_it_armed, 0, REARM_CASES * LOSS_KIND_COUNT);
	tcase_add_loop_test(tests, test_write_to_a_lost_page_is_caught_once, 0, REARM_CASES * LOSS_KIND_COUNT);
	tcase_add_loop_test(tests, test_page_may_be_lost_again_and_again, 0, REARM_CASES);
	tcase_add_loop_test(tests, test_never_populated_page_is_caught, 0, REARM_CASES);
	tcase_add_loop_test(tests, test_truncated_page_is_caught, 0, REARM_CASES);
	tcase_add_loop_test(tests, test_page_that_is_not_armed_is_filled_and_no_loss, 0, REARM_CASES);
	tcase_add_loop_test(tests, test_disarmed_page_stays_disarmed_when_it_is_lost, 0, REARM_CASES);
	tcase_add_loop_test(tests, test_read_counts_as_a_write_where_it_cannot_be_filled_in_one_step, 0, REARM_CASES);
	tcase_add_loop_test(tests, test_image_shows_what_a_lost_page_held, 0, 4);
	tcase_add_loop_test(tests, test_image_of_a_hole_is_zeros_whichever_thread_comes_first, 0, REARM_CASES);
	tcase_add_loop_test(tests, test_memory_that_was_armed_empty_is_no_content_that_vanished, 0, REARM_CASES);
	tcase_add_loop_test(tests, test_readers_and_a_writer_meet_on_lost_pages, 0, REARM_CASES);
	tcase_add_loop_test(tests, test_system_calls_wait_for_a_lost_page, 0, REARM_CASES);
	tcase_add_loop_test(tests, test_barrier_makes_a_lost_page_fit_for_a_system_call, 0, REARM_CASES);
	tcase_add_loop_test(tests, test_barrier_makes_an_empty_page_fit_for_a_system_call_where_nothing_is_armed, 0,
	                    REARM_CASES);
	tcase_add_loop_test(tests, test_threads_at_pages_that_cannot_be_filled_are_resumed, 0, REARM_CASES);
	add_log(tests);
	tcase_add_loop_test(tests, test_attached_memory_needs_its_file, 0, REARM_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
