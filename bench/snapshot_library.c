/* SPDX-License-Identifier: MIT */
/*
 * The library's way to an image, by its public interface only: a runtime and a shmem region of its own for each trial.
 */
#include <stdio.h>
#include <string.h>

#include "bench.h"
#include "contender.h"
#include "trial.h"

static struct {
	struct uffdwp *runtime;
	struct uffdwp_region *region;
	struct uffdwp_snapshot *snapshot;
	struct uffdwp_snapshot_progress progress;
} library;

static void open_library(const struct trial_way *way, const struct trial_setup *setup, struct area *area)
{
	struct library_setup region = {
	        .memory = UFFDWP_MEMORY_SHMEM,
	        .mechanism = setup->mechanism,
	        .delivery = (enum uffdwp_delivery)way->variant,
	        .length_bytes = setup->size_bytes,
	};
	char cpus[16];

	snprintf(cpus, sizeof(cpus), "%d", bench_cpu(1));
	library.runtime = library_runtime(0, setup->pin_other ? cpus : NULL);
	library_region(library.runtime, &region, &library.region, area);
}

static void begin(const struct trial_way *way, const struct trial_setup *setup, const char *path)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	int error;

	(void)way;
	options.path = path;
	options.pool_bytes = setup->pool_bytes;
	error = uffdwp_snapshot_begin(library.region, &options, &library.snapshot);
	if (error) {
		char text[512];

		uffdwp_error_text(library.runtime, text, sizeof(text));
		bench_die("uffdwp_snapshot_begin: %s (%s)", text, strerror(-error));
	}
}

static void wait_for_commit(void)
{
	int error;

	library.progress.sz = sizeof(library.progress);
	error = uffdwp_snapshot_wait(library.snapshot, -1, &library.progress);
	if (error) {
		char text[512];

		uffdwp_snapshot_text(library.snapshot, text, sizeof(text));
		bench_die("the snapshot failed: %s (%s)", text, strerror(-error));
	}
}

static void result_of(const struct load_result *during, struct trial_result *result)
{
	const struct uffdwp_snapshot_progress *progress = &library.progress;

	(void)during;
	result->values[TRIAL_PAUSE_NS] = (double)progress->pause_ns;
	result->values[TRIAL_FAULTS] = (double)progress->faults;
	result->values[TRIAL_PAGES_FAULT] = (double)progress->pages_fault;
	result->values[TRIAL_PAGES_PREPARE] = (double)progress->pages_prepare;
	result->values[TRIAL_PAGES_SWEEP] = (double)progress->pages_sweep;
	result->values[TRIAL_WAITS] = (double)progress->waits;
	result->values[TRIAL_PREIMAGE_PEAK_BYTES] = (double)progress->pool_peak_bytes;
	result->values[TRIAL_WRITTEN_BYTES] = (double)progress->bytes_written;
	result->direct = progress->direct;
	result->uring = progress->uring;
}

static void close_library(void)
{
	bench_must(uffdwp_snapshot_free(library.snapshot), "uffdwp_snapshot_free");
	bench_must(uffdwp_region_close(library.region), "uffdwp_region_close");
	bench_must(uffdwp_close(library.runtime), "uffdwp_close");
}

const struct trial_way trial_inline = {
        "inline", UFFDWP_DELIVERY_INLINE, open_library, begin, wait_for_commit, result_of, close_library,
};
const struct trial_way trial_thread = {
        "thread", UFFDWP_DELIVERY_THREAD, open_library, begin, wait_for_commit, result_of, close_library,
};
