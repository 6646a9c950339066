/* SPDX-License-Identifier: MIT */
/*
 * Dirty pages as a garbage collector uses them: a minor collection looks for pointers into the young generation only in
 * old pages that were written since the last one.
 *
 * The old generation is ordinary memory, which a track watches. The program stores pointers to young objects into old
 * ones. A collection scans what was written and moves the young objects that it finds into the old generation.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <uffdwp.h>

#define OBJECTS ((size_t)1 << 20) /* room of the old generation: 16 MiB */
#define YOUNG 50                  /* made, and stored, each round */
#define ROUNDS 20

struct object {
	struct object *other;
	uint64_t value;
};

struct heap {
	struct object *old;
	size_t old_used;
	struct object young[YOUNG];
	uint64_t scanned, chance;
};

static int collector_failed(const char *call, int error)
{
	char text[512];

	uffdwp_error_text(text, sizeof(text));
	fprintf(stderr, "%s: %s: %s\n", call, strerror(-error), text);
	return error == -EOPNOTSUPP || error == -EPERM ? 77 : 1; /* 77: not on this machine */
}

static int collector_is_young(const struct heap *heap, const struct object *object)
{
	return object >= heap->young && object < heap->young + YOUNG;
}

/* Moves what old objects in [first, end) point to out of the young generation. */
static void collector_scan(struct heap *heap, struct object *first, const struct object *end)
{
	for (; first < end; first++) {
		heap->scanned++;
		if (!collector_is_young(heap, first->other))
			continue;
		heap->old[heap->old_used] = *first->other;
		first->other = &heap->old[heap->old_used++];
	}
}

static int collector_collect(struct heap *heap, struct uffdwp_track *track)
{
	struct uffdwp_written written[16];
	struct uffdwp_collect collect = {.sz = sizeof(collect), .ranges = written, .capacity = 16};

	do { /* until all of it fitted */
		int error = uffdwp_track_collect(track, &collect);

		if (error != 0)
			return collector_failed("uffdwp_track_collect", error);
		for (size_t at = 0; at < collect.count; at++)
			collector_scan(heap, (struct object *)written[at].start, (struct object *)written[at].end);
		collect.start = collect.next;
	} while (collect.next != NULL);
	return 0;
}

/* The program. */
static void collector_mutate(struct heap *heap)
{
	for (int at = 0; at < YOUNG; at++) {
		heap->chance = heap->chance * 6364136223846793005u + 1442695040888963407u;
		heap->young[at] = (struct object){.value = heap->chance >> 40};
		heap->old[(heap->chance >> 20) % (OBJECTS / 2)].other = &heap->young[at];
	}
}

/* The second witness, by all objects: the sum of what old ones point to, and how many of them point to young ones. */
static uint64_t collector_sum(const struct heap *heap, size_t *young)
{
	uint64_t sum = 0;

	*young = 0;
	for (size_t at = 0; at < heap->old_used; at++) {
		const struct object *other = heap->old[at].other;

		sum += other != NULL ? other->value : 0;
		*young += collector_is_young(heap, other) ? 1 : 0;
	}
	return sum;
}

static int collector_run(struct heap *heap, struct uffdwp_track *track)
{
	for (int round = 0; round < ROUNDS; round++) {
		size_t young, left;
		uint64_t sum;
		int result;

		collector_mutate(heap);
		sum = collector_sum(heap, &young);
		result = collector_collect(heap, track);
		if (result != 0)
			return result;
		if (collector_sum(heap, &left) != sum || young == 0 || left != 0) {
			fprintf(stderr, "round %d: %zu of %zu pointers to young objects were missed\n", round, left,
			        young);
			return 1;
		}
	}
	printf("%d collections moved %zu objects and looked at %llu of %llu\n", ROUNDS, heap->old_used - OBJECTS / 2,
	       (unsigned long long)heap->scanned, (unsigned long long)ROUNDS * heap->old_used);
	return 0;
}

int main(void)
{
	static struct heap heap = {.old_used = OBJECTS / 2, .chance = 1};
	size_t length = OBJECTS * sizeof(struct object);
	struct uffdwp *runtime;
	struct uffdwp_track *track;
	int result;
	int error = uffdwp_open(NULL, &runtime);

	if (error != 0)
		return collector_failed("uffdwp_open", error);
	heap.old = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (heap.old == MAP_FAILED) {
		uffdwp_close(runtime);
		return 1;
	}
	for (size_t at = 0; at < OBJECTS; at++)
		heap.old[at].value = at;
	error = uffdwp_track_start(runtime, NULL, &track);
	if (error != 0) {
		result = collector_failed("uffdwp_track_start", error);
	} else {
		error = uffdwp_track_add(track, heap.old, length, UFFDWP_TRACK_ADD_CLEAN);
		result = error != 0 ? collector_failed("uffdwp_track_add", error) : collector_run(&heap, track);
		uffdwp_track_stop(track); /* before its memory is unmapped */
	}
	munmap(heap.old, length);
	return uffdwp_close(runtime) != 0 ? 1 : result;
}
