/* SPDX-License-Identifier: MIT */
/*
 * Mechanism `mprotect`: what it promises beyond catching writes (test_region.c). Its signal is SIGSEGV, and the handler
 * that was there before still gets what is not the library's. Its protection splits mappings, and of these the process
 * may have vm.max_map_count only: that is lowered for this program, and writes must never meet the limit.
 */
#include <errno.h>
#include <linux/magic.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "catch.h"
#include "gate.h"
#include "pace.h"
#include "place.h"
#include "settings.h"
#include "support.h"
#include "witness.h"

#define MAPPINGS_MOST 2048
#define CHILD_POOL_PAGES 32
#define PAGES_SPARSE 8192 /* every other one written: far more borders than mappings allowed */

static struct place place;
static int mappings_are_few;

static struct place_case mprotect_case(int memory)
{
	return (struct place_case){(enum uffdwp_memory)memory, UFFDWP_MECHANISM_MPROTECT, UFFDWP_DELIVERY_INLINE};
}

static void open_armed(struct place_case which, size_t pages)
{
	place_open(&place, which, pages);
	place_touch(&place);
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
}

/* --- delivery ------------------------------------------------------------------------------------------------------
 */

START_TEST(test_delivery_by_thread_is_refused_with_a_text)
{
	if (!place_possible(mprotect_case(_i))) {
		return;
	}
	struct patch patch = patch_map((enum uffdwp_memory)_i, 2);
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.mechanism = UFFDWP_MECHANISM_MPROTECT;
	options.delivery = UFFDWP_DELIVERY_THREAD;
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	ck_assert_int_eq(uffdwp_region_attach(runtime, patch.base, patch.length_bytes, &options, &region), -EOPNOTSUPP);
	ck_assert_ptr_null(region);
	char text[256] = "";
	uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, "mprotect") != NULL && strstr(text, "inline") != NULL, "%s", text);
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	patch_unmap(&patch);
}
END_TEST

START_TEST(test_auto_delivery_is_inline)
{
	struct place_case which = place_by((enum uffdwp_memory)_i, UFFDWP_MECHANISM_MPROTECT);
	if (place_possible(which)) {
		place_open(&place, which, 2);
		ck_assert_uint_eq(place.delivery, UFFDWP_DELIVERY_INLINE);
		place_close(&place);
	}
}
END_TEST

/* --- signals -------------------------------------------------------------------------------------------------------
 */

/* A page that its owner made read-only. */
static volatile uint8_t *read_only_page(void)
{
	void *page = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	must(page != MAP_FAILED);
	return page;
}

START_TEST(test_foreign_sigsegv_reaches_the_handler_before_us)
{
	if (!place_possible(mprotect_case(_i / 2))) {
		return;
	}
	catch_install(SIGSEGV, _i % 2);
	volatile uint8_t *foreign = read_only_page();
	open_armed(mprotect_case(_i / 2), 4);
	for (volatile int round = 1; round <= 3; round = round + 1) {
		if (sigsetjmp(catch_jump, 1) == 0) {
			*foreign = 1;
		}
		ck_assert_int_eq(catch_count, round);
		*(volatile uint8_t *)place.base = 1;
	}
	if (_i % 2) {
		ck_assert_ptr_eq(catch_address, (const void *)(uintptr_t)foreign);
	}
	ck_assert_uint_eq(place_faults(&place, 1), 1);
	place_close(&place);
	if (sigsetjmp(catch_jump, 1) == 0) {
		*foreign = 1;
	}
	ck_assert_int_eq(catch_count, 4);
}
END_TEST

static void die_of_foreign_sigsegv(void *argument)
{
	(void)argument;
	(void)signal(SIGSEGV, SIG_DFL);
	volatile uint8_t *foreign = read_only_page();
	struct place own;
	must(place_try(&own, NULL, 0, mprotect_case(UFFDWP_MEMORY_SHMEM), 4) == 0);
	pace_alarm(20);
	*foreign = 1;
}

START_TEST(test_foreign_sigsegv_kills_without_a_handler)
{
	if (!place_possible(mprotect_case(UFFDWP_MEMORY_SHMEM))) {
		return;
	}
	int status = child_run(die_of_foreign_sigsegv, NULL);
	ck_assert(WIFSIGNALED(status));
	ck_assert_int_eq(WTERMSIG(status), SIGSEGV);
}
END_TEST

static void write_in_child(void *argument)
{
	(void)argument;
	pace_alarm(20);
	*(volatile uint8_t *)place.base = 44;
	must(*(volatile uint8_t *)place.base == 44);
}

/* A child has the read-only mapping of memory that was attached, and the handler: it writes to its own copy. */
START_TEST(test_child_may_write_to_its_copy_of_armed_memory)
{
	if (SUPPORT_THREAD_SANITIZER || !place_possible(mprotect_case(UFFDWP_MEMORY_ANON))) {
		return;
	}
	open_armed(mprotect_case(UFFDWP_MEMORY_ANON), 4);
	ck_assert_int_eq(child_run(write_in_child, NULL), 0);
	ck_assert_uint_eq(*place.base, 1);
	place_expect_armed(&place, 4);
	place_close(&place);
}
END_TEST

/* --- mappings ------------------------------------------------------------------------------------------------------
 */

static int open_sparse(int memory)
{
	if (memory == UFFDWP_MEMORY_HUGETLB || !mappings_are_few || !place_possible(mprotect_case(memory))) {
		return 0;
	}
	open_armed(mprotect_case(memory), PAGES_SPARSE);
	return 1;
}

/* Every other page, in an order that makes many borders before it takes any away. */
static void write_sparsely(uint8_t value)
{
	for (size_t start = 0; start < 16; start += 2) {
		for (size_t page = start; page < place.pages; page += 16) {
			((volatile uint8_t *)place.base)[page * place.page_bytes + 100] = value;
		}
	}
}

START_TEST(test_sparse_writes_never_use_up_the_mappings)
{
	if (!open_sparse(_i)) {
		return;
	}
	for (uint8_t round = 1; round <= 3; round++) {
		ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
		write_sparsely(round);
		ck_assert_uint_lt(witness_mappings(), MAPPINGS_MOST - 100);
		ck_assert_int_eq(place_agrees(&place), 1);
		for (size_t page = 0; page < place.pages; page += 2) {
			ck_assert_uint_eq(place.base[page * place.page_bytes + 100], round);
			ck_assert_int_eq(place_is_armed(&place, page), 0);
		}
	}
	place_close(&place);
}
END_TEST

static struct gate gate = GATE_INIT;
static uint8_t *copied;

static int copy_at_gate(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	gate_pass(&gate);
	memcpy(copied + offset, data, length);
	return 0;
}

START_TEST(test_sparse_writes_during_a_snapshot_never_use_up_the_mappings)
{
	if (!open_sparse(_i)) {
		return;
	}
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	uint8_t *expected = malloc(place.length_bytes);
	copied = calloc(1, place.length_bytes);
	must(expected != NULL && copied != NULL);
	place_fill(&place, 4);
	memcpy(expected, place.base, place.length_bytes);
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = copy_at_gate;
	options.pool_bytes = 2 * place.length_bytes;
	options.window_max = 1;
	ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, place.length_bytes), 0);
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	gate_await(&gate);
	write_sparsely(9);
	ck_assert_uint_lt(witness_mappings(), MAPPINGS_MOST - 100);
	gate_open(&gate);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(memcmp(copied, expected, place.length_bytes), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	place_expect_armed(&place, 0);
	place_close(&place);
	free(expected);
	free(copied);
}
END_TEST

/* Snapshot after snapshot with the writes of the one before still making borders: the counts do not drift. */
START_TEST(test_snapshots_after_each_other_never_use_up_the_mappings)
{
	if (!open_sparse(UFFDWP_MEMORY_SHMEM)) {
		return;
	}
	copied = calloc(1, place.length_bytes);
	must(copied != NULL);
	gate_open(&gate);
	ck_assert_int_eq(uffdwp_region_disarm(place.region, 0, place.length_bytes), 0);
	for (uint8_t round = 1; round <= 12; round++) {
		struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
		struct uffdwp_snapshot *snapshot = NULL;
		options.sink = UFFDWP_SINK_CALLBACK;
		options.callback = copy_at_gate;
		ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
		write_sparsely(round);
		ck_assert_uint_lt(witness_mappings(), MAPPINGS_MOST - 100);
		ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
		ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	}
	place_close(&place);
	free(copied);
}
END_TEST

START_TEST(test_pool_that_is_too_small_for_a_block_is_refused)
{
	if (!open_sparse(UFFDWP_MEMORY_SHMEM)) {
		return;
	}
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	char text[256] = "";
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = copy_at_gate;
	options.pool_bytes = 16 * place.page_bytes;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), -ENOBUFS);
	uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, "pool_bytes") != NULL, "%s", text);
	place_close(&place);
}
END_TEST

/* A child of vfork() has another number and the same memory: what it writes is preserved as any write. */
START_TEST(test_write_of_a_vfork_child_is_preserved)
{
	if (SUPPORT_THREAD_SANITIZER || !place_possible(mprotect_case(UFFDWP_MEMORY_SHMEM))) {
		return;
	}
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	place_open(&place, mprotect_case(UFFDWP_MEMORY_SHMEM), 1024);
	copied = calloc(1, place.length_bytes);
	must(copied != NULL);
	memset(place.base, 0xaa, place.length_bytes);
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = copy_at_gate;
	options.pool_bytes = place.length_bytes;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	gate_await(&gate);
	volatile uint8_t *first = place.base;
	pid_t child = vfork(); // NOLINT(clang-analyzer-security.insecureAPI.vfork): what is tested
	if (child == 0) {
		*first = 0xee; // NOLINT(clang-analyzer-unix.Vfork)
		_exit(0);
	}
	ck_assert_int_gt(child, 0);
	ck_assert_int_eq(waitpid(child, NULL, 0), child);
	gate_open(&gate);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_uint_eq(place.base[0], 0xee);
	ck_assert_uint_eq(copied[0], 0xaa);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	place_close(&place);
	free(copied);
}
END_TEST

/* All pages that it has inherited, protected as they are; and so does a child of its own. */
static void write_all(void *generations)
{
	size_t left = *(size_t *)generations;
	pace_alarm(20);
	for (size_t page = 0; page < place.pages; page++) {
		((volatile uint8_t *)place.base)[page * place.page_bytes] = (uint8_t)(0xe0 + left);
	}
	if (left > 1) {
		left--;
		must(child_run(write_all, &left) == 0);
	}
}

static int open_inherited(int memory)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	if (SUPPORT_THREAD_SANITIZER || !place_possible(mprotect_case(memory))) {
		return 0;
	}
	/* Memory that is attached is inherited as it is. */
	options.flags = memory == UFFDWP_MEMORY_ANON ? 0 : UFFDWP_REGION_CREATE_INHERIT;
	place_open_with(&place, mprotect_case(memory), memory == UFFDWP_MEMORY_HUGETLB ? 2 : 1024, &options);
	memset(place.base, 0xaa, place.length_bytes);
	return 1;
}

/* A child of fork() inherits the protection and has no thread to ask: it writes, unseen, into what is its memory or
 * shared with it. Its parent's protection stays. */
START_TEST(test_child_of_fork_writes_to_memory_that_its_parent_has_armed)
{
	size_t generations = 2;
	if (!open_inherited(_i)) {
		return;
	}
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
	ck_assert_int_eq(child_run(write_all, &generations), 0);
	ck_assert_uint_eq(place.base[0], _i == UFFDWP_MEMORY_ANON ? 0xaa : 0xe1);
	place_expect_armed(&place, place.pages);
	*(volatile uint8_t *)place.base = 1;
	ck_assert_uint_eq(place_faults(&place, 1), 1);
	place_expect_armed(&place, place.pages - 1);
	place_close(&place);
}
END_TEST

/* The same in the middle of a snapshot, which commits. The child has more to write than the pool has room for, and no
 * thread that makes room. */
START_TEST(test_child_of_fork_writes_while_its_parent_takes_a_snapshot)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	size_t generations = 2;
	if (!open_inherited(_i)) {
		return;
	}
	gate = (struct gate)GATE_INIT;
	copied = calloc(1, place.length_bytes);
	must(copied != NULL);
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = copy_at_gate;
	options.pool_bytes = CHILD_POOL_PAGES * place.page_bytes;
	options.wait_ns = 3600000000000u;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	gate_await(&gate);
	ck_assert(_i == UFFDWP_MEMORY_HUGETLB || place_ledger(&place) > CHILD_POOL_PAGES);
	ck_assert_int_eq(child_run(write_all, &generations), 0);
	gate_open(&gate);
	ck_assert_int_eq(uffdwp_snapshot_wait(snapshot, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	ck_assert(_i != UFFDWP_MEMORY_ANON || copied[0] == 0xaa);
	place_expect_armed(&place, 0);
	place_close(&place);
	free(copied);
}
END_TEST

/* A page that is not in the file any more: the kernel's SIGBUS reaches its handler, and is not met inside of ours. */
START_TEST(test_page_that_was_cut_off_raises_the_kernels_signal)
{
	if (!place_possible(mprotect_case(UFFDWP_MEMORY_SHMEM))) {
		return;
	}
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	place_attach(&place, mprotect_case(UFFDWP_MEMORY_SHMEM), 1024, 1);
	place_touch(&place);
	copied = calloc(1, place.length_bytes);
	must(copied != NULL);
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = copy_at_gate;
	ck_assert_int_eq(uffdwp_snapshot_begin(place.region, &options, &snapshot), 0);
	gate_await(&gate);
	catch_install(SIGBUS, 0);
	must(ftruncate(place.fd, (off_t)place.page_bytes) == 0);
	catch_count = 0;
	if (!sigsetjmp(catch_jump, 1)) {
		*(volatile uint8_t *)(place.base + 2 * place.page_bytes) = 1;
	}
	ck_assert_int_eq(catch_count, 1);
	gate_open(&gate);
	ck_assert_int_ne(uffdwp_snapshot_wait(snapshot, -1, NULL), 0); /* content was cut off outside of the library */
	ck_assert_int_eq(uffdwp_snapshot_free(snapshot), 0);
	must(ftruncate(place.fd, (off_t)place.length_bytes) == 0);
	place_close(&place);
	free(copied);
}
END_TEST

/* mprotect(2) would take anything; the library does not. */
START_TEST(test_file_on_disk_is_refused)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	char path[] = "/var/tmp/uffdwp-test-XXXXXX";
	int fd = mkstemp(path);
	struct statfs fs = {.f_type = TMPFS_MAGIC};
	if (fd < 0 || unlink(path) != 0 || ftruncate(fd, 65536) != 0 || fstatfs(fd, &fs) != 0 ||
	    fs.f_type == TMPFS_MAGIC) {
		support_note("a file on disk", "/var/tmp is not on one");
		return;
	}
	void *memory = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	must(memory != MAP_FAILED);
	ck_assert_int_eq(uffdwp_open(NULL, &runtime), 0);
	options.mechanism = UFFDWP_MECHANISM_MPROTECT;
	for (int knows_fd = 0; knows_fd < 2; knows_fd++) {
		options.fd = knows_fd ? fd : -1;
		ck_assert_int_eq(uffdwp_region_attach(runtime, memory, 65536, &options, &region), -EMEDIUMTYPE);
	}
	ck_assert_int_eq(uffdwp_close(runtime), 0);
	munmap(memory, 65536);
	close(fd);
}
END_TEST

static volatile int alarms;

static void write_in_the_handler(int signal_number)
{
	(void)signal_number;
	alarms = alarms + 1;
	((volatile uint8_t *)place.base)[((size_t)alarms * 7 % place.pages) * place.page_bytes]++;
}

/* The thread that arms stalls all faults; a signal handler that interrupted it there would wait for it. */
START_TEST(test_signal_handler_may_write_while_its_thread_arms)
{
	if (!place_possible(mprotect_case(UFFDWP_MEMORY_SHMEM))) {
		return;
	}
	struct sigaction action = {.sa_handler = write_in_the_handler};
	struct itimerval often = {{0, 200}, {0, 200}};
	struct itimerval never = {{0, 0}, {0, 0}};
	sigemptyset(&action.sa_mask);
	place_open(&place, mprotect_case(UFFDWP_MEMORY_SHMEM), 4096);
	place_touch(&place);
	alarms = 0;
	must(sigaction(SIGALRM, &action, NULL) == 0);
	must(setitimer(ITIMER_REAL, &often, NULL) == 0);
	for (int round = 0; round < 200 || alarms < 20; round++) {
		ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
	}
	must(setitimer(ITIMER_REAL, &never, NULL) == 0);
	place_close(&place);
}
END_TEST

/* The limit is of the process: two regions share it, and what the program maps itself counts. */
START_TEST(test_regions_share_the_mappings)
{
	if (!open_sparse(UFFDWP_MEMORY_SHMEM)) {
		return;
	}
	struct place first = place;
	for (unsigned i = 0; i < 200; i++) { /* neighbours that differ, so that they stay apart */
		int prot = i % 2 ? PROT_READ : PROT_NONE;
		ck_assert_ptr_ne(mmap(NULL, 4096, prot, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), MAP_FAILED);
	}
	open_armed(mprotect_case(UFFDWP_MEMORY_ANON), PAGES_SPARSE);
	write_sparsely(5);
	struct place second = place;
	place = first;
	write_sparsely(6);
	ck_assert_uint_lt(witness_mappings(), MAPPINGS_MOST - 50);
	ck_assert_int_eq(place_agrees(&first), 1);
	ck_assert_int_eq(place_agrees(&second), 1);
	place_close(&first);
	place_close(&second);
}
END_TEST

int main(void)
{
	support_begin("test_mprotect", &(struct support_needs){.huge_pages = 8, .swap = 0});
	place_begin();
	mappings_are_few = settings_mappings(MAPPINGS_MOST) == 0;
	if (!mappings_are_few) {
		support_note("the bound on mappings", "vm.max_map_count cannot be lowered");
	}
	Suite *suite = suite_create("mprotect");
	TCase *tests = tcase_create("mprotect");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_delivery_by_thread_is_refused_with_a_text, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_auto_delivery_is_inline, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_foreign_sigsegv_reaches_the_handler_before_us, 0, 2 * UFFDWP_MEMORY_COUNT);
	tcase_add_test(tests, test_foreign_sigsegv_kills_without_a_handler);
	tcase_add_test(tests, test_child_may_write_to_its_copy_of_armed_memory);
	tcase_add_loop_test(tests, test_sparse_writes_never_use_up_the_mappings, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_sparse_writes_during_a_snapshot_never_use_up_the_mappings, 0,
	                    UFFDWP_MEMORY_COUNT);
	tcase_add_test(tests, test_regions_share_the_mappings);
	tcase_add_test(tests, test_snapshots_after_each_other_never_use_up_the_mappings);
	tcase_add_test(tests, test_pool_that_is_too_small_for_a_block_is_refused);
	tcase_add_test(tests, test_write_of_a_vfork_child_is_preserved);
	tcase_add_loop_test(tests, test_child_of_fork_writes_to_memory_that_its_parent_has_armed, 0,
	                    UFFDWP_MEMORY_COUNT);
	tcase_add_loop_test(tests, test_child_of_fork_writes_while_its_parent_takes_a_snapshot, 0, UFFDWP_MEMORY_COUNT);
	tcase_add_test(tests, test_page_that_was_cut_off_raises_the_kernels_signal);
	tcase_add_test(tests, test_file_on_disk_is_refused);
	tcase_add_test(tests, test_signal_handler_may_write_while_its_thread_arms);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
