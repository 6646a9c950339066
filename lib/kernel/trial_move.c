/* SPDX-License-Identifier: MIT */
/*
 * The trial of arming by a move of page tables: mremap(2) with MREMAP_DONTUNMAP takes the entries of a mapping away and
 * leaves the mapping in place, empty and registered, so that every next access is an event.
 *
 * Idea: map memory that spans some page-table pages and has one page in each, register it, move it, and look: the old
 * place has no entry, the new one has them all, a read and a write are stopped at pages with content and at holes, and
 * an entry can be filled with the wp bit on. Whether whole page-table pages moved, which is what makes the move
 * independent of the size, is no matter of time: entries that are moved one by one need page-table pages of their own
 * at the new place, and the process has that many more then (VmPTE of /proc/self/status). Memory of two sizes is moved:
 * of either the process may have some more for other reasons, of which other threads are one, hence several tries.
 *
 * Threads, never: as in trial.c. UFFD_FEATURE_EVENT_UNMAP is not asked for, so that the end needs no reader.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernel/abi.h"
#include "kernel/pagemap.h"
#include "kernel/procfs.h"
#include "kernel/trial_private.h"

/* Page-table pages that the memory of each size spans, and how often a move that seems to need more is tried again. */
#define TABLES_SMALL 4u
#define TABLES_LARGE 32u
#define TRIES 4

struct trial_move {
	struct trial_bench bench; /* page_bytes: of a page, or of all of the memory while that is made and moved */
	struct trial_scratch scratch;
	char *target;
	uint64_t page_bytes;
	uint64_t table_bytes; /* that one page-table page maps */
	uint64_t length;
	uint64_t tables;
	uint64_t grown; /* bytes of page tables that the process has more after the move than before */
};

/* Maps twice as much and gives back what is not aligned: the kernel chooses the place, and locks nothing. */
static int trial_move_map(struct trial_move *move)
{
	const struct kernel_ops *k = move->bench.k;
	struct trial_bench wide = move->bench;
	int error;

	wide.page_bytes = 2 * move->length;
	error = trial_scratch_map(&wide, MAP_NORESERVE, &move->scratch);
	if (error)
		return error;
	size_t head = (size_t)(-(uintptr_t)move->scratch.address & (move->length - 1));

	if (head)
		k->munmap(move->scratch.address, head);
	move->scratch.address += head;
	k->munmap(move->scratch.address + move->length, move->length - head);
	return 0;
}

static int trial_move_populate(const struct trial_move *move)
{
	int error = 0;

	for (uint64_t at = 0; at < move->length && !error; at += move->table_bytes)
		error = move->bench.k->try_write(move->scratch.address + at);
	return error;
}

static int trial_move_tables(const struct trial_move *move, uint64_t *bytes)
{
	int error = procfs_number(move->bench.k, "/proc/self/status", "VmPTE:", bytes);

	*bytes *= 1024;
	return error;
}

static enum uffdwp_answer trial_move_away(struct trial_move *move)
{
	struct trial_bench *bench = &move->bench;
	uint64_t before = 0;
	uint64_t after = 0;
	int error = trial_move_tables(move, &before);

	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "VmPTE of /proc/self/status", error);
	error = trial_scratch_move(bench, &move->scratch, move->length, MREMAP_DONTUNMAP_NOW, &move->target);
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "mremap(MREMAP_DONTUNMAP) of shared memory", error);
	error = trial_move_tables(move, &after);
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "VmPTE of /proc/self/status", error);
	move->grown = after > before ? after - before : 0;
	return UFFDWP_ANSWER_KEPT;
}

/* A process that may not look into its pagemap has the other looks. */
static enum uffdwp_answer trial_move_witness(struct trial_move *move)
{
	struct trial_bench *bench = &move->bench;
	uint64_t here = 0;
	uint64_t there = 0;
	int error = pagemap_present(bench->k, (uintptr_t)move->scratch.address, move->length, &here);

	if (!error)
		error = pagemap_present(bench->k, (uintptr_t)move->target, move->length, &there);
	if (error)
		return kernel_is_passing(error) ? trial_say(bench, UFFDWP_ANSWER_FAILED, "pagemap", error)
		                                : UFFDWP_ANSWER_KEPT;
	if (here || there < move->tables)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "entries were left, or did not arrive", 0);
	return UFFDWP_ANSWER_KEPT;
}

/* One page of the memory that was left in place, as mechanism rearm looks at it: its entry must be empty. */
static enum uffdwp_answer trial_move_look(struct trial_move *move, uint64_t offset, unsigned round)
{
	struct trial_scratch page = {.address = move->scratch.address + offset, .fd = move->scratch.fd};
	struct trial_bench *bench = &move->bench;

	bench->page_bytes = move->page_bytes;
	bench->emptied = 0;
	enum uffdwp_answer answer = trial_methods[bench->mechanism].look(bench, &page, round);

	if (answer == UFFDWP_ANSWER_KEPT && !bench->emptied)
		return UFFDWP_ANSWER_LOST;
	return answer;
}

/* Pages with content and holes, each filled with the wp bit on and plainly. */
static enum uffdwp_answer trial_move_look_all(struct trial_move *move)
{
	enum uffdwp_answer answer = trial_move_witness(move);

	for (unsigned round = 0; round < 4 && answer == UFFDWP_ANSWER_KEPT; round++) {
		uint64_t hole = round / 2 * move->page_bytes;

		answer = trial_move_look(move, round * move->table_bytes + hole, round % 2);
	}
	return answer;
}

static enum uffdwp_answer trial_move_run(struct trial_move *move)
{
	struct trial_bench *bench = &move->bench;
	int error = trial_move_populate(move);

	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "no memory for the pages", error);
	error = bench->k->uffd_register(bench->uffd, (uintptr_t)move->scratch.address, move->length,
	                                trial_modes(bench));
	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "UFFDIO_REGISTER", error);
	enum uffdwp_answer answer = trial_move_away(move);

	return answer == UFFDWP_ANSWER_KEPT ? trial_move_look_all(move) : answer;
}

/* One move of memory that spans so many page-table pages. *grown: by how many the process has more afterwards. */
static enum uffdwp_answer trial_move_once(struct trial_bench *bench, uint64_t tables, uint64_t *grown)
{
	uint64_t page_bytes = bench->page_bytes;
	struct trial_move move = {.bench = *bench, .page_bytes = page_bytes, .tables = tables};
	enum uffdwp_answer answer;

	move.table_bytes = pagemap_table_bytes(page_bytes);
	move.length = tables * move.table_bytes;
	int error = trial_move_map(&move);

	if (error)
		return trial_say(bench, UFFDWP_ANSWER_FAILED, "no scratch memory", error);
	answer = trial_move_run(&move);
	if (move.target)
		bench->k->munmap(move.target, move.length);
	move.bench.page_bytes = move.length;
	trial_scratch_free(&move.bench, &move.scratch);
	move.bench.page_bytes = page_bytes;
	*bench = move.bench;
	*grown = move.grown / page_bytes;
	return answer;
}

/* For one size: 1 in *whole if some try moved whole page-table pages. Half of them may be others'. */
static enum uffdwp_answer trial_move_size(struct trial_bench *bench, uint64_t tables, int *whole)
{
	enum uffdwp_answer answer = UFFDWP_ANSWER_KEPT;

	*whole = 0;
	for (int i = 0; i < TRIES && answer == UFFDWP_ANSWER_KEPT && !*whole; i++) {
		uint64_t grown = 0;

		answer = trial_move_once(bench, tables, &grown);
		*whole = grown <= tables / 2;
	}
	return answer;
}

enum uffdwp_answer trial_move(struct trial_bench *bench)
{
	int whole = 1;
	enum uffdwp_answer answer = UFFDWP_ANSWER_KEPT;

	bench->reason[0] = '\0';
	if (!(bench->features & UFFD_FEATURE_SIGBUS))
		return trial_say(bench, UFFDWP_ANSWER_UNTRIED, "no UFFD_FEATURE_SIGBUS: a trial could hang", 0);
	if (!(bench->features & UFFD_FEATURE_EVENT_REMAP))
		return trial_say(bench, UFFDWP_ANSWER_UNTRIED,
		                 "no UFFD_FEATURE_EVENT_REMAP: entries would be cleared one by one", 0);
	answer = trial_move_size(bench, TABLES_SMALL, &whole);
	if (answer == UFFDWP_ANSWER_KEPT && whole)
		answer = trial_move_size(bench, TABLES_LARGE, &whole);
	if (answer == UFFDWP_ANSWER_KEPT && !whole)
		return trial_say(bench, UFFDWP_ANSWER_LOST, "page-table pages are copied, not moved", 0);
	return answer;
}
