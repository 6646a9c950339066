/* SPDX-License-Identifier: MIT */
/*
 * The threads of a lazy restore. Each takes what was asked for first, together with some pages after it, then what the
 * caller has listed, and else the next run of pages in order, with holes of the image skipped. Where there are several
 * threads the first is kept for what was asked for, so that no access waits for a long read of other pages.
 *
 * A run that cannot be read is read again page by page: only what is damaged fails. Pages of zeros are not filled: the
 * region has a hole there, which reads the same.
 */
#include <errno.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "base/math.h"
#include "base/thread.h"
#include "base/trace.h"
#include "fault/fault.h"
#include "image/zeros.h"
#include "restore/restore.h"

/* Before a fill is tried again, and how often where the kernel has no memory. */
#define SLEEP_NS 20000
#define HUNGRY_SLEEP_NS 5000000
#define HUNGRY_TRIES 64

/* The nice value of threads that fetch the rest. */
#define BACKGROUND_NICE 10

/* When they begin, after the restore: the first accesses come at once, and each waits for three threads in turn. A
 * thread that has a CPU keeps it for a slice of the scheduler's, also where its nice value is higher. */
#define HEAD_START_NS 2000000

static void fetch_sleep(long time_ns)
{
	const struct timespec time = {.tv_nsec = time_ns};

	nanosleep(&time, NULL);
}

static uint64_t fetch_bytes_of(const struct uffdwp_restore *restore, uint64_t pages)
{
	return pages << restore->region->page_shift;
}

/* ---- into memory ---- */

/* How many of the pages from `page` on, at most what is filled at a time, are alike: all of zeros, or none. */
static uint64_t fetch_alike_end(const struct uffdwp_restore *restore, uint64_t page, uint64_t end,
                                const unsigned char *bytes, int *zeros)
{
	size_t page_bytes = (size_t)restore->region->page_bytes;
	uint64_t limit = math_min_u64(end, page + FAULT_SUPPLY_PAGES);
	uint64_t next = page + 1;

	*zeros = zeros_only(bytes, page_bytes);
	while (next < limit && zeros_only(bytes + fetch_bytes_of(restore, next - page), page_bytes) == *zeros)
		next++;
	return next;
}

/* 0: a fill that failed may be tried again. Else what the page fails with. */
static int fetch_judge(struct uffdwp_restore *restore, int error, uintptr_t base, unsigned *hungry)
{
	int stop = atomic_load(&restore->lazy->stop);

	if (atomic_load(&restore->region->dead))
		return stop ? stop : -ESTALE;
	if (error == -EBUSY || error == -EAGAIN) {
		fetch_sleep(SLEEP_NS);
		return 0;
	}
	if (error == -ENOENT || error == -ESRCH) {
		if (region_has_moved(restore->region, base))
			return 0;
		lazy_stop(restore->lazy, -ESTALE);
		return -ESTALE;
	}
	fetch_sleep(HUNGRY_SLEEP_NS);
	return ++*hungry < HUNGRY_TRIES ? 0 : error;
}

/* Pages [first, end), FETCHING, whose content is `bytes`. */
static void fetch_supply(struct uffdwp_restore *restore, uint64_t first, uint64_t end, const unsigned char *bytes)
{
	struct uffdwp_region *region = restore->region;
	unsigned hungry = 0;

	for (uint64_t page = first; page < end;) {
		const unsigned char *from = bytes + fetch_bytes_of(restore, page - first);
		uintptr_t base = atomic_load(&region->base);
		int zeros;
		uint64_t until = fetch_alike_end(restore, page, end, from, &zeros);
		int error = zeros ? 0 : fault_supply(region, page, until, from, &until);

		fault_settle(region, restore->lazy, page, until, 0);
		hungry = until > page ? 0 : hungry;
		page = until;
		error = error ? fetch_judge(restore, error, base, &hungry) : 0;
		if (error) {
			fault_settle(region, restore->lazy, page, page + 1, error);
			page++;
		}
	}
}

/* ---- out of the image ---- */

/* Beyond the image's end are zeros. */
static int fetch_read_pages(struct uffdwp_restore *restore, uint64_t first, uint64_t end, unsigned char *to)
{
	struct uffdwp_image *image = restore->image;
	uint64_t offset = fetch_bytes_of(restore, first);
	uint64_t length = fetch_bytes_of(restore, end - first);
	uint64_t there = math_min_u64(length, image->length_bytes - offset);
	int error = chain_read(image, offset, to, (size_t)there);

	if (error)
		return error == -ETIMEDOUT ? -ETIME : error; /* as a wait's result the other means "still running" */
	memset(to + there, 0, (size_t)(length - there));
	atomic_fetch_add(&restore->bytes_read, there);
	return 0;
}

static void fetch_page(const struct fetcher *fetcher, uint64_t page)
{
	struct uffdwp_restore *restore = fetcher->restore;
	int error = fetch_read_pages(restore, page, page + 1, fetcher->buffer);

	if (error)
		fault_settle(restore->region, restore->lazy, page, page + 1, error);
	else
		fetch_supply(restore, page, page + 1, fetcher->buffer);
}

/* Pages [first, end), which are FETCHING. */
static void fetch_run(const struct fetcher *fetcher, uint64_t first, uint64_t end)
{
	struct uffdwp_restore *restore = fetcher->restore;

	if (end - first > 1 && fetch_read_pages(restore, first, end, fetcher->buffer) == 0) {
		fetch_supply(restore, first, end, fetcher->buffer);
		return;
	}
	for (uint64_t page = first; page < end; page++)
		fetch_page(fetcher, page);
}

/* ---- what is next ---- */

/* How many pages an access takes along: twice as many if it goes on where the last ended. */
static uint64_t fetch_window_of(struct uffdwp_restore *restore, uint64_t page)
{
	uint64_t least = RESTORE_AHEAD_BYTES >> restore->region->page_shift;
	uint64_t last = atomic_load_explicit(&restore->ahead, memory_order_relaxed);
	uint64_t width = least ? least : 1;

	if (last && page >= last >> 16 && page - (last >> 16) < width)
		width = math_min_u64((last & 0xffff) * 2, restore->run_pages);
	atomic_store_explicit(&restore->ahead, (page + width) << 16 | width, memory_order_relaxed);
	return width;
}

/* A page, FETCHING, and of those that follow it so many, or more if they were asked for, too. */
static void fetch_with_next(const struct fetcher *fetcher, uint64_t page, uint64_t width)
{
	struct uffdwp_restore *restore = fetcher->restore;
	struct lazy *lazy = restore->lazy;
	uint64_t limit = math_min_u64(page + restore->run_pages, lazy->end_page);
	uint64_t end = page + 1;

	while (end < limit && (end < page + width || lazy_state(lazy, end) == LAZY_WANTED) && lazy_claim(lazy, end))
		end++;
	fetch_run(fetcher, page, end);
}

static int fetch_wanted(const struct fetcher *fetcher)
{
	struct uffdwp_restore *restore = fetcher->restore;
	struct lazy *lazy = restore->lazy;
	uint64_t page;

	if (!lazy_take_wanted(lazy, &page))
		return 0;
	fetch_with_next(fetcher, page, fetch_window_of(restore, page));
	return 1;
}

/* What the caller has listed, each page with what an access to it would take along. */
static int fetch_first(const struct fetcher *fetcher)
{
	struct uffdwp_restore *restore = fetcher->restore;

	if (!fetcher->takes_first || atomic_load(&restore->first_next) >= restore->first_count)
		return 0;
	uint64_t at = atomic_fetch_add(&restore->first_next, 1);

	if (at < restore->first_count && lazy_claim(restore->lazy, restore->first[at]))
		fetch_with_next(fetcher, restore->first[at], RESTORE_AHEAD_BYTES >> restore->region->page_shift);
	return 1;
}

/* Pages of the image's holes are there already. */
static void fetch_skip(struct uffdwp_restore *restore, uint64_t first, uint64_t end)
{
	for (uint64_t page = first; page < end; page++) {
		if (lazy_claim(restore->lazy, page))
			fault_settle(restore->region, restore->lazy, page, page + 1, 0);
	}
}

static void fetch_range(const struct fetcher *fetcher, uint64_t first, uint64_t end)
{
	struct uffdwp_restore *restore = fetcher->restore;
	uint64_t until = math_min_u64(fetch_bytes_of(restore, end), restore->image->length_bytes);
	uint64_t offset = chain_skip_zeros(restore->image, fetch_bytes_of(restore, first), until);
	uint64_t data = offset < until ? offset >> restore->region->page_shift : end;

	fetch_skip(restore, first, data);
	for (uint64_t page = data; page < end;) {
		uint64_t run = page;

		while (run < end && lazy_claim(restore->lazy, run))
			run++;
		if (run > page)
			fetch_run(fetcher, page, run);
		page = run > page ? run : page + 1;
	}
}

static int fetch_next(const struct fetcher *fetcher)
{
	struct uffdwp_restore *restore = fetcher->restore;
	uint64_t end = restore->lazy->end_page;

	if (fetcher->on_demand || atomic_load(&restore->cursor) >= end)
		return 0;
	uint64_t first = atomic_fetch_add(&restore->cursor, restore->run_pages);

	if (first < end)
		fetch_range(fetcher, first, math_min_u64(first + restore->run_pages, end));
	return 1;
}

static int fetch_is_over(struct lazy *lazy)
{
	return atomic_load(&lazy->ended) || atomic_load(&lazy->stop);
}

static void fetch_serve(const struct fetcher *fetcher)
{
	struct lazy *lazy = fetcher->restore->lazy;

	while (!fetch_is_over(lazy)) {
		uint32_t seen = atomic_load(&lazy->kicks);

		if (!fetch_wanted(fetcher) && !fetch_first(fetcher) && !fetch_next(fetcher) && !fetch_is_over(lazy))
			lazy_idle(lazy, seen);
	}
}

static void fetch_leave(struct uffdwp_restore *restore)
{
	struct uffdwp_region *region = restore->region;
	int stop = atomic_load(&restore->lazy->stop);
	uint64_t none = 0;

	if (stop) {
		lazy_fail_rest(restore->lazy, stop);
		fault_announce(region->k);
		fault_wake_region(region);
	}
	if (atomic_compare_exchange_strong(&restore->ended_ns, &none, kernel_now_ns()))
		TRACE("restore of region %p: has ended, %llu pages failed", (void *)region,
		      (unsigned long long)atomic_load(&restore->lazy->failed));
}

/* The threads that wait for a page, and the thread that fetches it, come first: nice(2) is of this thread alone. Best
 * effort, errors ignored. */
static void fetch_step_back(void)
{
	setpriority(PRIO_PROCESS, 0, getpriority(PRIO_PROCESS, 0) + BACKGROUND_NICE);
}

void *fetch_main(void *argument)
{
	struct fetcher *fetcher = argument;
	struct uffdwp_restore *restore = fetcher->restore;

	thread_begin("uffdwp-fetch");
	if (fetcher->is_nice)
		fetch_step_back();
	if (order_await(&restore->order, restore->k)) {
		if (fetcher->is_nice && !restore->first_count) /* a list says what is accessed first */
			fetch_sleep(HEAD_START_NS);
		fetch_serve(fetcher);
		fetch_leave(restore);
	}
	return NULL;
}
