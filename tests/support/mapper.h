/* SPDX-License-Identifier: MIT */
/*
 * Processes that map a memfd and hand a userfaultfd of theirs to the test, as monitors of virtual machines do: they
 * write to the memory and to a shadow of it, which all share, one 64-byte stripe of each page a process. A test closes
 * the gate for a moment, as the lock of a cut: then memory and shadow are alike.
 */
#ifndef SUPPORT_MAPPER_H
#define SUPPORT_MAPPER_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "uffdwp.h"

#define MAPPER_MOST 8
#define MAPPER_STRIPE 64

/* What a mapper does until it is stopped. */
enum mapper_work {
	MAPPER_WRITES,     /* at random, with the shadow */
	MAPPER_CAUSES,     /* counts in the first page */
	MAPPER_EFFECTS,    /* copies that count into the last page */
	MAPPER_READS,      /* reads all of it once, into the shadow, when the gate is closed */
	MAPPER_READS_DOWN, /* the same from the last page on downwards; a page that raises SIGBUS is of bytes 0xb5 there
	                    */
	MAPPER_READS_HALF, /* MAPPER_READS, of the first half or, of odd numbers, of the second */
	MAPPER_BALLOON, /* several threads read, write and discard when the gate is closed, and compare with the shadow
	                 */
	MAPPER_UNMAPS,  /* the second half, when the gate is closed */
	MAPPER_WAITS
};

/* What a page of the shadow is that could not be read. */
#define MAPPER_BUS 0xb5

/* Shared by the test and all its mappers. */
struct mapper_board {
	_Atomic int gate;
	_Atomic int stop;
	_Atomic int busy[MAPPER_MOST];
	_Atomic uint64_t writes[MAPPER_MOST];
	_Atomic int done[MAPPER_MOST];
	_Atomic uint64_t wrong; /* 1 + the offset of a page that was not as its shadow */
	_Atomic uint64_t discards;
	_Atomic int again;   /* of READS_DOWN: do it once more ... */
	_Atomic int discard; /* of READS_DOWN: before it reads, all is discarded, in two halves */
	uint64_t seed;
	size_t page_bytes;
	size_t length;
	uint8_t shadow[];
};

struct mapper_process {
	pid_t pid;
	int pidfd;
	int uffd;
	struct uffdwp_mapping mappings[2];
	struct uffdwp_mapper mapper; /* for the library */
};

/* The board of memory that mappers have privately (mapper_start() with memory -1, one mapper). */
struct mapper_board *mapper_board_new(size_t length, size_t page_bytes);

/* A memfd, and its board. huge: of huge pages. */
int mapper_memory(size_t length, int huge, struct mapper_board **board);
void mapper_board_free(struct mapper_board *board);

/* Before the test has threads. It maps the memory in two pieces, the later one first. registers: by itself, and says
 * so. -1: no userfaultfd here. memory -1: private anonymous memory, for missing pages. */
int mapper_start(struct mapper_process *process, struct mapper_board *board, int memory, unsigned number,
                 enum mapper_work work, int registers);

/* Waits for its end. */
void mapper_end(struct mapper_process *process);
void mapper_kill(struct mapper_process *process, struct mapper_board *board, unsigned number);

/* Returns when each of the first `count` mappers (MAPPER_WRITES) has written to every page: their page tables have no
 * empty entry. */
void mapper_await_all(const struct mapper_board *board, unsigned count);

/* Closes the gate, and waits until no mapper is inside; opens it. As cut_enter and cut_leave of a board. */
int mapper_gate_close(void *board, uint64_t *length);
void mapper_gate_open(void *board);

#endif
