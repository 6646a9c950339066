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
	MAPPER_WRITES,  /* at random, with the shadow */
	MAPPER_CAUSES,  /* counts in the first page */
	MAPPER_EFFECTS, /* copies that count into the last page */
	MAPPER_READS,   /* reads all of it once, into the shadow */
	MAPPER_WAITS
};

/* Shared by the test and all its mappers. */
struct mapper_board {
	_Atomic int gate;
	_Atomic int stop;
	_Atomic int busy[MAPPER_MOST];
	_Atomic uint64_t writes[MAPPER_MOST];
	_Atomic int done[MAPPER_MOST];
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

/* A memfd, and its board. huge: of huge pages. */
int mapper_memory(size_t length, int huge, struct mapper_board **board);
void mapper_board_free(struct mapper_board *board);

/* Before the test has threads. It maps the memory in two pieces, the later one first. registers: by itself, and says
 * so. -1: no userfaultfd here. */
int mapper_start(struct mapper_process *process, struct mapper_board *board, int memory, unsigned number,
                 enum mapper_work work, int registers);

/* Waits for its end. */
void mapper_end(struct mapper_process *process);
void mapper_kill(struct mapper_process *process, struct mapper_board *board, unsigned number);

/* Closes the gate, and waits until no mapper is inside; opens it. As cut_enter and cut_leave of a board. */
int mapper_gate_close(void *board, uint64_t *length);
void mapper_gate_open(void *board);

#endif
