/* SPDX-License-Identifier: MIT */
/*
 * INV-COMMIT under kill -9: a process that takes snapshots, that lengthens a chain of deltas, that merges one, or that
 * restores one and takes an image of what came back, dies at a random moment. Under a final name there is then either
 * nothing or a complete image: one whose every word says that it belongs to the same cut, or that is the shadow of its
 * chain, and every chain verifies; what else lies in the folder is an aside file, named .uffdwp-PID-N.tmp.
 *
 * 30 deaths in a default run, about as many of each of the four; UFFDWP_KILLS asks for more.
 */
#include <dirent.h>
#include <errno.h>
#include <fnmatch.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "chain.h"
#include "chance.h"
#include "pace.h"
#include "place.h"
#include "scratch.h"
#include "support.h"

#define PAGES 256
#define KILLS_DEFAULT 30
#define JOBS 4
#define SNAPSHOT_CASES 4
#define DELTAS_MOST 6

/* A death comes within this of the first cut: where it hits matters, not when. */
#define SHORT_US 40000
#define LONG_US 250000

static struct test_chain chain; /* of merge and restore */
static char folder[SCRATCH_PATH];
static char path[SCRATCH_PATH];
static size_t length_bytes;

/* Shared with the child: how many images it has begun and seen committed. */
struct board {
	_Atomic uint64_t begun;
	_Atomic uint64_t committed;
};

static unsigned kills_wanted(void)
{
	const char *text = getenv("UFFDWP_KILLS");
	return text != NULL ? (unsigned)strtoul(text, NULL, 10) : KILLS_DEFAULT;
}

/* Deaths in each job. */
static unsigned kills_each(void)
{
	return (kills_wanted() + JOBS - 1) / JOBS;
}

/* Each word of the memory says its place and the round. */
static void write_round(uint64_t *words, uint64_t round)
{
	for (size_t i = 0; i < length_bytes / sizeof(*words); i++) {
		words[i] = round * 0x9e3779b97f4a7c15u + i;
	}
}

static int is_whole(const uint64_t *words)
{
	for (size_t i = 0; i < length_bytes / sizeof(*words); i++) {
		if (words[i] != words[0] + i) {
			return 0;
		}
	}
	return 1;
}

/* ---- the children: each ends by being killed ---- */

static int take_snapshot(struct place *place, const struct uffdwp_snapshot_options *options, struct board *board,
                         uint64_t round)
{
	struct uffdwp_snapshot *snapshot = NULL;
	must(uffdwp_snapshot_begin(place->region, options, &snapshot) == 0);
	atomic_store(&board->begun, round);
	write_round((uint64_t *)(void *)place->base, round + 1);
	int error = uffdwp_snapshot_wait(snapshot, -1, NULL);
	must(uffdwp_snapshot_free(snapshot) == 0);
	atomic_store(&board->committed, round);
	return error;
}

static void snapshot_for_ever(struct board *board, struct place_case which)
{
	struct place place;
	must(place_try(&place, NULL, 0, which, PAGES) == 0);
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.path = path;
	for (uint64_t round = 1;; round++) {
		write_round((uint64_t *)(void *)place.base, round);
		must(take_snapshot(&place, &options, board, round) == 0);
	}
}

static void link_path(unsigned number, char to[SCRATCH_PATH])
{
	char name[32];
	(void)snprintf(name, sizeof(name), "link-%u", number);
	scratch_join(to, folder, name);
}

/* The newest first: what is there has its ancestors at any moment. */
static void unlink_links(void)
{
	char name[SCRATCH_PATH];
	for (unsigned number = DELTAS_MOST + 1; number-- > 0;) {
		link_path(number, name);
		(void)unlink(name);
	}
}

static void delta_for_ever(struct board *board, struct place_case which)
{
	struct place place;
	char to[SCRATCH_PATH];
	char parent[SCRATCH_PATH];
	must(place_try(&place, NULL, 0, which, PAGES) == 0);
	for (uint64_t round = 1;; round++) {
		struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
		unsigned number = (unsigned)((round - 1) % (DELTAS_MOST + 1));
		if (number == 0) {
			unlink_links();
		} else {
			link_path(number - 1, parent);
			options.parent = parent;
			options.compress = number % 2;
		}
		link_path(number, to);
		options.path = to;
		options.flags = UFFDWP_SNAPSHOT_KEEP;
		write_round((uint64_t *)(void *)place.base, round);
		must(take_snapshot(&place, &options, board, round) == 0);
	}
}

static void merge_for_ever(struct board *board, struct place_case which)
{
	struct uffdwp_image_merge_options options = UFFDWP_IMAGE_MERGE_OPTIONS_INIT;
	char deltas[SCRATCH_PATH];
	(void)which;
	scratch_join(deltas, folder, "merged");
	for (uint64_t round = 1;; round++) {
		struct uffdwp_image *image = NULL;
		must(uffdwp_image_open(chain.path, NULL, &image) == 0);
		atomic_store(&board->begun, round);
		options.deltas = round % 2 ? 0 : 2;
		options.compress = round % 2 ? 0 : 1;
		must(uffdwp_image_merge(image, round % 2 ? path : deltas, &options) == 0);
		must(uffdwp_image_close(image) == 0);
		atomic_store(&board->committed, round);
	}
}

static void restore_for_ever(struct board *board, struct place_case which)
{
	struct place place;
	struct uffdwp_restore_options restore = UFFDWP_RESTORE_OPTIONS_INIT;
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	must(place_try(&place, NULL, 0, which, PAGES) == 0);
	restore.path = chain.path;
	options.path = path;
	options.length = chain.length;
	for (uint64_t round = 1;; round++) {
		atomic_store(&board->begun, round);
		must(uffdwp_restore(place.region, &restore, NULL) == 0);
		must(memcmp(place.base, chain.shadow, chain.length) == 0);
		must(take_snapshot(&place, &options, board, round) == 0);
	}
}

/* ---- the deaths ---- */

typedef void (*job_fn)(struct board *board, struct place_case which);

static int has_begun(void *argument)
{
	struct board *board = argument;
	return atomic_load(&board->begun) > 0;
}

static void kill_at_a_random_moment(job_fn job, struct place_case which, struct board *board, unsigned window_us,
                                    struct chance *chance)
{
	atomic_store(&board->begun, 0);
	atomic_store(&board->committed, 0);
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		pace_alarm(60); /* should the parent be gone */
		job(board, which);
	}
	ck_assert_int_gt(child, 0);
	int begun = wait_until(has_begun, board, 30);
	sleep_us(chance_below(chance, window_us));
	ck_assert_int_eq(kill(child, SIGKILL), 0);
	int status = 0;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	ck_assert_int_eq(begun, 1);
}

/* A name that a file has when it is complete, or that the test gave it. */
static int is_final(const char *name)
{
	return strcmp(name, "image") == 0 || strcmp(name, "merged") == 0 || strcmp(name, "base") == 0 ||
	       fnmatch("delta-[0-9]", name, 0) == 0 || fnmatch("link-[0-9]", name, 0) == 0;
}

/* Removes what was left aside; each name must be of the pattern. */
static size_t sweep_folder(void)
{
	DIR *dir = opendir(folder);
	must(dir != NULL);
	size_t asides = 0;
	for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 || is_final(entry->d_name)) {
			continue;
		}
		ck_assert_msg(fnmatch(".uffdwp-[0-9]*-[0-9]*.tmp", entry->d_name, FNM_PERIOD) == 0, "%s",
		              entry->d_name);
		char aside[SCRATCH_PATH];
		scratch_join(aside, folder, entry->d_name);
		ck_assert_int_eq(unlink(aside), 0);
		asides++;
	}
	closedir(dir);
	return asides;
}

static struct board *new_board(void)
{
	struct board *board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(board != MAP_FAILED);
	return board;
}

static void report_end(const char *job, unsigned deaths, size_t images, size_t asides)
{
	printf("%s: %u deaths: %zu images, %zu left aside\n", job, deaths, images, asides);
}

START_TEST(test_killed_process_leaves_a_whole_image_or_none)
{
	struct place_case which = place_auto_case(_i < 2 ? _i : 2 * (int)UFFDWP_MEMORY_ANON + _i % 2);
	if (!place_possible(which)) {
		return;
	}
	struct board *board = new_board();
	scratch_folder(folder);
	scratch_join(path, folder, "image");
	length_bytes = PAGES * place_page_bytes(which.memory);
	uint64_t *words = malloc(length_bytes);
	must(words != NULL);
	struct chance chance = chance_new((uint64_t)_i + 1);
	unsigned deaths = (kills_each() + SNAPSHOT_CASES - 1) / SNAPSHOT_CASES;
	size_t asides = 0;
	size_t images = 0;
	for (unsigned kills = 0; kills < deaths; kills++) {
		kill_at_a_random_moment(snapshot_for_ever, which, board, SHORT_US, &chance);
		int exists = access(path, F_OK) == 0;
		ck_assert_int_eq(exists || atomic_load(&board->committed) == 0, 1);
		if (exists) {
			ck_assert_int_eq(scratch_read(path, words, length_bytes), 1);
			ck_assert_int_eq(is_whole(words), 1);
			ck_assert_int_eq(unlink(path), 0);
			images++;
		}
		asides += sweep_folder();
	}
	report_end("snapshot", deaths, images, asides);
	free(words);
}
END_TEST

/* Every byte of an image, and of those that it rests on. */
static void expect_verifies(const char *name)
{
	struct uffdwp_image *image = NULL;
	struct uffdwp_image_verified verified = {.sz = sizeof(verified)};
	char text[512] = "";
	int error = uffdwp_image_open(name, NULL, &image);
	if (error == 0) {
		error = uffdwp_image_verify(image, &verified);
	}
	(void)uffdwp_error_text(text, sizeof(text));
	ck_assert_msg(error == 0, "%s: %d, %s", name, error, text);
	(void)uffdwp_image_close(image);
}

static void expect_one_cut(const char *name, uint64_t *words)
{
	struct uffdwp_image *image = NULL;
	ck_assert_int_eq(uffdwp_image_open(name, NULL, &image), 0);
	ck_assert_int_eq(uffdwp_image_read(image, 0, words, length_bytes), 0);
	ck_assert_int_eq(is_whole(words), 1);
	(void)uffdwp_image_close(image);
}

START_TEST(test_killed_process_leaves_a_chain_that_verifies)
{
	struct place_case which = place_any(UFFDWP_MEMORY_SHMEM);
	if (!place_possible(which) || !place_has_increments(which)) {
		support_note("deltas", "the mechanism has none here");
		return;
	}
	struct board *board = new_board();
	scratch_folder(folder);
	length_bytes = PAGES * place_page_bytes(which.memory);
	uint64_t *words = malloc(length_bytes);
	must(words != NULL);
	struct chance chance = chance_new(11);
	size_t asides = 0;
	size_t images = 0;
	for (unsigned kills = 0; kills < kills_each(); kills++) {
		char name[SCRATCH_PATH];
		kill_at_a_random_moment(delta_for_ever, which, board, LONG_US, &chance);
		for (unsigned number = 0; number <= DELTAS_MOST; number++) {
			link_path(number, name);
			if (access(name, F_OK) == 0) {
				expect_verifies(name);
				expect_one_cut(name, words);
				images++;
			}
		}
		unlink_links();
		asides += sweep_folder();
	}
	report_end("delta", kills_each(), images, asides);
	free(words);
}
END_TEST

/* A chain with compressed pages; results are put beside it. */
static void open_chain(void)
{
	test_chain_begin(&chain, 4096, PAGES * (size_t)4096, 5);
	for (uint32_t level = 0; level < 3; level++) {
		test_chain_step(&chain, level, PAGES * (size_t)4096 - 100);
	}
	(void)snprintf(folder, sizeof(folder), "%s", chain.folder);
	scratch_join(path, folder, "image");
}

/* 1: there is one, it is what the chain shows, and is taken away. */
static size_t take_result(const char *name)
{
	char result[SCRATCH_PATH];
	scratch_join(result, folder, name);
	if (access(result, F_OK) != 0) {
		return 0;
	}
	expect_verifies(result);
	ck_assert_int_eq(test_chain_shows(result, chain.shadow, chain.length, &chain.chance), 1);
	ck_assert_int_eq(unlink(result), 0);
	return 1;
}

static void kill_beside_the_chain(const char *name, job_fn job, unsigned window_us)
{
	struct board *board = new_board();
	struct chance chance = chance_new(12);
	size_t asides = 0;
	size_t images = 0;
	open_chain();
	for (unsigned kills = 0; kills < kills_each(); kills++) {
		kill_at_a_random_moment(job, place_any(UFFDWP_MEMORY_SHMEM), board, window_us, &chance);
		size_t found = take_result("image") + take_result("merged");
		ck_assert(found > 0 || atomic_load(&board->committed) == 0);
		images += found;
		asides += sweep_folder();
		expect_verifies(chain.path);
	}
	report_end(name, kills_each(), images, asides);
	test_chain_end(&chain);
}

START_TEST(test_killed_merge_leaves_a_whole_result_or_none)
{
	kill_beside_the_chain("merge", merge_for_ever, SHORT_US);
}
END_TEST

START_TEST(test_killed_restore_leaves_its_chain_and_whole_images)
{
	if (!place_possible(place_any(UFFDWP_MEMORY_SHMEM))) {
		return;
	}
	kill_beside_the_chain("restore", restore_for_ever, LONG_US);
}
END_TEST

int main(void)
{
	support_begin("test_kill", &(struct support_needs){0, 0});
	place_begin();
	Suite *suite = suite_create("kill");
	TCase *tests = tcase_create("INV-COMMIT");
	tcase_set_timeout(tests, 120.0 + kills_wanted());
	tcase_add_loop_test(tests, test_killed_process_leaves_a_whole_image_or_none, 0, SNAPSHOT_CASES);
	tcase_add_test(tests, test_killed_process_leaves_a_chain_that_verifies);
	tcase_add_test(tests, test_killed_merge_leaves_a_whole_result_or_none);
	tcase_add_test(tests, test_killed_restore_leaves_its_chain_and_whole_images);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
