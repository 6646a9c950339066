/* SPDX-License-Identifier: MIT */
/*
 * INV-COMMIT under kill -9: a process that takes one snapshot after the other dies at a random moment. Under the final
 * name there is then either nothing or a complete image, one whose every word says that it belongs to the same cut;
 * what else lies in the folder is an aside file, named .uffdwp-PID-N.tmp.
 *
 * 30 deaths in a default run; UFFDWP_KILLS asks for more.
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

#include "chance.h"
#include "place.h"
#include "scratch.h"
#include "support.h"

#define PAGES 256
#define KILLS_DEFAULT 30

static char folder[SCRATCH_PATH];
static char path[SCRATCH_PATH];
static size_t length_bytes;

/* Shared with the child: how many snapshots it has begun and seen committed. */
struct board {
	_Atomic uint64_t begun;
	_Atomic uint64_t committed;
};

static unsigned kills_wanted(void)
{
	const char *text = getenv("UFFDWP_KILLS");
	return text != NULL ? (unsigned)strtoul(text, NULL, 10) : KILLS_DEFAULT;
}

/* Each word of the memory tells its place and the round. */
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

/* The child: rounds of fill, cut, overwrite, wait. Ends by being killed. */
static void snapshot_for_ever(struct board *board, struct place_case which)
{
	struct place place;
	must(place_try(&place, NULL, 0, which, PAGES) == 0);
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	options.path = path;
	for (uint64_t round = 1;; round++) {
		struct uffdwp_snapshot *snapshot = NULL;
		write_round((uint64_t *)(void *)place.base, round);
		must(uffdwp_snapshot_begin(place.region, &options, &snapshot) == 0);
		atomic_store(&board->begun, round);
		write_round((uint64_t *)(void *)place.base, round + 1);
		must(uffdwp_snapshot_wait(snapshot, -1, NULL) == 0);
		must(uffdwp_snapshot_free(snapshot) == 0);
		atomic_store(&board->committed, round);
	}
}

static int has_begun(void *argument)
{
	struct board *board = argument;
	return atomic_load(&board->begun) > 0;
}

static void kill_at_a_random_moment(struct board *board, struct place_case which, struct chance *chance)
{
	fflush(NULL);
	pid_t child = fork();
	if (child == 0) {
		alarm(60); /* should the parent be gone */
		snapshot_for_ever(board, which);
	}
	ck_assert_int_gt(child, 0);
	int begun = wait_until(has_begun, board, 30);
	sleep_us(chance_below(chance, 40000));
	ck_assert_int_eq(kill(child, SIGKILL), 0);
	int status = 0;
	ck_assert_int_eq(waitpid(child, &status, 0), child);
	ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	ck_assert_int_eq(begun, 1);
}

/* Removes what was left aside; each name must be of the pattern. */
static size_t sweep_folder(void)
{
	DIR *dir = opendir(folder);
	must(dir != NULL);
	size_t asides = 0;
	for (const struct dirent *entry = readdir(dir); entry != NULL; entry = readdir(dir)) {
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
		    strcmp(entry->d_name, "image") == 0) {
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

START_TEST(test_killed_process_leaves_a_whole_image_or_none)
{
	struct place_case which = place_auto_case(_i < 2 ? _i : 2 * (int)UFFDWP_MEMORY_ANON + _i % 2);
	if (!place_possible(which)) {
		return;
	}
	struct board *board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	must(board != MAP_FAILED);
	scratch_folder(folder);
	scratch_join(path, folder, "image");
	length_bytes = PAGES * place_page_bytes(which.memory);
	uint64_t *words = malloc(length_bytes);
	must(words != NULL);
	struct chance chance = chance_new((uint64_t)_i + 1);
	size_t asides = 0;
	size_t images = 0;
	for (unsigned kills = 0; kills < (kills_wanted() + 3) / 4; kills++) {
		atomic_store(&board->begun, 0);
		atomic_store(&board->committed, 0);
		kill_at_a_random_moment(board, which, &chance);
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
	printf("%u deaths: %zu images, %zu left aside\n", (kills_wanted() + 3) / 4, images, asides);
	free(words);
}
END_TEST

int main(void)
{
	support_begin("test_kill", &(struct support_needs){0, 0});
	place_begin();
	Suite *suite = suite_create("kill");
	TCase *tests = tcase_create("INV-COMMIT");
	tcase_set_timeout(tests, 120.0 + kills_wanted());
	tcase_add_loop_test(tests, test_killed_process_leaves_a_whole_image_or_none, 0, 4);
	suite_add_tcase(suite, tests);
	return support_run(suite);
}
