/* SPDX-License-Identifier: MIT */
/*
 * Lazy restores that cannot have everything: damaged and cut images, restores that are freed or whose region goes while
 * a thread waits, and punches beside a read that is running. What cannot be fetched raises SIGBUS on its page and on no
 * other, fails a snapshot with its error, and never shows zeros (INV-ABSENT).
 *
 * A gate in pread(2) of the image's folder stops the thread that fetches, so that "while it reads" needs no timing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bus.h"
#include "chain.h"
#include "fault/fault.h"
#include "gate.h"
#include "kernel/kernel.h"
#include "place.h"
#include "refusing.h"
#include "region/lazy.h"
#include "support.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4 /* linux/mman.h, 5.7 */
#endif

#define PAGES 700
#define LENGTH ((size_t)PAGES * 4096)
#define BAD_PAGE 300 /* of 4096 bytes */

static struct place place;
static struct test_chain chain;
static struct uffdwp_restore *restore;

/* --- places and images ---------------------------------------------------------------------------------------------
 */

/* The page of the region that holds a page of 4096 bytes. */
static size_t page_of(size_t small)
{
	return small * 4096 / place.page_bytes;
}

static size_t pages_for(enum uffdwp_memory memory)
{
	return (LENGTH + place_page_bytes(memory) - 1) / place_page_bytes(memory);
}

static int try_begin(const char *path, uint32_t flags, uint32_t threads)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	options.path = path;
	options.flags = flags;
	options.threads = threads;
	return uffdwp_restore_begin(place.region, &options, &restore);
}

static void expect_text(const char *part)
{
	char text[1024];
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, part) != NULL, "\"%s\" does not say \"%s\"", text, part);
}

/* A raw image of noise: no page is zeros. */
static void make_raw(void)
{
	struct chance chance = chance_new(41);
	test_chain_begin(&chain, 4096, LENGTH, 40);
	chance_fill(&chance, chain.shadow, LENGTH);
	scratch_write(chain.path, chain.shadow, LENGTH);
}

/* A delta, of which BAD_PAGE is damaged in the file: by a bit. */
static void make_damaged_delta(void)
{
	struct uffdwp_image *image = NULL;
	struct uffdwp_image_extent extent = {.sz = sizeof(extent)};
	size_t page = 0;
	test_chain_begin(&chain, 4096, LENGTH, 42);
	test_chain_step(&chain, 0, LENGTH);
	ck_assert_int_eq(uffdwp_image_open(chain.path, NULL, &image), 0);
	for (page = BAD_PAGE; page < PAGES; page++) {
		ck_assert_int_eq(uffdwp_image_next(image, page * 4096, &extent), 1);
		if (extent.link == 0 && extent.kind == UFFDWP_EXTENT_DATA) {
			break;
		}
	}
	ck_assert_uint_lt(page, PAGES);
	uint8_t byte = (uint8_t)(chain.shadow[page * 4096] ^ 1);
	int fd = open(chain.path, O_WRONLY | O_CLOEXEC);
	ck_assert_int_eq(pwrite(fd, &byte, 1, (off_t)extent.file_offset), 1);
	close(fd);
	ck_assert_int_eq(uffdwp_image_close(image), 0);
	chain.count = (unsigned)page; /* where it is */
}

/* --- what a damaged page does --------------------------------------------------------------------------------------
 */

/* How many pages raise SIGBUS; all others are right. */
static size_t count_bad(size_t *last)
{
	uint8_t *bytes = malloc(place.page_bytes);
	size_t bad = 0;
	must(bytes != NULL);
	for (size_t page = 0; page < place.pages; page++) {
		size_t at = page * place.page_bytes;
		size_t there = LENGTH - at < place.page_bytes ? LENGTH - at : place.page_bytes;
		if (!bus_read(place.base + at, bytes, place.page_bytes)) {
			bad++;
			*last = page;
			continue;
		}
		ck_assert_msg(memcmp(bytes, chain.shadow + at, there) == 0, "page %zu differs", page);
	}
	free(bytes);
	return bad;
}

static int snapshot(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *running = NULL;
	char path[SCRATCH_PATH];
	scratch_join(path, chain.folder, "snapshot");
	options.path = path;
	int error = uffdwp_snapshot_begin(place.region, &options, &running);
	ck_assert_int_eq(error, 0);
	error = uffdwp_snapshot_wait(running, -1, NULL);
	ck_assert_int_eq(uffdwp_snapshot_free(running), 0);
	ck_assert_int_eq(access(path, F_OK) == 0, error == 0);
	(void)unlink(path);
	return error;
}

static void expect_reported(size_t at, int error)
{
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, &progress), error);
	expect_text(strerror(-error));
	ck_assert_uint_eq(progress.state, UFFDWP_RESTORE_STATE_FAILED);
	ck_assert_int_eq(progress.error, error);
	ck_assert_uint_eq(progress.error_offset, at);
	ck_assert_uint_eq(progress.pages_failed, 1);
	ck_assert_uint_eq(progress.pages_done, progress.pages_total - 1);
}

/* One page is bad: by loads, stores and barriers, before and after the handle is freed; a punch heals. */
static void expect_one_bad(size_t page, int error)
{
	struct uffdwp_view *view = NULL;
	size_t found = 0;
	size_t at = page * place.page_bytes;
	ck_assert_uint_eq(count_bad(&found), 1);
	ck_assert_uint_eq(found, page);
	expect_reported(at, error);
	ck_assert_int_eq(uffdwp_restore_check(restore, at + 1, 1), error);
	ck_assert_int_eq(uffdwp_prepare_write(place.region, at, 1), error);
	ck_assert_int_eq(bus_write(place.base + at, 1), 0);
	ck_assert_int_eq(snapshot(), error);
	ck_assert_uint_eq(count_bad(&found), 1);
	ck_assert_int_eq(uffdwp_region_close(place.region), -EBUSY);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	ck_assert_uint_eq(count_bad(&found), 1);
	ck_assert_int_eq(snapshot(), error);
	if (place_fd(&place) >= 0 && place.page_bytes == 4096) {
		ck_assert_int_eq(uffdwp_view_open(place.region, NULL, &view), -EBUSY);
	}
	ck_assert_int_eq(bus_write(place.base + at, 1), 0);
	ck_assert_int_eq(uffdwp_region_punch(place.region, at, place.page_bytes), 0);
	memset(chain.shadow + at, 0, place.page_bytes < LENGTH - at ? place.page_bytes : LENGTH - at);
	ck_assert_uint_eq(count_bad(&found), 0);
	ck_assert_int_eq(bus_write(place.base + at, 1), 1);
	chain.shadow[at] = 1;
	ck_assert_int_eq(snapshot(), 0);
}

START_TEST(test_a_damaged_page_raises_sigbus)
{
	struct place_case which = place_case(_i);
	if (!place_restores_lazily(which)) {
		return;
	}
	bus_begin();
	for (uint32_t flags = 0; flags <= UFFDWP_RESTORE_BEGIN_ON_DEMAND; flags += UFFDWP_RESTORE_BEGIN_ON_DEMAND) {
		make_damaged_delta();
		place_open(&place, which, pages_for(which.memory));
		ck_assert_int_eq(try_begin(chain.path, flags, 0), 0);
		expect_one_bad(page_of(chain.count), -EBADMSG);
		place_close(&place);
		test_chain_end(&chain);
	}
	printf("%s: a damaged page raised SIGBUS\n", place_case_name(which));
}
END_TEST

START_TEST(test_a_raw_image_that_was_cut_raises_sigbus_where_it_ends)
{
	struct place_case which = place_case(_i);
	size_t last = 0;
	if (!place_restores_lazily(which)) {
		return;
	}
	bus_begin();
	make_raw();
	place_open(&place, which, pages_for(which.memory));
	ck_assert_int_eq(try_begin(chain.path, UFFDWP_RESTORE_BEGIN_ON_DEMAND, 0), 0);
	ck_assert_int_eq(truncate(chain.path, (off_t)(LENGTH - 4096)), 0);
	ck_assert_int_eq(snapshot(), -EBADMSG);
	ck_assert_uint_eq(count_bad(&last), 1);
	ck_assert_uint_eq(last, place.pages - 1);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	/* Restored anew: nothing is left of the failure. */
	scratch_write(chain.path, chain.shadow, LENGTH);
	ck_assert_int_eq(try_begin(chain.path, 0, 0), 0);
	ck_assert_uint_eq(count_bad(&last), 0);
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	ck_assert_int_eq(snapshot(), 0);
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

/* What a failed page was emptied of comes again. */
START_TEST(test_a_failed_page_stays_bad_when_its_entry_is_emptied)
{
	struct place_case which = place_case(_i);
	size_t last = 0;
	if (!place_restores_lazily(which) || !place_takes_dontneed(which.memory) ||
	    which.memory == UFFDWP_MEMORY_ANON) {
		return;
	}
	bus_begin();
	make_damaged_delta();
	place_open(&place, which, pages_for(which.memory));
	ck_assert_int_eq(try_begin(chain.path, 0, 0), 0);
	ck_assert_uint_eq(count_bad(&last), 1);
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), -EBADMSG);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	ck_assert_int_eq(madvise(place.base, place.length_bytes, MADV_DONTNEED), 0);
	ck_assert_uint_eq(count_bad(&last), 1);
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

/* --- while it reads ------------------------------------------------------------------------------------------------
 */

static struct gate gate;
static dev_t image_device;
static _Atomic int gated;
static struct kernel_ops held_kernel;

static ssize_t held_pread(int fd, void *buffer, size_t length, uint64_t offset)
{
	struct stat st;
	if (atomic_load(&gated) && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_dev == image_device) {
		gate_pass(&gate);
	}
	return kernel_real.pread(fd, buffer, length, offset);
}

/* A restore with one thread, which is held at its first read. */
static void begin_held(struct place_case which)
{
	struct stat st;
	static const struct gate closed = GATE_INIT;
	make_raw();
	ck_assert_int_eq(stat(chain.folder, &st), 0);
	image_device = st.st_dev;
	gate = closed;
	held_kernel = kernel_real;
	held_kernel.pread = held_pread;
	ck_assert_int_eq(place_try(&place, &held_kernel, 0, which, pages_for(which.memory)), 0);
	ck_assert_int_eq(try_begin(chain.path, UFFDWP_RESTORE_BEGIN_ON_DEMAND, 1), 0);
	atomic_store(&gated, 1);
}

struct access {
	size_t page;
	int read; /* it could be */
	int right;
};

static void *read_page(void *argument)
{
	struct access *access = argument;
	uint8_t *bytes = malloc(place.page_bytes);
	size_t at = access->page * place.page_bytes;
	must(bytes != NULL);
	access->read = bus_read(place.base + at, bytes, 4096);
	access->right = access->read && memcmp(bytes, chain.shadow + at, 4096) == 0;
	free(bytes);
	return NULL;
}

static const struct lazy *lazy_now(void)
{
	return atomic_load(&place.region->lazy);
}

static int is_wanted(void *page)
{
	return lazy_state(lazy_now(), *(const size_t *)page) == LAZY_WANTED;
}

static int is_stopped(void *unused)
{
	(void)unused;
	return atomic_load(&lazy_now()->stop) != 0;
}

static void *free_it(void *unused)
{
	(void)unused;
	must(uffdwp_restore_free(restore) == 0);
	return NULL;
}

START_TEST(test_free_resumes_all_that_wait)
{
	struct place_case which = place_case(_i);
	if (!place_restores_lazily(which)) {
		return;
	}
	bus_begin();
	begin_held(which);
	struct access first = {.page = 0};
	struct access last = {.page = place.pages - 1};
	size_t found = 0;
	pthread_t reader = thread_start(read_page, &first);
	gate_await(&gate);
	pthread_t waiter = thread_start(read_page, &last);
	must(wait_until(is_wanted, &last.page, 60));
	pthread_t freeing = thread_start(free_it, NULL);
	must(wait_until(is_stopped, NULL, 60));
	gate_open(&gate);
	thread_join(reader);
	thread_join(waiter);
	thread_join(freeing);
	ck_assert_int_eq(first.right, 1);
	ck_assert_int_eq(last.read, 0);
	ck_assert_uint_gt(count_bad(&found), 0);
	ck_assert_int_eq(snapshot(), -ENOLINK); /* not -ECANCELED: no snapshot was aborted */
	char text[256] = "";
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(strstr(text, "never fetched") != NULL, "%s", text);
	ck_assert_int_eq(uffdwp_region_punch(place.region, 0, place.length_bytes), 0);
	memset(chain.shadow, 0, LENGTH);
	ck_assert_uint_eq(count_bad(&found), 0);
	ck_assert_int_eq(snapshot(), 0);
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

static void *punch_first(void *unused)
{
	(void)unused;
	must(uffdwp_region_punch(place.region, 0, place.page_bytes) == 0);
	return NULL;
}

/* The page is being read when it is punched: its bytes do not come back. */
START_TEST(test_a_late_fill_does_not_undo_a_punch)
{
	struct place_case which = place_case(_i);
	if (!place_restores_lazily(which)) {
		return;
	}
	bus_begin();
	begin_held(which);
	struct access first = {.page = 0};
	struct access last = {.page = place.pages - 1};
	pthread_t reader = thread_start(read_page, &first);
	gate_await(&gate);
	pthread_t puncher = thread_start(punch_first, NULL);
	pthread_t waiter = thread_start(read_page, &last);
	must(wait_until(is_wanted, &last.page, 60));
	gate_open(&gate);
	thread_join(puncher);
	thread_join(reader);
	thread_join(waiter);
	ck_assert_int_eq(first.read, 1); /* before the punch, or after */
	ck_assert_int_eq(last.right, 1);
	memset(chain.shadow, 0, place.page_bytes);
	ck_assert_uint_eq(count_bad(&last.page), 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	ck_assert_uint_eq(count_bad(&last.page), 0);
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

/* What no thread has asked for is not read for a punch. */
START_TEST(test_a_punch_fetches_nothing)
{
	struct place_case which = place_case(_i);
	size_t last = 0;
	if (!place_restores_lazily(which)) {
		return;
	}
	make_raw();
	place_open(&place, which, pages_for(which.memory));
	ck_assert_int_eq(try_begin(chain.path, UFFDWP_RESTORE_BEGIN_ON_DEMAND, 0), 0);
	size_t half = place.pages / 2 ? place.pages / 2 : 1;
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};
	ck_assert_int_eq(uffdwp_region_punch(place.region, 0, half * place.page_bytes), 0);
	(void)uffdwp_restore_wait(restore, 0, &progress);
	ck_assert_uint_eq(progress.bytes_read, 0);
	ck_assert_uint_eq(progress.pages_done, half);
	memset(chain.shadow, 0, half * place.page_bytes);
	ck_assert_uint_eq(count_bad(&last), 0);
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

/* --- beside an arming ----------------------------------------------------------------------------------------------
 */

static _Atomic int copies;
static _Atomic int arming_is_held;
static _Atomic int copies_are_held;

static int held_copy(int uffd, uint64_t to, const void *from, uint64_t length, uint64_t mode)
{
	atomic_fetch_add(&copies, 1);
	if (atomic_load(&copies_are_held)) {
		gate_pass(&gate);
	}
	return kernel_real.uffd_copy(uffd, to, from, length, mode);
}

static int held_writeprotect(int uffd, uint64_t start, uint64_t length, uint64_t mode)
{
	if (atomic_load(&arming_is_held) && mode != 0) {
		gate_pass(&gate);
	}
	return kernel_real.uffd_writeprotect(uffd, start, length, mode);
}

static void begin_beside_arming(struct place_case which)
{
	static const struct gate closed = GATE_INIT;
	make_raw();
	gate = closed;
	held_kernel = kernel_real;
	held_kernel.uffd_copy = held_copy;
	held_kernel.uffd_writeprotect = held_writeprotect;
	ck_assert_int_eq(place_try(&place, &held_kernel, 0, which, pages_for(which.memory)), 0);
	ck_assert_int_eq(try_begin(chain.path, UFFDWP_RESTORE_BEGIN_ON_DEMAND, 2), 0);
	atomic_store(&copies, 0);
}

static void *arm_all(void *unused)
{
	(void)unused;
	must(uffdwp_region_arm(place.region, 0, place.length_bytes) == 0);
	return NULL;
}

static int is_fetching(void *page)
{
	return lazy_state(lazy_now(), *(const size_t *)page) == LAZY_FETCHING;
}

static int is_holding(void *unused)
{
	(void)unused;
	return atomic_load(&place.region->phase) == PHASE_STALL;
}

/* All is there and right, all is armed, and the kernel says so, too. */
static void end_beside_arming(void)
{
	size_t last = 0;
	ck_assert_uint_eq(count_bad(&last), 0);
	/* A page can be read before the claim under which it was filled is given back. */
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), 0);
	place_expect_armed(&place, place.pages);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	place_close(&place);
	test_chain_end(&chain);
}

/* The pauses only give what would be wrong the time to happen. */
START_TEST(test_nothing_is_filled_while_faults_are_stalled)
{
	struct place_case which = place_case(_i);
	if (!place_restores_lazily(which)) {
		return;
	}
	begin_beside_arming(which);
	struct access first = {.page = 0};
	atomic_store(&arming_is_held, 1);
	pthread_t armer = thread_start(arm_all, NULL);
	gate_await(&gate);
	pthread_t reader = thread_start(read_page, &first);
	must(wait_until(is_fetching, &first.page, 60));
	sleep_us(20000);
	ck_assert_int_eq(atomic_load(&copies), 0);
	gate_open(&gate);
	thread_join(armer);
	thread_join(reader);
	ck_assert_int_eq(first.right, 1);
	end_beside_arming();
}
END_TEST

START_TEST(test_an_arming_waits_for_a_fill_that_began_before)
{
	struct place_case which = place_case(_i);
	if (!place_restores_lazily(which)) {
		return;
	}
	begin_beside_arming(which);
	struct access first = {.page = 0};
	atomic_store(&copies_are_held, 1);
	pthread_t reader = thread_start(read_page, &first);
	gate_await(&gate);
	pthread_t armer = thread_start(arm_all, NULL);
	must(wait_until(is_holding, NULL, 60));
	sleep_us(20000);
	gate_open(&gate);
	thread_join(armer);
	thread_join(reader);
	ck_assert_int_eq(first.right, 1);
	end_beside_arming();
}
END_TEST

/* --- regions that go -----------------------------------------------------------------------------------------------
 */

START_TEST(test_an_unmapped_region_ends_its_restore)
{
	struct place_case which = place_case(_i);
	if (!place_restores_lazily(which)) {
		return;
	}
	make_raw();
	place_attach(&place, which, pages_for(which.memory), 1);
	ck_assert_int_eq(try_begin(chain.path, UFFDWP_RESTORE_BEGIN_ON_DEMAND, 2), 0);
	ck_assert_int_eq(munmap(place.base, place.length_bytes), 0);
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), -ESTALE);
	ck_assert_int_eq(uffdwp_restore_check(restore, 0, 1), -ESTALE);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
	if (place.fd >= 0) {
		close(place.fd);
	}
	test_chain_end(&chain);
}
END_TEST

/* The event was acted on: the region is dead, and all events were. */
static int has_lost_sight(void *unused)
{
	(void)unused;
	return atomic_load(&place.region->dead) && !atomic_load(&place.region->events_in_hand);
}

/* Neither at the old place nor at the new one any thread sees zeros where the image has something else. */
START_TEST(test_a_region_that_moves_and_stays_mapped_ends_its_restore)
{
	struct place_case which = place_case(_i);
	uint8_t byte;
	if (!place_restores_lazily(which) || which.memory == UFFDWP_MEMORY_HUGETLB) {
		return;
	}
	bus_begin();
	make_raw();
	place_attach(&place, which, pages_for(which.memory), 1);
	ck_assert_int_eq(try_begin(chain.path, UFFDWP_RESTORE_BEGIN_ON_DEMAND, 2), 0);
	void *to = mmap(NULL, place.length_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint8_t *moved = mremap(place.base, place.length_bytes, place.length_bytes,
	                        MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP, to);
	if (moved != MAP_FAILED) {
		ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), -ESTALE);
		must(wait_until(has_lost_sight, NULL, 60));
		ck_assert_int_eq(bus_read(place.base, &byte, 1), 0);
		ck_assert_int_eq(bus_read(moved, &byte, 1), 0);
	}
	munmap(to, place.length_bytes);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

static _Atomic int handler_shall_die;

static ssize_t die_when_asked(int uffd, struct uffd_msg *messages, size_t count)
{
	if (atomic_load(&handler_shall_die)) {
		pthread_exit(NULL);
	}
	return kernel_real.uffd_read(uffd, messages, count);
}

/* No thread is left that would fetch: no zeros all the same. */
START_TEST(test_the_death_of_the_handler_ends_the_restore)
{
	struct place_case which = place_case(_i);
	struct access first = {.page = 0};
	struct access last = {.page = 0};
	if (!place_restores_lazily(which) || which.delivery != UFFDWP_DELIVERY_THREAD) {
		return;
	}
	bus_begin();
	make_raw();
	held_kernel = kernel_real;
	held_kernel.uffd_read = die_when_asked;
	ck_assert_int_eq(place_try(&place, &held_kernel, 0, which, pages_for(which.memory)), 0);
	ck_assert_int_eq(try_begin(chain.path, UFFDWP_RESTORE_BEGIN_ON_DEMAND, 1), 0);
	last.page = place.pages - 1;
	read_page(&first);
	ck_assert_int_eq(first.right, 1);
	atomic_store(&handler_shall_die, 1);
	read_page(&last);
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), -EOWNERDEAD);
	ck_assert_int_eq(last.read, 0);
	read_page(&first);
	ck_assert_int_eq(first.right, 1);
	read_page(&last);
	ck_assert_int_eq(last.read, 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	ck_assert_int_eq(uffdwp_region_close(place.region), 0);
	ck_assert_int_eq(uffdwp_close(place.runtime), 0);
	test_chain_end(&chain);
}
END_TEST

/* A region that moves is restored where it is. */
START_TEST(test_a_region_that_moves_is_restored)
{
	struct place_case which = place_case(_i);
	size_t last = 0;
	if (!place_restores_lazily(which) || which.memory == UFFDWP_MEMORY_HUGETLB) {
		return;
	}
	make_raw();
	place_attach(&place, which, pages_for(which.memory), 1);
	ck_assert_int_eq(try_begin(chain.path, 0, 2), 0);
	void *target = mmap(NULL, place.length_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ck_assert(target != MAP_FAILED);
	void *moved = mremap(place.base, place.length_bytes, place.length_bytes, MREMAP_MAYMOVE | MREMAP_FIXED, target);
	ck_assert(moved == target);
	place.base = moved;
	ck_assert_uint_eq(count_bad(&last), 0);
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

/* --- what is not available -------------------------------------------------------------------------------------------
 */

START_TEST(test_an_empty_image_makes_all_of_the_region_zeros)
{
	struct place_case which = place_case(_i);
	if (!place_restores_lazily(which)) {
		return;
	}
	make_raw();
	ck_assert_int_eq(truncate(chain.path, 0), 0);
	place_open(&place, which, pages_for(which.memory));
	place_touch(&place);
	ck_assert_int_eq(try_begin(chain.path, 0, 0), 0);
	ck_assert_int_eq(uffdwp_restore_wait(restore, -1, NULL), 0);
	for (size_t i = 0; i < place.length_bytes; i += 512) {
		ck_assert_int_eq(place.base[i], 0);
	}
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

/* A page of memory that the kernel does not give up is not given up here either: what its image holds is not zeros. */
START_TEST(test_a_punch_that_fails_does_not_show_zeros)
{
	struct place_case which = place_case(_i);
	if (!place_restores_lazily(which) || which.memory != UFFDWP_MEMORY_ANON) {
		return;
	}
	make_raw();
	refusing_nothing();
	ck_assert_int_eq(place_try(&place, &kernel_refusing, 0, which, pages_for(which.memory)), 0);
	ck_assert_int_eq(try_begin(chain.path, UFFDWP_RESTORE_BEGIN_ON_DEMAND, 0), 0);
	refusing_set(&(struct refusal){REFUSING_BIT(madvise), 1, UINT64_MAX, ENOMEM});
	ck_assert_int_lt(uffdwp_region_punch(place.region, 0, place.page_bytes), 0);
	ck_assert_uint_gt(refusing_refused(), 0);
	ck_assert_int_lt(uffdwp_restore_check(restore, 0, 1), 0);
	refusing_nothing();
	ck_assert_int_eq(uffdwp_region_punch(place.region, 0, place.page_bytes), 0);
	ck_assert_int_eq(uffdwp_restore_check(restore, 0, 1), 0);
	ck_assert_int_eq(place.base[0], 0);
	ck_assert_int_eq(uffdwp_restore_free(restore), 0);
	place_close(&place);
	test_chain_end(&chain);
}
END_TEST

int main(void)
{
	support_begin("test_lazy_bad", &(struct support_needs){.huge_pages = 4, .swap = 0});
	place_begin();
	Suite *suite = suite_create("lazy_bad");
	TCase *tests = tcase_create("lazy_bad");
	tcase_set_timeout(tests, 120);
	tcase_add_loop_test(tests, test_a_damaged_page_raises_sigbus, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_raw_image_that_was_cut_raises_sigbus_where_it_ends, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_failed_page_stays_bad_when_its_entry_is_emptied, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_free_resumes_all_that_wait, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_late_fill_does_not_undo_a_punch, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_punch_fetches_nothing, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_nothing_is_filled_while_faults_are_stalled, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_an_arming_waits_for_a_fill_that_began_before, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_the_death_of_the_handler_ends_the_restore, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_an_unmapped_region_ends_its_restore, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_region_that_moves_and_stays_mapped_ends_its_restore, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_region_that_moves_is_restored, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_an_empty_image_makes_all_of_the_region_zeros, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_a_punch_that_fails_does_not_show_zeros, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
