/* SPDX-License-Identifier: MIT */
/*
 * No write is ever missed, whatever happens to the wp bits: threads read and write at random while the pages under them
 * are punched, zapped and swapped out, and (for rearm) the wp bits that this kernel keeps are stripped. In every
 * combination of memory, mechanism and delivery that the kernel offers.
 *
 * A run is made of rounds, of two kinds by turns:
 *
 *   arm        all pages are armed; then some are lost, while all is quiet; then the threads go. At the end no page
 *              that was written may still be armed in the ledger: that would be a write that was not seen.
 *   preserve   a snapshot begins while the threads go on; its image must be what the shadow was at the cut.
 *
 * The shadow is exact: each thread owns a stripe of every page, so several of them fault on one page at the same time
 * and yet know what it has to hold. Every read is compared with it. Accesses go through the gate of their page
 * together; a thread that changes the content of a page, or strips it, has its gate alone.
 *
 * A run ends when its share of the writes and losses that were asked for is done (UFFDWP_STRESS_WRITES, --writes; a
 * hundredth as many losses), or with its share of the time (UFFDWP_STRESS_SECONDS, --seconds). UFFDWP_SEED and --seed
 * repeat the random numbers of a former run.
 *
 * That a missed write would be noticed is shown by the same round over bare write protection (bare.h).
 */
#include <errno.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bare.h"
#include "chance.h"
#include "loss.h"
#include "place.h"
#include "support.h"

#define WORKERS 3
#define STRIPE 64
#define PAGES 1024
#define HUGE_PAGES 4
#define OPERATIONS 4096 /* of a worker, in a round */
#define RUN_MOST 32     /* pages lost at once */
#define WRITES_DEFAULT support_rounds(3000000, 10000000)
#define WRITES_A_LOSS 100
#define CAUSES ((int)UFFDWP_LOSS_COUNT)

/* What came of one combination; in memory shared with the children that Check forks. */
struct tally {
	_Atomic uint64_t writes;
	_Atomic uint64_t reads;
	_Atomic uint64_t injected[LOSS_KIND_COUNT]; /* pages that were armed, as far as is known */
	uint64_t caught;                            /* first writes */
	uint64_t counted[CAUSES];                   /* by the library */
	uint64_t rounds;
	uint64_t cuts;
	uint64_t missed;
	int moves; /* snapshots may be armed by a move of page tables */
};

struct worker {
	pthread_t thread;
	size_t index;
	struct chance chance;
};

/* What a round of this run may do to pages. */
struct harm {
	int strips;                     /* single pages, wp bits and all */
	int punches;                    /* by the library */
	int may_empty[LOSS_KIND_COUNT]; /* beside accesses */
	int content_goes_by_zap;        /* of anonymous memory */
	int (*is_armed)(size_t page);   /* what the ledger says */
};

static uint64_t writes_wanted;
static uint64_t seconds_wanted;
static struct tally *tallies;
static struct tally *tally;
static struct place place;
static struct harm harm;
static uint8_t *shadow;
static uint8_t *shadow_at_cut;
static uint8_t *image;
static _Atomic uint8_t *written; /* by page: since it was armed */
static _Atomic int32_t *gates;   /* by page: how many go through; -1: one thread has it alone */
static pthread_rwlock_t cut_lock;
static pthread_barrier_t barrier;
static _Atomic int finished;

/* --- gates ------------------------------------------------------------------------------------------------------- */

static void gate_enter(size_t page)
{
	int32_t inside = atomic_load(&gates[page]);
	while (inside < 0 || !atomic_compare_exchange_weak(&gates[page], &inside, inside + 1)) {
		if (inside < 0) {
			sched_yield();
			inside = atomic_load(&gates[page]);
		}
	}
}

static void gate_leave(size_t page)
{
	atomic_fetch_sub(&gates[page], 1);
}

static int gate_enter_alone(size_t page)
{
	int32_t unlocked = 0;
	return atomic_compare_exchange_strong(&gates[page], &unlocked, -1);
}

static void gate_leave_alone(size_t page)
{
	atomic_store(&gates[page], 0);
}

/* --- workers ------------------------------------------------------------------------------------------------------ */

/* A word of the worker's own stripe in this page. */
static size_t own_word(struct worker *worker, size_t page)
{
	size_t rows = place.page_bytes / (WORKERS * STRIPE);
	size_t stripe = (chance_below(&worker->chance, rows) * WORKERS + worker->index) * STRIPE;
	return page * place.page_bytes + stripe + chance_below(&worker->chance, STRIPE / 8) * 8;
}

static void write_word(struct worker *worker, size_t page)
{
	size_t offset = own_word(worker, page);
	uint64_t value = chance_next(&worker->chance);
	gate_enter(page);
	*(volatile uint64_t *)(void *)(place.base + offset) = value;
	memcpy(shadow + offset, &value, sizeof(value));
	atomic_store_explicit(&written[page], 1, memory_order_relaxed);
	gate_leave(page);
	atomic_fetch_add_explicit(&tally->writes, 1, memory_order_relaxed);
}

static void read_word(struct worker *worker, size_t page)
{
	size_t offset = own_word(worker, page);
	uint64_t expected = 0;
	gate_enter(page);
	uint64_t value = *(volatile uint64_t *)(void *)(place.base + offset);
	memcpy(&expected, shadow + offset, sizeof(expected));
	gate_leave(page);
	if (value != expected) {
		fprintf(stderr, "page %zu, +%zu: holds %#llx, written was %#llx\n", page, offset % place.page_bytes,
		        (unsigned long long)value, (unsigned long long)expected);
	}
	must(value == expected);
	atomic_fetch_add_explicit(&tally->reads, 1, memory_order_relaxed);
}

static void punch(size_t page)
{
	if (harm.punches && gate_enter_alone(page)) {
		must(uffdwp_region_punch(place.region, page * place.page_bytes, place.page_bytes) == 0);
		memset(shadow + page * place.page_bytes, 0, place.page_bytes);
		gate_leave_alone(page);
	}
}

static void count_injected(enum loss_kind kind, uint64_t pages)
{
	atomic_fetch_add_explicit(&tally->injected[kind], pages, memory_order_relaxed);
}

static void strip(size_t page)
{
	if (harm.strips && gate_enter_alone(page)) {
		uint64_t armed = harm.is_armed(page) ? 1 : 0;
		count_injected(LOSS_KIND_ZAP, loss_make(&place, LOSS_KIND_ZAP, page, 1) & armed);
		gate_leave_alone(page);
	}
}

static void do_something(struct worker *worker)
{
	size_t page = chance_below(&worker->chance, place.pages);
	size_t kind = chance_below(&worker->chance, 256);
	must(pthread_rwlock_rdlock(&cut_lock) == 0);
	if (kind < 4) {
		strip(page);
	} else if (kind < 6) {
		punch(page);
	} else if (kind < 90) {
		read_word(worker, page);
	} else {
		write_word(worker, page);
	}
	must(pthread_rwlock_unlock(&cut_lock) == 0);
}

/* 0: no more rounds. */
static int round_begins(void)
{
	pthread_barrier_wait(&barrier);
	return !atomic_load(&finished);
}

static void round_ends(void)
{
	pthread_barrier_wait(&barrier);
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	while (round_begins()) {
		for (unsigned i = 0; i < OPERATIONS; i++) {
			do_something(worker);
		}
		round_ends();
	}
	return NULL;
}

/* --- losses ------------------------------------------------------------------------------------------------------- */

static void random_run(struct chance *chance, size_t *page, size_t *pages)
{
	size_t most = place.pages < RUN_MOST ? place.pages : RUN_MOST;
	*page = chance_below(chance, place.pages);
	*pages = 1 + chance_below(chance, most);
	if (*pages > place.pages - *page) {
		*pages = place.pages - *page;
	}
}

/* Entries are emptied beside accesses, where that takes no content. */
static void *empty_entries(void *argument)
{
	struct worker *worker = argument;
	while (round_begins()) {
		for (unsigned i = 0; i < 16; i++) {
			size_t page = 0;
			size_t pages = 0;
			enum loss_kind kind = (enum loss_kind)chance_below(&worker->chance, LOSS_KIND_COUNT);
			random_run(&worker->chance, &page, &pages);
			if (harm.may_empty[kind]) {
				loss_empty(&place, kind, page, pages);
			}
			sleep_us(chance_below(&worker->chance, 200));
		}
		round_ends();
	}
	return NULL;
}

static uint64_t armed_in(size_t page, size_t pages)
{
	uint64_t armed = 0;
	must(uffdwp_region_armed(place.region, page * place.page_bytes, pages * place.page_bytes, &armed) == 0);
	return armed;
}

/* While all is quiet: as many as there are, in runs that may overlap, each lost by one cause. */
static void lose_many(struct chance *chance)
{
	size_t page = 0;
	size_t pages = 0;
	for (size_t lost = 0; lost < place.pages; lost += pages) {
		enum loss_kind kind = (enum loss_kind)chance_below(chance, LOSS_KIND_COUNT);
		random_run(chance, &page, &pages);
		if (!loss_possible(&place, kind)) {
			continue;
		}
		uint64_t armed = armed_in(page, pages);
		uint64_t empty = loss_make(&place, kind, page, pages);
		count_injected(kind, empty < armed ? empty : armed);
		if (kind == LOSS_KIND_PUNCH || (kind == LOSS_KIND_ZAP && harm.content_goes_by_zap)) {
			memset(shadow + page * place.page_bytes, 0, pages * place.page_bytes);
		}
	}
}

/* --- rounds ------------------------------------------------------------------------------------------------------- */

/* Pages that were written and yet are armed. */
static uint64_t count_missed(void)
{
	uint64_t missed = 0;
	for (size_t page = 0; page < place.pages; page++) {
		missed += atomic_load(&written[page]) && harm.is_armed(page) ? 1 : 0;
	}
	return missed;
}

static void forget_writes(void)
{
	for (size_t page = 0; page < place.pages; page++) {
		atomic_store(&written[page], 0);
	}
}

static void expect_content(const uint8_t *bytes, const uint8_t *expected, const char *what)
{
	if (memcmp(bytes, expected, place.length_bytes) == 0) {
		return;
	}
	size_t at = 0;
	while (bytes[at] == expected[at]) {
		at++;
	}
	fprintf(stderr, "round %llu, %s: page %zu, +%zu is %02x, was %02x\n", (unsigned long long)tally->rounds, what,
	        at / place.page_bytes, at % place.page_bytes, bytes[at], expected[at]);
	abort();
}

/* What may be done beside a snapshot without discarding what it has to keep: for huge pages it cannot know. */
static void allow_harm(int in_snapshot)
{
	int is_file = place.attached == 0;
	int is_huge = place.page_bytes > (size_t)sysconf(_SC_PAGESIZE);
	harm.may_empty[LOSS_KIND_ZAP] = is_file && !(is_huge && in_snapshot) && loss_possible(&place, LOSS_KIND_ZAP);
	harm.may_empty[LOSS_KIND_SWAP] = loss_possible(&place, LOSS_KIND_SWAP);
	harm.strips = place.mechanism == UFFDWP_MECHANISM_REARM && harm.may_empty[LOSS_KIND_ZAP];
	harm.punches = 1;
	harm.content_goes_by_zap = !is_file;
}

static void round_of_arming(struct chance *chance)
{
	allow_harm(0);
	must(uffdwp_region_arm(place.region, 0, place.length_bytes) == 0);
	forget_writes();
	lose_many(chance);
	(void)round_begins();
	round_ends();
	tally->missed += count_missed();
	expect_content(place.base, shadow, "memory");
}

static int enter_cut(void *user, uint64_t *length)
{
	(void)user;
	(void)length;
	return -pthread_rwlock_wrlock(&cut_lock);
}

static void leave_cut(void *user)
{
	(void)user;
	memcpy(shadow_at_cut, shadow, place.length_bytes);
	must(pthread_rwlock_unlock(&cut_lock) == 0);
}

static int take(void *user, uint64_t offset, const void *data, uint64_t length)
{
	(void)user;
	memcpy(image + offset, data, length);
	return 0;
}

static void finish_snapshot(struct uffdwp_snapshot *snapshot)
{
	struct uffdwp_snapshot_progress progress = {.sz = sizeof(progress)};
	int result = uffdwp_snapshot_wait(snapshot, -1, &progress);
	if (result != 0) {
		char text[256] = "";
		uffdwp_snapshot_text(snapshot, text, sizeof(text));
		fprintf(stderr, "round %llu: %s\n", (unsigned long long)tally->rounds, text);
	}
	must(result == 0);
	must(uffdwp_snapshot_free(snapshot) == 0);
	tally->caught += progress.pages_fault;
	tally->cuts++;
}

static void round_of_preserving(struct chance *chance)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct uffdwp_snapshot *snapshot = NULL;
	static const uint32_t windows[] = {0, 1, 4, 64};
	options.sink = UFFDWP_SINK_CALLBACK;
	options.callback = take;
	options.cut_enter = enter_cut;
	options.cut_leave = leave_cut;
	options.window_max = windows[chance_below(chance, 4)];
	options.wait_ns = 120000000000u;
	options.arming = tally->moves && chance_below(chance, 2) ? UFFDWP_ARMING_MOVE : UFFDWP_ARMING_ROUNDS;
	allow_harm(1);
	/* After a move the library fills entries beside those that are accessed, so that one which was looked at and
	 * found empty need not be empty when it is stripped. */
	harm.strips = harm.strips && options.arming != UFFDWP_ARMING_MOVE;
	memset(image, 0, place.length_bytes);
	(void)round_begins();
	sleep_us(chance_below(chance, 3000));
	must(uffdwp_snapshot_begin(place.region, &options, &snapshot) == 0);
	finish_snapshot(snapshot);
	round_ends();
	expect_content(image, shadow_at_cut, "image");
	expect_content(place.base, shadow, "memory");
}

/* --- a run -------------------------------------------------------------------------------------------------------- */

static uint64_t now_s(void)
{
	struct timespec now;
	must(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
	return (uint64_t)now.tv_sec;
}

static uint64_t injected_pages(const struct tally *one)
{
	uint64_t sum = 0;
	for (int kind = 0; kind < LOSS_KIND_COUNT; kind++) {
		sum += atomic_load(&one->injected[kind]);
	}
	return sum;
}

static unsigned combinations(int with_huge)
{
	unsigned count = 0;
	for (int i = 0; i < PLACE_CASES; i++) {
		count += place_possible(place_case(i)) && (with_huge || place_case(i).memory != UFFDWP_MEMORY_HUGETLB);
	}
	return count;
}

/* Not many of four huge pages are lost in a round: the share of losses is the others'. */
static int share_is_done(uint64_t started_s, int is_huge)
{
	if (seconds_wanted != 0) {
		return now_s() - started_s >= seconds_wanted / combinations(1);
	}
	uint64_t losses = is_huge ? 0 : writes_wanted / WRITES_A_LOSS / combinations(0) + 1;
	return atomic_load(&tally->writes) > writes_wanted / combinations(1) && injected_pages(tally) >= losses;
}

static int is_armed_in_ledger(size_t page)
{
	return place_is_armed(&place, page);
}

static void prepare(int (*is_armed)(size_t))
{
	lock_for_writers_init(&cut_lock);
	must(pthread_barrier_init(&barrier, NULL, WORKERS + 2) == 0);
	shadow = malloc(place.length_bytes);
	shadow_at_cut = malloc(place.length_bytes);
	image = malloc(place.length_bytes);
	written = calloc(place.pages, sizeof(*written));
	gates = calloc(place.pages, sizeof(*gates));
	must(shadow != NULL && shadow_at_cut != NULL && image != NULL && written != NULL && gates != NULL);
	memcpy(shadow, place.base, place.length_bytes);
	harm = (struct harm){.is_armed = is_armed};
	atomic_store(&finished, 0);
}

static void start_threads(struct worker workers[WORKERS + 1])
{
	for (size_t i = 0; i <= WORKERS; i++) {
		workers[i].index = i;
		workers[i].chance = chance_new(1000 + i);
		workers[i].thread = thread_start(i < WORKERS ? work : empty_entries, &workers[i]);
	}
}

static void end_threads(struct worker workers[WORKERS + 1])
{
	atomic_store(&finished, 1);
	pthread_barrier_wait(&barrier);
	for (size_t i = 0; i <= WORKERS; i++) {
		thread_join(workers[i].thread);
	}
}

static void run_rounds(int is_huge)
{
	struct worker workers[WORKERS + 1];
	struct chance chance = chance_new(1);
	uint64_t started_s = now_s();
	start_threads(workers);
	while ((!share_is_done(started_s, is_huge) || tally->caught == 0) && tally->missed == 0) {
		uint64_t before = place_stats(&place).pages_disarmed;
		if (tally->rounds++ % 2) {
			round_of_preserving(&chance);
		} else {
			round_of_arming(&chance);
			tally->caught += place_stats(&place).pages_disarmed - before;
		}
	}
	end_threads(workers);
}

static void print_tally(struct place_case which)
{
	printf("%s: %llu writes, %llu first writes caught, %llu cuts; pages lost: zap %llu, punch %llu, swap %llu; "
	       "counted: hole %llu, swap %llu, zap %llu, unmapped %llu, unknown %llu\n",
	       place_case_name(which), (unsigned long long)atomic_load(&tally->writes),
	       (unsigned long long)tally->caught, (unsigned long long)tally->cuts,
	       (unsigned long long)atomic_load(&tally->injected[LOSS_KIND_ZAP]),
	       (unsigned long long)atomic_load(&tally->injected[LOSS_KIND_PUNCH]),
	       (unsigned long long)atomic_load(&tally->injected[LOSS_KIND_SWAP]),
	       (unsigned long long)tally->counted[UFFDWP_LOSS_HOLE],
	       (unsigned long long)tally->counted[UFFDWP_LOSS_SWAP],
	       (unsigned long long)tally->counted[UFFDWP_LOSS_ZAP],
	       (unsigned long long)tally->counted[UFFDWP_LOSS_UNMAPPED],
	       (unsigned long long)tally->counted[UFFDWP_LOSS_UNKNOWN]);
}

START_TEST(test_no_write_is_missed)
{
	struct place_case which = place_case(_i);
	if (!place_possible(which)) {
		return;
	}
	int is_huge = which.memory == UFFDWP_MEMORY_HUGETLB;
	tally = &tallies[_i];
	tally->moves = place_moves(which);
	place_open(&place, which, is_huge ? HUGE_PAGES : PAGES);
	place_touch(&place);
	prepare(is_armed_in_ledger);
	run_rounds(is_huge);
	struct uffdwp_region_stats stats = place_stats(&place);
	memcpy(tally->counted, stats.lost_by, sizeof(tally->counted));
	print_tally(which);
	ck_assert_msg(tally->missed == 0, "%s: %llu writes were missed", place_case_name(which),
	              (unsigned long long)tally->missed);
	ck_assert_uint_gt(tally->caught, 0);
	place_close(&place);
}
END_TEST

/* --- the control -------------------------------------------------------------------------------------------------- */

static struct bare bare;

static int is_armed_barely(size_t page)
{
	return atomic_load(&bare.armed[page]);
}

/* Takes shared memory, or anonymous where this kernel refuses that. 1: some of it is available. */
static int open_bare(void)
{
	int error = bare_open(&bare, UFFDWP_MEMORY_SHMEM, PAGES);
	if (error != 0) {
		error = bare_open(&bare, UFFDWP_MEMORY_ANON, PAGES);
	}
	if (error != 0) {
		support_note("the control", strerror(-error));
	}
	return error == 0;
}

START_TEST(test_the_same_round_notices_what_bare_write_protection_misses)
{
	struct worker workers[WORKERS + 1];
	if (!open_bare()) {
		return;
	}
	tally = &tallies[PLACE_CASES];
	place = (struct place){.base = bare.patch.base,
	                       .page_bytes = bare.patch.page_bytes,
	                       .pages = PAGES,
	                       .length_bytes = bare.patch.length_bytes};
	prepare(is_armed_barely);
	start_threads(workers);
	for (unsigned lost = 0; lost <= PAGES / 2; lost += PAGES / 2) {
		bare_arm(&bare);
		forget_writes();
		if (lost != 0) {
			bare_lose(&bare, 0, lost);
			memcpy(shadow, place.base, place.length_bytes);
		}
		(void)round_begins();
		round_ends();
		printf("the control: %u pages lost, writes to %llu were missed\n", lost,
		       (unsigned long long)count_missed());
		ck_assert_int_eq(count_missed() > lost / 2, lost != 0);
	}
	end_threads(workers);
	bare_close(&bare);
}
END_TEST

/* --- the program -------------------------------------------------------------------------------------------------- */

static uint64_t number_of(const char *variable, uint64_t otherwise)
{
	const char *text = getenv(variable);
	return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static void parse(int argc, char **argv)
{
	static const char *const options[][2] = {{"--seconds", "UFFDWP_STRESS_SECONDS"},
	                                         {"--writes", "UFFDWP_STRESS_WRITES"},
	                                         {"--seed", "UFFDWP_SEED"}};
	for (int i = 1; i < argc; i++) {
		size_t known = 0;
		while (known < 3 && strcmp(argv[i], options[known][0]) != 0) {
			known++;
		}
		if (known == 3 || i + 1 == argc) {
			fprintf(stderr, "usage: %s [--seconds N] [--writes N] [--seed N]\n", argv[0]);
			exit(2);
		}
		must(setenv(options[known][1], argv[++i], 1) == 0);
	}
	seconds_wanted = number_of("UFFDWP_STRESS_SECONDS", 0);
	writes_wanted = number_of("UFFDWP_STRESS_WRITES", WRITES_DEFAULT);
}

static void print_sum(void)
{
	uint64_t writes = 0;
	uint64_t caught = 0;
	uint64_t injected = 0;
	uint64_t counted = 0;
	for (int i = 0; i < PLACE_CASES; i++) {
		writes += atomic_load(&tallies[i].writes);
		caught += tallies[i].caught;
		injected += injected_pages(&tallies[i]);
		for (int cause = 0; cause < CAUSES; cause++) {
			counted += tallies[i].counted[cause];
		}
	}
	printf("in all: %llu writes, %llu first writes caught, %llu pages lost while armed, %llu losses counted\n",
	       (unsigned long long)writes, (unsigned long long)caught, (unsigned long long)injected,
	       (unsigned long long)counted);
}

int main(int argc, char **argv)
{
	parse(argc, argv);
	support_begin("test_losses", &(struct support_needs){.huge_pages = 8, .swap = 1});
	place_begin();
	size_t length = (PLACE_CASES + 1) * sizeof(*tallies);
	tallies = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(tallies != MAP_FAILED);
	Suite *suite = suite_create("losses");
	TCase *tests = tcase_create("losses");
	tcase_set_timeout(tests, 600.0 + (double)seconds_wanted);
	tcase_add_loop_test(tests, test_no_write_is_missed, 0, PLACE_CASES);
	tcase_add_test(tests, test_the_same_round_notices_what_bare_write_protection_misses);
	suite_add_tcase(suite, tests);
	int result = support_run(suite);
	print_sum();
	return result;
}
