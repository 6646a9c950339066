/* SPDX-License-Identifier: MIT */
/*
 * The library as a contender, by its public interface only.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "bench.h"
#include "contender.h"

static void die_with_text(const char *what, int error)
{
	char text[512];

	uffdwp_error_text(text, sizeof(text));
	if (error == -EPERM || error == -EACCES || error == -ENOSYS || error == -EOPNOTSUPP || error == -ENOMEM)
		bench_skip("%s: %s", what, text);
	bench_die("%s: %s (%s)", what, text, strerror(-error));
}

static const char *const mechanism_names[] = {"auto", "marker", "rearm", "minor", "mprotect", "async", "soft-dirty"};

const char *library_mechanism_name(enum uffdwp_mechanism mechanism)
{
	return mechanism_names[mechanism];
}

enum uffdwp_mechanism library_mechanism_of(const char *name)
{
	for (int i = UFFDWP_MECHANISM_MARKER; i <= UFFDWP_MECHANISM_MPROTECT; i++) {
		if (!strcmp(name, mechanism_names[i]))
			return (enum uffdwp_mechanism)i;
	}
	bench_die("%s: no such mechanism; marker, rearm, minor or mprotect", name);
}

static const struct uffdwp_probe *probed(void)
{
	static struct uffdwp_probe *probe;

	if (!probe)
		bench_must(uffdwp_probe_run(&probe), "uffdwp_probe_run");
	return probe;
}

enum uffdwp_mechanism library_best(enum uffdwp_memory memory)
{
	struct uffdwp_probe_memory found = {.sz = sizeof(found)};

	bench_must(uffdwp_probe_memory(probed(), memory, &found), "uffdwp_probe_memory");
	if (found.mechanism == UFFDWP_MECHANISM_AUTO)
		bench_skip("no mechanism works here: %s", found.reason);
	return (enum uffdwp_mechanism)found.mechanism;
}

const char *library_refuses(enum uffdwp_memory memory, enum uffdwp_mechanism mechanism, enum uffdwp_delivery delivery)
{
	static struct uffdwp_probe_rung rung; /* its reason is the answer */

	rung.sz = sizeof(rung);
	bench_must(uffdwp_probe_rung(probed(), memory, mechanism, &rung), "uffdwp_probe_rung");
	if (!rung.works)
		return rung.reason;
	if (delivery == UFFDWP_DELIVERY_INLINE)
		return rung.inline_works ? NULL : "not by inline delivery";
	return rung.thread_works ? NULL : "not by a handler thread";
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
		die_with_text("opening the library", error);
	return runtime;
}

void library_region(struct uffdwp *runtime, const struct library_setup *setup, struct uffdwp_region **region,
                    struct area *area)
{
	struct uffdwp_region_options options = UFFDWP_REGION_OPTIONS_INIT;
	int error;

	options.mechanism = setup->mechanism;
	options.delivery = setup->delivery;
	if (setup->memory == UFFDWP_MEMORY_HUGETLB)
		options.flags |= UFFDWP_REGION_CREATE_HUGETLB;
	if (setup->memory == UFFDWP_MEMORY_ANON) {
		area_map(area, setup->memory, setup->length_bytes);
		error = uffdwp_region_attach(runtime, area->base, area->length_bytes, &options, region);
	} else {
		error = uffdwp_region_create(runtime, setup->length_bytes, &options, region);
	}
	if (error)
		die_with_text("opening a region", error);
	area->memory = setup->memory;
	area->base = uffdwp_region_base(*region);
	area->length_bytes = setup->length_bytes;
	area->page_bytes = area_page_bytes(setup->memory);
	/* Where first touches fault, this populates the pages without. */
	bench_must(uffdwp_prepare_write(*region, 0, area->length_bytes), "uffdwp_prepare_write");
	area_fill(area->base, area->length_bytes, 1);
}

const char *library_refuses_move(enum uffdwp_memory memory)
{
	static struct uffdwp_probe_arming found = {.sz = sizeof(found)};

	bench_must(uffdwp_probe_arming(probed(), memory, UFFDWP_ARMING_MOVE, &found), "uffdwp_probe_arming");
	return found.works ? NULL : found.reason;
}

static struct uffdwp_region_stats stats_of(const struct library *library)
{
	struct uffdwp_region_stats stats = {.sz = sizeof(stats)};

	bench_must(uffdwp_region_stats(library->region, &stats), "reading the counters of a region");
	return stats;
}

void library_expect_faults(const struct library *library, uint64_t faults)
{
	struct uffdwp_region_stats stats = stats_of(library);
	uint64_t seen = stats.faults - library->faults_before;
	uint64_t lost = stats.pages_lost - library->lost_before;

	if (seen != faults)
		bench_die("%s: the library resolved %llu faults where %llu pages were written", library->name,
		          (unsigned long long)seen, (unsigned long long)faults);
	if (lost != (library->loss == LOSS_NONE ? 0 : faults))
		bench_die("%s: the library found %llu pages lost where %llu pages were written", library->name,
		          (unsigned long long)lost, (unsigned long long)faults);
}

/* By means that the library does not know of. */
static void lose(const struct library *library)
{
	size_t length_bytes = library->area.length_bytes;
	int result = library->loss == LOSS_ZAP ? madvise(library->area.base, length_bytes, MADV_DONTNEED)
	                                       : fallocate(library->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
	                                                   (off_t)length_bytes);

	bench_must(result ? -errno : 0, "taking the pages away");
}

static void arm(void *self)
{
	struct library *library = self;

	bench_must(uffdwp_region_arm(library->region, 0, library->area.length_bytes), "uffdwp_region_arm");
	if (library->loss != LOSS_NONE)
		lose(library);
}

static void enter(void *self)
{
	struct library *library = self;

	sigaction(SIGBUS, &library->bus, NULL);
	sigaction(SIGSEGV, &library->segment, NULL);
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

void contender_library(struct contender *contender, const char *name, struct library *library,
                       const struct library_setup *setup)
{
	struct uffdwp_region_info info = {.sz = sizeof(info)};
	char cpus[16];

	snprintf(cpus, sizeof(cpus), "%d", setup->cpu);
	library->runtime = library_runtime(setup->handler_threads, setup->cpu == BENCH_ANY_CPU ? NULL : cpus);
	library_region(library->runtime, setup, &library->region, &library->area);
	bench_must(uffdwp_region_info(library->region, &info), "uffdwp_region_info");
	library->name = name;
	library->loss = setup->loss;
	library->faults_before = stats_of(library).faults;
	library->lost_before = stats_of(library).pages_lost;
	library->fd = info.fd;
	sigaction(SIGBUS, NULL, &library->bus);
	sigaction(SIGSEGV, NULL, &library->segment);
	memset(contender, 0, sizeof(*contender));
	contender->name = name;
	contender->self = library;
	contender->area = library->area;
	contender->arm = arm;
	contender->enter = enter;
	contender->close = close_library;
}
