/* SPDX-License-Identifier: MIT */
/*
 * gccases: what programs do to a collector, one case a run, for the tests. usage: gccases CASE
 *
 * Each case switches the adapter on (or is refused), does what it is named after, and lets a graph live through it.
 * Exit codes: those of program.h; 0: all is as it should be. What is wrong beside lost objects is printed and counts as
 * lost.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "graph.h"
#include "uffdwp_gc.h"

#define GRAPH_BYTES (UINT64_C(8) << 20)
#define POINTER_BYTES sizeof(void *)
#define LITTER_BYTES (UINT64_C(1) << 20)

static struct graph graph;

static void expect(bool holds, const char *what)
{
	if (!holds) {
		printf("wrong: %s\n", what);
		graph.lost++;
	}
}

static void print_text(void)
{
	char text[512];
	uffdwp_gc_error_text(text, sizeof(text));
	printf("%s\n", text);
}

static void switch_on(void)
{
	int error = uffdwp_gc_start(NULL);
	if (!error)
		return;
	print_text();
	exit(PROGRAM_REFUSED);
}

static struct uffdwp_gc_stats stats(void)
{
	struct uffdwp_gc_stats now = {.sz = sizeof(now)};
	expect(uffdwp_gc_stats(&now) == 0, "statistics");
	return now;
}

static void live(unsigned rounds)
{
	for (unsigned round = 0; round < rounds; round++) {
		for (unsigned i = 0; i < 200; i++)
			graph_write(&graph);
		graph_litter(&graph, LITTER_BYTES);
	}
	graph_verify(&graph);
}

static void make_and_live(void)
{
	graph_make(&graph, GRAPH_BYTES, 1);
	live(60);
}

/* Both sides of a fork go on; the child cannot see its writes, and knows it. */
static void case_fork(void)
{
	int status = -1;
	switch_on();
	make_and_live();
	pid_t child = fork();
	live(60);
	if (child == 0) {
		expect(stats().state == UFFDWP_GC_CHILD, "the child says that it is one");
		expect(uffdwp_gc_start(NULL) == -ECHILD, "the child cannot switch on");
		fflush(stdout);
		_exit(graph.lost ? PROGRAM_LOST : 0);
	}
	waitpid(child, &status, 0);
	expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child kept its objects");
	expect(stats().state == UFFDWP_GC_TRACKING, "the parent goes on exactly");
}

/* The program comes to the collector first, and has a heap. */
static void case_late(void)
{
	GC_INIT();
	graph_make(&graph, GRAPH_BYTES, 2);
	switch_on();
	live(60);
}

static void case_twice(void)
{
	switch_on();
	expect(uffdwp_gc_start(NULL) == -EALREADY, "a second start is refused");
	make_and_live();
}

static void case_options(void)
{
	struct uffdwp_gc_stats now = {.sz = 8};
	struct {
		struct uffdwp_gc_options known;
		uint64_t more;
	} longer = {UFFDWP_GC_OPTIONS_INIT, 0};
	struct uffdwp_gc_options options = UFFDWP_GC_OPTIONS_INIT;
	options.sz = 4;
	expect(uffdwp_gc_start(&options) == -EINVAL, "a size that is too small");
	options.sz = sizeof(options);
	options.flags = 2;
	expect(uffdwp_gc_start(&options) == -EINVAL, "an unknown flag");
	print_text();
	options.flags = 0;
	options.reserved = 1;
	expect(uffdwp_gc_start(&options) == -EINVAL, "reserved");
	longer.known.sz = sizeof(longer);
	longer.more = 1;
	expect(uffdwp_gc_start(&longer.known) == -E2BIG, "an unknown tail");
	expect(uffdwp_gc_stats(&now) == -EINVAL, "statistics of another size");
	expect(!GC_is_init_called(), "a refusal leaves the collector alone");
	longer.more = 0;
	expect(uffdwp_gc_start(&longer.known) == 0, "an unknown tail of zeros");
	make_and_live();
}

static void case_incremental_before(void)
{
	setenv("GC_USE_GETWRITEWATCH", "0", 1);
	GC_enable_incremental();
	expect(uffdwp_gc_start(NULL) == -EBUSY, "a collector that is incremental already");
	print_text();
	make_and_live();
}

static void case_not_incremental(void)
{
	setenv("GC_DISABLE_INCREMENTAL", "1", 1);
	expect(uffdwp_gc_start(NULL) == -EOPNOTSUPP, "a collector that refuses");
	print_text();
	expect(GC_get_manual_vdb_allowed() == 0, "its settings are put back");
	make_and_live();
}

static unsigned events_seen;

static void GC_CALLBACK count_event(GC_EventType event)
{
	events_seen += event == GC_EVENT_MARK_START;
}

static void case_own_event(void)
{
	GC_set_on_collection_event(count_event);
	switch_on();
	expect(GC_get_on_collection_event() == count_event, "the program's event is kept");
	GC_gcollect();
	expect(events_seen == stats().stops, "both see the same stops");
	GC_set_on_collection_event(NULL);
	make_and_live();
	GC_set_on_collection_event(count_event);
	live(30);
	expect(events_seen > 1 && stats().stops > events_seen, "the event comes and goes");
	expect(stats().state == UFFDWP_GC_TRACKING, "and the adapter stays");
}

/* What programs tell the collector. */
static void case_calls(void)
{
	switch_on();
	graph_make(&graph, GRAPH_BYTES, 3);
	GC_enable_incremental();
	GC_disable();
	live(10);
	GC_enable();
	live(10);
	GC_gcollect();
	live(10);
	GC_set_time_limit(1); /* stops give up, and increments go on */
	live(60);
	while (GC_collect_a_little())
		graph_write(&graph);
	GC_start_incremental_collection();
	live(30);
	expect(GC_expand_hp(32 << 20) != 0, "a heap that is made larger");
	live(30);
	GC_set_time_limit(GC_TIME_UNLIMITED);
	live(30);
}

/* Memory that is given back, and taken again. */
static void case_unmap(void)
{
	switch_on();
	graph_make(&graph, GRAPH_BYTES, 4);
	for (unsigned i = 0; i < 5; i++) {
		for (unsigned k = 0; k < 8; k++)
			*(volatile char *)GC_MALLOC(4 << 20) = 1;
		GC_gcollect_and_unmap();
		expect(GC_get_unmapped_bytes() > 0, "something is unmapped");
		live(20);
	}
}

/* A large object that is written in one page only. */
static void case_large(void)
{
	switch_on();
	graph_make(&graph, GRAPH_BYTES, 5);
	static struct node **large;
	size_t count = (3 << 20) / POINTER_BYTES, at = 0;
	struct hanging who = {0};
	large = GC_MALLOC(count * POINTER_BYTES);
	for (unsigned i = 0; i < 100; i++) {
		large[at] = NULL;
		at = (size_t)chance_below(&graph.chance, count);
		large[at] = graph_chain(&graph, &who, 1);
		live(1);
		expect(object_is(large[at], who.first), "what a large object holds");
	}
}

/* Objects that are never freed, and one that moves. */
static void case_uncollectable(void)
{
	switch_on();
	graph_make(&graph, GRAPH_BYTES, 6);
	struct node **kept = GC_MALLOC_UNCOLLECTABLE(64 * POINTER_BYTES);
	struct node **hidden = malloc(POINTER_BYTES);
	struct hanging who[64] = {0};
	size_t bytes = 64 * POINTER_BYTES;
	memcpy(hidden, &kept, POINTER_BYTES);
	for (unsigned i = 0; i < 200; i++) {
		kept[i % 64] = graph_chain(&graph, &who[i % 64], 1);
		live(1);
		for (unsigned k = 0; k < 64; k++)
			expect(!who[k].first || object_is(kept[k], who[k].first), "what an uncollectable holds");
		if (i % 50 == 49)
			kept = GC_REALLOC(kept, bytes *= 2);
	}
	free(hidden);
}

/* The kernel writes into an old object. */
static void case_read(void)
{
	int ends[2];
	switch_on();
	make_and_live();
	expect(pipe(ends) == 0, "a pipe");
	for (unsigned i = 0; i < 200; i++) {
		size_t at = (size_t)chance_below(&graph.chance, graph.count);
		struct hanging who;
		struct node *chain = graph_chain(&graph, &who, 2);
		expect(write(ends[1], &chain, POINTER_BYTES) == (ssize_t)POINTER_BYTES, "write(2)");
		expect(read(ends[0], &graph.nodes[at]->chain, POINTER_BYTES) == (ssize_t)POINTER_BYTES, "read(2)");
		graph.hanging[at] = who;
		chain = NULL;
		graph_litter(&graph, LITTER_BYTES);
	}
	graph_verify(&graph);
}

/* Mappings of others come and go beside the heap while it grows. */
static void case_neighbours(void)
{
	enum { COUNT = 64 };
	static void *others[COUNT];
	const size_t bytes = 256 << 10;
	switch_on();
	graph_make(&graph, GRAPH_BYTES, 7);
	for (unsigned i = 0; i < 600; i++) {
		void **other = &others[chance_below(&graph.chance, COUNT)];
		if (*other)
			munmap(*other, bytes);
		*other = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memset(*other, 1, bytes);
		if (i % 20 == 0)
			expect(GC_expand_hp(bytes) != 0, "a heap that is made larger");
		graph_litter(&graph, LITTER_BYTES / 4);
		graph_write(&graph);
	}
	graph_verify(&graph);
	printf("restarts: %llu\n", (unsigned long long)stats().restarts);
}

static void finalized(void *object, void *count)
{
	expect(object_is(object, 0), "a finalizer gets its object whole");
	++*(unsigned *)count;
}

static void case_finalizers(void)
{
	static unsigned count;
	switch_on();
	graph_make(&graph, GRAPH_BYTES, 8);
	for (unsigned i = 0; i < 1000; i++) {
		GC_REGISTER_FINALIZER(object_new(sizeof(struct node), 0), finalized, &count, NULL, NULL);
		if (i % 20 == 0)
			live(1);
	}
	GC_gcollect();
	expect(count > 500, "finalizers run");
}

/* The program becomes another: nothing is left of the track. */
static void case_exec(void)
{
	switch_on();
	make_and_live();
	fflush(stdout);
	execl("/proc/self/exe", "gccases", "late", NULL);
	expect(false, "exec");
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
        {"fork", case_fork},
        {"late", case_late},
        {"twice", case_twice},
        {"options", case_options},
        {"incremental-before", case_incremental_before},
        {"not-incremental", case_not_incremental},
        {"own-event", case_own_event},
        {"calls", case_calls},
        {"unmap", case_unmap},
        {"large", case_large},
        {"uncollectable", case_uncollectable},
        {"read", case_read},
        {"neighbours", case_neighbours},
        {"finalizers", case_finalizers},
        {"exec", case_exec},
};

#define CASES (sizeof(cases) / sizeof(cases[0]))

int main(int argc, char **argv)
{
	for (size_t i = 0; argc == 2 && i < CASES; i++) {
		if (strcmp(argv[1], cases[i].name) != 0)
			continue;
		cases[i].run();
		printf("%s: %llu objects checked, %llu lost\n", cases[i].name, (unsigned long long)graph.checked,
		       (unsigned long long)graph.lost);
		return graph.lost ? PROGRAM_LOST : 0;
	}
	fprintf(stderr, "usage: gccases CASE, one of\n");
	for (size_t i = 0; i < CASES; i++)
		fprintf(stderr, "  %s\n", cases[i].name);
	return PROGRAM_USAGE;
}
