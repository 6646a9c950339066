/* SPDX-License-Identifier: MIT */
/*
 * The library's method to make an image, by its public interface only: a runtime and a shmem region of its own for each
 * trial.
 *
 * What a kind asks for is asked of the library where it has it (TRIAL_HAS_KEEP; UFFDWP_BENCH_PARENT, which the build
 * finds in the public header); elsewhere all kinds are snapshots that begin anew.
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

static void open_library(const struct trial_method *method, const struct trial_setup *setup, struct area *area)
{
	struct library_setup region = {
	        .memory = UFFDWP_MEMORY_SHMEM,
	        .mechanism = setup->mechanism,
	        .delivery = (enum uffdwp_delivery)method->variant,
	        .length_bytes = setup->size_bytes,
	};
	char cpus[16];

	snprintf(cpus, sizeof(cpus), "%d", bench_cpu(1));
	library.runtime = library_runtime(0, setup->pin_other ? cpus : NULL);
	library_region(library.runtime, &region, &library.region, area);
}

static void set_kind(enum trial_kind kind, const struct trial_cut *cut, struct uffdwp_snapshot_options *options)
{
#if TRIAL_HAS_KEEP
	if (kind != TRIAL_FIRST)
		options->flags |= UFFDWP_SNAPSHOT_KEEP | UFFDWP_SNAPSHOT_COARSE;
#else
	(void)kind;
#endif
#ifdef UFFDWP_BENCH_PARENT
	options->parent = cut->parent;
#else
	(void)cut;
	(void)options;
#endif
}

static void begin(const struct trial_method *method, const struct trial_setup *setup, const struct trial_cut *cut)
{
	struct uffdwp_snapshot_options options = UFFDWP_SNAPSHOT_OPTIONS_INIT;
	int error;

	options.path = cut->path;
	options.pool_bytes = setup->pool_bytes;
	options.arming = trial_moves(method) ? UFFDWP_ARMING_MOVE : UFFDWP_ARMING_ROUNDS;
	if (!trial_moves(method))
		set_kind(setup->kind, cut, &options);
	error = uffdwp_snapshot_begin(library.region, &options, &library.snapshot);
	if (error) {
		char text[512];

		uffdwp_error_text(text, sizeof(text));
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

static void add_rounds(const struct uffdwp_snapshot_progress *progress, double *values)
{
#if TRIAL_HAS_KEEP
	values[TRIAL_ROUNDS] = (double)progress->rounds;
	values[TRIAL_ROUNDS_NS] = (double)progress->rounds_ns;
	values[TRIAL_BRAKED_NS] = (double)progress->braked_ns;
	values[TRIAL_PAGES_ROUNDS] = (double)progress->pages_rounds;
#else
	(void)progress;
	(void)values;
#endif
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
	add_rounds(progress, result->values);
	result->direct = progress->direct;
	result->uring = progress->uring;
}

static void end(void)
{
	bench_must(uffdwp_snapshot_free(library.snapshot), "uffdwp_snapshot_free");
}

static void close_library(void)
{
	bench_must(uffdwp_region_close(library.region), "uffdwp_region_close");
	bench_must(uffdwp_close(library.runtime), "uffdwp_close");
}

const struct trial_method trial_inline = {
        "inline", UFFDWP_DELIVERY_INLINE, open_library, begin, wait_for_commit, result_of, end, close_library, NULL,
};
const struct trial_method trial_thread = {
        "thread", UFFDWP_DELIVERY_THREAD, open_library, begin, wait_for_commit, result_of, end, close_library, NULL,
};
const struct trial_method trial_move = {
        "move", UFFDWP_DELIVERY_THREAD, open_library, begin, wait_for_commit, result_of, end, close_library, NULL,
};
const struct trial_method trial_inline_move = {
        "inline_move", UFFDWP_DELIVERY_INLINE, open_library, begin, wait_for_commit, result_of,
        end,           close_library,          NULL,
};
