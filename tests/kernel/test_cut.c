/* SPDX-License-Identifier: MIT */
/*
 * INV-CUT with a lock: the image is the memory at one instant, byte for byte. Writers keep a shadow copy of all that
 * they write, both under a lock that the cut takes as well; at the cut the shadow is copied, and the image must equal
 * it.
 *
 * The lock is one for reading and writing, held for reading by writers: they own interleaved stripes of 64 bytes, so
 * that they fault on the same pages at the same time and yet never write the same byte. Punches take it for writing.
 * Meanwhile another thread pushes random pages out to swap, without any lock, for that changes no content.
 *
 * 200 cuts in a default run, shared out to all types of memory, mechanisms and deliveries; UFFDWP_CUTS asks for more.
 */
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "chance.h"
#include "image.h"
#include "kernel/abi.h"
#include "place.h"
#include "support.h"

#define WRITERS 3
#define STRIPE 64
#define CUTS_DEFAULT 210

static struct place place;
static uint8_t *shadow;
static _Atomic int stop;
static pthread_rwlock_t lock;
static int prepares; /* system calls do not wait */

struct writer {
	size_t index;
	struct chance chance;
	int ends[2]; /* a pipe of its own, for writes that the kernel makes */
};

static unsigned cuts_wanted(void)
{
	const char *text = getenv("UFFDWP_CUTS");
	return text != NULL ? (unsigned)strtoul(text, NULL, 10) : CUTS_DEFAULT;
}

static void lock_init(void)
{
	pthread_rwlockattr_t attributes;
	must(pthread_rwlockattr_init(&attributes) == 0);
	must(pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP) == 0);
	must(pthread_rwlock_init(&lock, &attributes) == 0);
}

/* --- what happens to the memory ------------------------------------------------------------------------------- */

static size_t random_stripe(struct writer *writer)
{
	size_t rows = place.length_bytes / (STRIPE * WRITERS);
	return (chance_below(&writer->chance, rows) * WRITERS + writer->index) * STRIPE;
}

static void write_stripe(struct writer *writer, size_t offset)
{
	uint8_t bytes[STRIPE];
	chance_fill(&writer->chance, bytes, sizeof(bytes));
	memcpy(place.base + offset, bytes, sizeof(bytes));
	memcpy(shadow + offset, bytes, sizeof(bytes));
}

/* A sequential burst over several pages, every third stripe. */
static void write_burst(struct writer *writer)
{
	size_t offset = random_stripe(writer);
	for (unsigned i = 0; i < 200 && offset + STRIPE <= place.length_bytes; i++) {
		write_stripe(writer, offset);
		offset += (size_t)WRITERS * STRIPE;
	}
}

/* Where system calls do not wait the target is prepared first. With a mechanism that has to see empty entries, a page
 * that is swapped out between the two is refused all the same: the caller tries again. */
static ssize_t read_prepared(int end, size_t offset)
{
	ssize_t got = -1;
	do {
		must(!prepares || uffdwp_prepare_write(place.region, offset, STRIPE) == 0);
		got = read(end, place.base + offset, STRIPE);
	} while (got < 0 && errno == EFAULT && prepares);
	return got;
}

/* The kernel writes: a read(2) from a pipe. */
static void write_by_system_call(struct writer *writer)
{
	size_t offset = random_stripe(writer);
	uint8_t bytes[STRIPE];
	chance_fill(&writer->chance, bytes, sizeof(bytes));
	must(write(writer->ends[1], bytes, sizeof(bytes)) == STRIPE);
	must(read_prepared(writer->ends[0], offset) == STRIPE);
	memcpy(shadow + offset, bytes, sizeof(bytes));
}

static void write_prepared(struct writer *writer)
{
	size_t offset = random_stripe(writer);
	must(uffdwp_prepare_write(place.region, offset, STRIPE) == 0);
	write_stripe(writer, offset);
}

static void write_something(struct writer *writer)
{
	must(pthread_rwlock_rdlock(&lock) == 0);
	size_t kind = chance_below(&writer->chance, 16);
	if (kind == 0) {
		write_burst(writer);
	} else if (kind == 1) {
		write_by_system_call(writer);
	} else if (kind == 2) {
		write_prepared(writer);
	} else {
		write_stripe(writer, random_stripe(writer));
	}
	must(pthread_rwlock_unlock(&lock) == 0);
}

static void punch_something(struct writer *writer)
{
	size_t page = chance_below(&writer->chance, place.pages);
	size_t pages = 1 + chance_below(&writer->chance, place.pages - page < 20 ? place.pages - page : 20);
	must(pthread_rwlock_wrlock(&lock) == 0);
	must(uffdwp_region_punch(place.region, page * place.page_bytes, pages * place.page_bytes) == 0);
	memset(shadow + page * place.page_bytes, 0, pages * place.page_bytes);
	must(pthread_rwlock_unlock(&lock) == 0);
}

static void *write_for_ever(void *argument)
{
	struct writer *writer = argument;
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		if (chance_below(&writer->chance, 400) == 0) {
			punch_something(writer);
		} else {
			write_something(writer);
		}
	}
	return NULL;
}

static void *swap_for_ever(void *argument)
{
	(void)argument;
	struct chance chance = chance_new(99);
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		size_t page = chance_below(&chance, place.pages);
		size_t pages = 1 + chance_below(&chance, place.pages - page);
		pages = pages < 64 ? pages : 64;
		must(madvise(place.base + page * place.page_bytes, pages * place.page_bytes, MADV_PAGEOUT) == 0);
		sleep_us(1000);
	}
	return NULL;
}

/* --- the cuts ------------------------------------------------------------------------------------------------- */

static struct uffdwp_snapshot_options random_options(struct chance *chance)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	static const uint32_t windows[] = {0, 1, 4, 64};
	options.window_max = windows[chance_below(chance, 4)];
	options.flags = chance_below(chance, 2) ? UFFDWP_SNAPSHOT_BUFFERED : 0;
	options.wait_ns = 60000000000u;
	if (chance_below(chance, 2)) {
		options.pool_bytes = (16 + chance_below(chance, 64)) * place.page_bytes;
	}
	return options;
}

static void report(const struct image *image, const uint8_t *expected, unsigned cut)
{
	size_t at = image_difference(image, expected);
	if (at < image->length_bytes) {
		fprintf(stderr, "cut %u, sink %d: byte %zu (page %zu, +%zu) is %02x, was %02x\n", cut, (int)image->sink,
		        at, at / place.page_bytes, at % place.page_bytes, image->bytes[at], expected[at]);
	}
	must(at == image->length_bytes);
}

static void cut_once(struct chance *chance, unsigned cut)
{
	struct uffdwp_snapshot_options options = random_options(chance);
	struct image image;
	size_t short_by = chance_below(chance, 2) ? chance_below(chance, 3 * place.page_bytes) : 0;
	image_prepare(&image, (enum uffdwp_sink)(cut % 3), place.length_bytes - short_by);
	uint8_t *expected = malloc(place.length_bytes);
	must(expected != NULL);
	memset(expected, 0, place.length_bytes);
	sleep_us(chance_below(chance, 20000));

	must(pthread_rwlock_wrlock(&lock) == 0);
	int error = image_begin(&image, place.region, &options);
	memcpy(expected, shadow, place.length_bytes);
	must(pthread_rwlock_unlock(&lock) == 0);

	must(error == 0);
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	int result = image_finish(&image, &progress);
	if (result != 0) {
		char text[256] = "";
		uffdwp_snapshot_text(image.snapshot, text, sizeof(text));
		fprintf(stderr, "cut %u, sink %d: %s: %s\n", cut, (int)image.sink, strerror(-result), text);
	}
	must(result == 0);
	report(&image, expected, cut);
	image_free(&image);
	free(expected);
}

static void start_writers(struct writer *writers, pthread_t *threads)
{
	for (size_t i = 0; i < WRITERS; i++) {
		writers[i].index = i;
		writers[i].chance = chance_new(100 + i);
		must(pipe(writers[i].ends) == 0);
		threads[i] = thread_start(write_for_ever, &writers[i]);
	}
}

static void cut_many(unsigned cuts)
{
	struct writer writers[WRITERS];
	pthread_t threads[WRITERS];
	atomic_store(&stop, 0);
	lock_init();
	shadow = calloc(1, place.length_bytes);
	must(shadow != NULL);
	start_writers(writers, threads);
	int swaps = support_has_swap() && place.page_bytes == (size_t)sysconf(_SC_PAGESIZE);
	pthread_t swapper = swaps ? thread_start(swap_for_ever, NULL) : 0;
	struct chance chance = chance_new(7);
	for (unsigned cut = 0; cut < cuts; cut++) {
		cut_once(&chance, cut);
	}
	atomic_store(&stop, 1);
	for (size_t i = 0; i < WRITERS; i++) {
		thread_join(threads[i]);
	}
	if (swaps) {
		thread_join(swapper);
	}
	must(memcmp(place.base, shadow, place.length_bytes) == 0);
	free(shadow);
}

static unsigned cases_here(void)
{
	unsigned cases = 0;
	for (int i = 0; i < PLACE_CASES; i++) {
		cases += place_possible(place_case(i)) ? 1 : 0;
	}
	return cases;
}

START_TEST(test_image_equals_the_shadow_at_every_cut)
{
	struct place_case which = place_case(_i);
	if (!place_possible(which)) {
		return;
	}
	unsigned cases = cases_here();
	unsigned cuts = (cuts_wanted() + cases - 1) / cases;
	prepares = !place_system_calls_wait(which);
	place_open(&place, which, which.memory == UFFDWP_MEMORY_HUGETLB ? 4 : 1024);
	cut_many(cuts);
	struct uffdwp_region_stats stats = place_stats(&place);
	printf("%s: %u cuts, %llu faults\n", place_case_name(which), cuts, (unsigned long long)stats.faults);
	ck_assert_uint_eq(stats.snapshots, cuts);
	ck_assert_uint_gt(stats.faults, 0);
	place_close(&place);
}
END_TEST

int main(void)
{
	support_begin("test_cut", &(struct support_needs){.huge_pages = 12, .swap = 1});
	place_begin();
	Suite *suite = suite_create("cut");
	TCase *tests = tcase_create("cut");
	tcase_set_timeout(tests, 120.0 + cuts_wanted());
	tcase_add_loop_test(tests, test_image_equals_the_shadow_at_every_cut, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
