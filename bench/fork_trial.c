/* SPDX-License-Identifier: MIT */
/*
 * One round of one side: memory is opened and filled, and children are made of it one after the other.
 *
 * The first child lives while a share of all pages is written; then the memory that both gained is read, and the child
 * checks all of its memory. The second child reads one word of each page, the third all words, with nothing written
 * before. The later ones are for the time of the call, some pages are written while each lives, and each checks these
 * pages and a sample of the others. The parent sleeps while a child reads, and a child while the parent writes.
 *
 * Extra memory is the anonymous memory and the page tables that both processes together have more than the parent had
 * before the call. A page that both share counts once (Pss). The file of a region has all of its pages from the start,
 * and gets no more.
 *
 * Threads: the main thread only.
 */
#include <string.h>
#include <unistd.h>

#include "bench.h"
#include "duel.h"
#include "fork.h"
#include "memory.h"

struct fork_trial_memory {
	uint64_t anon_bytes;
	uint64_t tables_bytes;
};

static struct fork_trial_memory fork_trial_memory_of(pid_t process)
{
	struct memory_use use;

	bench_must(memory_read(process, &use), "/proc/PID/smaps_rollup");
	return (struct fork_trial_memory){use.anon_bytes, memory_status_bytes(process, "VmPTE")};
}

static uint64_t fork_trial_call(const struct fork_row *row, const struct fork_content *content,
                                struct fork_child *child)
{
	uint64_t from;
	uint64_t took;
	pid_t pid;

	fork_child_prepare(child);
	from = bench_now_ns();
	pid = row->side->fork();
	if (pid == 0)
		fork_child_serve(child, content);
	took = bench_now_ns() - from;
	if (pid < 0)
		bench_die("%s: the call failed: %s", row->side->name, strerror(-pid));
	fork_child_adopt(child, pid);
	row->side->ready(pid);
	return took;
}

static void fork_trial_end(const struct fork_row *row, struct fork_content *content, struct fork_child *child)
{
	fork_child_end(child, row->side->name);
	row->side->ended();
	fork_content_settle(content);
	content->chosen = 0;
}

static void fork_trial_keep_memory(struct fork_row *row, const struct fork_child *child,
                                   struct fork_trial_memory before)
{
	struct fork_trial_memory own = fork_trial_memory_of(getpid());
	struct fork_trial_memory other = fork_trial_memory_of(child->pid);
	struct uffdwp_child_info info;
	uint64_t anon = bench_minus(own.anon_bytes + other.anon_bytes, before.anon_bytes);
	uint64_t tables = bench_minus(own.tables_bytes + other.tables_bytes, before.tables_bytes);

	row->side->account(&info);
	rounds_keep(&row->figures[FORK_EXTRA_BYTES], (double)(anon + tables));
	rounds_keep(&row->figures[FORK_EXTRA_ANON_BYTES], (double)anon);
	rounds_keep(&row->figures[FORK_EXTRA_TABLES_BYTES], (double)tables);
	rounds_keep(&row->figures[FORK_CHILD_ANON_BYTES], (double)other.anon_bytes);
	if (info.sz)
		rounds_keep(&row->figures[FORK_CHILD_PRIVATE_BYTES], (double)info.private_bytes);
}

static void fork_trial_first(const struct fork_plan *plan, uint64_t seed, struct fork_content *content,
                             struct fork_row *row)
{
	struct fork_trial_memory before = fork_trial_memory_of(getpid());
	struct uffdwp_child_info info;
	struct fork_child child;

	fork_content_choose(content, content->pages * plan->percent / 100, seed);
	rounds_keep(&row->figures[FORK_FIRST_CALL_NS], (double)fork_trial_call(row, content, &child));
	row->side->account(&info);
	if (info.sz) {
		rounds_keep(&row->figures[FORK_PAUSE_NS], (double)info.pause_ns);
		rounds_keep(&row->figures[FORK_REST_NS], (double)info.fork_ns);
	}
	fork_content_write(content, &row->writes);
	fork_trial_keep_memory(row, &child, before);
	fork_child_scan(&child, FORK_SCAN_SUMS, row->side->name);
	fork_trial_end(row, content, &child);
}

/* A later child, whose memory is read. */
static double fork_trial_scan(struct fork_content *content, enum fork_scan scan, struct fork_row *row)
{
	enum fork_figure figure = scan == FORK_SCAN_WORDS ? FORK_SCAN_WORDS_NS : FORK_SCAN_SUMS_NS;
	struct fork_child child;
	uint64_t took = fork_trial_call(row, content, &child);

	rounds_keep(&row->figures[figure], (double)fork_child_scan(&child, scan, row->side->name));
	fork_trial_end(row, content, &child);
	return (double)took;
}

/* A later child, while which lives some pages are written. */
static double fork_trial_later(const struct fork_plan *plan, uint64_t seed, struct fork_content *content,
                               struct fork_row *row)
{
	struct fork_child child;
	uint64_t took;

	fork_content_choose(content, plan->repeated_writes, seed);
	took = fork_trial_call(row, content, &child);
	fork_content_write(content, &row->writes);
	fork_child_scan(&child, FORK_SCAN_SAMPLE, row->side->name);
	fork_trial_end(row, content, &child);
	return (double)took;
}

void fork_trial(const struct fork_plan *plan, unsigned round, struct fork_row *row)
{
	struct fork_content content;
	struct area area;
	uint64_t seed = 1000 * (uint64_t)round + 1;
	double *calls = &row->calls[row->call_count];
	double sorted[FORK_CALLS_MAX];
	unsigned count = plan->calls - 1;
	double half;

	row->side->open(row->side, plan->size_bytes, &area);
	fork_content_init(&content, &area);
	fork_trial_first(plan, seed, &content, row);
	calls[0] = fork_trial_scan(&content, FORK_SCAN_WORDS, row);
	calls[1] = fork_trial_scan(&content, FORK_SCAN_SUMS, row);
	for (unsigned i = 2; i < count; i++)
		calls[i] = fork_trial_later(plan, seed + i, &content, row);
	row->call_count += count;
	memcpy(sorted, calls, count * sizeof(sorted[0]));
	rounds_keep(&row->figures[FORK_CALL_NS], duel_median(sorted, count, &half));
	fork_content_fini(&content);
	row->side->close();
}
