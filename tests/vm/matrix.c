/* SPDX-License-Identifier: MIT */
/*
 * The program of the matrix: see matrix.h. It prints, for run.sh and for people,
 *
 *     cell MEMORY MECHANISM DELIVERY JOB proved|refused|failed DETAIL
 *     bare shmem TREATMENT caught|missed|refused|untried
 *
 * usage: matrix [--expect-losses] [--bare=caught|missed|refused] [--only=TEXT]
 * --only: only the cells whose first four words hold the text. UFFDWP_SEED repeats a run. Exit code: 0, or 1 when a
 * cell failed or the control ended otherwise than was said.
 */
#include "matrix.h"
#include "pace.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* A bound against hanging, not a measure. */
#define CELL_SECONDS (120 + (int)(6 * pace_slowness()))

int expect_losses;

static const char *const memory_names[UFFDWP_MEMORY_COUNT] = {"shmem", "hugetlb", "anon"};
static const char *const mechanism_names[UFFDWP_MECHANISM_REGION_COUNT] = {"auto", "marker", "rearm", "minor",
                                                                           "mprotect"};
static const char *const delivery_names[] = {"auto", "thread", "inline"};
static const char *const job_names[JOB_COUNT] = {"arm", "preserve"};
static const char *const verdict_names[] = {"proved", "refused", "failed"};

static void name_cell(struct cell cell, char *name, size_t size)
{
	(void)snprintf(name, size, "%s %s %s %s", memory_names[cell.memory], mechanism_names[cell.mechanism],
	               delivery_names[cell.delivery], job_names[cell.job]);
}

static void play(struct cell cell, struct outcome *outcome)
{
	struct place place;

	if (!place_open(&place, cell, outcome))
		return;
	if (cell.job == JOB_ARM)
		arm_job(&place, outcome);
	else
		preserve_job(&place, outcome);
	if (outcome->verdict == PROVED)
		(void)place_close(&place, outcome);
}

/* Waits for a child, with a bound. The wait status, or -1 when it had to be killed. */
static int await(pid_t child, int end)
{
	struct pollfd closed = {.fd = end, .events = 0};
	int status = 0;
	int came = poll(&closed, 1, CELL_SECONDS * 1000);

	if (came == 0)
		(void)kill(child, SIGKILL);
	(void)waitpid(child, &status, 0);
	return came == 0 ? -1 : status;
}

/* Plays a cell in a process of its own; what came of it is in the outcome, which both share. */
static void play_apart(struct cell cell, struct outcome *outcome)
{
	int ends[2];

	*outcome = (struct outcome){.verdict = FAILED, .text = "the cell ended without a word"};
	if (pipe(ends))
		abort();
	(void)fflush(stdout);
	pid_t child = fork();

	if (child < 0)
		abort();
	if (child == 0) {
		(void)close(ends[0]);
		play(cell, outcome);
		_exit(0);
	}
	(void)close(ends[1]);
	int status = await(child, ends[0]);

	(void)close(ends[0]);
	if (status == -1)
		(void)outcome_fail(outcome, "no end after %d s", CELL_SECONDS);
	else if (WIFSIGNALED(status))
		(void)outcome_fail(outcome, "killed by signal %d", WTERMSIG(status));
}

static uint64_t now_ms(void)
{
	struct timespec now;

	(void)clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static int cell_fails(struct cell cell, struct outcome *outcome, const char *only)
{
	char name[80];

	name_cell(cell, name, sizeof(name));
	if (only && !strstr(name, only))
		return 0;
	uint64_t start_ms = now_ms();

	play_apart(cell, outcome);
	printf("cell %s %s %s [%llu ms]\n", name, verdict_names[outcome->verdict], outcome->text,
	       (unsigned long long)(now_ms() - start_ms));
	return outcome->verdict == FAILED;
}

static struct cell cell_at(unsigned index)
{
	struct cell cell;

	cell.job = (enum job)(index % JOB_COUNT);
	index /= JOB_COUNT;
	cell.delivery = (enum uffdwp_delivery)(UFFDWP_DELIVERY_THREAD + index % 2);
	index /= 2;
	cell.mechanism = (enum uffdwp_mechanism)(UFFDWP_MECHANISM_MARKER + index % (UFFDWP_MECHANISM_REGION_COUNT - 1));
	index /= UFFDWP_MECHANISM_REGION_COUNT - 1;
	cell.memory = (enum uffdwp_memory)index;
	return cell;
}

static int play_all(const char *only)
{
	unsigned cells = UFFDWP_MEMORY_COUNT * (UFFDWP_MECHANISM_REGION_COUNT - 1) * 2 * JOB_COUNT;
	int failed = 0;
	struct outcome *outcome =
	        mmap(NULL, sizeof(*outcome), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	if (outcome == MAP_FAILED)
		abort();
	for (unsigned i = 0; i < cells; i++)
		failed |= cell_fails(cell_at(i), outcome, only);
	(void)munmap(outcome, sizeof(*outcome));
	return failed;
}

int main(int argc, char **argv)
{
	const char *expected = NULL;
	const char *only = NULL;

	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--expect-losses") == 0)
			expect_losses = 1;
		else if (strcmp(argv[i], "--pace") == 0)
			return printf("%.0f\n", pace_slowness()) < 0;
		else if (strncmp(argv[i], "--bare=", 7) == 0)
			expected = argv[i] + 7;
		else if (strncmp(argv[i], "--only=", 7) == 0)
			only = argv[i] + 7;
		else
			return 2;
	}
	printf("seed %llu\n", (unsigned long long)chance_seed());
	int wrong = bare_control(expected);

	return play_all(only) | wrong;
}
