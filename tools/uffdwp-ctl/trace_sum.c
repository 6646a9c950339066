/* SPDX-License-Identifier: MIT */
/* See trace_sum.h. */
#include "trace_sum.h"

#include <stdlib.h>

#define TRACE_SLOTS ((size_t)1 << 18)

void trace_table_init(struct trace_table *table)
{
	*table = (struct trace_table){.slots = calloc(TRACE_SLOTS, sizeof(*table->slots))};
	table->room = table->slots ? TRACE_SLOTS : 0;
}

void trace_table_fini(struct trace_table *table)
{
	free(table->slots);
	*table = (struct trace_table){0};
}

/* splitmix64: what a process sends cannot be foreseen to be spread. */
static size_t trace_sum_hash(uint64_t a, uint64_t b)
{
	uint64_t x = a * 0x9e3779b97f4a7c15u + b;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
	return (size_t)(x ^ (x >> 31));
}

void trace_table_count(struct trace_table *table, uint64_t a, uint64_t b)
{
	size_t at = table->room ? trace_sum_hash(a, b) & (table->room - 1) : 0;

	while (table->room && table->slots[at].count) {
		if (table->slots[at].a == a && table->slots[at].b == b) {
			table->slots[at].count++;
			return;
		}
		at = (at + 1) & (table->room - 1);
	}
	if (!table->room || table->used >= table->room / 2) {
		table->others++;
		return;
	}
	table->slots[at] = (struct trace_count){.a = a, .b = b, .count = 1};
	table->used++;
}

static int trace_sum_compare(const void *a, const void *b)
{
	const struct trace_count *left = a;
	const struct trace_count *right = b;

	if (left->count != right->count)
		return left->count < right->count ? 1 : -1;
	if (left->a != right->a)
		return left->a > right->a ? 1 : -1;
	return (left->b > right->b) - (left->b < right->b);
}

size_t trace_table_top(struct trace_table *table, size_t most)
{
	if (table->room)
		qsort(table->slots, table->room, sizeof(*table->slots), trace_sum_compare);
	return table->used < most ? table->used : most;
}
