/* SPDX-License-Identifier: MIT */
/*
 * The list at the top of uffdwp.h, shown: writes that no page table of the region sees. Each of these tests documents a
 * limit: content changes, and the page is armed as before. Then what prevents it: seals, MADV_DONTFORK, and the refusal
 * to attach memory that has another writable mapping here.
 *
 * All on shared memory, with each mechanism.
 */
#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "pace.h"
#include "place.h"
#include "support.h"

#define PAGES 4
#define PAGE 2 /* the one that is written to */

static struct place place;
static size_t page_bytes;

static struct place_case bypass_case(int index)
{
	return place_by(UFFDWP_MEMORY_SHMEM, (enum uffdwp_mechanism)(UFFDWP_MECHANISM_MARKER + index));
}

/* A region whose pages hold 1, 2, 3... */
static int open_case(int index, uint32_t flags)
{
	if (!place_possible(bypass_case(index))) {
		return 0;
	}
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	options.flags = flags;
	options.capacity_bytes = 2 * PAGES * place_page_bytes(UFFDWP_MEMORY_SHMEM);
	place_open_with(&place, bypass_case(index), PAGES, &options);
	page_bytes = place.page_bytes;
	place_touch(&place);
	return 1;
}

static void arm_all(void)
{
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
}

static uint8_t *at(size_t page)
{
	return place.base + page * page_bytes;
}

/* PAGE was changed to `value`, and the library did not notice: a write through the region is still the first. */
static void expect_unseen(uint8_t value)
{
	place_expect_armed(&place, PAGES);
	ck_assert_uint_eq(place_stats(&place).pages_disarmed, 0);
	ck_assert_uint_eq(place_faults(&place, 0), 0);
	ck_assert_uint_eq(*(volatile uint8_t *)at(PAGE), value);
	*(volatile uint8_t *)at(PAGE) = 99;
	ck_assert_uint_eq(place_stats(&place).pages_disarmed, 1);
	place_expect_armed(&place, PAGES - 1);
}

/* --- what passes unseen --------------------------------------------------------------------------------------------
 */

START_TEST(test_pwrite_on_the_file_passes_unseen)
{
	if (open_case(_i, 0)) {
		arm_all();
		ck_assert_int_eq((int)pwrite(place_fd(&place), "w", 1, (off_t)(PAGE * page_bytes)), 1);
		expect_unseen('w');
		place_close(&place);
	}
}
END_TEST

START_TEST(test_write_through_another_mapping_passes_unseen)
{
	if (open_case(_i, 0)) {
		int prot = PROT_READ | PROT_WRITE;
		uint8_t *other = mmap(NULL, place.length_bytes, prot, MAP_SHARED, place_fd(&place), 0);
		ck_assert_ptr_ne(other, MAP_FAILED);
		arm_all();
		other[PAGE * page_bytes] = 'm';
		expect_unseen('m');
		ck_assert_int_eq(munmap(other, place.length_bytes), 0);
		place_close(&place);
	}
}
END_TEST

/* A debugger's write, which does not wait, neither for a handler thread. */
START_TEST(test_write_by_proc_mem_is_refused_while_the_page_is_armed)
{
	if (open_case(_i, 0)) {
		int mem = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
		ck_assert_int_ge(mem, 0);
		arm_all();
		ck_assert_int_eq((int)pwrite(mem, "d", 1, (off_t)(uintptr_t)at(PAGE)), -1);
		ck_assert_int_eq(errno, EIO);
		place_expect_armed(&place, PAGES);
		close(mem);
		place_close(&place);
	}
}
END_TEST

/* io_uring reads a file into a buffer whose pages it pinned before they were armed. 0, or -errno: not available here.
 */
static int read_into_pinned(struct io_uring *ring, int file)
{
	struct iovec buffer = {at(PAGE), page_bytes};
	int error = io_uring_register_buffers(ring, &buffer, 1);
	if (error != 0) {
		return error;
	}
	arm_all();
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);
	struct io_uring_cqe *cqe = NULL;
	if (sqe == NULL) {
		return -EAGAIN;
	}
	io_uring_prep_read_fixed(sqe, file, at(PAGE), 1, 0, 0);
	ck_assert_int_eq(io_uring_submit(ring), 1);
	ck_assert_int_eq(io_uring_wait_cqe(ring, &cqe), 0);
	ck_assert_int_eq(cqe->res, 1);
	io_uring_cqe_seen(ring, cqe);
	return 0;
}

START_TEST(test_device_that_pinned_the_page_writes_unseen)
{
	if (!open_case(_i, 0)) {
		return;
	}
	struct io_uring ring;
	int file = memfd_create("source", MFD_CLOEXEC);
	ck_assert_int_eq((int)write(file, "p", 1), 1);
	int error = io_uring_queue_init(4, &ring, 0);
	if (error == 0) {
		error = read_into_pinned(&ring, file);
		if (error == 0) {
			expect_unseen('p');
		}
		io_uring_queue_exit(&ring);
	}
	if (error != 0) {
		support_note(__func__, strerror(-error));
	}
	close(file);
	place_close(&place);
}
END_TEST

static void write_in_child(void *argument)
{
	(void)argument;
	pace_alarm(20);
	*(volatile uint8_t *)at(PAGE) = 'c';
}

START_TEST(test_child_that_inherits_the_region_writes_unseen)
{
	if (!SUPPORT_THREAD_SANITIZER && open_case(_i, UFFDWP_REGION_CREATE_INHERIT)) {
		arm_all();
		ck_assert_int_eq(child_run(write_in_child, NULL), 0);
		expect_unseen('c');
		place_close(&place);
	}
}
END_TEST

/* Content that goes is not asked for: a running snapshot fails (test_snapshot_fails.c). What is protected by
 * mprotect(2) some kernels take for read-only, and refuse. */
START_TEST(test_madvise_remove_takes_content_unasked)
{
	if (!open_case(_i, 0)) {
		return;
	}
	arm_all();
	int refused = madvise(at(PAGE), page_bytes, MADV_REMOVE) != 0;
	if (refused) {
		ck_assert_int_eq(errno, EACCES);
		ck_assert_int_eq(place.mechanism, UFFDWP_MECHANISM_MPROTECT);
	}
	ck_assert_uint_eq(place_stats(&place).pages_disarmed, 0);
	ck_assert_uint_eq(*(volatile uint8_t *)at(PAGE), refused ? PAGE + 1 : 0);
	place_close(&place);
}
END_TEST

/* --- seals ---------------------------------------------------------------------------------------------------------
 */

static void expect_eperm(int failed)
{
	int error = errno;
	ck_assert_int_eq(failed, 1);
	ck_assert_int_eq(error, EPERM);
}

static void expect_sealed(void)
{
	int fd = place_fd(&place);
	expect_eperm(pwrite(fd, "w", 1, 0) == -1);
	expect_eperm(write(fd, "w", 1) == -1);
	expect_eperm(mmap(NULL, page_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED);
	expect_eperm(ftruncate(fd, 0) == -1);
	expect_eperm(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, (off_t)page_bytes) == -1);
	expect_eperm(madvise(place.base, page_bytes, MADV_REMOVE) == -1);
	ck_assert_int_eq(uffdwp_region_punch(place.region, 0, page_bytes), -EPERM);
}

START_TEST(test_sealed_region_refuses_what_no_page_table_sees)
{
	if (open_case(_i, UFFDWP_REGION_CREATE_SEALED)) {
		expect_sealed();
		for (size_t page = 0; page < PAGES; page++) {
			ck_assert_uint_eq(*at(page), page + 1);
		}
		place_close(&place);
	}
}
END_TEST

START_TEST(test_sealed_region_works_and_grows)
{
	if (open_case(_i, UFFDWP_REGION_CREATE_SEALED)) {
		ck_assert_int_eq(uffdwp_region_grow(place.region, 2 * PAGES * page_bytes), 0);
		place.pages = 2 * PAGES;
		place.length_bytes = place.pages * page_bytes;
		for (uint8_t round = 1; round <= 2; round++) {
			arm_all();
			for (size_t page = 0; page < place.pages; page++) {
				*(volatile uint8_t *)at(page) = round;
			}
			ck_assert_uint_eq(place_stats(&place).pages_disarmed, round * place.pages);
			place_expect_armed(&place, 0);
		}
		place_close(&place);
	}
}
END_TEST

/* --- fork ----------------------------------------------------------------------------------------------------------
 */

static void expect_no_mapping(void *address)
{
	unsigned char here = 0;
	must(mincore(address, 1, &here) == -1 && errno == ENOMEM);
}

START_TEST(test_child_has_no_mapping_unless_asked_for)
{
	if (!SUPPORT_THREAD_SANITIZER && open_case(_i, 0)) {
		arm_all();
		ck_assert_int_eq(child_run(expect_no_mapping, place.base), 0);
		place_expect_armed(&place, PAGES);
		*(volatile uint8_t *)place.base = 2;
		ck_assert_uint_eq(place_faults(&place, 1), 1);
		place_close(&place);
	}
}
END_TEST

/* The kernel gives a child's new memory the addresses that a region of its parent has there. */
static void open_region_at(void *address)
{
	struct uffdwp *runtime = NULL;
	struct uffdwp_region *region = NULL;
	size_t length = PAGES * (size_t)sysconf(_SC_PAGESIZE);
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
	must(mmap(address, length, PROT_READ | PROT_WRITE, flags, -1, 0) == address);
	must(uffdwp_open(NULL, &runtime) == 0);
	must(uffdwp_region_attach(runtime, address, length, NULL, &region) == 0);
	must(uffdwp_region_arm(region, 0, length) == 0);
	*(volatile uint8_t *)address = 3;
	uint64_t armed = 0;
	must(uffdwp_region_armed(region, 0, length, &armed) == 0 && armed == PAGES - 1);
	must(uffdwp_region_close(region) == 0 && uffdwp_close(runtime) == 0);
}

START_TEST(test_child_may_have_a_region_where_its_parent_has_one)
{
	if (!SUPPORT_THREAD_SANITIZER && open_case(_i, 0)) {
		ck_assert_int_eq(child_run(open_region_at, place.base), 0);
		place_close(&place);
	}
}
END_TEST

/* --- other mappings ------------------------------------------------------------------------------------------------
 */

struct pair {
	struct patch patch;
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	struct uffdwp_region_options options;
};

/* Memory of one of PLACE_CASES, to be attached twice; 0: not here. */
static int open_pair(struct pair *pair, int index)
{
	struct place_case which = place_case(index);
	if (which.memory == UFFDWP_MEMORY_ANON || !place_possible(which)) {
		return 0;
	}
	pair->patch = patch_map(which.memory, 2);
	pair->runtime = NULL;
	pair->region = NULL;
	pair->options = (struct uffdwp_region_options)UFFDWP_REGION_OPTIONS_INIT;
	pair->options.fd = pair->patch.fd;
	pair->options.mechanism = which.mechanism;
	pair->options.delivery = which.delivery;
	ck_assert_int_eq(uffdwp_open(NULL, &pair->runtime), 0);
	return 1;
}

static void close_pair(struct pair *pair)
{
	ck_assert_int_eq(uffdwp_close(pair->runtime), 0);
	patch_unmap(&pair->patch);
}

static void *map_again(const struct pair *pair, int prot, int flags, size_t page, size_t pages)
{
	size_t bytes = pair->patch.page_bytes;
	void *other = mmap(NULL, pages * bytes, prot, flags, pair->patch.fd, (off_t)(page * bytes));
	ck_assert_ptr_ne(other, MAP_FAILED);
	return other;
}

static int attach(struct pair *pair, size_t pages)
{
	return uffdwp_region_attach(pair->runtime, pair->patch.base, pages * pair->patch.page_bytes, &pair->options,
	                            &pair->region);
}

static uint32_t aliases_of(const struct pair *pair)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	ck_assert_int_eq(uffdwp_region_info(pair->region, &info), 0);
	return info.aliases;
}

/* The text says where the other mapping is. */
static void expect_named(const void *other)
{
	char text[512] = "";
	char address[32];
	uffdwp_error_text(text, sizeof(text));
	(void)snprintf(address, sizeof(address), "%llx", (unsigned long long)(uintptr_t)other);
	ck_assert_msg(strstr(text, address) != NULL, "%s is not named: %s", address, text);
}

START_TEST(test_attach_refuses_memory_with_another_writable_mapping)
{
	struct pair pair;
	if (!open_pair(&pair, _i)) {
		return;
	}
	void *other = map_again(&pair, PROT_READ | PROT_WRITE, MAP_SHARED, 0, 2);
	ck_assert_int_eq(attach(&pair, 2), -EADDRINUSE);
	ck_assert_ptr_null(pair.region);
	expect_named(other);
	ck_assert_int_eq(munmap(other, 2 * pair.patch.page_bytes), 0);
	ck_assert_int_eq(attach(&pair, 2), 0);
	ck_assert_uint_eq(aliases_of(&pair), 0);
	ck_assert_int_eq(uffdwp_region_close(pair.region), 0);
	close_pair(&pair);
}
END_TEST

START_TEST(test_attach_takes_it_where_the_caller_says_so)
{
	struct pair pair;
	if (!open_pair(&pair, _i)) {
		return;
	}
	volatile uint8_t *other = map_again(&pair, PROT_READ | PROT_WRITE, MAP_SHARED, 0, 2);
	uint64_t armed = 0;
	pair.options.flags = UFFDWP_REGION_ATTACH_ALIASED;
	ck_assert_int_eq(attach(&pair, 2), 0);
	ck_assert_uint_eq(aliases_of(&pair), 1);
	expect_named((const void *)(uintptr_t)other);
	ck_assert_int_eq(uffdwp_region_arm(pair.region, 0, 2 * pair.patch.page_bytes), 0);
	*other = 6;
	ck_assert_int_eq(uffdwp_region_armed(pair.region, 0, 2 * pair.patch.page_bytes, &armed), 0);
	ck_assert_uint_eq(armed, 2);
	ck_assert_uint_eq(*pair.patch.base, 6);
	ck_assert_int_eq(uffdwp_region_close(pair.region), 0);
	ck_assert_int_eq(munmap((void *)(uintptr_t)other, 2 * pair.patch.page_bytes), 0);
	close_pair(&pair);
}
END_TEST

START_TEST(test_mapping_that_cannot_write_the_range_is_none)
{
	struct pair pair;
	if (!open_pair(&pair, _i)) {
		return;
	}
	size_t bytes = pair.patch.page_bytes;
	void *others[] = {map_again(&pair, PROT_READ, MAP_SHARED, 0, 1),
	                  map_again(&pair, PROT_READ | PROT_WRITE, MAP_PRIVATE, 0, 1),
	                  map_again(&pair, PROT_READ | PROT_WRITE, MAP_SHARED, 1, 1)};
	ck_assert_int_eq(attach(&pair, 1), 0);
	ck_assert_uint_eq(aliases_of(&pair), 0);
	ck_assert_int_eq(uffdwp_region_close(pair.region), 0);
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
		ck_assert_int_eq(munmap(others[i], bytes), 0);
	}
	close_pair(&pair);
}
END_TEST

int main(void)
{
	support_begin("test_bypass", &(struct support_needs){.huge_pages = 8, .swap = 0});
	place_begin();
	Suite *suite = suite_create("bypass");
	TCase *tests = tcase_create("bypass");
	tcase_set_timeout(tests, 60);
	tcase_add_loop_test(tests, test_pwrite_on_the_file_passes_unseen, 0, PLACE_MECHANISMS);
	tcase_add_loop_test(tests, test_write_by_proc_mem_is_refused_while_the_page_is_armed, 0, PLACE_MECHANISMS);
	tcase_add_loop_test(tests, test_write_through_another_mapping_passes_unseen, 0, PLACE_MECHANISMS);
	tcase_add_loop_test(tests, test_device_that_pinned_the_page_writes_unseen, 0, PLACE_MECHANISMS);
	tcase_add_loop_test(tests, test_child_that_inherits_the_region_writes_unseen, 0, PLACE_MECHANISMS);
	tcase_add_loop_test(tests, test_madvise_remove_takes_content_unasked, 0, PLACE_MECHANISMS);
	tcase_add_loop_test(tests, test_sealed_region_refuses_what_no_page_table_sees, 0, PLACE_MECHANISMS);
	tcase_add_loop_test(tests, test_sealed_region_works_and_grows, 0, PLACE_MECHANISMS);
	tcase_add_loop_test(tests, test_child_has_no_mapping_unless_asked_for, 0, PLACE_MECHANISMS);
	tcase_add_loop_test(tests, test_child_may_have_a_region_where_its_parent_has_one, 0, PLACE_MECHANISMS);
	tcase_add_loop_test(tests, test_attach_refuses_memory_with_another_writable_mapping, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_attach_takes_it_where_the_caller_says_so, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_mapping_that_cannot_write_the_range_is_none, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
