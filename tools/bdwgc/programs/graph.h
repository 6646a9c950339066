/* SPDX-License-Identifier: MIT */
/*
 * A large old structure that young objects hang on.
 *
 * The old nodes form a binary tree, so only its root is a root of the collector. Each has a chain of younger nodes,
 * which nothing else refers to: a chain that was hung on an old node after a collection lives by the write barrier
 * alone. Which object must be where is kept in memory from malloc(), which the collector does not look at; the nodes'
 * addresses are kept there, too.
 *
 * Threads: one at a time. The graph itself must lie in static memory, where the collector finds the root.
 */
#ifndef BDWGC_GRAPH_H
#define BDWGC_GRAPH_H

#include <stddef.h>
#include <stdint.h>

#include "object.h"

struct node {
	struct object object;
	struct node *left; /* of a chain: the next */
	struct node *right;
	struct node *chain;
	uint64_t filling[3];
};

/* What must hang on a node: `length` nodes with the identities from `first` on. */
struct hanging {
	uint64_t first;
	uint64_t length;
};

struct graph {
	struct node *root;
	size_t count;
	struct node **nodes;     /* malloc() */
	struct hanging *hanging; /* malloc() */
	uint64_t last_id;
	uint64_t chance;
	uint64_t checked;
	uint64_t lost;
};

/* Makes a tree of about this many bytes. */
void graph_make(struct graph *graph, uint64_t size_bytes, uint64_t seed);

/* A chain of new nodes. */
struct node *graph_chain(struct graph *graph, struct hanging *hanging, uint64_t length);

/* Hangs a new chain on a node, any one. */
void graph_write(struct graph *graph);

/* Makes chains that nothing refers to, checked while they live. */
void graph_litter(struct graph *graph, uint64_t bytes);

/* Looks at every object; what is wrong is counted. */
void graph_verify(struct graph *graph);

void graph_free(struct graph *graph);

#endif
