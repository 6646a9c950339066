/* SPDX-License-Identifier: MIT */
/*
 * The n-th call of the kernel refused, for every n until none is refused any more; by default, of each kind of call one
 * or two by chance, in each of these: in opening and closing, in arming and the fault path, in a whole snapshot (begin,
 * faults, sweep, sink, commit), and in a whole restore. After each one: what is said is consistent, writers get
 * through, nothing stays armed, no file stands under the final name unless the snapshot says that it committed, and no
 * descriptor has leaked.
 *
 * A run that hangs is ended by a watchdog that says which n it was.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chain.h"
#include "chance.h"
#include "image.h"
#include "pace.h"
#include "place.h"
#include "refusing.h"
#include "scratch.h"
#include "support.h"
#include "watchdog.h"

#define PAGES 48
#define HUGE_PAGES 4
#define EVERY_CALL 300
#define MANY_CALLS 4     /* of a kind: two of them are refused */
#define SAMPLES 8        /* of the calls after them, in each doubling */
#define MOST_CALLS 20000 /* a bound on n: no run here makes so many */
#define WATCHDOG_SECONDS 15

static struct place place;
static uint64_t
        step_wanted; /* UFFDWP_REFUSE_STEP: one call in so many, by chance; 1: every one; 0: some of each kind */
static refusing_ops ops_wanted; /* of which calls the n-th is refused */
static uint64_t made[OP_COUNT]; /* how many calls of each kind the last run made */
static struct chance chance;

static size_t pages_of(struct place_case which)
{
	return which.memory == UFFDWP_MEMORY_HUGETLB ? HUGE_PAGES : PAGES;
}

static void write_everywhere(uint8_t value)
{
	for (size_t page = 0; page < place.pages; page++) {
		((volatile uint8_t *)place.base)[page * place.page_bytes + 100] = value;
	}
}

static void expect_written(uint8_t value)
{
	for (size_t page = 0; page < place.pages; page++) {
		watchdog_expect(place.base[page * place.page_bytes + 100] == value, "a write was lost");
	}
}

/* The first few hundred calls by chance, of which each run takes others. After them come a stream's writes, one like
 * the other: samples of these, further apart the more there are. */
static uint64_t step(uint64_t call)
{
	uint64_t apart = step_wanted == 0 ? 3 : step_wanted;
	return call < EVERY_CALL ? 1 + chance_below(&chance, 2 * apart - 1) : call / SAMPLES;
}

typedef uint64_t once_function(struct place_case which);

/* Calls once(which), which refuses the n-th of these calls, or none if n is 0: how many were refused. */
static uint64_t refuse_one(once_function *once, struct place_case which, refusing_ops ops, uint64_t nth, size_t *files)
{
	ops_wanted = ops;
	watchdog_nth = nth;
	pace_alarm(WATCHDOG_SECONDS);
	refusing_nothing();
	uint64_t refused = once(which);
	pace_alarm(0);
	/* The first run may open what stays open for the life of the process. */
	watchdog_expect(*files == 0 || scratch_open_files() <= *files, "a descriptor leaked");
	*files = *files == 0 ? scratch_open_files() : *files;
	return refused;
}

/* Refuses the n-th call, for every n until it is none. */
static void for_every_call(const char *test, once_function *once, struct place_case which)
{
	size_t files = 0;
	uint64_t nth = 1;
	while (nth < MOST_CALLS && refuse_one(once, which, REFUSING_ALL, nth, &files) != 0) {
		nth += step(nth);
	}
	watchdog_expect(nth < MOST_CALLS, "there is no end of calls");
	printf("%s, %s: %llu calls\n", test, place_case_name(which), (unsigned long long)nth - 1);
}

/* Refuses one call of each kind that is made, or some where many are made: which of them, falls by chance. */
static void for_each_kind(const char *test, once_function *once, struct place_case which)
{
	uint64_t count[OP_COUNT];
	size_t files = 0;
	unsigned kinds = 0;
	unsigned refused = 0;
	(void)refuse_one(once, which, REFUSING_ALL, 0, &files);
	memcpy(count, made, sizeof(count));
	for (int op = 0; op < OP_COUNT; op++) {
		uint64_t turns = count[op] < MANY_CALLS ? count[op] != 0 : 2;
		kinds += turns != 0;
		for (; turns > 0; turns--) {
			uint64_t nth = 1 + chance_below(&chance, count[op]);
			/* A run may make fewer calls than the last: its first call is there if there is any. */
			int hit = refuse_one(once, which, REFUSING_OP_BIT(op), nth, &files) != 0 ||
			          (nth > 1 && refuse_one(once, which, REFUSING_OP_BIT(op), 1, &files) != 0);
			refused += hit != 0;
		}
	}
	watchdog_expect(refused > 0, "no call was refused");
	printf("%s, %s: %u calls of %u kinds\n", test, place_case_name(which), refused, kinds);
}

static void for_calls(const char *test, once_function *once, struct place_case which)
{
	chance = chance_new(1);
	if (step_wanted == 0) {
		for_each_kind(test, once, which);
	} else {
		for_every_call(test, once, which);
	}
}

/* A close that is refused may be tried again. */
static void close_place(void)
{
	int error = uffdwp_region_close(place.region);
	if (error != 0) {
		error = uffdwp_region_close(place.region);
	}
	watchdog_expect(error == 0, "the region cannot be closed");
	watchdog_expect(!place.attached || place_released(&place), "pages stay armed after close");
	error = uffdwp_close(place.runtime);
	if (error != 0) {
		error = uffdwp_close(place.runtime);
	}
	watchdog_expect(error == 0, "the runtime cannot be closed");
	if (place.attached) {
		struct patch patch = {place.base, place.page_bytes, place.length_bytes, place.fd};
		patch_unmap(&patch);
	}
}

/* --- open, create, attach, close ------------------------------------------------------------------------------ */

static void refuse_now(void)
{
	refusing_set(&(struct refusal){ops_wanted, watchdog_nth, 1, 0});
}

/* Ends the refusals of this run: how many there were. */
static uint64_t refuse_no_more(void)
{
	uint64_t refused = refusing_refused();
	for (int op = 0; op < OP_COUNT; op++) {
		made[op] = refusing_calls_of((enum refusing_op)op);
	}
	refusing_stop();
	return refused;
}

static uint64_t open_and_close(struct place_case which)
{
	refuse_now();
	int error = place_try(&place, &kernel_refusing, 0, which, pages_of(which));
	watchdog_expect(error <= 0, "a result that is neither 0 nor an errno");
	if (error == 0) {
		write_everywhere(1);
		close_place();
	}
	return refuse_no_more();
}

START_TEST(test_opening_survives_every_refusal)
{
	struct place_case which = place_case(_i);
	if (place_possible(which)) {
		for_calls(__func__, open_and_close, which);
	}
}
END_TEST

/* --- arming and the fault path -------------------------------------------------------------------------------- */

static void open_written(struct place_case which)
{
	ck_assert_int_eq(place_try(&place, &kernel_refusing, 0, which, pages_of(which)), 0);
	write_everywhere(1);
}

static uint64_t arm_and_fault(struct place_case which)
{
	open_written(which);
	refuse_now();
	int error = uffdwp_region_arm(place.region, 0, place.length_bytes);
	write_everywhere(2);
	expect_written(2);
	watchdog_expect(error != 0 || place_ledger(&place) == 0, "in the ledger written pages are armed");
	watchdog_expect(place_ledger(&place) != 0 || place_agrees(&place), "written pages are still armed");
	(void)uffdwp_region_disarm(place.region, 0, place.length_bytes);
	uint64_t refused = refuse_no_more();
	close_place();
	return refused;
}

START_TEST(test_fault_path_survives_every_refusal)
{
	struct place_case which = place_case(_i);
	if (place_possible(which)) {
		for_calls(__func__, arm_and_fault, which);
	}
}
END_TEST

/* --- a whole snapshot ----------------------------------------------------------------------------------------- */

static enum uffdwp_sink sink;

/* The one failure after the image has its name: the folder could not be synced. Then the image is whole. */
static void expect_only_its_name_in_doubt(const struct image *image, const uint8_t *expected)
{
	uint8_t *bytes = malloc(image->length_bytes);
	must(bytes != NULL);
	watchdog_expect(strcmp(refusing_last(), "fsync") == 0, "a file stands under the final name");
	watchdog_expect(scratch_read(image->path, bytes, image->length_bytes),
	                "a file of another length under the final name");
	watchdog_expect(memcmp(bytes, expected, image->length_bytes) == 0, "a wrong image under the final name");
	free(bytes);
}

static void expect_consistent(const struct image *image, int result, const uint8_t *expected)
{
	if (result == 0) {
		watchdog_expect(image_difference(image, expected) == image->length_bytes, "the image is wrong");
		return;
	}
	char text[256];
	watchdog_expect(uffdwp_snapshot_text(image->snapshot, text, sizeof(text)) > 0, "a failure without a text");
	if (sink == UFFDWP_SINK_IMAGE && access(image->path, F_OK) == 0) {
		expect_only_its_name_in_doubt(image, expected);
	}
}

/* Writers have got through, and nothing is armed. */
static void expect_unprotected(void)
{
	watchdog_expect(place_ledger(&place) == 0, "in the ledger pages are armed");
	watchdog_expect(place_agrees(&place), "pages are still armed");
	write_everywhere(5);
	expect_written(5);
}

static void snapshot_under_writes(struct image *image, const uint8_t *expected)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.wait_ns = 5000000000u;
	int error = image_begin(image, place.region, &options);
	write_everywhere(3);
	expect_written(3);
	if (error != 0) {
		char text[256];
		watchdog_expect(uffdwp_error_text(text, sizeof(text)) > 0, "a refused begin without a text");
		watchdog_expect(image->snapshot == NULL, "an output of a refused begin");
		return;
	}
	(void)uffdwp_region_punch(place.region, place.length_bytes - place.page_bytes, place.page_bytes);
	write_everywhere(4);
	expect_consistent(image, image_finish(image, NULL), expected);
	expect_written(4);
}

static uint64_t take_snapshot(struct place_case which)
{
	open_written(which);
	uint8_t *expected = malloc(place.length_bytes);
	must(expected != NULL);
	memcpy(expected, place.base, place.length_bytes);
	struct image image;
	image_prepare(&image, sink, place.length_bytes);
	refuse_now();
	snapshot_under_writes(&image, expected);
	uint64_t refused = refuse_no_more();
	expect_unprotected();
	image_free(&image);
	free(expected);
	close_place();
	return refused;
}

START_TEST(test_snapshot_to_each_sink_survives_every_refusal)
{
	struct place_case which = place_auto_case(_i / 3);
	sink = (enum uffdwp_sink)(_i % 3);
	if (place_possible(which)) {
		for_calls(__func__, take_snapshot, which);
	}
}
END_TEST

START_TEST(test_snapshot_by_each_mechanism_survives_every_refusal)
{
	sink = UFFDWP_SINK_CALLBACK;
	if (place_possible(place_case(_i))) {
		for_calls(__func__, take_snapshot, place_case(_i));
	}
}
END_TEST

/* --- a child ---------------------------------------------------------------------------------------------------- */

/* Waits until its parent has written everywhere: not a byte of that may be seen. */
static void child_compares(int gate)
{
	uint8_t byte;
	(void)!read(gate, &byte, 1);
	for (size_t page = 0; page < place.pages; page++) {
		if (place.base[page * place.page_bytes + 100] != 1) {
			_exit(1);
		}
	}
	_exit(0);
}

/* A child that the library has ended says why. */
static void expect_right(pid_t pid, const struct uffdwp_child *child)
{
	struct uffdwp_child_info info = {.sz = sizeof(info)};
	int status = 0;
	while (waitpid(pid, &status, 0) < 0) {
		watchdog_expect(errno == EINTR, "the child cannot be waited for");
	}
	watchdog_expect(uffdwp_child_info(child, &info) == 0 && info.pid == pid, "no word of the child");
	watchdog_expect(status == 0 || status == SIGKILL, "the child saw what was written after its cut");
}

static int nothing_is_armed(void *ignored)
{
	(void)ignored;
	return place_ledger(&place) == 0;
}

static uint64_t fork_under_writes(struct place_case which)
{
	struct uffdwp_child *child = NULL;
	int gate[2];
	open_written(which);
	watchdog_expect(pipe(gate) == 0, "no pipe");
	refuse_now();
	pid_t pid = uffdwp_fork(place.runtime, NULL, &child);
	if (pid == 0) {
		(void)close(gate[1]);
		child_compares(gate[0]);
	}
	write_everywhere(2);
	expect_written(2);
	(void)close(gate[0]);
	(void)close(gate[1]);
	watchdog_expect((pid > 0) == (child != NULL), "an output of a refused fork");
	if (pid > 0) {
		expect_right(pid, child);
		(void)uffdwp_child_free(child);
	}
	watchdog_expect(wait_until(nothing_is_armed, NULL, 20), "pages stay armed after the child's end");
	uint64_t refused = refuse_no_more();
	close_place();
	return refused;
}

START_TEST(test_children_survive_every_refusal)
{
	struct place_case which = place_case(_i);
	if (place_possible(which) && which.memory == UFFDWP_MEMORY_SHMEM && place_has_increments(which)) {
		for_calls(__func__, fork_under_writes, which);
	}
}
END_TEST

/* --- a whole restore ------------------------------------------------------------------------------------------ */

static struct test_chain chain;
static uint32_t open_flags;

static uint64_t restore_chain(struct place_case which)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	ck_assert_int_eq(place_try(&place, &kernel_refusing, open_flags, which, pages_of(which)), 0);
	write_everywhere(1);
	ck_assert_int_eq(uffdwp_region_arm(place.region, 0, place.length_bytes), 0);
	options.path = chain.path;
	options.threads = 2;
	refuse_now();
	int error = uffdwp_restore(place.region, &options, NULL);
	uint64_t refused = refuse_no_more();
	char text[512] = "";
	(void)uffdwp_error_text(text, sizeof(text));
	if (error == 0) {
		watchdog_expect(memcmp(place.base, chain.shadow, chain.length) == 0, "the memory is not the image");
		watchdog_expect(place.base[place.length_bytes - 1] == 0, "there is something beyond the image");
		watchdog_expect(place_ledger(&place) == 0, "in the ledger pages are armed");
	} else {
		watchdog_expect(text[0] != 0, "a failure without a text");
	}
	write_everywhere(5);
	expect_written(5);
	close_place();
	return refused;
}

START_TEST(test_restore_survives_every_refusal)
{
	struct place_case which = place_case(_i / 2);
	if (!place_possible(which)) {
		return;
	}
	open_flags = _i % 2 ? UFFDWP_OPEN_NO_URING : 0;
	test_chain_begin(&chain, 4096, 150000, 1);
	test_chain_step(&chain, 1, PAGES * (size_t)4096 - 5000);
	for_calls(__func__, restore_chain, which);
	test_chain_end(&chain);
}
END_TEST

/* --- more than one refusal ------------------------------------------------------------------------------------ */

/* An operation that is refused from the n-th call on, for good: what a broken disk or a full table looks like. Without
 * those that cannot be done without (the page is disarmed or the writer waits). */
static uint64_t take_snapshot_on_broken_files(struct place_case which)
{
	static const refusing_ops broken = REFUSING_BIT(pwrite) | REFUSING_BIT(write) | REFUSING_BIT(fsync) |
	                                   REFUSING_BIT(renameat) | REFUSING_BIT(uring_result) |
	                                   REFUSING_BIT(uring_polled) | REFUSING_BIT(seek) | REFUSING_BIT(openat) |
	                                   REFUSING_BIT(ftruncate);
	open_written(which);
	struct image image;
	image_prepare(&image, sink, place.length_bytes);
	uint8_t *expected = malloc(place.length_bytes);
	must(expected != NULL);
	memcpy(expected, place.base, place.length_bytes);
	refusing_set(&(struct refusal){broken, watchdog_nth, UINT64_MAX, EIO});
	snapshot_under_writes(&image, expected);
	uint64_t refused = refuse_no_more();
	expect_unprotected();
	image_free(&image);
	free(expected);
	close_place();
	return refused;
}

START_TEST(test_snapshot_survives_files_that_stay_broken)
{
	sink = (enum uffdwp_sink)(_i % 3);
	if (place_possible(place_auto_case(_i / 3))) {
		chance = chance_new(1);
		for_every_call(__func__, take_snapshot_on_broken_files, place_auto_case(_i / 3));
	}
}
END_TEST

int main(void)
{
	support_begin("test_refused", &(struct support_needs){.huge_pages = 12, .swap = 0});
	const char *wanted = getenv("UFFDWP_REFUSE_STEP");
	step_wanted = support_rounds(0, 1);
	if (wanted != NULL && strtoull(wanted, NULL, 10) > 0) {
		step_wanted = strtoull(wanted, NULL, 10);
	}
	place_begin();
	Suite *suite = suite_create("refused");
	TCase *tests = tcase_create("refused");
	tcase_set_timeout(tests, 100);
	tcase_add_checked_fixture(tests, watchdog_install, NULL);
	tcase_add_loop_test(tests, test_opening_survives_every_refusal, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_fault_path_survives_every_refusal, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_snapshot_to_each_sink_survives_every_refusal, 0, PLACE_AUTO_CASES * 3);
	tcase_add_loop_test(tests, test_snapshot_by_each_mechanism_survives_every_refusal, 0, PLACE_CASES);
	tcase_add_loop_test(tests, test_snapshot_survives_files_that_stay_broken, 0, 6);
	tcase_add_loop_test(tests, test_children_survive_every_refusal, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	TCase *restores = tcase_create("restore");
	tcase_set_timeout(restores, 100);
	tcase_add_checked_fixture(restores, watchdog_install, NULL);
	tcase_add_loop_test(restores, test_restore_survives_every_refusal, 0, PLACE_CASES * 2);
	suite_add_tcase(suite, restores);
	return support_run(suite);
}
