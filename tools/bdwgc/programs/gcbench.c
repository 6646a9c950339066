/* SPDX-License-Identifier: MIT */
/*
 * gcbench: binary trees, after the well-known GCBench of J. Ellis, P. Kovac and H. Boehm (written anew). One tree and
 * one array without pointers live long; beside them many trees of all depths are made and dropped, half of them from
 * the root down (by writes into older objects), half from the leaves up.
 *
 * The identity of a tree's node is the tree's number and the node's place in it, so that each tree can be checked by
 * itself: the short-lived when they are whole, the long-lived after each round.
 */
#include <stdlib.h>

#include "program.h"

#define DEPTH_LEAST 4
#define TREE_SHIFT 40 /* the tree's number stands above the node's place */

struct tree {
	struct object object;
	struct tree *left;
	struct tree *right;
};

static struct tree *long_lived;
static double *long_array;
static uint64_t checked, lost;

/* From the leaves up. */
static struct tree *gcbench_make_up(unsigned depth, uint64_t id)
{
	struct tree *left = NULL, *right = NULL;
	if (depth) {
		uint64_t place = id & ((UINT64_C(1) << TREE_SHIFT) - 1), number = id - place;
		left = gcbench_make_up(depth - 1, number + 2 * place);
		right = gcbench_make_up(depth - 1, number + 2 * place + 1);
	}
	struct tree *tree = object_new(sizeof(*tree), id);
	tree->left = left;
	tree->right = right;
	return tree;
}

/* From the root down. */
static void gcbench_make_down(struct tree *tree, unsigned depth)
{
	if (!depth)
		return;
	uint64_t id = tree->object.id, place = id & ((UINT64_C(1) << TREE_SHIFT) - 1), number = id - place;
	tree->left = object_new(sizeof(*tree), number + 2 * place);
	gcbench_make_down(tree->left, depth - 1);
	tree->right = object_new(sizeof(*tree), number + 2 * place + 1);
	gcbench_make_down(tree->right, depth - 1);
}

static void gcbench_verify(const struct tree *tree, unsigned depth, uint64_t id)
{
	checked++;
	if (!object_is(tree, id)) {
		lost++;
		return;
	}
	if (!depth)
		return;
	uint64_t place = id & ((UINT64_C(1) << TREE_SHIFT) - 1), number = id - place;
	gcbench_verify(tree->left, depth - 1, number + 2 * place);
	gcbench_verify(tree->right, depth - 1, number + 2 * place + 1);
}

static void gcbench_make_and_drop(unsigned depth, uint64_t number)
{
	uint64_t id = (number << TREE_SHIFT) + 1;
	struct tree *tree;
	if (number % 2) {
		tree = gcbench_make_up(depth, id);
	} else {
		tree = object_new(sizeof(*tree), id);
		gcbench_make_down(tree, depth);
	}
	gcbench_verify(tree, depth, id);
}

/* Trees of each depth, about as many nodes of each. */
static uint64_t gcbench_short_lived(unsigned depth_most, uint64_t number, uint64_t *chance)
{
	for (unsigned depth = DEPTH_LEAST; depth <= depth_most; depth += 2)
		for (uint64_t i = (UINT64_C(1) << (depth_most - depth)) + chance_below(chance, 2); i-- > 0;)
			gcbench_make_and_drop(depth, ++number);
	return number;
}

static void gcbench_verify_array(size_t count)
{
	for (size_t i = 0; i < count; i++)
		lost += long_array[i] != (double)i;
}

int main(int argc, char **argv)
{
	struct program program = {.name = "gcbench",
	                          .about = "Binary trees, one that lives long and many that do not.",
	                          .size_bytes = UINT64_C(32) << 20,
	                          .rounds = 10,
	                          .seed = 1};
	program_begin(&program, argc, argv);
	unsigned depth = DEPTH_LEAST;
	while (sizeof(struct tree) << (depth + 2) <= program.size_bytes)
		depth++;
	size_t array = (size_t)(program.size_bytes / 16 / sizeof(double));
	long_array = GC_MALLOC_ATOMIC(array * sizeof(double));
	if (!long_array)
		return PROGRAM_REFUSED;
	for (size_t i = 0; i < array; i++)
		long_array[i] = (double)i;
	long_lived = object_new(sizeof(*long_lived), 1);
	gcbench_make_down(long_lived, depth);
	program_measure(&program);
	uint64_t round = 0, number = 0, chance = program.seed;
	for (; program_goes_on(&program, round); round++) {
		number = gcbench_short_lived(depth - 2, number, &chance);
		program_pause_clock(&program);
		gcbench_verify(long_lived, depth, 1);
		program_resume_clock(&program);
	}
	gcbench_verify_array(array);
	return program_end(&program, round, checked, lost);
}
