/* SPDX-License-Identifier: MIT */
/*
 * The rivals that keep a page before its first write, by hand and as bare as can be: mprotect() with a SIGSEGV handler
 * in the writer, and a userfaultfd with one thread that reads it, copies, and unprotects one page at a time. Their
 * copies lie in a shadow as large as the memory, of which only what is copied takes memory; nothing bounds it. The main
 * thread saves all pages in their order, MiB by MiB, and gives up the copies that it has passed.
 *
 * A page is ARMED, then BUSY for the thread that claimed it, then COPIED (by a fault; it may be written) or OPEN
 * (saved). The cut is the end of arming: by mprotect() the kernel delays the handler's own mprotect() meanwhile, by
 * userfaultfd the thread waits for a lock.
 *
 * mprotect() splits mappings, of which a process may have vm.max_map_count: when they are used up, a writer whose page
 * is copied waits until the main thread comes by, which takes mappings away.
 *
 * Threads: the handler runs in any writer, between two of its instructions; one trial at a time.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bare.h"
#include "bench.h"
#include "image.h"
#include "trial.h"

enum page_state { PAGE_OPEN, PAGE_ARMED, PAGE_BUSY, PAGE_COPIED };
enum variant { BY_MPROTECT, BY_UFFD };

static struct {
	enum variant variant;
	struct area area;
	struct bare bare;
	_Atomic unsigned char *states; /* a page each */
	char *shadow;
	char *bounce; /* a piece */
	struct image image;
	char path[512];
	pthread_mutex_t arming; /* BY_UFFD */
	struct sigaction former;
	uint64_t pause_ns;
	_Atomic uint64_t faults; /* whose page was copied */
	_Atomic uint64_t held;   /* copies that are in memory */
	uint64_t held_peak;
} bare;

static char *page_at(char *base, size_t page)
{
	return base + page * bare.area.page_bytes;
}

/* 0, or -1: no mappings are left. */
static int unprotect(size_t page)
{
	if (bare.variant == BY_UFFD)
		return bare_unprotect(&bare.bare, (uint64_t)(uintptr_t)page_at(bare.area.base, page));
	return mprotect(page_at(bare.area.base, page), bare.area.page_bytes, PROT_READ | PROT_WRITE);
}

/* In a signal handler, or in the thread. */
static void keep(size_t page)
{
	unsigned char expected = PAGE_ARMED;

	if (atomic_compare_exchange_strong(&bare.states[page], &expected, PAGE_BUSY)) {
		memcpy(page_at(bare.shadow, page), page_at(bare.area.base, page), bare.area.page_bytes);
		atomic_fetch_add(&bare.faults, 1);
		atomic_fetch_add(&bare.held, 1);
		atomic_store(&bare.states[page], PAGE_COPIED);
		expected = PAGE_COPIED;
	}
	if (expected == PAGE_COPIED ? unprotect(page) : bare.variant == BY_MPROTECT)
		sched_yield(); /* the thread that saves it unprotects it; by mprotect() the writer comes again until
		                  then */
}

static void on_violation(int number, siginfo_t *info, void *context)
{
	uintptr_t offset = (uintptr_t)info->si_addr - (uintptr_t)bare.area.base;
	int error = errno;

	(void)context;
	if (offset >= bare.area.length_bytes)
		signal(number, SIG_DFL);
	else
		keep(offset / bare.area.page_bytes);
	errno = error;
}

static void on_fault(struct bare *from, uint64_t address)
{
	(void)from;
	pthread_mutex_lock(&bare.arming);
	keep((address - (uint64_t)(uintptr_t)bare.area.base) / bare.area.page_bytes);
	pthread_mutex_unlock(&bare.arming);
}

/* ------------------------------------------------------------------------------------------------ the main thread --
 */

static void *map_private(size_t length)
{
	void *memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (memory == MAP_FAILED)
		bench_die("no memory for copies of pages: %s", strerror(errno));
	madvise(memory, length, MADV_NOHUGEPAGE);
	return memory;
}

static void open_area(size_t length)
{
	struct sigaction action = {.sa_sigaction = on_violation, .sa_flags = SA_SIGINFO};

	if (bare.variant == BY_UFFD) {
		bare.bare = (struct bare){.kind = BARE_WP,
		                          .delivery = UFFDWP_DELIVERY_THREAD,
		                          .cpu = BENCH_ANY_CPU,
		                          .on_fault = on_fault};
		bare_open(&bare.bare, UFFDWP_MEMORY_SHMEM, length);
		bare.area = bare.bare.area;
		return;
	}
	area_map(&bare.area, UFFDWP_MEMORY_ANON, length);
	sigaction(SIGSEGV, &action, &bare.former);
}

static void open_bare(const struct trial_method *method, const struct trial_setup *setup, struct area *area)
{
	memset(&bare, 0, sizeof(bare));
	bare.variant = (enum variant)method->variant;
	pthread_mutex_init(&bare.arming, NULL);
	open_area(setup->size_bytes);
	bare.states = map_private(setup->size_bytes / bare.area.page_bytes);
	bare.shadow = map_private(setup->size_bytes);
	bare.bounce = map_private(IMAGE_PIECE_BYTES);
	*area = bare.area;
}

static void arm(void)
{
	if (bare.variant == BY_UFFD)
		bare_arm(&bare.bare);
	else if (mprotect(bare.area.base, bare.area.length_bytes, PROT_READ))
		bench_die("mprotect: %s", strerror(errno));
}

static void begin(const struct trial_method *method, const struct trial_setup *setup, const struct trial_cut *cut)
{
	uint64_t from;

	(void)method;
	image_prepare(&bare.image, setup->folder, setup->direct);
	snprintf(bare.path, sizeof(bare.path), "%s", cut->path);
	bench_must(image_create(&bare.image), "creating an image");
	bare.faults = bare.held = bare.held_peak = 0;
	for (size_t page = 0; page < bare.area.length_bytes / bare.area.page_bytes; page++)
		bare.states[page] = PAGE_ARMED;
	pthread_mutex_lock(&bare.arming);
	from = bench_now_ns();
	arm();
	bare.pause_ns = bench_now_ns() - from;
	pthread_mutex_unlock(&bare.arming);
}

/* Copies a page of the cut, which is BUSY for us or COPIED afterwards. How many copies that leaves without use. */
static unsigned take_page(size_t page, char *to)
{
	unsigned char expected = PAGE_ARMED;

	if (atomic_compare_exchange_strong(&bare.states[page], &expected, PAGE_BUSY)) {
		memcpy(to, page_at(bare.area.base, page), bare.area.page_bytes);
		return 0;
	}
	while (atomic_load(&bare.states[page]) != PAGE_COPIED)
		sched_yield();
	memcpy(to, page_at(bare.shadow, page), bare.area.page_bytes);
	return 1;
}

/* One call for all by mprotect(), which makes a mapping of them; page by page by userfaultfd. */
static void unprotect_all(size_t first, size_t count)
{
	if (bare.variant == BY_MPROTECT) {
		while (mprotect(page_at(bare.area.base, first), count * bare.area.page_bytes, PROT_READ | PROT_WRITE))
			sched_yield();
	}
	for (size_t page = first; page < first + count; page++) {
		if (bare.variant == BY_UFFD && unprotect(page))
			bench_die("UFFDIO_WRITEPROTECT: %s", strerror(errno));
		atomic_store(&bare.states[page], PAGE_OPEN);
	}
}

static void save_piece(size_t first, size_t count)
{
	uint64_t held = atomic_load(&bare.held);
	unsigned used = 0;

	for (size_t i = 0; i < count; i++)
		used += take_page(first + i, page_at(bare.bounce, i));
	if (held > bare.held_peak)
		bare.held_peak = held;
	madvise(page_at(bare.shadow, first), count * bare.area.page_bytes, MADV_DONTNEED);
	atomic_fetch_sub(&bare.held, used);
	unprotect_all(first, count);
	bench_must(image_append(&bare.image, bare.bounce, count * bare.area.page_bytes), "writing an image");
}

static void save_all(void)
{
	size_t pages = bare.area.length_bytes / bare.area.page_bytes;
	size_t piece = IMAGE_PIECE_BYTES / bare.area.page_bytes;

	for (size_t first = 0; first < pages; first += piece)
		save_piece(first, pages - first < piece ? pages - first : piece);
	bench_must(image_commit(&bare.image, bare.path), "committing an image");
	image_fini(&bare.image);
}

static void result_of(const struct load_result *during, struct trial_result *result)
{
	size_t pages = bare.area.length_bytes / bare.area.page_bytes;
	double faults = (double)bare.faults;

	(void)during;
	result->values[TRIAL_PAUSE_NS] = (double)bare.pause_ns;
	result->values[TRIAL_FAULTS] = faults;
	result->values[TRIAL_PAGES_FAULT] = faults;
	result->values[TRIAL_PAGES_SWEEP] = (double)pages - faults;
	result->values[TRIAL_PREIMAGE_PEAK_BYTES] = (double)(bare.held_peak * bare.area.page_bytes);
	result->values[TRIAL_WRITTEN_BYTES] = (double)bare.area.length_bytes;
	result->direct = (uint32_t)bare.image.direct;
}

static void end(void)
{
}

static void close_bare(void)
{
	size_t length = bare.area.length_bytes;

	munmap((void *)bare.states, length / bare.area.page_bytes);
	munmap(bare.shadow, length);
	munmap(bare.bounce, IMAGE_PIECE_BYTES);
	pthread_mutex_destroy(&bare.arming);
	if (bare.variant == BY_UFFD) {
		bare_close(&bare.bare);
		return;
	}
	sigaction(SIGSEGV, &bare.former, NULL);
	area_unmap(&bare.area);
}

const struct trial_method trial_mprotect = {"mprotect", BY_MPROTECT, open_bare,  begin, save_all,
                                            result_of,  end,         close_bare, NULL};
const struct trial_method trial_uffd_loop = {"uffd_loop", BY_UFFD, open_bare,  begin, save_all,
                                             result_of,   end,     close_bare, NULL};
