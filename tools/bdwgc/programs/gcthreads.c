/* SPDX-License-Identifier: MIT */
/*
 * gcthreads: several threads make objects, hang them on what others made, take them away from there, and drop them.
 *
 * The meeting place is a row of slots. Each slot is an old object with a chain of younger ones, and a mutex; the list
 * of identities that must be in the chain is kept beside it, in memory that the collector does not see. A thread puts a
 * new node in front of a chain, drops a chain, moves a chain to another slot (in front of what is there), or checks
 * one.
 */
#include "program.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHAIN_MOST 64

struct link {
	struct object object;
	struct link *next;
	void *filling[5];
};

struct slot {
	pthread_mutex_t mutex;
	struct link *head; /* not seen by the collector here: `row` has it, too */
	size_t length;
	uint64_t ids[CHAIN_MOST]; /* the front one last */
};

struct worker {
	pthread_t thread;
	uint64_t chance;
	uint64_t last_id;
	uint64_t rounds;
	uint64_t checked;
	uint64_t lost;
};

static struct program program = {.name = "gcthreads",
                                 .about = "Threads that link each other's objects.",
                                 .size_bytes = UINT64_C(32) << 20,
                                 .rounds = 40,
                                 .threads = 4,
                                 .seed = 1};
static struct link **row; /* one large object of the collector's: the slots' heads */
static struct slot *slots;
static size_t slot_count;

/* 1: the head is there, and may be written. */
static bool gcthreads_verify_slot(struct worker *worker, const struct slot *slot)
{
	if (!object_is(slot->head, (uint64_t)(slot - slots) + 1)) {
		worker->lost++;
		return false;
	}
	const struct link *link = slot->head->next;
	for (size_t i = slot->length; i-- > 0; link = link->next) {
		worker->checked++;
		if (!object_is(link, slot->ids[i])) {
			worker->lost++;
			return true;
		}
	}
	worker->lost += link != NULL;
	return true;
}

static void gcthreads_put_node(struct worker *worker, struct slot *slot)
{
	if (slot->length == CHAIN_MOST)
		return;
	struct link *link = object_new(sizeof(*link), ++worker->last_id);
	link->next = slot->head->next;
	slot->head->next = link;
	slot->ids[slot->length++] = link->object.id;
}

static void gcthreads_drop_chain(struct slot *slot)
{
	slot->head->next = NULL;
	slot->length = 0;
}

/* The last node of a chain, or the head, as far as all is right. */
static struct link *gcthreads_last_link(const struct slot *slot)
{
	struct link *link = slot->head;
	for (size_t i = slot->length; i-- > 0 && object_is(link->next, slot->ids[i]);)
		link = link->next;
	return link;
}

static void gcthreads_move_chain(struct slot *from, struct slot *to)
{
	if (!from->length || from->length + to->length > CHAIN_MOST)
		return;
	gcthreads_last_link(from)->next = to->head->next;
	to->head->next = from->head->next;
	memcpy(&to->ids[to->length], from->ids, from->length * sizeof(from->ids[0]));
	to->length += from->length;
	gcthreads_drop_chain(from);
}

/* Two different slots, locked in their order. */
static void gcthreads_with_two(struct worker *worker, struct slot *a, struct slot *b)
{
	if (a == b)
		return;
	pthread_mutex_lock(a < b ? &a->mutex : &b->mutex);
	pthread_mutex_lock(a < b ? &b->mutex : &a->mutex);
	if (gcthreads_verify_slot(worker, a) && gcthreads_verify_slot(worker, b))
		gcthreads_move_chain(a, b);
	pthread_mutex_unlock(&a->mutex);
	pthread_mutex_unlock(&b->mutex);
}

static void gcthreads_with_one(struct worker *worker, struct slot *slot, uint64_t what)
{
	pthread_mutex_lock(&slot->mutex);
	bool there = gcthreads_verify_slot(worker, slot);
	if (there && what < 90)
		gcthreads_put_node(worker, slot);
	else if (there)
		gcthreads_drop_chain(slot);
	pthread_mutex_unlock(&slot->mutex);
}

static void *gcthreads_work(void *argument)
{
	struct worker *worker = argument;
	for (; program_goes_on(&program, worker->rounds); worker->rounds++)
		for (unsigned i = 0; i < 20000; i++) {
			uint64_t what = chance_below(&worker->chance, 100);
			struct slot *slot = &slots[chance_below(&worker->chance, slot_count)];
			if (what < 96)
				gcthreads_with_one(worker, slot, what);
			else
				gcthreads_with_two(worker, slot, &slots[chance_below(&worker->chance, slot_count)]);
		}
	return NULL;
}

static void gcthreads_make_slots(void)
{
	slot_count = (size_t)(program.size_bytes / (CHAIN_MOST / 4 * sizeof(struct link)));
	slots = calloc(slot_count, sizeof(*slots));
	row = GC_MALLOC(slot_count * sizeof(struct link *));
	if (!slots || !row) {
		fprintf(stderr, "no memory for the slots: a smaller --size\n");
		exit(PROGRAM_REFUSED);
	}
	for (size_t i = 0; i < slot_count; i++) {
		pthread_mutex_init(&slots[i].mutex, NULL);
		slots[i].head = row[i] = object_new(sizeof(struct link), i + 1);
	}
}

static void gcthreads_start_workers(struct worker *workers)
{
	for (unsigned i = 0; i < program.threads; i++) {
		workers[i].chance = program.seed * 64 + i;
		workers[i].last_id = (uint64_t)(i + 1) << 48;
		if (pthread_create(&workers[i].thread, NULL, gcthreads_work, &workers[i]) != 0) {
			fprintf(stderr, "thread %u of %u cannot be started\n", i + 1, program.threads);
			exit(PROGRAM_REFUSED);
		}
	}
}

int main(int argc, char **argv)
{
	static struct worker workers[64];
	struct worker sum = {0};
	program_begin(&program, argc, argv);
	gcthreads_make_slots();
	program_measure(&program);
	gcthreads_start_workers(workers);
	for (unsigned i = 0; i < program.threads; i++) {
		pthread_join(workers[i].thread, NULL);
		sum.rounds += workers[i].rounds;
		sum.checked += workers[i].checked;
		sum.lost += workers[i].lost;
	}
	for (size_t i = 0; i < slot_count; i++) {
		sum.lost += !object_is(row[i], i + 1);
		gcthreads_verify_slot(&sum, &slots[i]);
	}
	free(slots);
	return program_end(&program, sum.rounds, sum.checked, sum.lost);
}
