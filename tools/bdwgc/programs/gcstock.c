/* SPDX-License-Identifier: MIT */
/*
 * gcstock: a program that knows the collector and nothing of the adapter, for the form that is loaded before programs.
 * usage: gcstock METHOD [ROUNDS], where METHOD is how it comes to the collector:
 *   init         GC_INIT() first
 *   malloc       by its first allocation
 *   incremental  GC_enable_incremental() first
 *   threads      a second thread works beside the first
 *   fork         a child goes on beside its parent
 *   churn        threads come and go, libraries too
 */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "graph.h"

#define GRAPH_BYTES (UINT64_C(8) << 20)
#define LITTER_BYTES (UINT64_C(1) << 20)

static struct graph graphs[2];
static unsigned rounds = 100;

static void *gcstock_live(void *argument)
{
	struct graph *graph = argument;
	graph_make(graph, GRAPH_BYTES, 1);
	for (unsigned round = 0; round < rounds; round++) {
		for (unsigned i = 0; i < 200; i++)
			graph_write(graph);
		graph_litter(graph, LITTER_BYTES);
	}
	graph_verify(graph);
	return NULL;
}

static void gcstock_live_in_two_threads(void)
{
	pthread_t other;
	if (pthread_create(&other, NULL, gcstock_live, &graphs[1]) != 0) {
		fprintf(stderr, "gcstock: no second thread\n");
		exit(PROGRAM_REFUSED);
	}
	gcstock_live(&graphs[0]);
	pthread_join(other, NULL);
}

static void gcstock_live_in_two_processes(void)
{
	int status = -1;
	gcstock_live(&graphs[0]);
	pid_t child = fork();
	gcstock_live(&graphs[1]);
	if (child == 0)
		_exit(graphs[0].lost || graphs[1].lost ? PROGRAM_LOST : 0);
	waitpid(child, &status, 0);
	graphs[0].lost += status != 0;
}

static void *gcstock_live_briefly(void *unused)
{
	graph_litter(&graphs[1], LITTER_BYTES / 2);
	graph_write(&graphs[1]);
	return unused;
}

/* One thread after the other beside the first, and a library that comes and goes. */
static void gcstock_live_among_others(void)
{
	graph_make(&graphs[0], GRAPH_BYTES, 1);
	graph_make(&graphs[1], GRAPH_BYTES / 4, 2);
	for (unsigned round = 0; round < rounds; round++) {
		pthread_t brief;
		void *library = dlopen("libm.so.6", RTLD_NOW | RTLD_LOCAL);
		bool is_there = pthread_create(&brief, NULL, gcstock_live_briefly, NULL) == 0;
		for (unsigned i = 0; i < 100; i++)
			graph_write(&graphs[0]);
		graph_litter(&graphs[0], LITTER_BYTES);
		if (is_there)
			pthread_join(brief, NULL);
		if (library)
			dlclose(library);
	}
	graph_verify(&graphs[0]);
	graph_verify(&graphs[1]);
}

int main(int argc, char **argv)
{
	const char *method = argc > 1 ? argv[1] : "";
	if (argc > 2)
		rounds = (unsigned)strtoul(argv[2], NULL, 10);
	if (strcmp(method, "init") == 0) {
		GC_INIT();
	}
	if (strcmp(method, "incremental") == 0)
		GC_enable_incremental();
	if (strcmp(method, "threads") == 0)
		gcstock_live_in_two_threads();
	else if (strcmp(method, "fork") == 0)
		gcstock_live_in_two_processes();
	else if (strcmp(method, "churn") == 0)
		gcstock_live_among_others();
	else
		gcstock_live(&graphs[0]);
	uint64_t lost = graphs[0].lost + graphs[1].lost;
	uint64_t checked = graphs[0].checked + graphs[1].checked;
	printf("gcstock %s: incremental %d, %llu objects checked, %llu lost\n", method, GC_is_incremental_mode(),
	       (unsigned long long)checked, (unsigned long long)lost);
	return lost ? PROGRAM_LOST : 0;
}
