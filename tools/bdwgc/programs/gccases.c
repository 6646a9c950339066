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

static void gccases_expect(bool holds, const char *what)
{
	if (!holds) {
		printf("wrong: %s\n", what);
		graph.lost++;
	}
}

static void gccases_print_text(void)
{
	char text[512];
	uffdwp_gc_error_text(text, sizeof(text));
	printf("%s\n", text);
}

static void gccases_switch_on(void)
{
	int error = uffdwp_gc_start(NULL);
	if (!error)
		return;
	gccases_print_text();
	exit(PROGRAM_REFUSED);
}

static struct uffdwp_gc_stats gccases_stats(void)
{
	struct uffdwp_gc_stats now = {.sz = sizeof(now)};
	gccases_expect(uffdwp_gc_stats(&now) == 0, "statistics");
	return now;
}

static void gccases_live(unsigned rounds)
{
	for (unsigned round = 0; round < rounds; round++) {
		for (unsigned i = 0; i < 200; i++)
			graph_write(&graph);
		graph_litter(&graph, LITTER_BYTES);
	}
	graph_verify(&graph);
}

static void gccases_make_and_live(void)
{
	graph_make(&graph, GRAPH_BYTES, 1);
	gccases_live(60);
}

/* Both sides of a fork go on; the child cannot see its writes, and knows it. */
static void gccases_case_fork(void)
{
	int status = -1;
	gccases_switch_on();
	gccases_make_and_live();
	pid_t child = fork();
	gccases_live(60);
	if (child == 0) {
		gccases_expect(gccases_stats().state == UFFDWP_GC_CHILD, "the child says that it is one");
		gccases_expect(uffdwp_gc_start(NULL) == -ECHILD, "the child cannot switch on");
		fflush(stdout);
		_exit(graph.lost ? PROGRAM_LOST : 0);
	}
	waitpid(child, &status, 0);
	gccases_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "the child kept its objects");
	gccases_expect(gccases_stats().state == UFFDWP_GC_TRACKING, "the parent goes on exactly");
}

/* The program comes to the collector first, and has a heap. */
static void gccases_case_late(void)
{
	GC_INIT();
	graph_make(&graph, GRAPH_BYTES, 2);
	gccases_switch_on();
	gccases_live(60);
}

static void gccases_case_twice(void)
{
	gccases_switch_on();
	gccases_expect(uffdwp_gc_start(NULL) == -EALREADY, "a second start is refused");
	gccases_make_and_live();
}

static void gccases_case_options(void)
{
	struct uffdwp_gc_stats now = {.sz = 8};
	struct {
		struct uffdwp_gc_options known;
		uint64_t more;
	} longer = {UFFDWP_GC_OPTIONS_INIT, 0};
	struct uffdwp_gc_options options = UFFDWP_GC_OPTIONS_INIT;
	options.sz = 4;
	gccases_expect(uffdwp_gc_start(&options) == -EINVAL, "a size that is too small");
	options.sz = sizeof(options);
	options.flags = 2;
	gccases_expect(uffdwp_gc_start(&options) == -EINVAL, "an unknown flag");
	gccases_print_text();
	options.flags = 0;
	options.reserved = 1;
	gccases_expect(uffdwp_gc_start(&options) == -EINVAL, "reserved");
	longer.known.sz = sizeof(longer);
	longer.more = 1;
	gccases_expect(uffdwp_gc_start(&longer.known) == -E2BIG, "an unknown tail");
	gccases_expect(uffdwp_gc_stats(&now) == -EINVAL, "statistics of another size");
	gccases_expect(!GC_is_init_called(), "a refusal leaves the collector alone");
	longer.more = 0;
	gccases_expect(uffdwp_gc_start(&longer.known) == 0, "an unknown tail of zeros");
	gccases_make_and_live();
}

static void gccases_case_incremental_before(void)
{
	setenv("GC_USE_GETWRITEWATCH", "0", 1);
	GC_enable_incremental();
	gccases_expect(uffdwp_gc_start(NULL) == -EBUSY, "a collector that is incremental already");
	gccases_print_text();
	gccases_make_and_live();
}

static void gccases_case_not_incremental(void)
{
	setenv("GC_DISABLE_INCREMENTAL", "1", 1);
	gccases_expect(uffdwp_gc_start(NULL) == -EOPNOTSUPP, "a collector that refuses");
	gccases_print_text();
	gccases_expect(GC_get_manual_vdb_allowed() == 0, "its settings are put back");
	gccases_make_and_live();
}

static unsigned events_seen;

static void GC_CALLBACK gccases_count_event(GC_EventType event)
{
	events_seen += event == GC_EVENT_MARK_START;
}

static void gccases_case_own_event(void)
{
	GC_set_on_collection_event(gccases_count_event);
	gccases_switch_on();
	gccases_expect(GC_get_on_collection_event() == gccases_count_event, "the program's event is kept");
	GC_gcollect();
	gccases_expect(events_seen == gccases_stats().stops, "both see the same stops");
	GC_set_on_collection_event(NULL);
	gccases_make_and_live();
	GC_set_on_collection_event(gccases_count_event);
	gccases_live(30);
	gccases_expect(events_seen > 1 && gccases_stats().stops > events_seen, "the event comes and goes");
	gccases_expect(gccases_stats().state == UFFDWP_GC_TRACKING, "and the adapter stays");
}

/* What programs report to the collector. */
static void gccases_case_calls(void)
{
	gccases_switch_on();
	graph_make(&graph, GRAPH_BYTES, 3);
	GC_enable_incremental();
	GC_disable();
	gccases_live(10);
	GC_enable();
	gccases_live(10);
	GC_gcollect();
	gccases_live(10);
	GC_set_time_limit(1); /* stops give up, and increments go on */
	gccases_live(60);
	while (GC_collect_a_little())
		graph_write(&graph);
	GC_start_incremental_collection();
	gccases_live(30);
	gccases_expect(GC_expand_hp(32 << 20) != 0, "a heap that is made larger");
	gccases_live(30);
	GC_set_time_limit(GC_TIME_UNLIMITED);
	gccases_live(30);
}

/* Memory that is given back, and taken again. */
static void gccases_case_unmap(void)
{
	gccases_switch_on();
	graph_make(&graph, GRAPH_BYTES, 4);
	for (unsigned i = 0; i < 5; i++) {
		for (unsigned k = 0; k < 8; k++)
			*(volatile char *)GC_MALLOC(4 << 20) = 1;
		GC_gcollect_and_unmap();
		gccases_expect(GC_get_unmapped_bytes() > 0, "something is unmapped");
		gccases_live(20);
	}
}

/* A large object that is written in one page only. */
static void gccases_case_large(void)
{
	gccases_switch_on();
	graph_make(&graph, GRAPH_BYTES, 5);
	static struct node **large;
	size_t count = (3 << 20) / POINTER_BYTES, at = 0;
	struct hanging hanging = {0};
	large = GC_MALLOC(count * POINTER_BYTES);
	for (unsigned i = 0; i < 100; i++) {
		large[at] = NULL;
		at = (size_t)chance_below(&graph.chance, count);
		large[at] = graph_chain(&graph, &hanging, 1);
		gccases_live(1);
		gccases_expect(object_is(large[at], hanging.first), "what a large object holds");
	}
}

/* Objects that are never freed, and one that moves. */
static void gccases_case_uncollectable(void)
{
	gccases_switch_on();
	graph_make(&graph, GRAPH_BYTES, 6);
	struct node **kept = GC_MALLOC_UNCOLLECTABLE(64 * POINTER_BYTES);
	struct node **hidden = malloc(POINTER_BYTES);
	struct hanging hanging[64] = {0};
	size_t bytes = 64 * POINTER_BYTES;
	memcpy(hidden, &kept, POINTER_BYTES);
	for (unsigned i = 0; i < 200; i++) {
		kept[i % 64] = graph_chain(&graph, &hanging[i % 64], 1);
		gccases_live(1);
		for (unsigned k = 0; k < 64; k++)
			gccases_expect(!hanging[k].first || object_is(kept[k], hanging[k].first),
			               "what an uncollectable holds");
		if (i % 50 == 49)
			kept = GC_REALLOC(kept, bytes *= 2);
	}
	free(hidden);
}

/* The kernel writes into an old object. */
static void gccases_case_read(void)
{
	int ends[2];
	gccases_switch_on();
	gccases_make_and_live();
	gccases_expect(pipe(ends) == 0, "a pipe");
	for (unsigned i = 0; i < 200; i++) {
		size_t at = (size_t)chance_below(&graph.chance, graph.count);
		struct hanging hanging;
		struct node *chain = graph_chain(&graph, &hanging, 2);
		gccases_expect(write(ends[1], &chain, POINTER_BYTES) == (ssize_t)POINTER_BYTES, "write(2)");
		gccases_expect(read(ends[0], &graph.nodes[at]->chain, POINTER_BYTES) == (ssize_t)POINTER_BYTES,
		               "read(2)");
		graph.hanging[at] = hanging;
		chain = NULL;
		graph_litter(&graph, LITTER_BYTES);
	}
	graph_verify(&graph);
}

/* Mappings of others come and go beside the heap while it grows. */
static void gccases_case_neighbours(void)
{
	enum { COUNT = 64 };
	static void *others[COUNT];
	const size_t bytes = 256 << 10;
	gccases_switch_on();
	graph_make(&graph, GRAPH_BYTES, 7);
	for (unsigned i = 0; i < 600; i++) {
		void **other = &others[chance_below(&graph.chance, COUNT)];
		if (*other)
			munmap(*other, bytes);
		*other = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		memset(*other, 1, bytes);
		if (i % 20 == 0)
			gccases_expect(GC_expand_hp(bytes) != 0, "a heap that is made larger");
		graph_litter(&graph, LITTER_BYTES / 4);
		graph_write(&graph);
	}
	graph_verify(&graph);
	printf("restarts: %llu\n", (unsigned long long)gccases_stats().restarts);
}

static void gccases_finalized(void *object, void *count)
{
	gccases_expect(object_is(object, 0), "a finalizer gets its object whole");
	++*(unsigned *)count;
}

static void gccases_case_finalizers(void)
{
	static unsigned count;
	gccases_switch_on();
	graph_make(&graph, GRAPH_BYTES, 8);
	for (unsigned i = 0; i < 1000; i++) {
		GC_REGISTER_FINALIZER(object_new(sizeof(struct node), 0), gccases_finalized, &count, NULL, NULL);
		if (i % 20 == 0)
			gccases_live(1);
	}
	GC_gcollect();
	gccases_expect(count > 500, "finalizers run");
}

/* The program becomes another: nothing is left of the track. */
static void gccases_case_exec(void)
{
	gccases_switch_on();
	gccases_make_and_live();
	fflush(stdout);
	execl("/proc/self/exe", "gccases", "late", NULL);
	gccases_expect(false, "exec");
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
        {"fork", gccases_case_fork},
        {"late", gccases_case_late},
        {"twice", gccases_case_twice},
        {"options", gccases_case_options},
        {"incremental-before", gccases_case_incremental_before},
        {"not-incremental", gccases_case_not_incremental},
        {"own-event", gccases_case_own_event},
        {"calls", gccases_case_calls},
        {"unmap", gccases_case_unmap},
        {"large", gccases_case_large},
        {"uncollectable", gccases_case_uncollectable},
        {"read", gccases_case_read},
        {"neighbours", gccases_case_neighbours},
        {"finalizers", gccases_case_finalizers},
        {"exec", gccases_case_exec},
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
