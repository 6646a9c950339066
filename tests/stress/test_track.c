/* SPDX-License-Identifier: MIT */
/*
 * INV-TRACK: every write lands in the answer of one collect. Threads write to a field (track_field.h) by all the means
 * that user code has, while ranges are added and removed, discarded, swapped out, moved and replaced (track_actors.h),
 * and other threads collect: all or a part, into few ranges and many, into bitmaps and callbacks, now and then only to
 * look. The judge (track_judge.h) decides by counts and by content. For each memory, each method to track it that the
 * kernel offers, and of regions also while snapshots of the same memory are taken, whose images must be as the memory
 * was at their cut.
 *
 * A run is made of rounds of three kinds by turns: one thread collects, and each of its answers is judged; three
 * collect, and what they found together is judged when all is quiet; one collects, and of regions snapshots are taken.
 * Each round ends with a collect of all that is tracked, after which the copy must equal the memory.
 *
 * UFFDWP_STRESS_SECONDS is what all combinations take together, UFFDWP_SEED repeats the random numbers of a former run,
 * UFFDWP_TRACK_ONLY takes only combinations whose name holds the text.
 *
 * That a missed write would be found is shown by the same rounds over a track of which a part was removed without the
 * judge, and over bare system calls that leave a part unregistered.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "image.h"
#include "kernel/abi.h"
#include "pace.h"
#include "place.h"
#include "support.h"
#include "track_actors.h"
#include "track_collector.h"

#define SECONDS_DEFAULT support_rounds(9, 45)
#define COLLECTORS 3
#define ROUND_US 40000
#define TIME_LIMIT_S 5
#define ROUNDS_LEAST 3
#define COMBINATIONS ((int)FIELD_MEMORIES * FIELD_METHODS)

/* What came of one combination; in memory shared with the children that Check forks. */
struct tally {
	uint64_t tried;
	uint64_t rounds;
	uint64_t writes;
	uint64_t by_system_calls;
	uint64_t adds;
	uint64_t removes;
	uint64_t deeds[DEED_COUNT];
	uint64_t collects;
	uint64_t reported;
	uint64_t over;
	uint64_t idle; /* pages reported while no thread did anything */
	uint64_t snapshots;
	uint64_t late;
	uint64_t missed;
};

enum round_kind { ROUND_ALONE, ROUND_TOGETHER, ROUND_SNAPSHOTS, ROUND_KINDS };

static uint64_t seconds_wanted;
static struct tally *tallies;
static struct tally *tally;
static struct field field;
static struct judge judge;
static struct actors actors;
static _Atomic int stop;

/* --- a round ------------------------------------------------------------------------------------------------------ */

static void *collect_many(void *argument)
{
	struct collector *collector = argument;
	while (!atomic_load(&stop)) {
		collector_ask(collector);
		sleep_us(chance_below(&collector->chance, 300));
	}
	return NULL;
}

struct role {
	pthread_t thread;
	struct chance chance;
	size_t index;
};

static void *write_many(void *argument)
{
	struct role *role = argument;
	while (!atomic_load(&stop)) {
		actor_write(&actors, &role->chance, role->index);
	}
	return NULL;
}

static void *change_many(void *argument)
{
	struct role *role = argument;
	while (!atomic_load(&stop)) {
		actor_change(&actors, &role->chance);
		sleep_us(chance_below(&role->chance, 2000));
	}
	return NULL;
}

static void *spoil_many(void *argument)
{
	struct role *role = argument;
	while (!atomic_load(&stop)) {
		actor_spoil(&actors, &role->chance);
		sleep_us(chance_below(&role->chance, 300));
	}
	return NULL;
}

/* Threads that disturb; the control has writers only. */
static void start_roles(struct role *roles, int all)
{
	static void *(*const functions[])(void *) = {write_many, write_many, write_many, change_many, spoil_many};
	size_t count = all ? 5 : STAGE_WRITERS;
	for (size_t i = 0; i < count; i++) {
		roles[i].index = i;
		roles[i].thread = thread_start(functions[i], &roles[i]);
	}
}

static void end_roles(struct role *roles, int all)
{
	size_t count = all ? 5 : STAGE_WRITERS;
	for (size_t i = 0; i < count; i++) {
		thread_join(roles[i].thread);
	}
}

/* When all is quiet: what was written is in the answers, and nothing is written any more. Where a thread of the library
 * hears of discarded memory, it may do so a little later. */
static void end_quietly(struct collector *collector)
{
	collector->alone = 1;
	for (unsigned i = 0; i < pace_seconds(TIME_LIMIT_S) * 1000; i++) {
		collector_ask_all(collector);
		if (field_is_async(&field) || judge_differs(&judge) == 0) {
			break;
		}
		sleep_us(1000);
	}
	judge_compare(&judge);
	uint64_t reported = judge.reported;
	collector_ask_all(collector);
	tally->idle += judge.reported - reported;
}

static void play_round(struct role *roles, struct collector *collectors, size_t count, void (*meanwhile)(void), int all)
{
	pthread_t threads[COLLECTORS];
	atomic_store(&stop, 0);
	start_roles(roles, all);
	for (size_t i = 0; i < count; i++) {
		collectors[i].alone = count == 1;
		threads[i] = thread_start(collect_many, &collectors[i]);
	}
	meanwhile();
	atomic_store(&stop, 1);
	end_roles(roles, all);
	for (size_t i = 0; i < count; i++) {
		thread_join(threads[i]);
	}
	end_quietly(&collectors[0]);
	tally->rounds++;
}

static void wait_a_round(void)
{
	sleep_us(ROUND_US);
}

/* --- snapshots ---------------------------------------------------------------------------------------------------- */

static uint8_t *at_cut;

static int enter_cut(void *user, uint64_t *length)
{
	(void)user;
	(void)length;
	must(pthread_rwlock_wrlock(&actors.cut_lock) == 0);
	memcpy(at_cut, field_address(&field, 0), field.pages * field.page_bytes);
	return 0;
}

static void leave_cut(void *user)
{
	(void)user;
	must(pthread_rwlock_unlock(&actors.cut_lock) == 0);
}

static void take_snapshot(void)
{
	struct image image;
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	size_t length = field.pages * field.page_bytes;
	options.cut_enter = enter_cut;
	options.cut_leave = leave_cut;
	options.wait_ns = 60000000000u;
	image_prepare(&image, UFFDWP_SINK_CALLBACK, length);
	must(image_begin(&image, field.region, &options) == 0);
	int result = image_finish(&image, NULL);
	if (result != 0) {
		char text[256] = "";
		(void)uffdwp_snapshot_text(image.snapshot, text, sizeof(text));
		fprintf(stderr, "the snapshot failed: %s: %s\n", strerror(-result), text);
	}
	must(result == 0);
	size_t same = image_difference(&image, at_cut);
	if (same != length) {
		fprintf(stderr, "the image differs from the memory at the cut: page %zu\n", same / field.page_bytes);
	}
	must(same == length);
	image_free(&image);
	tally->snapshots++;
}

static void take_snapshots(void)
{
	take_snapshot();
	take_snapshot();
}

/* --- combinations ------------------------------------------------------------------------------------------------- */

static uint64_t now_ms(void)
{
	struct timespec now;
	must(clock_gettime(CLOCK_MONOTONIC, &now) == 0);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static void name_of(int index, char *name, size_t size)
{
	(void)snprintf(name, size, "%s by %s", field_memory_name((enum field_memory)(index / FIELD_METHODS)),
	               field_methods[index % FIELD_METHODS].name);
}

/* Written all over, so that there is something to lose. */
static void fill_field(void)
{
	struct chance chance = chance_new(5);
	for (size_t page = 0; page < field.pages; page++) {
		uint64_t *words = (uint64_t *)(void *)field_address(&field, page);
		for (size_t word = 0; word < field.page_bytes / 8; word += 8) {
			words[word] = chance_next(&chance) | 1;
		}
	}
}

static int add_blocks(char *reason, size_t size)
{
	for (size_t block = 0; block < field.blocks; block++) {
		size_t page = block * field.block_pages;
		for (size_t i = page; i < page + field.block_pages; i++) {
			judge_begin(&judge, STAGE_CHANGER, i);
		}
		int error = uffdwp_track_add(field.track, field_address(&field, page), field.block_bytes, 0);
		if (error != 0) {
			(void)uffdwp_error_text(reason, size);
			return error;
		}
		for (size_t i = page; i < page + field.block_pages; i++) {
			judge_end(&judge, STAGE_CHANGER, i);
		}
		judge_watch(&judge, page, field.block_pages);
	}
	return 0;
}

static void open_all(struct role *roles, struct collector *collectors, collect_fn collect)
{
	for (size_t i = 0; i < STAGE_ROLES; i++) {
		roles[i].chance = chance_new(100 + i);
	}
	for (size_t i = 0; i < COLLECTORS; i++) {
		collector_open(&collectors[i], &judge, collect, 200 + i);
	}
	at_cut = malloc(field.pages * field.page_bytes);
	must(at_cut != NULL);
}

static void close_all(struct collector *collectors)
{
	for (size_t i = 0; i < COLLECTORS; i++) {
		collector_close(&collectors[i]);
	}
	free(at_cut);
}

static void note_figures(void)
{
	tally->writes = atomic_load(&actors.writes);
	tally->by_system_calls = atomic_load(&actors.by_system_calls);
	tally->adds = atomic_load(&actors.adds);
	tally->removes = atomic_load(&actors.removes);
	tally->collects = judge.collects;
	tally->reported = judge.reported;
	tally->over = judge.over;
	tally->late = judge.late;
	tally->missed = judge.missed;
	for (int deed = 0; deed < DEED_COUNT; deed++) {
		tally->deeds[deed] = atomic_load(&actors.deeds[deed]);
	}
}

static void run_rounds(uint64_t share_ms)
{
	struct role roles[STAGE_ROLES];
	struct collector collectors[COLLECTORS];
	uint64_t end_ms = now_ms() + share_ms;
	struct chance chance = chance_new(91);
	open_all(roles, collectors, collect_by_library);
	end_quietly(&collectors[0]);
	while ((tally->rounds < ROUNDS_LEAST || tally->reported == 0 || now_ms() < end_ms) && judge.missed == 0) {
		enum round_kind kind = (enum round_kind)(tally->rounds % ROUND_KINDS);
		int snapshots = kind == ROUND_SNAPSHOTS && field.region != NULL;
		actors.snapshots = snapshots;
		if (snapshots && field_is_private(&field)) {
			actors_write_all(&actors, &chance);
		}
		play_round(roles, collectors, kind == ROUND_TOGETHER ? COLLECTORS : 1,
		           snapshots ? take_snapshots : wait_a_round, 1);
		note_figures();
	}
	close_all(collectors);
}

static void print_tally(const char *name)
{
	printf("%s: %llu rounds, %llu writes (%llu by system calls), %llu collects, %llu pages reported, %llu of them "
	       "over, %llu idle, %llu late, %llu missed; %llu adds, %llu removes, %llu snapshots;",
	       name, (unsigned long long)tally->rounds, (unsigned long long)tally->writes,
	       (unsigned long long)tally->by_system_calls, (unsigned long long)tally->collects,
	       (unsigned long long)tally->reported, (unsigned long long)tally->over, (unsigned long long)tally->idle,
	       (unsigned long long)tally->late, (unsigned long long)tally->missed, (unsigned long long)tally->adds,
	       (unsigned long long)tally->removes, (unsigned long long)tally->snapshots);
	for (int deed = 0; deed < DEED_COUNT; deed++) {
		if (tally->deeds[deed] != 0) {
			printf(" %s %llu", deed_name((enum deed)deed), (unsigned long long)tally->deeds[deed]);
		}
	}
	printf("\n");
}

static int is_wanted(const char *name)
{
	const char *only = getenv("UFFDWP_TRACK_ONLY");
	const char *delivery = getenv("UFFDWP_TEST_DELIVERY");
	if (delivery != NULL && strcmp(delivery, "thread") == 0 &&
	    (strstr(name, "inline") != NULL || strstr(name, "mprotect") != NULL)) {
		return 0;
	}
	return only == NULL || strstr(name, only) != NULL;
}

/* 1: the kernel and the library offer it, and the field is open and tracked. */
static int open_combination(int index, const char *name)
{
	char reason[400] = "";
	const struct field_method *method = &field_methods[index % FIELD_METHODS];
	enum field_memory memory = (enum field_memory)(index / FIELD_METHODS);
	if (field_pointless(memory, method) || !is_wanted(name)) {
		return 0;
	}
	int error = field_open(&field, memory, method, reason, sizeof(reason));
	if (error != 0) {
		support_note(name, reason);
		return 0;
	}
	fill_field();
	judge_open(&judge, &field, STAGE_ROLES);
	error = add_blocks(reason, sizeof(reason));
	if (error != 0) {
		support_note(name, reason);
		judge_close(&judge);
		field_close(&field);
		return 0;
	}
	return 1;
}

/* Which combinations there are is found out before, in children: 1 where there is one. */
static void try_combination(void *argument)
{
	int index = *(const int *)argument;
	char name[80];
	name_of(index, name, sizeof(name));
	tallies[index].tried = 0;
	if (open_combination(index, name)) {
		judge_close(&judge);
		field_close(&field);
		tallies[index].tried = 1;
	}
}

static uint64_t combinations(void)
{
	uint64_t count = 0;
	for (int i = 0; i < COMBINATIONS; i++) {
		count += tallies[i].tried;
	}
	return count;
}

START_TEST(test_every_write_lands_in_an_answer)
{
	char name[80];
	tally = &tallies[_i];
	name_of(_i, name, sizeof(name));
	if (!tally->tried) {
		return;
	}
	ck_assert(open_combination(_i, name));
	actors_open(&actors, &field, &judge);
	run_rounds(seconds_wanted * 1000 / combinations());
	note_figures();
	print_tally(name);
	ck_assert_msg(judge.missed == 0, "%s: INV-TRACK: %llu pages were written and not reported", name,
	              (unsigned long long)judge.missed);
	ck_assert_msg(judge.late == 0, "%s: INV-TRACK: %llu pages were reported too late", name,
	              (unsigned long long)judge.late);
	ck_assert_uint_gt(tally->reported, 0);
	actors_close(&actors);
	field_close(&field);
	judge_close(&judge);
}
END_TEST

/* --- controls ----------------------------------------------------------------------------------------------------- */

/* Rounds of writers and one collector until something was missed, or too many. */
static void play_control(void)
{
	struct role roles[STAGE_ROLES];
	struct collector collectors[COLLECTORS];
	open_all(roles, collectors, collect_by_library);
	while (judge.missed == 0) {
		play_round(roles, collectors, 1, wait_a_round, 0);
	}
	close_all(collectors);
}

static int open_any(void)
{
	for (int i = 0; i < COMBINATIONS; i++) {
		char name[80];
		name_of(i, name, sizeof(name));
		if (tallies[i].tried && open_combination(i, name)) {
			printf("the control: %s\n", name);
			return 1;
		}
	}
	return 0;
}

START_TEST(test_the_judge_finds_what_a_track_does_not_watch)
{
	tally = &tallies[COMBINATIONS];
	if (!open_any()) {
		return;
	}
	actors_open(&actors, &field, &judge);
	ck_assert_int_eq(uffdwp_track_remove(field.track, field_address(&field, 0), field.block_bytes), 0);
	play_control();
	printf("the control: a block is not tracked any more: %llu pages missed\n", (unsigned long long)judge.missed);
	ck_assert_uint_gt(judge.missed, 0);
	actors_close(&actors);
	field_close(&field);
	judge_close(&judge);
}
END_TEST

static int bare_pagemap = -1;

/* PAGEMAP_SCAN alone, of all, into the ranges of the request: it passes over what is not registered without a word. */
static int collect_barely(struct field *where, struct uffdwp_collect *request)
{
	struct pm_scan_arg scan = {.size = sizeof(scan),
	                           .flags = PM_SCAN_WP_MATCHING,
	                           .start = (uint64_t)(uintptr_t)where->slots[0],
	                           .end = (uint64_t)(uintptr_t)(where->slots[0] + where->slots_bytes),
	                           .vec = (uint64_t)(uintptr_t)request->ranges,
	                           .vec_len = request->capacity,
	                           .category_mask = PAGE_IS_WRITTEN,
	                           .return_mask = PAGE_IS_WRITTEN};
	scan.start = request->start != NULL ? (uint64_t)(uintptr_t)request->start : scan.start;
	int count = ioctl(bare_pagemap, PAGEMAP_SCAN, &scan);
	must(count >= 0);
	request->count = (size_t)count;
	request->bytes = 0;
	for (int i = 0; i < count; i++) {
		request->bytes += request->ranges[i].end - request->ranges[i].start;
	}
	request->next = scan.walk_end < scan.end ? (void *)(uintptr_t)scan.walk_end : NULL;
	return 0;
}

/* All but the last block. 0, or -errno. */
static int register_barely(void)
{
	struct uffdio_api api = {.api = UFFD_API, .features = UFFD_FEATURE_WP_ASYNC | UFFD_FEATURE_WP_UNPOPULATED};
	struct uffdio_register request = {
	        {(uintptr_t)field.slots[0], (field.blocks - 1) * field.block_bytes}, UFFDIO_REGISTER_MODE_WP, 0};
	int uffd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api) != 0 || ioctl(uffd, UFFDIO_REGISTER, &request) != 0) {
		return -errno;
	}
	bare_pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	return bare_pagemap < 0 ? -errno : 0;
}

static void *collect_barely_many(void *argument)
{
	do {
		collector_ask_all(argument);
		sched_yield();
	} while (!atomic_load(&stop));
	return NULL;
}

static void play_barely(struct role *roles, struct collector *collector, size_t watched)
{
	collector->alone = 1;
	judge_watch(&judge, 0, watched);
	atomic_store(&stop, 0);
	start_roles(roles, 0);
	pthread_t thread = thread_start(collect_barely_many, collector);
	wait_a_round();
	atomic_store(&stop, 1);
	end_roles(roles, 0);
	thread_join(thread);
	collector_ask_all(collector);
	judge_compare(&judge);
	judge_unwatch(&judge, 0, watched);
}

START_TEST(test_the_judge_finds_what_bare_calls_do_not_watch)
{
	char reason[400] = "";
	struct role roles[STAGE_ROLES];
	struct collector collectors[COLLECTORS];
	struct field_method method = {"bare calls", UFFDWP_MECHANISM_AUTO, 0, 0};
	tally = &tallies[COMBINATIONS];
	ck_assert_msg(field_open(&field, FIELD_ANON, &method, reason, sizeof(reason)) == 0, "%s", reason);
	int error = register_barely();
	if (error != 0) {
		support_note("the control by bare calls", strerror(-error));
		return;
	}
	fill_field();
	judge_open(&judge, &field, STAGE_ROLES);
	actors_open(&actors, &field, &judge);
	open_all(roles, collectors, collect_barely);
	play_barely(roles, &collectors[0], field.pages - field.block_pages);
	printf("the control: what is registered: %llu pages missed\n", (unsigned long long)judge.missed);
	ck_assert_uint_eq(judge.missed, 0);
	while (judge.missed == 0) {
		play_barely(roles, &collectors[0], field.pages);
	}
	printf("the control: with a block that is not registered: %llu pages missed\n",
	       (unsigned long long)judge.missed);
	ck_assert_uint_gt(judge.missed, 0);
	close_all(collectors);
}
END_TEST

/* --- the program -------------------------------------------------------------------------------------------------- */

static void print_sum(void)
{
	struct tally sum = {0};
	for (int i = 0; i < COMBINATIONS; i++) {
		sum.tried += tallies[i].rounds != 0;
		sum.writes += tallies[i].writes;
		sum.collects += tallies[i].collects;
		sum.reported += tallies[i].reported;
		sum.over += tallies[i].over;
		sum.missed += tallies[i].missed;
	}
	printf("in all: %llu combinations, %llu writes, %llu collects, %llu pages reported, %llu of them over, %llu "
	       "missed\n",
	       (unsigned long long)sum.tried, (unsigned long long)sum.writes, (unsigned long long)sum.collects,
	       (unsigned long long)sum.reported, (unsigned long long)sum.over, (unsigned long long)sum.missed);
}

int main(void)
{
	const char *seconds = getenv("UFFDWP_STRESS_SECONDS");
	seconds_wanted = seconds != NULL ? strtoull(seconds, NULL, 10) : SECONDS_DEFAULT;
	support_begin("test_track", &(struct support_needs){.huge_pages = 8, .swap = 1});
	place_begin();
	size_t length = (COMBINATIONS + 1) * sizeof(*tallies);
	tallies = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(tallies != MAP_FAILED);
	for (int i = 0; i < COMBINATIONS; i++) {
		must(child_run(try_combination, &i) == 0);
	}
	Suite *suite = suite_create("track");
	TCase *tests = tcase_create("track");
	tcase_set_timeout(tests, 120.0 + (double)seconds_wanted);
	tcase_add_loop_test(tests, test_every_write_lands_in_an_answer, 0, COMBINATIONS);
	tcase_add_test(tests, test_the_judge_finds_what_a_track_does_not_watch);
	tcase_add_test(tests, test_the_judge_finds_what_bare_calls_do_not_watch);
	suite_add_tcase(suite, tests);
	int result = support_run(suite);
	print_sum();
	return result;
}
