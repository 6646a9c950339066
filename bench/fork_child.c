/* SPDX-License-Identifier: MIT */
/*
 * See fork.h. The child of a program with threads calls nothing that is not async-signal-safe: it reads a byte, looks
 * at memory, writes an answer. It dies with its parent.
 *
 * A child that waits for a question sleeps in read(): nothing runs beside what the parent measures.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"
#include "contender.h"
#include "fork.h"

#define CHILD_WRONG 3
#define ANSWER_MS 600000
#define SAMPLE_STEP 64

/* ---------------------------------------------------------------------------------------------------- content -- */

struct fork_answer {
	uint64_t took_ns;
	uint64_t wrong; /* pages that hold something else than they should */
	uint64_t first_wrong;
};

uint64_t fork_content_stamp(uint64_t page, uint32_t generation)
{
	return (page + 1) * 0x9e3779b97f4a7c15u ^ generation * 0xff51afd7ed558ccdu;
}

static uint64_t *fork_child_page(const struct fork_content *content, uint64_t page)
{
	return (uint64_t *)(void *)(content->area.base + page * content->area.page_bytes);
}

static size_t fork_child_words(const struct fork_content *content)
{
	return content->area.page_bytes / sizeof(uint64_t);
}

uint64_t fork_content_sum(const struct fork_content *content, uint64_t page)
{
	uint64_t others = fork_child_words(content) - 1;

	return fork_content_stamp(page, content->generations[page]) + others * fork_content_stamp(page, 0) +
	       others * (others + 1) / 2;
}

void fork_content_init(struct fork_content *content, const struct area *area)
{
	memset(content, 0, sizeof(*content));
	content->area = *area;
	content->clock_ns = bench_clock_ns();
	content->pages = area->length_bytes / area->page_bytes;
	content->generations = calloc(content->pages, sizeof(*content->generations));
	content->order = calloc(content->pages, sizeof(*content->order));
	if (!content->generations || !content->order)
		bench_die("no memory for the generations of pages");
	for (size_t page = 0; page < content->pages; page++) {
		uint64_t *words = fork_child_page(content, page);
		uint64_t stamp = fork_content_stamp(page, 0);

		for (size_t i = 0; i < fork_child_words(content); i++)
			words[i] = stamp + i;
	}
}

void fork_content_fini(struct fork_content *content)
{
	free(content->generations);
	free(content->order);
	memset(content, 0, sizeof(*content));
}

void fork_content_choose(struct fork_content *content, size_t count, uint64_t seed)
{
	contender_shuffle(content->order, content->pages, seed | 1);
	content->chosen = count;
}

void fork_content_write(struct fork_content *content, struct histogram *times)
{
	for (size_t i = 0; i < content->chosen; i++) {
		uint32_t page = content->order[i];
		volatile uint64_t *word = fork_child_page(content, page);
		uint64_t stamp = fork_content_stamp(page, content->generations[page] + 1);
		uint64_t from = bench_now_ns();

		*word = stamp;
		histogram_record(times, bench_minus(bench_now_ns() - from, content->clock_ns));
	}
}

void fork_content_settle(struct fork_content *content)
{
	for (size_t i = 0; i < content->chosen; i++)
		content->generations[content->order[i]]++;
}

/* -------------------------------------------------------------------------------------------------- the child -- */

static void fork_child_judge(struct fork_answer *answer, uint64_t page, int is_right)
{
	if (is_right)
		return;
	if (answer->wrong == 0)
		answer->first_wrong = page;
	answer->wrong++;
}

static void fork_child_look_at_words(const struct fork_content *content, struct fork_answer *answer)
{
	for (size_t page = 0; page < content->pages; page++)
		fork_child_judge(answer, page,
		                 *fork_child_page(content, page) ==
		                         fork_content_stamp(page, content->generations[page]));
}

static void fork_child_sum_page(const struct fork_content *content, struct fork_answer *answer, uint64_t page)
{
	const uint64_t *words = fork_child_page(content, page);
	uint64_t sum = 0;

	for (size_t i = 0; i < fork_child_words(content); i++)
		sum += words[i];
	fork_child_judge(answer, page, sum == fork_content_sum(content, page));
}

static void fork_child_look_at_sample(const struct fork_content *content, struct fork_answer *answer)
{
	for (size_t page = 0; page < content->pages; page += SAMPLE_STEP)
		fork_child_sum_page(content, answer, page);
	for (size_t i = 0; i < content->chosen; i++)
		fork_child_sum_page(content, answer, content->order[i]);
}

static struct fork_answer fork_child_answer(const struct fork_content *content, enum fork_scan scan)
{
	struct fork_answer answer = {0};
	uint64_t from = bench_now_ns();

	if (scan == FORK_SCAN_WORDS)
		fork_child_look_at_words(content, &answer);
	else if (scan == FORK_SCAN_SAMPLE)
		fork_child_look_at_sample(content, &answer);
	for (size_t page = 0; scan == FORK_SCAN_SUMS && page < content->pages; page++)
		fork_child_sum_page(content, &answer, page);
	answer.took_ns = bench_now_ns() - from;
	return answer;
}

_Noreturn void fork_child_serve(const struct fork_child *child, const struct fork_content *content)
{
	unsigned char scan;
	int wrong = 0;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	close(child->asks[1]);
	close(child->answers[0]);
	while (read(child->asks[0], &scan, 1) == 1) {
		struct fork_answer answer = fork_child_answer(content, (enum fork_scan)scan);

		wrong |= answer.wrong != 0;
		if (write(child->answers[1], &answer, sizeof(answer)) != sizeof(answer))
			_exit(CHILD_WRONG);
	}
	_exit(wrong ? CHILD_WRONG : 0);
}

/* -------------------------------------------------------------------------------------------------- the parent -- */

void fork_child_prepare(struct fork_child *child)
{
	if (pipe2(child->asks, O_CLOEXEC) || pipe2(child->answers, O_CLOEXEC))
		bench_die("pipe: %s", strerror(errno));
	child->pid = 0;
}

void fork_child_adopt(struct fork_child *child, pid_t pid)
{
	child->pid = pid;
	close(child->asks[0]);
	close(child->answers[1]);
}

static int fork_child_wait(const struct fork_child *child)
{
	int status;

	while (waitpid(child->pid, &status, 0) < 0) {
		if (errno != EINTR)
			bench_die("waitpid: %s", strerror(errno));
	}
	return status;
}

static _Noreturn void fork_child_is_gone(const struct fork_child *child, const char *side)
{
	int status;

	kill(child->pid, SIGKILL);
	status = fork_child_wait(child);
	if (WIFEXITED(status))
		bench_die("%s: the child has ended with status %d before it answered", side, WEXITSTATUS(status));
	bench_die("%s: the child was ended by signal %d before it answered, or did not answer", side, WTERMSIG(status));
}

uint64_t fork_child_scan(const struct fork_child *child, enum fork_scan scan, const char *side)
{
	struct pollfd answers = {.fd = child->answers[0], .events = POLLIN};
	struct fork_answer answer;
	unsigned char ask = (unsigned char)scan;
	int ready;

	if (write(child->asks[1], &ask, 1) != 1)
		fork_child_is_gone(child, side);
	do
		ready = poll(&answers, 1, ANSWER_MS);
	while (ready < 0 && errno == EINTR);
	if (ready != 1 || read(child->answers[0], &answer, sizeof(answer)) != sizeof(answer))
		fork_child_is_gone(child, side);
	if (answer.wrong)
		bench_die("%s: %llu pages of the child are not as they were at the cut, the first is page %llu", side,
		          (unsigned long long)answer.wrong, (unsigned long long)answer.first_wrong);
	return answer.took_ns;
}

void fork_child_end(struct fork_child *child, const char *side)
{
	int status;

	close(child->asks[1]);
	status = fork_child_wait(child);
	close(child->answers[0]);
	if (WIFSIGNALED(status))
		bench_die("%s: the child was ended by signal %d", side, WTERMSIG(status));
	if (WEXITSTATUS(status))
		bench_die("%s: the child has ended with status %d", side, WEXITSTATUS(status));
}
