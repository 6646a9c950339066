/* SPDX-License-Identifier: MIT */
/*
 * INV-CUT with a lock: the image is the memory at one instant, byte for byte. Writers keep a shadow copy of all that
 * they write, both under a lock that the cut takes as well; at the cut the shadow is copied, and the image must equal
 * it.
 *
 * The lock is one for reading and writing, held for reading by writers: they own interleaved stripes of 64 bytes, so
 * that they fault on the same pages at the same time and yet never write the same byte. Punches take it for writing.
 * The cut takes it for writing, too: before begin, or in cut_enter, so that writers go on while rounds of arming run.
 *
 * Where that can be some cuts are made by a move of the page tables instead of rounds.
 *
 * Some snapshots leave the region armed; some of the next are increments, laid over the image before. Some are aborted.
 *
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
#include "shadow.h"
#include "support.h"

#define WRITERS 3
#define STRIPE 64
#define CUTS_DEFAULT 210

static struct place place;
static uint8_t *shadow;
static _Atomic int stop;
static pthread_rwlock_t lock;
static uint8_t *expected; /* the shadow at the last cut */
static uint8_t *kept;     /* the image that an increment is laid over */
static int has_kept;
static int has_increments;
static int has_moves;
static int moves_keep; /* also for increments */
static int prepares;   /* system calls do not wait */

/* Where most writes go for a while, so that increments leave something out. */
static _Atomic size_t hot_first;
static _Atomic size_t hot_stripes;

/* What was seen in this case. */
static struct {
	unsigned increments;
	unsigned refused;
	unsigned aborted;
	unsigned rounds;
	unsigned moves;
	unsigned long long pages; /* of increments */
} seen;

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
	size_t row = atomic_load(&hot_first) + chance_below(&writer->chance, atomic_load(&hot_stripes));
	return (row % rows * WRITERS + writer->index) * STRIPE;
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

static void *write_for_ever(void *argument)
{
	struct writer *writer = argument;
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		if (chance_below(&writer->chance, 400) == 0) {
			shadow_punch(&place, shadow, &lock, &writer->chance, 20);
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
	options.flags |= chance_below(chance, 3) ? UFFDWP_SNAPSHOT_KEEP : 0;
	options.wait_ns = 60000000000u;
	if (chance_below(chance, 2)) {
		options.pool_bytes = (16 + chance_below(chance, 64)) * place.page_bytes;
	}
	return options;
}

static void report(const struct image *image, unsigned cut)
{
	size_t at = image_difference(image, expected);
	if (at < image->length_bytes) {
		fprintf(stderr, "cut %u, sink %d: byte %zu (page %zu, +%zu) is %02x, was %02x\n", cut, (int)image->sink,
		        at, at / place.page_bytes, at % place.page_bytes, image->bytes[at], expected[at]);
	}
	must(at == image->length_bytes);
}

static int enter_cut(void *user, uint64_t *length)
{
	(void)user;
	(void)length;
	must(pthread_rwlock_wrlock(&lock) == 0);
	return 0;
}

static void leave_cut(void *user)
{
	(void)user;
	memcpy(expected, shadow, place.length_bytes);
	must(pthread_rwlock_unlock(&lock) == 0);
}

static void choose_hot(struct chance *chance)
{
	size_t rows = place.length_bytes / (STRIPE * WRITERS);
	atomic_store(&hot_first, chance_below(chance, rows));
	atomic_store(&hot_stripes, chance_below(chance, 4) ? rows / 16 : rows);
}

static int begin_with_lock(struct image *image, struct uffdwp_snapshot_options *options, int inside)
{
	if (inside) {
		options->cut_enter = enter_cut;
		options->cut_leave = leave_cut;
		return image_begin(image, place.region, options);
	}
	(void)enter_cut(NULL, NULL);
	int error = image_begin(image, place.region, options);
	leave_cut(NULL);
	return error;
}

/* What an increment left out is as in the image before. */
static void lay_over(struct image *image)
{
	size_t small = (size_t)sysconf(_SC_PAGESIZE);
	for (size_t at = 0; at < image->length_bytes; at += small) {
		seen.pages += image->seen[at / small] ? 1 : 0;
		if (!image->seen[at / small]) {
			memcpy(image->bytes + at, kept + at, small);
		}
	}
	seen.increments++;
}

static void finish(struct image *image, unsigned cut, int increment, int abort)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	int result = image_finish(image, &progress);
	if (result != 0 && !abort) {
		char text[256] = "";
		uffdwp_snapshot_text(image->snapshot, text, sizeof(text));
		fprintf(stderr, "cut %u, sink %d: %s: %s\n", cut, (int)image->sink, strerror(-result), text);
	}
	must(result == 0 || (abort && result == -ECANCELED));
	seen.rounds += progress.rounds;
	seen.moves += progress.arming == UFFDWP_ARMING_MOVE;
	seen.aborted += result != 0;
	has_kept = has_kept && result == 0;
	if (result == 0 && increment) {
		lay_over(image);
	}
	if (result == 0) {
		report(image, cut);
	}
	if (has_kept) {
		memcpy(kept, image->bytes, place.length_bytes);
	}
}

/* An increment of a region that keeps none is refused; the cut is made in full then. */
static void begin(struct chance *chance, struct image *image, struct uffdwp_snapshot_options *options)
{
	int inside = chance_below(chance, 3) != 0;
	int error = begin_with_lock(image, options, inside);
	if ((options->flags & UFFDWP_SNAPSHOT_INCREMENT) && !(has_kept && has_increments)) {
		must(error == (has_increments ? -ENODATA : -EOPNOTSUPP));
		seen.refused++;
		options->flags &= ~(uint32_t)UFFDWP_SNAPSHOT_INCREMENT;
		error = begin_with_lock(image, options, inside);
	}
	must(error == 0);
}

static void cut_once(struct chance *chance, unsigned cut)
{
	struct uffdwp_snapshot_options options = random_options(chance);
	struct image image;
	int move = has_moves && (moves_keep || !has_kept) && chance_below(chance, 2) != 0;
	options.flags &= move && !moves_keep ? ~(uint32_t)UFFDWP_SNAPSHOT_KEEP : ~(uint32_t)0;
	int keep = (options.flags & UFFDWP_SNAPSHOT_KEEP) != 0;
	int increment = chance_below(chance, 2) != 0 && (!move || moves_keep);
	int abort = chance_below(chance, 8) == 0;
	int is_short = !keep && !increment && chance_below(chance, 2) != 0;
	size_t short_by = is_short ? chance_below(chance, 3 * place.page_bytes) : 0;
	options.flags |= increment ? UFFDWP_SNAPSHOT_INCREMENT : 0;
	options.arming = move                           ? UFFDWP_ARMING_MOVE
	                 : chance_below(chance, 2) != 0 ? UFFDWP_ARMING_AUTO
	                                                : UFFDWP_ARMING_ROUNDS;
	image_prepare(&image, increment ? UFFDWP_SINK_CALLBACK : (enum uffdwp_sink)(cut % 3),
	              place.length_bytes - short_by);
	choose_hot(chance);
	sleep_us(chance_below(chance, 20000));
	begin(chance, &image, &options);
	must(!abort || uffdwp_snapshot_abort(image.snapshot) == 0);
	has_kept = keep;
	finish(&image, cut, (options.flags & UFFDWP_SNAPSHOT_INCREMENT) != 0, abort);
	image_free(&image);
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

/* A cut or two may find no writer at work: there are more until each thing was seen that this test is about. */
static int has_seen_all(void)
{
	return place_stats(&place).faults > 0 && (seen.rounds > 0 || !has_increments) && (seen.moves > 3 || !has_moves);
}

static unsigned cut_many(unsigned least)
{
	unsigned cuts = 0;
	struct writer writers[WRITERS];
	pthread_t threads[WRITERS];
	atomic_store(&stop, 0);
	lock_init();
	shadow = calloc(1, place.length_bytes);
	expected = calloc(1, place.length_bytes);
	kept = calloc(1, place.length_bytes);
	has_kept = 0;
	must(shadow != NULL && expected != NULL && kept != NULL);
	struct chance chance = chance_new(7);
	choose_hot(&chance);
	start_writers(writers, threads);
	int swaps = support_has_swap() && place.page_bytes == (size_t)sysconf(_SC_PAGESIZE);
	pthread_t swapper = swaps ? thread_start(swap_for_ever, NULL) : 0;
	while (cuts < least || !has_seen_all()) {
		cut_once(&chance, cuts++);
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
	free(expected);
	free(kept);
	return cuts;
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
	prepares = !place_system_calls_wait(which);
	place_open(&place, which, which.memory == UFFDWP_MEMORY_HUGETLB ? 4 : 1024);
	has_increments = place_has_increments(which);
	has_moves = place_moves(which);
	moves_keep = (place_report()->memory[which.memory].fills & UFFDWP_PROBE_FILL_CONTINUE_WP) != 0;
	unsigned cuts = cut_many((cuts_wanted() + cases - 1) / cases);
	struct uffdwp_region_stats stats = place_stats(&place);
	printf("%s: %u cuts, %llu faults, %u rounds, %u moves, %u increments of %llu pages, %u refused, %u aborted\n",
	       place_case_name(which), cuts, (unsigned long long)stats.faults, seen.rounds, seen.moves, seen.increments,
	       seen.pages, seen.refused, seen.aborted);
	ck_assert_uint_eq(stats.snapshots, cuts);
	ck_assert_uint_gt(stats.faults, 0);
	ck_assert_int_eq(seen.rounds > 0, has_increments);
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
