/* SPDX-License-Identifier: MIT */
/*
 * The n-th call of the kernel refused in a lazy restore, for every n until none is refused any more: in begin, in the
 * threads that fetch, in accesses, in a snapshot beside it, in free. After each one: begin has changed nothing or the
 * restore runs; every page is the image's, or raises SIGBUS and was reported (INV-ABSENT); a snapshot is right or
 * fails; no thread hangs, and no descriptor has leaked.
 */
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "bus.h"
#include "chain.h"
#include "chance.h"
#include "image.h"
#include "pace.h"
#include "place.h"
#include "refusing.h"
#include "support.h"

#define PAGES 40
#define HUGE_PAGES 2
#define LENGTH ((size_t)PAGES * 4096 - 500)
#define MOST_CALLS 20000 /* a bound on n: no run here makes so many */
#define WATCHDOG_SECONDS 20

static struct place place;
static struct test_chain chain;
static uint64_t nth;

static void bark(int signal_number)
{
	char line[160];
	(void)signal_number;
	/* Not async-signal-safe, in a process that ends here and now. */
	int length = snprintf(line, sizeof(line), "call %llu (%s) refused: the process hangs\n",
	                      (unsigned long long)nth, refusing_last());
	(void)!write(STDERR_FILENO, line, (size_t)length);
	_exit(3);
}

static void expect(int holds, const char *what)
{
	if (!holds) {
		fprintf(stderr, "call %llu (%s) refused: %s\n", (unsigned long long)nth, refusing_last(), what);
	}
	ck_assert(holds);
}

/* --- what may be seen ----------------------------------------------------------------------------------------------
 */

static uint8_t expected_at(size_t offset)
{
	return offset < LENGTH ? chain.shadow[offset] : 0;
}

static void expect_page(struct uffdwp_restore *restore, size_t page, uint8_t *bytes)
{
	size_t at = page * place.page_bytes;
	if (!bus_read(place.base + at, bytes, place.page_bytes)) {
		expect(uffdwp_restore_check(restore, at, 1) < 0, "SIGBUS on a page that did not fail");
		return;
	}
	size_t i = 0;
	while (i < place.page_bytes && bytes[i] == expected_at(at + i)) {
		i++;
	}
	expect(i == place.page_bytes, "a page is not the image's");
}

static void write_one(size_t offset, uint8_t byte)
{
	if (bus_write(place.base + offset, byte)) {
		chain.shadow[offset] = byte;
	}
}

static void take_snapshot(void)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	struct image image;
	uint8_t *expected = malloc(place.length_bytes);
	must(expected != NULL);
	for (size_t at = 0; at < place.length_bytes; at++) {
		expected[at] = expected_at(at);
	}
	image_prepare(&image, UFFDWP_SINK_CALLBACK, place.length_bytes);
	options.wait_ns = 5000000000u;
	int error = image_begin(&image, place.region, &options);
	write_one(LENGTH / 2, 77);
	if (error == 0 && image_finish(&image, NULL) == 0) {
		expect(image_difference(&image, expected) == place.length_bytes, "a snapshot is wrong");
	}
	image_free(&image);
	free(expected);
}

static void use(struct uffdwp_restore *restore)
{
	struct uffdwp_restore_progress progress = {.sz = sizeof(progress)};
	uint8_t *bytes = malloc(place.page_bytes);
	must(bytes != NULL);
	write_one(9, 99);
	take_snapshot();
	for (size_t page = place.pages; page-- > 0;) {
		expect_page(restore, page, bytes);
	}
	int result = uffdwp_restore_wait(restore, -1, &progress);
	expect((result == 0) == (progress.pages_failed == 0), "the result and the failed pages do not fit");
	free(bytes);
}

/* --- a run ---------------------------------------------------------------------------------------------------------
 */

static void begin_and_use(void)
{
	struct uffdwp_restore_options options = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_restore *restore = NULL;
	char text[512];
	options.path = chain.path;
	options.threads = 2;
	int error = uffdwp_restore_begin(place.region, &options, &restore);
	if (error == 0) {
		use(restore);
		expect(uffdwp_restore_free(restore) == 0, "it cannot be freed");
		return;
	}
	expect(uffdwp_error_text(text, sizeof(text)) > 0, "a refused begin without a text");
	expect(restore == NULL, "an output of a refused begin");
	for (size_t page = 0; page < place.pages; page++) {
		expect(place.base[page * place.page_bytes] == (uint8_t)(page + 1),
		       "a refused begin has changed something");
	}
}

/* A close that is refused may be tried again. */
static void close_place(void)
{
	expect(uffdwp_region_close(place.region) == 0, "the region cannot be closed");
	expect(uffdwp_close(place.runtime) == 0, "the runtime cannot be closed");
	if (place.attached) {
		struct patch patch = {place.base, place.page_bytes, place.length_bytes, place.fd};
		patch_unmap(&patch);
	}
}

static uint64_t restore_once(struct place_case which)
{
	size_t pages = which.memory == UFFDWP_MEMORY_HUGETLB ? HUGE_PAGES : PAGES;
	test_chain_begin(&chain, 4096, LENGTH, 60);
	test_chain_step(&chain, 3, LENGTH);
	refusing_nothing();
	ck_assert_int_eq(place_try(&place, &kernel_refusing, 0, which, pages), 0);
	place_touch(&place);
	refusing_set(&(struct refusal){REFUSING_ALL, nth, 1, 0});
	begin_and_use();
	uint64_t refused = refusing_refused();
	refusing_stop();
	close_place();
	test_chain_end(&chain);
	return refused;
}

START_TEST(test_a_restore_survives_every_refusal)
{
	struct place_case which = place_case(_i);
	size_t files = 0;
	if (!place_restores_lazily(which)) {
		return;
	}
	bus_begin();
	(void)signal(SIGALRM, bark);
	struct chance chance = chance_new(1);
	/* Every call, or one in two, by chance: each run takes others. */
	for (nth = 1; nth < MOST_CALLS; nth += 1 + chance_below(&chance, support_rounds(3, 1))) {
		pace_alarm(WATCHDOG_SECONDS);
		uint64_t refused = restore_once(which);
		pace_alarm(0);
		/* The first run may open what stays open for the life of the process. */
		expect(nth == 1 || scratch_open_files() <= files, "a descriptor leaked");
		files = nth == 1 ? scratch_open_files() : files;
		if (refused == 0) {
			break;
		}
	}
	expect(nth < MOST_CALLS, "there is no end of calls");
	printf("%s, %s: %llu calls\n", __func__, place_case_name(which), (unsigned long long)nth - 1);
}
END_TEST

int main(void)
{
	support_begin("test_restore", &(struct support_needs){.huge_pages = 6, .swap = 0});
	place_begin();
	Suite *suite = suite_create("restore");
	TCase *tests = tcase_create("restore");
	tcase_set_timeout(tests, 200);
	tcase_add_loop_test(tests, test_a_restore_survives_every_refusal, 0, PLACE_CASES);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
