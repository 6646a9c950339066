/* SPDX-License-Identifier: MIT */
/* See graph.h. */
#include "graph.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHAIN_MOST 4

static void *graph_plain_memory(size_t count, size_t bytes)
{
	void *memory = calloc(count, bytes);
	if (!memory) {
		fprintf(stderr, "no memory for the list of objects: a smaller --size\n");
		exit(PROGRAM_REFUSED);
	}
	return memory;
}

/* 1: the old node is there, and may be written: what was freed belongs to the collector. */
static bool graph_is_there(struct graph *graph, size_t i)
{
	bool there = object_is(graph->nodes[i], i + 1);
	graph->lost += !there;
	return there;
}

/* Hangs an old node below its parent. */
static void graph_join(struct graph *graph, size_t i)
{
	struct node *parent = graph->nodes[(i - 1) / 2];
	if (graph_is_there(graph, (i - 1) / 2))
		*(i % 2 ? &parent->left : &parent->right) = graph->nodes[i];
}

void graph_make(struct graph *graph, uint64_t size_bytes, uint64_t seed)
{
	memset(graph, 0, sizeof(*graph));
	graph->chance = seed;
	graph->count = (size_t)(size_bytes / sizeof(struct node));
	graph->nodes = graph_plain_memory(graph->count, sizeof(struct node *));
	graph->hanging = graph_plain_memory(graph->count, sizeof(struct hanging));
	for (size_t i = 0; i < graph->count; i++) {
		graph->nodes[i] = object_new(sizeof(struct node), i + 1);
		if (i == 0)
			graph->root = graph->nodes[0];
		else
			graph_join(graph, i);
	}
	graph->last_id = graph->count;
}

struct node *graph_chain(struct graph *graph, struct hanging *hanging, uint64_t length)
{
	struct node *first = NULL;
	hanging->length = length;
	hanging->first = graph->last_id + 1;
	graph->last_id += length;
	for (uint64_t i = length; i-- > 0;) {
		struct node *node = object_new(sizeof(*node), hanging->first + i);
		node->left = first;
		first = node;
	}
	return first;
}

void graph_write(struct graph *graph)
{
	size_t i = (size_t)chance_below(&graph->chance, graph->count);
	struct hanging hanging;
	struct node *chain = graph_chain(graph, &hanging, 1 + chance_below(&graph->chance, CHAIN_MOST));
	if (!graph_is_there(graph, i))
		return;
	graph->nodes[i]->chain = chain;
	graph->hanging[i] = hanging;
}

/* Counts what is wrong in a chain. */
static void graph_verify_chain(struct graph *graph, const struct node *node, struct hanging hanging)
{
	for (uint64_t i = 0; i < hanging.length; i++, node = node->left) {
		graph->checked++;
		if (!object_is(node, hanging.first + i)) {
			graph->lost += hanging.length - i;
			return;
		}
	}
	graph->lost += node != NULL;
}

void graph_litter(struct graph *graph, uint64_t bytes)
{
	uint64_t length = 16;
	for (uint64_t done = 0; done < bytes; done += length * sizeof(struct node)) {
		struct hanging hanging;
		graph_verify_chain(graph, graph_chain(graph, &hanging, length), hanging);
	}
}

static const struct node *graph_child(const struct graph *graph, size_t i)
{
	return i < graph->count ? graph->nodes[i] : NULL;
}

void graph_verify(struct graph *graph)
{
	graph->lost += graph->root != graph->nodes[0];
	for (size_t i = 0; i < graph->count; i++) {
		const struct node *node = graph->nodes[i];
		graph->checked++;
		if (!graph_is_there(graph, i))
			continue;
		graph->lost += node->left != graph_child(graph, 2 * i + 1);
		graph->lost += node->right != graph_child(graph, 2 * i + 2);
		graph_verify_chain(graph, node->chain, graph->hanging[i]);
	}
}

void graph_free(struct graph *graph)
{
	free(graph->nodes);
	free(graph->hanging);
	memset(graph, 0, sizeof(*graph));
}
