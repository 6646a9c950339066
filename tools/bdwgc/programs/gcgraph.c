/* SPDX-License-Identifier: MIT */
/*
 * gcgraph: what collection by generations is made for. A large old structure in which little is written, and much young
 * garbage: a collection that knows what was written need not look at the rest.
 *
 * A round hangs some new chains on old nodes (one write for each 4 MiB of the structure, 16 at least) and makes 2 MiB
 * of garbage. All objects are checked every sixteenth of the rounds and at the end.
 */
#include "graph.h"
#include "program.h"

#define LITTER_BYTES (UINT64_C(2) << 20)
#define CHECKS 16

static struct graph graph;

static void gcgraph_check(struct program *program)
{
	program_pause_clock(program);
	graph_verify(&graph);
	program_resume_clock(program);
}

int main(int argc, char **argv)
{
	struct program program = {.name = "gcgraph",
	                          .about = "A large old structure, few writes into it, much young garbage.",
	                          .size_bytes = UINT64_C(64) << 20,
	                          .rounds = 400,
	                          .writes = 16,
	                          .seed = 1};
	program_begin(&program, argc, argv);
	graph_make(&graph, program.size_bytes, program.seed);
	program_measure(&program);
	uint64_t round = 0, interval = program.rounds ? program.rounds / CHECKS + 1 : 100;
	for (; program_goes_on(&program, round); round++) {
		for (uint64_t i = 0; i < program.writes; i++)
			graph_write(&graph);
		graph_litter(&graph, LITTER_BYTES);
		if (round % interval == 0)
			gcgraph_check(&program);
	}
	gcgraph_check(&program);
	return program_end(&program, round, graph.checked, graph.lost);
}
