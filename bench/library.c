/* SPDX-License-Identifier: MIT */
/*
 * The library as a contender, by its public interface only.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "contender.h"

static void die_with_text(struct uffdwp *runtime, const char *what, int error)
{
	char text[512];

	uffdwp_error_text(runtime, text, sizeof(text));
	if (error == -EPERM || error == -EACCES || error == -ENOSYS || error == -EOPNOTSUPP || error == -ENOMEM)
		bench_skip("%s: %s", what, text);
	bench_die("%s: %s (%s)", what, text, strerror(-error));
}

struct uffdwp *library_runtime(uint32_t handler_threads, const char *cpus)
{
	struct uffdwp_options options = UFFDWP_OPTIONS_INIT;
	struct uffdwp *runtime;
	int error;

	options.handler_threads = handler_threads;
	options.handler_cpus = cpus;
	error = uffdwp_open(&options, &runtime);
	if (error)
		die_with_text(NULL, "opening the library", error);
	return runtime;
}

void library_region(struct uffdwp *runtime, const struct library_setup *setup, struct uffdwp_region **region,
                    struct area *area)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	int error;

	options.delivery = setup->delivery;
	if (setup->memory == UFFDWP_MEMORY_HUGETLB)
		options.flags |= UFFDWP_REGION_HUGETLB;
	if (setup->memory == UFFDWP_MEMORY_ANON) {
		area_map(area, setup->memory, setup->length_bytes);
		error = uffdwp_region_attach(runtime, area->base, area->length_bytes, &options, region);
	} else {
		error = uffdwp_region_create(runtime, setup->length_bytes, &options, region);
	}
	if (error)
		die_with_text(runtime, "opening a region", error);
	area->memory = setup->memory;
	area->base = uffdwp_region_base(*region);
	area->length_bytes = setup->length_bytes;
	area->page_bytes = area_page_bytes(setup->memory);
	area_fill(area->base, area->length_bytes, 1);
}

void library_expect_faults(const struct library *library, uint64_t faults)
{
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};

	bench_must(uffdwp_region_stats(library->region, &stats), "reading the counters of a region");
	if (stats.faults != faults)
		bench_die("the library resolved %llu faults where %llu pages were written",
		          (unsigned long long)stats.faults, (unsigned long long)faults);
}

static void arm(void *self)
{
	struct library *library = self;

	bench_must(uffdwp_region_arm(library->region, 0, library->area.length_bytes), "uffdwp_region_arm");
}

static void enter(void *self)
{
	struct library *library = self;

	sigaction(SIGBUS, &library->action, NULL);
}

static void close_library(void *self)
{
	struct library *library = self;

	enter(self);
	bench_must(uffdwp_region_close(library->region), "uffdwp_region_close");
	bench_must(uffdwp_close(library->runtime), "uffdwp_close");
	if (library->area.memory == UFFDWP_MEMORY_ANON)
		area_unmap(&library->area);
}

void contender_library(struct contender *contender, struct library *library, const struct library_setup *setup)
{
	char cpus[16];

	snprintf(cpus, sizeof(cpus), "%d", setup->cpu);
	library->runtime = library_runtime(setup->handler_threads, setup->cpu == BENCH_ANY_CPU ? NULL : cpus);
	library_region(library->runtime, setup, &library->region, &library->area);
	sigaction(SIGBUS, NULL, &library->action);
	memset(contender, 0, sizeof(*contender));
	contender->name = "library";
	contender->self = library;
	contender->area = library->area;
	contender->arm = arm;
	contender->enter = enter;
	contender->close = close_library;
}
